//! The `braid` command: asks braidd, prints tables for people and JSON for machines.

mod monitor;
mod show;
#[cfg(test)]
pub(crate) mod tests;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::api::{ApiReply, ApiRequest, Client, ClientError};
use crate::config::{Config, DEFAULT_SOCKET, EndpointFlags, units};
use crate::path::endpoints::Which;
use crate::preflight::{self, Status};

/// Shows and changes a running braid.
#[derive(Debug, Parser)]
#[command(name = "braid", version)]
struct Arguments {
    /// braidd's control socket.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tells whether this machine, and a configuration, are fit for braid; needs no braidd.
    Check {
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// State of braidd, the dataplane, interfaces and services.
    Status,
    /// Connections and their subflows, like `ss -M`.
    Conns,
    /// Counters that are not zero, by their kernel names.
    Counters,
    /// AF_XDP sockets: the mode really got, ring levels, frames.
    Xsk,
    /// Own addresses, like `ip mptcp endpoint`.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Shows limits, or sets those that are given.
    Limits {
        /// Subflows per connection at the most.
        #[arg(long, value_name = "N")]
        subflows: Option<u8>,
        /// Announced peer addresses per connection at the most.
        #[arg(long, value_name = "N")]
        accept_addresses: Option<u8>,
    },
    /// Opens a connection of the configuration.
    Connect {
        /// Its name.
        name: String,
    },
    /// Prints events as they happen, like `ip mptcp monitor`.
    Monitor,
    /// No new connections; braidd exits when the last one has ended.
    Drain {
        /// Then the rest is aborted.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = timeout)]
        timeout: u64,
    },
    /// Reads the configuration again.
    Reload,
}

#[derive(Debug, Subcommand)]
enum EndpointCommand {
    /// Adds an address.
    Add {
        /// Address.
        address: IpAddr,
        #[command(flatten)]
        flags: Flags,
        /// Identifier, 1 to 255; chosen when left out.
        #[arg(long)]
        id: Option<u8>,
    },
    /// Deletes an address: `del 10.0.0.1` or `del id 2`.
    Del {
        /// Address, or "id N".
        #[arg(num_args = 1..=2, required = true)]
        which: Vec<String>,
    },
    /// Replaces an address's flags: `change id 2 signal backup`.
    Change {
        /// Address, or "id N", then the flags.
        #[arg(num_args = 1.., required = true)]
        which: Vec<String>,
    },
    /// Lists them.
    Show,
}

#[derive(Debug, Args)]
struct Flags {
    /// signal, subflow, backup, fullmesh; "port N" to have peers join there.
    #[arg(num_args = 0..)]
    flags: Vec<String>,
}

fn timeout(text: &str) -> Result<u64, String> {
    units::duration(text)
        .and_then(|d| u64::try_from(d.as_millis()).ok())
        .ok_or_else(|| format!("allowed: {}", units::TIME_ALLOWED))
}

/// Takes `port N` out of the words.
fn port(words: &[String]) -> Result<(Option<u16>, Vec<String>), String> {
    let Some(at) = words.iter().position(|w| w == "port") else {
        return Ok((None, words.to_vec()));
    };
    let port = words.get(at + 1).and_then(|w| w.parse().ok());
    let port = port.filter(|p| *p != 0);
    let port = port.ok_or("\"port\" wants a number from 1 to 65535 behind it")?;
    let rest = [&words[..at], &words[at + 2..]].concat();
    Ok((Some(port), rest))
}

fn flags(words: &[String], port: Option<u16>) -> Result<EndpointFlags, String> {
    let mut flags = EndpointFlags::default();
    for word in words {
        flags.set(word)?;
    }
    flags.check(port)?;
    Ok(flags)
}

/// Takes `ADDRESS` or `id N` from the front of `words`.
fn which(words: &[String]) -> Result<(Which, &[String]), String> {
    match words {
        [id, n, rest @ ..] if id == "id" => {
            let n = n
                .parse()
                .map_err(|_| format!("\"{n}\" is not an identifier; allowed: 1 to 255"))?;
            Ok((Which::Id(n), rest))
        }
        [address, rest @ ..] => {
            let address = address
                .parse()
                .map_err(|_| format!("\"{address}\" is neither an address nor \"id N\""))?;
            Ok((Which::Address(address), rest))
        }
        [] => Err("an address or \"id N\" is needed".to_owned()),
    }
}

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Usage(String),
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
    #[error("cannot print: {0}")]
    Json(#[from] serde_json::Error),
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(status) => status,
        // `braid conns | head` is no error.
        Err(CliError::Print(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            if arguments.json {
                println!("{}", serde_json::json!({ "error": e.to_string() }));
            }
            eprintln!("braid: {e}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    print(&serde_json::to_string_pretty(value)?)
}

fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let request = match &arguments.command {
        Command::Check { config } => return check(arguments, config.as_ref()),
        Command::Conns => {
            let conns = Client::connect(&arguments.socket)?.conns()?;
            if arguments.json {
                print_json(&conns)?;
            } else {
                print(&show::conns(&conns))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Monitor => {
            let client = Client::connect(&arguments.socket)?;
            let mut result = Ok(());
            client.monitor(|reply| {
                let ApiReply::Event(event) = reply else {
                    return true;
                };
                result = if arguments.json {
                    serde_json::to_string(&event)
                        .map_err(CliError::from)
                        .and_then(|l| print(&l))
                } else {
                    print(&monitor::line(&event))
                };
                result.is_ok()
            })?;
            return result.map(|()| ExitCode::SUCCESS);
        }
        Command::Status => ApiRequest::Status,
        Command::Counters => ApiRequest::Counters,
        Command::Xsk => ApiRequest::Xsk,
        Command::Endpoint(command) => endpoint(command).map_err(CliError::Usage)?,
        Command::Limits {
            subflows,
            accept_addresses,
        } => ApiRequest::Limits {
            subflows: *subflows,
            accept_addresses: *accept_addresses,
        },
        Command::Connect { name } => ApiRequest::Connect { name: name.clone() },
        Command::Drain { timeout } => ApiRequest::Drain {
            timeout_ms: *timeout,
        },
        Command::Reload => ApiRequest::Reload,
    };
    let reply = Client::connect(&arguments.socket)?.ask(&request)?;
    if arguments.json {
        print_json(&reply)?;
    } else {
        print(&show::reply(&reply))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn endpoint(command: &EndpointCommand) -> Result<ApiRequest, String> {
    Ok(match command {
        EndpointCommand::Add {
            address,
            flags: f,
            id,
        } => {
            let (port, words) = port(&f.flags)?;
            ApiRequest::EndpointAdd {
                address: *address,
                port,
                flags: flags(&words, port)?,
                id: *id,
            }
        }
        EndpointCommand::Del { which: words } => match which(words)? {
            (which, []) => ApiRequest::EndpointRemove { which },
            (_, rest) => return Err(format!("\"{}\" is too much", rest.join(" "))),
        },
        EndpointCommand::Change { which: words } => {
            let (which, rest) = which(words)?;
            ApiRequest::EndpointChange {
                which,
                flags: flags(rest, None)?,
            }
        }
        EndpointCommand::Show => ApiRequest::EndpointShow,
    })
}

/// Exit status 2 for a bad configuration, as braidd's; 1 if something fails.
fn check(arguments: &Arguments, file: Option<&PathBuf>) -> Result<ExitCode, CliError> {
    let config = match file.map(|f| Config::load(f)).transpose() {
        Ok(config) => config,
        Err(e) => {
            let bad = preflight::Check {
                name: "configuration".to_owned(),
                status: Status::Fail,
                message: e.to_string(),
            };
            print_checks(arguments, &[bad])?;
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let checks = runtime.block_on(preflight::run(config.as_ref()));
    print_checks(arguments, &checks)?;
    let failed = checks.iter().any(|c| c.status == Status::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print_checks(arguments: &Arguments, checks: &[preflight::Check]) -> Result<(), CliError> {
    if arguments.json {
        return print_json(&checks);
    }
    let lines: Vec<String> = checks
        .iter()
        .map(|c| format!("{:<4}  {}: {}", c.status, c.name, c.message))
        .collect();
    print(&lines.join("\n"))
}
