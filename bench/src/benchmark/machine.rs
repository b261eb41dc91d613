//! What was measured on, and how busy it was.

use std::process::Command;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// The machine and the software of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Of all memory.
    pub memory_mib: u64,
    /// `uname -r`.
    pub kernel: String,
    /// Virtual machine or not, as the processor's flags say.
    pub virtual_machine: bool,
    /// Version of braid.
    pub braid: String,
    /// Commit that was built from, `-dirty` if files differ; empty when unknown.
    pub commit: String,
    /// Build profile of the programs, by the name of their directory.
    pub profile: String,
    /// Load average of the last minute when the run began.
    pub load_before: f64,
}

fn first_value(text: &str, key: &str) -> String {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

fn git_commit() -> String {
    let out = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args([
            "describe",
            "--always",
            "--dirty",
            "--exclude",
            "*",
            "--abbrev=12",
        ])
        .output();
    match out {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        _ => String::new(),
    }
}

impl Machine {
    /// This one, with the programs in `programs`.
    #[must_use]
    pub fn here(programs: &std::path::Path) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let memory = first_value(&read("/proc/meminfo"), "MemTotal");
        let memory_kib = memory.split_whitespace().next().unwrap_or_default();
        Self {
            cpu: first_value(&cpuinfo, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib.parse::<u64>().unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            virtual_machine: first_value(&cpuinfo, "flags")
                .split_whitespace()
                .any(|flag| flag == "hypervisor"),
            braid: env!("CARGO_PKG_VERSION").to_owned(),
            commit: git_commit(),
            profile: programs
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            load_before: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// Seconds of processor time, over all cores.
#[derive(Copy, Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CpuSeconds {
    /// In programs.
    pub user: f64,
    /// In the kernel for them.
    pub system: f64,
    /// In interrupts.
    pub irq: f64,
    /// In soft interrupts, where generic XDP and the stack's receive side run.
    pub softirq: f64,
    /// Wanted, but the hypervisor gave it to others.
    pub steal: f64,
    /// Unused.
    pub idle: f64,
}

impl CpuSeconds {
    /// Of all cores, since boot.
    pub fn now() -> std::io::Result<Self> {
        Self::read("cpu ")
    }

    /// Of one core, since boot.
    pub fn now_of(core: usize) -> std::io::Result<Self> {
        Self::read(&format!("cpu{core} "))
    }

    fn read(name: &str) -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .and_then(|ticks| u32::try_from(ticks).ok())
            .unwrap_or(100);
        Self::parse(&text, name, f64::from(ticks_per_s))
            .ok_or_else(|| std::io::Error::other(format!("/proc/stat has no line {name:?}")))
    }

    /// proc(5): `cpu user nice system idle iowait irq softirq steal …`.
    fn parse(text: &str, name: &str, ticks_per_s: f64) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        let seconds = |at: usize| ticks.get(at).map(|&n| n as f64 / ticks_per_s);
        Some(Self {
            user: seconds(0)? + seconds(1)?,
            system: seconds(2)?,
            idle: seconds(3)? + seconds(4)?,
            irq: seconds(5)?,
            softirq: seconds(6)?,
            steal: seconds(7)?,
        })
    }

    /// Since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        let passed = |now: f64, then: f64| (now - then).max(0.0);
        Self {
            user: passed(self.user, earlier.user),
            system: passed(self.system, earlier.system),
            irq: passed(self.irq, earlier.irq),
            softirq: passed(self.softirq, earlier.softirq),
            steal: passed(self.steal, earlier.steal),
            idle: passed(self.idle, earlier.idle),
        }
    }

    /// What was used, by anyone on the machine.
    #[must_use]
    pub fn busy(&self) -> f64 {
        self.user + self.system + self.irq + self.softirq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_processors_seconds() {
        let text = "cpu  100 20 300 4000 50 6 70 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let cpu = CpuSeconds::parse(text, "cpu ", 100.0).unwrap();
        assert_eq!((cpu.user, cpu.system, cpu.idle), (1.2, 3.0, 40.5));
        assert_eq!((cpu.irq, cpu.softirq, cpu.steal), (0.06, 0.7, 0.08));
        let later = CpuSeconds { user: 2.2, ..cpu };
        assert!((later.since(cpu).busy() - 1.0).abs() < 1e-9);
        let core = CpuSeconds::parse(text, "cpu0 ", 100.0).unwrap();
        assert_eq!((core.user, core.idle), (0.02, 0.02));
        assert_eq!(CpuSeconds::parse("intr 1\n", "cpu ", 100.0), None);
    }

    #[test]
    fn time_passes() {
        let before = CpuSeconds::now().unwrap();
        assert!(before.idle + before.busy() > 0.0);
    }

    #[test]
    fn this_machine_is_something() {
        let machine = Machine::here(std::path::Path::new("/x/target/release"));
        assert!(machine.cores >= 1 && machine.memory_mib > 0);
        assert!(!machine.kernel.is_empty());
        assert_eq!(machine.profile, "release");
    }
}
