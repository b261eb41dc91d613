//! Windows grow with need, are paid for in frames, and nobody starves.

use std::path::Path as FilePath;
use std::time::Duration;

use braid_bench::scenario::autotuning::{self, Path, UNEQUAL, Windows};
use braid_bench::sim::{HostConfig, LinkConfig, Role, Sim};
use braid_dataplane::counters::Counter;

const TIME: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(2));

#[test]
fn unequal_paths_are_filled_to_nine_tenths_of_their_sum() {
    let tuned = autotuning::run(&UNEQUAL, Windows::Tuned, None, TIME, 7);
    assert!(tuned.share >= 0.9, "{tuned:?}");
    // Without growth they are not: the test can fail.
    let fixed = autotuning::run(&UNEQUAL, Windows::Fixed(4 << 20), None, TIME, 7);
    assert!(fixed.share < 0.5, "{fixed:?}");
    assert_eq!(fixed.grown, 0);
}

#[test]
fn a_slow_reader_and_a_short_path_keep_windows_small() {
    let long = [UNEQUAL[0]];
    let slow = autotuning::run(&long, Windows::Tuned, Some(10), TIME, 7);
    // Twice 10 Mb/s over a round trip of 100 ms, and a little.
    assert!(slow.promised_max < 500, "{slow:?}");
    assert!(slow.used_max < 1000, "{slow:?}");
    let short = [Path {
        mbps: 100,
        rtt_ms: 10,
    }];
    let short = autotuning::run(&short, Windows::Tuned, None, TIME, 7);
    assert!(short.share > 0.95, "{short:?}");
    assert!(short.promised_max < 2000, "{short:?}");
}

#[test]
fn the_documents_are_up_to_date() {
    let docs = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let study = autotuning::study();
    let svg = study.svg().expect("drawable");
    for (name, now) in [("autotuning.md", study.markdown()), ("autotuning.svg", svg)] {
        let kept = std::fs::read_to_string(docs.join(name)).expect("the document is kept");
        assert!(
            kept == now,
            "bench/docs/{name} is stale: braid-bench sim-report autotuning --write bench/docs\n{now}"
        );
    }
}

/// Connections that share one receiver's pool.
const CONNECTIONS: usize = 2000;
const EACH: u64 = 16 << 10;

/// Thousands of connections whose windows together are many times what the pool holds. First
/// they stand idle, and hold nothing; then all of them send at once, and all of them finish.
#[test]
fn thousands_share_one_pool_and_none_starves() {
    let mut sim = Sim::new(11);
    for frames in [4096, 2048] {
        let config = HostConfig {
            frames,
            tx_ring: 4096,
            join: false,
            ..HostConfig::default()
        };
        sim.add_host(&config);
    }
    let link = sim.add_link(
        0,
        1,
        LinkConfig {
            rate_bps: Some(1_000_000_000),
            delay: Duration::from_millis(5),
            queue_bytes: 2 << 20,
            queue_packets: usize::MAX,
            ..LinkConfig::default()
        },
    );
    sim.host(1).serve(&[(9, Role::Peer { send: 0 })]);
    let mut clients = Vec::new();
    for n in 0..CONNECTIONS {
        let (token, outcomes) = sim.connect(0, link, 9, Role::Metered);
        outcomes.allow(1);
        clients.push((token, outcomes));
        if n % 100 == 99 {
            let until = sim.elapsed() + Duration::from_millis(50);
            sim.run_until(until, |_| false);
        }
    }
    let settled = sim.elapsed() + Duration::from_secs(10);
    sim.run_until(settled, |_| false);
    assert_eq!(sim.host(1).engine().connections(), CONNECTIONS);
    let idle = sim.host(1).frames();
    assert_eq!(
        idle.total() - idle.free,
        0,
        "idle connections hold nothing: {idle:?}"
    );

    for (token, outcomes) in &clients {
        outcomes.allow(EACH);
        outcomes.end();
        let now = sim.now();
        assert!(sim.host(0).engine().wake(now, *token));
    }
    sim.poke(0);
    // 33 MB over 1 Gb/s take 0.3 s; a starving connection would wait for its timers.
    let start = sim.elapsed();
    let mut used_max = 0;
    let done = sim.run_until(start + Duration::from_secs(60), |sim| {
        let frames = sim.host(1).frames();
        used_max = used_max.max(frames.total() - frames.free);
        sim.host(0).engine().connections() == 0
    });
    let took = sim.elapsed() - start;
    let closed = clients
        .iter()
        .filter(|(_, o)| o.get().closed.is_some())
        .count();
    assert!(
        done,
        "{closed} of {CONNECTIONS} after {took:?}: {:?}",
        sim.host(1).counters()
    );
    for (_, outcomes) in &clients {
        let outcome = outcomes.get();
        assert_eq!(
            outcome.closed,
            Some(braid_dataplane::mptcp::CloseReason::Finished)
        );
    }
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(used_max < 2048, "the pool was never empty");
    assert_eq!(sim.host(1).count(Counter::MemoryPressureRefused), 0);
}
