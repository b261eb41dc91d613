//! Subflows come, go, stall, are refused, change priority; addresses are announced and
//! withdrawn.

use std::net::IpAddr;

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::io::{Port, PortId};
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::tcp::Flags;
use crate::wire::types::AddressId;

const LIMIT: Duration = Duration::from_secs(300);

fn slow() -> PathConfig {
    PathConfig {
        rate: 1_000_000,
        ..PathConfig::default()
    }
}

/// Fully established, with `n` paths of which the first is in use.
fn connected(seed: u64, paths: Vec<PathConfig>, up: u64, down: u64) -> Net {
    let mut net = Net::new(seed, paths);
    net.start(TestApp::sender(1, up), TestApp::sender(2, down));
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].conn.is_some() && net.hosts[CLIENT].info(net.now).fully_established
    });
    net
}

fn live(net: &Net, host: usize) -> usize {
    net.hosts[host]
        .info(net.now)
        .subflows
        .iter()
        .filter(|s| s.state == "established")
        .count()
}

#[test]
fn joins_with_a_wrong_hmac_are_reset() {
    // In the SYN/ACK, seen by the client; in the third ACK, seen by the server.
    for (from, counter_at, counter) in [
        (SERVER, CLIENT, Counter::MPJoinSynAckHMacFailure),
        (CLIENT, SERVER, Counter::MPJoinAckHMacFailure),
    ] {
        let mut net = connected(1, vec![slow(), slow()], 500_000, 0);
        net.middlebox = Some(Box::new(move |p| {
            if p.path == 1 && p.from == from {
                boxes::each_mptcp(p.bytes, |o| {
                    if o[2] >> 4 == 1 && o.len() >= 16 {
                        o[5] ^= 1;
                    }
                });
            }
            true
        }));
        net.join(1).unwrap();
        net.complete(LIMIT);
        assert_eq!(net.hosts[counter_at].count(counter), 1);
        assert_eq!(net.hosts[counter_at].count(Counter::MPRstTx), 1);
        assert_eq!(net.hosts[1 - counter_at].count(Counter::MPRstRx), 1);
    }
}

#[test]
fn joins_without_their_option_are_reset() {
    for (from, syn, counter_at, counter) in [
        (SERVER, true, CLIENT, Counter::MPJoinSynAckNoMPJoin),
        (CLIENT, false, SERVER, Counter::MPJoinAckNoMPJoin),
    ] {
        let mut net = connected(2, vec![slow(), slow()], 500_000, 0);
        net.middlebox = Some(Box::new(move |p| {
            if p.path == 1 && p.from == from && boxes::is_syn(p.bytes) == syn {
                boxes::strip(p.bytes);
            }
            true
        }));
        net.join(1).unwrap();
        net.complete(LIMIT);
        assert_eq!(net.hosts[counter_at].count(counter), 1);
    }
}

#[test]
fn a_failed_join_is_not_tried_again_until_announced() {
    let mut net = connected(3, vec![slow(), slow()], 1_000_000, 0);
    net.middlebox = Some(Box::new(|p| {
        if p.path == 1 && p.from == SERVER {
            boxes::strip(p.bytes);
        }
        true
    }));
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.join(1), Err(OpenError::FailedBefore));
    net.middlebox = None;
    let addr = address(SERVER, 1, false, 0).ip();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(1), addr, None)
    });
    net.run_for(Duration::from_millis(100));
    net.join(1).unwrap();
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::MPJoinAckRx), 1);
}

#[test]
fn an_endpoint_that_was_joined_may_be_tried_until_it_is_back() {
    let mut net = connected(25, vec![slow(), slow()], 9_000_000, 0);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(300));
    net.blackhole[1] = true;
    net.with(CLIENT, |conn, cx| {
        conn.close_subflow(cx, SubflowId(1), Some(5))
    });
    // Neither an attempt that is given up nor one that is refused says that it is gone.
    let attempt = net.join(1).unwrap();
    net.run_for(Duration::from_secs(1));
    net.with(CLIENT, |conn, cx| conn.close_subflow(cx, attempt, None));
    net.blackhole[1] = false;
    net.middlebox = Some(Box::new(|p| {
        if p.path == 1 && p.from == SERVER {
            boxes::strip(p.bytes);
        }
        true
    }));
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(200));
    assert_eq!(live(&net, CLIENT), 1);
    net.middlebox = None;
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(200));
    assert_eq!(live(&net, CLIENT), 2);
    net.complete(LIMIT);
}

#[test]
fn a_known_address_that_is_announced_again_is_sent_again() {
    let mut net = connected(26, vec![slow(), slow()], 6_000_000, 0);
    let addr = address(SERVER, 1, false, 0).ip();
    for times in 1..=3 {
        net.with(SERVER, |conn, cx| {
            conn.announce(cx, AddressId(1), addr, None)
        });
        net.run_for(Duration::from_millis(500));
        let count = |host: usize, counter| net.hosts[host].count(counter);
        assert_eq!(count(SERVER, Counter::AddAddrTx), times);
        assert_eq!(count(CLIENT, Counter::AddAddr), times);
        assert_eq!(count(SERVER, Counter::EchoAdd), times);
    }
    // No news for the path manager, though.
    assert_eq!(announced(&net, CLIENT).len(), 1);
    net.complete(LIMIT);
}

#[test]
fn a_lost_join_ack_is_repeated_and_no_data_goes_before_it_is_acknowledged() {
    let mut net = connected(4, vec![slow(), slow()], 2_000_000, 0);
    let mut dropped = 0;
    net.middlebox = Some(Box::new(move |p| {
        if p.path == 1 && p.from == CLIENT && !boxes::is_syn(p.bytes) && dropped < 2 {
            dropped += 1;
            assert_eq!(boxes::payload_len(p.bytes), 0, "data in PRE_ESTABLISHED");
            return false;
        }
        true
    }));
    net.join(1).unwrap();
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::MPJoinAckRx), 1);
    let info = net.hosts[CLIENT].events.clone();
    let up = |e: &&Event| matches!(e, Event::SubflowEstablished { .. });
    assert_eq!(info.iter().filter(up).count(), 1);
}

#[test]
fn options_stripped_from_a_joined_path_reset_it() {
    for both in [true, false] {
        let mut net = connected(5, vec![slow(), slow()], 3_000_000, 0);
        let mut seen = 0;
        net.middlebox = Some(Box::new(move |p| {
            if p.path == 1 && !boxes::is_syn(p.bytes) {
                seen += 1;
                if seen > 3 && (both || p.from == SERVER) {
                    boxes::strip(p.bytes);
                }
            }
            true
        }));
        net.join(1).unwrap();
        net.complete(LIMIT);
        let resets =
            net.hosts[CLIENT].count(Counter::MPRstTx) + net.hosts[SERVER].count(Counter::MPRstTx);
        assert!(resets > 0 || !both);
        assert!(net.hosts[CLIENT].info(net.now).mptcp);
    }
}

#[test]
fn a_blackholed_path_is_left_and_used_again() {
    for (victim, other) in [(0, 1), (1, 0)] {
        let mut net = connected(6, vec![slow(), slow()], 8_000_000, 0);
        net.join(1).unwrap();
        net.run_for(Duration::from_millis(500));
        let delivered = |net: &Net| net.hosts[SERVER].info(net.now).bytes_delivered;
        net.blackhole[victim] = true;
        let mut last = delivered(&net);
        let mut gap = Duration::ZERO;
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            net.run_for(Duration::from_millis(10));
            let at = delivered(&net);
            gap = if at > last {
                Duration::ZERO
            } else {
                gap + Duration::from_millis(10)
            };
            longest = longest.max(gap);
            last = at;
        }
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        assert_eq!(net.hosts[CLIENT].count(Counter::SubflowStale), 1);
        net.blackhole[victim] = false;
        net.run_for(Duration::from_secs(2));
        assert_eq!(net.hosts[CLIENT].count(Counter::SubflowRecover), 1);
        let sent = |net: &Net| {
            let info = net.hosts[CLIENT].info(net.now);
            info.subflows[victim].totals.bytes_sent
        };
        let before = sent(&net);
        net.run_for(Duration::from_millis(500));
        assert!(
            sent(&net) > before + 100_000,
            "path {victim} carries data again"
        );
        assert!(
            net.hosts[CLIENT].info(net.now).subflows[other]
                .totals
                .bytes_sent
                > 1_000_000
        );
        net.complete(LIMIT);
    }
}

#[test]
fn a_dead_path_does_not_hold_the_close_up() {
    // Both ends with data outstanding on it; one with nothing but its FIN.
    for (victim, down) in [(0, 2_000_000), (1, 2_000_000), (0, 0), (1, 0)] {
        let mut net = connected(31, vec![slow(), slow()], 2_000_000, down);
        net.join(1).unwrap();
        net.run_for(Duration::from_millis(500));
        net.blackhole[victim] = true;
        net.run_until(LIMIT, |net| {
            net.hosts
                .iter()
                .all(|h| h.conn.as_ref().is_some_and(|c| c.app().eof))
        });
        // Without sparing the close its timeout: a minute.
        net.complete(Duration::from_secs(10));
        assert!(net.hosts[CLIENT].count(Counter::SubflowCloseReset) > 0);
    }
}

#[test]
fn the_last_path_is_given_the_whole_time_to_close() {
    let mut net = connected(32, vec![slow()], 300_000, 300_000);
    net.run_until(LIMIT, |net| {
        [CLIENT, SERVER].iter().all(|h| {
            let core = &net.hosts[*h].conn.as_ref().unwrap().core;
            core.closing.closes_subflows(&core.reassembly) || core.subflows[0].closing
        })
    });
    net.blackhole[0] = true;
    net.run_for(Duration::from_secs(20));
    assert_eq!(net.hosts[CLIENT].count(Counter::SubflowCloseReset), 0);
    assert_eq!(net.hosts[SERVER].count(Counter::SubflowCloseReset), 0);
    net.blackhole[0] = false;
    net.complete(LIMIT);
}

#[test]
fn the_only_path_may_vanish_and_return() {
    let mut net = connected(7, vec![slow()], 3_000_000, 1_000_000);
    net.run_for(Duration::from_millis(300));
    net.blackhole[0] = true;
    net.run_for(Duration::from_secs(10));
    net.blackhole[0] = false;
    net.complete(LIMIT);
}

#[test]
fn resets_in_the_middle_cost_one_subflow_each() {
    let mut net = connected(8, vec![slow(), slow()], 3_000_000, 3_000_000);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(500));
    for host in [CLIENT, SERVER] {
        let next = {
            let core = &net.hosts[host].conn.as_ref().unwrap().core;
            core.subflows[0].tcp.rcv_nxt().0
        };
        net.forge(host, Flags::RST, next, 0);
    }
    net.run_for(Duration::from_millis(50));
    assert_eq!((live(&net, CLIENT), live(&net, SERVER)), (1, 1));
    net.complete(LIMIT);
}

#[test]
fn break_before_make_keeps_the_connection() {
    let mut net = connected(9, vec![slow(), slow()], 2_000_000, 2_000_000);
    net.run_for(Duration::from_millis(300));
    net.with(CLIENT, |conn, cx| {
        conn.close_subflow(cx, SubflowId(0), Some(3))
    });
    net.run_for(Duration::from_secs(5));
    assert_eq!((live(&net, CLIENT), live(&net, SERVER)), (0, 0));
    net.join(1).unwrap();
    net.complete(LIMIT);
}

#[test]
fn without_any_subflow_the_connection_ends_in_time() {
    let mut net = connected(10, vec![slow()], 2_000_000, 0);
    net.with(CLIENT, |conn, cx| {
        conn.close_subflow(cx, SubflowId(0), Some(3))
    });
    net.finish(Duration::from_secs(90));
    for host in [CLIENT, SERVER] {
        assert_eq!(net.hosts[host].app().closed, Some(CloseReason::Subflowless));
        assert_eq!(net.hosts[host].count(Counter::SubflowlessTimeout), 1);
    }
    net.check_frames();
}

#[test]
fn a_port_without_carrier_gives_its_data_to_the_others() {
    let mut net = connected(11, vec![slow(), slow()], 6_000_000, 0);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(400));
    net.hosts[CLIENT].sink.ports[0].set_carrier(false);
    net.blackhole[0] = true;
    net.with(CLIENT, |conn, cx| conn.on_port_down(cx, PortId(0)));
    let before = net.hosts[SERVER].info(net.now).bytes_delivered;
    net.run_for(Duration::from_secs(1));
    assert!(net.hosts[SERVER].info(net.now).bytes_delivered > before + 300_000);
    net.hosts[CLIENT].sink.ports[0].set_carrier(true);
    net.blackhole[0] = false;
    net.with(CLIENT, |conn, cx| conn.on_port_up(cx, PortId(0)));
    net.complete(LIMIT);
}

#[test]
fn carrier_loss_is_also_noticed_by_sending() {
    let mut net = connected(12, vec![slow(), slow()], 6_000_000, 0);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(400));
    net.hosts[CLIENT].sink.ports[1].set_carrier(false);
    net.run_for(Duration::from_secs(2));
    assert!(
        net.hosts[CLIENT].info(net.now).subflows[1].stale
            || net.hosts[CLIENT].count(Counter::SubflowStale) > 0
    );
    net.hosts[CLIENT].sink.ports[1].set_carrier(true);
    net.with(CLIENT, |conn, cx| conn.on_port_up(cx, PortId(1)));
    net.complete(LIMIT);
}

#[test]
fn backups_carry_nothing_while_a_regular_subflow_works() {
    let mut net = connected(13, vec![slow(), slow()], 4_000_000, 4_000_000);
    net.join_with(1, |p| p.backup = true).unwrap();
    net.run_for(Duration::from_secs(1));
    let on_backup = |net: &Net, host: usize| net.hosts[host].info(net.now).subflows[1].clone();
    assert!(on_backup(&net, CLIENT).backup_local);
    assert!(on_backup(&net, SERVER).backup_remote);
    for host in [CLIENT, SERVER] {
        assert_eq!(on_backup(&net, host).totals.bytes_sent, 0);
    }
    // MP_PRIO makes it regular.
    net.with(CLIENT, |conn, cx| conn.set_backup(cx, SubflowId(1), false));
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.hosts[SERVER].count(Counter::MPPrioRx), 1);
    for host in [CLIENT, SERVER] {
        assert!(on_backup(&net, host).totals.bytes_sent > 100_000);
    }
    net.complete(LIMIT);
}

#[test]
fn a_backup_takes_over_from_a_dead_path() {
    let mut net = connected(14, vec![slow(), slow()], 4_000_000, 0);
    net.join_with(1, |p| p.backup = true).unwrap();
    net.run_for(Duration::from_millis(300));
    net.blackhole[0] = true;
    net.run_for(Duration::from_secs(3));
    let info = net.hosts[CLIENT].info(net.now);
    assert!(info.subflows[1].totals.bytes_sent > 500_000);
    net.blackhole[0] = false;
    net.complete(LIMIT);
}

fn announced(net: &Net, host: usize) -> Vec<(u8, IpAddr, Option<u16>)> {
    net.hosts[host]
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Announced {
                address_id,
                address,
                port,
                ..
            } => Some((*address_id, *address, *port)),
            _ => None,
        })
        .collect()
}

#[test]
fn addresses_are_announced_echoed_and_withdrawn() {
    let mut net = connected(15, vec![slow()], 1_000_000, 0);
    let v4: IpAddr = "10.9.9.9".parse().unwrap();
    let v6: IpAddr = "fd00::9".parse().unwrap();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(1), v4, None);
        conn.announce(cx, AddressId(2), v6, None);
        conn.announce(cx, AddressId(3), v4, Some(8080));
        conn.announce(cx, AddressId(4), v6, Some(8080));
    });
    net.run_for(Duration::from_millis(200));
    let mut got = announced(&net, CLIENT);
    got.sort();
    assert_eq!(
        got,
        [
            (1, v4, None),
            (2, v6, None),
            (3, v4, Some(8080)),
            (4, v6, Some(8080))
        ]
    );
    let h = &net.hosts[SERVER];
    assert_eq!(
        (h.count(Counter::EchoAdd), h.count(Counter::AddAddrTx)),
        (4, 4)
    );
    assert_eq!(net.hosts[CLIENT].count(Counter::PortAdd), 2);
    net.with(SERVER, |conn, cx| {
        conn.remove_addresses(cx, &[AddressId(2), AddressId(9)])
    });
    net.run_for(Duration::from_millis(100));
    let removed: Vec<_> = net.hosts[CLIENT]
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Removed { address_id, .. } => Some(*address_id),
            _ => None,
        })
        .collect();
    assert_eq!(removed, [2]);
    assert_eq!(net.hosts[CLIENT].count(Counter::RmAddrDrop), 1);
    net.complete(LIMIT);
}

/// Local identifiers of the server's subflows, and what the client knows them as.
fn ids(net: &Net) -> Vec<(u8, u8)> {
    let server = net.hosts[SERVER].info(net.now).subflows;
    let client = net.hosts[CLIENT].info(net.now).subflows;
    let seen = |local| client.iter().find(|c| c.remote == local).unwrap().remote_id;
    server.iter().map(|s| (s.local_id, seen(s.local))).collect()
}

#[test]
fn an_address_that_is_joined_bears_the_identifier_it_was_announced_by() {
    let mut net = connected(23, vec![slow(), slow(), slow()], 9_000_000, 0);
    let addr = address(SERVER, 1, false, 0).ip();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(7), addr, None)
    });
    net.run_for(Duration::from_millis(100));
    net.join(1).unwrap();
    net.join(2).unwrap();
    net.run_for(Duration::from_millis(300));
    // The third was never announced: any identifier that is not another's.
    assert_eq!(ids(&net), [(0, 0), (7, 7), (255, 255)]);
    // Found by it, for its priority and its end.
    let subflow = SubflowId(1);
    net.with(SERVER, |conn, cx| conn.set_backup(cx, subflow, true));
    net.run_for(Duration::from_millis(100));
    let client = net.hosts[CLIENT].info(net.now);
    assert!(
        client
            .subflows
            .iter()
            .any(|s| s.remote_id == 7 && s.backup_remote)
    );
    net.with(SERVER, |conn, cx| {
        conn.remove_addresses(cx, &[AddressId(7)])
    });
    net.run_for(Duration::from_secs(1));
    assert_eq!(ids(&net), [(0, 0), (255, 255)]);
    assert_eq!(net.hosts[CLIENT].count(Counter::RmAddr), 1);
    // Announced at last, the third goes by that.
    let addr = address(SERVER, 2, false, 0).ip();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(9), addr, None)
    });
    let server = net.hosts[SERVER].info(net.now).subflows;
    assert_eq!(server[1].local_id, 9);
    net.complete(LIMIT);
}

#[test]
fn a_join_to_the_initial_address_is_to_address_zero() {
    let mut net = connected(24, vec![slow()], 2_000_000, 0);
    net.join(0).unwrap();
    net.run_for(Duration::from_millis(300));
    assert_eq!(ids(&net), [(0, 0), (0, 0)]);
    net.complete(LIMIT);
}

#[test]
fn announcements_repeat_until_echoed_and_one_does_not_hold_back_others() {
    let mut net = connected(16, vec![slow()], 20_000_000, 0);
    let silent: IpAddr = "10.9.9.9".parse().unwrap();
    let heard: IpAddr = "10.9.9.8".parse().unwrap();
    net.middlebox = Some(Box::new(|p| {
        if p.from == SERVER {
            boxes::each_mptcp(p.bytes, |o| {
                if o[2] >> 4 == 3 && o[3] == 1 {
                    o.fill(1);
                }
            });
        }
        true
    }));
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(1), silent, None);
        conn.announce(cx, AddressId(2), heard, None);
    });
    net.run_for(Duration::from_millis(200));
    assert_eq!(announced(&net, CLIENT), [(2, heard, None)]);
    net.run_for(Duration::from_secs(14));
    assert_eq!(net.hosts[SERVER].count(Counter::AddAddrTx), 5, "1 + 4");
    net.complete(LIMIT);
}

/// Linux keeps one announcement until its worker has seen it, and drops what comes meanwhile.
#[test]
fn announcements_wait_for_each_others_echoes() {
    let mut net = connected(19, vec![slow()], 1_000_000, 0);
    let mut busy = false;
    net.middlebox = Some(Box::new(move |p| {
        let mut passes = true;
        let from = p.from;
        boxes::each_mptcp(p.bytes, |o| {
            let (add_addr, echo) = (o[2] >> 4 == 3, o[2] & 1 == 1);
            if add_addr && from == SERVER && !echo {
                passes = !busy;
                busy = true;
            } else if add_addr && from == CLIENT {
                busy = false;
            }
        });
        passes
    }));
    net.with(SERVER, |conn, cx| {
        for id in 1..=5 {
            conn.announce(cx, AddressId(id), IpAddr::from([10, 9, 9, id]), None);
        }
    });
    net.run_for(Duration::from_millis(900));
    assert_eq!(announced(&net, CLIENT).len(), 5);
    assert_eq!(net.hosts[SERVER].count(Counter::AddAddrTx), 5);
    net.complete(LIMIT);
}

#[test]
fn announcements_with_a_wrong_hmac_are_ignored() {
    let mut net = connected(17, vec![slow()], 1_000_000, 0);
    net.middlebox = Some(Box::new(|p| {
        if p.from == SERVER {
            boxes::each_mptcp(p.bytes, |o| {
                if o[2] >> 4 == 3 && o.len() > 8 {
                    o[15] ^= 1;
                }
            });
        }
        true
    }));
    let addr: IpAddr = "10.9.9.9".parse().unwrap();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(1), addr, None)
    });
    net.run_for(Duration::from_millis(100));
    assert!(announced(&net, CLIENT).is_empty());
    assert_eq!(net.hosts[CLIENT].count(Counter::AddAddrDrop), 1);
    net.complete(LIMIT);
}

#[test]
fn removing_an_address_in_use_ends_its_subflow_and_loses_nothing() {
    let mut net = connected(18, vec![slow(), slow()], 9_000_000, 9_000_000);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(400));
    net.with(CLIENT, |conn, cx| {
        conn.remove_addresses(cx, &[AddressId(1)])
    });
    net.run_for(Duration::from_secs(2));
    assert_eq!((live(&net, CLIENT), live(&net, SERVER)), (1, 1));
    assert_eq!(net.hosts[CLIENT].count(Counter::RmSubflow), 1);
    assert_eq!(net.hosts[SERVER].count(Counter::RmAddr), 1);
    net.complete(LIMIT);
}

#[test]
fn a_withdrawn_path_that_answers_stays_and_one_that_does_not_goes() {
    for answers in [true, false] {
        let mut net = connected(19, vec![slow(), slow()], 20_000_000, 0);
        net.join(1).unwrap();
        net.run_for(Duration::from_millis(400));
        // The peer says so without closing the subflow itself.
        let remove = {
            let core = &mut net.hosts[CLIENT].conn.as_mut().unwrap().core;
            let ids = crate::wire::mptcp::AddressIds::single(AddressId(1));
            let option = crate::wire::mptcp::MptcpOption::RemoveAddr { ids };
            core.subflows[0].signal(option)
        };
        assert!(remove);
        net.blackhole[1] = !answers;
        net.poll(CLIENT);
        net.run_for(Duration::from_secs(3));
        assert_eq!(live(&net, SERVER), if answers { 2 } else { 1 });
        net.blackhole[1] = false;
        net.complete(LIMIT);
    }
}

#[test]
fn joins_beyond_the_limit_or_after_the_close_are_refused() {
    let mut net = connected(20, vec![slow(), slow(), slow()], 500_000, 0);
    net.hosts[SERVER].config.subflows_max = 2;
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(100));
    net.join(2).unwrap();
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[SERVER].join_rejected, [JoinReject::Limit]);
    assert_eq!(net.hosts[SERVER].count(Counter::MPJoinRejected), 1);
    net.hosts[CLIENT].config.subflows_max = 3;
    assert_eq!(net.join(2), Err(OpenError::Limit));
    net.complete(LIMIT);
}

#[test]
fn a_client_does_not_join_the_initial_address_if_the_server_denies_it() {
    let mut net = Net::new(21, vec![slow(), slow()]);
    net.hosts[SERVER].config.deny_join_initial = true;
    net.start(TestApp::sender(1, 300_000), TestApp::sender(2, 0));
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].info(net.now).fully_established
    });
    let denied = net.join_with(1, |p| {
        p.tuple.remote = address(SERVER, 0, false, SERVER_PORT);
    });
    assert_eq!(denied, Err(OpenError::InitialAddressDenied));
    net.join(1).unwrap();
    net.complete(LIMIT);
}

#[test]
fn data_dropped_above_tcp_is_sent_again_at_connection_level() {
    let mut net = connected(22, vec![slow(), slow()], 3_000_000, 0);
    net.join(1).unwrap();
    // Every tenth data segment loses its mapping: TCP acknowledges what MPTCP must drop.
    let mut n = 0;
    net.middlebox = Some(Box::new(move |p| {
        if p.from == CLIENT && boxes::payload_len(p.bytes) > 0 {
            n += 1;
            if n % 50 == 0 {
                boxes::strip(p.bytes);
            }
        }
        true
    }));
    net.complete(LIMIT);
    assert!(net.hosts[SERVER].info(net.now).mptcp);
}

#[test]
fn a_lost_fastclose_is_repeated() {
    let mut net = connected(23, vec![slow()], 20_000_000, 0);
    net.run_for(Duration::from_millis(100));
    let mut lost = 0;
    net.middlebox = Some(Box::new(move |p| {
        if p.from == CLIENT && lost < 2 && boxes::payload_len(p.bytes) == 0 {
            lost += 1;
            return false;
        }
        true
    }));
    net.with(CLIENT, Connection::abort);
    net.finish(LIMIT);
    assert_eq!(net.hosts[SERVER].app().closed, Some(CloseReason::PeerAbort));
    assert!(net.hosts[CLIENT].count(Counter::MPFastcloseTx) >= 2);
    net.check_frames();
}

#[test]
fn a_fastclose_that_nobody_hears_ends_by_itself() {
    let mut net = connected(24, vec![slow()], 20_000_000, 0);
    net.run_for(Duration::from_millis(100));
    net.blackhole[0] = true;
    net.with(CLIENT, Connection::abort);
    net.run_until(Duration::from_secs(60), |net| {
        net.hosts[CLIENT]
            .conn
            .as_ref()
            .is_some_and(Connection::is_finished)
    });
    assert_eq!(
        net.hosts[CLIENT].app().closed,
        Some(CloseReason::LocalAbort)
    );
    assert_eq!(
        net.hosts[CLIENT].count(Counter::MPFastcloseTx),
        5,
        "4 ACKs and a RST"
    );
}

#[test]
fn an_application_may_abort() {
    let mut net = connected(25, vec![slow()], 20_000_000, 0);
    net.run_for(Duration::from_millis(100));
    net.hosts[SERVER].app().abort = true;
    net.finish(LIMIT);
    assert_eq!(
        net.hosts[SERVER].app().closed,
        Some(CloseReason::LocalAbort)
    );
    assert_eq!(net.hosts[CLIENT].app().closed, Some(CloseReason::PeerAbort));
    net.check_frames();
}

#[test]
fn small_segments_leave_in_bursts_of_as_many_frames_as_a_port_takes() {
    // Odd: the client's port segments.
    let narrow = PathConfig {
        mtu: 400,
        ..PathConfig::default()
    };
    let mut net = connected(33, vec![narrow], 3_000_000, 0);
    net.complete(Duration::from_secs(30));
    assert!(net.hosts[CLIENT].count(Counter::TxBursts) > 0);
}

#[test]
fn a_smaller_path_mtu_costs_a_copy_and_no_data() {
    let mut net = connected(26, vec![slow()], 1_000_000, 0);
    net.run_for(Duration::from_millis(200));
    let error = {
        let core = &net.hosts[CLIENT].conn.as_ref().unwrap().core;
        let s = &core.subflows[0];
        crate::wire::icmp::IcmpError {
            kind: crate::wire::icmp::IcmpKind::PacketTooBig { mtu: 1200 },
            reporter: "10.0.0.254".parse().unwrap(),
            tuple: s.tuple(),
            seq: s.tcp.snd_una(),
        }
    };
    net.with(CLIENT, |conn, cx| conn.on_icmp(cx, SubflowId(0), &error));
    assert_eq!(net.hosts[CLIENT].count(Counter::PmtuReduced), 1);
    assert!(net.hosts[CLIENT].count(Counter::TxRecopyMss) > 0);
    net.complete(LIMIT);
}
