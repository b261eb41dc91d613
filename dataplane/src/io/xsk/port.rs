//! An AF_XDP socket as a [`Port`].
//!
//! Invariants: `in_ring[n]` counts how often frame `n` is staged or in our TX ring, and
//! the pool has exactly as many references from us; `lent` has a bit for every frame
//! that we gave to the fill ring and did not get back. So a descriptor or completion
//! for a frame that the kernel does not have is recognised, and closing the socket
//! accounts for every frame.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xsk_rs::{FrameDesc, TxQueue};

use super::descs::Descs;
use super::error::OpenError;
use super::fill::FillLevel;
use super::gso::{self, GsoLane};
use super::socket::{self, Bound, Granted, Rings, XskConfig};
use super::umem::UmemGroup;
use crate::buf::{Frame, FramePool, HEADROOM_BYTES, Lent};
use crate::io::{FRAGMENTS_MAX, ModeGot, Port, PortCaps, PortStats, RxBatch, RxFrame, Tx};
use crate::offload::BurstShape;

/// Descriptors moved between us and a ring at once.
const BATCH: usize = 64;

/// A zero-copy driver is switched off by a work item after close (xp_release_deferred):
/// until then it may still write to the frames it had.
const ZERO_COPY_QUARANTINE: Duration = Duration::from_secs(1);

/// Refill without a wakeup request from the driver is worth it from this many frames.
const REFILL_MIN: u32 = 16;

/// One socket on one queue; see [`super`].
///
/// `Send`: the rings are plain memory that one thread at a time works on, the rest is
/// owned or shared read-only. Opened on the main thread, it moves to its worker.
pub struct XskPort {
    /// None once closed.
    socket: Option<Bound>,
    closed_at: Option<Instant>,
    descs: Arc<Descs>,
    frame_shift: u32,
    /// Entries of the fill ring.
    fill_ring: u32,
    level: FillLevel,
    config: XskConfig,
    granted: Granted,
    carrier: bool,
    /// The device is gone: kicks fail for good.
    gone: bool,
    /// The way out, where it is not the TX ring.
    lane: Option<GsoLane>,
    staged: Vec<FrameDesc>,
    scratch: [FrameDesc; BATCH],
    /// The front of a packet whose end has not arrived.
    partial: Vec<RxFrame>,
    /// The rest of the packet in `partial` is to be dropped.
    skipping: bool,
    in_ring: Box<[u8]>,
    lent: Box<[u64]>,
    stats: PortStats,
}

impl fmt::Debug for XskPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XskPort")
            .field("interface", &self.config.interface)
            .field("queue", &self.config.queue)
            .field("granted", &self.granted)
            .field("stats", &self.stats)
            .finish()
    }
}

impl XskPort {
    /// Opens a socket of `group` in the calling thread's network namespace. The fill
    /// ring is empty until the first [`Port::refill`]: call it right away, some
    /// zero-copy drivers suffer without (xsk-rs cannot fill before bind).
    pub fn open(group: &UmemGroup, config: &XskConfig) -> Result<Self, OpenError> {
        let (socket, granted) = socket::open(group, config)?;
        let lane = match config.gso_lane {
            true => Some(open_lane(config)?),
            false => None,
        };
        let frames = group.frames as usize;
        Ok(Self {
            socket: Some(socket),
            closed_at: None,
            descs: Arc::clone(&group.descs),
            frame_shift: group.frame_bytes.trailing_zeros(),
            fill_ring: group.fill_ring,
            level: FillLevel::new(config.fill_frames),
            config: config.clone(),
            granted,
            carrier: true,
            gone: false,
            lane,
            staged: Vec::with_capacity(BATCH),
            scratch: [FrameDesc::default(); BATCH],
            partial: Vec::with_capacity(FRAGMENTS_MAX + 1),
            skipping: false,
            in_ring: vec![0; frames].into(),
            lent: vec![0; frames.div_ceil(64)].into(),
            stats: PortStats::default(),
        })
    }

    /// The device went away: the kernel refuses to transmit for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Interface name and queue.
    #[must_use]
    pub fn location(&self) -> (&str, u32) {
        (&self.config.interface, self.config.queue)
    }

    fn index_of(&self, desc: &FrameDesc) -> Option<u32> {
        let index = desc.addr() >> self.frame_shift;
        (index < self.in_ring.len()).then(|| u32::try_from(index).ok())?
    }

    fn mark_lent(&mut self, index: u32) {
        self.lent[index as usize / 64] |= 1 << (index % 64);
        self.stats.lent += 1;
    }

    /// False if we had not lent it.
    fn unmark_lent(&mut self, index: u32) -> bool {
        let (word, bit) = (&mut self.lent[index as usize / 64], 1 << (index % 64));
        let was = *word & bit != 0;
        *word &= !bit;
        self.stats.lent -= u32::from(was);
        was
    }

    /// Turns one RX descriptor into a frame.
    fn receive(&mut self, pool: &FramePool, desc: &FrameDesc) -> Option<RxFrame> {
        let len = u32::try_from(desc.lengths().data()).unwrap_or(u32::MAX);
        let ours = self
            .index_of(desc)
            .is_some_and(|index| self.unmark_lent(index));
        let frame = if ours {
            pool.reclaim(desc.addr() as u64, len)
        } else {
            None
        };
        let Some(frame) = frame else {
            self.stats.rx_foreign += 1;
            return None;
        };
        let start = desc.addr() & ((1 << self.frame_shift) - 1);
        if start != HEADROOM_BYTES as usize {
            // SAFETY: we have the token, and the descriptor is of this very frame.
            unsafe { self.descs.install(frame.index(), *desc) };
        }
        Some(RxFrame {
            frame,
            more: desc.has_more_frames(),
        })
    }

    /// Takes a fragment; at a packet's end, passes the whole packet on.
    fn assemble(&mut self, received: Option<RxFrame>, more: bool, out: &mut RxBatch) {
        let Some(received) = received else {
            // A hole: the packet is lost, its other fragments go home.
            self.partial.clear();
            self.skipping = more;
            return;
        };
        if self.skipping {
            self.skipping = more;
            return;
        }
        if more {
            self.partial.push(received);
            if self.partial.len() >= FRAGMENTS_MAX {
                self.stats.rx_too_long += 1;
                self.partial.clear();
                self.skipping = true;
            }
            return;
        }
        self.stats.rx_packets += 1;
        for part in self.partial.drain(..) {
            self.stats.rx_bytes += part.frame.len() as u64;
            out.push(part.frame, true);
        }
        self.stats.rx_bytes += received.frame.len() as u64;
        out.push(received.frame, false);
    }

    /// Moves staged descriptors into the TX ring.
    fn submit(&mut self) {
        let Some(rings) = rings_of(&mut self.socket) else {
            return;
        };
        if self.staged.is_empty() {
            return;
        }
        // SAFETY: every staged frame has a reference from us (`tx_ref`), so nobody
        // writes to it or frees it before its completion, and it is of this UMEM.
        let moved = unsafe { rings.tx.produce(&self.staged) };
        // All or nothing; there is room, since `tx_in_flight` never exceeds the ring.
        debug_assert_eq!(moved, self.staged.len());
        if moved == self.staged.len() {
            self.staged.clear();
        }
    }

    /// Asks the kernel to transmit until it has taken everything, or makes no headway.
    ///
    /// In copy mode one call moves `tx_budget` descriptors and reports EAGAIN for the
    /// rest; with SO_SNDBUF exhausted it moves none. The next flush tries again.
    fn kick(&mut self) {
        let Some(rings) = rings_of(&mut self.socket) else {
            return;
        };
        let size = self.config.tx_ring;
        let rounds = size / self.granted.tx_budget + 1;
        let mut waiting = size - rings.tx.nb_free_exact();
        for _ in 0..rounds {
            let idle = if self.granted.zero_copy {
                self.stats.tx_in_flight
            } else {
                waiting
            } == 0;
            if idle || !rings.tx.needs_wakeup() {
                return;
            }
            self.stats.kicks += 1;
            match send_now(&rings.tx).map_err(|error| error.raw_os_error()) {
                Ok(()) | Err(Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR)) => {}
                // Copy mode: NET_XMIT_DROP, one descriptor is gone (no carrier, or the
                // device's queue overflowed). Zero-copy: the driver is busy.
                Err(Some(libc::EBUSY)) => {
                    self.stats.tx_dropped += u64::from(!self.granted.zero_copy);
                    return;
                }
                // Interface down, or the kernel short of memory: not for us to mend.
                Err(Some(libc::ENETDOWN | libc::ENOMEM)) => return,
                Err(number) => {
                    self.stats.kick_errors += 1;
                    // ENXIO: no longer bound, because the device was unregistered.
                    if matches!(number, Some(libc::ENXIO | libc::ENODEV | libc::EBADF)) {
                        self.gone = true;
                        self.carrier = false;
                    }
                    return;
                }
            }
            if self.granted.zero_copy {
                return; // the driver goes on by itself
            }
            let left = size - rings.tx.nb_free_exact();
            if left >= waiting {
                return;
            }
            waiting = left;
        }
    }

    /// Ends one reference of ours to a frame. False if we had none.
    fn release(&mut self, pool: &FramePool, index: u32) -> bool {
        let count = &mut self.in_ring[index as usize];
        if *count == 0 {
            return false;
        }
        *count -= 1;
        self.stats.tx_in_flight -= 1;
        pool.complete(index);
        true
    }

    /// Takes a reference on a frame; false if it has as many as it can.
    fn refer(&mut self, pool: &FramePool, frame: &Frame) -> bool {
        let count = &mut self.in_ring[frame.index() as usize];
        if *count == u8::MAX || !pool.tx_ref(frame) {
            return false;
        }
        *count += 1;
        self.stats.tx_in_flight += 1;
        true
    }

    /// Stages a frame that has a reference from us.
    fn stage(&mut self, frame: &Frame) {
        let index = frame.index();
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += frame.len() as u64;
        if let Some(lane) = &mut self.lane {
            lane.push(frame);
            return;
        }
        // SAFETY: we have the frame's token by reference.
        let mut desc = unsafe { self.descs.get(index) };
        desc.set_options(0); // a received fragment's "more" must not go out
        debug_assert_eq!(desc.lengths().data(), frame.len());
        self.staged.push(desc);
        if self.staged.len() == BATCH {
            self.submit();
        }
    }
}

fn open_lane(config: &XskConfig) -> Result<GsoLane, OpenError> {
    let gone = || OpenError::InterfaceGone {
        interface: config.interface.clone(),
    };
    let ifindex = nix::net::if_::if_nametoindex(config.interface.as_str()).map_err(|_| gone())?;
    GsoLane::open(ifindex, config.send_buffer_bytes).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission {
            what: "an AF_PACKET socket",
        },
        Some(libc::ENODEV | libc::ENXIO) => gone(),
        _ => OpenError::System {
            what: format!("cannot open the gso lane of {}", config.interface),
            source,
        },
    })
}

/// The rings of an open socket: a borrow of that field only.
#[inline]
fn rings_of(socket: &mut Option<Bound>) -> Option<&mut Rings> {
    socket.as_mut()?.rings()
}

/// sendto(2) with nothing to send: "look at the TX ring". Our own, because xsk-rs's
/// hides the errors that mean a lost descriptor.
fn send_now(tx: &TxQueue) -> io::Result<()> {
    let fd = tx.fd().as_raw_fd();
    // SAFETY: no buffer, no address.
    let sent = unsafe { libc::sendto(fd, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Port for XskPort {
    fn caps(&self) -> PortCaps {
        let mode = match (self.granted.zero_copy, self.config.generic) {
            (true, _) => ModeGot::ZeroCopy,
            (false, false) => ModeGot::Native,
            (false, true) => ModeGot::Generic,
        };
        PortCaps {
            zero_copy: self.granted.zero_copy,
            mode,
            rx_superframe_bytes: self.config.rx_superframe_bytes,
            tx_segment_bytes: match self.lane {
                Some(_) => gso::BURST_BYTES_MAX,
                None => 0,
            },
            tx_checksum: false,
            rx_checksum: self.config.rx_checksum,
            mtu: self.config.mtu,
        }
    }

    fn rx_burst(&mut self, pool: &FramePool, out: &mut RxBatch) -> usize {
        let before = out.len();
        // Descriptors, not frames delivered: a flood of bad ones must not hold us here.
        let mut budget = out.room();
        while budget > 0 {
            let Some(rings) = rings_of(&mut self.socket) else {
                break;
            };
            let want = budget.min(BATCH);
            // SAFETY: descriptors are only acted upon after `receive` has checked them.
            let got = unsafe { rings.rx.consume(&mut self.scratch[..want]) };
            for n in 0..got {
                let desc = self.scratch[n];
                let received = self.receive(pool, &desc);
                self.assemble(received, desc.has_more_frames(), out);
            }
            budget -= got;
            if got < want {
                break;
            }
        }
        out.len() - before
    }

    fn tx(&mut self, pool: &FramePool, frame: &Frame) -> Tx {
        if !self.carrier || self.socket.is_none() {
            self.stats.tx_no_carrier += 1;
            return Tx::NoCarrier;
        }
        if self.tx_free() == 0 {
            self.stats.tx_full += 1;
            return Tx::Full;
        }
        if frame.is_empty() {
            self.stats.tx_invalid += 1;
            return Tx::Queued;
        }
        if pool.same_region(frame) {
            if !self.refer(pool, frame) {
                self.stats.tx_full += 1;
                return Tx::Full;
            }
            self.stage(frame);
            return Tx::Queued;
        }
        // Of another group: sent from a copy, which is an orphan from the start.
        let Some(mut copy) = pool.alloc() else {
            self.stats.tx_full += 1;
            return Tx::Full;
        };
        let len = frame.len();
        match copy.buffer_mut().and_then(|buffer| buffer.get_mut(..len)) {
            Some(room) => room.copy_from_slice(frame.packet()),
            None => {
                self.stats.tx_invalid += 1;
                return Tx::Queued;
            }
        }
        copy.set_len(len);
        if !self.refer(pool, &copy) {
            return Tx::Full; // not reachable: the copy is fresh
        }
        self.stage(&copy);
        self.stats.tx_copied += 1;
        Tx::Queued
    }

    fn tx_free(&self) -> u32 {
        if !self.carrier || self.socket.is_none() {
            return 0;
        }
        match &self.lane {
            Some(lane) => lane.free(),
            None => self.config.tx_ring - self.stats.tx_in_flight,
        }
    }

    fn tx_burst<'f>(
        &mut self,
        pool: &FramePool,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        if !self.carrier || self.socket.is_none() {
            self.stats.tx_no_carrier += 1;
            return Tx::NoCarrier;
        }
        let Some(mut lane) = self.lane.take() else {
            debug_assert!(false, "this port does not segment");
            return Tx::Full;
        };
        let staged = lane.free() > 0
            && lane.push_burst(shape, frames, |frame| {
                pool.same_region(frame) && self.refer(pool, frame)
            });
        if staged {
            self.stats.tx_packets += 1;
            self.stats.tx_bytes += lane.last_bytes() as u64;
        } else {
            self.stats.tx_full += 1;
        }
        self.lane = Some(lane);
        if staged { Tx::Queued } else { Tx::Full }
    }

    fn flush(&mut self) {
        if !self.carrier {
            return; // each kick would complete one descriptor and hide the error
        }
        if let Some(lane) = &mut self.lane {
            let flushed = lane.flush();
            self.stats.kicks += flushed.calls;
            self.stats.tx_dropped += flushed.dropped;
            if flushed.gone {
                self.gone = true;
                self.carrier = false;
            }
            return;
        }
        self.submit();
        if self.stats.tx_in_flight > 0 {
            self.kick();
        }
    }

    fn complete(&mut self, pool: &FramePool) -> u32 {
        let mut completed = 0;
        if !self.carrier {
            // Not handed over yet: the owner may have them back at once.
            while let Some(desc) = self.staged.pop() {
                let index = self.index_of(&desc);
                completed += u32::from(index.is_some_and(|index| self.release(pool, index)));
            }
        }
        if let Some(mut lane) = self.lane.take() {
            if !self.carrier {
                lane.clear();
            }
            while let Some(index) = lane.pop_finished() {
                completed += u32::from(self.release(pool, index));
            }
            self.lane = Some(lane);
        }
        // Bounded: at most a ring full.
        for _ in 0..=self.config.tx_ring as usize / BATCH {
            let Some(rings) = rings_of(&mut self.socket) else {
                break;
            };
            // SAFETY: descriptors are only acted upon after `release` has checked them.
            let got = unsafe { rings.completion.consume(&mut self.scratch) };
            for n in 0..got {
                let index = self.index_of(&self.scratch[n]);
                if index.is_some_and(|index| self.release(pool, index)) {
                    completed += 1;
                } else {
                    self.stats.completion_foreign += 1;
                }
            }
            if got < BATCH {
                break;
            }
        }
        completed
    }

    fn refill(&mut self, pool: &FramePool) {
        let Some(rings) = rings_of(&mut self.socket) else {
            return;
        };
        let mut want = self
            .level
            .wanted(self.fill_ring - rings.fill.nb_free_exact());
        let wakeup = rings.fill.needs_wakeup();
        if want == 0 || (want < REFILL_MIN && !wakeup) {
            return;
        }
        pool.collect_returned();
        let wanted = want;
        let spare = pool.available().saturating_sub(self.config.reserve_frames);
        if spare < want {
            self.stats.rx_no_frame += 1;
            want = spare;
        }
        let spendable = want;
        while want > 0 {
            let mut staged = 0;
            while staged < BATCH.min(want as usize) {
                let Some(frame) = pool.alloc() else { break };
                let index = frame.index();
                // SAFETY: we have the token.
                let desc = unsafe { self.descs.get(index) };
                if pool.lend(frame).is_err() {
                    debug_assert!(false, "a fresh frame was not lendable");
                    break;
                }
                self.mark_lent(index);
                self.scratch[staged] = desc;
                staged += 1;
            }
            let Some(rings) = rings_of(&mut self.socket) else {
                return;
            };
            // SAFETY: the frames are lent: no token exists, so only the kernel has them.
            let moved = unsafe { rings.fill.produce(&self.scratch[..staged]) };
            debug_assert_eq!(moved, staged, "room was checked");
            want -= u32::try_from(staged).unwrap_or(want);
            if staged < BATCH {
                break;
            }
        }
        self.level.added(wanted, spendable - want);
        if wakeup {
            self.stats.fill_wakeups += 1;
            if let Some(rings) = rings_of(&mut self.socket) {
                // poll(2) without waiting; its failure is the next one's, too.
                let _ = rings.fill.wakeup(rings.rx.fd_mut(), 0);
            }
        }
    }

    fn stats(&self) -> PortStats {
        let mut stats = PortStats {
            carrier: self.carrier,
            ..self.stats
        };
        let fd = self.socket.as_ref().and_then(Bound::fd);
        let kernel = fd.and_then(|fd| fd.xdp_statistics().ok());
        if let Some(kernel) = kernel {
            stats.kernel_rx_dropped = kernel.rx_dropped();
            stats.kernel_rx_ring_full = kernel.rx_ring_full();
            stats.kernel_rx_fill_ring_empty = kernel.rx_fill_ring_empty_descs();
            stats.kernel_rx_invalid = kernel.rx_invalid_descs();
            stats.kernel_tx_invalid = kernel.tx_invalid_descs();
            stats.kernel_tx_ring_empty = kernel.tx_ring_empty_descs();
        }
        stats
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.socket.as_ref()?.fd()?;
        // SAFETY: the descriptor stays open as long as the socket, which `self` owns; the
        // borrow of `self` keeps it from being closed (`reclaim_all` takes `&mut self`).
        Some(unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) })
    }

    fn set_carrier(&mut self, up: bool) {
        self.carrier = up && !self.gone;
    }

    fn reclaim_all(&mut self, pool: &FramePool) -> u32 {
        self.carrier = false;
        self.complete(pool);
        self.partial.clear();
        if self.socket.take().is_some() {
            self.closed_at = Some(Instant::now());
        }
        let quarantined = self.granted.zero_copy
            && self
                .closed_at
                .is_some_and(|at| at.elapsed() < ZERO_COPY_QUARANTINE);
        if quarantined {
            return self.stats.lent + self.stats.tx_in_flight;
        }
        for index in 0..u32::try_from(self.in_ring.len()).unwrap_or(u32::MAX) {
            while self.release(pool, index) {}
            if self.unmark_lent(index) {
                drop(pool.recall(Lent(index)));
            }
        }
        self.stats.lent + self.stats.tx_in_flight
    }
}
