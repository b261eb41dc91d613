//! Closed flows that must still answer: TIME-WAIT without a connection.
//!
//! A first-in-first-out queue of compact entries, because every entry waits equally long
//! (one whose wait starts again after a stray FIN holds up those behind it). It is preallocated and bounded: when full, the oldest entry is recycled early
//! and counted, so that short connections cannot grow memory.

use std::collections::VecDeque;

use crate::tcp::TimeWait;
use crate::time::Instant;
use crate::wire::types::FourTuple;

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
        Self {
            entries: VecDeque::with_capacity(entries_max),
            first: 0,
            entries_max,
        }
    }

    /// Adds a flow and returns its serial number, with the flow that had to go for it.
    pub fn push(&mut self, tuple: FourTuple, state: TimeWait) -> (u64, Option<(u64, FourTuple)>) {
        let evicted = if self.entries.len() == self.entries_max {
            self.pop()
        } else {
            None
        };
        self.entries.push_back((tuple, state));
        (self.first + self.entries.len() as u64 - 1, evicted)
    }

    /// Removes and returns the front flow if its time is over.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(u64, FourTuple)> {
        let (_, state) = self.entries.front()?;
        if state.expires <= now {
            self.pop()
        } else {
            None
        }
    }

    /// When the front flow expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.entries.front().map(|(_, state)| state.expires)
    }

    /// The state of the flow `serial`.
    pub fn get_mut(&mut self, serial: u64) -> Option<&mut TimeWait> {
        let index = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index).map(|(_, state)| state)
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
