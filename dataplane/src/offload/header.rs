//! Headers from a template: Ethernet, IP and TCP of one subflow, written in place.
//!
//! What is the same in every segment of a subflow is laid out and summed once. Each segment
//! then costs one copy of the fixed bytes, the changing fields and two short sums; the payload
//! is never read, because its sum is passed in.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{self, Sum};
use crate::wire::bytes::put;
use crate::wire::ethernet::{self, EthernetAddress, VlanTags};
use crate::wire::packet::{address_sum, pseudo_header_sum};
use crate::wire::tcp::{self, Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;
use crate::wire::types::FourTuple;
use crate::wire::{ipv4, ipv6};

/// Bytes of Ethernet header with two tags and IPv6 header.
const FIXED_MAX: usize =
    ethernet::HEADER_LEN + ethernet::TAGS_MAX * ethernet::TAG_LEN + ipv6::HEADER_LEN;

/// Headroom that any header fits into.
pub const HEADER_MAX: usize = FIXED_MAX + tcp::HEADER_LEN + tcp::OPTIONS_MAX;

/// Headers are copied in blocks of this size, two of which any header fits into.
const HALF: usize = 64;
const HEADER_ROOM: usize = 2 * HALF;
const _: () = assert!(HEADER_MAX <= HEADER_ROOM);

/// How a frame gets to the next hop.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct L2Header {
    /// MAC address of the next hop.
    pub dst: EthernetAddress,
    /// MAC address of the interface.
    pub src: EthernetAddress,
    /// VLAN tags, outermost first.
    pub vlan: VlanTags,
}

/// The fields of a segment that change from one to the next.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TcpHeaderOut {
    /// SEG.SEQ
    pub seq: SeqNumber,
    /// SEG.ACK
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, scaled as it goes out.
    pub window: u16,
    /// SEG.UP
    pub urgent: u16,
    /// ECN field of the IP header.
    pub ecn: u8,
}

/// The headers of one subflow, all but what changes.
#[derive(Clone, Debug)]
pub struct HeaderTemplate {
    /// Ethernet and IP header, lengths, ECN and checksum zero.
    fixed: [u8; FIXED_MAX],
    l3_offset: u8,
    tcp_offset: u8,
    v6: bool,
    src_port: u16,
    dst_port: u16,
    /// Sum of the IPv4 header as it stands in `fixed`.
    ip_sum: Sum,
    /// Sum of the addresses.
    addresses: Sum,
}

impl HeaderTemplate {
    /// Lays out the headers from `tuple.local` to `tuple.remote`.
    ///
    /// IPv4 packets are atomic: DF is set, so the identification may be 0 (RFC 6864 §4.1).
    /// An IPv4 address may come IPv4-mapped; both ends must be of one family.
    ///
    /// # Errors
    ///
    /// [`MixedFamilies`] if they are not.
    pub fn new(l2: L2Header, tuple: &FourTuple, dscp: u8, ttl: u8) -> Result<Self, MixedFamilies> {
        let (src, dst) = (
            tuple.local.ip().to_canonical(),
            tuple.remote.ip().to_canonical(),
        );
        let v6 = src.is_ipv6();
        let eth = ethernet::Repr {
            dst: l2.dst,
            src: l2.src,
            vlan: l2.vlan,
            ethertype: if v6 { ethernet::IPV6 } else { ethernet::IPV4 },
        };
        let l3_offset = eth.header_len();
        let mut fixed = [0; FIXED_MAX];
        eth.emit(&mut fixed);

        let ip = &mut fixed[l3_offset..];
        let traffic_class = dscp << 2;
        let ip_len = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                put(ip, 0, &[0x45, traffic_class]);
                put(ip, 6, &ipv4::DONT_FRAGMENT.to_be_bytes());
                put(ip, 8, &[ttl, ipv4::PROTOCOL_TCP]);
                put(ip, 12, &src.octets());
                put(ip, 16, &dst.octets());
                ipv4::HEADER_LEN
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                put(ip, 0, &[0x60 | (traffic_class >> 4), traffic_class << 4]);
                put(ip, 6, &[ipv4::PROTOCOL_TCP, ttl]);
                put(ip, 8, &src.octets());
                put(ip, 24, &dst.octets());
                ipv6::HEADER_LEN
            }
            _ => return Err(MixedFamilies(tuple.local, tuple.remote)),
        };
        Ok(Self {
            ip_sum: checksum::sum(&ip[..ip_len]),
            fixed,
            // Both are at most FIXED_MAX.
            l3_offset: l3_offset as u8,
            tcp_offset: (l3_offset + ip_len) as u8,
            v6,
            src_port: tuple.local.port(),
            dst_port: tuple.remote.port(),
            addresses: address_sum(&src, &dst),
        })
    }

    /// Sends to another hardware address from now on.
    pub fn set_next_hop(&mut self, mac: EthernetAddress) {
        self.fixed[..6].copy_from_slice(&mac.0);
    }

    /// Sets the IPv6 flow label (RFC 6437 §3 wants one per flow); no effect on IPv4.
    #[must_use]
    pub fn with_flow_label(mut self, label: u32) -> Self {
        if self.v6 {
            let at = usize::from(self.l3_offset);
            let [_, high, mid, low] = label.to_be_bytes();
            self.fixed[at + 1] = (self.fixed[at + 1] & 0xf0) | (high & 0x0f);
            put(&mut self.fixed, at + 2, &[mid, low]);
        }
        self
    }

    /// Bytes of all headers with this many bytes of (padded) options.
    #[inline]
    #[must_use]
    pub fn header_len(&self, options_len: usize) -> usize {
        self.tcp_offset() + tcp::HEADER_LEN + options_len
    }

    /// Where the IP header starts.
    #[inline]
    #[must_use]
    pub fn l3_offset(&self) -> usize {
        usize::from(self.l3_offset)
    }

    /// Where the TCP header starts (`csum_start` of a vnet header).
    #[inline]
    #[must_use]
    pub fn tcp_offset(&self) -> usize {
        usize::from(self.tcp_offset)
    }

    /// Writes the headers to the front of `out`, where `payload_len` bytes whose sum is
    /// `payload_sum` follow, and returns their length.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than the headers, or if segment and IP header exceed 65,535 bytes.
    #[inline]
    pub fn emit(
        &self,
        out: &mut [u8],
        h: &TcpHeaderOut,
        options: &OptionsBuf,
        payload_len: usize,
        payload_sum: Sum,
    ) -> usize {
        let (tcp, pseudo) = self.emit_without_checksum(out, h, options, payload_len);
        // The header is whole words, so the payload is at an even offset.
        let sum = pseudo.add_bytes(tcp).combine(payload_sum, false);
        put(tcp, tcp::CHECKSUM_OFFSET, &sum.finish().to_be_bytes());
        self.tcp_offset() + tcp.len()
    }

    /// [`HeaderTemplate::emit`] for a port that completes the checksum: the field holds the
    /// pseudo-header sum of the whole burst, not complemented (Linux's CHECKSUM_PARTIAL).
    ///
    /// # Panics
    ///
    /// As [`HeaderTemplate::emit`].
    #[inline]
    pub fn emit_partial(
        &self,
        out: &mut [u8],
        h: &TcpHeaderOut,
        options: &OptionsBuf,
        payload_len: usize,
    ) -> usize {
        let (tcp, pseudo) = self.emit_without_checksum(out, h, options, payload_len);
        put(tcp, tcp::CHECKSUM_OFFSET, &pseudo.fold().to_be_bytes());
        self.tcp_offset() + tcp.len()
    }

    /// The headers of a train: segments that share options, acknowledgment, window and ECN.
    #[must_use]
    pub fn prepare(&self, h: &TcpHeaderOut, options: &OptionsBuf) -> Prepared {
        let mut bytes = [0; HEADER_ROOM];
        let without_seq = TcpHeaderOut {
            seq: SeqNumber(0),
            flags: Flags::empty(),
            ..*h
        };
        let (tcp, _) = self.emit_without_checksum(&mut bytes, &without_seq, options, 0);
        let tcp_len = tcp.len();
        Prepared {
            sum: checksum::sum(tcp).combine(
                pseudo_header_sum(self.addresses, ipv4::PROTOCOL_TCP, tcp_len),
                false,
            ),
            ip_sum: self.ip_sum.add_u16(u16::from(h.ecn & 0x03)),
            bytes,
            l3_offset: self.l3_offset(),
            tcp_offset: self.tcp_offset(),
            len: self.tcp_offset() + tcp_len,
            v6: self.v6,
        }
    }

    /// Writes everything but the TCP checksum; returns the TCP header and the sum of its
    /// pseudo-header.
    #[inline]
    fn emit_without_checksum<'a>(
        &self,
        out: &'a mut [u8],
        h: &TcpHeaderOut,
        options: &OptionsBuf,
        payload_len: usize,
    ) -> (&'a mut [u8], Sum) {
        let options = options.as_slice();
        let (fixed, rest) = out.split_at_mut(self.tcp_offset());
        let tcp = &mut rest[..tcp::HEADER_LEN + options.len()];
        let segment_len = tcp.len() + payload_len;

        fixed.copy_from_slice(&self.fixed[..self.tcp_offset()]);
        self.finish_ip(&mut fixed[self.l3_offset()..], segment_len, h.ecn & 0x03);

        let (header, tcp_options) = tcp.split_first_chunk_mut().expect("sliced above");
        let repr = tcp::Repr {
            src_port: self.src_port,
            dst_port: self.dst_port,
            seq: h.seq,
            ack: h.ack,
            flags: h.flags,
            window: h.window,
            urgent: h.urgent,
        };
        repr.emit(header, options.len());
        tcp_options.copy_from_slice(options);
        let pseudo = pseudo_header_sum(self.addresses, ipv4::PROTOCOL_TCP, segment_len);
        (tcp, pseudo)
    }

    /// Length, ECN and header checksum.
    #[inline]
    fn finish_ip(&self, ip: &mut [u8], segment_len: usize, ecn: u8) {
        // IPv4 counts its header, IPv6 does not.
        let len = if self.v6 {
            segment_len
        } else {
            ip.len() + segment_len
        };
        let len = u16::try_from(len).expect("a packet is at most 65,535 bytes long");
        if self.v6 {
            put(ip, 4, &len.to_be_bytes());
            ip[1] |= ecn << 4;
        } else {
            put(ip, 2, &len.to_be_bytes());
            ip[1] |= ecn;
            let sum = self.ip_sum.add_u16(len).add_u16(u16::from(ecn));
            put(ip, 10, &sum.finish().to_be_bytes());
        }
    }
}

/// Headers of a train of segments, laid out and summed but for what differs: sequence
/// number, control bits, length.
#[derive(Clone, Debug)]
pub struct Prepared {
    bytes: [u8; HEADER_ROOM],
    l3_offset: usize,
    tcp_offset: usize,
    len: usize,
    v6: bool,
    /// Sum of the IPv4 header without its length.
    ip_sum: Sum,
    /// Sum of TCP header and pseudo-header of a segment without payload.
    sum: Sum,
}

impl Prepared {
    /// Bytes in front of the payload.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there are headers.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// As [`HeaderTemplate::emit`] with these fields.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than the headers, or if segment and IP header exceed 65,535 bytes.
    #[inline]
    pub fn emit(
        &self,
        out: &mut [u8],
        seq: SeqNumber,
        flags: Flags,
        payload_len: usize,
        payload_sum: Sum,
    ) {
        let out = &mut out[..self.len];
        let bytes = &self.bytes[..self.len];
        // Copies whose length is known here are a few instructions; they may overlap.
        match (out.first_chunk_mut::<HALF>(), bytes.first_chunk::<HALF>()) {
            (Some(to), Some(from)) => {
                *to = *from;
                if let (Some(to), Some(from)) =
                    (out.last_chunk_mut::<HALF>(), bytes.last_chunk::<HALF>())
                {
                    *to = *from;
                }
            }
            _ => out.copy_from_slice(bytes),
        }
        let segment_len = self.len - self.tcp_offset + payload_len;
        let ip_len = if self.v6 {
            segment_len
        } else {
            self.tcp_offset - self.l3_offset + segment_len
        };
        let ip_len = u16::try_from(ip_len).expect("a packet is at most 65,535 bytes long");
        let (ip, tcp) = out[self.l3_offset..].split_at_mut(self.tcp_offset - self.l3_offset);
        if self.v6 {
            put(ip, 4, &ip_len.to_be_bytes());
        } else {
            put(ip, 2, &ip_len.to_be_bytes());
            put(ip, 10, &self.ip_sum.add_u16(ip_len).finish().to_be_bytes());
        }
        let varies = u64::from(seq.0 >> 16)
            + u64::from(seq.0 & 0xffff)
            + u64::from(flags.bits())
            + u64::from(payload_sum.fold())
            + payload_len as u64;
        let sum = self.sum.add_words(varies);
        if let Some(tcp) = tcp.first_chunk_mut::<{ tcp::HEADER_LEN }>() {
            put(tcp, tcp::SEQ_OFFSET, &seq.0.to_be_bytes());
            put(tcp, tcp::FLAGS_OFFSET, &[flags.bits()]);
            put(tcp, tcp::CHECKSUM_OFFSET, &sum.finish().to_be_bytes());
        }
    }
}

/// The two ends of a flow are not of one address family.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} and {1} are not of one address family")]
pub struct MixedFamilies(pub SocketAddr, pub SocketAddr);

#[cfg(test)]
mod tests;
