//! Memory links: two ports back to back, or one port and the simulator.
//!
//! A transmitted packet is copied into a buffer of the lane, as a wire would, and the
//! frame stays in flight until the other side has taken the packet, as with a NIC. All
//! buffers are allocated when the link is made.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::{ModeGot, Port, PortCaps, PortStats, RxBatch, RxChecksum, Tx};
use crate::buf::{Frame, FramePool};
use crate::offload::{BurstShape, segmentation};

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

struct Packet {
    bytes: Box<[u8]>,
    len: usize,
    /// The sender's frame, which is in flight; None if the ring does not refer to it.
    frame: Option<u32>,
}

/// One direction.
struct Lane {
    packets: ArrayQueue<Packet>,
    spare: ArrayQueue<Box<[u8]>>,
    completions: ArrayQueue<Option<u32>>,
}

impl Lane {
    fn new(config: MemoryConfig) -> Arc<Self> {
        let size = config.tx_ring.max(1) as usize;
        let lane = Self {
            packets: ArrayQueue::new(size),
            spare: ArrayQueue::new(size),
            completions: ArrayQueue::new(size),
        };
        for _ in 0..size {
            let fits = lane
                .spare
                .push(vec![0; config.packet_bytes as usize].into());
            debug_assert!(fits.is_ok());
        }
        Arc::new(lane)
    }

    /// Copies a packet onto the lane. False if there is no buffer or it is too small.
    fn put(&self, bytes: &[u8], frame: Option<u32>) -> bool {
        let Some(mut buffer) = self.spare.pop() else {
            return false;
        };
        let Some(room) = buffer.get_mut(..bytes.len()) else {
            self.recycle(buffer);
            return false;
        };
        room.copy_from_slice(bytes);
        let packet = Packet {
            bytes: buffer,
            len: bytes.len(),
            frame,
        };
        // As many slots as buffers.
        let fits = self.packets.push(packet);
        debug_assert!(fits.is_ok());
        true
    }

    fn take<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let packet = self.packets.pop()?;
        let result = read(&packet.bytes[..packet.len]);
        self.recycle(packet.bytes);
        let fits = self.completions.push(packet.frame);
        debug_assert!(fits.is_ok());
        Some(result)
    }

    fn recycle(&self, buffer: Box<[u8]>) {
        let fits = self.spare.push(buffer);
        debug_assert!(fits.is_ok());
    }
}

/// One end of a memory link.
pub struct MemoryPort {
    outgoing: Arc<Lane>,
    incoming: Arc<Lane>,
    config: MemoryConfig,
    carrier: bool,
    stats: PortStats,
    /// A burst being cut, reused.
    burst: Vec<u8>,
}

/// The other end of a [`MemoryPort::detached`] port: what the simulator holds.
pub struct Wire {
    outgoing: Arc<Lane>,
    incoming: Arc<Lane>,
}

/// Two ports, connected.
#[must_use]
pub fn pair(config: MemoryConfig) -> (MemoryPort, MemoryPort) {
    let (ab, ba) = (Lane::new(config), Lane::new(config));
    let end = |outgoing: &Arc<Lane>, incoming: &Arc<Lane>| {
        MemoryPort::new(Arc::clone(outgoing), Arc::clone(incoming), config)
    };
    (end(&ab, &ba), end(&ba, &ab))
}

impl MemoryPort {
    fn new(outgoing: Arc<Lane>, incoming: Arc<Lane>, config: MemoryConfig) -> Self {
        Self {
            outgoing,
            incoming,
            config,
            carrier: true,
            stats: PortStats::default(),
            burst: Vec::with_capacity(config.tx_segment_bytes as usize),
        }
    }

    /// A port and the wire that the simulator drives it with.
    #[must_use]
    pub fn detached(config: MemoryConfig) -> (Self, Wire) {
        let (outgoing, incoming) = (Lane::new(config), Lane::new(config));
        let wire = Wire {
            outgoing: Arc::clone(&outgoing),
            incoming: Arc::clone(&incoming),
        };
        (Self::new(outgoing, incoming, config), wire)
    }

    /// Copies a packet into frames. False if the pool has not enough of them.
    fn receive(pool: &FramePool, bytes: &[u8], out: &mut RxBatch) -> bool {
        let room = pool.packet_room() as usize;
        let pieces = bytes.len().div_ceil(room).max(1);
        if (pool.available() as usize) < pieces {
            pool.collect_returned();
            if (pool.available() as usize) < pieces {
                return false;
            }
        }
        for (n, piece) in bytes.chunks(room).enumerate() {
            let Some(mut frame) = pool.alloc() else {
                return false;
            };
            if let Some(buffer) = frame.buffer_mut() {
                buffer[..piece.len()].copy_from_slice(piece);
            }
            frame.set_len(piece.len());
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
        while out.room() > 0 {
            let incoming = &self.incoming;
            let taken = incoming.take(|bytes| (bytes.len(), Self::receive(pool, bytes, out)));
            match taken {
                None => break,
                Some((len, true)) => {
                    self.stats.rx_packets += 1;
                    self.stats.rx_bytes += len as u64;
                }
                Some((_, false)) => self.stats.rx_no_frame += 1,
            }
        }
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
        // The copy is made here and now; the reference only imitates a NIC, so a frame
        // of another region does without.
        let referred = pool.tx_ref(frame).then(|| frame.index());
        self.stats.tx_copied += u64::from(referred.is_none());
        if !self.outgoing.put(frame.packet(), referred) {
            if let Some(index) = referred {
                pool.complete(index);
            }
            self.stats.tx_full += 1;
            return Tx::Full;
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
        for (frame, range) in frames {
            self.burst.extend_from_slice(&frame.packet()[range]);
        }
        let (headers, payload) = self.burst.split_at(shape.header_len);
        let segments = payload.len().div_ceil(usize::from(shape.segment_bytes));
        if (self.tx_free() as usize) < segments {
            self.stats.tx_full += 1;
            return Tx::Full;
        }
        let (stats, outgoing) = (&mut self.stats, &self.outgoing);
        segmentation::segment(headers, shape, payload, |packet| {
            let queued = outgoing.put(packet, None);
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

    fn flush(&mut self) {}

    fn complete(&mut self, pool: &FramePool) -> u32 {
        let mut completed = 0;
        while let Some(frame) = self.outgoing.completions.pop() {
            if let Some(index) = frame {
                pool.complete(index);
            }
            completed += 1;
        }
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
        while self.outgoing.take(|_| ()).is_some() {}
        self.complete(pool);
        0
    }
}

impl Wire {
    /// Takes the oldest packet that the port transmitted; its frame completes.
    #[must_use]
    pub fn take_transmitted(&mut self) -> Option<Vec<u8>> {
        self.outgoing.take(<[u8]>::to_vec)
    }

    /// As [`Wire::take_transmitted`], without allocating.
    pub fn with_transmitted<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.outgoing.take(read)
    }

    /// Packets transmitted and not taken.
    #[must_use]
    pub fn transmitted(&self) -> usize {
        self.outgoing.packets.len()
    }

    /// Puts a packet in front of the port. False: dropped, the link holds as many
    /// packets as it can or this one is too large.
    pub fn inject(&mut self, bytes: &[u8]) -> bool {
        // Nobody waits for completions in this direction.
        while self.incoming.completions.pop().is_some() {}
        self.incoming.put(bytes, None)
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
        assert_eq!(receiver.join().unwrap(), 16);
        while pool.accounting().free < 16 {
            a.complete(&pool);
        }
    }
}
