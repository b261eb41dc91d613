//! Ctrl-C and kill(1) leave no namespace behind.
//!
//! A command that builds testbeds calls [`clean_up_on_signals`] first: destructors do not run
//! in a process that a signal ends. The signals are caught and not blocked: a blocked signal
//! stays blocked in every program that is started (Rust's standard library passes the mask
//! on), which could not be ended by SIGTERM then.

use std::io;
use std::thread;

use nix::sys::signal::Signal;
use signal_hook::iterator::Signals;

use super::topology::remove_all;

/// What asks a command to end.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// From here on, a signal that asks for the end removes every testbed of this process, with
/// what runs inside, and ends the process with the status that shells expect: 128 and the
/// signal's number.
pub fn clean_up_on_signals() -> io::Result<()> {
    let mut signals = Signals::new(SIGNALS.map(|signal| signal as i32))?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                let name = Signal::try_from(signal).map_or("signal", Signal::as_str);
                eprintln!("{name}: removing what was built");
                remove_all();
                std::process::exit(128 + signal);
            }
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn programs_that_are_started_can_be_ended() {
        clean_up_on_signals().unwrap();
        let out = Command::new("grep")
            .args(["SigBlk:", "/proc/self/status"])
            .output()
            .unwrap();
        let mask = String::from_utf8(out.stdout).unwrap();
        let mask = mask.trim_start_matches("SigBlk:").trim();
        let blocked = u64::from_str_radix(mask, 16).unwrap();
        for signal in SIGNALS {
            assert_eq!(blocked >> (signal as i32 - 1) & 1, 0, "{signal} is blocked");
        }
    }
}
