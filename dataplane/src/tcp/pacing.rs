//! Pacing: a token bucket filled at `factor * cwnd / srtt`.
//!
//! XSK transmission bypasses the kernel's fq, so this is the only thing between a large window
//! and a burst. The bucket's depth lets a worker hand a whole batch to the ring per wake-up.

use core::time::Duration;

use crate::time::Instant;

/// The bucket holds what this much time earns, within the limits below.
const BURST_TIME: Duration = Duration::from_millis(1);
/// Never less than the initial window (RFC 6928: ten segments at once are acceptable).
const BURST_SEGMENTS_MIN: u32 = 10;
/// Never more than four full segmentation-offload bursts.
const BURST_BYTES_MAX: u32 = 256 * 1024;

/// The bucket. Tokens may go negative: a segment is sent whole.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    /// Bytes per second; 0 = not paced (off, or no round trip known yet).
    rate: u64,
    tokens: i64,
    filled_at: Instant,
    burst: u32,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: 0,
            tokens: 0,
            filled_at: now,
            burst: 0,
        }
    }

    /// Sets the rate; tokens earned so far stay.
    pub(super) fn set_rate(&mut self, now: Instant, bytes_per_second: u64, mss: u32) {
        let earned = bytes_in(bytes_per_second, BURST_TIME);
        let burst = u32::try_from(earned)
            .unwrap_or(u32::MAX)
            .min(BURST_BYTES_MAX)
            .max(mss.saturating_mul(BURST_SEGMENTS_MIN));
        if self.rate == 0 {
            self.tokens = i64::from(burst);
            self.filled_at = now;
        } else {
            self.fill(now);
        }
        self.rate = bytes_per_second;
        self.burst = burst;
        self.tokens = self.tokens.min(i64::from(burst));
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    fn tokens_at(&self, now: Instant) -> i64 {
        let earned = bytes_in(self.rate, now - self.filled_at);
        self.tokens
            .saturating_add(i64::try_from(earned).unwrap_or(i64::MAX))
            .min(i64::from(self.burst))
    }

    fn fill(&mut self, now: Instant) {
        // Moving the clock for less than a byte would lose the fraction for ever.
        if bytes_in(self.rate, now - self.filled_at) > 0 {
            self.tokens = self.tokens_at(now);
            self.filled_at = now;
        }
    }

    /// Bytes that may leave now. A positive balance lets one segment go.
    pub(super) fn available(&self, now: Instant, mss: u32) -> u32 {
        if self.rate == 0 {
            return u32::MAX;
        }
        match u32::try_from(self.tokens_at(now)) {
            Ok(0) | Err(_) => 0,
            Ok(tokens) => tokens.max(mss),
        }
    }

    /// Takes what was sent.
    pub(super) fn spend(&mut self, now: Instant, bytes: u32) {
        if self.rate != 0 {
            self.fill(now);
            // The debt is bounded so that retransmission cannot mute new data for long.
            let floor = -i64::from(self.burst);
            self.tokens = (self.tokens - i64::from(bytes)).max(floor);
        }
    }

    /// When an empty bucket holds a useful batch again: half its depth.
    pub(super) fn next_release(&self, now: Instant) -> Option<Instant> {
        if self.rate == 0 || self.tokens_at(now) > 0 {
            return None;
        }
        let wanted = i64::from(self.burst / 2) - self.tokens;
        let ns = u128::try_from(wanted).unwrap_or(0) * 1_000_000_000 / u128::from(self.rate);
        Some(self.filled_at + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

fn bytes_in(rate: u64, span: Duration) -> u64 {
    // No cap on the span: at a few hundred bytes a second a debt takes longer than a second.
    // But mostly it is short, and a division of 128 bits costs as much as building a segment.
    if let Ok(ns) = u64::try_from(span.as_nanos())
        && let Some(scaled) = rate.checked_mul(ns)
    {
        return scaled / 1_000_000_000;
    }
    let bytes = u128::from(rate) * span.as_nanos() / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_at_any_rate() {
        let now = Instant::from_millis(1_000);
        let mut pacer = Pacer::new(now);
        pacer.set_rate(now, 600, 1448);
        for _ in 0..11 {
            pacer.spend(now, 1448);
        }
        assert_eq!(pacer.available(now, 1448), 0);
        let release = pacer.next_release(now).expect("in debt");
        assert!(pacer.available(release + Duration::from_secs(1), 1448) > 0);
    }

    #[test]
    fn long_run_rate_is_kept() {
        let mut pacer = Pacer::new(Instant::ZERO);
        pacer.set_rate(Instant::ZERO, 1_250_000, 1000);
        let mut sent = 0;
        for us in (0..1_000_000).step_by(100) {
            let now = Instant::from_micros(us);
            while pacer.available(now, 1000) >= 1000 {
                pacer.spend(now, 1000);
                sent += 1000;
            }
        }
        assert!((1_250_000..=1_262_000).contains(&sent), "{sent}");
    }

    #[test]
    fn release_time_is_when_bytes_are_there() {
        let mut pacer = Pacer::new(Instant::ZERO);
        pacer.set_rate(Instant::ZERO, 1_000_000, 1000);
        assert_eq!(pacer.next_release(Instant::ZERO), None);
        pacer.spend(Instant::ZERO, 10_000);
        assert_eq!(pacer.available(Instant::ZERO, 1000), 0);
        let release = pacer.next_release(Instant::ZERO).expect("empty bucket");
        assert_eq!(release, Instant::from_millis(5));
        assert_eq!(pacer.available(release, 1000), 5000);
    }

    #[test]
    fn without_a_rate_nothing_is_held_back() {
        let mut pacer = Pacer::new(Instant::ZERO);
        pacer.spend(Instant::ZERO, 1 << 30);
        assert_eq!(pacer.available(Instant::ZERO, 1), u32::MAX);
        assert_eq!(pacer.next_release(Instant::ZERO), None);
    }

    #[test]
    fn a_slow_rate_is_not_lost_to_rounding() {
        let mut pacer = Pacer::new(Instant::ZERO);
        pacer.set_rate(Instant::ZERO, 100, 1);
        pacer.spend(Instant::ZERO, 10);
        for ms in 0..200 {
            pacer.spend(Instant::from_millis(ms), 0);
        }
        assert!(pacer.available(Instant::from_millis(200), 1) >= 10);
    }
}
