//! A server under attack, an honest client beside the attacker, and a clock.
//!
//! The network delivers what was sent a millisecond ago. Whatever the attacker does, the
//! honest connection writes on; only packets of the attacker are timed.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use braid_dataplane::io::PortId;
use braid_dataplane::mptcp::{ConnInfo, MptcpConfig, SubflowPath};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::types::{AddressId, FourTuple};
use braid_dataplane::worker::{EngineConfig, Service};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::heap;
use crate::script::app::{ScriptApp, Shared};
use crate::script::host::{FRAMES, Host};
use crate::script::keys;
use crate::script::segment::Segment;

/// Frames that the receive side of one connection may pin: an eighth of the pool, as in
/// the daemon.
pub(super) const FRAMES_PER_CONNECTION: u32 = 512;
/// Receive buffer of one connection: what those frames hold.
pub(super) const BUFFER_BYTES: u32 = FRAMES_PER_CONNECTION * 1420;
/// Half-open connections of the attacked service.
pub(super) const BACKLOG: u32 = 64;
/// What the honest client writes in a millisecond: 32 Mb/s.
const HONEST_BYTES: u64 = 4000;
/// Packets of the attacker in a millisecond.
const BURST: u32 = 64;
/// Packets that the attacker remembers: its memory is measured with the server's.
const INBOX_MAX: usize = 256;
const TICK: Duration = Duration::from_millis(1);
/// How long the honest connection may take to end after the attack.
const PATIENCE_TICKS: u32 = 20_000;
/// How long it may take until nothing is left of the attacker.
const AFTERMATH: Duration = Duration::from_secs(1200);

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const HONEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const ATTACKED_PORT: u16 = 80;
const HONEST_PORT: u16 = 81;

/// Flag bits.
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 0x10;

/// Kind of MPTCP's options.
const MPTCP: u8 = 30;

/// See the module documentation.
pub(super) struct Arena {
    pub(super) server: Host,
    client: Host,
    client_token: u32,
    /// What the attacked service's application does.
    pub(super) victim: Shared,
    honest_reader: Shared,
    honest_writer: Shared,
    to_client: Vec<(u16, Vec<u8>)>,
    /// What the server sent to others than the honest client, not looked at yet.
    pub(super) inbox: VecDeque<Segment>,
    pub(super) rng: StdRng,
    /// Of every segment of the attacker.
    pub(super) window: u16,
    in_burst: u32,
    next_port: u16,
    // --- measured ---
    pub(super) cpu: Duration,
    pub(super) packets: u64,
    pub(super) frames_max: u32,
    heap_start: i64,
    heap_max: i64,
}

/// CPU time of this thread.
fn cpu_now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, Duration::from)
}

fn service(name: &str, port: u16, backlog: u32, app: &Shared) -> Service<ScriptApp> {
    let app = app.clone();
    let listen = vec![SocketAddr::from((SERVER, port))];
    let make = Box::new(move || ScriptApp(app.clone()));
    Service::new(name, listen, backlog, make)
}

impl Arena {
    pub(super) fn new() -> Self {
        let mptcp = MptcpConfig {
            recv_buffer_frames: FRAMES_PER_CONNECTION,
            recv_buffer_bytes: BUFFER_BYTES,
            send_buffer_frames: FRAMES_PER_CONNECTION,
            send_buffer_bytes: BUFFER_BYTES,
            ..MptcpConfig::default()
        };
        let config = EngineConfig {
            mptcp,
            ..EngineConfig::default()
        };
        let mut server = Host::new(config.clone(), 1);
        let mut client = Host::new(config, 2);
        let (victim, honest_reader) = (Shared::default(), Shared::default());
        server.engine.set_services(vec![
            service("attacked", ATTACKED_PORT, BACKLOG, &victim),
            service("honest", HONEST_PORT, BACKLOG, &honest_reader),
        ]);
        let honest_writer = Shared::default();
        let path = SubflowPath {
            port: PortId(0),
            l2: L2Header {
                dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
                src: EthernetAddress([2, 0, 0, 0, 0, 2]),
                vlan: Default::default(),
            },
            tuple: FourTuple {
                local: SocketAddr::from((HONEST, 40_000)),
                remote: SocketAddr::from((SERVER, HONEST_PORT)),
            },
            mtu: 1500,
            local_id: AddressId(0),
            remote_id: AddressId(0),
            backup: false,
        };
        let app = ScriptApp(honest_writer.clone());
        let client_token = client
            .engine
            .connect(client.now, &Arc::from("honest"), path, app)
            .expect("a fresh engine has room");
        client.settle().expect("it rests");
        let mut arena = Self {
            server,
            client,
            client_token,
            victim,
            honest_reader,
            honest_writer,
            to_client: Vec::new(),
            inbox: VecDeque::new(),
            rng: StdRng::seed_from_u64(3),
            window: 65_535,
            in_burst: 0,
            next_port: 1024,
            cpu: Duration::ZERO,
            packets: 0,
            frames_max: 0,
            heap_start: 0,
            heap_max: 0,
        };
        for _ in 0..20 {
            arena.tick();
        }
        assert!(arena.honest_received() > 0, "the honest connection works");
        arena.heap_start = heap::live();
        (arena.heap_max, arena.frames_max) = (0, 0);
        arena
    }

    fn honest_received(&self) -> u64 {
        self.honest_reader.lock().received
    }

    /// A millisecond passes.
    pub(super) fn tick(&mut self) {
        self.in_burst = 0;
        let to_server: Vec<_> = self.client.sent.drain(..).collect();
        for (nic, frame) in std::mem::take(&mut self.to_client) {
            self.client.receive(nic, &frame).expect("room");
        }
        for sent in to_server {
            self.server.receive(sent.nic, &sent.frame).expect("room");
        }
        if !self.honest_writer.lock().finished {
            self.honest_writer.lock().write += HONEST_BYTES;
        }
        let now = self.client.now;
        self.client.engine.wake(now, self.client_token);
        self.client.settle().expect("it rests");
        self.pass(TICK);
    }

    /// Time passes; nothing arrives.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.server.now + time;
        while self.server.step(until).expect("it rests") {}
        while self.client.step(until).expect("it rests") {}
        while self.server.engine.pop_event().is_some() {}
        while self.client.engine.pop_event().is_some() {}
        self.collect();
    }

    /// Sorts what the server sent, and notes high-water marks.
    fn collect(&mut self) {
        for sent in self.server.sent.drain(..) {
            if sent.frame.get(30..34) == Some(&HONEST.octets()) {
                self.to_client.push((sent.nic, sent.frame));
            } else {
                let segment = Segment::decode(&sent.frame).expect("the engine's packets parse");
                if self.inbox.len() == INBOX_MAX {
                    self.inbox.pop_front();
                }
                self.inbox.push_back(segment);
            }
        }
        let held = self.server.frames_missing();
        self.frames_max = self.frames_max.max(held);
        self.heap_max = self.heap_max.max(heap::live() - self.heap_start);
        // As the worker does.
        self.server.engine.set_pressure(held > FRAMES / 8 * 7);
    }

    /// A packet of the attacker, timed.
    pub(super) fn hit(&mut self, frame: &[u8]) {
        let start = cpu_now();
        // A packet for which no frame is left is one that the NIC dropped.
        let _ = self.server.receive(0, frame);
        self.cpu += cpu_now() - start;
        self.packets += 1;
        self.collect();
        self.in_burst += 1;
        if self.in_burst >= BURST {
            self.tick();
        }
    }

    pub(super) fn send(&mut self, segment: &Segment) {
        let frame = segment.encode(false).expect("it fits");
        self.hit(&frame);
    }

    /// A new address of the attacker.
    pub(super) fn address(&mut self) -> SocketAddr {
        self.next_port = self.next_port.checked_add(1).unwrap_or(1024);
        SocketAddr::from(([10, 78, 0, 9], self.next_port))
    }

    /// The newest packet to `to`; older ones are forgotten.
    pub(super) fn answer(&mut self, to: SocketAddr) -> Option<Segment> {
        let found = self.inbox.iter().rposition(|s| s.dst == to);
        let segment = found.and_then(|i| self.inbox.remove(i));
        self.inbox.clear();
        segment
    }

    /// Connections of the attacked service.
    pub(super) fn attacked(&self) -> Vec<ConnInfo> {
        let now = self.server.now;
        let conns = self.server.engine.conns(now, 0, usize::MAX);
        conns
            .into_iter()
            .filter(|(name, _)| &**name == "attacked")
            .map(|(_, info)| info)
            .collect()
    }

    /// A segment to the attacked service.
    pub(super) fn bare(&self, src: SocketAddr, flags: u8, seq: u32, ack: u32) -> Segment {
        Segment {
            src,
            dst: SocketAddr::from((SERVER, ATTACKED_PORT)),
            seq,
            ack,
            flags,
            window: self.window,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// A segment that claims to come from the honest client.
    pub(super) fn forged(&self, flags: u8, seq: u32, ack: u32) -> Segment {
        Segment {
            src: SocketAddr::from((HONEST, 40_000)),
            dst: SocketAddr::from((SERVER, HONEST_PORT)),
            ..self.bare(SocketAddr::from((HONEST, 1)), flags, seq, ack)
        }
    }

    /// Opens a connection with MP_CAPABLE.
    pub(super) fn open(&mut self) -> Foe {
        let src = self.address();
        let mut syn = self.bare(src, SYN, 1000, 0);
        syn.options = vec![
            (2, vec![5, 0xb4]),
            (3, vec![0]),
            (4, vec![]),
            (MPTCP, vec![0x01, 0x01]),
        ];
        self.send(&syn);
        let answer = self.answer(src).expect("a SYN/ACK");
        let capable = answer.options.iter().find(|(kind, _)| *kind == MPTCP);
        let key = capable.and_then(|(_, body)| body.get(2..10));
        let key = key.expect("MP_CAPABLE with a key").try_into();
        let foe = Foe {
            src,
            seq: 1001,
            ack: answer.seq.wrapping_add(1),
            key: u64::from_be_bytes(key.expect("8 bytes")),
        };
        let keys = [FOE_KEY.to_be_bytes(), foe.key.to_be_bytes()].concat();
        let mut ack = foe.segment(self);
        ack.options = vec![(MPTCP, [&[0x01, 0x01][..], &keys].concat())];
        self.send(&ack);
        // A DATA_ACK shows that the path passes options.
        let mut ack = foe.segment(self);
        ack.options = vec![foe.data_ack(0)];
        self.send(&ack);
        self.inbox.clear();
        foe
    }

    /// Ends the honest connection and everything else; what has to hold then.
    pub(super) fn finish(mut self) -> Measured {
        self.honest_writer.lock().finished = true;
        let mut ticks = 0;
        while !self.honest_reader.lock().eof {
            self.tick();
            ticks += 1;
            assert!(ticks < PATIENCE_TICKS, "the honest connection stands still");
        }
        let written = self.honest_writer.lock().write;
        let reader = self.honest_reader.lock();
        assert_eq!((reader.received, reader.wrong_at), (written, None));
        drop(reader);
        let (frames_max, heap_max) = (self.frames_max, self.heap_max);
        let now = self.server.now;
        let counters = self.server.engine.counters().clone();
        self.server.engine.abort_all(now);
        self.server.settle().expect("it rests");
        self.pass(AFTERMATH);
        assert_eq!(self.server.engine.connections(), 0, "something lives on");
        assert_eq!(self.server.frames_missing(), 0, "frames are lost");
        Measured {
            packets: self.packets,
            cpu: self.cpu,
            frames_max,
            heap_max: u64::try_from(heap_max).unwrap_or(0),
            honest_bytes: written,
            counters,
        }
    }
}

/// What an attack did.
#[derive(Debug)]
pub struct Measured {
    /// Packets of the attacker.
    pub packets: u64,
    /// CPU time that they took.
    pub cpu: Duration,
    /// Most frames that were not free.
    pub frames_max: u32,
    /// Most heap bytes beyond those at the start.
    pub heap_max: u64,
    /// What the honest connection carried meanwhile.
    pub honest_bytes: u64,
    /// The server's counters at the end.
    pub counters: braid_dataplane::counters::Counters,
}

/// The attacker's key.
const FOE_KEY: u64 = 0x1112_1314_1516_1718;

/// A connection of the attacker.
#[derive(Clone, Debug)]
pub(super) struct Foe {
    pub(super) src: SocketAddr,
    /// Next sequence number.
    pub(super) seq: u32,
    /// What it acknowledges.
    pub(super) ack: u32,
    key: u64,
}

impl Foe {
    /// The server's token.
    pub(super) fn token(&self) -> u32 {
        keys::token(self.key)
    }

    pub(super) fn segment(&self, arena: &Arena) -> Segment {
        arena.bare(self.src, ACK, self.seq, self.ack)
    }

    /// A DSS with only a DATA_ACK.
    pub(super) fn data_ack(&self, off: u64) -> (u8, Vec<u8>) {
        let ack = keys::idsn(self.key).wrapping_add(1).wrapping_add(off);
        (MPTCP, [&[0x20, 0x03][..], &ack.to_be_bytes()].concat())
    }

    /// A DSS that maps `len` bytes at `ssn` of this subflow to the stream's byte `off`.
    pub(super) fn mapping(&self, off: u64, ssn: u32, len: u16, fin: bool) -> (u8, Vec<u8>) {
        let ack = keys::idsn(self.key).wrapping_add(1);
        let dsn = keys::idsn(FOE_KEY).wrapping_add(1).wrapping_add(off);
        let flags = 0x0f | if fin { 0x10 } else { 0 };
        let body = [
            &[0x20, flags][..],
            &ack.to_be_bytes(),
            &dsn.to_be_bytes(),
            &ssn.to_be_bytes(),
            &len.to_be_bytes(),
        ];
        (MPTCP, body.concat())
    }

    /// An option of MPTCP, by its body.
    pub(super) fn option(&self, body: &[u8]) -> (u8, Vec<u8>) {
        (MPTCP, body.to_vec())
    }

    /// ADD_ADDR with its HMAC, right or wrong.
    pub(super) fn add_addr(&self, id: u8, address: Ipv4Addr, genuine: bool) -> (u8, Vec<u8>) {
        let mut hmac = keys::add_addr(FOE_KEY, self.key, id, address.into(), 0);
        hmac[7] ^= u8::from(!genuine);
        let body = [&[0x30, id][..], &address.octets(), &hmac];
        (MPTCP, body.concat())
    }
}

/// A MP_JOIN SYN.
pub(super) fn join_syn(arena: &Arena, src: SocketAddr, token: u32) -> Segment {
    let mut syn = arena.bare(src, SYN, 500, 0);
    let body = [&[0x10, 2][..], &token.to_be_bytes(), &[1, 2, 3, 4]];
    syn.options = vec![(2, vec![5, 0xb4]), (MPTCP, body.concat())];
    syn
}

/// The third ACK of a MP_JOIN with an HMAC that nobody can know.
pub(super) fn join_ack(arena: &Arena, answer: &Segment, hmac: [u8; 20]) -> Segment {
    let mut ack = arena.bare(answer.dst, ACK, 501, answer.seq.wrapping_add(1));
    ack.options = vec![(MPTCP, [&[0x10, 0][..], &hmac].concat())];
    ack
}
