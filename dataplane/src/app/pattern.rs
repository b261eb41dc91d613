//! The byte stream that `source` sends: the same at every offset of every connection, so
//! that any receiver can check what it got without having seen the rest.
//!
//! Byte `i` is `TABLE[i % PERIOD]`. The period is prime: no segment size, window or
//! page divides it, so that bytes that moved show up.

use crate::checksum::{Sum, copy_and_sum};

/// Length of one period: the largest prime below 2^16.
pub const PERIOD: usize = 65_521;

static TABLE: [u8; PERIOD] = table();

const fn table() -> [u8; PERIOD] {
    let mut table = [0; PERIOD];
    let mut i = 0;
    let mut index: u32 = 0;
    while i < PERIOD {
        table[i] = mix(index).to_be_bytes()[0];
        i += 1;
        index += 1;
    }
    table
}

/// MurmurHash3's finalizer. A mere multiplication would spread the bytes so evenly that pieces
/// of the same length have nearly the same sum, and a checksum that they are moved under would
/// be right once in a hundred times instead of once in 65,535.
const fn mix(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85EB_CA6B);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xC2B2_AE35);
    hash ^ (hash >> 16)
}

/// Writes the pattern from `offset` of the stream into `out`, one pass, and returns its sum.
pub fn fill(offset: u64, out: &mut [u8]) -> Sum {
    // Nearly always in one piece.
    let piece = at(offset, out.len());
    if piece.len() == out.len() {
        return copy_and_sum(out, piece);
    }
    let mut sum = Sum::default();
    let mut done = 0;
    while done < out.len() {
        let piece = at(offset + done as u64, out.len() - done);
        let part = copy_and_sum(&mut out[done..done + piece.len()], piece);
        sum = sum.combine(part, done % 2 == 1);
        done += piece.len();
    }
    sum
}

/// Up to `wanted` bytes of the pattern at `offset` that lie in one piece; at least one.
#[must_use]
pub fn at(offset: u64, wanted: usize) -> &'static [u8] {
    let start = usize::try_from(offset % PERIOD as u64).expect("below the period");
    &TABLE[start..PERIOD.min(start + wanted)]
}

/// Whether `bytes` are what the pattern has at `offset`; the offset of the first byte
/// that is not, otherwise.
///
/// # Errors
/// The stream offset of the first wrong byte.
pub fn check(offset: u64, bytes: &[u8]) -> Result<(), u64> {
    let mut done = 0;
    while done < bytes.len() {
        let expected = at(offset + done as u64, bytes.len() - done);
        let got = &bytes[done..done + expected.len()];
        if got != expected {
            let first = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
            return Err(offset + (done + first) as u64);
        }
        done += expected.len();
    }
    Ok(())
}

/// The largest mapping (RFC 8684 §3.3.1): without a checksum, as much may be spoiled unnoticed
/// by a single change.
pub const STRETCH: u64 = 65_535;

/// Where a stream differs from the pattern, from its start on.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Differences {
    /// First and last byte that differ.
    pub wrong: Option<(u64, u64)>,
    /// How many stretches of [`STRETCH`] bytes it takes to cover all that differ.
    pub stretches: u64,
    covered: u64,
}

impl Differences {
    /// The stream goes on with these bytes, from this offset.
    pub fn take(&mut self, offset: u64, bytes: &[u8]) {
        if check(offset, bytes).is_ok() {
            return;
        }
        for (here, byte) in (offset..).zip(bytes) {
            if at(here, 1)[0] == *byte {
                continue;
            }
            let first = self.wrong.map_or(here, |(first, _)| first);
            self.wrong = Some((first, here));
            if here >= self.covered {
                self.stretches += 1;
                self.covered = here + STRETCH;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;

    #[test]
    fn differences_are_counted_in_stretches() {
        let mut bytes = vec![0; 300_000];
        fill(0, &mut bytes);
        let mut differences = Differences::default();
        for at in [1_000, 66_534, 66_535, 250_000] {
            bytes[at] ^= 1;
        }
        for (n, piece) in bytes.chunks(70_000).enumerate() {
            differences.take(n as u64 * 70_000, piece);
        }
        assert_eq!(differences.wrong, Some((1_000, 250_000)));
        assert_eq!(differences.stretches, 3);
    }

    #[test]
    fn pieces_agree_with_the_whole_over_the_wrap() {
        let mut whole = vec![0; 3 * PERIOD];
        fill(0, &mut whole);
        for (offset, len) in [
            (0, 1),
            (PERIOD - 1, 3),
            (PERIOD + 7, 2 * PERIOD - 9),
            (65_535, 1420),
        ] {
            let mut part = vec![0; len];
            let sum = fill(offset as u64, &mut part);
            assert_eq!(part, whole[offset..offset + len]);
            assert_eq!(sum.fold(), checksum::sum(&part).fold());
            assert_eq!(check(offset as u64, &part), Ok(()));
        }
    }

    /// What a box moves within a mapping has to show in the mapping's checksum.
    #[test]
    fn moved_pieces_have_sums_as_different_as_those_of_random_bytes() {
        let sum = |offset: u64| {
            let mut piece = [0; 2950];
            fill(offset, &mut piece);
            checksum::sum(&piece).fold()
        };
        let moved = (0..20_000).filter(|i| sum(i * 97) == sum(i * 97 + 5));
        // Once in 65,535 times, so more than six in 20,000 are one in a million.
        assert!(moved.count() <= 6);
    }

    #[test]
    fn a_wrong_byte_is_named() {
        let mut part = vec![0; 3000];
        fill(64_000, &mut part);
        part[2500] ^= 1;
        assert_eq!(check(64_000, &part), Err(66_500));
    }
}
