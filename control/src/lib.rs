//! braid's control plane: the `braidd` daemon and the `braid` command.
//!
//! | module | one idea |
//! |---|---|
//! | [`config`] | the file, checked |
//! | [`netlink`] | links, addresses, routes and neighbours as the kernel has them |
//! | [`nic`] | what an interface is and can do |
//! | [`ports`] | local ports held against the kernel, and claimed |
//! | [`steering`] | flows sent to their owner by the NIC, where it can |
//! | [`path`] | which addresses to announce and which subflows to open |
//! | [`preflight`] | what must be true, with the command that makes it true |
//! | [`daemon`] | one loop that owns all state; the dataplane's supervisor |
//! | [`api`] | what the control socket offers |
//! | [`metrics`] | the same for Prometheus |
//! | [`cli`] | the same for people |
#![deny(unsafe_code)]

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod metrics;
pub mod netlink;
pub mod nic;
pub mod path;
pub mod ports;
pub mod preflight;
pub mod steering;
