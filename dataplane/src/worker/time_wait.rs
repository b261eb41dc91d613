//! Closed flows that must still answer: TIME-WAIT without a connection.
//!
//! A first-in-first-out queue of compact entries, because every entry waits equally long
//! (one whose wait starts again after a stray FIN holds up those behind it). It is
//! preallocated and bounded: when full, the oldest entry is recycled early and counted, so
//! that short connections cannot grow memory. A flow that other workers hand over stays
//! routed while it waits: its strays must find the state here.

use std::collections::VecDeque;

use crate::tcp::TimeWait;
use crate::time::Instant;
use crate::wire::types::FourTuple;

/// Who was told to hand a flow over: one worker, or all others.
pub type Route = Option<u16>;

#[derive(Debug)]
struct Entry {
    tuple: FourTuple,
    state: TimeWait,
    route: Option<Route>,
}

/// A flow that left the queue.
#[derive(Copy, Clone, Debug)]
pub struct Left {
    /// Its serial number.
    pub serial: u64,
    /// The flow.
    pub tuple: FourTuple,
    /// Who still hands it over.
    pub route: Option<Route>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct TimeWaitQueue {
    entries: VecDeque<Entry>,
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
    pub fn push(
        &mut self,
        tuple: FourTuple,
        state: TimeWait,
        route: Option<Route>,
    ) -> (u64, Option<Left>) {
        let evicted = if self.entries.len() == self.entries_max {
            self.pop()
        } else {
            None
        };
        self.entries.push_back(Entry {
            tuple,
            state,
            route,
        });
        (self.first + self.entries.len() as u64 - 1, evicted)
    }

    /// Removes and returns the front flow if its time is over.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Left> {
        if self.entries.front()?.state.expires <= now {
            self.pop()
        } else {
            None
        }
    }

    /// When the front flow expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.state.expires)
    }

    /// The state of the flow `serial`.
    pub fn get_mut(&mut self, serial: u64) -> Option<&mut TimeWait> {
        self.entry(serial).map(|entry| &mut entry.state)
    }

    /// The flow `serial` begins anew: takes its route, so that its end is not told twice.
    pub fn take_route(&mut self, serial: u64) -> Option<Route> {
        self.entry(serial)?.route.take()
    }

    fn entry(&mut self, serial: u64) -> Option<&mut Entry> {
        let index = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
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

    fn pop(&mut self) -> Option<Left> {
        let Entry { tuple, route, .. } = self.entries.pop_front()?;
        let serial = self.first;
        self.first += 1;
        Some(Left {
            serial,
            tuple,
            route,
        })
    }
}
