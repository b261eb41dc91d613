//! The Internet checksum (RFC 1071) as a value that can be cut, joined and carried along.
//!
//! Every payload byte is summed once, in the pass that also copies it or first touches it; the
//! resulting [`Sum`] then serves the TCP checksum of the frame it arrived in, the DSS checksum
//! of the mapping it belongs to and the TCP checksum of the frame it leaves in. So a `Sum` is
//! not a checksum: it is the plain ones-complement sum, and it supports
//!
//! * [`Sum::combine`]: the sum of a concatenation;
//! * [`Sum::remove_prefix`], [`Sum::remove_suffix`]: the sum of a piece, so that a split needs
//!   to read only its shorter part;
//! * [`Sum::finish`]: the complement that goes into a header.
//!
//! # Invariants
//!
//! A `Sum` is taken from an even offset: byte 0 is the high byte of the first word and an odd
//! last byte is padded with a zero. A piece that sits at an odd offset contributes its sum with
//! the bytes swapped (RFC 1071 §2(B)); the methods above take the lengths they need for that.
//!
//! Ones-complement arithmetic has two zeros, 0x0000 and 0xffff. They are one number here:
//! `==` does not tell them apart, and neither does [`Sum::matches`].
//!
//! Long inputs run on AVX-512 or AVX2 where the CPU has them, detected once; `unsafe` is
//! confined to `simd`.

mod scalar;
mod simd;

/// Below this many bytes the scalar loop, inlined, beats a call through the dispatch table.
const SIMD_FROM_BYTES: usize = 64;

/// A partial ones-complement sum of 16-bit big-endian words. The default is the empty sum.
#[derive(Copy, Clone, Default)]
pub struct Sum(u16);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// A sum of native-endian words, accumulated without folding.
    #[inline]
    fn from_native(acc: u64) -> Self {
        Self(u16::from_be(fold(acc)))
    }

    /// A sum from its folded value, as [`Sum::fold`] returned it.
    #[inline]
    #[must_use]
    pub const fn from_folded(value: u16) -> Self {
        Self(value)
    }

    /// A checksum field read from a header, undone: the sum of what it covered.
    #[inline]
    #[must_use]
    pub const fn from_checksum(field: u16) -> Self {
        Self(!field)
    }

    /// The sum, folded to 16 bits and not complemented. Zero may come as 0x0000 or 0xffff.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        self.0
    }

    /// The complement of the sum: the value of the checksum field.
    #[inline]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.0
    }

    /// Whether `field` is a correct checksum for what this sum covers (the field itself
    /// excluded, or zero). Both representations of zero are accepted, as RFC 1071's receiver
    /// rule "the sum including the field is all ones" accepts them unless all of it is zero.
    #[inline]
    #[must_use]
    pub const fn matches(self, field: u16) -> bool {
        Self(add(self.0, field)).is_zero()
    }

    /// Whether the sum is congruent to zero: what a receiver finds when the data it summed
    /// includes a correct checksum field.
    #[inline]
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0 || self.0 == 0xffff
    }

    /// The sum of the bytes of `self` followed by those of `other`.
    #[inline]
    #[must_use]
    pub const fn combine(self, other: Self, self_len_is_odd: bool) -> Self {
        Self(add(self.0, other.at(self_len_is_odd).0))
    }

    /// The sum of what remains after the first `prefix_len` bytes, whose sum is `prefix`.
    #[inline]
    #[must_use]
    pub const fn remove_prefix(self, prefix: Self, prefix_len: usize) -> Self {
        Self(add(self.0, !prefix.0)).at_len(prefix_len)
    }

    /// The sum of the first `kept_len` bytes, given the sum of everything after them.
    #[inline]
    #[must_use]
    pub const fn remove_suffix(self, suffix: Self, kept_len: usize) -> Self {
        Self(add(self.0, !suffix.at_len(kept_len).0))
    }

    /// Adds a 16-bit field.
    #[inline]
    #[must_use]
    pub const fn add_u16(self, value: u16) -> Self {
        Self(add(self.0, value))
    }

    /// Adds a 32-bit field that starts at an even offset.
    #[inline]
    #[must_use]
    pub const fn add_u32(self, value: u32) -> Self {
        self.add_u64(value as u64)
    }

    /// Adds a 64-bit field that starts at an even offset.
    #[inline]
    #[must_use]
    pub const fn add_u64(self, value: u64) -> Self {
        Self(add(self.0, fold(value)))
    }

    /// Adds the sum of so many words that is not folded: fields of 16 bits, just added up.
    #[inline]
    #[must_use]
    pub const fn add_words(self, words: u64) -> Self {
        Self(fold(self.0 as u64 + words))
    }

    /// Adds bytes that start at an even offset.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        self.combine(sum(bytes), false)
    }

    /// This sum as it counts at an odd or even offset (RFC 1071 §2(B)).
    const fn at(self, odd: bool) -> Self {
        if odd { Self(self.0.swap_bytes()) } else { self }
    }

    const fn at_len(self, len: usize) -> Self {
        self.at(len % 2 == 1)
    }
}

/// Equality of numbers: 0x0000 and 0xffff are the same zero.
impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || (self.is_zero() && other.is_zero())
    }
}

impl Eq for Sum {}

impl core::fmt::Debug for Sum {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Sum({:#06x})", self.0)
    }
}

/// The sum of `bytes`.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> Sum {
    Sum::from_native(if bytes.len() < SIMD_FROM_BYTES {
        scalar::sum(bytes)
    } else {
        simd::best().sum(bytes)
    })
}

/// Copies `src` to `dst` and returns the sum of what was copied, in one pass.
///
/// # Panics
///
/// If the lengths differ.
#[inline]
pub fn copy_and_sum(dst: &mut [u8], src: &[u8]) -> Sum {
    assert_eq!(dst.len(), src.len(), "copy_and_sum: lengths differ");
    Sum::from_native(if src.len() < SIMD_FROM_BYTES {
        scalar::copy_and_sum(dst, src)
    } else {
        simd::best().copy_and_sum(dst, src)
    })
}

/// One of the ways to sum that this CPU knows. [`sum`] and [`copy_and_sum`] take the fastest;
/// this is for measuring the others beside it.
#[derive(Copy, Clone)]
pub struct Implementation(simd::Kernel);

impl core::fmt::Debug for Implementation {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Implementation {
    /// All of them, fastest first.
    pub fn all() -> impl Iterator<Item = Self> {
        simd::available().map(Self)
    }

    /// What it runs on.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// As [`sum`].
    #[must_use]
    pub fn sum(&self, bytes: &[u8]) -> Sum {
        Sum::from_native(self.0.sum(bytes))
    }

    /// As [`copy_and_sum`].
    ///
    /// # Panics
    ///
    /// If the lengths differ.
    pub fn copy_and_sum(&self, dst: &mut [u8], src: &[u8]) -> Sum {
        Sum::from_native(self.0.copy_and_sum(dst, src))
    }
}

/// The checksum field after one 16-bit word under it changed (RFC 1624 eqn. 3).
#[inline]
#[must_use]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// The checksum field after one 32-bit field at an even offset under it changed.
#[inline]
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    !add(add(!checksum, !fold(old as u64)), fold(new as u64))
}

/// Ones-complement addition: the carry out of the top comes back in at the bottom.
#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow: a carry leaves at most 0xfffe.
    sum + carry as u16
}

/// Folds four 16-bit lanes and their carries into one. Non-zero never folds to zero.
#[inline]
const fn fold(acc: u64) -> u16 {
    let acc = (acc & 0xffff_ffff) + (acc >> 32);
    let acc = (acc & 0xffff) + ((acc >> 16) & 0xffff) + (acc >> 32);
    let acc = (acc & 0xffff) + (acc >> 16);
    ((acc & 0xffff) + (acc >> 16)) as u16
}

#[cfg(test)]
mod tests;
