//! The atomics of [`super::wake`], which the model checker replaces by its own.

pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
