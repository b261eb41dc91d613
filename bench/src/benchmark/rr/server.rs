//! The kernel's echo server: what stands in braid's place for comparison.
//!
//! One thread on one core. A single connection is served with blocking calls, several with
//! epoll: each the cheapest that the kernel has for its case.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use crate::failure;
use crate::peer::socket::{listen, prepare};
use crate::testbed::Result;

/// Largest message.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How often a server without work looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Of a blocked write: a client that is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Events taken from epoll at once.
const EVENTS: usize = 64;

/// How the application waits for input.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Sleeps in the kernel.
    Block,
    /// Asks again and again.
    Spin,
}

/// Echoes what comes to `address` until `stop`. `ready` is called when it listens.
pub fn echo(
    address: SocketAddr,
    connections: usize,
    wait: Wait,
    stop: &AtomicBool,
    ready: &dyn Fn(),
) -> Result<()> {
    let listener = listen(address, false)?;
    listener.set_nonblocking(true)?;
    ready();
    let mut sockets = Vec::with_capacity(connections);
    while sockets.len() < connections {
        match listener.accept() {
            Ok((socket, _)) => {
                prepare(&socket, PATIENCE)?;
                sockets.push(socket);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(failure!("accept: {e}")),
        }
    }
    match (&sockets[..], wait) {
        ([one], Wait::Block) => blocking(one, stop),
        (all, Wait::Spin) => spinning(all, stop),
        (all, Wait::Block) => waiting(all, stop),
    }
}

/// Reads once and writes that back; false at the end of the stream.
fn turn(mut socket: &Socket, buffer: &mut [u8]) -> Result<bool> {
    match socket.read(buffer) {
        Ok(0) => Ok(false),
        Ok(n) => {
            write_all(socket, &buffer[..n])?;
            Ok(true)
        }
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(false),
        Err(e) => Err(failure!("read: {e}")),
    }
}

/// Also on a socket that does not block: what is on its way fits the client's window.
fn write_all(mut socket: &Socket, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(e) => return Err(failure!("write: {e}")),
        }
    }
    Ok(())
}

fn blocking(socket: &Socket, stop: &AtomicBool) -> Result<()> {
    socket.set_read_timeout(Some(LOOK))?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    while turn(socket, &mut buffer)? && !stop.load(Ordering::Relaxed) {}
    Ok(())
}

fn spinning(sockets: &[Socket], stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    for socket in sockets {
        socket.set_nonblocking(true)?;
    }
    while !stop.load(Ordering::Relaxed) {
        for socket in sockets {
            if !turn(socket, &mut buffer)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn waiting(sockets: &[Socket], stop: &AtomicBool) -> Result<()> {
    let set = Waiting::new(sockets)?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let mut open = true;
        set.readable(LOOK, |at| {
            open &= turn(&sockets[at], &mut buffer)?;
            Ok(())
        })?;
        if !open {
            break;
        }
    }
    Ok(())
}

/// Sockets in an epoll set, by index.
#[derive(Debug)]
pub struct Waiting {
    epoll: Epoll,
    sockets: usize,
}

impl Waiting {
    /// All of them, for input.
    pub fn new(sockets: &[Socket]) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| failure!("{e}"))?;
        for (at, socket) in sockets.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
            epoll.add(socket, event).map_err(|e| failure!("{e}"))?;
        }
        Ok(Self {
            epoll,
            sockets: sockets.len(),
        })
    }

    /// Calls `each` with the index of every socket that has input, after a wait.
    pub fn readable(
        &self,
        timeout: Duration,
        mut each: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let ms = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        let n = match self.epoll.wait(&mut events, EpollTimeout::from(ms)) {
            Ok(n) => n,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(e) => return Err(failure!("epoll_wait: {e}")),
        };
        for event in &events[..n] {
            let at = usize::try_from(event.data()).unwrap_or(usize::MAX);
            if at < self.sockets {
                each(at)?;
            }
        }
        Ok(())
    }
}
