//! Ctrl-C and kill(1) leave no namespace behind.
//!
//! A command that builds testbeds calls [`clean_up_on_signals`] first. The signals are
//! blocked in every thread that is started later, and one thread waits for them: destructors
//! do not run in a process that a signal ends. Commands that are started get an empty signal
//! mask from the standard library.

use std::convert::Infallible;
use std::io;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use super::topology::remove_all;

/// What asks a command to end.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// From here on, a signal that asks for the end removes every testbed of this process, with
/// what runs inside, and ends the process with the status that shells expect: 128 and the
/// signal's number. For the main thread, before it starts others.
pub fn clean_up_on_signals() -> io::Result<()> {
    let signals: SigSet = SIGNALS.into_iter().collect();
    signals.thread_block()?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || wait(&signals))?;
    Ok(())
}

fn wait(signals: &SigSet) -> Infallible {
    let signal = loop {
        if let Ok(signal) = signals.wait() {
            break signal;
        }
    };
    eprintln!("{signal}: removing what was built");
    remove_all();
    std::process::exit(128 + signal as i32);
}
