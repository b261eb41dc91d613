//! What middleboxes do to frames.

use crate::checksum::sum;
use crate::wire::packet::{Packet, TcpPacket, parse};
use crate::wire::tcp::Flags;

pub(super) fn tcp(bytes: &[u8]) -> TcpPacket {
    match parse(bytes) {
        Ok(Packet::Tcp(packet)) => packet,
        other => panic!("not TCP: {other:?}"),
    }
}

pub(super) fn is_syn(bytes: &[u8]) -> bool {
    tcp(bytes).flags.contains(Flags::SYN)
}

pub(super) fn has_mptcp(bytes: &[u8]) -> bool {
    !tcp(bytes).options.mptcp.is_empty()
}

pub(super) fn payload_len(bytes: &[u8]) -> usize {
    tcp(bytes).payload.len()
}

/// Recomputes the TCP checksum after a change.
pub(super) fn fix(bytes: &mut [u8]) {
    let packet = tcp(bytes);
    let at = packet.tcp_offset + 16;
    bytes[at..at + 2].fill(0);
    let field = sum(&bytes[packet.tcp_offset..packet.payload.end])
        .combine(packet.pseudo_header_sum, false)
        .finish();
    bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
}

/// Calls `edit` with each MPTCP option, whole.
pub(super) fn each_mptcp(bytes: &mut [u8], mut edit: impl FnMut(&mut [u8])) {
    let packet = tcp(bytes);
    let options = &mut bytes[packet.tcp_offset + 20..packet.payload.start];
    let mut at = 0;
    while at < options.len() {
        let len = match options[at] {
            0 => break,
            1 => 1,
            _ => usize::from(options[at + 1]),
        };
        if options[at] == 30 {
            edit(&mut options[at..at + len]);
        }
        at += len;
    }
    fix(bytes);
}

/// Every MPTCP option becomes NOPs, header length unchanged.
pub(super) fn strip(bytes: &mut [u8]) {
    each_mptcp(bytes, |option| option.fill(1));
}

/// Cuts the payload in two segments, as a TSO engine would.
pub(super) fn split(bytes: &[u8], at: usize) -> [Vec<u8>; 2] {
    let packet = tcp(bytes);
    let mut first = bytes[..packet.payload.start + at].to_vec();
    let mut second = bytes[..packet.payload.start].to_vec();
    second.extend_from_slice(&bytes[packet.payload.start + at..packet.payload.end]);
    let seq_at = packet.tcp_offset + 4;
    let seq = packet.seq + u32::try_from(at).unwrap();
    second[seq_at..seq_at + 4].copy_from_slice(&seq.0.to_be_bytes());
    for part in [&mut first, &mut second] {
        fix_length(part);
    }
    [first, second]
}

/// Appends the payload of `second` to `first`, which keeps its header.
pub(super) fn coalesce(first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut whole = first[..tcp(first).payload.end].to_vec();
    whole.extend_from_slice(&second[tcp(second).payload]);
    fix_length(&mut whole);
    whole
}

/// Sets the IP length to what is there.
fn fix_length(bytes: &mut [u8]) {
    let ip = 14;
    let len = u16::try_from(bytes.len() - ip).unwrap();
    if bytes[ip] >> 4 == 4 {
        bytes[ip + 2..ip + 4].copy_from_slice(&len.to_be_bytes());
        bytes[ip + 10..ip + 12].fill(0);
        let header = sum(&bytes[ip..ip + 20]).finish();
        bytes[ip + 10..ip + 12].copy_from_slice(&header.to_be_bytes());
    } else {
        bytes[ip + 4..ip + 6].copy_from_slice(&(len - 40).to_be_bytes());
    }
    fix(bytes);
}
