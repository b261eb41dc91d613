//! braid-bpf
