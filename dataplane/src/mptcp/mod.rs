//! One MPTCP connection (RFC 8684, or RFC 6824), and the plain TCP connection it falls back to.
//!
//! Sans-I/O: packets, time and randomness come in as arguments, packets leave through a
//! [`TxSink`], everything else through [`Actions`]. One [`Connection`] serves both roles,
//! MPTCP and plain TCP, over one or several [`crate::tcp::Tcp`] subflows.
//!
//! How the engine drives a connection:
//!
//! ```text
//! connect(cx, path, app, token_in_use)            -> Connection   (then poll)
//! accept(cx, path, &syn, app, token_in_use)       -> Connection   (then poll)
//! conn.accept_join(cx, path, &syn)                -> Result<SubflowId, JoinReject>
//! conn.open_subflow(cx, path)                     -> Result<SubflowId, OpenError>
//! conn.announce(cx, AddressId, IpAddr, Option<port>); conn.remove_addresses(cx, &[AddressId])
//! conn.set_backup(cx, SubflowId, bool); conn.close_subflow(cx, SubflowId, reason)
//! conn.close(cx); conn.abort(cx)
//! conn.on_packet(cx, SubflowId, &TcpPacket, Chain); conn.on_icmp(cx, SubflowId, &IcmpError)
//! conn.on_port_down(cx, PortId); conn.on_port_up(cx, PortId); conn.on_timer(cx)
//! conn.poll(cx, &mut sink) -> Progress            (after any of the above, per batch)
//! conn.next_deadline() -> Option<Instant>; conn.is_finished(); conn.token(); conn.info(now)
//! ```
//!
//! Each call may push [`FlowChange`]s and [`Event`]s; the engine drains them afterwards.
//! A finished connection has removed all its flows.
//!
//! Where to look:
//!
//! | file | one idea |
//! |---|---|
//! | `connection`, `state` | the generic shell; everything else about a connection |
//! | `handshake`, `join`, `key` | MP_CAPABLE; MP_JOIN; keys, tokens and HMACs |
//! | `version` | what version 0 does differently |
//! | `input`, `mapping`, `reassembly`, `recv` | segments in, bytes to the stream |
//! | `output`, `segmentation`, `train`, `sendqueue`, `reinject`, `copies`, `schedulers` | bytes out, once and again |
//! | `signals`, `options` | segments without payload, option areas |
//! | `autotune` | how large windows are, and the frames that they promise |
//! | `window_option` | the connection-level window in an option of its own |
//! | `coupling` | what a subflow's congestion controller knows of the others |
//! | `idle` | what is given back while nothing comes or goes |
//! | `evidence` | what shows that paths do not carry MPTCP |
//! | `addresses`, `close`, `fallback`, `timers` | what their names say |
//!
//! Invariants:
//! - The send queue owns payload by data sequence number; subflows hold ranges. Payload
//!   lives until it is DATA_ACKed *and* no live subflow may have to resend it.
//! - A data sequence number once received is never replaced by later copies.
//! - The right edge of the connection-level window never moves left, nor does any
//!   subflow's.
//! - After fallback nothing returns to MPTCP.

mod addresses;
mod api;
mod autotune;
mod close;
mod config;
mod connection;
mod copies;
mod coupling;
mod dsn;
mod event;
mod evidence;
mod fallback;
mod fastopen;
mod handshake;
mod idle;
mod info;
mod input;
mod join;
mod key;
mod mapping;
mod options;
mod output;
mod reassembly;
mod recv;
mod reinject;
mod schedulers;
mod segmentation;
mod sendqueue;
mod signals;
mod state;
mod stateless;
mod subflow;
mod timers;
mod train;
mod version;
mod window_option;

#[cfg(test)]
mod tests;

pub use api::{
    Actions, Application, CloseReason, Cx, Findings, FlowChange, JoinReject, OpenError, Progress,
    SendState, SubflowId, SubflowPath, TxSink,
};
pub use autotune::WindowLedger;
pub(crate) use config::write_socket;
pub use config::{ChecksumPolicy, MptcpConfig, SchedulerKind, Secrets, WorkerShare};
pub use connection::Connection;
pub use event::{Announcement, Event};
pub use fastopen::FastOpenSyn;
pub use info::{ClosedSubflowInfo, ConnInfo, SubflowInfo, Totals};
pub use recv::RecvStream;
pub use stateless::{Resumed, StatelessKeys};
pub use version::Version;

/// The token that version 1 derives from a key.
#[cfg(test)]
pub(crate) fn token_of(key: crate::wire::types::Key) -> crate::wire::types::Token {
    key::KeyMaterial::new(Version::V1, key).token
}
