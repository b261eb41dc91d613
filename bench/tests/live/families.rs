//! IPv6, and both families in one connection.

use std::net::IpAddr;

use braid_bench::testbed::{Config, Options, Result, Role, Testbed};

use crate::support::{Subject, testbed, transfer, turn};

const MIB_64: &str = "67108864";

fn echo(test: &str, listen: &str, announced: IpAddr) -> Result<()> {
    let Some(_turn) = turn(test, &[]) else {
        return Ok(());
    };
    let testbed = testbed(Options::default())?;
    let mut config = Config::announcing(&testbed).service("echo", listen);
    config.endpoints = vec![(announced, vec!["signal".to_owned()])];
    let subject = Subject::start(&testbed, &config)?;
    if subject.braid().is_none() {
        let announced = announced.to_string();
        testbed.run(Role::Braid, &["ip", "mptcp", "endpoint", "flush"])?;
        testbed.run(
            Role::Braid,
            &[
                "ip", "mptcp", "endpoint", "add", &announced, "dev", "vb2", "signal",
            ],
        )?;
    }
    let args = [
        "echo-client",
        "--to",
        listen,
        "--mapped",
        "--bytes",
        MIB_64,
        "--window",
        "1048576",
    ];
    transfer(&testbed, &args)?.intact_mptcp().on_every_path();
    Ok(())
}

#[test]
fn ipv6_on_both_paths() -> Result<()> {
    echo("IPv6", "[fd77:1::2]:7", Testbed::v6(Role::Braid, 2))
}

#[test]
fn ipv6_first_and_ipv4_joined() -> Result<()> {
    echo("IPv6 + IPv4", "[fd77:1::2]:7", Testbed::v4(Role::Braid, 2))
}

#[test]
fn ipv4_first_and_ipv6_joined() -> Result<()> {
    echo("IPv4 + IPv6", "10.77.1.2:7", Testbed::v6(Role::Braid, 2))
}
