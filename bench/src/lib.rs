//! braid's test bench.
//!
//! | module | one idea |
//! |---|---|
//! | [`sim`] | whole connections on simulated networks, by seed |
//! | [`swarm`] | random networks, loads and faults, and what must hold in all of them |
//! | [`middlebox`] | what networks do to packets, one element each |
//! | [`gauntlet`] | real hosts through every middlebox, and what comes of it |
//! | [`peer`] | kernel sockets that talk to braid and check every byte |
//! | [`report`] | what was found, as documents |
//! | [`script`] | one engine and a scripted peer, packet by packet |
//! | [`testbed`] | network namespaces, daemons and commands that end with their owner |
//! | [`scenario`] | studies in the simulator: claims, tables, charts |
//! | [`demo`] | both in one run, on one screen |

pub mod demo;
pub mod gauntlet;
pub mod middlebox;
pub mod peer;
pub mod report;
pub mod scenario;
pub mod script;
pub mod sim;
pub mod swarm;
pub mod testbed;
