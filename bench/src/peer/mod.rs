//! Peers on kernel sockets, MPTCP and plain TCP: what braid is tested against.
//!
//! Every command prints one JSON object per result on stdout and progress on stderr,
//! and exits 0 only if every byte arrived as it should.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

pub mod client;
pub mod many;
pub mod server;
pub mod socket;
pub mod stream;
pub mod transfer;

use client::{Amount, EchoOptions};
use server::App;
use socket::Target;
use stream::Content;

/// Where a client connects to.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// Server, ADDRESS:PORT
    #[arg(long)]
    to: SocketAddr,
    /// Own address
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Plain TCP instead of MPTCP
    #[arg(long)]
    tcp: bool,
    /// Use an IPv6 socket for an IPv4 server, so that both families may be mixed
    #[arg(long)]
    mapped: bool,
    /// Give up when nothing moves for so long
    #[arg(long, default_value_t = 20.0)]
    stall_timeout_s: f64,
    /// Run on this core only
    #[arg(long)]
    core: Option<usize>,
}

impl TargetArgs {
    fn target(&self) -> Target {
        pin(self.core);
        Target {
            to: self.to,
            bind: self.bind,
            tcp: self.tcp,
            mapped: self.mapped,
            timeout: Duration::from_secs_f64(self.stall_timeout_s),
        }
    }
}

/// How much to transfer.
#[derive(Args, Copy, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct AmountArgs {
    /// So many bytes
    #[arg(long)]
    bytes: Option<u64>,
    /// As much as fits into this time
    #[arg(long)]
    seconds: Option<f64>,
}

impl AmountArgs {
    fn amount(self) -> Amount {
        match (self.bytes, self.seconds) {
            (None, Some(seconds)) => Amount::Seconds(seconds),
            (bytes, _) => Amount::Bytes(bytes.unwrap_or(0)),
        }
    }
}

/// Which stream.
#[derive(Copy, Clone, Debug, ValueEnum)]
pub enum ContentArg {
    /// Pseudo-random, stamped with its position
    Stamped,
    /// What braid's `source` sends
    Pattern,
    /// Nothing in particular, in writes of 1 MiB; receivers count only
    Raw,
}

impl ContentArg {
    fn content(self) -> Content {
        match self {
            Self::Stamped => Content::Stamped { seed: 1 },
            Self::Pattern => Content::Pattern,
            Self::Raw => Content::Raw,
        }
    }
}

/// What `serve` does with a connection.
#[derive(Copy, Clone, Debug, ValueEnum)]
pub enum AppArg {
    /// Send back
    Echo,
    /// Read and check
    Sink,
    /// Send
    Source,
}

/// The commands of `braid-bench peer`.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Send a stream to an echo service and compare what comes back
    EchoClient {
        /// Server.
        #[command(flatten)]
        target: TargetArgs,
        /// How much.
        #[command(flatten)]
        amount: AmountArgs,
        /// Which stream
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Keep what comes back and hash it afterwards, instead of comparing on the way
        #[arg(long, requires = "bytes")]
        sha256: bool,
        /// Never have more than so many bytes on their way, there and back
        #[arg(long)]
        window: Option<u64>,
    },
    /// Send a stream to a sink
    Upload {
        /// Server.
        #[command(flatten)]
        target: TargetArgs,
        /// How much.
        #[command(flatten)]
        amount: AmountArgs,
        /// Which stream
        #[arg(long, value_enum, default_value = "pattern")]
        content: ContentArg,
    },
    /// Read and compare what a source sends
    Download {
        /// Server.
        #[command(flatten)]
        target: TargetArgs,
        /// It must be exactly so much
        #[arg(long)]
        bytes: Option<u64>,
        /// Close the own direction after so long, which ends a source without limit
        #[arg(long)]
        seconds: Option<f64>,
        /// Which stream
        #[arg(long, value_enum, default_value = "pattern")]
        expect: ContentArg,
    },
    /// Small messages to an echo service, one at a time, as in a remote shell
    Chat {
        /// Server.
        #[command(flatten)]
        target: TargetArgs,
        /// Pause between messages
        #[arg(long, default_value_t = 20)]
        interval_ms: u64,
        /// How long
        #[arg(long)]
        seconds: f64,
    },
    /// Many echo connections at the same time
    Storm {
        /// Server.
        #[command(flatten)]
        target: TargetArgs,
        /// How many
        #[arg(long, default_value_t = 200)]
        connections: u64,
        /// Bytes of each
        #[arg(long, default_value_t = 1 << 18)]
        bytes: u64,
    },
    /// Many echo connections, one after another
    Sequential {
        /// Server.
        #[command(flatten)]
        target: TargetArgs,
        /// How many
        #[arg(long, default_value_t = 10_000)]
        count: u64,
        /// Bytes of each
        #[arg(long, default_value_t = 4096)]
        bytes: u64,
    },
    /// A server; prints `ready`, then one line per connection that has ended
    Serve {
        /// Address to listen on; may be repeated
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        /// What to do with a connection
        #[arg(long, value_enum, default_value = "echo")]
        app: AppArg,
        /// Plain TCP instead of MPTCP
        #[arg(long)]
        tcp: bool,
        /// For `source`: how much, instead of until the client closes
        #[arg(long)]
        bytes: Option<u64>,
        /// For `sink` and `source`: end the own direction after so long
        #[arg(long, conflicts_with = "bytes")]
        seconds: Option<f64>,
        /// For `sink`: what must come; for `source`: what to send
        #[arg(long, value_enum)]
        content: Option<ContentArg>,
        /// For `echo`: change this byte
        #[arg(long)]
        corrupt_at: Option<u64>,
        /// Exit after so many connections
        #[arg(long)]
        count: Option<u64>,
        /// Give up on a connection when nothing moves for so long
        #[arg(long, default_value_t = 60.0)]
        stall_timeout_s: f64,
        /// Run on this core only
        #[arg(long)]
        core: Option<usize>,
    },
}

fn pin(core: Option<usize>) {
    if let Some(id) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        eprintln!("cannot run on core {id} only; continuing unpinned");
    }
}

fn print(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

fn verdict(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs one command.
pub fn run(command: Command) -> io::Result<ExitCode> {
    Ok(match command {
        Command::EchoClient {
            target,
            amount,
            seed,
            sha256,
            window,
        } => {
            let options = EchoOptions {
                seed,
                sha256,
                window,
            };
            let amount = amount.amount();
            let report = client::echo(&target.target(), amount, &options, "echo-client")?;
            print(&report)?;
            verdict(report.intact)
        }
        Command::Upload {
            target,
            amount,
            content,
        } => {
            let report = client::upload(&target.target(), amount.amount(), content.content())?;
            print(&report)?;
            verdict(report.intact)
        }
        Command::Download {
            target,
            bytes,
            seconds,
            expect,
        } => {
            let content = expect.content();
            let report = client::download(&target.target(), content, bytes, seconds, "download")?;
            print(&report)?;
            verdict(report.intact)
        }
        Command::Chat {
            target,
            interval_ms,
            seconds,
        } => {
            let report = client::chat(
                &target.target(),
                Duration::from_millis(interval_ms),
                Duration::from_secs_f64(seconds),
            )?;
            print(&report)?;
            verdict(report.error.is_none() && report.rounds > 0)
        }
        Command::Storm {
            target,
            connections,
            bytes,
        } => {
            let report = many::storm(&target.target(), connections, bytes);
            print(&report)?;
            verdict(report.intact == connections)
        }
        Command::Sequential {
            target,
            count,
            bytes,
        } => {
            let report = many::sequential(&target.target(), count, bytes);
            print(&report)?;
            verdict(report.intact == count)
        }
        Command::Serve {
            listen,
            app,
            tcp,
            bytes,
            seconds,
            content,
            corrupt_at,
            count,
            stall_timeout_s,
            core,
        } => {
            pin(core);
            let limit = seconds.map(Duration::from_secs_f64);
            let app = match app {
                AppArg::Echo => App::Echo { corrupt_at },
                AppArg::Sink => App::Sink {
                    expect: content.map(ContentArg::content),
                    limit,
                },
                AppArg::Source => App::Source {
                    content: content.unwrap_or(ContentArg::Pattern).content(),
                    bytes,
                    limit,
                },
            };
            let mut good = true;
            server::serve(
                &listen,
                tcp,
                app,
                count,
                Duration::from_secs_f64(stall_timeout_s),
                || {
                    println!("ready");
                    let _ = io::stdout().flush();
                },
                |served| {
                    good &= served.intact;
                    let _ = print(served);
                },
            )?;
            verdict(good)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::client::{chat, download, echo, upload};
    use super::many::{sequential, storm};
    use super::server::{Served, serve};
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A TCP server on the loopback interface for `count` connections, and what it
    /// saw of them.
    fn with_server<T>(app: App, count: u64, client: impl FnOnce(&Target) -> T) -> (T, Vec<Served>) {
        // A port that was free a moment ago.
        let probe = socket::listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let to = probe.local_addr().unwrap().as_socket().unwrap();
        drop(probe);
        let target = Target {
            to,
            bind: None,
            tcp: true,
            mapped: false,
            timeout: TIMEOUT,
        };
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let server = scope.spawn(move || {
                let mut served = Vec::new();
                let ready = || tell.send(()).unwrap();
                let done = |one: &Served| served.push(one.clone());
                serve(&[to], true, app, Some(count), TIMEOUT, ready, done).unwrap();
                served
            });
            told.recv_timeout(TIMEOUT).unwrap();
            let result = client(&target);
            (result, server.join().unwrap())
        })
    }

    const ECHO: App = App::Echo { corrupt_at: None };

    #[test]
    fn echo_compares_and_hashes() {
        for sha256 in [false, true] {
            let options = EchoOptions {
                sha256,
                window: Some(100_000),
                ..EchoOptions::default()
            };
            let amount = Amount::Bytes(3_000_001);
            let (report, served) = with_server(ECHO, 1, |target| {
                echo(target, amount, &options, "").unwrap()
            });
            assert!(report.intact, "{report:?}");
            assert_eq!(report.bytes_received, 3_000_001);
            assert_eq!(report.sha256_sent.is_some(), sha256);
            assert_eq!(report.sha256_sent, report.sha256_received);
            assert!(!report.transport.mptcp && !report.transport.fallback);
            assert_eq!(served[0].bytes_sent, 3_000_001);
        }
    }

    #[test]
    fn echo_notices_one_wrong_byte() {
        let app = App::Echo {
            corrupt_at: Some(777_777),
        };
        for sha256 in [false, true] {
            let options = EchoOptions {
                sha256,
                ..EchoOptions::default()
            };
            let amount = Amount::Bytes(1_000_000);
            let (report, _) =
                with_server(app, 1, |target| echo(target, amount, &options, "").unwrap());
            assert!(!report.intact, "{report:?}");
        }
    }

    #[test]
    fn echo_notices_a_server_that_keeps_bytes() {
        let app = App::Sink {
            expect: None,
            limit: None,
        };
        let options = EchoOptions::default();
        let amount = Amount::Bytes(1000);
        let (report, _) = with_server(app, 1, |target| echo(target, amount, &options, "").unwrap());
        assert!(!report.intact && report.bytes_received == 0, "{report:?}");
    }

    #[test]
    fn uploads_are_checked_by_the_sink() {
        let amount = Amount::Bytes(2_000_000);
        for (content, good) in [
            (Content::Pattern, true),
            (Content::Stamped { seed: 1 }, false),
        ] {
            let app = App::Sink {
                expect: Some(Content::Pattern),
                limit: None,
            };
            let (report, served) =
                with_server(app, 1, |target| upload(target, amount, content).unwrap());
            assert!(report.intact, "{report:?}");
            assert_eq!(served[0].bytes_received, 2_000_000);
            assert_eq!(served[0].intact, good, "{served:?}");
        }
    }

    #[test]
    fn a_server_with_a_time_limit_ends_clients_without_one() {
        let limit = Some(Duration::from_millis(100));
        let app = App::Source {
            content: Content::Raw,
            bytes: None,
            limit,
        };
        let (report, served) = with_server(app, 1, |target| {
            download(target, Content::Raw, None, None, "").unwrap()
        });
        assert!(report.intact && served[0].intact, "{report:?} {served:?}");
        assert_eq!(report.bytes_received, served[0].bytes_sent);
        assert!(served[0].seconds < 5.0, "{served:?}");

        let expect = Some(Content::Raw);
        let (sent, served) = with_server(App::Sink { expect, limit }, 1, |target| {
            // As braid's source: sends until the other side has closed.
            let socket = socket::connect(target).unwrap();
            let over = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = std::io::Read::read(&mut &socket, &mut [0]);
                    over.store(true, std::sync::atomic::Ordering::Relaxed);
                });
                let stream = stream::Stream::new(Content::Raw);
                transfer::send(&socket, stream, transfer::Until::Told(&over), None).unwrap()
            })
        });
        assert!(served[0].intact, "{served:?}");
        assert_eq!(served[0].bytes_received, sent);
    }

    #[test]
    fn downloads_are_checked_by_the_client() {
        let source = |bytes| App::Source {
            content: Content::Pattern,
            bytes,
            limit: None,
        };
        let whole = Some(2_000_000);
        let (report, _) = with_server(source(whole), 1, |target| {
            download(target, Content::Pattern, whole, None, "").unwrap()
        });
        assert!(report.intact, "{report:?}");
        let (report, _) = with_server(source(Some(1_999_999)), 1, |target| {
            download(target, Content::Pattern, whole, None, "").unwrap()
        });
        assert!(!report.intact, "one byte is missing: {report:?}");
        // A source without limit ends when the client closes.
        let (report, served) = with_server(source(None), 1, |target| {
            download(target, Content::Pattern, None, Some(0.1), "").unwrap()
        });
        assert!(report.intact && served[0].intact, "{report:?} {served:?}");
        assert_eq!(report.bytes_received, served[0].bytes_sent);
    }

    #[test]
    fn many_connections_are_all_counted() {
        let (report, served) = with_server(ECHO, 20, |target| storm(target, 20, 50_000));
        assert_eq!(
            (report.connections, report.intact, report.mptcp),
            (20, 20, 0)
        );
        assert_eq!(served.len(), 20);
        let (report, _) = with_server(ECHO, 30, |target| sequential(target, 30, 1000));
        assert_eq!((report.intact, report.bytes_received), (30, 30_000));
    }

    #[test]
    fn chat_measures_answers() {
        let pause = Duration::from_millis(5);
        let (report, _) = with_server(ECHO, 1, |target| {
            chat(target, pause, Duration::from_millis(200)).unwrap()
        });
        assert!(report.error.is_none() && report.rounds > 5, "{report:?}");
    }
}
