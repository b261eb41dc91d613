//! Middleboxes of the catalogue on the paths of the main connection, and what they excuse.
//!
//! Known to fail together with the swarm's faults, and therefore left out until mended:
//!
//! - B9, B18 and B19 (options stripped late, a key altered): on the only subflow, what
//!   was acknowledged but not DATA_ACKed is sent again as new subflow bytes; a receiver that
//!   falls back after that takes the repetition for new data, and the stream is wrong;
//! - D5 and D6 (segments merged) on one path with loss: the stream can stand still;
//! - C7 (options stripped on a joined path) and G5 (window zeroed now and then): the same;
//! - F1 to F7 (payload changed): a client whose peer has forgotten the connection goes on
//!   joining, and each attempt restarts the time that it may be without a subflow.

use rand::Rng;
use rand::rngs::StdRng;

use crate::middlebox::catalogue::{Oracle, Outcomes, Placement, catalogue};
use crate::sim::Sim;

/// Share of the seeds with a middlebox.
const SHARE: f64 = 0.5;

/// Entries that do not mix with the swarm's faults, or that the dataplane does not yet
/// survive together with them; the gauntlet runs all of them on clean paths.
const LEFT_OUT: &[&str] = &[
    // They acknowledge data for the receiver, which the network behind them then loses.
    "E1", "E2", "E3",
    // What gets through suffices to trickle on for hours of virtual time.
    "A2", "G4", "I3", "L1", // Known defects, see the module documentation.
    "B9", "B18", "B19", "C7", "D5", "D6", "G5", "F1", "F2", "F3", "F4", "F5", "F6", "F7",
];

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
    if LEFT_OUT.contains(&entry.id) {
        return None;
    }
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
