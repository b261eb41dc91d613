//! What can go wrong with the program and its maps, in the words of the
//! operator, with the command that helps where there is one.

use std::io;

/// The program could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The process may not load BPF programs.
    #[error(
        "not permitted to load the XDP program: CAP_BPF and CAP_NET_ADMIN are needed (run as root)"
    )]
    NotPermitted,
    /// The kernel's verifier, or its set of map types, refused the program.
    #[error(
        "the kernel refused the XDP program ({source}); Linux 5.18 or newer is needed; log:\n{log}"
    )]
    Refused {
        /// What libbpf made of the system call's answer.
        source: libbpf_rs::Error,
        /// libbpf's and the verifier's words.
        log: String,
    },
    /// The process has too many descriptors.
    #[error("cannot duplicate a descriptor of the XDP program: {0}")]
    Descriptor(#[source] io::Error),
    /// A map of the program could not be used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// A map operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A descriptor is not the map that it was said to be: it comes from
    /// another program, or from another version of this one.
    #[error(
        "descriptor is not a map `{map}` of this version of braid: {field} is {found}, not {expected}"
    )]
    Mismatch {
        /// Name of the map.
        map: &'static str,
        /// What differs.
        field: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// No room for another entry.
    #[error("map `{map}` is full ({entries} entries)")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// How many entries it has.
        entries: u32,
    },
    /// The kernel refused the operation.
    #[error("cannot {operation} map `{map}`: {source}")]
    Kernel {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// What the system call said.
        source: io::Error,
    },
}

/// How an XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// By the driver, before the kernel has built a packet.
    Native,
    /// By the kernel's network core: works with every driver, and taxes the
    /// kernel's own traffic on the interface.
    Generic,
}

impl AttachMode {
    /// The name shown to people and machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        }
    }
}

impl std::fmt::Display for AttachMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a program found on an interface runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FoundMode {
    /// As [`AttachMode::Native`].
    Native,
    /// As [`AttachMode::Generic`].
    Generic,
    /// On the NIC itself.
    Offloaded,
}

impl FoundMode {
    /// The name shown to people and machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            FoundMode::Native => "native",
            FoundMode::Generic => "generic",
            FoundMode::Offloaded => "offloaded",
        }
    }

    /// The word by which `ip link set` detaches it; a bare `xdp off` only
    /// reaches the mode that the driver prefers.
    const fn ip_keyword(self) -> &'static str {
        match self {
            FoundMode::Native => "xdpdrv",
            FoundMode::Generic => "xdpgeneric",
            FoundMode::Offloaded => "xdpoffload",
        }
    }
}

/// An XDP program that is attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundProgram {
    /// The interface's name.
    pub interface: String,
    /// The kernel's id of the program.
    pub id: u32,
    /// The program's name; empty when it has none or it cannot be read.
    pub name: String,
    /// Where it runs.
    pub mode: FoundMode,
    /// The id of the `bpf_link` that holds it, if a link does.
    pub link_id: Option<u32>,
}

impl std::fmt::Display for FoundProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            interface,
            id,
            name,
            mode,
            link_id,
        } = self;
        write!(f, "another XDP program (id {id}, name ")?;
        f.write_str(if name.is_empty() { "unknown" } else { name })?;
        write!(f, ", {}) is attached to {interface}; ", mode.as_str())?;
        match link_id {
            // Only its holder, or a forced detach, ends a link.
            Some(link) => write!(
                f,
                "stop the process that holds it (bpftool link show id {link}) \
                 or remove it with: bpftool link detach id {link}"
            ),
            None => write!(
                f,
                "remove it with: ip link set dev {interface} {} off",
                mode.ip_keyword()
            ),
        }
    }
}

/// The program could not be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// No interface has this index in this network namespace.
    #[error("no network interface with index {ifindex}")]
    NoInterface {
        /// The index.
        ifindex: u32,
    },
    /// Another program is there. Programs are never replaced.
    #[error("{0}")]
    Occupied(FoundProgram),
    /// The process may not attach XDP programs.
    #[error(
        "not permitted to attach an XDP program to {interface}: CAP_NET_ADMIN and CAP_BPF are \
         needed (run as root)"
    )]
    NotPermitted {
        /// The interface's name.
        interface: String,
    },
    /// The driver has no native XDP, or not with the interface's settings.
    #[error(
        "the driver of {interface} does not support native XDP, or not with the features that are \
         switched on (LRO: ethtool -K {interface} lro off); use mode = \"generic\""
    )]
    Unsupported {
        /// The interface's name.
        interface: String,
    },
    /// The driver's buffers are too small for the MTU.
    #[error(
        "MTU {mtu} of {interface} is too large for native XDP with this driver; lower it with: \
         ip link set dev {interface} mtu 1500, or use mode = \"generic\""
    )]
    MtuTooLarge {
        /// The interface's name.
        interface: String,
        /// Its MTU.
        mtu: u32,
    },
    /// The driver wants more queues: a veth at least as many receive queues as
    /// its peer has transmit queues.
    #[error(
        "{interface} has too few receive queues for native XDP; a veth needs as many as its peer \
         has transmit queues: ethtool -L {interface} rx N"
    )]
    TooFewQueues {
        /// The interface's name.
        interface: String,
    },
    /// Anything else that the kernel said.
    #[error("cannot attach in {mode} mode to {interface}: {source}")]
    Kernel {
        /// The interface's name.
        interface: String,
        /// The mode that was tried.
        mode: AttachMode,
        /// What the system call said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mode: FoundMode, link_id: Option<u32>) -> String {
        AttachError::Occupied(FoundProgram {
            interface: "vb1".into(),
            id: 7,
            name: "xdp_pass".into(),
            mode,
            link_id,
        })
        .to_string()
    }

    #[test]
    fn a_netlink_program_is_removed_in_its_own_mode() {
        assert_eq!(
            found(FoundMode::Generic, None),
            "another XDP program (id 7, name xdp_pass, generic) is attached to vb1; \
             remove it with: ip link set dev vb1 xdpgeneric off"
        );
        assert!(found(FoundMode::Native, None).ends_with("vb1 xdpdrv off"));
    }

    #[test]
    fn a_program_held_by_a_link_is_not_removed_by_ip() {
        let text = found(FoundMode::Native, Some(3));
        assert!(text.contains("bpftool link detach id 3"), "{text}");
        assert!(!text.contains("ip link"), "{text}");
    }
}
