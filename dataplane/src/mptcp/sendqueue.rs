//! The payload of unacknowledged data, by stream offset.
//!
//! One chunk is one frame: what one segment carried when it left first. A chunk keeps its
//! frame until its bytes are acknowledged at connection level *and* no live subflow has them
//! outstanding: subflow-level retransmission must repeat the same bytes (RFC 8684 §3.3.6),
//! even if they were DATA_ACKed by way of another subflow.

use std::collections::VecDeque;

use crate::buf::Frame;
use crate::checksum::Sum;
use crate::io::PortId;

/// Records of freed chunks among the live ones that are not worth a sweep.
const DEAD_MAX: usize = 256;
/// Chunks looked at before a search: a short one now and then shifts those behind it.
const GUESSES: usize = 3;

/// One segment's payload.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Offset of the first byte.
    pub(crate) off: u64,
    /// Bytes.
    pub(crate) len: u32,
    /// Where in the packet the payload starts: fixed by the header it was written behind.
    pub(crate) header_len: usize,
    /// Port the frame was allocated for.
    pub(crate) port: PortId,
    /// Sum of the payload.
    pub(crate) sum: Sum,
    /// The frame, until it is no longer needed.
    pub(crate) frame: Option<Frame>,
    /// Outstanding transmissions on live subflows.
    refs: u32,
}

impl Chunk {
    /// One past the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.off + u64::from(self.len)
    }

    /// The payload, while it is kept.
    pub(crate) fn payload(&self) -> Option<&[u8]> {
        let end = self.header_len + usize::try_from(self.len).ok()?;
        self.frame.as_ref()?.packet().get(self.header_len..end)
    }
}

/// Chunks in order, contiguous.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    chunks: VecDeque<Chunk>,
    /// Acknowledged at connection level.
    una: u64,
    /// End of what the application gave.
    nxt: u64,
    frames: usize,
    /// Bytes below `una` whose frames are still pinned by some subflow.
    pinned_bytes: u64,
    /// Where the next reference will be dropped, if as usual in order.
    dropping: usize,
}

const _: () = assert!(size_of::<Chunk>() <= 64, "one cache line per segment");

impl SendQueue {
    /// Nothing comes or goes at the moment: gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }

    /// First byte not acknowledged at connection level.
    pub(crate) fn una(&self) -> u64 {
        self.una
    }

    /// One past the last byte taken from the application.
    pub(crate) fn nxt(&self) -> u64 {
        self.nxt
    }

    /// Bytes not acknowledged at connection level.
    pub(crate) fn unacked(&self) -> u64 {
        self.nxt - self.una
    }

    /// Bytes whose frames are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.unacked() + self.pinned_bytes
    }

    /// Bytes acknowledged at connection level but kept for some subflow's retransmission.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Frames kept.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Appends one segment's payload, `len` bytes behind `header_len` of room.
    pub(crate) fn push(
        &mut self,
        frame: Frame,
        header_len: usize,
        len: u32,
        sum: Sum,
        port: PortId,
    ) -> u64 {
        let off = self.nxt;
        self.chunks.push_back(Chunk {
            off,
            len,
            header_len,
            port,
            sum,
            frame: Some(frame),
            refs: 0,
        });
        self.nxt += u64::from(len);
        self.frames += 1;
        off
    }

    /// Where the chunk that holds `off` is. Nearly all chunks are one full segment long, so
    /// its place can be calculated; the search is for the rest.
    fn index(&self, off: u64) -> Option<usize> {
        let (front, back) = (self.chunks.front()?, self.chunks.back()?);
        let distance = off.checked_sub(front.off)?;
        if off >= back.end() {
            return None;
        }
        let usual = front.len.max(back.len).max(1);
        // A queue holds less than 4 GiB (`send_buffer_bytes`); if not, the search finds it.
        let guess = u32::try_from(distance).unwrap_or(u32::MAX) / usual;
        for index in guess as usize..guess as usize + GUESSES {
            if let Some(chunk) = self.chunks.get(index)
                && (chunk.off..chunk.end()).contains(&off)
            {
                return Some(index);
            }
        }
        let index = self.chunks.partition_point(|c| c.end() <= off);
        self.chunks
            .get(index)
            .filter(|c| c.off <= off)
            .map(|_| index)
    }

    /// The chunk that holds `off`.
    pub(crate) fn chunk(&self, off: u64) -> Option<&Chunk> {
        self.index(off).and_then(|i| self.chunks.get(i))
    }

    /// The chunk that holds `off`.
    pub(crate) fn chunk_mut(&mut self, off: u64) -> Option<&mut Chunk> {
        let index = self.index(off)?;
        self.chunks.get_mut(index)
    }

    /// The chunks from the one that holds `off` on.
    pub(crate) fn chunks_from(&self, off: u64) -> impl Iterator<Item = &Chunk> + Clone {
        let index = self.index(off).unwrap_or(self.chunks.len());
        self.chunks.range(index..)
    }

    /// As [`SendQueue::chunks_from`], to send them.
    pub(crate) fn chunks_from_mut(&mut self, off: u64) -> impl Iterator<Item = &mut Chunk> {
        let index = self.index(off).unwrap_or(self.chunks.len());
        self.chunks.range_mut(index..)
    }

    /// A subflow has sent (part of) the chunk that holds `off`.
    pub(crate) fn add_ref(&mut self, off: u64) {
        if let Some(chunk) = self.chunk_mut(off) {
            chunk.refs += 1;
        }
    }

    /// [`SendQueue::add_ref`] for every chunk from the one that holds `off` to `end`.
    pub(crate) fn add_refs(&mut self, off: u64, end: u64) {
        for chunk in self.chunks_from_mut(off).take_while(|c| c.off < end) {
            chunk.refs += 1;
        }
    }

    /// A subflow no longer has to resend it.
    pub(crate) fn drop_ref(&mut self, off: u64) {
        self.drop_refs(std::iter::once(off));
    }

    /// [`SendQueue::drop_ref`] for each of these, which as a rule are chunk after chunk.
    pub(crate) fn drop_refs(&mut self, mut offs: impl Iterator<Item = u64>) {
        let mut next = offs.next();
        while let Some(off) = next {
            let guess = self.chunks.get(self.dropping);
            let from = if guess.is_some_and(|c| c.off == off) {
                self.dropping
            } else if let Some(index) = self.index(off) {
                index
            } else {
                next = offs.next();
                continue;
            };
            let (una, before) = (self.una, self.frames);
            self.dropping = from;
            for chunk in self.chunks.range_mut(from..) {
                // Only the first may be named by an offset within it.
                let named = next == Some(chunk.off) || self.dropping == from;
                if next.is_none() || !named {
                    break;
                }
                debug_assert!(chunk.refs > 0, "reference to {next:?} dropped twice");
                chunk.refs = chunk.refs.saturating_sub(1);
                if chunk.refs == 0 && chunk.end() <= una && chunk.frame.take().is_some() {
                    self.frames -= 1;
                    self.pinned_bytes -= u64::from(chunk.len);
                }
                self.dropping += 1;
                next = offs.next();
            }
            if self.frames < before {
                self.pop_dead();
            }
        }
    }

    /// Whether some live subflow has the byte outstanding.
    pub(crate) fn outstanding(&self, off: u64) -> bool {
        self.refs(off) > 0
    }

    /// Outstanding transmissions of (parts of) the chunk that holds `off`.
    pub(crate) fn refs(&self, off: u64) -> u32 {
        self.chunk(off).map_or(0, |c| c.refs)
    }

    /// Everything below `off` arrived. Returns how many bytes that is news for.
    pub(crate) fn acknowledge(&mut self, off: u64) -> u64 {
        let off = off.min(self.nxt);
        if off <= self.una {
            return 0;
        }
        let news = off - self.una;
        let una = std::mem::replace(&mut self.una, off);
        // As a rule no subflow refers to them any more: records and frames go at once.
        let free = |c: &&Chunk| c.end() <= off && c.refs == 0;
        let gone = self.chunks.iter().take_while(free).count();
        // A record without frame is one that waited behind the first.
        let framed = |c: &Chunk| usize::from(c.frame.is_some());
        self.frames -= self.chunks.drain(..gone).map(|c| framed(&c)).sum::<usize>();
        self.dropping = self.dropping.saturating_sub(gone);
        if self.chunks.front().is_some_and(|c| c.end() <= off) {
            self.acknowledge_pinned(una, off);
        }
        news
    }

    /// [`SendQueue::acknowledge`] for what lies behind a chunk that some subflow refers to.
    fn acknowledge_pinned(&mut self, una: u64, off: u64) {
        let mut index = self.chunks.partition_point(|c| c.end() <= una);
        while let Some(chunk) = self.chunks.get_mut(index).filter(|c| c.end() <= off) {
            if chunk.refs == 0 {
                chunk.frame = None;
                self.frames -= 1;
            } else {
                self.pinned_bytes += u64::from(chunk.len);
            }
            index += 1;
        }
        self.pop_dead();
    }

    fn pop_dead(&mut self) {
        while self
            .chunks
            .front()
            .is_some_and(|c| c.frame.is_none() && c.end() <= self.una)
        {
            self.chunks.pop_front();
            self.dropping = self.dropping.saturating_sub(1);
        }
        // One segment that a subflow never gets acknowledged must not keep the records of
        // all that was sent and freed behind it. At least as many go as stay, so a segment
        // pays for one move at the most.
        if self.chunks.len() > 2 * self.frames + DEAD_MAX {
            let una = self.una;
            self.chunks.retain(|c| c.frame.is_some() || c.end() > una);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        (self.frames, self.pinned_bytes) = (0, 0);
        self.una = self.nxt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::FramePool;

    fn filled(pool: &FramePool, chunks: u32) -> SendQueue {
        let mut q = SendQueue::default();
        for _ in 0..chunks {
            q.push(pool.alloc().unwrap(), 94, 10, Sum::ZERO, PortId(0));
        }
        q
    }

    #[test]
    fn frames_live_until_acknowledged_and_unreferenced() {
        let pool = FramePool::heap(4, 2048);
        assert!(pool.adopt());
        let mut q = filled(&pool, 3);
        q.add_ref(0);
        q.add_ref(10);
        q.add_ref(10);
        q.add_ref(25);
        assert_eq!(q.acknowledge(20), 20);
        assert_eq!((q.pinned_bytes(), pool.available()), (20, 1));
        q.drop_ref(10);
        q.drop_ref(15);
        assert_eq!((q.pinned_bytes(), pool.available()), (10, 2));
        assert!(q.chunk(10).unwrap().frame.is_none());
        q.drop_ref(0);
        assert_eq!((q.pinned_bytes(), pool.available()), (0, 3));
        assert!(q.chunk(10).is_none(), "dead chunks leave in order");
        q.drop_ref(20);
        assert_eq!(pool.available(), 3, "not acknowledged yet");
        assert_eq!(q.acknowledge(99), 10);
        assert_eq!((q.frames(), q.bytes(), pool.available()), (0, 0, 4));
    }

    #[test]
    fn one_pinned_chunk_does_not_grow_the_queue() {
        let pool = FramePool::heap(4, 2048);
        assert!(pool.adopt());
        let mut q = filled(&pool, 1);
        q.add_ref(0);
        for _ in 0..100_000 {
            q.push(pool.alloc().unwrap(), 94, 10, Sum::ZERO, PortId(0));
            q.acknowledge(u64::MAX);
        }
        assert_eq!((q.frames(), q.bytes()), (1, 10));
        assert!(q.chunks.len() <= 2 + DEAD_MAX + 1, "{}", q.chunks.len());
        q.drop_ref(0);
        assert_eq!((q.frames(), q.chunks.len(), pool.available()), (0, 0, 4));
    }

    #[test]
    fn partial_acknowledgment_keeps_the_chunk_whole() {
        let pool = FramePool::heap(4, 2048);
        assert!(pool.adopt());
        let mut q = filled(&pool, 2);
        assert_eq!(q.acknowledge(5), 5);
        assert_eq!(q.acknowledge(5), 0);
        assert_eq!(q.chunk(5).unwrap().off, 0);
        assert_eq!((q.frames(), q.unacked()), (2, 15));
    }
}
