//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`sim`] | whole connections on simulated networks, by seed |
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`script`] | one engine and a scripted peer, packet by packet |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |
//! | [`scenario`] | studies in the simulator: claims, tables, charts |
//! | [`demo`] | both in one run, on one screen |

pub mod demo;
pub mod peer;
pub mod scenario;
pub mod script;
pub mod sim;
pub mod testbed;
