//! What a live test needs of the machine. What is missing is said loudly, never
//! passed over in silence.

use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// Programs that the tests run.
pub const PROGRAMS: &[&str] = &["braidd", "braid", "braid-dataplane", "braid-bench"];

/// One of each kind that the tests use.
const NFT_RULES: &str = "table ip probe {
    ct helper ftp { type \"ftp\" protocol tcp; }
    chain prerouting { type filter hook prerouting priority filter;
        tcp dport 21 ct helper set \"ftp\"
    }
    chain forward { type filter hook forward priority mangle;
        reset tcp option 30
        tcp flags syn tcp option maxseg size set 600
        ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
    }
    chain postrouting { type nat hook postrouting priority srcnat; masquerade
    }
}";

/// Something that may be missing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Namespaces, raw sockets, BPF.
    Root,
    /// Kernel MPTCP.
    Mptcp,
    /// AF_XDP.
    XdpSockets,
    /// iptables' TCPOPTSTRIP.
    OptionStripping,
    /// nftables with option stripping, connection tracking, NAT, the FTP helper and SYNPROXY.
    Netfilter,
    /// Two cores: one per worker.
    TwoCores,
    /// The programs under test.
    Programs,
}

impl Requirement {
    /// Why it is not there; `None` if it is.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!nix::unistd::geteuid().is_root())
                .then(|| "needs root (network namespaces, XDP): run it with sudo".to_owned()),
            Self::Mptcp => {
                let enabled = std::fs::read_to_string("/proc/sys/net/mptcp/enabled");
                match enabled.as_deref().map(str::trim) {
                    Ok("1") => None,
                    Ok(_) => {
                        Some("net.mptcp.enabled is off: sysctl net.mptcp.enabled=1".to_owned())
                    }
                    Err(_) => Some("the kernel has no MPTCP (CONFIG_MPTCP)".to_owned()),
                }
            }
            Self::XdpSockets => {
                let probe = socket(
                    AddressFamily::from_i32(nix::libc::AF_XDP)?,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    None::<SockProtocol>,
                );
                match probe {
                    Ok(_) => None,
                    Err(Errno::EAFNOSUPPORT) => {
                        Some("the kernel has no AF_XDP (CONFIG_XDP_SOCKETS)".to_owned())
                    }
                    Err(e) => Some(format!("socket(AF_XDP): {e}")),
                }
            }
            Self::OptionStripping => {
                let rule = "iptables -t mangle -A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 30";
                let tried = Command::new("unshare")
                    .args(["-n", "sh", "-c", rule])
                    .output();
                match tried {
                    Ok(out) if out.status.success() => None,
                    Ok(out) => Some(format!(
                        "iptables has no TCPOPTSTRIP: {}",
                        String::from_utf8_lossy(&out.stderr).trim()
                    )),
                    Err(e) => Some(format!("unshare: {e}")),
                }
            }
            Self::Netfilter => {
                let tried = Command::new("unshare")
                    .args(["-n", "nft", NFT_RULES])
                    .output();
                match tried {
                    Ok(out) if out.status.success() => None,
                    Ok(out) => Some(format!(
                        "nftables lacks something: {}",
                        String::from_utf8_lossy(&out.stderr).trim()
                    )),
                    Err(e) => Some(format!("unshare: {e}")),
                }
            }
            Self::TwoCores => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                (cores < 2).then(|| format!("needs two cores, this machine has {cores}"))
            }
            Self::Programs => {
                let directory = programs();
                let missing: Vec<_> = PROGRAMS
                    .iter()
                    .filter(|program| !directory.join(program).is_file())
                    .collect();
                (!missing.is_empty()).then(|| {
                    format!(
                        "{missing:?} not in {}: build them (cargo build --bins) or set BRAID_BIN_DIR",
                        directory.display()
                    )
                })
            }
        }
    }
}

/// Where the programs under test are: `BRAID_BIN_DIR`, else beside the running test.
#[must_use]
pub fn programs() -> PathBuf {
    if let Some(directory) = std::env::var_os("BRAID_BIN_DIR") {
        return directory.into();
    }
    let mut directory = std::env::current_exe().unwrap_or_default();
    directory.pop();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory
}
