//! Time as a value.
//!
//! Nothing below the worker reads a clock: whoever drives the engine says what time it is.
//! An [`Instant`] counts nanoseconds from an origin that only its owner knows (the worker's
//! monotonic clock, or zero in a simulation), so instants of different owners must not be mixed.

use core::num::NonZeroU64;
use core::ops::{Add, AddAssign, Sub};
pub use core::time::Duration;

/// A point in time: nanoseconds since an arbitrary origin. Good for 584 years.
///
/// Kept as one more than that, so that a deadline that may be missing takes eight bytes:
/// connections have dozens.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

const _: () = assert!(size_of::<Option<Instant>>() == 8, "deadlines are many");

impl core::fmt::Debug for Instant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Instant").field(&self.as_nanos()).finish()
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// Later than everything; "never" for a timer.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// An instant this many nanoseconds after the origin, saturating.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(ns))
    }

    /// An instant this many microseconds after the origin, saturating.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self::from_nanos(us.saturating_mul(1_000))
    }

    /// An instant this many milliseconds after the origin, saturating.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self::from_nanos(ms.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.as_nanos() / 1_000
    }

    /// Whole milliseconds since the origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.as_nanos() / 1_000_000
    }

    /// `self + d`, or `None` past the end of time.
    #[must_use]
    pub fn checked_add(self, d: Duration) -> Option<Self> {
        let ns = u64::try_from(d.as_nanos()).ok()?;
        self.0.checked_add(ns).map(Self)
    }

    /// `self - d`, or `None` before the origin.
    #[must_use]
    pub fn checked_sub(self, d: Duration) -> Option<Self> {
        let ns = u64::try_from(d.as_nanos()).ok()?;
        let left = self.0.get().checked_sub(ns)?;
        NonZeroU64::new(left).map(Self)
    }

    /// `self + d`, or [`Instant::MAX`] past the end of time.
    #[must_use]
    pub fn saturating_add(self, d: Duration) -> Self {
        self.checked_add(d).unwrap_or(Self::MAX)
    }

    /// `self - d`, or [`Instant::ZERO`] before the origin.
    #[must_use]
    pub fn saturating_sub(self, d: Duration) -> Self {
        self.checked_sub(d).unwrap_or(Self::ZERO)
    }

    /// Time from `earlier` to `self`; `None` if `earlier` is later.
    #[must_use]
    pub fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        let ns = self.0.get().checked_sub(earlier.0.get())?;
        Some(Duration::from_nanos(ns))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// Saturates at [`Instant::MAX`].
impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        self.saturating_add(d)
    }
}

/// Saturates at [`Instant::MAX`].
impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

/// Saturates at [`Instant::ZERO`].
impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        self.saturating_sub(d)
    }
}

/// Saturates at zero when the right side is later.
impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// A [`Duration`] in half its space, for what is kept per connection: whole seconds and
/// nanoseconds, so that converting costs no division.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Span {
    s: u32,
    ns: u32,
}

impl Span {
    pub(crate) const fn get(self) -> Duration {
        Duration::new(self.s as u64, self.ns)
    }
}

/// Saturates at 136 years.
impl From<Duration> for Span {
    fn from(d: Duration) -> Self {
        match u32::try_from(d.as_secs()) {
            Ok(s) => Self {
                s,
                ns: d.subsec_nanos(),
            },
            Err(_) => Self {
                s: u32::MAX,
                ns: 999_999_999,
            },
        }
    }
}

/// The first of two deadlines. (Asked several times per batch, and an iterator over options of
/// them compiles to a multiple of this.)
#[inline]
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_duration_up_to_136_years() {
        for d in [
            Duration::ZERO,
            Duration::new(3, 999_999_999),
            Duration::from_secs(u64::from(u32::MAX)),
        ] {
            assert_eq!(Span::from(d).get(), d);
        }
        let most = Span::from(Duration::MAX).get();
        assert_eq!(most, Duration::new(u64::from(u32::MAX), 999_999_999));
    }

    #[test]
    fn units_convert_and_truncate() {
        let t = Instant::from_micros(1_999);
        assert_eq!(
            (t.as_nanos(), t.as_micros(), t.as_millis()),
            (1_999_000, 1_999, 1)
        );
        assert_eq!(Instant::from_millis(2), Instant::from_nanos(2_000_000));
    }

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let t = Instant::from_nanos(5);
        assert_eq!(t - Duration::from_nanos(6), Instant::ZERO);
        assert_eq!(t - Instant::from_nanos(9), Duration::ZERO);
        assert_eq!(Instant::from_nanos(9) - t, Duration::from_nanos(4));
        assert_eq!(t + Duration::MAX, Instant::MAX);
        assert_eq!(t.checked_add(Duration::MAX), None);
        assert_eq!(t.checked_sub(Duration::from_nanos(6)), None);
        assert_eq!(Instant::MAX + Duration::from_nanos(1), Instant::MAX);
        assert_eq!(Instant::from_nanos(u64::MAX), Instant::MAX);
        let origin = Instant::default();
        assert_eq!((origin, origin.as_nanos()), (Instant::ZERO, 0));
        assert_eq!(t.checked_sub(Duration::from_nanos(5)), Some(origin));
        assert_eq!(format!("{t:?}"), "Instant(5)");
    }
}
