//! Streams whose every byte is a function of its offset, and the application that reads one
//! and writes the other.

use braid_dataplane::checksum::{Sum, copy_and_sum};
use braid_dataplane::mptcp::{Application, CloseReason, RecvStream, SendState};

/// Both streams repeat after so many bytes: a prime, so that no segment size divides it.
const PERIOD: usize = 4093;
/// Longest run of bytes asked for at once.
pub(super) const RUN_MAX: usize = 8192;

static OURS: [u8; PERIOD + RUN_MAX] = table(0x9e37_79b9);
static PEERS: [u8; PERIOD + RUN_MAX] = table(0x85eb_ca6b);

const fn table(factor: u32) -> [u8; PERIOD + RUN_MAX] {
    let mut out = [0; PERIOD + RUN_MAX];
    let mut i = 0;
    while i < out.len() {
        let mixed = (((i % PERIOD) as u32) + 1).wrapping_mul(factor);
        out[i] = (mixed >> 21) as u8 ^ (mixed >> 11) as u8;
        i += 1;
    }
    out
}

fn run(table: &[u8], offset: u64, len: usize) -> &[u8] {
    let start = usize::try_from(offset % PERIOD as u64).expect("below the period");
    &table[start..start + len]
}

/// What the application writes.
pub(super) fn ours(offset: u64, len: usize) -> &'static [u8] {
    run(&OURS, offset, len)
}

/// What the peer sends.
pub(super) fn peers(offset: u64, len: usize) -> &'static [u8] {
    run(&PEERS, offset, len)
}

/// The application of the connection under test.
#[derive(Debug, Default)]
pub(super) struct App {
    /// Bytes it wants to have written.
    pub(super) to_send: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Leaves what arrives where it is.
    pub(super) idle: bool,
    pub(super) finished: bool,
    pub(super) abort: bool,
    pub(super) eof: bool,
    /// Where what was read first differed from what the peer's stream is.
    pub(super) wrong: Option<u64>,
    pub(super) established: u32,
    pub(super) closed: Option<CloseReason>,
}

impl Application for App {
    fn on_established(&mut self) {
        self.established += 1;
        assert_eq!(self.established, 1, "established twice");
    }

    fn on_readable(&mut self, rx: &mut RecvStream) {
        assert!(self.closed.is_none(), "called after the end");
        while !self.idle && !rx.is_empty() {
            let n = rx.peek().len();
            for part in rx.peek().chunks(RUN_MAX) {
                if part != peers(self.received, part.len()) {
                    self.wrong.get_or_insert(self.received);
                }
                self.received += part.len() as u64;
            }
            rx.consume(n);
        }
        assert!(!self.eof || rx.eof(), "the end of the stream is no end");
        self.eof |= rx.eof();
    }

    fn fill(&mut self, _rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        let left = usize::try_from(self.to_send - self.sent).unwrap_or(usize::MAX);
        let n = left.min(out.len()).min(RUN_MAX);
        let sum = copy_and_sum(&mut out[..n], ours(self.sent, n));
        self.sent += n as u64;
        (n, sum)
    }

    fn send_state(&self, _rx: &RecvStream) -> SendState {
        if self.abort {
            SendState::Abort
        } else if self.sent < self.to_send {
            SendState::Ready
        } else if self.finished {
            SendState::Finished
        } else {
            SendState::Idle
        }
    }

    fn backlog(&self, _rx: &RecvStream) -> Option<u64> {
        Some(self.to_send - self.sent)
    }

    fn on_closed(&mut self, reason: CloseReason) {
        assert!(self.closed.is_none(), "closed twice");
        self.closed = Some(reason);
    }
}
