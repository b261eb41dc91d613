//! Starting, adopting and restarting the dataplane.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use braid_dataplane::control::{
    Announcement, DataplaneEvent, FdRole, PortReport, Reply, Request, Setup,
};
use tokio::sync::mpsc;

use super::dataplane::{Dataplane, DataplaneError};
use super::interfaces::{self, Attached};
use super::process::{self, Process};
use super::{Daemon, DaemonError};
use crate::api::{self, ApiEvent};
use crate::config::Config;
use braid_bpf::Steer;

/// A dataplane that lived this long died of something new: it is restarted at once.
const STABLE: Duration = Duration::from_secs(10);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A dataplane at work.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) dataplane: Arc<Dataplane>,
    pub(super) events: mpsc::UnboundedReceiver<Vec<DataplaneEvent>>,
    pub(super) process: Process,
    pub(super) since: Instant,
}

/// Starts a dataplane and waits until it is ready and tells its events.
pub(super) async fn start(
    config: &Config,
    steer: &Steer,
    attached: &[Attached],
    announcements: Vec<Announcement>,
) -> Result<(Running, Vec<PortReport>), DaemonError> {
    let path = config.control.dataplane_socket();
    let listener: OwnedFd = api::listen(&path).map_err(DaemonError::other)?;
    // The dataplane decides about its own descriptor's flags.
    rustix::io::ioctl_fionbio(&listener, false).map_err(DaemonError::other)?;
    let binary = process::binary();
    let process = Process::spawn(&binary, listener).map_err(|e| {
        DaemonError::Other(format!(
            "cannot start {}: {e}; install braid-dataplane beside braidd, or name it with {}",
            binary.display(),
            process::BINARY_ENV
        ))
    })?;
    let guard = KillOnDrop(Some(process), path.clone());
    let (sender, events) = mpsc::unbounded_channel();
    let dataplane = Dataplane::connect(&path, sender).map_err(DaemonError::other)?;
    let (setup, fds) = interfaces::setup(config, steer, attached, announcements);
    let ports = match dataplane
        .ask_with(Request::Setup(Box::new(setup)), &fds)
        .await
    {
        Ok((Reply::Ready { ports }, _)) => ports,
        Ok(_) => return Err(DaemonError::other(DataplaneError::Unexpected)),
        Err(DataplaneError::NoAnswer) => {
            return Err(DaemonError::Other(format!(
                "the dataplane ({}) ended before it was ready; its own words are above",
                binary.display()
            )));
        }
        Err(e) => {
            return Err(DaemonError::Other(format!(
                "the dataplane did not start: {e}"
            )));
        }
    };
    dataplane
        .order(Request::Subscribe)
        .await
        .map_err(DaemonError::other)?;
    let process = guard.disarm();
    Ok((
        Running {
            dataplane,
            events,
            process,
            since: Instant::now(),
        },
        ports,
    ))
}

/// A dataplane that did not get ready does not stay.
struct KillOnDrop(Option<Process>, PathBuf);

impl KillOnDrop {
    fn disarm(mut self) -> Process {
        self.0.take().unwrap_or_else(|| unreachable!("taken once"))
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            process.kill();
            let _ = std::fs::remove_file(&self.1);
        }
    }
}

/// A dataplane of a braidd that died, taken over.
pub(super) struct Adopted {
    pub(super) running: Running,
    pub(super) setup: Setup,
    pub(super) steer: Steer,
    pub(super) interfaces: Vec<Attached>,
}

/// Takes over the dataplane that listens on the configured socket, if one does.
pub(super) async fn adopt(config: &Config) -> Result<Option<Adopted>, DaemonError> {
    let path = config.control.dataplane_socket();
    if api::probe(&path).is_none() {
        return Ok(None);
    }
    let (sender, events) = mpsc::unbounded_channel();
    let dataplane = match Dataplane::connect(&path, sender) {
        Ok(dataplane) => dataplane,
        // It ended in between.
        Err(DataplaneError::Connect(_)) => return Ok(None),
        Err(e) => return Err(DaemonError::other(e)),
    };
    let hint = |e: &dyn std::fmt::Display| {
        let path = path.display();
        DaemonError::Other(format!(
            "the dataplane on {path} cannot be taken over: {e}; end it with: fuser -k {path}"
        ))
    };
    // SO_PEERCRED names who called listen(2), which was the braidd that died.
    let status = match dataplane.ask(Request::Status).await {
        Ok(Reply::Status(status)) => status,
        Ok(_) => return Err(hint(&DataplaneError::Unexpected)),
        // It was started and never set up: its braidd died in between.
        Err(DataplaneError::Refused(_)) => {
            dataplane
                .order(Request::Shutdown)
                .await
                .map_err(|e| hint(&e))?;
            return Ok(None);
        }
        Err(e) => return Err(hint(&e)),
    };
    let mut process = Process::adopt(status.pid).map_err(|e| hint(&e))?;
    if status.draining {
        // It takes no more connections. Nobody would serve new ones if it was taken over.
        tracing::info!(
            "a dataplane (pid {}) still drains; waiting for its end, or end it with: kill -9 {}",
            status.pid,
            status.pid
        );
        process.ended().await;
        return Ok(None);
    }
    let (setup, fds) = match dataplane.ask_with(Request::Adopt, &[]).await {
        Ok((Reply::Adopted { setup, .. }, fds)) => (*setup, fds),
        Ok(_) => return Err(hint(&"its answer is of another version")),
        Err(e) => return Err(hint(&e)),
    };
    let (steer, interfaces) = sort_out(config, &setup, fds).map_err(|e| hint(&e))?;
    dataplane
        .order(Request::Subscribe)
        .await
        .map_err(|e| hint(&e))?;
    let running = Running {
        dataplane,
        events,
        process,
        since: Instant::now(),
    };
    Ok(Some(Adopted {
        running,
        setup,
        steer,
        interfaces,
    }))
}

/// Gives each descriptor its role again.
fn sort_out(
    config: &Config,
    setup: &Setup,
    fds: Vec<OwnedFd>,
) -> Result<(Steer, Vec<Attached>), String> {
    if fds.len() != setup.fds.len() {
        return Err(format!(
            "it sent {} descriptors and names {}",
            fds.len(),
            setup.fds.len()
        ));
    }
    let (mut heartbeat, mut claims, mut counters) = (None, None, None);
    let mut xsks = Vec::new();
    let mut links = Vec::new();
    for (role, fd) in setup.fds.iter().zip(fds) {
        match role {
            FdRole::Heartbeat => heartbeat = Some(fd),
            FdRole::Claims => claims = Some(fd),
            FdRole::SteerCounters => counters = Some(fd),
            FdRole::Xsks(ifindex) => xsks.push((*ifindex, fd)),
            FdRole::Link(ifindex) => links.push((*ifindex, fd)),
        }
    }
    let (Some(heartbeat), Some(claims), Some(counters)) = (heartbeat, claims, counters) else {
        return Err("it did not send its maps".to_owned());
    };
    let steer = Steer::from_fds(braid_bpf::SteerFds {
        claims,
        heartbeat,
        counters,
    })
    .map_err(|e| e.to_string())?;
    let mut interfaces = Vec::new();
    for i in &setup.interfaces {
        let take = |list: &mut Vec<(u32, OwnedFd)>| {
            let at = list.iter().position(|(ifindex, _)| *ifindex == i.ifindex)?;
            Some(list.swap_remove(at).1)
        };
        let (Some(xsks), Some(link)) = (take(&mut xsks), take(&mut links)) else {
            return Err(format!("it did not send the descriptors of {}", i.name));
        };
        let mode = config
            .interfaces
            .iter()
            .find(|c| c.name == i.name)
            .map(|c| c.mode);
        interfaces.push(Attached {
            setup: i.clone(),
            mode_configured: mode.unwrap_or(crate::config::Mode::Auto),
            driver: crate::nic::driver(&i.name).unwrap_or_default(),
            xsks,
            link: link.into(),
        });
    }
    Ok((steer, interfaces))
}

impl Daemon {
    /// Plans the next start after a death: at once the first time, then with pauses.
    pub(super) fn schedule_restart(&mut self, lived_since: Instant) {
        if lived_since.elapsed() >= STABLE {
            self.restart_pause = Duration::ZERO;
        }
        self.restart_at = Some(Instant::now() + self.restart_pause);
        self.restart_pause =
            (self.restart_pause * 2).clamp(Duration::from_millis(500), RESTART_PAUSE_MAX);
    }

    pub(super) async fn restart(&mut self) {
        self.restart_at = None;
        let asked = Instant::now();
        let announcements = self.manager.announcements();
        let started = start(
            &self.config,
            &self.steer,
            &self.interfaces,
            announcements.clone(),
        );
        match started.await {
            Ok((running, _)) => {
                let pid = running.process.pid();
                self.announcements = announcements;
                self.running = Some(running);
                self.restarts += 1;
                self.adopted = false;
                self.steering.serve(self.config.dataplane.cores.len());
                tracing::info!("the dataplane runs again (pid {pid})");
                let restarts = self.restarts;
                self.tell(ApiEvent::DataplaneStarted { pid, restarts });
                self.autostart();
            }
            Err(e) => {
                self.warn(format!("cannot restart the dataplane: {e}"));
                self.schedule_restart(asked);
            }
        }
    }
}
