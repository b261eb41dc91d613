//! Attacks on one engine: bounded memory, a counter each, and an honest connection beside it
//! that does not notice.

use braid_bench::hostile::heap::Counting;
use braid_bench::hostile::{ATTACKS, Attack};

#[global_allocator]
static HEAP: Counting = Counting;

fn check(attack: &Attack) -> Result<(), String> {
    let m = attack.measure();
    println!(
        "{}: {} packets, {:.0} kp/s, {} frames, {} KiB",
        attack.name,
        m.packets,
        m.packets as f64 / m.cpu.as_secs_f64() / 1000.0,
        m.frames_max,
        m.heap_max / 1024
    );
    if m.packets < 200 || m.honest_bytes == 0 {
        return Err(format!("{}: hardly an attack", attack.name));
    }
    if m.frames_max > attack.frames_max {
        return Err(format!("{}: {} frames", attack.name, m.frames_max));
    }
    if m.heap_max > attack.heap_kib_max << 10 {
        return Err(format!("{}: {} KiB", attack.name, m.heap_max >> 10));
    }
    match attack.counters.iter().find(|c| m.counters.get(**c) == 0) {
        Some(counter) => Err(format!(
            "{}: {counter:?} is zero among {:?}",
            attack.name, m.counters
        )),
        None => Ok(()),
    }
}

/// `ATTACK=join cargo test --test hostile` runs those whose name contains the word.
#[test]
fn every_attack_is_bounded_counted_and_harmless_to_others() {
    let only = std::env::var("ATTACK").unwrap_or_default();
    let mut failures = Vec::new();
    for attack in ATTACKS.iter().filter(|a| a.name.contains(&only)) {
        let outcome = std::panic::catch_unwind(|| check(attack));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failures.push(why),
            Err(_) => failures.push(format!("{}: panicked", attack.name)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_table_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/hostile.md");
    let text = std::fs::read_to_string(path).expect("the table exists");
    let rows: Vec<&str> = text
        .lines()
        .filter(|l| l.starts_with("| "))
        .skip(1)
        .collect();
    assert_eq!(rows.len(), ATTACKS.len(), "{path} is stale");
    for (row, attack) in rows.iter().zip(ATTACKS) {
        assert!(
            row.starts_with(&attack.row()),
            "{path} is stale: `braid-bench sim-report hostile --write bench/docs`\n{row}"
        );
    }
}
