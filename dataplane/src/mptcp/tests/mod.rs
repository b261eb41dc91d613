//! Two connections against each other.

mod basic;
mod harness;
mod swarm;
