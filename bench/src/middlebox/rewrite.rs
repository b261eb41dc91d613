//! Payload changed on the way (F1 to F7).
//!
//! Edits are made at sequence numbers, not to packets, so that a retransmission that is cut
//! differently is changed in the same way. What a box itself has sent it sends again until it
//! is acknowledged: everything behind it waits for that.

use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::Segment;

/// A gateway's own answer is not sent again sooner than after this (RFC 6298 §2.4 has a second).
const ANSWER_AGAIN: Duration = Duration::from_millis(200);

/// What an application-level gateway inserts.
const INSERTED: &[u8] = b"203.0.113.77,";

/// F1, F2: one byte of the nth segment with new payload is flipped.
#[derive(Debug)]
pub struct Flip {
    nth: u64,
    way: Way,
    flows: Flows<[FlipState; 2]>,
}

#[derive(Copy, Clone, Default, Debug)]
struct FlipState {
    data: NewData,
    at: Option<SeqNumber>,
}

/// Counts segments that carry payload never seen before.
#[derive(Copy, Clone, Default, Debug)]
struct NewData {
    end: Option<SeqNumber>,
    segments: u64,
}

impl NewData {
    /// Whether this is the nth.
    fn is_nth(&mut self, s: &Segment, nth: u64) -> bool {
        if s.payload.is_empty() || self.end.is_some_and(|end| s.end() <= end) {
            return false;
        }
        self.end = Some(s.end());
        self.segments += 1;
        self.segments == nth
    }
}

impl Flip {
    /// Changes the `nth` (from 1) segment one way of every flow.
    #[must_use]
    pub fn new(nth: u64, way: Way) -> Self {
        Self {
            nth,
            way,
            flows: Flows::default(),
        }
    }
}

impl Rule for Flip {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if self.way.covers(toward) {
            let state = &mut self.flows.of(s.flow(toward))[toward.index()];
            if state.data.is_nth(&s, self.nth) {
                state.at = Some(payload_start(&s) + half(&s));
            }
            let start = payload_start(&s);
            if let Some(at) = state.at
                && let Some(byte) = s.payload.get_mut((at - start) as usize)
            {
                *byte ^= 0x20;
                exit.count("bytes changed");
            }
        }
        exit.send(toward, &s);
    }
}

/// The sequence number of the first payload byte.
fn payload_start(s: &Segment) -> SeqNumber {
    s.seq + u32::from(s.flags.contains(Flags::SYN))
}

fn half(s: &Segment) -> u32 {
    u32::try_from(s.payload.len() / 2).unwrap_or(0)
}

/// How an application-level gateway changes a line.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// F3, F4: so many bytes more.
    Grow(usize),
    /// F5: so many bytes fewer.
    Shrink(usize),
    /// F7: the whole payload of the segment vanishes, and an answer of so many bytes goes
    /// back to its sender.
    Answer(usize),
}

/// F3 to F5, F7: an application-level gateway. It translates sequence numbers both ways,
/// SACK blocks included, as conntrack's FTP helper does.
#[derive(Debug)]
pub struct Gateway {
    nth: u64,
    edit: Edit,
    way: Way,
    flows: Flows<[Stream; 2]>,
}

/// One direction of a flow.
#[derive(Clone, Default, Debug)]
struct Stream {
    data: NewData,
    /// Behind all that its sender sent.
    top: Option<SeqNumber>,
    /// The newest acknowledgment of it, in its sender's language.
    acked: Option<SeqNumber>,
    change: Option<Change>,
    /// The sender's newest timestamp.
    clock: Option<u32>,
    /// The answer that the box has put into it, for as long as nobody has acknowledged it, and
    /// when it last left.
    answer: Option<(Segment, Instant)>,
}

/// `deleted` bytes from `at` on give way to `inserted`.
#[derive(Clone, Debug)]
struct Change {
    at: SeqNumber,
    deleted: u32,
    inserted: Vec<u8>,
}

impl Change {
    fn inserted_len(&self) -> u32 {
        u32::try_from(self.inserted.len()).unwrap_or(0)
    }

    /// What the receiver calls the sender's `seq`.
    fn forth(&self, seq: SeqNumber) -> SeqNumber {
        if seq <= self.at {
            seq
        } else if seq >= self.at + self.deleted {
            seq + self.inserted_len() - self.deleted
        } else {
            self.at + self.inserted_len()
        }
    }

    /// What the sender calls the receiver's `ack`.
    fn back(&self, ack: SeqNumber) -> SeqNumber {
        if ack >= self.at + self.inserted_len() {
            ack + self.deleted - self.inserted_len()
        } else if ack <= self.at {
            ack
        } else {
            self.at
        }
    }

    /// Applies it to a segment's payload; true if it touched it.
    fn apply(&self, s: &mut Segment) -> bool {
        let start = payload_start(s);
        let len = s.payload.len();
        let offset = |seq: SeqNumber| {
            let offset = seq.diff(start).max(0);
            usize::try_from(offset).unwrap_or(0).min(len)
        };
        let (from, to) = (offset(self.at), offset(self.at + self.deleted));
        let holds_start = start <= self.at && from < len;
        let touched = from < to || holds_start;
        let insert: &[u8] = if holds_start { &self.inserted } else { &[] };
        s.payload.splice(from..to, insert.iter().copied());
        touched
    }
}

impl Stream {
    fn forth(&self, s: &Segment) -> SeqNumber {
        let change = self.change.as_ref();
        change.map_or(s.seq, |c| match s.payload.is_empty() {
            // What has no payload stands behind what was inserted.
            true if s.seq == c.at => c.at + c.inserted_len(),
            _ => c.forth(s.seq),
        })
    }

    fn back(&self, ack: SeqNumber) -> SeqNumber {
        self.change.as_ref().map_or(ack, |c| c.back(ack))
    }

    /// The answer once more, when `s` passes in front of whose receiver it is missing. What has
    /// payload there brings it along.
    fn answer_again(&mut self, now: Instant, s: &Segment) -> Option<Segment> {
        let behind = self.change.as_ref().is_some_and(|c| s.seq == c.at);
        let (answer, last) = self.answer.as_mut()?;
        if !behind || !s.payload.is_empty() || now < *last + ANSWER_AGAIN {
            return None;
        }
        *last = now;
        if let (Some(val), Some((_, ecr))) = (self.clock, answer.timestamps()) {
            answer.options = timestamps(val, ecr).to_vec();
        }
        Some(answer.clone())
    }

    /// Reads the sender's clock.
    fn look_at_clock(&mut self, s: &Segment) {
        if let Some((val, _)) = s.timestamps() {
            let newer = |old: &u32| val.wrapping_sub(*old) < 1 << 31;
            self.clock = Some(self.clock.filter(|old| !newer(old)).unwrap_or(val));
        }
    }
}

impl Gateway {
    /// Changes the `nth` (from 1) segment with new payload one way of every flow.
    #[must_use]
    pub fn new(nth: u64, edit: Edit, way: Way) -> Self {
        Self {
            nth,
            edit,
            way,
            flows: Flows::default(),
        }
    }

    fn change(&self, s: &Segment) -> Change {
        let middle = payload_start(s) + half(s);
        match self.edit {
            Edit::Grow(n) => Change {
                at: middle,
                deleted: 0,
                inserted: filler(n),
            },
            Edit::Shrink(n) => Change {
                at: middle,
                deleted: u32::try_from(n.min(s.payload.len() / 2)).unwrap_or(0),
                inserted: Vec::new(),
            },
            Edit::Answer(_) => Change {
                at: payload_start(s),
                deleted: u32::try_from(s.payload.len()).unwrap_or(0),
                inserted: Vec::new(),
            },
        }
    }

    /// The answer that the box invents: new bytes in the other direction, behind all that
    /// has passed there. The next segment there repeats them. It acknowledges the segment that
    /// vanishes only if the receiver has all in front of it: what was lost must come again.
    fn answer(&self, s: &Segment, acked: Option<SeqNumber>, back: &mut Stream) -> Option<Segment> {
        let Edit::Answer(n) = self.edit else {
            return None;
        };
        if back.change.is_some() || !s.flags.contains(Flags::ACK) {
            return None;
        }
        let at = back.top.unwrap_or(s.ack);
        let start = payload_start(s);
        let ack = match acked {
            Some(acked) if acked < start => acked,
            _ => s.end(),
        };
        let mut reply = s.reply(at, ack, Flags::ACK | Flags::PSH);
        reply.payload = filler(n);
        if let Some((val, ecr)) = s.timestamps() {
            // As fresh as all that the sender may have seen, so that PAWS lets it in.
            reply.append_option(&timestamps(back.clock.unwrap_or(ecr), val));
        }
        back.change = Some(Change {
            at,
            deleted: 0,
            inserted: filler(n),
        });
        Some(reply)
    }
}

/// The timestamps option.
pub(super) fn timestamps(val: u32, ecr: u32) -> [u8; 12] {
    let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    option[4..8].copy_from_slice(&val.to_be_bytes());
    option[8..].copy_from_slice(&ecr.to_be_bytes());
    option
}

fn filler(n: usize) -> Vec<u8> {
    INSERTED.iter().copied().cycle().take(n).collect()
}

impl Rule for Gateway {
    fn apply(&mut self, now: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let flow = s.flow(toward);
        let (ours, theirs) = (toward.index(), toward.back().index());
        let mut streams = std::mem::take(self.flows.of(flow));
        streams[ours].look_at_clock(&s);
        let top = &mut streams[ours].top;
        *top = Some(top.map_or(s.end(), |top| top.later(s.end())));
        if self.way.covers(toward)
            && streams[ours].change.is_none()
            && streams[ours].data.is_nth(&s, self.nth)
        {
            streams[ours].change = Some(self.change(&s));
            exit.count("edits");
            // The answer speaks the sender's language: nothing of it is translated.
            let acked = streams[ours].acked;
            if let Some(reply) = self.answer(&s, acked, &mut streams[theirs]) {
                exit.count("answers");
                exit.send(toward.back(), &reply);
                streams[theirs].answer = Some((reply, now));
            }
        }
        if let Some(answer) = streams[ours].answer_again(now, &s) {
            exit.count("answers again");
            exit.send(toward, &answer);
        }
        // The start of a segment that begins inside the change moves with it.
        let seq = streams[ours].forth(&s);
        if let Some(change) = &streams[ours].change
            && change.apply(&mut s)
        {
            exit.count("segments changed");
        }
        if seq != s.seq {
            exit.count("renumbered");
        }
        s.seq = seq;
        if s.flags.contains(Flags::ACK) {
            let acked = |(answer, _): &(Segment, Instant)| s.ack >= answer.end();
            if streams[theirs].answer.as_ref().is_some_and(acked) {
                streams[theirs].answer = None;
            }
            s.ack = streams[theirs].back(s.ack);
            let acked = &mut streams[theirs].acked;
            *acked = Some(acked.map_or(s.ack, |acked| acked.later(s.ack)));
        }
        let back = &streams[theirs];
        s.map_sack(|edge| back.back(edge));
        *self.flows.of(flow) = streams;
        exit.send(toward, &s);
    }
}
