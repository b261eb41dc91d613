//! Closed flows that must still answer: TIME-WAIT without a connection.
//!
//! A first-in-first-out queue of compact entries, because every entry waits equally
//! long. It is preallocated and bounded: when full, the oldest entry is recycled early
//! and counted, so that short connections cannot grow memory.

use std::collections::VecDeque;

use crate::tcp::TimeWait;
use crate::time::Instant;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::types::FourTuple;

/// What a segment for a TIME-WAIT flow deserves.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TimeWaitAnswer {
    /// Nothing.
    Drop,
    /// An ACK with these numbers (a retransmitted FIN, old data).
    Ack {
        /// SND.NXT.
        seq: SeqNumber,
        /// RCV.NXT.
        ack: SeqNumber,
    },
    /// A SYN that is provably new (RFC 6191, RFC 9293 §3.10.7.4): forget the old flow.
    Recycle,
}

/// See the module documentation.
#[derive(Debug)]
pub struct TimeWaitQueue {
    entries: VecDeque<(FourTuple, TimeWait)>,
    /// Serial number of the front entry.
    first: u64,
    entries_max: usize,
}

impl TimeWaitQueue {
    /// An empty queue for at most `entries_max` flows.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { entries: VecDeque::with_capacity(entries_max), first: 0, entries_max }
    }

    /// Adds a flow and returns its serial number, with the flow that had to go for it.
    pub fn push(&mut self, tuple: FourTuple, state: TimeWait) -> (u64, Option<(u64, FourTuple)>) {
        let evicted = if self.entries.len() == self.entries_max { self.pop() } else { None };
        self.entries.push_back((tuple, state));
        (self.first + self.entries.len() as u64 - 1, evicted)
    }

    /// Removes and returns the front flow if its time is over.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(u64, FourTuple)> {
        let (_, state) = self.entries.front()?;
        if state.expires <= now { self.pop() } else { None }
    }

    /// When the front flow expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.entries.front().map(|(_, state)| state.expires)
    }

    /// Judges a segment for the flow `serial`.
    #[must_use]
    pub fn judge(&self, serial: u64, segment: &TcpPacket) -> TimeWaitAnswer {
        let Some((_, state)) = usize::try_from(serial.wrapping_sub(self.first))
            .ok()
            .and_then(|i| self.entries.get(i))
        else {
            return TimeWaitAnswer::Drop;
        };
        if segment.flags.contains(Flags::RST) {
            // RFC 1337: a RST must not assassinate TIME-WAIT.
            return TimeWaitAnswer::Drop;
        }
        if segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::ACK) {
            let newer_timestamp = match (segment.options.timestamps, state.ts_recent) {
                (Some(ts), Some(recent)) => {
                    let ahead = ts.tsval.wrapping_sub(recent);
                    ahead != 0 && ahead < 1 << 31
                }
                _ => false,
            };
            if newer_timestamp || segment.seq > state.rcv_nxt {
                return TimeWaitAnswer::Recycle;
            }
        }
        if segment.payload.is_empty()
            && !segment.flags.contains(Flags::FIN)
            && !segment.flags.contains(Flags::SYN)
        {
            // A pure ACK: answering could make two closed ends answer each other.
            return TimeWaitAnswer::Drop;
        }
        TimeWaitAnswer::Ack { seq: state.snd_nxt, ack: state.rcv_nxt }
    }

    /// Flows waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None waiting?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn pop(&mut self) -> Option<(u64, FourTuple)> {
        let (tuple, _) = self.entries.pop_front()?;
        let serial = self.first;
        self.first += 1;
        Some((serial, tuple))
    }
}
