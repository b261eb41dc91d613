//! What must be true before braidd can work, each with the command that makes it true.
//!
//! `braid check` shows all of it; braidd itself asks the questions whose answers would
//! otherwise come back as an errno.

use std::fmt;
use std::fs;
use std::net::IpAddr;

use braid_bpf::{LoadError, Steer};
use braid_dataplane::control::HugePages;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::api;
use crate::config::{Config, ConfigError};
use crate::daemon::interfaces;
use crate::netlink::{Mirror, Netlink};
use crate::nic::rules::{self, Ethtool, FlowRules, NoRules};
use crate::ports::Ports;

/// First kernel with `xdp.frags` programs and their links.
const KERNEL_MIN: (u32, u32) = (5, 18);

/// Capabilities and what for, by number (linux/capability.h).
const CAPABILITIES: [(u32, &str); 4] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (14, "CAP_IPC_LOCK"),
    (39, "CAP_BPF"),
];

/// How a check ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, but.
    Warn,
    /// It does not work.
    Fail,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        })
    }
}

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub status: Status,
    /// What was found; with the fixing command unless all is well.
    pub message: String,
}

fn check(name: impl Into<String>, result: Result<String, String>, bad: Status) -> Check {
    let (status, message) = match result {
        Ok(message) => (Status::Ok, message),
        Err(message) => (bad, message),
    };
    Check {
        name: name.into(),
        status,
        message,
    }
}

fn effective_capabilities() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| {
            let line = s.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        })
        .unwrap_or(0)
}

fn missing(capabilities: u64) -> Vec<&'static str> {
    // CAP_SYS_ADMIN (21) includes CAP_BPF.
    let has = |n: u32| capabilities >> n & 1 == 1 || (n == 39 && capabilities >> 21 & 1 == 1);
    CAPABILITIES
        .iter()
        .filter(|(n, _)| !has(*n))
        .map(|(_, name)| *name)
        .collect()
}

/// May this process do what braidd must?
///
/// # Errors
/// What is missing, and how to have it.
pub fn privileges() -> Result<(), String> {
    match missing(effective_capabilities()).as_slice() {
        [] => Ok(()),
        missing => Err(format!(
            "not privileged: {} missing; run it as root, e.g. with sudo",
            missing.join(", ")
        )),
    }
}

fn release() -> (u32, u32, String) {
    let text = nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut parts = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0), text)
}

/// Can this kernel do it?
///
/// # Errors
/// What it lacks.
pub fn kernel() -> Result<(), String> {
    let (major, minor, text) = release();
    if (major, minor) < KERNEL_MIN {
        return Err(format!(
            "Linux {text} is too old: {}.{} or newer is needed; install a newer kernel, e.g. from backports",
            KERNEL_MIN.0, KERNEL_MIN.1
        ));
    }
    match Socket::new(Domain::from(nix::libc::AF_XDP), Type::RAW, None) {
        Err(e) if e.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => Err(format!(
            "this kernel ({text}) has no AF_XDP sockets; use one with CONFIG_XDP_SOCKETS=y: grep XDP_SOCKETS /boot/config-{text}"
        )),
        // Anything else is told by who really needs the socket.
        _ => Ok(()),
    }
}

/// Do the cores of the configuration exist, for this process?
///
/// # Errors
/// Exit status 2.
pub fn cores(config: &Config) -> Result<(), ConfigError> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Ok(());
    };
    let usable: Vec<usize> = (0..CpuSet::count())
        .filter(|c| set.is_set(*c).unwrap_or(false))
        .collect();
    match config.dataplane.cores.iter().find(|c| !usable.contains(c)) {
        None => Ok(()),
        Some(core) => {
            let default = if config.dataplane.cores_line == 0 {
                " (the default)"
            } else {
                ""
            };
            Err(config.complaint(
                config.dataplane.cores_line,
                "dataplane.cores",
                format!(
                    "core {core}{default} is not available here; allowed: {}",
                    ranges(&usable)
                ),
            ))
        }
    }
}

/// `[0, 1, 2, 5]` as "0-2, 5".
fn ranges(numbers: &[usize]) -> String {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            _ => out.push((*n, *n)),
        }
    }
    let text = |(a, b): &(usize, usize)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}-{b}")
        }
    };
    out.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn bpf() -> Result<Option<Steer>, String> {
    match Steer::load() {
        Ok(steer) => Ok(Some(steer)),
        Err(LoadError::NotPermitted) => Err(LoadError::NotPermitted.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

fn memlock(bytes: u64) -> Result<String, String> {
    let mib = bytes >> 20;
    if missing(effective_capabilities()).contains(&"CAP_IPC_LOCK") {
        let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap_or((0, 0));
        if soft < bytes {
            return Err(format!(
                "{mib} MiB of frames are to be locked and only {} MiB may be; raise it with: ulimit -l unlimited",
                soft >> 20
            ));
        }
    }
    Ok(format!("{mib} MiB of frames may be locked"))
}

fn hugepages(config: &Config, bytes: u64) -> Check {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let free = value("HugePages_Free:").unwrap_or(0);
    let size = value("Hugepagesize:").unwrap_or(2048) << 10;
    let needed = bytes.div_ceil(size);
    let fix = || {
        format!(
            "{free} free huge pages, {needed} needed; have them with: sysctl -w vm.nr_hugepages={needed}"
        )
    };
    let (result, bad) = match config.dataplane.hugepages {
        HugePages::Off => (Ok("off".to_owned()), Status::Ok),
        _ if free >= needed => (Ok(format!("{free} free, {needed} needed")), Status::Ok),
        HugePages::Try => (
            Err(format!("{}; ordinary pages are used", fix())),
            Status::Warn,
        ),
        HugePages::Require => (Err(fix()), Status::Fail),
    };
    check("huge pages", result, bad)
}

fn daemon(config: &Config) -> Check {
    let socket = &config.control.socket;
    let result = match api::probe(socket) {
        None => Ok(format!("none on {}", socket.display())),
        Some(pid) => Err(format!(
            "braidd (pid {pid}) runs on {}; what it holds is reported as in use below",
            socket.display()
        )),
    };
    check("other braidd", result, Status::Warn)
}

fn interface(config: &Config, index: usize, mirror: &Mirror) -> Vec<Check> {
    let i = &config.interfaces[index];
    let name = |what: &str| format!("{} {what}", i.name);
    let candidate = match interfaces::examine(config, i, mirror) {
        Ok(c) => c,
        Err(e) => return vec![check(name("link"), Err(e.to_string()), Status::Fail)],
    };
    let mut out = vec![check(
        name("link"),
        Ok(format!(
            "up, MTU {}, driver {}",
            candidate.link.mtu, candidate.driver
        )),
        Status::Ok,
    )];
    let carrier = candidate
        .link
        .carrier
        .then(|| "has carrier".to_owned())
        .ok_or_else(|| {
            format!(
                "{} has no carrier; check its cable or peer: ip -br link show {}",
                i.name, i.name
            )
        });
    out.push(check(name("carrier"), carrier, Status::Warn));
    let queues = interfaces::queues(config, i)
        .map(|q| format!("{} for {} worker(s)", q.len(), config.dataplane.cores.len()))
        .map_err(|e| e.to_string());
    out.push(check(name("queues"), queues, Status::Fail));
    if config.dataplane.cores.len() > 1 {
        out.push(check(
            name("ntuple"),
            ntuple(&Ethtool, &i.name, &candidate.driver),
            Status::Warn,
        ));
    }
    let foreign = match candidate.link.xdp_program {
        None => Ok("none is attached".to_owned()),
        Some(id) => Err(format!(
            "a program (id {id}) is attached; see whose: bpftool net show dev {0}; remove it with: ip link set dev {0} xdp off",
            i.name
        )),
    };
    out.push(check(name("XDP program"), foreign, Status::Fail));
    let has_address = mirror.addresses_of(candidate.link.ifindex).next().is_some();
    let addresses = has_address
        .then(|| "it has some".to_owned())
        .ok_or_else(|| {
            format!(
                "{0} has no address; give it one with: ip addr add ADDRESS/LENGTH dev {0}",
                i.name
            )
        });
    out.push(check(name("addresses"), addresses, Status::Warn));
    out
}

/// Whether the NIC delivers joins to their owner's queue. Nothing depends on it: a warning
/// is for what a command can mend.
fn ntuple(nic: &impl FlowRules, interface: &str, driver: &str) -> Result<String, String> {
    match rules::usable(nic, interface, driver) {
        Ok(table) => Ok(format!(
            "on, {} of {} rules in use",
            table.used.len(),
            table.size
        )),
        Err(e @ NoRules::Off(_)) => Err(format!("{e}; joins are handed over in software")),
        Err(e) => Ok(e.to_string()),
    }
}

fn ports(config: &Config, steer: &Steer, locals: &[IpAddr]) -> Check {
    let mut ports = Ports::default();
    let joins: Vec<_> = config.path.announced_ports().collect();
    let result = match ports.set_services(steer, &config.services, locals, &joins) {
        Ok(_) => Ok(format!("{} address(es) and port(s) are free", ports.len())),
        Err(e) => Err(e.to_string()),
    };
    check("ports", result, Status::Fail)
}

/// Everything, in the order in which it is needed.
pub async fn run(config: Option<&Config>) -> Vec<Check> {
    let mut out = vec![
        check(
            "privileges",
            privileges().map(|()| "sufficient".to_owned()),
            Status::Fail,
        ),
        check(
            "kernel",
            kernel().map(|()| format!("Linux {}", release().2)),
            Status::Fail,
        ),
    ];
    let steer = bpf();
    let loaded = steer
        .as_ref()
        .map(|_| "the program loads".to_owned())
        .map_err(Clone::clone);
    out.push(check("BPF", loaded, Status::Fail));
    let Some(config) = config else { return out };
    out.push(check(
        "configuration",
        Ok(config.file.display().to_string()),
        Status::Ok,
    ));
    let usable = cores(config)
        .map(|()| "available".to_owned())
        .map_err(|e| e.to_string());
    out.push(check("cores", usable, Status::Fail));
    let workers = u64::try_from(config.dataplane.cores.len()).unwrap_or(1);
    let bytes =
        u64::from(config.dataplane.frames) * u64::from(config.dataplane.frame_bytes) * workers;
    out.push(check("locked memory", memlock(bytes), Status::Fail));
    out.push(hugepages(config, bytes));
    out.push(daemon(config));
    let mirror = match Netlink::open() {
        Ok((netlink, _events)) => netlink.snapshot().await,
        Err(e) => Err(e),
    };
    let mirror = match mirror {
        Ok(mirror) => mirror,
        Err(e) => {
            out.push(check("netlink", Err(e.to_string()), Status::Fail));
            return out;
        }
    };
    for index in 0..config.interfaces.len() {
        out.extend(interface(config, index, &mirror));
    }
    if let Ok(Some(steer)) = &steer {
        let locals: Vec<IpAddr> = config
            .interfaces
            .iter()
            .filter_map(|i| mirror.link_named(&i.name))
            .flat_map(|l| mirror.addresses_of(l.ifindex).map(|a| a.address))
            .collect();
        out.push(ports(config, steer, &locals));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(u64::MAX), [""; 0]);
        assert_eq!(
            missing(0),
            ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_BPF"]
        );
        // CAP_SYS_ADMIN stands in for CAP_BPF, as in the kernel (bpf_capable).
        assert_eq!(missing(1 << 21 | 1 << 12 | 1 << 13), ["CAP_IPC_LOCK"]);
    }

    #[test]
    fn a_core_that_does_not_exist_is_a_config_error() {
        let text = "[dataplane]\ncores = [1000]\n[[interface]]\nname = \"v\"\n";
        let config = Config::parse(Path::new("t.toml"), text).unwrap();
        let error = cores(&config).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "t.toml:2: dataplane.cores: core 1000 is not available here; allowed: "
            ),
            "{error}"
        );
    }

    #[test]
    fn numbers_read_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn filtering_that_is_off_is_told_with_the_command() {
        let fake = crate::steering::tests::Fake::new(512);
        let say = || ntuple(&fake, "eth1", "igb");
        assert_eq!(say().unwrap(), "on, 0 of 512 rules in use");
        fake.nic().switch = crate::nic::Switch::Off;
        let off = say().unwrap_err();
        assert!(off.contains("ethtool -K eth1 ntuple on"), "{off}");
        // No command gives it to a driver that has not got it.
        fake.nic().size = None;
        assert!(say().unwrap().contains("igb"));
    }

    #[tokio::test]
    async fn a_missing_interface_is_told_with_its_line() {
        let text = "[[interface]]\nname = \"no-such-if\"\n";
        let config = Config::parse(Path::new("t.toml"), text).unwrap();
        let checks = run(Some(&config)).await;
        let link = checks.iter().find(|c| c.name == "no-such-if link").unwrap();
        assert_eq!(link.status, Status::Fail);
        assert!(
            link.message
                .starts_with("t.toml:2: interface.name: \"no-such-if\" does not exist"),
            "{}",
            link.message
        );
    }
}
