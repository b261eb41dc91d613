//! braidd's own control socket: what the `braid` command, or any other program, may ask.
//!
//! Same transport as between the processes: one JSON message per `SOCK_SEQPACKET`
//! datagram. A client sends an [`ApiRequest`] and gets one [`ApiReply`]; after
//! [`ApiRequest::Monitor`] it gets [`ApiReply::Event`] until it hangs up.

mod client;
mod flat;
mod server;
mod socket;

use std::net::IpAddr;

use braid_dataplane::control::{ConnReport, DataplaneEvent, PoolReport, PortReport, StatusReport};
use serde::{Deserialize, Serialize};

use crate::config::{EndpointFlags, Mode, Policy};
use crate::path::endpoints::Which;
use crate::path::{Endpoint, Limits};
use crate::steering::NtupleStatus;

pub use client::{Client, ClientError};
pub use server::{Call, serve};
pub use socket::{ListenError, connect, listen, probe};

/// To braidd.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum ApiRequest {
    /// State of braidd, its interfaces and the dataplane.
    Status,
    /// Connections, from `offset` in a stable order; one page.
    Conns {
        /// How many to skip.
        offset: u64,
    },
    /// Counters of the dataplane and of the steering program.
    Counters,
    /// Rings, frames and modes.
    Xsk,
    /// Adds an endpoint.
    EndpointAdd {
        /// Address.
        address: IpAddr,
        /// Port to announce with it.
        #[serde(default)]
        port: Option<u16>,
        /// Flags.
        flags: EndpointFlags,
        /// Identifier; chosen when absent.
        id: Option<u8>,
    },
    /// Deletes an endpoint.
    EndpointRemove {
        /// Which.
        which: Which,
    },
    /// Changes an endpoint's flags.
    EndpointChange {
        /// Which.
        which: Which,
        /// The new flags, all of them.
        flags: EndpointFlags,
    },
    /// Lists endpoints.
    EndpointShow,
    /// Shows, or with values sets, the limits.
    Limits {
        /// Subflows per connection.
        subflows: Option<u8>,
        /// Announced addresses per connection.
        accept_addresses: Option<u8>,
    },
    /// Opens a connection of the configuration.
    Connect {
        /// Its name.
        name: String,
    },
    /// Streams events.
    Monitor,
    /// No new connections; exit when the last one ends or after the time.
    Drain {
        /// Then the rest is aborted.
        timeout_ms: u64,
    },
    /// Reads the configuration again.
    Reload,
}

/// From braidd.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum ApiReply {
    /// Done.
    Ok {
        /// What was done, for people.
        message: String,
    },
    /// Not done.
    Error {
        /// Cause and, where there is one, the command that fixes it.
        message: String,
    },
    /// To [`ApiRequest::Status`].
    Status(Box<DaemonStatus>),
    /// To [`ApiRequest::Conns`].
    Conns {
        /// How many there are.
        total: u64,
        /// One page of them.
        conns: Vec<ConnReport>,
    },
    /// To [`ApiRequest::Counters`]: those that are not zero.
    Counters {
        /// Of the dataplane.
        dataplane: Vec<(String, u64)>,
        /// Of the steering program.
        steer: Vec<(String, u64)>,
    },
    /// To [`ApiRequest::Xsk`].
    Xsk {
        /// One per interface and queue.
        ports: Vec<PortReport>,
        /// One per worker and UMEM group.
        pools: Vec<PoolReport>,
    },
    /// One endpoint: as added or changed, or as it was deleted.
    Endpoint {
        /// It.
        endpoint: Endpoint,
    },
    /// To [`ApiRequest::EndpointShow`].
    Endpoints {
        /// All, by identifier.
        endpoints: Vec<Endpoint>,
    },
    /// To [`ApiRequest::Limits`].
    Limits {
        /// In force now.
        limits: Limits,
    },
    /// To [`ApiRequest::Connect`].
    Connecting {
        /// Own token of the connection.
        token: u32,
    },
    /// After [`ApiRequest::Monitor`].
    Event(Box<MonitorEvent>),
}

/// State of the control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Version of braidd.
    pub version: String,
    /// Process id of braidd.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Configuration file.
    pub config: String,
    /// Process id of the dataplane, while there is one.
    pub dataplane_pid: Option<u32>,
    /// Times the dataplane was started again after it had died.
    pub restarts: u64,
    /// The dataplane was found running and taken over.
    pub adopted: bool,
    /// No new connections; exiting.
    pub draining: bool,
    /// Who decides about paths.
    pub paths: PathStatus,
    /// Interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Services and where they listen.
    pub services: Vec<(String, Vec<String>)>,
    /// Ports held against the kernel.
    pub ports_held: usize,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// The dataplane's own report; absent while it is down.
    pub dataplane: Option<StatusReport>,
}

/// Path manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathStatus {
    /// "braidd": no other process decides about braid's endpoints; `ip mptcp` does not.
    pub owner: String,
    /// Policy.
    pub policy: Policy,
    /// Limits.
    pub limits: Limits,
    /// How many endpoints.
    pub endpoints: usize,
    /// Connections managed.
    pub connections: usize,
}

/// One interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// As configured.
    pub mode_configured: Mode,
    /// How the program is attached: "native" or "generic".
    pub attached: String,
    /// Driver.
    pub driver: String,
    /// Queues that are used.
    pub queues: Vec<u32>,
    /// MTU.
    pub mtu: u32,
    /// It can send.
    pub carrier: bool,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Rules by which the NIC delivers flows to their owner's queue.
    pub ntuple: NtupleStatus,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MonitorEvent {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: ApiEvent,
}

/// Events of the dataplane and of braidd.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum ApiEvent {
    /// From the dataplane.
    Dataplane {
        /// It.
        #[serde(with = "flat")]
        event: DataplaneEvent,
    },
    /// A link of the dataplane changed.
    Link {
        /// Name.
        interface: String,
        /// It can send.
        carrier: bool,
    },
    /// The dataplane died; XDP passes everything meanwhile.
    DataplaneDied {
        /// Its process id.
        pid: u32,
    },
    /// The dataplane runs again.
    DataplaneStarted {
        /// Process id.
        pid: u32,
        /// How many times that makes.
        restarts: u64,
    },
    /// The configuration was read again.
    Reloaded,
    /// A path could not be opened.
    PathFailed {
        /// Connection, if there is one yet.
        token: Option<u32>,
        /// Cause.
        message: String,
    },
    /// This client reads too slowly.
    Missed {
        /// Events that it did not get.
        count: u64,
    },
}

/// An event with the time of now.
#[must_use]
pub fn stamp(event: ApiEvent) -> MonitorEvent {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    MonitorEvent {
        unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        event,
    }
}
