//! Every packet-level script below `tests/scripts`, by name.
//!
//! `SCRIPT=fastclose cargo test --test packet_scripts` runs those whose path contains the
//! word. See `tests/scripts/README.md` for the format.

use std::collections::VecDeque;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use braid_bench::script::checklist::{Checklist, DOCUMENT, find_scripts};
use braid_bench::script::{run, syntax};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn play(path: &Path, lib: &Path) -> Result<(), String> {
    let script = syntax::load(path, lib)?;
    catch_unwind(AssertUnwindSafe(|| run(&script)))
        .unwrap_or_else(|_| Err(format!("{}: the engine panicked", path.display())))
}

#[test]
fn every_script_passes() {
    let dir = root().join("bench/tests/scripts");
    let lib = dir.join("lib");
    let mut paths = find_scripts(&dir).expect("the scripts are there");
    let filter = std::env::var("SCRIPT").unwrap_or_default();
    paths.retain(|p| p.to_string_lossy().contains(&filter));
    assert!(!paths.is_empty(), "no script matches `{filter}`");
    let count = paths.len();
    let queue = Mutex::new(VecDeque::from(paths));
    let failures = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(path) = queue.lock().expect("no panic here").pop_front() else {
                        return;
                    };
                    let name = path.strip_prefix(&dir).unwrap_or(&path).display();
                    match play(&path, &lib) {
                        Ok(()) => println!("ok      {name}"),
                        Err(e) => {
                            println!("FAILED  {name}");
                            failures.lock().expect("no panic here").push(e);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic there");
    assert!(
        failures.is_empty(),
        "{} of {count} scripts failed:\n\n{}\n",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn every_requirement_is_settled_or_listed() {
    let root = root();
    let faults = Checklist::load(&root).expect("the lists").faults(&root);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_is_fresh() {
    let root = root();
    let wanted = Checklist::load(&root).expect("the lists").render();
    let kept = fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    assert!(
        wanted == kept,
        "{DOCUMENT} is stale: `braid-bench sim-report rfc8684 --write bench/docs`"
    );
}
