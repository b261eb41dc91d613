//! TCP Fast Open (RFC 7413): cookies, who remembers them, and data that travels with a SYN.
//!
//! A server's cookie is a keyed hash of both addresses and of a period, so nothing is stored and
//! the key is as good as rotated: a cookie is valid in its period and the next (RFC 7413
//! §4.1.2). Data of a SYN counts as received only with a valid cookie; what the SYN/ACK does not
//! acknowledge is as if it had not been sent.

use std::hash::Hasher;
use std::net::IpAddr;

use rand::RngCore;
use siphasher::sip::SipHasher13;

use super::Tcp;
use super::state::State;
use crate::time::{Duration, Instant};
use crate::wire::tcp::SeqNumber;
use crate::wire::tcp_options::FastOpenCookie;
use crate::wire::types::FourTuple;

/// How long a cookie is handed out; it is valid for up to twice as long.
const PERIOD: Duration = Duration::from_secs(6 * 3600);
/// Servers that a client remembers; the one not used for longest gives way.
const SERVERS_MAX: usize = 256;
/// A server whose SYNs with data vanish is asked without for so long: what drops them is on the
/// path and stays there (RFC 7413 §4.1.3.2 asks for negative caching).
const AVOID: Duration = Duration::from_secs(3600);

/// A server's secret. `Debug` shows nothing.
#[derive(Clone)]
pub struct FastOpenKey([u8; 16]);

impl core::fmt::Debug for FastOpenKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("FastOpenKey(..)")
    }
}

/// What a cookie is worth.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum CookieVerdict {
    /// Good.
    Valid,
    /// Good, but to be replaced.
    Aging,
    /// Not ours, of another address, or too old.
    Invalid,
}

impl FastOpenKey {
    /// A fresh secret.
    pub fn draw(rng: &mut impl RngCore) -> Self {
        let mut key = [0; 16];
        rng.fill_bytes(&mut key);
        Self(key)
    }

    fn of_period(&self, period: u64, tuple: &FourTuple) -> FastOpenCookie {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_u64(period);
        for end in [tuple.local, tuple.remote] {
            match end.ip() {
                IpAddr::V4(ip) => hasher.write(&ip.octets()),
                IpAddr::V6(ip) => hasher.write(&ip.octets()),
            }
        }
        FastOpenCookie::new(&hasher.finish().to_be_bytes()).expect("8 bytes are a cookie")
    }

    fn period(now: Instant) -> u64 {
        now.as_nanos() / u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The cookie for a client.
    #[must_use]
    pub fn cookie(&self, now: Instant, tuple: &FourTuple) -> FastOpenCookie {
        self.of_period(Self::period(now), tuple)
    }

    /// Judges the cookie of a SYN.
    #[must_use]
    pub fn judge(&self, now: Instant, tuple: &FourTuple, cookie: &FastOpenCookie) -> CookieVerdict {
        let period = Self::period(now);
        if *cookie == self.of_period(period, tuple) {
            CookieVerdict::Valid
        } else if period > 0 && *cookie == self.of_period(period - 1, tuple) {
            CookieVerdict::Aging
        } else {
            CookieVerdict::Invalid
        }
    }
}

/// What a client's handshake taught about a server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FastOpenLesson {
    /// The server.
    pub server: IpAddr,
    /// The cookie it gave, if it did.
    pub cookie: Option<FastOpenCookie>,
    /// The MSS it named.
    pub mss: u16,
    /// The SYN that had an option or data for it was lost.
    pub lost: bool,
}

#[derive(Clone, Debug)]
struct Server {
    ip: IpAddr,
    cookie: FastOpenCookie,
    mss: u16,
    avoid_until: Option<Instant>,
    used_at: Instant,
}

/// A client's memory of servers.
#[derive(Clone, Debug, Default)]
pub struct CookieCache {
    servers: Vec<Server>,
}

impl CookieCache {
    /// What to put into a SYN to `server`: a cookie and the MSS that limits the data, or the
    /// question for one. `None`: neither, for such SYNs were lost.
    pub fn offer(&mut self, now: Instant, server: IpAddr) -> Option<(FastOpenCookie, u16)> {
        let Some(known) = self.servers.iter_mut().find(|s| s.ip == server) else {
            return Some((FastOpenCookie::REQUEST, 0));
        };
        if known.avoid_until.is_some_and(|until| now < until) {
            return None;
        }
        known.used_at = now;
        Some((known.cookie, known.mss))
    }

    /// Remembers what a handshake taught.
    pub fn learn(&mut self, now: Instant, lesson: &FastOpenLesson) {
        let at = match self.servers.iter().position(|s| s.ip == lesson.server) {
            Some(at) => at,
            None if lesson.cookie.is_none() && !lesson.lost => return,
            None => {
                let server = Server {
                    ip: lesson.server,
                    cookie: FastOpenCookie::REQUEST,
                    mss: 0,
                    avoid_until: None,
                    used_at: now,
                };
                if self.servers.len() < SERVERS_MAX {
                    self.servers.push(server);
                    self.servers.len() - 1
                } else {
                    let oldest = (0..SERVERS_MAX).min_by_key(|i| self.servers[*i].used_at);
                    let at = oldest.unwrap_or(0);
                    self.servers[at] = server;
                    at
                }
            }
        };
        let server = &mut self.servers[at];
        if let Some(cookie) = lesson.cookie {
            server.cookie = cookie;
        }
        server.mss = lesson.mss;
        server.avoid_until = lesson.lost.then(|| now + AVOID);
    }
}

impl Tcp {
    /// The first SYN left with so many bytes behind it.
    pub fn syn_data_sent(&mut self, bytes: u32) {
        debug_assert_eq!(self.state, State::SynSent);
        self.syn_data_out = bytes;
    }

    /// Bytes of our SYN that the peer took.
    #[must_use]
    pub fn syn_data_acked(&self) -> u32 {
        self.snd_start - self.iss - 1
    }

    /// Where our stream continues behind the SYN and what the peer took of its data: subflow
    /// sequence number 1 (RFC 8684 Figure 19).
    #[must_use]
    pub fn snd_start(&self) -> SeqNumber {
        self.snd_start
    }

    /// Where the peer's stream continues behind the SYN and the data we took of it.
    #[must_use]
    pub fn rcv_start(&self) -> SeqNumber {
        self.rcv_start
    }

    /// Transmissions of the SYN or SYN/ACK beyond the first.
    #[must_use]
    pub fn handshake_attempts(&self) -> u8 {
        self.timers.handshake_attempt
    }

    /// The SYN's data was taken and may be answered although the handshake is not complete
    /// (RFC 7413 §4.2.2).
    #[must_use]
    pub fn may_answer_early(&self) -> bool {
        self.early_answers && self.state == State::SynReceived && !self.wanted.syn
    }

    /// From now on.
    pub fn allow_early_answers(&mut self) {
        self.early_answers = self.rcv_start != self.irs + 1;
    }

    /// New data may be put into the stream now.
    pub(super) fn may_send_now(&self) -> bool {
        self.state.may_send() || self.may_answer_early()
    }

    /// Takes the data of an accepted SYN as received.
    pub(super) fn take_syn_data(&mut self, bytes: u32) {
        self.rcv_nxt += bytes;
        self.rcv_start = self.rcv_nxt;
        self.last_ack_sent = self.rcv_nxt;
        self.header_edge = self.rcv_nxt;
        self.window.start(self.rcv_nxt);
        self.totals.bytes_in += u64::from(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn tuple(client: u8) -> FourTuple {
        FourTuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, client], 4000).into(),
        }
    }

    fn at(hours: u64) -> Instant {
        Instant::from_nanos(hours * 3600 * 1_000_000_000)
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_two_periods() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let key = FastOpenKey::draw(&mut rng);
        let cookie = key.cookie(at(12), &tuple(2));
        assert_eq!(cookie.as_slice().len(), 8);
        for (hours, verdict) in [
            (17, CookieVerdict::Valid),
            (18, CookieVerdict::Aging),
            (24, CookieVerdict::Invalid),
        ] {
            assert_eq!(key.judge(at(hours), &tuple(2), &cookie), verdict, "{hours}");
        }
        assert_eq!(
            key.judge(at(12), &tuple(3), &cookie),
            CookieVerdict::Invalid
        );
        let other = FastOpenKey::draw(&mut rng);
        assert_eq!(
            other.judge(at(12), &tuple(2), &cookie),
            CookieVerdict::Invalid
        );
        assert_eq!(
            key.judge(at(12), &tuple(2), &FastOpenCookie::REQUEST),
            CookieVerdict::Invalid
        );
    }

    #[test]
    fn the_cache_is_bounded_and_avoids_where_syns_vanish() {
        let mut cache = CookieCache::default();
        let ip = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        let lesson = |n: usize, lost| FastOpenLesson {
            server: ip(n),
            cookie: FastOpenCookie::new(&[1; 8]),
            mss: 1400,
            lost,
        };
        for n in 0..SERVERS_MAX + 10 {
            cache.learn(Instant::from_millis(n as u64), &lesson(n, false));
        }
        assert_eq!(cache.servers.len(), SERVERS_MAX);
        let now = at(1);
        assert_eq!(
            cache.offer(now, ip(0)),
            Some((FastOpenCookie::REQUEST, 0)),
            "forgotten"
        );
        let known = (FastOpenCookie::new(&[1; 8]).unwrap(), 1400);
        assert_eq!(cache.offer(now, ip(20)), Some(known));
        cache.learn(now, &lesson(20, true));
        assert_eq!(cache.offer(now, ip(20)), None);
        assert_eq!(cache.offer(at(2), ip(20)), Some(known), "again");
    }
}
