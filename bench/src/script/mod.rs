//! Packet-level scripts in the manner of packetdrill.
//!
//! A script plays the peer of one real engine, packet by packet, under virtual time: it
//! injects segments, says which ones it expects, calls what an application or a path
//! manager would call, and looks at events, counters and states. The format is described
//! in `bench/tests/scripts/README.md`.
//!
//! Nothing of the dataplane is used to build, read or authenticate packets: addresses,
//! checksums, options, tokens and HMACs come from the few lines in `segment`, `options`
//! and `keys`, so that a script is an independent check of the dataplane's encoders, too.
//!
//! | file | one idea |
//! |---|---|
//! | `syntax` | text to commands |
//! | `segment`, `options`, `render`, `keys` | the wire |
//! | `host` | one engine on a memory sink under a virtual clock |
//! | `app` | the application under the script's control |
//! | `run`, `calls` | commands to deeds: packets; everything else |
//! | `checklist` | requirement, test, result: the table in the docs |

pub(crate) mod app;
mod calls;
pub mod checklist;
pub(crate) mod host;
pub(crate) mod keys;
mod options;
mod render;
mod run;
pub(crate) mod segment;
pub mod syntax;
#[cfg(test)]
mod tests;

pub use run::run;
