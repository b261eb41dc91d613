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
    /// A kernel MPTCP client and braid's echo service over two paths (root; scripts/demo
    /// builds everything and calls this)
    Demo(braid_bench::demo::Arguments),
    /// Tables of what the tests prove
    #[command(subcommand)]
    SimReport(SimReport),
}

#[derive(Subcommand)]
enum SimReport {
    /// RFC 8684: requirement, test, result (in the root of the sources)
    Rfc8684(braid_bench::script::checklist::Output),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Peer(command) => braid_bench::peer::run(command),
        Command::Demo(arguments) => braid_bench::demo::run(&arguments),
        Command::SimReport(SimReport::Rfc8684(output)) => {
            braid_bench::script::checklist::report(&output)
        }
    };
    result.unwrap_or_else(|e| {
        eprintln!("braid-bench: {e}");
        ExitCode::FAILURE
    })
}
