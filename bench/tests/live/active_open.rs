//! braid connects to a kernel MPTCP server, and uploads and downloads.

use std::net::SocketAddr;
use std::time::Duration;

use braid_bench::peer::server::Served;
use braid_bench::testbed::daemon::Connect;
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, PathShare, Result, Role, Testbed};

use crate::failures::{AWAY_FROM_BRAID, AWAY_FROM_KERNEL, Failure, outage, tells};
use crate::support::{TRANSFER_TIMEOUT, bench_program, braid_turn};

const BYTES: u64 = 256 << 20;

/// Both paths are opened by braid: its own second address, and the server's announced one.
fn config(testbed: &Testbed, app: &str) -> Config {
    let to = SocketAddr::new(Testbed::v4(Role::Peer, 1), 5201);
    Config {
        policy: "fullmesh".to_owned(),
        endpoints: vec![(Testbed::v4(Role::Braid, 2), vec!["subflow".to_owned()])],
        connects: vec![Connect {
            name: "transfer".to_owned(),
            to,
            app: app.to_owned(),
            bytes: (app == "source").then_some(BYTES),
        }],
        ..Config::announcing(testbed)
    }
}

fn open(app: &str, server_args: &[&str]) -> Result<(Served, Vec<PathShare>)> {
    let testbed = Testbed::new(Options {
        announce: Some(Role::Peer),
        ..Options::default()
    })?;
    let mut server = testbed.server(Role::Peer, &bench_program(), server_args)?;
    let braidd = Braidd::start(&testbed, &programs(), &config(&testbed, app))?;
    let before = testbed.traffic(Role::Peer)?;
    braidd.connect("transfer")?;
    let served: Served = server.json(TRANSFER_TIMEOUT)?;
    let paths = PathShare::between(&before, &testbed.traffic(Role::Peer)?);
    eprintln!("{served:?} {paths:?}");
    let counters = braidd.counters()?;
    assert_eq!(counters.get("MPCapableSYNTX"), Some(&1), "{counters:?}");
    assert!(
        counters.get("MPJoinSynTx").copied() >= Some(1),
        "{counters:?}"
    );
    braidd.settle(braidd.frames()?.ours, Duration::from_secs(10))?;
    Ok((served, paths))
}

#[test]
fn uploads_over_both_paths() -> Result<()> {
    let Some(_turn) = braid_turn("active open: upload", &[]) else {
        return Ok(());
    };
    let args = [
        "--listen",
        "[::]:5201",
        "--app",
        "sink",
        "--content",
        "pattern",
    ];
    let (served, paths) = open("source", &args)?;
    assert!(served.intact && served.transport.mptcp, "{served:?}");
    assert_eq!(served.bytes_received, BYTES);
    for path in paths {
        assert!(path.back_share >= 0.10, "path {} idle: {path:?}", path.path);
    }
    Ok(())
}

#[test]
fn downloads_over_both_paths() -> Result<()> {
    let Some(_turn) = braid_turn("active open: download", &[]) else {
        return Ok(());
    };
    let bytes = BYTES.to_string();
    let args = [
        "--listen",
        "[::]:5201",
        "--app",
        "source",
        "--bytes",
        &bytes,
    ];
    let (served, paths) = open("sink", &args)?;
    assert!(served.intact && served.transport.mptcp, "{served:?}");
    assert_eq!(served.bytes_sent, BYTES);
    for path in paths {
        assert!(
            path.there_share >= 0.10,
            "path {} idle: {path:?}",
            path.path
        );
    }
    Ok(())
}

/// What the hop lets through on each path, each way: the transfer outlasts the outage on
/// any machine.
const HOP_RATE: &str = "100mbit";

/// A path away in mid-transfer: braid has to open it again.
fn path_fails(failure: Failure, app: &str, server_args: &[&str]) -> Result<()> {
    let test = format!("active open: {failure:?}, {app}");
    let Some(_turn) = braid_turn(&test, &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options {
        announce: Some(Role::Peer),
        hop: true,
        ..Options::default()
    })?;
    for interface in ["hp1", "hp2", "hb1", "hb2"] {
        let add = ["tc", "qdisc", "add", "dev", interface, "root", "tbf"];
        let rate = ["rate", HOP_RATE, "burst", "128kb", "latency", "20ms"];
        testbed.run(Role::Hop, &[&add[..], &rate[..]].concat())?;
    }
    let mut server = testbed.server(Role::Peer, &bench_program(), server_args)?;
    let braidd = Braidd::start(&testbed, &programs(), &config(&testbed, app))?;
    braidd.connect("transfer")?;
    let away = if app == "source" {
        AWAY_FROM_BRAID
    } else {
        AWAY_FROM_KERNEL
    };
    let recovery = outage(&testbed, failure, 2, away, || {
        // At braid's end: the mesh leads to the peer's second interface by both paths.
        let traffic = testbed.traffic(Role::Braid)?[1];
        Ok(if app == "source" {
            traffic.tx_bytes
        } else {
            traffic.rx_bytes
        })
    });
    eprintln!("{test}: recovery {recovery:?}");
    let served: Served = server.json(TRANSFER_TIMEOUT)?;
    eprintln!("{test}: {served:?}");
    assert!(served.intact && served.transport.mptcp, "{served:?}");
    assert_eq!(served.bytes_received.max(served.bytes_sent), BYTES);
    recovery?;
    if app == "source" {
        tells(&braidd.counters()?, failure, "MPJoinSynTx");
    }
    braidd.settle(braidd.frames()?.ours, Duration::from_secs(10))?;
    Ok(())
}

fn upload_survives(failure: Failure) -> Result<()> {
    let args = ["--listen", "[::]:5201", "--app", "sink"];
    let content = ["--content", "pattern"];
    path_fails(failure, "source", &[&args[..], &content[..]].concat())
}

fn download_survives(failure: Failure) -> Result<()> {
    let bytes = BYTES.to_string();
    let args = [
        "--listen",
        "[::]:5201",
        "--app",
        "source",
        "--bytes",
        &bytes,
    ];
    path_fails(failure, "sink", &args)
}

#[test]
fn an_upload_survives_a_blackhole() -> Result<()> {
    upload_survives(Failure::Blackhole)
}

#[test]
fn an_upload_survives_resets() -> Result<()> {
    upload_survives(Failure::Reject)
}

#[test]
fn a_download_survives_a_blackhole() -> Result<()> {
    download_survives(Failure::Blackhole)
}

#[test]
fn a_download_survives_resets() -> Result<()> {
    download_survives(Failure::Reject)
}

#[test]
fn an_upload_survives_a_link_that_is_down() -> Result<()> {
    upload_survives(Failure::OwnLink)
}

#[test]
fn a_download_survives_a_link_that_is_down() -> Result<()> {
    download_survives(Failure::OwnLink)
}
