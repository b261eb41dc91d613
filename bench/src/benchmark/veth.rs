//! The matrix, measured live over veth pairs.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::cell::{Bed, Cell, is_coordinate};
use super::machine::Machine;
use super::output::foreign_load;
use super::progress::Progress;
use super::results::{CellResult, Protocol, Results};
use super::transfer::{BRAID_CORE, Method, PEER_CORE, measure};
use crate::failure;
use crate::peer::stream::RAW_BLOCK_BYTES;
use crate::testbed::interrupt::clean_up_on_signals;
use crate::testbed::requirement::{Requirement, programs};
use crate::testbed::{Options, Result, Role, Testbed};

/// What `braid-bench veth` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A part of the matrix in less than three minutes
    #[arg(long)]
    quick: bool,
    /// Only cells with these coordinates, as in `kernel-braid/up` or `on-1500/2p`; may be
    /// repeated. Of the whole matrix, also with --quick
    #[arg(long, value_name = "FILTER")]
    only: Vec<String>,
    /// Measurements of each cell [default: 7, quick: 3]
    #[arg(long)]
    repeats: Option<usize>,
    /// Of each measurement [default: 5, quick: 0.7]
    #[arg(long)]
    seconds: Option<f64>,
    /// `interface.mode` of braid's configuration
    #[arg(long, default_value = "auto")]
    mode: String,
    /// Prefix of the namespaces; a number follows
    #[arg(long)]
    name: Option<String>,
    /// Names the cells and ends
    #[arg(long)]
    list: bool,
    /// Write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Which cells, how often and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In order of measurement within a round.
    pub cells: Vec<Cell>,
    /// Rounds.
    pub repeats: usize,
    /// How.
    pub method: Method,
    /// Prefix of the namespaces.
    pub name: String,
}

impl Arguments {
    fn cells(&self) -> Result<Vec<Cell>> {
        for filter in &self.only {
            if let Some(part) = filter
                .split('/')
                .find(|p| !p.is_empty() && !is_coordinate(p))
            {
                return Err(failure!(
                    "--only {filter}: no cell has {part:?}; `braid-bench veth --list` names them"
                ));
            }
        }
        let matches = |cell: &Cell| self.only.iter().any(|filter| cell.matches(filter));
        let cells: Vec<Cell> = match (self.only.is_empty(), self.quick) {
            (true, true) => Cell::quick().collect(),
            (true, false) => Cell::all().collect(),
            (false, _) => Cell::all().filter(matches).collect(),
        };
        if cells.is_empty() {
            return Err(failure!(
                "no cell has all of these coordinates: {:?}",
                self.only
            ));
        }
        Ok(cells)
    }

    fn plan(&self) -> Result<Plan> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.7 } else { 5.0 });
        if !(0.1..=3600.0).contains(&seconds) {
            return Err(failure!("--seconds: 0.1 to 3600"));
        }
        let repeats = self.repeats.unwrap_or(if self.quick { 3 } else { 7 });
        if repeats == 0 {
            return Err(failure!("--repeats: at least 1"));
        }
        Ok(Plan {
            cells: self.cells()?,
            repeats,
            method: Method {
                programs: programs(),
                duration: Duration::from_secs_f64(seconds),
                mode: self.mode.clone(),
            },
            name: self
                .name
                .clone()
                .unwrap_or_else(|| format!("bt-{}-", std::process::id())),
        })
    }
}

fn command_line() -> String {
    let mut args = std::env::args();
    args.next();
    let args: Vec<String> = std::iter::once("braid-bench".to_owned())
        .chain(args)
        .collect();
    args.join(" ")
}

impl Plan {
    fn protocol(&self) -> Protocol {
        Protocol {
            command: command_line(),
            seconds: self.method.duration.as_secs_f64(),
            repeats: self.repeats,
            write_bytes: RAW_BLOCK_BYTES,
            congestion: "reno".to_owned(),
            peer_core: PEER_CORE,
            braid_core: BRAID_CORE,
            mode: self.method.mode.clone(),
            notes: [
                "one measurement of every cell per round, the order rotates from round to round",
                "every measurement has processes of its own",
                "processor time is of the whole machine, other programs included",
                "both directions: two connections at the same time, rates summed",
                "kernel ends count payload only; braid's source fills a pattern, its sink checks nothing",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }

    /// The cells of one round. The start moves on, so that no cell always follows the same
    /// kind of neighbour's heat or noise at the same moment of a round.
    fn round(&self, round: usize) -> impl Iterator<Item = Cell> + '_ {
        let start = round * self.cells.len() / self.repeats.max(1);
        let (before, from) = self.cells.split_at(start.min(self.cells.len()));
        from.iter().chain(before).copied()
    }

    /// Measures it all. What fails is said in the cell's result and does not end the run.
    /// `after_round` sees what there is so far.
    pub fn run(&self, mut after_round: impl FnMut(&Results) -> Result<()>) -> Result<Results> {
        for requirement in [
            Requirement::Root,
            Requirement::Mptcp,
            Requirement::XdpSockets,
            Requirement::TwoCores,
            Requirement::Programs,
        ] {
            if let Some(why) = requirement.missing() {
                return Err(failure!("{why}"));
            }
        }
        let progress = Progress::new(self.cells.len() * self.repeats);
        if let Some(warning) = foreign_load()? {
            progress.say(&warning);
        }
        let machine = Machine::here(&self.method.programs);
        let mut results = Results::begin(machine, self.protocol());
        results.cells = self.cells.iter().copied().map(CellResult::new).collect();
        let beds = self.beds()?;
        for round in 0..self.repeats {
            for cell in self.round(round) {
                progress.begin(&cell.to_string());
                let outcome = measure(&beds[&cell.bed], cell, round, &self.method);
                let index = self.cells.iter().position(|other| *other == cell);
                let result = index.and_then(|index| results.cells.get_mut(index));
                let Some(result) = result else { continue };
                match outcome {
                    Ok(repeat) => {
                        progress.end(&format!("{cell}: {:.2} Gb/s", repeat.gbit_per_s));
                        result.repeats.push(repeat);
                    }
                    Err(e) => {
                        progress.end(&format!("{cell}: failed"));
                        progress.say(&format!("{cell}, round {round}: {e}"));
                        result.failures.push(e.0);
                    }
                }
            }
            after_round(&results)?;
        }
        Ok(results)
    }

    /// All namespaces at once: idle ones cost nothing, and every round visits each.
    fn beds(&self) -> Result<BTreeMap<Bed, Testbed>> {
        let mut beds = BTreeMap::new();
        for cell in &self.cells {
            if beds.contains_key(&cell.bed) {
                continue;
            }
            let options = Options {
                paths: cell.bed.paths,
                mtu: cell.bed.wire.mtu,
                offloads: cell.bed.wire.offloads,
                ..Options::default()
            };
            let name = format!("{}{}", self.name, beds.len());
            let testbed = Testbed::named(&name, options)?;
            for role in [Role::Peer, Role::Braid] {
                keep_to_paths(&testbed, role)?;
            }
            beds.insert(cell.bed, testbed);
        }
        Ok(beds)
    }
}

/// Each address reaches its own path only: a subflow from one path's address to another's
/// would be a second one on the same wire, in the place of one that is wanted.
fn keep_to_paths(testbed: &Testbed, role: Role) -> Result<()> {
    let paths = 1..=testbed.options().paths;
    for (path, other) in paths
        .clone()
        .flat_map(|i| paths.clone().map(move |j| (i, j)))
    {
        if path != other {
            let from = Testbed::v4(role, path).to_string();
            let to = format!("10.77.{other}.0/24");
            let rule = ["ip", "rule", "add", "from", &from, "to", &to, "unreachable"];
            testbed.run(role, &rule)?;
        }
    }
    Ok(())
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    if arguments.list {
        for cell in arguments.cells().map_err(io::Error::other)? {
            println!("{cell}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let plan = arguments.plan().map_err(io::Error::other)?;
    clean_up_on_signals()?;
    // The whole matrix takes hours: what there is survives an interruption.
    let keep = |results: &Results| match &arguments.json {
        Some(file) => results.save(file),
        None => Ok(()),
    };
    let results = plan.run(keep).map_err(io::Error::other)?;
    print!("{}", crate::report::benchmark::text(&results));
    crate::report::benchmark::write(
        &results,
        arguments.json.as_deref(),
        arguments.html.as_deref(),
    )
    .map_err(io::Error::other)?;
    let complete = results.cells.iter().all(|cell| !cell.repeats.is_empty());
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(quick: bool, only: &[&str]) -> Arguments {
        Arguments {
            quick,
            only: only.iter().map(|s| (*s).to_owned()).collect(),
            repeats: None,
            seconds: None,
            mode: "auto".to_owned(),
            name: None,
            list: false,
            json: None,
            html: None,
        }
    }

    #[test]
    fn repeats_of_a_cell_are_never_in_a_row() {
        let plan = arguments(true, &[]).plan().unwrap();
        let order: Vec<Cell> = (0..plan.repeats)
            .flat_map(|round| plan.round(round))
            .collect();
        assert_eq!(order.len(), plan.cells.len() * plan.repeats);
        for cell in &plan.cells {
            assert_eq!(order.iter().filter(|c| *c == cell).count(), plan.repeats);
        }
        assert!(order.windows(2).all(|two| two[0] != two[1]));
        let firsts: Vec<_> = (0..plan.repeats).map(|r| plan.round(r).next()).collect();
        assert!(firsts[0] != firsts[1] && firsts[1] != firsts[2]);
    }

    #[test]
    fn filters_choose_from_the_whole_matrix_and_mistakes_are_said() {
        let cells = arguments(true, &["kernel-braid/4p/sum/both/off-9000"])
            .cells()
            .unwrap();
        assert_eq!(cells.len(), 1);
        let error = arguments(false, &["kernel-brad"]).cells().unwrap_err();
        assert!(error.0.contains("kernel-brad"), "{error}");
        assert!(arguments(false, &["up/down"]).cells().is_err());
    }
}
