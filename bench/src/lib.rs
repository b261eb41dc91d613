//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`sim`] | whole connections on simulated networks, by seed |
//! | [`scenario`] | simulated experiments, pinned as tables |
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |
//! | [`scenario`] | studies in the simulator: claims, tables, charts |
//! | [`demo`] | both in one run, on one screen |

pub mod demo;
pub mod peer;
pub mod scenario;
pub mod sim;
pub mod testbed;
