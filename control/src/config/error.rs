//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A refused configuration: file, line, key, cause and what would be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; 0 when it concerns the file as a whole.
    pub line: usize,
    /// Key with its table, e.g. `interface.mode`; empty for syntax errors.
    pub key: String,
    /// Cause, and what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    text.as_bytes()[..end]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// Rewrites a TOML or serde error into ours.
pub(super) fn from_toml(file: &Path, text: &str, mut error: toml::de::Error) -> ConfigError {
    // A string that is not closed ends where the file does; point at the start.
    let span: Range<usize> = error.span().unwrap_or(0..0);
    // Without its input the error prints the path of keys instead of the excerpt.
    error.set_input(None);
    let rendered = error.to_string();
    let mut key = rendered
        .lines()
        .find_map(|l| l.strip_prefix("in `")?.strip_suffix('`'))
        .unwrap_or_default()
        .to_owned();
    let message = match unknown_field(error.message()) {
        Some((field, allowed)) => {
            if key.rsplit('.').next() != Some(field) {
                key = if key.is_empty() {
                    field.to_owned()
                } else {
                    format!("{key}.{field}")
                };
            }
            format!("unknown key; allowed: {allowed}")
        }
        None => match backquoted(error.message(), "missing field `") {
            Some(field) => {
                key = if key.is_empty() {
                    field.to_owned()
                } else {
                    format!("{key}.{field}")
                };
                "missing; this key has no default".to_owned()
            }
            None => error
                .message()
                .replace("expected i64", "expected an integer")
                .replace("expected a sequence", "expected a list")
                .replace("expected a boolean", "expected true or false"),
        },
    };
    ConfigError {
        file: file.to_owned(),
        line: line_of(text, span.start),
        key,
        message,
    }
}

/// Takes serde's "unknown field `x`, expected one of `a`, `b`" apart.
fn unknown_field(message: &str) -> Option<(&str, String)> {
    let field = backquoted(message, "unknown field `")?;
    let list = message
        .split_once("expected ")?
        .1
        .trim_start_matches("one of ");
    Some((field, list.replace('`', "")))
}

fn backquoted<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.split('`').next()
}
