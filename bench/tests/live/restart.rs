//! SIGKILL: to braidd, then to the dataplane.

use std::time::{Duration, Instant};

use braid_bench::peer::client::{ChatReport, Report};
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, Process, Result, Role, Testbed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{TRANSFER_TIMEOUT, bench_program, braid_turn, client, transfer, wait_until};

/// Somebody else's TCP on braid's interface may wait so long for an answer.
const UNNOTICED_MS: f64 = 300.0;

#[test]
fn connections_survive_braidd_and_service_survives_the_dataplane() -> Result<()> {
    let Some(_turn) = braid_turn("SIGKILL", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    let mut braidd = Braidd::start(&testbed, &programs(), &config)?;
    // The kernel's own service on the same interface and address.
    let _shell = testbed.server(
        Role::Braid,
        &bench_program(),
        &["--listen", "10.77.1.2:22", "--tcp"],
    )?;
    let mut other = client(
        &testbed,
        &["chat", "--to", "10.77.1.2:22", "--tcp", "--seconds", "14"],
    )?;

    // braidd dies; a new one adopts what lives.
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--seconds",
        "6",
        "--window",
        "1048576",
    ];
    let mut load = client(&testbed, &args)?;
    std::thread::sleep(Duration::from_millis(1500));
    let dataplane = braidd.dataplane_pid()?;
    braidd.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    braidd.restart()?;
    assert_eq!(
        braidd.dataplane_pid()?,
        dataplane,
        "the dataplane must be the same"
    );
    assert_eq!(braidd.conns()?.len(), 1);
    let report: Report = load.json(TRANSFER_TIMEOUT)?;
    eprintln!("{report:?}");
    assert!(report.intact && report.transport.mptcp, "{report:?}");
    assert!(report.gap.longest_ms < UNNOTICED_MS, "{report:?}");

    // The dataplane dies; braidd starts another.
    let victim = i32::try_from(dataplane).unwrap_or(i32::MAX);
    kill(Pid::from_raw(victim), Signal::SIGKILL)
        .map_err(|e| braid_bench::failure!("kill {victim}: {e}"))?;
    let killed = Instant::now();
    wait_until("a new dataplane serves", Duration::from_secs(1), || {
        Ok(braidd.dataplane_pid().is_ok_and(|pid| pid != dataplane))
    })?;
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--bytes",
        "67108864",
        "--window",
        "1048576",
    ];
    transfer(&testbed, &args)?.intact_mptcp().on_every_path();
    eprintln!("64 MiB echoed {:?} after the SIGKILL", killed.elapsed());

    let report: ChatReport = other.json(TRANSFER_TIMEOUT)?;
    eprintln!("{report:?}");
    assert!(report.error.is_none() && report.rounds > 100, "{report:?}");
    assert!(report.worst_ms < UNNOTICED_MS, "{report:?}");
    Ok(())
}

/// A braidd with one connection, which goes on until it is stopped.
fn under_load(testbed: &Testbed) -> Result<(Braidd<'_>, Process)> {
    let config = Config::announcing(testbed).service("echo", "10.77.1.2:7");
    let braidd = Braidd::start(testbed, &programs(), &config)?;
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--seconds",
        "60",
        "--window",
        "1048576",
    ];
    let load = client(testbed, &args)?;
    wait_until("a connection", Duration::from_secs(5), || {
        Ok(!braidd.conns()?.is_empty())
    })?;
    Ok((braidd, load))
}

#[test]
fn a_second_sigterm_resets_what_the_first_one_waits_for() -> Result<()> {
    let Some(_turn) = braid_turn("SIGTERM", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let (mut braidd, mut load) = under_load(&testbed)?;
    let dataplane = braidd.dataplane_pid()?;
    braidd.process().signal(Signal::SIGTERM)?;
    assert!(
        braidd.process().wait(Duration::from_secs(1)).is_err(),
        "the first SIGTERM waits for the connection"
    );
    let status = braidd.stop()?;
    assert!(status.success(), "{status}");
    assert!(!is_alive(dataplane), "the dataplane goes with braidd");
    let report: Report = load.json(Duration::from_secs(2))?;
    assert!(report.error.is_some(), "the peer is told: {report:?}");
    Ok(())
}

#[test]
fn a_dataplane_that_drains_is_not_taken_over() -> Result<()> {
    let Some(_turn) = braid_turn("SIGTERM, then SIGKILL", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let (mut braidd, _load) = under_load(&testbed)?;
    let drained = braidd.dataplane_pid()?;
    braidd.process().signal(Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(300));
    braidd.kill()?;
    assert!(is_alive(drained), "it drains without braidd");
    // Waits for its end, then starts one that serves.
    braidd.restart()?;
    assert_ne!(braidd.dataplane_pid()?, drained);
    assert!(!is_alive(drained));
    let args = ["echo-client", "--to", "10.77.1.2:7", "--bytes", "1048576"];
    transfer(&testbed, &args)?.intact_mptcp();
    Ok(())
}

/// Runs, and is not only unreaped by somebody else.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
