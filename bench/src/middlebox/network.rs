//! What networks do to whole packets (H1 to H4, I3, I4, J8, L1, L3; Click's ChangeIPID).

use std::collections::VecDeque;
use std::time::Duration;

use braid_dataplane::time::Instant;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rule::{Counts, Exit, Flows, Rule, Way};
use super::segment::Segment;
use super::{Element, Out, Toward};

/// H1: some packets wait until the next one of their direction has passed, or for a while.
#[derive(Debug)]
pub struct Reorder {
    rng: StdRng,
    share: f64,
    wait: Duration,
    held: [Option<(Instant, Segment)>; 2],
}

impl Reorder {
    /// Holds a `share` of the segments, for `wait` at most.
    #[must_use]
    pub fn new(seed: u64, share: f64, wait: Duration) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            share,
            wait,
            held: [None, None],
        }
    }
}

impl Rule for Reorder {
    fn apply(&mut self, now: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let held = &mut self.held[toward.index()];
        if held.is_none() && self.rng.random_bool(self.share) {
            *held = Some((now + self.wait, s));
            return;
        }
        exit.send(toward, &s);
        if let Some((_, late)) = held.take() {
            exit.count("reordered");
            exit.send(toward, &late);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.held.iter().flatten().map(|(at, _)| *at).min()
    }

    fn on_timer(&mut self, now: Instant, exit: &mut Exit<'_>) {
        for toward in [Toward::Client, Toward::Server] {
            let held = &mut self.held[toward.index()];
            if held.as_ref().is_some_and(|(at, _)| *at <= now)
                && let Some((_, late)) = held.take()
            {
                exit.count("delayed");
                exit.send(toward, &late);
            }
        }
    }
}

/// H2: every packet twice.
#[derive(Default, Debug)]
pub struct Duplicate;

impl Rule for Duplicate {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        exit.count("duplicated");
        exit.send(toward, &s);
        exit.send(toward, &s);
    }
}

/// H3: loses a share of the packets.
#[derive(Debug)]
pub struct Lose {
    rng: StdRng,
    share: f64,
}

impl Lose {
    /// Loses a `share`.
    #[must_use]
    pub fn new(seed: u64, share: f64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            share,
        }
    }
}

impl Rule for Lose {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        if self.rng.random_bool(self.share) {
            exit.count("dropped: loss");
        } else {
            exit.send(toward, &s);
        }
    }
}

/// H4: a slow link behind a long queue, the same in both directions.
#[derive(Debug)]
pub struct Queue {
    bytes_per_s: u64,
    queue: Duration,
    free_at: [Instant; 2],
    waiting: [VecDeque<(Instant, Vec<u8>)>; 2],
    counts: Counts,
}

impl Queue {
    /// Sends `bytes_per_s`; what would wait longer than `queue` is dropped.
    #[must_use]
    pub fn new(bytes_per_s: u64, queue: Duration) -> Self {
        Self {
            bytes_per_s: bytes_per_s.max(1),
            queue,
            free_at: [Instant::ZERO; 2],
            waiting: Default::default(),
            counts: Counts::default(),
        }
    }
}

impl Element for Queue {
    fn on_frame(&mut self, now: Instant, toward: Toward, frame: Vec<u8>, _: &mut Vec<Out>) {
        let dir = toward.index();
        let start = self.free_at[dir].max(now);
        if start - now > self.queue {
            return self.counts.add("dropped: queue full", 1);
        }
        let nanos = frame.len() as u64 * 1_000_000_000 / self.bytes_per_s;
        self.free_at[dir] = start + Duration::from_nanos(nanos);
        self.counts.add("queued", 1);
        self.waiting[dir].push_back((self.free_at[dir], frame));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let heads = self.waiting.iter().filter_map(VecDeque::front);
        heads.map(|(at, _)| *at).min()
    }

    fn on_timer(&mut self, now: Instant, out: &mut Vec<Out>) {
        for toward in [Toward::Client, Toward::Server] {
            let waiting = &mut self.waiting[toward.index()];
            while let Some((_, frame)) = waiting.pop_front_if(|(at, _)| *at <= now) {
                out.push(Out { toward, frame });
            }
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.list()
    }
}

/// When a path stops to carry a flow, without a word.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Until {
    /// I3, L1: after so many packets of the flow.
    Packets(u64),
    /// I4: after a silence of this length; a SYN starts it anew.
    Silence(Duration),
}

/// A path that stops to carry a flow.
#[derive(Debug)]
pub struct Blackhole {
    until: Until,
    way: Way,
    flows: Flows<Seen>,
}

#[derive(Default, Debug)]
struct Seen {
    packets: u64,
    last: Option<Instant>,
    dead: bool,
}

impl Blackhole {
    /// Drops what travels `way` once the time has come.
    #[must_use]
    pub fn new(until: Until, way: Way) -> Self {
        Self {
            until,
            way,
            flows: Flows::default(),
        }
    }
}

impl Rule for Blackhole {
    fn apply(&mut self, now: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let seen = self.flows.of(s.flow(toward));
        seen.packets += 1;
        if s.is_syn() {
            seen.dead = false;
        }
        match self.until {
            Until::Packets(n) => seen.dead |= seen.packets > n,
            Until::Silence(limit) => {
                seen.dead |= !s.is_syn() && seen.last.is_some_and(|last| now - last > limit);
            }
        }
        seen.last = Some(now);
        if seen.dead && self.way.covers(toward) {
            exit.count("dropped: blackhole");
        } else {
            exit.send(toward, &s);
        }
    }
}

/// L3: packets above a size that the path says nothing about, or does.
#[derive(Debug)]
pub struct MtuHole {
    mtu: u16,
    tells: bool,
}

impl MtuHole {
    /// Drops IP packets of more than `mtu` bytes; `tells` the sender by ICMP.
    #[must_use]
    pub fn new(mtu: u16, tells: bool) -> Self {
        Self { mtu, tells }
    }
}

impl Rule for MtuHole {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        if s.ip_len() <= usize::from(self.mtu) {
            return exit.send(toward, &s);
        }
        exit.count("dropped: too big");
        if self.tells {
            exit.count("ICMP sent");
            exit.send_frame(toward.back(), s.too_big(self.mtu));
        }
    }
}

/// Which fields of the IP header change.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum IpField {
    /// J8: hop limit less by this, DSCP set to this, IPv4 identification plus this.
    Rewrite {
        /// Hops.
        hops: u8,
        /// DSCP.
        dscp: u8,
        /// Identification.
        id: u16,
    },
    /// J7: ECN becomes Not-ECT.
    BleachEcn,
}

/// Rewrites the IP header.
#[derive(Debug)]
pub struct IpHeader {
    field: IpField,
}

impl IpHeader {
    /// A box that changes this.
    #[must_use]
    pub fn new(field: IpField) -> Self {
        Self { field }
    }

    /// Click's ChangeIPID(DELTA).
    #[must_use]
    pub fn change_id(delta: u16) -> Self {
        Self::new(IpField::Rewrite {
            hops: 0,
            dscp: 0,
            id: delta,
        })
    }
}

impl Rule for IpHeader {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let v6 = s.is_ipv6();
        let ip = s.ip_header_mut();
        // The traffic class: a whole byte of IPv4, astride two of IPv6.
        let class = if v6 { ip[0] << 4 | ip[1] >> 4 } else { ip[1] };
        let (changed, class) = match self.field {
            IpField::Rewrite { hops, dscp, id } => {
                let ttl = if v6 { 7 } else { 8 };
                ip[ttl] = ip[ttl].saturating_sub(hops).max(1);
                s.bump_ip_id(id);
                (true, dscp << 2 | class & 3)
            }
            IpField::BleachEcn => (class & 3 != 0, class & !3),
        };
        let ip = s.ip_header_mut();
        if v6 {
            ip[0] = ip[0] & 0xf0 | class >> 4;
            ip[1] = ip[1] & 0x0f | class << 4;
        } else {
            ip[1] = class;
        }
        if changed {
            exit.count("IP headers changed");
        }
        exit.send(toward, &s);
    }
}
