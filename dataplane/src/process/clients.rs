//! Control planes that are connected: usually one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};

use crate::control::transport::{self, TransportError};
use crate::control::{DataplaneEvent, Envelope, FromDataplane, Reply, Request};

/// Clients at the most: the daemon, its successor, and a few curious.
const CLIENTS_MAX: usize = 8;

/// Events of a message at the most.
const EVENTS_PER_MESSAGE: usize = 128;

/// How long an answer waits for a client that reads slowly: the control thread waits with
/// it, so not for long.
const READER_PATIENCE_MS: u8 = 250;

/// One connected control plane. Its socket does not block.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    subscribed: bool,
    lost: u64,
}

/// What a readable client gave.
pub(super) enum Input {
    /// A request with its descriptors.
    Request(Envelope<Request>, Vec<OwnedFd>),
    /// Nothing at the moment.
    Nothing,
    /// It is gone, or talks nonsense.
    Gone,
}

impl Client {
    pub(super) fn subscribe(&mut self) {
        self.subscribed = true;
    }

    fn read(&self, buffer: &mut Vec<u8>) -> Input {
        match transport::receive_into(self.socket.as_fd(), buffer) {
            Ok((request, fds)) => Input::Request(request, fds),
            Err(e) if e.would_block() => Input::Nothing,
            Err(TransportError::Closed) => Input::Gone,
            Err(error) => {
                tracing::warn!(%error, "control client dropped");
                Input::Gone
            }
        }
    }

    /// False when the client must be dropped: it asks and does not read.
    pub(super) fn send(&self, message: &Envelope<FromDataplane>, fds: &[BorrowedFd<'_>]) -> bool {
        let mut sent = transport::send(self.socket.as_fd(), message, fds);
        if matches!(&sent, Err(e) if e.would_block()) {
            // Events may fill the socket of a reader that is merely behind.
            let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
            let _ = poll(&mut socket, READER_PATIENCE_MS);
            sent = transport::send(self.socket.as_fd(), message, fds);
        }
        if let Err(error @ TransportError::TooLarge(_)) = &sent {
            let message = Envelope {
                id: message.id,
                body: FromDataplane::Reply(Reply::Error {
                    message: error.to_string(),
                }),
            };
            sent = transport::send(self.socket.as_fd(), &message, &[]);
        }
        match sent {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "control client dropped");
                false
            }
        }
    }

    /// Sends a message of `count` events; false when the client must be dropped.
    fn events(&mut self, message: &[u8], count: u64) -> bool {
        if self.lost > 0 {
            let lost = unasked(vec![DataplaneEvent::Lost { count: self.lost }]);
            match transport::send(self.socket.as_fd(), &lost, &[]) {
                Ok(()) => self.lost = 0,
                Err(e) if e.would_block() => {
                    self.lost += count;
                    return true;
                }
                Err(_) => return false,
            }
        }
        match transport::send_bytes(self.socket.as_fd(), message, &[]) {
            Ok(()) => true,
            Err(e) if e.would_block() => {
                self.lost += count;
                true
            }
            Err(_) => false,
        }
    }
}

fn unasked(events: Vec<DataplaneEvent>) -> Envelope<FromDataplane> {
    Envelope {
        id: 0,
        body: FromDataplane::Events(events),
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    list: Vec<Client>,
    /// Where messages arrive.
    received: Vec<u8>,
}

impl Clients {
    pub(super) fn add(&mut self, socket: OwnedFd) {
        if self.list.len() >= CLIENTS_MAX {
            tracing::warn!("too many control clients: one more refused");
            return;
        }
        self.list.push(Client {
            socket,
            subscribed: false,
            lost: 0,
        });
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Client> {
        self.list.iter()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Client {
        &mut self.list[index]
    }

    pub(super) fn read(&mut self, index: usize) -> Input {
        self.list[index].read(&mut self.received)
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.list.remove(index);
    }

    /// To every subscriber.
    pub(super) fn broadcast(&mut self, mut events: Vec<DataplaneEvent>) {
        while !events.is_empty() && self.list.iter().any(|c| c.subscribed) {
            let rest = events.split_off(events.len().min(EVENTS_PER_MESSAGE));
            self.broadcast_message(std::mem::replace(&mut events, rest));
        }
    }

    fn broadcast_message(&mut self, events: Vec<DataplaneEvent>) {
        let count = events.len();
        let message = unasked(events);
        let bytes = match (transport::encode(&message), message.body) {
            (Ok(bytes), _) => bytes,
            // Long words in some of them.
            (Err(TransportError::TooLarge(_)), FromDataplane::Events(mut events)) if count > 1 => {
                let rest = events.split_off(count / 2);
                self.broadcast_message(events);
                return self.broadcast_message(rest);
            }
            (Err(error), _) => return tracing::warn!(%error, "an event cannot be told"),
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.list
            .retain_mut(|client| !client.subscribed || client.events(&bytes, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::PollTimeout;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn clients() -> (Clients, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let mut clients = Clients::default();
        clients.add(ours);
        clients.get_mut(0).subscribe();
        (clients, theirs)
    }

    fn reply(message: String) -> Envelope<FromDataplane> {
        let body = FromDataplane::Reply(Reply::Error { message });
        Envelope { id: 7, body }
    }

    #[test]
    fn who_does_not_read_loses_events_and_is_told_later() {
        let (mut clients, theirs) = clients();
        let events = || vec![DataplaneEvent::Drained; 2];
        for _ in 0..2_500 {
            clients.broadcast(events());
        }
        assert_eq!(clients.iter().count(), 1, "a slow reader is kept");
        let mut read = 0;
        while transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()).is_ok() {
            read += 2;
        }
        clients.broadcast(events());
        let (first, _) = transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()).unwrap();
        match first.body {
            FromDataplane::Events(events) => match events[..] {
                [DataplaneEvent::Lost { count }] => assert_eq!(count + read, 5_000),
                _ => panic!("{events:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// However many come at once and however long their words: none is lost, none overtakes.
    #[test]
    fn many_events_go_in_messages_that_fit() {
        let (mut clients, theirs) = clients();
        let event = |worker: usize, length: usize| DataplaneEvent::Connection {
            worker,
            service: "x".repeat(length),
            event: crate::mptcp::Event::Echoed {
                token: 1,
                address_id: 1,
            },
        };
        let told = || {
            let mut messages = Vec::new();
            while let Ok((m, _)) = transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()) {
                let FromDataplane::Events(events) = m.body else {
                    panic!("only events were sent");
                };
                let worker = |e: &DataplaneEvent| match e {
                    DataplaneEvent::Connection { worker, .. } => *worker,
                    other => panic!("{other:?}"),
                };
                messages.push(events.iter().map(worker).collect::<Vec<_>>());
            }
            messages
        };
        clients.broadcast((0..300).map(|n| event(n, 1)).collect());
        let messages = told();
        assert_eq!(messages.concat(), (0..300).collect::<Vec<_>>());
        assert_eq!(messages.len(), 3);
        // Two of these are too long for one message.
        clients.broadcast(
            [(0, 85_000), (1, 1), (2, 85_000), (3, 1)]
                .map(|(n, length)| event(n, length))
                .into(),
        );
        let messages = told();
        assert_eq!(messages.concat(), [0, 1, 2, 3]);
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn an_answer_waits_for_a_slow_reader_but_not_for_one_that_never_reads() {
        let (mut clients, theirs) = clients();
        for _ in 0..5_000 {
            clients.broadcast(vec![DataplaneEvent::Drained]);
        }
        let answer = reply("x".to_owned());
        assert!(!clients.get_mut(0).send(&answer, &[]), "nobody reads");
        let reader = std::thread::spawn(move || {
            let mut fds = [PollFd::new(theirs.as_fd(), PollFlags::POLLIN)];
            loop {
                poll(&mut fds, PollTimeout::NONE).unwrap();
                let (m, _) = transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()).unwrap();
                if m.id == 7 {
                    return;
                }
            }
        });
        assert!(clients.get_mut(0).send(&answer, &[]), "the reader is slow");
        reader.join().unwrap();
    }

    #[test]
    fn an_answer_too_large_becomes_an_error() {
        let (mut clients, theirs) = clients();
        let answer = reply("x".repeat(transport::MESSAGE_MAX_BYTES));
        assert!(clients.get_mut(0).send(&answer, &[]));
        let (got, _) = transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()).unwrap();
        assert_eq!(got.id, 7);
        match got.body {
            FromDataplane::Reply(Reply::Error { message }) => {
                assert!(message.contains("too large"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_gone_is_dropped() {
        let (mut clients, theirs) = clients();
        drop(theirs);
        clients.broadcast(vec![DataplaneEvent::Drained]);
        assert_eq!(clients.iter().count(), 0);
    }
}
