//! Who sleeps, and who has to be woken: the protocol between a worker that is about to sleep
//! and one that has just put something into its ring.
//!
//! ```text
//! sleeper: sleeping = true; fence; anything in my rings?  no -> poll(2)
//! sender:  push into the ring; fence; is it sleeping?     yes -> write its eventfd
//! ```
//!
//! Each writes one thing and then reads the other's. The two fences make it impossible that
//! both read what was before, whatever orderings the ring uses inside. `tests/wake.rs` compiles
//! this file with loom's atomics and tries every interleaving; variants without a fence lose a
//! wake-up there.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether one worker sleeps or is about to.
#[derive(Debug)]
pub struct Sleeping(AtomicBool);

impl Default for Sleeping {
    fn default() -> Self {
        Self(AtomicBool::new(false))
    }
}

impl Sleeping {
    /// The worker wants to sleep. It may if this is true: `ready` was asked whether something
    /// waits after everybody else could know of the wish. [`Sleeping::end`] must follow.
    pub fn begin(&self, ready: impl FnOnce() -> bool) -> bool {
        // Relaxed: the fence orders it.
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !ready()
    }

    /// The worker is awake. What is sent from here on it finds by itself, before it wants to
    /// sleep again.
    pub fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whoever has pushed something asks whether the worker has to be woken.
    pub fn must_be_woken(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed)
    }
}
