//! OLIA: opportunistic linked increases (Khalili et al., "MPTCP is not Pareto-optimal", CoNEXT
//! 2012; draft-khalili-mptcp-congestion-control-05).
//!
//! The first term of the increase balances congestion optimally, which alone would leave all but
//! the best path. The second, alpha, moves window from the paths that have most to those that
//! look best although they have less, and so keeps the algorithm responsive. Losses halve the
//! window as in NewReno.

use super::coupled::{self, Coupling, PathShare, Siblings};
use super::newreno::NewReno;
use super::{AckSample, Controller, Window};
use crate::time::Instant;

/// Bytes delivered since the last loss, and between the last two (l2 and l1 of the paper).
#[derive(Copy, Clone, Debug, Default)]
struct Losses {
    since: u64,
    between: u64,
}

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Olia {
    coupling: Coupling,
    losses: Losses,
    /// Before the last loss, for undo.
    losses_prior: Losses,
    /// What a connection of one subflow is.
    alone: NewReno,
    /// Fraction of a byte the window is owed.
    fraction: f64,
}

/// Which way, and how fast, window is moved between paths (alpha_r).
///
/// *Best* paths have the largest l / rtt²; *collected* ones are best without having the largest
/// window. There being any, they share 1/n among them and those with the largest window give as
/// much.
fn alpha(own: &PathShare, others: &Siblings) -> f64 {
    let quality_max = own.quality().max(others.quality_max);
    let cwnd_max = own.cwnd.max(others.cwnd_max);
    let largest = own.cwnd >= cwnd_max;
    let collected = own.quality() >= quality_max && !largest;
    let others_collected = if others.quality_max < quality_max {
        0
    } else if others.cwnd_max < cwnd_max {
        others.quality_max_count
    } else {
        others.collected_count
    };
    let others_largest = if others.cwnd_max < cwnd_max {
        0
    } else {
        others.cwnd_max_count
    };
    let all_collected = others_collected + u32::from(collected);
    let paths = f64::from(others.count + 1);
    if all_collected == 0 {
        0.0
    } else if collected {
        1.0 / (paths * f64::from(all_collected))
    } else if largest {
        -1.0 / (paths * f64::from(others_largest + 1))
    } else {
        0.0
    }
}

/// (w / rtt² / (sum of w / rtt)² + alpha / w) * MSS * acked
fn increase(own: &PathShare, others: &Siblings, acked: f64, mss: f64) -> f64 {
    let rate = own.rate() + others.rate_sum;
    let balance = own.urgency() / (rate * rate);
    acked * mss * (balance + alpha(own, others) / own.cwnd)
}

impl Olia {
    fn on_loss(&mut self) {
        self.losses_prior = self.losses;
        // Losses in a row without a byte in between are one.
        if self.losses.since > 0 {
            self.losses.between = self.losses.since;
            self.losses.since = 0;
        }
        self.fraction = 0.0;
    }
}

impl Controller for Olia {
    fn on_ack(&mut self, ack: &AckSample, window: &mut Window) {
        let Some(own) = self.coupling.own(window, self.loss_interval()) else {
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
        self.on_loss();
        self.alone.on_congestion_event(window, in_flight);
        self.coupling.halved(window, in_flight)
    }

    fn on_timeout(&mut self, window: &Window, in_flight: u32) -> u32 {
        self.on_loss();
        self.alone.on_timeout(window, in_flight)
    }

    fn on_undo(&mut self) {
        let after = self.losses.since;
        self.losses = self.losses_prior;
        self.losses.since += after;
    }

    fn on_unused(&mut self, _now: Instant) {}

    fn set_coupling(&mut self, coupling: Coupling) {
        self.coupling = coupling;
    }

    fn on_delivered(&mut self, bytes: u32) {
        self.losses.since += u64::from(bytes);
    }

    fn loss_interval(&self) -> u64 {
        self.losses.since.max(self.losses.between)
    }
}

#[cfg(test)]
mod tests {
    use super::super::coupled::tests::{MSS, ack, coupling, path, window};
    use super::*;

    /// alpha of every path by the definition of the sets, computed over all paths at once.
    fn alphas(paths: &[PathShare]) -> Vec<f64> {
        let n = paths.len() as f64;
        let quality = |p: &PathShare| p.loss_interval / p.rtt.powi(2);
        let q = paths.iter().map(quality).fold(0.0, f64::max);
        let w = paths.iter().map(|p| p.cwnd).fold(0.0, f64::max);
        let is_collected = |p: &PathShare| quality(p) == q && p.cwnd != w;
        let collected = paths.iter().filter(|p| is_collected(p)).count() as f64;
        let largest = paths.iter().filter(|p| p.cwnd == w).count() as f64;
        paths
            .iter()
            .map(|p| match (is_collected(p), p.cwnd == w) {
                _ if collected == 0.0 => 0.0,
                (true, _) => 1.0 / n / collected,
                (_, true) => -1.0 / n / largest,
                _ => 0.0,
            })
            .collect()
    }

    #[test]
    fn alpha_is_that_of_the_sets() {
        for mix in 0..3u32.pow(6) {
            let digit = |n: u32| mix / 3u32.pow(n) % 3;
            let paths: Vec<PathShare> = (0..3)
                .map(|i| path(1 + digit(i), 10, u64::from(digit(i + 3))))
                .collect();
            let expected = alphas(&paths);
            for (i, own) in paths.iter().enumerate() {
                let mut others = paths.clone();
                others.remove(i);
                let got = alpha(own, &others.into_iter().collect());
                assert_eq!(got, expected[i], "{i} of {paths:?}");
            }
            let sum: f64 = expected.iter().sum();
            assert!(sum.abs() < 1e-12, "what is given is taken: {expected:?}");
        }
    }

    #[test]
    fn the_increase_is_that_of_the_paper() {
        // 10 segments, 50 ms, best; against 20 segments, 100 ms.
        let own = path(10, 50, 900_000);
        let others = [path(20, 100, 100_000)].into_iter().collect();
        let mss = f64::from(MSS);
        let got = increase(&own, &others, mss, mss);
        let balance = (10e3 / 0.05_f64.powi(2)) / (10e3 / 0.05_f64 + 20e3 / 0.1).powi(2);
        let expected = (balance + 0.5 / 10e3) * 1e6;
        assert!((got - expected).abs() < 1e-9 * expected, "{got} {expected}");
    }

    #[test]
    fn the_largest_window_gives_way_to_a_better_path() {
        let mut olia = Olia::default();
        olia.on_delivered(1000);
        olia.set_coupling(coupling(50, &[path(10, 20, 1_000_000)]));
        let mut w = window(12);
        olia.on_ack(&ack(12 * MSS), &mut w);
        assert!(w.cwnd < 12 * MSS, "{}", w.cwnd);
        assert!(!w.in_slow_start());
    }

    #[test]
    fn the_longer_of_two_loss_intervals_counts() {
        let mut olia = Olia::default();
        olia.on_delivered(5000);
        assert_eq!(olia.loss_interval(), 5000, "since the start");
        olia.on_congestion_event(&window(10), 10_000);
        olia.on_delivered(200);
        assert_eq!(olia.loss_interval(), 5000);
        olia.on_delivered(7000);
        assert_eq!(olia.loss_interval(), 7200);
        olia.on_congestion_event(&window(10), 10_000);
        olia.on_timeout(&window(10), 10_000);
        assert_eq!(olia.loss_interval(), 7200, "a timeout right after");
        olia.on_undo();
        olia.on_congestion_event(&window(10), 10_000);
        olia.on_delivered(10);
        olia.on_undo();
        olia.on_delivered(10);
        assert_eq!(olia.loss_interval(), 7200);
    }
}
