//! Pieces and chains against plain vectors.

use proptest::prelude::*;

use super::{FRAMES, filled, pool};
use crate::buf::{Chain, Piece};
use crate::checksum::sum;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn piece_trims_like_a_vector_and_keeps_its_sum(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        offset in 0usize..5,
        summed: bool,
        on_heap: bool,
        cuts in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..8),
    ) {
        let pool = pool();
        let mut oracle = bytes.clone();
        let known = summed.then(|| sum(&bytes));
        let mut piece = if on_heap {
            Piece::copied(&bytes, known)
        } else {
            let mut packet = vec![0xee; offset];
            packet.extend_from_slice(&bytes);
            packet.push(0xdd);
            Piece::from_frame(filled(&pool, &packet), offset..offset + bytes.len(), known)
        };
        for (kind, at) in cuts {
            let n = at.index(oracle.len() + 1);
            match kind {
                0 => {
                    piece.trim_front(n);
                    oracle.drain(..n);
                }
                1 => {
                    piece.trim_back(n);
                    oracle.truncate(oracle.len() - n);
                }
                2 => {
                    let mut tail = piece.split_off(n);
                    let expected = oracle.split_off(n);
                    prop_assert_eq!(tail.bytes(), &expected[..]);
                    prop_assert_eq!(tail.sum(), sum(&expected));
                    prop_assert!(!tail.pins_frame());
                }
                _ => {
                    prop_assert_eq!(piece.pins_frame(), piece.copy_out());
                    prop_assert_eq!(pool.accounting().free, FRAMES);
                }
            }
            prop_assert_eq!(piece.bytes(), &oracle[..]);
            prop_assert_eq!(piece.len(), oracle.len());
            if let Some(cached) = piece.cached_sum() {
                prop_assert_eq!(cached, sum(&oracle));
            } else {
                prop_assert!(!summed, "a known sum was forgotten");
            }
        }
        prop_assert_eq!(piece.sum(), sum(&oracle));
        drop(piece);
        prop_assert_eq!(pool.accounting().free, FRAMES);
    }

    #[test]
    fn chain_cuts_like_a_vector(
        lens in prop::collection::vec(0usize..40, 0..6),
        cuts in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..6),
    ) {
        let pool = pool();
        let mut oracle = Vec::new();
        let mut chain = Chain::new();
        for (i, len) in (0u8..).zip(lens) {
            let bytes: Vec<u8> = (0u8..).take(len).map(|j| j.wrapping_mul(37) ^ i).collect();
            oracle.extend_from_slice(&bytes);
            chain.push(Piece::from_frame(filled(&pool, &bytes), 0..len, None));
        }
        for (kind, at) in cuts {
            let n = at.index(oracle.len() + 1);
            match kind {
                0 => {
                    chain.trim_front(n);
                    oracle.drain(..n);
                }
                1 => {
                    chain.trim_back(n);
                    oracle.truncate(oracle.len() - n);
                }
                2 => {
                    let tail = chain.split_off(n);
                    let expected = oracle.split_off(n);
                    prop_assert_eq!(tail.len(), expected.len());
                    let mut whole = Vec::new();
                    tail.iter().for_each(|piece| whole.extend_from_slice(piece.bytes()));
                    prop_assert_eq!(whole, expected);
                }
                _ => {
                    if let Some(piece) = chain.pop_front() {
                        prop_assert_eq!(piece.bytes(), &oracle[..piece.len()]);
                        oracle.drain(..piece.len());
                    }
                }
            }
            let mut whole = Vec::new();
            chain.iter().for_each(|piece| whole.extend_from_slice(piece.bytes()));
            prop_assert_eq!(&whole, &oracle);
            prop_assert_eq!(chain.len(), oracle.len());
            prop_assert!(chain.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(chain.pinned_frames() as u32, pool.accounting().ours);
            prop_assert_eq!(chain.sum(), sum(&oracle));
        }
    }
}
