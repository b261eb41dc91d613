//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`sim`] | whole connections on simulated networks, by seed |
//! | [`middlebox`] | what networks do to packets, one element each |
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`report`] | what was found, as documents |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |
//! | [`scenario`] | studies in the simulator: claims, tables, charts |
//! | [`demo`] | both in one run, on one screen |

pub mod demo;
pub mod middlebox;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod sim;
pub mod testbed;
