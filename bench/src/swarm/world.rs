//! From a seed to a network, its load and its faults.

use std::time::Duration;

use braid_dataplane::mptcp::{ChecksumPolicy, MptcpConfig, SchedulerKind, Version};
use braid_dataplane::tcp::{CongestionKind, EcnPolicy};
use braid_dataplane::wire::types::AddressId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::boxes::{self, Boxes};
use super::pick::{self, micros, millis, one, scale};
use super::{EACH_WAY, FAULTS_MIN};
use crate::sim::{
    BottleneckConfig, Burst, End, HostConfig, LinkConfig, Outcomes, Role, Sim, TooBig,
};

/// The host that opens the main connection.
pub const CLIENT: usize = 0;
/// The host that serves.
pub const SERVER: usize = 1;

/// Services of the server: that of the main connection, and the others.
pub(super) const MAIN: u16 = 5001;
const ECHO: u16 = 7;
const SINK: u16 = 9;
const SOURCE: u16 = 19;

/// Bursts that the ports of a host cut: those of a GSO lane are up to 64 KiB long, whatever is
/// left makes a shorter segment.
const BURSTS: &[u32] = &[0, 0, 0, 9_000, 65_000];

/// Bytes that the source service sends.
const SOURCE_BYTES: u64 = 64 << 10;

/// A network with a load, ready to run.
#[derive(Debug)]
pub struct World {
    /// The network.
    pub sim: Sim,
    /// What the seed decided, a line each.
    pub story: Vec<String>,
    pub(super) rng: StdRng,
    pub(super) main: Main,
    pub(super) others: Vec<Other>,
    pub(super) faults: Vec<Trigger>,
    /// Faults that were due only when the main connection was over.
    pub(super) overtaken: usize,
    pub(super) boxes: Option<Boxes>,
    /// The client opens and reopens subflows, on every path.
    pub(super) joins: bool,
}

/// The connection that every seed has.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) token: u32,
    pub(super) client: Outcomes,
    pub(super) server: Outcomes,
    /// Bytes that each end has to receive.
    pub(super) down: u64,
    pub(super) up: u64,
    pub(super) echo: bool,
    /// The link of its first subflow.
    pub(super) first: usize,
    /// Some end wants checksums.
    pub(super) checksum: bool,
}

/// A connection beside it.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) host: usize,
    /// The link of its first subflow.
    pub(super) link: usize,
    pub(super) token: u32,
    pub(super) client: Outcomes,
    /// Bytes that the client has to receive.
    pub(super) down: u64,
    /// It may end in any way.
    pub(super) free: bool,
    /// Ended from outside at this time.
    pub(super) cut: Option<(Duration, Cut)>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Abort,
    Close,
}

/// A fault, and the share of the main connection's bytes after which it happens.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) after: f64,
    pub(super) fault: Trouble,
    pub(super) lasts: Duration,
}

/// What goes wrong for a while.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    Blackhole {
        link: usize,
    },
    Carrier {
        link: usize,
        host: usize,
    },
    Mtu {
        link: usize,
        mtu: u32,
        too_big: TooBig,
    },
    Loss {
        link: usize,
        loss: f64,
    },
    Slow {
        link: usize,
        rate_bps: u64,
    },
    Longer {
        link: usize,
        by: Duration,
    },
    Corrupt {
        link: usize,
    },
    CloseSubflow {
        host: usize,
    },
    Backup {
        host: usize,
        id: u8,
    },
    RemoveAddress {
        host: usize,
        id: u8,
    },
}

/// Builds the world of a seed, with the middlebox `only` if one is named.
#[must_use]
pub fn build(seed: u64, only: Option<&str>) -> World {
    // The simulation draws from a stream of its own.
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5ca1_ab1e_0000_0000);
    // So does what was added later: seeds that tests and comments name stay what they are.
    let mut offload = StdRng::seed_from_u64(seed ^ 0x0ff1_0ad0_0000_0000);
    let mut story = Vec::new();
    let mut sim = Sim::new(seed);
    sim.keep_trace(0);
    sim.watch();

    let hosts = one(&mut rng, &[2, 2, 2, 3, 4]);
    let paths = rng.random_range(1..=4);
    let (mut joins, mut checksum, mut v0) = (true, false, false);
    let entry = boxes::draw(&mut rng, only);
    for host in 0..hosts {
        let mut config = host_config(&mut rng);
        config.burst_bytes = one(&mut offload, BURSTS);
        if host == SERVER || entry.is_some_and(boxes::is_deadly) {
            // Who only waits for data would not notice that the peer is gone: a client that
            // gives up may do so while nothing of it arrives.
            config.mptcp.tcp.keepalive = Some(Duration::from_secs(20));
            config.mptcp.tcp.keepalive_interval = Duration::from_secs(10);
            config.mptcp.tcp.keepalive_probes = 4;
        }
        if host == CLIENT {
            joins &= config.join;
            v0 = config.mptcp.connect_version == Version::V0;
        } else if host == SERVER {
            joins &= config.mptcp.allow_v0 || !v0;
        }
        joins &= host > SERVER || usize::from(config.mptcp.subflows_max) >= paths;
        checksum |= host <= SERVER && config.mptcp.checksum == ChecksumPolicy::Always;
        story.push(format!("host{host}: {}", describe(&config)));
        sim.add_host(&config);
    }
    let shared = rng.random_bool(0.2).then(|| {
        let config = BottleneckConfig {
            rate_bps: scale(&mut rng, 5_000_000, 100_000_000),
            queue_bytes: scale(&mut rng, 30_000, 300_000),
            ecn_bytes: one(&mut rng, &[None, Some(15_000)]),
            ..BottleneckConfig::default()
        };
        story.push(format!("shared: {config:?}"));
        sim.add_bottleneck(config)
    });
    for _ in 0..paths {
        link(&mut sim, &mut rng, &mut story, CLIENT, shared);
    }
    for host in 2..hosts {
        for _ in 0..rng.random_range(1..=2) {
            link(&mut sim, &mut rng, &mut story, host, shared);
        }
    }

    let first = rng.random_range(0..paths);
    let boxes = entry.and_then(|e| boxes::place(&mut sim, &mut rng, &mut story, paths, first, e));
    let down = EACH_WAY + rng.random_range(0..EACH_WAY / 4);
    // What a box changed on the way up would come back changed.
    let alters = boxes.as_ref().is_some_and(Boxes::alters);
    let echo = rng.random_bool(0.5) && !alters;
    let up = if echo {
        down
    } else {
        EACH_WAY + rng.random_range(0..EACH_WAY / 4)
    };
    let serving = if echo {
        Role::Echo
    } else {
        Role::Peer { send: down }
    };
    let outcomes = sim.host(SERVER).serve(&[
        (MAIN, serving),
        (ECHO, Role::Echo),
        (SINK, Role::Peer { send: 0 }),
        (SOURCE, Role::Peer { send: SOURCE_BYTES }),
    ]);
    story.push(format!(
        "main: {up} bytes up, {down} down, echo {echo}, first on link{first}"
    ));
    let (token, client) = sim.connect(CLIENT, first, MAIN, Role::Peer { send: up });
    if alters {
        client.record();
        outcomes[0].record();
    }
    let main = Main {
        token,
        client,
        server: outcomes[0].clone(),
        down,
        up,
        echo,
        first,
        checksum,
    };
    let others = others(&mut sim, &mut rng, &mut story, hosts, alters);
    let faults = faults(&mut rng, &mut story, paths);
    World {
        sim,
        story,
        rng,
        main,
        others,
        faults,
        overtaken: 0,
        boxes,
        joins,
    }
}

fn host_config(rng: &mut StdRng) -> HostConfig {
    let mut mptcp = MptcpConfig {
        checksum: one(
            rng,
            &[
                ChecksumPolicy::IfRequested,
                ChecksumPolicy::IfRequested,
                ChecksumPolicy::Always,
            ],
        ),
        recv_buffer_bytes: one(rng, &[32 << 10, 128 << 10, 1 << 20, 4 << 20]),
        send_buffer_bytes: one(rng, &[64 << 10, 256 << 10, 1 << 20, 4 << 20]),
        subflows_max: one(rng, &[2, 4, 8]),
        scheduler: one(
            rng,
            &[
                SchedulerKind::MinRtt,
                SchedulerKind::RoundRobin,
                SchedulerKind::Redundant,
                SchedulerKind::Blest,
                SchedulerKind::Ecf,
            ],
        ),
        window_option: rng.random_bool(0.2),
        fast_open: rng.random_bool(0.2),
        early_answers: rng.random_bool(0.5),
        allow_v0: rng.random_bool(0.5),
        connect_version: one(rng, &[Version::V1, Version::V1, Version::V1, Version::V0]),
        ..MptcpConfig::default()
    };
    let tcp = &mut mptcp.tcp;
    tcp.congestion = one(
        rng,
        &[
            CongestionKind::Cubic,
            CongestionKind::NewReno,
            CongestionKind::Lia,
            CongestionKind::Olia,
            CongestionKind::Balia,
        ],
    );
    tcp.ecn = one(
        rng,
        &[EcnPolicy::Off, EcnPolicy::Passive, EcnPolicy::Always],
    );
    tcp.window_scale = rng.random_bool(0.9);
    tcp.timestamps = rng.random_bool(0.8);
    tcp.sack = rng.random_bool(0.85);
    tcp.pacing = rng.random_bool(0.7);
    tcp.hystart = rng.random_bool(0.7);
    tcp.delayed_ack = one(rng, &[Duration::from_millis(40), Duration::from_millis(5)]);
    // A sender that holds the last frame cannot hear the ACK that would free it: the worker
    // keeps some back, hosts of the simulator leave it to their connections' limits.
    let frames = one(rng, &[1024, 2048, 4096]);
    mptcp.send_buffer_frames = frames / 3;
    HostConfig {
        mptcp,
        frames,
        tx_ring: one(rng, &[16, 64, 512]),
        burst_bytes: 0,
        join: rng.random_bool(0.9),
        announce: Vec::new(),
    }
}

fn describe(config: &HostConfig) -> String {
    let (mptcp, tcp) = (&config.mptcp, &config.mptcp.tcp);
    format!(
        "{:?} (v0 {}), fast open {} {}, window option {}, {:?}, checksum {:?}, buffers {} in {} out, subflows {}, {:?}, {:?}, wscale {}, timestamps {}, sack {}, \
         pacing {}, hystart {}, frames {}, ring {}, bursts {}, join {}",
        mptcp.connect_version,
        mptcp.allow_v0,
        mptcp.fast_open,
        mptcp.early_answers,
        mptcp.window_option,
        tcp.ecn,
        mptcp.checksum,
        mptcp.recv_buffer_bytes,
        mptcp.send_buffer_bytes,
        mptcp.subflows_max,
        tcp.congestion,
        mptcp.scheduler,
        tcp.window_scale,
        tcp.timestamps,
        tcp.sack,
        tcp.pacing,
        tcp.hystart,
        config.frames,
        config.tx_ring,
        config.burst_bytes,
        config.join
    )
}

/// A link between `host` and the server.
fn link(
    sim: &mut Sim,
    rng: &mut StdRng,
    story: &mut Vec<String>,
    host: usize,
    shared: Option<usize>,
) {
    let burst = Burst {
        to_bad: 0.002,
        to_good: 0.2,
        loss: 0.8,
        longest: Duration::from_millis(500),
    };
    let config = LinkConfig {
        rate_bps: Some(scale(rng, 4_000_000, 200_000_000)),
        delay: micros(rng, 100, 50_000),
        jitter: Duration::from_micros(one(rng, &[0, 0, 0, 500, 5_000])),
        queue_bytes: scale(rng, 20_000, 300_000),
        queue_packets: one(rng, &[usize::MAX, usize::MAX, 40]),
        ecn_bytes: one(rng, &[None, None, Some(15_000)]),
        bottleneck: shared.filter(|_| rng.random_bool(0.7)),
        loss: one(rng, &[0.0, 0.0, 0.001, 0.01, 0.03]),
        burst: one(rng, &[None, None, None, Some(burst)]),
        reorder: one(rng, &[0.0, 0.0, 0.01, 0.1]),
        reorder_delay: micros(rng, 200, 10_000),
        duplicate: one(rng, &[0.0, 0.0, 0.02]),
        corrupt: one(rng, &[0.0, 0.0, 0.005]),
        mtu: one(rng, &[1500, 1500, 1400, 1280]),
        too_big: one(rng, &[TooBig::Silent, TooBig::Icmp]),
        ipv6: rng.random_bool(0.4),
        boxes_at: one(rng, &[End::A, End::B]),
        ..LinkConfig::default()
    };
    let number = sim.links();
    story.push(format!(
        "link{number}: host{host} to host{SERVER}, {config:?}"
    ));
    sim.add_link(host, SERVER, config);
}

/// Connections beside the main one: little work, much life. Who counts the bytes of an answer
/// would wait for ever for those that a box has taken out (`alters`), over any protocol.
fn others(
    sim: &mut Sim,
    rng: &mut StdRng,
    story: &mut Vec<String>,
    hosts: usize,
    alters: bool,
) -> Vec<Other> {
    let mut others = Vec::new();
    for _ in 0..rng.random_range(0..=3) {
        let host = one(rng, &[CLIENT, hosts - 1]);
        let host = if host == SERVER { CLIENT } else { host };
        let links: Vec<usize> = (0..sim.links())
            .filter(|l| sim.joins(*l, host, SERVER))
            .collect();
        let kind = rng.random_range(0..6);
        let bytes = scale(rng, 1, 60_000);
        let (count, port, role, down) = match kind {
            0 => (
                rng.random_range(2..12),
                ECHO,
                Role::Peer { send: bytes / 4 },
                bytes / 4,
            ),
            1 => {
                let (rounds, bytes) = (rng.random_range(1..20), scale(rng, 1, 2_000));
                let all = rounds * bytes;
                let role = if alters {
                    Role::Peer { send: all }
                } else {
                    Role::Chat { rounds, bytes }
                };
                (1, ECHO, role, all)
            }
            // Half-closed from the start, in one direction or the other.
            2 => (1, SOURCE, Role::Peer { send: 0 }, SOURCE_BYTES),
            3 => (1, SINK, Role::Peer { send: bytes * 4 }, 0),
            _ => (1, ECHO, Role::Peer { send: bytes * 6 }, 0),
        };
        let cut = match kind {
            4 => Some(Cut::Abort),
            5 => Some(Cut::Close),
            _ => None,
        };
        let cut = cut.map(|cut| (millis(rng, 1, 2_000), cut));
        story.push(format!(
            "{count} beside: host{host} port {port}, {role:?}, cut {cut:?}"
        ));
        for _ in 0..count {
            let link = one(rng, &links);
            let (token, client) = sim.connect(host, link, port, role);
            others.push(Other {
                host,
                link,
                token,
                client,
                down,
                free: cut.is_some(),
                cut,
            });
        }
    }
    others
}

fn faults(rng: &mut StdRng, story: &mut Vec<String>, paths: usize) -> Vec<Trigger> {
    let count = FAULTS_MIN + rng.random_range(0..3);
    let mut faults: Vec<Trigger> = (0..count).map(|_| fault(rng, paths)).collect();
    faults.sort_by(|a, b| a.after.total_cmp(&b.after));
    for fault in &faults {
        story.push(format!("fault: {fault:?}"));
    }
    faults
}

fn fault(rng: &mut StdRng, paths: usize) -> Trigger {
    let link = rng.random_range(0..paths);
    let host = one(rng, &[CLIENT, SERVER]);
    let id = u8::try_from(rng.random_range(0..=paths)).unwrap_or_default();
    let fault = match rng.random_range(0..13) {
        0 | 1 => Trouble::Blackhole { link },
        2 | 3 => Trouble::Carrier { link, host },
        4 | 5 => Trouble::Mtu {
            link,
            mtu: rng.random_range(1280..1450),
            too_big: one(rng, &[TooBig::Silent, TooBig::Icmp]),
        },
        6 => Trouble::Loss { link, loss: 0.3 },
        7 => Trouble::Slow {
            link,
            rate_bps: 1_000_000,
        },
        8 => Trouble::Longer {
            link,
            by: millis(rng, 5, 200),
        },
        9 => Trouble::Corrupt { link },
        10 => Trouble::CloseSubflow { host: CLIENT },
        11 => Trouble::Backup { host, id },
        _ => Trouble::RemoveAddress { host: CLIENT, id },
    };
    Trigger {
        after: rng.random_range(0.02..0.85),
        fault,
        lasts: pick::millis(rng, 20, 3_000),
    }
}

/// The address identifier of a fault.
pub(super) fn address_id(id: u8) -> AddressId {
    AddressId(id)
}
