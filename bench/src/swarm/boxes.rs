//! Middleboxes of the catalogue on the paths of the main connection, and what they excuse.

use rand::Rng;
use rand::rngs::StdRng;

use crate::middlebox::catalogue::{Oracle, Outcomes, Placement, catalogue};
use crate::sim::Sim;

/// Share of the seeds with a middlebox.
const SHARE: f64 = 0.5;

/// What the middleboxes of a world excuse.
#[derive(Clone, Debug)]
pub(super) struct Boxes {
    /// The entry's number.
    pub(super) id: &'static str,
    /// Connections may end in any way, if they say which: RFC 8684 allows an error there, or
    /// a subflow that dies while faults keep the others from helping.
    pub(super) may_fail: bool,
    /// Payload may arrive changed: no checksum of MPTCP need have seen it.
    pub(super) alters: bool,
}

/// Puts the boxes of a random entry where it may stand.
pub(super) fn place(
    sim: &mut Sim,
    rng: &mut StdRng,
    story: &mut Vec<String>,
    paths: usize,
    first: usize,
) -> Option<Boxes> {
    if !rng.random_bool(SHARE) {
        return None;
    }
    let entries = catalogue();
    let entry = &entries[rng.random_range(0..entries.len())];
    let variants: Vec<_> = entry.variants.iter().filter(|v| v.simulated).collect();
    let fits = |p: &Placement| (*p == Placement::One) == (paths == 1);
    let placements: Vec<Placement> = entry.placements().filter(fits).collect();
    if variants.is_empty() || placements.is_empty() {
        return None;
    }
    let variant = variants[rng.random_range(0..variants.len())];
    let placement = placements[rng.random_range(0..placements.len())];
    for link in 0..paths {
        let here = match placement {
            Placement::One | Placement::Both => true,
            Placement::First => link == first,
            Placement::Joined => link != first,
        };
        if here {
            for element in (variant.build)(rng.random()) {
                sim.add_element(link, element);
            }
        }
    }
    let allows = |outcome| entry.allowed.iter().any(|(_, o)| o.contains(outcome));
    // A connection beside the main one may meet the box in any placement.
    let may_fail = allows(Outcomes::ERROR)
        || allows(Outcomes::RESET)
        || entry.allowed.len() < Placement::ALL.len();
    story.push(format!(
        "box {} ({}, {}), {placement:?}",
        entry.id, entry.name, variant.name
    ));
    Some(Boxes {
        id: entry.id,
        may_fail,
        alters: entry.oracle == Oracle::Altered,
    })
}
