use proptest::prelude::*;

use super::*;
use crate::wire::ethernet::VlanTag;
use crate::wire::mptcp::tests::any_option;
use crate::wire::packet::{ChecksumVerdict, Packet, TcpPacket, parse};
use crate::wire::tcp_options::{TcpOptions, Timestamps};

const L2: L2Header = L2Header {
    dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
    src: EthernetAddress([2, 0, 0, 0, 0, 2]),
    vlan: VlanTags::NONE,
};

const OUT: TcpHeaderOut = TcpHeaderOut {
    seq: SeqNumber(0x0102_0304),
    ack: SeqNumber(0x0506_0708),
    flags: Flags::ACK,
    window: 0x1234,
    urgent: 0,
    ecn: 2,
};

fn tuple(local: &str, remote: &str) -> FourTuple {
    FourTuple {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    }
}

fn parsed(frame: &[u8]) -> TcpPacket {
    match parse(frame) {
        Ok(Packet::Tcp(p)) => p,
        other => panic!("not TCP: {other:?}"),
    }
}

/// A segment whose bytes were computed apart from this code, field by field and sum by sum.
#[test]
fn an_ipv4_header_byte_for_byte() {
    let template =
        HeaderTemplate::new(L2, &tuple("10.0.0.2:40000", "10.0.0.1:5201"), 0, 64).unwrap();
    let mut out = [0xee; 64];
    let len = template.emit(
        &mut out,
        &OUT,
        &OptionsBuf::new(),
        5,
        checksum::sum(b"hello"),
    );
    let want = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
        0x45, 0x02, 0x00, 0x2d, 0, 0, 0x40, 0, 64, 6, 0x26, 0xc7, 10, 0, 0, 2, 10, 0, 0,
        1, // IP
        0x9c, 0x40, 0x14, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0x12, 0x34, 0x85, 0x21, 0, 0,
    ];
    assert_eq!(&out[..len], want);
    assert!(
        out[len..].iter().all(|b| *b == 0xee),
        "the payload is not touched"
    );
}

#[test]
fn ipv6_carries_traffic_class_and_flow_label() {
    let template = HeaderTemplate::new(L2, &tuple("[fd00::2]:1", "[fd00::1]:2"), 0x2e, 64)
        .unwrap()
        .with_flow_label(0xfff_abcde);
    let mut out = [0; HEADER_MAX];
    let len = template.emit(&mut out, &OUT, &OptionsBuf::new(), 0, Sum::ZERO);
    assert_eq!(len, 74);
    let view = ipv6::View::new_checked(&out[14..len]).unwrap();
    assert_eq!(view.traffic_class(), 0x2e << 2 | 2);
    assert_eq!(view.flow_label(), 0xabcde);
    assert_eq!((view.hop_limit(), view.payload_len()), (64, 20));
}

#[test]
fn mapped_addresses_become_ipv4_and_mixed_families_are_refused() {
    let mapped = tuple("[::ffff:10.0.0.2]:1", "10.0.0.1:2");
    let template = HeaderTemplate::new(L2, &mapped, 0, 64).unwrap();
    assert_eq!(template.header_len(0), 54);
    let mixed = tuple("[fd00::2]:1", "10.0.0.1:2");
    let refused = HeaderTemplate::new(L2, &mixed, 0, 64).unwrap_err();
    assert_eq!(refused, MixedFamilies(mixed.local, mixed.remote));
}

#[test]
fn the_largest_header_fits_the_headroom() {
    let mut vlan = VlanTags::from(Some((ethernet::TPID_SERVICE, 1)));
    assert!(vlan.push(VlanTag {
        tpid: ethernet::TPID_CUSTOMER,
        tci: 2
    }));
    let l2 = L2Header { vlan, ..L2 };
    let template = HeaderTemplate::new(l2, &tuple("[fd00::2]:1", "[fd00::1]:2"), 0, 64).unwrap();
    assert_eq!(template.header_len(tcp::OPTIONS_MAX), HEADER_MAX);
}

#[test]
fn a_burst_of_the_largest_size_is_written_and_a_larger_one_refused() {
    let template = HeaderTemplate::new(L2, &tuple("10.0.0.2:1", "10.0.0.1:2"), 0, 64).unwrap();
    let mut out = [0; HEADER_MAX];
    let options = OptionsBuf::new();
    template.emit_partial(&mut out, &OUT, &options, 65_535 - 40);
    assert_eq!(&out[16..18], &[0xff, 0xff]);
    let too_big = std::panic::catch_unwind(move || {
        template.emit_partial(&mut out, &OUT, &options, 65_536 - 40)
    });
    assert!(too_big.is_err());
}

fn any_tuple() -> impl Strategy<Value = FourTuple> {
    // Ends that packet::parse accepts.
    let v4 = (1u8..224, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d]));
    let v6 = any::<[u8; 15]>().prop_map(|rest| {
        let mut octets = [0xfd; 16];
        octets[1..].copy_from_slice(&rest);
        IpAddr::from(octets)
    });
    let ips = prop_oneof![(v4.clone(), v4).boxed(), (v6.clone(), v6).boxed()];
    (ips, any::<(u16, u16)>()).prop_map(|((a, b), (p, q))| FourTuple {
        local: SocketAddr::new(a, p),
        remote: SocketAddr::new(b, q),
    })
}

fn any_l2() -> impl Strategy<Value = L2Header> {
    let tags = proptest::collection::vec((any::<bool>(), any::<u16>()), 0..=2);
    (any::<([u8; 6], [u8; 6])>(), tags).prop_map(|((dst, src), tags)| {
        let mut vlan = VlanTags::NONE;
        for (service, tci) in tags {
            let tpid = if service {
                ethernet::TPID_SERVICE
            } else {
                ethernet::TPID_CUSTOMER
            };
            assert!(vlan.push(VlanTag { tpid, tci }));
        }
        L2Header {
            dst: EthernetAddress(dst),
            src: EthernetAddress(src),
            vlan,
        }
    })
}

fn any_out() -> impl Strategy<Value = TcpHeaderOut> {
    any::<(u32, u32, u8, u16, u16, u8)>().prop_map(|(seq, ack, flags, window, urgent, ecn)| {
        TcpHeaderOut {
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags: Flags::from_bits(flags),
            window,
            urgent,
            ecn: ecn & 3,
        }
    })
}

fn any_options() -> impl Strategy<Value = OptionsBuf> {
    let timestamps = proptest::option::of(any::<(u32, u32)>());
    (timestamps, proptest::collection::vec(any_option(), 0..3)).prop_map(|(ts, mptcp)| {
        let mut buf = OptionsBuf::new();
        if let Some((tsval, tsecr)) = ts {
            buf.timestamps(Timestamps { tsval, tsecr }).unwrap();
        }
        for option in &mptcp {
            // What does not fit is left out; the comparison is with what was written.
            let _ = buf.mptcp(option);
        }
        buf
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_written_is_read_and_verifies(
        l2 in any_l2(),
        tuple in any_tuple(),
        out in any_out(),
        options in any_options(),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        dscp in 0u8..64,
        ttl: u8,
        label: u32,
    ) {
        let template = HeaderTemplate::new(l2, &tuple, dscp, ttl).unwrap().with_flow_label(label);
        let header_len = template.header_len(options.padded_len());
        let mut frame = vec![0xee; header_len];
        frame.extend(&payload);
        frame.extend([0xaa; 3]); // Ethernet padding
        let sum = checksum::sum(&payload);
        prop_assert_eq!(template.emit(&mut frame, &out, &options, payload.len(), sum), header_len);

        let p = parsed(&frame);
        prop_assert_eq!((p.eth.dst, p.eth.src, p.vlan), (l2.dst, l2.src, l2.vlan));
        prop_assert_eq!(p.tuple.reversed(), tuple);
        let read = TcpHeaderOut {
            seq: p.seq,
            ack: p.ack,
            flags: p.flags,
            window: p.window,
            urgent: p.urgent,
            ecn: p.ecn,
        };
        prop_assert_eq!(read, out);
        prop_assert_eq!(p.ttl, ttl);
        prop_assert_eq!(p.options, TcpOptions::parse(options.as_slice()));
        prop_assert_eq!((p.l3_offset, p.tcp_offset), (template.l3_offset(), template.tcp_offset()));
        prop_assert_eq!(p.payload.clone(), header_len..header_len + payload.len());
        prop_assert_eq!(&frame[p.payload.clone()], &payload[..]);
        prop_assert_eq!(p.verify_checksum(&frame, sum), ChecksumVerdict::Valid);

        // The whole segment sums to zero with its pseudo-header, and a changed bit shows.
        let segment = &frame[p.tcp_offset..p.payload.end];
        prop_assert!(p.pseudo_header_sum.add_bytes(segment).is_zero());
        // One field in 65,536 happens to equal the pseudo-header sum, and then looks partial.
        let field = u16::from_be_bytes([segment[16], segment[17]]);
        let want = if Sum::from_folded(field) == p.pseudo_header_sum {
            ChecksumVerdict::Partial
        } else {
            ChecksumVerdict::Bad
        };
        prop_assert_eq!(p.verify_checksum(&frame, sum.add_u16(1)), want);

        template.emit_partial(&mut frame, &out, &options, payload.len());
        let p = parsed(&frame);
        let verdict = p.verify_checksum(&frame, sum);
        // Both hold when the rest of the segment happens to sum to the complement.
        prop_assert!(matches!(verdict, ChecksumVerdict::Partial | ChecksumVerdict::Valid));
    }
}

#[test]
fn prepared_headers_are_those_of_the_template() {
    let ways = [
        ("10.0.0.1:4000", "10.0.0.2:7"),
        ("[2001:db8::1]:4000", "[2001:db8::2]:7"),
    ];
    for (local, remote) in ways {
        let tuple = FourTuple {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        };
        let l2 = L2Header {
            dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
            src: EthernetAddress([2, 0, 0, 0, 0, 1]),
            vlan: Default::default(),
        };
        let template = HeaderTemplate::new(l2, &tuple, 3, 64).unwrap();
        let mut options = OptionsBuf::new();
        options
            .timestamps(crate::wire::tcp_options::Timestamps {
                tsval: 0xffff_0001,
                tsecr: 7,
            })
            .unwrap();
        for ecn in [0, 2] {
            let header = |seq: u32, flags| TcpHeaderOut {
                seq: SeqNumber(seq),
                ack: SeqNumber(0x8000_0001),
                flags,
                window: 0xfffe,
                urgent: 0,
                ecn,
            };
            let prepared = template.prepare(&header(1, Flags::ACK), &options);
            for n in 0..2000_u32 {
                let seq = n.wrapping_mul(0x9e37_79b1);
                let flags = if n % 7 == 0 {
                    Flags::ACK | Flags::PSH
                } else {
                    Flags::ACK
                };
                let (len, sum) = ((n % 1400) as usize, Sum::from_folded((n * 37) as u16));
                let (mut one, mut other) = ([0xaa; 128], [0x55; 128]);
                let end = template.emit(&mut one, &header(seq, flags), &options, len, sum);
                prepared.emit(&mut other, SeqNumber(seq), flags, len, sum);
                assert_eq!(prepared.len(), end);
                assert_eq!(one[..end], other[..end], "{n}");
                assert_eq!(
                    other[end..],
                    [0x55; 128][end..],
                    "nothing behind is written"
                );
            }
        }
    }
}
