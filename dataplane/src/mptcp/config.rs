//! What an operator decides about connections, and the secrets a worker keeps.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::event::Announcement;
use super::version::Version;
use crate::tcp::TcpConfig;
use crate::time::Instant;
use crate::wire::types::{FourTuple, Token};

/// Policy for the DSS checksum (RFC 8684 §3.1, flag A).
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumPolicy {
    /// Require checksums on every connection.
    Always,
    /// Use them when the peer asks.
    #[default]
    IfRequested,
    /// Refuse them: a peer that requires them is served as plain TCP.
    Never,
}

/// Which subflow carries the next data.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulerKind {
    /// The lowest smoothed RTT among the subflows with room.
    #[default]
    MinRtt,
    /// One burst on each in turn.
    RoundRobin,
    /// Everything on all of them.
    Redundant,
    /// Min-RTT that leaves a slow subflow out while it would block the send window.
    Blest,
    /// Min-RTT that leaves a slow subflow out if a faster one finishes sooner.
    Ecf,
}

impl SchedulerKind {
    /// Every kind there is.
    pub const ALL: [SchedulerKind; 5] = [
        SchedulerKind::MinRtt,
        SchedulerKind::RoundRobin,
        SchedulerKind::Redundant,
        SchedulerKind::Blest,
        SchedulerKind::Ecf,
    ];
}

/// Per-connection settings. One value is shared by every connection of a service.
#[derive(Clone, Debug)]
pub struct MptcpConfig {
    /// Whether MP_CAPABLE is sent and answered at all.
    pub enabled: bool,
    /// TCP Fast Open (RFC 7413), both roles. An application must bear that data of a SYN
    /// arrives twice: a copy may open a second connection (RFC 7413 §6.1).
    pub fast_open: bool,
    /// Answers the data of a SYN with MP_CAPABLE before the client's key is known, as RFC 8684
    /// Figure 19 (with erratum 6609: without a DATA_ACK) has it. It saves a round trip, but a
    /// Linux client takes such a DSS for a reason to fall back (seen on 6.18). Plain TCP is
    /// always answered early.
    pub early_answers: bool,
    /// A SYN that finds the backlog full is answered without keeping anything (RFC 4987 §3.6),
    /// not dropped.
    pub syn_cookies: bool,
    /// DSS checksum policy.
    pub checksum: ChecksumPolicy,
    /// Version 0 (RFC 6824) is answered with version 0, not with plain TCP.
    pub allow_v0: bool,
    /// Version that active opens offer.
    pub connect_version: Version,
    /// Scheduler.
    pub scheduler: SchedulerKind,
    /// Subflow settings; `mss` and `option_room` are overwritten per path.
    pub tcp: TcpConfig,
    /// In-order bytes that an application may leave unread at first. The window grows with
    /// what is read in a round trip.
    pub recv_buffer_initial: u32,
    /// The connection-level window at the most.
    pub recv_buffer_bytes: u32,
    /// Frames that one connection's window may promise at the most.
    pub recv_buffer_frames: u32,
    /// Unacknowledged bytes the send queue may own.
    pub send_buffer_bytes: u32,
    /// Frames the send queue may hold.
    pub send_buffer_frames: u32,
    /// Subflows of one connection, both directions together.
    pub subflows_max: u8,
    /// Addresses accepted from the peer.
    pub remote_addresses_max: u8,
    /// Tells the connection-level window in an experimental option, to peers that do, too.
    pub window_option: bool,
    /// Sets flag C: the peer must not open subflows to the initial address.
    pub deny_join_initial: bool,
    /// MP_CAPABLE SYNs before a plain SYN is tried (RFC 8684 §3.7).
    pub capable_syns: u8,
    /// How long a connection without a subflow waits for a new one.
    pub subflowless_timeout: Duration,
    /// How long a local close may take before it becomes an abort.
    pub close_timeout: Duration,
    /// First retransmission of an ADD_ADDR without echo.
    pub add_addr_timeout: Duration,
    /// Own addresses that every connection announces once it may be joined. The control plane
    /// decides which; a connection that had to ask would wait for two processes' turns.
    pub announcements: Arc<[Announcement]>,
}

impl Default for MptcpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            fast_open: false,
            early_answers: false,
            syn_cookies: true,
            checksum: ChecksumPolicy::default(),
            allow_v0: false,
            connect_version: Version::V1,
            scheduler: SchedulerKind::default(),
            tcp: TcpConfig::default(),
            // As Linux (tcp_rmem[1]).
            recv_buffer_initial: 128 << 10,
            // 1 Gb/s over 250 ms, or 10 Gb/s over 25.
            recv_buffer_bytes: 32 << 20,
            recv_buffer_frames: 32_768,
            send_buffer_bytes: 32 << 20,
            send_buffer_frames: 32_768,
            subflows_max: 8,
            remote_addresses_max: 8,
            window_option: false,
            deny_join_initial: false,
            capable_syns: 3,
            subflowless_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(60),
            // Linux retransmits after 2 minutes by default; a lost ADD_ADDR should not
            // cost a short connection its second path.
            add_addr_timeout: Duration::from_secs(1),
            announcements: Arc::from([]),
        }
    }
}

/// Which of how many workers this is. Own keys are drawn so that
/// `token % count == index`: any worker can tell from a MP_JOIN who owns the connection.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WorkerShare {
    /// This worker.
    pub index: u32,
    /// All workers; never zero.
    pub count: u32,
}

impl WorkerShare {
    /// The only worker there is.
    pub const SOLE: WorkerShare = WorkerShare { index: 0, count: 1 };

    /// A connection with this token is this worker's.
    #[must_use]
    pub fn owns(self, token: Token) -> bool {
        token.0 % self.count.max(1) == self.index
    }
}

/// Keys of the worker's keyed functions. Drawn once at start; `Debug` shows nothing.
#[derive(Clone)]
pub struct Secrets {
    iss: [u8; 16],
    timestamp: [u8; 16],
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// Draws fresh secrets.
    pub fn draw(rng: &mut impl rand::RngCore) -> Self {
        let mut secrets = Self {
            iss: [0; 16],
            timestamp: [0; 16],
        };
        rng.fill_bytes(&mut secrets.iss);
        rng.fill_bytes(&mut secrets.timestamp);
        secrets
    }

    /// Initial send sequence number: a clock plus a keyed hash of the four-tuple
    /// (RFC 6528 §3).
    #[must_use]
    pub fn initial_sequence(&self, now: Instant, tuple: &FourTuple) -> u32 {
        #[cfg(test)]
        if let Some(iss) = ISS_FOR_TEST.get() {
            return iss;
        }
        // RFC 9293 §3.4.1: the clock ticks every 4 microseconds. One tick per
        // 4096 ns spares a division and wraps every 4.9 hours.
        let clock = now.as_nanos() >> 12;
        let hash = hash_tuple(&self.iss, tuple).wrapping_add(clock);
        low32(hash)
    }

    /// Offset of the timestamp clock towards one peer (RFC 7323 §7.1): keyed by the
    /// addresses only, so that TIME-WAIT recycling still sees time advance.
    #[must_use]
    pub fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.timestamp);
        write_ip(&mut hasher, tuple.local.ip());
        write_ip(&mut hasher, tuple.remote.ip());
        low32(hasher.finish())
    }
}

#[cfg(test)]
thread_local! {
    /// Every initial sequence number of this thread's connections.
    pub(crate) static ISS_FOR_TEST: std::cell::Cell<Option<u32>> =
        const { std::cell::Cell::new(None) };
}

fn low32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn hash_tuple(key: &[u8; 16], tuple: &FourTuple) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    for end in [tuple.local, tuple.remote] {
        write_socket(&mut hasher, end);
    }
    hasher.finish()
}

pub(crate) fn write_socket(hasher: &mut SipHasher13, end: SocketAddr) {
    write_ip(hasher, end.ip());
    hasher.write_u16(end.port());
}

fn write_ip(hasher: &mut SipHasher13, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            local: SocketAddr::from(([10, 0, 0, 1], port)),
            remote: SocketAddr::from(([10, 0, 0, 2], 80)),
        }
    }

    #[test]
    fn initial_sequences_differ_by_tuple_and_grow_with_time() {
        let secrets = Secrets::draw(&mut rand::rngs::StdRng::seed_from_u64(1));
        let at = |ns, port| secrets.initial_sequence(Instant::from_nanos(ns), &tuple(port));
        assert_ne!(at(0, 1), at(0, 2));
        assert_eq!(at(4096 * 1000, 1), at(0, 1).wrapping_add(1000));
    }

    #[test]
    fn the_send_buffer_is_no_smaller_than_the_receive_buffer() {
        // RFC 8684 §3.3.5: or a peer's full window could not be used.
        let config = MptcpConfig::default();
        assert!(config.send_buffer_bytes >= config.recv_buffer_bytes);
        assert!(config.send_buffer_frames >= config.recv_buffer_frames);
    }

    #[test]
    fn timestamp_offset_ignores_ports() {
        let secrets = Secrets::draw(&mut rand::rngs::StdRng::seed_from_u64(1));
        assert_eq!(
            secrets.timestamp_offset(&tuple(1)),
            secrets.timestamp_offset(&tuple(2))
        );
    }
}
