//! The live benchmark, one short measurement of each pair: that it measures what it says.

use std::process::{Command, Stdio};
use std::time::Duration;

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
