use std::net::SocketAddr;

use super::*;
use crate::buf::{Frame, FramePool};
use crate::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use crate::wire::ethernet::EthernetAddress;
use crate::wire::mptcp::{DataAck, Dss, DssMapping};
use crate::wire::packet::{self, Packet};
use crate::wire::tcp_options::{OptionsBuf, Timestamps};
use crate::wire::types::FourTuple;

const PAYLOAD: usize = 200;

/// What a test changes of a segment.
#[derive(Clone)]
struct Segment {
    v6: bool,
    seq: u32,
    ack: u32,
    flags: Flags,
    window: u16,
    port: u16,
    ecn: u8,
    tsval: u32,
    dsn: u64,
    len: usize,
}

impl Segment {
    fn number(n: u32) -> Self {
        Self {
            v6: false,
            // Wraps within the train.
            seq: u32::MAX.wrapping_sub(300).wrapping_add(n * PAYLOAD as u32),
            ack: 77,
            flags: Flags::ACK,
            window: 500,
            port: 4000,
            ecn: 2,
            tsval: 9,
            dsn: 1 << 40,
            len: PAYLOAD,
        }
    }

    fn frame(&self, pool: &FramePool) -> Frame {
        let tuple = if self.v6 {
            FourTuple {
                local: SocketAddr::from(([1, 2, 3, 4, 5, 6, 7, 8], self.port)),
                remote: SocketAddr::from(([8, 7, 6, 5, 4, 3, 2, 1], 7)),
            }
        } else {
            FourTuple {
                local: SocketAddr::from(([10, 0, 0, 1], self.port)),
                remote: SocketAddr::from(([10, 0, 0, 2], 7)),
            }
        };
        let l2 = L2Header {
            dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
            src: EthernetAddress([2, 0, 0, 0, 0, 1]),
            vlan: Default::default(),
        };
        let mut options = OptionsBuf::new();
        let timestamps = Timestamps {
            tsval: self.tsval,
            tsecr: 3,
        };
        options.timestamps(timestamps).unwrap();
        let dss = Dss {
            data_fin: false,
            data_ack: Some(DataAck {
                value: 5,
                wide: true,
            }),
            mapping: Some(DssMapping {
                dsn: self.dsn,
                wide: true,
                ssn: 1,
                len: 60_000,
                checksum: None,
            }),
        };
        options.mptcp(&MptcpOption::Dss(dss)).unwrap();
        let header = TcpHeaderOut {
            seq: SeqNumber(self.seq),
            ack: SeqNumber(self.ack),
            flags: self.flags,
            window: self.window,
            urgent: 0,
            ecn: self.ecn,
        };
        let template = HeaderTemplate::new(l2, &tuple, 0, 64).unwrap();
        let start = template.header_len(options.padded_len());
        let mut frame = pool.alloc().unwrap();
        let out = frame.buffer_mut().unwrap();
        let payload: Vec<u8> = (0..self.len)
            .map(|n| (n as u32 ^ self.seq).to_le_bytes()[0])
            .collect();
        let sum = checksum::copy_and_sum(&mut out[start..start + self.len], &payload);
        template.emit(out, &header, &options, self.len, sum);
        frame.set_len(start + self.len);
        frame
    }
}

fn parse(frame: &Frame) -> TcpPacket {
    match packet::parse(frame.packet()) {
        Ok(Packet::Tcp(tcp)) => tcp,
        other => panic!("{other:?}"),
    }
}

fn begun(pool: &FramePool, first: &Segment) -> Train {
    let frame = first.frame(pool);
    let packet = parse(&frame);
    assert!(Train::may_begin(&packet));
    let mut train = Train::default();
    let payload = packet.payload.clone();
    train.begin(&packet, Piece::from_frame(frame, payload, None).into());
    train
}

fn pool() -> FramePool {
    let pool = FramePool::heap(128, 1024);
    assert!(pool.adopt());
    pool
}

/// What the block says of a frame, held against the parser.
fn join(train: &mut Train, frame: Frame) -> bool {
    let Some(follower) = train.follower(frame.packet()) else {
        return false;
    };
    let packet = parse(&frame);
    assert_eq!(follower.payload, packet.payload);
    assert_eq!(follower.header_sum, packet.header_sum(frame.packet()));
    assert_eq!(
        follower.is_partial(),
        packet.has_partial_checksum(frame.packet())
    );
    let mut piece = Piece::from_frame(frame, follower.payload, None);
    let sum = follower.header_sum.combine(piece.sum(), false);
    assert!(sum.is_zero(), "a correct checksum");
    train.push(piece);
    true
}

#[test]
fn segments_that_follow_each_other_are_one() {
    for v6 in [false, true] {
        let pool = pool();
        let number = |n| Segment {
            v6,
            ..Segment::number(n)
        };
        let mut train = begun(&pool, &number(0));
        for n in 1..10 {
            let flags = if n % 3 == 0 {
                Flags::ACK | Flags::PSH
            } else {
                Flags::ACK
            };
            let segment = Segment { flags, ..number(n) };
            assert!(join(&mut train, segment.frame(&pool)), "{n}");
        }
        // A short last one, padded to the smallest Ethernet frame or not.
        let last = Segment {
            len: 34,
            ..number(10)
        };
        assert!(join(&mut train, last.frame(&pool)));
        let (packet, segments, chain) = train.end().unwrap();
        assert_eq!((segments, chain.len()), (11, 10 * PAYLOAD + 34));
        assert_eq!(packet.seq.0, number(0).seq);
        let mut bytes = chain.iter().flat_map(|piece| piece.bytes().to_vec());
        for n in 0..10 {
            let seq = number(n).seq;
            for at in 0..PAYLOAD as u32 {
                assert_eq!(bytes.next().unwrap(), (at ^ seq).to_le_bytes()[0]);
            }
        }
        assert!(train.first().is_none() && train.end().is_none());
    }
}

#[test]
fn whatever_differs_in_more_travels_alone() {
    let pool = pool();
    let next = Segment::number(1);
    let others = [
        Segment {
            seq: next.seq + 1,
            ..next.clone()
        },
        Segment {
            seq: next.seq.wrapping_sub(1),
            ..next.clone()
        },
        Segment {
            ack: 78,
            ..next.clone()
        },
        Segment {
            flags: Flags::ACK | Flags::FIN,
            ..next.clone()
        },
        Segment {
            flags: Flags::ACK | Flags::CWR,
            ..next.clone()
        },
        Segment {
            flags: Flags::ACK | Flags::URG,
            ..next.clone()
        },
        Segment {
            flags: Flags::ACK | Flags::RST,
            ..next.clone()
        },
        Segment {
            window: 501,
            ..next.clone()
        },
        Segment {
            port: 4001,
            ..next.clone()
        },
        Segment {
            ecn: 3,
            ..next.clone()
        },
        Segment {
            tsval: 10,
            ..next.clone()
        },
        Segment {
            dsn: 2,
            ..next.clone()
        },
        Segment {
            len: 0,
            ..next.clone()
        },
        Segment {
            v6: true,
            ..next.clone()
        },
    ];
    for (n, other) in others.iter().enumerate() {
        let mut train = begun(&pool, &Segment::number(0));
        assert!(!join(&mut train, other.frame(&pool)), "{n}");
        assert!(join(&mut train, next.frame(&pool)), "{n}");
    }
}

#[test]
fn no_bit_of_a_header_goes_unnoticed() {
    let pool = pool();
    let good = Segment::number(1).frame(&pool);
    let packet = parse(&good);
    let headers = packet.payload.start;
    for bit in 0..headers * 8 {
        let mut train = begun(&pool, &Segment::number(0));
        let mut frame = Segment::number(1).frame(&pool);
        frame.buffer_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
        // What is not compared is summed, and a sum notices one bit.
        if let Some(follower) = train.follower(frame.packet()) {
            let sum = checksum::sum(&frame.packet()[follower.payload]);
            assert!(!follower.header_sum.combine(sum, false).is_zero(), "{bit}");
        }
    }
    assert_eq!(headers, 94);
}

#[test]
fn lengths_beyond_the_frame_are_refused() {
    let pool = pool();
    let mut train = begun(&pool, &Segment::number(0));
    let frame = Segment::number(1).frame(&pool);
    let all = frame.packet();
    for len in 0..all.len() {
        assert!(train.follower(&all[..len]).is_none(), "{len}");
    }
    // Padding behind the packet is not payload.
    let mut padded = all.to_vec();
    padded.extend([0; 20]);
    let follower = train.follower(&padded).unwrap();
    assert_eq!(follower.payload.len(), PAYLOAD);
}

#[test]
fn a_train_ends_with_the_batch() {
    let pool = pool();
    let mut train = begun(&pool, &Segment::number(0));
    for n in 1..SEGMENTS_MAX {
        assert!(join(&mut train, Segment::number(n).frame(&pool)));
    }
    assert!(!join(
        &mut train,
        Segment::number(SEGMENTS_MAX).frame(&pool)
    ));
}

#[test]
fn only_data_begins_a_train() {
    let pool = pool();
    let may = |segment: Segment| Train::may_begin(&parse(&segment.frame(&pool)));
    let data = Segment::number(0);
    assert!(may(data.clone()));
    for flags in [Flags::SYN, Flags::FIN, Flags::RST, Flags::URG, Flags::ECE] {
        let flags = Flags::ACK | flags;
        assert!(
            !may(Segment {
                flags,
                ..data.clone()
            }),
            "{flags:?}"
        );
    }
    assert!(!may(Segment { len: 0, ..data }));
}
