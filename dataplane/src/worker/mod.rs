//! The run-to-completion worker: one pinned core, its ports, its connections.
//!
//! [`engine`] is the sans-I/O part; [`run`] gives it ports, a clock and a mailbox.

pub mod engine;
pub mod flow_table;
pub mod handoff;
pub mod mailbox;
pub mod run;
mod sync;
pub mod time_wait;
pub mod timer_wheel;
pub mod wake;

pub use engine::{Arrival, ConnectError, Engine, EngineConfig, Order, OrderError, Service};
