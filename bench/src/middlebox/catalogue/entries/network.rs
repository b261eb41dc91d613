//! The catalogue's table: loss, delay, resets (H, I).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "H1",
        name: "reordering",
        what: "10% wait for the next packet, or 20 ms",
        variants: &[variant("both ways", |seed| {
            vec![Tcp::boxed(Reorder::new(
                seed,
                0.1,
                Duration::from_millis(20),
            ))]
        })],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "H2",
        name: "duplication",
        what: "every packet twice",
        variants: &[variant("both ways", |_| vec![Tcp::boxed(Duplicate)])],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "H3",
        name: "loss",
        what: "2%",
        variants: &[variant("both ways", |seed| {
            vec![Tcp::boxed(Lose::new(seed, 0.02))]
        })],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "H4",
        name: "bufferbloat",
        what: "10 Mb/s behind a queue of 300 ms",
        variants: &[variant("both ways", |_| {
            vec![Box::new(Queue::new(1_250_000, Duration::from_millis(300)))]
        })],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "I1",
        name: "RST both ways",
        what: "injected in mid-stream, once",
        variants: &[variant("after 60", |_| {
            vec![Tcp::boxed(Reset::new(60, Way::Both))]
        })],
        allowed: &[
            (Placement::One, R.or(E)),
            (Placement::First, M.or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, R.or(E)),
        ],
        linux: "1 path: silent for 25 s; 2: R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "I2",
        name: "RST to one side",
        what: "injected in mid-stream, once",
        variants: &[
            variant("to the client", |_| {
                vec![Tcp::boxed(Reset::new(60, Way::ToClient))]
            }),
            variant("to the server", |_| {
                vec![Tcp::boxed(Reset::new(60, Way::ToServer))]
            }),
        ],
        allowed: &[
            (Placement::One, R.or(E)),
            (Placement::First, M.or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, R.or(E)),
        ],
        linux: "as I1",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "I3",
        name: "blackhole",
        what: "after n packets of a flow",
        variants: &[
            variant("c>s, after 60", |_| {
                vec![Tcp::boxed(Blackhole::new(
                    Until::Packets(60),
                    Way::ToServer,
                ))]
            }),
            variant("s>c, after 60", |_| {
                vec![Tcp::boxed(Blackhole::new(
                    Until::Packets(60),
                    Way::ToClient,
                ))]
            }),
            variant("both ways, after 60", |_| {
                vec![Tcp::boxed(Blackhole::new(Until::Packets(60), Way::Both))]
            }),
        ],
        allowed: &[
            (Placement::One, R.or(E)),
            (Placement::First, M.or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, R.or(E)),
        ],
        linux: "2 paths: M/R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "I4",
        name: "NAT idle timeout",
        what: "after 10 s of silence nothing passes any more",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Blackhole::new(
                Until::Silence(Duration::from_secs(10)),
                Way::Both,
            ))]
        })],
        allowed: &[
            (Placement::One, M.or(R).or(E)),
            (Placement::First, M.or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(R).or(E)),
        ],
        may_idle: true,
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "I5",
        name: "blind injection",
        what: "by someone who knows the four-tuple only",
        variants: &[
            variant("RST", |_| vec![Tcp::boxed(Inject::new(Blind::Rst, 10))]),
            variant("RST in window", |_| {
                vec![Tcp::boxed(Inject::new(Blind::RstInWindow, 10))]
            }),
            variant("SYN", |_| vec![Tcp::boxed(Inject::new(Blind::Syn, 10))]),
            variant("data", |_| vec![Tcp::boxed(Inject::new(Blind::Data, 10))]),
            variant("ADD_ADDR", |_| {
                vec![Tcp::boxed(Inject::new(Blind::AddAddr, 10))]
            }),
            variant("MP_FASTCLOSE", |_| {
                vec![Tcp::boxed(Inject::new(Blind::FastClose, 10))]
            }),
        ],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
];
