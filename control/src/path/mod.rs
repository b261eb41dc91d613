//! The path manager: which addresses to announce, which subflows to open, and when to
//! open them again.
//!
//! [`Manager`] decides: events in, [`Command`]s out, time passed in, no I/O. The daemon
//! carries the commands out (route, neighbour, port, dataplane) and tells what failed.
//! [`endpoints`] is the table behind `braid endpoint`, with the kernel's identifiers.

pub mod endpoints;
mod manager;
mod plan;
#[cfg(test)]
mod tests;

pub use endpoints::{Endpoint, Endpoints};
pub use manager::{Command, Limits, LocalAddress, Manager};
