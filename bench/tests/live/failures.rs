//! In mid-transfer a path fails and comes back.

use std::time::{Duration, Instant};

use braid_bench::peer::client::Report;
use braid_bench::testbed::topology::Traffic;
use braid_bench::testbed::{Config, Options, Result, Role, Testbed};

use crate::support::{Subject, TRANSFER_TIMEOUT, client, testbed, turn, wait_until};

/// The longest time without a delivered byte.
const GAP_MAX_MS: f64 = 3000.0;
/// The path must carry data again so soon after it is back.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// How long the path is away.
const AWAY: Duration = Duration::from_secs(3);
/// More than probes and acknowledgements of a path without data.
const DATA_BYTES: u64 = 200_000;

#[derive(Copy, Clone, Debug)]
enum Failure {
    /// The peer sets its interface down.
    PeerLink,
    /// braid's own interface is set down, with frames in its TX ring.
    OwnLink,
    /// Everything vanishes, no link changes.
    Blackhole,
}

#[derive(Copy, Clone, Debug)]
enum Direction {
    /// The client sends to `echo`, and reads back.
    ToBraid,
    /// The client reads from `source`.
    FromBraid,
}

fn switch(testbed: &Testbed, failure: Failure, path: u8, works: bool) -> Result<()> {
    match failure {
        Failure::PeerLink => testbed.link(Role::Peer, path, works),
        Failure::OwnLink => testbed.link(Role::Braid, path, works),
        Failure::Blackhole => testbed.blackhole(path, !works),
    }
}

fn carried(testbed: &Testbed, path: u8, direction: Direction) -> Result<u64> {
    let traffic: Traffic = testbed.traffic(Role::Peer)?[usize::from(path) - 1];
    Ok(match direction {
        Direction::ToBraid => traffic.tx_bytes,
        Direction::FromBraid => traffic.rx_bytes,
    })
}

fn path_fails(failure: Failure, direction: Direction, path: u8) -> Result<()> {
    let test = format!("{failure:?} {direction:?} path {path}");
    let Some(_turn) = turn(&test, &[]) else {
        return Ok(());
    };
    let testbed = testbed(Options {
        hop: matches!(failure, Failure::Blackhole),
        ..Options::default()
    })?;
    let config = Config::announcing(&testbed)
        .service("echo", "10.77.1.2:7")
        .service("source", "10.77.1.2:19");
    let subject = Subject::start(&testbed, &config)?;
    let mut client = match direction {
        Direction::ToBraid => client(
            &testbed,
            &[
                "echo-client",
                "--to",
                "10.77.1.2:7",
                "--seconds",
                "12",
                "--window",
                "1048576",
            ],
        )?,
        Direction::FromBraid => client(
            &testbed,
            &["download", "--to", "10.77.1.2:19", "--seconds", "12"],
        )?,
    };
    let start = Instant::now();
    std::thread::sleep(Duration::from_millis(1000));
    let at_start = carried(&testbed, path, direction)?;
    wait_until(
        "the path carries data before it fails",
        Duration::from_secs(3),
        || Ok(carried(&testbed, path, direction)? > at_start + DATA_BYTES),
    )?;
    switch(&testbed, failure, path, false)?;
    std::thread::sleep(AWAY);
    switch(&testbed, failure, path, true)?;
    let at_return = carried(&testbed, path, direction)?;
    let recovery = wait_until("the path carries data again", RECOVERY_MAX, || {
        Ok(carried(&testbed, path, direction)? > at_return + DATA_BYTES)
    });
    eprintln!("{test}: recovery {recovery:?}, at {:?}", start.elapsed());
    let report: Report = client.json(TRANSFER_TIMEOUT)?;
    eprintln!("{test}: {report:?}");
    assert!(report.intact, "{report:?}");
    assert!(report.transport.mptcp, "{report:?}");
    assert!(report.gap.longest_ms <= GAP_MAX_MS, "{report:?}");
    recovery?;
    if let Some(braidd) = subject.braid() {
        let counters = braidd.counters()?;
        // The story: something was sent again, on this path or on the other.
        let again = counters.get("MPTCPRetrans").copied().unwrap_or(0)
            + counters.get("RetransSegs").copied().unwrap_or(0);
        assert!(again > 0, "{counters:?}");
        if matches!(failure, Failure::OwnLink) {
            assert!(
                counters.contains_key("TxNoCarrier") || again > 0,
                "{counters:?}"
            );
        }
        assert_eq!(braidd.frames()?.leaked, 0);
    }
    Ok(())
}

#[test]
fn peer_link_down_while_receiving() -> Result<()> {
    path_fails(Failure::PeerLink, Direction::ToBraid, 2)
}

#[test]
fn peer_link_down_while_sending() -> Result<()> {
    path_fails(Failure::PeerLink, Direction::FromBraid, 1)
}

#[test]
fn own_link_down_while_receiving() -> Result<()> {
    path_fails(Failure::OwnLink, Direction::ToBraid, 1)
}

#[test]
fn own_link_down_while_sending() -> Result<()> {
    path_fails(Failure::OwnLink, Direction::FromBraid, 2)
}

#[test]
fn silent_blackhole_while_receiving() -> Result<()> {
    path_fails(Failure::Blackhole, Direction::ToBraid, 1)
}

#[test]
fn silent_blackhole_while_sending() -> Result<()> {
    path_fails(Failure::Blackhole, Direction::FromBraid, 2)
}
