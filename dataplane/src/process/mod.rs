//! The dataplane process: opens its sockets, drops every privilege, runs the workers and
//! answers the control plane.
//!
//! Life: a listening control socket is inherited; the first client sends
//! [`Request::Setup`] with the descriptors of the BPF maps and links; everything that
//! needs a capability happens then, on this thread; then capabilities go, then workers
//! start. A control plane that dies changes nothing: the next one connects and
//! [adopts](Request::Adopt).

mod clients;
mod ports;
mod privileges;
mod seccomp;
mod serve;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::TryRngCore;

pub use self::serve::serve;
use crate::app::{App, Echo, Exchange, Sink, Source};
use crate::control::{AppSetup, FdRole, PROTOCOL_VERSION, ServiceSetup, Setup};
use crate::counters::Counters;
use crate::io::xsk::XskPort;
use crate::mptcp::{MptcpConfig, WorkerShare};
use crate::worker::handoff::HandOffRings;
use crate::worker::mailbox::{EventQueue, Mail, Mailbox, Snapshot};
use crate::worker::run::{Heartbeat, Worker, WorkerParts};
use crate::worker::wake::Sleeping;
use crate::worker::{Engine, EngineConfig, Service};

/// A worker that does not answer within this time hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the dataplane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control plane is of another version.
    #[error(
        "control protocol version {theirs}, this dataplane speaks {PROTOCOL_VERSION}: install braidd and braid-dataplane of one version"
    )]
    Version {
        /// What the control plane sent.
        theirs: u32,
    },
    /// The message and its descriptors do not fit together.
    #[error("setup message: {0}")]
    Setup(String),
    /// A socket could not be opened.
    #[error("{0}")]
    Ports(#[from] ports::PortsError),
    /// Privileges could not be dropped.
    #[error("cannot drop privileges: {0}")]
    Privileges(#[from] privileges::PrivilegeError),
    /// System calls could not be filtered.
    #[error("cannot filter system calls: {0}; the kernel needs CONFIG_SECCOMP_FILTER")]
    Seccomp(#[from] seccompiler::Error),
    /// A thread, eventfd or random number could not be had.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// The running workers and what they were built from.
#[derive(Debug)]
pub struct Dataplane {
    setup: Setup,
    fds: Vec<OwnedFd>,
    mailboxes: Vec<Arc<Mailbox>>,
    events: Arc<EventQueue>,
    threads: Vec<std::thread::JoinHandle<bool>>,
    started: Instant,
    next_worker: usize,
    draining: bool,
}

impl Dataplane {
    /// Opens every socket, drops every privilege, starts the workers.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(setup: Setup, fds: Vec<OwnedFd>) -> Result<Self, StartError> {
        if setup.version != PROTOCOL_VERSION {
            return Err(StartError::Version {
                theirs: setup.version,
            });
        }
        if fds.len() != setup.fds.len() {
            let (got, want) = (fds.len(), setup.fds.len());
            return Err(StartError::Setup(format!(
                "{got} descriptors, {want} roles"
            )));
        }
        let mut opened = ports::open(&setup, &fds)?;
        let heartbeat = ports::heartbeat(&setup, &fds)?;
        privileges::drop_all()?;
        seccomp::confine()?;

        let workers = setup.cores.len();
        let epoch = Instant::now();
        let events = Arc::new(EventQueue::new().map_err(std::io::Error::from)?);
        let mailboxes = (0..workers)
            .map(|_| Mailbox::new().map(Arc::new).map_err(std::io::Error::from))
            .collect::<Result<Vec<_>, _>>()?;
        let sleeping: Arc<[Sleeping]> = (0..workers).map(|_| Sleeping::default()).collect();
        let heartbeat = Arc::new(heartbeat);
        let mut threads = Vec::with_capacity(workers);
        for (index, rings) in HandOffRings::mesh(workers).into_iter().enumerate() {
            let (ports, pools) = opened.remove(0);
            let mut engine = Engine::new(
                engine_config(&setup, index),
                os_seed()?,
                crate::time::Instant::default(),
            );
            engine.set_services(services(&setup.services));
            let parts = WorkerParts {
                index,
                core: setup.cores[index],
                engine,
                ports,
                pools,
                rings,
                mailboxes: mailboxes.clone(),
                sleeping: sleeping.clone(),
                events: events.clone(),
                heartbeat: Beat(heartbeat.clone()),
                idle: setup.idle,
                epoch,
            };
            threads.push(spawn(parts)?);
        }
        Ok(Self {
            setup,
            fds,
            mailboxes,
            events,
            threads,
            started: Instant::now(),
            next_worker: 0,
            draining: false,
        })
    }

    /// Reports of all workers that answer in time; connections from `offset` on, over all
    /// workers in order.
    fn snapshots(&self, offset: usize, limit: usize) -> Vec<Snapshot> {
        let mut offset = offset;
        let mut limit = limit;
        let mut all = Vec::with_capacity(self.mailboxes.len());
        for mailbox in &self.mailboxes {
            let (answer, waiting) = crossbeam::channel::bounded(1);
            if mailbox
                .send(Mail::Snapshot {
                    offset,
                    limit,
                    answer,
                })
                .is_err()
            {
                continue;
            }
            if let Ok(snapshot) = waiting.recv_timeout(ANSWER_TIMEOUT) {
                limit -= snapshot.conns.len();
                let total = usize::try_from(snapshot.worker.connections).unwrap_or(usize::MAX);
                offset = offset.saturating_sub(total);
                all.push(snapshot);
            }
        }
        all
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::new();
        for snapshot in self.snapshots(0, 0) {
            sum.merge(&snapshot.counters);
        }
        sum
    }

    /// Ends the workers; true when no frame was lost.
    fn stop(self) -> bool {
        for mailbox in &self.mailboxes {
            let mut mail = Mail::Stop;
            while let Err(back) = mailbox.send(mail) {
                mail = *back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let mut whole = true;
        for thread in self.threads {
            // Every worker is waited for; one that panicked has aborted the process.
            whole &= thread.join().unwrap_or(false);
        }
        whole
    }
}

#[derive(Debug)]
struct Beat(Arc<braid_bpf::Heartbeat>);

impl Heartbeat for Beat {
    fn beat(&mut self) {
        self.0.beat(braid_bpf::Heartbeat::now_ns());
    }
}

fn spawn(parts: WorkerParts<XskPort, Beat>) -> std::io::Result<std::thread::JoinHandle<bool>> {
    let core = core_affinity::CoreId { id: parts.core };
    std::thread::Builder::new()
        .name(format!("braid-w{}", parts.index))
        .spawn(move || {
            if !core_affinity::set_for_current(core) {
                tracing::warn!(core = core.id, "cannot pin the worker to its core");
            }
            Worker::new(parts).run()
        })
}

fn engine_config(setup: &Setup, index: usize) -> EngineConfig {
    let m = &setup.mptcp;
    let mut mptcp = MptcpConfig {
        checksum: m.checksum,
        allow_v0: m.allow_v0,
        connect_version: m.connect_version,
        fast_open: m.fast_open,
        syn_cookies: m.syn_cookies,
        scheduler: m.scheduler,
        subflows_max: m.subflows_max,
        remote_addresses_max: m.accept_addresses,
        subflowless_timeout: Duration::from_millis(m.subflowless_timeout_ms),
        window_option: m.window_option,
        deny_join_initial: m.deny_join_id0,
        recv_buffer_bytes: m.receive_buffer_max,
        send_buffer_bytes: m.send_buffer_max,
        announcements: setup.announcements.as_slice().into(),
        ..MptcpConfig::default()
    };
    mptcp.tcp.congestion = m.congestion;
    mptcp.tcp.pacing = m.pacing;
    mptcp.tcp.ecn = m.ecn;
    mptcp.tcp.segment_bytes_max = ports::segment_bytes_max(setup.frame_bytes);
    // Nothing is advertised that the pool cannot hold: half is for windows, of one connection if
    // nobody else wants them, and half for what is sent.
    let window_frames = setup.frames / 2;
    mptcp.recv_buffer_frames = window_frames;
    let bytes = window_frames.saturating_mul(1420);
    mptcp.recv_buffer_bytes = mptcp.recv_buffer_bytes.min(bytes);
    mptcp.send_buffer_bytes = mptcp.send_buffer_bytes.min(bytes);
    mptcp.send_buffer_frames = window_frames;
    let count = |n: usize| u32::try_from(n).expect("workers are counted in u16");
    EngineConfig {
        mptcp,
        worker: WorkerShare {
            index: count(index),
            count: count(setup.cores.len()),
        },
        window_frames,
        ..EngineConfig::default()
    }
}

/// Engine services from the configuration.
pub(crate) fn services(setups: &[ServiceSetup]) -> Vec<Service<App>> {
    setups
        .iter()
        .map(|s| {
            let setup = s.app.clone();
            let make = Box::new(move || app(&setup));
            Service::new(&s.name, s.listen.clone(), s.backlog, make)
        })
        .collect()
}

/// The application that a setup names.
pub(crate) fn app(setup: &AppSetup) -> App {
    match setup {
        AppSetup::Echo => App::Echo(Echo),
        AppSetup::Sink => App::Sink(Sink),
        AppSetup::Source { bytes } => App::Source(Source::new(*bytes)),
        AppSetup::Exchange { bytes } => App::Exchange(Box::new(Exchange::new(*bytes))),
    }
}

fn os_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut seed)
        .map_err(std::io::Error::other)?;
    Ok(seed)
}

/// The descriptors of one role.
pub(crate) fn fd_of<'a>(setup: &Setup, fds: &'a [OwnedFd], role: FdRole) -> Option<&'a OwnedFd> {
    setup.fds.iter().position(|r| *r == role).map(|i| &fds[i])
}
