//! Ranges to send again, on another subflow than the one that failed them.

use std::ops::Range;

use super::api::SubflowId;

/// Ranges kept. When more would be needed, neighbours are joined: sending a gap twice is
/// cheaper than forgetting a range.
const RANGES_MAX: usize = 128;

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
