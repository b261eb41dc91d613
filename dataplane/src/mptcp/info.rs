//! What `braid conns` shows: like `ss -M`, with totals that survive a subflow's close.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::api::SubflowId;
use super::event::Announcement;
use crate::tcp::TcpInfo;

/// Byte and segment totals of a subflow or a connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Payload bytes sent the first time on this subflow (reinjections included).
    pub bytes_sent: u64,
    /// Payload bytes sent again on the same subflow.
    pub bytes_retransmitted: u64,
    /// Payload bytes sent here although another subflow had sent them.
    pub bytes_reinjected: u64,
    /// Payload bytes received in order at subflow level.
    pub bytes_received: u64,
    /// Segments with payload sent, first time.
    pub segments_sent: u64,
    /// Segments retransmitted.
    pub segments_retransmitted: u64,
    /// Segments received, all kinds.
    pub segments_received: u64,
    /// Segments without payload sent.
    pub acks_sent: u64,
}

impl Totals {
    /// Nothing yet.
    pub(crate) const NONE: Self = Self {
        bytes_sent: 0,
        bytes_retransmitted: 0,
        bytes_reinjected: 0,
        bytes_received: 0,
        segments_sent: 0,
        segments_retransmitted: 0,
        segments_received: 0,
        acks_sent: 0,
    };

    /// Adds another subflow's.
    pub fn merge(&mut self, other: &Totals) {
        self.bytes_sent += other.bytes_sent;
        self.bytes_retransmitted += other.bytes_retransmitted;
        self.bytes_reinjected += other.bytes_reinjected;
        self.bytes_received += other.bytes_received;
        self.segments_sent += other.segments_sent;
        self.segments_retransmitted += other.segments_retransmitted;
        self.segments_received += other.segments_received;
        self.acks_sent += other.acks_sent;
    }
}

/// One subflow.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubflowInfo {
    /// Stable identifier.
    pub id: SubflowId,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Local address identifier.
    pub local_id: u8,
    /// Remote address identifier.
    pub remote_id: u8,
    /// Index of the port that carries it.
    pub port: u16,
    /// MPTCP-level state.
    pub state: String,
    /// This side asked for backup use.
    pub backup_local: bool,
    /// The peer asked for backup use.
    pub backup_remote: bool,
    /// It makes no progress at the moment.
    pub stale: bool,
    /// Totals.
    pub totals: Totals,
    /// TCP's view.
    pub tcp: TcpInfo,
}

/// A subflow that is gone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClosedSubflowInfo {
    /// Stable identifier.
    pub id: SubflowId,
    /// Local end.
    pub local: SocketAddr,
    /// Remote end.
    pub remote: SocketAddr,
    /// Why it ended.
    pub error: String,
    /// Totals.
    pub totals: Totals,
}

/// One connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnInfo {
    /// Own token.
    pub token: u32,
    /// The peer's token, once known.
    pub remote_token: Option<u32>,
    /// Connection state: RFC 8684 Appendix D names, or the TCP state after fallback.
    pub state: String,
    /// It is MPTCP (not fallen back, not plain TCP).
    pub mptcp: bool,
    /// Version of MPTCP that was offered or answered; `None` on TCP that never was anything
    /// else.
    pub version: Option<u8>,
    /// Name of the counter that says why it fell back.
    pub fallback: Option<String>,
    /// The peer opened it.
    pub server: bool,
    /// DSS checksums are in use.
    pub checksum: bool,
    /// Both sides know both keys for sure.
    pub fully_established: bool,
    /// Payload bytes taken from the application.
    pub bytes_taken: u64,
    /// Payload bytes acknowledged at connection level.
    pub bytes_acked: u64,
    /// Payload bytes delivered in order.
    pub bytes_delivered: u64,
    /// Bytes in the send queue.
    pub send_queue_bytes: u64,
    /// Bytes the application has not read.
    pub recv_queue_bytes: u64,
    /// Bytes out of order at connection level.
    pub out_of_order_bytes: u64,
    /// Frames pinned by the send queue.
    pub send_queue_frames: u64,
    /// Frames pinned by the receive queues.
    pub recv_queue_frames: u64,
    /// Milliseconds since the connection was created.
    pub age_ms: u64,
    /// Totals over every subflow that ever was.
    pub totals: Totals,
    /// Own addresses that the peer was told.
    pub announced: Vec<Announcement>,
    /// Live subflows.
    pub subflows: Vec<SubflowInfo>,
    /// Gone subflows, newest last; bounded.
    pub closed_subflows: Vec<ClosedSubflowInfo>,
}
