//! Going on as plain TCP (RFC 8684 §3.7).
//!
//! Possible while one subflow has carried everything in order, and no other was ever
//! established: then the subflow's stream is the connection's. Otherwise the subflow is reset and
//! its data goes elsewhere: a peer that has two may send what one of them carried on the other,
//! and only its mappings say so. Linux draws the line there, too (`allow_infinite_fallback`).
//!
//! After the fallback the subflow's acknowledgments free the send queue, and received bytes
//! are delivered as they come, mappings or not.

use super::api::Cx;
use super::event::Event;
use super::mapping::Mapping;
use super::state::{Core, Mode};
use super::subflow::{Phase, Subflow};
use crate::counters::Counter;
use crate::tcp::MapRef;
use crate::time::{Duration, Instant};
use crate::wire::mptcp::{DssMapping, MptcpOption, reset_reason};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::SeqNumber;

/// Segments without MPTCP options in a row, on the only subflow, that mean that options are
/// being stripped. A single one may be the half of a split segment.
const BARE_MAX: u8 = 3;
/// The same for the very first bytes, sent again: a split segment has one at a time.
const BARE_STARTS_MAX: u8 = 2;
/// Gaps between mappings on one subflow before its data goes elsewhere. One may be a box
/// that changes its mind, eight are a box that merges segments.
const GAPS_MAX: u8 = 8;
/// MP_FAIL on ACKs before its loss is the peer's problem.
const FAIL_SENT_MAX: u8 = 8;
/// What is sent again for want of a DATA_ACK comes no sooner than that behind what came before:
/// half of Linux's shortest timeout (`TCP_RTO_MIN`).
const REPEATED_AFTER: Duration = Duration::from_millis(100);
/// MP_FAIL waits for an infinite mapping of ours for two round trips, and at least so long: a
/// fraction of the shortest retransmission timeout of its receiver.
const FAIL_HOLD_MIN: Duration = Duration::from_millis(50);

/// MP_FAIL that ACKs are to carry.
///
/// It waits for our own infinite mapping where one is about to leave. Linux answers MP_FAIL
/// by an infinite mapping on its next new segment, but once our infinite mapping has made it
/// TCP it builds that segment a DSS too large for the path, and never gets it out. An
/// infinite mapping that comes first leaves it nothing to answer.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Fail {
    dsn: u64,
    /// ACKs yet to carry it.
    left: u8,
    /// Until when it waits at the most.
    held: Option<Instant>,
}

impl Fail {
    /// When it is said at the latest.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.held
    }
}

impl Core {
    /// Whether subflow `i` alone has carried everything, in order, both ways.
    pub(crate) fn may_fall_back(&self, i: usize) -> bool {
        !self.is_joining() && self.may_follow(i)
    }

    /// The peer may use a subflow that it has not confirmed to us.
    fn is_joining(&self) -> bool {
        let joining = |s: &Subflow| s.phase == Phase::PreEstablished && s.death.is_none();
        self.subflows.iter().any(joining)
    }

    /// The same, when the peer has fallen back already: it has no subflow that it did not
    /// confirm to us.
    fn may_follow(&self, i: usize) -> bool {
        let s = &self.subflows[i];
        let contiguous = s.sent_to().is_some();
        // Unmapped bytes that were dropped, and ranges that never left, would be skipped.
        let nxt = self.reassembly.nxt();
        let is_the_stream = s.initial && s.rx.continues(nxt) && s.rx.is_linear(nxt);
        let all_left = self.reinject.end().is_none_or(|end| end <= self.sent_max);
        !self.was_joined && contiguous && is_the_stream && all_left && self.reassembly.bytes() == 0
    }

    /// Whether a join whose fate is open decides if subflow `i` may fall back: the peer may do so
    /// this very moment, and refuse the join.
    pub(crate) fn is_undecided(&self, i: usize) -> bool {
        !self.may_fall_back(i) && self.may_follow(i)
    }

    /// The fate of a join is known: what waited for it is judged.
    pub(crate) fn join_is_decided(&mut self, cx: &mut Cx<'_>) {
        for i in 0..self.subflows.len() {
            let s = &self.subflows[i];
            if self.is_mptcp() && !self.is_over() && s.death.is_none() && s.rx.held_bytes() > 0 {
                self.on_data(cx, i);
            }
        }
    }

    /// A mapping after the fallback. Until an infinite mapping of the peer, which goes for all
    /// that follows, its mappings still say what its bytes are. Where one puts bytes that are
    /// yet to come elsewhere than behind the last ones, what the peer had in flight was not
    /// contiguous: falling back was wrong, and a RST with MP_FAIL is all that is left (RFC 8684
    /// §3.7). Linux sends like that when it misses DATA_ACKs before it hears MP_FAIL.
    pub(crate) fn check_contiguous(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        mapping: &DssMapping,
        fin: bool,
    ) {
        let s = &self.subflows[i];
        // Whoever has other keys says nothing that could be compared.
        let (Some(off), Some(pos)) = (self.data_offset(mapping), s.rx_position(mapping.ssn)) else {
            return;
        };
        let (nxt, next) = (self.reassembly.nxt(), s.rx.pos());
        let passed = pos + u64::from(mapping.len) - u64::from(fin) <= next;
        let contiguous = off.wrapping_sub(pos) == nxt.wrapping_sub(next);
        if self.infinite_map_heard || passed || contiguous {
            return;
        }
        cx.counters.inc(Counter::DSSNotMatching);
        cx.counters.inc(Counter::DSSCorruptionReset);
        self.subflows[i].reset_fail = Some(self.rcv_space.dsn(nxt).0);
        self.kill(i, Some(reset_reason::MIDDLEBOX), "mapped elsewhere");
    }

    /// Whether what is in flight on subflow `i`, and what will follow it, is the stream even
    /// to a receiver that sees no mappings. It is not where the subflow carries again what it
    /// had carried before: only mappings say so.
    pub(crate) fn is_linear(&self, i: usize) -> bool {
        let s = &self.subflows[i];
        s.sent.is_empty() || s.sent_to() == Some(self.sent_max)
    }

    /// Falls back on subflow `i`, or resets it where that is not possible.
    pub(crate) fn fall_back(&mut self, cx: &mut Cx<'_>, i: usize, reason: Counter) {
        self.fall_back_if(cx, i, reason, self.may_fall_back(i));
    }

    fn fall_back_if(&mut self, cx: &mut Cx<'_>, i: usize, reason: Counter, may: bool) {
        if self.mode == Mode::Tcp {
            return;
        }
        if !may {
            cx.counters.inc(match reason {
                Counter::DssFallback | Counter::DSSCorruptionFallback => {
                    Counter::DSSCorruptionReset
                }
                _ => Counter::FallbackFailed,
            });
            self.kill(i, Some(reset_reason::MIDDLEBOX), "MPTCP options are lost");
            return;
        }
        cx.counters.inc(reason);
        self.mode = Mode::Tcp;
        self.fallback = Some(reason);
        self.infinite_map_due = true;
        self.data_rto = None;
        self.reinject.clear();
        for other in 0..self.subflows.len() {
            if other != i {
                self.kill(
                    other,
                    Some(reset_reason::MPTCP_SPECIFIC),
                    "the connection fell back",
                );
            }
        }
        let s = &mut self.subflows[i];
        s.rx.forget();
        s.data_fin_due = false;
        s.signals.clear();
        // Behind a mapping already declared the rest of its burst keeps it.
        let acked = s.acked_to;
        self.acknowledge_stream(cx, acked);
        self.report_established(cx, i);
        cx.actions.events.push(Event::FellBack {
            token: self.id,
            reason: reason.as_str().to_owned(),
        });
        self.deliver_plain(cx, i);
    }

    /// Everything that TCP has in order goes to the stream.
    pub(crate) fn deliver_plain(&mut self, cx: &mut Cx<'_>, i: usize) {
        let chain = self.subflows[i].rx.take_all();
        if chain.is_empty() {
            return;
        }
        let off = self.reassembly.nxt();
        // TCP's own window bounds this: what it acknowledged must not be dropped.
        self.reassembly.offer(chain.len() as u64);
        self.rx_news |= self
            .reassembly
            .insert(off, chain, &mut self.rx, cx.counters);
    }

    /// A mapping's checksum is wrong: something rewrites payload.
    pub(crate) fn on_bad_checksum(&mut self, cx: &mut Cx<'_>, i: usize, mapping: &Mapping) {
        let next = mapping.off == self.reassembly.nxt();
        if next && self.is_undecided(i) {
            // The peer may have found out, too, and know of no other subflow: it falls back
            // where we would reset. The bytes stay, and are judged again.
            return;
        }
        cx.counters.inc(Counter::DataCsumErr);
        let dsn = self.rcv_space.dsn(mapping.off).0;
        cx.counters.inc(Counter::MPFailTx);
        if next && self.may_fall_back(i) {
            // The changed bytes are what plain TCP would have delivered; they must not be
            // DATA_ACKed (RFC 8684 §3.7).
            self.send_data_acks = false;
            self.say_fail(cx.now, i, dsn);
            self.fall_back(cx, i, Counter::DssFallback);
            self.subflows[i].tcp.ack_now();
        } else {
            self.subflows[i].rx.discard(mapping);
            self.subflows[i].reset_fail = Some(dsn);
            self.kill(i, Some(reset_reason::MIDDLEBOX), "wrong DSS checksum");
            self.on_spoiled(cx, false);
        }
    }

    /// MP_FAIL from the peer. Where falling back is not possible (the flight was not
    /// contiguous), the subflow is reset and its data goes elsewhere. RFC 8684 §3.7 has the
    /// next subflow begin with an infinite mapping then; ours begins with regular ones:
    /// checksums go on protecting the stream on a path of which nothing bad is known.
    pub(crate) fn on_mp_fail(&mut self, cx: &mut Cx<'_>, i: usize) {
        cx.counters.inc(Counter::MPFailRx);
        let answers = if self.mode == Mode::Tcp {
            // The answer to ours, a repetition, or it was overtaken by the infinite mapping.
            // Now that both ends know, DATA_ACKs tell nothing but that the sender may let go:
            // Linux needs room before it can send the segment with its infinite mapping.
            self.subflows[i].fail = None;
            self.send_data_acks = !self.infinite_map_heard;
            self.fallback == Some(Counter::DssFallback)
        } else {
            let may = self.may_follow(i);
            self.fall_back_if(cx, i, Counter::DssFallback, may);
            may
        };
        let s = &mut self.subflows[i];
        if answers && !std::mem::replace(&mut s.fail_said, true) {
            // RFC 8684 §3.7: answered by MP_FAIL in the other direction. By an ACK of its own:
            // data may never leave room for a pure ACK. The data sequence number is of the
            // direction that the answerer hears.
            let dsn = self.rcv_space.dsn(self.reassembly.nxt()).0;
            cx.counters.inc(Counter::MPFailTx);
            s.signal(MptcpOption::MpFail { dsn });
            s.tcp.ack_now();
        }
    }

    /// An infinite mapping from the peer: it has fallen back.
    pub(crate) fn on_infinite_mapping(&mut self, cx: &mut Cx<'_>, i: usize) {
        cx.counters.inc(Counter::InfiniteMapRx);
        self.infinite_map_heard = true;
        self.fall_back_if(cx, i, Counter::DssFallback, self.may_follow(i));
        if self.mode == Mode::Tcp {
            self.subflows[i].fail = None;
            // RFC 8684 §3.7: DATA_ACKs stop.
            self.send_data_acks = false;
        }
    }

    /// Judges a segment by the options that it lacks. `acked`: it acknowledged new data,
    /// and had room for a DATA_ACK. `again`: it repeated data.
    pub(crate) fn check_bare(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        has_mptcp: bool,
        acked: bool,
        again: bool,
    ) {
        let s = &mut self.subflows[i];
        if self.mode == Mode::Tcp || s.phase != Phase::Established || s.death.is_some() {
            return;
        }
        if has_mptcp {
            s.bare = 0;
            return;
        }
        let unmapped = s.rx.held_bytes() > 0 && !s.rx.front_is_mapped();
        // On the only subflow every acknowledgment of data moves the DATA_ACK. On others it
        // may concern duplicates, so only the complete lack of DATA_ACKs means something
        // (RFC 8684 §3.7).
        let silent = acked && (!s.confirmed || !self.was_multipath);
        // Its first copy was mapped, or this would be no repetition: the peer has given up
        // options that do not come through to it.
        let given_up = again && s.initial && !self.was_multipath && self.subflows.len() == 1;
        if !unmapped && !silent && !given_up {
            return;
        }
        let s = &mut self.subflows[i];
        s.bare = s.bare.saturating_add(1);
        if s.initial && !s.dss_seen && !self.was_multipath {
            self.fall_back(cx, i, Counter::MPCapableDataFallback);
        } else if s.bare >= BARE_MAX && given_up {
            self.fall_back_mute(cx, i, Counter::DssFallback);
        } else if s.bare >= BARE_MAX {
            self.options_vanished(cx, i);
        }
    }

    /// A segment that TCP refused, being old. The very first bytes without any option, when
    /// nothing of ours was ever acknowledged: the peer has given up options, because
    /// nothing that carries one reaches it. Both numbers must fit exactly, so that nobody
    /// off the path can make us believe it.
    pub(crate) fn check_repeated_start(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) {
        let s = &self.subflows[i];
        // A single byte is a keepalive's (RFC 1122 §4.2.3.6), unless its sender has something to
        // acknowledge and does not.
        let bytes = packet.payload.len();
        let data = bytes > 1 || (bytes == 1 && !s.sent.is_empty());
        let start = packet.seq == s.tcp.irs() + 1 && data;
        let deaf = packet.ack == s.tcp.snd_una() && s.acked_to == 0;
        let bare = packet.options.mptcp.is_empty();
        if s.phase != Phase::Established
            || !(start && deaf && bare && s.initial)
            || self.mode == Mode::Tcp
            || self.was_multipath
            || self.subflows.len() != 1
        {
            return;
        }
        let s = &mut self.subflows[i];
        s.bare = s.bare.saturating_add(1);
        if s.bare >= BARE_STARTS_MAX {
            self.fall_back_mute(cx, i, Counter::DssFallback);
        }
    }

    /// Whether all that was sent on the only subflow may have vanished because of its
    /// options: the handshake passed, and nothing since.
    pub(crate) fn options_may_be_dropped(&self, i: usize) -> bool {
        let s = &self.subflows[i];
        self.mode == Mode::Mptcp
            && s.initial
            && !s.confirmed
            && !self.was_multipath
            && self.subflows.len() == 1
    }

    /// The subflow that has carried everything so far, if no other was established. Its bytes
    /// are the stream: should its mappings be lost, the peer takes whatever comes for new data.
    /// So nothing that has left on it may leave again under other subflow sequence numbers. A
    /// join under way changes nothing: its first packet may never arrive.
    pub(crate) fn sole_carrier(&self) -> Option<usize> {
        let s = self.subflows.first()?;
        let sole = s.initial && !self.was_joined;
        (sole && self.mode == Mode::Mptcp && s.is_usable()).then_some(0)
    }

    /// The only subflow has acknowledged what the connection has not, time after time, though
    /// it was asked: mappings or DATA_ACKs are lost on the way.
    pub(crate) fn acknowledged_in_vain(&mut self, cx: &mut Cx<'_>, i: usize) {
        if !self.is_joining() {
            self.options_vanished(cx, i);
            // MP_FAIL has to travel on something.
            self.subflows[i].tcp.ack_now();
        }
    }

    /// Falls back without a word: what carries an option does not arrive. The peer learns it
    /// from bare data (RFC 8684 §3.7).
    pub(crate) fn fall_back_mute(&mut self, cx: &mut Cx<'_>, i: usize, reason: Counter) {
        if !self.may_fall_back(i) || !self.is_linear(i) {
            return;
        }
        self.fall_back(cx, i, reason);
        self.mute = true;
        self.infinite_map_due = false;
        let s = &mut self.subflows[i];
        s.fail = None;
        // What is outstanding was lost with its options, and timeouts have backed off
        // meanwhile, on both sides: bare it need not wait for the next one, which lifts this.
        s.tcp.limit_backoff(cx.now, Some(Duration::ZERO));
    }

    /// Bytes arrived that no mapping covers, and mapped ones behind them. On the only
    /// subflow they are the stream's next bytes, and true is returned. Elsewhere they will
    /// be dropped and come again, or the subflow is given up.
    pub(crate) fn on_gap(&mut self, cx: &mut Cx<'_>, i: usize) -> bool {
        let s = &self.subflows[i];
        let next = s.rx.pos() == self.reassembly.nxt();
        if next && self.may_fall_back(i) {
            self.options_vanished(cx, i);
            return true;
        }
        // A join whose fate is open decides: what is dropped now could never be made good
        // on the only subflow. No more than was offered comes meanwhile.
        if next && self.is_undecided(i) {
            return true;
        }
        let others = |o: &Subflow| o.id != self.subflows[i].id && o.is_usable();
        let others = self.subflows.iter().any(others);
        let s = &mut self.subflows[i];
        s.gaps = s.gaps.saturating_add(1);
        if s.gaps >= GAPS_MAX && others {
            cx.counters.inc(Counter::DSSCorruptionReset);
            self.kill(i, Some(reset_reason::MIDDLEBOX), "MPTCP options are lost");
            return true;
        }
        false
    }

    /// A mapping whose DSN is nowhere near the window, for the very next byte of the only
    /// subflow: the keys differ, because something changed one (RFC 8684 §3.1).
    pub(crate) fn on_foreign_mapping(&mut self, cx: &mut Cx<'_>, i: usize, pos: Option<u64>) {
        let s = &self.subflows[i];
        let next = pos == Some(s.rx.pos()) && s.rx.pos() == self.reassembly.nxt();
        if !s.initial || !next || self.mode != Mode::Mptcp || !self.may_fall_back(i) {
            return;
        }
        // Its sender does not understand our DATA_ACKs either. After a pause these bytes may be
        // the last ones again, which nobody can tell without the keys.
        let paused = s
            .delivered_at
            .is_some_and(|at| cx.now >= at + REPEATED_AFTER);
        if paused {
            self.fall_back_if(cx, i, Counter::DssFallback, false);
        } else {
            self.options_vanished(cx, i);
        }
    }

    /// Whether a FIN may be that of a peer that has fallen back, and more will be heard from
    /// it because it has yet to acknowledge something.
    pub(crate) fn may_be_last_word(&self, i: usize) -> bool {
        let s = &self.subflows[i];
        let early = !self.closing.closes_subflows(&self.reassembly);
        self.mode == Mode::Mptcp
            && s.initial
            && early
            && !s.sent.is_empty()
            && self.may_fall_back(i)
    }

    /// A FIN without any MPTCP option: its sender has fallen back, if that is possible. An
    /// MPTCP peer that closes one subflow attaches a DATA_ACK.
    pub(crate) fn check_bare_fin(&mut self, cx: &mut Cx<'_>, i: usize, has_mptcp: bool) {
        let s = &self.subflows[i];
        let never = s.initial && !s.dss_seen;
        let early = !self.closing.closes_subflows(&self.reassembly);
        let bare = s.initial && !has_mptcp && early;
        if self.mode == Mode::Mptcp && never {
            self.fall_back(cx, i, Counter::MPCapableDataFallback);
        } else if self.mode == Mode::Mptcp && bare && self.may_fall_back(i) {
            self.fall_back(cx, i, Counter::DssFallback);
        }
    }

    /// Too many bytes wait for a mapping, or options have vanished for good.
    pub(crate) fn options_vanished(&mut self, cx: &mut Cx<'_>, i: usize) {
        if self.is_undecided(i) {
            // What showed that options are lost shows it again.
            return;
        }
        if self.may_fall_back(i) && self.subflows[i].initial {
            // Without this signal a peer whose options arrive here, while ours do not
            // arrive there, could not know; where none pass it is harmless.
            let dsn = self.rcv_space.dsn(self.reassembly.nxt()).0;
            cx.counters.inc(Counter::MPFailTx);
            self.say_fail(cx.now, i, dsn);
        }
        self.fall_back(cx, i, Counter::DssFallback);
    }

    /// ACKs of subflow `i` will carry MP_FAIL.
    fn say_fail(&mut self, now: Instant, i: usize, dsn: u64) {
        let s = &mut self.subflows[i];
        s.fail_said = true;
        s.fail = Some(Box::new(Fail {
            dsn,
            left: FAIL_SENT_MAX,
            // One round trip until what is in flight makes room, another for the answer. Only
            // before anything was delivered: later the peer may be about to join.
            held: (s.tcp.srtt())
                .filter(|_| self.reassembly.nxt() == 0)
                .map(|srtt| now + (srtt * 2).max(FAIL_HOLD_MIN)),
        }));
    }

    /// Until when MP_FAIL of subflow `i` waits for our infinite mapping to arrive: the one
    /// that has left, or the one that will once what is in flight has made room.
    fn fail_held(&self, now: Instant, i: usize) -> Option<Instant> {
        let s = &self.subflows[i];
        let waits = match self.infinite_map_from {
            Some(from) => s.acked_to <= from,
            None => self.infinite_map_due && (!s.sent.is_empty() || s.burst.is_some()),
        };
        (s.fail.as_ref()?.held).filter(|until| waits && *until > now)
    }

    /// MP_FAIL that has waited is said when it need not wait any longer, even if nothing
    /// else asks for an ACK.
    pub(crate) fn release_fail(&mut self, now: Instant, i: usize) {
        if self.fail_held(now, i).is_some() {
            return;
        }
        let s = &mut self.subflows[i];
        if let Some(fail) = &mut s.fail
            && fail.held.take().is_some()
        {
            s.tcp.ack_now();
        }
    }

    /// MP_FAIL to attach to an ACK.
    pub(crate) fn next_fail(&mut self, now: Instant, i: usize) -> Option<MptcpOption> {
        if self.fail_held(now, i).is_some() {
            return None;
        }
        let s = &mut self.subflows[i];
        let fail = s.fail.as_mut()?;
        let dsn = fail.dsn;
        fail.left -= 1;
        fail.held = None;
        if fail.left == 0 {
            s.fail = None;
        }
        Some(MptcpOption::MpFail { dsn })
    }

    /// The infinite mapping on a FIN, when there was no data any more to announce it: the
    /// peer has to learn that this FIN ends the stream.
    pub(crate) fn infinite_mapping_on_fin(
        &self,
        cx: &mut Cx<'_>,
        i: usize,
        seq: SeqNumber,
    ) -> Option<MptcpOption> {
        if !self.infinite_map_due || self.fallback != Some(Counter::DssFallback) {
            return None;
        }
        let map = MapRef {
            dsn: self.send.nxt(),
            ssn: self.subflows[i].ssn(seq),
            len: 0,
            csum: 0,
        };
        self.data_option(cx, i, map).0
    }
}
