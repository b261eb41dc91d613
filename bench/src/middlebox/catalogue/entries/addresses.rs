//! The catalogue's table: addresses and sequence numbers (A).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "A1",
        name: "NAT",
        what: "another source port and address for the client",
        variants: &[
            variant("port", |_| vec![Tcp::boxed(Nat::new(None, Rebind::Never))]),
            variant("address and port", |_| {
                vec![Tcp::boxed(Nat::new(Some(OUTSIDE), Rebind::Never))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "A2",
        name: "NAT rebinding",
        what: "a new outside port in mid-connection; the old mapping is gone",
        variants: &[variant("after 60 packets", |_| {
            vec![Tcp::boxed(Nat::new(None, Rebind::AfterPackets(60)))]
        })],
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
        id: "A3",
        name: "ISN randomiser",
        what: "other sequence numbers each way, SACK blocks translated",
        variants: &[variant("both ways", |seed| {
            vec![Tcp::boxed(Renumber::random(seed, true))]
        })],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "A4",
        name: "ISN randomiser, SACK left",
        what: "other sequence numbers, SACK blocks left as they are",
        variants: &[
            variant("both ways", |seed| {
                vec![Tcp::boxed(Renumber::random(seed, false))]
            }),
            variant("both ways, 1% loss", |seed| {
                vec![
                    Tcp::boxed(Renumber::random(seed, false)),
                    Tcp::boxed(Lose::new(seed, 0.01)),
                ]
            }),
            variant("ChangeSeq c>s", |_| {
                vec![Tcp::boxed(Renumber::change_seq(0x1234_5678))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "A5",
        name: "private ADD_ADDR",
        what: "an announced address becomes another one, its HMAC stays",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(RewriteAnnounced::new(Way::ToClient))]
        })],
        // The second address is announced on the first path, too: spoiled there, the client
        // may never learn it, and the second path stays unused.
        allowed: &[
            (Placement::One, M),
            (Placement::First, M.or(R)),
            (Placement::Joined, M),
            (Placement::Both, M.or(R)),
        ],
        announces: true,
        linux: "join SYN lost: M",
        ..HARMLESS_ENTRY
    },
];
