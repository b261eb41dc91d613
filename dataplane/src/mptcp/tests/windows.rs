//! Windows: what is advertised on each subflow, and what is kept at connection level.

use std::collections::HashMap;

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::io::PortId;
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::types::FourTuple;

/// What one end of a subflow has advertised.
#[derive(Debug)]
struct Advertised {
    iss: SeqNumber,
    /// Its SYN's window, from when on the peer's numbers are known.
    syn_window: u16,
    shift: Option<u8>,
    edge: Option<SeqNumber>,
}

/// Sees every packet that leaves and holds each subflow to its word: ack + window never
/// moves left, from the SYN to the RST (RFC 9293 §3.8.6; normalisers drop what breaks it).
#[derive(Debug, Default)]
pub(super) struct RightEdges {
    /// By four-tuple as the sender sees it.
    ends: HashMap<FourTuple, Advertised>,
    pub(super) checked: u64,
}

impl RightEdges {
    pub(super) fn observe(&mut self, packet: &TcpPacket) {
        let (own, peer) = (packet.tuple.reversed(), packet.tuple);
        let syn = packet.flags.contains(Flags::SYN);
        if syn && self.ends.get(&own).is_none_or(|e| e.iss != packet.seq) {
            // A new incarnation; a passive end's clock starts with its SYN/ACK.
            self.ends.insert(
                own,
                Advertised {
                    iss: packet.seq,
                    syn_window: packet.window,
                    shift: packet.options.window_scale,
                    edge: None,
                },
            );
        }
        if !packet.flags.contains(Flags::ACK) {
            return;
        }
        let peer_end = self.ends.get(&peer).map(|e| (e.iss, e.shift));
        let (Some(end), Some((peer_iss, peer_shift))) = (self.ends.get_mut(&own), peer_end) else {
            return;
        };
        let shift = match (syn, end.shift, peer_shift) {
            (false, Some(own), Some(_)) => own,
            _ => 0,
        };
        let edge = packet.ack + (u32::from(packet.window) << shift);
        let before = *end
            .edge
            .get_or_insert(peer_iss + 1 + u32::from(end.syn_window));
        assert!(
            edge >= before,
            "{}: the right edge moved left by {}: {:?} ack {} window {} << {shift}",
            packet.tuple,
            before - edge,
            packet.flags,
            packet.ack - peer_iss,
            packet.window,
        );
        end.edge = Some(edge);
        self.checked += 1;
    }
}

const LIMIT: Duration = Duration::from_secs(600);

fn slow() -> PathConfig {
    PathConfig {
        rate: 1_250_000,
        ..PathConfig::default()
    }
}

/// A sender and a reader that reads in fits, on paths that come and go while memory runs
/// short: the harness holds every segment to its right edge (row 63).
fn slow_reader(seed: u64, option: bool) -> Net {
    let mut net = Net::new(seed, vec![slow(), slow(), slow()]);
    for h in &mut net.hosts {
        h.config.window_option = option;
        h.config.recv_buffer_bytes = 100_000;
        h.config.recv_buffer_frames = 300;
    }
    let mut reader = TestApp::sender(2, 0);
    reader.stop_reading = true;
    net.start(TestApp::sender(1, 1_500_000), reader);
    net.established();
    net.run_for(Duration::from_millis(100));
    for turn in 0..60u32 {
        match turn % 12 {
            1 => drop(net.join(1)),
            3 => drop(net.join(2)),
            5 => drop(net.with(SERVER, |conn, cx| conn.release_frames(cx))),
            7 => net.with(CLIENT, |conn, cx| {
                if conn.subflows().count() > 1 {
                    let (id, _) = conn.subflows().next().unwrap();
                    conn.close_subflow(cx, id, Some(4));
                }
            }),
            9 => net.with(SERVER, |conn, cx| {
                conn.on_port_down(cx, PortId(1));
                conn.on_port_up(cx, PortId(1));
            }),
            _ => {}
        }
        if turn % 4 == 2 {
            net.hosts[SERVER].app().stop_reading = false;
            net.with(SERVER, |conn, cx| conn.wake_reader(cx));
            net.hosts[SERVER].app().stop_reading = true;
        }
        net.run_for(Duration::from_millis(60));
    }
    net.hosts[SERVER].app().stop_reading = false;
    net.with(SERVER, |conn, cx| conn.wake_reader(cx));
    let _ = net.join(1);
    net.complete(LIMIT);
    net
}

#[test]
fn no_edge_moves_left_with_a_slow_reader_on_changing_paths() {
    for seed in 0..20 {
        for option in [false, true] {
            slow_reader(seed, option);
        }
    }
}

#[test]
fn the_option_is_used_by_two_that_have_it_and_ignored_by_one_that_has_not() {
    for (client, server) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut net = Net::new(5, vec![slow(), slow()]);
        net.hosts[CLIENT].config.window_option = client;
        net.hosts[SERVER].config.window_option = server;
        net.start(TestApp::sender(1, 2_000_000), TestApp::sender(2, 0));
        net.established();
        net.run_for(Duration::from_millis(50));
        net.join(1).unwrap();
        net.run_for(Duration::from_millis(500));
        for host in [CLIENT, SERVER] {
            let core = &net.hosts[host].conn.as_ref().unwrap().core;
            assert_eq!(core.windows_are_per_subflow(), client && server);
        }
        net.complete(LIMIT);
        let count = |host: usize, c| net.hosts[host].count(c);
        assert_eq!(count(SERVER, Counter::WindowOptionTx) > 0, server);
        assert_eq!(count(CLIENT, Counter::WindowOptionRx) > 0, client && server);
        assert_eq!(count(SERVER, Counter::BeyondWindowBytes), 0);
    }
}

/// A box removes the option on one direction: the end that is not heard goes on telling its
/// window in the headers.
#[test]
fn an_option_that_is_removed_is_not_relied_on() {
    for stripped in [CLIENT, SERVER] {
        let mut net = Net::new(6, vec![slow(), slow()]);
        for h in &mut net.hosts {
            h.config.window_option = true;
            h.config.recv_buffer_bytes = 60_000;
        }
        net.middlebox = Some(Box::new(move |p| {
            if p.from == stripped {
                boxes::each_mptcp(p.bytes, |o| {
                    if o[2] >> 4 == 0xf {
                        o.fill(1);
                    }
                });
            }
            true
        }));
        net.start(TestApp::sender(1, 800_000), TestApp::sender(2, 800_000));
        net.established();
        net.run_for(Duration::from_millis(50));
        net.join(1).unwrap();
        net.run_for(Duration::from_millis(300));
        for host in [CLIENT, SERVER] {
            let core = &net.hosts[host].conn.as_ref().unwrap().core;
            assert!(!core.windows_are_per_subflow(), "{host}");
        }
        net.complete(LIMIT);
    }
}

/// Data beyond the connection-level window is dropped above TCP, not DATA_ACKed, counted,
/// and sent again (row 115).
#[test]
fn data_beyond_the_connection_window_is_dropped_counted_and_sent_again() {
    let mut net = Net::new(7, vec![slow(), slow(), slow(), slow()]);
    net.hosts[SERVER].config.recv_buffer_bytes = 64_000;
    let mut reader = TestApp::sender(2, 0);
    reader.stop_reading = true;
    let mut sender = TestApp::sender(1, 1);
    sender.hold = true;
    net.start(sender, reader);
    net.established();
    net.run_for(Duration::from_millis(30));
    for path in 1..4 {
        net.join(path).unwrap();
    }
    net.run_for(Duration::from_millis(100));
    net.hosts[CLIENT].app().to_send = 1_000_000;
    net.hosts[CLIENT].app().hold = false;
    net.poll(CLIENT);
    net.run_for(Duration::from_secs(3));
    let info = net.hosts[SERVER].info(net.now);
    let beyond = net.hosts[SERVER].count(Counter::BeyondWindowBytes);
    assert!(beyond > 0, "four windows of one buffer: {info:?}");
    // Twice the buffer is what is kept at most.
    let kept = info.recv_queue_bytes + info.out_of_order_bytes;
    assert!(kept <= 2 * 64_000, "{kept}");
    net.hosts[SERVER].app().stop_reading = false;
    net.with(SERVER, |conn, cx| conn.wake_reader(cx));
    net.complete(LIMIT);
}

/// Both sides have closed and the last subflow is gone, but the application has not read
/// everything: the connection waits for it, for as long as it goes on reading.
#[test]
fn what_is_unread_at_the_end_is_not_lost() {
    for mptcp in [true, false] {
        let mut net = Net::new(8, vec![slow()]);
        net.hosts[CLIENT].config.enabled = mptcp;
        let mut reader = TestApp::sender(2, 0);
        reader.stop_reading = true;
        net.start(TestApp::sender(1, 100_000), reader);
        net.established();
        net.run_for(Duration::from_secs(50));
        assert_eq!(net.hosts[SERVER].app().closed, None);
        assert_eq!(net.hosts[CLIENT].app().closed, Some(CloseReason::Finished));
        net.hosts[SERVER].app().stop_reading = false;
        net.with(SERVER, |conn, cx| conn.wake_reader(cx));
        net.complete(LIMIT);
    }
}

#[test]
fn an_application_that_never_reads_keeps_its_connection_for_a_limited_time() {
    let mut net = Net::new(9, vec![slow()]);
    let mut reader = TestApp::sender(2, 0);
    reader.stop_reading = true;
    net.start(TestApp::sender(1, 100_000), reader);
    net.established();
    net.finish(Duration::from_secs(130));
    assert_eq!(net.hosts[SERVER].app().closed, Some(CloseReason::Finished));
    net.check_frames();
}
