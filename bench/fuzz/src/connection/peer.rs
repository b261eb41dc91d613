//! The other end of each subflow: what it has sent, and a check of everything it is sent.

use braid_dataplane::buf::{Frame, FramePool};
use braid_dataplane::checksum::sum;
use braid_dataplane::io::{PortId, Tx};
use braid_dataplane::mptcp::{SubflowId, TxSink};
use braid_dataplane::wire::mptcp::{DssMapping, MptcpOption, verify_dss_checksum};
use braid_dataplane::wire::packet::{ChecksumVerdict, Packet, TcpPacket, parse};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::types::{DataSeq, FourTuple};

use super::keys;
use super::stream;

/// Subflows at a time.
pub(super) const PEERS_MAX: usize = 4;
/// The shift that the peer offers.
pub(super) const PEER_SHIFT: u8 = 4;

/// A mapping that the peer has declared: from `ssn`, relative, `len` bytes of the stream from
/// `offset`.
#[derive(Copy, Clone, Debug)]
pub(super) struct Mapped {
    pub(super) ssn: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// One subflow as its remote end sees it.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// From the side of the connection under test.
    pub(super) tuple: FourTuple,
    /// Its name there, while it exists.
    pub(super) id: Option<SubflowId>,
    /// This one opened it.
    pub(super) opener: bool,
    pub(super) isn: SeqNumber,
    /// The ISN of the other side.
    pub(super) remote_isn: Option<SeqNumber>,
    /// Relative number of the next new byte.
    pub(super) next: u32,
    pub(super) table: Vec<Mapped>,
    /// Everything below has arrived.
    pub(super) received: SeqNumber,
    pub(super) nonce: u32,
    pub(super) remote_nonce: u32,
    /// The other side's HMAC came with a third ACK.
    pub(super) scaled: bool,
    /// Shift of the other side's windows.
    pub(super) shift: u8,
    /// Right edge it has announced.
    pub(super) edge: Option<SeqNumber>,
    /// Right edge that it was told.
    pub(super) told: Option<SeqNumber>,
    pub(super) tsecr: Option<u32>,
    /// An infinite mapping: relative number and stream offset.
    pub(super) infinite: Option<(u32, u64)>,
}

impl Peer {
    pub(super) fn new(tuple: FourTuple, opener: bool, isn: u32, nonce: u32) -> Self {
        Self {
            tuple,
            id: None,
            opener,
            isn: SeqNumber(isn),
            remote_isn: None,
            next: 1,
            table: Vec::new(),
            received: SeqNumber(0),
            nonce,
            remote_nonce: 0,
            scaled: true,
            shift: 0,
            edge: None,
            told: None,
            tsecr: None,
            infinite: None,
        }
    }
}

/// What both ends know of the connection, and what the connection under test has said.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) pool: &'a FramePool,
    pub(super) peers: Vec<Peer>,
    pub(super) version: u8,
    /// Key of the peer.
    pub(super) key: u64,
    pub(super) token: u32,
    /// Where the peer's data begins.
    pub(super) start: DataSeq,
    /// Key of the connection under test, once it was said.
    pub(super) remote_key: Option<u64>,
    pub(super) remote_token: u32,
    pub(super) remote_start: DataSeq,
    /// Behind the last byte or DATA_FIN that the peer has sent.
    pub(super) sent_to: DataSeq,
    pub(super) data_ack: Option<DataSeq>,
    /// Behind the last data received, as far as mappings say.
    pub(super) data_end: u64,
    pub(super) data_fin: bool,
    /// The connection may be plain TCP by now: mappings may be missing.
    pub(super) plain: bool,
    /// DSS checksums were agreed on.
    pub(super) checksum: bool,
    /// Packets that ports take before they are full.
    pub(super) room: u32,
    pub(super) no_carrier: u8,
    pub(super) packets: u64,
}

impl World<'_> {
    pub(super) fn learn_key(&mut self, key: u64) {
        if let Some(known) = self.remote_key {
            assert_eq!(known, key, "another key");
            return;
        }
        self.remote_key = Some(key);
        let (token, idsn) = keys::derive(self.version, key);
        self.remote_token = token;
        self.remote_start = DataSeq(idsn) + 1;
    }

    /// A packet of the connection under test.
    fn observe(&mut self, frame: &[u8]) {
        self.packets += 1;
        assert!(self.packets < 200_000, "packets without end");
        let packet = match parse(frame) {
            Ok(Packet::Tcp(packet)) => packet,
            other => panic!("what was sent is {other:?}"),
        };
        let payload = &frame[packet.payload.clone()];
        assert_eq!(
            packet.verify_checksum(frame, sum(payload)),
            ChecksumVerdict::Valid
        );
        assert!(!packet.options.malformed, "malformed options were sent");
        let tuple = packet.tuple.reversed();
        let Some(i) = self.peers.iter().position(|peer| peer.tuple == tuple) else {
            panic!("a packet for nobody: {tuple}");
        };
        if packet.flags.contains(Flags::SYN) {
            self.observe_syn(i, &packet);
        }
        for option in &packet.options.mptcp {
            self.observe_option(i, option, &packet, payload);
        }
        self.observe_numbers(i, &packet);
        let maps = |option: &MptcpOption| match option {
            MptcpOption::Dss(dss) => dss.mapping.is_some(),
            MptcpOption::MpCapable { data_len, .. } => data_len.is_some(),
            _ => false,
        };
        if !payload.is_empty() && !packet.options.mptcp.iter().any(maps) {
            // After a fallback; DATA_ACKs may go on for a while (RFC 8684 §3.7).
            assert!(self.plain, "data without a mapping");
            if let Some((ssn, offset)) = self.peers[i].infinite {
                let relative = packet.seq - self.isn_of(i);
                let behind = i64::from(SeqNumber(relative).diff(SeqNumber(ssn)));
                if let Some(offset) = offset.checked_add_signed(behind) {
                    assert_eq!(
                        payload,
                        stream::ours(offset, payload.len()),
                        "after fallback"
                    );
                }
            }
        }
    }

    fn isn_of(&self, i: usize) -> SeqNumber {
        self.peers[i].remote_isn.expect("its SYN was seen")
    }

    fn observe_syn(&mut self, i: usize, packet: &TcpPacket) {
        let peer = &mut self.peers[i];
        // A second attempt without the option may begin elsewhere.
        peer.remote_isn = Some(packet.seq);
        peer.received = packet.seq + 1;
        peer.shift = packet.options.window_scale.unwrap_or(0);
        if packet.options.window_scale.is_none() {
            peer.scaled = false;
        }
    }

    /// Acknowledgments, windows and sequence numbers.
    fn observe_numbers(&mut self, i: usize, packet: &TcpPacket) {
        let len = u32::try_from(packet.payload.len()).expect("a packet is short");
        let peer = &mut self.peers[i];
        if packet.flags.contains(Flags::RST) {
            return;
        }
        peer.tsecr = packet.options.timestamps.map(|ts| ts.tsval).or(peer.tsecr);
        let end = packet.seq + len + u32::from(packet.flags.contains(Flags::FIN));
        if !packet.flags.contains(Flags::SYN) {
            if len > 0 {
                let told = peer.told.expect("data before any window");
                assert!(
                    packet.seq + len <= told,
                    "data beyond the window: {:?}+{len} of {told:?}",
                    packet.seq
                );
            }
            peer.received = peer.received.later(end);
        }
        if !packet.flags.contains(Flags::ACK) {
            return;
        }
        let shift = if packet.flags.contains(Flags::SYN) || !peer.scaled {
            0
        } else {
            peer.shift
        };
        let edge = packet.ack + (u32::from(packet.window) << shift);
        if let Some(last) = peer.edge {
            assert!(
                last <= edge,
                "the right edge moved from {last:?} to {edge:?}"
            );
        }
        peer.edge = Some(edge);
    }

    fn observe_option(
        &mut self,
        i: usize,
        option: &MptcpOption,
        packet: &TcpPacket,
        payload: &[u8],
    ) {
        match *option {
            MptcpOption::MpCapable {
                version,
                sender_key,
                receiver_key,
                data_len,
                checksum,
                ..
            } => {
                assert_eq!(version, self.version);
                if let Some(key) = sender_key {
                    self.learn_key(key.0);
                }
                if let Some(key) = receiver_key {
                    assert_eq!(key.0, self.key, "the peer's key comes back altered");
                }
                if let Some(len) = data_len {
                    let mapping = DssMapping {
                        dsn: self.remote_start.0,
                        wide: true,
                        ssn: 1,
                        len,
                        checksum,
                    };
                    self.observe_mapping(i, &mapping, false, packet, payload);
                }
            }
            MptcpOption::MpJoinSyn { token, nonce, .. } => {
                assert_eq!(token.0, self.token, "a join to another token");
                self.peers[i].remote_nonce = nonce;
            }
            MptcpOption::MpJoinSynAck { nonce, hmac, .. } => {
                self.peers[i].remote_nonce = nonce;
                let whole = self.remote_hmac(i);
                assert_eq!(hmac.to_be_bytes(), whole[..8], "HMAC of a SYN/ACK");
            }
            MptcpOption::MpJoinAck { hmac } => {
                assert_eq!(hmac, self.remote_hmac(i), "HMAC of a third ACK");
            }
            MptcpOption::Dss(dss) => {
                if let Some(ack) = dss.data_ack {
                    self.observe_data_ack(ack.value, ack.wide);
                }
                if let Some(mapping) = dss.mapping {
                    self.observe_mapping(i, &mapping, dss.data_fin, packet, payload);
                }
            }
            MptcpOption::FastClose { receiver_key } => assert_eq!(receiver_key.0, self.key),
            MptcpOption::Malformed { .. } | MptcpOption::Unknown { .. } => {
                panic!("{option:?} was sent")
            }
            _ => {}
        }
    }

    /// What the connection under test has to prove on subflow `i`.
    fn remote_hmac(&self, i: usize) -> [u8; 20] {
        let peer = &self.peers[i];
        let own = self.remote_key.expect("joins follow keys");
        keys::join(
            self.version,
            [own, self.key],
            [peer.remote_nonce, peer.nonce],
        )
    }

    fn observe_data_ack(&mut self, value: u64, wide: bool) {
        let known = self.data_ack.unwrap_or(self.start);
        let ack = if wide {
            DataSeq(value)
        } else {
            known.expand(DataSeq(value).low())
        };
        assert!(known.diff(ack) <= 0, "DATA_ACK went from {known} to {ack}");
        assert!(
            // In plain TCP what a subflow brings counts as the stream, mapped or not.
            self.plain || ack.diff(self.sent_to) <= 0,
            "DATA_ACK {ack} of what was not sent: {}",
            self.sent_to
        );
        self.data_ack = Some(ack);
    }

    fn observe_mapping(
        &mut self,
        i: usize,
        mapping: &DssMapping,
        fin: bool,
        packet: &TcpPacket,
        payload: &[u8],
    ) {
        let near = self.remote_start + self.data_end;
        let dsn = if mapping.wide {
            DataSeq(mapping.dsn)
        } else {
            near.expand(DataSeq(mapping.dsn).low())
        };
        let offset = dsn - self.remote_start;
        if mapping.len == 0 {
            self.plain = true;
            self.peers[i].infinite = Some((mapping.ssn, offset));
            return;
        }
        let len = u64::from(mapping.len) - u64::from(fin);
        assert!(
            offset < 1 << 40,
            "a mapping far from the stream: {mapping:?}"
        );
        if self.data_fin {
            assert!(offset + len <= self.data_end, "data behind the DATA_FIN");
        }
        self.data_end = self.data_end.max(offset + len);
        self.data_fin |= fin;
        if !payload.is_empty() {
            let relative = packet.seq - self.isn_of(i);
            let at = SeqNumber(relative).diff(SeqNumber(mapping.ssn));
            let at = u64::try_from(at).expect("the mapping starts behind the data");
            assert!(
                at + payload.len() as u64 <= len,
                "the mapping ends within the data"
            );
            assert_eq!(
                payload,
                stream::ours(offset + at, payload.len()),
                "other data than the mapping says"
            );
        }
        assert_eq!(
            mapping.checksum.is_some(),
            self.checksum,
            "a checksum against what was agreed"
        );
        let whole = payload.len() as u64 == len || payload.is_empty();
        if let Some(checksum) = mapping.checksum.filter(|_| whole) {
            assert!(
                verify_dss_checksum(dsn.0, mapping.ssn, mapping.len, sum(payload), checksum),
                "a wrong DSS checksum was sent"
            );
        }
    }
}

impl TxSink for World<'_> {
    fn alloc(&mut self, _port: PortId) -> Option<Frame> {
        self.pool.alloc()
    }

    fn send(&mut self, port: PortId, frame: &Frame) -> Tx {
        if self.no_carrier & 1 << port.0 != 0 {
            return Tx::NoCarrier;
        }
        if self.room == 0 {
            return Tx::Full;
        }
        self.room -= 1;
        self.observe(frame.packet());
        Tx::Queued
    }

    fn room(&self, port: PortId) -> u32 {
        if self.no_carrier & 1 << port.0 != 0 {
            u32::MAX
        } else {
            self.room
        }
    }

    fn shares_frames(&self, _a: PortId, _b: PortId) -> bool {
        true
    }
}
