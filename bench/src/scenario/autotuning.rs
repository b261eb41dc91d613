//! Windows that grow with what a path needs.
//!
//! A client sends to a reader over paths of very different rate and delay. The window has to
//! hold the sum of the rates times the longest delay, for a byte on the slowest path holds back
//! what arrives on all others. Fixed windows of some sizes run beside those that grow.

use std::time::Duration;

use braid_dataplane::counters::Counter;

use super::report::{Row, Samples, Study};
use crate::sim::{HostConfig, LinkConfig, Outcomes, Role, Sim};

const CLIENT: usize = 0;
const SERVER: usize = 1;
const PORT: u16 = 9;
const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
/// More than any run carries.
const ENDLESS: u64 = 1 << 40;
/// By then a first window is full.
const SETTLED: Duration = Duration::from_secs(1);
/// Without chance in the network one is as good as many.
const SEED: u64 = 0;
/// Ethernet, IP, TCP with timestamps and a DSS, of a full packet of 1514 bytes.
const GOODPUT_SHARE: f64 = 1428.0 / 1514.0;

/// One path of a scenario.
#[derive(Copy, Clone, Debug)]
pub struct Path {
    /// Rate in Mb/s.
    pub mbps: u32,
    /// Round trip without queues, in milliseconds.
    pub rtt_ms: u32,
}

impl Path {
    /// Bytes that fill it.
    fn product_bytes(self) -> u64 {
        u64::from(self.mbps) * u64::from(self.rtt_ms) * 125
    }

    fn link(self) -> LinkConfig {
        LinkConfig {
            rate_bps: Some(u64::from(self.mbps) * 1_000_000),
            delay: Duration::from_millis(u64::from(self.rtt_ms)) / 2,
            queue_bytes: self.product_bytes().max(128 << 10),
            queue_packets: usize::MAX,
            ..LinkConfig::default()
        }
    }
}

/// How windows are chosen.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Windows {
    /// So many bytes from the start, and no more.
    Fixed(u32),
    /// From 128 KiB up to 32 MiB, as needed: the defaults.
    Tuned,
}

/// What one run showed.
#[derive(Copy, Clone, Debug)]
pub struct Measured {
    /// Of the sum of what the paths carry, once the connection has warmed up.
    pub share: f64,
    /// Frames that the receiver's windows promised at the most.
    pub promised_max: u32,
    /// Frames that were in use at the receiver at the most.
    pub used_max: u32,
    /// Receive buffers grown.
    pub grown: u64,
}

/// The paths of the bar, by which autotuning is judged.
pub const UNEQUAL: [Path; 2] = [
    Path {
        mbps: 1000,
        rtt_ms: 100,
    },
    Path {
        mbps: 100,
        rtt_ms: 10,
    },
];

/// A reader at `reads_mbps` (or as fast as data arrives), measured for `measure` after `warm`.
///
/// # Panics
/// If bytes arrive that were not sent.
#[must_use]
pub fn run(
    paths: &[Path],
    windows: Windows,
    reads_mbps: Option<u32>,
    (warm, measure): (Duration, Duration),
    seed: u64,
) -> Measured {
    let mut sim = Sim::new(seed);
    for host in [CLIENT, SERVER] {
        let mut config = HostConfig {
            frames: 65_536,
            tx_ring: 4096,
            ..HostConfig::default()
        };
        if let Windows::Fixed(bytes) = windows {
            config.mptcp.recv_buffer_initial = bytes;
            config.mptcp.recv_buffer_bytes = bytes;
        }
        assert_eq!(sim.add_host(&config), host);
    }
    for path in paths {
        sim.add_link(CLIENT, SERVER, path.link());
    }
    let role = match reads_mbps {
        Some(_) => Role::Reader,
        None => Role::Peer { send: 0 },
    };
    let reader: Outcomes = sim.host(SERVER).serve(&[(PORT, role)]).remove(0);
    sim.connect(CLIENT, 0, PORT, Role::Peer { send: ENDLESS });
    if let Some(mbps) = reads_mbps {
        // What it may read while nothing is there does not add up to a fast start.
        sim.run_until(SETTLED, |_| false);
        let bytes = u64::from(mbps) * 125;
        sim.read_slowly(SERVER, reader.clone(), bytes, Duration::from_millis(1));
    }
    let (mut promised_max, mut used_max) = (0, 0);
    let mut sampled = Duration::ZERO;
    let mut watch = |sim: &mut Sim| {
        if sim.elapsed() >= sampled {
            sampled = sim.elapsed() + Duration::from_millis(5);
            promised_max = promised_max.max(sim.host(SERVER).engine().promised_frames());
            let frames = sim.host(SERVER).frames();
            used_max = used_max.max(frames.total() - frames.free);
        }
        false
    };
    sim.run_until(warm, &mut watch);
    let before = reader.get().received;
    sim.run_until(warm + measure, &mut watch);
    let outcome = reader.get();
    assert_eq!(outcome.wrong_at, None);
    let bits = (outcome.received - before) as f64 * 8.0;
    let sum: u32 = paths.iter().map(|p| p.mbps).sum();
    let carried = f64::from(sum) * 1e6 * measure.as_secs_f64() * GOODPUT_SHARE;
    Measured {
        share: bits / carried,
        promised_max,
        used_max,
        grown: sim.host(SERVER).count(Counter::RcvWindowGrown),
    }
}

/// A scenario of the table.
struct Scenario {
    name: &'static str,
    paths: Vec<Path>,
    reads_mbps: Option<u32>,
    share: &'static str,
    frames: &'static str,
}

fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "1 Gb/s at 100 ms and 100 Mb/s at 10 ms",
            paths: UNEQUAL.to_vec(),
            reads_mbps: None,
            share: "tuned ≥ 90 %: the window has to hold 13.8 MB",
            frames: "fixed ones promise what they are",
        },
        Scenario {
            name: "100 Mb/s at 100 ms and 20 Mb/s at 20 ms",
            paths: vec![
                Path {
                    mbps: 100,
                    rtt_ms: 100,
                },
                Path {
                    mbps: 20,
                    rtt_ms: 20,
                },
            ],
            reads_mbps: None,
            share: "1.5 MB fill them",
            frames: "grows to what they need, not to its limit",
        },
        Scenario {
            name: "100 Mb/s at 10 ms",
            paths: vec![Path {
                mbps: 100,
                rtt_ms: 10,
            }],
            reads_mbps: None,
            share: "125 KB fill it",
            frames: "stays small",
        },
        Scenario {
            name: "1 Gb/s at 100 ms, read at 10 Mb/s",
            paths: vec![UNEQUAL[0]],
            reads_mbps: Some(10),
            share: "1 %: the reader is the limit",
            frames: "a slow reader does not grow a window",
        },
    ]
}

/// Runs everything.
#[must_use]
pub fn study() -> Study {
    let variants = [
        ("256 KiB", Windows::Fixed(256 * KIB)),
        ("4 MiB", Windows::Fixed(4 * MIB)),
        ("32 MiB", Windows::Fixed(32 * MIB)),
        ("tuned", Windows::Tuned),
    ];
    let time = (Duration::from_secs(3), Duration::from_secs(2));
    let mut rows = Vec::new();
    for scenario in scenarios() {
        let runs = variants
            .map(|(_, windows)| run(&scenario.paths, windows, scenario.reads_mbps, time, SEED));
        let samples = |of: fn(&Measured) -> f64| {
            let one = |m: &Measured| Samples::new(vec![of(m)]);
            runs.iter().map(one).collect()
        };
        rows.push(Row {
            scenario: scenario.name,
            measure: "% of the paths' sum",
            expected: scenario.share,
            samples: samples(|m| m.share * 100.0),
        });
        rows.push(Row {
            scenario: scenario.name,
            measure: "frames promised",
            expected: scenario.frames,
            samples: samples(|m| f64::from(m.promised_max)),
        });
    }
    Study {
        name: "autotuning",
        title: "Windows that grow with need",
        preface: PREFACE,
        competitors: variants.iter().map(|(name, _)| *name).collect(),
        rows,
    }
}

const PREFACE: &str = "\
A client sends without end to a reader over simulated paths without loss but that of full
queues (each holds what its path holds). Goodput is measured from second 3 to second 5 and shown
as a share of what all paths together could carry; *frames promised* is the most that the
receiver's window ever stood for, at a frame per full segment. Fixed windows of three sizes run
beside the tuned one, which starts at 128 KiB and may grow to 32 MiB (`receive-buffer-max`). There is no chance in these networks:
one run says it all.";
