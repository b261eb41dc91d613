//! The state that the pools of one region and their frames share.
//!
//! Lifetime: an [`Arena`] is freed when its reference count falls to zero. It counts
//! one per open pool, one per frame that was outstanding when its pool was dropped,
//! and one per drop in progress on a foreign thread. Frames of an open pool need no
//! count of their own, which keeps the hot path free of it.
//!
//! Exclusivity: the place in a frame's word says who may touch its bytes. `OURS` and
//! `ORPHAN` are left, and `FREE` is entered, only by the rules in [`super`]; so at most
//! one token per frame exists and the kernel never writes into a frame with a token.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;

/// Bytes in front of every packet: `XDP_PACKET_HEADROOM` of the kernel, which puts
/// received packets there; heap pools leave the same room so that they behave alike.
pub const HEADROOM_BYTES: u32 = 256;

/// Memory that frames are cut from.
///
/// # Safety
/// `base()` must point to `bytes()` bytes of initialised memory that stays valid, at
/// the same address and without any other access from this process, until the region
/// is dropped. It must be aligned to the frame size or to 4096 bytes.
pub unsafe trait Region: Send + Sync {
    /// First byte.
    fn base(&self) -> NonNull<u8>;
    /// Length.
    fn bytes(&self) -> usize;
    /// Whether [`Region::resized`] wants to be called.
    fn wants_lengths(&self) -> bool {
        false
    }
    /// The packet in frame `index` starts at `start` within the frame and is `len`
    /// bytes long from now on.
    ///
    /// # Safety
    /// The caller has exclusive access to the frame, and `start + len` lies in it.
    unsafe fn resized(&self, index: u32, start: u32, len: u32) {
        let _ = (index, start, len);
    }
}

/// Zeroed heap memory.
pub struct HeapRegion {
    base: NonNull<u8>,
    layout: Layout,
}

impl fmt::Debug for HeapRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapRegion")
            .field("bytes", &self.layout.size())
            .finish()
    }
}

impl HeapRegion {
    /// A region of `bytes` bytes.
    ///
    /// # Panics
    /// If `bytes` is zero or exceeds the address space.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0, "a region cannot be empty");
        let layout = Layout::from_size_align(bytes, 4096).expect("region fits the address space");
        // SAFETY: the layout has a non-zero size.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(raw) else {
            handle_alloc_error(layout)
        };
        Self { base, layout }
    }
}

impl Drop for HeapRegion {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this layout and is freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: the pointer is to memory that only the owner of a frame dereferences.
unsafe impl Send for HeapRegion {}
// SAFETY: `&HeapRegion` gives out nothing but a pointer.
unsafe impl Sync for HeapRegion {}

// SAFETY: the allocation is zeroed, page aligned, owned and freed on drop only.
unsafe impl Region for HeapRegion {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn bytes(&self) -> usize {
        self.layout.size()
    }
}

/// Where a frame is. One `u32` per frame: place, closed flag, TX references, home.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) struct Word(pub(super) u32);

impl Word {
    pub(super) const FREE: u32 = 0;
    pub(super) const OURS: u32 = 1;
    pub(super) const FILL: u32 = 2;
    pub(super) const ORPHAN: u32 = 3;
    /// Freed by a foreign thread: in the return queue, or about to be.
    pub(super) const RETURNING: u32 = 4;
    const PLACE_MASK: u32 = 0x7;
    /// The home pool was dropped: nobody waits for this frame.
    pub(super) const CLOSED: u32 = 0x8;
    const REF_SHIFT: u32 = 8;
    pub(super) const REF: u32 = 1 << Self::REF_SHIFT;
    const REF_MASK: u32 = 0xfff << Self::REF_SHIFT;
    const HOME_SHIFT: u32 = 20;
    /// Pools in one region.
    pub(super) const HOMES_MAX: usize = 1 << (32 - Self::HOME_SHIFT);

    fn new(home: u32) -> Self {
        Self(Self::FREE | home << Self::HOME_SHIFT)
    }
    pub(super) fn place(self) -> u32 {
        self.0 & Self::PLACE_MASK
    }
    pub(super) fn closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }
    pub(super) fn in_flight(self) -> bool {
        self.0 & Self::REF_MASK != 0
    }
    fn refs_full(self) -> bool {
        self.0 & Self::REF_MASK == Self::REF_MASK
    }
    pub(super) fn home(self) -> usize {
        (self.0 >> Self::HOME_SHIFT) as usize
    }
    pub(super) fn at(self, place: u32) -> Self {
        Self(self.0 & !Self::PLACE_MASK | place)
    }
    fn without_refs(self) -> Self {
        Self(self.0 & !Self::REF_MASK)
    }
}

/// Frames ready to be allocated: a stack with a place for every frame of its pool. It never
/// grows, so a push is a store and no call, in the drop of every frame.
pub(super) struct FreeList {
    slots: Box<[u32]>,
    len: usize,
}

impl FreeList {
    fn full(slots: Box<[u32]>) -> Self {
        Self {
            len: slots.len(),
            slots,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        let top = self.len.checked_sub(1)?;
        self.len = top;
        self.slots.get(top).copied()
    }

    #[inline]
    pub(super) fn push(&mut self, index: u32) {
        let slot = self.slots.get_mut(self.len);
        debug_assert!(slot.is_some(), "a frame was freed twice");
        if let Some(slot) = slot {
            *slot = index;
            self.len += 1;
        }
    }
}

/// One pool's part of the arena.
#[repr(align(128))] // two cache lines: adjacent-line prefetch pairs them
pub(super) struct Home {
    /// [`thread_tag`] of the adopting thread; 0 before adoption. Set once.
    pub(super) owner: AtomicUsize,
    /// LIFO. Touched only by the adopting thread; before adoption, only through the
    /// pool handle, which is `!Sync`.
    pub(super) free: UnsafeCell<FreeList>,
    /// Frames freed elsewhere. As large as the pool, and a frame is in it at most once.
    pub(super) returned: ArrayQueue<u32>,
    pub(super) first: u32,
    pub(super) count: u32,
}

/// Shared state of a region; see the module documentation.
pub(super) struct Arena {
    pub(super) refs: AtomicUsize,
    base: NonNull<u8>,
    shift: u32,
    pub(super) tx_offset: u32,
    pub(super) words: Box<[AtomicU32]>,
    pub(super) homes: Box<[Home]>,
    wants_lengths: bool,
    region: Box<dyn Region>,
}

// SAFETY: `base` and `free` are the only fields that are not thread-safe. The bytes
// behind `base` belong to the holder of the frame's token, `free` to the thread named
// in `Home::owner` (see there).
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Identifies the running thread: the address of one of its thread-locals. An address
/// is used again only after its thread has ended, so two living threads never agree.
#[inline]
pub(super) fn thread_tag() -> usize {
    thread_local! { static TAG: u8 = const { 0 }; }
    TAG.with(|tag| std::ptr::from_ref(tag).addr())
}

impl Arena {
    /// Cuts `region` into frames and gives pool `n` the next `pools[n]` of them.
    pub(super) fn create(
        region: Box<dyn Region>,
        frame_bytes: u32,
        tx_offset: u32,
        pools: &[u32],
    ) -> NonNull<Self> {
        assert!(
            frame_bytes.is_power_of_two(),
            "frame size must be a power of two"
        );
        assert!(tx_offset < frame_bytes, "no room for a packet");
        assert!(
            !pools.is_empty() && pools.len() <= Word::HOMES_MAX,
            "1 to 4096 pools"
        );
        let frames = pools
            .iter()
            .try_fold(0u32, |sum, n| sum.checked_add(*n))
            .expect("frames fit u32");
        let wanted = u64::from(frames) * u64::from(frame_bytes);
        assert!(
            wanted <= region.bytes() as u64,
            "region too small for its pools"
        );

        let mut words = Vec::with_capacity(frames as usize);
        let mut homes = Vec::with_capacity(pools.len());
        let mut first = 0;
        for (home, &count) in (0u32..).zip(pools) {
            assert!(count > 0, "a pool cannot be empty");
            // Lowest index on top: a fresh pool hands frames out in address order.
            let free = FreeList::full((first..first + count).rev().collect());
            words.extend((0..count).map(|_| AtomicU32::new(Word::new(home).0)));
            homes.push(Home {
                owner: AtomicUsize::new(0),
                free: UnsafeCell::new(free),
                returned: ArrayQueue::new(count as usize),
                first,
                count,
            });
            first += count;
        }
        let arena = Box::new(Self {
            refs: AtomicUsize::new(pools.len()),
            base: region.base(),
            shift: frame_bytes.trailing_zeros(),
            tx_offset,
            words: words.into_boxed_slice(),
            homes: homes.into_boxed_slice(),
            wants_lengths: region.wants_lengths(),
            region,
        });
        NonNull::from(Box::leak(arena))
    }

    /// Gives up `n` references; the last one frees the arena.
    ///
    /// # Safety
    /// The caller owns `n` references and does not use `arena` afterwards unless
    /// something else keeps it alive.
    pub(super) unsafe fn unref(arena: NonNull<Self>, n: usize) {
        // SAFETY: alive, because the caller owns references.
        let before = unsafe { arena.as_ref() }
            .refs
            .fetch_sub(n, Ordering::Release);
        debug_assert!(before >= n);
        if before == n {
            fence(Ordering::Acquire);
            // SAFETY: it came from `Box::leak`, and the last reference is gone: no pool,
            // no frame and no drop in progress is left to look at it.
            drop(unsafe { Box::from_raw(arena.as_ptr()) });
        }
    }

    #[inline]
    pub(super) fn frame_bytes(&self) -> u32 {
        1 << self.shift
    }

    /// Splits an address within the region into frame and offset.
    #[inline]
    pub(super) fn locate(&self, addr: u64) -> Option<(u32, u32)> {
        let index = u32::try_from(addr >> self.shift).ok()?;
        if index as usize >= self.words.len() {
            return None;
        }
        let offset = u32::try_from(addr & u64::from(self.frame_bytes() - 1)).ok()?;
        Some((index, offset))
    }

    /// Address of a byte of a frame.
    #[inline]
    pub(super) fn byte(&self, index: u32, offset: u32) -> NonNull<u8> {
        debug_assert!((index as usize) < self.words.len() && offset <= self.frame_bytes());
        let at = ((index as usize) << self.shift) + offset as usize;
        // SAFETY: `create` checked that all frames lie in the region.
        unsafe { self.base.add(at) }
    }

    #[inline]
    pub(super) fn word(&self, index: u32) -> &AtomicU32 {
        &self.words[index as usize]
    }

    #[inline]
    pub(super) fn load(&self, index: u32) -> Word {
        Word(self.word(index).load(Ordering::Acquire))
    }

    /// Tells the region about a packet's place and length.
    ///
    /// # Safety
    /// The caller has exclusive access to the frame.
    #[inline]
    pub(super) unsafe fn resized(&self, index: u32, start: u32, len: u32) {
        if self.wants_lengths {
            // SAFETY: exclusivity by contract; callers keep `start + len` in the frame.
            unsafe { self.region.resized(index, start, len) }
        }
    }

    /// A TX ring refers to the frame. False if 4095 rings do already.
    #[inline]
    pub(super) fn tx_ref(&self, index: u32) -> bool {
        if self.load(index).refs_full() {
            return false;
        }
        // Two threads cannot get here for one frame (a frame is `!Sync`), so the check
        // above still holds.
        self.word(index).fetch_add(Word::REF, Ordering::Relaxed);
        true
    }

    /// A TX ring is done with the frame. False if none referred to it.
    pub(super) fn complete(&self, index: u32) -> bool {
        let word = self.word(index);
        let mut now = Word(word.load(Ordering::Relaxed));
        loop {
            if !now.in_flight() {
                return false;
            }
            let less = Word(now.0 - Word::REF);
            let frees = less.place() == Word::ORPHAN && !less.in_flight() && !less.closed();
            let here = self.homes[less.home()].owner.load(Ordering::Relaxed) == thread_tag();
            let next = match (frees, here) {
                (false, _) => less,
                (true, true) => less.at(Word::FREE),
                (true, false) => less.at(Word::RETURNING),
            };
            // Release: what we read from the frame happens before its next owner writes.
            match word.compare_exchange_weak(now.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if frees => {
                    // SAFETY: `here` was tested, and the frame has neither token nor ring.
                    unsafe { self.put_home(next.home(), index, here) };
                    return true;
                }
                Ok(_) => return true,
                Err(seen) => now = Word(seen),
            }
        }
    }

    /// # Safety
    /// `here` says whether this thread owns the home's free list, the frame's word
    /// already says `FREE` or `RETURNING`, and the arena stays alive meanwhile.
    unsafe fn put_home(&self, home: usize, index: u32, here: bool) {
        let home = &self.homes[home];
        if here {
            // SAFETY: this thread is the only one to touch the free list.
            unsafe { (*home.free.get()).push(index) };
        } else {
            let full = home.returned.push(index).is_err();
            debug_assert!(!full, "a frame was returned twice");
        }
    }

    /// Ends a token.
    ///
    /// # Safety
    /// The caller holds the only token of frame `index` and gives it up.
    #[inline]
    pub(super) unsafe fn release(arena: NonNull<Self>, index: u32) {
        // SAFETY: a token keeps the arena alive (its pool is open, or counted it).
        let this = unsafe { arena.as_ref() };
        let word = this.word(index);
        let now = Word(word.load(Ordering::Acquire));
        debug_assert!(now.place() == Word::OURS);
        if now.in_flight() {
            // SAFETY: the token is passed on.
            return unsafe { Self::release_in_flight(arena, index) };
        }
        let home = &this.homes[now.home()];
        if home.owner.load(Ordering::Relaxed) == thread_tag() {
            // On the list before it says FREE: a pool being dropped on another thread
            // may free the arena as soon as every word says so.
            // SAFETY: this thread owns the free list.
            unsafe { (*home.free.get()).push(index) };
            let before = Word(word.swap(now.at(Word::FREE).0 & !Word::CLOSED, Ordering::AcqRel));
            if before.closed() {
                // SAFETY: the dropped pool counted this frame.
                unsafe { Self::unref(arena, 1) };
            }
        } else {
            // SAFETY: the token is passed on.
            unsafe { Self::release_elsewhere(arena, index) }
        }
    }

    /// # Safety
    /// As [`Arena::release`].
    #[cold]
    unsafe fn release_in_flight(arena: NonNull<Self>, index: u32) {
        // SAFETY: a token keeps the arena alive.
        let this = unsafe { arena.as_ref() };
        let word = this.word(index);
        let mut now = Word(word.load(Ordering::Acquire));
        loop {
            if !now.in_flight() {
                // Completed meanwhile: nobody else can refer to it any more.
                // SAFETY: the token is passed on.
                return unsafe { Self::release(arena, index) };
            }
            let next = if now.closed() {
                now.without_refs().at(Word::FREE)
            } else {
                now.at(Word::ORPHAN)
            };
            match word.compare_exchange_weak(now.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if now.closed() => {
                    // SAFETY: the dropped pool counted this frame.
                    return unsafe { Self::unref(arena, 1) };
                }
                // From here on the frame is the ring's; `complete` takes it home.
                Ok(_) => return,
                Err(seen) => now = Word(seen),
            }
        }
    }

    /// # Safety
    /// As [`Arena::release`], for a frame that is in no ring, off its home's thread.
    #[inline(never)]
    unsafe fn release_elsewhere(arena: NonNull<Self>, index: u32) {
        // SAFETY: a token keeps the arena alive.
        let this = unsafe { arena.as_ref() };
        let word = this.word(index);
        let now = Word(word.load(Ordering::Relaxed));
        // The pool may be dropped, and every frame be counted as home, between the swap
        // and the end of the push: hold the arena over both.
        this.refs.fetch_add(1, Ordering::Relaxed);
        let before = Word(word.swap(now.at(Word::RETURNING).0 & !Word::CLOSED, Ordering::AcqRel));
        let counted = if before.closed() {
            1
        } else {
            // SAFETY: `here` is false, the word says RETURNING, `refs` holds the arena.
            unsafe { this.put_home(before.home(), index, false) };
            0
        };
        // SAFETY: one reference taken above, and the one the dropped pool left for us.
        unsafe { Self::unref(arena, 1 + counted) };
    }
}
