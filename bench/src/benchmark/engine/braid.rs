//! Two engines on a memory link: a source and a sink, on one core or on two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use braid_dataplane::app::Source;
use braid_dataplane::buf::{Frame, FramePool, HEADROOM_BYTES};
use braid_dataplane::checksum::Sum;
use braid_dataplane::io::memory::{MemoryConfig, MemoryPort, pair};
use braid_dataplane::io::{Port, PortId, RxBatch, RxChecksum, Tx};
use braid_dataplane::mptcp::{
    Application, ChecksumPolicy, MptcpConfig, RecvStream, SendState, SubflowPath, TxSink,
};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::tcp::{CongestionKind, TcpConfig};
use braid_dataplane::time::Instant;
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::types::{AddressId, FourTuple};
use braid_dataplane::worker::{Arrival, Engine, EngineConfig, Service};

use super::{Sample, Stopwatch};
use crate::failure;
use crate::testbed::Result;

/// Ethernet, IPv4, TCP with timestamps, and a DSS with 8-byte sequence and DATA_ACK.
pub(super) const HEADERS_BYTES: u32 = 14 + 20 + 20 + 12 + 28;
/// Packets in flight in one direction, at most: what fits the second-level cache beside their
/// copies on the other side, so that the engine is measured and not the memory.
pub(super) fn ring(frame_bytes: u32) -> u32 {
    (RING_BYTES / frame_bytes).clamp(RING_MIN, RING_MAX)
}

const RING_BYTES: u32 = 256 << 10;
const RING_MIN: u32 = 8;
const RING_MAX: u32 = 256;
/// A transfer that takes longer has stalled.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Received per turn, as the live worker does.
const RX_BATCH: usize = 64;
/// Of each end's pool.
const POOL_BYTES: u32 = 16 << 20;

/// Source and sink, and how much has arrived.
enum Bench {
    Source(Source),
    Sink(Arc<AtomicU64>),
}

impl Application for Bench {
    fn on_readable(&mut self, rx: &mut RecvStream) {
        let mut taken = 0;
        while !rx.is_empty() {
            let n = rx.peek().len();
            rx.consume(n);
            taken += n as u64;
        }
        if let Self::Sink(delivered) = self {
            // One writer: a plain addition, visible to the other thread.
            delivered.store(delivered.load(Ordering::Relaxed) + taken, Ordering::Relaxed);
        }
    }

    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        match self {
            Self::Source(source) => source.fill(rx, out),
            Self::Sink(_) => (0, Sum::default()),
        }
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        match self {
            Self::Source(source) => source.send_state(rx),
            Self::Sink(_) if rx.eof() => SendState::Finished,
            Self::Sink(_) => SendState::Idle,
        }
    }
}

/// One engine with its port and its frames: what a worker has.
struct End {
    engine: Engine<Bench>,
    pool: FramePool,
    port: MemoryPort,
    batch: RxBatch,
    mtu: u32,
    clock: Clock,
}

/// What an engine takes for the time.
#[derive(Copy, Clone)]
enum Clock {
    /// So much passes per turn. On one core the time of day would tell of round trips in
    /// which the program did not run at all: pacing would follow them, and turns that wait
    /// for it would be counted as work.
    Turns(u64),
    /// The time of day, which two threads have to share.
    Day(std::time::Instant),
}

/// What passes per turn on one core: about what the packets of a batch take.
const TURN_NS: u64 = 5_000;

impl Clock {
    fn tick(&mut self) -> Instant {
        match self {
            Self::Turns(turns) => {
                *turns += 1;
                Instant::from_nanos(*turns * TURN_NS)
            }
            Self::Day(epoch) => {
                let nanos = u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
                Instant::from_nanos(nanos)
            }
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
        // As the live worker: an eighth of the frames is for what arrives.
        let spare = self.pool.available().saturating_sub(self.pool.frames() / 8);
        self.port.tx_free().min(spare)
    }
}

impl End {
    fn new(port: MemoryPort, frame_bytes: u32, checksum: bool, seed: u8, clock: Clock) -> Self {
        let pool_frame_bytes = (frame_bytes + HEADROOM_BYTES).next_power_of_two().max(2048);
        let checksum = if checksum {
            ChecksumPolicy::Always
        } else {
            ChecksumPolicy::Never
        };
        let mptcp = MptcpConfig {
            checksum,
            tcp: TcpConfig {
                congestion: CongestionKind::NewReno,
                // The time of day knows of round trips in which a thread did not run.
                pacing: matches!(clock, Clock::Turns(_)),
                ..TcpConfig::default()
            },
            ..MptcpConfig::default()
        };
        let config = EngineConfig {
            mptcp,
            connections_max: 16,
            flows_max: 64,
            time_wait_max: 16,
            ..EngineConfig::default()
        };
        let frames = (POOL_BYTES / pool_frame_bytes).max(4 * ring(frame_bytes));
        Self {
            engine: Engine::new(config, [seed; 32], Instant::default()),
            pool: FramePool::heap(frames, pool_frame_bytes),
            port,
            batch: RxBatch::new(RX_BATCH),
            mtu: frame_bytes - 14,
            clock,
        }
    }

    /// One turn, in the order of the live worker's. Whether any packet came or went.
    fn turn(&mut self) -> bool {
        let before = self.port.stats();
        let now = self.clock.tick();
        let pressure = self.pool.available() < self.pool.frames() / 8;
        self.engine.set_pressure(pressure);
        // A NIC has told of a packet long before its acknowledgment arrives.
        self.port.complete(&self.pool);
        self.port.rx_burst(&self.pool, &mut self.batch);
        let arrival = Arrival {
            port: PortId(0),
            mtu: self.mtu,
            checksum: RxChecksum::Verify,
            from: None,
        };
        let mut sink = Sink {
            pool: &self.pool,
            port: &mut self.port,
        };
        let frames = self.batch.drain();
        self.engine
            .on_frames(now, arrival, frames, &mut sink, |_, _| {
                debug_assert!(false, "one worker has nobody to hand to");
            });
        if self.engine.next_deadline().is_some_and(|at| at <= now) {
            self.engine.on_timers(now);
        }
        if self.engine.has_work() || pressure {
            self.engine.run(now, &mut sink);
        }
        self.port.flush();
        self.pool.collect_returned();
        while self.engine.pop_event().is_some() {}
        let now = self.port.stats();
        now.rx_packets != before.rx_packets || now.tx_packets != before.tx_packets
    }

    /// Turns until `over`; processor time of those that moved packets. A turn that finds
    /// nothing to do waits for the other core, which may be at others' disposal.
    fn turns_until(&mut self, mut over: impl FnMut() -> Result<bool>) -> Result<Duration> {
        let watch = Stopwatch::start();
        let (mut busy, mut last) = (Duration::ZERO, Duration::ZERO);
        while !over()? {
            let moved = self.turn();
            let now = watch.elapsed();
            if moved {
                busy += now.saturating_sub(last);
            }
            last = now;
        }
        Ok(busy)
    }
}

const SERVER_PORT: u16 = 7;

fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

/// A source that has been told to connect, and a sink; what has arrived at it.
fn ends(
    frame_bytes: u32,
    checksum: bool,
    bytes: u64,
    clock: Clock,
) -> Result<(End, End, Arc<AtomicU64>)> {
    let link = MemoryConfig {
        tx_ring: ring(frame_bytes),
        packet_bytes: frame_bytes,
        mtu: frame_bytes - 14,
        tx_segment_bytes: 0,
    };
    let (a, b) = pair(link);
    let mut client = End::new(a, frame_bytes, checksum, 1, clock);
    let mut server = End::new(b, frame_bytes, checksum, 2, clock);
    let delivered = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&delivered);
    let remote = SocketAddr::new(address(2), SERVER_PORT);
    let make = Box::new(move || Bench::Sink(Arc::clone(&counter)));
    let service = Service::new("sink", vec![remote], 4, make);
    server.engine.set_services(vec![service]);
    let path = SubflowPath {
        port: PortId(0),
        l2: L2Header {
            dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
            src: EthernetAddress([2, 0, 0, 0, 0, 1]),
            vlan: Default::default(),
        },
        tuple: FourTuple {
            local: SocketAddr::new(address(1), 40_000),
            remote,
        },
        mtu: frame_bytes - 14,
        local_id: AddressId(0),
        remote_id: AddressId(0),
        backup: false,
    };
    let source = Bench::Source(Source::new(Some(bytes)));
    client
        .engine
        .connect(Instant::default(), &Arc::from("bench"), path, source)
        .map_err(|e| failure!("connect: {e:?}"))?;
    Ok((client, server, delivered))
}

/// Both ends on the calling thread.
pub fn one_core(frame_bytes: u32, checksum: bool, bytes: u64) -> Result<Sample> {
    let (mut client, mut server, delivered) = ends(frame_bytes, checksum, bytes, Clock::Turns(0))?;
    if !(client.pool.adopt() && server.pool.adopt()) {
        return Err(failure!("a new pool is nobody's"));
    }
    let (start, watch) = (std::time::Instant::now(), Stopwatch::start());
    while delivered.load(Ordering::Relaxed) < bytes {
        client.turn();
        server.turn();
        check_patience(start, &delivered, bytes)?;
    }
    Ok(Sample {
        bytes,
        packets: client.port.stats().tx_packets,
        elapsed: watch.elapsed(),
        ends_per_core: 2,
    })
}

fn check_patience(start: std::time::Instant, delivered: &AtomicU64, bytes: u64) -> Result<()> {
    if start.elapsed() > PATIENCE {
        let delivered = delivered.load(Ordering::Relaxed);
        return Err(failure!("{delivered} of {bytes} bytes within {PATIENCE:?}"));
    }
    Ok(())
}

/// One thread each, on the caller's core `core` and the one beside it. What counts is the time
/// of the busier one.
pub fn two_cores(frame_bytes: u32, checksum: bool, bytes: u64, core: usize) -> Result<Sample> {
    let clock = Clock::Day(std::time::Instant::now());
    let (mut client, mut server, delivered) = ends(frame_bytes, checksum, bytes, clock)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        let sender = scope.spawn(move || {
            // The caller may be confined to one core, which threads inherit.
            let id = if core == 0 { 1 } else { core - 1 };
            core_affinity::set_for_current(core_affinity::CoreId { id });
            client.pool.adopt();
            let busy = client.turns_until(|| Ok(over.load(Ordering::Relaxed)))?;
            Ok((busy, client.port.stats().tx_packets))
        });
        server.pool.adopt();
        let start = std::time::Instant::now();
        let busy = server.turns_until(|| {
            check_patience(start, &delivered, bytes)?;
            Ok(delivered.load(Ordering::Relaxed) >= bytes)
        });
        over.store(true, Ordering::Relaxed);
        let sent: Result<(Duration, u64)> =
            sender.join().map_err(|_| failure!("the sender panicked"))?;
        let (busy, (busy_sender, packets)) = (busy?, sent?);
        Ok(Sample {
            bytes,
            packets,
            elapsed: busy.max(busy_sender),
            ends_per_core: 1,
        })
    })
}
