//! A kernel socket at one end: sends the pattern, keeps every byte that it gets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::failure;
use crate::peer::socket::{Target, Transport, connect, listen, transport};
use crate::peer::stream::{Content, Stream};
use crate::testbed::{Result, Role, Testbed};

/// How long a system call may wait before somebody looks whether all is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a server looks for its client.
const ACCEPT_EVERY: Duration = Duration::from_millis(2);

/// What a kernel socket got.
#[derive(Clone, Default, Debug)]
pub struct Got {
    /// Bytes in the order of the stream.
    pub bytes: Vec<u8>,
    /// The stream's end came.
    pub eof: bool,
    /// What the socket said about itself while it worked.
    pub transport: Transport,
    /// An error that the application was told.
    pub error: Option<String>,
    /// Neither end nor error came in time.
    pub timed_out: bool,
    /// When it was over.
    pub ended: Option<Instant>,
}

/// What a socket is to do.
#[derive(Clone, Debug)]
pub struct Task {
    /// Whose namespace.
    pub role: Role,
    /// Plain TCP instead of MPTCP.
    pub tcp: bool,
    /// The server's address.
    pub address: SocketAddr,
    /// Bytes to send.
    pub bytes: u64,
    /// When to give up.
    pub deadline: Instant,
}

/// A socket at work in a thread of its own.
#[derive(Debug)]
pub struct KernelEnd {
    thread: std::thread::JoinHandle<()>,
    got: Arc<Mutex<Option<Got>>>,
}

impl KernelEnd {
    /// Listens; returns when a client may come.
    pub fn serve(testbed: &Testbed, task: &Task) -> Result<Self> {
        Self::start(testbed, task, true)
    }

    /// Connects.
    pub fn connect(testbed: &Testbed, task: &Task) -> Result<Self> {
        Self::start(testbed, task, false)
    }

    fn start(testbed: &Testbed, task: &Task, server: bool) -> Result<Self> {
        let got = Arc::new(Mutex::new(None));
        let result = Arc::clone(&got);
        let (task, (tell, told)) = (task.clone(), mpsc::channel::<Result<()>>());
        let namespace = testbed.namespace_handle(task.role)?;
        let thread = std::thread::spawn(move || {
            let ready = namespace.enter().and_then(|()| {
                let listener = server.then(|| listen(task.address, task.tcp)).transpose()?;
                Ok(listener)
            });
            let listener = match ready {
                Ok(listener) => listener,
                Err(e) => {
                    let _ = tell.send(Err(e));
                    return;
                }
            };
            let _ = tell.send(Ok(()));
            // The listener stays: joins to the server's other addresses need it.
            let got = match open(listener.as_ref(), &task) {
                Ok(socket) => exchange(&socket, &task),
                Err(e) => Got {
                    timed_out: timed_out(&e),
                    error: Some(e.to_string()),
                    ended: Some(Instant::now()),
                    ..Got::default()
                },
            };
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
        });
        told.recv()
            .map_err(|_| failure!("a peer's thread ended"))??;
        Ok(Self { thread, got })
    }

    /// Whether it is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it got; waits for its end, which its deadline bounds.
    #[must_use]
    pub fn join(self) -> Got {
        let _ = self.thread.join();
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.take().unwrap_or_default()
    }
}

fn timed_out(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn open(listener: Option<&Socket>, task: &Task) -> io::Result<Socket> {
    let left = task.deadline.saturating_duration_since(Instant::now());
    let socket = match listener {
        Some(listener) => {
            // accept(2) on an MPTCP socket knows no timeout.
            listener.set_nonblocking(true)?;
            loop {
                match listener.accept() {
                    Ok((socket, _)) => break socket,
                    Err(e) if timed_out(&e) && Instant::now() < task.deadline => {
                        std::thread::sleep(ACCEPT_EVERY);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        None => connect(&Target {
            to: task.address,
            bind: None,
            tcp: task.tcp,
            mapped: false,
            timeout: left,
        })?,
    };
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    socket.set_write_timeout(Some(LOOK_EVERY))?;
    Ok(socket)
}

/// Sends and receives at the same time until both directions have ended, one has failed
/// or the time is over.
fn exchange(socket: &Socket, task: &Task) -> Got {
    let over = AtomicBool::new(false);
    let mut got = Got {
        transport: transport(socket),
        ..Got::default()
    };
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send(socket, task, &over);
            if sent.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            sent
        });
        receive(socket, task, &over, &mut got);
        if got.error.is_some() {
            over.store(true, Ordering::Relaxed);
        }
        sender.join()
    });
    got.transport = got.transport.or(transport(socket));
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(e)) if timed_out(&e) => got.timed_out |= got.error.is_none(),
        Ok(Err(e)) => {
            got.timed_out = false;
            got.error.get_or_insert(format!("send: {e}"));
        }
        Err(_) => got.error = Some("the sending thread panicked".to_owned()),
    }
    got.ended = Some(Instant::now());
    got
}

fn send(socket: &Socket, task: &Task, over: &AtomicBool) -> io::Result<()> {
    let mut stream = Stream::new(Content::Pattern);
    while stream.position() < task.bytes {
        let left = usize::try_from(task.bytes - stream.position()).unwrap_or(usize::MAX);
        let n = stream.peek().len().min(left);
        match (&*socket).write(&stream.peek()[..n]) {
            Ok(n) => stream.advance(n),
            Err(e) if timed_out(&e) => {
                if over.load(Ordering::Relaxed) || Instant::now() >= task.deadline {
                    return Err(e);
                }
            }
            Err(e) => return Err(e),
        }
    }
    socket.shutdown(Shutdown::Write)
}

fn receive(socket: &Socket, task: &Task, over: &AtomicBool, got: &mut Got) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match (&*socket).read(&mut buffer) {
            Ok(0) => {
                got.eof = true;
                return;
            }
            Ok(n) => got.bytes.extend_from_slice(&buffer[..n]),
            Err(e) if timed_out(&e) => {
                got.transport = got.transport.or(transport(socket));
                if over.load(Ordering::Relaxed) || Instant::now() >= task.deadline {
                    got.timed_out = Instant::now() >= task.deadline;
                    return;
                }
            }
            Err(e) => {
                got.error = Some(format!("receive: {e}"));
                return;
            }
        }
    }
}
