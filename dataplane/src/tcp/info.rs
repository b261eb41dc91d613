//! A connection as operators see it, like `ss -ti`.

use serde::{Deserialize, Serialize};

use super::recovery::Phase;
use super::{Events, Tcp};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpInfo {
    /// RFC 9293 name.
    pub state: String,
    /// `open`, `reduced` (by ECN), `recovery` or `loss`.
    pub phase: String,
    /// Congestion controller.
    pub congestion: String,
    /// Smoothed round trip, 0 before the first sample.
    pub srtt_us: u64,
    /// Its variation.
    pub rttvar_us: u64,
    /// Smallest recent round trip.
    pub min_rtt_us: u64,
    /// Last round trip.
    pub latest_rtt_us: u64,
    /// Retransmission timeout.
    pub rto_us: u64,
    /// Congestion window.
    pub cwnd_bytes: u32,
    /// Slow start threshold; `u32::MAX` before the first loss.
    pub ssthresh_bytes: u32,
    /// Sent, neither SACKed nor lost.
    pub in_flight_bytes: u32,
    /// Sent, not cumulatively acknowledged.
    pub unacked_bytes: u32,
    /// Segments SACKed.
    pub sacked_segments: u32,
    /// Segments waiting to be sent again.
    pub lost_segments: u32,
    /// The peer's window.
    pub snd_wnd_bytes: u32,
    /// Our window as advertised.
    pub rcv_wnd_bytes: u32,
    /// Kept out of order.
    pub out_of_order_bytes: u32,
    /// Payload of a full segment.
    pub mss_bytes: u32,
    /// Pacing, 0 = off.
    pub pacing_bytes_per_s: u64,
    /// The network reorders.
    pub reordering_seen: bool,
    /// Timestamps in use.
    pub timestamps: bool,
    /// SACK in use.
    pub sack: bool,
    /// ECN in use.
    pub ecn: bool,
    /// Window scaling in use: theirs, ours.
    pub window_scale: Option<(u8, u8)>,
    /// Data segments sent, retransmissions included.
    pub segments_out: u64,
    /// Payload bytes sent, retransmissions included.
    pub bytes_out: u64,
    /// Payload bytes acknowledged.
    pub bytes_acked: u64,
    /// Payload bytes received in order.
    pub bytes_in: u64,
    /// Segments retransmitted.
    pub retransmits: u64,
    /// Bytes retransmitted.
    pub bytes_retransmitted: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Timeouts in a row without progress.
    pub consecutive_timeouts: u32,
    /// Tail loss probes.
    pub tail_probes: u64,
    /// Fast recoveries.
    pub recoveries: u64,
    /// Recoveries found spurious.
    pub undos: u64,
    /// DSACKs received.
    pub dsacks: u64,
    /// Segments received with Congestion Experienced.
    pub ce_segments: u64,
    /// Times the window was lowered because the peer echoed marks.
    pub ecn_reductions: u64,
    /// ICMP errors that were noted only.
    pub soft_errors: u64,
}

impl Tcp {
    /// A snapshot for operators.
    #[must_use]
    pub fn info(&self) -> TcpInfo {
        let us = |d: core::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let totals = &self.totals;
        let none = Events::default();
        let events = self.events.as_deref().unwrap_or(&none);
        TcpInfo {
            state: self.state.to_string(),
            phase: match self.recovery.phase {
                Phase::Open => "open",
                Phase::Reduced(_) => "reduced",
                Phase::Fast(_) => "recovery",
                Phase::Loss => "loss",
            }
            .to_owned(),
            congestion: self.congestion.name().to_owned(),
            srtt_us: us(self.rtt.srtt().unwrap_or_default()),
            rttvar_us: us(self.rtt.rttvar()),
            min_rtt_us: us(self.rtt.min().unwrap_or_default()),
            latest_rtt_us: us(self.rtt.latest()),
            rto_us: us(self.rtt.rto()),
            cwnd_bytes: self.cwnd(),
            ssthresh_bytes: self.ssthresh(),
            in_flight_bytes: self.pipe(),
            unacked_bytes: self.board.span(),
            sacked_segments: self.board.sacked_segments(),
            lost_segments: self.board.lost_segments(),
            snd_wnd_bytes: self.snd_wnd,
            rcv_wnd_bytes: self.window.advertised() - self.rcv_nxt,
            out_of_order_bytes: self.reassembly.queued_bytes(),
            mss_bytes: self.mss(),
            pacing_bytes_per_s: self.pacer.rate(),
            reordering_seen: self.rack.reordering_seen(),
            timestamps: self.timestamps.is_some(),
            sack: self.sack,
            ecn: self.ecn.is_on(),
            window_scale: self.scaling.then(|| (self.snd_shift, self.window.shift())),
            segments_out: totals.segments_out,
            bytes_out: totals.bytes_out,
            bytes_acked: totals.bytes_acked,
            bytes_in: totals.bytes_in,
            retransmits: events.retransmits,
            bytes_retransmitted: events.bytes_retransmitted,
            timeouts: events.timeouts,
            consecutive_timeouts: self.recovery.consecutive_rtos,
            tail_probes: events.tail_probes,
            recoveries: events.recoveries,
            undos: events.undos,
            dsacks: events.dsacks,
            ce_segments: events.ce_segments,
            ecn_reductions: events.ecn_reductions,
            soft_errors: events.soft_errors,
        }
    }
}
