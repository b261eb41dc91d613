//! A network namespace with a veth pair, and the smallest XDP program that redirects
//! to AF_XDP sockets, by raw bpf(2): the dataplane itself never loads programs.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::thread;

/// Runs `test` on a thread with a network namespace of its own, which ends with it.
/// Without root: says so, and does nothing.
pub(super) fn isolated(test: impl FnOnce() + Send + 'static) {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: needs root (network namespace, AF_XDP)");
        return;
    }
    let body = move || {
        // SAFETY: affects only this thread.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {}", io::Error::last_os_error());
        for scope in ["all", "default"] {
            let file = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
            std::fs::write(file, "1").expect("quiet interfaces");
        }
        ip(
            "link add va numtxqueues 1 numrxqueues 1 type veth peer name vb numtxqueues 1 numrxqueues 1",
        );
        ip("link set va up");
        ip("link set vb up");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// `ip` in the calling thread's namespace.
pub(super) fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("iproute2");
    assert!(status.success(), "ip {arguments}");
}

#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) enum Attach {
    Native,
    Generic,
}

/// The program on one interface; detached when dropped.
pub(super) struct Redirect {
    _link: OwnedFd,
    map: OwnedFd,
}

// linux/bpf.h
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 4;

fn bpf<T>(command: libc::c_long, mut attributes: T) -> RawFd {
    // SAFETY: the attributes are plain integers; addresses in them outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut attributes,
            mem::size_of::<T>(),
        )
    };
    assert!(
        result >= 0,
        "bpf({command}): {}",
        io::Error::last_os_error()
    );
    RawFd::try_from(result).expect("a descriptor")
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: fresh from the kernel.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Redirect {
    pub(super) fn attach(interface: &str, attach: Attach) -> Self {
        let map = owned(bpf(BPF_MAP_CREATE, [BPF_MAP_TYPE_XSKMAP, 4, 4, 4, 0]));
        let map_fd = u64::from(map.as_raw_fd().cast_unsigned());
        // return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS)
        let instruction = |code: u64, dst: u64, src: u64, offset: u64, immediate: u64| {
            code | dst << 8 | src << 12 | offset << 16 | immediate << 32
        };
        let program: [u64; 6] = [
            instruction(0x61, 2, 1, 16, 0),     // r2 = *(u32 *)(r1 + 16)
            instruction(0x18, 1, 1, 0, map_fd), // r1 = map
            0,
            instruction(0xb7, 3, 0, 0, 2),  // r3 = XDP_PASS
            instruction(0x85, 0, 0, 0, 51), // call bpf_redirect_map
            instruction(0x95, 0, 0, 0, 0),  // exit
        ];
        #[repr(C)]
        struct Load {
            kind: u32,
            instructions: u32,
            program: u64,
            license: u64,
            log: [u64; 2],
            kernel_version: u32,
            flags: u32,
        }
        let load = Load {
            kind: BPF_PROG_TYPE_XDP,
            instructions: 6,
            program: program.as_ptr().addr() as u64,
            license: c"GPL".as_ptr().addr() as u64,
            log: [0; 2],
            kernel_version: 0,
            flags: BPF_F_XDP_HAS_FRAGS,
        };
        let program = owned(bpf(BPF_PROG_LOAD, load));
        let name = CString::new(interface).expect("no NUL");
        // SAFETY: a C string.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        assert_ne!(index, 0, "{interface}");
        let mode = match attach {
            Attach::Native => XDP_FLAGS_DRV_MODE,
            Attach::Generic => XDP_FLAGS_SKB_MODE,
        };
        let program_fd = program.as_raw_fd().cast_unsigned();
        let link = owned(bpf(BPF_LINK_CREATE, [program_fd, index, BPF_XDP, mode]));
        Self { _link: link, map }
    }

    pub(super) fn insert(&self, queue: u32, socket: RawFd) {
        #[repr(C)]
        struct Update {
            map: u32,
            pad: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let socket = socket.cast_unsigned();
        bpf(
            BPF_MAP_UPDATE_ELEM,
            Update {
                map: self.map.as_raw_fd().cast_unsigned(),
                pad: 0,
                key: (&raw const queue).addr() as u64,
                value: (&raw const socket).addr() as u64,
                flags: 0,
            },
        );
    }
}
