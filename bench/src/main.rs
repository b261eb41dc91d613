//! `braid-bench`: peers on kernel sockets, the demonstration, and studies in the
//! simulator.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Studies of hostile peers read it.
#[global_allocator]
static HEAP: braid_bench::hostile::heap::Counting = braid_bench::hostile::heap::Counting;

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
    /// braid beside the kernel over veth pairs: throughput and processor time (root;
    /// scripts/bench builds everything and calls this)
    Veth(braid_bench::benchmark::veth::Arguments),
    /// The engine alone on memory ports, beside smoltcp and memcpy
    Engine(braid_bench::benchmark::engine::Arguments),
    /// The raw port without protocol: the ceilings of the others (root)
    Pps(braid_bench::benchmark::pps::Arguments),
    /// Requests and responses against the kernel: latency (root)
    Rr(braid_bench::benchmark::rr::Arguments),
    /// Connections with one join each: rate, cost, and memory of idle ones (root)
    Conn(braid_bench::benchmark::conn::Arguments),
    /// Two hosts with real NICs: throughput and processor time (root; scripts/testbed-nic
    /// prepares them)
    #[command(subcommand)]
    Nic(braid_bench::benchmark::nic::Command),
    /// What the XDP program costs per packet (root)
    Steer(braid_bench::benchmark::steer::Arguments),
    /// Draws the results of benchmarks, and compares those of two runs
    Report(braid_bench::report::benchmark::Arguments),
    /// Random networks, loads and faults in the simulator, for hours
    Soak(braid_bench::swarm::soak::Arguments),
    /// braid and the kernel through every middlebox of the catalogue, live (root)
    Gauntlet(braid_bench::gauntlet::Arguments),
    /// Studies in the simulator, as tables and charts
    #[command(subcommand)]
    SimReport(braid_bench::scenario::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Peer(command) => braid_bench::peer::run(command),
        Command::Demo(arguments) => braid_bench::demo::run(&arguments),
        Command::Veth(arguments) => braid_bench::benchmark::veth::run(&arguments),
        Command::Engine(arguments) => braid_bench::benchmark::engine::run(&arguments),
        Command::Pps(arguments) => braid_bench::benchmark::pps::run(&arguments),
        Command::Rr(arguments) => braid_bench::benchmark::rr::run(&arguments),
        Command::Conn(arguments) => braid_bench::benchmark::conn::run(&arguments),
        Command::Nic(command) => braid_bench::benchmark::nic::run(&command),
        Command::Steer(arguments) => braid_bench::benchmark::steer::run(&arguments),
        Command::Report(arguments) => braid_bench::report::benchmark::run(&arguments),
        Command::Soak(arguments) => braid_bench::swarm::soak::command(&arguments),
        Command::Gauntlet(arguments) => braid_bench::gauntlet::run(&arguments),
        Command::SimReport(command) => braid_bench::scenario::run(command),
    };
    result.unwrap_or_else(|e| {
        eprintln!("braid-bench: {e}");
        ExitCode::FAILURE
    })
}
