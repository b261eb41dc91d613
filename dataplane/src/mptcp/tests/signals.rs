//! Addresses and their identifiers, withdrawals, ports, reasons of resets, and the pace of
//! signals. Rows are those of RFC 8684's requirements.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::mptcp::MptcpOption;
use crate::wire::tcp::Flags;
use crate::wire::types::AddressId;

const LIMIT: Duration = Duration::from_secs(600);

/// Two idle ends that stay open until told otherwise.
fn idle(seed: u64, paths: usize) -> Net {
    let mut net = Net::new(seed, vec![PathConfig::default(); paths]);
    let held = |seed| {
        let mut app = TestApp::sender(seed, 10);
        app.hold = true;
        app
    };
    net.start(held(1), held(2));
    net.established();
    net.run_for(Duration::from_millis(100));
    net
}

fn finish(mut net: Net) {
    net.middlebox = None;
    for host in [CLIENT, SERVER] {
        net.hosts[host].app().hold = false;
        net.poll(host);
    }
    net.complete(LIMIT);
}

/// What a host was told about the peer's addresses.
fn heard(net: &Net, host: usize) -> Vec<String> {
    let events = net.hosts[host].events.iter();
    events
        .filter_map(|e| match e {
            Event::Announced {
                address_id,
                address,
                port: None,
                ..
            } => Some(format!("{address_id} is {address}")),
            Event::Announced {
                address_id,
                address,
                port: Some(port),
                ..
            } => Some(format!("{address_id} is {address}:{port}")),
            Event::Removed { address_id, .. } => Some(format!("{address_id} is gone")),
            _ => None,
        })
        .collect()
}

const A: &str = "10.9.9.1";
const B: &str = "10.9.9.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Rows 79 and 81.
#[test]
fn an_identifier_is_withdrawn_before_it_names_another_address() {
    let mut net = idle(1, 1);
    for address in [A, A, B] {
        net.with(SERVER, |conn, cx| {
            conn.announce(cx, AddressId(1), ip(address), None)
        });
        net.run_for(Duration::from_millis(300));
    }
    assert_eq!(
        heard(&net, CLIENT),
        ["1 is 10.9.9.1", "1 is gone", "1 is 10.9.9.2"]
    );
    // The repetitions of the withdrawal were called off.
    net.run_for(Duration::from_secs(20));
    assert_eq!(heard(&net, CLIENT).len(), 3);
    assert_eq!(net.hosts[SERVER].count(Counter::RmAddrTx), 1);
    finish(net);
}

/// Row 79, the receiver: a genuine announcement that contradicts an earlier one is dropped.
#[test]
fn an_identifier_does_not_change_its_address() {
    let mut net = idle(2, 1);
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(1), ip(A), None)
    });
    net.run_for(Duration::from_millis(100));
    let core = &mut net.hosts[SERVER].conn.as_mut().unwrap().core;
    let (own, peer) = (core.local.unwrap().key, core.remote.unwrap().key);
    let hmac = crate::mptcp::key::add_addr_hmac(own, peer, AddressId(1), ip(B), None);
    core.subflows[0].signal(MptcpOption::AddAddr {
        echo: false,
        address_id: AddressId(1),
        addr: ip(B),
        port: None,
        hmac: Some(hmac),
    });
    net.poll(SERVER);
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[CLIENT].count(Counter::AddAddrDrop), 1);
    assert_eq!(heard(&net, CLIENT), ["1 is 10.9.9.1"]);
    finish(net);
}

/// Row 80: a new port for a known identifier is news; rows 37 and 75: a join to that port is
/// found by its token and bears the announced identifier.
#[test]
fn an_announced_port_is_joined() {
    let mut net = idle(3, 2);
    let address = address(SERVER, 1, false, 0).ip();
    for port in [None, Some(8080)] {
        net.with(SERVER, |conn, cx| {
            conn.announce(cx, AddressId(3), address, port)
        });
        net.run_for(Duration::from_millis(200));
    }
    assert_eq!(
        heard(&net, CLIENT),
        ["3 is 10.77.1.2", "3 is 10.77.1.2:8080"]
    );
    net.join_with(1, |p| p.tuple.remote.set_port(8080)).unwrap();
    net.run_for(Duration::from_millis(200));
    let info = net.hosts[SERVER].info(net.now);
    let joined = &info.subflows[1];
    assert_eq!((joined.local.port(), joined.local_id), (8080, 3));
    assert_eq!(net.hosts[CLIENT].info(net.now).subflows[1].remote_id, 3);
    finish(net);
}

/// Row 82: nothing acknowledges a REMOVE_ADDR, so it is sent three times; the copies that
/// arrive are unknown by then and ignored (row 115).
#[test]
fn a_withdrawal_survives_losses_and_is_said_three_times() {
    for lost in 0..3 {
        let mut net = idle(4, 2);
        net.with(SERVER, |conn, cx| {
            conn.announce(cx, AddressId(5), ip(A), None)
        });
        net.run_for(Duration::from_millis(100));
        let mut seen = 0;
        net.middlebox = Some(Box::new(move |p| {
            let removes = |o: &MptcpOption| matches!(o, MptcpOption::RemoveAddr { .. });
            if boxes::tcp(p.bytes).options.mptcp.iter().any(removes) {
                seen += 1;
                return seen > lost;
            }
            true
        }));
        net.with(SERVER, |conn, cx| {
            conn.remove_addresses(cx, &[AddressId(5)])
        });
        net.run_for(Duration::from_secs(30));
        assert_eq!(heard(&net, CLIENT), ["5 is 10.9.9.1", "5 is gone"]);
        assert_eq!(net.hosts[SERVER].count(Counter::RmAddrTx), 3);
        let ignored = net.hosts[CLIENT].count(Counter::RmAddrDrop);
        assert_eq!(ignored, 2 - lost);
        finish(net);
    }
}

/// Endpoint 0 is the address of the first subflow: withdrawn, that subflow ends and the
/// connection goes on (rows 28, 86); announced again under another number it is usable.
#[test]
fn address_zero_may_go_and_come_back() {
    let mut net = idle(5, 2);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(200));
    net.with(SERVER, |conn, cx| {
        conn.remove_addresses(cx, &[AddressId(0)])
    });
    net.run_for(Duration::from_secs(1));
    for host in [CLIENT, SERVER] {
        let info = net.hosts[host].info(net.now);
        assert_eq!(info.subflows.len(), 1, "{info:?}");
        assert_eq!(info.subflows[0].port, 1);
    }
    let initial = address(SERVER, 0, false, 0).ip();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(0), initial, None)
    });
    net.run_for(Duration::from_millis(200));
    assert_eq!(heard(&net, CLIENT), ["0 is gone", "0 is 10.77.0.2"]);
    net.join(0).unwrap();
    net.run_for(Duration::from_millis(200));
    let info = net.hosts[CLIENT].info(net.now);
    assert_eq!(info.subflows[1].remote_id, 0);
    finish(net);
}

/// Row 16, the side that sets flag C: a peer that joins nevertheless is refused.
#[test]
fn a_join_to_the_initial_address_is_refused_if_flag_c_said_so() {
    let mut net = Net::new(6, vec![PathConfig::default(), PathConfig::default()]);
    net.hosts[SERVER].config.deny_join_initial = true;
    let mut app = TestApp::sender(1, 10);
    app.hold = true;
    net.start(app, TestApp::sender(2, 10));
    net.established();
    net.run_for(Duration::from_millis(100));
    let core = &mut net.hosts[CLIENT].conn.as_mut().unwrap().core;
    assert!(std::mem::take(&mut core.remote_denies_join), "flag C came");
    let to_initial = |p: &mut SubflowPath| p.tuple.remote = address(SERVER, 0, false, SERVER_PORT);
    net.join_with(1, to_initial).unwrap();
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[SERVER].join_rejected[0], JoinReject::Prohibited);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[SERVER].info(net.now).subflows.len(), 2);
    finish(net);
}

/// Row 89: the reason of a reset and its flag T decide whether the path is tried again; a new
/// announcement lifts the ban (row 78).
#[test]
fn a_reset_for_good_bars_its_path_until_the_address_is_announced() {
    for (reason, again) in [
        (0, true),
        (1, false),
        (2, true),
        (3, false),
        (4, true),
        (5, true),
        (6, false),
    ] {
        let mut net = idle(7, 2);
        net.join(1).unwrap();
        net.run_for(Duration::from_millis(200));
        net.with(SERVER, |conn, cx| {
            conn.close_subflow(cx, SubflowId(1), Some(reason))
        });
        // What stays in a ring leaves in the next turn.
        net.run_for(Duration::from_millis(200));
        net.run_for(Duration::from_millis(200));
        assert_eq!(net.hosts[CLIENT].info(net.now).subflows.len(), 1);
        let tried = net.join(1).map(|_| ());
        assert_eq!(tried.is_ok(), again, "reason {reason}: {tried:?}");
        if !again {
            assert_eq!(tried, Err(OpenError::FailedBefore));
            let address = address(SERVER, 1, false, 0).ip();
            net.with(SERVER, |conn, cx| {
                conn.announce(cx, AddressId(1), address, None)
            });
            net.run_for(Duration::from_millis(200));
            net.run_for(Duration::from_millis(200));
            net.join(1).unwrap();
        }
        net.run_for(Duration::from_millis(100));
        finish(net);
    }
}

/// Row 2: however much there is to say, no three duplicate ACKs in a row leave within a
/// moment.
#[test]
fn signals_do_not_look_like_loss() {
    let mut net = idle(8, 1);
    let log = Arc::new(Mutex::new(Vec::new()));
    let acks = log.clone();
    net.middlebox = Some(Box::new(move |p| {
        let packet = boxes::tcp(p.bytes);
        if p.from == SERVER && packet.payload.is_empty() {
            acks.lock().unwrap().push((packet.seq, packet.ack));
        }
        true
    }));
    let start = net.now;
    net.with(SERVER, |conn, cx| {
        for id in 1..=8 {
            conn.announce(cx, AddressId(id), IpAddr::from([10, 9, 9, id]), None);
        }
        conn.set_backup(cx, SubflowId(0), true);
    });
    let mut last = 0;
    while heard(&net, CLIENT).len() < 8 {
        net.run_for(Duration::from_millis(5));
        let log = log.lock().unwrap();
        assert!(log.len() <= last + 2, "{} at once", log.len() - last);
        last = log.len();
        assert!(net.now - start < Duration::from_secs(1), "{last}");
    }
    assert!(last >= 8);
    net.run_for(Duration::from_millis(100));
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[CLIENT].count(Counter::MPPrioRx), 1);
    finish(net);
}

/// A subflow that was closed here in order, and whose peer never does the same, does not
/// stay for ever in FIN-WAIT-2.
#[test]
fn a_subflow_that_the_peer_does_not_close_ends_in_time() {
    let mut net = idle(9, 2);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(200));
    net.middlebox = Some(Box::new(|p| {
        let packet = boxes::tcp(p.bytes);
        if p.from == SERVER && p.path == 1 && packet.flags.contains(Flags::FIN) {
            p.bytes[packet.tcp_offset + 13] &= !1;
            boxes::fix(p.bytes);
        }
        true
    }));
    net.with(CLIENT, |conn, cx| {
        conn.close_subflow(cx, SubflowId(1), None)
    });
    net.run_for(Duration::from_secs(50));
    assert_eq!(net.hosts[CLIENT].info(net.now).subflows.len(), 2);
    net.run_for(Duration::from_secs(20));
    assert_eq!(net.hosts[CLIENT].info(net.now).subflows.len(), 1);
    assert_eq!(net.hosts[CLIENT].count(Counter::SubflowFinTimeout), 1);
    finish(net);
}

/// Data beyond a gap in a subflow counts against the connection's frames and gives them back
/// when memory runs short.
#[test]
fn frames_beyond_a_gap_are_counted_and_released() {
    let mut net = Net::new(10, vec![PathConfig::default()]);
    net.start(TestApp::sender(1, 200_000), TestApp::sender(2, 0));
    net.established();
    let mut skipped = false;
    net.middlebox = Some(Box::new(move |p| {
        let data = p.from == CLIENT && boxes::payload_len(p.bytes) > 0;
        // The first data segment and all that repeats it.
        let first = data && boxes::has_mptcp(p.bytes) && !skipped;
        skipped |= first;
        !first
    }));
    net.run_for(Duration::from_millis(18));
    let held = net.hosts[SERVER].info(net.now).recv_queue_frames;
    assert!(held > 3, "{held}");
    let free = net.hosts[SERVER].sink.pool.available();
    let released = net.with(SERVER, |conn, cx| conn.release_frames(cx));
    assert_eq!(released, held);
    net.hosts[SERVER].sink.pool.collect_returned();
    assert!(u64::from(net.hosts[SERVER].sink.pool.available()) >= u64::from(free) + held - 2);
    assert_eq!(net.hosts[SERVER].info(net.now).recv_queue_frames, 0);
    net.complete(LIMIT);
}
