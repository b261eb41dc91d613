//! Two connections against each other.

mod basic;
mod boxes;
mod fallback;
mod harness;
mod paths;
mod regressions;
mod swarm;
mod windows;
mod wraps;
