//! Requests and responses: a kernel's MPTCP client, and in the server's place the kernel or
//! braid's echo service with either idle policy, in turn in the same run.
//!
//! | file | one idea |
//! |---|---|
//! | [`client`] | asks, and keeps the distribution of the answers' latencies |
//! | [`server`] | the kernel's echo server |

pub mod client;
pub mod server;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;

use self::client::{Answers, Load, Pace};
use self::server::{MESSAGE_BYTES_MAX, Wait};
use super::figure::{Bar, Bench, Curve, Figure, record};
use super::output::{Output, foreign_load, require};
use super::pinned::Pinned;
use super::progress::Progress;
use super::results::Results;
use super::transfer::{BRAID_CORE, PEER_CORE};
use crate::failure;
use crate::testbed::requirement::{Requirement, programs};
use crate::testbed::{Braidd, Config, Options, Result, Role, Testbed};

const PORT: u16 = 7;
const SIZES: [usize; 4] = [64, 1 << 10, 16 << 10, 64 << 10];
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// Requests per second of the open loop: a server that idles in between.
const OPEN_RATE: u32 = 2000;
/// Percentiles that become figures.
const PERCENTILES: [(&str, f64); 5] = [
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
];
/// Percentiles of curves.
const CURVE: [f64; 12] = [
    10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999,
];

/// What `braid-bench rr` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Of each measurement [default: 2, quick: 0.4]
    #[arg(long)]
    seconds: Option<f64>,
    /// Bytes of requests and of answers, at most 65536
    #[arg(long, value_delimiter = ',')]
    bytes: Vec<usize>,
    /// Connections
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Requests per second of the open loop
    #[arg(long, default_value_t = OPEN_RATE)]
    rate: u32,
    /// `interface.mode` of braid's configuration
    #[arg(long, default_value = "auto")]
    mode: String,
    /// Prefix of the namespaces
    #[arg(long)]
    name: Option<String>,
    /// Output.
    #[command(flatten)]
    output: Output,
}

/// Who answers.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subject {
    Kernel,
    KernelSpins,
    Adaptive,
    Busy,
}

impl Subject {
    const ALL: [Self; 4] = [Self::Kernel, Self::KernelSpins, Self::Adaptive, Self::Busy];

    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::KernelSpins => "kernel, application spins",
            Self::Adaptive => "braid, adaptive",
            Self::Busy => "braid, busy",
        }
    }

    /// As promised for small requests on one connection.
    fn bar(self, quantity: &str) -> Option<Bar> {
        match (self, quantity) {
            (Self::Adaptive, "p50") => Some(Bar::Ratio(0.7)),
            (Self::Adaptive, "p99") => Some(Bar::Ratio(1.0)),
            (Self::Busy, "p50") => Some(Bar::Ratio(0.4)),
            (Self::Busy, "p99") => Some(Bar::Ratio(0.5)),
            _ => None,
        }
    }
}

fn place(load: &Load) -> String {
    let plural = if load.connections == 1 { "" } else { "s" };
    let pace = match load.pace {
        Pace::Closed => String::new(),
        Pace::Open(rate) => format!(", {rate} requests/s"),
    };
    format!(
        "{} bytes, {} connection{plural}{pace}",
        load.bytes, load.connections
    )
}

/// Does this subject say something about this load? A spinning application with many
/// sockets does not.
fn applies(subject: Subject, load: &Load) -> bool {
    subject != Subject::KernelSpins || load.connections == 1
}

impl Arguments {
    fn loads(&self) -> Result<Vec<Load>> {
        let seconds = self
            .seconds
            .unwrap_or(if self.output.quick { 0.4 } else { 2.0 });
        if !(0.05..=3600.0).contains(&seconds) {
            return Err(failure!("--seconds: 0.05 to 3600"));
        }
        let load = |bytes, connections, pace| Load {
            connections,
            bytes,
            pace,
            duration: Duration::from_secs_f64(seconds),
        };
        let or = |asked: &[usize], usual: &[usize]| match asked {
            [] => usual.to_vec(),
            asked => asked.to_vec(),
        };
        let bytes = or(
            &self.bytes,
            if self.output.quick {
                &[64, 64 << 10]
            } else {
                &SIZES
            },
        );
        let connections = or(
            &self.connections,
            if self.output.quick {
                &CONNECTIONS[..2]
            } else {
                &CONNECTIONS
            },
        );
        if bytes.iter().any(|n| !(1..=MESSAGE_BYTES_MAX).contains(n)) {
            return Err(failure!("--bytes: 1 to {MESSAGE_BYTES_MAX}"));
        }
        if connections.iter().any(|n| !(1..=1000).contains(n)) {
            return Err(failure!("--connections: 1 to 1000"));
        }
        let mut loads = Vec::new();
        for &connections in &connections {
            for &bytes in &bytes {
                loads.push(load(bytes, connections, Pace::Closed));
            }
        }
        if self.rate > 0 {
            loads.push(load(bytes[0], 1, Pace::Open(self.rate)));
        }
        Ok(loads)
    }
}

/// A kernel server that announces its second address has endpoints, which are withdrawn
/// when this is dropped.
pub(super) struct Announced<'a>(&'a Testbed);

impl<'a> Announced<'a> {
    pub(super) fn new(testbed: &'a Testbed) -> Result<Self> {
        let announced = Self(testbed);
        for path in 2..=testbed.options().paths {
            let address = Testbed::v4(Role::Braid, path).to_string();
            let device = Testbed::interface(Role::Braid, path);
            let add = [
                "ip", "mptcp", "endpoint", "add", &address, "dev", &device, "signal",
            ];
            testbed.run(Role::Braid, &add)?;
        }
        Ok(announced)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        let flush = ["ip", "mptcp", "endpoint", "flush"];
        if let Err(e) = self.0.run(Role::Braid, &flush) {
            eprintln!("addresses stay announced: {e}");
        }
    }
}

/// Joins come to other addresses than the first connection: a kernel server needs them all.
pub(super) fn every_address(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)
}

fn server() -> SocketAddr {
    SocketAddr::new(Testbed::v4(Role::Braid, 1), PORT)
}

fn ask(testbed: &Testbed, load: &Load) -> Result<Answers> {
    let mut answers = None;
    std::thread::scope(|scope| {
        let mut client = Pinned::start(scope, testbed, Role::Peer, PEER_CORE, |_, ready| {
            ready();
            answers = Some(client::run(server(), load)?);
            Ok(())
        })?;
        client.finish()
    })?;
    answers.ok_or_else(|| failure!("no answers"))
}

fn with_kernel(testbed: &Testbed, load: &Load, wait: Wait) -> Result<Answers> {
    let _announced = Announced::new(testbed)?;
    std::thread::scope(|scope| {
        let mut server = Pinned::start(scope, testbed, Role::Braid, BRAID_CORE, |stop, ready| {
            server::echo(every_address(PORT), load.connections, wait, stop, ready)
        })?;
        let answers = ask(testbed, load);
        server.finish()?;
        answers
    })
}

fn braid<'a>(testbed: &'a Testbed, subject: Subject, mode: &str) -> Result<Braidd<'a>> {
    let idle = if subject == Subject::Busy {
        "busy"
    } else {
        "adaptive"
    };
    let config = Config {
        cores: vec![BRAID_CORE],
        idle: Some(idle.to_owned()),
        mode: Some(mode.to_owned()),
        more: "\n[mptcp]\ncongestion = \"reno\"\n".to_owned(),
        ..Config::announcing(testbed)
    };
    let config = config.service("echo", server().to_string());
    Braidd::start(testbed, &programs(), &config)
}

/// All loads against one subject, which is there for no longer.
fn round(
    testbed: &Testbed,
    subject: Subject,
    mode: &str,
    loads: &[Load],
    mut each: impl FnMut(&Load, Result<Answers>),
) {
    let wait = match subject {
        Subject::Kernel => Wait::Block,
        Subject::KernelSpins => Wait::Spin,
        Subject::Adaptive | Subject::Busy => {
            let started = braid(testbed, subject, mode);
            for load in loads {
                let answers = match &started {
                    Ok(_) => ask(testbed, load),
                    Err(e) => Err(failure!("{e}")),
                };
                each(load, answers);
            }
            return;
        }
    };
    for load in loads.iter().filter(|load| applies(subject, load)) {
        each(load, with_kernel(testbed, load, wait));
    }
}

fn us(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e3
}

/// Adds what came of one measurement.
fn note(results: &mut Results, subject: Subject, load: &Load, outcome: &Result<Answers>) {
    let place = place(load);
    let figure = |what: (&str, &str), more| {
        let barred = (load.bytes, load.connections, load.pace) == (64, 1, Pace::Closed);
        Figure::new(Bench::Rr, &*place, subject.name(), what, more)
            .as_yardstick(subject == Subject::Kernel)
            .with_bar(if barred { subject.bar(what.0) } else { None })
    };
    let figures = &mut results.figures;
    let answers = match outcome {
        Ok(answers) => answers,
        Err(e) => {
            let why = format!("failed: {e}");
            record(figures, figure(("p50", "µs"), false), Err(why));
            return;
        }
    };
    for (name, percentile) in PERCENTILES {
        let value = us(&answers.latency_ns, percentile);
        record(figures, figure((name, "µs"), false), Ok(value));
    }
    let made = figure(("p50 of the requests made", "µs"), false);
    record(figures, made, Ok(answers.median_ns as f64 / 1e3));
    let rate = answers.count as f64 / answers.elapsed.as_secs_f64();
    record(figures, figure(("answers", "1/s"), true), Ok(rate));
    if answers.joined < load.connections {
        let (joined, all) = (answers.joined, load.connections);
        let why = format!("{joined} of {all} connections had a second subflow");
        record(figures, figure(("p50", "µs"), false), Err(why));
    }
}

fn curve(load: &Load, subject: Subject, histogram: &Histogram<u64>) -> Curve {
    // Beyond the last value that more than one sample stands behind is noise.
    let samples = histogram.len().max(1) as f64;
    let known = |percentile: &&f64| (100.0 - **percentile) / 100.0 * samples >= 1.0;
    Curve {
        bench: Bench::Rr,
        place: place(load),
        subject: subject.name().to_owned(),
        unit: "µs".to_owned(),
        points: CURVE
            .iter()
            .filter(known)
            .map(|&percentile| (percentile, us(histogram, percentile)))
            .collect(),
    }
}

fn run_all(arguments: &Arguments) -> Result<Results> {
    require(&[
        Requirement::Root,
        Requirement::Mptcp,
        Requirement::XdpSockets,
        Requirement::TwoCores,
        Requirement::Programs,
    ])?;
    let (output, loads) = (&arguments.output, arguments.loads()?);
    let repeats = output.repeats()?;
    let mut results = output.begin(
        loads[0].duration.as_secs_f64(),
        &[
            "the client is the kernel's, blocking, on core 0; servers are on core 1; two paths, \
             offloads on",
            "closed loop: each connection asks again when it is answered, and a late answer \
             stands for those that were not asked for meanwhile (but in \"requests made\")",
            "with a rate: requests by a schedule, latencies from the time they were due; the \
             client spins until then",
            "percentiles are of each repeat, curves of all of them together",
        ],
    )?;
    results.protocol.mode.clone_from(&arguments.mode);
    let steps = Subject::ALL
        .iter()
        .map(|&subject| loads.iter().filter(|load| applies(subject, load)).count())
        .sum::<usize>();
    let progress = Progress::new(steps * repeats);
    if let Some(warning) = foreign_load()? {
        progress.say(&warning);
    }
    let name = arguments.name.clone();
    let name = name.unwrap_or_else(|| format!("bt-{}-r", std::process::id()));
    let testbed = Testbed::named(&name, Options::default())?;
    for role in [Role::Peer, Role::Braid] {
        let reno = "net.ipv4.tcp_congestion_control=reno";
        testbed.run(role, &["sysctl", "-q", "-w", reno])?;
    }
    let mut whole: BTreeMap<(usize, Subject), Histogram<u64>> = BTreeMap::new();
    for at in 0..repeats {
        let mut subjects = Subject::ALL;
        // So that no one always runs right after the same other.
        subjects.rotate_left(at % Subject::ALL.len());
        for subject in subjects {
            progress.begin(subject.name());
            round(
                &testbed,
                subject,
                &arguments.mode,
                &loads,
                |load, outcome| {
                    note(&mut results, subject, load, &outcome);
                    let what = format!("{}, {}", subject.name(), place(load));
                    match outcome {
                        Ok(answers) => {
                            let p50 = us(&answers.latency_ns, 50.0);
                            progress.end(&format!("{what}: p50 {p50:.1} µs"));
                            let at = loads.iter().position(|other| place(other) == place(load));
                            let key = (at.unwrap_or(0), subject);
                            if let Some(sum) = whole.get_mut(&key) {
                                // Both resize themselves.
                                let _ = sum.add(&answers.latency_ns);
                            } else {
                                whole.insert(key, answers.latency_ns);
                            }
                        }
                        Err(e) => progress.end(&format!("{what}: failed: {e}")),
                    }
                },
            );
        }
    }
    let curves = whole
        .iter()
        .map(|(&(at, subject), sum)| curve(&loads[at], subject, sum));
    results.curves = curves.collect();
    Ok(results)
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let results = run_all(arguments).map_err(io::Error::other)?;
    arguments.output.finish(results)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn arguments(quick: bool, bytes: &[usize]) -> Arguments {
        Arguments {
            seconds: None,
            bytes: bytes.to_vec(),
            connections: Vec::new(),
            rate: OPEN_RATE,
            mode: "auto".to_owned(),
            name: None,
            output: Output {
                quick,
                ..Output::default()
            },
        }
    }

    #[test]
    fn loads_have_names_of_their_own_and_limits() {
        let loads = arguments(false, &[]).loads().unwrap();
        assert_eq!(loads.len(), SIZES.len() * CONNECTIONS.len() + 1);
        let names: BTreeSet<_> = loads.iter().map(place).collect();
        assert_eq!(names.len(), loads.len());
        assert!(names.contains("64 bytes, 1 connection"));
        assert!(arguments(true, &[0]).loads().is_err());
        assert!(arguments(true, &[1 << 20]).loads().is_err());
    }

    #[test]
    fn bars_are_for_small_requests_on_one_connection() {
        let mut results = Output::default().begin(1.0, &[]).unwrap();
        let loads = arguments(true, &[64, 128]).loads().unwrap();
        let mut latency_ns = Histogram::new(3).unwrap();
        latency_ns.record(10_000).unwrap();
        let answers = Answers {
            latency_ns,
            median_ns: 10_000,
            count: 1,
            elapsed: Duration::from_secs(1),
            joined: 1,
        };
        for load in &loads {
            for subject in Subject::ALL {
                note(&mut results, subject, load, &Ok(answers.clone()));
            }
        }
        let barred: Vec<_> = results.figures.iter().filter(|f| f.bar.is_some()).collect();
        assert_eq!(barred.len(), 4);
        assert!(barred.iter().all(|f| f.place == "64 bytes, 1 connection"));
        let busy = barred
            .iter()
            .find(|f| f.subject == "braid, busy" && f.quantity == "p50");
        assert!(
            !busy.unwrap().judge(&results.figures).unwrap().met,
            "as long as the kernel's"
        );
        // One of 32 connections was joined: that is said.
        let many = results
            .figures
            .iter()
            .find(|f| f.place.contains("32 connections"));
        assert!(many.unwrap().remarks[0].contains("1 of 32"));
        let curve = curve(&loads[0], Subject::Busy, &answers.latency_ns);
        assert!(
            curve.points.iter().all(|point| point.0 <= 50.0),
            "one sample says no more"
        );
    }
}
