//! `braid-dataplane`: the worker process. Started by `braidd` with a listening control
//! socket as standard input; see [`braid_dataplane::process`].

use std::io::{IsTerminal, stdin};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;

/// MPTCP dataplane on AF_XDP. Not for starting by hand: braidd starts it with a listening
/// SOCK_SEQPACKET socket as standard input and sends it its configuration.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("BRAID_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    // A worker that panics takes the process with it, whatever the profile: the supervisor
    // starts a whole one, and XDP passes meanwhile. Half a dataplane would swallow packets.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    if stdin().is_terminal() {
        eprintln!("braid-dataplane is started by braidd: run `braidd --config FILE`");
        return ExitCode::from(2);
    }
    let listener = match stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => socket2::Socket::from(fd),
        Err(error) => {
            tracing::error!(%error, "standard input");
            return ExitCode::FAILURE;
        }
    };
    match braid_dataplane::process::serve(&listener) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    }
}
