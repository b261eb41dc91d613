//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`demo`] | one transfer, shown on one screen |
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |

pub mod demo;
pub mod peer;
pub mod testbed;
