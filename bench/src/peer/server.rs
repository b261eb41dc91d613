//! A kernel server with the applications of braid's services.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::socket::{Transport, listen, prepare, transport};
use super::stream::{Content, Stream};
use super::transfer::{Check, READ_BYTES, Until, gbit_per_s, half_close_after, receive, send};

/// What the server does with a connection.
#[derive(Copy, Clone, Debug)]
pub enum App {
    /// Sends back what it receives.
    Echo {
        /// Changes this byte, to show that clients notice.
        corrupt_at: Option<u64>,
    },
    /// Reads and, if a content is given, checks.
    Sink {
        /// What must come.
        expect: Option<Content>,
        /// When to end the own direction, which ends a client without a limit.
        limit: Option<Duration>,
    },
    /// Sends.
    Source {
        /// What.
        content: Content,
        /// How much; `None`: until the client closes.
        bytes: Option<u64>,
        /// How long; `None`: as `bytes` says.
        limit: Option<Duration>,
    },
}

/// One connection, as the server saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The client.
    pub peer: String,
    /// The end was orderly and what was checked was right.
    pub intact: bool,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// First byte that was not the expected one.
    pub mismatch_at: Option<u64>,
    /// From accept to end.
    pub seconds: f64,
    /// Of the larger direction.
    pub gbit_per_s: f64,
    /// The longest time without a delivered byte, where that was observed.
    pub longest_gap_ms: Option<f64>,
    /// What the socket said about itself.
    pub transport: Transport,
    /// What went wrong.
    pub error: Option<String>,
}

fn echo(socket: &Socket, corrupt_at: Option<u64>, served: &mut Served) -> io::Result<()> {
    let mut buffer = vec![0_u8; READ_BYTES];
    loop {
        let n = (&*socket).read(&mut buffer)?;
        if n == 0 {
            return socket.shutdown(Shutdown::Write);
        }
        if let Some(at) = corrupt_at.and_then(|at| at.checked_sub(served.bytes_received))
            && let Some(byte) = usize::try_from(at)
                .ok()
                .and_then(|at| buffer[..n].get_mut(at))
        {
            *byte ^= 0x80;
        }
        served.bytes_received += n as u64;
        (&*socket).write_all(&buffer[..n])?;
        served.bytes_sent += n as u64;
    }
}

fn source(
    socket: &Socket,
    content: Content,
    bytes: Option<u64>,
    limit: Option<Duration>,
    served: &mut Served,
) -> io::Result<()> {
    let closed = AtomicBool::new(false);
    let until = match limit {
        Some(limit) => Until::Deadline(Instant::now() + limit),
        None => bytes.map_or(Until::Told(&closed), Until::Bytes),
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let received = receive(socket, Instant::now(), Check::Count, None, "");
            closed.store(true, Ordering::Relaxed);
            received
        });
        served.bytes_sent = send(socket, Stream::new(content), until, None)?;
        // Subflows are gone when the client has closed.
        served.transport = served.transport.or(transport(socket));
        // Until the client has closed as well.
        let received = reader
            .join()
            .map_err(|_| io::Error::other("the reading thread panicked"))?;
        served.bytes_received = received.bytes;
        received.error.map_or(Ok(()), |e| Err(io::Error::other(e)))
    })
}

fn serve_one(socket: &Socket, peer: Option<SocketAddr>, app: App) -> Served {
    let start = Instant::now();
    let mut served = Served {
        peer: peer.map_or_else(String::new, |peer| peer.to_string()),
        intact: false,
        bytes_received: 0,
        bytes_sent: 0,
        mismatch_at: None,
        seconds: 0.0,
        gbit_per_s: 0.0,
        longest_gap_ms: None,
        transport: transport(socket),
        error: None,
    };
    let result = match app {
        App::Echo { corrupt_at } => echo(socket, corrupt_at, &mut served),
        App::Sink { expect, limit } => {
            let check = expect.map_or(Check::Count, Check::of);
            let received =
                half_close_after(socket, limit, || receive(socket, start, check, None, ""));
            served.bytes_received = received.bytes;
            served.mismatch_at = received.mismatch_at;
            served.longest_gap_ms = Some(received.gap.longest_ms);
            served.transport = served.transport.or(received.transport);
            match received.error {
                // With a limit that is done already.
                None if limit.is_some() => Ok(()),
                None => socket.shutdown(Shutdown::Write),
                Some(error) => Err(io::Error::other(error)),
            }
        }
        App::Source {
            content,
            bytes,
            limit,
        } => source(socket, content, bytes, limit, &mut served),
    };
    served.transport = served.transport.or(transport(socket));
    served.seconds = start.elapsed().as_secs_f64();
    let bytes = served.bytes_received.max(served.bytes_sent);
    served.gbit_per_s = gbit_per_s(bytes, start.elapsed());
    served.error = result.err().map(|e| e.to_string());
    served.intact = served.error.is_none() && served.mismatch_at.is_none();
    served
}

/// Accepts connections on every address; calls `done` for each that has ended, and
/// returns after `count` of them.
pub fn serve(
    addresses: &[SocketAddr],
    tcp: bool,
    app: App,
    count: Option<u64>,
    timeout: Duration,
    ready: impl FnOnce(),
    mut done: impl FnMut(&Served),
) -> io::Result<()> {
    let listeners = addresses
        .iter()
        .map(|address| listen(*address, tcp))
        .collect::<io::Result<Vec<_>>>()?;
    ready();
    let (tell, told) = mpsc::channel::<io::Result<Served>>();
    for listener in listeners {
        let tell = tell.clone();
        std::thread::spawn(move || {
            loop {
                let (socket, peer) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        let _ = tell.send(Err(e));
                        return;
                    }
                };
                let tell = tell.clone();
                std::thread::spawn(move || {
                    let result = prepare(&socket, timeout)
                        .map(|()| serve_one(&socket, peer.as_socket(), app));
                    let _ = tell.send(result);
                });
            }
        });
    }
    drop(tell);
    let mut ended = 0;
    for result in told {
        done(&result?);
        ended += 1;
        if count == Some(ended) {
            break;
        }
    }
    Ok(())
}
