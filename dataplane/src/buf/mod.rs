//! Frames as ownership tokens: the only place that hands out payload bytes.
//!
//! A [`FramePool`] is a partition of a contiguous region (heap memory, or the UMEM of
//! a group of AF_XDP sockets) cut into power-of-two frames. A [`Frame`] is a non-Copy
//! token: whoever has it has the bytes, dropping it sends it home. While the kernel
//! has a frame there is no token for it, or a token that refuses to be written:
//!
//! ```text
//!            alloc              lend
//!   FREE ───────────▶ OURS ───────────▶ FILL     (fill ring: the kernel writes)
//!    ▲ ▲               │ ▲                │
//!    │ └───── drop ────┘ └─── reclaim ────┘
//!    │                 │  tx_ref / complete count the TX rings that refer to it
//!    └── complete ── ORPHAN  (dropped while a TX ring still reads it)
//! ```
//!
//! Every transition is checked in release builds too, because a driver may hand out a
//! frame that it does not own: such a descriptor is counted (`foreign_seen`) and
//! ignored. A frame dropped on the thread that [adopted](FramePool::adopt) its pool
//! goes straight onto the LIFO free list; dropped anywhere else it comes home by a
//! queue that has room for every frame of the pool.
//!
//! A [`Piece`] is a range of payload with its cached Internet checksum sum, a
//! [`Chain`] a list of pieces that are contiguous in some sequence space.
//!
//! Non-goals: growing pools, moving a packet inside its frame.

mod arena;
mod chain;
mod frame;
mod handle;
mod piece;
mod pool;
#[cfg(test)]
mod tests;

pub use arena::{HEADROOM_BYTES, HeapRegion, Region};
pub use chain::{COALESCED_BYTES_MAX, COPYBREAK_BYTES, Chain};
pub use frame::Frame;
pub use handle::RegionHandle;
pub use piece::Piece;
pub use pool::{FrameAccounting, FramePool, Lent};

/// The frames of one received packet, in order: one, or many of a superframe.
pub type PacketFrames = smallvec::SmallVec<[Frame; 1]>;
