//! What the coupled controllers (`lia`, `olia`, `balia`) know of the other subflows of their
//! connection, and what they have in common.
//!
//! Who owns the subflows takes a [`PathShare`] of each that competes and hands every one a
//! [`Coupling`]: a few sums over *the others*. A subflow's own window is left out because it
//! moves between two hand-overs; each algorithm adds it at the moment of use.
//!
//! Windows are bytes and round trips seconds, in `f64`: the cubes of 32-bit windows fit its
//! exponent many times over, and no quotient is infinite, for [`PathShare::new`] keeps windows
//! and round trips away from zero.

use core::time::Duration;

use super::{Window, newreno};
use crate::tcp::Tcp;
use crate::tcp::recovery::Phase;
use crate::time::Instant;

/// Below the clock's use for round trips; keeps quotients finite.
const RTT_MIN: Duration = Duration::from_micros(1);

/// One subflow's part in what a connection takes from the network.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct PathShare {
    /// Congestion window in bytes (w).
    pub(super) cwnd: f64,
    /// Smoothed round trip in seconds.
    pub(super) rtt: f64,
    /// Bytes delivered between losses (OLIA's l); 0 where it is not measured.
    pub(super) loss_interval: f64,
}

impl PathShare {
    pub(super) fn new(cwnd: u32, rtt: Duration, loss_interval: u64) -> Self {
        Self {
            cwnd: f64::from(cwnd.max(1)),
            rtt: rtt.max(RTT_MIN).as_secs_f64(),
            loss_interval: loss_interval as f64,
        }
    }

    /// Bytes per second (x = w / rtt).
    pub(super) fn rate(&self) -> f64 {
        self.cwnd / self.rtt
    }

    /// w / rtt², by which LIA weighs paths.
    pub(super) fn urgency(&self) -> f64 {
        self.rate() / self.rtt
    }

    /// The square of the rate that TCP would have here is proportional to this (OLIA: l / rtt²).
    pub(super) fn quality(&self) -> f64 {
        self.loss_interval / (self.rtt * self.rtt)
    }
}

/// The other subflows, summed up. The default is: there are none.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Siblings {
    /// How many there are.
    pub(super) count: u32,
    /// Sum of w.
    pub(super) cwnd_sum: f64,
    /// Largest w ...
    pub(super) cwnd_max: f64,
    /// ... and how many have it.
    pub(super) cwnd_max_count: u32,
    /// Sum of w / rtt.
    pub(super) rate_sum: f64,
    /// Largest w / rtt.
    pub(super) rate_max: f64,
    /// Largest w / rtt².
    pub(super) urgency_max: f64,
    /// Largest l / rtt² ...
    pub(super) quality_max: f64,
    /// ... and how many have it ...
    pub(super) quality_max_count: u32,
    /// ... without having the largest window, too.
    pub(super) collected_count: u32,
}

impl FromIterator<PathShare> for Siblings {
    fn from_iter<I: IntoIterator<Item = PathShare>>(paths: I) -> Self {
        let mut all = Self::default();
        for path in paths {
            all.add(&path);
        }
        all
    }
}

impl Siblings {
    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    fn add(&mut self, path: &PathShare) {
        self.count += 1;
        self.cwnd_sum += path.cwnd;
        self.rate_sum += path.rate();
        self.rate_max = self.rate_max.max(path.rate());
        self.urgency_max = self.urgency_max.max(path.urgency());

        // Who shared the best quality and had the largest window until now has not any more if
        // this one's is larger; all who share both move together.
        let best_and_largest = self.quality_max_count - self.collected_count;
        if path.cwnd > self.cwnd_max {
            self.cwnd_max = path.cwnd;
            self.cwnd_max_count = 0;
            self.collected_count += best_and_largest;
        }
        let largest = path.cwnd == self.cwnd_max;
        self.cwnd_max_count += u32::from(largest);
        if path.quality() > self.quality_max || self.quality_max_count == 0 {
            self.quality_max = path.quality();
            self.quality_max_count = 0;
            self.collected_count = 0;
        }
        if path.quality() == self.quality_max {
            self.quality_max_count += 1;
            self.collected_count += u32::from(!largest);
        }
    }
}

/// What a coupled controller is told before it decides.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Coupling {
    /// The own smoothed round trip; `None` before the first sample.
    pub(super) rtt: Option<Duration>,
    /// The other subflows.
    pub(super) siblings: Siblings,
}

impl Coupling {
    /// The own path, if there is anything to couple it with. Without siblings a connection is
    /// one TCP and has to behave as one.
    pub(super) fn own(&self, window: &Window, loss_interval: u64) -> Option<PathShare> {
        let rtt = self.rtt.filter(|_| self.siblings.count > 0)?;
        Some(PathShare::new(window.cwnd, rtt, loss_interval))
    }

    /// RFC 6356 §3: halves as TCP does, but with several paths in use a fast retransmit may
    /// leave a single segment, so that a bad path can be left almost entirely.
    pub(super) fn halved(&self, window: &Window, in_flight: u32) -> u32 {
        newreno::half(window, in_flight).max(self.floor_segments() * window.mss)
    }

    /// The least `ssthresh` after a fast retransmit, in segments.
    pub(super) fn floor_segments(&self) -> u32 {
        if self.siblings.count > 0 { 1 } else { 2 }
    }
}

/// Moves a window by `bytes`, which need not be whole nor positive; `fraction` keeps the rest.
pub(super) fn adjust(window: &mut Window, fraction: &mut f64, bytes: f64) {
    let owed = *fraction + bytes;
    let whole = owed.trunc();
    *fraction = owed - whole;
    let cwnd = f64::from(window.cwnd) + whole;
    // Between one segment and `u32::MAX`, so the cast is exact.
    #[allow(clippy::cast_sign_loss)]
    let cwnd = cwnd.clamp(f64::from(window.mss), f64::from(u32::MAX)) as u32;
    if cwnd < window.cwnd {
        // A window lowered in congestion avoidance is not in slow start.
        window.ssthresh = window.ssthresh.min(cwnd);
    }
    window.cwnd = cwnd;
}

impl Tcp {
    /// Whether the controller wants to know about other subflows.
    pub(crate) fn is_coupled(&self) -> bool {
        self.congestion.is_coupled()
    }

    /// This subflow's part in the connection's load; `None` while it carries nothing, or
    /// nothing is known of its path.
    pub(crate) fn path_share(&self, now: Instant) -> Option<PathShare> {
        let rtt = self.rtt.srtt()?;
        if self.board.is_empty() && now - self.timers.sent_at > self.rtt.rto() {
            return None;
        }
        let window = &self.congestion.window;
        let cwnd = match self.recovery.phase {
            // PRR moves the window about on the way to this.
            Phase::Fast(_) | Phase::Reduced(_) => window.ssthresh,
            Phase::Open | Phase::Loss => window.cwnd,
        };
        Some(PathShare::new(cwnd, rtt, self.congestion.loss_interval()))
    }

    /// How the other subflows are, before a segment or timer that the controller may act on.
    pub(crate) fn set_siblings(&mut self, siblings: Siblings) {
        let rtt = self.rtt.srtt();
        self.congestion.set_coupling(Coupling { rtt, siblings });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tcp::congestion::AckSample;

    pub(in crate::tcp::congestion) const MSS: u32 = 1000;

    pub(in crate::tcp::congestion) fn path(segments: u32, rtt_ms: u64, l: u64) -> PathShare {
        PathShare::new(segments * MSS, Duration::from_millis(rtt_ms), l)
    }

    pub(in crate::tcp::congestion) fn coupling(rtt_ms: u64, others: &[PathShare]) -> Coupling {
        Coupling {
            rtt: Some(Duration::from_millis(rtt_ms)),
            siblings: others.iter().copied().collect(),
        }
    }

    pub(in crate::tcp::congestion) fn window(segments: u32) -> Window {
        Window {
            cwnd: segments * MSS,
            ssthresh: segments * MSS,
            mss: MSS,
        }
    }

    pub(in crate::tcp::congestion) fn ack(bytes: u32) -> AckSample {
        AckSample {
            now: Instant::ZERO,
            acked: bytes,
            rtt: None,
            srtt: Duration::from_millis(10),
            round_end: false,
            cwnd_limited: true,
        }
    }

    /// The sets by their definition, from all paths at once.
    fn expected(paths: &[PathShare]) -> (u32, u32, u32) {
        let number = |f: &dyn Fn(&PathShare) -> bool| {
            u32::try_from(paths.iter().filter(|p| f(p)).count()).unwrap()
        };
        let w = paths.iter().map(|p| p.cwnd).fold(0.0, f64::max);
        let q = paths.iter().map(PathShare::quality).fold(0.0, f64::max);
        (
            number(&|p| p.cwnd == w),
            number(&|p| p.quality() == q),
            number(&|p| p.quality() == q && p.cwnd < w),
        )
    }

    #[test]
    fn sets_do_not_depend_on_the_order() {
        // Three paths, each of three windows and three qualities: all ties there can be.
        for mix in 0..3u32.pow(6) {
            let digit = |n: u32| mix / 3u32.pow(n) % 3;
            let paths: Vec<PathShare> = (0..3)
                .map(|i| path(1 + digit(i), 10, u64::from(digit(i + 3))))
                .collect();
            let all: Siblings = paths.iter().copied().collect();
            let got = (
                all.cwnd_max_count,
                all.quality_max_count,
                all.collected_count,
            );
            assert_eq!(got, expected(&paths), "{paths:?}");
        }
    }

    #[test]
    fn fractions_add_up_and_a_window_keeps_a_segment() {
        let mut w = window(2);
        let mut fraction = 0.0;
        for _ in 0..8 {
            adjust(&mut w, &mut fraction, 0.25);
        }
        assert_eq!(w.cwnd, 2002);
        for _ in 0..8 {
            adjust(&mut w, &mut fraction, -0.25);
        }
        assert_eq!((w.cwnd, w.ssthresh), (2000, 2000));
        adjust(&mut w, &mut fraction, -1e12);
        assert_eq!((w.cwnd, w.ssthresh), (MSS, MSS), "not slow start");
        adjust(&mut w, &mut fraction, 1e12);
        assert_eq!(w.cwnd, u32::MAX);
    }

    #[test]
    fn extremes_stay_finite() {
        let huge = PathShare::new(u32::MAX, Duration::ZERO, u64::MAX);
        let tiny = PathShare::new(0, Duration::from_secs(3600), 0);
        for paths in [[huge, tiny], [tiny, huge], [huge, huge], [tiny, tiny]] {
            let all: Siblings = paths.into_iter().collect();
            assert!(all.urgency_max.is_finite() && all.urgency_max > 0.0);
            assert!((all.rate_sum * all.rate_sum).is_finite());
            assert!(all.quality_max.is_finite());
        }
    }
}
