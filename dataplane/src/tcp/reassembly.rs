//! Received data: in order to the reader, out of order into a bounded queue, and what SACK says
//! about it (RFC 2018, RFC 2883).
//!
//! The bytes received first win: later copies of the same sequence space are trimmed away, so a
//! peer or a box cannot change data that may already have been looked at.
//!
//! In-order data does not touch the queue. The queue is a sorted deque of disjoint runs: its
//! common uses are the end (loss) and the front (refill); the number of runs, of pieces and of
//! cuts per segment are bounded, so that a peer that sends dust pays for it, not we.

use std::collections::VecDeque;

use super::segment::RxChunk;
use crate::buf::Chain;
use crate::wire::tcp::SeqNumber;
use crate::wire::tcp_options::{SackBlock, SackBlocks};

/// Runs kept: an insertion moves at most half as many entries.
const RUNS_MAX: usize = 1024;
/// Pieces that one run collects before a new one is begun, which bounds what an append moves.
const PIECES_PER_RUN_MAX: usize = 64;
/// Gaps that one segment may fill: each costs a copy of what lies behind.
const CUTS_MAX: usize = 16;
/// Blocks remembered for SACK: as many as fit an option area.
const BLOCKS_MAX: usize = 4;

#[derive(Debug)]
struct Run {
    seq: SeqNumber,
    chain: Chain,
}

impl Run {
    fn end(&self) -> SeqNumber {
        self.seq + chain_len(&self.chain)
    }
}

/// A chain is bounded by the receive window, which fits 30 bits.
fn chain_len(chain: &Chain) -> u32 {
    u32::try_from(chain.len()).unwrap_or(u32::MAX)
}

/// What became of a segment's payload.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Bytes by which RCV.NXT advanced.
    pub(super) advanced: u32,
    /// Some bytes had been received before.
    pub(super) duplicate: bool,
    /// Kept out of order.
    pub(super) queued: bool,
    /// A gap was closed, whole or in part.
    pub(super) filled: bool,
    /// Dropped because the queue is at a limit.
    pub(super) dropped: bool,
}

/// Data between the network and the reader.
#[derive(Debug)]
pub(super) struct Reassembly {
    ready: VecDeque<RxChunk>,
    pieces_max: u32,
    /// Of a connection to which something came out of order or twice; kept until it idles.
    disorder: Option<Box<Disorder>>,
}

/// What came out of order or twice.
#[derive(Default, Debug)]
struct Disorder {
    /// Beyond RCV.NXT, sorted, disjoint.
    runs: VecDeque<Run>,
    pieces: usize,
    /// Frames that they pin.
    frames: usize,
    queued_bytes: u32,
    /// Most recent first (RFC 2018 §4).
    blocks: [SackBlock; BLOCKS_MAX],
    blocks_len: usize,
    duplicate: Option<SackBlock>,
    /// Blocks or a duplicate that no ACK has told yet.
    unreported: bool,
}

impl Reassembly {
    pub(super) fn new(pieces_max: u32) -> Self {
        Self {
            ready: VecDeque::new(),
            pieces_max,
            disorder: None,
        }
    }

    fn disorder(&mut self) -> &mut Disorder {
        self.disorder.get_or_insert_default()
    }

    /// Gives back what is not needed while nothing comes.
    pub(super) fn release_spare(&mut self) {
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        self.disorder = self
            .disorder
            .take()
            .filter(|d| !d.runs.is_empty() || d.unreported);
    }

    /// The next bytes in order.
    pub(super) fn pop(&mut self) -> Option<RxChunk> {
        self.ready.pop_front()
    }

    /// Nothing is missing below what was received.
    pub(super) fn is_contiguous(&self) -> bool {
        self.disorder.as_ref().is_none_or(|d| d.runs.is_empty())
    }

    pub(super) fn queued_bytes(&self) -> u32 {
        self.disorder.as_ref().map_or(0, |d| d.queued_bytes)
    }

    /// Frames that out-of-order data pins.
    pub(super) fn frames(&self) -> usize {
        self.disorder.as_ref().map_or(0, |d| d.frames)
    }

    /// Copies what is out of order, so that its frames go home. Returns how many.
    pub(super) fn release_frames(&mut self) -> u64 {
        let Some(disorder) = self.disorder.as_mut().filter(|d| d.frames > 0) else {
            return 0;
        };
        for run in &mut disorder.runs {
            run.chain.copy_out();
        }
        core::mem::take(&mut disorder.frames) as u64
    }

    /// Takes payload at `seq`, already trimmed to the window's right edge.
    pub(super) fn receive(
        &mut self,
        rcv_nxt: SeqNumber,
        mut seq: SeqNumber,
        mut chain: Chain,
    ) -> Received {
        let mut out = Received::default();
        if seq < rcv_nxt {
            let old = (rcv_nxt - seq).min(chain_len(&chain));
            if old > 0 {
                self.disorder().note_duplicate(seq, seq + old, &mut out);
                chain.trim_front(old as usize);
            }
            seq = rcv_nxt;
        }
        if chain.is_empty() {
            return out;
        }
        if seq == rcv_nxt {
            let next = match &mut self.disorder {
                Some(disorder) if !disorder.runs.is_empty() => {
                    disorder.fill(&mut self.ready, seq, chain, &mut out)
                }
                _ => {
                    let end = seq + chain_len(&chain);
                    self.ready.push_back(RxChunk { seq, chain });
                    end
                }
            };
            out.advanced = next - rcv_nxt;
        } else {
            let most = self.pieces_max as usize;
            self.disorder().queue(most, seq, chain, &mut out);
        }
        out
    }

    /// A duplicate that carried nothing new, such as a FIN.
    pub(super) fn report_duplicate(&mut self, left: SeqNumber, right: SeqNumber) {
        let disorder = self.disorder();
        disorder.duplicate.get_or_insert((left, right));
        disorder.unreported = true;
    }

    /// At most `max` blocks: the duplicate first (RFC 2883 §4), then by recency.
    pub(super) fn sack_blocks(&self, max: usize) -> SackBlocks {
        let mut out = SackBlocks::default();
        let Some(disorder) = &self.disorder else {
            return out;
        };
        let blocks = disorder
            .duplicate
            .iter()
            .chain(&disorder.blocks[..disorder.blocks_len])
            .take(max);
        for block in blocks {
            out.push(*block);
        }
        out
    }

    /// There is news for a SACK option.
    pub(super) fn owes_sack(&self) -> bool {
        self.disorder.as_ref().is_some_and(|d| d.unreported)
    }

    /// An ACK with the blocks left: duplicates are reported once.
    pub(super) fn reported(&mut self) {
        if let Some(disorder) = &mut self.disorder {
            disorder.duplicate = None;
            disorder.unreported = false;
        }
    }

    /// Frees everything that is out of order.
    pub(super) fn clear(&mut self) {
        self.disorder = None;
    }
}

impl Disorder {
    fn note_duplicate(&mut self, left: SeqNumber, right: SeqNumber, out: &mut Received) {
        out.duplicate = true;
        self.unreported = true;
        // RFC 2883 §4: one block, the first duplicate of the segment.
        if self.duplicate.is_none() {
            self.duplicate = Some((left, right));
        }
    }

    /// In-order data while something waits beyond it.
    fn fill(
        &mut self,
        ready: &mut VecDeque<RxChunk>,
        mut next: SeqNumber,
        mut rest: Chain,
        out: &mut Received,
    ) -> SeqNumber {
        let mut cuts = 0;
        loop {
            match self.runs.front() {
                Some(run) if run.seq == next => {
                    let run = self.pop_run();
                    let (seq, end) = (next, run.end());
                    let again = rest.len().min(run.chain.len());
                    if again > 0 {
                        let right = seq + chain_len(&rest).min(end - seq);
                        self.note_duplicate(seq, right, out);
                        rest.trim_front(again);
                    }
                    ready.push_back(RxChunk {
                        seq,
                        chain: run.chain,
                    });
                    next = end;
                    out.filled = true;
                }
                Some(run) if !rest.is_empty() && run.seq < next + chain_len(&rest) => {
                    let seq = next;
                    let (keep, run_end) = (run.seq - next, run.end());
                    next = run.seq;
                    let end = seq + chain_len(&rest);
                    let tail = if run_end >= end {
                        // Nothing of it lies behind the run: no need to copy a tail.
                        self.note_duplicate(next, end, out);
                        rest.trim_back((end - next) as usize);
                        Chain::new()
                    } else if cuts == CUTS_MAX {
                        out.dropped = true;
                        rest.trim_back((end - next) as usize);
                        Chain::new()
                    } else {
                        cuts += 1;
                        rest.split_off(keep as usize)
                    };
                    ready.push_back(RxChunk { seq, chain: rest });
                    rest = tail;
                }
                _ if rest.is_empty() => break,
                _ => {
                    let seq = next;
                    next += chain_len(&rest);
                    ready.push_back(RxChunk {
                        seq,
                        chain: core::mem::take(&mut rest),
                    });
                }
            }
        }
        self.forget_blocks_until(next);
        next
    }

    fn pop_run(&mut self) -> Run {
        let run = self.runs.pop_front().expect("checked by the caller");
        self.pieces -= run.chain.iter().len();
        self.frames -= run.chain.pinned_frames();
        self.queued_bytes -= chain_len(&run.chain);
        run
    }

    /// Data beyond a gap.
    fn queue(
        &mut self,
        pieces_max: usize,
        mut seq: SeqNumber,
        mut chain: Chain,
        out: &mut Received,
    ) {
        let (first, mut cuts) = (seq, 0);
        let mut at = self.runs.partition_point(|run| run.seq <= seq);
        if let Some(before) = at.checked_sub(1).map(|i| &self.runs[i]) {
            let before_end = before.end();
            if before_end > seq {
                let old = (before_end - seq).min(chain_len(&chain));
                self.note_duplicate(seq, seq + old, out);
                chain.trim_front(old as usize);
                seq += old;
            }
        }
        while !chain.is_empty() {
            let end = seq + chain_len(&chain);
            let mut tail = Chain::new();
            let mut tail_seq = end;
            if let Some(after) = self.runs.get(at)
                && after.seq < end
            {
                let (after_seq, after_end) = (after.seq, after.end());
                let old_end = after_end.earlier(end);
                self.note_duplicate(after_seq, old_end, out);
                if after_end < end {
                    if cuts == CUTS_MAX {
                        out.dropped = true;
                    } else {
                        cuts += 1;
                        tail = chain.split_off((after_end - seq) as usize);
                        tail_seq = after_end;
                    }
                }
                chain.trim_back(chain.len() - (after_seq - seq) as usize);
            }
            if !chain.is_empty() && !self.insert(pieces_max, &mut at, seq, chain, out) {
                break;
            }
            // Past the run that the tail lies behind.
            at = self.runs.partition_point(|run| run.seq < tail_seq);
            seq = tail_seq;
            chain = tail;
        }
        self.note_block(first);
    }

    /// Puts a run that overlaps nothing in front of position `at`.
    fn insert(
        &mut self,
        pieces_max: usize,
        at: &mut usize,
        seq: SeqNumber,
        mut chain: Chain,
        out: &mut Received,
    ) -> bool {
        chain.copybreak();
        let (pieces, frames) = (chain.iter().len(), chain.pinned_frames());
        if self.pieces + pieces > pieces_max {
            out.dropped = true;
            return false;
        }
        let len = chain_len(&chain);
        let full = self.runs.len() >= RUNS_MAX;
        let before = at.checked_sub(1).map(|i| &mut self.runs[i]);
        match before {
            Some(run)
                if run.end() == seq && run.chain.iter().len() + pieces <= PIECES_PER_RUN_MAX =>
            {
                run.chain.append(chain);
            }
            _ if full => {
                out.dropped = true;
                return false;
            }
            _ => {
                self.runs.insert(*at, Run { seq, chain });
                *at += 1;
            }
        }
        self.pieces += pieces;
        self.frames += frames;
        self.queued_bytes += len;
        out.queued = true;
        true
    }

    // ---- SACK ----

    /// The contiguous data around `seq` becomes the most recent block.
    fn note_block(&mut self, seq: SeqNumber) {
        let after = self.runs.partition_point(|run| run.seq <= seq);
        let Some(mut first) = after.checked_sub(1) else {
            return;
        };
        if self.runs[first].end() <= seq {
            return; // dropped
        }
        let mut last = first;
        while first > 0 && self.runs[first - 1].end() == self.runs[first].seq {
            first -= 1;
        }
        while last + 1 < self.runs.len() && self.runs[last].end() == self.runs[last + 1].seq {
            last += 1;
        }
        let block = (self.runs[first].seq, self.runs[last].end());
        self.keep_blocks(|b| b.0 < block.0 || b.1 > block.1);
        let len = (self.blocks_len + 1).min(BLOCKS_MAX);
        self.blocks.copy_within(0..len - 1, 1);
        self.blocks[0] = block;
        self.unreported = true;
        self.blocks_len = len;
    }

    fn keep_blocks(&mut self, keep: impl Fn(&SackBlock) -> bool) {
        let mut kept = 0;
        for i in 0..self.blocks_len {
            if keep(&self.blocks[i]) {
                self.blocks[kept] = self.blocks[i];
                kept += 1;
            }
        }
        self.blocks_len = kept;
    }

    fn forget_blocks_until(&mut self, next: SeqNumber) {
        self.keep_blocks(|block| block.0 > next);
    }
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
