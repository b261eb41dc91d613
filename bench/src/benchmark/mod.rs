//! Benchmarks: what braid does beside what the kernel does, on the same machine and in
//! the same run.
//!
//! | file | one idea |
//! |---|---|
//! | [`cell`] | the matrix: who talks to whom over what, and filters on it |
//! | [`veth`] | the matrix, measured live over veth pairs |
//! | [`transfer`] | one measurement of one cell |
//! | [`pps`] | the raw port, without protocol: what protocols can reach at best |
//! | [`rr`] | requests and responses: how long an answer takes |
//! | [`conn`] | connections: how many per second, what they cost and what idle ones hold |
//! | [`steer`] | what the XDP program costs per packet |
//! | [`nic`] | the matrix between two hosts with real NICs |
//! | [`engine`] | the engine alone, on memory ports, beside smoltcp and memcpy |
//! | [`machine`] | what was measured on, and how busy it was |
//! | [`statistics`] | median and spread, and when two of them differ |
//! | [`figure`] | one figure, what it is compared with, and its bar |
//! | [`pinned`] | threads on one core, in one namespace |
//! | [`output`] | options that all benchmarks share |
//! | [`results`] | everything of a run, as JSON |
//! | [`progress`] | a bar with the time left |
//!
//! Results are compared and drawn by [`crate::report::benchmark`].

pub mod cell;
pub mod conn;
pub mod engine;
pub mod figure;
pub mod machine;
pub mod nic;
pub mod output;
pub mod pinned;
pub mod pps;
pub mod progress;
pub mod results;
pub mod rr;
pub mod statistics;
pub mod steer;
pub mod transfer;
pub mod veth;
