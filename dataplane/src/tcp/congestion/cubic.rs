//! CUBIC (RFC 9438).
//!
//! Times in seconds and windows in segments, as in the RFC, in `f64`: one ACK costs some ten
//! floating-point operations and the cube root is taken once per loss.

use super::{AckSample, Controller, Window};
use crate::time::Instant;

/// RFC 9438 §4.6: multiplicative decrease.
const BETA: f64 = 0.7;
/// RFC 9438 §5: aggressiveness.
const C: f64 = 0.4;
/// RFC 9438 §4.3: additive increase that makes the Reno estimate fair to Reno.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// State since the last congestion event.
#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    /// Window before the last reduction, in segments (W_max).
    w_max: f64,
    /// W_max before that, for undo.
    w_max_prior: f64,
    /// The window when the last reduction came (cwnd_prior).
    cwnd_prior: f64,
    /// Seconds until the plateau (K).
    k: f64,
    /// Reno's window by now (W_est).
    w_est: f64,
    /// When this growth period began.
    epoch: Option<Instant>,
    /// Until when the curve was followed.
    followed: Option<Instant>,
    /// Fraction of a byte the window is owed.
    fraction: f64,
}

impl Cubic {
    fn begin_epoch(&mut self, now: Instant, cwnd: f64) {
        self.epoch = Some(now);
        if self.w_max < cwnd {
            // RFC 9438 §4.2: no reduction yet, or grown past it: the plateau is here.
            self.w_max = cwnd;
            self.k = 0.0;
        } else {
            self.k = ((self.w_max - cwnd) / C).cbrt();
        }
        self.w_est = cwnd;
    }

    fn window_at(&self, t: f64) -> f64 {
        C * (t - self.k).powi(3) + self.w_max
    }
}

impl Controller for Cubic {
    fn on_ack(&mut self, ack: &AckSample, window: &mut Window) {
        let mss = f64::from(window.mss);
        let cwnd = f64::from(window.cwnd) / mss;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => {
                self.begin_epoch(ack.now, cwnd);
                ack.now
            }
        };
        self.followed = Some(ack.now);
        let t = (ack.now - epoch).as_secs_f64();
        let acked = f64::from(ack.acked) / mss;

        // RFC 9438 §4.3: Reno-friendly region.
        let alpha = if self.w_est >= self.cwnd_prior {
            1.0
        } else {
            ALPHA
        };
        self.w_est += alpha * acked / cwnd;

        let grown = if self.window_at(t) < self.w_est {
            self.w_est.max(cwnd)
        } else {
            // RFC 9438 §4.4 and §4.5: aim at where the curve is one round trip from now.
            let target = self
                .window_at(t + ack.srtt.as_secs_f64())
                .clamp(cwnd, 1.5 * cwnd);
            cwnd + (target - cwnd) * (acked / cwnd).min(1.0)
        };
        let bytes = (grown - cwnd) * mss + self.fraction;
        let whole = bytes.max(0.0).floor();
        self.fraction = bytes.max(0.0) - whole;
        // `as` saturates, and the value is not negative.
        #[allow(clippy::cast_sign_loss)]
        let whole = whole as u32;
        window.cwnd = window.cwnd.saturating_add(whole);
    }

    fn on_congestion_event(&mut self, window: &Window, _in_flight: u32) -> u32 {
        let mss = f64::from(window.mss);
        let cwnd = f64::from(window.cwnd) / mss;
        self.w_max_prior = self.w_max;
        self.cwnd_prior = cwnd;
        // RFC 9438 §4.7: fast convergence.
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.epoch = None;
        self.fraction = 0.0;
        #[allow(clippy::cast_sign_loss)]
        let reduced = (cwnd * BETA * mss) as u32;
        reduced.max(2 * window.mss)
    }

    fn on_timeout(&mut self, window: &Window, in_flight: u32) -> u32 {
        // RFC 9438 §4.8
        self.on_congestion_event(window, in_flight)
    }

    fn on_undo(&mut self) {
        // RFC 9438 §4.9
        self.w_max = self.w_max_prior;
        self.epoch = None;
    }

    fn on_unused(&mut self, now: Instant) {
        // RFC 9438 §5.8: such time is not time on the curve.
        if let (Some(epoch), Some(followed)) = (&mut self.epoch, &mut self.followed) {
            *epoch += now - *followed;
            *followed = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use core::time::Duration;

    const MSS: u32 = 1000;
    const RTT_MS: u64 = 100;

    /// One round trip of ACKs for a full window.
    fn round(cubic: &mut Cubic, window: &mut Window, now_ms: u64) {
        for _ in 0..window.cwnd / MSS {
            cubic.on_ack(
                &AckSample {
                    now: Instant::from_millis(now_ms),
                    acked: MSS,
                    rtt: None,
                    srtt: Duration::from_millis(RTT_MS),
                    round_end: false,
                    cwnd_limited: true,
                },
                window,
            );
        }
    }

    #[test]
    fn concave_then_plateau_then_convex() {
        let mut cubic = Cubic::default();
        let mut window = Window {
            cwnd: 1000 * MSS,
            ssthresh: 1000 * MSS,
            mss: MSS,
        };
        let ssthresh = cubic.on_congestion_event(&window, 0);
        assert_eq!(ssthresh, 700 * MSS);
        window.cwnd = ssthresh;
        // K = cbrt(300 / 0.4) = 9.09 s
        let mut at = |ms: u64, until_ms: u64| {
            for now in (ms..until_ms).step_by(RTT_MS as usize) {
                round(&mut cubic, &mut window, now);
            }
            f64::from(window.cwnd) / f64::from(MSS)
        };
        let early = at(0, 2_000);
        assert!((850.0..870.0).contains(&early), "{early}");
        let plateau = at(2_000, 9_100);
        assert!((995.0..1005.0).contains(&plateau), "{plateau}");
        let convex = at(9_100, 14_000);
        assert!((1040.0..1060.0).contains(&convex), "{convex}");
    }

    #[test]
    fn time_with_an_unused_window_is_not_time_on_the_curve() {
        let mut cubic = Cubic::default();
        let mut window = Window {
            cwnd: 1000 * MSS,
            ssthresh: 1000 * MSS,
            mss: MSS,
        };
        window.cwnd = cubic.on_congestion_event(&window, 0);
        round(&mut cubic, &mut window, 0);
        // Twenty seconds of a trickle: the curve would be at 1500 segments.
        for now in (0..20_000).step_by(RTT_MS as usize) {
            cubic.on_unused(Instant::from_millis(now));
        }
        round(&mut cubic, &mut window, 20_000);
        assert!(window.cwnd < 725 * MSS, "{}", window.cwnd);
    }

    #[test]
    fn small_windows_grow_like_reno() {
        let mut cubic = Cubic::default();
        let mut window = Window {
            cwnd: 10 * MSS,
            ssthresh: 10 * MSS,
            mss: MSS,
        };
        window.cwnd = cubic.on_congestion_event(&window, 0);
        for i in 0..10 {
            round(&mut cubic, &mut window, i * 10);
        }
        // Ten round trips of 0.53 segments each, in 0.1 s, where the cubic curve gives nothing.
        assert!(
            (11 * MSS..14 * MSS).contains(&window.cwnd),
            "{}",
            window.cwnd
        );
    }

    #[test]
    fn fast_convergence_gives_room_to_newcomers() {
        let mut cubic = Cubic::default();
        let mut window = Window {
            cwnd: 100 * MSS,
            ssthresh: MSS,
            mss: MSS,
        };
        window.cwnd = cubic.on_congestion_event(&window, 0);
        cubic.on_congestion_event(&window, 0);
        assert!((cubic.w_max - 59.5).abs() < 0.01, "{}", cubic.w_max);
    }
}
