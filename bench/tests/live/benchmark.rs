//! The live benchmark, one short measurement of each pair: that it measures what it says.

use std::process::Command;

use braid_bench::benchmark::results::Results;
use braid_bench::failure;
use braid_bench::testbed::Result;
use braid_bench::testbed::requirement::Requirement;

use crate::support::{bench_program, braid_turn};

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
