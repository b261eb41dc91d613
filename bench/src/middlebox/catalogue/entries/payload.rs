//! The catalogue's table: payload (F).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "F1",
        name: "payload changed, first data",
        what: "one bit, same length",
        variants: &[
            variant("c>s", |_| vec![Tcp::boxed(Flip::new(1, Way::ToServer))]),
            variant("s>c", |_| vec![Tcp::boxed(Flip::new(1, Way::ToClient))]),
            variant("both ways", |_| vec![Tcp::boxed(Flip::new(1, Way::Both))]),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        oracle: Oracle::Altered,
        linux: "F with checksum, M without",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "F2",
        name: "payload changed, mid-stream",
        what: "one bit in the 20th segment with data",
        variants: &[
            variant("c>s", |_| vec![Tcp::boxed(Flip::new(20, Way::ToServer))]),
            variant("s>c", |_| vec![Tcp::boxed(Flip::new(20, Way::ToClient))]),
            variant("both ways", |_| vec![Tcp::boxed(Flip::new(20, Way::Both))]),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        oracle: Oracle::Altered,
        linux: "X with checksum: 10/10",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "F3",
        name: "ALG grows the first data",
        what: "+5 bytes; sequence numbers and SACK translated",
        variants: &[
            variant("c>s", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(1, Edit::Grow(5), Way::ToServer)),
                ]
            }),
            variant("s>c", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(1, Edit::Grow(5), Way::ToClient)),
                ]
            }),
            variant("both ways", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(1, Edit::Grow(5), Way::Both)),
                ]
            }),
        ],
        allowed: &[
            (Placement::One, F.or(R)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, F.or(R)),
        ],
        oracle: Oracle::Altered,
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "F4",
        name: "ALG grows mid-stream",
        what: "+5 bytes in the 20th segment with data",
        variants: &[
            variant("c>s", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(20, Edit::Grow(5), Way::ToServer)),
                ]
            }),
            variant("s>c", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(20, Edit::Grow(5), Way::ToClient)),
                ]
            }),
            variant("both ways", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(20, Edit::Grow(5), Way::Both)),
                ]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        oracle: Oracle::Altered,
        linux: "X: truncated",
        ..HARMLESS_ENTRY
    },
    Entry {
        // Error: both ends may find out in the round trip in which the second path joins; one
        // falls back, the other resets the subflow.
        id: "F5",
        name: "ALG shrinks mid-stream",
        what: "-5 bytes in the 20th segment with data",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Gateway::new(20, Edit::Shrink(5), Way::ToServer))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Gateway::new(20, Edit::Shrink(5), Way::ToClient))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Gateway::new(20, Edit::Shrink(5), Way::Both))]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R).or(E)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R).or(E)),
        ],
        oracle: Oracle::Altered,
        linux: "X: truncated or duplicated",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "F6",
        name: "changed on one of two paths",
        what: "F2 and F4 where another path is left",
        variants: &[
            variant("flip, c>s", |_| {
                vec![Tcp::boxed(Flip::new(20, Way::ToServer))]
            }),
            variant("flip, s>c", |_| {
                vec![Tcp::boxed(Flip::new(20, Way::ToClient))]
            }),
            variant("grow, both ways", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                    Tcp::boxed(Gateway::new(20, Edit::Grow(5), Way::Both)),
                ]
            }),
            variant("shrink, both ways", |_| {
                vec![Tcp::boxed(Gateway::new(20, Edit::Shrink(5), Way::Both))]
            }),
        ],
        allowed: &[(Placement::Joined, M.or(R))],
        oracle: Oracle::Altered,
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "F7",
        name: "ALG answers itself",
        what: "the 20th segment vanishes, 13 bytes go back to its sender",
        variants: &[variant("c>s", |_| {
            vec![
                Tcp::boxed(Mss::new(MssChange::AtMost(1200), Way::Both)),
                Tcp::boxed(Gateway::new(20, Edit::Answer(13), Way::ToServer)),
            ]
        })],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        oracle: Oracle::Altered,
        linux: "not run",
        ..HARMLESS_ENTRY
    },
];
