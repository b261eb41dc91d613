//! What goes in and out of a connection: segments without their payload, verdicts, requests.

use serde::{Deserialize, Serialize};

use crate::buf::Chain;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::{TcpOptions, Timestamps};

/// A received segment's header. Several in-order segments that were coalesced count as one:
/// sequence number of the first, window, timestamps and flags of the last, but URG, ECE, CWR and
/// `ce` if any of them had it.
#[derive(Copy, Clone, Debug)]
pub struct SegmentIn<'a> {
    /// SEG.SEQ
    pub seq: SeqNumber,
    /// SEG.ACK
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND as on the wire.
    pub window: u16,
    /// SEG.UP
    pub urgent: u16,
    /// Parsed options.
    pub options: &'a TcpOptions,
    /// Payload bytes; SYN and FIN not counted.
    pub payload_len: u32,
    /// Congestion Experienced in the IP header.
    pub ce: bool,
    /// It carries an MPTCP signal (ADD_ADDR, MP_PRIO, ...): if it looks like a duplicate ACK, it
    /// is none (RFC 8684 §3.4: such ACKs are no sign of congestion).
    pub mptcp_signal: bool,
    /// Segments that were coalesced into this one: 1, unless their number is known.
    pub segments: u32,
}

impl SegmentIn<'_> {
    /// SEG.LEN: payload, SYN and FIN (RFC 9293 §3.3.1).
    #[must_use]
    pub fn sequence_len(&self) -> u32 {
        self.payload_len
            + u32::from(self.flags.contains(Flags::SYN))
            + u32::from(self.flags.contains(Flags::FIN))
    }
}

impl<'a> From<&'a TcpPacket> for SegmentIn<'a> {
    fn from(packet: &'a TcpPacket) -> Self {
        Self {
            seq: packet.seq,
            ack: packet.ack,
            flags: packet.flags,
            window: packet.window,
            urgent: packet.urgent,
            options: &packet.options,
            // A packet is bounded by the IP length field, 16 bits.
            payload_len: u32::try_from(packet.payload.len()).unwrap_or(u32::MAX),
            // RFC 3168 §5: both ECN bits set.
            ce: packet.ecn == 3,
            mptcp_signal: false,
            segments: 1,
        }
    }
}

/// Why a connection ended without FIN, or why an RST leaves.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetCause {
    /// The peer refused the SYN.
    Refused,
    /// The peer sent an RST.
    PeerReset,
    /// The owner asked for it.
    Aborted,
    /// A SYN/ACK acknowledged what was not sent.
    BadHandshakeAck,
    /// The peer stopped answering.
    TimedOut,
    /// An ICMP error ended the connection attempt.
    Unreachable,
}

/// What a segment did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It passed the checks of RFC 9293, 5961 and 7323. Only then may its MPTCP options be
    /// acted on.
    pub valid: bool,
    /// Bytes newly acknowledged, cumulatively; SYN and FIN excluded.
    pub acked_bytes: u32,
    /// The connection became established now.
    pub established: bool,
    /// There is new in-order data to pop.
    pub readable: bool,
    /// The peer's FIN is in order now.
    pub fin: bool,
    /// Our FIN was acknowledged now.
    pub fin_acked: bool,
    /// The connection was reset now.
    pub reset: Option<ResetCause>,
    /// The state became CLOSED now. (TIME-WAIT: ask `Tcp::time_wait`.)
    pub closed: bool,
    /// It carried data received before.
    pub duplicate_data: bool,
    /// The peer's window opened from less than a segment.
    pub window_opened: bool,
    /// Segments were declared lost: `next_retransmit` has work.
    pub lost: bool,
}

/// What a due timer did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct TimerVerdict {
    /// The retransmission timer fired.
    pub rto_fired: bool,
    /// Timeouts in a row without any progress, this one included.
    pub consecutive_rtos: u32,
    /// The connection was given up; the state is CLOSED (an RST may be pending).
    pub timed_out: bool,
    /// The state became CLOSED now, by time-out or at the end of TIME-WAIT.
    pub closed: bool,
}

/// A segment without payload that should leave now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Control {
    /// SYN; options from [`super::Tcp::syn_fields`].
    Syn {
        /// ISS.
        seq: SeqNumber,
        /// 0 for the first transmission.
        attempt: u8,
    },
    /// SYN, ACK; options from [`super::Tcp::syn_fields`].
    SynAck {
        /// ISS.
        seq: SeqNumber,
        /// 0 for the first transmission.
        attempt: u8,
    },
    /// A pure ACK.
    Ack {
        /// SND.NXT.
        seq: SeqNumber,
    },
    /// FIN, ACK.
    Fin {
        /// Where the stream ends.
        seq: SeqNumber,
    },
    /// RST; the connection may be gone.
    Rst {
        /// Where the peer expects it.
        seq: SeqNumber,
        /// RCV.NXT, with the ACK flag; `None` sends neither.
        ack: Option<SeqNumber>,
        /// Why.
        cause: ResetCause,
    },
    /// An ACK with an old sequence number, which the peer must answer: zero-window or keepalive
    /// probe.
    Probe {
        /// SND.UNA - 1.
        seq: SeqNumber,
    },
}

/// Header fields of every segment but SYNs and RSTs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct HeaderFields {
    /// RCV.NXT.
    pub ack: SeqNumber,
    /// Scaled receive window.
    pub window: u16,
    /// ACK, and ECE while marks are echoed.
    pub flags: Flags,
    /// Timestamps, if negotiated.
    pub timestamps: Option<Timestamps>,
}

/// Header fields and options of a SYN or SYN/ACK.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct SynFields {
    /// RCV.NXT; `None` on a SYN.
    pub ack: Option<SeqNumber>,
    /// SYN, ACK, and the ECN flags (RFC 3168 §6.1.1).
    pub flags: Flags,
    /// Receive window, never scaled on a SYN (RFC 7323 §2.2).
    pub window: u16,
    /// Our MSS.
    pub mss: u16,
    /// Our window shift, if offered.
    pub window_scale: Option<u8>,
    /// Offer SACK.
    pub sack_permitted: bool,
    /// Timestamps, if offered.
    pub timestamps: Option<Timestamps>,
}

/// The mapping that was declared for a range of the subflow, copied verbatim on every
/// retransmission: a middlebox may hold the first copy against the second.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct MapRef {
    /// Data sequence number of the mapping's first byte.
    pub dsn: u64,
    /// Subflow sequence number of the mapping's first byte, relative to ISS.
    pub ssn: u32,
    /// Length of the mapping.
    pub len: u16,
    /// Its DSS checksum, if in use.
    pub csum: u16,
}

/// A range to send again, whole.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct TxRange {
    /// Sequence number of the first byte.
    pub seq: SeqNumber,
    /// Bytes; never more than the segment size.
    pub len: u32,
    /// Data sequence number (or stream offset) of the first byte.
    pub dsn: u64,
    /// The mapping it was sent under.
    pub map: MapRef,
}

/// Received bytes in order.
#[derive(Debug)]
pub struct RxChunk {
    /// Sequence number of the first byte.
    pub seq: SeqNumber,
    /// The bytes.
    pub chain: Chain,
}
