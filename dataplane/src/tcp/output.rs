//! What leaves: control segments, retransmissions, the budget for new data, header fields.

use super::Tcp;
use super::ecn::DataMarks;
use super::recovery::Recovery;
use super::segment::{Control, HeaderFields, MapRef, RxChunk, SynFields, TxRange};
use super::state::State;
use super::timer::Retransmit;
use crate::time::Instant;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::{SackBlocks, Timestamps};

impl Tcp {
    /// The next control segment to send now; taking it records it as sent.
    pub fn next_control(&mut self, now: Instant) -> Option<Control> {
        if let Some(control) = self.next_control_but_ack(now) {
            return Some(control);
        }
        if self.is_ack_due(now) {
            self.delayed_ack.sent();
            return Some(Control::Ack { seq: self.snd_nxt });
        }
        None
    }

    /// Like [`Self::next_control`] without pure ACKs, for an owner that may have data to carry
    /// them.
    pub fn next_control_but_ack(&mut self, now: Instant) -> Option<Control> {
        if let Some((seq, ack, cause)) = self.wanted.rst.take() {
            self.events().pending.resets += 1;
            return Some(Control::Rst { seq, ack, cause });
        }
        if self.wanted.syn {
            self.wanted.syn = false;
            let attempt = self.timers.handshake_attempt;
            self.timers.handshake_sent_at = now;
            if attempt > 0 {
                self.events().pending.syn_retransmitted += 1;
            }
            let seq = self.iss;
            return match self.state {
                State::SynSent => Some(Control::Syn { seq, attempt }),
                State::SynReceived => Some(Control::SynAck { seq, attempt }),
                _ => None,
            };
        }
        if let Some(seq) = self.next_fin(now) {
            return Some(Control::Fin { seq });
        }
        if self.wanted.probe {
            self.wanted.probe = false;
            return Some(Control::Probe {
                seq: self.snd_una - 1,
            });
        }
        None
    }

    /// A pure ACK would leave at the next [`Self::next_control`].
    #[must_use]
    pub fn is_ack_due(&self, now: Instant) -> bool {
        self.state.is_synchronized() && self.delayed_ack.is_due(now)
    }

    /// So much is unacknowledged that an ACK should leave before the batch has ended.
    #[must_use]
    pub fn is_ack_pressing(&self) -> bool {
        self.state.is_synchronized()
            && self
                .delayed_ack
                .is_pressing(self.reassembly.is_contiguous())
    }

    /// FIN for the first time, or again because it is lost or is the tail to probe.
    fn next_fin(&mut self, now: Instant) -> Option<SeqNumber> {
        if !self.fin_wanted {
            return None;
        }
        let Some(seq) = self.fin_seq else {
            if !matches!(
                self.state,
                State::FinWait1 | State::Closing | State::LastAck
            ) {
                return None;
            }
            if self.peer_room() == 0 && !self.fin_is_probe() {
                self.update_persist(now);
                return None;
            }
            let seq = self.snd_nxt;
            self.timers.persist = None;
            self.fin_seq = Some(seq);
            self.started_sending(now);
            self.board.push(now, seq, 1, 0, MapRef::default(), true);
            self.snd_nxt += 1;
            self.arm_retransmit(now);
            return Some(seq);
        };
        let number = self.board.find(seq)?;
        let probe = self.recovery.probe_wanted && number == self.board.back_number();
        // In sequence order: what is lost before it goes first.
        if !probe && !self.board.only_last_is_lost() {
            return None;
        }
        self.retransmitted(now, number);
        Some(seq)
    }

    /// [`Self::next_fin`] would have something.
    pub(super) fn is_fin_due(&self) -> bool {
        let front_of_queue = self.fin_seq.is_some() && self.board.only_last_is_lost();
        let first = self.fin_wanted
            && self.fin_seq.is_none()
            && matches!(
                self.state,
                State::FinWait1 | State::Closing | State::LastAck
            )
            && (self.peer_room() > 0 || self.fin_is_probe());
        front_of_queue || first
    }

    /// The next range to send again, whole, if congestion control lets it go now. Nothing is
    /// recorded: the same range comes again until [`Self::record_retransmit`].
    pub fn next_retransmit(&mut self, now: Instant) -> Option<TxRange> {
        if !self.state.is_synchronized() || self.state == State::TimeWait {
            return None;
        }
        let number = if self.recovery.probe_wanted {
            self.board.back_number()
        } else {
            self.board.written()?.first_lost()?
        };
        if self.board.is_empty() {
            self.recovery.probe_wanted = false;
            return None;
        }
        let seg = self.board.get(number);
        if seg.fin {
            return None; // next_control has it
        }
        if !self.recovery.probe_wanted && !self.recovery.force_one {
            if self.pacer.available(now, seg.len) == 0 {
                return None;
            }
            let pipe = self.pipe();
            if pipe > 0 && pipe.saturating_add(seg.len) > self.cwnd() {
                return None;
            }
            // A peer that took its window back gets the first segment only.
            let front = self.board.front().is_some_and(|first| first.seq == seg.seq);
            if !front && seg.end() > self.snd_una + self.snd_wnd {
                return None;
            }
        }
        Some(TxRange {
            seq: seg.seq,
            len: seg.len,
            dsn: seg.dsn,
            map: seg.map,
        })
    }

    /// The range from [`Self::next_retransmit`] left.
    pub fn record_retransmit(&mut self, now: Instant, seq: SeqNumber, len: u32) {
        let Some(number) = self.board.find(seq) else {
            return;
        };
        debug_assert_eq!(self.board.get(number).len, len);
        self.events().bytes_retransmitted += u64::from(len);
        self.totals.bytes_out += u64::from(len);
        self.retransmitted(now, number);
    }

    fn retransmitted(&mut self, now: Instant, number: u32) {
        let len = self.board.get(number).len;
        if self.recovery.probe_wanted && number == self.board.back_number() {
            self.recovery.probe_wanted = false;
            self.recovery.probe_end = Some(self.snd_nxt);
        } else if !self.recovery.force_one {
            self.events().pending.fast_retransmitted += 1;
        }
        self.recovery.force_one = false;
        self.recovery.timeout_answered = true;
        self.board.resent(number, now);
        self.recovery.sent(len);
        self.pacer.spend(now, len);
        // New data waits for the debt to be paid, and must be woken.
        self.timers.pacing = self.pacer.next_release(now);
        self.timers.sent_at = now;
        let events = self.events();
        events.pending.retransmitted += 1;
        events.retransmits += 1;
        self.totals.segments_out += 1;
        if self.timers.retransmit.is_none() {
            self.timers.rto_started = now;
            self.timers.retransmit = Some((now + self.rtt.rto(), Retransmit::Timeout));
        }
    }

    /// Room in the peer's window beyond SND.NXT.
    pub(super) fn peer_room(&self) -> u32 {
        let edge = self.snd_una + self.snd_wnd;
        if edge > self.snd_nxt {
            edge - self.snd_nxt
        } else {
            0
        }
    }

    /// Sender-side silly window avoidance (RFC 9293 §3.8.6.2.1): a full segment, or half of the
    /// largest window ever offered; the owner decides about pushing less than a segment.
    fn window_budget(&self, mss: u32) -> u32 {
        let room = self.peer_room();
        if room >= mss {
            return room - room % mss;
        }
        if self.silly_override || room >= self.snd_wnd_max / 2 {
            room
        } else {
            0
        }
    }

    pub(super) fn window_admits_anything(&self) -> bool {
        self.window_budget(self.mss()) > 0
    }

    /// Bytes of new data that may leave now, by the congestion window, the peer's window,
    /// pacing and the state. Whole segments, unless the peer's window is smaller than one.
    #[must_use]
    pub fn send_budget(&self, now: Instant) -> u32 {
        // After a timeout the retransmission goes first.
        let timed_out = self.recovery.force_one && self.board.lost_segments() > 0;
        if !self.may_send_now() || timed_out {
            return 0;
        }
        let mss = self.mss();
        let window = self.window_budget(mss);
        if window == 0 {
            return 0;
        }
        let pipe = self.pipe();
        let cwnd = if self.board.is_empty() && now - self.timers.sent_at > self.rtt.rto() {
            self.congestion
                .window_after_idle(now - self.timers.sent_at, self.rtt.rto())
        } else {
            self.cwnd()
        };
        // A window of less than a segment (the segment grew) would never open.
        let congestion = cwnd.max(mss).saturating_sub(pipe) / mss * mss;
        let paced = self.pacer.available(now, mss);
        let board = self
            .board
            .room(self.config.segments_max)
            .saturating_mul(mss);
        window.min(congestion).min(paced - paced % mss).min(board)
    }

    /// New data left; returns its sequence number. `map` is the mapping it was sent under;
    /// `dsn` that of its first byte (of a plain connection: the stream offset).
    pub fn record_new(&mut self, now: Instant, len: u32, dsn: u64, map: MapRef) -> SeqNumber {
        debug_assert!(self.may_send_now(), "no new data in {}", self.state);
        let (seq, mss) = (self.snd_nxt, self.mss());
        self.started_sending(now);
        self.ecn.data_sent(seq);
        let segments = self.board.push_run(now, seq, len, mss, dsn, map);
        self.totals.segments_out += u64::from(segments);
        self.snd_nxt += len;
        self.silly_override = false;
        self.totals.bytes_out += u64::from(len);
        self.recovery.sent(len);
        self.pacer.spend(now, len);
        self.timers.pacing = self.pacer.next_release(now);
        let pipe = self.pipe();
        self.usage.flight_max = self.usage.flight_max.max(pipe);
        self.usage.limited |= pipe.saturating_add(mss) > self.cwnd();
        self.timers.sent_at = now;
        self.arm_retransmit(now);
        seq
    }

    /// Before new data is pushed: the effects of a pause, and clocks that start with it.
    fn started_sending(&mut self, now: Instant) {
        if !self.board.is_empty() {
            return;
        }
        let idle = now - self.timers.sent_at;
        if idle > self.rtt.rto() && self.recovery.is_open() {
            self.congestion
                .restart_after_idle(now, idle, self.rtt.rto());
        }
        self.timers.rto_started = now;
        self.timers.progress_at = now;
        self.timers.persist = None;
        if self.recovery.is_open() {
            self.recovery = Recovery::new(self.snd_una);
        }
    }

    // ---- header fields ----

    /// Fields for any segment but SYNs; call [`Self::ack_sent`] when it left.
    pub fn header(&mut self, now: Instant) -> HeaderFields {
        let (window, edge) = self.window.field(self.rcv_nxt);
        self.header_edge = edge;
        self.header_has_sack = false;
        HeaderFields {
            ack: self.rcv_nxt,
            window,
            flags: Flags::ACK | self.ecn.ack_flags(),
            timestamps: self.timestamps.as_ref().map(|ts| Timestamps {
                tsval: self.tsval(now),
                tsecr: ts.recent,
            }),
        }
    }

    /// ECN of a data segment that starts at `seq`: only new data is marked, and it alone may
    /// say CWR (RFC 3168 §6.1.2, §6.1.5).
    #[must_use]
    pub fn data_marks(&self, seq: SeqNumber) -> DataMarks {
        if seq == self.snd_nxt {
            self.ecn.marks()
        } else {
            DataMarks::default()
        }
    }

    /// Fields and options for the SYN or SYN/ACK. Before a SYN/ACK, only what the peer offered.
    pub fn syn_fields(&mut self, now: Instant) -> SynFields {
        let passive = self.state != State::SynSent;
        let window = self.window.syn_field();
        if passive {
            self.header_edge = self.rcv_nxt + u32::from(window);
            self.window.advertise(self.header_edge);
            self.last_ack_sent = self.rcv_nxt;
        }
        let flags = if passive {
            Flags::SYN | Flags::ACK | self.ecn.syn_ack_flags()
        } else {
            let gave_up = self.ecn.gave_up_asking();
            let flags = Flags::SYN | self.ecn.syn_flags(self.timers.handshake_attempt);
            if self.ecn.gave_up_asking() && !gave_up {
                self.events().pending.ecn_fallbacks += 1;
            }
            flags
        };
        let config = &self.config;
        let timestamps = if passive {
            self.timestamps.is_some()
        } else {
            config.timestamps
        };
        SynFields {
            ack: passive.then_some(self.rcv_nxt),
            flags,
            window,
            mss: config.mss,
            window_scale: if passive {
                self.scaling
            } else {
                config.window_scale
            }
            .then_some(config.receive_shift),
            sack_permitted: if passive { self.sack } else { config.sack },
            timestamps: timestamps.then(|| Timestamps {
                tsval: self.tsval(now),
                tsecr: self.timestamps.as_ref().map_or(0, |ts| ts.recent),
            }),
        }
    }

    /// SACK blocks for an ACK, as many as fit; call it between [`Self::header`] and
    /// [`Self::ack_sent`].
    #[must_use]
    pub fn sack_blocks(&mut self, max: usize) -> SackBlocks {
        if self.sack {
            self.header_has_sack = true;
            self.reassembly.sack_blocks(max)
        } else {
            SackBlocks::default()
        }
    }

    /// A segment with the fields of the last [`Self::header`] left.
    pub fn ack_sent(&mut self, _now: Instant) {
        self.window.advertise(self.header_edge);
        let closed = self.window.advertised() == self.rcv_nxt;
        if closed && !self.window_closed {
            self.events().pending.zero_window += 1;
        }
        self.window_closed = closed;
        self.last_ack_sent = self.rcv_nxt;
        // Data has no room for SACK blocks. Did it count as the ACK of what came out of order,
        // the peer would take for lost what was received, so a pure ACK is still owed.
        if self.header_has_sack || !self.sack || !self.reassembly.owes_sack() {
            self.delayed_ack.sent();
            self.reassembly.reported();
        }
    }

    /// The next received bytes in order.
    pub fn recv_pop(&mut self) -> Option<RxChunk> {
        self.reassembly.pop()
    }
}
