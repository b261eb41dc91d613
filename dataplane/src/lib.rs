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
#![deny(unsafe_code)]

pub mod buf;
pub mod checksum;
pub mod control;
pub mod counters;
pub mod io;
pub mod mptcp;
pub mod offload;
pub mod tcp;
pub mod time;
pub mod wire;
