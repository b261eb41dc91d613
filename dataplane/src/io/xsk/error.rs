//! Why a UMEM or a socket could not be had, and the command that helps.

use std::io;

/// Failure to open a UMEM group or a port.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configured memory limit is too low.
    #[error(
        "frames need {needed_bytes} bytes, memory-limit allows {limit_bytes}: \
         lower [dataplane] frames or raise memory-limit"
    )]
    MemoryLimit {
        /// UMEM and its tables.
        needed_bytes: u64,
        /// As configured.
        limit_bytes: u64,
    },
    /// A size that the kernel or libxdp would refuse.
    #[error("{key} = {value}: {rule}")]
    Config {
        /// Configuration key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What it must be.
        rule: &'static str,
    },
    /// `hugepages = "require"`, and there are too few.
    #[error(
        "{pages} huge pages of 2 MiB are required: \
         sysctl -w vm.nr_hugepages={pages}, or set hugepages = \"try\" ({source})"
    )]
    HugePages {
        /// How many.
        pages: u64,
        /// From mmap.
        source: io::Error,
    },
    /// The mapping itself failed.
    #[error("cannot map {bytes} bytes for frames: lower [dataplane] frames ({source})")]
    NoMemory {
        /// Size of the region.
        bytes: u64,
        /// From mmap.
        source: io::Error,
    },
    /// The UMEM exceeds RLIMIT_MEMLOCK.
    #[error(
        "the kernel will not pin {bytes} bytes: run with CAP_IPC_LOCK, or raise the limit \
         (ulimit -l {} ; systemd: LimitMEMLOCK=infinity)", bytes / 1024
    )]
    LockedMemory {
        /// Size of the region.
        bytes: u64,
    },
    /// AF_XDP is root's.
    #[error("{what} needs CAP_NET_RAW: run as root, or setcap cap_net_raw,cap_ipc_lock+ep BINARY")]
    Permission {
        /// What was refused.
        what: &'static str,
    },
    /// The kernel has no AF_XDP.
    #[error("the kernel lacks CONFIG_XDP_SOCKETS: zgrep XDP_SOCKETS /proc/config.gz")]
    Unsupported,
    /// No such interface (any more) in this network namespace.
    #[error(
        "interface {interface}: no such device in this network namespace: ip link show {interface}"
    )]
    InterfaceGone {
        /// Its name.
        interface: String,
    },
    /// The interface exists and is down.
    #[error("interface {interface} is down: ip link set {interface} up")]
    InterfaceDown {
        /// Its name.
        interface: String,
    },
    /// The driver cannot do zero-copy.
    #[error(
        "interface {interface} queue {queue}: the driver has no AF_XDP zero-copy here: \
         set mode = \"auto\" or \"native\" (driver: ethtool -i {interface})"
    )]
    NoZeroCopy {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Another process has a socket on that queue.
    #[error(
        "interface {interface} queue {queue} is in use by another AF_XDP socket: \
         ss --xdp -p, or bpftool net show dev {interface}"
    )]
    QueueBusy {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The interface has not that many queues, or refuses the flags.
    #[error(
        "interface {interface} queue {queue}: refused; is there such a queue? \
         ethtool -l {interface}, then ethtool -L {interface} combined {}", queue + 1
    )]
    QueueOutOfRange {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// Scatter-gather wanted, kernel or driver without.
    #[error(
        "interface {interface} queue {queue}: no multi-buffer AF_XDP: needs Linux 6.6: uname -r"
    )]
    NoMultiBuffer {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The group's first device is gone.
    #[error(
        "interface {interface}: the UMEM group lost its first device and takes no new sockets: \
         restart the dataplane"
    )]
    GroupLost {
        /// Its name.
        interface: String,
    },
    /// Anything else.
    #[error("{what}: {source}; the kernel's reason may be in dmesg")]
    System {
        /// What was attempted.
        what: String,
        /// errno.
        source: io::Error,
    },
}
