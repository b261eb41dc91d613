//! From a configuration to a running daemon.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use braid_bpf::Steer;
use braid_dataplane::control::{ConnReport, Reply, Request};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{broadcast, mpsc};

use super::paths::Opened;
use super::supervisor::{self, Running};
use super::{Daemon, DaemonError, MONITOR_BACKLOG, Opening, Started, interfaces};
use crate::config::Config;
use crate::netlink::Netlink;
use crate::path::Manager;
use crate::ports::Ports;

impl Daemon {
    pub(super) async fn start(
        config: Config,
        results: mpsc::UnboundedSender<Opened>,
    ) -> Result<Started, DaemonError> {
        raise_limits();
        let (netlink, events) = Netlink::open().map_err(DaemonError::other)?;
        let mirror = netlink.snapshot().await.map_err(DaemonError::other)?;

        let adopted = supervisor::adopt(&config).await?;
        let was_adopted = adopted.is_some();
        let mut workers = config.dataplane.cores.len();
        let mut warnings = Vec::new();
        let mut ports = Ports::default();
        let mut conns = Vec::new();
        let mut announcements = None;
        let (steer, interfaces, running) = match adopted {
            Some(a) => {
                let differing = interfaces::differences(&a.setup, &config);
                if !differing.is_empty() {
                    warnings.push(format!(
                        "the running dataplane differs from {} in {}; restart it to apply: braid drain, then start braidd again",
                        config.file.display(),
                        differing.join(", ")
                    ));
                }
                conns = all_conns(&a.running).await?;
                workers = a.setup.cores.len();
                let services = interfaces::services(&config.services);
                if a.setup.services != services {
                    let request = Request::Services { services };
                    a.running
                        .dataplane
                        .order(request)
                        .await
                        .map_err(DaemonError::other)?;
                }
                let live: Vec<SocketAddr> = conns
                    .iter()
                    .flat_map(|c| c.info.subflows.iter().map(|s| s.local))
                    .collect();
                ports
                    .adopt(Instant::now(), &a.steer, &live)
                    .map_err(DaemonError::other)?;
                announcements = Some(a.setup.announcements);
                (a.steer, a.interfaces, Some(a.running))
            }
            None => {
                let mut candidates = Vec::new();
                for i in &config.interfaces {
                    candidates.push(interfaces::examine(&config, i, &mirror)?);
                }
                let steer = Steer::load().map_err(DaemonError::other)?;
                let mut attached = Vec::new();
                for c in &candidates {
                    attached.push(interfaces::attach(&config, c, &steer, &mut warnings)?);
                }
                (steer, attached, None)
            }
        };

        let locals = interfaces::locals(&mirror, &interfaces);
        let addresses: Vec<IpAddr> = locals.iter().map(|l| l.address).collect();
        let joins: Vec<SocketAddr> = config.path.announced_ports().collect();
        // Held before the dataplane answers on them, so that no kernel application can
        // come in between. While its heartbeat is missing the program passes everything.
        let skipped = ports
            .set_services(&steer, &config.services, &addresses, &joins)
            .map_err(DaemonError::other)?;
        for e in skipped {
            warnings.push(format!("joins to this address are left to the kernel: {e}"));
        }
        ports
            .drop_stale_claims(&steer)
            .map_err(DaemonError::other)?;

        let manager = Manager::new(&config.path, locals);
        let announcements = announcements.unwrap_or_else(|| manager.announcements());
        let running = match running {
            Some(running) => running,
            None => {
                let announced = announcements.clone();
                let started = supervisor::start(&config, &steer, &interfaces, announced);
                let (running, got) = started.await?;
                for port in got {
                    if port.mode_asked == braid_dataplane::control::PortMode::ZeroCopy
                        && !port.zero_copy
                    {
                        warnings.push(format!(
                            "{} queue {} copies: its driver refused zero-copy",
                            port.interface, port.queue
                        ));
                    }
                }
                running
            }
        };

        let (monitors, _) = broadcast::channel(MONITOR_BACKLOG);
        let steering = interfaces::steering(&mirror, &interfaces, workers);
        let mut daemon = Self {
            config,
            started: Instant::now(),
            netlink,
            mirror,
            steer,
            steering,
            interfaces,
            manager,
            announcements,
            ports,
            running: Some(running),
            restarts: 0,
            adopted: was_adopted,
            restart_at: None,
            restart_pause: Duration::ZERO,
            draining: None,
            warnings,
            monitors,
            opened: HashMap::new(),
            next_hops: HashMap::new(),
            neighbours: HashMap::new(),
            results,
        };
        daemon.tell_announcements().await;
        daemon.take_over(&conns);
        Ok((daemon, events))
    }

    /// Connections that lived before us.
    fn take_over(&mut self, conns: &[ConnReport]) {
        let now = Instant::now();
        let mut commands = Vec::new();
        self.steering
            .adopt(conns, |local| self.mirror.ifindex_of(local));
        for c in conns {
            if !c.info.server {
                for s in &c.info.subflows {
                    let key = Opening {
                        token: c.info.token,
                        local: s.local,
                        remote: s.remote,
                    };
                    self.opened.insert(key, s.state == "established");
                }
            }
            self.manager.adopt(now, &c.info, &mut commands);
        }
        self.carry_out(commands);
    }
}

async fn all_conns(running: &Running) -> Result<Vec<ConnReport>, DaemonError> {
    let mut all: Vec<ConnReport> = Vec::new();
    loop {
        let offset = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let reply = running.dataplane.ask(Request::Conns { offset }).await;
        let Reply::Conns { total, conns } = reply.map_err(DaemonError::other)? else {
            return Err(DaemonError::other(super::DataplaneError::Unexpected));
        };
        let last = conns.is_empty();
        all.extend(conns);
        if last || u64::try_from(all.len()).unwrap_or(u64::MAX) >= total {
            return Ok(all);
        }
    }
}

/// Frame memory is locked, and each active open holds a socket: both limits are for
/// processes that nobody vouches for. Best effort; the dataplane inherits them.
fn raise_limits() {
    let unlimited = nix::libc::RLIM_INFINITY;
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
