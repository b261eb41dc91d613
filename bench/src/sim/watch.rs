//! Looks at what hosts send and receive, and says what they must never do.
//!
//! Everything is judged from one host's own packets and those that reached it, so that a
//! middlebox that changes packets on the way makes nobody guilty. The rules:
//!
//! - the right edge that a subflow advertises (SEG.ACK + window) never moves left;
//! - DATA_ACKs of a connection never go back, whichever subflow they travel on;
//! - nothing is sent beyond the right edge of the subflow or that of the connection
//!   (DATA_ACK + window, or the edge in the peer's window option once it says that one has
//!   arrived) that the peer advertised, one byte of a window probe excepted.

use std::collections::{BTreeMap, HashMap};

use braid_dataplane::checksum;
use braid_dataplane::mptcp::Version;
use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::{DataAck, Dss, MptcpOption};
use braid_dataplane::wire::packet::{self, ChecksumVerdict, Packet, TcpPacket};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::types::{DataSeq, FourTuple, Key};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Violations that are kept: one is enough, a few tell more.
const VIOLATIONS_MAX: usize = 10;

/// A window probe is a byte of new data (RFC 9293 §3.8.6.1); a FIN may follow it.
const PROBE: i64 = 1;

/// One host's view of one subflow.
#[derive(Debug, Default)]
struct Flow {
    isn: Option<SeqNumber>,
    peer_isn: Option<SeqNumber>,
    /// Another SYN of the peer: a new connection if it is answered, forged otherwise.
    other_syn: Option<(SeqNumber, Option<u8>)>,
    shift: Option<u8>,
    peer_shift: Option<u8>,
    /// Furthest right edge that this host advertised.
    own_edge: Option<SeqNumber>,
    /// Furthest right edge that the peer advertised.
    peer_edge: Option<SeqNumber>,
    key: Option<Key>,
    peer_key: Option<Key>,
    version: Version,
    /// Own token of its connection.
    connection: Option<u32>,
}

impl Flow {
    fn shift_of(&self, own: bool, syn: bool) -> u32 {
        match (self.shift, self.peer_shift) {
            (Some(a), Some(b)) if !syn => u32::from(if own { a } else { b }.min(14)),
            _ => 0,
        }
    }
}

/// One host's view of one connection.
#[derive(Debug)]
struct Connection {
    peer_token: u32,
    /// Last DATA_ACK that this host sent.
    acked: DataSeq,
    /// Last DATA_ACK that it received.
    peer_acked: DataSeq,
    /// Furthest data-level right edge that the peer advertised.
    peer_edge: DataSeq,
    /// The peer says it in an option of its own, and this host says that it hears it: header
    /// windows are the subflows' then. Of what only arrived, TCP may have refused the segment.
    peer_speaks: bool,
}

#[derive(Debug, Default)]
struct View {
    /// The host understands the window option.
    knows_window: bool,
    flows: HashMap<FourTuple, Flow>,
    connections: BTreeMap<u32, Connection>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Watch {
    hosts: Vec<View>,
    violations: Vec<String>,
}

impl Watch {
    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }

    /// `host` understands the window option, or not.
    pub(super) fn knows_window(&mut self, host: usize, knows: bool) {
        self.view(host).knows_window = knows;
    }

    pub(super) fn sent(&mut self, now: Instant, host: usize, frame: &[u8]) {
        if let Ok(Packet::Tcp(tcp)) = packet::parse(frame) {
            let tuple = tcp.tuple.reversed();
            let mut wrong = Vec::new();
            self.view(host).on_sent(tuple, &tcp, &mut wrong);
            for what in wrong {
                if self.violations.len() < VIOLATIONS_MAX {
                    let ms = now.as_nanos() as f64 / 1e6;
                    self.violations.push(format!(
                        "at {ms} ms (epoch included) host {host}, {tuple}: {what}"
                    ));
                }
            }
        }
    }

    pub(super) fn received(&mut self, host: usize, frame: &[u8]) {
        if let Ok(Packet::Tcp(tcp)) = packet::parse(frame) {
            let sum = checksum::sum(&frame[tcp.payload.clone()]);
            if tcp.verify_checksum(frame, sum) == ChecksumVerdict::Valid {
                self.view(host).on_received(tcp.tuple, &tcp);
            }
        }
    }

    fn view(&mut self, host: usize) -> &mut View {
        if self.hosts.len() <= host {
            self.hosts.resize_with(host + 1, View::default);
        }
        &mut self.hosts[host]
    }
}

impl View {
    fn on_sent(&mut self, tuple: FourTuple, tcp: &TcpPacket, wrong: &mut Vec<String>) {
        if tcp.flags.contains(Flags::RST) {
            return;
        }
        let syn = tcp.flags.contains(Flags::SYN);
        let flow = self.flows.entry(tuple).or_default();
        if syn {
            if flow.isn.is_some_and(|isn| isn != tcp.seq) {
                // A new connection of the same ports.
                let answers = |syn: &(SeqNumber, Option<u8>)| syn.0.0.wrapping_add(1) == tcp.ack.0;
                let syn = flow.other_syn.filter(answers);
                let syn = syn.or(flow
                    .peer_isn
                    .map(|isn| (isn, flow.peer_shift))
                    .filter(answers));
                *flow = Flow {
                    peer_isn: syn.map(|s| s.0),
                    peer_shift: syn.and_then(|s| s.1),
                    ..Flow::default()
                };
            }
            flow.isn = Some(tcp.seq);
            flow.shift = tcp.options.window_scale;
        }
        if tcp.flags.contains(Flags::ACK) {
            let window = u32::from(tcp.window) << flow.shift_of(true, syn);
            let edge = SeqNumber(tcp.ack.0.wrapping_add(window));
            let before = *flow.own_edge.get_or_insert(edge);
            if edge.diff(before) < 0 {
                wrong.push(format!(
                    "right edge {} moved left by {} (ack {} window {window})",
                    before.0,
                    before.diff(edge),
                    tcp.ack.0,
                ));
            }
            flow.own_edge = Some(before.later(edge));
        }
        let len = u32::try_from(tcp.payload.len()).unwrap_or_default();
        let end = SeqNumber(tcp.seq.0.wrapping_add(len));
        if let Some(edge) = flow.peer_edge
            && !syn
            && i64::from(end.diff(edge)) > PROBE
        {
            wrong.push(format!(
                "sent {} bytes beyond the subflow's window",
                end.diff(edge)
            ));
        }
        for option in tcp.options.mptcp.iter() {
            match option {
                MptcpOption::MpCapable {
                    version,
                    sender_key,
                    receiver_key,
                    ..
                } => {
                    flow.version = version_of(*version);
                    flow.key = flow.key.or(*sender_key);
                    flow.peer_key = flow.peer_key.or(*receiver_key);
                }
                MptcpOption::MpJoinSyn { token, .. } => {
                    let found = self.connections.iter();
                    let mut found = found.filter(|(_, c)| c.peer_token == token.0);
                    flow.connection = found.next().map(|(own, _)| *own);
                }
                _ => {}
            }
        }
        self.adopt(tuple);
        for option in tcp.options.mptcp.iter() {
            match option {
                MptcpOption::Dss(dss) => self.on_dss_sent(tuple, dss, len, wrong),
                MptcpOption::Window { heard: true, .. } => {
                    if let Some(connection) = self.connection(tuple) {
                        connection.peer_speaks = true;
                    }
                }
                _ => {}
            }
        }
    }

    fn on_dss_sent(&mut self, tuple: FourTuple, dss: &Dss, len: u32, wrong: &mut Vec<String>) {
        let Some(connection) = self.connection(tuple) else {
            return;
        };
        if let Some(ack) = dss.data_ack {
            let ack = wide(connection.acked, ack);
            if ack.diff(connection.acked) < 0 {
                wrong.push(format!("DATA_ACK {} after {}", ack.0, connection.acked.0));
            }
            connection.acked = connection.acked.later(ack);
        }
        if let Some(mapping) = dss.mapping
            && mapping.len > 0
            && len > 0
        {
            let dsn = DataAck {
                value: mapping.dsn,
                wide: mapping.wide,
            };
            let end = wide(connection.peer_acked, dsn).0;
            let fin = u64::from(dss.data_fin);
            let end = DataSeq(end.wrapping_add(u64::from(mapping.len) - fin));
            let beyond = end.diff(connection.peer_edge);
            if beyond > PROBE {
                wrong.push(format!(
                    "sent {beyond} bytes beyond the connection's window (DSN {})",
                    mapping.dsn
                ));
            }
        }
    }

    fn on_received(&mut self, tuple: FourTuple, tcp: &TcpPacket) {
        if tcp.flags.contains(Flags::RST) {
            return;
        }
        let syn = tcp.flags.contains(Flags::SYN);
        let flow = self.flows.entry(tuple).or_default();
        if syn {
            if flow.peer_isn.is_some_and(|isn| isn != tcp.seq) {
                flow.other_syn = Some((tcp.seq, tcp.options.window_scale));
                return;
            }
            flow.peer_isn = Some(tcp.seq);
            flow.peer_shift = tcp.options.window_scale;
        }
        let window = u32::from(tcp.window) << flow.shift_of(false, syn);
        if tcp.flags.contains(Flags::ACK) {
            let edge = SeqNumber(tcp.ack.0.wrapping_add(window));
            flow.peer_edge = Some(flow.peer_edge.unwrap_or(edge).later(edge));
        }
        let (mut data_ack, mut told) = (None, None);
        for option in tcp.options.mptcp.iter() {
            match option {
                MptcpOption::MpCapable {
                    version,
                    sender_key,
                    receiver_key,
                    ..
                } => {
                    flow.version = version_of(*version);
                    flow.peer_key = flow.peer_key.or(*sender_key);
                    flow.key = flow.key.or(*receiver_key);
                }
                MptcpOption::MpJoinSyn { token, .. } => flow.connection = Some(token.0),
                MptcpOption::Dss(dss) => data_ack = dss.data_ack.or(data_ack),
                MptcpOption::Window { edge, .. } if self.knows_window => told = Some(*edge),
                _ => {}
            }
        }
        self.adopt(tuple);
        if let Some(connection) = self.connection(tuple) {
            if let Some(ack) = data_ack {
                let ack = wide(connection.peer_acked, ack);
                connection.peer_acked = connection.peer_acked.later(ack);
            }
            let edge = if let Some(low) = told {
                connection.peer_edge.expand(low)
            } else if connection.peer_speaks {
                connection.peer_edge
            } else {
                let edge = connection.peer_acked.0.wrapping_add(u64::from(window));
                DataSeq(edge)
            };
            connection.peer_edge = connection.peer_edge.later(edge);
        }
    }

    /// Once both keys of an initial subflow are known, so are the connection's numbers.
    fn adopt(&mut self, tuple: FourTuple) {
        let Some(flow) = self.flows.get_mut(&tuple) else {
            return;
        };
        if let (None, Some(own), Some(peer)) = (flow.connection, flow.key, flow.peer_key) {
            let version = flow.version;
            let (token, idsn) = derive(version, own);
            let (peer_token, peer_idsn) = derive(version, peer);
            flow.connection = Some(token);
            // The handshake's windows count from the first byte of data.
            let first = DataSeq(idsn.wrapping_add(1));
            let edge = flow.peer_edge.zip(flow.isn).map_or(0, |(edge, isn)| {
                u64::try_from(edge.diff(isn)).unwrap_or_default()
            });
            self.connections.entry(token).or_insert(Connection {
                peer_token,
                acked: DataSeq(peer_idsn),
                peer_acked: first,
                peer_edge: DataSeq(idsn.wrapping_add(edge)),
                peer_speaks: false,
            });
        }
    }

    fn connection(&mut self, tuple: FourTuple) -> Option<&mut Connection> {
        let token = self.flows.get(&tuple)?.connection?;
        self.connections.get_mut(&token)
    }
}

fn version_of(number: u8) -> Version {
    if number == 0 {
        Version::V0
    } else {
        Version::V1
    }
}

/// Token and initial data sequence number: first and last bits of a hash of the key
/// (RFC 8684 §3.2, §3.1; RFC 6824 with SHA-1).
fn derive(version: Version, key: Key) -> (u32, u64) {
    let key = key.0.to_be_bytes();
    let hash = match version {
        Version::V0 => Sha1::digest(key).to_vec(),
        Version::V1 => Sha256::digest(key).to_vec(),
    };
    let (mut token, mut idsn) = ([0; 4], [0; 8]);
    token.copy_from_slice(&hash[..4]);
    idsn.copy_from_slice(&hash[hash.len() - 8..]);
    (u32::from_be_bytes(token), u64::from_be_bytes(idsn))
}

fn wide(near: DataSeq, ack: DataAck) -> DataSeq {
    if ack.wide {
        return DataSeq(ack.value);
    }
    let low = ack.value & u64::from(u32::MAX);
    near.expand(u32::try_from(low).unwrap_or_default())
}
