//! The sockets themselves, for both sides and both channels.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect as connect_to,
    listen as listen_on, socket_with,
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another braidd.
    #[error(
        "another braidd (pid {pid}) runs on {path}; stop it with: kill {pid}, or give this one another control.socket"
    )]
    Busy {
        /// The socket.
        path: String,
        /// Who listens.
        pid: i32,
    },
    /// The file system.
    #[error("cannot create the socket {path}: {source}; create its folder with: mkdir -p {folder}")]
    Create {
        /// The socket.
        path: String,
        /// Its folder.
        folder: String,
        /// Why not.
        source: io::Error,
    },
}

fn socket(nonblocking: bool) -> Result<OwnedFd, Errno> {
    let flags = if nonblocking {
        SocketFlags::NONBLOCK
    } else {
        SocketFlags::empty()
    };
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Connects to a control socket.
///
/// # Errors
/// The kernel's; `NOENT` and `CONNREFUSED` mean that nobody listens.
pub fn connect(path: &Path, nonblocking: bool) -> Result<OwnedFd, Errno> {
    let socket = socket(nonblocking)?;
    connect_to(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The process that listens on a socket, if any does.
#[must_use]
pub fn probe(path: &Path) -> Option<i32> {
    let socket = connect(path, false).ok()?;
    Some(socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get())
}

/// Creates a listening socket that only this user may use, over a stale file.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(path: &Path) -> Result<OwnedFd, ListenError> {
    if let Some(pid) = probe(path) {
        return Err(ListenError::Busy {
            path: path.display().to_string(),
            pid,
        });
    }
    let create = || -> io::Result<OwnedFd> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = socket(true)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before listen(2), so there is no moment of wider access.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        listen_on(&socket, BACKLOG)?;
        Ok(socket)
    };
    create().map_err(|source| ListenError::Create {
        path: path.display().to_string(),
        folder: path
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string(),
        source,
    })
}
