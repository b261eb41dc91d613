//! Decisions per connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use braid_dataplane::mptcp::{Announcement, ConnInfo, Event};
use serde::{Deserialize, Serialize};

use crate::config::{EndpointFlags, PathConfig, Policy};

use super::endpoints::{Endpoint, EndpointError, Endpoints, Which};
use super::plan::{Ends, Pair, wanted};

/// First pause before a lost subflow is tried again, and the longest one. With
/// [`ATTEMPT_TIMEOUT`], SYNs go out at least every four seconds, so a path is in use
/// again well within five seconds of being back.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// First pause of a path that worked and was the last: nothing else can go on meanwhile. A box
/// that resets whatever is older than some packets leaves no subflow in peace for longer.
const RETRY_ALONE: Duration = Duration::from_millis(200);
/// How long an attempt may take before a fresh one replaces it: TCP's own SYN
/// retransmissions back off (RFC 6298), and a path may come back in between.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// After this many attempts on a pair that never worked, e.g. because the peer's network
/// does not lead there at all, it is tried rarely.
const ATTEMPTS_NEVER_WORKED: u32 = 3;
const RETRY_NEVER_WORKED: Duration = Duration::from_secs(60);
/// A connection that ends tells about its subflows first; wait for the rest of the story.
const SETTLE: Duration = Duration::from_millis(100);
/// Announcements of an address whose subflow was lost, before the peer is taken to be
/// uninterested: about five minutes.
const REANNOUNCE_MAX: u32 = 150;
/// MP_TCPRST reasons of ours after which the same path is not tried again: administratively
/// prohibited and middlebox interference (RFC 8684 §3.6).
const FINAL_RESET_REASONS: [u8; 2] = [3, 6];

/// `path.subflows` and `path.accept-addresses`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Subflows per connection at the most.
    pub subflows: u8,
    /// Announced peer addresses per connection at the most.
    pub accept_addresses: u8,
}

/// An address of a dataplane interface.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// Address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix_len: u8,
    /// The interface can send.
    pub up: bool,
}

/// What has to be done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a subflow.
    Open {
        /// Connection.
        token: u32,
        /// From.
        local: IpAddr,
        /// To.
        remote: SocketAddr,
        /// Own address identifier.
        local_id: u8,
        /// The peer's, 0 if unknown.
        remote_id: u8,
        /// As backup.
        backup: bool,
    },
    /// Give an attempt up.
    Abandon {
        /// Connection.
        token: u32,
        /// From.
        local: IpAddr,
        /// To.
        remote: SocketAddr,
    },
    /// ADD_ADDR.
    Announce {
        /// Connection.
        token: u32,
        /// Own address identifier.
        id: u8,
        /// Address.
        address: IpAddr,
        /// Port, when it is not the connection's.
        port: Option<u16>,
    },
    /// REMOVE_ADDR and the end of the address's subflows.
    Remove {
        /// Connection.
        token: u32,
        /// Own address identifier.
        id: u8,
    },
    /// MP_PRIO.
    SetBackup {
        /// Connection.
        token: u32,
        /// Own address identifier.
        id: u8,
        /// From now on.
        backup: bool,
    },
}

/// A pair that is waited for.
#[derive(Copy, Clone, Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
    attempts: u32,
}

#[derive(Copy, Clone, Debug)]
struct Reannounce {
    at: Instant,
    pause: Duration,
    count: u32,
}

#[derive(Clone, Debug)]
struct Subflow {
    local: SocketAddr,
    remote: SocketAddr,
}

/// One MPTCP connection.
#[derive(Clone, Debug)]
struct Conn {
    server: bool,
    local: SocketAddr,
    remote: SocketAddr,
    deny_join_initial: bool,
    /// The peer's announced addresses.
    announced: BTreeMap<u8, SocketAddr>,
    /// Live subflows by their identifier.
    subflows: BTreeMap<u16, Subflow>,
    /// Attempts and when they are given up; several of one pair if several are wanted.
    pending: Vec<(Pair, Instant)>,
    /// Pairs that are not tried before a time.
    retry: BTreeMap<Pair, Retry>,
    /// Pairs of ours that worked and were lost.
    lost: BTreeSet<Pair>,
    /// Pairs that were ended on purpose: not tried until links or addresses change.
    given_up: BTreeSet<Pair>,
    /// Own identifiers that the peer was told.
    told: BTreeSet<u8>,
    /// Own addresses whose subflow was lost and that only the peer can bring back.
    reannounce: BTreeMap<IpAddr, Reannounce>,
    /// Look again then.
    wake: Option<Instant>,
}

impl Conn {
    fn deadline(&self) -> Option<Instant> {
        let pending = self.pending.iter().map(|(_, at)| *at);
        let retry = self.retry.values().map(|r| r.at);
        let announce = self.reannounce.values().map(|r| r.at);
        pending.chain(retry).chain(announce).chain(self.wake).min()
    }

    fn used(&self) -> Vec<Pair> {
        let live = self.subflows.values().map(|s| Pair {
            local: s.local.ip(),
            remote: s.remote,
        });
        live.chain(self.pending.iter().map(|(pair, _)| *pair))
            .collect()
    }

    /// One attempt on this pair is over. False if there was none.
    fn settled(&mut self, pair: Pair) -> bool {
        let at = self.pending.iter().position(|(p, _)| *p == pair);
        at.map(|at| self.pending.remove(at)).is_some()
    }

    fn count(&self) -> usize {
        self.subflows.len() + self.pending.len()
    }
}

/// The path manager of all connections.
#[derive(Debug)]
pub struct Manager {
    policy: Policy,
    limits: Limits,
    endpoints: Endpoints,
    locals: Vec<LocalAddress>,
    conns: HashMap<u32, Conn>,
}

impl Manager {
    /// A manager without connections.
    #[must_use]
    pub fn new(config: &PathConfig, locals: Vec<LocalAddress>) -> Self {
        let mut endpoints = Endpoints::default();
        for e in &config.endpoints {
            // The configuration has at most 255, each address once.
            let _ = endpoints.add(e.address, e.port, e.flags, None);
        }
        Self {
            policy: config.policy,
            limits: Limits {
                subflows: config.subflows,
                accept_addresses: config.accept_addresses,
            },
            endpoints,
            locals,
            conns: HashMap::new(),
        }
    }

    /// The endpoint table.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Policy in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Connections that it manages.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// What every connection announces as soon as it may be joined, without asking: see
    /// [`Event::Established`].
    #[must_use]
    pub fn announcements(&self) -> Vec<Announcement> {
        let announced = self.endpoints.iter().filter(|e| self.is_announced(e));
        announced
            .map(|e| Announcement {
                id: e.id,
                address: e.address,
                port: e.port,
            })
            .collect()
    }

    /// Nobody could come while the link is down, and who tried in vain would not try again.
    fn is_announced(&self, e: &Endpoint) -> bool {
        let down = |l: &LocalAddress| l.address == e.address && !l.up;
        self.policy != Policy::None && e.flags.signal && !self.locals.iter().any(down)
    }

    /// Forgets all connections: the dataplane is gone.
    pub fn reset(&mut self) {
        self.conns.clear();
    }

    /// The identifier of an own address on one connection: 0 for its initial one.
    fn local_id(&mut self, token: u32, address: IpAddr) -> Result<u8, EndpointError> {
        match self.conns.get(&token) {
            Some(c) if c.local.ip() == address => Ok(0),
            _ => self.endpoints.id_of(address),
        }
    }

    /// Takes an event of the dataplane in.
    pub fn on_event(&mut self, now: Instant, event: &Event, out: &mut Vec<Command>) {
        match *event {
            Event::Established {
                token,
                local,
                remote,
                server,
                mptcp,
                deny_join_initial,
                ref announced,
                ..
            } => {
                if !mptcp {
                    self.conns.remove(&token);
                    return;
                }
                let conn = self
                    .conns
                    .entry(token)
                    .or_insert_with(|| new_conn(server, local, remote));
                conn.deny_join_initial = deny_join_initial;
                conn.subflows.insert(0, Subflow { local, remote });
                self.told(token, announced, out);
                self.announce_all(token, out);
                self.reconcile(token, now, out);
            }
            Event::FellBack { token, .. } | Event::Closed { token, .. } => {
                self.conns.remove(&token);
            }
            Event::Announced {
                token,
                address_id,
                address,
                port,
                ..
            } => {
                let accept = usize::from(self.limits.accept_addresses);
                let Some(c) = self.conns.get_mut(&token) else {
                    return;
                };
                let known = c.announced.contains_key(&address_id);
                if known || c.announced.len() < accept {
                    let remote = SocketAddr::new(address, port.unwrap_or(c.remote.port()));
                    c.announced.insert(address_id, remote);
                    // An address that is announced again may be back.
                    c.retry.retain(|pair, _| pair.remote != remote);
                    c.given_up.retain(|pair| pair.remote != remote);
                    self.reconcile(token, now, out);
                }
            }
            Event::Removed { token, address_id } => {
                let Some(c) = self.conns.get_mut(&token) else {
                    return;
                };
                let gone = if address_id == 0 {
                    c.deny_join_initial = true;
                    Some(c.remote)
                } else {
                    c.announced.remove(&address_id)
                };
                c.lost.retain(|pair| Some(pair.remote) != gone);
                c.retry.retain(|pair, _| Some(pair.remote) != gone);
            }
            Event::SubflowEstablished {
                token,
                subflow,
                local,
                remote,
                ..
            } => {
                let Some(c) = self.conns.get_mut(&token) else {
                    return;
                };
                let pair = Pair {
                    local: local.ip(),
                    remote,
                };
                c.settled(pair);
                c.retry.remove(&pair);
                c.lost.remove(&pair);
                c.given_up.remove(&pair);
                c.reannounce.remove(&local.ip());
                c.subflows.insert(subflow.0, Subflow { local, remote });
            }
            Event::SubflowClosed {
                token,
                subflow,
                local,
                remote,
                established,
                ref error,
                reset_reason,
                transient,
                ..
            } => {
                let Some(c) = self.conns.get_mut(&token) else {
                    return;
                };
                let pair = Pair {
                    local: local.ip(),
                    remote,
                };
                let live = c.subflows.remove(&subflow.0).is_some();
                let tried = c.settled(pair);
                c.wake = Some(now + SETTLE);
                if !(established || live || tried) {
                    // A join of the peer that did not come about, or an attempt that was
                    // abandoned and has been dealt with then.
                    return;
                }
                let orderly = error == "closed" && reset_reason.is_none();
                // RFC 8684 §3.6: the peer says by flag T whether to come back; of our own
                // resets only the reason is known.
                let unwelcome = transient.map_or_else(
                    || reset_reason.is_some_and(|r| FINAL_RESET_REASONS.contains(&r)),
                    |passes| !passes,
                );
                if orderly || unwelcome {
                    c.lost.remove(&pair);
                    c.given_up.insert(pair);
                } else {
                    self.lost(token, pair, established, now, out);
                }
            }
            Event::Created { .. }
            | Event::Checked { .. }
            | Event::Echoed { .. }
            | Event::SubflowPriority { .. }
            | Event::SubflowStale { .. } => {}
        }
    }

    /// A subflow failed. The side that can open it again does; the other one announces.
    fn lost(&mut self, token: u32, pair: Pair, worked: bool, now: Instant, out: &mut Vec<Command>) {
        let managed = self.policy != Policy::None;
        let Some(c) = self.conns.get_mut(&token) else {
            return;
        };
        // The peer listens on its initial address if we were the client, and on what it
        // announced. Anything else is the peer's ephemeral port.
        let listens = (!c.server && pair.remote == c.remote && !c.deny_join_initial)
            || c.announced.values().any(|a| *a == pair.remote);
        if listens {
            if worked && managed {
                c.lost.insert(pair);
            }
            let pause = if worked && c.subflows.is_empty() {
                RETRY_ALONE
            } else {
                RETRY_FIRST
            };
            let retry = c.retry.entry(pair).or_insert(Retry {
                at: now,
                pause,
                attempts: 0,
            });
            retry.attempts += 1;
            if retry.attempts >= ATTEMPTS_NEVER_WORKED && !c.lost.contains(&pair) {
                retry.pause = RETRY_NEVER_WORKED;
            }
            retry.at = now + retry.pause;
            retry.pause = (retry.pause * 2).min(RETRY_MAX.max(retry.pause));
        } else if worked && managed && c.server {
            // The peer may not have heard of the end, and takes an announcement of an
            // address that it has a subflow to for a repetition. So the address is
            // withdrawn, which other stacks also count as room for one more announcement.
            // The initial one stays: a client knows it, and may come back by itself.
            let told = self
                .endpoints
                .of(pair.local)
                .filter(|e| e.flags.signal && c.told.contains(&e.id));
            if let Some(e) = told
                && c.local.ip() != pair.local
                && c.subflows.values().all(|s| s.local.ip() != pair.local)
            {
                out.push(Command::Remove { token, id: e.id });
            }
            c.reannounce.entry(pair.local).or_insert(Reannounce {
                at: now + RETRY_FIRST,
                pause: RETRY_FIRST,
                count: 0,
            });
        }
    }

    /// An order could not be carried out, e.g. there is no route or no neighbour.
    pub fn on_open_failed(
        &mut self,
        now: Instant,
        token: u32,
        local: IpAddr,
        remote: SocketAddr,
        out: &mut Vec<Command>,
    ) {
        let pair = Pair { local, remote };
        if let Some(c) = self.conns.get_mut(&token)
            && c.settled(pair)
        {
            self.lost(token, pair, false, now, out);
            self.reconcile(token, now, out);
        }
    }

    /// The addresses of the dataplane's interfaces, or their state, changed. What could not
    /// be reached before is tried at once.
    pub fn on_locals(&mut self, now: Instant, locals: Vec<LocalAddress>, out: &mut Vec<Command>) {
        let was_up = |ip: IpAddr| self.locals.iter().any(|l| l.address == ip && l.up);
        let back: Vec<IpAddr> = locals
            .iter()
            .filter(|l| l.up && !was_up(l.address))
            .map(|l| l.address)
            .collect();
        self.locals = locals;
        for token in self.tokens() {
            if let Some(c) = self.conns.get_mut(&token) {
                c.retry.retain(|pair, _| !back.contains(&pair.local));
                c.given_up.retain(|pair| !back.contains(&pair.local));
                for (address, r) in &mut c.reannounce {
                    if back.contains(address) {
                        *r = Reannounce {
                            at: now,
                            pause: RETRY_FIRST,
                            count: 0,
                        };
                    }
                }
            }
            self.announce_all(token, out);
            self.reconcile(token, now, out);
            self.reannounce(token, now, out);
        }
    }

    /// When [`Manager::on_timer`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.conns.values().filter_map(Conn::deadline).min()
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, out: &mut Vec<Command>) {
        for token in self.tokens() {
            let Some(mut c) = self.conns.get_mut(&token) else {
                continue;
            };
            if c.deadline().is_none_or(|at| at > now) {
                continue;
            }
            c.wake = None;
            let overdue: Vec<Pair> = c
                .pending
                .iter()
                .filter(|(_, at)| *at <= now)
                .map(|(p, _)| *p)
                .collect();
            for pair in overdue {
                c.settled(pair);
                out.push(Command::Abandon {
                    token,
                    local: pair.local,
                    remote: pair.remote,
                });
                self.lost(token, pair, false, now, out);
                let Some(next) = self.conns.get_mut(&token) else {
                    break;
                };
                c = next;
            }
            self.reconcile(token, now, out);
            self.reannounce(token, now, out);
        }
    }

    fn tokens(&self) -> Vec<u32> {
        let mut tokens: Vec<u32> = self.conns.keys().copied().collect();
        tokens.sort_unstable();
        tokens
    }

    /// Takes in what a connection has announced by itself. An endpoint may have been deleted
    /// while it was established: that is withdrawn.
    fn told(&mut self, token: u32, announced: &[Announcement], out: &mut Vec<Command>) {
        let Some(c) = self.conns.get_mut(&token) else {
            return;
        };
        for a in announced {
            if self.endpoints.announced(a).is_some() {
                c.told.insert(a.id);
            } else {
                out.push(Command::Remove { token, id: a.id });
            }
        }
    }

    /// Announces what the peer was not told: endpoints that came later than the connection.
    fn announce_all(&mut self, token: u32, out: &mut Vec<Command>) {
        let announced = self.announcements();
        let Some(c) = self.conns.get_mut(&token) else {
            return;
        };
        for a in announced {
            // The initial address is known, but not that it may be joined at another port.
            let known = a.address == c.local.ip() && a.port.is_none_or(|p| p == c.local.port());
            if !known && c.told.insert(a.id) {
                out.push(Command::Announce {
                    token,
                    id: a.id,
                    address: a.address,
                    port: a.port,
                });
            }
        }
    }

    fn reannounce(&mut self, token: u32, now: Instant, out: &mut Vec<Command>) {
        let Some(c) = self.conns.get_mut(&token) else {
            return;
        };
        let mut due = Vec::new();
        let locals = &self.locals;
        c.reannounce.retain(|address, r| {
            if r.at > now {
                return true;
            }
            r.at = now + r.pause;
            r.pause = (r.pause * 2).min(RETRY_MAX);
            // Nobody could come while the link is down.
            if locals.iter().any(|l| l.address == *address && l.up) {
                r.count += 1;
                due.push(*address);
            }
            r.count < REANNOUNCE_MAX
        });
        for address in due {
            // Only what was offered before is offered again.
            let id = match self.conns.get(&token) {
                Some(c) => {
                    let told = |e: &&Endpoint| c.told.contains(&e.id) && e.flags.signal;
                    let told = self.endpoints.of(address).filter(told);
                    told.map(|e| (e.id, e.port))
                        .or((c.local.ip() == address).then_some((0, None)))
                }
                None => None,
            };
            match id {
                Some((id, port)) => out.push(Command::Announce {
                    token,
                    id,
                    address,
                    port,
                }),
                None => {
                    if let Some(c) = self.conns.get_mut(&token) {
                        c.reannounce.remove(&address);
                    }
                }
            }
        }
    }

    /// Opens what is wanted and missing, within the limit.
    fn reconcile(&mut self, token: u32, now: Instant, out: &mut Vec<Command>) {
        let Some(c) = self.conns.get_mut(&token) else {
            return;
        };
        // Pauses that are over leave no deadline behind; their attempts still count.
        let room = usize::from(self.limits.subflows).saturating_sub(c.count());
        if room == 0 {
            // A deadline that nothing can follow would make the timer spin.
            for r in c.retry.values_mut() {
                r.at = r.at.max(now + RETRY_MAX);
            }
            return;
        }
        let used = c.used();
        let lost: Vec<Pair> = c.lost.iter().copied().collect();
        let ends = Ends {
            server: c.server,
            local: c.local,
            remote: c.remote,
            deny_join_initial: c.deny_join_initial,
            announced: &c.announced,
            used: &used,
            lost: &lost,
            subflows: usize::from(self.limits.subflows),
        };
        let plan = wanted(self.policy, &self.endpoints, &self.locals, ends);
        // Pauses of pairs that nobody wants any more are forgotten.
        c.retry
            .retain(|pair, _| plan.contains(pair) || used.contains(pair));
        let ready: Vec<Pair> = plan
            .into_iter()
            .filter(|p| !c.given_up.contains(p) && c.retry.get(p).is_none_or(|r| r.at <= now))
            .take(room)
            .collect();
        for pair in ready {
            let Ok(local_id) = self.local_id(token, pair.local) else {
                continue;
            };
            let backup = self
                .endpoints
                .of(pair.local)
                .is_some_and(|e| e.flags.backup);
            let Some(c) = self.conns.get_mut(&token) else {
                return;
            };
            // A subflow that takes the place of the first one is as regular as that was.
            let backup = backup || (self.policy == Policy::Backup && pair.local != c.local.ip());
            let remote_id = c
                .announced
                .iter()
                .find(|(_, a)| **a == pair.remote)
                .map_or(0, |(id, _)| *id);
            let deadline = now + ATTEMPT_TIMEOUT;
            c.pending.push((pair, deadline));
            if let Some(r) = c.retry.get_mut(&pair) {
                r.at = deadline + RETRY_FIRST;
            }
            out.push(Command::Open {
                token,
                local: pair.local,
                remote: pair.remote,
                local_id,
                remote_id,
                backup,
            });
        }
    }

    /// `braid endpoint add`.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn endpoint_add(
        &mut self,
        now: Instant,
        (address, port): (IpAddr, Option<u16>),
        flags: EndpointFlags,
        id: Option<u8>,
        out: &mut Vec<Command>,
    ) -> Result<Endpoint, EndpointError> {
        let endpoint = self.endpoints.add(address, port, flags, id)?;
        self.endpoint_came(now, address, out);
        Ok(endpoint)
    }

    fn endpoint_came(&mut self, now: Instant, address: IpAddr, out: &mut Vec<Command>) {
        for token in self.tokens() {
            if let Some(c) = self.conns.get_mut(&token) {
                c.given_up.retain(|pair| pair.local != address);
            }
            self.announce_all(token, out);
            self.reconcile(token, now, out);
        }
    }

    /// `braid endpoint del`: withdraws it from every connection that knows it.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn endpoint_remove(
        &mut self,
        which: Which,
        out: &mut Vec<Command>,
    ) -> Result<Endpoint, EndpointError> {
        let endpoint = self.endpoints.remove(which)?;
        for token in self.tokens() {
            let Some(c) = self.conns.get_mut(&token) else {
                continue;
            };
            let told = c.told.remove(&endpoint.id);
            // The initial address itself is 0; announced with a port it has an identifier too.
            let initial = c.local.ip() == endpoint.address && !told;
            let id = if initial { 0 } else { endpoint.id };
            let used = c
                .subflows
                .values()
                .any(|s| s.local.ip() == endpoint.address)
                || c.pending.iter().any(|(p, _)| p.local == endpoint.address);
            c.lost.retain(|pair| pair.local != endpoint.address);
            c.retry.retain(|pair, _| pair.local != endpoint.address);
            c.reannounce.remove(&endpoint.address);
            // What was deleted is not opened again by the mesh.
            if used {
                let gone: Vec<Pair> = c
                    .used()
                    .into_iter()
                    .filter(|p| p.local == endpoint.address)
                    .collect();
                c.given_up.extend(gone);
            }
            if told || used {
                out.push(Command::Remove { token, id });
            }
        }
        Ok(endpoint)
    }

    /// `braid endpoint change`.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn endpoint_change(
        &mut self,
        now: Instant,
        which: Which,
        flags: EndpointFlags,
        out: &mut Vec<Command>,
    ) -> Result<Endpoint, EndpointError> {
        let (before, after) = self.endpoints.change(which, flags)?;
        for token in self.tokens() {
            let Some(c) = self.conns.get_mut(&token) else {
                continue;
            };
            let id = if c.local.ip() == after.address {
                0
            } else {
                after.id
            };
            if before.flags.backup != after.flags.backup
                && c.subflows.values().any(|s| s.local.ip() == after.address)
            {
                out.push(Command::SetBackup {
                    token,
                    id,
                    backup: after.flags.backup,
                });
            }
        }
        self.endpoint_came(now, after.address, out);
        Ok(after)
    }

    /// Changes the limits; what they newly allow is opened.
    pub fn set_limits(&mut self, now: Instant, limits: Limits, out: &mut Vec<Command>) {
        self.limits = limits;
        for token in self.tokens() {
            self.reconcile(token, now, out);
        }
    }

    /// Applies a new configuration: policy, limits, endpoints.
    pub fn reload(&mut self, now: Instant, config: &PathConfig, out: &mut Vec<Command>) {
        self.policy = config.policy;
        let wanted = |a: IpAddr| config.endpoints.iter().find(|e| e.address == a);
        let old: Vec<Endpoint> = self
            .endpoints
            .iter()
            .filter(|e| !e.implicit)
            .copied()
            .collect();
        for e in old {
            let which = Which::Id(e.id);
            // Every endpoint that is named here exists.
            let _ = match wanted(e.address) {
                None => self.endpoint_remove(which, out),
                // Announced anew, under another identifier.
                Some(new) if new.port != e.port => self.endpoint_remove(which, out),
                Some(new) if new.flags != e.flags => {
                    self.endpoint_change(now, which, new.flags, out)
                }
                Some(_) => Ok(e),
            };
        }
        for e in &config.endpoints {
            if self.endpoints.of(e.address).is_none_or(|old| old.implicit) {
                let _ = self.endpoint_add(now, (e.address, e.port), e.flags, None, out);
            }
        }
        // The policy may not have allowed it before.
        for token in self.tokens() {
            self.announce_all(token, out);
        }
        let limits = Limits {
            subflows: config.subflows,
            accept_addresses: config.accept_addresses,
        };
        self.set_limits(now, limits, out);
    }

    /// Takes over a connection that lived before this control plane did.
    pub fn adopt(&mut self, now: Instant, info: &ConnInfo, out: &mut Vec<Command>) {
        let closed = info
            .closed_subflows
            .iter()
            .find(|s| s.id.0 == 0)
            .map(|s| (s.local, s.remote));
        let live = info
            .subflows
            .iter()
            .find(|s| s.id.0 == 0)
            .map(|s| (s.local, s.remote));
        let any = info.subflows.first().map(|s| (s.local, s.remote));
        let Some((local, remote)) = live.or(closed).or(any) else {
            return;
        };
        if !info.mptcp {
            return;
        }
        let mut conn = new_conn(info.server, local, remote);
        for s in &info.subflows {
            conn.subflows.insert(
                s.id.0,
                Subflow {
                    local: s.local,
                    remote: s.remote,
                },
            );
            if s.remote_id != 0 && !info.server {
                conn.announced.insert(s.remote_id, s.remote);
            }
        }
        // What the configuration does not know may have been added at run time: it stays.
        let known = |a: &&Announcement| self.endpoints.announced(a).is_some();
        conn.told = info.announced.iter().filter(known).map(|a| a.id).collect();
        self.conns.insert(info.token, conn);
        self.announce_all(info.token, out);
        self.reconcile(info.token, now, out);
    }
}

fn new_conn(server: bool, local: SocketAddr, remote: SocketAddr) -> Conn {
    Conn {
        server,
        local,
        remote,
        deny_join_initial: false,
        announced: BTreeMap::new(),
        subflows: BTreeMap::new(),
        pending: Vec::new(),
        retry: BTreeMap::new(),
        lost: BTreeSet::new(),
        given_up: BTreeSet::new(),
        told: BTreeSet::new(),
        reannounce: BTreeMap::new(),
        wake: None,
    }
}
