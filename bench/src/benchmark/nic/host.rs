//! One end of a measurement on one host: starts servers and clients of either stack, and
//! says what came of them. The far end is asked by messages, the near one by calls.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::cell::{Direction, End};
use super::super::machine::{CpuSeconds, Machine};
use crate::failure;
use crate::peer::client::Report;
use crate::peer::server::Served;
use crate::testbed::daemon::{Connect, Service};
use crate::testbed::process::output;
use crate::testbed::requirement::programs;
use crate::testbed::{Config, Process, Result};

/// How long anything but the transfer itself may take.
const PATIENCE: Duration = Duration::from_secs(20);
const STALL_TIMEOUT_S: &str = "10";

/// A host's part in all measurements.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Interfaces, one per path.
    pub interfaces: Vec<String>,
    /// An address on each.
    pub addresses: Vec<IpAddr>,
    /// Core of braid's worker and of the kernel's applications.
    pub core: usize,
    /// `interface.mode` of braid.
    pub mode: String,
}

/// One measurement, as both ends need to know it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Which way data goes, seen from the client.
    pub direction: Direction,
    /// DSS checksums.
    pub checksum: bool,
    /// When the server ends the flows: set if the client is braid's and has no clock.
    pub limit_s: Option<f64>,
    /// The client is braid's: it takes one path for each address.
    pub braid_client: bool,
}

/// What is asked of the far end.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// Who are you?
    Hello,
    /// Start servers, of this stack.
    Serve {
        /// Whose.
        stack: End,
        /// Where.
        place: Place,
        /// What for.
        job: Job,
    },
    /// Processor time since boot.
    Cpu,
    /// What braid's server has received of a flow.
    Look {
        /// Which.
        flow: Direction,
    },
    /// What the kernel's servers say when they have ended.
    Served,
    /// End what was started.
    Stop,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Reply {
    /// To [`Request::Hello`].
    Machine(Box<Machine>),
    /// To [`Request::Serve`] and [`Request::Stop`].
    Done,
    /// To [`Request::Cpu`].
    Cpu(CpuSeconds),
    /// To [`Request::Look`].
    Look(Look),
    /// To [`Request::Served`].
    Served {
        /// One for each flow.
        flows: Vec<Served>,
    },
    /// To anything.
    Failed {
        /// Why.
        why: String,
    },
}

/// What a receiving braid says about a flow.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Look {
    /// Bytes.
    pub delivered: u64,
    /// On its own clock; 0: there is no such connection yet.
    pub at_ms: u64,
    /// Subflows.
    pub subflows: u32,
}

/// A braidd of this host.
#[derive(Debug)]
pub struct Braid {
    process: Process,
    socket: PathBuf,
}

impl Braid {
    fn start(config: &Config, directory: &std::path::Path) -> Result<Self> {
        let (file, socket) = (directory.join("braid.toml"), directory.join("braid.sock"));
        std::fs::write(&file, config.to_toml(&socket))?;
        let mut command = Command::new(programs().join("braidd"));
        command.arg("--config").arg(&file);
        let mut process = Process::start("braidd", command, &directory.join("braidd.log"))?;
        process.expect_line("braidd ready", PATIENCE)?;
        Ok(Self { process, socket })
    }

    fn ask(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(programs().join("braid"));
        command
            .arg("--socket")
            .arg(&self.socket)
            .arg("--json")
            .args(args);
        let text = output(&mut command)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|e| failure!("braid {args:?}: {e} in {text}"))
    }

    /// Begins an active open of the configuration.
    pub fn connect(&self, flow: Direction) -> Result<()> {
        self.ask(&["connect", &flow.to_string()]).map(drop)
    }

    /// What it has received of the connection called `name`.
    pub fn look(&self, name: &str) -> Result<Look> {
        let answer = self.ask(&["conns"])?;
        let conns = answer.get("conns").unwrap_or(&answer).as_array();
        let conn = conns.and_then(|conns| conns.iter().find(|conn| conn["service"] == name));
        let Some(conn) = conn else {
            return Ok(Look::default());
        };
        let number = |key: &str| {
            conn[key]
                .as_u64()
                .ok_or_else(|| failure!("no {key} in {conn}"))
        };
        let subflows = conn["subflows"].as_array().map_or(0, Vec::len);
        Ok(Look {
            delivered: number("bytes_delivered")?,
            at_ms: number("age_ms")?.max(1),
            subflows: u32::try_from(subflows).unwrap_or(u32::MAX),
        })
    }

    /// What it wrote to standard error.
    #[must_use]
    pub fn says(&self) -> String {
        self.process.stderr()
    }
}

/// Of the service that takes a flow.
#[must_use]
pub const fn port(flow: Direction) -> u16 {
    match flow {
        Direction::Up | Direction::Both => 5001,
        Direction::Down => 5002,
    }
}

/// What the server does in a flow.
#[must_use]
pub const fn server_app(flow: Direction) -> &'static str {
    match flow {
        Direction::Up | Direction::Both => "sink",
        Direction::Down => "source",
    }
}

const fn client_app(flow: Direction) -> &'static str {
    match flow {
        Direction::Up | Direction::Both => "source",
        Direction::Down => "sink",
    }
}

fn config(place: &Place, job: &Job) -> Config {
    let checksum = if job.checksum { "always" } else { "never" };
    Config {
        cores: vec![place.core],
        idle: None,
        interfaces: place.interfaces.clone(),
        mode: Some(place.mode.clone()),
        policy: "announce".to_owned(),
        subflows: Some(8),
        endpoints: Vec::new(),
        services: Vec::new(),
        connects: Vec::new(),
        more: format!("\n[mptcp]\ncongestion = \"reno\"\nchecksum = \"{checksum}\"\n"),
    }
}

fn endpoints(place: &Place, flag: &str) -> Vec<(IpAddr, Vec<String>)> {
    let further = place.addresses.iter().skip(1);
    further
        .map(|address| (*address, vec![flag.to_owned()]))
        .collect()
}

/// A kernel's announced addresses; withdrawn when dropped.
#[derive(Debug)]
struct Announced(Vec<String>);

impl Announced {
    fn new(place: &Place) -> Result<Self> {
        let mut announced = Self(Vec::new());
        for (address, interface) in place.addresses.iter().zip(&place.interfaces).skip(1) {
            let address = address.to_string();
            let add = [
                "mptcp", "endpoint", "add", &address, "dev", interface, "signal",
            ];
            output(Command::new("ip").args(add))?;
            announced.0.push(address);
        }
        Ok(announced)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let Ok(text) = output(Command::new("ip").args(["mptcp", "endpoint", "show"])) else {
            return;
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let id = words
                .iter()
                .position(|word| *word == "id")
                .and_then(|at| words.get(at + 1));
            let ours = words
                .first()
                .is_some_and(|first| self.0.iter().any(|own| own == first));
            if let (Some(id), true) = (id, ours) {
                let delete = ["mptcp", "endpoint", "delete", "id", id];
                if let Err(e) = output(Command::new("ip").args(delete)) {
                    eprintln!("{}: stays announced: {e}", words[0]);
                }
            }
        }
    }
}

/// This host's end.
#[derive(Debug)]
pub struct Host {
    directory: PathBuf,
    braid: Option<Braid>,
    servers: Vec<Process>,
    announced: Option<Announced>,
}

impl Host {
    /// Nothing runs yet.
    pub fn new() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("braid-nic-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            braid: None,
            servers: Vec::new(),
            announced: None,
        })
    }

    fn peer(&self, name: &str, args: &[&str]) -> Result<Process> {
        let mut command = Command::new(programs().join("braid-bench"));
        command.arg("peer").args(args);
        Process::start(name, command, &self.directory.join(format!("{name}.log")))
    }

    fn serve(&mut self, stack: End, place: &Place, job: &Job) -> Result<()> {
        self.stop();
        let checksum = format!("net.mptcp.checksum_enabled={}", u8::from(job.checksum));
        output(Command::new("sysctl").args(["-q", "-w", &checksum]))?;
        let first = place
            .addresses
            .first()
            .ok_or_else(|| failure!("no address"))?;
        if stack == End::Braid {
            let mut config = Config {
                endpoints: endpoints(place, "signal"),
                ..config(place, job)
            };
            config
                .more
                .push_str(&format!("deny-join-id0 = {}\n", job.braid_client));
            for &flow in job.direction.flows() {
                let listen = SocketAddr::new(*first, port(flow)).to_string();
                config.services.push(Service::new(server_app(flow), listen));
            }
            self.braid = Some(Braid::start(&config, &self.directory)?);
            return Ok(());
        }
        let initial = u8::from(!job.braid_client);
        let initial = format!("net.mptcp.allow_join_initial_addr_port={initial}");
        output(Command::new("sysctl").args(["-q", "-w", &initial]))?;
        self.announced = Some(Announced::new(place)?);
        for &flow in job.direction.flows() {
            let (listen, core) = (format!("[::]:{}", port(flow)), place.core.to_string());
            let seconds = job.limit_s.map(|s| s.to_string());
            let mut args = vec!["serve", "--listen", &listen, "--app", server_app(flow)];
            args.extend(["--content", "raw", "--core", &core, "--count", "1"]);
            args.extend(["--stall-timeout-s", STALL_TIMEOUT_S]);
            if let Some(seconds) = &seconds {
                args.extend(["--seconds", seconds]);
            }
            let mut server = self.peer(&format!("serve-{flow}"), &args)?;
            server.expect_line("ready", PATIENCE)?;
            self.servers.push(server);
        }
        Ok(())
    }

    fn served(&mut self) -> Result<Vec<Served>> {
        let wait = PATIENCE * 3;
        self.servers
            .iter_mut()
            .map(|server| server.json(wait))
            .collect()
    }

    /// Ends what runs.
    pub fn stop(&mut self) {
        self.braid = None;
        self.servers.clear();
        self.announced = None;
    }

    /// braid's client, not connected yet.
    pub fn braid_client(&mut self, place: &Place, job: &Job, server: IpAddr) -> Result<&Braid> {
        self.stop();
        let connect = |flow: &Direction| Connect {
            name: flow.to_string(),
            to: SocketAddr::new(server, port(*flow)),
            app: client_app(*flow).to_owned(),
            bytes: None,
        };
        let config = Config {
            policy: "fullmesh".to_owned(),
            endpoints: endpoints(place, "subflow"),
            connects: job.direction.flows().iter().map(connect).collect(),
            ..config(place, job)
        };
        Ok(self.braid.insert(Braid::start(&config, &self.directory)?))
    }

    /// Kernel clients for every flow; what they say when they have ended.
    pub fn kernel_clients(
        &self,
        place: &Place,
        job: &Job,
        server: IpAddr,
        duration: Duration,
    ) -> Result<Vec<Report>> {
        let checksum = format!("net.mptcp.checksum_enabled={}", u8::from(job.checksum));
        output(Command::new("sysctl").args(["-q", "-w", &checksum]))?;
        let (core, seconds) = (place.core.to_string(), duration.as_secs_f64().to_string());
        let mut clients = Vec::new();
        for &flow in job.direction.flows() {
            let to = SocketAddr::new(server, port(flow)).to_string();
            let mut args = match flow {
                Direction::Up | Direction::Both => vec!["upload", "--content", "raw"],
                Direction::Down => vec!["download", "--expect", "raw"],
            };
            args.extend(["--to", &to, "--seconds", &seconds, "--core", &core]);
            args.extend(["--stall-timeout-s", STALL_TIMEOUT_S]);
            clients.push(self.peer(&format!("client-{flow}"), &args)?);
        }
        let wait = PATIENCE + duration * 2;
        clients.iter_mut().map(|client| client.json(wait)).collect()
    }

    fn try_handle(&mut self, request: Request) -> Result<Reply> {
        Ok(match request {
            Request::Hello => Reply::Machine(Box::new(Machine::here(&programs()))),
            Request::Serve { stack, place, job } => {
                self.serve(stack, &place, &job)?;
                Reply::Done
            }
            Request::Cpu => Reply::Cpu(CpuSeconds::now()?),
            Request::Look { flow } => {
                let braid = self
                    .braid
                    .as_ref()
                    .ok_or_else(|| failure!("no braid runs here"))?;
                Reply::Look(braid.look(server_app(flow))?)
            }
            Request::Served => Reply::Served {
                flows: self.served()?,
            },
            Request::Stop => {
                self.stop();
                Reply::Done
            }
        })
    }

    /// Does what is asked.
    pub fn handle(&mut self, request: Request) -> Reply {
        self.try_handle(request).unwrap_or_else(|e| {
            let says = self.braid.as_ref().map_or(String::new(), Braid::says);
            Reply::Failed {
                why: format!("{e}\n{says}"),
            }
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let request = Request::Serve {
            stack: End::Braid,
            place: Place {
                interfaces: vec!["eth1".to_owned()],
                addresses: vec!["10.0.0.1".parse().unwrap()],
                core: 2,
                mode: "auto".to_owned(),
            },
            job: Job {
                direction: Direction::Both,
                checksum: true,
                limit_s: Some(1.5),
                braid_client: false,
            },
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        let reply = Reply::Failed {
            why: "no\nluck".to_owned(),
        };
        let text = serde_json::to_string(&reply).unwrap();
        assert!(!text.contains('\n'), "one line each");
    }

    #[test]
    fn a_host_without_servers_says_so() {
        let mut host = Host::new().unwrap();
        let directory = host.directory.clone();
        assert!(matches!(host.handle(Request::Hello), Reply::Machine(_)));
        let look = host.handle(Request::Look {
            flow: Direction::Up,
        });
        assert!(matches!(look, Reply::Failed { .. }));
        assert!(matches!(host.handle(Request::Cpu), Reply::Cpu(_)));
        drop(host);
        assert!(!directory.exists());
    }
}
