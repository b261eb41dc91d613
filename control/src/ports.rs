//! Local TCP ports held against the kernel, and the claims that steer their packets to us.
//!
//! A port is first taken from the kernel (bound, never listening), then claimed: so no
//! packet of a kernel application is ever redirected, and no application can take a port
//! that is ours. Claims of active opens stay while a subflow, or its TIME-WAIT, uses them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use braid_bpf::{Claim, ClaimAddress, ClaimKind, MapError, Steer};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ServiceConfig;

/// How long a port of ours is kept after its last subflow: TIME-WAIT (60 s, as Linux) and
/// a margin for the peer's last retransmissions.
const LINGER: Duration = Duration::from_secs(65);

/// A port could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody has it.
    #[error(
        "{address} of service \"{service}\" is in use by {owner}; stop it, or change listen of the service"
    )]
    InUse {
        /// What was to be bound.
        address: SocketAddr,
        /// For whom.
        service: String,
        /// Process, as far as it can be known.
        owner: String,
    },
    /// The kernel refused for another reason.
    #[error("cannot reserve {address}: {source}")]
    Bind {
        /// What was to be bound.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The claim map.
    #[error("cannot claim {address}: {source}")]
    Claim {
        /// What was to be claimed.
        address: SocketAddr,
        /// Why not.
        source: MapError,
    },
}

#[derive(Debug)]
struct Held {
    /// Keeps the port; `None` when a previous control plane's claim could not be held again.
    _socket: Option<Socket>,
    kind: ClaimKind,
    /// Give it back then; `None`: in use.
    until: Option<Instant>,
}

/// All ports of ours.
#[derive(Debug, Default)]
pub struct Ports {
    held: HashMap<SocketAddr, Held>,
}

/// Takes `address` from the kernel. IP_FREEBIND: the address may come later.
fn bind(address: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    if reuse {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Takes `address`, over remains in TIME-WAIT of an application that has ended.
fn reserve(address: SocketAddr) -> io::Result<Socket> {
    match bind(address, false) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && owner::only_time_wait(address) => {
            bind(address, true)
        }
        other => other,
    }
}

impl Ports {
    /// Local addresses and ports that the services need: what they listen on, and the same
    /// ports on every address of the interfaces, since joins are found by token on all; and
    /// what endpoints announce (`joins`).
    #[must_use]
    pub fn wanted(
        services: &[ServiceConfig],
        locals: &[IpAddr],
        joins: &[SocketAddr],
    ) -> Vec<(SocketAddr, ClaimKind)> {
        let mut wanted: Vec<(SocketAddr, ClaimKind)> = Vec::new();
        let listens = || services.iter().flat_map(|s| s.listen.iter().copied());
        for address in listens() {
            // A wildcard of the same port covers it, and could not be bound beside it.
            let covered = listens().any(|w| {
                w.ip().is_unspecified()
                    && !address.ip().is_unspecified()
                    && w.port() == address.port()
                    && w.is_ipv4() == address.is_ipv4()
            });
            if !covered {
                wanted.push((address, ClaimKind::Service));
            }
        }
        let ports: std::collections::BTreeSet<u16> = listens().map(|a| a.port()).collect();
        let everywhere = ports
            .iter()
            .flat_map(|port| locals.iter().map(|ip| SocketAddr::new(*ip, *port)));
        for address in everywhere.chain(joins.iter().copied()) {
            let covered = wanted.iter().any(|(w, _)| {
                *w == address
                    || (w.ip().is_unspecified()
                        && w.port() == address.port()
                        && w.is_ipv4() == address.is_ipv4())
            });
            if !covered {
                wanted.push((address, ClaimKind::Join));
            }
        }
        wanted
    }

    /// Holds and claims exactly what the services need now. A port of a service that is in
    /// use is an error; one that only joins could use is skipped and reported.
    ///
    /// # Errors
    /// See [`PortError`]. What was held before is still held then.
    pub fn set_services(
        &mut self,
        steer: &Steer,
        services: &[ServiceConfig],
        locals: &[IpAddr],
        joins: &[SocketAddr],
    ) -> Result<Vec<PortError>, PortError> {
        let wanted = Self::wanted(services, locals, joins);
        let mut skipped = Vec::new();
        let gone: Vec<SocketAddr> = self
            .held
            .iter()
            .filter(|(a, h)| {
                h.kind != ClaimKind::ActiveOpen && !wanted.iter().any(|(w, _)| w == *a)
            })
            .map(|(a, _)| *a)
            .collect();
        // A wildcard and its addresses exclude each other, so the old ones go first; if a
        // new one then fails, they are taken back.
        let mut removed = Vec::new();
        for address in gone {
            if let Some(held) = self.held.remove(&address) {
                removed.push((address, held.kind));
            }
            let _ = steer.claim_remove(Claim::new(address.ip(), address.port()));
        }
        let mut added = Vec::new();
        for (address, kind) in wanted {
            if self.held.contains_key(&address) {
                continue;
            }
            match self.hold(steer, services, address, kind) {
                Ok(()) => added.push(address),
                Err(e @ (PortError::InUse { .. } | PortError::Bind { .. }))
                    if kind == ClaimKind::Join =>
                {
                    skipped.push(e);
                }
                Err(e) => {
                    for address in added {
                        self.held.remove(&address);
                        let _ = steer.claim_remove(Claim::new(address.ip(), address.port()));
                    }
                    for (address, kind) in removed {
                        let _ = self.hold(steer, services, address, kind);
                    }
                    return Err(e);
                }
            }
        }
        Ok(skipped)
    }

    /// Holds one more port for joins, unless a service's or another endpoint's covers it.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn hold_join(
        &mut self,
        steer: &Steer,
        services: &[ServiceConfig],
        at: SocketAddr,
    ) -> Result<(), PortError> {
        let any: IpAddr = match at {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let covered = [at, SocketAddr::new(any, at.port())];
        if covered.iter().any(|a| self.held.contains_key(a)) {
            return Ok(());
        }
        self.hold(steer, services, at, ClaimKind::Join)
    }

    fn hold(
        &mut self,
        steer: &Steer,
        services: &[ServiceConfig],
        address: SocketAddr,
        kind: ClaimKind,
    ) -> Result<(), PortError> {
        let socket = reserve(address).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                let service = services
                    .iter()
                    .find(|s| s.listen.iter().any(|l| l.port() == address.port()))
                    .map_or_else(String::new, |s| s.name.clone());
                PortError::InUse {
                    address,
                    service,
                    owner: owner::describe(address),
                }
            } else {
                PortError::Bind { address, source }
            }
        })?;
        steer
            .claim_add(Claim::new(address.ip(), address.port()), kind)
            .map_err(|source| PortError::Claim { address, source })?;
        self.held.insert(
            address,
            Held {
                _socket: Some(socket),
                kind,
                until: None,
            },
        );
        Ok(())
    }

    /// A port of the kernel's choice for a subflow from `local`, held and claimed.
    ///
    /// # Errors
    /// See [`PortError`].
    pub fn open(&mut self, steer: &Steer, local: IpAddr) -> Result<SocketAddr, PortError> {
        let any = SocketAddr::new(local, 0);
        let bound = bind(any, false).and_then(|s| {
            let address = s
                .local_addr()?
                .as_socket()
                .ok_or(io::ErrorKind::InvalidData)?;
            Ok((s, address))
        });
        let (socket, address) = bound.map_err(|source| PortError::Bind {
            address: any,
            source,
        })?;
        steer
            .claim_add(Claim::new(local, address.port()), ClaimKind::ActiveOpen)
            .map_err(|source| PortError::Claim { address, source })?;
        let held = Held {
            _socket: Some(socket),
            kind: ClaimKind::ActiveOpen,
            until: None,
        };
        self.held.insert(address, held);
        Ok(address)
    }

    /// The subflow of a port is gone: the port follows after its TIME-WAIT.
    pub fn release(&mut self, now: Instant, local: SocketAddr) {
        if let Some(h) = self.held.get_mut(&local)
            && h.kind == ClaimKind::ActiveOpen
        {
            h.until.get_or_insert(now + LINGER);
        }
    }

    /// All subflows are gone, because the dataplane is.
    pub fn release_all(&mut self, now: Instant) {
        for h in self
            .held
            .values_mut()
            .filter(|h| h.kind == ClaimKind::ActiveOpen)
        {
            h.until.get_or_insert(now + LINGER);
        }
    }

    /// Gives back what has lingered long enough.
    pub fn expire(&mut self, now: Instant, steer: &Steer) {
        self.held.retain(|address, h| {
            let over = h.until.is_some_and(|at| at <= now);
            if over {
                let _ = steer.claim_remove(Claim::new(address.ip(), address.port()));
            }
            !over
        });
    }

    /// Takes over the claims of a control plane that died. Those of `live` subflows are
    /// held on; others linger, since TIME-WAIT may need them.
    ///
    /// # Errors
    /// The claim map cannot be read.
    pub fn adopt(
        &mut self,
        now: Instant,
        steer: &Steer,
        live: &[SocketAddr],
    ) -> Result<(), MapError> {
        for (claim, kind) in steer.claims()? {
            let ip = match claim.address {
                ClaimAddress::Exact(ip) => ip,
                // Services' wildcards are sorted out by `set_services`.
                ClaimAddress::Any(_) => continue,
            };
            let address = SocketAddr::new(ip, claim.port);
            if kind != ClaimKind::ActiveOpen || self.held.contains_key(&address) {
                continue;
            }
            let until = (!live.contains(&address)).then_some(now + LINGER);
            // Best effort: an application may have taken the port meanwhile; then the claim
            // must stay for our flow all the same.
            let held = Held {
                _socket: reserve(address).ok(),
                kind,
                until,
            };
            self.held.insert(address, held);
        }
        Ok(())
    }

    /// Claims of services that a previous control plane made and that nobody holds.
    ///
    /// # Errors
    /// The claim map cannot be read.
    pub fn drop_stale_claims(&self, steer: &Steer) -> Result<(), MapError> {
        for (claim, kind) in steer.claims()? {
            let held = self
                .held
                .keys()
                .any(|a| Claim::new(a.ip(), a.port()) == claim);
            if kind != ClaimKind::ActiveOpen && !held {
                steer.claim_remove(claim)?;
            }
        }
        Ok(())
    }

    /// How many ports are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

/// Who has a port: best effort, by /proc.
pub mod owner {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    /// State TIME_WAIT in /proc/net/tcp.
    const TIME_WAIT: u8 = 6;

    /// One line of /proc/net/tcp or tcp6.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Entry {
        pub(super) local: SocketAddr,
        pub(super) state: u8,
        pub(super) inode: u64,
    }

    /// Reads one line; the address is in the host's byte order, word by word.
    pub(super) fn parse(line: &str) -> Option<Entry> {
        let mut fields = line.split_whitespace();
        let (ip, port) = fields.nth(1)?.split_once(':')?;
        let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        let mut bytes = Vec::new();
        for word in ip.as_bytes().chunks(8) {
            let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
            bytes.extend(word.to_ne_bytes());
        }
        let ip: IpAddr = match bytes.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
            16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
            _ => return None,
        };
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Entry {
            local: SocketAddr::new(ip, port),
            state,
            inode,
        })
    }

    /// True if holding `b` keeps `a` from being bound.
    pub(super) fn conflicts(a: SocketAddr, b: SocketAddr) -> bool {
        let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
        // `::` without IPV6_V6ONLY takes IPv4's port as well.
        let wild =
            ip_b.is_unspecified() || (ip_a.is_unspecified() && ip_a.is_ipv4() == ip_b.is_ipv4());
        a.port() == b.port() && (ip_a == ip_b || wild)
    }

    fn entries(address: SocketAddr) -> Vec<Entry> {
        ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|file| fs::read_to_string(file).ok())
            .flat_map(|text| text.lines().skip(1).filter_map(parse).collect::<Vec<_>>())
            .filter(|e| conflicts(address, e.local))
            .collect()
    }

    pub(super) fn only_time_wait(address: SocketAddr) -> bool {
        let entries = entries(address);
        !entries.is_empty() && entries.iter().all(|e| e.state == TIME_WAIT)
    }

    /// "nginx (pid 812)", or what is known instead.
    #[must_use]
    pub fn describe(address: SocketAddr) -> String {
        let inodes: Vec<u64> = entries(address)
            .iter()
            .map(|e| e.inode)
            .filter(|i| *i != 0)
            .collect();
        for inode in &inodes {
            if let Some(process) = process_of(*inode) {
                return process;
            }
        }
        // A bound socket that neither listens nor is connected is in no table.
        format!(
            "a socket of the kernel; find it with: ss -Htanp 'sport = :{}'",
            address.port()
        )
    }

    fn process_of(inode: u64) -> Option<String> {
        let wanted = format!("socket:[{inode}]");
        for process in fs::read_dir("/proc").ok()?.flatten() {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(fds) = fs::read_dir(process.path().join("fd")) else {
                continue;
            };
            for fd in fds.flatten() {
                if fs::read_link(fd.path()).is_ok_and(|l| l.as_os_str() == wanted.as_str()) {
                    let comm = fs::read_to_string(process.path().join("comm")).ok()?;
                    return Some(format!("{} (pid {pid})", comm.trim()));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_dataplane::control::AppSetup;

    fn service(name: &str, listen: &[&str]) -> ServiceConfig {
        ServiceConfig {
            name: name.to_owned(),
            listen: listen.iter().map(|a| a.parse().unwrap()).collect(),
            app: AppSetup::Echo,
            listen_line: 1,
        }
    }

    fn wanted(services: &[ServiceConfig], locals: &[&str]) -> Vec<String> {
        let locals: Vec<IpAddr> = locals.iter().map(|a| a.parse().unwrap()).collect();
        Ports::wanted(services, &locals, &[])
            .into_iter()
            .map(|(a, kind)| format!("{a} {kind:?}"))
            .collect()
    }

    #[test]
    fn joins_may_arrive_on_every_address() {
        assert_eq!(
            wanted(
                &[service("echo", &["10.0.0.1:7"])],
                &["10.0.0.1", "10.0.1.1", "fd00::1"]
            ),
            ["10.0.0.1:7 Service", "10.0.1.1:7 Join", "[fd00::1]:7 Join"]
        );
    }

    #[test]
    fn a_wildcard_covers_the_addresses_of_its_family_and_port() {
        let services = [
            service("echo", &["0.0.0.0:7", "[fd00::9]:8"]),
            service("sink", &["10.0.0.1:7"]),
        ];
        assert_eq!(
            wanted(&services, &["10.0.0.1", "fd00::1"]),
            [
                "0.0.0.0:7 Service",
                "[fd00::9]:8 Service",
                "[fd00::1]:7 Join",
                "10.0.0.1:8 Join",
                "[fd00::1]:8 Join"
            ]
        );
    }

    #[test]
    fn an_announced_port_is_held_unless_a_service_covers_it() {
        let services = [service("echo", &["0.0.0.0:7", "10.0.0.1:8"])];
        let joins: Vec<SocketAddr> = ["10.0.1.1:7", "10.0.0.1:8", "10.0.1.1:9"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        let wanted = Ports::wanted(&services, &[], &joins);
        assert_eq!(wanted[2..], [(joins[2], ClaimKind::Join)]);
    }

    #[test]
    fn a_reserved_port_cannot_be_taken_and_its_owner_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = reserve(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let owner = owner::describe(address);
        assert!(
            owner.contains(&format!("(pid {})", std::process::id())),
            "{owner}"
        );
        drop(listener);
        let held = reserve(address).unwrap();
        assert!(std::net::TcpListener::bind(address).is_err());
        drop(held);
        assert!(std::net::TcpListener::bind(address).is_ok());
    }

    #[test]
    fn a_port_can_be_held_before_its_address_exists() {
        assert!(reserve("192.0.2.1:7".parse().unwrap()).is_ok());
    }

    #[test]
    fn reads_the_kernels_table() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000 100 0 0 10 0";
        let entry = owner::parse(line).unwrap();
        assert_eq!(
            (entry.local.port(), entry.state, entry.inode),
            (22, 10, 12345)
        );
        if cfg!(target_endian = "little") {
            assert_eq!(entry.local.ip().to_string(), "127.0.0.1");
        }
        assert_eq!(owner::parse("  sl  local_address rem_address"), None);
    }

    #[test]
    fn wildcards_conflict() {
        let a = |t: &str| t.parse::<SocketAddr>().unwrap();
        assert!(owner::conflicts(a("10.0.0.1:7"), a("0.0.0.0:7")));
        assert!(owner::conflicts(a("10.0.0.1:7"), a("[::]:7")));
        assert!(owner::conflicts(a("0.0.0.0:7"), a("10.0.0.1:7")));
        assert!(!owner::conflicts(a("0.0.0.0:7"), a("[fd00::1]:7")));
        assert!(!owner::conflicts(a("10.0.0.1:7"), a("10.0.0.2:7")));
        assert!(!owner::conflicts(a("10.0.0.1:7"), a("10.0.0.1:8")));
    }
}
