//! From [`super::raw`] to [`super::Config`]: every rule about a value, with its message.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use braid_dataplane::control::{
    AppSetup, ChecksumPolicy, CongestionKind, EcnPolicy, HugePages, Idle, SchedulerKind, Version,
};
use toml::Spanned;

use super::error::{ConfigError, line_of};
use super::raw::{self, Maybe, WordOrNumbers, Words};
use super::units::{self, SIZE_ALLOWED, TIME_ALLOWED};
use super::{
    Config, ConnectConfig, ControlConfig, DEFAULT_SOCKET, DataplaneConfig, EndpointConfig,
    EndpointFlags, InterfaceConfig, Mode, MptcpConfig, PathConfig, Policy, RxChecksumConfig,
    ServiceConfig,
};

/// Names in messages, of interfaces and of services: `IFNAMSIZ` is 16 with the final NUL.
const IFNAME_MAX_BYTES: usize = 15;

/// `sun_path` is 108 bytes with the final NUL; the dataplane's socket has a suffix.
const SOCKET_PATH_MAX_BYTES: usize = 107 - ".dataplane".len();

/// `receive-buffer-max` and `send-buffer-max`: default, and what is allowed.
const BUFFER_DEFAULT_BYTES: u32 = 32 << 20;
const BUFFER_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=1 << 30;
/// Address identifiers are one octet and 0 is the initial address (RFC 8684 §3.4.1).
const ENDPOINTS_MAX: usize = 255;

/// What a word of the file stands for.
enum Word<T> {
    /// Available.
    Is(T),
    /// Known, of a later version.
    Later,
}
use Word::{Is, Later};

type Result<T> = std::result::Result<T, ConfigError>;

/// Knows the text, so that a byte offset becomes a line.
pub(super) struct Validator<'a> {
    file: &'a Path,
    text: &'a str,
}

impl<'a> Validator<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text }
    }

    fn line<T>(&self, at: &Spanned<T>) -> usize {
        line_of(self.text, at.span().start)
    }

    fn error<T>(&self, at: &Spanned<T>, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            line: self.line(at),
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// One of several words.
    fn word<T: Copy>(
        &self,
        key: &str,
        value: &Spanned<String>,
        words: &[(&str, Word<T>)],
    ) -> Result<T> {
        let given = value.as_ref().as_str();
        let allowed = || {
            words
                .iter()
                .filter_map(|(w, v)| matches!(v, Is(_)).then_some(*w))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match words.iter().find(|(w, _)| *w == given) {
            Some((_, Is(v))) => Ok(*v),
            Some((_, Later)) => Err(self.error(
                value,
                key,
                format!(
                    "\"{given}\" is not available in this version; allowed: {}",
                    allowed()
                ),
            )),
            None => Err(self.error(
                value,
                key,
                format!("\"{given}\" is not known; allowed: {}", allowed()),
            )),
        }
    }

    fn word_or<T: Copy>(
        &self,
        key: &str,
        value: Option<&Spanned<String>>,
        default: T,
        words: &[(&str, Word<T>)],
    ) -> Result<T> {
        value.map_or(Ok(default), |v| self.word(key, v, words))
    }

    /// A number within bounds.
    fn number<T: TryFrom<i64>>(
        &self,
        key: &str,
        value: &Spanned<i64>,
        min: i64,
        max: i64,
    ) -> Result<T> {
        let n = *value.as_ref();
        (min..=max)
            .contains(&n)
            .then(|| T::try_from(n).ok())
            .flatten()
            .ok_or_else(|| {
                self.error(
                    value,
                    key,
                    format!("{n} is out of range; allowed: {min} to {max}"),
                )
            })
    }

    fn ring(&self, key: &str, value: Option<&Spanned<i64>>, default: u32) -> Result<u32> {
        let Some(value) = value else {
            return Ok(default);
        };
        let n: u32 = self.number(key, value, 64, 32768)?;
        if !n.is_power_of_two() {
            return Err(self.error(
                value,
                key,
                format!("{n} is not a power of two; allowed: 64, 128, … 32768"),
            ));
        }
        Ok(n)
    }

    fn size(&self, key: &str, value: &Spanned<String>) -> Result<u64> {
        units::size_bytes(value.as_ref()).ok_or_else(|| {
            self.error(
                value,
                key,
                format!(
                    "\"{}\" is not a size; allowed: {SIZE_ALLOWED}",
                    value.as_ref()
                ),
            )
        })
    }

    /// A limit of windows. RFC 7323 §2.3 ends them at 1 GiB.
    fn buffer(&self, key: &str, value: &Maybe<String>) -> Result<u32> {
        let Some(v) = value else {
            return Ok(BUFFER_DEFAULT_BYTES);
        };
        u32::try_from(self.size(key, v)?)
            .ok()
            .filter(|n| BUFFER_BYTES.contains(n))
            .ok_or_else(|| {
                let text = v.as_ref();
                self.error(
                    v,
                    key,
                    format!("\"{text}\" is out of range; allowed: 64KiB to 1GiB"),
                )
            })
    }

    fn socket_addr(&self, key: &str, at: &Spanned<impl Sized>, text: &str) -> Result<SocketAddr> {
        let addr: SocketAddr = text.parse().map_err(|_| {
            self.error(
                at,
                key,
                format!("\"{text}\" is not an address with port; allowed: e.g. \"10.0.0.5:80\" or \"[fd00::5]:80\""),
            )
        })?;
        if addr.port() == 0 {
            return Err(self.error(at, key, "port 0 is not a port; allowed: 1 to 65535"));
        }
        Ok(addr)
    }

    pub(super) fn config(&self, raw: raw::File) -> Result<Config> {
        let dataplane = self.dataplane(&raw.dataplane)?;
        let interfaces = self.interfaces(&raw.interface)?;
        if interfaces.is_empty() {
            return Err(ConfigError {
                file: self.file.to_owned(),
                line: 0,
                key: "interface".to_owned(),
                message: "missing; at least one [[interface]] with a name is needed".to_owned(),
            });
        }
        Ok(Config {
            file: self.file.to_owned(),
            dataplane,
            interfaces,
            mptcp: self.mptcp(&raw.mptcp)?,
            path: self.path(&raw.path)?,
            services: self.services(&raw.service)?,
            connects: self.connects(&raw.connect)?,
            control: self.control(&raw.control)?,
        })
    }

    fn dataplane(&self, raw: &raw::Dataplane) -> Result<DataplaneConfig> {
        let mut cores = vec![1];
        let mut cores_line = 0;
        if let Some(list) = &raw.cores {
            cores_line = self.line(list);
            cores.clear();
            for core in list.as_ref() {
                // CPU_SETSIZE of glibc's cpu_set_t.
                let n: usize = self.number("dataplane.cores", core, 0, 1023)?;
                if cores.contains(&n) {
                    return Err(self.error(
                        core,
                        "dataplane.cores",
                        format!("core {n} is listed twice; one worker per core"),
                    ));
                }
                cores.push(n);
            }
            if cores.is_empty() {
                return Err(self.error(
                    list,
                    "dataplane.cores",
                    "empty; allowed: a list of at least one core, e.g. [1]",
                ));
            }
        }
        let idle = self.word_or(
            "dataplane.idle",
            raw.idle.as_ref(),
            Idle::default(),
            &[("adaptive", Is(Idle::Adaptive)), ("busy", Is(Idle::Busy))],
        )?;
        let frames = match &raw.frames {
            Some(v) => self.number("dataplane.frames", v, 256, 1 << 24)?,
            None => 32768,
        };
        let frame_bytes = match &raw.frame_size {
            Some(v) => match v.as_ref() {
                2048 => 2048,
                4096 => 4096,
                n => {
                    return Err(self.error(
                        v,
                        "dataplane.frame-size",
                        format!("{n} is not a frame size of AF_XDP; allowed: 2048, 4096"),
                    ));
                }
            },
            None => 4096,
        };
        let rx_ring = self.ring("dataplane.rx-ring", raw.rx_ring.as_ref(), 4096)?;
        let tx_ring = self.ring("dataplane.tx-ring", raw.tx_ring.as_ref(), 4096)?;
        // Place of the complaint: the key that is written; both may be defaults' neighbours.
        if frames < rx_ring {
            let at = raw.frames.as_ref().or(raw.rx_ring.as_ref());
            if let Some(at) = at {
                return Err(self.error(at, "dataplane.frames", format!("{frames} frames cannot fill an rx-ring of {rx_ring}; allowed: at least rx-ring")));
            }
        }
        let memory_limit_bytes = match &raw.memory_limit {
            Some(v) => self.size("dataplane.memory-limit", v)?,
            None => 1 << 30,
        };
        let workers = u64::try_from(cores.len()).unwrap_or(u64::MAX);
        let needed = u64::from(frames) * u64::from(frame_bytes) * workers;
        if needed > memory_limit_bytes {
            let message = format!(
                "{frames} frames of {frame_bytes} bytes for {workers} worker(s) need {needed} bytes, more than memory-limit ({memory_limit_bytes}); lower frames or raise memory-limit"
            );
            return Err(match (&raw.frames, &raw.memory_limit, &raw.cores) {
                (Some(at), _, _) => self.error(at, "dataplane.frames", message),
                (_, Some(at), _) => self.error(at, "dataplane.memory-limit", message),
                (_, _, Some(at)) => self.error(at, "dataplane.cores", message),
                _ => unreachable!("the defaults fit"),
            });
        }
        let hugepages = self.word_or(
            "dataplane.hugepages",
            raw.hugepages.as_ref(),
            HugePages::default(),
            &[
                ("try", Is(HugePages::Try)),
                ("require", Is(HugePages::Require)),
                ("off", Is(HugePages::Off)),
            ],
        )?;
        Ok(DataplaneConfig {
            cores,
            cores_line,
            idle,
            frames,
            frame_bytes,
            rx_ring,
            tx_ring,
            memory_limit_bytes,
            hugepages,
        })
    }

    fn interfaces(&self, raw: &[Spanned<raw::Interface>]) -> Result<Vec<InterfaceConfig>> {
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        for table in raw {
            let i = table.as_ref();
            let name = i.name.as_ref();
            if name.is_empty() || name.len() > IFNAME_MAX_BYTES || name.contains(['/', ' ']) {
                return Err(self.error(&i.name, "interface.name", format!("\"{name}\" cannot be an interface; allowed: 1 to {IFNAME_MAX_BYTES} characters without '/' and spaces")));
            }
            if !seen.insert(name.clone()) {
                return Err(self.error(
                    &i.name,
                    "interface.name",
                    format!("\"{name}\" is listed twice; one [[interface]] each"),
                ));
            }
            let queues = match &i.queues {
                None => None,
                Some(q) => self.queues(q)?,
            };
            out.push(InterfaceConfig {
                name: name.clone(),
                queues,
                mode: self.word_or(
                    "interface.mode",
                    i.mode.as_ref(),
                    Mode::Auto,
                    &[
                        ("auto", Is(Mode::Auto)),
                        ("zero-copy", Is(Mode::ZeroCopy)),
                        ("native", Is(Mode::Native)),
                        ("generic", Is(Mode::Generic)),
                        ("superframe", Is(Mode::Superframe)),
                    ],
                )?,
                rx_checksum: self.word_or(
                    "interface.rx-checksum",
                    i.rx_checksum.as_ref(),
                    RxChecksumConfig::Auto,
                    &[
                        ("auto", Is(RxChecksumConfig::Auto)),
                        ("verify", Is(RxChecksumConfig::Verify)),
                        ("accept-partial", Is(RxChecksumConfig::AcceptPartial)),
                    ],
                )?,
                line: self.line(&i.name),
            });
        }
        Ok(out)
    }

    fn queues(&self, raw: &Spanned<WordOrNumbers>) -> Result<Option<Vec<u32>>> {
        const KEY: &str = "interface.queues";
        let list = match raw.as_ref() {
            WordOrNumbers::Word(w) if w == "all" => return Ok(None),
            WordOrNumbers::Word(w) => {
                return Err(self.error(raw, KEY, format!("\"{w}\" is not known; allowed: \"all\" or a list of queue numbers, e.g. [0, 1]")));
            }
            WordOrNumbers::Numbers(list) => list,
        };
        let mut queues = Vec::new();
        for n in list {
            // QUEUES_MAX of the steering program's socket map.
            let queue = self.number(KEY, n, 0, 1023)?;
            if queues.contains(&queue) {
                return Err(self.error(n, KEY, format!("queue {queue} is listed twice")));
            }
            queues.push(queue);
        }
        if queues.is_empty() {
            return Err(self.error(
                raw,
                KEY,
                "empty; allowed: \"all\" or a list of queue numbers, e.g. [0, 1]",
            ));
        }
        Ok(Some(queues))
    }

    fn connect_version(&self, raw: &raw::Mptcp, allow_v0: bool) -> Result<Version> {
        const KEY: &str = "mptcp.connect-version";
        let Some(n) = &raw.connect_version else {
            return Ok(Version::default());
        };
        match self.number(KEY, n, 0, 1)? {
            0 if !allow_v0 => Err(self.error(n, KEY, "0 needs allow-v0 = true; allowed: 1")),
            0 => Ok(Version::V0),
            _ => Ok(Version::V1),
        }
    }

    fn mptcp(&self, raw: &raw::Mptcp) -> Result<MptcpConfig> {
        let allow_v0 = raw.allow_v0.unwrap_or(false);
        let connect_version = self.connect_version(raw, allow_v0)?;
        let subflowless_timeout = match &raw.subflowless_timeout {
            None => Duration::from_secs(60),
            Some(v) => {
                let time = units::duration(v.as_ref()).ok_or_else(|| {
                    self.error(
                        v,
                        "mptcp.subflowless-timeout",
                        format!("\"{}\" is not a time; allowed: {TIME_ALLOWED}", v.as_ref()),
                    )
                })?;
                if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&time) {
                    return Err(self.error(
                        v,
                        "mptcp.subflowless-timeout",
                        format!("\"{}\" is out of range; allowed: 1s to 24h", v.as_ref()),
                    ));
                }
                time
            }
        };
        Ok(MptcpConfig {
            checksum: self.word_or(
                "mptcp.checksum",
                raw.checksum.as_ref(),
                ChecksumPolicy::default(),
                &[
                    ("always", Is(ChecksumPolicy::Always)),
                    ("if-requested", Is(ChecksumPolicy::IfRequested)),
                    ("never", Is(ChecksumPolicy::Never)),
                ],
            )?,
            scheduler: self.word_or(
                "mptcp.scheduler",
                raw.scheduler.as_ref(),
                SchedulerKind::default(),
                &[
                    ("min-rtt", Is(SchedulerKind::MinRtt)),
                    ("round-robin", Is(SchedulerKind::RoundRobin)),
                    ("redundant", Is(SchedulerKind::Redundant)),
                    ("blest", Is(SchedulerKind::Blest)),
                    ("ecf", Is(SchedulerKind::Ecf)),
                ],
            )?,
            congestion: self.word_or(
                "mptcp.congestion",
                raw.congestion.as_ref(),
                CongestionKind::default(),
                &[
                    ("reno", Is(CongestionKind::NewReno)),
                    ("cubic", Is(CongestionKind::Cubic)),
                    ("lia", Is(CongestionKind::Lia)),
                    ("olia", Is(CongestionKind::Olia)),
                    ("balia", Is(CongestionKind::Balia)),
                ],
            )?,
            allow_v0,
            connect_version,
            pacing: raw.pacing.unwrap_or(true),
            ecn: self.word_or(
                "mptcp.ecn",
                raw.ecn.as_ref(),
                EcnPolicy::default(),
                &[
                    ("off", Is(EcnPolicy::Off)),
                    ("passive", Is(EcnPolicy::Passive)),
                    ("always", Is(EcnPolicy::Always)),
                ],
            )?,
            fast_open: raw.fast_open.unwrap_or(false),
            syn_cookies: raw.syn_cookies.unwrap_or(true),
            subflowless_timeout,
            window_option: raw.window_option.unwrap_or(false),
            deny_join_id0: raw.deny_join_id0.unwrap_or(false),
            receive_buffer_max: self.buffer("mptcp.receive-buffer-max", &raw.receive_buffer_max)?,
            send_buffer_max: self.buffer("mptcp.send-buffer-max", &raw.send_buffer_max)?,
        })
    }

    fn path(&self, raw: &raw::Path) -> Result<PathConfig> {
        let mut endpoints: Vec<EndpointConfig> = Vec::new();
        for table in &raw.endpoint {
            let e = table.as_ref();
            let text = e.address.as_ref();
            let address: IpAddr = text.parse().map_err(|_| {
                self.error(&e.address, "path.endpoint.address", format!("\"{text}\" is not an IP address; allowed: e.g. \"10.77.2.2\" or \"fd00::2\""))
            })?;
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(self.error(&e.address, "path.endpoint.address", format!("{address} cannot be an end of a subflow; allowed: unicast addresses of the dataplane's interfaces")));
            }
            if endpoints.iter().any(|x| x.address == address) {
                return Err(self.error(
                    &e.address,
                    "path.endpoint.address",
                    format!("{address} is listed twice"),
                ));
            }
            let mut flags = EndpointFlags::default();
            for word in &e.flags {
                flags
                    .set(word.as_ref())
                    .map_err(|m| self.error(word, "path.endpoint.flags", m))?;
            }
            let port = match &e.port {
                None => None,
                Some(v) => Some(self.number("path.endpoint.port", v, 1, 65_535)?),
            };
            if let Err(message) = flags.check(port) {
                return Err(match (e.flags.first(), &e.port) {
                    (_, Some(port)) => self.error(port, "path.endpoint.port", message),
                    (Some(first), None) => self.error(first, "path.endpoint.flags", message),
                    (None, None) => self.error(table, "path.endpoint", message),
                });
            }
            endpoints.push(EndpointConfig {
                address,
                port,
                flags,
            });
            if endpoints.len() > ENDPOINTS_MAX {
                return Err(self.error(
                    table,
                    "path.endpoint",
                    format!("too many; allowed: {ENDPOINTS_MAX}"),
                ));
            }
        }
        let number = |key, value: &Maybe<i64>, min, max, default| {
            value
                .as_ref()
                .map_or(Ok(default), |v| self.number(key, v, min, max))
        };
        Ok(PathConfig {
            policy: self.word_or(
                "path.policy",
                raw.policy.as_ref(),
                Policy::Announce,
                &[
                    ("announce", Is(Policy::Announce)),
                    ("fullmesh", Is(Policy::Fullmesh)),
                    ("ndiffports", Is(Policy::Ndiffports)),
                    ("backup", Is(Policy::Backup)),
                    ("none", Is(Policy::None)),
                ],
            )?,
            subflows: number("path.subflows", &raw.subflows, 1, 32, 4)?,
            accept_addresses: number("path.accept-addresses", &raw.accept_addresses, 0, 32, 4)?,
            endpoints,
        })
    }

    /// `app` and the keys that go with it.
    fn app(
        &self,
        table: &str,
        app: &Spanned<String>,
        bytes: Option<&Spanned<String>>,
    ) -> Result<AppSetup> {
        #[derive(Copy, Clone)]
        enum App {
            Echo,
            Sink,
            Source,
            Exchange,
        }
        let kind = self.word(
            &format!("{table}.app"),
            app,
            &[
                ("echo", Is(App::Echo)),
                ("sink", Is(App::Sink)),
                ("source", Is(App::Source)),
                ("exchange", Is(App::Exchange)),
                ("file", Later),
                ("relay", Later),
            ],
        )?;
        let key = format!("{table}.bytes");
        match (kind, bytes) {
            (App::Source, None) => Ok(AppSetup::Source { bytes: None }),
            (App::Source, Some(b)) => Ok(AppSetup::Source {
                bytes: Some(self.size(&key, b)?),
            }),
            (App::Exchange, Some(b)) => Ok(AppSetup::Exchange {
                bytes: self.size(&key, b)?,
            }),
            (App::Exchange, None) => Err(self.error(
                app,
                &key,
                "is missing; app = \"exchange\" sends so much".to_owned(),
            )),
            (_, Some(b)) => Err(self.error(
                b,
                &key,
                format!(
                    "does nothing with app = \"{}\"; allowed with: source, exchange",
                    app.as_ref()
                ),
            )),
            (App::Echo, None) => Ok(AppSetup::Echo),
            (App::Sink, None) => Ok(AppSetup::Sink),
        }
    }

    fn services(&self, raw: &[Spanned<raw::Service>]) -> Result<Vec<ServiceConfig>> {
        let mut names = HashSet::new();
        let mut taken: HashMap<SocketAddr, String> = HashMap::new();
        let mut out = Vec::new();
        for table in raw {
            let s = table.as_ref();
            let name = self.unique_name("service", &s.name, &mut names)?;
            let app = self.app("service", &s.app, s.bytes.as_ref())?;
            // A relay or file service is refused by its app; what is left here is misplaced.
            for (key, value) in [
                ("root", &s.root),
                ("to", &s.to),
                ("to-protocol", &s.to_protocol),
            ] {
                if let Some(v) = value {
                    return Err(self.error(v, &format!("service.{key}"), format!("does nothing with app = \"{}\"; apps that use it are not available in this version", s.app.as_ref())));
                }
            }
            let mut listen = Vec::new();
            match s.listen.as_ref() {
                Words::One(text) => self.listen(&s.listen, text, &mut listen)?,
                Words::Many(list) => {
                    for text in list {
                        self.listen(text, text.as_ref(), &mut listen)?;
                    }
                }
            }
            if listen.is_empty() {
                return Err(self.error(
                    &s.listen,
                    "service.listen",
                    "empty; allowed: an address with port, \"*:PORT\", or a list of them",
                ));
            }
            for addr in &listen {
                if let Some(other) = taken.insert(*addr, name.clone()) {
                    return Err(self.error(
                        &s.listen,
                        "service.listen",
                        format!("{addr} is already taken by service \"{other}\""),
                    ));
                }
            }
            out.push(ServiceConfig {
                name,
                listen,
                app,
                listen_line: self.line(&s.listen),
            });
        }
        Ok(out)
    }

    /// `"10.77.1.2:7"`, `"[fd00::2]:7"` or `"*:7"`, which is every address of both families.
    fn listen<T>(&self, at: &Spanned<T>, text: &str, out: &mut Vec<SocketAddr>) -> Result<()> {
        const KEY: &str = "service.listen";
        if let Some(port) = text.strip_prefix("*:") {
            let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(|| {
                self.error(
                    at,
                    KEY,
                    format!("\"{port}\" is not a port; allowed: 1 to 65535"),
                )
            })?;
            out.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
            out.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
            return Ok(());
        }
        let addr: SocketAddr = text.parse().map_err(|_| {
            self.error(at, KEY, format!("\"{text}\" is not an address with port; allowed: e.g. \"10.77.1.2:7\", \"[fd00::2]:7\" or \"*:7\""))
        })?;
        if addr.port() == 0 {
            return Err(self.error(at, KEY, "port 0 is not a port; allowed: 1 to 65535"));
        }
        if addr.ip().is_loopback() || addr.ip().is_multicast() {
            return Err(self.error(at, KEY, format!("{} never reaches an interface of the dataplane; allowed: its interfaces' addresses", addr.ip())));
        }
        out.push(addr);
        Ok(())
    }

    fn unique_name(
        &self,
        table: &str,
        name: &Spanned<String>,
        seen: &mut HashSet<String>,
    ) -> Result<String> {
        let key = format!("{table}.name");
        let text = name.as_ref();
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
            return Err(self.error(name, &key, format!("\"{text}\" cannot be a name; allowed: 1 to 64 letters, digits, '-', '_' and '.'")));
        }
        if !seen.insert(text.clone()) {
            return Err(self.error(
                name,
                &key,
                format!("\"{text}\" is used twice; names are unique"),
            ));
        }
        Ok(text.clone())
    }

    fn connects(&self, raw: &[Spanned<raw::Connect>]) -> Result<Vec<ConnectConfig>> {
        let mut names = HashSet::new();
        let mut out = Vec::new();
        for table in raw {
            let c = table.as_ref();
            let to = self.socket_addr("connect.to", &c.to, c.to.as_ref())?;
            if to.ip().is_unspecified() || to.ip().is_multicast() || to.ip().is_loopback() {
                return Err(self.error(&c.to, "connect.to", format!("{} cannot be reached over an interface of the dataplane; allowed: a unicast address", to.ip())));
            }
            out.push(ConnectConfig {
                name: self.unique_name("connect", &c.name, &mut names)?,
                to,
                app: self.app("connect", &c.app, c.bytes.as_ref())?,
                autostart: c.autostart.unwrap_or(false),
            });
        }
        Ok(out)
    }

    fn control(&self, raw: &raw::Control) -> Result<ControlConfig> {
        let socket = match &raw.socket {
            None => PathBuf::from(DEFAULT_SOCKET),
            Some(v) => {
                let path = v.as_ref();
                if !path.starts_with('/') || path.len() > SOCKET_PATH_MAX_BYTES {
                    return Err(self.error(v, "control.socket", format!("\"{path}\" cannot be a socket's path; allowed: an absolute path of at most {SOCKET_PATH_MAX_BYTES} bytes")));
                }
                PathBuf::from(path)
            }
        };
        let metrics = match &raw.metrics {
            None => None,
            Some(v) => Some(self.socket_addr("control.metrics", v, v.as_ref())?),
        };
        Ok(ControlConfig { socket, metrics })
    }
}
