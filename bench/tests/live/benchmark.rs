//! The live benchmarks, one short measurement of everything: that they measure what they say.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use braid_bench::benchmark::figure::Bench;
use braid_bench::benchmark::results::Results;
use braid_bench::failure;
use braid_bench::testbed::Result;
use braid_bench::testbed::requirement::Requirement;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{bench_program, braid_turn, wait_until};

#[test]
fn every_pair_is_measured_over_two_paths() -> Result<()> {
    let Some(_turn) = braid_turn("benchmark: every pair", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let name = format!("bt-{}-smoke", std::process::id());
    let json = std::env::temp_dir().join(format!("{name}.json"));
    let out = Command::new(bench_program())
        .args([
            "veth",
            "--only",
            "on-1500/2p/plain/up",
            "--seconds",
            "0.5",
            "--repeats",
            "1",
        ])
        .args(["--name", &name, "--json"])
        .arg(&json)
        .env(
            "BRAID_BIN_DIR",
            braid_bench::testbed::requirement::programs(),
        )
        .output()?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{stdout}{stderr}");
    let results = Results::load(&json)?;
    let _ = std::fs::remove_file(&json);
    assert_eq!(results.cells.len(), 4, "{stdout}{stderr}");
    for result in &results.cells {
        let [repeat] = &result.repeats[..] else {
            return Err(failure!("{result:?}\n{stderr}"));
        };
        assert!(repeat.mptcp, "fell back: {result:?}");
        assert_eq!(repeat.subflows, 2, "{result:?}");
        assert!(repeat.bytes > 1 << 20, "{result:?}");
        assert!(
            repeat.gbit_per_s > 0.0 && repeat.cpu.busy() > 0.0,
            "{result:?}"
        );
    }
    assert!(stdout.contains("× kernel"), "{stdout}");
    let left = Command::new("ip").args(["netns", "list"]).output()?;
    assert!(!String::from_utf8_lossy(&left.stdout).contains(&name));
    Ok(())
}

/// Runs a benchmark to its end; what it measured.
fn measure(name: &str, args: &[&str]) -> Result<Results> {
    let json = std::env::temp_dir().join(format!("{name}.json"));
    let out = Command::new(bench_program())
        .args(args)
        .args(["--repeats", "1", "--json"])
        .arg(&json)
        .env(
            "BRAID_BIN_DIR",
            braid_bench::testbed::requirement::programs(),
        )
        .output()?;
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.status.success(), "{args:?}: {stdout}{stderr}");
    let results = Results::load(&json)?;
    let _ = std::fs::remove_file(&json);
    for figure in &results.figures {
        assert!(!figure.values.is_empty(), "{figure:?}\n{stderr}");
        assert!(
            figure.values.iter().all(|value| value.is_finite()),
            "{figure:?}"
        );
    }
    let left = Command::new("ip").args(["netns", "list"]).output()?;
    assert!(!String::from_utf8_lossy(&left.stdout).contains(name));
    eprintln!("{stdout}");
    Ok(results)
}

/// The names of everyone who was measured.
fn subjects(results: &Results) -> BTreeSet<&str> {
    results
        .figures
        .iter()
        .map(|figure| &*figure.subject)
        .collect()
}

#[test]
fn every_lane_of_the_raw_port_carries_packets() -> Result<()> {
    let Some(_turn) = braid_turn("benchmark: pps", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let name = format!("bt-{}-pps", std::process::id());
    let results = measure(&name, &["pps", "--seconds", "0.1", "--name", &name])?;
    let rates = results
        .figures
        .iter()
        .filter(|figure| figure.quantity == "rate");
    let rates: Vec<f64> = rates.filter_map(|f| Some(f.spread()?.median)).collect();
    assert_eq!(rates.len(), 15);
    assert!(rates.iter().all(|rate| *rate > 0.0), "{rates:?}");
    Ok(())
}

#[test]
fn requests_are_answered_by_the_kernel_and_by_braid() -> Result<()> {
    let Some(_turn) = braid_turn("benchmark: rr", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let name = format!("bt-{}-rr", std::process::id());
    let args = [
        "rr",
        "--seconds",
        "0.2",
        "--bytes",
        "64,65536",
        "--connections",
        "1,8",
    ];
    let results = measure(&name, &[&args[..], &["--name", &name]].concat())?;
    let all = [
        "braid, adaptive",
        "braid, busy",
        "kernel",
        "kernel, application spins",
    ];
    assert_eq!(subjects(&results), BTreeSet::from(all));
    // A spinning application has one connection only: two sizes and the open loop.
    assert_eq!(results.curves.len(), 3 * 5 + 3);
    for curve in &results.curves {
        assert!(curve.points.len() > 3, "{curve:?}");
        assert!(
            curve.points.windows(2).all(|two| two[0].1 <= two[1].1),
            "{curve:?}"
        );
    }
    Ok(())
}

#[test]
fn connections_join_at_the_kernel_at_braid_and_between_engines() -> Result<()> {
    let Some(_turn) = braid_turn("benchmark: conn", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let name = format!("bt-{}-conn", std::process::id());
    let args = [
        "conn",
        "--seconds",
        "0.3",
        "--count",
        "200",
        "--idle",
        "200",
    ];
    let results = measure(&name, &[&args[..], &["--name", &name]].concat())?;
    let live = ["kernel to kernel", "kernel to braid"];
    let memory = ["braid to braid, memory link", "braid, each end"];
    let all: BTreeSet<_> = live.into_iter().chain(memory).collect();
    assert_eq!(subjects(&results), all);
    let heap = results
        .figures
        .iter()
        .find(|figure| figure.quantity == "heap");
    let heap_kib = heap
        .and_then(|f| f.spread())
        .map_or(0.0, |spread| spread.median);
    assert!(heap_kib > 0.1, "the program counts its heap: {heap_kib}");
    Ok(())
}

#[test]
fn every_verdict_of_the_program_has_its_price() -> Result<()> {
    let Some(_turn) = braid_turn("benchmark: steer", &[]) else {
        return Ok(());
    };
    let name = format!("bt-{}-steer", std::process::id());
    let results = measure(&name, &["steer", "--runs", "1000"])?;
    assert!(results.figures.len() > 10);
    assert!(
        results
            .figures
            .iter()
            .all(|figure| figure.bench == Bench::Steer)
    );
    Ok(())
}

fn namespaces_of(name: &str) -> Result<Vec<String>> {
    let list = Command::new("ip").args(["netns", "list"]).output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let ours = list.lines().filter(|line| line.starts_with(name));
    Ok(ours.map(str::to_owned).collect())
}

#[test]
fn a_signal_leaves_no_namespace() -> Result<()> {
    let needed = [Requirement::TwoCores];
    let Some(_turn) = braid_turn("benchmark: a signal leaves no namespace", &needed) else {
        return Ok(());
    };
    let name = format!("bt-{}-signal", std::process::id());
    let mut child = Command::new(bench_program())
        .args(["veth", "--only", "kernel-braid/on-1500/2p/plain/up"])
        .args(["--seconds", "60", "--repeats", "1", "--name", &name])
        .env(
            "BRAID_BIN_DIR",
            braid_bench::testbed::requirement::programs(),
        )
        .stderr(Stdio::null())
        .spawn()?;
    // Both namespaces, and braidd in one of them.
    let running = || -> Result<bool> {
        let pids = Command::new("ip")
            .args(["netns", "pids", &format!("{name}0-braid")])
            .output()?;
        Ok(namespaces_of(&name)?.len() == 2 && !pids.stdout.is_empty())
    };
    let begun = wait_until("a measurement", Duration::from_secs(30), running);
    let pid = i32::try_from(child.id()).map_err(|e| failure!("{e}"))?;
    kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| failure!("{e}"))?;
    let status = child.wait()?;
    begun?;
    assert_eq!(status.code(), Some(128 + Signal::SIGTERM as i32));
    assert_eq!(namespaces_of(&name)?, [""; 0]);
    assert!(!std::env::temp_dir().join(format!("{name}0")).exists());
    Ok(())
}
