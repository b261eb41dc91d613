//! Middleboxes of the catalogue on the paths of the main connection, and what they excuse.
//!
//! An entry's own list of outcomes says what a connection may come to; a connection that
//! begins on another path than the main one meets the box in another placement. Boxes that
//! change payload have taps beside them, so that what an application got can be compared
//! with what plain TCP would have delivered.

use rand::Rng;
use rand::rngs::StdRng;

use crate::middlebox::Toward;
use crate::middlebox::catalogue::{Entry, Oracle, Outcomes, Placement, catalogue, entry};
use crate::middlebox::tap::{Passed, Streams, Tap};
use crate::sim::Sim;

/// Share of the seeds with a middlebox.
const SHARE: f64 = 0.5;

/// What the middleboxes of a world excuse.
#[derive(Clone, Debug)]
pub(super) struct Boxes {
    /// Which behaviour.
    pub(super) entry: &'static Entry,
    placement: Placement,
    /// Which of the main connection's links have a box.
    covered: Vec<bool>,
    /// What passed towards client and server on each of the main connection's links, behind
    /// boxes that change payload.
    taps: Vec<[Streams; 2]>,
}

impl Boxes {
    /// Payload may arrive changed: no checksum of MPTCP need have seen it.
    pub(super) fn alters(&self) -> bool {
        self.entry.oracle == Oracle::Altered
    }

    /// What the catalogue allows. Payload that changes is no error between two braids: where
    /// both find out at once, one waits for the other. Other peers do not.
    fn entry_allows(&self, placement: Placement) -> Option<Outcomes> {
        let allowed = self.entry.allows(placement)?;
        Some(match self.alters() {
            true => allowed.without(Outcomes::ERROR),
            false => allowed,
        })
    }

    /// What RFC 8684 allows a connection that begins on `link`.
    fn allowed(&self, link: usize) -> Outcomes {
        let all = self.covered.iter().all(|c| *c);
        let placement = match (self.covered.len(), self.covered.get(link)) {
            (1, _) => Placement::One,
            _ if all => Placement::Both,
            (_, Some(true)) => Placement::First,
            _ => Placement::Joined,
        };
        let allowed = self.entry_allows(placement);
        // Entries that are about joining say nothing of other places.
        allowed
            .or(self.entry_allows(self.placement))
            .map_or(Outcomes::ERROR, |a| {
                if allowed.is_none() {
                    a.or(Outcomes::ERROR)
                } else {
                    a
                }
            })
    }

    /// Whether a connection that begins on `link` may fail, if it says so. It may if the
    /// entry lets its subflow be reset and there is no path without the box, or none that it
    /// is sure to join.
    pub(super) fn may_fail(&self, link: usize, joins: bool) -> bool {
        let allowed = self.allowed(link);
        let clean = self.covered.iter().any(|c| !c);
        let met = self.covered.get(link).copied().unwrap_or(false);
        // With the box on every path that is in use it is as if it were on all.
        let both = self.entry_allows(Placement::Both);
        let everywhere = met && !joins && both.is_some_and(|o| o.contains(Outcomes::ERROR));
        allowed.contains(Outcomes::ERROR)
            || everywhere
            || (allowed.contains(Outcomes::RESET) && met && !(clean && joins))
    }

    /// The main connection has more than one path.
    pub(super) fn several_paths(&self) -> bool {
        self.covered.len() > 1
    }

    /// What passed `toward` one end on the subflows of the only connection to `port`, in front
    /// the one that it began with on link `first`.
    pub(super) fn passed(&self, toward: Toward, first: usize, port: u16) -> Vec<Passed> {
        let links = [first].into_iter();
        let links = links.chain((0..self.taps.len()).filter(|link| *link != first));
        let taps = links.filter_map(|link| self.taps.get(link));
        // Ports are given out in order.
        taps.map(|taps| &taps[toward.index()])
            .flat_map(|tap| tap.flows().into_iter().map(move |flow| (tap, flow)))
            .filter(|(_, flow)| flow.server.port() == port)
            .map(|(tap, flow)| tap.passed(flow))
            .collect()
    }
}

/// A random entry, or `only` that one, or none.
pub(super) fn draw(rng: &mut StdRng, only: Option<&str>) -> Option<&'static Entry> {
    if let Some(id) = only {
        return entry(id);
    }
    let entries = catalogue();
    rng.random_bool(SHARE)
        .then(|| &entries[rng.random_range(0..entries.len())])
}

/// Whether a box of this entry may end subflows.
pub(super) fn is_deadly(entry: &Entry) -> bool {
    let deadly = |o: &Outcomes| o.contains(Outcomes::RESET) || o.contains(Outcomes::ERROR);
    entry.allowed.iter().any(|(_, o)| deadly(o))
}

/// Puts the boxes of an entry where it may stand.
pub(super) fn place(
    sim: &mut Sim,
    rng: &mut StdRng,
    story: &mut Vec<String>,
    paths: usize,
    first: usize,
    entry: &'static Entry,
) -> Option<Boxes> {
    let variants = entry.variants;
    let fits = |p: &Placement| (*p == Placement::One) == (paths == 1);
    let placements: Vec<Placement> = entry.placements().filter(fits).collect();
    if variants.is_empty() || placements.is_empty() {
        return None;
    }
    let variant = &variants[rng.random_range(0..variants.len())];
    let placement = placements[rng.random_range(0..placements.len())];
    let here = |link: usize| match placement {
        Placement::One | Placement::Both => true,
        Placement::First => link == first,
        Placement::Joined => link != first,
    };
    let covered: Vec<bool> = (0..paths).map(here).collect();
    let alters = entry.oracle == Oracle::Altered;
    let mut taps = Vec::new();
    for (link, covered) in covered.iter().enumerate() {
        let (to_client, client_side) = Tap::new(Toward::Client);
        let (to_server, server_side) = Tap::new(Toward::Server);
        if alters {
            sim.add_element(link, Box::new(to_client));
        }
        if *covered {
            for element in (variant.build)(rng.random()) {
                sim.add_element(link, element);
            }
        }
        if alters {
            sim.add_element(link, Box::new(to_server));
            taps.push([client_side, server_side]);
        }
    }
    story.push(format!(
        "box {} ({}, {}), {placement:?}",
        entry.id, entry.name, variant.name
    ));
    Some(Boxes {
        entry,
        placement,
        covered,
        taps,
    })
}
