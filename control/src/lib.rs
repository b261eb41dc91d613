//! braid's control plane.
//!
//! | module | one idea |
//! |---|---|
//! | [`config`] | the file, checked |
#![deny(unsafe_code)]

pub mod config;
