//! TIME-WAIT in a few words (RFC 9293 §3.6.1, RFC 6191): the engine keeps these, not connections.

use core::time::Duration;

use super::segment::SegmentIn;
use crate::time::Instant;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::Timestamps;

/// A connection that only remembers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimeWait {
    /// SND.NXT, our FIN included.
    pub snd_nxt: SeqNumber,
    /// RCV.NXT, the peer's FIN included.
    pub rcv_nxt: SeqNumber,
    /// TS.Recent, if timestamps were in use.
    pub ts_recent: Option<u32>,
    /// Offset of our timestamps.
    pub ts_offset: u32,
    /// Window field of ACKs.
    pub window: u16,
    /// How long the wait lasts after the last stray FIN.
    pub length: Duration,
    /// When it ends.
    pub expires: Instant,
}

/// What to do with a segment for a connection in TIME-WAIT.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TimeWaitAction {
    /// Nothing.
    Ignore,
    /// Acknowledge it.
    Ack,
    /// A new connection may take the place; its ISS must exceed SND.NXT of the old one.
    Recycle,
}

impl TimeWait {
    /// Judges a segment.
    pub fn on_segment(&mut self, now: Instant, seg: &SegmentIn<'_>) -> TimeWaitAction {
        // RFC 1337: an RST must not cut TIME-WAIT short.
        if seg.flags.contains(Flags::RST) {
            return TimeWaitAction::Ignore;
        }
        let tsval = seg.options.timestamps.map(|ts| ts.tsval);
        let newer = match (self.ts_recent, tsval) {
            (Some(recent), Some(tsval)) => Some(tsval.wrapping_sub(recent).cast_signed()),
            _ => None,
        };
        if seg.flags.contains(Flags::SYN) && !seg.flags.contains(Flags::ACK) {
            // RFC 6191 §2: a newer timestamp or a sequence number beyond the old connection.
            let fresh = newer.is_some_and(|by| by > 0) || seg.seq > self.rcv_nxt;
            return if fresh {
                TimeWaitAction::Recycle
            } else {
                TimeWaitAction::Ack
            };
        }
        // Stray duplicates of ACKs need no answer; what takes sequence space does.
        if seg.sequence_len() == 0 {
            return TimeWaitAction::Ignore;
        }
        if seg.flags.contains(Flags::FIN) && newer.is_none_or(|by| by >= 0) {
            self.expires = now + self.length;
        }
        TimeWaitAction::Ack
    }

    /// Timestamps for an ACK.
    #[must_use]
    pub fn timestamps(&self, now: Instant) -> Option<Timestamps> {
        self.ts_recent.map(|recent| Timestamps {
            tsval: (now.as_millis() as u32).wrapping_add(self.ts_offset),
            tsecr: recent,
        })
    }
}
