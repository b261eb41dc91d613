//! Handshakes, transfer and orderly close on clean paths.

use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::time::Duration;

const LIMIT: Duration = Duration::from_secs(200);

fn one_path() -> Net {
    Net::new(1, vec![PathConfig::default()])
}

#[test]
fn data_flows_both_ways_and_both_sides_close() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 300_000), TestApp::sender(9, 200_000));
    net.established();
    net.complete(LIMIT);
    for h in &net.hosts {
        assert_eq!(h.count(Counter::RetransSegs), 0, "{:?}", h.counters);
        assert_eq!(h.count(Counter::MPTCPRetrans), 0);
    }
    assert_eq!(net.hosts[CLIENT].count(Counter::MPCapableSYNACKRX), 1);
    assert_eq!(net.hosts[SERVER].count(Counter::MPCapableACKRX), 1);
}

#[test]
fn only_the_server_speaks() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 0), TestApp::sender(9, 100_000));
    net.complete(LIMIT);
}

#[test]
fn nobody_speaks() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 0), TestApp::sender(9, 0));
    net.complete(LIMIT);
    let closes = |h: &Host| {
        let closed = |e: &&Event| matches!(e, Event::Closed { .. });
        h.events.iter().filter(closed).count()
    };
    assert_eq!((closes(&net.hosts[0]), closes(&net.hosts[1])), (1, 1));
    let waits: u32 = net.hosts.iter().map(|h| h.removed_with_time_wait).sum();
    assert!(waits >= 1, "someone keeps TIME-WAIT");
}

#[test]
fn an_echo_service_sees_half_close() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 400_000), TestApp::echo());
    net.complete(LIMIT);
}

#[test]
fn checksums_are_used_if_either_side_wants_them() {
    for (client, server, used) in [
        (ChecksumPolicy::Always, ChecksumPolicy::IfRequested, true),
        (ChecksumPolicy::IfRequested, ChecksumPolicy::Always, true),
        (ChecksumPolicy::Never, ChecksumPolicy::IfRequested, false),
    ] {
        let mut net = one_path();
        net.hosts[CLIENT].config.checksum = client;
        net.hosts[SERVER].config.checksum = server;
        let mut sender = TestApp::sender(3, 100_001);
        sender.fill_max = 777;
        net.start(sender, TestApp::sender(9, 70_000));
        net.established();
        for host in [CLIENT, SERVER] {
            let info = net.hosts[host].info(net.now);
            assert_eq!((info.checksum, info.mptcp), (used, true));
        }
        net.complete(LIMIT);
        assert_eq!(net.hosts[SERVER].count(Counter::DataCsumErr), 0);
    }
}

#[test]
fn unwanted_checksums_mean_plain_tcp() {
    for host in [CLIENT, SERVER] {
        let mut net = one_path();
        net.hosts[host].config.checksum = ChecksumPolicy::Never;
        net.hosts[1 - host].config.checksum = ChecksumPolicy::Always;
        net.start(TestApp::sender(3, 50_000), TestApp::sender(9, 50_000));
        net.established();
        net.run_for(Duration::from_millis(20));
        for host in [CLIENT, SERVER] {
            assert!(!net.hosts[host].info(net.now).mptcp);
        }
        net.complete(LIMIT);
    }
}

#[test]
fn plain_tcp_peers_are_served() {
    for host in [CLIENT, SERVER] {
        let mut net = one_path();
        net.hosts[host].config.enabled = false;
        net.start(TestApp::sender(3, 200_000), TestApp::sender(9, 100_000));
        net.established();
        assert!(!net.hosts[CLIENT].info(net.now).mptcp);
        assert!(!net.hosts[SERVER].info(net.now).mptcp);
        net.complete(LIMIT);
        let fell_back = net.hosts[CLIENT].count(Counter::MPCapableFallbackSYNACK);
        assert_eq!(fell_back, u64::from(host == SERVER));
    }
}

#[test]
fn a_second_subflow_carries_its_share() {
    let slow = PathConfig {
        rate: 2_000_000,
        ..PathConfig::default()
    };
    let mut net = Net::new(2, vec![slow.clone(), slow]);
    net.start(TestApp::sender(3, 3_000_000), TestApp::sender(9, 3_000_000));
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].info(net.now).fully_established
    });
    net.join(1).unwrap();
    net.finish(Duration::from_secs(30));
    net.check_streams();
    for h in &net.hosts {
        let info = h.info(net.now);
        assert_eq!(info.closed_subflows.len(), 2);
        for s in &info.closed_subflows {
            assert!(s.totals.bytes_sent > 600_000, "{s:?}");
        }
        assert!(info.totals.bytes_sent >= 3_000_000);
        let ups = h
            .events
            .iter()
            .filter(|e| matches!(e, Event::SubflowEstablished { .. }));
        assert_eq!(ups.count(), 1);
    }
    assert_eq!(net.hosts[SERVER].count(Counter::MPJoinAckRx), 1);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPJoinSynAckRx), 1);
    net.check_frames();
}

#[test]
fn ipv4_and_ipv6_mix_in_one_connection() {
    let v6 = PathConfig {
        v6: true,
        mtu: 1400,
        rate: 2_000_000,
        ..PathConfig::default()
    };
    let v4 = PathConfig {
        v6: false,
        mtu: 1500,
        ..v6.clone()
    };
    let mut net = Net::new(3, vec![v6, v4]);
    net.start(TestApp::sender(3, 1_000_000), TestApp::echo());
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].info(net.now).fully_established
    });
    net.join(1).unwrap();
    net.complete(LIMIT);
    let info = net.hosts[CLIENT].counters.clone();
    assert_eq!(info.get(Counter::MPJoinSynAckRx), 1);
}

#[test]
fn a_slow_reader_closes_the_window_and_reopens_it() {
    let mut net = one_path();
    let mut reader = TestApp::sender(9, 0);
    reader.stop_reading = true;
    net.start(TestApp::sender(3, 2_000_000), reader);
    net.run_for(Duration::from_secs(20));
    let queued = net.hosts[SERVER].info(net.now).recv_queue_bytes;
    assert!((200_000..=270_000).contains(&queued), "{queued}");
    net.hosts[SERVER].app().stop_reading = false;
    net.with(SERVER, |conn, cx| conn.wake_reader(cx));
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::NoDSSInWindow), 0);
}

#[test]
fn steady_transfer_copies_no_payload_again() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 2_000_000), TestApp::sender(9, 0));
    net.finish(LIMIT);
    let h = &net.hosts[CLIENT];
    assert_eq!(h.count(Counter::TxBytesTouched), 2_000_000);
    assert_eq!(h.count(Counter::BytesTaken), 2_000_000);
    let h = &net.hosts[SERVER];
    assert_eq!(h.count(Counter::BytesDelivered), 2_000_000);
    assert_eq!(h.count(Counter::RxCopybreak), 0);
}

#[test]
fn abort_reaches_the_peer_by_fastclose() {
    let mut net = one_path();
    net.start(TestApp::sender(3, 20_000_000), TestApp::sender(9, 0));
    net.run_for(Duration::from_millis(100));
    net.with(CLIENT, Connection::abort);
    net.finish(LIMIT);
    assert_eq!(
        net.hosts[CLIENT].app().closed,
        Some(CloseReason::LocalAbort)
    );
    assert_eq!(net.hosts[SERVER].app().closed, Some(CloseReason::PeerAbort));
    assert_eq!(net.hosts[SERVER].count(Counter::MPFastcloseRx), 1);
    net.check_frames();
}

#[test]
fn a_local_close_ends_the_stream_in_order() {
    let mut net = one_path();
    let mut client = TestApp::sender(3, 5_000);
    client.hold = true;
    net.start(client, TestApp::echo());
    net.run_for(Duration::from_millis(500));
    net.with(CLIENT, Connection::close);
    net.complete(LIMIT);
}

#[test]
fn connecting_to_nobody_times_out() {
    let mut net = one_path();
    net.blackhole[0] = true;
    net.start(TestApp::sender(3, 5_000), TestApp::echo());
    net.run_until(Duration::from_secs(400), |net| {
        net.hosts[CLIENT]
            .conn
            .as_ref()
            .is_some_and(Connection::is_finished)
    });
    assert_eq!(net.hosts[CLIENT].app().closed, Some(CloseReason::Timeout));
    assert_eq!(net.hosts[CLIENT].count(Counter::MPCapableSYNTX), 3);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPCapableSYNTXDrop), 1);
    net.check_frames();
}

#[test]
fn the_first_data_segment_carries_the_keys_and_no_other() {
    use crate::wire::mptcp::MptcpOption;
    use std::cell::RefCell;
    use std::rc::Rc;

    for checksum in [ChecksumPolicy::IfRequested, ChecksumPolicy::Always] {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut net = one_path();
        net.hosts[SERVER].config.checksum = checksum;
        let log = Rc::clone(&seen);
        net.middlebox = Some(Box::new(move |p| {
            let packet = super::boxes::tcp(p.bytes);
            if p.from == CLIENT && !packet.payload.is_empty() {
                let keys = packet.options.mptcp.iter().find_map(|o| match o {
                    MptcpOption::MpCapable {
                        data_len, checksum, ..
                    } => Some((data_len.map(usize::from), checksum.is_some())),
                    _ => None,
                });
                log.borrow_mut().push((packet.payload.len(), keys));
            }
            true
        }));
        net.start(TestApp::sender(1, 50_000), TestApp::sender(2, 0));
        net.complete(LIMIT);
        let seen = seen.borrow();
        let (len, keys) = seen[0];
        assert_eq!(keys, Some((Some(len), checksum == ChecksumPolicy::Always)));
        assert!(seen[1..].iter().all(|(_, keys)| keys.is_none()));
    }
}

#[test]
fn an_interrupted_handshake_is_not_waited_for() {
    let mut net = one_path();
    net.start(TestApp::sender(1, 50_000), TestApp::sender(2, 0));
    // The server's answers are lost after the SYN/ACK; then it resets.
    net.middlebox = Some(Box::new(|p| {
        p.from == CLIENT || super::boxes::is_syn(p.bytes)
    }));
    net.run_for(Duration::from_millis(100));
    let next = net.hosts[CLIENT].conn.as_ref().unwrap().core.subflows[0]
        .tcp
        .rcv_nxt();
    net.forge(CLIENT, crate::wire::tcp::Flags::RST, next.0, 0);
    assert_eq!(net.hosts[CLIENT].app().closed, Some(CloseReason::PeerAbort));
}
