//! The window we advertise.
//!
//! Its right edge never moves left, whatever the owner's free space does: normalisers drop
//! connections that shrink it. Two edges follow from that:
//! - *advertised*: what left on the wire. The field counts units of `2^shift`, so keeping the
//!   edge while RCV.NXT moves by odd amounts means rounding up, and the edge creeps.
//! - *committed*: the largest edge that free space ever justified. Data is kept up to a slack
//!   beyond it, which bounds what creeping can cost; the rest is dropped as if lost.

use crate::wire::tcp::SeqNumber;

/// What creeping may cost at the most.
const SLACK_MAX: u32 = 256 << 10;

/// Receive window state.
#[derive(Clone, Debug)]
pub(super) struct ReceiveWindow {
    shift: u8,
    /// What a SYN or SYN/ACK has offered; its repetitions offer no less.
    syn: u16,
    /// Free space the owner grants beyond RCV.NXT.
    space: u32,
    committed: SeqNumber,
    advertised: SeqNumber,
    slack: u32,
    /// Growth below this is not worth telling (RFC 9293 §3.8.6.2.2).
    silly: u32,
    limit: u32,
}

impl ReceiveWindow {
    pub(super) fn new(limit: u32, mss: u32) -> Self {
        Self {
            shift: 0,
            syn: 0,
            space: limit,
            committed: SeqNumber::default(),
            advertised: SeqNumber::default(),
            slack: (limit / 16).min(SLACK_MAX).max(2 * mss),
            silly: mss.min(limit / 2),
            limit,
        }
    }

    /// The handshake told us where the peer's numbers begin.
    pub(super) fn start(&mut self, rcv_nxt: SeqNumber) {
        self.committed = rcv_nxt + self.space.max(u32::from(self.syn));
        self.advertised = rcv_nxt;
    }

    /// Scaling was agreed on.
    pub(super) fn set_shift(&mut self, shift: u8) {
        self.shift = shift;
    }

    pub(super) fn shift(&self) -> u8 {
        self.shift
    }

    /// The owner has this much room for what comes at and after RCV.NXT.
    pub(super) fn set_space(&mut self, rcv_nxt: SeqNumber, bytes: u32) {
        self.space = bytes.min(self.limit);
        if bytes > 0 {
            // Without space nothing is justified, also not what was kept beyond it.
            self.committed = self.committed.later(rcv_nxt + self.space);
        }
    }

    /// Would an ACK now tell of a window at least twice what the peer knows?
    pub(super) fn update_is_worthwhile(&self, rcv_nxt: SeqNumber) -> bool {
        let (_, edge) = self.field(rcv_nxt);
        let known = self.advertised - rcv_nxt;
        edge - self.advertised >= self.silly && edge - rcv_nxt >= known.saturating_mul(2)
    }

    /// The field for a segment that acknowledges `rcv_nxt`, and the edge it stands for.
    pub(super) fn field(&self, rcv_nxt: SeqNumber) -> (u16, SeqNumber) {
        let wanted = rcv_nxt + self.space;
        let keep = (self.advertised - rcv_nxt).div_ceil(1 << self.shift);
        let grow = if wanted > self.advertised && wanted - self.advertised >= self.silly {
            self.space >> self.shift
        } else {
            0
        };
        let field = u16::try_from(keep.max(grow)).unwrap_or(u16::MAX);
        (field, rcv_nxt + (u32::from(field) << self.shift))
    }

    /// The field of a SYN or SYN/ACK (RFC 7323 §2.2: not scaled). The space may shrink
    /// between two of them, or before the answer: a join of a connection whose reader is slow.
    pub(super) fn syn_field(&mut self) -> u16 {
        let space = u16::try_from(self.space).unwrap_or(u16::MAX);
        self.syn = self.syn.max(space);
        self.syn
    }

    /// A segment with this edge left.
    pub(super) fn advertise(&mut self, edge: SeqNumber) {
        self.advertised = self.advertised.later(edge);
    }

    pub(super) fn advertised(&self) -> SeqNumber {
        self.advertised
    }

    /// Up to where data is kept.
    pub(super) fn keep_until(&self) -> SeqNumber {
        self.advertised.earlier(self.committed + self.slack)
    }

    /// RCV.NXT passed a FIN, which lies beyond the window if that was full.
    pub(super) fn advance_to(&mut self, rcv_nxt: SeqNumber) {
        self.advertised = self.advertised.later(rcv_nxt);
        self.committed = self.committed.later(rcv_nxt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: SeqNumber = SeqNumber(u32::MAX - 1000);

    /// Row 63: from SYN to established and back, free space does what it likes.
    #[test]
    fn a_syn_repeated_with_less_space_offers_no_less() {
        let mut window = ReceiveWindow::new(1 << 20, 1000);
        window.set_space(BASE, 40_000);
        assert_eq!(window.syn_field(), 40_000);
        window.set_space(BASE, 3_000);
        assert_eq!(window.syn_field(), 40_000);
        window.start(BASE);
        window.set_shift(4);
        let edge = BASE + u32::from(window.syn_field());
        window.advertise(edge);
        assert_eq!(window.keep_until(), edge, "what the SYN promised is taken");
        assert_eq!(advertise(&mut window, BASE), 2_500);
    }

    proptest! {
        /// Row 63: whatever free space, arrivals, scale and losses of our own segments do,
        /// no segment that leaves shows an edge left of one that left before, the edge is
        /// within a unit of what was justified or was promised before, and what is kept
        /// beyond what was ever justified is bounded.
        #[test]
        fn no_sequence_of_events_moves_the_edge_left(
            shift in 0u8..=14,
            steps in proptest::collection::vec((0u32..1 << 20, 0u32..70_000, any::<bool>()), 1..200),
        ) {
            let mut window = window(shift, 1 << 20);
            let mut rcv_nxt = BASE;
            let mut right = BASE;
            let mut justified = BASE + (1 << 20);
            for (space, arrives, leaves) in steps {
                // The peer keeps to what it was told, and we to what we keep.
                let room = (window.keep_until().later(rcv_nxt) - rcv_nxt).min(right.later(rcv_nxt) - rcv_nxt);
                rcv_nxt += arrives.min(room);
                window.set_space(rcv_nxt, space);
                if space > 0 {
                    justified = justified.later(rcv_nxt + space);
                }
                if leaves {
                    let (field, edge) = window.field(rcv_nxt);
                    prop_assert_eq!(edge, rcv_nxt + (u32::from(field) << shift));
                    prop_assert!(edge >= right, "moved left by {}", right - edge);
                    let unit = 1 << shift;
                    prop_assert!(edge <= right + unit || edge <= rcv_nxt + space);
                    right = edge;
                    window.advertise(edge);
                }
                prop_assert!(window.keep_until() <= justified + window.slack);
            }
        }
    }

    fn window(shift: u8, space: u32) -> ReceiveWindow {
        let mut window = ReceiveWindow::new(1 << 20, 1000);
        window.set_space(BASE, space);
        window.start(BASE);
        window.set_shift(shift);
        window
    }

    fn advertise(window: &mut ReceiveWindow, rcv_nxt: SeqNumber) -> u16 {
        let (field, edge) = window.field(rcv_nxt);
        assert!(edge >= window.advertised(), "right edge moved left");
        window.advertise(edge);
        field
    }

    #[test]
    fn shrinking_space_keeps_the_edge() {
        let mut window = window(4, 100_000);
        assert_eq!(advertise(&mut window, BASE), 6250);
        let edge = window.advertised();
        window.set_space(BASE + 1001, 0);
        advertise(&mut window, BASE + 1001);
        // 98 999 is not a multiple of 16: rounded up, never down.
        assert!(window.advertised() >= edge && window.advertised() - edge < 16);
    }

    #[test]
    fn creeping_does_not_grow_what_is_kept_beyond_the_slack() {
        let mut window = window(10, 100 << 10);
        advertise(&mut window, BASE);
        let mut rcv_nxt = BASE;
        while rcv_nxt < window.keep_until() {
            rcv_nxt += 1;
            window.set_space(rcv_nxt, 0);
            advertise(&mut window, rcv_nxt);
        }
        assert!(window.advertised() > rcv_nxt, "the edge crept");
        assert_eq!(rcv_nxt - BASE, (100 << 10) + (1 << 16));
    }

    #[test]
    fn small_growth_is_silent() {
        let mut window = window(0, 5000);
        assert_eq!(advertise(&mut window, BASE), 5000);
        window.set_space(BASE, 5999);
        assert_eq!(window.field(BASE).0, 5000);
        window.set_space(BASE, 6000);
        assert_eq!(window.field(BASE).0, 6000);
        assert!(!window.update_is_worthwhile(BASE));
        window.set_space(BASE, 10_000);
        assert!(window.update_is_worthwhile(BASE));
    }

    #[test]
    fn the_field_is_capped() {
        let mut window = window(0, 1 << 20);
        assert_eq!(advertise(&mut window, BASE), 65_535);
        assert_eq!(window.syn_field(), 65_535);
    }
}
