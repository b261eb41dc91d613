//! The dataplane as a correspondent: requests with answers, and events.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use braid_dataplane::control::transport::TransportError;
use braid_dataplane::control::{DataplaneEvent, Envelope, FromDataplane, Reply, Request};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::sync::{mpsc, oneshot};

use super::channel::Channel;
use crate::api;

/// An order to running workers is answered within a turn of their loops.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Setting up allocates, and touches, all frame memory.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Events wait here; asked for, the kernel keeps a few hundred.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The dataplane could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// Nobody listens.
    #[error("cannot connect to the dataplane: {0}")]
    Connect(#[source] std::io::Error),
    /// The channel.
    #[error("the dataplane does not answer: {0}")]
    Transport(#[from] TransportError),
    /// No answer in time, or the dataplane ended.
    #[error("the dataplane does not answer")]
    NoAnswer,
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It said something else.
    #[error(
        "the dataplane answered something unexpected; are braidd and braid-dataplane of one version?"
    )]
    Unexpected,
}

type Answer = (Reply, Vec<OwnedFd>);

/// A connection to the dataplane.
#[derive(Debug)]
pub struct Dataplane {
    channel: Channel,
    next_id: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// One sender at a time: messages are whole, but their order matters.
    sending: tokio::sync::Mutex<()>,
}

impl Dataplane {
    /// Connects and reads until the dataplane hangs up. Events go to `events`, which is
    /// closed at the end.
    ///
    /// # Errors
    /// Nobody listens on `path`.
    pub fn connect(
        path: &Path,
        events: mpsc::UnboundedSender<Vec<DataplaneEvent>>,
    ) -> Result<Arc<Self>, DataplaneError> {
        let io = |e: rustix::io::Errno| DataplaneError::Connect(e.into());
        let socket = api::connect(path, true).map_err(io)?;
        // Best effort: the default suffices for everything but bursts of events.
        let _ = set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES);
        let this = Arc::new(Self {
            channel: Channel::new(socket).map_err(DataplaneError::Connect)?,
            next_id: AtomicU64::new(1),
            waiting: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
        });
        tokio::spawn(Arc::clone(&this).read(events));
        Ok(this)
    }

    async fn read(self: Arc<Self>, events: mpsc::UnboundedSender<Vec<DataplaneEvent>>) {
        loop {
            let received = tokio::select! {
                received = self.channel.receive::<Envelope<FromDataplane>>() => received,
                () = events.closed() => return,
            };
            match received {
                Ok((
                    Envelope {
                        id,
                        body: FromDataplane::Reply(reply),
                    },
                    fds,
                )) => {
                    let waiting = self.waiting().remove(&id);
                    match waiting {
                        // Who does not wait any more has timed out.
                        Some(answer) => drop(answer.send((reply, fds))),
                        None => tracing::warn!("an answer of the dataplane came too late"),
                    }
                }
                Ok((
                    Envelope {
                        body: FromDataplane::Events(batch),
                        ..
                    },
                    _,
                )) => {
                    if events.send(batch).is_err() {
                        return;
                    }
                }
                Err(TransportError::Malformed(e)) => tracing::warn!("from the dataplane: {e}"),
                Err(e) => {
                    if !matches!(e, TransportError::Closed) {
                        tracing::warn!("the dataplane's channel: {e}");
                    }
                    // Wakes everybody who waits for an answer.
                    self.waiting().clear();
                    return;
                }
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, with descriptors, and waits for the answer. A refusal is an error.
    ///
    /// # Errors
    /// See [`DataplaneError`].
    pub async fn ask_with(
        &self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Answer, DataplaneError> {
        let timeout = match request {
            Request::Setup(_) => SETUP_TIMEOUT,
            _ => ANSWER_TIMEOUT,
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(id, sender);
        let exchange = async {
            let turn = self.sending.lock().await;
            self.channel
                .send(&Envelope { id, body: request }, fds)
                .await?;
            drop(turn);
            receiver.await.map_err(|_| DataplaneError::NoAnswer)
        };
        let answer = tokio::time::timeout(timeout, exchange).await;
        self.waiting().remove(&id);
        match answer.map_err(|_| DataplaneError::NoAnswer)?? {
            (Reply::Error { message }, _) => Err(DataplaneError::Refused(message)),
            answer => Ok(answer),
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// See [`DataplaneError`].
    pub async fn ask(&self, request: Request) -> Result<Reply, DataplaneError> {
        self.ask_with(request, &[]).await.map(|(reply, _)| reply)
    }

    /// Asks for something that has no answer but yes or no.
    ///
    /// # Errors
    /// See [`DataplaneError`].
    pub async fn order(&self, request: Request) -> Result<(), DataplaneError> {
        match self.ask(request).await? {
            Reply::Ok => Ok(()),
            _ => Err(DataplaneError::Unexpected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use braid_dataplane::control::transport;
    use std::os::fd::AsFd;

    /// A dataplane of one thread that answers what `answers` says.
    fn fake(
        path: &Path,
        answers: impl Fn(Request) -> Vec<FromDataplane> + Send + 'static,
    ) -> std::thread::JoinHandle<()> {
        let listener = api::listen(path).unwrap();
        rustix::io::ioctl_fionbio(&listener, false).unwrap();
        std::thread::spawn(move || {
            let client = rustix::net::accept(&listener).unwrap();
            while let Ok((e, _)) = transport::receive::<Envelope<Request>>(client.as_fd()) {
                for body in answers(e.body) {
                    let id = if matches!(body, FromDataplane::Reply(_)) {
                        e.id
                    } else {
                        0
                    };
                    transport::send(client.as_fd(), &Envelope { id, body }, &[]).unwrap();
                }
            }
        })
    }

    #[tokio::test]
    async fn answers_find_who_asked_and_events_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        let thread = fake(&path, |request| match request {
            Request::Subscribe => vec![
                FromDataplane::Events(vec![DataplaneEvent::Drained]),
                FromDataplane::Reply(Reply::Ok),
            ],
            Request::Connect { .. } => vec![FromDataplane::Reply(Reply::Connecting { token: 9 })],
            _ => vec![FromDataplane::Reply(Reply::Error {
                message: "no".to_owned(),
            })],
        });
        let (tx, mut rx) = mpsc::unbounded_channel();
        let dataplane = Dataplane::connect(&path, tx).unwrap();
        dataplane.order(Request::Subscribe).await.unwrap();
        let told = rx.recv().await.unwrap();
        assert!(matches!(told[..], [DataplaneEvent::Drained]));
        let refused = dataplane.order(Request::Shutdown).await.unwrap_err();
        assert_eq!(refused.to_string(), "no");
        drop(rx);
        drop(dataplane);
        // The reader notices that nobody listens, and hangs up.
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_dataplane_that_hangs_up_leaves_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        let thread = fake(&path, |_| panic!("dies"));
        let (tx, mut rx) = mpsc::unbounded_channel();
        let dataplane = Dataplane::connect(&path, tx).unwrap();
        let error = dataplane.ask(Request::Status).await.unwrap_err();
        assert!(matches!(error, DataplaneError::NoAnswer), "{error}");
        assert!(rx.recv().await.is_none(), "the end is told");
        assert!(thread.join().is_err());
    }
}
