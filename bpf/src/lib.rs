//! braid-bpf: the XDP program `steer` and the Rust side of it.
//!
//! `steer` gives braid its packets and the kernel everything else. It runs once
//! per interface; the instances share what is claimed ([`Claims`]), the
//! dataplane's sign of life ([`Heartbeat`]) and the counters ([`Counters`]),
//! and each has the sockets of its own queues ([`XskMap`]).
//!
//! Nothing is pinned. Everything is a descriptor that may be sent to another
//! process and made into the same thing there (`from_fd`), and the program is
//! attached as long as somebody holds its [`XdpLink`].
//!
//! What the program guarantees:
//! - a packet that nobody claimed passes;
//! - a claimed packet never reaches the kernel while the heartbeat is fresh,
//!   and always does when it is not;
//! - every packet raises exactly one [`Counter`].
//!
//! ```no_run
//! use braid_bpf::{AttachMode, Claim, ClaimKind, Steer};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let steer = Steer::load()?;
//! steer.claim_add(Claim::new("10.77.1.2".parse()?, 7), ClaimKind::Service)?;
//! let program = steer.interface(4)?;
//! let link = program.attach(AttachMode::Native)?; // attached until it is dropped
//! for (counter, packets) in steer.counters()? {
//!     println!("{counter} {packets}");
//! }
//! # drop(link);
//! # Ok(())
//! # }
//! ```

mod attach;
mod claim;
mod counter;
mod empty;
mod error;
mod heartbeat;
mod interface;
mod log;
mod map;
mod skeleton;
mod steer;
mod test_run;
mod xskmap;

pub use claim::{Claim, ClaimAddress, ClaimKind, Claims, Family};
pub use counter::{Counter, Counters};
pub use empty::load_empty;
pub use error::{AttachError, AttachMode, FoundMode, FoundProgram, LoadError, MapError};
pub use heartbeat::{HEARTBEAT_FRESH, Heartbeat};
pub use interface::{InterfaceProgram, XdpLink};
pub use steer::{Steer, SteerFds};
pub use test_run::{TestRun, Verdict, test_run};
pub use xskmap::{QUEUES_MAX, XskMap};
