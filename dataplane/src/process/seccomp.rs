//! What the process may still ask of the kernel once its sockets are open: move packets,
//! wait, talk to its control plane, hand memory back. No new sockets, files, programs or
//! executable memory: whoever takes the dataplane over by a packet finds little to use.
//!
//! A call that is not on the list fails with EPERM and is not worth the process: if a
//! library asks for something new one day, the service goes on.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp,
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter,
};

/// Calls whose arguments do not matter.
const ALLOWED: &[libc::c_long] = &[
    // Packets: AF_XDP kicks, AF_PACKET bursts, what the kernel says about rings. Options are
    // set at start; SO_ERROR and XDP_STATISTICS are read.
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_getsockopt,
    // Waiting. `poll` exists on old architectures only.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Control planes come and go; descriptors are closed, or put in place of one that libxdp
    // keeps. Mail by eventfd, SIGTERM by signalfd, the log on stderr.
    libc::SYS_accept4,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Threads of this process, started after the filter and inheriting it.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prctl,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    // Memory: `mmap` and `mprotect` have rules below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Signals, and the way a panic aborts.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Of bpf(2): claims in maps that were opened before. linux/bpf.h: BPF_MAP_LOOKUP_ELEM,
/// BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM.
const BPF_COMMANDS: [u64; 3] = [1, 2, 3];

/// Of mmap and mprotect, the third argument: what may be done with the memory.
const PROTECTION: u8 = 2;

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let command = |number| {
        SeccompRule::new(vec![SeccompCondition::new(
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            number,
        )?])
    };
    let commands = BPF_COMMANDS.into_iter().map(command);
    rules.insert(libc::SYS_bpf, commands.collect::<Result<_, _>>()?);
    // Never memory that can be executed.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let never = SeccompCondition::new(
            PROTECTION,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(executable),
            0,
        )?;
        rules.insert(call, vec![SeccompRule::new(vec![never])?]);
    }
    Ok(rules)
}

/// Confines the calling thread and those that it will start. Needs `no_new_privs`.
///
/// # Errors
/// The kernel has no seccomp, or the architecture is unknown to it.
pub(super) fn confine() -> Result<(), Error> {
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter(&program)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    #[test]
    fn a_confined_thread_opens_nothing_and_executes_nothing() {
        // In a thread of its own: filters are per thread.
        std::thread::spawn(|| {
            let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            nix::sys::prctl::set_no_new_privs().unwrap();
            super::confine().unwrap();
            let denied = |e: std::io::Error| assert_eq!(e.kind(), ErrorKind::PermissionDenied);
            denied(std::fs::File::open("/proc/self/status").unwrap_err());
            denied(std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err());
            denied(std::process::Command::new("true").spawn().unwrap_err());
            // What it lives of still works, in threads that it starts too.
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let (mut one, mut other) = (one, other);
                one.write_all(b"x").unwrap();
                let mut byte = [0];
                other.read_exact(&mut byte).unwrap();
                drop(vec![0_u8; 64 << 20]);
                denied(std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err());
            })
            .join()
            .unwrap();
        })
        .join()
        .unwrap();
    }
}
