//! Which subflow carries the next burst.
//!
//! A scheduler sees the candidates of the best class that has any: subflows that work and
//! are not backup; else working backups; else anything established. Backups carry data only
//! if no other subflow is usable (RFC 8684 §3.3.8).

mod min_rtt;

use core::time::Duration;

use super::config::SchedulerKind;

/// What a scheduler knows of a subflow.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Candidate {
    /// Position among the connection's subflows.
    pub(crate) index: usize,
    /// Smoothed round-trip time, once measured.
    pub(crate) srtt: Option<Duration>,
    /// Round-trip time of the path without queues, once measured.
    pub(crate) min_rtt: Option<Duration>,
    /// Bytes it could send now.
    pub(crate) budget: u32,
    /// Bytes on their way.
    pub(crate) in_flight: u32,
    /// Congestion window, bytes.
    pub(crate) cwnd: u32,
    /// Class: lower is better.
    pub(crate) class: Class,
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

/// A scheduling policy.
trait Schedule {
    /// The better of two candidates that both have budget; `a` comes first.
    fn prefer(&mut self, a: Candidate, b: Candidate) -> Candidate;
}

/// The policy of one connection, without virtual calls.
#[derive(Debug)]
pub(crate) enum Scheduler {
    /// Lowest smoothed RTT.
    MinRtt(min_rtt::MinRtt),
}

impl Scheduler {
    pub(crate) fn new(kind: SchedulerKind) -> Self {
        match kind {
            SchedulerKind::MinRtt => Self::MinRtt(min_rtt::MinRtt),
        }
    }

    /// Picks one of `candidates`. A class is left for a worse one only if it is empty, not
    /// if its members have no budget: they will have.
    pub(crate) fn pick(
        &mut self,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Candidate> {
        let best = candidates.clone().map(|c| c.class).min()?;
        candidates
            .filter(|c| c.class == best && c.budget > 0)
            .reduce(|a, b| match self {
                Self::MinRtt(s) => s.prefer(a, b),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize, rtt_ms: Option<u64>, budget: u32, class: Class) -> Candidate {
        Candidate {
            index,
            srtt: rtt_ms.map(Duration::from_millis),
            min_rtt: rtt_ms.map(Duration::from_millis),
            budget,
            in_flight: 0,
            cwnd: 14_200,
            class,
        }
    }

    #[test]
    fn the_memory_of_a_drained_queue_is_not_held_against_a_path() {
        let loaded = Candidate {
            in_flight: 9_000,
            ..candidate(0, Some(20), 1400, Class::Regular)
        };
        let idle = Candidate {
            srtt: Some(Duration::from_millis(90)),
            min_rtt: Some(Duration::from_millis(10)),
            ..candidate(1, None, 1400, Class::Regular)
        };
        assert_eq!(pick(&[loaded, idle]), Some(1));
    }

    #[test]
    fn paths_with_like_rtts_share_by_load() {
        let busy = Candidate {
            in_flight: 9_000,
            ..candidate(0, Some(10), 1400, Class::Regular)
        };
        let idle = Candidate {
            in_flight: 2_000,
            ..candidate(1, Some(12), 1400, Class::Regular)
        };
        assert_eq!(pick(&[busy, idle]), Some(1));
        assert_eq!(pick(&[idle, busy]), Some(1));
        // A much faster path is worth filling first.
        let far = Candidate {
            in_flight: 0,
            ..candidate(1, Some(30), 1400, Class::Regular)
        };
        assert_eq!(pick(&[busy, far]), Some(0));
    }

    fn pick(candidates: &[Candidate]) -> Option<usize> {
        Scheduler::new(SchedulerKind::MinRtt)
            .pick(candidates.iter().copied())
            .map(|c| c.index)
    }

    #[test]
    fn the_fastest_with_budget_wins() {
        use Class::Regular;
        let fast = candidate(0, Some(10), 0, Regular);
        let slow = candidate(1, Some(50), 1400, Regular);
        let unmeasured = candidate(2, None, 1400, Regular);
        assert_eq!(pick(&[fast, slow, unmeasured]), Some(1));
        assert_eq!(pick(&[fast, unmeasured]), Some(2));
        assert_eq!(pick(&[fast]), None);
    }

    #[test]
    fn backups_wait_for_regular_subflows_without_budget() {
        let busy = candidate(0, Some(10), 0, Class::Regular);
        let backup = candidate(1, Some(1), 9000, Class::Backup);
        let stale = candidate(2, Some(1), 9000, Class::LastResort);
        assert_eq!(pick(&[busy, backup]), None);
        assert_eq!(pick(&[backup, stale]), Some(1));
        assert_eq!(pick(&[stale]), Some(2));
    }
}
