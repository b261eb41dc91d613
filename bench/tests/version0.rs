//! MPTCP version 0 (RFC 6824) between whole engines on simulated networks, and which version
//! two hosts agree on. What is on the wire is read byte by byte here, not by the code under
//! test.

#[allow(dead_code, reason = "shared with tests that use the rest")]
mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use braid_bench::sim::{EPOCH, Filter, HostConfig, LinkConfig, Role};
use braid_dataplane::counters::Counter;
use braid_dataplane::io::PortId;
use braid_dataplane::mptcp::{ChecksumPolicy, CloseReason, Event, SubflowPath, Version};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::time::Instant;
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::types::{AddressId, FourTuple};
use braid_dataplane::worker::Order;
use common::{CLIENT, ECHO, Net, SERVER, fix_checksum};

const MIB: u64 = 1 << 20;
/// Ethernet and IPv4 without options.
const TCP: usize = 14 + 20;

/// An MPTCP option as it passed.
#[derive(Clone, Debug)]
struct Passed {
    to: usize,
    flags: u8,
    option: Vec<u8>,
}

impl Passed {
    fn subtype(&self) -> u8 {
        self.option[2] >> 4
    }

    /// Beside the subtype: the version of MP_CAPABLE, IPVer of ADD_ADDR.
    fn nibble(&self) -> u8 {
        self.option[2] & 0x0f
    }
}

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Passed>>>);

impl Log {
    fn all(&self) -> Vec<Passed> {
        self.0.lock().unwrap().clone()
    }

    fn of(&self, subtype: u8) -> Vec<Passed> {
        let mut all = self.all();
        all.retain(|p| p.subtype() == subtype);
        all
    }

    /// Writes down every MPTCP option.
    fn filter(&self) -> Filter {
        let log = self.clone();
        Box::new(move |to, packet| {
            each_option(packet, |flags, option| {
                let option = option.to_vec();
                log.0.lock().unwrap().push(Passed { to, flags, option });
            });
            true
        })
    }
}

/// Calls `visit` with the flags and each MPTCP option, whole, of an IPv4 packet.
fn each_option(packet: &mut [u8], mut visit: impl FnMut(u8, &mut [u8])) {
    let flags = packet[TCP + 13];
    let end = TCP + usize::from(packet[TCP + 12] >> 4) * 4;
    let mut at = TCP + 20;
    while at < end {
        match packet[at] {
            0 => return,
            1 => at += 1,
            kind => {
                let len = usize::from(packet[at + 1]);
                if kind == 30 {
                    visit(flags, &mut packet[at..at + len]);
                }
                at += len;
            }
        }
    }
}

fn lossy() -> LinkConfig {
    LinkConfig {
        rate_bps: Some(30_000_000),
        loss: 0.01,
        jitter: Duration::from_millis(1),
        ..LinkConfig::default()
    }
}

/// Two paths, watched; the client offers `offered`.
fn net(
    seed: u64,
    offered: Version,
    allowed: bool,
    link: fn() -> LinkConfig,
    configure: impl Fn(usize, &mut HostConfig),
) -> (Net, Log) {
    let log = Log::default();
    let links = (0..2)
        .map(|_| {
            let mut link = link();
            link.filters.push(log.filter());
            link
        })
        .collect();
    let net = Net::with(seed, links, |host, config| {
        config.mptcp.connect_version = offered;
        config.mptcp.allow_v0 = allowed;
        configure(host, config);
    });
    (net, log)
}

/// Version and length of every MP_CAPABLE on SYN, SYN/ACK and later, in this order, once each.
fn capable_forms(log: &Log) -> Vec<(u8, usize)> {
    let (syn, ack) = (0x02, 0x10);
    let mut forms = Vec::new();
    for kind in [syn, syn | ack, ack] {
        for p in log.of(0) {
            let form = (p.nibble(), p.option.len());
            if p.flags & (syn | ack) == kind && !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

#[test]
fn two_lossy_paths_carry_a_stream_both_ways() {
    use ChecksumPolicy::{Always, IfRequested};
    for (seed, client, server) in [
        (1, IfRequested, IfRequested),
        (2, Always, IfRequested),
        (3, IfRequested, Always),
    ] {
        let (mut net, log) = net(seed, Version::V0, true, lossy, |host, config| {
            config.mptcp.checksum = if host == CLIENT { client } else { server };
        });
        net.echo(8 * MIB).check();
        // The SYN/ACK's form is the SYN's; no MP_CAPABLE goes with data.
        assert_eq!(capable_forms(&log), [(0, 12), (0, 20)]);
        for link in 0..2 {
            let sent = net.sim.link(link).sent_bytes;
            assert!(sent.iter().all(|b| *b > MIB), "link {link}: {sent:?}");
        }
        let checksums = client == Always || server == Always;
        let events = &net.sim.host(SERVER).events;
        assert!(events.iter().any(|e| matches!(
            e,
            Event::Established { mptcp: true, checksum, .. } if *checksum == checksums
        )));
        let joined = |e: &Event| matches!(e, Event::SubflowEstablished { .. });
        assert!(events.iter().any(joined));
        for host in [CLIENT, SERVER] {
            let host = net.sim.host(host);
            assert_eq!(host.count(Counter::DataCsumErr), 0);
            assert_eq!(host.count(Counter::MPRstTx), 0);
        }
    }
}

#[test]
fn hosts_that_know_both_versions_speak_the_newer() {
    let (mut net, log) = net(4, Version::V1, true, lossy, |_, _| {});
    net.echo(2 * MIB).check();
    let forms = capable_forms(&log);
    assert_eq!(forms[..2], [(1, 4), (1, 12)]);
    assert!(forms.iter().all(|(version, _)| *version == 1), "{forms:?}");
    assert!((0..2).all(|link| net.sim.link(link).sent_bytes[0] > MIB / 4));
}

#[test]
fn a_server_that_does_not_allow_version_0_answers_as_tcp() {
    let (mut net, log) = net(5, Version::V0, false, lossy, |_, _| {});
    net.echo(2 * MIB).check();
    let toward_client = log.all().iter().filter(|p| p.to == CLIENT).count();
    assert_eq!(toward_client, 0, "the server says nothing of MPTCP");
    let client = net.sim.host(CLIENT);
    assert_eq!(client.count(Counter::MPCapableFallbackSYNACK), 1);
    assert_eq!(net.sim.link(1).sent_bytes, [0, 0]);
}

/// What the path manager does with an ADD_ADDR: the server's end of link 1 is announced on
/// link 0, and joined.
#[test]
fn an_announced_address_is_joined() {
    let announced: IpAddr = "10.77.1.2".parse().unwrap();
    let (mut net, log) = net(6, Version::V0, true, lossy, |host, config| {
        config.join = false;
        if host == SERVER {
            config.announce = vec![(AddressId(5), announced)];
        }
    });
    let bytes = 8 * MIB;
    let (token, client) = net.sim.connect(CLIENT, 0, ECHO, Role::Peer { send: bytes });
    let mut joins = 0;
    let done = net.sim.run_until(Duration::from_secs(60), |sim| {
        let now = Instant::default() + EPOCH + sim.elapsed();
        let host = sim.host(CLIENT);
        let address = host.events.iter().find_map(|e| match e {
            Event::Announced { address, .. } => Some(*address),
            _ => None,
        });
        if joins == 0
            && let Some(address) = address
        {
            let path = path_over_link_1(address);
            let order = Order::OpenSubflow(path);
            host.engine().order(now, token, order).unwrap();
            joins += 1;
        }
        client.get().closed.is_some()
    });
    let outcome = client.get();
    assert!(done, "{outcome:?}");
    assert_eq!((outcome.received, outcome.wrong_at), (bytes, None));
    assert!(net.sim.link(1).sent_bytes.iter().all(|b| *b > MIB));
    for p in log.of(3) {
        assert_eq!(p.option[..4], [30, 8, 0x34, 5]);
        assert_eq!(p.option[4..], [10, 77, 1, 2]);
        assert_eq!(p.to, CLIENT, "no echo");
    }
    // The SYN/ACK of the join bears the identifier of the announcement.
    let answer = log.of(1).into_iter().find(|p| p.to == CLIENT).unwrap();
    assert_eq!(answer.option[3], 5);
}

/// The client's second address to `remote`, both on link 1.
fn path_over_link_1(remote: IpAddr) -> SubflowPath {
    SubflowPath {
        port: PortId(1),
        l2: L2Header {
            dst: EthernetAddress([2, 0, 0, 0, 1, 1]),
            src: EthernetAddress([2, 0, 0, 0, 1, 0]),
            vlan: Default::default(),
        },
        tuple: FourTuple {
            local: "10.77.1.1:50000".parse().unwrap(),
            remote: SocketAddr::new(remote, ECHO),
        },
        mtu: 1500,
        local_id: AddressId(2),
        remote_id: AddressId(0),
        backup: false,
    }
}

#[test]
fn an_abort_reaches_the_other_side_without_options_on_resets() {
    let (mut net, log) = net(7, Version::V0, true, LinkConfig::default, |_, _| {});
    let (token, outcome) = net
        .sim
        .connect(CLIENT, 0, ECHO, Role::Peer { send: 100 * MIB });
    net.sim.run_until(Duration::from_secs(1), |_| false);
    assert!(net.sim.link(1).sent_bytes[0] > 0, "joined");
    net.abort(token);
    net.sim.run_until(Duration::from_secs(10), |_| false);
    assert_eq!(outcome.get().closed, Some(CloseReason::LocalAbort));
    assert_eq!(net.sim.host(SERVER).engine().connections(), 0);
    assert_eq!(net.sim.host(SERVER).count(Counter::MPFastcloseRx), 1);
    assert!(!log.of(7).is_empty());
    let rst = 0x04;
    assert!(log.all().iter().all(|p| p.flags & rst == 0));
    net.check_frames();
}

/// A box that spoils one DSS checksum, not the payload: the stream goes on as TCP and is right.
#[test]
fn a_wrong_checksum_on_the_only_path_ends_mptcp_and_no_byte_is_lost() {
    // What is shared with version 1 is shown for version 1, too.
    for (version, toward) in [
        (Version::V0, CLIENT),
        (Version::V0, SERVER),
        (Version::V1, CLIENT),
        (Version::V1, SERVER),
    ] {
        let log = Log::default();
        let mut link = LinkConfig::default();
        // Of the 100th mapping, in every segment that it is on: the first one counts.
        let (mut mappings, mut last, mut victim) = (0, Vec::new(), None);
        link.filters.push(Box::new(move |to, packet| {
            let mut spoiled = false;
            each_option(packet, |_, option| {
                // A DSS with both numbers of 8 bytes and a checksum.
                if to != toward || option.len() != 28 || option[2] != 0x20 {
                    return;
                }
                let mapping = option[12..26].to_vec();
                mappings += u32::from(mapping != last);
                if mappings == 100 {
                    victim.get_or_insert(mapping.clone());
                }
                if victim.as_ref() == Some(&mapping) {
                    option[27] ^= 1;
                    spoiled = true;
                }
                last = mapping;
            });
            if spoiled {
                fix_checksum(packet, 14, TCP);
            }
            true
        }));
        link.filters.push(log.filter());
        let mut net = Net::with(8, vec![link], |_, config| {
            config.mptcp.connect_version = version;
            config.mptcp.allow_v0 = true;
            config.mptcp.checksum = ChecksumPolicy::Always;
        });
        net.echo(2 * MIB).check();
        assert_eq!(net.sim.host(toward).count(Counter::DataCsumErr), 1);
        assert!(net.sim.host(1 - toward).count(Counter::MPFailRx) > 0);
        // MP_FAIL both ways (RFC 6824 §3.6, RFC 8684 §3.7).
        let fails = log.of(6);
        for host in [CLIENT, SERVER] {
            assert!(
                fails.iter().any(|p| p.to == host),
                "{version:?}, spoilt toward {toward}, none toward {host}: {fails:?} {:?}",
                net.sim.host(host).counters()
            );
        }
    }
}

/// A joined path whose checksums are wrong is reset with MP_FAIL, the data survive on the other.
#[test]
fn wrong_checksums_on_a_joined_path_cost_that_path() {
    let log = Log::default();
    let mut second = LinkConfig::default();
    let mut spoilt = 0;
    second.filters.push(Box::new(move |to, packet| {
        let mut spoiled = false;
        each_option(packet, |_, option| {
            if to == SERVER && option[2] == 0x20 && option[3] & 0x04 != 0 && spoilt < 3 {
                *option.last_mut().unwrap() ^= 1;
                spoiled = true;
                spoilt += 1;
            }
        });
        if spoiled {
            fix_checksum(packet, 14, TCP);
        }
        true
    }));
    second.filters.push(log.filter());
    let mut net = Net::with(9, vec![LinkConfig::default(), second], |_, config| {
        config.mptcp.connect_version = Version::V0;
        config.mptcp.allow_v0 = true;
        config.mptcp.checksum = ChecksumPolicy::Always;
    });
    net.echo(4 * MIB).check();
    assert!(net.sim.host(SERVER).count(Counter::DataCsumErr) > 0);
    let rst = 0x04;
    let on_resets: Vec<_> = log
        .all()
        .into_iter()
        .filter(|p| p.flags & rst != 0)
        .collect();
    assert!(!on_resets.is_empty());
    assert!(on_resets.iter().all(|p| p.subtype() == 6), "{on_resets:?}");
    let events = &net.sim.host(CLIENT).events;
    let fell_back = |e: &Event| matches!(e, Event::FellBack { .. });
    assert!(!events.iter().any(fell_back));
}
