//! The counters of `steer`: one per verdict and reason. Every packet raises
//! exactly one of them, so their sum is the number of packets seen.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::MapError;
use crate::map::{Map, Spec};

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident => $text:literal,)+) => {
        /// What became of a packet, and why.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])+ $name,)+ }

        impl Counter {
            /// Every counter, in the order of the map.
            pub const ALL: &'static [Counter] = &[$(Counter::$name,)+];

            /// The name shown to people and machines.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Counter::$name => $text,)+ }
            }
        }
    };
}

counters! {
    /// TCP over IPv4, to an AF_XDP socket.
    RedirectTcp4 => "SteerRedirectTcp4",
    /// TCP over IPv6, to an AF_XDP socket.
    RedirectTcp6 => "SteerRedirectTcp6",
    /// An ICMP error about a flow of ours, to an AF_XDP socket.
    RedirectIcmp4 => "SteerRedirectIcmp4",
    /// An ICMPv6 error about a flow of ours, to an AF_XDP socket.
    RedirectIcmp6 => "SteerRedirectIcmp6",
    /// Ours, but no socket is bound to the queue that it arrived on.
    DropNoSocket => "SteerDropNoSocket",
    /// First fragment of a segment to a port of ours.
    DropFirstFragment => "SteerDropFirstFragment",
    /// Neither IPv4 nor IPv6.
    PassNotIp => "SteerPassNotIp",
    /// IP in a broadcast or multicast frame.
    PassGroupMac => "SteerPassGroupMac",
    /// Neither TCP nor ICMP.
    PassNotTcp => "SteerPassNotTcp",
    /// ICMP that is no error, or an error about something other than TCP.
    PassIcmpOther => "SteerPassIcmpOther",
    /// Nobody claimed the address and port.
    PassNoClaim => "SteerPassNoClaim",
    /// IPv6 with a routing header that has segments left.
    PassRoutingHeader => "SteerPassRoutingHeader",
    /// Ours, but the dataplane is dead or hangs.
    PassHeartbeatStale => "SteerPassHeartbeatStale",
    /// A fragment without ports: nobody can tell whose it is.
    PassNonFirstFragment => "SteerPassNonFirstFragment",
    /// The frame ends inside a header.
    PassTruncated => "SteerPassTruncated",
    /// The driver put headers outside the linear part of the frame.
    PassHeadersInFrags => "SteerPassHeadersInFrags",
    /// A header contradicts itself.
    PassMalformed => "SteerPassMalformed",
    /// More IPv6 extension headers than RFC 8200 allows.
    PassExtHeaderLimit => "SteerPassExtHeaderLimit",
    /// More than two VLAN tags.
    PassVlanDepth => "SteerPassVlanDepth",
}

impl Counter {
    const fn index(self) -> u32 {
        self as u32
    }
}

impl std::fmt::Display for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The counter map, shared by all interfaces.
#[derive(Debug)]
pub struct Counters {
    map: Map,
}

impl Counters {
    /// Takes over a counter map that another process sent.
    ///
    /// # Errors
    /// The descriptor is not a counter map of this version of the program.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, MapError> {
        let entries = u32::try_from(Counter::ALL.len()).expect("a handful of counters");
        let spec = Spec {
            name: "counters",
            kind: libbpf_rs::MapType::PercpuArray,
            key_bytes: 4,
            value_bytes: 8,
            entries,
        };
        Ok(Self {
            map: Map::from_fd(fd, &spec)?,
        })
    }

    /// Every counter, summed over CPUs.
    ///
    /// # Errors
    /// The kernel refused the lookup.
    pub fn read(&self) -> Result<Vec<(Counter, u64)>, MapError> {
        Counter::ALL
            .iter()
            .map(|&counter| {
                let sum = self.map.sum_over_cpus(&counter.index().to_ne_bytes())?;
                Ok((counter, sum))
            })
            .collect()
    }
}

impl AsFd for Counters {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_order_are_those_of_the_program() {
        let header = include_str!("bpf/counters.h");
        let in_c: Vec<&str> = header
            .lines()
            .filter_map(|line| line.trim().strip_prefix("X(")?.split(')').next())
            .collect();
        let in_rust: Vec<&str> = Counter::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(in_c, in_rust);
    }

    #[test]
    fn index_is_the_position_in_the_list() {
        for (position, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(counter.index()), Ok(position));
        }
    }

    #[test]
    fn variant_and_text_differ_by_the_prefix_only() {
        for counter in Counter::ALL {
            assert_eq!(format!("Steer{counter:?}"), counter.as_str());
        }
    }
}
