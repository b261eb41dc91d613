//! ICMP and ICMPv6 errors about segments of ours.
//!
//! Only error messages that quote a TCP segment are read. What the quote says must be checked
//! against the connection before it is acted on (RFC 5927 §4.1): the sender of an ICMP error
//! proves nothing else.

use std::net::{IpAddr, SocketAddr};

use super::bytes::{u16_at, u32_at};
use super::tcp::SeqNumber;
use super::types::FourTuple;
use super::{ipv4, ipv6};
use crate::checksum::Sum;

/// Bytes before the quoted packet.
pub const HEADER_LEN: usize = 8;
/// Bytes of the quoted segment that RFC 792 guarantees: ports and sequence number.
const QUOTED_TCP_LEN: usize = 8;

/// What an ICMP error reports.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum IcmpKind {
    /// The packet was too big for a link: ICMP "fragmentation needed" or ICMPv6 "packet too
    /// big". The MTU may be 0 from routers older than RFC 1191.
    PacketTooBig {
        /// MTU of that link, including the IP header.
        mtu: u32,
    },
    /// Destination unreachable.
    Unreachable {
        /// Code in the numbering of the family.
        code: u8,
    },
    /// Time exceeded.
    TimeExceeded {
        /// Code.
        code: u8,
    },
    /// Parameter problem.
    ParameterProblem {
        /// Code.
        code: u8,
    },
}

/// An ICMP error about a TCP segment.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct IcmpError {
    /// What happened.
    pub kind: IcmpKind,
    /// Who says so: a router or the peer's host.
    pub reporter: IpAddr,
    /// The flow of the quoted segment; we sent it, so its source is `local`.
    pub tuple: FourTuple,
    /// SEG.SEQ of the quoted segment.
    pub seq: SeqNumber,
}

/// Why a message is no error about a TCP segment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than its headers.
    Truncated,
    /// Not an error message (echo, neighbour discovery, …).
    Type,
    /// The checksum is wrong.
    Checksum,
    /// The quote is not an unfragmented start of a TCP segment.
    Quote,
}

/// The part common to both families: type and code to [`IcmpKind`].
fn kind_v4(message: &[u8]) -> Option<IcmpKind> {
    let code = message[1];
    match message[0] {
        // RFC 1191 §4: the MTU is in the low half of the unused word.
        3 if code == 4 => Some(IcmpKind::PacketTooBig {
            mtu: u32::from(u16_at(message, 6)),
        }),
        3 => Some(IcmpKind::Unreachable { code }),
        11 => Some(IcmpKind::TimeExceeded { code }),
        12 => Some(IcmpKind::ParameterProblem { code }),
        _ => None,
    }
}

fn kind_v6(message: &[u8]) -> Option<IcmpKind> {
    let code = message[1];
    match message[0] {
        1 => Some(IcmpKind::Unreachable { code }),
        2 => Some(IcmpKind::PacketTooBig {
            mtu: u32_at(message, 4),
        }),
        3 => Some(IcmpKind::TimeExceeded { code }),
        4 => Some(IcmpKind::ParameterProblem { code }),
        _ => None,
    }
}

/// Ports and sequence number at `offset` of a quoted packet between these addresses.
fn quote(
    quoted: &[u8],
    offset: usize,
    src: IpAddr,
    dst: IpAddr,
) -> Result<(FourTuple, SeqNumber), Error> {
    let tcp = quoted
        .get(offset..offset + QUOTED_TCP_LEN)
        .ok_or(Error::Truncated)?;
    let tuple = FourTuple {
        local: SocketAddr::new(src, u16_at(tcp, 0)),
        remote: SocketAddr::new(dst, u16_at(tcp, 2)),
    };
    Ok((tuple, SeqNumber(u32_at(tcp, 4))))
}

/// Reads an ICMP message. `sum` is the sum of all its bytes.
///
/// # Errors
///
/// [`Error`] says why it is of no interest.
pub fn parse_v4(message: &[u8], sum: Sum, reporter: IpAddr) -> Result<IcmpError, Error> {
    if message.len() < HEADER_LEN {
        return Err(Error::Truncated);
    }
    let kind = kind_v4(message).ok_or(Error::Type)?;
    if !sum.is_zero() {
        return Err(Error::Checksum);
    }
    let quoted = &message[HEADER_LEN..];
    let ip = ipv4::View::new_checked(quoted).map_err(|e| match e {
        ipv4::Error::Truncated => Error::Truncated,
        _ => Error::Quote,
    })?;
    if ip.protocol() != ipv4::PROTOCOL_TCP || ip.fragment_offset() != 0 {
        return Err(Error::Quote);
    }
    let (tuple, seq) = quote(quoted, ip.header_len(), ip.src().into(), ip.dst().into())?;
    Ok(IcmpError {
        kind,
        reporter,
        tuple,
        seq,
    })
}

/// Reads an ICMPv6 message. `sum` is the sum of its pseudo-header and all its bytes.
///
/// # Errors
///
/// [`Error`] says why it is of no interest.
pub fn parse_v6(message: &[u8], sum: Sum, reporter: IpAddr) -> Result<IcmpError, Error> {
    if message.len() < HEADER_LEN {
        return Err(Error::Truncated);
    }
    let kind = kind_v6(message).ok_or(Error::Type)?;
    if !sum.is_zero() {
        return Err(Error::Checksum);
    }
    let quoted = &message[HEADER_LEN..];
    let truncated_or_quote = |e| match e {
        ipv6::Error::Truncated => Error::Truncated,
        _ => Error::Quote,
    };
    let ip = ipv6::View::new_checked(quoted).map_err(truncated_or_quote)?;
    let upper = ip.upper_layer().map_err(truncated_or_quote)?;
    if upper.protocol != ipv4::PROTOCOL_TCP {
        return Err(Error::Quote);
    }
    let (tuple, seq) = quote(quoted, upper.offset, ip.src().into(), ip.dst().into())?;
    Ok(IcmpError {
        kind,
        reporter,
        tuple,
        seq,
    })
}
