//! Shared windows on simulated networks: normalisers, slow readers, the window option.

use std::time::Duration;

use braid_bench::scenario::windows::{self, Experiment, Path, Reading, Variant};

const MIB: u64 = 1 << 20;

/// 20 MB to a reader that is slower than its two paths.
fn slow_reader(paths: Vec<Path>) -> Experiment {
    Experiment {
        name: "20 MB to a slow reader",
        paths,
        reading: Reading::Steady(6_000),
        buffer_bytes: 1 << 20,
        bytes: 20_000_000,
    }
}

/// G3 of the middlebox catalogue: a box on both paths that drops whatever takes a window
/// back (RFC 8684 row 63).
#[test]
fn a_normalizer_on_both_paths_finds_nothing_to_drop() {
    for paths in [
        vec![Path::new(50, 10), Path::new(50, 10)],
        vec![Path::new(80, 5), Path::new(10, 60)],
    ] {
        let experiment = slow_reader(paths);
        for option in [false, true] {
            let with =
                |normalizer, seed| windows::run(&experiment, Variant { option, normalizer }, seed);
            for seed in 0..5 {
                let (without, with) = (with(false, seed), with(true, seed));
                assert!(with.judged > 10_000, "the box saw it all: {with:?}");
                assert_eq!(with.shrink_drops, 0, "{option} {seed}: {with:?}");
                assert!(
                    with.time < without.time.mul_f64(1.2),
                    "{option} {seed}: {with:?}, without the box {without:?}"
                );
            }
        }
    }
}

/// The option's point: nothing arrives beyond the window, and the receiver never holds more
/// than its buffer.
#[test]
fn with_the_option_nothing_comes_beyond_the_window() {
    for experiment in windows::experiments() {
        let variant = Variant {
            option: true,
            normalizer: false,
        };
        let m = windows::run(&experiment, variant, 7);
        assert_eq!(m.beyond_window_bytes, 0, "{}: {m:?}", experiment.name);
        assert!(
            m.held_max_bytes <= u64::from(experiment.buffer_bytes) + 65_535 * 3,
            "{}: {m:?}",
            experiment.name
        );
        assert!(m.options > 0);
    }
}

#[test]
fn the_reader_is_the_limit_not_the_window() {
    let experiment = Experiment {
        bytes: 6 * MIB,
        ..slow_reader(vec![Path::new(50, 10), Path::new(50, 10)])
    };
    for option in [false, true] {
        let variant = Variant {
            option,
            normalizer: false,
        };
        let m = windows::run(&experiment, variant, 3);
        // 6 000 bytes each millisecond.
        let ideal = Duration::from_secs_f64(6.0 * MIB as f64 / 6e6);
        assert!(m.time < ideal.mul_f64(1.1), "{option}: {m:?} of {ideal:?}");
    }
}

#[test]
fn the_table_is_what_the_simulation_yields() {
    let pinned = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/windows.md"))
        .expect("bench/docs/windows.md");
    assert_eq!(
        pinned,
        windows::report(),
        "stale: braid-bench sim-report windows --write bench/docs"
    );
}
