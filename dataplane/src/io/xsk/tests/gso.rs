//! The gso lane and superframes: bursts cross a veth pair whole, or cut, with every byte.

use std::process::Command;

use super::*;
use crate::checksum;
use crate::offload::{BurstShape, HeaderTemplate, L2Header, TcpHeaderOut};
use crate::wire::ethernet::EthernetAddress;
use crate::wire::packet::{self, ChecksumVerdict, Packet};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;
use crate::wire::types::FourTuple;

const SEGMENT: usize = 1400;
const SEGMENTS: usize = 40;

fn superframes(interface: &str) -> XskConfig {
    XskConfig {
        scatter_gather: true,
        gso_lane: true,
        rx_superframe_bytes: 65_535 + 22,
        ..config(interface, Attach::Generic)
    }
}

fn pair() -> (End, End) {
    let (group, mut pools) = group(&[1024, 1024]);
    let end = |name, pool| End::new(&group, pool, &superframes(name), Attach::Generic);
    let b = end("vb", pools.remove(1));
    let a = end("va", pools.remove(0));
    (a, b)
}

fn ethtool(interface: &str, features: &str) {
    let status = Command::new("ethtool")
        .args(["-K", interface])
        .args(features.split(' '))
        .stdout(std::process::Stdio::null())
        .status()
        .expect("ethtool");
    assert!(status.success(), "ethtool -K {interface} {features}");
}

fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// Stages a burst of 40 segments, each in a frame of its own behind room for headers.
fn send_burst(end: &mut End, v6: bool) -> Tx {
    send_packets(end, v6, SEGMENTS, 1)
}

/// So many segments in one burst, several of them to a packet.
fn send_packets(end: &mut End, v6: bool, segments: usize, per_packet: usize) -> Tx {
    let (local, remote) = match v6 {
        false => ("10.0.0.1:1000", "10.0.0.2:2000"),
        true => ("[fd00::1]:1000", "[fd00::2]:2000"),
    };
    let tuple = FourTuple {
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
    };
    let l2 = L2Header {
        dst: EthernetAddress([2; 6]),
        src: EthernetAddress([2; 6]),
        vlan: Default::default(),
    };
    let template = HeaderTemplate::new(l2, &tuple, 0, 64).expect("one family");
    let header = TcpHeaderOut {
        seq: SeqNumber(1),
        ack: SeqNumber(1),
        flags: Flags::ACK,
        window: 1,
        urgent: 0,
        ecn: 0,
    };
    let front = template.header_len(0);
    let mut frames = Vec::new();
    for n in 0..segments {
        let mut frame = end.pool.alloc().expect("a frame");
        let out = frame.buffer_mut().expect("ours");
        for (i, b) in out[front..front + SEGMENT].iter_mut().enumerate() {
            *b = byte(n * SEGMENT + i);
        }
        if n == 0 {
            template.emit_partial(out, &header, &OptionsBuf::new(), segments * SEGMENT);
        }
        frame.set_len(front + SEGMENT);
        frames.push(frame);
    }
    let shape = BurstShape {
        header_len: front,
        tcp_offset: template.tcp_offset(),
        segment_bytes: (SEGMENT * per_packet) as u16,
        ipv6: v6,
    };
    let slices = frames
        .iter()
        .enumerate()
        .map(|(n, f)| (f, if n == 0 { 0 } else { front }..front + SEGMENT));
    // The frames are dropped here: the lane's references keep them until the flush.
    end.port.tx_burst(&end.pool, &shape, slices)
}

/// Packets received until `bytes` of payload have come, each with its segment.
fn receive_segments(end: &mut End, bytes: usize) -> Vec<Vec<u8>> {
    let (mut packets, mut got, start) = (Vec::new(), 0, Instant::now());
    let mut packet: Vec<u8> = Vec::new();
    while got < bytes && start.elapsed() < PATIENCE {
        end.port.rx_burst(&end.pool, &mut end.batch);
        for part in end.batch.iter() {
            packet.extend_from_slice(part.frame.packet());
            if part.more {
                continue;
            }
            if let Ok(Packet::Tcp(tcp)) = packet::parse(&packet) {
                got += tcp.payload.len();
                packets.push(std::mem::take(&mut packet));
            }
            packet.clear();
        }
        end.batch.clear();
        end.port.refill(&end.pool);
    }
    packets
}

fn payload_of(packets: &[Vec<u8>], complete: bool) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENTS * SEGMENT];
    for packet in packets {
        let Ok(Packet::Tcp(tcp)) = packet::parse(packet) else {
            panic!("not TCP");
        };
        let payload = &packet[tcp.payload.clone()];
        let verdict = tcp.verify_checksum(packet, checksum::sum(payload));
        let expected = if complete {
            ChecksumVerdict::Valid
        } else {
            ChecksumVerdict::Partial
        };
        assert_eq!(verdict, expected);
        let at = usize::try_from(tcp.seq.diff(SeqNumber(1))).expect("behind the start");
        bytes[at..at + payload.len()].copy_from_slice(payload);
    }
    bytes
}

fn run(features: Option<&str>, expect: impl Fn(&[Vec<u8>]) + Send + 'static) {
    let features = features.map(str::to_owned);
    isolated(move || {
        if let Some(features) = &features {
            ethtool("va", features);
        }
        let (mut a, mut b) = pair();
        for v6 in [false, true] {
            assert_eq!(send_burst(&mut a, v6), Tx::Queued);
            assert_eq!(a.port.stats().tx_in_flight as usize, SEGMENTS);
            a.port.flush();
            assert_eq!(
                a.port.complete(&a.pool) as usize,
                SEGMENTS,
                "copied at once"
            );
            let packets = receive_segments(&mut b, SEGMENTS * SEGMENT);
            let complete = features.is_some();
            let expected: Vec<u8> = (0..SEGMENTS * SEGMENT).map(byte).collect();
            assert_eq!(payload_of(&packets, complete), expected);
            expect(&packets);
        }
        assert_eq!(a.port.stats().tx_dropped, 0);
        a.close();
        b.close();
    });
}

#[test]
fn a_burst_arrives_whole() {
    run(None, |packets| assert_eq!(packets.len(), 1));
}

#[test]
fn a_device_that_does_not_segment_gets_segments() {
    run(Some("tx off tso off gso off"), |packets| {
        assert_eq!(packets.len(), SEGMENTS);
    });
}

#[test]
fn single_packets_and_bursts_keep_their_order() {
    isolated(|| {
        let (mut a, mut b) = pair();
        let mut kinds = Vec::new();
        let start = Instant::now();
        for round in 0..20 {
            let frame = a.frame(round).expect("a frame");
            assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
            assert_eq!(send_burst(&mut a, false), Tx::Queued);
            a.port.flush();
            a.port.complete(&a.pool);
            while kinds.len() < 2 * (round as usize + 1) && start.elapsed() < PATIENCE {
                b.port.rx_burst(&b.pool, &mut b.batch);
                let mut first = true;
                for part in b.batch.iter() {
                    if first {
                        kinds.push(part.frame.packet().get(12..14) == Some(&ETHERTYPE[..]));
                    }
                    first = !part.more;
                }
                b.batch.clear();
                b.port.refill(&b.pool);
            }
        }
        let expected: Vec<bool> = (0..40).map(|n| n % 2 == 0).collect();
        assert_eq!(kinds, expected);
        a.close();
        b.close();
    });
}

#[test]
fn a_port_without_carrier_gives_staged_bursts_back() {
    isolated(|| {
        let (mut a, b) = pair();
        assert_eq!(send_burst(&mut a, false), Tx::Queued);
        a.port.set_carrier(false);
        assert_eq!(a.port.complete(&a.pool) as usize, SEGMENTS);
        assert_eq!(send_burst(&mut a, false), Tx::NoCarrier);
        a.close();
        b.close();
    });
}

#[test]
fn packets_larger_than_a_frame_leave_whole() {
    isolated(|| {
        ip("link set va mtu 9000");
        ip("link set vb mtu 9000");
        ethtool("va", "tx off tso off gso off");
        let (group, mut pools) = group(&[1024, 1024]);
        let jumbo = |name| XskConfig {
            generic: false,
            mtu: 9000,
            ..superframes(name)
        };
        let end = |name, pool| End::new(&group, pool, &jumbo(name), Attach::Native);
        let mut b = end("vb", pools.remove(1));
        let mut a = end("va", pools.remove(0));
        // The second is one full packet: of several frames, but nothing to segment.
        for segments in [SEGMENTS, 6] {
            assert_eq!(send_packets(&mut a, false, segments, 6), Tx::Queued);
            a.port.flush();
            let packets = receive_segments(&mut b, segments * SEGMENT);
            let mut expected: Vec<u8> = (0..segments * SEGMENT).map(byte).collect();
            expected.resize(SEGMENTS * SEGMENT, 0);
            assert_eq!(payload_of(&packets, true), expected);
            assert_eq!(packets.len(), segments.div_ceil(6));
        }
        a.close();
        b.close();
    });
}
