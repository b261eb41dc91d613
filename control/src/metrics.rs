//! Prometheus: counters and state over HTTP, in the text format, version 0.0.4.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::api::{ApiReply, ApiRequest, Call, DaemonStatus, InterfaceStatus};

/// Scrapers at a time, the size of a request's head, and its time.
const SCRAPERS_MAX: usize = 8;
const HEAD_MAX_BYTES: usize = 8192;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the address: before the daemon says that it is ready.
///
/// # Errors
/// The kernel's.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers scrapers for as long as the daemon lives.
pub async fn serve(listener: TcpListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(SCRAPERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Ok(Err(e)) = tokio::time::timeout(TIMEOUT, answer(stream, calls)).await {
                        tracing::debug!("scraper: {e}");
                    }
                    drop(place);
                });
            }
            // Out of descriptors: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut bytes = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut bytes).await?;
        if n == 0 || head.len() + n > HEAD_MAX_BYTES {
            return Ok(());
        }
        head.extend_from_slice(&bytes[..n]);
    }
    let (status, body) = if is_for_metrics(&head) {
        match gather(&calls).await {
            Some(body) => ("200 OK", body),
            None => ("503 Service Unavailable", "braidd is exiting\n".to_owned()),
        }
    } else {
        ("404 Not Found", "try GET /metrics\n".to_owned())
    };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

fn is_for_metrics(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    words.next() == Some(b"GET")
        && words
            .next()
            .is_some_and(|p| p == b"/metrics" || p.starts_with(b"/metrics?"))
}

async fn ask(calls: &mpsc::Sender<Call>, request: ApiRequest) -> Option<ApiReply> {
    let (answer, answered) = oneshot::channel();
    calls.send(Call { request, answer }).await.ok()?;
    answered.await.ok()
}

async fn gather(calls: &mpsc::Sender<Call>) -> Option<String> {
    let ApiReply::Status(status) = ask(calls, ApiRequest::Status).await? else {
        return None;
    };
    let counters = match ask(calls, ApiRequest::Counters).await? {
        ApiReply::Counters { dataplane, steer } => [dataplane, steer].concat(),
        // The dataplane is down; that is worth scraping.
        _ => Vec::new(),
    };
    Some(render(&status, &counters))
}

fn render(status: &DaemonStatus, counters: &[(String, u64)]) -> String {
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let plain = |n: u64| vec![(String::new(), n)];
    let up = u64::from(status.dataplane.is_some());
    one(
        "braid_dataplane_up",
        "gauge",
        "The dataplane answers.",
        &plain(up),
    );
    one(
        "braid_dataplane_restarts_total",
        "counter",
        "Restarts after a death.",
        &plain(status.restarts),
    );
    let per_interface = |f: fn(&InterfaceStatus) -> u64| {
        let label = |i: &InterfaceStatus| format!("{{interface=\"{}\"}}", i.name);
        let value = |i: &InterfaceStatus| (label(i), f(i));
        status.interfaces.iter().map(value).collect::<Vec<_>>()
    };
    one(
        "braid_interface_carrier",
        "gauge",
        "The interface can send.",
        &per_interface(|i| u64::from(i.carrier)),
    );
    one(
        "braid_ntuple_rules",
        "gauge",
        "Rules in the NIC that deliver flows to their owner's queue.",
        &per_interface(|i| i.ntuple.rules.into()),
    );
    one(
        "braid_ntuple_table",
        "gauge",
        "Rules that the NIC holds, ours and others'.",
        &per_interface(|i| i.ntuple.table.into()),
    );
    one(
        "braid_ntuple_refused_total",
        "counter",
        "Orders about rules that the driver refused.",
        &per_interface(|i| i.ntuple.refused),
    );
    one(
        "braid_ntuple_skipped_total",
        "counter",
        "Flows without a rule because none could be had.",
        &per_interface(|i| i.ntuple.skipped),
    );
    one(
        "braid_ntuple_dropped_total",
        "counter",
        "Flows without a rule because too many waited for the driver.",
        &per_interface(|i| i.ntuple.dropped),
    );
    if let Some(d) = &status.dataplane {
        let per = |f: fn(&braid_dataplane::control::WorkerReport) -> u64| {
            d.workers
                .iter()
                .enumerate()
                .map(|(i, w)| (format!("{{worker=\"{i}\"}}"), f(w)))
                .collect::<Vec<_>>()
        };
        one(
            "braid_connections",
            "gauge",
            "Connections that live.",
            &per(|w| w.connections),
        );
        one(
            "braid_flows",
            "gauge",
            "Flows in the tables.",
            &per(|w| w.flows),
        );
        one(
            "braid_time_wait",
            "gauge",
            "TIME-WAIT entries.",
            &per(|w| w.time_wait),
        );
    }
    let events: Vec<_> = counters
        .iter()
        .map(|(n, v)| (format!("{{name=\"{n}\"}}"), *v))
        .collect();
    one(
        "braid_events_total",
        "counter",
        "Counters by their kernel-style name.",
        &events,
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metrics_are_served() {
        assert!(is_for_metrics(b"GET /metrics HTTP/1.1\r\n\r\n"));
        assert!(is_for_metrics(b"GET /metrics?x=1 HTTP/1.1\r\n\r\n"));
        assert!(!is_for_metrics(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(!is_for_metrics(b"POST /metrics HTTP/1.1\r\n\r\n"));
        assert!(!is_for_metrics(b"\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_scrape_shows_state_and_counters() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, mut called) = mpsc::channel::<Call>(1);
        tokio::spawn(serve(listener, calls));
        tokio::spawn(async move {
            while let Some(call) = called.recv().await {
                let reply = match call.request {
                    ApiRequest::Status => ApiReply::Status(Box::new(crate::cli::tests::status())),
                    _ => ApiReply::Counters {
                        dataplane: vec![("MPCapableSYNRX".to_owned(), 7)],
                        steer: vec![("SteerRedirectTcp4".to_owned(), 8)],
                    },
                };
                call.answer.send(reply).unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        for line in [
            "braid_dataplane_up 1",
            "braid_interface_carrier{interface=\"vb1\"} 1",
            "braid_ntuple_rules{interface=\"vb1\"} 3",
            "braid_ntuple_table{interface=\"vb1\"} 512",
            "braid_ntuple_refused_total{interface=\"vb1\"} 2",
            "braid_connections{worker=\"0\"} 3",
            "braid_events_total{name=\"MPCapableSYNRX\"} 7",
            "braid_events_total{name=\"SteerRedirectTcp4\"} 8",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line} is missing in\n{text}"
            );
        }
    }
}
