//! Lowest smoothed RTT among the subflows that can send now.

use super::{Candidate, Schedule};

/// Stateless.
#[derive(Debug)]
pub(crate) struct MinRtt;

impl Schedule for MinRtt {
    fn prefer(&mut self, a: Candidate, b: Candidate) -> Candidate {
        // An unmeasured subflow is tried when the measured ones are busy.
        let key = |c: &Candidate| (c.srtt.is_none(), c.srtt);
        if key(&b) < key(&a) { b } else { a }
    }
}
