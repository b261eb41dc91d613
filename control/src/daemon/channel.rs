//! [`transport`] for tasks: waits instead of blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use braid_dataplane::control::transport::{self, Received, TransportError};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::watch::watch;

/// A connected, non-blocking control socket.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
    /// Where messages arrive.
    received: Mutex<Vec<u8>>,
}

impl Channel {
    /// Takes a non-blocking socket.
    ///
    /// # Errors
    /// It cannot be polled.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watch(socket)?,
            received: Mutex::default(),
        })
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &OwnedFd {
        self.socket.get_ref()
    }

    /// Sends one message; waits for room.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn send<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), TransportError> {
        self.wait(Interest::WRITABLE, |s| {
            transport::send(s.as_fd(), message, fds)
        })
        .await
    }

    /// Receives one message; waits for it.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, TransportError> {
        self.wait(Interest::READABLE, |s| {
            let mut buffer = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            transport::receive_into(s.as_fd(), &mut buffer)
        })
        .await
    }

    async fn wait<R>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&OwnedFd) -> Result<R, TransportError>,
    ) -> Result<R, TransportError> {
        loop {
            let mut ready = self.socket.ready(interest).await.map_err(socket_error)?;
            match operation(self.socket.get_ref()) {
                Err(e) if e.would_block() => ready.clear_ready(),
                done => return done,
            }
        }
    }
}

fn socket_error(e: io::Error) -> TransportError {
    TransportError::Socket(Errno::from_io_error(&e).unwrap_or(Errno::IO))
}
