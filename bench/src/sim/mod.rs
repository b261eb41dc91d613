//! A deterministic network: engines, links, faults and a virtual clock, all from one seed.
//!
//! The hosts run the very engine that runs live; only ports, clock and randomness are
//! replaced. A failing seed replays exactly. Nothing here sleeps: time jumps to the next
//! packet arrival, engine deadline or scheduled fault.

mod app;
mod bottleneck;
pub(crate) mod chain;
mod headers;
mod host;
mod link;
mod pcapng;
mod text;
mod trace;
mod watch;

use std::collections::BinaryHeap;
use std::path::Path;
use std::time::Duration;

use braid_dataplane::time::Instant;
use braid_dataplane::worker::{Order, OrderError};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use app::{Outcome, Outcomes, Role, SimApp};
pub use bottleneck::BottleneckConfig;
pub use host::{Host, HostConfig};
pub use link::{Burst, End, Filter, LinkConfig, LinkState, TooBig};
pub use trace::Fate;

use crate::middlebox::{Element, Toward};
use bottleneck::Bottleneck;
use link::Link;
use trace::Trace;
use watch::Watch;

/// Time starts here, so that subtracting a little from it stays positive.
pub const EPOCH: Duration = Duration::from_secs(1);

/// Empty packet buffers that are kept.
const SPARE_MAX: usize = 1024;

/// Something that happens at a set time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The link swallows packets (or stops doing so); nobody is told.
    Blackhole {
        /// Which link.
        link: usize,
        /// Swallow from now on?
        on: bool,
    },
    /// The link's MTU changes.
    Mtu {
        /// Which link.
        link: usize,
        /// Its MTU from now on.
        mtu: u32,
        /// What happens to larger packets.
        too_big: TooBig,
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

enum What {
    Arrival {
        link: usize,
        to: usize,
        packet: Vec<u8>,
    },
    /// A packet came to the middleboxes at the end of the wire.
    AtBox {
        link: usize,
        toward: Toward,
        packet: Vec<u8>,
    },
    /// A middlebox's timer.
    BoxTimer {
        link: usize,
    },
    Fault(Fault),
    /// A link gets other properties.
    Change {
        link: usize,
        change: Change,
    },
    /// A host's engine wants to be woken.
    Timer {
        host: usize,
    },
    Reopen {
        host: usize,
        token: u32,
        link: usize,
        attempt: u32,
    },
    /// A slow reader wakes up.
    Read {
        reader: usize,
    },
}

/// A reader that may read everything there is.
const BURST: u64 = u64::MAX;

/// An application that reads at its own speed.
#[derive(Clone, Debug)]
struct Reader {
    host: usize,
    outcomes: Outcomes,
    bytes: u64,
    every: Duration,
}

/// A change of a link's properties.
type Change = Box<dyn FnOnce(&mut LinkConfig)>;

/// An event and its time. Those of one time happen in the order in which they were made.
struct Scheduled {
    at: Instant,
    serial: u64,
    what: What,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest: [`BinaryHeap`] gives out the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

/// See the module documentation.
pub struct Sim {
    now: Instant,
    rng: StdRng,
    hosts: Vec<Host>,
    links: Vec<Link>,
    queue: BinaryHeap<Scheduled>,
    serial: u64,
    /// Queues that links share.
    bottlenecks: Vec<(BottleneckConfig, Bottleneck)>,
    /// When each host's next timer event is due, if there is one.
    timers: Vec<Option<Instant>>,
    /// Buffers of packets that are gone.
    spare: Vec<Vec<u8>>,
    readers: Vec<Reader>,
    /// Last packets on any link, for the report of a failure.
    trace: Trace,
    watch: Option<Watch>,
    /// Events so far.
    events: u64,
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
            bottlenecks: Vec::new(),
            timers: Vec::new(),
            spare: Vec::new(),
            trace: Trace::new(trace::PACKETS_MAX),
            watch: None,
            events: 0,
            readers: Vec::new(),
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
        if let Some(watch) = self.watch.as_mut() {
            watch.knows_window(number, config.mptcp.window_option);
        }
        self.hosts.push(Host::new(number, config, seed, self.now));
        self.timers.push(None);
        number
    }

    /// Connects two hosts and returns the link's number, which is also the number of the
    /// port at both ends.
    pub fn add_link(&mut self, a: usize, b: usize, config: LinkConfig) -> usize {
        self.links.push(Link::new(a, b, config));
        self.links.len() - 1
    }

    /// Makes a queue that links may share ([`LinkConfig::bottleneck`]) and returns its number.
    pub fn add_bottleneck(&mut self, config: BottleneckConfig) -> usize {
        self.bottlenecks.push((config, Bottleneck::default()));
        self.bottlenecks.len() - 1
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

    /// Changes a link's properties later.
    pub fn reconfigure_at(
        &mut self,
        after_start: Duration,
        link: usize,
        change: impl FnOnce(&mut LinkConfig) + 'static,
    ) {
        let at = Instant::default() + EPOCH + after_start;
        let change = Box::new(change);
        self.push(at, What::Change { link, change });
    }

    /// Schedules a fault.
    pub fn at(&mut self, after_start: Duration, fault: Fault) {
        let at = Instant::default() + EPOCH + after_start;
        self.push(at, What::Fault(fault));
    }

    /// From now on the [`Role::Reader`]s of a host that report to `outcomes` read `bytes`
    /// each time `every` has passed, until one of them has closed.
    pub fn read_slowly(&mut self, host: usize, outcomes: Outcomes, bytes: u64, every: Duration) {
        self.readers.push(Reader {
            host,
            outcomes,
            bytes,
            every,
        });
        let reader = self.readers.len() - 1;
        self.push(self.now + every, What::Read { reader });
    }

    /// Like [`Sim::read_slowly`], but each time it reads whatever there is, once.
    pub fn read_in_bursts(&mut self, host: usize, outcomes: Outcomes, every: Duration) {
        self.read_slowly(host, outcomes, BURST, every);
    }

    /// Gives a host its turn, after something was asked of its engine.
    pub fn poke(&mut self, host: usize) {
        self.flush(host);
    }

    /// The virtual time as hosts know it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
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
        match self.queue.peek() {
            None => {
                self.now = self.now.max(end);
                return false;
            }
            Some(next) if next.at > end => {
                self.now = end;
                return false;
            }
            Some(_) => {}
        }
        let Scheduled { at, what, .. } = self.queue.pop().expect("peeked");
        self.now = self.now.max(at);
        self.events += 1;
        self.happen(what);
        true
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrival { link, to, packet } => {
                let l = &self.links[link];
                let mtu = l.config.mtu;
                let fate = if l.config.blackhole || !l.carrier(to) {
                    self.links[link].state.lost += 1;
                    Fate::Blackhole
                } else if self.hosts[to].receive(self.now, link, mtu, &packet) {
                    Fate::Received
                } else {
                    Fate::NoFrame
                };
                self.trace.record(self.now, link, to, fate, &packet);
                if let Some(watch) = self.watch.as_mut()
                    && fate == Fate::Received
                {
                    watch.received(to, &packet);
                }
                self.recycle(packet);
                if fate == Fate::Received {
                    self.flush(to);
                }
            }
            What::AtBox {
                link,
                toward,
                packet,
            } => self.through_boxes(link, toward, packet),
            What::BoxTimer { link } => {
                self.links[link].chain.on_timer(self.now);
                self.leave_boxes(link);
            }
            What::Timer { host } => {
                if self.timers[host].is_some_and(|at| at <= self.now) {
                    self.timers[host] = None;
                    if self.hosts[host]
                        .next_deadline()
                        .is_some_and(|at| at <= self.now)
                    {
                        self.hosts[host].on_timers(self.now);
                        self.flush(host);
                    } else {
                        self.set_timer(host);
                    }
                }
            }
            What::Change { link, change } => change(&mut self.links[link].config),
            What::Fault(Fault::Mtu { link, mtu, too_big }) => {
                let config = &mut self.links[link].config;
                (config.mtu, config.too_big) = (mtu, too_big);
            }
            What::Read { reader } => {
                let Reader {
                    host,
                    outcomes,
                    bytes,
                    every,
                } = self.readers[reader].clone();
                outcomes.allow_reading(bytes);
                self.hosts[host].engine().wake_readers(self.now);
                self.flush(host);
                if bytes == BURST {
                    outcomes.forbid_reading();
                }
                if outcomes.get().closed.is_none() {
                    self.push(self.now + every, What::Read { reader });
                }
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
            let more = self.hosts[host].run(self.now, &mut self.spare);
            let mut sent = self.hosts[host].take_sent();
            for (link, packet) in sent.drain(..) {
                self.transmit(host, link, packet);
            }
            self.hosts[host].give_back(sent);
            if !more {
                break;
            }
        }
        self.set_timer(host);
        for wish in self.hosts[host].take_wishes() {
            match wish {
                host::Wish::JoinAll { token, but } => {
                    let peer = self.links[but].peer_of(host);
                    for link in 0..self.links.len() {
                        if link != but && self.links[link].peer_of(host) == peer {
                            self.reopen(host, token, link, 0);
                        }
                    }
                }
                host::Wish::Rejoin { token, link } => self.reopen(host, token, link, 1),
            }
        }
    }

    /// One timer event per host, at its deadline or before. A later deadline does not move
    /// it: the event then sets the next.
    fn set_timer(&mut self, host: usize) {
        let Some(at) = self.hosts[host].next_deadline() else {
            return;
        };
        if self.timers[host].is_none_or(|set| at < set) {
            self.timers[host] = Some(at);
            self.push(at, What::Timer { host });
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
        self.trace.record(self.now, link, from, Fate::Sent, &packet);
        if let Some(watch) = self.watch.as_mut() {
            watch.sent(self.now, from, &packet);
        }
        let l = &self.links[link];
        let side = l.side(from).expect("only its ends send on a link");
        if l.chain.is_empty() || l.config.boxes_at.side() != side {
            self.wire(side, link, packet);
        } else {
            self.through_boxes(link, l.toward(side), packet);
        }
    }

    /// Over the wire, from one of its ends to what is at the other.
    fn wire(&mut self, side: usize, link: usize, mut packet: Vec<u8>) {
        let l = &mut self.links[link];
        let shared = l.config.bottleneck.map(|b| &mut self.bottlenecks[b]);
        match l.transmit(self.now, side, &mut packet, shared, &mut self.rng) {
            Ok(carried) => {
                if let Some(at) = carried.second {
                    let mut copy = self.spare.pop().unwrap_or_default();
                    copy.extend_from_slice(&packet);
                    self.arrive(at, side, link, copy);
                }
                self.arrive(carried.first, side, link, packet);
            }
            Err(fate) => {
                let from = l.ends[side];
                self.trace.record(self.now, link, from, fate, &packet);
                if fate == Fate::TooBig {
                    self.report_too_big(side, link, &packet);
                }
                self.recycle(packet);
            }
        }
    }

    /// What left the wire comes to the boxes, or to the host.
    fn arrive(&mut self, at: Instant, side: usize, link: usize, packet: Vec<u8>) {
        let l = &self.links[link];
        let what = if !l.chain.is_empty() && l.config.boxes_at.side() != side {
            let toward = l.toward(side);
            What::AtBox {
                link,
                toward,
                packet,
            }
        } else {
            let to = l.ends[1 - side];
            What::Arrival { link, to, packet }
        };
        self.push(at, what);
    }

    /// A router in front of the link answers at once; its message takes the way back.
    fn report_too_big(&mut self, side: usize, link: usize, packet: &[u8]) {
        let config = &self.links[link].config;
        if config.too_big == TooBig::Icmp
            && let Some(message) = headers::too_big(packet, link, config.mtu)
        {
            let (at, to) = (self.now + config.delay, self.links[link].ends[side]);
            let packet = message;
            self.push(at, What::Arrival { link, to, packet });
        }
    }

    fn recycle(&mut self, mut packet: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            packet.clear();
            self.spare.push(packet);
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
                let from = l.ends[side];
                let now = self.now;
                self.trace
                    .record(now, link, from, Fate::LeftBox, &out.frame);
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
        let serial = self.serial;
        self.queue.push(Scheduled { at, serial, what });
    }

    /// From now on judges what hosts send, packet by packet: right edges, DATA_ACKs, bytes
    /// in flight. What they did wrong is in [`Sim::violations`]. To be called before hosts
    /// are added.
    pub fn watch(&mut self) {
        self.watch = Some(Watch::default());
    }

    /// What hosts did that they must never do; empty is good.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        self.watch.as_ref().map_or(&[], Watch::violations)
    }

    /// Events so far: arrivals, timers, faults.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The number of links.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Whether a link joins these two hosts.
    #[must_use]
    pub fn joins(&self, link: usize, a: usize, b: usize) -> bool {
        self.links[link].peer_of(a) == Some(b)
    }

    /// The number of hosts.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.len()
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

    /// Keeps the last `packets_max` packets for [`Sim::dump_trace`]; none costs least.
    pub fn keep_trace(&mut self, packets_max: usize) {
        self.trace.set_packets_max(packets_max);
    }

    /// A hash of every packet on every link and its time: equal in two runs of one seed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// The packets kept, a line each: time, link, host, what became of it, and the packet
    /// with numbers relative to the start of its flow.
    #[must_use]
    pub fn trace_lines(&self) -> Vec<String> {
        self.trace.lines()
    }

    /// Writes the packets kept as pcapng.
    ///
    /// # Errors
    /// Whatever `out` says.
    pub fn write_pcapng(&self, out: impl std::io::Write) -> std::io::Result<()> {
        self.trace.write_pcapng(out, &self.link_ends())
    }

    /// Writes the last packets as text and as pcapng for Wireshark into the directory for
    /// temporary files, and returns where, with the last lines.
    #[must_use]
    pub fn dump_trace(&self, name: &str) -> String {
        self.dump_trace_to(&std::env::temp_dir(), name)
    }

    /// As [`Sim::dump_trace`], into this directory.
    #[must_use]
    pub fn dump_trace_to(&self, directory: &Path, name: &str) -> String {
        let stem = directory.join(format!("braid-sim-{name}"));
        self.trace.dump(&stem, &self.link_ends())
    }

    fn link_ends(&self) -> Vec<[usize; 2]> {
        self.links.iter().map(|l| l.ends).collect()
    }
}
