//! BALIA: balanced linked adaptation (Peng, Walid, Hwang, Low, "Multipath TCP: analysis, design,
//! and implementation", ToN 2016; draft-walid-mptcp-congestion-control-04).
//!
//! A compromise between LIA's friendliness and responsiveness. Both the increase and the decrease
//! depend on alpha, how much faster than this path the fastest one is.

use super::coupled::{self, Coupling, PathShare, Siblings};
use super::newreno::NewReno;
use super::{AckSample, Controller, Window};
use crate::time::Instant;

/// A loss takes at most three quarters of the window: 1/2 times this.
const DECREASE_MAX: f64 = 1.5;

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Balia {
    coupling: Coupling,
    /// What a connection of one subflow is.
    alone: NewReno,
    /// Fraction of a byte the window is owed.
    fraction: f64,
}

/// The largest rate over the own one: 1 on the fastest path.
fn alpha(own: &PathShare, others: &Siblings) -> f64 {
    (others.rate_max / own.rate()).max(1.0)
}

/// x / rtt / (sum of x)² * (1 + alpha) / 2 * (4 + alpha) / 5, times MSS * acked, with x = w / rtt
fn increase(own: &PathShare, others: &Siblings, acked: f64, mss: f64) -> f64 {
    let rate = own.rate() + others.rate_sum;
    let alpha = alpha(own, others);
    let shape = (1.0 + alpha) / 2.0 * (4.0 + alpha) / 5.0;
    acked * mss * own.urgency() / (rate * rate) * shape
}

impl Balia {
    /// w / 2 * min(alpha, 1.5) less. The window in use is what TCP judges by, too.
    fn reduced(&mut self, window: &Window, in_flight: u32, floor_segments: u32) -> u32 {
        self.fraction = 0.0;
        let Some(own) = self.coupling.own(window, 0) else {
            return self.alone.on_congestion_event(window, in_flight);
        };
        let share = alpha(&own, &self.coupling.siblings).min(DECREASE_MAX) / 2.0;
        let left = f64::from(in_flight.min(window.cwnd)) * (1.0 - share);
        // Between a quarter and a half of a `u32`.
        #[allow(clippy::cast_sign_loss)]
        let left = left as u32;
        left.max(floor_segments * window.mss)
    }
}

impl Controller for Balia {
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
        self.reduced(window, in_flight, self.coupling.floor_segments())
    }

    fn on_timeout(&mut self, window: &Window, in_flight: u32) -> u32 {
        // RFC 5681 §3.1 (4) knows no less than two segments.
        self.reduced(window, in_flight, 2)
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

    #[test]
    fn the_increase_is_that_of_the_draft() {
        let mss = f64::from(MSS);
        for (own, other) in [
            ((10, 50), (40, 20)),
            ((40, 20), (10, 50)),
            ((7, 30), (7, 30)),
        ] {
            let (w, rtt) = (f64::from(own.0) * 1e3, own.1 as f64 / 1e3);
            let (v, rtt2) = (f64::from(other.0) * 1e3, other.1 as f64 / 1e3);
            let (x, y) = (w / rtt, v / rtt2);
            let a = x.max(y) / x;
            let expected =
                x / (rtt * (x + y).powi(2)) * ((1.0 + a) / 2.0) * ((4.0 + a) / 5.0) * 1e6;
            let others = [path(other.0, other.1, 0)].into_iter().collect();
            let got = increase(&path(own.0, own.1, 0), &others, mss, mss);
            assert!((got - expected).abs() < 1e-9 * expected, "{got} {expected}");
        }
    }

    #[test]
    fn slower_paths_give_more_at_a_loss() {
        let after = |segments: u32, rtt_ms, other: PathShare| {
            let mut balia = Balia::default();
            balia.set_coupling(coupling(rtt_ms, &[other]));
            balia.on_congestion_event(&window(segments), segments * MSS)
        };
        assert_eq!(
            after(20, 10, path(20, 20, 0)),
            10 * MSS,
            "the fastest: half"
        );
        assert_eq!(after(20, 10, path(25, 10, 0)), 7500, "alpha 1.25");
        assert_eq!(after(20, 10, path(200, 10, 0)), 5 * MSS, "at most 3/4");
        assert_eq!(after(2, 10, path(200, 10, 0)), MSS, "one segment is left");
    }

    #[test]
    fn a_timeout_leaves_two_segments() {
        let mut balia = Balia::default();
        balia.set_coupling(coupling(10, &[path(200, 10, 0)]));
        assert_eq!(balia.on_timeout(&window(4), 4 * MSS), 2 * MSS);
    }

    #[test]
    fn two_alike_grow_by_half_a_segment_together() {
        let mut balia = Balia::default();
        balia.set_coupling(coupling(50, &[path(10, 50, 0)]));
        let mut w = window(10);
        for _ in 0..10 {
            balia.on_ack(&ack(MSS), &mut w);
        }
        // w / rtt² / (2 w / rtt)² = 1 / 4w: a quarter of a segment per window.
        assert!((10_245..=10_250).contains(&w.cwnd), "{}", w.cwnd);
    }
}
