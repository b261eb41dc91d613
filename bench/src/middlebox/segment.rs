//! A TCP segment taken apart, changed, and put together again.
//!
//! What a box does not touch survives byte for byte; lengths and checksums are computed
//! afresh. A frame that is no TCP segment, or whose checksum is wrong, is not taken apart:
//! putting it together would repair what the receiver must notice.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use braid_dataplane::checksum;
use braid_dataplane::wire::ipv4;
use braid_dataplane::wire::mptcp::KIND as MPTCP;
use braid_dataplane::wire::packet::{self, ChecksumVerdict, Packet};
use braid_dataplane::wire::tcp::{Flags, HEADER_LEN, OPTIONS_MAX, SeqNumber};

use super::Toward;

/// End of the option list.
pub const EOL: u8 = 0;
/// No operation.
pub const NOP: u8 = 1;
/// Maximum segment size.
pub const MSS: u8 = 2;
/// Window scale.
pub const WINDOW_SCALE: u8 = 3;
/// SACK permitted.
pub const SACK_PERMITTED: u8 = 4;
/// SACK blocks.
pub const SACK: u8 = 5;
/// Timestamps.
pub const TIMESTAMPS: u8 = 8;
/// Fast open (RFC 7413 §4.1.1).
pub const FAST_OPEN: u8 = 34;

/// A TCP segment and the headers below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Link and IP headers as they came.
    pub(super) head: Vec<u8>,
    pub(super) l3_offset: usize,
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// SEG.SEQ
    pub seq: SeqNumber,
    /// SEG.ACK
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// The four bits next to the data offset.
    pub reserved: u8,
    /// SEG.WND, not scaled.
    pub window: u16,
    /// SEG.UP
    pub urgent: u16,
    /// The option area.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// One option in a segment's option area: its kind and where it is, kind and length included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Kind.
    pub kind: u8,
    /// Where.
    pub range: Range<usize>,
}

impl Segment {
    /// Takes a frame apart; `None` for whatever is no sound TCP segment.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let Ok(Packet::Tcp(p)) = packet::parse(frame) else {
            return None;
        };
        let payload = frame.get(p.payload.clone())?;
        if p.verify_checksum(frame, checksum::sum(payload)) == ChecksumVerdict::Bad {
            return None;
        }
        let header = frame.get(p.tcp_offset..p.payload.start)?;
        Some(Self {
            head: frame[..p.tcp_offset].to_vec(),
            l3_offset: p.l3_offset,
            src: p.tuple.remote,
            dst: p.tuple.local,
            seq: p.seq,
            ack: p.ack,
            flags: p.flags,
            reserved: header[12] & 0x0f,
            window: p.window,
            urgent: p.urgent,
            options: header[HEADER_LEN..].to_vec(),
            payload: payload.to_vec(),
        })
    }

    /// Puts the frame together.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut options = self.options.clone();
        options.truncate(OPTIONS_MAX);
        options.resize(options.len().next_multiple_of(4), NOP);
        let header_len = HEADER_LEN + options.len();
        let mut frame = self.head.clone();
        let tcp = frame.len();
        frame.extend_from_slice(&self.src.port().to_be_bytes());
        frame.extend_from_slice(&self.dst.port().to_be_bytes());
        frame.extend_from_slice(&self.seq.0.to_be_bytes());
        frame.extend_from_slice(&self.ack.0.to_be_bytes());
        let words = u8::try_from(header_len / 4).unwrap_or(15);
        frame.extend_from_slice(&[words << 4 | self.reserved, self.flags.bits()]);
        frame.extend_from_slice(&self.window.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&self.urgent.to_be_bytes());
        frame.extend_from_slice(&options);
        frame.extend_from_slice(&self.payload);
        self.finish_ip(&mut frame);
        let length = frame.len() - tcp;
        let sum = address_sum(self.src.ip(), self.dst.ip())
            .add_u16(u16::from(ipv4::PROTOCOL_TCP))
            .add_u64(length as u64)
            .combine(checksum::sum(&frame[tcp..]), false);
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.finish().to_be_bytes());
        frame
    }

    /// Addresses, lengths and header checksum of the IP header.
    fn finish_ip(&self, frame: &mut [u8]) {
        let l3 = self.l3_offset;
        let length = frame.len() - l3;
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let total = u16::try_from(length).unwrap_or(u16::MAX);
                put(frame, l3 + 2, &total.to_be_bytes());
                put(frame, l3 + 12, &src.octets());
                put(frame, l3 + 16, &dst.octets());
                put(frame, l3 + 10, &[0, 0]);
                let header = l3 + usize::from(frame[l3] & 0x0f) * 4;
                let sum = checksum::sum(&frame[l3..header]).finish();
                put(frame, l3 + 10, &sum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                // The fixed IPv6 header is not counted (RFC 8200 §3).
                let payload = u16::try_from(length - 40).unwrap_or(u16::MAX);
                put(frame, l3 + 4, &payload.to_be_bytes());
                put(frame, l3 + 8, &src.octets());
                put(frame, l3 + 24, &dst.octets());
            }
            _ => {}
        }
    }

    /// The IP header, extension headers included, to change what is neither length nor address.
    pub fn ip_header_mut(&mut self) -> &mut [u8] {
        &mut self.head[self.l3_offset..]
    }

    /// Whether it travels over IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// IP headers, TCP header and payload together, as an MTU counts them.
    #[must_use]
    pub fn ip_len(&self) -> usize {
        self.head.len() - self.l3_offset + HEADER_LEN + self.options.len() + self.payload.len()
    }

    /// A SYN of the side that opens.
    #[must_use]
    pub fn is_syn(&self) -> bool {
        self.flags.contains(Flags::SYN) && !self.flags.contains(Flags::ACK)
    }

    /// The answer to it.
    #[must_use]
    pub fn is_syn_ack(&self) -> bool {
        self.flags.contains(Flags::SYN | Flags::ACK)
    }

    /// Neither SYN nor SYN/ACK.
    #[must_use]
    pub fn is_past_syn(&self) -> bool {
        !self.flags.contains(Flags::SYN)
    }

    /// An ACK without payload, SYN, FIN or RST.
    #[must_use]
    pub fn is_pure_ack(&self) -> bool {
        self.payload.is_empty() && !self.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST)
    }

    /// SEG.LEN: payload, SYN and FIN.
    #[must_use]
    pub fn seg_len(&self) -> u32 {
        let payload = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        payload
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }

    /// The sequence number behind it.
    #[must_use]
    pub fn end(&self) -> SeqNumber {
        self.seq + self.seg_len()
    }

    /// The options but for NOPs, up to the first one that cannot be right.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        let mut at = 0;
        while let Some(&kind) = self.options.get(at) {
            if kind == EOL {
                break;
            }
            if kind == NOP {
                at += 1;
                continue;
            }
            let len = self.options.get(at + 1).map_or(0, |l| usize::from(*l));
            if len < 2 || at + len > self.options.len() {
                break;
            }
            places.push(Place {
                kind,
                range: at..at + len,
            });
            at += len;
        }
        places
    }

    /// The first option of a kind, kind and length included.
    #[must_use]
    pub fn option(&self, kind: u8) -> Option<&[u8]> {
        let place = self.places().into_iter().find(|p| p.kind == kind)?;
        Some(&self.options[place.range])
    }

    /// The first option of a kind, to be changed in place.
    pub fn option_mut(&mut self, kind: u8) -> Option<&mut [u8]> {
        let place = self.places().into_iter().find(|p| p.kind == kind)?;
        Some(&mut self.options[place.range])
    }

    /// The first MPTCP option of a subtype, to be changed in place.
    pub fn mptcp_mut(&mut self, subtype: u8) -> Option<&mut [u8]> {
        let places = self.places();
        let place = places
            .into_iter()
            .find(|p| self.mptcp_subtype(p) == Some(subtype))?;
        Some(&mut self.options[place.range])
    }

    /// Whether it carries any MPTCP option.
    #[must_use]
    pub fn has_mptcp(&self) -> bool {
        self.option(MPTCP).is_some()
    }

    /// Whether it carries a MPTCP option of this subtype.
    #[must_use]
    pub fn has_mptcp_subtype(&self, subtype: u8) -> bool {
        self.places()
            .iter()
            .any(|p| self.mptcp_subtype(p) == Some(subtype))
    }

    /// The subtype of a MPTCP option.
    #[must_use]
    pub fn mptcp_subtype(&self, place: &Place) -> Option<u8> {
        (place.kind == MPTCP && place.range.len() > 2)
            .then(|| self.options[place.range.start + 2] >> 4)
    }

    /// Overwrites with NOPs the options that `which` picks. The header keeps its length.
    pub fn nop_out(&mut self, which: impl Fn(&Self, &Place) -> bool) -> usize {
        let picked: Vec<Place> = (self.places().into_iter())
            .filter(|p| which(self, p))
            .collect();
        for place in &picked {
            self.options[place.range.clone()].fill(NOP);
        }
        picked.len()
    }

    /// Cuts out the options that `which` picks; the header shrinks.
    pub fn cut_out(&mut self, which: impl Fn(&Self, &Place) -> bool) -> usize {
        let picked: Vec<Place> = (self.places().into_iter())
            .filter(|p| which(self, p))
            .collect();
        for place in picked.iter().rev() {
            self.options.drain(place.range.clone());
        }
        picked.len()
    }

    /// Adds an option behind the others; false when there is no room for it.
    pub fn append_option(&mut self, option: &[u8]) -> bool {
        // An end-of-list marker would hide it.
        let used = self.places().last().map_or(0, |p| p.range.end);
        if used + option.len() > OPTIONS_MAX {
            return false;
        }
        self.options.truncate(used);
        self.options.extend_from_slice(option);
        self.options
            .resize(self.options.len().next_multiple_of(4), NOP);
        true
    }

    /// The timestamps option's two values.
    #[must_use]
    pub fn timestamps(&self) -> Option<(u32, u32)> {
        let option = self.option(TIMESTAMPS).filter(|o| o.len() == 10)?;
        Some((word(option, 2), word(option, 6)))
    }

    /// Changes every edge of every SACK block.
    pub fn map_sack(&mut self, change: impl Fn(SeqNumber) -> SeqNumber) {
        if let Some(option) = self.option_mut(SACK) {
            for edge in option[2..].chunks_exact_mut(4) {
                let value = change(SeqNumber(word(edge, 0)));
                edge.copy_from_slice(&value.0.to_be_bytes());
            }
        }
    }

    /// Cuts the payload in two. FIN and PSH stay with the second part, which has its own
    /// copy of the options. `None` unless both parts get payload.
    #[must_use]
    pub fn split(&self, at: usize) -> Option<(Self, Self)> {
        if at == 0 || at >= self.payload.len() {
            return None;
        }
        let (mut first, mut second) = (self.clone(), self.clone());
        first.payload.truncate(at);
        first.flags = first.flags.without(Flags::FIN | Flags::PSH);
        second.payload.drain(..at);
        second.seq += u32::try_from(at).ok()?;
        second.bump_ip_id(1);
        Some((first, second))
    }

    /// Adds to the IPv4 identification; IPv6 has none.
    pub fn bump_ip_id(&mut self, delta: u16) {
        if !self.is_ipv6() {
            let ip = self.ip_header_mut();
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(delta);
            put(ip, 4, &id.to_be_bytes());
        }
    }

    /// A segment without options and payload from this one's receiver to its sender.
    #[must_use]
    pub fn reply(&self, seq: SeqNumber, ack: SeqNumber, flags: Flags) -> Self {
        let mut reply = self.bare(seq, ack, flags);
        std::mem::swap(&mut reply.src, &mut reply.dst);
        let (dst, src) = reply.head.split_at_mut(6);
        dst.swap_with_slice(&mut src[..6]);
        reply
    }

    /// A segment without options and payload, the same way as this one.
    #[must_use]
    pub fn bare(&self, seq: SeqNumber, ack: SeqNumber, flags: Flags) -> Self {
        Self {
            seq,
            ack,
            flags,
            reserved: 0,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
            ..self.clone()
        }
    }

    /// What a closed port answers (RFC 9293 §3.10.7.1).
    #[must_use]
    pub fn refusal(&self) -> Self {
        if self.flags.contains(Flags::ACK) {
            self.reply(self.ack, SeqNumber(0), Flags::RST)
        } else {
            self.reply(SeqNumber(0), self.end(), Flags::RST | Flags::ACK)
        }
    }

    /// The ICMP error that says it was too big for the next hop (RFC 1191 §4,
    /// RFC 4443 §3.2), from its destination.
    #[must_use]
    pub fn too_big(&self, mtu: u16) -> Vec<u8> {
        let mut frame = self.reply(self.seq, self.ack, self.flags);
        let whole = self.emit();
        let quoted = &whole[self.l3_offset..];
        let mut out = std::mem::take(&mut frame.head);
        let l3 = self.l3_offset;
        let v6 = self.is_ipv6();
        // Extension headers and options do not belong to the error.
        out.truncate(l3 + if v6 { 40 } else { 20 });
        let message = out.len();
        let [high, low] = mtu.to_be_bytes();
        let kind = if v6 { [2, 0] } else { [3, 4] };
        out.extend_from_slice(&[kind[0], kind[1], 0, 0, 0, 0, high, low]);
        // Enough of the original to recognise its flow, within the minimum MTU.
        out.extend_from_slice(&quoted[..quoted.len().min(548)]);
        let mut sum = checksum::sum(&out[message..]);
        if v6 {
            out[l3 + 6] = 58;
            sum = address_sum(self.dst.ip(), self.src.ip())
                .add_u16(58)
                .add_u64((out.len() - message) as u64)
                .combine(sum, false);
        } else {
            out[l3] = 0x45;
            out[l3 + 9] = 1;
        }
        put(&mut out, message + 2, &sum.finish().to_be_bytes());
        frame.finish_ip(&mut out);
        out
    }

    /// The flow, named the same way in both directions.
    #[must_use]
    pub fn flow(&self, toward: Toward) -> Flow {
        match toward {
            Toward::Server => Flow {
                client: self.src,
                server: self.dst,
            },
            Toward::Client => Flow {
                client: self.dst,
                server: self.src,
            },
        }
    }
}

/// A TCP flow through a box.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// The end on the client's side.
    pub client: SocketAddr,
    /// The end on the server's side.
    pub server: SocketAddr,
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The 32-bit word at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4]
        .iter()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn address_sum(src: IpAddr, dst: IpAddr) -> checksum::Sum {
    [src, dst]
        .iter()
        .fold(checksum::Sum::ZERO, |sum, ip| match ip {
            IpAddr::V4(a) => sum.add_u32(a.to_bits()),
            IpAddr::V6(a) => a
                .octets()
                .chunks_exact(4)
                .fold(sum, |sum, chunk| sum.add_u32(word(chunk, 0))),
        })
}
