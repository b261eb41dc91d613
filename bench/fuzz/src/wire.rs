//! The wire parsers: whole frames, split frames, option areas, single MPTCP options, ICMP
//! errors.
//!
//! The first byte chooses what the rest is. Checksums that no mutation would ever hit are
//! repaired first, so that what lies behind them is reached.

use std::net::IpAddr;

use braid_dataplane::checksum::{Sum, sum};
use braid_dataplane::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use braid_dataplane::wire::ethernet;
use braid_dataplane::wire::mptcp::MptcpOption;
use braid_dataplane::wire::packet::{ChecksumVerdict, Packet, TcpPacket, parse, parse_head};
use braid_dataplane::wire::tcp_options::{OptionsBuf, TcpOptions};

use crate::bytes::Bytes;

/// Longest frame that is looked at whole; buffers live on the stack.
const FRAME_MAX: usize = 512;

/// One run.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.u8() % 5 {
        0 => {
            let split = usize::from(bytes.u8());
            frame(bytes.rest(), split);
        }
        mode @ (1 | 2) => {
            let split = usize::from(bytes.u8());
            let mut buffer = [0; FRAME_MAX];
            let len = bytes.rest().len().min(FRAME_MAX);
            buffer[..len].copy_from_slice(&bytes.rest()[..len]);
            repair(&mut buffer[..len], mode == 2);
            frame(&buffer[..len], split);
        }
        3 => options(bytes.rest()),
        _ => option(bytes.rest()),
    }
}

/// A frame, whole and with only its first bytes at hand.
fn frame(frame: &[u8], split: usize) {
    let whole = parse(frame);
    let head = &frame[..split.min(frame.len())];
    let split = parse_head(head, frame.len());
    match &whole {
        Ok(Packet::Tcp(packet)) => {
            tcp(frame, packet);
            if head.len() >= packet.payload.start {
                assert_eq!(split, whole, "all headers were at hand");
            }
        }
        Ok(Packet::Icmp(error)) => {
            assert_eq!(
                error.tuple.local.is_ipv4(),
                error.reporter.is_ipv4(),
                "a quote is of its reporter's family"
            );
        }
        Err(error) => {
            assert!(!error.as_str().is_empty());
        }
    }
    if split.is_ok() {
        assert_eq!(split, whole, "less of a frame says something else");
    }
}

fn tcp(frame: &[u8], packet: &TcpPacket) {
    assert!(packet.l3_offset < packet.tcp_offset);
    assert!(packet.tcp_offset + 20 <= packet.payload.start);
    assert!(packet.payload.start <= packet.payload.end && packet.payload.end <= frame.len());
    let payload = &frame[packet.payload.clone()];
    let payload_sum = sum(payload);
    let verdict = packet.verify_checksum(frame, payload_sum);
    if verdict == ChecksumVerdict::Partial {
        assert!(packet.has_partial_checksum(frame));
    }

    // What was understood can be said again, and then means the same.
    let Some(area) = emit(&packet.options) else {
        return;
    };
    let l2 = L2Header {
        dst: packet.eth.dst,
        src: packet.eth.src,
        vlan: packet.vlan,
    };
    let template = HeaderTemplate::new(l2, &packet.tuple.reversed(), 0, packet.ttl);
    let Ok(template) = template else {
        // An IPv4-mapped address at one end only.
        let mapped = |ip: IpAddr| ip.is_ipv6() && ip.to_canonical().is_ipv4();
        let (local, remote) = (packet.tuple.local.ip(), packet.tuple.remote.ip());
        assert_ne!(mapped(local), mapped(remote), "both ends are of one family");
        return;
    };
    let header = TcpHeaderOut {
        seq: packet.seq,
        ack: packet.ack,
        flags: packet.flags,
        window: packet.window,
        urgent: packet.urgent,
        ecn: packet.ecn,
    };
    let mut out = [0; FRAME_MAX + 128];
    let len = template.emit(&mut out, &header, &area, payload.len(), payload_sum);
    out[len..len + payload.len()].copy_from_slice(payload);
    let again = match parse(&out[..len + payload.len()]) {
        Ok(Packet::Tcp(again)) => again,
        // Mapped addresses become plain ones, of which more are refused.
        Err(_) if packet.tuple.local.ip() != packet.tuple.local.ip().to_canonical() => return,
        other => panic!("what was written is not read: {other:?}"),
    };
    assert_eq!(
        again.verify_checksum(&out, payload_sum),
        ChecksumVerdict::Valid
    );
    assert_eq!(
        (again.eth, again.vlan, again.ecn, again.ttl),
        (packet.eth, packet.vlan, packet.ecn, packet.ttl)
    );
    assert_eq!(
        (again.seq, again.ack, again.flags),
        (packet.seq, packet.ack, packet.flags)
    );
    assert_eq!((again.window, again.urgent), (packet.window, packet.urgent));
    assert_eq!(&out[again.payload.clone()], payload);
    assert_same(&again.options, &packet.options);
}

/// Writes options again; `None` if alignment leaves no room for all.
fn emit(options: &TcpOptions) -> Option<OptionsBuf> {
    let mut out = OptionsBuf::new();
    if let Some(mss) = options.mss {
        out.mss(mss).ok()?;
    }
    if options.sack_permitted {
        out.sack_permitted().ok()?;
    }
    if let Some(timestamps) = options.timestamps {
        out.timestamps(timestamps).ok()?;
    }
    if let Some(shift) = options.window_scale {
        out.window_scale(shift).ok()?;
    }
    if let Some(cookie) = &options.fast_open {
        out.fast_open(cookie).ok()?;
    }
    for option in &options.mptcp {
        out.mptcp(option).ok()?;
    }
    (out.sack(&options.sack) == options.sack.len()).then_some(out)
}

fn is_understood(option: &&MptcpOption) -> bool {
    !matches!(
        option,
        MptcpOption::Unknown { .. } | MptcpOption::Malformed { .. }
    )
}

fn assert_same(again: &TcpOptions, first: &TcpOptions) {
    assert!(!again.malformed, "we write no malformed options");
    assert_eq!(
        (again.mss, again.window_scale, again.sack_permitted),
        (first.mss, first.window_scale, first.sack_permitted)
    );
    assert_eq!(
        (again.timestamps, again.sack, again.fast_open),
        (first.timestamps, first.sack, first.fast_open)
    );
    assert!(
        again
            .mptcp
            .iter()
            .eq(first.mptcp.iter().filter(is_understood)),
        "{:?} became {:?}",
        first.mptcp,
        again.mptcp
    );
}

/// An option area of any length.
fn options(area: &[u8]) {
    let parsed = TcpOptions::parse(area);
    if let Some(out) = emit(&parsed) {
        assert!(out.as_slice().len() <= 40 && out.as_slice().len().is_multiple_of(4));
        let again = TcpOptions::parse(out.as_slice());
        assert_same(&again, &parsed);
        // Writing is a fixed point: what we say is what we would say again.
        assert_eq!(emit(&again), Some(out));
    }
}

/// One MPTCP option.
fn option(bytes: &[u8]) {
    // Kind and length are as the option area's reader would have had them.
    let mut whole = [0; 255];
    let len = bytes.len().min(253) + 2;
    whole[2..len].copy_from_slice(&bytes[..len - 2]);
    (whole[0], whole[1]) = (30, u8::try_from(len).expect("at most 255"));
    let parsed = MptcpOption::parse(&whole[..len]);
    assert_eq!(
        parsed.subtype(),
        match parsed {
            MptcpOption::Malformed { subtype, .. } => subtype,
            _ => whole[2] >> 4,
        }
    );
    let mut out = [0xaa; 64];
    let written = parsed.emit(&mut out);
    assert_eq!(written, parsed.encoded_len());
    assert!(out[written..].iter().all(|byte| *byte == 0xaa));
    if is_understood(&&parsed) {
        assert!(written <= len, "it grew");
        assert_eq!(MptcpOption::parse(&out[..written]), parsed);
    }
}

/// Makes lengths and checksums of IP and ICMP right, as far as they lie within the frame; with
/// `tcp`, that of TCP too.
fn repair(frame: &mut [u8], tcp: bool) {
    let Ok(eth) = ethernet::View::new_checked(&*frame) else {
        return;
    };
    let (ethertype, at) = (eth.ethertype(), eth.header_len());
    let len = frame.len();
    let (protocol, upper, addresses) = match ethertype {
        ethernet::IPV4 if len >= at + 20 => {
            let header = (usize::from(frame[at] & 0x0f) * 4).clamp(20, 60);
            if at + header > len {
                return;
            }
            frame[at] = 0x40 | frame[at] & 0x0f;
            put16(frame, at + 2, len - at);
            if tcp {
                // No fragment.
                (frame[at + 6], frame[at + 7]) = (0x40, 0);
            }
            put16(frame, at + 10, 0);
            let check = sum(&frame[at..at + header]).finish();
            put16(frame, at + 10, check.into());
            (frame[at + 9], at + header, at + 12..at + 20)
        }
        ethernet::IPV6 if len >= at + 40 => {
            frame[at] = 0x60 | frame[at] & 0x0f;
            put16(frame, at + 4, len - at - 40);
            (frame[at + 6], at + 40, at + 8..at + 40)
        }
        _ => return,
    };
    let pseudo = sum(&frame[addresses])
        .add_u16(protocol.into())
        .add_u64((len - upper) as u64);
    let (field, start) = match protocol {
        1 => (2, Sum::ZERO),
        58 => (2, pseudo),
        6 if tcp => (16, pseudo),
        _ => return,
    };
    if upper + field + 2 > len {
        return;
    }
    put16(frame, upper + field, 0);
    let check = start.add_bytes(&frame[upper..]).finish();
    put16(frame, upper + field, check.into());
}

fn put16(frame: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).unwrap_or(u16::MAX);
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
