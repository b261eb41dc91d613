//! SYN cookies (RFC 4987 §3.6): how connections are opened while a service's backlog is full.
//!
//! The SYN/ACK's sequence number holds what has to be known of the SYN, under a keyed hash:
//!
//! ```text
//!  31 30 29     27 26                                    0
//! +-----+---------+---------------------------------------+
//! | t   | MSS     | hash of t, MSS class, options,        |
//! | % 4 | class   | four-tuple and the peer's ISN         |
//! +-----+---------+---------------------------------------+
//! ```
//!
//! `t` counts periods of about a minute; a cookie is good in its period and the next. It is
//! part of what is hashed, so the hash of one period says nothing about another, as if the
//! secret were drawn anew. Window scale and SACK are in the timestamp that the peer echoes
//! (`tcp::SynMemory`); a peer without timestamps goes without them. MP_CAPABLE is kept by keys
//! that can be made again (`mptcp::StatelessKeys`). ECN and Fast Open are not agreed on.
//!
//! Invariants:
//! - a SYN under a full backlog costs a bounded number of hashes and one frame, and no memory;
//! - an ACK is taken for the third of a handshake only while cookies sent can still be valid.

use std::hash::Hasher;

use rand::{Rng, RngCore};
use siphasher::sip::SipHasher13;

use super::{Engine, cx};
use crate::buf::Chain;
use crate::counters::Counter;
use crate::mptcp::{
    Application, Connection, Cx, Resumed, StatelessKeys, SubflowPath, TxSink, write_socket,
};
use crate::offload::header::TcpHeaderOut;
use crate::tcp::SynMemory;
use crate::time::{Duration, Instant};
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::types::{FourTuple, Token};

/// 2^36 ns, 69 s, is a period: with the one before, a client has as long as a SYN/ACK that is
/// repeated five times would give it (63 s, RFC 6298 §2.1 and `synack_retries`).
const PERIOD_SHIFT: u32 = 36;
/// How long after it was sent a cookie can be good.
const LIFETIME: Duration = Duration::from_nanos(2 << PERIOD_SHIFT);
/// Bits of the cookie that are hash. With two periods and eight classes to choose from, a
/// forged ACK opens a connection once in 2^23 tries.
const HASH_BITS: u32 = 27;
const HASH_MASK: u32 = (1 << HASH_BITS) - 1;
const CLASS_BITS: u32 = 3;
const PERIODS_MASK: u64 = 3;
/// MSS that a peer may have had in mind, the next lower one counts: the least that is obeyed, the
/// default of RFC 9293 §3.7.1, IPv6's least MTU, tunnels, PPPoE, Ethernet with and without
/// IPv6, jumbo frames.
const MSS_CLASSES: [u16; 1 << CLASS_BITS] = [88, 536, 1220, 1360, 1400, 1440, 1460, 8940];
/// MSS of a peer that names none (RFC 9293 §3.7.1).
const MSS_DEFAULT: u16 = 536;

/// The secrets of one worker, and when it last used them. `Debug` shows no secret.
pub(super) struct SynCookies {
    secret: [u8; 16],
    keys: StatelessKeys,
    last_sent: Option<Instant>,
}

impl std::fmt::Debug for SynCookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SynCookies")
            .field("last_sent", &self.last_sent)
            .finish_non_exhaustive()
    }
}

/// What a cookie says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Baked {
    period: u64,
    mss: u16,
}

fn period(now: Instant) -> u64 {
    now.as_nanos() >> PERIOD_SHIFT
}

/// A byte for what is in the echoed timestamp, so that a box that removes or alters it cannot
/// make the two ends scale windows differently.
fn options_byte(timestamps: bool, memory: SynMemory) -> u8 {
    if timestamps { 0x80 | memory.bits() } else { 0 }
}

impl SynCookies {
    pub(super) fn draw(rng: &mut impl RngCore) -> Self {
        Self {
            secret: rng.random(),
            keys: StatelessKeys::draw(rng),
            last_sent: None,
        }
    }

    fn hash(&self, period: u64, class: u32, tuple: &FourTuple, irs: SeqNumber, opts: u8) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        hasher.write_u64(period);
        write_socket(&mut hasher, tuple.local);
        write_socket(&mut hasher, tuple.remote);
        hasher.write_u32(irs.0);
        hasher.write_u32(class);
        hasher.write_u8(opts);
        (hasher.finish() & u64::from(HASH_MASK)) as u32
    }

    /// The sequence number of the SYN/ACK.
    fn bake(
        &self,
        now: Instant,
        tuple: &FourTuple,
        irs: SeqNumber,
        mss: Option<u16>,
        opts: u8,
    ) -> SeqNumber {
        let mss = mss.unwrap_or(MSS_DEFAULT);
        let class = MSS_CLASSES.iter().rposition(|c| *c <= mss).unwrap_or(0);
        let class = u32::try_from(class).unwrap_or(0);
        let period = period(now);
        let hash = self.hash(period, class, tuple, irs, opts);
        let turn = (period & PERIODS_MASK) as u32;
        SeqNumber(turn << (HASH_BITS + CLASS_BITS) | class << HASH_BITS | hash)
    }

    /// What the cookie says, if it is one of this handshake and young enough.
    fn judge(
        &self,
        now: Instant,
        tuple: &FourTuple,
        irs: SeqNumber,
        cookie: SeqNumber,
        opts: u8,
    ) -> Option<Baked> {
        let turn = u64::from(cookie.0 >> (HASH_BITS + CLASS_BITS));
        let class = (cookie.0 >> HASH_BITS) & ((1 << CLASS_BITS) - 1);
        let newest = period(now);
        let period = [Some(newest), newest.checked_sub(1)]
            .into_iter()
            .flatten()
            .find(|period| period & PERIODS_MASK == turn)?;
        let genuine = self.hash(period, class, tuple, irs, opts) == cookie.0 & HASH_MASK;
        genuine.then(|| Baked {
            period,
            mss: MSS_CLASSES[class as usize],
        })
    }
}

impl<A: Application> Engine<A> {
    /// Answers a SYN without keeping anything.
    pub(super) fn answer_statelessly<S: TxSink>(
        &mut self,
        now: Instant,
        path: &SubflowPath,
        syn: &TcpPacket,
        sink: &mut S,
    ) {
        let tokens = &self.tokens;
        let in_use = |token: Token| tokens.contains_key(&token.0);
        let keys = &self.syn_cookies.keys;
        let answer = keys.syn_ack(&mut cx!(self, now), period(now), path, syn, in_use);
        let Ok((fields, options)) = answer else {
            return;
        };
        let memory = SynMemory::of(&self.config.mptcp.tcp, &syn.options);
        let opts = options_byte(fields.timestamps.is_some(), memory);
        let mss = syn.options.mss;
        let header = TcpHeaderOut {
            seq: self.syn_cookies.bake(now, &syn.tuple, syn.seq, mss, opts),
            ack: fields.ack.unwrap_or_default(),
            flags: fields.flags,
            window: fields.window,
            urgent: 0,
            ecn: 0,
        };
        self.answer(path.port, syn, header, &options, sink);
        self.syn_cookies.last_sent = Some(now);
        self.counters.inc(Counter::SyncookiesSent);
    }

    /// Whether a segment of no flow may be the answer to a cookie.
    pub(super) fn may_be_cookie(&self, now: Instant, segment: &TcpPacket) -> bool {
        let flags = segment.flags;
        self.syn_cookies
            .last_sent
            .is_some_and(|at| now - at < LIFETIME)
            && flags.contains(Flags::ACK)
            && !flags.contains(Flags::SYN)
            && !flags.contains(Flags::RST)
            && self
                .services
                .iter()
                .any(|s| s.listens_on(segment.tuple.local))
    }

    /// A segment that may acknowledge a cookie. What does not is dropped without a RST: it may
    /// have overtaken the one that does, and a RST would end a connection that can still be
    /// opened.
    pub(super) fn on_cookie(
        &mut self,
        now: Instant,
        path: SubflowPath,
        ack: &TcpPacket,
        payload: Chain,
    ) {
        let echo = ack
            .options
            .timestamps
            .filter(|_| self.config.mptcp.tcp.timestamps);
        let memory = echo.map_or(SynMemory::default(), |t| SynMemory::from_echo(t.tsecr));
        let opts = options_byte(echo.is_some(), memory);
        let (irs, cookie) = (ack.seq - 1, ack.ack - 1);
        let cookies = &self.syn_cookies;
        let Some(baked) = cookies.judge(now, &ack.tuple, irs, cookie, opts) else {
            self.counters.inc(Counter::SyncookiesFailed);
            return;
        };
        if self.draining || self.pressure || self.live >= self.config.connections_max {
            // The peer repeats its first data until there is room again.
            self.counters.inc(Counter::MemoryPressureRefused);
            return;
        }
        if self.flows.is_full() {
            self.counters.inc(Counter::FlowTableFull);
            return;
        }
        let local = ack.tuple.local;
        let Some(index) = self.services.iter().position(|s| s.listens_on(local)) else {
            return;
        };
        self.counters.inc(Counter::SyncookiesRecv);
        let service = &self.services[index];
        let (name, app) = (service.name.clone(), (service.make)());
        let resumed = Resumed {
            iss: cookie,
            period: baked.period,
            mss: baked.mss,
            memory,
        };
        let tokens = &self.tokens;
        let in_use = |token: Token| tokens.contains_key(&token.0);
        let keys = &self.syn_cookies.keys;
        let cx = &mut cx!(self, now);
        let Ok(mut conn) = Connection::resume(cx, path, ack, &resumed, keys, app, in_use) else {
            // Both addresses come from one packet, so they are of one family.
            return;
        };
        // The initial subflow is the only one.
        let initial = conn.subflows().map(|(id, _)| id).next();
        if let Some(subflow) = initial {
            conn.on_packet(cx, subflow, ack, payload);
        }
        let service = u16::try_from(index).expect("services are counted in u16");
        let slot = self.adopt(Box::new(conn), Some(service), name);
        self.touched(now, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const IRS: SeqNumber = SeqNumber(12_345);

    fn cookies(seed: u64) -> SynCookies {
        SynCookies::draw(&mut rand::rngs::StdRng::seed_from_u64(seed))
    }

    fn tuple(port: u16) -> FourTuple {
        FourTuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        }
    }

    fn at(periods: u64) -> Instant {
        Instant::from_nanos(periods << PERIOD_SHIFT)
    }

    #[test]
    fn a_cookie_is_good_for_its_handshake_in_two_periods() {
        let c = cookies(1);
        for first in 0..9 {
            let baked = c.bake(at(first), &tuple(1), IRS, Some(1460), 3);
            let good = Some(Baked {
                period: first,
                mss: 1460,
            });
            for (later, expected) in [(0, good), (1, good), (2, None), (4, None), (5, None)] {
                let now = at(first + later);
                assert_eq!(c.judge(now, &tuple(1), IRS, baked, 3), expected, "{later}");
            }
            assert_eq!(c.judge(at(first), &tuple(2), IRS, baked, 3), None);
            assert_eq!(c.judge(at(first), &tuple(1), IRS + 1, baked, 3), None);
            assert_eq!(c.judge(at(first), &tuple(1), IRS, baked + 1, 3), None);
            assert_eq!(c.judge(at(first), &tuple(1), IRS, baked, 4), None);
            assert_eq!(cookies(2).judge(at(first), &tuple(1), IRS, baked, 3), None);
        }
    }

    #[test]
    fn the_class_is_the_largest_that_the_peer_can_take() {
        let c = cookies(1);
        for (mss, class) in [
            (None, 536),
            (Some(0), 88),
            (Some(535), 88),
            (Some(536), 536),
            (Some(1459), 1440),
            (Some(1460), 1460),
            (Some(9000), 8940),
        ] {
            let baked = c.bake(at(3), &tuple(1), IRS, mss, 0);
            let judged = c.judge(at(3), &tuple(1), IRS, baked, 0);
            assert_eq!(judged.map(|b| b.mss), Some(class));
        }
    }

    #[test]
    fn guesses_fail() {
        let c = cookies(1);
        let mut rng = rand::rngs::StdRng::seed_from_u64(2);
        let hits = (0..100_000)
            .filter(|_| {
                let guess = SeqNumber(rng.next_u32());
                c.judge(at(7), &tuple(1), IRS, guess, 0).is_some()
            })
            .count();
        assert_eq!(hits, 0);
    }
}
