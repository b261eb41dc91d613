//! A link: rate, delay, queue, and what goes wrong on it.

use std::time::Duration;

use braid_dataplane::time::Instant;
use rand::Rng;
use rand::rngs::StdRng;

use super::bottleneck::{Bottleneck, BottleneckConfig};
use super::chain::Chain;
use super::{headers, trace::Fate};
use crate::middlebox::{Element, Toward};

/// Looks at (and may change) a packet; false drops it. `toward` is the receiving host.
pub type Filter = Box<dyn FnMut(usize, &mut Vec<u8>) -> bool>;

/// Loss in bursts: the chain of Gilbert (1960) and Elliott (1963). The link is in a good or a
/// bad state, chosen anew for each packet.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Burst {
    /// Probability that the good state turns bad.
    pub to_bad: f64,
    /// Probability that the bad state turns good: bursts are `1 / to_good` packets long.
    pub to_good: f64,
    /// Probability of loss in the bad state.
    pub loss: f64,
    /// Time after which the state is good again whatever was sent: on a link that waits for
    /// a retransmission timer, one burst would last for minutes otherwise.
    pub longest: Duration,
}

/// What happens to a packet larger than the link's MTU.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum TooBig {
    /// It vanishes: a path MTU black hole (RFC 2923 §2.1).
    #[default]
    Silent,
    /// Its sender gets an ICMP "fragmentation needed" or ICMPv6 "packet too big".
    Icmp,
}

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
    /// Packets that may wait for the transmitter.
    pub queue_packets: usize,
    /// Waiting bytes from which packets of ECN-capable transports are marked (RFC 3168).
    pub ecn_bytes: Option<u64>,
    /// A queue shared with other links, instead of the four properties above.
    pub bottleneck: Option<usize>,
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Loss in bursts, besides.
    pub burst: Option<Burst>,
    /// Probability that a packet is held back and overtaken.
    pub reorder: f64,
    /// For how long.
    pub reorder_delay: Duration,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
    /// Probability that one bit of a packet flips.
    pub corrupt: f64,
    /// IP MTU; larger packets are dropped.
    pub mtu: u32,
    /// Who hears of that.
    pub too_big: TooBig,
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
            queue_packets: usize::MAX,
            ecn_bytes: None,
            bottleneck: None,
            loss: 0.0,
            burst: None,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(3),
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 1500,
            too_big: TooBig::Silent,
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
            .field("jitter", &self.jitter)
            .field("queue_bytes", &self.queue_bytes)
            .field("queue_packets", &self.queue_packets)
            .field("ecn_bytes", &self.ecn_bytes)
            .field("bottleneck", &self.bottleneck)
            .field("loss", &self.loss)
            .field("burst", &self.burst)
            .field("reorder", &self.reorder)
            .field("reorder_delay", &self.reorder_delay)
            .field("duplicate", &self.duplicate)
            .field("corrupt", &self.corrupt)
            .field("mtu", &self.mtu)
            .field("too_big", &self.too_big)
            .field("ipv6", &self.ipv6)
            .field("blackhole", &self.blackhole)
            .field("elements", &self.elements)
            .field("boxes_at", &self.boxes_at)
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
    /// Of these: found the queue full.
    pub queue_full: u64,
    /// Of these: larger than the MTU.
    pub too_big: u64,
    /// Packets that arrived more than once.
    pub duplicated: u64,
    /// Packets of which a bit flipped.
    pub corrupted: u64,
    /// Packets that were held back.
    pub reordered: u64,
    /// Packets that were marked "congestion experienced".
    pub marked: u64,
}

/// A link and its state.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: LinkConfig,
    pub(super) state: LinkState,
    pub(super) chain: Chain,
    pub(super) ends: [usize; 2],
    carrier: [bool; 2],
    queue: Bottleneck,
    /// When the burst chain came into its bad state, if it is, per direction.
    bad: [Option<Instant>; 2],
}

/// When a packet arrives.
#[derive(Copy, Clone, Debug)]
pub(super) struct Carried {
    pub(super) first: Instant,
    pub(super) second: Option<Instant>,
}

impl Link {
    pub(super) fn new(a: usize, b: usize, mut config: LinkConfig) -> Self {
        Self {
            chain: Chain::new(std::mem::take(&mut config.elements)),
            config,
            state: LinkState::default(),
            ends: [a, b],
            carrier: [true; 2],
            queue: Bottleneck::default(),
            bad: [None; 2],
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

    /// What becomes of a packet that `side` puts on the wire: arrivals, or why there are
    /// none. `shared` is the queue that the link shares with others.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        side: usize,
        packet: &mut Vec<u8>,
        shared: Option<&mut (BottleneckConfig, Bottleneck)>,
        rng: &mut StdRng,
    ) -> Result<Carried, Fate> {
        self.state.sent[side] += 1;
        self.state.sent_bytes[side] += packet.len() as u64;
        let carried = self.carry(now, side, packet, shared, rng);
        if let Err(fate) = carried {
            self.state.lost += 1;
            self.state.queue_full += u64::from(fate == Fate::QueueFull);
            self.state.too_big += u64::from(fate == Fate::TooBig);
        }
        carried
    }

    fn carry(
        &mut self,
        now: Instant,
        side: usize,
        packet: &mut Vec<u8>,
        shared: Option<&mut (BottleneckConfig, Bottleneck)>,
        rng: &mut StdRng,
    ) -> Result<Carried, Fate> {
        let to = self.ends[1 - side];
        let ethernet = 14;
        if self.config.blackhole || !self.carrier[side] {
            return Err(Fate::Blackhole);
        }
        if packet.len() > self.config.mtu as usize + ethernet {
            return Err(Fate::TooBig);
        }
        if chance(rng, self.config.loss) || self.burst_loses(now, side, rng) {
            return Err(Fate::Lost);
        }
        let config = &mut self.config;
        for filter in &mut config.filters {
            if !filter(to, packet) {
                return Err(Fate::Filtered);
            }
        }
        let passed = if let Some((config, queue)) = shared {
            queue.pass(now, side, packet.len(), config)
        } else if let Some(rate_bps) = config.rate_bps {
            let own = BottleneckConfig {
                rate_bps,
                queue_bytes: config.queue_bytes,
                queue_packets: config.queue_packets,
                ecn_bytes: config.ecn_bytes,
            };
            self.queue.pass(now, side, packet.len(), &own)
        } else {
            Some((now, false))
        };
        let (leaves, mark) = passed.ok_or(Fate::QueueFull)?;
        if mark && headers::mark_congestion(packet) {
            self.state.marked += 1;
        }
        if chance(rng, config.corrupt) && !packet.is_empty() {
            let bit = rng.random_range(0..packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
            // One checksum in 65,536 happens to be that of the pseudo-header alone: what is
            // changed under it looks as if a NIC had yet to fill it in, and boxes do that.
            if headers::awaits_checksum(packet) {
                packet[bit / 8] ^= 1 << (bit % 8);
            } else {
                self.state.corrupted += 1;
            }
        }
        let mut hold = Duration::ZERO;
        if chance(rng, config.reorder) {
            hold = config.reorder_delay;
            self.state.reordered += 1;
        }
        let first = leaves + config.delay + hold + jitter(rng, config.jitter);
        let second = chance(rng, config.duplicate)
            .then(|| leaves + config.delay + jitter(rng, config.jitter));
        self.state.duplicated += u64::from(second.is_some());
        Ok(Carried { first, second })
    }

    fn burst_loses(&mut self, now: Instant, side: usize, rng: &mut StdRng) -> bool {
        let bad = &mut self.bad[side];
        let Some(burst) = self.config.burst else {
            *bad = None;
            return false;
        };
        *bad = match *bad {
            Some(since) => {
                let over = now - since >= burst.longest || chance(rng, burst.to_good);
                (!over).then_some(since)
            }
            None => chance(rng, burst.to_bad).then_some(now),
        };
        bad.is_some() && chance(rng, burst.loss)
    }
}

/// Draws only where there is a choice: most links of most runs have no faults.
fn chance(rng: &mut StdRng, probability: f64) -> bool {
    probability > 0.0 && rng.random_bool(probability)
}

fn jitter(rng: &mut StdRng, max: Duration) -> Duration {
    if max.is_zero() {
        return max;
    }
    max.mul_f64(rng.random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Sends `count` packets, one each millisecond, and says which are lost.
    fn losses(config: LinkConfig, count: u64) -> Vec<bool> {
        let mut link = Link::new(0, 1, config);
        let mut rng = StdRng::seed_from_u64(1);
        (0..count)
            .map(|i| {
                let now = Instant::from_millis(i);
                link.transmit(now, 0, &mut vec![0; 100], None, &mut rng)
                    .is_err()
            })
            .collect()
    }

    #[test]
    fn bursts_have_the_length_and_rate_of_their_chain() {
        let burst = Burst {
            to_bad: 0.01,
            to_good: 0.25,
            loss: 1.0,
            longest: Duration::MAX,
        };
        let lost = losses(
            LinkConfig {
                burst: Some(burst),
                ..LinkConfig::default()
            },
            100_000,
        );
        let total = lost.iter().filter(|l| **l).count() as f64;
        let bursts = lost.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
        // In the bad state for to_bad / (to_bad + to_good) of the time, 1 / to_good long.
        assert!((3_500.0..4_200.0).contains(&total), "{total} lost");
        assert!(
            (3.6..4.4).contains(&(total / bursts)),
            "{total} in {bursts}"
        );
    }

    #[test]
    fn uniform_loss_is_as_likely_as_told() {
        let config = LinkConfig {
            loss: 0.05,
            ..LinkConfig::default()
        };
        let lost = losses(config, 100_000).iter().filter(|l| **l).count();
        assert!((4_700..5_300).contains(&lost), "{lost} lost");
    }

    #[test]
    fn a_held_packet_is_overtaken() {
        let mut link = Link::new(
            0,
            1,
            LinkConfig {
                rate_bps: None,
                ..LinkConfig::default()
            },
        );
        let mut rng = StdRng::seed_from_u64(1);
        let now = Instant::from_millis(1);
        link.config.reorder = 1.0;
        let held = link.transmit(now, 0, &mut vec![0; 100], None, &mut rng);
        link.config.reorder = 0.0;
        let next = link.transmit(now, 0, &mut vec![0; 100], None, &mut rng);
        assert!(held.unwrap().first > next.unwrap().first);
        assert_eq!(link.state.reordered, 1);
    }
}
