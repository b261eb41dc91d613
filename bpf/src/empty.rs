//! An XDP program of two instructions that passes everything: the yardstick for the cost
//! of ours, and in tests somebody else's program.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libbpf_sys::{
    BPF_ALU64, BPF_EXIT, BPF_JMP, BPF_K, BPF_MOV, BPF_PROG_TYPE_XDP, XDP_PASS, bpf_insn,
    bpf_prog_load,
};

/// Loads a program that does nothing but pass every packet.
///
/// # Errors
/// Loading needs CAP_BPF and CAP_NET_ADMIN.
pub fn load_empty() -> io::Result<OwnedFd> {
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
            c"empty".as_ptr(),
            c"GPL".as_ptr(),
            program.as_ptr(),
            program.len() as u64,
            std::ptr::null_mut(),
        )
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
