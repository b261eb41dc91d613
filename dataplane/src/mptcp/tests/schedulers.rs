//! Whole connections under each scheduler: bad networks, dead paths, and what each promises.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::io::Port;
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::tcp::{Flags, SeqNumber};

const LIMIT: Duration = Duration::from_secs(600);
const MS: Duration = Duration::from_millis(1);

fn path(rate: u64, delay: Duration) -> PathConfig {
    PathConfig {
        rate,
        delay,
        ..PathConfig::default()
    }
}

/// Both hosts use `kind`; all paths but the first are joined.
fn connected(
    kind: SchedulerKind,
    seed: u64,
    paths: Vec<PathConfig>,
    client: TestApp,
    server: TestApp,
) -> Net {
    let count = paths.len();
    let mut net = Net::new(seed, paths);
    for host in &mut net.hosts {
        host.config.scheduler = kind;
    }
    net.start(client, server);
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].conn.is_some() && net.hosts[CLIENT].info(net.now).fully_established
    });
    for path in 1..count {
        net.join(path).unwrap();
    }
    net
}

fn sent_on(net: &Net, path: usize) -> u64 {
    let info = net.hosts[CLIENT].info(net.now);
    info.subflows[path].totals.bytes_sent
}

#[test]
fn every_scheduler_survives_loss_and_asymmetry() {
    for kind in SchedulerKind::ALL {
        for seed in 0..12 {
            let mut rng = StdRng::seed_from_u64(seed);
            let paths = (0..rng.random_range(2..=3))
                .map(|_| PathConfig {
                    delay: Duration::from_micros(rng.random_range(50..100_000)),
                    jitter: MS * rng.random_range(0..5),
                    loss: rng.random_range(0.0..0.05),
                    duplicate: 0.01,
                    v6: rng.random_bool(0.4),
                    mtu: [1500, 1400, 1280][rng.random_range(0..3)],
                    rate: rng.random_range(200_000..3_000_000),
                })
                .collect();
            let server = if rng.random_bool(0.5) {
                TestApp::echo()
            } else {
                TestApp::sender(2, 200_000)
            };
            let mut net = Net::new(seed, paths);
            for host in [CLIENT, SERVER] {
                let config = &mut net.hosts[host].config;
                config.scheduler = kind;
                config.recv_buffer_bytes = [16 << 10, 64 << 10, 1 << 20][rng.random_range(0..3)];
                if rng.random_bool(0.3) {
                    config.checksum = ChecksumPolicy::Always;
                }
            }
            let count = net.paths.len();
            let mut client = TestApp::sender(1, rng.random_range(100_000..400_000));
            if rng.random_bool(0.3) {
                client.fill_max = rng.random_range(1..2000);
            }
            net.start(client, server);
            let mut joined = 1;
            net.run_until(LIMIT, |net| {
                if net.hosts[CLIENT].info(net.now).fully_established && joined < count {
                    let _ = net.join(joined);
                    joined += 1;
                }
                joined == count
            });
            net.complete(LIMIT);
        }
    }
}

/// The longest time without a delivered byte while `run` milliseconds pass.
fn longest_gap(net: &mut Net, run: u32) -> Duration {
    let delivered = |net: &Net| net.hosts[SERVER].info(net.now).bytes_delivered;
    let (mut last, mut gap, mut longest) = (delivered(net), Duration::ZERO, Duration::ZERO);
    for _ in 0..run / 10 {
        net.run_for(10 * MS);
        let at = delivered(net);
        gap = if at > last {
            Duration::ZERO
        } else {
            gap + 10 * MS
        };
        longest = longest.max(gap);
        last = at;
    }
    longest
}

/// A path goes dark without a word. Whoever waits for it, copies to it or has its turn on it
/// goes on within a timeout; the path is in use again soon after it is back.
#[test]
fn a_blackholed_path_holds_no_scheduler_up() {
    for kind in SchedulerKind::ALL {
        // The fast one, then the slow one.
        for victim in [0, 1] {
            let paths = vec![path(1_000_000, 10 * MS), path(600_000, 40 * MS)];
            let (client, server) = (TestApp::sender(1, 8_000_000), TestApp::sender(2, 0));
            let mut net = connected(kind, 6, paths, client, server);
            net.run_for(600 * MS);
            net.blackhole[victim] = true;
            let gap = longest_gap(&mut net, 2000);
            assert!(gap < 1000 * MS, "{kind:?} {victim}: {gap:?}");
            let client = &net.hosts[CLIENT];
            let case = format!("{kind:?} {victim}: {}", net.describe());
            assert_eq!(client.count(Counter::SubflowStale), 1, "{case}");
            assert!(client.info(net.now).subflows[victim].stale, "{case}");
            net.blackhole[victim] = false;
            net.run_for(2000 * MS);
            let client = &net.hosts[CLIENT];
            assert_eq!(client.count(Counter::SubflowRecover), 1, "{case}");
            let before = sent_on(&net, victim);
            net.run_for(500 * MS);
            let news = sent_on(&net, victim) - before;
            assert!(news > 50_000, "{kind:?} {victim}: {news}");
            net.complete(LIMIT);
        }
    }
}

/// The path goes dark while nothing is sent; what is said then arrives all the same.
#[test]
fn a_path_that_went_dark_in_silence_costs_one_timeout() {
    for kind in SchedulerKind::ALL {
        for victim in [0, 1] {
            let paths = vec![path(1_000_000, 10 * MS), path(1_000_000, 10 * MS)];
            let mut client = TestApp::sender(1, 50_000);
            client.hold = true;
            let mut net = connected(kind, 15, paths, client, TestApp::sender(2, 0));
            net.run_for(1000 * MS);
            net.blackhole[victim] = true;
            let from = net.now;
            net.hosts[CLIENT].app().to_send += 30_000;
            net.poll(CLIENT);
            net.run_until(LIMIT, |net| {
                net.hosts[SERVER].app().received.len() == 80_000
            });
            let took = net.now - from;
            // RFC 6298's minimum here is 200 ms; the redundant scheduler needs none.
            let limit = if kind == SchedulerKind::Redundant {
                60 * MS
            } else {
                500 * MS
            };
            assert!(took < limit, "{kind:?} {victim}: {took:?}");
            net.hosts[CLIENT].app().hold = false;
            net.poll(CLIENT);
            net.run_until(LIMIT, |net| net.hosts[SERVER].app().eof);
            net.blackhole[victim] = false;
            net.complete(LIMIT);
        }
    }
}

/// It never comes back: the end, DATA_FIN included, goes over what is left.
#[test]
fn a_path_that_dies_for_good_costs_nobody_the_end() {
    for kind in SchedulerKind::ALL {
        for victim in [0, 1] {
            let paths = vec![path(1_000_000, 10 * MS), path(600_000, 40 * MS)];
            let (client, server) = (TestApp::sender(1, 2_000_000), TestApp::sender(2, 100_000));
            let mut net = connected(kind, 7, paths, client, server);
            net.run_for(500 * MS);
            net.blackhole[victim] = true;
            let from = net.now;
            net.run_until(LIMIT, |net| net.hosts.iter_mut().all(|h| h.app().eof));
            let took = net.now - from;
            assert!(took < 8000 * MS, "{kind:?} {victim}: {took:?}");
            net.finish(LIMIT);
            net.check_streams();
            net.check_frames();
        }
    }
}

/// Subflows die by RST and by carrier in the middle of everything.
#[test]
fn subflow_deaths_lose_nothing_under_any_scheduler() {
    for kind in SchedulerKind::ALL {
        let paths = vec![
            path(900_000, 5 * MS),
            path(700_000, 20 * MS),
            path(500_000, 60 * MS),
        ];
        let (client, server) = (TestApp::sender(1, 3_000_000), TestApp::echo());
        let mut net = connected(kind, 8, paths, client, server);
        net.run_for(500 * MS);
        net.with(CLIENT, |conn, cx| {
            conn.close_subflow(cx, SubflowId(0), Some(3));
        });
        net.run_for(300 * MS);
        net.with(SERVER, |conn, cx| {
            conn.close_subflow(cx, SubflowId(1), None);
        });
        net.run_for(300 * MS);
        net.join(0).unwrap();
        net.run_for(200 * MS);
        net.hosts[CLIENT].sink.ports[2].set_carrier(false);
        net.complete(LIMIT);
    }
}

#[test]
fn a_timeout_does_not_repeat_what_another_subflow_is_already_sending_again() {
    // The survivor needs longer for what the victim had on its way than the victim's second
    // and third timeout take.
    let paths = vec![path(4_000_000, 20 * MS), path(100_000, 20 * MS)];
    let (client, server) = (TestApp::sender(1, 3_000_000), TestApp::sender(2, 0));
    let mut net = connected(SchedulerKind::MinRtt, 9, paths, client, server);
    net.run_for(500 * MS);
    net.blackhole[0] = true;
    net.run_for(8000 * MS);
    let info = net.hosts[CLIENT].info(net.now);
    let outstanding = u64::from(info.subflows[0].tcp.in_flight_bytes.max(256 << 10));
    let again = info.subflows[1].totals.bytes_reinjected;
    assert!(again > 50_000, "{again}");
    assert!(again <= outstanding + 20_000, "{again} of {outstanding}");
    net.blackhole[0] = false;
    net.complete(LIMIT);
}

/// RFC 8684 §3.3.5: a sender obeys the window that each subflow advertised, with whatever it
/// sends there: new data, copies, reinjections.
#[test]
fn no_segment_exceeds_its_own_subflows_window() {
    for kind in SchedulerKind::ALL {
        let paths = vec![path(2_000_000, 10 * MS), path(400_000, 30 * MS)];
        let mut net = Net::new(16, paths);
        for host in &mut net.hosts {
            host.config.scheduler = kind;
            // Not a multiple of any segment, and soon full.
            host.config.recv_buffer_bytes = 10_001;
        }
        // Per path: the right edge that the server told, and its window scale.
        let mut edges = [(None::<SeqNumber>, 0u8); 2];
        net.middlebox = Some(Box::new(move |p| {
            let packet = boxes::tcp(p.bytes);
            let (edge, shift) = &mut edges[p.path];
            if p.from == SERVER {
                let syn = packet.flags.contains(Flags::SYN);
                if syn {
                    *shift = packet.options.window_scale.unwrap_or(0);
                }
                let scale = if syn { 0 } else { *shift };
                let told = packet.ack + (u32::from(packet.window) << scale);
                if packet.flags.contains(Flags::ACK) {
                    *edge = Some(edge.map_or(told, |e| if told.diff(e) > 0 { told } else { e }));
                }
            } else if !packet.payload.is_empty()
                && let Some(edge) = *edge
            {
                let end = packet.seq + u32::try_from(packet.payload.len()).unwrap();
                let beyond = end.diff(edge);
                assert!(beyond <= 0, "{kind:?}, path {}: {beyond} too far", p.path);
            }
            true
        }));
        net.start(TestApp::sender(1, 400_000), TestApp::sender(2, 0));
        net.run_until(LIMIT, |net| {
            net.hosts[CLIENT].info(net.now).fully_established
        });
        net.join(1).unwrap();
        net.run_for(300 * MS);
        // What was on its way there is reinjected into the other's window.
        net.blackhole[0] = true;
        net.run_for(1500 * MS);
        assert!(
            net.hosts[CLIENT].info(net.now).totals.bytes_reinjected > 0
                || kind == SchedulerKind::Redundant
        );
        net.blackhole[0] = false;
        net.complete(LIMIT);
    }
}

#[test]
fn round_robin_splits_evenly() {
    let paths = vec![path(1_000_000, 10 * MS), path(1_000_000, 10 * MS)];
    let (client, server) = (TestApp::sender(1, 6_000_000), TestApp::sender(2, 0));
    let mut net = connected(SchedulerKind::RoundRobin, 10, paths, client, server);
    net.run_for(2500 * MS);
    let (a, b) = (sent_on(&net, 0), sent_on(&net, 1));
    assert!(a.abs_diff(b) * 10 < a + b, "{a} {b}");
    net.complete(LIMIT);
}

#[test]
fn redundant_sends_on_both_what_is_not_acknowledged_yet() {
    let lossy = || PathConfig {
        loss: 0.01,
        ..path(2_000_000, 20 * MS)
    };
    let (client, server) = (TestApp::sender(1, 400_000), TestApp::sender(2, 0));
    let paths = vec![lossy(), lossy()];
    let mut net = connected(SchedulerKind::Redundant, 11, paths, client, server);
    net.run_until(LIMIT, |net| net.hosts[SERVER].app().eof);
    let copies = net.hosts[CLIENT].count(Counter::RedundantTx);
    assert!(copies > 60, "{copies}: {}", net.describe());
    assert!(net.hosts[SERVER].count(Counter::DuplicateData) > 0);
    net.complete(LIMIT);
}

#[test]
fn redundant_goes_at_the_pace_of_the_fast_path() {
    let time = |paths: Vec<PathConfig>| {
        let (client, server) = (TestApp::sender(1, 2_000_000), TestApp::sender(2, 0));
        let mut net = connected(SchedulerKind::Redundant, 12, paths, client, server);
        net.hosts[CLIENT].config.send_buffer_bytes = 200_000;
        net.run_until(LIMIT, |net| net.hosts[SERVER].app().eof);
        let took = net.now;
        net.complete(LIMIT);
        took
    };
    let alone = time(vec![path(1_000_000, 10 * MS)]);
    let with_slow = time(vec![path(1_000_000, 10 * MS), path(50_000, 150 * MS)]);
    let start = crate::time::Instant::from_millis(1_000_000);
    let (alone, with_slow) = (alone - start, with_slow - start);
    assert!(
        with_slow < alone.mul_f64(1.1),
        "{alone:?} alone, {with_slow:?} beside a slow one"
    );
}

/// What is sent twice on purpose carries the DATA_FIN, too: one lost end costs no timeout.
#[test]
fn redundant_sends_the_end_twice() {
    let paths = vec![path(2_000_000, 20 * MS), path(2_000_000, 20 * MS)];
    let mut client = TestApp::sender(1, 0);
    client.hold = true;
    let mut net = connected(
        SchedulerKind::Redundant,
        13,
        paths,
        client,
        TestApp::sender(2, 0),
    );
    net.run_for(300 * MS);
    // The next segment with data on path 0 or 1, whichever comes first, is lost.
    let mut dropped = false;
    net.middlebox = Some(Box::new(move |p| {
        let victim = p.from == CLIENT && boxes::payload_len(p.bytes) > 0 && !dropped;
        dropped |= victim;
        !victim
    }));
    let from = net.now;
    let app = net.hosts[CLIENT].app();
    (app.to_send, app.hold) = (1000, false);
    net.poll(CLIENT);
    net.run_until(LIMIT, |net| net.hosts[SERVER].app().eof);
    let took = net.now - from;
    assert!(took < 30 * MS, "{took:?}");
    net.complete(LIMIT);
}

/// A short burst when the fast window is full, a window that a slow path would block: both
/// wait, and both waits end.
#[test]
fn blest_and_ecf_wait_and_go_on() {
    for kind in [SchedulerKind::Blest, SchedulerKind::Ecf] {
        let paths = vec![path(1_250_000, 10 * MS), path(250_000, 75 * MS)];
        let (client, server) = (TestApp::sender(1, 1_500_000), TestApp::sender(2, 0));
        let mut net = Net::new(14, paths);
        for host in &mut net.hosts {
            host.config.scheduler = kind;
            host.config.recv_buffer_bytes = 64 << 10;
        }
        net.start(client, server);
        net.run_until(LIMIT, |net| {
            net.hosts[CLIENT].info(net.now).fully_established
        });
        net.join(1).unwrap();
        net.complete(LIMIT);
        let waits = net.hosts[CLIENT].count(Counter::SchedulerWait);
        assert!(waits > 10, "{kind:?}: {waits}");
    }
}
