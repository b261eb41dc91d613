//! The kernel's MPTCP sockets, and what they tell about themselves.
#![allow(unsafe_code)] // getsockopt(2) with options that no crate wraps.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// `IPPROTO_MPTCP`, linux/in.h.
const IPPROTO_MPTCP: i32 = 262;
/// `SOL_MPTCP`, linux/socket.h.
const SOL_MPTCP: i32 = 284;
/// `MPTCP_INFO`, linux/mptcp.h.
const MPTCP_INFO: i32 = 1;
/// `TCP_IS_MPTCP`, linux/tcp.h.
const TCP_IS_MPTCP: i32 = 43;
/// `MPTCP_INFO_FLAG_FALLBACK`, linux/mptcp.h.
const MPTCP_INFO_FLAG_FALLBACK: u32 = 1;

/// Where a client connects to and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub to: SocketAddr,
    /// Own address, if it matters.
    pub bind: Option<IpAddr>,
    /// Plain TCP instead of MPTCP.
    pub tcp: bool,
    /// An IPv6 socket with an IPv4-mapped address, so that subflows of both families
    /// may belong to the connection.
    pub mapped: bool,
    /// Longest wait for one system call.
    pub timeout: Duration,
}

/// What an MPTCP socket says about itself.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transport {
    /// Still MPTCP: neither plain TCP from the start nor fallen back.
    pub mptcp: bool,
    /// Fell back to TCP after it was MPTCP.
    pub fallback: bool,
    /// Subflows beside the first.
    pub extra_subflows: u8,
    /// Connection token, 0 when not MPTCP.
    pub token: u32,
}

impl Transport {
    /// The more eventful of two observations: subflows come and go.
    #[must_use]
    pub fn or(self, later: Self) -> Self {
        Self {
            mptcp: later.mptcp,
            fallback: self.fallback || later.fallback,
            extra_subflows: self.extra_subflows.max(later.extra_subflows),
            token: if later.token == 0 {
                self.token
            } else {
                later.token
            },
        }
    }
}

fn open(address: SocketAddr, tcp: bool) -> io::Result<Socket> {
    let protocol = if tcp {
        Protocol::TCP
    } else {
        Protocol::from(IPPROTO_MPTCP)
    };
    Socket::new(Domain::for_address(address), Type::STREAM, Some(protocol)).map_err(|e| {
        if matches!(e.raw_os_error(), Some(libc::EPROTONOSUPPORT)) || e.raw_os_error() == Some(libc::ENOPROTOOPT) {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel refuses MPTCP sockets: is net.mptcp.enabled 1 (sysctl) and CONFIG_MPTCP built in?",
            )
        } else {
            e
        }
    })
}

/// Connects.
pub fn connect(target: &Target) -> io::Result<Socket> {
    let to = match (target.mapped, target.to) {
        (true, SocketAddr::V4(v4)) => {
            SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port())
        }
        _ => target.to,
    };
    let socket = open(to, target.tcp)?;
    if let Some(bind) = target.bind {
        socket.bind(&SocketAddr::new(bind, 0).into())?;
    }
    socket.connect_timeout(&to.into(), target.timeout)?;
    prepare(&socket, target.timeout)?;
    Ok(socket)
}

/// Listens.
pub fn listen(address: SocketAddr, tcp: bool) -> io::Result<Socket> {
    let socket = open(address, tcp)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket)
}

/// Options of every connected socket.
pub fn prepare(socket: &Socket, timeout: Duration) -> io::Result<()> {
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    socket.set_tcp_nodelay(true)
}

/// The unspecified address of a family.
#[must_use]
pub fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn option<const N: usize>(fd: RawFd, level: i32, name: i32) -> Option<[u8; N]> {
    let mut value = [0_u8; N];
    let mut len = libc::socklen_t::try_from(N).ok()?;
    // SAFETY: `value` is N writable bytes, `len` says so, and both live across the
    // call; the kernel writes no more than `len` bytes.
    let rc = unsafe { libc::getsockopt(fd, level, name, value.as_mut_ptr().cast(), &raw mut len) };
    (rc == 0).then_some(value)
}

/// Asks a socket what it is.
#[must_use]
pub fn transport(socket: &Socket) -> Transport {
    let fd = socket.as_raw_fd();
    let is_mptcp = option::<4>(fd, libc::IPPROTO_TCP, TCP_IS_MPTCP)
        .is_some_and(|value| i32::from_ne_bytes(value) == 1);
    // struct mptcp_info: six u8, padding, u32 flags at 8, u32 token at 12.
    let info = option::<16>(fd, SOL_MPTCP, MPTCP_INFO);
    let word = |at: usize| {
        info.map_or(0, |bytes| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        })
    };
    let fallback = word(8) & MPTCP_INFO_FLAG_FALLBACK != 0;
    Transport {
        mptcp: is_mptcp && !fallback,
        fallback,
        extra_subflows: info.map_or(0, |bytes| bytes[0]),
        token: word(12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_socket_says_that_it_is_not_mptcp() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let to = listener.local_addr().unwrap().as_socket().unwrap();
        let client = connect(&Target {
            to,
            bind: None,
            tcp: true,
            mapped: false,
            timeout: Duration::from_secs(5),
        })
        .unwrap();
        assert_eq!(transport(&client), Transport::default());
    }

    #[test]
    fn observations_merge() {
        let early = Transport {
            mptcp: true,
            extra_subflows: 2,
            token: 5,
            fallback: false,
        };
        let late = Transport {
            mptcp: false,
            fallback: true,
            ..Transport::default()
        };
        let merged = early.or(late);
        assert!(!merged.mptcp && merged.fallback);
        assert_eq!((merged.extra_subflows, merged.token), (2, 5));
    }
}
