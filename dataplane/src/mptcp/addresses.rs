//! Addresses: ours to announce, the peer's to learn (RFC 8684 §3.4).
//!
//! One announcement is under way at a time, until its echo or for [`ECHO_PATIENCE`]: Linux has
//! one place for an announcement that its worker has not seen yet, and drops the next. Each
//! address repeats by its own timer, so one that is never echoed does not hold back the others.

use std::net::{IpAddr, SocketAddr};

use super::api::{Cx, SubflowId};
use super::event::{Announcement, Event};
use super::key;
use super::state::Core;
use super::subflow::{Subflow, Withdrawn};
use crate::counters::Counter;
use crate::lazy::{Empty, Lazy};
use crate::time::{Duration, Instant};
use crate::wire::mptcp::{AddressIds, MptcpOption, reset_reason};
use crate::wire::types::{AddressId, FourTuple};

/// Transmissions of an ADD_ADDR without echo: one and three repetitions.
const ADD_ADDR_SENT_MAX: u8 = 4;
/// How long an announcement without echo holds back the next.
const ECHO_PATIENCE: Duration = Duration::from_millis(100);
/// Transmissions of a REMOVE_ADDR. Nothing acknowledges it, and without it the peer would go
/// on trying an address that is gone, so it is said three times.
const REMOVE_ADDR_SENT_MAX: u8 = 3;
/// Own addresses announced per connection.
const LOCAL_MAX: usize = 16;
/// Remote endpoints whose join failed, and ones whose join did not, that are remembered.
const FAILED_MAX: usize = 16;
const PROVEN_MAX: usize = 16;

/// An address of ours.
#[derive(Copy, Clone, Debug)]
struct Announced {
    id: AddressId,
    addr: IpAddr,
    port: Option<u16>,
    sent: u8,
    /// Next transmission; `None` once echoed or given up.
    next: Option<Instant>,
}

/// An address of ours that is gone.
#[derive(Copy, Clone, Debug)]
struct Gone {
    id: AddressId,
    sent: u8,
    next: Instant,
}

/// An address of the peer.
#[derive(Copy, Clone, Debug)]
struct Remote {
    id: AddressId,
    addr: IpAddr,
    port: Option<u16>,
}

/// What both sides know about addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    announced: Vec<Announced>,
    trouble: Lazy<Trouble>,
    remote: Vec<Remote>,
    /// Remote endpoints on which a join of ours came about.
    proven: Vec<SocketAddr>,
    initial: Option<SocketAddr>,
    /// Our end of the first subflow.
    initial_local: Option<SocketAddr>,
}

/// What most connections have none of.
#[derive(Debug, Default)]
struct Trouble {
    /// The last announcement waits for its echo: until then, no other.
    under_way: Option<(AddressId, Instant)>,
    /// Withdrawals that are still repeated. As many as were ever announced at once.
    gone: Vec<Gone>,
    /// Paths on which the peer reset a subflow for good (MP_TCPRST without T): our address,
    /// its address and port.
    barred: Vec<(IpAddr, SocketAddr)>,
    failed: Vec<SocketAddr>,
}

impl Empty for Trouble {
    const EMPTY: &'static Self = &Self {
        under_way: None,
        gone: Vec::new(),
        barred: Vec::new(),
        failed: Vec::new(),
    };
}

impl Trouble {
    fn is_over(&self) -> bool {
        self.under_way.is_none()
            && self.gone.is_empty()
            && self.barred.is_empty()
            && self.failed.is_empty()
    }
}

impl Lazy<Trouble> {
    fn forget_withdrawal(&mut self, id: AddressId) {
        if let Some(trouble) = self.written() {
            trouble.gone.retain(|g| g.id != id);
        }
    }

    fn forget_withdrawals(&mut self) {
        if let Some(trouble) = self.written() {
            trouble.gone.clear();
        }
    }
}

impl Addresses {
    /// Gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        self.trouble.release_if(Trouble::is_over);
        self.announced.shrink_to_fit();
        self.remote.shrink_to_fit();
        self.proven.shrink_to_fit();
    }

    pub(crate) fn initial(&mut self, tuple: FourTuple) {
        self.initial = Some(tuple.remote);
        self.initial_local = Some(tuple.local);
        self.learned(AddressId::INITIAL, tuple.remote);
    }

    pub(crate) fn is_initial_local(&self, local: SocketAddr) -> bool {
        self.initial_local == Some(local)
    }

    pub(crate) fn is_initial(&self, remote: SocketAddr) -> bool {
        self.initial == Some(remote)
    }

    /// A MP_JOIN named an address.
    pub(crate) fn learned(&mut self, id: AddressId, remote: SocketAddr) {
        if self.remote.iter().all(|r| r.id != id) && self.remote.len() < usize::from(u8::MAX) {
            self.remote.push(Remote {
                id,
                addr: remote.ip(),
                port: None,
            });
        }
    }

    pub(crate) fn remote_id_of(&self, addr: IpAddr) -> Option<AddressId> {
        self.remote.iter().find(|r| r.addr == addr).map(|r| r.id)
    }

    /// What the peer calls an address of ours: what it was announced as. The port decides
    /// between announcements that differ in nothing else.
    fn announced_id_of(&self, local: SocketAddr) -> Option<AddressId> {
        let at = |a: &&Announced| a.addr == local.ip() && a.port == Some(local.port());
        if self.initial_local != Some(local)
            && let Some(named) = self.announced.iter().find(at)
        {
            return Some(named.id);
        }
        if self.initial_local.is_some_and(|l| l.ip() == local.ip()) {
            return Some(AddressId::INITIAL);
        }
        let named = self.announced.iter().filter(|a| a.addr == local.ip());
        named
            .min_by_key(|a| a.port != Some(local.port()))
            .map(|a| a.id)
    }

    /// A join to this endpoint came about.
    pub(crate) fn join_worked(&mut self, remote: SocketAddr) {
        if self.proven.contains(&remote) {
            return;
        }
        if self.proven.len() == PROVEN_MAX {
            self.proven.remove(0);
        }
        self.proven.push(remote);
    }

    /// A join to this endpoint failed for good (RFC 8684 §3.4.1, §3.9.3: no retry until it
    /// is announced again), unless the reset said that the condition passes (§3.6, flag T). An
    /// endpoint that was joined before exists: its path is down and may come back, and the
    /// peer, who may not even know, would not announce it for that.
    pub(crate) fn join_failed(&mut self, remote: SocketAddr, transient: bool) {
        let passes = transient || self.proven.contains(&remote);
        if !passes && !self.is_initial(remote) && !self.trouble.failed.contains(&remote) {
            if self.trouble.failed.len() == FAILED_MAX {
                self.trouble.failed.remove(0);
            }
            self.trouble.failed.push(remote);
        }
    }

    pub(crate) fn has_failed(&self, remote: SocketAddr) -> bool {
        self.trouble.failed.contains(&remote)
    }

    /// The peer reset a subflow for a reason that does not pass (RFC 8684 §3.6: no retry over
    /// this path).
    pub(crate) fn path_barred(&mut self, tuple: FourTuple) {
        let path = (tuple.local.ip(), tuple.remote);
        if !self.trouble.barred.contains(&path) {
            if self.trouble.barred.len() == FAILED_MAX {
                self.trouble.barred.remove(0);
            }
            self.trouble.barred.push(path);
        }
    }

    pub(crate) fn is_barred(&self, tuple: FourTuple) -> bool {
        self.trouble
            .barred
            .contains(&(tuple.local.ip(), tuple.remote))
    }

    /// The peer knows this address of ours: it used it. Where announcements are not echoed,
    /// that alone ends their repetition.
    pub(crate) fn heard(&mut self, local: IpAddr) {
        for entry in self.announced.iter_mut().filter(|a| a.addr == local) {
            entry.next = None;
        }
    }

    /// What the peer was told, or is being told.
    pub(crate) fn announced(&self) -> Vec<Announcement> {
        let told = self.announced.iter().map(|a| Announcement {
            id: a.id.0,
            address: a.addr,
            port: a.port,
        });
        told.collect()
    }

    /// When an announcement is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let hold = self
            .trouble
            .under_way
            .map_or(Instant::default(), |(_, until)| until);
        let announced = self.announced.iter().filter_map(|a| a.next);
        announced
            .map(|at| at.max(hold))
            .chain(self.trouble.gone.iter().map(|g| g.next))
            .min()
    }
}

impl Core {
    /// The identifier of an own address that the peer joined (RFC 8684 §3.2: the peer may
    /// hear of it in our SYN/ACK only).
    pub(crate) fn local_id_of(&self, local: SocketAddr) -> AddressId {
        self.addresses
            .announced_id_of(local)
            .or_else(|| {
                let same = |s: &&Subflow| s.tuple().local.ip() == local.ip();
                self.subflows.iter().find(same).map(Subflow::local_id)
            })
            .unwrap_or_else(|| self.unused_local_id())
    }

    /// From the top: the control plane numbers its endpoints from 1.
    fn unused_local_id(&self) -> AddressId {
        let taken = |id: AddressId| {
            self.addresses.announced.iter().any(|a| a.id == id)
                || self.subflows.iter().any(|s| s.local_id() == id)
        };
        // There are far fewer subflows and announcements than identifiers.
        (1..=u8::MAX)
            .rev()
            .map(AddressId)
            .find(|id| !taken(*id))
            .unwrap_or(AddressId(u8::MAX))
    }

    /// From now on `id` names `addr` and nothing else.
    fn name_local(&mut self, id: AddressId, addr: IpAddr) {
        for i in 0..self.subflows.len() {
            let (local, old) = (self.subflows[i].tuple().local, self.subflows[i].local_id());
            if old == AddressId::INITIAL || (local.ip() == addr) == (old == id) {
                continue;
            }
            self.subflows[i].path.local_id = if local.ip() == addr {
                id
            } else {
                self.unused_local_id()
            };
        }
    }

    /// Announces what every connection announces, and says what that was. The initial address
    /// is known, but not that it may be joined at another port.
    pub(crate) fn announce_configured(&mut self, cx: &mut Cx<'_>) -> Vec<Announcement> {
        let config = cx.config;
        for a in config.announcements.iter() {
            let known = |local: SocketAddr| {
                local.ip() == a.address && a.port.is_none_or(|port| port == local.port())
            };
            if !self.addresses.initial_local.is_some_and(known) {
                self.announce(cx, AddressId(a.id), a.address, a.port);
            }
        }
        self.addresses.announced()
    }

    /// Starts announcing an address.
    pub(crate) fn announce(
        &mut self,
        cx: &mut Cx<'_>,
        id: AddressId,
        addr: IpAddr,
        port: Option<u16>,
    ) {
        if !self.is_mptcp() || self.is_over() {
            return;
        }
        let names = |a: &Announced| a.id == id && a.addr != addr;
        if self.addresses.announced.iter().any(names) {
            // RFC 8684 §3.4.1: an identifier is withdrawn before it names another address.
            self.remove_addresses(cx, &[id]);
        }
        self.addresses.trouble.forget_withdrawal(id);
        let list = &mut self.addresses.announced;
        let known = list.iter().position(|a| a.id == id);
        if known.is_none() && list.len() >= LOCAL_MAX {
            cx.counters.inc(Counter::AddAddrTxDrop);
            return;
        }
        let entry = Announced {
            id,
            addr,
            port,
            sent: 0,
            next: Some(cx.now),
        };
        match known {
            // The same address, perhaps with another port: sent anew.
            Some(at) => list[at] = entry,
            None => list.push(entry),
        }
        self.name_local(id, addr);
        self.send_announcements(cx);
    }

    /// Queues every ADD_ADDR that is due.
    pub(crate) fn send_announcements(&mut self, cx: &mut Cx<'_>) {
        if !self.fully_established || !self.is_mptcp() {
            return;
        }
        let (Some(local), Some(remote)) = (self.local, self.remote) else {
            return;
        };
        for n in 0..self.addresses.announced.len() {
            let entry = self.addresses.announced[n];
            if entry.next.is_none_or(|at| at > cx.now) {
                continue;
            }
            if self
                .addresses
                .trouble
                .under_way
                .is_some_and(|(_, at)| cx.now < at)
            {
                return;
            }
            let mut next = None;
            if entry.sent < ADD_ADDR_SENT_MAX {
                // Another subflow each time: the first may be the reason for the silence.
                let subflow = self.nth_signal_subflow(usize::from(entry.sent));
                let option = MptcpOption::AddAddr {
                    echo: false,
                    address_id: entry.id,
                    addr: entry.addr,
                    port: entry.port,
                    hmac: self.version.authenticates_addresses().then(|| {
                        key::add_addr_hmac(local.key, remote.key, entry.id, entry.addr, entry.port)
                    }),
                };
                let queued = subflow.is_some_and(|i| self.subflows[i].signal(option));
                cx.counters.inc(if queued {
                    Counter::AddAddrTx
                } else {
                    Counter::AddAddrTxDrop
                });
                // A longer path takes longer to echo.
                let rtt = subflow.and_then(|i| self.subflows[i].tcp.srtt());
                let patience = ECHO_PATIENCE.max(rtt.unwrap_or_default() * 2);
                // Version 0 echoes nothing, so there is nothing to wait for.
                if self.version.authenticates_addresses() {
                    self.addresses.trouble.under_way = Some((entry.id, cx.now + patience));
                }
                next = Some(cx.now + cx.config.add_addr_timeout * (1 << entry.sent.min(8)));
            }
            let entry = &mut self.addresses.announced[n];
            entry.sent = entry.sent.saturating_add(1);
            entry.next = next;
        }
    }

    /// ADD_ADDR from the peer.
    pub(crate) fn on_add_addr(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        id: AddressId,
        addr: IpAddr,
        port: Option<u16>,
        hmac: Option<u64>,
    ) {
        let (Some(local), Some(remote)) = (self.local, self.remote) else {
            return;
        };
        let genuine = match (self.version.authenticates_addresses(), hmac) {
            (true, Some(hmac)) => {
                let expected = key::add_addr_hmac(remote.key, local.key, id, addr, port);
                key::same(hmac.to_be_bytes(), expected.to_be_bytes())
            }
            (false, None) => true,
            _ => false,
        };
        let list = &mut self.addresses.remote;
        let known = list.iter().position(|r| r.id == id);
        // An identifier keeps its address until it is withdrawn.
        let contradicts = known.is_some_and(|at| list[at].addr != addr);
        let full = known.is_none() && list.len() > usize::from(cx.config.remote_addresses_max);
        if !genuine || contradicts || full {
            cx.counters.inc(Counter::AddAddrDrop);
            return;
        }
        cx.counters.inc(Counter::AddAddr);
        if port.is_some() {
            cx.counters.inc(Counter::PortAdd);
        }
        let entry = Remote { id, addr, port };
        // A repetition, because our echo was lost, is no news.
        let mut news = known.is_none_or(|at| list[at].port != port);
        match known {
            Some(at) => list[at] = entry,
            None => list.push(entry),
        }
        if let Some(Trouble { failed, barred, .. }) = self.addresses.trouble.written() {
            let before = failed.len() + barred.len();
            failed.retain(|f| f.ip() != addr);
            barred.retain(|(_, f)| f.ip() != addr);
            news |= failed.len() + barred.len() < before;
        }
        let subflow = self.subflows[i].id;
        if self.version.authenticates_addresses() {
            let echo = MptcpOption::AddAddr {
                echo: true,
                address_id: id,
                addr,
                port,
                hmac: None,
            };
            let queued = self.subflows[i].signal(echo);
            cx.counters.inc(if queued {
                Counter::EchoAddTx
            } else {
                Counter::AddAddrTxDrop
            });
        }
        if news {
            cx.actions.events.push(Event::Announced {
                token: self.id,
                address_id: id.0,
                address: addr,
                port,
                subflow,
            });
        }
    }

    /// The peer echoed an announcement of ours.
    pub(crate) fn on_echo(&mut self, cx: &mut Cx<'_>, id: AddressId, addr: IpAddr) {
        cx.counters.inc(Counter::EchoAdd);
        let token = self.id;
        let list = &mut self.addresses.announced;
        let waiting = list
            .iter_mut()
            .find(|a| a.id == id && a.addr == addr && a.next.is_some());
        if let Some(entry) = waiting {
            entry.next = None;
            cx.actions.events.push(Event::Echoed {
                token,
                address_id: id.0,
            });
        }
        if self
            .addresses
            .trouble
            .under_way
            .is_some_and(|(last, _)| last == id)
        {
            self.addresses.trouble.under_way = None;
            self.send_announcements(cx);
        }
    }

    /// REMOVE_ADDR from the peer: what is known is forgotten; subflows to it are probed and
    /// stay only if they answer (RFC 8684 §3.4.2).
    pub(crate) fn on_remove_addr(&mut self, cx: &mut Cx<'_>, ids: AddressIds) {
        for id in ids.iter() {
            let list = &mut self.addresses.remote;
            let known = list.iter().position(|r| r.id == id);
            let used = self.subflows.iter().any(|s| s.remote_id() == id);
            if known.is_none() && !used {
                cx.counters.inc(Counter::RmAddrDrop);
                continue;
            }
            if let Some(at) = known {
                list.remove(at);
            }
            cx.counters.inc(Counter::RmAddr);
            cx.actions.events.push(Event::Removed {
                token: self.id,
                address_id: id.0,
            });
            for i in 0..self.subflows.len() {
                let s = &mut self.subflows[i];
                // A repetition does not begin the probing anew.
                if s.remote_id() == id && s.death.is_none() && s.withdrawn.is_none() {
                    let patience = s.tcp.rto() * 2;
                    s.withdrawn = Some(Box::new(Withdrawn {
                        probe_at: Some(cx.now + patience),
                        decided_at: cx.now + patience * 2,
                        answered: false,
                    }));
                    s.probe_due = true;
                    self.reinject_outstanding(i);
                }
            }
        }
    }

    /// Withdraws addresses of ours.
    pub(crate) fn remove_addresses(&mut self, cx: &mut Cx<'_>, ids: &[AddressId]) {
        self.addresses.announced.retain(|a| !ids.contains(&a.id));
        if !self.is_mptcp() || self.is_over() {
            return;
        }
        for chunk in ids.chunks(AddressIds::MAX.min(20)) {
            let Some(ids) = AddressIds::new(chunk) else {
                continue;
            };
            let carrier = self
                .signal_subflows()
                .find(|i| !chunk.contains(&self.subflows[*i].local_id()));
            // Without a carrier the last subflow goes with its address; the next one will
            // hear of it.
            self.send_withdrawal(cx, carrier, ids);
            for id in ids.iter() {
                self.addresses.trouble.gone.retain(|g| g.id != id);
                if self.addresses.trouble.gone.len() < LOCAL_MAX {
                    self.addresses.trouble.gone.push(Gone {
                        id,
                        sent: 1,
                        next: cx.now + cx.config.add_addr_timeout,
                    });
                }
            }
        }
        for i in 0..self.subflows.len() {
            let s = &self.subflows[i];
            if ids.contains(&s.local_id()) && s.death.is_none() {
                cx.counters.inc(Counter::RmSubflow);
                self.kill(i, Some(reset_reason::UNSPECIFIED), "local address removed");
            }
        }
    }

    fn send_withdrawal(&mut self, cx: &mut Cx<'_>, carrier: Option<usize>, ids: AddressIds) {
        if let Some(i) = carrier
            && self.subflows[i].signal(MptcpOption::RemoveAddr { ids })
        {
            cx.counters.inc(Counter::RmAddrTx);
        } else {
            cx.counters.inc(Counter::RmAddrTxDrop);
        }
    }

    /// Says again which addresses are gone, on another subflow each time. An identifier that
    /// names something again is left alone.
    pub(crate) fn repeat_withdrawals(&mut self, cx: &mut Cx<'_>) {
        if !self.is_mptcp() || self.is_over() {
            self.addresses.trouble.forget_withdrawals();
            return;
        }
        let mut n = 0;
        while n < self.addresses.trouble.gone.len() {
            let gone = self.addresses.trouble.gone[n];
            if gone.next > cx.now {
                n += 1;
                continue;
            }
            let in_use = self
                .subflows
                .iter()
                .any(|s| s.local_id() == gone.id && s.death.is_none());
            if !in_use {
                let carrier = self.nth_signal_subflow(usize::from(gone.sent));
                self.send_withdrawal(cx, carrier, AddressIds::single(gone.id));
            }
            if in_use || gone.sent + 1 >= REMOVE_ADDR_SENT_MAX {
                self.addresses.trouble.gone.remove(n);
            } else {
                let entry = &mut self.addresses.trouble.gone[n];
                entry.sent += 1;
                entry.next = cx.now + cx.config.add_addr_timeout * (1 << entry.sent);
                n += 1;
            }
        }
    }

    /// Local request for priority.
    pub(crate) fn set_backup(&mut self, cx: &mut Cx<'_>, subflow: SubflowId, backup: bool) {
        let Some(i) = self.index_of(subflow) else {
            return;
        };
        let mptcp = self.is_mptcp();
        let s = &mut self.subflows[i];
        if s.backup_local == backup {
            return;
        }
        s.backup_local = backup;
        if mptcp && s.is_established() {
            s.signals
                .retain(|o| !matches!(o, MptcpOption::MpPrio { .. }));
            let prio = MptcpOption::MpPrio {
                backup,
                address_id: None,
            };
            if s.signal(prio) {
                cx.counters.inc(Counter::MPPrioTx);
            }
        }
    }

    /// MP_PRIO from the peer, about subflow `i` or all to its address `id`.
    pub(crate) fn on_prio(
        &mut self,
        cx: &mut Cx<'_>,
        i: usize,
        backup: bool,
        id: Option<AddressId>,
    ) {
        cx.counters.inc(Counter::MPPrioRx);
        if id.is_some() && !self.version.prio_names_addresses() {
            return;
        }
        let carrier = self.subflows[i].id;
        for s in &mut self.subflows {
            let meant = id.map_or(s.id == carrier, |id| s.remote_id() == id);
            if meant && s.backup_remote != backup {
                s.backup_remote = backup;
                cx.actions.events.push(Event::SubflowPriority {
                    token: self.id,
                    subflow: s.id,
                    backup,
                });
            }
        }
    }
}
