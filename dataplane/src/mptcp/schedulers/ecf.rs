//! ECF, earliest completion first: a slow subflow is left out when the fast one, busy as it
//! is, would finish what is left sooner (Y. Lim, E. Nahum, D. Towsley, R. Gibbens: "ECF: An
//! MPTCP Path Scheduler to Manage Heterogeneous Paths", CoNEXT 2017).
//!
//! With k bytes left to send, F the fastest subflow (its window full) and S the best with
//! room, Algorithm 1 of the paper:
//!
//! ```text
//! n = 1 + k / CWND_F,   δ = max(σ_F, σ_S)
//! if n * RTT_F < (1 + waiting * β) * (RTT_S + δ):
//!     if k / CWND_S * RTT_S >= 2 * RTT_F + δ:  wait for F, waiting = 1
//!     else:                                    send on S
//! else:                                        send on S, waiting = 0
//! ```
//!
//! k is what the application has at hand. One that does not say how much is taken to have
//! more than fits into any number of round trips: then this is min-RTT.

use core::time::Duration;

use super::min_rtt;
use super::{Candidate, Demand, Schedule, Verdict};

/// 1/β (§4 of the paper: β = 0.25).
const BETA_DIVISOR: u128 = 4;

/// The hysteresis bit.
#[derive(Debug, Default)]
pub(crate) struct Ecf {
    waiting: bool,
}

impl Schedule for Ecf {
    fn decide(
        &mut self,
        demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Verdict> {
        let slow = min_rtt::best(candidates.clone())?;
        let Some((fast, fast_rtt, slow_rtt)) = super::faster_than(&slow, candidates) else {
            return Some(Verdict::send(slow));
        };
        let Some(k) = demand.waiting.map(u128::from) else {
            return Some(Verdict::send(slow));
        };
        // In byte-nanoseconds: nothing is divided that may be small.
        let nanos = |d: Duration| d.as_nanos();
        let (fast_cwnd, slow_cwnd) = (u128::from(fast.cwnd.max(1)), u128::from(slow.cwnd.max(1)));
        let delta = nanos(fast.rttvar.max(slow.rttvar));
        let slow_once = nanos(slow_rtt) + delta;
        let patience = if self.waiting {
            slow_once + slow_once / BETA_DIVISOR
        } else {
            slow_once
        };
        let fast_is_sooner = (fast_cwnd + k) * nanos(fast_rtt) < patience * fast_cwnd;
        if !fast_is_sooner {
            self.waiting = false;
            // Down to the k from which on F is sooner.
            let enough = (slow_once * fast_cwnd / nanos(fast_rtt).max(1)).saturating_sub(fast_cwnd);
            let bytes = u64::try_from(k.saturating_sub(enough)).unwrap_or(u64::MAX);
            return Some(Verdict::send_at_most(slow, bytes));
        }
        if k * nanos(slow_rtt) >= (2 * nanos(fast_rtt) + delta) * slow_cwnd {
            self.waiting = true;
            return Some(Verdict::wait(fast, slow));
        }
        Some(Verdict::send(slow))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    /// F: 10 ms, a full window of 10 segments. S: 100 ms, 10 segments, idle.
    fn pair() -> [Candidate; 2] {
        [busy(0, 10, 14_200), idle(1, 100)]
    }

    fn left(bytes: u64) -> Demand {
        Demand {
            waiting: Some(bytes),
            ..BULK
        }
    }

    fn choose(demand: &Demand) -> Option<usize> {
        choice(SchedulerKind::Ecf, demand, &pair())
    }

    #[test]
    fn the_rule_of_the_paper() {
        // k = 20 segments: F needs 3 round trips, 30 ms < 100 ms; S 2 of 100 ms >= 20 ms.
        assert_eq!(choose(&left(28_400)), None);
        // k = 95 segments: F would need 105 ms.
        assert_eq!(choose(&left(1420 * 95)), Some(1));
        // Bulk, or who knows.
        assert_eq!(choose(&left(10 << 20)), Some(1));
        assert_eq!(choose(&BULK), Some(1));
        // Second condition: so little that S sends it in less than 2 round trips of F
        // (k / CWND_S * 100 ms < 20 ms).
        assert_eq!(choose(&left(1420)), Some(1));
        assert_eq!(choose(&left(1420 * 2)), None);
    }

    #[test]
    fn only_what_the_fast_one_would_not_finish_sooner_goes_on_the_slow_one() {
        let mut scheduler = Scheduler::new(SchedulerKind::Ecf);
        let chosen = scheduler.pick(&left(1420 * 95), pair().into_iter());
        // 90 segments are F's break-even.
        assert_eq!(chosen.unwrap().bytes_max, 1420 * 5);
    }

    #[test]
    fn variance_makes_it_patient() {
        let [fast, slow] = pair();
        let noisy = Candidate {
            rttvar: Duration::from_millis(50),
            ..slow
        };
        let demand = left(1420 * 120);
        let pick = |all: &[Candidate]| choice(SchedulerKind::Ecf, &demand, all);
        assert_eq!(pick(&[fast, slow]), Some(1));
        assert_eq!(pick(&[fast, noisy]), None);
    }

    #[test]
    fn who_waits_goes_on_waiting_a_little_longer() {
        let mut scheduler = Scheduler::new(SchedulerKind::Ecf);
        let all = pair();
        // (10 + 100) / 10 * 10 ms: more than 100 ms, less than 125 ms.
        let between = left(1420 * 100);
        assert_eq!(pick(&mut scheduler, &between, &all), Some(1));
        assert_eq!(pick(&mut scheduler, &left(28_400), &all), None);
        assert_eq!(pick(&mut scheduler, &between, &all), None);
        assert_eq!(pick(&mut scheduler, &left(1420 * 150), &all), Some(1));
        assert_eq!(pick(&mut scheduler, &between, &all), Some(1));
    }

    #[test]
    fn nothing_waits_for_a_fast_subflow_without_data_on_its_way() {
        let [fast, slow] = pair();
        for fast in [
            Candidate {
                in_flight: 0,
                ..fast
            },
            Candidate {
                stalled: true,
                ..fast
            },
        ] {
            let all = [fast, slow];
            assert_eq!(choice(SchedulerKind::Ecf, &left(28_400), &all), Some(1));
        }
    }
}
