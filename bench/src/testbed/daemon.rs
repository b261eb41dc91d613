//! braidd with a generated configuration, and what `braid --json` says.
//!
//! Everything that knows the shape of that JSON is in this file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::Result;
use super::process::Process;
use super::topology::{Role, Testbed};
use crate::failure;

/// How long braidd may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Name.
    pub name: String,
    /// `ADDRESS:PORT` or `*:PORT`.
    pub listen: String,
    /// `echo`, `sink`, `source` or `exchange`.
    pub app: String,
    /// For `source` and `exchange`.
    pub bytes: Option<u64>,
}

impl Service {
    /// A service named after its app.
    #[must_use]
    pub fn new(app: &str, listen: impl Into<String>) -> Self {
        Self {
            name: app.to_owned(),
            listen: listen.into(),
            app: app.to_owned(),
            bytes: None,
        }
    }
}

/// An active open.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Name.
    pub name: String,
    /// Server.
    pub to: SocketAddr,
    /// `source`, `sink`, `echo` or `exchange`.
    pub app: String,
    /// For `source` and `exchange`.
    pub bytes: Option<u64>,
}

/// A configuration of braidd.
#[derive(Clone, Debug)]
pub struct Config {
    /// One worker per core.
    pub cores: Vec<usize>,
    /// `dataplane.idle`.
    pub idle: Option<String>,
    /// Interfaces.
    pub interfaces: Vec<String>,
    /// `interface.mode`.
    pub mode: Option<String>,
    /// `path.policy`.
    pub policy: String,
    /// `path.subflows`.
    pub subflows: Option<u8>,
    /// `path.endpoint`: address and flags.
    pub endpoints: Vec<(IpAddr, Vec<String>)>,
    /// Services.
    pub services: Vec<Service>,
    /// Active opens.
    pub connects: Vec<Connect>,
    /// Appended as it is, for settings without a field.
    pub more: String,
}

impl Config {
    /// Serves on every path of a testbed; the first is what peers connect to, the
    /// others are announced.
    #[must_use]
    pub fn announcing(testbed: &Testbed) -> Self {
        Self::announcing_as(testbed, Role::Braid)
    }

    /// As [`Config::announcing`], in the namespace of `role`.
    #[must_use]
    pub fn announcing_as(testbed: &Testbed, role: Role) -> Self {
        let paths = testbed.options().paths;
        Self {
            cores: vec![std::thread::available_parallelism().map_or(1, usize::from) - 1],
            idle: None,
            interfaces: (1..=paths)
                .map(|path| Testbed::interface(role, path))
                .collect(),
            mode: None,
            policy: "announce".to_owned(),
            subflows: None,
            endpoints: (2..=paths)
                .map(|path| (Testbed::v4(role, path), vec!["signal".to_owned()]))
                .collect(),
            services: Vec::new(),
            connects: Vec::new(),
            more: String::new(),
        }
    }

    /// Adds a service.
    #[must_use]
    pub fn service(mut self, app: &str, listen: impl Into<String>) -> Self {
        self.services.push(Service::new(app, listen));
        self
    }

    /// As braidd reads it.
    #[must_use]
    pub fn to_toml(&self, socket: &Path) -> String {
        let mut toml = String::new();
        let quoted = |items: &[String]| {
            let items: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
            items.join(", ")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(toml, "[dataplane]\ncores = {:?}", self.cores);
        if let Some(idle) = &self.idle {
            let _ = writeln!(toml, "idle = {idle:?}");
        }
        for interface in &self.interfaces {
            let _ = writeln!(toml, "\n[[interface]]\nname = {interface:?}");
            if let Some(mode) = &self.mode {
                let _ = writeln!(toml, "mode = {mode:?}");
            }
        }
        let _ = writeln!(toml, "\n[path]\npolicy = {:?}", self.policy);
        if let Some(subflows) = self.subflows {
            let _ = writeln!(toml, "subflows = {subflows}");
        }
        for (address, flags) in &self.endpoints {
            let _ = writeln!(
                toml,
                "\n[[path.endpoint]]\naddress = \"{address}\"\nflags = [{}]",
                quoted(flags)
            );
        }
        for service in &self.services {
            let _ = writeln!(
                toml,
                "\n[[service]]\nname = {:?}\nlisten = {:?}\napp = {:?}",
                service.name, service.listen, service.app
            );
            if let Some(bytes) = service.bytes {
                let _ = writeln!(toml, "bytes = \"{bytes}B\"");
            }
        }
        for connect in &self.connects {
            let _ = writeln!(
                toml,
                "\n[[connect]]\nname = {:?}\nto = \"{}\"\napp = {:?}",
                connect.name, connect.to, connect.app
            );
            if let Some(bytes) = connect.bytes {
                let _ = writeln!(toml, "bytes = \"{bytes}B\"");
            }
        }
        let _ = writeln!(
            toml,
            "\n[control]\nsocket = {:?}",
            socket.display().to_string()
        );
        toml.push_str(&self.more);
        toml
    }
}

/// A running braidd, in one of the testbed's namespaces.
#[derive(Debug)]
pub struct Braidd<'a> {
    testbed: &'a Testbed,
    role: Role,
    programs: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    process: Process,
}

impl Drop for Braidd<'_> {
    /// Asked twice, braidd resets what lives instead of waiting for its end.
    fn drop(&mut self) {
        for _ in 0..2 {
            // An error: it has ended.
            let _ = self.process.signal(Signal::SIGTERM);
            // Two signals at once would be one.
            let _ = self.process.wait(Duration::from_millis(200));
        }
    }
}

impl<'a> Braidd<'a> {
    /// Starts it in the `braid` namespace and waits until it is ready. `programs` is where the
    /// binaries are.
    pub fn start(testbed: &'a Testbed, programs: &Path, config: &Config) -> Result<Self> {
        Self::start_as(Role::Braid, testbed, programs, config)
    }

    /// As [`Braidd::start`], in any namespace: one for each.
    pub fn start_as(
        role: Role,
        testbed: &'a Testbed,
        programs: &Path,
        config: &Config,
    ) -> Result<Self> {
        let file = testbed.directory().join(format!("{}.toml", role.as_str()));
        let socket = testbed.directory().join(format!("{}.sock", role.as_str()));
        std::fs::write(&file, config.to_toml(&socket))?;
        let process = Self::spawn(role, testbed, programs, &file)?;
        Ok(Self {
            testbed,
            role,
            programs: programs.to_owned(),
            config: file,
            socket,
            process,
        })
    }

    fn spawn(role: Role, testbed: &Testbed, programs: &Path, config: &Path) -> Result<Process> {
        let braidd = programs.join("braidd");
        let argv = [
            &*braidd.to_string_lossy(),
            "--config",
            &config.to_string_lossy(),
        ];
        let mut process = testbed.start(role, "braidd", &argv)?;
        process.expect_line("braidd ready", READY_TIMEOUT)?;
        Ok(process)
    }

    /// SIGKILL to braidd alone; the dataplane goes on.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Starts braidd again after [`Braidd::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(self.role, self.testbed, &self.programs, &self.config)?;
        Ok(())
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> Result<std::process::ExitStatus> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(Duration::from_secs(10))
    }

    /// braidd itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn braid(&self, args: &[&str]) -> Vec<String> {
        let mut argv = vec![
            self.programs.join("braid").to_string_lossy().into_owned(),
            "--socket".to_owned(),
            self.socket.to_string_lossy().into_owned(),
            "--json".to_owned(),
        ];
        argv.extend(args.iter().map(|arg| (*arg).to_owned()));
        argv
    }

    /// `braid --json …`
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let argv = self.braid(args);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let text = self.testbed.run(self.role, &argv)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|e| failure!("braid {args:?}: {e} in {text}"))
    }

    /// `braid --json monitor`, one event per line.
    pub fn monitor(&self) -> Result<Process> {
        let argv = self.braid(&["monitor"]);
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        self.testbed.start(self.role, "monitor", &argv)
    }

    /// Counters that are not zero.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let value = self.ask(&["counters"])?;
        let mut counters = BTreeMap::new();
        for list in ["dataplane", "steer"] {
            let pairs = value[list]
                .as_array()
                .ok_or_else(|| failure!("no {list} counters in {value}"))?;
            for pair in pairs {
                match (pair[0].as_str(), pair[1].as_u64()) {
                    (Some(name), Some(value)) => counters.insert(name.to_owned(), value),
                    _ => return Err(failure!("not a counter: {pair}")),
                };
            }
        }
        Ok(counters)
    }

    /// One counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        Ok(self.counters()?.get(name).copied().unwrap_or(0))
    }

    /// Connections.
    pub fn conns(&self) -> Result<Vec<Value>> {
        let value = self.ask(&["conns"])?;
        field(&value, "conns")
            .as_array()
            .cloned()
            .ok_or_else(|| failure!("braid conns: {value}"))
    }

    /// `braid endpoint add`.
    pub fn endpoint_add(&self, address: IpAddr, flags: &[&str]) -> Result<()> {
        let address = address.to_string();
        let mut args = vec!["endpoint", "add", &*address];
        args.extend(flags);
        self.ask(&args).map(drop)
    }

    /// `braid endpoint change`.
    pub fn endpoint_change(&self, address: IpAddr, flags: &[&str]) -> Result<()> {
        let address = address.to_string();
        let mut args = vec!["endpoint", "change", &*address];
        args.extend(flags);
        self.ask(&args).map(drop)
    }

    /// `braid endpoint del`.
    pub fn endpoint_del(&self, address: IpAddr) -> Result<()> {
        self.ask(&["endpoint", "del", &address.to_string()])
            .map(drop)
    }

    /// `braid connect NAME`.
    pub fn connect(&self, name: &str) -> Result<()> {
        self.ask(&["connect", name]).map(drop)
    }

    /// What each port (one per interface and queue) says.
    pub fn ports(&self) -> Result<Vec<PortUse>> {
        let xsk = self.ask(&["xsk"])?;
        let ports = find(&xsk, "ports")
            .and_then(Value::as_array)
            .ok_or_else(|| failure!("no ports in {xsk}"))?;
        ports
            .iter()
            .map(|port| {
                let number = |value: &Value| {
                    value
                        .as_u64()
                        .ok_or_else(|| failure!("not a number in {port}"))
                };
                Ok(PortUse {
                    interface: port["interface"].as_str().unwrap_or_default().to_owned(),
                    queue: number(&port["queue"])?,
                    worker: number(&port["worker"])?,
                    rx_packets: number(&port["stats"]["rx_packets"])?,
                    tx_packets: number(&port["stats"]["tx_packets"])?,
                })
            })
            .collect()
    }

    /// Process id of the dataplane.
    pub fn dataplane_pid(&self) -> Result<u32> {
        let status = self.ask(&["status"])?;
        let pid = status["dataplane_pid"].as_u64();
        pid.and_then(|pid| u32::try_from(pid).ok())
            .ok_or_else(|| failure!("no pid in {status}"))
    }

    /// Flows in TIME-WAIT, of all workers.
    pub fn time_wait(&self) -> Result<u64> {
        let status = self.ask(&["status"])?;
        let workers = find(&status, "workers")
            .and_then(Value::as_array)
            .ok_or_else(|| failure!("no workers in {status}"))?;
        let of = |worker: &Value| worker["time_wait"].as_u64().unwrap_or(0);
        Ok(workers.iter().map(of).sum())
    }

    /// Sums of every frame pool.
    pub fn frames(&self) -> Result<Frames> {
        let xsk = self.ask(&["xsk"])?;
        let pools = find(&xsk, "pools")
            .and_then(Value::as_array)
            .ok_or_else(|| failure!("no pools in {xsk}"))?;
        let mut frames = Frames::default();
        for pool in pools {
            let pool = &pool["frames"];
            let of = |name: &str| pool[name].as_u64().unwrap_or(0);
            frames.ours += of("ours");
            frames.tx += of("tx") + of("orphaned");
            frames.leaked += of("leaked");
            frames.foreign += of("foreign_seen");
            frames.idle += of("free") + of("returning") + of("fill");
        }
        if frames.idle + frames.ours + frames.tx == 0 {
            return Err(failure!("no frames in {xsk}"));
        }
        Ok(frames)
    }

    /// Waits until no connection and no frame is in use: `ours` is what it takes when
    /// nothing happens.
    pub fn settle(&self, ours: u64, timeout: Duration) -> Result<Frames> {
        let deadline = Instant::now() + timeout;
        loop {
            let (frames, conns) = (self.frames()?, self.conns()?.len());
            if conns == 0 && frames.ours <= ours && frames.tx == 0 {
                return Ok(frames);
            }
            if Instant::now() > deadline {
                return Err(failure!(
                    "{conns} connections and {frames:?} after {timeout:?}"
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What went through a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// Interface.
    pub interface: String,
    /// Queue.
    pub queue: u64,
    /// Worker.
    pub worker: u64,
    /// Received.
    pub rx_packets: u64,
    /// Sent.
    pub tx_packets: u64,
}

/// Where the frames are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Free, on their way home, or waiting for packets.
    pub idle: u64,
    /// Held by connections.
    pub ours: u64,
    /// In transmit rings.
    pub tx: u64,
    /// Nowhere.
    pub leaked: u64,
    /// Handed out by a driver that did not own them.
    pub foreign: u64,
}

/// `value.name` if it is an object with that field, else the value itself.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(value)
}

/// The first field of that name, at any depth.
fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map
            .get(name)
            .or_else(|| map.values().find_map(|value| find(value, name))),
        Value::Array(items) => items.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

/// Resident memory of a process, KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .ok_or_else(|| failure!("no VmRSS of process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_what_was_asked_for() {
        let config = Config {
            cores: vec![0, 1],
            idle: Some("busy".into()),
            interfaces: vec!["vb1".into(), "vb2".into()],
            mode: Some("native".into()),
            policy: "announce".into(),
            subflows: Some(3),
            endpoints: vec![(Testbed::v4(Role::Braid, 2), vec!["signal".into()])],
            services: vec![Service::new("echo", "*:7")],
            connects: vec![Connect {
                name: "upload".into(),
                to: SocketAddr::new(Testbed::v4(Role::Peer, 1), 5201),
                app: "source".into(),
                bytes: Some(42),
            }],
            more: String::new(),
        };
        let toml = config.to_toml(Path::new("/tmp/x.sock"));
        for line in [
            "cores = [0, 1]",
            "idle = \"busy\"",
            "name = \"vb2\"",
            "mode = \"native\"",
            "policy = \"announce\"",
            "subflows = 3",
            "address = \"10.77.2.2\"",
            "flags = [\"signal\"]",
            "listen = \"*:7\"",
            "to = \"10.77.1.1:5201\"",
            "bytes = \"42B\"",
            "socket = \"/tmp/x.sock\"",
        ] {
            assert!(toml.lines().any(|l| l == line), "{line} in\n{toml}");
        }
    }

    #[test]
    fn own_memory_is_resident() {
        assert!(resident_kib(std::process::id()).unwrap() > 100);
    }
}
