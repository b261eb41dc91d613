//! One instance of the program, and the link by which it is attached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::attach;
use crate::error::{AttachError, AttachMode};
use crate::test_run::{TestRun, test_run};
use crate::xskmap::XskMap;

/// An instance of the program for one interface, with its own XSKMAP. Dropping
/// it detaches nothing: the link does that.
#[derive(Debug)]
pub struct InterfaceProgram {
    ifindex: u32,
    program: OwnedFd,
    xsks: XskMap,
}

impl InterfaceProgram {
    pub(crate) fn new(ifindex: u32, program: OwnedFd, xsks: XskMap) -> Self {
        Self {
            ifindex,
            program,
            xsks,
        }
    }

    /// The interface that it was made for.
    #[must_use]
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The sockets of its queues.
    #[must_use]
    pub fn xsks(&self) -> &XskMap {
        &self.xsks
    }

    /// To send to another process.
    #[must_use]
    pub fn xsks_fd(&self) -> BorrowedFd<'_> {
        self.xsks.as_fd()
    }

    /// The descriptor by which it may be attached. Whoever holds it may attach
    /// it without any capability, so it stays with the privileged process.
    #[must_use]
    pub fn program_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Attaches it to its interface, in the calling thread's network namespace.
    /// Another program that is there stays there.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(&self, mode: AttachMode) -> Result<XdpLink, AttachError> {
        attach::attach(self.program.as_fd(), self.ifindex, mode).map(XdpLink::from)
    }

    /// Runs it on `frame`, without any device, and `repeat` times over
    /// (BPF_PROG_TEST_RUN). Maps are used and counters count as for a received
    /// packet; redirects are decided and not done. `linear_bytes` is how much
    /// of the frame lies in its first buffer, as a driver would decide.
    ///
    /// # Errors
    /// The kernel refuses frames of less than 14 bytes, and `linear_bytes`
    /// before Linux 6.18.
    pub fn test_run(
        &self,
        frame: &[u8],
        linear_bytes: Option<u32>,
        repeat: u32,
    ) -> std::io::Result<TestRun> {
        test_run(self.program.as_fd(), frame, linear_bytes, repeat)
    }
}

/// A `bpf_link`: the program is attached as long as any process holds a
/// descriptor of it, and no longer.
#[derive(Debug)]
pub struct XdpLink {
    fd: OwnedFd,
}

impl XdpLink {
    /// The interface that it attaches to; none once the interface is gone (the
    /// link is then dead, also if one of the same name comes back).
    ///
    /// # Errors
    /// The descriptor is no link.
    pub fn ifindex(&self) -> std::io::Result<Option<u32>> {
        attach::link_ifindex(self.fd.as_fd())
    }
}

impl From<OwnedFd> for XdpLink {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<XdpLink> for OwnedFd {
    fn from(link: XdpLink) -> Self {
        link.fd
    }
}

impl AsFd for XdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
