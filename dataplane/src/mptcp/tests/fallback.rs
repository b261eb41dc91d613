//! Boxes that strip, mangle, drop, split, merge and rewrite: whatever they do, both
//! applications get what plain TCP would have given them, and a counter says why.
//!
//! Names in brackets are rows of the middlebox catalogue the tests follow.

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::tcp::Flags;

const LIMIT: Duration = Duration::from_secs(300);

/// What is left of MPTCP in the end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Mptcp,
    Fallback,
    Either,
}

/// One path, both ways and one way, with and without checksums, in both versions. Returns
/// what the first run of version 1 counted.
fn gauntlet(outcome: Outcome, make: impl Fn() -> Middlebox) -> [crate::counters::Counters; 2] {
    let counters = gauntlet_of(Version::V1, outcome, &make);
    gauntlet_of(Version::V0, outcome, make);
    counters
}

fn gauntlet_of(
    version: Version,
    outcome: Outcome,
    make: impl Fn() -> Middlebox,
) -> [crate::counters::Counters; 2] {
    let mut last = None;
    for (up, down) in [(300_000, 200_000), (150_000, 0), (0, 150_000), (500, 500)] {
        for checksum in [ChecksumPolicy::IfRequested, ChecksumPolicy::Always] {
            let mut net = Net::new(7, vec![PathConfig::default()]);
            net.hosts[CLIENT].config.checksum = checksum;
            net.speak(version);
            net.middlebox = Some(make());
            net.start(TestApp::sender(1, up), TestApp::sender(2, down));
            net.finish(LIMIT);
            net.check_streams();
            for host in [CLIENT, SERVER] {
                let h = &net.hosts[host];
                let fell = h.info(net.now).fallback.is_some() || !h.info(net.now).mptcp;
                match outcome {
                    Outcome::Mptcp => assert!(!fell, "{up} {down} {}", net.describe()),
                    Outcome::Fallback => assert!(fell, "{up} {down} {}", net.describe()),
                    Outcome::Either => {}
                }
                let closed = net.hosts[host].app().closed;
                assert_eq!(closed, Some(CloseReason::Finished));
            }
            let counters = [net.hosts[0].counters.clone(), net.hosts[1].counters.clone()];
            net.check_frames();
            last.get_or_insert(counters);
        }
    }
    last.unwrap()
}

fn stripping(when: impl Fn(&Passing<'_>) -> bool + Clone + 'static) -> impl Fn() -> Middlebox {
    move || {
        let when = when.clone();
        Box::new(move |p| {
            if when(p) {
                boxes::strip(p.bytes);
            }
            true
        })
    }
}

#[test]
fn mp_capable_stripped_from_the_syn() {
    let [client, server] = gauntlet(
        Outcome::Fallback,
        stripping(|p| p.from == CLIENT && boxes::is_syn(p.bytes)),
    );
    assert_eq!(client.get(Counter::MPCapableFallbackSYNACK), 1);
    assert_eq!(server.get(Counter::MPCapableSYNRX), 0);
}

#[test]
fn mp_capable_stripped_from_the_synack() {
    let [client, server] = gauntlet(
        Outcome::Fallback,
        stripping(|p| p.from == SERVER && boxes::is_syn(p.bytes)),
    );
    assert_eq!(client.get(Counter::MPCapableFallbackSYNACK), 1);
    assert_eq!(server.get(Counter::MPCapableFallbackACK), 1);
}

#[test]
fn mp_capable_stripped_from_the_third_ack_only() {
    gauntlet(Outcome::Fallback, || {
        let mut done = false;
        Box::new(move |p| {
            if p.from == CLIENT && !boxes::is_syn(p.bytes) && !done {
                done = true;
                boxes::strip(p.bytes);
            }
            true
        })
    });
}

#[test]
fn a_lost_third_ack_is_made_up_for() {
    let [_, server] = gauntlet(Outcome::Mptcp, || {
        let mut done = false;
        Box::new(move |p| {
            let third = p.from == CLIENT && !boxes::is_syn(p.bytes) && !done;
            done |= third;
            !third
        })
    });
    assert_eq!(server.get(Counter::MPCapableACKRX), 1);
}

#[test]
fn options_stripped_from_everything_but_syns() {
    for (client, server) in [(true, true), (true, false), (false, true)] {
        gauntlet(
            Outcome::Fallback,
            stripping(move |p| {
                let side = if p.from == CLIENT { client } else { server };
                side && !boxes::is_syn(p.bytes)
            }),
        );
    }
}

#[test]
fn options_stripped_from_the_middle_of_the_stream_on() {
    for after in [5, 60, 150] {
        gauntlet(Outcome::Either, move || {
            let mut seen = 0;
            Box::new(move |p| {
                seen += 1;
                if seen > after {
                    boxes::strip(p.bytes);
                }
                true
            })
        });
    }
}

#[test]
fn every_second_data_option_stripped() {
    gauntlet(Outcome::Either, || {
        let mut n = 0;
        Box::new(move |p| {
            if boxes::payload_len(p.bytes) > 0 {
                n += 1;
                if n % 2 == 0 {
                    boxes::strip(p.bytes);
                }
            }
            true
        })
    });
}

#[test]
fn options_stripped_from_pure_acks_only() {
    gauntlet(
        Outcome::Either,
        stripping(|p| !boxes::is_syn(p.bytes) && boxes::payload_len(p.bytes) == 0),
    );
}

#[test]
fn segments_with_options_dropped() {
    // Five timeouts say so to the client; whichever side has waited longer than that repeats
    // without options at once, instead of after twice as long.
    for from in [CLIENT, SERVER] {
        for seed in 0..20 {
            let mut net = Net::new(seed, vec![PathConfig::default()]);
            net.middlebox = Some(Box::new(move |p| {
                p.from != from || boxes::is_syn(p.bytes) || !boxes::has_mptcp(p.bytes)
            }));
            net.start(TestApp::sender(1, 100_000), TestApp::sender(2, 100_000));
            net.complete(Duration::from_secs(9));
            assert!(!net.hosts[CLIENT].info(net.now).mptcp);
        }
    }
}

#[test]
fn syn_with_option_dropped() {
    let [client, _] = gauntlet(Outcome::Fallback, || {
        Box::new(|p| !(p.from == CLIENT && boxes::is_syn(p.bytes) && boxes::has_mptcp(p.bytes)))
    });
    assert_eq!(client.get(Counter::MPCapableSYNTXDrop), 1);
}

#[test]
fn synack_with_option_dropped() {
    // Linux never connects here: it keeps the option on every SYN/ACK of the request.
    gauntlet(Outcome::Fallback, || {
        Box::new(|p| !(p.from == SERVER && boxes::is_syn(p.bytes) && boxes::has_mptcp(p.bytes)))
    });
}

#[test]
fn reset_in_answer_to_the_option_is_taken_as_dislike_of_it() {
    let mut net = Net::new(7, vec![PathConfig::default()]);
    net.middlebox = Some(Box::new(|p| {
        if p.from == CLIENT && boxes::is_syn(p.bytes) && boxes::has_mptcp(p.bytes) {
            // Answered by the box itself, see below.
            return false;
        }
        true
    }));
    net.start(TestApp::sender(1, 10_000), TestApp::sender(2, 10_000));
    let syn_seq = {
        let core = &net.hosts[CLIENT].conn.as_ref().unwrap().core;
        core.subflows[0].tcp.iss()
    };
    net.forge(
        CLIENT,
        Flags::RST | Flags::ACK,
        0,
        syn_seq.0.wrapping_add(1),
    );
    net.complete(LIMIT);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPCapableSYNTXDrop), 1);
}

#[test]
fn mirrored_syn_option_is_no_answer() {
    gauntlet(Outcome::Fallback, || {
        let mut mirrored: Option<Vec<u8>> = None;
        Box::new(move |p| {
            if boxes::is_syn(p.bytes) && p.from == CLIENT {
                boxes::each_mptcp(p.bytes, |o| mirrored = Some(o.to_vec()));
                boxes::strip(p.bytes);
            }
            true
        })
    });
}

#[test]
fn version_rewritten_to_zero() {
    gauntlet_of(Version::V1, Outcome::Fallback, || {
        Box::new(|p| {
            if boxes::is_syn(p.bytes) && p.from == CLIENT {
                boxes::each_mptcp(p.bytes, |o| o[2] &= 0xf0);
            }
            true
        })
    });
}

#[test]
fn altered_keys_end_mptcp() {
    // In the SYN/ACK, then in everything the client sends.
    gauntlet(Outcome::Fallback, || {
        Box::new(|p| {
            if boxes::is_syn(p.bytes) && p.from == SERVER {
                boxes::each_mptcp(p.bytes, |o| o[7] ^= 1);
            }
            true
        })
    });
}

#[test]
fn altered_flags_are_not_understood() {
    // Flag B set; no crypto algorithm.
    for (set, clear) in [(0x40, 0), (0, 0x1f)] {
        gauntlet(Outcome::Fallback, move || {
            Box::new(move |p| {
                if boxes::is_syn(p.bytes) && p.from == CLIENT {
                    boxes::each_mptcp(p.bytes, |o| o[3] = (o[3] | set) & !clear);
                }
                true
            })
        });
    }
}

/// A box that replaces one packet by several, by way of re-sending.
fn rewriting(outcome: Outcome, make: impl Fn() -> Rewriter) -> [crate::counters::Counters; 2] {
    let counters = rewriting_of(Version::V1, outcome, &make);
    rewriting_of(Version::V0, outcome, make);
    counters
}

fn rewriting_of(
    version: Version,
    outcome: Outcome,
    make: impl Fn() -> Rewriter,
) -> [crate::counters::Counters; 2] {
    let mut last = None;
    for (up, down) in [(300_000, 200_000), (150_000, 0), (0, 150_000)] {
        for checksum in [ChecksumPolicy::IfRequested, ChecksumPolicy::Always] {
            let mut net = Net::new(8, vec![PathConfig::default()]);
            net.speak(version);
            net.hosts[CLIENT].config.checksum = checksum;
            net.rewriter = Some(make());
            net.start(TestApp::sender(1, up), TestApp::sender(2, down));
            net.finish(LIMIT);
            net.check_streams();
            if outcome == Outcome::Mptcp {
                for h in &net.hosts {
                    assert!(h.info(net.now).mptcp, "{}", net.describe());
                }
            }
            let counters = [net.hosts[0].counters.clone(), net.hosts[1].counters.clone()];
            net.check_frames();
            last.get_or_insert(counters);
        }
    }
    last.unwrap()
}

#[test]
fn segments_split_with_the_options_on_both() {
    rewriting(Outcome::Mptcp, || {
        Box::new(|bytes| match boxes::payload_len(&bytes) {
            0..=1 => vec![bytes],
            n => boxes::split(&bytes, n / 3).into(),
        })
    });
}

#[test]
fn segments_split_with_the_options_on_the_first() {
    rewriting(Outcome::Mptcp, || {
        Box::new(|bytes| match boxes::payload_len(&bytes) {
            0..=1 => vec![bytes],
            n => {
                let [first, mut second] = boxes::split(&bytes, n / 3);
                boxes::strip(&mut second);
                vec![first, second]
            }
        })
    });
}

#[test]
fn segments_split_with_the_options_on_the_second() {
    rewriting(Outcome::Either, || {
        Box::new(|bytes| match boxes::payload_len(&bytes) {
            0..=1 => vec![bytes],
            n => {
                let [mut first, second] = boxes::split(&bytes, n / 3);
                boxes::strip(&mut first);
                vec![first, second]
            }
        })
    });
}

#[test]
fn segments_coalesced_with_the_first_ones_options() {
    rewriting(Outcome::Either, || {
        let mut held: Option<Vec<u8>> = None;
        Box::new(move |bytes| {
            let n = boxes::payload_len(&bytes);
            let Some(first) = held.take() else {
                if n > 0 && n < 900 {
                    held = Some(bytes);
                    return vec![];
                }
                return vec![bytes];
            };
            let (a, b) = (boxes::tcp(&first), boxes::tcp(&bytes));
            let follows = a.tuple == b.tuple
                && b.seq == a.seq + u32::try_from(a.payload.len()).unwrap()
                && n > 0
                && n + a.payload.len() <= 1400;
            if follows {
                vec![boxes::coalesce(&first, &bytes)]
            } else {
                vec![first, bytes]
            }
        })
    });
}

/// Flips one payload byte of the `nth` data segment of the client, consistently.
fn tampering(nth: usize) -> Middlebox {
    tampering_with(CLIENT, nth)
}

/// The same of any host.
fn tampering_with(from: usize, nth: usize) -> Middlebox {
    let mut n = 0;
    let mut victim = None;
    Box::new(move |p| {
        if p.from != from || boxes::payload_len(p.bytes) == 0 {
            return true;
        }
        let packet = boxes::tcp(p.bytes);
        if victim.is_none() {
            n += 1;
            if n == nth {
                victim = Some(packet.seq);
            }
        }
        if victim == Some(packet.seq) {
            p.bytes[packet.payload.start] ^= 0xff;
            boxes::fix(p.bytes);
        }
        true
    })
}

#[test]
fn rewritten_payload_on_the_only_path_is_delivered_as_tcp_would() {
    for (version, nth) in [Version::V1, Version::V0]
        .into_iter()
        .flat_map(|version| [1, 2, 20, 100].map(|nth| (version, nth)))
    {
        for down in [0, 200_000] {
            let mut net = Net::new(9, vec![PathConfig::default()]);
            net.speak(version);
            net.hosts[CLIENT].config.checksum = ChecksumPolicy::Always;
            net.middlebox = Some(tampering(nth));
            net.start(TestApp::sender(1, 300_000), TestApp::sender(2, down));
            net.finish(LIMIT);
            let server = &net.hosts[SERVER];
            assert_eq!(server.count(Counter::DataCsumErr), 1);
            assert!(server.count(Counter::MPFailTx) >= 1);
            assert!(net.hosts[CLIENT].info(net.now).fallback.is_some());
            let received = net.hosts[SERVER].app().received.clone();
            assert_eq!(received.len(), 300_000, "{}", net.describe());
            let differing: Vec<_> = (0u64..)
                .zip(&received)
                .filter(|(n, b)| byte_at(1, *n) != **b)
                .collect();
            assert_eq!(differing.len(), 1, "exactly the byte that the box changed");
            assert_eq!(net.hosts[CLIENT].app().received.len() as u64, down);
            assert!(net.hosts[SERVER].app().eof);
            net.check_frames();
        }
    }
}

#[test]
fn rewritten_payload_on_one_of_two_paths_costs_that_path() {
    for version in [Version::V1, Version::V0] {
        rewritten_on_one_of_two(version);
    }
}

fn rewritten_on_one_of_two(version: Version) {
    let slow = PathConfig {
        rate: 1_000_000,
        ..PathConfig::default()
    };
    let mut net = Net::new(10, vec![slow.clone(), slow]);
    net.speak(version);
    net.hosts[CLIENT].config.checksum = ChecksumPolicy::Always;
    let mut tamper = tampering(30);
    net.middlebox = Some(Box::new(move |p| p.path != 1 || tamper(p)));
    net.start(TestApp::sender(1, 2_000_000), TestApp::sender(2, 0));
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].info(net.now).fully_established
    });
    net.join(1).unwrap();
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::DataCsumErr), 1);
    // MP_FAIL in both versions, a reason in version 1 only.
    let reasons = u64::from(version == Version::V1);
    assert_eq!(net.hosts[SERVER].count(Counter::MPRstTx), reasons);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPRstRx), reasons);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPFailRx), 1);
}

/// Both ends find out while the first join is under way. The one that has answered it, and knows
/// of no subflow yet, falls back; the one that asked has to wait what becomes of its question.
#[test]
fn payload_rewritten_both_ways_while_a_join_is_under_way() {
    let (mut fell, mut went_on) = (0, 0);
    for join_ms in [1, 3, 5, 6, 7, 9, 12] {
        for (up, down) in [(1, 1), (1, 2), (2, 1), (6, 2), (9, 9)] {
            let slow = |delay| PathConfig {
                rate: 1_000_000,
                delay: Duration::from_millis(delay),
                ..PathConfig::default()
            };
            let mut net = Net::new(10, vec![slow(5), slow(join_ms)]);
            net.hosts[CLIENT].config.checksum = ChecksumPolicy::Always;
            let mut tamper = [tampering_with(CLIENT, up), tampering_with(SERVER, down)];
            net.middlebox = Some(Box::new(move |p| p.path != 0 || tamper[p.from](p)));
            net.start(TestApp::sender(1, 40_000), TestApp::sender(2, 40_000));
            let joins = |net: &mut Net| {
                let info = net.hosts[CLIENT].info(net.now);
                info.fully_established || !info.mptcp
            };
            net.run_until(LIMIT, joins);
            let _ = net.join(1);
            net.finish(LIMIT);
            let what = format!("join {join_ms} ms, {up} {down}: {}", net.describe());
            for (host, seed) in [(CLIENT, 2), (SERVER, 1)] {
                let fallback = net.hosts[host].info(net.now).fallback.is_some();
                let app = net.hosts[host].app();
                assert_eq!(app.closed, Some(CloseReason::Finished), "{what}");
                assert_eq!(app.received.len(), 40_000, "{what}");
                let got = (0u64..).zip(&app.received);
                let differing = got.filter(|(n, b)| byte_at(seed, *n) != **b).count();
                assert!(differing <= usize::from(fallback), "{what}");
                *(if fallback { &mut fell } else { &mut went_on }) += 1;
            }
            net.check_frames();
        }
    }
    assert!(fell > 0 && went_on > 0, "both: {fell} {went_on}");
}
