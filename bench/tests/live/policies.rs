//! What the path manager is told to do, seen from a kernel peer: joins to announced ports,
//! several subflows between one pair of addresses, paths that wait as backups.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use braid_bench::failure;
use braid_bench::peer::client::ChatReport;
use braid_bench::peer::server::Served;
use braid_bench::testbed::daemon::Connect;
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, PathShare, Process, Result, Role, Testbed};
use serde_json::Value;

use crate::support::{TRANSFER_TIMEOUT, bench_program, braid_turn, client, wait_until};

const BYTES: u64 = 256 << 20;
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the kernel's events until one has every needle.
fn event(monitor: &mut Process, needles: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    while let Some(line) = monitor
        .line(EVENT_TIMEOUT)
        .map_err(|e| failure!("no line with {needles:?} after {seen:#?}: {e}"))?
    {
        if needles.iter().all(|needle| line.contains(needle)) {
            return Ok(());
        }
        seen.push(line);
    }
    Err(failure!("the monitor ended after {seen:#?}"))
}

#[test]
fn a_kernel_client_joins_to_announced_ports() -> Result<()> {
    let Some(_turn) = braid_turn("announced ports", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let (first, second) = (Testbed::v4(Role::Braid, 1), Testbed::v4(Role::Braid, 2));
    let config = Config {
        endpoints: Vec::new(),
        more: format!(
            "\n[[path.endpoint]]\naddress = \"{second}\"\nport = 8080\nflags = [\"signal\"]\n"
        ),
        ..Config::announcing(&testbed).service("echo", format!("{first}:7"))
    };
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    let mut kernel = testbed.start(Role::Peer, "ip-monitor", &["ip", "mptcp", "monitor"])?;
    std::thread::sleep(Duration::from_millis(300));
    let to = format!("{first}:7");
    let mut chat = client(&testbed, &["chat", "--to", &to, "--seconds", "8"])?;
    let daddr = format!("daddr4={second}");
    event(&mut kernel, &["ANNOUNCED", &daddr, "dport=8080"])?;
    event(&mut kernel, &["SF_ESTABLISHED", &daddr, "dport=8080"])?;
    // Another port of the very first address, at run time.
    braidd.endpoint_add(first, &["signal", "port", "8082"])?;
    let daddr = format!("daddr4={first}");
    event(&mut kernel, &["SF_ESTABLISHED", &daddr, "dport=8082"])?;
    braidd.endpoint_del(first)?;
    event(&mut kernel, &["SF_CLOSED", &daddr, "dport=8082"])?;
    let report: ChatReport = chat.json(TRANSFER_TIMEOUT)?;
    assert!(
        report.error.is_none() && report.transport.mptcp,
        "{report:?}"
    );
    // A port that somebody has cannot be announced.
    let taken = format!("{first}:8090");
    let taken = ["--listen", &taken, "--app", "sink"];
    let _server = testbed.server(Role::Braid, &bench_program(), &taken)?;
    let refused = braidd.endpoint_add(first, &["signal", "port", "8090"]);
    assert!(refused.is_err_and(|e| e.to_string().contains("in use")));
    assert!(braidd.counter("MPJoinAckRx")? >= 2);
    Ok(())
}

/// braid uploads to a kernel server under a policy.
fn upload(testbed: &Testbed, policy: &str, subflows: u8) -> Config {
    Config {
        policy: policy.to_owned(),
        subflows: Some(subflows),
        endpoints: Vec::new(),
        connects: vec![Connect {
            name: "transfer".to_owned(),
            to: SocketAddr::new(Testbed::v4(Role::Peer, 1), 5201),
            app: "source".to_owned(),
            bytes: Some(BYTES),
        }],
        ..Config::announcing(testbed)
    }
}

const SINK: [&str; 6] = [
    "--listen",
    "[::]:5201",
    "--app",
    "sink",
    "--content",
    "pattern",
];

fn ends(conn: &Value) -> Vec<(SocketAddr, SocketAddr)> {
    let subflows = conn["subflows"].as_array().cloned().unwrap_or_default();
    let end = |s: &Value, key: &str| s[key].as_str().and_then(|a| a.parse().ok());
    subflows
        .iter()
        .filter(|s| s["state"] == "established")
        .filter_map(|s| Some((end(s, "local")?, end(s, "remote")?)))
        .collect()
}

#[test]
fn braid_joins_to_the_port_that_a_kernel_server_announces() -> Result<()> {
    let Some(_turn) = braid_turn("a kernel's announced port", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let second = Testbed::v4(Role::Peer, 2);
    let device = Testbed::interface(Role::Peer, 2);
    let add = ["ip", "mptcp", "endpoint", "add"];
    let what = [
        &*second.to_string(),
        "dev",
        &device,
        "signal",
        "port",
        "8080",
    ];
    testbed.run(Role::Peer, &[&add[..], &what[..]].concat())?;
    let mut server = testbed.server(Role::Peer, &bench_program(), &SINK)?;
    let braidd = Braidd::start(&testbed, &programs(), &upload(&testbed, "fullmesh", 4))?;
    let mut monitor = braidd.monitor()?;
    braidd.connect("transfer")?;
    let remote = format!("\"remote\":\"{second}:8080\"");
    event(
        &mut monitor,
        &["\"event\":\"subflow_established\"", &remote],
    )?;
    let served: Served = server.json(TRANSFER_TIMEOUT)?;
    assert!(served.intact && served.transport.mptcp, "{served:?}");
    Ok(())
}

#[test]
fn ndiffports_opens_subflows_between_one_pair_of_addresses() -> Result<()> {
    let Some(_turn) = braid_turn("ndiffports", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let mut server = testbed.server(Role::Peer, &bench_program(), &SINK)?;
    let braidd = Braidd::start(&testbed, &programs(), &upload(&testbed, "ndiffports", 3))?;
    braidd.connect("transfer")?;
    let mut most = Vec::new();
    wait_until("three subflows", EVENT_TIMEOUT, || {
        let conns = braidd.conns()?;
        most = conns.first().map(ends).unwrap_or_default();
        Ok(most.len() == 3)
    })?;
    let pairs: Vec<(IpAddr, SocketAddr)> = most.iter().map(|(l, r)| (l.ip(), *r)).collect();
    assert!(pairs.iter().all(|p| *p == pairs[0]), "{most:?}");
    let mut ports: Vec<u16> = most.iter().map(|(l, _)| l.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3, "{most:?}");
    let served: Served = server.json(TRANSFER_TIMEOUT)?;
    assert!(served.intact && served.transport.mptcp, "{served:?}");
    assert_eq!(served.bytes_received, BYTES);
    Ok(())
}

#[test]
fn a_backup_path_waits_until_the_regular_one_is_gone() -> Result<()> {
    let Some(_turn) = braid_turn("backup policy", &[]) else {
        return Ok(());
    };
    for fails in [false, true] {
        let testbed = Testbed::new(Options {
            hop: true,
            announce: Some(Role::Peer),
            ..Options::default()
        })?;
        let mut server = testbed.server(Role::Peer, &bench_program(), &SINK)?;
        let braidd = Braidd::start(&testbed, &programs(), &upload(&testbed, "backup", 4))?;
        let before = testbed.traffic(Role::Braid)?;
        let sent = |path: usize| -> Result<u64> {
            Ok(testbed.traffic(Role::Braid)?[path]
                .since(before[path])
                .tx_bytes)
        };
        braidd.connect("transfer")?;
        wait_until("the connection has a backup", EVENT_TIMEOUT, || {
            Ok(braidd.conns()?.first().is_some_and(|c| ends(c).len() >= 2))
        })?;
        wait_until("data flows", EVENT_TIMEOUT, || Ok(sent(0)? > 1 << 20))?;
        if fails {
            testbed.blackhole(1, true)?;
            wait_until("the backup carries data", Duration::from_secs(10), || {
                Ok(sent(1)? > 4 << 20)
            })?;
        }
        let served: Served = server.json(TRANSFER_TIMEOUT)?;
        assert!(served.intact && served.transport.mptcp, "{served:?}");
        let paths = PathShare::between(&before, &testbed.traffic(Role::Braid)?);
        if !fails {
            let waiting = sent(1)?;
            assert!(
                waiting < BYTES / 100,
                "{waiting} bytes on a backup: {paths:?}"
            );
        }
    }
    Ok(())
}

/// Linux forgets an announcement that comes before it has dealt with the last one, so they
/// follow each other's echoes; a repetition would come a second later.
#[test]
fn a_kernel_client_uses_four_paths_at_once() -> Result<()> {
    let Some(_turn) = braid_turn("four paths at once", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options {
        paths: 4,
        ..Options::default()
    })?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    let mut chat = client(&testbed, &["chat", "--to", "10.77.1.2:7", "--seconds", "4"])?;
    wait_until("a connection", EVENT_TIMEOUT, || {
        Ok(!braidd.conns()?.is_empty())
    })?;
    let took = wait_until("four subflows", EVENT_TIMEOUT, || {
        Ok(braidd.conns()?.first().is_some_and(|c| ends(c).len() == 4))
    })?;
    eprintln!("four subflows after {took:?}");
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert_eq!(braidd.counter("AddAddrTx")?, 3, "none is repeated");
    let report: ChatReport = chat.json(TRANSFER_TIMEOUT)?;
    assert!(report.error.is_none(), "{report:?}");
    Ok(())
}
