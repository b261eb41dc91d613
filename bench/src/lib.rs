//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |

pub mod peer;
pub mod testbed;
