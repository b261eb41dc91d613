//! What an interface is and can do: driver, queues, and the sizes AF_XDP allows on it.
//!
//! Asked by ioctl and not by sysfs: `/sys` shows the network namespace it was mounted in,
//! which need not be ours.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use braid_dataplane::control::{PortMode, RxChecksum};
use socket2::{Domain, Socket, Type};

use crate::config::{Mode, RxChecksumConfig};
use crate::netlink::Link;

/// `ETHTOOL_GDRVINFO` and `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const ETHTOOL_GDRVINFO: u32 = 0x3;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    erom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawChannels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Queues of an interface.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues.
    pub rx: u32,
    /// Transmit queues.
    pub tx: u32,
    /// It counts pairs ("combined"): decides what `ethtool -L` wants to hear.
    pub combined: bool,
}

impl Channels {
    /// Queues that a socket can be bound to and both send and receive on.
    #[must_use]
    pub fn pairs(self) -> u32 {
        self.rx.min(self.tx)
    }

    /// The command that gives the interface `n` queues.
    #[must_use]
    pub fn fix(self, interface: &str, n: usize) -> String {
        if self.combined {
            format!("ethtool -L {interface} combined {n}")
        } else {
            format!("ethtool -L {interface} rx {n} tx {n}")
        }
    }
}

/// Calls ethtool with `command`, which begins with its number.
///
/// # Safety
/// `T` must be the struct that the kernel expects for that number.
unsafe fn ethtool<T>(interface: &str, command: &mut T) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: a C struct of integers, byte arrays and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    // SAFETY: the request names the interface with a final NUL and points to a struct of
    // the size the command has, which lives until the call returns.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Name of the driver.
///
/// # Errors
/// No such interface, or one without ethtool.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        erom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: the struct of this command, 196 bytes as in the kernel's header.
    unsafe { ethtool(interface, &mut info)? };
    let end = info
        .driver
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

/// Queues as they are now. Devices that do not say have one.
#[must_use]
pub fn channels(interface: &str) -> Channels {
    let mut raw = RawChannels {
        cmd: ETHTOOL_GCHANNELS,
        ..RawChannels::default()
    };
    // SAFETY: the struct of this command, nine 32-bit integers as in the kernel's header.
    match unsafe { ethtool(interface, &mut raw) } {
        Ok(()) => Channels {
            rx: (raw.combined + raw.rx).max(1),
            tx: (raw.combined + raw.tx).max(1),
            combined: raw.max_combined > 0,
        },
        Err(_) => Channels {
            rx: 1,
            tx: 1,
            combined: true,
        },
    }
}

/// True for devices whose "wire" is this host: their packets were never on a wire, so their
/// senders leave checksums to be completed by hardware that does not exist.
#[must_use]
pub fn is_virtual(link: &Link, driver: &str) -> bool {
    link.kind.is_some() || matches!(driver, "veth" | "virtio_net" | "tun" | "netkit")
}

/// Modes to try, in order, each with "zero-copy or nothing".
#[must_use]
pub fn modes(mode: Mode, is_virtual: bool) -> Vec<(PortMode, bool)> {
    match (mode, is_virtual) {
        // Local senders do not segment: what arrives whole costs a fraction (README,
        // "Measured"), even though generic XDP copies once more.
        (Mode::Auto, true) => vec![
            (PortMode::Superframe, false),
            (PortMode::Native, false),
            (PortMode::Generic, false),
        ],
        // The dataplane falls back to copying by itself where zero-copy is not required.
        (Mode::Auto, false) => vec![(PortMode::ZeroCopy, false), (PortMode::Generic, false)],
        (Mode::ZeroCopy, _) => vec![(PortMode::ZeroCopy, true)],
        (Mode::Native, _) => vec![(PortMode::Native, false)],
        (Mode::Generic, _) => vec![(PortMode::Generic, false)],
        (Mode::Superframe, _) => vec![(PortMode::Superframe, false)],
    }
}

/// A mode as configurations call it.
#[must_use]
pub fn mode_name(mode: PortMode) -> &'static str {
    match mode {
        PortMode::ZeroCopy => "zero-copy",
        PortMode::Native => "native",
        PortMode::Generic => "generic",
        PortMode::Superframe => "superframe",
    }
}

/// Why a mode is used, and what it costs.
#[must_use]
pub fn mode_reason(mode: PortMode) -> &'static str {
    match mode {
        PortMode::Superframe => {
            "packets of up to 64 KiB arrive and leave whole; generic XDP also copies the \
             packets of the kernel's own flows on this interface"
        }
        PortMode::ZeroCopy => "the NIC reads and writes our frames where its driver can",
        PortMode::Native => "the driver runs the program, the kernel copies",
        PortMode::Generic => "works on every device, the kernel copies",
    }
}

/// Checksum policy of an interface.
#[must_use]
pub fn rx_checksum(config: RxChecksumConfig, is_virtual: bool) -> RxChecksum {
    match (config, is_virtual) {
        (RxChecksumConfig::AcceptPartial, _) | (RxChecksumConfig::Auto, true) => {
            RxChecksum::AcceptPartial
        }
        (RxChecksumConfig::Verify, _) | (RxChecksumConfig::Auto, false) => RxChecksum::Verify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_have_the_kernels_sizes() {
        assert_eq!(size_of::<DriverInfo>(), 196);
        assert_eq!(size_of::<RawChannels>(), 36);
    }

    #[test]
    fn a_device_without_ethtool_has_one_queue() {
        assert_eq!(
            channels("no-such-device"),
            Channels {
                rx: 1,
                tx: 1,
                combined: true
            }
        );
        assert!(driver("no-such-device").is_err());
        assert!(driver("a-name-that-is-longer-than-any").is_err());
    }

    #[test]
    fn auto_means_what_the_device_can() {
        assert_eq!(modes(Mode::Auto, true)[0], (PortMode::Superframe, false));
        assert_eq!(modes(Mode::Auto, false)[0], (PortMode::ZeroCopy, false));
        assert_eq!(modes(Mode::ZeroCopy, true), [(PortMode::ZeroCopy, true)]);
        assert_eq!(
            rx_checksum(RxChecksumConfig::Auto, true),
            RxChecksum::AcceptPartial
        );
        assert_eq!(
            rx_checksum(RxChecksumConfig::Auto, false),
            RxChecksum::Verify
        );
        assert_eq!(
            rx_checksum(RxChecksumConfig::Verify, true),
            RxChecksum::Verify
        );
    }

    #[test]
    fn the_fix_speaks_the_devices_language() {
        let veth = Channels {
            rx: 1,
            tx: 1,
            combined: false,
        };
        assert_eq!(veth.fix("v0", 2), "ethtool -L v0 rx 2 tx 2");
        let nic = Channels {
            rx: 1,
            tx: 1,
            combined: true,
        };
        assert_eq!(nic.fix("eth1", 2), "ethtool -L eth1 combined 2");
    }
}
