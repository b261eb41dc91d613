//! xsk-rs's descriptors, one per frame.
//!
//! xsk-rs can neither make a descriptor for a given address nor set the length of one
//! except through an exclusive borrow of the frame's bytes. So the table keeps, for
//! each frame, the descriptor for its packet as it is now, and changes it only where
//! such a borrow is held: on allocation, on reception and in `Frame::set_len`.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use xsk_rs::{FrameDesc, Umem};

use crate::buf::Region;

/// Descriptors of all frames of a UMEM. Entry `n` belongs to whoever has frame `n`.
pub(super) struct Descs {
    now: Box<[UnsafeCell<FrameDesc>]>,
    /// As `Umem::new` made them: packet at the fixed offset.
    origin: Box<[FrameDesc]>,
}

// SAFETY: an entry is written only by the holder of exclusive access to its frame and
// read only by a holder of the frame's token (see the methods' contracts).
unsafe impl Sync for Descs {}

impl Descs {
    pub(super) fn new(origin: Vec<FrameDesc>) -> Self {
        Self {
            now: origin.iter().map(|desc| UnsafeCell::new(*desc)).collect(),
            origin: origin.into_boxed_slice(),
        }
    }

    /// The descriptor to transmit or lend the frame with.
    ///
    /// # Safety
    /// The caller has the frame's token, or exclusive access to the frame.
    #[inline]
    pub(super) unsafe fn get(&self, index: u32) -> FrameDesc {
        // SAFETY: writers need exclusive access to the frame, which the caller's rules out.
        unsafe { *self.now[index as usize].get() }
    }

    /// The packet came in at an unusual place (a zero-copy driver under an XDP program
    /// that moved its head; copy mode always uses the fixed offset): remember the
    /// descriptor it came with.
    ///
    /// # Safety
    /// The caller has exclusive access to the frame, and `desc` describes it.
    #[inline]
    pub(super) unsafe fn install(&self, index: u32, desc: FrameDesc) {
        // SAFETY: exclusive by contract.
        unsafe { *self.now[index as usize].get() = desc };
    }
}

impl fmt::Debug for Descs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descs")
            .field("frames", &self.origin.len())
            .finish()
    }
}

/// The memory of a UMEM as pools see it.
pub(super) struct UmemMemory {
    umem: Umem,
    descs: Arc<Descs>,
    base: NonNull<u8>,
    bytes: usize,
    frame_shift: u32,
}

// SAFETY: `base` points into the mapping that `umem` keeps; see `HeapRegion`.
unsafe impl Send for UmemMemory {}
// SAFETY: as above; `Descs` and `Umem` are `Sync`.
unsafe impl Sync for UmemMemory {}

impl UmemMemory {
    /// # Panics
    /// If the UMEM has no frames.
    pub(super) fn new(umem: Umem, descs: Arc<Descs>, frame_bytes: u32) -> Self {
        let frames = descs.origin.len();
        let first = descs.origin[0];
        // xsk-rs hides the base address: it is a packet's address minus its offset.
        // SAFETY: no frame has been handed out yet, so nobody else accesses this one.
        let packet = unsafe { umem.data(&first) }.contents().as_ptr();
        // The mapping was exposed when xsk-rs passed it to the kernel.
        let base = std::ptr::with_exposed_provenance_mut(packet.expose_provenance() - first.addr());
        Self {
            base: NonNull::new(base).expect("the kernel does not map at 0"),
            bytes: frames * frame_bytes as usize,
            frame_shift: frame_bytes.trailing_zeros(),
            umem,
            descs,
        }
    }
}

// SAFETY: mmap gave zeroed, page-aligned memory that lives as long as `umem`, which is
// private to this group; all other access goes through descriptors of this table.
unsafe impl Region for UmemMemory {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn wants_lengths(&self) -> bool {
        true
    }

    #[inline]
    unsafe fn resized(&self, index: u32, start: u32, len: u32) {
        let at = index as usize;
        // SAFETY: the caller has exclusive access to the frame, so to its entry.
        let desc = unsafe { &mut *self.descs.now[at].get() };
        if desc.addr() != (at << self.frame_shift) + start as usize {
            // Back to the fixed offset; at another one, `install` follows.
            *desc = self.descs.origin[at];
        }
        // SAFETY: as above, and the descriptor is of this UMEM. The kernel does not have
        // the frame, since the caller does.
        unsafe { self.umem.data_mut(desc) }
            .cursor()
            .set_pos(len as usize);
    }
}
