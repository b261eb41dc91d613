//! The tests' own test: the same clients and bars, kernel against kernel, and against
//! servers and paths that are broken on purpose.

use std::time::Duration;

use braid_bench::failure;
use braid_bench::peer::client::Report;
use braid_bench::testbed::requirement::Requirement;
use braid_bench::testbed::{Options, Result, Role, Testbed};

use crate::support::{TRANSFER_TIMEOUT, bench_program, client, kernel_turn, transfer, wait_until};

fn kernel_testbed(options: Options) -> Result<Testbed> {
    Testbed::new(Options {
        announce: Some(Role::Braid),
        ..options
    })
}

const ECHO: [&str; 7] = [
    "echo-client",
    "--to",
    "10.77.1.2:7",
    "--bytes",
    "67108864",
    "--window",
    "1048576",
];

#[test]
fn kernel_to_kernel_meets_the_bars_of_the_echo_test() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::kernel_to_kernel", &[]) else {
        return Ok(());
    };
    let testbed = kernel_testbed(Options::default())?;
    let _server = testbed.server(Role::Braid, &bench_program(), &["--listen", "[::]:7"])?;
    // 64 MiB can be over before the second path is there: 22 ms were seen.
    let mut long = ECHO;
    long[4] = "1073741824";
    transfer(&testbed, &long)?.intact_mptcp().on_every_path();
    let counters = testbed.counters(Role::Braid)?;
    assert_eq!(counters["MPTcpExtMPCapableSYNRX"], 1);
    assert_eq!(counters["MPTcpExtMPJoinAckRx"], 1);
    Ok(())
}

#[test]
fn one_wrong_byte_is_noticed() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::one_wrong_byte", &[]) else {
        return Ok(());
    };
    let testbed = kernel_testbed(Options::default())?;
    let args = ["--listen", "[::]:7", "--corrupt-at", "50000000"];
    let _server = testbed.server(Role::Braid, &bench_program(), &args)?;
    let compared = transfer(&testbed, &ECHO)?.report;
    assert!(!compared.intact);
    assert_eq!(compared.mismatch_at, Some(50_000_000));
    let mut hashing = ECHO.to_vec();
    hashing.push("--sha256");
    let hashed = transfer(&testbed, &hashing)?.report;
    assert!(!hashed.intact);
    assert_ne!(hashed.sha256_sent, hashed.sha256_received);
    Ok(())
}

#[test]
fn an_idle_path_is_noticed() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::an_idle_path", &[]) else {
        return Ok(());
    };
    // Nobody announces the second path.
    let testbed = Testbed::new(Options::default())?;
    let _server = testbed.server(Role::Braid, &bench_program(), &["--listen", "[::]:7"])?;
    let transfer = transfer(&testbed, &ECHO)?;
    transfer.intact_mptcp();
    assert!(transfer.paths[1].least() < 0.01, "{transfer:?}");
    Ok(())
}

#[test]
fn a_blackhole_is_silent_and_its_gap_is_measured() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::a_blackhole", &[]) else {
        return Ok(());
    };
    let testbed = kernel_testbed(Options {
        paths: 1,
        hop: true,
        ..Options::default()
    })?;
    let _server = testbed.server(Role::Braid, &bench_program(), &["--listen", "[::]:7"])?;
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--seconds",
        "5",
        "--window",
        "1048576",
    ];
    let mut client = client(&testbed, &args)?;
    std::thread::sleep(Duration::from_secs(1));
    testbed.blackhole(1, true)?;
    std::thread::sleep(Duration::from_millis(1200));
    let link = testbed.run(Role::Peer, &["cat", "/sys/class/net/vp1/carrier"])?;
    assert_eq!(link.trim(), "1", "the link itself must look well");
    testbed.blackhole(1, false)?;
    let report: Report = client.json(TRANSFER_TIMEOUT)?;
    assert!(report.intact, "{report:?}");
    assert!(report.gap.longest_ms >= 1100.0, "{report:?}");
    assert!(report.gap.longest_ms <= 4000.0, "{report:?}");
    Ok(())
}

#[test]
fn stripped_options_make_the_kernel_fall_back() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::stripped_options", &[Requirement::OptionStripping])
    else {
        return Ok(());
    };
    let testbed = kernel_testbed(Options {
        hop: true,
        ..Options::default()
    })?;
    let _server = testbed.server(Role::Braid, &bench_program(), &["--listen", "[::]:7"])?;
    let filter = ["--tcp-flags", "SYN", "SYN"];
    testbed.strip_mptcp(&filter, true)?;
    let stripped = transfer(&testbed, &ECHO)?;
    stripped.intact();
    assert!(!stripped.report.transport.mptcp, "{stripped:?}");
    testbed.strip_mptcp(&filter, false)?;
    transfer(&testbed, &ECHO)?.intact_mptcp().on_every_path();
    Ok(())
}

#[test]
fn transmit_queues_are_chosen_by_path() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::transmit_queues", &[]) else {
        return Ok(());
    };
    let testbed = kernel_testbed(Options {
        queues: 2,
        offloads: false,
        ..Options::default()
    })?;
    testbed.transmit_queue(1, 0)?;
    testbed.transmit_queue(2, 1)?;
    for path in [1, 2] {
        // A veth counts per queue only where NAPI receives: GRO makes it.
        let interface = Testbed::interface(Role::Braid, path);
        testbed.run(Role::Braid, &["ethtool", "-K", &interface, "gro", "on"])?;
    }
    let _server = testbed.server(Role::Braid, &bench_program(), &["--listen", "[::]:7"])?;
    transfer(&testbed, &ECHO)?.intact_mptcp().on_every_path();
    for (path, busy, idle) in [(1, 0, 1), (2, 1, 0)] {
        let interface = Testbed::interface(Role::Braid, path);
        let text = testbed.run(Role::Braid, &["ethtool", "-S", &interface])?;
        let packets = |queue: u8| {
            let name = format!("rx_queue_{queue}_xdp_packets:");
            let line = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(&*name));
            line.and_then(|count| count.trim().parse::<u64>().ok())
        };
        assert!(packets(busy) > Some(1000), "{interface}:\n{text}");
        assert_eq!(packets(idle), Some(0), "{interface}:\n{text}");
    }
    Ok(())
}

#[test]
fn a_testbed_leaves_nothing_behind() -> Result<()> {
    let Some(_turn) = kernel_turn("harness::a_testbed_leaves_nothing", &[]) else {
        return Ok(());
    };
    let testbed = kernel_testbed(Options::default())?;
    let (peer, directory) = (
        testbed.namespace(Role::Peer),
        testbed.directory().to_owned(),
    );
    let sleeper = testbed.start(Role::Peer, "sleep", &["sleep", "300"])?;
    let pid = sleeper.pid();
    // Lost by its owner, so only the namespace knows of it.
    std::mem::forget(sleeper);
    drop(testbed);
    let listed = std::process::Command::new("ip")
        .args(["netns", "list"])
        .output()
        .map_err(|e| failure!("ip netns list: {e}"))?;
    assert!(!String::from_utf8_lossy(&listed.stdout).contains(&peer));
    assert!(!directory.exists());
    wait_until(
        "the process in the namespace ends",
        Duration::from_secs(5),
        || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            Ok(state.is_empty() || state.contains(") Z "))
        },
    )?;
    Ok(())
}
