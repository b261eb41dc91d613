//! Work that hardware would do: building headers for many frames of one subflow.

pub mod header;

pub use header::{HeaderTemplate, L2Header, TcpHeaderOut};
