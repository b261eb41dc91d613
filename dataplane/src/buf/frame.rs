//! The token for one frame.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;

use super::arena::Arena;

/// The right to use one frame of a [`super::FramePool`]; dropping it sends the frame
/// home, or, while a TX ring still reads it, leaves it to the ring (freed on
/// completion).
///
/// Bytes are writable only while no TX ring refers to the frame.
pub struct Frame {
    arena: NonNull<Arena>,
    index: u32,
    /// Packet start within the frame.
    start: u32,
    len: u32,
}

// SAFETY: a token is the only way to its frame's bytes, so they move with it; all
// shared state behind `arena` is `Sync`.
unsafe impl Send for Frame {}

impl Frame {
    /// # Safety
    /// The frame's word says `OURS`, no other token for it exists, `arena` is alive,
    /// and `start + len` lies within the frame.
    #[inline]
    pub(super) unsafe fn new(arena: NonNull<Arena>, index: u32, start: u32, len: u32) -> Self {
        Self {
            arena,
            index,
            start,
            len,
        }
    }

    #[inline]
    pub(super) fn arena(&self) -> &Arena {
        // SAFETY: a token keeps its arena alive (see `arena`, "Lifetime").
        unsafe { self.arena.as_ref() }
    }

    #[inline]
    pub(super) fn arena_ptr(&self) -> NonNull<Arena> {
        self.arena
    }

    /// Ends the token without releasing the frame: the caller moves it on.
    #[inline]
    pub(super) fn into_index(self) -> u32 {
        ManuallyDrop::new(self).index
    }

    /// Number of the frame within its region.
    #[inline]
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where in the frame the packet starts.
    #[inline]
    #[must_use]
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The packet: `len()` bytes.
    #[inline]
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        let at = self.arena().byte(self.index, self.start);
        // SAFETY: `start + len` lies in the frame (checked by `new` and `set_len`), the
        // region is initialised, and with a token around nobody writes: the kernel only
        // reads from TX rings, and `buffer_mut` borrows the token exclusively.
        unsafe { slice::from_raw_parts(at.as_ptr(), self.len as usize) }
    }

    /// Length of the packet.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the packet is empty, as in a fresh frame.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes from the packet's start to the frame's end.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        (self.arena().frame_bytes() - self.start) as usize
    }

    /// Whether some TX ring still refers to the frame.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> bool {
        self.arena().load(self.index).in_flight()
    }

    /// All `capacity()` bytes from the packet's start, unless the frame is in flight.
    #[inline]
    pub fn buffer_mut(&mut self) -> Option<&mut [u8]> {
        if self.in_flight() {
            return None;
        }
        let at = self.arena().byte(self.index, self.start);
        let capacity = self.capacity();
        // SAFETY: the bytes lie in the frame and are initialised; the token is borrowed
        // exclusively and no ring refers to the frame (only a token adds references).
        Some(unsafe { slice::from_raw_parts_mut(at.as_ptr(), capacity) })
    }

    /// Writes the packet: `write` gets the frame's bytes from the packet's start on and
    /// returns the packet's length. False, and nothing happens, while in flight.
    ///
    /// # Panics
    /// If the length exceeds [`Frame::capacity`].
    #[inline]
    pub fn write(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(buffer) = self.buffer_mut() else {
            return false;
        };
        let capacity = buffer.len();
        let n = write(buffer);
        assert!(n <= capacity, "packet of {n} bytes does not fit its frame");
        // `n <= capacity`, a u32.
        self.len = n as u32;
        // SAFETY: `&mut self`, no ring refers to the frame, and it fits (above).
        unsafe { self.arena().resized(self.index, self.start, self.len) };
        true
    }

    /// Sets the packet's length. Ignored while in flight.
    ///
    /// # Panics
    /// If `n` exceeds [`Frame::capacity`].
    #[inline]
    pub fn set_len(&mut self, n: usize) {
        assert!(
            n <= self.capacity(),
            "packet of {n} bytes does not fit its frame"
        );
        if self.in_flight() {
            debug_assert!(false, "length of a frame in flight changed");
            return;
        }
        // `n <= capacity`, a u32.
        self.len = u32::try_from(n).unwrap_or(0);
        // SAFETY: `&mut self`, no ring refers to the frame, and it fits (above).
        unsafe { self.arena().resized(self.index, self.start, self.len) };
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this was the only token, and it ends here.
        unsafe { Arena::release(self.arena, self.index) }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("index", &self.index)
            .field("start", &self.start)
            .field("len", &self.len)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}
