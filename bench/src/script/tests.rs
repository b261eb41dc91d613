//! Scripts that must fail do, and say why: an interpreter that lets everything pass would
//! prove nothing.

use std::path::Path;

use super::{run, syntax};

fn play(text: &str) -> Result<(), String> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/lib");
    syntax::parse(Path::new("inline"), text, &lib).and_then(|script| run(&script))
}

/// Plays `text` after a handshake and returns the complaint.
fn complaint(text: &str) -> String {
    play(&format!("include server\n{text}")).expect_err(text)
}

#[test]
fn what_is_right_passes() {
    play("include server\nwrite 10\n> p0 P. seq=1 len=10 <dss ack=1 dsn=1 ssn=1 len=10>").unwrap();
}

#[test]
fn a_different_packet_is_reported_with_the_last_ones() {
    for (line, why) in [
        ("> p0 F. len=10", "flags"),
        ("> p0 P. seq=2 len=10", "`seq` is 1"),
        ("> p0 P. len=11", "`len` is 10"),
        ("> p0 P.", "payload"),
        ("> p0 P. len=10 <>", "it has an option `dss"),
        ("> p0 P. len=10 <dss ack=1>", "no option `dss ack=1`"),
        ("> p0 P. len=10 <dss ack=1 dsn=2 ssn=1 len=10>", "no option"),
        (
            "> p0 P. len=10 <dss ack=1 dsn=1 ssn=1 len=10, prio b>",
            "no option `prio b`",
        ),
        ("> p0 P. len=10 within=5ms..9ms", "it came after"),
        (">> p0 R.", "no such packet"),
        ("> p1 *", "no packet"),
        ("quiet 1ms", "not quiet"),
        ("never 1ms p0 P. len=10", "it came"),
    ] {
        let error = complaint(&format!("write 10\n{line}"));
        assert!(error.contains(why), "{line}: {error}");
        assert!(error.starts_with("inline:3:"), "{error}");
        assert!(
            error.contains("last packets") && error.contains("dss ack=1 dsn=1"),
            "{error}"
        );
    }
}

#[test]
fn wrong_views_are_reported() {
    for (line, why) in [
        ("delivered 1", "expected 1, got 0"),
        ("taken 1", "expected 1, got 0"),
        ("eof", "expected true, got false"),
        ("closed finished", "got null"),
        ("counter MPFailRx 1", "expected 1, got 0"),
        ("counter Nonsense 1", "no counter"),
        ("event announced", "no such event"),
        ("noevent created", "it happened"),
        ("conn mptcp=false", "got true"),
        ("conn nonsense=1", "there is no `nonsense`"),
        ("conn gone", "lives"),
        ("sub p0 gone", "lives"),
        ("sub p1 state=established", "no subflow"),
        ("nonsense", "no command"),
        ("join p0", "exists"),
        ("< p0 . <dss akc=1>", "no field `akc`"),
        ("< p0 . size=1", "no field `size`"),
    ] {
        let error = complaint(line);
        assert!(error.contains(why), "{line}: {error}");
    }
}

#[test]
fn wrong_bytes_reach_nobody_unseen() {
    let error = complaint("< p0 . len=100 at=7 <dss ack=1 dsn=1 ssn=1 len=100>");
    assert!(error.contains("wrong byte at 0"), "{error}");
}

#[test]
fn a_script_that_does_nothing_is_no_proof() {
    assert!(play("# row: 1\n").unwrap_err().contains("does nothing"));
}
