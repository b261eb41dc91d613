//! Whole connections between engines on simulated networks.
//!
//! Every test checks the stream, that no frame is lost and that the connection ends.
//! `BRAID_SEED=n` replays one seed of the swarm and writes its packet trace.

mod common;

use std::time::Duration;

use braid_bench::middlebox::{Element, Out, Toward};
use braid_bench::sim::{End, Fault, LinkConfig, Role};
use braid_dataplane::counters::Counter;
use braid_dataplane::mptcp::{ChecksumPolicy, Event};
use braid_dataplane::time::Instant;
use common::{CLIENT, ECHO, Net, SERVER, strip_mptcp};

const MIB: u64 = 1 << 20;

#[test]
fn one_path_both_ways() {
    for ipv6 in [false, true] {
        let mut net = Net::new(
            1,
            vec![LinkConfig {
                ipv6,
                ..LinkConfig::default()
            }],
        );
        net.echo(MIB).check();
    }
}

#[test]
fn two_paths_share_the_load() {
    let mut net = Net::new(2, vec![LinkConfig::default(), LinkConfig::default()]);
    net.echo(20 * MIB).check();
    for link in 0..2 {
        for side in 0..2 {
            let bytes = net.sim.link(link).sent_bytes[side];
            assert!(
                bytes > 5 * MIB,
                "link {link} side {side} carried only {bytes}"
            );
        }
    }
}

#[test]
fn two_paths_are_faster_than_one() {
    let time = |links| {
        let mut net = Net::new(3, (0..links).map(|_| LinkConfig::default()).collect());
        net.echo(20 * MIB).check();
        net.sim.elapsed().as_secs_f64()
    };
    let (one, two) = (time(1), time(2));
    assert!(
        two < 0.65 * one,
        "one path {one:.2} s, two paths {two:.2} s"
    );
}

#[test]
fn ipv4_and_ipv6_in_one_connection() {
    let v6 = LinkConfig {
        ipv6: true,
        ..LinkConfig::default()
    };
    let mut net = Net::new(4, vec![LinkConfig::default(), v6]);
    net.echo(8 * MIB).check();
    assert!((0..2).all(|l| net.sim.link(l).sent_bytes[0] > MIB));
}

#[test]
fn dss_checksum_on_both_sides_and_on_one() {
    for (client, server) in [
        (ChecksumPolicy::Always, ChecksumPolicy::IfRequested),
        (ChecksumPolicy::IfRequested, ChecksumPolicy::Always),
        (ChecksumPolicy::Always, ChecksumPolicy::Always),
    ] {
        let mut net = Net::with(
            5,
            vec![lossy(0.01), LinkConfig::default()],
            |host, config| {
                config.mptcp.checksum = if host == CLIENT { client } else { server };
            },
        );
        net.echo(2 * MIB).check();
        let established = net.sim.host(SERVER).events.iter().any(|e| {
            matches!(
                e,
                Event::Established {
                    mptcp: true,
                    checksum: true,
                    ..
                }
            )
        });
        assert!(established, "{client:?} {server:?}");
        assert_eq!(net.sim.host(SERVER).count(Counter::DataCsumErr), 0);
    }
}

#[test]
fn a_corrupting_path_never_corrupts_the_stream() {
    let corrupt = LinkConfig {
        corrupt: 0.01,
        ..LinkConfig::default()
    };
    let mut net = Net::new(6, vec![corrupt, LinkConfig::default()]);
    net.echo(4 * MIB).check();
    assert!(net.sim.host(SERVER).count(Counter::InCsumErrors) > 0);
}

#[test]
fn options_stripped_from_syns_fall_back_to_tcp() {
    for toward in [CLIENT, SERVER] {
        let mut link = LinkConfig::default();
        link.filters
            .push(strip_mptcp(move |to, syn| to == toward && syn));
        let mut net = Net::new(7, vec![link]);
        net.echo(MIB).check();
        let client = net.sim.host(CLIENT);
        assert!(
            client.count(Counter::MPCapableFallbackSYNACK) == 1,
            "{:?}",
            client.counters()
        );
    }
}

/// The third ACK and the first data are lost; the rest of the flight arrives without anything
/// that names the keys. A bare ACK for it would make a Linux client fall back.
#[test]
fn data_that_overtakes_the_keys_is_not_acknowledged_bare() {
    let mut link = LinkConfig::default();
    let mut dropped = 0;
    link.filters.push(Box::new(move |to, packet| {
        let syn = packet[14 + 20 + 13] & 2 != 0;
        let drop = to == SERVER && !syn && dropped < 2;
        dropped += u32::from(drop);
        !drop
    }));
    let bare = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let seen = bare.clone();
    link.filters.push(Box::new(move |to, packet| {
        let tcp = 14 + 20;
        let options = &packet[tcp + 20..tcp + usize::from(packet[tcp + 12] >> 4) * 4];
        let has_mptcp = options.windows(2).any(|w| w[0] == 30 && w[1] >= 3);
        if to == CLIENT && !has_mptcp {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        true
    }));
    let mut net = Net::new(14, vec![link]);
    net.echo(MIB).check();
    let server = net.sim.host(SERVER);
    assert!(
        server.count(Counter::MPCapableEarlyDrop) > 0,
        "{:?}",
        server.counters()
    );
    assert_eq!(server.count(Counter::MPCapableFallbackACK), 0);
    assert_eq!(
        bare.load(std::sync::atomic::Ordering::Relaxed),
        0,
        "segments without an option"
    );
}

#[test]
fn options_stripped_from_everything_but_syns_fall_back_to_tcp() {
    for only_toward in [None, Some(CLIENT), Some(SERVER)] {
        let mut link = LinkConfig::default();
        link.filters.push(strip_mptcp(move |to, syn| {
            !syn && only_toward.is_none_or(|t| t == to)
        }));
        let mut net = Net::new(8, vec![link]);
        net.echo(MIB).check();
        let fell_back: u64 = [CLIENT, SERVER]
            .map(|h| {
                let host = net.sim.host(h);
                [
                    Counter::MPCapableFallbackACK,
                    Counter::MPCapableDataFallback,
                    Counter::DssFallback,
                    Counter::InfiniteMapRx,
                ]
                .map(|c| host.count(c))
                .iter()
                .sum::<u64>()
            })
            .iter()
            .sum();
        assert!(
            fell_back > 0,
            "stripped toward {only_toward:?}, but no fallback was counted"
        );
    }
}

#[test]
fn a_joined_path_that_loses_its_options_is_reset_and_the_data_survive() {
    let mut second = LinkConfig::default();
    second.filters.push(strip_mptcp(|_, syn| !syn));
    let mut net = Net::new(9, vec![LinkConfig::default(), second]);
    net.echo(4 * MIB).check();
}

#[test]
fn a_path_that_swallows_everything_is_survived_and_used_again() {
    for link in 0..2 {
        let mut net = Net::new(10, vec![slow(), slow()]);
        net.sim.at(
            Duration::from_millis(800),
            Fault::Blackhole { link, on: true },
        );
        net.sim.at(
            Duration::from_millis(4_000),
            Fault::Blackhole { link, on: false },
        );
        let before = 9_500;
        let run = net.echo(12 * MIB);
        run.expect_gap_below(Duration::from_secs(3)).check();
        assert!(
            net.sim.elapsed() > Duration::from_millis(before),
            "too fast to tell"
        );
        assert!(
            net.bytes_after(link, Duration::from_millis(before)) > 0,
            "link {link} was not used again within 5 s"
        );
    }
}

#[test]
fn a_path_without_carrier_is_survived_and_used_again() {
    for host in [CLIENT, SERVER] {
        for link in 0..2 {
            let mut net = Net::new(11, vec![slow(), slow()]);
            net.sim.at(
                Duration::from_millis(800),
                Fault::Carrier {
                    link,
                    host,
                    up: false,
                },
            );
            net.sim.at(
                Duration::from_millis(3_000),
                Fault::Carrier {
                    link,
                    host,
                    up: true,
                },
            );
            let run = net.echo(12 * MIB);
            run.expect_gap_below(Duration::from_secs(3)).check();
            assert!(
                net.bytes_after(link, Duration::from_millis(8_000)) > 0,
                "link {link}, carrier lost at host {host}: not used again within 5 s"
            );
        }
    }
}

#[test]
fn many_connections_at_once_and_one_after_the_other() {
    let mut net = Net::new(12, vec![lossy(0.005), lossy(0.005)]);
    net.echo_many(100, 64 * 1024);
    for _ in 0..100 {
        net.echo(10_000).check();
    }
}

#[test]
fn an_abort_reaches_the_other_side() {
    let mut net = Net::new(13, vec![LinkConfig::default(), LinkConfig::default()]);
    let (token, outcome) = net
        .sim
        .connect(CLIENT, 0, ECHO, Role::Peer { send: 100 * MIB });
    net.sim.run_until(Duration::from_secs(1), |_| false);
    net.abort(token);
    net.sim.run_until(Duration::from_secs(10), |_| false);
    assert!(outcome.get().closed.is_some());
    assert_eq!(net.sim.host(SERVER).engine().connections(), 0);
    assert_eq!(net.sim.host(SERVER).count(Counter::MPFastcloseRx), 1);
    net.check_frames();
}

/// Random networks, faults and loads. Each seed is a different one.
#[test]
fn swarm() {
    let one = std::env::var("BRAID_SEED")
        .ok()
        .and_then(|s| s.parse::<u64>().ok());
    let seeds = one.map_or(0..300, |s| s..s + 1);
    for seed in seeds {
        common::swarm_one(seed, one.is_some());
    }
}

fn lossy(loss: f64) -> LinkConfig {
    LinkConfig {
        loss,
        jitter: Duration::from_millis(1),
        ..LinkConfig::default()
    }
}

fn slow() -> LinkConfig {
    LinkConfig {
        rate_bps: Some(6_000_000),
        ..LinkConfig::default()
    }
}

/// A path without carrier owes ACKs, FINs and probes that it cannot send. None of that
/// may keep the worker from sleeping.
#[test]
fn a_dead_port_lets_the_worker_sleep() {
    for links in [1, 2] {
        let mut net = Net::new(41, (0..links).map(|_| slow()).collect());
        for host in [CLIENT, SERVER] {
            let fault = Fault::Carrier {
                link: 0,
                host,
                up: false,
            };
            net.sim.at(Duration::from_millis(300), fault);
        }
        let (_, client) = net
            .sim
            .connect(CLIENT, 0, ECHO, Role::Peer { send: 1 << 40 });
        // Past the first timeouts; then nothing but back-off on the only path.
        net.sim.run_until(Duration::from_millis(600), |_| false);
        assert!(client.get().received > 0);
        for link in 1..links {
            net.sim.reconfigure(link, |config| config.blackhole = true);
        }
        net.sim.run_until(Duration::from_millis(3_000), |_| false);
        let mut steps = 0u32;
        net.sim.run_until(Duration::from_millis(8_000), |_| {
            steps += 1;
            false
        });
        assert!(steps < 2_000, "{links} links: {steps} wake-ups in 5 s");
    }
}

/// Holds every packet for a while, as one that wants to merge packets does.
#[derive(Debug)]
struct Holder {
    hold: Duration,
    held: std::collections::VecDeque<(Instant, Out)>,
    passed: u64,
}

impl Element for Holder {
    fn on_frame(&mut self, now: Instant, toward: Toward, frame: Vec<u8>, _: &mut Vec<Out>) {
        self.held
            .push_back((now + self.hold, Out { toward, frame }));
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.held.front().map(|(at, _)| *at)
    }

    fn on_timer(&mut self, now: Instant, out: &mut Vec<Out>) {
        while self.held.front().is_some_and(|(at, _)| *at <= now) {
            out.extend(self.held.pop_front().map(|(_, o)| o));
            self.passed += 1;
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("passed", self.passed)]
    }
}

/// Elements see both directions at either end of a link, and their clock is the sim's.
#[test]
fn elements_stand_at_an_end_of_a_link_and_run_on_its_clock() {
    let time = |boxes_at, elements: usize| {
        let mut net = Net::new(
            42,
            vec![LinkConfig {
                boxes_at,
                ..LinkConfig::default()
            }],
        );
        for _ in 0..elements {
            let hold = Duration::from_millis(20);
            net.sim.add_element(
                0,
                Box::new(Holder {
                    hold,
                    held: Default::default(),
                    passed: 0,
                }),
            );
        }
        net.echo(1000).check();
        for element in net.sim.elements(0) {
            let packets: u64 = net.sim.link(0).sent.iter().sum();
            assert_eq!(element.counts(), [("passed", packets)]);
        }
        net.sim.elapsed()
    };
    for end in [End::A, End::B] {
        let (without, with) = (time(end, 0), time(end, 2));
        assert!(
            with > without + Duration::from_millis(150),
            "{end:?}: {without:?} without, {with:?} with two elements"
        );
    }
}
