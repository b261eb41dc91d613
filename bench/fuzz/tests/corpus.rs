//! Every input of the corpora and every past finding, run without libFuzzer.

use std::path::{Path, PathBuf};

use braid_fuzz::TARGETS;

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    files.sort();
    files
}

fn run_all(kind: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
    for target in TARGETS {
        let directory = root.join(target.name);
        if kind == "regressions" && !directory.exists() {
            continue; // Nothing was found yet.
        }
        let files = files(&directory);
        assert!(!files.is_empty(), "{} is empty", directory.display());
        for file in files {
            let input = std::fs::read(&file).expect("a readable file");
            let outcome = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(outcome.is_ok(), "{} {}", target.name, file.display());
        }
    }
}

#[test]
fn the_corpus_has_no_finding() {
    run_all("corpus");
}

#[test]
fn past_findings_stay_fixed() {
    run_all("regressions");
}

/// A body must not keep anything from one run to the next: the same input twice, and the empty
/// one.
#[test]
fn runs_are_independent() {
    for target in TARGETS {
        for input in [&b""[..], &[0; 300], &[0xff; 300], b"", &[0x55; 300]] {
            (target.run)(input);
        }
    }
}
