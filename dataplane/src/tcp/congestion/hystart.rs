//! HyStart++ (RFC 9406): leave slow start when the round trip grows, before the queue overflows.

use core::time::Duration;

use super::AckSample;

// RFC 9406 §4.3
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: usize = 8;
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

/// Round trips of this round and the last.
#[derive(Clone, Debug, Default)]
pub(super) struct HyStart {
    last_round_min: Option<Duration>,
    current_round_min: Option<Duration>,
    /// The newest samples of this round.
    recent: [Duration; N_RTT_SAMPLE],
    samples: usize,
    /// Conservative slow start: its baseline and rounds so far.
    css: Option<(Duration, u32)>,
}

impl HyStart {
    fn sample(&mut self, rtt: Duration) {
        self.current_round_min = Some(self.current_round_min.map_or(rtt, |min| min.min(rtt)));
        self.recent[self.samples % N_RTT_SAMPLE] = rtt;
        self.samples += 1;
    }

    /// The smallest of the last [`N_RTT_SAMPLE`] samples of this round.
    ///
    /// RFC 9406 §4.2 takes the minimum since the round began. But a window that has outgrown the
    /// path builds its queue while the round lasts: the round's minimum is its first sample, from
    /// before the queue, and what the rest of the round says would be heard a whole doubling
    /// later.
    fn recent_min(&self) -> Option<Duration> {
        let enough = self.samples >= N_RTT_SAMPLE;
        self.recent.iter().min().copied().filter(|_| enough)
    }

    pub(super) fn on_ack(&mut self, ack: &AckSample) -> Growth {
        if let Some(rtt) = ack.rtt {
            self.sample(rtt);
        }
        match (&self.css, self.last_round_min, self.recent_min()) {
            (None, Some(last), Some(recent)) => {
                let threshold = (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
                if recent >= last + threshold {
                    self.css = Some((recent, 0));
                }
            }
            (Some((baseline, _)), _, Some(recent)) if recent < *baseline => {
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
    fn a_queue_that_builds_within_the_round_is_noticed_in_it() {
        let mut hystart = HyStart::default();
        assert_eq!(round(&mut hystart, 10), Growth::Full);
        let mut at_ms = None;
        for rtt_ms in 10..30 {
            let growth = hystart.on_ack(&AckSample {
                now: Instant::ZERO,
                acked: 1000,
                rtt: Some(Duration::from_millis(rtt_ms)),
                srtt: Duration::ZERO,
                round_end: false,
                cwnd_limited: true,
            });
            if growth == Growth::Conservative {
                at_ms.get_or_insert(rtt_ms);
            }
        }
        // The eighth sample from 14 ms on.
        assert_eq!(at_ms, Some(21));
    }

    #[test]
    fn jitter_resumes_slow_start() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 40);
        assert_eq!(round(&mut hystart, 50), Growth::Conservative);
        assert_eq!(round(&mut hystart, 41), Growth::Full);
    }
}
