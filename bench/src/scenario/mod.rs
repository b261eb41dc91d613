//! Simulated experiments whose results are pinned as tables in `bench/docs`.

pub mod windows;
