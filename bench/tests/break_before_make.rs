//! A connection that has lost its last subflow waits for a join, and no longer than
//! `subflowless-timeout`.

use std::time::Duration;

use braid_bench::sim::{Fault, HostConfig, LinkConfig, Outcomes, Role, Sim};
use braid_dataplane::counters::Counter;
use braid_dataplane::mptcp::CloseReason;
use braid_dataplane::worker::Order;

const CLIENT: usize = 0;
const SERVER: usize = 1;
const PORT: u16 = 9;
const BYTES: u64 = 4 << 20;
const LIMIT: Duration = Duration::from_secs(100);
const TIMEOUT: Duration = Duration::from_secs(10);

struct Net {
    sim: Sim,
    token: u32,
    client: Outcomes,
    server: Outcomes,
}

/// A transfer both ways on one 20 Mb/s link: two seconds' worth.
fn transfer() -> Net {
    let mut sim = Sim::new(1);
    for host in [CLIENT, SERVER] {
        let mut config = HostConfig::default();
        config.mptcp.subflowless_timeout = TIMEOUT;
        assert_eq!(sim.add_host(&config), host);
    }
    let link = LinkConfig {
        rate_bps: Some(20_000_000),
        ..LinkConfig::default()
    };
    sim.add_link(CLIENT, SERVER, link);
    let peer = Role::Peer { send: BYTES };
    let server = sim.host(SERVER).serve(&[(PORT, peer)]).remove(0);
    let (token, client) = sim.connect(CLIENT, 0, PORT, peer);
    Net {
        sim,
        token,
        client,
        server,
    }
}

impl Net {
    fn run_until(&mut self, at: Duration) {
        self.sim.run_until(at, |sim| sim.elapsed() >= at);
    }

    /// Ends the only subflow, by the FIN of the host that has `token`.
    fn cut(&mut self, host: usize, token: u32) {
        let now = self.sim.now();
        let engine = self.sim.host(host).engine();
        let conn = engine.connection(token).expect("it lives");
        let tuples: Vec<_> = conn.subflows().map(|(_, path)| path.tuple).collect();
        assert_eq!(tuples.len(), 1);
        engine
            .order(now, token, Order::CloseSubflow(tuples[0]))
            .expect("it closes");
        // An order is acted upon in the host's next turn.
        self.sim.poke(host);
    }

    fn server_token(&mut self) -> u32 {
        let now = self.sim.now();
        let conns = self.sim.host(SERVER).engine().conns(now, 0, 1);
        conns[0].1.token
    }

    fn subflows(&mut self, host: usize) -> usize {
        let now = self.sim.now();
        let conns = self.sim.host(host).engine().conns(now, 0, 1);
        conns.first().map_or(0, |c| c.1.subflows.len())
    }
}

/// The last subflow closes in the middle of the transfer, by either side; the client joins a
/// second later, and not a byte is lost.
#[test]
fn a_join_after_a_second_goes_on_where_the_last_subflow_ended() {
    for cutter in [CLIENT, SERVER] {
        let mut net = transfer();
        net.run_until(Duration::from_millis(500));
        let token = if cutter == CLIENT {
            net.token
        } else {
            net.server_token()
        };
        net.cut(cutter, token);
        net.run_until(Duration::from_millis(1_200));
        assert_eq!((net.subflows(CLIENT), net.subflows(SERVER)), (0, 0));
        let before = (net.client.get().received, net.server.get().received);
        assert!(before.0 > 0 && before.0 < BYTES && before.1 > 0 && before.1 < BYTES);
        let (client, server) = (net.client.clone(), net.server.clone());
        let done = net.sim.run_until(LIMIT, |_| {
            client.get().closed.is_some() && server.get().closed.is_some()
        });
        assert!(done);
        for outcome in [client.get(), server.get()] {
            assert_eq!((outcome.received, outcome.wrong_at), (BYTES, None));
            assert_eq!(outcome.closed, Some(CloseReason::Finished));
        }
        assert!(
            net.sim.elapsed() < Duration::from_secs(6),
            "one second was lost"
        );
        assert_eq!(net.sim.host(CLIENT).count(Counter::MPJoinSynTx), 1);
    }
}

/// Nobody comes through, though the client goes on trying: both sides give up, each after its
/// own timeout, and say why.
#[test]
fn without_a_join_both_sides_end_when_the_timeout_has_passed() {
    let mut net = transfer();
    let dead = Fault::Blackhole { link: 0, on: true };
    net.sim.at(Duration::from_millis(1_000), dead);
    net.run_until(Duration::from_millis(500));
    let token = net.token;
    net.cut(CLIENT, token);
    net.run_until(Duration::from_secs(9));
    assert_eq!(net.client.get().closed, None);
    assert_eq!(net.server.get().closed, None);
    net.run_until(Duration::from_secs(13));
    for (host, outcome) in [(CLIENT, net.client.get()), (SERVER, net.server.get())] {
        assert_eq!(
            outcome.closed,
            Some(CloseReason::Subflowless),
            "host {host}"
        );
        assert_eq!(net.sim.host(host).count(Counter::SubflowlessTimeout), 1);
        assert_eq!(net.sim.host(host).engine().connections(), 0);
        let frames = net.sim.host(host).frames();
        assert_eq!(frames.free, frames.total());
    }
    assert!(net.sim.host(CLIENT).count(Counter::MPJoinSynTx) > 1);
}
