//! A packet socket: everything that arrives at one interface, and a way out through it.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, sendmsg,
    setsockopt, socket,
};

use crate::failure;
use crate::testbed::Result;

/// Longer than any frame: interfaces may hand over what they have not segmented.
const FRAME_MAX: usize = 1 << 17;
/// Room for a burst in the kernel while the relay waits for its core.
const BUFFER_BYTES: usize = 8 << 20;
/// `PACKET_OUTGOING`, linux/if_packet.h: a frame that somebody else sent through it.
const PACKET_OUTGOING: u8 = 4;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: OwnedFd,
    interface: LinkAddr,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// On an interface of the calling thread's network namespace.
    pub(super) fn open(name: &str) -> Result<Self> {
        let told = |what: &str, e: Errno| failure!("{what} {name}: {e}");
        // The address that the kernel lists for the interface is the one to bind to.
        let interface = getifaddrs()
            .map_err(|e| told("interfaces for", e))?
            .filter(|i| i.interface_name == name)
            .find_map(|i| i.address?.as_link_addr().copied())
            .ok_or_else(|| failure!("no interface {name}"))?;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
        .map_err(|e| told("packet socket for", e))?;
        setsockopt(&fd, RcvBufForce, &BUFFER_BYTES).map_err(|e| told("SO_RCVBUFFORCE", e))?;
        setsockopt(&fd, SndBufForce, &BUFFER_BYTES).map_err(|e| told("SO_SNDBUFFORCE", e))?;
        bind(fd.as_raw_fd(), &interface).map_err(|e| told("bind to", e))?;
        Ok(Self {
            fd,
            interface,
            buffer: vec![0; FRAME_MAX],
        })
    }

    /// The next frame that came in, if there is one.
    pub(super) fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let fd = self.fd.as_raw_fd();
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let (len, from) =
                match recvmsg::<LinkAddr>(fd, &mut parts, None, MsgFlags::MSG_DONTWAIT) {
                    Ok(message) => (message.bytes, message.address),
                    Err(Errno::EAGAIN) => return Ok(None),
                    // The interface was down for a moment: the next frame is as good.
                    Err(Errno::EINTR | Errno::ENETDOWN) => continue,
                    Err(e) => return Err(failure!("packet socket: {e}")),
                };
            // Before bind(2) it heard every interface.
            let ours = from.is_some_and(|from| {
                from.ifindex() == self.interface.ifindex() && from.pkttype() != PACKET_OUTGOING
            });
            if ours {
                return Ok(Some(self.buffer[..len].to_vec()));
            }
        }
    }

    /// Sends a frame; false if the interface did not take it, as a full wire would not.
    pub(super) fn send(&self, frame: &[u8]) -> bool {
        let parts = [IoSlice::new(frame)];
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg::<LinkAddr>(self.fd.as_raw_fd(), &parts, &[], flags, None).is_ok()
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
