//! Moving a stream through a socket: the loops that every client and server shares.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::socket::{Transport, transport};
use super::stream::{Content, Stream};

/// Read buffer: large enough to make system calls cheap, small enough for the cache.
pub(super) const READ_BYTES: usize = 1 << 18;
/// How often a running transfer looks at the socket's subflows and reports progress.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// When a sender stops.
#[derive(Copy, Clone, Debug)]
pub enum Until<'a> {
    /// After so many bytes.
    Bytes(u64),
    /// At this time.
    Deadline(Instant),
    /// When told.
    Told(&'a AtomicBool),
}

/// Bounds how far a sender runs ahead of what has come back to it.
#[derive(Debug)]
pub struct Leash {
    length_bytes: u64,
    returned: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Leash {
    /// At most `length_bytes` ahead.
    #[must_use]
    pub fn new(length_bytes: u64) -> Self {
        Self {
            length_bytes,
            returned: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, bool)> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a byte may be sent at `position`; how many may.
    fn wait(&self, position: u64) -> u64 {
        let state = self
            .changed
            .wait_while(self.lock(), |(returned, over)| {
                !*over && position >= *returned + self.length_bytes
            })
            .unwrap_or_else(PoisonError::into_inner);
        let (returned, over) = *state;
        if over {
            u64::MAX
        } else {
            returned + self.length_bytes - position
        }
    }

    fn returned(&self, bytes: u64, over: bool) {
        *self.lock() = (bytes, over);
        self.changed.notify_one();
    }
}

/// Sends `stream`, then closes the sending direction. Returns the bytes sent.
pub fn send(
    socket: &Socket,
    mut stream: Stream,
    until: Until<'_>,
    leash: Option<&Leash>,
) -> io::Result<u64> {
    loop {
        let left = match until {
            Until::Bytes(bytes) => bytes - stream.position(),
            Until::Deadline(at) if Instant::now() >= at => 0,
            Until::Told(over) if over.load(Ordering::Relaxed) => 0,
            Until::Deadline(_) | Until::Told(_) => u64::MAX,
        };
        if left == 0 {
            socket.shutdown(Shutdown::Write)?;
            return Ok(stream.position());
        }
        let left = left.min(leash.map_or(u64::MAX, |leash| leash.wait(stream.position())));
        let chunk = stream.peek();
        let n = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let sent = (&*socket).write(&chunk[..n])?;
        stream.advance(sent);
    }
}

/// The longest time without a delivered byte.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// How long.
    pub longest_ms: f64,
    /// When it began, after the start of the transfer.
    pub at_ms: f64,
}

/// Observes deliveries.
#[derive(Debug)]
struct GapMeter {
    start: Instant,
    last: Instant,
    gap: Gap,
}

impl GapMeter {
    fn new(start: Instant) -> Self {
        Self {
            start,
            last: start,
            gap: Gap {
                longest_ms: 0.0,
                at_ms: 0.0,
            },
        }
    }

    fn delivered(&mut self, now: Instant) {
        let ms = (now - self.last).as_secs_f64() * 1e3;
        if ms > self.gap.longest_ms {
            self.gap = Gap {
                longest_ms: ms,
                at_ms: (self.last - self.start).as_secs_f64() * 1e3,
            };
        }
        self.last = now;
    }
}

/// What to do with received bytes.
#[derive(Debug)]
pub enum Check {
    /// Compare with what was expected, as they come.
    Compare(Stream),
    /// Keep them, to be hashed when the clock has stopped.
    Keep(Vec<u8>),
    /// Count only.
    Count,
}

impl Check {
    /// What a receiver of `content` can do as it comes.
    #[must_use]
    pub fn of(content: Content) -> Self {
        match content {
            Content::Raw => Self::Count,
            Content::Stamped { .. } | Content::Pattern => Self::Compare(Stream::new(content)),
        }
    }

    /// Room for `bytes`, its pages already there.
    #[must_use]
    pub fn keep(bytes: usize) -> Self {
        let mut room = vec![1_u8; bytes];
        room.clear();
        Self::Keep(room)
    }
}

/// Closes the sending direction after `limit`, if there is one, while `work` runs. Peers
/// that send without a limit end then.
pub(super) fn half_close_after<T>(
    socket: &Socket,
    limit: Option<Duration>,
    work: impl FnOnce() -> T,
) -> T {
    let over = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        if let Some(limit) = limit {
            let over = &over;
            scope.spawn(move || {
                let guard = over.0.lock().unwrap_or_else(PoisonError::into_inner);
                // Work that ends early does not wait for the clock.
                let _ = over.1.wait_timeout_while(guard, limit, |over| !*over);
                let _ = socket.shutdown(Shutdown::Write);
            });
        }
        let result = work();
        *over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        over.1.notify_one();
        result
    })
}

/// What a receiver saw.
#[derive(Debug)]
pub struct Received {
    /// Bytes until the end of the stream.
    pub bytes: u64,
    /// First byte that was not the expected one.
    pub mismatch_at: Option<u64>,
    /// Kept bytes.
    pub kept: Option<Vec<u8>>,
    /// Deliveries.
    pub gap: Gap,
    /// The socket, at its most eventful.
    pub transport: Transport,
    /// From the start to the last byte.
    pub elapsed: Duration,
    /// An error that ended it before the end of the stream.
    pub error: Option<String>,
}

/// Receives until the end of the stream or an error.
pub fn receive(
    socket: &Socket,
    start: Instant,
    check: Check,
    leash: Option<&Leash>,
    progress: &str,
) -> Received {
    let mut buffer = vec![0_u8; READ_BYTES];
    let mut gap = GapMeter::new(start);
    let mut out = Received {
        bytes: 0,
        mismatch_at: None,
        kept: None,
        gap: gap.gap,
        transport: transport(socket),
        elapsed: Duration::ZERO,
        error: None,
    };
    let mut check = check;
    let (mut looked, mut reported) = (start, start);
    loop {
        let n = match (&*socket).read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                out.error = Some(format!("receive after {} bytes: {e}", out.bytes));
                break;
            }
        };
        let now = Instant::now();
        gap.delivered(now);
        match &mut check {
            Check::Compare(stream) if out.mismatch_at.is_none() => {
                out.mismatch_at = stream.verify(&buffer[..n]).err();
            }
            Check::Keep(room) => room.extend_from_slice(&buffer[..n]),
            Check::Compare(_) | Check::Count => {}
        }
        out.bytes += n as u64;
        if let Some(leash) = leash {
            leash.returned(out.bytes, false);
        }
        if now - looked >= LOOK_EVERY {
            looked = now;
            out.transport = out.transport.or(transport(socket));
        }
        if !progress.is_empty() && now - reported >= Duration::from_secs(1) {
            reported = now;
            let rate = gbit_per_s(out.bytes, now - start);
            eprintln!("{progress}: {} MiB, {rate:.2} Gb/s", out.bytes >> 20);
        }
    }
    if let Some(leash) = leash {
        leash.returned(out.bytes, true);
    }
    out.elapsed = gap.last - start;
    out.gap = gap.gap;
    out.transport = out.transport.or(transport(socket));
    if let Check::Keep(room) = check {
        out.kept = Some(room);
    }
    out
}

/// 10^9 bits per second.
#[must_use]
pub fn gbit_per_s(bytes: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 {
        bytes as f64 * 8.0 / seconds / 1e9
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leash_holds_and_gives_way() {
        let leash = Leash::new(100);
        assert_eq!(leash.wait(0), 100);
        assert_eq!(leash.wait(99), 1);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| leash.wait(100));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            leash.returned(30, false);
            assert_eq!(waiting.join().unwrap(), 30);
        });
        leash.returned(30, true);
        assert_eq!(leash.wait(1000), u64::MAX, "nothing holds when it is over");
    }

    #[test]
    fn the_longest_gap_and_its_beginning_are_kept() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = GapMeter::new(start);
        for ms in [10, 20, 520, 530, 830] {
            meter.delivered(at(ms));
        }
        assert!((meter.gap.longest_ms - 500.0).abs() < 1e-6);
        assert!((meter.gap.at_ms - 20.0).abs() < 1e-6);
    }
}
