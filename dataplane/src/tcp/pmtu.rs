//! Segment size: what the path carries, lowered by ICMP (RFC 1191, 8201 with the checks of
//! RFC 5927) or by black-hole detection (after RFC 4821), raised again later.

use core::time::Duration;

use crate::time::{Instant, Span};

/// Sizes tried when full segments vanish: what fits 1280 bytes with IPv6, and the default MSS of
/// RFC 9293 §3.7.1.
const BASES: [u16; 2] = [1220, 536];
/// Smallest MTU that an ICMP error may ask for: below Linux's `min_pmtu` (552) and IPv6's
/// minimum it is an attack, not a link.
const MTU_MIN_IPV4: u32 = 552;
const MTU_MIN_IPV6: u32 = 1280;
/// Fixed header bytes of IPv6 and TCP.
const HEADER_BYTES_IPV6: u32 = 60;
/// Timeouts in a row that make full-sized segments suspect.
const SUSPECT_RTOS: u32 = 2;
/// RFC 8201 §4: not before 10 minutes for what a router said.
const RAISE_AFTER_ICMP: Duration = Duration::from_secs(600);
/// A path that was down looks like a black hole, so the first guess is reviewed soon.
const RAISE_AFTER_GUESS_MIN: Duration = Duration::from_secs(5);
/// A size that did not time out for so long after it was tried again works.
const WORKS_AFTER: Duration = Duration::from_secs(10);

/// The segment size in force. All sizes are MSS as in the option: TCP options not subtracted.
#[derive(Clone, Debug)]
pub(super) struct PathMtu {
    ceiling: u16,
    current: u16,
    header_bytes: u16,
    raise_at: Option<Instant>,
    /// Of a path on which large segments ever vanished.
    doubt: Option<Box<Doubt>>,
}

/// A guess at the size, and what came of it.
#[derive(Clone, Debug)]
struct Doubt {
    /// How long the present guess stands, and how long the next one will.
    guess: Option<Span>,
    next_guess: Span,
    /// When the full size was last tried again.
    raised_at: Option<Instant>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self {
            guess: None,
            next_guess: RAISE_AFTER_GUESS_MIN.into(),
            raised_at: None,
        }
    }
}

impl PathMtu {
    pub(super) fn new(mss: u16, header_bytes: u16) -> Self {
        Self {
            ceiling: mss,
            current: mss,
            header_bytes,
            raise_at: None,
            doubt: None,
        }
    }

    /// The peer's or the owner's limit.
    pub(super) fn limit(&mut self, mss: u16) {
        self.ceiling = self.ceiling.min(mss);
        self.current = self.current.min(mss);
    }

    pub(super) fn mss(&self) -> u16 {
        self.current
    }

    /// A router named the next hop's MTU; true if that lowers the size. The caller has checked
    /// the embedded sequence number.
    pub(super) fn on_icmp(&mut self, now: Instant, mtu: u32) -> bool {
        let header = u32::from(self.header_bytes);
        let least = if header >= HEADER_BYTES_IPV6 {
            MTU_MIN_IPV6
        } else {
            MTU_MIN_IPV4
        };
        let mss = u16::try_from(mtu.max(least).saturating_sub(header)).unwrap_or(u16::MAX);
        if mss >= self.current {
            return false;
        }
        self.current = mss;
        self.raise_at = Some(now + RAISE_AFTER_ICMP);
        true
    }

    /// The `rtos`th timeout in a row hit a segment of `len` bytes (options included); true if
    /// the size was lowered.
    pub(super) fn on_timeout(&mut self, now: Instant, rtos: u32, len: u32) -> bool {
        if rtos < SUSPECT_RTOS {
            return false;
        }
        let base = BASES.into_iter().find(|base| u32::from(*base) < len);
        let Some(base) = base.filter(|base| *base < self.current) else {
            if let Some(doubt) = &mut self.doubt
                && doubt.guess.take().is_some()
            {
                // The smallest vanish, too: it was not the size. Full size with the first ACK.
                self.raise_at = Some(now);
                doubt.next_guess = RAISE_AFTER_GUESS_MIN.into();
            }
            return false;
        };
        let doubt = self.doubt.get_or_insert_default();
        let stands = match doubt.guess {
            Some(stands) => stands.get(),
            None => {
                if doubt.raised_at.is_some_and(|at| now - at > WORKS_AFTER) {
                    doubt.next_guess = RAISE_AFTER_GUESS_MIN.into();
                }
                let stands = doubt.next_guess.get();
                doubt.next_guess = (stands * 8).min(RAISE_AFTER_ICMP).into();
                stands
            }
        };
        doubt.guess = Some(stands.into());
        self.current = base;
        self.raise_at = Some(now + stands);
        true
    }

    /// Data gets through; true if it is time to try the full size again.
    pub(super) fn on_progress(&mut self, now: Instant) -> bool {
        if self.raise_at.is_some_and(|at| at <= now) {
            self.raise_at = None;
            if let Some(doubt) = &mut self.doubt {
                doubt.guess = None;
                doubt.raised_at = Some(now);
            }
            self.current = self.ceiling;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_lowers_within_reason() {
        let mut v4 = PathMtu::new(1460, 40);
        assert!(!v4.on_icmp(Instant::ZERO, 1500));
        assert!(v4.on_icmp(Instant::ZERO, 1400));
        assert_eq!(v4.mss(), 1360);
        assert!(v4.on_icmp(Instant::ZERO, 68));
        assert_eq!(v4.mss(), 512);
        let mut v6 = PathMtu::new(1440, 60);
        assert!(v6.on_icmp(Instant::ZERO, 600));
        assert_eq!(v6.mss(), 1220);
    }

    fn s(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn a_black_hole_lowers_twice_and_is_reviewed_ever_later() {
        let mut path = PathMtu::new(1460, 40);
        assert!(!path.on_timeout(s(0), 1, 1460));
        assert!(path.on_timeout(s(0), 2, 1460));
        assert_eq!(path.mss(), 1220);
        assert!(path.on_timeout(s(0), 3, 1220));
        assert_eq!(path.mss(), 536);
        assert!(!path.on_progress(Instant::from_millis(4_999)));
        assert!(path.on_progress(s(5)));
        assert_eq!(path.mss(), 1460);
        assert!(path.on_timeout(s(6), 2, 1460));
        assert!(!path.on_progress(s(45)));
        assert!(path.on_progress(s(46)));
        // It worked for long: what comes now is a new matter.
        assert!(path.on_timeout(s(100), 2, 1460));
        assert!(path.on_progress(s(105)));
    }

    #[test]
    fn an_outage_is_not_blamed_on_the_size() {
        let mut path = PathMtu::new(1460, 40);
        for rtos in 1..20 {
            path.on_timeout(s(0), rtos, path.mss().into());
        }
        assert_eq!(path.mss(), 536);
        assert!(path.on_progress(s(1)), "with the first ACK");
        assert_eq!(path.mss(), 1460);
        assert!(path.on_timeout(s(2), 2, 1460));
        assert!(path.on_progress(s(7)), "and no grudge is borne");
    }
}
