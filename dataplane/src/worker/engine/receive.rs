//! From a received frame to the connection it belongs to.

use super::reply::l2_of_answer;
use super::{Engine, cx, listen};
use std::ops::Range;

use crate::buf::{Chain, Frame, PacketFrames, Piece};
use crate::checksum;
use crate::counters::Counter;
use crate::io::{PortId, RxChecksum, RxFrame};
use crate::mptcp::{Application, Cx, SubflowPath, TxSink};
use crate::offload::Train;
use crate::tcp::{SegmentIn, TimeWaitAction};
use crate::time::Instant;
use crate::wire::mptcp::MptcpOption;
use crate::wire::packet::{self, IcmpError, Packet, TcpPacket};
use crate::wire::tcp::Flags;
use crate::wire::types::AddressId;
use crate::worker::flow_table::Flow;
use crate::worker::handoff::HandOff;

/// Frames that a superframe of 64 KiB takes; where they are smaller, the list grows.
const SUPERFRAME_FRAGMENTS: usize = 18;

/// How a frame came in.
#[derive(Copy, Clone, Debug)]
pub struct Arrival {
    /// By which interface.
    pub port: PortId,
    /// Its IP MTU: what a subflow that starts here may use.
    pub mtu: u32,
    /// Checksum policy of the port.
    pub checksum: RxChecksum,
    /// Worker that received it and handed it over.
    pub from: Option<u16>,
}

impl Arrival {
    /// Packets that arrived like this one may be taken together.
    fn is_like(self, other: Self) -> bool {
        self.port == other.port && self.from.is_none() && other.from.is_none()
    }
}

impl<A: Application> Engine<A> {
    /// Takes the frames of received packets, as [`Engine::on_packet`] takes each packet. `handed`
    /// gets what must go to another worker.
    pub fn on_frames<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        frames: impl Iterator<Item = RxFrame>,
        sink: &mut S,
        mut handed: impl FnMut(u16, HandOff),
    ) {
        let mut packet = PacketFrames::new();
        for RxFrame { frame, more } in frames {
            if packet.is_empty() {
                if more {
                    packet.reserve(SUPERFRAME_FRAGMENTS);
                    packet.push(frame);
                    continue;
                }
                // Most frames go this way, and no further.
                match self.join_train(arrival, frame) {
                    None => {
                        self.count_packet(arrival);
                        continue;
                    }
                    Some(frame) => packet.push(frame),
                }
            } else {
                packet.push(frame);
                if more {
                    continue;
                }
            }
            let packet = std::mem::take(&mut packet);
            if let Some((worker, message)) = self.on_other_packet(now, arrival, packet, sink) {
                handed(worker, message);
            }
        }
    }

    /// Takes one received packet; what it does may wait for the end of the batch, that is
    /// for [`Engine::run`]. Returns what must go to another worker.
    pub fn on_packet<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        mut frames: PacketFrames,
        sink: &mut S,
    ) -> Option<(u16, HandOff)> {
        if frames.len() == 1
            && let Some(frame) = frames.pop()
        {
            match self.join_train(arrival, frame) {
                None => {
                    self.count_packet(arrival);
                    return None;
                }
                Some(frame) => frames.push(frame),
            }
        }
        self.on_other_packet(now, arrival, frames, sink)
    }

    fn count_packet(&mut self, arrival: Arrival) {
        // Once per packet: whoever hands it over has counted it.
        if arrival.from.is_none() {
            self.counters.inc(Counter::FramesRx);
        }
    }

    /// A packet that continues no train.
    fn on_other_packet<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        frames: PacketFrames,
        sink: &mut S,
    ) -> Option<(u16, HandOff)> {
        self.count_packet(arrival);
        self.end_train(now);
        let head = frames.first()?;
        let len = frames.iter().map(Frame::len).sum();
        match packet::parse_head(head.packet(), len) {
            Ok(Packet::Tcp(tcp)) => self.on_tcp(now, arrival, &tcp, frames, sink),
            Ok(Packet::Icmp(error)) => self.on_icmp(now, arrival, &error, frames),
            Err(_) => {
                self.counters.inc(Counter::ParseError);
                None
            }
        }
    }

    fn on_tcp<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        tcp: &TcpPacket,
        frames: PacketFrames,
        sink: &mut S,
    ) -> Option<(u16, HandOff)> {
        let flow = self.flows.lookup(&tcp.tuple);
        if let Some(Flow::Foreign { worker }) = flow {
            return Some(self.hand_off(worker, arrival, frames));
        }
        let join = join_token(tcp);
        if flow.is_none()
            && let Some(token) = join
            && arrival.from.is_none()
        {
            let owner = token % self.config.worker.count;
            if owner != self.config.worker.index {
                self.counters.inc(Counter::MPJoinHandOff);
                let owner = u16::try_from(owner).expect("workers are counted in u16");
                return Some(self.hand_off(owner, arrival, frames));
            }
        }

        // The one pass over the payload: its sum verifies the TCP checksum now and
        // serves the DSS checksum later. A partial checksum says that the bytes never
        // left this host; then nothing has to be read.
        let head = frames.first()?.packet();
        let partial =
            arrival.checksum == RxChecksum::AcceptPartial && tcp.has_partial_checksum(head);
        let headers = tcp.header_sum(head);
        let mut payload = payload_of(frames, &tcp.payload);
        if partial {
            self.counters.inc(Counter::PartialCsumAccepted);
        } else {
            self.counters
                .add(Counter::RxBytesTouched, payload.len() as u64);
            if !headers.combine(payload.sum(), false).is_zero() {
                self.counters.inc(Counter::InCsumErrors);
                return None;
            }
        }

        self.count_ecn(tcp.ecn);
        match flow {
            Some(Flow::Subflow { conn, subflow }) => {
                let slot = self.slots[conn as usize]
                    .as_mut()
                    .expect("flow of a live slot");
                let single = payload.iter().len() == 1;
                if single && Train::may_begin(tcp) && slot.conn.may_coalesce(subflow, tcp) {
                    self.train.begin(tcp, payload);
                    self.train_arrival = arrival;
                    return None;
                }
                slot.conn
                    .on_packet(&mut cx!(self, now), subflow, tcp, payload);
                self.touched(now, conn);
                None
            }
            Some(Flow::TimeWait { serial }) => {
                let payload = first_data(tcp, payload);
                self.on_time_wait(now, arrival, tcp, serial, join, payload, sink);
                None
            }
            None => {
                let payload = first_data(tcp, payload);
                self.on_unknown(now, arrival, tcp, join, payload, sink);
                None
            }
            Some(Flow::Foreign { .. }) => unreachable!("returned above"),
        }
    }

    fn count_ecn(&mut self, codepoint: u8) {
        match codepoint {
            1 => self.counters.inc(Counter::InECT1Pkts),
            2 => self.counters.inc(Counter::InECT0Pkts),
            3 => self.counters.inc(Counter::InCEPkts),
            _ => {}
        }
    }

    /// Takes a packet of one frame that goes on where the one before it ended. Gives back any
    /// other.
    #[inline]
    fn join_train(&mut self, arrival: Arrival, frame: Frame) -> Option<Frame> {
        let ecn = match self.train.first() {
            Some(first) if arrival.is_like(self.train_arrival) => first.ecn,
            _ => return Some(frame),
        };
        let Some(follower) = self.train.follower(frame.packet()) else {
            return Some(frame);
        };
        let sum = if arrival.checksum == RxChecksum::AcceptPartial && follower.is_partial() {
            self.counters.inc(Counter::PartialCsumAccepted);
            None
        } else {
            let payload = &frame.packet()[follower.payload.clone()];
            self.counters
                .add(Counter::RxBytesTouched, payload.len() as u64);
            let sum = checksum::sum(payload);
            if !follower.header_sum.combine(sum, false).is_zero() {
                self.counters.inc(Counter::InCsumErrors);
                return None;
            }
            Some(sum)
        };
        self.count_ecn(ecn);
        self.train
            .push(Piece::from_frame(frame, follower.payload, sum));
        None
    }

    /// Hands the segments that were collected to their connection.
    pub(super) fn end_train(&mut self, now: Instant) {
        let Some((packet, segments, payload)) = self.train.end() else {
            return;
        };
        // An order may have ended the flow meanwhile.
        if let Some(Flow::Subflow { conn, subflow }) = self.flows.lookup(&packet.tuple)
            && let Some(slot) = self.slots[conn as usize].as_mut()
        {
            slot.conn
                .on_train(&mut cx!(self, now), subflow, &packet, segments, payload);
            self.touched(now, conn);
        }
    }

    /// A segment of a flow in TIME-WAIT.
    #[expect(
        clippy::too_many_arguments,
        reason = "those of `on_unknown` and the flow"
    )]
    fn on_time_wait<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        tcp: &TcpPacket,
        serial: u64,
        join: Option<u32>,
        payload: Chain,
        sink: &mut S,
    ) {
        let Some(state) = self.time_wait.get_mut(serial) else {
            return;
        };
        match state.on_segment(now, &SegmentIn::from(tcp)) {
            TimeWaitAction::Ignore => {}
            TimeWaitAction::Ack => {
                let state = *state;
                self.acknowledge(now, arrival.port, tcp, &state, sink);
            }
            TimeWaitAction::Recycle => {
                self.counters.inc(Counter::TimeWaitRecycled);
                self.flows.remove(&tcp.tuple, Flow::TimeWait { serial });
                if let Some(worker) = self.time_wait.take_route(serial) {
                    self.unroute(worker, tcp.tuple);
                }
                self.on_unknown(now, arrival, tcp, join, payload, sink);
            }
        }
    }

    /// A valid segment of no known flow.
    fn on_unknown<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        tcp: &TcpPacket,
        join: Option<u32>,
        payload: Chain,
        sink: &mut S,
    ) {
        let syn = tcp.flags.contains(Flags::SYN) && !tcp.flags.contains(Flags::ACK);
        let path = SubflowPath {
            port: arrival.port,
            l2: l2_of_answer(tcp),
            tuple: tcp.tuple,
            mtu: arrival.mtu,
            local_id: AddressId(0),
            remote_id: AddressId(0),
            backup: false,
        };
        if !syn || tcp.flags.contains(Flags::RST) || tcp.flags.contains(Flags::FIN) {
            if self.may_be_cookie(now, tcp) {
                return self.on_cookie(now, path, tcp, payload);
            }
            self.counters.inc(Counter::NoFlow);
            if let Some(worker) = arrival.from {
                // It missed the end of this flow: its ring was full.
                self.unroute(Some(worker), tcp.tuple);
            }
            self.refuse(arrival.port, tcp, None, sink);
            return;
        }
        if let Some(token) = join {
            return self.on_join(now, path, tcp, token, arrival.from, sink);
        }
        match self.on_syn(now, &path, tcp, payload) {
            listen::Syn::Accepted | listen::Syn::Dropped => {}
            listen::Syn::Stateless => self.answer_statelessly(now, &path, tcp, sink),
            listen::Syn::Refused => self.refuse(arrival.port, tcp, None, sink),
        }
    }

    fn on_icmp(
        &mut self,
        now: Instant,
        arrival: Arrival,
        error: &IcmpError,
        frames: PacketFrames,
    ) -> Option<(u16, HandOff)> {
        match self.flows.lookup(&error.tuple) {
            Some(Flow::Subflow { conn, subflow }) => {
                let slot = self.slots[conn as usize]
                    .as_mut()
                    .expect("flow of a live slot");
                slot.conn.on_icmp(&mut cx!(self, now), subflow, error);
                self.touched(now, conn);
                None
            }
            Some(Flow::Foreign { worker }) => Some(self.hand_off(worker, arrival, frames)),
            Some(Flow::TimeWait { .. }) | None => {
                self.counters.inc(Counter::IcmpNoFlow);
                None
            }
        }
    }

    fn hand_off(&self, worker: u16, arrival: Arrival, frames: PacketFrames) -> (u16, HandOff) {
        let from = u16::try_from(self.config.worker.index).expect("workers are counted in u16");
        (
            worker,
            HandOff::Packet {
                port: arrival.port,
                from,
                frames,
            },
        )
    }
}

/// The payload, which the IP length bounds, of a packet in one frame or several.
fn payload_of(frames: PacketFrames, payload: &Range<usize>) -> Chain {
    let mut chain = Chain::with_capacity(frames.len());
    let mut start = 0;
    for frame in frames {
        let end = start + frame.len();
        let (from, to) = (payload.start.max(start), payload.end.min(end));
        if from < to {
            chain.push(Piece::from_frame(frame, from - start..to - start, None));
        }
        start = end;
    }
    chain
}

/// The data of a segment without a flow: of a SYN that may come with a Fast Open cookie, or of
/// the first segment of a client whose SYN left no trace.
fn first_data(tcp: &TcpPacket, payload: Chain) -> Chain {
    if tcp.options.fast_open.is_some() || !tcp.flags.contains(Flags::SYN) {
        payload
    } else {
        Chain::new()
    }
}

/// The token of a SYN with MP_JOIN.
fn join_token(tcp: &TcpPacket) -> Option<u32> {
    if !tcp.flags.contains(Flags::SYN) || tcp.flags.contains(Flags::ACK) {
        return None;
    }
    tcp.options.mptcp.iter().find_map(|option| match option {
        MptcpOption::MpJoinSyn { token, .. } => Some(token.0),
        _ => None,
    })
}
