//! What a connection announces by itself.

use std::net::IpAddr;

use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::types::AddressId;

const LIMIT: Duration = Duration::from_secs(300);

fn announcement(id: u8, address: IpAddr, port: Option<u16>) -> Announcement {
    Announcement { id, address, port }
}

/// What `host` heard of, as `(id, address, port)`.
fn heard(net: &Net, host: usize) -> Vec<Announcement> {
    let announced = |e: &Event| match *e {
        Event::Announced {
            address_id,
            address,
            port,
            ..
        } => Some(announcement(address_id, address, port)),
        _ => None,
    };
    net.hosts[host]
        .events
        .iter()
        .filter_map(announced)
        .collect()
}

/// What `host` says that it announced when it was established.
fn told(net: &Net, host: usize) -> Vec<Announcement> {
    let told = |e: &Event| match e {
        Event::Established { announced, .. } => Some(announced.clone()),
        _ => None,
    };
    net.hosts[host].events.iter().find_map(told).unwrap()
}

/// Nobody has to order it, and who decides about paths hears what was said: the initial address
/// not, but for another port of it.
#[test]
fn configured_addresses_are_announced_once_by_either_side() {
    for host in [CLIENT, SERVER] {
        let mut net = Net::new(31, vec![PathConfig::default()]);
        let initial = address(host, 0, false, 0).ip();
        let own_port = [CLIENT_PORT, SERVER_PORT][host];
        let others = [
            announcement(4, initial, Some(8080)),
            announcement(5, IpAddr::from([10, 9, 9, 5]), None),
            announcement(6, "fd00::6".parse().unwrap(), Some(8081)),
        ];
        let mut all = vec![
            announcement(1, initial, None),
            announcement(2, initial, Some(own_port)),
        ];
        all.extend(others);
        net.hosts[host].config.announcements = all.into();
        net.start(TestApp::sender(1, 200_000), TestApp::sender(2, 200_000));
        net.run_for(Duration::from_secs(3));
        assert_eq!(told(&net, host), others);
        assert_eq!(heard(&net, 1 - host), others);
        assert_eq!(told(&net, 1 - host), []);
        let count = |counter| net.hosts[host].count(counter);
        assert_eq!((count(Counter::AddAddrTx), count(Counter::EchoAdd)), (3, 3));
        net.complete(LIMIT);
    }
}

/// Each waits for the echo of the one before, and can be withdrawn like any other.
#[test]
fn configured_addresses_go_out_one_by_one_and_are_withdrawn() {
    let mut net = Net::new(32, vec![PathConfig::default()]);
    let [one, two] = [1, 2].map(|id| announcement(id, IpAddr::from([10, 9, 9, id]), None));
    net.hosts[SERVER].config.announcements = [one, two].into();
    let mut app = TestApp::sender(1, 1000);
    app.hold = true;
    net.start(app, TestApp::sender(2, 1000));
    net.run_until(LIMIT, |net| net.hosts[SERVER].count(Counter::AddAddrTx) > 0);
    let sent = |net: &Net| net.hosts[SERVER].count(Counter::AddAddrTx);
    assert_eq!((told(&net, SERVER), sent(&net)), (vec![one, two], 1));
    assert_eq!(net.hosts[SERVER].info(net.now).announced, [one, two]);
    net.run_for(Duration::from_millis(50));
    assert_eq!((heard(&net, CLIENT), sent(&net)), (vec![one, two], 2));
    net.with(SERVER, |conn, cx| {
        conn.remove_addresses(cx, &[AddressId(1)])
    });
    net.run_for(Duration::from_millis(50));
    assert_eq!(net.hosts[CLIENT].count(Counter::RmAddr), 1);
    assert_eq!(net.hosts[SERVER].info(net.now).announced, [two]);
}

/// Whoever does not speak MPTCP is told nothing.
#[test]
fn a_connection_that_is_tcp_announces_nothing() {
    let mut net = Net::new(33, vec![PathConfig::default()]);
    net.hosts[CLIENT].config.enabled = false;
    let one = announcement(1, IpAddr::from([10, 9, 9, 1]), None);
    net.hosts[SERVER].config.announcements = [one].into();
    net.start(TestApp::sender(1, 1000), TestApp::sender(2, 1000));
    net.complete(LIMIT);
    assert_eq!(told(&net, SERVER), []);
    assert_eq!(net.hosts[SERVER].count(Counter::AddAddrTx), 0);
}
