//! What the control plane hears about connections: mptcpd's callback set.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::api::{CloseReason, Findings, SubflowId};

/// An own address that peers are told (ADD_ADDR).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Announcement {
    /// Own identifier of the address.
    pub id: u8,
    /// The address.
    pub address: IpAddr,
    /// Port, when it is not the connection's.
    pub port: Option<u16>,
}

/// One thing that happened to a connection. `token` is the connection's own token; plain
/// TCP connections have a locally unique number in its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A connection exists; its handshake is not complete.
    Created {
        /// Connection.
        token: u32,
        /// Local end of the initial subflow.
        local: SocketAddr,
        /// Remote end of the initial subflow.
        remote: SocketAddr,
        /// The peer opened it.
        server: bool,
    },
    /// It is known what the connection is: MPTCP, ready for more subflows (fully
    /// established, RFC 8684 §3.1), or plain TCP. Data may have flowed before.
    Established {
        /// Connection.
        token: u32,
        /// Local end of the initial subflow.
        local: SocketAddr,
        /// Remote end of the initial subflow.
        remote: SocketAddr,
        /// The peer opened it.
        server: bool,
        /// It is MPTCP; otherwise it runs as plain TCP.
        mptcp: bool,
        /// DSS checksums are in use.
        checksum: bool,
        /// The peer set flag C: no subflows to its initial address.
        deny_join_initial: bool,
        /// What the peer is being told without being asked for: of
        /// [`MptcpConfig::announcements`](super::MptcpConfig::announcements), what it does not
        /// know anyway.
        announced: Vec<Announcement>,
    },
    /// An MPTCP connection goes on as plain TCP.
    FellBack {
        /// Connection.
        token: u32,
        /// Name of the counter that says why.
        reason: String,
    },
    /// A connection is about to be over, and this is what its application got.
    Checked {
        /// Connection.
        token: u32,
        /// What it found.
        findings: Findings,
    },
    /// A connection is over.
    Closed {
        /// Connection.
        token: u32,
        /// Why.
        reason: CloseReason,
    },
    /// The peer announced an address.
    Announced {
        /// Connection.
        token: u32,
        /// The peer's identifier for it.
        address_id: u8,
        /// The address.
        address: IpAddr,
        /// Port; absent: the port of the initial subflow.
        port: Option<u16>,
        /// Subflow on which it arrived.
        subflow: SubflowId,
    },
    /// The peer withdrew an address.
    Removed {
        /// Connection.
        token: u32,
        /// The peer's identifier for it.
        address_id: u8,
    },
    /// The peer confirmed an address of ours.
    Echoed {
        /// Connection.
        token: u32,
        /// Our identifier for it.
        address_id: u8,
    },
    /// A subflow joined the connection.
    SubflowEstablished {
        /// Connection.
        token: u32,
        /// Subflow.
        subflow: SubflowId,
        /// Local end.
        local: SocketAddr,
        /// Remote end.
        remote: SocketAddr,
        /// Local address identifier.
        local_id: u8,
        /// Remote address identifier.
        remote_id: u8,
        /// One side asked for backup use.
        backup: bool,
    },
    /// A subflow, established or not, is gone.
    SubflowClosed {
        /// Connection.
        token: u32,
        /// Subflow.
        subflow: SubflowId,
        /// Local end.
        local: SocketAddr,
        /// Remote end.
        remote: SocketAddr,
        /// Local address identifier.
        local_id: u8,
        /// Remote address identifier.
        remote_id: u8,
        /// It had been established.
        established: bool,
        /// Why, in words.
        error: String,
        /// MP_TCPRST reason received or sent, if any.
        reset_reason: Option<u8>,
        /// Whether the peer's MP_TCPRST leaves hope for this path: its flag T, or a reason
        /// that bars nothing. `None` if none was received.
        transient: Option<bool>,
    },
    /// The peer changed a subflow's priority.
    SubflowPriority {
        /// Connection.
        token: u32,
        /// Subflow.
        subflow: SubflowId,
        /// It is a backup now.
        backup: bool,
    },
    /// A subflow stopped making progress, or works again.
    SubflowStale {
        /// Connection.
        token: u32,
        /// Subflow.
        subflow: SubflowId,
        /// It does not work at the moment.
        stale: bool,
    },
}
