//! The matrix between two hosts with real NICs: the same pairs, directions and checksums as
//! over veth, with the offloads, the MTU and the paths that the NICs have.
//!
//! | file | one idea |
//! |---|---|
//! | [`host`] | one end on one host: servers and clients of either stack |
//! | [`link`] | how the near end asks the far one: ssh, or TCP to an agent started by hand |
//!
//! The near end is the client. `scripts/testbed-nic` prepares both hosts.

pub mod host;
pub mod link;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use self::host::{Host, Job, Look, Place, Reply, Request};
use self::link::Link;
use super::cell::{Direction, End, Pair};
use super::figure::{Bench, Figure, record};
use super::machine::CpuSeconds;
use super::output::{Output, require};
use super::progress::Progress;
use super::results::Results;
use crate::failure;
use crate::peer::transfer::gbit_per_s;
use crate::testbed::Result;
use crate::testbed::requirement::Requirement;

/// How long the first byte may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Slow start and joins are over then; only for measurements between two looks.
const WARM_UP: Duration = Duration::from_secs(1);

/// The commands of `braid-bench nic`.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// The far end: does what the near one asks, on standard input and output (as ssh
    /// starts it) or to whoever connects. Only on a network that you trust
    Agent {
        /// ADDRESS:PORT to wait on
        #[arg(long)]
        listen: Option<SocketAddr>,
    },
    /// The near end: measures
    Run(Arguments),
}

/// What `braid-bench nic run` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Far host: started there by ssh, as in `root@far`
    #[arg(long, required_unless_present = "agent", conflicts_with = "agent")]
    ssh: Option<String>,
    /// braid-bench on the far host; the other programs are beside it
    #[arg(long, default_value = "braid-bench")]
    program: String,
    /// Far host: an agent that listens there
    #[arg(long)]
    agent: Option<SocketAddr>,
    /// Own interfaces, one per path
    #[arg(long, value_delimiter = ',', required = true)]
    interfaces: Vec<String>,
    /// An own address on each
    #[arg(long, value_delimiter = ',', required = true)]
    addresses: Vec<IpAddr>,
    /// The far host's interfaces, in the same order
    #[arg(long, value_delimiter = ',', required = true)]
    far_interfaces: Vec<String>,
    /// The far host's addresses
    #[arg(long, value_delimiter = ',', required = true)]
    far_addresses: Vec<IpAddr>,
    /// Core of the near end
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Core of the far end
    #[arg(long, default_value_t = 0)]
    far_core: usize,
    /// `interface.mode` of braid's configuration
    #[arg(long, default_value = "auto")]
    mode: String,
    /// Only what has this in its name, as in `kernel-braid` or `up`; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Of each measurement [default: 10, quick: 2]
    #[arg(long)]
    seconds: Option<f64>,
    /// Output.
    #[command(flatten)]
    output: Output,
}

/// One cell.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Cell {
    pair: Pair,
    checksum: bool,
    direction: Direction,
}

impl Cell {
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for checksum in [false, true] {
            for direction in Direction::ALL {
                for pair in Pair::ALL {
                    cells.push(Self {
                        pair,
                        checksum,
                        direction,
                    });
                }
            }
        }
        cells
    }

    fn place(self, paths: usize) -> String {
        let sum = if self.checksum { "sum" } else { "plain" };
        format!("{paths}p/{sum}/{}", self.direction)
    }

    fn name(self, paths: usize) -> String {
        format!("{}/{}", self.pair, self.place(paths))
    }

    fn job(self, seconds: f64) -> Job {
        let braid_client = self.pair.client == End::Braid;
        Job {
            direction: self.direction,
            checksum: self.checksum,
            limit_s: braid_client.then_some(seconds),
            braid_client,
        }
    }
}

/// What came of one measurement.
#[derive(Copy, Clone, Debug, Default)]
struct Sample {
    bytes: u64,
    gbit_per_s: f64,
    subflows: u32,
}

impl Sample {
    fn add(&mut self, bytes: u64, gbit_per_s: f64, subflows: u32) {
        self.bytes += bytes;
        self.gbit_per_s += gbit_per_s;
        self.subflows = if self.subflows == 0 {
            subflows
        } else {
            self.subflows.min(subflows)
        };
    }
}

/// Both ends.
struct Bed {
    near: Host,
    far: Link,
    place: Place,
    far_place: Place,
    duration: Duration,
}

impl Bed {
    fn cpu(&mut self) -> Result<(CpuSeconds, CpuSeconds)> {
        match self.far.ask(&Request::Cpu)? {
            Reply::Cpu(far) => Ok((CpuSeconds::now()?, far)),
            other => Err(failure!("the far end answers {other:?}")),
        }
    }

    fn measure(&mut self, cell: Cell) -> Result<(Sample, f64)> {
        let job = cell.job(self.duration.as_secs_f64());
        let serve = Request::Serve {
            stack: cell.pair.server,
            place: self.far_place.clone(),
            job: job.clone(),
        };
        self.far.ask(&serve)?;
        let (near, far) = self.cpu()?;
        let sample = match (cell.pair.client, cell.pair.server) {
            (End::Kernel, _) => self.by_client(&job),
            (End::Braid, End::Kernel) => self.by_server(&job),
            (End::Braid, End::Braid) => self.by_looks(&job),
        };
        let (near_after, far_after) = self.cpu()?;
        self.near.stop();
        self.far.ask(&Request::Stop)?;
        let sample = sample?;
        if sample.bytes == 0 {
            return Err(failure!("nothing arrived"));
        }
        Ok((
            sample,
            near_after.since(near).busy() + far_after.since(far).busy(),
        ))
    }

    fn server(&self) -> IpAddr {
        self.far_place.addresses[0]
    }

    fn by_client(&mut self, job: &Job) -> Result<Sample> {
        let reports = self
            .near
            .kernel_clients(&self.place, job, self.server(), self.duration)?;
        let mut sample = Sample::default();
        for report in reports {
            if !report.intact {
                return Err(failure!("the client: {}", report.error.unwrap_or_default()));
            }
            let bytes = report.bytes_sent.max(report.bytes_received);
            let subflows = u32::from(report.transport.extra_subflows) + 1;
            sample.add(bytes, report.gbit_per_s, subflows);
        }
        Ok(sample)
    }

    fn by_server(&mut self, job: &Job) -> Result<Sample> {
        let server = self.server();
        let braid = self.near.braid_client(&self.place, job, server)?;
        for &flow in job.direction.flows() {
            braid.connect(flow)?;
        }
        let Reply::Served { flows } = self.far.ask(&Request::Served)? else {
            return Err(failure!("the far end does not say what it served"));
        };
        let mut sample = Sample::default();
        for served in flows {
            if !served.intact {
                return Err(failure!("the server: {}", served.error.unwrap_or_default()));
            }
            let bytes = served.bytes_received.max(served.bytes_sent);
            let subflows = u32::from(served.transport.extra_subflows) + 1;
            sample.add(bytes, served.gbit_per_s, subflows);
        }
        Ok(sample)
    }

    /// The receiver's own figures, between two looks.
    fn by_looks(&mut self, job: &Job) -> Result<Sample> {
        let server = self.server();
        let braid = self.near.braid_client(&self.place, job, server)?;
        let flows = job.direction.flows();
        for &flow in flows {
            braid.connect(flow)?;
        }
        let far = &mut self.far;
        let mut look = |flow: Direction| -> Result<Look> {
            if flow == Direction::Down {
                return braid.look(&flow.to_string());
            }
            match far.ask(&Request::Look { flow })? {
                Reply::Look(look) => Ok(look),
                other => Err(failure!("the far end answers {other:?}")),
            }
        };
        let deadline = Instant::now() + PATIENCE;
        for &flow in flows {
            while look(flow)?.delivered == 0 {
                if Instant::now() > deadline {
                    return Err(failure!("{flow}: no byte within {PATIENCE:?}"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        std::thread::sleep(WARM_UP);
        let first = flows
            .iter()
            .map(|&flow| look(flow))
            .collect::<Result<Vec<_>>>()?;
        std::thread::sleep(self.duration);
        let mut sample = Sample::default();
        for (&flow, first) in flows.iter().zip(first) {
            let last = look(flow)?;
            let bytes = last.delivered.saturating_sub(first.delivered);
            let elapsed = Duration::from_millis(last.at_ms.saturating_sub(first.at_ms));
            sample.add(bytes, gbit_per_s(bytes, elapsed), last.subflows);
        }
        Ok(sample)
    }
}

fn note(results: &mut Results, cell: Cell, paths: usize, outcome: &Result<(Sample, f64)>) {
    let figure = |what, more| {
        let subject = cell.pair.to_string();
        Figure::new(Bench::Nic, cell.place(paths), subject, what, more)
            .as_yardstick(cell.pair.is_baseline())
    };
    let figures = &mut results.figures;
    let rate = figure(("rate", "Gb/s"), true);
    match outcome {
        Ok((sample, busy)) => {
            if usize::try_from(sample.subflows).is_ok_and(|n| n < paths) {
                let why = format!("{} subflows on {paths} paths", sample.subflows);
                record(figures, rate.clone(), Err(why));
            }
            record(figures, rate, Ok(sample.gbit_per_s));
            let cost = busy / (sample.bytes as f64 / f64::from(1_u32 << 30));
            let like = figure(("processor time, both hosts", "s/GiB"), false);
            record(figures, like, Ok(cost));
        }
        Err(e) => record(figures, rate, Err(format!("failed: {e}"))),
    }
}

impl Arguments {
    fn places(&self) -> Result<(Place, Place)> {
        let place = |interfaces: &[String], addresses: &[IpAddr], core| Place {
            interfaces: interfaces.to_vec(),
            addresses: addresses.to_vec(),
            core,
            mode: self.mode.clone(),
        };
        let near = place(&self.interfaces, &self.addresses, self.core);
        let far = place(&self.far_interfaces, &self.far_addresses, self.far_core);
        let paths = near.interfaces.len();
        let same = [
            near.addresses.len(),
            far.interfaces.len(),
            far.addresses.len(),
        ];
        if same.iter().any(|&n| n != paths) {
            return Err(failure!(
                "--interfaces, --addresses, --far-interfaces and --far-addresses: as many of each"
            ));
        }
        Ok((near, far))
    }
}

fn run_all(arguments: &Arguments) -> Result<Results> {
    require(&[
        Requirement::Root,
        Requirement::Mptcp,
        Requirement::XdpSockets,
        Requirement::Programs,
    ])?;
    let output = &arguments.output;
    let (place, far_place) = arguments.places()?;
    let (paths, repeats) = (place.interfaces.len(), output.repeats()?);
    let seconds = arguments
        .seconds
        .unwrap_or(if output.quick { 2.0 } else { 10.0 });
    if !(0.1..=3600.0).contains(&seconds) {
        return Err(failure!("--seconds: 0.1 to 3600"));
    }
    let wanted = |cell: &Cell| {
        let name = cell.name(paths);
        let parts = |text: &str| {
            text.split('/')
                .all(|part| name.split('/').any(|own| own == part))
        };
        arguments.only.is_empty() || arguments.only.iter().any(|text| parts(text))
    };
    let cells: Vec<Cell> = Cell::all().into_iter().filter(wanted).collect();
    if cells.is_empty() {
        return Err(failure!(
            "--only: no cell is called so, as in kernel-braid/up"
        ));
    }
    let mut far = match (&arguments.agent, &arguments.ssh) {
        (Some(agent), _) => Link::connect(*agent)?,
        (None, Some(host)) => Link::ssh(host, &arguments.program)?,
        (None, None) => return Err(failure!("--ssh or --agent")),
    };
    let Reply::Machine(machine) = far.ask(&Request::Hello)? else {
        return Err(failure!("the far end does not say who it is"));
    };
    let mut results = output.begin(seconds, &["one measurement of every cell per round"])?;
    results.protocol.mode.clone_from(&arguments.mode);
    results.protocol.peer_core = arguments.far_core;
    results.protocol.braid_core = arguments.core;
    results.protocol.notes.push(format!(
        "far host: {} ({} cores), Linux {}, braid {}",
        machine.cpu, machine.cores, machine.kernel, machine.commit
    ));
    let progress = Progress::new(cells.len() * repeats);
    let duration = Duration::from_secs_f64(seconds);
    let mut bed = Bed {
        near: Host::new()?,
        far,
        place,
        far_place,
        duration,
    };
    for _ in 0..repeats {
        for &cell in &cells {
            progress.begin(&cell.name(paths));
            let outcome = bed.measure(cell);
            progress.end(&match &outcome {
                Ok((sample, _)) => format!("{}: {:.2} Gb/s", cell.name(paths), sample.gbit_per_s),
                Err(e) => format!("{}: failed: {e}", cell.name(paths)),
            });
            note(&mut results, cell, paths, &outcome);
        }
    }
    Ok(results)
}

/// Runs it.
pub fn run(command: &Command) -> io::Result<ExitCode> {
    match command {
        Command::Agent { listen: None } => {
            link::answer(io::stdin().lock(), io::stdout()).map_err(io::Error::other)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Agent {
            listen: Some(address),
        } => {
            link::listen(*address).map_err(io::Error::other)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(arguments) => {
            let results = run_all(arguments).map_err(io::Error::other)?;
            arguments.output.finish(results)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_keeps_the_time_only_of_braids_clients() {
        assert_eq!(Cell::all().len(), 2 * 3 * 4);
        for cell in Cell::all() {
            let job = cell.job(2.0);
            assert_eq!(job.limit_s.is_some(), cell.pair.client == End::Braid);
            assert_eq!(job.braid_client, job.limit_s.is_some());
        }
    }

    #[test]
    fn missing_subflows_are_said_and_the_kernel_is_the_yardstick() {
        let mut results = Output::default().begin(1.0, &[]).unwrap();
        let cells = Cell::all();
        let sample = |gbit_per_s| Sample {
            bytes: 1 << 30,
            gbit_per_s,
            subflows: 1,
        };
        note(&mut results, cells[0], 2, &Ok((sample(10.0), 3.0)));
        note(&mut results, cells[1], 2, &Ok((sample(20.0), 2.0)));
        let all = &results.figures;
        assert_eq!(all[0].remarks, ["1 subflows on 2 paths"]);
        let braid = all
            .iter()
            .find(|f| f.subject == "kernel-braid" && f.unit == "Gb/s");
        assert_eq!(braid.unwrap().ratio(all), Some(2.0));
        let cost = all.iter().find(|f| f.unit == "s/GiB").unwrap();
        assert_eq!(cost.values, [3.0]);
    }
}
