//! Ends of connections: every order of closing, FIN and its ACK, TIME-WAIT.

use super::pair::{Link, Pair};
use super::peer::{IRS, ISS, Test, ack, config, seg};
use crate::tcp::{Control, State, TcpConfig, TimeWaitAction};
use crate::time::{Duration, Instant};
use crate::wire::tcp::Flags;

/// What happens at one end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Event {
    /// We close; the FIN leaves.
    Close,
    /// The peer's FIN arrives.
    PeerFin,
    /// Our FIN is acknowledged.
    FinAcked,
}

fn orders() -> Vec<[Event; 3]> {
    use Event::{Close, FinAcked, PeerFin};
    // Our FIN cannot be acknowledged before it is sent.
    vec![
        [Close, FinAcked, PeerFin],
        [Close, PeerFin, FinAcked],
        [PeerFin, Close, FinAcked],
    ]
}

#[test]
fn every_order_of_events_passes_the_states_of_rfc9293() {
    let mut paths = vec![];
    for order in orders() {
        let mut test = Test::established(config());
        let mut path = vec![];
        let (mut fin, mut peer_seq) = (1, 1);
        for event in order {
            match event {
                Event::Close => {
                    test.close(1);
                    fin = 1;
                }
                Event::PeerFin => {
                    let acked = if path.contains(&State::FinWait2) {
                        fin + 1
                    } else {
                        1
                    };
                    assert!(test.recv(ack(1, acked).fin()).fin);
                    assert!(test.takes_ack(), "FIN is acknowledged at once");
                    peer_seq = 2;
                }
                Event::FinAcked => {
                    let verdict = test.recv(ack(peer_seq, fin + 1));
                    assert!(verdict.fin_acked);
                    assert_eq!(verdict.acked_bytes, 0, "FIN is no data");
                    assert_eq!(verdict.closed, test.tcp.state() == State::Closed);
                }
            }
            path.push(test.tcp.state());
        }
        paths.push(path);
    }
    assert_eq!(
        paths,
        [
            [State::FinWait1, State::FinWait2, State::TimeWait],
            [State::FinWait1, State::Closing, State::TimeWait],
            [State::CloseWait, State::LastAck, State::Closed],
        ]
    );
}

#[test]
fn a_fin_that_crosses_a_close_does_not_lose_ours() {
    let mut test = Test::established(config());
    test.tcp.close();
    test.recv(ack(1, 1).fin());
    assert_eq!(test.tcp.state(), State::Closing);
    assert_eq!(
        test.tcp.next_deadline(),
        Some(Instant::ZERO),
        "wants to be polled"
    );
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    test.recv(ack(2, 2));
    assert_eq!(test.tcp.state(), State::TimeWait);
}

#[test]
fn fin_and_its_ack_in_one_segment() {
    let mut test = Test::established(config());
    test.close(1);
    let verdict = test.recv(ack(1, 2).text("bye").fin());
    assert!(verdict.fin && verdict.fin_acked && verdict.readable);
    assert_eq!(test.tcp.state(), State::TimeWait);
    assert_eq!(test.text(), "bye");
}

#[test]
fn data_flows_after_a_half_close() {
    let mut test = Test::established(config());
    test.close(1);
    test.recv(ack(1, 2));
    assert_eq!(test.tcp.send_budget(test.now), 0, "we may not");
    test.recv(ack(1, 2).text("the peer may"));
    assert_eq!(test.text(), "the peer may");
    let mut test = Test::in_state(State::CloseWait);
    assert_eq!(test.send(2), 2, "and the other way round");
    let verdict = test.recv(ack(2, 2001));
    assert_eq!(verdict.acked_bytes, 2000);
}

#[test]
fn fin_waits_for_its_data() {
    let mut test = Test::established(config());
    let verdict = test.recv(ack(4, 1).text("def").fin());
    assert!(!verdict.fin && !verdict.readable);
    assert_eq!(test.tcp.state(), State::Established);
    let verdict = test.recv(ack(1, 1).text("abc"));
    assert!(verdict.fin && verdict.readable);
    assert_eq!(
        (test.text().as_str(), test.tcp.rcv_nxt()),
        ("abcdef", IRS + 8)
    );
}

#[test]
fn nothing_counts_beyond_fin() {
    let mut test = Test::established(config());
    test.recv(ack(4, 1).fin());
    test.recv(ack(1, 1).text("abcdef"));
    assert_eq!(test.text(), "abc");
    test.recv(ack(5, 1).text("ghi"));
    assert_eq!(test.text(), "");
    assert_eq!(test.tcp.state(), State::CloseWait);
}

#[test]
fn fin_is_sent_again_by_timer() {
    let mut test = Test::established(config());
    test.close(1);
    test.timer(); // probe
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    assert!(test.timer().rto_fired);
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    assert_eq!(test.control(), None);
}

#[test]
fn fin_waits_for_a_window_and_probes_for_it() {
    let mut test = Test::established(config());
    test.recv(ack(1, 1).win(0));
    test.tcp.close();
    assert_eq!(test.control(), None);
    test.timer();
    assert_eq!(test.control(), Some(Control::Probe { seq: ISS }));
    test.recv(ack(1, 1).win(1000));
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
}

#[test]
fn fin_probes_a_window_that_stays_closed() {
    let mut test = Test::established(config());
    test.recv(ack(1, 1).win(0));
    test.tcp.close();
    test.timer();
    assert_eq!(test.control(), Some(Control::Probe { seq: ISS }));
    test.recv(ack(1, 1).win(0));
    test.timer();
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    assert_eq!(test.control(), None);
    // Refused, it is repeated, by its timer and as soon as there is a window.
    test.recv(ack(1, 1).win(0));
    while !test.timer().rto_fired {
        assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }), "tail");
    }
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    test.recv(ack(1, 1).win(1000));
    assert_eq!(test.control(), Some(Control::Fin { seq: ISS + 1 }));
    test.recv(ack(1, 2).win(1000));
    assert_eq!(test.tcp.state(), State::FinWait2);
}

#[test]
fn a_closed_window_takes_a_bare_fin() {
    let mut test = Test::established(config());
    test.tcp.set_receive_window(0);
    for seq in (1..50_001).step_by(1000) {
        test.recv(ack(seq, 1).data(1000));
    }
    let (next, window) = test.acked();
    assert_eq!(window, 0);
    // With data it has to wait, and beyond a gap too.
    assert!(!test.recv(ack(next, 1).data(1).fin()).fin);
    assert!(!test.recv(ack(next + 1, 1).fin()).fin);
    assert!(test.recv(ack(next, 1).fin()).fin);
    assert_eq!(test.acked(), (next + 1, 0));
    assert_eq!(test.tcp.state(), State::CloseWait);
}

#[test]
fn time_wait_answers_fins_and_ends() {
    let mut test = Test::in_state(State::TimeWait);
    test.wait(10_000);
    test.recv(ack(1, 2).fin());
    assert!(test.takes_ack());
    let expires = test.tcp.time_wait().expect("in TIME-WAIT").expires;
    assert_eq!(expires, test.now + Duration::from_secs(60), "restarted");
    assert!(test.timer().closed);
    assert_eq!(test.tcp.state(), State::Closed);
}

#[test]
fn compact_time_wait_judges_segments() {
    let test = Test::in_state(State::TimeWait);
    let mut wait = test.tcp.time_wait().expect("in TIME-WAIT");
    assert_eq!((wait.snd_nxt, wait.rcv_nxt), (ISS + 2, IRS + 2));
    let now = test.now + Duration::from_secs(5);
    let mut judge = |s: super::peer::Seg| s.feed(|s, _| wait.on_segment(now, s));
    assert_eq!(judge(seg(Flags::RST, 2, 0)), TimeWaitAction::Ignore);
    assert_eq!(judge(ack(2, 2)), TimeWaitAction::Ignore);
    assert_eq!(judge(ack(1, 2).fin()), TimeWaitAction::Ack);
    assert_eq!(judge(seg(Flags::SYN, 1, 0)), TimeWaitAction::Ack, "old");
    assert_eq!(judge(seg(Flags::SYN, 3, 0)), TimeWaitAction::Recycle);
    assert_eq!(wait.expires, now + Duration::from_secs(60));
    wait.ts_recent = Some(500);
    let mut judge = |s: super::peer::Seg| s.feed(|s, _| wait.on_segment(now, s));
    assert_eq!(
        judge(seg(Flags::SYN, 1, 0).ts(501, 0)),
        TimeWaitAction::Recycle
    );
    assert_eq!(judge(seg(Flags::SYN, 1, 0).ts(499, 0)), TimeWaitAction::Ack);
}

#[test]
fn lost_fins_and_acks_of_every_kind_are_survived() {
    // The last packets of both sides, in any combination.
    let clean = {
        let mut pair = Pair::new(
            3,
            &TcpConfig::default(),
            &Link::new(10_000_000, 5),
            [100, 100],
        );
        pair.finish(10);
        pair.now
    };
    assert!(clean < Instant::from_millis(1200));
    for mask in 0..64u64 {
        let mut pair = Pair::new(
            3,
            &TcpConfig::default(),
            &Link::new(10_000_000, 5),
            [100, 100],
        );
        for bit in 0..6 {
            if mask >> bit & 1 != 0 {
                // From the second packet on: data, FIN and ACKs.
                pair.links[bit as usize % 2].drop_any.push(2 + bit / 2);
            }
        }
        pair.finish(60);
    }
}
