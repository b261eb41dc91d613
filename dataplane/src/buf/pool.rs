//! One worker's frames.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::arena::{Arena, FreeList, HEADROOM_BYTES, HeapRegion, Home, Region, Word, thread_tag};
use super::frame::Frame;
use super::handle::RegionHandle;

/// Where a pool's frames are. The fields but `foreign_seen` add up to
/// [`FramePool::frames`].
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FrameAccounting {
    /// Ready for [`FramePool::alloc`].
    pub free: u32,
    /// Freed on another thread, not yet [collected](FramePool::collect_returned).
    pub returning: u32,
    /// Held by a token and in no ring.
    pub ours: u32,
    /// In a fill ring.
    pub fill: u32,
    /// Held by a token and referred to by a TX ring.
    pub tx: u32,
    /// In a TX ring, the token is gone.
    pub orphaned: u32,
    /// Descriptors refused: the kernel handed out a frame it did not own, or a length
    /// that leaves the frame.
    pub foreign_seen: u64,
    /// Nowhere. Anything but 0 is a bug.
    pub leaked: u32,
}

impl FrameAccounting {
    /// Sum of the places.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.free + self.returning + self.ours + self.fill + self.tx + self.orphaned + self.leaked
    }
}

/// A frame given to a fill ring: its number within the region.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Lent(pub u32);

/// A partition of a region's frames, for one worker.
///
/// Move it to its worker, call [`FramePool::adopt`] there, and use it nowhere else:
/// afterwards other threads get nothing from it. Outstanding frames keep the memory
/// alive after the pool is dropped.
pub struct FramePool {
    arena: NonNull<Arena>,
    home: usize,
    foreign_seen: Cell<u64>,
    _not_sync: PhantomData<Cell<()>>,
}

// SAFETY: the arena is `Sync`. The free list is reached through the pool only before
// adoption (when no `Frame` drop touches it) or on the adopting thread.
unsafe impl Send for FramePool {}

impl FramePool {
    /// A pool of its own on the heap: simulator, tests, benchmarks.
    ///
    /// # Panics
    /// If `frame_bytes` is not a power of two above [`HEADROOM_BYTES`], or `frames` is 0.
    #[must_use]
    pub fn heap(frames: u32, frame_bytes: u32) -> Self {
        let region = HeapRegion::new(frames as usize * frame_bytes as usize);
        let mut pools = Self::partition(Box::new(region), frame_bytes, HEADROOM_BYTES, &[frames]);
        pools.pop().expect("one pool was asked for")
    }

    /// Cuts a region into frames whose packets start at `tx_offset`, and gives the n-th
    /// pool the next `pools[n]` frames.
    ///
    /// # Panics
    /// If the region is too small, a pool is empty, or `frame_bytes` is no power of two.
    #[must_use]
    pub fn partition(
        region: Box<dyn Region>,
        frame_bytes: u32,
        tx_offset: u32,
        pools: &[u32],
    ) -> Vec<Self> {
        let arena = Arena::create(region, frame_bytes, tx_offset, pools);
        let pool = |home| Self {
            arena,
            home,
            foreign_seen: Cell::new(0),
            _not_sync: PhantomData,
        };
        (0..pools.len()).map(pool).collect()
    }

    #[inline]
    fn arena(&self) -> &Arena {
        // SAFETY: an open pool holds a reference.
        unsafe { self.arena.as_ref() }
    }

    #[inline]
    fn home(&self) -> &Home {
        &self.arena().homes[self.home]
    }

    /// The free list, if this thread may touch it.
    #[inline]
    #[allow(clippy::mut_from_ref)] // `Cell`-like: see SAFETY
    fn free(&self) -> Option<&mut FreeList> {
        let home = self.home();
        let owner = home.owner.load(Ordering::Relaxed);
        if owner != 0 && owner != thread_tag() {
            return None;
        }
        // SAFETY: not adopted: only this handle, which is `!Sync`, reaches the list.
        // Adopted here: only this thread does. Every caller in this module ends the
        // borrow before it calls or drops anything that could reach the list again.
        Some(unsafe { &mut *home.free.get() })
    }

    /// Makes the calling thread the pool's: frames freed here go straight to the free
    /// list. The first caller wins; false if another thread was first.
    pub fn adopt(&self) -> bool {
        let tag = thread_tag();
        match self
            .home()
            .owner
            .compare_exchange(0, tag, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => {
                self.collect_returned();
                true
            }
            Err(owner) => owner == tag,
        }
    }

    /// Takes the frame that was freed last. Empty packet, at the pool's TX offset.
    #[inline]
    pub fn alloc(&self) -> Option<Frame> {
        let index = self.take()?;
        let arena = self.arena();
        let start = arena.tx_offset;
        // SAFETY: `take` made it ours alone; an empty packet at `start` lies in the frame.
        unsafe {
            arena.resized(index, start, 0);
            Some(Frame::new(self.arena, index, start, 0))
        }
    }

    /// As [`FramePool::alloc`], with a copy of `packet`. None also if it does not fit.
    #[inline]
    pub fn alloc_copy(&self, packet: &[u8]) -> Option<Frame> {
        let len = u32::try_from(packet.len()).ok()?;
        if len > self.packet_room() {
            return None;
        }
        let index = self.take()?;
        let arena = self.arena();
        let start = arena.tx_offset;
        let to = arena.byte(index, start);
        // SAFETY: `take` made the frame ours alone, so nobody reads or writes it, and `packet`
        // is not in it; `len` bytes from `start` lie in it.
        unsafe {
            std::ptr::copy_nonoverlapping(packet.as_ptr(), to.as_ptr(), packet.len());
            arena.resized(index, start, len);
            Some(Frame::new(self.arena, index, start, len))
        }
    }

    /// Takes a frame off the free list; from now on it is ours, and the caller makes the token.
    #[inline]
    fn take(&self) -> Option<u32> {
        let index = match self.free()?.pop() {
            Some(index) => index,
            None => self.alloc_returned()?,
        };
        let arena = self.arena();
        let word = arena.word(index);
        let now = Word(word.load(Ordering::Relaxed));
        if now.place() != Word::FREE || now.in_flight() {
            // Not reachable; if it were, handing the frame out twice would be worse.
            debug_assert!(false, "frame {index} on the free list is not free");
            return None;
        }
        // It was FREE and on our list, so no token and no ring has it.
        word.store(now.at(Word::OURS).0, Ordering::Relaxed);
        Some(index)
    }

    #[cold]
    fn alloc_returned(&self) -> Option<u32> {
        self.collect_returned();
        self.free()?.pop()
    }

    /// Takes home the frames that other threads freed.
    pub fn collect_returned(&self) {
        let home = self.home();
        let Some(free) = self.free() else { return };
        while let Some(index) = home.returned.pop() {
            let word = self.arena().word(index);
            let now = Word(word.load(Ordering::Acquire));
            debug_assert!(now.place() == Word::RETURNING);
            word.store(now.at(Word::FREE).0, Ordering::Relaxed);
            free.push(index);
        }
    }

    /// Frames ready for [`FramePool::alloc`], returned ones not counted.
    #[inline]
    #[must_use]
    pub fn available(&self) -> u32 {
        self.free()
            .map_or(0, |free| u32::try_from(free.len()).unwrap_or(u32::MAX))
    }

    /// Size of the pool.
    #[inline]
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.home().count
    }

    /// Frames of all pools of the region: one more than the largest [`Frame::index`].
    #[must_use]
    pub fn region_frames(&self) -> u32 {
        u32::try_from(self.arena().words.len()).unwrap_or(u32::MAX)
    }

    /// Bytes from the start of a fresh packet to the end of its frame.
    #[inline]
    #[must_use]
    pub fn packet_room(&self) -> u32 {
        self.arena().frame_bytes() - self.arena().tx_offset
    }

    /// Payload that fits behind `header_len` bytes of headers.
    #[inline]
    #[must_use]
    pub fn payload_room(&self, header_len: u32) -> u32 {
        self.packet_room().saturating_sub(header_len)
    }

    /// Whether the frame is of this pool's region (of any pool in it).
    #[inline]
    #[must_use]
    pub fn same_region(&self, frame: &Frame) -> bool {
        self.arena == frame.arena_ptr()
    }

    /// Gives a frame to a fill ring: from now on the kernel writes to it. Refused, with
    /// the frame, if it is in flight or of another region.
    #[inline]
    pub fn lend(&self, frame: Frame) -> Result<Lent, Frame> {
        if !self.same_region(&frame) || frame.in_flight() {
            return Err(frame);
        }
        let arena = self.arena();
        let index = frame.index();
        let word = arena.word(index);
        let mut now = word.load(Ordering::Relaxed);
        loop {
            if Word(now).closed() {
                return Err(frame);
            }
            let next = Word(now).at(Word::FILL).0;
            match word.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(Lent(frame.into_index())),
                Err(seen) => now = seen,
            }
        }
    }

    /// Takes a received packet: `addr` is what the RX descriptor says, relative to the
    /// region. None, counted, if the kernel did not own that frame or the packet leaves
    /// it; in the latter case the frame goes home.
    #[inline]
    pub fn reclaim(&self, addr: u64, len: u32) -> Option<Frame> {
        let arena = self.arena();
        if let Some((index, start)) = arena.locate(addr)
            && self.end_loan(index)
        {
            let fits = start
                .checked_add(len)
                .is_some_and(|end| end <= arena.frame_bytes());
            let (at, len) = if fits {
                (start, len)
            } else {
                (arena.tx_offset, 0)
            };
            // SAFETY: the loan had ended the last token and is over; the packet fits.
            let frame = unsafe {
                arena.resized(index, at, len);
                Frame::new(self.arena, index, at, len)
            };
            if fits {
                return Some(frame);
            }
        }
        self.count_foreign();
        None
    }

    /// Takes back a lent frame whose ring is gone. None if it was not lent.
    #[inline]
    pub fn recall(&self, Lent(index): Lent) -> Option<Frame> {
        let arena = self.arena();
        if (index as usize) >= arena.words.len() || !self.end_loan(index) {
            return None;
        }
        // SAFETY: the loan had ended the last token and is over; an empty packet fits.
        unsafe {
            arena.resized(index, arena.tx_offset, 0);
            Some(Frame::new(self.arena, index, arena.tx_offset, 0))
        }
    }

    /// FILL to OURS; the caller makes the token. False if the frame is not lent.
    #[inline]
    fn end_loan(&self, index: u32) -> bool {
        let word = self.arena().word(index);
        let mut now = word.load(Ordering::Relaxed);
        while Word(now).place() == Word::FILL && !Word(now).closed() {
            let next = Word(now).at(Word::OURS).0;
            match word.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => now = seen,
            }
        }
        false
    }

    /// Keeps the region's memory alive beyond the pool.
    #[must_use]
    pub fn region(&self) -> RegionHandle {
        RegionHandle::new(self.arena)
    }

    /// A TX ring refers to the frame from now on, until [`FramePool::complete`]. False,
    /// and no reference, if the frame is of another region or in absurdly many rings.
    #[inline]
    #[must_use]
    pub fn tx_ref(&self, frame: &Frame) -> bool {
        self.same_region(frame) && self.arena().tx_ref(frame.index())
    }

    /// A TX ring is done with a frame of this region. False, counted, if none had it.
    #[inline]
    pub fn complete(&self, index: u32) -> bool {
        let known = (index as usize) < self.arena().words.len() && self.arena().complete(index);
        if !known {
            self.count_foreign();
        }
        known
    }

    /// [`FramePool::complete`] by the address in a completion ring.
    #[inline]
    pub fn complete_addr(&self, addr: u64) -> bool {
        // u32::MAX is no frame: a region of that many frames does not fit its words.
        self.complete(
            self.arena()
                .locate(addr)
                .map_or(u32::MAX, |(index, _)| index),
        )
    }

    fn count_foreign(&self) {
        self.foreign_seen.set(self.foreign_seen.get() + 1);
    }

    /// Counts where every frame is. Walks the whole pool: for statistics, not per packet.
    /// Exact when no other thread holds frames of this pool.
    #[must_use]
    pub fn accounting(&self) -> FrameAccounting {
        let home = self.home();
        let mut sum = FrameAccounting {
            foreign_seen: self.foreign_seen.get(),
            ..Default::default()
        };
        for index in home.first..home.first + home.count {
            let word = self.arena().load(index);
            let place = match (word.place(), word.in_flight()) {
                (Word::FREE, false) => &mut sum.free,
                (Word::RETURNING, false) => &mut sum.returning,
                (Word::OURS, false) => &mut sum.ours,
                (Word::OURS, true) => &mut sum.tx,
                (Word::FILL, false) => &mut sum.fill,
                (Word::ORPHAN, true) => &mut sum.orphaned,
                _ => &mut sum.leaked,
            };
            *place += 1;
        }
        if let Some(free) = self.free() {
            // A frame that says FREE without being on the list is lost.
            let listed = u32::try_from(free.len()).unwrap_or(u32::MAX);
            let lost = sum.free.saturating_sub(listed);
            sum.free -= lost;
            sum.leaked += lost;
        }
        sum
    }
}

impl Drop for FramePool {
    fn drop(&mut self) {
        let arena = self.arena();
        let home = self.home();
        let count = home.count as usize;
        // One reference per frame that is outstanding. As many as there are frames at
        // first, so that frames dropped meanwhile cannot free the arena under us.
        arena.refs.fetch_add(count, Ordering::Relaxed);
        let mut outstanding = 0;
        for index in home.first..home.first + home.count {
            let before = Word(arena.word(index).fetch_or(Word::CLOSED, Ordering::AcqRel));
            // Only a token will ever look at the arena again. The kernel does not: it
            // pins the pages itself, and an open XSK keeps the mapping.
            outstanding += usize::from(before.place() == Word::OURS);
        }
        // SAFETY: our own reference and those added above for frames that are home.
        unsafe { Arena::unref(self.arena, 1 + count - outstanding) };
    }
}

impl fmt::Debug for FramePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramePool")
            .field("frames", &self.frames())
            .field("available", &self.available())
            .finish()
    }
}
