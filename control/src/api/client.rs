//! The blocking side of the control socket, for commands.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use braid_dataplane::control::ConnReport;
use braid_dataplane::control::transport::{self, TransportError};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{ApiReply, ApiRequest};

/// braidd answers at once, except for `connect`, which may wait for ARP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// braidd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error(
        "braidd is not running on {}; start it with: braidd --config FILE (or name its socket with --socket)",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// The socket belongs to somebody else.
    #[error("not permitted to use {}; run as the user that runs braidd (root)", .0.display())]
    NotPermitted(PathBuf),
    /// Something else.
    #[error("cannot connect to {}: {source}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It hung up, or did not answer.
    #[error("braidd did not answer: {0}")]
    Transport(#[from] TransportError),
    /// It refused.
    #[error("{0}")]
    Refused(String),
    /// It answered something else.
    #[error("braidd answered something unexpected; are braid and braidd of one version?")]
    Unexpected,
}

/// A connection to braidd.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let socket = super::connect(path, false).map_err(|e| match e {
            Errno::NOENT | Errno::CONNREFUSED => ClientError::NotRunning(path.to_owned()),
            Errno::ACCESS | Errno::PERM => ClientError::NotPermitted(path.to_owned()),
            e => ClientError::Connect {
                path: path.to_owned(),
                source: e.into(),
            },
        })?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))
            .map_err(TransportError::from)?;
        Ok(Self { socket })
    }

    /// Asks; a refusal is an error.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask(&mut self, request: &ApiRequest) -> Result<ApiReply, ClientError> {
        transport::send(self.socket.as_fd(), request, &[])?;
        let (reply, _) = transport::receive::<ApiReply>(self.socket.as_fd())?;
        match reply {
            ApiReply::Error { message } => Err(ClientError::Refused(message)),
            reply => Ok(reply),
        }
    }

    /// All connections, page by page.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn conns(&mut self) -> Result<Vec<ConnReport>, ClientError> {
        let mut all = Vec::new();
        loop {
            let offset = u64::try_from(all.len()).unwrap_or(u64::MAX);
            let ApiReply::Conns { total, conns } = self.ask(&ApiRequest::Conns { offset })? else {
                return Err(ClientError::Unexpected);
            };
            let last = conns.is_empty();
            all.extend(conns);
            if last || u64::try_from(all.len()).unwrap_or(u64::MAX) >= total {
                return Ok(all);
            }
        }
    }

    /// Subscribes to events and calls `each` until it says false or braidd hangs up.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn monitor(mut self, mut each: impl FnMut(ApiReply) -> bool) -> Result<(), ClientError> {
        self.ask(&ApiRequest::Monitor)?;
        set_socket_timeout(&self.socket, Timeout::Recv, None).map_err(TransportError::from)?;
        loop {
            match transport::receive::<ApiReply>(self.socket.as_fd()) {
                Ok((reply, _)) => {
                    if !each(reply) {
                        return Ok(());
                    }
                }
                Err(TransportError::Closed) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}
