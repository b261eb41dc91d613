//! The catalogue's table: MP_JOIN (C).

use super::*;

pub(super) static ENTRIES: &[Entry] = &[
    Entry {
        id: "C1",
        name: "MP_JOIN stripped from SYN",
        what: "kind 30 becomes NOPs",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Subtype(subtype::MP_JOIN),
                When::Syn,
                Way::ToServer,
            ))]
        })],
        allowed: &[(Placement::Joined, R)],
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C2",
        name: "MP_JOIN stripped from SYN/ACK",
        what: "kind 30 becomes NOPs",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Subtype(subtype::MP_JOIN),
                When::SynAck,
                Way::ToClient,
            ))]
        })],
        allowed: &[(Placement::Joined, R)],
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C3",
        name: "MP_JOIN stripped from the third ACK",
        what: "kind 30 becomes NOPs",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Subtype(subtype::MP_JOIN),
                When::PastSyn,
                Way::ToServer,
            ))]
        })],
        allowed: &[(Placement::Joined, R)],
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C4",
        name: "MP_JOIN altered",
        what: "one bit of HMAC or token",
        variants: &[
            variant("HMAC, third ACK", |_| {
                vec![Tcp::boxed(Alter::new(Field::JoinHmac))]
            }),
            variant("HMAC, SYN/ACK", |_| {
                vec![Tcp::boxed(Alter::new(Field::JoinSynAckHmac))]
            }),
            variant("token", |_| vec![Tcp::boxed(Alter::new(Field::JoinToken))]),
        ],
        allowed: &[(Placement::Joined, R)],
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C5",
        name: "MP_JOIN SYN dropped",
        what: "as if nobody was there",
        variants: &[variant("c>s", |_| {
            vec![Tcp::boxed(Swallow::new(
                Victim::SynWith(What::Subtype(subtype::MP_JOIN)),
                Way::ToServer,
            ))]
        })],
        allowed: &[(Placement::Joined, R)],
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C6",
        name: "ADD_ADDR stripped",
        what: "announcement and echo",
        variants: &[variant("both ways", |_| {
            vec![Tcp::boxed(Strip::new(
                What::Subtype(subtype::ADD_ADDR),
                When::Always,
                Way::Both,
            ))]
        })],
        announces: true,
        linux: "M",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C7",
        name: "stripped on the joined path",
        what: "behind the handshake",
        variants: &[
            variant("all, both ways", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(2),
                    Way::Both,
                ))]
            }),
            variant("after 60, both ways", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(60),
                    Way::Both,
                ))]
            }),
            variant("after 60, c>s", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(60),
                    Way::ToServer,
                ))]
            }),
            variant("s>c", |_| {
                vec![Tcp::boxed(Strip::new(
                    What::Mptcp,
                    When::After(2),
                    Way::ToClient,
                ))]
            }),
        ],
        allowed: &[(Placement::Joined, R)],
        linux: "R",
        ..HARMLESS_ENTRY
    },
    Entry {
        id: "C8",
        name: "inbound SYN blocked",
        what: "a firewall lets connections out only",
        variants: &[variant("s>c", |_| {
            vec![Tcp::boxed(Swallow::new(Victim::Syn, Way::ToClient))]
        })],
        may_idle: true,
        linux: "by design",
        ..HARMLESS_ENTRY
    },
];
