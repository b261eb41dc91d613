//! A deterministic network: engines, links, faults and a virtual clock, all from one seed.
//!
//! The hosts run the very engine that runs live; only ports, clock and randomness are
//! replaced. A failing seed replays exactly. Nothing here sleeps: time jumps to the next
//! packet arrival, engine deadline or scheduled fault.

mod app;
pub(crate) mod chain;
mod host;
mod link;
mod pcap;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::worker::{Order, OrderError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use app::{Outcome, Outcomes, Role, SimApp};
pub use host::{Host, HostConfig};
pub use link::{End, Filter, LinkConfig, LinkState};
pub use pcap::write_pcap;

use crate::middlebox::{Element, Toward};
use link::Link;

/// Time starts here, so that subtracting a little from it stays positive.
pub const EPOCH: Duration = Duration::from_secs(1);

/// Something that happens at a set time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The link swallows packets (or stops doing so); nobody is told.
    Blackhole {
        /// Which link.
        link: usize,
        /// Swallow from now on?
        on: bool,
    },
    /// A host's end of the link loses or regains carrier, and is told.
    Carrier {
        /// Which link.
        link: usize,
        /// Which host.
        host: usize,
        /// Carrier from now on?
        up: bool,
    },
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrival {
        link: usize,
        to: usize,
        packet: Vec<u8>,
    },
    /// A packet came to the middleboxes at the end of the wire.
    AtBox {
        link: usize,
        toward: Way,
        packet: Vec<u8>,
    },
    /// A middlebox's timer.
    BoxTimer {
        link: usize,
    },
    Fault(Fault),
    Reopen {
        host: usize,
        token: u32,
        link: usize,
        attempt: u32,
    },
}

/// [`Toward`] with an order, which a queue of events wants and nothing depends on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Way(Toward);

impl PartialOrd for Way {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Way {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0 == Toward::Server).cmp(&(other.0 == Toward::Server))
    }
}

/// See the module documentation.
pub struct Sim {
    now: Instant,
    rng: StdRng,
    hosts: Vec<Host>,
    links: Vec<Link>,
    queue: BinaryHeap<Reverse<(Instant, u64, What)>>,
    serial: u64,
    /// Last packets on any link, for the report of a failure.
    trace: pcap::Trace,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Sim {
    /// An empty network.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::default() + EPOCH,
            rng: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            links: Vec::new(),
            queue: BinaryHeap::new(),
            serial: 0,
            trace: pcap::Trace::new(4096),
        }
    }

    /// The virtual time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - (Instant::default() + EPOCH)
    }

    /// Adds a host and returns its number.
    pub fn add_host(&mut self, config: &HostConfig) -> usize {
        let seed = self.rng.random();
        let number = self.hosts.len();
        self.hosts.push(Host::new(number, config, seed, self.now));
        number
    }

    /// Connects two hosts and returns the link's number, which is also the number of the
    /// port at both ends.
    pub fn add_link(&mut self, a: usize, b: usize, config: LinkConfig) -> usize {
        self.links.push(Link::new(a, b, config));
        self.links.len() - 1
    }

    /// Puts a middlebox on a link, behind those that are there already (seen from the
    /// link's first host, which is the client side).
    pub fn add_element(&mut self, link: usize, element: Box<dyn Element>) {
        self.links[link].chain.push(element);
    }

    /// The middleboxes of a link, the client side first, to read their counts.
    #[must_use]
    pub fn elements(&self, link: usize) -> &[Box<dyn Element>] {
        self.links[link].chain.elements()
    }

    /// A host.
    pub fn host(&mut self, host: usize) -> &mut Host {
        &mut self.hosts[host]
    }

    /// A link's counts.
    #[must_use]
    pub fn link(&self, link: usize) -> &LinkState {
        &self.links[link].state
    }

    /// Changes a link's properties from now on.
    pub fn reconfigure(&mut self, link: usize, change: impl FnOnce(&mut LinkConfig)) {
        change(&mut self.links[link].config);
    }

    /// An order to a host's engine, as a path manager gives it.
    ///
    /// # Errors
    /// Why the engine refuses it.
    pub fn order(&mut self, host: usize, token: u32, order: Order) -> Result<(), OrderError> {
        let result = self.hosts[host].engine().order(self.now, token, order);
        self.flush(host);
        result
    }

    /// Schedules a fault.
    pub fn at(&mut self, after_start: Duration, fault: Fault) {
        let at = Instant::default() + EPOCH + after_start;
        self.push(at, What::Fault(fault));
    }

    /// Opens a connection from `client` over `link`; further links to the same server are
    /// joined once it is established, and again when their subflow is lost.
    pub fn connect(
        &mut self,
        client: usize,
        link: usize,
        port: u16,
        role: Role,
    ) -> (u32, Outcomes) {
        let (path, outcomes, app) = {
            let link_end = &self.links[link];
            let host = &mut self.hosts[client];
            host.prepare_connect(link, link_end, port, role)
        };
        let token = self.hosts[client].connect(self.now, path, app);
        self.flush(client);
        (token, outcomes)
    }

    /// Runs until `done` says so or `limit` of virtual time has passed since the start.
    /// True when `done` said so.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Sim) -> bool) -> bool {
        let end = Instant::default() + EPOCH + limit;
        loop {
            if done(self) {
                return true;
            }
            if !self.step(end) {
                return done(self);
            }
        }
    }

    /// The next thing that happens. False when nothing does before `end`.
    fn step(&mut self, end: Instant) -> bool {
        let next_event = self.queue.peek().map(|Reverse((at, ..))| *at);
        let next_timer = self.hosts.iter().filter_map(Host::next_deadline).min();
        let next = match (next_event, next_timer) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return false,
        };
        if next > end {
            self.now = end;
            return false;
        }
        self.now = self.now.max(next);
        if next_event.is_some_and(|at| at <= self.now) {
            let Reverse((_, _, what)) = self.queue.pop().expect("peeked");
            self.happen(what);
        } else {
            for host in 0..self.hosts.len() {
                if self.hosts[host]
                    .next_deadline()
                    .is_some_and(|d| d <= self.now)
                {
                    self.hosts[host].on_timers(self.now);
                    self.flush(host);
                }
            }
        }
        true
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrival { link, to, packet } => {
                let state = &self.links[link];
                if state.config.blackhole || !state.carrier(to) {
                    self.links[link].state.lost += 1;
                    return;
                }
                self.trace.record(self.now, link, to, &packet);
                let mtu = state.config.mtu;
                self.hosts[to].receive(self.now, link, mtu, &packet);
                self.flush(to);
            }
            What::AtBox {
                link,
                toward,
                packet,
            } => self.through_boxes(link, toward.0, packet),
            What::BoxTimer { link } => {
                self.links[link].chain.on_timer(self.now);
                self.leave_boxes(link);
            }
            What::Fault(Fault::Blackhole { link, on }) => self.links[link].config.blackhole = on,
            What::Fault(Fault::Carrier { link, host, up }) => {
                self.links[link].set_carrier(host, up);
                self.hosts[host].on_carrier(self.now, link, up);
                self.flush(host);
                if up {
                    for token in self.hosts[host].initiated() {
                        self.reopen(host, token, link, 0);
                    }
                }
            }
            What::Reopen {
                host,
                token,
                link,
                attempt,
            } => {
                let l = &self.links[link];
                if l.carrier(host)
                    && self.hosts[host]
                        .join(self.now, token, link, l)
                        .is_err_retry()
                {
                    self.reopen(host, token, link, attempt + 1);
                }
                self.flush(host);
            }
        }
    }

    /// Polls a host, puts what it sent on the links, acts on its events.
    fn flush(&mut self, host: usize) {
        loop {
            let more = self.hosts[host].run(self.now);
            for (link, packet) in self.hosts[host].take_sent() {
                self.transmit(host, link, packet);
            }
            if !more {
                break;
            }
        }
        for wish in self.hosts[host].take_wishes() {
            match wish {
                host::Wish::JoinAll { token, but } => {
                    for link in 0..self.links.len() {
                        if link != but && self.links[link].peer_of(host).is_some() {
                            self.reopen(host, token, link, 0);
                        }
                    }
                }
                host::Wish::Rejoin { token, link } => self.reopen(host, token, link, 1),
            }
        }
    }

    /// What a path manager does: join again, a little later each time.
    fn reopen(&mut self, host: usize, token: u32, link: usize, attempt: u32) {
        let wait = Duration::from_millis(if attempt == 0 {
            1
        } else {
            500 << attempt.min(3)
        });
        self.push(
            self.now + wait,
            What::Reopen {
                host,
                token,
                link,
                attempt,
            },
        );
    }

    fn transmit(&mut self, from: usize, link: usize, packet: Vec<u8>) {
        let l = &self.links[link];
        let side = l.side(from).expect("only its ends send on a link");
        if l.chain.is_empty() || l.config.boxes_at.side() != side {
            self.wire(side, link, packet);
        } else {
            self.through_boxes(link, l.toward(side), packet);
        }
    }

    /// Over the wire, from one of its ends to what is at the other.
    fn wire(&mut self, side: usize, link: usize, packet: Vec<u8>) {
        let l = &mut self.links[link];
        let (to, deliveries) = l.transmit(self.now, side, packet, &mut self.rng);
        let boxes = !l.chain.is_empty() && l.config.boxes_at.side() != side;
        let toward = Way(l.toward(side));
        for (at, packet) in deliveries {
            self.push(
                at,
                if boxes {
                    What::AtBox {
                        link,
                        toward,
                        packet,
                    }
                } else {
                    What::Arrival { link, to, packet }
                },
            );
        }
    }

    fn through_boxes(&mut self, link: usize, toward: Toward, packet: Vec<u8>) {
        self.links[link].chain.on_frame(self.now, toward, packet);
        self.leave_boxes(link);
    }

    /// What leaves the boxes goes over the wire, or to the host at whose end they stand.
    fn leave_boxes(&mut self, link: usize) {
        let mut left = self.links[link].chain.take_left();
        for out in left.drain(..) {
            let l = &self.links[link];
            let side = l.sender(out.toward);
            if l.config.boxes_at.side() == side {
                self.wire(side, link, out.frame);
            } else {
                let to = l.ends[1 - side];
                let packet = out.frame;
                self.push(self.now, What::Arrival { link, to, packet });
            }
        }
        let l = &mut self.links[link];
        l.chain.give_back(left);
        if let Some(at) = l.chain.timer_to_set() {
            self.push(at.max(self.now), What::BoxTimer { link });
        }
    }

    fn push(&mut self, at: Instant, what: What) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial, what)));
    }

    /// Writes the last packets as a pcap file and says where.
    #[must_use]
    pub fn dump_trace(&self, name: &str) -> String {
        self.trace.dump(name)
    }
}
