//! ECN (RFC 3168) of whole MPTCP connections: marks instead of losses, what may be marked, and
//! boxes that meddle with the bits.

#[allow(dead_code, reason = "simulation.rs uses the rest")]
mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use braid_bench::sim::{Filter, LinkConfig};
use braid_dataplane::counters::Counter;
use braid_dataplane::tcp::EcnPolicy;
use common::{CLIENT, Net, SERVER};

const MIB: u64 = 1 << 20;
const IP: usize = 14;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// Where the TCP header of a frame starts.
fn tcp(frame: &[u8]) -> usize {
    IP + if frame[IP] >> 4 == 4 { 20 } else { 40 }
}

fn flags(frame: &[u8]) -> u8 {
    frame[tcp(frame) + 13]
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

fn payload_len(frame: &[u8]) -> usize {
    let at = tcp(frame);
    frame.len() - at - usize::from(frame[at + 12] >> 4) * 4
}

fn seq(frame: &[u8]) -> u32 {
    let at = tcp(frame) + 4;
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

fn ecn(frame: &[u8]) -> u8 {
    if frame[IP] >> 4 == 4 {
        frame[IP + 1] & 3
    } else {
        frame[IP + 1] >> 4 & 3
    }
}

/// Sets the ECN field, and the IPv4 header checksum with it.
fn set_ecn(frame: &mut [u8], value: u8) {
    if frame[IP] >> 4 == 4 {
        frame[IP + 1] = frame[IP + 1] & !3 | value;
        frame[IP + 10..IP + 12].fill(0);
        let mut sum: u32 = frame[IP..IP + 20]
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let sum = !u16::try_from(sum).unwrap();
        frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[IP + 1] = frame[IP + 1] & !0x30 | value << 4;
    }
}

/// Marks every `n`th packet that may be marked, or drops it.
fn congested(n: u64, drop: bool) -> Filter {
    let mut data = 0;
    Box::new(move |_, frame| {
        if payload_len(frame) == 0 {
            return true;
        }
        data += 1;
        if data % n != 0 {
            return true;
        }
        if ecn(frame) == ECT_0 {
            set_ecn(frame, CE);
        }
        !drop
    })
}

fn path(ipv6: bool, filter: Filter) -> LinkConfig {
    LinkConfig {
        ipv6,
        // Nothing but the filter may be in the way.
        queue_bytes: 1 << 30,
        filters: vec![filter],
        ..LinkConfig::default()
    }
}

fn net(seed: u64, links: Vec<LinkConfig>, client: EcnPolicy, server: EcnPolicy) -> Net {
    Net::with(seed, links, |host, config| {
        config.mptcp.tcp.ecn = if host == CLIENT { client } else { server };
    })
}

#[test]
fn a_path_that_marks_is_as_fast_as_one_that_drops_and_resends_nothing() {
    for ipv6 in [false, true] {
        let run = |policy, drop| {
            let mut net = net(
                1,
                vec![
                    path(ipv6, congested(200, drop)),
                    path(ipv6, congested(200, drop)),
                ],
                policy,
                EcnPolicy::Passive,
            );
            net.echo(20 * MIB).check();
            let time = net.sim.elapsed().as_secs_f64();
            let count = |net: &mut Net, counter| {
                net.sim.host(CLIENT).count(counter) + net.sim.host(SERVER).count(counter)
            };
            // MPTCPRetrans is no loss: the head of a window that still grows goes out twice.
            let resent =
                count(&mut net, Counter::RetransSegs) + count(&mut net, Counter::TCPTimeouts);
            let reduced = count(&mut net, Counter::TCPEcnReduced);
            for host in [CLIENT, SERVER] {
                let host = net.sim.host(host);
                // Two subflows each.
                let on = if policy == EcnPolicy::Always { 2 } else { 0 };
                assert_eq!(host.count(Counter::TCPEcnEstab), on);
                assert_eq!(host.count(Counter::InCEPkts) > 0, on > 0);
                assert_eq!(host.count(Counter::InECT0Pkts) > 0, on > 0);
                assert_eq!(host.count(Counter::TCPDeliveredCE) > 0, on > 0);
            }
            (time, resent, reduced)
        };
        let (dropping, lost, _) = run(EcnPolicy::Passive, true);
        let (marking, resent, reduced) = run(EcnPolicy::Always, false);
        assert!(lost > 0 && reduced > 10, "{lost} lost, {reduced} reduced");
        assert_eq!(resent, 0);
        assert!(
            marking < dropping * 1.05,
            "{marking} s, dropping {dropping} s"
        );
    }
}

/// What may carry ECT (RFC 3168 §6.1.1, §6.1.4 to §6.1.6), seen on the wire of a lossy path.
#[test]
fn only_new_data_is_marked_ect() {
    #[derive(Default)]
    struct Seen {
        new_data: u64,
        resent: u64,
        bare: u64,
        cwr: u64,
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let total = seen.clone();
    // By direction and ports, the sequence number that new data starts at.
    let mut next: HashMap<(usize, Vec<u8>), u32> = HashMap::new();
    let watch: Filter = Box::new(move |to, frame| {
        let at = tcp(frame);
        let key = (to, frame[at..at + 4].to_vec());
        let (first, len) = (seq(frame), u32::try_from(payload_len(frame)).unwrap());
        let mut seen = seen.lock().unwrap();
        if flags(frame) & SYN != 0 {
            next.insert(key, first.wrapping_add(1));
            assert_eq!(ecn(frame), 0, "a SYN");
            return true;
        }
        let expected = next.entry(key).or_insert(first);
        let new = len > 0 && first == *expected;
        if new {
            *expected = first.wrapping_add(len);
            seen.new_data += 1;
            assert_eq!(ecn(frame), ECT_0);
        } else {
            assert_eq!(ecn(frame), 0, "flags {:#x} length {len}", flags(frame));
            seen.resent += u64::from(len > 0);
            seen.bare += u64::from(len == 0);
        }
        if flags(frame) & CWR != 0 {
            assert!(new, "CWR on flags {:#x} length {len}", flags(frame));
            seen.cwr += 1;
        }
        true
    });
    let mut link = path(false, watch);
    link.filters.push(congested(100, true));
    let mut net = net(2, vec![link], EcnPolicy::Always, EcnPolicy::Passive);
    net.echo(4 * MIB).check();
    let seen = total.lock().unwrap();
    assert!(seen.new_data > 4000 && seen.resent > 20 && seen.bare > 100);
    assert!(seen.cwr > 5, "losses are announced, too: {}", seen.cwr);
}

/// J7: a box that clears the ECN field leaves a connection that never hears of marks.
#[test]
fn bleaching_costs_nothing_but_the_marks() {
    let bleach: Filter = Box::new(|_, frame| {
        set_ecn(frame, 0);
        true
    });
    let mut link = path(false, congested(100, false));
    link.filters.push(bleach);
    let mut net = net(3, vec![link], EcnPolicy::Always, EcnPolicy::Passive);
    net.echo(4 * MIB).check();
    for host in [CLIENT, SERVER] {
        let host = net.sim.host(host);
        assert_eq!(host.count(Counter::TCPEcnEstab), 1);
        assert_eq!(host.count(Counter::InCEPkts), 0);
        assert_eq!(host.count(Counter::TCPEcnReduced), 0);
    }
}

/// J7, the other way: a box that marks what never asked for it.
#[test]
fn marks_on_a_connection_without_ecn_change_nothing() {
    let mark: Filter = Box::new(|_, frame| {
        set_ecn(frame, CE);
        true
    });
    let mut net = net(
        4,
        vec![path(false, mark)],
        EcnPolicy::Passive,
        EcnPolicy::Passive,
    );
    net.echo(4 * MIB).check();
    for host in [CLIENT, SERVER] {
        let host = net.sim.host(host);
        assert!(host.count(Counter::InCEPkts) > 0);
        assert_eq!(host.count(Counter::TCPEcnEstab), 0);
        assert_eq!(host.count(Counter::TCPEcnReduced), 0);
    }
}

/// RFC 3168 §6.1.1.1: SYNs that ask vanish; the second one does not ask, and MPTCP survives.
#[test]
fn a_box_that_drops_syns_with_ecn_costs_one_second() {
    let drop: Filter = Box::new(|_, frame| flags(frame) & (SYN | ECE | CWR) != SYN | ECE | CWR);
    let mut net = net(
        5,
        vec![path(false, drop)],
        EcnPolicy::Always,
        EcnPolicy::Passive,
    );
    net.echo(MIB).check();
    let client = net.sim.host(CLIENT);
    assert_eq!(client.count(Counter::TCPEcnFallback), 1);
    assert_eq!(client.count(Counter::TCPEcnEstab), 0);
    assert_eq!(client.count(Counter::MPCapableSYNACKRX), 1, "still MPTCP");
    assert!(net.sim.elapsed().as_secs_f64() < 2.0);
}

/// A box that answers such SYNs by RST: the next one carries neither ECN nor MP_CAPABLE.
#[test]
fn a_refused_syn_is_repeated_plain() {
    let mut refused = false;
    let spoof: Filter = Box::new(move |to, frame| {
        // The SYN/ACK of the first attempt becomes a RST.
        if to == CLIENT && flags(frame) & ECE != 0 && flags(frame) & SYN != 0 {
            let at = tcp(frame);
            // RFC 1624: flags and data offset are one word of the checksum.
            let old = u16::from_be_bytes([frame[at + 12], frame[at + 13]]);
            frame[at + 13] = RST | 0x10;
            let new = u16::from_be_bytes([frame[at + 12], frame[at + 13]]);
            let sum = u16::from_be_bytes([frame[at + 16], frame[at + 17]]);
            let mut folded = u32::from(!sum) + u32::from(!old) + u32::from(new);
            while folded >> 16 != 0 {
                folded = (folded & 0xffff) + (folded >> 16);
            }
            let sum = !u16::try_from(folded).unwrap();
            frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
            refused = true;
        }
        // What the server still has of it must not get in the way.
        refused || to == SERVER || flags(frame) & SYN != 0
    });
    let mut net = net(
        6,
        vec![path(false, spoof)],
        EcnPolicy::Always,
        EcnPolicy::Passive,
    );
    let _ = net.echo(MIB);
    let client = net.sim.host(CLIENT);
    assert_eq!(client.count(Counter::TCPEcnFallback), 1);
    assert_eq!(client.count(Counter::MPCapableSYNTXDrop), 1);
}
