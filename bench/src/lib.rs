//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`sim`] | whole connections on simulated networks, by seed |
//! | [`middlebox`] | what networks do to packets, one element each |
//! | [`gauntlet`] | real hosts through every middlebox, and what comes of it |
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`report`] | what was found, as documents |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |
//! | [`scenario`] | studies in the simulator: claims, tables, charts |
//! | [`demo`] | both in one run, on one screen |

pub mod demo;
pub mod gauntlet;
pub mod middlebox;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod sim;
pub mod testbed;
