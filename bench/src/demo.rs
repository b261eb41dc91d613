//! The demonstration: a kernel MPTCP client sends a stream to braid's `echo` service
//! and reads it back over several paths, beside the same client with a kernel server.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::failure;
use crate::peer::client::Report;
use crate::testbed::requirement::{Requirement, programs};
use crate::testbed::{Braidd, Config, Options, PathShare, Result, Role, Testbed};

/// The least share of the bytes, each way, that every path must have carried.
const SHARE_MIN: f64 = 0.10;

/// What `braid-bench demo` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Bytes to send and to read back
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// TSO, GSO, GRO and checksum offload of the veth pairs
    #[arg(long, value_enum, default_value = "on")]
    offloads: Switch,
    /// Bytes on their way at a time, there and back
    #[arg(long, default_value_t = 1 << 20)]
    window: u64,
    /// Write everything that was measured to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Prefix of the namespaces
    #[arg(long)]
    name: Option<String>,
    /// `interface.mode` of braid's configuration
    #[arg(long)]
    mode: Option<String>,
}

/// On or off.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// One transfer.
#[derive(Clone, Debug, Serialize)]
struct Run {
    server: &'static str,
    report: Report,
    paths: Vec<PathShare>,
}

impl Run {
    fn hashes_equal(&self) -> bool {
        self.report.sha256_sent.is_some() && self.report.sha256_sent == self.report.sha256_received
    }

    fn every_path_used(&self) -> bool {
        self.paths.iter().all(|path| path.least() >= SHARE_MIN)
    }

    fn good(&self) -> bool {
        self.report.intact
            && self.hashes_equal()
            && self.report.transport.mptcp
            && self.every_path_used()
    }
}

#[derive(Debug, Serialize)]
struct Outcome {
    good: bool,
    bytes: u64,
    mtu: u32,
    offloads: bool,
    window_bytes: u64,
    braid: Run,
    kernel_before: Run,
    kernel_after: Run,
    /// braid's throughput by the mean of the kernel's two.
    ratio_to_kernel: f64,
    counters: Value,
    xsk: Value,
}

fn transfer(testbed: &Testbed, server: &'static str, arguments: &Arguments) -> Result<Run> {
    let to = format!("{}:7", Testbed::v4(Role::Braid, 1));
    let (bytes, window) = (arguments.bytes.to_string(), arguments.window.to_string());
    let before = testbed.traffic(Role::Peer)?;
    eprintln!("client → {server}: {bytes} bytes there and back …");
    let mut client = testbed.peer(
        Role::Peer,
        &programs().join("braid-bench"),
        &[
            "echo-client",
            "--to",
            &to,
            "--bytes",
            &bytes,
            "--window",
            &window,
            "--sha256",
        ],
    )?;
    let report: Report = client
        .json(Duration::from_secs(600))
        .map_err(|e| failure!("client of {server}: {e}"))?;
    let paths = PathShare::between(&before, &testbed.traffic(Role::Peer)?);
    Ok(Run {
        server,
        report,
        paths,
    })
}

fn kernel_server(testbed: &Testbed, arguments: &Arguments) -> Result<Run> {
    let _server = testbed.server(
        Role::Braid,
        &programs().join("braid-bench"),
        &["--listen", "[::]:7"],
    )?;
    transfer(testbed, "kernel", arguments)
}

fn measure(arguments: &Arguments) -> Result<Outcome> {
    for requirement in [
        Requirement::Root,
        Requirement::Mptcp,
        Requirement::XdpSockets,
        Requirement::Programs,
    ] {
        if let Some(why) = requirement.missing() {
            return Err(failure!("{why}"));
        }
    }
    let options = Options {
        offloads: arguments.offloads == Switch::On,
        announce: Some(Role::Braid),
        ..Options::default()
    };
    let testbed = match &arguments.name {
        Some(name) => Testbed::named(name, options)?,
        None => Testbed::new(options)?,
    };
    let kernel_before = kernel_server(&testbed, arguments)?;
    let config = Config {
        mode: arguments.mode.clone(),
        ..Config::announcing(&testbed).service("echo", format!("{}:7", Testbed::v4(Role::Braid, 1)))
    };
    let mut braidd = Braidd::start(&testbed, &programs(), &config)?;
    let braid = transfer(&testbed, "braid", arguments);
    let braid = braid.map_err(|e| failure!("{e}\nbraidd says:\n{}", braidd.process().stderr()))?;
    let counters = braidd.ask(&["counters"])?;
    let xsk = braidd.ask(&["xsk"])?;
    braidd.stop()?;
    drop(braidd);
    let kernel_after = kernel_server(&testbed, arguments)?;
    let kernel = f64::midpoint(
        kernel_before.report.gbit_per_s,
        kernel_after.report.gbit_per_s,
    );
    Ok(Outcome {
        good: braid.good(),
        bytes: arguments.bytes,
        mtu: testbed.options().mtu,
        offloads: testbed.options().offloads,
        window_bytes: arguments.window,
        ratio_to_kernel: braid.report.gbit_per_s / kernel,
        braid,
        kernel_before,
        kernel_after,
        counters,
        xsk,
    })
}

fn screen(outcome: &Outcome) -> String {
    let mut out = String::new();
    let run = &outcome.braid;
    let report = &run.report;
    let mark = |good: bool| if good { "ok  " } else { "FAIL" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "\nA kernel MPTCP client sent {} MiB to braid's echo service and read it back:\n\
         {} paths (veth, MTU {}, offloads {}), {} KiB on their way at a time.\n",
        outcome.bytes >> 20,
        run.paths.len(),
        outcome.mtu,
        if outcome.offloads { "on" } else { "off" },
        outcome.window_bytes >> 10,
    );
    let _ = writeln!(
        out,
        "{} SHA-256 sent      {}\n     SHA-256 received  {}",
        mark(report.intact && run.hashes_equal()),
        report.sha256_sent.as_deref().unwrap_or("-"),
        report.sha256_received.as_deref().unwrap_or("-"),
    );
    let _ = writeln!(
        out,
        "{} MPTCP to the end  {}, {} subflows",
        mark(report.transport.mptcp),
        if report.transport.mptcp { "yes" } else { "no" },
        u16::from(report.transport.extra_subflows) + 1,
    );
    for path in &run.paths {
        let _ = writeln!(
            out,
            "{} path {}            there {:5.1} %   back {:5.1} %",
            mark(path.least() >= SHARE_MIN),
            path.path,
            path.there_share * 100.0,
            path.back_share * 100.0,
        );
    }
    let _ = writeln!(
        out,
        "\n     braid             {:6.2} Gb/s each way at the same time, {:.2} s, longest gap {:.0} ms",
        report.gbit_per_s, report.seconds, report.gap.longest_ms
    );
    for kernel in [&outcome.kernel_before, &outcome.kernel_after] {
        let _ = writeln!(
            out,
            "     kernel instead    {:6.2} Gb/s each way at the same time, {:.2} s{}",
            kernel.report.gbit_per_s,
            kernel.report.seconds,
            if kernel.report.intact {
                ""
            } else {
                "  (not intact!)"
            },
        );
    }
    let _ = writeln!(
        out,
        "     ratio             {:6.2}\n",
        outcome.ratio_to_kernel
    );
    if let Some(error) = &report.error {
        let _ = writeln!(out, "FAIL {error}");
    }
    out
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let outcome = measure(arguments).map_err(io::Error::other)?;
    print!("{}", screen(&outcome));
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_vec_pretty(&outcome)?)?;
        println!("details: {}", file.display());
    }
    Ok(if outcome.good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
