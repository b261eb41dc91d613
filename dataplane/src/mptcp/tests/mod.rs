//! Two connections against each other.

mod basic;
mod boxes;
mod failing;
mod fallback;
mod harness;
mod paths;
mod regressions;
mod signals;
mod swarm;
mod windows;
mod wraps;
