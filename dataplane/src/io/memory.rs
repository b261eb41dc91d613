//! Memory links: two ports back to back, or one port and the simulator.
//!
//! A transmitted packet stays where it is, and its frame in flight, until the other side has
//! taken the packet, as with a NIC: it is copied once, from the sender's frame to the
//! receiver's. What is in no frame of the sender's region is copied into a buffer of the
//! lane; all buffers are allocated when the link is made.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{ModeGot, Port, PortCaps, PortStats, RxBatch, RxChecksum, Tx};
use crate::buf::{Frame, FramePool, RegionHandle};
use crate::offload::{BURST_FRAMES_MAX, BurstShape, segmentation};

/// Dimensions of a link.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct MemoryConfig {
    /// Packets in flight in one direction, at most.
    pub tx_ring: u32,
    /// Largest packet, link header included.
    pub packet_bytes: u32,
    /// Reported in [`PortCaps::mtu`].
    pub mtu: u32,
    /// Largest burst that the port segments, in software; 0: it does not.
    pub tx_segment_bytes: u32,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            tx_ring: 256,
            packet_bytes: 2048,
            mtu: 1500,
            tx_segment_bytes: 0,
        }
    }
}

enum Packet {
    /// In a buffer of the lane.
    Copied { bytes: Box<[u8]>, len: usize },
    /// In a frame of the lane's region, which is in flight.
    InFlight { index: u32, start: u32, len: u32 },
}

/// What one end has for the other, moved in batches: a lock is taken once per batch, not per
/// packet.
const BATCH: usize = 32;

/// One direction.
#[derive(Default)]
struct Lane {
    packets: Mutex<VecDeque<Packet>>,
    /// Taken: their buffers, and their frames, go back.
    taken: Mutex<Vec<Packet>>,
    /// There may be some of either: who polls must not keep the other end from the lock.
    has_packets: AtomicBool,
    has_taken: AtomicBool,
    /// The region that frames are sent from: that of the first one.
    region: OnceLock<RegionHandle>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a lane that packets are put in at.
struct Outgoing {
    lane: Arc<Lane>,
    spare: Vec<Box<[u8]>>,
    staged: Vec<Packet>,
    /// Packets that are kept back to make a batch, at most.
    batch: usize,
}

/// The end of a lane that packets come out at.
struct Incoming {
    lane: Arc<Lane>,
    /// Packets taken off the lane at once.
    batch: usize,
    arrived: VecDeque<Packet>,
    taken: Vec<Packet>,
}

/// The two ends of one direction, which move packets at once: `put` of them at the one end,
/// `taken` at the other.
fn lane(config: MemoryConfig, put: usize, taken: usize) -> (Outgoing, Incoming) {
    let size = config.tx_ring.max(1) as usize;
    let lane = Arc::new(Lane::default());
    lock(&lane.packets).reserve(size);
    lock(&lane.taken).reserve(size);
    let outgoing = Outgoing {
        lane: Arc::clone(&lane),
        spare: (0..size)
            .map(|_| vec![0; config.packet_bytes as usize].into())
            .collect(),
        staged: Vec::with_capacity(put),
        batch: put,
    };
    let incoming = Incoming {
        lane,
        batch: taken,
        arrived: VecDeque::with_capacity(size),
        taken: Vec::with_capacity(size),
    };
    (outgoing, incoming)
}

impl Outgoing {
    /// Copies a packet onto the lane. False if there is no buffer or it is too small.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let Some(mut buffer) = self.spare.pop() else {
            return false;
        };
        let Some(room) = buffer.get_mut(..bytes.len()) else {
            self.spare.push(buffer);
            return false;
        };
        room.copy_from_slice(bytes);
        self.stage(Packet::Copied {
            bytes: buffer,
            len: bytes.len(),
        });
        true
    }

    /// Refers to a frame until it is taken back. False if it is of another region.
    fn refer(&mut self, pool: &FramePool, frame: &Frame) -> bool {
        let region = self.lane.region.get_or_init(|| pool.region());
        let referred = region.owns(frame) && pool.tx_ref(frame);
        if referred {
            self.stage(Packet::InFlight {
                index: frame.index(),
                start: frame.start(),
                len: u32::try_from(frame.len()).unwrap_or(0),
            });
        }
        referred
    }

    fn stage(&mut self, packet: Packet) {
        self.staged.push(packet);
        if self.staged.len() >= self.batch {
            self.publish();
        }
    }

    /// Lets the other end see what was put in.
    fn publish(&mut self) {
        if !self.staged.is_empty() {
            lock(&self.lane.packets).extend(self.staged.drain(..));
            self.lane.has_packets.store(true, Ordering::Release);
        }
    }

    /// Takes the buffers of packets that the other end has taken back; says which frames
    /// they were. Returns how many.
    fn take_back(&mut self, mut complete: impl FnMut(u32)) -> u32 {
        if !self.lane.has_taken.swap(false, Ordering::Acquire) {
            return 0;
        }
        let mut taken = lock(&self.lane.taken);
        let count = u32::try_from(taken.len()).unwrap_or(u32::MAX);
        for packet in taken.drain(..) {
            match packet {
                Packet::Copied { bytes, .. } => self.spare.push(bytes),
                Packet::InFlight { index, .. } => complete(index),
            }
        }
        count
    }

    /// Takes back what the other end has not seen yet.
    fn recall(&mut self) {
        self.publish();
        let mut packets = lock(&self.lane.packets);
        lock(&self.lane.taken).extend(packets.drain(..));
        self.lane.has_taken.store(true, Ordering::Release);
    }
}

impl Incoming {
    fn take<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.arrived.is_empty() {
            if !self.lane.has_packets.swap(false, Ordering::Acquire) {
                return None;
            }
            let mut packets = lock(&self.lane.packets);
            if packets.len() <= self.batch {
                std::mem::swap(&mut *packets, &mut self.arrived);
            } else {
                self.arrived.extend(packets.drain(..self.batch));
            }
            if !packets.is_empty() {
                self.lane.has_packets.store(true, Ordering::Release);
            }
        }
        let packet = self.arrived.pop_front()?;
        let bytes = match &packet {
            Packet::Copied { bytes, len } => &bytes[..*len],
            &Packet::InFlight { index, start, len } => {
                let region = self.lane.region.get()?;
                // SAFETY: `refer` made the lane refer to the frame of this region, with
                // these bounds; it completes what comes back by `taken`, which is below.
                unsafe { region.in_flight(index, start, len) }
            }
        };
        let result = read(bytes);
        self.taken.push(packet);
        Some(result)
    }

    /// Gives the buffers of what was taken back.
    fn give_back(&mut self) {
        if !self.taken.is_empty() {
            lock(&self.lane.taken).append(&mut self.taken);
            self.lane.has_taken.store(true, Ordering::Release);
        }
    }
}

/// One end of a memory link.
pub struct MemoryPort {
    outgoing: Outgoing,
    incoming: Incoming,
    config: MemoryConfig,
    carrier: bool,
    stats: PortStats,
    /// A burst being cut, reused.
    burst: Vec<u8>,
}

/// The other end of a [`MemoryPort::detached`] port: what the simulator holds.
pub struct Wire {
    /// From the port.
    incoming: Incoming,
    /// To the port.
    outgoing: Outgoing,
}

/// Two ports, connected.
#[must_use]
pub fn pair(config: MemoryConfig) -> (MemoryPort, MemoryPort) {
    let (to_b, from_a) = lane(config, BATCH, usize::MAX);
    let (to_a, from_b) = lane(config, BATCH, usize::MAX);
    (
        MemoryPort::new(to_b, from_b, config),
        MemoryPort::new(to_a, from_a, config),
    )
}

impl MemoryPort {
    fn new(outgoing: Outgoing, incoming: Incoming, config: MemoryConfig) -> Self {
        Self {
            outgoing,
            incoming,
            config,
            carrier: true,
            stats: PortStats::default(),
            burst: Vec::with_capacity(config.tx_segment_bytes as usize),
        }
    }

    /// A port and the wire that the simulator drives it with, which sees every packet at
    /// once.
    #[must_use]
    pub fn detached(config: MemoryConfig) -> (Self, Wire) {
        let (to_wire, from_port) = lane(config, 1, 1);
        let (to_port, from_wire) = lane(config, 1, 1);
        let wire = Wire {
            incoming: from_port,
            outgoing: to_port,
        };
        (Self::new(to_wire, from_wire, config), wire)
    }

    /// Copies a packet into frames. False if the pool has not enough of them.
    fn receive(pool: &FramePool, bytes: &[u8], out: &mut RxBatch) -> bool {
        let room = pool.packet_room() as usize;
        if (1..=room).contains(&bytes.len()) {
            let frame = pool.alloc_copy(bytes);
            return frame.map(|frame| out.push(frame, false)).is_some();
        }
        let pieces = bytes.len().div_ceil(room).max(1);
        if (pool.available() as usize) < pieces {
            pool.collect_returned();
            if (pool.available() as usize) < pieces {
                return false;
            }
        }
        for (n, piece) in bytes.chunks(room).enumerate() {
            let Some(frame) = pool.alloc_copy(piece) else {
                return false;
            };
            out.push(frame, n + 1 < pieces);
        }
        true
    }
}

impl Port for MemoryPort {
    fn caps(&self) -> PortCaps {
        PortCaps {
            zero_copy: false,
            mode: ModeGot::Memory,
            rx_superframe_bytes: self.config.packet_bytes,
            tx_segment_bytes: self.config.tx_segment_bytes,
            tx_checksum: false,
            rx_checksum: RxChecksum::Verify,
            mtu: self.config.mtu,
        }
    }

    fn rx_burst(&mut self, pool: &FramePool, out: &mut RxBatch) -> usize {
        let before = out.len();
        let Self {
            incoming, stats, ..
        } = self;
        while out.room() > 0 {
            let taken = incoming.take(|bytes| (bytes.len(), Self::receive(pool, bytes, out)));
            match taken {
                None => break,
                Some((len, true)) => {
                    stats.rx_packets += 1;
                    stats.rx_bytes += len as u64;
                }
                Some((_, false)) => stats.rx_no_frame += 1,
            }
        }
        self.incoming.give_back();
        out.len() - before
    }

    fn tx(&mut self, pool: &FramePool, frame: &Frame) -> Tx {
        if !self.carrier {
            self.stats.tx_no_carrier += 1;
            return Tx::NoCarrier;
        }
        if self.tx_free() == 0 {
            self.stats.tx_full += 1;
            return Tx::Full;
        }
        if frame.is_empty() || frame.len() > self.config.packet_bytes as usize {
            self.stats.tx_invalid += 1;
            return Tx::Queued;
        }
        if !self.outgoing.refer(pool, frame) {
            if !self.outgoing.put(frame.packet()) {
                self.stats.tx_full += 1;
                return Tx::Full;
            }
            self.stats.tx_copied += 1;
        }
        self.stats.tx_in_flight += 1;
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += frame.len() as u64;
        Tx::Queued
    }

    fn tx_burst<'f>(
        &mut self,
        _pool: &FramePool,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        if !self.carrier {
            self.stats.tx_no_carrier += 1;
            return Tx::NoCarrier;
        }
        self.burst.clear();
        for (n, (frame, range)) in frames.enumerate() {
            if n == BURST_FRAMES_MAX {
                self.stats.tx_full += 1;
                return Tx::Full;
            }
            self.burst.extend_from_slice(&frame.packet()[range]);
        }
        let (headers, payload) = self.burst.split_at(shape.header_len);
        let segments = payload.len().div_ceil(usize::from(shape.segment_bytes));
        if (self.tx_free() as usize) < segments {
            self.stats.tx_full += 1;
            return Tx::Full;
        }
        let (stats, outgoing) = (&mut self.stats, &mut self.outgoing);
        segmentation::segment(headers, shape, payload, |packet| {
            let queued = outgoing.put(packet);
            debug_assert!(queued, "room was checked");
            stats.tx_in_flight += 1;
            stats.tx_packets += 1;
            stats.tx_bytes += packet.len() as u64;
        });
        Tx::Queued
    }

    fn tx_free(&self) -> u32 {
        if self.carrier {
            self.config.tx_ring.saturating_sub(self.stats.tx_in_flight)
        } else {
            0
        }
    }

    fn flush(&mut self) {
        self.outgoing.publish();
    }

    fn complete(&mut self, pool: &FramePool) -> u32 {
        let completed = self.outgoing.take_back(|index| {
            pool.complete(index);
        });
        self.stats.tx_in_flight -= completed;
        completed
    }

    fn refill(&mut self, _pool: &FramePool) {}

    fn stats(&self) -> PortStats {
        PortStats {
            carrier: self.carrier,
            ..self.stats
        }
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn set_carrier(&mut self, up: bool) {
        self.carrier = up;
    }

    fn reclaim_all(&mut self, pool: &FramePool) -> u32 {
        self.carrier = false;
        self.outgoing.recall();
        self.complete(pool);
        0
    }
}

impl Wire {
    /// Takes the oldest packet that the port transmitted; its frame completes.
    #[must_use]
    pub fn take_transmitted(&mut self) -> Option<Vec<u8>> {
        self.with_transmitted(<[u8]>::to_vec)
    }

    /// As [`Wire::take_transmitted`], without allocating.
    pub fn with_transmitted<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let result = self.incoming.take(read);
        self.incoming.give_back();
        result
    }

    /// Packets transmitted and not taken.
    #[must_use]
    pub fn transmitted(&self) -> usize {
        self.incoming.arrived.len() + lock(&self.incoming.lane.packets).len()
    }

    /// Puts a packet in front of the port. False: dropped, the link holds as many
    /// packets as it can or this one is too large.
    pub fn inject(&mut self, bytes: &[u8]) -> bool {
        // Nobody waits for completions in this direction.
        self.outgoing.take_back(|_| ());
        self.outgoing.put(bytes)
    }
}

impl std::fmt::Debug for MemoryPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryPort")
            .field("config", &self.config)
            .field("stats", &self.stats)
            .finish()
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("transmitted", &self.transmitted())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: MemoryConfig = MemoryConfig {
        tx_ring: 4,
        packet_bytes: 1000,
        mtu: 900,
        tx_segment_bytes: 0,
    };

    fn pool() -> FramePool {
        let pool = FramePool::heap(16, 512);
        assert!(pool.adopt());
        pool
    }

    fn packet(pool: &FramePool, len: usize, seed: u8) -> Frame {
        let mut frame = pool.alloc().unwrap();
        for (byte, n) in frame.buffer_mut().unwrap()[..len].iter_mut().zip(0u8..=255) {
            *byte = n ^ seed;
        }
        frame.set_len(len);
        frame
    }

    #[test]
    fn packets_cross_a_pair_in_both_directions() {
        let (mut a, mut b) = pair(SMALL);
        let (pool_a, pool_b) = (pool(), pool());
        let mut batch = RxBatch::new(8);
        for round in 0..20 {
            let sent = packet(&pool_a, 60 + round, 7);
            assert_eq!(a.tx(&pool_a, &sent), Tx::Queued);
            assert!(sent.in_flight());
            a.flush();
            assert_eq!(b.rx_burst(&pool_b, &mut batch), 1);
            let got = batch.drain().next().unwrap();
            assert_eq!(got.frame.packet(), sent.packet());
            assert_eq!(b.tx(&pool_b, &got.frame), Tx::Queued);
            b.flush();
            drop(got);
            assert_eq!(pool_b.accounting().orphaned, 1);
            assert_eq!(a.complete(&pool_a), 1);
            assert!(!sent.in_flight());
            assert_eq!(a.rx_burst(&pool_a, &mut batch), 1);
            assert_eq!(batch.drain().next().unwrap().frame.packet(), sent.packet());
            assert_eq!(b.complete(&pool_b), 1);
        }
        assert_eq!(
            (pool_a.accounting().free, pool_b.accounting().free),
            (16, 16)
        );
        assert_eq!(a.stats().tx_packets, 20);
    }

    #[test]
    fn ring_fills_until_the_simulator_takes_packets() {
        let (mut port, mut wire) = MemoryPort::detached(SMALL);
        let pool = pool();
        let frames: Vec<_> = (0..5).map(|n| packet(&pool, 100, n)).collect();
        for frame in &frames[..4] {
            assert_eq!(port.tx(&pool, frame), Tx::Queued);
        }
        assert_eq!((port.tx(&pool, &frames[4]), port.tx_free()), (Tx::Full, 0));
        assert!(!frames[4].in_flight());
        assert_eq!(wire.take_transmitted().unwrap(), frames[0].packet());
        assert_eq!(port.tx(&pool, &frames[4]), Tx::Full, "not completed yet");
        assert_eq!(port.complete(&pool), 1);
        assert_eq!(port.tx(&pool, &frames[4]), Tx::Queued);
        assert_eq!(wire.transmitted(), 4);
        drop(frames);
        assert_eq!(pool.accounting().orphaned, 4);
        assert_eq!(port.reclaim_all(&pool), 0);
        assert_eq!(pool.accounting().free, 16);
    }

    #[test]
    fn port_without_carrier_refuses() {
        let (mut port, wire) = MemoryPort::detached(SMALL);
        let pool = pool();
        let frame = packet(&pool, 100, 0);
        port.set_carrier(false);
        assert_eq!((port.tx(&pool, &frame), port.tx_free()), (Tx::NoCarrier, 0));
        assert_eq!((wire.transmitted(), frame.in_flight()), (0, false));
        port.set_carrier(true);
        assert_eq!(port.tx(&pool, &frame), Tx::Queued);
    }

    #[test]
    fn packet_larger_than_a_frame_arrives_in_fragments() {
        let (mut port, mut wire) = MemoryPort::detached(SMALL);
        let pool = pool();
        let bytes: Vec<u8> = (0u16..600).map(|n| n.to_be_bytes()[1]).collect();
        assert!(wire.inject(&bytes));
        assert!(!wire.inject(&[0; 1001]), "larger than the link takes");
        let mut batch = RxBatch::new(1);
        assert_eq!(
            port.rx_burst(&pool, &mut batch),
            3,
            "a packet is not torn apart"
        );
        assert_eq!(
            batch.iter().map(|f| f.more).collect::<Vec<_>>(),
            [true, true, false]
        );
        let joined: Vec<u8> = batch
            .iter()
            .flat_map(|f| f.frame.packet().to_vec())
            .collect();
        assert_eq!(joined, bytes);
        assert_eq!(batch.room(), 0);
    }

    #[test]
    fn empty_pool_drops_and_counts() {
        let (mut port, mut wire) = MemoryPort::detached(SMALL);
        let pool = pool();
        let mut held: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        let mut batch = RxBatch::new(8);
        assert!(wire.inject(&[1; 600]));
        held.truncate(14); // two free, three needed
        assert_eq!(port.rx_burst(&pool, &mut batch), 0);
        assert_eq!((port.stats().rx_no_frame, pool.available()), (1, 2));
        for _ in 0..20 {
            assert!(wire.inject(&[2; 60]), "buffers are recycled");
            assert_eq!(port.rx_burst(&pool, &mut batch), 1);
            batch.clear();
        }
    }

    #[test]
    fn frame_of_another_region_is_copied() {
        let (mut port, mut wire) = MemoryPort::detached(SMALL);
        let (mine, other) = (pool(), pool());
        let frame = packet(&other, 80, 9);
        assert_eq!(port.tx(&mine, &frame), Tx::Queued);
        assert!(!frame.in_flight());
        assert_eq!(port.stats().tx_copied, 1);
        assert_eq!(wire.take_transmitted().unwrap(), frame.packet());
        assert_eq!(port.complete(&mine), 1);
    }

    #[test]
    fn pair_works_across_threads() {
        const PACKETS: u32 = 5_000;
        let (mut a, mut b) = pair(SMALL);
        let receiver = std::thread::spawn(move || {
            let pool = pool();
            let mut batch = RxBatch::new(8);
            let mut next = 0u32;
            while next < PACKETS {
                if b.rx_burst(&pool, &mut batch) == 0 {
                    std::thread::yield_now();
                }
                for got in batch.drain() {
                    assert_eq!(got.frame.packet(), next.to_be_bytes());
                    next += 1;
                }
            }
            pool.accounting().free
        });
        let pool = pool();
        let mut sent = 0u32;
        while sent < PACKETS {
            a.flush();
            a.complete(&pool);
            let Some(mut frame) = pool.alloc() else {
                std::thread::yield_now();
                continue;
            };
            frame.buffer_mut().unwrap()[..4].copy_from_slice(&sent.to_be_bytes());
            frame.set_len(4);
            match a.tx(&pool, &frame) {
                Tx::Queued => sent += 1,
                Tx::Full => std::thread::yield_now(),
                Tx::NoCarrier => unreachable!("the link is up"),
            }
        }
        a.flush();
        assert_eq!(receiver.join().unwrap(), 16);
        while pool.accounting().free < 16 {
            a.complete(&pool);
        }
    }
}
