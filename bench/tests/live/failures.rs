//! In mid-transfer a path fails and comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_bench::peer::client::Report;
use braid_bench::testbed::topology::Traffic;
use braid_bench::testbed::{Config, Options, Result, Role, Testbed};

use crate::support::{Subject, TRANSFER_TIMEOUT, client, testbed, turn, wait_until};

/// The longest time without a delivered byte.
const GAP_MAX_MS: f64 = 3000.0;
/// The path must carry data again so soon after it is back.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// How long the path is away while a kernel sends. It doubles its timeout (RFC 6298 §5.5),
/// at least 200 ms, with every attempt, and once it hears from the path it sends new data
/// there that waits for the next one: the gap is the kernel's to choose, and grows with this.
pub(crate) const AWAY_FROM_KERNEL: Duration = Duration::from_millis(2500);
/// How long while braid sends: with an unlimited back-off the next attempt would be another
/// six seconds off.
pub(crate) const AWAY_FROM_BRAID: Duration = Duration::from_secs(7);
/// How long the client transfers: beyond the return.
const SECONDS: &str = "16";
/// More than probes and acknowledgements of a path without data.
const DATA_BYTES: u64 = 200_000;

#[derive(Copy, Clone, Debug)]
pub(crate) enum Failure {
    /// The peer sets its interface down.
    PeerLink,
    /// braid's own interface is set down, with frames in its TX ring.
    OwnLink,
    /// Everything vanishes, no link changes.
    Blackhole,
    /// Every segment, of a join, too, is answered by a RST.
    Reject,
}

impl Failure {
    /// Where it happens.
    pub(crate) fn needs_hop(self) -> bool {
        matches!(self, Self::Blackhole | Self::Reject)
    }
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
        Failure::Reject => reject(testbed, path, !works),
    }
}

fn reject(testbed: &Testbed, path: u8, on: bool) -> Result<()> {
    let verb = if on { "-A" } else { "-D" };
    for interface in [format!("hp{path}"), format!("hb{path}")] {
        let rule = ["iptables", "-w", verb, "FORWARD", "-i", &interface];
        let answer = ["-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"];
        testbed.run(Role::Hop, &[&rule[..], &answer[..]].concat())?;
    }
    Ok(())
}

/// Waits until the path carries data, takes it away for a while and gives it back. How
/// long it took then until it carried data again.
pub(crate) fn outage(
    testbed: &Testbed,
    failure: Failure,
    path: u8,
    away: Duration,
    carried: impl Fn() -> Result<u64>,
) -> Result<Duration> {
    std::thread::sleep(Duration::from_millis(1000));
    let at_start = carried()?;
    let before = "the path carries data before it fails";
    wait_until(before, Duration::from_secs(3), || {
        Ok(carried()? > at_start + DATA_BYTES)
    })?;
    switch(testbed, failure, path, false)?;
    // What was on its way arrives, and is sent again.
    std::thread::sleep(away / 3);
    let while_away = carried()?;
    std::thread::sleep(away * 2 / 3);
    let while_away = carried()? - while_away;
    assert!(while_away < DATA_BYTES, "{while_away} bytes while away");
    switch(testbed, failure, path, true)?;
    let at_return = carried()?;
    wait_until("the path carries data again", RECOVERY_MAX, || {
        Ok(carried()? > at_return + DATA_BYTES)
    })
}

fn carried(testbed: &Testbed, path: u8, direction: Direction) -> Result<u64> {
    let traffic: Traffic = testbed.traffic(Role::Peer)?[usize::from(path) - 1];
    Ok(match direction {
        Direction::ToBraid => traffic.tx_bytes,
        Direction::FromBraid => traffic.rx_bytes,
    })
}

/// The counters tell the story: what was lost went again, here or elsewhere; braid noticed
/// that the path went and that it came back, be it by a new join, which counts as `joined`.
pub(crate) fn tells(counters: &BTreeMap<String, u64>, failure: Failure, joined: &str) {
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
    let again = count("MPTCPRetrans") + count("RetransSegs");
    assert!(again > 0, "{counters:?}");
    let stale = count("SubflowStale");
    let back = count("SubflowRecover") > 0 || count(joined) > 1;
    match failure {
        Failure::PeerLink => {}
        Failure::OwnLink => {
            assert!(stale + count("TxNoCarrier") > 0, "{counters:?}");
            assert!(back, "{counters:?}");
        }
        Failure::Blackhole => assert!(stale > 0 && back, "{counters:?}"),
        Failure::Reject => assert!(count(joined) > 1, "{counters:?}"),
    }
}

fn path_fails(failure: Failure, direction: Direction, path: u8) -> Result<()> {
    let test = format!("{failure:?} {direction:?} path {path}");
    let Some(_turn) = turn(&test, &[]) else {
        return Ok(());
    };
    let testbed = testbed(Options {
        hop: failure.needs_hop(),
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
                SECONDS,
                "--window",
                "1048576",
            ],
        )?,
        Direction::FromBraid => client(
            &testbed,
            &["download", "--to", "10.77.1.2:19", "--seconds", SECONDS],
        )?,
    };
    let away = match direction {
        Direction::ToBraid => AWAY_FROM_KERNEL,
        Direction::FromBraid => AWAY_FROM_BRAID,
    };
    let recovery = outage(&testbed, failure, path, away, || {
        carried(&testbed, path, direction)
    });
    eprintln!("{test}: recovery {recovery:?}");
    let report: Report = client.json(TRANSFER_TIMEOUT)?;
    eprintln!("{test}: {report:?}");
    assert!(report.intact, "{report:?}");
    assert!(report.transport.mptcp, "{report:?}");
    assert!(report.gap.longest_ms <= GAP_MAX_MS, "{report:?}");
    recovery?;
    if let Some(braidd) = subject.braid() {
        let counters = braidd.counters()?;
        tells(&counters, failure, "MPJoinAckRx");
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

#[test]
fn rejected_while_receiving() -> Result<()> {
    path_fails(Failure::Reject, Direction::ToBraid, 2)
}

#[test]
fn rejected_while_sending() -> Result<()> {
    path_fails(Failure::Reject, Direction::FromBraid, 2)
}
