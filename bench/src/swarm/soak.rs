//! Many seeds on many threads, with a line now and then and the failures on disk.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use super::run;

/// Failures that leave a trace.
const TRACES_MAX: usize = 20;

/// `braid-bench soak`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How long
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// First seed; the others follow it [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Threads [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many failures
    #[arg(long, default_value_t = 20)]
    failures: usize,
    /// Only with the middlebox of this number, wherever it can stand
    #[arg(long, value_name = "ID")]
    only: Option<String>,
    /// How many seeds [default: as many as the time allows]
    #[arg(long)]
    seeds: Option<u64>,
    /// Where failing seeds leave their traces
    #[arg(long, default_value = "soak-failures")]
    directory: PathBuf,
}

/// Which seeds, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The first; the others follow it.
    pub first: u64,
    /// How many; `None`: as many as the time allows.
    pub seeds: Option<u64>,
    /// No seed starts later than this.
    pub time: Duration,
    /// Threads.
    pub threads: usize,
    /// Failures after which it stops: they may have a common cause.
    pub failures: usize,
    /// The number of a middlebox that every seed gets.
    pub only: Option<String>,
    /// Where failing seeds leave their traces.
    pub directory: PathBuf,
    /// Time between two lines of progress; `None` for silence.
    pub progress: Option<Duration>,
}

/// What the seeds did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Bytes that applications received and found right.
    pub bytes: u64,
    /// Faults.
    pub faults: u64,
    /// Seeds with a middlebox.
    pub boxed: u64,
    /// Seeds whose main connection a middlebox ended, with a reason, as RFC 8684 allows.
    pub ended: u64,
    /// CPU time.
    pub cpu: Duration,
    /// Seeds that failed, and why.
    pub failures: Vec<(u64, String)>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} seeds, {:.0} s simulated, {} MiB moved, {} faults, {} with middleboxes ({} of them ended early), \
             {:.1} ms of CPU each, {} failures",
            self.seeds,
            self.simulated.as_secs_f64(),
            self.bytes >> 20,
            self.faults,
            self.boxed,
            self.ended,
            self.cpu.as_secs_f64() * 1e3 / self.seeds.max(1) as f64,
            self.failures.len()
        )
    }
}

/// As many threads as there are cores.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A seed that nobody chose.
#[must_use]
pub fn seed_of_clock() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    // Far from the seeds that tests name.
    since.map_or(1, |d| d.as_secs()) * 1_000_000
}

/// Runs seeds until they or the time are used up.
#[must_use]
pub fn soak(plan: &Plan) -> Summary {
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary::default());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..plan.threads.max(1) {
            scope.spawn(|| work(plan, start, &next, &summary));
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn work(plan: &Plan, start: Instant, next: &AtomicU64, summary: &Mutex<Summary>) {
    while start.elapsed() < plan.time {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if plan.seeds.is_some_and(|seeds| number >= seeds) {
            return;
        }
        let report = run::run(plan.first.wrapping_add(number), plan.only.as_deref());
        let mut total = summary.lock().unwrap_or_else(PoisonError::into_inner);
        total.seeds += 1;
        total.simulated += report.simulated;
        total.cpu += report.cpu;
        total.bytes += report.bytes;
        total.faults += u64::from(report.faults);
        total.boxed += u64::from(report.middlebox.is_some());
        total.ended += u64::from(!report.finished);
        if let Some(progress) = plan.progress {
            line(progress, start, &total);
        }
        if let Some(failure) = report.failure {
            let name = report
                .middlebox
                .map_or(String::new(), |id| format!("box {id}: "));
            let failure = format!("{name}{failure}");
            eprintln!("seed {}: {failure}", report.seed);
            total.failures.push((report.seed, failure));
            let count = total.failures.len();
            let stop = count >= plan.failures;
            drop(total);
            if count <= TRACES_MAX {
                keep(report.seed, plan.only.as_deref(), &plan.directory);
            }
            if stop {
                // Others see that no seed is left.
                next.store(u64::MAX / 2, Ordering::Relaxed);
                return;
            }
        }
        if next.load(Ordering::Relaxed) >= u64::MAX / 2 {
            return;
        }
    }
}

/// A line whenever `every` has passed since the last.
fn line(every: Duration, start: Instant, total: &Summary) {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if last.unwrap_or(start).elapsed() >= every {
        *last = Some(Instant::now());
        let wall = start.elapsed().as_secs_f64();
        let rate = total.seeds as f64 / wall;
        println!("{wall:.0} s: {total}, {rate:.1} seeds/s");
    }
}

/// Runs a failed seed again and keeps its packets.
fn keep(seed: u64, only: Option<&str>, directory: &Path) {
    let text = match std::fs::create_dir_all(directory) {
        Ok(()) => run::replay(seed, only, directory).1,
        Err(e) => format!("seed {seed}: no directory for its trace: {e}"),
    };
    // A failure that is reported nowhere would be worse than one without a file.
    let file = directory.join(format!("seed-{seed}.txt"));
    if std::fs::write(&file, &text).is_err() {
        eprintln!("{text}");
    }
    eprintln!("seed {seed}: see {}", file.display());
}

/// Runs `braid-bench soak`.
///
/// # Errors
/// When the hours are no time. What fails otherwise is a seed.
pub fn command(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let time =
        Duration::try_from_secs_f64(arguments.hours * 3600.0).map_err(std::io::Error::other)?;
    let plan = Plan {
        first: arguments.seed.unwrap_or_else(seed_of_clock),
        seeds: arguments.seeds,
        time,
        threads: arguments.threads.unwrap_or_else(cores),
        failures: arguments.failures,
        only: arguments.only.clone(),
        directory: arguments.directory.clone(),
        progress: Some(Duration::from_secs(10)),
    };
    println!("first seed {}, {} threads", plan.first, plan.threads);
    let summary = soak(&plan);
    println!("{summary}");
    for (seed, failure) in &summary.failures {
        println!("seed {seed}: {failure}");
    }
    Ok(if summary.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
