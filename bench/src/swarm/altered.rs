//! Streams that boxes have changed: what an application may have got of them.

use braid_dataplane::checksum;
use braid_dataplane::wire::mptcp::verify_dss_checksum;

use crate::middlebox::tap::{Mapped, Passed};

/// The data sequence number of the stream's first byte. The first bytes on the subflow that a
/// connection begins with are the first of the stream.
fn first_dsn(initial: &Passed) -> Option<u64> {
    let mapped = initial.mappings.iter().filter(|m| m.ssn > 0 && m.len > 0);
    let first = mapped.filter(|m| m.dsn.is_some()).min_by_key(|m| m.ssn)?;
    Some(first.dsn?.wrapping_sub(u64::from(first.ssn - 1)))
}

/// The bytes that a mapping is about, and where in the stream it puts them.
fn mapped<'a>(
    bytes: &'a [u8],
    m: &Mapped,
    first: u64,
    checksums: bool,
) -> Option<(usize, &'a [u8])> {
    let at = usize::try_from(m.ssn.checked_sub(1)?).ok()?;
    let bytes = bytes.get(at..)?;
    let len = usize::from(m.len.checked_sub(u16::from(m.fin))?);
    let whole = bytes.len() >= len;
    let bytes = &bytes[..bytes.len().min(len)];
    let dsn = m.dsn.unwrap_or(first);
    // No stream here is longer than what 32 bits can tell.
    let off = (dsn as u32).wrapping_sub(first as u32);
    let dsn = first.wrapping_add(u64::from(off));
    let right = |sum| verify_dss_checksum(dsn, m.ssn, m.len, checksum::sum(bytes), sum);
    let believed = !checksums || (whole && m.checksum.is_some_and(right));
    believed.then_some((off as usize, bytes))
}

/// The first byte that an application got although no mapping puts it where it is. `subflows`
/// are what passed to it, the one that the connection began with in front. With `checksums`
/// only those mappings count whose checksum is right: bytes that a box has changed may be among
/// them, for one change in 65,535 leaves it as it was, and nobody can see that (RFC 1071).
pub(super) fn unmapped(got: &[u8], subflows: &[Passed], checksums: bool) -> Option<usize> {
    let mut known = vec![false; got.len()];
    let first = subflows.first().and_then(first_dsn).unwrap_or(0);
    for subflow in subflows {
        for m in &subflow.mappings {
            let Some((off, bytes)) = mapped(&subflow.bytes, m, first, checksums) else {
                continue;
            };
            let places = known.iter_mut().zip(got).skip(off);
            for ((known, got), byte) in places.zip(bytes) {
                *known |= got == byte;
            }
        }
    }
    known.iter().position(|known| !known)
}

#[cfg(test)]
mod tests {
    use braid_dataplane::wire::mptcp::dss_checksum;

    use super::*;

    const FIRST: u64 = u64::MAX - 3;

    fn map(off: u64, ssn: u32, bytes: &[u8]) -> Mapped {
        let (dsn, len) = (FIRST.wrapping_add(off), u16::try_from(bytes.len()).unwrap());
        Mapped {
            dsn: Some(dsn),
            ssn,
            len,
            fin: false,
            checksum: Some(dss_checksum(dsn, ssn, len, checksum::sum(bytes))),
        }
    }

    fn passed(bytes: &[u8], mappings: &[Mapped]) -> Passed {
        Passed {
            bytes: bytes.to_vec(),
            mappings: mappings.to_vec(),
        }
    }

    #[test]
    fn bytes_are_where_a_mapping_puts_what_passed() {
        let capable = Mapped {
            dsn: None,
            ..map(0, 1, b"abcd")
        };
        // A box has put "xy" in front of what is mapped fifth on the first subflow.
        let first = passed(b"abcdxyefgh", &[capable, map(4, 5, b"efgh")]);
        let second = passed(b"ijkl", &[map(8, 1, b"ijkl")]);
        let subflows = [first, second];
        assert_eq!(unmapped(b"abcdxyefijkl", &subflows, false), None);
        assert_eq!(unmapped(b"abcdxyef", &subflows, false), None, "so far");
        assert_eq!(unmapped(b"abcdefghijkl", &subflows, false), Some(4));
        assert_eq!(unmapped(b"abcdxyefghkl", &subflows, false), Some(8));
        assert_eq!(unmapped(b"abcdxyefijklm", &subflows, false), Some(12));
        // The checksum is that of what was sent.
        assert_eq!(unmapped(b"abcdxyefijkl", &subflows, true), Some(4));
    }

    #[test]
    fn only_what_no_checksum_can_see_is_believed() {
        let swapped = passed(b"cdab", &[map(0, 1, b"abcd")]);
        assert_eq!(
            unmapped(b"cdab", &[swapped], true),
            None,
            "as any other order"
        );
        let changed = passed(b"cbad", &[map(0, 1, b"abcd")]);
        assert_eq!(unmapped(b"cbad", &[changed], true), None, "of even places");
        let changed = passed(b"bacd", &[map(0, 1, b"abcd")]);
        assert_eq!(unmapped(b"bacd", &[changed], true), Some(0));
        let cut = passed(b"abc", &[map(0, 1, b"abcd")]);
        assert_eq!(
            unmapped(b"abc", &[cut], true),
            Some(0),
            "none of it before all"
        );
    }
}
