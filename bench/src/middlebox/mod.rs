//! Middleboxes: what a network does to TCP options, sequence numbers, windows and payload on the
//! way, each as one element that runs unchanged in the simulator and between two live interfaces.
//!
//! An [`Element`] is a function from frames to frames with its own state. It is test-bench code:
//! it favours clarity over speed, and lets through untouched whatever it does not understand.

use braid_dataplane::time::Instant;

/// Which way a packet travels through a box.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Hash)]
pub enum Toward {
    /// To the side that opened the connection.
    Client,
    /// From the side that opened the connection.
    Server,
}

/// What a box lets out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Out {
    /// Which way it leaves.
    pub toward: Toward,
    /// A whole Ethernet frame.
    pub frame: Vec<u8>,
}

/// A middlebox on one path: a function from packets to packets with its own state.
pub trait Element: Send + std::fmt::Debug {
    /// A whole Ethernet frame arrives at `now`, travelling `toward`; what leaves is pushed to `out`.
    fn on_frame(&mut self, now: Instant, toward: Toward, frame: Vec<u8>, out: &mut Vec<Out>);

    /// When [`Self::on_timer`] wants to be called.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The clock reached [`Self::next_deadline`].
    fn on_timer(&mut self, now: Instant, out: &mut Vec<Out>) {
        let _ = (now, out);
    }

    /// What it did, for the matrix: (name, count).
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
