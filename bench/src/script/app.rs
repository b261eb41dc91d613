//! The application under a script's control: writes the pattern when told, reads when
//! allowed, and checks every byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use braid_dataplane::app::pattern;
use braid_dataplane::checksum::Sum;
use braid_dataplane::mptcp::{Application, CloseReason, RecvStream, SendState};

/// What a script sets and sees.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Bytes to write in all.
    pub(crate) write: u64,
    /// Nothing follows them.
    pub(crate) finished: bool,
    /// Bytes to read in all; `None`: whatever comes.
    pub(crate) read: Option<u64>,
    /// Bytes taken by the connection.
    pub(crate) sent: u64,
    /// Bytes received that agree with the pattern.
    pub(crate) received: u64,
    /// Offset of the first byte that did not.
    pub(crate) wrong_at: Option<u64>,
    /// The peer finished its direction.
    pub(crate) eof: bool,
    /// How it ended.
    pub(crate) closed: Option<CloseReason>,
}

/// A handle that outlives the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct ScriptApp(pub(crate) Shared);

impl Application for ScriptApp {
    fn on_readable(&mut self, rx: &mut RecvStream) {
        let mut state = self.0.lock();
        while !rx.is_empty() {
            let bytes = rx.peek();
            let allowed = state.read.map_or(u64::MAX, |n| n - state.received.min(n));
            let n = usize::try_from(allowed).map_or(bytes.len(), |a| a.min(bytes.len()));
            if n == 0 {
                break;
            }
            match pattern::check(state.received, &bytes[..n]) {
                Ok(()) => state.received += n as u64,
                Err(at) => state.wrong_at = state.wrong_at.or(Some(at)),
            }
            rx.consume(n);
        }
        state.eof = rx.eof();
    }

    fn fill(&mut self, _rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        let mut state = self.0.lock();
        let left = usize::try_from(state.write - state.sent).unwrap_or(usize::MAX);
        let n = left.min(out.len());
        let sum = pattern::fill(state.sent, &mut out[..n]);
        state.sent += n as u64;
        (n, sum)
    }

    fn send_state(&self, _rx: &RecvStream) -> SendState {
        let state = self.0.lock();
        if state.sent < state.write {
            SendState::Ready
        } else if state.finished {
            SendState::Finished
        } else {
            SendState::Idle
        }
    }

    fn on_closed(&mut self, reason: CloseReason) {
        self.0.lock().closed = Some(reason);
    }
}
