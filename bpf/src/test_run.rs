//! Runs a loaded program on a frame of ours: BPF_PROG_TEST_RUN. libbpf-rs has
//! it too, but only for programs of an object that it holds open.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts, xdp_md};

use crate::map::outcome;

/// What the program did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// The verdict of the last run.
    pub verdict: Verdict,
    /// Mean duration of a run in ns.
    pub duration_ns: u32,
}

/// An XDP verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// XDP_DROP.
    Drop,
    /// XDP_PASS.
    Pass,
    /// XDP_REDIRECT.
    Redirect,
    /// One that the program never gives.
    Unexpected(u32),
}

impl From<u32> for Verdict {
    fn from(value: u32) -> Self {
        match value {
            libbpf_sys::XDP_DROP => Verdict::Drop,
            libbpf_sys::XDP_PASS => Verdict::Pass,
            libbpf_sys::XDP_REDIRECT => Verdict::Redirect,
            other => Verdict::Unexpected(other),
        }
    }
}

/// Runs the XDP program `program` on `frame`, without any device, and `repeat`
/// times over. See [`InterfaceProgram::test_run`](crate::InterfaceProgram::test_run).
///
/// # Errors
/// As there.
pub fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    linear_bytes: Option<u32>,
    repeat: u32,
) -> io::Result<TestRun> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut context = xdp_md::default();
    let mut opts = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len()).map_err(too_long)?,
        repeat: i32::try_from(repeat).map_err(too_long)?,
        ..Default::default()
    };
    if let Some(linear_bytes) = linear_bytes {
        context.data_end = linear_bytes;
        opts.ctx_in = (&raw const context).cast();
        opts.ctx_size_in = u32::try_from(size_of::<xdp_md>()).map_err(too_long)?;
    }
    // SAFETY: `data_in` and `ctx_in` have the sizes given and outlive the call,
    // which only reads them; no output buffer is given.
    let ret = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut opts) };
    outcome(ret)?;
    Ok(TestRun {
        verdict: Verdict::from(opts.retval),
        duration_ns: opts.duration,
    })
}
