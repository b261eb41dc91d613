//! How often a payload byte is touched between the network and the application.
//!
//! In: read once, for the checksum, and copied never; the application looks at the frame
//! itself. Out: written once, the sum taken in the same pass. What is sent again is sent
//! from where it lies; only a frame that has no room for other headers is copied, once.

#[allow(dead_code, reason = "simulation.rs uses the rest")]
mod common;

use std::time::Duration;

use braid_bench::sim::{Fault, HostConfig, LinkConfig, Role};
use braid_dataplane::counters::Counter;
use braid_dataplane::mptcp::ChecksumPolicy;
use common::{CLIENT, Net, SERVER};

const SINK: u16 = 9;
const BYTES: u64 = 4 << 20;
/// Longest payload of a frame.
const MSS_MAX: u64 = 1460;

/// `BYTES` from the client to the server, and the end of the connection.
fn upload(
    seed: u64,
    links: Vec<LinkConfig>,
    configure: impl Fn(usize, &mut HostConfig),
    faults: &[(Duration, Fault)],
) -> Net {
    let mut net = Net::with(seed, links, configure);
    net.sim
        .host(SERVER)
        .serve(&[(SINK, Role::Peer { send: 0 })]);
    for (at, fault) in faults {
        net.sim.at(*at, *fault);
    }
    let (_, client) = net.sim.connect(CLIENT, 0, SINK, Role::Peer { send: BYTES });
    let done = net.sim.run_until(Duration::from_secs(600), |sim| {
        client.get().closed.is_some() && sim.host(SERVER).engine().connections() == 0
    });
    assert!(done, "the transfer did not end");
    assert_eq!(net.sim.host(SERVER).count(Counter::BytesDelivered), BYTES);
    assert_eq!(net.sim.host(CLIENT).count(Counter::BytesTaken), BYTES);
    net.check_frames();
    net
}

fn checksum(policy: ChecksumPolicy) -> impl Fn(usize, &mut HostConfig) {
    move |_, config| config.mptcp.checksum = policy
}

fn recopies(net: &mut Net) -> u64 {
    let client = net.sim.host(CLIENT);
    let reasons = [
        Counter::TxRecopyInFlight,
        Counter::TxRecopyHeaderClass,
        Counter::TxRecopyMss,
    ];
    reasons.map(|reason| client.count(reason)).iter().sum()
}

#[test]
fn each_byte_is_touched_once_on_each_side() {
    for policy in [ChecksumPolicy::Never, ChecksumPolicy::Always] {
        for paths in [1, 2] {
            let links = (0..paths).map(|_| LinkConfig::default()).collect();
            let mut net = upload(1, links, checksum(policy), &[]);
            let client = net.sim.host(CLIENT);
            assert_eq!(client.count(Counter::TxBytesTouched), BYTES, "{policy:?}");
            let server = net.sim.host(SERVER);
            // The DSS checksum is made of the same sums: it reads nothing.
            // With two paths some segments come twice, while the window grows.
            let twice = BYTES / 100 * (paths - 1);
            let read = server.count(Counter::RxBytesTouched);
            assert!(
                (BYTES..=BYTES + twice).contains(&read),
                "{policy:?}: {read}"
            );
            assert_eq!(server.count(Counter::DataCsumErr), 0);
            assert_eq!(recopies(&mut net), 0);
        }
    }
}

#[test]
fn what_is_sent_again_is_not_touched_again() {
    for policy in [ChecksumPolicy::Never, ChecksumPolicy::Always] {
        let lossy = LinkConfig {
            loss: 0.02,
            ..LinkConfig::default()
        };
        let mut net = upload(2, vec![lossy], checksum(policy), &[]);
        let client = net.sim.host(CLIENT);
        assert!(client.count(Counter::RetransSegs) > 20, "{policy:?}");
        assert_eq!(client.count(Counter::TxBytesTouched), BYTES, "{policy:?}");
        assert_eq!(recopies(&mut net), 0);
        // The receiver reads what arrives, the few bytes that arrive twice as well.
        let server = net.sim.host(SERVER);
        let read = server.count(Counter::RxBytesTouched);
        assert!((BYTES..BYTES + BYTES / 50).contains(&read), "{read}");
    }
}

#[test]
fn reinjection_with_other_headers_copies_once() {
    let slow = |ipv6| LinkConfig {
        ipv6,
        rate_bps: Some(20_000_000),
        ..LinkConfig::default()
    };
    let dark = Fault::Blackhole { link: 0, on: true };
    let faults = [(Duration::from_millis(500), dark)];
    let mut net = upload(3, vec![slow(false), slow(true)], |_, _| {}, &faults);
    let copies = recopies(&mut net);
    let client = net.sim.host(CLIENT);
    let again = client.count(Counter::MPTCPRetrans);
    let touched = client.count(Counter::TxBytesTouched);
    // The other family's segments are shorter, too, so most are cut in two.
    assert_eq!(client.count(Counter::TxRecopyInFlight), 0);
    assert!(copies > 0 && copies <= 2 * again, "{copies} of {again}");
    assert!(
        touched > BYTES && touched <= BYTES + copies * MSS_MAX,
        "{touched}"
    );
}

#[test]
fn reinjection_with_like_headers_hardly_copies() {
    let slow = || LinkConfig {
        rate_bps: Some(20_000_000),
        ..LinkConfig::default()
    };
    let dark = Fault::Blackhole { link: 0, on: true };
    let faults = [(Duration::from_millis(500), dark)];
    let mut net = upload(4, vec![slow(), slow()], |_, _| {}, &faults);
    let copies = recopies(&mut net);
    let client = net.sim.host(CLIENT);
    let again = client.count(Counter::MPTCPRetrans);
    let touched = client.count(Counter::TxBytesTouched);
    // But for a few that are cut to what the window lets through.
    assert!(copies <= again / 10, "{copies} of {again}");
    assert!(touched <= BYTES + copies * MSS_MAX, "{touched}");
    assert_eq!(client.count(Counter::TxRecopyHeaderClass), 0);
}
