//! `braid-bench`: peers on kernel sockets and the demonstration.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// braid's test bench.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clients and servers on kernel MPTCP and TCP sockets
    #[command(subcommand)]
    Peer(braid_bench::peer::Command),
    /// Simulated experiments: prints their tables, or pins them
    SimReport {
        #[command(subcommand)]
        what: SimReport,
    },
    /// A kernel MPTCP client and braid's echo service over two paths (root; scripts/demo
    /// builds everything and calls this)
    Demo(braid_bench::demo::Arguments),
}

#[derive(Subcommand)]
enum SimReport {
    /// The shared window, in the header only or in an option
    Windows {
        /// Write into this directory instead of standard output
        #[arg(long)]
        write: Option<std::path::PathBuf>,
    },
}

/// Prints a document or writes it into a directory.
fn pin(name: &str, text: &str, write: Option<&std::path::Path>) -> std::io::Result<ExitCode> {
    match write {
        Some(directory) => std::fs::write(directory.join(name), text)?,
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Peer(command) => braid_bench::peer::run(command),
        Command::SimReport {
            what: SimReport::Windows { write },
        } => pin(
            "windows.md",
            &braid_bench::scenario::windows::report(),
            write.as_deref(),
        ),
        Command::Demo(arguments) => braid_bench::demo::run(&arguments),
    };
    result.unwrap_or_else(|e| {
        eprintln!("braid-bench: {e}");
        ExitCode::FAILURE
    })
}
