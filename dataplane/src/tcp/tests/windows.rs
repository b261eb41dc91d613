//! Windows of both sides, acknowledgments, timers of an idle or blocked connection.

use super::pair::{Link, Pair};
use super::peer::{IRS, ISS, MSS, Test, ack, config};
use crate::counters::Counter;
use crate::tcp::{CongestionKind, Control, MapRef, State, TcpConfig};
use crate::time::Duration;

// ---- the peer's window ----

#[test]
fn the_budget_is_the_smaller_window() {
    let mut test = Test::established(config());
    assert_eq!(test.tcp.send_budget(test.now), 10 * MSS, "IW10");
    test.recv(ack(1, 1).win(3500));
    assert_eq!(test.tcp.send_budget(test.now), 3000, "whole segments");
    assert_eq!(test.send(10), 3);
    assert_eq!(test.tcp.send_budget(test.now), 0, "500 are silly");
}

#[test]
fn a_closed_window_is_probed_ever_more_slowly_and_opens() {
    let mut test = Test::established(config());
    test.recv(ack(1, 1).win(0));
    assert_eq!(test.tcp.send_budget(test.now), 0);
    let mut gaps = vec![];
    for _ in 0..4 {
        let before = test.now;
        test.timer();
        gaps.push((test.now - before).as_millis());
        assert_eq!(test.control(), Some(Control::Probe { seq: ISS }));
        test.recv(ack(1, 1).win(0));
    }
    assert!(gaps.windows(2).all(|g| g[1] == 2 * g[0]), "{gaps:?}");
    assert_eq!(test.count(Counter::TCPWinProbe), 4);
    let verdict = test.recv(ack(1, 1).win(5000));
    assert!(verdict.window_opened);
    assert_eq!(test.send(10), 5);
}

#[test]
fn a_closed_window_whose_peer_is_gone_ends_the_connection() {
    let mut test = Test::established(config());
    test.wait(1_000_000);
    test.recv(ack(1, 1).win(0));
    let mut last_word = test.now;
    for _ in 0..12 {
        assert!(!test.timer().timed_out);
        test.control();
        // Answered however late, probes go on.
        test.recv(ack(1, 1).win(0));
        last_word = test.now;
    }
    for _ in 0..50 {
        if test.timer().timed_out {
            let silence = test.now - last_word;
            assert!(silence >= TcpConfig::default().user_timeout, "{silence:?}");
            assert!(matches!(test.control(), Some(Control::Rst { .. })));
            assert_eq!(test.tcp.state(), State::Closed);
            return;
        }
        test.control();
    }
    panic!("probes without end");
}

#[test]
fn without_data_to_send_nothing_is_probed() {
    let mut test = Test::established(config());
    test.tcp.set_data_waiting(test.now, false);
    test.recv(ack(1, 1).win(0));
    assert_eq!(test.tcp.next_deadline(), None);
}

#[test]
fn a_window_taken_back_is_survived() {
    let mut test = Test::established(config());
    assert_eq!(test.send(5), 5);
    test.recv(ack(1, 1001).win(0));
    assert_eq!(test.tcp.send_budget(test.now), 0);
    test.timer();
    test.timer();
    // The first segment may be repeated, to provoke news; the rest stays.
    assert_eq!(test.resent().first(), Some(&1001));
    assert!(test.resent().is_empty());
    // A peer that answers is alive, however long.
    for _ in 0..20 {
        assert!(!test.timer().timed_out);
        test.resent();
        test.recv(ack(1, 1001).win(0));
    }
    test.recv(ack(1, 5001).win(60_000));
    assert_eq!(test.tcp.state(), State::Established);
    assert!(test.tcp.send_budget(test.now) > 0);
}

#[test]
fn a_small_window_is_used_after_the_override_timeout() {
    let mut test = Test::established(config());
    test.recv(ack(1, 1).win(400));
    assert_eq!(test.tcp.send_budget(test.now), 0, "silly");
    test.timer();
    assert_eq!(test.tcp.send_budget(test.now), 400);
    test.tcp.record_new(test.now, 400, 0, MapRef::default());
    assert_eq!(test.tcp.send_budget(test.now), 0);
}

#[test]
fn a_zero_window_reader_gets_everything_when_it_wakes() {
    let config = TcpConfig {
        recv_buffer_max: 30_000,
        ..TcpConfig::default()
    };
    let mut pair = Pair::new(1, &config, &Link::new(100_000_000, 5), [500_000, 0]);
    pair.hosts[1].read_from = pair.now + Duration::from_secs(20);
    pair.finish(60);
    assert!(pair.hosts[0].counters.get(Counter::TCPWinProbe) > 2);
    assert!(pair.hosts[1].counters.get(Counter::TCPToZeroWindowAdv) >= 1);
}

// ---- our window ----

#[test]
fn the_right_edge_stays_when_space_shrinks() {
    let mut test = Test::established(config());
    let edge = test.tcp.advertised_edge();
    test.recv(ack(1, 1).data(1000));
    test.tcp.set_receive_window(0);
    let (acked, window) = test.acked();
    assert_eq!(IRS + acked + u32::from(window), edge);
    // What was promised is taken.
    for seq in (1001..50_001).step_by(1000) {
        test.recv(ack(seq, 1).data(1000));
    }
    assert_eq!(test.acked(), (edge - IRS, 0));
    assert_eq!(test.count(Counter::RcvPruned), 0);
}

#[test]
fn a_window_that_opens_is_announced() {
    let mut test = Test::established(config());
    test.tcp.set_receive_window(0);
    for seq in (1..50_001).step_by(1000) {
        test.recv(ack(seq, 1).data(1000));
        test.takes_ack();
    }
    assert_eq!(test.acked().1, 0);
    test.tcp.set_receive_window(500);
    assert!(!test.takes_ack(), "silly");
    test.tcp.set_receive_window(1000);
    assert!(test.takes_ack());
    assert_eq!(test.acked().1, 1000);
    test.tcp.set_receive_window(1900);
    assert!(!test.takes_ack());
}

// ---- acknowledgments ----

/// Past the quick start.
fn settled() -> (Test, u32) {
    let mut test = Test::established(TcpConfig {
        recv_buffer_max: 65_535,
        ..config()
    });
    let mut seq = 1;
    for _ in 0..16 {
        test.recv(ack(seq, 1).data(1000));
        seq += 1000;
        assert!(test.takes_ack(), "quick start");
    }
    (test, seq)
}

#[test]
fn the_second_segment_is_acknowledged_at_the_end_of_its_batch() {
    let (mut test, seq) = settled();
    test.recv(ack(seq, 1).data(1000));
    assert!(!test.takes_ack());
    test.recv(ack(seq + 1000, 1).data(1000));
    assert!(!test.tcp.is_ack_pressing());
    for i in 2..8 {
        test.recv(ack(seq + i * 1000, 1).data(1000));
    }
    assert!(test.tcp.is_ack_pressing(), "eight: before the batch ends");
    assert!(test.takes_ack());
    assert!(!test.takes_ack());
}

#[test]
fn one_segment_is_acknowledged_within_40_ms() {
    let (mut test, seq) = settled();
    test.recv(ack(seq, 1).data(1000));
    let before = test.now;
    test.timer();
    assert_eq!(test.now - before, Duration::from_millis(40));
    assert!(test.takes_ack());
    assert_eq!(test.tcp.next_deadline(), None);
}

#[test]
fn data_carries_the_ack() {
    let (mut test, seq) = settled();
    test.recv(ack(seq, 1).data(1000));
    test.send(1);
    test.acked();
    test.wait(100);
    assert!(!test.takes_ack());
}

#[test]
fn out_of_order_refill_and_repetition_are_acknowledged_at_once() {
    let (mut test, seq) = settled();
    test.recv(ack(seq + 1000, 1).data(1000));
    assert!(test.takes_ack(), "out of order");
    assert_eq!(
        test.tcp.sack_blocks(3).as_slice(),
        [(IRS + seq + 1000, IRS + seq + 2000)]
    );
    test.recv(ack(seq, 1).data(1000));
    assert!(test.takes_ack(), "refill");
    assert!(test.tcp.sack_blocks(3).is_empty());
    test.recv(ack(seq, 1).data(1000));
    assert!(test.takes_ack(), "repetition");
}

#[test]
fn data_does_not_stand_in_for_an_ack_with_sack_blocks() {
    let (mut test, seq) = settled();
    test.recv(ack(seq + 1000, 1).data(1000));
    test.send(1);
    test.acked();
    assert!(test.tcp.is_ack_due(test.now), "the data had no blocks");
    assert!(matches!(test.control(), Some(Control::Ack { .. })));
    assert_eq!(test.reported(), [(seq + 1000, seq + 2000)]);
    assert!(!test.takes_ack(), "once");
    // The same for what came twice.
    test.recv(ack(seq + 1000, 1).data(1000));
    test.send(1);
    test.acked();
    assert!(matches!(test.control(), Some(Control::Ack { .. })));
    let dsack = test.reported();
    assert_eq!(dsack[0], (seq + 1000, seq + 2000));
    assert_eq!(dsack.len(), 2);
}

// ---- idle and dead peers ----

#[test]
fn keepalive_probes_and_gives_up() {
    let mut test = Test::established(TcpConfig {
        keepalive: Some(Duration::from_secs(60)),
        keepalive_interval: Duration::from_secs(10),
        keepalive_probes: 3,
        ..config()
    });
    test.tcp.set_data_waiting(test.now, false);
    let start = test.now;
    test.timer();
    assert_eq!(test.now - start, Duration::from_secs(60));
    assert_eq!(test.control(), Some(Control::Probe { seq: ISS }));
    test.recv(ack(1, 1));
    let heard = test.now;
    for _ in 0..3 {
        assert!(!test.timer().timed_out);
        assert!(matches!(test.control(), Some(Control::Probe { .. })));
    }
    assert!(test.timer().timed_out);
    assert_eq!(test.now - heard, Duration::from_secs(60 + 30));
    assert!(matches!(test.control(), Some(Control::Rst { .. })));
}

#[test]
fn a_pause_restarts_slow_start() {
    let mut test = Test::established(config());
    for round in 0..3 {
        let sent = test.send(100);
        test.wait(10);
        test.recv(ack(1, test.tcp.snd_nxt() - ISS));
        assert!(sent >= 10, "{round}");
    }
    let cwnd = test.tcp.cwnd();
    assert!(cwnd >= 30 * MSS);
    test.wait(100);
    assert_eq!(
        test.tcp.send_budget(test.now),
        cwnd.min(60_000),
        "short pauses do not matter"
    );
    test.wait(10_000);
    assert_eq!(test.tcp.send_budget(test.now), 10 * MSS);
}

// ---- loss, by hand ----

#[test]
fn an_mptcp_signal_is_no_duplicate_ack() {
    for (signal, lost) in [(true, vec![]), (false, vec![1])] {
        let mut test = Test::established(TcpConfig {
            sack: false,
            ..config()
        });
        test.send(6);
        test.wait(10);
        for _ in 0..3 {
            let dup = ack(1, 1);
            test.recv(if signal { dup.signal() } else { dup });
        }
        assert_eq!(test.resent(), lost, "signal {signal}");
    }
}

#[test]
fn newreno_repairs_one_segment_per_partial_ack() {
    let mut test = Test::established(TcpConfig {
        sack: false,
        congestion: CongestionKind::NewReno,
        ..config()
    });
    assert_eq!(test.send(10), 10);
    test.wait(10);
    for _ in 0..4 {
        test.recv(ack(1, 1));
    }
    assert_eq!(test.resent(), [1]);
    assert_eq!(test.tcp.ssthresh(), 5 * MSS);
    test.wait(10);
    test.recv(ack(1, 3001));
    assert_eq!(test.resent(), [3001], "partial");
    test.wait(10);
    test.recv(ack(1, 10_001));
    assert_eq!(
        (test.tcp.cwnd(), test.tcp.info().phase.as_str()),
        (5 * MSS, "open")
    );
}

#[test]
fn a_partly_acknowledged_segment_is_resent_whole() {
    let mut test = Test::established(config());
    test.send(1);
    test.recv(ack(1, 501));
    assert_eq!(test.tcp.snd_una(), ISS + 501);
    test.timer();
    assert_eq!(test.resent(), [1]);
    let verdict = test.recv(ack(1, 1001));
    assert_eq!(verdict.acked_bytes, 500);
    assert_eq!(test.tcp.unacked_bytes(), 0);
}

#[test]
fn what_was_acknowledged_is_not_resent_in_smaller_segments() {
    let mut test = Test::established(config());
    test.send(1);
    test.recv(ack(1, 501));
    test.tcp.set_max_segment(200);
    let unacked: Vec<_> = test.tcp.unacked_ranges().collect();
    assert_eq!(unacked, [(401, 200), (601, 200), (801, 200)]);
    assert!(test.timer().consecutive_rtos <= 1);
    test.timer();
    assert!(test.resent().iter().all(|seq| *seq >= 401));
    assert_eq!(test.recv(ack(1, 1001)).acked_bytes, 500);
}

#[test]
fn reneging_is_survived() {
    let mut test = Test::established(config());
    test.send(5);
    test.wait(10);
    test.recv(ack(1, 1).sack(&[(1001, 5001)]));
    assert_eq!(test.resent(), [1]);
    // The hole is filled, but the peer has thrown the rest away.
    test.wait(10);
    test.recv(ack(1, 1001));
    assert_eq!(test.tcp.info().sacked_segments, 4);
    assert!(test.timer().rto_fired);
    assert_eq!(test.resent(), [1001]);
    assert_eq!(test.tcp.info().sacked_segments, 0);
}

#[test]
fn timeouts_are_counted_only_if_the_retransmission_left() {
    let mut test = Test::established(config());
    test.send(3);
    test.timer();
    assert_eq!(test.resent(), [2001], "tail probe");
    assert_eq!(test.timer().consecutive_rtos, 1);
    // Nothing is sent: the port is full.
    assert_eq!(test.timer().consecutive_rtos, 1);
    assert_eq!(test.resent().first(), Some(&1));
    assert_eq!(test.timer().consecutive_rtos, 2);
}

#[test]
fn an_ack_that_overtakes_the_retransmission_frees_new_data() {
    let mut test = Test::established(config());
    test.send(1);
    test.timer(); // probe wanted
    assert!(test.timer().rto_fired);
    assert_eq!(
        test.tcp.send_budget(test.now),
        0,
        "the retransmission first"
    );
    test.recv(ack(1, 1001));
    assert!(test.resent().is_empty());
    assert_eq!(test.send(1), 1);
    test.timer();
    assert_eq!(test.resent(), [1001], "probes work again");
}

#[test]
fn data_that_meets_a_window_closed_long_ago_starts_probing() {
    let mut test = Test::established(config());
    test.tcp.set_data_waiting(test.now, false);
    test.recv(ack(1, 1).win(0));
    test.wait(5000);
    test.tcp.set_data_waiting(test.now, true);
    test.timer();
    assert_eq!(test.control(), Some(Control::Probe { seq: ISS }));
    test.tcp.set_data_waiting(test.now, false);
    assert_eq!(test.tcp.next_deadline(), None);
}

#[test]
fn a_window_set_for_small_segments_admits_a_large_one() {
    let mut test = Test::established(config());
    test.send(5);
    test.tcp.set_option_room(200);
    test.timer();
    test.resent();
    test.timer();
    assert_eq!(test.tcp.cwnd(), 800);
    test.resent();
    test.tcp.set_option_room(0);
    test.recv(ack(1, 5001));
    assert!(test.tcp.send_budget(test.now) >= MSS);
    assert!(test.tcp.ssthresh() >= 2 * MSS);
}

#[test]
fn ranges_for_reinjection_survive_a_reset() {
    let mut test = Test::established(config());
    test.send(3);
    test.recv(ack(1, 1001).sack(&[(2001, 3001)]));
    test.tcp.abort();
    let ranges: Vec<_> = test.tcp.unacked_ranges().collect();
    assert_eq!(ranges, [(1001, 1000), (2001, 1000)]);
}

#[test]
fn a_packet_that_no_frame_holds_is_several_equal_segments() {
    let config = TcpConfig {
        segment_bytes_max: 300,
        ..config()
    };
    let mut test = Test::established(config);
    // 1000 bytes in four parts, since three of 300 would not do.
    assert_eq!((test.tcp.mss(), test.tcp.parts()), (250, 4));
    assert_eq!(test.tcp.send_budget(test.now), 10 * 250, "IW10 of them");
    test.tcp.set_max_segment(300);
    let mss = test.tcp.mss();
    assert_eq!(test.tcp.parts(), 1, "{mss} bytes fit");
    assert!((200..=300).contains(&mss));
}
