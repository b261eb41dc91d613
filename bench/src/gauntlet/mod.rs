//! The gauntlet, live: real hosts talk through every middlebox of the catalogue, braid and
//! the kernel as client and as server, a transfer each way at the same time.
//!
//! | file | one idea |
//! |---|---|
//! | `packet`, `wire`, `relay` | the boxes of [`crate::middlebox`] between real interfaces |
//! | [`kernel`], [`braid`] | the two kinds of ends |
//! | [`cell`] | one connection in namespaces of its own, and what it leaves behind |
//! | [`judge`] | what came of it |
//! | [`document`] | what many runs found |
//!
//! Each run of a cell has fresh namespaces and fresh daemons: nothing is left of the cell
//! before, neither caches nor connections.

pub mod braid;
pub mod cell;
pub mod document;
pub mod judge;
pub mod kernel;
mod packet;
mod relay;
mod wire;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

pub use cell::{Case, Environment, Pair, Stack};
pub use document::{Results, Round};
pub use relay::Relay;
pub use wire::WireConfig;

use crate::middlebox::catalogue::{self, Entry, Outcomes, Placement};
use crate::report::matrix::{Cell, Matrix, Verdict};
use crate::testbed::Result;
use crate::testbed::interrupt::clean_up_on_signals;
use crate::testbed::requirement::{Requirement, programs};

/// Bytes each way on one path, and on two, where both are to be needed.
const BYTES_ONE_PATH: u64 = 300_000;
const BYTES_TWO_PATHS: u64 = 2_000_000;
/// A connection that is not over by now has stalled.
pub const LIMIT: Duration = Duration::from_secs(25);
/// An access line. The round trip is long enough for a second subflow to come into use.
pub const WIRE: WireConfig = WireConfig {
    rate_bps: 50_000_000,
    delay: Duration::from_millis(2),
    queue_bytes: 300_000,
};
/// Boxes that decide by chance replay from this.
const SEED: u64 = 8684;
/// Where stacks are known to differ, and one of each harmless kind.
const QUICK: &[&str] = &[
    "A1", "B1", "B12", "B13", "B14", "B15", "B18", "C1", "D4", "D5", "F2", "F4", "F5", "F6", "G3",
];

/// The pair that no kernel excuses.
const BETWEEN_BRAIDS: &str = "braid - braid";

/// Options of `braid-bench gauntlet`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only entries with these numbers (F4), or all of a group (F)
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Client and server: b braid, k the kernel, t the kernel's plain TCP as a control
    #[arg(long, value_delimiter = ',', default_value = "bb,kb,bk,kk")]
    pairs: Vec<String>,
    /// Runs of each cell
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Only the entries where stacks are known to differ, the first variant of each
    #[arg(long)]
    quick: bool,
    /// `interface.mode` of braid (auto if not given)
    #[arg(long)]
    mode: Option<String>,
    /// Only with (on) or without (off) DSS checksums
    #[arg(long, value_name = "on|off")]
    checksum: Option<String>,
    /// Only where it stands so: 1 path, first, joined, both
    #[arg(long)]
    placement: Option<String>,
    /// Print why each cell is what it is
    #[arg(long)]
    explain: bool,
    /// Write the matrix as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the matrix as an HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Seconds after which a connection has stalled
    #[arg(long, default_value_t = LIMIT.as_secs())]
    limit: u64,
    /// Instead: so many rounds of 20 MB through the window-shrink normalizer and without it
    #[arg(long, value_name = "ROUNDS")]
    normalizer: Option<u32>,
    /// Instead: merge what --json wrote, and write gauntlet-live.md and .json with --write
    #[arg(long, value_name = "FILE", num_args = 1..)]
    merge: Vec<PathBuf>,
    /// Directory of the documents
    #[arg(long, value_name = "DIR", requires = "merge")]
    write: Option<PathBuf>,
    /// What the documents are to say of the runs that are merged
    #[arg(long, value_name = "TEXT", requires = "merge")]
    note: Option<String>,
}

/// Runs it as the command line wants it.
///
/// # Errors
/// Something that is needed is missing, or a document could not be written.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    if !arguments.merge.is_empty() {
        let note = arguments.note.as_deref().unwrap_or_default();
        return merge(&arguments.merge, note, arguments.write.as_deref());
    }
    let needed = [
        Requirement::Root,
        Requirement::Mptcp,
        Requirement::XdpSockets,
        Requirement::Programs,
    ];
    if let Some(why) = needed.iter().find_map(|r| r.missing()) {
        return Err(io::Error::other(why));
    }
    let cases = arguments.cases()?;
    clean_up_on_signals()?;
    let environment = Environment {
        mode: arguments.mode.clone(),
        limit: Duration::from_secs(arguments.limit),
        ..Environment::default()
    };
    if let Some(rounds) = arguments.normalizer {
        let rounds = normalizer(&environment, rounds)?;
        let text = serde_json::to_string(&rounds).map_err(io::Error::other)?;
        if let Some(path) = &arguments.json {
            std::fs::write(path, &text)?;
        }
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    if cases.is_empty() {
        return Err(io::Error::other("no cell is like that"));
    }
    let start = Instant::now();
    let mut matrix = Matrix {
        title: "The gauntlet, live".to_owned(),
        cells: Vec::new(),
    };
    for (index, case) in cases.iter().enumerate() {
        let cell = case
            .cell(&environment, arguments.repeat)
            .map_err(io::Error::other)?;
        if arguments.explain {
            println!("{}", explain(&cell));
        }
        let done = index + 1;
        let each = start.elapsed().as_secs_f64() / done as f64;
        let left = Duration::from_secs_f64(each * (cases.len() - done) as f64);
        eprintln!(
            "{done}/{}, {} s left: {} {} [{}, {}, checksum {}] {}",
            cases.len(),
            left.as_secs(),
            cell.entry,
            cell.variant,
            cell.pair,
            cell.placement,
            cell.checksum,
            cell.letters()
        );
        matrix.cells.push(cell);
        // What there is so far survives an interruption.
        arguments.write(&matrix)?;
    }
    print!("{}", matrix.markdown());
    io::stdout().flush()?;
    let mut good = true;
    for shortfall in shortfalls(&matrix) {
        good = false;
        println!("{shortfall}");
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            programs: programs(),
            mode: None,
            wire: WIRE,
            limit: LIMIT,
            seed: SEED,
        }
    }
}

impl Arguments {
    fn cases(&self) -> io::Result<Vec<Case>> {
        let pairs: Vec<Pair> = self
            .pairs
            .iter()
            .map(|text| {
                Pair::parse(text).ok_or_else(|| {
                    io::Error::other(format!("--pairs: \"{text}\"; two letters of b, k, t"))
                })
            })
            .collect::<io::Result<_>>()?;
        let checksum = match self.checksum.as_deref() {
            None => None,
            Some("on") => Some(true),
            Some("off") => Some(false),
            Some(word) => {
                return Err(io::Error::other(format!(
                    "--checksum: on or off, not {word}"
                )));
            }
        };
        let wanted = |entry: &Entry| {
            let named = |id: &String| {
                entry.id.eq_ignore_ascii_case(id)
                    || (id.len() == 1 && entry.id.to_uppercase().starts_with(&id.to_uppercase()))
            };
            (self.only.is_empty() || self.only.iter().any(named))
                && (!self.quick || QUICK.contains(&entry.id))
        };
        let cases = plan(&pairs, self.quick, wanted).into_iter().filter(|case| {
            checksum.is_none_or(|c| case.checksum == c)
                && self
                    .placement
                    .as_ref()
                    .is_none_or(|p| case.placement.name().ends_with(p.as_str()))
        });
        Ok(cases.collect())
    }

    fn write(&self, matrix: &Matrix) -> io::Result<()> {
        if let Some(path) = &self.json {
            std::fs::write(path, matrix.json().map_err(io::Error::other)?)?;
        }
        if let Some(path) = &self.html {
            std::fs::write(path, matrix.html())?;
        }
        Ok(())
    }
}

/// Every cell of the entries that `wanted` picks; `first`: of the first variant only.
pub fn plan(pairs: &[Pair], first: bool, wanted: impl Fn(&Entry) -> bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in catalogue::catalogue().iter().filter(|e| wanted(e)) {
        let variants = if first { 1 } else { entry.variants.len() };
        for variant in entry.variants.iter().take(variants) {
            for placement in entry.placements() {
                for checksum in [false, true] {
                    // A checksum of MPTCP makes no difference to TCP.
                    for pair in pairs.iter().filter(|p| !(checksum && p.plain())) {
                        cases.push(Case {
                            boxes: Some((entry, variant)),
                            placement,
                            pair: *pair,
                            checksum,
                            bytes: bytes(placement),
                        });
                    }
                }
            }
        }
    }
    cases
}

/// What a cell transfers each way.
#[must_use]
pub const fn bytes(placement: Placement) -> u64 {
    match placement {
        Placement::One => BYTES_ONE_PATH,
        _ => BYTES_TWO_PATHS,
    }
}

impl Case {
    /// Runs it `repeat` times.
    ///
    /// # Errors
    /// The testbed failed; whatever a connection does is a verdict.
    pub fn cell(&self, environment: &Environment, repeat: u32) -> Result<Cell> {
        let (id, name, variant, allowed) = match self.boxes {
            Some((entry, variant)) => (
                entry.id,
                entry.name,
                variant.name,
                entry.allows(self.placement),
            ),
            None => ("-", "no box", "", Some(Outcomes::MPTCP)),
        };
        let mut cell = Cell {
            entry: id.to_owned(),
            name: name.to_owned(),
            variant: variant.to_owned(),
            pair: self.pair.name(),
            placement: self.placement.name().to_owned(),
            checksum: self.checksum,
            verdicts: BTreeMap::new(),
            allowed: allowed.map_or(String::new(), |a| a.to_string()),
            as_allowed: true,
            acted: false,
            bytes: 0,
            seconds: 0.0,
            boxes: BTreeMap::new(),
            counters: BTreeMap::new(),
            note: String::new(),
        };
        let mut worst = None;
        for _ in 0..repeat {
            let evidence = self.run(environment)?;
            let (verdict, why) = judge::judge(self, &evidence);
            *cell.verdicts.entry(verdict).or_default() += 1;
            cell.as_allowed &= self.pair.plain() || allowed.is_some_and(|a| permits(a, verdict));
            cell.acted |= !evidence.boxes.is_empty();
            let seconds = evidence.elapsed.as_secs_f64();
            cell.bytes = evidence.client.bytes + evidence.server.bytes;
            cell.seconds = cell.seconds.max(seconds);
            // The worst run explains the cell.
            if worst.is_none_or(|worst| verdict > worst) {
                worst = Some(verdict);
                cell.boxes = evidence.boxes;
                cell.counters = evidence.counters;
                cell.note = format!("{}. {why}", evidence.notes.join("; "));
            }
        }
        Ok(cell)
    }
}

fn permits(allowed: Outcomes, verdict: Verdict) -> bool {
    let outcome = match verdict {
        Verdict::Mptcp => Outcomes::MPTCP,
        Verdict::Fallback => Outcomes::FALLBACK,
        Verdict::Reset => Outcomes::RESET,
        Verdict::Error => Outcomes::ERROR,
        Verdict::Stalled | Verdict::Corrupted => return false,
    };
    allowed.contains(outcome)
}

/// Why a cell is what it is, in lines.
#[must_use]
pub fn explain(cell: &Cell) -> String {
    format!(
        "{} {} [{}, {}, checksum {}]: {} (allowed {}), {} bytes in {:.2} s\n  {}\n  box {:?}\n  ends {:?}",
        cell.entry,
        cell.variant,
        cell.pair,
        cell.placement,
        cell.checksum,
        cell.letters(),
        cell.allowed,
        cell.bytes,
        cell.seconds,
        cell.note,
        cell.boxes,
        cell.counters
    )
}

/// Where braid is not as good as it has to be: between two braids nothing stalls or is
/// corrupted, and with a kernel nothing is worse than between two kernels.
#[must_use]
pub fn shortfalls(matrix: &Matrix) -> Vec<String> {
    let told = |(cell, kernel): (&Cell, Option<Verdict>)| {
        let than = match (cell.pair == BETWEEN_BRAIDS, kernel) {
            (false, Some(kernel)) => format!("; between kernels: {}", kernel.words()),
            _ => String::new(),
        };
        format!("SHORT OF THE BAR{than}: {}", explain(cell))
    };
    let short = shortfalls_among(&matrix.cells);
    short.into_iter().map(told).collect()
}

/// The cells that are short of the bar, with what two kernels make of the same place.
fn shortfalls_among(cells: &[Cell]) -> Vec<(&Cell, Option<Verdict>)> {
    let place = |c: &Cell| {
        let place = (c.entry.clone(), c.variant.clone());
        (place, c.placement.clone(), c.checksum)
    };
    let kernels: BTreeMap<_, _> = (cells.iter())
        .filter(|c| c.pair == "kernel - kernel")
        .map(|c| (place(c), c.worst()))
        .collect();
    let judged = |c: &Cell| {
        let kernel = kernels.get(&place(c)).copied().flatten();
        let bar = if c.pair == BETWEEN_BRAIDS {
            Some(Verdict::Error)
        } else {
            kernel
        };
        (c.worst() > bar.or(c.worst())).then_some(kernel)
    };
    (cells.iter())
        .filter(|c| c.pair.contains("braid"))
        .filter_map(|c| Some((c, judged(c)?)))
        .collect()
}

/// 20 MB each way over two paths, with the normalizer on both and without any box, in turn.
fn normalizer(environment: &Environment, rounds: u32) -> io::Result<Vec<Round>> {
    let Some(entry) = catalogue::entry("G3") else {
        return Err(io::Error::other("the catalogue has no G3"));
    };
    let case = |boxed: bool| Case {
        boxes: boxed.then_some((entry, &entry.variants[0])),
        placement: Placement::Both,
        pair: Pair {
            client: Stack::Braid,
            server: Stack::Braid,
        },
        checksum: false,
        bytes: 20_000_000,
    };
    let mut out = Vec::new();
    for _ in 0..rounds {
        let with = case(true).cell(environment, 1).map_err(io::Error::other)?;
        let without = case(false).cell(environment, 1).map_err(io::Error::other)?;
        let complete = [&with, &without]
            .iter()
            .all(|c| c.worst() == Some(Verdict::Mptcp));
        let round = Round {
            with_s: with.seconds,
            without_s: without.seconds,
            dropped: with.boxes.values().sum(),
            complete,
        };
        eprintln!("{} of {rounds}: {round:?}", out.len() + 1);
        out.push(round);
    }
    Ok(out)
}

/// Merges what runs wrote: matrices, and rounds of the normalizer.
fn merge(
    files: &[PathBuf],
    note: &str,
    directory: Option<&std::path::Path>,
) -> io::Result<ExitCode> {
    let machine = crate::benchmark::machine::Machine::here(&programs());
    let mut results = Results {
        measured: format!(
            "Measured {} on Linux {}, {} cores that other work kept busy (load average {:.0}).",
            document::date(std::time::SystemTime::now()),
            machine.kernel,
            machine.cores,
            machine.load_before
        ),
        ..Results::default()
    };
    if !note.is_empty() {
        results.measured.push_str("\n\n");
        results.measured.push_str(note);
    }
    for path in files {
        let text = std::fs::read_to_string(path)?;
        match serde_json::from_str::<Vec<Round>>(&text) {
            Ok(rounds) => results.normalizer.extend(rounds),
            Err(_) => results.add(serde_json::from_str(&text).map_err(io::Error::other)?),
        }
    }
    results.settle();
    match directory {
        None => print!("{}", results.markdown()),
        Some(directory) => {
            let json = serde_json::to_string(&results).map_err(io::Error::other)?;
            // A line for each cell, so that versions can be compared.
            let json = json.replace("},{", "},\n{") + "\n";
            std::fs::write(directory.join("gauntlet-live.json"), json)?;
            std::fs::write(directory.join("gauntlet-live.md"), results.markdown())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_planned_for_every_pair_it_can_have() {
        let pairs: Vec<Pair> = ["bb", "tt"].iter().filter_map(|p| Pair::parse(p)).collect();
        let cases = plan(&pairs, true, |e| e.id == "A1");
        // Four placements; plain TCP without checksums only.
        assert_eq!(cases.len(), 4 * 2 + 4);
        let all = plan(&pairs[..1], false, |_| true);
        for entry in catalogue::catalogue() {
            let of = |c: &&Case| c.boxes.is_some_and(|(e, _)| e.id == entry.id);
            let expected = entry.variants.len() * entry.placements().count() * 2;
            assert_eq!(all.iter().filter(of).count(), expected, "{}", entry.id);
        }
        assert!(Pair::parse("bx").is_none() && Pair::parse("bbb").is_none());
        assert!(QUICK.iter().all(|id| catalogue::entry(id).is_some()));
    }

    #[test]
    fn braid_is_measured_against_the_kernel_in_the_same_place() {
        let cell = |pair: &str, verdict| Cell {
            entry: "F4".into(),
            name: String::new(),
            variant: "v".into(),
            pair: pair.into(),
            placement: "1 path".into(),
            checksum: true,
            verdicts: [(verdict, 1)].into(),
            allowed: String::new(),
            as_allowed: true,
            acted: true,
            bytes: 0,
            seconds: 0.0,
            boxes: BTreeMap::new(),
            counters: BTreeMap::new(),
            note: String::new(),
        };
        let short = |cells: Vec<Cell>| {
            shortfalls(&Matrix {
                title: String::new(),
                cells,
            })
            .len()
        };
        let kernel = |verdict| cell("kernel - kernel", verdict);
        let mixed = |verdict| cell("braid - kernel", verdict);
        let braids = |verdict| cell("braid - braid", verdict);
        assert_eq!(
            short(vec![kernel(Verdict::Reset), mixed(Verdict::Fallback)]),
            0
        );
        assert_eq!(
            short(vec![kernel(Verdict::Fallback), mixed(Verdict::Reset)]),
            1
        );
        assert_eq!(
            short(vec![kernel(Verdict::Corrupted), mixed(Verdict::Stalled)]),
            0
        );
        assert_eq!(
            short(vec![kernel(Verdict::Corrupted), braids(Verdict::Stalled)]),
            1
        );
        assert_eq!(
            short(vec![kernel(Verdict::Mptcp), braids(Verdict::Error)]),
            0
        );
        assert_eq!(
            short(vec![mixed(Verdict::Corrupted)]),
            0,
            "nothing to compare with"
        );
    }
}
