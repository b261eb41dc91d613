//! Data sequence numbers on the wire, stream offsets inside.
//!
//! A direction's stream offset counts its bytes from zero (IDSN + 1) and never wraps, so
//! queues compare plain integers; a connection cannot move 2^64 bytes. The 64-bit DSN is
//! `base + offset`, modulo 2^64; 32-bit forms are expanded near an expected offset.

use crate::wire::types::DataSeq;

/// Numbers further than this from where the stream stands are implausible: no window is
/// larger than 2^30 (RFC 7323 §2.3), and subflow buffers add little to it.
const PLAUSIBLE: u64 = 1 << 31;

/// One direction's data sequence space.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DataSpace {
    base: DataSeq,
}

impl DataSpace {
    /// The IDSN itself stands for the SYN: data starts behind it (RFC 8684 §3.1).
    pub(crate) fn new(idsn: u64) -> Self {
        #[cfg(test)]
        let idsn = idsn_for_test(idsn);
        Self {
            base: DataSeq(idsn) + 1,
        }
    }

    /// The number of the byte at `offset`.
    pub(crate) fn dsn(self, offset: u64) -> DataSeq {
        self.base + offset
    }

    /// The offset of a number from the wire, read near `expected`. `None` if it lies before
    /// the stream or implausibly far away.
    pub(crate) fn offset(self, value: u64, wide: bool, expected: u64) -> Option<u64> {
        let near = self.dsn(expected);
        let seq = if wide {
            DataSeq(value)
        } else {
            near.expand(DataSeq(value).low())
        };
        let distance = seq.diff(near);
        if distance.unsigned_abs() > PLAUSIBLE {
            return None;
        }
        expected.checked_add_signed(distance)
    }
}

/// A 32-bit position in a stream of offsets, read near `expected`.
pub(crate) fn expand32(low: u32, expected: u64) -> Option<u64> {
    let distance = DataSeq(expected).expand(low).diff(DataSeq(expected));
    expected.checked_add_signed(distance)
}

#[cfg(test)]
thread_local! {
    /// Every IDSN of this thread's connections: no key is known whose hash ends near 2^64.
    pub(crate) static IDSN_FOR_TEST: std::cell::Cell<Option<u64>> =
        const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn idsn_for_test(idsn: u64) -> u64 {
    IDSN_FOR_TEST.get().unwrap_or(idsn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Rows 49, 50 and 52: whichever form a number arrives in, it is read as itself as
        /// long as it lies within 2^31 of where the stream stands; reordering across a wrap
        /// is not taken for another turn of the counter.
        #[test]
        fn numbers_near_the_stream_are_read_right_in_either_form(
            idsn in any::<u64>(),
            stands in 0u64..1 << 40,
            near in -0x7fff_ffff_i64..0x7fff_ffff,
        ) {
            let space = DataSpace::new(idsn);
            let offset = stands.checked_add_signed(near);
            let dsn = space.dsn(stands).0.wrapping_add_signed(near);
            prop_assert_eq!(space.offset(dsn, true, stands), offset);
            prop_assert_eq!(space.offset(dsn & 0xffff_ffff, false, stands), offset);
        }

        /// Rows 52 and 115: eight bytes that say a turn of the counter too much or too
        /// little are not believed.
        #[test]
        fn another_turn_of_the_counter_is_implausible(idsn in any::<u64>(), stands in 1u64 << 33..1 << 40, turns in 1i64..16) {
            let space = DataSpace::new(idsn);
            for turns in [turns << 32, -turns << 32] {
                let dsn = space.dsn(stands).0.wrapping_add_signed(turns);
                prop_assert_eq!(space.offset(dsn, true, stands), None);
            }
        }
    }

    #[test]
    fn both_widths_are_read_near_the_expected_offset_across_wraps() {
        let space = DataSpace::new(u64::MAX - 10);
        for offset in [0u64, 5, 9, 10, 11, 0xffff_ffff, 0x1_0000_0004] {
            let dsn = space.dsn(offset);
            assert_eq!(space.offset(dsn.0, true, offset + 3), Some(offset));
            assert_eq!(
                space.offset(u64::from(dsn.low()), false, offset + 1000),
                Some(offset)
            );
        }
        assert_eq!(
            space.offset(u64::MAX - 10, true, 0),
            None,
            "the IDSN itself"
        );
        assert_eq!(space.offset(space.dsn(1 << 40).0, true, 0), None);
    }

    #[test]
    fn subflow_positions_expand_past_four_gigabytes() {
        assert_eq!(expand32(5, 0xffff_fff0), Some(0x1_0000_0005));
        assert_eq!(expand32(0xffff_fff0, 5), None);
    }
}
