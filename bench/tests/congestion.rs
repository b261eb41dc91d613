//! Bounds on how well paths are used: rate, losses of one's own making, needless repetition.
//!
//! A link here is 100 Mb/s and 5 ms unless said otherwise: 20 MiB take 1.79 s with headers.

use std::time::Duration;

use braid_bench::sim::{EPOCH, Fault, HostConfig, LinkConfig, LinkState, Role, Sim};
use braid_dataplane::counters::Counter;
use braid_dataplane::tcp::CongestionKind;
use braid_dataplane::time::Instant;

const CLIENT: usize = 0;
const SERVER: usize = 1;
/// A service that sends back.
const ECHO: u16 = 7;
/// A service that reads.
const SINK: u16 = 9;
const BYTES: u64 = 20 << 20;

/// What a transfer took.
#[derive(Debug)]
struct Cost {
    time: Duration,
    links: Vec<LinkState>,
    /// DSACKs that either end received: data was sent again that had arrived.
    dsacks: u64,
    retransmitted: u64,
    recoveries: u64,
    timeouts: u64,
}

impl Cost {
    fn lost(&self) -> u64 {
        self.links.iter().map(|l| l.lost).sum()
    }

    fn sent(&self) -> u64 {
        self.links.iter().flat_map(|l| l.sent).sum()
    }
}

fn network(seed: u64, kind: CongestionKind, links: Vec<LinkConfig>) -> Sim {
    let mut config = HostConfig::default();
    config.mptcp.tcp.congestion = kind;
    let mut sim = Sim::new(seed);
    for host in [CLIENT, SERVER] {
        assert_eq!(sim.add_host(&config), host);
    }
    for link in links {
        sim.add_link(CLIENT, SERVER, link);
    }
    sim.host(SERVER)
        .serve(&[(ECHO, Role::Echo), (SINK, Role::Peer { send: 0 })]);
    sim
}

/// Sends `BYTES` to a service and waits for the end.
fn transfer(seed: u64, kind: CongestionKind, links: Vec<LinkConfig>, port: u16) -> Cost {
    let count = links.len();
    let mut sim = network(seed, kind, links);
    let (_, client) = sim.connect(CLIENT, 0, port, Role::Peer { send: BYTES });
    let done = sim.run_until(Duration::from_secs(60), |_| client.get().closed.is_some());
    assert!(done, "{:?}", client.get());
    let mut both = |counter| sim.host(CLIENT).count(counter) + sim.host(SERVER).count(counter);
    let (dsacks, retransmitted) = (both(Counter::TCPDSACKRecv), both(Counter::RetransSegs));
    let (recoveries, timeouts) = (both(Counter::TCPSackRecovery), both(Counter::TCPTimeouts));
    let links = (0..count).map(|l| sim.link(l).clone()).collect();
    let cost = Cost {
        time: sim.elapsed(),
        links,
        dsacks,
        retransmitted,
        recoveries,
        timeouts,
    };
    println!("{cost:?}");
    cost
}

fn cubic(links: Vec<LinkConfig>, port: u16) -> Cost {
    transfer(1, CongestionKind::Cubic, links, port)
}

fn queue(queue_bytes: u64) -> LinkConfig {
    LinkConfig {
        queue_bytes,
        ..LinkConfig::default()
    }
}

fn rate(mbit: u64, delay_ms: u64) -> LinkConfig {
    let rate_bps = mbit * 1_000_000;
    LinkConfig {
        rate_bps: Some(rate_bps),
        delay: Duration::from_millis(delay_ms),
        queue_bytes: (rate_bps / 8 * 4 * delay_ms / 1000).max(64 << 10),
        ..LinkConfig::default()
    }
}

/// Slow start must notice the queue while it builds: one doubling later, it has overflowed.
#[test]
fn slow_start_overshoots_little() {
    for queue_bytes in [128 << 10, 400_000] {
        for kind in [CongestionKind::Cubic, CongestionKind::NewReno] {
            let cost = transfer(1, kind, vec![queue(queue_bytes)], SINK);
            assert!(cost.lost() < 150, "{cost:?}");
            assert!(cost.time < Duration::from_millis(1900), "{cost:?}");
            assert_eq!((cost.dsacks, cost.timeouts), (0, 0), "{cost:?}");
        }
    }
}

/// Data that carries ACKs has no room for SACK blocks; were they not sent apart, the sender
/// would take for lost what has arrived.
#[test]
fn data_both_ways_is_repaired_as_well_as_one_way() {
    for (queue_bytes, time_ms) in [(128 << 10, 1900), (400_000, 2100)] {
        let cost = cubic(vec![queue(queue_bytes)], ECHO);
        assert!(cost.time < Duration::from_millis(time_ms), "{cost:?}");
        assert!(cost.lost() * 100 < cost.sent() * 2, "{cost:?}");
        assert!(cost.recoveries <= 8, "{cost:?}");
        // A queue that overflows swallows ACKs, too: a few blocks are never heard of.
        assert!(cost.dsacks <= 10, "{cost:?}");
        assert!(cost.retransmitted <= cost.lost() + cost.dsacks, "{cost:?}");
        assert_eq!(cost.timeouts, 0, "{cost:?}");
    }
    // Less than the bandwidth-delay product.
    let cost = cubic(vec![queue(60_000)], ECHO);
    assert!(cost.lost() * 100 < cost.sent() * 3, "{cost:?}");
    assert!(cost.dsacks < 60, "{cost:?}");
}

#[test]
fn two_paths_take_half_the_time() {
    let cost = cubic(vec![LinkConfig::default(), LinkConfig::default()], ECHO);
    assert!(cost.time < Duration::from_millis(1150), "{cost:?}");
    assert!(cost.lost() * 100 < cost.sent() * 3, "{cost:?}");
    assert!(cost.dsacks <= 20, "{cost:?}");
    assert_eq!(cost.timeouts, 0, "{cost:?}");
}

#[test]
fn unequal_paths_add_up() {
    let cost = cubic(vec![rate(10, 20), rate(50, 5)], SINK);
    // What the payload takes with headers, at the sum of the rates.
    let ideal = Duration::from_secs_f64(BYTES as f64 * 1514.0 / 1420.0 * 8.0 / 60e6);
    assert!(ideal > cost.time.mul_f64(0.85), "{ideal:?} of {cost:?}");
    assert_eq!(cost.timeouts, 0, "{cost:?}");
}

/// No loss, no reordering: nothing is sent twice, whichever way and however many paths.
#[test]
fn without_loss_nothing_is_sent_again() {
    for port in [SINK, ECHO] {
        for count in [1, 2] {
            let links = (0..count).map(|_| queue(16 << 20)).collect();
            let cost = cubic(links, port);
            assert_eq!(cost.lost(), 0, "{cost:?}");
            assert_eq!((cost.retransmitted, cost.dsacks), (0, 0), "{cost:?}");
        }
    }
}

#[test]
fn jitter_and_loss_cause_few_needless_repetitions() {
    let link = || LinkConfig {
        jitter: Duration::from_millis(1),
        loss: 0.005,
        ..queue(400_000)
    };
    for seed in 1..=3 {
        for (count, port) in [(1, SINK), (1, ECHO), (2, SINK), (2, ECHO)] {
            let links = (0..count).map(|_| link()).collect();
            let cost = transfer(seed, CongestionKind::Cubic, links, port);
            assert!(cost.dsacks * 1000 < cost.sent(), "{cost:?}");
            assert!(cost.timeouts <= 1, "{cost:?}");
        }
    }
}

/// A lost packet is sent again when the ACKs of what followed it are back.
#[test]
fn a_lost_packet_is_repaired_in_a_round_trip() {
    // One during slow start, one with a long queue in front of it.
    for number in [60, 2000] {
        let mut count = 0;
        let mut link = queue(1 << 20);
        link.filters.push(Box::new(move |to, packet| {
            count += u32::from(to == SERVER && packet.len() > 1000);
            to != SERVER || count != number
        }));
        let mut sim = network(1, CongestionKind::Cubic, vec![link]);
        let (token, client) = sim.connect(CLIENT, 0, SINK, Role::Peer { send: 4 << 20 });
        // When it was lost and the window's worth of round trip then; when it was sent again.
        let mut lost = None;
        let mut repaired = None;
        sim.run_until(Duration::from_secs(60), |sim| {
            let now = sim.elapsed();
            if lost.is_none() && sim.link(0).lost > 0 {
                let at = Instant::default() + EPOCH + now;
                let info = sim
                    .host(CLIENT)
                    .engine()
                    .connection(token)
                    .expect("open")
                    .info(at);
                let tcp = &info.subflows[0].tcp;
                let drain_us = u64::from(tcp.in_flight_bytes) * 8 / 100;
                lost = Some((now, Duration::from_micros(drain_us.max(tcp.min_rtt_us))));
            }
            if repaired.is_none() && sim.host(CLIENT).count(Counter::RetransSegs) > 0 {
                repaired = Some(now);
            }
            client.get().closed.is_some()
        });
        let ((lost, round_trip), repaired) = lost.zip(repaired).expect("lost and repaired");
        let took = repaired - lost;
        assert!(
            took < round_trip.mul_f64(1.3),
            "packet {number}: {took:?}, {round_trip:?}"
        );
    }
}

/// A path that was dark for long is in use again soon after, because the other one pays for
/// frequent probes.
#[test]
fn a_path_that_was_dark_is_found_again_soon() {
    for dark_s in [3, 10, 17] {
        let slow = || LinkConfig {
            rate_bps: Some(10_000_000),
            ..queue(60_000)
        };
        let mut sim = network(1, CongestionKind::Cubic, vec![slow(), slow()]);
        let from = Duration::from_secs(1);
        let to = from + Duration::from_secs(dark_s);
        sim.at(from, Fault::Blackhole { link: 1, on: true });
        sim.at(to, Fault::Blackhole { link: 1, on: false });
        let (_, client) = sim.connect(CLIENT, 0, SINK, Role::Peer { send: 100 << 20 });
        let carried = |sim: &Sim| sim.link(1).sent_bytes.iter().sum::<u64>();
        let mut dark = 0;
        let back = sim.run_until(to + Duration::from_secs(30), |sim| {
            if sim.elapsed() < to {
                dark = carried(sim);
            }
            carried(sim) > dark + 100_000
        });
        assert!(
            back,
            "dark for {dark_s} s: never used again; {:?}",
            client.get()
        );
        let waited = sim.elapsed() - to;
        assert!(
            waited < Duration::from_secs(2),
            "dark for {dark_s} s: {waited:?}"
        );
    }
}
