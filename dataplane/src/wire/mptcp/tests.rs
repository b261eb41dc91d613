//! Byte-exact vectors after the layouts of RFC 8684, round trips, and hostile bytes.

use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::checksum;

/// Emits `option` and compares with `bytes`, parses `bytes` and compares with `option`.
#[track_caller]
fn same(option: MptcpOption, bytes: &[u8]) {
    let mut out = [0xee; 40];
    assert_eq!(option.encoded_len(), bytes.len());
    assert_eq!(option.emit(&mut out), bytes.len());
    assert_eq!(&out[..bytes.len()], bytes, "{option:?}");
    assert!(out[bytes.len()..].iter().all(|b| *b == 0xee));
    assert_eq!(MptcpOption::parse(bytes), option);
    assert_eq!(bytes[2] >> 4, option.subtype());
}

fn capable(keys: usize, data_len: Option<u16>, checksum: Option<u16>) -> MptcpOption {
    MptcpOption::MpCapable {
        version: 1,
        flags: MpCapableFlags::CHECKSUM | MpCapableFlags::HMAC_SHA256,
        sender_key: (keys >= 1).then_some(Key(0x0102_0304_0506_0708)),
        receiver_key: (keys >= 2).then_some(Key(0x1112_1314_1516_1718)),
        data_len,
        checksum,
    }
}

/// RFC 8684 §3.1, figure 4.
#[test]
fn mp_capable_has_five_forms() {
    let full = [
        30, 24, 0x01, 0x81, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        0x05, 0xb4, 0xab, 0xcd,
    ];
    let form = |len: u8| {
        let mut b = full[..usize::from(len)].to_vec();
        b[1] = len;
        b
    };
    same(capable(0, None, None), &form(4));
    same(capable(1, None, None), &form(12));
    same(capable(2, None, None), &form(20));
    same(capable(2, Some(1460), None), &form(22));
    same(capable(2, Some(1460), Some(0xabcd)), &form(24));
}

#[test]
fn mp_capable_fields_without_those_before_them_are_not_written() {
    let MptcpOption::MpCapable { version, flags, .. } = capable(0, None, None) else {
        unreachable!()
    };
    let gap = MptcpOption::MpCapable {
        version,
        flags,
        sender_key: Some(Key(1)),
        receiver_key: None,
        data_len: Some(1),
        checksum: Some(2),
    };
    let mut out = [0; 40];
    assert_eq!(gap.emit(&mut out), 12);
    let headless = MptcpOption::MpCapable {
        version,
        flags,
        sender_key: None,
        receiver_key: Some(Key(3)),
        data_len: None,
        checksum: None,
    };
    assert_eq!(headless.emit(&mut out), 4);
    assert_eq!(MptcpOption::parse(&out[..4]), capable(0, None, None));
}

/// Private use: length 8 and the mark make it ours, everything else stays unknown.
#[test]
fn the_window_option_has_one_form() {
    for (heard, third) in [(false, 0xf0), (true, 0xf1)] {
        let option = MptcpOption::Window {
            heard,
            edge: 0x8123_4567,
        };
        same(option, &[30, 8, third, 0x57, 0x81, 0x23, 0x45, 0x67]);
    }
    // Flags that nobody has defined do not matter.
    assert_eq!(
        MptcpOption::parse(&[30, 8, 0xfe, 0x57, 0, 0, 0, 1]),
        MptcpOption::Window {
            heard: false,
            edge: 1
        }
    );
    for foreign in [
        &[30, 8, 0xf0, 0x58, 0, 0, 0, 1][..],
        &[30, 7, 0xf0, 0x57, 0, 0, 0],
        &[30, 12, 0xf0, 0x57, 0, 0, 0, 1, 0, 0, 0, 0],
        &[30, 4, 0xf0, 0x57],
        &[30, 3, 0xf0],
    ] {
        let unknown = MptcpOption::parse(foreign);
        let len = u8::try_from(foreign.len()).unwrap();
        assert_eq!(unknown, MptcpOption::Unknown { subtype: 0xf, len });
        assert_eq!(unknown.encoded_len(), 0);
    }
}

/// RFC 8684 §3.2, figures 5, 6 and 7.
#[test]
fn mp_join_has_three_forms() {
    same(
        MptcpOption::MpJoinSyn {
            backup: true,
            address_id: AddressId(7),
            token: Token(0xcd04_a475),
            nonce: 0x2122_2324,
        },
        &[
            30, 12, 0x11, 7, 0xcd, 0x04, 0xa4, 0x75, 0x21, 0x22, 0x23, 0x24,
        ],
    );
    same(
        MptcpOption::MpJoinSynAck {
            backup: false,
            address_id: AddressId(0),
            hmac: 0x0fce_2597_e55e_87ef,
            nonce: 0x3132_3334,
        },
        &[
            30, 16, 0x10, 0, 0x0f, 0xce, 0x25, 0x97, 0xe5, 0x5e, 0x87, 0xef, 0x31, 0x32, 0x33, 0x34,
        ],
    );
    let hmac = core::array::from_fn(|i| 0x40 + u8::try_from(i).unwrap());
    let mut bytes = vec![30, 24, 0x10, 0];
    bytes.extend(hmac);
    same(MptcpOption::MpJoinAck { hmac }, &bytes);
}

/// RFC 8684 §3.3, figure 9: flags F m M a A.
#[test]
fn dss_has_every_size() {
    let ack = |wide| DataAck {
        value: if wide {
            0x0102_0304_0506_0708
        } else {
            0x0506_0708
        },
        wide,
    };
    let mapping = |wide, checksum| DssMapping {
        dsn: if wide {
            0x1112_1314_1516_1718
        } else {
            0x1516_1718
        },
        wide,
        ssn: 0x2122_2324,
        len: 0x3132,
        checksum,
    };
    for ack_form in [None, Some(false), Some(true)] {
        for mapping_form in [None, Some(false), Some(true)] {
            for checksum in [None, Some(0x4142)] {
                for data_fin in [false, true] {
                    if mapping_form.is_none() && checksum.is_some() {
                        continue;
                    }
                    let mut flags = if data_fin { 0x10 } else { 0 };
                    let mut fields: Vec<u8> = vec![];
                    if let Some(wide) = ack_form {
                        flags |= if wide { 0x03 } else { 0x01 };
                        fields.extend(&[1, 2, 3, 4, 5, 6, 7, 8][if wide { 0 } else { 4 }..]);
                    }
                    if let Some(wide) = mapping_form {
                        flags |= if wide { 0x0c } else { 0x04 };
                        let dsn = [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
                        fields.extend(&dsn[if wide { 0 } else { 4 }..]);
                        fields.extend([0x21, 0x22, 0x23, 0x24, 0x31, 0x32]);
                        fields.extend(checksum.iter().flat_map(|_| [0x41, 0x42]));
                    }
                    let len = u8::try_from(4 + fields.len()).unwrap();
                    let mut bytes = vec![30, len, 0x20, flags];
                    bytes.extend(fields);
                    let dss = Dss {
                        data_ack: ack_form.map(ack),
                        mapping: mapping_form.map(|wide| mapping(wide, checksum)),
                        data_fin,
                    };
                    same(MptcpOption::Dss(dss), &bytes);
                }
            }
        }
    }
}

#[test]
fn dss_width_flags_without_their_fields_and_reserved_bits_are_ignored() {
    let parsed = MptcpOption::parse(&[30, 4, 0x2f, 0xea]);
    assert_eq!(parsed, MptcpOption::Dss(Dss::default()));
}

#[test]
fn dss_of_another_length_than_its_flags_say_is_malformed() {
    let mut b = [0u8; 40];
    b[0] = 30;
    b[2] = 0x20;
    for flags in 0..=0xff {
        b[3] = flags;
        let accepted: Vec<_> = (3..=40)
            .filter(|len| {
                b[1] = *len;
                matches!(
                    MptcpOption::parse(&b[..usize::from(*len)]),
                    MptcpOption::Dss(_)
                )
            })
            .collect();
        let mut want = 4;
        want += [0, 4, 0, 8][usize::from(flags & 3)];
        if flags & 4 == 0 {
            assert_eq!(accepted, [want], "flags {flags:#x}");
        } else {
            want += if flags & 8 == 0 { 10 } else { 14 };
            assert_eq!(accepted, [want, want + 2], "flags {flags:#x}");
        }
    }
}

/// RFC 8684 §3.4.1.
#[test]
fn add_addr_has_families_ports_and_echoes() {
    let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    let v6_bytes = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let hmac = 0x014b_3007_310c_639c_u64;
    for (addr, addr_bytes) in [(v4, &[10, 0, 2, 1][..]), (v6, &v6_bytes)] {
        for port in [None, Some(0x1f90)] {
            for echo in [false, true] {
                let mut bytes = vec![30, 0, if echo { 0x31 } else { 0x30 }, 1];
                bytes.extend(addr_bytes);
                bytes.extend(port.iter().flat_map(|p: &u16| p.to_be_bytes()));
                if !echo {
                    bytes.extend(hmac.to_be_bytes());
                }
                bytes[1] = u8::try_from(bytes.len()).unwrap();
                let option = MptcpOption::AddAddr {
                    echo,
                    address_id: AddressId(1),
                    addr,
                    port,
                    hmac: (!echo).then_some(hmac),
                };
                same(option, &bytes);
            }
        }
    }
}

#[test]
fn an_announcement_without_hmac_is_malformed() {
    for len in [8u8, 10, 20, 22] {
        let mut b = vec![0; usize::from(len)];
        b[..4].copy_from_slice(&[30, len, 0x30, 1]);
        let want = MptcpOption::Malformed { subtype: 3, len };
        assert_eq!(MptcpOption::parse(&b), want);
    }
}

/// RFC 6824 §3.4.1: IPVer in place of the flags, no HMAC.
#[test]
fn add_addr_of_version_0_says_its_family() {
    let v6_bytes = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));
    let v6 = IpAddr::V6(Ipv6Addr::from(v6_bytes));
    for (addr, flags, addr_bytes) in [(v4, 0x34, &[10, 0, 2, 1][..]), (v6, 0x36, &v6_bytes)] {
        for port in [None, Some(0x1f90)] {
            let mut bytes = vec![30, 0, flags, 1];
            bytes.extend(addr_bytes);
            bytes.extend(port.iter().flat_map(|p: &u16| p.to_be_bytes()));
            bytes[1] = u8::try_from(bytes.len()).unwrap();
            let option = MptcpOption::AddAddr {
                echo: false,
                address_id: AddressId(1),
                addr,
                port,
                hmac: None,
            };
            same(option, &bytes);
            // The family of the other length is a lie.
            bytes[2] ^= 0x02;
            let len = bytes[1];
            let lie = MptcpOption::Malformed { subtype: 3, len };
            assert_eq!(MptcpOption::parse(&bytes), lie);
        }
    }
}

fn prio(backup: bool, id: Option<u8>) -> MptcpOption {
    MptcpOption::MpPrio {
        backup,
        address_id: id.map(AddressId),
    }
}

/// RFC 6824 §3.3.8.
#[test]
fn mp_prio_of_version_0_may_name_an_address() {
    same(prio(true, Some(7)), &[30, 4, 0x51, 7]);
    same(prio(false, Some(0)), &[30, 4, 0x50, 0]);
}

/// RFC 8684 §3.4.2, §3.3.8, §3.7, §3.5 and §3.6.
#[test]
fn small_options() {
    let ids = AddressIds::new(&[AddressId(3), AddressId(9), AddressId(255)]).unwrap();
    same(MptcpOption::RemoveAddr { ids }, &[30, 6, 0x40, 3, 9, 255]);
    let ids = AddressIds::single(AddressId(4));
    same(MptcpOption::RemoveAddr { ids }, &[30, 4, 0x40, 4]);
    same(prio(true, None), &[30, 3, 0x51]);
    same(prio(false, None), &[30, 3, 0x50]);
    same(
        MptcpOption::MpFail {
            dsn: 0x8865_40e5_dce7_7f70,
        },
        &[
            30, 12, 0x60, 0, 0x88, 0x65, 0x40, 0xe5, 0xdc, 0xe7, 0x7f, 0x70,
        ],
    );
    same(
        MptcpOption::FastClose {
            receiver_key: Key(2),
        },
        &[30, 12, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    );
    same(
        MptcpOption::TcpRst {
            flags: RESET_TRANSIENT,
            reason: reset_reason::MIDDLEBOX,
        },
        &[30, 4, 0x81, 6],
    );
}

#[test]
fn address_lists_are_bounded() {
    assert_eq!(AddressIds::new(&[]), None);
    assert_eq!(AddressIds::new(&[AddressId(1); AddressIds::MAX + 1]), None);
    let full = AddressIds::new(&[AddressId(1); AddressIds::MAX]).unwrap();
    assert_eq!(full.iter().len(), 37);
    let option = MptcpOption::RemoveAddr { ids: full };
    let mut out = [0; 40];
    assert_eq!(option.emit(&mut out), 40);
    assert_eq!(MptcpOption::parse(&out), option);
    let empty = MptcpOption::Malformed { subtype: 4, len: 3 };
    assert_eq!(MptcpOption::parse(&[30, 3, 0x40]), empty);
}

/// For every defined subtype, exactly the lengths of RFC 8684 and RFC 6824 are accepted.
#[test]
fn lengths_that_do_not_exist_are_malformed() {
    let accepted = |third: u8| -> Vec<usize> {
        let mut b = [0u8; 40];
        b[0] = 30;
        b[2] = third;
        (3..=40)
            .filter(|len| {
                b[1] = u8::try_from(*len).unwrap();
                !matches!(
                    MptcpOption::parse(&b[..*len]),
                    MptcpOption::Malformed { .. }
                )
            })
            .collect()
    };
    assert_eq!(accepted(0x01), [4, 12, 20, 22, 24]);
    assert_eq!(accepted(0x10), [12, 16, 24]);
    assert_eq!(accepted(0x30), [16, 18, 28, 30]);
    assert_eq!(accepted(0x31), [8, 10, 20, 22]);
    assert_eq!(accepted(0x40), (4..=40).collect::<Vec<_>>());
    assert_eq!(accepted(0x34), [8, 10, 16, 18, 28, 30]);
    assert_eq!(accepted(0x36), [16, 18, 20, 22, 28, 30]);
    assert_eq!(accepted(0x50), [3, 4]);
    assert_eq!(accepted(0x60), [12]);
    assert_eq!(accepted(0x70), [12]);
    assert_eq!(accepted(0x80), [4]);
}

#[test]
fn what_is_not_understood_is_told_apart_and_cannot_be_sent() {
    let unknown = MptcpOption::parse(&[30, 5, 0xf1, 1, 2]);
    assert_eq!(
        unknown,
        MptcpOption::Unknown {
            subtype: 0xf,
            len: 5
        }
    );
    let short = MptcpOption::parse(&[30, 2]);
    assert_eq!(
        short,
        MptcpOption::Malformed {
            subtype: 0xff,
            len: 2
        }
    );
    for option in [unknown, short] {
        assert_eq!((option.encoded_len(), option.emit(&mut [])), (0, 0));
    }
}

/// Key 2: IDSN 886540e5dce77f70; "hello" as the first five bytes.
#[test]
fn dss_checksum_vector() {
    let dsn = 0x8865_40e5_dce7_7f70 + 1;
    let payload = checksum::sum(b"hello");
    assert_eq!(dss_checksum(dsn, 1, 5, payload), 0x9683);
    assert!(verify_dss_checksum(dsn, 1, 5, payload, 0x9683));
    assert!(!verify_dss_checksum(dsn, 1, 5, payload, 0x9684));
    assert!(!verify_dss_checksum(dsn, 2, 5, payload, 0x9683));
    let changed = checksum::sum(b"jello");
    assert!(!verify_dss_checksum(dsn, 1, 5, changed, 0x9683));
}

fn any_number() -> impl Strategy<Value = (u64, bool)> {
    prop_oneof![
        any::<u64>().prop_map(|v| (v, true)),
        any::<u32>().prop_map(|v| (u64::from(v), false)),
    ]
}

fn any_dss() -> impl Strategy<Value = Dss> {
    let ack = any_number().prop_map(|(value, wide)| DataAck { value, wide });
    let mapping = (any_number(), any::<(u32, u16, Option<u16>)>()).prop_map(
        |((dsn, wide), (ssn, len, checksum))| DssMapping {
            dsn,
            wide,
            ssn,
            len,
            checksum,
        },
    );
    (
        proptest::option::of(ack),
        proptest::option::of(mapping),
        any::<bool>(),
    )
        .prop_map(|(data_ack, mapping, data_fin)| Dss {
            data_ack,
            mapping,
            data_fin,
        })
}

fn any_capable() -> impl Strategy<Value = MptcpOption> {
    any::<(u8, u8, u8, u64, u64, u16, u16)>().prop_map(|(version, flags, form, a, b, len, sum)| {
        let form = form % 5;
        MptcpOption::MpCapable {
            version: version & 0x0f,
            flags: MpCapableFlags(flags),
            sender_key: (form >= 1).then_some(Key(a)),
            receiver_key: (form >= 2).then_some(Key(b)),
            data_len: (form >= 3).then_some(len),
            checksum: (form >= 4).then_some(sum),
        }
    })
}

fn any_add_addr() -> impl Strategy<Value = MptcpOption> {
    any::<(bool, u8, IpAddr, Option<u16>, Option<u64>)>().prop_map(
        |(echo, id, addr, port, hmac)| MptcpOption::AddAddr {
            echo,
            address_id: AddressId(id),
            addr,
            port,
            hmac: hmac.filter(|_| !echo),
        },
    )
}

/// Any option that can be sent.
pub(crate) fn any_option() -> impl Strategy<Value = MptcpOption> {
    prop_oneof![
        any_capable(),
        any::<(bool, u8, u32, u32)>().prop_map(|(backup, id, token, nonce)| {
            MptcpOption::MpJoinSyn {
                backup,
                address_id: AddressId(id),
                token: Token(token),
                nonce,
            }
        }),
        any::<(bool, u8, u64, u32)>().prop_map(|(backup, id, hmac, nonce)| {
            MptcpOption::MpJoinSynAck {
                backup,
                address_id: AddressId(id),
                hmac,
                nonce,
            }
        }),
        any::<[u8; 20]>().prop_map(|hmac| MptcpOption::MpJoinAck { hmac }),
        any_dss().prop_map(MptcpOption::Dss),
        any_add_addr(),
        proptest::collection::vec(any::<u8>().prop_map(AddressId), 1..=AddressIds::MAX).prop_map(
            |ids| MptcpOption::RemoveAddr {
                ids: AddressIds::new(&ids).unwrap(),
            }
        ),
        any::<(bool, Option<u8>)>().prop_map(|(backup, id)| prio(backup, id)),
        any::<u64>().prop_map(|dsn| MptcpOption::MpFail { dsn }),
        any::<u64>().prop_map(|key| MptcpOption::FastClose {
            receiver_key: Key(key),
        }),
        (0u8..16, any::<u8>()).prop_map(|(flags, reason)| MptcpOption::TcpRst { flags, reason }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn options_round_trip(option in any_option()) {
        let mut out = [0xee; 40];
        let len = option.emit(&mut out);
        prop_assert_eq!(len, option.encoded_len());
        prop_assert_eq!(usize::from(out[1]), len);
        prop_assert!(out[len..].iter().all(|b| *b == 0xee));
        prop_assert_eq!(MptcpOption::parse(&out[..len]), option);
    }

    /// What was understood means the same when written again, though reserved bits are lost.
    #[test]
    fn understood_bytes_survive_a_second_round(mut b in proptest::collection::vec(any::<u8>(), 2..=40)) {
        b[0] = 30;
        b[1] = u8::try_from(b.len()).unwrap();
        let option = MptcpOption::parse(&b);
        let mut out = [0; 40];
        let len = option.emit(&mut out);
        if len > 0 {
            prop_assert_eq!(len, b.len());
            prop_assert_eq!(MptcpOption::parse(&out[..len]), option);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60_000))]

    #[test]
    fn random_bytes_never_panic(b in proptest::collection::vec(any::<u8>(), 0..=44), third: u8) {
        let _ = MptcpOption::parse(&b);
        let mut b = b;
        if b.len() >= 3 {
            b[0] = 30;
            b[2] = third;
        }
        let option = MptcpOption::parse(&b);
        let mut out = [0; 48];
        prop_assert_eq!(option.emit(&mut out), option.encoded_len());
    }
}
