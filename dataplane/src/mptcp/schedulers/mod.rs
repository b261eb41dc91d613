//! Which subflow carries the next burst.
//!
//! A scheduler sees the candidates of the best class that has any: subflows that work and
//! are not backup; else working backups; else anything established. Backups carry data only
//! if no other subflow is usable (RFC 8684 §3.3.8).
//!
//! | file | rule |
//! |---|---|
//! | `min_rtt` | the fastest subflow with room; likes share |
//! | `round_robin` | one burst each in turn |
//! | `redundant` | everything on all subflows |
//! | `blest` | a slow subflow is left out while it would block the send window |
//! | `ecf` | a slow subflow is left out if the fast one finishes sooner |
//!
//! The last two may leave room unused and *wait* for a faster subflow. A wait must end: it is
//! granted only while the subflow waited for has data on its way and no timeout behind it, so
//! that an ACK or the first timeout polls the connection again. Otherwise the second choice
//! sends. [`Scheduler::pick`] enforces that for all of them.
//!
//! Ranges that are sent again do not pass through here: what has failed once goes the
//! fastest way ([`Scheduler::pick_repair`]).

mod blest;
mod ecf;
mod min_rtt;
mod redundant;
mod round_robin;

use core::time::Duration;

use super::config::SchedulerKind;
use crate::time::Instant;

/// What a scheduler knows of a subflow. Everything is read afresh for each decision.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Candidate {
    /// Position among the connection's subflows.
    pub(crate) index: usize,
    /// Its identifier, which stays when positions shift.
    pub(crate) id: u16,
    /// Smoothed round-trip time, once measured.
    pub(crate) srtt: Option<Duration>,
    /// Round-trip time variation.
    pub(crate) rttvar: Duration,
    /// Round-trip time of the path without queues, once measured.
    pub(crate) min_rtt: Option<Duration>,
    /// Bytes it could send now: zero if any of congestion window, peer's window, pacing and
    /// port says so.
    pub(crate) budget: u32,
    /// Bytes on their way: sent, neither acknowledged nor thought lost.
    pub(crate) in_flight: u32,
    /// Bytes sent and not cumulatively acknowledged.
    pub(crate) unacked: u32,
    /// Congestion window, bytes.
    pub(crate) cwnd: u32,
    /// Payload of a full segment.
    pub(crate) mss: u32,
    /// A timeout has passed without progress.
    pub(crate) stalled: bool,
    /// There is data that it has neither carried nor seen DATA_ACKed. Only the redundant
    /// scheduler minds.
    pub(crate) lags: bool,
    /// Class: lower is better.
    pub(crate) class: Class,
}

impl Candidate {
    /// Whether something is sure to happen on it without our sending anything: an ACK, or
    /// the first timeout.
    fn will_be_heard_of(&self) -> bool {
        self.in_flight > 0 && !self.stalled
    }
}

/// What there is to send, and into what.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Demand {
    /// The time.
    pub(crate) now: Instant,
    /// Bytes that may be without DATA_ACK at a time: the peer's window or the send buffer,
    /// whichever is smaller. What is on its way occupies a part of it.
    pub(crate) window: u64,
    /// Bytes that the application has at hand, if it says so.
    pub(crate) waiting: Option<u64>,
}

/// In which order subflows are considered.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Class {
    /// Works, no backup.
    Regular,
    /// Works, backup.
    Backup,
    /// Stale, withdrawn or without carrier, but there is nothing better.
    LastResort,
}

/// The subflow to send on.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pick {
    /// Which one.
    pub(crate) candidate: Candidate,
    /// How much this decision holds for; at least a segment.
    pub(crate) bytes_max: u64,
}

/// A policy's opinion.
#[derive(Copy, Clone, Debug)]
struct Verdict {
    send: Pick,
    /// Rather wait for this one, if one may.
    wait_for: Option<Candidate>,
}

impl Verdict {
    fn send(candidate: Candidate) -> Self {
        Self::send_at_most(candidate, u64::MAX)
    }

    fn send_at_most(candidate: Candidate, bytes: u64) -> Self {
        let bytes_max = bytes.max(candidate.mss.into());
        Self {
            send: Pick {
                candidate,
                bytes_max,
            },
            wait_for: None,
        }
    }

    fn wait(wait_for: Candidate, instead: Candidate) -> Self {
        Self {
            wait_for: Some(wait_for),
            // One segment, then think again.
            ..Self::send_at_most(instead, 0)
        }
    }
}

/// A scheduling policy.
trait Schedule {
    /// What to do, given candidates of one class, with and without budget. `None` if none
    /// has any.
    fn decide(
        &mut self,
        demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Verdict>;
}

/// The fastest candidate, if it is clearly faster than `slow`; and both round-trip times.
fn faster_than(
    slow: &Candidate,
    candidates: impl Iterator<Item = Candidate>,
) -> Option<(Candidate, Duration, Duration)> {
    let slow_rtt = slow.srtt?;
    let fast = candidates
        .filter(|c| c.srtt.is_some())
        .min_by_key(|c| c.srtt)?;
    let fast_rtt = fast.srtt.filter(|rtt| *rtt < slow_rtt)?;
    (fast.index != slow.index && !min_rtt::comparable(&fast, slow))
        .then_some((fast, fast_rtt, slow_rtt))
}

/// What came of a decision.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Decision {
    /// Send.
    Send(Pick),
    /// Leave the room that there is unused.
    Wait,
    /// There is no room.
    Nothing,
}

impl Decision {
    #[cfg(test)]
    fn unwrap(self) -> Pick {
        match self {
            Decision::Send(pick) => pick,
            other => panic!("{other:?}"),
        }
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(SchedulerKind::default())
    }
}

/// The policy of one connection, without virtual calls.
#[derive(Debug)]
pub(crate) enum Scheduler {
    /// See [`min_rtt`].
    MinRtt(min_rtt::MinRtt),
    /// See [`round_robin`].
    RoundRobin(round_robin::RoundRobin),
    /// See [`redundant`].
    Redundant(redundant::Redundant),
    /// See [`blest`].
    Blest(blest::Blest),
    /// See [`ecf`].
    Ecf(ecf::Ecf),
}

impl Scheduler {
    pub(crate) fn new(kind: SchedulerKind) -> Self {
        match kind {
            SchedulerKind::MinRtt => Self::MinRtt(min_rtt::MinRtt),
            SchedulerKind::RoundRobin => Self::RoundRobin(round_robin::RoundRobin::default()),
            SchedulerKind::Redundant => Self::Redundant(redundant::Redundant),
            SchedulerKind::Blest => Self::Blest(blest::Blest::default()),
            SchedulerKind::Ecf => Self::Ecf(ecf::Ecf::default()),
        }
    }

    /// Whether subflows carry copies of what others carry.
    pub(crate) fn copies(&self) -> bool {
        matches!(self, Self::Redundant(_))
    }

    /// The send window is full although a subflow has room.
    pub(crate) fn window_blocked(&mut self) {
        if let Self::Blest(s) = self {
            s.window_blocked();
        }
    }

    /// Who carries new data. A class is left for a worse one only if it is empty, not if its
    /// members have no budget: they will have.
    pub(crate) fn pick(
        &mut self,
        demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Decision {
        let Some(best) = best_class(candidates.clone()) else {
            return Decision::Nothing;
        };
        let candidates = candidates.filter(|c| c.class == best);
        let verdict = match self {
            Self::MinRtt(s) => s.decide(demand, candidates),
            Self::RoundRobin(s) => s.decide(demand, candidates),
            Self::Redundant(s) => s.decide(demand, candidates),
            Self::Blest(s) => s.decide(demand, candidates),
            Self::Ecf(s) => s.decide(demand, candidates),
        };
        match verdict {
            None => Decision::Nothing,
            Some(v) if v.wait_for.is_some_and(|f| f.will_be_heard_of()) => Decision::Wait,
            Some(v) => Decision::Send(v.send),
        }
    }

    /// Who carries what another subflow failed: nobody waits with that.
    pub(crate) fn pick_repair(
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Candidate> {
        let best = best_class(candidates.clone())?;
        min_rtt::best(candidates.filter(|c| c.class == best))
    }
}

fn best_class(candidates: impl Iterator<Item = Candidate>) -> Option<Class> {
    candidates.map(|c| c.class).min()
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::*;
    use proptest::prelude::*;

    #[test]
    fn backups_wait_for_regular_subflows_without_budget() {
        for kind in SchedulerKind::ALL {
            let pick = |all: &[Candidate]| choice(kind, &BULK, all);
            let full = busy(0, 10, 14_200);
            let backup = Candidate {
                class: Class::Backup,
                ..idle(1, 1)
            };
            let stale = Candidate {
                class: Class::LastResort,
                ..idle(2, 1)
            };
            assert_eq!(pick(&[full, backup]), None, "{kind:?}");
            assert_eq!(pick(&[backup, stale]), Some(1), "{kind:?}");
            assert_eq!(pick(&[stale]), Some(2), "{kind:?}");
            assert_eq!(pick(&[]), None, "{kind:?}");
        }
    }

    /// RFC 8684 §3.3.8: a backup carries data only when no regular subflow is left, repairs too.
    #[test]
    fn repairs_wait_for_regular_subflows_without_budget() {
        let repair =
            |all: &[Candidate]| Scheduler::pick_repair(all.iter().copied()).map(|c| c.index);
        let backup = Candidate {
            class: Class::Backup,
            ..idle(1, 1)
        };
        assert_eq!(repair(&[idle(0, 50), backup]), Some(0));
        assert_eq!(repair(&[busy(0, 10, 14_200), backup]), None);
        assert_eq!(repair(&[backup]), Some(1));
    }

    prop_compose! {
        fn any_candidate(index: usize)(
            rtt_ms in proptest::option::of(0u64..3000),
            var_ms in 0u64..500,
            segments in 0u32..1000,
            cwnd in 1u32..1000,
            flight in 0u32..1000,
            stalled in any::<bool>(),
            class in 0usize..3,
        ) -> Candidate {
            Candidate {
                srtt: rtt_ms.map(Duration::from_millis),
                min_rtt: rtt_ms.map(Duration::from_millis),
                rttvar: Duration::from_millis(var_ms),
                budget: segments.saturating_sub(500) * 1420,
                cwnd: cwnd * 1420,
                in_flight: flight.saturating_sub(500) * 1420,
                unacked: flight * 1420,
                stalled,
                class: [Class::Regular, Class::Backup, Class::LastResort][class],
                ..idle(index, 1)
            }
        }
    }

    proptest! {
        /// Who waits will be polled again; who sends has budget and is of the best class;
        /// and if somebody of that class has budget, one of both happens.
        #[test]
        fn no_decision_deadlocks(
            candidates in (any_candidate(0), any_candidate(1), any_candidate(2)),
            count in 0usize..=3,
            window in 0u64..5_000_000,
            waiting in proptest::option::of(0u64..5_000_000),
        ) {
            let (a, b, c) = candidates;
            let all = &[a, b, c][..count];
            let demand = Demand { window, waiting, ..BULK };
            let best = all.iter().map(|c| c.class).min();
            let in_class = || all.iter().filter(|c| Some(c.class) == best);
            for kind in SchedulerKind::ALL {
                match Scheduler::new(kind).pick(&demand, all.iter().copied()) {
                    Decision::Send(pick) => {
                        prop_assert!(pick.candidate.budget > 0);
                        prop_assert!(Some(pick.candidate.class) == best);
                        prop_assert!(pick.bytes_max >= u64::from(pick.candidate.mss));
                    }
                    Decision::Wait => {
                        prop_assert!(in_class().any(|c| c.in_flight > 0 && !c.stalled));
                    }
                    Decision::Nothing => prop_assert!(in_class().all(|c| c.budget == 0)),
                }
            }
        }
    }
}
