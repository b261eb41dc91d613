//! Tables for people.

use std::fmt::Display;

use braid_dataplane::control::{ConnReport, PoolReport, PortReport};
use comfy_table::{Table, presets};

use crate::api::{ApiReply, DaemonStatus};
use crate::path::Endpoint;
use crate::steering::NtupleStatus;

fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    table
}

fn rows<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = table(head);
    for row in rows {
        table.add_row(row);
    }
    // The preset pads the last column too.
    table
        .lines()
        .map(|l| l.trim_end().to_owned() + "\n")
        .collect()
}

fn text(value: impl Display) -> String {
    value.to_string()
}

fn yes(value: bool) -> String {
    text(if value { "yes" } else { "no" })
}

/// Bytes as people read them.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scale = 0;
    while n >> (10 * (scale + 1)) >= 10 && scale + 1 < UNITS.len() {
        scale += 1;
    }
    format!("{} {}", n >> (10 * scale), UNITS[scale])
}

pub(super) fn reply(reply: &ApiReply) -> String {
    match reply {
        ApiReply::Ok { message } | ApiReply::Error { message } => message.clone(),
        ApiReply::Status(status) => self::status(status),
        ApiReply::Conns { conns, .. } => self::conns(conns),
        ApiReply::Counters { dataplane, steer } => rows(
            ["counter", "value"],
            dataplane
                .iter()
                .chain(steer)
                .map(|(n, v)| [n.clone(), text(v)]),
        ),
        ApiReply::Xsk { ports, pools } => xsk(ports, pools),
        ApiReply::Endpoint { endpoint } => endpoints(std::slice::from_ref(endpoint)),
        ApiReply::Endpoints { endpoints } => self::endpoints(endpoints),
        ApiReply::Limits { limits } => {
            format!(
                "subflows {} accept-addresses {}",
                limits.subflows, limits.accept_addresses
            )
        }
        ApiReply::Connecting { token } => format!("connecting, token {token:08x}"),
        ApiReply::Event(event) => super::monitor::line(event),
    }
}

fn endpoints(endpoints: &[Endpoint]) -> String {
    if endpoints.is_empty() {
        return text("no endpoints; add one with: braid endpoint add ADDRESS signal\n");
    }
    // One line each, as ip mptcp endpoint prints them.
    endpoints
        .iter()
        .map(|e| {
            let implicit = if e.implicit { "implicit" } else { "" };
            let port = e.port.map_or_else(String::new, |p| format!("port {p}"));
            let (address, id, flags) = (e.address, e.id, e.flags);
            let line = format!("{address} {port} id {id} {flags} {implicit}");
            line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n"
        })
        .collect()
}

/// Rules of ours and the table's size, and what the driver refused.
fn ntuple(n: &NtupleStatus) -> String {
    let mut out = match (n.rules, n.table) {
        (0, 0) => text("-"),
        (rules, 0) => text(rules),
        (rules, table) => format!("{rules}/{table}"),
    };
    if n.refused > 0 {
        out += &format!(", {} refused", n.refused);
    }
    out
}

fn status(s: &DaemonStatus) -> String {
    let dataplane = match (&s.dataplane_pid, &s.dataplane) {
        (Some(pid), Some(d)) => format!("pid {pid}, up {} s", d.uptime_s),
        (Some(pid), None) => format!("pid {pid}, does not answer"),
        (None, _) => text("down, being restarted"),
    };
    let mut out = format!(
        "braidd {} (pid {}), up {} s, config {}{}\ndataplane {dataplane}, {} restart(s){}\npaths: {} decides, policy {:?}, subflows {}, accept-addresses {}, {} endpoint(s), {} MPTCP connection(s)\n\n",
        s.version,
        s.pid,
        s.uptime_s,
        s.config,
        if s.draining { ", draining" } else { "" },
        s.restarts,
        if s.adopted { ", adopted" } else { "" },
        s.paths.owner,
        s.paths.policy,
        s.paths.limits.subflows,
        s.paths.limits.accept_addresses,
        s.paths.endpoints,
        s.paths.connections,
    );
    out += &rows(
        [
            "interface",
            "attached",
            "driver",
            "queues",
            "mtu",
            "carrier",
            "ntuple",
            "addresses",
        ],
        s.interfaces.iter().map(|i| {
            let list = |items: Vec<String>| items.join(",");
            [
                i.name.clone(),
                i.attached.clone(),
                i.driver.clone(),
                list(i.queues.iter().map(text).collect()),
                text(i.mtu),
                yes(i.carrier),
                ntuple(&i.ntuple),
                list(i.addresses.iter().map(text).collect()),
            ]
        }),
    );
    // One worker has nothing to steer.
    if s.dataplane.as_ref().is_some_and(|d| d.workers.len() > 1) {
        for i in &s.interfaces {
            if let Some(reason) = &i.ntuple.reason {
                out += &format!("{} ntuple: {reason}\n", i.name);
            }
        }
    }
    if !s.services.is_empty() {
        out += "\n";
        out += &rows(
            ["service", "listens on"],
            s.services
                .iter()
                .map(|(name, listen)| [name.clone(), listen.join(",")]),
        );
    }
    if let Some(d) = &s.dataplane {
        out += "\n";
        out += &rows(
            [
                "worker",
                "core",
                "connections",
                "flows",
                "time-wait",
                "busy polls",
                "sleeps",
            ],
            d.workers.iter().enumerate().map(|(i, w)| {
                [
                    text(i),
                    text(w.core),
                    text(w.connections),
                    text(w.flows),
                    text(w.time_wait),
                    text(w.busy_polls),
                    text(w.sleeps),
                ]
            }),
        );
    }
    for warning in &s.warnings {
        out += &format!("\nwarning: {warning}\n");
    }
    out
}

/// A line per connection and an indented one per subflow, like `ss -M`.
pub(super) fn conns(conns: &[ConnReport]) -> String {
    if conns.is_empty() {
        return text("no connections\n");
    }
    let mut out = String::new();
    for c in conns {
        let i = &c.info;
        let kind = match (&i.fallback, i.mptcp) {
            (Some(reason), _) => format!("fell back ({reason})"),
            (None, true) if i.version == Some(0) => text("mptcp v0"),
            (None, true) => text("mptcp"),
            (None, false) => text("tcp"),
        };
        out += &format!(
            "{:08x} {} {kind} {} worker {} sent {} acked {} received {} queued {}/{}\n",
            i.token,
            i.state,
            c.service,
            c.worker,
            bytes(i.bytes_taken),
            bytes(i.bytes_acked),
            bytes(i.bytes_delivered),
            bytes(i.send_queue_bytes),
            bytes(i.recv_queue_bytes),
        );
        for s in &i.subflows {
            let marks = [
                (s.backup_local || s.backup_remote, " backup"),
                (s.stale, " stale"),
            ];
            let marks: String = marks
                .iter()
                .filter(|(on, _)| *on)
                .map(|(_, m)| *m)
                .collect();
            out += &format!(
                "    {} {} -> {} {}{marks} sent {} received {} retransmitted {} rtt {} us cwnd {}\n",
                s.id,
                s.local,
                s.remote,
                s.tcp.state,
                bytes(s.totals.bytes_sent),
                bytes(s.totals.bytes_received),
                bytes(s.totals.bytes_retransmitted),
                s.tcp.srtt_us,
                bytes(u64::from(s.tcp.cwnd_bytes)),
            );
        }
        for s in &i.closed_subflows {
            out += &format!(
                "    {} {} -> {} closed ({}) sent {} received {}\n",
                s.id,
                s.local,
                s.remote,
                s.error,
                bytes(s.totals.bytes_sent),
                bytes(s.totals.bytes_received),
            );
        }
    }
    out
}

fn xsk(ports: &[PortReport], pools: &[PoolReport]) -> String {
    let mut out = rows(
        [
            "interface",
            "queue",
            "worker",
            "asked",
            "got",
            "rx",
            "tx",
            "tx full",
            "rx dropped",
            "fill empty",
        ],
        ports.iter().map(|p| {
            let asked = serde_json::to_value(p.mode_asked)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default();
            [
                p.interface.clone(),
                text(p.queue),
                text(p.worker),
                asked,
                text(if p.zero_copy { "zero-copy" } else { "copy" }),
                text(p.stats.rx_packets),
                text(p.stats.tx_packets),
                text(p.stats.tx_full),
                text(p.stats.kernel_rx_dropped + p.stats.kernel_rx_ring_full),
                text(p.stats.kernel_rx_fill_ring_empty),
            ]
        }),
    );
    out += "\n";
    out += &rows(
        [
            "worker", "group", "free", "ours", "fill", "tx", "orphaned", "foreign", "leaked",
        ],
        pools.iter().map(|p| {
            let f = &p.frames;
            [
                text(p.worker),
                text(p.group),
                text(f.free),
                text(f.ours),
                text(f.fill),
                text(f.tx),
                text(f.orphaned),
                text(f.foreign_seen),
                text(f.leaked),
            ]
        }),
    );
    out
}
