//! JSON messages with descriptors over a connected `SOCK_SEQPACKET` socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
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
    /// More than [`FDS_MAX`].
    #[error("control message with {0} descriptors (at most {FDS_MAX})")]
    TooManyFds(usize),
    /// Descriptors were lost on the way.
    #[error("control message lost its descriptors (open-file limit?)")]
    FdsTruncated,
}

impl TransportError {
    /// True when a non-blocking socket has nothing to read or no room to write.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Socket(Errno::AGAIN))
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
    send_bytes(socket, &encode(message)?, fds)
}

/// A message as it is sent.
///
/// # Errors
/// [`TransportError::TooLarge`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, TransportError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_MAX_BYTES {
        return Err(TransportError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

/// Sends what [`encode`] made.
///
/// # Errors
/// As [`send`].
pub fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), TransportError> {
    if fds.len() > FDS_MAX {
        return Err(TransportError::TooManyFds(fds.len()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    match rustix::io::retry_on_intr(|| {
        sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    }) {
        Ok(_) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(TransportError::Closed),
        Err(e) => Err(e.into()),
    }
}

/// A received message and its descriptors, in order.
pub type Received<T> = (T, Vec<OwnedFd>);

/// Receives one message.
///
/// # Errors
/// See [`TransportError`]; `would_block` when the socket is non-blocking and empty.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<Received<T>, TransportError> {
    receive_into(socket, &mut Vec::new())
}

/// As [`receive`], by way of a buffer that is kept: whoever receives often would clear a new
/// one of [`MESSAGE_MAX_BYTES`] each time.
///
/// # Errors
/// As [`receive`].
pub fn receive_into<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    bytes: &mut Vec<u8>,
) -> Result<Received<T>, TransportError> {
    bytes.resize(MESSAGE_MAX_BYTES, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        let mut iov = [IoSliceMut::new(bytes)];
        recvmsg(socket, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let message = match message {
        Ok(message) => message,
        Err(Errno::CONNRESET) => return Err(TransportError::Closed),
        Err(e) => return Err(e.into()),
    };
    let mut fds = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
            fds.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(TransportError::FdsTruncated);
    }
    if message.bytes == 0 {
        return Err(TransportError::Closed);
    }
    Ok((serde_json::from_slice(&bytes[..message.bytes])?, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::fd::AsFd;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn carries_messages_and_descriptors() {
        let (a, b) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(a.as_fd(), &vec![1u32, 2, 3], &[file.as_fd(), a.as_fd()]).unwrap();
        send(a.as_fd(), &"second", &[]).unwrap();
        let (v, fds): Received<Vec<u32>> = receive(b.as_fd()).unwrap();
        assert_eq!((v, fds.len()), (vec![1, 2, 3], 2));
        drop(fds); // `a` is among them
        let (s, fds): Received<String> = receive(b.as_fd()).unwrap();
        assert_eq!((s.as_str(), fds.len()), ("second", 0));
        drop(a);
        let end = receive::<String>(b.as_fd());
        assert!(matches!(end, Err(TransportError::Closed)), "{end:?}");
    }

    #[test]
    fn refuses_what_a_datagram_cannot_carry() {
        let (a, _b) = pair();
        let big = "x".repeat(MESSAGE_MAX_BYTES);
        assert!(matches!(
            send(a.as_fd(), &big, &[]),
            Err(TransportError::TooLarge(_))
        ));
    }
}
