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

/// The last 0 to 7 bytes, as if zeros followed.
#[inline]
fn add_tail(acc: u64, tail: &[u8]) -> u64 {
    if tail.is_empty() {
        return acc;
    }
    let mut word = [0; 8];
    word[..tail.len()].copy_from_slice(tail);
    add_word(acc, word)
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
    dst_tail.copy_from_slice(tail);
    add_tail(acc, tail)
}
