//! One call from a received frame to what the engine wants to know about it.
//!
//! Everything that can be decided from the headers alone is decided here: lengths, header
//! checksum of IPv4, addresses that no host may use as its own. The TCP checksum needs the sum
//! of the payload, which the caller computes once and keeps; see [`TcpPacket::verify_checksum`].

use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;
use std::net::{IpAddr, SocketAddr};

use super::ethernet::{EthernetAddress, VlanTags};
use super::tcp::{Flags, SeqNumber};
use super::tcp_options::TcpOptions;
use super::types::FourTuple;
use super::{ethernet, icmp, ipv4, ipv6, tcp};
use crate::checksum::{self, Sum};

pub use super::icmp::{IcmpError, IcmpKind};

/// The Ethernet addresses of a frame.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct EthernetPair {
    /// Source.
    pub src: EthernetAddress,
    /// Destination.
    pub dst: EthernetAddress,
}

/// A frame that concerns us.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every packet is TCP, and boxing would allocate per packet"
)]
pub enum Packet {
    /// A TCP segment.
    Tcp(TcpPacket),
    /// An ICMP or ICMPv6 error about a TCP segment.
    Icmp(IcmpError),
}

/// The headers of a received TCP segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpPacket {
    /// Ethernet addresses.
    pub eth: EthernetPair,
    /// VLAN tags.
    pub vlan: VlanTags,
    /// The flow from the receiver's point of view: `local` is the destination.
    pub tuple: FourTuple,
    /// ECN field of the IP header.
    pub ecn: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Where the IP header starts.
    pub l3_offset: usize,
    /// Where the TCP header starts.
    pub tcp_offset: usize,
    /// Where the payload is. The IP length bounds it, so Ethernet padding is outside.
    pub payload: Range<usize>,
    /// SEG.SEQ
    pub seq: SeqNumber,
    /// SEG.ACK
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, not scaled.
    pub window: u16,
    /// SEG.UP
    pub urgent: u16,
    /// Options.
    pub options: TcpOptions,
    /// Sum of the pseudo-header (RFC 9293 §3.1).
    pub pseudo_header_sum: Sum,
}

// Most of it are options that a data segment does not have. Moved once per segment that is
// parsed, kept once per train.
const _: () = assert!(size_of::<TcpPacket>() <= 576, "what parsing writes");

/// What the checksum field of a segment is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ChecksumVerdict {
    /// A correct checksum.
    Valid,
    /// Only the pseudo-header sum, not complemented: the segment never left this machine and
    /// its sender left the rest to hardware that was not there (Linux's CHECKSUM_PARTIAL).
    Partial,
    /// Neither.
    Bad,
}

impl TcpPacket {
    /// Whether the checksum field holds the bare pseudo-header sum: see
    /// [`ChecksumVerdict::Partial`]. Reads no payload, so that a port that accepts such
    /// segments need not touch it at all. One in 65,536 correct segments looks like one.
    #[inline]
    #[must_use]
    pub fn has_partial_checksum(&self, frame: &[u8]) -> bool {
        let header = &frame[self.tcp_offset..self.payload.start];
        Sum::from_folded(super::bytes::u16_at(header, tcp::CHECKSUM_OFFSET))
            == self.pseudo_header_sum
    }

    /// Sum of the pseudo-header and the TCP header, checksum field included. With the sum of
    /// the payload, which is at an even offset, it is zero if the checksum is right. `frame`
    /// needs to contain the headers only.
    #[inline]
    #[must_use]
    pub fn header_sum(&self, frame: &[u8]) -> Sum {
        checksum::sum(&frame[self.tcp_offset..self.payload.start])
            .combine(self.pseudo_header_sum, false)
    }

    /// Judges the checksum field, given the sum of the payload bytes. `frame` needs to contain
    /// the headers only.
    #[inline]
    #[must_use]
    pub fn verify_checksum(&self, frame: &[u8], payload_sum: Sum) -> ChecksumVerdict {
        if self.header_sum(frame).combine(payload_sum, false).is_zero() {
            ChecksumVerdict::Valid
        } else if self.has_partial_checksum(frame) {
            ChecksumVerdict::Partial
        } else {
            ChecksumVerdict::Bad
        }
    }
}

/// Declares [`ParseError`] with a name for each cause, for counters and traces.
macro_rules! parse_errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a frame was not understood. Each cause is counted on its own.
        #[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, thiserror::Error)]
        #[error("{}", self.as_str())]
        pub enum ParseError {
            $($(#[$doc])* $variant,)*
        }

        impl ParseError {
            /// Every cause, in the order of [`ParseError::index`].
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The cause in words fit for a counter's name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// A small number for arrays of counters.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

parse_errors! {
    /// Shorter than an Ethernet header and its VLAN tags.
    EthernetTruncated = "ethernet_truncated",
    /// More than two VLAN tags.
    VlanDepth = "vlan_depth",
    /// Neither IPv4 nor IPv6.
    EtherType = "ether_type",
    /// Shorter than its IP header.
    IpTruncated = "ip_truncated",
    /// The IP version contradicts the EtherType.
    IpVersion = "ip_version",
    /// An impossible IPv4 header length.
    IpHeaderLength = "ip_header_length",
    /// An IP length shorter than the headers or longer than the frame (jumbograms included).
    IpLength = "ip_length",
    /// A wrong IPv4 header checksum.
    IpChecksum = "ip_checksum",
    /// A fragment: we neither reassemble nor answer.
    Fragment = "fragment",
    /// Too many or misplaced IPv6 extension headers.
    Ipv6Extension = "ipv6_extension",
    /// An IPv6 routing header with segments left.
    Ipv6Routing = "ipv6_routing",
    /// An address that cannot be an end of a connection: multicast, broadcast, unspecified.
    Address = "address",
    /// Neither TCP nor ICMP.
    Protocol = "protocol",
    /// Shorter than its TCP header.
    TcpTruncated = "tcp_truncated",
    /// A TCP data offset below 5 words or beyond the segment.
    TcpDataOffset = "tcp_data_offset",
    /// Shorter than an ICMP error.
    IcmpTruncated = "icmp_truncated",
    /// Not an ICMP error.
    IcmpType = "icmp_type",
    /// A wrong ICMP checksum.
    IcmpChecksum = "icmp_checksum",
    /// An ICMP error that does not quote the start of a TCP segment.
    IcmpQuote = "icmp_quote",
}

impl From<ethernet::Error> for ParseError {
    fn from(e: ethernet::Error) -> Self {
        match e {
            ethernet::Error::Truncated => Self::EthernetTruncated,
            ethernet::Error::TooManyTags => Self::VlanDepth,
        }
    }
}

impl From<ipv4::Error> for ParseError {
    fn from(e: ipv4::Error) -> Self {
        match e {
            ipv4::Error::Truncated => Self::IpTruncated,
            ipv4::Error::Version => Self::IpVersion,
            ipv4::Error::HeaderLength => Self::IpHeaderLength,
            ipv4::Error::TotalLength => Self::IpLength,
        }
    }
}

impl From<ipv6::Error> for ParseError {
    fn from(e: ipv6::Error) -> Self {
        match e {
            ipv6::Error::Truncated => Self::IpTruncated,
            ipv6::Error::Version => Self::IpVersion,
            ipv6::Error::Extension => Self::Ipv6Extension,
            ipv6::Error::Routing => Self::Ipv6Routing,
            ipv6::Error::Fragment => Self::Fragment,
        }
    }
}

impl From<tcp::Error> for ParseError {
    fn from(e: tcp::Error) -> Self {
        match e {
            tcp::Error::Truncated => Self::TcpTruncated,
            tcp::Error::DataOffset => Self::TcpDataOffset,
        }
    }
}

impl From<icmp::Error> for ParseError {
    fn from(e: icmp::Error) -> Self {
        match e {
            icmp::Error::Truncated => Self::IcmpTruncated,
            icmp::Error::Type => Self::IcmpType,
            icmp::Error::Checksum => Self::IcmpChecksum,
            icmp::Error::Quote => Self::IcmpQuote,
        }
    }
}

/// What both IP versions say.
struct Ip {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ecn: u8,
    ttl: u8,
    l3_offset: usize,
    /// The upper layer, in frame offsets.
    upper: Range<usize>,
    /// Sum of the addresses.
    addresses: Sum,
}

impl Ip {
    /// Sum of the pseudo-header; both families' add up the same values (RFC 8200 §8.1).
    fn pseudo_header_sum(&self) -> Sum {
        pseudo_header_sum(self.addresses, self.protocol, self.upper.len())
    }
}

/// Sum of a pseudo-header, given that of its addresses.
pub(crate) fn pseudo_header_sum(addresses: Sum, protocol: u8, upper_len: usize) -> Sum {
    // Upper layers are shorter than 2^32: their length comes from 16-bit IP lengths.
    addresses
        .add_u16(u16::from(protocol))
        .add_u64(upper_len as u64)
}

/// Sum of the addresses of a pseudo-header.
pub(crate) fn address_sum(src: &IpAddr, dst: &IpAddr) -> Sum {
    let one = |addr: &IpAddr| match addr {
        IpAddr::V4(a) => Sum::ZERO.add_u32(a.to_bits()),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            Sum::ZERO.add_u64((bits >> 64) as u64).add_u64(bits as u64)
        }
    };
    one(src).combine(one(dst), false)
}

/// Parses a frame that is contiguous.
///
/// # Errors
///
/// [`ParseError`] says why the frame is of no use.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Packet, ParseError> {
    parse_head(frame, frame.len())
}

/// Parses a frame of `frame_len` bytes of which only the first ones, `head`, are contiguous:
/// the first buffer of a multi-buffer packet. All headers must be in there; offsets in the
/// result count from the start of the frame.
///
/// # Errors
///
/// [`ParseError`] says why the frame is of no use.
pub fn parse_head(head: &[u8], frame_len: usize) -> Result<Packet, ParseError> {
    let frame_len = frame_len.max(head.len());
    let eth = ethernet::View::new_checked(head)?;
    let l3_offset = eth.header_len();
    let ip = match eth.ethertype() {
        ethernet::IPV4 => parse_ipv4(head, l3_offset, frame_len)?,
        ethernet::IPV6 => parse_ipv6(head, l3_offset, frame_len)?,
        _ => return Err(ParseError::EtherType),
    };
    match (ip.protocol, ip.src) {
        (ipv4::PROTOCOL_TCP, _) => parse_tcp(head, &eth, &ip).map(Packet::Tcp),
        (ipv4::PROTOCOL_ICMP, IpAddr::V4(_)) => {
            let message = icmp_message(head, &ip)?;
            let sum = checksum::sum(message);
            Ok(Packet::Icmp(icmp::parse_v4(message, sum, ip.src)?))
        }
        (ipv6::PROTOCOL_ICMPV6, IpAddr::V6(_)) => {
            let message = icmp_message(head, &ip)?;
            let sum = ip.pseudo_header_sum().add_bytes(message);
            Ok(Packet::Icmp(icmp::parse_v6(message, sum, ip.src)?))
        }
        _ => Err(ParseError::Protocol),
    }
}

fn parse_ipv4(head: &[u8], l3_offset: usize, frame_len: usize) -> Result<Ip, ParseError> {
    let view = ipv4::View::new_checked(&head[l3_offset..])?;
    let end = l3_offset + usize::from(view.total_len());
    if end > frame_len {
        return Err(ParseError::IpLength);
    }
    if !view.checksum_is_valid() {
        return Err(ParseError::IpChecksum);
    }
    if view.is_fragment() {
        return Err(ParseError::Fragment);
    }
    let (src, dst) = (view.src(), view.dst());
    if !is_endpoint_v4(src) || !is_endpoint_v4(dst) {
        return Err(ParseError::Address);
    }
    let (src, dst) = (IpAddr::V4(src), IpAddr::V4(dst));
    Ok(Ip {
        src,
        dst,
        protocol: view.protocol(),
        ecn: view.ecn(),
        ttl: view.ttl(),
        l3_offset,
        upper: l3_offset + view.header_len()..end,
        addresses: address_sum(&src, &dst),
    })
}

fn parse_ipv6(head: &[u8], l3_offset: usize, frame_len: usize) -> Result<Ip, ParseError> {
    let view = ipv6::View::new_checked(&head[l3_offset..])?;
    let end = l3_offset + ipv6::HEADER_LEN + usize::from(view.payload_len());
    if end > frame_len {
        return Err(ParseError::IpLength);
    }
    let upper = view.upper_layer()?;
    if l3_offset + upper.offset > end {
        return Err(ParseError::IpLength);
    }
    let (src, dst) = (view.src(), view.dst());
    if !is_endpoint_v6(src) || !is_endpoint_v6(dst) {
        return Err(ParseError::Address);
    }
    let (src, dst) = (IpAddr::V6(src), IpAddr::V6(dst));
    Ok(Ip {
        src,
        dst,
        protocol: upper.protocol,
        ecn: view.ecn(),
        ttl: view.hop_limit(),
        l3_offset,
        upper: l3_offset + upper.offset..end,
        addresses: address_sum(&src, &dst),
    })
}

/// RFC 9293 §3.9.2.3 (MUST-57, MUST-63): segments from or to such addresses are discarded.
fn is_endpoint_v4(addr: Ipv4Addr) -> bool {
    !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast())
}

fn is_endpoint_v6(addr: Ipv6Addr) -> bool {
    !(addr.is_unspecified() || addr.is_multicast())
}

fn parse_tcp(head: &[u8], eth: &ethernet::View<&[u8]>, ip: &Ip) -> Result<TcpPacket, ParseError> {
    // The segment ends where IP says, and its header may be cut short by the buffer.
    let in_head = head
        .get(ip.upper.start..ip.upper.end.min(head.len()))
        .ok_or(ParseError::TcpTruncated)?;
    let view = tcp::View::new_checked(in_head).map_err(|e| match e {
        // The header ends beyond the segment, not merely beyond the buffer.
        tcp::Error::Truncated if in_head.len() >= tcp::HEADER_LEN && ip.upper.end <= head.len() => {
            ParseError::TcpDataOffset
        }
        e => e.into(),
    })?;
    Ok(TcpPacket {
        eth: EthernetPair {
            src: eth.src(),
            dst: eth.dst(),
        },
        vlan: eth.vlan(),
        tuple: FourTuple {
            local: SocketAddr::new(ip.dst, view.dst_port()),
            remote: SocketAddr::new(ip.src, view.src_port()),
        },
        ecn: ip.ecn,
        ttl: ip.ttl,
        l3_offset: ip.l3_offset,
        tcp_offset: ip.upper.start,
        payload: ip.upper.start + view.header_len()..ip.upper.end,
        seq: view.seq(),
        ack: view.ack(),
        flags: view.flags(),
        window: view.window(),
        urgent: view.urgent(),
        options: TcpOptions::parse(view.options()),
        pseudo_header_sum: ip.pseudo_header_sum(),
    })
}

/// The ICMP message, which must be contiguous: errors are at most 1280 bytes long.
fn icmp_message<'a>(head: &'a [u8], ip: &Ip) -> Result<&'a [u8], ParseError> {
    head.get(ip.upper.clone()).ok_or(ParseError::IcmpTruncated)
}

#[cfg(test)]
mod tests;
