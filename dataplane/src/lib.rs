//! braid's dataplane: MPTCP endpoints on AF_XDP, run to completion on pinned cores.
//!
//! A layer calls only what stands above it in this list:
//!
//! | module | one idea |
//! |---|---|
//! | [`time`] | the clock as a value: nothing below `worker` reads one |
//! | [`counters`] | a name for every drop, fallback and reset |
//! | [`checksum`] | Internet checksums, fused with the copy |
//! | [`wire`] | packets: checked views and small representations |
//! | [`buf`] | frames as ownership tokens; the only place that hands out payload bytes |
//! | [`io`] | ports: AF_XDP sockets, memory links |
//! | [`offload`] | headers in front of payload that stays where it is |
//! | [`tcp`] | one subflow |
//! | [`mptcp`] | one connection |
//! | [`app`] | what a service does with a stream |
//! | [`worker`] | the engine: flow table, timers, hand-off, the run-to-completion loop |
//! | [`control`] | messages between the control plane and this process |
//! | [`process`] | sockets opened, privileges dropped, workers started, control served |
#![deny(unsafe_code)]

pub mod app;
pub mod buf;
pub mod checksum;
pub mod control;
pub mod counters;
pub mod io;
mod lazy;
pub mod mptcp;
pub mod offload;
pub mod process;
pub mod tcp;
pub mod time;
pub mod wire;
pub mod worker;
