//! Wide kernels and the choice between them.
//!
//! Each 64-bit lane accumulates the two 32-bit halves of the words it sees, so it cannot
//! overflow below 2^31 vectors. A [`Kernel`] exists only for instruction sets that the CPU has
//! been seen to support; that is the invariant every `unsafe` here rests on.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use super::scalar;

/// One implementation of both operations, runnable on this CPU.
#[derive(Copy, Clone)]
pub(super) struct Kernel {
    /// What it runs on.
    pub(super) name: &'static str,
    /// SAFETY contract: the CPU supports what `name` says.
    sum: unsafe fn(&[u8]) -> u64,
    /// SAFETY contract: as `sum`, and the lengths are equal.
    copy_and_sum: unsafe fn(&mut [u8], &[u8]) -> u64,
}

impl Kernel {
    const SCALAR: Self = Self {
        name: "scalar",
        sum: scalar::sum,
        copy_and_sum: scalar::copy_and_sum,
    };

    /// Unfolded native-endian sum of `bytes`.
    #[inline]
    pub(super) fn sum(self, bytes: &[u8]) -> u64 {
        // SAFETY: a Kernel is only built after its instruction set was detected.
        unsafe { (self.sum)(bytes) }
    }

    /// [`Kernel::sum`] of `src`, which is copied to `dst` on the way.
    #[inline]
    pub(super) fn copy_and_sum(self, dst: &mut [u8], src: &[u8]) -> u64 {
        assert_eq!(dst.len(), src.len());
        // SAFETY: a Kernel is only built after its instruction set was detected; the lengths
        // were compared above.
        unsafe { (self.copy_and_sum)(dst, src) }
    }
}

/// The fastest kernel of this CPU, chosen at first use.
#[inline]
pub(super) fn best() -> Kernel {
    static BEST: OnceLock<Kernel> = OnceLock::new();
    *BEST.get_or_init(|| available().next().unwrap_or(Kernel::SCALAR))
}

/// Every kernel that runs on this CPU, fastest first.
pub(super) fn available() -> impl Iterator<Item = Kernel> {
    #[cfg(target_arch = "x86_64")]
    let wide = [x86::avx512(), x86::avx2()];
    #[cfg(not(target_arch = "x86_64"))]
    let wide: [Option<Kernel>; 0] = [];
    wide.into_iter().flatten().chain([Kernel::SCALAR])
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    use super::Kernel;
    use crate::checksum::scalar;

    /// The AVX-512 kernel, if this CPU has F and BW.
    pub(super) fn avx512() -> Option<Kernel> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        has.then_some(Kernel {
            name: "avx512",
            sum: sum_avx512,
            copy_and_sum: copy_and_sum_avx512,
        })
    }

    /// The AVX2 kernel, if this CPU has it.
    pub(super) fn avx2() -> Option<Kernel> {
        is_x86_feature_detected!("avx2").then_some(Kernel {
            name: "avx2",
            sum: sum_avx2,
            copy_and_sum: copy_and_sum_avx2,
        })
    }

    /// Adds the 32-bit halves of each 64-bit lane of `v` to that lane of `acc`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add_256(acc: __m256i, v: __m256i) -> __m256i {
        let low = _mm256_and_si256(v, _mm256_set1_epi64x(0xffff_ffff));
        let high = _mm256_srli_epi64::<32>(v);
        _mm256_add_epi64(acc, _mm256_add_epi64(low, high))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn reduce_256(acc: __m256i) -> u64 {
        let mut lanes = [0u64; 4];
        // SAFETY: `lanes` is 32 bytes, and storeu has no alignment to respect.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), acc) };
        lanes.iter().sum()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load_256(from: &[u8; 32]) -> __m256i {
        // SAFETY: `from` is 32 readable bytes, and loadu has no alignment to respect.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store_256(to: &mut [u8; 32], v: __m256i) {
        // SAFETY: `to` is 32 writable bytes, and storeu has no alignment to respect.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
    }

    #[target_feature(enable = "avx2")]
    fn sum_avx2(bytes: &[u8]) -> u64 {
        // Two accumulators, so that the additions of one vector do not wait for the last.
        let mut acc = [_mm256_setzero_si256(); 2];
        let (vectors, tail) = bytes.as_chunks::<32>();
        let (pairs, single) = vectors.as_chunks::<2>();
        for [a, b] in pairs {
            acc[0] = add_256(acc[0], load_256(a));
            acc[1] = add_256(acc[1], load_256(b));
        }
        for v in single {
            acc[0] = add_256(acc[0], load_256(v));
        }
        reduce_256(_mm256_add_epi64(acc[0], acc[1])) + scalar::sum(tail)
    }

    #[target_feature(enable = "avx2")]
    fn copy_and_sum_avx2(dst: &mut [u8], src: &[u8]) -> u64 {
        let mut acc = [_mm256_setzero_si256(); 2];
        let (vectors, tail) = src.as_chunks::<32>();
        let (dst_vectors, dst_tail) = dst.as_chunks_mut::<32>();
        for (i, (to, from)) in dst_vectors.iter_mut().zip(vectors).enumerate() {
            let v = load_256(from);
            store_256(to, v);
            acc[i % 2] = add_256(acc[i % 2], v);
        }
        reduce_256(_mm256_add_epi64(acc[0], acc[1])) + scalar::copy_and_sum(dst_tail, tail)
    }

    /// Sums of 64-bit lanes. `all` wraps around; `high`, the sum of the upper halves, cannot,
    /// and tells how often: three instructions per vector instead of the four that it takes to
    /// add both halves.
    #[derive(Copy, Clone)]
    struct Lanes {
        all: __m512i,
        high: __m512i,
    }

    impl Lanes {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn new() -> Self {
            Self {
                all: _mm512_setzero_si512(),
                high: _mm512_setzero_si512(),
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn add(&mut self, v: __m512i) {
            self.all = _mm512_add_epi64(self.all, v);
            self.high = _mm512_add_epi64(self.high, _mm512_srli_epi64::<32>(v));
        }

        /// The sum of the 32-bit halves of all lanes of both.
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn reduce(self, other: Self) -> u64 {
            let all = _mm512_add_epi64(self.all, other.all);
            let high = _mm512_add_epi64(self.high, other.high);
            // Without what came from the upper halves, the sum of the lower ones fits.
            let low = _mm512_sub_epi64(all, _mm512_slli_epi64::<32>(high));
            // The bits are those of the unsigned sum.
            _mm512_reduce_add_epi64(_mm512_add_epi64(low, high)).cast_unsigned()
        }
    }

    /// How many bytes stand in front of the first whole cache line at or behind `from`; none if
    /// that would put the rest at an odd offset.
    #[inline]
    fn unaligned(from: *const u8, len: usize) -> usize {
        let head = from.addr().wrapping_neg() % 64;
        if head.is_multiple_of(2) && head < len {
            head
        } else {
            0
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load_512(from: &[u8; 64]) -> __m512i {
        // SAFETY: `from` is 64 readable bytes, and loadu has no alignment to respect.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store_512(to: &mut [u8; 64], v: __m512i) {
        // SAFETY: `to` is 64 writable bytes, and storeu has no alignment to respect.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) };
    }

    /// One bit per byte of a tail shorter than a vector.
    #[inline]
    fn tail_mask(len: usize) -> u64 {
        debug_assert!(len < 64);
        (1 << len) - 1
    }

    /// The bytes of `tail`, then zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn load_tail_512(tail: &[u8]) -> __m512i {
        // SAFETY: only the masked-in bytes, those of `tail`, are read; masked-out lanes do not
        // fault.
        unsafe { _mm512_maskz_loadu_epi8(tail_mask(tail.len()), tail.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn sum_avx512(bytes: &[u8]) -> u64 {
        let (mut a, mut b) = (Lanes::new(), Lanes::new());
        // A vector that lies across two cache lines takes two reads.
        let (head, rest) = bytes.split_at(unaligned(bytes.as_ptr(), bytes.len()));
        b.add(load_tail_512(head));
        let (vectors, tail) = rest.as_chunks::<64>();
        let (pairs, single) = vectors.as_chunks::<2>();
        for [one, two] in pairs {
            a.add(load_512(one));
            b.add(load_512(two));
        }
        for v in single {
            a.add(load_512(v));
        }
        b.add(load_tail_512(tail));
        a.reduce(b)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    fn copy_and_sum_avx512(dst: &mut [u8], src: &[u8]) -> u64 {
        let (mut a, mut b) = (Lanes::new(), Lanes::new());
        // Writes across two cache lines cost more than such reads.
        let head = unaligned(dst.as_ptr(), src.len());
        let (src_head, src) = src.split_at(head);
        let (dst_head, dst) = dst.split_at_mut(head);
        b.add(copy_tail_512(dst_head, src_head));
        let (vectors, tail) = src.as_chunks::<64>();
        let (dst_vectors, dst_tail) = dst.as_chunks_mut::<64>();
        let (pairs, single) = vectors.as_chunks::<2>();
        let (dst_pairs, dst_single) = dst_vectors.as_chunks_mut::<2>();
        for ([to_one, to_two], [one, two]) in dst_pairs.iter_mut().zip(pairs) {
            let (one, two) = (load_512(one), load_512(two));
            store_512(to_one, one);
            store_512(to_two, two);
            a.add(one);
            b.add(two);
        }
        for (to, from) in dst_single.iter_mut().zip(single) {
            let v = load_512(from);
            store_512(to, v);
            a.add(v);
        }
        b.add(copy_tail_512(dst_tail, tail));
        a.reduce(b)
    }

    /// Copies less than a vector; returns the bytes, then zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn copy_tail_512(dst: &mut [u8], src: &[u8]) -> __m512i {
        assert_eq!(dst.len(), src.len());
        let v = load_tail_512(src);
        // SAFETY: only the masked-in bytes are written, as many as `dst` has.
        unsafe {
            _mm512_mask_storeu_epi8(dst.as_mut_ptr().cast(), tail_mask(src.len()), v);
        }
        v
    }
}
