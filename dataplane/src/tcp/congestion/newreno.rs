//! NewReno (RFC 5681 §3.1 with the byte counting of RFC 3465).

use super::{AckSample, Controller, Window};
use crate::time::Instant;

/// One segment per window of acknowledged data; half the flight at a loss.
#[derive(Clone, Debug, Default)]
pub(super) struct NewReno {
    /// Bytes acknowledged that have not yet bought a segment.
    credit: u32,
}

/// Half of what is in use. The flight can exceed the window for a moment; half of the window is
/// the meant quantity then.
pub(super) fn half(window: &Window, in_flight: u32) -> u32 {
    in_flight.min(window.cwnd) / 2
}

impl Controller for NewReno {
    fn on_ack(&mut self, ack: &AckSample, window: &mut Window) {
        self.credit = self.credit.saturating_add(ack.acked);
        while self.credit >= window.cwnd {
            self.credit -= window.cwnd;
            window.cwnd = window.cwnd.saturating_add(window.mss);
        }
    }

    fn on_congestion_event(&mut self, window: &Window, in_flight: u32) -> u32 {
        self.credit = 0;
        // RFC 5681 §3.1 (4): max(FlightSize / 2, 2*SMSS).
        half(window, in_flight).max(2 * window.mss)
    }

    fn on_timeout(&mut self, window: &Window, in_flight: u32) -> u32 {
        self.on_congestion_event(window, in_flight)
    }

    fn on_undo(&mut self) {}

    fn on_unused(&mut self, _now: Instant) {}
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn one_segment_per_window() {
        let mut reno = NewReno::default();
        let mut window = Window {
            cwnd: 10_000,
            ssthresh: 10_000,
            mss: 1000,
        };
        let ack = AckSample {
            now: Instant::ZERO,
            acked: 1000,
            rtt: None,
            srtt: Duration::ZERO,
            round_end: false,
            cwnd_limited: true,
        };
        for _ in 0..10 {
            reno.on_ack(&ack, &mut window);
        }
        assert_eq!(window.cwnd, 11_000);
        for _ in 0..11 {
            reno.on_ack(&ack, &mut window);
        }
        assert_eq!(window.cwnd, 12_000);
        assert_eq!(reno.on_congestion_event(&window, 12_000), 6000);
        assert_eq!(reno.on_congestion_event(&window, 1000), 2000);
    }
}
