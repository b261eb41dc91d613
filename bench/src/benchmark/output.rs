//! Where the results of a benchmark go: options that all of them share.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::machine::{CpuSeconds, Machine};
use super::results::{Protocol, Results};
use crate::failure;
use crate::testbed::Result;
use crate::testbed::requirement::{Requirement, programs};

/// Others use more than this share of the machine: the figures mean little.
const FOREIGN_LOAD_MAX: f64 = 0.10;

/// What every benchmark accepts.
#[derive(Args, Clone, Debug, Default)]
pub struct Output {
    /// A part of it in a fraction of the time
    #[arg(long)]
    pub quick: bool,
    /// Measurements of each figure [default: 7, quick: 3]
    #[arg(long)]
    pub repeats: Option<usize>,
    /// Write the results to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write the report to this file
    #[arg(long)]
    pub html: Option<PathBuf>,
    /// Add the results to those in this file
    #[arg(long, conflicts_with = "json")]
    pub into: Option<PathBuf>,
}

impl Output {
    /// Measurements of each figure.
    pub fn repeats(&self) -> Result<usize> {
        match self.repeats {
            Some(0) => Err(failure!("--repeats: at least 1")),
            Some(repeats) => Ok(repeats),
            None => Ok(if self.quick { 3 } else { 7 }),
        }
    }

    /// An empty run of the benchmark that was asked for.
    pub fn begin(&self, seconds: f64, notes: &[&str]) -> Result<Results> {
        let protocol = Protocol {
            command: command_line(),
            seconds,
            repeats: self.repeats()?,
            congestion: "reno".to_owned(),
            peer_core: super::transfer::PEER_CORE,
            braid_core: super::transfer::BRAID_CORE,
            mode: "auto".to_owned(),
            notes: notes.iter().map(|note| (*note).to_owned()).collect(),
            ..Protocol::default()
        };
        Ok(Results::begin(Machine::here(&programs()), protocol))
    }

    /// Prints and writes what was measured. Fails when any figure has no value at all.
    pub fn finish(&self, results: Results) -> io::Result<ExitCode> {
        print!("{}", crate::report::benchmark::text(&results));
        let whole = results.figures.iter().all(|f| !f.values.is_empty());
        let results = match &self.into {
            Some(file) => Results::load(file).map_err(io::Error::other)?.with(results),
            None => results,
        };
        let json = self.json.as_deref().or(self.into.as_deref());
        crate::report::benchmark::write(&results, json, self.html.as_deref())
            .map_err(io::Error::other)?;
        Ok(if whole {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// This program and its arguments.
#[must_use]
pub fn command_line() -> String {
    let args = std::env::args().skip(1);
    args.fold("braid-bench".to_owned(), |line, arg| line + " " + &arg)
}

/// Says what the machine lacks.
pub fn require(needed: &[Requirement]) -> Result<()> {
    match needed.iter().find_map(|requirement| requirement.missing()) {
        Some(why) => Err(failure!("{why}")),
        None => Ok(()),
    }
}

/// A warning when others keep the machine busy.
pub fn foreign_load() -> Result<Option<String>> {
    let before = CpuSeconds::now()?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let used = CpuSeconds::now()?.since(before);
    let share = used.busy() / (used.busy() + used.idle).max(f64::MIN_POSITIVE);
    Ok((share > FOREIGN_LOAD_MAX).then(|| {
        format!(
            "warning: other programs use {:.0} % of this machine; expect noise, and their \
             processor time in the figures",
            share * 100.0
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_runs_repeat_less_and_never_not_at_all() {
        let of = |quick, repeats| {
            Output {
                quick,
                repeats,
                ..Output::default()
            }
            .repeats()
        };
        assert_eq!(of(false, None).unwrap(), 7);
        assert_eq!(of(true, None).unwrap(), 3);
        assert_eq!(of(true, Some(2)).unwrap(), 2);
        assert!(of(false, Some(0)).is_err());
    }
}
