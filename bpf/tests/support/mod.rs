//! What several test binaries need.
#![allow(dead_code, unreachable_pub)]

pub mod frame;

use braid_bpf::{Counter, LoadError, Steer};

/// Loads the program, or says loudly why the test cannot run. Only a lack of
/// privilege is an excuse: a program that the kernel refuses is a failure.
pub fn load_or_skip(test: &str) -> Option<Steer> {
    match Steer::load() {
        Ok(steer) => Some(steer),
        Err(error @ LoadError::NotPermitted) => {
            eprintln!("\n*** SKIPPED {test}: {error} ***\n");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The counters that rose between two readings.
pub fn risen(before: &[(Counter, u64)], after: &[(Counter, u64)]) -> Vec<(Counter, u64)> {
    assert_eq!(before.len(), after.len());
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.1 != after.1)
        .map(|(before, after)| (after.0, after.1 - before.1))
        .collect()
}
