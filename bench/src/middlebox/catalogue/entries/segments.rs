//! The catalogue's table: segments split and merged, proxies (D, E).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "D1",
        name: "split, options on both",
        what: "cut in two as by TCP segmentation offload",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Split::new(0, Keep::Both, Way::ToServer))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Split::new(0, Keep::Both, Way::ToClient))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Split::new(0, Keep::Both, Way::Both))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "D2",
        name: "split, options on the first",
        what: "cut in two; the second part is bare",
        variants: &[
            variant("both ways, TS kept", |_| {
                vec![Tcp::boxed(
                    Split::new(0, Keep::First, Way::Both).knowing_timestamps(),
                )]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Split::new(0, Keep::First, Way::Both))]
            }),
            variant("both ways, at 100", |_| {
                vec![Tcp::boxed(
                    Split::new(100, Keep::First, Way::Both).knowing_timestamps(),
                )]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "D3",
        name: "split, options on the second",
        what: "cut in two; the first part is bare",
        variants: &[
            variant("both ways, TS kept", |_| {
                vec![Tcp::boxed(
                    Split::new(0, Keep::Second, Way::Both).knowing_timestamps(),
                )]
            }),
            variant("c>s", |_| {
                vec![Tcp::boxed(
                    Split::new(0, Keep::Second, Way::ToServer).knowing_timestamps(),
                )]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(
                    Split::new(0, Keep::Second, Way::ToClient).knowing_timestamps(),
                )]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Split::new(0, Keep::Second, Way::Both))]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        linux: "F; joined: R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "D4",
        name: "coalesced, first's options kept",
        what: "two segments become one; MSS clamped to 700 so that they fit",
        variants: &[
            variant("c>s", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(700), Way::Both)),
                    Tcp::boxed(Coalesce::pairs(HOLD, 1500, Header::First, Way::ToServer)),
                ]
            }),
            variant("s>c", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(700), Way::Both)),
                    Tcp::boxed(Coalesce::pairs(HOLD, 1500, Header::First, Way::ToClient)),
                ]
            }),
            variant("both ways", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(700), Way::Both)),
                    Tcp::boxed(Coalesce::pairs(HOLD, 1500, Header::First, Way::Both)),
                ]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            // Without checksums two such boxes cannot be told from ones that lengthen
            // payload: rather an error than wrong bytes.
            (Placement::Both, M.or(F).or(R).or(E)),
        ],
        linux: "X without checksum: truncated",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "D5",
        name: "coalesced, second's options kept",
        what: "two segments become one; MSS clamped to 700 so that they fit",
        variants: &[
            variant("c>s", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(700), Way::Both)),
                    Tcp::boxed(Coalesce::pairs(HOLD, 1500, Header::Last, Way::ToServer)),
                ]
            }),
            variant("s>c", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(700), Way::Both)),
                    Tcp::boxed(Coalesce::pairs(HOLD, 1500, Header::Last, Way::ToClient)),
                ]
            }),
            variant("both ways", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(700), Way::Both)),
                    Tcp::boxed(Coalesce::pairs(HOLD, 1500, Header::Last, Way::Both)),
                ]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        linux: "X as D4",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "D6",
        name: "aggregated like GRO",
        what: "as many as fit, without a look at options",
        variants: &[
            variant("MSS 300 to 1500 B", |_| {
                vec![
                    Tcp::boxed(Mss::new(MssChange::AtMost(300), Way::Both)),
                    Tcp::boxed(Coalesce::all(HOLD, 1500, Header::First, Way::Both)),
                ]
            }),
            // Beyond the box is an interface again, whose MTU these exceed.
            variant("64 KB, segmented again", |_| {
                vec![
                    Tcp::boxed(Resegment::new(1500, Way::ToClient)),
                    Tcp::boxed(Coalesce::all(HOLD, 65_000, Header::First, Way::Both)),
                    Tcp::boxed(Resegment::new(1500, Way::ToServer)),
                ]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "E1",
        name: "proactive ACKs",
        what: "a proxy acknowledges and repeats data itself, without options",
        variants: &[
            variant("both ways", |_| vec![Tcp::boxed(Pep::default())]),
            variant("both ways, 1% loss", |seed| {
                vec![
                    Tcp::boxed(Pep::default()),
                    Tcp::boxed(Lose::new(seed, 0.01)),
                ]
            }),
        ],
        allowed: &[
            (Placement::One, M.or(F)),
            (Placement::First, M.or(F).or(R)),
            (Placement::Joined, M.or(R)),
            (Placement::Both, M.or(F).or(R)),
        ],
        linux: "F; joined: M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "E2",
        name: "split TCP",
        what: "to both ends a terminating proxy: no option of theirs passes, sequence numbers and acknowledgments are its own",
        variants: &[variant("both ways", |seed| {
            vec![
                Tcp::boxed(Strip::new(What::Mptcp, When::Always, Way::Both)),
                Tcp::boxed(Renumber::random(seed, true)),
                Tcp::boxed(Pep::default()),
            ]
        })],
        allowed: &[
            (Placement::One, F),
            (Placement::First, F),
            (Placement::Joined, R),
            (Placement::Both, F.or(R)),
        ],
        linux: "F",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "E3",
        name: "window opened by a proxy",
        what: "window times 4",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::Times(4),
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::Times(4),
                    Way::ToClient,
                ))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Window::new(window::Change::Times(4), Way::Both))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
];
