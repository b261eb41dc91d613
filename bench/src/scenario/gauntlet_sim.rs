//! The gauntlet in the simulator: braid talks to braid through every middlebox of the
//! catalogue, a transfer each way, and what came of it is judged by what both applications
//! got and what both ends report.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use braid_dataplane::app::pattern::Differences;
use braid_dataplane::mptcp::{ChecksumPolicy, CloseReason, Event};
use braid_dataplane::wire::types::AddressId;
use clap::Args;

use crate::middlebox::catalogue::{self, Entry, Oracle, Outcomes as Allowed, Placement, Variant};
use crate::middlebox::tap::{Streams, Tap};
use crate::middlebox::{Element, Toward};
use crate::report::matrix::{Cell, Matrix, Verdict};
use crate::sim::{HostConfig, LinkConfig, Outcomes, Role, Sim};

/// Every cell replays from this.
const SEED: u64 = 8684;
const CLIENT: usize = 0;
const SERVER: usize = 1;
const PORT: u16 = 9;
/// Bytes each way. Two paths get more, so that both are needed.
const BYTES_ONE_PATH: u64 = 300_000;
const BYTES_TWO_PATHS: u64 = 1_000_000;
/// Virtual time after which a connection has stalled. Every timeout that ends a connection
/// whose peer is gone (user timeout, close timeout, waiting for a subflow) is shorter.
const LIMIT: Duration = Duration::from_secs(7_200);

/// Options of the study.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only entries with these numbers (F4), or all of a group (F)
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Print why each cell is what it is
    #[arg(long)]
    explain: bool,
    /// Write gauntlet-sim.md to this directory instead of printing it
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Write the matrix as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the matrix as an HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the study as the command line wants it.
///
/// # Errors
/// A document could not be written.
pub fn report(arguments: &Arguments) -> io::Result<ExitCode> {
    let matrix = study(|entry| {
        let named = |id: &String| {
            entry.id.eq_ignore_ascii_case(id)
                || (id.len() == 1 && entry.id.to_uppercase().starts_with(&id.to_uppercase()))
        };
        arguments.only.is_empty() || arguments.only.iter().any(named)
    });
    if arguments.explain {
        for cell in &matrix.cells {
            println!(
                "{} {} [{}] checksum {}: {} (allowed {}) {:.2} s {} bytes {}\n  box {:?}\n  ends {:?}",
                cell.entry,
                cell.variant,
                cell.placement,
                cell.checksum,
                cell.letters(),
                cell.allowed,
                cell.seconds,
                cell.bytes,
                cell.note,
                cell.boxes,
                cell.counters
            );
        }
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, matrix.json().map_err(io::Error::other)?)?;
    }
    if let Some(path) = &arguments.html {
        std::fs::write(path, matrix.html())?;
    }
    match &arguments.write {
        Some(dir) => std::fs::write(dir.join("gauntlet-sim.md"), matrix.markdown())?,
        None if !arguments.explain => print!("{}", matrix.markdown()),
        None => {}
    }
    Ok(if matrix.failures().next().is_some() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs every simulated cell of the entries that `wanted` picks.
#[must_use]
pub fn study(wanted: impl Fn(&Entry) -> bool) -> Matrix {
    Matrix {
        title: "The gauntlet, simulated: braid to braid".to_owned(),
        cells: cases(wanted).iter().map(Case::run).collect(),
    }
}

/// One cell to run.
#[derive(Copy, Clone, Debug)]
pub struct Case {
    /// Which behaviour.
    pub entry: &'static Entry,
    /// Which way to build it.
    pub variant: &'static Variant,
    /// Where the box stands.
    pub placement: Placement,
    /// DSS checksums always, or never.
    pub checksum: bool,
}

/// Every simulated cell of the entries that `wanted` picks.
#[must_use]
pub fn cases(wanted: impl Fn(&Entry) -> bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in catalogue::catalogue().iter().filter(|e| wanted(e)) {
        for variant in entry.variants {
            for placement in entry.placements() {
                for checksum in [false, true] {
                    cases.push(Case {
                        entry,
                        variant,
                        placement,
                        checksum,
                    });
                }
            }
        }
    }
    cases
}

/// What one run left behind, to be judged.
struct Evidence {
    ended: bool,
    fell_back: bool,
    subflow_lost: bool,
    client: Received,
    server: Received,
    /// Flows whose payload a box changed.
    edits: u64,
    note: String,
}

/// What one application got.
struct Received {
    bytes: Vec<u8>,
    sent: u64,
    finished: bool,
    /// What passed towards it on the first path's first flow.
    forwarded: Vec<u8>,
}

impl Case {
    fn bytes(&self) -> u64 {
        match self.placement.paths() {
            1 => BYTES_ONE_PATH,
            _ => BYTES_TWO_PATHS,
        }
    }

    /// Links: taps at both ends see what each application's host gets.
    fn build(&self) -> (Sim, [Streams; 2]) {
        let mut sim = Sim::new(SEED);
        let mut config = HostConfig {
            frames: 4096,
            ..HostConfig::default()
        };
        // An end that only waits for data would otherwise not notice that its peer is gone.
        config.mptcp.tcp.keepalive = Some(Duration::from_secs(20));
        config.mptcp.tcp.keepalive_interval = Duration::from_secs(10);
        config.mptcp.tcp.keepalive_probes = 4;
        config.mptcp.checksum = if self.checksum {
            ChecksumPolicy::Always
        } else {
            ChecksumPolicy::Never
        };
        sim.add_host(&config);
        if self.entry.announces {
            let address = std::net::Ipv4Addr::new(198, 51, 100, 7);
            config.announce = vec![(AddressId(9), address.into())];
        }
        sim.add_host(&config);
        let mut first = None;
        for path in 0..self.placement.paths() {
            let (to_client, client_side) = Tap::new(Toward::Client);
            let (to_server, server_side) = Tap::new(Toward::Server);
            let mut elements: Vec<Box<dyn Element>> = vec![Box::new(to_client)];
            if self.placement.covers(path) {
                elements.extend((self.variant.build)(SEED + path as u64));
            }
            elements.push(Box::new(to_server));
            first.get_or_insert([client_side, server_side]);
            sim.add_link(
                CLIENT,
                SERVER,
                LinkConfig {
                    rate_bps: Some(20_000_000),
                    delay: Duration::from_millis(5 + 3 * path as u64),
                    elements,
                    ..LinkConfig::default()
                },
            );
        }
        (sim, first.expect("there is a path"))
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Cell {
        let (mut sim, [client_side, server_side]) = self.build();
        let role = Role::Peer { send: self.bytes() };
        let server = sim.host(SERVER).serve(&[(PORT, role)]).remove(0);
        server.record();
        let (_, client) = sim.connect(CLIENT, 0, PORT, role);
        client.record();
        let mut complete = None;
        let bytes = self.bytes();
        let ended = sim.run_until(LIMIT, |sim| {
            let (c, s) = (client.get(), server.get());
            if complete.is_none() && c.received == bytes && s.received == bytes {
                complete = Some(sim.elapsed());
            }
            c.closed.is_some()
                && sim.host(SERVER).engine().connections() == 0
                && sim.host(CLIENT).engine().connections() == 0
        });
        let seconds = complete.unwrap_or(sim.elapsed()).as_secs_f64();
        let boxes = boxes(&sim, self.placement);
        let edits = ["edits", "answers", "bytes changed"];
        let evidence = Evidence {
            ended,
            edits: edits.iter().filter_map(|name| boxes.get(*name)).sum(),
            fell_back: [CLIENT, SERVER]
                .iter()
                .any(|h| fell_back(&sim.host(*h).events)),
            subflow_lost: self.subflow_lost(&mut sim),
            note: format!("client {}, server {}", closed(&client), closed(&server)),
            client: received(&client, bytes, &client_side),
            server: received(&server, bytes, &server_side),
        };
        self.cell(&sim_counters(&mut sim), &boxes, seconds, &evidence)
    }

    /// A subflow was reset, or the second path never came into use.
    fn subflow_lost(&self, sim: &mut Sim) -> bool {
        let reset = [CLIENT, SERVER].iter().any(|host| {
            sim.host(*host).events.iter().any(|event| match event {
                Event::SubflowClosed { error, .. } => {
                    !["closed", "closed locally", "connection closed"].contains(&error.as_str())
                }
                _ => false,
            })
        });
        let joined =
            (sim.host(CLIENT).events.iter()).any(|e| matches!(e, Event::SubflowEstablished { .. }));
        reset || (self.placement.paths() == 2 && !joined)
    }

    fn judge(&self, e: &Evidence) -> (Verdict, String) {
        for (who, got) in [("client", &e.client), ("server", &e.server)] {
            if let Some(why) = self.wrong(e, got) {
                return (Verdict::Corrupted, format!("{who}: {why}"));
            }
        }
        if !e.ended {
            return (Verdict::Stalled, String::new());
        }
        let complete = e.client.finished && e.server.finished;
        let verdict = match (complete, e.fell_back, e.subflow_lost) {
            (false, ..) => Verdict::Error,
            (true, true, _) => Verdict::Fallback,
            (true, false, true) => Verdict::Reset,
            (true, false, false) => Verdict::Mptcp,
        };
        (verdict, String::new())
    }

    /// Why what an application got cannot be right.
    fn wrong(&self, e: &Evidence, got: &Received) -> Option<String> {
        let mut differences = Differences::default();
        differences.take(0, &got.bytes);
        let bad_at = differences.wrong.map(|(first, _)| first);
        let short = got.finished && (got.bytes.len() as u64) < got.sent;
        let long = (got.bytes.len() as u64) > got.sent;
        if bad_at.is_none() && !short && !long {
            return None;
        }
        let told = format!(
            "{} of {} bytes, first wrong at {bad_at:?}, finished {}",
            got.bytes.len(),
            got.sent,
            got.finished
        );
        if self.entry.oracle == Oracle::Sent {
            return Some(told);
        }
        // Plain TCP would have delivered what passed on its one path.
        let prefix = got.forwarded.starts_with(&got.bytes);
        let whole = !got.finished || got.forwarded.len() == got.bytes.len();
        if prefix && whole && (e.fell_back || (self.placement.paths() == 1 && !self.checksum)) {
            return None;
        }
        // Unnoticed without a checksum: nothing but the mappings that were changed, and their
        // neighbours when the length changed, may differ.
        if !self.checksum && !short && !long && differences.stretches <= 2 * e.edits {
            return None;
        }
        Some(format!(
            "{told}; {} bytes passed, the same so far: {prefix}",
            got.forwarded.len()
        ))
    }

    fn cell(
        &self,
        counters: &BTreeMap<String, u64>,
        boxes: &BTreeMap<String, u64>,
        seconds: f64,
        evidence: &Evidence,
    ) -> Cell {
        let (verdict, why) = self.judge(evidence);
        let allowed = self.entry.allows(self.placement);
        let as_allowed = match (verdict, allowed) {
            (Verdict::Mptcp, Some(a)) => a.contains(Allowed::MPTCP),
            (Verdict::Fallback, Some(a)) => a.contains(Allowed::FALLBACK),
            (Verdict::Reset, Some(a)) => a.contains(Allowed::RESET),
            (Verdict::Error, Some(a)) => a.contains(Allowed::ERROR),
            _ => false,
        };
        let delivered = evidence.client.bytes.len() + evidence.server.bytes.len();
        Cell {
            entry: self.entry.id.to_owned(),
            name: self.entry.name.to_owned(),
            variant: self.variant.name.to_owned(),
            pair: "braid - braid".to_owned(),
            placement: self.placement.name().to_owned(),
            checksum: self.checksum,
            verdicts: [(verdict, 1)].into(),
            allowed: allowed.map_or(String::new(), |a| a.to_string()),
            as_allowed,
            acted: !boxes.is_empty(),
            bytes: delivered as u64,
            seconds,
            boxes: boxes.clone(),
            counters: counters.clone(),
            note: format!("{}. {why}", evidence.note),
        }
    }
}

fn fell_back(events: &[Event]) -> bool {
    events.iter().any(|e| {
        matches!(
            e,
            Event::FellBack { .. } | Event::Established { mptcp: false, .. }
        )
    })
}

fn closed(outcomes: &Outcomes) -> String {
    (outcomes.get().closed).map_or("open".to_owned(), |reason| reason.to_string())
}

fn received(outcomes: &Outcomes, sent: u64, tap: &Streams) -> Received {
    let outcome = outcomes.get();
    // Ephemeral ports count up: the first flow is the lowest.
    let forwarded = (tap.flows().first()).map_or(Vec::new(), |flow| tap.stream(*flow).0);
    Received {
        bytes: outcomes.recorded(),
        sent,
        // An application that saw the end of the stream believes that it has it all.
        finished: outcome.eof || outcome.closed == Some(CloseReason::Finished),
        forwarded,
    }
}

fn boxes(sim: &Sim, placement: Placement) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for path in (0..placement.paths()).filter(|p| placement.covers(*p)) {
        for (name, count) in sim.elements(path).iter().flat_map(|e| e.counts()) {
            *counts.entry(name.to_owned()).or_default() += count;
        }
    }
    counts
}

fn sim_counters(sim: &mut Sim) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    for (host, name) in [(CLIENT, "client"), (SERVER, "server")] {
        for (counter, value) in sim.host(host).counters().nonzero() {
            counters.insert(format!("{name} {counter}"), value);
        }
    }
    counters
}
