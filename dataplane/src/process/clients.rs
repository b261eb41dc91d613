//! Control planes that are connected: usually one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::control::transport::{self, TransportError};
use crate::control::{DataplaneEvent, Envelope, FromDataplane, Request};

/// Clients at the most: the daemon, its successor, and a few curious.
const CLIENTS_MAX: usize = 8;

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
        match transport::send(self.socket.as_fd(), message, fds) {
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
