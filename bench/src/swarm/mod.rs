//! Random networks, loads, faults and middleboxes, by seed, and what must hold in all of them.
//!
//! A seed decides everything: hosts and paths, settings, what the applications do, what
//! fails and when. Each seed moves at least [`EACH_WAY`] bytes in both directions of one
//! connection, under at least [`FAULTS_MIN`] faults, beside other connections. Checked:
//!
//! - every stream is what was sent, and every connection ends as it should;
//! - at packet level, by an observer of every host: right edges, DATA_ACKs, bytes in flight
//!   ([`Sim::violations`](crate::sim::Sim::violations));
//! - something moves: [`STALL`] of virtual time without a byte is a failure;
//! - afterwards all frames are free, and no flow is left once TIME-WAIT is over.
//!
//! | module | one idea |
//! |---|---|
//! | [`world`] | from a seed to a network, its load and its faults |
//! | `boxes` | middleboxes of the catalogue, and what they excuse |
//! | `altered` | streams that boxes have changed unseen |
//! | `pick` | random choices |
//! | [`run`] | one seed, run and judged |
//! | [`soak`] | many seeds on many threads |

mod altered;
mod boxes;
mod pick;
pub mod run;
pub mod soak;
pub mod world;

use std::time::Duration;

/// Bytes that the main connection moves in each direction, at least.
pub const EACH_WAY: u64 = 1 << 20;

/// Faults that hit the main connection while it moves data, at least.
pub const FAULTS_MIN: u32 = 2;

/// Virtual time without progress that is a stall. Faults last 3 s at the most, and
/// retransmission timers back off to twice as long.
pub const STALL: Duration = Duration::from_secs(100);

/// The same where a middlebox may end the connection: user timeout, time without a subflow
/// and time to close may pass one after the other.
pub const STALL_BOXED: Duration = Duration::from_secs(300);
