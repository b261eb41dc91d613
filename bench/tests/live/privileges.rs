//! What the dataplane may still do once its sockets exist: nothing privileged.

use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, Result, Testbed};

use crate::support::braid_turn;

#[test]
fn no_thread_of_the_dataplane_has_a_capability_or_the_whole_kernel() -> Result<()> {
    let Some(_turn) = braid_turn("privileges", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    let tasks = format!("/proc/{}/task", braidd.dataplane_pid()?);
    let mut threads = 0;
    for task in std::fs::read_dir(&tasks).expect("a living process") {
        let status = task.expect("a living thread").path().join("status");
        let status = std::fs::read_to_string(status).expect("a living thread");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1))
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), Some("0000000000000000"), "{set} in {status}");
        }
        assert_eq!(field("NoNewPrivs:"), Some("1"), "{status}");
        // 2: by a filter.
        assert_eq!(field("Seccomp:"), Some("2"), "{status}");
        threads += 1;
    }
    assert!(threads >= 2, "the control thread and a worker");
    Ok(())
}
