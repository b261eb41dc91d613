//! The round trip as the receiving side sees it.
//!
//! Who only receives gets no samples from acknowledgments. But data echoes the timestamp of an
//! ACK of ours, so the time since that ACK left is a round trip plus what the sender waited in
//! between. It is good enough to size a window by, and used for nothing else.

use core::time::Duration;

use crate::time::Span;

/// An echo older than this is no measurement but garbage.
const ELAPSED_MAX_MS: u32 = 1 << 17;

/// Smoothed round trip by echoed timestamps.
#[derive(Clone, Debug, Default)]
pub(super) struct ReceiveRtt {
    smoothed: Option<Span>,
    /// The echo that was measured last.
    echo: u32,
}

impl ReceiveRtt {
    /// Data arrived that echoes `tsecr` at `now`, both by our timestamp clock. Only the first
    /// segment of each echo tells something: those behind it waited for their turn.
    pub(super) fn on_data(&mut self, now: u32, tsecr: u32) {
        if tsecr == 0 || tsecr == self.echo {
            return;
        }
        self.echo = tsecr;
        let elapsed_ms = now.wrapping_sub(tsecr);
        if elapsed_ms > ELAPSED_MAX_MS {
            return;
        }
        let sample = Duration::from_millis(u64::from(elapsed_ms.max(1)));
        let smoothed = match self.smoothed() {
            Some(smoothed) => (smoothed * 7 + sample) / 8,
            None => sample,
        };
        self.smoothed = Some(smoothed.into());
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(Span::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_per_echo_and_none_of_nonsense() {
        let mut rtt = ReceiveRtt::default();
        rtt.on_data(500, 0);
        assert_eq!(rtt.smoothed(), None);
        rtt.on_data(1040, 1000);
        rtt.on_data(1900, 1000);
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(40)));
        // An echo from the future, across the wrap of the clock.
        rtt.on_data(1040, 1041);
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(40)));
        rtt.on_data(7, u32::MAX - 72);
        assert_eq!(rtt.smoothed(), Some(Duration::from_millis(45)));
    }
}
