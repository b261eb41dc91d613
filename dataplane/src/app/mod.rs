//! What a service does with a stream.
//!
//! One file per application; [`App`] is the closed set of them, so that the packet path
//! dispatches by `match` and not through a pointer.

mod echo;
mod exchange;
pub mod pattern;
mod sink;
mod source;

pub use echo::Echo;
pub use exchange::Exchange;
pub use sink::Sink;
pub use source::Source;

use crate::checksum::Sum;
use crate::mptcp::{Application, CloseReason, Findings, RecvStream, SendState};

/// The applications a service can name in the configuration.
#[derive(Debug)]
pub enum App {
    /// Sends back what it receives.
    Echo(Echo),
    /// Reads and discards.
    Sink(Sink),
    /// Sends the [`pattern`].
    Source(Source),
    /// Sends the [`pattern`] and checks what comes.
    Exchange(Box<Exchange>),
}

macro_rules! each {
    ($self:expr, $app:ident => $call:expr) => {
        match $self {
            App::Echo($app) => $call,
            App::Sink($app) => $call,
            App::Source($app) => $call,
            App::Exchange($app) => $call,
        }
    };
}

impl Application for App {
    fn on_established(&mut self) {
        each!(self, app => app.on_established());
    }

    fn on_readable(&mut self, rx: &mut RecvStream) {
        each!(self, app => app.on_readable(rx));
    }

    fn fill(&mut self, rx: &mut RecvStream, out: &mut [u8]) -> (usize, Sum) {
        each!(self, app => app.fill(rx, out))
    }

    fn send_state(&self, rx: &RecvStream) -> SendState {
        each!(self, app => app.send_state(rx))
    }

    fn backlog(&self, rx: &RecvStream) -> Option<u64> {
        each!(self, app => app.backlog(rx))
    }

    fn findings(&self) -> Option<Findings> {
        each!(self, app => app.findings())
    }

    fn on_closed(&mut self, reason: CloseReason) {
        each!(self, app => app.on_closed(reason));
    }
}
