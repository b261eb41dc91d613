//! The configuration: what the file says, checked.
//!
//! `raw` is the file's shape, `validate` turns it into a [`Config`], the only
//! thing the rest of the control plane sees. A `Config` that exists is consistent in
//! itself; whether the machine can do it is [`crate::preflight`]'s question.

mod error;
mod raw;
#[cfg(test)]
mod tests;
pub mod units;
mod validate;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use braid_dataplane::control::{
    AppSetup, ChecksumPolicy, CongestionKind, EcnPolicy, HugePages, Idle, SchedulerKind, Version,
};
use serde::{Deserialize, Serialize};

pub use error::ConfigError;

/// SYN-RECEIVED connections of one service at the most: like Linux's default
/// `net.core.somaxconn` since 5.4 divided by four, because every one pins a frame.
pub const BACKLOG: u32 = 1024;

/// Where braidd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/braid/control.sock";

/// Everything the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where it was read.
    pub file: PathBuf,
    /// `[dataplane]`.
    pub dataplane: DataplaneConfig,
    /// `[[interface]]`.
    pub interfaces: Vec<InterfaceConfig>,
    /// `[mptcp]`.
    pub mptcp: MptcpConfig,
    /// `[path]`.
    pub path: PathConfig,
    /// `[[service]]`.
    pub services: Vec<ServiceConfig>,
    /// `[[connect]]`.
    pub connects: Vec<ConnectConfig>,
    /// `[control]`.
    pub control: ControlConfig,
}

/// `[dataplane]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DataplaneConfig {
    /// One worker each.
    pub cores: Vec<usize>,
    /// Line of `cores`, for complaints that need the machine; 0: default.
    pub cores_line: usize,
    /// Idle policy.
    pub idle: Idle,
    /// Frames per worker and UMEM group.
    pub frames: u32,
    /// Bytes per frame.
    pub frame_bytes: u32,
    /// RX and fill ring entries.
    pub rx_ring: u32,
    /// TX and completion ring entries.
    pub tx_ring: u32,
    /// Bytes of frame memory at the most.
    pub memory_limit_bytes: u64,
    /// Huge pages.
    pub hugepages: HugePages,
}

/// How a port is to run.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The best that works, in the order of design: zero-copy, native, generic.
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// Driver XDP, copying.
    Native,
    /// Generic XDP.
    Generic,
    /// Generic XDP, whole superframes.
    Superframe,
}

/// `rx-checksum`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RxChecksumConfig {
    /// Accept partial sums on virtual devices, verify on others.
    Auto,
    /// Verify.
    Verify,
    /// Accept partial sums.
    AcceptPartial,
}

/// `[[interface]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceConfig {
    /// Name.
    pub name: String,
    /// `None`: all.
    pub queues: Option<Vec<u32>>,
    /// Mode.
    pub mode: Mode,
    /// Checksums on receive.
    pub rx_checksum: RxChecksumConfig,
    /// Line of the table, for complaints that need the machine.
    pub line: usize,
}

/// `[mptcp]`.
#[derive(Clone, Debug, PartialEq)]
pub struct MptcpConfig {
    /// DSS checksum.
    pub checksum: ChecksumPolicy,
    /// Version 0 is answered with version 0.
    pub allow_v0: bool,
    /// Version that active opens offer.
    pub connect_version: Version,
    /// Scheduler.
    pub scheduler: SchedulerKind,
    /// Congestion control.
    pub congestion: CongestionKind,
    /// Pacing.
    pub pacing: bool,
    /// Explicit congestion notification.
    pub ecn: EcnPolicy,
    /// TCP Fast Open.
    pub fast_open: bool,
    /// SYN cookies while a backlog is full.
    pub syn_cookies: bool,
    /// How long a connection without a subflow waits for a new one.
    pub subflowless_timeout: Duration,
    /// The connection-level window in an experimental option, to peers that have it, too.
    pub window_option: bool,
    /// Flag C: no subflows to the address and port of the first one.
    pub deny_join_id0: bool,
    /// Receive window of a connection at the most, bytes.
    pub receive_buffer_max: u32,
    /// Unacknowledged data of a connection at the most, bytes.
    pub send_buffer_max: u32,
}

/// What the path manager does by itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Announce the signal endpoints.
    Announce,
    /// Also open subflows from every own to every known peer address.
    Fullmesh,
    /// Also open several subflows between the addresses of the first one, from other ports.
    Ndiffports,
    /// As fullmesh, but every path other than the first subflow's is a backup.
    Backup,
    /// Nothing; every path is opened by command.
    None,
}

/// `[path]`.
#[derive(Clone, Debug, PartialEq)]
pub struct PathConfig {
    /// Policy.
    pub policy: Policy,
    /// Subflows per connection at the most.
    pub subflows: u8,
    /// Announced peer addresses remembered per connection at the most.
    pub accept_addresses: u8,
    /// `[[path.endpoint]]`.
    pub endpoints: Vec<EndpointConfig>,
}

impl PathConfig {
    /// Where peers are told to join besides the ports of services.
    pub fn announced_ports(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let at = |e: &EndpointConfig| e.port.map(|port| SocketAddr::new(e.address, port));
        self.endpoints.iter().filter_map(at)
    }
}

/// `ip mptcp endpoint` flags.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointFlags {
    /// Announce it.
    #[serde(default)]
    pub signal: bool,
    /// Open subflows from it.
    #[serde(default)]
    pub subflow: bool,
    /// Subflows from it are backups.
    #[serde(default)]
    pub backup: bool,
    /// Open subflows from it to every peer address.
    #[serde(default)]
    pub fullmesh: bool,
}

/// The words of [`EndpointFlags`], for messages.
pub const ENDPOINT_FLAGS: &str = "signal, subflow, backup, fullmesh";

impl EndpointFlags {
    /// Sets the flag that `word` names.
    ///
    /// # Errors
    /// A message when it names none.
    pub fn set(&mut self, word: &str) -> Result<(), String> {
        match word {
            "signal" => self.signal = true,
            "subflow" => self.subflow = true,
            "backup" => self.backup = true,
            "fullmesh" => self.fullmesh = true,
            _ => {
                return Err(format!(
                    "\"{word}\" is not a flag; allowed: {ENDPOINT_FLAGS}"
                ));
            }
        }
        Ok(())
    }

    /// Refuses combinations that the kernel's path manager refuses.
    ///
    /// # Errors
    /// A message.
    pub fn check(self, port: Option<u16>) -> Result<(), String> {
        if port.is_some() && !(self.signal && !self.subflow) {
            return Err("a port goes with \"signal\" alone (as in ip mptcp): \
                        it is announced for peers to join to"
                .to_owned());
        }
        if self.signal && self.fullmesh {
            return Err("\"fullmesh\" cannot go with \"signal\" (as in ip mptcp); \
                        use [\"signal\"] or [\"subflow\", \"fullmesh\"]"
                .to_owned());
        }
        Ok(())
    }
}

impl std::fmt::Display for EndpointFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<&str> = [
            (self.signal, "signal"),
            (self.subflow, "subflow"),
            (self.backup, "backup"),
            (self.fullmesh, "fullmesh"),
        ]
        .into_iter()
        .filter_map(|(set, word)| set.then_some(word))
        .collect();
        f.write_str(&words.join(" "))
    }
}

/// `[[path.endpoint]]`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Address.
    pub address: IpAddr,
    /// Port to announce with it, instead of the connection's.
    pub port: Option<u16>,
    /// Flags.
    pub flags: EndpointFlags,
}

/// `[[service]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceConfig {
    /// Name.
    pub name: String,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What it does.
    pub app: AppSetup,
    /// Line of `listen`, for complaints that need the machine.
    pub listen_line: usize,
}

/// `[[connect]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectConfig {
    /// Name.
    pub name: String,
    /// Peer.
    pub to: SocketAddr,
    /// What it does.
    pub app: AppSetup,
    /// Open it when braidd starts.
    pub autostart: bool,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlConfig {
    /// braidd's socket; the dataplane's is beside it.
    pub socket: PathBuf,
    /// Prometheus, when wanted.
    pub metrics: Option<SocketAddr>,
}

impl ControlConfig {
    /// Socket of the dataplane process.
    #[must_use]
    pub fn dataplane_socket(&self) -> PathBuf {
        let mut name = self.socket.clone().into_os_string();
        name.push(".dataplane");
        name.into()
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError {
            file: file.to_owned(),
            line: 0,
            key: String::new(),
            message: format!("cannot be read: {e}; name the file with --config FILE"),
        })?;
        Config::parse(file, &text)
    }

    /// Checks a text as if it had been read from `file`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let raw: raw::File = toml::from_str(text).map_err(|e| error::from_toml(file, text, e))?;
        validate::Validator::new(file, text).config(raw)
    }

    /// A complaint about a line of this file that needed the machine to be seen.
    #[must_use]
    pub fn complaint(&self, line: usize, key: &str, message: String) -> ConfigError {
        ConfigError {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            message,
        }
    }

    /// The keys in which `new` differs from this configuration and that only a restart
    /// can change. Services, endpoints, policy, limits and active opens are not among them.
    #[must_use]
    pub fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let (a, b) = (&self.dataplane, &new.dataplane);
        let (m, n) = (&self.mptcp, &new.mptcp);
        let names = |c: &Config| {
            c.interfaces
                .iter()
                .map(|i| i.name.clone())
                .collect::<Vec<_>>()
        };
        let same = |f: fn(&InterfaceConfig, &InterfaceConfig) -> bool| {
            self.interfaces.len() != new.interfaces.len()
                || self
                    .interfaces
                    .iter()
                    .zip(&new.interfaces)
                    .all(|(x, y)| f(x, y))
        };
        let pairs = [
            ("dataplane.cores", a.cores == b.cores),
            ("dataplane.idle", a.idle == b.idle),
            ("dataplane.frames", a.frames == b.frames),
            ("dataplane.frame-size", a.frame_bytes == b.frame_bytes),
            ("dataplane.rx-ring", a.rx_ring == b.rx_ring),
            ("dataplane.tx-ring", a.tx_ring == b.tx_ring),
            (
                "dataplane.memory-limit",
                a.memory_limit_bytes == b.memory_limit_bytes,
            ),
            ("dataplane.hugepages", a.hugepages == b.hugepages),
            ("interface.name", names(self) == names(new)),
            ("interface.queues", same(|x, y| x.queues == y.queues)),
            ("interface.mode", same(|x, y| x.mode == y.mode)),
            (
                "interface.rx-checksum",
                same(|x, y| x.rx_checksum == y.rx_checksum),
            ),
            ("mptcp.checksum", m.checksum == n.checksum),
            ("mptcp.allow-v0", m.allow_v0 == n.allow_v0),
            (
                "mptcp.connect-version",
                m.connect_version == n.connect_version,
            ),
            ("mptcp.scheduler", m.scheduler == n.scheduler),
            ("mptcp.congestion", m.congestion == n.congestion),
            ("mptcp.pacing", m.pacing == n.pacing),
            ("mptcp.ecn", m.ecn == n.ecn),
            ("mptcp.fast-open", m.fast_open == n.fast_open),
            ("mptcp.syn-cookies", m.syn_cookies == n.syn_cookies),
            (
                "mptcp.subflowless-timeout",
                m.subflowless_timeout == n.subflowless_timeout,
            ),
            ("mptcp.window-option", m.window_option == n.window_option),
            ("mptcp.deny-join-id0", m.deny_join_id0 == n.deny_join_id0),
            (
                "mptcp.receive-buffer-max",
                m.receive_buffer_max == n.receive_buffer_max,
            ),
            (
                "mptcp.send-buffer-max",
                m.send_buffer_max == n.send_buffer_max,
            ),
            ("control.socket", self.control.socket == new.control.socket),
            (
                "control.metrics",
                self.control.metrics == new.control.metrics,
            ),
        ];
        pairs
            .into_iter()
            .filter(|(_, same)| !same)
            .map(|(key, _)| key)
            .collect()
    }
}
