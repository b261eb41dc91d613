//! ECN over whole connections (RFC 3168).

use super::pair::{Link, Pair};
use super::peer::{ISS, MSS, Test, ack, config, seg};
use crate::counters::Counter;
use crate::tcp::{Control, DataMarks, EcnPolicy, Tcp, TcpConfig};
use crate::wire::tcp::Flags;

const ECT_0: u8 = 2;

fn with(ecn: EcnPolicy) -> TcpConfig {
    TcpConfig { ecn, ..config() }
}

/// ESTABLISHED by an active open that asked.
fn established() -> Test {
    let mut test = Test::syn_sent(with(EcnPolicy::Always));
    let flags = test.tcp.syn_fields(test.now).flags;
    assert_eq!(flags, Flags::SYN | Flags::ECE | Flags::CWR);
    test.wait(10);
    let answer = seg(Flags::SYN | Flags::ACK | Flags::ECE, 0, 1).with(|o| {
        o.mss = Some(1000);
        o.sack_permitted = true;
    });
    assert!(test.recv(answer).established);
    assert!(test.takes_ack());
    assert_eq!(test.count(Counter::TCPEcnEstab), 1);
    test
}

/// Flags of an ACK that leaves now.
fn ack_flags(test: &mut Test) -> Flags {
    let flags = test.tcp.header(test.now).flags;
    test.tcp.ack_sent(test.now);
    flags
}

/// Marks of the next new segment, which leaves.
fn send_one(test: &mut Test) -> DataMarks {
    let marks = test.tcp.data_marks(test.tcp.snd_nxt());
    assert_eq!(test.send(1), 1);
    marks
}

#[test]
fn a_passive_open_agrees_unless_told_not_to() {
    for (policy, agrees) in [
        (EcnPolicy::Off, false),
        (EcnPolicy::Passive, true),
        (EcnPolicy::Always, true),
    ] {
        let now = crate::time::Instant::from_millis(1);
        let mut tcp = seg(Flags::SYN | Flags::ECE | Flags::CWR, 0, 0)
            .feed(|syn, _| Tcp::accept(with(policy), now, ISS, 0, syn));
        tcp.next_control(now);
        let flags = tcp.syn_fields(now).flags;
        assert_eq!(flags.contains(Flags::ECE), agrees, "{policy:?}");
        assert!(!flags.contains(Flags::CWR), "{policy:?}");
    }
}

#[test]
fn the_syn_is_repeated_without_asking_and_the_loss_counted() {
    let mut test = Test::syn_sent(with(EcnPolicy::Always));
    test.tcp.syn_fields(test.now);
    for attempt in 1..=2 {
        test.timer();
        let control = test.control();
        assert_eq!(control, Some(Control::Syn { seq: ISS, attempt }));
        assert_eq!(test.tcp.syn_fields(test.now).flags, Flags::SYN);
    }
    test.recv(seg(Flags::SYN | Flags::ACK, 0, 1).with(|o| o.mss = Some(1000)));
    assert_eq!(test.count(Counter::TCPEcnFallback), 1);
    assert_eq!(test.count(Counter::TCPEcnEstab), 0);
    assert_eq!(send_one(&mut test), DataMarks::default());
}

#[test]
fn only_new_data_is_ect() {
    let mut test = established();
    let marks = send_one(&mut test);
    assert_eq!((marks.ecn, marks.flags), (ECT_0, Flags::empty()));
    let sent = ISS + 1;
    assert_eq!(test.tcp.data_marks(sent), DataMarks::default(), "resent");
    // And the segment after that, had it been sent twice already, is still new.
    assert_eq!(test.tcp.data_marks(sent + MSS).ecn, ECT_0);
}

#[test]
fn a_mark_is_echoed_on_every_ack_until_cwr() {
    let mut test = established();
    test.recv(ack(1, 1).data(1000).ce());
    assert!(test.takes_ack(), "at once");
    for at in [1001, 2001] {
        test.recv(ack(at, 1).data(1000));
        assert_eq!(ack_flags(&mut test), Flags::ACK | Flags::ECE);
    }
    test.recv(ack(3001, 1).data(1000).flags(Flags::CWR));
    assert_eq!(ack_flags(&mut test), Flags::ACK);
}

#[test]
fn a_mark_in_the_middle_of_a_batch_is_not_lost() {
    let mut test = established();
    for i in 0..6 {
        let segment = ack(1 + i * 1000, 1).data(1000);
        test.recv(if i == 2 { segment.ce() } else { segment });
    }
    assert_eq!(ack_flags(&mut test), Flags::ACK | Flags::ECE);
}

#[test]
fn marks_on_what_is_not_wanted_do_not_count() {
    let mut test = established();
    test.recv(ack(1, 1).data(1000));
    assert!(test.takes_ack());
    test.recv(ack(1, 1).data(1000).ce()); // old data
    test.recv(ack(900_001, 1).data(1000).ce()); // outside the window
    test.recv(ack(1001, 1).ce()); // a pure ACK is not ECT (RFC 3168 §6.1.4)
    assert_eq!(ack_flags(&mut test), Flags::ACK);
    assert_eq!(test.tcp.info().ce_segments, 0);
}

#[test]
fn marks_without_an_agreement_are_ignored() {
    let mut test = Test::established(with(EcnPolicy::Passive));
    test.recv(ack(1, 1).data(1000).ce());
    assert_eq!(ack_flags(&mut test), Flags::ACK);
    assert_eq!(test.send(10), 10);
    let cwnd = test.tcp.cwnd();
    test.recv(ack(1001, 2001).flags(Flags::ECE));
    assert!(test.tcp.cwnd() >= cwnd);
    assert_eq!(test.count(Counter::TCPEcnReduced), 0);
}

#[test]
fn an_echo_lowers_the_window_once_per_round_and_resends_nothing() {
    let mut test = established();
    assert_eq!(test.send(10), 10);
    let before = test.tcp.cwnd();
    test.wait(10);
    test.recv(ack(1, 1001).flags(Flags::ECE));
    let threshold = test.tcp.ssthresh();
    assert!(threshold < before, "{threshold} {before}");
    assert_eq!(test.tcp.info().phase, "reduced");
    for segment in 2..=8 {
        test.recv(ack(1, segment * 1000 + 1).flags(Flags::ECE));
        while test.tcp.send_budget(test.now) >= MSS {
            test.send(1);
        }
    }
    assert_eq!(test.tcp.ssthresh(), threshold, "one event");
    assert_eq!(test.count(Counter::TCPEcnReduced), 1);
    assert!(test.resent().is_empty());
    assert!(test.tcp.bytes_in_flight() <= threshold + MSS);
    // Everything before the reduction is acknowledged: the window stands where it was led.
    test.recv(ack(1, 10_001).flags(Flags::ECE));
    assert_eq!(test.tcp.info().phase, "open");
    assert_eq!(test.tcp.cwnd(), threshold);
    // The CWR left with byte 10_001. Its acknowledgment with ECE is a new mark.
    let reductions = test.count(Counter::TCPEcnReduced);
    test.recv(ack(1, 11_001).flags(Flags::ECE));
    assert_eq!(test.count(Counter::TCPEcnReduced), reductions + 1);
    assert!(test.tcp.ssthresh() < threshold);
    assert!(test.count(Counter::TCPDeliveredCE) >= 10);
}

#[test]
fn the_reduction_is_announced_on_the_next_new_segment() {
    let mut test = established();
    assert_eq!(test.send(4), 4);
    test.recv(ack(1, 1001).flags(Flags::ECE));
    test.recv(ack(1, 4001).flags(Flags::ECE));
    assert_eq!(send_one(&mut test).flags, Flags::CWR);
    assert_eq!(send_one(&mut test).flags, Flags::empty());
    // Until the CWR is acknowledged, the echo is the old one.
    test.recv(ack(1, 4001).flags(Flags::ECE));
    assert_eq!(test.count(Counter::TCPEcnReduced), 1);
}

#[test]
fn a_loss_is_announced_too_and_not_counted_twice() {
    let mut test = established();
    assert_eq!(test.send(10), 10);
    test.wait(20);
    // Segment 1 is lost; the ACKs for the rest echo a mark.
    for sacked in 2..=4u32 {
        let block = [(1001, sacked * 1000 + 1)];
        test.recv(ack(1, 1).sack(&block).flags(Flags::ECE));
    }
    // RACK may wait for reordering.
    while test.tcp.info().phase != "recovery" {
        test.timer();
    }
    assert_eq!(test.count(Counter::TCPEcnReduced), 1);
    let threshold = test.tcp.ssthresh();
    assert_eq!(test.resent(), [1]);
    test.recv(ack(1, 1).sack(&[(1001, 9001)]).flags(Flags::ECE));
    assert_eq!(test.tcp.ssthresh(), threshold, "one round, one reduction");
    test.recv(ack(1, 10_001).flags(Flags::ECE));
    assert_eq!(test.tcp.info().phase, "open");
    assert_eq!(send_one(&mut test).flags, Flags::CWR);
}

#[test]
fn a_mark_on_the_last_flight_is_answered_although_nothing_is_outstanding() {
    let mut test = established();
    assert_eq!(test.send(10), 10);
    test.recv(ack(1, 10_001).flags(Flags::ECE));
    let window = test.tcp.cwnd();
    assert_eq!(window, test.tcp.ssthresh());
    assert!((5 * MSS..10 * MSS).contains(&window), "{window}");
    assert_eq!(test.tcp.info().phase, "open");
}

/// 10 Mb/s, 40 ms round trip, a queue of twice what that holds.
fn bottleneck(ecn: EcnPolicy, mark_bytes: u64) -> Pair {
    let config = TcpConfig {
        ecn,
        ..TcpConfig::default()
    };
    let mut link = Link::new(10_000_000, 20);
    link.queue_bytes = 100_000;
    link.mark_bytes = mark_bytes;
    Pair::new(1, &config, &link, [10_000_000, 0])
}

#[test]
fn a_marking_queue_is_used_fully_without_a_loss() {
    let mut dropping = bottleneck(EcnPolicy::Off, u64::MAX);
    let mut marking = bottleneck(EcnPolicy::Always, 50_000);
    let (dropped, marked) = (dropping.upload_seconds(), marking.upload_seconds());
    assert!(
        dropping.hosts[0].tcp().info().retransmits > 0,
        "the queue overflows without marks"
    );
    let info = marking.hosts[0].tcp().info();
    assert!(info.ecn && info.ecn_reductions > 1, "{info:?}");
    assert_eq!(
        (info.retransmits, info.timeouts, info.recoveries),
        (0, 0, 0)
    );
    assert!(marking.links[0].marked >= info.ecn_reductions);
    assert!(marked < dropped * 1.05, "{marked} s, dropping {dropped} s");
}
