//! Address and port translation (A1, A2), sequence renumbering (A3, A4), and an announced
//! address that means something else outside (A5).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::subtype;
use braid_dataplane::wire::tcp::Flags;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::Segment;

/// First outside port.
const OUTSIDE_PORT_MIN: u16 = 40_000;
/// Mappings a NAT keeps.
const MAPPINGS_MAX: usize = 4096;

/// When a NAT forgets a mapping and makes a new one.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Rebind {
    /// Never.
    Never,
    /// Once, after this many packets from the inside.
    AfterPackets(u64),
    /// After this long without a packet.
    AfterIdle(Duration),
}

/// A1, A2: clients appear under another address and port.
#[derive(Debug)]
pub struct Nat {
    outside: Option<(Ipv4Addr, Ipv6Addr)>,
    rebind: Rebind,
    next_port: u16,
    by_inside: BTreeMap<SocketAddr, Mapping>,
    inside_of: BTreeMap<SocketAddr, SocketAddr>,
}

#[derive(Debug)]
struct Mapping {
    outside: SocketAddr,
    packets: u64,
    rebound: bool,
    last: Instant,
}

impl Nat {
    /// A NAT. Without `outside` addresses only ports change (NAPT on the client's own
    /// address), so that nothing but the box needs a route.
    #[must_use]
    pub fn new(outside: Option<(Ipv4Addr, Ipv6Addr)>, rebind: Rebind) -> Self {
        Self {
            outside,
            rebind,
            next_port: OUTSIDE_PORT_MIN,
            by_inside: BTreeMap::new(),
            inside_of: BTreeMap::new(),
        }
    }

    fn outside_of(&mut self, now: Instant, inside: SocketAddr, exit: &mut Exit<'_>) -> SocketAddr {
        let rebind = self.rebind;
        if let Some(m) = self.by_inside.get_mut(&inside) {
            m.packets += 1;
            let idle = now - m.last;
            m.last = now;
            let due = match rebind {
                Rebind::Never => false,
                Rebind::AfterPackets(n) => !m.rebound && m.packets > n,
                Rebind::AfterIdle(limit) => idle >= limit,
            };
            if !due {
                return m.outside;
            }
            exit.count("rebound");
            let old = m.outside;
            self.inside_of.remove(&old);
            return self.map(now, inside, true);
        }
        if self.by_inside.len() >= MAPPINGS_MAX {
            self.by_inside.clear();
            self.inside_of.clear();
        }
        exit.count("mapped");
        self.map(now, inside, false)
    }

    fn map(&mut self, now: Instant, inside: SocketAddr, rebound: bool) -> SocketAddr {
        let ip = match (self.outside, inside.ip()) {
            (Some((v4, _)), IpAddr::V4(_)) => IpAddr::V4(v4),
            (Some((_, v6)), IpAddr::V6(_)) => IpAddr::V6(v6),
            (None, ip) => ip,
        };
        let outside = SocketAddr::new(ip, self.next_port);
        self.next_port = (self.next_port.checked_add(1)).unwrap_or(OUTSIDE_PORT_MIN);
        self.inside_of.insert(outside, inside);
        let mapping = Mapping {
            outside,
            packets: 1,
            rebound,
            last: now,
        };
        self.by_inside.insert(inside, mapping);
        outside
    }
}

impl Rule for Nat {
    fn apply(&mut self, now: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        match toward {
            Toward::Server => {
                s.src = self.outside_of(now, s.src, exit);
                exit.count("translated");
                exit.send(toward, &s);
            }
            Toward::Client => match self.inside_of.get(&s.dst) {
                Some(inside) => {
                    s.dst = *inside;
                    exit.count("translated");
                    exit.send(toward, &s);
                }
                None => exit.count("dropped: no mapping"),
            },
        }
    }
}

/// A3, A4, Click's ChangeSeq: every flow gets other sequence numbers.
#[derive(Debug)]
pub struct Renumber {
    rng: StdRng,
    fixed: Option<u32>,
    translate_sack: bool,
    flows: Flows<Option<[u32; 2]>>,
}

impl Renumber {
    /// Draws a difference per flow and direction. `translate_sack`: SACK blocks follow.
    #[must_use]
    pub fn random(seed: u64, translate_sack: bool) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            fixed: None,
            translate_sack,
            flows: Flows::default(),
        }
    }

    /// Click's ChangeSeq(DELTA): the client's numbers only, SACK blocks untouched.
    #[must_use]
    pub fn change_seq(delta: u32) -> Self {
        Self {
            fixed: Some(delta),
            ..Self::random(0, false)
        }
    }
}

impl Rule for Renumber {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let fixed = self.fixed;
        let rng = &mut self.rng;
        let deltas = *self.flows.of(s.flow(toward)).get_or_insert_with(|| {
            let mut delta = [0; 2];
            match fixed {
                Some(d) => delta[Toward::Server.index()] = d,
                None => delta.fill_with(|| rng.random()),
            }
            delta
        });
        s.seq += deltas[toward.index()];
        let back = deltas[toward.back().index()];
        if s.flags.contains(Flags::ACK) {
            s.ack -= back;
        }
        if self.translate_sack {
            s.map_sack(|edge| edge - back);
        }
        exit.count("renumbered");
        exit.send(toward, &s);
    }
}

/// A5: announced addresses become others; their HMAC stays. What a NAT that "helps" does,
/// and what a private address amounts to that belongs to someone else outside.
#[derive(Debug)]
pub struct RewriteAnnounced {
    way: Way,
}

impl RewriteAnnounced {
    /// A box for the announcements one way.
    #[must_use]
    pub fn new(way: Way) -> Self {
        Self { way }
    }
}

impl Rule for RewriteAnnounced {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if self.way.covers(toward)
            && let Some(option) = s.mptcp_mut(subtype::ADD_ADDR)
            && option.len() >= 8
        {
            // The first byte of the address (RFC 8684 figure 12): 10/8, whatever it was.
            option[4] = if option[4] == 10 { 192 } else { 10 };
            exit.count("addresses rewritten");
        }
        exit.send(toward, &s);
    }
}
