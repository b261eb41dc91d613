//! A link: rate, delay, queue, and what goes wrong on it.

use std::time::Duration;

use braid_dataplane::time::Instant;
use rand::Rng;
use rand::rngs::StdRng;

use super::chain::Chain;
use crate::middlebox::{Element, Toward};

/// Looks at (and may change) a packet; false drops it. `toward` is the receiving host.
pub type Filter = Box<dyn FnMut(usize, &mut Vec<u8>) -> bool>;

/// Properties of a link, the same in both directions.
pub struct LinkConfig {
    /// Bits per second; `None` is infinitely fast.
    pub rate_bps: Option<u64>,
    /// Propagation, one way.
    pub delay: Duration,
    /// Extra delay, uniform between zero and this: reorders.
    pub jitter: Duration,
    /// Bytes that may wait for the transmitter.
    pub queue_bytes: u64,
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a packet flips.
    pub corrupt: f64,
    /// IP MTU; larger packets are dropped.
    pub mtu: u32,
    /// IPv6 addresses instead of IPv4.
    pub ipv6: bool,
    /// Swallows everything.
    pub blackhole: bool,
    /// Quick middleboxes, in order: asked at every transmission of either host.
    pub filters: Vec<Filter>,
    /// Middleboxes, in order from the link's first host, which is the client side. They
    /// all stand at one end of the wire.
    pub elements: Vec<Box<dyn Element>>,
    /// At which end the elements stand.
    pub boxes_at: End,
}

/// An end of a link.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// That of the link's first host.
    #[default]
    A,
    /// That of the second.
    B,
}

impl End {
    pub(super) fn side(self) -> usize {
        match self {
            End::A => 0,
            End::B => 1,
        }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            rate_bps: Some(100_000_000),
            delay: Duration::from_millis(5),
            jitter: Duration::ZERO,
            queue_bytes: 128 * 1024,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 1500,
            ipv6: false,
            blackhole: false,
            filters: Vec::new(),
            elements: Vec::new(),
            boxes_at: End::A,
        }
    }
}

impl std::fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkConfig")
            .field("rate_bps", &self.rate_bps)
            .field("delay", &self.delay)
            .field("loss", &self.loss)
            .finish_non_exhaustive()
    }
}

/// What a link has seen.
#[derive(Clone, Debug, Default)]
pub struct LinkState {
    /// Payload-carrying or not: packets put on the wire by each end.
    pub sent: [u64; 2],
    /// Bytes put on the wire by each end.
    pub sent_bytes: [u64; 2],
    /// Packets lost for any reason.
    pub lost: u64,
}

/// A link and its state.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: LinkConfig,
    pub(super) state: LinkState,
    pub(super) chain: Chain,
    pub(super) ends: [usize; 2],
    carrier: [bool; 2],
    /// When each direction's transmitter is free.
    free_at: [Instant; 2],
}

impl Link {
    pub(super) fn new(a: usize, b: usize, mut config: LinkConfig) -> Self {
        Self {
            chain: Chain::new(std::mem::take(&mut config.elements)),
            config,
            state: LinkState::default(),
            ends: [a, b],
            carrier: [true; 2],
            free_at: [Instant::default(); 2],
        }
    }

    /// Which way what `side` sends travels.
    pub(super) fn toward(&self, side: usize) -> Toward {
        [Toward::Server, Toward::Client][side]
    }

    /// The side whose packets travel `toward`.
    pub(super) fn sender(&self, toward: Toward) -> usize {
        usize::from(toward == Toward::Client)
    }

    pub(super) fn side(&self, host: usize) -> Option<usize> {
        self.ends.iter().position(|h| *h == host)
    }

    pub(super) fn peer_of(&self, host: usize) -> Option<usize> {
        self.side(host).map(|s| self.ends[1 - s])
    }

    pub(super) fn carrier(&self, host: usize) -> bool {
        self.side(host).is_some_and(|s| self.carrier[s])
    }

    pub(super) fn set_carrier(&mut self, host: usize, up: bool) {
        if let Some(side) = self.side(host) {
            self.carrier[side] = up;
        }
    }

    /// Receiver and arrivals of one transmission.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        side: usize,
        mut packet: Vec<u8>,
        rng: &mut StdRng,
    ) -> (usize, Vec<(Instant, Vec<u8>)>) {
        let to = self.ends[1 - side];
        let config = &mut self.config;
        self.state.sent[side] += 1;
        self.state.sent_bytes[side] += packet.len() as u64;
        let ethernet = 14;
        let mut lost = config.blackhole
            || !self.carrier[side]
            || packet.len() > config.mtu as usize + ethernet
            || rng.random_bool(config.loss);
        for filter in &mut config.filters {
            lost = lost || !filter(to, &mut packet);
        }
        if lost {
            self.state.lost += 1;
            return (to, Vec::new());
        }
        let mut leaves = now;
        if let Some(rate) = config.rate_bps {
            let start = self.free_at[side].max(now);
            let backlog = (start - now).as_secs_f64() * rate as f64 / 8.0;
            if backlog > config.queue_bytes as f64 {
                self.state.lost += 1;
                return (to, Vec::new());
            }
            let nanos = packet.len() as u64 * 8 * 1_000_000_000 / rate;
            leaves = start + Duration::from_nanos(nanos);
            self.free_at[side] = leaves;
        }
        if rng.random_bool(config.corrupt) {
            let bit = rng.random_range(0..packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = 1 + usize::from(rng.random_bool(config.duplicate));
        let arrivals = (0..copies)
            .map(|_| {
                let jitter = config.jitter.mul_f64(rng.random());
                (leaves + config.delay + jitter, packet.clone())
            })
            .collect();
        (to, arrivals)
    }
}
