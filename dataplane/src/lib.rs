//! braid's dataplane: MPTCP endpoints on AF_XDP, run to completion on pinned cores.
//!
//! A layer calls only what stands above it in this list:
//!
//! | module | one idea |
//! |---|---|
//! | [`time`] | the clock as a value: nothing below `worker` reads one |
//! | [`wire`] | packets: checked views and small representations |
//! | [`checksum`] | Internet checksums, fused with the copy |
//! | [`buf`] | frames as ownership tokens; the only place that hands out payload bytes |
//! | [`io`] | ports: AF_XDP sockets, memory links |
//! | [`tcp`] | one subflow |
//! | [`mptcp`] | one connection |
//! | [`app`] | what a service does with a stream |
//! | [`worker`] | the engine: flow table, timers, hand-off, the run-to-completion loop |
//! | [`control`] | messages between the control plane and this process |
#![deny(unsafe_code)]
pub mod buf;
pub mod checksum;
pub mod counters;
pub mod io;
pub mod mptcp;
pub mod offload;
pub mod tcp;
pub mod time;
pub mod wire;
