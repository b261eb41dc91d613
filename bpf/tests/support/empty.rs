//! An XDP program of two instructions that passes everything: somebody else's
//! program, and the yardstick for the cost of ours.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_rs::libbpf_sys::{
    BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_K, BPF_MOV, BPF_PROG_TYPE_XDP, XDP_PASS, bpf_insn,
    bpf_prog_load,
};

pub fn load() -> OwnedFd {
    let code = |parts: u32| u8::try_from(parts).expect("an opcode");
    let set_verdict = bpf_insn {
        code: code(BPF_ALU64 | BPF_MOV | BPF_K),
        imm: i32::try_from(XDP_PASS).expect("a small number"),
        ..Default::default()
    };
    let exit = bpf_insn {
        code: code(BPF_JMP | BPF_EXIT),
        ..Default::default()
    };
    let program = [set_verdict, exit];
    // SAFETY: name and licence are C strings, the program has the given length;
    // all are only read, and outlive the call.
    let fd = unsafe {
        bpf_prog_load(
            BPF_PROG_TYPE_XDP,
            c"foreign".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as u64,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{}", io::Error::from_raw_os_error(-fd));
    // SAFETY: a new descriptor that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
