//! A transmitter and the queue in front of it, of one link or shared by several.
//!
//! First come, first served, tail drop. Nothing waits in memory: when a packet would leave is
//! known the moment it comes.

use std::collections::VecDeque;
use std::time::Duration;

use braid_dataplane::time::Instant;

/// Properties of a queue that several links share, the same in both directions.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BottleneckConfig {
    /// Bits per second.
    pub rate_bps: u64,
    /// Bytes that may wait.
    pub queue_bytes: u64,
    /// Packets that may wait.
    pub queue_packets: usize,
    /// Waiting bytes from which packets of ECN-capable transports are marked (RFC 3168).
    pub ecn_bytes: Option<u64>,
}

impl Default for BottleneckConfig {
    fn default() -> Self {
        Self {
            rate_bps: 100_000_000,
            queue_bytes: 128 * 1024,
            queue_packets: usize::MAX,
            ecn_bytes: None,
        }
    }
}

/// The state of both directions.
#[derive(Debug, Default)]
pub(super) struct Bottleneck {
    /// When each direction's transmitter is free.
    free_at: [Instant; 2],
    /// When those that wait will have left; kept only where packets are limited.
    leaving: [VecDeque<Instant>; 2],
}

impl Bottleneck {
    /// When a packet that comes at `now` has left, and whether it found the queue long
    /// enough to be marked. `None`: the queue is full.
    pub(super) fn pass(
        &mut self,
        now: Instant,
        direction: usize,
        bytes: usize,
        config: &BottleneckConfig,
    ) -> Option<(Instant, bool)> {
        let start = self.free_at[direction].max(now);
        let waiting_ns = (start - now).as_nanos();
        let backlog = waiting_ns * u128::from(config.rate_bps) / 8_000_000_000;
        if backlog > u128::from(config.queue_bytes) {
            return None;
        }
        let leaving = &mut self.leaving[direction];
        if config.queue_packets != usize::MAX {
            while leaving.front().is_some_and(|at| *at <= now) {
                leaving.pop_front();
            }
            // One is being sent; the others wait.
            if leaving.len() > config.queue_packets {
                return None;
            }
        }
        let nanos = bytes as u64 * 8 * 1_000_000_000 / config.rate_bps;
        let leaves = start + Duration::from_nanos(nanos);
        self.free_at[direction] = leaves;
        if config.queue_packets != usize::MAX {
            leaving.push_back(leaves);
        }
        let mark = config.ecn_bytes.is_some_and(|b| backlog >= u128::from(b));
        Some((leaves, mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A kilobyte per millisecond.
    fn config() -> BottleneckConfig {
        BottleneckConfig {
            rate_bps: 8_000_000,
            ..BottleneckConfig::default()
        }
    }

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate() {
        let mut queue = Bottleneck::default();
        let now = Instant::from_millis(10);
        let mut pass = |direction| queue.pass(now, direction, 1000, &config()).unwrap().0;
        assert_eq!(pass(0), now + MS);
        assert_eq!(pass(0), now + 2 * MS);
        assert_eq!(pass(1), now + MS, "directions do not share");
    }

    #[test]
    fn bytes_and_packets_are_limited_and_long_queues_marked() {
        for (queue_bytes, queue_packets) in [(3_500, usize::MAX), (1 << 20, 4)] {
            let config = BottleneckConfig {
                queue_bytes,
                queue_packets,
                ecn_bytes: Some(3_000),
                ..config()
            };
            let mut queue = Bottleneck::default();
            let now = Instant::from_millis(10);
            let passed: Vec<_> = (0..8)
                .map(|_| queue.pass(now, 0, 1000, &config).map(|(_, mark)| mark))
                .collect();
            let mut accepted = vec![Some(false); 3];
            accepted.push(Some(true));
            if queue_packets == 4 {
                accepted.push(Some(true));
            }
            accepted.resize(8, None);
            assert_eq!(passed, accepted);
            assert!(queue.pass(now + 3 * MS, 0, 1000, &config).is_some());
        }
    }
}
