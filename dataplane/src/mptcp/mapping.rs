//! Received mappings of one subflow, and the in-order subflow bytes that wait for them.
//!
//! Positions are subflow stream offsets: byte 0 is the one after the SYN (relative SSN 1).
//! A mapping once declared does not change (RFC 8684 §3.3.1): the first one wins. Bytes
//! without a mapping wait for one until bytes behind them are mapped or the owner's limit
//! is reached; with checksums, a mapping is released whole or not at all.

use std::collections::VecDeque;

use crate::buf::Chain;
use crate::checksum::Sum;
use crate::lazy::Lazy;
use crate::wire::mptcp::verify_dss_checksum;

/// Mappings kept per subflow. A peer that maps every 512-byte segment of a 4 MiB window on
/// its own needs as many.
const MAPPINGS_MAX: usize = 8192;

/// One declared mapping.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Position of the first byte in the subflow.
    pub(crate) pos: u64,
    /// Stream offset of the first byte.
    pub(crate) off: u64,
    /// Data bytes, a DATA_FIN not counted.
    pub(crate) len: u64,
    /// The DATA_FIN follows the last byte.
    pub(crate) fin: bool,
    /// DSS checksum, with the fields it covers.
    pub(crate) checksum: Option<MappingChecksum>,
}

/// What verification needs, as it stood on the wire.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct MappingChecksum {
    /// Full 64-bit DSN.
    pub(crate) dsn: u64,
    /// Relative subflow sequence number.
    pub(crate) ssn: u32,
    /// Data-level length, DATA_FIN counted.
    pub(crate) len: u16,
    /// The checksum.
    pub(crate) value: u16,
}

impl MappingChecksum {
    /// Whether the payload's sum fits.
    pub(crate) fn verify(&self, payload: Sum) -> bool {
        verify_dss_checksum(self.dsn, self.ssn, self.len, payload, self.value)
    }
}

impl Mapping {
    fn end(&self) -> u64 {
        self.pos + self.len
    }

    /// Same bytes at the same place.
    fn agrees(&self, other: &Mapping) -> bool {
        self.off.wrapping_sub(self.pos) == other.off.wrapping_sub(other.pos)
    }
}

/// What became of a declared mapping.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Declared {
    /// Kept.
    New,
    /// Known already, or all of its bytes have passed.
    Known,
    /// Contradicts one that was declared before.
    Conflict,
    /// No room.
    Full,
}

/// What the bytes at hand amount to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Bytes for the stream. `fin`: the DATA_FIN follows them.
    Deliver {
        /// Stream offset.
        off: u64,
        /// The bytes.
        chain: Chain,
        /// The DATA_FIN follows.
        fin: bool,
    },
    /// The checksum of this mapping is wrong. Its bytes are still held.
    BadChecksum(Mapping),
    /// Bytes that no mapping will cover any more; they are dropped.
    Dropped(usize),
    /// Nothing to do until more arrives.
    Wait,
}

/// The receive side of one subflow above TCP.
#[derive(Debug, Default)]
pub(crate) struct RxMappings {
    /// Sorted by position, without overlap.
    queue: VecDeque<Mapping>,
    /// In-order bytes from `pos` on.
    held: Lazy<Chain>,
    pos: u64,
    /// Bytes went by without a mapping and were dropped.
    dropped: bool,
    /// Where a mapping ended before the segment that carried it did.
    overhang: Option<u64>,
}

impl RxMappings {
    /// Position of the first byte not yet dealt with.
    pub(crate) fn pos(&self) -> u64 {
        self.pos
    }

    /// Whether what is held and what follows is the connection's stream from `nxt` on. A
    /// position beyond it means repetitions, which do no harm once they have gone by, or
    /// bytes that were dropped.
    pub(crate) fn continues(&self, nxt: u64) -> bool {
        self.pos == nxt || (self.held.is_empty() && !self.dropped)
    }

    /// Whether no mapping at hand says otherwise: that bytes from `pos` on are the stream from
    /// `nxt` on. A peer that has sent bytes a second time says so by nothing else.
    pub(crate) fn is_linear(&self, nxt: u64) -> bool {
        let ahead = |m: &&Mapping| m.end() > self.pos;
        let mut ahead = self.queue.iter().filter(ahead);
        ahead.all(|m| m.off.wrapping_sub(m.pos) == nxt.wrapping_sub(self.pos))
    }

    /// Where the last mapping at hand ends.
    pub(crate) fn mapped_to(&self) -> Option<u64> {
        self.queue.back().map(Mapping::end)
    }

    /// Where the last mapping ended that was shorter than its segment.
    pub(crate) fn overhang(&self) -> Option<u64> {
        self.overhang
    }

    /// A mapping ended at `at`, and the segment that carried it did not.
    pub(crate) fn set_overhang(&mut self, at: Option<u64>) {
        self.overhang = at;
    }

    /// Bytes that wait.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Bytes still missing of a mapping of which nothing is released before its checksum is
    /// verified: they have to fit, however long the peer made it.
    pub(crate) fn missing_bytes(&self) -> u64 {
        let at = self.pos + self.held.len() as u64;
        let front = self.queue.iter().find(|m| m.end() > self.pos);
        let waits = front.filter(|m| m.pos <= self.pos && m.checksum.is_some() && at > self.pos);
        waits.map_or(0, |m| m.end().saturating_sub(at))
    }

    /// Frames that waiting bytes pin.
    pub(crate) fn held_frames(&self) -> usize {
        self.held.pinned_frames()
    }

    /// Whether the byte at hand has a mapping.
    pub(crate) fn front_is_mapped(&self) -> bool {
        self.queue.front().is_some_and(|m| m.pos <= self.pos)
    }

    /// Whether bytes at hand have no mapping, and what stands behind them has one.
    pub(crate) fn has_gap(&self) -> bool {
        self.queue
            .iter()
            .find(|m| m.end() > self.pos)
            .is_some_and(|m| m.pos > self.pos && self.held.len() as u64 > m.pos - self.pos)
    }

    /// Takes a mapping.
    pub(crate) fn declare(&mut self, new: Mapping) -> Declared {
        if new.end() <= self.pos {
            return Declared::Known;
        }
        let index = self.queue.partition_point(|m| m.pos < new.pos);
        if let Some(m) = self.queue.get(index).filter(|m| m.pos == new.pos) {
            return if m.agrees(&new) && m.len == new.len {
                Declared::Known
            } else if m.agrees(&new) && m.checksum.is_none() && new.checksum.is_none() {
                self.extend(index, new)
            } else {
                Declared::Conflict
            };
        }
        let before = index.checked_sub(1).and_then(|i| self.queue.get(i));
        if let Some(m) = before.filter(|m| m.end() > new.pos) {
            return if !m.agrees(&new) {
                Declared::Conflict
            } else if new.end() <= m.end() {
                Declared::Known
            } else if m.checksum.is_none() && new.checksum.is_none() {
                self.extend(index - 1, new)
            } else {
                Declared::Conflict
            };
        }
        if let Some(m) = self.queue.get(index).filter(|m| m.pos < new.end()) {
            return if m.agrees(&new) && m.checksum.is_none() && new.checksum.is_none() {
                let end = m.end();
                let len = m.pos - new.pos;
                // Only the gap in front; what follows is known or comes again.
                let fin = new.fin && new.end() > end;
                self.insert(index, Mapping { len, fin, ..new })
            } else {
                Declared::Conflict
            };
        }
        self.insert(index, new)
    }

    fn insert(&mut self, index: usize, new: Mapping) -> Declared {
        if self.queue.len() >= MAPPINGS_MAX {
            return Declared::Full;
        }
        self.queue.insert(index, new);
        Declared::New
    }

    /// A longer declaration for the same place: agreeing bytes are added, up to the next.
    fn extend(&mut self, index: usize, new: Mapping) -> Declared {
        let limit = self.queue.get(index + 1).map_or(u64::MAX, |m| m.pos);
        let m = &mut self.queue[index];
        let end = new.end().min(limit);
        if end <= m.end() {
            return Declared::Known;
        }
        m.fin |= new.fin && end == new.end();
        m.len = end - m.pos;
        Declared::New
    }

    /// Appends in-order bytes.
    pub(crate) fn push(&mut self, chain: Chain) {
        if self.held.is_empty() {
            *self.held = chain;
        } else {
            for piece in chain {
                self.held.push_waiting(piece);
            }
        }
    }

    /// The next thing that the held bytes amount to; call until [`Step::Wait`].
    pub(crate) fn step(&mut self) -> Step {
        while self.queue.front().is_some_and(|m| m.end() <= self.pos) {
            self.queue.pop_front();
        }
        let held = self.held.len() as u64;
        let Some(front) = self.queue.front().copied() else {
            return Step::Wait;
        };
        if front.pos > self.pos {
            let gap = front.pos - self.pos;
            if held <= gap {
                return Step::Wait;
            }
            // Everything up to the mapped bytes has arrived, with all its options.
            self.dropped = true;
            let dropped = to_usize(gap);
            self.take(dropped);
            return Step::Dropped(dropped);
        }
        if held == 0 {
            return Step::Wait;
        }
        let rest = front.end() - self.pos;
        if let Some(checksum) = front.checksum {
            if held < rest {
                return Step::Wait;
            }
            if front.pos < self.pos {
                // Its head was dropped, so the sum cannot be checked.
                self.dropped = true;
                let dropped = to_usize(rest);
                self.take(dropped);
                return Step::Dropped(dropped);
            }
            let tail = self.held.split_off(to_usize(rest));
            if !checksum.verify(self.held.sum()) {
                self.held.append(tail);
                return Step::BadChecksum(front);
            }
            let chain = std::mem::replace(&mut *self.held, tail);
            self.pos += rest;
            return Step::Deliver {
                off: front.off,
                chain,
                fin: front.fin,
            };
        }
        let n = rest.min(held);
        let off = front.off + (self.pos - front.pos);
        let chain = self.take(to_usize(n));
        Step::Deliver {
            off,
            chain,
            fin: front.fin && n == rest,
        }
    }

    /// Drops a mapping's bytes after a failed checksum.
    pub(crate) fn discard(&mut self, mapping: &Mapping) {
        let n = mapping.end().saturating_sub(self.pos);
        self.take(to_usize(n).min(self.held.len()));
    }

    /// Everything held, regardless of mappings: the subflow is a plain stream now.
    pub(crate) fn take_all(&mut self) -> Chain {
        let n = self.held.len();
        self.take(n)
    }

    /// Drops what is held; the peer sends it again, on the connection's level. Returns how
    /// many bytes that were.
    pub(crate) fn drop_held(&mut self) -> usize {
        self.dropped |= !self.held.is_empty();
        self.take_all().len()
    }

    /// Forgets all mappings.
    pub(crate) fn forget(&mut self) {
        self.queue.clear();
    }

    /// Copies what waits, so that its frames go home. Returns how many frames.
    pub(crate) fn release_frames(&mut self) -> u64 {
        let frames = self.held.pinned_frames();
        if frames > 0 {
            self.held.copy_out();
        }
        frames as u64
    }

    /// Nothing comes at the moment: gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        self.held.release_if(Chain::is_empty);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn take(&mut self, n: usize) -> Chain {
        if n == 0 {
            return Chain::new();
        }
        if n == self.held.len() {
            self.pos += n as u64;
            return std::mem::take(&mut *self.held);
        }
        let tail = self.held.split_off(n);
        self.pos += n as u64;
        std::mem::replace(&mut *self.held, tail)
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Piece;
    use crate::checksum;
    use crate::wire::mptcp::dss_checksum;

    fn map(pos: u64, off: u64, len: u64) -> Mapping {
        Mapping {
            pos,
            off,
            len,
            fin: false,
            checksum: None,
        }
    }

    fn chain(bytes: &[u8]) -> Chain {
        Piece::copied(bytes, None).into()
    }

    fn run(rx: &mut RxMappings) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            match rx.step() {
                Step::Deliver { off, chain, .. } => {
                    out.push((off, chain.iter().flat_map(|p| p.bytes().to_vec()).collect()));
                }
                Step::Dropped(n) => out.push((u64::MAX, vec![0; n])),
                Step::BadChecksum(_) => panic!("no checksums here"),
                Step::Wait => return out,
            }
        }
    }

    #[test]
    fn a_mapping_spans_segments_and_a_segment_spans_mappings() {
        let mut rx = RxMappings::default();
        rx.declare(map(0, 100, 5));
        rx.declare(map(5, 200, 2));
        rx.push(chain(b"abc"));
        assert_eq!(run(&mut rx), [(100, b"abc".to_vec())]);
        rx.push(chain(b"defgh"));
        assert_eq!(run(&mut rx), [(103, b"de".to_vec()), (200, b"fg".to_vec())]);
        assert_eq!(rx.held_bytes(), 1);
        rx.declare(map(7, 300, 1));
        assert_eq!(run(&mut rx), [(300, b"h".to_vec())]);
    }

    #[test]
    fn unmapped_bytes_are_dropped_once_bytes_behind_them_are_mapped() {
        let mut rx = RxMappings::default();
        rx.push(chain(b"abc"));
        rx.declare(map(3, 3, 2));
        assert!(run(&mut rx).is_empty(), "a mapping for them may still come");
        rx.push(chain(b"de"));
        assert_eq!(run(&mut rx), [(u64::MAX, vec![0; 3]), (3, b"de".to_vec())]);
    }

    #[test]
    fn copies_are_known_and_contradictions_are_refused() {
        let mut rx = RxMappings::default();
        assert_eq!(rx.declare(map(0, 100, 10)), Declared::New);
        assert_eq!(rx.declare(map(0, 100, 10)), Declared::Known);
        assert_eq!(rx.declare(map(3, 103, 2)), Declared::Known);
        assert_eq!(rx.declare(map(3, 104, 2)), Declared::Conflict);
        assert_eq!(rx.declare(map(0, 101, 10)), Declared::Conflict);
        assert_eq!(rx.declare(map(8, 108, 4)), Declared::New);
        rx.push(chain(b"0123456789ab"));
        assert_eq!(run(&mut rx), [(100, b"0123456789ab".to_vec())]);
        assert_eq!(
            rx.declare(map(0, 7, 12)),
            Declared::Known,
            "its bytes have passed"
        );
    }

    #[test]
    fn checksummed_mappings_are_released_whole_across_odd_pieces() {
        let data = b"hello mapping";
        let value = dss_checksum(77, 1, 13, checksum::sum(data));
        let mapping = Mapping {
            checksum: Some(MappingChecksum {
                dsn: 77,
                ssn: 1,
                len: 13,
                value,
            }),
            ..map(0, 0, 13)
        };
        let mut rx = RxMappings::default();
        rx.declare(mapping);
        rx.push(chain(&data[..3]));
        assert!(run(&mut rx).is_empty());
        rx.push(chain(&data[3..8]));
        rx.push(chain(b" mapping"[3..].as_ref()));
        assert_eq!(run(&mut rx), [(0, data.to_vec())]);
    }

    /// A peer that believes in more window than there is maps more than the buffer holds.
    #[test]
    fn what_a_checksum_waits_for_is_known() {
        let with = |pos, len, checksum| Mapping {
            checksum,
            ..map(pos, pos, len)
        };
        let checksum = Some(MappingChecksum {
            dsn: 1,
            ssn: 1,
            len: 10,
            value: 0,
        });
        let mut rx = RxMappings::default();
        rx.declare(with(0, 10, checksum));
        assert_eq!(rx.missing_bytes(), 0, "nothing waits yet");
        rx.push(chain(b"abc"));
        assert_eq!(rx.missing_bytes(), 7);
        rx.push(chain(b"defghij"));
        assert_eq!(rx.missing_bytes(), 0);
        let mut rx = RxMappings::default();
        rx.declare(with(0, 10, None));
        rx.push(chain(b"abc"));
        assert_eq!(
            rx.missing_bytes(),
            0,
            "what needs no checksum leaves at once"
        );
    }

    #[test]
    fn a_wrong_checksum_keeps_the_bytes_for_the_decision() {
        let mapping = Mapping {
            checksum: Some(MappingChecksum {
                dsn: 1,
                ssn: 1,
                len: 2,
                value: 0x1234,
            }),
            ..map(0, 0, 2)
        };
        let mut rx = RxMappings::default();
        rx.declare(mapping);
        rx.push(chain(b"abc"));
        assert!(matches!(rx.step(), Step::BadChecksum(m) if m == mapping));
        assert_eq!(rx.held_bytes(), 3);
        rx.discard(&mapping);
        assert_eq!((rx.pos(), rx.held_bytes()), (2, 1));
    }
}
