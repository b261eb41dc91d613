//! The engine: everything one worker knows, without I/O, clock or threads.
//!
//! Packets, time and orders come in as arguments; frames leave through a [`TxSink`].
//! The same code runs on AF_XDP ports in a pinned worker and on memory ports under the
//! simulator's clock. Invariants:
//!
//! - a flow in the table names a live connection slot (or TIME-WAIT, or another worker);
//! - a connection is polled once per turn in which something happened to it, and only then;
//!   its timer is set after the poll, not per packet;
//! - everything a peer can grow is bounded: connections, flows, half-open connections per
//!   service, TIME-WAIT, events.

mod cookie;
mod listen;
mod receive;
mod reply;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smallvec::SmallVec;

use self::cookie::SynCookies;
pub use self::listen::Service;
pub use self::receive::Arrival;
use super::flow_table::{Flow, FlowTable};
use super::time_wait::{Left, Route, TimeWaitQueue};
use super::timer_wheel::TimerWheel;
use crate::counters::{Counter, Counters};
use crate::io::{PortId, RxChecksum};
use crate::lazy::{Empty, Lazy};
use crate::mptcp::{
    Actions, Announcement, Application, ConnInfo, Connection, Cx, Event, FlowChange, MptcpConfig,
    OpenError, Progress, Secrets, SubflowId, SubflowPath, TxSink, WindowLedger, WorkerShare,
};
use crate::offload::Train;
use crate::tcp::{CookieCache, FastOpenKey};
use crate::time::Instant;
use crate::wire::ethernet::EthernetAddress;
use crate::wire::types::{AddressId, FourTuple, Token};

/// Limits and settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Protocol settings of every connection.
    pub mptcp: MptcpConfig,
    /// Which of how many workers.
    pub worker: WorkerShare,
    /// Connections at the most.
    pub connections_max: usize,
    /// Flows (subflows, TIME-WAIT, routes to other workers) at the most.
    pub flows_max: usize,
    /// TIME-WAIT flows at the most; preallocated.
    pub time_wait_max: usize,
    /// Joins of all connections that wait for their third ACK at the most.
    pub joins_pending_max: usize,
    /// Events that wait for the control plane at the most.
    pub events_max: usize,
    /// Frames that the receive windows of all connections may promise together.
    pub window_frames: u32,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            mptcp: MptcpConfig::default(),
            worker: WorkerShare::SOLE,
            connections_max: 1 << 17,
            flows_max: 1 << 19,
            time_wait_max: 1 << 14,
            joins_pending_max: 1024,
            events_max: 4096,
            window_frames: 16_384,
        }
    }
}

/// Joins per connection that wait for the handshake, at the most.
const EARLY_JOINS_MAX: usize = 8;

/// A connection that could not do what was due (its port is down) is asked again after
/// this time, not at every tick of the wheel.
const OVERDUE_WAIT: Duration = Duration::from_millis(10);

/// Connections asked for frames per turn while frames are short: bounds what a turn copies.
const RELIEVED_PER_TURN: usize = 16;

/// What the engine asks of its worker: messages to other workers.
#[derive(Debug)]
pub enum Outbound {
    /// Tell `worker` that `tuple` is ours (or, with `claim` false, no longer).
    Route {
        /// Which worker; `None` for all others.
        worker: Option<u16>,
        /// The flow.
        tuple: FourTuple,
        /// Ours from now on?
        claim: bool,
    },
}

struct Slot<A: Application> {
    conn: Box<Connection<A>>,
    /// Index of the service, or of nothing for active opens.
    service: Option<u16>,
    name: Arc<str>,
    half_open: bool,
    dirty: bool,
    /// Its timer fired since the last poll.
    fired: bool,
    /// Joins that wait for their third ACK, as counted last.
    joins_pending: usize,
    paths: Lazy<Paths>,
}

/// What the engine has to know of few connections' paths.
#[derive(Default)]
struct Paths {
    /// Joins ordered before the peer allowed any; opened as soon as it does.
    early_joins: Vec<SubflowPath>,
    /// Where flows that are not delivered to our own queue come from.
    routed: Vec<(FourTuple, Route)>,
}

impl Empty for Paths {
    const EMPTY: &'static Self = &Self {
        early_joins: Vec::new(),
        routed: Vec::new(),
    };
}

/// See the module documentation.
pub struct Engine<A: Application> {
    config: EngineConfig,
    counters: Counters,
    rng: StdRng,
    secrets: Secrets,
    /// Signs Fast Open cookies, if those are given out.
    fast_open_key: Option<FastOpenKey>,
    /// Answers SYNs while a backlog is full.
    syn_cookies: SynCookies,
    /// Fast Open cookies of servers.
    cookies: CookieCache,
    actions: Actions,
    flows: FlowTable,
    /// Segments of this batch that are taken together, and how they came in.
    train: Train,
    train_arrival: Arrival,
    /// Own tokens; drawn by us, so they need no keyed hash.
    tokens: HashMap<u32, u32>,
    slots: Vec<Option<Slot<A>>>,
    free: Vec<u32>,
    live: usize,
    services: Vec<Service<A>>,
    time_wait: TimeWaitQueue,
    timers: TimerWheel,
    due: Vec<u32>,
    dirty: VecDeque<u32>,
    events: VecDeque<(Arc<str>, Event)>,
    events_lost: u64,
    outbound: Vec<Outbound>,
    /// What receive windows promise.
    windows: WindowLedger,
    /// Frames are short: no new connections, and those that live give back what they can.
    pressure: bool,
    /// Joins of all connections that wait for their third ACK.
    joins_pending: usize,
    /// Slot that is next to give frames back.
    relieved: usize,
    draining: bool,
}

impl<A: Application> std::fmt::Debug for Engine<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("worker", &self.config.worker)
            .field("connections", &self.live)
            .field("flows", &self.flows)
            .finish_non_exhaustive()
    }
}

impl<A: Application> Engine<A> {
    /// An engine without services. `seed` feeds every random choice: keys, nonces,
    /// sequence numbers, hash secrets; live workers draw it from the operating system.
    #[must_use]
    pub fn new(config: EngineConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let secrets = Secrets::draw(&mut rng);
        let flow_secret = rng.random();
        let syn_cookies = SynCookies::draw(&mut rng);
        let fast_open_key = config.mptcp.fast_open.then(|| FastOpenKey::draw(&mut rng));
        Self {
            counters: Counters::new(),
            secrets,
            fast_open_key,
            syn_cookies,
            cookies: CookieCache::default(),
            actions: Actions::new(),
            flows: FlowTable::new(flow_secret, config.flows_max),
            train: Train::default(),
            train_arrival: Arrival {
                port: PortId(0),
                mtu: 0,
                checksum: RxChecksum::Verify,
                from: None,
            },
            tokens: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            services: Vec::new(),
            time_wait: TimeWaitQueue::new(config.time_wait_max),
            timers: TimerWheel::new(now),
            due: Vec::with_capacity(64),
            dirty: VecDeque::with_capacity(256),
            events: VecDeque::with_capacity(config.events_max.min(256)),
            events_lost: 0,
            outbound: Vec::new(),
            windows: WindowLedger::new(config.window_frames),
            pressure: false,
            joins_pending: 0,
            relieved: 0,
            draining: false,
            rng,
            config,
        }
    }

    /// Opens a connection; its SYN leaves with the next [`run`](Self::run).
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(
        &mut self,
        now: Instant,
        name: &Arc<str>,
        path: SubflowPath,
        app: A,
    ) -> Result<u32, ConnectError> {
        if self.draining {
            return Err(ConnectError::Draining);
        }
        if self.flows.lookup(&path.tuple).is_some() {
            return Err(ConnectError::Exists);
        }
        if self.live >= self.config.connections_max || self.flows.is_full() {
            return Err(ConnectError::Limit);
        }
        let tuple = path.tuple;
        let tokens = &self.tokens;
        let in_use = |token: Token| tokens.contains_key(&token.0);
        let mut conn = Connection::connect(&mut cx!(self, now), path, app, in_use)?;
        if self.config.mptcp.fast_open
            && let Some((cookie, mss)) = self.cookies.offer(now, tuple.remote.ip())
        {
            conn.offer_fast_open(cookie, mss);
        }
        let token = conn.token().0;
        let index = self.adopt(Box::new(conn), None, name.clone());
        self.route(index, tuple, None);
        self.touched(now, index);
        Ok(token)
    }

    /// Timers that are due by `now`.
    pub fn on_timers(&mut self, now: Instant) {
        self.end_train(now);
        let mut due = std::mem::take(&mut self.due);
        self.timers.advance(now, |id| due.push(id));
        for index in due.drain(..) {
            if let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::as_mut) {
                slot.fired = true;
                slot.conn.on_timer(&mut cx!(self, now));
                self.touched(now, index);
            }
        }
        self.due = due;
        while let Some(left) = self.time_wait.pop_expired(now) {
            self.forget(left);
        }
    }

    /// Polls every connection to which something happened: applications, windows,
    /// scheduling, transmission. True when a port was full and some have more to send.
    pub fn run<S: TxSink>(&mut self, now: Instant, sink: &mut S) -> bool {
        self.end_train(now);
        if self.pressure || self.windows.is_short(now) {
            self.relieve(now);
        }
        // One round: a connection that has more goes to the end and waits for the
        // next turn, so that no connection starves another or the receive path.
        let mut more = false;
        for _ in 0..self.dirty.len() {
            let Some(index) = self.dirty.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(index as usize).and_then(Option::as_mut) else {
                continue;
            };
            slot.dirty = false;
            let progress = slot.conn.poll(&mut cx!(self, now), sink);
            let again = progress == Progress::More;
            more |= again;
            self.settle(now, index, again);
            self.set_timer(now, index, again);
        }
        more
    }

    /// Calls in what idle connections were promised, and copies out what slow readers have not
    /// read, so that its frames can receive and send again: some connections each turn.
    fn relieve(&mut self, now: Instant) {
        for _ in 0..self.slots.len().min(RELIEVED_PER_TURN) {
            self.relieved = (self.relieved + 1) % self.slots.len();
            if let Some(slot) = self.slots[self.relieved].as_mut() {
                let cx = &mut cx!(self, now);
                slot.conn.give_windows_back(cx);
                if self.pressure {
                    slot.conn.release_frames(cx);
                }
            }
        }
    }

    /// Sets the timer of a connection that was just polled.
    fn set_timer(&mut self, now: Instant, index: u32, again: bool) {
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return;
        };
        let fired = std::mem::take(&mut slot.fired);
        let deadline = match slot.conn.next_deadline() {
            Some(at) if at <= now && fired && !again => Some(now + OVERDUE_WAIT),
            deadline => deadline,
        };
        self.timers.schedule(index, deadline);
    }

    /// The next moment at which [`on_timers`](Self::on_timers) has work.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.timers.next_deadline(), self.time_wait.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Connections wait for [`run`](Self::run).
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.dirty.is_empty() || self.train.first().is_some()
    }

    /// An order about the connection with this own token.
    ///
    /// # Errors
    /// [`OrderError`] when there is no such connection or it refuses.
    pub fn order(&mut self, now: Instant, token: u32, order: Order) -> Result<(), OrderError> {
        let index = *self.tokens.get(&token).ok_or(OrderError::UnknownToken)?;
        let slot = self.slots[index as usize]
            .as_mut()
            .ok_or(OrderError::UnknownToken)?;
        let cx = &mut cx!(self, now);
        let mut opened = None;
        match order {
            Order::OpenSubflow(path) => {
                if self.flows.lookup(&path.tuple).is_some() {
                    return Err(OrderError::Open(OpenError::Exists));
                }
                if self.flows.is_full() {
                    return Err(OrderError::Open(OpenError::Limit));
                }
                if slot.conn.may_join() == Some(false) {
                    if slot.paths.early_joins.len() >= EARLY_JOINS_MAX {
                        return Err(OrderError::Open(OpenError::Limit));
                    }
                    slot.paths.early_joins.push(path);
                } else {
                    let tuple = path.tuple;
                    slot.conn.open_subflow(cx, path).map_err(OrderError::Open)?;
                    opened = Some(tuple);
                }
            }
            Order::Announce {
                address_id,
                address,
                port,
            } => {
                slot.conn.announce(cx, address_id, address, port);
            }
            Order::RemoveAddress { address_id } => slot.conn.remove_addresses(cx, &[address_id]),
            Order::SetBackup { address_id, backup } => {
                let ids: SmallVec<[SubflowId; 8]> = slot
                    .conn
                    .subflows()
                    .filter(|(_, path)| path.local_id == address_id)
                    .map(|(id, _)| id)
                    .collect();
                for id in ids {
                    slot.conn.set_backup(cx, id, backup);
                }
            }
            Order::CloseSubflow(tuple) => {
                let found = slot.conn.subflows().find(|(_, path)| path.tuple == tuple);
                let (id, _) = found.ok_or(OrderError::UnknownSubflow)?;
                slot.conn.close_subflow(cx, id, None);
            }
            Order::Close => slot.conn.close(cx),
            Order::Abort => slot.conn.abort(cx),
        }
        if let Some(tuple) = opened {
            self.route(index, tuple, None);
        }
        self.touched(now, index);
        Ok(())
    }

    /// The application of this connection has something new to say or wants to read on:
    /// the next [`run`](Self::run) asks it. False when there is no such connection.
    pub fn wake(&mut self, now: Instant, token: u32) -> bool {
        let Some(&index) = self.tokens.get(&token) else {
            return false;
        };
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return false;
        };
        slot.conn.wake_reader(&mut cx!(self, now));
        self.touched(now, index);
        true
    }

    /// A port lost or regained its carrier.
    pub fn on_carrier(&mut self, now: Instant, port: PortId, up: bool) {
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots[index].as_mut()
                && slot.conn.subflows().any(|(_, path)| path.port == port)
            {
                let cx = &mut cx!(self, now);
                if up {
                    slot.conn.on_port_up(cx, port);
                } else {
                    slot.conn.on_port_down(cx, port);
                }
                self.touched(now, u32::try_from(index).expect("slots are counted in u32"));
            }
        }
    }

    /// The next hop towards `remote` has another hardware address.
    pub fn on_neighbour(&mut self, port: PortId, remote: std::net::IpAddr, mac: EthernetAddress) {
        for slot in self.slots.iter_mut().flatten() {
            slot.conn.on_neighbour(port, remote, mac);
        }
    }

    /// Limits of every connection from now on; what exceeds them already stays.
    pub fn set_limits(&mut self, subflows_max: u8, remote_addresses_max: u8) {
        self.config.mptcp.subflows_max = subflows_max;
        self.config.mptcp.remote_addresses_max = remote_addresses_max;
    }

    /// What connections announce by themselves, from now on.
    pub fn set_announcements(&mut self, announcements: Arc<[Announcement]>) {
        self.config.mptcp.announcements = announcements;
    }

    /// No new connections; those that live go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Aborts every connection (MP_FASTCLOSE or RST leave with the next run).
    pub fn abort_all(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots[index].as_mut() {
                slot.conn.abort(&mut cx!(self, now));
                self.touched(now, u32::try_from(index).expect("slots are counted in u32"));
            }
        }
    }

    /// Few frames are left: until told otherwise, refuse new connections and copy out what
    /// readers have not read.
    pub fn set_pressure(&mut self, pressure: bool) {
        self.pressure = pressure;
        self.windows.set_pressure(pressure);
    }

    /// Events since the last call, oldest first, with the service's name.
    pub fn pop_event(&mut self) -> Option<(Arc<str>, Event)> {
        self.events.pop_front()
    }

    /// Events that found no room since the last call.
    pub fn take_events_lost(&mut self) -> u64 {
        std::mem::take(&mut self.events_lost)
    }

    /// Messages for other workers since the last call.
    pub fn take_outbound(&mut self) -> std::vec::Drain<'_, Outbound> {
        self.outbound.drain(..)
    }

    /// Another worker owns this flow (or, with `false`, no longer).
    pub fn on_route(&mut self, tuple: &FourTuple, owner: u16, claim: bool) {
        let flow = Flow::Foreign { worker: owner };
        if !claim {
            self.flows.remove(tuple, flow);
        } else if self.flows.insert(tuple, flow).is_err() {
            self.counters.inc(Counter::FlowTableFull);
        }
    }

    /// Connections that live.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.live
    }

    /// Flows in the table, TIME-WAIT included.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Flows in TIME-WAIT.
    #[must_use]
    pub fn time_wait(&self) -> usize {
        self.time_wait.len()
    }

    /// Frames that receive windows promise now.
    #[must_use]
    pub fn promised_frames(&self) -> u32 {
        self.windows.promised()
    }

    /// The worker's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The worker's counters, for what the worker itself counts.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Connections `offset..offset + limit` in slot order, with their services' names.
    #[must_use]
    pub fn conns(&self, now: Instant, offset: usize, limit: usize) -> Vec<(Arc<str>, ConnInfo)> {
        self.slots
            .iter()
            .flatten()
            .skip(offset)
            .take(limit)
            .map(|slot| (slot.name.clone(), slot.conn.info(now)))
            .collect()
    }

    /// Applications that left bytes unread want to go on reading.
    pub fn wake_readers(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if let Some(slot) = self.slots[index].as_mut() {
                slot.conn.wake_reader(&mut cx!(self, now));
                self.touched(now, u32::try_from(index).unwrap_or(u32::MAX));
            }
        }
    }

    /// The connection with this own token.
    #[must_use]
    pub fn connection(&self, token: u32) -> Option<&Connection<A>> {
        let index = *self.tokens.get(&token)?;
        self.slots[index as usize].as_ref().map(|slot| &*slot.conn)
    }

    /// Files a new connection and says where.
    fn adopt(&mut self, conn: Box<Connection<A>>, service: Option<u16>, name: Arc<str>) -> u32 {
        let token = conn.token().0;
        let half_open = service.is_some();
        let slot = Slot {
            conn,
            service,
            name,
            half_open,
            dirty: false,
            fired: false,
            joins_pending: 0,
            paths: Lazy::empty(),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("slots are counted in u32")
        });
        self.slots[index as usize] = Some(slot);
        self.tokens.insert(token, index);
        self.live += 1;
        if half_open && let Some(service) = service {
            self.services[usize::from(service)].half_open += 1;
        }
        index
    }

    /// Remembers that `tuple` reaches us by other workers' queues, and tells them.
    fn route(&mut self, index: u32, tuple: FourTuple, worker: Option<u16>) {
        if self.config.worker.count > 1
            && let Some(slot) = self.slots[index as usize].as_mut()
        {
            slot.paths.routed.push((tuple, worker));
            self.outbound.push(Outbound::Route {
                worker,
                tuple,
                claim: true,
            });
        }
    }

    /// After anything happened to a connection: apply its actions, and poll it in this
    /// turn, which sets its timer.
    fn touched(&mut self, now: Instant, index: u32) {
        self.settle(now, index, true);
    }

    fn settle(&mut self, now: Instant, index: u32, again: bool) {
        if let Some(lesson) = self.actions.fast_open.take() {
            self.cookies.learn(now, &lesson);
        }
        self.apply_actions(index);
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return;
        };
        if slot.half_open && slot.conn.is_established() {
            slot.half_open = false;
            if let Some(service) = slot.service {
                let half_open = &mut self.services[usize::from(service)].half_open;
                *half_open = half_open.saturating_sub(1);
            }
        }
        if slot.joins_pending > 0 {
            let pending = slot.conn.joins_pending();
            self.joins_pending -= slot.joins_pending.saturating_sub(pending);
            slot.joins_pending = pending;
        }
        if slot.conn.is_finished() {
            self.release(index);
            return;
        }
        if !slot.paths.early_joins.is_empty() && slot.conn.may_join() != Some(false) {
            self.open_early(now, index);
            return;
        }
        if again && !slot.dirty {
            slot.dirty = true;
            self.dirty.push_back(index);
        }
    }

    /// Opens the subflows that were ordered too early; what the connection refuses by now
    /// (it fell back, it closes) is forgotten.
    fn open_early(&mut self, now: Instant, index: u32) {
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return;
        };
        for path in std::mem::take(&mut slot.paths.early_joins) {
            let tuple = path.tuple;
            let Some(slot) = self.slots[index as usize].as_mut() else {
                return;
            };
            if slot.conn.open_subflow(&mut cx!(self, now), path).is_ok() {
                self.route(index, tuple, None);
            }
        }
        self.touched(now, index);
    }

    fn apply_actions(&mut self, index: u32) {
        let mut flows = std::mem::take(&mut self.actions.flows);
        for change in flows.drain(..) {
            match change {
                FlowChange::Add(tuple, subflow) => {
                    let flow = Flow::Subflow {
                        conn: index,
                        subflow,
                    };
                    if self.flows.insert(&tuple, flow).is_err() {
                        self.counters.inc(Counter::FlowTableFull);
                    }
                }
                FlowChange::Remove(tuple, time_wait) => {
                    // The table says which subflow it was; another owner's entry stays.
                    if let Some(flow @ Flow::Subflow { conn, .. }) = self.flows.lookup(&tuple)
                        && conn == index
                    {
                        self.flows.remove(&tuple, flow);
                        if let Some(state) = time_wait {
                            self.wait(index, tuple, state);
                        }
                    }
                    if let Some(worker) = self.take_route(index, &tuple) {
                        self.unroute(worker, tuple);
                    }
                }
            }
        }
        self.actions.flows = flows;
        if !self.actions.events.is_empty() {
            let name = match &self.slots[index as usize] {
                Some(slot) => slot.name.clone(),
                None => Arc::from(""),
            };
            for event in self.actions.events.drain(..) {
                if self.events.len() >= self.config.events_max {
                    self.counters.inc(Counter::EventDrop);
                    self.events_lost += 1;
                } else {
                    self.events.push_back((name.clone(), event));
                }
            }
        }
    }

    fn wait(&mut self, index: u32, tuple: FourTuple, state: crate::tcp::TimeWait) {
        let route = self.take_route(index, &tuple);
        let (serial, evicted) = self.time_wait.push(tuple, state, route);
        if let Some(left) = evicted {
            self.counters.inc(Counter::TimeWaitOverflow);
            self.forget(left);
        }
        if self
            .flows
            .insert(&tuple, Flow::TimeWait { serial })
            .is_err()
        {
            self.counters.inc(Counter::FlowTableFull);
        }
    }

    /// A flow's TIME-WAIT is over.
    fn forget(&mut self, left: Left) {
        let serial = left.serial;
        self.flows.remove(&left.tuple, Flow::TimeWait { serial });
        if let Some(worker) = left.route {
            self.unroute(worker, left.tuple);
        }
    }

    /// Nobody hands `tuple` over any more.
    fn unroute(&mut self, worker: Route, tuple: FourTuple) {
        self.outbound.push(Outbound::Route {
            worker,
            tuple,
            claim: false,
        });
    }

    fn take_route(&mut self, index: u32, tuple: &FourTuple) -> Option<Route> {
        let slot = self.slots[index as usize].as_mut()?;
        let routed = &mut slot.paths.written()?.routed;
        let i = routed.iter().position(|(t, _)| t == tuple)?;
        Some(routed.swap_remove(i).1)
    }

    fn release(&mut self, index: u32) {
        self.timers.schedule(index, None);
        let Some(mut slot) = self.slots[index as usize].take() else {
            return;
        };
        self.joins_pending -= slot.joins_pending;
        let token = slot.conn.token().0;
        if self.tokens.get(&token) == Some(&index) {
            self.tokens.remove(&token);
        }
        if slot.half_open
            && let Some(service) = slot.service
        {
            let half_open = &mut self.services[usize::from(service)].half_open;
            *half_open = half_open.saturating_sub(1);
        }
        let routed = slot.paths.written().map(|p| std::mem::take(&mut p.routed));
        for (tuple, worker) in routed.into_iter().flatten() {
            self.unroute(worker, tuple);
        }
        self.windows.close(slot.conn.promised_frames());
        self.live -= 1;
        self.free.push(index);
    }
}

/// An order of the path manager about one connection.
#[derive(Clone, Debug)]
pub enum Order {
    /// Join over a new path.
    OpenSubflow(SubflowPath),
    /// ADD_ADDR.
    Announce {
        /// Own identifier.
        address_id: AddressId,
        /// The address.
        address: std::net::IpAddr,
        /// Port, when it is not the connection's.
        port: Option<u16>,
    },
    /// REMOVE_ADDR and the end of its subflows.
    RemoveAddress {
        /// Own identifier.
        address_id: AddressId,
    },
    /// MP_PRIO on the subflows of one own address.
    SetBackup {
        /// Own identifier.
        address_id: AddressId,
        /// Backup from now on?
        backup: bool,
    },
    /// End one subflow.
    CloseSubflow(FourTuple),
    /// Close orderly.
    Close,
    /// MP_FASTCLOSE.
    Abort,
}

/// Why an order was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No connection has this token.
    #[error("no connection with this token")]
    UnknownToken,
    /// The connection has no such subflow.
    #[error("no subflow with these addresses and ports")]
    UnknownSubflow,
    /// The subflow cannot be opened.
    #[error(transparent)]
    Open(OpenError),
}

/// Why an active open was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The engine drains.
    #[error("draining: no new connections")]
    Draining,
    /// The four-tuple is in use.
    #[error("a flow with these addresses and ports exists")]
    Exists,
    /// As many connections as allowed.
    #[error("the limit of connections is reached")]
    Limit,
    /// The path is no path.
    #[error(transparent)]
    Path(#[from] OpenError),
}

/// Borrows the parts of an engine that a connection may use, and nothing else.
macro_rules! cx {
    ($engine:expr, $now:expr) => {
        Cx {
            now: $now,
            rng: &mut $engine.rng,
            counters: &mut $engine.counters,
            actions: &mut $engine.actions,
            config: &$engine.config.mptcp,
            secrets: &$engine.secrets,
            worker: $engine.config.worker,
            windows: &mut $engine.windows,
        }
    };
}
use cx;
