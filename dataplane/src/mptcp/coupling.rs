//! Coupled congestion control: tells a subflow how the others are.
//!
//! A controller decides when a segment or a timer is handled, so that is when its subflow is
//! told, and only that one: one look at each of a handful of subflows, nothing stored at the
//! connection that could be out of date.
//!
//! Counted are the subflows that compete for the network: established, able to send, working,
//! in use. A backup that waits, a stale subflow, or one that has had nothing to send for a
//! retransmission timeout takes no part, so that what is left behaves as if it were alone.

use super::state::Core;
use super::subflow::Subflow;
use crate::tcp::Siblings;
use crate::time::Instant;

/// Takes its share of the network's capacity, or is trying to.
fn competes(s: &Subflow) -> bool {
    s.is_usable() && !s.impaired()
}

impl Core {
    /// Before subflow `i` handles a segment or a timer.
    pub(crate) fn couple(&mut self, now: Instant, i: usize) {
        if self.subflows[i].tcp.is_coupled() {
            let siblings = self.siblings(now, i);
            self.subflows[i].tcp.set_siblings(siblings);
        }
    }

    /// The subflows that compete, but for `i`.
    pub(crate) fn siblings(&self, now: Instant, i: usize) -> Siblings {
        self.subflows
            .iter()
            .enumerate()
            .filter(|(n, s)| *n != i && competes(s))
            .filter_map(|(_, s)| s.tcp.path_share(now))
            .collect()
    }
}
