//! braid to braid through every middlebox of the catalogue.

use std::collections::BTreeSet;

use braid_bench::middlebox::catalogue;
use braid_bench::report::matrix::Cell;
use braid_bench::scenario::gauntlet_sim;

fn describe<'a>(cells: impl Iterator<Item = &'a Cell>) -> String {
    cells
        .map(|c| {
            format!(
                "{} {} [{}] checksum {}: {} (allowed {}), {}\n",
                c.entry,
                c.variant,
                c.placement,
                c.checksum,
                c.letters(),
                c.allowed,
                c.note
            )
        })
        .collect()
}

#[test]
fn nothing_stalls_or_corrupts_and_the_pinned_matrix_is_true() {
    let matrix = gauntlet_sim::study(|_| true);
    let failures = describe(matrix.failures());
    assert!(failures.is_empty(), "{failures}");
    let odd = describe(matrix.cells.iter().filter(|c| !c.as_allowed));
    assert!(odd.is_empty(), "not what RFC 8684 allows:\n{odd}");

    // A box that never did anything has tested nothing.
    let acted: BTreeSet<_> = (matrix.cells.iter())
        .filter(|c| c.acted)
        .map(|c| c.entry.clone())
        .collect();
    for entry in catalogue::catalogue() {
        assert!(entry.may_idle || acted.contains(entry.id), "{}", entry.id);
    }

    let pinned = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gauntlet-sim.md");
    let pinned = std::fs::read_to_string(pinned).expect("the pinned matrix");
    assert!(
        pinned == matrix.markdown(),
        "stale: regenerate with `braid-bench sim-report gauntlet --write bench/docs`"
    );
}

#[test]
fn the_live_document_says_what_its_figures_say() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |name| std::fs::read_to_string(docs.join(name)).expect("a pinned document");
    let results: braid_bench::gauntlet::Results =
        serde_json::from_str(&read("gauntlet-live.json")).expect("figures");
    assert!(
        read("gauntlet-live.md") == results.markdown(),
        "stale: regenerate with `braid-bench gauntlet --merge … --write bench/docs`"
    );
}
