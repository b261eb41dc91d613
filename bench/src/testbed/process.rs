//! A command whose output is kept and which dies with its value.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::Result;
use crate::failure;

/// A running command. Its standard output is read line by line; its standard error
/// goes to a file. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `stderr` is where its standard error goes.
    pub fn start(name: &str, mut command: Command, stderr: &Path) -> Result<Self> {
        let log = File::create(stderr).map_err(|e| failure!("{}: {e}", stderr.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|e| failure!("cannot start {name} ({command:?}): {e}"))?;
        let (tell, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let Ok(line) = line else { return };
                    if tell.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
            stderr: stderr.to_owned(),
            status: None,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        std::fs::read(&self.stderr).map_or_else(
            |e| format!("({}: {e})", self.stderr.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The next line of its standard output; `None` at its end.
    pub fn line(&mut self, timeout: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(failure!(
                "{} wrote no line within {timeout:?}; its standard error:\n{}",
                self.name,
                self.stderr()
            )),
        }
    }

    /// Waits for the line `expected`.
    pub fn expect_line(&mut self, expected: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.line(left)? {
                Some(line) if line == expected => return Ok(()),
                Some(_) => {}
                None => {
                    let status = self.wait(Duration::from_secs(1));
                    return Err(failure!(
                        "{} ended ({status:?}) before it wrote {expected:?}; its standard error:\n{}",
                        self.name,
                        self.stderr()
                    ));
                }
            }
        }
    }

    /// The next line, as JSON.
    pub fn json<T: DeserializeOwned>(&mut self, timeout: Duration) -> Result<T> {
        let line = self.line(timeout)?.ok_or_else(|| {
            failure!(
                "{} ended without a result; its standard error:\n{}",
                self.name,
                self.stderr()
            )
        })?;
        serde_json::from_str(&line).map_err(|e| failure!("{}: {e} in {line}", self.name))
    }

    /// Lines that have come so far.
    pub fn pending(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Has it ended?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(failure!("{} runs after {timeout:?}", self.name));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_some() {
            return Err(failure!("{} has ended", self.name));
        }
        let pid = i32::try_from(self.pid()).map_err(|e| failure!("{e}"))?;
        kill(Pid::from_raw(pid), signal).map_err(|e| failure!("{}: {signal}: {e}", self.name))
    }

    /// SIGKILL, and waits.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        if self.wait(Duration::from_secs(3)).is_err() {
            eprintln!("{} does not end by SIGTERM: killed", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failure!("cannot start {command:?}: {e}"))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(failure!(
            "{command:?}: {}\n{}{}",
            out.status,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let log = std::env::temp_dir().join(format!(
            "process-test-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        Process::start("sh", command, &log).unwrap()
    }

    #[test]
    fn waits_for_a_line_and_reports_an_early_end() {
        let mut good = shell("echo warming; echo ready; sleep 60");
        good.expect_line("ready", Duration::from_secs(5)).unwrap();
        assert!(good.ended().is_none());
        let mut bad = shell("echo no luck >&2; exit 3");
        let error = bad
            .expect_line("ready", Duration::from_secs(5))
            .unwrap_err();
        assert!(error.0.contains("no luck"), "{error}");
        let mut slow = shell("sleep 60");
        assert!(
            slow.expect_line("ready", Duration::from_millis(50))
                .is_err()
        );
    }

    #[test]
    fn dies_with_its_value() {
        let process = shell("sleep 60");
        let path = format!("/proc/{}", process.pid());
        assert!(Path::new(&path).exists());
        drop(process);
        assert!(!Path::new(&path).exists());
    }

    #[test]
    fn failing_commands_are_errors_with_their_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo the cause >&2; exit 1"]);
        assert!(output(&mut command).unwrap_err().0.contains("the cause"));
    }
}
