//! Builds frames, right and wrong ones, from the inside out. Checksums stay
//! zero: the program looks at none.

use std::net::{Ipv4Addr, Ipv6Addr};

pub const LOCAL4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const REMOTE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const LOCAL6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION: u8 = 60;

pub const CTAG: u16 = 0x8100;
pub const STAG: u16 = 0x88a8;

/// A whole TCP header without options.
pub fn tcp(source: u16, destination: u16) -> Vec<u8> {
    tcp_with(source, destination, 5, 20)
}

/// `bytes` bytes that begin like a TCP header with the given data offset.
pub fn tcp_with(source: u16, destination: u16, data_offset_words: u8, bytes: usize) -> Vec<u8> {
    let mut header = vec![0; bytes.max(20)];
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&destination.to_be_bytes());
    header[12] = data_offset_words << 4;
    header[13] = 0x10; // ACK
    header.truncate(bytes);
    header
}

pub fn udp(source: u16, destination: u16) -> Vec<u8> {
    let [s0, s1] = source.to_be_bytes();
    let [d0, d1] = destination.to_be_bytes();
    vec![s0, s1, d0, d1, 0, 8, 0, 0]
}

/// An ICMP or ICMPv6 message about `quoted`.
pub fn icmp(message_type: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![message_type, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quoted);
    message
}

/// An IPv4 header, honest unless told otherwise.
pub struct Ipv4 {
    pub version: u8,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub fragment: u16,
    pub options: usize,
    pub header_words: Option<u8>,
    pub total_bytes: Option<u16>,
}

impl Ipv4 {
    pub fn new(protocol: u8) -> Self {
        Self {
            version: 4,
            protocol,
            source: REMOTE4,
            destination: LOCAL4,
            fragment: 0x4000, // don't fragment
            options: 0,
            header_words: None,
            total_bytes: None,
        }
    }

    /// As sent by us.
    pub fn ours(protocol: u8) -> Self {
        Self {
            source: LOCAL4,
            destination: REMOTE4,
            ..Self::new(protocol)
        }
    }

    pub fn around(&self, payload: &[u8]) -> Vec<u8> {
        let header_bytes = 20 + self.options;
        let words = self
            .header_words
            .unwrap_or_else(|| u8::try_from(header_bytes / 4).expect("at most 15"));
        let total = self
            .total_bytes
            .unwrap_or_else(|| u16::try_from(header_bytes + payload.len()).expect("at most 65535"));
        let mut packet = vec![1; header_bytes]; // options: NOPs
        packet[0] = self.version << 4 | words;
        packet[1] = 0;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[4..6].fill(0);
        packet[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        packet[8] = 64;
        packet[9] = self.protocol;
        packet[10..12].fill(0);
        packet[12..16].copy_from_slice(&self.source.octets());
        packet[16..20].copy_from_slice(&self.destination.octets());
        packet.extend_from_slice(payload);
        packet
    }

    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(&[], 0x0800, &self.around(payload))
    }
}

/// An IPv6 header, honest unless told otherwise.
pub struct Ipv6 {
    pub version: u8,
    pub next: u8,
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub payload_bytes: Option<u16>,
}

impl Ipv6 {
    pub fn new(next: u8) -> Self {
        Self {
            version: 6,
            next,
            source: REMOTE6,
            destination: LOCAL6,
            payload_bytes: None,
        }
    }

    /// As sent by us.
    pub fn ours(next: u8) -> Self {
        Self {
            source: LOCAL6,
            destination: REMOTE6,
            ..Self::new(next)
        }
    }

    pub fn around(&self, payload: &[u8]) -> Vec<u8> {
        let bytes = self
            .payload_bytes
            .unwrap_or_else(|| u16::try_from(payload.len()).expect("at most 65535"));
        let mut packet = vec![self.version << 4, 0, 0, 0];
        packet.extend_from_slice(&bytes.to_be_bytes());
        packet.extend_from_slice(&[self.next, 64]);
        packet.extend_from_slice(&self.source.octets());
        packet.extend_from_slice(&self.destination.octets());
        packet.extend_from_slice(payload);
        packet
    }

    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(&[], 0x86dd, &self.around(payload))
    }
}

/// Hop-by-Hop, Destination Options or Routing, `units` times 8 bytes longer
/// than 8, in front of `rest`.
pub fn ext(next: u8, units: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 8 + usize::from(units) * 8];
    header[0] = next;
    header[1] = units;
    header.extend_from_slice(rest);
    header
}

/// A routing header with segments left, in front of `rest`.
pub fn routing(next: u8, segments_left: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = ext(next, 2, rest);
    header[2] = 4; // segment routing
    header[3] = segments_left;
    header
}

/// An IPv6 fragment header in front of `rest`. `offset` is in bytes.
pub fn fragment(next: u8, offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 1]);
    header.extend_from_slice(rest);
    header
}

/// An Ethernet frame with the given tags, outermost first.
pub fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 100]); // VLAN 100
    }
    frame.extend_from_slice(&ether_type.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The same frame to another Ethernet address.
pub fn to_mac(mut frame: Vec<u8>, mac: [u8; 6]) -> Vec<u8> {
    frame[..6].copy_from_slice(&mac);
    frame
}

/// The first `bytes` bytes of a frame.
pub fn cut(mut frame: Vec<u8>, bytes: usize) -> Vec<u8> {
    assert!(
        bytes < frame.len(),
        "{bytes} of {} cuts nothing",
        frame.len()
    );
    frame.truncate(bytes);
    frame
}
