//! braid's control plane.
//!
//! | module | one idea |
//! |---|---|
//! | [`config`] | the file, checked |
//! | [`nic`] | what an interface is and can do |
//! | [`ports`] | local ports held against the kernel, and claimed |
//! | [`path`] | which addresses to announce and which subflows to open |
//! | [`netlink`] | links, addresses, routes and neighbours as the kernel has them |
#![deny(unsafe_code)]

pub mod config;
pub mod netlink;
pub mod nic;
pub mod path;
pub mod ports;
