//! Schedulers: what redundancy, BLEST (Ferlin et al. 2016) and ECF (Lim et al. 2017) claim
//! against min-RTT and round-robin.
//!
//! Delays are those of the stream: from the moment the application has bytes at hand (or the
//! connection took them, in bulk) until the peer's application reads them, in order. That is
//! where head-of-line blocking shows.

use std::collections::VecDeque;
use std::time::Duration;

use braid_dataplane::mptcp::SchedulerKind;
use braid_dataplane::time::Instant;
use braid_dataplane::wire::types::AddressId;
use braid_dataplane::worker::Order;

use super::report::{Row, Samples, Study};
use crate::sim::{EPOCH, HostConfig, LinkConfig, Outcomes, Role, Sim};

/// In the order of the table's columns.
pub const COMPETITORS: [(&str, SchedulerKind); 5] = [
    ("min-rtt", SchedulerKind::MinRtt),
    ("round-robin", SchedulerKind::RoundRobin),
    ("redundant", SchedulerKind::Redundant),
    ("blest", SchedulerKind::Blest),
    ("ecf", SchedulerKind::Ecf),
];
const SEEDS: u64 = 9;

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SINK: u16 = 9;
/// Nothing takes longer.
const LIMIT: Duration = Duration::from_secs(600);
/// Both paths are joined and idle by then.
const SETTLED: Duration = Duration::from_secs(1);

const PREFACE: &str = "Two hosts in the simulator, CUBIC; the median of 9 seeds, and in brackets \
the least and the most. *Unequal paths*: 10 Mb/s with a round trip of 20 ms beside 2 Mb/s with \
150 ms, each with a queue of 64 kB and 0.05 % loss.

- *bulk, small window*: 3 MB over the unequal paths into a receive buffer of 96 kB. Waiting \
bytes are those in the receiver's reassembly queue, averaged over time; delays are per segment.
- *bulk, larger window*: 8 MB into 512 kB; the fast path alone needs 6.8 s.
- *bursts after idle*: 20 times 64 kB over the unequal paths, 0.3 s apart, into the default \
receive buffer, which grows: from the first byte at hand to the last byte read.
- *thin stream, loss*: 1000 messages of 1 kB, 20 ms apart, over two paths of 10 Mb/s and 20 ms that \
lose 3 % each.
- *equal paths*: 6 MB over two paths of 10 Mb/s and 20 ms without loss.";

fn link(mbit: u64, rtt_ms: u64, loss: f64) -> LinkConfig {
    LinkConfig {
        rate_bps: Some(mbit * 1_000_000),
        delay: Duration::from_micros(rtt_ms * 500),
        queue_bytes: 64_000,
        loss,
        ..LinkConfig::default()
    }
}

fn unequal() -> Vec<LinkConfig> {
    vec![link(10, 20, 0.0005), link(2, 150, 0.0005)]
}

fn equal(loss: f64) -> Vec<LinkConfig> {
    vec![link(10, 20, loss), link(10, 20, loss)]
}

/// A connection over all links of a network, and both its ends.
struct Pair {
    sim: Sim,
    token: u32,
    client: Outcomes,
    server: Outcomes,
}

impl Pair {
    /// Connected, joined and idle.
    fn new(seed: u64, kind: SchedulerKind, window: Option<u32>, links: Vec<LinkConfig>) -> Self {
        let mut config = HostConfig {
            frames: 8192,
            ..HostConfig::default()
        };
        config.mptcp.scheduler = kind;
        if let Some(window) = window {
            config.mptcp.recv_buffer_initial = window;
            config.mptcp.recv_buffer_bytes = window;
        }
        let mut sim = Sim::new(seed);
        for host in [CLIENT, SERVER] {
            assert_eq!(sim.add_host(&config), host);
        }
        for link in links {
            sim.add_link(CLIENT, SERVER, link);
        }
        let server = sim
            .host(SERVER)
            .serve(&[(SINK, Role::Peer { send: 0 })])
            .remove(0);
        let (token, client) = sim.connect(CLIENT, 0, SINK, Role::Metered);
        let mut pair = Self {
            sim,
            token,
            client,
            server,
        };
        // The peer answers the first byte; only then may be joined.
        pair.give(1);
        pair.sim.run_until(SETTLED, |_| false);
        assert_eq!(pair.server.get().received, 1);
        pair
    }

    /// The application has more.
    fn give(&mut self, bytes: u64) {
        self.client.allow(bytes);
        self.look();
    }

    /// Makes the engine look at the connection: an order about an address that nobody has.
    fn look(&mut self) {
        let order = Order::SetBackup {
            address_id: AddressId(250),
            backup: false,
        };
        let result = self.sim.order(CLIENT, self.token, order);
        result.expect("the connection is open");
    }

    /// Runs until the peer has read `bytes`; `each` sees every step.
    fn read(&mut self, bytes: u64, mut each: impl FnMut(&mut Sim)) {
        let server = self.server.clone();
        let done = self.sim.run_until(LIMIT, |sim| {
            each(sim);
            server.get().received >= bytes
        });
        assert!(done, "{:?} {:?}", self.client.get(), self.server.get());
        assert_eq!(self.server.get().wrong_at, None);
    }

    /// Ends in order.
    fn finish(mut self) {
        self.client.end();
        self.look();
        let client = self.client.clone();
        let done = self.sim.run_until(LIMIT, |_| client.get().closed.is_some());
        assert!(done, "{:?}", self.client.get());
    }
}

/// Milliseconds.
fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}

/// The value below which `percent` of `values` are.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// What a bulk transfer shows.
struct Bulk {
    seconds: f64,
    waiting_kb: f64,
    delay_p50_ms: f64,
    delay_p99_ms: f64,
    /// The larger link's part of all bytes sent.
    larger_share: f64,
}

/// Follows bytes from the sender's queue to the reader.
#[derive(Default)]
struct Follower {
    /// When the connection had taken how much.
    taken: VecDeque<(Duration, u64)>,
    read: u64,
    delays: Vec<f64>,
}

impl Follower {
    fn step(&mut self, now: Duration, taken: u64, read: u64) {
        if self.taken.back().is_none_or(|(_, t)| *t < taken) {
            self.taken.push_back((now, taken));
        }
        // A sample for each segment's worth.
        while self.read + 1420 <= read {
            self.read += 1420;
            while self.taken.front().is_some_and(|(_, t)| *t < self.read) {
                self.taken.pop_front();
            }
            if let Some((at, _)) = self.taken.front() {
                self.delays.push(ms(now - *at));
            }
        }
    }
}

fn bulk(
    seed: u64,
    kind: SchedulerKind,
    bytes: u64,
    window: Option<u32>,
    links: Vec<LinkConfig>,
) -> Bulk {
    let mut pair = Pair::new(seed, kind, window, links);
    let carried = |pair: &Pair| [0, 1].map(|l| pair.sim.link(l).sent_bytes[CLIENT] as f64);
    let before = carried(&pair);
    let start = pair.sim.elapsed();
    pair.give(bytes);
    let (client, server) = (pair.client.clone(), pair.server.clone());
    let mut follower = Follower::default();
    let (mut waited, mut last) = (0.0, (start, 0));
    pair.read(1 + bytes, |sim| {
        let now = sim.elapsed();
        waited += (now - last.0).as_secs_f64() * last.1 as f64;
        let at = Instant::default() + EPOCH + now;
        let conns = sim.host(SERVER).engine().conns(at, 0, 1);
        last = (now, conns.first().map_or(0, |(_, c)| c.out_of_order_bytes));
        follower.step(now, client.get().sent, server.get().received);
    });
    let took = (pair.sim.elapsed() - start).as_secs_f64();
    let after = carried(&pair);
    let sent = [after[0] - before[0], after[1] - before[1]];
    pair.finish();
    Bulk {
        seconds: took,
        waiting_kb: waited / took / 1000.0,
        delay_p50_ms: percentile(&mut follower.delays, 50),
        delay_p99_ms: percentile(&mut follower.delays, 99),
        larger_share: 100.0 * sent[0].max(sent[1]) / (sent[0] + sent[1]),
    }
}

/// From at hand to read, for each of `count` pieces of `bytes` given `every` so often.
fn pieces(
    seed: u64,
    kind: SchedulerKind,
    (count, bytes, every): (u32, u64, Duration),
    links: Vec<LinkConfig>,
) -> Vec<f64> {
    let mut pair = Pair::new(seed, kind, None, links);
    let server = pair.server.clone();
    let mut given = VecDeque::new();
    let mut delays = Vec::new();
    let mut read = 1 + bytes;
    let mut note = |given: &mut VecDeque<Duration>, now: Duration| {
        while server.get().received >= read {
            read += bytes;
            let at: Duration = given.pop_front().expect("read after it was given");
            delays.push(ms(now - at));
        }
    };
    for n in 0..count {
        // Not in step with anything.
        let from = SETTLED + every * n + Duration::from_micros(u64::from(n) * 137 % 1000);
        pair.sim.run_until(from, |sim| {
            note(&mut given, sim.elapsed());
            false
        });
        given.push_back(pair.sim.elapsed());
        pair.give(bytes);
    }
    pair.read(1 + u64::from(count) * bytes, |sim| {
        note(&mut given, sim.elapsed());
    });
    note(&mut given, pair.sim.elapsed());
    pair.finish();
    assert_eq!(delays.len(), count as usize);
    delays
}

/// One row per measure, in the order of `measures`; `run` yields a seed's figures.
fn rows<const N: usize>(
    scenario: &'static str,
    measures: [(&'static str, &'static str); N],
    run: impl Fn(u64, SchedulerKind) -> [f64; N],
) -> Vec<Row> {
    let figures: Vec<Vec<[f64; N]>> = COMPETITORS
        .iter()
        .map(|(_, kind)| (1..=SEEDS).map(|seed| run(seed, *kind)).collect())
        .collect();
    measures
        .iter()
        .enumerate()
        .map(|(i, (measure, expected))| Row {
            scenario,
            measure,
            expected,
            samples: figures
                .iter()
                .map(|seeds| Samples::new(seeds.iter().map(|f| f[i]).collect()))
                .collect(),
        })
        .collect()
}

/// Runs everything.
#[must_use]
pub fn study() -> Study {
    let mut all = rows(
        "bulk, small window",
        [
            ("time, s", "blest no slower than min-rtt"),
            ("waiting out of order, kB", "blest less than min-rtt"),
            ("delay, median, ms", ""),
            ("delay, 99 %, ms", "blest less than min-rtt"),
        ],
        |seed, kind| {
            let b = bulk(seed, kind, 3_000_000, Some(96_000), unequal());
            [b.seconds, b.waiting_kb, b.delay_p50_ms, b.delay_p99_ms]
        },
    );
    all.extend(rows(
        "bulk, larger window",
        [
            ("time, s", "blest and ecf use both paths"),
            ("waiting out of order, kB", "blest no more than min-rtt"),
        ],
        |seed, kind| {
            let b = bulk(seed, kind, 8_000_000, Some(512_000), unequal());
            [b.seconds, b.waiting_kb]
        },
    ));
    all.extend(rows(
        "bursts after idle",
        [
            ("completion, median, ms", "ecf less than min-rtt"),
            ("completion, 95 %, ms", "ecf less than min-rtt"),
        ],
        |seed, kind| {
            let every = Duration::from_millis(300);
            let mut delays = pieces(seed, kind, (20, 64_000, every), unequal());
            [percentile(&mut delays, 50), percentile(&mut delays, 95)]
        },
    ));
    all.extend(rows(
        "thin stream, loss",
        [
            ("delay, median, ms", ""),
            ("delay, 99 %, ms", "redundant least"),
        ],
        |seed, kind| {
            let every = Duration::from_millis(20);
            let mut delays = pieces(seed, kind, (1000, 1000, every), equal(0.03));
            [percentile(&mut delays, 50), percentile(&mut delays, 99)]
        },
    ));
    all.extend(rows(
        "equal paths",
        [
            ("time, s", "redundant takes twice as long"),
            ("larger share, %", "round-robin 50"),
        ],
        |seed, kind| {
            let b = bulk(seed, kind, 6_000_000, None, equal(0.0));
            [b.seconds, b.larger_share]
        },
    ));
    Study {
        name: "schedulers",
        title: "Schedulers",
        preface: PREFACE,
        competitors: COMPETITORS.iter().map(|(name, _)| *name).collect(),
        rows: all,
    }
}
