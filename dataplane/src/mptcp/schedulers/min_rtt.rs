//! Lowest smoothed RTT among the subflows that can send now.
//!
//! Paths whose RTTs hardly differ are equally good: among them the one with the emptier
//! congestion window is taken. Otherwise two equal paths would share by the noise of their
//! RTT samples, and a sender that is not limited by its windows would use only one.

use core::time::Duration;

use super::{Candidate, Schedule};

/// RTTs that differ by less than a quarter, or by less than what queues in hosts add.
fn alike(x: Duration, y: Duration) -> bool {
    x.abs_diff(y) <= (x.min(y) / 4).max(HOST_NOISE)
}

/// A scheduler's time slice or a receive batch: no property of the path.
const HOST_NOISE: Duration = Duration::from_micros(500);

/// Stateless.
#[derive(Debug)]
pub(crate) struct MinRtt;

impl Schedule for MinRtt {
    fn prefer(&mut self, a: Candidate, b: Candidate) -> Candidate {
        match (a.srtt, b.srtt) {
            (Some(x), Some(y)) if alike(x, y) => {
                // in_flight / cwnd, compared without dividing.
                let load = |c: &Candidate, other: &Candidate| {
                    u64::from(c.in_flight) * u64::from(other.cwnd)
                };
                if load(&b, &a) < load(&a, &b) { b } else { a }
            }
            (Some(x), Some(y)) => {
                if y < x { b } else { a }
            }
            // An unmeasured subflow is tried when the measured ones are busy.
            (None, Some(_)) => b,
            (_, None) => a,
        }
    }
}
