//! What schedulers claim, held against the simulator; and the documents against what it says
//! now (regenerate with `braid-bench sim-report schedulers --write bench/docs`).

use std::path::Path;
use std::sync::LazyLock;

use braid_bench::scenario::report::Study;
use braid_bench::scenario::schedulers::study;

/// All tests look at the same run.
static STUDY: LazyLock<Study> = LazyLock::new(study);

const BULK: &str = "bulk, small window";
const LARGER: &str = "bulk, larger window";
const BURSTS: &str = "bursts after idle";
const THIN: &str = "thin stream, loss";
const EQUAL: &str = "equal paths";

/// The median of a figure.
fn median(scenario: &str, measure: &str, scheduler: &str) -> f64 {
    let row = STUDY
        .rows
        .iter()
        .find(|r| r.scenario == scenario && r.measure == measure)
        .expect("a row of the table");
    let column = STUDY.competitors.iter().position(|c| *c == scheduler);
    row.samples[column.expect("a column of the table")].median()
}

/// Ferlin et al. 2016, §V: less head-of-line blocking, and no goodput lost by it.
#[test]
fn blest_blocks_less_than_min_rtt_where_the_window_is_small() {
    let figure = |measure| {
        (
            median(BULK, measure, "blest"),
            median(BULK, measure, "min-rtt"),
        )
    };
    let (blest, min_rtt) = figure("waiting out of order, kB");
    assert!(blest < 0.5 * min_rtt, "{blest} kB, min-rtt {min_rtt} kB");
    for measure in ["delay, median, ms", "delay, 99 %, ms"] {
        let (blest, min_rtt) = figure(measure);
        assert!(blest < 0.8 * min_rtt, "{measure}: {blest}, {min_rtt}");
    }
    let (blest, min_rtt) = figure("time, s");
    assert!(blest <= min_rtt, "{blest} s, min-rtt {min_rtt} s");
}

/// Where the window has room for both, a path that is left out is a loss: the fast one alone
/// needs 8 MB * 1514 / 1420 bytes at 10 Mb/s.
#[test]
fn blest_and_ecf_use_the_slow_path_where_the_window_is_large() {
    let fast_alone = 8.0 * 1514.0 / 1420.0 * 8.0 / 10.0;
    for scheduler in ["blest", "ecf"] {
        let time = median(LARGER, "time, s", scheduler);
        assert!(time < 0.97 * fast_alone, "{scheduler}: {time} s");
    }
    let waiting = |scheduler| median(LARGER, "waiting out of order, kB", scheduler);
    let (blest, min_rtt) = (waiting("blest"), waiting("min-rtt"));
    assert!(blest <= min_rtt, "{blest} kB, min-rtt {min_rtt} kB");
}

/// With a window for all paths, leaving one out would be a loss: BLEST does not.
#[test]
fn blest_and_ecf_use_equal_paths_as_min_rtt_does() {
    let min_rtt = median(EQUAL, "time, s", "min-rtt");
    // Round-robin gives a full path its turn, too.
    for (scheduler, most) in [("blest", 1.03), ("ecf", 1.03), ("round-robin", 1.05)] {
        let time = median(EQUAL, "time, s", scheduler);
        assert!(time < most * min_rtt, "{scheduler}: {time} s, {min_rtt} s");
    }
}

/// Lim et al. 2017, §5: what comes in bursts is complete earlier.
#[test]
fn ecf_completes_bursts_after_idle_earlier_than_min_rtt() {
    for (measure, factor) in [
        ("completion, median, ms", 0.95),
        ("completion, 95 %, ms", 0.9),
    ] {
        let ecf = median(BURSTS, measure, "ecf");
        let min_rtt = median(BURSTS, measure, "min-rtt");
        assert!(ecf < factor * min_rtt, "{measure}: {ecf}, {min_rtt}");
    }
}

#[test]
fn redundant_has_the_lowest_tail_under_loss() {
    let tail = |scheduler| median(THIN, "delay, 99 %, ms", scheduler);
    for other in ["min-rtt", "round-robin", "blest", "ecf"] {
        let (redundant, other_ms) = (tail("redundant"), tail(other));
        assert!(
            redundant < 0.5 * other_ms,
            "{redundant} ms, {other} {other_ms} ms"
        );
    }
    // And what it costs.
    let time = |scheduler| median(EQUAL, "time, s", scheduler);
    assert!(time("redundant") > 1.8 * time("min-rtt"));
}

#[test]
fn round_robin_splits_evenly() {
    let share = median(EQUAL, "larger share, %", "round-robin");
    assert!((50.0..52.0).contains(&share), "{share} %");
}

#[test]
fn the_documents_are_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let svg = STUDY.svg().expect("drawable");
    for (name, now) in [("schedulers.md", STUDY.markdown()), ("schedulers.svg", svg)] {
        let kept = std::fs::read_to_string(docs.join(name)).expect("the document is kept");
        assert!(
            kept == now,
            "bench/docs/{name} is stale: braid-bench sim-report schedulers --write bench/docs\n{now}"
        );
    }
}
