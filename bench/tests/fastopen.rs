//! TCP Fast Open with MPTCP (RFC 7413, RFC 8684 Appendix B) and the boxes that dislike it
//! (catalogue K1 to K4): data of a SYN is delivered once, whatever becomes of the SYN.

#[allow(dead_code, reason = "simulation.rs uses the rest")]
mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use braid_bench::sim::{Filter, LinkConfig, Role};
use braid_dataplane::counters::Counter;
use common::{CLIENT, ECHO, Net, SERVER, strip_mptcp};

const IP: usize = 14;
const TCP: usize = IP + 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Kinds of options.
const FAST_OPEN: u8 = 34;
const MPTCP: u8 = 30;

fn net(seed: u64, links: Vec<LinkConfig>) -> Net {
    Net::with(seed, links, |_, config| {
        config.mptcp.fast_open = true;
        config.mptcp.early_answers = true;
    })
}

fn path(filters: Vec<Filter>) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(50),
        filters,
        ..LinkConfig::default()
    }
}

fn is_syn(frame: &[u8]) -> bool {
    frame[TCP + 13] & (SYN | ACK) == SYN
}

fn payload_at(frame: &[u8]) -> usize {
    TCP + usize::from(frame[TCP + 12] >> 4) * 4
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

/// Where options of this kind start.
fn options(frame: &[u8], kind: u8) -> Vec<usize> {
    let (mut at, end) = (TCP + 20, payload_at(frame));
    let mut found = Vec::new();
    while at < end && frame[at] != 0 {
        if frame[at] == kind {
            found.push(at);
        }
        at += if frame[at] == 1 {
            1
        } else {
            usize::from(frame[at + 1])
        };
    }
    found
}

fn fold(mut sum: u32) -> [u8; 2] {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn sum(bytes: &[u8]) -> u32 {
    let pair = |p: &[u8]| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0));
    bytes.chunks(2).map(pair).sum()
}

/// Writes length and checksums anew after a change (IPv4).
fn refresh(frame: &mut [u8]) {
    let total = u16::try_from(frame.len() - IP).unwrap();
    frame[IP + 2..IP + 4].copy_from_slice(&total.to_be_bytes());
    frame[IP + 10..IP + 12].fill(0);
    let ip = fold(sum(&frame[IP..TCP]));
    frame[IP + 10..IP + 12].copy_from_slice(&ip);
    frame[TCP + 16..TCP + 18].fill(0);
    let length = u32::try_from(frame.len() - TCP).unwrap();
    let tcp = fold(6 + length + sum(&frame[IP + 12..TCP]) + sum(&frame[TCP..]));
    frame[TCP + 16..TCP + 18].copy_from_slice(&tcp);
}

/// Milliseconds until `bytes` came back from the echo service, in a connection that is then
/// seen to end well.
fn echo_ms(net: &mut Net, bytes: u64) -> u128 {
    let start = net.sim.elapsed();
    let (_, client) = net.sim.connect(CLIENT, 0, ECHO, Role::Peer { send: bytes });
    let limit = start + Duration::from_secs(60);
    let outcome = client.clone();
    assert!(
        net.sim
            .run_until(limit, |_| outcome.get().received == bytes),
        "{:?}\nclient {:?}\nserver {:?}",
        client.get(),
        net.sim.host(CLIENT).counters().clone(),
        net.sim.host(SERVER).counters()
    );
    let took = (net.sim.elapsed() - start).as_millis();
    assert!(net.sim.run_until(limit, |sim| {
        client.get().closed.is_some() && sim.host(SERVER).engine().connections() == 0
    }));
    assert_eq!(client.get().wrong_at, None);
    net.check_frames();
    took
}

/// Counts packets and bytes of SYNs that carry data.
fn syns_with_data(count: &Arc<AtomicU64>) -> Filter {
    let count = count.clone();
    Box::new(move |_, frame| {
        if is_syn(frame) && frame.len() > payload_at(frame) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        true
    })
}

#[test]
fn the_second_connection_saves_a_round_trip() {
    for mptcp in [true, false] {
        let mut net = Net::with(1, vec![path(vec![])], |host, config| {
            config.mptcp.fast_open = true;
            config.mptcp.early_answers = host == SERVER && mptcp;
            config.mptcp.enabled = mptcp || host == CLIENT;
        });
        // 100 ms round trip: SYN, SYN/ACK, data, echo; then SYN with data, echo.
        let (first, second) = (echo_ms(&mut net, 500), echo_ms(&mut net, 500));
        assert!((200..240).contains(&first), "{first} ms");
        assert!((100..120).contains(&second), "{second} ms, mptcp {mptcp}");
        let (client, server) = (
            net.sim.host(CLIENT).counters().clone(),
            net.sim.host(SERVER),
        );
        assert_eq!(client.get(Counter::TCPFastOpenCookieReqd), 1);
        assert_eq!(client.get(Counter::TCPFastOpenActive), 1);
        assert_eq!(server.count(Counter::TCPFastOpenPassive), 1);
        let keys = server.count(Counter::MPCapableACKRX);
        assert_eq!(keys, if mptcp { 2 } else { 0 });
        assert_eq!(server.count(Counter::RetransSegs), 0);
    }
}

/// A Linux client falls back when an answer overtakes its keys, so by default none does.
#[test]
fn answers_wait_for_the_keys_unless_told_not_to() {
    let keys = Arc::new(AtomicU64::new(0));
    let seen = keys.clone();
    let watch: Filter = Box::new(move |to, frame| {
        let acks = frame[TCP + 13] & (SYN | ACK) == ACK;
        if to == SERVER && is_syn(frame) {
            seen.store(0, Ordering::Relaxed);
        } else if to == SERVER && acks && !options(frame, MPTCP).is_empty() {
            seen.store(1, Ordering::Relaxed);
        } else if to == CLIENT && frame.len() > payload_at(frame) {
            assert_eq!(seen.load(Ordering::Relaxed), 1, "an answer before the keys");
        }
        true
    });
    let mut net = Net::with(11, vec![path(vec![watch])], |_, config| {
        config.mptcp.fast_open = true;
    });
    echo_ms(&mut net, 20_000);
    echo_ms(&mut net, 20_000);
    let server = net.sim.host(SERVER);
    assert_eq!(server.count(Counter::TCPFastOpenPassive), 1);
    assert_eq!(server.count(Counter::MPCapableACKRX), 2);
    assert_eq!(server.count(Counter::RetransSegs), 0);
}

#[test]
fn without_the_setting_nothing_of_it_is_sent() {
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let watch: Filter = Box::new(move |_, frame| {
        let found = options(frame, FAST_OPEN).len() as u64;
        count.fetch_add(found, Ordering::Relaxed);
        true
    });
    let mut net = Net::new(2, vec![path(vec![watch])]);
    echo_ms(&mut net, 500);
    echo_ms(&mut net, 500);
    assert_eq!(seen.load(Ordering::Relaxed), 0);
}

/// RFC 8684 Appendix B.2, Figure 19: the byte behind the SYN's data has SSN 1, and an answer
/// that overtakes the keys carries no DATA_ACK.
#[test]
fn data_of_the_syn_counts_in_no_sequence_space_of_mptcp() {
    let early = Arc::new(AtomicU64::new(0));
    let mapped = Arc::new(AtomicU64::new(0));
    let (early_count, mapped_count) = (early.clone(), mapped.clone());
    let mut start: HashMap<usize, u32> = HashMap::new();
    let mut keys = false;
    let watch: Filter = Box::new(move |to, frame| {
        let data = u32::try_from(frame.len() - payload_at(frame)).unwrap();
        if frame[TCP + 13] & SYN != 0 {
            start.insert(to, word(frame, TCP + 4).wrapping_add(data));
            keys = false;
            return true;
        }
        for at in options(frame, MPTCP) {
            let (subtype, flags) = (frame[at + 2] >> 4, frame[at + 3]);
            keys |= to == SERVER && subtype == 0;
            if subtype != 2 || flags & 0x04 == 0 || data == 0 {
                continue;
            }
            // With 8-byte DSN, behind the DATA_ACK if there is one, is the SSN.
            assert_eq!(flags & 0x08, 0x08);
            let acks = flags & 0x01 != 0;
            let ssn = word(frame, at + 4 + if acks { 8 } else { 0 } + 8);
            let first = word(frame, TCP + 4).wrapping_sub(start[&to]);
            assert!(ssn <= first, "SSN {ssn} of byte {first}");
            if ssn == 1 {
                assert_eq!(first, 1, "first byte behind the SYN");
            }
            mapped_count.fetch_add(1, Ordering::Relaxed);
            if to == CLIENT && !keys {
                assert!(
                    !acks,
                    "what is there to acknowledge without the peer's key?"
                );
                early_count.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    });
    let mut net = net(3, vec![path(vec![watch]), path(vec![])]);
    echo_ms(&mut net, 200_000);
    echo_ms(&mut net, 200_000);
    assert!(early.load(Ordering::Relaxed) > 0);
    assert!(mapped.load(Ordering::Relaxed) > 100);
    for host in [CLIENT, SERVER] {
        let host = net.sim.host(host);
        assert_eq!(host.count(Counter::DSSNoMatchTCP), 0);
        assert_eq!(host.count(Counter::UnmappedDrop), 0);
        assert_eq!(host.count(Counter::DssFallback), 0);
    }
}

/// Runs two connections through a box; returns SYNs with data seen by it.
fn through(seed: u64, bytes: u64, boxes: Vec<Filter>) -> (Net, u64, u128) {
    let count = Arc::new(AtomicU64::new(0));
    let mut filters = vec![syns_with_data(&count)];
    filters.extend(boxes);
    let mut net = net(seed, vec![path(filters)]);
    echo_ms(&mut net, bytes);
    let took = echo_ms(&mut net, bytes);
    (net, count.load(Ordering::Relaxed), took)
}

#[test]
fn k1_a_syn_with_data_that_vanishes_is_repeated_without() {
    let drop: Filter = Box::new(|_, frame| !is_syn(frame) || frame.len() == payload_at(frame));
    let (mut net, tried, took) = through(4, 20_000, vec![drop]);
    assert_eq!(tried, 1);
    assert!(took > 1000, "the SYN's timeout: {took} ms");
    assert_eq!(net.sim.host(SERVER).count(Counter::TCPFastOpenPassive), 0);
    assert_eq!(net.sim.host(SERVER).count(Counter::MPCapableACKRX), 2);
    assert_eq!(
        net.sim.host(CLIENT).count(Counter::TCPFastOpenActiveFail),
        1
    );
    // And not tried again for a while.
    assert!(echo_ms(&mut net, 20_000) < 1000);
    assert_eq!(net.sim.host(SERVER).count(Counter::MPCapableACKRX), 3);
}

#[test]
fn k2_data_that_is_cut_off_the_syn_comes_again() {
    // All of it, and all but so many bytes.
    for left in [0, 1, 100] {
        let cut: Filter = Box::new(move |_, frame| {
            if is_syn(frame) && frame.len() > payload_at(frame) {
                let end = payload_at(frame) + left;
                frame.truncate(end);
                refresh(frame);
            }
            true
        });
        let (mut net, tried, _) = through(5, 20_000, vec![cut]);
        assert_eq!(tried, 1);
        let server = net.sim.host(SERVER);
        assert_eq!(server.count(Counter::MPCapableACKRX), 2);
        assert_eq!(
            server.count(Counter::TCPFastOpenPassive),
            u64::from(left > 0)
        );
        assert_eq!(
            net.sim.host(CLIENT).count(Counter::TCPFastOpenActiveFail),
            1
        );
    }
}

/// NOPs over the Fast Open option of packets towards `at`.
fn strip_fast_open(at: usize) -> Filter {
    Box::new(move |to, frame| {
        if to == at {
            for option in options(frame, FAST_OPEN) {
                let len = usize::from(frame[option + 1]);
                frame[option..option + len].fill(1);
                refresh(frame);
            }
        }
        true
    })
}

#[test]
fn k3_a_stripped_option_leaves_mptcp_without_fast_open() {
    for at in [CLIENT, SERVER] {
        let (mut net, tried, _) = through(6, 20_000, vec![strip_fast_open(at)]);
        // No cookie was given, so none was used.
        assert_eq!(tried, 0);
        assert_eq!(net.sim.host(SERVER).count(Counter::MPCapableACKRX), 2);
    }
    // From the second SYN on, which has data by then.
    let mut syns = 0;
    let mut strip = strip_fast_open(SERVER);
    let late: Filter = Box::new(move |to, frame| {
        syns += u64::from(is_syn(frame));
        syns < 2 || strip(to, frame)
    });
    let (mut net, tried, _) = through(7, 20_000, vec![late]);
    assert_eq!(tried, 1);
    let server = net.sim.host(SERVER);
    assert_eq!(server.count(Counter::TCPFastOpenPassive), 0);
    assert_eq!(server.count(Counter::MPCapableACKRX), 2);
}

#[test]
fn a_wrong_cookie_is_replaced_and_its_data_comes_again() {
    let spoil: Filter = Box::new(|to, frame| {
        if to == SERVER && is_syn(frame) {
            for at in options(frame, FAST_OPEN) {
                if frame[at + 1] > 2 {
                    frame[at + 2] ^= 1;
                    refresh(frame);
                }
            }
        }
        true
    });
    let (mut net, tried, _) = through(8, 20_000, vec![spoil]);
    assert_eq!(tried, 1);
    let server = net.sim.host(SERVER);
    assert_eq!(server.count(Counter::TCPFastOpenPassiveFail), 1);
    assert_eq!(server.count(Counter::TCPFastOpenPassive), 0);
    assert_eq!(server.count(Counter::MPCapableACKRX), 2);
}

/// K4: everything fits the 40 bytes; keys and a new cookie only without timestamps.
#[test]
fn k4_options_never_overflow() {
    let watch: Filter = Box::new(|to, frame| {
        if frame[TCP + 13] & SYN == 0 {
            return true;
        }
        let has = |kind| !options(frame, kind).is_empty();
        assert!(has(2) && has(3) && has(4) && has(MPTCP));
        let gives = to == CLIENT && has(FAST_OPEN);
        assert_eq!(has(8), !gives, "timestamps");
        assert!(payload_at(frame) - TCP <= 60);
        true
    });
    let (mut net, tried, _) = through(9, 20_000, vec![watch]);
    assert_eq!(tried, 1);
    assert_eq!(net.sim.host(SERVER).count(Counter::TCPFastOpenPassive), 1);
}

/// RFC 8684 §3.7 with early answers out: MPTCP is lost on the SYN, on the SYN/ACK, behind it.
#[test]
fn fallback_with_early_answers_is_exact() {
    for mode in 0..4 {
        let strip = strip_mptcp(move |to, syn| match mode {
            0 => syn && to == SERVER,
            1 => syn && to == CLIENT,
            2 => !syn,
            _ => !syn && to == SERVER,
        });
        let (mut net, tried, _) = through(10, 100_000, vec![strip]);
        assert_eq!(tried, 1, "mode {mode}");
        let server = net.sim.host(SERVER);
        assert_eq!(server.count(Counter::TCPFastOpenPassive), 1, "mode {mode}");
    }
}

#[test]
fn lossy_paths_deliver_every_syns_data_once() {
    for seed in 100..160 {
        let link = LinkConfig {
            loss: 0.1,
            duplicate: 0.05,
            jitter: Duration::from_millis(if seed % 2 == 0 { 0 } else { 20 }),
            ..path(vec![])
        };
        let mut net = net(seed, vec![link, path(vec![])]);
        net.echo(1_000).check();
        for _ in 0..4 {
            net.echo(30_000).check();
        }
    }
}
