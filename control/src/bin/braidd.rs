//! The daemon.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use braid_control::config::Config;
use braid_control::daemon::{self, DaemonError};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// braid's daemon: MPTCP on AF_XDP, in the current network namespace.
///
/// Runs in the foreground and prints "braidd ready" when every service is reachable.
/// SIGTERM drains and exits, a second one resets what still lives; SIGHUP reloads. Exit
/// status 2: bad configuration; 1: anything else that went wrong. The log goes to stderr; BRAID_LOG filters it.
#[derive(Debug, Parser)]
#[command(name = "braidd", version)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/braid.toml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("BRAID_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("braidd: {e}");
            ExitCode::from(e.exit_status())
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), DaemonError> {
    let config = Config::load(&arguments.config)?;
    // Reload must find the file from wherever the daemon runs.
    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
    let config = Config { file, ..config };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| DaemonError::Other(format!("cannot start: {e}")))?;
    runtime.block_on(daemon::run(config))
}
