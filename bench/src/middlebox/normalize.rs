//! Normalizers: boxes that insist on one consistent byte stream (G1, G2, G6, G7).

use std::collections::VecDeque;

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::Segment;

/// Bytes per direction of a flow that [`Consistent`] remembers.
const REMEMBERED_BYTES: usize = 1 << 20;

/// G1: whatever is sent again is replaced by what was sent first.
#[derive(Default, Debug)]
pub struct Consistent {
    flows: Flows<[Stream; 2]>,
}

#[derive(Default, Debug)]
struct Stream {
    start: Option<SeqNumber>,
    bytes: VecDeque<Option<u8>>,
}

impl Stream {
    /// Compares with, and replaces by, the first version. Bytes that differed.
    fn replay(&mut self, seq: SeqNumber, payload: &mut [u8]) -> u64 {
        let start = *self.start.get_or_insert(seq);
        let mut differed = 0;
        for (i, byte) in payload.iter_mut().enumerate() {
            let at = (seq + u32::try_from(i).unwrap_or(0)).diff(start);
            let Ok(at) = usize::try_from(at) else {
                continue;
            };
            if at > self.bytes.len() + REMEMBERED_BYTES {
                continue;
            }
            if at >= self.bytes.len() {
                self.bytes.resize(at + 1, None);
            }
            match self.bytes[at] {
                Some(first) => {
                    differed += u64::from(first != *byte);
                    *byte = first;
                }
                None => self.bytes[at] = Some(*byte),
            }
        }
        while self.bytes.len() > REMEMBERED_BYTES {
            self.bytes.pop_front();
            self.start = self.start.map(|s| s + 1);
        }
        differed
    }
}

impl Rule for Consistent {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if !s.payload.is_empty() && s.is_past_syn() {
            let stream = &mut self.flows.of(s.flow(toward))[toward.index()];
            let again = stream.start.is_some_and(|start| {
                s.seq.diff(start) < i32::try_from(stream.bytes.len()).unwrap_or(i32::MAX)
            });
            let differed = stream.replay(s.seq, &mut s.payload);
            exit.add("segments replayed", u64::from(again));
            if differed > 0 {
                exit.add("bytes inconsistent", differed);
            }
        }
        exit.send(toward, &s);
    }
}

/// G2: lets nothing pass behind a hole, and makes holes: it loses a share of the segments.
#[derive(Debug)]
pub struct NoHoles {
    rng: StdRng,
    loss: f64,
    flows: Flows<[Option<Passed>; 2]>,
}

/// What has passed without a hole.
#[derive(Copy, Clone, Debug)]
struct Passed {
    /// First byte behind the SYN.
    start: SeqNumber,
    /// Behind the last one.
    next: SeqNumber,
}

impl NoHoles {
    /// Loses `loss` of the segments with payload.
    #[must_use]
    pub fn new(seed: u64, loss: f64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            loss,
            flows: Flows::default(),
        }
    }
}

impl Rule for NoHoles {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let passed = &mut self.flows.of(s.flow(toward))[toward.index()];
        if s.flags.contains(Flags::SYN) {
            let start = s.end();
            // A copy that was late begins nothing anew.
            if passed.is_none_or(|p| p.start != start) {
                *passed = Some(Passed { start, next: start });
            }
            return exit.send(toward, &s);
        }
        if !s.payload.is_empty() && self.rng.random_bool(self.loss) {
            exit.count("dropped: loss");
            return;
        }
        // An ACK that says "next" after lost data stands behind the hole, and is harmless.
        if s.seg_len() > 0 {
            let (start, next) = passed.map_or((s.seq, s.seq), |p| (p.start, p.next));
            if s.seq > next {
                exit.count("dropped: behind a hole");
                return;
            }
            let next = next.later(s.end());
            *passed = Some(Passed { start, next });
        }
        exit.send(toward, &s);
    }
}

/// G6: cuts off what a segment repeats when it brings new bytes too, and takes the byte out
/// of keepalives that carry one: it was acknowledged before, or it would be data sent again.
#[derive(Default, Debug)]
pub struct TrimOverlap {
    flows: Flows<[Heard; 2]>,
}

/// What a direction brought.
#[derive(Copy, Clone, Default, Debug)]
struct Heard {
    /// Behind the last byte.
    end: Option<SeqNumber>,
    /// The newest acknowledgment of the other direction.
    ack: Option<SeqNumber>,
}

impl Rule for TrimOverlap {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let heard = self.flows.of(s.flow(toward));
        let acked = heard[toward.back().index()].ack;
        let heard = &mut heard[toward.index()];
        if s.flags.contains(Flags::ACK) {
            heard.ack = Some(heard.ack.map_or(s.ack, |ack| ack.later(s.ack)));
        }
        let seen = &mut heard.end;
        if let Some(end) = *seen
            && s.is_past_syn()
            && !s.payload.is_empty()
        {
            let old = acked.is_some_and(|ack| ack >= end);
            let keepalive = s.payload.len() == 1 && s.seq + 1 == end && old;
            if keepalive {
                s.payload.clear();
                exit.count("keepalive bytes removed");
            } else if s.seq < end && end < s.seq + payload_len(&s) {
                s.payload.drain(..(end - s.seq) as usize);
                s.seq = end;
                exit.count("overlaps trimmed");
            }
        }
        if s.is_past_syn() {
            let end = s.seq + payload_len(&s);
            *seen = Some(seen.map_or(end, |seen| seen.later(end)));
        } else {
            *seen = Some(s.end());
        }
        exit.send(toward, &s);
    }
}

fn payload_len(s: &Segment) -> u32 {
    u32::try_from(s.payload.len()).unwrap_or(0)
}

/// What becomes of an acknowledgment of what the box has not seen.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Unseen {
    /// It is dropped.
    Drop,
    /// It becomes one of what was seen.
    Correct,
}

/// G7: watches that nobody acknowledges what did not pass.
#[derive(Debug)]
pub struct AckGuard {
    unseen: Unseen,
    way: Way,
    sent: Flows<[Option<SeqNumber>; 2]>,
}

impl AckGuard {
    /// A guard of ACKs one way or both.
    #[must_use]
    pub fn new(unseen: Unseen, way: Way) -> Self {
        Self {
            unseen,
            way,
            sent: Flows::default(),
        }
    }
}

impl Rule for AckGuard {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let sent = self.sent.of(s.flow(toward));
        let own = &mut sent[toward.index()];
        *own = Some(own.map_or(s.end(), |seen| seen.later(s.end())));
        let passed = sent[toward.back().index()];
        if self.way.covers(toward)
            && s.flags.contains(Flags::ACK)
            && let Some(passed) = passed
            && s.ack > passed
        {
            match self.unseen {
                Unseen::Drop => {
                    exit.count("dropped: acknowledges the unseen");
                    return;
                }
                Unseen::Correct => {
                    s.ack = passed;
                    exit.count("acknowledgments corrected");
                }
            }
        }
        exit.send(toward, &s);
    }
}
