//! A simulated host: an engine, its frames, and a minimal path manager.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use braid_dataplane::buf::{Frame, FrameAccounting, FramePool};
use braid_dataplane::counters::{Counter, Counters};
use braid_dataplane::io::{PortId, RxChecksum, Tx};
use braid_dataplane::mptcp::{Event, MptcpConfig, OpenError, SubflowPath, TxSink};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::offload::{BurstShape, segmentation};
use braid_dataplane::time::Instant;
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::types::{AddressId, FourTuple};
use braid_dataplane::worker::{Arrival, Engine, EngineConfig, Order, OrderError, Service};

use super::app::{Outcomes, Role, SimApp};
use super::link::Link;

/// Frames that data leaves to what arrives and to ACKs, as a share: as the worker's.
const DATA_RESERVE_SHARE: u32 = 6;
/// Packets without data that a port has room for nevertheless.
const ROOM_FOR_CONTROLS: u32 = 2;

/// Frames that data may take.
fn data_room(pool: &FramePool) -> u32 {
    pool.available()
        .saturating_sub(pool.frames() / DATA_RESERVE_SHARE)
}

/// First ephemeral port.
const PORT_MIN: u16 = 32_768;

/// How a host is built.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Protocol settings.
    pub mptcp: MptcpConfig,
    /// Frames.
    pub frames: u32,
    /// Packets that a port takes per turn.
    pub tx_ring: u32,
    /// Largest burst that ports cut into segments on its way out; 0: they do not.
    pub burst_bytes: u32,
    /// Open and reopen subflows on every link (active opens only).
    pub join: bool,
    /// Links and own addresses to announce to peers once established.
    pub announce: Vec<(AddressId, IpAddr)>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            mptcp: MptcpConfig::default(),
            frames: 16_384,
            tx_ring: 512,
            burst_bytes: 0,
            join: true,
            announce: Vec::new(),
        }
    }
}

/// The address of a host's end of a link.
#[must_use]
pub(super) fn address(link: usize, host: usize, ipv6: bool) -> IpAddr {
    let (l, h) = (
        u8::try_from(link).unwrap_or(255),
        u8::try_from(host + 1).unwrap_or(255),
    );
    if ipv6 {
        IpAddr::V6(Ipv6Addr::new(
            0xfd77,
            u16::from(l),
            0,
            0,
            0,
            0,
            0,
            u16::from(h),
        ))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 77, l, h))
    }
}

fn mac(link: usize, host: usize) -> EthernetAddress {
    let (l, h) = (
        u8::try_from(link).unwrap_or(255),
        u8::try_from(host).unwrap_or(255),
    );
    EthernetAddress([2, 0, 0, 0, l, h])
}

/// What the path manager wants from the network around it.
pub(super) enum Wish {
    /// Join over every link but this one.
    JoinAll { token: u32, but: usize },
    /// Join over this link again.
    Rejoin { token: u32, link: usize },
}

/// How a join went.
#[derive(Debug)]
pub(super) struct Joined(Result<(), OrderError>);

impl Joined {
    /// Worth another try later?
    pub(super) fn is_err_retry(&self) -> bool {
        matches!(
            self.0,
            Err(OrderError::Open(OpenError::NotMptcp | OpenError::Limit))
        )
    }
}

/// See the module documentation.
pub struct Host {
    number: usize,
    engine: Engine<SimApp>,
    pool: FramePool,
    tx_ring: u32,
    burst_bytes: u32,
    sent: Vec<(usize, Vec<u8>)>,
    next_port: u16,
    join: bool,
    announce: Vec<(AddressId, IpAddr)>,
    server_port: BTreeMap<u32, u16>,
    wishes: Vec<Wish>,
    /// Every event so far, for tests to look at.
    pub events: Vec<Event>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

/// Captures what the engine sends, up to a ring's worth per turn and port.
struct Sink<'a> {
    pool: &'a FramePool,
    sent: &'a mut Vec<(usize, Vec<u8>)>,
    spare: &'a mut Vec<Vec<u8>>,
    room: u32,
    burst_bytes: u32,
}

impl TxSink for Sink<'_> {
    fn alloc(&mut self, _port: PortId) -> Option<Frame> {
        self.pool.alloc()
    }

    fn send(&mut self, port: PortId, frame: &Frame) -> Tx {
        if self.room == 0 {
            return Tx::Full;
        }
        self.room -= 1;
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.extend_from_slice(frame.packet());
        self.sent.push((usize::from(port.0), packet));
        Tx::Queued
    }

    fn segment_bytes(&self, _port: PortId) -> u32 {
        self.burst_bytes
    }

    fn send_burst<'f>(
        &mut self,
        port: PortId,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        let mut burst = self.spare.pop().unwrap_or_default();
        for (frame, range) in frames {
            burst.extend_from_slice(&frame.packet()[range]);
        }
        let (headers, payload) = burst.split_at(shape.header_len);
        let segments = payload.len().div_ceil(usize::from(shape.segment_bytes));
        if (self.room as usize) < segments {
            return Tx::Full;
        }
        segmentation::segment(headers, shape, payload, |packet| {
            self.room -= 1;
            self.sent.push((usize::from(port.0), packet.to_vec()));
        });
        Tx::Queued
    }

    fn room(&self, _port: PortId) -> u32 {
        self.room.min(data_room(self.pool).max(ROOM_FOR_CONTROLS))
    }

    fn shares_frames(&self, _a: PortId, _b: PortId) -> bool {
        true
    }
}

impl Host {
    pub(super) fn new(number: usize, config: &HostConfig, seed: [u8; 32], now: Instant) -> Self {
        let engine_config = EngineConfig {
            mptcp: config.mptcp.clone(),
            time_wait_max: 256,
            window_frames: config.frames / 2,
            ..EngineConfig::default()
        };
        let pool = FramePool::heap(config.frames, 2048);
        // A simulation lives on one thread.
        assert!(pool.adopt(), "a new pool is nobody's");
        Self {
            number,
            engine: Engine::new(engine_config, seed, now),
            pool,
            tx_ring: config.tx_ring,
            burst_bytes: config.burst_bytes,
            sent: Vec::new(),
            next_port: PORT_MIN,
            join: config.join,
            announce: config.announce.clone(),
            server_port: BTreeMap::new(),
            wishes: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Serves `role` on every address at `port`. All connections report to one outcome.
    pub fn serve(&mut self, services: &[(u16, Role)]) -> Vec<Outcomes> {
        let mut outcomes = Vec::new();
        let mut list = Vec::new();
        for (port, role) in services.iter().copied() {
            let shared = Outcomes::default();
            outcomes.push(shared.clone());
            let listen = vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            ];
            let make = Box::new(move || SimApp::new(role, shared.clone()));
            list.push(Service::new(&format!("port-{port}"), listen, 1024, make));
        }
        self.engine.set_services(list);
        outcomes
    }

    /// The engine, to look at and to order around.
    pub fn engine(&mut self) -> &mut Engine<SimApp> {
        &mut self.engine
    }

    /// A counter's value.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        self.engine.counters().get(counter)
    }

    /// All counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    /// Where the frames are.
    #[must_use]
    pub fn frames(&self) -> FrameAccounting {
        self.pool.accounting()
    }

    /// Own tokens of connections this host opened and that still live.
    pub(super) fn initiated(&self) -> Vec<u32> {
        self.server_port.keys().copied().collect()
    }

    pub(super) fn prepare_connect(
        &mut self,
        link: usize,
        link_end: &Link,
        port: u16,
        role: Role,
    ) -> (SubflowPath, Outcomes, SimApp) {
        let outcomes = Outcomes::default();
        let path = self.path(link, link_end, port, AddressId(0));
        (path, outcomes.clone(), SimApp::new(role, outcomes))
    }

    pub(super) fn connect(&mut self, now: Instant, path: SubflowPath, app: SimApp) -> u32 {
        let port = path.tuple.remote.port();
        let token = self
            .engine
            .connect(now, &Arc::from("sim"), path, app)
            .expect("a fresh port is free");
        self.server_port.insert(token, port);
        token
    }

    /// Opens a subflow of an active connection over a link.
    pub(super) fn join(&mut self, now: Instant, token: u32, link: usize, end: &Link) -> Joined {
        let Some(&port) = self.server_port.get(&token) else {
            return Joined(Ok(()));
        };
        let Some(conn) = self.engine.connection(token) else {
            self.server_port.remove(&token);
            return Joined(Ok(()));
        };
        let number = u16::try_from(link).expect("few links");
        if conn.subflows().any(|(_, path)| path.port.0 == number) {
            return Joined(Ok(()));
        }
        let id = AddressId(u8::try_from(link + 1).expect("few links"));
        let path = self.path(link, end, port, id);
        Joined(self.engine.order(now, token, Order::OpenSubflow(path)))
    }

    fn path(&mut self, link: usize, end: &Link, port: u16, local_id: AddressId) -> SubflowPath {
        let peer = end.peer_of(self.number).expect("the link is ours");
        let v6 = end.config.ipv6;
        let local_port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(PORT_MIN);
        SubflowPath {
            port: PortId(u16::try_from(link).expect("few links")),
            l2: L2Header {
                dst: mac(link, peer),
                src: mac(link, self.number),
                vlan: Default::default(),
            },
            tuple: FourTuple {
                local: SocketAddr::new(address(link, self.number, v6), local_port),
                remote: SocketAddr::new(address(link, peer, v6), port),
            },
            mtu: end.config.mtu,
            local_id,
            remote_id: AddressId(0),
            backup: false,
        }
    }

    /// False when there was no frame for the packet.
    pub(super) fn receive(&mut self, now: Instant, link: usize, mtu: u32, packet: &[u8]) -> bool {
        let Some(mut frame) = self.pool.alloc() else {
            return false;
        };
        let room = frame.buffer_mut().expect("a fresh frame is in no ring");
        if packet.len() > room.len() {
            return false;
        }
        room[..packet.len()].copy_from_slice(packet);
        frame.set_len(packet.len());
        let arrival = Arrival {
            port: PortId(u16::try_from(link).expect("few links")),
            mtu,
            checksum: RxChecksum::Verify,
            from: None,
        };
        let mut sink = Sink {
            pool: &self.pool,
            sent: &mut self.sent,
            spare: &mut Vec::new(),
            room: self.tx_ring,
            burst_bytes: self.burst_bytes,
        };
        let handed = self
            .engine
            .on_packet(now, arrival, [frame].into(), &mut sink);
        assert!(handed.is_none(), "one worker has nobody to hand to");
        true
    }

    pub(super) fn on_timers(&mut self, now: Instant) {
        self.engine.on_timers(now);
    }

    pub(super) fn on_carrier(&mut self, now: Instant, link: usize, up: bool) {
        self.engine
            .on_carrier(now, PortId(u16::try_from(link).expect("few links")), up);
    }

    /// One turn of the engine; true when it wants another.
    pub(super) fn run(&mut self, now: Instant, spare: &mut Vec<Vec<u8>>) -> bool {
        let pressure = self.pool.available() < self.pool.frames() / 8;
        self.engine.set_pressure(pressure);
        let mut sink = Sink {
            pool: &self.pool,
            sent: &mut self.sent,
            spare,
            room: self.tx_ring,
            burst_bytes: self.burst_bytes,
        };
        let more = self.engine.run(now, &mut sink);
        while let Some((_, event)) = self.engine.pop_event() {
            self.on_event(now, &event);
            self.events.push(event);
        }
        more && data_room(&self.pool) > ROOM_FOR_CONTROLS
    }

    fn on_event(&mut self, now: Instant, event: &Event) {
        match *event {
            Event::Established {
                token,
                local,
                mptcp: true,
                ..
            } => {
                for (address_id, address) in self.announce.clone() {
                    if address != local.ip() {
                        let order = Order::Announce {
                            address_id,
                            address,
                            port: None,
                        };
                        let _ = self.engine.order(now, token, order);
                    }
                }
                if self.join && self.server_port.contains_key(&token) {
                    self.wishes.push(Wish::JoinAll {
                        token,
                        but: link_of(local.ip()),
                    });
                }
            }
            Event::SubflowClosed { token, local, .. } if self.server_port.contains_key(&token) => {
                self.wishes.push(Wish::Rejoin {
                    token,
                    link: link_of(local.ip()),
                });
            }
            Event::Closed { token, .. } => {
                self.server_port.remove(&token);
            }
            _ => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.engine.next_deadline()
    }

    pub(super) fn take_sent(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// Returns the list that [`Host::take_sent`] gave, to be filled again.
    pub(super) fn give_back(&mut self, mut list: Vec<(usize, Vec<u8>)>) {
        if self.sent.is_empty() {
            list.clear();
            self.sent = list;
        }
    }

    pub(super) fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }
}

fn link_of(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(v4.octets()[2]),
        IpAddr::V6(v6) => usize::from(v6.segments()[1]),
    }
}
