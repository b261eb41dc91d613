//! What the engine decides before any connection exists: listeners, resets, hand-off.

use std::net::SocketAddr;

use super::*;
use crate::app::{App, Echo};
use crate::buf::{Frame, FramePool, PacketFrames};
use crate::io::{RxChecksum, Tx};
use crate::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use crate::wire::ethernet::EthernetAddress;
use crate::wire::mptcp::{MpCapableFlags, MptcpOption};
use crate::wire::packet::{self, Packet, TcpPacket};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;
use crate::wire::types::{Key, Token};
use crate::worker::handoff::HandOff;

const SERVER: &str = "10.0.0.1:7";

/// Captures what the engine sends.
struct Wire<'a> {
    pool: &'a FramePool,
    sent: Vec<Vec<u8>>,
}

impl TxSink for Wire<'_> {
    fn alloc(&mut self, _port: PortId) -> Option<Frame> {
        self.pool.alloc()
    }
    fn send(&mut self, _port: PortId, frame: &Frame) -> Tx {
        self.sent.push(frame.packet().to_vec());
        Tx::Queued
    }
    fn room(&self, _port: PortId) -> u32 {
        64
    }
}

struct Bench {
    engine: Engine<App>,
    pool: FramePool,
    /// Of every segment.
    window: u16,
    payload: Vec<u8>,
    from: Option<u16>,
}

impl Bench {
    fn new(worker: WorkerShare, backlog: u32) -> Self {
        let config = EngineConfig {
            worker,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(config, [3; 32], Instant::from_millis(1));
        let listen = vec![SERVER.parse().unwrap()];
        let make = Box::new(|| App::Echo(Echo));
        engine.set_services(vec![Service::new("echo", listen, backlog, make)]);
        Self {
            engine,
            pool: FramePool::heap(256, 2048),
            window: 65_000,
            payload: Vec::new(),
            from: None,
        }
    }

    fn frame(
        &self,
        to: &str,
        from_port: u16,
        flags: Flags,
        numbers: (u32, u32),
        option: Option<MptcpOption>,
    ) -> Frame {
        self.build(to, from_port, flags, numbers, |options| {
            if let Some(option) = &option {
                options.mptcp(option).unwrap();
            }
        })
    }

    fn frame_with(
        &self,
        from_port: u16,
        flags: Flags,
        numbers: (u32, u32),
        fill: impl FnOnce(&mut OptionsBuf),
    ) -> Frame {
        self.build(SERVER, from_port, flags, numbers, fill)
    }

    fn build(
        &self,
        to: &str,
        from_port: u16,
        flags: Flags,
        (seq, ack): (u32, u32),
        fill: impl FnOnce(&mut OptionsBuf),
    ) -> Frame {
        let tuple = FourTuple {
            local: SocketAddr::from(([10, 0, 0, 9], from_port)),
            remote: to.parse().unwrap(),
        };
        let l2 = L2Header {
            dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
            src: EthernetAddress([2, 0, 0, 0, 0, 9]),
            vlan: Default::default(),
        };
        let mut options = OptionsBuf::new();
        fill(&mut options);
        let (seq, ack) = (SeqNumber(seq), SeqNumber(ack));
        let header = TcpHeaderOut {
            seq,
            ack,
            flags,
            window: self.window,
            urgent: 0,
            ecn: 0,
        };
        let mut frame = self.pool.alloc().unwrap();
        let out = frame.buffer_mut().unwrap();
        let template = HeaderTemplate::new(l2, &tuple, 0, 64).unwrap();
        let n = self.payload.len();
        let start = template.header_len(options.padded_len());
        let sum = crate::checksum::copy_and_sum(&mut out[start..start + n], &self.payload);
        let headers = template.emit(out, &header, &options, n, sum);
        assert_eq!(headers, start);
        frame.set_len(start + n);
        frame
    }

    /// Delivers a segment and returns the answers and what is handed over.
    fn segment(
        &mut self,
        to: &str,
        from_port: u16,
        flags: Flags,
        numbers: (u32, u32),
        option: Option<MptcpOption>,
    ) -> (Vec<TcpPacket>, Option<(u16, HandOff)>) {
        let frame = self.frame(to, from_port, flags, numbers, option);
        self.deliver(frame)
    }

    fn deliver(&mut self, frame: Frame) -> (Vec<TcpPacket>, Option<(u16, HandOff)>) {
        self.deliver_all([frame].into())
    }

    fn deliver_all(&mut self, frames: PacketFrames) -> (Vec<TcpPacket>, Option<(u16, HandOff)>) {
        let mut wire = Wire {
            pool: &self.pool,
            sent: Vec::new(),
        };
        let arrival = Arrival {
            port: PortId(0),
            mtu: 1500,
            checksum: RxChecksum::Verify,
            from: self.from,
        };
        let now = Instant::from_millis(2);
        let handed = self.engine.on_packet(now, arrival, frames, &mut wire);
        self.engine.run(now, &mut wire);
        let answers = wire
            .sent
            .iter()
            .map(|bytes| match packet::parse(bytes) {
                Ok(Packet::Tcp(tcp)) => tcp,
                other => panic!("{other:?}"),
            })
            .collect();
        (answers, handed)
    }
}

fn join(token: u32) -> Option<MptcpOption> {
    Some(MptcpOption::MpJoinSyn {
        backup: false,
        address_id: AddressId(2),
        token: Token(token),
        nonce: 5,
    })
}

mod announcements;
mod trains;

#[test]
fn a_syn_for_a_service_is_answered() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let (answers, _) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), None);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].flags, Flags::SYN | Flags::ACK);
    assert_eq!(answers[0].ack, SeqNumber(101));
    assert_eq!(b.engine.connections(), 1);
}

#[test]
fn a_syn_for_nobody_is_reset() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let (answers, _) = b.segment("10.0.0.1:8", 1000, Flags::SYN, (100, 0), None);
    assert_eq!(answers[0].flags, Flags::RST | Flags::ACK);
    assert_eq!(
        (answers[0].seq, answers[0].ack),
        (SeqNumber(0), SeqNumber(101))
    );
    assert_eq!(b.engine.counters().get(Counter::NoListener), 1);
}

#[test]
fn a_segment_of_no_flow_is_reset_and_a_reset_never_is() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let (answers, _) = b.segment(SERVER, 1000, Flags::ACK, (100, 777), None);
    assert_eq!(
        (answers[0].flags, answers[0].seq),
        (Flags::RST, SeqNumber(777))
    );
    let (answers, _) = b.segment(SERVER, 1000, Flags::RST, (100, 0), None);
    assert!(answers.is_empty());
    assert_eq!(b.engine.counters().get(Counter::NoFlow), 2);
}

#[test]
fn a_join_with_an_unknown_token_is_reset_with_a_reason() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let (answers, _) = b.segment("10.0.0.1:4711", 1000, Flags::SYN, (100, 0), join(42));
    assert!(answers[0].flags.contains(Flags::RST));
    assert!(
        answers[0]
            .options
            .mptcp
            .iter()
            .any(|o| matches!(o, MptcpOption::TcpRst { .. }))
    );
    assert_eq!(b.engine.counters().get(Counter::MPJoinNoTokenFound), 1);
}

#[test]
fn a_join_goes_to_the_worker_that_its_token_names() {
    let mut b = Bench::new(WorkerShare { index: 0, count: 2 }, 8);
    let (answers, handed) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), join(43));
    assert!(answers.is_empty());
    match handed {
        Some((1, HandOff::Packet { from: 0, .. })) => {}
        other => panic!("{other:?}"),
    }
    // An even token is this worker's own to refuse.
    let (answers, handed) = b.segment(SERVER, 1001, Flags::SYN, (100, 0), join(42));
    assert!(handed.is_none() && answers[0].flags.contains(Flags::RST));
}

#[test]
fn a_routed_flow_is_handed_over_until_it_is_released() {
    let mut b = Bench::new(WorkerShare { index: 0, count: 2 }, 8);
    let tuple = FourTuple {
        local: SERVER.parse().unwrap(),
        remote: SocketAddr::from(([10, 0, 0, 9], 1000)),
    };
    b.engine.on_route(&tuple, 1, true);
    let (_, handed) = b.segment(SERVER, 1000, Flags::ACK, (100, 1), None);
    assert!(matches!(handed, Some((1, HandOff::Packet { .. }))));
    b.engine.on_route(&tuple, 1, false);
    let (answers, handed) = b.segment(SERVER, 1000, Flags::ACK, (100, 1), None);
    assert!(handed.is_none() && answers.len() == 1);
}

#[test]
fn a_packet_of_several_frames_is_handed_over_whole() {
    let mut b = Bench::new(WorkerShare { index: 0, count: 2 }, 8);
    let tuple = FourTuple {
        local: SERVER.parse().unwrap(),
        remote: SocketAddr::from(([10, 0, 0, 9], 1000)),
    };
    b.engine.on_route(&tuple, 1, true);
    b.payload = vec![7; 1000];
    let mut head = b.frame(SERVER, 1000, Flags::ACK, (100, 1), None);
    let whole = head.packet().to_vec();
    let mut rest = b.pool.alloc().unwrap();
    let cut = whole.len() - 700;
    rest.buffer_mut().unwrap()[..700].copy_from_slice(&whole[cut..]);
    rest.set_len(700);
    head.set_len(cut);
    let (_, handed) = b.deliver_all([head, rest].into_iter().collect());
    let Some((1, HandOff::Packet { frames, .. })) = handed else {
        panic!("{handed:?}");
    };
    let bytes: Vec<u8> = frames.iter().flat_map(|f| f.packet().to_vec()).collect();
    assert_eq!(bytes, whole);
}

#[test]
fn the_backlog_is_bounded() {
    let mut b = Bench::new(WorkerShare::SOLE, 2);
    b.engine.config.mptcp.syn_cookies = false;
    for port in 0..3 {
        b.segment(SERVER, 1000 + port, Flags::SYN, (100, 0), None);
    }
    assert_eq!(b.engine.connections(), 2);
    assert_eq!(b.engine.counters().get(Counter::ListenOverflows), 1);
    // A reset frees a place.
    b.segment(SERVER, 1000, Flags::RST, (101, 0), None);
    b.segment(SERVER, 1009, Flags::SYN, (100, 0), None);
    assert_eq!(b.engine.connections(), 2);
    assert_eq!(b.engine.counters().get(Counter::ListenOverflows), 1);
}

#[test]
fn under_frame_pressure_new_connections_are_refused_first() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    b.engine.set_pressure(true);
    let (answers, _) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), None);
    assert!(answers.is_empty() && b.engine.connections() == 0);
    assert_eq!(b.engine.counters().get(Counter::MemoryPressureRefused), 1);
}

#[test]
fn under_frame_pressure_unread_data_is_copied_out() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    assert!(b.pool.adopt());
    // A peer without a window: the echo stays in the receive stream.
    b.window = 0;
    let (answers, _) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), None);
    let ack = (answers[0].seq + 1).0;
    b.segment(SERVER, 1000, Flags::ACK, (101, ack), None);
    b.payload = vec![7; 1000];
    for i in 0..4 {
        b.segment(SERVER, 1000, Flags::ACK, (101 + i * 1000, ack), None);
    }
    let pinned = |b: &Bench| b.pool.frames() - b.pool.available();
    assert_eq!(pinned(&b), 4);
    b.engine.set_pressure(true);
    let mut wire = Wire {
        pool: &b.pool,
        sent: Vec::new(),
    };
    b.engine.run(Instant::from_millis(2), &mut wire);
    assert_eq!(pinned(&b), 0);
    assert_eq!(b.engine.counters().get(Counter::RxCopybreak), 4);
}

#[test]
fn a_full_flow_table_takes_no_connection() {
    let mut b = Bench::new(WorkerShare { index: 0, count: 2 }, 8);
    b.engine.flows = FlowTable::new([0; 16], 1);
    let tuple = FourTuple {
        local: SERVER.parse().unwrap(),
        remote: SocketAddr::from(([10, 0, 0, 9], 999)),
    };
    b.engine.on_route(&tuple, 1, true);
    let (answers, _) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), None);
    assert!(answers.is_empty() && b.engine.connections() == 0);
    assert_eq!(b.engine.counters().get(Counter::FlowTableFull), 1);
}

#[test]
fn who_hands_over_a_flow_that_is_gone_is_told() {
    let mut b = Bench::new(WorkerShare { index: 0, count: 2 }, 8);
    b.from = Some(1);
    b.segment(SERVER, 1000, Flags::ACK, (100, 1), None);
    let told: Vec<_> = b.engine.take_outbound().collect();
    assert!(
        matches!(
            told[..],
            [Outbound::Route {
                worker: Some(1),
                claim: false,
                ..
            }]
        ),
        "{told:?}"
    );
}

#[test]
fn a_route_lasts_as_long_as_time_wait() {
    let mut queue = TimeWaitQueue::new(1);
    let tuple = |port| FourTuple {
        local: SERVER.parse().unwrap(),
        remote: SocketAddr::from(([10, 0, 0, 9], port)),
    };
    let state = |ms| crate::tcp::TimeWait {
        snd_nxt: SeqNumber(1),
        rcv_nxt: SeqNumber(1),
        ts_recent: None,
        ts_offset: 0,
        window: 0,
        length: Duration::from_secs(60),
        expires: Instant::from_millis(ms),
    };
    let mut b = Bench::new(WorkerShare { index: 0, count: 2 }, 8);
    let (serial, _) = queue.push(tuple(1), state(5), Some(Some(1)));
    b.engine.time_wait = queue;
    b.engine.on_timers(Instant::from_millis(4));
    assert_eq!(b.engine.take_outbound().count(), 0);
    assert!(b.engine.time_wait.get_mut(serial).is_some());
    b.engine.on_timers(Instant::from_millis(6));
    assert_eq!(b.engine.take_outbound().count(), 1);
    // A flow that began anew in between has a route of its own.
    let (serial, _) = b.engine.time_wait.push(tuple(1), state(9), Some(None));
    assert_eq!(b.engine.time_wait.take_route(serial), Some(None));
    b.engine.on_timers(Instant::from_millis(10));
    assert_eq!(b.engine.take_outbound().count(), 0);
}

#[test]
fn a_draining_engine_refuses() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    b.engine.drain();
    let (answers, _) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), None);
    assert!(answers[0].flags.contains(Flags::RST));
}

#[test]
fn a_wrong_checksum_reaches_nobody() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let mut frame = b.frame(SERVER, 1000, Flags::SYN, (100, 0), None);
    let last = frame.len() - 1;
    frame.buffer_mut().unwrap()[last] ^= 0x40;
    let (answers, _) = b.deliver(frame);
    assert!(answers.is_empty() && b.engine.connections() == 0);
    assert_eq!(b.engine.counters().get(Counter::InCsumErrors), 1);
}

fn capable(keys: Option<(Key, Key)>) -> Option<MptcpOption> {
    Some(MptcpOption::MpCapable {
        version: 1,
        flags: MpCapableFlags::HMAC_SHA256,
        sender_key: keys.map(|(sender, _)| sender),
        receiver_key: keys.map(|(_, receiver)| receiver),
        data_len: None,
        checksum: None,
    })
}

const CLIENT_KEY: Key = Key(0x1112_1314_1516_1718);

/// Sends a SYN with MP_CAPABLE; what the SYN/ACK shows: its number, and the key if there is one.
fn stateless_syn(b: &mut Bench, port: u16) -> (u32, Option<Key>) {
    let (answers, _) = b.segment(SERVER, port, Flags::SYN, (100, 0), capable(None));
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].flags, Flags::SYN | Flags::ACK);
    let key = answers[0].options.mptcp.iter().find_map(|o| match *o {
        MptcpOption::MpCapable { sender_key, .. } => sender_key,
        _ => None,
    });
    (answers[0].seq.0, key)
}

/// Acknowledges a cookie; whether MPTCP came of it.
fn stateless_ack(b: &mut Bench, port: u16, iss: u32, key: Key) -> bool {
    let before = b.engine.connections();
    let echo = capable(Some((CLIENT_KEY, key)));
    b.segment(SERVER, port, Flags::ACK, (101, iss.wrapping_add(1)), echo);
    assert_eq!(b.engine.connections(), before + 1);
    let newest = b.engine.slots.iter().flatten().last().unwrap();
    assert!(!newest.half_open && newest.conn.is_established());
    newest.conn.is_mptcp()
}

#[test]
fn with_a_full_backlog_a_syn_leaves_no_trace_and_its_client_gets_mptcp() {
    for (index, count) in [(0, 1), (2, 3)] {
        let mut b = Bench::new(WorkerShare { index, count }, 0);
        let free = b.pool.available();
        let (iss, key) = stateless_syn(&mut b, 1000);
        let key = key.expect("keys that belong to this worker are found");
        assert_eq!((b.engine.connections(), b.engine.flows()), (0, 0));
        b.pool.collect_returned();
        assert_eq!(b.pool.available(), free);
        assert!(stateless_ack(&mut b, 1000, iss, key));
        let (token, _) = b.engine.tokens.iter().next().unwrap();
        assert_eq!(token % count, index, "a join finds its worker");
        assert_eq!(b.engine.services[0].half_open, 0);
        for (counter, n) in [
            (Counter::SyncookiesSent, 1),
            (Counter::SyncookiesRecv, 1),
            (Counter::SyncookiesFailed, 0),
            (Counter::MPCapableSYNRX, 1),
            (Counter::MPCapableACKRX, 1),
            (Counter::PassiveOpens, 1),
        ] {
            assert_eq!(b.engine.counters().get(counter), n, "{counter:?}");
        }
    }
}

/// RFC 8684 §3.1: tokens are to be unique, and of the keys that can be verified another is
/// taken; when there is none the SYN/ACK has no MP_CAPABLE.
#[test]
fn a_stateless_key_whose_token_is_taken_gives_way_to_another_or_to_tcp() {
    let mut b = Bench::new(WorkerShare::SOLE, 0);
    let mut keys = Vec::new();
    loop {
        match stateless_syn(&mut b, 1000).1 {
            None => break,
            Some(key) => {
                assert!(!keys.contains(&key), "taken");
                keys.push(key);
                let token = crate::mptcp::token_of(key);
                b.engine.tokens.insert(token.0, 0);
            }
        }
    }
    assert_eq!(keys.len(), 16, "bounded");
    assert_eq!(b.engine.counters().get(Counter::MPFallbackTokenInit), 1);
    b.engine.tokens.clear();
    let (iss, again) = stateless_syn(&mut b, 1000);
    assert_eq!(again, Some(keys[0]));
    assert!(stateless_ack(&mut b, 1000, iss, keys[3]), "any of them");
}

#[test]
fn a_token_that_was_taken_since_the_syn_makes_the_connection_tcp() {
    let mut b = Bench::new(WorkerShare::SOLE, 0);
    let (iss, key) = stateless_syn(&mut b, 1000);
    let key = key.unwrap();
    b.engine.tokens.insert(crate::mptcp::token_of(key).0, 77);
    assert!(!stateless_ack(&mut b, 1000, iss, key));
    assert_eq!(b.engine.counters().get(Counter::MPFallbackTokenInit), 1);
}

#[test]
fn cookies_open_no_more_than_there_is_room_for() {
    let mut b = Bench::new(WorkerShare::SOLE, 0);
    let (iss, key) = stateless_syn(&mut b, 1000);
    let echo = capable(Some((CLIENT_KEY, key.unwrap())));
    b.engine.set_pressure(true);
    let ack = (101, iss.wrapping_add(1));
    let (answers, _) = b.segment(SERVER, 1000, Flags::ACK, ack, echo);
    assert!(answers.is_empty() && b.engine.connections() == 0);
    assert_eq!(b.engine.counters().get(Counter::MemoryPressureRefused), 1);
    b.engine.set_pressure(false);
    b.segment(SERVER, 1000, Flags::ACK, ack, echo);
    assert_eq!(b.engine.connections(), 1, "there is room again");
}

/// A connection by its handshake; its token and our key.
fn opened(b: &mut Bench, port: u16) -> (u32, Key) {
    let (iss, key) = stateless_syn(b, port);
    let key = key.unwrap();
    let echo = capable(Some((CLIENT_KEY, key)));
    b.segment(SERVER, port, Flags::ACK, (101, iss.wrapping_add(1)), echo);
    (crate::mptcp::token_of(key).0, key)
}

#[test]
fn joins_that_wait_for_their_proof_are_bounded_per_connection_and_in_all() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    b.engine.config.joins_pending_max = 6;
    let (first, _) = opened(&mut b, 1000);
    let (second, _) = opened(&mut b, 1001);
    let mut refused = 0;
    for port in 2000..2010 {
        let (answers, _) = b.segment(SERVER, port, Flags::SYN, (100, 0), join(first));
        refused += usize::from(answers[0].flags.contains(Flags::RST));
    }
    assert_eq!((b.engine.joins_pending, refused), (4, 6));
    let overflows = |b: &Bench| b.engine.counters().get(Counter::MPJoinPendingOverflow);
    assert_eq!(overflows(&b), 6);
    let mut silent = 0;
    for port in 3000..3004 {
        let (answers, _) = b.segment(SERVER, port, Flags::SYN, (100, 0), join(second));
        silent += usize::from(answers.is_empty());
    }
    assert_eq!((b.engine.joins_pending, silent, overflows(&b)), (6, 2, 8));
    // A reset frees a place, in both tables.
    b.segment(SERVER, 2000, Flags::RST, (101, 0), None);
    assert_eq!(b.engine.joins_pending, 5);
    let (answers, _) = b.segment(SERVER, 3009, Flags::SYN, (100, 0), join(second));
    assert_eq!(answers[0].flags, Flags::SYN | Flags::ACK);
    b.engine.abort_all(Instant::from_millis(3));
    let mut wire = Wire {
        pool: &b.pool,
        sent: Vec::new(),
    };
    b.engine.run(Instant::from_millis(3), &mut wire);
    assert_eq!(b.engine.joins_pending, 0);
}

#[test]
fn a_join_that_does_not_answer_gives_way() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let (token, _) = opened(&mut b, 1000);
    for port in 2000..2004 {
        b.segment(SERVER, port, Flags::SYN, (100, 0), join(token));
    }
    // Their SYN/ACKs are repeated once.
    b.engine.on_timers(Instant::from_millis(1500));
    let (answers, _) = b.segment(SERVER, 2009, Flags::SYN, (100, 0), join(token));
    assert!(
        answers
            .iter()
            .any(|a| a.flags == Flags::SYN | Flags::ACK && a.tuple.local.port() == 2009)
    );
    assert_eq!(b.engine.counters().get(Counter::MPJoinPendingEvicted), 1);
    assert_eq!(b.engine.joins_pending, 4);
}

/// RFC 7413 §5.1: a quarter of the backlog, and the rest goes through handshakes first.
#[test]
fn under_a_flood_no_data_of_a_syn_is_taken() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let mut rng = StdRng::from_seed([1; 32]);
    b.engine.fast_open_key = Some(FastOpenKey::draw(&mut rng));
    let now = Instant::from_millis(2);
    b.payload = b"hello".to_vec();
    let mut acked = Vec::new();
    for port in 1000..1004 {
        let tuple = FourTuple {
            local: SERVER.parse().unwrap(),
            remote: SocketAddr::from(([10, 0, 0, 9], port)),
        };
        let cookie = b.engine.fast_open_key.as_ref().unwrap().cookie(now, &tuple);
        let frame = b.frame_with(port, Flags::SYN, (100, 0), |options| {
            options.fast_open(&cookie).unwrap();
        });
        let (answers, _) = b.deliver(frame);
        acked.push(answers[0].ack.0);
    }
    assert_eq!(acked, [106, 106, 101, 101]);
    let count = |counter| b.engine.counters().get(counter);
    assert_eq!(count(Counter::TCPFastOpenPassive), 2);
    assert_eq!(count(Counter::TCPFastOpenListenOverflow), 2);
}
