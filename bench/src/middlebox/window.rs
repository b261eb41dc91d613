//! Boxes with opinions about windows (E3, G3 to G5; Click's ChangeWin).

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::{Segment, WINDOW_SCALE};

/// How the window field changes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// E3: so many times as large, if that can be said.
    Times(u16),
    /// G4: at most this, not scaled.
    AtMost(u16),
    /// G5: zero in the first `zero` of every `of` segments past the SYN.
    Zero {
        /// This many.
        zero: u64,
        /// Of so many.
        of: u64,
    },
    /// Click's ChangeWin(DELTA): skipped when out of range.
    Add(i32),
}

/// Rewrites windows.
#[derive(Debug)]
pub struct Window {
    change: Change,
    way: Way,
    segments: Flows<[u64; 2]>,
}

impl Window {
    /// A box that makes this change.
    #[must_use]
    pub fn new(change: Change, way: Way) -> Self {
        Self {
            change,
            way,
            segments: Flows::default(),
        }
    }
}

impl Rule for Window {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let segments = &mut self.segments.of(s.flow(toward))[toward.index()];
        let turn = *segments;
        *segments += u64::from(s.is_past_syn());
        if self.way.covers(toward) {
            let window = match self.change {
                Change::Times(n) => s.window.saturating_mul(n),
                Change::AtMost(n) => s.window.min(n),
                // The first turn is left alone: a connection has to start.
                Change::Zero { zero, of } if s.is_past_syn() && turn >= of && turn % of < zero => 0,
                Change::Zero { .. } => s.window,
                Change::Add(n) => u16::try_from(i32::from(s.window) + n).unwrap_or(s.window),
            };
            if window != s.window {
                s.window = window;
                exit.count("windows changed");
            }
        }
        exit.send(toward, &s);
    }
}

/// G3: a normalizer that drops every segment whose right edge is left of one it has seen
/// (in the same direction of the same flow) by more than the scale's granularity.
#[derive(Default, Debug)]
pub struct ShrinkGuard {
    flows: Flows<Edges>,
}

#[derive(Default, Debug)]
struct Edges {
    /// Shift as each side offered it.
    scale: [Option<u8>; 2],
    edge: [Option<SeqNumber>; 2],
}

impl Rule for ShrinkGuard {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let edges = self.flows.of(s.flow(toward));
        let dir = toward.index();
        if s.flags.contains(Flags::SYN) {
            edges.scale[dir] = s.option(WINDOW_SCALE).and_then(|o| o.get(2).copied());
            return exit.send(toward, &s);
        }
        if s.flags.contains(Flags::ACK) && !s.flags.contains(Flags::RST) {
            // Both sides must have offered it (RFC 7323 §2.2).
            let shift = match edges.scale {
                [Some(_), Some(_)] => edges.scale[dir].unwrap_or(0).min(14),
                _ => 0,
            };
            let edge = s.ack + (u32::from(s.window) << shift);
            if edges.edge[dir].is_some_and(|seen| edge + (1 << shift) < seen) {
                exit.count("dropped: window shrunk");
                return;
            }
            edges.edge[dir] = Some(edges.edge[dir].map_or(edge, |seen| seen.later(edge)));
        }
        exit.send(toward, &s);
    }
}
