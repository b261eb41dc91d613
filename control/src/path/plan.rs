//! Which pairs of addresses a connection should have subflows on, best first.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::config::Policy;

use super::endpoints::Endpoints;
use super::manager::LocalAddress;

/// A way that a subflow could take.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair {
    pub(super) local: IpAddr,
    pub(super) remote: SocketAddr,
}

/// What the plan needs to know about a connection.
#[derive(Copy, Clone, Debug)]
pub(super) struct Ends<'a> {
    pub(super) server: bool,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    /// The peer wants no joins to its initial address (RFC 8684 §3.1, flag C).
    pub(super) deny_join_initial: bool,
    /// The peer's announced addresses, by its identifier.
    pub(super) announced: &'a BTreeMap<u8, SocketAddr>,
    /// Pairs in use, or being tried.
    pub(super) used: &'a [Pair],
    /// Pairs that worked once and failed.
    pub(super) lost: &'a [Pair],
    /// Subflows that there may be.
    pub(super) subflows: usize,
}

/// True where both ends are on the same network, so that pairs that need no router, and
/// hence are surely different links, come first.
fn on_link(local: &LocalAddress, remote: IpAddr) -> bool {
    fn same<const N: usize>(a: [u8; N], b: [u8; N], bits: u8) -> bool {
        (0..usize::from(bits)).all(|i| (a[i / 8] ^ b[i / 8]) & (0x80 >> (i % 8)) == 0)
    }
    match (local.address, remote) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.octets(), b.octets(), local.prefix_len.min(32)),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.octets(), b.octets(), local.prefix_len.min(128)),
        _ => false,
    }
}

/// Every pair that is wanted and not in use, best first: on one link before routed, then
/// those whose ends have the fewest subflows. A pair of which several subflows are wanted is
/// listed as often.
pub(super) fn wanted(
    policy: Policy,
    endpoints: &Endpoints,
    locals: &[LocalAddress],
    ends: Ends<'_>,
) -> Vec<Pair> {
    let up = |ip: IpAddr| locals.iter().find(|l| l.address == ip && l.up);
    let initial = (!ends.server && !ends.deny_join_initial).then_some(ends.remote);
    let known: Vec<SocketAddr> = initial
        .into_iter()
        .chain(ends.announced.values().copied())
        .collect();

    let mut pairs: Vec<Pair> = Vec::new();
    let mut want = |local: IpAddr, remote: SocketAddr| {
        let pair = Pair { local, remote };
        let usable = up(local).is_some() && local.is_ipv4() == remote.is_ipv4();
        if usable && !ends.used.contains(&pair) && !pairs.contains(&pair) {
            pairs.push(pair);
        }
    };
    if policy == Policy::None {
        return Vec::new();
    }
    let mesh = matches!(policy, Policy::Fullmesh | Policy::Backup);
    for pair in ends.lost {
        want(pair.local, pair.remote);
    }
    for e in endpoints.iter().filter(|e| !e.implicit) {
        if e.flags.fullmesh || (e.flags.subflow && mesh) {
            for remote in &known {
                want(e.address, *remote);
            }
        } else if e.flags.subflow
            && let Some(remote) = initial
        {
            // As in ip mptcp: one subflow from this address to the peer's initial one.
            want(e.address, remote);
        }
    }
    if mesh {
        let chosen = endpoints
            .iter()
            .any(|e| !e.implicit && (e.flags.subflow || e.flags.fullmesh));
        for l in locals {
            // Endpoints, where there are some, say which addresses may be used.
            if !chosen || l.address == ends.local.ip() {
                for remote in &known {
                    want(l.address, *remote);
                }
            }
        }
    }

    if policy == Policy::Ndiffports
        && let Some(remote) = initial
        && up(ends.local.ip()).is_some()
    {
        let pair = Pair {
            local: ends.local.ip(),
            remote,
        };
        let there = ends.used.iter().chain(&pairs).filter(|p| **p == pair);
        let missing = ends.subflows.saturating_sub(there.count());
        pairs.extend(std::iter::repeat_n(pair, missing));
    }

    // Greedy: each choice changes how used the ends of the next ones are.
    let mut uses: Vec<Pair> = ends.used.to_vec();
    let mut ordered = Vec::with_capacity(pairs.len());
    while !pairs.is_empty() {
        let cost = |p: &Pair| {
            let routed = up(p.local).is_none_or(|l| !on_link(l, p.remote.ip()));
            let shared = uses
                .iter()
                .map(|u| {
                    usize::from(u.local == p.local) + usize::from(u.remote.ip() == p.remote.ip())
                })
                .sum::<usize>();
            (routed, shared)
        };
        let best = (0..pairs.len())
            .min_by_key(|i| cost(&pairs[*i]))
            .unwrap_or(0);
        let pair = pairs.remove(best);
        uses.push(pair);
        ordered.push(pair);
    }
    ordered
}
