//! Byte streams that both ends can compute: what a peer sends, and what it checks.
//!
//! Generating and checking must cost little beside the transfer that is measured, so
//! a stream is produced in blocks that stay in cache:
//!
//! - [`Content::Stamped`]: a pseudo-random block, repeated, with the stream position
//!   written over eight of every 512 bytes. Loss, repetition, reordering and shifts of
//!   any size show.
//! - [`Content::Pattern`]: the bytes of braid's `source` application.
//! - [`Content::Raw`]: one block again and again, for measurements: it costs the sender
//!   nothing to produce, and receivers only count it.

use braid_dataplane::app::pattern;
use sha2::{Digest, Sha256};

/// Bytes produced at a time.
const BLOCK_BYTES: usize = 1 << 18;
/// The block of [`Content::Raw`]: what one write(2) may take at once.
pub const RAW_BLOCK_BYTES: usize = 1 << 20;
/// Distance of position stamps.
const STAMP_EVERY_BYTES: usize = 512;
/// 2^64 divided by the golden ratio, made odd: multiples of it visit every value.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A finalizer in the manner of SplitMix64: neighbours become unrelated.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Which stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Stamped pseudo-random blocks, different for each seed.
    Stamped {
        /// Names the stream.
        seed: u64,
    },
    /// What `source` sends.
    Pattern,
    /// Nothing in particular.
    Raw,
}

/// A stream and a position in it.
#[derive(Clone, Debug)]
pub struct Stream {
    content: Content,
    block: Vec<u8>,
    /// Position of the next byte.
    position: u64,
    /// Offset of `position` in `block`.
    offset: usize,
}

impl Stream {
    /// At its first byte.
    #[must_use]
    pub fn new(content: Content) -> Self {
        let mut block = match content {
            Content::Stamped { .. } | Content::Pattern => vec![0; BLOCK_BYTES],
            Content::Raw => {
                let mut block = vec![0; RAW_BLOCK_BYTES];
                pattern::fill(0, &mut block);
                block
            }
        };
        if let Content::Stamped { seed } = content {
            for (word, i) in block.chunks_exact_mut(8).zip(1_u64..) {
                word.copy_from_slice(
                    &mix(mix(seed).wrapping_add(i.wrapping_mul(GOLDEN))).to_le_bytes(),
                );
            }
        }
        let mut stream = Self {
            content,
            block,
            position: 0,
            offset: 0,
        };
        stream.produce();
        stream
    }

    /// Makes `block` hold the bytes from `position` on.
    fn produce(&mut self) {
        match self.content {
            Content::Stamped { seed } => {
                let stamps = self.block.chunks_exact_mut(STAMP_EVERY_BYTES);
                for (chunk, at) in stamps.zip((self.position..).step_by(STAMP_EVERY_BYTES)) {
                    chunk[..8].copy_from_slice(&mix(at ^ seed).to_le_bytes());
                }
            }
            Content::Pattern => {
                pattern::fill(self.position, &mut self.block);
            }
            Content::Raw => {}
        }
        self.offset = 0;
    }

    /// Position of the next byte.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Some of the next bytes, at least one.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        &self.block[self.offset..]
    }

    /// Moves on by `n` bytes of [`Stream::peek`].
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.block.len() - self.offset, "advanced past peek()");
        self.offset += n;
        self.position += n as u64;
        if self.offset == self.block.len() {
            self.produce();
        }
    }

    /// Compares `data` with the next bytes and moves on behind them; `Err` is the
    /// position of the first byte that differs.
    pub fn verify(&mut self, mut data: &[u8]) -> Result<(), u64> {
        while !data.is_empty() {
            let n = data.len().min(self.peek().len());
            let expected = &self.peek()[..n];
            if expected != &data[..n] {
                let same = expected.iter().zip(data).take_while(|(a, b)| a == b);
                return Err(self.position + same.count() as u64);
            }
            self.advance(n);
            data = &data[n..];
        }
        Ok(())
    }

    /// SHA-256 of the first `bytes` bytes of `content`, in hexadecimal.
    #[must_use]
    pub fn sha256(content: Content, bytes: u64) -> String {
        let mut stream = Self::new(content);
        let mut hash = Sha256::new();
        while stream.position < bytes {
            let left = usize::try_from(bytes - stream.position).unwrap_or(usize::MAX);
            let n = left.min(stream.peek().len());
            hash.update(&stream.peek()[..n]);
            stream.advance(n);
        }
        hex(&hash.finalize())
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(content: Content, n: usize) -> Vec<u8> {
        let mut stream = Stream::new(content);
        let mut out = Vec::new();
        while out.len() < n {
            let take = stream.peek().len().min(n - out.len());
            out.extend_from_slice(&stream.peek()[..take]);
            stream.advance(take);
        }
        out
    }

    #[test]
    fn pattern_is_what_source_sends() {
        let bytes = first(Content::Pattern, BLOCK_BYTES * 2 + 100);
        assert_eq!(pattern::check(0, &bytes), Ok(()));
    }

    #[test]
    fn raw_content_is_one_large_block_again_and_again() {
        let mut stream = Stream::new(Content::Raw);
        let first = stream.peek().to_vec();
        assert_eq!(first.len(), RAW_BLOCK_BYTES);
        stream.advance(RAW_BLOCK_BYTES);
        assert_eq!((stream.position(), stream.peek()), (1 << 20, &first[..]));
    }

    #[test]
    fn verify_accepts_the_stream_in_odd_pieces() {
        let content = Content::Stamped { seed: 7 };
        let bytes = first(content, BLOCK_BYTES * 3);
        let mut checker = Stream::new(content);
        for piece in bytes.chunks(1447) {
            checker.verify(piece).unwrap();
        }
        assert_eq!(checker.position(), bytes.len() as u64);
    }

    #[test]
    fn verify_names_the_first_wrong_byte() {
        for content in [Content::Pattern, Content::Stamped { seed: 1 }] {
            let mut bytes = first(content, BLOCK_BYTES + 5000);
            let at = BLOCK_BYTES + 4321;
            bytes[at] ^= 1;
            let mut checker = Stream::new(content);
            let result = bytes
                .chunks(9000)
                .try_for_each(|piece| checker.verify(piece));
            assert_eq!(result, Err(at as u64), "{content:?}");
        }
    }

    #[test]
    fn exchanged_and_repeated_blocks_show() {
        let content = Content::Stamped { seed: 3 };
        let bytes = first(content, BLOCK_BYTES * 2);
        let (a, b) = bytes.split_at(BLOCK_BYTES);
        let mut checker = Stream::new(content);
        assert!(checker.verify(b).is_err());
        let mut checker = Stream::new(content);
        checker.verify(a).unwrap();
        assert_eq!(checker.verify(a), Err(BLOCK_BYTES as u64));
        assert_ne!(bytes, first(Content::Stamped { seed: 4 }, bytes.len()));
    }

    #[test]
    fn sha256_is_that_of_the_bytes() {
        let content = Content::Stamped { seed: 9 };
        let bytes = first(content, BLOCK_BYTES + 17);
        assert_eq!(
            Stream::sha256(content, bytes.len() as u64),
            hex(&Sha256::digest(&bytes))
        );
    }
}
