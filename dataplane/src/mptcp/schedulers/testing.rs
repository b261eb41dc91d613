//! What the tests of all schedulers share.

pub(super) use super::{Candidate, Class, Decision, Demand, Scheduler};
pub(super) use crate::mptcp::config::SchedulerKind;
pub(super) use core::time::Duration;

use crate::time::Instant;

const MSS: u32 = 1420;

/// More to send than anybody says, and all the room in the world.
pub(super) const BULK: Demand = Demand {
    now: Instant::ZERO,
    window: u64::MAX,
    waiting: None,
};

/// A subflow of ten segments' window with nothing on its way.
pub(super) fn idle(index: usize, rtt_ms: u64) -> Candidate {
    Candidate {
        index,
        id: u16::try_from(index).unwrap(),
        srtt: Some(Duration::from_millis(rtt_ms)),
        rttvar: Duration::ZERO,
        min_rtt: Some(Duration::from_millis(rtt_ms)),
        budget: 10 * MSS,
        in_flight: 0,
        unacked: 0,
        cwnd: 10 * MSS,
        mss: MSS,
        stalled: false,
        lags: false,
        class: Class::Regular,
    }
}

/// One without room.
pub(super) fn busy(index: usize, rtt_ms: u64, in_flight: u32) -> Candidate {
    Candidate {
        budget: 0,
        in_flight,
        unacked: in_flight,
        ..idle(index, rtt_ms)
    }
}

impl Candidate {
    /// The same, but it may send.
    pub(super) fn with_budget(self, budget: u32) -> Self {
        Self { budget, ..self }
    }
}

/// The position that is picked; `None` also for a wait.
pub(super) fn pick(
    scheduler: &mut Scheduler,
    demand: &Demand,
    candidates: &[Candidate],
) -> Option<usize> {
    match scheduler.pick(demand, candidates.iter().copied()) {
        Decision::Send(pick) => Some(pick.candidate.index),
        Decision::Wait | Decision::Nothing => None,
    }
}

/// What a fresh scheduler picks.
pub(super) fn choice(
    kind: SchedulerKind,
    demand: &Demand,
    candidates: &[Candidate],
) -> Option<usize> {
    pick(&mut Scheduler::new(kind), demand, candidates)
}
