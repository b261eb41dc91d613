//! Requirement, test, result: which row of RFC 8684's checklist is proven by what.
//!
//! Below `bench/tests/scripts/rfc8684`:
//!
//! | file | says |
//! |---|---|
//! | `checklist.toml` | the requirements |
//! | `**/*.script` | which rows a script proves, in its header |
//! | `elsewhere.toml` | rows that a unit, simulation or live test proves |
//! | `deviations.toml` | rows that braid does not follow, and why |
//! | `open.toml` | rows that nothing proves yet; the list only shrinks |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::syntax;

/// Directory of the scripts, from the workspace's root.
const SCRIPTS: &str = "bench/tests/scripts";
/// Where the table is kept, from the workspace's root.
pub const DOCUMENT: &str = "bench/docs/rfc8684.md";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    row: Vec<Row>,
}

/// A requirement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: u8,
    section: String,
    level: String,
    requires: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    #[serde(default)]
    test: Vec<Test>,
}

/// A test in Rust that proves rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    rows: Vec<u8>,
    path: PathBuf,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviations {
    #[serde(default)]
    deviation: Vec<Deviation>,
}

/// A row that is not followed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    row: u8,
    reason: String,
    instead: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    rows: BTreeSet<u8>,
}

/// Everything the files say.
#[derive(Debug)]
pub struct Checklist {
    rows: Vec<Row>,
    /// Proofs by row, as Markdown.
    scripts: BTreeMap<u8, Vec<String>>,
    tests: BTreeMap<u8, Vec<Test>>,
    deviations: BTreeMap<u8, Deviation>,
    open: BTreeSet<u8>,
    script_count: usize,
}

fn toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    ::toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Where the table goes.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// Write rfc8684.md to this directory instead of printing it
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Prints or writes the table. Runs in the workspace's root.
///
/// # Errors
/// When a file cannot be read or written.
pub fn report(output: &Output) -> std::io::Result<std::process::ExitCode> {
    let text = Checklist::load(Path::new("."))
        .map_err(std::io::Error::other)?
        .render();
    match &output.write {
        Some(dir) => fs::write(dir.join("rfc8684.md"), text)?,
        None => print!("{text}"),
    }
    Ok(std::process::ExitCode::SUCCESS)
}

/// Every script below a directory, in order.
///
/// # Errors
/// When a directory cannot be read.
pub fn find_scripts(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(wrong)? {
        entries.push(entry.map_err(wrong)?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() {
            found.extend(find_scripts(&path)?);
        } else if path.extension().is_some_and(|e| e == "script") {
            found.push(path);
        }
    }
    Ok(found)
}

impl Checklist {
    /// Reads the files. `root` is the workspace's.
    ///
    /// # Errors
    /// When one is missing or malformed.
    pub fn load(root: &Path) -> Result<Self, String> {
        let dir = root.join(SCRIPTS).join("rfc8684");
        let rows: Rows = toml(&dir.join("checklist.toml"))?;
        let elsewhere: Elsewhere = toml(&dir.join("elsewhere.toml"))?;
        let deviations: Deviations = toml(&dir.join("deviations.toml"))?;
        let open: Open = toml(&dir.join("open.toml"))?;
        let mut scripts: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        let found = find_scripts(&dir)?;
        for path in &found {
            let header = syntax::load(path, &root.join(SCRIPTS).join("lib"))?.header;
            let name = path
                .strip_prefix(&dir)
                .unwrap_or(path)
                .display()
                .to_string();
            if header.rows.is_empty() || header.requires.is_empty() {
                return Err(format!("{name}: `# row:` or `# requires:` is missing"));
            }
            for row in header.rows {
                scripts.entry(row).or_default().push(name.clone());
            }
        }
        let mut tests: BTreeMap<u8, Vec<Test>> = BTreeMap::new();
        for test in elsewhere.test {
            for row in &test.rows {
                tests.entry(*row).or_default().push(test.clone());
            }
        }
        Ok(Self {
            rows: rows.row,
            scripts,
            tests,
            deviations: deviations
                .deviation
                .into_iter()
                .map(|d| (d.row, d))
                .collect(),
            open: open.rows,
            script_count: found.len(),
        })
    }

    fn proven(&self, row: u8) -> bool {
        self.scripts.contains_key(&row) || self.tests.contains_key(&row)
    }

    /// What is wrong with the files: rows without proof, proofs of no row, tests that do
    /// not exist.
    #[must_use]
    pub fn faults(&self, root: &Path) -> Vec<String> {
        let mut faults = Vec::new();
        let ids: BTreeSet<u8> = self.rows.iter().map(|r| r.id).collect();
        for id in &ids {
            let settled = self.proven(*id) || self.deviations.contains_key(id);
            match (settled, self.open.contains(id)) {
                (false, false) => faults.push(format!("row {id}: nothing proves it")),
                (true, true) => faults.push(format!("row {id}: settled, strike it from open.toml")),
                _ => {}
            }
        }
        let named = self.scripts.keys().chain(self.tests.keys());
        for row in named.chain(self.deviations.keys()).chain(&self.open) {
            if !ids.contains(row) {
                faults.push(format!("row {row}: there is no such row"));
            }
        }
        for test in self.tests.values().flatten() {
            let source = fs::read_to_string(root.join(&test.path)).unwrap_or_default();
            if !source.contains(&format!("fn {}(", test.name)) {
                faults.push(format!(
                    "no test `{}` in {}",
                    test.name,
                    test.path.display()
                ));
            }
        }
        faults
    }

    /// The table.
    #[must_use]
    pub fn render(&self) -> String {
        let followed = |r: &&Row| self.proven(r.id) && !self.deviations.contains_key(&r.id);
        let mut out = String::from(
            "# RFC 8684, requirement by requirement\n\n\
             Written by `braid-bench sim-report rfc8684 --write bench/docs` from the headers of the\n\
             scripts in `bench/tests/scripts/rfc8684` and the lists beside them. `cargo test --test\n\
             packet_scripts` runs every script and fails when this table is stale.\n\n",
        );
        let _ = writeln!(
            out,
            "{} requirements: {} proven ({} scripts), {} deviations, {} open.\n",
            self.rows.len(),
            self.rows.iter().filter(followed).count(),
            self.script_count,
            self.deviations.len(),
            self.open.len(),
        );
        out.push_str("| row | section | level | requirement | proof | result |\n");
        out.push_str("|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let mut proofs: Vec<String> = Vec::new();
            for script in self.scripts.get(&row.id).into_iter().flatten() {
                proofs.push(format!("`{script}`"));
            }
            for test in self.tests.get(&row.id).into_iter().flatten() {
                proofs.push(format!("`{}::{}`", test.path.display(), test.name));
            }
            let result = match (self.deviations.get(&row.id), self.proven(row.id)) {
                (Some(_), _) => format!("[deviation](#row-{})", row.id),
                (None, true) => "pass".to_owned(),
                (None, false) => "open".to_owned(),
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {result} |",
                row.id,
                row.section,
                row.level,
                row.requires.replace('|', "\\|"),
                proofs.join("<br>"),
            );
        }
        out.push_str("\n## Deviations\n");
        for d in self.deviations.values() {
            let _ = write!(
                out,
                "\n### Row {}\n\n{}\n\nInstead: {}\n",
                d.row, d.reason, d.instead
            );
        }
        out
    }
}
