//! Attaches a program by `bpf_link`, in a mode of our choice.
//!
//! libbpf-rs 0.25 has either no mode (`Program::attach_xdp`) or no link
//! (`Xdp::attach`, by netlink: it outlives the process), so this calls
//! `bpf_link_create` itself. That call answers with an errno and nothing more;
//! what stands behind it is found out afterwards by asking the interface.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_sys::{
    BPF_XDP, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_link_create, bpf_link_create_opts,
    bpf_link_get_info_by_fd, bpf_link_info, bpf_prog_get_info_by_fd, bpf_prog_info, bpf_xdp_query,
    bpf_xdp_query_opts,
};

use crate::error::{AttachError, AttachMode, FoundMode, FoundProgram};
use crate::log;
use crate::map::outcome;

pub(crate) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    mode: AttachMode,
) -> Result<OwnedFd, AttachError> {
    let interface = interface_name(ifindex).ok_or(AttachError::NoInterface { ifindex })?;
    let Ok(target) = i32::try_from(ifindex) else {
        return Err(AttachError::NoInterface { ifindex });
    };
    let opts = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as u64,
        flags: match mode {
            AttachMode::Native => XDP_FLAGS_DRV_MODE,
            AttachMode::Generic => XDP_FLAGS_SKB_MODE,
        },
        ..Default::default()
    };
    // SAFETY: `opts` outlives the call and says its own size.
    let fd = unsafe { bpf_link_create(program.as_raw_fd(), target, BPF_XDP, &raw const opts) };
    match outcome(fd) {
        // SAFETY: a new descriptor that nobody else knows.
        Ok(()) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(error) => Err(explain(error, target, interface, mode)),
    }
}

/// Turns an errno into its cause.
fn explain(error: io::Error, ifindex: i32, interface: String, mode: AttachMode) -> AttachError {
    let native = mode == AttachMode::Native;
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => AttachError::NotPermitted { interface },
        // EBUSY in the same mode, EEXIST in another one.
        Some(libc::EBUSY | libc::EEXIST) => match found_program(ifindex, &interface) {
            Some(found) => AttachError::Occupied(found),
            None => AttachError::Kernel {
                interface,
                mode,
                source: error,
            },
        },
        Some(libc::EOPNOTSUPP) if native => AttachError::Unsupported { interface },
        Some(libc::ENOSPC) if native => AttachError::TooFewQueues { interface },
        // ERANGE is veth's word for it. Others say EINVAL, which may mean
        // anything; beyond Ethernet's own MTU it is the likeliest.
        Some(errno @ (libc::ERANGE | libc::EINVAL)) if native => match interface_mtu(&interface) {
            Ok(mtu) if errno == libc::ERANGE || mtu > 1500 => {
                AttachError::MtuTooLarge { interface, mtu }
            }
            _ => AttachError::Kernel {
                interface,
                mode,
                source: error,
            },
        },
        Some(libc::ENODEV) => AttachError::NoInterface {
            ifindex: ifindex.unsigned_abs(),
        },
        _ => AttachError::Kernel {
            interface,
            mode,
            source: error,
        },
    }
}

/// What is attached to an interface, if anything is.
fn found_program(ifindex: i32, interface: &str) -> Option<FoundProgram> {
    let mut opts = bpf_xdp_query_opts {
        sz: size_of::<bpf_xdp_query_opts>() as u64,
        ..Default::default()
    };
    let (ret, _log) = log::capture(|| {
        // SAFETY: `opts` outlives the call and says its own size.
        unsafe { bpf_xdp_query(ifindex, 0, &raw mut opts) }
    });
    outcome(ret).ok()?;
    let (id, mode) = [
        (opts.drv_prog_id, FoundMode::Native),
        (opts.skb_prog_id, FoundMode::Generic),
        (opts.hw_prog_id, FoundMode::Offloaded),
    ]
    .into_iter()
    .find(|(id, _)| *id != 0)?;
    Some(FoundProgram {
        interface: interface.to_owned(),
        id,
        name: program_name(id).unwrap_or_default(),
        mode,
        link_id: holding_link(id, ifindex),
    })
}

fn program_name(id: u32) -> Option<String> {
    let fd = libbpf_rs::Program::fd_from_id(id).ok()?;
    let mut info = bpf_prog_info::default();
    let mut info_bytes = u32::try_from(size_of::<bpf_prog_info>()).ok()?;
    // SAFETY: both pointers are to locals that outlive the call; all pointers
    // inside a zeroed `info` are null with length 0, so nothing else is written.
    let ret = unsafe {
        bpf_prog_get_info_by_fd(fd.as_fd().as_raw_fd(), &raw mut info, &raw mut info_bytes)
    };
    outcome(ret).ok()?;
    text(&info.name)
}

fn holding_link(program_id: u32, ifindex: i32) -> Option<u32> {
    LinkInfoIter::default()
        .find(|link| {
            let here = match &link.info {
                LinkTypeInfo::Xdp(xdp) => i32::try_from(xdp.ifindex) == Ok(ifindex),
                _ => false,
            };
            here && link.prog_id == program_id
        })
        .map(|link| link.id)
}

/// The interface of an XDP link; none once the interface is gone.
pub(crate) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    // SAFETY: a C struct of integers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { zeroed() };
    let mut info_bytes = u32::try_from(size_of::<bpf_link_info>()).expect("a small struct");
    // SAFETY: both pointers are to locals that outlive the call; all pointers
    // inside a zeroed `info` are null with length 0.
    let ret =
        unsafe { bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut info_bytes) };
    outcome(ret)?;
    if info.type_ != libbpf_sys::BPF_LINK_TYPE_XDP {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not an XDP link",
        ));
    }
    // SAFETY: the member of the union that an XDP link fills, and an integer.
    let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok((ifindex != 0).then_some(ifindex))
}

/// A C string in an array that has room for more. `c_char` is signed on some
/// architectures and unsigned on others.
fn text(chars: &[libc::c_char]) -> Option<String> {
    let bytes: Vec<u8> = chars.iter().map(|c| c.to_ne_bytes()[0]).collect();
    let string = CStr::from_bytes_until_nul(&bytes).ok()?;
    Some(string.to_string_lossy().into_owned())
}

fn interface_name(ifindex: u32) -> Option<String> {
    let mut name: [libc::c_char; libc::IF_NAMESIZE] = [0; libc::IF_NAMESIZE];
    // SAFETY: writes at most IF_NAMESIZE bytes, NUL included.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    text(&name)
}

fn interface_mtu(name: &str) -> io::Result<u32> {
    // SAFETY: no pointers involved.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else knows.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: a C struct of integers and a union of them.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // One byte less: the name stays terminated.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: SIOCGIFMTU reads the name and writes an integer into the union.
    let ret = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: what SIOCGIFMTU wrote.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(mtu.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: i32, mode: AttachMode) -> AttachError {
        // Loopback: index 1 and an MTU of 65536 in every namespace.
        explain(io::Error::from_raw_os_error(errno), 1, "lo".into(), mode)
    }

    #[test]
    fn an_errno_about_the_mtu_names_the_mtu() {
        for errno in [libc::ERANGE, libc::EINVAL] {
            match explained(errno, AttachMode::Native) {
                AttachError::MtuTooLarge { interface, mtu } => {
                    assert_eq!((interface.as_str(), mtu), ("lo", 65536));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn generic_mode_never_blames_mtu_queues_or_driver() {
        for errno in [libc::ERANGE, libc::EINVAL, libc::ENOSPC, libc::EOPNOTSUPP] {
            match explained(errno, AttachMode::Generic) {
                AttachError::Kernel { source, .. } => {
                    assert_eq!(source.raw_os_error(), Some(errno));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn lack_of_privilege_names_the_capabilities() {
        let error = explained(libc::EPERM, AttachMode::Native);
        assert!(
            matches!(error, AttachError::NotPermitted { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    }

    #[test]
    fn busy_without_a_program_is_not_blamed_on_one() {
        let error = explained(libc::EBUSY, AttachMode::Native);
        assert!(matches!(error, AttachError::Kernel { .. }), "{error:?}");
    }
}
