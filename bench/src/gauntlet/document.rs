//! What live runs of the gauntlet found, as one document: read from the JSON that the runs
//! leave, merged by cell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::shortfalls_among;
use crate::report::matrix::{Cell, Matrix, Verdict};

/// The order of a table's columns: first what the others are measured against.
const PAIRS: [&str; 4] = [
    "kernel - kernel",
    "kernel - braid",
    "braid - kernel",
    "braid - braid",
];

/// One transfer through the window-shrink normalizer, and one without it.
#[derive(Copy, Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Round {
    /// How long the transfer took with the normalizer on every path.
    pub with_s: f64,
    /// Without any box.
    pub without_s: f64,
    /// Segments that the normalizer dropped because they took a window back.
    pub dropped: u64,
    /// Both ended complete, carried by MPTCP.
    pub complete: bool,
}

/// Everything that the document tells.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// When and on what.
    pub measured: String,
    /// Cells, merged.
    pub cells: Vec<Cell>,
    /// The normalizer's rounds.
    pub normalizer: Vec<Round>,
}

type Key = (String, String, String, String, bool);

fn key(c: &Cell) -> Key {
    (
        c.entry.clone(),
        c.variant.clone(),
        c.placement.clone(),
        c.pair.clone(),
        c.checksum,
    )
}

/// An entry's place in the catalogue's numbering.
fn number(entry: &str) -> (String, u32) {
    let (letter, digits) = entry.split_at(entry.len().min(1));
    (letter.to_owned(), digits.parse().unwrap_or(0))
}

impl Results {
    /// Adds the cells of a run. A cell that was run before gets the verdicts of both, and
    /// keeps the explanation of the worse.
    pub fn add(&mut self, run: Matrix) {
        for new in run.cells {
            let Some(old) = self.cells.iter_mut().find(|c| key(c) == key(&new)) else {
                self.cells.push(new);
                continue;
            };
            let worse = new.worst() > old.worst();
            let mut verdicts = old.verdicts.clone();
            for (verdict, n) in &new.verdicts {
                *verdicts.entry(*verdict).or_default() += n;
            }
            let (acted, as_allowed) = (old.acted | new.acted, old.as_allowed & new.as_allowed);
            let seconds = old.seconds.max(new.seconds);
            if worse {
                *old = new;
            }
            (old.verdicts, old.acted, old.as_allowed) = (verdicts, acted, as_allowed);
            old.seconds = seconds;
        }
    }

    /// Sorts, and drops the counters of cells that need no explanation.
    pub fn settle(&mut self) {
        self.cells.sort_by_key(|c| {
            let pair = PAIRS.iter().position(|p| *p == c.pair);
            let variant = c.variant.clone();
            (
                number(&c.entry),
                variant,
                c.placement.clone(),
                c.checksum,
                pair,
            )
        });
        let short: BTreeSet<Key> = shortfalls_among(&self.cells)
            .iter()
            .map(|(c, _)| key(c))
            .collect();
        for c in &mut self.cells {
            if !short.contains(&key(c)) {
                c.counters.clear();
                c.boxes.clear();
                c.note.clear();
            }
        }
    }

    fn runs(&self) -> u32 {
        self.cells.iter().flat_map(|c| c.verdicts.values()).sum()
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "# The gauntlet, live\n\nReal hosts in network namespaces, every box of the catalogue \
             between real interfaces, a transfer each way at the same time. {} cells, {} runs. {}\n\n\
             **M** carried by MPTCP, **F** fell back to TCP, **R** a subflow was reset or unused \
             and the connection lived on another, **E** failed with an error, **STALL**, \
             **CORRUPT**; counts where a cell was run more than once. `-`: the box found nothing \
             to do. Columns name client and server: k the kernel, b braid.\n",
            self.cells.len(),
            self.runs(),
            self.measured
        );
        self.tally(&mut out);
        self.shortfalls(&mut out);
        self.normalizer(&mut out);
        let mut placements: Vec<&String> = self.cells.iter().map(|c| &c.placement).collect();
        placements.sort();
        placements.dedup();
        for placement in placements {
            self.table(placement, &mut out);
        }
        out
    }

    fn tally(&self, out: &mut String) {
        out.push_str("\n## How often, worst run of each cell\n\n| |");
        for pair in PAIRS {
            let _ = write!(out, " {pair} |");
        }
        out.push_str("\n|---|---|---|---|---|\n");
        for verdict in Verdict::ALL {
            let _ = write!(out, "| {} |", verdict.words());
            for pair in PAIRS {
                let of = |c: &&Cell| c.pair == pair && c.worst() == Some(verdict);
                let _ = write!(out, " {} |", self.cells.iter().filter(of).count());
            }
            out.push('\n');
        }
    }

    fn shortfalls(&self, out: &mut String) {
        out.push_str(
            "\n## Short of the bar\n\nBetween two braids nothing may stall or be corrupted; with a \
             kernel at one end nothing may be worse than between two kernels.\n\n",
        );
        let short = shortfalls_among(&self.cells);
        if short.is_empty() {
            out.push_str("None.\n");
            return;
        }
        out.push_str("| # | variant | where | came out | between kernels | what the ends say |\n|---|---|---|---|---|---|\n");
        for (c, kernels) in short {
            let telling: Vec<String> = (c.counters.iter())
                .filter(|(name, _)| TELLING.iter().any(|t| name.ends_with(t)))
                .map(|(name, n)| format!("{name} {n}"))
                .collect();
            let _ = writeln!(
                out,
                "| {} | {} | {}, {}, checksum {} | {} | {} | {} {} |",
                c.entry,
                c.variant,
                c.pair,
                c.placement,
                if c.checksum { "on" } else { "off" },
                c.letters(),
                kernels.map_or("", Verdict::letter),
                c.note.trim(),
                telling.join(", ")
            );
        }
    }

    fn normalizer(&self, out: &mut String) {
        if self.normalizer.is_empty() {
            return;
        }
        let median = |of: fn(&Round) -> f64| {
            let mut all: Vec<f64> = self.normalizer.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (with, without) = (median(|r| r.with_s), median(|r| r.without_s));
        let complete = self.normalizer.iter().filter(|r| r.complete).count();
        let dropped: u64 = self.normalizer.iter().map(|r| r.dropped).sum();
        let _ = write!(
            out,
            "\n## A box that drops connections which take back their window (G3)\n\n20 MB each way \
             between two braids over two paths, the box on both, in turn with runs without it.\n\n\
             | rounds | complete | dropped for a window taken back | median with | median without | ratio |\n\
             |---|---|---|---|---|---|\n| {} | {complete} | {dropped} | {with:.2} s | {without:.2} s | {:.3} |\n",
            self.normalizer.len(),
            with / without
        );
    }

    fn table(&self, placement: &str, out: &mut String) {
        let cells: BTreeMap<(&str, &str, &str, bool), &Cell> = (self.cells.iter())
            .filter(|c| c.placement == placement)
            .map(|c| {
                let key = (
                    c.entry.as_str(),
                    c.variant.as_str(),
                    c.pair.as_str(),
                    c.checksum,
                );
                (key, c)
            })
            .collect();
        let _ = write!(out, "\n## {placement}\n\n| # | behaviour | variant |");
        for checksum in ["", ", checksum"] {
            for pair in PAIRS {
                let (client, server) = pair.split_once(" - ").unwrap_or_default();
                let _ = write!(out, " {}-{}{checksum} |", &client[..1], &server[..1]);
            }
        }
        out.push_str("\n|---|---|---|---|---|---|---|---|---|---|---|\n");
        let mut seen = BTreeSet::new();
        for c in self.cells.iter().filter(|c| c.placement == placement) {
            if !seen.insert((&c.entry, &c.variant)) {
                continue;
            }
            let _ = write!(out, "| {} | {} | {} |", c.entry, c.name, c.variant);
            for checksum in [false, true] {
                for pair in PAIRS {
                    let key = (c.entry.as_str(), c.variant.as_str(), pair, checksum);
                    let cell = cells.get(&key);
                    // What RFC 8684 allows depends on the peer, too: `!` says nothing here.
                    let letters = cell.map_or(String::new(), |c| c.letters().replace('!', ""));
                    let _ = write!(out, " {letters} |");
                }
            }
            out.push('\n');
        }
    }
}

/// A day as 2026-11-22, in UTC.
pub(super) fn date(at: std::time::SystemTime) -> String {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut days = since.as_secs() / 86_400;
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

/// Counters that say why.
const TELLING: [&str; 12] = [
    "SteerPassHeartbeatStale",
    "NoDSSInWindow",
    "OFOQueue",
    "MPFailTx",
    "MPFailRx",
    "MPRstTx",
    "MPRstRx",
    "InfiniteMapTx",
    "InfiniteMapRx",
    "DataCsumErr",
    "DssFallback",
    "FallbackFailed",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(pair: &str, verdict: Verdict) -> Cell {
        Cell {
            entry: "F4".into(),
            name: "grows".into(),
            variant: "c>s".into(),
            pair: pair.into(),
            placement: "1 path".into(),
            checksum: false,
            verdicts: [(verdict, 1)].into(),
            allowed: String::new(),
            as_allowed: true,
            acted: true,
            bytes: 0,
            seconds: 1.0,
            boxes: BTreeMap::new(),
            counters: [("client OFOQueue".to_owned(), 3)].into(),
            note: "why".into(),
        }
    }

    fn results() -> Results {
        let mut results = Results {
            measured: "Then and there.".into(),
            ..Results::default()
        };
        let title = String::new();
        for cells in [
            vec![
                cell("kernel - braid", Verdict::Fallback),
                cell("kernel - kernel", Verdict::Fallback),
            ],
            vec![cell("kernel - braid", Verdict::Stalled)],
        ] {
            let title = title.clone();
            results.add(Matrix { title, cells });
        }
        results.settle();
        results
    }

    #[test]
    fn runs_of_one_cell_add_up_and_the_worst_is_explained() {
        let results = results();
        assert_eq!(results.cells.len(), 2);
        assert_eq!(results.cells[0].pair, "kernel - kernel", "sorted");
        assert!(results.cells[0].note.is_empty(), "needs no explanation");
        let told = results.markdown();
        assert!(told.contains("2 cells, 3 runs. Then and there."), "{told}");
        assert!(told.contains("| F4 | c>s | kernel - braid, 1 path, checksum off | STALL:1 F:1 | F | why client OFOQueue 3 |"), "{told}");
        assert!(
            told.contains("| F4 | grows | c>s | F | STALL:1 F:1 |"),
            "{told}"
        );
    }

    #[test]
    fn days_have_dates() {
        let on =
            |days: u64| date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(days * 86_400));
        assert_eq!(on(0), "1970-01-01");
        assert_eq!(on(789), "1972-02-29");
        assert_eq!(on(20_779), "2026-11-22");
    }

    #[test]
    fn the_normalizer_is_told_by_medians() {
        let round = |with_s| Round {
            with_s,
            without_s: 2.0,
            dropped: 0,
            complete: true,
        };
        let results = Results {
            normalizer: vec![round(9.0), round(2.2), round(2.0)],
            ..results()
        };
        let told = results.markdown();
        assert!(
            told.contains("| 3 | 3 | 0 | 2.20 s | 2.00 s | 1.100 |"),
            "{told}"
        );
    }
}
