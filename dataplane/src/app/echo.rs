//! Sends back what it receives; finishes when the peer has finished (half-close aware).

use crate::checksum::{Sum, copy_and_sum};
use crate::mptcp::{Application, RecvStream, SendState};

/// Holds nothing: what cannot be sent back yet stays in the receive stream, where it
/// closes the peer's window.
#[derive(Debug, Default)]
pub struct Echo;

impl Application for Echo {
    fn on_readable(&mut self, _rx: &mut RecvStream) {}

    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        let mut sum = Sum::default();
        let mut done = 0;
        while done < out.len() {
            let bytes = rx.peek();
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len().min(out.len() - done);
            let part = copy_and_sum(&mut out[done..done + n], &bytes[..n]);
            sum = sum.combine(part, done % 2 == 1);
            rx.consume(n);
            done += n;
        }
        (done, sum)
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        if !rx.is_empty() {
            SendState::Ready
        } else if rx.eof() {
            SendState::Finished
        } else {
            SendState::Idle
        }
    }

    fn backlog(&self, rx: &RecvStream) -> Option<u64> {
        Some(rx.len() as u64)
    }
}
