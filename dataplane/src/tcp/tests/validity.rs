//! Which segments count: RFC 9293 acceptance, RFC 5961, RFC 7323, RFC 5927.

use super::peer::{IRS, ISS, MSS, TS_OFFSET, Test, ack, config, seg};
use crate::counters::Counter;
use crate::tcp::{Control, ResetCause, State, TcpConfig};
use crate::wire::tcp::Flags;

const SYNCHRONIZED: [State; 7] = [
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

#[test]
fn rst_resets_only_at_rcv_nxt() {
    for state in SYNCHRONIZED {
        let mut test = Test::in_state(state);
        let next = test.tcp.rcv_nxt() - IRS;
        // Outside the window: silence.
        for seq in [next.wrapping_sub(1), next + 60_000] {
            let verdict = test.recv(seg(Flags::RST, seq, 0));
            assert!(!verdict.valid && verdict.reset.is_none(), "{state} {seq}");
            assert!(!test.takes_ack(), "{state} {seq}");
        }
        // In the window: a challenge.
        let verdict = test.recv(seg(Flags::RST, next + 1, 0));
        assert!(!verdict.closed, "{state}");
        assert!(test.takes_ack(), "{state}");
        assert_eq!(test.count(Counter::TCPChallengeACK), 1);
        // Exact.
        let verdict = test.recv(seg(Flags::RST, next, 0));
        if state == State::TimeWait {
            assert_eq!(test.tcp.state(), State::TimeWait, "RFC 1337");
        } else {
            assert_eq!(verdict.reset, Some(ResetCause::PeerReset), "{state}");
            assert_eq!(test.tcp.state(), State::Closed);
            assert_eq!(test.tcp.next_deadline(), None);
        }
    }
}

#[test]
fn syn_is_challenged_in_every_synchronized_state() {
    for state in SYNCHRONIZED {
        let mut test = Test::in_state(state);
        let next = test.tcp.rcv_nxt() - IRS;
        assert!(!test.recv(seg(Flags::SYN, next, 0)).valid, "{state}");
        assert_eq!(test.tcp.state(), state);
        assert!(test.takes_ack(), "{state}");
        assert_eq!(test.count(Counter::TCPSYNChallenge), 1);
    }
}

#[test]
fn acks_outside_the_send_window_are_challenged() {
    let mut test = Test::established(config());
    assert!(!test.recv(ack(1, 2)).valid, "never sent");
    assert!(test.takes_ack());
    assert_eq!(test.send(3), 3);
    test.recv(ack(1, 3001));
    // An old ACK within the largest window is just old.
    assert!(test.recv(ack(1, 2001)).valid);
    assert!(!test.takes_ack());
    assert!(!test.recv(ack(1, 3001u32.wrapping_sub(60_001))).valid);
    assert!(test.takes_ack());
    assert_eq!(test.count(Counter::TCPInvalidAck), 2);
}

#[test]
fn challenges_are_limited() {
    let mut test = Test::established(config());
    for _ in 0..50 {
        test.recv(seg(Flags::RST, 7, 0));
    }
    assert_eq!(test.count(Counter::TCPChallengeACK), 10);
    assert_eq!(test.count(Counter::TCPACKSkippedChallenge), 40);
    test.wait(1000);
    test.recv(seg(Flags::RST, 7, 0));
    assert_eq!(test.count(Counter::TCPChallengeACK), 11);
}

#[test]
fn no_ack_flag_no_effect() {
    let mut test = Test::established(config());
    let verdict = test.recv(seg(Flags::empty(), 1, 0).text("x"));
    assert!(!verdict.valid && !verdict.readable);
    assert_eq!(test.text(), "");
}

#[test]
fn data_is_trimmed_to_the_window_on_both_sides() {
    let mut test = Test::established(TcpConfig {
        recv_buffer_max: 10,
        ..config()
    });
    test.recv(ack(1, 1).text("abc"));
    let verdict = test.recv(ack(0u32.wrapping_sub(1), 1).text("??abcdefghijklmnop"));
    assert!(verdict.valid && verdict.duplicate_data);
    assert_eq!(test.text(), "abcdefghij", "advertised edge");
    test.tcp.set_receive_window(0);
    assert!(!test.recv(ack(11, 1).text("k")).valid, "closed window");
    assert!(test.takes_ack());
    assert_eq!(test.acked(), (11, 0));
}

/// Two ends that a proxy has told of more room than there was repeat what the other has, and
/// stand behind what it dropped.
#[test]
fn an_acknowledgment_beside_the_window_counts_if_it_is_news() {
    let full = || {
        let mut test = Test::established(TcpConfig {
            recv_buffer_max: 1000,
            ..config()
        });
        test.recv(ack(1, 1).data(1000));
        test.tcp.set_receive_window(0);
        assert_eq!(test.acked(), (1001, 0));
        assert_eq!(test.send(3), 3);
        test
    };
    for at in [1, 501, 1001] {
        let mut test = full();
        let verdict = test.recv(ack(at, 2001).data(600));
        assert_eq!((verdict.valid, verdict.acked_bytes), (true, 2000), "{at}");
        assert_eq!(test.tcp.rcv_nxt() - IRS, 1001, "nothing is taken");
        assert!(test.takes_ack());
    }
    for at in [1, 3000] {
        let mut test = full();
        assert_eq!(test.recv(ack(at, 2001)).acked_bytes, 2000, "{at}");
    }
    // A probe of our closed window is answered from beyond theirs.
    let mut test = full();
    test.recv(ack(1001, 3001).win(0));
    assert!(test.recv(ack(3000, 3001).win(5000)).window_opened);
    assert!(
        !test.recv(ack(3000, 3001).win(6000)).valid,
        "once is enough"
    );
    // No news, never sent, too far, or beyond the window with data.
    let others = [
        ack(1, 1).data(600),
        ack(1, 9001).data(600),
        ack(20_000, 2001),
        ack(1001u32.wrapping_sub(20_000), 2001).data(600),
        ack(1601, 2001).data(600),
    ];
    for other in others {
        assert!(!full().recv(other).valid);
    }
}

#[test]
fn the_window_edge_is_exclusive() {
    let mut test = Test::established(config());
    let right = test.tcp.advertised_edge() - IRS;
    assert!(!test.recv(ack(right, 1).data(1)).valid);
    assert!(test.recv(ack(right - 1, 1).data(1)).valid);
    assert_eq!(test.count(Counter::TCPOutOfWindow), 1);
}

#[test]
fn old_data_is_answered_with_dsack() {
    let mut test = Test::established(config());
    test.recv(ack(1, 1).text("abcdef"));
    assert!(test.takes_ack());
    let verdict = test.recv(ack(2, 1).text("bcd"));
    assert!(!verdict.valid && verdict.duplicate_data);
    assert_eq!(test.tcp.sack_blocks(3).as_slice(), [(IRS + 2, IRS + 5)]);
    assert!(test.takes_ack());
    assert!(test.tcp.sack_blocks(3).is_empty(), "once");
}

fn with_timestamps() -> Test {
    Test::established(TcpConfig {
        timestamps: true,
        ..config()
    })
}

#[test]
fn paws_refuses_old_timestamps() {
    let mut test = with_timestamps();
    assert!(test.recv(ack(1, 1).text("a").ts(6000, 0)).valid);
    assert!(test.takes_ack());
    assert!(!test.recv(ack(2, 1).text("b").ts(5999, 0)).valid);
    assert_eq!(test.count(Counter::PAWSEstab), 1);
    assert!(test.takes_ack(), "answered by an ACK");
    assert!(
        test.recv(ack(2, 1).text("b").ts(6000, 0)).valid,
        "equal is fine"
    );
    // RSTs are exempt, and boxes that strip the option are survived.
    assert!(test.recv(ack(3, 1).text("c")).valid);
    assert!(test.recv(seg(Flags::RST, 4, 0).ts(1, 0)).reset.is_some());
}

#[test]
fn paws_forgets_after_24_days_and_survives_the_wrap() {
    let mut test = with_timestamps();
    test.recv(
        ack(1, 1)
            .text("a")
            .ts(5000u32.wrapping_sub(6000).wrapping_add(6000), 0),
    );
    test.takes_ack();
    test.recv(ack(2, 1).text("b").ts(5000 + (1 << 31) - 1, 0));
    test.takes_ack();
    test.recv(ack(3, 1).text("c").ts(4000, 0));
    test.takes_ack();
    assert_eq!(test.text(), "abc", "half the circle at a time");
    assert!(!test.recv(ack(4, 1).text("d").ts(3000, 0)).valid);
    test.wait(25 * 24 * 3600 * 1000);
    assert!(test.recv(ack(4, 1).text("d").ts(3000, 0)).valid);
}

#[test]
fn the_echo_is_of_the_segment_that_spans_the_last_ack() {
    let mut test = with_timestamps();
    let echo = |test: &mut Test| {
        let header = test.tcp.header(test.now).timestamps.expect("negotiated");
        assert_eq!(header.tsval, 1010 + TS_OFFSET);
        header.tsecr
    };
    test.recv(ack(1, 1).text("a").ts(6000, 0));
    test.recv(ack(2, 1).text("b").ts(6010, 0));
    assert_eq!(echo(&mut test), 6000, "of two delayed, the first");
    assert!(test.takes_ack());
    test.recv(ack(10, 1).text("z").ts(6020, 0));
    assert_eq!(echo(&mut test), 6000, "out of order is not echoed");
}

#[test]
fn urgent_data_stays_in_the_stream() {
    // Nowhere, inside, at the end, beyond, and as far as it goes.
    for pointer in [0, 1, 2, 3, 4, 1000, 0xffff] {
        let mut test = Test::established(config());
        // Out of order, a copy without URG, one with more behind it, then the gap.
        test.recv(ack(4, 1).text("def").urgent(pointer));
        test.recv(ack(4, 1).text("def"));
        test.recv(ack(4, 1).text("defg").urgent(pointer / 2));
        test.recv(ack(1, 1).text("abc").urgent(pointer));
        // URG on what carries nothing, and on a repetition of what was delivered.
        test.recv(ack(8, 1).urgent(pointer));
        test.recv(ack(1, 1).text("abc").urgent(pointer));
        test.recv(ack(8, 1).text("h").urgent(pointer).fin());
        assert_eq!(test.text(), "abcdefgh", "pointer {pointer}");
        assert_eq!(test.tcp.state(), State::CloseWait);
        // The repetition was no longer acceptable.
        assert_eq!(test.count(Counter::TCPUrgent), 5);
    }
}

#[test]
fn icmp_must_quote_what_is_outstanding() {
    let mut test = Test::established(config());
    test.send(3);
    test.recv(ack(1, 1001));
    for wrong in [0, 1000, 3001] {
        assert!(
            !test
                .tcp
                .on_path_mtu(test.now, ISS + wrong, 600, &mut test.c)
        );
    }
    assert_eq!(test.count(Counter::OutOfWindowIcmps), 3);
    assert!(
        !test
            .tcp
            .on_path_mtu(test.now, ISS + 1001, 2000, &mut test.c),
        "larger"
    );
    let cwnd = test.tcp.cwnd();
    assert!(test.tcp.on_path_mtu(test.now, ISS + 1001, 640, &mut test.c));
    assert_eq!(test.tcp.mss(), 600);
    assert_eq!(test.tcp.cwnd(), cwnd, "no congestion response");
    let mut ranges = vec![];
    while let Some(range) = test.tcp.next_retransmit(test.now) {
        ranges.push((range.seq - ISS, range.len, range.dsn));
        test.tcp.record_retransmit(test.now, range.seq, range.len);
    }
    assert_eq!(
        ranges,
        [
            (1001, 600, 1001),
            (1601, 400, 1601),
            (2001, 600, 2001),
            (2601, 400, 2601)
        ]
    );
    assert_eq!(test.count(Counter::PmtuReduced), 1);
}

#[test]
fn abort_sends_one_rst() {
    for state in SYNCHRONIZED {
        let mut test = Test::in_state(state);
        let (seq, next) = (test.tcp.snd_nxt(), test.tcp.rcv_nxt());
        test.tcp.abort();
        assert_eq!(test.tcp.state(), State::Closed);
        let expected = (state != State::TimeWait).then_some(Control::Rst {
            seq,
            ack: Some(next),
            cause: ResetCause::Aborted,
        });
        assert_eq!(test.control(), expected, "{state}");
        assert_eq!(test.control(), None);
        let verdict = test.recv(ack(1, 1).data(5));
        assert_eq!(verdict, crate::tcp::Verdict::default(), "deaf");
    }
}

#[test]
fn sack_blocks_of_nonsense_do_no_harm() {
    let mut test = Test::established(config());
    assert_eq!(test.send(4), 4);
    for blocks in [
        &[(2001, 1001)][..],
        &[(4001, 90_001)],
        &[(0x8000_0000, 0x9000_0000)],
        &[(1, 1)],
        &[(1500, 1900)],
    ] {
        test.recv(ack(1, 1).sack(blocks));
        assert_eq!(test.tcp.bytes_in_flight(), 4 * MSS, "{blocks:?}");
    }
    assert_eq!(test.tcp.info().sacked_segments, 0);
}
