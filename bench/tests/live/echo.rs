//! A kernel MPTCP client sends to `echo` and reads it back over two paths.

use braid_bench::testbed::{Config, Options, Result};

use crate::support::{Subject, testbed, transfer, turn};

fn there_and_back(offloads: bool) -> Result<()> {
    let options = Options {
        offloads,
        ..Options::default()
    };
    in_mode(options, None)
}

fn in_mode(options: Options, mode: Option<&str>) -> Result<()> {
    let testbed = testbed(options)?;
    let config = Config {
        mode: mode.map(str::to_owned),
        ..Config::announcing(&testbed).service("echo", "10.77.1.2:7")
    };
    let subject = Subject::start(&testbed, &config)?;
    let bytes = (256_u64 << 20).to_string();
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--bytes",
        &bytes,
        "--window",
        "1048576",
        "--sha256",
    ];
    let transfer = transfer(&testbed, &args)?;
    transfer.intact_mptcp().on_every_path();
    assert_eq!(transfer.report.sha256_sent, transfer.report.sha256_received);
    if let Some(braidd) = subject.braid() {
        let counters = braidd.counters()?;
        assert_eq!(counters.get("MPCapableSYNRX"), Some(&1), "{counters:?}");
        assert_eq!(counters.get("MPJoinAckRx"), Some(&1), "{counters:?}");
        assert_eq!(counters.get("InCsumErrors"), None, "{counters:?}");
        assert_eq!(
            counters.get("BytesDelivered"),
            Some(&(256 << 20)),
            "{counters:?}"
        );
    }
    Ok(())
}

#[test]
fn comes_back_intact_over_both_paths_with_offloads() -> Result<()> {
    let Some(_turn) = turn("echo with offloads", &[]) else {
        return Ok(());
    };
    there_and_back(true)
}

#[test]
fn comes_back_intact_over_both_paths_without_offloads() -> Result<()> {
    let Some(_turn) = turn("echo without offloads", &[]) else {
        return Ok(());
    };
    there_and_back(false)
}

/// Packets that no frame holds: they come and go in several.
fn jumbo(mode: &str) -> Result<()> {
    let options = Options {
        offloads: false,
        mtu: 9000,
        ..Options::default()
    };
    in_mode(options, Some(mode))
}

#[test]
fn comes_back_intact_in_packets_of_9000_bytes() -> Result<()> {
    let Some(_turn) = turn("echo, MTU 9000", &[]) else {
        return Ok(());
    };
    jumbo("auto")
}

#[test]
fn comes_back_intact_in_packets_of_9000_bytes_in_native_mode() -> Result<()> {
    let Some(_turn) = turn("echo, MTU 9000, native", &[]) else {
        return Ok(());
    };
    jumbo("native")
}
