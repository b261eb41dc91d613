//! What shows that paths do not carry MPTCP although the handshake passed.
//!
//! One such event proves nothing: segments are merged, lost and sent again. A number in a row
//! with nothing to the contrary in between does.

use super::api::{CloseReason, Cx};
use super::state::Core;
use super::subflow::Phase;
use crate::counters::Counter;
use crate::time::Duration;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::Flags;

/// Segments in a row whose mappings do not fit before a subflow is given up.
const ASTRAY_MAX: u8 = 16;
/// Repetitions of the SYN/ACK that mean that our third packet, and all behind it, is dropped
/// for the options in it. One may be a loss, two may be a burst of them.
const SYN_ACKS_MAX: u8 = 3;
/// What comes sooner after another is a copy of it, or the answer to a copy of our SYN: a
/// server's timer begins with twice as much (RFC 6298 §2.1).
const SYN_ACKS_APART: Duration = Duration::from_millis(500);
/// Subflows in a row that ended by a wrong checksum and moved nothing before.
const SPOILED_MAX: u8 = 16;

/// Subflows in a row that a wrong checksum ended, and where the stream stood meanwhile.
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct Spoiled {
    at: u64,
    subflows: u8,
}

impl Spoiled {
    /// One more, with the stream at `at`. True if that is enough.
    fn add(&mut self, at: u64) -> bool {
        if self.at != at {
            *self = Self { at, subflows: 0 };
        }
        self.subflows = self.subflows.saturating_add(1);
        self.subflows >= SPOILED_MAX
    }
}

impl Core {
    /// A segment's mapping is not for its bytes: something has added or removed some in front.
    /// One may be the trace of a box that merges segments; where nothing else arrives any more,
    /// the subflow is of no use, even if it is the last: a new one may be opened.
    pub(crate) fn on_astray(&mut self, cx: &mut Cx<'_>, i: usize) {
        let s = &mut self.subflows[i];
        s.astray = s.astray.saturating_add(1);
        if s.astray >= ASTRAY_MAX {
            self.options_vanished(cx, i);
        }
    }

    /// A segment that TCP refused, being old. The SYN/ACK again and again, when nothing of ours
    /// was ever acknowledged: whatever of ours carries an option is dropped, and the server
    /// does not wait for ever.
    pub(crate) fn check_repeated_syn_ack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) {
        let both = packet.flags.contains(Flags::SYN) && packet.flags.contains(Flags::ACK);
        let s = &mut self.subflows[i];
        if s.phase != Phase::Established || !both || packet.seq != s.tcp.irs() || s.acked_to > 0 {
            return;
        }
        let (count, at) = s.syn_acks.unwrap_or((0, cx.now));
        if count > 0 && cx.now < at + SYN_ACKS_APART {
            return;
        }
        s.syn_acks = Some((count.saturating_add(1), cx.now));
        if count + 1 >= SYN_ACKS_MAX && self.options_may_be_dropped(i) {
            self.fall_back_mute(cx, i, Counter::MPCapableDataFallback);
            self.subflows[i].tcp.ack_now();
        }
    }

    /// A wrong checksum has ended a subflow, here (`heard` false) or at the peer. Where the
    /// first bytes of every new one are changed, on every path, no number of them moves
    /// anything. What could is an infinite mapping on a subflow that joins (RFC 8684 §3.7, a
    /// MAY), which Linux resets, too; the application hears of an error instead of waiting.
    pub(crate) fn on_spoiled(&mut self, cx: &mut Cx<'_>, heard: bool) {
        let enough = if heard {
            self.spoiled_tx.add(self.send.una())
        } else {
            self.spoiled_rx.add(self.reassembly.nxt())
        };
        if enough && self.is_mptcp() {
            cx.counters.inc(Counter::SubflowsSpoiled);
            self.finish(CloseReason::Subflowless);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_subflows_that_moved_nothing_count() {
        let mut spoiled = Spoiled::default();
        for at in 1..100 {
            assert!(!spoiled.add(at), "something moved in between");
        }
        for _ in 2..SPOILED_MAX {
            assert!(!spoiled.add(99));
        }
        assert!(spoiled.add(99));
    }
}
