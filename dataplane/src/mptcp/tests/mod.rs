//! Two connections against each other.

mod basic;
mod boxes;
mod congestion;
mod fallback;
mod harness;
mod paths;
mod regressions;
mod schedulers;
mod swarm;
mod v0;
