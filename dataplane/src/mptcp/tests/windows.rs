//! Windows: what is advertised on each subflow, and what is kept at connection level.

use std::collections::HashMap;

use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::types::FourTuple;

/// What one end of a subflow has advertised.
#[derive(Debug)]
struct Advertised {
    iss: SeqNumber,
    /// Its SYN's window, from when on the peer's numbers are known.
    syn_window: u16,
    shift: Option<u8>,
    edge: Option<SeqNumber>,
}

/// Sees every packet that leaves and holds each subflow to its word: ack + window never
/// moves left, from the SYN to the RST (RFC 9293 §3.8.6; normalisers drop what breaks it).
#[derive(Debug, Default)]
pub(super) struct RightEdges {
    /// By four-tuple as the sender sees it.
    ends: HashMap<FourTuple, Advertised>,
    pub(super) checked: u64,
}

impl RightEdges {
    pub(super) fn observe(&mut self, packet: &TcpPacket) {
        let (own, peer) = (packet.tuple.reversed(), packet.tuple);
        let syn = packet.flags.contains(Flags::SYN);
        if syn && self.ends.get(&own).is_none_or(|e| e.iss != packet.seq) {
            // A new incarnation; a passive end's clock starts with its SYN/ACK.
            self.ends.insert(
                own,
                Advertised {
                    iss: packet.seq,
                    syn_window: packet.window,
                    shift: packet.options.window_scale,
                    edge: None,
                },
            );
        }
        if !packet.flags.contains(Flags::ACK) {
            return;
        }
        let peer_end = self.ends.get(&peer).map(|e| (e.iss, e.shift));
        let (Some(end), Some((peer_iss, peer_shift))) = (self.ends.get_mut(&own), peer_end) else {
            return;
        };
        let shift = match (syn, end.shift, peer_shift) {
            (false, Some(own), Some(_)) => own,
            _ => 0,
        };
        let edge = packet.ack + (u32::from(packet.window) << shift);
        let before = *end
            .edge
            .get_or_insert(peer_iss + 1 + u32::from(end.syn_window));
        assert!(
            edge >= before,
            "{}: the right edge moved left by {}: {:?} ack {} window {} << {shift}",
            packet.tuple,
            before - edge,
            packet.flags,
            packet.ack - peer_iss,
            packet.window,
        );
        end.edge = Some(edge);
        self.checked += 1;
    }
}
