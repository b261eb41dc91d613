//! The swarm: random networks, loads and faults, by seed.
//!
//! A fixed set of seeds, then others for a time. `BRAID_SEED=n` runs one seed, prints what it
//! was and writes its packets (`BRAID_BOX=B9` with that middlebox); `BRAID_SWARM_FIXED=n` makes
//! the fixed set another size, `BRAID_SWARM_FIRST=n` sets the first of the others (default: the
//! clock), `BRAID_SWARM_SEEDS=n` their number and `BRAID_SWARM_SECONDS=n` the time.

use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use braid_bench::swarm::run;
use braid_bench::swarm::soak::{Plan, Summary, cores, seed_of_clock, soak};
use braid_bench::swarm::{EACH_WAY, FAULTS_MIN};

/// Seeds that every run includes: about 100 s of CPU, on as many threads as there are cores.
const FIXED: u64 = 10_000;

/// Seconds for the others unless told otherwise: none until a soak of 200,000 on one state of
/// the sources has found nothing. A run of every test should not fail by chance for what it
/// was not asked about.
const SECONDS: u64 = 0;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

fn directory() -> PathBuf {
    std::env::temp_dir().join("braid-swarm")
}

/// Says it even if all goes well: what the test prints is kept from a reader then.
fn say(line: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn seeds(first: u64, seeds: Option<u64>, time: Duration) -> Summary {
    say(&format!("swarm: first seed {first}"));
    let summary = soak(&Plan {
        first,
        seeds,
        time,
        threads: cores(),
        failures: 20,
        only: None,
        directory: directory(),
        progress: Some(Duration::from_secs(10)),
    });
    say(&format!("swarm: first seed {first}: {summary}"));
    assert!(
        summary.failures.is_empty(),
        "replay with BRAID_SEED=<seed>; traces are in {}\n{:#?}",
        directory().display(),
        summary.failures
    );
    summary
}

#[test]
fn random_networks_loads_and_faults() {
    if let Some(seed) = variable("BRAID_SEED") {
        std::fs::create_dir_all(directory()).expect("a directory for traces");
        let only: Option<String> = variable("BRAID_BOX");
        let (report, text) = run::replay(seed, only.as_deref(), &directory());
        println!("{text}");
        assert_eq!(report.failure, None, "seed {seed}");
        return;
    }
    let fixed = variable("BRAID_SWARM_FIXED").unwrap_or(FIXED);
    let summary = seeds(0, Some(fixed), Duration::MAX);
    assert_eq!(summary.seeds, fixed);
    // What a middlebox ended moved less; most moved more.
    assert!(summary.ended * 10 <= fixed, "{} ended early", summary.ended);
    assert!(
        summary.boxed >= fixed / 4,
        "{} with middleboxes",
        summary.boxed
    );
    assert!(summary.bytes >= (fixed - summary.ended) * EACH_WAY);
    assert!(summary.faults >= (fixed - summary.ended) * u64::from(FAULTS_MIN));

    let number = variable("BRAID_SWARM_SEEDS");
    let time = match (variable("BRAID_SWARM_SECONDS"), number) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(_)) => Duration::MAX,
        (None, None) => Duration::from_secs(SECONDS),
    };
    let first = variable("BRAID_SWARM_FIRST").unwrap_or_else(seed_of_clock);
    seeds(first, number, time);
}

/// What makes a failing seed worth anything.
#[test]
fn a_seed_replays_exactly() {
    for seed in 0..12 {
        let (a, b) = (run::run(seed, None), run::run(seed, None));
        assert_eq!(
            (a.hash, a.events, a.simulated),
            (b.hash, b.events, b.simulated)
        );
        assert_ne!(a.hash, run::run(seed + 1000, None).hash);
    }
}

/// Seeds that once failed, with the middlebox that they then had, and why: whoever touches
/// what they are about may run them first.
#[test]
fn seeds_that_once_failed() {
    const SEEDS: &[(u64, Option<&str>, &str)] = &[
        (354, None, "F7: bytes moved by the box, nothing worse"),
        (
            3187,
            None,
            "F3: both paths lengthen the first data of every subflow",
        ),
        (
            3561,
            None,
            "F7: a subflow whose mappings never fit was kept",
        ),
        (
            4511,
            None,
            "C5: attempts that nobody answers kept others away",
        ),
        (4787, None, "B15: half-open joins kept a working one away"),
        (5005, None, "B15: the client became mute too late"),
        (
            5074,
            None,
            "G5: windows that a box closes are no reason to number ACKs lower",
        ),
        (
            6497,
            None,
            "A2: subflows whose address the NAT gave away kept others away",
        ),
        (
            8013,
            None,
            "B7: data behind a bare FIN came again with its mapping",
        ),
        (
            8556,
            None,
            "F1: both paths change the first data of every subflow",
        ),
        (
            287,
            Some("E3"),
            "two ends that had filled each other's windows",
        ),
        (
            331,
            Some("E3"),
            "a checksum over more than the receive buffer",
        ),
        (
            162,
            Some("E3"),
            "the header's window beside the first window option",
        ),
        (
            1_795_393_522_000_265,
            None,
            "B19: what was sent again under foreign keys was taken for new",
        ),
        (
            5_008_350,
            None,
            "B9: sent again beside a join under way, and the mapping lost",
        ),
        (
            5_016_328,
            None,
            "D6: bytes without a mapping in front of their repetition",
        ),
        (
            5_008_958,
            None,
            "F1: a repetition behind bytes with a wrong checksum",
        ),
        (
            5_010_904,
            None,
            "C7: every new subflow swallowed the head of the stream",
        ),
        (
            5_011_088,
            None,
            "C7: a backup was not asked while others swallowed",
        ),
        (
            5_011_609,
            None,
            "B15: a first byte sent again looked like a keepalive",
        ),
        (
            6_009_235,
            None,
            "C7: fell back after a join, and took a repetition for new",
        ),
        (
            6_010_144,
            None,
            "B9: one end fell back while the other had a join half open",
        ),
        (
            8_005_078,
            None,
            "F3: both ends found out while the first join was under way",
        ),
        (8_002_448, None, "F7: the same"),
        (8_010_480, None, "F7: the same"),
        (31_000_092, Some("F7"), "the same, by checksums"),
        (31_000_123, Some("F7"), "the same, by mappings"),
        (31_000_959, Some("F4"), "the same, grown mid-stream"),
        (
            31_000_099,
            Some("F7"),
            "a window full of what waited for the join",
        ),
        (
            31_000_975,
            Some("F7"),
            "the box's answer was too old for PAWS, and never came again",
        ),
        (
            2630,
            Some("E3"),
            "a corrupted segment that a box took for one to complete",
        ),
    ];
    for (seed, only, why) in SEEDS {
        assert_eq!(
            run::run(*seed, *only).failure,
            None,
            "{seed} {only:?}: {why}"
        );
    }
}
