//! Two hosts with a connection each, joined by paths that lose, reorder, duplicate and
//! rewrite packets, all by seed, on a virtual clock.
//!
//! Packets are real frames: written through the subflows' templates, sent by memory ports
//! (so that frames are in flight until taken), parsed and checksum-verified on arrival.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::boxes::tcp;
use super::windows::RightEdges;
use crate::buf::{Chain, Frame, FramePool, Piece};
use crate::checksum::{Sum, copy_and_sum, sum};
use crate::counters::{Counter, Counters};
use crate::io::memory::{MemoryConfig, MemoryPort, Wire};
use crate::io::{Port, PortId, Tx};
use crate::mptcp::*;
use crate::offload::BurstShape;
use crate::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use crate::time::{Duration, Instant};
use crate::wire::ethernet::{EthernetAddress, VlanTags};
use crate::wire::mptcp::MptcpOption;
use crate::wire::packet::{ChecksumVerdict, Packet, TcpPacket, parse};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;
use crate::wire::types::{AddressId, FourTuple};

pub(super) const POOL_FRAMES: u32 = 8192;
const FRAME_BYTES: u32 = 2048;

/// Sends `to_send` pseudo-random bytes, keeps what it reads, finishes; or echoes.
#[derive(Clone, Debug)]
pub(super) struct TestApp {
    pub(super) seed: u8,
    pub(super) to_send: u64,
    pub(super) sent: u64,
    /// Keep the stream open after `to_send`.
    pub(super) hold: bool,
    pub(super) echo: bool,
    pub(super) abort: bool,
    /// Leave received bytes where they are.
    pub(super) stop_reading: bool,
    pub(super) received: Vec<u8>,
    pub(super) eof: bool,
    pub(super) established: u32,
    pub(super) closed: Option<CloseReason>,
    /// Largest single fill.
    pub(super) fill_max: usize,
}

pub(super) fn byte_at(seed: u8, n: u64) -> u8 {
    let mixed = (n ^ u64::from(seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[5]
}

impl TestApp {
    pub(super) fn sender(seed: u8, to_send: u64) -> Self {
        Self {
            seed,
            to_send,
            sent: 0,
            hold: false,
            echo: false,
            abort: false,
            stop_reading: false,
            received: Vec::new(),
            eof: false,
            established: 0,
            closed: None,
            fill_max: usize::MAX,
        }
    }

    pub(super) fn echo() -> Self {
        Self {
            echo: true,
            ..Self::sender(0, 0)
        }
    }
}

impl Application for TestApp {
    fn on_established(&mut self) {
        self.established += 1;
    }

    fn on_readable(&mut self, rx: &mut RecvStream) {
        if self.echo {
            self.eof |= rx.eof();
            return;
        }
        if self.stop_reading {
            return;
        }
        while !rx.is_empty() {
            let n = rx.peek().len();
            self.received.extend_from_slice(rx.peek());
            rx.consume(n);
        }
        self.eof |= rx.eof();
    }

    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        if self.echo {
            let n = rx.peek().len().min(out.len());
            let sum = copy_and_sum(&mut out[..n], &rx.peek()[..n]);
            rx.consume(n);
            self.sent += n as u64;
            self.eof |= rx.eof();
            return (n, sum);
        }
        let left = usize::try_from(self.to_send - self.sent).unwrap();
        let n = left.min(out.len()).min(self.fill_max);
        for (i, b) in out[..n].iter_mut().enumerate() {
            *b = byte_at(self.seed, self.sent + i as u64);
        }
        self.sent += n as u64;
        (n, sum(&out[..n]))
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        if self.abort {
            SendState::Abort
        } else if self.echo {
            match (rx.is_empty(), rx.eof()) {
                (false, _) => SendState::Ready,
                (true, true) => SendState::Finished,
                (true, false) => SendState::Idle,
            }
        } else if self.sent < self.to_send {
            SendState::Ready
        } else if self.hold {
            SendState::Idle
        } else {
            SendState::Finished
        }
    }

    fn backlog(&self, rx: &RecvStream) -> Option<u64> {
        Some(if self.echo {
            rx.len() as u64
        } else {
            self.to_send - self.sent
        })
    }

    fn on_closed(&mut self, reason: CloseReason) {
        assert!(self.closed.is_none(), "closed twice");
        self.closed = Some(reason);
    }
}

pub(super) struct Ports {
    pub(super) pool: FramePool,
    pub(super) ports: Vec<MemoryPort>,
    wires: Vec<Wire>,
}

impl TxSink for Ports {
    fn alloc(&mut self, _port: PortId) -> Option<Frame> {
        self.pool.alloc()
    }
    fn send(&mut self, port: PortId, frame: &Frame) -> Tx {
        self.ports[usize::from(port.0)].tx(&self.pool, frame)
    }
    fn segment_bytes(&self, port: PortId) -> u32 {
        self.ports[usize::from(port.0)].caps().tx_segment_bytes
    }
    fn send_burst<'f>(
        &mut self,
        port: PortId,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        self.ports[usize::from(port.0)].tx_burst(&self.pool, shape, frames)
    }
    fn room(&self, port: PortId) -> u32 {
        let port = &self.ports[usize::from(port.0)];
        if port.stats().carrier {
            port.tx_free()
        } else {
            u32::MAX
        }
    }
    fn shares_frames(&self, _a: PortId, _b: PortId) -> bool {
        true
    }
}

pub(super) struct Host {
    pub(super) conn: Option<Connection<TestApp>>,
    pub(super) app_template: Option<TestApp>,
    pub(super) sink: Ports,
    flows: HashMap<FourTuple, SubflowId>,
    pub(super) actions: Actions,
    pub(super) events: Vec<Event>,
    pub(super) config: MptcpConfig,
    secrets: Secrets,
    rng: StdRng,
    pub(super) counters: Counters,
    pub(super) windows: WindowLedger,
    pub(super) removed_with_time_wait: u32,
    pub(super) join_rejected: Vec<JoinReject>,
    /// What `info` said before the connection was freed.
    last_info: Option<ConnInfo>,
}

impl Host {
    pub(super) fn cx<R>(
        &mut self,
        now: Instant,
        run: impl FnOnce(&mut Connection<TestApp>, &mut Cx<'_>) -> R,
    ) -> R {
        let mut cx = Cx {
            now,
            rng: &mut self.rng,
            counters: &mut self.counters,
            actions: &mut self.actions,
            config: &self.config,
            secrets: &self.secrets,
            worker: WorkerShare::SOLE,
            windows: &mut self.windows,
        };
        let result = run(self.conn.as_mut().unwrap(), &mut cx);
        self.drain();
        result
    }

    fn drain(&mut self) {
        for change in self.actions.flows.drain(..) {
            match change {
                FlowChange::Add(tuple, id) => {
                    assert!(
                        self.flows.insert(tuple, id).is_none(),
                        "{tuple} added twice"
                    );
                }
                FlowChange::Remove(tuple, wait) => {
                    assert!(self.flows.remove(&tuple).is_some(), "{tuple} is unknown");
                    self.removed_with_time_wait += u32::from(wait.is_some());
                }
            }
        }
        self.events.append(&mut self.actions.events);
    }

    pub(super) fn app(&mut self) -> &mut TestApp {
        self.conn.as_mut().unwrap().app_mut()
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }

    pub(super) fn info(&self, now: Instant) -> ConnInfo {
        match &self.conn {
            Some(conn) => conn.info(now),
            None => self.last_info.clone().unwrap(),
        }
    }
}

/// What a path does to packets.
#[derive(Clone, Debug)]
pub(super) struct PathConfig {
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) v6: bool,
    pub(super) mtu: u32,
    /// Bytes per second; 0 is unlimited.
    pub(super) rate: u64,
}

impl Default for PathConfig {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            v6: false,
            mtu: 1500,
            rate: 0,
        }
    }
}

/// A packet on its way.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Instant,
    number: u64,
    to: usize,
    path: usize,
    bytes: Vec<u8>,
}

/// What a middlebox sees. It may change `bytes`, or drop the packet by returning false.
pub(super) struct Passing<'a> {
    pub(super) from: usize,
    pub(super) path: usize,
    pub(super) bytes: &'a mut Vec<u8>,
}

pub(super) type Middlebox = Box<dyn FnMut(&mut Passing<'_>) -> bool>;

/// Turns one packet into any number of packets, direction-blind.
pub(super) type Rewriter = Box<dyn FnMut(Vec<u8>) -> Vec<Vec<u8>>>;

pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) hosts: [Host; 2],
    pub(super) paths: Vec<PathConfig>,
    /// Path carries nothing, silently.
    pub(super) blackhole: Vec<bool>,
    pub(super) middlebox: Option<Middlebox>,
    pub(super) rewriter: Option<Rewriter>,
    flying: BinaryHeap<Reverse<Flying>>,
    number: u64,
    rng: StdRng,
    line_free: HashMap<(usize, usize), Instant>,
    pub(super) passed: u64,
    /// Every packet that any test makes either host send passes here.
    edges: RightEdges,
}

pub(super) fn address(host: usize, path: usize, v6: bool, port: u16) -> SocketAddr {
    let (h, p) = (u8::try_from(host).unwrap() + 1, u8::try_from(path).unwrap());
    if v6 {
        SocketAddr::from(([0xfd00, u16::from(p), 0, 0, 0, 0, 0, u16::from(h)], port))
    } else {
        SocketAddr::from(([10, 77, p, h], port))
    }
}

pub(super) const SERVER_PORT: u16 = 7;
pub(super) const CLIENT_PORT: u16 = 40_000;

impl Net {
    pub(super) fn new(seed: u64, paths: Vec<PathConfig>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Whether a port segments must not be seen on the wire.
        let host = |rng: &mut StdRng, bit| Self::host(rng, paths.len(), seed & bit != 0);
        Self {
            now: Instant::from_millis(1_000_000),
            hosts: [host(&mut rng, 1), host(&mut rng, 2)],
            blackhole: vec![false; paths.len()],
            paths,
            middlebox: None,
            rewriter: None,
            flying: BinaryHeap::new(),
            number: 0,
            rng,
            line_free: HashMap::new(),
            passed: 0,
            edges: RightEdges::default(),
        }
    }

    fn host(rng: &mut StdRng, paths: usize, segments: bool) -> Host {
        let pool = FramePool::heap(POOL_FRAMES, FRAME_BYTES);
        assert!(pool.adopt());
        let config = MemoryConfig {
            tx_ring: 256,
            packet_bytes: 2048,
            mtu: 1500,
            tx_segment_bytes: if segments { 65_535 } else { 0 },
        };
        let (ports, wires) = (0..paths).map(|_| MemoryPort::detached(config)).unzip();
        let config = MptcpConfig {
            // Windows of one size, unless a test is about their growth.
            recv_buffer_initial: 256 << 10,
            recv_buffer_bytes: 256 << 10,
            send_buffer_bytes: 512 << 10,
            send_buffer_frames: 2048,
            ..MptcpConfig::default()
        };
        Host {
            conn: None,
            app_template: None,
            sink: Ports { pool, ports, wires },
            flows: HashMap::new(),
            actions: Actions::new(),
            events: Vec::new(),
            config,
            secrets: Secrets::draw(rng),
            rng: StdRng::seed_from_u64(rng.next_u64()),
            counters: Counters::new(),
            windows: WindowLedger::new(POOL_FRAMES / 2),
            removed_with_time_wait: 0,
            join_rejected: Vec::new(),
            last_info: None,
        }
    }

    pub(super) fn path_of(
        &self,
        host: usize,
        path: usize,
        local_port: u16,
        remote_port: u16,
    ) -> SubflowPath {
        let p = &self.paths[path];
        SubflowPath {
            port: PortId(u16::try_from(path).unwrap()),
            l2: L2Header {
                dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
                src: EthernetAddress([2, 0, 0, 0, 0, 2]),
                vlan: VlanTags::NONE,
            },
            tuple: FourTuple {
                local: address(host, path, p.v6, local_port),
                remote: address(1 - host, path, p.v6, remote_port),
            },
            mtu: p.mtu,
            local_id: AddressId(u8::try_from(path).unwrap()),
            remote_id: AddressId(u8::try_from(path).unwrap()),
            backup: false,
        }
    }

    /// From now on connections are of this version.
    pub(super) fn speak(&mut self, version: Version) {
        self.hosts[CLIENT].config.connect_version = version;
        self.hosts[SERVER].config.allow_v0 = version == Version::V0;
    }

    /// Client connects, server will accept; each with its application.
    pub(super) fn start(&mut self, client: TestApp, server: TestApp) {
        let path = self.path_of(CLIENT, 0, CLIENT_PORT, SERVER_PORT);
        let now = self.now;
        let h = &mut self.hosts[CLIENT];
        let mut cx = Cx {
            now,
            rng: &mut h.rng,
            counters: &mut h.counters,
            actions: &mut h.actions,
            config: &h.config,
            secrets: &h.secrets,
            worker: WorkerShare::SOLE,
            windows: &mut h.windows,
        };
        h.conn = Some(Connection::connect(&mut cx, path, client, |_| false).unwrap());
        h.drain();
        self.hosts[SERVER].app_template = Some(server);
        self.poll(CLIENT);
    }

    /// The client joins over another path.
    pub(super) fn join(&mut self, path: usize) -> Result<SubflowId, OpenError> {
        self.join_with(path, |_| {})
    }

    pub(super) fn join_with(
        &mut self,
        path: usize,
        change: impl FnOnce(&mut SubflowPath),
    ) -> Result<SubflowId, OpenError> {
        let local_port = CLIENT_PORT + 100 + u16::try_from(self.number % 1000).unwrap();
        let mut p = self.path_of(CLIENT, path, local_port, SERVER_PORT);
        change(&mut p);
        let now = self.now;
        let result = self.hosts[CLIENT].cx(now, |conn, cx| conn.open_subflow(cx, p));
        self.poll(CLIENT);
        result
    }

    pub(super) fn with<R>(
        &mut self,
        host: usize,
        run: impl FnOnce(&mut Connection<TestApp>, &mut Cx<'_>) -> R,
    ) -> R {
        let now = self.now;
        let result = self.hosts[host].cx(now, run);
        self.poll(host);
        result
    }

    pub(super) fn poll(&mut self, host: usize) {
        let now = self.now;
        for _ in 0..10_000 {
            let h = &mut self.hosts[host];
            let Some(conn) = h.conn.as_mut() else {
                return;
            };
            let mut cx = Cx {
                now,
                rng: &mut h.rng,
                counters: &mut h.counters,
                actions: &mut h.actions,
                config: &h.config,
                secrets: &h.secrets,
                worker: WorkerShare::SOLE,
                windows: &mut h.windows,
            };
            let progress = conn.poll(&mut cx, &mut h.sink);
            h.drain();
            self.collect(host);
            if progress == Progress::Done {
                return;
            }
        }
        panic!(
            "poll does not come to an end: {:?}",
            self.hosts[host].counters
        );
    }

    /// Takes transmitted packets onto the paths.
    fn collect(&mut self, host: usize) {
        for path in 0..self.paths.len() {
            loop {
                // Some frames stay in the ring until the next turn.
                if self.rng.random_bool(0.02) {
                    break;
                }
                let Some(bytes) = self.hosts[host].sink.wires[path].take_transmitted() else {
                    break;
                };
                self.send(host, path, bytes);
            }
            let h = &mut self.hosts[host];
            h.sink.ports[path].complete(&h.sink.pool);
        }
    }

    /// Takes a packet off a ring.
    fn send(&mut self, from: usize, path: usize, mut bytes: Vec<u8>) {
        self.edges.observe(&tcp(&bytes));
        if self.blackhole[path] {
            return;
        }
        if let Some(middlebox) = &mut self.middlebox {
            let mut passing = Passing {
                from,
                path,
                bytes: &mut bytes,
            };
            if !middlebox(&mut passing) {
                return;
            }
        }
        match self.rewriter.as_mut().map(|r| r(bytes.clone())) {
            Some(packets) => {
                for packet in packets {
                    // A held packet may come out while the other side sends.
                    let tuple = super::boxes::tcp(&packet).tuple;
                    let to_server = tuple.local.port() == SERVER_PORT;
                    let from = if to_server { CLIENT } else { SERVER };
                    self.launch(from, path, packet);
                }
            }
            None => self.launch(from, path, bytes),
        }
    }

    /// Puts a packet onto the path.
    fn launch(&mut self, from: usize, path: usize, bytes: Vec<u8>) {
        let config = self.paths[path].clone();
        if self.rng.random_bool(config.loss) {
            return;
        }
        let copies = 1 + u64::from(self.rng.random_bool(config.duplicate));
        for _ in 0..copies {
            let mut at = self.now + config.delay;
            let wire_time = (bytes.len() as u64 * 1_000_000_000).checked_div(config.rate);
            if let Some(ns) = wire_time {
                let free = self.line_free.entry((from, path)).or_insert(self.now);
                let start = (*free).max(self.now);
                *free = start + Duration::from_nanos(ns);
                at = *free + config.delay;
            }
            if !config.jitter.is_zero() {
                let ns = u64::try_from(config.jitter.as_nanos()).unwrap();
                at += Duration::from_nanos(self.rng.random_range(0..ns));
            }
            self.number += 1;
            self.passed += 1;
            self.flying.push(Reverse(Flying {
                at,
                number: self.number,
                to: 1 - from,
                path,
                bytes: bytes.clone(),
            }));
        }
    }

    /// Puts a forged packet in front of a host.
    pub(super) fn inject(&mut self, to: usize, path: usize, bytes: Vec<u8>) {
        self.deliver(to, path, &bytes);
        self.poll(to);
    }

    /// A forged segment to a host's first subflow.
    pub(super) fn forge(&mut self, to: usize, flags: Flags, seq: u32, ack: u32) {
        let core = &self.hosts[to].conn.as_ref().unwrap().core;
        let path = &core.subflows[0].path;
        let (l2, tuple, port) = (path.l2, path.tuple.reversed(), usize::from(path.port.0));
        let template = HeaderTemplate::new(l2, &tuple, 0, 64).unwrap();
        let header = TcpHeaderOut {
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags,
            window: 1000,
            urgent: 0,
            ecn: 0,
        };
        let mut bytes = vec![0; template.header_len(0)];
        template.emit(&mut bytes, &header, &OptionsBuf::new(), 0, Sum::ZERO);
        self.inject(to, port, bytes);
    }

    fn deliver(&mut self, to: usize, path: usize, bytes: &[u8]) {
        let packet = match parse(bytes) {
            Ok(Packet::Tcp(packet)) => packet,
            other => panic!("not TCP: {other:?}"),
        };
        let now = self.now;
        let h = &mut self.hosts[to];
        let payload_sum = sum(&bytes[packet.payload.clone()]);
        if packet.verify_checksum(bytes, payload_sum) != ChecksumVerdict::Valid {
            panic!("bad TCP checksum");
        }
        let Some(mut frame) = h.sink.pool.alloc() else {
            return;
        };
        frame.buffer_mut().unwrap()[..bytes.len()].copy_from_slice(bytes);
        frame.set_len(bytes.len());
        let mut chain = Chain::new();
        chain.push(Piece::from_frame(
            frame,
            packet.payload.clone(),
            Some(payload_sum),
        ));
        if let Some(id) = h.flows.get(&packet.tuple).copied() {
            h.cx(now, |conn, cx| conn.on_packet(cx, id, &packet, chain));
            return;
        }
        drop(chain);
        if packet.flags.contains(Flags::SYN) && !packet.flags.contains(Flags::ACK) {
            self.accept(to, path, &packet);
        }
    }

    fn accept(&mut self, to: usize, path: usize, packet: &TcpPacket) {
        let now = self.now;
        let mut sub = self.path_of(to, path, 1, 1);
        sub.tuple = packet.tuple;
        // As the engine has it: the connection knows its addresses.
        sub.local_id = AddressId(0);
        sub.remote_id = AddressId(0);
        let h = &mut self.hosts[to];
        let join = |o: &MptcpOption| matches!(o, MptcpOption::MpJoinSyn { .. });
        if packet.options.mptcp.iter().any(join) {
            if h.conn.is_some() {
                let accepted = h.cx(now, |conn, cx| conn.accept_join(cx, sub, packet));
                if let Err(reject) = accepted {
                    h.join_rejected.push(reject);
                }
            }
            return;
        }
        let Some(app) = h.app_template.take() else {
            return;
        };
        let mut cx = Cx {
            now,
            rng: &mut h.rng,
            counters: &mut h.counters,
            actions: &mut h.actions,
            config: &h.config,
            secrets: &h.secrets,
            worker: WorkerShare::SOLE,
            windows: &mut h.windows,
        };
        match Connection::accept(&mut cx, sub, packet, app.clone(), |_| false) {
            Ok(conn) => h.conn = Some(conn),
            Err(error) => {
                assert_eq!(error, OpenError::SynIgnored);
                h.app_template = Some(app);
            }
        }
        h.drain();
    }

    fn next_deadline(&self, host: usize) -> Option<Instant> {
        self.hosts[host].conn.as_ref()?.next_deadline()
    }

    /// One step: the next arrival or deadline. False if nothing is left to happen.
    pub(super) fn step(&mut self) -> bool {
        let arrival = self.flying.peek().map(|Reverse(f)| f.at);
        let next = [
            arrival,
            self.next_deadline(CLIENT),
            self.next_deadline(SERVER),
        ]
        .into_iter()
        .flatten()
        .min();
        let Some(next) = next else {
            return false;
        };
        self.now = self.now.max(next);
        let now = self.now;
        // A batch, as a worker would see it.
        let mut touched = [false; 2];
        while self.flying.peek().is_some_and(|Reverse(f)| f.at <= now) {
            let Some(Reverse(f)) = self.flying.pop() else {
                break;
            };
            self.deliver(f.to, f.path, &f.bytes);
            touched[f.to] = true;
        }
        for host in [CLIENT, SERVER] {
            if self.next_deadline(host).is_some_and(|at| at <= now) {
                self.hosts[host].cx(now, |conn, cx| conn.on_timer(cx));
                touched[host] = true;
            }
            if touched[host] {
                self.poll(host);
                if self.next_deadline(host).is_some_and(|at| at <= now) {
                    let core = &self.hosts[host].conn.as_ref().unwrap().core;
                    let tcps: Vec<_> = core
                        .subflows
                        .iter()
                        .map(|s| (s.id, s.phase, s.tcp.next_deadline(), &s.tcp))
                        .collect();
                    panic!(
                        "a deadline stays due at {now:?}: data {:?} close {:?} subflows {tcps:#?}",
                        core.data_rto, core.closing
                    );
                }
            }
        }
        // What stayed in the rings leaves in the end.
        for host in [CLIENT, SERVER] {
            self.collect(host);
        }
        true
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until_time(end, |_| false);
        self.now = self.now.max(end);
    }

    fn run_until_time(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for _ in 0..5_000_000u32 {
            if done(self) {
                return true;
            }
            let arrival = self.flying.peek().map(|Reverse(f)| f.at);
            let next = [
                arrival,
                self.next_deadline(CLIENT),
                self.next_deadline(SERVER),
            ]
            .into_iter()
            .flatten()
            .min();
            if next.is_none_or(|at| at > end) {
                for host in [CLIENT, SERVER] {
                    self.collect(host);
                }
                return done(self);
            }
            self.step();
        }
        panic!("too many steps");
    }

    /// Runs until `done`, at most `limit` of virtual time.
    pub(super) fn run_until(&mut self, limit: Duration, done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + limit;
        if !self.run_until_time(end, done) {
            panic!("not done in {limit:?}: {}", self.describe());
        }
    }

    pub(super) fn describe(&self) -> String {
        let mut out = String::new();
        for (name, h) in ["client", "server"].iter().zip(&self.hosts) {
            out += &format!("\n{name}: {:?}\n  events {:?}", h.counters, h.events);
            if let Some(conn) = &h.conn {
                out += &format!(
                    "\n  sent {} received {} {:#?}",
                    conn.app().sent,
                    conn.app().received.len(),
                    conn.info(self.now)
                );
            }
        }
        out
    }

    pub(super) fn established(&mut self) {
        self.run_until(Duration::from_secs(30), |net| {
            net.hosts
                .iter()
                .all(|h| h.conn.as_ref().is_some_and(|c| c.app().established == 1))
        });
    }

    /// Runs to the end of both connections.
    pub(super) fn finish(&mut self, limit: Duration) {
        self.run_until(limit, |net| {
            net.hosts
                .iter()
                .all(|h| h.conn.as_ref().is_some_and(Connection::is_finished))
        });
    }

    /// Both streams arrived intact, whatever each application was.
    pub(super) fn check_streams(&mut self) {
        for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            let (seed, sent, echo) = {
                let app = self.hosts[from].app();
                (app.seed, app.sent, app.echo)
            };
            let source = if echo {
                self.hosts[to].app().seed
            } else {
                seed
            };
            let reader = self.hosts[to].app();
            if reader.echo {
                continue;
            }
            assert_eq!(reader.received.len() as u64, sent, "{}", self.describe());
            let reader = self.hosts[to].app();
            let wrong = (0u64..)
                .zip(&reader.received)
                .find(|(n, b)| **b != byte_at(source, *n));
            assert!(wrong.is_none(), "byte {wrong:?} differs");
            assert!(reader.eof, "end of stream is missing: {}", self.describe());
        }
    }

    /// Every frame is back in its pool.
    pub(super) fn check_frames(&mut self) {
        self.flying.clear();
        for host in [CLIENT, SERVER] {
            let h = &mut self.hosts[host];
            h.last_info = h.conn.take().map(|conn| conn.info(self.now));
            for (port, wire) in h.sink.ports.iter_mut().zip(&mut h.sink.wires) {
                while wire.take_transmitted().is_some() {}
                port.complete(&h.sink.pool);
            }
            h.sink.pool.collect_returned();
            let frames = h.sink.pool.accounting();
            assert_eq!(frames.free, POOL_FRAMES, "{frames:?}");
            assert_eq!(frames.leaked, 0);
        }
    }

    pub(super) fn complete(&mut self, limit: Duration) {
        self.finish(limit);
        self.check_streams();
        for host in [CLIENT, SERVER] {
            let closed = self.hosts[host].app().closed;
            assert_eq!(closed, Some(CloseReason::Finished), "{}", self.describe());
            assert!(self.hosts[host].flows.is_empty());
        }
        self.check_frames();
    }
}
