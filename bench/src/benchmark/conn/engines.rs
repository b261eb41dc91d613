//! Connections between two engines on a memory link, both on the calling thread: what a
//! connection with one join costs braid, and what it holds while it idles.
//!
//! A connection: SYN, 64 bytes and their echo, a join from a second address to the server's
//! second address, and either an orderly close or silence.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use braid_dataplane::app::Echo;
use braid_dataplane::buf::{Frame, FramePool, PacketFrames};
use braid_dataplane::checksum::{Sum, copy_and_sum};
use braid_dataplane::io::memory::{MemoryConfig, MemoryPort, pair};
use braid_dataplane::io::{Port, PortId, RxBatch, RxChecksum, Tx};
use braid_dataplane::mptcp::{
    Application, CloseReason, Event, MptcpConfig, RecvStream, SendState, SubflowPath, TxSink,
};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::time::Instant;
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::types::{AddressId, FourTuple};
use braid_dataplane::worker::{Arrival, Engine, EngineConfig, Order, Service};

use super::super::engine::Stopwatch;
use crate::failure;
use crate::hostile::heap;
use crate::testbed::Result;

/// Of a request, and of its echo.
pub const MESSAGE_BYTES: usize = 64;
/// Connections that are opened or closed at the same time.
const IN_FLIGHT: usize = 64;
const MTU: u32 = 1500;
const RING: u32 = 512;
/// Frames of an end.
const FRAMES: u32 = 4096;
const FRAME_BYTES: u32 = 2048;
const RX_BATCH: usize = 64;
const BACKLOG: u32 = 1024;
const SERVICE: u16 = 7;
/// Own ports of an address: all but the reserved ones.
const PORTS: std::ops::Range<u32> = 1024..65_536;
/// Connections to which nothing happens for so long are idle.
const SETTLED_AFTER: Duration = Duration::from_millis(2500);
/// Nothing happens for so long: something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one message and counts what comes back.
#[derive(Debug, Default)]
struct Asker {
    sent: usize,
    received: usize,
}

impl Application for Asker {
    fn on_readable(&mut self, rx: &mut RecvStream) {
        while !rx.is_empty() {
            let n = rx.peek().len();
            rx.consume(n);
            self.received += n;
        }
    }

    fn fill(&mut self, _rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        let n = out.len().min(MESSAGE_BYTES - self.sent);
        let sum = copy_and_sum(&mut out[..n], &[0x5a; MESSAGE_BYTES][..n]);
        self.sent += n;
        (n, sum)
    }

    fn send_state(&self, _rx: &RecvStream) -> SendState {
        if self.sent < MESSAGE_BYTES {
            SendState::Ready
        } else {
            SendState::Idle
        }
    }
}

struct Sink<'a> {
    pool: &'a FramePool,
    port: &'a mut MemoryPort,
}

impl TxSink for Sink<'_> {
    fn alloc(&mut self, _port: PortId) -> Option<Frame> {
        self.pool.alloc()
    }

    fn send(&mut self, _port: PortId, frame: &Frame) -> Tx {
        self.port.tx(self.pool, frame)
    }

    fn room(&self, _port: PortId) -> u32 {
        let spare = self.pool.available().saturating_sub(self.pool.frames() / 8);
        self.port.tx_free().min(spare)
    }
}

struct End<A: Application> {
    engine: Engine<A>,
    port: MemoryPort,
    pool: FramePool,
    batch: RxBatch,
}

impl<A: Application> End<A> {
    fn new(port: MemoryPort, connections: usize, seed: u8) -> Self {
        let config = EngineConfig {
            mptcp: MptcpConfig::default(),
            connections_max: connections + IN_FLIGHT,
            flows_max: 4 * (connections + IN_FLIGHT) + (1 << 15),
            ..EngineConfig::default()
        };
        let pool = FramePool::heap(FRAMES, FRAME_BYTES);
        pool.adopt();
        Self {
            engine: Engine::new(config, [seed; 32], Instant::default()),
            port,
            pool,
            batch: RxBatch::new(RX_BATCH),
        }
    }

    /// One turn, in the order of the live worker's. Whether anything arrived.
    fn turn(&mut self, now: Instant) -> bool {
        self.port.rx_burst(&self.pool, &mut self.batch);
        let any = !self.batch.is_empty();
        let arrival = Arrival {
            port: PortId(0),
            mtu: MTU,
            checksum: RxChecksum::Verify,
            from: None,
        };
        let mut sink = Sink {
            pool: &self.pool,
            port: &mut self.port,
        };
        let mut packet = PacketFrames::new();
        for received in self.batch.drain() {
            packet.push(received.frame);
            if !received.more {
                let packet = std::mem::take(&mut packet);
                let handed = self.engine.on_packet(now, arrival, packet, &mut sink);
                debug_assert!(handed.is_none(), "one worker has nobody to hand to");
            }
        }
        if self.engine.next_deadline().is_some_and(|at| at <= now) {
            self.engine.on_timers(now);
        }
        if self.engine.has_work() {
            self.engine.run(now, &mut sink);
        }
        self.port.flush();
        self.port.complete(&self.pool);
        self.pool.collect_returned();
        any
    }
}

/// Both ends.
struct Ends {
    client: End<Asker>,
    server: End<Echo>,
    name: Arc<str>,
    epoch: Clock,
    /// Connections begun.
    begun: u32,
    /// Connections that have their join.
    joined: u64,
    /// Connections that ended as they should.
    finished: u64,
}

fn address(path: u8, host: u16) -> IpAddr {
    let [high, low] = host.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, path, high, low))
}

fn path(number: u8, nth: u32) -> SubflowPath {
    // Every address has as many connections as it has ports.
    let ports = PORTS.end - PORTS.start;
    let host = u16::try_from(2 + nth / ports).unwrap_or(u16::MAX);
    let port = u16::try_from(PORTS.start + nth % ports).unwrap_or(u16::MAX);
    SubflowPath {
        port: PortId(0),
        l2: L2Header {
            dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
            src: EthernetAddress([2, 0, 0, 0, 0, 1]),
            vlan: Default::default(),
        },
        tuple: FourTuple {
            local: SocketAddr::new(address(number, host), port),
            remote: SocketAddr::new(address(number, 1), SERVICE),
        },
        mtu: MTU,
        local_id: AddressId(number - 1),
        remote_id: AddressId(number - 1),
        backup: false,
    }
}

impl Ends {
    fn new(connections: usize) -> Self {
        let (a, b) = pair(MemoryConfig {
            tx_ring: RING,
            packet_bytes: MTU + 14,
            mtu: MTU,
            tx_segment_bytes: 0,
        });
        let client = End::new(a, connections, 1);
        let mut server = End::new(b, connections, 2);
        let listen = vec![SocketAddr::new(address(1, 1), SERVICE)];
        let service = Service::new("echo", listen, BACKLOG, Box::new(|| Echo));
        server.engine.set_services(vec![service]);
        Self {
            client,
            server,
            name: Arc::from("bench"),
            epoch: Clock::now(),
            begun: 0,
            joined: 0,
            finished: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// One turn of both: opens what there is to open, joins what is established, and closes
    /// what is joined if that is wanted. Whether anything moved.
    fn turn(&mut self, close: bool) -> Result<bool> {
        let now = self.now();
        let mut moved = self.client.turn(now);
        moved |= self.server.turn(now);
        while self.server.engine.pop_event().is_some() {}
        while let Some((_, event)) = self.client.engine.pop_event() {
            moved = true;
            match event {
                Event::Established {
                    token,
                    local,
                    mptcp,
                    ..
                } => {
                    if !mptcp {
                        return Err(failure!("a connection fell back"));
                    }
                    let nth = nth(local);
                    let order = Order::OpenSubflow(path(2, nth));
                    let ordered = self.client.engine.order(now, token, order);
                    ordered.map_err(|e| failure!("join: {e}"))?;
                }
                Event::SubflowEstablished { token, .. } => {
                    self.joined += 1;
                    if close {
                        let ordered = self.client.engine.order(now, token, Order::Close);
                        ordered.map_err(|e| failure!("close: {e}"))?;
                    }
                }
                Event::Closed { reason, .. } => {
                    if reason != CloseReason::Finished {
                        return Err(failure!("a connection ended: {reason}"));
                    }
                    self.finished += 1;
                }
                _ => {}
            }
        }
        Ok(moved)
    }

    fn connect(&mut self) -> Result<()> {
        let (now, path) = (self.now(), path(1, self.begun));
        let app = Asker::default();
        let connected = self.client.engine.connect(now, &self.name, path, app);
        connected.map_err(|e| failure!("connect: {e}"))?;
        self.begun += 1;
        Ok(())
    }
}

/// Which connection has this own address.
fn nth(local: SocketAddr) -> u32 {
    let IpAddr::V4(ip) = local.ip() else { return 0 };
    let [_, _, high, low] = ip.octets();
    let host = u32::from(u16::from_be_bytes([high, low]));
    (host - 2) * (PORTS.end - PORTS.start) + u32::from(local.port()) - PORTS.start
}

struct Patience(Clock);

impl Patience {
    fn check(&mut self, moved: bool, ends: &Ends) -> Result<()> {
        if moved {
            self.0 = Clock::now();
        } else if self.0.elapsed() > PATIENCE {
            let (begun, joined, finished) = (ends.begun, ends.joined, ends.finished);
            return Err(failure!(
                "stalled: {begun} begun, {joined} joined, {finished} finished"
            ));
        }
        Ok(())
    }
}

/// What opening and closing costs.
#[derive(Copy, Clone, Debug)]
pub struct Churn {
    /// One core doing both ends.
    pub connections_per_s: f64,
    /// Processor time of one end.
    pub us_per_connection: f64,
}

/// Opens and closes `count` connections.
pub fn churn(count: u32) -> Result<Churn> {
    let mut ends = Ends::new(IN_FLIGHT);
    let mut patience = Patience(Clock::now());
    let watch = Stopwatch::start();
    while ends.finished < u64::from(count) {
        while ends.begun < count && u64::from(ends.begun) - ends.finished < IN_FLIGHT as u64 {
            ends.connect()?;
        }
        let moved = ends.turn(true)?;
        patience.check(moved, &ends)?;
    }
    let seconds = watch.elapsed().as_secs_f64();
    Ok(Churn {
        connections_per_s: f64::from(count) / seconds,
        us_per_connection: seconds * 1e6 / f64::from(count) / 2.0,
    })
}

/// What idle connections hold.
#[derive(Copy, Clone, Debug)]
pub struct Idle {
    /// Bytes of heap per connection and end; 0 if the program does not count.
    pub bytes_per_connection: f64,
    /// Frames that are not at home, of both ends.
    pub frames: u32,
    /// Subflows of all connections of one end.
    pub flows: usize,
}

/// Opens `count` connections, waits until everything is said, and weighs them.
pub fn idle(count: u32) -> Result<Idle> {
    let wanted = usize::try_from(count).map_err(|e| failure!("{e}"))?;
    let mut ends = Ends::new(wanted);
    let mut patience = Patience(Clock::now());
    let before = heap::live();
    while ends.joined < u64::from(count) {
        while ends.begun < count && u64::from(ends.begun) - ends.joined < IN_FLIGHT as u64 {
            ends.connect()?;
        }
        let moved = ends.turn(false)?;
        patience.check(moved, &ends)?;
    }
    // Delayed ACKs, handshakes of the server's side, and what connections give back once they
    // idle.
    let quiet = Clock::now();
    while quiet.elapsed() < SETTLED_AFTER {
        ends.turn(false)?;
    }
    let held = heap::live() - before;
    let (client, server) = (&ends.client, &ends.server);
    if (client.engine.connections(), server.engine.connections()) != (wanted, wanted) {
        let there = (client.engine.connections(), server.engine.connections());
        return Err(failure!("{there:?} connections of {count}"));
    }
    let frames = |pool: &FramePool| pool.frames() - pool.accounting().free;
    Ok(Idle {
        bytes_per_connection: held as f64 / f64::from(count) / 2.0,
        frames: frames(&client.pool) + frames(&server.pool),
        flows: server.engine.flows(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_open_join_and_close() {
        let churn = churn(300).unwrap();
        assert!(churn.connections_per_s > 0.0 && churn.us_per_connection > 0.0);
    }

    #[test]
    fn idle_connections_keep_both_subflows_and_no_frame() {
        let idle = idle(300).unwrap();
        assert_eq!((idle.flows, idle.frames), (600, 0));
    }

    #[test]
    fn every_connection_has_addresses_of_its_own() {
        for n in [0, 1, 64_511, 64_512, 99_999] {
            assert_eq!(nth(path(1, n).tuple.local), n);
        }
        assert_ne!(path(1, 5).tuple, path(1, 64_512 + 5).tuple);
    }
}
