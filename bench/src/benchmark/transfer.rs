//! One measurement of one cell.
//!
//! | pair | who keeps the time | what is counted |
//! |---|---|---|
//! | kernel client | the client | payload until the server has read the last byte, or the last one read |
//! | braid client, kernel server | the server | the same, seen from there |
//! | braid on both sides | this module | what the receiving braid delivered between two looks, on its own clock |
//!
//! Each measurement has processes of its own: nothing that one leaves behind (windows,
//! cached paths, an XDP program that slows the kernel's own packets) is there in the next.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cell::{Cell, Direction, End};
use super::machine::CpuSeconds;
use super::results::Repeat;
use crate::failure;
use crate::peer::client::Report;
use crate::peer::server::Served;
use crate::testbed::daemon::Connect;
use crate::testbed::topology::Traffic;
use crate::testbed::{Braidd, Config, Process, Result, Role, Testbed};

/// Core of the end in the namespace `peer`.
pub const PEER_CORE: usize = 0;
/// Core of the end in the namespace `braid`.
pub const BRAID_CORE: usize = 1;
/// A peer gives up when nothing moves for so long.
const STALL_TIMEOUT_S: &str = "5";
/// How long anything but the transfer itself may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Slow start and joins are over then; only for measurements between two looks.
const WARM_UP: Duration = Duration::from_millis(300);

/// How a cell is measured.
#[derive(Clone, Debug)]
pub struct Method {
    /// Where the programs are.
    pub programs: PathBuf,
    /// How long data flows.
    pub duration: Duration,
    /// `interface.mode` of braid.
    pub mode: String,
}

/// What one flow came to.
#[derive(Copy, Clone, Debug)]
struct Flow {
    bytes: u64,
    gbit_per_s: f64,
    subflows: u32,
    mptcp: bool,
}

impl From<Report> for Flow {
    fn from(report: Report) -> Self {
        Self {
            bytes: report.bytes_sent.max(report.bytes_received),
            gbit_per_s: report.gbit_per_s,
            subflows: u32::from(report.transport.extra_subflows) + 1,
            mptcp: report.transport.mptcp,
        }
    }
}

impl From<Served> for Flow {
    fn from(served: Served) -> Self {
        Self {
            bytes: served.bytes_received.max(served.bytes_sent),
            gbit_per_s: served.gbit_per_s,
            subflows: u32::from(served.transport.extra_subflows) + 1,
            mptcp: served.transport.mptcp,
        }
    }
}

/// Of the service that takes a flow.
const fn port(flow: Direction) -> u16 {
    match flow {
        Direction::Up | Direction::Both => 5001,
        Direction::Down => 5002,
    }
}

/// What the server does in a flow.
const fn server_app(flow: Direction) -> &'static str {
    match flow {
        Direction::Up | Direction::Both => "sink",
        Direction::Down => "source",
    }
}

/// What the client does in a flow.
const fn client_app(flow: Direction) -> &'static str {
    match flow {
        Direction::Up | Direction::Both => "source",
        Direction::Down => "sink",
    }
}

/// Where the ends of a pair live. An end that is the kernel's for comparison stands where
/// braid would.
fn roles(cell: Cell) -> (Role, Role) {
    if cell.pair.client == End::Braid && cell.pair.server == End::Kernel {
        (Role::Braid, Role::Peer)
    } else {
        (Role::Peer, Role::Braid)
    }
}

fn core(role: Role) -> usize {
    if role == Role::Braid {
        BRAID_CORE
    } else {
        PEER_CORE
    }
}

/// A braid client in full mesh would at once join the server's first address from its other
/// addresses, over the first path. It shall take one path for each address instead.
fn denies_initial(cell: Cell) -> bool {
    cell.pair.client == End::Braid
}

/// Settings of both kernels for a cell; addresses are withdrawn when dropped.
struct KernelSettings<'a> {
    testbed: &'a Testbed,
}

impl<'a> KernelSettings<'a> {
    fn set(testbed: &'a Testbed, cell: Cell) -> Result<Self> {
        let settings = Self { testbed };
        let checksum = format!("net.mptcp.checksum_enabled={}", u8::from(cell.checksum));
        for role in [Role::Peer, Role::Braid] {
            let congestion = "net.ipv4.tcp_congestion_control=reno";
            testbed.run(role, &["sysctl", "-q", "-w", congestion, &checksum])?;
        }
        // A kernel server announces its further addresses; braid is told by its configuration.
        let (_, server) = roles(cell);
        if cell.pair.server == End::Kernel {
            let initial = u8::from(!denies_initial(cell));
            let initial = format!("net.mptcp.allow_join_initial_addr_port={initial}");
            testbed.run(server, &["sysctl", "-q", "-w", &initial])?;
            for path in 2..=cell.bed.paths {
                let address = Testbed::v4(server, path).to_string();
                let device = Testbed::interface(server, path);
                let add = [
                    "ip", "mptcp", "endpoint", "add", &address, "dev", &device, "signal",
                ];
                testbed.run(server, &add)?;
            }
        }
        Ok(settings)
    }
}

impl Drop for KernelSettings<'_> {
    fn drop(&mut self) {
        for role in [Role::Peer, Role::Braid] {
            let flush = ["ip", "mptcp", "endpoint", "flush"];
            if let Err(e) = self.testbed.run(role, &flush) {
                eprintln!("addresses stay announced: {e}");
            }
        }
    }
}

fn braid_config(testbed: &Testbed, role: Role, cell: Cell, method: &Method) -> Config {
    let checksum = if cell.checksum { "always" } else { "never" };
    Config {
        cores: vec![core(role)],
        mode: Some(method.mode.clone()),
        more: format!("\n[mptcp]\ncongestion = \"reno\"\nchecksum = \"{checksum}\"\n"),
        ..Config::announcing_as(testbed, role)
    }
}

fn braid_server(testbed: &Testbed, role: Role, cell: Cell, method: &Method) -> Config {
    let address = Testbed::v4(role, 1);
    let mut config = braid_config(testbed, role, cell, method);
    config
        .more
        .push_str(&format!("deny-join-id0 = {}\n", denies_initial(cell)));
    cell.direction.flows().iter().fold(config, |config, &flow| {
        config.service(server_app(flow), format!("{address}:{}", port(flow)))
    })
}

fn braid_client(
    testbed: &Testbed,
    role: Role,
    server: IpAddr,
    cell: Cell,
    method: &Method,
) -> Config {
    let subflow = |path| (Testbed::v4(role, path), vec!["subflow".to_owned()]);
    let connect = |flow: &Direction| Connect {
        name: flow.to_string(),
        to: SocketAddr::new(server, port(*flow)),
        app: client_app(*flow).to_owned(),
        bytes: None,
    };
    Config {
        policy: "fullmesh".to_owned(),
        // Above the number of paths: pairs of addresses that cannot reach each other count
        // while they are tried.
        subflows: Some(8),
        endpoints: (2..=cell.bed.paths).map(subflow).collect(),
        connects: cell.direction.flows().iter().map(connect).collect(),
        ..braid_config(testbed, role, cell, method)
    }
}

fn bench(method: &Method) -> PathBuf {
    method.programs.join("braid-bench")
}

fn kernel_server(
    testbed: &Testbed,
    role: Role,
    flow: Direction,
    limit: Option<Duration>,
    program: &Path,
) -> Result<Process> {
    let listen = format!("[::]:{}", port(flow));
    let (core, seconds) = (
        core(role).to_string(),
        limit.map(|d| d.as_secs_f64().to_string()),
    );
    let mut args = vec![
        "--listen",
        &listen,
        "--app",
        server_app(flow),
        "--content",
        "raw",
    ];
    args.extend([
        "--core",
        &core,
        "--stall-timeout-s",
        STALL_TIMEOUT_S,
        "--count",
        "1",
    ]);
    if let Some(seconds) = &seconds {
        args.extend(["--seconds", seconds]);
    }
    testbed.server(role, program, &args)
}

fn kernel_client(
    testbed: &Testbed,
    (role, server): (Role, Role),
    flow: Direction,
    method: &Method,
) -> Result<Process> {
    let to = SocketAddr::new(Testbed::v4(server, 1), port(flow)).to_string();
    let (core, seconds) = (
        core(role).to_string(),
        method.duration.as_secs_f64().to_string(),
    );
    let mut args = match flow {
        Direction::Up | Direction::Both => vec!["upload", "--content", "raw"],
        Direction::Down => vec!["download", "--expect", "raw"],
    };
    args.extend(["--to", &to, "--seconds", &seconds, "--core", &core]);
    args.extend(["--stall-timeout-s", STALL_TIMEOUT_S]);
    testbed.peer(role, &bench(method), &args)
}

/// One connection that the kernel keeps the time of, on either side.
fn timed(testbed: &Testbed, cell: Cell, method: &Method) -> Result<(Vec<Flow>, CpuSeconds)> {
    let (client, server) = roles(cell);
    let patience = PATIENCE + method.duration * 2;
    let flows = cell.direction.flows();
    let limit = (cell.pair.client == End::Braid).then_some(method.duration);
    let (mut servers, mut braid) = (Vec::new(), None);
    if cell.pair.server == End::Braid {
        let config = braid_server(testbed, server, cell, method);
        braid = Some(Braidd::start_as(
            server,
            testbed,
            &method.programs,
            &config,
        )?);
    } else {
        for &flow in flows {
            servers.push(kernel_server(testbed, server, flow, limit, &bench(method))?);
        }
    }
    let result = if cell.pair.client == End::Braid {
        let config = braid_client(testbed, client, Testbed::v4(server, 1), cell, method);
        let braidd = &*braid.insert(Braidd::start_as(
            client,
            testbed,
            &method.programs,
            &config,
        )?);
        let before = CpuSeconds::now()?;
        for flow in flows {
            braidd.connect(&flow.to_string())?;
        }
        let served: Result<Vec<Served>> = servers
            .iter_mut()
            .map(|server| server.json(patience))
            .collect();
        served.and_then(|served| {
            let cpu = CpuSeconds::now()?.since(before);
            let bad = served.iter().find(|served| !served.intact);
            match bad.map(|served| served.error.clone().unwrap_or_default()) {
                Some(error) => Err(failure!("the kernel's server: {error}")),
                None => Ok((served.into_iter().map(Flow::from).collect(), cpu)),
            }
        })
    } else {
        let before = CpuSeconds::now()?;
        let clients: Result<Vec<Process>> = flows
            .iter()
            .map(|&flow| kernel_client(testbed, (client, server), flow, method))
            .collect();
        let reports: Result<Vec<Report>> = clients?
            .iter_mut()
            .map(|client| client.json(patience))
            .collect();
        reports.and_then(|reports| {
            let cpu = CpuSeconds::now()?.since(before);
            let bad = reports.iter().find(|report| !report.intact);
            match bad.map(|report| report.error.clone().unwrap_or_default()) {
                Some(error) => Err(failure!("the kernel's client: {error}")),
                None => Ok((reports.into_iter().map(Flow::from).collect(), cpu)),
            }
        })
    };
    result.map_err(|e| match &mut braid {
        Some(braidd) => failure!("{e}\nbraidd says:\n{}", braidd.process().stderr()),
        None => e,
    })
}

/// What a receiving braid says about a flow.
#[derive(Copy, Clone, Debug)]
struct Look {
    delivered: u64,
    at_ms: u64,
    subflows: u32,
    mptcp: bool,
}

/// The connection of `name` (service or active open) in a braid.
fn look(braidd: &Braidd<'_>, name: &str) -> Result<Option<Look>> {
    let conns = braidd.conns()?;
    let Some(conn) = conns.iter().find(|conn| conn["service"] == name) else {
        return Ok(None);
    };
    let number = |key: &str| {
        conn[key]
            .as_u64()
            .ok_or_else(|| failure!("no {key} in {conn}"))
    };
    Ok(Some(Look {
        delivered: number("bytes_delivered")?,
        at_ms: number("age_ms")?,
        subflows: conn["subflows"]
            .as_array()
            .and_then(|list| u32::try_from(list.len()).ok())
            .unwrap_or(0),
        mptcp: conn["mptcp"] == true,
    }))
}

/// braid on both sides: the receiver's own figures, between two looks.
fn observed(testbed: &Testbed, cell: Cell, method: &Method) -> Result<(Vec<Flow>, CpuSeconds)> {
    let (client_role, server_role) = roles(cell);
    let config = braid_server(testbed, server_role, cell, method);
    let server = Braidd::start_as(server_role, testbed, &method.programs, &config)?;
    let config = braid_client(
        testbed,
        client_role,
        Testbed::v4(server_role, 1),
        cell,
        method,
    );
    let client = Braidd::start_as(client_role, testbed, &method.programs, &config)?;
    let flows = cell.direction.flows();
    let receiver = |flow: Direction| match flow {
        Direction::Up | Direction::Both => (&server, server_app(flow).to_owned()),
        Direction::Down => (&client, flow.to_string()),
    };
    let look_at = |flow: Direction| {
        let (braidd, name) = receiver(flow);
        look(braidd, &name)
    };
    for flow in flows {
        client.connect(&flow.to_string())?;
    }
    let deadline = Instant::now() + PATIENCE;
    for &flow in flows {
        while look_at(flow)?.is_none_or(|look| look.delivered == 0) {
            if Instant::now() > deadline {
                return Err(failure!("{flow}: no byte within {PATIENCE:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    std::thread::sleep(WARM_UP);
    let all = || -> Result<Vec<Look>> {
        flows
            .iter()
            .map(|&flow| look_at(flow)?.ok_or_else(|| failure!("{flow}: the connection is gone")))
            .collect()
    };
    let (first, cpu) = (all()?, CpuSeconds::now()?);
    std::thread::sleep(method.duration);
    let (last, cpu) = (all()?, CpuSeconds::now()?.since(cpu));
    let flows = first.iter().zip(&last).map(|(first, last)| {
        let bytes = last.delivered - first.delivered;
        let ms = last.at_ms - first.at_ms;
        Flow {
            bytes,
            gbit_per_s: crate::peer::transfer::gbit_per_s(bytes, Duration::from_millis(ms)),
            subflows: last.subflows,
            mptcp: last.mptcp,
        }
    });
    Ok((flows.collect(), cpu))
}

/// What the least used path carried of the bytes of all, both ways together.
fn least_share(before: &[Traffic], after: &[Traffic]) -> f64 {
    let moved = after.iter().zip(before).map(|(after, before)| {
        let moved = after.since(*before);
        moved.rx_bytes + moved.tx_bytes
    });
    let moved: Vec<u64> = moved.collect();
    let all: u64 = moved.iter().sum();
    let least = moved.iter().min().copied().unwrap_or(0);
    least as f64 / all.max(1) as f64
}

/// Measures a cell once.
pub fn measure(testbed: &Testbed, cell: Cell, round: usize, method: &Method) -> Result<Repeat> {
    let _settings = KernelSettings::set(testbed, cell)?;
    let both_braid = cell.pair.client == End::Braid && cell.pair.server == End::Braid;
    // Of the namespace `peer`: generic XDP takes packets away before the other end counts.
    let before = testbed.traffic(Role::Peer)?;
    let (flows, cpu) = if both_braid {
        observed(testbed, cell, method)?
    } else {
        timed(testbed, cell, method)?
    };
    let after = testbed.traffic(Role::Peer)?;
    let least_path_share = least_share(&before, &after);
    let bytes: u64 = flows.iter().map(|flow| flow.bytes).sum();
    if flows.iter().any(|flow| flow.bytes == 0) {
        return Err(failure!("a flow carried nothing: {flows:?}"));
    }
    Ok(Repeat {
        round,
        bytes,
        gbit_per_s: flows.iter().map(|flow| flow.gbit_per_s).sum(),
        cpu,
        cpu_s_per_gib: cpu.busy() / (bytes as f64 / f64::from(1_u32 << 30)),
        subflows: flows.iter().map(|flow| flow.subflows).min().unwrap_or(0),
        least_path_share,
        mptcp: flows.iter().all(|flow| flow.mptcp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braid_keeps_its_namespace_and_core() {
        let roles_of = |name: &str| roles(name.parse().unwrap());
        let place = "on-1500/2p/plain/up";
        assert_eq!(
            roles_of(&format!("kernel-kernel/{place}")),
            (Role::Peer, Role::Braid)
        );
        assert_eq!(
            roles_of(&format!("kernel-braid/{place}")),
            (Role::Peer, Role::Braid)
        );
        assert_eq!(
            roles_of(&format!("braid-kernel/{place}")),
            (Role::Braid, Role::Peer)
        );
        assert_eq!(
            roles_of(&format!("braid-braid/{place}")),
            (Role::Peer, Role::Braid)
        );
        assert_ne!(core(Role::Peer), core(Role::Braid));
    }

    #[test]
    fn the_least_used_path_is_found() {
        let traffic = |rx_bytes, tx_bytes| Traffic { rx_bytes, tx_bytes };
        let before = [traffic(5, 5), traffic(0, 0)];
        let after = [traffic(80, 20), traffic(0, 10)];
        assert_eq!(least_share(&before, &after), 0.1);
        assert_eq!(least_share(&before, &before), 0.0);
    }

    #[test]
    fn ends_of_a_flow_fit_together() {
        for flow in [Direction::Up, Direction::Down] {
            assert_ne!(client_app(flow), server_app(flow));
        }
        assert_ne!(port(Direction::Up), port(Direction::Down));
    }
}
