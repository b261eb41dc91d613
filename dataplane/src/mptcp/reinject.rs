//! Ranges to send again, on another subflow than the one that failed them.

use std::ops::Range;

use super::api::{Cx, SubflowId, TxSink};
use super::output::Outcome;
use super::schedulers::{Candidate, Scheduler};
use super::state::{Core, Mode};
use super::subflow::Subflow;
use super::timers::Refill;
use crate::checksum::Sum;
use crate::counters::Counter;
use crate::tcp::MapRef;

/// Ranges kept. When more would be needed, neighbours are joined: sending a gap twice is
/// cheaper than forgetting a range.
const RANGES_MAX: usize = 128;
/// Connection-level timeouts in a row from which on the oldest subflow that may be of use repairs.
const REPAIRS_ANYWHERE: u32 = 2;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Entry {
    start: u64,
    end: u64,
    /// The subflow that has it outstanding and goes on trying by itself.
    avoid: Option<SubflowId>,
}

/// Stream ranges, sorted, without overlap.
#[derive(Debug, Default)]
pub(crate) struct ReinjectQueue {
    entries: Vec<Entry>,
}

impl ReinjectQueue {
    /// Nothing comes or goes at the moment: gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the last queued range ends.
    pub(crate) fn end(&self) -> Option<u64> {
        self.entries.last().map(|e| e.end)
    }

    /// Adds a range; what is queued already stays as it is, but that a range which any
    /// subflow may carry lifts the restriction of what it overlaps.
    pub(crate) fn add(&mut self, range: Range<u64>, avoid: Option<SubflowId>) {
        if avoid.is_none() {
            let overlaps = |e: &&mut Entry| e.start < range.end && range.start < e.end;
            for entry in self.entries.iter_mut().filter(overlaps) {
                entry.avoid = None;
            }
        }
        let mut start = range.start;
        let mut index = self.entries.partition_point(|e| e.end <= start);
        while start < range.end {
            let (gap_end, next) = match self.entries.get(index) {
                Some(e) if e.start < range.end => (e.start, e.end),
                _ => (range.end, range.end),
            };
            if start < gap_end {
                let touching = index
                    .checked_sub(1)
                    .and_then(|i| self.entries.get_mut(i))
                    .filter(|e| e.end == start && e.avoid == avoid);
                if let Some(previous) = touching {
                    previous.end = gap_end;
                } else {
                    let entry = Entry {
                        start,
                        end: gap_end,
                        avoid,
                    };
                    self.entries.insert(index, entry);
                    index += 1;
                }
            }
            start = next;
            index += 1;
        }
        while self.entries.len() > RANGES_MAX {
            self.join_closest();
        }
    }

    fn join_closest(&mut self) {
        let closest = (1..self.entries.len())
            .min_by_key(|i| self.entries[*i].start - self.entries[*i - 1].end);
        if let Some(i) = closest {
            let joined = self.entries.remove(i);
            let into = &mut self.entries[i - 1];
            into.end = joined.end;
            if into.avoid != joined.avoid {
                into.avoid = None;
            }
        }
    }

    /// Everything below `una` has arrived.
    pub(crate) fn acknowledge(&mut self, una: u64) {
        let done = self.entries.iter().take_while(|e| e.end <= una).count();
        if done > 0 {
            self.entries.drain(..done);
        }
        if let Some(first) = self.entries.first_mut() {
            first.start = first.start.max(una);
        }
    }

    /// The first range that `subflow` may send.
    pub(crate) fn peek(&self, subflow: SubflowId) -> Option<Range<u64>> {
        self.entries
            .iter()
            .find(|e| e.avoid != Some(subflow))
            .map(|e| e.start..e.end)
    }

    /// Which subflow must not carry the queued range that starts at `off`.
    pub(crate) fn avoids(&self, off: u64) -> Option<SubflowId> {
        let index = self.entries.partition_point(|e| e.end <= off);
        self.entries.get(index).and_then(|e| e.avoid)
    }

    /// `range`, which starts a queued range, was sent.
    pub(crate) fn sent(&mut self, range: Range<u64>) {
        let index = self.entries.partition_point(|e| e.end <= range.start);
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        entry.start = entry.start.max(range.end);
        if entry.start >= entry.end {
            self.entries.remove(index);
        }
    }

    /// A subflow is gone: nothing needs to avoid it.
    pub(crate) fn forget(&mut self, subflow: SubflowId) {
        for e in &mut self.entries {
            if e.avoid == Some(subflow) {
                e.avoid = None;
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

impl Core {
    /// Ranges that other subflows failed.
    pub(crate) fn send_reinjections<S: TxSink>(&mut self, cx: &mut Cx<'_>, sink: &mut S) -> bool {
        let mut full = false;
        while !self.reinject.is_empty() && self.mode == Mode::Mptcp && !self.is_over() {
            // Not where a repair was swallowed before, if it can be helped.
            let reliable = |s: &Subflow| s.is_usable() && !s.impaired() && !s.swallows;
            let choosy = self.subflows.iter().any(reliable);
            let can = |s: &Subflow| self.reinject.peek(s.id).is_some();
            // Nor, once a repair was in vain, where that cannot be known yet: a path that strips
            // options swallows one after the other if each new subflow is the first choice.
            let tried = (self.data_rto_backoff >= REPAIRS_ANYWHERE)
                .then(|| self.subflows.iter().find(|s| reliable(s) && can(s)))
                .flatten()
                .map(|s| s.id.0);
            let trusted = |c: &Candidate| {
                let swallows = self.subflows[c.index].swallows;
                !(choosy && swallows) && tried.is_none_or(|oldest| c.id == oldest)
            };
            // Who is not trusted is not waited for, either: a backup may be all there is.
            let candidates = self.candidates(cx, sink, can).filter(trusted);
            let Some(Candidate {
                index: i, budget, ..
            }) = Scheduler::pick_repair(candidates)
            else {
                full |= self.short_of_room(sink);
                break;
            };
            let Some(range) = self.reinject.peek(self.subflows[i].id) else {
                break;
            };
            if self.sole_carrier().is_some() && range.start < self.sent_max {
                // Queued for subflows that are gone without having carried anything.
                self.reinject
                    .sent(range.start..range.end.min(self.sent_max));
                continue;
            }
            if let Some(end) = self.is_elsewhere(range.start) {
                self.reinject.sent(range.start..end.min(range.end));
                continue;
            }
            // RFC 8684 §3.3.5: a subflow's own window is obeyed, too.
            let room = self.subflows[i].tcp.mss().min(budget);
            let room = u64::from(room).min(range.end - range.start);
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            let Some((end, sum)) = self.part(range.start, room) else {
                // Acknowledged in the meantime.
                self.reinject.sent(range);
                continue;
            };
            let len = u32::try_from(end - range.start).unwrap_or(0);
            let seq = self.subflows[i].tcp.snd_nxt();
            let ssn = self.subflows[i].ssn(seq);
            let map = self.mapping(range.start, ssn, u64::from(len), false, sum);
            match self.transmit(cx, sink, i, range.start, len, seq, map, true) {
                Outcome::Sent => {}
                Outcome::Full => {
                    full = true;
                    break;
                }
                Outcome::NoCarrier => continue,
                Outcome::Lost => {
                    // Acknowledged in the meantime.
                    self.reinject.sent(range.start..end);
                    continue;
                }
            }
            cx.counters.inc(Counter::MPTCPRetrans);
            self.reinject.sent(range.start..end);
            if range.start <= self.send.una() {
                self.repairer = Some(self.subflows[i].id);
            }
            self.record_again(cx, i, range.start, len, map);
            self.subflows[i].totals.bytes_reinjected += u64::from(len);
            if range.start <= self.send.una() && self.refill == Refill::One {
                self.send_twin(cx, sink, i, range.start, (len, sum));
            }
        }
        full
    }

    /// A repair leaves once more, behind the first. A box that merges two segments into one
    /// with the options of either spoils the other; whichever two it merges, one of these
    /// keeps its own.
    fn send_twin<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        off: u64,
        (len, sum): (u32, Sum),
    ) {
        if self.subflows[i].tcp.send_budget(cx.now) < len {
            return;
        }
        let seq = self.subflows[i].tcp.snd_nxt();
        let ssn = self.subflows[i].ssn(seq);
        let map = self.mapping(off, ssn, u64::from(len), false, sum);
        if let Outcome::Sent = self.transmit(cx, sink, i, off, len, seq, map, true) {
            cx.counters.inc(Counter::MPTCPRetrans);
            self.record_again(cx, i, off, len, map);
            self.subflows[i].totals.bytes_reinjected += u64::from(len);
        }
    }

    /// Subflow `i` has sent bytes that another one was given.
    pub(super) fn record_again(&mut self, cx: &Cx<'_>, i: usize, off: u64, len: u32, map: MapRef) {
        self.sent_max = self.sent_max.max(off + u64::from(len));
        self.send.add_ref(off);
        let s = &mut self.subflows[i];
        s.tcp.record_new(cx.now, len, off, map);
        s.push_sent(off, len);
        s.totals.bytes_sent += u64::from(len);
        s.totals.segments_sent += 1;
    }

    /// How far a subflow in good order already has outstanding what is to be sent again from
    /// `off` on: because it was reinjected at an earlier timeout, or by the redundant
    /// scheduler. That subflow retransmits it itself, and should it fail, its own timeout
    /// brings it back here.
    fn is_elsewhere(&self, off: u64) -> Option<u64> {
        let avoided = self.reinject.avoids(off);
        if self.send.refs(off) <= u32::from(avoided.is_some()) {
            return None;
        }
        self.subflows
            .iter()
            .filter(|s| Some(s.id) != avoided && s.is_usable())
            .filter(|s| !s.impaired() && !s.tcp.is_stalled())
            .find_map(|s| s.holds(off))
    }

    /// The window or the send buffer is full, held up by data on a slower subflow: the
    /// head goes out a second time (opportunistic retransmission, Raiciu et al. 2012).
    pub(super) fn help_head_of_line(&mut self, cx: &Cx<'_>) {
        let head = self.send.una();
        if head < self.opportunistic || self.send.unacked() == 0 || self.subflows.len() < 2 {
            return;
        }
        let holds = |s: &Subflow| s.holds(head).is_some();
        let idle = |s: &Subflow| {
            s.is_usable() && !s.impaired() && !s.backup() && s.tcp.send_budget(cx.now) > 0
        };
        if !self.subflows.iter().any(|s| idle(s) && !holds(s)) {
            return;
        }
        let holder = self.subflows.iter().find(|s| holds(s)).map(|s| s.id);
        let end = self.send.chunk(head).map(|c| c.end());
        self.scheduler.window_blocked();
        if let (Some(holder), Some(end)) = (holder, end) {
            self.opportunistic = end;
            self.reinject.add(head..end, Some(holder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A subflow avoided since its timeout may be the only one left.
    #[test]
    fn what_anybody_may_carry_is_offered_to_everybody() {
        let mut q = ReinjectQueue::default();
        q.add(0..1000, Some(SubflowId(1)));
        assert!(q.peek(SubflowId(1)).is_none());
        q.add(0..1000, None);
        assert_eq!(q.peek(SubflowId(1)), Some(0..1000));
    }

    const A: SubflowId = SubflowId(1);
    const B: SubflowId = SubflowId(2);

    #[test]
    fn a_range_avoids_the_subflow_that_failed_it() {
        let mut q = ReinjectQueue::default();
        q.add(0..10, Some(A));
        q.add(5..20, Some(B));
        assert_eq!(q.peek(A), Some(10..20));
        assert_eq!(q.peek(B), Some(0..10));
        q.forget(A);
        assert_eq!(q.peek(A), Some(0..10));
        q.acknowledge(12);
        assert_eq!(q.peek(A), Some(12..20));
        q.sent(12..20);
        assert!(q.is_empty());
    }

    proptest! {
        /// The union of what was added is what comes out; bounded, gaps may be filled in.
        #[test]
        fn nothing_is_forgotten(ranges in proptest::collection::vec((0u64..2000, 1u64..9), 1..400)) {
            let mut q = ReinjectQueue::default();
            let mut wanted = vec![false; 2100];
            for (start, len) in ranges {
                q.add(start..start + len, None);
                for at in start..start + len {
                    wanted[usize::try_from(at).unwrap()] = true;
                }
                prop_assert!(q.entries.len() <= RANGES_MAX);
                prop_assert!(q.entries.windows(2).all(|w| w[0].end <= w[1].start));
            }
            let mut got = vec![false; 2100];
            while let Some(r) = q.peek(A) {
                for at in r.clone() {
                    got[usize::try_from(at).unwrap()] = true;
                }
                q.sent(r);
            }
            prop_assert!(wanted.iter().zip(&got).all(|(w, g)| !w || *g));
        }
    }
}
