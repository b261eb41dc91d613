//! Coupled congestion control: what LIA (RFC 6356), OLIA (Khalili et al. 2012) and BALIA (Peng
//! et al. 2016) claim, against uncoupled NewReno on each subflow.
//!
//! A connection of one subflow behaves as NewReno whichever of the four it runs, so "a TCP" here
//! is a connection of one subflow on the same hosts.

mod network;

use std::time::Duration;

use braid_dataplane::tcp::CongestionKind;

use self::network::{Carried, Flow, Network};
use super::report::{Row, Samples, Study};
use crate::sim::LinkConfig;

/// The first is not coupled.
const COMPETITORS: [(&str, CongestionKind); 4] = [
    ("reno", CongestionKind::NewReno),
    ("lia", CongestionKind::Lia),
    ("olia", CongestionKind::Olia),
    ("balia", CongestionKind::Balia),
];
const SEEDS: u64 = 7;
/// Slow start and the first losses are not measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// What is measured where queues lose ...
const QUEUES: Duration = Duration::from_secs(50);
/// ... and where chance does, which takes longer to even out.
const CHANCE: Duration = Duration::from_secs(120);
const DELAY: Duration = Duration::from_millis(20);

const PREFACE: &str = "Two hosts in the simulator, one-way delay 20 ms; 50 s after the first 5 \
are measured (120 s where losses are random). The median of 7 seeds, and in brackets the least \
and the most. `reno` is NewReno on each subflow without coupling; a TCP is a connection of one \
subflow, which is NewReno under each of the four.

- *shared bottleneck*: one link of 10 Mb/s with a queue of 50 kB carries a connection with two \
subflows and a TCP.
- *idle paths*: two links of 5 Mb/s, nobody else there.
- *equal loss*: two fast links that each lose 1 % of the packets at random.
- *unequal loss*: as before, but 0.5 % and 4 %.
- *crowded path*: two links of 8 Mb/s with queues of 50 kB; one TCP on the first, three on the \
second, and a connection with a subflow on each.

Coupled controllers leave a bad path but for one segment per round trip, of which the receiver \
delays the ACK by up to 40 ms: what goes there is even less than in theory, where windows are \
fluid.";

fn link(mbit: u64, queue_bytes: u64, loss: f64) -> LinkConfig {
    LinkConfig {
        rate_bps: Some(mbit * 1_000_000),
        delay: DELAY,
        queue_bytes,
        loss,
        ..LinkConfig::default()
    }
}

/// Flows of one run do not start at once, nor at the same times in all runs.
fn stagger(seed: u64, n: u64) -> Duration {
    Duration::from_millis(200 * n + 61 * seed % 200)
}

/// What flows carry while it counts.
fn measure(network: &mut Network, flows: &[Flow], time: Duration) -> Vec<Carried> {
    network.run_to(WARM_UP);
    let before: Vec<Carried> = flows.iter().map(|f| network.carried(*f)).collect();
    network.run_to(WARM_UP + time);
    flows
        .iter()
        .zip(before)
        .map(|(flow, before)| {
            let after = network.carried(*flow);
            let links = after.per_link.iter().zip(before.per_link);
            Carried {
                goodput: after.goodput - before.goodput,
                per_link: links.map(|(a, b)| a - b).collect(),
            }
        })
        .collect()
}

/// The part of a connection with two subflows of what a link carries for it and a TCP.
fn shared_bottleneck(seed: u64, kind: CongestionKind) -> f64 {
    let mut network = Network::new(seed, kind, false, vec![link(10, 50_000, 0.0)]);
    let mptcp = network.open(0);
    network.run_to(stagger(seed, 1));
    let tcp = network.open(0);
    network.run_to(stagger(seed, 2));
    network.add_subflow(mptcp, mptcp);
    let carried = measure(&mut network, &[mptcp, tcp], QUEUES);
    let (mptcp, tcp) = (carried[0].goodput, carried[1].goodput);
    mptcp as f64 / (mptcp + tcp) as f64
}

/// A connection alone on some links.
fn alone(seed: u64, kind: CongestionKind, time: Duration, links: Vec<LinkConfig>) -> Carried {
    let mut network = Network::new(seed, kind, true, links);
    let flow = network.open(0);
    measure(&mut network, &[flow], time).remove(0)
}

/// How much more a connection over two links carries than a TCP on the first (the median of
/// which is meant, lest chance count twice), and which part of that goes over the second.
fn against_best(time: Duration, links: impl Fn() -> [LinkConfig; 2]) -> Vec<Vec<(f64, f64)>> {
    let tcp = Samples::new(
        (1..=SEEDS)
            .map(|seed| {
                let best = links().into_iter().take(1).collect();
                alone(seed, CongestionKind::NewReno, time, best).goodput as f64
            })
            .collect(),
    );
    each(|seed, kind| {
        let both = alone(seed, kind, time, links().into());
        let sent: u64 = both.per_link.iter().sum();
        (
            both.goodput as f64 / tcp.median(),
            both.per_link[1] as f64 / sent as f64,
        )
    })
}

/// The second link's part in what a connection carries, and Mb/s of each TCP there.
fn crowded_path(seed: u64, kind: CongestionKind) -> (f64, f64) {
    let links = vec![link(8, 50_000, 0.0), link(8, 50_000, 0.0)];
    let mut network = Network::new(seed, kind, false, links);
    let mut flows = Vec::new();
    for (n, link) in [0, 0, 1, 1, 1].into_iter().enumerate() {
        network.run_to(stagger(seed, n as u64));
        flows.push(network.open(link));
    }
    network.run_to(stagger(seed, 5));
    network.add_subflow(flows[0], flows[2]);
    let carried = measure(&mut network, &flows, QUEUES);
    let mptcp = &carried[0].per_link;
    let crowd: u64 = carried[2..].iter().map(|c| c.goodput).sum();
    (
        mptcp[1] as f64 / (mptcp[0] + mptcp[1]) as f64,
        crowd as f64 / 3.0 * 8e-6 / QUEUES.as_secs_f64(),
    )
}

/// One run per seed for each competitor.
fn each<T>(run: impl Fn(u64, CongestionKind) -> T) -> Vec<Vec<T>> {
    COMPETITORS
        .iter()
        .map(|(_, kind)| (1..=SEEDS).map(|seed| run(seed, *kind)).collect())
        .collect()
}

fn row<T>(
    [scenario, measure, expected]: [&'static str; 3],
    runs: &[Vec<T>],
    value: impl Fn(&T) -> f64,
) -> Row {
    let samples = runs
        .iter()
        .map(|seeds| Samples::new(seeds.iter().map(&value).collect()))
        .collect();
    Row {
        scenario,
        measure,
        expected,
        samples,
    }
}

/// All of it.
#[must_use]
pub fn study() -> Study {
    let shared = each(shared_bottleneck);
    let idle = against_best(QUEUES, || [link(5, 50_000, 0.0), link(5, 50_000, 0.0)]);
    let lossy = |loss| link(50, 1 << 20, loss);
    let equal = against_best(CHANCE, || [lossy(0.01), lossy(0.01)]);
    let unequal = against_best(CHANCE, || [lossy(0.005), lossy(0.04)]);
    let crowded = each(crowded_path);
    let times = "goodput ÷ that of a TCP on the best path";
    Study {
        name: "congestion",
        title: "Coupled congestion control",
        preface: PREFACE,
        competitors: COMPETITORS.iter().map(|(name, _)| *name).collect(),
        rows: vec![
            row(
                [
                    "shared bottleneck",
                    "part of the link's goodput",
                    "reno 2/3; coupled 1/2",
                ],
                &shared,
                |part| *part,
            ),
            row(["idle paths", times, "2"], &idle, |r| r.0),
            row(
                ["equal loss", times, "reno 2; coupled ≥ 1"],
                &equal,
                |r| r.0,
            ),
            row(
                ["unequal loss", times, "reno 1.35; coupled ≥ 1"],
                &unequal,
                |r| r.0,
            ),
            row(
                [
                    "unequal loss",
                    "part of the traffic on the worse path",
                    "reno 0.26; lia 0.11; olia → 0",
                ],
                &unequal,
                |r| r.1,
            ),
            row(
                [
                    "crowded path",
                    "part of the traffic on the crowded path",
                    "reno 1/3; coupled less",
                ],
                &crowded,
                |r| r.0,
            ),
            row(
                [
                    "crowded path",
                    "Mb/s of each TCP there",
                    "reno 2; coupled up to 2.7",
                ],
                &crowded,
                |r| r.1,
            ),
        ],
    }
}
