//! One worker on memory ports, turned by hand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::app::Echo;
use crate::checksum::Sum;
use crate::io::memory::{MemoryConfig, MemoryPort, Wire};
use crate::mptcp::SubflowPath;
use crate::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use crate::wire::packet::{self, Packet};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;
use crate::wire::types::{AddressId, FourTuple};
use crate::worker::{EngineConfig, Service};

const SERVER: &str = "10.0.0.1:7";
const FRAMES: u32 = 96;

#[derive(Debug)]
struct Quiet;

impl Heartbeat for Quiet {
    fn beat(&mut self) {}
}

fn worker(tx_ring: u32) -> (Worker<MemoryPort, Quiet>, Wire) {
    let (port, wire) = MemoryPort::detached(MemoryConfig {
        tx_ring,
        ..MemoryConfig::default()
    });
    let mut engine = Engine::new(EngineConfig::default(), [5; 32], Instant::default());
    engine.set_services(vec![Service::new(
        "echo",
        vec![SERVER.parse().unwrap()],
        64,
        Box::new(|| App::Echo(Echo)),
    )]);
    let pool = FramePool::heap(FRAMES, 2048);
    assert!(pool.adopt());
    let worker = Worker::new(WorkerParts {
        index: 0,
        core: 0,
        engine,
        ports: vec![PortSlot {
            port,
            interface: PortId(0),
            pool: 0,
            mtu: 1500,
            carrier: true,
            checksum: RxChecksum::Verify,
            name: "mem0".to_owned(),
            ifindex: 1,
            queue: 0,
            mode_asked: PortMode::Native,
            segment_bytes: 0,
        }],
        pools: vec![pool],
        rings: HandOffRings::mesh(1).remove(0),
        mailboxes: vec![Arc::new(Mailbox::new().unwrap())],
        sleeping: Arc::new([Sleeping::default()]),
        events: Arc::new(EventQueue::new().unwrap()),
        heartbeat: Quiet,
        idle: Idle::Adaptive,
        epoch: std::time::Instant::now(),
    });
    (worker, wire)
}

fn l2() -> L2Header {
    L2Header {
        dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
        src: EthernetAddress([2, 0, 0, 0, 0, 9]),
        vlan: Default::default(),
    }
}

fn syn(port: u16) -> Vec<u8> {
    let tuple = FourTuple {
        local: SocketAddr::from(([10, 0, 0, 9], port)),
        remote: SERVER.parse().unwrap(),
    };
    let header = TcpHeaderOut {
        seq: SeqNumber(100),
        ack: SeqNumber(0),
        flags: Flags::SYN,
        window: 65_000,
        urgent: 0,
        ecn: 0,
    };
    let mut out = vec![0; 128];
    let template = HeaderTemplate::new(l2(), &tuple, 0, 64).unwrap();
    let n = template.emit(&mut out, &header, &OptionsBuf::new(), 0, Sum::default());
    out.truncate(n);
    out
}

fn flags(bytes: &[u8]) -> Flags {
    match packet::parse(bytes) {
        Ok(Packet::Tcp(tcp)) => tcp.flags,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_on_a_dead_port_leaves_the_worker_idle() {
    let (mut worker, _wire) = worker(64);
    let mail = |mail| worker.parts.mailboxes[0].send(mail).unwrap();
    mail(Mail::Carrier {
        port: PortId(0),
        up: false,
    });
    let (answer, token) = crossbeam::channel::bounded(1);
    mail(Mail::Connect {
        name: Arc::from("out"),
        path: SubflowPath {
            port: PortId(0),
            l2: l2(),
            tuple: FourTuple {
                local: "10.0.0.9:4000".parse().unwrap(),
                remote: SERVER.parse().unwrap(),
            },
            mtu: 1500,
            local_id: AddressId(0),
            remote_id: AddressId(0),
            backup: false,
        },
        app: App::Echo(Echo),
        answer,
    });
    assert!(worker.turn(Instant::from_millis(1)));
    assert!(token.recv().unwrap().is_ok());
    let busy = (2..102)
        .filter(|ms| worker.turn(Instant::from_millis(*ms)))
        .count();
    assert!(busy <= 20, "{busy} of 100 turns had work to do");
    let counters = worker.parts.engine.counters();
    assert_eq!(counters.get(Counter::TxRingFull), 0);
}

#[test]
fn a_stopping_worker_takes_leave_of_every_peer_and_keeps_no_frame() {
    let (mut worker, mut wire) = worker(8);
    let peers = 40;
    let mut resets = 0;
    let now = Instant::from_millis(1);
    for port in 1..=peers {
        assert!(wire.inject(&syn(port)));
        worker.turn(now);
        while let Some(bytes) = wire.take_transmitted() {
            assert!(flags(&bytes).contains(Flags::SYN));
        }
        worker.turn(now);
    }
    assert_eq!(worker.parts.engine.connections(), usize::from(peers));
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let over = over.clone();
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                while let Some(bytes) = wire.take_transmitted() {
                    resets += u16::from(flags(&bytes).contains(Flags::RST));
                }
                std::thread::yield_now();
            }
            resets
        })
    };
    assert!(worker.shut_down(), "frames leaked");
    over.store(true, Ordering::SeqCst);
    // The port takes back what nobody read in time: at most a ring.
    let resets = reader.join().unwrap();
    assert!(resets + 8 >= peers, "{resets} of {peers} peers were told");
}

#[test]
fn new_data_leave_frames_to_receiving_and_controls() {
    let (mut worker, _wire) = worker(64);
    let mut sink = Sink {
        ports: &mut worker.parts.ports,
        pools: &worker.parts.pools,
        first: &worker.first,
    };
    assert_eq!(sink.room(PortId(0)), 64);
    let mut held = Vec::new();
    while sink.room(PortId(0)) > ROOM_FOR_CONTROLS {
        held.push(sink.alloc(PortId(0)).unwrap());
    }
    let left = FRAMES - u32::try_from(held.len()).unwrap();
    assert!(left > FRAMES / PRESSURE_SHARE, "{left} frames left");
    assert_eq!(sink.room(PortId(0)), ROOM_FOR_CONTROLS);
}
