use proptest::prelude::*;

use super::*;

/// RFC 1071 §4.1 word for word: no cleverness to share a bug with.
fn reference(bytes: &[u8]) -> Sum {
    let mut acc = 0u64;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        acc += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while acc >> 16 != 0 {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    Sum(u16::try_from(acc).unwrap())
}

/// Bytes that differ everywhere and are not periodic in any vector length.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

/// Checks every kernel on `bytes`, bit-exactly (two zeros are two values here), and that the
/// copy is exact and writes nothing around its destination.
fn check_kernels(bytes: &[u8], dst_offset: usize) {
    let want = reference(bytes).0;
    for kernel in simd::available() {
        let got = Sum::from_native(kernel.sum(bytes)).0;
        assert_eq!(got, want, "{} sum, {} bytes", kernel.name, bytes.len());

        let mut room = vec![0xa5; dst_offset + bytes.len() + 70];
        let dst = &mut room[dst_offset..dst_offset + bytes.len()];
        let got = Sum::from_native(kernel.copy_and_sum(dst, bytes)).0;
        assert_eq!(got, want, "{} copy, {} bytes", kernel.name, bytes.len());
        assert_eq!(dst, bytes, "{} copied wrongly", kernel.name);
        assert!(room[..dst_offset].iter().all(|b| *b == 0xa5));
        assert!(
            room[dst_offset + bytes.len()..].iter().all(|b| *b == 0xa5),
            "{} wrote past the end",
            kernel.name
        );
    }
    // The same through the dispatch, which sends short inputs another way.
    assert_eq!(sum(bytes).0, want);
    let mut copy = vec![0xa5; bytes.len()];
    assert_eq!(copy_and_sum(&mut copy, bytes).0, want);
    assert_eq!(copy, bytes);
}

#[test]
fn rfc_1071_example() {
    // RFC 1071 §3
    let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(sum(&data).fold(), 0xddf2);
    assert_eq!(sum(&data).finish(), 0x220d);
}

#[test]
fn kernels_agree_at_every_length_and_alignment() {
    let data = pattern(400);
    for len in 0..=300 {
        for offset in [0, 1, 2, 3, 7, 8, 15, 31, 33, 63] {
            check_kernels(&data[offset..offset + len], offset);
        }
    }
}

#[test]
fn kernels_agree_on_all_ones_and_all_zeros() {
    for len in (0..300).chain([1460, 4096, 65_534, 65_535, 65_536, 1 << 20]) {
        check_kernels(&vec![0xff; len], 1);
        check_kernels(&vec![0; len], 0);
    }
}

#[test]
fn kernels_agree_on_big_inputs() {
    let data = pattern(300_001);
    for len in [65_535, 65_536, 65_537, 131_071, 300_000] {
        check_kernels(&data[1..=len], 3);
    }
}

#[test]
fn this_machine_exercises_more_than_the_scalar_kernel_if_it_can() {
    let names: Vec<_> = simd::available().map(|k| k.name).collect();
    assert_eq!(names.last(), Some(&"scalar"));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx2"), is_x86_feature_detected!("avx2"));
}

#[test]
#[should_panic(expected = "lengths differ")]
fn copy_into_a_shorter_slice_is_refused() {
    let _ = copy_and_sum(&mut [0; 3], &[0; 4]);
}

#[test]
fn both_zeros_are_one_number() {
    assert_eq!(Sum(0), Sum(0xffff));
    assert_ne!(Sum(0), Sum(1));
    assert!(Sum(0x1234).matches(!0x1234));
    assert!(Sum(0).matches(0xffff) && Sum(0).matches(0) && Sum(0xffff).matches(0xffff));
    assert!(!Sum(0x1234).matches(0x1234));
    assert_eq!(Sum::from_checksum(0x220d).fold(), 0xddf2);
}

/// RFC 1624 §4: the case in which RFC 1141's formula gives 0xffff and the right answer is 0.
#[test]
fn rfc_1624_example() {
    assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn kernels_agree_on_random_data(
        data in proptest::collection::vec(any::<u8>(), 0..2_000),
        skip in 0usize..64,
        dst_offset in 0usize..64,
    ) {
        check_kernels(&data[skip.min(data.len())..], dst_offset);
    }

    #[test]
    fn pieces_combine_and_split(
        data in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..600),
        cut in 0usize..600,
    ) {
        let cut = cut.min(data.len());
        let (head, tail) = data.split_at(cut);
        let whole = sum(&data);
        prop_assert_eq!(sum(head).combine(sum(tail), cut % 2 == 1), whole);
        prop_assert_eq!(whole.remove_prefix(sum(head), cut), sum(tail));
        prop_assert_eq!(whole.remove_suffix(sum(tail), cut), sum(head));
    }

    #[test]
    fn fields_add_like_their_bytes(seed: u16, a: u16, b: u32, c: u64, d: [u8; 7]) {
        let mut bytes = Vec::from(seed.to_be_bytes());
        bytes.extend(a.to_be_bytes());
        bytes.extend(b.to_be_bytes());
        bytes.extend(c.to_be_bytes());
        bytes.extend(d);
        let got = sum(&seed.to_be_bytes()).add_u16(a).add_u32(b).add_u64(c).add_bytes(&d);
        prop_assert_eq!(got, reference(&bytes));
    }

    #[test]
    fn incremental_update_equals_recomputation(
        data in proptest::collection::vec(any::<u8>(), 8..64),
        at in 0usize..28,
        new: u32,
    ) {
        let at = (at * 2).min(data.len() - 4) & !1;
        let before = sum(&data).finish();
        let old = u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        let mut changed = data.clone();
        changed[at..at + 4].copy_from_slice(&new.to_be_bytes());
        prop_assert!(sum(&changed).matches(update_u32(before, old, new)));

        let high = u16::try_from(new >> 16).unwrap();
        changed[at + 2..at + 4].copy_from_slice(&data[at + 2..at + 4]);
        let old = u16::from_be_bytes([data[at], data[at + 1]]);
        prop_assert!(sum(&changed).matches(update_u16(before, old, high)));
    }

    #[test]
    fn a_finished_checksum_verifies(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let s = sum(&data);
        prop_assert!(s.matches(s.finish()));
        prop_assert!(s.add_u16(s.finish()).is_zero());
        prop_assert!(!s.matches(s.finish() ^ 1));
    }
}

#[test]
fn implementations_are_named_once_and_agree() {
    let bytes: Vec<u8> = (0..1460u32).map(|n| (n * 7) as u8).collect();
    let mut names = Vec::new();
    for implementation in Implementation::all() {
        let mut copy = vec![0; bytes.len()];
        assert_eq!(implementation.sum(&bytes), sum(&bytes));
        assert_eq!(implementation.copy_and_sum(&mut copy, &bytes), sum(&bytes));
        assert_eq!(copy, bytes);
        assert!(!names.contains(&implementation.name()));
        names.push(implementation.name());
    }
    assert_eq!(names.last(), Some(&"scalar"));
}
