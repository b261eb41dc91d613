//! Segmentation in software: what a NIC or the kernel does with a burst that a port takes
//! whole. For ports without such a device: the memory link.

use crate::checksum::{self, Sum};
use crate::wire::bytes::{put, u32_at};
use crate::wire::packet::{self, Packet};
use crate::wire::tcp::{self, Flags, SeqNumber};
use crate::wire::{ipv4, ipv6};

/// Frames of one burst at the most. The kernel allows `UIO_MAXIOV` slices; where segments are
/// small, this many are fewer bytes than a port takes.
pub const BURST_FRAMES_MAX: usize = 128;

/// What a port must know of a burst: one set of headers in front of the payload of several
/// consecutive segments. Lengths in the headers are those of the whole burst, the TCP
/// checksum field holds the sum of its pseudo-header
/// ([`HeaderTemplate::emit_partial`](super::HeaderTemplate::emit_partial)).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct BurstShape {
    /// Bytes of all headers.
    pub header_len: usize,
    /// Where the TCP header starts.
    pub tcp_offset: usize,
    /// Payload of every segment but the last, which may have less.
    pub segment_bytes: u16,
    /// The IP version is 6.
    pub ipv6: bool,
}

/// Cuts a burst into the segments it stands for, each with complete checksums. FIN and PSH
/// go with the last only.
pub fn segment(headers: &[u8], shape: &BurstShape, payload: &[u8], mut emit: impl FnMut(&[u8])) {
    let step = usize::from(shape.segment_bytes.max(1));
    let seq = SeqNumber(u32_at(headers, shape.tcp_offset + 4));
    let mut packet = Vec::with_capacity(headers.len() + step);
    let mut done = 0;
    for part in payload.chunks(step) {
        packet.clear();
        packet.extend_from_slice(headers);
        packet.extend_from_slice(part);
        let offset = u32::try_from(done).unwrap_or(u32::MAX);
        done += part.len();
        finish(&mut packet, shape, seq + offset, done == payload.len());
        emit(&packet);
    }
}

/// Makes the headers of the burst those of one segment.
fn finish(packet: &mut [u8], shape: &BurstShape, seq: SeqNumber, last: bool) {
    let tcp = shape.tcp_offset;
    put(packet, tcp + 4, &seq.0.to_be_bytes());
    if !last {
        packet[tcp + 13] &= !(Flags::FIN | Flags::PSH).bits();
    }
    if shape.ipv6 {
        let length = packet.len() - tcp;
        put(packet, tcp - ipv6::HEADER_LEN + 4, &be16(length));
    } else {
        let l3 = tcp - ipv4::HEADER_LEN;
        let length = packet.len() - l3;
        put(packet, l3 + 2, &be16(length));
        put(packet, l3 + 10, &[0, 0]);
        let sum = checksum::sum(&packet[l3..tcp]).finish();
        put(packet, l3 + 10, &sum.to_be_bytes());
    }
    put(packet, tcp + tcp::CHECKSUM_OFFSET, &[0, 0]);
    if let Ok(Packet::Tcp(parsed)) = packet::parse(packet) {
        let payload = checksum::sum(&packet[shape.header_len..]);
        let sum: Sum = parsed.header_sum(packet).combine(payload, false);
        put(
            packet,
            tcp + tcp::CHECKSUM_OFFSET,
            &sum.finish().to_be_bytes(),
        );
    }
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
    use crate::wire::ethernet::EthernetAddress;
    use crate::wire::packet::ChecksumVerdict;
    use crate::wire::tcp_options::OptionsBuf;
    use crate::wire::types::FourTuple;

    #[test]
    fn segments_are_what_the_burst_says() {
        for (local, remote) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let tuple = FourTuple {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
            };
            let l2 = L2Header {
                dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
                src: EthernetAddress([2, 0, 0, 0, 0, 1]),
                vlan: Default::default(),
            };
            let template = HeaderTemplate::new(l2, &tuple, 0, 64).unwrap();
            let header = TcpHeaderOut {
                seq: SeqNumber(u32::MAX - 1499),
                ack: SeqNumber(7),
                flags: Flags::ACK | Flags::PSH,
                window: 99,
                urgent: 0,
                ecn: 0,
            };
            let payload: Vec<u8> = (0..3500u32).map(|n| (n % 251) as u8).collect();
            let mut headers = [0; 128];
            let len =
                template.emit_partial(&mut headers, &header, &OptionsBuf::new(), payload.len());
            let shape = BurstShape {
                header_len: len,
                tcp_offset: template.tcp_offset(),
                segment_bytes: 1500,
                ipv6: tuple.local.is_ipv6(),
            };
            let mut got = Vec::new();
            let mut seqs = Vec::new();
            segment(&headers[..len], &shape, &payload, |packet| {
                let Ok(Packet::Tcp(tcp)) = packet::parse(packet) else {
                    panic!("not TCP");
                };
                let part = &packet[tcp.payload.clone()];
                let verdict = tcp.verify_checksum(packet, checksum::sum(part));
                assert_eq!(verdict, ChecksumVerdict::Valid);
                seqs.push((tcp.seq.0, tcp.flags.contains(Flags::PSH)));
                got.extend_from_slice(part);
            });
            assert_eq!(got, payload);
            assert_eq!(
                seqs,
                [(u32::MAX - 1499, false), (0, false), (1500, true)],
                "the sequence wraps, only the last pushes"
            );
        }
    }
}
