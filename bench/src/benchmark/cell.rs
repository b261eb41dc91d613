//! The matrix: who talks to whom over what.
//!
//! A cell's name is its five coordinates, as in `kernel-braid/on-1500/2p/plain/up`. The
//! side in front opens the connections; `up` is data from it to the other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One end of a connection.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The kernel's MPTCP.
    Kernel,
    /// braid.
    Braid,
}

/// Who opens the connections, and to whom.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// Opens the connections.
    pub client: End,
    /// Accepts them.
    pub server: End,
}

impl Pair {
    /// Every pair; the kernel alone first.
    pub const ALL: [Self; 4] = [
        Self::new(End::Kernel, End::Kernel),
        Self::new(End::Kernel, End::Braid),
        Self::new(End::Braid, End::Kernel),
        Self::new(End::Braid, End::Braid),
    ];

    const fn new(client: End, server: End) -> Self {
        Self { client, server }
    }

    /// What everything is compared with.
    #[must_use]
    pub fn is_baseline(self) -> bool {
        self == Self::ALL[0]
    }
}

/// Segmentation and checksum offload, and MTU.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Wire {
    /// TSO, GSO, GRO, checksums.
    pub offloads: bool,
    /// Of every interface.
    pub mtu: u32,
}

impl Wire {
    /// Those of the matrix.
    pub const ALL: [Self; 3] = [
        Self::new(false, 1500),
        Self::new(false, 9000),
        Self::new(true, 1500),
    ];

    const fn new(offloads: bool, mtu: u32) -> Self {
        Self { offloads, mtu }
    }
}

/// Which way data goes.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the client.
    Up,
    /// To the client.
    Down,
    /// Two connections at the same time, one of each; rates are summed.
    Both,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Both];

    /// The one-way transfers it is made of.
    #[must_use]
    pub fn flows(self) -> &'static [Self] {
        match self {
            Self::Up => &[Self::Up],
            Self::Down => &[Self::Down],
            Self::Both => &[Self::Up, Self::Down],
        }
    }
}

/// Where a cell is measured; cells of one bed share its namespaces.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Bed {
    /// Offloads and MTU.
    pub wire: Wire,
    /// Veth pairs.
    pub paths: u8,
}

/// One cell of the matrix.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cell {
    /// Where.
    pub bed: Bed,
    /// DSS checksums.
    pub checksum: bool,
    /// Which way.
    pub direction: Direction,
    /// Who.
    pub pair: Pair,
}

/// Numbers of paths in the matrix.
pub const PATHS: [u8; 3] = [1, 2, 4];

impl Cell {
    /// Every cell of the matrix.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::over(&Wire::ALL, &PATHS, &[false, true], &Direction::ALL)
    }

    /// The few that a quick run looks at.
    pub fn quick() -> impl Iterator<Item = Self> {
        let wires = &[Wire::ALL[0], Wire::ALL[2]];
        Self::over(wires, &[2], &[false], &[Direction::Up, Direction::Down])
    }

    fn over<'a>(
        wires: &'a [Wire],
        paths: &'a [u8],
        checksums: &'a [bool],
        directions: &'a [Direction],
    ) -> impl Iterator<Item = Self> + 'a {
        wires.iter().flat_map(move |&wire| {
            paths.iter().flat_map(move |&paths| {
                checksums.iter().flat_map(move |&checksum| {
                    directions.iter().flat_map(move |&direction| {
                        Pair::ALL.into_iter().map(move |pair| Self {
                            bed: Bed { wire, paths },
                            checksum,
                            direction,
                            pair,
                        })
                    })
                })
            })
        })
    }

    /// The same cell with the kernel on both sides.
    #[must_use]
    pub fn baseline(self) -> Self {
        Self {
            pair: Pair::ALL[0],
            ..self
        }
    }

    /// The cell's place without who: what the cells of one group of bars share.
    #[must_use]
    pub fn place(&self) -> String {
        format!(
            "{}/{}/{}",
            self.bed,
            if self.checksum { "sum" } else { "plain" },
            self.direction
        )
    }

    /// Whether every part of the filter is one of the coordinates: `kernel-braid/up` or
    /// `on-1500/2p`.
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        let name = self.to_string();
        filter
            .split('/')
            .filter(|part| !part.is_empty())
            .all(|part| name.split('/').any(|own| own == part))
    }
}

/// Whether `part` is a coordinate of any cell: a filter with another is a mistake.
#[must_use]
pub fn is_coordinate(part: &str) -> bool {
    Cell::all().any(|cell| cell.matches(part))
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Braid => "braid",
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.client, self.server)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        })
    }
}

impl fmt::Display for Bed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offloads = if self.wire.offloads { "on" } else { "off" };
        write!(f, "{offloads}-{}/{}p", self.wire.mtu, self.paths)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pair, self.place())
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::all()
            .find(|cell| cell.to_string() == name)
            .ok_or_else(|| format!("no cell is called {name:?}"))
    }
}

impl Serialize for Cell {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_matrix_is_complete_and_its_names_are_unique() {
        let names: BTreeSet<_> = Cell::all().map(|cell| cell.to_string()).collect();
        assert_eq!(names.len(), 4 * 3 * 3 * 2 * 3);
        for cell in Cell::all() {
            assert_eq!(cell.to_string().parse::<Cell>(), Ok(cell));
        }
    }

    #[test]
    fn filters_name_coordinates() {
        let cell: Cell = "kernel-braid/on-1500/2p/plain/up".parse().unwrap();
        for filter in [
            "",
            "up",
            "kernel-braid/up",
            "on-1500/2p",
            "kernel-braid/on-1500/2p/plain/up",
        ] {
            assert!(cell.matches(filter), "{filter}");
        }
        for filter in ["down", "braid", "kernel-braid/down", "off-1500"] {
            assert!(!cell.matches(filter), "{filter}");
        }
        assert!(is_coordinate("4p") && is_coordinate("sum"));
        assert!(!is_coordinate("3p"));
    }

    #[test]
    fn a_quick_run_has_every_pair_and_its_baseline() {
        for cell in Cell::quick() {
            assert!(Cell::quick().any(|other| other == cell.baseline()));
        }
        assert_eq!(Cell::quick().count(), 16);
    }
}
