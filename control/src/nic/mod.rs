//! What an interface is and can do: driver, queues, modes, and rules for flows.
//!
//! Asked by ioctl and not by sysfs: `/sys` shows the network namespace it was mounted in,
//! which need not be ours.

mod ethtool;
pub mod rules;
mod wire;

pub use ethtool::{Switch, channels, driver};

use braid_dataplane::control::{PortMode, RxChecksum};

use crate::config::{Mode, RxChecksumConfig};
use crate::netlink::Link;

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
