//! `window-option = true` towards a kernel that has never heard of it.

use braid_bench::testbed::{Config, Options, Result};

use crate::support::{Subject, braid_turn, testbed, transfer};

#[test]
fn a_kernel_ignores_the_window_option() -> Result<()> {
    let Some(_turn) = braid_turn("window option", &[]) else {
        return Ok(());
    };
    let testbed = testbed(Options::default())?;
    let mut config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    config.more = "\n[mptcp]\nwindow-option = true\n".to_owned();
    let subject = Subject::start(&testbed, &config)?;
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--bytes",
        "67108864",
        "--window",
        "1048576",
    ];
    transfer(&testbed, &args)?.intact_mptcp().on_every_path();
    if let Some(braidd) = subject.braid() {
        let counters = braidd.counters()?;
        assert!(counters.contains_key("WindowOptionTx"), "{counters:?}");
        assert_eq!(counters.get("WindowOptionRx"), None, "{counters:?}");
        assert_eq!(counters.get("BytesDelivered"), Some(&67_108_864));
    }
    Ok(())
}
