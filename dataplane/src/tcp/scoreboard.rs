//! What is sent and not yet cumulatively acknowledged: one entry per segment.
//!
//! A ring of fixed-size entries in sequence order; two bitmaps say which are SACKed and which
//! are lost; a list threaded through the rest keeps them in order of transmission, which is what
//! RACK walks. So a segment is in exactly one of three sets: *in flight* (listed), *SACKed*, or
//! *lost* (waiting to be sent again).
//!
//! Cost per ACK: each entry is SACKed, marked lost and removed at most once per transmission;
//! the rest is a binary search per SACK block and skipping words of the bitmap. The ring begins
//! with the first segment, grows by doubling up to its limit, and stays until the owner says that
//! the connection idles, so a steady state does not allocate.

use super::bits::RingBits;
use super::segment::MapRef;
use crate::lazy::Empty;
use crate::time::Instant;
use crate::wire::tcp::SeqNumber;

/// One segment as sent.
#[derive(Copy, Clone, Debug)]
pub(super) struct TxSeg {
    /// The mapping declared with it, repeated on every retransmission.
    pub(super) map: MapRef,
    /// Data sequence number (or stream offset) of the first byte.
    pub(super) dsn: u64,
    /// Last transmission.
    pub(super) sent_at: Instant,
    pub(super) seq: SeqNumber,
    /// Sequence space taken: payload, or 1 for a FIN.
    pub(super) len: u32,
    /// Neighbours in transmission order; meaningful while in flight.
    older: u32,
    newer: u32,
    /// Transmissions so far, saturating.
    pub(super) transmissions: u8,
    pub(super) fin: bool,
}

const _: () = assert!(size_of::<TxSeg>() <= 64, "one entry per cache line");

impl TxSeg {
    pub(super) fn end(&self) -> SeqNumber {
        self.seq + self.len
    }

    /// Bytes that count as in flight: a FIN is no load.
    pub(super) fn payload_len(&self) -> u32 {
        if self.fin { 0 } else { self.len }
    }

    pub(super) fn retransmitted(&self) -> bool {
        self.transmissions > 1
    }
}

/// Segments that were acknowledged together: see [`Scoreboard::pop_run`].
#[derive(Copy, Clone, Debug)]
pub(super) struct Run {
    pub(super) segments: u32,
    pub(super) bytes: u32,
    pub(super) first: TxSeg,
    pub(super) last: TxSeg,
}

/// Ring size to begin with: what a small answer takes. A busy connection has outgrown it after
/// an initial window.
const SLOTS_INITIAL: u32 = 8;

/// What slots hold that were never used.
const FILLER: TxSeg = TxSeg {
    map: MapRef {
        dsn: 0,
        ssn: 0,
        len: 0,
        csum: 0,
    },
    dsn: 0,
    sent_at: Instant::ZERO,
    seq: SeqNumber(0),
    len: 0,
    older: 0,
    newer: 0,
    transmissions: 0,
    fin: false,
};

/// The segments between SND.UNA and SND.NXT.
#[derive(Clone, Default, Debug)]
pub(super) struct Scoreboard {
    slots: Vec<TxSeg>,
    sacked: RingBits,
    lost: RingBits,
    /// Number of the first entry; entries are `head..tail`, wrapping.
    head: u32,
    tail: u32,
    oldest: u32,
    newest: u32,
    flight_segments: u32,
    flight_bytes: u32,
    sacked_segments: u32,
    lost_segments: u32,
    /// No entry before this one is lost.
    lost_hint: u32,
}

impl Empty for Scoreboard {
    const EMPTY: &'static Self = &Self {
        slots: Vec::new(),
        sacked: RingBits::EMPTY,
        lost: RingBits::EMPTY,
        head: 0,
        tail: 0,
        oldest: 0,
        newest: 0,
        flight_segments: 0,
        flight_bytes: 0,
        sacked_segments: 0,
        lost_segments: 0,
        lost_hint: 0,
    };
}

impl Scoreboard {
    pub(super) fn len(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Entries that may still be added; one is held back for the FIN.
    pub(super) fn room(&self, limit: u32) -> u32 {
        (limit - 1).saturating_sub(self.len())
    }

    /// Bytes sent, not SACKed and not deemed lost: the pipe.
    pub(super) fn in_flight(&self) -> u32 {
        self.flight_bytes
    }

    pub(super) fn flight_segments(&self) -> u32 {
        self.flight_segments
    }

    pub(super) fn sacked_segments(&self) -> u32 {
        self.sacked_segments
    }

    pub(super) fn lost_segments(&self) -> u32 {
        self.lost_segments
    }

    fn slot(&self, number: u32) -> usize {
        // The ring's size is a power of two and fits u32.
        number as usize & (self.slots.len() - 1)
    }

    pub(super) fn get(&self, number: u32) -> &TxSeg {
        &self.slots[self.slot(number)]
    }

    fn get_mut(&mut self, number: u32) -> &mut TxSeg {
        let slot = self.slot(number);
        &mut self.slots[slot]
    }

    pub(super) fn front(&self) -> Option<&TxSeg> {
        (!self.is_empty()).then(|| self.get(self.head))
    }

    pub(super) fn back(&self) -> Option<&TxSeg> {
        (!self.is_empty()).then(|| self.get(self.tail.wrapping_sub(1)))
    }

    pub(super) fn back_number(&self) -> u32 {
        self.tail.wrapping_sub(1)
    }

    pub(super) fn front_is_sacked(&self) -> bool {
        !self.is_empty() && self.sacked.get(self.head)
    }

    #[cfg(test)]
    pub(super) fn is_lost(&self, number: u32) -> bool {
        self.lost.get(number)
    }

    /// All entries in sequence order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &TxSeg> + '_ {
        (0..self.len()).map(|i| self.get(self.head.wrapping_add(i)))
    }

    // ---- transmission ----

    /// A new segment was sent.
    pub(super) fn push(
        &mut self,
        now: Instant,
        seq: SeqNumber,
        len: u32,
        dsn: u64,
        map: MapRef,
        fin: bool,
    ) {
        debug_assert!(self.back().is_none_or(|last| last.end() == seq));
        if self.len() as usize == self.slots.len() {
            self.grow();
        }
        let number = self.tail;
        self.tail = self.tail.wrapping_add(1);
        if self.lost_segments == 0 {
            self.lost_hint = number;
        }
        // Who leaves the ring leaves no mark.
        debug_assert!(!self.sacked.get(number) && !self.lost.get(number));
        let seg = TxSeg {
            map,
            dsn,
            sent_at: now,
            seq,
            len,
            older: 0,
            newer: 0,
            transmissions: 1,
            fin,
        };
        *self.get_mut(number) = seg;
        self.list_newest(number);
    }

    /// New data was sent, in segments of `mss` bytes and a last one of what is left: `push` of
    /// each. Returns how many.
    pub(super) fn push_run(
        &mut self,
        now: Instant,
        first: SeqNumber,
        len: u32,
        mss: u32,
        dsn: u64,
        map: MapRef,
    ) -> u32 {
        debug_assert!(mss > 0 && self.back().is_none_or(|last| last.end() == first));
        let segments = len.div_ceil(mss);
        while self.slots.len() < (self.len() + segments) as usize {
            self.grow();
        }
        if segments == 0 {
            return 0;
        }
        let (start, last) = (self.tail, self.tail.wrapping_add(segments - 1));
        if self.flight_segments == 0 {
            self.oldest = start;
        } else {
            let newest = self.newest;
            self.get_mut(newest).newer = start;
        }
        let mut older = self.newest;
        let mut done = 0;
        for i in 0..segments {
            let number = start.wrapping_add(i);
            debug_assert!(!self.sacked.get(number) && !self.lost.get(number));
            *self.get_mut(number) = TxSeg {
                map,
                dsn: dsn.wrapping_add(done.into()),
                sent_at: now,
                seq: first + done,
                len: mss.min(len - done),
                older,
                // Of the last one it means nothing.
                newer: number.wrapping_add(1),
                transmissions: 1,
                fin: false,
            };
            older = number;
            done += mss;
        }
        self.tail = last.wrapping_add(1);
        if self.lost_segments == 0 {
            self.lost_hint = last;
        }
        self.newest = last;
        self.flight_segments += segments;
        self.flight_bytes += len;
        segments
    }

    /// A lost segment, or the newest one as a probe, was sent again.
    pub(super) fn resent(&mut self, number: u32, now: Instant) {
        if self.lost.get(number) {
            self.lost.clear(number);
            self.lost_segments -= 1;
        } else if self.sacked.get(number) {
            return;
        } else {
            self.unlist(number);
        }
        let seg = self.get_mut(number);
        seg.sent_at = now;
        seg.transmissions = seg.transmissions.saturating_add(1);
        self.list_newest(number);
    }

    #[inline]
    fn list_newest(&mut self, number: u32) {
        if self.flight_segments == 0 {
            self.oldest = number;
        } else {
            let newest = self.newest;
            self.get_mut(newest).newer = number;
            self.get_mut(number).older = newest;
        }
        self.newest = number;
        self.flight_segments += 1;
        self.flight_bytes += self.get(number).payload_len();
    }

    fn list_oldest(&mut self, number: u32) {
        if self.flight_segments == 0 {
            return self.list_newest(number);
        }
        let oldest = self.oldest;
        self.get_mut(oldest).older = number;
        self.get_mut(number).newer = oldest;
        self.oldest = number;
        self.flight_segments += 1;
        self.flight_bytes += self.get(number).payload_len();
    }

    fn unlist(&mut self, number: u32) {
        let seg = self.get(number);
        let (older, newer, bytes) = (seg.older, seg.newer, seg.payload_len());
        let (first, last) = (number == self.oldest, number == self.newest);
        if first {
            self.oldest = newer;
        } else {
            self.get_mut(older).newer = newer;
        }
        if last {
            self.newest = older;
        } else {
            self.get_mut(newer).older = older;
        }
        self.flight_segments -= 1;
        self.flight_bytes -= bytes;
    }

    /// The segment in flight that was sent longest ago.
    pub(super) fn oldest_in_flight(&self) -> Option<u32> {
        (self.flight_segments > 0).then_some(self.oldest)
    }

    // ---- acknowledgement ----

    /// Removes the first segments as far as `una` covers them and there is nothing to say about
    /// any: sent once, one after the other, with nothing SACKed or lost in the whole ring. That
    /// is what nearly every ACK finds, and takes no step but to the next.
    pub(super) fn pop_run(&mut self, una: SeqNumber) -> Option<Run> {
        let eventful = self.sacked_segments > 0 || self.lost_segments > 0;
        if eventful || self.is_empty() || self.oldest != self.head {
            return None;
        }
        let (mut number, mut bytes) = (self.head, 0);
        let mut last = None;
        while number != self.tail {
            let seg = self.get(number);
            if seg.end() > una || seg.transmissions != 1 || seg.fin {
                break;
            }
            bytes += seg.len;
            last = Some(number);
            number = number.wrapping_add(1);
            if seg.newer != number {
                break;
            }
        }
        let last = *self.get(last?);
        let run = Run {
            segments: number.wrapping_sub(self.head),
            bytes,
            first: *self.get(self.head),
            last,
        };
        self.flight_segments -= run.segments;
        self.flight_bytes -= bytes;
        self.oldest = last.newer;
        if self.lost_hint.wrapping_sub(self.head) < run.segments {
            self.lost_hint = number;
        }
        self.head = number;
        Some(run)
    }

    /// Removes what `una` covers; `gone` sees each segment and whether it had been SACKed.
    pub(super) fn pop_acked(&mut self, una: SeqNumber, mut gone: impl FnMut(&TxSeg, bool)) {
        while self.head != self.tail {
            let number = self.head;
            let slot = self.slot(number);
            if self.slots[slot].end() > una {
                break;
            }
            // As a rule neither is any segment, and the one sent first is acknowledged first.
            let sacked = self.sacked_segments > 0 && self.sacked.get(number);
            let lost = self.lost_segments > 0 && self.lost.get(number);
            if sacked {
                self.sacked.clear(number);
                self.sacked_segments -= 1;
            } else if lost {
                self.lost.clear(number);
                self.lost_segments -= 1;
            } else {
                self.unlist(number);
            }
            self.head = number.wrapping_add(1);
            if self.lost_hint == number {
                self.lost_hint = self.head;
            }
            gone(&self.slots[slot], sacked);
        }
    }

    /// Number of the first entry that ends after `seq`.
    fn locate(&self, seq: SeqNumber) -> u32 {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(self.head.wrapping_add(middle)).end() <= seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.head.wrapping_add(low)
    }

    /// The entry that begins at `seq`.
    pub(super) fn find(&self, seq: SeqNumber) -> Option<u32> {
        let number = self.locate(seq);
        (number != self.tail && self.get(number).seq == seq).then_some(number)
    }

    /// Marks what `left..right` covers whole; `newly` sees each segment that was not SACKed yet.
    pub(super) fn sack(
        &mut self,
        left: SeqNumber,
        right: SeqNumber,
        mut newly: impl FnMut(&TxSeg),
    ) {
        if self.is_empty() {
            return;
        }
        let mut from = self.locate(left);
        if from != self.tail && self.get(from).seq < left {
            from = from.wrapping_add(1);
        }
        // The first entry that ends after `right` is not covered.
        let to = self.locate(right);
        if to.wrapping_sub(self.head) < from.wrapping_sub(self.head) {
            return;
        }
        while let Some(number) = self.sacked.next_clear(from, to) {
            if self.lost.get(number) {
                self.lost.clear(number);
                self.lost_segments -= 1;
            } else {
                self.unlist(number);
            }
            self.sacked.set(number);
            self.sacked_segments += 1;
            newly(self.get(number));
            from = number.wrapping_add(1);
        }
    }

    // ---- loss ----

    /// A segment in flight is deemed lost.
    pub(super) fn mark_lost(&mut self, number: u32) {
        if self.lost.get(number) || self.sacked.get(number) {
            return;
        }
        self.unlist(number);
        self.lost.set(number);
        if self.lost_segments == 0
            || number.wrapping_sub(self.head) < self.lost_hint.wrapping_sub(self.head)
        {
            self.lost_hint = number;
        }
        self.lost_segments += 1;
    }

    /// Marks the first segment lost, if it is in flight.
    pub(super) fn mark_front_lost(&mut self) -> bool {
        if self.is_empty() || self.lost.get(self.head) || self.sacked.get(self.head) {
            return false;
        }
        self.mark_lost(self.head);
        true
    }

    /// The first lost segment in sequence order.
    pub(super) fn first_lost(&mut self) -> Option<u32> {
        debug_assert!(self.lost_segments <= self.len());
        if self.lost_segments == 0 {
            return None;
        }
        let found = self.lost.next_set(self.lost_hint, self.tail);
        if let Some(number) = found {
            self.lost_hint = number;
        }
        found
    }

    /// Only the last segment is lost.
    pub(super) fn only_last_is_lost(&self) -> bool {
        self.lost_segments == 1 && self.lost.get(self.back_number())
    }

    /// The peer took back what it had SACKed (RFC 2018 §8): trust none of it.
    pub(super) fn forget_sacks(&mut self) {
        let mut from = self.head;
        while let Some(number) = self.sacked.next_set(from, self.tail) {
            self.sacked.clear(number);
            self.sacked_segments -= 1;
            self.list_oldest(number);
            from = number.wrapping_add(1);
        }
    }

    /// The losses were imagined: what was not sent again is in flight after all.
    pub(super) fn unmark_lost(&mut self) {
        let mut number = self.tail;
        while number != self.head && self.lost_segments > 0 {
            number = number.wrapping_sub(1);
            if self.lost.get(number) {
                self.lost.clear(number);
                self.lost_segments -= 1;
                self.list_oldest(number);
            }
        }
    }

    // ---- shape ----

    fn grow(&mut self) {
        let slots = u32::try_from(self.slots.len() * 2).expect("bounded by limit");
        let slots = slots.max(SLOTS_INITIAL);
        let mut next = vec![FILLER; slots as usize];
        let (mut sacked, mut lost) = (RingBits::for_slots(slots), RingBits::for_slots(slots));
        for i in 0..self.len() {
            let number = self.head.wrapping_add(i);
            next[number as usize & (slots as usize - 1)] = *self.get(number);
            if self.sacked.get(number) {
                sacked.set(number);
            }
            if self.lost.get(number) {
                lost.set(number);
            }
        }
        (self.slots, self.sacked, self.lost) = (next, sacked, lost);
    }

    /// The segment size shrank: cuts longer entries. With `lose`, those were too big to arrive
    /// and are marked lost. Rare, so it rebuilds. Returns whether anything was cut.
    pub(super) fn resegment(&mut self, mss: u32, lose: bool) -> bool {
        debug_assert!(mss > 0);
        if !self.iter().any(|seg| seg.len > mss) {
            return false;
        }
        // In transmission order for the list, in sequence order for the ring: rebuild the ring
        // and re-thread by old order.
        let old = core::mem::take(self);
        let mut first_piece = Vec::with_capacity(old.len() as usize + 1);
        for i in 0..old.len() {
            let number = old.head.wrapping_add(i);
            let seg = *old.get(number);
            first_piece.push(self.tail);
            let mut done = 0;
            while done < seg.len {
                let len = (seg.len - done).min(mss);
                let at = self.tail;
                self.push(
                    seg.sent_at,
                    seg.seq + done,
                    len,
                    seg.dsn.wrapping_add(u64::from(done)),
                    seg.map,
                    seg.fin,
                );
                self.get_mut(at).transmissions = seg.transmissions;
                self.unlist(at);
                done += len;
            }
        }
        first_piece.push(self.tail);
        let pieces = |i: u32| first_piece[i as usize]..first_piece[i as usize + 1];
        let mut oldest = old.oldest_in_flight();
        let mut left = old.flight_segments;
        while let Some(number) = oldest {
            let cut = old.get(number).len > mss;
            for piece in pieces(number.wrapping_sub(old.head)) {
                self.list_newest(piece);
                if cut && lose {
                    self.mark_lost(piece);
                }
            }
            left -= 1;
            oldest = (left > 0).then(|| old.get(number).newer);
        }
        for i in 0..old.len() {
            let number = old.head.wrapping_add(i);
            for piece in pieces(i) {
                if old.sacked.get(number) {
                    self.sacked.set(piece);
                    self.sacked_segments += 1;
                } else if old.lost.get(number) {
                    self.list_newest(piece);
                    self.mark_lost(piece);
                }
            }
        }
        true
    }

    /// Sequence space held, for assertions.
    pub(super) fn span(&self) -> u32 {
        match (self.front(), self.back()) {
            (Some(first), Some(last)) => last.end() - first.seq,
            _ => 0,
        }
    }
}

#[cfg(test)]
#[path = "scoreboard_tests.rs"]
mod tests;
