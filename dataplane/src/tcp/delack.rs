//! When to acknowledge (RFC 9293 §3.8.6.3, RFC 5681 §4.2).
//!
//! The owner asks once per receive batch, so a batch or superframe gets one ACK. In between,
//! `pressing` says that so much is unacknowledged that the batch's end is too far.

use core::time::Duration;

use crate::time::{Instant, Span};

/// Full segments that make an ACK due at the end of a batch (RFC 5681 §4.2).
const SEGMENTS_MAX: u32 = 2;
/// Full segments that make an ACK due at once, in loss-free flow.
const SEGMENTS_PRESSING: u32 = 8;
/// Segments acknowledged without delay at the start, while the peer is in slow start with a
/// small window.
const QUICK_SEGMENTS: u8 = 16;

/// What is owed to the peer.
#[derive(Clone, Debug)]
pub(super) struct DelayedAck {
    delay: Span,
    /// In-order bytes since the last ACK.
    unacked_bytes: u32,
    deadline: Option<Instant>,
    now: bool,
    quick: u8,
    /// Largest payload seen: the peer's segment size.
    peer_segment: u32,
}

impl DelayedAck {
    pub(super) fn new(delay: Duration) -> Self {
        Self {
            delay: delay.into(),
            unacked_bytes: 0,
            deadline: None,
            now: false,
            quick: QUICK_SEGMENTS,
            peer_segment: 0,
        }
    }

    /// In-order data came; `mss` bounds what one segment can have been.
    pub(super) fn received(&mut self, now: Instant, bytes: u32, mss: u32) {
        self.peer_segment = self.peer_segment.max(bytes.min(mss));
        self.unacked_bytes = self.unacked_bytes.saturating_add(bytes);
        self.deadline.get_or_insert(now + self.delay.get());
        if self.quick > 0 {
            self.quick -= 1;
            self.now = true;
        }
    }

    /// An ACK must leave at the end of this batch.
    pub(super) fn demand(&mut self) {
        self.now = true;
    }

    fn segments(&self) -> u32 {
        self.unacked_bytes / self.peer_segment.max(1)
    }

    /// At the end of a batch: should an ACK leave?
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.now
            || self.segments() >= SEGMENTS_MAX
            || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// In the middle of a batch: is the end too far? `smooth` = no loss is being repaired.
    pub(super) fn is_pressing(&self, smooth: bool) -> bool {
        let limit = if smooth {
            SEGMENTS_PRESSING
        } else {
            SEGMENTS_MAX
        };
        self.segments() >= limit
    }

    /// An ACK left.
    pub(super) fn sent(&mut self) {
        self.unacked_bytes = 0;
        self.deadline = None;
        self.now = false;
    }

    /// When an ACK becomes due without further segments.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.now || self.segments() >= SEGMENTS_MAX {
            return Some(Instant::ZERO);
        }
        self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn settled() -> DelayedAck {
        let mut ack = DelayedAck::new(Duration::from_millis(40));
        for _ in 0..QUICK_SEGMENTS {
            ack.received(Instant::ZERO, MSS, MSS);
            assert!(ack.is_due(Instant::ZERO));
            ack.sent();
        }
        ack
    }

    #[test]
    fn one_segment_waits_two_do_not() {
        let mut ack = settled();
        ack.received(Instant::ZERO, MSS, MSS);
        assert!(!ack.is_due(Instant::from_millis(39)));
        assert!(ack.is_due(Instant::from_millis(40)));
        assert_eq!(ack.deadline(), Some(Instant::from_millis(40)));
        ack.received(Instant::from_millis(1), MSS, MSS);
        assert!(ack.is_due(Instant::from_millis(1)));
        ack.sent();
        assert!(!ack.is_due(Instant::from_millis(100)));
    }

    #[test]
    fn small_segments_wait_until_they_make_two_full_ones() {
        let mut ack = settled();
        for _ in 0..19 {
            ack.received(Instant::ZERO, 100, MSS);
            assert!(!ack.is_due(Instant::ZERO));
        }
        ack.received(Instant::ZERO, 100, MSS);
        assert!(ack.is_due(Instant::ZERO));
    }

    #[test]
    fn eight_segments_press_two_when_loss_is_repaired() {
        let mut ack = settled();
        ack.received(Instant::ZERO, 2 * MSS, MSS);
        assert!(!ack.is_pressing(true) && ack.is_pressing(false));
        ack.received(Instant::ZERO, 6 * MSS, MSS);
        assert!(ack.is_pressing(true));
    }
}
