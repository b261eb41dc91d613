//! Where the sender stands between losses: open, fast recovery, or after a timeout.

use super::prr::Prr;
use crate::wire::tcp::SeqNumber;

/// Linux would call it the congestion state.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// No loss known.
    Open,
    /// Marks, not losses, told of congestion: the window shrinks at PRR's pace.
    Reduced(Prr),
    /// Losses are being repaired at PRR's pace.
    Fast(Prr),
    /// A timeout; slow start from one segment.
    Loss,
}

/// Recovery state besides the scoreboard.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    /// SND.NXT when the episode began: it ends when all of that is acknowledged.
    pub(super) until: SeqNumber,
    /// Duplicate ACKs since SND.UNA moved, when the peer has no SACK (RFC 5681 §3.2). Each says
    /// that one segment left the network.
    pub(super) duplicates: u32,
    /// One segment may leave regardless of the window: the timeout's retransmission.
    pub(super) force_one: bool,
    /// A tail loss probe should leave (the newest segment again).
    pub(super) probe_wanted: bool,
    /// TLP.end_seq of the probe that is out (RFC 8985 §7.1).
    pub(super) probe_end: Option<SeqNumber>,
    /// Timeouts without progress in between.
    pub(super) consecutive_rtos: u32,
    /// The segment that the last timeout asked for was really sent.
    pub(super) timeout_answered: bool,
    /// The window was lowered because of losses alone: imagined ones give it back.
    pub(super) undoable: bool,
}

impl Recovery {
    pub(super) fn new(iss: SeqNumber) -> Self {
        Self {
            phase: Phase::Open,
            until: iss,
            duplicates: 0,
            force_one: false,
            probe_wanted: false,
            probe_end: None,
            consecutive_rtos: 0,
            timeout_answered: true,
            undoable: true,
        }
    }

    /// Nothing holds the window down.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// In fast recovery or after a timeout.
    pub(super) fn is_recovering(&self) -> bool {
        matches!(self.phase, Phase::Fast(_) | Phase::Loss)
    }

    /// Tells PRR what left.
    pub(super) fn sent(&mut self, bytes: u32) {
        if let Phase::Fast(prr) | Phase::Reduced(prr) = &mut self.phase {
            prr.sent(bytes);
        }
    }
}
