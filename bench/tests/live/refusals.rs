//! What keeps braidd from starting: one message with the cause and what mends it, and
//! nothing left attached.

use std::path::PathBuf;

use braid_bench::failure;
use braid_bench::testbed::requirement::programs;
use braid_bench::testbed::{Braidd, Config, Options, Result, Role, Testbed};

use crate::support::{braid_turn, client};
use braid_bench::peer::client::Report;
use std::time::Duration;

/// Runs a braidd that must refuse; its status and what it wrote.
fn refused(testbed: &Testbed, config: &Config) -> Result<(Option<i32>, String)> {
    let socket = testbed.directory().join("other.sock");
    let file: PathBuf = testbed.directory().join("other.toml");
    std::fs::write(&file, config.to_toml(&socket))?;
    let braidd = programs().join("braidd");
    let argv = [
        "timeout",
        "10",
        &*braidd.to_string_lossy(),
        "--config",
        &*file.to_string_lossy(),
    ];
    let output = testbed.command(Role::Braid, &argv).output();
    let output = output.map_err(|e| failure!("braidd: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), text))
}

/// XDP programs on the testbed's first interface.
fn attached(testbed: &Testbed) -> Result<bool> {
    let link = testbed.run(Role::Braid, &["ip", "-d", "link", "show", "dev", "vb1"])?;
    Ok(link.contains("prog/xdp"))
}

#[test]
fn a_refused_start_leaves_nothing_attached() -> Result<()> {
    let Some(_turn) = braid_turn("refusals", &[]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options::default())?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");

    // The kernel has the port.
    let program = programs().join("braid-bench");
    let server = testbed.server(Role::Braid, &program, &["--listen", "10.77.1.2:7", "--tcp"])?;
    let (status, text) = refused(&testbed, &config)?;
    assert_eq!(status, Some(1), "{text}");
    assert!(
        text.contains("10.77.1.2:7") && text.contains("is in use by braid-bench"),
        "{text}"
    );
    assert!(!attached(&testbed)?);
    drop(server);

    // Somebody else's program: here that of another braidd, which goes on serving.
    let other = Config::announcing(&testbed).service("echo", "10.77.1.2:8");
    let first = Braidd::start(&testbed, &programs(), &config)?;
    let (status, text) = refused(&testbed, &other)?;
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("another XDP program"), "{text}");
    let args = ["echo-client", "--to", "10.77.1.2:7", "--bytes", "1000000"];
    let report: Report = client(&testbed, &args)?.json(Duration::from_secs(20))?;
    assert!(report.intact, "{report:?}");
    drop(first);
    Ok(())
}
