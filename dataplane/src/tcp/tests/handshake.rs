//! SYN-SENT and SYN-RECEIVED against everything that can arrive.

use super::pair::{Link, Pair};
use super::peer::{IRS, ISS, TS_OFFSET, Test, ack, config, seg};
use crate::counters::Counter;
use crate::tcp::{Control, ResetCause, State, TcpConfig};
use crate::time::Duration;
use crate::wire::tcp::Flags;
use crate::wire::tcp_options::Timestamps;

const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);
const RST_ACK: Flags = Flags::RST.with(Flags::ACK);

#[test]
fn syn_offers_what_the_config_says() {
    let mut test = Test::syn_sent(TcpConfig::default());
    let syn = test.tcp.syn_fields(test.now);
    assert_eq!(syn.ack, None);
    assert_eq!(
        (syn.mss, syn.window, syn.window_scale),
        (1460, 65_535, Some(7))
    );
    assert!(syn.sack_permitted);
    let tsval = 1000 + TS_OFFSET;
    assert_eq!(syn.timestamps, Some(Timestamps { tsval, tsecr: 0 }));
}

#[test]
fn syn_ack_accepts_only_what_was_offered() {
    let mut test = Test::syn_received(TcpConfig::default());
    let fields = test.tcp.syn_fields(test.now);
    assert_eq!(fields.ack, Some(IRS + 1));
    assert!(fields.sack_permitted && test.tcp.uses_sack());
    assert_eq!((fields.window_scale, fields.timestamps), (None, None));
}

#[test]
fn syn_sent_goes_established_and_acknowledges() {
    let mut test = Test::syn_sent(config());
    let verdict = test.recv(seg(SYN_ACK, 0, 1));
    assert!(verdict.valid && verdict.established);
    assert_eq!(test.tcp.state(), State::Established);
    assert!(test.takes_ack());
    assert_eq!(test.tcp.next_deadline(), None, "handshake timer stopped");
    assert_eq!(test.count(Counter::ActiveOpens), 1);
}

#[test]
fn syn_sent_refuses_an_ack_of_something_else() {
    for wrong in [0, 2, 1 << 30] {
        let mut test = Test::syn_sent(config());
        let verdict = test.recv(seg(SYN_ACK, 0, wrong));
        assert!(!verdict.valid);
        assert_eq!(
            test.control(),
            Some(Control::Rst {
                seq: ISS + wrong,
                ack: None,
                cause: ResetCause::BadHandshakeAck
            })
        );
        assert_eq!(test.tcp.state(), State::SynSent);
        // An RST is not answered by one.
        test.recv(seg(RST_ACK, 0, wrong));
        assert_eq!(test.control(), None);
    }
}

#[test]
fn syn_sent_is_refused_by_a_matching_rst_only() {
    let mut test = Test::syn_sent(config());
    assert!(!test.recv(seg(Flags::RST, 0, 0)).closed);
    let verdict = test.recv(seg(RST_ACK, 0, 1));
    assert_eq!(
        (verdict.reset, verdict.closed),
        (Some(ResetCause::Refused), true)
    );
    assert_eq!(test.tcp.state(), State::Closed);
}

#[test]
fn syn_sent_ignores_segments_without_syn() {
    let mut test = Test::syn_sent(config());
    assert!(!test.recv(ack(1, 1).data(10)).valid);
    assert_eq!((test.tcp.state(), test.control()), (State::SynSent, None));
}

#[test]
fn simultaneous_open_converges() {
    let mut test = Test::syn_sent(config());
    assert!(!test.recv(seg(Flags::SYN, 0, 0)).established);
    assert_eq!(test.tcp.state(), State::SynReceived);
    assert!(matches!(test.control(), Some(Control::SynAck { .. })));
    test.tcp.syn_fields(test.now);
    let verdict = test.recv(seg(SYN_ACK, 0, 1));
    assert!(verdict.valid && verdict.established);
    assert_eq!(test.tcp.rcv_nxt(), IRS + 1);
}

#[test]
fn syn_received_goes_established_with_data_and_fin() {
    let mut test = Test::syn_received(config());
    let verdict = test.recv(ack(1, 1).text("hello").fin());
    assert!(verdict.established && verdict.readable && verdict.fin);
    assert_eq!(test.tcp.state(), State::CloseWait);
    assert_eq!(test.text(), "hello");
    assert!(test.takes_ack());
    assert_eq!(test.count(Counter::PassiveOpens), 1);
}

#[test]
fn syn_received_answers_a_repeated_syn() {
    let mut test = Test::syn_received(config());
    test.recv(seg(Flags::SYN, 0, 0));
    assert!(matches!(test.control(), Some(Control::SynAck { .. })));
    test.recv(seg(Flags::SYN, 9, 0));
    assert_eq!(test.tcp.state(), State::SynReceived);
    assert_eq!(test.control(), None);
}

#[test]
fn syn_received_resets_a_wrong_ack() {
    let mut test = Test::syn_received(config());
    assert!(!test.recv(ack(1, 7)).valid);
    assert!(matches!(test.control(), Some(Control::Rst { seq, ack: None, .. }) if seq == ISS + 7));
    assert_eq!(test.tcp.state(), State::SynReceived);
}

#[test]
fn syn_received_dies_by_rst() {
    let mut test = Test::syn_received(config());
    assert!(
        !test.recv(seg(Flags::RST, 50, 0)).closed,
        "not exactly at RCV.NXT"
    );
    assert!(test.recv(seg(Flags::RST, 1, 0)).closed);
}

#[test]
fn syn_backs_off_and_gives_up() {
    let mut test = Test::syn_sent(TcpConfig {
        syn_retries: 3,
        ..config()
    });
    let mut at = vec![];
    for attempt in 1..=3 {
        assert!(test.timer().rto_fired);
        at.push((test.now - crate::time::Instant::from_millis(1000)).as_secs());
        assert_eq!(test.control(), Some(Control::Syn { seq: ISS, attempt }));
    }
    assert_eq!(at, [1, 3, 7]);
    let verdict = test.timer();
    assert!(verdict.timed_out && verdict.closed);
    assert_eq!(test.count(Counter::AttemptFails), 1);
}

#[test]
fn syn_ack_backs_off_and_gives_up() {
    let mut test = Test::syn_received(TcpConfig {
        synack_retries: 2,
        ..config()
    });
    for attempt in 1..=2 {
        test.timer();
        assert_eq!(test.control(), Some(Control::SynAck { seq: ISS, attempt }));
    }
    assert!(test.timer().timed_out);
}

#[test]
fn a_lossy_handshake_starts_with_one_segment() {
    for (lost, cwnd) in [(0, 10_000), (1, 10_000), (2, 1000)] {
        let mut test = Test::syn_sent(config());
        for _ in 0..lost {
            test.timer();
            test.control();
        }
        test.recv(seg(SYN_ACK, 0, 1).with(|o| o.mss = Some(1000)));
        assert_eq!(test.tcp.cwnd(), cwnd, "{lost} lost");
        assert_eq!(test.tcp.srtt().is_some(), lost == 0, "Karn");
    }
}

#[test]
fn silly_mss_and_window_scale_are_bounded() {
    let mut test = Test::syn_sent(TcpConfig {
        window_scale: true,
        ..config()
    });
    test.recv(seg(SYN_ACK, 0, 1).with(|o| {
        o.mss = Some(0);
        o.window_scale = Some(200);
    }));
    assert_eq!(test.tcp.mss(), 88);
    test.recv(ack(1, 1).win(2));
    assert_eq!(test.tcp.snd_wnd(), 2 << 14);
}

#[test]
fn any_loss_in_the_handshake_is_survived() {
    for (client, server) in [(1, 0), (0, 1), (2, 0), (1, 1), (3, 2)] {
        let mut pair = Pair::new(
            1,
            &TcpConfig::default(),
            &Link::new(10_000_000, 5),
            [5000, 5000],
        );
        pair.links[0].drop_any = vec![client];
        pair.links[1].drop_any = vec![server];
        pair.finish(20);
    }
}

#[test]
fn an_unreachable_destination_fails_the_attempt_if_it_quotes_our_syn() {
    let mut test = Test::syn_sent(config());
    let c = &mut test.c;
    assert!(!test.tcp.on_icmp_unreachable(ISS + 1, true, c));
    assert!(!test.tcp.on_icmp_unreachable(ISS, false, c));
    assert!(test.tcp.on_icmp_unreachable(ISS, true, c));
    assert_eq!(test.tcp.state(), State::Closed);
    assert_eq!(test.count(Counter::OutOfWindowIcmps), 1);
    let mut test = Test::established(config());
    test.send(1);
    assert!(!test.tcp.on_icmp_unreachable(ISS + 1, true, &mut test.c));
    assert_eq!(test.tcp.info().soft_errors, 1);
}

#[test]
fn closing_or_aborting_an_attempt_is_silent() {
    let mut test = Test::syn_sent(config());
    test.tcp.abort();
    assert_eq!((test.tcp.state(), test.control()), (State::Closed, None));
    let mut test = Test::syn_sent(config());
    test.tcp.close();
    assert_eq!((test.tcp.state(), test.control()), (State::Closed, None));
    assert_eq!(test.tcp.next_deadline(), None);
}

#[test]
fn close_before_established_sends_fin_afterwards() {
    let mut test = Test::syn_received(config());
    test.tcp.close();
    assert_eq!(test.control(), None);
    test.recv(ack(1, 1));
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    assert_eq!(test.tcp.state(), State::FinWait1);
    test.wait(Duration::from_millis(1).as_millis() as u64);
    test.recv(ack(1, 2));
    assert_eq!(test.tcp.state(), State::FinWait2);
}
