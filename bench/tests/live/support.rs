//! What every live test uses.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use braid_bench::failure;
use braid_bench::peer::client::Report;
use braid_bench::testbed::requirement::{Requirement, programs};
use braid_bench::testbed::{Braidd, Config, Options, PathShare, Process, Result, Role, Testbed};
use nix::fcntl::{Flock, FlockArg};

/// The longest a transfer may take before the test gives up on it.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(90);

/// Live tests run one at a time, whatever runs them: they measure, and the cores are few.
pub(crate) struct Turn {
    _lock: Flock<File>,
}

fn kernel_instead() -> bool {
    std::env::var("BRAID_LIVE_SUBJECT").is_ok_and(|subject| subject == "kernel")
}

fn skip(test: &str, why: &str) {
    let line = format!("SKIP {test}: {why}");
    eprintln!("{line}");
    if let Some(log) = std::env::var_os("BRAID_SKIP_LOG") {
        let file = File::options().append(true).create(true).open(log);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// This test's turn, or `None`, loudly, if the machine lacks something.
pub(crate) fn turn(test: &str, more: &[Requirement]) -> Option<Turn> {
    let mut needed = more.to_vec();
    if !kernel_instead() {
        needed.extend([Requirement::XdpSockets, Requirement::Programs]);
    }
    kernel_turn(test, &needed)
}

/// As [`turn`], for tests in which braid has no part.
pub(crate) fn kernel_turn(test: &str, more: &[Requirement]) -> Option<Turn> {
    let needed = [Requirement::Root, Requirement::Mptcp];
    for requirement in needed.iter().chain(more) {
        let Some(why) = requirement.missing() else {
            continue;
        };
        let required = std::env::var_os("BRAID_LIVE_PROGRAMS_REQUIRED").is_some();
        assert!(
            !(*requirement == Requirement::Programs && required),
            "{why}"
        );
        skip(test, &why);
        return None;
    }
    let lock = std::env::temp_dir().join("braid-live-tests.lock");
    let file = File::create(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
    match Flock::lock(file, FlockArg::LockExclusive) {
        Ok(lock) => Some(Turn { _lock: lock }),
        Err((_, e)) => panic!("{}: {e}", lock.display()),
    }
}

/// As [`turn`], for tests that look into braid itself.
pub(crate) fn braid_turn(test: &str, more: &[Requirement]) -> Option<Turn> {
    if kernel_instead() {
        skip(
            test,
            "BRAID_LIVE_SUBJECT=kernel, and this test is about braid's own tools",
        );
        return None;
    }
    turn(test, more)
}

/// braid-bench itself, which is also the peer.
pub(crate) fn bench_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_braid-bench"))
}

/// What is tested.
pub(crate) enum Subject<'a> {
    /// braid.
    Braid(Braidd<'a>),
    /// A kernel server for each service, in its place.
    Kernel(#[expect(dead_code, reason = "held to keep the servers running")] Vec<Process>),
}

impl<'a> Subject<'a> {
    /// Starts it.
    pub(crate) fn start(testbed: &'a Testbed, config: &Config) -> Result<Self> {
        if !kernel_instead() {
            return Ok(Self::Braid(Braidd::start(testbed, &programs(), config)?));
        }
        let mut servers = Vec::new();
        for service in &config.services {
            let port = service.listen.rsplit(':').next().unwrap_or_default();
            // Joins come to addresses other than the service's.
            let listen = format!("[::]:{port}");
            let app = service.app.as_str();
            let args = ["--listen", &listen, "--app", app];
            servers.push(testbed.server(Role::Braid, &bench_program(), &args)?);
        }
        Ok(Self::Kernel(servers))
    }

    /// braid, if it is.
    pub(crate) fn braid(&self) -> Option<&Braidd<'a>> {
        match self {
            Self::Braid(braidd) => Some(braidd),
            Self::Kernel(_) => None,
        }
    }
}

/// A testbed with `options`, where a kernel in braid's place announces its addresses.
pub(crate) fn testbed(options: Options) -> Result<Testbed> {
    Testbed::new(Options {
        announce: kernel_instead().then_some(Role::Braid),
        ..options
    })
}

/// Starts a client in the peer's namespace.
pub(crate) fn client(testbed: &Testbed, args: &[&str]) -> Result<Process> {
    testbed.peer(Role::Peer, &bench_program(), args)
}

/// A finished transfer.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// What the client says.
    pub(crate) report: Report,
    /// What the paths carried meanwhile.
    pub(crate) paths: Vec<PathShare>,
}

/// Runs a client to its end.
pub(crate) fn transfer(testbed: &Testbed, args: &[&str]) -> Result<Transfer> {
    let before = testbed.traffic(Role::Peer)?;
    let mut client = client(testbed, args)?;
    let report = client.json(TRANSFER_TIMEOUT)?;
    let paths = PathShare::between(&before, &testbed.traffic(Role::Peer)?);
    let transfer = Transfer { report, paths };
    eprintln!("{args:?}: {transfer:?}");
    Ok(transfer)
}

impl Transfer {
    /// Every byte is there, and the connection was MPTCP to its end.
    pub(crate) fn intact_mptcp(&self) -> &Self {
        self.intact();
        assert!(self.report.transport.mptcp, "fell back: {self:?}");
        self
    }

    /// Every byte is there.
    pub(crate) fn intact(&self) -> &Self {
        assert!(self.report.intact, "{self:?}");
        self
    }

    /// Every path carried a tenth, each way.
    pub(crate) fn on_every_path(&self) -> &Self {
        for path in &self.paths {
            assert!(path.least() >= 0.10, "path {} idle: {self:?}", path.path);
        }
        self
    }
}

/// Waits until `done` says so; how long it took.
pub(crate) fn wait_until(
    what: &str,
    timeout: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if done()? {
            return Ok(start.elapsed());
        }
        if start.elapsed() > timeout {
            return Err(failure!("{what}: not within {timeout:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
