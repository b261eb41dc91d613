//! What the two ways to tell a shared window cost and gain.
//!
//! A client sends to a reader that may be slower than the paths, over one to three links.
//! Either the header windows alone tell the window (clamped: no subflow's right edge moves
//! left), or both ends also have the window option. A box on every link may watch the right
//! edges and drop what takes a window back.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use braid_dataplane::counters::Counter;
use braid_dataplane::wire::packet::{Packet, TcpPacket, parse};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use crate::sim::{Filter, HostConfig, LinkConfig, Role, Sim};

const CLIENT: usize = 0;
const SERVER: usize = 1;
const PORT: u16 = 9;
/// No run takes longer in virtual time.
const LIMIT: Duration = Duration::from_secs(120);

/// One link of an experiment.
#[derive(Copy, Clone, Debug)]
pub struct Path {
    /// Rate in Mb/s.
    pub mbps: u64,
    /// One-way delay.
    pub delay: Duration,
}

impl Path {
    /// `mbps` with a one-way delay of `ms` milliseconds.
    #[must_use]
    pub const fn new(mbps: u64, ms: u64) -> Self {
        Self {
            mbps,
            delay: Duration::from_millis(ms),
        }
    }
}

/// How the reader reads.
#[derive(Copy, Clone, Debug)]
pub enum Reading {
    /// So many bytes every millisecond.
    Steady(u64),
    /// Everything it may want, but only so often.
    Bursts(Duration),
}

/// One experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// What it is called in the table.
    pub name: &'static str,
    /// The links.
    pub paths: Vec<Path>,
    /// The reader.
    pub reading: Reading,
    /// Receive buffer of the connection, bytes.
    pub buffer_bytes: u32,
    /// Bytes to move.
    pub bytes: u64,
}

/// How the window is told, and what watches it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Both ends have `window-option`.
    pub option: bool,
    /// A normaliser on every link.
    pub normalizer: bool,
}

/// What came of it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Until the last byte was read.
    pub time: Duration,
    /// Packets that the normalisers dropped.
    pub shrink_drops: u64,
    /// Packets that the normalisers judged.
    pub judged: u64,
    /// Bytes that the receiver dropped because they lay beyond the connection's window.
    pub beyond_window_bytes: u64,
    /// Segments sent again at connection level.
    pub reinjected: u64,
    /// Most bytes that waited in the receiver, in order or not, above TCP.
    pub held_max_bytes: u64,
    /// Packets from the receiver.
    pub acks: u64,
    /// Bytes of them.
    pub ack_bytes: u64,
    /// Of them, with the window option.
    pub options: u64,
}

/// Remembers the right edge of every direction it sees and drops the packets that take it
/// back by more than a unit of the window field.
#[derive(Debug, Default)]
struct Normalizer {
    /// By (source, destination) as on the wire: largest right edge, window shift.
    directions: HashMap<(std::net::SocketAddr, std::net::SocketAddr), Direction>,
}

#[derive(Debug, Default)]
struct Direction {
    edge: Option<SeqNumber>,
    shift: u8,
    /// The SYN of this direction had the window scale option.
    scales: bool,
}

impl Normalizer {
    /// Whether the packet may pass.
    fn judge(&mut self, packet: &TcpPacket) -> bool {
        // As received: local is the destination.
        let own = (packet.tuple.remote, packet.tuple.local);
        let peer = (packet.tuple.local, packet.tuple.remote);
        let syn = packet.flags.contains(Flags::SYN);
        let peer_scales = self.directions.get(&peer).is_some_and(|d| d.scales);
        let direction = self.directions.entry(own).or_default();
        if syn {
            direction.scales = packet.options.window_scale.is_some();
            direction.shift = packet.options.window_scale.unwrap_or(0);
        }
        if !packet.flags.contains(Flags::ACK) {
            return true;
        }
        let shift = if !syn && direction.scales && peer_scales {
            direction.shift
        } else {
            0
        };
        let edge = packet.ack + (u32::from(packet.window) << shift);
        let before = *direction.edge.get_or_insert(edge);
        direction.edge = Some(before.later(edge));
        edge + (1 << shift) >= before
    }
}

/// A normaliser for one link; it counts what it judged and what it dropped.
#[must_use]
pub fn normalizer(judged: Rc<Cell<u64>>, dropped: Rc<Cell<u64>>) -> Filter {
    let mut state = Normalizer::default();
    Box::new(move |_, frame| {
        let Ok(Packet::Tcp(packet)) = parse(frame) else {
            return true;
        };
        judged.set(judged.get() + 1);
        let passes = state.judge(&packet);
        dropped.set(dropped.get() + u64::from(!passes));
        passes
    })
}

/// Runs one experiment.
///
/// # Panics
/// If the stream does not arrive whole and in time: there is nothing to measure then.
#[must_use]
pub fn run(experiment: &Experiment, variant: Variant, seed: u64) -> Measured {
    let mut sim = Sim::new(seed);
    for host in [CLIENT, SERVER] {
        let mut config = HostConfig::default();
        config.mptcp.recv_buffer_initial = experiment.buffer_bytes;
        config.mptcp.recv_buffer_bytes = experiment.buffer_bytes;
        config.mptcp.send_buffer_bytes = experiment.buffer_bytes.max(2 << 20);
        config.mptcp.window_option = variant.option;
        assert_eq!(sim.add_host(&config), host);
    }
    let (judged, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    for path in &experiment.paths {
        let filters: Vec<Filter> = if variant.normalizer {
            vec![normalizer(judged.clone(), dropped.clone())]
        } else {
            Vec::new()
        };
        sim.add_link(
            CLIENT,
            SERVER,
            LinkConfig {
                rate_bps: Some(path.mbps * 1_000_000),
                delay: path.delay,
                filters,
                ..LinkConfig::default()
            },
        );
    }
    let reader = sim.host(SERVER).serve(&[(PORT, Role::Reader)]).remove(0);
    match experiment.reading {
        Reading::Steady(bytes) => {
            sim.read_slowly(SERVER, reader.clone(), bytes, Duration::from_millis(1));
        }
        Reading::Bursts(every) => sim.read_in_bursts(SERVER, reader.clone(), every),
    }
    let send = experiment.bytes;
    sim.connect(CLIENT, 0, PORT, Role::Peer { send });
    let mut held_max_bytes = 0;
    let start = sim.elapsed();
    let watched = reader.clone();
    let mut sampled = start;
    sim.run_until(LIMIT, |sim| {
        if sim.elapsed() >= sampled {
            sampled = sim.elapsed() + Duration::from_millis(1);
            let now = sim.now();
            let conns = sim.host(SERVER).engine().conns(now, 0, 1);
            for (_, conn) in conns {
                held_max_bytes =
                    held_max_bytes.max(conn.recv_queue_bytes + conn.out_of_order_bytes);
            }
        }
        watched.get().received == send
    });
    let outcome = reader.get();
    let counters = [CLIENT, SERVER].map(|host| format!("{:?}", sim.host(host).counters()));
    assert_eq!(
        (outcome.received, outcome.wrong_at),
        (send, None),
        "{}, {variant:?}: {counters:?}",
        experiment.name,
    );
    let links = experiment.paths.len();
    Measured {
        time: sim.elapsed() - start,
        shrink_drops: dropped.get(),
        judged: judged.get(),
        beyond_window_bytes: sim.host(SERVER).count(Counter::BeyondWindowBytes),
        reinjected: sim.host(CLIENT).count(Counter::MPTCPRetrans),
        held_max_bytes,
        acks: (0..links).map(|l| sim.link(l).sent[1]).sum(),
        ack_bytes: (0..links).map(|l| sim.link(l).sent_bytes[1]).sum(),
        options: sim.host(SERVER).count(Counter::WindowOptionTx),
    }
}

/// The experiments of the table.
#[must_use]
pub fn experiments() -> Vec<Experiment> {
    let mib = 1 << 20;
    vec![
        Experiment {
            name: "one path, fast reader",
            paths: vec![Path::new(100, 5)],
            reading: Reading::Steady(1_000_000),
            buffer_bytes: mib,
            bytes: 10 << 20,
        },
        Experiment {
            name: "two equal paths, reader at 40 Mb/s",
            paths: vec![Path::new(50, 10), Path::new(50, 10)],
            reading: Reading::Steady(5_000),
            buffer_bytes: mib,
            bytes: 10 << 20,
        },
        Experiment {
            name: "asymmetric paths, reader at 40 Mb/s",
            paths: vec![Path::new(50, 5), Path::new(10, 80)],
            reading: Reading::Steady(5_000),
            buffer_bytes: mib / 2,
            bytes: 10 << 20,
        },
        Experiment {
            name: "asymmetric paths, fast reader",
            paths: vec![Path::new(50, 5), Path::new(10, 80)],
            reading: Reading::Steady(1_000_000),
            buffer_bytes: mib / 2,
            bytes: 10 << 20,
        },
        Experiment {
            name: "three paths, reads every 400 ms",
            paths: vec![Path::new(50, 5), Path::new(30, 20), Path::new(20, 40)],
            reading: Reading::Bursts(Duration::from_millis(400)),
            buffer_bytes: mib / 2,
            bytes: 5 << 20,
        },
    ]
}

/// The document: a table of every experiment in every variant.
#[must_use]
pub fn report() -> String {
    let mut out = String::from(HEAD);
    for experiment in experiments() {
        for option in [false, true] {
            for normalizer in [false, true] {
                let m = run(&experiment, Variant { option, normalizer }, 1);
                let seconds = m.time.as_secs_f64();
                // Writing to a string does not fail.
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {:.3} | {:.1} | {} | {} | {} | {} | {} | {} | {} |",
                    experiment.name,
                    if option { "option" } else { "header" },
                    if normalizer { "yes" } else { "no" },
                    seconds,
                    experiment.bytes as f64 * 8.0 / seconds / 1e6,
                    m.shrink_drops,
                    m.beyond_window_bytes / 1024,
                    m.reinjected,
                    m.held_max_bytes / 1024,
                    m.acks,
                    m.ack_bytes / 1024,
                    m.options,
                );
            }
        }
    }
    out
}

const HEAD: &str = "\
# The shared window: in the header only, or in an option

Made by `braid-bench sim-report windows --write bench/docs`; a test fails when this file and
the simulation differ.

A client sends 10 MiB (5 MiB in the last experiment) to a reader over one to three simulated
paths; the receive buffer is 1 MiB or 512 KiB. *header*: the window is told as RFC 8684 has it,
by the header window of every subflow, whose right edge never moves left. *option*: both ends
have `window-option = true`. *Normaliser*: a box on every path drops packets that move a
subflow's right edge left.

- *Dropped by box*: packets that took a window back.
- *Beyond window*: KiB that arrived beyond the connection's window, were dropped above TCP and
  had to be sent again.
- *Resent*: segments sent again at connection level, for that or any other reason.
- *Held*: most KiB that waited in the receiver.
- *ACKs*: packets and KiB that the receiver sent, and how many of them had the option.

What it shows: header windows that never shrink lose nothing to the boxes, but with several
subflows they promise one buffer more than once; a slow reader then holds up to twice its
buffer, and beyond that data is dropped and sent again. The option keeps the receiver within
its buffer and the sender from filling the slower path with what nobody will take, for eight
bytes on each ACK without payload that has the room.

| experiment | window | normaliser | seconds | Mb/s | dropped by box | beyond window | resent | held | ACKs | ACK KiB | with option |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
";
