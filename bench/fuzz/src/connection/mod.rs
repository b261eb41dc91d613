//! One connection on up to four subflows, fed arbitrary segments by a peer that knows the keys.
//!
//! The handshake is a real one, so that what follows is reached: in both roles, in both
//! versions, with and without DSS checksums. Keys, HMACs, data sequence numbers and checksums
//! are right most of the time and wrong when the input says so. Checked throughout:
//!
//! - the application reads the peer's stream: each byte is a function of its data sequence
//!   number. With honest mappings (one place of a subflow has one place in the stream) that
//!   holds until the connection becomes plain TCP; with contradicting ones it cannot;
//! - every packet sent is one: it parses, its checksums are right, its mapping says where its
//!   bytes stand in the application's stream, it fits the window the peer offered;
//! - DATA_ACKs and right edges never go back, and nothing is acknowledged that was not sent;
//! - HMACs of joins are right; keys come back unaltered;
//! - flows are added and removed once; no deadline stays due;
//! - when the input ends and nothing more arrives, a closing connection ends in bounded time;
//! - every frame comes home.

mod keys;
mod operations;
mod peer;
mod stream;

use std::net::SocketAddr;

use braid_dataplane::buf::{Chain, FramePool, Piece};
use braid_dataplane::checksum::Sum;
use braid_dataplane::counters::Counters;
use braid_dataplane::io::PortId;
use braid_dataplane::mptcp::{
    Actions, ChecksumPolicy, Connection, Cx, FlowChange, MptcpConfig, Progress, SchedulerKind,
    Secrets, SubflowPath, Version, WindowLedger, WorkerShare,
};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::tcp::{CongestionKind, TcpConfig};
use braid_dataplane::time::{Duration, Instant};
use braid_dataplane::wire::ethernet::{EthernetAddress, VlanTags};
use braid_dataplane::wire::mptcp::MptcpOption;
use braid_dataplane::wire::packet::{EthernetPair, TcpPacket};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::{TcpOptions, Timestamps};
use braid_dataplane::wire::types::{AddressId, DataSeq, FourTuple};
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::peer::{PEER_SHIFT, PEERS_MAX, Peer, World};
use self::stream::App;
use crate::bytes::Bytes;

const POOL_FRAMES: u32 = 512;
const OPERATIONS_MAX: u32 = 150;
/// Timer steps after which a connection that nobody answers must be over.
const SILENT_STEPS_MAX: u32 = 3000;
/// How long that may take: the close timeout, and what an abort takes.
const SILENCE_MAX: Duration = Duration::from_secs(600);
const PAYLOAD_MAX: usize = 1440;
/// A port with less room than that counts as full: some is kept back for control segments.
const ROOM_LOW: u32 = 32;
/// Nothing limits a port.
const ROOM: u32 = 1 << 20;

std::thread_local! {
    static POOL: FramePool = {
        let pool = FramePool::heap(POOL_FRAMES, 2048);
        assert!(pool.adopt());
        pool
    };
}

/// One run.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    POOL.with(|pool| {
        let mut fuzz = Fuzz::new(pool, Bytes::new(data));
        fuzz.play();
        fuzz.silence();
        drop(fuzz);
        assert_eq!(pool.available(), POOL_FRAMES, "frames are missing");
    });
}

struct Fuzz<'a> {
    input: Bytes<'a>,
    conn: Connection<App>,
    world: World<'a>,
    now: Instant,
    config: MptcpConfig,
    secrets: Secrets,
    windows: WindowLedger,
    rng: StdRng,
    counters: Counters,
    actions: Actions,
    /// Mappings never contradict each other.
    honest: bool,
    /// On the first subflow, places of the subflow and of the stream are the same: that holds
    /// for plain TCP, too.
    linear: bool,
    /// Ports in use: each subflow has a new one.
    ports: u16,
    wide: bool,
}

/// What the first bytes choose.
struct Choice {
    server: bool,
    version: Version,
    checksum: ChecksumPolicy,
    peer_wants_checksum: bool,
    honest: bool,
    timestamps: bool,
    sack: bool,
    scale: bool,
}

fn choose(input: &mut Bytes<'_>) -> (Choice, MptcpConfig) {
    let (a, b) = (input.u8(), input.u8());
    let bit = |n: u8| a & 1 << n != 0;
    let version = if bit(1) { Version::V0 } else { Version::V1 };
    let choice = Choice {
        server: bit(0),
        version,
        checksum: [
            ChecksumPolicy::IfRequested,
            ChecksumPolicy::Always,
            ChecksumPolicy::Never,
        ][usize::from(b % 3)],
        peer_wants_checksum: bit(2),
        honest: !bit(3),
        timestamps: bit(4),
        sack: !bit(5),
        scale: !bit(6),
    };
    let config = MptcpConfig {
        checksum: choice.checksum,
        allow_v0: version == Version::V0,
        connect_version: version,
        scheduler: SchedulerKind::ALL[usize::from(b >> 2) % SchedulerKind::ALL.len()],
        recv_buffer_bytes: if bit(7) { 8192 } else { 65_536 },
        recv_buffer_frames: 128,
        send_buffer_bytes: 32_768,
        send_buffer_frames: 64,
        subflows_max: 3,
        remote_addresses_max: 3,
        deny_join_initial: b & 0x20 != 0,
        tcp: TcpConfig {
            timestamps: choice.timestamps,
            sack: choice.sack,
            segments_max: 64,
            pacing: b & 0x40 != 0,
            congestion: if b & 0x80 != 0 {
                CongestionKind::Lia
            } else {
                CongestionKind::Cubic
            },
            ..TcpConfig::default()
        },
        ..MptcpConfig::default()
    };
    (choice, config)
}

fn tuple(path: u8, local_port: u16, remote_port: u16) -> FourTuple {
    FourTuple {
        local: SocketAddr::from(([10, 77, path, 1], local_port)),
        remote: SocketAddr::from(([10, 77, path, 2], remote_port)),
    }
}

fn l2() -> L2Header {
    L2Header {
        dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
        src: EthernetAddress([2, 0, 0, 0, 0, 2]),
        vlan: VlanTags::NONE,
    }
}

fn subflow_path(path: u8, tuple: FourTuple, backup: bool) -> SubflowPath {
    SubflowPath {
        port: PortId(path.into()),
        l2: l2(),
        tuple,
        mtu: 1500,
        local_id: AddressId(path),
        remote_id: AddressId(path),
        backup,
    }
}

impl<'a> Fuzz<'a> {
    fn new(pool: &'a FramePool, mut input: Bytes<'a>) -> Self {
        let (choice, config) = choose(&mut input);
        let now = Instant::from_millis(1_000_000);
        let mut rng = StdRng::seed_from_u64(1);
        let secrets = Secrets::draw(&mut rng);
        let mut windows = WindowLedger::new(128);
        let (mut counters, mut actions) = (Counters::default(), Actions::new());
        let version = choice.version.number();
        let key = 0x0102_0304_0506_0708;
        let (token, idsn) = keys::derive(version, key);
        let start = DataSeq(idsn) + 1;
        let refused = choice.checksum == ChecksumPolicy::Never && choice.peer_wants_checksum;
        let mut world = World {
            pool,
            peers: Vec::with_capacity(PEERS_MAX),
            version,
            key,
            token,
            start,
            remote_key: None,
            remote_token: 0,
            remote_start: DataSeq(0),
            sent_to: start,
            data_ack: None,
            data_end: 0,
            data_fin: false,
            plain: refused,
            checksum: choice.peer_wants_checksum || choice.checksum == ChecksumPolicy::Always,
            room: ROOM,
            no_carrier: 0,
            packets: 0,
        };
        let ends = if choice.server {
            tuple(0, 7, 40_000)
        } else {
            tuple(0, 40_000, 7)
        };
        world
            .peers
            .push(Peer::new(ends, choice.server, 0xffff_f800, 1));
        let path = subflow_path(0, ends, false);
        let mut cx = Cx {
            now,
            rng: &mut rng,
            counters: &mut counters,
            actions: &mut actions,
            config: &config,
            secrets: &secrets,
            worker: WorkerShare::SOLE,
            windows: &mut windows,
        };
        let app = App::default();
        let syn = choice.server.then(|| {
            let options = Self::syn_options(&choice, now, Self::capable(&world, &choice, true));
            world.peers[0].told = None;
            packet(
                &world.peers[0],
                Flags::SYN,
                world.peers[0].isn,
                SeqNumber(0),
                0xffff,
                options,
                0,
            )
        });
        let conn = match &syn {
            Some(syn) => Connection::accept(&mut cx, path, syn, app, |_| false),
            None => Connection::connect(&mut cx, path, app, |_| false),
        };
        let mut fuzz = Self {
            input,
            conn: conn.expect("one family, an acceptable SYN"),
            world,
            now,
            config,
            secrets,
            windows,
            rng,
            counters,
            actions,
            honest: choice.honest,
            linear: choice.honest,
            ports: 0,
            wide: false,
        };
        fuzz.drain();
        fuzz.poll();
        fuzz.handshake(&choice);
        fuzz
    }

    /// The peer's MP_CAPABLE.
    fn capable(world: &World<'_>, choice: &Choice, syn: bool) -> MptcpOption {
        let mut flags = braid_dataplane::wire::mptcp::MpCapableFlags::HMAC_SHA256;
        if choice.peer_wants_checksum {
            flags = flags | braid_dataplane::wire::mptcp::MpCapableFlags::CHECKSUM;
        }
        let key = braid_dataplane::wire::types::Key(world.key);
        MptcpOption::MpCapable {
            version: world.version,
            flags,
            sender_key: (!syn || world.version == 0).then_some(key),
            receiver_key: None,
            data_len: None,
            checksum: None,
        }
    }

    fn syn_options(choice: &Choice, now: Instant, option: MptcpOption) -> TcpOptions {
        let mut options = TcpOptions {
            mss: Some(1460),
            window_scale: choice.scale.then_some(PEER_SHIFT),
            sack_permitted: choice.sack,
            timestamps: choice.timestamps.then(|| Timestamps {
                tsval: now.as_millis() as u32,
                tsecr: 0,
            }),
            ..TcpOptions::default()
        };
        options.mptcp.push(option);
        options
    }

    /// The rest of a well-behaved handshake of the first subflow.
    fn handshake(&mut self, choice: &Choice) {
        let spoil = self.input.u8();
        self.world.peers[0].scaled = choice.scale;
        let (isn, ack) = (self.world.peers[0].isn, self.world.peers[0].received);
        if choice.server {
            let mut options = self.plain_options(0);
            let option = match Self::capable(&self.world, choice, false) {
                MptcpOption::MpCapable {
                    version,
                    flags,
                    sender_key,
                    ..
                } => MptcpOption::MpCapable {
                    version,
                    flags,
                    sender_key,
                    receiver_key: self.world.remote_key.map(braid_dataplane::wire::types::Key),
                    data_len: None,
                    checksum: None,
                },
                other => other,
            };
            if spoil & 0x0f != 0x0f {
                options.mptcp.push(option);
            } else {
                self.fall();
            }
            self.deliver(0, Flags::ACK, isn + 1, ack, 0x0fff, options, 0);
        } else {
            let option = Self::capable(&self.world, choice, false);
            let mut options = Self::syn_options(choice, self.now, option);
            if let Some(ts) = &mut options.timestamps {
                ts.tsecr = self.world.peers[0].tsecr.unwrap_or(0);
            }
            if spoil & 0x0f == 0x0f {
                options.mptcp = Default::default();
                self.fall();
            }
            self.deliver(0, Flags::SYN | Flags::ACK, isn, ack, 0xffff, options, 0);
            // Any DATA_ACK proves that the third ACK with the keys has arrived.
            self.poll();
            if !self.world.plain {
                let mut options = self.plain_options(0);
                options.mptcp.push(self.data_ack_option(0));
                let (isn, ack) = (self.world.peers[0].isn, self.world.peers[0].received);
                self.deliver(0, Flags::ACK, isn + 1, ack, 0x0fff, options, 0);
            }
        }
        self.poll();
        self.check();
    }

    /// The connection may be plain TCP from now on.
    fn fall(&mut self) {
        self.world.plain = true;
    }

    fn play(&mut self) {
        for _ in 0..OPERATIONS_MAX {
            if self.input.is_empty() || self.conn.is_finished() {
                return;
            }
            let operation = self.input.u8();
            self.operation(operation & 0x0f, operation >> 4);
            self.drain();
            self.poll();
            self.check();
        }
    }

    fn cx<R>(&mut self, call: impl FnOnce(&mut Connection<App>, &mut Cx<'_>) -> R) -> R {
        let mut cx = Cx {
            now: self.now,
            rng: &mut self.rng,
            counters: &mut self.counters,
            actions: &mut self.actions,
            config: &self.config,
            secrets: &self.secrets,
            worker: WorkerShare::SOLE,
            windows: &mut self.windows,
        };
        call(&mut self.conn, &mut cx)
    }

    fn poll(&mut self) {
        // What has to be known before a packet is looked at.
        self.world.plain |= !self.conn.is_mptcp();
        for _ in 0..1000 {
            let mut cx = Cx {
                now: self.now,
                rng: &mut self.rng,
                counters: &mut self.counters,
                actions: &mut self.actions,
                config: &self.config,
                secrets: &self.secrets,
                worker: WorkerShare::SOLE,
                windows: &mut self.windows,
            };
            let progress = self.conn.poll(&mut cx, &mut self.world);
            self.drain();
            if progress == Progress::Done || self.world.room < ROOM_LOW {
                return;
            }
        }
        panic!(
            "poll wants more without end, with room for {}, {} frames: {:#?}",
            self.world.room,
            self.world.pool.available(),
            self.conn.info(self.now)
        );
    }

    /// Flow changes and events.
    fn drain(&mut self) {
        self.actions.events.clear();
        self.actions.fast_open = None;
        for change in self.actions.flows.drain(..) {
            let peers = &mut self.world.peers;
            match change {
                FlowChange::Add(tuple, id) => {
                    let peer = peers.iter_mut().find(|peer| peer.tuple == tuple);
                    let peer = peer.unwrap_or_else(|| panic!("{tuple} is nobody's"));
                    assert!(peer.id.replace(id).is_none(), "{tuple} was added twice");
                }
                FlowChange::Remove(tuple, _) => {
                    let peer = peers.iter_mut().find(|peer| peer.tuple == tuple);
                    let known = peer.and_then(|peer| peer.id.take());
                    assert!(known.is_some(), "{tuple} was not there");
                }
            }
        }
    }

    fn check(&mut self) {
        let app = self.conn.app();
        if self.honest && (self.conn.is_mptcp() || self.linear) {
            assert_eq!(app.wrong, None, "the stream is corrupt");
        } else {
            // What was read before is what it is.
            self.honest = false;
        }
        if self.conn.is_finished() {
            assert!(app.closed.is_some());
            assert!(self.world.peers.iter().all(|peer| peer.id.is_none()));
            assert_eq!(
                self.conn.next_deadline(),
                None,
                "a finished connection waits"
            );
        }
        assert_eq!(
            self.conn.subflows().count(),
            self.world
                .peers
                .iter()
                .filter(|peer| peer.id.is_some())
                .count()
        );
    }

    fn timer(&mut self) {
        let Some(at) = self.conn.next_deadline() else {
            return;
        };
        self.now = self.now.max(at);
        self.cx(|conn, cx| conn.on_timer(cx));
        self.drain();
        self.poll();
        if self.world.room >= ROOM_LOW
            && let Some(at) = self.conn.next_deadline()
        {
            assert!(
                at > self.now,
                "a deadline stays due: {:#?}",
                self.conn.info(self.now)
            );
        }
    }

    /// The input is over: the application finishes, nobody answers.
    fn silence(&mut self) {
        self.world.room = u32::MAX;
        self.conn.app_mut().finished = true;
        self.cx(|conn, cx| conn.close(cx));
        self.drain();
        self.poll();
        let end = self.now + SILENCE_MAX;
        for _ in 0..SILENT_STEPS_MAX {
            if self.conn.is_finished() || self.now > end {
                break;
            }
            self.timer();
            self.check();
        }
        assert!(
            self.conn.is_finished(),
            "not over after {:?} of silence: {:#?}",
            self.now - (end - SILENCE_MAX),
            self.conn.info(self.now)
        );
        self.check();
    }

    /// Options of any segment but SYNs.
    fn plain_options(&self, i: usize) -> TcpOptions {
        let peer = &self.world.peers[i];
        TcpOptions {
            timestamps: peer.tsecr.map(|tsecr| Timestamps {
                tsval: self.now.as_millis() as u32,
                tsecr,
            }),
            ..TcpOptions::default()
        }
    }

    /// A segment of the peer on subflow `i`, its payload `payload`.
    #[expect(clippy::too_many_arguments, reason = "the fields of a segment")]
    fn deliver(
        &mut self,
        i: usize,
        flags: Flags,
        seq: SeqNumber,
        ack: SeqNumber,
        window: u16,
        options: TcpOptions,
        len: usize,
    ) {
        if flags.contains(Flags::FIN) {
            // Without a DSS it stands for a DATA_FIN where that is due.
            let end = self.world.start + self.stream_next() + 1;
            self.world.sent_to = self.world.sent_to.later(end);
        }
        let (ssn, start) = (
            seq - self.world.peers[i].isn,
            usize::from(flags.contains(Flags::SYN)),
        );
        let chain = self.payload(i, ssn.wrapping_add(start as u32), len);
        let peer = &mut self.world.peers[i];
        let packet = packet(peer, flags, seq, ack, window, options, len);
        if flags.contains(Flags::ACK) && ack <= peer.received {
            let shift = if flags.contains(Flags::SYN) || !peer.scaled {
                0
            } else {
                PEER_SHIFT
            };
            let told = ack + (u32::from(window) << shift);
            peer.told = Some(peer.told.map_or(told, |known| known.later(told)));
        }
        if let Some(id) = peer.id {
            self.cx(|conn, cx| conn.on_packet(cx, id, &packet, chain));
            self.drain();
        }
    }

    /// Payload from `ssn` on: what the peer's mappings say, 0xee where they say nothing.
    fn payload(&self, i: usize, ssn: u32, len: usize) -> Chain {
        if len == 0 {
            return Chain::new();
        }
        let mut frame = match self.world.pool.alloc() {
            Some(frame) => frame,
            None => {
                let mut bytes = [0xee; PAYLOAD_MAX];
                self.fill(i, ssn, &mut bytes[..len]);
                return Piece::copied(&bytes[..len], None).into();
            }
        };
        let buffer = frame.buffer_mut().expect("a fresh frame is not in flight");
        buffer[..len].fill(0xee);
        self.fill(i, ssn, &mut buffer[..len]);
        frame.set_len(len);
        Piece::from_frame(frame, 0..len, None).into()
    }

    fn fill(&self, i: usize, ssn: u32, out: &mut [u8]) {
        let (from, to) = (u64::from(ssn), u64::from(ssn) + out.len() as u64);
        for mapped in &self.world.peers[i].table {
            let (start, end) = (
                u64::from(mapped.ssn),
                u64::from(mapped.ssn) + u64::from(mapped.len),
            );
            let (left, right) = (from.max(start), to.min(end));
            if left < right {
                let len = (right - left) as usize;
                let at = (left - from) as usize;
                out[at..at + len]
                    .copy_from_slice(stream::peers(mapped.offset + (left - start), len));
            }
        }
    }
}

/// A packet as the parser would have reported it.
fn packet(
    peer: &Peer,
    flags: Flags,
    seq: SeqNumber,
    ack: SeqNumber,
    window: u16,
    options: TcpOptions,
    len: usize,
) -> TcpPacket {
    TcpPacket {
        eth: EthernetPair {
            src: l2().dst,
            dst: l2().src,
        },
        vlan: VlanTags::NONE,
        tuple: peer.tuple,
        ecn: 0,
        ttl: 64,
        l3_offset: 14,
        tcp_offset: 34,
        payload: 54..54 + len,
        seq,
        ack,
        flags,
        window,
        urgent: 0,
        options,
        pseudo_header_sum: Sum::ZERO,
    }
}
