//! Opening connections: MP_CAPABLE in both roles (RFC 8684 §3.1), and the decision between
//! MPTCP and plain TCP.

use rand::RngCore;

use super::api::{Cx, OpenError, SubflowPath};
use super::config::{ChecksumPolicy, MptcpConfig};
use super::dsn::DataSpace;
use super::event::Event;
use super::fastopen::FastOpenSyn;
use super::key::{self, KeyMaterial};
use super::options::{DSS_BYTES, TIMESTAMPS_BYTES};
use super::state::{Core, Mode};
use super::subflow::{Phase, Subflow};
use super::version::{self, Offer, SynOffer, Version};
use crate::counters::Counter;
use crate::offload::header::HeaderTemplate;
use crate::tcp::{SegmentIn, Tcp, TcpConfig};
use crate::wire::mptcp::{MpCapableFlags, MptcpOption, subtype};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::types::{AddressId, Key, Token};

/// IPv4 or IPv6 header and TCP header without options.
const HEADERS_V4: u32 = 40;
const HEADERS_V6: u32 = 60;
/// Hop limit of what is sent, Linux's default.
const HOP_LIMIT: u8 = 64;

/// A MP_CAPABLE of impossible length: something on the path mutilates options, and would
/// mutilate a repetition, too (RFC 8684 §3.1: no MPTCP then).
fn is_corrupt(packet: &TcpPacket) -> bool {
    let corrupt = |o: &MptcpOption| {
        matches!(
            o,
            MptcpOption::Malformed {
                subtype: subtype::MP_CAPABLE,
                ..
            }
        )
    };
    packet.options.mptcp.iter().any(corrupt)
}

/// Settings of one subflow's TCP.
pub(crate) fn tcp_config(config: &MptcpConfig, path: &SubflowPath, mptcp: bool) -> TcpConfig {
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

pub(crate) fn template(path: &SubflowPath) -> Result<HeaderTemplate, OpenError> {
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
        let version = cx.config.connect_version;
        let local = if cx.config.enabled {
            let drawn = KeyMaterial::draw(cx.rng, version, cx.worker, token_in_use);
            if drawn.is_none() {
                cx.counters.inc(Counter::MPFallbackTokenInit);
            }
            drawn
        } else {
            None
        };
        let id = local.map_or_else(|| cx.rng.next_u32(), |k| k.token.0);
        let mut core = Core::new(cx, false, version, local, id);
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
        fast_open: FastOpenSyn,
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
        let offer = match version::offer_of_syn(syn, cx.config) {
            SynOffer::Acceptable(offer) => Some(offer),
            SynOffer::None => None,
            SynOffer::Ignore => {
                cx.counters.inc(Counter::MPCapableSYNIgnored);
                return Err(OpenError::SynIgnored);
            }
        };
        let version = offer.map_or(Version::V1, |offer| offer.version);
        let local = offer.and_then(|_| {
            let drawn = KeyMaterial::draw(cx.rng, version, cx.worker, token_in_use);
            if drawn.is_none() {
                cx.counters.inc(Counter::MPFallbackTokenInit);
            }
            drawn
        });
        let id = local.map_or_else(|| cx.rng.next_u32(), |k| k.token.0);
        let mut core = Core::new(cx, true, version, local, id);
        if let Some(offer) = offer.filter(|_| local.is_some()) {
            // RFC 8684 §3.1: one side's A is enough.
            core.checksum = offer.flags.contains(MpCapableFlags::CHECKSUM)
                || cx.config.checksum == ChecksumPolicy::Always;
            core.learn_offer(&offer);
        }
        let fast_open = if local.is_some() && version.has_key_on_syn() {
            FastOpenSyn::default()
        } else {
            fast_open
        };
        let tcp = accepted_tcp(cx, &path, syn, local.is_some(), &fast_open);
        let subflow = Subflow::new(
            core.allocate_id(),
            path,
            template,
            tcp,
            Phase::CapableAccepted,
        );
        core.add_initial(cx, subflow);
        core.take_fast_open(cx, fast_open);
        Ok(core)
    }

    /// What a peer's MP_CAPABLE says besides its flag A.
    pub(crate) fn learn_offer(&mut self, offer: &Offer) {
        self.remote_denies_join =
            self.version.has_flag_c() && offer.flags.contains(MpCapableFlags::NO_MORE_SUBFLOWS);
        if let Some(key) = offer.key {
            self.learn_key(key);
        }
    }

    pub(crate) fn learn_key(&mut self, key: Key) {
        let remote = KeyMaterial::new(self.version, key);
        self.rcv_space = DataSpace::new(remote.idsn);
        self.remote = Some(remote);
    }

    pub(crate) fn add_initial(&mut self, cx: &mut Cx<'_>, mut subflow: Subflow) {
        subflow.initial = true;
        subflow.path.local_id = AddressId::INITIAL;
        subflow.path.remote_id = AddressId::INITIAL;
        let tuple = subflow.tuple();
        self.addresses.initial(tuple);
        self.add_subflow(cx, subflow);
        cx.actions.events.push(Event::Created {
            token: self.id,
            local: tuple.local,
            remote: tuple.remote,
            server: self.server,
        });
    }

    pub(crate) fn new_tcp(&self, cx: &Cx<'_>, path: &SubflowPath, mptcp: bool) -> Tcp {
        Tcp::connect(
            tcp_config(cx.config, path, mptcp),
            cx.now,
            SeqNumber(cx.secrets.initial_sequence(cx.now, &path.tuple)),
            cx.secrets.timestamp_offset(&path.tuple),
        )
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
                let key = self.local.map(|k| k.key);
                let key = key.filter(|_| self.version.has_key_on_syn());
                Some(self.capable(cx.config, key, None))
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
            version: self.version.number(),
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
        if config.deny_join_initial && self.version.has_flag_c() {
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
            version: self.version.number(),
            flags: self.flags(config),
            sender_key: Some(self.local?.key),
            receiver_key: Some(self.remote?.key),
            data_len: mapping.map(|(len, _)| len),
            checksum: mapping.filter(|_| self.checksum).map(|(_, csum)| csum),
        })
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
            // A box that mirrors options would have us talk to ourselves.
            let own = self.local.map(|k| k.key);
            let offer = version::offer_of_synack(packet, cx.config, self.version)
                .filter(|offer| offer.key != own);
            if let Some(offer) = offer {
                cx.counters.inc(Counter::MPCapableSYNACKRX);
                self.learn_offer(&offer);
                let s = &mut self.subflows[i];
                s.third_ack_due = !self.version.has_keys_with_data();
                s.tcp.ack_now();
                self.checksum = offer.flags.contains(MpCapableFlags::CHECKSUM)
                    || cx.config.checksum == ChecksumPolicy::Always;
                self.snd_edge = window;
            } else {
                cx.counters.inc(Counter::MPCapableFallbackSYNACK);
                self.fallback = Some(Counter::MPCapableFallbackSYNACK);
                self.mode = Mode::Tcp;
            }
        }
        self.settle_fast_open(cx, i, packet);
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

    /// Only two packets may answer our SYN/ACK: one that names both keys, or the first bytes
    /// without any option or with a mutilated MP_CAPABLE, which decides for TCP. Whatever
    /// else comes before is as good as lost, and the peer repeats it: without the keys no DATA_ACK can be sent, a bare ACK
    /// would make the peer fall back (Linux judges by the first ACK it gets), and a
    /// handshake that TCP has completed but MPTCP has not would last for ever.
    pub(crate) fn overtakes_keys(&self, i: usize, packet: &TcpPacket) -> bool {
        let s = &self.subflows[i];
        if s.phase != Phase::CapableAccepted
            || !self.is_mptcp()
            || packet.flags.contains(Flags::SYN)
            || packet.flags.contains(Flags::RST)
        {
            return false;
        }
        let names_keys = self.keys_named(packet).is_some() || self.proves_keys(packet);
        let decides = packet.seq == s.tcp.rcv_start()
            && (packet.options.mptcp.is_empty() || is_corrupt(packet));
        !names_keys && !decides
    }

    /// Both keys of a MP_CAPABLE, the sender's first, and its flags.
    fn keys_named(&self, packet: &TcpPacket) -> Option<(Key, Key, MpCapableFlags)> {
        packet.options.mptcp.iter().find_map(|o| match *o {
            MptcpOption::MpCapable {
                version,
                flags,
                sender_key: Some(sender),
                receiver_key: Some(receiver),
                ..
            } if version == self.version.number() => Some((sender, receiver, flags)),
            _ => None,
        })
    }

    /// RFC 6824 §3.6 has a third packet without MP_CAPABLE end MPTCP, because a box may drop
    /// options. But its MP_CAPABLE is never repeated, and both keys are known from the SYNs:
    /// where it was lost, a DSS shows just as well that the client goes on with MPTCP and that
    /// options pass.
    fn proves_keys(&self, packet: &TcpPacket) -> bool {
        let dss = |o: &MptcpOption| matches!(o, MptcpOption::Dss(_));
        self.version.has_key_on_syn() && packet.options.mptcp.iter().any(dss)
    }

    fn on_capable_ack(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) -> bool {
        let s = &self.subflows[i];
        if !s.tcp.state().is_synchronized() {
            return false;
        }
        if self.is_mptcp() {
            let keys = self.keys_named(packet);
            let proven = keys.filter(|(sender, receiver, _)| {
                // An altered key means a compromised handshake: no MPTCP (RFC 8684 §3.1).
                Some(*receiver) == self.local.map(|k| k.key)
                    && sender != receiver
                    && self.remote.is_none_or(|k| k.key == *sender)
            });
            let window = u64::from(self.subflows[i].tcp.snd_wnd());
            if let Some((sender, _, flags)) = proven {
                cx.counters.inc(Counter::MPCapableACKRX);
                self.learn_key(sender);
                self.fully_established = true;
                self.checksum |= flags.contains(MpCapableFlags::CHECKSUM);
                self.snd_edge = self.snd_edge.max(window);
            } else if keys.is_none() && self.proves_keys(packet) {
                self.snd_edge = self.snd_edge.max(window);
            } else if keys.is_none()
                && (packet.seq != self.subflows[i].tcp.rcv_start()
                    || !(packet.options.mptcp.is_empty() || is_corrupt(packet)))
            {
                // Not the first bytes, or a packet that overtook the third one: options
                // pass, and the keys will be repeated.
                return false;
            } else {
                cx.counters.inc(Counter::MPCapableFallbackACK);
                self.fallback = Some(Counter::MPCapableFallbackACK);
                self.mode = Mode::Tcp;
                // Answers to a SYN's data may be acknowledged already.
                let acked = self.subflows[i].acked_to;
                self.acknowledge_stream(cx, acked);
            }
        }
        self.subflows[i].phase = Phase::Established;
        self.establish(cx, i);
        true
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
        self.subflows[i].tcp.forgo_ecn();
        true
    }
}

pub(crate) fn accepted_tcp(
    cx: &Cx<'_>,
    path: &SubflowPath,
    syn: &TcpPacket,
    mptcp: bool,
    fast_open: &FastOpenSyn,
) -> Tcp {
    let mut config = tcp_config(cx.config, path, mptcp);
    // RFC 8684 Appendix B.1: keys, a cookie and timestamps do not fit one SYN/ACK.
    config.timestamps &= !(mptcp && fast_open.grant.is_some());
    Tcp::accept(
        config,
        cx.now,
        SeqNumber(cx.secrets.initial_sequence(cx.now, &path.tuple)),
        cx.secrets.timestamp_offset(&path.tuple),
        &SegmentIn {
            payload_len: u32::try_from(fast_open.data.len()).unwrap_or(u32::MAX),
            ..SegmentIn::from(syn)
        },
    )
}
