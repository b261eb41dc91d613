//! Number spaces and identifiers that cross module boundaries.

use core::cmp::Ordering;
use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};
use std::net::SocketAddr;

/// The two ends of a subflow, seen from one of them.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FourTuple {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
}

impl FourTuple {
    /// The same flow seen from the other end.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
        }
    }

    /// Whether both ends are IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        self.local.is_ipv6() && self.remote.is_ipv6()
    }
}

impl fmt::Display for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <-> {}", self.local, self.remote)
    }
}

/// A data sequence number (RFC 8684 §3.3.1): 64 bits that wrap, ordered by signed distance.
///
/// The order is only meaningful between numbers less than 2^63 apart, and it is not
/// transitive; therefore there is no `Ord`.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct DataSeq(pub u64);

impl DataSeq {
    /// Bytes from `earlier` to `self`; negative if `earlier` is in fact later.
    #[inline]
    #[must_use]
    pub const fn diff(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// The 64-bit number nearest to `self` whose low half is `low`: how a 4-byte DSN or
    /// DATA_ACK is understood (RFC 8684 §3.3.1). Distances up to 2^31 are resolved correctly.
    #[inline]
    #[must_use]
    pub const fn expand(self, low: u32) -> Self {
        let distance = low.wrapping_sub(self.0 as u32).cast_signed();
        Self(self.0.wrapping_add_signed(distance as i64))
    }

    /// The low 32 bits: the 4-byte form.
    #[inline]
    #[must_use]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// The later of two.
    #[inline]
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if self.diff(other) >= 0 { self } else { other }
    }

    /// The earlier of two.
    #[inline]
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if self.diff(other) <= 0 { self } else { other }
    }
}

impl PartialOrd for DataSeq {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.diff(*other).cmp(&0))
    }
}

impl Add<u64> for DataSeq {
    type Output = Self;
    #[inline]
    fn add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u64> for DataSeq {
    #[inline]
    fn add_assign(&mut self, bytes: u64) {
        *self = *self + bytes;
    }
}

impl Sub<u64> for DataSeq {
    type Output = Self;
    #[inline]
    fn sub(self, bytes: u64) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

impl SubAssign<u64> for DataSeq {
    #[inline]
    fn sub_assign(&mut self, bytes: u64) {
        *self = *self - bytes;
    }
}

/// Bytes from the right side up to the left, modulo 2^64. For a signed answer see
/// [`DataSeq::diff`].
impl Sub for DataSeq {
    type Output = u64;
    #[inline]
    fn sub(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl fmt::Debug for DataSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataSeq({:#018x})", self.0)
    }
}

impl fmt::Display for DataSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Names a connection to the host that owns it (RFC 8684 §3.2).
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Token(pub u32);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One side's key of a connection (RFC 8684 §3.1), as the number its network-order bytes
/// spell. It authenticates joins, so `Debug` does not show it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Key(pub u64);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// An Address ID (RFC 8684 §3.2), unique within one host's side of a connection.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct AddressId(pub u8);

impl AddressId {
    /// The address of the initial subflow.
    pub const INITIAL: Self = Self(0);
}

impl fmt::Display for AddressId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn data_sequence_numbers_order_across_the_wrap() {
        let before = DataSeq(u64::MAX - 1);
        let after = before + 4;
        assert_eq!(after, DataSeq(2));
        assert_eq!(before.partial_cmp(&after), Some(Ordering::Less));
        assert_eq!(after.partial_cmp(&before), Some(Ordering::Greater));
        assert_eq!(after.partial_cmp(&after), Some(Ordering::Equal));
        assert_eq!((after.diff(before), before.diff(after)), (4, -4));
        assert_eq!(after - before, 4);
        assert_eq!(before.later(after), after);
        assert_eq!(before.earlier(after), before);
    }

    #[test]
    fn four_byte_numbers_expand_across_a_wrap_of_the_low_half() {
        let reference = DataSeq(0x0000_0001_ffff_fff0);
        assert_eq!(reference.expand(0x10), DataSeq(0x0000_0002_0000_0010));
        assert_eq!(
            reference.expand(0xffff_0000),
            DataSeq(0x0000_0001_ffff_0000)
        );
        assert_eq!(DataSeq(5).expand(0xffff_ffff), DataSeq(u64::MAX));
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key(0x1234)), "Key(..)");
    }

    proptest! {
        #[test]
        fn expansion_finds_any_number_within_reach(base: u64, distance: i32) {
            let want = DataSeq(base.wrapping_add_signed(i64::from(distance)));
            prop_assert_eq!(DataSeq(base).expand(want.low()), want);
        }
    }
}
