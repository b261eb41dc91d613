//! The catalogue's table: normalizers and windows (G).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "G1",
        name: "consistent retransmission",
        what: "what is sent again is replaced by what was sent first; 1% loss behind it",
        variants: &[variant("both ways", |seed| {
            vec![
                Tcp::boxed(Consistent::default()),
                Tcp::boxed(Lose::new(seed, 0.01)),
            ]
        })],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "G2",
        name: "holes refused",
        what: "nothing passes behind a hole; 1% loss",
        variants: &[variant("both ways", |seed| {
            vec![Tcp::boxed(NoHoles::new(seed, 0.01))]
        })],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "G3",
        name: "window-shrink normalizer",
        what: "drops segments whose right edge moved left",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(ShrinkGuard::default())]
        })],
        may_idle: true,
        linux: "2 paths: 9 of 14 runs stalled",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "G4",
        name: "window clamped",
        what: "40, not scaled",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::AtMost(40),
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::AtMost(40),
                    Way::ToClient,
                ))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::AtMost(40),
                    Way::Both,
                ))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "G5",
        name: "window zeroed now and then",
        what: "10 of 50 packets",
        variants: &[
            variant("c>s", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::Zero { zero: 10, of: 50 },
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::Zero { zero: 10, of: 50 },
                    Way::ToClient,
                ))]
            }),
            variant("both ways", |_| {
                vec![Tcp::boxed(Window::new(
                    window::Change::Zero { zero: 10, of: 50 },
                    Way::Both,
                ))]
            }),
        ],
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "G6",
        name: "overlaps trimmed",
        what: "and the byte of keepalives dropped; 2% loss behind it",
        variants: &[variant("both ways", |seed| {
            vec![
                Tcp::boxed(TrimOverlap::default()),
                Tcp::boxed(Lose::new(seed, 0.02)),
            ]
        })],
        linux: "not run",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "G7",
        name: "ACK of unseen data",
        what: "dropped or corrected",
        variants: &[
            variant("dropped", |_| {
                vec![Tcp::boxed(AckGuard::new(Unseen::Drop, Way::Both))]
            }),
            variant("corrected", |_| {
                vec![Tcp::boxed(AckGuard::new(Unseen::Correct, Way::Both))]
            }),
        ],
        may_idle: true,
        linux: "M by design",
        ..HARMLESS_ENTRY
    },
];
