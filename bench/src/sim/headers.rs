//! What routers do to IP headers: mark congestion, and report that a packet is too big.

use std::net::{Ipv4Addr, Ipv6Addr};

use braid_dataplane::checksum;
use braid_dataplane::wire::packet::{self, ChecksumVerdict, Packet};
use braid_dataplane::wire::{ethernet, ipv4, ipv6};

const ETHERNET: usize = ethernet::HEADER_LEN;

/// ECN field values (RFC 3168 §5).
const NOT_ECT: u8 = 0;
const CE: u8 = 3;

/// Sets "congestion experienced" if the transport understands it; true if it does.
pub(super) fn mark_congestion(frame: &mut [u8]) -> bool {
    let Some((_, ip)) = frame.split_at_mut_checked(ETHERNET) else {
        return false;
    };
    if let Ok(mut view) = ipv4::View::new_checked(&mut *ip) {
        let capable = view.ecn() != NOT_ECT;
        if capable {
            view.set_ecn(CE);
            view.fill_checksum();
        }
        return capable;
    }
    if let Ok(mut view) = ipv6::View::new_checked(&mut *ip) {
        let capable = view.ecn() != NOT_ECT;
        if capable {
            view.set_ecn(CE);
        }
        return capable;
    }
    false
}

/// Whether the checksum of a TCP segment is that of its pseudo-header, as in a frame whose
/// sender leaves the rest to a NIC.
pub(super) fn awaits_checksum(frame: &[u8]) -> bool {
    let Ok(Packet::Tcp(tcp)) = packet::parse(frame) else {
        return false;
    };
    let payload = frame.get(tcp.payload.clone()).unwrap_or_default();
    tcp.verify_checksum(frame, checksum::sum(payload)) == ChecksumVerdict::Partial
}

/// The ICMP message that a router of `link` sends back for a frame larger than `mtu`.
/// `None` if the frame is no IP packet.
pub(super) fn too_big(frame: &[u8], link: usize, mtu: u32) -> Option<Vec<u8>> {
    let ip = frame.get(ETHERNET..)?;
    let subnet = u8::try_from(link).unwrap_or(255);
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&frame[6..12]);
    out.extend_from_slice(&frame[0..6]);
    out.extend_from_slice(&frame[12..ETHERNET]);
    match ip.first()? >> 4 {
        4 if ip.len() >= 28 => {
            // RFC 1812 §4.3.2.3: at least the header and 8 bytes; we quote 40 more.
            let quote = &ip[..ip.len().min(usize::from(ip[0] & 15) * 4 + 48)];
            let router = Ipv4Addr::new(10, 77, subnet, 254);
            let length = u16::try_from(20 + 8 + quote.len()).ok()?;
            let mut header = [0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[8] = 64;
            header[9] = ipv4::PROTOCOL_ICMP;
            header[12..16].copy_from_slice(&router.octets());
            header[16..20].copy_from_slice(&ip[12..16]);
            let sum = checksum::sum(&header).finish();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&header);
            let mut message = vec![3, 4, 0, 0, 0, 0];
            message.extend_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
            message.extend_from_slice(quote);
            let sum = checksum::sum(&message).finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&message);
        }
        6 if ip.len() >= 48 => {
            let quote = &ip[..ip.len().min(40 + 48)];
            let group = u16::from(subnet);
            let router = Ipv6Addr::new(0xfd77, group, 0, 0, 0, 0, 0, 254);
            let length = u16::try_from(8 + quote.len()).ok()?;
            const ICMPV6: u8 = 58;
            let mut header = [0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = ICMPV6;
            header[7] = 64;
            header[8..24].copy_from_slice(&router.octets());
            header[24..40].copy_from_slice(&ip[8..24]);
            out.extend_from_slice(&header);
            let mut message = vec![2, 0, 0, 0];
            message.extend_from_slice(&mtu.to_be_bytes());
            message.extend_from_slice(quote);
            // Pseudo-header (RFC 8200 §8.1).
            let sum = checksum::sum(&message)
                .add_bytes(&header[8..40])
                .add_u32(u32::from(length))
                .add_u16(u16::from(ICMPV6))
                .finish();
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&message);
        }
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_dataplane::wire::packet::{self, IcmpKind, Packet};
    use std::net::SocketAddr;

    /// A frame of a bare ACK from port 1000 to port 2000.
    fn frame(ipv6: bool, ecn: u8) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if ipv6 {
            out.extend_from_slice(&[0x86, 0xdd, 0x60, ecn << 4, 0, 0, 0, 20, 6, 64]);
            for host in [1, 2] {
                out.extend_from_slice(&Ipv6Addr::new(0xfd77, 3, 0, 0, 0, 0, 0, host).octets());
            }
        } else {
            let mut ip = [
                0x45, ecn, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 3, 1, 10, 77, 3, 2,
            ];
            let sum = checksum::sum(&ip).finish();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend_from_slice(&[8, 0]);
            out.extend_from_slice(&ip);
        }
        out.extend_from_slice(&[3, 232, 7, 208, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x10]);
        out.extend_from_slice(&[0; 6]);
        out
    }

    #[test]
    fn only_capable_transports_are_marked_and_the_packet_stays_valid() {
        for ipv6 in [false, true] {
            for ecn in 0..4 {
                let mut bytes = frame(ipv6, ecn);
                assert_eq!(mark_congestion(&mut bytes), ecn != NOT_ECT);
                let Ok(Packet::Tcp(tcp)) = packet::parse(&bytes) else {
                    panic!("not a segment any more");
                };
                assert_eq!(tcp.ecn, if ecn == NOT_ECT { NOT_ECT } else { CE });
            }
        }
    }

    #[test]
    fn a_packet_that_is_too_big_is_reported_to_its_flow() {
        for (ipv6, local, remote) in [
            (false, "10.77.3.1:1000", "10.77.3.2:2000"),
            (true, "[fd77:3::1]:1000", "[fd77:3::2]:2000"),
        ] {
            let message = too_big(&frame(ipv6, 0), 3, 1300).expect("an IP packet");
            let Ok(Packet::Icmp(error)) = packet::parse(&message) else {
                panic!("{:?}", packet::parse(&message));
            };
            assert_eq!(error.kind, IcmpKind::PacketTooBig { mtu: 1300 });
            let parse = |s: &str| s.parse::<SocketAddr>().expect("an address");
            assert_eq!(
                (error.tuple.local, error.tuple.remote),
                (parse(local), parse(remote))
            );
        }
    }
}
