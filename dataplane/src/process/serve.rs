//! The control thread: accepts control planes, answers them, passes events on.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use super::clients::{Clients, Input};
use super::{ANSWER_TIMEOUT, Dataplane, StartError, app, services};
use crate::control::transport::MESSAGE_MAX_BYTES;
use crate::control::{
    CONNS_PER_REPLY, ConnCommand, ConnReport, DataplaneEvent, Envelope, FromDataplane, PathSetup,
    Reply, Request, StatusReport,
};
use crate::io::PortId;
use crate::mptcp::SubflowPath;
use crate::offload::header::L2Header;
use crate::wire::ethernet::EthernetAddress;
use crate::wire::types::{AddressId, FourTuple};
use crate::worker::mailbox::Mail;
use crate::worker::{Order, Service};

/// How long connections may go on after SIGTERM.
const TERM_DRAIN: Duration = Duration::from_secs(5);

/// A drain takes no longer than this, whatever was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a [`Reply::Conns`] that its connections may fill; the rest is for the envelope,
/// here and where the control plane passes it on.
const CONNS_BYTES_MAX: usize = MESSAGE_MAX_BYTES - 4096;

/// How long events wait after some were passed on: many connections' go together then, and
/// neither this thread nor the control plane wakes for each. What happens in a quiet moment is
/// told at once.
const EVENTS_PAUSE: Duration = Duration::from_millis(2);

/// How often the end of a drain is looked for.
const DRAIN_CHECK: Duration = Duration::from_millis(50);

/// Control planes come and go; the dataplane ends by [`Request::Shutdown`], by the end of
/// a drain, or by a failed start. SIGTERM drains: service managers send it to every process
/// of a service, and the peers should hear of it.
///
/// # Errors
/// [`StartError`] when the first setup fails; the client was told.
pub fn serve(listener: &Socket) -> Result<(), StartError> {
    let signals = terminations().map_err(std::io::Error::from)?;
    let mut server = Server {
        clients: Clients::default(),
        dataplane: None,
        drain: None,
        events_at: None,
    };
    loop {
        let ready = server.wait(listener, &signals);
        if ready.signal && signals.read_signal().is_ok_and(|s| s.is_some()) {
            if server.dataplane.is_none() {
                return Ok(());
            }
            if server.drain.is_none() {
                server.start_drain(TERM_DRAIN);
            }
        }
        if ready.listener
            && let Ok((socket, _)) = listener.accept()
            && socket.set_nonblocking(true).is_ok()
        {
            server.clients.add(socket.into());
        }
        // Before events: passing one on drops the clients that are gone, and the numbers
        // here are from before.
        for index in ready.clients.into_iter().rev() {
            match server.client(index)? {
                After::GoOn => {}
                After::Exit => {
                    server.exit();
                    return Ok(());
                }
            }
        }
        if ready.events {
            server.pass_events();
        }
        if server.drained() {
            server.pass_events();
            server.clients.broadcast(vec![DataplaneEvent::Drained]);
            server.exit();
            return Ok(());
        }
    }
}

/// Blocks SIGTERM in this thread and those it will start, and says where it arrives.
fn terminations() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

struct Server {
    clients: Clients,
    dataplane: Option<Dataplane>,
    drain: Option<Drain>,
    /// Events wait until then.
    events_at: Option<Instant>,
}

struct Drain {
    until: Instant,
    aborted: bool,
}

#[derive(Default)]
struct Ready {
    listener: bool,
    signal: bool,
    events: bool,
    clients: Vec<usize>,
}

enum After {
    GoOn,
    Exit,
}

impl Server {
    fn wait(&mut self, listener: &Socket, signals: &SignalFd) -> Ready {
        let now = Instant::now();
        let pause = self.events_at.map(|at| at.saturating_duration_since(now));
        let pause = pause.filter(|pause| !pause.is_zero());
        if pause.is_none() {
            self.events_at = None;
        }
        let dataplane = self.dataplane.as_ref().filter(|_| pause.is_none());
        let mut fds = vec![
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let first_client = fds.len() + usize::from(dataplane.is_some());
        if let Some(dataplane) = dataplane {
            fds.push(PollFd::new(dataplane.events.as_fd(), PollFlags::POLLIN));
        }
        fds.extend(
            self.clients
                .iter()
                .map(|c| PollFd::new(c.as_fd(), PollFlags::POLLIN)),
        );
        let check = self.drain.as_ref().map(|_| DRAIN_CHECK);
        let timeout = pause.into_iter().chain(check).min();
        // EINTR: look at everything again.
        let _ = ppoll(&mut fds, timeout.map(TimeSpec::from_duration), None);
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|r| !r.is_empty());
        Ready {
            listener: is_ready(&fds[0]),
            signal: is_ready(&fds[1]),
            events: dataplane.is_some() && is_ready(&fds[2]),
            clients: (first_client..fds.len())
                .filter(|i| is_ready(&fds[*i]))
                .map(|i| i - first_client)
                .collect(),
        }
    }

    fn pass_events(&mut self) {
        let Some(dataplane) = &self.dataplane else {
            return;
        };
        dataplane.events.clear_wake();
        let mut events = Vec::new();
        while let Some((worker, name, event)) = dataplane.events.pop() {
            let service = name.to_string();
            events.push(DataplaneEvent::Connection {
                worker,
                service,
                event,
            });
        }
        match dataplane.events.take_lost() {
            0 => {}
            count => events.push(DataplaneEvent::Lost { count }),
        }
        self.clients.broadcast(events);
        self.events_at = Some(Instant::now() + EVENTS_PAUSE);
    }

    fn client(&mut self, index: usize) -> Result<After, StartError> {
        let (envelope, fds) = match self.clients.read(index) {
            Input::Request(envelope, fds) => (envelope, fds),
            Input::Nothing => return Ok(After::GoOn),
            Input::Gone => {
                self.clients.remove(index);
                return Ok(After::GoOn);
            }
        };
        let id = envelope.id;
        let mut failed = None;
        let mut exit = false;
        let reply = match (envelope.body, &mut self.dataplane) {
            (Request::Setup(setup), None) => match Dataplane::start(*setup, fds) {
                Ok(dataplane) => {
                    let ports = dataplane.ports();
                    self.dataplane = Some(dataplane);
                    Reply::Ready { ports }
                }
                Err(error) => {
                    let message = error.to_string();
                    failed = Some(error);
                    Reply::Error { message }
                }
            },
            (Request::Setup(_), Some(_)) => error("this dataplane has been set up already"),
            (Request::Subscribe, _) => {
                self.clients.get_mut(index).subscribe();
                Reply::Ok
            }
            (Request::Drain { timeout_ms }, Some(_)) => {
                self.start_drain(Duration::from_millis(timeout_ms));
                Reply::Ok
            }
            (Request::Shutdown, _) => {
                exit = true;
                Reply::Ok
            }
            (_, None) => error("this dataplane has not been set up"),
            (request, Some(dataplane)) => dataplane.answer(request),
        };
        let adopted = matches!(reply, Reply::Adopted { .. });
        let message = Envelope {
            id,
            body: FromDataplane::Reply(reply),
        };
        let fds: Vec<BorrowedFd<'_>> = match &self.dataplane {
            Some(dataplane) if adopted => dataplane.fds.iter().map(AsFd::as_fd).collect(),
            _ => Vec::new(),
        };
        if !self.clients.get_mut(index).send(&message, &fds) {
            self.clients.remove(index);
        }
        match failed {
            Some(error) => Err(error),
            None if exit => Ok(After::Exit),
            None => Ok(After::GoOn),
        }
    }

    fn start_drain(&mut self, timeout: Duration) {
        if let Some(dataplane) = &mut self.dataplane {
            dataplane.draining = true;
            dataplane.tell_all(|| Mail::Drain);
        }
        self.drain = Some(Drain {
            until: Instant::now() + timeout.min(DRAIN_MAX),
            aborted: false,
        });
    }

    /// Has a drain come to its end? Past its time, what lives is aborted first.
    fn drained(&mut self) -> bool {
        let (Some(drain), Some(dataplane)) = (&mut self.drain, &self.dataplane) else {
            return false;
        };
        let snapshots = dataplane.snapshots(0, 0);
        let live: u64 = snapshots.iter().map(|s| s.worker.connections).sum();
        // Who does not answer may have connections left.
        let idle = live == 0 && snapshots.len() == dataplane.mailboxes.len();
        if !idle && Instant::now() >= drain.until {
            if drain.aborted {
                return true;
            }
            drain.aborted = true;
            drain.until += DRAIN_CHECK;
            dataplane.tell_all(|| Mail::AbortAll);
        }
        idle
    }

    fn exit(self) {
        if let Some(dataplane) = self.dataplane
            && !dataplane.stop()
        {
            tracing::error!("frames were lost: see above");
        }
    }
}

impl Dataplane {
    fn ports(&self) -> Vec<crate::control::PortReport> {
        self.snapshots(0, 0)
            .into_iter()
            .flat_map(|s| s.ports)
            .collect()
    }

    fn tell_all(&self, mail: impl Fn() -> Mail) {
        for mailbox in &self.mailboxes {
            if mailbox.send(mail()).is_err() {
                tracing::error!("a worker does not read its mail");
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Adopt => Reply::Adopted {
                setup: Box::new(self.setup.clone()),
                connections: self
                    .snapshots(0, 0)
                    .iter()
                    .map(|s| s.worker.connections)
                    .sum(),
            },
            Request::Status => Reply::Status(Box::new(StatusReport {
                pid: std::process::id(),
                uptime_s: self.started.elapsed().as_secs(),
                draining: self.draining,
                workers: self.snapshots(0, 0).into_iter().map(|s| s.worker).collect(),
            })),
            Request::Conns { offset } => {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                let snapshots = self.snapshots(offset, CONNS_PER_REPLY);
                Reply::Conns {
                    total: snapshots.iter().map(|s| s.worker.connections).sum(),
                    conns: fitting(
                        snapshots.into_iter().flat_map(|s| s.conns).collect(),
                        CONNS_BYTES_MAX,
                    ),
                }
            }
            Request::Counters => Reply::Counters {
                counters: self
                    .counters()
                    .nonzero()
                    .map(|(n, v)| (n.to_owned(), v))
                    .collect(),
            },
            Request::Xsk => {
                let snapshots = self.snapshots(0, 0);
                let (ports, pools): (Vec<_>, Vec<_>) =
                    snapshots.into_iter().map(|s| (s.ports, s.pools)).unzip();
                Reply::Xsk {
                    ports: ports.concat(),
                    pools: pools.concat(),
                }
            }
            Request::Connect {
                name,
                path,
                app: setup,
            } => {
                let Some(path) = self.path(&path) else {
                    return no_interface();
                };
                let worker = self.next_worker % self.mailboxes.len();
                self.next_worker += 1;
                let name: Arc<str> = Arc::from(name);
                let app = app(&setup);
                match self.ask(worker, |answer| Mail::Connect {
                    name,
                    path,
                    app,
                    answer,
                }) {
                    Some(Ok(token)) => Reply::Connecting { token },
                    Some(Err(e)) => error(&e.to_string()),
                    None => hangs(),
                }
            }
            Request::Command { token, command } => self.command(token, command),
            Request::LinkState { ifindex, carrier } => {
                let Some(port) = self.port(ifindex) else {
                    return no_interface();
                };
                self.tell_all(|| Mail::Carrier { port, up: carrier });
                Reply::Ok
            }
            Request::Neighbour {
                ifindex,
                remote,
                mac,
            } => {
                let Some(port) = self.port(ifindex) else {
                    return no_interface();
                };
                self.tell_all(|| Mail::Neighbour { port, remote, mac });
                Reply::Ok
            }
            Request::Limits {
                subflows_max,
                accept_addresses,
            } => {
                self.tell_all(|| Mail::Limits {
                    subflows_max,
                    accept_addresses,
                });
                self.setup.mptcp.subflows_max = subflows_max;
                self.setup.mptcp.accept_addresses = accept_addresses;
                Reply::Ok
            }
            Request::Announcements { announcements } => {
                let list: Arc<[_]> = announcements.as_slice().into();
                for mailbox in &self.mailboxes {
                    if mailbox.send(Mail::Announcements(list.clone())).is_err() {
                        return hangs();
                    }
                }
                self.setup.announcements = announcements;
                Reply::Ok
            }
            Request::Services { services: setups } => {
                for mailbox in &self.mailboxes {
                    let list: Vec<Service<_>> = services(&setups);
                    if mailbox.send(Mail::Services(list)).is_err() {
                        return hangs();
                    }
                }
                self.setup.services = setups;
                Reply::Ok
            }
            Request::Setup(_) | Request::Subscribe | Request::Drain { .. } | Request::Shutdown => {
                error("answered elsewhere")
            }
        }
    }

    fn command(&self, token: u32, command: ConnCommand) -> Reply {
        let order = match command {
            ConnCommand::OpenSubflow { path } => match self.path(&path) {
                Some(path) => Order::OpenSubflow(path),
                None => return no_interface(),
            },
            ConnCommand::Announce {
                address_id,
                address,
                port,
            } => Order::Announce {
                address_id: AddressId(address_id),
                address,
                port,
            },
            ConnCommand::RemoveAddress { address_id } => Order::RemoveAddress {
                address_id: AddressId(address_id),
            },
            ConnCommand::SetBackup { address_id, backup } => Order::SetBackup {
                address_id: AddressId(address_id),
                backup,
            },
            ConnCommand::CloseSubflow { local, remote } => {
                Order::CloseSubflow(FourTuple { local, remote })
            }
            ConnCommand::Close => Order::Close,
            ConnCommand::Abort => Order::Abort,
        };
        let workers = u32::try_from(self.mailboxes.len()).expect("workers are counted in u16");
        let worker = usize::try_from(token % workers).expect("a worker's number");
        if matches!(order, Order::Announce { .. }) {
            // One for every connection that comes, and many come at once: this thread must not
            // wait for a worker's turn each time. A connection that is gone needs none.
            let (answer, _) = crossbeam::channel::bounded(1);
            let order = Mail::Order {
                token,
                order,
                answer,
            };
            return match self.mailboxes[worker].send(order) {
                Ok(()) => Reply::Ok,
                Err(_) => hangs(),
            };
        }
        match self.ask(worker, |answer| Mail::Order {
            token,
            order,
            answer,
        }) {
            Some(Ok(())) => Reply::Ok,
            Some(Err(e)) => error(&e.to_string()),
            None => hangs(),
        }
    }

    fn ask<T>(
        &self,
        worker: usize,
        mail: impl FnOnce(crossbeam::channel::Sender<T>) -> Mail,
    ) -> Option<T> {
        let (answer, waiting) = crossbeam::channel::bounded(1);
        self.mailboxes[worker].send(mail(answer)).ok()?;
        waiting.recv_timeout(ANSWER_TIMEOUT).ok()
    }

    fn port(&self, ifindex: u32) -> Option<PortId> {
        let index = self
            .setup
            .interfaces
            .iter()
            .position(|i| i.ifindex == ifindex)?;
        u16::try_from(index).ok().map(PortId)
    }

    fn path(&self, path: &PathSetup) -> Option<SubflowPath> {
        let port = self.port(path.ifindex)?;
        let interface = &self.setup.interfaces[usize::from(port.0)];
        Some(SubflowPath {
            port,
            l2: L2Header {
                dst: EthernetAddress(path.next_hop_mac),
                src: EthernetAddress(interface.mac),
                vlan: Default::default(),
            },
            tuple: FourTuple {
                local: path.local,
                remote: path.remote,
            },
            mtu: path.mtu.min(interface.mtu),
            local_id: AddressId(path.local_id),
            remote_id: AddressId(path.remote_id),
            backup: path.backup,
        })
    }
}

/// As many of `conns`, from the first, as fit `bytes_max` of JSON; at least one, if need be
/// without those of its subflows that do not fit. Who asks goes on behind the last.
fn fitting(mut conns: Vec<ConnReport>, bytes_max: usize) -> Vec<ConnReport> {
    let bytes = |conn: &ConnReport| serde_json::to_vec(conn).map_or(usize::MAX, |b| b.len() + 1);
    if let Some(first) = conns.first_mut() {
        while bytes(first) > bytes_max {
            let (live, closed) = (&mut first.info.subflows, &mut first.info.closed_subflows);
            if !closed.is_empty() {
                closed.truncate(closed.len() / 2);
            } else if !live.is_empty() {
                live.truncate(live.len() / 2);
            } else {
                break;
            }
        }
    }
    let mut left = bytes_max;
    let fits = conns
        .iter()
        .take_while(|conn| match left.checked_sub(bytes(conn)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        })
        .count();
    conns.truncate(fits.max(1));
    conns
}

fn error(message: &str) -> Reply {
    Reply::Error {
        message: message.to_owned(),
    }
}

fn no_interface() -> Reply {
    error("the dataplane does not use this interface: add an [[interface]] and restart braidd")
}

fn hangs() -> Reply {
    error("a worker does not answer: see `braid status`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::transport;
    use crate::mptcp::{ConnInfo, SubflowId, Totals};

    fn conn(token: u32, closed: usize) -> ConnReport {
        let info = ConnInfo {
            token,
            remote_token: Some(1),
            state: "M_ESTABLISHED".to_owned(),
            mptcp: true,
            version: Some(1),
            fallback: None,
            server: true,
            checksum: false,
            fully_established: true,
            bytes_taken: 0,
            bytes_acked: 0,
            bytes_delivered: 0,
            send_queue_bytes: 0,
            recv_queue_bytes: 0,
            out_of_order_bytes: 0,
            send_queue_frames: 0,
            recv_queue_frames: 0,
            age_ms: 0,
            totals: Totals::default(),
            announced: Vec::new(),
            subflows: Vec::new(),
            closed_subflows: (0..closed)
                .map(|i| crate::mptcp::ClosedSubflowInfo {
                    id: SubflowId(u16::try_from(i).unwrap()),
                    local: "10.0.0.1:7".parse().unwrap(),
                    remote: "10.0.0.2:7".parse().unwrap(),
                    error: "timed out".to_owned(),
                    totals: Totals::default(),
                })
                .collect(),
        };
        ConnReport {
            worker: 0,
            service: "echo".to_owned(),
            info,
        }
    }

    #[test]
    fn a_termination_arrives_where_it_is_waited_for() {
        // In a thread of its own: masks are per thread.
        let got = std::thread::spawn(|| {
            let signals = terminations().unwrap();
            assert!(signals.read_signal().unwrap().is_none());
            nix::sys::signal::raise(Signal::SIGTERM).unwrap();
            signals.read_signal().unwrap().is_some()
        });
        assert!(got.join().unwrap());
    }

    /// The whole loop without a setup: refuses what needs one, survives clients that vanish,
    /// ends when told.
    #[test]
    fn the_loop_survives_its_clients() {
        let path = std::env::temp_dir().join(format!("braid-serve-{}", std::process::id()));
        let kind = socket2::Type::from(nix::libc::SOCK_SEQPACKET);
        let listener = Socket::new(socket2::Domain::UNIX, kind, None).unwrap();
        let address = socket2::SockAddr::unix(&path).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(8).unwrap();
        let server = std::thread::spawn(move || serve(&listener));
        let connect = || {
            let socket = Socket::new(socket2::Domain::UNIX, kind, None).unwrap();
            socket.connect(&address).unwrap();
            socket
        };
        for _ in 0..20 {
            drop(connect());
            let babbler = connect();
            babbler.send(b"{}").unwrap();
        }
        let client = connect();
        let ask = |id, body| {
            transport::send(client.as_fd(), &Envelope { id, body }, &[]).unwrap();
            let (answer, _) =
                transport::receive::<Envelope<FromDataplane>>(client.as_fd()).unwrap();
            assert_eq!(answer.id, id);
            answer.body
        };
        assert!(matches!(
            ask(1, Request::Status),
            FromDataplane::Reply(Reply::Error { .. })
        ));
        assert!(matches!(
            ask(2, Request::Shutdown),
            FromDataplane::Reply(Reply::Ok)
        ));
        assert!(server.join().unwrap().is_ok());
        std::fs::remove_file(&path).unwrap();
    }

    fn bytes(conns: &[ConnReport]) -> usize {
        serde_json::to_vec(conns).unwrap().len()
    }

    #[test]
    fn a_reply_holds_what_fits_and_always_makes_progress() {
        let all: Vec<_> = (0..4).map(|i| conn(i, 8)).collect();
        let tokens =
            |conns: Vec<ConnReport>| -> Vec<u32> { conns.iter().map(|c| c.info.token).collect() };
        assert_eq!(tokens(fitting(all.clone(), 1 << 20)), [0, 1, 2, 3]);
        let two = fitting(all.clone(), bytes(&all[..2]) + 1);
        assert!(bytes(&two) <= bytes(&all[..2]) + 1);
        assert_eq!(tokens(two), [0, 1]);
        // One that no message could carry loses subflows, not the client its answer.
        let big = fitting(vec![conn(9, 400), conn(10, 0)], 4096);
        assert!(bytes(&big) <= 4096 + 1, "{}", bytes(&big));
        assert_eq!(big[0].info.token, 9);
        assert!(!big[0].info.closed_subflows.is_empty());
        assert!(fitting(Vec::new(), 4096).is_empty());
    }
}
