//! Deadlines, and what happens when they pass.

use core::time::Duration;

use super::Tcp;
use super::recovery::Phase;
use super::segment::{ResetCause, TimerVerdict};
use super::state::State;
use crate::counters::{Counter, Counters};
use crate::time::{Instant, earlier};

/// TLP.max_ack_delay (RFC 8985 §7.2): the delayed ACK of the peer, Linux's maximum.
const PEER_ACK_DELAY_MAX: Duration = Duration::from_millis(200);
/// PTO before the first round trip is known (RFC 8985 §7.2).
const PTO_INITIAL: Duration = Duration::from_secs(1);
/// Jitter that a short PTO must allow for: timers and batches of both ends.
const PTO_SLACK: Duration = Duration::from_millis(2);

/// What the retransmission timer will do.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Retransmit {
    /// Time out.
    Timeout,
    /// Probe the tail.
    Probe,
}

/// All deadlines of a connection.
#[derive(Clone, Debug)]
pub(super) struct Timers {
    pub(super) retransmit: Option<(Instant, Retransmit)>,
    /// When the timeout began to run: the probe timer must not outlast it.
    pub(super) rto_started: Instant,
    /// RACK's reordering window (RFC 8985 §6.2 step 5).
    pub(super) reorder: Option<Instant>,
    /// Zero-window probe, and how often it backed off.
    pub(super) persist: Option<Instant>,
    pub(super) persist_backoff: u32,
    /// Since when the peer's window has kept back what waits.
    pub(super) blocked_at: Instant,
    /// New data may leave again.
    pub(super) pacing: Option<Instant>,
    pub(super) time_wait: Option<Instant>,
    /// Keepalive probes since the peer was last heard.
    pub(super) keepalive_sent: u8,
    pub(super) keepalive_at: Option<Instant>,
    /// SYN or SYN/ACK transmissions beyond the first.
    pub(super) handshake_attempt: u8,
    pub(super) handshake_sent_at: Instant,
    /// SND.UNA moved, or data became outstanding.
    pub(super) progress_at: Instant,
    /// The last acceptable segment.
    pub(super) heard_at: Instant,
    /// The last transmission of data.
    pub(super) sent_at: Instant,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            retransmit: None,
            rto_started: now,
            reorder: None,
            persist: None,
            persist_backoff: 0,
            blocked_at: now,
            pacing: None,
            time_wait: None,
            keepalive_sent: 0,
            keepalive_at: None,
            handshake_attempt: 0,
            handshake_sent_at: now,
            progress_at: now,
            heard_at: now,
            sent_at: now,
        }
    }

    pub(super) fn stop_all(&mut self) {
        self.retransmit = None;
        self.reorder = None;
        self.persist = None;
        self.pacing = None;
        self.time_wait = None;
        self.keepalive_at = None;
    }

    /// RFC 6298 §2.1: the first timeout of a handshake is 1 s.
    pub(super) fn start_handshake(&mut self, now: Instant) {
        self.retransmit = Some((now + Duration::from_secs(1), Retransmit::Timeout));
    }
}

impl Tcp {
    /// The earliest deadline: call [`Self::on_timer`] then. A time that has passed means that
    /// something wants to be polled.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.state == State::Closed {
            // The scoreboard may still hold ranges, for reinjection elsewhere.
            return self.wanted.rst.is_some().then_some(Instant::ZERO);
        }
        if self.wanted.rst.is_some() {
            return Some(Instant::ZERO);
        }
        let timers = &self.timers;
        let now =
            (self.wanted.syn || self.wanted.probe || self.is_fin_due()).then_some(Instant::ZERO);
        let ack = if self.state.is_synchronized() {
            self.delayed_ack.deadline()
        } else {
            None
        };
        earlier(earlier(self.next_timer(), ack), earlier(now, timers.pacing))
    }

    /// The earliest deadline that is not a wish to send: all that counts while nothing can
    /// leave.
    #[must_use]
    pub fn next_timer(&self) -> Option<Instant> {
        if self.state == State::Closed {
            return None;
        }
        let timers = &self.timers;
        let user_timeout =
            (!self.board.is_empty()).then(|| self.patience_started() + self.config.user_timeout());
        let data = earlier(timers.retransmit.map(|(at, _)| at), timers.reorder);
        let silence = earlier(timers.persist, timers.time_wait);
        let peer = earlier(timers.keepalive_at, user_timeout);
        earlier(data, earlier(silence, peer))
    }

    /// Runs what is due.
    pub fn on_timer(&mut self, now: Instant, c: &mut Counters) -> TimerVerdict {
        let mut verdict = TimerVerdict::default();
        self.flush_counters(c);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);

        if due(self.timers.time_wait) {
            self.enter_closed();
            verdict.closed = true;
            return verdict;
        }
        if due(self.timers.pacing) {
            self.timers.pacing = self.pacer.next_release(now);
        }
        if let Some((at, kind)) = self.timers.retransmit
            && at <= now
        {
            match (self.state, kind) {
                (State::SynSent | State::SynReceived, _) => {
                    self.on_handshake_timeout(now, c, &mut verdict);
                }
                (_, Retransmit::Probe) => self.on_probe_timeout(now, c),
                (_, Retransmit::Timeout) => self.on_timeout(now, c, &mut verdict),
            }
        }
        if due(self.timers.reorder) {
            self.timers.reorder = None;
            if self.detect_losses(now, c) > 0 {
                self.limit_to_proportion();
            }
            self.arm_retransmit(now);
        }
        if due(self.timers.persist) {
            self.on_persist(now, c, &mut verdict);
        }
        if due(self.timers.keepalive_at) {
            self.on_keepalive(now, c, &mut verdict);
        }
        if !self.board.is_empty()
            && self.patience_started() + self.config.user_timeout() <= now
            && self.state != State::Closed
        {
            self.give_up(c, &mut verdict);
        }
        verdict.consecutive_rtos = self.recovery.consecutive_rtos;
        verdict
    }

    /// When the user timeout began to run: a peer that keeps its window closed but answers is
    /// alive (RFC 9293 §3.8.6.1).
    fn patience_started(&self) -> Instant {
        if self.snd_wnd == 0 {
            self.timers.heard_at.max(self.timers.progress_at)
        } else {
            self.timers.progress_at
        }
    }

    fn give_up(&mut self, c: &mut Counters, verdict: &mut TimerVerdict) {
        c.inc(Counter::TCPAbortOnTimeout);
        self.reset(ResetCause::TimedOut);
        verdict.timed_out = true;
        verdict.closed = true;
    }

    fn on_handshake_timeout(&mut self, now: Instant, c: &mut Counters, verdict: &mut TimerVerdict) {
        let retries = if self.state == State::SynSent {
            self.config.syn_retries
        } else {
            self.config.synack_retries
        };
        if self.timers.handshake_attempt >= retries {
            c.inc(Counter::AttemptFails);
            c.inc(Counter::TCPAbortOnTimeout);
            self.enter_closed();
            verdict.timed_out = true;
            verdict.closed = true;
            return;
        }
        self.timers.handshake_attempt += 1;
        self.wanted.syn = true;
        verdict.rto_fired = true;
        self.recovery.consecutive_rtos += 1;
        let backed_off = Duration::from_secs(1) * (1 << self.timers.handshake_attempt.min(16));
        self.timers.retransmit = Some((
            now + backed_off.min(self.rtt.rto_max()),
            Retransmit::Timeout,
        ));
    }

    /// Retransmission timeouts back off no further than to `limit`; `None` lifts that. For a
    /// subflow whose traffic another one carries: its retransmissions are only probes then, few
    /// and small, and the usual back-off would find the path again as long after an outage as
    /// the outage lasted.
    pub fn limit_backoff(&mut self, now: Instant, limit: Option<Duration>) {
        self.rtt.limit_backoff(limit);
        if let Some((at, Retransmit::Timeout)) = &mut self.timers.retransmit
            && self.state.is_synchronized()
        {
            let rto = self.rtt.rto();
            *at = (*at).min(now + rto);
            // What arms it again counts from there: the old start and the new, shorter timeout
            // would be over already.
            self.timers.rto_started = self.timers.rto_started.max(at.saturating_sub(rto));
        }
    }

    fn on_probe_timeout(&mut self, now: Instant, c: &mut Counters) {
        c.inc(Counter::TCPLossProbes);
        self.events().tail_probes += 1;
        self.recovery.probe_wanted = true;
        // RFC 8985 §7.3: after a probe the timeout runs, from now.
        self.timers.rto_started = now;
        self.timers.retransmit = Some((now + self.rtt.rto(), Retransmit::Timeout));
    }

    /// RFC 6298 §5.4 to 5.6, RFC 5681 §3.1, RFC 8985 §6.3.
    fn on_timeout(&mut self, now: Instant, c: &mut Counters, verdict: &mut TimerVerdict) {
        self.timers.retransmit = None;
        if self.board.is_empty() {
            return;
        }
        self.timers.rto_started = now;
        if !self.recovery.timeout_answered && self.board.lost_segments() > 0 {
            // What the last timeout asked for did not leave (no room, no carrier): that says
            // nothing about the path, so no back-off.
            self.timers.retransmit = Some((now + self.rtt.rto(), Retransmit::Timeout));
            return;
        }
        c.inc(Counter::TCPTimeouts);
        self.events().timeouts += 1;
        verdict.rto_fired = true;
        if self.board.front_is_sacked() {
            self.board.forget_sacks();
        }
        let flight = self.board.in_flight();
        let first = self.recovery.consecutive_rtos == 0;
        self.recovery.consecutive_rtos += 1;
        let recovering = self.recovery.is_recovering();
        self.rack
            .mark_on_timeout(now, &mut self.board, recovering, &self.rtt);
        self.congestion.on_timeout(flight, first);
        self.recovery.undoable = true;
        self.ecn.reduced();
        self.recovery.phase = Phase::Loss;
        self.recovery.until = self.snd_nxt;
        self.recovery.duplicates = 0;
        self.recovery.probe_wanted = false;
        self.recovery.probe_end = None;
        self.recovery.force_one = true;
        self.recovery.timeout_answered = false;
        self.timers.reorder = None;
        self.rtt.back_off();

        let front_len = self.board.front().map_or(0, |seg| seg.len);
        let wire_len = front_len + u32::from(self.option_room);
        if self
            .path_mtu
            .on_timeout(now, self.recovery.consecutive_rtos, wire_len)
        {
            c.inc(Counter::TCPMTUPFail);
            self.apply_segment_size(true);
            // The window was set for the size before.
            self.congestion.window.cwnd = self.mss();
        }
        self.timers.retransmit = Some((now + self.rtt.rto(), Retransmit::Timeout));
    }

    /// (Re)arms the retransmission timer after an ACK or a transmission (RFC 6298 §5,
    /// RFC 8985 §7.2). The timeout itself counts from `rto_started`.
    pub(super) fn arm_retransmit(&mut self, now: Instant) {
        if self.state == State::SynReceived {
            // The SYN/ACK's timer runs; early answers wait for it.
            return;
        }
        if self.board.is_empty() {
            self.timers.retransmit = None;
            return;
        }
        let timeout = (self.timers.rto_started + self.rtt.rto()).max(now);
        let probe = self.sack
            && !self.recovery.is_recovering()
            && self.recovery.consecutive_rtos == 0
            && self.recovery.probe_end.is_none()
            && !self.recovery.probe_wanted
            && self.board.sacked_segments() == 0
            && self.board.lost_segments() == 0
            && self.board.flight_segments() > 0;
        self.timers.retransmit = Some(if probe {
            let pto = match self.rtt.srtt() {
                Some(srtt) if self.board.flight_segments() == 1 => srtt * 2 + PEER_ACK_DELAY_MAX,
                Some(srtt) => srtt * 2 + PTO_SLACK,
                None => PTO_INITIAL,
            };
            let at = now + pto;
            if at < timeout {
                (at, Retransmit::Probe)
            } else {
                // RFC 8985 §7.2: the probe goes in the timeout's place.
                (timeout, Retransmit::Probe)
            }
        } else {
            (timeout, Retransmit::Timeout)
        });
    }

    // ---- window probes (RFC 9293 §3.8.6.1) ----

    /// Starts or stops the persist timer: the peer's window is closed and nothing is out that
    /// would bring news.
    pub(super) fn update_persist(&mut self, now: Instant) {
        let wants_to_send = (self.state.may_send() && self.data_waiting)
            || (self.fin_wanted && self.fin_seq.is_none());
        let blocked = wants_to_send
            && self.state.is_synchronized()
            && self.board.is_empty()
            && !self.window_admits_anything();
        if !blocked {
            self.timers.persist = None;
            self.timers.persist_backoff = 0;
        } else if self.timers.persist.is_none() {
            self.timers.blocked_at = now;
            self.timers.persist = Some(now + self.persist_interval());
        }
    }

    fn persist_interval(&self) -> Duration {
        // RFC 9293 §3.8.6.1: the first after an RTO, then exponentially.
        self.rtt
            .rto_base()
            .saturating_mul(1 << self.timers.persist_backoff.min(16))
            .min(self.rtt.rto_max())
    }

    fn on_persist(&mut self, now: Instant, c: &mut Counters, verdict: &mut TimerVerdict) {
        self.timers.persist = None;
        let patience =
            self.timers.blocked_at.max(self.timers.heard_at) + self.config.user_timeout();
        if self.timers.persist_backoff > 0 && patience <= now && self.state != State::Closed {
            // RFC 9293 §3.8.6.1 keeps the connection while the peer answers probes, not longer.
            self.give_up(c, verdict);
            return;
        }
        if self.peer_room() > 0 {
            // RFC 9293 §3.8.6.2.1: the override timeout of silly window avoidance.
            self.silly_override = true;
            return;
        }
        if self.data_waiting || self.fin_wanted {
            self.timers.persist_backoff += 1;
            self.wanted.probe = !self.fin_is_probe();
            self.events().pending.probes += 1;
            self.timers.persist = Some(now + self.persist_interval());
        }
    }

    /// A window that stays closed is not probed without data but by the FIN, if that is all
    /// there is (RFC 9293 §3.8.6.1 probes with new data). Receivers accept it, for it takes no
    /// room; and where a box closes windows on the way, it need not wait for one.
    pub(super) fn fin_is_probe(&self) -> bool {
        let data = self.state.may_send() && self.data_waiting;
        self.fin_wanted && !data && self.timers.persist_backoff > 1
    }

    // ---- keepalive (RFC 9293 §3.8.4) ----

    /// The peer was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        self.timers.heard_at = now;
        self.timers.keepalive_sent = 0;
        if let Some(idle) = self.config.keepalive()
            && self.state.is_synchronized()
        {
            self.timers.keepalive_at = Some(now + idle);
        }
    }

    fn on_keepalive(&mut self, now: Instant, c: &mut Counters, verdict: &mut TimerVerdict) {
        self.timers.keepalive_at = None;
        if self.state == State::Closed {
            return;
        }
        if self.timers.keepalive_sent >= self.config.keepalive_probes {
            self.give_up(c, verdict);
            return;
        }
        // Outstanding data is a probe of its own.
        if self.board.is_empty() {
            self.timers.keepalive_sent += 1;
            self.wanted.probe = true;
            self.events().pending.keepalives += 1;
        }
        self.timers.keepalive_at = Some(now + self.config.keepalive_interval());
    }
}
