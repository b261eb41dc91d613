//! Receive coalescing: segments of one flow that follow each other within a batch become one
//! chain and one call into TCP.
//!
//! Segments of one burst of the peer have the same headers but for length, sequence number and
//! what follows from these: the same mapping stands on each. So the headers of the next frame
//! are compared with those of the first as a block of bytes, and a frame that fits needs no
//! parser, no flow lookup and no call into TCP or MPTCP; only its checksums are verified.
//! Whatever differs in more ends the train, is parsed, and may begin the next one.
//!
//! Merged like this nothing is lost: acknowledgment, window, timestamps and options are the
//! same in all segments, and a PSH says nothing to a reader that is told at once anyway.

use core::ops::Range;

use crate::buf::{Chain, Piece};
use crate::checksum::{self, Sum};
use crate::wire::bytes::{put, u16_at, u32_at};
use crate::wire::ipv6;
use crate::wire::mptcp::MptcpOption;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{self, Flags, SeqNumber};

/// Segments of one train, at most: a receive batch.
const SEGMENTS_MAX: u32 = 64;
/// Bytes that are compared. Longer headers, and shorter packets, travel alone.
const BLOCK_BYTES: usize = 128;
const BLOCK_WORDS: usize = BLOCK_BYTES / 8;
/// Offsets within an IPv4 header.
const TOTAL_LEN: usize = 2;
const IDENTIFICATION: usize = 4;
const HEADER_CHECKSUM: usize = 10;
/// Offset within an IPv6 header.
const PAYLOAD_LEN: usize = 4;
/// What the fields that vary are within: of either IP header, and of a TCP header.
const IP_PART: usize = 12;
const TCP_PART: usize = tcp::HEADER_LEN;

/// In-order segments of one flow, to be taken as one.
#[derive(Debug, Default)]
pub struct Train {
    packet: Option<TcpPacket>,
    chain: Chain,
    segments: u32,
    /// Sequence number that the next segment has to have.
    next: SeqNumber,
    block: Option<Block>,
}

/// A segment that continues a train, if its payload's sum fits.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Where the payload is.
    pub payload: Range<usize>,
    /// Sum of pseudo-header and TCP header, checksum field included.
    pub header_sum: Sum,
    /// Sum of the pseudo-header, in words.
    pseudo: u64,
    /// The checksum field.
    field: u16,
}

impl Follower {
    /// The checksum field holds the bare pseudo-header sum: see
    /// [`TcpPacket::has_partial_checksum`].
    #[must_use]
    pub fn is_partial(&self) -> bool {
        Sum::from_folded(self.field) == Sum::ZERO.add_words(self.pseudo)
    }
}

/// What all headers of a train have in common, as bytes and as sums.
#[derive(Debug)]
struct Block {
    bytes: [u64; BLOCK_WORDS],
    /// Ones where `bytes` must be met.
    mask: [u64; BLOCK_WORDS],
    header_len: usize,
    l3_offset: usize,
    tcp_offset: usize,
    v6: bool,
    /// Sum of the IPv4 header without length, identification and checksum.
    ip_sum: Sum,
    /// Sum of the pseudo-header without the length.
    pseudo_sum: Sum,
    /// Sum of the TCP header without sequence number, control bits and checksum.
    tcp_sum: Sum,
}

impl Block {
    /// From the first segment of a train. `None` if its headers are too long.
    fn new(packet: &TcpPacket, head: &[u8]) -> Option<Self> {
        let (l3, tcp, end) = (packet.l3_offset, packet.tcp_offset, packet.payload.start);
        let mut bytes = *head.first_chunk::<BLOCK_BYTES>()?;
        if end > BLOCK_BYTES {
            return None;
        }
        let v6 = packet.tuple.local.is_ipv6();
        let mut mask = [0; BLOCK_BYTES];
        mask[..end].fill(0xff);
        let mut vary = |at: usize, len: usize| {
            mask[at..at + len].fill(0);
            put(&mut bytes, at, &[0; 4][..len]);
        };
        if v6 {
            vary(l3 + PAYLOAD_LEN, 2);
        } else {
            vary(l3 + TOTAL_LEN, 2);
            vary(l3 + IDENTIFICATION, 2);
            vary(l3 + HEADER_CHECKSUM, 2);
        }
        vary(tcp + tcp::SEQ_OFFSET, 4);
        vary(tcp + tcp::CHECKSUM_OFFSET, 2);
        let flags = tcp + tcp::FLAGS_OFFSET;
        mask[flags] = !Flags::PSH.bits();
        bytes[flags] = 0;
        let tcp_sum = checksum::sum(&bytes[tcp..end]);
        let ip_sum = checksum::sum(&bytes[l3..tcp]);
        bytes[flags] = packet.flags.bits() & mask[flags];
        // Lengths that come from 16-bit fields fit 64 bits.
        let segment_len = Sum::ZERO.add_u64((end - tcp + packet.payload.len()) as u64);
        Some(Self {
            bytes: words(&bytes),
            mask: words(&mask),
            header_len: end,
            l3_offset: l3,
            tcp_offset: tcp,
            v6,
            ip_sum,
            // The length is its last part, at an even offset.
            pseudo_sum: packet.pseudo_header_sum.remove_suffix(segment_len, 0),
            tcp_sum,
        })
    }

    #[inline]
    fn meets(&self, head: &[u8; BLOCK_BYTES]) -> bool {
        let fields = self.bytes.iter().zip(&self.mask).zip(words(head));
        fields.fold(0, |all, ((met, mask), word)| all | ((word ^ met) & mask)) == 0
    }

    #[inline]
    fn follower(&self, frame: &[u8], next: SeqNumber) -> Option<Follower> {
        let head = frame.first_chunk::<BLOCK_BYTES>()?;
        if !self.meets(head) {
            return None;
        }
        // The block is as long as the headers at least.
        let (ip, tcp) = (head.get(self.l3_offset..)?, head.get(self.tcp_offset..)?);
        let (ip, tcp) = (ip.first_chunk::<IP_PART>()?, tcp.first_chunk::<TCP_PART>()?);
        let seq = u32_at(tcp, tcp::SEQ_OFFSET);
        if seq != next.0 {
            return None;
        }
        let end = if self.v6 {
            self.l3_offset + ipv6::HEADER_LEN + usize::from(u16_at(ip, PAYLOAD_LEN))
        } else {
            let len = u16_at(ip, TOTAL_LEN);
            let vary = u64::from(len)
                + u64::from(u16_at(ip, IDENTIFICATION))
                + u64::from(u16_at(ip, HEADER_CHECKSUM));
            if !self.ip_sum.add_words(vary).is_zero() {
                return None;
            }
            self.l3_offset + usize::from(len)
        };
        if end > frame.len() || end <= self.header_len {
            return None;
        }
        let field = u16_at(tcp, tcp::CHECKSUM_OFFSET);
        let pseudo = u64::from(self.pseudo_sum.fold()) + (end - self.tcp_offset) as u64;
        let vary = u64::from(seq >> 16)
            + u64::from(seq & 0xffff)
            + u64::from(tcp[tcp::FLAGS_OFFSET])
            + u64::from(field);
        Some(Follower {
            payload: self.header_len..end,
            header_sum: self.tcp_sum.add_words(pseudo + vary),
            pseudo,
            field,
        })
    }
}

/// A block as numbers, to be compared a word at a time.
#[inline]
fn words(bytes: &[u8; BLOCK_BYTES]) -> [u64; BLOCK_WORDS] {
    let (chunks, _) = bytes.as_chunks::<8>();
    core::array::from_fn(|n| u64::from_ne_bytes(chunks[n]))
}

impl Train {
    /// Whether a train may begin with a segment: data and nothing else, so that all there is
    /// to its successors is more of it.
    #[must_use]
    pub fn may_begin(packet: &TcpPacket) -> bool {
        let options = &packet.options;
        let plain = packet.flags == Flags::ACK || packet.flags == Flags::ACK | Flags::PSH;
        plain
            && !packet.payload.is_empty()
            && !options.malformed
            && options.sack.as_slice().is_empty()
            && options.mptcp.ignored() == 0
            && matches!(options.mptcp.as_slice(), [] | [MptcpOption::Dss(_)])
    }

    /// Begins with a segment that [may](Self::may_begin), and its payload.
    pub fn begin(&mut self, packet: &TcpPacket, chain: Chain) {
        // The payload is bounded by the IP length field.
        self.next = packet.seq + u32::try_from(chain.len()).unwrap_or(u32::MAX);
        self.packet = Some(packet.clone());
        self.chain = chain;
        self.segments = 1;
        self.block = None;
    }

    /// The first segment, while there is a train.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<&TcpPacket> {
        self.packet.as_ref()
    }

    /// Whether a frame continues the train.
    #[inline]
    pub fn follower(&mut self, frame: &[u8]) -> Option<Follower> {
        let packet = self.packet.as_ref()?;
        if self.segments >= SEGMENTS_MAX {
            return None;
        }
        if self.block.is_none() {
            // Only now, for most trains of a quiet connection are one segment long.
            let head = self.chain.iter().next().and_then(Piece::frame)?;
            self.block = Block::new(packet, head.packet());
            self.chain.reserve(SEGMENTS_MAX as usize - 1);
        }
        self.block.as_ref()?.follower(frame, self.next)
    }

    /// Appends the payload of a [`Follower`].
    #[inline]
    pub fn push(&mut self, piece: Piece) {
        self.next += u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.segments += 1;
        self.chain.push(piece);
    }

    /// Ends the train: its first segment, how many there were, and the payload of all.
    pub fn end(&mut self) -> Option<(TcpPacket, u32, Chain)> {
        let packet = self.packet.take()?;
        Some((packet, self.segments, core::mem::take(&mut self.chain)))
    }
}

#[cfg(test)]
mod tests;
