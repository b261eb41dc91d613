//! One burst on each subflow in turn, among those whose windows have room.
//!
//! A burst is what a subflow's congestion window admits, 64 kB at most: on unequal paths the
//! shares follow the windows, on equal ones they are equal. In-order delivery suffers as much
//! as the paths differ; this is for paths that are known to be alike, and to compare with.

use super::{Candidate, Demand, Schedule, Verdict};

/// Remembers whose turn it was.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    /// Subflow identifier, not position: subflows come and go.
    last: Option<u16>,
}

impl Schedule for RoundRobin {
    fn decide(
        &mut self,
        _demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Verdict> {
        // Distance in turns behind the last one, which itself comes last of all.
        let after = |c: &Candidate| match self.last {
            Some(last) => c.id.wrapping_sub(last).wrapping_sub(1),
            None => c.id,
        };
        let next = candidates.filter(|c| c.budget > 0).min_by_key(after)?;
        self.last = Some(next.id);
        Some(Verdict::send(next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn each_gets_its_turn_whatever_its_rtt() {
        let mut scheduler = Scheduler::new(SchedulerKind::RoundRobin);
        let all = [idle(0, 10), idle(1, 200), idle(2, 50)];
        let turns: Vec<_> = (0..7)
            .map(|_| pick(&mut scheduler, &BULK, &all).unwrap())
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_full_subflow_loses_its_turn_and_a_gone_one_is_not_missed() {
        let mut scheduler = Scheduler::new(SchedulerKind::RoundRobin);
        let full = busy(1, 10, 14_200);
        let turns: Vec<_> = (0..4)
            .map(|_| pick(&mut scheduler, &BULK, &[idle(0, 10), full, idle(2, 10)]).unwrap())
            .collect();
        assert_eq!(turns, [0, 2, 0, 2]);
        // Subflow 0 is gone, subflow 5 new; positions have shifted.
        let two = Candidate {
            index: 0,
            ..idle(2, 10)
        };
        let five = Candidate {
            index: 1,
            ..idle(5, 10)
        };
        assert_eq!(pick(&mut scheduler, &BULK, &[two, five]), Some(1));
        assert_eq!(pick(&mut scheduler, &BULK, &[two, five]), Some(0));
        assert_eq!(pick(&mut scheduler, &BULK, &[full]), None);
    }
}
