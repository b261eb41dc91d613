//! A bitmap over a power-of-two ring, indexed by ever-growing entry numbers.
//!
//! Runs of equal bits are skipped a word at a time, so a peer that describes the same range
//! again and again costs `n / 64` steps per range, not `n`.

/// One bit per ring slot. Numbers wrap with the ring's mask. Empty it has no ring: nothing may
/// be asked of it but what lies in an empty range.
#[derive(Clone, Default, Debug)]
pub(super) struct RingBits {
    words: Vec<u64>,
}

impl RingBits {
    pub(super) const EMPTY: Self = Self { words: Vec::new() };

    /// For a ring of `slots`, a power of two; a small ring leaves a part of the bits unused.
    pub(super) fn for_slots(slots: u32) -> Self {
        Self::new(slots.max(64))
    }

    /// `slots` is a power of two and at least 64.
    pub(super) fn new(slots: u32) -> Self {
        debug_assert!(slots.is_power_of_two() && slots >= 64);
        Self {
            words: vec![0; slots as usize / 64],
        }
    }

    fn place(&self, number: u32) -> (usize, u32) {
        // A power of two, and the ring's size in bits fits u32.
        let word = (number / 64) as usize & (self.words.len() - 1);
        (word, number % 64)
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> bool {
        let (word, bit) = self.place(number);
        self.words[word] >> bit & 1 != 0
    }

    #[inline]
    pub(super) fn set(&mut self, number: u32) {
        let (word, bit) = self.place(number);
        self.words[word] |= 1 << bit;
    }

    #[inline]
    pub(super) fn clear(&mut self, number: u32) {
        let (word, bit) = self.place(number);
        self.words[word] &= !(1 << bit);
    }

    fn next(&self, from: u32, to: u32, flip: u64) -> Option<u32> {
        let mut number = from;
        loop {
            let left = to.wrapping_sub(number);
            if left == 0 {
                return None;
            }
            let (word, bit) = self.place(number);
            let rest = (self.words[word] ^ flip) >> bit;
            if rest != 0 {
                let step = rest.trailing_zeros();
                return (step < left).then(|| number.wrapping_add(step));
            }
            number = number.wrapping_add((64 - bit).min(left));
        }
    }

    /// The first set bit in `from..to`.
    pub(super) fn next_set(&self, from: u32, to: u32) -> Option<u32> {
        self.next(from, to, 0)
    }

    /// The first clear bit in `from..to`.
    pub(super) fn next_clear(&self, from: u32, to: u32) -> Option<u32> {
        self.next(from, to, u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_bits_across_the_wrap_of_ring_and_number() {
        let mut bits = RingBits::new(128);
        let base = u32::MAX - 70;
        for offset in [0u32, 63, 64, 100] {
            bits.set(base.wrapping_add(offset));
        }
        let to = base.wrapping_add(128);
        let mut found = vec![];
        let mut from = base;
        while let Some(number) = bits.next_set(from, to) {
            found.push(number.wrapping_sub(base));
            from = number.wrapping_add(1);
        }
        assert_eq!(found, [0, 63, 64, 100]);
        assert_eq!(
            bits.next_set(base.wrapping_add(65), base.wrapping_add(100)),
            None
        );
        assert_eq!(bits.next_clear(base, to), Some(base.wrapping_add(1)));
        bits.clear(base);
        assert!(!bits.get(base) && bits.get(base.wrapping_add(100)));
    }
}
