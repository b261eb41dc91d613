//! Descriptors in the event loop.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Registers a descriptor, which stays ours.
///
/// # Errors
/// It cannot be polled.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor, always the same, until it is dropped;
    // AsyncFd takes it out of the event loop before that.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
