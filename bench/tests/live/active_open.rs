//! braid connects to a kernel MPTCP server, and uploads and downloads.

use std::net::SocketAddr;
use std::time::Duration;

use braid_bench::peer::server::Served;
use braid_bench::testbed::daemon::Connect;
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, PathShare, Result, Role, Testbed};

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
