//! braid at one end: a daemon of its own, whose events tell what became of its connection.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use braid_dataplane::mptcp::{CloseReason, Event, Findings};
use serde_json::{Value, json};

use crate::failure;
use crate::testbed::daemon::{Connect, Service};
use crate::testbed::{Braidd, Config, Process, Result, Role, Testbed};

/// Name of the service and of the active open.
const NAME: &str = "exchange";
/// How long the monitor may take until it hears events.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(5);
const MONITOR_POLL: Duration = Duration::from_millis(30);

/// What braid is to do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whose namespace.
    pub role: Role,
    /// The server's address.
    pub address: SocketAddr,
    /// Bytes to send.
    pub bytes: u64,
    /// DSS checksums always, or never.
    pub checksum: bool,
    /// `interface.mode`.
    pub mode: Option<String>,
    /// A further address to announce.
    pub announce: Option<std::net::IpAddr>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct BraidEnd<'a> {
    daemon: Braidd<'a>,
    monitor: Process,
    events: Vec<Event>,
    ended: Option<Instant>,
}

impl<'a> BraidEnd<'a> {
    /// Starts the daemon.
    pub fn start(testbed: &'a Testbed, programs: &Path, setup: &Setup) -> Result<Self> {
        let paths = testbed.options().paths;
        let server = setup.role == Role::Braid;
        let second = (2..=paths).map(|path| Testbed::v4(setup.role, path));
        let flag = if server { "signal" } else { "subflow" };
        let addresses = second.chain(setup.announce);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut config = Config {
            // Both ends of a pair of braids get a core of their own, if there are two.
            cores: vec![if server { cores - 1 } else { 0 }],
            idle: None,
            interfaces: (1..=paths)
                .map(|path| Testbed::interface(setup.role, path))
                .collect(),
            mode: setup.mode.clone(),
            policy: if server { "announce" } else { "fullmesh" }.to_owned(),
            subflows: None,
            endpoints: addresses
                .map(|address| (address, vec![flag.to_owned()]))
                .collect(),
            services: Vec::new(),
            connects: Vec::new(),
            more: String::new(),
        };
        if server {
            config.services.push(Service {
                bytes: Some(setup.bytes),
                ..Service::new(NAME, setup.address.to_string())
            });
        } else {
            config.connects.push(Connect {
                name: NAME.to_owned(),
                to: setup.address,
                app: NAME.to_owned(),
                bytes: Some(setup.bytes),
            });
        }
        config.more = format!(
            "\n[mptcp]\nchecksum = \"{}\"\ncongestion = \"reno\"\nsubflowless-timeout = \"10s\"\n",
            if setup.checksum { "always" } else { "never" }
        );
        let daemon = Braidd::start_as(setup.role, testbed, programs, &config)?;
        let mut monitor = daemon.monitor()?;
        // The monitor says nothing until something happens: this is something.
        let deadline = Instant::now() + MONITOR_TIMEOUT;
        while monitor.line(MONITOR_POLL).is_err() {
            if Instant::now() > deadline {
                return Err(failure!("the monitor hears nothing: {}", monitor.stderr()));
            }
            daemon.ask(&["reload"])?;
        }
        Ok(Self {
            daemon,
            monitor,
            events: Vec::new(),
            ended: None,
        })
    }

    /// Opens the connection.
    pub fn connect(&self) -> Result<()> {
        self.daemon.connect(NAME)
    }

    /// Whether its connection is over.
    pub fn ended(&mut self) -> Result<bool> {
        for line in self.monitor.pending() {
            let told = |e| failure!("{e} in the event {line}");
            let mut value: Value = serde_json::from_str(&line).map_err(told)?;
            let fields = value["event"].take();
            let Some(name) = fields["event"].as_str().map(str::to_owned) else {
                // Of braidd, not of a connection.
                continue;
            };
            let event = json!({ name: fields });
            let event: Event = serde_json::from_value(event).map_err(told)?;
            if matches!(event, Event::Closed { .. }) {
                self.ended.get_or_insert_with(Instant::now);
            }
            self.events.push(event);
        }
        Ok(self.ended.is_some())
    }

    /// When its connection was over.
    #[must_use]
    pub fn ended_at(&self) -> Option<Instant> {
        self.ended
    }

    /// Everything that happened.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What the application found, if the connection is over.
    #[must_use]
    pub fn findings(&self) -> Option<&Findings> {
        self.events.iter().find_map(|event| match event {
            Event::Checked { findings, .. } => Some(findings),
            _ => None,
        })
    }

    /// Why it is over.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            Event::Closed { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    /// The daemon.
    #[must_use]
    pub fn daemon(&self) -> &Braidd<'a> {
        &self.daemon
    }
}
