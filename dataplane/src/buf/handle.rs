//! Reading frames of another worker, as a NIC does.
#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::Ordering;

use super::arena::Arena;
use super::frame::Frame;

/// Keeps a region alive, so that packets in TX rings can be read wherever their ring is.
pub struct RegionHandle {
    arena: NonNull<Arena>,
}

// SAFETY: the arena is `Sync`, and its reference count is atomic.
unsafe impl Send for RegionHandle {}
// SAFETY: as above.
unsafe impl Sync for RegionHandle {}

impl RegionHandle {
    /// Another reference to an arena that is alive.
    pub(super) fn new(arena: NonNull<Arena>) -> Self {
        // SAFETY: the caller's pool keeps it alive.
        unsafe { arena.as_ref() }
            .refs
            .fetch_add(1, Ordering::Relaxed);
        Self { arena }
    }

    /// Whether the frame is of this region.
    #[inline]
    #[must_use]
    pub fn owns(&self, frame: &Frame) -> bool {
        self.arena == frame.arena_ptr()
    }

    /// The `len` bytes from `start` of frame `index`.
    ///
    /// # Safety
    /// The caller's TX ring refers to that frame ([`super::FramePool::tx_ref`]), and it
    /// will not be told complete while the bytes are used; they lie in it.
    #[inline]
    #[must_use]
    pub unsafe fn in_flight(&self, index: u32, start: u32, len: u32) -> &[u8] {
        // SAFETY: the handle is a reference to the arena.
        let at = unsafe { self.arena.as_ref() }.byte(index, start);
        // SAFETY: within an initialised frame by contract; nobody writes to a frame that a
        // TX ring refers to, and the handle keeps the memory.
        unsafe { slice::from_raw_parts(at.as_ptr(), len as usize) }
    }
}

impl Drop for RegionHandle {
    fn drop(&mut self) {
        // SAFETY: the reference that `new` took.
        unsafe { Arena::unref(self.arena, 1) }
    }
}

impl fmt::Debug for RegionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionHandle").finish_non_exhaustive()
    }
}
