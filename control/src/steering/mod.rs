//! Asking the NIC to deliver flows to the queue of the worker that owns them.
//!
//! The NIC's hash decides on which queue a flow arrives; a connection's token decides which
//! worker owns it. First subflows that peers open agree, because the token is drawn where
//! the SYN arrives. Joins, and whatever we open, do not: the dataplane hands them over from
//! worker to worker, always and correctly. Where the NIC takes rules for TCP four-tuples
//! ("ntuple", `ethtool -N`) it is asked to deliver them to a queue of the owner at once,
//! which spares the hand-off. Nothing depends on it: a rule that comes late, is refused or
//! is lost leaves the flow to the hand-off, and no connection hears of it. (In the moment
//! when a rule comes or goes, segments may overtake those that are being handed over.)
//!
//! A driver may take milliseconds for a rule, so a thread asks it ([`Installer`]); the
//! daemon's loop only notes what it wants ([`Steering`]). What waits is bounded, and so are
//! the rules: by the table's size less what others have in it. A rule goes when its subflow
//! or connection does, when the dataplane dies and when braidd ends. A braidd that is killed
//! leaves rules behind; the next one removes them when it starts. It knows them by their
//! kind, so: *rules for exact TCP four-tuples to a local address of one of the dataplane's
//! interfaces are braid's*, on these interfaces, whoever made them.
//!
//! No NIC that QEMU emulates takes such a rule, so a rule that really steers has never been
//! seen by a test: what is tested is the encoding, everything against a NIC made up for the
//! purpose, and real drivers that have no rules (veth) or refuse them (igb).

mod installer;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use braid_dataplane::control::ConnReport;
use braid_dataplane::mptcp::{Event, SubflowId};
use serde::{Deserialize, Serialize};

use crate::nic::rules::{FlowRules, Rule};
use installer::Installer;

/// Rules that wait for the driver. A full queue is for the hand-off to carry.
const WAITING_MAX: usize = 1024;
/// How long the end of braidd waits for the driver to remove its rules.
const END_MAX: Duration = Duration::from_secs(2);

/// What `braid status` shows of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NtupleStatus {
    /// Rules of ours in the NIC.
    pub rules: u32,
    /// How many it holds, ours and others'; 0: none, or it does not say.
    pub table: u32,
    /// How many others have.
    pub others: u32,
    /// Orders that the driver refused.
    pub refused: u64,
    /// Flows without a rule because none could be had at the time: the table was full, or
    /// `reason` was known.
    pub skipped: u64,
    /// Flows without a rule because too many waited for the driver.
    pub dropped: u64,
    /// Why there are no rules, or no more of them, with the command that mends it.
    pub reason: Option<String>,
}

/// An interface that may have rules.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Kernel index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Queues, in the order in which workers share them: as `process/ports.rs` of the
    /// dataplane deals them out.
    pub queues: Vec<u32>,
}

impl Interface {
    /// The `n`th queue, counted around, of those that a worker owns; none where one worker
    /// has all queues, which need no rules.
    fn queue_of(&self, worker: usize, workers: usize, n: usize) -> Option<u32> {
        if workers < 2 || self.queues.len() < 2 {
            return None;
        }
        let own = self.queues.iter().skip(worker).step_by(workers);
        own.clone().nth(n % own.len().max(1)).copied()
    }
}

/// A flow of a connection. Ordered, so that those of one connection are together.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    token: u32,
    local: SocketAddr,
    remote: SocketAddr,
}

/// Where a flow's rule is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// To be installed.
    Waiting,
    /// In the NIC, at this location.
    Placed(u32),
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    interface: usize,
    queue: u32,
    phase: Phase,
}

impl Entry {
    fn rule(&self, flow: &Flow) -> Rule {
        Rule {
            local: flow.local,
            remote: flow.remote,
            queue: self.queue,
        }
    }
}

/// For the thread to do.
#[derive(Copy, Clone, Debug)]
enum Work {
    /// Remove what a killed predecessor left on an interface.
    Sweep(usize),
    /// Find out what an interface can.
    Look(usize),
    Install(Flow),
    Remove {
        interface: usize,
        location: u32,
        rule: Rule,
    },
}

/// What both sides know. Locked for moments only, never while a driver is asked.
#[derive(Debug, Default)]
struct State {
    workers: usize,
    flows: BTreeMap<Flow, Entry>,
    work: VecDeque<Work>,
    reports: Vec<NtupleStatus>,
    /// Deals flows out among the queues of a worker.
    next: usize,
    ending: bool,
}

impl State {
    fn remove(&mut self, flow: &Flow) {
        // What still waits is passed over when its turn comes.
        if let Some(entry) = self.flows.remove(flow)
            && let Phase::Placed(location) = entry.phase
        {
            self.work.push_back(Work::Remove {
                interface: entry.interface,
                location,
                rule: entry.rule(flow),
            });
        }
    }

    fn remove_all(&mut self, which: impl Fn(&Flow) -> bool, from: Option<u32>) {
        let start = Flow {
            token: from.unwrap_or(0),
            local: SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0),
            remote: SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0),
        };
        let flows: Vec<Flow> = self
            .flows
            .range(start..)
            .map(|(flow, _)| *flow)
            .take_while(which)
            .collect();
        for flow in &flows {
            self.remove(flow);
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the daemon's loop has of it.
#[derive(Debug)]
pub struct Steering {
    shared: Arc<Shared>,
    interfaces: Arc<[Interface]>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Steering {
    /// Begins: removes what a killed predecessor left for `locals`, then serves `workers`.
    pub fn start(
        nic: impl FlowRules + 'static,
        interfaces: Vec<Interface>,
        locals: Vec<IpAddr>,
        workers: usize,
    ) -> Self {
        let (steering, mut installer, alive) = Self::prepare(nic, interfaces, locals, workers);
        let thread = std::thread::Builder::new().name("braidd-ntuple".to_owned());
        let spawned = thread.spawn(move || {
            installer.run();
            drop(alive);
        });
        if let Err(e) = spawned {
            tracing::warn!("no ntuple rules: cannot start their thread: {e}");
            steering.shared.lock().ending = true;
        }
        steering
    }

    fn prepare<N: FlowRules>(
        nic: N,
        interfaces: Vec<Interface>,
        locals: Vec<IpAddr>,
        workers: usize,
    ) -> (Self, Installer<N>, std::sync::mpsc::Sender<()>) {
        let count = interfaces.len();
        let shared = Arc::new(Shared::default());
        let mut state = shared.lock();
        state.reports = vec![NtupleStatus::default(); count];
        state.work = (0..count).map(Work::Sweep).collect();
        drop(state);
        let (alive, ended) = channel();
        let interfaces: Arc<[Interface]> = interfaces.into();
        let installer = Installer::new(nic, shared.clone(), interfaces.clone(), locals);
        let steering = Self {
            shared,
            interfaces,
            ended,
        };
        steering.serve(workers);
        (steering, installer, alive)
    }

    /// A dataplane runs, with this many workers.
    pub fn serve(&self, workers: usize) {
        let mut state = self.shared.lock();
        state.workers = workers;
        for (index, interface) in self.interfaces.iter().enumerate() {
            if interface.queue_of(0, workers, 0).is_some() {
                state.work.push_back(Work::Look(index));
            } else {
                state.reports[index].reason =
                    Some("one worker has all queues: there is nothing to steer".to_owned());
            }
        }
        self.shared.wake.notify_one();
    }

    /// Takes note of what happened to a connection of a worker. `ifindex_of` names the
    /// interface that has a local address: by it the flow's packets are expected.
    pub fn on_event(
        &self,
        worker: usize,
        event: &Event,
        ifindex_of: impl Fn(IpAddr) -> Option<u32>,
    ) {
        match *event {
            Event::SubflowEstablished {
                token,
                local,
                remote,
                ..
            }
            | Event::Established {
                token,
                local,
                remote,
                server: false,
                ..
            } => {
                let flow = Flow {
                    token,
                    local,
                    remote,
                };
                if let Some(ifindex) = ifindex_of(local.ip()) {
                    self.install(worker, flow, ifindex);
                }
            }
            Event::SubflowClosed {
                token,
                local,
                remote,
                ..
            } => {
                let flow = Flow {
                    token,
                    local,
                    remote,
                };
                self.shared.lock().remove(&flow);
                self.shared.wake.notify_one();
            }
            Event::Closed { token, .. } => {
                let mut state = self.shared.lock();
                state.remove_all(|flow| flow.token == token, Some(token));
                self.shared.wake.notify_one();
            }
            _ => {}
        }
    }

    /// Takes over connections that lived before this braidd.
    pub fn adopt(&self, conns: &[ConnReport], ifindex_of: impl Fn(IpAddr) -> Option<u32>) {
        for c in conns {
            for s in &c.info.subflows {
                // The first one of a peer arrives where it is owned.
                let hashed = c.info.server && s.id == SubflowId(0);
                if let Some(ifindex) = ifindex_of(s.local.ip())
                    && s.state == "established"
                    && !hashed
                {
                    let flow = Flow {
                        token: c.info.token,
                        local: s.local,
                        remote: s.remote,
                    };
                    self.install(c.worker, flow, ifindex);
                }
            }
        }
    }

    fn install(&self, worker: usize, flow: Flow, ifindex: u32) {
        let position = |i: &Interface| i.ifindex == ifindex;
        let Some(interface) = self.interfaces.iter().position(position) else {
            return;
        };
        let mut state = self.shared.lock();
        let next = state.next;
        let queue = self.interfaces[interface].queue_of(worker, state.workers, next);
        let Some(queue) = queue else {
            return;
        };
        if state.ending || state.flows.contains_key(&flow) {
            return;
        }
        if state.work.len() >= WAITING_MAX {
            state.reports[interface].dropped += 1;
            return;
        }
        state.next = next.wrapping_add(1);
        let entry = Entry {
            interface,
            queue,
            phase: Phase::Waiting,
        };
        state.flows.insert(flow, entry);
        state.work.push_back(Work::Install(flow));
        self.shared.wake.notify_one();
    }

    /// The dataplane is gone, and all connections with it.
    pub fn clear(&self) {
        self.shared.lock().remove_all(|_| true, None);
        self.shared.wake.notify_one();
    }

    /// How an interface stands.
    #[must_use]
    pub fn report(&self, ifindex: u32) -> NtupleStatus {
        let position = |i: &Interface| i.ifindex == ifindex;
        let state = self.shared.lock();
        self.interfaces
            .iter()
            .position(position)
            .map_or_else(NtupleStatus::default, |i| state.reports[i].clone())
    }
}

impl Drop for Steering {
    /// Removes all rules, as far as the driver does it in time.
    fn drop(&mut self) {
        self.clear();
        self.shared.lock().ending = true;
        self.shared.wake.notify_one();
        if self.ended.recv_timeout(END_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the NIC is slow to remove ntuple rules; the next braidd removes the rest"
            );
        }
    }
}
