//! Data segments: new bursts, retransmissions, and how any of them leaves.

use super::api::{Cx, TxSink};
use super::options;
use super::recv::RecvStream;
use super::schedulers::{Candidate, Class, Decision, Demand, Pick};
use super::state::{Core, Mode};
use super::subflow::{Burst, Subflow};
use crate::checksum::{Sum, copy_and_sum};
use crate::counters::Counter;
use crate::io::{PortId, Tx};
use crate::offload::header::TcpHeaderOut;
use crate::tcp::MapRef;
use crate::time::Instant;
use crate::wire::mptcp::{DssMapping, MptcpOption, dss_checksum};
use crate::wire::tcp::{Flags, SeqNumber};

/// Bytes under one mapping: a GSO superframe's worth, below what 16 bits of data-level
/// length can say with a DATA_FIN.
const BURST_BYTES_MAX: u64 = 64_000;

/// Bytes of a burst that goes to a port which segments: full packets. A sliver at each end
/// would be one packet in some fifty on the wire, and end the superframe of whoever receives.
fn whole_packets(packet: u64) -> u64 {
    match BURST_BYTES_MAX / packet {
        0 => BURST_BYTES_MAX,
        packets => packets * packet,
    }
}
/// Ring slots that data leaves to ACKs.
const ROOM_FOR_ACKS: u32 = 2;

/// Whether the port of a subflow takes data.
pub(super) fn has_room<S: TxSink>(sink: &S, s: &Subflow) -> bool {
    sink.room(s.path.port) > ROOM_FOR_ACKS
}

/// A burst being taken from the application.
#[derive(Debug)]
pub(crate) struct Plan {
    i: usize,
    port: PortId,
    header_len: usize,
    mss: usize,
    bytes: u64,
    frames: u32,
    /// What was taken, and its sum.
    off: u64,
    len: u64,
    sum: Sum,
}

/// Fills `out` as far as the application has something to give, which may take several calls.
#[inline]
fn fill_whole(
    rx: &mut RecvStream,
    out: &mut [u8],
    fill: &mut impl FnMut(&mut RecvStream, &mut [u8]) -> (usize, Sum),
) -> (usize, Sum) {
    let want = out.len();
    let (mut n, mut sum) = fill(rx, out);
    debug_assert!(n <= want, "filled more than there is room");
    n = n.min(want);
    while n > 0 && n < want {
        let (more, part) = fill(rx, &mut out[n..]);
        debug_assert!(more <= want - n, "filled more than there is room");
        if more == 0 {
            break;
        }
        sum = sum.combine(part, n % 2 == 1);
        n = (n + more).min(want);
    }
    (n, sum)
}

/// What became of a data segment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Sent,
    /// No room or no frame: later.
    Full,
    /// The port is down.
    NoCarrier,
    /// The payload is not there any more.
    Lost,
}

impl Core {
    // ---- which subflow ----

    pub(super) fn class(s: &Subflow) -> Class {
        if s.impaired() {
            Class::LastResort
        } else if s.backup() {
            Class::Backup
        } else {
            Class::Regular
        }
    }

    /// What a scheduler knows of each subflow. Those that do not `fit` have no budget.
    pub(super) fn candidates<S: TxSink>(
        &self,
        cx: &Cx<'_>,
        sink: &S,
        fits: impl Fn(&Subflow) -> bool + Clone,
    ) -> impl Iterator<Item = Candidate> + Clone {
        let head = self.send.nxt();
        let una = self.send.una();
        self.subflows
            .iter()
            .enumerate()
            .filter(|(_, s)| s.is_usable() && !s.port_down)
            .map(move |(index, s)| Candidate {
                index,
                id: s.id.0,
                srtt: s.tcp.srtt(),
                rttvar: s.tcp.rttvar(),
                min_rtt: s.tcp.min_rtt(),
                budget: if s.burst.is_none() && fits(s) && has_room(sink, s) {
                    s.tcp.send_budget(cx.now)
                } else {
                    0
                },
                in_flight: s.tcp.bytes_in_flight(),
                unacked: s.tcp.unacked_bytes(),
                cwnd: s.tcp.cwnd(),
                mss: s.tcp.mss(),
                stalled: s.tcp.is_stalled(),
                lags: s.given_to.max(una) < head,
                class: Self::class(s),
            })
    }

    /// Whether some port keeps a subflow from sending.
    pub(super) fn short_of_room<S: TxSink>(&self, sink: &S) -> bool {
        self.subflows
            .iter()
            .any(|s| s.is_usable() && !s.port_down && !has_room(sink, s))
    }

    /// Tells TCP whether a closed window is worth probing.
    pub(crate) fn set_data_waiting(&mut self, now: Instant, waiting: bool) {
        self.blocked &= waiting;
        let reinjections = !self.reinject.is_empty();
        for s in &mut self.subflows {
            s.tcp
                .set_data_waiting(now, waiting || reinjections || s.burst.is_some());
        }
    }

    // ---- new data ----

    /// Which subflow may take how much new data. `None`: not now.
    pub(crate) fn plan_burst<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &S,
        backlog: Option<u64>,
        full: &mut bool,
    ) -> Option<Plan> {
        let window = self.snd_edge.saturating_sub(self.send.nxt());
        let queue = u64::from(cx.config.send_buffer_bytes).saturating_sub(self.send.bytes());
        let held = u32::try_from(self.send.frames()).unwrap_or(u32::MAX);
        let frames = cx.windows.send_frames(cx.config.send_buffer_frames);
        let frames = frames.saturating_sub(held);
        let room = if frames == 0 { 0 } else { window.min(queue) };
        self.blocked = window == 0 && self.send.unacked() == 0;
        if room == 0 {
            self.help_head_of_line(cx);
            return None;
        }
        let pick = self.choose(cx, sink, backlog, full)?;
        let candidate = pick.candidate;
        let s = &self.subflows[candidate.index];
        let mss = u64::from(s.tcp.mss());
        // RFC 9293 §3.8.6.2.1: rather wait than send a sliver into a nearly full window.
        if room < mss && self.send.unacked() > 0 {
            return None;
        }
        // The keys travel on the first segment alone: other stacks know them no other way.
        let frames = if self.carries_keys(s, s.ssn(s.tcp.snd_nxt())) {
            1
        } else {
            frames
        };
        let burst = match sink.segment_bytes(s.path.port) {
            0 => BURST_BYTES_MAX,
            _ => whole_packets(mss * u64::from(s.tcp.parts())),
        };
        let bytes = room
            .min(u64::from(candidate.budget))
            .min(pick.bytes_max)
            .min(burst);
        Some(Plan {
            i: candidate.index,
            port: s.path.port,
            header_len: s.data_header_len(),
            mss: usize::try_from(mss).unwrap_or(usize::MAX),
            bytes,
            frames: sink
                .room(s.path.port)
                .saturating_sub(ROOM_FOR_ACKS)
                .min(frames),
            off: self.send.nxt(),
            len: 0,
            sum: Sum::ZERO,
        })
    }

    /// The scheduler's choice for new data.
    fn choose<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &S,
        backlog: Option<u64>,
        full: &mut bool,
    ) -> Option<Pick> {
        let buffer = u64::from(cx.config.send_buffer_bytes);
        let demand = Demand {
            now: cx.now,
            window: self.snd_edge.saturating_sub(self.send.una()).min(buffer),
            waiting: backlog,
        };
        // Taken out, for it looks at the rest of the connection.
        let mut scheduler = std::mem::take(&mut self.scheduler);
        let decision = scheduler.pick(&demand, self.candidates(cx, sink, |_| true));
        self.scheduler = scheduler;
        match decision {
            Decision::Send(pick) => return Some(pick),
            Decision::Wait => cx.counters.inc(Counter::SchedulerWait),
            Decision::Nothing => {}
        }
        *full |= self.short_of_room(sink);
        None
    }

    /// Pulls a burst from the application straight into frames. Returns how many bytes.
    pub(crate) fn fill_burst<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        plan: &mut Plan,
        full: &mut bool,
        mut fill: impl FnMut(&mut RecvStream, &mut [u8]) -> (usize, Sum),
    ) -> u64 {
        for _ in 0..plan.frames {
            let left = usize::try_from(plan.bytes - plan.len).unwrap_or(usize::MAX);
            let want = plan.mss.min(left);
            if want == 0 {
                break;
            }
            let Some(mut frame) = sink.alloc(plan.port) else {
                cx.counters.inc(Counter::TxNoFrame);
                *full = true;
                break;
            };
            let (mut n, mut sum) = (0, Sum::ZERO);
            frame.write(|buffer| {
                let Some(out) = buffer.get_mut(plan.header_len..plan.header_len + want) else {
                    debug_assert!(false, "a fresh frame has no room for a segment");
                    return 0;
                };
                (n, sum) = fill_whole(&mut self.rx, out, &mut fill);
                plan.header_len + n
            });
            if n == 0 {
                break;
            }
            // At most a segment.
            let len = u32::try_from(n).unwrap_or(u32::MAX);
            self.send.push(frame, plan.header_len, len, sum, plan.port);
            plan.sum = plan.sum.combine(sum, plan.len % 2 == 1);
            plan.len += n as u64;
            if n < want {
                break;
            }
        }
        cx.counters.add(Counter::BytesTaken, plan.len);
        cx.counters.add(Counter::TxBytesTouched, plan.len);
        plan.len
    }

    /// Maps a filled burst to its subflow. `finished`: the DATA_FIN goes with it.
    pub(crate) fn start_burst(&mut self, plan: &Plan, finished: bool) {
        let end = plan.off + plan.len;
        let s = &self.subflows[plan.i];
        let ssn = s.ssn(s.tcp.snd_nxt());
        let first = self.carries_keys(s, ssn);
        let map = match self.mode {
            Mode::Tcp if self.infinite_map_due => {
                self.infinite_map_due = false;
                self.infinite_map_from = Some(plan.off);
                MapRef {
                    dsn: plan.off,
                    ssn,
                    len: 0,
                    csum: 0,
                }
            }
            Mode::Tcp => MapRef::default(),
            Mode::Mptcp => {
                // MP_CAPABLE with data has no flag for it.
                let fin = finished && !first;
                if fin {
                    self.closing.set_fin(end);
                }
                self.mapping(plan.off, ssn, plan.len, fin, plan.sum)
            }
        };
        self.send.add_refs(plan.off, end);
        let s = &mut self.subflows[plan.i];
        s.given_to = end;
        s.burst = Some(Burst {
            start: plan.off,
            next: plan.off,
            end,
            map,
        });
    }

    pub(crate) fn mapping(&self, off: u64, ssn: u32, len: u64, fin: bool, sum: Sum) -> MapRef {
        let len = u16::try_from(len + u64::from(fin)).unwrap_or(u16::MAX);
        let csum = if self.checksum {
            dss_checksum(self.snd_space.dsn(off).0, ssn, len, sum)
        } else {
            0
        };
        MapRef {
            dsn: off,
            ssn,
            len,
            csum,
        }
    }

    /// Sends what was filled and not taken by a port yet.
    pub(crate) fn send_bursts<S: TxSink>(&mut self, cx: &mut Cx<'_>, sink: &mut S) -> bool {
        let mut full = false;
        for i in 0..self.subflows.len() {
            while let Some(burst) = self.subflows[i].burst {
                let s = &self.subflows[i];
                if !s.is_usable() || s.port_down || self.is_aborting() {
                    break;
                }
                let Some(len) = self.send.chunk(burst.next).map(|c| c.len) else {
                    debug_assert!(false, "burst without payload");
                    self.subflows[i].burst = None;
                    break;
                };
                let whole = match self.transmit_segments(cx, sink, i, burst) {
                    None => self.transmit_train(cx, sink, i, burst),
                    whole => whole,
                };
                let (end, outcome) = whole.unwrap_or_else(|| {
                    let end = burst.next + u64::from(len);
                    let seq = self.subflows[i].tcp.snd_nxt();
                    let (off, push) = (burst.next, end == burst.end);
                    match self.transmit(cx, sink, i, off, len, seq, burst.map, push) {
                        Outcome::Sent => (end, Outcome::Sent),
                        outcome => (off, outcome),
                    }
                });
                if end > burst.next {
                    self.record_sent(cx.now, i, burst, end);
                }
                match outcome {
                    Outcome::Sent => {}
                    Outcome::Full => {
                        full = true;
                        break;
                    }
                    Outcome::NoCarrier => break,
                    Outcome::Lost => {
                        self.kill(i, None, "payload lost");
                        break;
                    }
                }
            }
        }
        full
    }

    // ---- again ----

    /// What TCP wants resent.
    pub(crate) fn send_retransmissions<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
    ) -> bool {
        let mut full = false;
        for i in 0..self.subflows.len() {
            while let Some(range) = self.next_retransmission(cx, i) {
                match self.transmit(
                    cx, sink, i, range.dsn, range.len, range.seq, range.map, true,
                ) {
                    Outcome::Sent => {}
                    Outcome::Full => {
                        full = true;
                        break;
                    }
                    Outcome::NoCarrier => break,
                    Outcome::Lost => {
                        self.kill(i, None, "payload lost");
                        break;
                    }
                }
                let s = &mut self.subflows[i];
                s.tcp.record_retransmit(cx.now, range.seq, range.len);
                s.totals.bytes_retransmitted += u64::from(range.len);
                s.totals.segments_retransmitted += 1;
            }
        }
        full
    }

    fn next_retransmission(&mut self, cx: &Cx<'_>, i: usize) -> Option<crate::tcp::TxRange> {
        let aborting = self.is_aborting();
        let s = &mut self.subflows[i];
        if s.death.is_some() || s.port_down || aborting {
            return None;
        }
        s.tcp.next_retransmit(cx.now)
    }

    /// Sends one data segment: in place if its frame is free and fits, else from a copy.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field of the segment; a struct would only rename them"
    )]
    pub(super) fn transmit<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        off: u64,
        len: u32,
        seq: SeqNumber,
        map: MapRef,
        push: bool,
    ) -> Outcome {
        let (option, ack) = self.data_option(cx, i, map);
        let s = &mut self.subflows[i];
        let port = s.path.port;
        let fields = s.tcp.header(cx.now);
        let options_len = s.data_options_len();
        let options = options::data(fields.timestamps, option.as_ref(), options_len);
        let header_len = s.template.header_len(options_len);
        let marks = s.tcp.data_marks(seq);
        let mut flags = fields.flags | marks.flags;
        if push {
            flags |= Flags::PSH;
        }
        let header = TcpHeaderOut {
            seq,
            ack: fields.ack,
            flags,
            window: fields.window,
            urgent: 0,
            ecn: marks.ecn,
        };
        let bytes = len as usize;
        let Some(chunk) = self.send.chunk_mut(off) else {
            return Outcome::Lost;
        };
        let whole = chunk.off == off && chunk.len == len;
        let Some(frame) = chunk.frame.as_mut() else {
            return Outcome::Lost;
        };
        let obstacle = if !whole {
            Some(Counter::TxRecopyMss)
        } else if chunk.header_len != header_len || !sink.shares_frames(chunk.port, port) {
            Some(Counter::TxRecopyHeaderClass)
        } else if frame.in_flight() {
            Some(Counter::TxRecopyInFlight)
        } else {
            None
        };
        let tx = if let Some(obstacle) = obstacle {
            if sink.room(port) == 0 {
                return Outcome::Full;
            }
            let Some(mut copy) = sink.alloc(port) else {
                cx.counters.inc(Counter::TxNoFrame);
                return Outcome::Full;
            };
            let skip = usize::try_from(off - chunk.off).unwrap_or(usize::MAX);
            let Some(payload) = chunk.payload().and_then(|p| p.get(skip..skip + bytes)) else {
                return Outcome::Lost;
            };
            let Some(out) = copy.buffer_mut() else {
                return Outcome::Full;
            };
            let sum = copy_and_sum(&mut out[header_len..header_len + bytes], payload);
            s.template.emit(out, &header, &options, bytes, sum);
            copy.set_len(header_len + bytes);
            cx.counters.inc(obstacle);
            cx.counters.add(Counter::TxBytesTouched, u64::from(len));
            sink.send(port, &copy)
        } else {
            let sum = chunk.sum;
            let Some(out) = frame.buffer_mut() else {
                return Outcome::Full;
            };
            s.template.emit(out, &header, &options, bytes, sum);
            frame.set_len(header_len + bytes);
            sink.send(port, frame)
        };
        self.data_sent(cx, i, tx, ack)
    }

    /// What a port said to a data segment, or to a burst of them, that carries `ack`.
    pub(super) fn data_sent(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        tx: Tx,
        ack: Option<u64>,
    ) -> Outcome {
        let port = self.subflows[i].path.port;
        match tx {
            Tx::Queued => {}
            Tx::Full => {
                cx.counters.inc(Counter::TxRingFull);
                return Outcome::Full;
            }
            Tx::NoCarrier => {
                cx.counters.inc(Counter::TxNoCarrier);
                self.on_port(cx, port, true);
                return Outcome::NoCarrier;
            }
        }
        let s = &mut self.subflows[i];
        self.was_multipath |= !s.initial;
        s.tcp.ack_sent(cx.now);
        if let Some(ack) = ack {
            s.data_ack_sent = ack;
        }
        Outcome::Sent
    }

    /// The DATA_ACK to send, as a stream offset.
    pub(crate) fn data_ack(&self) -> Option<u64> {
        self.remote?;
        let speaks = match self.mode {
            Mode::Mptcp => true,
            // Until the peer has fallen back, too, it needs them to free its buffer.
            Mode::Tcp => self.fallback == Some(Counter::DssFallback),
        };
        (speaks && self.send_data_acks && !self.mute).then(|| self.reassembly.ack())
    }

    /// Whether data at `ssn` goes out with MP_CAPABLE instead of a DSS (RFC 8684 §3.1): the
    /// client's first, until the server is known to have the keys.
    pub(super) fn carries_keys(&self, s: &Subflow, ssn: u32) -> bool {
        self.version.has_keys_with_data()
            && !self.server
            && s.initial
            && ssn == 1
            && !self.fully_established
            && self.is_mptcp()
    }

    /// The MPTCP option of a data segment under `map`, and the DATA_ACK in it.
    pub(super) fn data_option(
        &self,
        cx: &mut Cx<'_>,
        i: usize,
        map: MapRef,
    ) -> (Option<MptcpOption>, Option<u64>) {
        if self.mute {
            return (None, None);
        }
        let ack = self.data_ack();
        let wire_ack = ack.map(|a| self.rcv_space.dsn(a).0);
        if map == MapRef::default() {
            return (wire_ack.map(|a| options::dss(Some(a), None, false)), ack);
        }
        if map.len > 0 && self.carries_keys(&self.subflows[i], map.ssn) {
            return (self.capable_ack(cx.config, Some((map.len, map.csum))), None);
        }
        if map.len == 0 {
            cx.counters.inc(Counter::InfiniteMapTx);
        }
        let mapping = DssMapping {
            dsn: self.snd_space.dsn(map.dsn).0,
            wide: true,
            ssn: map.ssn,
            len: map.len,
            checksum: self.checksum.then_some(map.csum),
        };
        let fin = map.len > 0 && self.closing.fin() == Some(map.dsn + u64::from(map.len) - 1);
        (Some(options::dss(wire_ack, Some(mapping), fin)), ack)
    }
}
