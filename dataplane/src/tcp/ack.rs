//! What an acceptable ACK does: window, scoreboard, round trip, losses, congestion window.

use super::Tcp;
use super::congestion::AckSample;
use super::prr::Prr;
use super::recovery::Phase;
use super::scoreboard::{Run, TxSeg};
use super::segment::{SegmentIn, Verdict};
use super::state::State;
use crate::counters::{Counter, Counters};
use crate::time::{Duration, Instant};
use crate::wire::tcp::SeqNumber;
use crate::wire::tcp_options::Timestamps;

/// Duplicate ACKs that mean loss without SACK (RFC 5681 §3.2).
const DUP_THRESH: u32 = 3;

/// What one ACK told about delivery.
#[derive(Debug, Default)]
struct Delivery {
    /// Bytes newly acknowledged or SACKed.
    bytes: u32,
    /// Last transmission of the first and last newly delivered segments that were sent once.
    first_sent: Option<Instant>,
    last_sent: Option<Instant>,
    /// A segment that was retransmitted is now cumulatively acknowledged.
    retransmitted: bool,
    /// ... and by its original transmission.
    original_arrived: bool,
    /// The first SACK block was a DSACK.
    dsack: bool,
    /// Segments newly SACKed.
    sacked: u32,
    /// Segments newly acknowledged or SACKed.
    segments: u32,
}

impl Tcp {
    pub(super) fn process_ack(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        c: &mut Counters,
        verdict: &mut Verdict,
    ) {
        let before = self.snd_una;
        let pipe_before = self.pipe();
        let window_changed = self.update_send_window(seg, verdict);
        if seg.ack < before {
            // Old, but its SACK blocks would be old too.
            return;
        }
        let advanced = seg.ack > before;
        let mut delivery = Delivery::default();
        if advanced {
            self.acknowledge(now, seg, &mut delivery, verdict);
        }
        self.take_sack_blocks(now, seg, before, &mut delivery, c);
        self.measure(now, seg, advanced, &delivery);
        self.count_duplicate(seg, advanced, window_changed);

        if advanced {
            self.timers.progress_at = now;
            self.timers.rto_started = now;
            self.timers.persist_backoff = 0;
            self.recovery.consecutive_rtos = 0;
            // Whatever was asked for to provoke this ACK need not leave any more.
            self.recovery.timeout_answered = true;
            self.recovery.force_one = false;
            self.recovery.probe_wanted = false;
            self.rtt.reset_backoff();
            if self.path_mtu.on_progress(now) {
                self.apply_segment_size(false);
            }
        }
        self.end_tail_probe(seg, &delivery);
        if advanced && delivery.original_arrived {
            self.undo_recovery();
        }
        if self.ecn.is_echo(seg.flags) {
            c.add(Counter::TCPDeliveredCE, delivery.segments.into());
            self.on_echo(self.snd_nxt - before, c);
        }
        let lost = self.detect_losses(now, c) + self.reno_losses(advanced, c);
        verdict.lost = self.board.lost_segments() > 0;
        self.advance_recovery(now, advanced, lost, &delivery, pipe_before);

        if !self.on_fin_acked(now, verdict) {
            self.arm_retransmit(now);
            self.update_persist(now);
            self.update_pacing(now);
        }
    }

    /// RFC 9293 §3.10.7.4, fifth: SND.WND from the newest segment only.
    fn update_send_window(&mut self, seg: &SegmentIn<'_>, verdict: &mut Verdict) -> bool {
        let newer = seg.ack > self.snd_una
            || self.snd_wl1 < seg.seq
            || (self.snd_wl1 == seg.seq && self.snd_wl2 <= seg.ack);
        if !newer || seg.ack < self.snd_una {
            return false;
        }
        let window = u32::from(seg.window) << self.snd_shift;
        let changed = window != self.snd_wnd;
        let mss = self.mss();
        // Judged at the right edges, for SND.UNA is about to move.
        let room = |una: SeqNumber, wnd: u32, nxt: SeqNumber| {
            let edge = una + wnd;
            if edge > nxt { edge - nxt } else { 0 }
        };
        let had = room(self.snd_una, self.snd_wnd, self.snd_nxt);
        let has = room(seg.ack, window, self.snd_nxt);
        verdict.window_opened = had < mss && has > had;
        let beyond = |fin: SeqNumber| fin >= self.snd_una + self.snd_wnd;
        if verdict.window_opened && !self.fin_acked && self.fin_seq.is_some_and(beyond) {
            // It was refused for want of a window, and its timeout has backed off.
            self.recovery.probe_wanted = true;
        }
        self.snd_wnd = window;
        self.snd_wnd_max = self.snd_wnd_max.max(window);
        self.snd_wl1 = seg.seq;
        self.snd_wl2 = seg.ack;
        changed
    }

    /// SND.UNA moves.
    fn acknowledge(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        delivery: &mut Delivery,
        verdict: &mut Verdict,
    ) {
        let mut bytes = seg.ack - self.snd_una;
        self.snd_una = seg.ack;
        self.recovery.duplicates = 0;
        let min_rtt = self.rtt.min();
        // Taken out, for what is done with each looks at the rest.
        let mut board = std::mem::take(&mut self.board);
        if let Some(board) = board.written() {
            if let Some(run) = board.pop_run(seg.ack) {
                // What lies between first and last tells RACK nothing that these two do not.
                self.rack.on_delivered(now, &run.first, false, min_rtt);
                self.rack.on_delivered(now, &run.last, false, min_rtt);
                delivery.note_run(&run);
            }
            board.pop_acked(seg.ack, |sent, sacked| {
                if sent.fin {
                    bytes -= 1;
                    self.fin_acked = true;
                    verdict.fin_acked = true;
                }
                let original = self.is_original(seg, sent);
                if sent.retransmitted() && !sacked {
                    delivery.retransmitted = true;
                    delivery.original_arrived |= original;
                }
                if !sacked {
                    self.rack.on_delivered(now, sent, original, min_rtt);
                    delivery.note(sent);
                }
            });
        }
        self.board = board;
        verdict.acked_bytes = bytes;
        self.totals.bytes_acked += u64::from(bytes);
        self.congestion.on_delivered(bytes);
    }

    /// Eifel (RFC 3522): the echoed timestamp is older than the retransmission, so the original
    /// arrived.
    fn is_original(&self, seg: &SegmentIn<'_>, sent: &TxSeg) -> bool {
        match (&self.timestamps, seg.options.timestamps) {
            (Some(_), Some(Timestamps { tsecr, .. })) if sent.retransmitted() => {
                tsecr.wrapping_sub(self.tsval(sent.sent_at)).cast_signed() < 0
            }
            _ => false,
        }
    }

    fn take_sack_blocks(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        una_before: SeqNumber,
        delivery: &mut Delivery,
        c: &mut Counters,
    ) {
        if !self.sack {
            return;
        }
        let blocks = seg.options.sack.as_slice();
        let min_rtt = self.rtt.min();
        for (i, &(left, right)) in blocks.iter().enumerate() {
            if left >= right {
                c.inc(Counter::TCPSACKDiscard);
                continue;
            }
            // RFC 2883 §4.1 and §4.2: below the cumulative ACK, or inside the next block.
            let inside = i == 0
                && blocks
                    .get(1)
                    .is_some_and(|outer| outer.0 <= left && right <= outer.1);
            if i == 0 && (right <= seg.ack || inside) {
                // What was never sent, or is ancient, is not our duplicate.
                let plausible = una_before.diff(left) <= self.snd_wnd_max.max(1).cast_signed()
                    && right <= self.snd_nxt;
                if plausible {
                    delivery.dsack = true;
                    self.events().dsacks += 1;
                    c.inc(Counter::TCPDSACKRecv);
                    self.rack.on_dsack(self.snd_una, self.snd_nxt);
                }
                continue;
            }
            if right > self.snd_nxt {
                c.inc(Counter::TCPSACKDiscard);
                continue;
            }
            if right <= self.snd_una {
                continue;
            }
            let rack = &mut self.rack;
            self.board.sack(left, right, |sent| {
                // No timestamp tells which copy it was: segments out of order are not echoed.
                rack.on_delivered(now, sent, false, min_rtt);
                delivery.note(sent);
                delivery.sacked += 1;
            });
        }
    }

    /// Round-trip samples (RFC 6298 §3, RFC 7323 §4).
    fn measure(&mut self, now: Instant, seg: &SegmentIn<'_>, advanced: bool, delivery: &Delivery) {
        if let Some(sent) = delivery.last_sent {
            self.rtt.sample_min(now, now - sent);
        }
        // Of several newly acknowledged segments the first counts: it includes the peer's delay.
        if advanced && !delivery.retransmitted {
            if let Some(sent) = delivery.first_sent {
                self.rtt.sample(now, now - sent);
            }
        } else if advanced
            // The original's echo after a retransmission measures a lost ACK, not the path.
            && !delivery.original_arrived
            && let (Some(_), Some(ts)) = (&self.timestamps, seg.options.timestamps)
            && ts.tsecr != 0
        {
            // With a retransmission in it only the echo can tell.
            let elapsed_ms = self.tsval(now).wrapping_sub(ts.tsecr);
            if elapsed_ms < 1 << 24 {
                let rtt = Duration::from_millis(u64::from(elapsed_ms.max(1)));
                self.rtt.sample(now, rtt);
            }
        }
    }

    /// RFC 5681 §2: without SACK, a duplicate ACK says that a segment left the network. One that
    /// carries an MPTCP signal says nothing.
    fn count_duplicate(&mut self, seg: &SegmentIn<'_>, advanced: bool, window_changed: bool) {
        let duplicate = !advanced
            && !self.sack
            && seg.sequence_len() == 0
            && !window_changed
            && !seg.mptcp_signal
            && !self.board.is_empty();
        if duplicate {
            // Bounded by what is out: a peer cannot invent departures.
            let out = self.board.flight_segments();
            self.recovery.duplicates = (self.recovery.duplicates + 1).min(out);
        }
    }

    /// RACK; returns how many segments were newly marked.
    pub(super) fn detect_losses(&mut self, now: Instant, c: &mut Counters) -> u32 {
        if !self.sack {
            return 0;
        }
        let recovering = self.recovery.is_recovering();
        let (marked, again) = self
            .rack
            .detect(now, &mut self.board, recovering, &self.rtt);
        self.timers.reorder = again;
        if marked > 0 {
            self.enter_recovery(c);
        }
        marked
    }

    /// Losses found without an ACK shrink the pipe, but nothing was delivered that would pay for
    /// filling it again.
    pub(super) fn limit_to_proportion(&mut self) {
        let (pipe, mss) = (self.pipe(), self.mss());
        if let Phase::Fast(prr) = &mut self.recovery.phase {
            let ssthresh = self.congestion.window.ssthresh;
            self.congestion.window.cwnd = prr.on_ack(0, pipe, ssthresh, mss, false);
        }
    }

    /// NewReno without SACK (RFC 6582 §3.2): the third duplicate, then each partial ACK.
    fn reno_losses(&mut self, advanced: bool, c: &mut Counters) -> u32 {
        if self.sack || self.board.is_empty() {
            return 0;
        }
        let third = !self.recovery.is_recovering() && self.recovery.duplicates >= DUP_THRESH;
        let partial = advanced
            && matches!(self.recovery.phase, Phase::Fast(_))
            && self.snd_una < self.recovery.until
            && self
                .board
                .front()
                .is_some_and(|front| !front.retransmitted());
        if !(third || partial) || !self.board.mark_front_lost() {
            return 0;
        }
        // The lost one is not among those that left.
        self.recovery.duplicates = self.recovery.duplicates.min(self.board.flight_segments());
        self.enter_recovery(c);
        1
    }

    fn enter_recovery(&mut self, c: &mut Counters) {
        if self.recovery.is_recovering() {
            return;
        }
        self.recovery.phase = match std::mem::replace(&mut self.recovery.phase, Phase::Open) {
            // This round's congestion is answered already.
            Phase::Reduced(prr) => {
                self.recovery.undoable = false;
                Phase::Fast(prr)
            }
            _ => {
                self.recovery.undoable = true;
                Phase::Fast(self.reduce(self.snd_nxt - self.snd_una))
            }
        };
        self.recovery.until = self.snd_nxt;
        self.recovery.probe_wanted = false;
        self.recovery.probe_end = None;
        self.events().recoveries += 1;
        c.inc(Counter::TCPSackRecovery);
    }

    /// A congestion event: the threshold falls, PRR takes the window there.
    fn reduce(&mut self, flight: u32) -> Prr {
        self.congestion.on_congestion_event(flight);
        self.ecn.reduced();
        Prr::enter(flight)
    }

    /// The peer echoes a mark: as if a segment had been lost, but nothing is sent again
    /// (RFC 3168 §6.1.2). `flight` was outstanding before this ACK.
    fn on_echo(&mut self, flight: u32, c: &mut Counters) {
        if !self.recovery.is_open() || !self.ecn.is_news(self.snd_una) {
            return;
        }
        self.recovery.phase = Phase::Reduced(self.reduce(flight));
        self.recovery.until = self.snd_nxt;
        self.events().ecn_reductions += 1;
        c.inc(Counter::TCPEcnReduced);
    }

    /// RFC 8985 §7.4: what became of the tail loss probe.
    fn end_tail_probe(&mut self, seg: &SegmentIn<'_>, delivery: &Delivery) {
        let Some(end) = self.recovery.probe_end else {
            return;
        };
        if delivery.dsack && seg.ack >= end {
            // Both copies arrived: nothing was lost.
            self.recovery.probe_end = None;
        } else if seg.ack > end || (seg.ack == end && delivery.retransmitted) {
            self.recovery.probe_end = None;
            // By its original, the probe was needless; else it repaired a loss, to which
            // congestion control must respond.
            if !delivery.original_arrived && self.recovery.is_open() {
                let flight = self.board.in_flight().max(self.mss());
                self.congestion.on_congestion_event(flight);
                self.ecn.reduced();
                let window = &mut self.congestion.window;
                window.cwnd = window.cwnd.min(window.ssthresh);
            }
        }
    }

    /// The retransmission was needless: as if nothing had happened (RFC 4015 in spirit).
    fn undo_recovery(&mut self) {
        if !self.recovery.is_recovering() {
            return;
        }
        if self.recovery.undoable {
            self.congestion.undo();
        }
        self.recovery.phase = Phase::Open;
        self.recovery.force_one = false;
        self.board.unmark_lost();
        self.events().undos += 1;
    }

    /// Moves the congestion window: PRR in recovery, the controller otherwise.
    fn advance_recovery(
        &mut self,
        now: Instant,
        advanced: bool,
        lost: u32,
        delivery: &Delivery,
        pipe_before: u32,
    ) {
        let pipe = self.pipe();
        let mss = self.mss();
        let over = self.snd_una >= self.recovery.until;
        let delivered = if self.sack {
            delivery.bytes
        } else {
            delivery.bytes.max(pipe_before.saturating_sub(pipe))
        };
        match &mut self.recovery.phase {
            Phase::Fast(prr) | Phase::Reduced(prr) if !over => {
                let safe = advanced && lost == 0;
                let ssthresh = self.congestion.window.ssthresh;
                self.congestion.window.cwnd = prr.on_ack(delivered, pipe, ssthresh, mss, safe);
                return;
            }
            Phase::Fast(_) => {
                self.congestion.window.cwnd = self.congestion.window.ssthresh;
                self.recovery.phase = Phase::Open;
                self.rack.on_recovery_end();
                return;
            }
            Phase::Reduced(_) => {
                self.congestion.window.cwnd = self.congestion.window.ssthresh;
                self.recovery.phase = Phase::Open;
                return;
            }
            Phase::Loss if over && advanced => {
                self.recovery.phase = Phase::Open;
                self.rack.on_recovery_end();
            }
            Phase::Loss | Phase::Open => {}
        }
        if !advanced {
            return;
        }
        let round_end = self.snd_una >= self.usage.round_end;
        let usage = &mut self.usage;
        if round_end {
            usage.round_end = self.snd_nxt;
            usage.flight_max_last = usage.flight_max;
            usage.limited_last = usage.limited;
            usage.flight_max = pipe;
            usage.limited = false;
        }
        let flight_max = usage.flight_max.max(usage.flight_max_last);
        let window = &self.congestion.window;
        // Like Linux: slow start may grow to twice what was really used.
        let cwnd_limited = usage.limited
            || usage.limited_last
            || self.recovery.is_recovering()
            || (window.in_slow_start() && window.cwnd < flight_max.saturating_mul(2));
        self.congestion.on_ack(&AckSample {
            now,
            acked: delivered,
            rtt: delivery.last_sent.map(|sent| now - sent),
            srtt: self.rtt.srtt().unwrap_or_default(),
            round_end,
            cwnd_limited,
        });
    }

    /// State changes that an acknowledged FIN brings; true if nothing is left to be sent.
    fn on_fin_acked(&mut self, now: Instant, verdict: &mut Verdict) -> bool {
        if !verdict.fin_acked {
            return false;
        }
        match self.state {
            State::FinWait1 => self.state = State::FinWait2,
            State::Closing => {
                self.enter_time_wait(now);
                return true;
            }
            State::LastAck => {
                self.enter_closed();
                verdict.closed = true;
                return true;
            }
            _ => {}
        }
        false
    }

    /// The rate follows window and round trip.
    pub(super) fn update_pacing(&mut self, now: Instant) {
        if !self.config.pacing {
            return;
        }
        if let Some(srtt) = self.rtt.srtt() {
            let rate = {
                let fast = matches!(self.recovery.phase, Phase::Fast(_) | Phase::Reduced(_));
                self.congestion.pacing_rate(srtt, fast)
            };
            let mss = self.mss();
            self.pacer.set_rate(now, rate, mss);
        }
    }
}

impl Delivery {
    /// As [`Delivery::note`] of each of them.
    fn note_run(&mut self, run: &Run) {
        self.note(&run.first);
        if run.segments > 1 {
            self.note(&run.last);
        }
        let counted = run.first.len + if run.segments > 1 { run.last.len } else { 0 };
        self.bytes += run.bytes - counted;
        self.segments += run.segments.saturating_sub(2);
    }

    fn note(&mut self, sent: &TxSeg) {
        self.bytes += sent.len;
        self.segments += 1;
        if !sent.retransmitted() {
            self.first_sent.get_or_insert(sent.sent_at);
            let last = self.last_sent.get_or_insert(sent.sent_at);
            *last = (*last).max(sent.sent_at);
        }
    }
}
