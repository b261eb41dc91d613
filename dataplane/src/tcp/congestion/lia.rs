//! LIA: the linked increases of RFC 6356.
//!
//! Together, the subflows of a connection take what one TCP would take on the best of their
//! paths; none is ever more aggressive than TCP on its own path. Only the increase in congestion
//! avoidance differs from NewReno, and the floor of `ssthresh` ([`Coupling::halved`]).

use super::coupled::{self, Coupling, PathShare, Siblings};
use super::newreno::NewReno;
use super::{AckSample, Controller, Window};
use crate::time::Instant;

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Lia {
    coupling: Coupling,
    /// What a connection of one subflow is.
    alone: NewReno,
    /// Fraction of a byte the window is owed.
    fraction: f64,
}

/// RFC 6356 §3.1: how aggressive all subflows are together.
///
/// ```text
/// alpha = cwnd_total * max(cwnd_i / rtt_i^2) / (sum(cwnd_i / rtt_i))^2
/// ```
fn alpha(own: &PathShare, others: &Siblings) -> f64 {
    let total = own.cwnd + others.cwnd_sum;
    let urgency = own.urgency().max(others.urgency_max);
    let rate = own.rate() + others.rate_sum;
    total * urgency / (rate * rate)
}

/// RFC 6356 §3: min(alpha * acked * MSS / cwnd_total, acked * MSS / cwnd_i).
fn increase(own: &PathShare, others: &Siblings, acked: f64, mss: f64) -> f64 {
    let total = own.cwnd + others.cwnd_sum;
    let linked = alpha(own, others) / total;
    acked * mss * linked.min(1.0 / own.cwnd)
}

impl Controller for Lia {
    fn on_ack(&mut self, ack: &AckSample, window: &mut Window) {
        let Some(own) = self.coupling.own(window, 0) else {
            self.alone.on_ack(ack, window);
            return;
        };
        let bytes = increase(
            &own,
            &self.coupling.siblings,
            ack.acked.into(),
            window.mss.into(),
        );
        coupled::adjust(window, &mut self.fraction, bytes);
    }

    fn on_congestion_event(&mut self, window: &Window, in_flight: u32) -> u32 {
        self.fraction = 0.0;
        self.alone.on_congestion_event(window, in_flight);
        self.coupling.halved(window, in_flight)
    }

    fn on_timeout(&mut self, window: &Window, in_flight: u32) -> u32 {
        self.fraction = 0.0;
        self.alone.on_timeout(window, in_flight)
    }

    fn on_undo(&mut self) {}

    fn on_unused(&mut self, _now: Instant) {}

    fn set_coupling(&mut self, coupling: Coupling) {
        self.coupling = coupling;
    }
}

#[cfg(test)]
mod tests {
    use super::super::coupled::tests::{MSS, ack, coupling, path, window};
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs()
    }

    /// RFC 6356 §3.1 over all paths, literally.
    fn alpha_of(paths: &[(f64, f64)]) -> f64 {
        let total: f64 = paths.iter().map(|(w, _)| w).sum();
        let best = paths
            .iter()
            .map(|(w, rtt)| w / rtt.powi(2))
            .fold(0.0, f64::max);
        let rates: f64 = paths.iter().map(|(w, rtt)| w / rtt).sum();
        total * best / rates.powi(2)
    }

    #[test]
    fn alpha_is_that_of_the_rfc() {
        // Two alike: a half. One that is far better: near 1, for it should be as fast as alone.
        let alike = alpha(&path(10, 50, 0), &[path(10, 50, 0)].into_iter().collect());
        assert!(near(alike, 0.5), "{alike}");
        let own = path(30, 20, 0);
        let others = [path(7, 100, 0), path(100, 300, 0)].into_iter().collect();
        let all = [(30e3, 0.020), (7e3, 0.100), (100e3, 0.300)];
        assert!(near(alpha(&own, &others), alpha_of(&all)));
    }

    #[test]
    fn two_alike_grow_by_half_a_segment_together() {
        let mut lia = Lia::default();
        lia.set_coupling(coupling(50, &[path(10, 50, 0)]));
        let mut w = window(10);
        for _ in 0..10 {
            lia.on_ack(&ack(MSS), &mut w);
        }
        // alpha / total = 1/2 / 20: a window of ten buys a quarter; so does the other one's.
        assert!((10_245..=10_250).contains(&w.cwnd), "{}", w.cwnd);
    }

    #[test]
    fn never_more_aggressive_than_tcp() {
        // A long path with a large window beside a short one, whose growth alpha is about.
        let own = path(40, 500, 0);
        let others = [path(2, 10, 0)].into_iter().collect();
        let mss = f64::from(MSS);
        assert!(alpha(&own, &others) / 42e3 > 5.0 / own.cwnd);
        assert!(near(increase(&own, &others, mss, mss), mss * mss / 40e3));
    }

    #[test]
    fn with_siblings_one_segment_may_be_left() {
        let mut lia = Lia::default();
        assert_eq!(lia.on_congestion_event(&window(2), 2000), 2 * MSS);
        lia.set_coupling(coupling(50, &[path(10, 50, 0)]));
        assert_eq!(lia.on_congestion_event(&window(2), 2000), MSS);
        assert_eq!(lia.on_congestion_event(&window(10), 10_000), 5 * MSS);
        assert_eq!(lia.on_timeout(&window(2), 2000), 2 * MSS);
    }
}
