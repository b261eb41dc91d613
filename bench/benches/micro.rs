//! The smallest parts, each by itself: checksums by instruction set, TCP options, the flow
//! table and the timer wheel. `cargo bench -p braid-bench --bench micro`, with `-- --test`
//! for one run of each.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use braid_dataplane::checksum::Implementation;
use braid_dataplane::mptcp::SubflowId;
use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::{DataAck, Dss, DssMapping, MptcpOption};
use braid_dataplane::wire::tcp_options::{OptionsBuf, TcpOptions, Timestamps};
use braid_dataplane::wire::types::FourTuple;
use braid_dataplane::worker::flow_table::{Flow, FlowTable};
use braid_dataplane::worker::timer_wheel::TimerWheel;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A header's worth, a segment's, a frame's, and a burst's.
const SIZES: [usize; 4] = [64, 1448, 4096, 65_160];

fn checksum(c: &mut Criterion) {
    for (name, copies) in [("checksum", false), ("copy and checksum", true)] {
        let mut group = c.benchmark_group(name);
        for bytes in SIZES {
            let source: Vec<u8> = (0..bytes).map(|n| n.to_le_bytes()[0]).collect();
            let mut target = vec![0; bytes];
            group.throughput(Throughput::Bytes(bytes as u64));
            for implementation in Implementation::all() {
                let id = BenchmarkId::new(implementation.name(), bytes);
                group.bench_function(id, |b| {
                    if copies {
                        b.iter(|| implementation.copy_and_sum(&mut target, black_box(&source)));
                    } else {
                        b.iter(|| implementation.sum(black_box(&source)));
                    }
                });
            }
        }
        group.finish();
    }
}

/// Options of a data segment: timestamps, and a DSS with everything in it.
fn data_options() -> OptionsBuf {
    let mut options = OptionsBuf::new();
    let timestamps = Timestamps {
        tsval: 123_456,
        tsecr: 654_321,
    };
    let dss = Dss {
        data_ack: Some(DataAck {
            value: 1 << 40,
            wide: true,
        }),
        mapping: Some(DssMapping {
            dsn: 1 << 41,
            wide: true,
            ssn: 1,
            len: 1448,
            checksum: None,
        }),
        data_fin: false,
    };
    options.timestamps(timestamps).expect("room for timestamps");
    let dss = MptcpOption::Dss(dss);
    options.mptcp(&dss).expect("room for a DSS");
    options
}

fn options(c: &mut Criterion) {
    let mut group = c.benchmark_group("options of a data segment");
    group.bench_function("emit", |b| b.iter(|| black_box(data_options())));
    let area = data_options();
    group.bench_function("parse", |b| {
        b.iter(|| TcpOptions::parse(black_box(area.as_slice())));
    });
    group.finish();
}

fn tuple(n: u32) -> FourTuple {
    let [a, b, high, low] = n.to_be_bytes();
    let client = Ipv4Addr::new(10, 1, a, b);
    FourTuple {
        local: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443),
        remote: SocketAddr::new(IpAddr::V4(client), u16::from_be_bytes([high, low])),
    }
}

fn flow(n: u32) -> Flow {
    Flow::Subflow {
        conn: n,
        subflow: SubflowId(0),
    }
}

fn flow_table(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow table");
    for flows in [1_000u32, 100_000] {
        let mut table = FlowTable::new([7; 16], 1 << 20);
        for n in 0..flows {
            table.insert(&tuple(n), flow(n)).expect("room");
        }
        group.bench_function(BenchmarkId::new("lookup, the same flow", flows), |b| {
            let tuple = tuple(1);
            b.iter(|| table.lookup(black_box(&tuple)));
        });
        // A stride that is coprime with the number of flows: no two in a row are near.
        let mut n = 0;
        group.bench_function(BenchmarkId::new("lookup, another flow", flows), |b| {
            b.iter(|| {
                n = (n + 7_919) % flows;
                table.lookup(black_box(&tuple(n)))
            });
        });
        group.bench_function(BenchmarkId::new("insert and remove", flows), |b| {
            let (new, flow) = (tuple(flows), flow(flows));
            b.iter(|| {
                let inserted = table.insert(black_box(&new), flow);
                table.remove(black_box(&new), flow);
                inserted
            });
        });
    }
    group.finish();
}

fn timer_wheel(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer wheel");
    for timers in [1_000u32, 100_000] {
        let start = Instant::default();
        let at = |ms: u64| Some(start + Duration::from_millis(ms));
        let mut wheel = TimerWheel::new(start);
        for id in 0..timers {
            wheel.schedule(id, at(200 + u64::from(id % 1000)));
        }
        let mut id = 0;
        group.bench_function(BenchmarkId::new("move a timer", timers), |b| {
            b.iter(|| {
                id = (id + 7_919) % timers;
                wheel.schedule(id, at(200 + u64::from(id % 999)));
            });
        });
        group.bench_function(BenchmarkId::new("next deadline", timers), |b| {
            b.iter(|| wheel.next_deadline());
        });
        // Every fired timer is set again, as retransmission timers are: time goes on for
        // ever and the wheel stays as full.
        let mut now = start;
        group.bench_function(BenchmarkId::new("advance by 1 ms", timers), |b| {
            let mut due = Vec::new();
            b.iter(|| {
                now += Duration::from_millis(1);
                wheel.advance(now, |id| due.push(id));
                for id in due.drain(..) {
                    wheel.schedule(id, Some(now + Duration::from_secs(1)));
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = micro;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = checksum, options, flow_table, timer_wheel
}
criterion_main!(micro);
