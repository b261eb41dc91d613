//! AF_XDP sockets, on xsk-rs.
//!
//! A [`UmemGroup`] is one UMEM, cut into one pool per worker; all its sockets share the
//! mode of the first (kernel and libxdp take mode, need_wakeup and SG of a UMEM from
//! its first socket, and refuse new ones once that socket's device is gone). An
//! [`XskPort`] is one socket on one queue of one interface.
//!
//! Groups and ports are made on the main thread, before capabilities are dropped, and
//! then moved to their workers. Nothing here loads or attaches an XDP program: the
//! control plane does, and puts the port's descriptor into its XSKMAP.

mod descs;
mod error;
mod fill;
mod gso;
mod port;
mod socket;
#[cfg(test)]
mod tests;
mod umem;

pub use error::OpenError;
pub use port::XskPort;
pub use socket::{BindMode, XskConfig};
pub use umem::{HugePages, UmemConfig, UmemGroup};
