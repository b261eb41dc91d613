//! The sockets of one interface, by receive queue.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::MapError;
use crate::map::{Map, Spec};

/// Queues that an interface may have: `QUEUES_MAX` of the program.
pub const QUEUES_MAX: u32 = 1024;

/// The XSKMAP of one interface. The kernel redirects only to a socket bound to
/// the interface and queue that the packet came in on, and takes a socket out
/// when it is closed.
#[derive(Debug)]
pub struct XskMap {
    map: Map,
}

impl XskMap {
    /// Takes over an XSKMAP that another process sent.
    ///
    /// # Errors
    /// The descriptor is not an XSKMAP of this version of the program.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, MapError> {
        let spec = Spec {
            name: "xsks",
            kind: libbpf_rs::MapType::Xskmap,
            key_bytes: 4,
            value_bytes: 4,
            entries: QUEUES_MAX,
        };
        Ok(Self {
            map: Map::from_fd(fd, &spec)?,
        })
    }

    /// Gives the packets of `queue` to `socket`, replacing the one before.
    ///
    /// # Errors
    /// The descriptor is no AF_XDP socket, or the queue is [`QUEUES_MAX`] or
    /// more.
    pub fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), MapError> {
        self.map
            .update(&queue.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes())
    }

    /// Takes the socket of `queue` out, if there is one.
    ///
    /// # Errors
    /// The queue is [`QUEUES_MAX`] or more.
    pub fn remove(&self, queue: u32) -> Result<(), MapError> {
        self.map.delete(&queue.to_ne_bytes()).map(|_| ())
    }
}

impl AsFd for XskMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}
