//! What the XDP program costs per packet, by BPF_PROG_TEST_RUN, above a program that does
//! nothing: one figure per verdict and kind of packet.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::process::ExitCode;

use braid_bpf::{Claim, ClaimKind, Heartbeat, Steer, Verdict, load_empty, test_run};
use clap::Args;
use socket2::{Domain, Socket, Type};

use super::figure::{Bar, Bench, Figure};
use super::output::{Output, foreign_load, require};
use super::progress::Progress;
use super::results::Results;
use crate::failure;
use crate::testbed::Result;
use crate::testbed::requirement::Requirement;

/// What a redirected packet may cost above an empty program.
const REDIRECT_LIMIT_NS: f64 = 60.0;

/// Claims of a busy dataplane: the table is not in L1.
const CLAIMS: std::ops::Range<u16> = 20_000..30_000;

/// Runs of the program per repeat.
const RUNS: u32 = 1_000_000;
const RUNS_QUICK: u32 = 200_000;

const LOCAL4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const REMOTE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const LOCAL6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const REMOTE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
/// Don't fragment.
const DF: u16 = 0x4000;
/// More fragments.
const MF: u16 = 0x2000;

const CLIENT_PORT: u16 = 50_000;
const SERVICE_PORT: u16 = 7;
const WILDCARD_PORT: u16 = 80;
const FREE_PORT: u16 = 22;

/// What `braid-bench steer` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Runs of the program per measurement [default: 1000000, quick: 200000]
    #[arg(long)]
    runs: Option<u32>,
    /// Output.
    #[command(flatten)]
    output: Output,
}

/// `bytes` bytes that begin like a TCP header of 32 bytes, an ACK.
fn tcp(source: u16, destination: u16, bytes: usize) -> Vec<u8> {
    let mut segment = vec![0; bytes];
    segment[..2].copy_from_slice(&source.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[12] = 8 << 4;
    segment[13] = 0x10;
    segment
}

fn ipv4(protocol: u8, fragment: u16, (from, to): (Ipv4Addr, Ipv4Addr), payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(bytes.to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(REMOTE6.octets());
    packet.extend(LOCAL6.octets());
    packet.extend(payload);
    packet
}

/// An extension header of 8 bytes in front of `rest`.
fn extension(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0, 0, 0, 0, 0, 0, 0];
    header.extend(rest);
    header
}

fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// One kind of packet and what becomes of it.
#[derive(Debug)]
struct Case {
    name: &'static str,
    /// The interface has a socket.
    socket: bool,
    verdict: Verdict,
    frame: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let inbound = (REMOTE4, LOCAL4);
    let segment = |port, fragment, bytes| {
        ethernet(
            IPV4,
            &ipv4(TCP, fragment, inbound, &tcp(CLIENT_PORT, port, bytes)),
        )
    };
    let quoted = ipv4(
        TCP,
        DF,
        (LOCAL4, REMOTE4),
        &tcp(SERVICE_PORT, CLIENT_PORT, 32),
    );
    let unreachable = [&[3, 1, 0, 0, 0, 0, 0, 0], &*quoted].concat();
    let behind = tcp(CLIENT_PORT, SERVICE_PORT, 32);
    let behind = extension(DESTINATION_OPTIONS, &extension(TCP, &behind));
    let case = |name, socket, verdict, frame| Case {
        name,
        socket,
        verdict,
        frame,
    };
    use Verdict::{Drop, Pass, Redirect};
    vec![
        case(
            "redirect, IPv4",
            true,
            Redirect,
            segment(SERVICE_PORT, DF, 1460),
        ),
        case(
            "redirect, IPv4, any address",
            true,
            Redirect,
            segment(WILDCARD_PORT, DF, 1460),
        ),
        case(
            "redirect, IPv6",
            true,
            Redirect,
            ethernet(IPV6, &ipv6(TCP, &tcp(CLIENT_PORT, SERVICE_PORT, 1440))),
        ),
        case(
            "redirect, IPv6, two extensions",
            true,
            Redirect,
            ethernet(IPV6, &ipv6(HOP_BY_HOP, &behind)),
        ),
        case(
            "redirect, ICMP error",
            true,
            Redirect,
            ethernet(IPV4, &ipv4(ICMP, DF, inbound, &unreachable)),
        ),
        case(
            "drop, no socket",
            false,
            Drop,
            segment(SERVICE_PORT, DF, 1460),
        ),
        case(
            "drop, first fragment",
            true,
            Drop,
            segment(SERVICE_PORT, MF, 1456),
        ),
        case("pass, no claim", true, Pass, segment(FREE_PORT, DF, 1460)),
        case(
            "pass, UDP",
            true,
            Pass,
            ethernet(
                IPV4,
                &ipv4(UDP, DF, inbound, &[0xc3, 0x50, 0, 7, 0, 8, 0, 0]),
            ),
        ),
        case("pass, ARP", true, Pass, ethernet(ARP, &[0; 28])),
    ]
}

/// Measures every case in turn, ours and the empty program right after each other, so that
/// a slow spell of the machine hits both.
fn measure(repeats: usize, runs: u32, progress: &Progress) -> Result<Vec<Figure>> {
    let steer = Steer::load().map_err(|e| failure!("{e}"))?;
    let program = steer.interface(1).map_err(|e| failure!("{e}"))?;
    let empty = load_empty()?;
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::from(libc::SOCK_RAW), None)?;
    let claim = |address, port, kind| {
        steer
            .claim_add(Claim::new(address, port), kind)
            .map_err(|e| failure!("{e}"))
    };
    claim(LOCAL4.into(), SERVICE_PORT, ClaimKind::Service)?;
    claim(LOCAL6.into(), SERVICE_PORT, ClaimKind::Service)?;
    claim(
        Ipv4Addr::UNSPECIFIED.into(),
        WILDCARD_PORT,
        ClaimKind::Service,
    )?;
    for port in CLAIMS {
        claim(LOCAL4.into(), port, ClaimKind::ActiveOpen)?;
    }
    let cases = cases();
    let mut figures: Vec<Figure> = cases
        .iter()
        .map(|case| {
            let place = "above an empty program";
            let bar = (case.verdict == Verdict::Redirect).then_some(Bar::Value(REDIRECT_LIMIT_NS));
            Figure::new(Bench::Steer, place, case.name, ("cost", "ns/packet"), false).with_bar(bar)
        })
        .collect();
    let mut nothing = Figure::new(
        Bench::Steer,
        "the test run itself",
        "empty program",
        ("cost", "ns/packet"),
        false,
    );
    for _ in 0..repeats {
        for (case, figure) in cases.iter().zip(&mut figures) {
            progress.begin(case.name);
            if case.socket {
                program.xsks().set(0, socket.as_fd())
            } else {
                program.xsks().remove(0)
            }
            .map_err(|e| failure!("{e}"))?;
            steer.heartbeat().beat(Heartbeat::now_ns());
            let ours = program.test_run(&case.frame, None, runs)?;
            if ours.verdict != case.verdict {
                let (name, got) = (case.name, ours.verdict);
                return Err(failure!("{name}: the program says {got:?}"));
            }
            let base = test_run(empty.as_fd(), &case.frame, None, runs)?.duration_ns;
            nothing.values.push(base.into());
            figure
                .values
                .push(f64::from(ours.duration_ns) - f64::from(base));
            progress.end(&format!(
                "{}: {} ns, empty {base} ns",
                case.name, ours.duration_ns
            ));
        }
    }
    figures.push(nothing);
    Ok(figures)
}

fn run_all(arguments: &Arguments) -> Result<Results> {
    require(&[Requirement::Root, Requirement::XdpSockets])?;
    let repeats = arguments.output.repeats()?;
    let quick = if arguments.output.quick {
        RUNS_QUICK
    } else {
        RUNS
    };
    let runs = arguments.runs.unwrap_or(quick).max(1);
    let mut results = arguments.output.begin(
        0.0,
        &[
            "BPF_PROG_TEST_RUN: no device, redirects are decided and not done",
            "10,003 claims; the same frame over and over, so headers are in L1",
        ],
    )?;
    let progress = Progress::new(repeats * cases().len());
    if let Some(warning) = foreign_load()? {
        progress.say(&warning);
    }
    results.figures = measure(repeats, runs, &progress)?;
    Ok(results)
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let results = run_all(arguments).map_err(io::Error::other)?;
    arguments.output.finish(results)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cases_are_frames_of_every_verdict() {
        let cases = cases();
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        for verdict in [Verdict::Redirect, Verdict::Drop, Verdict::Pass] {
            assert!(cases.iter().any(|case| case.verdict == verdict));
        }
        for case in &cases {
            // BPF_PROG_TEST_RUN takes no less; no frame is longer than the MTU allows.
            assert!((14..=1514).contains(&case.frame.len()), "{}", case.name);
        }
    }

    #[test]
    fn every_case_gets_its_verdict_and_a_figure() {
        if let Some(why) = Requirement::Root.missing() {
            eprintln!("SKIP steer: {why}");
            return;
        }
        let figures = measure(2, 100, &Progress::new(1)).unwrap();
        assert_eq!(figures.len(), cases().len() + 1);
        for figure in &figures {
            let empty = figure.subject == "empty program";
            let repeats = if empty { 2 * cases().len() } else { 2 };
            assert_eq!(figure.values.len(), repeats, "{figure:?}");
        }
    }
}
