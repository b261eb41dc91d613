//! What a connection gives back when nothing comes or goes.
//!
//! Queues and rings keep their memory while a connection is in use, so that a steady state does
//! not allocate. A connection to which nothing happens for [`SPARE_AFTER`] needs none of it, and
//! a server may have a hundred thousand such. The deadline stands still while packets come, and
//! is looked at when it has passed: packets pay one comparison.

use super::api::Cx;
use super::state::Core;
use crate::time::{Duration, Instant};

/// How long nothing happens before spare memory is given back: longer than a retransmission
/// timeout, so that what is in use is not spare, and short beside what idle connections last.
const SPARE_AFTER: Duration = Duration::from_secs(1);

impl Core {
    /// A packet came: there will be something to give back.
    #[inline]
    pub(crate) fn in_use(&mut self, now: Instant) {
        if self.spare_at.is_none() {
            self.spare_at = Some(now + SPARE_AFTER);
        }
    }

    /// Gives back what is spare, or waits for as long as the connection was in use since.
    pub(crate) fn spare_timer(&mut self, cx: &mut Cx<'_>) {
        if self.spare_at.is_none_or(|at| at > cx.now) {
            return;
        }
        let active = self.subflows.iter().map(|s| s.tcp.last_active()).max();
        self.spare_at = active.map(|at| at + SPARE_AFTER).filter(|at| *at > cx.now);
        if self.spare_at.is_none() {
            self.release_spare();
        }
    }

    fn release_spare(&mut self) {
        for s in &mut self.subflows {
            s.release_spare();
        }
        self.send.release_spare();
        self.rx.release_spare();
        self.reassembly.release_spare();
        self.reinject.release_spare();
        self.addresses.release_spare();
        if self.is_established() && !self.fast_open.has_leftover() {
            self.fast_open.release_if(|_| true);
        }
    }
}
