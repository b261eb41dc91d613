//! What the parts of a packet's way cost, each by itself, on full data packets.
//!
//! A clock around every part of every packet would cost more than the parts. So each part
//! runs alone, many times, on as many packets as fit in a ring: its caches are warmer than
//! within the whole, and what is left of the whole (TCP, MPTCP, scheduling, timers, and
//! misses) is the difference to the engine's own line.

use std::hint::black_box;
use std::net::SocketAddr;

use braid_dataplane::app::pattern;
use braid_dataplane::buf::{FramePool, HEADROOM_BYTES};
use braid_dataplane::checksum;
use braid_dataplane::io::memory::{MemoryConfig, pair};
use braid_dataplane::io::{Port, RxBatch, Tx};
use braid_dataplane::mptcp::SubflowId;
use braid_dataplane::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::mptcp::{DataAck, Dss, DssMapping, MptcpOption};
use braid_dataplane::wire::packet::{self, Packet};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::{OptionsBuf, Timestamps};
use braid_dataplane::wire::types::FourTuple;
use braid_dataplane::worker::flow_table::{Flow, FlowTable};

use super::{EnginePoint, Stopwatch, Subject};
use crate::benchmark::statistics::Spread;
use crate::failure;
use crate::testbed::Result;

/// Packets that a part works on in turn.
const PACKETS: usize = 64;
/// Flows in the table that is searched.
const FLOWS: u16 = 1024;
/// Packets per measurement.
const ROUNDS: usize = 400;

fn tuple(port: u16) -> FourTuple {
    FourTuple {
        local: SocketAddr::from(([10, 0, 0, 2], 7)),
        remote: SocketAddr::from(([10, 0, 0, 1], port)),
    }
}

fn template() -> Result<HeaderTemplate> {
    let l2 = L2Header {
        dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
        src: EthernetAddress([2, 0, 0, 0, 0, 1]),
        vlan: Default::default(),
    };
    let way = tuple(40_000);
    let way = FourTuple {
        local: way.remote,
        remote: way.local,
    };
    HeaderTemplate::new(l2, &way, 0, 64).map_err(|e| failure!("{e}"))
}

/// Timestamps and a DSS with mapping and DATA_ACK, as every data segment of the engine has.
fn options(number: u32, payload_len: usize) -> Result<OptionsBuf> {
    let mut options = OptionsBuf::new();
    let timestamps = Timestamps {
        tsval: number,
        tsecr: number,
    };
    let dss = Dss {
        data_fin: false,
        data_ack: Some(DataAck {
            value: u64::from(number),
            wide: false,
        }),
        mapping: Some(DssMapping {
            dsn: u64::from(number),
            wide: true,
            ssn: number,
            // A mapping is at most 65,535 bytes; frames are no longer either.
            len: u16::try_from(payload_len).unwrap_or(u16::MAX),
            checksum: None,
        }),
    };
    options
        .timestamps(timestamps)
        .map_err(|e| failure!("{e:?}"))?;
    options
        .mptcp(&MptcpOption::Dss(dss))
        .map_err(|e| failure!("{e:?}"))?;
    Ok(options)
}

fn build(
    template: &HeaderTemplate,
    number: u32,
    frame: &mut [u8],
    payload_len: usize,
    sum: checksum::Sum,
) -> Result<usize> {
    let header = TcpHeaderOut {
        seq: SeqNumber(number),
        ack: SeqNumber(number),
        flags: Flags::ACK,
        window: 1000,
        urgent: 0,
        ecn: 0,
    };
    let options = options(number, payload_len)?;
    Ok(template.emit(frame, &header, &options, payload_len, sum))
}

/// ns per packet of `part`, called with 0, 1, … [`PACKETS`] − 1 again and again.
fn time(repeats: usize, mut part: impl FnMut(usize) -> Result<()>) -> Result<Spread> {
    let mut values = Vec::with_capacity(repeats);
    // The first measurement warms up and is forgotten.
    for repeat in 0..=repeats {
        let start = Stopwatch::start();
        for _ in 0..ROUNDS {
            for n in 0..PACKETS {
                part(n)?;
            }
        }
        if repeat > 0 {
            values.push(start.elapsed().as_nanos() as f64 / (ROUNDS * PACKETS) as f64);
        }
    }
    Spread::of(values).ok_or_else(|| failure!("no repeats"))
}

/// Every part at one frame size.
pub fn measure(frame_bytes: u32, repeats: usize) -> Result<Vec<EnginePoint>> {
    let template = template()?;
    let header_len = template.header_len(options(0, 1)?.padded_len());
    let payload_len = (frame_bytes as usize)
        .checked_sub(header_len)
        .filter(|len| *len > 0)
        .ok_or_else(|| failure!("no payload in frames of {frame_bytes} bytes"))?;
    let mut frames = vec![vec![0_u8; frame_bytes as usize]; PACKETS];
    let mut number = 0_u32;
    let mut points = Vec::new();
    let mut add = |name: &str, spread: Spread| {
        points.push(EnginePoint {
            subject: Subject::Stage {
                name: name.to_owned(),
            },
            frame_bytes,
            gbit_per_s: None,
            ns_per_packet: spread,
        });
    };

    let mut offset = 0;
    let mut sums = [checksum::Sum::ZERO; PACKETS];
    add(
        "app: fill and sum",
        time(repeats, |n| {
            sums[n] = pattern::fill(offset, black_box(&mut frames[n][header_len..]));
            offset += payload_len as u64;
            Ok(())
        })?,
    );
    add(
        "build",
        time(repeats, |n| {
            number = number.wrapping_add(1);
            let frame = black_box(&mut frames[n][..]);
            let written = build(&template, number, frame, payload_len, sums[n])?;
            debug_assert_eq!(written, header_len);
            Ok(())
        })?,
    );
    let mut parsed: Vec<Option<packet::TcpPacket>> = vec![None; PACKETS];
    add(
        "parse",
        time(repeats, |n| {
            match packet::parse(black_box(&frames[n])) {
                Ok(Packet::Tcp(tcp)) => parsed[n] = Some(tcp),
                other => return Err(failure!("not understood: {other:?}")),
            }
            Ok(())
        })?,
    );
    add(
        "verify",
        time(repeats, |n| {
            let frame = black_box(&frames[n]);
            let Some(tcp) = &parsed[n] else {
                return Err(failure!("packet {n} was not parsed"));
            };
            let sum = checksum::sum(&frame[tcp.payload.clone()]);
            match tcp.verify_checksum(frame, sum) {
                packet::ChecksumVerdict::Valid => Ok(()),
                other => Err(failure!("packet {n}: {other:?}")),
            }
        })?,
    );
    let mut flows = FlowTable::new([7; 16], usize::from(FLOWS));
    for port in 0..FLOWS {
        let flow = Flow::Subflow {
            conn: u32::from(port),
            subflow: SubflowId(0),
        };
        flows
            .insert(&tuple(30_000 + port), flow)
            .map_err(|e| failure!("{e:?}"))?;
    }
    let tuples: Vec<FourTuple> = (0_u16..)
        .take(PACKETS)
        .map(|n| tuple(30_000 + 16 * n))
        .collect();
    add(
        "lookup",
        time(repeats, |n| {
            let found = flows.lookup(black_box(&tuples[n]));
            black_box(found)
                .map(drop)
                .ok_or_else(|| failure!("a flow is missing"))
        })?,
    );
    add("port: there and back", port(&frames, frame_bytes, repeats)?);
    Ok(points)
}

/// A memory link's transmit and receive, frames allocated and released on both sides.
fn port(frames: &[Vec<u8>], frame_bytes: u32, repeats: usize) -> Result<Spread> {
    let config = MemoryConfig {
        tx_ring: u32::try_from(2 * PACKETS).unwrap_or(u32::MAX),
        packet_bytes: frame_bytes,
        mtu: frame_bytes - 14,
        tx_segment_bytes: 0,
    };
    let (mut a, mut b) = pair(config);
    let room = (frame_bytes + HEADROOM_BYTES).next_power_of_two().max(2048);
    let pools = [(); 2].map(|()| FramePool::heap(4 * PACKETS as u32, room));
    if !pools.iter().all(FramePool::adopt) {
        return Err(failure!("a new pool is nobody's"));
    }
    let mut batch = RxBatch::new(PACKETS);
    time(repeats, |n| {
        let mut frame = pools[0].alloc().ok_or_else(|| failure!("no frame"))?;
        frame.set_len(frames[n].len());
        if a.tx(&pools[0], &frame) != Tx::Queued {
            return Err(failure!("the link is full"));
        }
        drop(frame);
        if n + 1 == PACKETS {
            let received = b.rx_burst(&pools[1], &mut batch);
            batch.clear();
            a.complete(&pools[0]);
            if received != PACKETS {
                return Err(failure!("{received} of {PACKETS} packets came out"));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_measured_at_the_smallest_and_the_largest_frame() {
        for frame_bytes in [128, 65_535] {
            let points = measure(frame_bytes, 1).unwrap();
            assert_eq!(points.len(), 6);
            for point in points {
                assert!(point.ns_per_packet.median > 0.0, "{point:?}");
            }
        }
    }
}
