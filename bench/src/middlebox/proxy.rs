//! E1: a performance-enhancing proxy (RFC 3135 §3.1.1) that acknowledges data itself, keeps
//! it, and repeats it until the receiver has it.
//!
//! Sequence numbers stay, so that what the box does not touch, options included, passes end
//! to end. Its own acknowledgments carry no MPTCP option: the box knows none.

use std::collections::VecDeque;
use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use super::Toward;
use super::rewrite::timestamps;
use super::rule::{Exit, Flows, Rule};
use super::segment::{SACK, Segment, WINDOW_SCALE};

/// RFC 7323 §3.2.
const TIMESTAMPS: u8 = 8;
/// Bytes per direction of a flow that the box vouches for at a time.
const CACHE_BYTES: usize = 256 * 1024;
/// How long the receiver may take before the box repeats.
const REPEAT_AFTER: Duration = Duration::from_millis(200);
/// Segments repeated at a time.
const REPEAT_MAX: usize = 8;

/// See the module documentation.
#[derive(Default, Debug)]
pub struct Pep {
    flows: Flows<[Direction; 2]>,
}

/// One direction: its sender's data, its receiver's acknowledgments.
#[derive(Default, Debug)]
struct Direction {
    /// Next byte in order, and so what the box acknowledges.
    next: Option<SeqNumber>,
    /// What the receiver has acknowledged.
    acked: Option<SeqNumber>,
    /// The receiver's right edge.
    edge: Option<SeqNumber>,
    /// The receiver's offered shift.
    shift: Option<u8>,
    /// The receiver's last timestamp.
    receiver_time: u32,
    cached: VecDeque<Segment>,
    cached_bytes: usize,
    repeat_at: Option<Instant>,
}

impl Direction {
    /// Keeps data that is next in order; true if the box can vouch for it.
    fn keep(&mut self, now: Instant, s: &Segment) -> bool {
        let (Some(next), Some(edge)) = (self.next, self.edge) else {
            return false;
        };
        let fits = self.cached_bytes + s.payload.len() <= CACHE_BYTES && s.end() <= edge;
        if s.payload.is_empty()
            || s.seq != next
            || s.flags.intersects(Flags::FIN | Flags::RST)
            || !fits
        {
            return false;
        }
        self.next = Some(s.end());
        self.cached_bytes += s.payload.len();
        self.cached.push_back(s.clone());
        self.repeat_at.get_or_insert(now + REPEAT_AFTER);
        true
    }

    fn acknowledge(&mut self, now: Instant, s: &Segment, shift: u8) {
        self.acked = Some(self.acked.map_or(s.ack, |acked| acked.later(s.ack)));
        let edge = s.ack + (u32::from(s.window) << shift);
        self.edge = Some(self.edge.map_or(edge, |e| e.later(edge)));
        self.next = Some(self.next.map_or(s.ack, |next| next.later(s.ack)));
        while let Some(first) = self.cached.pop_front_if(|c| c.end() <= s.ack) {
            self.cached_bytes -= first.payload.len();
            self.repeat_at = Some(now + REPEAT_AFTER);
        }
        if self.cached.is_empty() {
            self.repeat_at = None;
        }
    }

    /// The window from `ack` to the receiver's right edge, in its units.
    fn window(&self, ack: SeqNumber, shift: u8) -> u16 {
        let left = self.edge.map_or(0, |edge| edge.diff(ack).max(0));
        u16::try_from(left >> shift).unwrap_or(u16::MAX)
    }
}

impl Rule for Pep {
    fn apply(&mut self, now: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let flow = self.flows.of(s.flow(toward));
        let (ours, theirs) = (toward.index(), toward.back().index());
        if s.flags.contains(Flags::SYN) {
            // Offered by the sender of this segment: the receiver of the other direction.
            flow[theirs].shift = s
                .option(WINDOW_SCALE)
                .and_then(|o| o.get(2).map(|b| (*b).min(14)));
            flow[ours].next = Some(s.end());
            return exit.send(toward, &s);
        }
        let scaled = flow[0].shift.is_some() && flow[1].shift.is_some();
        let shift_of = |d: &Direction| if scaled { d.shift.unwrap_or(0) } else { 0 };
        if s.flags.contains(Flags::ACK) && !s.flags.contains(Flags::RST) {
            let shift = shift_of(&flow[theirs]);
            let back = &mut flow[theirs];
            back.acknowledge(now, &s, shift);
            if let Some((val, _)) = s.timestamps() {
                back.receiver_time = val;
            }
            // The box has promised more than the receiver has: its ACKs must not take
            // that back, nor make the sender repeat what the box repeats.
            if let Some(next) = back.next
                && !back.cached.is_empty()
                && s.ack < next
            {
                s.ack = next;
                s.window = back.window(next, shift);
                s.nop_out(|_, p| p.kind == SACK);
                exit.count("acknowledgments raised");
            }
        }
        let forward = &mut flow[ours];
        if forward.keep(now, &s) {
            let shift = shift_of(forward);
            let ack = s.end();
            let mut early = s.reply(s.ack, ack, Flags::ACK);
            early.window = forward.window(ack, shift);
            if let Some((val, _)) = s.timestamps() {
                early.append_option(&timestamps(forward.receiver_time, val));
            }
            exit.count("early acknowledgments");
            exit.send(toward.back(), &early);
        }
        exit.send(toward, &s);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.flows
            .values()
            .flatten()
            .filter_map(|d| d.repeat_at)
            .min()
    }

    fn on_timer(&mut self, now: Instant, exit: &mut Exit<'_>) {
        for flow in self.flows.values_mut() {
            for toward in [Toward::Client, Toward::Server] {
                // An old acknowledgment would make the segment unacceptable (RFC 5961 §5.2).
                let back = &flow[toward.back().index()];
                let (acked, sender_time) = (back.next, back.receiver_time);
                let direction = &mut flow[toward.index()];
                if direction.repeat_at.is_some_and(|at| at <= now) {
                    for s in direction.cached.iter_mut().take(REPEAT_MAX) {
                        s.ack = acked.unwrap_or(s.ack).later(s.ack);
                        // So would an old timestamp (RFC 7323 §5).
                        if let Some(o) = s.option_mut(TIMESTAMPS)
                            && o.len() == 10
                        {
                            o[2..6].copy_from_slice(&sender_time.to_be_bytes());
                        }
                        exit.count("repeated");
                        // The path may have become narrower since.
                        match s.split(s.payload.len() / 2) {
                            Some((first, second)) => {
                                exit.send(toward, &first);
                                exit.send(toward, &second);
                            }
                            None => exit.send(toward, s),
                        }
                    }
                    direction.repeat_at = Some(now + REPEAT_AFTER);
                }
            }
        }
    }
}
