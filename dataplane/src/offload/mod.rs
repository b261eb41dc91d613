//! Work that hardware would do: building headers for many frames of one subflow, cutting
//! bursts into segments, joining received segments.

pub mod coalescing;
pub mod header;
pub mod segmentation;

pub use coalescing::Train;
pub use header::{HeaderTemplate, L2Header, TcpHeaderOut};
pub use segmentation::{BURST_FRAMES_MAX, BurstShape};
