//! Opens every port that a setup names, grouped by mode: one UMEM per group, because the
//! kernel takes a UMEM's mode, and whether packets may be in several frames, from its first
//! socket and ignores the flags of later ones.

use std::os::fd::OwnedFd;

use braid_bpf::{MapError, XskMap};

use super::fd_of;
use crate::buf::{FramePool, HEADROOM_BYTES};
use crate::control::{FdRole, InterfaceSetup, PortMode, Setup};
use crate::io::PortId;
use crate::io::xsk::{BindMode, OpenError, UmemConfig, UmemGroup, XskConfig, XskPort};
use crate::worker::run::PortSlot;

/// Frames that receiving leaves to sending: an eighth of a pool.
const TX_RESERVE_SHARE: u32 = 8;

/// What the length field of IPv4 can say.
const IP_BYTES_MAX: u32 = 65_535;

/// Bytes of Ethernet header with two VLAN tags.
const L2_BYTES_MAX: u32 = 14 + 8;

/// The largest headers behind an Ethernet header: IPv6, and TCP with all its options.
const HEADERS_MAX: u32 = 40 + 60;

/// Payload of a segment that fits into one frame, whatever its headers are.
pub(super) fn segment_bytes_max(frame_bytes: u32) -> u16 {
    let room = frame_bytes - HEADROOM_BYTES - L2_BYTES_MAX - HEADERS_MAX;
    u16::try_from(room).unwrap_or(u16::MAX)
}

/// Whether packets of an interface come in several frames each: superframes do, and packets of
/// an MTU that one frame does not hold. Such an interface also sends by the gso lane, which
/// gathers a packet from several frames. (The TX ring could, but each frame would have to
/// begin with payload, and xsk-rs knows no descriptor into the middle of a frame.)
fn takes_chains(setup: &Setup, interface: &InterfaceSetup) -> bool {
    let room = setup.frame_bytes - HEADROOM_BYTES - L2_BYTES_MAX;
    interface.mode == PortMode::Superframe || interface.mtu > room
}

/// Why ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// No worker at all.
    #[error("[dataplane] cores is empty: name at least one core")]
    NoWorkers,
    /// A worker would have no queue of an interface.
    #[error(
        "{interface} has {queues} queues for {workers} workers and every worker needs one: \
         ethtool -L {interface} combined {workers}, or name fewer cores"
    )]
    TooFewQueues {
        /// Interface.
        interface: String,
        /// Queues named for it.
        queues: usize,
        /// Workers.
        workers: usize,
    },
    /// A UMEM or socket could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A descriptor is missing or is not what it should be.
    #[error("{what}: {source}")]
    Map {
        /// Which map.
        what: String,
        /// Cause.
        source: MapError,
    },
    /// The setup message names no descriptor of this role.
    #[error("the setup message brought no {0:?} descriptor")]
    Missing(FdRole),
    /// A descriptor could not be duplicated.
    #[error("descriptor: {0}")]
    Duplicate(#[from] std::io::Error),
}

/// Ports and pools of one worker.
pub(super) type WorkerPorts = (Vec<PortSlot<XskPort>>, Vec<FramePool>);

/// Opens them all, inserts them in the maps and returns them by worker.
pub(super) fn open(setup: &Setup, fds: &[OwnedFd]) -> Result<Vec<WorkerPorts>, PortsError> {
    let workers = setup.cores.len();
    if workers == 0 {
        return Err(PortsError::NoWorkers);
    }
    let kind = |i: &InterfaceSetup| (i.mode, takes_chains(setup, i));
    let mut kinds: Vec<(PortMode, bool)> = setup.interfaces.iter().map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut groups: Vec<UmemGroup> = Vec::new();
    let mut out: Vec<WorkerPorts> = (0..workers).map(|_| (Vec::new(), Vec::new())).collect();
    for (mode, chains) in &kinds {
        let config = UmemConfig {
            pools: vec![setup.frames; workers],
            frame_bytes: setup.frame_bytes,
            fill_ring: setup.rx_ring,
            completion_ring: setup.tx_ring,
            hugepages: setup.hugepages,
            memory_limit_bytes: setup.memory_limit_bytes / kinds.len() as u64,
        };
        let (group, pools) = UmemGroup::create(&config)?;
        tracing::info!(
            ?mode,
            chains,
            frames = group.frames(),
            hugepages = group.hugepages(),
            "UMEM group"
        );
        groups.push(group);
        for (worker, pool) in out.iter_mut().zip(pools) {
            worker.1.push(pool);
        }
    }
    for (number, interface) in setup.interfaces.iter().enumerate() {
        if interface.queues.len() < workers {
            return Err(PortsError::TooFewQueues {
                interface: interface.name.clone(),
                queues: interface.queues.len(),
                workers,
            });
        }
        let pool = kinds
            .iter()
            .position(|other| *other == kind(interface))
            .expect("collected above");
        let id = PortId(u16::try_from(number).expect("few interfaces"));
        let xsks = xsk_map(setup, fds, interface.ifindex)?;
        for (i, queue) in interface.queues.iter().copied().enumerate() {
            let mut port = XskPort::open(&groups[pool], &xsk_config(setup, interface, queue))?;
            crate::io::Port::set_carrier(&mut port, interface.carrier);
            let socket = crate::io::Port::poll_fd(&port).expect("just opened");
            xsks.set(queue, socket).map_err(|source| PortsError::Map {
                what: format!("socket of {} queue {queue}", interface.name),
                source,
            })?;
            let segment_bytes = crate::io::Port::caps(&port).tx_segment_bytes;
            out[i % workers].0.push(PortSlot {
                port,
                segment_bytes,
                interface: id,
                pool,
                mtu: interface.mtu,
                carrier: interface.carrier,
                checksum: interface.rx_checksum,
                name: interface.name.clone(),
                ifindex: interface.ifindex,
                queue,
                mode_asked: interface.mode,
            });
        }
    }
    Ok(out)
}

fn xsk_config(setup: &Setup, interface: &InterfaceSetup, queue: u32) -> XskConfig {
    // All the interfaces of a group and the reserve must fit the pool. Half a ring was not
    // enough for a worker that shares its core: a few milliseconds off it at 500,000
    // frames/s cost 3 % of the frames (kernel_rx_dropped).
    let share = setup.frames / u32::try_from(2 * setup.interfaces.len()).unwrap_or(u32::MAX);
    let queues = u32::try_from(interface.queues.len().div_ceil(setup.cores.len())).unwrap_or(1);
    XskConfig {
        queue,
        bind: match (interface.mode, interface.zero_copy_required) {
            (PortMode::ZeroCopy, true) => BindMode::ZeroCopy,
            (PortMode::ZeroCopy, false) => BindMode::Auto,
            (PortMode::Native | PortMode::Generic | PortMode::Superframe, _) => BindMode::Copy,
        },
        generic: matches!(interface.mode, PortMode::Generic | PortMode::Superframe),
        scatter_gather: takes_chains(setup, interface),
        gso_lane: takes_chains(setup, interface),
        rx_ring: setup.rx_ring,
        tx_ring: setup.tx_ring,
        fill_frames: (share / queues.max(1)).min(setup.rx_ring),
        reserve_frames: setup.frames / TX_RESERVE_SHARE,
        mtu: interface.mtu,
        rx_superframe_bytes: match interface.mode {
            PortMode::Superframe => IP_BYTES_MAX.max(interface.mtu),
            _ => interface.mtu,
        } + L2_BYTES_MAX,
        rx_checksum: interface.rx_checksum,
        ..XskConfig::new(&interface.name)
    }
}

fn xsk_map(setup: &Setup, fds: &[OwnedFd], ifindex: u32) -> Result<XskMap, PortsError> {
    let role = FdRole::Xsks(ifindex);
    let fd = fd_of(setup, fds, role).ok_or(PortsError::Missing(role))?;
    XskMap::from_fd(fd.try_clone()?).map_err(|source| PortsError::Map {
        what: format!("xsks of interface {ifindex}"),
        source,
    })
}

/// The heartbeat map.
pub(super) fn heartbeat(
    setup: &Setup,
    fds: &[OwnedFd],
) -> Result<braid_bpf::Heartbeat, PortsError> {
    let role = FdRole::Heartbeat;
    let fd = fd_of(setup, fds, role).ok_or(PortsError::Missing(role))?;
    braid_bpf::Heartbeat::from_fd(fd.try_clone()?).map_err(|source| PortsError::Map {
        what: "heartbeat".to_owned(),
        source,
    })
}
