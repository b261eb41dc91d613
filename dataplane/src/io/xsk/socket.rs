//! Opening one socket: bind, retry, and find out what we really got.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue};

use super::error::OpenError;
use super::umem::{UmemGroup, errno};
use crate::io::RxChecksum;

/// The kernel releases a queue asynchronously after its socket was closed.
const BUSY_RETRY: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

// linux/if_xdp.h
const XDP_OPTIONS: libc::c_int = 8;
const XDP_OPTIONS_ZEROCOPY: u32 = 1;
/// Linux 6.17; not in libc yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// `TX_BATCH_SIZE` in net/xdp/xsk.c: the budget without that option.
pub(super) const TX_BUDGET_DEFAULT: u32 = 32;

/// What mode to bind in. The flags count for the first socket of a group only.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum BindMode {
    /// Zero-copy if the driver can, else copy.
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// Copy.
    Copy,
}

/// One port.
#[derive(Clone, Debug)]
pub struct XskConfig {
    /// Name in the calling thread's network namespace.
    pub interface: String,
    /// Receive queue.
    pub queue: u32,
    /// Copy or zero-copy.
    pub bind: BindMode,
    /// The XDP program is attached in generic (SKB) mode: decides only what is reported.
    pub generic: bool,
    /// Multi-buffer: packets larger than a frame. Wants an `xdp.frags` program.
    pub scatter_gather: bool,
    /// Send by an AF_PACKET socket that segments, instead of the TX ring.
    pub gso_lane: bool,
    /// Entries of the RX ring; a power of two.
    pub rx_ring: u32,
    /// Entries of the TX ring; a power of two.
    pub tx_ring: u32,
    /// How many frames the fill ring is kept at when it has to be full: what is used up while
    /// the worker sleeps or works. At most the ring's size.
    pub fill_frames: u32,
    /// Frames of the pool that receiving leaves to sending: without it a stack that is
    /// flooded cannot even acknowledge.
    pub reserve_frames: u32,
    /// SO_SNDBUF: in copy mode the kernel charges packets in flight to it.
    pub send_buffer_bytes: u32,
    /// Of the link.
    pub mtu: u32,
    /// Largest packet that may arrive.
    pub rx_superframe_bytes: u32,
    /// How received checksums are to be treated.
    pub rx_checksum: RxChecksum,
}

impl XskConfig {
    /// A port on queue 0 with default sizes.
    #[must_use]
    pub fn new(interface: &str) -> Self {
        Self {
            interface: interface.into(),
            queue: 0,
            bind: BindMode::Auto,
            generic: false,
            scatter_gather: false,
            gso_lane: false,
            rx_ring: 4096,
            tx_ring: 4096,
            fill_frames: 2048,
            reserve_frames: 512,
            send_buffer_bytes: 16 << 20,
            mtu: 1500,
            rx_superframe_bytes: 1514,
            rx_checksum: RxChecksum::Verify,
        }
    }
}

/// The four rings of a bound socket. All of them must go before the queue is released.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
}

/// A bound socket; dropping it releases the queue.
#[derive(Debug)]
pub(super) struct Bound {
    /// Some until dropped.
    rings: Option<Rings>,
    /// The socket's descriptor is the UMEM's: libxdp does not close it with the socket.
    primary: bool,
    sockets: Arc<Mutex<u32>>,
}

impl Bound {
    /// The rings; None never happens while the value lives.
    #[inline]
    pub(super) fn rings(&mut self) -> Option<&mut Rings> {
        self.rings.as_mut()
    }

    pub(super) fn fd(&self) -> Option<&xsk_rs::socket::Fd> {
        self.rings.as_ref().map(|rings| rings.tx.fd())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        *sockets -= 1;
        let fd = self.fd().map(AsRawFd::as_raw_fd);
        drop(self.rings.take());
        if let (true, Some(fd)) = (self.primary, fd)
            && let Ok(nothing) = File::open("/dev/null")
        {
            // libxdp keeps this descriptor open with the UMEM. The kernel would stay
            // bound to the queue and go on writing to frames of the fill ring, which we
            // are about to use again. Put another file in its place: that closes the
            // socket, and libxdp later closes a descriptor that is still its own.
            // SAFETY: both descriptors are open, and `fd` stays open.
            unsafe { libc::dup3(nothing.as_raw_fd(), fd, libc::O_CLOEXEC) };
        }
    }
}

/// What the kernel granted.
#[derive(Copy, Clone, Debug)]
pub(super) struct Granted {
    pub(super) zero_copy: bool,
    /// Descriptors that one kick moves in copy mode.
    pub(super) tx_budget: u32,
}

pub(super) fn open(group: &UmemGroup, config: &XskConfig) -> Result<(Bound, Granted), OpenError> {
    check(group, config)?;
    let name = CString::new(config.interface.as_str()).map_err(|_| OpenError::InterfaceGone {
        interface: config.interface.clone(),
    })?;
    let interface = Interface::new(name);
    let ring = |size| QueueSize::new(size).expect("checked to be a power of two");
    let mut flags = BindFlags::XDP_USE_NEED_WAKEUP;
    match config.bind {
        BindMode::Auto => {}
        BindMode::ZeroCopy => flags |= BindFlags::XDP_ZEROCOPY,
        BindMode::Copy => flags |= BindFlags::XDP_COPY,
    }
    if config.scatter_gather {
        flags |= BindFlags::XDP_USE_SG;
    }
    let socket_config = SocketConfig::builder()
        .rx_queue_size(ring(config.rx_ring))
        .tx_queue_size(ring(config.tx_ring))
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(flags)
        .build();

    let mut sockets = group.sockets.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Instant::now() + BUSY_RETRY;
    let (tx, rx, rings) = loop {
        // SAFETY: INHIBIT_PROG_LOAD is set, which is what the contract asks for.
        let made = unsafe { Socket::new(socket_config, &group.umem, &interface, config.queue) };
        match made.map_err(|error| errno(&error)) {
            Ok(made) => break made,
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                thread::sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(explain(config, error)),
        }
    };
    // None: this UMEM has a socket on the queue already.
    let Some((fill, completion)) = rings else {
        return Err(busy(config));
    };
    let fd = tx.fd().as_raw_fd();
    let zero_copy = option(fd, XDP_OPTIONS).is_ok_and(|bits| bits & XDP_OPTIONS_ZEROCOPY != 0);
    let granted = Granted {
        zero_copy,
        tx_budget: tune(fd, config),
    };
    let primary = *sockets == 0;
    *sockets += 1;
    let bound = Bound {
        rings: Some(Rings {
            tx,
            rx,
            fill,
            completion,
        }),
        primary,
        sockets: Arc::clone(&group.sockets),
    };
    Ok((bound, granted))
}

fn check(group: &UmemGroup, config: &XskConfig) -> Result<(), OpenError> {
    let refuse = |key, value: u32, rule| {
        Err(OpenError::Config {
            key,
            value: value.into(),
            rule,
        })
    };
    if !config.rx_ring.is_power_of_two() {
        return refuse("rx-ring", config.rx_ring, "must be a power of two");
    }
    if !config.tx_ring.is_power_of_two() || config.tx_ring > group.completion_ring {
        let rule = "must be a power of two, and no larger than the group's completion ring";
        return refuse("tx-ring", config.tx_ring, rule);
    }
    if config.fill_frames == 0 || config.fill_frames > group.fill_ring {
        return refuse(
            "fill-frames",
            config.fill_frames,
            "must be 1 to the fill ring's size",
        );
    }
    // libxdp 1.4.3 reads IFNAMSIZ bytes of the name, whatever its length is.
    if config.interface.is_empty() || config.interface.len() >= libc::IFNAMSIZ {
        return Err(OpenError::InterfaceGone {
            interface: config.interface.clone(),
        });
    }
    Ok(())
}

fn busy(config: &XskConfig) -> OpenError {
    OpenError::QueueBusy {
        interface: config.interface.clone(),
        queue: config.queue,
    }
}

/// bind(2) and its preparation, errno by errno (net/xdp/xsk.c, xsk_bind).
fn explain(config: &XskConfig, source: io::Error) -> OpenError {
    let (interface, queue) = (config.interface.clone(), config.queue);
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission {
            what: "an AF_XDP socket",
        },
        Some(libc::EAFNOSUPPORT) => OpenError::Unsupported,
        Some(libc::ENODEV | libc::ENXIO) => OpenError::InterfaceGone { interface },
        Some(libc::ENETDOWN) => OpenError::InterfaceDown { interface },
        Some(libc::EBUSY) => busy(config),
        // A closed first socket leaves a descriptor that is no socket, see `Bound`.
        Some(libc::EBADF | libc::ENOTSOCK | libc::ENOPROTOOPT) => {
            OpenError::GroupLost { interface }
        }
        Some(libc::EOPNOTSUPP) if config.scatter_gather => {
            OpenError::NoMultiBuffer { interface, queue }
        }
        // virtio without iommu_platform answers EINVAL, others EOPNOTSUPP.
        Some(libc::EOPNOTSUPP | libc::EINVAL) if config.bind == BindMode::ZeroCopy => {
            OpenError::NoZeroCopy { interface, queue }
        }
        Some(libc::EINVAL) => OpenError::QueueOutOfRange { interface, queue },
        _ => OpenError::System {
            what: format!("cannot bind to interface {interface} queue {queue}"),
            source,
        },
    }
}

/// Raises what limits copy-mode transmission; returns the budget that holds. Best
/// effort: an old kernel or missing CAP_NET_ADMIN costs throughput, not correctness.
fn tune(fd: RawFd, config: &XskConfig) -> u32 {
    let bytes = config.send_buffer_bytes;
    if set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        // Up to net.core.wmem_max.
        let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
    }
    // 32 to the TX ring's size.
    let budget = config.tx_ring.max(TX_BUDGET_DEFAULT);
    match set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, budget) {
        Ok(()) => budget,
        Err(_) => TX_BUDGET_DEFAULT,
    }
}

fn option_len() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<u32>()).unwrap_or(4)
}

fn option(fd: RawFd, name: libc::c_int) -> io::Result<u32> {
    let mut value = 0u32;
    let mut len = option_len();
    // SAFETY: the kernel writes at most `len` bytes to `value`.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_XDP,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, value: u32) -> io::Result<()> {
    // SAFETY: the kernel reads `option_len()` bytes of `value`.
    let result =
        unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), option_len()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
