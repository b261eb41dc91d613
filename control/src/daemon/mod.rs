//! braidd: starts the dataplane, keeps it running, and decides about paths.
//!
//! One task owns all state ([`Daemon`]) and takes turns between the kernel's events, the
//! dataplane's, clients' requests, signals and time. What may take long (ARP) runs beside
//! it and reports back. Whatever is attached to an interface hangs on descriptors that
//! this process and the dataplane hold: no way out of here leaves anything behind.

pub mod channel;
mod dataplane;
pub mod interfaces;
mod paths;
pub mod process;
mod requests;
mod start;
mod supervisor;
pub mod watch;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use braid_bpf::Steer;
use braid_dataplane::control::{Announcement, DataplaneEvent, Request};
use braid_dataplane::mptcp::Event;
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::signal::SigSet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc};

use crate::api::{self, ApiEvent, Call, MonitorEvent};
use crate::config::{Config, ConfigError};
use crate::netlink::{Change, Events, Mirror, Netlink};
use crate::path::Manager;
use crate::ports::Ports;
use crate::preflight;
use crate::steering::Steering;

pub use dataplane::{Dataplane, DataplaneError};
use interfaces::Attached;
use paths::Opened;
use supervisor::Running;

/// How often what is due is looked for.
const TICK: Duration = Duration::from_millis(100);
/// How long SIGTERM waits for connections to end.
const TERM_DRAIN: Duration = Duration::from_secs(5);
/// Beyond the drain: answer, abort, teardown.
const EXIT_MARGIN: Duration = Duration::from_secs(3);
/// Events that a slow monitor may lag behind.
const MONITOR_BACKLOG: usize = 4096;
/// Requests that wait for their turn.
const CALLS_MAX: usize = 64;
/// Neighbours whose hardware addresses are remembered, to tell changes from repetitions.
const NEIGHBOURS_MAX: usize = 4096;

/// Why braidd ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration: exit status 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Anything else: exit status 1.
    #[error("{0}")]
    Other(String),
}

impl DaemonError {
    fn other(e: impl std::fmt::Display) -> Self {
        Self::Other(e.to_string())
    }

    /// The process's exit status.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            DaemonError::Config(_) => 2,
            DaemonError::Other(_) => 1,
        }
    }
}

impl From<interfaces::InterfaceError> for DaemonError {
    fn from(e: interfaces::InterfaceError) -> Self {
        match e {
            interfaces::InterfaceError::Config(e) => Self::Config(e),
            e => Self::other(e),
        }
    }
}

/// A subflow that we opened.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
struct Opening {
    token: u32,
    local: SocketAddr,
    remote: SocketAddr,
}

/// All state.
struct Daemon {
    config: Config,
    started: Instant,
    netlink: Netlink,
    mirror: Mirror,
    steer: Steer,
    /// Asks NICs for what `steer` cannot do: choose the queue.
    steering: Steering,
    interfaces: Vec<Attached>,
    manager: Manager,
    /// What connections announce by themselves, as the dataplane was told.
    announcements: Vec<Announcement>,
    ports: Ports,
    running: Option<Running>,
    restarts: u64,
    adopted: bool,
    /// Next start of a dataplane that died.
    restart_at: Option<Instant>,
    restart_pause: Duration,
    /// Exiting; when patience ends.
    draining: Option<Instant>,
    warnings: Vec<String>,
    monitors: broadcast::Sender<Arc<MonitorEvent>>,
    /// Subflows that we opened, and whether they came about.
    opened: HashMap<Opening, bool>,
    /// Peers behind each next hop, and each next hop's address as the dataplane knows it.
    next_hops: HashMap<(u32, IpAddr), HashSet<IpAddr>>,
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    results: mpsc::UnboundedSender<Opened>,
}

/// Runs until a signal, a drain or an error ends it.
///
/// # Errors
/// See [`DaemonError`]; nothing is left attached then.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    // Whoever started us may have blocked the signals that are waited for.
    SigSet::empty()
        .thread_set_mask()
        .map_err(DaemonError::other)?;
    let mut term = signal(SignalKind::terminate()).map_err(DaemonError::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::other)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::other)?;

    // Before anything else fails for the lack of them, with a less helpful errno.
    preflight::privileges().map_err(DaemonError::Other)?;
    preflight::kernel().map_err(DaemonError::Other)?;
    preflight::cores(&config)?;
    let listener = api::listen(&config.control.socket).map_err(DaemonError::other)?;
    let _file = SocketFile(config.control.socket.clone());
    let (results, mut opened) = mpsc::unbounded_channel();
    let (mut daemon, mut netlink_events) = tokio::select! {
        started = Daemon::start(config, results) => started?,
        // Nothing to drain yet: dropping everything detaches everything.
        _ = term.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let (calls, mut called) = mpsc::channel::<Call>(CALLS_MAX);
    tokio::spawn(api::serve(listener, calls.clone(), daemon.monitors.clone()));
    if let Some(address) = daemon.config.control.metrics {
        let server = crate::metrics::listen(address).await.map_err(|e| {
            DaemonError::Other(format!(
                "cannot serve metrics on {address}: {e}; change control.metrics"
            ))
        })?;
        tokio::spawn(crate::metrics::serve(server, calls));
    }

    println!("braidd ready");
    if let Err(e) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("cannot notify systemd: {e}");
    }
    for warning in &daemon.warnings {
        tracing::warn!("{warning}");
    }
    daemon.autostart();

    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (events, ended) = match &mut daemon.running {
            Some(running) => (Some(&mut running.events), Some(&mut running.process)),
            None => (None, None),
        };
        tokio::select! {
            batch = next_events(events) => daemon.on_dataplane_events(batch),
            () = end_of(ended) => {
                if daemon.on_dataplane_end() {
                    return Ok(());
                }
            }
            event = netlink_events.next() => daemon.on_netlink(event).await,
            Some(call) = called.recv() => daemon.on_call(call).await,
            Some(result) = opened.recv() => daemon.on_opened(result),
            _ = term.recv() => daemon.drain(TERM_DRAIN).await,
            _ = interrupt.recv() => daemon.drain(TERM_DRAIN).await,
            _ = hangup.recv() => match daemon.reload().await {
                Ok(message) => tracing::info!("{message}"),
                Err(message) => tracing::error!("not reloaded: {message}"),
            },
            _ = tick.tick() => {
                if daemon.on_tick(Instant::now()).await {
                    return Ok(());
                }
            }
        }
    }
}

async fn next_events(
    events: Option<&mut mpsc::UnboundedReceiver<Vec<DataplaneEvent>>>,
) -> Vec<DataplaneEvent> {
    if let Some(events) = events
        && let Some(batch) = events.recv().await
    {
        return batch;
    }
    // The end of the channel is not the end of the process, which is watched apart.
    std::future::pending().await
}

async fn end_of(process: Option<&mut process::Process>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// Removes the socket's file at the end.
struct SocketFile(std::path::PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Daemon {
    fn tell(&self, event: ApiEvent) {
        // Nobody listening is no error, and usual.
        if self.monitors.receiver_count() == 0 {
            return;
        }
        let _ = self.monitors.send(Arc::new(api::stamp(event)));
    }

    fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        if !self.warnings.contains(&warning) {
            // Bounded: what repeats is one, and the oldest goes.
            if self.warnings.len() >= 32 {
                self.warnings.remove(0);
            }
            self.warnings.push(warning);
        }
    }

    fn on_dataplane_events(&mut self, batch: Vec<DataplaneEvent>) {
        let now = Instant::now();
        for event in batch {
            self.on_dataplane_event(now, event);
        }
    }

    fn on_dataplane_event(&mut self, now: Instant, event: DataplaneEvent) {
        if let DataplaneEvent::Connection { worker, event, .. } = &event {
            self.steering
                .on_event(*worker, event, |local| self.mirror.ifindex_of(local));
            let mut commands = Vec::new();
            self.manager.on_event(now, event, &mut commands);
            match event {
                Event::SubflowClosed {
                    token,
                    local,
                    remote,
                    ..
                } => {
                    self.opened.remove(&Opening {
                        token: *token,
                        local: *local,
                        remote: *remote,
                    });
                    self.ports.release(now, *local);
                }
                Event::SubflowEstablished {
                    token,
                    local,
                    remote,
                    ..
                } => {
                    if let Some(established) = self.opened.get_mut(&Opening {
                        token: *token,
                        local: *local,
                        remote: *remote,
                    }) {
                        *established = true;
                    }
                }
                Event::Closed { token, .. } => {
                    let ports = &mut self.ports;
                    self.opened.retain(|key, _| {
                        if key.token == *token {
                            ports.release(now, key.local);
                        }
                        key.token != *token
                    });
                }
                _ => {}
            }
            self.carry_out(commands);
        }
        if let DataplaneEvent::Lost { count } = &event {
            tracing::warn!("{count} events of the dataplane were lost");
        }
        self.tell(ApiEvent::Dataplane { event });
    }

    fn ours(&self, ifindex: u32) -> Option<&Attached> {
        self.interfaces.iter().find(|i| i.setup.ifindex == ifindex)
    }

    /// Sends an order whose refusal is worth a line in the log and nothing more.
    fn order(&self, what: &'static str, request: Request) {
        if let Some(running) = &self.running {
            let dataplane = Arc::clone(&running.dataplane);
            tokio::spawn(async move {
                if let Err(e) = dataplane.order(request).await {
                    tracing::debug!("{what}: {e}");
                }
            });
        }
    }

    /// Tells the dataplane what connections announce by themselves, if that has changed.
    async fn tell_announcements(&mut self) {
        let announcements = self.manager.announcements();
        let Some(running) = self
            .running
            .as_ref()
            .filter(|_| announcements != self.announcements)
        else {
            return;
        };
        let request = Request::Announcements {
            announcements: announcements.clone(),
        };
        match running.dataplane.order(request).await {
            Ok(()) => self.announcements = announcements,
            // The next tick tries again; until then the path manager makes up for it.
            Err(e) => tracing::warn!("announcements: {e}"),
        }
    }

    async fn on_netlink(&mut self, event: Option<RouteNetlinkMessage>) {
        let changes = match self.netlink.follow(&mut self.mirror, event).await {
            Ok(changes) => changes,
            Err(e) => return tracing::warn!("{e}"),
        };
        let mut addresses = false;
        for change in changes {
            match change {
                Change::Link(link) => {
                    let Some(i) = self
                        .interfaces
                        .iter_mut()
                        .find(|i| i.setup.ifindex == link.ifindex)
                    else {
                        if let Some(i) = self.interfaces.iter().find(|i| i.setup.name == link.name)
                        {
                            let name = i.setup.name.clone();
                            self.warn(format!(
                                "{name} came back as another interface; restart braidd to use it"
                            ));
                        }
                        continue;
                    };
                    let name = i.setup.name.clone();
                    let mtu = i.setup.mtu;
                    if i.setup.carrier != link.carrier {
                        i.setup.carrier = link.carrier;
                        let (ifindex, carrier) = (link.ifindex, link.carrier);
                        self.order("link state", Request::LinkState { ifindex, carrier });
                        self.tell(ApiEvent::Link {
                            interface: name.clone(),
                            carrier,
                        });
                        addresses = true;
                    }
                    if link.mtu != mtu {
                        self.warn(format!(
                            "the MTU of {name} changed from {mtu} to {}; restart braidd to use it",
                            link.mtu
                        ));
                    }
                }
                Change::LinkGone(link) => {
                    if let Some(i) = self
                        .interfaces
                        .iter_mut()
                        .find(|i| i.setup.ifindex == link.ifindex)
                    {
                        i.setup.carrier = false;
                        let (ifindex, carrier) = (link.ifindex, false);
                        self.order("link state", Request::LinkState { ifindex, carrier });
                        self.tell(ApiEvent::Link {
                            interface: link.name.clone(),
                            carrier,
                        });
                        self.warn(format!(
                            "{} is gone; restart braidd when it is back",
                            link.name
                        ));
                        addresses = true;
                    }
                }
                Change::AddressAdded(a) | Change::AddressRemoved(a) => {
                    addresses |= self.ours(a.ifindex).is_some();
                }
                Change::Neighbour {
                    ifindex,
                    address,
                    mac,
                } => self.on_neighbour(ifindex, address, mac),
                Change::Routes => {}
            }
        }
        if addresses {
            self.on_addresses().await;
        }
    }

    /// Holds the ports that services and announced endpoints need on the addresses there are.
    fn hold_ports(&mut self) {
        let locals = interfaces::locals(&self.mirror, &self.interfaces);
        let addresses: Vec<IpAddr> = locals.iter().map(|l| l.address).collect();
        let joins: Vec<SocketAddr> = self.manager.endpoints().announced_ports().collect();
        match self
            .ports
            .set_services(&self.steer, &self.config.services, &addresses, &joins)
        {
            Ok(skipped) => {
                for e in skipped {
                    self.warn(format!("joins to this address are left to the kernel: {e}"));
                }
            }
            Err(e) => self.warn(e.to_string()),
        }
    }

    /// Takes a port for an endpoint that is about to be announced with it.
    fn hold_join_port(&mut self, at: SocketAddr) -> std::result::Result<(), String> {
        self.ports
            .hold_join(&self.steer, &self.config.services, at)
            .map_err(|e| e.to_string())
    }

    async fn on_addresses(&mut self) {
        let locals = interfaces::locals(&self.mirror, &self.interfaces);
        self.hold_ports();
        let mut commands = Vec::new();
        self.manager
            .on_locals(Instant::now(), locals, &mut commands);
        self.tell_announcements().await;
        self.carry_out(commands);
    }

    fn on_neighbour(&mut self, ifindex: u32, address: IpAddr, mac: [u8; 6]) {
        if self.ours(ifindex).is_none() {
            return;
        }
        let key = (ifindex, address);
        let known = self.neighbours.get(&key);
        if known == Some(&mac) || (known.is_none() && self.neighbours.len() >= NEIGHBOURS_MAX) {
            return;
        }
        let first = self.neighbours.insert(key, mac).is_none();
        if first {
            // The dataplane learned this one from a path or a SYN.
            return;
        }
        let behind = self.next_hops.get(&key).cloned().unwrap_or_default();
        for remote in behind.into_iter().chain([address]) {
            self.order(
                "neighbour",
                Request::Neighbour {
                    ifindex,
                    remote,
                    mac,
                },
            );
        }
    }

    /// Does what is due; true at the end.
    async fn on_tick(&mut self, now: Instant) -> bool {
        if self.draining.is_some_and(|until| now >= until) {
            tracing::warn!("the dataplane did not end in time; it is killed");
            if let Some(running) = &self.running {
                running.process.kill();
            }
            let _ = std::fs::remove_file(self.config.control.dataplane_socket());
            return true;
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart().await;
        }
        if self.manager.next_deadline().is_some_and(|at| at <= now) {
            let mut commands = Vec::new();
            self.manager.on_timer(now, &mut commands);
            self.carry_out(commands);
        }
        self.tell_announcements().await;
        self.ports.expire(now, &self.steer);
        false
    }

    /// No new connections; the end of the dataplane will be ours.
    async fn drain(&mut self, timeout: Duration) {
        let now = Instant::now();
        // Asked twice: no more patience, what lives is reset.
        let timeout = match self.draining {
            Some(_) => Duration::ZERO,
            None => timeout,
        };
        self.draining = Some(now + timeout + EXIT_MARGIN);
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let Some(running) = &self.running else {
            self.draining = Some(now);
            return;
        };
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        if let Err(e) = running.dataplane.order(Request::Drain { timeout_ms }).await {
            tracing::warn!("drain: {e}");
            self.draining = Some(now);
        }
    }

    /// True when braidd ends with it.
    fn on_dataplane_end(&mut self) -> bool {
        let Some(running) = self.running.take() else {
            return false;
        };
        let pid = running.process.pid();
        // A process that was killed leaves its socket's file behind.
        let _ = std::fs::remove_file(self.config.control.dataplane_socket());
        if self.draining.is_some() {
            return true;
        }
        tracing::error!(
            "the dataplane (pid {pid}) died; XDP passes everything until it runs again"
        );
        self.tell(ApiEvent::DataplaneDied { pid });
        self.steering.clear();
        self.manager.reset();
        self.opened.clear();
        self.ports.release_all(Instant::now());
        self.schedule_restart(running.since);
        false
    }
}

/// A daemon at work, and the kernel's events for its loop.
type Started = (Daemon, Events);
