//! Every byte on every subflow, for the lowest latency at the price of the capacity.
//!
//! New bytes are taken by the fastest subflow that has sent or skipped all there is; the
//! others follow at their own pace with copies of what is not DATA_ACKed yet (see
//! `mptcp/copies.rs`). This file only says who may take new bytes: one that lags behind
//! first catches up.

use super::min_rtt;
use super::{Candidate, Demand, Schedule, Verdict};

/// Stateless: how far each subflow is stands in the subflow.
#[derive(Debug)]
pub(crate) struct Redundant;

impl Schedule for Redundant {
    fn decide(
        &mut self,
        _demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Verdict> {
        // One that is out of use serves as with any other scheduler.
        let takes_new = |c: &Candidate| !c.lags || c.class == super::Class::LastResort;
        min_rtt::best(candidates.filter(takes_new)).map(Verdict::send)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn who_lags_behind_takes_nothing_new() {
        let pick = |all: &[Candidate]| choice(SchedulerKind::Redundant, &BULK, all);
        let behind = Candidate {
            lags: true,
            ..idle(0, 10)
        };
        assert_eq!(pick(&[behind, idle(1, 90)]), Some(1));
        assert_eq!(pick(&[idle(0, 10), idle(1, 90)]), Some(0));
        assert_eq!(pick(&[behind]), None);
        let stale = Candidate {
            class: Class::LastResort,
            ..behind
        };
        assert_eq!(pick(&[stale]), Some(0));
    }
}
