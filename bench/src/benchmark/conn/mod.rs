//! Connections with one join each: how many per second, what one costs the server's end, and
//! what an idle one holds.
//!
//! | file | one idea |
//! |---|---|
//! | [`kernel`] | kernel clients that open, join, ask once and close; the kernel's server |
//! | [`engines`] | two of braid's engines on a memory link |

pub mod engines;
pub mod kernel;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use self::kernel::Opened;
use super::figure::{Bar, Bench, Figure, record};
use super::machine::CpuSeconds;
use super::output::{Output, foreign_load, require};
use super::pinned::Pinned;
use super::progress::Progress;
use super::results::Results;
use super::transfer::{BRAID_CORE, PEER_CORE};
use crate::failure;
use crate::testbed::requirement::{Requirement, programs};
use crate::testbed::{Braidd, Config, Options, Result, Role, Testbed};

const PORT: u16 = 7;

/// What `braid-bench conn` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Of each live measurement [default: 3, quick: 1]
    #[arg(long)]
    seconds: Option<f64>,
    /// Connections of a measurement on a memory link [default: 20000, quick: 5000]
    #[arg(long)]
    count: Option<u32>,
    /// Idle connections that are weighed [default: 100000, quick: 10000]
    #[arg(long)]
    idle: Option<u32>,
    /// Only what needs no root: the engines on a memory link
    #[arg(long)]
    memory_only: bool,
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

/// Who accepts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Server {
    Kernel,
    Braid,
}

impl Server {
    const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel to kernel",
            Self::Braid => "kernel to braid",
        }
    }
}

/// One live measurement.
#[derive(Clone, Debug)]
struct Live {
    opened: Opened,
    /// Of the server's core, per connection.
    server_us: f64,
    /// Of the whole machine, per connection.
    machine_us: f64,
}

fn address() -> SocketAddr {
    SocketAddr::new(Testbed::v4(Role::Braid, 1), PORT)
}

/// Everything that a namespace receives is worked on by its end's core: without this a
/// veth's receive side would run on the sender's, and nobody could tell whose time it is.
fn receive_on_own_core(testbed: &Testbed, role: Role, core: usize) -> Result<()> {
    for path in 1..=testbed.options().paths {
        let interface = Testbed::interface(role, path);
        let file = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
        let write = format!("echo {:x} >{file}", 1_u64 << core);
        testbed.run(role, &["sh", "-c", &write])?;
    }
    Ok(())
}

fn testbed(name: &str) -> Result<Testbed> {
    let testbed = Testbed::named(name, Options::default())?;
    for (role, core) in [(Role::Peer, PEER_CORE), (Role::Braid, BRAID_CORE)] {
        let settings = [
            "net.ipv4.tcp_congestion_control=reno",
            "net.ipv4.ip_local_port_range=1024 65535",
            // Addresses and ports of the connections before last are taken again.
            "net.ipv4.tcp_tw_reuse=1",
            // A client that closes keeps its port for a minute, and some seconds of ten
            // thousand connections with two ports each leave none: the search for a free
            // one would be all that is measured from the second repeat on. Sockets beyond so
            // many do without their TIME-WAIT.
            "net.ipv4.tcp_max_tw_buckets=1024",
        ];
        for setting in settings {
            testbed.run(role, &["sysctl", "-q", "-w", setting])?;
        }
        receive_on_own_core(&testbed, role, core)?;
    }
    Ok(testbed)
}

/// Keeps every thread of a process, and so its children's, on a core. Workers pin
/// themselves and are on it already.
fn pin_process(pid: u32, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).map_err(|e| failure!("core {core}: {e}"))?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        if let Ok(thread) = name.to_string_lossy().parse() {
            // A thread that has just ended needs none.
            let _ = sched_setaffinity(Pid::from_raw(thread), &set);
        }
    }
    Ok(())
}

/// Clients against whatever serves.
fn clients(testbed: &Testbed, duration: Duration) -> Result<Live> {
    let mut opened = None;
    let (all, own) = (CpuSeconds::now()?, CpuSeconds::now_of(BRAID_CORE)?);
    std::thread::scope(|scope| {
        let mut client = Pinned::start(scope, testbed, Role::Peer, PEER_CORE, |_, ready| {
            ready();
            opened = Some(kernel::open(address(), duration)?);
            Ok(())
        })?;
        client.finish()
    })?;
    let (all, own) = (
        CpuSeconds::now()?.since(all),
        CpuSeconds::now_of(BRAID_CORE)?.since(own),
    );
    let opened = opened.ok_or_else(|| failure!("the clients said nothing"))?;
    if opened.connections == 0 {
        let (n, why) = (opened.failures, &opened.first_failure);
        return Err(failure!("no connection; {n} failed, the first: {why}"));
    }
    let each = 1e6 / opened.connections as f64;
    Ok(Live {
        server_us: own.busy() * each,
        machine_us: all.busy() * each,
        opened,
    })
}

fn live(testbed: &Testbed, server: Server, mode: &str, duration: Duration) -> Result<Live> {
    if server == Server::Kernel {
        let _announced = super::rr::Announced::new(testbed)?;
        return std::thread::scope(|scope| {
            let mut serving =
                Pinned::start(scope, testbed, Role::Braid, BRAID_CORE, |stop, ready| {
                    kernel::serve(super::rr::every_address(PORT), stop, ready)
                })?;
            let live = clients(testbed, duration);
            serving.finish()?;
            live
        });
    }
    let config = Config {
        cores: vec![BRAID_CORE],
        mode: Some(mode.to_owned()),
        more: "\n[mptcp]\ncongestion = \"reno\"\n".to_owned(),
        ..Config::announcing(testbed)
    };
    let config = config.service("echo", address().to_string());
    let mut braidd = Braidd::start(testbed, &programs(), &config)?;
    pin_process(braidd.process().pid(), BRAID_CORE)?;
    pin_process(braidd.dataplane_pid()?, BRAID_CORE)?;
    clients(testbed, duration)
}

const RATE: &str = "connections with one join";
const COST: &str = "what a connection costs";

fn note_live(results: &mut Results, server: Server, outcome: &Result<Live>) {
    let yardstick = server == Server::Kernel;
    let figure = |place, what, more, bar| {
        Figure::new(Bench::Conn, place, server.name(), what, more)
            .as_yardstick(yardstick)
            .with_bar(if yardstick { None } else { bar })
    };
    let figures = &mut results.figures;
    let rate = figure(RATE, ("rate", "1/s"), true, Some(Bar::Ratio(1.0)));
    let live = match outcome {
        Ok(live) => live,
        Err(e) => return record(figures, rate, Err(format!("failed: {e}"))),
    };
    let per_s = live.opened.connections as f64 / live.opened.elapsed.as_secs_f64();
    if live.opened.failures > 0 {
        let (n, why) = (live.opened.failures, &live.opened.first_failure);
        record(
            figures,
            rate.clone(),
            Err(format!("{n} failed, the first: {why}")),
        );
    }
    record(figures, rate, Ok(per_s));
    let cost = figure(COST, ("server's end", "µs"), false, Some(Bar::Ratio(0.5)));
    record(figures, cost, Ok(live.server_us));
    let cost = figure(COST, ("whole machine", "µs"), false, None);
    record(figures, cost, Ok(live.machine_us));
}

fn note_churn(results: &mut Results, outcome: &Result<engines::Churn>) {
    let subject = "braid to braid, memory link";
    let figure = |place, what, more, bar| {
        Figure::new(Bench::Conn, place, subject, what, more).with_bar(Some(bar))
    };
    let rate = figure(RATE, ("rate", "1/s"), true, Bar::Ratio(2.0));
    match outcome {
        Ok(churn) => {
            record(&mut results.figures, rate, Ok(churn.connections_per_s));
            let cost = figure(COST, ("server's end", "µs"), false, Bar::Ratio(0.5));
            record(&mut results.figures, cost, Ok(churn.us_per_connection));
        }
        Err(e) => record(&mut results.figures, rate, Err(format!("failed: {e}"))),
    }
}

/// Heap of an idle connection with two subflows, buffers aside.
const IDLE_LIMIT_KIB: f64 = 4.0;

fn note_idle(results: &mut Results, count: u32, outcome: &Result<engines::Idle>) {
    let place = format!("{count} idle connections with two subflows");
    let figure = Figure::new(
        Bench::Conn,
        place,
        "braid, each end",
        ("heap", "KiB"),
        false,
    )
    .with_bar(Some(Bar::Value(IDLE_LIMIT_KIB)));
    let value = match outcome {
        Ok(idle) => Ok(idle.bytes_per_connection / 1024.0),
        Err(e) => Err(format!("failed: {e}")),
    };
    record(&mut results.figures, figure, value);
}

fn run_all(arguments: &Arguments) -> Result<Results> {
    let (output, quick) = (&arguments.output, arguments.output.quick);
    if !arguments.memory_only {
        require(&[
            Requirement::Root,
            Requirement::Mptcp,
            Requirement::XdpSockets,
            Requirement::TwoCores,
            Requirement::Programs,
        ])?;
    }
    let seconds = arguments.seconds.unwrap_or(if quick { 1.0 } else { 3.0 });
    if !(0.05..=3600.0).contains(&seconds) {
        return Err(failure!("--seconds: 0.05 to 3600"));
    }
    let count = arguments.count.unwrap_or(if quick { 5000 } else { 20_000 });
    let idle = arguments
        .idle
        .unwrap_or(if quick { 10_000 } else { 100_000 });
    let repeats = output.repeats()?;
    let mut results = output.begin(
        seconds,
        &[
            "a connection: handshake, 64 bytes and their echo, one join, close; 64 at a time",
            "live: clients are the kernel's, on core 0; what a namespace receives is worked on \
             by its own core (RPS), so that the server's end is the time of core 1",
            "memory link: one core does both ends, half of its processor time is one end's",
            "idle: heap of both engines by twice the number of connections, frames aside",
        ],
    )?;
    results.protocol.mode.clone_from(&arguments.mode);
    let live_steps = if arguments.memory_only { 0 } else { 2 };
    let progress = Progress::new((1 + live_steps) * repeats + 1);
    if let Some(warning) = foreign_load()? {
        progress.say(&warning);
    }
    let bed = if arguments.memory_only {
        None
    } else {
        let name = arguments.name.clone();
        Some(testbed(
            &name.unwrap_or_else(|| format!("bt-{}-c", std::process::id())),
        )?)
    };
    for at in 0..repeats {
        let mut servers = [Server::Kernel, Server::Braid];
        servers.rotate_left(at % 2);
        for server in bed.iter().flat_map(|_| servers) {
            let Some(bed) = &bed else { break };
            progress.begin(server.name());
            let outcome = live(
                bed,
                server,
                &arguments.mode,
                Duration::from_secs_f64(seconds),
            );
            progress.end(&match &outcome {
                Ok(live) => format!("{}: {} connections", server.name(), live.opened.connections),
                Err(e) => format!("{}: failed: {e}", server.name()),
            });
            note_live(&mut results, server, &outcome);
        }
        progress.begin("memory link");
        let outcome = engines::churn(count);
        progress.end(&match &outcome {
            Ok(churn) => format!("memory link: {:.0} connections/s", churn.connections_per_s),
            Err(e) => format!("memory link: failed: {e}"),
        });
        note_churn(&mut results, &outcome);
    }
    progress.begin("idle connections");
    let outcome = engines::idle(idle);
    progress.end(&match &outcome {
        Ok(idle) => format!("idle: {:.0} bytes each", idle.bytes_per_connection),
        Err(e) => format!("idle: failed: {e}"),
    });
    note_idle(&mut results, idle, &outcome);
    Ok(results)
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let results = run_all(arguments).map_err(io::Error::other)?;
    arguments.output.finish(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_beside_the_kernels_and_have_their_bars() {
        let mut results = Output::default().begin(1.0, &[]).unwrap();
        let live = |connections, failures| Live {
            opened: Opened {
                connections,
                elapsed: Duration::from_secs(1),
                failures,
                first_failure: "no <answer>".to_owned(),
            },
            server_us: 1e6 / connections as f64,
            machine_us: 2e6 / connections as f64,
        };
        note_live(&mut results, Server::Kernel, &Ok(live(1000, 0)));
        note_live(&mut results, Server::Braid, &Ok(live(1500, 1)));
        let churn = engines::Churn {
            connections_per_s: 30_000.0,
            us_per_connection: 16.0,
        };
        note_churn(&mut results, &Ok(churn));
        let idle = engines::Idle {
            bytes_per_connection: 5000.0,
            frames: 0,
            flows: 20,
        };
        note_idle(&mut results, 10, &Ok(idle));
        let all = &results.figures;
        let met = |subject: &str, quantity: &str| {
            let figure = all
                .iter()
                .find(|f| f.subject == subject && f.quantity == quantity);
            figure.unwrap().judge(all).unwrap().met
        };
        assert!(met("kernel to braid", "rate"));
        assert!(
            !met("kernel to braid", "server's end"),
            "two thirds is not half"
        );
        assert!(met("braid to braid, memory link", "server's end"));
        assert!(!met("braid, each end", "heap"));
        assert!(
            all.iter()
                .any(|f| f.remarks == ["1 failed, the first: no <answer>"])
        );
    }
}
