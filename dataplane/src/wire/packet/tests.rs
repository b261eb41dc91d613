//! Frames made byte by byte here, not by `offload::header`, so that a mistake shared by
//! writer and reader shows.

use proptest::prelude::*;

use super::*;
use crate::wire::bytes::put;
use crate::wire::ethernet::VlanTag;

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// Ones-complement sum of `bytes`, independent of the `checksum` module.
fn plain_sum(bytes: &[u8], start: u32) -> u16 {
    let mut acc = start;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        acc += u32::from(u16::from_be_bytes([pair[0], low]));
        acc = (acc & 0xffff) + (acc >> 16);
    }
    u16::try_from(acc).unwrap()
}

/// An IPv4 packet with options `ip_options` around `data`, checksummed.
fn ipv4(protocol: u8, ip_options: &[u8], data: &[u8]) -> Vec<u8> {
    let header_len = 20 + ip_options.len();
    let mut b = vec![0; header_len];
    b[0] = 0x40 | u8::try_from(header_len / 4).unwrap();
    b[1] = 0x01;
    put(
        &mut b,
        2,
        &u16::try_from(header_len + data.len())
            .unwrap()
            .to_be_bytes(),
    );
    b[6] = 0x40;
    b[8] = 63;
    b[9] = protocol;
    put(&mut b, 12, &[10, 0, 0, 2]);
    put(&mut b, 16, &[10, 0, 0, 1]);
    put(&mut b, 20, ip_options);
    seal_ipv4(&mut b);
    b.extend(data);
    b
}

/// Computes the header checksum of an IPv4 packet.
fn seal_ipv4(b: &mut [u8]) {
    let header_len = usize::from(b[0] & 0xf) * 4;
    put(b, 10, &[0, 0]);
    let sum = !plain_sum(&b[..header_len], 0);
    put(b, 10, &sum.to_be_bytes());
}

fn ipv6(next_header: u8, data: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 40];
    b[0] = 0x60;
    b[1] = 0x20;
    put(&mut b, 4, &u16::try_from(data.len()).unwrap().to_be_bytes());
    b[6] = next_header;
    b[7] = 61;
    put(
        &mut b,
        8,
        &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    );
    put(
        &mut b,
        24,
        &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    );
    b.extend(data);
    b
}

fn frame(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&MACS[..], &ethertype.to_be_bytes(), packet].concat()
}

/// A segment from port 40000 to 5201 with an MSS option and a zero checksum.
fn segment(payload: &[u8]) -> Vec<u8> {
    let mut b = vec![
        0x9c, 0x40, 0x14, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x60, 0x18, 0x12, 0x34, 0, 0, 0, 9, 2, 4,
        0x05, 0xb4,
    ];
    b.extend(payload);
    b
}

/// Fills in the TCP checksum of `segment` for the addresses of [`ipv4`].
fn seal_tcp_v4(segment: &mut [u8]) {
    let mut pseudo = vec![10, 0, 0, 2, 10, 0, 0, 1, 0, 6];
    pseudo.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
    put(segment, 16, &[0, 0]);
    let sum = !plain_sum(segment, u32::from(plain_sum(&pseudo, 0)));
    put(segment, 16, &sum.to_be_bytes());
}

#[track_caller]
fn tcp(frame: &[u8]) -> TcpPacket {
    match parse(frame) {
        Ok(Packet::Tcp(p)) => p,
        other => panic!("not TCP: {other:?}"),
    }
}

fn verdict(frame: &[u8]) -> ChecksumVerdict {
    let p = tcp(frame);
    p.verify_checksum(frame, checksum::sum(&frame[p.payload.clone()]))
}

#[test]
fn every_field_of_an_ipv4_segment() {
    let mut seg = segment(b"hello");
    seal_tcp_v4(&mut seg);
    let mut f = frame(ethernet::IPV4, &ipv4(6, &[], &seg));
    f.extend([0xaa; 7]); // Ethernet padding
    let p = tcp(&f);
    assert_eq!(p.eth.dst, EthernetAddress([2, 0, 0, 0, 0, 1]));
    assert_eq!(p.eth.src, EthernetAddress([2, 0, 0, 0, 0, 2]));
    assert_eq!(p.vlan, VlanTags::NONE);
    assert_eq!(p.tuple.local, "10.0.0.1:5201".parse().unwrap());
    assert_eq!(p.tuple.remote, "10.0.0.2:40000".parse().unwrap());
    assert_eq!((p.ecn, p.ttl), (1, 63));
    assert_eq!((p.l3_offset, p.tcp_offset), (14, 34));
    assert_eq!(&f[p.payload.clone()], b"hello");
    assert_eq!(p.seq, SeqNumber(0x0102_0304));
    assert_eq!(p.ack, SeqNumber(0x0506_0708));
    assert_eq!(p.flags, Flags::PSH | Flags::ACK);
    assert_eq!((p.window, p.urgent), (0x1234, 9));
    assert_eq!(p.options.mss, Some(1460));
    assert_eq!(verdict(&f), ChecksumVerdict::Valid);
}

#[test]
fn an_ipv6_segment_behind_extension_headers() {
    let seg = segment(b"hello!!");
    let mut data = vec![60, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, then
    data.extend([6, 0, 1, 4, 0, 0, 0, 0]); // destination options
    data.extend(&seg);
    let mut f = frame(ethernet::IPV6, &ipv6(0, &data));
    let mut pseudo = f[22..54].to_vec();
    pseudo.extend([0, 0, 0, u8::try_from(seg.len()).unwrap(), 0, 0, 0, 6]);
    let sum = !plain_sum(&seg, u32::from(plain_sum(&pseudo, 0)));
    put(&mut f, 14 + 40 + 16 + 16, &sum.to_be_bytes());
    let p = tcp(&f);
    assert_eq!((p.l3_offset, p.tcp_offset), (14, 70));
    assert_eq!((p.ecn, p.ttl), (2, 61));
    assert_eq!(p.tuple.local, "[fd00::1]:5201".parse().unwrap());
    assert_eq!(p.tuple.remote, "[fd00::2]:40000".parse().unwrap());
    assert_eq!(&f[p.payload], b"hello!!");
    assert_eq!(verdict(&f), ChecksumVerdict::Valid);
}

#[test]
fn vlan_tags_and_ip_options_move_the_offsets() {
    let packet = ipv4(6, &[1, 1, 1, 0], &segment(b"x"));
    let tagged = [
        &MACS[..],
        &[0x88, 0xa8, 0, 5, 0x81, 0, 0x20, 6, 8, 0],
        &packet,
    ]
    .concat();
    let p = tcp(&tagged);
    let want = [
        VlanTag {
            tpid: 0x88a8,
            tci: 5,
        },
        VlanTag {
            tpid: 0x8100,
            tci: 0x2006,
        },
    ];
    assert_eq!(p.vlan.as_slice(), want);
    assert_eq!((p.l3_offset, p.tcp_offset), (22, 46));
    assert_eq!(&tagged[p.payload], b"x");
}

#[test]
fn checksums_are_judged() {
    let mut seg = segment(b"hello");
    seal_tcp_v4(&mut seg);
    let good = frame(ethernet::IPV4, &ipv4(6, &[], &seg));
    for at in 34..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        // Changes of the data offset change what is payload; not the subject here.
        if at != 46 {
            assert_eq!(verdict(&bad), ChecksumVerdict::Bad, "byte {at}");
        }
    }

    // What Linux leaves: the pseudo-header sum, not complemented.
    let len = u8::try_from(seg.len()).unwrap();
    let partial = plain_sum(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6, 0, len], 0);
    put(&mut seg, 16, &partial.to_be_bytes());
    let f = frame(ethernet::IPV4, &ipv4(6, &[], &seg));
    assert_eq!(verdict(&f), ChecksumVerdict::Partial);
    put(&mut seg, 16, &(!partial).to_be_bytes());
    let f = frame(ethernet::IPV4, &ipv4(6, &[], &seg));
    assert_eq!(verdict(&f), ChecksumVerdict::Bad);
}

#[test]
fn the_payload_of_a_superframe_may_lie_beyond_the_first_buffer() {
    let mut seg = segment(&[0x5a; 9000]);
    seal_tcp_v4(&mut seg);
    let f = frame(ethernet::IPV4, &ipv4(6, &[], &seg));
    let head = &f[..4096];
    let Ok(Packet::Tcp(p)) = parse_head(head, f.len()) else {
        panic!("not parsed")
    };
    assert_eq!(p.payload, 58..f.len());
    let payload = checksum::sum(&f[p.payload.clone()]);
    assert_eq!(p.verify_checksum(head, payload), ChecksumVerdict::Valid);
    assert_eq!(parse(head), Err(ParseError::IpLength));
    for cut in 34..58 {
        let got = parse_head(&f[..cut], f.len());
        assert_eq!(got, Err(ParseError::TcpTruncated), "{cut} bytes");
    }
}

/// Applies `change` to the IP packet of a good IPv4 frame, seals the header, parses.
fn changed_v4(change: impl FnOnce(&mut Vec<u8>)) -> Result<Packet, ParseError> {
    let mut packet = ipv4(6, &[], &segment(b"hello"));
    change(&mut packet);
    seal_ipv4(&mut packet);
    parse(&frame(ethernet::IPV4, &packet))
}

#[test]
fn each_cause_has_its_error() {
    use ParseError as E;
    let good = frame(ethernet::IPV4, &ipv4(6, &[], &segment(b"")));
    assert_eq!(parse(&good[..13]), Err(E::EthernetTruncated));
    let tag = [0x81, 0, 0, 1];
    let deep = [&MACS[..], &tag, &tag, &tag, &[8, 0]].concat();
    assert_eq!(parse(&deep), Err(E::VlanDepth));
    assert_eq!(parse(&frame(0x0806, &[0; 28])), Err(E::EtherType));
    assert_eq!(parse(&good[..33]), Err(E::IpTruncated));
    assert_eq!(parse(&good[..50]), Err(E::IpLength));
    assert_eq!(changed_v4(|b| b[0] = 0x65), Err(E::IpVersion));
    assert_eq!(changed_v4(|b| b[0] = 0x44), Err(E::IpHeaderLength));
    assert_eq!(changed_v4(|b| b[3] = 19), Err(E::IpLength));
    assert_eq!(changed_v4(|b| b[3] += 1), Err(E::IpLength));
    assert_eq!(changed_v4(|b| b[6] = 0x20), Err(E::Fragment));
    assert_eq!(changed_v4(|b| b[7] = 1), Err(E::Fragment));
    assert_eq!(changed_v4(|b| b[12] = 224), Err(E::Address));
    assert_eq!(changed_v4(|b| put(b, 12, &[0; 4])), Err(E::Address));
    assert_eq!(changed_v4(|b| put(b, 16, &[255; 4])), Err(E::Address));
    assert_eq!(changed_v4(|b| b[9] = 17), Err(E::Protocol));
    assert_eq!(changed_v4(|b| b[9] = 58), Err(E::Protocol));
    assert_eq!(changed_v4(|b| b[3] = 39), Err(E::TcpTruncated));
    assert_eq!(changed_v4(|b| b[32] = 0x40), Err(E::TcpDataOffset));
    assert_eq!(changed_v4(|b| b[32] = 0xf0), Err(E::TcpDataOffset));
    let mut bad = good.clone();
    bad[24] ^= 1;
    assert_eq!(parse(&bad), Err(E::IpChecksum));

    let v6 = |next, data: &[u8]| parse(&frame(ethernet::IPV6, &ipv6(next, data)));
    assert_eq!(v6(6, &segment(b"")[..19]), Err(E::TcpTruncated));
    assert_eq!(v6(44, &[6, 0, 0, 1, 0, 0, 0, 1]), Err(E::Fragment));
    assert_eq!(v6(43, &[6, 0, 0, 1, 0, 0, 0, 1]), Err(E::Ipv6Routing));
    assert_eq!(v6(60, &[0, 0, 0, 0, 0, 0, 0, 0]), Err(E::IpTruncated));
    assert_eq!(
        v6(60, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
        Err(E::Ipv6Extension)
    );
    assert_eq!(v6(60, &[6, 9, 0, 0, 0, 0, 0, 0]), Err(E::IpLength));
    assert_eq!(v6(1, &[0; 8]), Err(E::Protocol));
    assert_eq!(
        parse(&frame(ethernet::IPV6, &ipv4(6, &[], &[0; 40]))),
        Err(E::IpVersion)
    );
    let mut group = ipv6(6, &segment(b""));
    group[8] = 0xff;
    assert_eq!(parse(&frame(ethernet::IPV6, &group)), Err(E::Address));
}

#[test]
fn causes_have_distinct_names_and_indices() {
    for (i, e) in ParseError::ALL.iter().enumerate() {
        assert_eq!(e.index(), i);
        let same = ParseError::ALL.iter().filter(|o| o.as_str() == e.as_str());
        assert_eq!(same.count(), 1, "{e}");
    }
}

/// An ICMPv4 error quoting the first `quoted` bytes of a segment of ours.
fn icmp_v4(kind: u8, code: u8, word: u32, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quoted);
    let sum = !plain_sum(&message, 0);
    put(&mut message, 2, &sum.to_be_bytes());
    frame(ethernet::IPV4, &ipv4(1, &[], &message))
}

#[track_caller]
fn icmp(frame: &[u8]) -> IcmpError {
    match parse(frame) {
        Ok(Packet::Icmp(e)) => e,
        other => panic!("not an ICMP error: {other:?}"),
    }
}

#[test]
fn icmp_errors_name_the_flow_from_our_side() {
    let quoted = &ipv4(6, &[1, 1, 1, 0], &segment(b""))[..32];
    let e = icmp(&icmp_v4(3, 4, 1400, quoted));
    assert_eq!(e.kind, IcmpKind::PacketTooBig { mtu: 1400 });
    assert_eq!(e.reporter, "10.0.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(e.tuple.local, "10.0.0.2:40000".parse().unwrap());
    assert_eq!(e.tuple.remote, "10.0.0.1:5201".parse().unwrap());
    assert_eq!(e.seq, SeqNumber(0x0102_0304));
    assert_eq!(
        icmp(&icmp_v4(3, 1, 0, quoted)).kind,
        IcmpKind::Unreachable { code: 1 }
    );
    assert_eq!(
        icmp(&icmp_v4(11, 0, 0, quoted)).kind,
        IcmpKind::TimeExceeded { code: 0 }
    );
    assert_eq!(
        icmp(&icmp_v4(12, 0, 0, quoted)).kind,
        IcmpKind::ParameterProblem { code: 0 }
    );
    // An older router gives no MTU, and may set the unused half word.
    let e = icmp(&icmp_v4(3, 4, 0xffff_0000, quoted));
    assert_eq!(e.kind, IcmpKind::PacketTooBig { mtu: 0 });
}

#[test]
fn icmpv6_errors_are_read_through_extension_headers() {
    let mut quoted = vec![6, 0, 1, 4, 0, 0, 0, 0];
    quoted.extend(segment(b""));
    let quoted = ipv6(60, &quoted);
    for (kind, want) in [
        (1, IcmpKind::Unreachable { code: 3 }),
        (2, IcmpKind::PacketTooBig { mtu: 1280 }),
        (3, IcmpKind::TimeExceeded { code: 3 }),
        (4, IcmpKind::ParameterProblem { code: 3 }),
    ] {
        let mut message = vec![kind, 3, 0, 0, 0, 0, 5, 0];
        message.extend(&quoted);
        let mut f = frame(ethernet::IPV6, &ipv6(58, &message));
        let mut pseudo = f[22..54].to_vec();
        pseudo.extend([0, 0, 0, u8::try_from(message.len()).unwrap(), 0, 0, 0, 58]);
        let sum = !plain_sum(&message, u32::from(plain_sum(&pseudo, 0)));
        put(&mut f, 54 + 2, &sum.to_be_bytes());
        let e = icmp(&f);
        assert_eq!(e.kind, want);
        assert_eq!(e.tuple.local, "[fd00::2]:40000".parse().unwrap());
        assert_eq!(e.seq, SeqNumber(0x0102_0304));
        f[60] ^= 1;
        assert_eq!(parse(&f), Err(ParseError::IcmpChecksum));
    }
}

#[test]
fn icmp_that_is_of_no_use_is_told_apart() {
    use ParseError as E;
    let quoted = &ipv4(6, &[], &segment(b""))[..28];
    assert_eq!(parse(&icmp_v4(8, 0, 0, quoted)), Err(E::IcmpType));
    assert_eq!(
        parse(&icmp_v4(3, 4, 1400, &quoted[..27])),
        Err(E::IcmpTruncated)
    );
    assert_eq!(parse(&icmp_v4(3, 4, 1400, &[])), Err(E::IcmpTruncated));
    assert_eq!(
        parse(&frame(ethernet::IPV4, &ipv4(1, &[], &[3; 7]))),
        Err(E::IcmpTruncated)
    );
    assert_eq!(
        parse(&icmp_v4(3, 4, 1400, &ipv4(17, &[], &[0; 8]))),
        Err(E::IcmpQuote)
    );
    let mut later_fragment = quoted.to_vec();
    later_fragment[7] = 1;
    assert_eq!(
        parse(&icmp_v4(3, 4, 1400, &later_fragment)),
        Err(E::IcmpQuote)
    );
    let mut f = icmp_v4(3, 4, 1400, quoted);
    f[41] ^= 1;
    assert_eq!(parse(&f), Err(E::IcmpChecksum));
}

/// A good frame of some kind, to be damaged.
fn any_good_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..64);
    (0..4, payload).prop_map(|(kind, payload)| match kind {
        0 => frame(ethernet::IPV4, &ipv4(6, &[], &segment(&payload))),
        1 => frame(ethernet::IPV6, &ipv6(6, &segment(&payload))),
        2 => icmp_v4(3, 4, 1400, &ipv4(6, &[], &segment(&payload))),
        _ => {
            let packet = ipv4(6, &[1; 8], &segment(&payload));
            [&MACS[..], &[0x81, 0, 0, 5, 8, 0], &packet].concat()
        }
    })
}

/// What every parsed packet must satisfy, whatever the bytes were.
fn check_bounds(head: &[u8], frame_len: usize) -> Result<(), TestCaseError> {
    if let Ok(Packet::Tcp(p)) = parse_head(head, frame_len) {
        prop_assert!(p.l3_offset < p.tcp_offset && p.tcp_offset + 20 <= p.payload.start);
        prop_assert!(p.payload.start <= p.payload.end && p.payload.end <= frame_len);
        prop_assert!(p.payload.start <= head.len());
        let _ = p.verify_checksum(head, Sum::ZERO);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60_000))]

    #[test]
    fn damaged_frames_never_panic(
        mut f in any_good_frame(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        reseal: bool,
        beyond in 0usize..3000,
    ) {
        for (at, value) in damage {
            let at = at.index(f.len());
            f[at] = value;
        }
        // A wrong header checksum would hide most of what lies behind it.
        if reseal && f[12..14] == [8, 0] && f.len() >= 14 + usize::from(f[14] & 0xf).max(5) * 4 {
            seal_ipv4(&mut f[14..]);
        }
        check_bounds(&f, f.len())?;
        let cut = cut.index(f.len());
        check_bounds(&f[..cut], cut)?;
        check_bounds(&f[..cut], cut + beyond)?;
    }

    #[test]
    fn random_frames_never_panic(
        mut f in proptest::collection::vec(any::<u8>(), 0..120),
        ethertype in prop::sample::select(&[0x0800u16, 0x86dd, 0x8100, 0x88a8][..]),
    ) {
        if f.len() >= 15 {
            put(&mut f, 12, &ethertype.to_be_bytes());
            f[14] = if ethertype == 0x0800 { 0x45 } else { 0x60 };
        }
        check_bounds(&f, f.len())?;
    }
}
