//! libbpf's log. libbpf writes to stderr through one process-wide callback; we
//! keep what it says while it works for us and attach it to the error, if there
//! is one, instead of letting it write over the operator's terminal.

use std::sync::{Mutex, MutexGuard, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// A rejected program brings the verifier's whole log along; what was wrong
/// stands at its end.
const LOG_BYTES_MAX: usize = 16 * 1024;

static LOG: Mutex<String> = Mutex::new(String::new());
/// Held while a callback of ours is installed: captures do not mix.
static CAPTURE: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A String and a unit are whole whatever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(_level: PrintLevel, message: String) {
    let mut log = lock(&LOG);
    log.push_str(&message);
    if log.len() > LOG_BYTES_MAX {
        let mut cut = log.len() - LOG_BYTES_MAX;
        while !log.is_char_boundary(cut) {
            cut += 1;
        }
        log.drain(..cut);
    }
}

/// Runs `work` and returns with its result what libbpf had to say meanwhile.
pub(crate) fn capture<T>(work: impl FnOnce() -> T) -> (T, String) {
    let _one_at_a_time = lock(&CAPTURE);
    lock(&LOG).clear();
    let before = set_print(Some((PrintLevel::Info, collect)));
    let result = work();
    set_print(before);
    (result, std::mem::take(&mut lock(&LOG)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_of_a_long_log_and_starts_afresh() {
        let ((), log) = capture(|| {
            for line in 0..10_000 {
                collect(PrintLevel::Warn, format!("línea {line}\n"));
            }
        });
        assert!(log.len() <= LOG_BYTES_MAX);
        assert!(log.ends_with("línea 9999\n"));
        let ((), log) = capture(|| collect(PrintLevel::Warn, "only".into()));
        assert_eq!(log, "only");
    }
}
