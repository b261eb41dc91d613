//! Hostile peers: one engine under attack, packet by packet, beside one honest connection.
//!
//! Each attack is a function that sends packets. While it runs, an honest client writes on;
//! its stream has to arrive byte by byte, and at the end nothing may be left: no connection, no
//! frame. Memory is held against a limit per attack, both frames and heap; a counter has to
//! say what happened. What one core absorbs is measured, and only reported.

mod arena;
mod attacks;
pub mod heap;

use std::fmt::Write as _;

use braid_dataplane::counters::Counter;

use self::arena::Arena;
pub use self::arena::Measured;
pub use self::attacks::ATTACKS;

/// One attack and what bounds it.
pub struct Attack {
    /// What it is.
    pub name: &'static str,
    /// What bounds it, in words: names of limits.
    pub bound: &'static str,
    /// Frames that may be pinned at any time.
    pub frames_max: u32,
    /// KiB of heap that may be in use beyond those before the attack.
    pub heap_kib_max: u64,
    /// Counters that rise.
    pub counters: &'static [Counter],
    run: fn(&mut Arena),
}

impl std::fmt::Debug for Attack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attack")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Attack {
    /// Runs it.
    ///
    /// # Panics
    /// If the honest connection suffers, or something is left over.
    #[must_use]
    pub fn measure(&self) -> Measured {
        let mut arena = Arena::new();
        (self.run)(&mut arena);
        arena.finish()
    }

    /// The columns that do not depend on the machine.
    #[must_use]
    pub fn row(&self) -> String {
        let counters: Vec<String> = self
            .counters
            .iter()
            .map(|c| format!("`{}`", c.as_str()))
            .collect();
        format!(
            "| {} | {} | {} | {} | {} |",
            self.name,
            self.bound,
            counters.join(", "),
            self.frames_max,
            self.heap_kib_max
        )
    }
}

/// The document; the measured columns are of this machine.
#[must_use]
pub fn report() -> String {
    let mut out = String::from(HEAD);
    for attack in ATTACKS {
        let m = attack.measure();
        let seconds = m.cpu.as_secs_f64().max(1e-9);
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{} {} | {} | {} | {:.0} |",
            attack.row(),
            m.frames_max,
            m.heap_max / 1024,
            m.packets,
            m.packets as f64 / seconds / 1000.0,
        );
    }
    out
}

const HEAD: &str = "\
# Hostile peers

Made by `braid-bench sim-report hostile --write bench/docs`; a test fails when an attack, its
bound, its counters or its limits are not those of the code. The measured columns are of one run
on one core of a shared virtual machine, built with the `live` profile (assertions on); they are
not compared.

One engine on a memory port is attacked packet by packet; beside it an honest connection carries
32 Mb/s and has to end with every byte right. 4096 frames, 512 per connection, receive and send
buffer 727,040 bytes, 64 attacker packets a millisecond. At the end every connection and every
frame is gone.

- *Frames*, *heap*: limit that the test asserts, and the most that was in use (KiB; the honest
  connection's share included).
- *Counters*: those that say what happened; each has to rise.
- *kp/s*: thousands of attack packets that one core absorbs, by its CPU time, checksums, answers
  and the poll of the connection after every packet included.

| attack | bound | counters | frames limit | heap limit | frames | heap | packets | kp/s |
|---|---|---|---:|---:|---:|---:|---:|---:|
";
