//! The dataplane as a process: started apart from us, watched by pidfd.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setsid};
use tokio::io::unix::AsyncFd;

use super::watch::watch;

/// Names the dataplane's binary instead of the one beside braidd.
pub const BINARY_ENV: &str = "BRAID_DATAPLANE";

/// A dataplane process, ours by birth or by adoption.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: AsyncFd<OwnedFd>,
    /// Ours by birth: to be reaped.
    child: Option<Child>,
}

fn pidfd(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    watch(pidfd_open(pid, PidfdFlags::empty())?)
}

/// The dataplane's binary.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os(BINARY_ENV) {
        return path.into();
    }
    std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("braid-dataplane")))
        .unwrap_or_else(|| "braid-dataplane".into())
}

impl Process {
    /// Starts `binary` with `listener` as standard input, in a session of its own, so that
    /// neither our death nor our terminal's signals reach it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(binary: &Path, listener: OwnedFd) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command
            // systemd's notifications are ours alone.
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null());
        // SAFETY: between fork and exec only setsid is called, which is async-signal-safe;
        // nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(|| setsid().map(|_| ()).map_err(io::Error::from));
        }
        let mut child = command.spawn()?;
        let pid = child.id();
        match pidfd(pid) {
            Ok(pidfd) => Ok(Self {
                pid,
                pidfd,
                child: Some(child),
            }),
            Err(e) => {
                // Nobody could watch it.
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// Watches a process that another braidd started.
    ///
    /// # Errors
    /// There is no such process.
    pub fn adopt(pid: u32) -> io::Result<Self> {
        Ok(Self {
            pid,
            pidfd: pidfd(pid)?,
            child: None,
        })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end, and reaps it.
    pub async fn ended(&mut self) {
        // A pidfd is readable from the end of the process on (pidfd_open(2)).
        while let Ok(ready) = self.pidfd.readable().await {
            if ready.ready().is_readable() {
                break;
            }
        }
        if let Some(child) = &mut self.child {
            // It has ended: this does not wait.
            if let Ok(status) = child.wait() {
                tracing::info!("the dataplane (pid {}) ended: {status}", self.pid);
            }
        }
    }

    /// Ends it at once.
    pub fn kill(&self) {
        // It has ended already: fine.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}
