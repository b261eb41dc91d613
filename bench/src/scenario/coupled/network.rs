//! Connections on a few links between one client and one server, with the subflows that a
//! scenario wants.

use std::time::Duration;

use braid_dataplane::tcp::CongestionKind;
use braid_dataplane::time::Instant;
use braid_dataplane::wire::types::AddressId;
use braid_dataplane::worker::Order;

use crate::sim::{EPOCH, HostConfig, LinkConfig, Role, Sim};

const CLIENT: usize = 0;
const SERVER: usize = 1;
/// Where the server reads whatever comes.
const SINK: u16 = 9;
/// More than any run carries.
const ENDLESS: u64 = 1 << 40;
/// Local ports of subflows that a scenario adds; below the hosts' own.
const PORT_MIN: u16 = 20_000;

/// A connection, by its token at the client.
#[derive(Copy, Clone, Debug)]
pub(super) struct Flow(u32);

/// Bytes of a flow that were acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Carried {
    /// At connection level.
    pub(super) goodput: u64,
    /// Over each link, resent data included.
    pub(super) per_link: Vec<u64>,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Network {
    sim: Sim,
    links: usize,
    next_port: u16,
}

impl Network {
    /// With `join`, each connection uses all links; otherwise it has the subflows it is given.
    pub(super) fn new(seed: u64, kind: CongestionKind, join: bool, links: Vec<LinkConfig>) -> Self {
        let mut config = HostConfig {
            join,
            frames: 4096,
            ..HostConfig::default()
        };
        config.mptcp.tcp.congestion = kind;
        let mut sim = Sim::new(seed);
        for host in [CLIENT, SERVER] {
            assert_eq!(sim.add_host(&config), host);
        }
        let count = links.len();
        for link in links {
            sim.add_link(CLIENT, SERVER, link);
        }
        sim.host(SERVER).serve(&[(SINK, Role::Peer { send: 0 })]);
        Self {
            sim,
            links: count,
            next_port: PORT_MIN,
        }
    }

    fn now(&self) -> Instant {
        Instant::default() + EPOCH + self.sim.elapsed()
    }

    /// A connection over `link` that has something to send at any time.
    pub(super) fn open(&mut self, link: usize) -> Flow {
        let role = Role::Peer { send: ENDLESS };
        Flow(self.sim.connect(CLIENT, link, SINK, role).0)
    }

    /// Adds a subflow to `flow` that takes the way of `other`.
    pub(super) fn add_subflow(&mut self, flow: Flow, other: Flow) {
        let now = self.now();
        let engine = self.sim.host(CLIENT).engine();
        let other = engine.connection(other.0).expect("open");
        let (_, path) = other.subflows().next().expect("has a subflow");
        let mut path = path.clone();
        path.tuple.local.set_port(self.next_port);
        path.local_id = AddressId(1);
        self.next_port += 1;
        engine
            .order(now, flow.0, Order::OpenSubflow(path))
            .expect("an established connection may be joined");
    }

    /// Lets time pass.
    pub(super) fn run_to(&mut self, after_start: Duration) {
        self.sim.run_until(after_start, |_| false);
    }

    /// What a flow has carried so far.
    pub(super) fn carried(&mut self, flow: Flow) -> Carried {
        let now = self.now();
        let engine = self.sim.host(CLIENT).engine();
        let info = engine.connection(flow.0).expect("open").info(now);
        assert!(info.closed_subflows.is_empty(), "{info:?}");
        let mut per_link = vec![0; self.links];
        for s in &info.subflows {
            per_link[usize::from(s.port)] += s.tcp.bytes_acked;
        }
        Carried {
            goodput: info.bytes_acked,
            per_link,
        }
    }
}
