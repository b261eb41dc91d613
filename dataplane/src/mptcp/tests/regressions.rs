//! What an independent reading of the code found: each of these failed once.

use super::harness::*;
use crate::io::{Port, PortId};
use crate::mptcp::*;
use crate::time::Duration;
const LIMIT: Duration = Duration::from_secs(300);
fn slow() -> PathConfig {
    PathConfig {
        rate: 1_000_000,
        ..PathConfig::default()
    }
}

fn plain(seed: u64, enabled: bool, notify: bool) {
    let mut net = Net::new(seed, vec![slow()]);
    for h in [CLIENT, SERVER] {
        net.hosts[h].config.enabled = enabled;
    }
    net.start(TestApp::sender(1, 3_000_000), TestApp::sender(2, 0));
    net.run_for(Duration::from_millis(400));
    net.hosts[CLIENT].sink.ports[0].set_carrier(false);
    if notify {
        net.with(CLIENT, |c, cx| c.on_port_down(cx, PortId(0)));
    }
    net.run_for(Duration::from_millis(300));
    net.hosts[CLIENT].sink.ports[0].set_carrier(true);
    net.with(CLIENT, |c, cx| c.on_port_up(cx, PortId(0)));
    net.complete(LIMIT);
}
#[test]
fn plain_tcp_survives_carrier_loss_noticed_by_sending() {
    plain(21, false, false);
}
#[test]
fn plain_tcp_survives_carrier_loss_told() {
    plain(22, false, true);
}
#[test]
fn mptcp_single_survives_carrier_loss_noticed_by_sending() {
    plain(23, true, false);
}

#[test]
fn no_busy_deadline_without_carrier() {
    let mut net = Net::new(24, vec![slow()]);
    net.start(TestApp::sender(1, 0), TestApp::sender(2, 3_000_000));
    net.run_for(Duration::from_millis(400));
    let mut busy = 0;
    net.hosts[CLIENT].sink.ports[0].set_carrier(false);
    for _ in 0..400 {
        net.step();
        let now = net.now;
        let d = net.hosts[CLIENT].conn.as_ref().unwrap().next_deadline();
        if d.is_some_and(|d| d <= now) {
            busy += 1;
        }
    }
    assert!(busy == 0, "deadline in the past {busy} of 400 steps");
}

#[test]
fn a_hole_is_filled_although_small_frames_wait_behind_it() {
    let mut net = Net::new(
        31,
        vec![
            slow(),
            PathConfig {
                mtu: 500,
                rate: 20_000_000,
                ..slow()
            },
        ],
    );
    for h in [CLIENT, SERVER] {
        net.hosts[h].config.recv_buffer_bytes = 262_144;
        net.hosts[h].config.recv_buffer_frames = 512;
    }
    net.start(TestApp::sender(1, 60_000_000), TestApp::sender(2, 0));
    net.run_until(LIMIT, |net| {
        net.hosts[CLIENT].conn.is_some() && net.hosts[CLIENT].info(net.now).fully_established
    });
    net.join(1).unwrap();
    net.run_for(Duration::from_millis(600));
    net.blackhole[0] = true;
    net.run_for(Duration::from_millis(600));
    let before = net.hosts[SERVER].info(net.now).bytes_delivered;
    net.run_for(Duration::from_secs(60));
    let after = net.hosts[SERVER].info(net.now).bytes_delivered;
    assert!(
        after > before + 1_000_000,
        "{} bytes in 60 s\n{}",
        after - before,
        net.describe()
    );
}

#[test]
fn falling_back_does_not_skip_dropped_bytes() {
    use super::boxes;
    let mut bad = vec![];
    for k in 3..40u32 {
        for n in 1..4u32 {
            for late in [0u32, 3, 8] {
                let mut net = Net::new(
                    7,
                    vec![PathConfig {
                        rate: 2_000_000,
                        ..PathConfig::default()
                    }],
                );
                net.hosts[CLIENT].config.checksum = ChecksumPolicy::Always;
                let (mut up, mut hit) = (0, false);
                net.middlebox = Some(Box::new(move |p| {
                    if boxes::is_syn(p.bytes) || boxes::payload_len(p.bytes) == 0 {
                        return true;
                    }
                    if p.from == CLIENT {
                        up += 1;
                        if up >= k && up < k + n {
                            boxes::strip(p.bytes);
                        }
                    } else if up + late >= k && !hit {
                        hit = true;
                        let at = boxes::tcp(p.bytes).payload.start;
                        p.bytes[at] ^= 1;
                        boxes::fix(p.bytes);
                    }
                    true
                }));
                net.start(TestApp::sender(1, 150_000), TestApp::sender(2, 150_000));
                net.run_for(Duration::from_secs(100));
                let got = &net.hosts[SERVER].app().received;
                let wrong = (0u64..).zip(got).find(|(i, b)| **b != byte_at(1, *i));
                if let Some((at, _)) = wrong {
                    bad.push((
                        k,
                        n,
                        late,
                        at,
                        net.hosts[SERVER].app().closed,
                        net.hosts[SERVER].count(crate::counters::Counter::UnmappedDrop),
                    ));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} {:?}", bad.len(), bad);
}

#[test]
fn a_handshake_without_keys_does_not_last_for_ever() {
    use super::boxes;
    let mut net = Net::new(7, vec![PathConfig::default()]);
    let mut acks = 0;
    net.middlebox = Some(Box::new(move |p| {
        if boxes::is_syn(p.bytes) || p.from != CLIENT {
            return true;
        }
        acks += 1;
        // The third packet carries an MPTCP option, but no MP_CAPABLE; then the client is gone.
        boxes::each_mptcp(p.bytes, |o| {
            o.fill(1);
            o[..3].copy_from_slice(&[30, 3, 0x50]);
        });
        acks == 1
    }));
    net.start(TestApp::sender(1, 0), TestApp::sender(2, 0));
    net.run_for(Duration::from_secs(900));
    let h = &net.hosts[SERVER];
    let c = h.conn.as_ref().unwrap();
    let s = &c.core.subflows;
    assert!(
        c.is_finished() || c.is_established(),
        "after 900 s: next_deadline {:?}, {:?}",
        c.next_deadline(),
        s.first().map(|s| (s.phase, s.tcp.state()))
    );
}

#[test]
fn data_before_the_keys_is_bounded_by_the_window() {
    use super::boxes;
    let mut net = Net::new(7, vec![slow()]);
    let mut irs = None;
    net.middlebox = Some(Box::new(move |p| {
        if p.from != CLIENT {
            return true;
        }
        let t = boxes::tcp(p.bytes);
        if boxes::is_syn(p.bytes) {
            irs = Some(t.seq);
            return true;
        }
        if t.seq == irs.unwrap() + 1 {
            boxes::each_mptcp(p.bytes, |o| {
                o.fill(1);
                o[..3].copy_from_slice(&[30, 3, 0x50]);
            });
        } else {
            boxes::strip(p.bytes);
        }
        true
    }));
    net.start(TestApp::sender(1, 40_000_000), TestApp::sender(2, 0));
    net.run_for(Duration::from_secs(25));
    let h = &net.hosts[SERVER];
    let s = &h.conn.as_ref().unwrap().core.subflows;
    let s = s.first().unwrap();
    let got = s.tcp.rcv_nxt() - s.tcp.irs();
    // A client that nobody understands falls back in the end; what waits is bounded.
    let delivered = h.info(net.now).bytes_delivered;
    assert!(
        u64::from(got) < delivered + 9_000_000,
        "TCP took {got} bytes, delivered {delivered}; phase {:?}; free frames {}",
        s.phase,
        h.sink.pool.available()
    );
}
