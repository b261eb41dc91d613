//! Two namespaces and the paths between them, as `scripts/testbed-veth` builds them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde::Serialize;

use super::Result;
use super::process::{Process, output};
use crate::failure;

/// The side of a namespace.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Kernel sockets.
    Peer,
    /// braid, or a kernel server in its place.
    Braid,
    /// Forwards in the middle, when [`Options::hop`] is set.
    Hop,
}

impl Role {
    /// As in the namespace's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Braid => "braid",
            Self::Hop => "hop",
        }
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Veth pairs.
    pub paths: u8,
    /// Of every interface, bytes.
    pub mtu: u32,
    /// TSO, GSO, GRO and checksum offload.
    pub offloads: bool,
    /// Receive and transmit queues of every interface.
    pub queues: u8,
    /// A forwarding namespace in the middle.
    pub hop: bool,
    /// The namespace in the middle forwards nothing: a program is to join its interfaces.
    pub cut: bool,
    /// Whose kernel announces its further addresses.
    pub announce: Option<Role>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            paths: 2,
            mtu: 1500,
            offloads: true,
            queues: 1,
            hop: false,
            cut: false,
            announce: None,
        }
    }
}

/// Bytes through an interface.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_bytes: u64,
}

impl Traffic {
    /// Since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes.saturating_sub(earlier.rx_bytes),
            tx_bytes: self.tx_bytes.saturating_sub(earlier.tx_bytes),
        }
    }
}

/// What one path carried of a transfer, seen from the peer.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct PathShare {
    /// Counted from 1.
    pub path: u8,
    /// From the peer.
    pub there_bytes: u64,
    /// To the peer.
    pub back_bytes: u64,
    /// Of all bytes from the peer, 0 to 1.
    pub there_share: f64,
    /// Of all bytes to the peer, 0 to 1.
    pub back_share: f64,
}

impl PathShare {
    /// Of the traffic between two looks at the peer's interfaces.
    #[must_use]
    pub fn between(before: &[Traffic], after: &[Traffic]) -> Vec<Self> {
        let moved = after.iter().zip(before).map(|(now, then)| now.since(*then));
        let moved: Vec<_> = moved.collect();
        let there: u64 = moved.iter().map(|traffic| traffic.tx_bytes).sum();
        let back: u64 = moved.iter().map(|traffic| traffic.rx_bytes).sum();
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        (1..)
            .zip(moved)
            .map(|(path, traffic)| Self {
                path,
                there_bytes: traffic.tx_bytes,
                back_bytes: traffic.rx_bytes,
                there_share: share(traffic.tx_bytes, there),
                back_share: share(traffic.rx_bytes, back),
            })
            .collect()
    }

    /// The smaller of the two shares.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.there_share.min(self.back_share)
    }
}

/// The namespaces; deleted, with every process in them, when dropped.
#[derive(Debug)]
pub struct Testbed {
    name: String,
    options: Options,
    directory: PathBuf,
    /// Logs begun so far: they are numbered.
    logs: AtomicU32,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/testbed-veth")
}

impl Testbed {
    /// Builds it, under a name of its own.
    pub fn new(options: Options) -> Result<Self> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let count = BUILT.fetch_add(1, Ordering::Relaxed);
        Self::named(&format!("bt-{}-{count}", std::process::id()), options)
    }

    /// Builds it.
    pub fn named(name: &str, options: Options) -> Result<Self> {
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)?;
        let mut command = Command::new(script());
        command
            .args(["up", "--name", name])
            .args(["--paths", &options.paths.to_string()])
            .args(["--mtu", &options.mtu.to_string()])
            .args(["--queues", &options.queues.to_string()])
            .args(["--offloads", if options.offloads { "on" } else { "off" }])
            .args(["--announce", options.announce.map_or("none", Role::as_str)]);
        if options.hop {
            command.arg("--hop");
        }
        if options.cut {
            command.arg("--cut");
        }
        // Held while it is built: see `remove_all`.
        let mut built = built();
        built.push((name.to_owned(), directory.clone()));
        let result = output(&mut command);
        drop(built);
        let testbed = Self {
            name: name.to_owned(),
            options,
            directory,
            logs: AtomicU32::new(0),
        };
        result?;
        Ok(testbed)
    }

    /// As built.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where configurations, sockets and logs go; deleted with the testbed.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name of a namespace.
    #[must_use]
    pub fn namespace(&self, role: Role) -> String {
        format!("{}-{}", self.name, role.as_str())
    }

    /// Interface of a path, counted from 1. In the hop: the one towards the peer.
    #[must_use]
    pub fn interface(role: Role, path: u8) -> String {
        match role {
            Role::Peer => format!("vp{path}"),
            Role::Braid => format!("vb{path}"),
            Role::Hop => format!("hp{path}"),
        }
    }

    /// IPv4 address of an end of a path.
    #[must_use]
    pub fn v4(role: Role, path: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 77, path, host(role)))
    }

    /// IPv6 address of an end of a path.
    #[must_use]
    pub fn v6(role: Role, path: u8) -> IpAddr {
        let host = u16::from(host(role));
        IpAddr::V6(Ipv6Addr::new(0xfd77, u16::from(path), 0, 0, 0, 0, 0, host))
    }

    /// A command inside a namespace, to be started by the caller.
    #[must_use]
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, role: Role, argv: &[S]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace(role)])
            .args(argv);
        command
    }

    /// Runs a command inside a namespace to its end; its standard output.
    pub fn run(&self, role: Role, argv: &[&str]) -> Result<String> {
        output(&mut self.command(role, argv))
    }

    /// Starts a command inside a namespace.
    pub fn start(&self, role: Role, name: &str, argv: &[&str]) -> Result<Process> {
        let count = self.logs.fetch_add(1, Ordering::Relaxed);
        let log = self.directory.join(format!("{count}-{name}.log"));
        Process::start(name, self.command(role, argv), &log)
    }

    /// Starts `braid-bench peer …` inside a namespace. `peer` is the program's path.
    pub fn peer(&self, role: Role, program: &Path, args: &[&str]) -> Result<Process> {
        let program = program.to_string_lossy();
        let mut argv = vec![&*program, "peer"];
        argv.extend(args);
        self.start(role, args.first().unwrap_or(&"peer"), &argv)
    }

    /// Starts `braid-bench peer serve …` and waits until it listens.
    pub fn server(&self, role: Role, program: &Path, args: &[&str]) -> Result<Process> {
        let mut argv = vec!["serve"];
        argv.extend(args);
        let mut server = self.peer(role, program, &argv)?;
        server.expect_line("ready", Duration::from_secs(5))?;
        Ok(server)
    }

    /// Sets an interface up or down.
    pub fn link(&self, role: Role, path: u8, up: bool) -> Result<()> {
        let interface = Self::interface(role, path);
        let state = if up { "up" } else { "down" };
        self.run(role, &["ip", "link", "set", &interface, state])
            .map(drop)
    }

    /// Drops everything on a path, both ways, silently: neither end sees an error or
    /// a change of its link. Needs the hop.
    pub fn blackhole(&self, path: u8, on: bool) -> Result<()> {
        for interface in [format!("hp{path}"), format!("hb{path}")] {
            for iptables in ["iptables", "ip6tables"] {
                let verb = if on { "-A" } else { "-D" };
                self.run(
                    Role::Hop,
                    &[
                        iptables,
                        "-w",
                        "-t",
                        "raw",
                        verb,
                        "PREROUTING",
                        "-i",
                        &interface,
                        "-j",
                        "DROP",
                    ],
                )?;
            }
        }
        Ok(())
    }

    /// Takes TCP option 30 (MPTCP) out of forwarded segments that match `filter`
    /// (iptables arguments). Needs the hop.
    pub fn strip_mptcp(&self, filter: &[&str], on: bool) -> Result<()> {
        let verb = if on { "-A" } else { "-D" };
        let mut argv = vec![
            "iptables", "-w", "-t", "mangle", verb, "FORWARD", "-p", "tcp",
        ];
        argv.extend(filter);
        argv.extend(["-j", "TCPOPTSTRIP", "--strip-options", "30"]);
        self.run(Role::Hop, &argv).map(drop)
    }

    /// Makes everything that leaves an interface of the peer use one of its queues,
    /// and so arrive on that queue at the other end.
    pub fn transmit_queue(&self, path: u8, queue: u8) -> Result<()> {
        let interface = Self::interface(Role::Peer, path);
        let cores = output(Command::new("nproc").arg("--all"))?;
        let cores: u32 = cores.trim().parse().map_err(|e| failure!("nproc: {e}"))?;
        let every_core = (1_u64 << cores.min(32)) - 1;
        for other in 0..self.options.queues {
            // Transmit packet steering: this queue for every core, the others for none.
            let mask = if other == queue { every_core } else { 0 };
            let file = format!("/sys/class/net/{interface}/queues/tx-{other}/xps_cpus");
            let write = format!("echo {mask:x} >{file}");
            self.run(Role::Peer, &["sh", "-c", &write])?;
        }
        Ok(())
    }

    /// A namespace, for threads to enter.
    pub fn namespace_handle(&self, role: Role) -> Result<Namespace> {
        let path = Path::new("/var/run/netns").join(self.namespace(role));
        let file = std::fs::File::open(&path).map_err(|e| failure!("{}: {e}", path.display()))?;
        Ok(Namespace(file))
    }

    /// Bytes through the interface of each path, at `role`'s end. Frames that an XDP
    /// program takes away or an AF_XDP socket sends count at the other end only, so
    /// look at the peer's.
    pub fn traffic(&self, role: Role) -> Result<Vec<Traffic>> {
        let text = self.run(role, &["cat", "/proc/net/dev"])?;
        let parsed = parse_traffic(&text);
        (1..=self.options.paths)
            .map(|path| {
                let interface = Self::interface(role, path);
                parsed
                    .get(&interface)
                    .copied()
                    .ok_or_else(|| failure!("no interface {interface} in {text}"))
            })
            .collect()
    }

    /// Every counter of a namespace's kernel, by the names of nstat(8).
    pub fn counters(&self, role: Role) -> Result<BTreeMap<String, u64>> {
        let text = self.run(role, &["cat", "/proc/net/snmp", "/proc/net/netstat"])?;
        Ok(parse_counters(&text))
    }
}

/// A network namespace that a thread may enter.
#[derive(Debug)]
pub struct Namespace(std::fs::File);

impl Namespace {
    /// Moves the calling thread into it, for good: sockets that it opens are there.
    pub fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(|e| failure!("setns: {e}"))
    }
}

/// Testbeds of this process that are not removed: names, and where their files are.
static BUILT: Mutex<Vec<(String, PathBuf)>> = Mutex::new(Vec::new());

fn built() -> MutexGuard<'static, Vec<(String, PathBuf)>> {
    BUILT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every testbed of a process that is about to end: nobody can build or remove any
/// afterwards.
pub(super) fn remove_all() {
    let mut built = built();
    for (name, directory) in built.drain(..) {
        remove(&name);
        let _ = std::fs::remove_dir_all(directory);
    }
    std::mem::forget(built);
}

/// Removes the namespaces, and ends what runs inside.
fn remove(name: &str) {
    let mut command = Command::new(script());
    command.args(["down", "--name", name]);
    if let Err(e) = output(&mut command) {
        eprintln!("cannot remove testbed {name}: {e}");
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        remove(&self.name);
        built().retain(|(name, _)| *name != self.name);
        if std::thread::panicking() {
            eprintln!("logs are kept in {}", self.directory.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn host(role: Role) -> u8 {
    match role {
        Role::Peer => 1,
        Role::Braid => 2,
        Role::Hop => 254,
    }
}

/// /proc/net/dev: `name: rx_bytes packets errs drop fifo frame compressed multicast tx_bytes …`.
fn parse_traffic(text: &str) -> BTreeMap<String, Traffic> {
    text.lines()
        .filter_map(|line| {
            let (name, numbers) = line.split_once(':')?;
            let mut numbers = numbers.split_whitespace().map(str::parse);
            let rx_bytes = numbers.next()?.ok()?;
            let tx_bytes = numbers.nth(7)?.ok()?;
            Some((name.trim().to_owned(), Traffic { rx_bytes, tx_bytes }))
        })
        .collect()
}

/// /proc/net/snmp and /proc/net/netstat: a line of names, then a line of values, each
/// with its group in front.
fn parse_counters(text: &str) -> BTreeMap<String, u64> {
    let mut counters = BTreeMap::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((_, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}{name}"), value);
            }
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_script() {
        assert_eq!(Testbed::v4(Role::Peer, 1).to_string(), "10.77.1.1");
        assert_eq!(Testbed::v4(Role::Braid, 2).to_string(), "10.77.2.2");
        assert_eq!(Testbed::v6(Role::Braid, 2).to_string(), "fd77:2::2");
        let text = std::fs::read_to_string(script()).unwrap();
        for needle in [
            "10.77.$3.$4/24",
            "fd77:$3::$4/64",
            "vp$i",
            "vb$i",
            "hp$i",
            "hb$i",
        ] {
            assert!(text.contains(needle), "{needle}");
        }
    }

    #[test]
    fn reads_interface_bytes() {
        let text = "Inter-|   Receive   |  Transmit\n face |bytes packets\n\
                    \x20   lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n\
                    \x20  vp1: 100 7 0 0 0 0 0 0 250 9 0 0 0 0 0 0\n";
        let traffic = parse_traffic(text);
        assert_eq!(
            traffic["vp1"],
            Traffic {
                rx_bytes: 100,
                tx_bytes: 250
            }
        );
        assert_eq!(traffic.len(), 2);
    }

    #[test]
    fn shares_are_of_each_direction() {
        let traffic = |rx_bytes, tx_bytes| Traffic { rx_bytes, tx_bytes };
        let before = [traffic(10, 20), traffic(0, 0)];
        let after = [traffic(110, 320), traffic(300, 100)];
        let shares = PathShare::between(&before, &after);
        assert_eq!(shares[0].there_share, 0.75);
        assert_eq!(shares[0].back_share, 0.25);
        assert_eq!(shares[1].least(), 0.25);
    }

    #[test]
    fn reads_kernel_counters() {
        let text = "Tcp: RtoAlgorithm MaxConn ActiveOpens\nTcp: 1 -1 12\n\
                    MPTcpExt: MPCapableSYNRX MPJoinSynRx\nMPTcpExt: 3 4\n";
        let counters = parse_counters(text);
        assert_eq!(counters["MPTcpExtMPJoinSynRx"], 4);
        assert_eq!(counters["TcpActiveOpens"], 12);
        assert!(!counters.contains_key("TcpMaxConn"), "negative means none");
    }
}
