//! Whole connections on bad networks, by seed: loss, reordering, duplication, IPv4 and
//! IPv6 mixed, one to three subflows, echo and both-ways transfer, checksums on and off.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::harness::*;
use crate::mptcp::*;
use crate::time::Duration;

const SEEDS: u64 = 300;
const LIMIT: Duration = Duration::from_secs(1200);

fn random_path(rng: &mut StdRng) -> PathConfig {
    let loss = if rng.random_bool(0.3) {
        0.0
    } else {
        rng.random_range(0.0..0.05)
    };
    PathConfig {
        delay: Duration::from_micros(rng.random_range(50..40_000)),
        jitter: Duration::from_micros(if rng.random_bool(0.5) {
            0
        } else {
            rng.random_range(1..8_000)
        }),
        loss,
        duplicate: if rng.random_bool(0.7) { 0.0 } else { 0.03 },
        v6: rng.random_bool(0.4),
        mtu: [1500, 1400, 1280][rng.random_range(0..3)],
        rate: if rng.random_bool(0.5) {
            0
        } else {
            rng.random_range(300_000..5_000_000)
        },
    }
}

/// All schedulers take part, each in its share of the seeds.
fn scheduler(seed: u64) -> SchedulerKind {
    let n = usize::try_from(seed).unwrap() % SchedulerKind::ALL.len();
    SchedulerKind::ALL[n]
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let paths: Vec<_> = (0..rng.random_range(1..=3))
        .map(|_| random_path(&mut rng))
        .collect();
    let count = paths.len();
    let mut net = Net::new(seed, paths);
    if seed % 4 == 3 {
        net.speak(Version::V0);
    }
    for host in [CLIENT, SERVER] {
        let config = &mut net.hosts[host].config;
        // Both, neither, one.
        config.window_option = seed % 3 < if host == CLIENT { 2 } else { 1 };
        config.scheduler = scheduler(seed);
        config.checksum = if rng.random_bool(0.4) {
            ChecksumPolicy::Always
        } else {
            ChecksumPolicy::IfRequested
        };
        config.recv_buffer_bytes = [32 << 10, 128 << 10, 1 << 20][rng.random_range(0..3)];
        config.tcp.timestamps = rng.random_bool(0.8);
        config.tcp.sack = rng.random_bool(0.8);
    }
    let size = |rng: &mut StdRng| [0, 1, 1000, 60_000, 300_000][rng.random_range(0..5)];
    let mut client = TestApp::sender(1, size(&mut rng));
    if rng.random_bool(0.3) {
        client.fill_max = rng.random_range(1..2000);
    }
    let server = if rng.random_bool(0.4) {
        TestApp::echo()
    } else {
        TestApp::sender(2, size(&mut rng))
    };
    net.start(client, server);
    let mut joined = 1;
    net.run_until(LIMIT, |net| {
        let conn = net.hosts[CLIENT].conn.as_ref().unwrap();
        if conn.is_finished() {
            return true;
        }
        if net.hosts[CLIENT].info(net.now).fully_established && joined < count {
            // Closing and established before the other end knows are both fine.
            let _ = net.join(joined);
            joined += 1;
        }
        joined == count
    });
    net.complete(LIMIT);
}

#[test]
fn streams_survive_bad_networks() {
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// Two or three paths, of which one after the other fails in some way and comes back,
/// while subflows are opened, demoted and closed.
fn run_chaos(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0xc4a0_5000);
    let count = rng.random_range(2..=3);
    let paths: Vec<_> = (0..count)
        .map(|_| PathConfig {
            rate: rng.random_range(500_000..3_000_000),
            ..random_path(&mut rng)
        })
        .collect();
    let mut net = Net::new(seed, paths);
    if seed % 4 == 3 {
        net.speak(Version::V0);
    }
    for host in [CLIENT, SERVER] {
        net.hosts[host].config.subflows_max = 6;
        net.hosts[host].config.scheduler = scheduler(seed);
        if rng.random_bool(0.3) {
            net.hosts[host].config.checksum = ChecksumPolicy::Always;
        }
    }
    let server = if rng.random_bool(0.5) {
        TestApp::echo()
    } else {
        TestApp::sender(2, 1_500_000)
    };
    net.start(TestApp::sender(1, 1_500_000), server);
    for _ in 0..12 {
        net.run_for(Duration::from_millis(rng.random_range(20..600)));
        let host = rng.random_range(0..2);
        if net.hosts[host].conn.is_none() {
            continue;
        }
        let subflows: Vec<SubflowId> = net.hosts[host]
            .info(net.now)
            .subflows
            .iter()
            .map(|s| s.id)
            .collect();
        let some = |rng: &mut StdRng| subflows.get(rng.random_range(0..4)).copied();
        let path = rng.random_range(0..count);
        match rng.random_range(0..8) {
            0 | 1 => {
                let _ = net.join(path);
            }
            2 => net.blackhole[path] = true,
            3 => {
                for p in &mut net.blackhole {
                    *p = false;
                }
            }
            4 if subflows.len() > 1 => {
                if let Some(id) = some(&mut rng) {
                    net.with(host, |conn, cx| conn.close_subflow(cx, id, Some(0)));
                }
            }
            5 if subflows.len() > 1 => {
                if let Some(id) = some(&mut rng) {
                    net.with(host, |conn, cx| conn.close_subflow(cx, id, None));
                }
            }
            6 => {
                if let Some(id) = some(&mut rng) {
                    let backup = rng.random_bool(0.5);
                    net.with(host, |conn, cx| conn.set_backup(cx, id, backup));
                }
            }
            _ => {
                let addr = address(host, path, false, 0).ip();
                let id = crate::wire::types::AddressId(7);
                net.with(host, |conn, cx| conn.announce(cx, id, addr, None));
            }
        }
    }
    for p in &mut net.blackhole {
        *p = false;
    }
    // Whatever is left, a way to finish.
    for path in 0..count {
        let _ = net.join(path);
    }
    net.finish(LIMIT);
    let reason = |net: &mut Net, host: usize| net.hosts[host].app().closed;
    let finished = Some(CloseReason::Finished);
    let reasons = (reason(&mut net, CLIENT), reason(&mut net, SERVER));
    assert_eq!(reasons, (finished, finished), "{}", net.describe());
    net.check_streams();
    net.check_frames();
}

#[test]
fn streams_survive_failing_and_changing_paths() {
    for seed in 0..SEEDS / 2 {
        let outcome = std::panic::catch_unwind(|| run_chaos(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
