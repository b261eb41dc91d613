//! The daemon's side of the control socket: one task per client, every request handed to
//! the daemon's loop.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use braid_dataplane::control::transport::TransportError;
use rustix::net::{SocketFlags, accept_with};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{ApiEvent, ApiReply, ApiRequest, MonitorEvent};
use crate::daemon::channel::Channel;
use crate::daemon::watch::watch;

/// Clients at the most: each is a task and a descriptor.
const CLIENTS_MAX: usize = 64;

/// A request on its way to the daemon's loop.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: ApiRequest,
    /// Where the answer goes.
    pub answer: oneshot::Sender<ApiReply>,
}

/// Accepts clients for as long as the daemon lives.
///
/// # Errors
/// The socket cannot be polled.
pub async fn serve(
    listener: OwnedFd,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<Arc<MonitorEvent>>,
) -> io::Result<()> {
    let listener = watch(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    loop {
        let mut ready = listener.readable().await?;
        let accepted = ready.try_io(|l| {
            Ok(accept_with(
                l.get_ref(),
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            )?)
        });
        let socket = match accepted {
            Err(_would_block) => continue,
            Ok(Ok(socket)) => socket,
            Ok(Err(e)) => {
                tracing::warn!("accept on the control socket: {e}");
                // Out of descriptors: others must end first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let channel = Channel::new(socket)?;
        // Without a place the client is hung up on.
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let (calls, events) = (calls.clone(), events.clone());
            tokio::spawn(async move {
                if let Err(e) = client(channel, calls, events).await {
                    tracing::debug!("control client: {e}");
                }
                drop(place);
            });
        }
    }
}

async fn client(
    channel: Channel,
    calls: mpsc::Sender<Call>,
    events: broadcast::Sender<Arc<MonitorEvent>>,
) -> Result<(), TransportError> {
    loop {
        let request = match channel.receive::<ApiRequest>().await {
            Ok((request, _)) => request,
            Err(TransportError::Malformed(e)) => {
                let message = format!("not a request of this version of braid: {e}");
                channel.send(&ApiReply::Error { message }, &[]).await?;
                continue;
            }
            Err(TransportError::Closed) => return Ok(()),
            Err(e) => return Err(e),
        };
        if matches!(request, ApiRequest::Monitor) {
            let events = events.subscribe();
            let message = "monitoring".to_owned();
            channel.send(&ApiReply::Ok { message }, &[]).await?;
            return stream(channel, events).await;
        }
        let (answer, answered) = oneshot::channel();
        let gone = ApiReply::Error {
            message: "braidd is exiting".to_owned(),
        };
        let reply = match calls.send(Call { request, answer }).await {
            Ok(()) => answered.await.unwrap_or(gone),
            Err(_) => gone,
        };
        channel.send(&reply, &[]).await?;
    }
}

/// Sends events until the client or the daemon goes.
async fn stream(
    channel: Channel,
    mut events: broadcast::Receiver<Arc<MonitorEvent>>,
) -> Result<(), TransportError> {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // Whatever a monitor says but goodbye is not for us.
            said = channel.receive::<serde_json::Value>() => match said {
                Err(TransportError::Malformed(_)) | Ok(_) => continue,
                Err(TransportError::Closed) => return Ok(()),
                Err(e) => return Err(e),
            },
        };
        let event = match event {
            Ok(event) => (*event).clone(),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                super::stamp(ApiEvent::Missed { count })
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        channel.send(&ApiReply::Event(Box::new(event)), &[]).await?;
    }
}
