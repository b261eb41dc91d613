//! Services: which SYN starts a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Engine, Slot, cx};
use crate::buf::Chain;
use crate::counters::Counter;
use crate::mptcp::{Application, Connection, Cx, FastOpenSyn, OpenError, SubflowPath, TxSink};
use crate::tcp::CookieVerdict;
use crate::time::Instant;
use crate::wire::packet::TcpPacket;
use crate::wire::types::Token;

/// A SYN's data is taken only while less than one part in so many of the backlog is half-open.
const FAST_OPEN_SHARE: u32 = 4;

/// A service: where it listens and what it makes of a stream.
pub struct Service<A> {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Addresses; an unspecified one matches every address of its family.
    pub listen: Vec<SocketAddr>,
    /// Half-open connections at the most.
    pub backlog: u32,
    /// A fresh application for a new connection.
    pub make: Box<dyn Fn() -> A + Send>,
    /// Half-open connections now.
    pub(super) half_open: u32,
}

impl<A> Service<A> {
    /// A service without connections.
    #[must_use]
    pub fn new(
        name: &str,
        listen: Vec<SocketAddr>,
        backlog: u32,
        make: Box<dyn Fn() -> A + Send>,
    ) -> Self {
        Self {
            name: Arc::from(name),
            listen,
            backlog,
            make,
            half_open: 0,
        }
    }

    pub(super) fn listens_on(&self, local: SocketAddr) -> bool {
        self.listen.iter().any(|a| {
            a.port() == local.port()
                && (a.ip() == local.ip()
                    || (a.ip().is_unspecified()
                        && matches!(
                            (a.ip(), local.ip()),
                            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_))
                        )))
        })
    }
}

impl<A> std::fmt::Debug for Service<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// What became of a SYN.
pub(super) enum Syn {
    /// A connection is being opened.
    Accepted,
    /// Dropped silently: the peer tries again.
    Dropped,
    /// The backlog is full: to be answered without keeping anything.
    Stateless,
    /// Nobody listens: answer with RST.
    Refused,
}

impl<A: Application> Engine<A> {
    /// Replaces the services. Connections of services that are gone live on.
    pub fn set_services(&mut self, services: Vec<Service<A>>) {
        let old = std::mem::replace(&mut self.services, services);
        let moved = |index: u16| {
            let name = &old[usize::from(index)].name;
            self.services.iter().position(|s| s.name == *name)
        };
        let mut half_open = vec![0u32; self.services.len()];
        for slot in self.slots.iter_mut().flatten() {
            slot.service = slot.service.and_then(moved).map(|i| {
                if slot.half_open {
                    half_open[i] += 1;
                }
                u16::try_from(i).expect("services are counted in u16")
            });
        }
        for (service, n) in self.services.iter_mut().zip(half_open) {
            service.half_open = n;
        }
    }

    /// A SYN for no known flow and without MP_JOIN.
    pub(super) fn on_syn(
        &mut self,
        now: Instant,
        path: &SubflowPath,
        syn: &TcpPacket,
        payload: Chain,
    ) -> Syn {
        let Some(index) = self
            .services
            .iter()
            .position(|s| s.listens_on(syn.tuple.local))
        else {
            self.counters.inc(Counter::NoListener);
            return Syn::Refused;
        };
        if self.draining {
            return Syn::Refused;
        }
        let service = &self.services[index];
        if service.half_open >= service.backlog {
            if self.config.mptcp.syn_cookies {
                return Syn::Stateless;
            }
            self.counters.inc(Counter::ListenOverflows);
            return Syn::Dropped;
        }
        if self.pressure || self.live >= self.config.connections_max {
            self.counters.inc(Counter::MemoryPressureRefused);
            return Syn::Dropped;
        }
        if self.flows.is_full() {
            self.counters.inc(Counter::FlowTableFull);
            return Syn::Dropped;
        }
        let many = service.half_open >= service.backlog.div_ceil(FAST_OPEN_SHARE);
        let name = service.name.clone();
        let app = (service.make)();
        let fast_open = self.fast_open(now, syn, payload, many);
        let tokens = &self.tokens;
        let in_use = |token: Token| tokens.contains_key(&token.0);
        let accepted = Connection::accept_fast_open(
            &mut cx!(self, now),
            path.clone(),
            syn,
            fast_open,
            app,
            in_use,
        );
        let conn = match accepted {
            Ok(conn) => conn,
            Err(OpenError::SynIgnored) => return Syn::Dropped,
            // Both addresses come from one packet, so they are of one family.
            Err(_) => return Syn::Refused,
        };
        let service = u16::try_from(index).expect("services are counted in u16");
        let slot = self.adopt(Box::new(conn), Some(service), name);
        self.touched(now, slot);
        Syn::Accepted
    }

    /// What a SYN's Fast Open option and data are worth (RFC 7413 §4.2.1).
    fn fast_open(
        &mut self,
        now: Instant,
        syn: &TcpPacket,
        payload: Chain,
        many: bool,
    ) -> FastOpenSyn {
        let (Some(key), Some(cookie)) = (&self.fast_open_key, &syn.options.fast_open) else {
            return FastOpenSyn::default();
        };
        let fresh = Some(key.cookie(now, &syn.tuple));
        let counters = &mut self.counters;
        if cookie.is_request() {
            counters.inc(Counter::TCPFastOpenCookieReqd);
            return FastOpenSyn {
                data: Chain::new(),
                grant: fresh,
            };
        }
        let grant = match key.judge(now, &syn.tuple, cookie) {
            CookieVerdict::Valid => None,
            CookieVerdict::Aging => fresh,
            CookieVerdict::Invalid => {
                counters.inc(Counter::TCPFastOpenPassiveFail);
                return FastOpenSyn {
                    data: Chain::new(),
                    grant: fresh,
                };
            }
        };
        if many {
            // RFC 7413 §5.1: a cookie proves an address only once; under a flood no work is
            // done before the handshake.
            counters.inc(Counter::TCPFastOpenListenOverflow);
            return FastOpenSyn::default();
        }
        FastOpenSyn {
            data: payload,
            grant,
        }
    }

    /// A SYN with MP_JOIN whose token is ours to know.
    pub(super) fn on_join<S: TxSink>(
        &mut self,
        now: Instant,
        path: SubflowPath,
        syn: &TcpPacket,
        token: u32,
        from: Option<u16>,
        sink: &mut S,
    ) {
        let tuple = syn.tuple;
        let Some(&index) = self.tokens.get(&token) else {
            self.counters.inc(Counter::MPJoinSynRx);
            self.counters.inc(Counter::MPJoinNoTokenFound);
            // RFC 8684 §3.2: unknown token, RST; reason 1, MPTCP-specific error.
            self.refuse(path.port, syn, Some(1), sink);
            return;
        };
        if self.flows.is_full() {
            // Without its flow the subflow would never hear a thing.
            self.counters.inc(Counter::FlowTableFull);
            return;
        }
        if self.joins_pending >= self.config.joins_pending_max {
            // Dropped, not refused: the true peer tries again.
            self.counters.inc(Counter::MPJoinPendingOverflow);
            return;
        }
        let slot: &mut Slot<A> = self.slots[index as usize]
            .as_mut()
            .expect("token of a live slot");
        match slot
            .conn
            .accept_join(&mut cx!(self, now), path.clone(), syn)
        {
            Ok(_) => {
                // One that gave way may be among them.
                let pending = slot.conn.joins_pending();
                self.joins_pending = self.joins_pending + pending - slot.joins_pending;
                slot.joins_pending = pending;
                if let Some(worker) = from {
                    self.route(index, tuple, Some(worker));
                }
            }
            Err(reject) => {
                let reason = slot.conn.reset_reason(reject);
                self.counters.inc(Counter::MPJoinRejected);
                self.refuse(path.port, syn, reason, sink);
            }
        }
        self.touched(now, index);
    }
}
