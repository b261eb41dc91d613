//! The in-order byte stream an application reads.
//!
//! Urgent data (RFC 9293 §3.8.5) is part of it, in its place, as with SO_OOBINLINE on a socket:
//! URG and urgent pointer are neither reported nor obeyed (RFC 6093 §6 asks new applications not
//! to use them). Boxes clear and rewrite both, so a byte taken out of the stream by their word
//! would shift every mapping behind it (RFC 8684 §3.3.1 keeps urgent bytes in the data sequence
//! space). braid never sends URG.

use std::collections::VecDeque;

use crate::buf::{COALESCED_BYTES_MAX, COPYBREAK_BYTES, Chain, Piece};

/// In-order bytes of the peer, and the end of the stream once it is reached.
#[derive(Debug, Default)]
pub struct RecvStream {
    pieces: VecDeque<Piece>,
    len: usize,
    frames: usize,
    /// Pieces at the back that the copybreak has not looked at.
    fresh: usize,
    eof: bool,
    delivered: u64,
}

impl RecvStream {
    /// Nothing comes or goes at the moment: gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }

    /// The next contiguous bytes; empty only if nothing is queued.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        self.pieces.front().map_or(&[], Piece::bytes)
    }

    /// Drops `n` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, mut n: usize) {
        assert!(n <= self.len, "consume beyond the stream");
        self.len -= n;
        while n > 0 {
            let Some(front) = self.pieces.front_mut() else {
                break;
            };
            let len = front.len();
            if len > n {
                front.trim_front(n);
                break;
            }
            n -= len;
            self.frames -= usize::from(front.pins_frame());
            drop(self.pieces.pop_front());
        }
        self.fresh = self.fresh.min(self.pieces.len());
    }

    /// Takes the first piece, frame and all.
    pub fn pop_piece(&mut self) -> Option<Piece> {
        let piece = self.forget_front()?;
        self.len -= piece.len();
        Some(piece)
    }

    /// Unread bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is unread (the stream may go on).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether everything was read and nothing follows.
    #[must_use]
    pub fn eof(&self) -> bool {
        self.eof && self.len == 0
    }

    /// Bytes that were ever in order.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Frames that unread bytes pin.
    #[must_use]
    pub fn pinned_frames(&self) -> usize {
        self.frames
    }

    pub(crate) fn push(&mut self, chain: Chain) {
        self.len += chain.len();
        self.delivered += chain.len() as u64;
        self.frames += chain.pinned_frames();
        self.fresh += chain.iter().len();
        self.pieces.extend(chain);
    }

    pub(crate) fn set_eof(&mut self) {
        self.eof = true;
    }

    pub(crate) fn has_eof(&self) -> bool {
        self.eof
    }

    /// Copies small pieces that stayed unread, each looked at once. Returns how many.
    pub(crate) fn copybreak(&mut self) -> u64 {
        let from = self.pieces.len() - self.fresh;
        self.fresh = 0;
        let mut copied = 0;
        let mut kept = from;
        for at in from..self.pieces.len() {
            let mut piece = std::mem::replace(&mut self.pieces[at], Piece::copied(&[], None));
            if piece.len() < COPYBREAK_BYTES {
                let pinned = piece.pins_frame();
                copied += u64::from(pinned);
                self.frames -= usize::from(pinned);
                // A byte by itself would cost a hundred.
                if let Some(before) = kept.checked_sub(1).and_then(|i| self.pieces.get_mut(i))
                    && before.absorb(&piece, COALESCED_BYTES_MAX)
                {
                    continue;
                }
                piece.copy_out();
            }
            self.pieces[kept] = piece;
            kept += 1;
        }
        self.pieces.truncate(kept);
        copied
    }

    /// Copies everything unread, so that its frames go home. Returns how many pieces.
    pub(crate) fn release_frames(&mut self) -> u64 {
        if self.frames == 0 {
            // Under pressure this is asked of every connection again and again.
            return 0;
        }
        self.fresh = 0;
        let mut copied = 0;
        for piece in &mut self.pieces {
            if piece.copy_out() {
                self.frames -= 1;
                copied += 1;
            }
        }
        copied
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        (self.len, self.frames, self.fresh) = (0, 0, 0);
    }

    fn forget_front(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.frames -= usize::from(piece.pins_frame());
        self.fresh = self.fresh.min(self.pieces.len());
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::FramePool;

    fn framed(pool: &FramePool, bytes: &[u8]) -> Chain {
        let mut frame = pool.alloc().unwrap();
        frame.buffer_mut().unwrap()[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        Piece::from_frame(frame, 0..bytes.len(), None).into()
    }

    #[test]
    fn consumes_across_pieces_and_reports_the_end() {
        let mut rx = RecvStream::default();
        rx.push(Piece::copied(b"abc", None).into());
        rx.push(Piece::copied(b"defg", None).into());
        rx.set_eof();
        rx.consume(4);
        assert_eq!(rx.peek(), b"efg");
        assert!(!rx.eof());
        assert_eq!(rx.pop_piece().unwrap().bytes(), b"efg");
        assert!(rx.eof() && rx.is_empty());
        assert_eq!(rx.delivered(), 7);
    }

    #[test]
    fn dust_that_stays_unread_is_kept_together() {
        let pool = FramePool::heap(8, 2048);
        assert!(pool.adopt());
        let mut rx = RecvStream::default();
        let bytes: Vec<u8> = (0..10_000u32).map(|n| n.to_le_bytes()[0]).collect();
        for byte in &bytes {
            rx.push(framed(&pool, &[*byte]));
            rx.copybreak();
            assert_eq!((rx.pinned_frames(), pool.available()), (0, 8));
        }
        assert!(rx.pieces.len() <= 10_000 / COALESCED_BYTES_MAX + 1);
        let mut read = Vec::new();
        while !rx.is_empty() {
            let n = rx.peek().len().min(999);
            read.extend_from_slice(&rx.peek()[..n]);
            rx.consume(n);
        }
        assert!(read == bytes);
    }

    #[test]
    fn small_unread_pieces_give_their_frames_back() {
        let pool = FramePool::heap(8, 2048);
        assert!(pool.adopt());
        let mut rx = RecvStream::default();
        rx.push(framed(&pool, &[1; 10]));
        rx.push(framed(&pool, &[2; 1000]));
        assert_eq!(rx.pinned_frames(), 2);
        assert_eq!(rx.copybreak(), 1);
        assert_eq!(rx.copybreak(), 0, "each piece is looked at once");
        assert_eq!((rx.pinned_frames(), pool.available()), (1, 7));
        assert_eq!(rx.release_frames(), 1);
        assert_eq!((rx.pinned_frames(), pool.available()), (0, 8));
        assert_eq!(rx.peek(), &[1; 10]);
    }
}
