//! Urgent pointers (catalogue J6): whatever arrives in URG and pointer, and however boxes set,
//! move and clear them, every byte is delivered in its place; nothing we send is urgent.

#[allow(dead_code, reason = "simulation.rs uses the rest")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use braid_bench::sim::{Filter, LinkConfig};
use braid_dataplane::counters::Counter;
use braid_dataplane::mptcp::ChecksumPolicy;
use common::{CLIENT, Net, SERVER, strip_mptcp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MIB: u64 = 1 << 20;
const URG: u8 = 0x20;

/// Replaces the 16-bit word at `at` of the TCP header, and the checksum by RFC 1624.
fn replace(frame: &mut [u8], tcp: usize, at: usize, new: u16) {
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (old, sum) = (word(frame, tcp + at), word(frame, tcp + 16));
    let mut folded = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while folded >> 16 != 0 {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    frame[tcp + at..tcp + at + 2].copy_from_slice(&new.to_be_bytes());
    frame[tcp + 16..tcp + 18].copy_from_slice(&(!u16::try_from(folded).unwrap()).to_be_bytes());
}

/// Makes half of all segments urgent, each transmission by its own dice: so some are
/// retransmitted with URG cleared, and some the other way round. Counts those with data.
fn urge(seed: u64, count: Arc<AtomicU64>) -> Filter {
    let mut rng = StdRng::seed_from_u64(seed);
    Box::new(move |_, frame| {
        let tcp = 14 + if frame[14] >> 4 == 4 { 20 } else { 40 };
        let header = usize::from(frame[tcp + 12] >> 4) * 4;
        let payload = u16::try_from(frame.len() - tcp - header).unwrap();
        assert_eq!(frame[tcp + 13] & URG, 0, "we sent URG");
        assert_eq!(frame[tcp + 18..tcp + 20], [0; 2], "we sent a pointer");
        // SYNs are left alone: urgent SYNs are somebody else's test.
        if frame[tcp + 13] & 2 == 0 && rng.random_bool(0.5) {
            let pointer = match rng.random_range(0..6) {
                0 => 0,
                1 => rng.random_range(0..=payload),
                2 => payload,
                3 => payload + 1,
                4 => 0xffff,
                _ => rng.random(),
            };
            let word = u16::from_be_bytes([frame[tcp + 12], frame[tcp + 13] | URG]);
            replace(frame, tcp, 12, word);
            replace(frame, tcp, 18, pointer);
            count.fetch_add(u64::from(payload > 0), Ordering::Relaxed);
        }
        true
    })
}

/// Drops every `n`th packet, whatever it is, behind the other filters.
fn every(n: u64) -> Filter {
    let mut seen = 0;
    Box::new(move |_, _| {
        seen += 1;
        seen % n != 0
    })
}

fn link(seed: u64, count: &Arc<AtomicU64>) -> LinkConfig {
    LinkConfig {
        filters: vec![urge(seed, count.clone()), every(97)],
        ..LinkConfig::default()
    }
}

fn checked(links: Vec<LinkConfig>, checksum: ChecksumPolicy) -> Net {
    Net::with(1, links, |_, config| config.mptcp.checksum = checksum)
}

#[test]
fn urgent_bytes_stay_in_their_mapping() {
    for checksum in [ChecksumPolicy::Always, ChecksumPolicy::Never] {
        for paths in 1..=2 {
            let urgent = Arc::new(AtomicU64::new(0));
            let links = (0..paths).map(|i| link(i, &urgent)).collect();
            let mut net = checked(links, checksum);
            net.echo(4 * MIB).check();
            assert!(urgent.load(Ordering::Relaxed) > 1000);
            let mut seen = 0;
            for host in [CLIENT, SERVER] {
                let host = net.sim.host(host);
                seen += host.count(Counter::TCPUrgent);
                for wrong in [
                    Counter::DataCsumErr,
                    Counter::DSSNoMatchTCP,
                    Counter::DSSNotMatching,
                    Counter::UnmappedDrop,
                    Counter::DssFallback,
                    Counter::InCsumErrors,
                ] {
                    assert_eq!(host.count(wrong), 0, "{wrong:?}");
                }
                assert!(host.count(Counter::RetransSegs) > 0);
            }
            assert!(seen > 1000, "{seen}");
        }
    }
}

#[test]
fn urgent_bytes_stay_in_a_stream_that_fell_back() {
    // From the start, and after some data.
    for late in [false, true] {
        let urgent = Arc::new(AtomicU64::new(0));
        let mut link = link(3, &urgent);
        let mut packets = 0;
        let mut strip = strip_mptcp(|_, _| true);
        link.filters.push(Box::new(move |to, frame| {
            packets += 1;
            if !late || packets > 60 {
                return strip(to, frame);
            }
            true
        }));
        let mut net = checked(vec![link], ChecksumPolicy::IfRequested);
        net.echo(2 * MIB).check();
        assert!(urgent.load(Ordering::Relaxed) > 500);
        let server = net.sim.host(SERVER);
        assert!(server.count(Counter::TCPUrgent) > 500);
        assert_eq!(server.count(Counter::DssFallback) > 0, late);
    }
}
