//! Endpoints added, changed and removed while a connection lives; the kernel's monitor
//! and braid's must tell the same.

use std::time::Duration;

use braid_bench::failure;
use braid_bench::peer::client::ChatReport;
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, Process, Result, Role, Testbed};
use serde_json::Value;

use crate::support::{TRANSFER_TIMEOUT, braid_turn, client};

const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads lines until one has every needle.
fn line_with(monitor: &mut Process, needles: &[&str]) -> Result<String> {
    let mut seen = Vec::new();
    loop {
        let line = monitor
            .line(EVENT_TIMEOUT)
            .map_err(|e| failure!("no line with {needles:?} after {seen:#?}: {e}"))?
            .ok_or_else(|| failure!("the monitor ended after {seen:#?}"))?;
        if needles.iter().all(|needle| line.contains(needle)) {
            return Ok(line);
        }
        seen.push(line);
    }
}

/// Reads braid's events until one of that name.
fn event(monitor: &mut Process, name: &str) -> Result<Value> {
    let line = line_with(monitor, &[&format!("\"event\":\"{name}\"")])?;
    let line: Value = serde_json::from_str(&line).map_err(|e| failure!("{e} in {line}"))?;
    Ok(line["event"].clone())
}

#[test]
fn both_monitors_agree() -> Result<()> {
    let Some(_turn) = braid_turn("endpoints at run time", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let config = Config {
        endpoints: Vec::new(),
        ..Config::announcing(&testbed).service("echo", "10.77.1.2:7")
    };
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    let mut ours = braidd.monitor()?;
    let mut kernel = testbed.start(Role::Peer, "ip-monitor", &["ip", "mptcp", "monitor"])?;
    std::thread::sleep(Duration::from_millis(300));
    let mut chat = client(
        &testbed,
        &["chat", "--to", "10.77.1.2:7", "--seconds", "12"],
    )?;
    line_with(&mut kernel, &["ESTABLISHED", "daddr4=10.77.1.2"])?;
    let established = event(&mut ours, "established")?;
    assert_eq!(established["mptcp"], Value::Bool(true), "{established}");

    let address = Testbed::v4(Role::Braid, 2);
    braidd.endpoint_add(address, &["signal"])?;
    line_with(&mut kernel, &["ANNOUNCED", "daddr4=10.77.2.2"])?;
    line_with(
        &mut kernel,
        &["SF_ESTABLISHED", "daddr4=10.77.2.2", "backup=0"],
    )?;
    event(&mut ours, "echoed")?;
    let joined = event(&mut ours, "subflow_established")?;
    assert!(
        joined["local"]
            .as_str()
            .is_some_and(|a| a.starts_with("10.77.2.2:")),
        "{joined}"
    );

    braidd.endpoint_change(address, &["signal", "backup"])?;
    line_with(&mut kernel, &["SF_PRIO", "daddr4=10.77.2.2", "backup=1"])?;

    braidd.endpoint_del(address)?;
    line_with(&mut kernel, &["REMOVED"])?;
    line_with(&mut kernel, &["SF_CLOSED", "daddr4=10.77.2.2"])?;
    let closed = event(&mut ours, "subflow_closed")?;
    assert_eq!(closed["subflow"], joined["subflow"], "{closed}");

    // Added again: the address works again.
    braidd.endpoint_add(address, &["signal"])?;
    line_with(&mut kernel, &["SF_ESTABLISHED", "daddr4=10.77.2.2"])?;
    event(&mut ours, "subflow_established")?;

    let report: ChatReport = chat.json(TRANSFER_TIMEOUT)?;
    assert!(
        report.error.is_none() && report.transport.mptcp,
        "{report:?}"
    );
    line_with(&mut kernel, &["CLOSED"])?;
    event(&mut ours, "closed")?;
    Ok(())
}
