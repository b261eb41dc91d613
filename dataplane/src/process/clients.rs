//! Control planes that are connected: usually one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};

use crate::control::transport::{self, TransportError};
use crate::control::{DataplaneEvent, Envelope, FromDataplane, Reply, Request};

/// Clients at the most: the daemon, its successor, and a few curious.
const CLIENTS_MAX: usize = 8;

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

    pub(super) fn read(&self) -> Input {
        match transport::receive(self.socket.as_fd()) {
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

    fn event(&mut self, event: &DataplaneEvent) -> bool {
        if self.lost > 0 {
            let lost = DataplaneEvent::Lost { count: self.lost };
            match self.send_event(lost) {
                Ok(()) => self.lost = 0,
                Err(e) if e.would_block() => {
                    self.lost += 1;
                    return true;
                }
                Err(_) => return false,
            }
        }
        match self.send_event(event.clone()) {
            Ok(()) => true,
            Err(e) if e.would_block() => {
                self.lost += 1;
                true
            }
            Err(_) => false,
        }
    }

    fn send_event(&self, event: DataplaneEvent) -> Result<(), TransportError> {
        let message = Envelope {
            id: 0,
            body: FromDataplane::Event(event),
        };
        transport::send(self.socket.as_fd(), &message, &[])
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Client>);

impl Clients {
    pub(super) fn add(&mut self, socket: OwnedFd) {
        if self.0.len() >= CLIENTS_MAX {
            tracing::warn!("too many control clients: one more refused");
            return;
        }
        self.0.push(Client {
            socket,
            subscribed: false,
            lost: 0,
        });
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Client> {
        self.0.iter()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Client {
        &mut self.0[index]
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.0.remove(index);
    }

    /// To every subscriber.
    pub(super) fn broadcast(&mut self, event: &DataplaneEvent) {
        self.0
            .retain_mut(|client| !client.subscribed || client.event(event));
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
        let event = DataplaneEvent::Drained;
        for _ in 0..5_000 {
            clients.broadcast(&event);
        }
        assert_eq!(clients.iter().count(), 1, "a slow reader is kept");
        let mut read = 0;
        while transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()).is_ok() {
            read += 1;
        }
        clients.broadcast(&event);
        let (first, _) = transport::receive::<Envelope<FromDataplane>>(theirs.as_fd()).unwrap();
        match first.body {
            FromDataplane::Event(DataplaneEvent::Lost { count }) => {
                assert_eq!(count + read, 5_000);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_waits_for_a_slow_reader_but_not_for_one_that_never_reads() {
        let (mut clients, theirs) = clients();
        for _ in 0..5_000 {
            clients.broadcast(&DataplaneEvent::Drained);
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
        clients.broadcast(&DataplaneEvent::Drained);
        assert_eq!(clients.iter().count(), 0);
    }
}
