//! The vocabulary of the control channel. See [`super`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use crate::io::RxChecksum;
pub use crate::io::xsk::HugePages;
pub use crate::mptcp::{Announcement, ChecksumPolicy, ConnInfo, Event, SchedulerKind, Version};
pub use crate::tcp::{CongestionKind, EcnPolicy};

/// Wire version of these messages; both sides refuse another one.
pub const PROTOCOL_VERSION: u32 = 2;

/// Connections reported by one [`Reply::Conns`] at the most: a reply is one datagram.
pub const CONNS_PER_REPLY: usize = 12;

/// A request with the id that its reply will carry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Chosen by the requester, echoed in the reply; 0 for events.
    pub id: u64,
    /// The message.
    pub body: T,
}

/// How idle workers wait.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idle {
    /// Spin for about 50 µs, then sleep in poll(2).
    #[default]
    Adaptive,
    /// Never sleep.
    Busy,
}

/// How the interface's XDP program is attached, and so how sockets bind.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMode {
    /// Driver XDP, zero-copy sockets.
    ZeroCopy,
    /// Driver XDP, copying sockets.
    Native,
    /// Generic (skb) XDP, copying sockets.
    Generic,
    /// Generic XDP, sockets that take packets of several frames: what the kernel has not
    /// segmented, or has coalesced, arrives whole.
    Superframe,
}

/// Protocol settings, the same for every connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MptcpSetup {
    /// DSS checksum policy.
    pub checksum: ChecksumPolicy,
    /// Answer version 0 with version 0.
    pub allow_v0: bool,
    /// Version that active opens offer.
    pub connect_version: Version,
    /// Scheduler.
    pub scheduler: SchedulerKind,
    /// Congestion control.
    pub congestion: CongestionKind,
    /// Pace senders.
    pub pacing: bool,
    /// Explicit congestion notification.
    pub ecn: EcnPolicy,
    /// TCP Fast Open.
    pub fast_open: bool,
    /// Answer SYNs by cookies while a backlog is full.
    pub syn_cookies: bool,
    /// Subflows per connection at the most.
    pub subflows_max: u8,
    /// Announced addresses of the peer that are remembered, at the most.
    pub accept_addresses: u8,
    /// How long a connection without a subflow waits for a new one.
    pub subflowless_timeout_ms: u64,
    /// Tell the connection-level window in the experimental option.
    pub window_option: bool,
    /// Set flag C: no subflows to the address and port of the first one.
    pub deny_join_id0: bool,
    /// Receive window of a connection at the most, bytes.
    pub receive_buffer_max: u32,
    /// Unacknowledged data of a connection at the most, bytes.
    pub send_buffer_max: u32,
}

/// One interface as the control plane prepared it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceSetup {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Own hardware address.
    pub mac: [u8; 6],
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Queues to bind, in order.
    pub queues: Vec<u32>,
    /// How the program is attached.
    pub mode: PortMode,
    /// Fail instead of copying when zero-copy is refused.
    pub zero_copy_required: bool,
    /// Checksum policy on receive.
    pub rx_checksum: RxChecksum,
    /// Carrier at start.
    pub carrier: bool,
}

/// What a service or an active open does with its stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "app", rename_all = "kebab-case")]
pub enum AppSetup {
    /// Sends back what it receives; closes when the peer has closed.
    Echo,
    /// Reads and discards.
    Sink,
    /// Sends a deterministic byte pattern.
    Source {
        /// Bytes before the stream is closed; `None`: until the peer closes.
        bytes: Option<u64>,
    },
    /// Sends that pattern, and tells at the end whether the same came.
    Exchange {
        /// Bytes before the stream is closed.
        bytes: u64,
    },
}

/// A service: address, port and app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSetup {
    /// Name in the configuration.
    pub name: String,
    /// Addresses to listen on; unspecified addresses match every address of their family.
    pub listen: Vec<SocketAddr>,
    /// SYN-RECEIVED connections at the most.
    pub backlog: u32,
    /// What it does.
    #[serde(flatten)]
    pub app: AppSetup,
}

/// Role of a descriptor that travels with [`Request::Setup`] and [`Reply::Adopted`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FdRole {
    /// BPF map: heartbeat.
    Heartbeat,
    /// BPF map: claimed addresses and ports.
    Claims,
    /// BPF map: per-CPU counters.
    SteerCounters,
    /// BPF map: sockets of one interface.
    Xsks(u32),
    /// bpf_link of one interface.
    Link(u32),
}

/// Everything the dataplane needs to start. Sent once; the dataplane keeps it so
/// that a later control plane can adopt it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// One worker per entry, pinned there.
    pub cores: Vec<usize>,
    /// Idle policy.
    pub idle: Idle,
    /// Frames per worker and UMEM group.
    pub frames: u32,
    /// Bytes per frame: 2048 or 4096.
    pub frame_bytes: u32,
    /// RX ring entries; the fill ring has as many.
    pub rx_ring: u32,
    /// TX ring entries.
    pub tx_ring: u32,
    /// Bytes of frame memory at the most.
    pub memory_limit_bytes: u64,
    /// Huge pages.
    pub hugepages: HugePages,
    /// Interfaces.
    pub interfaces: Vec<InterfaceSetup>,
    /// Protocol.
    pub mptcp: MptcpSetup,
    /// Services.
    pub services: Vec<ServiceSetup>,
    /// What connections announce by themselves.
    pub announcements: Vec<Announcement>,
    /// Roles of the descriptors, in the order in which they are attached.
    pub fds: Vec<FdRole>,
}

/// A way to a peer, resolved by the control plane (route, neighbour, reserved port).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathSetup {
    /// Outgoing interface.
    pub ifindex: u32,
    /// Next hop's hardware address.
    pub next_hop_mac: [u8; 6],
    /// Own address and reserved port.
    pub local: SocketAddr,
    /// Peer.
    pub remote: SocketAddr,
    /// Route MTU, bytes of IP packet.
    pub mtu: u32,
    /// Own address identifier.
    pub local_id: u8,
    /// The peer's address identifier, 0 if unknown.
    pub remote_id: u8,
    /// Ask the peer to use this subflow only when no other works.
    pub backup: bool,
}

/// An order about one connection, named by its own token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum ConnCommand {
    /// Join over a new path.
    OpenSubflow {
        /// The path.
        path: PathSetup,
    },
    /// ADD_ADDR.
    Announce {
        /// Own identifier of the address.
        address_id: u8,
        /// The address.
        address: IpAddr,
        /// Port, when it is not the connection's.
        port: Option<u16>,
    },
    /// REMOVE_ADDR, and the end of its subflows.
    RemoveAddress {
        /// Own identifier.
        address_id: u8,
    },
    /// MP_PRIO for the subflows of one own address.
    SetBackup {
        /// Own identifier.
        address_id: u8,
        /// Backup from now on?
        backup: bool,
    },
    /// Ends one subflow with FIN.
    CloseSubflow {
        /// Own end.
        local: SocketAddr,
        /// Peer's end.
        remote: SocketAddr,
    },
    /// Closes the connection orderly.
    Close,
    /// MP_FASTCLOSE.
    Abort,
}

/// From the control plane.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Start. Descriptors beside it.
    Setup(Box<Setup>),
    /// A new control plane takes over a running dataplane.
    Adopt,
    /// Events to this connection from now on.
    Subscribe,
    /// Totals and state.
    Status,
    /// Connections, from `offset` in a stable order.
    Conns {
        /// How many to skip.
        offset: u64,
    },
    /// Counters of all workers, summed.
    Counters,
    /// Rings, frames and modes.
    Xsk,
    /// An active open.
    Connect {
        /// Name in the configuration.
        name: String,
        /// First path.
        path: PathSetup,
        /// What it does.
        app: AppSetup,
    },
    /// An order about one connection.
    Command {
        /// Own token.
        token: u32,
        /// The order.
        command: ConnCommand,
    },
    /// Carrier or administrative state of an interface changed.
    LinkState {
        /// Which.
        ifindex: u32,
        /// Can it send?
        carrier: bool,
    },
    /// The hardware address of a next hop changed.
    Neighbour {
        /// Interface.
        ifindex: u32,
        /// Peers behind it.
        remote: IpAddr,
        /// Its address.
        mac: [u8; 6],
    },
    /// Limits for every connection from now on (`braid limits`, reload).
    Limits {
        /// As [`MptcpSetup::subflows_max`].
        subflows_max: u8,
        /// As [`MptcpSetup::accept_addresses`].
        accept_addresses: u8,
    },
    /// Replaces what connections announce by themselves once they may be joined. Who was told
    /// something else already is dealt with by [`ConnCommand`]s: [`Event::Established`] says
    /// what that was.
    Announcements {
        /// The new list.
        announcements: Vec<Announcement>,
    },
    /// Replaces the list of services (reload).
    Services {
        /// The new list.
        services: Vec<ServiceSetup>,
    },
    /// No new connections; exit when the last one ends or after the time.
    Drain {
        /// Then the rest is aborted.
        timeout_ms: u64,
    },
    /// Exit now, giving everything back.
    Shutdown,
}

/// Answer to a [`Request`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Ok,
    /// Refused, with the cause and, where there is one, the command that fixes it.
    Error {
        /// One line.
        message: String,
    },
    /// Answer to [`Request::Setup`].
    Ready {
        /// What each port really got.
        ports: Vec<PortReport>,
    },
    /// Answer to [`Request::Adopt`]. Descriptors beside it.
    Adopted {
        /// As it was started.
        setup: Box<Setup>,
        /// Connections that live.
        connections: u64,
    },
    /// Answer to [`Request::Status`].
    Status(Box<StatusReport>),
    /// Answer to [`Request::Conns`].
    Conns {
        /// How many there are.
        total: u64,
        /// At most [`CONNS_PER_REPLY`].
        conns: Vec<ConnReport>,
    },
    /// Answer to [`Request::Counters`]: names and values that are not zero.
    Counters {
        /// Sorted as declared.
        counters: Vec<(String, u64)>,
    },
    /// Answer to [`Request::Xsk`].
    Xsk {
        /// One per interface and queue.
        ports: Vec<PortReport>,
        /// One per worker and UMEM group.
        pools: Vec<PoolReport>,
    },
    /// Answer to [`Request::Connect`].
    Connecting {
        /// Own token.
        token: u32,
    },
}

/// Totals of the dataplane.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StatusReport {
    /// Process id.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Draining?
    pub draining: bool,
    /// Per worker.
    pub workers: Vec<WorkerReport>,
}

/// One worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Core it is pinned to.
    pub core: usize,
    /// Connections that live.
    pub connections: u64,
    /// Flows in the table: subflows, TIME-WAIT and routes to other workers.
    pub flows: u64,
    /// TIME-WAIT entries.
    pub time_wait: u64,
    /// Loop turns that had work.
    pub busy_polls: u64,
    /// Times it slept in poll(2).
    pub sleeps: u64,
}

/// One connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnReport {
    /// Worker that owns it.
    pub worker: usize,
    /// Service or active open it belongs to.
    pub service: String,
    /// The connection.
    #[serde(flatten)]
    pub info: ConnInfo,
}

/// One port: an interface's queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortReport {
    /// Interface.
    pub interface: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Queue.
    pub queue: u32,
    /// Worker that owns it.
    pub worker: usize,
    /// What was asked for.
    pub mode_asked: PortMode,
    /// What the kernel says it is (getsockopt XDP_OPTIONS).
    pub zero_copy: bool,
    /// Ring levels and totals.
    pub stats: crate::io::PortStats,
}

/// One frame pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolReport {
    /// Worker.
    pub worker: usize,
    /// UMEM group.
    pub group: usize,
    /// Where the frames are.
    pub frames: crate::buf::FrameAccounting,
}

/// Unasked, to subscribers. Several for every connection that comes and goes: in the form that
/// is read fastest, a name with its contents.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataplaneEvent {
    /// About a connection: mptcpd's callback set.
    Connection {
        /// Worker.
        worker: usize,
        /// Service or active open.
        service: String,
        /// What happened.
        event: Event,
    },
    /// Events were lost because the reader was too slow.
    Lost {
        /// How many.
        count: u64,
    },
    /// Draining has finished.
    Drained,
}

/// What the dataplane sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDataplane {
    /// To a request.
    Reply(Reply),
    /// Unasked, oldest first.
    Events(Vec<DataplaneEvent>),
}
