//! The catalogue's table, by groups.

mod addresses;
mod capable;
mod headers;
mod join;
mod network;
mod payload;
mod segments;
mod streams;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::Duration;

use braid_dataplane::wire::mptcp::subtype;

use super::{Entry, Oracle, Outcomes, Placement, Variant};
use crate::middlebox::Element;
use crate::middlebox::coalesce::{Coalesce, Header};
use crate::middlebox::fastopen::EmptySyn;
use crate::middlebox::handshake::{Alter, Field, Mirror, Refuse, Swallow, Victim};
use crate::middlebox::nat::{Nat, Rebind, Renumber, RewriteAnnounced};
use crate::middlebox::network::{
    Blackhole, Duplicate, IpField, IpHeader, Lose, MtuHole, Queue, Reorder, Until,
};
use crate::middlebox::normalize::{AckGuard, Consistent, NoHoles, TrimOverlap, Unseen};
use crate::middlebox::options::{ClearUrgent, Mss, MssChange, SetUrgent, Tidy};
use crate::middlebox::proxy::Pep;
use crate::middlebox::reset::{Blind, Inject, Reset};
use crate::middlebox::rewrite::{Edit, Flip, Gateway};
use crate::middlebox::rule::{Tcp, Way};
use crate::middlebox::segment::{FAST_OPEN, SACK_PERMITTED, TIMESTAMPS, WINDOW_SCALE};
use crate::middlebox::split::{Keep, Resegment, Split};
use crate::middlebox::strip::{Leave, Strip, What, When};
use crate::middlebox::window::{self, ShrinkGuard, Window};

/// Outside addresses of the NAT, of the ranges for documentation (RFC 5737, RFC 3849).
const OUTSIDE: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(203, 0, 113, 9),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
);
/// How long a coalescing box waits for the next segment.
const HOLD: Duration = Duration::from_millis(5);

const M: Outcomes = Outcomes::MPTCP;
const F: Outcomes = Outcomes::FALLBACK;
const R: Outcomes = Outcomes::RESET;
const E: Outcomes = Outcomes::ERROR;

const fn variant(name: &'static str, build: fn(u64) -> Vec<Box<dyn Element>>) -> Variant {
    Variant { name, build }
}

/// Most entries may stand anywhere, and nothing may come of them.
const HARMLESS_ENTRY: Entry = Entry {
    id: "",
    name: "",
    what: "",
    variants: &[],
    allowed: &[
        (Placement::One, M),
        (Placement::First, M),
        (Placement::Joined, M),
        (Placement::Both, M),
    ],
    oracle: Oracle::Sent,
    announces: false,
    may_idle: false,
    linux: "",
};

static CATALOGUE: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    [
        addresses::ENTRIES,
        capable::ENTRIES,
        join::ENTRIES,
        segments::ENTRIES,
        payload::ENTRIES,
        streams::ENTRIES,
        network::ENTRIES,
        headers::ENTRIES,
    ]
    .concat()
});

/// Every entry, in the catalogue's order.
#[must_use]
pub fn catalogue() -> &'static [Entry] {
    &CATALOGUE
}
