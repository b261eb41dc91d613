//! Segments arrive (RFC 9293 §3.10.7), with the checks of RFC 5961 and RFC 7323.

use super::segment::{ResetCause, SegmentIn, Verdict};
use super::state::State;
use super::{MSS_DEFAULT, MSS_MIN, SHIFT_MAX, Tcp, TimestampState};
use crate::buf::Chain;
use crate::counters::{Counter, Counters};
use crate::time::{Duration, Instant};
use crate::wire::tcp::Flags;

/// RFC 7323 §5.5: a TS.Recent older than 24 days may have wrapped and proves nothing.
const TS_RECENT_MAX_AGE: Duration = Duration::from_secs(24 * 24 * 3600);

/// How far beside the window an acknowledgment still counts, in receive buffers: as many as
/// a proxy may have promised for ours.
const WIDENED_WINDOWS: i64 = 4;

impl Tcp {
    /// Takes a segment. `payload` is its payload, whole; what is in order can be popped next.
    pub fn on_segment(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        payload: Chain,
        c: &mut Counters,
    ) -> Verdict {
        debug_assert_eq!(payload.len(), seg.payload_len as usize);
        self.flush_counters(c);
        let mut verdict = Verdict::default();
        match self.state {
            State::Closed => {}
            State::SynSent => self.on_segment_syn_sent(now, seg, c, &mut verdict),
            _ => self.on_segment_other(now, seg, payload, c, &mut verdict),
        }
        verdict.closed |= verdict.reset.is_some();
        verdict
    }

    /// RFC 9293 §3.10.7.3
    fn on_segment_syn_sent(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        c: &mut Counters,
        verdict: &mut Verdict,
    ) {
        let has_ack = seg.flags.contains(Flags::ACK);
        if has_ack && (seg.ack <= self.iss || seg.ack > self.snd_nxt + self.syn_data_out) {
            c.inc(Counter::TCPInvalidAck);
            if !seg.flags.contains(Flags::RST) {
                self.wanted.rst = Some((seg.ack, None, ResetCause::BadHandshakeAck));
            }
            return;
        }
        if seg.flags.contains(Flags::RST) {
            if has_ack {
                c.inc(Counter::AttemptFails);
                verdict.valid = true;
                verdict.reset = Some(ResetCause::Refused);
                self.enter_closed();
            }
            return;
        }
        if !seg.flags.contains(Flags::SYN) {
            return;
        }
        verdict.valid = true;
        self.take_syn(now, seg);
        // What our SYN advertised; the peer may fill it.
        let edge = self.rcv_nxt + u32::from(self.window.syn_field());
        self.window.advertise(edge);
        if has_ack {
            // What the peer did not take of the SYN's data was never sent.
            self.snd_start = seg.ack;
            self.snd_nxt = seg.ack;
            self.snd_una = seg.ack;
            self.snd_wl1 = seg.seq;
            self.snd_wl2 = seg.ack;
            self.state = State::Established;
            self.established(now, c, verdict, true);
            self.delayed_ack.demand();
        } else {
            // Simultaneous open: our SYN again, now as SYN/ACK.
            self.state = State::SynReceived;
            self.wanted.syn = true;
            self.timers.start_handshake(now);
        }
        self.heard(now);
    }

    /// Notes what a SYN says: numbers, window, options.
    pub(super) fn take_syn(&mut self, now: Instant, seg: &SegmentIn<'_>) {
        let options = seg.options;
        self.irs = seg.seq;
        self.rcv_nxt = seg.seq + 1;
        self.rcv_start = self.rcv_nxt;
        self.last_ack_sent = self.rcv_nxt;
        self.header_edge = self.rcv_nxt;
        self.window.start(self.rcv_nxt);
        self.snd_wnd = u32::from(seg.window);
        self.snd_wnd_max = self.snd_wnd;
        self.snd_wl1 = seg.seq;
        self.snd_wl2 = seg.ack;
        self.path_mtu
            .limit(options.mss.unwrap_or(MSS_DEFAULT).max(MSS_MIN));
        self.sack = self.config.sack && options.sack_permitted;
        if let (true, Some(shift)) = (self.config.window_scale, options.window_scale) {
            self.scaling = true;
            self.snd_shift = shift.min(SHIFT_MAX);
            self.window.set_shift(self.config.receive_shift);
        }
        if let (true, Some(ts)) = (self.config.timestamps, options.timestamps) {
            self.timestamps = Some(TimestampState {
                recent: ts.tsval,
                recent_at: now,
            });
        }
        if seg.flags.contains(Flags::ACK) {
            self.ecn.on_syn_ack(seg.flags);
        } else {
            self.ecn.on_syn(seg.flags);
        }
        self.start_window();
    }

    /// The segment size is known: so is the initial window.
    fn start_window(&mut self) {
        let mss = self.mss();
        self.congestion = super::congestion::Congestion::new(
            self.config.congestion,
            mss,
            self.config.hystart,
            self.config.pacing,
        );
    }

    /// Our SYN is acknowledged.
    fn established(&mut self, now: Instant, c: &mut Counters, verdict: &mut Verdict, active: bool) {
        verdict.established = true;
        c.inc(if active {
            Counter::ActiveOpens
        } else {
            Counter::PassiveOpens
        });
        if self.ecn.is_on() {
            c.inc(Counter::TCPEcnEstab);
        }
        self.timers.retransmit = None;
        self.recovery.consecutive_rtos = 0;
        match self.timers.handshake_attempt {
            // Karn (RFC 6298 §3): only what was sent once measures.
            0 => {
                let rtt = now - self.timers.handshake_sent_at;
                self.rtt.sample(now, rtt);
                self.update_pacing(now);
            }
            1 => {}
            // RFC 5681 §3.1: a lossy handshake starts with one segment; like Linux, one lost
            // SYN is forgiven.
            _ => self.congestion.window.cwnd = self.mss(),
        }
        self.usage.round_end = self.snd_nxt;
        self.timers.sent_at = now;
        self.timers.progress_at = now;
        if self.fin_wanted {
            self.state = State::FinWait1;
        }
    }

    /// RFC 9293 §3.10.7.4
    fn on_segment_other(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        payload: Chain,
        c: &mut Counters,
        verdict: &mut Verdict,
    ) {
        let mut seg = *seg;
        let rst = seg.flags.contains(Flags::RST);
        if self.state == State::SynReceived && seg.flags.contains(Flags::SYN) && !rst {
            if seg.seq != self.irs {
                return self.challenge(now, c);
            }
            if !seg.flags.contains(Flags::ACK) {
                // The SYN again: our answer was lost.
                self.ecn.on_syn(seg.flags);
                if self.challenge.permit(now) {
                    self.wanted.syn = true;
                }
                return;
            }
            // The SYN/ACK of a simultaneous open: what counts is its ACK.
            seg.seq += 1;
            seg.flags = seg.flags.without(Flags::SYN);
        }

        // First: PAWS (RFC 7323 §5.3 R1), which RSTs are exempt from.
        let newer = self.timestamp_age(now, &seg);
        if newer.is_some_and(|by| by < 0) && !rst {
            c.inc(Counter::PAWSEstab);
            return self.answer_out_of_window(now, &seg, c);
        }

        // Second: the sequence number.
        if !self.is_acceptable(&seg) {
            c.inc(Counter::TCPOutOfWindow);
            if !rst {
                // A retransmitted FIN restarts TIME-WAIT (RFC 9293 §3.10.7.4, eighth).
                if self.state == State::TimeWait && seg.flags.contains(Flags::FIN) {
                    self.enter_time_wait(now);
                }
                self.report_old_data(&seg, verdict);
                self.answer_out_of_window(now, &seg, c);
            }
            return;
        }

        if seg.sequence_len() == 0 && !rst {
            // A probe is answered whatever else it says.
            if seg.seq < self.rcv_nxt {
                self.answer_out_of_window(now, &seg, c);
            }
            // What stands beyond the window must not look newer than what will stand within it.
            seg.seq = seg
                .seq
                .earlier(self.window.advertised().later(self.rcv_nxt));
        }

        // Third: RST (RFC 5961 §3.2).
        if rst {
            if seg.seq == self.rcv_nxt {
                verdict.valid = true;
                self.on_reset(c, verdict);
            } else {
                self.challenge(now, c);
            }
            return;
        }

        // Fourth: SYN (RFC 5961 §4.2).
        if seg.flags.contains(Flags::SYN) {
            c.inc(Counter::TCPSYNChallenge);
            return self.challenge(now, c);
        }

        // Fifth: ACK.
        if !seg.flags.contains(Flags::ACK) {
            return;
        }
        if self.state == State::SynReceived {
            if seg.ack <= self.iss || seg.ack > self.snd_nxt {
                c.inc(Counter::TCPInvalidAck);
                self.wanted.rst = Some((seg.ack, None, ResetCause::BadHandshakeAck));
                return;
            }
            self.state = State::Established;
            self.snd_una = self.iss + 1;
            self.established(now, c, verdict, false);
        } else if seg.ack > self.snd_nxt
            || self.snd_una.diff(seg.ack) > self.snd_wnd_max.cast_signed()
        {
            // RFC 5961 §5.2: acknowledges what was never sent, or what is too long ago.
            c.inc(Counter::TCPInvalidAck);
            return self.challenge(now, c);
        }
        verdict.valid = true;
        self.heard(now);
        self.update_ts_recent(now, &seg);
        self.process_ack(now, &seg, c, verdict);
        if self.state == State::Closed {
            verdict.closed = true;
            return;
        }

        // Sixth: URG. The data stays in the stream (RFC 6093 §6, RFC 8684 §3.3.1), wherever
        // the pointer points; one that is obeyed is one that a box can use to move bytes.
        if seg.flags.contains(Flags::URG) {
            c.inc(Counter::TCPUrgent);
        }

        // Seventh and eighth: text and FIN.
        if seg.sequence_len() > 0 {
            self.process_text(now, &seg, payload, c, verdict);
        }
    }

    fn on_reset(&mut self, c: &mut Counters, verdict: &mut Verdict) {
        if self.state == State::TimeWait {
            // RFC 1337: TIME-WAIT is not to be assassinated.
            return;
        }
        if self.state == State::SynReceived {
            c.inc(Counter::AttemptFails);
        } else {
            c.inc(Counter::EstabResets);
        }
        verdict.reset = Some(ResetCause::PeerReset);
        self.enter_closed();
    }

    /// How much newer the segment's timestamp is than TS.Recent; `None` = no judgement.
    fn timestamp_age(&self, now: Instant, seg: &SegmentIn<'_>) -> Option<i32> {
        let ours = self.timestamps.as_ref()?;
        let theirs = seg.options.timestamps?;
        if now - ours.recent_at > TS_RECENT_MAX_AGE {
            return None;
        }
        Some(theirs.tsval.wrapping_sub(ours.recent).cast_signed())
    }

    /// RFC 7323 §4.3 (2): only from segments that span the last acknowledgment, so that the echo
    /// measures from the segment that an ACK was delayed for.
    fn update_ts_recent(&mut self, now: Instant, seg: &SegmentIn<'_>) {
        let Some(theirs) = seg.options.timestamps else {
            return;
        };
        let last_ack = self.last_ack_sent;
        if let Some(ours) = &mut self.timestamps
            && seg.seq <= last_ack
        {
            let newer = theirs.tsval.wrapping_sub(ours.recent).cast_signed() >= 0;
            if newer || now - ours.recent_at > TS_RECENT_MAX_AGE {
                ours.recent = theirs.tsval;
                ours.recent_at = now;
            }
        }
    }

    /// The table of RFC 9293 §3.10.7.4, with the window as advertised.
    fn is_acceptable(&self, seg: &SegmentIn<'_>) -> bool {
        let (left, right) = (self.rcv_nxt, self.window.advertised().later(self.rcv_nxt));
        let len = seg.sequence_len();
        let last = seg.seq + len.saturating_sub(1);
        let inside = |seq| left <= seq && seq < right;
        if self.brings_news(seg) {
            return true;
        }
        match (len, left == right) {
            (0, true) => seg.seq == left,
            // Also at the right edge, where a peer stands that has filled the window and lost
            // a segment: its ACKs, SACKs and DATA_ACKs count (as Linux has it).
            (0, false) if !seg.flags.contains(Flags::RST) => left <= seg.seq && seg.seq <= right,
            (0, false) => inside(seg.seq),
            // With a closed window, ACKs and RSTs at its edge still count, and a FIN without
            // data, which takes no room (as Linux has it).
            (_, true) => {
                let fin = seg.flags.contains(Flags::FIN) && len == 1;
                seg.seq == left && (fin || seg.flags.contains(Flags::RST))
            }
            // Also a segment that spans the window.
            (_, false) => inside(seg.seq) || inside(last) || (seg.seq < left && last >= right),
        }
    }

    /// A segment that acknowledges something new, or opens a closed window, though it stands beside the window (RFC 9293
    /// §3.10.7.4: "special allowance should be made to accept valid ACKs"). Two ends that have
    /// sent each other more than there was room for, because something in between had widened
    /// the windows, repeat what the other has, and their ACKs stand behind what it dropped:
    /// nothing else would ever tell them anything. The acknowledgment has to be exact, so
    /// nobody off the path gains anything.
    fn brings_news(&self, seg: &SegmentIn<'_>) -> bool {
        let back = i64::from(self.rcv_nxt.diff(seg.seq));
        // What stands further back is a probe, whose window may be an old one.
        let opens = seg.ack == self.snd_una && self.snd_wnd == 0 && seg.window > 0 && back <= 0;
        let news = opens || (self.snd_una < seg.ack && seg.ack <= self.snd_nxt);
        let far = i64::from(self.config.recv_buffer_max) * WIDENED_WINDOWS;
        let near = match seg.sequence_len() {
            0 => (-far..=far).contains(&back),
            // Repeated data; what is beyond the window is nobody's to look at.
            _ => (0..=far).contains(&back),
        };
        let other = seg.flags.contains(Flags::RST) || seg.flags.contains(Flags::SYN);
        seg.flags.contains(Flags::ACK) && !other && news && near
    }

    /// An unacceptable segment is answered by an ACK, rate limited if it could have been
    /// provoked by one of ours (two desynchronised ends would answer each other for ever).
    fn answer_out_of_window(&mut self, now: Instant, seg: &SegmentIn<'_>, c: &mut Counters) {
        if seg.payload_len > 0 || self.challenge.permit(now) {
            self.delayed_ack.demand();
        } else {
            c.inc(Counter::TCPACKSkippedChallenge);
        }
    }

    /// RFC 5961: an ACK that the true peer would react to.
    fn challenge(&mut self, now: Instant, c: &mut Counters) {
        if self.challenge.permit(now) {
            c.inc(Counter::TCPChallengeACK);
            self.delayed_ack.demand();
        } else {
            c.inc(Counter::TCPACKSkippedChallenge);
        }
    }

    /// A segment wholly below RCV.NXT is reported by DSACK (RFC 2883 §4).
    fn report_old_data(&mut self, seg: &SegmentIn<'_>, verdict: &mut Verdict) {
        let end = seg.seq + seg.payload_len;
        if seg.payload_len > 0 && seg.seq < self.rcv_nxt && end <= self.rcv_nxt {
            verdict.duplicate_data = true;
            self.reassembly.report_duplicate(seg.seq, end);
        }
    }

    fn process_text(
        &mut self,
        now: Instant,
        seg: &SegmentIn<'_>,
        mut payload: Chain,
        c: &mut Counters,
        verdict: &mut Verdict,
    ) {
        if !self.state.may_receive() {
            // The peer has sent FIN: whatever this is, it is old or nonsense.
            self.delayed_ack.demand();
            if self.state == State::TimeWait && seg.flags.contains(Flags::FIN) {
                self.enter_time_wait(now);
            }
            return;
        }
        let end = seg.seq + seg.payload_len;
        // Only data within the window counts (RFC 3168 §6.1.6).
        if seg.payload_len > 0 {
            if seg.ce {
                self.events().ce_segments += u64::from(seg.segments);
            }
            if self.ecn.on_data(seg.flags, seg.ce) {
                self.delayed_ack.demand();
            }
        }
        if seg.flags.contains(Flags::FIN) && self.peer_fin.is_none() && end >= self.rcv_nxt {
            self.peer_fin = Some(end);
        }
        // Nothing counts beyond the window, beyond what memory stands for, or beyond a FIN.
        let mut limit = self.window.keep_until();
        if let Some(fin) = self.peer_fin {
            limit = limit.earlier(fin);
        }
        if end > limit {
            if limit < self.window.advertised() && self.peer_fin != Some(limit) {
                c.inc(Counter::RcvPruned);
            }
            let keep = if limit > seg.seq { limit - seg.seq } else { 0 };
            payload.trim_back((seg.payload_len - keep) as usize);
        }
        let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if bytes > 0 {
            let smooth = self.reassembly.is_contiguous();
            let received = self.reassembly.receive(self.rcv_nxt, seg.seq, payload);
            self.rcv_nxt += received.advanced;
            self.totals.bytes_in += u64::from(received.advanced);
            verdict.readable = received.advanced > 0;
            verdict.duplicate_data = received.duplicate;
            if received.queued {
                c.inc(Counter::TCPOFOQueue);
            }
            if received.dropped {
                c.inc(Counter::TCPOFODrop);
            }
            if received.advanced > 0 {
                if let (Some(_), Some(ts)) = (&self.timestamps, seg.options.timestamps) {
                    self.receive_rtt.on_data(self.tsval(now), ts.tsecr);
                }
                // One segment cannot have been longer, nor, of several, the average.
                let each = seg.payload_len.div_ceil(seg.segments.max(1));
                let longest = u32::from(self.config.mss).min(each);
                self.delayed_ack.received(now, received.advanced, longest);
            }
            // RFC 5681 §4.2: out of order, refill or repetition is reported at once.
            if !smooth || received.queued || received.duplicate || received.dropped {
                self.delayed_ack.demand();
            }
        } else if seg.payload_len > 0 {
            self.delayed_ack.demand();
        }
        if seg.flags.contains(Flags::FIN) {
            self.delayed_ack.demand();
        }
        if self.peer_fin == Some(self.rcv_nxt) {
            self.on_peer_fin(now, verdict);
        }
    }

    fn on_peer_fin(&mut self, now: Instant, verdict: &mut Verdict) {
        self.rcv_nxt += 1;
        self.window.advance_to(self.rcv_nxt);
        self.delayed_ack.demand();
        verdict.fin = true;
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(now),
            _ => {}
        }
    }

    // ---- ICMP ----

    /// An ICMP error says that a segment of ours did not reach its destination. True if that
    /// ends the connection attempt; afterwards it is only noted (RFC 5927 §5.2).
    pub fn on_icmp_unreachable(
        &mut self,
        embedded_seq: crate::wire::tcp::SeqNumber,
        hard: bool,
        c: &mut Counters,
    ) -> bool {
        if !self.is_outstanding(embedded_seq, c) {
            return false;
        }
        self.events().soft_errors += 1;
        let fatal = hard && self.state == State::SynSent;
        if fatal {
            c.inc(Counter::AttemptFails);
            self.enter_closed();
        }
        fatal
    }

    /// An ICMP error names the MTU of the next hop. True if the segment size was lowered; what
    /// was too big is sent again at once, without a congestion response (RFC 1191 §6.5).
    pub fn on_path_mtu(
        &mut self,
        now: Instant,
        embedded_seq: crate::wire::tcp::SeqNumber,
        mtu: u32,
        c: &mut Counters,
    ) -> bool {
        if !self.is_outstanding(embedded_seq, c) || !self.path_mtu.on_icmp(now, mtu) {
            return false;
        }
        c.inc(Counter::PmtuReduced);
        self.apply_segment_size(true);
        true
    }

    /// RFC 5927 §4.1: an error must quote what is really outstanding.
    fn is_outstanding(&self, seq: crate::wire::tcp::SeqNumber, c: &mut Counters) -> bool {
        let ok = self.state != State::Closed && self.snd_una <= seq && seq < self.snd_nxt;
        if !ok {
            c.inc(Counter::OutOfWindowIcmps);
        }
        ok
    }
}
