//! Coverage-guided fuzzing: one module per target, each a plain function of bytes.
//!
//! The same bodies run under libFuzzer (`scripts/fuzz`) and, over the committed corpus and
//! the inputs of past findings, in an ordinary test. A body panics when an invariant breaks.
//! Bodies are deterministic: no clock, no randomness, no state that outlives a run.

pub mod bytes;
pub mod config;
pub mod connection;
pub mod control;
pub mod subflow;
pub mod wire;

/// A target: its name, and what one run does.
#[derive(Copy, Clone, Debug)]
pub struct Target {
    /// Names the directories of its corpus and regressions, too.
    pub name: &'static str,
    /// One run. Panics on a finding.
    pub run: fn(&[u8]),
    /// Longest input worth trying.
    pub max_len: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "wire",
        run: wire::run,
        max_len: 256,
    },
    Target {
        name: "subflow",
        run: subflow::run,
        max_len: 400,
    },
    Target {
        name: "connection",
        run: connection::run,
        max_len: 400,
    },
    Target {
        name: "control",
        run: control::run,
        max_len: 400,
    },
    Target {
        name: "config",
        run: config::run,
        max_len: 400,
    },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
