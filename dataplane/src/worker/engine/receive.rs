//! From a received frame to the connection it belongs to.

use super::reply::l2_of_answer;
use super::{Engine, cx, listen};
use crate::buf::{Chain, Frame, Piece};
use crate::checksum;
use crate::counters::Counter;
use crate::io::{PortId, RxChecksum};
use crate::mptcp::{Application, Cx, SubflowPath, TxSink};
use crate::tcp::{SegmentIn, TimeWaitAction};
use crate::time::Instant;
use crate::wire::mptcp::MptcpOption;
use crate::wire::packet::{self, ChecksumVerdict, IcmpError, Packet, TcpPacket};
use crate::wire::tcp::Flags;
use crate::wire::types::AddressId;
use crate::worker::flow_table::Flow;
use crate::worker::handoff::HandOff;

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

impl<A: Application> Engine<A> {
    /// Takes one received frame. Returns what must go to another worker.
    pub fn on_frame<S: TxSink>(
        &mut self,
        now: Instant,
        arrival: Arrival,
        frame: Frame,
        sink: &mut S,
    ) -> Option<(u16, HandOff)> {
        // Once per frame: whoever hands it over has counted it.
        if arrival.from.is_none() {
            self.counters.inc(Counter::FramesRx);
        }
        match packet::parse(frame.packet()) {
            Ok(Packet::Tcp(tcp)) => self.on_tcp(now, arrival, &tcp, frame, sink),
            Ok(Packet::Icmp(error)) => self.on_icmp(now, arrival, &error, frame),
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
        frame: Frame,
        sink: &mut S,
    ) -> Option<(u16, HandOff)> {
        let flow = self.flows.lookup(&tcp.tuple);
        if let Some(Flow::Foreign { worker }) = flow {
            return Some(self.hand_off(worker, arrival, frame));
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
                return Some(self.hand_off(owner, arrival, frame));
            }
        }

        // The one pass over the payload: its sum verifies the TCP checksum now and
        // serves the DSS checksum later. A partial checksum says that the bytes never
        // left this host; then nothing has to be read.
        let payload = frame.packet().get(tcp.payload.clone()).unwrap_or_default();
        let partial = arrival.checksum == RxChecksum::AcceptPartial
            && tcp.has_partial_checksum(frame.packet());
        let sum = if partial {
            self.counters.inc(Counter::PartialCsumAccepted);
            None
        } else {
            let sum = checksum::sum(payload);
            self.counters
                .add(Counter::RxBytesTouched, payload.len() as u64);
            if tcp.verify_checksum(frame.packet(), sum) != ChecksumVerdict::Valid {
                self.counters.inc(Counter::InCsumErrors);
                return None;
            }
            Some(sum)
        };

        match tcp.ecn {
            1 => self.counters.inc(Counter::InECT1Pkts),
            2 => self.counters.inc(Counter::InECT0Pkts),
            3 => self.counters.inc(Counter::InCEPkts),
            _ => {}
        }
        match flow {
            Some(Flow::Subflow { conn, subflow }) => {
                let slot = self.slots[conn as usize]
                    .as_mut()
                    .expect("flow of a live slot");
                let mut chain = Chain::new();
                if !tcp.payload.is_empty() {
                    chain.push(Piece::from_frame(frame, tcp.payload.clone(), sum));
                }
                slot.conn
                    .on_packet(&mut cx!(self, now), subflow, tcp, chain);
                self.touched(now, conn);
                None
            }
            Some(Flow::TimeWait { serial }) => {
                let payload = syn_payload(tcp, frame, sum);
                self.on_time_wait(now, arrival, tcp, serial, join, payload, sink);
                None
            }
            None => {
                let payload = syn_payload(tcp, frame, sum);
                self.on_unknown(now, arrival, tcp, join, payload, sink);
                None
            }
            Some(Flow::Foreign { .. }) => unreachable!("returned above"),
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
        if !syn || tcp.flags.contains(Flags::RST) || tcp.flags.contains(Flags::FIN) {
            self.counters.inc(Counter::NoFlow);
            if let Some(worker) = arrival.from {
                // It missed the end of this flow: its ring was full.
                self.unroute(Some(worker), tcp.tuple);
            }
            self.refuse(arrival.port, tcp, None, sink);
            return;
        }
        let path = SubflowPath {
            port: arrival.port,
            l2: l2_of_answer(tcp),
            tuple: tcp.tuple,
            mtu: arrival.mtu,
            local_id: AddressId(0),
            remote_id: AddressId(0),
            backup: false,
        };
        if let Some(token) = join {
            self.on_join(now, path, tcp, token, arrival.from, sink);
        } else if let listen::Syn::Refused = self.on_syn(now, path, tcp, payload) {
            self.refuse(arrival.port, tcp, None, sink);
        }
    }

    fn on_icmp(
        &mut self,
        now: Instant,
        arrival: Arrival,
        error: &IcmpError,
        frame: Frame,
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
            Some(Flow::Foreign { worker }) => Some(self.hand_off(worker, arrival, frame)),
            Some(Flow::TimeWait { .. }) | None => {
                self.counters.inc(Counter::IcmpNoFlow);
                None
            }
        }
    }

    fn hand_off(&self, worker: u16, arrival: Arrival, frame: Frame) -> (u16, HandOff) {
        let from = u16::try_from(self.config.worker.index).expect("workers are counted in u16");
        (
            worker,
            HandOff::Frame {
                port: arrival.port,
                from,
                frame,
            },
        )
    }
}

/// The data of a SYN that may come with a Fast Open cookie.
fn syn_payload(tcp: &TcpPacket, frame: Frame, sum: Option<checksum::Sum>) -> Chain {
    let mut chain = Chain::new();
    if tcp.options.fast_open.is_some() && !tcp.payload.is_empty() {
        chain.push(Piece::from_frame(frame, tcp.payload.clone(), sum));
    }
    chain
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
