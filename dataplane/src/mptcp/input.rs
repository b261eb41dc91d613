//! Packets in: TCP first, then the MPTCP options of valid segments, then data.

use super::api::{CloseReason, Cx, SubflowId};
use super::event::Event;
use super::mapping::{Declared, Mapping, MappingChecksum, Step};
use super::state::{Core, Mode};
use super::subflow::{Phase, Subflow};
use super::version::ChecksumFlagViolated;
use crate::buf::Chain;
use crate::counters::Counter;
use crate::tcp::{ResetCause, SegmentIn, State};
use crate::time::Duration;
use crate::wire::icmp::{IcmpError, IcmpKind};
use crate::wire::mptcp::{
    DataAck, Dss, DssMapping, MptcpOption, RESET_TRANSIENT, reset_reason, verify_dss_checksum,
};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::Flags;

/// Linux's net.mptcp.stale_loss_cnt is 4; two timeouts in a row without progress are a
/// fraction of a second and have moved everything elsewhere already.
pub(crate) const STALE_RTOS: u32 = 2;

/// How long a subflow that was closed here waits for the peer's FIN. Linux keeps orphans in
/// FIN-WAIT-2 as long (tcp_fin_timeout).
pub(crate) const FIN_WAIT: Duration = Duration::from_secs(60);

/// How long bytes wait for a mapping once everything in front of them is delivered (RFC 8684
/// §3.3.1: a short while). A mapping that was lost comes with the next retransmission; a box
/// that made a line longer never sends one, and its reader waits for the rest of the line.
const UNMAPPED_WAIT: Duration = Duration::from_secs(1);

/// Reasons that say nothing about the path being bad for ever. The default reason goes with
/// every RST of some stacks (Linux among them), flag T unset: held to the letter it would end
/// the use of a path for an address that comes back.
fn passes(reason: u8) -> bool {
    matches!(
        reason,
        reset_reason::UNSPECIFIED | reset_reason::LACK_OF_RESOURCES | reset_reason::BAD_PERFORMANCE
    )
}

impl Core {
    /// See [`super::Connection::may_coalesce`].
    pub(crate) fn may_coalesce(&self, id: SubflowId, packet: &TcpPacket) -> bool {
        let Some(s) = self.index_of(id).map(|i| &self.subflows[i]) else {
            return false;
        };
        // Bare segments on MPTCP are counted one by one: options get lost.
        s.phase == Phase::Established
            && s.death.is_none()
            && (self.mode == Mode::Tcp || !packet.options.mptcp.is_empty())
    }

    /// A segment of subflow `id`, or several that differ in sequence number and length only:
    /// `packet` is the first of them.
    pub(crate) fn on_packet(
        &mut self,
        cx: &mut Cx<'_>,
        id: SubflowId,
        packet: &TcpPacket,
        segments: u32,
        payload: Chain,
    ) {
        let Some(i) = self.index_of(id) else {
            return;
        };
        if self.subflows[i].death.is_some() {
            return;
        }
        self.note_repeated_syn(i, packet);
        if self.overtakes_keys(i, packet) {
            cx.counters.inc(Counter::MPCapableEarlyDrop);
            return;
        }
        self.in_use(cx.now);
        self.couple(cx.now, i);
        let s = &mut self.subflows[i];
        s.totals.segments_received += u64::from(segments);
        // Both kinds stand on any ACK and excuse none.
        let is_signal =
            |o: &MptcpOption| !matches!(o, MptcpOption::Dss(_) | MptcpOption::Window { .. });
        let segment = SegmentIn {
            mptcp_signal: packet.options.mptcp.iter().any(is_signal),
            payload_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            segments,
            ..SegmentIn::from(packet)
        };
        // `packet` says how long the first of them is.
        let bytes = payload.len();
        let verdict = s.tcp.on_segment(cx.now, &segment, payload, cx.counters);
        if let Some(cause) = verdict.reset {
            return self.on_reset(cx, i, packet, cause);
        }
        if !verdict.valid {
            self.check_repeated_syn_ack(cx, i, packet);
            return self.check_repeated_start(cx, i, packet);
        }
        self.heard(cx, i, verdict.acked_bytes > 0);
        self.on_acked(cx, i, verdict.acked_bytes);
        if self.subflows[i].phase != Phase::Established
            && !self.on_handshake(cx, i, packet, verdict.established)
        {
            return;
        }
        if self.remote.is_some() {
            self.note_overhang(i, packet, bytes);
            self.on_options(cx, i, packet, bytes);
        }
        if self.is_over() || self.subflows[i].death.is_some() {
            return;
        }
        if self.mode == Mode::Tcp {
            self.snd_edge = u64::MAX;
        }
        self.on_data(cx, i);
        let has_mptcp = !packet.options.mptcp.is_empty();
        let syn = packet.flags.contains(Flags::SYN);
        if !syn && self.subflows[i].death.is_none() {
            // SACK blocks may have taken the room of a DATA_ACK.
            let acked = verdict.acked_bytes > 0 && packet.options.sack.is_empty();
            // One byte may be a keepalive.
            let again = verdict.duplicate_data && packet.payload.len() > 1;
            self.check_bare(cx, i, has_mptcp, acked, again);
        }
        if self.subflows[i].death.is_none() {
            let held = self.subflows[i].fin_held;
            let crowded = !has_mptcp && !packet.options.sack.is_empty();
            let fin = packet.flags.contains(Flags::FIN);
            // What was lost in front of it may come again with the mapping it first had.
            self.subflows[i].fin_was_bare |= fin && !has_mptcp && !crowded;
            let bare = self.subflows[i].fin_was_bare;
            if verdict.fin && crowded && self.may_be_last_word(i) {
                // A FIN in the middle of a loss may have no room but for SACK blocks. What
                // it ends, the subflow or the stream, the next acknowledgments tell.
                self.subflows[i].fin_held = true;
            } else if verdict.fin || (held && (!crowded || self.mode == Mode::Tcp)) {
                self.subflows[i].fin_held = false;
                self.check_bare_fin(cx, i, !bare && (has_mptcp || crowded));
                self.on_fin(i);
            }
        }
        let s = &mut self.subflows[i];
        let half_closed = s.closing && s.tcp.state() == State::FinWait2;
        let prolongs = s.fin_wait.is_none() || !packet.payload.is_empty();
        if half_closed && prolongs && self.mode == Mode::Mptcp {
            s.fin_wait = Some(cx.now + FIN_WAIT);
        }
        if verdict.fin_acked && self.mode == Mode::Tcp {
            self.closing.fin_is_acked();
        }
        if verdict.closed || self.subflows[i].tcp.state() == State::TimeWait {
            self.bury(i, None, "closed");
        }
        self.advance_close(cx);
    }

    /// The path works.
    fn heard(&mut self, cx: &mut Cx<'_>, i: usize, progress: bool) {
        let s = &mut self.subflows[i];
        if let Some(w) = &mut s.withdrawn {
            w.answered |= w.probe_at.is_none();
        }
        if s.stale && progress {
            s.stale = false;
            cx.counters.inc(Counter::SubflowRecover);
            cx.actions.events.push(Event::SubflowStale {
                token: self.id,
                subflow: s.id,
                stale: false,
            });
        }
    }

    /// The subflow was reset by the peer, or TCP gave it up.
    fn on_reset(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket, cause: ResetCause) {
        let mut reason = None;
        let mut transient = None;
        let mut fastclose = false;
        let mut spoiled = false;
        for option in &packet.options.mptcp {
            match *option {
                MptcpOption::TcpRst { reason: r, flags } if self.version.explains_resets() => {
                    cx.counters.inc(Counter::MPRstRx);
                    reason = Some(r);
                    transient = Some(flags & RESET_TRANSIENT != 0 || passes(r));
                }
                MptcpOption::FastClose { receiver_key } if self.version.explains_resets() => {
                    fastclose |= Some(receiver_key) == self.local.map(|k| k.key);
                }
                MptcpOption::MpFail { .. } => {
                    cx.counters.inc(Counter::MPFailRx);
                    spoiled = true;
                }
                _ => {}
            }
        }
        if cause == ResetCause::Refused && self.retry_plain(cx, i) {
            return;
        }
        let error = match cause {
            ResetCause::Refused => "refused",
            ResetCause::TimedOut => "timed out",
            ResetCause::Unreachable => "unreachable",
            _ => "reset by peer",
        };
        let joining = self.subflows[i].phase == Phase::PreEstablished;
        self.bury(i, reason, error);
        if let Some(death) = &mut self.subflows[i].death {
            death.transient = transient;
        }
        let aborting = self.closing.fastclose.is_some_and(|(id, ..)| {
            // RFC 8684 §3.5: the RST answers our MP_FASTCLOSE.
            id == self.subflows[i].id
        });
        if aborting {
            self.finish(CloseReason::LocalAbort);
        } else if fastclose && self.is_mptcp() {
            self.on_fastclose(cx);
        } else if spoiled {
            self.on_spoiled(cx, true);
        }
        if joining {
            self.join_is_decided(cx);
        }
    }

    /// TCP was acknowledged for more bytes.
    fn on_acked(&mut self, cx: &mut Cx<'_>, i: usize, bytes: u32) {
        if bytes == 0 {
            return;
        }
        let s = &mut self.subflows[i];
        if let Some(end) = s.acknowledged(bytes, &mut self.send) {
            s.acked_to = s.acked_to.max(end);
            if self.mode == Mode::Tcp {
                self.acknowledge_stream(cx, end);
                self.release_fail(cx.now, i);
            }
        }
    }

    /// Everything below `off` has arrived at the peer's connection level.
    pub(crate) fn acknowledge_stream(&mut self, cx: &mut Cx<'_>, off: u64) {
        if self.send.acknowledge(off) == 0 {
            return;
        }
        self.reinject.acknowledge(self.send.una());
        self.data_rto = None;
        self.data_rto_backoff = 0;
        self.unheard = None;
        if let Some(i) = self.repairer.take().and_then(|id| self.index_of(id)) {
            self.subflows[i].swallows = false;
        }
        self.arm_data_rto(cx.now);
        self.refill_hole();
    }

    fn on_options(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket, bytes: usize) {
        for option in &packet.options.mptcp {
            if self.subflows[i].death.is_some() || self.is_over() {
                return;
            }
            match *option {
                MptcpOption::Dss(dss) => self.on_dss(cx, i, packet, bytes, &dss),
                MptcpOption::MpCapable {
                    data_len: Some(len),
                    checksum,
                    ..
                } if self.version.has_keys_with_data() => {
                    self.on_capable_data(cx, i, len, checksum)
                }
                MptcpOption::MpJoinAck { .. } => {
                    // A repetition: our acknowledgment was lost.
                    self.subflows[i].tcp.ack_now();
                }
                MptcpOption::AddAddr {
                    echo: true,
                    address_id,
                    addr,
                    ..
                } if self.version.authenticates_addresses() => self.on_echo(cx, address_id, addr),
                MptcpOption::AddAddr {
                    echo: false,
                    address_id,
                    addr,
                    port,
                    hmac,
                } if self.is_mptcp() => {
                    self.confirm(cx, i);
                    self.on_add_addr(cx, i, address_id, addr, port, hmac);
                }
                MptcpOption::RemoveAddr { ids } if self.is_mptcp() => self.on_remove_addr(cx, ids),
                MptcpOption::MpPrio { backup, address_id } if self.is_mptcp() => {
                    self.on_prio(cx, i, backup, address_id);
                }
                MptcpOption::MpFail { .. } => self.on_mp_fail(cx, i),
                MptcpOption::Window { heard, edge } => self.on_window_option(cx, i, heard, edge),
                MptcpOption::FastClose { receiver_key }
                    if Some(receiver_key) == self.local.map(|k| k.key) && self.is_mptcp() =>
                {
                    self.on_fastclose(cx);
                }
                _ => {}
            }
        }
    }

    /// The peer has both keys for sure.
    fn confirm(&mut self, cx: &mut Cx<'_>, i: usize) {
        self.subflows[i].dss_seen = true;
        if self.is_mptcp() && !std::mem::replace(&mut self.fully_established, true) {
            self.report_established(cx, i);
        }
    }

    /// MP_CAPABLE with data: the mapping of the first bytes (RFC 8684 §3.1).
    fn on_capable_data(&mut self, cx: &mut Cx<'_>, i: usize, len: u16, checksum: Option<u16>) {
        let s = &self.subflows[i];
        if !s.initial || !self.server || self.mode == Mode::Tcp || len == 0 {
            return;
        }
        if checksum.is_some() != self.checksum {
            return self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "checksum flag violated",
            );
        }
        let mapping = DssMapping {
            dsn: self.rcv_space.dsn(0).0,
            wide: true,
            ssn: 1,
            len,
            checksum,
        };
        self.subflows[i].dss_seen = true;
        self.declare(cx, i, &mapping, false);
    }

    fn on_dss(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket, bytes: usize, dss: &Dss) {
        // An answer to a SYN's data may come from a server that has no keys yet and so sends no
        // DATA_ACK (RFC 8684 Figure 19, erratum 6609).
        self.dss_heard = true;
        let early = dss.data_ack.is_none() && self.subflows[i].tcp.syn_data_acked() > 0;
        if early {
            self.subflows[i].dss_seen = true;
        } else {
            self.confirm(cx, i);
        }
        if let Some(ack) = dss.data_ack {
            // A window option beside it says what the header's window does not.
            let is_window = |o: &MptcpOption| matches!(o, MptcpOption::Window { .. });
            let told = self.may_use_window_option() && packet.options.mptcp.iter().any(is_window);
            self.on_data_ack(cx, i, ack, packet.window, told);
        }
        let mapping = match self.version.read_mapping(dss, self.checksum) {
            Ok(Some(mapping)) if mapping.len == 0 => return self.on_infinite_mapping(cx, i),
            Ok(Some(mapping)) if self.mode == Mode::Tcp => {
                if self.covers(i, packet, &mapping, dss.data_fin) {
                    self.check_contiguous(cx, i, &mapping, dss.data_fin);
                }
                return;
            }
            _ if self.mode == Mode::Tcp => return,
            Ok(Some(mapping)) => mapping,
            Ok(None) => return,
            Err(ChecksumFlagViolated) => {
                return self.kill(
                    i,
                    Some(reset_reason::MPTCP_SPECIFIC),
                    "checksum flag violated",
                );
            }
        };
        if mapping.ssn == 0 {
            return self.on_empty_mapping(cx, i, &mapping, dss.data_fin);
        }
        if !self.covers(i, packet, &mapping, dss.data_fin) {
            cx.counters.inc(Counter::DSSNoMatchTCP);
            if !packet.payload.is_empty() {
                self.on_astray(cx, i);
            }
            return;
        }
        // With checksums the bytes themselves will tell.
        if !self.checksum && self.is_shifted(i, packet, bytes, &mapping, dss.data_fin) {
            cx.counters.inc(Counter::DSSNoMatchTCP);
            // Nor is anything dropped while a join decides whether it could come again.
            if self.can_do_without(i) || self.is_undecided(i) {
                return self.options_vanished(cx, i);
            }
            // A box that merges segments looks the same. What has no mapping is not taken, and
            // comes again; a reset would leave nothing for it to come on.
            let dropped = self.subflows[i].rx.drop_held();
            cx.counters.add(Counter::UnmappedDrop, dropped as u64);
            return self.on_astray(cx, i);
        }
        self.declare(cx, i, &mapping, dss.data_fin);
    }

    /// A segment without a mapping of its own lies under the mapping of one before it: a sender
    /// whose TCP cut what was mapped whole. If it does not end where that mapping does,
    /// something put bytes in; what the next mapping claims will tell.
    fn note_overhang(&mut self, i: usize, packet: &TcpPacket, bytes: usize) {
        let maps = |o: &MptcpOption| matches!(o, MptcpOption::Dss(dss) if dss.mapping.is_some());
        let bare = bytes > 0 && !packet.options.mptcp.iter().any(maps);
        if !bare || self.checksum || self.mode == Mode::Tcp {
            return;
        }
        let s = &mut self.subflows[i];
        let first = packet.seq.diff(s.tcp.rcv_start() - 1);
        let start = s.rx_position(first.cast_unsigned());
        let end = start.map(|at| at + bytes as u64);
        if let Some((start, end)) = start.zip(end)
            && let Some(at) = s.rx.mapped_to()
            && start < at
            && at < end
        {
            s.rx.set_overhang(Some(at));
        }
    }

    /// Whether the connection goes on if the mappings of subflow `i` are given up: as TCP, or
    /// on another subflow.
    pub(crate) fn can_do_without(&self, i: usize) -> bool {
        let others = |o: &Subflow| o.id != self.subflows[i].id && o.is_usable();
        self.may_fall_back(i) || self.subflows.iter().any(others)
    }

    /// Something has put bytes into the subflow: this segment's mapping begins at bytes that
    /// came without one before, and ends before the segment does; or it begins at bytes that
    /// an earlier segment had beyond the end of its own. Or something has taken bytes out:
    /// the mapping begins inside the segment, and ends behind it. No sender maps like that,
    /// and a box that splits segments does one or the other.
    fn is_shifted(
        &mut self,
        i: usize,
        packet: &TcpPacket,
        bytes: usize,
        mapping: &DssMapping,
        fin: bool,
    ) -> bool {
        let s = &mut self.subflows[i];
        let first = packet.seq.diff(s.tcp.rcv_start() - 1);
        let payload = i32::try_from(bytes).unwrap_or(i32::MAX);
        let start = mapping.ssn.cast_signed();
        let end = start.wrapping_add(i32::from(mapping.len) - i32::from(fin));
        let (early, late) = (
            start.wrapping_sub(first),
            end.wrapping_sub(first.wrapping_add(payload)),
        );
        let position = s.rx_position(mapping.ssn);
        let claims_bare = early < 0
            && s.rx.held_bytes() > 0
            && !s.rx.front_is_mapped()
            && position == Some(s.rx.pos());
        let grown = claims_bare && late < 0;
        let claims_overhang = claims_bare && s.rx.overhang() == position;
        if late < 0 {
            let len = u64::from(mapping.len) - u64::from(fin);
            s.rx.set_overhang(position.map(|p| p + len));
        }
        grown || claims_overhang || (early > 0 && late > 0)
    }

    /// RFC 8684 §3.3.1: a mapping covers at least part of the segment that carries it.
    fn covers(&self, i: usize, packet: &TcpPacket, mapping: &DssMapping, fin: bool) -> bool {
        let s = &self.subflows[i];
        let first = packet.seq.diff(s.tcp.rcv_start() - 1);
        let payload = i32::try_from(packet.payload.len()).unwrap_or(i32::MAX);
        let start = mapping.ssn.cast_signed();
        let len = i32::from(mapping.len) - i32::from(fin);
        let (behind, ahead) = (
            start.wrapping_add(len).wrapping_sub(first),
            first.wrapping_add(payload).wrapping_sub(start),
        );
        behind > 0 && ahead > 0
    }

    /// SSN 0: a DATA_FIN without data (RFC 8684 §3.3.3).
    fn on_empty_mapping(&mut self, cx: &mut Cx<'_>, i: usize, mapping: &DssMapping, fin: bool) {
        if !fin || mapping.len != 1 {
            cx.counters.inc(Counter::DSSNoMatchTCP);
            return;
        }
        let Some(at) = self.data_offset(mapping) else {
            cx.counters.inc(Counter::NoDSSInWindow);
            return;
        };
        if let Some(checksum) = mapping.checksum {
            let dsn = self.rcv_space.dsn(at).0;
            let nothing = crate::checksum::Sum::ZERO;
            if !verify_dss_checksum(dsn, 0, 1, nothing, checksum) {
                cx.counters.inc(Counter::DataCsumErr);
                return;
            }
        }
        self.take_data_fin(cx, i, at);
    }

    fn take_data_fin(&mut self, cx: &mut Cx<'_>, i: usize, at: u64) {
        if !self.reassembly.set_fin(at) {
            cx.counters.inc(Counter::DSSNotMatching);
        }
        // Acknowledged even if TCP has nothing to acknowledge.
        self.subflows[i].tcp.ack_now();
    }

    /// The stream offset that a mapping starts at.
    pub(crate) fn data_offset(&self, mapping: &DssMapping) -> Option<u64> {
        self.rcv_space
            .offset(mapping.dsn, mapping.wide, self.reassembly.nxt())
    }

    fn declare(&mut self, cx: &mut Cx<'_>, i: usize, mapping: &DssMapping, fin: bool) {
        let offset = self.data_offset(mapping);
        let position = self.subflows[i].rx_position(mapping.ssn);
        let (Some(off), Some(pos)) = (offset, position) else {
            cx.counters.inc(Counter::NoDSSInWindow);
            if offset.is_none() {
                self.on_foreign_mapping(cx, i, position);
            }
            return;
        };
        let dsn = self.rcv_space.dsn(off).0;
        let declared = self.subflows[i].rx.declare(Mapping {
            pos,
            off,
            len: u64::from(mapping.len) - u64::from(fin),
            fin,
            checksum: mapping.checksum.map(|value| MappingChecksum {
                dsn,
                ssn: mapping.ssn,
                len: mapping.len,
                value,
            }),
        });
        match declared {
            Declared::New | Declared::Known => {}
            Declared::Conflict | Declared::Full => cx.counters.inc(Counter::DSSNotMatching),
        }
    }

    fn on_data_ack(&mut self, cx: &mut Cx<'_>, i: usize, ack: DataAck, window: u16, told: bool) {
        let end = self.send.nxt() + u64::from(self.closing.fin().is_some());
        let Some(ack) = self.snd_space.offset(ack.value, ack.wide, self.send.una()) else {
            return;
        };
        if ack > end {
            // Acknowledges what was never sent.
            return;
        }
        self.subflows[i].confirmed = true;
        if !self.window.peer_speaks() && !told {
            // RFC 8684 §3.3.4: relative to the DATA_ACK, and never to the left. It is the window
            // of this segment: TCP keeps another if this one came late or was sent again.
            let window = u64::from(self.subflows[i].tcp.scaled_window(window));
            self.snd_edge = self.snd_edge.max(ack + window);
        }
        if self.mode == Mode::Tcp {
            // Only subflow acknowledgments count after an infinite mapping.
            return;
        }
        if ack > self.send.nxt() {
            self.closing.acknowledge(ack);
            self.unheard = None;
        }
        self.acknowledge_stream(cx, ack.min(self.send.nxt()));
    }

    /// In-order bytes of subflow `i`: mapped ones go to the stream.
    pub(crate) fn on_data(&mut self, cx: &mut Cx<'_>, i: usize) {
        while let Some(chunk) = self.subflows[i].tcp.recv_pop() {
            let s = &mut self.subflows[i];
            s.totals.bytes_received += chunk.chain.len() as u64;
            s.rx.push(chunk.chain);
        }
        if self.subflows[i].phase != Phase::Established {
            return;
        }
        if self.mode == Mode::Tcp {
            return self.deliver_plain(cx, i);
        }
        loop {
            if self.subflows[i].rx.has_gap() && self.on_gap(cx, i) {
                return;
            }
            match self.subflows[i].rx.step() {
                Step::Deliver { off, chain, fin } => {
                    self.subflows[i].astray = 0;
                    self.subflows[i].delivered_at = Some(cx.now);
                    self.was_multipath |= !self.subflows[i].initial;
                    let end = off + chain.len() as u64;
                    self.rx_news |= self
                        .reassembly
                        .insert(off, chain, &mut self.rx, cx.counters);
                    if fin {
                        self.take_data_fin(cx, i, end);
                    }
                }
                Step::Dropped(n) => cx.counters.add(Counter::UnmappedDrop, n as u64),
                Step::BadChecksum(mapping) => return self.on_bad_checksum(cx, i, &mapping),
                Step::Wait => break,
            }
        }
        let s = &mut self.subflows[i];
        let waits = s.rx.held_bytes() > 0 && !s.rx.front_is_mapped();
        s.unmapped = waits.then(|| match s.unmapped {
            Some((pos, until)) if pos == s.rx.pos() => (pos, until),
            _ => (s.rx.pos(), cx.now + UNMAPPED_WAIT),
        });
        // RFC 8684 §3.3.1: a receive window without a mapping ends the subflow.
        let s = &self.subflows[i];
        let limit = usize::try_from(self.buffer.bytes() / 2).unwrap_or(usize::MAX);
        if !s.rx.front_is_mapped() && s.rx.held_bytes() > limit {
            let held = s.rx.held_bytes() as u64;
            self.options_vanished(cx, i);
            if self.mode == Mode::Mptcp {
                cx.counters.add(Counter::UnmappedDrop, held);
            }
        }
    }

    /// The peer's FIN on subflow `i` is in order.
    fn on_fin(&mut self, i: usize) {
        if self.subflows[i].death.is_some() {
            return;
        }
        if self.mode == Mode::Tcp {
            let at = self.reassembly.nxt();
            self.reassembly.set_fin(at);
            return;
        }
        // The peer takes the subflow out of service; what is unmapped stays so.
        let s = &mut self.subflows[i];
        s.close();
        self.reinject_outstanding(i);
    }

    /// An ICMP error about subflow `id`; TCP checks what it quotes.
    pub(crate) fn on_icmp(&mut self, cx: &mut Cx<'_>, id: SubflowId, error: &IcmpError) {
        let Some(i) = self.index_of(id) else {
            return;
        };
        let s = &mut self.subflows[i];
        match error.kind {
            IcmpKind::PacketTooBig { mtu } => {
                s.tcp.on_path_mtu(cx.now, error.seq, mtu, cx.counters);
            }
            IcmpKind::Unreachable { code } => {
                // RFC 1122 §4.2.3.9: protocol and port unreachable are hard errors.
                let hard = if s.tuple().is_ipv6() {
                    code == 4
                } else {
                    matches!(code, 2 | 3)
                };
                if s.tcp.on_icmp_unreachable(error.seq, hard, cx.counters) {
                    self.bury(i, None, "unreachable");
                }
            }
            IcmpKind::TimeExceeded { .. } | IcmpKind::ParameterProblem { .. } => {
                s.tcp.on_icmp_unreachable(error.seq, false, cx.counters);
            }
        }
    }
}
