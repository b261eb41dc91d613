//! A range of payload bytes with its cached sum.

use std::ops::Range;

use crate::checksum::{Sum, copy_and_sum, sum};

use super::frame::Frame;

/// Payload bytes: a range of a [`Frame`]'s packet, or of a small heap copy.
///
/// The sum, once known, survives trimming: only the shorter part is read.
#[derive(Debug)]
pub struct Piece {
    store: Store,
    start: usize,
    end: usize,
    sum: Option<Sum>,
}

// Moved three times on its way to the application; one line more is one miss more each time.
const _: () = assert!(size_of::<Piece>() <= 64, "one cache line");

#[derive(Debug)]
enum Store {
    Frame(Frame),
    Heap(Vec<u8>),
}

impl Store {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Store::Frame(frame) => frame.packet(),
            Store::Heap(copy) => copy,
        }
    }
}

impl Piece {
    /// Bytes `range` of `frame.packet()`; `sum` is theirs, if known.
    ///
    /// # Panics
    /// If the range does not lie in the packet.
    #[inline]
    #[must_use]
    pub fn from_frame(frame: Frame, range: Range<usize>, sum: Option<Sum>) -> Self {
        assert!(
            range.start <= range.end && range.end <= frame.len(),
            "range outside the packet"
        );
        Self {
            store: Store::Frame(frame),
            start: range.start,
            end: range.end,
            sum,
        }
    }

    /// A heap copy of `bytes`; `sum` is theirs, if known.
    #[must_use]
    pub fn copied(bytes: &[u8], sum: Option<Sum>) -> Self {
        Self {
            store: Store::Heap(bytes.to_vec()),
            start: 0,
            end: bytes.len(),
            sum,
        }
    }

    /// The payload.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.store.bytes()[self.start..self.end]
    }

    /// Length of the payload.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The sum of the payload, read at most once.
    #[inline]
    pub fn sum(&mut self) -> Sum {
        match self.sum {
            Some(known) => known,
            None => {
                let computed = sum(self.bytes());
                self.sum = Some(computed);
                computed
            }
        }
    }

    /// The sum, if it is known without reading the payload.
    #[inline]
    #[must_use]
    pub fn cached_sum(&self) -> Option<Sum> {
        self.sum
    }

    /// Drops the first `n` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn trim_front(&mut self, n: usize) {
        let len = self.len();
        assert!(n <= len, "trim beyond the piece");
        if n == 0 {
            return;
        }
        self.sum = self.sum.map(|all| {
            let (gone, kept) = self.bytes().split_at(n);
            if gone.len() < kept.len() {
                all.remove_prefix(sum(gone), n)
            } else {
                sum(kept)
            }
        });
        self.start += n;
    }

    /// Drops the last `n` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn trim_back(&mut self, n: usize) {
        let len = self.len();
        assert!(n <= len, "trim beyond the piece");
        if n == 0 {
            return;
        }
        let at = len - n;
        self.sum = self.sum.map(|all| {
            let (kept, gone) = self.bytes().split_at(at);
            if gone.len() < kept.len() {
                all.remove_suffix(sum(gone), at)
            } else {
                sum(kept)
            }
        });
        self.end -= n;
    }

    /// Cuts at `at`: keeps the first `at` bytes and the frame, and returns the rest as a
    /// heap copy, summed while it is copied. Splits are rare (a mapping edge inside a
    /// frame, an application that takes half a packet): the copy is cheaper than sharing.
    ///
    /// # Panics
    /// If `at` exceeds the length.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Piece {
        let tail = &self.bytes()[at..];
        let mut copy = vec![0; tail.len()];
        let tail_sum = copy_and_sum(&mut copy, tail);
        let end = copy.len();
        if at < self.len() {
            self.sum = self.sum.map(|all| all.remove_suffix(tail_sum, at));
        }
        self.end = self.start + at;
        Piece {
            store: Store::Heap(copy),
            start: 0,
            end,
            sum: Some(tail_sum),
        }
    }

    /// Copybreak: moves the payload to the heap and sends the frame home. False if the
    /// payload was on the heap already.
    pub fn copy_out(&mut self) -> bool {
        if !self.pins_frame() {
            return false;
        }
        let mut copy = vec![0; self.len()];
        if self.sum.is_some() {
            copy.copy_from_slice(self.bytes());
        } else {
            self.sum = Some(copy_and_sum(&mut copy, self.bytes()));
        }
        (self.start, self.end) = (0, copy.len());
        self.store = Store::Heap(copy);
        true
    }

    /// Takes the bytes of `next`, which follow this piece's, if this piece is on the heap and
    /// stays within `limit` bytes. False if not: dust that waits is to be kept together.
    pub fn absorb(&mut self, next: &Piece, limit: usize) -> bool {
        let odd = self.len() % 2 == 1;
        let Store::Heap(copy) = &mut self.store else {
            return false;
        };
        if self.end != copy.len() || copy.len() + next.len() > limit {
            return false;
        }
        copy.extend_from_slice(next.bytes());
        self.end = copy.len();
        self.sum = match (self.sum, next.sum) {
            (Some(front), Some(back)) => Some(front.combine(back, odd)),
            _ => None,
        };
        true
    }

    /// Whether the piece holds a frame.
    #[inline]
    #[must_use]
    pub fn pins_frame(&self) -> bool {
        matches!(self.store, Store::Frame(_))
    }

    /// The frame, if the piece holds one.
    #[inline]
    #[must_use]
    pub fn frame(&self) -> Option<&Frame> {
        match &self.store {
            Store::Frame(frame) => Some(frame),
            Store::Heap(_) => None,
        }
    }

    /// Gives the frame up, with the payload's range in its packet: for a relay that
    /// sends the frame on.
    pub fn into_frame(self) -> Result<(Frame, Range<usize>), Piece> {
        match self.store {
            Store::Frame(frame) => Ok((frame, self.start..self.end)),
            Store::Heap(_) => Err(self),
        }
    }
}
