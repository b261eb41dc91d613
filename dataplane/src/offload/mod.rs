//! Work that hardware would do: building headers for many frames of one subflow, cutting
//! bursts into segments.

pub mod header;
pub mod segmentation;

pub use header::{HeaderTemplate, L2Header, TcpHeaderOut};
pub use segmentation::BurstShape;
