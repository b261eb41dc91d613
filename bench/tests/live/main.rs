//! Live tests: braid in one network namespace, the kernel's MPTCP and TCP in another,
//! real programs, every byte checked. They need root; what the machine lacks is said
//! by a line that begins with `SKIP`.
//!
//! `BRAID_LIVE_SUBJECT=kernel` puts a kernel server in braid's place. That is how the
//! tests themselves are tested: what does not depend on braid's own tools must pass.

mod active_open;
mod benchmark;
mod echo;
mod endpoints;
mod failures;
mod families;
mod gauntlet;
mod harness;
mod many;
mod nic;
mod plain_tcp;
mod policies;
mod privileges;
mod real_boxes;
mod refusals;
mod restart;
mod support;
mod version0;
mod window_option;
mod workers;
