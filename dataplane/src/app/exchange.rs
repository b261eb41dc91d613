//! Both directions at once, for tests: sends the [`pattern`] and finds out what came.

use sha2::{Digest, Sha256};

use super::pattern::Differences;
use super::source::Source;
use crate::checksum::Sum;
use crate::mptcp::{Application, Findings, RecvStream, SendState};

/// Sends a number of bytes of the pattern and finishes; expects the pattern from the peer
/// and, when the connection is over, tells what it got instead, if anything.
#[derive(Debug)]
pub struct Exchange {
    source: Source,
    received: u64,
    hash: Sha256,
    differences: Differences,
    eof: bool,
}

impl Exchange {
    /// Sends `bytes` bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            source: Source::new(Some(bytes)),
            received: 0,
            hash: Sha256::new(),
            differences: Differences::default(),
            eof: false,
        }
    }

    /// Takes the next bytes of the peer's stream.
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.differences.take(self.received, bytes);
        self.received += bytes.len() as u64;
    }
}

impl Application for Exchange {
    fn on_readable(&mut self, rx: &mut RecvStream) {
        while !rx.is_empty() {
            let n = {
                let bytes = rx.peek();
                self.take(bytes);
                bytes.len()
            };
            rx.consume(n);
        }
        self.eof |= rx.eof();
    }

    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        self.source.fill(rx, out)
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        self.source.send_state(rx)
    }

    fn backlog(&self, rx: &RecvStream) -> Option<u64> {
        self.source.backlog(rx)
    }

    fn findings(&self) -> Option<Findings> {
        let digest = self.hash.clone().finalize();
        Some(Findings {
            received: self.received,
            eof: self.eof,
            wrong: self.differences.wrong,
            stretches: self.differences.stretches,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern;
    use super::*;

    fn told(pieces: &[&[u8]]) -> Findings {
        let mut app = Exchange::new(0);
        for piece in pieces {
            app.take(piece);
        }
        app.findings().expect("it always has some")
    }

    #[test]
    fn the_pattern_in_any_pieces_is_right_and_hashes_the_same() {
        let mut bytes = vec![0; 100_000];
        pattern::fill(0, &mut bytes);
        let whole = told(&[&bytes]);
        let parts = told(&[&bytes[..1], &bytes[1..70_001], &bytes[70_001..]]);
        assert_eq!(whole, parts);
        assert_eq!((whole.received, whole.wrong), (100_000, None));
    }

    #[test]
    fn the_first_and_the_last_wrong_byte_are_named() {
        let mut bytes = vec![0; 5_000];
        pattern::fill(0, &mut bytes);
        let right = told(&[&bytes]);
        bytes[1_000] ^= 1;
        bytes[3_000] ^= 1;
        let wrong = told(&[&bytes[..2_000], &bytes[2_000..]]);
        assert_eq!(wrong.wrong, Some((1_000, 3_000)));
        assert_ne!(wrong.sha256, right.sha256);
    }
}
