//! Version 0 towards a kernel, which speaks version 1 only.

use std::net::SocketAddr;
use std::time::Duration;

use braid_bench::peer::server::Served;
use braid_bench::testbed::daemon::Connect;
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, Result, Role, Testbed};

use crate::support::{TRANSFER_TIMEOUT, bench_program, braid_turn};

const BYTES: u64 = 64 << 20;

/// RFC 8684 §3.1: the kernel must not answer with a higher version, so it answers as TCP.
#[test]
fn a_kernel_server_answers_version_0_as_tcp() -> Result<()> {
    let Some(_turn) = braid_turn("active open: version 0", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options {
        announce: Some(Role::Peer),
        ..Options::default()
    })?;
    let args = [
        "--listen",
        "[::]:5201",
        "--app",
        "sink",
        "--content",
        "pattern",
    ];
    let mut server = testbed.server(Role::Peer, &bench_program(), &args)?;
    let config = Config {
        policy: "fullmesh".to_owned(),
        connects: vec![Connect {
            name: "upload".to_owned(),
            to: SocketAddr::new(Testbed::v4(Role::Peer, 1), 5201),
            app: "source".to_owned(),
            bytes: Some(BYTES),
        }],
        more: "\n[mptcp]\nallow-v0 = true\nconnect-version = 0\n".to_owned(),
        ..Config::announcing(&testbed)
    };
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    braidd.connect("upload")?;
    let served: Served = server.json(TRANSFER_TIMEOUT)?;
    assert!(served.intact && !served.transport.mptcp, "{served:?}");
    assert_eq!(served.bytes_received, BYTES);
    let counters = braidd.counters()?;
    let count = |name: &str| counters.get(name).copied().unwrap_or(0);
    assert_eq!(count("MPCapableSYNTX"), 1, "{counters:?}");
    assert_eq!(count("MPCapableFallbackSYNACK"), 1, "{counters:?}");
    assert_eq!(count("MPJoinSynTx"), 0, "{counters:?}");
    braidd.settle(braidd.frames()?.ours, Duration::from_secs(10))?;
    Ok(())
}
