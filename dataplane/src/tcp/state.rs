//! The connection states of RFC 9293 §3.3.2 (LISTEN belongs to the engine).

use core::fmt;

use serde::{Deserialize, Serialize};

/// Where a connection stands, by its RFC 9293 name.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum State {
    /// SYN sent, nothing heard.
    SynSent,
    /// SYN received, our SYN not acknowledged.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// Our FIN is out, the peer's is not in.
    FinWait1,
    /// Our FIN is acknowledged, the peer may still send.
    FinWait2,
    /// The peer has finished, we may still send.
    CloseWait,
    /// Both FINs are out, ours is not acknowledged.
    Closing,
    /// The peer had finished first, our FIN is out.
    LastAck,
    /// Both done; waits for stray segments to die.
    TimeWait,
    /// No connection.
    Closed,
}

impl State {
    /// Both SYNs are acknowledged (RFC 9293 "synchronized states"), CLOSED excluded.
    #[must_use]
    pub fn is_synchronized(self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed)
    }

    /// New data may be put into the stream.
    #[must_use]
    pub fn may_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// Data of the peer may still arrive.
    #[must_use]
    pub fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
            Self::Closed => "CLOSED",
        })
    }
}
