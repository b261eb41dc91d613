//! A hierarchical timing wheel: one timer per connection slot.
//!
//! Four levels of 64 slots over a tick of 2^16 ns (65.5 µs) reach 18 minutes; later
//! deadlines wait in the last slot and are re-filed when it comes round. Scheduling,
//! moving and cancelling are O(1) on index-linked lists, so neither a hundred
//! thousand idle connections nor a re-armed RTO per ACK costs a search. A timer never
//! fires early; it fires at most one tick late.

use crate::time::Instant;

const TICK_SHIFT: u32 = 16;
const LEVELS: usize = 4;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const NONE: u32 = u32::MAX;

#[derive(Copy, Clone, Debug)]
struct Node {
    next: u32,
    prev: u32,
    /// Slot number over all levels, or [`NONE`] when idle.
    slot: u32,
    /// Absolute tick.
    tick: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub struct TimerWheel {
    nodes: Vec<Node>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    /// Every timer with a tick at or before this one has been handed out.
    now_tick: u64,
}

impl TimerWheel {
    /// An empty wheel that starts at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            nodes: Vec::new(),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            now_tick: now.as_nanos() >> TICK_SHIFT,
        }
    }

    /// Sets, moves or (with `None`) cancels the timer `id`.
    pub fn schedule(&mut self, id: u32, deadline: Option<Instant>) {
        let index = id as usize;
        if index >= self.nodes.len() {
            if deadline.is_none() {
                return;
            }
            self.nodes.resize(
                index + 1,
                Node {
                    next: NONE,
                    prev: NONE,
                    slot: NONE,
                    tick: 0,
                },
            );
        }
        match deadline {
            None => self.unlink(id),
            Some(deadline) => {
                // Round up: never early. Past deadlines fire on the next advance.
                let tick = (deadline.as_nanos().saturating_add((1 << TICK_SHIFT) - 1)
                    >> TICK_SHIFT)
                    .max(self.now_tick + 1);
                if self.nodes[index].slot != NONE && self.nodes[index].tick == tick {
                    return;
                }
                self.unlink(id);
                self.nodes[index].tick = tick;
                self.link(id);
            }
        }
    }

    /// Moves the wheel to `now` and hands out every timer that is due.
    pub fn advance(&mut self, now: Instant, mut fire: impl FnMut(u32)) {
        let target = now.as_nanos() >> TICK_SHIFT;
        while let Some(tick) = self.next_tick().filter(|t| *t <= target) {
            self.now_tick = tick;
            // Cascade from the top so that what falls due now is in level 0.
            for level in (1..LEVELS).rev() {
                let shift = SLOT_BITS * u32::try_from(level).expect("four levels");
                if tick & ((1 << shift) - 1) == 0 {
                    self.refile(level, slot_of(tick, level));
                }
            }
            let slot = slot_of(tick, 0);
            let mut id = self.take(slot);
            while id != NONE {
                let next = self.nodes[id as usize].next;
                let node = &mut self.nodes[id as usize];
                node.slot = NONE;
                if node.tick <= tick {
                    fire(id);
                } else {
                    self.link(id);
                }
                id = next;
            }
        }
        self.now_tick = self.now_tick.max(target);
    }

    /// The earliest moment at which [`advance`](Self::advance) may have work: exact for
    /// timers within 4 ms, a cascade point before the deadline for later ones.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_tick()
            .map(|t| Instant::from_nanos(t << TICK_SHIFT))
    }

    /// Next tick with a due slot in level 0 or a cascade that has something to move.
    fn next_tick(&self) -> Option<u64> {
        let mut best: Option<u64> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * u32::try_from(level).expect("four levels");
            let position = self.now_tick >> shift;
            let here = u32::try_from(position & (SLOTS as u64 - 1)).expect("masked");
            // Slots after the present one, in order of time; the present one comes last.
            let rotated = self.occupied[level].rotate_right((here + 1) % 64);
            let ahead = u64::from(rotated.trailing_zeros()) + 1;
            let tick = (position + ahead) << shift;
            best = Some(best.map_or(tick, |b| b.min(tick)));
        }
        best
    }

    fn link(&mut self, id: u32) {
        let tick = self.nodes[id as usize].tick;
        let delta = tick.saturating_sub(self.now_tick);
        let mut level = 0;
        while level + 1 < LEVELS
            && delta >= 1 << (SLOT_BITS * (u32::try_from(level).expect("four levels") + 1))
        {
            level += 1;
        }
        let reach = 1u64 << (SLOT_BITS * u32::try_from(LEVELS).expect("four levels"));
        let filed = if delta >= reach {
            self.now_tick + reach - 1
        } else {
            tick
        };
        let slot = level * SLOTS + slot_of(filed, level);
        let head = self.heads[slot];
        let node = &mut self.nodes[id as usize];
        node.slot = u32::try_from(slot).expect("256 slots");
        node.prev = NONE;
        node.next = head;
        if head != NONE {
            self.nodes[head as usize].prev = id;
        }
        self.heads[slot] = id;
        self.occupied[level] |= 1 << (slot % SLOTS);
    }

    fn unlink(&mut self, id: u32) {
        let node = self.nodes[id as usize];
        if node.slot == NONE {
            return;
        }
        if node.prev == NONE {
            self.heads[node.slot as usize] = node.next;
            if node.next == NONE {
                self.occupied[node.slot as usize / SLOTS] &= !(1 << (node.slot as usize % SLOTS));
            }
        } else {
            self.nodes[node.prev as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        self.nodes[id as usize].slot = NONE;
    }

    fn take(&mut self, slot: usize) -> u32 {
        self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        std::mem::replace(&mut self.heads[slot], NONE)
    }

    fn refile(&mut self, level: usize, slot: usize) {
        let mut id = self.take(level * SLOTS + slot);
        while id != NONE {
            let next = self.nodes[id as usize].next;
            self.nodes[id as usize].slot = NONE;
            self.link(id);
            id = next;
        }
    }
}

fn slot_of(tick: u64, level: usize) -> usize {
    let shift = SLOT_BITS * u32::try_from(level).expect("four levels");
    usize::try_from((tick >> shift) & (SLOTS as u64 - 1)).expect("masked to 6 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn drain(wheel: &mut TimerWheel, now: Instant) -> Vec<u32> {
        let mut out = Vec::new();
        wheel.advance(now, |id| out.push(id));
        out.sort_unstable();
        out
    }

    #[test]
    fn fires_once_and_not_early() {
        let mut w = TimerWheel::new(Instant::from_millis(5));
        w.schedule(3, Some(Instant::from_millis(9)));
        assert!(drain(&mut w, Instant::from_micros(8_999)).is_empty());
        assert_eq!(drain(&mut w, Instant::from_micros(9_066)), [3]);
        assert!(drain(&mut w, Instant::from_millis(5_000)).is_empty());
        assert_eq!(w.next_deadline(), None);
    }

    #[test]
    fn a_moved_timer_keeps_only_its_last_deadline() {
        let mut w = TimerWheel::new(Instant::from_millis(0));
        w.schedule(0, Some(Instant::from_millis(2)));
        w.schedule(0, Some(Instant::from_millis(2_000)));
        assert!(drain(&mut w, Instant::from_millis(1_999)).is_empty());
        w.schedule(0, None);
        assert!(drain(&mut w, Instant::from_millis(9_000)).is_empty());
    }

    proptest! {
        /// Against the obvious model: a map from timer to deadline.
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec(
            (0u32..40, prop::option::weighted(0.8, 0u64..2_000_000_000_000), 0u64..3_000_000_000), 1..200)) {
            let mut now = 1_000_000_000u64;
            let mut wheel = TimerWheel::new(Instant::from_nanos(now));
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (id, deadline, step) in ops {
                let at = deadline.map(|d| now + d / (1 + u64::from(id) * 1000));
                wheel.schedule(id, at.map(Instant::from_nanos));
                match at { Some(at) => { model.insert(id, at); }, None => { model.remove(&id); } }
                now += step;
                let fired = drain(&mut wheel, Instant::from_nanos(now));
                for id in &fired {
                    let at = model.remove(id).expect("fired without being set");
                    prop_assert!(at <= now, "early: {at} at {now}");
                }
                for (id, at) in &model {
                    prop_assert!(at + (2 << TICK_SHIFT) > now, "late: {id} {at} at {now}");
                }
                if let Some(earliest) = model.values().min() {
                    let next = wheel.next_deadline().expect("timers are set");
                    prop_assert!(next.as_nanos() <= earliest + (1 << TICK_SHIFT));
                } else {
                    prop_assert!(wheel.next_deadline().is_none());
                }
            }
        }
    }
}
