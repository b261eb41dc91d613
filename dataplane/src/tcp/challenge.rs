//! A per-connection limit on ACKs that an attacker can provoke (RFC 5961 §7).
//!
//! Per connection, not global: a global limit is a side channel (CVE-2016-5696).

use core::time::Duration;

use crate::time::Instant;

/// Answers per period.
const ACKS_MAX: u8 = 10;
/// The period. RFC 5961 §7 suggests 10 ACKs in 5 seconds; probes of live peers stay below
/// both, and one second heals a desynchronised peer sooner.
const PERIOD: Duration = Duration::from_secs(1);

/// Counts provoked ACKs.
#[derive(Clone, Debug)]
pub(super) struct ChallengeLimit {
    period_start: Instant,
    sent: u8,
}

impl ChallengeLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            period_start: now,
            sent: 0,
        }
    }

    /// May another one go out?
    pub(super) fn permit(&mut self, now: Instant) -> bool {
        if now - self.period_start >= PERIOD {
            self.period_start = now;
            self.sent = 0;
        }
        let permitted = self.sent < ACKS_MAX;
        if permitted {
            self.sent += 1;
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second() {
        let mut limit = ChallengeLimit::new(Instant::ZERO);
        let permitted = |limit: &mut ChallengeLimit, ms| {
            (0..100)
                .filter(|_| limit.permit(Instant::from_millis(ms)))
                .count()
        };
        assert_eq!(permitted(&mut limit, 0), 10);
        assert_eq!(permitted(&mut limit, 999), 0);
        assert_eq!(permitted(&mut limit, 1000), 10);
    }
}
