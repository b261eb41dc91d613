//! MP_FAIL and what follows it, requirement by requirement (RFC 8684 §3.7, rows 96 to 103).

use std::cell::RefCell;
use std::rc::Rc;

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::*;
use crate::time::Duration;
use crate::wire::mptcp::MptcpOption;

const LIMIT: Duration = Duration::from_secs(300);

/// What each host sent, in order.
#[derive(Clone, PartialEq, Debug)]
enum Said {
    DataAck(u64),
    Fail(u64),
    Mapping { infinite: bool },
}

type Log = Rc<RefCell<Vec<(usize, Said)>>>;

/// Logs what is said, and flips a byte of each data segment of the client that `when` names,
/// whenever it is sent.
fn tampering(log: Log, when: impl Fn(&Passing<'_>, usize) -> bool + 'static) -> Middlebox {
    let mut n = 0;
    let mut victim = None;
    Box::new(move |p| {
        let packet = boxes::tcp(p.bytes);
        for option in &packet.options.mptcp {
            let say = |said| log.borrow_mut().push((p.from, said));
            match *option {
                MptcpOption::Dss(dss) => {
                    if let Some(ack) = dss.data_ack {
                        say(Said::DataAck(ack.value));
                    }
                    if let Some(mapping) = dss.mapping {
                        say(Said::Mapping {
                            infinite: mapping.len == 0,
                        });
                    }
                }
                MptcpOption::MpFail { dsn } => say(Said::Fail(dsn)),
                _ => {}
            }
        }
        if p.from == CLIENT && !packet.payload.is_empty() {
            if victim.is_none() {
                n += 1;
                if when(p, n) {
                    victim = Some((p.path, packet.seq));
                }
            }
            if victim == Some((p.path, packet.seq)) {
                p.bytes[packet.payload.start] ^= 0xff;
                boxes::fix(p.bytes);
            }
        }
        true
    })
}

fn slow() -> PathConfig {
    PathConfig {
        rate: 1_000_000,
        ..PathConfig::default()
    }
}

/// Rows 96, 97, 98, 101, 102 and 103, on the only path, data both ways.
#[test]
fn after_mp_fail_both_ends_are_plain_tcp_for_good() {
    let log = Log::default();
    let mut net = Net::new(1, vec![slow(), slow()]);
    net.hosts[CLIENT].config.checksum = ChecksumPolicy::Always;
    net.middlebox = Some(tampering(log.clone(), |_, n| n == 30));
    net.start(TestApp::sender(1, 400_000), TestApp::sender(2, 400_000));
    net.run_until(LIMIT, |net| {
        net.hosts.iter().all(|h| {
            h.conn
                .as_ref()
                .is_some_and(|c| c.core.fallback.is_some() && !c.core.send_data_acks)
        })
    });
    let said = log.borrow().clone();
    let failed = said.iter().find_map(|(from, s)| match s {
        Said::Fail(dsn) if *from == SERVER => Some(*dsn),
        _ => None,
    });
    let failed = failed.expect("the server says that data failed");
    // Row 97: what failed is never DATA_ACKed.
    for (from, s) in &said {
        if let (SERVER, Said::DataAck(ack)) = (*from, s) {
            assert!(
                failed.wrapping_sub(*ack).cast_signed() >= 0,
                "{ack} of {failed}"
            );
        }
    }
    // Row 98: answered by MP_FAIL, and each direction goes on under an infinite mapping.
    let answers = |s: &&(usize, Said)| matches!(s, (CLIENT, Said::Fail(_)));
    assert_eq!(said.iter().filter(answers).count(), 1, "{}", net.describe());
    for host in [CLIENT, SERVER] {
        let infinite = (host, Said::Mapping { infinite: true });
        assert!(said.contains(&infinite), "host {host}");
    }
    // Row 102: when both know, nothing of MPTCP is said any more; what is on its way ends
    // within a round trip.
    net.run_for(Duration::from_millis(50));
    log.borrow_mut().clear();
    // Row 103: and nobody comes back to it.
    assert_eq!(net.join(1), Err(OpenError::NotMptcp));
    net.finish(LIMIT);
    let later = log.borrow().clone();
    let acks = |s: &&(usize, Said)| matches!(s.1, Said::DataAck(_) | Said::Fail(_));
    assert_eq!(later.iter().find(acks), None);
    for host in [CLIENT, SERVER] {
        assert_eq!(net.hosts[host].app().received.len(), 400_000);
        assert!(!net.hosts[host].info(net.now).mptcp);
    }
    net.check_frames();
}

/// Row 99: one subflow is left, but not everything went over it in order: RST with MP_FAIL,
/// and what failed is sent again elsewhere.
///
/// Row 100 asks the next subflow to begin with an infinite mapping. Deviation: it begins with
/// regular ones. The new subflow takes another path, or the same one past the spot that was
/// rewritten; checksums go on protecting the stream there, while an infinite mapping would
/// switch them off for good where it is known that something rewrites payload. The peer cannot
/// tell the difference: a mapping is what it expects on a fresh subflow.
#[test]
fn a_checksum_failure_out_of_order_resets_the_last_subflow_and_loses_nothing() {
    let log = Log::default();
    let mut net = Net::new(2, vec![slow(), slow()]);
    net.hosts[CLIENT].config.checksum = ChecksumPolicy::Always;
    net.middlebox = Some(tampering(log.clone(), |p, n| p.path == 0 && n > 300));
    net.start(TestApp::sender(1, 1_500_000), TestApp::sender(2, 0));
    net.established();
    net.run_for(Duration::from_millis(50));
    let second = net.join(1).unwrap();
    net.run_for(Duration::from_millis(100));
    net.with(CLIENT, |conn, cx| conn.close_subflow(cx, second, Some(4)));
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].info(net.now).subflows.is_empty()
    });
    assert_eq!(net.hosts[SERVER].count(Counter::DataCsumErr), 1);
    assert_eq!(net.hosts[SERVER].count(Counter::MPFailTx), 1);
    assert_eq!(net.hosts[CLIENT].count(Counter::MPFailRx), 1);
    assert!(net.hosts[CLIENT].info(net.now).mptcp);
    net.run_for(Duration::from_secs(1));
    net.join(1).unwrap();
    net.complete(LIMIT);
    let infinite = |s: &&(usize, Said)| s.1 == Said::Mapping { infinite: true };
    assert_eq!(log.borrow().iter().find(infinite), None);
}
