//! The portable kernel: the reference for the others and the path for short inputs.
//!
//! Sums are of native-endian words; the caller swaps once at the end (RFC 1071 §2(B)).
//! 32-bit words accumulate in 64 bits, so no carry is lost before 2^32 of them (16 GiB).

/// Splits off the 8-byte words of `bytes`.
#[inline]
fn words(bytes: &[u8]) -> (&[[u8; 8]], &[u8]) {
    bytes.as_chunks::<8>()
}

#[inline]
fn add_word(acc: u64, word: [u8; 8]) -> u64 {
    let word = u64::from_ne_bytes(word);
    acc + (word & 0xffff_ffff) + (word >> 32)
}

/// The last 0 to 7 bytes, as if zeros followed. Fixed-size steps: a copy of variable length
/// would be a call to memcpy, which costs more than the rest of a header's sum.
#[inline]
fn add_tail(mut acc: u64, mut tail: &[u8]) -> u64 {
    if let Some((four, rest)) = tail.split_first_chunk() {
        acc += u64::from(u32::from_ne_bytes(*four));
        tail = rest;
    }
    if let Some((two, rest)) = tail.split_first_chunk() {
        acc += u64::from(u16::from_ne_bytes(*two));
        tail = rest;
    }
    if let [last] = tail {
        acc += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    acc
}

/// Copies 0 to 7 bytes, in the steps of [`add_tail`].
#[inline]
fn copy_tail(dst: &mut [u8], src: &[u8]) {
    let len = src.len();
    let mut at = 0;
    for step in [4, 2, 1] {
        if len & step != 0 {
            dst[at..at + step].copy_from_slice(&src[at..at + step]);
            at += step;
        }
    }
    debug_assert_eq!(at, len);
}

/// Unfolded native-endian sum of `bytes`.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (words, tail) = words(bytes);
    let acc = words.iter().fold(0, |acc, word| add_word(acc, *word));
    add_tail(acc, tail)
}

/// [`sum`] of `src`, which is copied to `dst` on the way. Lengths are equal.
#[inline]
pub(super) fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> u64 {
    let (words, tail) = words(src);
    let (dst_words, dst_tail) = dst.as_chunks_mut::<8>();
    let mut acc = 0;
    for (to, from) in dst_words.iter_mut().zip(words) {
        *to = *from;
        acc = add_word(acc, *from);
    }
    copy_tail(dst_tail, tail);
    add_tail(acc, tail)
}
