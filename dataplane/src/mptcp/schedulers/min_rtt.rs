//! Lowest smoothed RTT among the subflows that can send now.
//!
//! Paths that are alike without their queues are equally good: among them the one with the
//! emptier congestion window is taken. By the smoothed RTT, which measures our own queue and
//! both hosts' batches, a sender that is not limited by its windows would use only one of two
//! equal paths (seen: 0.3 % on the other), and noise would decide which.

use core::time::Duration;

use super::{Candidate, Schedule};

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

/// Stateless.
#[derive(Debug)]
pub(crate) struct MinRtt;

impl Schedule for MinRtt {
    fn prefer(&mut self, a: Candidate, b: Candidate) -> Candidate {
        match (latency(&a), latency(&b)) {
            (Some(_), Some(_)) if alike(&a, &b) => {
                // in_flight / cwnd, compared without dividing.
                let load = |c: &Candidate, other: &Candidate| {
                    u64::from(c.in_flight) * u64::from(other.cwnd)
                };
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
}
