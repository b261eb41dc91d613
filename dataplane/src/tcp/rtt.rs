//! Round-trip time and the retransmission timeout (RFC 6298), and the windowed minimum for RACK.

use core::time::Duration;

use crate::time::{Instant, Span};

/// Before the first sample (RFC 6298 §2.1).
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// Clock granularity G: timers are ns, but a worker wakes about this often.
const GRANULARITY: Duration = Duration::from_millis(1);
/// How long a minimum is believed.
const MIN_RTT_WINDOW: Duration = Duration::from_secs(300);

/// Smoothed round trip, its variation, its recent minimum.
#[derive(Clone, Debug)]
pub(super) struct RttEstimator {
    srtt: Option<Span>,
    rttvar: Span,
    latest: Span,
    min: Option<(Span, Instant)>,
    rto_min: Span,
    rto_max: Span,
    /// Back-off does not go beyond this.
    backoff_max: Span,
    backoff: u8,
}

impl RttEstimator {
    pub(super) fn new(rto_min: Duration, rto_max: Duration) -> Self {
        Self {
            srtt: None,
            rttvar: Span::default(),
            latest: Span::default(),
            min: None,
            rto_min: rto_min.into(),
            rto_max: rto_max.into(),
            backoff_max: rto_max.into(),
            backoff: 0,
        }
    }

    /// Takes a sample; the caller has applied Karn's rule (RFC 6298 §3).
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        self.sample_min(now, rtt);
        self.latest = rtt.into();
        match self.srtt() {
            None => {
                // RFC 6298 §2.2
                self.srtt = Some(rtt.into());
                self.rttvar = (rtt / 2).into();
            }
            Some(srtt) => {
                // RFC 6298 §2.3: beta 1/4 with the old SRTT, then alpha 1/8.
                let deviation = srtt.abs_diff(rtt);
                self.rttvar = ((self.rttvar() * 3 + deviation) / 4).into();
                self.srtt = Some(((srtt * 7 + rtt) / 8).into());
            }
        }
        self.backoff = 0;
    }

    /// A sample good for the minimum only (an ACK that may have been delayed is not small).
    pub(super) fn sample_min(&mut self, now: Instant, rtt: Duration) {
        let replace = match self.min {
            None => true,
            Some((min, at)) => rtt <= min.get() || now - at > MIN_RTT_WINDOW,
        };
        if replace {
            self.min = Some((rtt.into(), now));
        }
    }

    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt.map(Span::get)
    }

    pub(super) fn rttvar(&self) -> Duration {
        self.rttvar.get()
    }

    pub(super) fn latest(&self) -> Duration {
        self.latest.get()
    }

    /// Ceiling of the timeout.
    pub(super) fn rto_max(&self) -> Duration {
        self.rto_max.get()
    }

    pub(super) fn min(&self) -> Option<Duration> {
        self.min.map(|(rtt, _)| rtt.get())
    }

    /// RTO without back-off.
    pub(super) fn rto_base(&self) -> Duration {
        let rto_min = self.rto_min.get();
        match self.srtt() {
            None => RTO_INITIAL,
            // Like Linux the floor applies to the variation term, so that the timeout stays
            // a whole `rto_min` above the round trip.
            Some(srtt) => srtt + (self.rttvar() * 4).max(GRANULARITY).max(rto_min),
        }
        .clamp(rto_min, self.rto_max())
    }

    /// RTO with back-off (RFC 6298 §5.5).
    pub(super) fn rto(&self) -> Duration {
        self.rto_base()
            .saturating_mul(1 << self.backoff.min(20))
            .min(self.backoff_max.get().max(self.rto_base()))
    }

    /// Back-off ends at `limit`, or at the ceiling.
    pub(super) fn limit_backoff(&mut self, limit: Option<Duration>) {
        let most = self.rto_max();
        self.backoff_max = limit.unwrap_or(most).min(most).into();
    }

    /// Doubles the timeout.
    pub(super) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// New data was acknowledged: the path works (RFC 6298 §5.7 note; as Linux).
    pub(super) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn estimator() -> RttEstimator {
        RttEstimator::new(200 * MS, Duration::from_secs(120))
    }

    #[test]
    fn first_and_later_samples_follow_rfc6298() {
        let mut rtt = estimator();
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        rtt.sample(Instant::ZERO, 100 * MS);
        assert_eq!((rtt.srtt(), rtt.rttvar()), (Some(100 * MS), 50 * MS));
        assert_eq!(rtt.rto(), 300 * MS);
        rtt.sample(Instant::ZERO, 180 * MS);
        assert_eq!(
            (rtt.srtt(), rtt.rttvar()),
            (Some(110 * MS), 57_500 * MS / 1000)
        );
        assert_eq!(rtt.rto(), 340 * MS);
    }

    #[test]
    fn back_off_doubles_up_to_the_ceiling_and_ends_with_a_sample() {
        let mut rtt = estimator();
        rtt.sample(Instant::ZERO, 100 * MS);
        rtt.back_off();
        rtt.back_off();
        assert_eq!(rtt.rto(), 1200 * MS);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), Duration::from_secs(120));
        rtt.sample(Instant::ZERO, 100 * MS);
        assert_eq!(rtt.rto(), 300 * MS);
    }

    #[test]
    fn limited_back_off_ends_early_but_never_below_the_base() {
        let mut rtt = estimator();
        rtt.sample(Instant::ZERO, 100 * MS);
        rtt.limit_backoff(Some(Duration::from_secs(1)));
        for _ in 0..10 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        rtt.limit_backoff(Some(MS));
        assert_eq!(rtt.rto(), 300 * MS);
        rtt.limit_backoff(None);
        assert_eq!(rtt.rto(), Duration::from_secs(120));
    }

    #[test]
    fn minimum_expires() {
        let mut rtt = estimator();
        rtt.sample(Instant::ZERO, 10 * MS);
        rtt.sample(Instant::from_millis(1), 30 * MS);
        assert_eq!(rtt.min(), Some(10 * MS));
        rtt.sample(Instant::from_millis(300_002), 30 * MS);
        assert_eq!(rtt.min(), Some(30 * MS));
    }
}
