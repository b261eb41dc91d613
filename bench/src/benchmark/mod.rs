//! Benchmarks: what braid does beside what the kernel does, on the same machine and in
//! the same run.
//!
//! | file | one idea |
//! |---|---|
//! | [`cell`] | the matrix: who talks to whom over what, and filters on it |
//! | [`veth`] | the matrix, measured live over veth pairs |
//! | [`transfer`] | one measurement of one cell |
//! | [`steer`] | what the XDP program costs per packet |
//! | [`engine`] | the engine alone, on memory ports, beside smoltcp and memcpy |
//! | [`machine`] | what was measured on, and how busy it was |
//! | [`statistics`] | median and spread, and when two of them differ |
//! | [`figure`] | one figure, what it is compared with, and its bar |
//! | [`output`] | options that all benchmarks share |
//! | [`results`] | everything of a run, as JSON |
//! | [`progress`] | a bar with the time left |
//!
//! Results are compared and drawn by [`crate::report::benchmark`].

pub mod cell;
pub mod engine;
pub mod figure;
pub mod machine;
pub mod output;
pub mod progress;
pub mod results;
pub mod statistics;
pub mod steer;
pub mod transfer;
pub mod veth;
