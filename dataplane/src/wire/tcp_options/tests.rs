use proptest::prelude::*;

use super::*;
use crate::wire::mptcp::{DataAck, Dss, DssMapping, MpCapableFlags};
use crate::wire::types::Key;

const TS: Timestamps = Timestamps {
    tsval: 0x0102_0304,
    tsecr: 0x0506_0708,
};

fn dss(wide: bool, checksum: Option<u16>) -> MptcpOption {
    MptcpOption::Dss(Dss {
        data_ack: Some(DataAck { value: 1, wide }),
        mapping: Some(DssMapping {
            dsn: 2,
            wide,
            ssn: 3,
            len: 4,
            checksum,
        }),
        data_fin: false,
    })
}

fn capable_syn() -> MptcpOption {
    MptcpOption::MpCapable {
        version: 1,
        flags: MpCapableFlags::HMAC_SHA256,
        sender_key: None,
        receiver_key: None,
        data_len: None,
        checksum: None,
    }
}

/// The SYN that Linux sends, byte for byte: MSS, SACK permitted, timestamps, window scale,
/// MP_CAPABLE.
#[test]
fn a_syn_has_the_layout_of_linux() {
    let mut buf = OptionsBuf::new();
    buf.mss(1460).unwrap();
    buf.sack_permitted().unwrap();
    buf.timestamps(TS).unwrap();
    buf.window_scale(7).unwrap();
    buf.mptcp(&capable_syn()).unwrap();
    let bytes = [
        2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7, 30, 4, 0x01, 0x01,
    ];
    assert_eq!(buf.as_slice(), bytes);
    let parsed = TcpOptions::parse(&bytes);
    assert_eq!((parsed.mss, parsed.window_scale), (Some(1460), Some(7)));
    assert!(parsed.sack_permitted && !parsed.malformed && !parsed.md5);
    assert_eq!(parsed.timestamps, Some(TS));
    assert_eq!(parsed.mptcp.as_slice(), [capable_syn()]);
}

#[test]
fn timestamps_alone_are_aligned_by_leading_nops() {
    let mut buf = OptionsBuf::new();
    buf.timestamps(TS).unwrap();
    assert_eq!(buf.as_slice(), [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn timestamps_and_the_largest_dss_fit_exactly() {
    let mut buf = OptionsBuf::new();
    buf.timestamps(TS).unwrap();
    buf.mptcp(&dss(true, Some(9))).unwrap();
    assert_eq!((buf.padded_len(), buf.remaining()), (40, 0));
    assert_eq!(
        buf.mptcp(&MptcpOption::MpPrio {
            backup: true,
            address_id: None,
        }),
        Err(NoRoom)
    );
    let parsed = TcpOptions::parse(buf.as_slice());
    assert_eq!(parsed.mptcp.as_slice(), [dss(true, Some(9))]);
    assert_eq!(parsed.timestamps, Some(TS));
}

#[test]
fn alignment_yields_when_only_the_option_itself_fits() {
    let mut buf = OptionsBuf::new();
    buf.sack_permitted().unwrap();
    let ids: Vec<_> = (0..35).map(crate::wire::types::AddressId).collect();
    let remove = MptcpOption::RemoveAddr {
        ids: mptcp::AddressIds::new(&ids).unwrap(),
    };
    buf.mptcp(&remove).unwrap();
    assert_eq!(buf.remaining(), 0);
    assert_eq!(TcpOptions::parse(buf.as_slice()).mptcp.as_slice(), [remove]);
}

#[test]
fn a_refused_option_leaves_the_area_as_it_was() {
    let mut buf = OptionsBuf::new();
    buf.mptcp(&dss(true, Some(5))).unwrap();
    buf.timestamps(TS).unwrap();
    let before = buf;
    assert_eq!(buf.mss(1), Err(NoRoom));
    assert_eq!(buf.window_scale(1), Err(NoRoom));
    assert_eq!(buf.timestamps(TS), Err(NoRoom));
    assert_eq!(buf.mptcp(&dss(false, None)), Err(NoRoom));
    assert_eq!(buf.sack(&[(SeqNumber(1), SeqNumber(2))]), 0);
    assert_eq!((buf, buf.remaining()), (before, before.remaining()));
}

#[test]
fn as_many_sack_blocks_as_fit_are_written() {
    let blocks: Vec<_> = (0..6)
        .map(|i| (SeqNumber(i * 10), SeqNumber(i * 10 + 5)))
        .collect();
    let mut buf = OptionsBuf::new();
    assert_eq!(buf.sack(&blocks), 4);
    assert_eq!(
        TcpOptions::parse(buf.as_slice()).sack.as_slice(),
        &blocks[..4]
    );

    let mut buf = OptionsBuf::new();
    buf.timestamps(TS).unwrap();
    assert_eq!(buf.sack(&blocks), 3);
    assert_eq!(buf.padded_len(), 40);

    let mut buf = OptionsBuf::new();
    buf.timestamps(TS).unwrap();
    buf.mptcp(&MptcpOption::Dss(Dss {
        data_ack: Some(DataAck {
            value: 1,
            wide: true,
        }),
        ..Dss::default()
    }))
    .unwrap();
    assert_eq!(buf.sack(&blocks), 1);
    assert_eq!(
        TcpOptions::parse(buf.as_slice()).sack.as_slice(),
        &blocks[..1]
    );
    assert_eq!(buf.sack(&[]), 0);
}

#[test]
fn padding_keeps_a_header_length() {
    let mut buf = OptionsBuf::new();
    buf.timestamps(TS).unwrap();
    buf.pad_to(40).unwrap();
    assert_eq!(buf.as_slice().len(), 40);
    assert_eq!(TcpOptions::parse(buf.as_slice()).timestamps, Some(TS));
    assert_eq!(buf.pad_to(12), Err(NoRoom));
    assert_eq!(buf.pad_to(44), Err(NoRoom));
}

#[test]
fn end_of_list_stops_the_reader() {
    let parsed = TcpOptions::parse(&[1, 0, 2, 4, 5, 0xb4]);
    assert_eq!(parsed, TcpOptions::default());
}

#[test]
fn what_precedes_a_malformed_option_counts() {
    let bad: [&[u8]; 7] = [
        &[8],
        &[8, 0],
        &[8, 1],
        &[8, 10, 1, 2],
        &[99, 200],
        // A length that does not cover itself: no telling where the next option starts.
        &[99, 1, 3, 3, 7],
        &[99, 0, 3, 3, 7],
    ];
    for bad in bad {
        let mut area = vec![2, 4, 0x05, 0xb4];
        area.extend(bad);
        let parsed = TcpOptions::parse(&area);
        let seen = (parsed.mss, parsed.timestamps, parsed.window_scale);
        assert_eq!(seen, (Some(1460), None, None), "{bad:?}");
        assert!(parsed.malformed, "{bad:?}");
    }
}

#[test]
fn a_known_kind_of_wrong_length_is_flagged_and_skipped() {
    for kind in [2u8, 3, 4, 5, 8, 19] {
        let parsed = TcpOptions::parse(&[kind, 5, 0, 0, 0, 4, 2]);
        assert!(parsed.malformed, "kind {kind}");
        assert_eq!((parsed.mss, parsed.window_scale), (None, None));
    }
    let parsed = TcpOptions::parse(&[3, 4, 0, 0, 4, 2]);
    assert!(parsed.sack_permitted, "options after it are read");
}

#[test]
fn unknown_kinds_are_skipped() {
    let parsed = TcpOptions::parse(&[254, 4, 1, 2, 3, 3, 9, 0]);
    assert_eq!((parsed.window_scale, parsed.malformed), (Some(9), false));
}

#[test]
fn an_md5_signature_is_noticed() {
    let mut area = [0; 20];
    area[..2].copy_from_slice(&[19, 18]);
    assert!(TcpOptions::parse(&area).md5);
}

#[test]
fn more_mptcp_options_than_kept_are_counted() {
    let area: Vec<u8> = (0..13u8).flat_map(|i| [30, 3, 0x50 | (i & 1)]).collect();
    let parsed = TcpOptions::parse(&area);
    assert_eq!(
        (parsed.mptcp.len(), parsed.mptcp.ignored()),
        (MPTCP_OPTIONS_MAX, 7)
    );
    assert_eq!(
        parsed.mptcp[1],
        MptcpOption::MpPrio {
            backup: true,
            address_id: None,
        }
    );
    assert!(!parsed.malformed);
}

#[test]
fn mptcp_options_keep_their_order() {
    let first = MptcpOption::FastClose {
        receiver_key: Key(7),
    };
    let second = MptcpOption::TcpRst {
        flags: 1,
        reason: 2,
    };
    let mut buf = OptionsBuf::new();
    buf.mptcp(&first).unwrap();
    buf.mptcp(&second).unwrap();
    let parsed = TcpOptions::parse(buf.as_slice());
    assert!(parsed.mptcp.into_iter().eq([&first, &second]));
}

/// What a writer may be asked to write.
#[derive(Clone, Debug)]
enum Write {
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Timestamps(Timestamps),
    Sack(Vec<(u32, u32)>),
    Mptcp(MptcpOption),
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        any::<u16>().prop_map(Write::Mss),
        any::<u8>().prop_map(Write::WindowScale),
        Just(Write::SackPermitted),
        any::<(u32, u32)>()
            .prop_map(|(tsval, tsecr)| Write::Timestamps(Timestamps { tsval, tsecr })),
        proptest::collection::vec(any::<(u32, u32)>(), 0..6).prop_map(Write::Sack),
        mptcp::tests::any_option().prop_map(Write::Mptcp),
        mptcp::tests::any_option().prop_map(Write::Mptcp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// The reader gets back what the writer accepted, in whatever order.
    #[test]
    fn areas_round_trip(writes in proptest::collection::vec(any_write(), 0..8)) {
        let mut buf = OptionsBuf::new();
        let mut want = TcpOptions::default();
        for write in writes {
            match write {
                Write::Mss(v) => if buf.mss(v).is_ok() { want.mss = Some(v) },
                Write::WindowScale(v) => if buf.window_scale(v).is_ok() {
                    want.window_scale = Some(v);
                },
                Write::SackPermitted => want.sack_permitted |= buf.sack_permitted().is_ok(),
                Write::Timestamps(v) => if buf.timestamps(v).is_ok() {
                    want.timestamps = Some(v);
                },
                Write::Sack(v) => {
                    let v: Vec<_> = v.into_iter().map(|(l, r)| (SeqNumber(l), SeqNumber(r))).collect();
                    let written = buf.sack(&v);
                    if written > 0 {
                        want.sack = SackBlocks::default();
                        v[..written].iter().for_each(|b| assert!(want.sack.push(*b)));
                    }
                }
                Write::Mptcp(v) => if buf.mptcp(&v).is_ok() { want.mptcp.push(v) },
            }
        }
        prop_assert!(buf.as_slice().len().is_multiple_of(4) && buf.as_slice().len() <= 40);
        prop_assert_eq!(TcpOptions::parse(buf.as_slice()), want);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60_000))]

    #[test]
    fn random_areas_never_panic(
        mut area in proptest::collection::vec(
            prop_oneof![any::<u8>(), 0u8..20, Just(30), Just(mptcp::KIND)], 0..=48),
        starts in proptest::collection::vec((0usize..44, 0u8..9, 2u8..30), 0..3),
    ) {
        // Plant plausible MPTCP options, so that more than the length check is reached.
        for (at, subtype, len) in starts {
            if let Some(option) = area.get_mut(at..at + 3) {
                option.copy_from_slice(&[mptcp::KIND, len, subtype << 4]);
            }
        }
        let parsed = TcpOptions::parse(&area);
        prop_assert!(parsed.mptcp.len() <= MPTCP_OPTIONS_MAX);
    }
}
