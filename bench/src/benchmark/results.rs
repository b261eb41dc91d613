//! Everything of a run, as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::engine::EnginePoint;
use super::figure::{Curve, Figure};
use super::machine::{CpuSeconds, Machine};
use super::statistics::Spread;
use crate::failure;
use crate::testbed::Result;

/// Version of this layout. Files of another are refused.
pub const FORMAT: u32 = 1;

/// A path that carried less than this part of an equal share was as good as not used.
const SHARE_MIN: f64 = 0.1;

/// How it was measured: what a reader must know to do it again.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Protocol {
    /// `braid-bench` and its arguments.
    pub command: String,
    /// Of each measurement.
    pub seconds: f64,
    /// Measurements of each cell; one of each cell per round.
    pub repeats: usize,
    /// Bytes per write of the kernel's applications.
    pub write_bytes: usize,
    /// Congestion control of every end.
    pub congestion: String,
    /// Core of the end that is the kernel's or stands in its place.
    pub peer_core: usize,
    /// Core of braid, or of the kernel in its place.
    pub braid_core: usize,
    /// `interface.mode` of braid.
    pub mode: String,
    /// In words.
    pub notes: Vec<String>,
}

/// One measurement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Repeat {
    /// In which round, from 0.
    pub round: usize,
    /// Payload that reached applications, all flows together.
    pub bytes: u64,
    /// Sum of the flows.
    pub gbit_per_s: f64,
    /// Of the whole machine, meanwhile.
    pub cpu: CpuSeconds,
    /// `cpu.busy()` by GiB of payload.
    pub cpu_s_per_gib: f64,
    /// Subflows of the flow with the fewest.
    pub subflows: u32,
    /// What the least used path carried of the bytes of all, 0 to 1.
    pub least_path_share: f64,
    /// No flow fell back to TCP.
    pub mptcp: bool,
}

/// What came of a cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CellResult {
    /// Which.
    pub cell: Cell,
    /// Measurements that succeeded.
    pub repeats: Vec<Repeat>,
    /// Why others did not.
    pub failures: Vec<String>,
}

impl CellResult {
    /// Nothing yet.
    #[must_use]
    pub fn new(cell: Cell) -> Self {
        Self {
            cell,
            repeats: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Throughput.
    #[must_use]
    pub fn gbit_per_s(&self) -> Option<Spread> {
        Spread::of(self.repeats.iter().map(|repeat| repeat.gbit_per_s))
    }

    /// Processor seconds per GiB, over the whole machine.
    #[must_use]
    pub fn cpu_s_per_gib(&self) -> Option<Spread> {
        Spread::of(self.repeats.iter().map(|repeat| repeat.cpu_s_per_gib))
    }

    /// What a reader must know before believing the figure.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let paths = u32::from(self.cell.bed.paths);
        let short = self.repeats.iter().filter(|r| r.subflows < paths).count();
        if short > 0 {
            remarks.push(format!("{short} with fewer subflows than paths"));
        }
        let idle = |r: &&Repeat| r.least_path_share * f64::from(paths) < SHARE_MIN;
        let idle = self.repeats.iter().filter(idle).count();
        if idle > 0 {
            remarks.push(format!("{idle} with an almost idle path"));
        }
        let fallen = self.repeats.iter().filter(|r| !r.mptcp).count();
        if fallen > 0 {
            remarks.push(format!("{fallen} fell back to TCP"));
        }
        if let Some(first) = self.failures.first() {
            // The second line is what the program itself said.
            let lines: Vec<&str> = first.lines().filter(|line| !line.is_empty()).collect();
            let said = lines.iter().take(2).copied().collect::<Vec<_>>().join(" ");
            remarks.push(format!("{} failed: {said}", self.failures.len()));
        }
        remarks
    }
}

/// A run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Seconds since 1970 when it began.
    pub began_unix_s: u64,
    /// On what.
    pub machine: Machine,
    /// How.
    pub protocol: Protocol,
    /// Of `veth`.
    #[serde(default)]
    pub cells: Vec<CellResult>,
    /// Of `engine`.
    #[serde(default)]
    pub engine: Vec<EnginePoint>,
    /// Of all others.
    #[serde(default)]
    pub figures: Vec<Figure>,
    /// Distributions behind figures.
    #[serde(default)]
    pub curves: Vec<Curve>,
}

impl Results {
    /// An empty run that begins now.
    #[must_use]
    pub fn begin(machine: Machine, protocol: Protocol) -> Self {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH);
        Self {
            format: FORMAT,
            began_unix_s: since.map_or(0, |since| since.as_secs()),
            machine,
            protocol,
            cells: Vec::new(),
            engine: Vec::new(),
            figures: Vec::new(),
            curves: Vec::new(),
        }
    }

    /// The cells by name.
    #[must_use]
    pub fn by_cell(&self) -> BTreeMap<Cell, &CellResult> {
        self.cells
            .iter()
            .map(|result| (result.cell, result))
            .collect()
    }

    /// Throughput of a cell by that of the kernel alone, in the same run.
    #[must_use]
    pub fn ratio_to_kernel(&self, cell: Cell) -> Option<f64> {
        let cells = self.by_cell();
        let median = |cell: Cell| Some(cells.get(&cell)?.gbit_per_s()?.median);
        let kernel = median(cell.baseline())?;
        (kernel > 0.0).then_some(median(cell)? / kernel)
    }

    /// With what another run measured, and how. What both have is the other's.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        let protocol = other.protocol;
        let name = protocol.command.split_whitespace().nth(1).unwrap_or("also");
        let how = format!(
            "{name}: {}, {} repeats of {} s",
            protocol.command, protocol.repeats, protocol.seconds
        );
        let notes = protocol.notes.iter().map(|note| format!("{name}: {note}"));
        self.protocol.notes.push(how);
        self.protocol.notes.extend(notes);
        if !other.cells.is_empty() {
            self.cells = other.cells;
        }
        if !other.engine.is_empty() {
            self.engine = other.engine;
        }
        self.figures
            .retain(|own| !other.figures.iter().any(|new| new.is_same(own)));
        self.figures.extend(other.figures);
        let same = |a: &Curve, b: &Curve| {
            (a.bench, &a.place, &a.subject) == (b.bench, &b.place, &b.subject)
        };
        self.curves
            .retain(|own| !other.curves.iter().any(|new| same(new, own)));
        self.curves.extend(other.curves);
        self
    }

    /// Writes it.
    pub fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| failure!("{e}"))?;
        std::fs::write(file, text).map_err(|e| failure!("{}: {e}", file.display()))
    }

    /// Reads what [`Results::save`] wrote.
    pub fn load(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).map_err(|e| failure!("{}: {e}", file.display()))?;
        Self::parse(&text).map_err(|e| failure!("{}: {e}", file.display()))
    }

    /// From JSON.
    pub fn parse(text: &str) -> Result<Self> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|e| failure!("not JSON: {e}"))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            return Err(failure!(
                "not results of this version of braid-bench (format {format:?}, not {FORMAT})"
            ));
        }
        serde_json::from_value(value).map_err(|e| failure!("{e}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::figure::Bench;
    use super::super::figure::tests::example as figures;
    use super::*;

    /// Invented figures: every cell of a quick run, `scale` times as fast. Sums of powers
    /// of two: JSON may cost other numbers their last bit.
    pub(crate) fn example(scale: f64) -> Results {
        let mut results = Results::begin(Machine::default(), Protocol::default());
        for (n, cell) in Cell::quick().enumerate() {
            let mut result = CellResult::new(cell);
            for round in 0..3_u8 {
                let gbit_per_s = scale * (10.0 + n as f64 + f64::from(round) / 64.0);
                result.repeats.push(Repeat {
                    round: usize::from(round),
                    bytes: 1 << 30,
                    gbit_per_s,
                    cpu: CpuSeconds::default(),
                    cpu_s_per_gib: (64 - n) as f64 / (64.0 * scale),
                    subflows: 2,
                    least_path_share: 0.4,
                    mptcp: true,
                });
            }
            results.cells.push(result);
        }
        results
    }

    #[test]
    fn json_comes_back_as_it_was() {
        let mut results = example(1.0);
        results.cells[3].failures.push("no <luck>".to_owned());
        results.engine.push(EnginePoint::example());
        results.figures = figures();
        results.curves.push(Curve {
            bench: Bench::Rr,
            place: "64 B".to_owned(),
            subject: "kernel".to_owned(),
            unit: "µs".to_owned(),
            points: vec![(50.0, 1.5), (99.0, 3.25)],
        });
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(Results::parse(&text).unwrap(), results);
    }

    #[test]
    fn other_formats_are_refused() {
        let error = Results::parse("{\"format\": 99}").unwrap_err();
        assert!(error.0.contains("format"), "{error}");
        assert!(Results::parse("{}").is_err());
        assert!(Results::parse("no").is_err());
    }

    #[test]
    fn ratios_are_to_the_kernel_in_the_same_place() {
        let results = example(1.0);
        let cell = results.cells[1].cell;
        let ratio = results.ratio_to_kernel(cell).unwrap();
        assert!(
            (ratio - (11.0 + 1.0 / 64.0) / (10.0 + 1.0 / 64.0)).abs() < 1e-9,
            "{ratio}"
        );
        let other: Cell = "braid-braid/off-9000/4p/sum/both".parse().unwrap();
        assert_eq!(results.ratio_to_kernel(other), None);
    }

    #[test]
    fn runs_join_with_their_protocols_and_the_later_one_counts() {
        let mut engine = Results::begin(Machine::default(), Protocol::default());
        engine.protocol.command = "braid-bench engine".to_owned();
        engine.engine.push(EnginePoint::example());
        let mut rr = Results::begin(Machine::default(), Protocol::default());
        rr.protocol.command = "braid-bench rr --quick".to_owned();
        rr.figures = figures();
        let both = example(1.0).with(engine).with(rr.clone());
        assert_eq!(
            (both.cells.len(), both.engine.len(), both.figures.len()),
            (16, 1, 3)
        );
        for said in ["engine: braid-bench engine", "rr: braid-bench rr --quick"] {
            assert!(
                both.protocol.notes.iter().any(|n| n.starts_with(said)),
                "{said}"
            );
        }
        rr.figures.truncate(1);
        rr.figures[0].values = vec![1.0];
        let again = both.with(rr);
        assert_eq!(again.figures.len(), 3);
        let kernel = again.figures.iter().find(|f| f.subject == "kernel");
        assert_eq!(kernel.unwrap().values, [1.0]);
    }

    #[test]
    fn doubts_are_said() {
        let mut result = example(1.0).cells.remove(0);
        assert!(result.remarks().is_empty());
        result.repeats[0].subflows = 1;
        result.repeats[1].mptcp = false;
        result.repeats[2].least_path_share = 0.01;
        result
            .failures
            .push("braidd ended:\nno memory\nmore".to_owned());
        let remarks = result.remarks().join("; ");
        assert!(remarks.contains("1 with fewer subflows"), "{remarks}");
        assert!(remarks.contains("1 fell back"), "{remarks}");
        assert!(remarks.contains("1 with an almost idle path"), "{remarks}");
        assert!(
            remarks.ends_with("1 failed: braidd ended: no memory"),
            "{remarks}"
        );
    }
}
