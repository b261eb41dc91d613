//! What libbpf-cargo generates from `bpf/steer.bpf.c`.
#![allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub
)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::ptr_as_ptr)]

include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
