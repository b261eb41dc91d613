//! Threads of a benchmark: on one core, in one namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Scope, ScopedJoinHandle};

use crate::failure;
use crate::testbed::{Result, Role, Testbed};

/// Runs `body` on a thread that is pinned to `core` and lives in `role`'s namespace, until
/// the guard is dropped.
#[derive(Debug)]
pub struct Pinned<'scope> {
    stop: Arc<AtomicBool>,
    thread: Option<ScopedJoinHandle<'scope, Result<()>>>,
}

impl<'scope> Pinned<'scope> {
    /// Starts it. `body` tells with its second argument that it is ready, and runs until the
    /// first one is true.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        testbed: &Testbed,
        role: Role,
        core: usize,
        body: impl FnOnce(&AtomicBool, &dyn Fn()) -> Result<()> + Send + 'scope,
    ) -> Result<Self> {
        let namespace = testbed.namespace_handle(role)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let (tell, ready) = channel();
        let thread = scope.spawn(move || {
            namespace.enter()?;
            core_affinity::set_for_current(core_affinity::CoreId { id: core });
            let result = body(&told, &|| {
                // Nobody waits any more when the starter has given up.
                let _ = tell.send(());
            });
            drop(tell);
            result
        });
        let mut running = Self {
            stop,
            thread: Some(thread),
        };
        match ready.recv() {
            Ok(()) => Ok(running),
            // It ended before it was ready.
            Err(_) => Err(running.finish().err().unwrap_or_else(|| failure!("ended"))),
        }
    }

    /// Has it ended by itself?
    pub fn ended(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(ScopedJoinHandle::is_finished)
    }

    /// Ends it.
    pub fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(ScopedJoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(failure!("a thread of the benchmark panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
