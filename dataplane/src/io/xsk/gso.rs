//! The gso lane: an AF_PACKET socket that takes bursts whole (`PACKET_VNET_HDR`).
//!
//! The kernel gathers a burst from our frames into one GSO packet, and it or the device
//! segments and completes the checksums; a receiver on this host gets it unsegmented. A
//! port with a lane sends everything by it: two ways out would overtake each other. The
//! socket is bound to protocol 0, so that it taps nothing. It goes through the qdisc:
//! without (`PACKET_QDISC_BYPASS`), a device that does not segment drops every burst.
//!
//! Invariant: every frame in `frames` has one reference from us until its message was
//! taken by the kernel, which copies, or dropped. So nobody writes to the bytes that
//! `slices` points at.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::buf::Frame;
use crate::offload::{BURST_FRAMES_MAX, BurstShape};

/// Messages staged at the most: what a turn of the worker sends.
const MESSAGES_MAX: usize = 1024;
/// Messages of one sendmmsg(2): `UIO_MAXIOV` in the kernel.
const MESSAGES_PER_CALL: usize = 1024;
/// Largest burst: what an IP length says, its link header beside.
pub(super) const BURST_BYTES_MAX: u32 = 65_535;

// linux/if_packet.h, linux/virtio_net.h
const PACKET_VNET_HDR: libc::c_int = 15;
const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;
const VIRTIO_NET_HDR_GSO_NONE: u8 = 0;
const VIRTIO_NET_HDR_GSO_TCPV4: u8 = 1;
const VIRTIO_NET_HDR_GSO_TCPV6: u8 = 4;
/// Where the checksum is in a TCP header.
const TCP_CHECKSUM_OFFSET: u16 = 16;

/// `struct virtio_net_hdr`, host byte order on an AF_PACKET socket.
#[repr(C)]
#[derive(Copy, Clone, Debug, Default)]
struct VnetHeader {
    flags: u8,
    gso_type: u8,
    hdr_len: u16,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
}

/// One packet or burst: its slices and frames are the next so many.
#[derive(Copy, Clone, Debug)]
struct Message {
    vnet: VnetHeader,
    slices: usize,
    bytes: usize,
}

/// What [`GsoLane::flush`] did.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// System calls.
    pub(super) calls: u64,
    /// Messages that the kernel refused for good.
    pub(super) dropped: u64,
    /// The device is gone.
    pub(super) gone: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct GsoLane {
    fd: OwnedFd,
    messages: Vec<Message>,
    /// (first byte, length) of every staged slice.
    slices: Vec<(*const u8, usize)>,
    /// The frame of every slice.
    frames: Vec<u32>,
    /// Frames of messages that the kernel took or refused.
    finished: Vec<u32>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
}

// SAFETY: the pointers lead into the UMEM, which outlives the port and is not bound to a
// thread; `headers` and `iovecs` are scratch of one call.
unsafe impl Send for GsoLane {}

impl GsoLane {
    /// Opens the lane of an interface.
    pub(super) fn open(ifindex: u32, send_buffer_bytes: u32) -> io::Result<Self> {
        // SAFETY: plain system call; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        set(&fd, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        let bytes = libc::c_int::try_from(send_buffer_bytes).unwrap_or(libc::c_int::MAX);
        if set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
            let _ = set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
        }
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_ifindex = libc::c_int::try_from(ifindex).map_err(io::Error::other)?;
        // SAFETY: the kernel reads as many bytes as the structure has.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            fd,
            messages: Vec::with_capacity(MESSAGES_MAX),
            slices: Vec::with_capacity(MESSAGES_MAX),
            frames: Vec::with_capacity(MESSAGES_MAX),
            finished: Vec::with_capacity(MESSAGES_MAX),
            headers: Vec::with_capacity(MESSAGES_MAX),
            iovecs: Vec::with_capacity(2 * MESSAGES_MAX),
        })
    }

    /// Messages that could be staged now.
    pub(super) fn free(&self) -> u32 {
        u32::try_from(MESSAGES_MAX - self.messages.len()).unwrap_or(0)
    }

    /// Bytes of the last message.
    pub(super) fn last_bytes(&self) -> usize {
        self.messages.last().map_or(0, |m| m.bytes)
    }

    /// Stages a packet that is complete. The caller has taken a reference on the frame.
    pub(super) fn push(&mut self, frame: &Frame) {
        self.add(frame, 0..frame.len());
        self.messages.push(Message {
            vnet: VnetHeader::default(),
            slices: 1,
            bytes: frame.len(),
        });
    }

    /// Stages a burst. `refer` takes a reference on a frame, or says that it cannot: then
    /// nothing is staged, and what was referred to is finished.
    pub(super) fn push_burst<'f>(
        &mut self,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
        mut refer: impl FnMut(&Frame) -> bool,
    ) -> bool {
        let before = self.slices.len();
        let mut bytes = 0;
        for (frame, range) in frames {
            if self.slices.len() - before == BURST_FRAMES_MAX || !refer(frame) {
                self.slices.truncate(before);
                self.finished.extend(self.frames.drain(before..));
                return false;
            }
            bytes += range.len();
            self.add(frame, range);
        }
        // One packet, of several frames, is none to segment: the kernel's TCP segmentation
        // refuses what has only one segment's payload (tcp_gso_segment), and drops it.
        let several = bytes.saturating_sub(shape.header_len) > usize::from(shape.segment_bytes);
        let (gso_type, gso_size) = match (several, shape.ipv6) {
            (false, _) => (VIRTIO_NET_HDR_GSO_NONE, 0),
            (true, false) => (VIRTIO_NET_HDR_GSO_TCPV4, shape.segment_bytes),
            (true, true) => (VIRTIO_NET_HDR_GSO_TCPV6, shape.segment_bytes),
        };
        let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        self.messages.push(Message {
            vnet: VnetHeader {
                flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
                gso_type,
                hdr_len: short(shape.header_len),
                gso_size,
                csum_start: short(shape.tcp_offset),
                csum_offset: TCP_CHECKSUM_OFFSET,
            },
            slices: self.slices.len() - before,
            bytes,
        });
        true
    }

    fn add(&mut self, frame: &Frame, range: Range<usize>) {
        let bytes = &frame.packet()[range];
        self.slices.push((bytes.as_ptr(), bytes.len()));
        self.frames.push(frame.index());
    }

    /// Hands staged messages to the kernel; what it has no room for now stays.
    pub(super) fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        let mut done = 0;
        while done < self.messages.len() {
            flushed.calls += 1;
            match self.send(done) {
                Ok(0) => break,
                Ok(sent) => done += sent,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The send buffer is full.
                    Some(libc::EAGAIN) => break,
                    Some(number) => {
                        // Dropped by the qdisc or the device (ENOBUFS), interface down or
                        // gone, a packet that it refuses: the message is spent.
                        flushed.dropped += 1;
                        flushed.gone |= matches!(number, libc::ENXIO | libc::ENODEV);
                        done += 1;
                    }
                    None => break,
                },
            }
        }
        self.finish(done);
        flushed
    }

    /// Drops everything that is staged.
    pub(super) fn clear(&mut self) {
        self.finish(self.messages.len());
    }

    /// A frame that the kernel no longer reads, once per reference.
    pub(super) fn pop_finished(&mut self) -> Option<u32> {
        self.finished.pop()
    }

    fn finish(&mut self, messages: usize) {
        let slices: usize = self.messages.drain(..messages).map(|m| m.slices).sum();
        self.slices.drain(..slices);
        self.finished.extend(self.frames.drain(..slices));
    }

    /// One sendmmsg(2) from message `first` on; how many were taken.
    fn send(&mut self, first: usize) -> io::Result<usize> {
        let skipped: usize = self.messages[..first].iter().map(|m| m.slices).sum();
        let batch = &self.messages[first..];
        let batch = &batch[..batch.len().min(MESSAGES_PER_CALL)];
        self.iovecs.clear();
        self.headers.clear();
        let mut slices = self.slices[skipped..].iter();
        for message in batch {
            self.iovecs.push(libc::iovec {
                iov_base: (&raw const message.vnet).cast_mut().cast(),
                iov_len: mem::size_of::<VnetHeader>(),
            });
            let frames = slices.by_ref().take(message.slices);
            self.iovecs.extend(frames.map(|(base, len)| libc::iovec {
                iov_base: base.cast_mut().cast(),
                iov_len: *len,
            }));
        }
        // The list of slices does not move any more.
        let mut at = 0;
        for message in batch {
            // SAFETY: all-zero is a valid msghdr.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_iov = self.iovecs[at..].as_mut_ptr();
            header.msg_hdr.msg_iovlen = message.slices + 1;
            at += message.slices + 1;
            self.headers.push(header);
        }
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or(0);
        // SAFETY: headers and slices are valid for the call; the kernel only reads the
        // bytes, which are referred to (invariant), and writes `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn set(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads an int.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
