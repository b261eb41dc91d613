//! How a connection ends: DATA_FIN both ways, MP_FASTCLOSE, or by running out of subflows.

use core::time::Duration;

use super::api::{CloseReason, Cx, SubflowId};
use super::reassembly::Reassembly;
use super::state::{Core, Mode};
use super::subflow::{Phase, Subflow};
use crate::counters::Counter;
use crate::time::{Instant, earlier};
use crate::wire::mptcp::{MptcpOption, reset_reason};

/// MP_FASTCLOSE on an ACK is sent at most this often (RFC 8684 §3.5 recommends 3
/// retransmissions), then on a RST.
const FASTCLOSE_SENT_MAX: u8 = 4;
/// Timeouts in a row after which a closing subflow's path is dead. A path that only lets
/// smaller packets through is found by then: two smaller sizes have been tried.
const CLOSING_RTOS: u32 = 5;

/// Send-side end of stream, and aborts in progress.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    /// Offset of our DATA_FIN: the end of the stream.
    fin: Option<u64>,
    fin_acked: bool,
    /// Subflows have been told to close.
    subflows_closed: bool,
    /// One of them has: the peer has our last DATA_ACK.
    one_closed: bool,
    /// A local close is to become an abort then.
    pub(crate) deadline: Option<Instant>,
    /// The connection closes whatever the application says.
    pub(crate) forced: bool,
    /// Unread bytes when the deadline last passed.
    unread: Option<usize>,
    /// MP_FASTCLOSE in progress: on which subflow, next repetition, how many were sent.
    pub(crate) fastclose: Option<(SubflowId, Instant, u8)>,
}

impl Closing {
    /// Offset of our DATA_FIN, once the application has finished.
    pub(crate) fn fin(&self) -> Option<u64> {
        self.fin
    }

    /// Our DATA_FIN was sent or is due, and is not acknowledged.
    pub(crate) fn fin_unacked(&self) -> bool {
        self.fin.is_some() && !self.fin_acked
    }

    /// The stream ends at `at`; the DATA_FIN goes out with the data before it.
    pub(crate) fn set_fin(&mut self, at: u64) {
        self.fin.get_or_insert(at);
    }

    /// Nothing more comes from the application.
    pub(crate) fn sending_ended(&self) -> bool {
        self.fin.is_some() || self.forced
    }

    /// Both directions are finished and acknowledged: subflows close, none is opened.
    pub(crate) fn closes_subflows(&self, rx: &Reassembly) -> bool {
        self.fin_acked && rx.finished()
    }

    pub(crate) fn is_finished(&self, rx: &Reassembly) -> bool {
        self.closes_subflows(rx)
    }

    /// A subflow was closed in order, both ways.
    pub(crate) fn subflow_closed(&mut self) {
        self.one_closed |= self.subflows_closed;
    }

    /// A DATA_ACK, as a stream offset. The DATA_FIN takes one number.
    pub(crate) fn acknowledge(&mut self, ack: u64) {
        self.fin_acked |= self.fin.is_some_and(|fin| ack > fin);
    }

    /// The peer's stack acknowledged our FIN on plain TCP.
    pub(crate) fn fin_is_acked(&mut self) {
        self.fin_acked |= self.fin.is_some();
    }

    /// RFC 8684 Appendix D.
    pub(crate) fn state_name(&self, rx: &Reassembly) -> &'static str {
        match (self.fin.is_some(), self.fin_acked, rx.finished()) {
            (false, _, false) => "M_ESTABLISHED",
            (false, _, true) => "M_CLOSE_WAIT",
            (true, false, false) => "M_FIN_WAIT_1",
            (true, true, false) => "M_FIN_WAIT_2",
            (true, false, true) => "M_CLOSING",
            (true, true, true) => "M_TIME_WAIT",
        }
    }
}

impl Core {
    /// The application has finished: the stream ends where it is.
    pub(crate) fn end_sending(&mut self) {
        // A stream that is given up does not end: a DATA_FIN would make it look complete to a
        // peer that never hears MP_FASTCLOSE.
        if self.is_aborting() || self.fast_open.has_leftover() {
            return;
        }
        if self.closing.fin.is_none() && !self.is_over() {
            self.closing.fin = Some(self.send.nxt());
            if self.is_mptcp() {
                self.request_data_fin();
            }
        }
    }

    /// Sends a DATA_FIN without data on the best subflow.
    pub(crate) fn request_data_fin(&mut self) {
        if let Some(i) = self.best_signal_subflow() {
            self.subflows[i].data_fin_due = true;
        }
    }

    /// Closes in order, with a time limit.
    pub(crate) fn close(&mut self, cx: &mut Cx<'_>) {
        if self.is_over() {
            return;
        }
        if !self.is_established() {
            return self.finish(CloseReason::LocalAbort);
        }
        self.closing.forced = true;
        self.closing
            .deadline
            .get_or_insert(cx.now + cx.config.close_timeout);
        self.end_sending();
    }

    /// Gives up: MP_FASTCLOSE on one subflow, RST on the others (RFC 8684 §3.5).
    pub(crate) fn abort(&mut self, cx: &mut Cx<'_>) {
        if self.is_over() || self.closing.fastclose.is_some() {
            return;
        }
        let best = self.best_signal_subflow();
        let (Some(best), true, true) = (best, self.is_mptcp(), self.fully_established) else {
            return self.finish(CloseReason::LocalAbort);
        };
        let id = self.subflows[best].id;
        for i in 0..self.subflows.len() {
            if i != best {
                self.kill(i, None, "connection aborted");
            }
        }
        self.reinject.clear();
        self.closing.forced = true;
        self.closing.fastclose = Some((id, cx.now, 0));
        self.repeat_fastclose(cx);
    }

    fn fastclose_option(&self) -> Option<MptcpOption> {
        Some(MptcpOption::FastClose {
            receiver_key: self.remote?.key,
        })
    }

    /// Sends MP_FASTCLOSE once more, in the end by RST.
    pub(crate) fn repeat_fastclose(&mut self, cx: &mut Cx<'_>) {
        let Some((id, due, sent)) = self.closing.fastclose else {
            return;
        };
        if due > cx.now {
            return;
        }
        let Some(i) = self.index_of(id) else {
            return self.finish(CloseReason::LocalAbort);
        };
        cx.counters.inc(Counter::MPFastcloseTx);
        if sent >= FASTCLOSE_SENT_MAX {
            self.subflows[i].reset_fastclose = true;
            return self.finish(CloseReason::LocalAbort);
        }
        if let Some(option) = self.fastclose_option() {
            self.subflows[i].signal(option);
        }
        let wait = self.subflows[i].tcp.rto();
        self.closing.fastclose = Some((id, cx.now + wait * (1 << sent.min(4)), sent + 1));
    }

    /// Closes one subflow, in order or by RST.
    pub(crate) fn close_subflow(&mut self, id: SubflowId, reason: Option<u8>) {
        let Some(i) = self.index_of(id) else {
            return;
        };
        if reason.is_some() || self.subflows[i].phase != Phase::Established {
            self.kill(i, reason, "closed locally");
        } else {
            self.subflows[i].close();
        }
    }

    /// The peer aborted.
    pub(crate) fn on_fastclose(&mut self, cx: &mut Cx<'_>) {
        cx.counters.inc(Counter::MPFastcloseRx);
        self.finish(CloseReason::PeerAbort);
    }

    /// MP_FASTCLOSE has been sent: data does not matter any more.
    pub(crate) fn is_aborting(&self) -> bool {
        self.closing.fastclose.is_some()
    }

    /// Moves the closing along after packets, timers and sends.
    pub(crate) fn advance_close(&mut self, cx: &mut Cx<'_>) {
        if self.is_over() || !self.is_established() {
            return;
        }
        if self.reassembly.finished() && !self.rx.has_eof() {
            self.rx.set_eof();
            self.rx_news = true;
        }
        self.finish_when_read();
        match self.mode {
            Mode::Tcp => self.advance_close_tcp(),
            Mode::Mptcp => {
                if !self.closing.closes_subflows(&self.reassembly) {
                    return;
                }
                if !std::mem::replace(&mut self.closing.subflows_closed, true) {
                    let limit = cx.now + cx.config.close_timeout;
                    let deadline = self.closing.deadline.get_or_insert(limit);
                    *deadline = (*deadline).min(limit);
                    for s in &mut self.subflows {
                        s.close();
                    }
                }
                self.reset_dead_paths(cx);
                self.finish_when_read();
            }
        }
    }

    /// Everything has arrived, and subflows close. One whose path is dead is not waited for
    /// until TCP gives it up (RFC 8684 §3.3.3 allows a RST where data is outstanding, and
    /// shorter timeouts for the rest), except for the last: its FIN has our last DATA_ACK.
    fn reset_dead_paths(&mut self, cx: &mut Cx<'_>) {
        let works = |s: &Subflow| s.is_established() && s.death.is_none() && !s.impaired();
        if !self.closing.one_closed && !self.subflows.iter().any(works) {
            return;
        }
        for i in 0..self.subflows.len() {
            let s = &self.subflows[i];
            if s.tcp.consecutive_rtos() < CLOSING_RTOS || s.death.is_some() {
                continue;
            }
            let (reason, error) = if s.sent.is_empty() {
                (reset_reason::BAD_PERFORMANCE, "not closed by peer")
            } else {
                (reset_reason::TOO_MUCH_DATA, "too much outstanding data")
            };
            cx.counters.inc(Counter::SubflowCloseReset);
            self.kill(i, Some(reason), error);
        }
    }

    /// Both directions are closed and no subflow is left: over, once the application has read
    /// everything.
    pub(crate) fn finish_when_read(&mut self) {
        let closed = self.subflows.is_empty() && self.closing.is_finished(&self.reassembly);
        if closed && self.rx.is_empty() {
            self.finish(CloseReason::Finished);
        }
    }

    /// The time for an orderly close is over. An application that still reads what it was
    /// sent gets as much again.
    pub(crate) fn close_deadline_passed(&mut self, cx: &Cx<'_>) {
        let closed = self.closing.closes_subflows(&self.reassembly);
        let unread = self.rx.len();
        if closed && self.subflows.is_empty() && self.closing.unread.is_none_or(|u| unread < u) {
            self.closing.unread = Some(unread);
            self.closing.deadline = Some(cx.now + cx.config.close_timeout);
            return;
        }
        self.finish(if closed {
            CloseReason::Finished
        } else {
            CloseReason::CloseTimeout
        });
    }

    /// Plain TCP: FIN once everything was sent.
    fn advance_close_tcp(&mut self) {
        let all_sent = self.reinject.is_empty() && self.sent_max >= self.send.nxt();
        if self.closing.fin.is_none() || !all_sent {
            return;
        }
        if let Some(s) = self.subflows.first_mut()
            && s.burst.is_none()
        {
            s.close();
        }
    }

    /// When closing needs attention next.
    pub(crate) fn close_deadline(&self, subflowless_timeout: Duration) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let subflowless = self.subflowless_since.map(|at| at + subflowless_timeout);
        let fastclose = self.closing.fastclose.map(|(_, at, _)| at);
        earlier(self.closing.deadline, earlier(subflowless, fastclose))
    }
}
