//! The client: a kernel's MPTCP sockets, one request on its way per connection.
//!
//! A client that waits for an answer before it asks again asks less often while the server
//! is slow, and so sees little of it (coordinated omission). Two remedies: in the closed
//! loop every answer that took longer than the usual one stands for those that would have
//! been asked for meanwhile, as HdrHistogram's corrected recording does; in the open loop
//! requests have their time by a schedule, and answers are counted from there.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use socket2::Socket;

use super::server::Waiting;
use crate::failure;
use crate::peer::socket::{self, Target, transport};
use crate::testbed::Result;

/// Without an answer for so long, something is broken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Joins, windows and caches are there then, and the usual answer is known.
const WARM_UP: Duration = Duration::from_millis(150);
/// A server that cannot keep up with a schedule is not asked for longer than this times as
/// long as the schedule is.
const OVERTIME: u32 = 2;
/// Latencies are kept in ns, to three digits.
const DIGITS: u8 = 3;

/// How requests are made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Pace {
    /// The next one follows the answer.
    Closed,
    /// So many per second, over all connections, whatever the answers do.
    Open(u32),
}

/// What to ask for.
#[derive(Copy, Clone, Debug)]
pub struct Load {
    /// Connections, each with at most one request on its way.
    pub connections: usize,
    /// Of a request, and of its answer.
    pub bytes: usize,
    /// When.
    pub pace: Pace,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Latencies, ns, with those that were omitted.
    pub latency_ns: Histogram<u64>,
    /// Latencies of the requests that were made, ns: the median without the correction.
    pub median_ns: u64,
    /// Requests answered, as they were.
    pub count: u64,
    /// In how long.
    pub elapsed: Duration,
    /// Connections that are MPTCP with more than one subflow.
    pub joined: usize,
}

struct Asker {
    sent_at: Instant,
    received: usize,
}

/// Connects and asks.
pub fn run(to: SocketAddr, load: &Load) -> Result<Answers> {
    let target = Target {
        to,
        bind: None,
        tcp: false,
        mapped: false,
        timeout: PATIENCE,
    };
    let sockets = (0..load.connections)
        .map(|_| socket::connect(&target))
        .collect::<std::io::Result<Vec<Socket>>>()?;
    let mut client = Client {
        waiting: Waiting::new(&sockets)?,
        made_ns: Histogram::new(DIGITS).map_err(|e| failure!("{e}"))?,
        sockets,
        message: vec![0x5a; load.bytes],
        buffer: vec![0; load.bytes],
    };
    let warm = client.ask(load, WARM_UP.min(load.duration), None)?;
    // The usual time between two requests of a connection.
    let usual_ns = warm.latency_ns.value_at_quantile(0.5).max(1);
    let interval = match load.pace {
        Pace::Closed => Some(usual_ns),
        Pace::Open(_) => None,
    };
    let joined = |socket: &&Socket| {
        let transport = transport(socket);
        transport.mptcp && transport.extra_subflows > 0
    };
    let joined = client.sockets.iter().filter(joined).count();
    let mut answers = client.ask(load, load.duration, interval)?;
    answers.joined = joined;
    Ok(answers)
}

struct Client {
    sockets: Vec<Socket>,
    waiting: Waiting,
    /// Of the requests that were made.
    made_ns: Histogram<u64>,
    message: Vec<u8>,
    buffer: Vec<u8>,
}

/// Notes a latency; with `interval_ns`, also those that it stands for.
fn note(histogram: &mut Histogram<u64>, latency: Duration, interval_ns: Option<u64>) -> Result<()> {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    match interval_ns {
        Some(interval) => histogram.record_correct(ns, interval),
        None => histogram.record(ns),
    }
    .map_err(|e| failure!("{e}"))
}

impl Client {
    fn ask(
        &mut self,
        load: &Load,
        duration: Duration,
        interval_ns: Option<u64>,
    ) -> Result<Answers> {
        let mut answers = Answers {
            latency_ns: Histogram::new(DIGITS).map_err(|e| failure!("{e}"))?,
            median_ns: 0,
            count: 0,
            elapsed: Duration::ZERO,
            joined: 0,
        };
        self.made_ns.reset();
        let start = Instant::now();
        match (load.pace, self.sockets.len()) {
            (Pace::Open(rate), _) => self.open_loop(rate, start, duration, &mut answers)?,
            (Pace::Closed, 1) => self.one_by_one(start, duration, interval_ns, &mut answers)?,
            (Pace::Closed, _) => self.all_at_once(start, duration, interval_ns, &mut answers)?,
        }
        answers.elapsed = start.elapsed();
        answers.median_ns = self.made_ns.value_at_quantile(0.5);
        if answers.count == 0 {
            return Err(failure!("no answer"));
        }
        Ok(answers)
    }

    fn exchange(&mut self, at: usize) -> Result<()> {
        let mut socket = &self.sockets[at];
        let asked = socket.write_all(&self.message);
        let answered = asked.and_then(|()| socket.read_exact(&mut self.buffer));
        answered.map_err(|e| failure!("request: {e}"))
    }

    fn one_by_one(
        &mut self,
        start: Instant,
        duration: Duration,
        interval_ns: Option<u64>,
        answers: &mut Answers,
    ) -> Result<()> {
        while start.elapsed() < duration {
            let asked = Instant::now();
            self.exchange(0)?;
            let latency = asked.elapsed();
            note(&mut self.made_ns, latency, None)?;
            note(&mut answers.latency_ns, latency, interval_ns)?;
            answers.count += 1;
        }
        Ok(())
    }

    /// Requests in turn over the connections, each at its time, or as soon after it as the
    /// one before is answered.
    fn open_loop(
        &mut self,
        rate: u32,
        start: Instant,
        duration: Duration,
        answers: &mut Answers,
    ) -> Result<()> {
        let interval = Duration::from_secs(1) / rate.max(1);
        let (mut due, end) = (start, start + duration);
        while due < end && start.elapsed() < duration * OVERTIME {
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            let at = usize::try_from(answers.count).unwrap_or(0) % self.sockets.len();
            let asked = Instant::now();
            self.exchange(at)?;
            note(&mut self.made_ns, asked.elapsed(), None)?;
            note(&mut answers.latency_ns, due.elapsed(), None)?;
            answers.count += 1;
            due += interval;
        }
        // Whoever is not asked any more has waited as long as this, at least.
        while due < end {
            note(&mut answers.latency_ns, due.elapsed(), None)?;
            due += interval;
        }
        Ok(())
    }

    fn all_at_once(
        &mut self,
        start: Instant,
        duration: Duration,
        interval_ns: Option<u64>,
        answers: &mut Answers,
    ) -> Result<()> {
        let Self {
            sockets,
            waiting,
            message,
            buffer,
            made_ns,
        } = self;
        let mut askers = Vec::with_capacity(sockets.len());
        for mut socket in sockets.iter() {
            let sent_at = Instant::now();
            socket.write_all(message)?;
            askers.push(Asker {
                sent_at,
                received: 0,
            });
        }
        let mut busy = askers.len();
        while busy > 0 {
            let before = busy;
            let mut any = false;
            waiting.readable(PATIENCE, |at| {
                any = true;
                let (mut socket, asker) = (&sockets[at], &mut askers[at]);
                let n = socket.read(&mut buffer[asker.received..])?;
                if n == 0 {
                    return Err(failure!("the server has closed"));
                }
                asker.received += n;
                if asker.received < message.len() {
                    return Ok(());
                }
                let latency = asker.sent_at.elapsed();
                note(made_ns, latency, None)?;
                note(&mut answers.latency_ns, latency, interval_ns)?;
                answers.count += 1;
                asker.received = 0;
                if start.elapsed() < duration {
                    asker.sent_at = Instant::now();
                    socket.write_all(message)?;
                } else {
                    busy -= 1;
                }
                Ok(())
            })?;
            if !any && busy == before {
                return Err(failure!("no answer for {PATIENCE:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_for_all_that_waited() {
        let mut plain = Histogram::new(DIGITS).unwrap();
        let mut corrected = Histogram::new(DIGITS).unwrap();
        for _ in 0..99 {
            note(&mut plain, Duration::from_nanos(100), None).unwrap();
            note(&mut corrected, Duration::from_nanos(100), Some(100)).unwrap();
        }
        note(&mut plain, Duration::from_nanos(10_000), None).unwrap();
        note(&mut corrected, Duration::from_nanos(10_000), Some(100)).unwrap();
        assert_eq!(plain.len(), 100);
        // 10,000 and 9,900, 9,800, … down to the interval.
        assert_eq!(corrected.len(), 99 + 100);
        assert_eq!(plain.value_at_quantile(0.75), 100);
        let seen = corrected.value_at_quantile(0.75);
        assert!((4_800..5_300).contains(&seen), "{seen}");
    }
}
