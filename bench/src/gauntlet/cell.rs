//! One cell: fresh namespaces, two ends, the boxes between them, one connection, and what
//! came of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use braid_dataplane::mptcp::{CloseReason, Event};

use super::braid::{BraidEnd, Setup};
use super::judge::{Evidence, Received};
use super::kernel::{Got, KernelEnd, Task};
use super::relay::Relay;
use super::wire::WireConfig;
use crate::failure;
use crate::middlebox::catalogue::{Entry, Placement, Variant};
use crate::middlebox::tap::{Streams, Tap};
use crate::middlebox::{Element, Toward};
use crate::peer::stream::hex;
use crate::testbed::{Options, Result, Role, Testbed};

/// Whatever it is: a port without an association for any box.
const PORT: u16 = 5201;
/// An address of the server that no path leads to.
const UNREACHABLE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
/// After the second end has nothing left to wait for, how long the first may take.
const POLL: Duration = Duration::from_millis(5);

/// Who is at an end.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stack {
    /// braid.
    Braid,
    /// The kernel's MPTCP.
    Kernel,
    /// The kernel's TCP, for comparison.
    Tcp,
}

impl Stack {
    /// As in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Braid => "braid",
            Self::Kernel => "kernel",
            Self::Tcp => "TCP",
        }
    }
}

/// Client and server.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pair {
    /// Who connects.
    pub client: Stack,
    /// Who listens.
    pub server: Stack,
}

impl Pair {
    /// As in reports: the client first.
    #[must_use]
    pub fn name(self) -> String {
        format!("{} - {}", self.client.name(), self.server.name())
    }

    /// Two letters, the client first.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let stack = |letter| match letter {
            'b' => Some(Stack::Braid),
            'k' => Some(Stack::Kernel),
            't' => Some(Stack::Tcp),
            _ => None,
        };
        let mut letters = text.chars();
        let pair = Self {
            client: stack(letters.next()?)?,
            server: stack(letters.next()?)?,
        };
        letters.next().is_none().then_some(pair)
    }

    /// Plain TCP at either end.
    #[must_use]
    pub fn plain(self) -> bool {
        self.client == Stack::Tcp || self.server == Stack::Tcp
    }
}

/// What one run of a cell is.
#[derive(Copy, Clone, Debug)]
pub struct Case {
    /// Which behaviour; none: a path without a box.
    pub boxes: Option<(&'static Entry, &'static Variant)>,
    /// Where the box stands.
    pub placement: Placement,
    /// Who talks.
    pub pair: Pair,
    /// DSS checksums.
    pub checksum: bool,
    /// Bytes each way.
    pub bytes: u64,
}

/// What does not differ between cells.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where the programs are.
    pub programs: PathBuf,
    /// `interface.mode` of braid.
    pub mode: Option<String>,
    /// Every path.
    pub wire: WireConfig,
    /// After which a connection has stalled.
    pub limit: Duration,
    /// Boxes that decide by chance replay from this.
    pub seed: u64,
}

enum End<'a> {
    Braid(Box<BraidEnd<'a>>),
    Kernel(KernelEnd),
}

impl End<'_> {
    fn ended(&mut self) -> Result<bool> {
        match self {
            Self::Braid(end) => end.ended(),
            Self::Kernel(end) => Ok(end.ended()),
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self, Self::Braid(end) if end.events().is_empty())
    }
}

/// What both taps of the first path saw.
struct Taps {
    toward_client: Streams,
    toward_server: Streams,
}

impl Case {
    fn announces(&self) -> bool {
        self.boxes.is_some_and(|(entry, _)| entry.announces)
    }

    /// Runs it once.
    pub fn run(&self, environment: &Environment) -> Result<Evidence> {
        let paths = u8::try_from(self.placement.paths()).unwrap_or(u8::MAX);
        let testbed = Testbed::new(Options {
            paths,
            offloads: false,
            hop: true,
            cut: true,
            announce: (self.pair.server == Stack::Kernel).then_some(Role::Braid),
            ..Options::default()
        })?;
        self.prepare(&testbed, paths)?;
        let (relay, taps) = self.relay(environment, &testbed)?;
        let before = counters(&testbed)?;
        let deadline = Instant::now() + environment.limit;
        let mut server = self.end(environment, &testbed, Role::Braid, deadline)?;
        let mut client = self.end(environment, &testbed, Role::Peer, deadline)?;
        let start = Instant::now();
        let deadline = start + environment.limit;
        if let End::Braid(end) = &client {
            end.connect()?;
        }
        let mut ended = false;
        while !ended && Instant::now() < deadline {
            std::thread::sleep(POLL);
            // Both, so that both read their events.
            let (c, s) = (client.ended()?, server.ended()?);
            ended = c && s;
        }
        // A server that never heard of the connection has nothing to end; the kernel's gives
        // up waiting for it.
        ended |= client.ended()? && server.is_idle();
        let mut evidence = Evidence::default();
        self.told_by_counters(&before, &counters(&testbed)?, &mut evidence);
        let client_got =
            self.received(client, &taps.toward_client, start, &mut evidence, "client")?;
        let server_got =
            self.received(server, &taps.toward_server, start, &mut evidence, "server")?;
        evidence.ended = ended;
        evidence.client = client_got;
        evidence.server = server_got;
        for path in (0..self.placement.paths()).filter(|p| self.placement.covers(*p)) {
            for (name, count) in relay.counts(path) {
                *evidence.boxes.entry(name.to_owned()).or_default() += count;
            }
        }
        evidence.paths = self.placement.paths();
        relay.stop()?;
        Ok(evidence)
    }

    /// Settings of the namespaces.
    fn prepare(&self, testbed: &Testbed, paths: u8) -> Result<()> {
        let checksum = format!("net.mptcp.checksum_enabled={}", u8::from(self.checksum));
        for role in [Role::Peer, Role::Braid] {
            testbed.run(
                role,
                &[
                    "sysctl",
                    "-q",
                    "-w",
                    &checksum,
                    "net.mptcp.close_timeout=10",
                ],
            )?;
        }
        // A subflow stays on its path: no way from one path's address to the other's.
        for (own, other) in [(1, 2), (2, 1)].into_iter().filter(|_| paths > 1) {
            for role in [Role::Peer, Role::Braid] {
                let from = Testbed::v4(role, own).to_string();
                let to = format!("10.77.{other}.0/24");
                testbed.run(
                    role,
                    &["ip", "rule", "add", "from", &from, "to", &to, "unreachable"],
                )?;
            }
        }
        if self.announces() {
            let address = UNREACHABLE.to_string();
            testbed.run(
                Role::Braid,
                &["ip", "address", "add", &address, "dev", "vb1"],
            )?;
            if self.pair.server == Stack::Kernel {
                testbed.run(
                    Role::Braid,
                    &["ip", "mptcp", "endpoint", "add", &address, "signal"],
                )?;
            }
        }
        Ok(())
    }

    fn relay(&self, environment: &Environment, testbed: &Testbed) -> Result<(Relay, Taps)> {
        let mut first = None;
        let mut paths = Vec::new();
        for path in 0..self.placement.paths() {
            let (to_client, toward_client) = Tap::new(Toward::Client);
            let (to_server, toward_server) = Tap::new(Toward::Server);
            let mut elements: Vec<Box<dyn Element>> = vec![Box::new(to_client)];
            if let Some((_, variant)) = self.boxes
                && self.placement.covers(path)
            {
                elements.extend((variant.build)(environment.seed + path as u64));
            }
            elements.push(Box::new(to_server));
            first.get_or_insert(Taps {
                toward_client,
                toward_server,
            });
            paths.push((environment.wire, elements));
        }
        let taps = first.ok_or_else(|| failure!("a placement without a path"))?;
        Ok((Relay::start(testbed, paths)?, taps))
    }

    fn end<'a>(
        &self,
        environment: &Environment,
        testbed: &'a Testbed,
        role: Role,
        deadline: Instant,
    ) -> Result<End<'a>> {
        let server = role == Role::Braid;
        let stack = if server {
            self.pair.server
        } else {
            self.pair.client
        };
        let address = SocketAddr::new(Testbed::v4(Role::Braid, 1), PORT);
        if stack == Stack::Braid {
            let setup = Setup {
                role,
                address,
                bytes: self.bytes,
                checksum: self.checksum,
                mode: environment.mode.clone(),
                announce: (server && self.announces()).then_some(UNREACHABLE),
            };
            let end = BraidEnd::start(testbed, &environment.programs, &setup)?;
            return Ok(End::Braid(Box::new(end)));
        }
        let task = Task {
            role,
            tcp: stack == Stack::Tcp,
            address,
            bytes: self.bytes,
            deadline,
        };
        Ok(End::Kernel(if server {
            // Joins come to addresses other than the service's.
            let address = SocketAddr::new(crate::peer::socket::any(address.ip()), PORT);
            KernelEnd::serve(testbed, &Task { address, ..task })?
        } else {
            KernelEnd::connect(testbed, &task)?
        }))
    }

    fn received(
        &self,
        end: End<'_>,
        tap: &Streams,
        start: Instant,
        evidence: &mut Evidence,
        who: &str,
    ) -> Result<Received> {
        let forwarded: Vec<Vec<u8>> = (tap.flows().iter())
            .map(|flow| tap.stream(*flow).0)
            .collect();
        let mut ended_at = None;
        let got = match end {
            End::Kernel(end) => {
                let got = end.join();
                ended_at = got.ended;
                kernel_evidence(&got, evidence, who);
                Received::from_bytes(got.bytes, self.bytes, got.eof, forwarded)
            }
            End::Braid(end) => {
                ended_at = end.ended_at().or(ended_at);
                braid_evidence(end.events(), evidence, who);
                for (name, count) in end.daemon().counters()? {
                    evidence.counters.insert(format!("{who} {name}"), count);
                }
                let finished = end.closed() == Some(CloseReason::Finished);
                match end.findings() {
                    Some(f) => Received::from_findings(f, self.bytes, finished, forwarded),
                    None => Received::nothing(self.bytes, forwarded),
                }
            }
        };
        if let Some(at) = ended_at {
            evidence.elapsed = evidence.elapsed.max(at.saturating_duration_since(start));
        }
        Ok(got)
    }

    /// What the kernels' counters say about the connection.
    fn told_by_counters(&self, before: &Pairs, after: &Pairs, evidence: &mut Evidence) {
        for (who, stack, before, after) in [
            ("client", self.pair.client, &before.0, &after.0),
            ("server", self.pair.server, &before.1, &after.1),
        ] {
            if stack == Stack::Braid {
                continue;
            }
            for (name, value) in after {
                let value = value - before.get(name).copied().unwrap_or(0);
                let short = name.strip_prefix("MPTcpExt");
                let telling = ["TcpExtTCPTimeouts", "TcpRetransSegs"].contains(&name.as_str());
                if value > 0 && (short.is_some() || telling) {
                    let name = short.unwrap_or(name);
                    evidence.counters.insert(format!("{who} {name}"), value);
                    evidence.reset |= ["MPRstTx", "MPRstRx"].contains(&name);
                    evidence.joined |= ["MPJoinSynAckRx", "MPJoinAckRx"].contains(&name);
                }
            }
        }
    }
}

type Counters = BTreeMap<String, u64>;
type Pairs = (Counters, Counters);

fn counters(testbed: &Testbed) -> Result<Pairs> {
    Ok((
        testbed.counters(Role::Peer)?,
        testbed.counters(Role::Braid)?,
    ))
}

fn kernel_evidence(got: &Got, evidence: &mut Evidence, who: &str) {
    evidence.fell_back |= !got.transport.mptcp;
    let error = got.error.as_deref().unwrap_or("no error");
    let end = match (got.eof, got.timed_out) {
        (_, true) => "not over",
        (true, _) => "end of stream",
        _ => "no end of stream",
    };
    evidence.notes.push(format!("{who}: {end}, {error}"));
}

fn braid_evidence(events: &[Event], evidence: &mut Evidence, who: &str) {
    let mut note = format!("{who}:");
    let mut say = |text: String| {
        note.push(' ');
        note.push_str(&text);
    };
    for event in events {
        match event {
            Event::Established { mptcp: false, .. } => {
                evidence.fell_back = true;
                say("plain TCP".to_owned());
            }
            Event::FellBack { reason, .. } => {
                evidence.fell_back = true;
                say(format!("fell back ({reason})"));
            }
            Event::SubflowEstablished { .. } => evidence.joined = true,
            // The end of a connection is the end of its subflows.
            Event::SubflowClosed { error, .. }
                if !["closed", "closed locally", "connection closed"].contains(&error.as_str()) =>
            {
                evidence.reset = true;
                say(format!("subflow {error}"));
            }
            Event::Closed { reason, .. } => say(format!("{reason}")),
            Event::Checked { findings, .. } => {
                say(format!("got {}", findings.received));
            }
            _ => {}
        }
    }
    evidence.notes.push(note);
}

/// SHA-256, as braid's application tells it.
pub(super) fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex(&Sha256::digest(bytes))
}
