//! What happens when time passes.

use core::time::Duration;

use super::api::{CloseReason, Cx};
use super::event::Event;
use super::input::STALE_RTOS;
use super::state::{Core, Mode};
use super::subflow::{Phase, Subflow};
use crate::counters::Counter;
use crate::io::PortId;
use crate::time::{Instant, earlier};
use crate::wire::mptcp::reset_reason;

/// Repetitions of a MP_JOIN ACK without an answer.
const JOIN_ACK_MAX: u8 = 6;
/// Timeouts in a row, before anything was DATA_ACKed, that mean that what carries options is
/// dropped. Path MTU discovery has tried two smaller sizes by then.
const OPTIONS_DROPPED_RTOS: u32 = 5;
/// Longest wait between connection-level retransmissions.
const DATA_RTO_MAX: Duration = Duration::from_secs(60);
/// Connection-level retransmission before any round trip was measured (RFC 6298 §2.1).
const DATA_RTO_INITIAL: Duration = Duration::from_secs(1);
/// DATA_FINs sent to a server that has not shown any DSS before TCP's FIN is tried.
const UNCONFIRMED_FINS_MAX: u32 = 4;
/// The same once fallen back: only bytes without options arrive, it seems.
const MUTE_RTOS: u32 = 3;
/// Connection-level timeouts in a row after which the only subflow falls back, when it has
/// delivered everything and the connection acknowledges nothing. The peer was asked before.
const UNHEARD_MAX: u32 = 3;
/// What a timeout at connection level resends at once.
const RESEND_BYTES: u64 = 65_536;
/// How often a subflow that times out tries its path while another subflow works.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A stale subflow may keep this share of the send buffer from being freed before it is
/// reset (RFC 8684 §3.3.6: reason 5).
const PINNED_SHARE: u64 = 2;

/// How a hole that the peer's TCP has acknowledged is filled again, as far as is known.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(crate) enum Refill {
    /// Not tried yet with more than one segment.
    #[default]
    Unknown,
    /// Many segments at a time are on their way.
    Many,
    /// Many at a time came to nothing: one at a time.
    One,
}

impl Core {
    /// Runs everything that is due.
    pub(crate) fn on_timer(&mut self, cx: &mut Cx<'_>) {
        for i in 0..self.subflows.len() {
            self.subflow_timer(cx, i);
        }
        self.send_announcements(cx);
        self.repeat_withdrawals(cx);
        self.repeat_fastclose(cx);
        self.data_timer(cx);
        self.reset_pinning_subflow(cx);
        self.close_timer(cx);
        self.spare_timer(cx);
        self.advance_close(cx);
    }

    fn subflow_timer(&mut self, cx: &mut Cx<'_>, i: usize) {
        if self.subflows[i].death.is_some() {
            return;
        }
        let due = self.subflows[i]
            .tcp
            .next_deadline()
            .is_some_and(|at| at <= cx.now);
        if due {
            self.couple(cx.now, i);
            let s = &mut self.subflows[i];
            let verdict = s.tcp.on_timer(cx.now, cx.counters);
            if verdict.timed_out {
                s.rst_unsent = true;
                s.reset_reason = Some(reset_reason::BAD_PERFORMANCE);
                self.bury(i, None, "timed out");
                return;
            }
            if verdict.closed {
                self.bury(i, None, "closed");
                return;
            }
            if verdict.rto_fired && self.subflows[i].phase == Phase::Established {
                self.on_rto(cx, i, verdict.consecutive_rtos);
            }
        }
        let s = &mut self.subflows[i];
        if let Some(w) = &mut s.withdrawn {
            if w.probe_at.is_some_and(|at| at <= cx.now) {
                w.probe_at = None;
                s.probe_due = true;
            }
            if w.decided_at <= cx.now {
                if w.answered {
                    s.withdrawn = None;
                } else {
                    cx.counters.inc(Counter::RmSubflow);
                    let reason = Some(reset_reason::UNSPECIFIED);
                    self.kill(i, reason, "address removed by peer");
                    return;
                }
            }
        }
        if s.fin_wait.is_some_and(|at| at <= cx.now) {
            cx.counters.inc(Counter::SubflowFinTimeout);
            let reason = Some(reset_reason::UNSPECIFIED);
            self.kill(i, reason, "not closed by peer");
            return;
        }
        if s.fail
            .as_ref()
            .is_some_and(|f| f.due_at().is_some_and(|at| at <= cx.now))
        {
            self.release_fail(cx.now, i);
        }
        let s = &mut self.subflows[i];
        if s.unmapped.is_some_and(|(_, at)| at <= cx.now) {
            s.unmapped = None;
            if self.can_do_without(i) {
                self.options_vanished(cx, i);
                // MP_FAIL has to travel on something.
                self.subflows[i].tcp.ack_now();
                return;
            }
        }
        let s = &mut self.subflows[i];
        if let Some((_, sent)) = s.join_ack.filter(|(at, _)| *at <= cx.now) {
            if sent >= JOIN_ACK_MAX {
                // It may have arrived, and data since.
                self.was_joined = true;
                self.kill(
                    i,
                    Some(reset_reason::MPTCP_SPECIFIC),
                    "MP_JOIN not acknowledged",
                );
                self.join_is_decided(cx);
            } else {
                let wait = s.tcp.rto() * (1 << (sent + 1));
                s.join_ack = Some((cx.now + wait, sent + 1));
                s.tcp.ack_now();
            }
        }
    }

    /// A retransmission timeout: what is outstanding is sent on other subflows, too, and
    /// the second in a row makes the subflow stale.
    fn on_rto(&mut self, cx: &mut Cx<'_>, i: usize, consecutive: u32) {
        if consecutive >= OPTIONS_DROPPED_RTOS && self.options_may_be_dropped(i) {
            return self.fall_back_mute(cx, i, Counter::MPCapableDataFallback);
        }
        if consecutive >= MUTE_RTOS && self.fallback.is_some() && self.is_linear(i) {
            self.mute = true;
            self.infinite_map_due = false;
        }
        self.reinject_outstanding(i);
        let another_works = self
            .subflows
            .iter()
            .enumerate()
            .any(|(n, s)| n != i && s.is_usable() && !s.impaired());
        let s = &mut self.subflows[i];
        s.tcp
            .limit_backoff(cx.now, another_works.then_some(PROBE_INTERVAL_MAX));
        if consecutive >= STALE_RTOS && !s.stale {
            s.stale = true;
            cx.counters.inc(Counter::SubflowStale);
            cx.actions.events.push(Event::SubflowStale {
                token: self.id,
                subflow: s.id,
                stale: true,
            });
        }
    }

    /// Queues what subflow `i` has outstanding for other subflows, if there are any.
    pub(crate) fn reinject_outstanding(&mut self, i: usize) {
        let others = self
            .subflows
            .iter()
            .enumerate()
            .any(|(n, s)| n != i && s.is_usable());
        if !others || self.mode == Mode::Tcp {
            return;
        }
        let una = self.send.una();
        let id = self.subflows[i].id;
        for sent in &self.subflows[i].sent {
            let end = sent.off + u64::from(sent.len);
            if end > una {
                self.reinject.add(sent.off.max(una)..end, Some(id));
            }
        }
    }

    /// A port lost or regained its carrier.
    pub(crate) fn on_port(&mut self, cx: &mut Cx<'_>, port: PortId, down: bool) {
        for i in 0..self.subflows.len() {
            if self.subflows[i].path.port != port || self.subflows[i].port_down == down {
                continue;
            }
            self.subflows[i].port_down = down;
            let event = Event::SubflowStale {
                token: self.id,
                subflow: self.subflows[i].id,
                stale: down,
            };
            cx.actions.events.push(event);
            if down {
                cx.counters.inc(Counter::SubflowStale);
                if self.mode == Mode::Tcp {
                    // There is no other way: what has not left waits for the port.
                    continue;
                }
                self.reinject_outstanding(i);
                // What has not left under its mapping yet is free to go elsewhere; a burst
                // that has begun is sent elsewhere, and finished here when the port is back.
                let id = self.subflows[i].id;
                if let Some(range) = self.subflows[i].recall_burst(&mut self.send) {
                    self.reinject.add(range, None);
                } else if let Some(burst) = self.subflows[i].burst {
                    self.reinject.add(burst.next..burst.end, Some(id));
                }
            } else {
                cx.counters.inc(Counter::SubflowRecover);
                // The peer may have been waiting for long: tell it we are back.
                self.subflows[i].tcp.ack_now();
            }
        }
    }

    /// How long to wait for a DATA_ACK: longer than any subflow waits by itself.
    fn data_rto_interval(&self) -> Duration {
        let slowest = self
            .subflows
            .iter()
            .filter(|s| s.is_usable() && !s.impaired())
            .map(|s| s.tcp.rto())
            .max()
            .unwrap_or(DATA_RTO_INITIAL);
        (slowest * 2)
            .saturating_mul(1 << self.data_rto_backoff.min(16))
            .min(DATA_RTO_MAX)
    }

    /// Starts the connection-level timer if something is unacknowledged or blocked.
    pub(crate) fn arm_data_rto(&mut self, now: Instant) {
        let waiting = self.mode == Mode::Mptcp
            && !self.is_over()
            && !self.is_aborting()
            && self.is_established()
            && (self.send.unacked() > 0 || self.closing.fin_unacked() || self.blocked);
        if !waiting {
            self.data_rto = None;
        } else if self.data_rto.is_none() {
            self.data_rto = Some(now + self.data_rto_interval());
        }
    }

    fn data_timer(&mut self, cx: &mut Cx<'_>) {
        if self.data_rto.is_none_or(|at| at > cx.now) || self.is_over() {
            return;
        }
        self.data_rto = None;
        self.data_rto_backoff += 1;
        if self.send.unacked() == 0 {
            if self.closing.fin_unacked() && self.is_unconfirmed_client() {
                // Closed without a byte, and the server never spoke MPTCP: it has lost our
                // keys and waits for a FIN.
                self.fall_back(cx, 0, Counter::MPCapableDataFallback);
            } else if self.closing.fin_unacked() && self.is_unheard(cx, UNCONFIRMED_FINS_MAX) {
                return;
            } else if self.closing.fin_unacked() {
                // Another subflow each time.
                let turn = usize::try_from(self.data_rto_backoff).unwrap_or(0);
                if let Some(i) = self.nth_signal_subflow(turn) {
                    self.subflows[i].data_fin_due = true;
                    self.subflows[i].tcp.ack_now();
                }
            } else if self.blocked {
                self.probe_window(cx);
            }
        } else {
            self.recover = self.sent_max;
            let head = self.send.una();
            if self.send.outstanding(head) {
                // A subflow is still trying: help it by another one.
                let holder = self
                    .subflows
                    .iter()
                    .find(|s| s.holds(head).is_some())
                    .map(|s| s.id);
                if let Some(end) = self.send.chunk(head).map(|c| c.end())
                    && self.subflows.len() > 1
                {
                    self.reinject.add(head..end, holder);
                }
            } else if head < self.sent_max && self.is_unheard(cx, UNHEARD_MAX) {
                return;
            } else if head < self.sent_max && self.sole_carrier().is_some() {
                self.probe_window(cx);
            } else {
                if let Some(i) = self.repairer.take().and_then(|id| self.index_of(id)) {
                    self.subflows[i].swallows = true;
                }
                if self.refill == Refill::Many {
                    self.refill = Refill::One;
                }
                self.refill_hole();
                if self.snd_edge <= head {
                    self.probe_window(cx);
                }
            }
        }
        self.arm_data_rto(cx.now);
    }

    /// One more timeout without a DATA_ACK for what TCP has delivered, or for a DATA_FIN. True
    /// if that was enough: the only subflow falls back after `timeouts_max`. Among several a
    /// box on each may keep every DATA_ACK away; that ends like a path that keeps every ACK
    /// away, after the user timeout (RFC 9293 §3.8.3).
    fn is_unheard(&mut self, cx: &mut Cx<'_>, timeouts_max: u32) -> bool {
        let works = |s: &Subflow| s.is_usable() && !s.port_down && !s.tcp.is_stalled();
        if !self.subflows.iter().any(works) {
            return false;
        }
        let (since, timeouts) = self.unheard.unwrap_or((cx.now, 0));
        self.unheard = Some((since, timeouts + 1));
        if timeouts >= timeouts_max
            && let Some(i) = self.sole_carrier()
        {
            self.acknowledged_in_vain(cx, i);
        } else if cx.now >= since + cx.config.tcp.user_timeout && timeouts >= timeouts_max {
            cx.counters.inc(Counter::DataAckTimeout);
            self.finish(CloseReason::Timeout);
        }
        self.mode == Mode::Tcp || self.is_over() || self.subflows.is_empty()
    }

    fn is_unconfirmed_client(&self) -> bool {
        !self.server
            && !self.fully_established
            && !self.subflows.is_empty()
            && self.data_rto_backoff > UNCONFIRMED_FINS_MAX
    }

    /// Data was acknowledged at subflow level but not at connection level, and nothing has
    /// it outstanding: the peer dropped it above TCP. It is sent again.
    pub(crate) fn refill_hole(&mut self) {
        let head = self.send.una();
        if self.mode == Mode::Tcp || head >= self.recover.min(self.sent_max) {
            self.refill = Refill::Unknown;
            return;
        }
        if self.sole_carrier().is_some() {
            return;
        }
        // A box that merges segments, or strips every second one, may spoil the same bytes
        // each time when as many are sent each time. Where many did not help and one did, one
        // follows the other.
        let one = self.data_rto_backoff % 2 == 1
            || (self.data_rto_backoff == 0 && self.refill == Refill::One);
        let most = if one { 1 } else { RESEND_BYTES };
        if !one && self.refill == Refill::Unknown {
            self.refill = Refill::Many;
        }
        let mut end = head;
        while end < self.sent_max && end < head + most && !self.send.outstanding(end) {
            match self.send.chunk(end) {
                Some(chunk) => end = chunk.end(),
                None => break,
            }
        }
        // What a port has not taken yet belongs to its burst.
        for s in &self.subflows {
            if let Some(burst) = s.burst
                && burst.next < end
                && head < burst.end
            {
                end = burst.next.max(head);
            }
        }
        if end > head {
            self.reinject.add(head..end, None);
        }
    }

    /// Asks for the window: a segment that must be answered.
    fn probe_window(&mut self, cx: &mut Cx<'_>) {
        let turn = usize::try_from(self.data_rto_backoff).unwrap_or(0);
        if let Some(i) = self.nth_signal_subflow(turn.saturating_sub(1)) {
            cx.counters.inc(Counter::WinProbe);
            self.subflows[i].probe_due = true;
        }
    }

    /// A subflow that makes no progress must not pin the send buffer for ever.
    fn reset_pinning_subflow(&mut self, cx: &mut Cx<'_>) {
        let limit = u64::from(cx.config.send_buffer_bytes) / PINNED_SHARE;
        if self.send.pinned_bytes() <= limit || self.subflows.len() < 2 {
            return;
        }
        let una = self.send.una();
        let worst = (0..self.subflows.len())
            .filter(|i| self.subflows[*i].impaired() && self.subflows[*i].death.is_none())
            .max_by_key(|i| self.subflows[*i].pins_below(una));
        if let Some(i) = worst {
            self.kill(
                i,
                Some(reset_reason::BAD_PERFORMANCE),
                "unacceptable performance",
            );
        }
    }

    fn close_timer(&mut self, cx: &mut Cx<'_>) {
        if self.is_over() {
            return;
        }
        if self.closing.deadline.is_some_and(|at| at <= cx.now) {
            return self.close_deadline_passed(cx);
        }
        let gone = self
            .subflowless_since
            .is_some_and(|at| at + cx.config.subflowless_timeout <= cx.now);
        if gone {
            cx.counters.inc(Counter::SubflowlessTimeout);
            self.finish(CloseReason::Subflowless);
        }
    }

    /// The earliest of all deadlines.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut first = earlier(
            earlier(self.addresses_deadline(), self.data_rto),
            self.close_deadline(self.subflowless_timeout),
        );
        first = earlier(first, self.spare_at.filter(|_| !self.is_over()));
        for s in self.subflows.iter().filter(|s| s.death.is_none()) {
            let tcp = if s.port_down {
                s.tcp.next_timer()
            } else {
                s.tcp.next_deadline()
            };
            let signal = s
                .signal_due()
                .filter(|_| s.is_established() && !s.port_down);
            let withdrawn = s
                .withdrawn
                .as_ref()
                .map(|w| w.probe_at.unwrap_or(w.decided_at));
            first = earlier(first, earlier(tcp, signal));
            first = earlier(first, earlier(withdrawn, s.join_ack.map(|(at, _)| at)));
            first = earlier(first, earlier(s.fin_wait, s.unmapped.map(|(_, at)| at)));
            first = earlier(first, s.fail.as_ref().and_then(|f| f.due_at()));
        }
        first
    }

    fn addresses_deadline(&self) -> Option<Instant> {
        if self.fully_established && self.is_mptcp() && !self.is_over() {
            self.addresses.next_deadline()
        } else {
            None
        }
    }
}
