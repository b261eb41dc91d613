//! The gauntlet's matrix: what became of connections through each middlebox, simulated or
//! live; as JSON, as a Markdown table and as a page that needs nothing but a browser.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What became of one run, from best to worst.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Carried by MPTCP.
    Mptcp,
    /// Fell back to TCP.
    Fallback,
    /// A subflow was reset or never used, the connection lived on another.
    Reset,
    /// Failed, and the application was told.
    Error,
    /// Neither went on nor ended.
    Stalled,
    /// An application got what it should not have got, or not all of it without being told.
    Corrupted,
}

impl Verdict {
    /// Every verdict, best first.
    pub const ALL: [Self; 6] = [
        Self::Mptcp,
        Self::Fallback,
        Self::Reset,
        Self::Error,
        Self::Stalled,
        Self::Corrupted,
    ];

    /// One letter for tables; what must never happen has two.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Mptcp => "M",
            Self::Fallback => "F",
            Self::Reset => "R",
            Self::Error => "E",
            Self::Stalled => "STALL",
            Self::Corrupted => "CORRUPT",
        }
    }

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Mptcp => "carried by MPTCP",
            Self::Fallback => "fell back to TCP",
            Self::Reset => "subflow reset or unused, survived on another",
            Self::Error => "failed with an error",
            Self::Stalled => "stalled",
            Self::Corrupted => "corrupted",
        }
    }

    /// Worse than anything a network may do to a stack.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Stalled | Self::Corrupted)
    }
}

/// One cell: one middlebox, where it stands, who talks through it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Number of the catalogue's entry.
    pub entry: String,
    /// Its name.
    pub name: String,
    /// Direction and parameters.
    pub variant: String,
    /// Who talks to whom: "braid - kernel" is a braid client and a kernel server.
    pub pair: String,
    /// Paths, and which have the box.
    pub placement: String,
    /// DSS checksums.
    pub checksum: bool,
    /// How often each verdict came out.
    pub verdicts: BTreeMap<Verdict, u32>,
    /// What RFC 8684 allows, as letters.
    pub allowed: String,
    /// Every run came out as allowed.
    pub as_allowed: bool,
    /// The box changed or dropped something in at least one run.
    pub acted: bool,
    /// Payload bytes that applications got, both ends, one run (the slowest).
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// What the box did.
    pub boxes: BTreeMap<String, u64>,
    /// What the ends say: counters that are not zero, prefixed by the end's name.
    pub counters: BTreeMap<String, u64>,
    /// Anything else worth knowing.
    pub note: String,
}

impl Cell {
    /// The worst that came out.
    #[must_use]
    pub fn worst(&self) -> Option<Verdict> {
        self.verdicts.keys().next_back().copied()
    }

    /// Bits per second of payload, both directions together.
    #[must_use]
    pub fn rate_bps(&self) -> f64 {
        if self.seconds > 0.0 {
            self.bytes as f64 * 8.0 / self.seconds
        } else {
            0.0
        }
    }

    /// Letters with counts, worst first: `M` or `STALL:3 M:7`.
    #[must_use]
    pub fn letters(&self) -> String {
        let all: u32 = self.verdicts.values().sum();
        let mut out = String::new();
        for (verdict, count) in self.verdicts.iter().rev() {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(verdict.letter());
            if all > 1 {
                // A String takes whatever is written to it.
                let _ = write!(out, ":{count}");
            }
        }
        if !self.as_allowed {
            out.push('!');
        }
        if !self.acted {
            out.push('-');
        }
        out
    }

    fn row(&self) -> (String, String, String) {
        (self.entry.clone(), self.name.clone(), self.variant.clone())
    }

    fn column(&self) -> (String, String, bool) {
        (self.pair.clone(), self.placement.clone(), self.checksum)
    }
}

/// All cells of a run of the gauntlet.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Matrix {
    /// What was run, and on what.
    pub title: String,
    /// In the order in which they are to be shown.
    pub cells: Vec<Cell>,
}

/// How to read a cell.
const LEGEND: &str = "**M** carried by MPTCP, **F** fell back to TCP, **R** a subflow was reset or \
    unused and the connection lived on another, **E** failed with an error, **STALL**, \
    **CORRUPT**. `!`: RFC 8684 does not allow it here. `-`: the box found nothing to do.";

impl Matrix {
    /// Cells that no network excuses.
    pub fn failures(&self) -> impl Iterator<Item = &Cell> {
        self.cells
            .iter()
            .filter(|c| c.worst().is_none_or(Verdict::is_failure))
    }

    /// As JSON.
    ///
    /// # Errors
    /// A figure that JSON has no form for.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    fn columns(&self) -> Vec<(String, String, bool)> {
        let mut seen = BTreeSet::new();
        (self.cells.iter())
            .map(Cell::column)
            .filter(|c| seen.insert(c.clone()))
            .collect()
    }

    fn rows(&self) -> Vec<(String, String, String)> {
        let mut seen = BTreeSet::new();
        (self.cells.iter())
            .map(Cell::row)
            .filter(|r| seen.insert(r.clone()))
            .collect()
    }

    fn by_place(&self) -> BTreeMap<(&str, &str, &str, &str, bool), &Cell> {
        (self.cells.iter())
            .map(|c| {
                let key = (
                    c.entry.as_str(),
                    c.variant.as_str(),
                    c.pair.as_str(),
                    c.placement.as_str(),
                    c.checksum,
                );
                (key, c)
            })
            .collect()
    }

    /// How many cells came out as what, worst result of each.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<Verdict, usize> {
        let mut tally = BTreeMap::new();
        for verdict in self.cells.iter().filter_map(Cell::worst) {
            *tally.entry(verdict).or_default() += 1;
        }
        tally
    }

    /// As a Markdown document.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n\n{LEGEND}\n\n", self.title);
        let cells = self.by_place();
        let columns = self.columns();
        let pairs: BTreeSet<&String> = columns.iter().map(|c| &c.0).collect();
        out.push_str("| # | behaviour | variant |");
        for (pair, placement, checksum) in &columns {
            let pair = if pairs.len() > 1 {
                format!("{pair}, ")
            } else {
                String::new()
            };
            let checksum = if *checksum { "checksum" } else { "none" };
            let _ = write!(out, " {pair}{placement}, {checksum} |");
        }
        out.push_str("\n|---|---|---|");
        out.push_str(&"---|".repeat(columns.len()));
        out.push('\n');
        for (entry, name, variant) in self.rows() {
            let _ = write!(out, "| {entry} | {name} | {variant} |");
            for (pair, placement, checksum) in &columns {
                let key = (
                    entry.as_str(),
                    variant.as_str(),
                    pair.as_str(),
                    placement.as_str(),
                    *checksum,
                );
                let letters = cells.get(&key).map_or(String::new(), |c| c.letters());
                let _ = write!(out, " {letters} |");
            }
            out.push('\n');
        }
        out.push_str("\n| cells | |\n|---|---|\n");
        for (verdict, count) in self.tally() {
            let _ = writeln!(out, "| {} | {count} |", verdict.words());
        }
        out
    }

    /// As a self-contained HTML page. Each cell explains itself when pointed at.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = String::from(PAGE_HEAD);
        let title = escape(&self.title);
        let legend = escape(&LEGEND.replace("**", "").replace('`', ""));
        let _ = write!(out, "<title>{title}</title><h1>{title}</h1><p>{legend}</p>");
        let cells = self.by_place();
        let columns = self.columns();
        out.push_str("<table><thead><tr><th>#<th>behaviour<th>variant");
        for (pair, placement, checksum) in &columns {
            let checksum = if *checksum { "checksum" } else { "no checksum" };
            let _ = write!(
                out,
                "<th>{}<br>{}<br>{checksum}",
                escape(pair),
                escape(placement)
            );
        }
        out.push_str("</thead><tbody>");
        for (entry, name, variant) in self.rows() {
            let _ = write!(
                out,
                "<tr><th>{}<td>{}<td>{}",
                escape(&entry),
                escape(&name),
                escape(&variant)
            );
            for (pair, placement, checksum) in &columns {
                let key = (
                    entry.as_str(),
                    variant.as_str(),
                    pair.as_str(),
                    placement.as_str(),
                    *checksum,
                );
                match cells.get(&key) {
                    Some(cell) => html_cell(&mut out, cell),
                    None => out.push_str("<td>"),
                }
            }
        }
        out.push_str("</tbody></table></html>\n");
        out
    }
}

const PAGE_HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><style>\
    body{font:14px sans-serif;margin:1em}table{border-collapse:collapse}\
    td,th{border:1px solid #ccc;padding:2px 6px;text-align:left}\
    thead th{position:sticky;top:0;background:#fff}\
    .mptcp{background:#cfc}.fallback{background:#eec}.reset{background:#def}\
    .error{background:#fc9}.stalled{background:#f77}.corrupted{background:#f3f}\
    .idle{opacity:.5}small{color:#555}</style>";

fn html_cell(out: &mut String, cell: &Cell) {
    let class = cell.worst().map_or("stalled", |v| match v {
        Verdict::Mptcp => "mptcp",
        Verdict::Fallback => "fallback",
        Verdict::Reset => "reset",
        Verdict::Error => "error",
        Verdict::Stalled => "stalled",
        Verdict::Corrupted => "corrupted",
    });
    let idle = if cell.acted { "" } else { " idle" };
    let mut why = format!("allowed: {}\n{}\n", cell.allowed, cell.note);
    for (name, count) in cell.boxes.iter().chain(&cell.counters) {
        let _ = writeln!(why, "{name}: {count}");
    }
    let _ = write!(
        out,
        "<td class=\"{class}{idle}\" title=\"{}\">{} <small>{:.1}&nbsp;Mb/s</small>",
        escape(&why),
        escape(&cell.letters()),
        cell.rate_bps() / 1e6
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(variant: &str, verdicts: &[(Verdict, u32)]) -> Cell {
        Cell {
            entry: "F4".into(),
            name: "ALG <grows>".into(),
            variant: variant.into(),
            pair: "braid - kernel".into(),
            placement: "1 path".into(),
            checksum: true,
            verdicts: verdicts.iter().copied().collect(),
            allowed: "M/F".into(),
            as_allowed: true,
            acted: true,
            bytes: 1_000_000,
            seconds: 2.0,
            boxes: [("edits".to_owned(), 1)].into(),
            counters: BTreeMap::new(),
            note: String::new(),
        }
    }

    #[test]
    fn the_worst_verdict_speaks_for_a_cell() {
        let c = cell("c>s", &[(Verdict::Mptcp, 7), (Verdict::Stalled, 3)]);
        assert_eq!(c.worst(), Some(Verdict::Stalled));
        assert_eq!(c.letters(), "STALL:3 M:7");
        let matrix = Matrix {
            title: "t".into(),
            cells: vec![c, cell("s>c", &[(Verdict::Fallback, 1)])],
        };
        assert_eq!(matrix.failures().count(), 1);
        assert_eq!(matrix.tally()[&Verdict::Fallback], 1);
        assert!((matrix.cells[0].rate_bps() - 4e6).abs() < 1.0);
    }

    #[test]
    fn documents_name_every_cell_and_json_reads_back() {
        let matrix = Matrix {
            title: "gauntlet".into(),
            cells: vec![
                cell("c>s", &[(Verdict::Mptcp, 1)]),
                cell("s>c", &[(Verdict::Fallback, 1)]),
            ],
        };
        let markdown = matrix.markdown();
        assert!(
            markdown.contains("| F4 | ALG <grows> | c>s | M |"),
            "{markdown}"
        );
        assert!(markdown.contains("| s>c | F |"));
        let html = matrix.html();
        assert!(html.contains("ALG &lt;grows&gt;") && html.contains("class=\"fallback\""));
        let back: Matrix = serde_json::from_str(&matrix.json().unwrap()).unwrap();
        assert_eq!(back, matrix);
    }
}
