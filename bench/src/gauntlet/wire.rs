//! A wire with a rate, a delay and a queue, one direction of it.

use std::collections::VecDeque;
use std::time::Duration;

use braid_dataplane::time::Instant;

/// What a wire is like.
#[derive(Copy, Clone, Debug)]
pub struct WireConfig {
    /// Bits per second.
    pub rate_bps: u64,
    /// From the last bit in to the last bit out.
    pub delay: Duration,
    /// Bytes that wait at the most; what does not fit is lost.
    pub queue_bytes: usize,
}

/// Frames on their way, oldest first.
#[derive(Debug)]
pub(super) struct Wire {
    config: WireConfig,
    frames: VecDeque<(Instant, Vec<u8>)>,
    queued_bytes: usize,
    /// When the last frame has left the sender.
    busy_until: Instant,
    lost: u64,
}

impl Wire {
    pub(super) fn new(config: WireConfig) -> Self {
        Self {
            config,
            frames: VecDeque::new(),
            queued_bytes: 0,
            busy_until: Instant::ZERO,
            lost: 0,
        }
    }

    pub(super) fn put(&mut self, now: Instant, frame: Vec<u8>) {
        if self.queued_bytes + frame.len() > self.config.queue_bytes {
            self.lost += 1;
            return;
        }
        let bits = frame.len() as u64 * 8;
        let takes = Duration::from_nanos(bits * 1_000_000_000 / self.config.rate_bps.max(1));
        self.busy_until = self.busy_until.max(now) + takes;
        self.queued_bytes += frame.len();
        let arrives = self.busy_until + self.config.delay;
        self.frames.push_back((arrives, frame));
    }

    /// A frame that has arrived by now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.frames.front()?.0 > now {
            return None;
        }
        let (_, frame) = self.frames.pop_front()?;
        self.queued_bytes -= frame.len();
        Some(frame)
    }

    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.frames.front().map(|(at, _)| *at)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: WireConfig = WireConfig {
        rate_bps: 8_000_000,
        delay: Duration::from_millis(5),
        queue_bytes: 3_000,
    };

    #[test]
    fn frames_take_their_time_one_after_the_other() {
        let mut wire = Wire::new(CONFIG);
        for letter in [1, 2] {
            wire.put(Instant::from_millis(10), vec![letter; 1_000]);
        }
        // 1000 bytes at one byte per microsecond, and the way.
        assert_eq!(wire.next_arrival(), Some(Instant::from_millis(16)));
        assert_eq!(wire.take(Instant::from_micros(15_999)), None);
        assert_eq!(wire.take(Instant::from_millis(16)), Some(vec![1; 1_000]));
        assert_eq!(wire.take(Instant::from_millis(16)), None);
        assert_eq!(wire.take(Instant::from_millis(17)), Some(vec![2; 1_000]));
        assert_eq!(wire.lost(), 0);
    }

    #[test]
    fn a_full_queue_loses_the_newest() {
        let mut wire = Wire::new(CONFIG);
        for letter in [1, 2, 3, 4] {
            wire.put(Instant::ZERO, vec![letter; 1_000]);
        }
        assert_eq!(wire.lost(), 1);
        let late = Instant::from_millis(1_000);
        let arrived: Vec<u8> = std::iter::from_fn(|| wire.take(late).map(|f| f[0])).collect();
        assert_eq!(arrived, [1, 2, 3]);
    }
}
