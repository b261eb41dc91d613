//! Windows grow with need, are paid for in frames, and nobody starves.

use std::time::Duration;

use braid_bench::scenario::autotuning::{self, Path, UNEQUAL, Windows};

const TIME: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(4));

#[test]
fn unequal_paths_are_filled_to_nine_tenths_of_their_sum() {
    let tuned = autotuning::run(&UNEQUAL, Windows::Tuned, None, TIME, 7);
    assert!(tuned.share >= 0.9, "{tuned:?}");
    // Without growth they are not: the test can fail.
    let fixed = autotuning::run(&UNEQUAL, Windows::Fixed(4 << 20), None, TIME, 7);
    assert!(fixed.share < 0.5, "{fixed:?}");
    assert_eq!(fixed.grown, 0);
}

#[test]
fn a_slow_reader_and_a_short_path_keep_windows_small() {
    let long = [UNEQUAL[0]];
    let slow = autotuning::run(&long, Windows::Tuned, Some(10), TIME, 7);
    // Twice 10 Mb/s over a round trip of 100 ms, and a little.
    assert!(slow.promised_max < 500, "{slow:?}");
    assert!(slow.used_max < 1000, "{slow:?}");
    let short = [Path {
        mbps: 100,
        rtt_ms: 10,
    }];
    let short = autotuning::run(&short, Windows::Tuned, None, TIME, 7);
    assert!(short.share > 0.95, "{short:?}");
    assert!(short.promised_max < 2000, "{short:?}");
}
