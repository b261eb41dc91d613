//! Opening connections and subflows (RFC 8684 §3.1, §3.2), both roles.

use rand::RngCore;

use super::api::{CloseReason, Cx, JoinReject, OpenError, SubflowId, SubflowPath};
use super::config::{ChecksumPolicy, MptcpConfig};
use super::connection::{Core, Mode};
use super::dsn::DataSpace;
use super::event::Event;
use super::key::{self, KeyMaterial};
use super::options::{DSS_BYTES, TIMESTAMPS_BYTES};
use super::subflow::{Phase, Subflow};
use crate::counters::Counter;
use crate::offload::header::HeaderTemplate;
use crate::tcp::{SegmentIn, Tcp, TcpConfig};
use crate::wire::mptcp::{MpCapableFlags, MptcpOption, reset_reason};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::types::{AddressId, Key, Token};

/// The version that is spoken (RFC 8684).
pub(crate) const VERSION: u8 = 1;
/// IPv4 or IPv6 header and TCP header without options.
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
/// Hop limit of what is sent, Linux's default.
const HOP_LIMIT: u8 = 64;

/// A MP_CAPABLE that offers what is spoken here.
struct Offer {
    key: Option<Key>,
    flags: MpCapableFlags,
}

/// Finds an acceptable MP_CAPABLE among a segment's options (RFC 8684 §3.1: flag B unset,
/// HMAC-SHA256 offered, checksums not required against our will). A responder may answer a
/// higher version with its own.
fn acceptable_capable(packet: &TcpPacket, config: &MptcpConfig, exact: bool) -> Option<Offer> {
    if packet.options.md5 {
        return None;
    }
    packet
        .options
        .mptcp
        .iter()
        .find_map(|option| match *option {
            MptcpOption::MpCapable {
                version,
                flags,
                sender_key,
                receiver_key: None,
                ..
            } if version == VERSION || (!exact && version > VERSION) => Some(Offer {
                key: sender_key,
                flags,
            }),
            _ => None,
        })
        .filter(|offer| {
            offer.flags.contains(MpCapableFlags::HMAC_SHA256)
                && !offer.flags.contains(MpCapableFlags::EXTENSIBILITY)
                && (config.checksum != ChecksumPolicy::Never
                    || !offer.flags.contains(MpCapableFlags::CHECKSUM))
        })
}

/// Settings of one subflow's TCP.
fn tcp_config(config: &MptcpConfig, path: &SubflowPath, mptcp: bool) -> TcpConfig {
    let headers = if path.tuple.is_ipv6() {
        HEADERS_V6
    } else {
        HEADERS_V4
    };
    let timestamps = if config.tcp.timestamps {
        TIMESTAMPS_BYTES
    } else {
        0
    };
    let room = timestamps + if mptcp { DSS_BYTES } else { 0 };
    TcpConfig {
        mss: u16::try_from(path.mtu.saturating_sub(headers)).unwrap_or(u16::MAX),
        header_bytes: if headers == HEADERS_V6 { 60 } else { 40 },
        option_room: u8::try_from(room).unwrap_or(u8::MAX),
        recv_buffer_max: config.recv_buffer_bytes,
        ..config.tcp.clone()
    }
}

fn template(path: &SubflowPath) -> Result<HeaderTemplate, OpenError> {
    HeaderTemplate::new(path.l2, &path.tuple, 0, HOP_LIMIT).map_err(|_| OpenError::MixedFamilies)
}

impl Core {
    /// Active open.
    pub(crate) fn connect(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let template = template(&path)?;
        let local = if cx.config.enabled {
            let drawn = KeyMaterial::draw(cx.rng, cx.worker, token_in_use);
            if drawn.is_none() {
                cx.counters.inc(Counter::MPFallbackTokenInit);
            }
            drawn
        } else {
            None
        };
        let id = local.map_or_else(|| cx.rng.next_u32(), |k| k.token.0);
        let mut core = Core::new(cx, false, local, id);
        let tcp = core.new_tcp(cx, &path, local.is_some());
        let subflow = Subflow::new(core.allocate_id(), path, template, tcp, Phase::CapableSyn);
        core.add_initial(cx, subflow);
        Ok(core)
    }

    /// Passive open.
    pub(crate) fn accept(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        syn: &TcpPacket,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let template = template(&path)?;
        let capable = syn
            .options
            .mptcp
            .iter()
            .any(|o| matches!(o, MptcpOption::MpCapable { .. }));
        if capable {
            cx.counters.inc(Counter::MPCapableSYNRX);
        }
        let offer = acceptable_capable(syn, cx.config, false)
            .filter(|offer| cx.config.enabled && offer.key.is_none());
        let local = offer.as_ref().and_then(|_| {
            let drawn = KeyMaterial::draw(cx.rng, cx.worker, token_in_use);
            if drawn.is_none() {
                cx.counters.inc(Counter::MPFallbackTokenInit);
            }
            drawn
        });
        let id = local.map_or_else(|| cx.rng.next_u32(), |k| k.token.0);
        let mut core = Core::new(cx, true, local, id);
        if let Some(offer) = offer {
            // RFC 8684 §3.1: one side's A is enough.
            core.checksum = offer.flags.contains(MpCapableFlags::CHECKSUM)
                || cx.config.checksum == ChecksumPolicy::Always;
            core.remote_denies_join = offer.flags.contains(MpCapableFlags::NO_MORE_SUBFLOWS);
        }
        let tcp = accepted_tcp(cx, &path, syn, local.is_some());
        let subflow = Subflow::new(
            core.allocate_id(),
            path,
            template,
            tcp,
            Phase::CapableAccepted,
        );
        core.add_initial(cx, subflow);
        Ok(core)
    }

    fn add_initial(&mut self, cx: &mut Cx<'_>, mut subflow: Subflow) {
        subflow.initial = true;
        subflow.path.local_id = AddressId::INITIAL;
        subflow.path.remote_id = AddressId::INITIAL;
        let tuple = subflow.tuple();
        self.addresses.initial(tuple.remote);
        self.add_subflow(cx, subflow);
        cx.actions.events.push(Event::Created {
            token: self.id,
            local: tuple.local,
            remote: tuple.remote,
            server: self.server,
        });
    }

    fn new_tcp(&self, cx: &Cx<'_>, path: &SubflowPath, mptcp: bool) -> Tcp {
        Tcp::connect(
            tcp_config(cx.config, path, mptcp),
            cx.now,
            SeqNumber(cx.secrets.initial_sequence(cx.now, &path.tuple)),
            cx.secrets.timestamp_offset(&path.tuple),
        )
    }

    /// Opens a subflow by MP_JOIN.
    pub(crate) fn open_subflow(
        &mut self,
        cx: &mut Cx<'_>,
        mut path: SubflowPath,
    ) -> Result<SubflowId, OpenError> {
        if !self.is_mptcp() || !self.fully_established {
            return Err(OpenError::NotMptcp);
        }
        if self.is_over() || self.closing.closes_subflows(&self.reassembly) {
            return Err(OpenError::Closing);
        }
        if self.subflows.len() >= usize::from(cx.config.subflows_max) {
            return Err(OpenError::Limit);
        }
        if self.subflows.iter().any(|s| s.tuple() == path.tuple) {
            return Err(OpenError::Exists);
        }
        let remote = path.tuple.remote;
        if self.remote_denies_join && self.addresses.is_initial(remote) {
            return Err(OpenError::InitialAddressDenied);
        }
        if self.addresses.has_failed(remote) {
            return Err(OpenError::FailedBefore);
        }
        let template = template(&path)?;
        path.remote_id = self
            .addresses
            .remote_id_of(remote.ip())
            .unwrap_or(path.remote_id);
        let tcp = self.new_tcp(cx, &path, true);
        let id = self.allocate_id();
        let mut subflow = Subflow::new(id, path, template, tcp, Phase::JoinSyn);
        subflow.nonce_local = cx.rng.next_u32();
        self.add_subflow(cx, subflow);
        Ok(id)
    }

    /// A MP_JOIN SYN with our token.
    pub(crate) fn accept_join(
        &mut self,
        cx: &mut Cx<'_>,
        mut path: SubflowPath,
        syn: &TcpPacket,
    ) -> Result<SubflowId, JoinReject> {
        let join = syn.options.mptcp.iter().find_map(|o| match *o {
            MptcpOption::MpJoinSyn {
                backup,
                address_id,
                token,
                nonce,
            } => Some((backup, address_id, token, nonce)),
            _ => None,
        });
        let Some((backup, address_id, token, nonce)) = join else {
            return Err(JoinReject::Malformed);
        };
        cx.counters.inc(Counter::MPJoinSynRx);
        if backup {
            cx.counters.inc(Counter::MPJoinSynBackupRx);
        }
        let reject = self.join_obstacle(cx, token).or_else(|| {
            // A repeated SYN reaches its subflow by the flow table, not this way.
            let taken = self.subflows.iter().any(|s| s.tuple() == path.tuple);
            taken.then_some(JoinReject::Malformed)
        });
        if let Some(reject) = reject {
            cx.counters.inc(match reject {
                JoinReject::NotEstablished => Counter::MPJoinNotEstablished,
                _ => Counter::MPJoinRejected,
            });
            return Err(reject);
        }
        let Ok(template) = template(&path) else {
            return Err(JoinReject::Malformed);
        };
        path.remote_id = address_id;
        let tcp = accepted_tcp(cx, &path, syn, true);
        let id = self.allocate_id();
        let mut subflow = Subflow::new(id, path, template, tcp, Phase::JoinAccepted);
        subflow.nonce_local = cx.rng.next_u32();
        subflow.nonce_remote = nonce;
        subflow.backup_remote = backup;
        self.addresses.learned(address_id, subflow.tuple().remote);
        self.add_subflow(cx, subflow);
        Ok(id)
    }

    fn join_obstacle(&self, cx: &Cx<'_>, token: Token) -> Option<JoinReject> {
        let known = self.local.is_some_and(|k| k.token == token);
        if !self.is_mptcp() || !known {
            Some(JoinReject::NotMptcp)
        } else if self.remote.is_none() || !self.is_established() {
            // Without the peer's key its HMAC cannot be verified.
            Some(JoinReject::NotEstablished)
        } else if self.is_over() || self.closing.closes_subflows(&self.reassembly) {
            Some(JoinReject::Closing)
        } else if self.subflows.len() >= usize::from(cx.config.subflows_max) {
            Some(JoinReject::Limit)
        } else {
            None
        }
    }

    /// The MPTCP option of a SYN or SYN/ACK that subflow `i` is about to send.
    pub(crate) fn syn_option(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        attempt: u8,
    ) -> Option<MptcpOption> {
        let s = &self.subflows[i];
        let (id, backup, nonce) = (s.local_id(), s.backup_local, s.nonce_local);
        match s.phase {
            Phase::CapableSyn if self.is_mptcp() => {
                if attempt >= cx.config.capable_syns {
                    // RFC 8684 §3.7: something on the path may drop SYNs with the option.
                    if attempt == cx.config.capable_syns {
                        cx.counters.inc(Counter::MPCapableSYNTXDrop);
                    }
                    return None;
                }
                cx.counters.inc(Counter::MPCapableSYNTX);
                Some(self.capable(cx.config, None, None))
            }
            Phase::CapableAccepted if self.is_mptcp() && !s.plain_syn_seen => {
                let key = self.local.map(|k| k.key);
                Some(self.capable(cx.config, key, None))
            }
            Phase::JoinSyn => {
                cx.counters.inc(Counter::MPJoinSynTx);
                Some(MptcpOption::MpJoinSyn {
                    backup,
                    address_id: id,
                    token: self.remote?.token,
                    nonce,
                })
            }
            Phase::JoinAccepted => {
                let hmac = self.own_hmac(i)?;
                Some(MptcpOption::MpJoinSynAck {
                    backup,
                    address_id: id,
                    hmac: key::leftmost64(&hmac),
                    nonce,
                })
            }
            _ => None,
        }
    }

    /// MP_CAPABLE with our flags.
    fn capable(
        &self,
        config: &MptcpConfig,
        sender_key: Option<Key>,
        receiver_key: Option<Key>,
    ) -> MptcpOption {
        MptcpOption::MpCapable {
            version: VERSION,
            flags: self.flags(config),
            sender_key,
            receiver_key,
            data_len: None,
            checksum: None,
        }
    }

    fn flags(&self, config: &MptcpConfig) -> MpCapableFlags {
        let mut flags = MpCapableFlags::HMAC_SHA256;
        if self.checksum || config.checksum == ChecksumPolicy::Always {
            flags = flags | MpCapableFlags::CHECKSUM;
        }
        if config.deny_join_initial {
            flags = flags | MpCapableFlags::NO_MORE_SUBFLOWS;
        }
        flags
    }

    /// MP_CAPABLE with both keys, for the third ACK, with a mapping for the first data.
    pub(crate) fn capable_ack(
        &self,
        config: &MptcpConfig,
        mapping: Option<(u16, u16)>,
    ) -> Option<MptcpOption> {
        Some(MptcpOption::MpCapable {
            version: VERSION,
            flags: self.flags(config),
            sender_key: Some(self.local?.key),
            receiver_key: Some(self.remote?.key),
            data_len: mapping.map(|(len, _)| len),
            checksum: mapping.filter(|_| self.checksum).map(|(_, csum)| csum),
        })
    }

    fn own_hmac(&self, i: usize) -> Option<[u8; 32]> {
        let s = &self.subflows[i];
        let (local, remote) = (self.local?.key, self.remote?.key);
        Some(key::join_hmac(local, remote, s.nonce_local, s.nonce_remote))
    }

    fn peer_hmac(&self, i: usize) -> Option<[u8; 32]> {
        let s = &self.subflows[i];
        let (local, remote) = (self.local?.key, self.remote?.key);
        Some(key::join_hmac(remote, local, s.nonce_remote, s.nonce_local))
    }

    /// The MP_JOIN that proves our key.
    pub(crate) fn join_ack(&self, i: usize) -> Option<MptcpOption> {
        let hmac = key::leftmost160(&self.own_hmac(i)?);
        Some(MptcpOption::MpJoinAck { hmac })
    }

    /// A valid segment on a subflow whose handshake is not complete. False: the segment has
    /// no further meaning.
    pub(crate) fn on_handshake(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        packet: &TcpPacket,
        established: bool,
    ) -> bool {
        match self.subflows[i].phase {
            Phase::CapableSyn => established && self.on_capable_synack(cx, i, packet),
            Phase::CapableAccepted => self.on_capable_ack(cx, i, packet),
            Phase::JoinSyn => established && self.on_join_synack(cx, i, packet),
            Phase::JoinAccepted => self.on_join_ack(cx, i, packet),
            Phase::PreEstablished => {
                // Anything but a repeated SYN/ACK means that the third ACK arrived.
                if !packet.flags.contains(Flags::SYN) {
                    self.subflows[i].join_ack = None;
                    self.join_established(cx, i);
                }
                true
            }
            Phase::Established => true,
        }
    }

    fn on_capable_synack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        let window = u64::from(packet.window);
        if self.is_mptcp() {
            let offer = acceptable_capable(packet, cx.config, true);
            let key = offer.as_ref().and_then(|o| o.key);
            // A box that mirrors options would have us talk to ourselves.
            let key = key.filter(|k| Some(*k) != self.local.map(|l| l.key));
            if let (Some(offer), Some(key)) = (offer, key) {
                cx.counters.inc(Counter::MPCapableSYNACKRX);
                let remote = KeyMaterial::new(key);
                self.rcv_space = DataSpace::new(remote.idsn);
                self.remote = Some(remote);
                self.checksum = offer.flags.contains(MpCapableFlags::CHECKSUM)
                    || cx.config.checksum == ChecksumPolicy::Always;
                self.remote_denies_join = offer.flags.contains(MpCapableFlags::NO_MORE_SUBFLOWS);
                self.snd_edge = window;
            } else {
                cx.counters.inc(Counter::MPCapableFallbackSYNACK);
                self.fallback = Some(Counter::MPCapableFallbackSYNACK);
                self.mode = Mode::Tcp;
            }
        }
        self.subflows[i].phase = Phase::Established;
        self.establish(cx, i);
        true
    }

    /// A repeated SYN for subflow `i`, which TCP answers by itself: the peer may have given
    /// up the option because its SYNs, or our answers, vanished. RFC 8684 §3.1: the third
    /// packet decides.
    pub(crate) fn note_repeated_syn(&mut self, i: usize, packet: &TcpPacket) {
        let s = &mut self.subflows[i];
        let syn = packet.flags.contains(Flags::SYN) && !packet.flags.contains(Flags::ACK);
        if s.phase == Phase::CapableAccepted && syn && packet.seq == s.tcp.irs() {
            let capable = |o: &MptcpOption| matches!(o, MptcpOption::MpCapable { .. });
            s.plain_syn_seen |= !packet.options.mptcp.iter().any(capable);
        }
    }

    fn on_capable_ack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        let s = &self.subflows[i];
        if !s.tcp.state().is_synchronized() {
            return false;
        }
        if self.is_mptcp() {
            let keys = packet.options.mptcp.iter().find_map(|o| match *o {
                MptcpOption::MpCapable {
                    version: VERSION,
                    flags,
                    sender_key: Some(sender),
                    receiver_key: Some(receiver),
                    ..
                } => Some((sender, receiver, flags)),
                _ => None,
            });
            let proven = keys.filter(|(sender, receiver, _)| {
                // An altered key means a compromised handshake: no MPTCP (RFC 8684 §3.1).
                Some(*receiver) == self.local.map(|k| k.key) && sender != receiver
            });
            if let Some((sender, _, flags)) = proven {
                cx.counters.inc(Counter::MPCapableACKRX);
                let remote = KeyMaterial::new(sender);
                self.rcv_space = DataSpace::new(remote.idsn);
                self.remote = Some(remote);
                self.fully_established = true;
                self.checksum |= flags.contains(MpCapableFlags::CHECKSUM);
                self.snd_edge = u64::from(self.subflows[i].tcp.snd_wnd());
            } else if keys.is_none()
                && (packet.seq != self.subflows[i].tcp.irs() + 1
                    || !packet.options.mptcp.is_empty())
            {
                // Not the first bytes, or a packet that overtook the third one: options
                // pass, and the keys will be repeated.
                return false;
            } else {
                cx.counters.inc(Counter::MPCapableFallbackACK);
                self.fallback = Some(Counter::MPCapableFallbackACK);
                self.mode = Mode::Tcp;
            }
        }
        self.subflows[i].phase = Phase::Established;
        self.establish(cx, i);
        true
    }

    fn on_join_synack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        let join = packet.options.mptcp.iter().find_map(|o| match *o {
            MptcpOption::MpJoinSynAck {
                backup,
                address_id,
                hmac,
                nonce,
            } => Some((backup, address_id, hmac, nonce)),
            _ => None,
        });
        let Some((backup, address_id, hmac, nonce)) = join else {
            cx.counters.inc(Counter::MPJoinSynAckNoMPJoin);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "no MP_JOIN in SYN/ACK",
            );
            return false;
        };
        cx.counters.inc(Counter::MPJoinSynAckRx);
        if backup {
            cx.counters.inc(Counter::MPJoinSynAckBackupRx);
        }
        self.subflows[i].nonce_remote = nonce;
        let genuine = self.peer_hmac(i).is_some_and(|expected| {
            let expected = key::leftmost64(&expected);
            key::same(expected.to_be_bytes(), hmac.to_be_bytes())
        });
        if !genuine {
            cx.counters.inc(Counter::MPJoinSynAckHMacFailure);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "wrong HMAC in SYN/ACK",
            );
            return false;
        }
        let s = &mut self.subflows[i];
        s.path.remote_id = address_id;
        s.backup_remote = backup;
        s.phase = Phase::PreEstablished;
        s.join_ack = Some((cx.now + s.tcp.rto(), 0));
        let remote = s.tuple().remote;
        self.addresses.learned(address_id, remote);
        true
    }

    fn on_join_ack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        if packet.flags.contains(Flags::SYN) || !self.subflows[i].tcp.state().is_synchronized() {
            return false;
        }
        let hmac = packet.options.mptcp.iter().find_map(|o| match o {
            MptcpOption::MpJoinAck { hmac } => Some(*hmac),
            _ => None,
        });
        let Some(hmac) = hmac else {
            cx.counters.inc(Counter::MPJoinAckNoMPJoin);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "no MP_JOIN in third ACK",
            );
            return false;
        };
        let genuine = self
            .peer_hmac(i)
            .is_some_and(|expected| key::same(key::leftmost160(&expected), hmac));
        if !genuine {
            cx.counters.inc(Counter::MPJoinAckHMacFailure);
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "wrong HMAC in third ACK",
            );
            return false;
        }
        cx.counters.inc(Counter::MPJoinAckRx);
        self.join_established(cx, i);
        // The peer sends no data before this (RFC 8684 §3.2).
        self.subflows[i].tcp.ack_now();
        true
    }

    fn join_established(&mut self, cx: &mut Cx<'_>, i: usize) {
        if !self.is_mptcp() {
            self.kill(
                i,
                Some(reset_reason::MPTCP_SPECIFIC),
                "the connection fell back",
            );
            return;
        }
        let token = self.id;
        let s = &mut self.subflows[i];
        s.phase = Phase::Established;
        s.was_established = true;
        let room = u8::try_from(s.data_options_len()).unwrap_or(u8::MAX);
        s.tcp.set_option_room(room);
        let tuple = s.tuple();
        cx.actions.events.push(Event::SubflowEstablished {
            token,
            subflow: s.id,
            local: tuple.local,
            remote: tuple.remote,
            local_id: s.local_id().0,
            remote_id: s.remote_id().0,
            backup: s.backup(),
        });
        if self.closing.closes_subflows(&self.reassembly) {
            self.subflows[i].close();
        }
    }

    /// A RST in answer to a SYN with MP_CAPABLE may come from a box that dislikes the
    /// option: one more attempt without it. True if the subflow lives on.
    pub(crate) fn retry_plain(&mut self, cx: &mut Cx<'_>, i: usize) -> bool {
        let first = self.subflows[i].initial && self.subflows[i].phase == Phase::CapableSyn;
        if !first || !self.is_mptcp() {
            return false;
        }
        cx.counters.inc(Counter::MPCapableSYNTXDrop);
        self.mode = Mode::Tcp;
        self.fallback = Some(Counter::MPCapableSYNTXDrop);
        let path = self.subflows[i].path.clone();
        self.subflows[i].tcp = self.new_tcp(cx, &path, false);
        true
    }

    /// The handshake of the initial subflow failed before it began to matter.
    pub(crate) fn connect_failed(&mut self, reason: CloseReason) {
        if !self.is_established() {
            self.finish(reason);
        }
    }
}

fn accepted_tcp(cx: &Cx<'_>, path: &SubflowPath, syn: &TcpPacket, mptcp: bool) -> Tcp {
    Tcp::accept(
        tcp_config(cx.config, path, mptcp),
        cx.now,
        SeqNumber(cx.secrets.initial_sequence(cx.now, &path.tuple)),
        cx.secrets.timestamp_offset(&path.tuple),
        &SegmentIn {
            payload_len: 0,
            ..SegmentIn::from(syn)
        },
    )
}
