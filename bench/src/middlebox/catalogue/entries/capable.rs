//! The catalogue's table: MP_CAPABLE and DSS options (B).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "B1",
        name: "MP_CAPABLE stripped from SYN",
        what: "kind 30 becomes NOPs",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::Syn,
                    Way::ToServer,
                ))]
            }),
            variant("c>s, cut out", |_| {
                vec![Tcp::boxed(
                    Strip::new(What::Mptcp, When::Syn, Way::ToServer).leaving(Leave::Nothing),
                )]
            }),
        ],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B2",
        name: "MP_CAPABLE stripped from SYN/ACK",
        what: "kind 30 becomes NOPs",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Mptcp,
                When::SynAck,
                Way::ToClient,
            ))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B3",
        name: "stripped from the third ACK",
        what: "only the first bare ACK of the client",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Mptcp,
                When::Third,
                Way::ToServer,
            ))]
        })],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F)),
            (Placement::Both, M.or(F).or(R)),
        ],
        may_idle: true, // A client with data sends no bare third ACK.
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B4",
        name: "third ACK lost",
        what: "the first bare ACK of the client is dropped",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Swallow::new(
                Victim::FirstBareAck,
                Way::ToServer,
            ))]
        })],
        may_idle: true, // A client with data sends no bare third ACK.
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B5",
        name: "stripped from all non-SYN",
        what: "kind 30 passes in SYNs only",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Mptcp,
                When::PastSyn,
                Way::Both,
            ))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B6",
        name: "stripped from non-SYN c>s",
        what: "the server sees bare data",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Mptcp,
                When::PastSyn,
                Way::ToServer,
            ))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B7",
        name: "stripped from non-SYN s>c",
        what: "DATA_ACKs are lost, data is mapped",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Mptcp,
                When::PastSyn,
                Way::ToClient,
            ))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B8",
        name: "options replaced by EOL",
        what: "from the first MPTCP option on, the rest of the option area is zero",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(
                Strip::new(What::Mptcp, When::PastSyn, Way::Both).leaving(Leave::EndOfList),
            )]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B9",
        name: "stripped after n packets",
        what: "a route change in mid-connection",
        variants: &[
            variant("c>s, after 60", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(60),
                    Way::ToServer,
                ))]
            }),
            variant("c>s, after 7", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(7),
                    Way::ToServer,
                ))]
            }),
            variant("s>c, after 60", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(60),
                    Way::ToClient,
                ))]
            }),
            variant("s>c, after 7", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(7),
                    Way::ToClient,
                ))]
            }),
            variant("both ways, after 60", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(60),
                    Way::Both,
                ))]
            }),
            variant("both ways, after 7", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(7),
                    Way::Both,
                ))]
            }),
        ],
        allowed: &[
            (Placement::One, F.or(R).or(E)),
            (Placement::First, F.or(R)),
            (Placement::Both, F.or(R).or(E)),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B10",
        name: "every second DSS stripped",
        what: "on segments with payload",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::EverySecondData,
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::EverySecondData,
                    Way::ToClient,
                ))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::EverySecondData,
                    Way::Both,
                ))]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F).or(R).or(E)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R).or(E)),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B11",
        name: "stripped from pure ACKs",
        what: "MPTCP options pass with payload only",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::PureAck,
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::PureAck,
                    Way::ToClient,
                ))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::PureAck,
                    Way::Both,
                ))]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F)),
            (Placement::Joined, M.or(R)),
            // Once data flows one way only, no DATA_ACK passes at all.
            (Placement::Both, M.or(F).or(R).or(E)),
        ],
        linux: "F or M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B12",
        name: "SYN with unknown option dropped",
        what: "as if nobody was there",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Swallow::new(
                Victim::SynWith(What::Mptcp),
                Way::ToServer,
            ))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F after 3 SYNs",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B13",
        name: "SYN/ACK with unknown option dropped",
        what: "as if nobody answered",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(Swallow::new(
                Victim::SynAckWith(What::Mptcp),
                Way::ToClient,
            ))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "X: never connects",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B14",
        name: "RST to SYN with unknown option",
        what: "in the name of the server",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Refuse::new(What::Mptcp))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "X: refused",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B15",
        name: "non-SYN with kind 30 dropped",
        what: "only bare segments pass behind the SYNs",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Swallow::new(
                    Victim::PastSynWith(What::Mptcp),
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Swallow::new(
                    Victim::PastSynWith(What::Mptcp),
                    Way::ToClient,
                ))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Swallow::new(
                    Victim::PastSynWith(What::Mptcp),
                    Way::Both,
                ))]
            }),
        ],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F.or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, F.or(R).or(E)),
        ],
        linux: "X: no progress; joined path: R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B16",
        name: "SYN option echoed",
        what: "the server sees none, the client its own",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Mirror::default())]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B17",
        name: "version rewritten to 0",
        what: "in the SYN",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Alter::new(Field::Version))]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Both, F),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B18",
        name: "key altered in SYN/ACK",
        what: "one bit of the server's key",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(Alter::new(Field::ServerKey))]
        })],
        allowed: &[
            (Placement::One, F.or(E)),
            (Placement::First, F.or(E)),
            (Placement::Both, F.or(E)),
        ],
        linux: "X: stall",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "B19",
        name: "key altered behind the SYN",
        what: "one bit of a key in the third ACK and MP_CAPABLE with data",
        variants: &[
            variant("client's key", |_| {
                vec![Tcp::boxed(Alter::new(Field::ClientKey))]
            }),
            variant("server's key", |_| {
                vec![Tcp::boxed(Alter::new(Field::EchoedKey))]
            }),
        ],
        allowed: &[
            (Placement::One, F.or(E)),
            (Placement::First, F.or(E)),
            (Placement::Both, F.or(E)),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
];
