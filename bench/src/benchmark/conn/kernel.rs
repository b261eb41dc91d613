//! Kernel clients that open, join, ask once and close, as fast as they can; and the
//! kernel's echo server for as many connections as come.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use super::engines::MESSAGE_BYTES;
use crate::failure;
use crate::peer::socket::{listen, transport};
use crate::testbed::Result;

/// Connections that are opened or closed at the same time.
const IN_FLIGHT: usize = 64;
/// A connection that has not got its answer and its join by then counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);
const EVENTS: usize = 128;
/// The listening socket among the events.
const LISTENER: u64 = u64::MAX;
/// How often a server without work looks whether it is to end.
const LOOK_MS: u16 = 20;
/// Joins come without an event: between two looks at them.
const JOIN_LOOK_MS: u16 = 1;

fn epoll() -> Result<Epoll> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| failure!("epoll: {e}"))
}

fn wait(epoll: &Epoll, events: &mut [EpollEvent], ms: u16) -> Result<usize> {
    match epoll.wait(events, EpollTimeout::from(ms)) {
        Ok(n) => Ok(n),
        Err(nix::errno::Errno::EINTR) => Ok(0),
        Err(e) => Err(failure!("epoll_wait: {e}")),
    }
}

/// Echoes what comes on every connection until `stop`.
pub fn serve(address: SocketAddr, stop: &AtomicBool, ready: &dyn Fn()) -> Result<()> {
    let listener = listen(address, false)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll()?;
    let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
    epoll
        .add(&listener, event)
        .map_err(|e| failure!("epoll: {e}"))?;
    ready();
    let (mut sockets, mut free) = (Vec::<Option<Socket>>::new(), Vec::<usize>::new());
    let mut buffer = [0; 4096];
    let mut events = [EpollEvent::empty(); EVENTS];
    while !stop.load(Ordering::Relaxed) {
        let n = wait(&epoll, &mut events, LOOK_MS)?;
        for event in &events[..n] {
            if event.data() != LISTENER {
                let at = usize::try_from(event.data()).unwrap_or(usize::MAX);
                let slot = sockets.get_mut(at);
                let over = slot.is_some_and(|slot| !echo(slot, &mut buffer));
                if over {
                    // Closing takes it out of the set.
                    sockets[at] = None;
                    free.push(at);
                }
                continue;
            }
            while let Ok((socket, _)) = listener.accept() {
                socket.set_nonblocking(true)?;
                let at = free.pop().unwrap_or_else(|| {
                    sockets.push(None);
                    sockets.len() - 1
                });
                let event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
                epoll
                    .add(&socket, event)
                    .map_err(|e| failure!("epoll: {e}"))?;
                sockets[at] = Some(socket);
            }
        }
    }
    Ok(())
}

/// False at the end of the connection.
fn echo(slot: &mut Option<Socket>, buffer: &mut [u8]) -> bool {
    let Some(socket) = slot else { return true };
    match socket.read(buffer) {
        Ok(0) => false,
        // A message fits every send buffer.
        Ok(n) => socket.write_all(&buffer[..n]).is_ok(),
        Err(e) => e.kind() == ErrorKind::WouldBlock,
    }
}

/// Where a connection stands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stage {
    Connecting,
    Asked { received: usize },
    Answered,
}

struct One {
    socket: Socket,
    stage: Stage,
    since: Instant,
}

/// What clients came to.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Connections with their answer and their join.
    pub connections: u64,
    /// In how long.
    pub elapsed: Duration,
    /// Connections that failed.
    pub failures: u64,
    /// Why, the first of them.
    pub first_failure: String,
}

impl Opened {
    fn fail(&mut self, why: impl std::fmt::Display) {
        if self.failures == 0 {
            self.first_failure = why.to_string();
        }
        self.failures += 1;
    }
}

/// `IPPROTO_MPTCP`, linux/in.h.
const IPPROTO_MPTCP: i32 = 262;

fn begin(to: SocketAddr) -> Result<One> {
    let protocol = Some(Protocol::from(IPPROTO_MPTCP));
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) => return Err(failure!("connect: {e}")),
    }
    Ok(One {
        socket,
        stage: Stage::Connecting,
        since: Instant::now(),
    })
}

impl One {
    /// Something happened on its socket.
    fn step(&mut self, epoll: &Epoll, at: usize) -> Result<()> {
        match self.stage {
            Stage::Connecting => {
                if let Some(e) = self.socket.take_error()? {
                    return Err(failure!("connect: {e}"));
                }
                self.socket.write_all(&[0x5a; MESSAGE_BYTES])?;
                self.stage = Stage::Asked { received: 0 };
                let mut event = EpollEvent::new(EpollFlags::EPOLLIN, at as u64);
                epoll
                    .modify(&self.socket, &mut event)
                    .map_err(|e| failure!("epoll: {e}"))
            }
            Stage::Asked { received } => {
                let mut buffer = [0; MESSAGE_BYTES];
                let n = self.socket.read(&mut buffer)?;
                if n == 0 {
                    return Err(failure!("the server has closed"));
                }
                let received = received + n;
                self.stage = if received < MESSAGE_BYTES {
                    Stage::Asked { received }
                } else {
                    Stage::Answered
                };
                Ok(())
            }
            Stage::Answered => Ok(()),
        }
    }

    fn is_done(&self) -> Result<bool> {
        if self.stage != Stage::Answered {
            return Ok(false);
        }
        let transport = transport(&self.socket);
        if !transport.mptcp {
            return Err(failure!("fell back to TCP"));
        }
        Ok(transport.extra_subflows > 0)
    }
}

/// Opens connections one after the other, some at a time, for as long as `duration`.
pub fn open(to: SocketAddr, duration: Duration) -> Result<Opened> {
    let epoll = epoll()?;
    let mut opened = Opened::default();
    let mut ones: Vec<Option<One>> = (0..IN_FLIGHT).map(|_| None).collect();
    let mut events = [EpollEvent::empty(); EVENTS];
    let start = Instant::now();
    while start.elapsed() < duration {
        for (at, one) in ones.iter_mut().enumerate().filter(|(_, one)| one.is_none()) {
            let new = begin(to)?;
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, at as u64);
            epoll
                .add(&new.socket, event)
                .map_err(|e| failure!("epoll: {e}"))?;
            *one = Some(new);
        }
        let n = wait(&epoll, &mut events, JOIN_LOOK_MS)?;
        for event in &events[..n] {
            let at = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Some(one) = ones.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            if let Err(e) = one.step(&epoll, at) {
                opened.fail(e);
                ones[at] = None;
            }
        }
        for slot in &mut ones {
            let Some(one) = slot else { continue };
            match one.is_done() {
                Ok(false) if one.since.elapsed() < PATIENCE => continue,
                Ok(false) => opened.fail(format_args!("{:?} after {PATIENCE:?}", one.stage)),
                Ok(true) => opened.connections += 1,
                Err(e) => opened.fail(e),
            }
            *slot = None;
        }
    }
    opened.elapsed = start.elapsed();
    Ok(opened)
}
