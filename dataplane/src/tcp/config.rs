//! What the owner of a connection chooses.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::ecn::EcnPolicy;
use crate::time::Span;

/// Which congestion controller a connection runs.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CongestionKind {
    /// RFC 5681 and 6582.
    #[serde(rename = "reno")]
    NewReno,
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 6356: linked increases over the subflows of a connection.
    Lia,
    /// Khalili et al. 2012: opportunistic linked increases.
    Olia,
    /// Peng et al. 2016: balanced linked adaptation.
    Balia,
}

/// Per-connection parameters. `Default` is a good Internet host.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// The MSS option we send: path MTU less fixed IP and TCP headers, options not subtracted (RFC 6691).
    pub mss: u16,
    /// Fixed IP and TCP header bytes (40 for IPv4, 60 for IPv6): turns an ICMP MTU into an MSS.
    pub header_bytes: u16,
    /// TCP option bytes on every data segment (12 for timestamps, and a DSS): subtracted from the MSS.
    pub option_room: u8,
    /// Largest payload that the owner can build in one piece. Where the path carries more, a
    /// segment of ours is an equal part of a full one: an owner that sends several parts in one
    /// packet (see `Tcp::parts`) then always ends a packet where a segment of ours ends.
    pub segment_bytes_max: u16,
    /// Largest receive window ever offered; chooses the window scale.
    pub recv_buffer_max: u32,
    /// Offer window scaling (RFC 7323 §2).
    pub window_scale: bool,
    /// Offer timestamps (RFC 7323 §3).
    pub timestamps: bool,
    /// Offer SACK (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification (RFC 3168).
    pub ecn: EcnPolicy,
    /// Segments that may be outstanding: bounds the scoreboard.
    pub segments_max: u32,
    /// Congestion controller.
    pub congestion: CongestionKind,
    /// Spread data over the round trip instead of sending in bursts.
    pub pacing: bool,
    /// Leave slow start before the queue overflows (RFC 9406).
    pub hystart: bool,
    /// Floor of the retransmission timeout. RFC 6298 §2.4 says 1 s; 200 ms is what Linux uses and
    /// what a failover between subflows can live with. Delayed ACKs of peers stay below it.
    pub min_rto: Duration,
    /// Ceiling of the retransmission timeout (RFC 6298 §2.5: at least 60 s).
    pub max_rto: Duration,
    /// SYN retransmissions before a connect gives up.
    pub syn_retries: u8,
    /// SYN/ACK retransmissions before an accept gives up.
    pub synack_retries: u8,
    /// How long sent data may stay unacknowledged (RFC 9293 §3.8.3 R2: at least 100 s).
    pub user_timeout: Duration,
    /// Idle time before the first keepalive probe; `None` sends none (RFC 9293 §3.8.4).
    pub keepalive: Option<Duration>,
    /// Time between keepalive probes.
    pub keepalive_interval: Duration,
    /// Unanswered keepalive probes that end the connection.
    pub keepalive_probes: u8,
    /// Longest delay of an ACK (RFC 9293 §3.8.6.3: below 500 ms).
    pub delayed_ack: Duration,
    /// Length of TIME-WAIT; 60 s like Linux, where RFC 9293 has 2 MSL = 240 s.
    pub time_wait: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            mss: 1460,
            header_bytes: 40,
            option_room: 12,
            segment_bytes_max: u16::MAX,
            recv_buffer_max: 4 << 20,
            window_scale: true,
            timestamps: true,
            sack: true,
            ecn: EcnPolicy::default(),
            segments_max: 16_384,
            congestion: CongestionKind::default(),
            pacing: true,
            hystart: true,
            min_rto: Duration::from_millis(200),
            // Below the user timeout, so that a peer with a closed window is asked often enough.
            max_rto: Duration::from_secs(60),
            syn_retries: 6,
            synack_retries: 5,
            user_timeout: Duration::from_secs(120),
            keepalive: None,
            keepalive_interval: Duration::from_secs(75),
            keepalive_probes: 9,
            delayed_ack: Duration::from_millis(40),
            time_wait: Duration::from_secs(60),
        }
    }
}

impl TcpConfig {
    /// The shift that lets 16 bits express `recv_buffer_max` (RFC 7323 §2.3: at most 14).
    pub(super) fn receive_shift(&self) -> u8 {
        (0..14)
            .find(|shift| self.recv_buffer_max >> shift <= 0xffff)
            .unwrap_or(14)
    }
}

/// What a connection remembers of its [`TcpConfig`] beyond its first moments. The rest is where
/// it is used.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    user_timeout: Span,
    keepalive: Option<Span>,
    keepalive_interval: Span,
    time_wait: Span,
    pub(super) recv_buffer_max: u32,
    pub(super) segments_max: u32,
    pub(super) mss: u16,
    pub(super) segment_bytes_max: u16,
    pub(super) receive_shift: u8,
    pub(super) window_scale: bool,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    pub(super) congestion: CongestionKind,
    pub(super) pacing: bool,
    pub(super) hystart: bool,
    pub(super) syn_retries: u8,
    pub(super) synack_retries: u8,
    pub(super) keepalive_probes: u8,
}

impl Settings {
    pub(super) fn new(config: &TcpConfig) -> Self {
        Self {
            user_timeout: config.user_timeout.into(),
            keepalive: config.keepalive.map(Span::from),
            keepalive_interval: config.keepalive_interval.into(),
            time_wait: config.time_wait.into(),
            recv_buffer_max: config.recv_buffer_max,
            segments_max: config.segments_max.max(2),
            mss: config.mss,
            segment_bytes_max: config.segment_bytes_max,
            receive_shift: config.receive_shift(),
            window_scale: config.window_scale,
            timestamps: config.timestamps,
            sack: config.sack,
            congestion: config.congestion,
            pacing: config.pacing,
            hystart: config.hystart,
            syn_retries: config.syn_retries,
            synack_retries: config.synack_retries,
            keepalive_probes: config.keepalive_probes,
        }
    }

    pub(super) fn user_timeout(&self) -> Duration {
        self.user_timeout.get()
    }

    pub(super) fn keepalive(&self) -> Option<Duration> {
        self.keepalive.map(Span::get)
    }

    pub(super) fn keepalive_interval(&self) -> Duration {
        self.keepalive_interval.get()
    }

    pub(super) fn time_wait(&self) -> Duration {
        self.time_wait.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shift_fits_the_buffer() {
        let shift = |bytes| {
            TcpConfig {
                recv_buffer_max: bytes,
                ..TcpConfig::default()
            }
            .receive_shift()
        };
        assert_eq!(shift(65_535), 0);
        assert_eq!(shift(65_536), 1);
        assert_eq!(shift(4 << 20), 7);
        assert_eq!(shift(u32::MAX), 14);
    }
}
