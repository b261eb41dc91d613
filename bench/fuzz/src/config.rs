//! braidd's configuration file: whatever it says, it is either accepted or refused with a reason
//! and a line that it has.

use std::path::Path;

use braid_control::config::Config;

/// One run.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = Config::parse(Path::new("braid.toml"), text) {
        // Line 0 is the file as a whole.
        let lines = text.lines().count() + 1;
        assert!(
            error.line <= lines,
            "no line of the file's {lines}: {error}"
        );
        assert!(!error.message.is_empty(), "refused without a reason");
    }
}
