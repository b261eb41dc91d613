//! The seams of a connection: what it is given (context, frames) and what it gives back
//! (actions for the engine, calls into the application).

use std::fmt;
use std::ops::Range;

use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::autotune::WindowLedger;
use super::config::{MptcpConfig, Secrets, WorkerShare};
use super::event::Event;
use super::recv::RecvStream;
use crate::buf::Frame;
use crate::checksum::Sum;
use crate::counters::Counters;
use crate::io::{PortId, Tx};
use crate::offload::BurstShape;
use crate::offload::header::L2Header;
use crate::tcp::{FastOpenLesson, TimeWait};
use crate::time::Instant;
use crate::wire::types::{AddressId, FourTuple};

/// Stable name of a subflow within its connection. Never reused while the connection
/// lives, so that late events cannot be taken for another subflow's.
#[derive(
    Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SubflowId(pub u16);

impl fmt::Display for SubflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a subflow runs.
#[derive(Clone, Debug)]
pub struct SubflowPath {
    /// Port that carries it.
    pub port: PortId,
    /// Link-layer header of everything sent.
    pub l2: L2Header,
    /// Addresses and ports.
    pub tuple: FourTuple,
    /// IP MTU of the path.
    pub mtu: u32,
    /// Address identifier of the local address (0 for the initial subflow).
    pub local_id: AddressId,
    /// Address identifier of the remote address; ignored where the peer names it.
    pub remote_id: AddressId,
    /// Ask the peer to treat the subflow as backup.
    pub backup: bool,
}

/// Everything a connection may use from outside during one call.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The time of the batch.
    pub now: Instant,
    /// Randomness: nonces and keys.
    pub rng: &'a mut StdRng,
    /// The worker's counters.
    pub counters: &'a mut Counters,
    /// What the engine has to do afterwards.
    pub actions: &'a mut Actions,
    /// Settings of the service.
    pub config: &'a MptcpConfig,
    /// The worker's secrets.
    pub secrets: &'a Secrets,
    /// Which worker this is.
    pub worker: WorkerShare,
    /// The frames that windows promise.
    pub windows: &'a mut WindowLedger,
}

/// A change of the engine's flow table.
#[derive(Debug)]
pub enum FlowChange {
    /// Packets of this tuple belong to this subflow.
    Add(FourTuple, SubflowId),
    /// They no longer do; the engine keeps the TIME-WAIT state, if any.
    Remove(FourTuple, Option<TimeWait>),
}

/// Filled by a connection, drained by the engine after each call; reused.
#[derive(Debug, Default)]
pub struct Actions {
    /// Flow table changes, in order.
    pub flows: Vec<FlowChange>,
    /// Events for the control plane, in order.
    pub events: Vec<Event>,
    /// What a handshake taught about the server's Fast Open.
    pub fast_open: Option<FastOpenLesson>,
}

impl Actions {
    /// Empty lists with room for a batch.
    #[must_use]
    pub fn new() -> Self {
        Self {
            flows: Vec::with_capacity(16),
            events: Vec::with_capacity(64),
            fast_open: None,
        }
    }
}

/// Where frames come from and go to: the worker's ports, or a test's.
pub trait TxSink {
    /// A free frame of the pool that `port` sends from.
    fn alloc(&mut self, port: PortId) -> Option<Frame>;
    /// Hands a finished packet to a port. The port takes its own reference on the frame;
    /// the caller keeps the token.
    fn send(&mut self, port: PortId, frame: &Frame) -> Tx;
    /// Largest burst that `port` segments on its way out; 0: it does not.
    fn segment_bytes(&self, port: PortId) -> u32 {
        let _ = port;
        0
    }
    /// Hands a burst to a port that segments, as [`crate::io::Port::tx_burst`] says.
    fn send_burst<'f>(
        &mut self,
        port: PortId,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        let _ = (port, shape, frames);
        debug_assert!(false, "no port segments");
        Tx::Full
    }
    /// Packets that `port` would take now. A port without carrier should say that it has
    /// room, so that `send` can say why it has not.
    fn room(&self, port: PortId) -> u32;
    /// Whether a frame allocated for `a` can be sent on `b` without a copy.
    fn shares_frames(&self, a: PortId, b: PortId) -> bool {
        a == b
    }
}

/// What an application wants to do with its sending side.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SendState {
    /// `fill` would produce bytes now.
    Ready,
    /// Nothing to send at the moment.
    Idle,
    /// Nothing more, ever: DATA_FIN follows what was filled.
    Finished,
    /// Give the connection up at once (MP_FASTCLOSE).
    Abort,
}

/// Why a connection ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// Both directions were finished and acknowledged.
    Finished,
    /// The peer aborted: MP_FASTCLOSE, or RST on a TCP connection.
    PeerAbort,
    /// Aborted from this side.
    LocalAbort,
    /// No answer: handshake or retransmission timeout.
    Timeout,
    /// The peer refused the connection.
    Refused,
    /// No subflow was left for too long.
    Subflowless,
    /// A local close did not finish in time.
    CloseTimeout,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Finished => "finished",
            CloseReason::PeerAbort => "aborted by the peer",
            CloseReason::LocalAbort => "aborted",
            CloseReason::Timeout => "timed out",
            CloseReason::Refused => "refused",
            CloseReason::Subflowless => "no subflow left",
            CloseReason::CloseTimeout => "close timed out",
        })
    }
}

/// What a service does with a stream. A connection pulls: it calls `fill` only when a
/// subflow can send, with a buffer of exactly the segment that will leave.
///
/// There is no out-of-band data: what a peer sends as urgent arrives in the stream, see
/// [`RecvStream`].
pub trait Application {
    /// The connection can carry data now. Called once. With Fast Open, `fill` is called before
    /// for the SYN's data, and `on_readable` for that of the peer's.
    fn on_established(&mut self) {}

    /// In-order bytes (or end of stream) arrived since the last call. What is left
    /// unread closes the receive window.
    fn on_readable(&mut self, rx: &mut RecvStream);

    /// Writes the next bytes of the stream to the front of `out` and returns how many,
    /// with their sum ([`crate::checksum::copy_and_sum`]). Returning 0 means `Idle`.
    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum);

    /// Whether `fill` is worth calling.
    fn send_state(&self, rx: &RecvStream) -> SendState;

    /// How many bytes `fill` would produce now if there were room for all, if the
    /// application knows. A scheduler may decide by that what is worth a slow path.
    fn backlog(&self, rx: &RecvStream) -> Option<u64> {
        let _ = rx;
        None
    }

    /// What it found out about the bytes that it received, if it is of the kind that looks.
    /// Asked when the connection is over, before `on_closed`.
    fn findings(&self) -> Option<Findings> {
        None
    }

    /// The connection is over; nothing is called afterwards. Called once.
    fn on_closed(&mut self, reason: CloseReason) {
        let _ = reason;
    }
}

/// What an application found out about the bytes that it received.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Findings {
    /// How many.
    pub received: u64,
    /// The end of the stream was among them.
    pub eof: bool,
    /// Stream offsets of the first and the last byte that was not the expected one.
    pub wrong: Option<(u64, u64)>,
    /// How many stretches of 65,535 bytes, the longest mapping, it takes to cover all such.
    #[serde(default)]
    pub stretches: u64,
    /// SHA-256 of them all, in hexadecimal.
    pub sha256: String,
}

/// What `poll` left behind.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Nothing more to send until a packet, a timer or the application says so.
    Done,
    /// A port was full or out of frames: poll again when it has room.
    More,
}

/// Why a MP_JOIN SYN was refused. The engine answers it by RST with this reason.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum JoinReject {
    /// The connection is not (or no longer) MPTCP.
    NotMptcp,
    /// The connection is not fully established yet.
    NotEstablished,
    /// Too many subflows.
    Limit,
    /// Not a MP_JOIN SYN, or its address identifier names the initial address in vain.
    Malformed,
    /// The connection is closing.
    Closing,
    /// Flag C was set: no subflow to the address and port of the first one.
    Prohibited,
}

impl JoinReject {
    /// MP_TCPRST reason code (RFC 8684 §3.6).
    #[must_use]
    pub fn reset_reason(self) -> u8 {
        match self {
            // 0x01 MPTCP-specific error, 0x02 lack of resources, 0x03 prohibited.
            JoinReject::NotMptcp | JoinReject::NotEstablished | JoinReject::Malformed => 1,
            JoinReject::Limit => 2,
            JoinReject::Closing | JoinReject::Prohibited => 3,
        }
    }
}

/// Why a subflow could not be opened.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The connection fell back to TCP, or has not finished its handshake.
    #[error("the connection is not established MPTCP")]
    NotMptcp,
    /// Too many subflows.
    #[error("the connection has its maximum of subflows")]
    Limit,
    /// A subflow with this four-tuple exists.
    #[error("a subflow with these addresses and ports exists")]
    Exists,
    /// The peer refuses joins to its initial address (flag C).
    #[error("the peer accepts no subflow to its initial address")]
    InitialAddressDenied,
    /// This address and port failed before and was not announced again.
    #[error("this address and port failed before in this connection")]
    FailedBefore,
    /// The connection is closing.
    #[error("the connection is closing")]
    Closing,
    /// The SYN must not be answered, not even by RST (RFC 6824 §3.1, flag B).
    #[error("the SYN is not understood and to be ignored")]
    SynIgnored,
    /// Local and remote address are of different families.
    #[error("local and remote address are of different families")]
    MixedFamilies,
}
