//! MP_CAPABLE without state: what a server does while its backlog is full (SYN cookies).
//!
//! RFC 8684 §3.1: a stateless server makes its key in a verifiable fashion, by a keyed hash of
//! the four-tuple, the sequence number and a secret; the third ACK, or the first data, echoes
//! it. Tokens are to be unique: of the keys that a handshake can have, a bounded number, the
//! first with a token that is free and this worker's is taken; without one the SYN/ACK goes
//! without MP_CAPABLE. Whether a token is still free is looked at again when the key comes
//! back: then it is too late for another, and the connection is plain TCP.

use std::hash::Hasher;

use rand::RngCore;
use siphasher::sip::SipHasher13;

use super::api::{Application, Cx, OpenError, SubflowPath};
use super::config::{ChecksumPolicy, WorkerShare, write_socket};
use super::connection::Connection;
use super::handshake::{tcp_config, template};
use super::key::KeyMaterial;
use super::options;
use super::state::Core;
use super::subflow::{Phase, Subflow};
use super::version::{self, Offer, SynOffer, Version};
use crate::counters::Counter;
use crate::tcp::{SegmentIn, SynFields, SynMemory, Tcp, stateless_syn_ack};
use crate::wire::mptcp::{MpCapableFlags, MptcpOption};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::{OptionsBuf, TcpOptions};
use crate::wire::types::{FourTuple, Key, Token};

/// Keys per worker that are tried for one handshake. Each hits this worker's share with
/// probability 1/count, so all of them miss once in e^16 handshakes. Fewer than
/// `KeyMaterial::draw` tries: this is work for a SYN that may be forged.
const TRIES_PER_WORKER: u32 = 16;

/// Makes keys that can be recognised. `Debug` shows nothing.
#[derive(Clone)]
pub struct StatelessKeys([u8; 16]);

impl std::fmt::Debug for StatelessKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StatelessKeys(..)")
    }
}

/// What a connection is made of when the ACK of a stateless SYN/ACK arrives.
#[derive(Copy, Clone, Debug)]
pub struct Resumed {
    /// Sequence number of the SYN/ACK: the cookie.
    pub iss: SeqNumber,
    /// Period in which it was made.
    pub period: u64,
    /// The peer's MSS, as remembered.
    pub mss: u16,
    /// Other options of the SYN, as remembered.
    pub memory: SynMemory,
}

impl StatelessKeys {
    /// A fresh secret.
    pub fn draw(rng: &mut impl RngCore) -> Self {
        let mut secret = [0; 16];
        rng.fill_bytes(&mut secret);
        Self(secret)
    }

    /// The keys of one handshake, in the order in which they are tried.
    fn candidates(
        &self,
        period: u64,
        tuple: &FourTuple,
        irs: SeqNumber,
        version: Version,
        share: WorkerShare,
    ) -> impl Iterator<Item = Key> {
        let mut base = SipHasher13::new_with_key(&self.0);
        base.write_u64(period);
        write_socket(&mut base, tuple.local);
        write_socket(&mut base, tuple.remote);
        base.write_u32(irs.0);
        base.write_u8(version.number());
        let tries = share.count.max(1).saturating_mul(TRIES_PER_WORKER);
        (0..tries).map(move |n| {
            let mut hasher = base;
            hasher.write_u32(n);
            Key(hasher.finish())
        })
    }

    fn choose(
        &self,
        period: u64,
        syn: &TcpPacket,
        version: Version,
        share: WorkerShare,
        in_use: impl Fn(Token) -> bool,
    ) -> Option<Key> {
        self.candidates(period, &syn.tuple, syn.seq, version, share)
            .find(|key| {
                let token = KeyMaterial::new(version, *key).token;
                share.owns(token) && !in_use(token)
            })
    }

    /// Header fields and options of a stateless SYN/ACK in answer to `syn`.
    ///
    /// # Errors
    /// The SYN must not be answered.
    pub fn syn_ack(
        &self,
        cx: &mut Cx<'_>,
        period: u64,
        path: &SubflowPath,
        syn: &TcpPacket,
        in_use: impl Fn(Token) -> bool,
    ) -> Result<(SynFields, OptionsBuf), OpenError> {
        let capable = self.capable(cx, period, syn, in_use)?;
        let fields = stateless_syn_ack(
            &tcp_config(cx.config, path, capable.is_some()),
            cx.now,
            cx.secrets.timestamp_offset(&syn.tuple),
            &SegmentIn::from(syn),
        );
        let options = options::syn(&fields, capable.as_ref(), None);
        Ok((fields, options))
    }

    fn capable(
        &self,
        cx: &mut Cx<'_>,
        period: u64,
        syn: &TcpPacket,
        in_use: impl Fn(Token) -> bool,
    ) -> Result<Option<MptcpOption>, OpenError> {
        let capable = |o: &MptcpOption| matches!(o, MptcpOption::MpCapable { .. });
        if syn.options.mptcp.iter().any(capable) {
            cx.counters.inc(Counter::MPCapableSYNRX);
        }
        let offer = match version::offer_of_syn(syn, cx.config) {
            SynOffer::Acceptable(offer) => offer,
            SynOffer::None => return Ok(None),
            SynOffer::Ignore => {
                cx.counters.inc(Counter::MPCapableSYNIgnored);
                return Err(OpenError::SynIgnored);
            }
        };
        let Some(key) = self.choose(period, syn, offer.version, cx.worker, in_use) else {
            cx.counters.inc(Counter::MPFallbackTokenInit);
            return Ok(None);
        };
        let mut flags = MpCapableFlags::HMAC_SHA256;
        if offer.flags.contains(MpCapableFlags::CHECKSUM)
            || cx.config.checksum == ChecksumPolicy::Always
        {
            flags = flags | MpCapableFlags::CHECKSUM;
        }
        if cx.config.deny_join_initial && offer.version.has_flag_c() {
            flags = flags | MpCapableFlags::NO_MORE_SUBFLOWS;
        }
        Ok(Some(MptcpOption::MpCapable {
            version: offer.version.number(),
            flags,
            sender_key: Some(key),
            receiver_key: None,
            data_len: None,
            checksum: None,
        }))
    }

    /// What the ACK's MP_CAPABLE shows, if the key it echoes is one that was made here for
    /// this handshake.
    fn recognise(&self, cx: &Cx<'_>, period: u64, ack: &TcpPacket) -> Option<(KeyMaterial, Offer)> {
        let (version, ours, offer) = ack.options.mptcp.iter().find_map(|o| match *o {
            MptcpOption::MpCapable {
                version,
                flags,
                sender_key: Some(theirs),
                receiver_key: Some(ours),
                ..
            } => {
                let version = match version {
                    0 if cx.config.allow_v0 => Version::V0,
                    1 => Version::V1,
                    _ => return None,
                };
                let offer = Offer {
                    version,
                    key: version.has_key_on_syn().then_some(theirs),
                    flags,
                };
                Some((version, ours, offer))
            }
            _ => None,
        })?;
        let genuine = cx.config.enabled
            && self
                .candidates(period, &ack.tuple, ack.seq - 1, version, cx.worker)
                .any(|key| key == ours);
        let local = KeyMaterial::new(version, ours);
        (genuine && cx.worker.owns(local.token)).then_some((local, offer))
    }
}

impl<A: Application> Connection<A> {
    /// A passive open by the ACK of a stateless SYN/ACK. The ACK is to be given to
    /// [`Connection::on_packet`] next.
    ///
    /// # Errors
    /// The path mixes address families.
    pub fn resume(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        ack: &TcpPacket,
        resumed: &Resumed,
        keys: &StatelessKeys,
        app: A,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let core = Core::resume(cx, path, ack, resumed, keys, token_in_use)?;
        Ok(Self::with(core, app))
    }
}

impl Core {
    fn resume(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        ack: &TcpPacket,
        resumed: &Resumed,
        keys: &StatelessKeys,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let template = template(&path)?;
        let mut shown = keys.recognise(cx, resumed.period, ack);
        if shown.is_some_and(|(local, _)| token_in_use(local.token)) {
            cx.counters.inc(Counter::MPFallbackTokenInit);
            shown = None;
        }
        let local = shown.map(|(local, _)| local);
        let version = shown.map_or(Version::V1, |(_, offer)| offer.version);
        let id = local.map_or_else(|| cx.rng.next_u32(), |k| k.token.0);
        let mut core = Core::new(cx, true, version, local, id);
        if let Some((_, offer)) = shown {
            core.checksum = offer.flags.contains(MpCapableFlags::CHECKSUM)
                || cx.config.checksum == ChecksumPolicy::Always;
            core.learn_offer(&offer);
        }
        let options = TcpOptions {
            mss: Some(resumed.mss),
            window_scale: resumed.memory.window_scale,
            sack_permitted: resumed.memory.sack_permitted,
            timestamps: ack.options.timestamps,
            ..TcpOptions::default()
        };
        let syn = SegmentIn {
            seq: ack.seq - 1,
            ack: SeqNumber(0),
            flags: Flags::SYN,
            window: ack.window,
            urgent: 0,
            options: &options,
            payload_len: 0,
            ce: false,
            mptcp_signal: false,
            segments: 1,
        };
        let tcp = Tcp::resume(
            tcp_config(cx.config, &path, local.is_some()),
            cx.now,
            resumed.iss,
            cx.secrets.timestamp_offset(&path.tuple),
            &syn,
        );
        let id = core.allocate_id();
        let subflow = Subflow::new(id, path, template, tcp, Phase::CapableAccepted);
        core.add_initial(cx, subflow);
        Ok(core)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        }
    }

    #[test]
    fn keys_belong_to_one_handshake_and_can_be_made_again() {
        let keys = StatelessKeys::draw(&mut rand::rngs::StdRng::seed_from_u64(1));
        let of = |keys: &StatelessKeys, period, port, irs, version| {
            keys.candidates(
                period,
                &tuple(port),
                SeqNumber(irs),
                version,
                WorkerShare::SOLE,
            )
            .collect::<Vec<_>>()
        };
        let first = of(&keys, 1, 1000, 5, Version::V1);
        assert_eq!(first, of(&keys, 1, 1000, 5, Version::V1));
        assert_eq!(first.len(), 16);
        let mut all = first.clone();
        for other in [
            of(&keys, 2, 1000, 5, Version::V1),
            of(&keys, 1, 1001, 5, Version::V1),
            of(&keys, 1, 1000, 6, Version::V1),
            of(&keys, 1, 1000, 5, Version::V0),
            of(
                &StatelessKeys::draw(&mut rand::rngs::StdRng::seed_from_u64(2)),
                1,
                1000,
                5,
                Version::V1,
            ),
        ] {
            all.extend(other);
        }
        let mut distinct: Vec<u64> = all.iter().map(|k| k.0).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 6 * 16);
    }

    #[test]
    fn nearly_every_handshake_finds_a_key_of_its_worker() {
        let keys = StatelessKeys::draw(&mut rand::rngs::StdRng::seed_from_u64(1));
        for count in [1, 3, 8] {
            let share = WorkerShare {
                index: count - 1,
                count,
            };
            for port in 0..500 {
                let found = keys
                    .candidates(9, &tuple(port), SeqNumber(1), Version::V1, share)
                    .map(|key| KeyMaterial::new(Version::V1, key).token)
                    .any(|token| share.owns(token));
                assert!(found, "worker {} of {count}", share.index);
            }
        }
    }
}
