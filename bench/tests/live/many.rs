//! Many connections: at once, then one after another.

use std::time::Duration;

use braid_bench::peer::many::ManyReport;
use braid_bench::testbed::daemon::resident_kib;
use braid_bench::testbed::{Config, Options, Result, Testbed};

use crate::support::{Subject, client, testbed, turn};

/// Memory may have grown so much from a tenth of the way to the end.
const GROWTH_MAX: f64 = 1.01;
/// Of a flow in TIME-WAIT, bounded by their number (16,384 of a worker): its state and its place
/// in the flow table.
const TIME_WAIT_BYTES: u64 = 256;

fn run(testbed: &Testbed, args: &[&str]) -> Result<ManyReport> {
    let report: ManyReport = client(testbed, args)?.json(Duration::from_secs(300))?;
    eprintln!("{args:?}: {report:?}");
    assert_eq!(report.intact, report.connections, "{report:?}");
    assert_eq!(report.mptcp, report.connections, "{report:?}");
    Ok(report)
}

#[test]
fn none_is_lost_and_no_frame_leaks() -> Result<()> {
    let Some(_turn) = turn("200 at once, 10000 in a row", &[]) else {
        return Ok(());
    };
    let testbed = testbed(Options::default())?;
    let config = Config::announcing(&testbed).service("echo", "10.77.1.2:7");
    let subject = Subject::start(&testbed, &config)?;
    let idle = subject.braid().map(|braidd| braidd.frames()).transpose()?;
    let settled = || -> Result<()> {
        if let (Some(braidd), Some(idle)) = (subject.braid(), idle) {
            let frames = braidd.settle(idle.ours, Duration::from_secs(20))?;
            assert_eq!((frames.leaked, frames.foreign), (0, 0), "{frames:?}");
            assert_eq!(frames.idle, idle.idle, "{frames:?} {idle:?}");
        }
        Ok(())
    };
    // Without what flows in TIME-WAIT take, of which there are more the more connections there
    // were within a minute.
    let resident = || -> Result<u64> {
        match subject.braid() {
            Some(braidd) => {
                let time_wait = braidd.time_wait()? * TIME_WAIT_BYTES / 1024;
                Ok(resident_kib(braidd.dataplane_pid()?)? - time_wait)
            }
            None => Ok(0),
        }
    };

    let to = ["--to", "10.77.1.2:7"];
    let storm = run(&testbed, &["storm", to[0], to[1], "--connections", "200"])?;
    assert_eq!(storm.connections, 200);
    settled()?;

    run(&testbed, &["sequential", to[0], to[1], "--count", "1000"])?;
    settled()?;
    let early_kib = resident()?;
    run(&testbed, &["sequential", to[0], to[1], "--count", "9000"])?;
    settled()?;
    let late_kib = resident()?;
    eprintln!("resident: {early_kib} KiB after 1000, {late_kib} KiB after 10000");
    assert!(
        late_kib as f64 <= early_kib as f64 * GROWTH_MAX,
        "{early_kib} → {late_kib} KiB"
    );
    Ok(())
}
