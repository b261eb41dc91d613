//! One connection at a time: echo, upload, download, chat.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::socket::{self, Target, Transport, transport};
use super::stream::{Content, Stream, hex};
use super::transfer::{Check, Gap, Leash, Until, gbit_per_s, half_close_after, receive, send};

/// Result of one transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Everything arrived, in order and unchanged.
    pub intact: bool,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// First byte that was not the expected one.
    pub mismatch_at: Option<u64>,
    /// SHA-256 of what was sent, when asked for.
    pub sha256_sent: Option<String>,
    /// SHA-256 of what was received, when asked for.
    pub sha256_received: Option<String>,
    /// From connect to the last byte.
    pub seconds: f64,
    /// Of one direction.
    pub gbit_per_s: f64,
    /// The longest time without a delivered byte.
    pub gap: Gap,
    /// What the socket said about itself.
    pub transport: Transport,
    /// What went wrong.
    pub error: Option<String>,
}

/// How much to send.
#[derive(Copy, Clone, Debug)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Time.
    Seconds(f64),
}

impl Amount {
    fn until(self, start: Instant) -> Until<'static> {
        match self {
            Self::Bytes(bytes) => Until::Bytes(bytes),
            Self::Seconds(seconds) => Until::Deadline(start + Duration::from_secs_f64(seconds)),
        }
    }
}

/// How an echo client behaves.
#[derive(Copy, Clone, Debug, Default)]
pub struct EchoOptions {
    /// Names the stream.
    pub seed: u64,
    /// Keep what comes back and hash it when the clock has stopped.
    pub sha256: bool,
    /// Bytes that may be on their way, there and back; no limit but the sockets' if `None`.
    pub window: Option<u64>,
}

/// Sends a stream and reads it back at the same time.
pub fn echo(
    target: &Target,
    amount: Amount,
    options: &EchoOptions,
    progress: &str,
) -> io::Result<Report> {
    let content = Content::Stamped { seed: options.seed };
    let leash = options.window.map(Leash::new);
    let leash = leash.as_ref();
    let check = match (options.sha256, amount) {
        (true, Amount::Bytes(bytes)) => Check::keep(usize::try_from(bytes).unwrap_or(usize::MAX)),
        _ => Check::Compare(Stream::new(content)),
    };
    let stream = Stream::new(content);
    let socket = socket::connect(target)?;
    let start = Instant::now();
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let sent = send(&socket, stream, amount.until(start), leash);
            if sent.is_err() {
                // Wake the receiver: nothing more will come.
                let _ = socket.shutdown(Shutdown::Both);
            }
            sent
        });
        let received = receive(&socket, start, check, leash, progress);
        if received.error.is_some() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        (sender.join(), received)
    });
    let sent = sent.unwrap_or_else(|_| Err(io::Error::other("the sending thread panicked")));
    let (bytes_sent, send_error) = match sent {
        Ok(bytes) => (bytes, None),
        Err(e) => (0, Some(format!("send: {e}"))),
    };
    let hashes = received.kept.as_ref().map(|kept| {
        let ours = Stream::sha256(content, bytes_sent);
        (ours, hex(&Sha256::digest(kept)))
    });
    let same = match &hashes {
        Some((ours, theirs)) => ours == theirs,
        None => received.mismatch_at.is_none(),
    };
    let error = send_error.or(received.error);
    let (sha256_sent, sha256_received) = hashes.unzip();
    Ok(Report {
        intact: error.is_none() && same && bytes_sent == received.bytes,
        bytes_sent,
        bytes_received: received.bytes,
        mismatch_at: received.mismatch_at,
        sha256_sent,
        sha256_received,
        seconds: received.elapsed.as_secs_f64(),
        gbit_per_s: gbit_per_s(received.bytes, received.elapsed),
        gap: received.gap,
        transport: received.transport,
        error,
    })
}

/// Sends a stream to a sink and waits until the sink closes.
pub fn upload(target: &Target, amount: Amount, content: Content) -> io::Result<Report> {
    let stream = Stream::new(content);
    let socket = socket::connect(target)?;
    let start = Instant::now();
    let sent = send(&socket, stream, amount.until(start), None);
    let transport = transport(&socket);
    // The sink's FIN says that it has read everything.
    let received = receive(&socket, start, Check::Count, None, "");
    let elapsed = start.elapsed();
    let (bytes_sent, error) = match sent {
        Ok(bytes) => (bytes, received.error),
        Err(e) => (0, Some(format!("send: {e}"))),
    };
    Ok(Report {
        intact: error.is_none() && received.bytes == 0,
        bytes_sent,
        bytes_received: received.bytes,
        mismatch_at: None,
        sha256_sent: None,
        sha256_received: None,
        seconds: elapsed.as_secs_f64(),
        gbit_per_s: gbit_per_s(bytes_sent, elapsed),
        gap: received.gap,
        transport: transport.or(received.transport),
        error,
    })
}

/// Reads what a source sends. `bytes`: how much it must be; with `seconds` it closes
/// its own direction after that time instead, which ends a source without a limit.
pub fn download(
    target: &Target,
    content: Content,
    bytes: Option<u64>,
    seconds: Option<f64>,
    progress: &str,
) -> io::Result<Report> {
    let check = Check::of(content);
    let socket = socket::connect(target)?;
    let start = Instant::now();
    let limit = seconds.map(Duration::from_secs_f64);
    let received = half_close_after(&socket, limit, || {
        receive(&socket, start, check, None, progress)
    });
    let complete = bytes.is_none_or(|bytes| bytes == received.bytes);
    Ok(Report {
        intact: received.error.is_none()
            && received.mismatch_at.is_none()
            && complete
            && received.bytes > 0,
        bytes_sent: 0,
        bytes_received: received.bytes,
        mismatch_at: received.mismatch_at,
        sha256_sent: None,
        sha256_received: None,
        seconds: received.elapsed.as_secs_f64(),
        gbit_per_s: gbit_per_s(received.bytes, received.elapsed),
        gap: received.gap,
        transport: received.transport,
        error: received.error,
    })
}

/// Result of [`chat`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChatReport {
    /// Messages answered.
    pub rounds: u64,
    /// The slowest answer.
    pub worst_ms: f64,
    /// The usual answer.
    pub median_ms: f64,
    /// What the socket said about itself.
    pub transport: Transport,
    /// What ended it early.
    pub error: Option<String>,
}

/// Someone typing: small messages to an echo server, one at a time.
pub fn chat(target: &Target, interval: Duration, duration: Duration) -> io::Result<ChatReport> {
    let socket = socket::connect(target)?;
    let start = Instant::now();
    let mut waits_us = Histogram::<u64>::new(3).expect("3 digits are allowed");
    let mut error = None;
    let mut round = 0_u64;
    while start.elapsed() < duration {
        round += 1;
        let asked = Instant::now();
        let message = [round.to_le_bytes(); 8].concat();
        let mut answer = [0_u8; 64];
        let result = (&socket)
            .write_all(&message)
            .and_then(|()| (&socket).read_exact(&mut answer));
        if let Err(e) = result {
            error = Some(format!("round {round}: {e}"));
            break;
        }
        if answer[..] != message[..] {
            error = Some(format!("round {round}: a wrong answer"));
            break;
        }
        waits_us.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        std::thread::sleep(interval);
    }
    let transport = transport(&socket);
    Ok(ChatReport {
        rounds: waits_us.len(),
        worst_ms: waits_us.max() as f64 / 1e3,
        median_ms: waits_us.value_at_quantile(0.5) as f64 / 1e3,
        transport,
        error,
    })
}
