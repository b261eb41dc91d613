//! Studies in the simulator: what algorithms claim, measured.
//!
//! Each study runs the engine on simulated networks over a fixed set of seeds and yields rows of
//! figures. They are kept in `bench/docs` as a table and a chart; tests hold the figures against
//! the claims and the table against what the code yields now.

pub mod autotuning;
pub mod coupled;
pub mod gauntlet_sim;
pub mod report;
pub mod schedulers;
pub mod windows;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// A study to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Connections through every middlebox of the catalogue
    Gauntlet(gauntlet_sim::Arguments),
    /// Coupled congestion control against uncoupled, on shared, lossy and crowded paths
    Congestion(Output),
    /// Windows that grow with need, against fixed ones
    Autotuning(Output),
    /// Schedulers against each other, on unequal, lossy and equal paths
    Schedulers(Output),
    /// The shared window, in the header only or in an option
    Windows(Output),
    /// Attacks on one engine: bounds, counters, packets absorbed
    Hostile(Output),
    /// RFC 8684: requirement, test, result (run it in the root of the sources)
    Rfc8684(crate::script::checklist::Output),
}

/// Where a study's results go.
#[derive(Debug, Args)]
pub struct Output {
    /// Write the table (.md) and the chart (.svg) to this directory instead of printing the
    /// table
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Runs a study.
///
/// # Errors
/// The results could not be written.
pub fn run(command: Command) -> io::Result<ExitCode> {
    match command {
        Command::Gauntlet(arguments) => gauntlet_sim::report(&arguments),
        Command::Congestion(output) => output.emit(&coupled::study()),
        Command::Autotuning(output) => output.emit(&autotuning::study()),
        Command::Schedulers(output) => output.emit(&schedulers::study()),
        Command::Windows(output) => output.pin("windows.md", &windows::report()),
        Command::Hostile(output) => output.pin("hostile.md", &crate::hostile::report()),
        Command::Rfc8684(output) => crate::script::checklist::report(&output),
    }
}

impl Output {
    /// Prints a document or writes it into the directory.
    fn pin(&self, name: &str, text: &str) -> io::Result<ExitCode> {
        match &self.write {
            Some(directory) => std::fs::write(directory.join(name), text)?,
            None => print!("{text}"),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn emit(&self, study: &report::Study) -> io::Result<ExitCode> {
        match &self.write {
            Some(dir) => study.write(dir)?,
            None => print!("{}", study.markdown()),
        }
        Ok(ExitCode::SUCCESS)
    }
}
