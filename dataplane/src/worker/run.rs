//! The loop of one pinned core.
//!
//! rx burst → flow lookup → tcp → mptcp → app → schedule → tx burst → complete, refill,
//! kick; then hand-offs, mail and timers. No allocation, lock or system call per packet:
//! system calls come per batch (a kick), per idle period (poll) and per wake-up.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use smallvec::SmallVec;

use super::engine::{Arrival, Engine, Outbound};
use super::handoff::{HandOff, HandOffRings};
use super::mailbox::{EventQueue, Mail, Mailbox, Snapshot};
use super::wake::Sleeping;
use crate::app::App;
use crate::buf::{Frame, FramePool};
use crate::control::{ConnReport, Idle, PoolReport, PortMode, PortReport, WorkerReport};
use crate::counters::Counter;
use crate::io::{Port, PortId, RxBatch, RxChecksum, Tx};
use crate::mptcp::TxSink;
use crate::offload::BurstShape;
use crate::time::Instant;
use crate::wire::ethernet::EthernetAddress;

/// Spin this long without work before sleeping: a request/response peer answers within
/// it, and a sleep costs about as much as it saves.
const SPIN: Duration = Duration::from_micros(50);

/// Sleep no longer than this, so that the heartbeat stays fresh.
const SLEEP_MAX: Duration = Duration::from_millis(200);

/// Sleep no longer than this while sent frames are not completed.
const COMPLETION_WAIT: Duration = Duration::from_millis(2);

/// Renew the heartbeat this often; `steer` takes it as stale after a second.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// New connections are refused, and slow readers copied out, while fewer than this share
/// of the frames is free.
const PRESSURE_SHARE: u32 = 8;

/// New data leave this share of the frames to receiving: a sender that takes the last frame
/// cannot hear the ACK that would free it. Above what ports leave to sending when they
/// refill, so that there is something in between for them.
const DATA_RESERVE_SHARE: u32 = 6;

/// Room that is reported when data must wait: enough for controls, too little for a burst.
const ROOM_FOR_CONTROLS: u32 = 2;

/// Hand-offs taken per turn at the most: one ring.
const HANDOFFS_PER_TURN: usize = 1024;

/// Frames taken from one port per turn: a driver's usual NAPI budget.
const RX_BATCH: usize = 64;

/// How long a worker that stops may take to say so to every peer.
const FAREWELL: Duration = Duration::from_millis(100);

/// How long and how often a closed port is asked for its frames.
const CLOSE_WAIT: Duration = Duration::from_millis(50);
const CLOSE_ROUNDS: usize = 40;

/// One port of a worker: a queue of an interface.
#[derive(Debug)]
pub struct PortSlot<P> {
    /// The port.
    pub port: P,
    /// Interface: the same number in every worker.
    pub interface: PortId,
    /// Which pool its frames come from.
    pub pool: usize,
    /// IP MTU.
    pub mtu: u32,
    /// The link is up, as far as the port was told.
    pub carrier: bool,
    /// Checksum policy on receive.
    pub checksum: RxChecksum,
    /// Largest burst that the port segments; 0: none.
    pub segment_bytes: u32,
    /// For reports.
    pub name: String,
    /// For reports.
    pub ifindex: u32,
    /// For reports.
    pub queue: u32,
    /// For reports.
    pub mode_asked: PortMode,
}

/// Tells the outside that this worker lives.
pub trait Heartbeat {
    /// Called at least every [`SLEEP_MAX`] while the worker runs.
    fn beat(&mut self);
}

/// The ports of a worker as the engine's sink.
struct Sink<'a, P> {
    ports: &'a mut [PortSlot<P>],
    pools: &'a [FramePool],
    /// Port that sends for each interface: its first queue here.
    first: &'a [usize],
}

impl<P: Port> Sink<'_, P> {
    fn slot(&self, port: PortId) -> Option<usize> {
        self.first.get(usize::from(port.0)).copied()
    }
}

impl<P: Port> TxSink for Sink<'_, P> {
    fn alloc(&mut self, port: PortId) -> Option<Frame> {
        let slot = &self.ports[self.slot(port)?];
        self.pools[slot.pool].alloc()
    }

    fn send(&mut self, port: PortId, frame: &Frame) -> Tx {
        let Some(index) = self.slot(port) else {
            return Tx::NoCarrier;
        };
        let slot = &mut self.ports[index];
        slot.port.tx(&self.pools[slot.pool], frame)
    }

    fn segment_bytes(&self, port: PortId) -> u32 {
        self.slot(port)
            .map_or(0, |index| self.ports[index].segment_bytes)
    }

    fn send_burst<'f>(
        &mut self,
        port: PortId,
        shape: &BurstShape,
        frames: impl Iterator<Item = (&'f Frame, Range<usize>)>,
    ) -> Tx {
        let Some(index) = self.slot(port) else {
            return Tx::NoCarrier;
        };
        let slot = &mut self.ports[index];
        slot.port.tx_burst(&self.pools[slot.pool], shape, frames)
    }

    fn room(&self, port: PortId) -> u32 {
        let Some(index) = self.slot(port) else {
            return 0;
        };
        let slot = &self.ports[index];
        if !slot.carrier {
            // So that `send` is asked, and says why not: no room would mean to try again.
            return ROOM_FOR_CONTROLS + 1;
        }
        let pool = &self.pools[slot.pool];
        let spare = pool
            .available()
            .saturating_sub(pool.frames() / DATA_RESERVE_SHARE);
        slot.port.tx_free().min(spare.max(ROOM_FOR_CONTROLS))
    }

    fn shares_frames(&self, a: PortId, b: PortId) -> bool {
        match (self.slot(a), self.slot(b)) {
            (Some(a), Some(b)) => self.ports[a].pool == self.ports[b].pool,
            _ => false,
        }
    }
}

/// Everything a worker is built from.
#[derive(Debug)]
pub struct WorkerParts<P, H> {
    /// Number of this worker.
    pub index: usize,
    /// Core it is pinned to.
    pub core: usize,
    /// Engine.
    pub engine: Engine<App>,
    /// Ports; every interface has at least one here.
    pub ports: Vec<PortSlot<P>>,
    /// Pools, one per UMEM group.
    pub pools: Vec<FramePool>,
    /// Rings to and from the other workers.
    pub rings: HandOffRings,
    /// Everybody's mailboxes, to wake sleepers; ours is `mailboxes[index]`.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// Who sleeps.
    pub sleeping: Arc<[Sleeping]>,
    /// Events out.
    pub events: Arc<EventQueue>,
    /// Life sign.
    pub heartbeat: H,
    /// Idle policy.
    pub idle: Idle,
    /// Zero of the engine's clock.
    pub epoch: std::time::Instant,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Worker<P, H> {
    parts: WorkerParts<P, H>,
    first: Vec<usize>,
    batch: RxBatch,
    handed: Vec<(u16, HandOff)>,
    /// What each port takes when nothing is on its way.
    tx_rooms: Vec<u32>,
    stop: bool,
    wake: Vec<bool>,
    busy_polls: u64,
    sleeps: u64,
    next_beat: Instant,
}

impl<P: Port, H: Heartbeat> Worker<P, H> {
    /// A worker, not running yet.
    #[must_use]
    pub fn new(parts: WorkerParts<P, H>) -> Self {
        let interfaces = parts
            .ports
            .iter()
            .map(|p| usize::from(p.interface.0) + 1)
            .max()
            .unwrap_or(0);
        let first = (0..interfaces)
            .map(|i| {
                parts
                    .ports
                    .iter()
                    .position(|p| usize::from(p.interface.0) == i)
                    .unwrap_or(usize::MAX)
            })
            .collect();
        let wake = vec![false; parts.mailboxes.len()];
        Self {
            first,
            wake,
            batch: RxBatch::new(RX_BATCH),
            handed: Vec::with_capacity(RX_BATCH),
            tx_rooms: parts.ports.iter().map(|s| s.port.tx_free()).collect(),
            stop: false,
            busy_polls: 0,
            sleeps: 0,
            next_beat: Instant::default(),
            parts,
        }
    }

    /// Runs until told to stop. Returns whether every frame came home.
    pub fn run(mut self) -> bool {
        for pool in &self.parts.pools {
            pool.adopt();
        }
        for slot in &mut self.parts.ports {
            slot.port.refill(&self.parts.pools[slot.pool]);
        }
        let mut idle_since: Option<Instant> = None;
        while !self.stop {
            let now = self.now();
            if self.turn(now) {
                self.busy_polls += 1;
                idle_since = None;
                continue;
            }
            let since = *idle_since.get_or_insert(now);
            if self.parts.idle == Idle::Adaptive && now - since >= SPIN {
                self.sleep(now);
                idle_since = None;
            } else {
                std::hint::spin_loop();
            }
        }
        self.shut_down()
    }

    fn now(&self) -> Instant {
        let nanos = self.parts.epoch.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// One turn. True when there was anything to do.
    fn turn(&mut self, now: Instant) -> bool {
        if now >= self.next_beat {
            self.parts.heartbeat.beat();
            self.next_beat = now + HEARTBEAT;
        }
        let pressure = self.check_pressure();
        let mut worked = false;
        for index in 0..self.parts.ports.len() {
            worked |= self.receive(now, index);
        }
        worked |= self.take_handoffs(now);
        worked |= self.take_mail(now);
        if self.parts.engine.next_deadline().is_some_and(|d| d <= now) {
            self.parts.engine.on_timers(now);
            worked = true;
        }
        // Claims go out before the SYN/ACKs that make peers send: see `receive`.
        self.send_outbound();
        let has_work = self.parts.engine.has_work();
        if has_work || pressure {
            let mut sink = Sink {
                ports: &mut self.parts.ports,
                pools: &self.parts.pools,
                first: &self.first,
            };
            self.parts.engine.run(now, &mut sink);
            worked |= has_work;
        }
        for slot in &mut self.parts.ports {
            let pool = &self.parts.pools[slot.pool];
            slot.port.flush();
            slot.port.complete(pool);
            slot.port.refill(pool);
        }
        for pool in &self.parts.pools {
            pool.collect_returned();
        }
        self.send_outbound();
        self.send_events();
        worked
    }

    fn receive(&mut self, now: Instant, index: usize) -> bool {
        let slot = &mut self.parts.ports[index];
        let n = slot
            .port
            .rx_burst(&self.parts.pools[slot.pool], &mut self.batch);
        if n == 0 {
            return false;
        }
        // Another worker claims a flow before it answers the peer. So a packet that follows
        // such an answer is in the batch only after the claim is in the ring: taking the
        // ring between the two never sees the packet without its owner.
        self.take_handoffs(now);
        let slot = &mut self.parts.ports[index];
        let arrival = Arrival {
            port: slot.interface,
            mtu: slot.mtu,
            checksum: slot.checksum,
            from: None,
        };
        let Self {
            parts,
            batch,
            first,
            handed,
            ..
        } = self;
        let mut sink = Sink {
            ports: &mut parts.ports,
            pools: &parts.pools,
            first,
        };
        parts
            .engine
            .on_frames(now, arrival, batch.drain(), &mut sink, |worker, message| {
                handed.push((worker, message));
            });
        self.send_handed();
        true
    }

    fn send_handed(&mut self) {
        for (worker, message) in self.handed.drain(..) {
            if self.parts.rings.send(worker, message).is_err() {
                self.parts.engine.counters_mut().inc(Counter::HandOffFull);
            } else {
                self.wake[usize::from(worker)] = true;
            }
        }
    }

    fn take_handoffs(&mut self, now: Instant) -> bool {
        for taken in 0..HANDOFFS_PER_TURN {
            let Some(message) = self.parts.rings.receive() else {
                return taken > 0;
            };
            match message {
                HandOff::Packet { port, from, frames } => {
                    self.parts.engine.counters_mut().inc(Counter::HandOffRx);
                    let Some(&first) = self.first.get(usize::from(port.0)) else {
                        continue;
                    };
                    let slot = &self.parts.ports[first];
                    let arrival = Arrival {
                        port,
                        mtu: slot.mtu,
                        checksum: slot.checksum,
                        from: Some(from),
                    };
                    let Self { parts, first, .. } = self;
                    let mut sink = Sink {
                        ports: &mut parts.ports,
                        pools: &parts.pools,
                        first,
                    };
                    // A flow whose owner changed meanwhile: the peer sends again.
                    let _ = parts.engine.on_packet(now, arrival, frames, &mut sink);
                }
                HandOff::Claim { tuple, owner } => {
                    self.parts.engine.on_route(&tuple, owner, true);
                }
                HandOff::Release { tuple, owner } => {
                    self.parts.engine.on_route(&tuple, owner, false);
                }
            }
        }
        true
    }

    fn send_outbound(&mut self) {
        let owner = u16::try_from(self.parts.index).expect("workers are counted in u16");
        let mut lost = 0;
        for Outbound::Route {
            worker,
            tuple,
            claim,
        } in self.parts.engine.take_outbound()
        {
            let message = |tuple| match claim {
                true => HandOff::Claim { tuple, owner },
                false => HandOff::Release { tuple, owner },
            };
            let one = worker.into_iter();
            let all = self.parts.rings.peers().filter(|_| worker.is_none());
            for peer in one.chain(all) {
                match self.parts.rings.send(peer, message(tuple)) {
                    Ok(()) => self.wake[usize::from(peer)] = true,
                    Err(_) => lost += 1,
                }
            }
        }
        if lost > 0 {
            self.parts
                .engine
                .counters_mut()
                .add(Counter::HandOffFull, lost);
        }
        for peer in 0..self.wake.len() {
            if std::mem::take(&mut self.wake[peer]) && self.parts.sleeping[peer].must_be_woken() {
                self.parts.mailboxes[peer].wake();
            }
        }
    }

    fn send_events(&mut self) {
        let mut any = false;
        while let Some((name, event)) = self.parts.engine.pop_event() {
            any = true;
            if !self.parts.events.push(self.parts.index, name, event) {
                self.parts.engine.counters_mut().inc(Counter::EventDrop);
            }
        }
        match self.parts.engine.take_events_lost() {
            0 => {}
            lost => {
                any = true;
                self.parts.events.lose(lost);
            }
        }
        if any {
            self.parts.events.wake();
        }
    }

    /// Once per turn: at full rate a pool empties within milliseconds.
    fn check_pressure(&mut self) -> bool {
        let short = self
            .parts
            .pools
            .iter()
            .any(|pool| pool.available() < pool.frames() / PRESSURE_SHARE);
        self.parts.engine.set_pressure(short);
        short
    }

    fn take_mail(&mut self, now: Instant) -> bool {
        let index = self.parts.index;
        let mut any = false;
        while let Some(mail) = self.parts.mailboxes[index].receive() {
            any = true;
            self.handle(now, mail);
        }
        any
    }

    fn handle(&mut self, now: Instant, mail: Mail) {
        let engine = &mut self.parts.engine;
        // An answer that nobody waits for any more is no error of the worker.
        match mail {
            Mail::Connect {
                name,
                path,
                app,
                answer,
            } => {
                let _ = answer.send(engine.connect(now, &name, path, app));
            }
            Mail::Order {
                token,
                order,
                answer,
            } => {
                let _ = answer.send(engine.order(now, token, order));
            }
            Mail::Carrier { port, up } => {
                for slot in self.parts.ports.iter_mut().filter(|s| s.interface == port) {
                    slot.port.set_carrier(up);
                    slot.carrier = up;
                }
                engine.on_carrier(now, port, up);
            }
            Mail::Neighbour { port, remote, mac } => {
                engine.on_neighbour(port, remote, EthernetAddress(mac));
            }
            Mail::Limits {
                subflows_max,
                accept_addresses,
            } => {
                engine.set_limits(subflows_max, accept_addresses);
            }
            Mail::Announcements(list) => engine.set_announcements(list),
            Mail::Services(services) => engine.set_services(services),
            Mail::Snapshot {
                offset,
                limit,
                answer,
            } => {
                let _ = answer.send(self.snapshot(now, offset, limit));
            }
            Mail::Drain => engine.drain(),
            Mail::AbortAll => engine.abort_all(now),
            Mail::Stop => self.stop = true,
        }
    }

    fn snapshot(&self, now: Instant, offset: usize, limit: usize) -> Snapshot {
        let engine = &self.parts.engine;
        let conns: Vec<ConnReport> = engine
            .conns(now, offset, limit)
            .into_iter()
            .map(|(name, info)| ConnReport {
                worker: self.parts.index,
                service: name.to_string(),
                info,
            })
            .collect();
        Snapshot {
            worker: WorkerReport {
                core: self.parts.core,
                connections: engine.connections() as u64,
                flows: engine.flows() as u64,
                time_wait: engine.time_wait() as u64,
                busy_polls: self.busy_polls,
                sleeps: self.sleeps,
            },
            counters: engine.counters().clone(),
            ports: self
                .parts
                .ports
                .iter()
                .map(|slot| self.port_report(slot))
                .collect(),
            pools: self
                .parts
                .pools
                .iter()
                .enumerate()
                .map(|(group, pool)| PoolReport {
                    worker: self.parts.index,
                    group,
                    frames: pool.accounting(),
                })
                .collect(),
            conns,
        }
    }

    fn port_report(&self, slot: &PortSlot<P>) -> PortReport {
        let caps = slot.port.caps();
        PortReport {
            interface: slot.name.clone(),
            ifindex: slot.ifindex,
            queue: slot.queue,
            worker: self.parts.index,
            mode_asked: slot.mode_asked,
            zero_copy: caps.zero_copy,
            stats: slot.port.stats(),
        }
    }

    /// Sleeps until a packet, mail, a hand-off or a timer.
    fn sleep(&mut self, now: Instant) {
        let index = self.parts.index;
        let (rings, mail) = (&self.parts.rings, &self.parts.mailboxes[index]);
        if self.parts.sleeping[index].begin(|| rings.is_ready() || mail.is_ready()) {
            let mut timeout = SLEEP_MAX;
            if let Some(deadline) = self.parts.engine.next_deadline() {
                timeout = timeout.min(deadline - now);
            }
            // Input does not tell that the kernel may be kicked again, or is done.
            if self.sending() {
                timeout = timeout.min(COMPLETION_WAIT);
            }
            self.sleeps += 1;
            wait(
                &self.parts.mailboxes[index],
                self.parts.ports.iter().filter_map(|s| s.port.poll_fd()),
                timeout,
            );
        }
        self.parts.sleeping[index].end();
        self.parts.mailboxes[index].clear_wake();
    }

    /// A ring still has packets that are not completed.
    fn sending(&mut self) -> bool {
        let mut sending = false;
        for (slot, empty) in self.parts.ports.iter().zip(&mut self.tx_rooms) {
            let free = slot.port.tx_free();
            *empty = free.max(*empty);
            sending |= slot.carrier && free < *empty;
        }
        sending
    }

    /// Aborts what lives, lets the last segments leave, takes every frame back.
    fn shut_down(mut self) -> bool {
        let now = self.now();
        self.parts.engine.drain();
        self.parts.engine.abort_all(now);
        loop {
            let now_too = self.now();
            self.turn(now_too);
            // A ring takes only so many resets at a time.
            if !self.parts.engine.has_work() || now_too - now >= FAREWELL {
                break;
            }
        }
        let index = self.parts.index;
        let WorkerParts {
            engine,
            mut ports,
            pools,
            mut rings,
            ..
        } = self.parts;
        drop(engine);
        drop(self.batch);
        // A zero-copy driver may write to its frames for a moment longer.
        // Other workers may hold frames of ours, and we of theirs.
        for _ in 0..CLOSE_ROUNDS {
            rings.clear();
            let held: u32 = ports
                .iter_mut()
                .map(|s| s.port.reclaim_all(&pools[s.pool]))
                .sum();
            let home = pools.iter().all(|pool| {
                pool.collect_returned();
                let frames = pool.accounting();
                frames.free == frames.total()
            });
            if held == 0 && home {
                break;
            }
            std::thread::sleep(CLOSE_WAIT);
        }
        drop(ports);
        let mut whole = true;
        for pool in &pools {
            pool.collect_returned();
            let frames = pool.accounting();
            if frames.free != frames.total() {
                tracing::error!(worker = index, ?frames, "frames leaked");
                whole = false;
            }
        }
        whole
    }
}

fn wait<'a>(mailbox: &'a Mailbox, ports: impl Iterator<Item = BorrowedFd<'a>>, timeout: Duration) {
    let mut fds: SmallVec<[PollFd<'_>; 16]> = SmallVec::new();
    fds.push(PollFd::new(mailbox.as_fd(), PollFlags::POLLIN));
    fds.extend(ports.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // EINTR is a wake-up like any other.
    let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None);
}

#[cfg(test)]
mod tests;
