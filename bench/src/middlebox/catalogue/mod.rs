//! Every middlebox behaviour of the catalogue, by its number: which boxes make it, where
//! they may stand, and what RFC 8684 lets come of it.

mod entries;

pub use entries::catalogue;

use super::Element;

/// What may come of a connection through a box; a set.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Outcomes(u8);

impl Outcomes {
    /// Carried by MPTCP.
    pub const MPTCP: Self = Self(1);
    /// Fell back to TCP.
    pub const FALLBACK: Self = Self(2);
    /// A subflow was reset or never came to be; the connection lived on another.
    pub const RESET: Self = Self(4);
    /// Failed with an error, and said so.
    pub const ERROR: Self = Self(8);

    /// Whether all of `other` are in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These but not those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for (outcome, letter) in [
            (Self::MPTCP, 'M'),
            (Self::FALLBACK, 'F'),
            (Self::RESET, 'R'),
            (Self::ERROR, 'E'),
        ] {
            if self.contains(outcome) {
                if !first {
                    f.write_str("/")?;
                }
                first = false;
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// Where a box stands.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Placement {
    /// One path, with the box on it.
    One,
    /// Two paths, the box on the first.
    First,
    /// Two paths, the box on the one that joins.
    Joined,
    /// Two paths, a box on each.
    Both,
}

impl Placement {
    /// Every placement.
    pub const ALL: [Self; 4] = [Self::One, Self::First, Self::Joined, Self::Both];

    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "1 path",
            Self::First => "2 paths, first",
            Self::Joined => "2 paths, joined",
            Self::Both => "2 paths, both",
        }
    }

    /// Paths there are.
    #[must_use]
    pub const fn paths(self) -> usize {
        match self {
            Self::One => 1,
            _ => 2,
        }
    }

    /// Whether path `path` (from 0) has a box.
    #[must_use]
    pub const fn covers(self, path: usize) -> bool {
        match self {
            Self::One | Self::First => path == 0,
            Self::Joined => path == 1,
            Self::Both => true,
        }
    }
}

/// What applications must have received.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Oracle {
    /// What was sent.
    Sent,
    /// The box changes payload. Where checksums saw it and another path was left: what was
    /// sent; otherwise what plain TCP would have delivered.
    Altered,
}

/// One way to build an entry's box.
#[derive(Copy, Clone, Debug)]
pub struct Variant {
    /// Direction and parameters, in words.
    pub name: &'static str,
    /// The boxes of one path, from the client's side to the server's.
    pub build: fn(seed: u64) -> Vec<Box<dyn Element>>,
}

/// One behaviour.
#[derive(Copy, Clone, Debug)]
pub struct Entry {
    /// Its number in the catalogue.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// The ways to build it.
    pub variants: &'static [Variant],
    /// Where it may stand, and what RFC 8684 allows there.
    pub allowed: &'static [(Placement, Outcomes)],
    /// What applications must have received.
    pub oracle: Oracle,
    /// The server announces a further address.
    pub announces: bool,
    /// The behaviour shows only in traffic that a transfer of bytes both ways does not
    /// have: no complaint if the box did nothing.
    pub may_idle: bool,
    /// What Linux 6.18 did, on one path unless said otherwise. For information.
    pub linux: &'static str,
}

impl Entry {
    /// Where it may stand.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        self.allowed.iter().map(|(placement, _)| *placement)
    }

    /// What may come of it there.
    #[must_use]
    pub fn allows(&self, placement: Placement) -> Option<Outcomes> {
        (self.allowed.iter())
            .find(|(p, _)| *p == placement)
            .map(|(_, outcomes)| *outcomes)
    }
}

/// An entry by its number.
#[must_use]
pub fn entry(id: &str) -> Option<&'static Entry> {
    catalogue().iter().find(|e| e.id.eq_ignore_ascii_case(id))
}
