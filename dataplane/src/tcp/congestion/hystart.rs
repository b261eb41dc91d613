//! HyStart++ (RFC 9406): leave slow start when the round trip grows, before the queue overflows.

use core::time::Duration;

use super::AckSample;

// RFC 9406 §4.3
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
/// Growth in conservative slow start is divided by this.
pub(super) const CSS_GROWTH_DIVISOR: u32 = 4;
const CSS_ROUNDS: u32 = 5;

/// How slow start may go on.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Growth {
    /// Unhindered.
    Full,
    /// Conservative slow start: divided by [`CSS_GROWTH_DIVISOR`].
    Conservative,
    /// Over: congestion avoidance from here.
    Exit,
}

/// Smallest round trips of this round and the last.
#[derive(Clone, Debug, Default)]
pub(super) struct HyStart {
    last_round_min: Option<Duration>,
    current_round_min: Option<Duration>,
    samples: u32,
    /// Conservative slow start: its baseline and rounds so far.
    css: Option<(Duration, u32)>,
}

impl HyStart {
    pub(super) fn on_ack(&mut self, ack: &AckSample) -> Growth {
        if let Some(rtt) = ack.rtt {
            self.current_round_min = Some(self.current_round_min.map_or(rtt, |min| min.min(rtt)));
            self.samples += 1;
        }
        let enough = self.samples >= N_RTT_SAMPLE;
        match (&self.css, self.last_round_min, self.current_round_min) {
            (None, Some(last), Some(current)) if enough => {
                let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if current >= last + threshold {
                    self.css = Some((current, 0));
                }
            }
            (Some((baseline, _)), _, Some(current)) if enough && current < *baseline => {
                // The growth was jitter: resume.
                self.css = None;
            }
            _ => {}
        }
        if ack.round_end {
            self.last_round_min = self.current_round_min.take().or(self.last_round_min);
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.css {
                *rounds += 1;
                if *rounds >= CSS_ROUNDS {
                    self.css = None;
                    return Growth::Exit;
                }
            }
        }
        if self.css.is_some() {
            Growth::Conservative
        } else {
            Growth::Full
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Instant;

    fn round(hystart: &mut HyStart, rtt_ms: u64) -> Growth {
        let mut growth = Growth::Full;
        for i in 0..10 {
            growth = hystart.on_ack(&AckSample {
                now: Instant::ZERO,
                acked: 1000,
                rtt: Some(Duration::from_millis(rtt_ms)),
                srtt: Duration::ZERO,
                round_end: i == 9,
                cwnd_limited: true,
            });
        }
        growth
    }

    #[test]
    fn a_growing_round_trip_ends_slow_start_after_five_rounds() {
        let mut hystart = HyStart::default();
        assert_eq!(round(&mut hystart, 40), Growth::Full);
        assert_eq!(round(&mut hystart, 44), Growth::Full);
        assert_eq!(round(&mut hystart, 50), Growth::Conservative);
        for _ in 0..3 {
            assert_eq!(round(&mut hystart, 55), Growth::Conservative);
        }
        assert_eq!(round(&mut hystart, 55), Growth::Exit);
    }

    #[test]
    fn jitter_resumes_slow_start() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 40);
        assert_eq!(round(&mut hystart, 50), Growth::Conservative);
        assert_eq!(round(&mut hystart, 41), Growth::Full);
    }
}
