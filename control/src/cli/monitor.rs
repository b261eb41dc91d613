//! One line per event, in the words of `ip mptcp monitor`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use braid_dataplane::control::DataplaneEvent;
use braid_dataplane::mptcp::Event;

use crate::api::{ApiEvent, MonitorEvent};

/// The line of an event.
pub(super) fn line(event: &MonitorEvent) -> String {
    match &event.event {
        ApiEvent::Dataplane {
            event: DataplaneEvent::Connection { event, service, .. },
        } => {
            let mut line = connection(event);
            if matches!(event, Event::Created { .. }) {
                line.push_str(" service=");
                line.push_str(service);
            }
            line
        }
        ApiEvent::Dataplane {
            event: DataplaneEvent::Lost { count },
        }
        | ApiEvent::Missed { count } => {
            format!("[MISSED] count={count}")
        }
        ApiEvent::Dataplane {
            event: DataplaneEvent::Drained,
        } => "[DRAINED]".to_owned(),
        ApiEvent::Link { interface, carrier } => {
            format!(
                "[LINK] interface={interface} carrier={}",
                u8::from(*carrier)
            )
        }
        ApiEvent::DataplaneDied { pid } => format!("[DATAPLANE_DIED] pid={pid}"),
        ApiEvent::DataplaneStarted { pid, restarts } => {
            format!("[DATAPLANE_STARTED] pid={pid} restarts={restarts}")
        }
        ApiEvent::Reloaded => "[RELOADED]".to_owned(),
        ApiEvent::PathFailed { token, message } => {
            let token = token.map_or_else(String::new, |t| format!(" token={t:08x}"));
            format!("[PATH_FAILED]{token} cause=\"{message}\"")
        }
    }
}

fn ends(out: &mut String, local: SocketAddr, remote: SocketAddr) {
    // Writing to a string cannot fail.
    let _ = match (local.ip().to_canonical(), remote.ip().to_canonical()) {
        (IpAddr::V4(l), IpAddr::V4(r)) => write!(out, " saddr4={l} daddr4={r}"),
        (l, r) => write!(out, " saddr6={l} daddr6={r}"),
    };
    let _ = write!(out, " sport={} dport={}", local.port(), remote.port());
}

fn connection(event: &Event) -> String {
    match event {
        Event::Created {
            token,
            local,
            remote,
            server,
        } => {
            let mut out = format!("[CREATED] token={token:08x} remid=0 locid=0");
            ends(&mut out, *local, *remote);
            let _ = write!(out, " server_side={}", u8::from(*server));
            out
        }
        Event::Established {
            token,
            local,
            remote,
            server,
            mptcp,
            checksum,
            deny_join_initial,
            announced: _,
        } => {
            let mut out = format!("[ESTABLISHED] token={token:08x} remid=0 locid=0");
            ends(&mut out, *local, *remote);
            let _ = write!(
                out,
                " server_side={} mptcp={} checksum={} deny_join_id0={}",
                u8::from(*server),
                u8::from(*mptcp),
                u8::from(*checksum),
                u8::from(*deny_join_initial)
            );
            out
        }
        Event::FellBack { token, reason } => {
            format!("[FELL_BACK] token={token:08x} reason={reason}")
        }
        Event::Checked { token, findings } => {
            let mut out = format!(
                "[CHECKED] token={token:08x} received={} eof={}",
                findings.received,
                u8::from(findings.eof)
            );
            if let Some((first, last)) = findings.wrong {
                let _ = write!(out, " wrong={first}-{last}");
            }
            out
        }
        Event::Closed { token, reason } => {
            format!("[CLOSED] token={token:08x} reason=\"{reason}\"")
        }
        Event::Announced {
            token,
            address_id,
            address,
            port,
            ..
        } => {
            let family = if address.is_ipv4() { 4 } else { 6 };
            let mut out =
                format!("[ANNOUNCED] token={token:08x} remid={address_id} daddr{family}={address}");
            if let Some(port) = port {
                let _ = write!(out, " dport={port}");
            }
            out
        }
        Event::Removed { token, address_id } => {
            format!("[REMOVED] token={token:08x} remid={address_id}")
        }
        Event::Echoed { token, address_id } => {
            format!("[ECHOED] token={token:08x} locid={address_id}")
        }
        Event::SubflowEstablished {
            token,
            local,
            remote,
            local_id,
            remote_id,
            backup,
            ..
        } => {
            let mut out =
                format!("[SF_ESTABLISHED] token={token:08x} remid={remote_id} locid={local_id}");
            ends(&mut out, *local, *remote);
            let _ = write!(out, " backup={}", u8::from(*backup));
            out
        }
        Event::SubflowClosed {
            token,
            local,
            remote,
            local_id,
            remote_id,
            error,
            reset_reason,
            transient,
            ..
        } => {
            let mut out =
                format!("[SF_CLOSED] token={token:08x} remid={remote_id} locid={local_id}");
            ends(&mut out, *local, *remote);
            let _ = write!(out, " error=\"{error}\"");
            if let Some(reason) = reset_reason {
                let _ = write!(out, " reset_reason={reason}");
            }
            if let Some(transient) = transient {
                let _ = write!(out, " transient={}", u8::from(*transient));
            }
            out
        }
        Event::SubflowPriority {
            token,
            subflow,
            backup,
        } => {
            format!(
                "[SF_PRIO] token={token:08x} subflow={subflow} backup={}",
                u8::from(*backup)
            )
        }
        Event::SubflowStale {
            token,
            subflow,
            stale,
        } => {
            format!(
                "[SF_STALE] token={token:08x} subflow={subflow} stale={}",
                u8::from(*stale)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_dataplane::mptcp::SubflowId;

    fn show(event: Event) -> String {
        let service = "echo".to_owned();
        let event = DataplaneEvent::Connection {
            worker: 0,
            service,
            event,
        };
        line(&crate::api::stamp(ApiEvent::Dataplane { event }))
    }

    #[test]
    fn events_read_like_ip_mptcp_monitor() {
        let (v4, v6) = ("10.0.0.1:7", "[fd00::1]:7");
        assert_eq!(
            show(Event::Created {
                token: 0x2f3a21,
                local: v4.parse().unwrap(),
                remote: "10.0.0.2:40000".parse().unwrap(),
                server: true,
            }),
            "[CREATED] token=002f3a21 remid=0 locid=0 saddr4=10.0.0.1 daddr4=10.0.0.2 sport=7 dport=40000 server_side=1 service=echo"
        );
        assert_eq!(
            show(Event::SubflowClosed {
                token: 1,
                subflow: SubflowId(2),
                local: v6.parse().unwrap(),
                remote: "[fd00::2]:40000".parse().unwrap(),
                local_id: 1,
                remote_id: 2,
                established: true,
                error: "timed out".to_owned(),
                reset_reason: Some(3),
                transient: Some(false),
            }),
            "[SF_CLOSED] token=00000001 remid=2 locid=1 saddr6=fd00::1 daddr6=fd00::2 sport=7 dport=40000 error=\"timed out\" reset_reason=3 transient=0"
        );
        assert_eq!(
            show(Event::Announced {
                token: 1,
                address_id: 2,
                address: "10.0.0.9".parse().unwrap(),
                port: Some(8),
                subflow: SubflowId(0),
            }),
            "[ANNOUNCED] token=00000001 remid=2 daddr4=10.0.0.9 dport=8"
        );
    }
}
