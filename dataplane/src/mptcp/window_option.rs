//! The connection-level window in an option of its own, between peers that both know it.
//!
//! RFC 8684 has every subflow's header carry the one window that all of them share. A header
//! window that must not shrink (normalisers drop connections whose right edge moves left) can
//! then only promise more than there is, and what comes beyond the real window is dropped
//! above TCP and sent again. With `window-option` the receiver also tells the data sequence
//! number up to which it takes data, in an experimental option (subtype 0xf, for private use:
//! RFC 8684 §7.2); the sender obeys that edge *and* the subflow's header window.
//!
//! - The edge is absolute, so it needs no DATA_ACK beside it, and older ones are harmless.
//! - Negotiated by presence: who has the setting puts the option on pure ACKs once the
//!   connection is fully established. Others, Linux among them, ignore unknown subtypes.
//! - H(eard) says that the peer's option has arrived here. Only who is heard may let its
//!   header windows be per subflow, no longer bounded by the shared window; until then, and
//!   if a box removes the option, both ends go on as without it.
//! - It takes what room DSS and SACK blocks leave and never travels with data.

use super::api::Cx;
use super::state::Core;
use crate::counters::Counter;
use crate::time::Instant;
use crate::wire::mptcp::MptcpOption;

/// A peer may not claim more than the largest window there can be (RFC 7323 §2.3).
const WINDOW_MAX: u64 = 1 << 30;
/// A growth of this share of the receive buffer is told at once.
const GROWTH_SHARE: u64 = 8;
/// Growth below this is not told on its own (RFC 9293 §3.8.6.2.2): about a segment.
const SILLY_BYTES: u64 = 1400;

/// What one connection knows about the option.
#[derive(Debug, Default)]
pub(crate) struct WindowOption {
    enabled: bool,
    /// The peer's option has arrived: its edge is the window.
    peer_speaks: bool,
    /// The peer says that ours arrives.
    heard: bool,
    /// The edge that may be told, and the one that was, as stream offsets. Neither moves left.
    offered: u64,
    told: u64,
    /// The peer does not know yet that it is heard: when to say so again.
    answer_after: Option<Instant>,
}

impl WindowOption {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            ..Self::default()
        }
    }

    /// Whether the peer's option, not its header windows, says how much it takes.
    pub(crate) fn peer_speaks(&self) -> bool {
        self.peer_speaks
    }

    /// Room for `free` bytes from `nxt` on. True if the peer ought to know at once.
    fn offer(&mut self, nxt: u64, free: u64, buffer: u64) -> bool {
        self.offered = self.offered.max(nxt + free);
        let growth = self.offered - self.told;
        let known = self.told.saturating_sub(nxt);
        let share = (buffer / GROWTH_SHARE).max(SILLY_BYTES);
        let doubles = growth >= SILLY_BYTES.min(buffer / 2) && self.offered - nxt >= 2 * known;
        growth >= share || doubles
    }
}

impl Core {
    pub(crate) fn may_use_window_option(&self) -> bool {
        self.window.enabled
            && self.fully_established
            && self.is_mptcp()
            && self.version.has_private_subtype()
    }

    /// Both ends have the option and know it of each other: header windows are each subflow's
    /// own.
    pub(crate) fn windows_are_per_subflow(&self) -> bool {
        self.window.heard && self.window.peer_speaks && self.is_mptcp()
    }

    /// Notes how much may come; wakes a subflow if the peer ought to know at once.
    pub(crate) fn offer_window_option(&mut self, free: u64) {
        let buffer = u64::from(self.buffer.bytes());
        let nxt = self.reassembly.nxt();
        let urgent = self.window.offer(nxt, free, buffer);
        if urgent
            && self.windows_are_per_subflow()
            && !self.closing.closes_subflows(&self.reassembly)
            && let Some(i) = self.best_signal_subflow()
        {
            self.signal_window(i);
        }
    }

    /// Data may carry the acknowledgment, but never the option: it gets an ACK of its own.
    fn signal_window(&mut self, i: usize) {
        if let Some((option, _)) = self.window_option() {
            let signals = &mut self.subflows[i].signals;
            signals.retain(|o| !matches!(o, MptcpOption::Window { .. }));
            self.subflows[i].signal(option);
        }
    }

    /// The option for an ACK, and the edge in it.
    pub(crate) fn window_option(&self) -> Option<(MptcpOption, u64)> {
        if !self.may_use_window_option() {
            return None;
        }
        let edge = self.window.offered;
        let option = MptcpOption::Window {
            heard: self.window.peer_speaks,
            edge: self.rcv_space.dsn(edge).low(),
        };
        Some((option, edge))
    }

    /// An ACK with this edge is about to leave.
    pub(crate) fn window_option_sent(&mut self, cx: &mut Cx<'_>, edge: u64) {
        self.window.told = self.window.told.max(edge);
        cx.counters.inc(Counter::WindowOptionTx);
    }

    /// The peer's option, on a valid segment of subflow `i`.
    pub(crate) fn on_window_option(&mut self, cx: &mut Cx<'_>, i: usize, heard: bool, edge: u32) {
        if !self.may_use_window_option() {
            return;
        }
        cx.counters.inc(Counter::WindowOptionRx);
        let una = self.send.una();
        if let Some(edge) = self.snd_space.offset(u64::from(edge), false, una) {
            if edge > una + WINDOW_MAX {
                return;
            }
            self.snd_edge = self.snd_edge.max(edge);
        }
        self.window.peer_speaks = true;
        self.window.heard |= heard;
        if heard {
            self.window.answer_after = None;
        } else if self.window.answer_after.is_none_or(|at| at <= cx.now) {
            // A peer that only receives sends no reason for an ACK.
            self.window.answer_after = Some(cx.now + self.subflows[i].tcp.rto());
            self.signal_window(i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_stays_and_only_real_growth_is_urgent() {
        let mut w = WindowOption::new(true);
        assert!(w.offer(0, 80_000, 80_000), "nothing was told");
        w.told = w.offered;
        assert!(!w.offer(10_000, 60_000, 80_000));
        assert_eq!(w.offered, 80_000, "free space shrank, the edge did not");
        assert!(!w.offer(10_000, 79_000, 80_000), "less than an eighth");
        assert!(w.offer(10_000, 80_000, 80_000));
        w.told = w.offered;
        assert!(!w.offer(90_000, 1_000, 80_000), "silly");
        assert!(w.offer(90_000, 1_400, 80_000), "the peer has nothing left");
    }
}
