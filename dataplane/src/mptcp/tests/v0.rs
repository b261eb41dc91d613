//! Version 0 (RFC 6824): who speaks it, what its packets look like, and what its few
//! differences do. That streams survive bad networks and boxes in this version, too, is in
//! `swarm` and `fallback`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use sha1::{Digest, Sha1};

use super::boxes;
use super::harness::*;
use crate::checksum::Sum;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::offload::header::{HeaderTemplate, TcpHeaderOut};
use crate::time::Duration;
use crate::wire::mptcp::{MpCapableFlags, MptcpOption};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;
use crate::wire::types::{AddressId, Key};

const LIMIT: Duration = Duration::from_secs(300);

/// What passed: from whom, over which path, flags, payload bytes, options as they stood.
#[derive(Clone, Debug)]
struct Seen {
    from: usize,
    path: usize,
    flags: Flags,
    payload: usize,
    raw: Vec<Vec<u8>>,
    options: Vec<MptcpOption>,
}

type Log = Rc<RefCell<Vec<Seen>>>;

fn slow() -> PathConfig {
    PathConfig {
        rate: 1_000_000,
        ..PathConfig::default()
    }
}

/// Two hosts of version 0, and everything that passes between them.
fn watched(seed: u64, paths: usize) -> (Net, Log) {
    let mut net = Net::new(seed, vec![slow(); paths]);
    net.speak(Version::V0);
    let log = Log::default();
    let writer = Rc::clone(&log);
    net.middlebox = Some(Box::new(move |p| {
        writer.borrow_mut().push(seen(p));
        true
    }));
    (net, log)
}

fn seen(p: &mut Passing<'_>) -> Seen {
    let packet = boxes::tcp(p.bytes);
    let mut raw = Vec::new();
    boxes::each_mptcp(p.bytes, |option| raw.push(option.to_vec()));
    Seen {
        from: p.from,
        path: p.path,
        flags: packet.flags,
        payload: packet.payload.len(),
        raw,
        options: packet.options.mptcp.to_vec(),
    }
}

fn established(net: &mut Net) {
    net.run_until(LIMIT, |net| {
        [CLIENT, SERVER]
            .iter()
            .all(|h| net.hosts[*h].conn.is_some() && net.hosts[*h].info(net.now).fully_established)
    });
}

fn version(net: &Net, host: usize) -> Option<u8> {
    let info = net.hosts[host].info(net.now);
    info.version.filter(|_| info.mptcp)
}

/// RFC 6824 §3.1 and §3.2, in as few words as the formulas allow.
fn digest(key: u64) -> (u32, u64) {
    let hash: [u8; 20] = Sha1::digest(key.to_be_bytes()).into();
    (
        u32::from_be_bytes(hash[..4].try_into().unwrap()),
        u64::from_be_bytes(hash[12..].try_into().unwrap()),
    )
}

fn hmac_sha1(first: u64, second: u64, message: &[u8]) -> [u8; 20] {
    let mut pad = [0u8; 64];
    pad[..8].copy_from_slice(&first.to_be_bytes());
    pad[8..16].copy_from_slice(&second.to_be_bytes());
    let inner = Sha1::digest([&pad.map(|b| b ^ 0x36)[..], message].concat());
    Sha1::digest([&pad.map(|b| b ^ 0x5c)[..], &inner[..]].concat()).into()
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

#[test]
fn both_handshakes_on_the_wire() {
    let (mut net, log) = watched(1, 2);
    net.start(TestApp::sender(1, 2_000_000), TestApp::sender(2, 0));
    established(&mut net);
    net.join(1).unwrap();
    net.complete(LIMIT);
    let log = log.borrow();
    let on = |path| log.iter().filter(move |s| s.path == path);

    // Subtype, version and flags H; key A; key B; both.
    let first: Vec<_> = on(0).take(4).collect();
    let (syn, synack, ack, data) = (first[0], first[1], first[2], first[3]);
    assert_eq!(syn.raw[0].len(), 12);
    assert_eq!(syn.raw[0][..4], [30, 12, 0x00, 0x01]);
    assert_eq!(synack.raw[0].len(), 12);
    assert_eq!(synack.raw[0][..4], [30, 12, 0x00, 0x01]);
    let (key_a, key_b) = (be64(&syn.raw[0][4..]), be64(&synack.raw[0][4..]));
    assert_eq!(ack.raw[0][..4], [30, 20, 0x00, 0x01]);
    assert_eq!(be64(&ack.raw[0][4..]), key_a);
    assert_eq!(be64(&ack.raw[0][12..]), key_b);
    assert_eq!(ack.payload, 0, "the third packet has no room for a DSS");

    // The first data have a DSS whose numbers follow from the keys.
    assert!(data.from == CLIENT && data.payload > 0, "{data:?}");
    let MptcpOption::Dss(dss) = data.options[0] else {
        panic!("{data:?}");
    };
    let ((token_b, idsn_b), (_, idsn_a)) = (digest(key_b), digest(key_a));
    let mapping = dss.mapping.unwrap();
    assert_eq!((mapping.dsn, mapping.ssn), (idsn_a.wrapping_add(1), 1));
    assert_eq!(dss.data_ack.unwrap().value, idsn_b.wrapping_add(1));
    let capable = |s: &&Seen| matches!(s.options.first(), Some(MptcpOption::MpCapable { .. }));
    assert!(log.iter().filter(capable).all(|s| s.payload == 0));

    let join: Vec<_> = on(1).take(3).map(|s| s.raw[0].clone()).collect();
    let lengths: Vec<_> = join.iter().map(Vec::len).collect();
    assert_eq!(lengths, [12, 16, 24]);
    assert_eq!(be32(&join[0][4..]), token_b);
    let (nonce_a, nonce_b) = (&join[0][8..12], &join[1][12..16]);
    let by_b = hmac_sha1(key_b, key_a, &[nonce_b, nonce_a].concat());
    assert_eq!(join[1][4..12], by_b[..8], "leftmost 64 bits");
    let by_a = hmac_sha1(key_a, key_b, &[nonce_a, nonce_b].concat());
    assert_eq!(join[2][4..], by_a, "the whole HMAC");
    assert!(on(1).any(|s| s.payload > 0), "the joined path carries data");
}

#[test]
fn versions_are_agreed_upon_or_it_is_tcp() {
    for (offered, allowed, agreed) in [
        (Version::V0, true, Some(0)),
        (Version::V0, false, None),
        (Version::V1, true, Some(1)),
        (Version::V1, false, Some(1)),
    ] {
        let (mut net, log) = watched(2, 1);
        net.hosts[CLIENT].config.connect_version = offered;
        net.hosts[SERVER].config.allow_v0 = allowed;
        net.start(TestApp::sender(1, 100_000), TestApp::sender(2, 100_000));
        net.established();
        net.run_for(Duration::from_millis(20));
        for host in [CLIENT, SERVER] {
            assert_eq!(version(&net, host), agreed, "{offered:?} {allowed}");
        }
        net.complete(LIMIT);
        let answer = |s: &&Seen| s.from == SERVER && s.flags.contains(Flags::SYN);
        let log = log.borrow();
        let synack = log.iter().find(answer).unwrap();
        assert_eq!(synack.options.is_empty(), agreed.is_none());
        let fell_back = net.hosts[CLIENT].count(Counter::MPCapableFallbackSYNACK);
        assert_eq!(fell_back, u64::from(agreed.is_none()));
    }
}

/// A box between hosts that could agree changes the version, or swaps length and version.
#[test]
fn a_version_altered_on_the_way_is_tcp() {
    for (offered, from, nibble) in [
        (Version::V1, CLIENT, 0),
        (Version::V1, SERVER, 0),
        (Version::V0, CLIENT, 1),
        (Version::V0, SERVER, 1),
    ] {
        let mut net = Net::new(3, vec![slow()]);
        net.hosts[CLIENT].config.connect_version = offered;
        net.hosts[SERVER].config.allow_v0 = true;
        net.middlebox = Some(Box::new(move |p| {
            if p.from == from && boxes::is_syn(p.bytes) {
                boxes::each_mptcp(p.bytes, |o| o[2] = nibble);
            }
            true
        }));
        net.start(TestApp::sender(1, 50_000), TestApp::sender(2, 50_000));
        net.complete(LIMIT);
        for h in &net.hosts {
            assert!(!h.info(net.now).mptcp, "{offered:?} {from} {nibble}");
        }
    }
}

/// RFC 6824 §3.1: the sender is expected to try again without the flag.
#[test]
fn a_syn_with_the_extensibility_flag_is_ignored_until_it_comes_without() {
    let (mut net, log) = watched(4, 1);
    let writer = Rc::clone(&log);
    net.middlebox = Some(Box::new(move |p| {
        if p.from == CLIENT && boxes::is_syn(p.bytes) {
            boxes::each_mptcp(p.bytes, |o| o[3] |= MpCapableFlags::EXTENSIBILITY.0);
        }
        writer.borrow_mut().push(seen(p));
        true
    }));
    net.start(TestApp::sender(1, 10_000), TestApp::sender(2, 10_000));
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::MPCapableSYNIgnored), 3);
    let log = log.borrow();
    let answered = log.iter().position(|s| s.from == SERVER).unwrap();
    assert_eq!(answered, 4, "three with MP_CAPABLE, one without");
    assert!(log[3].options.is_empty());
    // Where version 0 is not spoken, the option alone is ignored.
    let (mut net, _) = watched(4, 1);
    net.hosts[SERVER].config.allow_v0 = false;
    net.middlebox = Some(Box::new(|p| {
        if p.from == CLIENT && boxes::is_syn(p.bytes) {
            boxes::each_mptcp(p.bytes, |o| o[3] |= MpCapableFlags::EXTENSIBILITY.0);
        }
        true
    }));
    net.start(TestApp::sender(1, 10_000), TestApp::sender(2, 10_000));
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::MPCapableSYNIgnored), 0);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPCapableSYNTX), 1);
}

#[test]
fn flag_c_is_no_refusal_of_joins_in_version_0() {
    // As a crypto algorithm that is offered besides HMAC-SHA1, and never by us.
    let (mut net, log) = watched(5, 1);
    net.hosts[SERVER].config.deny_join_initial = true;
    net.hosts[CLIENT].config.deny_join_initial = true;
    let writer = Rc::clone(&log);
    net.middlebox = Some(Box::new(move |p| {
        writer.borrow_mut().push(seen(p));
        if boxes::is_syn(p.bytes) {
            boxes::each_mptcp(p.bytes, |o| {
                o[3] |= u8::from(o[2] == 0) * MpCapableFlags::NO_MORE_SUBFLOWS.0;
            });
        }
        true
    }));
    net.start(TestApp::sender(1, 2_000_000), TestApp::sender(2, 0));
    established(&mut net);
    let own = |s: &Seen| match s.options.first() {
        Some(MptcpOption::MpCapable { flags, .. }) => {
            !flags.contains(MpCapableFlags::NO_MORE_SUBFLOWS)
        }
        _ => true,
    };
    assert!(log.borrow().iter().all(own));
    net.join(0).unwrap();
    net.complete(LIMIT);
    assert_eq!(net.hosts[SERVER].count(Counter::MPJoinAckRx), 1);
}

/// The MP_CAPABLE of the third packet is never repeated; what comes next has a DSS.
#[test]
fn a_lost_third_ack_is_made_up_for_by_a_dss() {
    let (mut net, _) = watched(6, 1);
    let mut lost = false;
    net.middlebox = Some(Box::new(move |p| {
        let third = p.from == CLIENT && !boxes::is_syn(p.bytes) && !lost;
        lost |= third;
        !third
    }));
    net.start(TestApp::sender(1, 200_000), TestApp::sender(2, 50_000));
    established(&mut net);
    assert_eq!(net.hosts[SERVER].count(Counter::MPCapableACKRX), 0);
    assert_eq!(version(&net, SERVER), Some(0));
    net.complete(LIMIT);
    assert!(net.hosts.iter().all(|h| h.info(net.now).fallback.is_none()));
}

#[test]
fn a_third_ack_with_another_key_than_the_syn_ends_mptcp() {
    for byte in [4, 12] {
        let (mut net, _) = watched(7, 1);
        net.middlebox = Some(Box::new(move |p| {
            if p.from == CLIENT && !boxes::is_syn(p.bytes) {
                boxes::each_mptcp(p.bytes, |o| {
                    if o.len() == 20 && o[2] == 0 {
                        o[byte] ^= 1;
                    }
                });
            }
            true
        }));
        net.start(TestApp::sender(1, 50_000), TestApp::sender(2, 50_000));
        net.complete(LIMIT);
        let server = &net.hosts[SERVER];
        assert_eq!(server.count(Counter::MPCapableFallbackACK), 1, "{byte}");
    }
}

fn announced(net: &Net, host: usize) -> Vec<(u8, IpAddr, Option<u16>)> {
    let events = net.hosts[host].events.iter();
    let mut list: Vec<_> = events
        .filter_map(|e| match e {
            Event::Announced {
                address_id,
                address,
                port,
                ..
            } => Some((*address_id, *address, *port)),
            _ => None,
        })
        .collect();
    list.sort();
    list
}

#[test]
fn addresses_are_announced_without_hmac_and_never_echoed() {
    let (mut net, log) = watched(8, 1);
    net.start(TestApp::sender(1, 20_000_000), TestApp::sender(2, 0));
    established(&mut net);
    let v4: IpAddr = "10.9.9.9".parse().unwrap();
    let v6: IpAddr = "fd00::9".parse().unwrap();
    let want = [
        (1, v4, None),
        (2, v6, None),
        (3, v4, Some(8080)),
        (4, v6, Some(8080)),
    ];
    net.with(SERVER, |conn, cx| {
        for (id, addr, port) in want {
            conn.announce(cx, AddressId(id), addr, port);
        }
    });
    net.run_for(Duration::from_millis(200));
    assert_eq!(announced(&net, CLIENT), want);
    // Repeated, for want of an answer, and no news the second time.
    net.run_for(Duration::from_secs(14));
    assert_eq!(announced(&net, CLIENT), want);
    assert_eq!(net.hosts[SERVER].count(Counter::AddAddrTx), 16);
    assert_eq!(net.hosts[CLIENT].count(Counter::AddAddr), 16);
    assert_eq!(net.hosts[CLIENT].count(Counter::EchoAddTx), 0);
    net.with(SERVER, |conn, cx| {
        conn.remove_addresses(cx, &[AddressId(2)]);
    });
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.hosts[CLIENT].count(Counter::RmAddr), 1);
    net.complete(LIMIT);
    let log = log.borrow();
    let all = log.iter().flat_map(|s| &s.raw);
    let add_addr: Vec<_> = all.filter(|o| o[2] >> 4 == 3).collect();
    assert!(add_addr.iter().all(|o| match o[2] & 0x0f {
        4 => matches!(o.len(), 8 | 10),
        6 => matches!(o.len(), 20 | 22),
        _ => false,
    }));
}

#[test]
fn an_announced_address_that_is_joined_is_announced_no_more() {
    let (mut net, _) = watched(9, 2);
    net.start(TestApp::sender(1, 30_000_000), TestApp::sender(2, 0));
    established(&mut net);
    let addr = address(SERVER, 1, false, 0).ip();
    net.with(SERVER, |conn, cx| {
        conn.announce(cx, AddressId(7), addr, None);
    });
    net.run_for(Duration::from_millis(100));
    assert_eq!(announced(&net, CLIENT), [(7, addr, None)]);
    net.join(1).unwrap();
    net.run_for(Duration::from_secs(10));
    assert_eq!(net.hosts[SERVER].count(Counter::AddAddrTx), 1);
    let joined = &net.hosts[CLIENT].info(net.now).subflows[1];
    assert_eq!(
        (joined.state.as_str(), joined.remote_id),
        ("established", 7)
    );
    net.complete(LIMIT);
}

/// A segment of the client's first subflow, acceptable to the server, with `option`.
fn inject(net: &mut Net, option: MptcpOption, flags: Flags) {
    let core = &net.hosts[SERVER].conn.as_ref().unwrap().core;
    let s = &core.subflows[0];
    let template = HeaderTemplate::new(s.path.l2, &s.tuple().reversed(), 0, 64).unwrap();
    let header = TcpHeaderOut {
        seq: s.tcp.rcv_nxt(),
        ack: SeqNumber(s.tcp.snd_una().0),
        flags,
        window: 1000,
        urgent: 0,
        ecn: 0,
    };
    let port = usize::from(s.path.port.0);
    let mut options = OptionsBuf::new();
    options.mptcp(&option).unwrap();
    let mut bytes = vec![0; template.header_len(options.padded_len())];
    template.emit(&mut bytes, &header, &options, 0, Sum::ZERO);
    net.inject(SERVER, port, bytes);
}

fn idle_pair(seed: u64, speak: Version) -> Net {
    let mut net = Net::new(seed, vec![slow(), slow()]);
    net.speak(speak);
    for h in &mut net.hosts {
        h.config.tcp.timestamps = false;
    }
    let held = |seed| TestApp {
        hold: true,
        ..TestApp::sender(seed, 50_000)
    };
    net.start(held(1), held(2));
    established(&mut net);
    net.join(1).unwrap();
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.hosts[SERVER].info(net.now).subflows.len(), 2);
    net
}

fn finish(mut net: Net) {
    for host in [CLIENT, SERVER] {
        net.with(host, |conn, _| conn.app_mut().hold = false);
    }
    net.complete(LIMIT);
}

#[test]
fn options_of_the_other_version_are_ignored() {
    let addr: IpAddr = "10.9.9.9".parse().unwrap();
    let add_addr = |echo, hmac| MptcpOption::AddAddr {
        echo,
        address_id: AddressId(9),
        addr,
        port: None,
        hmac,
    };
    let named = MptcpOption::MpPrio {
        backup: true,
        address_id: Some(AddressId(1)),
    };
    for (speak, options) in [
        (
            Version::V0,
            vec![add_addr(false, Some(1)), add_addr(true, None)],
        ),
        (Version::V1, vec![add_addr(false, None), named]),
    ] {
        let mut net = idle_pair(10, speak);
        for option in options {
            inject(&mut net, option, Flags::ACK);
        }
        assert!(announced(&net, SERVER).is_empty());
        let server = &net.hosts[SERVER];
        assert_eq!(server.count(Counter::AddAddrDrop), 1);
        assert_eq!(server.count(Counter::EchoAdd), 0);
        let info = server.info(net.now);
        assert!(info.subflows.iter().all(|s| !s.backup_remote));
        finish(net);
    }
}

#[test]
fn priority_goes_by_address_where_one_is_named() {
    let mut net = idle_pair(11, Version::V0);
    let mut say = |backup, id: Option<u8>| {
        let option = MptcpOption::MpPrio {
            backup,
            address_id: id.map(AddressId),
        };
        inject(&mut net, option, Flags::ACK);
        let info = net.hosts[SERVER].info(net.now);
        let backups: Vec<_> = info.subflows.iter().map(|s| s.backup_remote).collect();
        backups
    };
    // On the first subflow, about the second's address.
    assert_eq!(say(true, Some(1)), [false, true]);
    assert_eq!(say(true, Some(77)), [false, true], "nobody's address");
    assert_eq!(say(true, None), [true, true]);
    assert_eq!(say(false, Some(0)), [false, true]);
    assert_eq!(say(false, Some(1)), [false, false]);
    finish(net);
}

#[test]
fn resets_are_bare_and_fastclose_is_answered_by_one() {
    let (mut net, log) = watched(12, 2);
    net.start(TestApp::sender(1, 20_000_000), TestApp::sender(2, 0));
    established(&mut net);
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(300));
    let second = SubflowId(1);
    net.with(CLIENT, |conn, cx| conn.close_subflow(cx, second, Some(2)));
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.hosts[SERVER].info(net.now).subflows.len(), 1);
    net.with(CLIENT, Connection::abort);
    net.finish(LIMIT);
    let closed = |net: &mut Net, host: usize| net.hosts[host].app().closed;
    assert_eq!(closed(&mut net, CLIENT), Some(CloseReason::LocalAbort));
    assert_eq!(closed(&mut net, SERVER), Some(CloseReason::PeerAbort));
    let log = log.borrow();
    let resets: Vec<_> = log
        .iter()
        .filter(|s| s.flags.contains(Flags::RST))
        .collect();
    assert!(resets.len() >= 2, "{resets:?}");
    assert!(resets.iter().all(|s| s.raw.is_empty()), "{resets:?}");
    for h in &net.hosts {
        assert_eq!(
            (h.count(Counter::MPRstTx), h.count(Counter::MPRstRx)),
            (0, 0)
        );
    }
    drop(log);
    net.check_frames();
}

#[test]
fn an_unheard_fastclose_ends_in_a_bare_reset() {
    let (mut net, log) = watched(13, 1);
    net.start(TestApp::sender(1, 20_000_000), TestApp::sender(2, 0));
    established(&mut net);
    let writer = Rc::clone(&log);
    net.middlebox = Some(Box::new(move |p| {
        let seen = seen(p);
        let fastclose = |o: &MptcpOption| matches!(o, MptcpOption::FastClose { .. });
        let lost = seen.options.iter().any(fastclose);
        writer.borrow_mut().push(seen);
        !lost
    }));
    net.with(CLIENT, Connection::abort);
    net.finish(LIMIT);
    let log = log.borrow();
    let fastclose = |s: &&Seen| s.raw.iter().any(|o| o[2] >> 4 == 7);
    let sent: Vec<_> = log.iter().filter(fastclose).collect();
    assert!(
        sent.len() >= 4 && sent.iter().all(|s| !s.flags.contains(Flags::RST)),
        "{} sent",
        sent.len()
    );
    let reset = log.iter().find(|s| s.flags.contains(Flags::RST)).unwrap();
    assert!(reset.raw.is_empty());
}

/// On a RST it means nothing in version 0, and the abort of the connection in version 1.
#[test]
fn fastclose_on_a_reset_counts_in_version_1_only() {
    for speak in [Version::V0, Version::V1] {
        let mut net = idle_pair(14, speak);
        let key = net.hosts[SERVER].conn.as_ref().unwrap().core.local.unwrap();
        let receiver_key = Key(key.key.0);
        inject(
            &mut net,
            MptcpOption::FastClose { receiver_key },
            Flags::RST | Flags::ACK,
        );
        let over = net.hosts[SERVER].app().closed;
        match speak {
            Version::V0 => assert_eq!(over, None),
            Version::V1 => assert_eq!(over, Some(CloseReason::PeerAbort)),
        }
    }
}

/// A box that appends checksums nobody negotiated.
#[test]
fn unasked_for_checksums_are_ignored() {
    let (mut net, _) = watched(15, 1);
    let mut added = 0u32;
    let count = Rc::new(RefCell::new(0));
    let shared = Rc::clone(&count);
    net.middlebox = Some(Box::new(move |p| {
        if p.from == CLIENT && boxes::payload_len(p.bytes) > 0 {
            let packet = boxes::tcp(p.bytes);
            let area = &mut p.bytes[packet.tcp_offset + 20..packet.payload.start];
            let at = area.iter().position(|b| *b == 30).unwrap();
            let len = usize::from(area[at + 1]);
            // The two NOPs behind it become a checksum, a wrong one.
            if area[at + 2] >> 4 == 2 && area[at + len..] == [1, 1] {
                area[at + 1] += 2;
                area[at + len..].fill(0x55);
                added += 1;
                *shared.borrow_mut() = added;
            }
            boxes::fix(p.bytes);
        }
        true
    }));
    net.start(TestApp::sender(1, 100_000), TestApp::sender(2, 50_000));
    net.complete(LIMIT);
    assert!(*count.borrow() > 50);
    assert!(net.hosts.iter().all(|h| h.info(net.now).mptcp));
}

#[test]
fn checksums_are_used_when_either_side_asks() {
    use ChecksumPolicy::{Always, IfRequested, Never};
    for (client, server, mptcp, checksum) in [
        (IfRequested, IfRequested, true, false),
        (Always, IfRequested, true, true),
        (IfRequested, Always, true, true),
        (Always, Always, true, true),
        (Always, Never, false, false),
        (Never, Always, false, false),
    ] {
        let (mut net, log) = watched(16, 1);
        net.hosts[CLIENT].config.checksum = client;
        net.hosts[SERVER].config.checksum = server;
        net.start(TestApp::sender(1, 50_000), TestApp::sender(2, 50_000));
        net.complete(LIMIT);
        for h in &net.hosts {
            let info = h.info(net.now);
            assert_eq!(info.mptcp, mptcp, "{client:?} {server:?}");
            assert_eq!(info.mptcp && info.checksum, checksum);
        }
        let log = log.borrow();
        let mut mappings = log.iter().flat_map(|s| &s.options).filter_map(|o| match o {
            MptcpOption::Dss(dss) => dss.mapping,
            _ => None,
        });
        assert!(!mptcp || mappings.all(|m| m.checksum.is_some() == checksum));
    }
}
