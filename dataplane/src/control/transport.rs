//! JSON messages with descriptors over a connected `SOCK_SEQPACKET` socket.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockType, SockaddrStorage, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message, bytes: fits the kernel's default socket buffer (212,992) with room.
pub const MESSAGE_MAX_BYTES: usize = 160 * 1024;

/// Descriptors per message at the most (`SCM_MAX_FD` is 253).
pub const FDS_MAX: usize = 253;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Socket(#[from] Errno),
    /// The peer closed.
    #[error("the peer closed the control socket")]
    Closed,
    /// Not a message of this protocol.
    #[error("malformed control message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Larger than [`MESSAGE_MAX_BYTES`].
    #[error("control message of {0} bytes is too large (at most {MESSAGE_MAX_BYTES})")]
    TooLarge(usize),
    /// Descriptors were lost on the way.
    #[error("control message lost its descriptors (open-file limit?)")]
    FdsTruncated,
}

impl TransportError {
    /// True when a non-blocking socket has nothing to read or no room to write.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Socket(Errno::EAGAIN))
    }
}

/// Sends one message with descriptors.
///
/// # Errors
/// See [`TransportError`]; `would_block` when the socket is non-blocking and full.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), TransportError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_MAX_BYTES {
        return Err(TransportError::TooLarge(bytes.len()));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(TransportError::Closed),
            Err(e) => return Err(e.into()),
        }
    }
}

/// A received message and its descriptors, in order.
pub type Received<T> = (T, Vec<OwnedFd>);

/// Receives one message.
///
/// # Errors
/// See [`TransportError`]; `would_block` when the socket is non-blocking and empty.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Received<T>, TransportError> {
    let mut bytes = vec![0u8; MESSAGE_MAX_BYTES];
    let mut control = cmsg_space!([RawFd; FDS_MAX]);
    let (n, fds, truncated) = loop {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        match recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut iov,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => {
                let mut fds = Vec::new();
                for c in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = c {
                        fds.extend(raw.into_iter().map(own));
                    }
                }
                break (message.bytes, fds, message.flags.contains(MsgFlags::MSG_CTRUNC));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Err(TransportError::Closed),
            Err(e) => return Err(e.into()),
        }
    };
    if truncated {
        return Err(TransportError::FdsTruncated);
    }
    if n == 0 {
        return Err(TransportError::Closed);
    }
    Ok((serde_json::from_slice(&bytes[..n])?, fds))
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just installed this descriptor in our table for the
    // SCM_RIGHTS message we received; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The socket type of every control channel.
pub const SOCKET_TYPE: SockType = SockType::SeqPacket;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn carries_messages_and_descriptors() {
        let (a, b) =
            socketpair(AddressFamily::Unix, SOCKET_TYPE, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(a.as_fd(), &vec![1u32, 2, 3], &[file.as_fd(), a.as_fd()]).unwrap();
        send(a.as_fd(), &"second", &[]).unwrap();
        let (v, fds): Received<Vec<u32>> = receive(b.as_fd()).unwrap();
        assert_eq!((v, fds.len()), (vec![1, 2, 3], 2));
        let (s, fds): Received<String> = receive(b.as_fd()).unwrap();
        assert_eq!((s.as_str(), fds.len()), ("second", 0));
        drop(a);
        drop(fds);
        let end = receive::<String>(b.as_fd());
        // `a` also travelled to us as a descriptor and was dropped with it.
        assert!(matches!(end, Err(TransportError::Closed)), "{end:?}");
    }

    #[test]
    fn refuses_what_a_datagram_cannot_carry() {
        let (a, _b) =
            socketpair(AddressFamily::Unix, SOCKET_TYPE, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let big = "x".repeat(MESSAGE_MAX_BYTES);
        assert!(matches!(send(a.as_fd(), &big, &[]), Err(TransportError::TooLarge(_))));
    }
}
