//! Two workers: a join that arrives on the other worker's queue.

use braid_bench::testbed::requirement::{Requirement, programs};
use braid_bench::testbed::{Braidd, Config, Options, Result, Testbed};

use crate::support::{braid_turn, client, transfer};
use braid_bench::peer::many::ManyReport;
use std::time::Duration;

#[test]
fn joins_on_the_other_queue_reach_the_owner() -> Result<()> {
    let Some(_turn) = braid_turn("two workers", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options {
        queues: 2,
        ..Options::default()
    })?;
    // First subflows arrive on queue 0, joins on queue 1.
    testbed.transmit_queue(1, 0)?;
    testbed.transmit_queue(2, 1)?;
    // Generic XDP sees everything of a veth on queue 0.
    let config = Config {
        cores: vec![0, 1],
        mode: Some("native".into()),
        ..Config::announcing(&testbed).service("echo", "10.77.1.2:7")
    };
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    let args = [
        "echo-client",
        "--to",
        "10.77.1.2:7",
        "--bytes",
        "134217728",
        "--window",
        "1048576",
    ];
    transfer(&testbed, &args)?.intact_mptcp().on_every_path();

    let counters = braidd.counters()?;
    let of = |name: &str| counters.get(name).copied().unwrap_or(0);
    assert!(of("MPJoinHandOff") > 0, "{counters:?}");
    assert!(
        of("HandOffRx") > of("MPJoinHandOff"),
        "data as well: {counters:?}"
    );
    assert_eq!(of("HandOffFull"), 0, "{counters:?}");
    let ports = braidd.ports()?;
    let received: Vec<_> = ports.iter().filter(|port| port.rx_packets > 100).collect();
    assert!(received.iter().any(|port| port.worker == 0), "{ports:?}");
    assert!(received.iter().any(|port| port.worker == 1), "{ports:?}");
    // Whoever owns the connection sends everything, on every interface.
    let mut senders: Vec<_> = ports
        .iter()
        .filter(|port| port.tx_packets > 0)
        .map(|port| port.worker)
        .collect();
    senders.dedup();
    assert_eq!(senders.len(), 1, "{ports:?}");
    assert_eq!(braidd.frames()?.leaked, 0);

    // A veth takes no rules; then braid says why, and nothing depended on one.
    let status = braidd.ask(&["status"])?;
    let ntuple: Vec<_> = status["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|interface| &interface["ntuple"])
        .collect();
    assert_eq!(ntuple.len(), 2, "{status}");
    for of in &ntuple {
        let reason = of["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("(veth) has no flow rules"), "{status}");
        assert_eq!((&of["rules"], &of["table"]), (&0.into(), &0.into()));
        assert_eq!((&of["refused"], &of["dropped"]), (&0.into(), &0.into()));
    }
    let skipped = ntuple.iter().filter_map(|of| of["skipped"].as_u64());
    assert!(skipped.sum::<u64>() > 0, "a join without: {status}");

    // Many at once, so that both workers own some.
    let storm = ["storm", "--to", "10.77.1.2:7", "--connections", "50"];
    let report: ManyReport = client(&testbed, &storm)?.json(Duration::from_secs(60))?;
    assert_eq!((report.intact, report.mptcp), (50, 50), "{report:?}");
    Ok(())
}

#[test]
fn superframes_all_come_to_one_worker() -> Result<()> {
    let Some(_turn) = braid_turn("two workers, superframes", &[Requirement::TwoCores]) else {
        return Ok(());
    };
    let testbed = Testbed::new(Options {
        queues: 2,
        ..Options::default()
    })?;
    let config = Config {
        cores: vec![0, 1],
        mode: Some("superframe".into()),
        ..Config::announcing(&testbed).service("echo", "10.77.1.2:7")
    };
    let braidd = Braidd::start(&testbed, &programs(), &config)?;
    let storm = [
        "storm",
        "--to",
        "10.77.1.2:7",
        "--connections",
        "16",
        "--bytes",
        "4194304",
    ];
    let report: ManyReport = client(&testbed, &storm)?.json(Duration::from_secs(60))?;
    assert_eq!((report.intact, report.mptcp), (16, 16), "{report:?}");
    let bytes = braidd.counters()?["BytesDelivered"];
    let ports = braidd.ports()?;
    let packets: u64 = ports.iter().map(|port| port.rx_packets).sum();
    // Generic XDP sees everything of a veth on queue 0; braidd says so when it starts.
    assert!(
        ports.iter().all(|p| p.queue == 0 || p.rx_packets == 0),
        "{ports:?}"
    );
    assert!(
        bytes / packets.max(1) > 1500,
        "{bytes} bytes in {packets} packets"
    );
    assert_eq!(braidd.frames()?.leaked, 0);
    Ok(())
}
