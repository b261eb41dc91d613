//! Each element on hand-made packets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::subtype;
use braid_dataplane::wire::packet::{self, Packet};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use super::catalogue::{self, Placement};
use super::coalesce::{Coalesce, Header};
use super::handshake::{Alter, Field, Mirror, Refuse, Swallow, Victim};
use super::nat::{Nat, Rebind, Renumber};
use super::network::{Blackhole, IpField, IpHeader, MtuHole, Queue, Until};
use super::normalize::{AckGuard, Consistent, NoHoles, TrimOverlap, Unseen};
use super::options::{Mss, MssChange, Tidy};
use super::proxy::Pep;
use super::reset::{Blind, Inject, Reset};
use super::rewrite::{Edit, Flip, Gateway};
use super::rule::{Rule, Tcp, Way};
use super::segment::{MSS, SACK, Segment, TIMESTAMPS};
use super::split::{Keep, Resegment, Split};
use super::strip::{Leave, Strip, What, When};
use super::tap::Tap;
use super::window::{self, ShrinkGuard, Window};
use super::{Element, Out, Toward};

const DSS: &[u8] = &[30, 8, 0x20, 1, 0, 0, 0, 9];
const MPC: &[u8] = &[30, 4, 0x01, 0x81];
const TS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 6];

/// An Ethernet, IP and TCP header whose lengths and checksums `Segment::emit` makes right.
fn blank(v6: bool) -> Segment {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let (client, server) = if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        ("2001:db8::1", "2001:db8::2")
    } else {
        frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0]);
        ("10.0.0.1", "10.0.0.2")
    };
    for end in [client, server] {
        match end.parse().unwrap() {
            std::net::IpAddr::V4(a) => frame.extend(a.octets()),
            std::net::IpAddr::V6(a) => frame.extend(a.octets()),
        }
    }
    if !v6 {
        let sum = braid_dataplane::checksum::sum(&frame[14..34]).finish();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let tcp = frame.len();
    frame.extend([
        0x75, 0x30, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0,
    ]);
    let Ok(Packet::Tcp(p)) = packet::parse(&frame) else {
        panic!("a sound header");
    };
    let sum = braid_dataplane::checksum::sum(&frame[tcp..]).combine(p.pseudo_header_sum, false);
    frame[tcp + 16..tcp + 18].copy_from_slice(&sum.finish().to_be_bytes());
    Segment::parse(&frame).expect("a sound frame")
}

/// From the client.
fn seg(seq: u32, ack: u32, flags: Flags, options: &[u8], payload: &[u8]) -> Segment {
    Segment {
        seq: SeqNumber(seq),
        ack: SeqNumber(ack),
        flags,
        window: 1000,
        options: options.to_vec(),
        payload: payload.to_vec(),
        ..blank(false)
    }
}

/// The same from the server.
fn back(seq: u32, ack: u32, flags: Flags, options: &[u8], payload: &[u8]) -> Segment {
    let mut s = seg(seq, ack, flags, options, payload);
    std::mem::swap(&mut s.src, &mut s.dst);
    s
}

fn data(seq: u32, payload: &[u8]) -> Segment {
    seg(seq, 500, Flags::ACK, DSS, payload)
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(1_000 + ms)
}

/// A box under test. Whatever leaves it must be sound.
struct Bench(Box<dyn Element>);

impl Bench {
    fn new(rule: impl Rule + 'static) -> Self {
        Self(Tcp::boxed(rule))
    }

    fn pass(&mut self, ms: u64, toward: Toward, s: &Segment) -> Vec<(Toward, Segment)> {
        let mut out = Vec::new();
        self.0.on_frame(at(ms), toward, s.emit(), &mut out);
        sound(&out)
    }

    fn fwd(&mut self, s: &Segment) -> Vec<Segment> {
        only(Toward::Server, self.pass(0, Toward::Server, s))
    }

    fn rev(&mut self, s: &Segment) -> Vec<Segment> {
        only(Toward::Client, self.pass(0, Toward::Client, s))
    }

    fn timer(&mut self, ms: u64) -> Vec<(Toward, Segment)> {
        let mut out = Vec::new();
        self.0.on_timer(at(ms), &mut out);
        sound(&out)
    }

    fn count(&self, name: &str) -> u64 {
        let counts = self.0.counts();
        counts.iter().find(|(n, _)| *n == name).map_or(0, |c| c.1)
    }
}

fn sound(out: &[Out]) -> Vec<(Toward, Segment)> {
    out.iter()
        .map(|o| {
            (
                o.toward,
                Segment::parse(&o.frame).expect("lengths and checksums are right"),
            )
        })
        .collect()
}

fn only(toward: Toward, out: Vec<(Toward, Segment)>) -> Vec<Segment> {
    out.into_iter()
        .map(|(t, s)| {
            assert_eq!(t, toward);
            s
        })
        .collect()
}

#[test]
fn a_segment_taken_apart_and_put_together_is_the_same() {
    for v6 in [false, true] {
        let s = Segment {
            options: [TS, DSS].concat(),
            payload: b"odd".to_vec(),
            seq: SeqNumber(7),
            ..blank(v6)
        };
        let frame = s.emit();
        let parsed = Segment::parse(&frame).expect("a sound frame");
        assert_eq!(parsed.emit(), frame);
        assert_eq!((parsed.seq, &parsed.options), (s.seq, &s.options));
        let Ok(Packet::Tcp(p)) = packet::parse(&frame) else {
            panic!("parses");
        };
        assert_eq!(&frame[p.payload.clone()], b"odd");
        let mut broken = frame;
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(
            Segment::parse(&broken),
            None,
            "a wrong checksum is not repaired"
        );
    }
}

#[test]
fn what_is_no_tcp_segment_passes_every_box_untouched() {
    let mut broken = data(1, b"x").emit();
    *broken.last_mut().unwrap() ^= 0x40;
    let odd: [Vec<u8>; 4] = [vec![], vec![1; 13], vec![0xff; 60], broken];
    for entry in catalogue::catalogue() {
        for variant in entry.variants {
            for element in &mut (variant.build)(1) {
                for frame in &odd {
                    let mut out = Vec::new();
                    element.on_frame(at(0), Toward::Server, frame.clone(), &mut out);
                    let deadline = element.next_deadline();
                    element.on_timer(deadline.unwrap_or(at(0)), &mut out);
                    assert_eq!(out.len(), 1, "{} {}", entry.id, variant.name);
                    assert_eq!(&out[0].frame, frame);
                }
            }
        }
    }
}

#[test]
fn the_catalogue_is_whole_and_names_nothing_twice() {
    let mut ids: Vec<&str> = catalogue::catalogue().iter().map(|e| e.id).collect();
    let expected: usize = [5, 19, 8, 6, 3, 7, 7, 4, 5, 9, 3, 3].iter().sum();
    assert_eq!(ids.len(), expected, "A to L, K4 is no box");
    assert!(catalogue::entry("f4").is_some_and(|e| e.allows(Placement::One).is_some()));
    for entry in catalogue::catalogue() {
        assert!(
            !entry.allowed.is_empty() && !entry.variants.is_empty(),
            "{}",
            entry.id
        );
        let mut names: Vec<_> = entry.variants.iter().map(|v| v.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), entry.variants.len(), "{}", entry.id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), expected);
}

#[test]
fn nat_translates_back_and_rebinding_forgets() {
    let outside = (
        Ipv4Addr::new(203, 0, 113, 9),
        "2001:db8::9".parse().unwrap(),
    );
    let mut nat = Bench::new(Nat::new(Some(outside), Rebind::AfterPackets(2)));
    let s = data(1, b"x");
    let first = nat.fwd(&s).remove(0);
    assert_eq!(first.src.ip(), Ipv4Addr::new(203, 0, 113, 9));
    let mut reply = back(500, 2, Flags::ACK, &[], &[]);
    reply.dst = first.src;
    assert_eq!(nat.rev(&reply)[0].dst, s.src);
    nat.fwd(&s);
    let rebound = nat.fwd(&s).remove(0);
    assert_ne!(rebound.src, first.src);
    assert!(nat.rev(&reply).is_empty(), "the old mapping is gone");
    reply.dst = rebound.src;
    assert_eq!(nat.rev(&reply)[0].dst, s.src);
}

#[test]
fn renumbering_is_undone_the_other_way() {
    let mut b = Bench::new(Renumber::random(3, true));
    let there = b.fwd(&data(100, b"abc")).remove(0);
    assert_ne!(there.seq, SeqNumber(100));
    let sack = [1, 1, 5, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut reply = back(9, 0, Flags::ACK, &sack, &[]);
    reply.ack = there.end();
    let edge = there.end() + 10;
    reply.options[4..8].copy_from_slice(&edge.0.to_be_bytes());
    let home = b.rev(&reply).remove(0);
    assert_eq!(home.ack, SeqNumber(103));
    let option = home.option(SACK).unwrap();
    assert_eq!(option[2..6], 113_u32.to_be_bytes());
    let mut plain = Bench::new(Renumber::change_seq(5));
    assert_eq!(plain.fwd(&data(100, b"abc"))[0].seq, SeqNumber(105));
    assert_eq!(
        plain.rev(&back(9, 108, Flags::ACK, &[], &[]))[0].ack,
        SeqNumber(103)
    );
}

#[test]
fn stripping_leaves_nops_zeros_or_nothing() {
    let options = [TS, DSS].concat();
    let s = seg(1, 1, Flags::ACK, &options, b"x");
    let strip = |leave| Strip::new(What::Mptcp, When::PastSyn, Way::ToServer).leaving(leave);
    let nops = Bench::new(strip(Leave::Nops)).fwd(&s).remove(0);
    assert!(!nops.has_mptcp() && nops.option(TIMESTAMPS).is_some());
    assert_eq!(nops.options.len(), options.len());
    let eol = Bench::new(strip(Leave::EndOfList)).fwd(&s).remove(0);
    assert_eq!(eol.options[12..], [0; 8]);
    let cut = Bench::new(strip(Leave::Nothing)).fwd(&s).remove(0);
    assert_eq!(cut.options, TS);
    let mut b = Bench::new(strip(Leave::Nops));
    assert!(
        b.rev(&back(1, 1, Flags::ACK, DSS, b"x"))[0].has_mptcp(),
        "one way only"
    );
    assert!(
        b.fwd(&seg(1, 0, Flags::SYN, MPC, &[]))[0].has_mptcp(),
        "not the SYN"
    );
}

#[test]
fn stripping_chooses_its_segments() {
    let mut third = Bench::new(Strip::new(What::Mptcp, When::Third, Way::ToServer));
    third.fwd(&seg(0, 0, Flags::SYN, MPC, &[]));
    let ack = seg(1, 1, Flags::ACK, DSS, &[]);
    assert!(!third.fwd(&ack)[0].has_mptcp());
    assert!(third.fwd(&ack)[0].has_mptcp(), "the first only");
    let mut after = Bench::new(Strip::new(What::Mptcp, When::After(2), Way::Both));
    let kept: Vec<bool> = (0..4).map(|_| after.fwd(&ack)[0].has_mptcp()).collect();
    assert_eq!(kept, [true, true, false, false]);
    let mut second = Bench::new(Strip::new(What::Mptcp, When::EverySecondData, Way::Both));
    let kept: Vec<bool> = (0..4)
        .map(|n| second.fwd(&data(n, b"x"))[0].has_mptcp())
        .collect();
    assert_eq!(kept, [true, false, true, false]);
    let mut pure = Bench::new(Strip::new(What::Mptcp, When::PureAck, Way::Both));
    assert!(pure.fwd(&data(1, b"x"))[0].has_mptcp() && !pure.fwd(&ack)[0].has_mptcp());
    let join = What::Subtype(subtype::MP_JOIN);
    let mut joins = Bench::new(Strip::new(join, When::Always, Way::Both));
    assert!(joins.fwd(&seg(0, 0, Flags::SYN, MPC, &[]))[0].has_mptcp());
}

#[test]
fn handshakes_are_dropped_refused_mirrored_and_altered() {
    let syn = seg(9, 0, Flags::SYN, MPC, &[]);
    let bare = seg(9, 0, Flags::SYN, &[], &[]);
    let mut drops = Bench::new(Swallow::new(Victim::SynWith(What::Mptcp), Way::ToServer));
    assert!(drops.fwd(&syn).is_empty() && drops.fwd(&bare).len() == 1);
    let mut refuses = Bench::new(Refuse::new(What::Mptcp));
    let rst = only(Toward::Client, refuses.pass(0, Toward::Server, &syn)).remove(0);
    assert_eq!(
        (rst.flags, rst.ack),
        (Flags::RST | Flags::ACK, SeqNumber(10))
    );
    assert_eq!((rst.src, rst.dst), (syn.dst, syn.src));
    let mut mirror = Bench::new(Mirror::default());
    assert!(!mirror.fwd(&syn)[0].has_mptcp());
    let syn_ack = back(5, 10, Flags::SYN | Flags::ACK, &[2, 4, 5, 180], &[]);
    assert_eq!(mirror.rev(&syn_ack)[0].option(30), Some(MPC));
    let mut version = Bench::new(Alter::new(Field::Version));
    assert_eq!(version.fwd(&syn)[0].option(30).unwrap()[2], 0);
    let key = [30, 12, 0x01, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut alters = Bench::new(Alter::new(Field::ServerKey));
    let altered = alters
        .rev(&back(5, 10, Flags::SYN | Flags::ACK, &key, &[]))
        .remove(0);
    assert_eq!(altered.option(30).unwrap()[4], 5);
    assert_eq!(alters.count("altered"), 1);
}

#[test]
fn a_split_segment_is_two_that_join_again() {
    let s = seg(
        100,
        1,
        Flags::ACK | Flags::FIN | Flags::PSH,
        DSS,
        b"abcdefg",
    );
    for (keep, first_has, second_has) in [
        (Keep::Both, true, true),
        (Keep::First, true, false),
        (Keep::Second, false, true),
    ] {
        let parts = Bench::new(Split::new(3, keep, Way::Both)).fwd(&s);
        assert_eq!(
            (parts[0].seq, parts[1].seq),
            (SeqNumber(100), SeqNumber(103))
        );
        assert_eq!(
            (parts[0].has_mptcp(), parts[1].has_mptcp()),
            (first_has, second_has)
        );
        assert_eq!(
            (&parts[0].payload[..], &parts[1].payload[..]),
            (&b"abc"[..], &b"defg"[..])
        );
        assert!(!parts[0].flags.contains(Flags::FIN) && parts[1].flags.contains(Flags::FIN));
    }
}

#[test]
fn segmenting_again_keeps_every_byte_under_every_header() {
    let s = seg(
        100,
        1,
        Flags::ACK | Flags::FIN | Flags::PSH,
        DSS,
        b"abcdefghij",
    );
    let mut bench = Bench::new(Resegment::new(
        s.ip_len() - s.payload.len() + 4,
        Way::ToServer,
    ));
    let parts = bench.fwd(&s);
    let payload: Vec<&[u8]> = parts.iter().map(|p| &p.payload[..]).collect();
    assert_eq!(payload, [&b"abcd"[..], b"efgh", b"ij"]);
    let seqs: Vec<u32> = parts.iter().map(|p| p.seq.0).collect();
    assert_eq!(seqs, [100, 104, 108]);
    assert!(parts.iter().all(Segment::has_mptcp));
    let fins: Vec<bool> = (parts.iter().map(|p| p.flags.contains(Flags::FIN))).collect();
    assert_eq!(fins, [false, false, true]);
    let back = bench.rev(&s);
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].seq, &back[0].payload), (s.seq, &s.payload));
}

#[test]
fn coalescing_keeps_one_header_and_every_byte() {
    let hold = Duration::from_millis(5);
    let other = &[30, 8, 0x20, 1, 0, 0, 0, 10];
    for (header, mark) in [(Header::First, 9), (Header::Last, 10)] {
        let mut b = Bench::new(Coalesce::pairs(hold, 1500, header, Way::Both));
        assert!(b.fwd(&data(100, b"abc")).is_empty());
        let merged = b.fwd(&seg(103, 500, Flags::ACK, other, b"de")).remove(0);
        assert_eq!(
            (merged.seq, &merged.payload[..]),
            (SeqNumber(100), &b"abcde"[..])
        );
        assert_eq!(merged.option(30).unwrap()[7], mark);
        assert!(b.fwd(&data(105, b"x")).is_empty());
        let apart = b.fwd(&data(200, b"y"));
        assert_eq!(apart[0].payload, b"x", "a gap is not closed");
        assert_eq!(b.0.next_deadline(), Some(at(5)));
        assert_eq!(b.timer(5)[0].1.payload, b"y");
    }
}

#[test]
fn a_flipped_byte_stays_flipped_in_every_retransmission() {
    let mut b = Bench::new(Flip::new(2, Way::ToServer));
    assert_eq!(b.fwd(&data(100, b"aaaa"))[0].payload, b"aaaa");
    assert_eq!(b.fwd(&data(104, b"bbbb"))[0].payload, b"bbBb");
    assert_eq!(b.fwd(&data(102, b"aabbb"))[0].payload, b"aabbB");
    assert_eq!(b.fwd(&data(108, b"cccc"))[0].payload, b"cccc");
}

#[test]
fn a_gateway_translates_both_ways_however_it_is_cut() {
    for (edit, changed) in [
        (Edit::Grow(5), &b"aaaabb203.0bbcccc"[..]),
        (Edit::Shrink(2), &b"aaaabbcccc"[..]),
    ] {
        let mut b = Bench::new(Gateway::new(2, edit, Way::ToServer));
        let (mut tap, streams) = Tap::new(Toward::Server);
        let mut put = |segments: Vec<Segment>| {
            for s in segments {
                tap.on_frame(at(0), Toward::Server, s.emit(), &mut Vec::new());
            }
        };
        put(b.fwd(&seg(99, 0, Flags::SYN, &[], &[])));
        put(b.fwd(&data(100, b"aaaa")));
        put(b.fwd(&data(104, b"bbbb")));
        // A retransmission across the edit, and one from inside it.
        put(b.fwd(&data(102, b"aabbbb")));
        put(b.fwd(&data(106, b"bbcccc")));
        let (stream, _) = streams.stream(streams.flows()[0]);
        assert_eq!(stream, changed);
        let end = 100 + u32::try_from(changed.len()).unwrap();
        assert_eq!(
            b.rev(&back(500, end, Flags::ACK, &[], &[]))[0].ack,
            SeqNumber(112)
        );
        assert_eq!(
            b.rev(&back(500, 104, Flags::ACK, &[], &[]))[0].ack,
            SeqNumber(104)
        );
        assert_eq!(b.fwd(&data(112, b"d"))[0].seq, SeqNumber(end));
    }
}

#[test]
fn a_gateway_answers_in_the_server_s_name() {
    let mut b = Bench::new(Gateway::new(1, Edit::Answer(3), Way::ToServer));
    b.rev(&back(500, 100, Flags::ACK, &[], b"hi"));
    let out = b.pass(0, Toward::Server, &seg(100, 502, Flags::ACK, TS, b"line"));
    let (to, answer) = &out[0];
    assert_eq!(*to, Toward::Client);
    assert_eq!((answer.seq, answer.ack), (SeqNumber(502), SeqNumber(104)));
    assert_eq!(out[1].1.payload, b"");
    let next = b.rev(&back(502, 100, Flags::ACK, &[], b"xy")).remove(0);
    assert_eq!(
        (next.seq, &next.payload[..3]),
        (SeqNumber(502), &answer.payload[..])
    );
    assert_eq!(next.ack, SeqNumber(104), "the line counts as received");
    assert_eq!(
        b.rev(&back(504, 100, Flags::ACK, &[], b"z"))[0].seq,
        SeqNumber(507)
    );
    assert_eq!(
        b.fwd(&seg(104, 508, Flags::ACK, &[], b""))[0].ack,
        SeqNumber(505)
    );
}

/// A server that is silent, or gone, would otherwise never be heard again: all that it says
/// stands behind an answer that was lost.
#[test]
fn a_gateway_answers_until_it_is_heard() {
    let mut b = Bench::new(Gateway::new(1, Edit::Answer(3), Way::ToServer));
    b.rev(&back(500, 100, Flags::ACK, &[], b"hi"));
    // Its answer goes back at once.
    b.pass(0, Toward::Server, &seg(100, 502, Flags::ACK, TS, b"line"));
    let reset = back(502, 0, Flags::RST, &[], b"");
    let heard = |b: &mut Bench, ms, s: &Segment| -> Vec<(u32, usize)> {
        let out = b.pass(ms, Toward::Client, s);
        (out.iter().map(|(_, s)| (s.seq.0, s.payload.len()))).collect()
    };
    assert_eq!(heard(&mut b, 100, &reset), [(505, 0)], "on its way");
    assert_eq!(heard(&mut b, 300, &reset), [(502, 3), (505, 0)]);
    b.fwd(&seg(104, 505, Flags::ACK, &[], b""));
    assert_eq!(heard(&mut b, 600, &reset), [(505, 0)], "acknowledged");
}

/// What it acknowledges is never sent again.
#[test]
fn a_gateway_acknowledges_nothing_that_may_be_lost() {
    let mut b = Bench::new(Gateway::new(2, Edit::Answer(3), Way::ToServer));
    b.rev(&back(500, 100, Flags::ACK, &[], b"hi"));
    b.fwd(&data(100, b"aaaa"));
    let line = seg(104, 502, Flags::ACK, TS, b"line");
    let out = b.pass(0, Toward::Server, &line);
    assert_eq!(out[0].1.ack, SeqNumber(100), "the server has yet to say so");
    let ack = back(502, 104, Flags::ACK, &[], b"");
    assert_eq!(b.rev(&ack)[0].ack, SeqNumber(108), "with what is in front");
}

#[test]
fn windows_are_scaled_clamped_zeroed() {
    let win = |change, s: &Segment| Bench::new(Window::new(change, Way::Both)).fwd(s)[0].window;
    let s = data(1, b"x");
    assert_eq!(win(window::Change::Times(4), &s), 4000);
    assert_eq!(win(window::Change::AtMost(40), &s), 40);
    assert_eq!(win(window::Change::Add(-1), &s), 999);
    assert_eq!(
        win(window::Change::Add(-2000), &s),
        1000,
        "out of range: skipped"
    );
    let mut zero = Bench::new(Window::new(
        window::Change::Zero { zero: 1, of: 2 },
        Way::Both,
    ));
    let windows: Vec<u16> = (0..4).map(|_| zero.fwd(&s)[0].window).collect();
    assert_eq!(windows, [1000, 1000, 0, 1000]);
}

#[test]
fn the_shrink_guard_knows_scale_and_direction() {
    let mut b = Bench::new(ShrinkGuard::default());
    let scale = [1, 3, 3, 2];
    b.fwd(&seg(0, 0, Flags::SYN, &scale, &[]));
    b.rev(&back(0, 1, Flags::SYN | Flags::ACK, &scale, &[]));
    let mut s = seg(1, 1000, Flags::ACK, &[], &[]);
    assert_eq!(b.fwd(&s).len(), 1);
    s.window -= 1;
    assert_eq!(b.fwd(&s).len(), 1, "the scale's granularity");
    s.window -= 1;
    assert!(b.fwd(&s).is_empty());
    s.ack += 8;
    assert_eq!(b.fwd(&s).len(), 1, "the edge counts, not the window");
    s.ack = SeqNumber(1);
    assert_eq!(b.rev(&back(1, 1, Flags::ACK, &[], &[])).len(), 1);
    assert_eq!(b.count("dropped: window shrunk"), 1);
}

#[test]
fn normalizers_insist() {
    let mut same = Bench::new(Consistent::default());
    same.fwd(&data(100, b"first"));
    assert_eq!(same.fwd(&data(102, b"XXXmore"))[0].payload, b"rstmore");
    assert_eq!(same.count("bytes inconsistent"), 3);
    let mut holes = Bench::new(NoHoles::new(1, 0.0));
    holes.fwd(&seg(99, 0, Flags::SYN, &[], &[]));
    assert!(holes.fwd(&data(104, b"late")).is_empty());
    assert_eq!(holes.fwd(&data(100, b"soon")).len(), 1);
    assert_eq!(holes.fwd(&data(104, b"late")).len(), 1);
    let mut trim = Bench::new(TrimOverlap::default());
    trim.fwd(&data(100, b"abcd"));
    let trimmed = trim.fwd(&data(102, b"cdef")).remove(0);
    assert_eq!(
        (trimmed.seq, &trimmed.payload[..]),
        (SeqNumber(104), &b"ef"[..])
    );
    assert_eq!(
        trim.fwd(&data(105, b"f"))[0].payload,
        b"f",
        "a byte that was lost, perhaps"
    );
    trim.rev(&back(1, 106, Flags::ACK, &[], &[]));
    assert!(
        trim.fwd(&data(105, b"f"))[0].payload.is_empty(),
        "a keepalive"
    );
    assert_eq!(
        trim.fwd(&data(100, b"abcd"))[0].payload,
        b"abcd",
        "a retransmission passes"
    );
    for (unseen, left) in [(Unseen::Drop, 0), (Unseen::Correct, 1)] {
        let mut b = Bench::new(AckGuard::new(unseen, Way::Both));
        b.fwd(&data(100, b"abcd"));
        assert_eq!(b.rev(&back(1, 104, Flags::ACK, &[], &[])).len(), 1);
        let out = b.rev(&back(1, 105, Flags::ACK, &[], &[]));
        assert_eq!(out.len(), left);
        assert!(out.iter().all(|s| s.ack == SeqNumber(104)));
    }
}

#[test]
fn resets_fit_the_receiver_s_next_byte() {
    let mut b = Bench::new(Reset::new(2, Way::Both));
    b.fwd(&data(100, b"abcd"));
    b.rev(&back(500, 104, Flags::ACK, &[], b"xy"));
    let out = b.pass(0, Toward::Server, &data(104, b"ef"));
    let rsts: Vec<_> = out[1..].iter().map(|(t, s)| (*t, s.seq, s.flags)).collect();
    let rst = Flags::RST | Flags::ACK;
    assert_eq!(
        rsts,
        [
            (Toward::Server, SeqNumber(106), rst),
            (Toward::Client, SeqNumber(502), rst)
        ]
    );
    assert_eq!(b.fwd(&data(106, b"g")).len(), 1, "once");
    let mut forger = Bench::new(Inject::new(Blind::AddAddr, 1));
    let out = forger.fwd(&data(100, b"abcd"));
    assert!(out[1].has_mptcp_subtype(subtype::ADD_ADDR) && out[1].payload.is_empty());
}

#[test]
fn paths_go_silent_fill_up_and_refuse_size() {
    let mut hole = Bench::new(Blackhole::new(Until::Packets(1), Way::ToServer));
    let s = data(1, b"x");
    assert_eq!((hole.fwd(&s).len(), hole.fwd(&s).len()), (1, 0));
    assert_eq!(hole.rev(&back(1, 1, Flags::ACK, &[], &[])).len(), 1);
    let mut mtu = Bench::new(MtuHole::new(100, true));
    let mut out = Vec::new();
    let big = data(1, &[7; 200]);
    mtu.0.on_frame(at(0), Toward::Server, big.emit(), &mut out);
    assert_eq!(out.len(), 1);
    let Ok(Packet::Icmp(error)) = packet::parse(&out[0].frame) else {
        panic!("an ICMP error that a host understands");
    };
    assert!(format!("{error:?}").contains("100"), "{error:?}");
    let mut queue = Bench(Box::new(Queue::new(1_000, Duration::from_millis(100))));
    for _ in 0..4 {
        queue.pass(0, Toward::Server, &s);
    }
    assert!(queue.count("dropped: queue full") > 0);
    assert_eq!(
        queue.timer(200).len(),
        usize::try_from(queue.count("queued")).unwrap()
    );
}

#[test]
fn headers_are_rewritten() {
    let mut ip = Bench::new(IpHeader::new(IpField::Rewrite {
        hops: 5,
        dscp: 46,
        id: 2,
    }));
    let mut s = ip.fwd(&data(1, b"x")).remove(0);
    assert_eq!(s.ip_header_mut()[8], 59);
    assert_eq!(s.ip_header_mut()[1], 46 << 2);
    assert_eq!(s.ip_header_mut()[4..6], [0, 3]);
    let syn = seg(1, 0, Flags::SYN, &[2, 4, 5, 180], &[]);
    let mss = |change| {
        let out = Bench::new(Mss::new(change, Way::Both)).fwd(&syn).remove(0);
        let option = out.option(MSS).unwrap();
        u16::from_be_bytes([option[2], option[3]])
    };
    assert_eq!(mss(MssChange::AtMost(536)), 536);
    assert_eq!(mss(MssChange::Add(-60)), 1400);
    assert_eq!(mss(MssChange::Divide(2)), 730);
    let tidy = Bench::new(Tidy)
        .fwd(&seg(1, 1, Flags::ACK, &[TS, DSS].concat(), b"x"))
        .remove(0);
    assert_eq!(tidy.options[..8], *DSS);
    assert_eq!(tidy.timestamps(), Some((7, 6)));
}

#[test]
fn the_proxy_vouches_and_repeats() {
    let mut b = Bench::new(Pep::default());
    b.fwd(&seg(99, 0, Flags::SYN, &[], &[]));
    b.rev(&back(499, 100, Flags::SYN | Flags::ACK, &[], &[]));
    b.rev(&back(500, 100, Flags::ACK, &[], &[]));
    let out = b.pass(0, Toward::Server, &data(100, b"abcd"));
    let (to, early) = &out[0];
    assert_eq!((*to, early.ack), (Toward::Client, SeqNumber(104)));
    assert!(
        !early.has_mptcp() && early.window == 996,
        "what is left of the window"
    );
    assert_eq!(out[1].1.payload, b"abcd");
    // In halves: what is too large for the next hop gets through in the end.
    let again: Vec<u8> = b
        .timer(200)
        .iter()
        .flat_map(|s| s.1.payload.clone())
        .collect();
    assert_eq!(again, b"abcd");
    let late = b.rev(&back(500, 100, Flags::ACK, &[], &[])).remove(0);
    assert_eq!(late.ack, SeqNumber(104), "a promise is kept");
    b.rev(&back(500, 104, Flags::ACK, &[], &[]));
    assert_eq!(b.0.next_deadline(), None);
}

#[test]
fn flows_are_told_apart() {
    let mut b = Bench::new(Reset::new(1, Way::ToServer));
    b.fwd(&data(1, b"x"));
    let other = Segment {
        src: SocketAddr::from(([10, 0, 0, 1], 40_000)),
        ..data(1, b"x")
    };
    assert_eq!(b.fwd(&other).len(), 1, "its first packet");
    assert_eq!(b.fwd(&data(2, b"x")).len(), 2, "the other's second");
}
