//! Answers that need no connection: RST for nobody's segment, ACK from TIME-WAIT.

use super::Engine;
use crate::checksum::Sum;
use crate::counters::Counter;
use crate::io::{PortId, Tx};
use crate::mptcp::{Application, TxSink};
use crate::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use crate::tcp::TimeWait;
use crate::time::Instant;
use crate::wire::mptcp::MptcpOption;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;

/// Hops an answer may take (RFC 1700's default).
const TTL: u8 = 64;

/// The link header of an answer: back to where the packet came from.
pub(super) fn l2_of_answer(packet: &TcpPacket) -> L2Header {
    L2Header {
        dst: packet.eth.src,
        src: packet.eth.dst,
        vlan: packet.vlan,
    }
}

impl<A: Application> Engine<A> {
    /// RST as RFC 9293 §3.10.7.1 asks, unless the segment is a RST itself; with
    /// `reason`, MP_TCPRST beside it (RFC 8684 §3.6).
    pub(super) fn refuse<S: TxSink>(
        &mut self,
        port: PortId,
        segment: &TcpPacket,
        reason: Option<u8>,
        sink: &mut S,
    ) {
        if segment.flags.contains(Flags::RST) {
            return;
        }
        let (seq, ack, flags) = if segment.flags.contains(Flags::ACK) {
            (segment.ack, SeqNumber(0), Flags::RST)
        } else {
            let phantom = u32::from(segment.flags.contains(Flags::SYN))
                + u32::from(segment.flags.contains(Flags::FIN));
            let length = u32::try_from(segment.payload.len()).expect("an IP packet") + phantom;
            (SeqNumber(0), segment.seq + length, Flags::RST | Flags::ACK)
        };
        let mut options = OptionsBuf::new();
        if let Some(reason) = reason
            && options
                .mptcp(&MptcpOption::TcpRst { flags: 0, reason })
                .is_ok()
        {
            self.counters.inc(Counter::MPRstTx);
        }
        self.answer(
            port,
            segment,
            TcpHeaderOut {
                seq,
                ack,
                flags,
                window: 0,
                urgent: 0,
                ecn: 0,
            },
            &options,
            sink,
        );
        self.counters.inc(Counter::OutRsts);
    }

    /// The ACK that a flow in TIME-WAIT owes to a stray segment.
    pub(super) fn acknowledge<S: TxSink>(
        &mut self,
        now: Instant,
        port: PortId,
        segment: &TcpPacket,
        state: &TimeWait,
        sink: &mut S,
    ) {
        let header = TcpHeaderOut {
            seq: state.snd_nxt,
            ack: state.rcv_nxt,
            flags: Flags::ACK,
            window: state.window,
            urgent: 0,
            ecn: 0,
        };
        let mut options = OptionsBuf::new();
        if let Some(timestamps) = state.timestamps(now) {
            // The first option always fits.
            let _ = options.timestamps(timestamps);
        }
        self.answer(port, segment, header, &options, sink);
    }

    pub(super) fn answer<S: TxSink>(
        &mut self,
        port: PortId,
        segment: &TcpPacket,
        header: TcpHeaderOut,
        options: &OptionsBuf,
        sink: &mut S,
    ) {
        let Ok(template) = HeaderTemplate::new(l2_of_answer(segment), &segment.tuple, 0, TTL)
        else {
            return;
        };
        let Some(mut frame) = sink.alloc(port) else {
            self.counters.inc(Counter::TxNoFrame);
            return;
        };
        let Some(out) = frame.buffer_mut() else {
            return;
        };
        let length = template.emit(out, &header, options, 0, Sum::default());
        frame.set_len(length);
        match sink.send(port, &frame) {
            Tx::Queued => {}
            Tx::Full => self.counters.inc(Counter::TxRingFull),
            Tx::NoCarrier => self.counters.inc(Counter::TxNoCarrier),
        }
    }
}
