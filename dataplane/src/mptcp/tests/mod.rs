//! Two connections against each other.

mod announcements;
mod basic;
mod boxes;
mod congestion;
mod failing;
mod fallback;
mod harness;
mod paths;
mod regressions;
mod schedulers;
mod signals;
mod swarm;
mod v0;
mod windows;
mod wraps;
