//! Recovery: how fast, and by which mechanism.

use super::pair::{Link, Pair};
use super::peer::{MSS, Test, ack, config};
use crate::counters::Counter;
use crate::tcp::{CongestionKind, TcpConfig};
use crate::time::{Duration, Instant};

fn upload(config: &TcpConfig, link: &Link, bytes: u64) -> Pair {
    Pair::new(1, config, link, [bytes, 0])
}

#[test]
fn ten_megabit_with_a_little_loss_is_used() {
    for congestion in [CongestionKind::Cubic, CongestionKind::NewReno] {
        let config = TcpConfig {
            congestion,
            ..TcpConfig::default()
        };
        let mut link = Link::new(10_000_000, 10);
        link.loss = 0.001;
        link.queue_bytes = 50_000;
        let mut pair = upload(&config, &link, 10_000_000);
        let seconds = pair.upload_seconds();
        let utilisation = 10_000_000.0 * 8.0 / seconds / 10_000_000.0;
        assert!(utilisation > 0.80, "{congestion:?}: {utilisation}");
        assert_eq!(pair.hosts[0].counters.get(Counter::TCPTimeouts), 0);
    }
}

#[test]
fn a_clean_path_is_filled() {
    let mut pair = upload(
        &TcpConfig::default(),
        &Link::new(100_000_000, 10),
        20_000_000,
    );
    let seconds = pair.upload_seconds();
    assert!(
        seconds < 20_000_000.0 * 8.0 / 100_000_000.0 * 1.35,
        "{seconds}"
    );
    assert_eq!(pair.hosts[0].counters.get(Counter::RetransSegs), 0);
}

#[test]
fn a_long_fat_path_is_filled_in_spite_of_loss() {
    // 1 Gbit/s, 40 ms: 5 MB in flight; a few losses in 60 MB.
    let config = TcpConfig {
        recv_buffer_max: 16 << 20,
        ..TcpConfig::default()
    };
    let mut link = Link::new(1_000_000_000, 20);
    link.queue_bytes = 2_500_000;
    link.drop_data = vec![20_000, 20_001, 30_000];
    let mut pair = upload(&config, &link, 60_000_000);
    let seconds = pair.upload_seconds();
    assert!(seconds < 1.4, "{seconds} {:?}", pair.hosts[0].tcp().info());
    assert_eq!(pair.hosts[0].counters.get(Counter::TCPTimeouts), 0);
}

#[test]
fn one_loss_is_repaired_without_a_timeout() {
    for sack in [true, false] {
        let config = TcpConfig {
            sack,
            ..TcpConfig::default()
        };
        let mut link = Link::new(100_000_000, 20);
        link.drop_data = vec![30];
        let mut pair = upload(&config, &link, 500_000);
        pair.links[1].drop_data.clear();
        pair.finish(10);
        let counters = &pair.hosts[0].counters;
        assert_eq!(counters.get(Counter::TCPTimeouts), 0, "sack {sack}");
        assert_eq!(pair.hosts[0].tcp().info().retransmits, 1, "sack {sack}");
        assert_eq!(counters.get(Counter::TCPSackRecovery), 1);
    }
}

#[test]
fn many_losses_of_one_window_are_repaired_without_a_timeout() {
    let mut link = Link::new(100_000_000, 20);
    link.drop_data = vec![40, 41, 44, 48, 49, 50, 60];
    let mut pair = upload(&TcpConfig::default(), &link, 500_000);
    pair.finish(10);
    assert_eq!(pair.hosts[0].counters.get(Counter::TCPTimeouts), 0);
    assert_eq!(pair.hosts[0].tcp().info().retransmits, 7);
}

#[test]
fn a_lost_retransmission_is_repaired_without_a_timeout() {
    let mut link = Link::new(100_000_000, 20);
    link.drop_data = vec![30];
    let mut pair = upload(&TcpConfig::default(), &link, 1_000_000);
    let deadline = pair.now + Duration::from_secs(10);
    pair.run_until(deadline, |pair| {
        pair.hosts[0].tcp().info().lost_segments > 0
    });
    // The next data packet is the retransmission.
    let next = pair.hosts[0].data_segments + 1;
    pair.links[0].drop_data.push(next);
    pair.finish(10);
    assert_eq!(pair.hosts[0].counters.get(Counter::TCPTimeouts), 0);
    assert_eq!(pair.hosts[0].tcp().info().retransmits, 2);
}

#[test]
fn a_lost_tail_is_repaired_by_a_probe() {
    let mut link = Link::new(100_000_000, 20);
    // 20 segments of 1448: the last two vanish.
    link.drop_data = vec![19, 20];
    let mut pair = upload(&TcpConfig::default(), &link, 20 * 1448);
    pair.hosts[0].auto_close = false;
    let seconds = pair.upload_seconds();
    let counters = &pair.hosts[0].counters;
    assert_eq!(counters.get(Counter::TCPTimeouts), 0);
    assert_eq!(counters.get(Counter::TCPLossProbes), 1);
    assert!(seconds < 0.5, "{seconds}");
}

#[test]
fn a_black_hole_of_two_seconds_is_survived() {
    let mut pair = upload(
        &TcpConfig::default(),
        &Link::new(100_000_000, 10),
        10_000_000,
    );
    let from = pair.now + Duration::from_millis(300);
    let hole = Some((from, from + Duration::from_secs(2)));
    pair.links[0].blackhole = hole;
    pair.links[1].blackhole = hole;
    let dark = from + Duration::from_millis(1900);
    pair.run_until(dark, |_| false);
    assert!(pair.hosts[0].tcp().is_stalled());
    assert!(pair.hosts[0].tcp().stalled_for(pair.now) > Some(Duration::from_secs(1)));
    let seconds = pair.upload_seconds();
    // Found again by the backed-off timer, at worst as long after as the outage was long.
    assert!(seconds < 6.0, "{seconds}");
    assert!(!pair.hosts[0].tcp().is_stalled());
    pair.finish(10);
}

#[test]
fn a_path_that_swallows_full_segments_gets_smaller_ones() {
    let mut link = Link::new(100_000_000, 10);
    link.payload_max = 1300;
    let mut pair = upload(&TcpConfig::default(), &link, 1_000_000);
    pair.finish(60);
    assert!(pair.hosts[0].counters.get(Counter::TCPMTUPFail) >= 1);
}

#[test]
fn reordering_is_not_taken_for_loss_for_long() {
    let mut link = Link::new(50_000_000, 20);
    link.jitter = Duration::from_millis(4);
    let mut pair = upload(&TcpConfig::default(), &link, 5_000_000);
    pair.finish(60);
    let info = pair.hosts[0].tcp().info();
    assert!(info.reordering_seen);
    assert!(info.retransmits * 50 < info.segments_out, "{info:?}");
    assert_eq!(pair.hosts[0].counters.get(Counter::TCPTimeouts), 0);
}

#[test]
fn a_spurious_timeout_is_undone() {
    // The round trip jumps from 20 ms to 620 ms: the timer fires, the originals arrive.
    let mut pair = upload(
        &TcpConfig::default(),
        &Link::new(100_000_000, 10),
        3_000_000,
    );
    let deadline = pair.now + Duration::from_secs(10);
    pair.run_until(deadline, |pair| pair.hosts[0].acked > 500_000);
    let before = pair.hosts[0].tcp().cwnd();
    pair.links[0].delay = Duration::from_millis(610);
    pair.run_until(deadline, |pair| pair.hosts[0].tcp().info().undos > 0);
    let host = &pair.hosts[0];
    assert!(host.counters.get(Counter::TCPTimeouts) >= 1);
    assert!(
        host.tcp().cwnd() >= before / 2,
        "{} {before}",
        host.tcp().cwnd()
    );
    pair.finish(60);
}

#[test]
fn a_dead_path_ends_by_the_user_timeout() {
    let config = TcpConfig {
        user_timeout: Duration::from_secs(30),
        ..TcpConfig::default()
    };
    let mut pair = upload(&config, &Link::new(100_000_000, 10), 10_000_000);
    let from = pair.now + Duration::from_millis(300);
    pair.links[0].blackhole = Some((from, Instant::MAX));
    pair.run_until(pair.now + Duration::from_secs(100), |pair| {
        pair.hosts[0].timed_out
    });
    assert!(pair.hosts[0].timed_out);
    let waited = pair.now - from;
    assert!((29..=31).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn losses_found_by_the_timer_are_repaired_at_the_pace_of_delivery() {
    let mut test = Test::established(config());
    assert_eq!(test.send(10), 10);
    test.wait(10);
    test.recv(ack(1, 1).sack(&[(1 + 9 * MSS, 1 + 10 * MSS)]));
    assert!(test.resent().is_empty(), "may be reordering");
    test.timer();
    assert_eq!(test.tcp.info().lost_segments, 9);
    // One segment arrived: nine must not leave in its place.
    assert_eq!(test.resent(), [1]);
    assert_eq!(test.send(1), 0);
}

#[test]
fn retransmissions_are_paced() {
    let mut test = Test::established(crate::tcp::TcpConfig {
        pacing: true,
        ..config()
    });
    // Slow start to 40 segments, which are out then.
    let (mut sent, mut una) = (0, 0);
    while sent - una < 40 {
        test.recv(ack(1, 1 + sent * MSS));
        una = sent;
        for _ in 0..100 {
            sent += test.send(40);
            test.now += Duration::from_micros(100);
        }
    }
    assert_eq!(test.tcp.unacked_bytes(), 40 * MSS);
    let una = test.tcp.snd_una();
    // A router wants smaller packets: all of it goes again, but not at once.
    let mut c = crate::counters::Counters::new();
    assert!(test.tcp.on_path_mtu(test.now, una, 540, &mut c));
    let from = test.now;
    let burst = test.resent().len();
    assert!((1..40).contains(&burst), "{burst}");
    let mut resent = burst;
    while resent < 80 {
        assert!(test.now - from < Duration::from_millis(20), "{resent}");
        test.timer();
        resent += test.resent().len();
    }
    assert!(
        test.now - from > Duration::from_millis(3),
        "{:?}",
        test.now - from
    );
}

#[test]
fn limited_back_off_finds_a_path_again_soon() {
    let found = |limit: Option<Duration>| {
        let mut test = Test::established(config());
        test.send(1);
        for _ in 0..8 {
            while !test.timer().rto_fired {
                test.resent();
            }
            test.tcp.limit_backoff(test.now, limit);
            test.resent();
        }
        test.tcp.next_deadline().expect("still trying") - test.now
    };
    assert!(found(None) > Duration::from_secs(20));
    assert_eq!(found(Some(Duration::from_secs(1))), Duration::from_secs(1));
}
