//! What the kernel knows about links, addresses, routes and neighbours.
//!
//! [`Mirror`] is the state as values, changed only by messages, so that it is tested
//! without a kernel. [`Netlink`] asks the kernel. Routes are asked per path and never
//! mirrored: policy rules, source addresses and several tables are the kernel's business.

mod mirror;
mod query;

pub use mirror::{Address, Change, Link, Mirror};
pub use query::{Events, Hop, Netlink, NetlinkError};
