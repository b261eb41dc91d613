//! The redundant scheduler's other half: what one subflow took from the application goes out
//! on the others as well.
//!
//! Each subflow has its own position in the stream ([`Subflow::given_to`]), from which it
//! sends copies as its windows allow. A copy is the same range of the send queue under a
//! mapping of its own; the payload is not touched, unless its frame is still in a port's ring
//! behind another subflow's header (counted as `TxRecopyInFlight`). The peer's reassembly
//! drops what it has already.
//!
//! Invariants:
//! - A slow subflow holds nothing back: it skips what is DATA_ACKed, and stops copying when
//!   what the slow ones pin fills [`PINNED_SHARE`] of the send buffer.
//! - Copies are additional. New data, retransmissions and reinjections do not depend on them.

use super::api::{Cx, TxSink};
use super::output::{Outcome, has_room};
use super::schedulers::Class;
use super::state::{Core, Mode};
use super::subflow::Subflow;
use crate::checksum::{self, Sum};
use crate::counters::Counter;

/// Part of the send buffer that DATA_ACKed bytes may occupy, for some subflow's
/// retransmission, before copies pause.
const PINNED_SHARE: u64 = 4;

impl Core {
    /// Sends on every subflow what others were given. True when a port was full.
    pub(crate) fn send_copies<S: TxSink>(&mut self, cx: &mut Cx<'_>, sink: &mut S) -> bool {
        if !self.scheduler.copies()
            || self.mode != Mode::Mptcp
            || self.subflows.len() < 2
            || self.is_over()
            || self.is_aborting()
        {
            return false;
        }
        let usable = |s: &&Subflow| s.is_usable() && !s.port_down;
        let best = self.subflows.iter().filter(usable).map(Self::class).min();
        // Copies on paths that do not work serve nobody.
        let Some(best) = best.filter(|class| *class != Class::LastResort) else {
            return false;
        };
        let mut full = false;
        for i in 0..self.subflows.len() {
            let s = &self.subflows[i];
            if usable(&s) && Self::class(s) == best {
                while self.send_copy(cx, sink, i, &mut full) {}
            }
        }
        full
    }

    /// The next range that subflow `i` was not given. False when it cannot go on.
    fn send_copy<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        full: &mut bool,
    ) -> bool {
        let s = &self.subflows[i];
        let start = s.given_to.max(self.send.una());
        let pinned_max = u64::from(cx.config.send_buffer_bytes) / PINNED_SHARE;
        // What its own burst leaves to send is under that burst's mapping.
        if start >= self.send.nxt() || s.burst.is_some() || self.send.pinned_bytes() > pinned_max {
            return false;
        }
        let budget = s.tcp.send_budget(cx.now);
        if budget == 0 {
            return false;
        }
        if !has_room(sink, s) {
            *full = true;
            return false;
        }
        let Some((end, sum)) = self.part(start, s.tcp.mss().min(budget)) else {
            debug_assert!(false, "unacknowledged data without payload");
            return false;
        };
        let len = u32::try_from(end - start).unwrap_or(0);
        let seq = s.tcp.snd_nxt();
        let fin = self.closing.fin() == Some(end);
        let map = self.mapping(start, s.ssn(seq), u64::from(len), fin, sum);
        match self.transmit(cx, sink, i, start, len, seq, map, true) {
            Outcome::Sent => {}
            Outcome::Full => {
                *full = true;
                return false;
            }
            Outcome::NoCarrier | Outcome::Lost => return false,
        }
        cx.counters.inc(Counter::RedundantTx);
        self.record_again(cx, i, start, len, map);
        self.subflows[i].given_to = end;
        true
    }

    /// The part of a chunk that one segment of at most `room` bytes from `start` carries: its
    /// end and its sum.
    pub(super) fn part(&self, start: u64, room: u32) -> Option<(u64, Sum)> {
        let chunk = self.send.chunk(start)?;
        let end = chunk.end().min(start + u64::from(room));
        if start == chunk.off && end == chunk.end() {
            return Some((end, chunk.sum));
        }
        let skip = usize::try_from(start - chunk.off).ok()?;
        let len = usize::try_from(end - start).ok()?;
        let bytes = chunk.payload()?.get(skip..skip + len)?;
        Some((end, checksum::sum(bytes)))
    }
}
