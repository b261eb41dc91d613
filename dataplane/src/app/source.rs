//! Sends the [`pattern`]; what it receives is discarded.

use super::pattern;
use crate::checksum::Sum;
use crate::mptcp::{Application, RecvStream, SendState};

/// Sends `bytes` bytes and finishes; without a number it sends until the peer has
/// finished its own direction.
#[derive(Debug)]
pub struct Source {
    offset: u64,
    bytes: Option<u64>,
}

impl Source {
    /// A source of `bytes` bytes.
    #[must_use]
    pub fn new(bytes: Option<u64>) -> Self {
        Self { offset: 0, bytes }
    }

    fn left(&self) -> u64 {
        self.bytes.map_or(u64::MAX, |b| b - self.offset)
    }
}

impl Application for Source {
    fn on_readable(&mut self, rx: &mut RecvStream) {
        while !rx.is_empty() {
            let n = rx.peek().len();
            rx.consume(n);
        }
    }

    fn fill(&mut self, _rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        let n = usize::try_from(self.left())
            .unwrap_or(usize::MAX)
            .min(out.len());
        let sum = pattern::fill(self.offset, &mut out[..n]);
        self.offset += n as u64;
        (n, sum)
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        if self.left() == 0 || (self.bytes.is_none() && rx.eof()) {
            SendState::Finished
        } else {
            SendState::Ready
        }
    }

    fn backlog(&self, _rx: &RecvStream) -> Option<u64> {
        Some(self.left())
    }
}
