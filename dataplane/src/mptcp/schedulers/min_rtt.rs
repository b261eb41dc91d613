//! Lowest smoothed RTT among the subflows that can send now.
//!
//! Paths that are alike without their queues are equally good: among them the one with the
//! emptier congestion window is taken. By the smoothed RTT, which measures our own queue and
//! both hosts' batches, a sender that is not limited by its windows would use only one of two
//! equal paths (seen: 0.3 % on the other), and noise would decide which.

use core::time::Duration;

use super::{Candidate, Demand, Schedule, Verdict};

/// What a segment sent now has to expect. The smoothed RTT of a path with nothing on its way
/// is the memory of a queue that has drained; held against the path, it would never be
/// measured again.
fn latency(c: &Candidate) -> Option<Duration> {
    if c.in_flight == 0 {
        c.min_rtt.or(c.srtt)
    } else {
        c.srtt
    }
}

/// Base RTTs that differ by less than a quarter, or by less than what hosts add.
fn alike(a: &Candidate, b: &Candidate) -> bool {
    match (a.min_rtt, b.min_rtt) {
        (Some(x), Some(y)) => x.abs_diff(y) <= (x.min(y) / 4).max(HOST_NOISE),
        _ => false,
    }
}

/// A receive batch or a wake-up: no property of the path.
const HOST_NOISE: Duration = Duration::from_micros(100);

/// The better of two candidates that both have budget; `a` comes first.
fn prefer(a: Candidate, b: Candidate) -> Candidate {
    match (latency(&a), latency(&b)) {
        (Some(_), Some(_)) if alike(&a, &b) => {
            // in_flight / cwnd, compared without dividing.
            let load =
                |c: &Candidate, other: &Candidate| u64::from(c.in_flight) * u64::from(other.cwnd);
            if load(&b, &a) < load(&a, &b) { b } else { a }
        }
        (Some(x), Some(y)) => {
            if y < x {
                b
            } else {
                a
            }
        }
        // An unmeasured subflow is tried when the measured ones are busy.
        (None, Some(_)) => b,
        (_, None) => a,
    }
}

/// The best of those that have budget. Other schedulers begin with it, too.
pub(super) fn best(candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
    candidates.filter(|c| c.budget > 0).reduce(prefer)
}

/// Two measured subflows of which none has to wait for the other: what is "fast" and what
/// "slow" would be noise.
pub(super) fn comparable(fast: &Candidate, slow: &Candidate) -> bool {
    alike(fast, slow)
}

/// Stateless.
#[derive(Debug)]
pub(crate) struct MinRtt;

impl Schedule for MinRtt {
    fn decide(
        &mut self,
        _demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Verdict> {
        best(candidates).map(Verdict::send)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    fn pick(candidates: &[Candidate]) -> Option<usize> {
        choice(SchedulerKind::MinRtt, &BULK, candidates)
    }

    #[test]
    fn the_memory_of_a_drained_queue_is_not_held_against_a_path() {
        let loaded = busy(0, 20, 9_000).with_budget(1400);
        let idle = Candidate {
            srtt: Some(Duration::from_millis(90)),
            min_rtt: Some(Duration::from_millis(10)),
            ..idle(1, 90)
        };
        assert_eq!(pick(&[loaded, idle]), Some(1));
    }

    #[test]
    fn paths_with_like_rtts_share_by_load() {
        let more = busy(0, 10, 9_000).with_budget(1400);
        let less = busy(1, 12, 2_000).with_budget(1400);
        assert_eq!(pick(&[more, less]), Some(1));
        assert_eq!(pick(&[less, more]), Some(1));
        // A much faster path is worth filling first.
        assert_eq!(pick(&[more, idle(1, 30)]), Some(0));
    }

    #[test]
    fn the_fastest_with_budget_wins() {
        let fast = busy(0, 10, 14_200);
        let slow = idle(1, 50);
        let unmeasured = Candidate {
            srtt: None,
            min_rtt: None,
            ..idle(2, 0)
        };
        assert_eq!(pick(&[fast, slow, unmeasured]), Some(1));
        assert_eq!(pick(&[fast, unmeasured]), Some(2));
        assert_eq!(pick(&[fast]), None);
    }
}
