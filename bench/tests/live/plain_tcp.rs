//! Clients that are not MPTCP, or that a hop makes so.

use braid_bench::failure;
use braid_bench::testbed::requirement::Requirement;
use braid_bench::testbed::{Config, Options, Result, Role};

use crate::support::{Subject, Transfer, testbed, transfer, turn};

const ECHO: [&str; 5] = ["echo-client", "--to", "10.77.1.2:7", "--bytes", "33554432"];

#[test]
fn a_tcp_client_is_served() -> Result<()> {
    let Some(_turn) = turn("plain TCP client", &[]) else {
        return Ok(());
    };
    let testbed = testbed(Options::default())?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    let subject = Subject::start(&testbed, &config)?;
    let mut args = ECHO.to_vec();
    args.push("--tcp");
    transfer(&testbed, &args)?.intact();

    // A program that knows nothing of us, on a host without MPTCP: what curl sends,
    // it gets back as a headerless answer, which does not end before curl does.
    testbed.run(Role::Peer, &["sysctl", "-qw", "net.mptcp.enabled=0"])?;
    let curl = [
        "curl",
        "-s",
        "-m",
        "2",
        "--http0.9",
        "http://10.77.1.2:7/there-and-back",
    ];
    let output = testbed
        .command(Role::Peer, &curl)
        .output()
        .map_err(|e| failure!("curl: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("GET /there-and-back HTTP/1.1\r\n"),
        "{output:?}"
    );

    if let Some(braidd) = subject.braid() {
        let counters = braidd.counters()?;
        assert_eq!(counters.get("MPCapableSYNRX"), None, "{counters:?}");
        assert_eq!(counters.get("PassiveOpens"), Some(&2), "{counters:?}");
    }
    Ok(())
}

/// An echo through a hop that strips what `filter` matches, and braid's counter that
/// must say why there is no MPTCP.
fn behind_a_stripping_hop(test: &str, filter: &[&str], reason: Option<&str>) -> Result<()> {
    let Some(_turn) = turn(test, &[Requirement::OptionStripping]) else {
        return Ok(());
    };
    let testbed = testbed(Options {
        hop: true,
        ..Options::default()
    })?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    let subject = Subject::start(&testbed, &config)?;
    testbed.strip_mptcp(filter, true)?;
    let stripped: Transfer = transfer(&testbed, &ECHO)?;
    stripped.intact();
    assert!(!stripped.report.transport.mptcp, "{stripped:?}");
    if let Some(braidd) = subject.braid() {
        let counters = braidd.counters()?;
        match reason {
            Some(reason) => assert_eq!(counters.get(reason), Some(&1), "{counters:?}"),
            None => assert_eq!(counters.get("MPCapableSYNRX"), None, "{counters:?}"),
        }
    }
    // The hop stops: the next connection is MPTCP again.
    testbed.strip_mptcp(filter, false)?;
    transfer(&testbed, &ECHO)?.intact_mptcp();
    Ok(())
}

#[test]
fn a_hop_that_strips_every_syn_leaves_tcp() -> Result<()> {
    behind_a_stripping_hop("option 30 off SYN", &["--tcp-flags", "SYN", "SYN"], None)
}

#[test]
fn a_hop_that_strips_the_syn_ack_makes_it_fall_back() -> Result<()> {
    behind_a_stripping_hop(
        "option 30 off SYN/ACK",
        &["--tcp-flags", "SYN,ACK", "SYN,ACK"],
        Some("MPCapableFallbackACK"),
    )
}

#[test]
fn a_hop_that_strips_all_but_syn_makes_it_fall_back() -> Result<()> {
    behind_a_stripping_hop(
        "option 30 off non-SYN",
        &["!", "--tcp-flags", "SYN", "SYN"],
        Some("MPCapableFallbackACK"),
    )
}
