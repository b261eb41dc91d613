//! Pieces in sequence order.

use smallvec::SmallVec;

use crate::checksum::Sum;
use crate::lazy::Empty;

use super::piece::Piece;

/// Payloads shorter than this are copied to the heap when they have to wait: a one-byte segment
/// would pin a whole frame.
pub const COPYBREAK_BYTES: usize = 512;
/// Dust that waits is copied together in pieces of up to so many bytes: few enough to be copied
/// again when a piece is cut, enough to make what a piece costs beside them small.
pub const COALESCED_BYTES_MAX: usize = 4096;

/// The contiguous payload of one segment or superframe, or of several that were
/// received in order. Has no empty pieces.
#[derive(Debug, Default)]
pub struct Chain {
    pieces: SmallVec<[Piece; 1]>,
    len: usize,
}

impl Empty for Chain {
    const EMPTY: &'static Self = &Self {
        pieces: SmallVec::new_const(),
        len: 0,
    };
}

impl Chain {
    /// An empty chain.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty chain with room for `pieces`.
    #[must_use]
    pub fn with_capacity(pieces: usize) -> Self {
        Self {
            pieces: SmallVec::with_capacity(pieces),
            len: 0,
        }
    }

    /// Makes room for `pieces` more.
    pub fn reserve(&mut self, pieces: usize) {
        self.pieces.reserve(pieces);
    }

    /// Appends a piece; an empty one is dropped.
    #[inline]
    pub fn push(&mut self, piece: Piece) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push(piece);
        }
    }

    /// Appends bytes that will wait. Short pieces are copied together: each by itself would
    /// pin a frame, or cost several times its length.
    pub fn push_waiting(&mut self, piece: Piece) {
        if piece.len() < COPYBREAK_BYTES
            && let Some(last) = self.pieces.last_mut()
        {
            if last.len() < COPYBREAK_BYTES {
                last.copy_out();
            }
            if last.absorb(&piece, COALESCED_BYTES_MAX) {
                self.len += piece.len();
                return;
            }
        }
        self.push(piece);
    }

    /// Copies a short payload that will wait, so that it does not pin a frame. True if it did.
    pub fn copybreak(&mut self) -> bool {
        self.len < COPYBREAK_BYTES && self.copy_out() > 0
    }

    /// Moves all pieces of `other` to the end.
    pub fn append(&mut self, mut other: Chain) {
        self.len += other.len;
        self.pieces.append(&mut other.pieces);
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops the first `n` bytes. Pieces that are used up send their frames home.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn trim_front(&mut self, mut n: usize) {
        assert!(n <= self.len, "trim beyond the chain");
        self.len -= n;
        let whole = self
            .pieces
            .iter()
            .take_while(|piece| {
                let fits = piece.len() <= n;
                n -= if fits { piece.len() } else { 0 };
                fits
            })
            .count();
        self.pieces.drain(..whole);
        if let Some(first) = self.pieces.first_mut() {
            first.trim_front(n);
        }
    }

    /// Drops the last `n` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn trim_back(&mut self, mut n: usize) {
        assert!(n <= self.len, "trim beyond the chain");
        self.len -= n;
        while let Some(last) = self.pieces.last_mut() {
            if last.len() > n {
                last.trim_back(n);
                break;
            }
            n -= last.len();
            self.pieces.pop();
        }
    }

    /// Keeps the first `at` bytes and returns the rest. A piece that lies across the cut
    /// is split (see [`Piece::split_off`]).
    ///
    /// # Panics
    /// If `at` exceeds the length.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Chain {
        assert!(at <= self.len, "split beyond the chain");
        let mut before = 0;
        let mut first = 0; // of the pieces that are not wholly in front of the cut
        while first < self.pieces.len() && before + self.pieces[first].len() <= at {
            before += self.pieces[first].len();
            first += 1;
        }
        let mut tail = Chain::new();
        let mut rest = self.pieces.drain(first..);
        let cut = (at > before)
            .then(|| rest.next())
            .flatten()
            .map(|mut piece| {
                tail.push(piece.split_off(at - before));
                piece
            });
        for piece in rest {
            tail.push(piece);
        }
        self.pieces.extend(cut);
        self.len = at;
        tail
    }

    /// Takes the first piece.
    pub fn pop_front(&mut self) -> Option<Piece> {
        if self.pieces.is_empty() {
            return None;
        }
        let first = self.pieces.remove(0);
        self.len -= first.len();
        Some(first)
    }

    /// The pieces in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Piece> {
        self.pieces.iter()
    }

    /// The sum of all bytes; pieces remember theirs.
    pub fn sum(&mut self) -> Sum {
        let (all, _) = self
            .pieces
            .iter_mut()
            .fold((Sum::ZERO, 0), |(all, len), piece| {
                (all.combine(piece.sum(), len % 2 == 1), len + piece.len())
            });
        all
    }

    /// Copybreak for every piece: sends the frames home. Returns how many bytes were
    /// copied.
    pub fn copy_out(&mut self) -> usize {
        let copy = |piece: &mut Piece| if piece.copy_out() { piece.len() } else { 0 };
        self.pieces.iter_mut().map(copy).sum()
    }

    /// Frames that the chain holds.
    #[must_use]
    pub fn pinned_frames(&self) -> usize {
        self.pieces
            .iter()
            .filter(|piece| piece.pins_frame())
            .count()
    }
}

impl From<Piece> for Chain {
    fn from(piece: Piece) -> Self {
        let mut chain = Self::new();
        chain.push(piece);
        chain
    }
}

impl IntoIterator for Chain {
    type Item = Piece;
    type IntoIter = smallvec::IntoIter<[Piece; 1]>;
    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter()
    }
}

impl<'a> IntoIterator for &'a Chain {
    type Item = &'a Piece;
    type IntoIter = std::slice::Iter<'a, Piece>;
    fn into_iter(self) -> Self::IntoIter {
        self.pieces.iter()
    }
}
