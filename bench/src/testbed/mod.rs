//! Network namespaces, daemons and commands that end with their owner.
//!
//! | file | one idea |
//! |---|---|
//! | [`process`] | a command whose output is kept and which dies with its value |
//! | [`topology`] | two namespaces and the paths between them, as `scripts/testbed-veth` builds them |
//! | [`daemon`] | braidd with a generated configuration, and what `braid --json` says |
//! | [`requirement`] | what a live test needs of the machine |
//! | [`interrupt`] | nothing of it is left when a signal ends the process |

pub mod daemon;
pub mod interrupt;
pub mod process;
pub mod requirement;
pub mod topology;

use std::fmt;

pub use daemon::{Braidd, Config};
pub use process::Process;
pub use topology::{Options, PathShare, Role, Testbed};

/// What went wrong, with what the command said about it.
pub struct Failure(pub String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tests print it when they return it: readable beats quoted.
        f.write_str(&self.0)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self(e.to_string())
    }
}

/// Result of anything done to the testbed.
pub type Result<T> = std::result::Result<T, Failure>;

/// A [`Failure`], formatted.
#[macro_export]
macro_rules! failure {
    ($($arg:tt)*) => { $crate::testbed::Failure(format!($($arg)*)) };
}
