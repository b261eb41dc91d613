//! Connection-level reassembly: mapped bytes of all subflows into one in-order stream.
//!
//! Works on stream offsets: 64 bit, counted from the peer's IDSN + 1, never wrapping (see
//! [`super::dsn`]).

use std::collections::VecDeque;

use super::recv::RecvStream;
use crate::buf::Chain;
use crate::counters::{Counter, Counters};

/// Out-of-order runs kept. A run is one chain; interleaving two subflows segment by
/// segment makes one run per segment of the slower path's backlog.
const RUNS_MAX: usize = 8192;

/// Out-of-order bytes at connection level, and where the stream stands.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    /// Next offset expected: everything below was delivered or is in the stream.
    nxt: u64,
    /// End of the window ever offered; bytes beyond it are refused.
    edge: u64,
    /// Offset of the peer's DATA_FIN (one past the last byte).
    fin: Option<u64>,
    /// Sorted by offset, without overlap.
    runs: VecDeque<(u64, Chain)>,
    bytes: usize,
    frames: usize,
}

impl Reassembly {
    /// Nothing comes or goes at the moment: gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        if self.runs.is_empty() {
            self.runs = VecDeque::new();
        }
    }

    /// Next offset expected, the DATA_FIN not counted.
    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Bytes waiting out of order.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that out-of-order bytes pin.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Moves the right edge; never left (RFC 8684 §3.3.4).
    pub(crate) fn offer(&mut self, window: u64) {
        self.edge = self.edge.max(self.nxt + window);
    }

    /// Notes the peer's DATA_FIN. False if it contradicts an earlier one or received data.
    pub(crate) fn set_fin(&mut self, at: u64) -> bool {
        let beyond = self
            .runs
            .back()
            .map_or(self.nxt, |(o, c)| o + c.len() as u64);
        match self.fin {
            Some(known) => known == at,
            None if at < beyond => false,
            None => {
                self.fin = Some(at);
                true
            }
        }
    }

    /// Whether everything up to the DATA_FIN has arrived.
    pub(crate) fn finished(&self) -> bool {
        self.fin == Some(self.nxt)
    }

    /// What a DATA_ACK says: the DATA_FIN takes one number (RFC 8684 §3.3.3).
    pub(crate) fn ack(&self) -> u64 {
        self.nxt + u64::from(self.finished())
    }

    /// Takes bytes mapped to `off`. Received bytes are never replaced (RFC 8684 §3.3.1).
    /// True if the stream got longer.
    pub(crate) fn insert(
        &mut self,
        mut off: u64,
        mut chain: Chain,
        stream: &mut RecvStream,
        counters: &mut Counters,
    ) -> bool {
        let end = off + chain.len() as u64;
        let limit = self.fin.map_or(self.edge, |fin| fin.min(self.edge));
        if off < self.nxt {
            counters.inc(Counter::DuplicateData);
            if end <= self.nxt {
                return false;
            }
            trim_front(&mut chain, self.nxt - off);
            off = self.nxt;
        }
        if end > limit {
            counters.inc(Counter::NoDSSInWindow);
            counters.add(Counter::BeyondWindowBytes, end - limit.max(off));
            if off >= limit {
                return false;
            }
            trim_back(&mut chain, end - limit);
        }
        if off > self.nxt {
            self.insert_run(off, chain, counters);
            return false;
        }
        let before = self.nxt;
        self.deliver(chain, stream, counters);
        self.drain(stream, counters);
        self.nxt > before
    }

    fn deliver(&mut self, chain: Chain, stream: &mut RecvStream, counters: &mut Counters) {
        let overlaps = self
            .runs
            .front()
            .is_some_and(|(first, _)| self.nxt + chain.len() as u64 > *first);
        if overlaps {
            // A run that is already waiting came first: its bytes win, gaps are filled.
            self.insert_run(self.nxt, chain, counters);
            return;
        }
        self.nxt += chain.len() as u64;
        counters.add(Counter::BytesDelivered, chain.len() as u64);
        stream.push(chain);
    }

    fn drain(&mut self, stream: &mut RecvStream, counters: &mut Counters) {
        while self.runs.front().is_some_and(|(off, _)| *off == self.nxt) {
            let Some((_, chain)) = self.runs.pop_front() else {
                break;
            };
            self.bytes -= chain.len();
            self.frames -= chain.pinned_frames();
            self.nxt += chain.len() as u64;
            counters.add(Counter::BytesDelivered, chain.len() as u64);
            stream.push(chain);
        }
    }

    /// Queues `[off, off + chain.len())` less what is queued already.
    fn insert_run(&mut self, mut off: u64, mut chain: Chain, counters: &mut Counters) {
        // Fast path: beyond everything queued.
        let tail = self.runs.back().map_or(0, |(o, c)| o + c.len() as u64);
        if off >= tail {
            counters.inc(Counter::OFOQueueTail);
            let index = self.runs.len();
            self.put(index, off, chain, counters);
            return;
        }
        counters.inc(Counter::OFOQueue);
        let mut index = self.runs.partition_point(|(o, _)| *o <= off);
        if let Some((o, c)) = index.checked_sub(1).and_then(|i| self.runs.get(i)) {
            let covered = (o + c.len() as u64).saturating_sub(off);
            if covered > 0 {
                counters.inc(Counter::DuplicateData);
                if covered >= chain.len() as u64 {
                    return;
                }
                trim_front(&mut chain, covered);
                off += covered;
            }
        }
        // Fill gap after gap. Each turn ends at the next run, so turns are bounded by runs.
        while !chain.is_empty() {
            let Some((next, len)) = self.runs.get(index).map(|(o, c)| (*o, c.len() as u64)) else {
                self.put(index, off, chain, counters);
                return;
            };
            let end = off + chain.len() as u64;
            if end <= next {
                self.put(index, off, chain, counters);
                return;
            }
            counters.inc(Counter::DuplicateData);
            let rest = chain.split_off(usize::try_from(next - off).unwrap_or(usize::MAX));
            if !chain.is_empty() {
                self.put(index, off, chain, counters);
                index += 1;
            }
            let after = next + len;
            if end <= after {
                return;
            }
            chain = rest;
            trim_front(&mut chain, len);
            off = after;
            index += 1;
        }
    }

    fn put(&mut self, index: usize, off: u64, mut chain: Chain, counters: &mut Counters) {
        if self.runs.len() >= RUNS_MAX {
            counters.inc(Counter::OFOPruned);
            return;
        }
        counters.add(Counter::RxCopybreak, u64::from(chain.copybreak()));
        self.bytes += chain.len();
        self.frames += chain.pinned_frames();
        self.runs.insert(index, (off, chain));
    }

    /// Copies what waits, so that its frames go home. Returns how many frames.
    pub(crate) fn release_frames(&mut self) -> u64 {
        let before = self.frames;
        for (_, chain) in &mut self.runs {
            chain.copy_out();
        }
        self.frames = 0;
        before as u64
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        (self.bytes, self.frames) = (0, 0);
    }
}

fn trim_front(chain: &mut Chain, n: u64) {
    chain.trim_front(usize::try_from(n).unwrap_or(usize::MAX));
}

fn trim_back(chain: &mut Chain, n: u64) {
    chain.trim_back(usize::try_from(n).unwrap_or(usize::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Piece;
    use proptest::prelude::*;

    fn bytes_of(stream: &mut RecvStream) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(piece) = stream.pop_piece() {
            out.extend_from_slice(piece.bytes());
        }
        out
    }

    fn rig(window: u64) -> (Reassembly, RecvStream, Counters) {
        let mut r = Reassembly::default();
        r.offer(window);
        (r, RecvStream::default(), Counters::new())
    }

    #[test]
    fn data_beyond_the_edge_is_refused_and_counted() {
        let (mut r, mut s, mut c) = rig(4);
        r.insert(2, Piece::copied(b"cdef", None).into(), &mut s, &mut c);
        r.insert(9, Piece::copied(b"x", None).into(), &mut s, &mut c);
        assert_eq!(c.get(Counter::NoDSSInWindow), 2);
        r.insert(0, Piece::copied(b"ab", None).into(), &mut s, &mut c);
        assert_eq!(bytes_of(&mut s), b"abcd");
        assert_eq!(r.ack(), 4);
    }

    #[test]
    fn the_fin_counts_one_once_all_is_there() {
        let (mut r, mut s, mut c) = rig(10);
        assert!(r.set_fin(3));
        assert!(r.set_fin(3));
        assert!(!r.set_fin(4));
        assert_eq!(r.ack(), 0);
        r.insert(0, Piece::copied(b"abcX", None).into(), &mut s, &mut c);
        assert!(r.finished());
        assert_eq!(r.ack(), 4);
        assert_eq!(bytes_of(&mut s), b"abc");
    }

    #[test]
    fn a_fin_below_received_data_is_refused() {
        let (mut r, mut s, mut c) = rig(10);
        r.insert(5, Piece::copied(b"f", None).into(), &mut s, &mut c);
        assert!(!r.set_fin(5));
        assert!(r.set_fin(6));
    }

    proptest! {
        /// Any order and overlap of segments gives each offset the byte that came first.
        #[test]
        fn first_bytes_win(segments in proptest::collection::vec((0u64..40, 1usize..12, any::<u8>()), 1..60)) {
            let (mut r, mut s, mut c) = rig(64);
            let mut model = [None; 64];
            let mut out = Vec::new();
            for (off, len, fill) in segments {
                let chain = Piece::copied(&vec![fill; len], None).into();
                for slot in &mut model[usize::try_from(off).unwrap()..][..len] {
                    slot.get_or_insert(fill);
                }
                r.insert(off, chain, &mut s, &mut c);
                out.extend(bytes_of(&mut s));
                let expected: Vec<u8> = model.iter().map_while(|b| *b).collect();
                prop_assert_eq!(&out, &expected);
                prop_assert_eq!(r.nxt(), expected.len() as u64);
                let waiting = model[expected.len()..].iter().flatten().count();
                prop_assert_eq!(r.bytes(), waiting);
            }
        }
    }
}
