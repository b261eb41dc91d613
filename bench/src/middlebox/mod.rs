//! Middleboxes: what a network does to TCP options, sequence numbers, windows and payload on the
//! way, each as one element that runs unchanged in the simulator and between two live interfaces.
//!
//! An [`Element`] is a function from frames to frames with its own state. It is test-bench code:
//! it favours clarity over speed, and lets through untouched whatever it does not understand.
//! The same seed makes the same decisions.
//!
//! | file | one idea |
//! |---|---|
//! | `segment`, `rule` | TCP segments taken apart; state per flow, counts |
//! | `nat`, `handshake`, `strip`, `split`, `coalesce`, `proxy`, `rewrite`, `window`, `normalize`, `network`, `reset`, `options`, `fastopen` | the boxes |
//! | `catalogue` | every box by its number, with what may come of it |
//! | `tap` | what passed, as TCP would deliver it |

pub mod catalogue;
pub mod coalesce;
pub mod fastopen;
pub mod handshake;
pub mod nat;
pub mod network;
pub mod normalize;
pub mod options;
pub mod proxy;
pub mod reset;
pub mod rewrite;
pub mod rule;
pub mod segment;
pub mod split;
pub mod strip;
pub mod tap;
pub mod window;

#[cfg(test)]
mod tests;

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
