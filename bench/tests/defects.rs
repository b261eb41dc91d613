//! The planted defects of `scripts/defects` do not rot: each patch applies to the tree as it
//! is, and the table in the docs is about these patches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn patches() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("bench/defects")).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = paths
        .filter(|p| p.extension().is_some_and(|e| e == "patch"))
        .collect();
    paths.sort();
    paths
}

fn name(patch: &Path) -> String {
    patch
        .file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

/// Applies (or tries to) below `tree`, as the script does.
fn apply(tree: &Path, patch: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("git")
        .current_dir(tree)
        .args(["apply", "-C1"])
        .args(arguments)
        .arg(patch)
        // A directory of its own is no part of a repository around it.
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree))
        .output()
        .expect("git runs");
    let text = String::from_utf8_lossy(&output.stderr);
    output
        .status
        .success()
        .then_some(())
        .ok_or(format!("{}: {text}", patch.display()))
}

#[test]
fn every_patch_applies_alone_and_all_together() {
    let root = root().canonicalize().expect("the sources are there");
    let patches = patches();
    assert!(patches.len() > 20, "{} patches", patches.len());
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("defects");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).expect("a directory");
    let mut faults = Vec::new();
    for patch in &patches {
        let text = fs::read_to_string(patch).expect("it is text");
        let files: Vec<_> = text
            .lines()
            .filter_map(|l| l.strip_prefix("+++ b/"))
            .collect();
        assert!(!files.is_empty(), "{} changes nothing", patch.display());
        for file in files {
            let to = copy.join(file);
            if !to.exists() {
                fs::create_dir_all(to.parent().expect("below the copy")).expect("a directory");
                // Where the file is gone, the patch does not apply, which is said below.
                let _ = fs::copy(root.join(file), to);
            }
        }
        faults.extend(apply(&root, patch, &["--check"]).err());
        faults.extend(apply(&copy, patch, &[]).err());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_patch_says_what_it_is_and_asks_for_its_own_number() {
    for patch in patches() {
        let (name, text) = (
            name(&patch),
            fs::read_to_string(&patch).expect("it is text"),
        );
        let number: u32 = name[..2].parse().expect("a number in front of the name");
        if number == 0 {
            continue;
        }
        for field in ["Defect: ", "Caught by: ", "Test: "] {
            assert!(
                text.lines().any(|l| l.starts_with(field)),
                "{name} has no `{field}`"
            );
        }
        let added = text
            .lines()
            .filter(|l| l.starts_with('+') && l.contains("planted("));
        let asked: Vec<_> = added.collect();
        assert!(!asked.is_empty(), "{name} is not switched");
        let own = format!("planted({number})");
        assert!(asked.iter().all(|l| l.contains(&own)), "{name}: {asked:?}");
    }
}

/// `scripts/defects --write` writes it.
#[test]
fn the_table_is_about_these_patches() {
    let table = fs::read_to_string(root().join("bench/docs/defects.md")).expect("the table");
    let rows = table.lines().filter_map(|l| l.strip_prefix("| "));
    let mut listed: Vec<_> = rows
        .filter_map(|l| l.split(" | ").next())
        .filter(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .collect();
    listed.sort();
    let wanted: Vec<_> = patches()
        .iter()
        .map(|p| name(p))
        .filter(|n| !n.starts_with("00"))
        .collect();
    assert_eq!(listed, wanted, "stale: `scripts/defects --write`");
    assert!(!table.contains("**nobody**"), "a defect survives");
}
