//! Ports: how packets come in and go out.
//!
//! A [`Port`] moves frames between a worker and one queue of one interface. It never
//! blocks, never allocates per packet, and never owns payload: a transmitted frame
//! stays its sender's, with a reference from the ring until the completion.
//!
//! | port | module |
//! |---|---|
//! | AF_XDP socket | [`xsk`] |
//! | memory link, for the simulator and the engine benchmark | [`memory`] |
//!
//! A worker's iteration calls, per port: [`Port::complete`], [`Port::rx_burst`],
//! [`Port::tx`] as often as there is something to send, [`Port::flush`],
//! [`Port::refill`]. `flush` is level triggered: call it also when nothing was sent.

pub mod memory;
pub mod xsk;

use std::ops::Range;
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use crate::buf::{Frame, FramePool};
use crate::offload::BurstShape;

/// Index of a port among its worker's ports.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Serialize, Deserialize)]
pub struct PortId(pub u16);

/// What became of [`Port::tx`].
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Tx {
    /// In the ring, or staged for it. The ring refers to the frame until completion.
    Queued,
    /// No room; nothing happened. Try again after [`Port::complete`].
    Full,
    /// The link is down; nothing happened. Reinject elsewhere.
    NoCarrier,
}

/// The mode a port really got, as opposed to the one asked for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeGot {
    /// The NIC reads and writes our frames.
    ZeroCopy,
    /// XDP in the driver; the kernel copies.
    Native,
    /// XDP on socket buffers; the kernel copies.
    Generic,
    /// A memory link.
    Memory,
}

/// What to do about checksums of received packets.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RxChecksum {
    /// Wrong is wrong.
    Verify,
    /// Local senders leave the checksum to a NIC that is not there: a field that holds
    /// just the pseudo-header sum passes too.
    AcceptPartial,
}

/// What a port can do.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PortCaps {
    /// Frames are not copied by the kernel.
    pub zero_copy: bool,
    /// How packets get in and out.
    pub mode: ModeGot,
    /// Largest packet that may arrive; above the MTU the port receives superframes.
    pub rx_superframe_bytes: u32,
    /// Largest packet that the port segments on its way out; 0: it does not.
    pub tx_segment_bytes: u32,
    /// The port fills in TCP checksums.
    pub tx_checksum: bool,
    /// How received checksums are to be treated.
    pub rx_checksum: RxChecksum,
    /// Of the link, without its header.
    pub mtu: u32,
}

/// What a port did, and what the kernel says about it. All but the last three fields
/// only grow.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Descriptors refused: a frame that the kernel did not own, or a bad length.
    pub rx_foreign: u64,
    /// Packets dropped: more fragments than a superframe may have.
    pub rx_too_long: u64,
    /// Packets dropped for want of a frame (memory), refills cut short (xsk).
    pub rx_no_frame: u64,
    /// Packets queued.
    pub tx_packets: u64,
    /// Bytes queued.
    pub tx_bytes: u64,
    /// Refused: ring full.
    pub tx_full: u64,
    /// Refused: no carrier.
    pub tx_no_carrier: u64,
    /// Frames of another region, copied once to be sent here.
    pub tx_copied: u64,
    /// Packets that cannot be sent at all (empty, or larger than the link takes).
    pub tx_invalid: u64,
    /// Packets dropped by the kernel on the way out, as far as it says so.
    pub tx_dropped: u64,
    /// Completions for frames that were not in the ring.
    pub completion_foreign: u64,
    /// System calls to make the kernel transmit.
    pub kicks: u64,
    /// Kicks that failed for good.
    pub kick_errors: u64,
    /// System calls to make the driver look at the fill ring.
    pub fill_wakeups: u64,
    /// Kernel: dropped for other reasons than the following.
    pub kernel_rx_dropped: u64,
    /// Kernel: dropped, RX ring full.
    pub kernel_rx_ring_full: u64,
    /// Kernel: fill ring was empty.
    pub kernel_rx_fill_ring_empty: u64,
    /// Kernel: bad descriptor in the fill ring.
    pub kernel_rx_invalid: u64,
    /// Kernel: bad descriptor in the TX ring.
    pub kernel_tx_invalid: u64,
    /// Kernel: found the TX ring empty.
    pub kernel_tx_ring_empty: u64,
    /// Now: sent and not completed.
    pub tx_in_flight: u32,
    /// Now: frames that the kernel may fill or has filled.
    pub lent: u32,
    /// Now: the link is up.
    pub carrier: bool,
}

/// A received frame; a packet ends with the frame whose `more` is false.
#[derive(Debug)]
pub struct RxFrame {
    /// The bytes.
    pub frame: Frame,
    /// The packet goes on in the next frame.
    pub more: bool,
}

/// Frames of one packet at most: 64 KiB in the 1792 bytes of a 2 KiB frame, twice.
pub const FRAGMENTS_MAX: usize = 74;

/// A reusable list of received frames: whole packets only.
#[derive(Debug)]
pub struct RxBatch {
    frames: Vec<RxFrame>,
    limit: usize,
}

impl RxBatch {
    /// A batch that wants about `limit` frames; the last packet may exceed it.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            frames: Vec::with_capacity(limit + FRAGMENTS_MAX),
            limit,
        }
    }

    /// How many more frames are wanted.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.frames.len())
    }

    /// Appends a frame. Ports append whole packets.
    pub fn push(&mut self, frame: Frame, more: bool) {
        self.frames.push(RxFrame { frame, more });
    }

    /// Frames in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The frames, in order of arrival.
    pub fn iter(&self) -> std::slice::Iter<'_, RxFrame> {
        self.frames.iter()
    }

    /// Takes the frames out and keeps the memory.
    pub fn drain(&mut self) -> std::vec::Drain<'_, RxFrame> {
        self.frames.drain(..)
    }

    /// Sends the frames home.
    pub fn clear(&mut self) {
        self.frames.clear();
    }
}

impl<'a> IntoIterator for &'a RxBatch {
    type Item = &'a RxFrame;
    type IntoIter = std::slice::Iter<'a, RxFrame>;
    fn into_iter(self) -> Self::IntoIter {
        self.frames.iter()
    }
}

/// One queue of one interface, as a worker sees it. `pool` is always the worker's pool
/// in the region (UMEM group) that the port belongs to.
pub trait Port {
    /// What the port can do; constant.
    fn caps(&self) -> PortCaps;

    /// Appends received packets to `out`, about as many frames as it has room for, and
    /// returns how many frames that were.
    fn rx_burst(&mut self, pool: &FramePool, out: &mut RxBatch) -> usize;

    /// Queues `frame.packet()`. The ring refers to the frame until its completion.
    /// A frame of another region is copied into one of `pool`, and counted.
    fn tx(&mut self, pool: &FramePool, frame: &Frame) -> Tx;

    /// Queues a burst that the port segments: `shape` says how, the frames are its bytes in
    /// order, headers first. Only for ports whose [`PortCaps::tx_segment_bytes`] is not 0,
    /// with frames of `pool`'s region, at most
    /// [`BURST_FRAMES_MAX`](crate::offload::BURST_FRAMES_MAX), and no longer than that.
    fn tx_burst<'f>(
        &mut self,
        pool: &FramePool,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        let _ = (pool, shape, frames);
        debug_assert!(false, "this port does not segment");
        Tx::Full
    }

    /// How many calls of [`Port::tx`] would succeed now.
    fn tx_free(&self) -> u32;

    /// Hands staged packets over and makes the kernel transmit what it has not.
    fn flush(&mut self);

    /// Releases the ring's references to transmitted frames; returns how many.
    fn complete(&mut self, pool: &FramePool) -> u32;

    /// Gives the kernel frames to receive into.
    fn refill(&mut self, pool: &FramePool);

    /// Counters and levels. May be a system call: not per packet.
    fn stats(&self) -> PortStats;

    /// What to poll(2) for input, if the port can wait.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Tells the port that the link went up or down. Down: [`Port::tx`] refuses and
    /// nothing is kicked; frames already in the ring stay referred to until the carrier
    /// is back or the port is closed, so owners drop them (orphans) or copy from them.
    fn set_carrier(&mut self, up: bool);

    /// Closes the port and takes its frames back, in flight or not. Returns how many the
    /// kernel may still touch: call again later until that is 0.
    fn reclaim_all(&mut self, pool: &FramePool) -> u32;
}
