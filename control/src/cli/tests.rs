//! Arguments, tables, and a whole exchange over a real socket.

use std::sync::Arc;

use braid_dataplane::control::{StatusReport, WorkerReport};
use clap::CommandFactory;
use tokio::sync::{broadcast, mpsc};

use super::*;
use crate::api::{
    self, ApiEvent, Call, DaemonStatus, InterfaceStatus, MonitorEvent, PathStatus, stamp,
};
use crate::config::{Mode, Policy};
use crate::path::{Endpoint, Limits};
use crate::steering::NtupleStatus;

/// A status with something of everything.
pub(crate) fn status() -> DaemonStatus {
    DaemonStatus {
        version: "0.1.0".to_owned(),
        pid: 10,
        uptime_s: 5,
        config: "/etc/braid.toml".to_owned(),
        dataplane_pid: Some(11),
        restarts: 2,
        adopted: true,
        draining: false,
        paths: PathStatus {
            owner: "braidd".to_owned(),
            policy: Policy::Announce,
            limits: Limits {
                subflows: 4,
                accept_addresses: 4,
            },
            endpoints: 1,
            connections: 3,
        },
        interfaces: vec![InterfaceStatus {
            name: "vb1".to_owned(),
            ifindex: 3,
            mode_configured: Mode::Auto,
            attached: "native".to_owned(),
            driver: "veth".to_owned(),
            queues: vec![0, 1],
            mtu: 1500,
            carrier: true,
            addresses: vec!["10.77.1.2".parse().unwrap()],
            ntuple: NtupleStatus {
                rules: 3,
                table: 512,
                refused: 2,
                reason: Some("its driver (veth) refused a rule".to_owned()),
                ..NtupleStatus::default()
            },
        }],
        services: vec![("echo".to_owned(), vec!["10.77.1.2:7".to_owned()])],
        ports_held: 2,
        warnings: vec!["vb1 runs in generic mode".to_owned()],
        dataplane: Some(StatusReport {
            pid: 11,
            uptime_s: 4,
            draining: false,
            workers: vec![
                WorkerReport {
                    core: 1,
                    connections: 3,
                    ..WorkerReport::default()
                },
                WorkerReport::default(),
            ],
        }),
    }
}

fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(["braid"].iter().chain(words))
}

fn request(words: &[&str]) -> Result<ApiRequest, String> {
    match parse(words).map_err(|e| e.to_string())?.command {
        Command::Endpoint(command) => endpoint(&command),
        other => panic!("{other:?}"),
    }
}

#[test]
fn arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_takes_socket_and_json() {
    for command in [
        &["check"][..],
        &["status"],
        &["conns"],
        &["counters"],
        &["xsk"],
        &["endpoint", "show"],
        &["limits"],
        &["connect", "x"],
        &["monitor"],
        &["drain"],
        &["reload"],
    ] {
        let words = [command, &["--socket", "/tmp/s", "--json"]].concat();
        let arguments = parse(&words).unwrap();
        assert!(arguments.json);
        assert_eq!(arguments.socket.to_str(), Some("/tmp/s"));
    }
}

#[test]
fn endpoints_are_named_as_ip_mptcp_names_them() {
    let add = request(&[
        "endpoint", "add", "10.0.0.1", "signal", "backup", "--id", "3",
    ])
    .unwrap();
    let ApiRequest::EndpointAdd {
        address,
        port,
        flags,
        id,
    } = add
    else {
        panic!("{add:?}")
    };
    assert_eq!((address.to_string().as_str(), id), ("10.0.0.1", Some(3)));
    assert!(flags.signal && flags.backup && !flags.subflow);
    assert_eq!(port, None);
    let add = request(&["endpoint", "add", "10.0.0.1", "port", "8080", "signal"]).unwrap();
    assert!(
        matches!(add, ApiRequest::EndpointAdd { port: Some(8080), flags, .. } if flags.signal),
        "{add:?}"
    );
    for bad in [
        &["endpoint", "add", "10.0.0.1", "signal", "port"][..],
        &["endpoint", "add", "10.0.0.1", "signal", "port", "0"],
        &["endpoint", "add", "10.0.0.1", "subflow", "port", "80"],
        &["endpoint", "add", "10.0.0.1", "port", "80"],
    ] {
        assert!(request(bad).is_err(), "{bad:?}");
    }
    let del = request(&["endpoint", "del", "id", "3"]).unwrap();
    assert!(matches!(
        del,
        ApiRequest::EndpointRemove {
            which: Which::Id(3)
        }
    ));
    let del = request(&["endpoint", "del", "fd00::1"]).unwrap();
    assert!(matches!(
        del,
        ApiRequest::EndpointRemove {
            which: Which::Address(_)
        }
    ));
    let change = request(&["endpoint", "change", "id", "3", "subflow"]).unwrap();
    assert!(
        matches!(change, ApiRequest::EndpointChange { which: Which::Id(3), flags } if flags.subflow)
    );
    assert!(
        request(&["endpoint", "add", "10.0.0.1", "loud"])
            .unwrap_err()
            .contains("allowed: signal")
    );
    assert!(request(&["endpoint", "add", "10.0.0.1", "signal", "fullmesh"]).is_err());
    assert!(
        request(&["endpoint", "del", "id", "300"])
            .unwrap_err()
            .contains("1 to 255")
    );
    assert!(request(&["endpoint", "del", "ten"]).is_err());
}

#[test]
fn tables_show_what_matters() {
    let text = show::reply(&ApiReply::Status(Box::new(status())));
    for part in [
        "dataplane pid 11, up 4 s, 2 restart(s), adopted",
        "paths: braidd decides, policy Announce, subflows 4",
        "10.77.1.2:7",
        "3/512, 2 refused",
        "vb1 ntuple: its driver (veth) refused a rule",
        "warning: vb1 runs in generic mode",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let flags = EndpointFlags {
        signal: true,
        ..EndpointFlags::default()
    };
    let endpoint = Endpoint {
        port: Some(8080),
        id: 1,
        address: "10.0.0.1".parse().unwrap(),
        flags,
        implicit: false,
    };
    assert_eq!(
        show::reply(&ApiReply::Endpoints {
            endpoints: vec![endpoint]
        }),
        "10.0.0.1 port 8080 id 1 signal\n"
    );
}

#[test]
fn nobody_there_is_told_with_the_command_that_helps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.sock");
    let error = Client::connect(&path).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "braidd is not running on {}; start it with: braidd --config FILE (or name its socket with --socket)",
            path.display()
        )
    );
}

/// A server that knows three answers, on a thread of its own.
fn server(path: PathBuf) -> broadcast::Sender<Arc<MonitorEvent>> {
    let (events, _) = broadcast::channel(16);
    let sender = events.clone();
    let listener = api::listen(&path).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let (calls, mut called) = mpsc::channel::<Call>(4);
            tokio::spawn(api::serve(listener, calls, sender));
            while let Some(call) = called.recv().await {
                let reply = match call.request {
                    ApiRequest::Status => ApiReply::Status(Box::new(status())),
                    ApiRequest::Drain { .. } => return,
                    _ => ApiReply::Error {
                        message: "refused for a reason".to_owned(),
                    },
                };
                let _ = call.answer.send(reply);
            }
        });
    });
    events
}

#[test]
fn a_second_daemon_is_refused_and_a_stale_socket_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    let first = api::listen(&path).unwrap();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let error = api::listen(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "another braidd (pid {}) runs on ",
            std::process::id()
        )),
        "{error}"
    );
    drop(first);
    assert!(path.exists(), "stale");
    api::listen(&path).unwrap();
}

#[test]
fn a_client_asks_is_refused_and_monitors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.sock");
    let events = server(path.clone());
    let mut client = Client::connect(&path).unwrap();
    let reply = client.ask(&ApiRequest::Status).unwrap();
    assert!(matches!(reply, ApiReply::Status(s) if s.restarts == 2));
    let error = client.ask(&ApiRequest::Reload).unwrap_err();
    assert_eq!(error.to_string(), "refused for a reason");

    let monitor = Client::connect(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let mut seen = Vec::new();
        monitor
            .monitor(|reply| {
                if let ApiReply::Event(e) = reply {
                    seen.push(super::monitor::line(&e));
                }
                seen.len() < 2
            })
            .unwrap();
        seen
    });
    // Subscribed as soon as the server has a receiver.
    while events.receiver_count() == 0 {
        std::thread::yield_now();
    }
    events.send(Arc::new(stamp(ApiEvent::Reloaded))).unwrap();
    events
        .send(Arc::new(stamp(ApiEvent::DataplaneDied { pid: 7 })))
        .unwrap();
    assert_eq!(
        thread.join().unwrap(),
        ["[RELOADED]", "[DATAPLANE_DIED] pid=7"]
    );

    let error = client
        .ask(&ApiRequest::Drain { timeout_ms: 0 })
        .unwrap_err();
    assert!(matches!(error, ClientError::Transport(_)), "{error}");
}
