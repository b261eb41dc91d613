//! What congestion control learns from MPTCP: the other subflows, and which duplicate ACKs
//! mean something.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::boxes;
use super::harness::*;
use crate::io::PortId;
use crate::mptcp::*;
use crate::tcp::CongestionKind;
use crate::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);
const COUPLED: [CongestionKind; 3] = [
    CongestionKind::Lia,
    CongestionKind::Olia,
    CongestionKind::Balia,
];

fn slow() -> PathConfig {
    PathConfig {
        rate: 1_000_000,
        ..PathConfig::default()
    }
}

/// A client with `up` bytes for a server, both with this controller.
fn net(seed: u64, kind: CongestionKind, paths: Vec<PathConfig>, up: u64) -> Net {
    let mut net = Net::new(seed, paths);
    for host in &mut net.hosts {
        host.config.tcp.congestion = kind;
    }
    net.start(TestApp::sender(1, up), TestApp::sender(2, 0));
    net
}

fn connected(seed: u64, kind: CongestionKind, paths: Vec<PathConfig>, up: u64) -> Net {
    let mut net = net(seed, kind, paths, up);
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].info(net.now).fully_established
    });
    net
}

/// How many others each of the client's subflows would be coupled with.
fn siblings(net: &Net) -> Vec<u32> {
    let core = &net.hosts[CLIENT].conn.as_ref().unwrap().core;
    (0..core.subflows.len())
        .map(|i| core.siblings(net.now, i).count())
        .collect()
}

#[test]
fn subflows_that_carry_data_are_coupled() {
    let mut net = connected(1, CongestionKind::Lia, vec![slow(), slow()], 4_000_000);
    assert_eq!(siblings(&net), [0], "one subflow is one TCP");
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(500));
    assert_eq!(siblings(&net), [1, 1]);
    // Without carrier it takes nothing from anybody.
    net.with(CLIENT, |conn, cx| conn.on_port_down(cx, PortId(1)));
    assert_eq!(siblings(&net), [0, 1]);
    net.with(CLIENT, |conn, cx| conn.on_port_up(cx, PortId(1)));
    assert_eq!(siblings(&net), [1, 1]);
    net.with(CLIENT, |conn, cx| {
        conn.close_subflow(cx, SubflowId(1), None)
    });
    assert_eq!(siblings(&net)[0], 0, "closing");
    net.complete(LIMIT);
}

#[test]
fn a_waiting_backup_and_a_silent_path_are_not() {
    let mut net = connected(2, CongestionKind::Olia, vec![slow(), slow()], 4_000_000);
    net.join_with(1, |p| p.backup = true).unwrap();
    // Its handshake is no load either, once a timeout's time has passed.
    net.run_for(Duration::from_millis(1500));
    assert_eq!(siblings(&net)[0], 0, "the backup carries nothing");
    net.with(CLIENT, |conn, cx| conn.set_backup(cx, SubflowId(1), false));
    net.run_for(Duration::from_millis(300));
    assert_eq!(siblings(&net), [1, 1]);
    net.blackhole[1] = true;
    net.run_for(Duration::from_millis(1500));
    assert_eq!(siblings(&net)[0], 0, "stale");
    net.blackhole[1] = false;
    net.complete(LIMIT);
}

#[test]
fn after_fallback_there_is_nothing_to_couple() {
    for kind in COUPLED {
        let mut net = net(3, kind, vec![slow()], 1_000_000);
        net.middlebox = Some(Box::new(|p| {
            boxes::strip(p.bytes);
            true
        }));
        net.run_for(Duration::from_millis(500));
        assert!(!net.hosts[CLIENT].info(net.now).mptcp);
        assert_eq!(siblings(&net), [0]);
        net.complete(LIMIT);
    }
}

#[test]
fn the_uncoupled_are_not_asked() {
    let mut net = connected(4, CongestionKind::Cubic, vec![slow(), slow()], 1_000_000);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(300));
    let core = &net.hosts[CLIENT].conn.as_ref().unwrap().core;
    assert!(core.subflows.iter().all(|s| !s.tcp.is_coupled()));
    net.complete(LIMIT);
}

#[test]
fn streams_arrive_over_lossy_paths_of_unequal_length() {
    let path = |delay_ms, loss| PathConfig {
        delay: Duration::from_millis(delay_ms),
        jitter: Duration::from_millis(2),
        loss,
        ..slow()
    };
    for kind in COUPLED {
        for seed in 0..4 {
            let mut net = connected(seed, kind, vec![path(3, 0.01), path(40, 0.03)], 1_500_000);
            net.join(1).unwrap();
            net.run_for(Duration::from_millis(400));
            net.blackhole[0] = seed % 2 == 0;
            net.run_for(Duration::from_secs(2));
            net.blackhole[0] = false;
            net.complete(LIMIT);
        }
    }
}

/// RFC 8684 §3: a duplicate ACK that carries an MPTCP option other than a DSS does not count as
/// one, whether it repeats ADD_ADDR, REMOVE_ADDR or any other signal.
#[test]
fn duplicate_acks_that_carry_signals_are_no_congestion() {
    for (signal, recoveries) in [(true, 0), (false, 1)] {
        let mut net = Net::new(5, vec![slow()]);
        for host in &mut net.hosts {
            host.config.tcp.sack = false;
        }
        // The newest pure ACK that the client has received; none arrives once `hold` is set.
        let newest = Rc::new(RefCell::new(Vec::new()));
        let hold = Rc::new(Cell::new(false));
        let (seen, held) = (newest.clone(), hold.clone());
        net.middlebox = Some(Box::new(move |p| {
            if p.from == SERVER && boxes::payload_len(p.bytes) == 0 && !held.get() {
                seen.replace(p.bytes.clone());
            }
            p.from == CLIENT || !held.get()
        }));
        net.start(TestApp::sender(1, 2_000_000), TestApp::sender(2, 0));
        net.run_for(Duration::from_millis(200));
        hold.set(true);
        net.run_for(Duration::from_millis(20));
        let tcp = |net: &Net| net.hosts[CLIENT].info(net.now).subflows[0].tcp.clone();
        assert!(tcp(&net).unacked_bytes > 5000, "in the middle of something");
        assert_eq!(tcp(&net).recoveries, 0);
        let mut ack = newest.borrow().clone();
        let last = boxes::tcp(&ack).ack;
        let core = &net.hosts[CLIENT].conn.as_ref().unwrap().core;
        assert_eq!(core.subflows[0].tcp.snd_una(), last, "a duplicate");
        if signal {
            // A DATA_ACK becomes a REMOVE_ADDR of addresses that nobody knows.
            boxes::each_mptcp(&mut ack, |o| {
                o[2] = 0x40;
                o[3..].fill(77);
            });
        }
        assert!(boxes::has_mptcp(&ack));
        for _ in 0..4 {
            net.inject(CLIENT, 0, ack.clone());
        }
        assert_eq!(tcp(&net).recoveries, recoveries, "signal: {signal}");
        hold.set(false);
        net.complete(LIMIT);
    }
}
