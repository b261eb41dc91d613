//! The catalogue's table: headers, fast open, routing (J to L).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "J1",
        name: "timestamps stripped from data",
        what: "though they were negotiated",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Kind(TIMESTAMPS),
                When::PastSyn,
                Way::Both,
            ))]
        })],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J2",
        name: "timestamps stripped from SYN",
        what: "timestamps stripped from SYN",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Kind(TIMESTAMPS),
                    When::Syn,
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Kind(TIMESTAMPS),
                    When::SynAck,
                    Way::ToClient,
                ))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J3",
        name: "SACK-permitted stripped",
        what: "2% loss behind it",
        variants: &[
            variant("c>s", |seed| {
                vec![
                    Tcp::boxed(Strip::new(
                        What::Kind(SACK_PERMITTED),
                        When::Syn,
                        Way::ToServer,
                    )),
                    Tcp::boxed(Lose::new(seed, 0.02)),
                ]
            }),
            variant("s>c", |seed| {
                vec![
                    Tcp::boxed(Strip::new(
                        What::Kind(SACK_PERMITTED),
                        When::SynAck,
                        Way::ToClient,
                    )),
                    Tcp::boxed(Lose::new(seed, 0.02)),
                ]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J4",
        name: "window scale stripped",
        what: "from one SYN: from the SYN/ACK, only one side notices",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Kind(WINDOW_SCALE),
                    When::Syn,
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Kind(WINDOW_SCALE),
                    When::SynAck,
                    Way::ToClient,
                ))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J5",
        name: "MSS clamped",
        what: "to 536",
        variants: &[
            variant("both ways", |_| {
                vec![Tcp::boxed(Mss::new(MssChange::AtMost(536), Way::Both))]
            }),
            variant("halved, c>s", |_| {
                vec![Tcp::boxed(Mss::new(MssChange::Divide(2), Way::ToServer))]
            }),
            variant("less 100, s>c", |_| {
                vec![Tcp::boxed(Mss::new(MssChange::Add(-100), Way::ToClient))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J6",
        name: "urgent pointer",
        what: "cleared, or set where nobody meant it",
        variants: &[
            variant("cleared", |_| {
                vec![Tcp::boxed(SetUrgent::new(10)), Tcp::boxed(ClearUrgent)]
            }),
            variant("set", |_| vec![Tcp::boxed(SetUrgent::new(10))]),
        ],
        linux: "no URG sent",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J7",
        name: "ECN bleached",
        what: "ECT and CE become Not-ECT",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(IpHeader::new(IpField::BleachEcn))]
        })],
        may_idle: true,
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J8",
        name: "IP id, TTL, DSCP rewritten",
        what: "IP id, TTL, DSCP rewritten",
        variants: &[
            variant("both ways", |_| {
                vec![Tcp::boxed(IpHeader::new(IpField::Rewrite {
                    hops: 5,
                    dscp: 46,
                    id: 1000,
                }))]
            }),
            variant("ChangeIPID", |_| vec![Tcp::boxed(IpHeader::change_id(77))]),
        ],
        linux: "M by design",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "J9",
        name: "options reordered",
        what: "reserved bits cleared, padding moved to the end",
        variants: &[variant("both ways", |_| vec![Tcp::boxed(Tidy)])],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "K1",
        name: "SYN with payload dropped",
        what: "fast open",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Swallow::new(Victim::SynWithPayload, Way::Both))]
        })],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        may_idle: true,
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "K2",
        name: "SYN payload removed",
        what: "fast open",
        variants: &[variant("both ways", |_| vec![Tcp::boxed(EmptySyn)])],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        may_idle: true,
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "K3",
        name: "fast open option stripped",
        what: "fast open option stripped",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Kind(FAST_OPEN),
                When::Always,
                Way::Both,
            ))]
        })],
        may_idle: true,
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "L1",
        name: "one direction lost",
        what: "a path that after 60 packets carries one direction only",
        variants: &[
            variant("s>c lost", |_| {
                vec![Tcp::boxed(Blackhole::new(
                    Until::Packets(60),
                    Way::ToClient,
                ))]
            }),
            variant("c>s lost", |_| {
                vec![Tcp::boxed(Blackhole::new(
                    Until::Packets(60),
                    Way::ToServer,
                ))]
            }),
        ],
        allowed: &[
            (Placement::One, R.or(E)),
            (Placement::First, M.or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, R.or(E)),
        ],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "L2",
        name: "load balancer",
        what: "the join reaches a host that does not know the token",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Refuse::new(What::Subtype(subtype::MP_JOIN)))]
        })],
        allowed: &[(Placement::Joined, R)],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "L3",
        name: "MTU hole",
        what: "packets above 1300 bytes vanish",
        variants: &[
            variant("silent", |_| vec![Tcp::boxed(MtuHole::new(1300, false))]),
            variant("with ICMP", |_| vec![Tcp::boxed(MtuHole::new(1300, true))]),
        ],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
];
