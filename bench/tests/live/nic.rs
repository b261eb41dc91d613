//! `scripts/testbed-nic` and `braid-bench nic` on veths: what is prepared is restored, and
//! both hosts measure every pair.

use std::path::{Path, PathBuf};
use std::time::Duration;

use braid_bench::benchmark::results::Results;
use braid_bench::testbed::process::output;
use braid_bench::testbed::requirement::{Requirement, programs};
use braid_bench::testbed::{Options, Result, Role, Testbed};

use crate::support::{bench_program, braid_turn, kernel_turn};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/testbed-nic")
}

fn queues(testbed: &Testbed) -> Result<Vec<String>> {
    let interface = Testbed::interface(Role::Braid, 1);
    let text = testbed.run(Role::Braid, &["ethtool", "-l", &interface])?;
    let now = text.split("Current").nth(1).unwrap_or_default();
    let counts = now.lines().filter(|line| line.starts_with(['R', 'T']));
    Ok(counts
        .map(|line| line.split_whitespace().collect())
        .collect())
}

#[test]
fn what_is_prepared_is_restored() -> Result<()> {
    let Some(_turn) = kernel_turn("nic: prepare and restore", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options {
        queues: 2,
        ..Options::default()
    })?;
    let interface = Testbed::interface(Role::Braid, 1);
    let one = ["ethtool", "-L", &interface, "rx", "1", "tx", "1"];
    testbed.run(Role::Braid, &one)?;
    let limits = || testbed.run(Role::Braid, &["ip", "mptcp", "limits", "show"]);
    let (queues_before, limits_before) = (queues(&testbed)?, limits()?);
    let state = testbed.directory().join("nic-state");
    let (script, state_text) = (script().display().to_string(), state.display().to_string());
    let run = |more: &[&str]| {
        let mut argv = vec![&*script];
        argv.extend(more);
        argv.extend(["--state", &state_text]);
        testbed.run(Role::Braid, &argv)
    };
    // Huge pages are the whole host's.
    let prepare = [
        "prepare",
        "--interfaces",
        &interface,
        "--cores",
        "0,1",
        "--hugepages",
        "0",
    ];
    let said = run(&[&prepare[..], &["--dry-run"]].concat())?;
    assert!(
        said.contains(&format!("ethtool -L {interface} rx 2 tx 2")),
        "{said}"
    );
    assert!(said.contains("ntuple-filters cannot be changed"), "{said}");
    assert_eq!(
        (queues(&testbed)?, state.exists()),
        (queues_before.clone(), false)
    );

    run(&prepare)?;
    assert_ne!(queues(&testbed)?, queues_before);
    assert!(limits()?.contains("subflows 8"));
    let again = run(&prepare).unwrap_err();
    assert!(again.0.contains("restore first"), "{again}");
    let said = run(&["restore", "--dry-run"])?;
    assert!(said.contains("rx 1 tx 1") && state.exists(), "{said}");
    run(&["restore"])?;
    assert_eq!(
        (queues(&testbed)?, limits()?),
        (queues_before, limits_before)
    );
    assert!(!state.exists());
    assert!(run(&["restore"])?.contains("nothing to restore"));
    Ok(())
}

#[test]
fn every_pair_is_measured_between_two_hosts() -> Result<()> {
    let Some(_turn) = braid_turn("nic: every pair", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    for role in [Role::Peer, Role::Braid] {
        let limits = [
            "ip",
            "mptcp",
            "limits",
            "set",
            "subflows",
            "8",
            "add_addr_accepted",
            "8",
        ];
        testbed.run(role, &limits)?;
    }
    let program = bench_program().display().to_string();
    let control = format!("{}:7000", Testbed::v4(Role::Peer, 1));
    let programs = format!("BRAID_BIN_DIR={}", programs().display());
    let agent = [
        "env", &programs, &program, "nic", "agent", "--listen", &control,
    ];
    let mut agent = testbed.start(Role::Peer, "agent", &agent)?;
    agent.expect_line("ready", Duration::from_secs(10))?;
    let json = testbed.directory().join("nic.json");
    let both = |role| {
        let interfaces = [1, 2].map(|path| Testbed::interface(role, path)).join(",");
        let addresses = [1, 2]
            .map(|path| Testbed::v4(role, path).to_string())
            .join(",");
        (interfaces, addresses)
    };
    let (near, far) = (both(Role::Braid), both(Role::Peer));
    let mut command = testbed.command(Role::Braid, &["env", &programs, &program, "nic", "run"]);
    command
        .args([
            "--agent",
            &control,
            "--interfaces",
            &near.0,
            "--addresses",
            &near.1,
        ])
        .args(["--far-interfaces", &far.0, "--far-addresses", &far.1])
        .args(["--core", "1", "--far-core", "0", "--only", "plain/up"])
        .args(["--seconds", "0.5", "--repeats", "1", "--json"])
        .arg(&json);
    let said = output(&mut command)?;
    eprintln!("{said}");
    let results = Results::load(&json)?;
    let rates = results
        .figures
        .iter()
        .filter(|figure| figure.unit == "Gb/s");
    let rates: Vec<_> = rates.map(|f| (&*f.subject, f.values.len())).collect();
    let all = [
        "kernel-kernel",
        "kernel-braid",
        "braid-kernel",
        "braid-braid",
    ];
    assert_eq!(rates, all.map(|pair| (pair, 1)));
    let left = testbed.run(Role::Peer, &["ip", "mptcp", "endpoint", "show"])?;
    assert_eq!(left.trim(), "", "announced addresses are withdrawn");
    Ok(())
}
