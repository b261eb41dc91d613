//! Segments merged (D4 to D6; Click's Coalesce).

use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::Flags;

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::Segment;

/// Whose header a merged segment has.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Header {
    /// The first's: options, flags, acknowledgment and window of the others are lost.
    First,
    /// The last's; of the first the sequence number remains.
    Last,
}

/// Holds a segment with payload for a while, and merges with it what follows without a gap.
#[derive(Debug)]
pub struct Coalesce {
    delay: Duration,
    /// Bytes of an IP packet that comes out.
    ip_len_max: usize,
    segments_max: usize,
    header: Header,
    way: Way,
    held: Flows<[Option<Held>; 2]>,
}

#[derive(Clone, Debug)]
struct Held {
    segment: Segment,
    segments: usize,
    until: Instant,
}

impl Coalesce {
    /// Merges two segments into one of at most `ip_len_max` bytes (IP header included).
    #[must_use]
    pub fn pairs(delay: Duration, ip_len_max: usize, header: Header, way: Way) -> Self {
        Self {
            delay,
            ip_len_max,
            segments_max: 2,
            header,
            way,
            held: Flows::default(),
        }
    }

    /// Merges as many as fit, as generic receive offload does.
    #[must_use]
    pub fn all(delay: Duration, ip_len_max: usize, header: Header, way: Way) -> Self {
        Self {
            segments_max: usize::MAX,
            ..Self::pairs(delay, ip_len_max, header, way)
        }
    }

    fn merge(&self, held: &Segment, next: Segment) -> Option<Segment> {
        let fits = held.end() == next.seq
            && !next.payload.is_empty()
            && !next
                .flags
                .intersects(Flags::SYN | Flags::FIN | Flags::RST | Flags::URG)
            && held.ip_len() + next.payload.len() <= self.ip_len_max;
        if !fits {
            return None;
        }
        let mut merged = match self.header {
            Header::First => held.clone(),
            Header::Last => next.clone(),
        };
        merged.seq = held.seq;
        merged.payload.clone_from(&held.payload);
        merged.payload.extend_from_slice(&next.payload);
        Some(merged)
    }
}

impl Rule for Coalesce {
    fn apply(&mut self, now: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        if !self.way.covers(toward) {
            return exit.send(toward, &s);
        }
        let flow = s.flow(toward);
        let held = self.held.of(flow)[toward.index()].take();
        if let Some(held) = held {
            if let Some(merged) = self.merge(&held.segment, s.clone()) {
                exit.count("merged");
                if held.segments + 1 >= self.segments_max {
                    return exit.send(toward, &merged);
                }
                self.held.of(flow)[toward.index()] = Some(Held {
                    segment: merged,
                    segments: held.segments + 1,
                    until: held.until,
                });
                return;
            }
            exit.send(toward, &held.segment);
        }
        let plain = !s
            .flags
            .intersects(Flags::SYN | Flags::FIN | Flags::RST | Flags::URG);
        if s.payload.is_empty() || !plain {
            return exit.send(toward, &s);
        }
        self.held.of(flow)[toward.index()] = Some(Held {
            segment: s,
            segments: 1,
            until: now + self.delay,
        });
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = self.held.values().flatten().flatten();
        held.map(|h| h.until).min()
    }

    fn on_timer(&mut self, now: Instant, exit: &mut Exit<'_>) {
        for both in self.held.values_mut() {
            for toward in [Toward::Client, Toward::Server] {
                let held = &mut both[toward.index()];
                if held.as_ref().is_some_and(|h| h.until <= now)
                    && let Some(held) = held.take()
                {
                    exit.send(toward, &held.segment);
                }
            }
        }
    }
}
