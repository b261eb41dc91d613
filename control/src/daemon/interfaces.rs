//! The dataplane's interfaces: found, judged, attached.

use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use braid_bpf::{AttachError, AttachMode, InterfaceProgram, Steer, XdpLink};
use braid_dataplane::control::{
    Announcement, FdRole, InterfaceSetup, MptcpSetup, PROTOCOL_VERSION, PortMode, ServiceSetup,
    Setup,
};
use std::os::fd::AsFd;

use crate::config::{BACKLOG, Config, ConfigError, InterfaceConfig, Mode, ServiceConfig};
use crate::netlink::{Link, Mirror};
use crate::nic;
use crate::path::LocalAddress;
use crate::steering::{self, Steering};

/// An interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The configuration asks for what the machine has not: exit status 2.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The machine's state is in the way.
    #[error("{0}")]
    State(String),
    /// The program.
    #[error("{0}")]
    Attach(#[from] AttachError),
    /// The program.
    #[error("{0}")]
    Load(#[from] braid_bpf::LoadError),
}

/// An interface that can be used, before anything is done to it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// As configured.
    pub config: InterfaceConfig,
    /// As it is.
    pub link: Link,
    /// Own hardware address.
    pub mac: [u8; 6],
    /// Driver's name.
    pub driver: String,
    /// Its packets never were on a wire.
    pub is_virtual: bool,
}

/// What the program's attachment needs to be kept.
#[derive(Debug)]
pub struct Attached {
    /// For the dataplane.
    pub setup: InterfaceSetup,
    /// As configured.
    pub mode_configured: Mode,
    /// Driver's name.
    pub driver: String,
    /// The XSKMAP.
    pub xsks: OwnedFd,
    /// The link; the program is attached as long as somebody has it.
    pub link: XdpLink,
}

/// Checks an interface without touching it.
///
/// # Errors
/// See [`InterfaceError`].
pub fn examine(
    config: &Config,
    interface: &InterfaceConfig,
    mirror: &Mirror,
) -> Result<Candidate, InterfaceError> {
    let name = &interface.name;
    let Some(link) = mirror.link_named(name) else {
        let mut names: Vec<&str> = mirror.links().map(|l| l.name.as_str()).collect();
        names.retain(|n| *n != "lo");
        return Err(config
            .complaint(
                interface.line,
                "interface.name",
                format!(
                    "\"{name}\" does not exist in this network namespace; interfaces here: {}; list them with: ip -br link",
                    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
                ),
            )
            .into());
    };
    let Some(mac) = link.mac else {
        return Err(config
            .complaint(
                interface.line,
                "interface.name",
                format!("\"{name}\" is not an Ethernet interface; braid speaks Ethernet only"),
            )
            .into());
    };
    if !link.up {
        return Err(InterfaceError::State(format!(
            "{name} is down; set it up with: ip link set dev {name} up"
        )));
    }
    if let Some(controller) = link.controller {
        let of = mirror
            .link(controller)
            .map_or("another device", |l| l.name.as_str());
        return Err(InterfaceError::State(format!(
            "{name} belongs to {of}, which would never see its packets; take it out with: ip link set dev {name} nomaster"
        )));
    }
    if let Some(kind @ ("vlan" | "bond" | "bridge" | "macvlan" | "ipvlan" | "team")) =
        link.kind.as_deref()
        && !matches!(interface.mode, Mode::Generic | Mode::Superframe)
    {
        return Err(config
            .complaint(
                interface.line,
                "interface.name",
                format!(
                    "\"{name}\" is a {kind} device, which has no queues of its own; use the device below it, or mode = \"generic\""
                ),
            )
            .into());
    }
    let driver = nic::driver(name).unwrap_or_else(|_| link.kind.clone().unwrap_or_default());
    let is_virtual = nic::is_virtual(link, &driver);
    Ok(Candidate {
        config: interface.clone(),
        link: link.clone(),
        mac,
        driver,
        is_virtual,
    })
}

/// The queues of an interface that the workers share. After attaching: some drivers change
/// their queues then.
///
/// # Errors
/// See [`InterfaceError`].
pub fn queues(config: &Config, interface: &InterfaceConfig) -> Result<Vec<u32>, ConfigError> {
    let name = &interface.name;
    let channels = nic::channels(name);
    let workers = config.dataplane.cores.len();
    let complain = |message: String| config.complaint(interface.line, "interface.queues", message);
    let queues = match &interface.queues {
        None => (0..channels.rx).collect::<Vec<u32>>(),
        Some(list) => {
            if let Some(queue) = list.iter().find(|q| **q >= channels.rx) {
                return Err(complain(format!(
                    "{name} has no queue {queue}; allowed: 0 to {}, or more queues with: {}",
                    channels.rx - 1,
                    channels.fix(name, usize::try_from(*queue).unwrap_or(0) + 1)
                )));
            }
            list.clone()
        }
    };
    if queues.len() < workers {
        return Err(complain(format!(
            "{name} has {} queue(s) for {workers} workers, and every worker needs one; give it more with: {}, or list fewer dataplane.cores",
            queues.len(),
            channels.fix(name, workers)
        )));
    }
    Ok(queues)
}

/// Attaches the program in the best mode that works.
///
/// # Errors
/// See [`InterfaceError`]. Nothing is left attached then.
pub fn attach(
    config: &Config,
    candidate: &Candidate,
    steer: &Steer,
    warnings: &mut Vec<String>,
) -> Result<Attached, InterfaceError> {
    let name = &candidate.config.name;
    let program = steer.interface(candidate.link.ifindex)?;
    let modes = nic::modes(candidate.config.mode, candidate.is_virtual);
    let mut refused = None;
    for (mode, zero_copy_required) in &modes {
        let how = match mode {
            PortMode::ZeroCopy | PortMode::Native => AttachMode::Native,
            PortMode::Generic | PortMode::Superframe => AttachMode::Generic,
        };
        match program.attach(how) {
            Ok(link) => {
                if let Some(why) = &refused {
                    warnings.push(format!(
                        "{name} runs in {} mode: {why}",
                        nic::mode_name(*mode)
                    ));
                }
                tracing::info!(
                    interface = name,
                    driver = candidate.driver,
                    asked = ?candidate.config.mode,
                    mode = nic::mode_name(*mode),
                    why = nic::mode_reason(*mode),
                    "attached"
                );
                if *mode == PortMode::Superframe
                    && candidate.driver == "veth"
                    && config.dataplane.cores.len() > 1
                {
                    warnings.push(format!(
                        "{name} delivers everything to one worker: generic XDP sees all packets of a veth on queue 0; mode = \"native\" spreads them over queues, in frames of the MTU"
                    ));
                }
                let xsks = xsks_fd(&program)?;
                return Ok(Attached {
                    setup: InterfaceSetup {
                        name: name.clone(),
                        ifindex: candidate.link.ifindex,
                        mac: candidate.mac,
                        mtu: candidate.link.mtu,
                        queues: queues(config, &candidate.config)?,
                        mode: *mode,
                        zero_copy_required: *zero_copy_required,
                        rx_checksum: nic::rx_checksum(
                            candidate.config.rx_checksum,
                            candidate.is_virtual,
                        ),
                        carrier: candidate.link.carrier,
                    },
                    mode_configured: candidate.config.mode,
                    driver: candidate.driver.clone(),
                    xsks,
                    link,
                });
            }
            // Only what another mode can help is tried in another mode.
            Err(
                e @ (AttachError::Unsupported { .. }
                | AttachError::MtuTooLarge { .. }
                | AttachError::TooFewQueues { .. }),
            ) => refused = Some(e),
            Err(e) => return Err(e.into()),
        }
    }
    Err(refused.map_or_else(
        || InterfaceError::State(format!("{name}: no mode to try")),
        InterfaceError::Attach,
    ))
}

fn xsks_fd(program: &InterfaceProgram) -> Result<OwnedFd, InterfaceError> {
    program
        .xsks_fd()
        .try_clone_to_owned()
        .map_err(|e| InterfaceError::State(format!("cannot duplicate a descriptor: {e}")))
}

/// Addresses of the dataplane's interfaces as the path manager sees them. Link-local ones
/// are left out: a peer on another link cannot reach them.
#[must_use]
pub fn locals(mirror: &Mirror, interfaces: &[Attached]) -> Vec<LocalAddress> {
    interfaces
        .iter()
        .flat_map(|i| {
            let up = mirror.link(i.setup.ifindex).is_some_and(|l| l.carrier);
            mirror
                .addresses_of(i.setup.ifindex)
                .map(move |a| LocalAddress {
                    address: a.address,
                    prefix_len: a.prefix_len,
                    up,
                })
        })
        .filter(|l| match l.address {
            IpAddr::V4(a) => !a.is_link_local(),
            IpAddr::V6(a) => !a.is_unicast_link_local(),
        })
        .collect()
}

/// Steering by the NICs of these interfaces, for a dataplane of so many workers.
#[must_use]
pub fn steering(mirror: &Mirror, interfaces: &[Attached], workers: usize) -> Steering {
    let addresses = |i: &Attached| mirror.addresses_of(i.setup.ifindex).map(|a| a.address);
    let locals = interfaces.iter().flat_map(addresses).collect();
    let interfaces = interfaces
        .iter()
        .map(|i| steering::Interface {
            ifindex: i.setup.ifindex,
            name: i.setup.name.clone(),
            driver: i.driver.clone(),
            queues: i.setup.queues.clone(),
        })
        .collect();
    Steering::start(nic::rules::Ethtool, interfaces, locals, workers)
}

/// Services in the dataplane's words.
#[must_use]
pub fn services(services: &[ServiceConfig]) -> Vec<ServiceSetup> {
    services
        .iter()
        .map(|s| ServiceSetup {
            name: s.name.clone(),
            listen: s.listen.clone(),
            backlog: BACKLOG,
            app: s.app.clone(),
        })
        .collect()
}

/// Protocol settings in the dataplane's words.
#[must_use]
pub fn mptcp(config: &Config) -> MptcpSetup {
    MptcpSetup {
        checksum: config.mptcp.checksum,
        allow_v0: config.mptcp.allow_v0,
        connect_version: config.mptcp.connect_version,
        scheduler: config.mptcp.scheduler,
        congestion: config.mptcp.congestion,
        pacing: config.mptcp.pacing,
        ecn: config.mptcp.ecn,
        fast_open: config.mptcp.fast_open,
        syn_cookies: config.mptcp.syn_cookies,
        subflows_max: config.path.subflows,
        accept_addresses: config.path.accept_addresses,
        subflowless_timeout_ms: u64::try_from(config.mptcp.subflowless_timeout.as_millis())
            .unwrap_or(u64::MAX),
        window_option: config.mptcp.window_option,
        deny_join_id0: config.mptcp.deny_join_id0,
        receive_buffer_max: config.mptcp.receive_buffer_max,
        send_buffer_max: config.mptcp.send_buffer_max,
    }
}

/// Everything the dataplane needs, and the descriptors in the order it names.
#[must_use]
pub fn setup<'a>(
    config: &Config,
    steer: &'a Steer,
    interfaces: &'a [Attached],
    announcements: Vec<Announcement>,
) -> (Setup, Vec<BorrowedFd<'a>>) {
    let mut roles = vec![FdRole::Heartbeat, FdRole::Claims, FdRole::SteerCounters];
    let mut fds = vec![steer.heartbeat_fd(), steer.claims_fd(), steer.counters_fd()];
    for i in interfaces {
        roles.extend([FdRole::Xsks(i.setup.ifindex), FdRole::Link(i.setup.ifindex)]);
        fds.extend([i.xsks.as_fd(), i.link.as_fd()]);
    }
    let setup = Setup {
        version: PROTOCOL_VERSION,
        cores: config.dataplane.cores.clone(),
        idle: config.dataplane.idle,
        frames: config.dataplane.frames,
        frame_bytes: config.dataplane.frame_bytes,
        rx_ring: config.dataplane.rx_ring,
        tx_ring: config.dataplane.tx_ring,
        memory_limit_bytes: config.dataplane.memory_limit_bytes,
        hugepages: config.dataplane.hugepages,
        interfaces: interfaces.iter().map(|i| i.setup.clone()).collect(),
        mptcp: mptcp(config),
        services: services(&config.services),
        announcements,
        fds: roles,
    };
    (setup, fds)
}

/// Keys of the configuration in which a running dataplane differs from it.
#[must_use]
pub fn differences(running: &Setup, config: &Config) -> Vec<&'static str> {
    let d = &config.dataplane;
    let m = mptcp(config);
    let names = |i: &[InterfaceSetup]| i.iter().map(|i| i.name.clone()).collect::<Vec<_>>();
    let configured: Vec<String> = config.interfaces.iter().map(|i| i.name.clone()).collect();
    let pairs = [
        ("dataplane.cores", running.cores == d.cores),
        ("dataplane.idle", running.idle == d.idle),
        ("dataplane.frames", running.frames == d.frames),
        ("dataplane.frame-size", running.frame_bytes == d.frame_bytes),
        ("dataplane.rx-ring", running.rx_ring == d.rx_ring),
        ("dataplane.tx-ring", running.tx_ring == d.tx_ring),
        (
            "dataplane.memory-limit",
            running.memory_limit_bytes == d.memory_limit_bytes,
        ),
        ("dataplane.hugepages", running.hugepages == d.hugepages),
        ("interface.name", names(&running.interfaces) == configured),
        ("mptcp.checksum", running.mptcp.checksum == m.checksum),
        ("mptcp.allow-v0", running.mptcp.allow_v0 == m.allow_v0),
        (
            "mptcp.connect-version",
            running.mptcp.connect_version == m.connect_version,
        ),
        ("mptcp.scheduler", running.mptcp.scheduler == m.scheduler),
        ("mptcp.congestion", running.mptcp.congestion == m.congestion),
        ("mptcp.pacing", running.mptcp.pacing == m.pacing),
        ("mptcp.ecn", running.mptcp.ecn == m.ecn),
        ("mptcp.fast-open", running.mptcp.fast_open == m.fast_open),
        (
            "mptcp.syn-cookies",
            running.mptcp.syn_cookies == m.syn_cookies,
        ),
        (
            "mptcp.subflowless-timeout",
            running.mptcp.subflowless_timeout_ms == m.subflowless_timeout_ms,
        ),
        (
            "mptcp.window-option",
            running.mptcp.window_option == m.window_option,
        ),
        (
            "mptcp.receive-buffer-max",
            running.mptcp.receive_buffer_max == m.receive_buffer_max,
        ),
        (
            "mptcp.send-buffer-max",
            running.mptcp.send_buffer_max == m.send_buffer_max,
        ),
        (
            "mptcp.deny-join-id0",
            running.mptcp.deny_join_id0 == m.deny_join_id0,
        ),
    ];
    pairs
        .into_iter()
        .filter(|(_, same)| !same)
        .map(|(key, _)| key)
        .collect()
}
