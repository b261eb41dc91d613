//! The application of simulated hosts: sends the pattern, checks the pattern.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use braid_dataplane::app::{Echo, pattern};
use braid_dataplane::checksum::Sum;
use braid_dataplane::mptcp::{Application, CloseReason, RecvStream, SendState};

/// What one end of a connection does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends back what it receives.
    Echo,
    /// Sends `send` bytes of the pattern and finishes; checks what it receives against the
    /// pattern.
    Peer {
        /// Bytes to send.
        send: u64,
    },
    /// Asks and waits: sends `bytes` of the pattern, reads as many, and so on; the other end
    /// should echo.
    Chat {
        /// Questions.
        rounds: u64,
        /// Bytes of one.
        bytes: u64,
    },
    /// Sends nothing; reads and checks only as much as [`Outcomes::allow_reading`] has granted, the
    /// slow reader that closes windows.
    Reader,
    /// As `Peer`, but sends only what [`Outcomes::allow`] allows, and finishes after
    /// [`Outcomes::end`]. Whoever says so gives the engine a reason to look
    /// ([`super::Sim::order`]).
    Metered,
}

/// What became of one end.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Established at some time.
    pub established: bool,
    /// Bytes handed to the connection (or to all that share this outcome).
    pub sent: u64,
    /// Bytes that a metered end may have sent by now.
    pub allowed: u64,
    /// A metered end finishes after them.
    pub ended: bool,
    /// Bytes received that agree with the pattern.
    pub received: u64,
    /// Stream offset of the first byte that did not.
    pub wrong_at: Option<u64>,
    /// The peer finished its direction.
    pub eof: bool,
    /// How it ended.
    pub closed: Option<CloseReason>,
    /// Bytes that a [`Role::Reader`] may still read.
    allowance: u64,
}

/// An outcome that outlives its connection.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(Arc<Mutex<Outcome>>, Arc<Mutex<Option<Vec<u8>>>>);

impl Outcomes {
    /// The present state.
    #[must_use]
    pub fn get(&self) -> Outcome {
        self.lock().clone()
    }

    /// Keeps every byte received from now on, right or wrong, for [`Outcomes::recorded`].
    pub fn record(&self) {
        *self.record_lock() = Some(Vec::new());
    }

    /// What was received since [`Outcomes::record`].
    #[must_use]
    pub fn recorded(&self) -> Vec<u8> {
        self.record_lock().clone().unwrap_or_default()
    }

    fn record_lock(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a [`Role::Reader`] read `bytes` more.
    pub fn allow_reading(&self, bytes: u64) {
        let mut outcome = self.lock();
        outcome.allowance = outcome.allowance.saturating_add(bytes);
    }

    /// Lets a metered end send `bytes` more.
    pub fn allow(&self, bytes: u64) {
        self.lock().allowed += bytes;
    }

    /// Stops a [`Role::Reader`] until it is allowed more.
    pub fn forbid_reading(&self) {
        self.lock().allowance = 0;
    }

    /// A metered end finishes after what it was allowed.
    pub fn end(&self) {
        self.lock().ended = true;
    }

    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct SimApp {
    role: Role,
    echo: Echo,
    sent: u64,
    received: u64,
    outcomes: Outcomes,
}

impl SimApp {
    /// An application that reports to `outcomes`.
    #[must_use]
    pub fn new(role: Role, outcomes: Outcomes) -> Self {
        Self {
            role,
            echo: Echo,
            sent: 0,
            received: 0,
            outcomes,
        }
    }

    /// Bytes that may have been sent by now.
    fn may_send(&self) -> u64 {
        match self.role {
            Role::Echo | Role::Reader => 0,
            Role::Metered => self.outcomes.lock().allowed,
            Role::Peer { send } => send,
            Role::Chat { rounds, bytes } => {
                let asked = self.received / bytes.max(1) + 1;
                asked.min(rounds) * bytes
            }
        }
    }
}

impl Application for SimApp {
    fn on_established(&mut self) {
        self.outcomes.lock().established = true;
    }

    fn on_readable(&mut self, rx: &mut RecvStream) {
        let mut outcome = self.outcomes.lock();
        outcome.eof = rx.eof();
        if self.role == Role::Echo {
            return;
        }
        let mut allowance = match self.role {
            Role::Reader => outcome.allowance,
            Role::Echo | Role::Peer { .. } | Role::Chat { .. } | Role::Metered => u64::MAX,
        };
        while !rx.is_empty() && allowance > 0 {
            let bytes = rx.peek();
            let n = bytes
                .len()
                .min(usize::try_from(allowance).unwrap_or(usize::MAX));
            let bytes = &bytes[..n];
            allowance -= n as u64;
            if let Some(record) = self.outcomes.record_lock().as_mut() {
                record.extend_from_slice(bytes);
            }
            if outcome.wrong_at.is_none() {
                match pattern::check(self.received, bytes) {
                    Ok(()) => outcome.received += n as u64,
                    Err(at) => outcome.wrong_at = Some(at),
                }
            }
            self.received += n as u64;
            rx.consume(n);
        }
        outcome.eof = rx.eof();
        if self.role == Role::Reader {
            outcome.allowance = allowance;
        }
    }

    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        let (n, sum) = match self.role {
            Role::Echo => self.echo.fill(rx, out),
            Role::Reader => (0, Sum::ZERO),
            Role::Peer { .. } | Role::Chat { .. } | Role::Metered => {
                let send = self.may_send();
                let left = usize::try_from(send - self.sent).unwrap_or(usize::MAX);
                let n = left.min(out.len());
                (n, pattern::fill(self.sent, &mut out[..n]))
            }
        };
        self.sent += n as u64;
        self.outcomes.lock().sent += n as u64;
        (n, sum)
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        match self.role {
            Role::Echo => self.echo.send_state(rx),
            Role::Peer { .. } | Role::Chat { .. } if self.sent < self.may_send() => {
                SendState::Ready
            }
            Role::Chat { rounds, bytes } if self.sent < rounds * bytes => SendState::Idle,
            Role::Peer { .. } | Role::Chat { .. } | Role::Reader => SendState::Finished,
            Role::Metered => {
                let outcome = self.outcomes.lock();
                if self.sent < outcome.allowed {
                    SendState::Ready
                } else if outcome.ended {
                    SendState::Finished
                } else {
                    SendState::Idle
                }
            }
        }
    }

    fn backlog(&self, rx: &RecvStream) -> Option<u64> {
        match self.role {
            Role::Echo => self.echo.backlog(rx),
            Role::Reader => Some(0),
            Role::Peer { .. } | Role::Chat { .. } | Role::Metered => {
                Some(self.may_send() - self.sent)
            }
        }
    }

    fn on_closed(&mut self, reason: CloseReason) {
        self.outcomes.lock().closed = Some(reason);
    }
}
