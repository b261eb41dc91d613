//! Many connections: at once, or one after another.

use std::io;
use std::sync::{Barrier, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::client::{Amount, EchoOptions, Report, echo};
use super::socket::Target;

/// Failures that are described; the rest is counted.
const EXAMPLES_MAX: usize = 10;

/// Result of many echo connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ManyReport {
    /// Connections tried.
    pub connections: u64,
    /// Connections whose bytes came back intact.
    pub intact: u64,
    /// Intact, and MPTCP to the end.
    pub mptcp: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// All of it.
    pub seconds: f64,
    /// The longest connection.
    pub longest_s: f64,
    /// Some failures.
    pub failures: Vec<String>,
}

impl ManyReport {
    fn add(&mut self, index: u64, took_s: f64, result: io::Result<Report>) {
        self.connections += 1;
        self.longest_s = self.longest_s.max(took_s);
        let failure = match result {
            Ok(report) => {
                self.bytes_received += report.bytes_received;
                if report.intact {
                    self.intact += 1;
                    self.mptcp += u64::from(report.transport.mptcp);
                    return;
                }
                report.error.unwrap_or_else(|| {
                    format!(
                        "sent {} received {} mismatch at {:?}",
                        report.bytes_sent, report.bytes_received, report.mismatch_at
                    )
                })
            }
            Err(e) => format!("connect: {e}"),
        };
        if self.failures.len() < EXAMPLES_MAX {
            self.failures.push(format!("connection {index}: {failure}"));
        }
    }
}

fn one(target: &Target, seed: u64, bytes: u64) -> io::Result<Report> {
    let options = EchoOptions {
        seed,
        ..EchoOptions::default()
    };
    echo(target, Amount::Bytes(bytes), &options, "")
}

/// `connections` echo connections at the same time.
#[must_use]
pub fn storm(target: &Target, connections: u64, bytes: u64) -> ManyReport {
    let report = Mutex::new(ManyReport::default());
    let together = Barrier::new(usize::try_from(connections).unwrap_or(usize::MAX));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for index in 0..connections {
            let (report, together) = (&report, &together);
            scope.spawn(move || {
                together.wait();
                let began = Instant::now();
                let result = one(target, index, bytes);
                let took_s = began.elapsed().as_secs_f64();
                if let Ok(mut report) = report.lock() {
                    report.add(index, took_s, result);
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_default();
    report.seconds = start.elapsed().as_secs_f64();
    report
}

/// `count` echo connections, one after another.
#[must_use]
pub fn sequential(target: &Target, count: u64, bytes: u64) -> ManyReport {
    let mut report = ManyReport::default();
    let start = Instant::now();
    for index in 0..count {
        let began = Instant::now();
        let result = one(target, index, bytes);
        report.add(index, began.elapsed().as_secs_f64(), result);
        if (index + 1) % 1000 == 0 {
            eprintln!("sequential: {} of {count}", index + 1);
        }
    }
    report.seconds = start.elapsed().as_secs_f64();
    report
}
