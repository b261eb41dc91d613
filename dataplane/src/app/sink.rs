//! Reads and discards; finishes when the peer has finished.

use crate::checksum::Sum;
use crate::mptcp::{Application, RecvStream, SendState};

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Sink;

impl Application for Sink {
    fn on_readable(&mut self, rx: &mut RecvStream) {
        while !rx.is_empty() {
            let n = rx.peek().len();
            rx.consume(n);
        }
    }

    fn fill(&mut self, _rx: &mut RecvStream, _out: &mut [u8]) -> (usize, Sum) {
        (0, Sum::default())
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        if rx.eof() {
            SendState::Finished
        } else {
            SendState::Idle
        }
    }
}
