//! The maps that all interfaces share, and where instances of the program come
//! from.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::ErrorKind;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use crate::claim::{Claim, ClaimKind, Claims};
use crate::counter::{Counter, Counters};
use crate::error::{LoadError, MapError};
use crate::heartbeat::Heartbeat;
use crate::interface::InterfaceProgram;
use crate::log;
use crate::skeleton::{OpenSteerSkel, SteerSkel, SteerSkelBuilder};
use crate::xskmap::XskMap;

/// Descriptors of the shared maps, as they travel between processes.
#[derive(Debug)]
pub struct SteerFds {
    /// Of [`Claims`].
    pub claims: OwnedFd,
    /// Of [`Heartbeat`].
    pub heartbeat: OwnedFd,
    /// Of [`Counters`].
    pub counters: OwnedFd,
}

/// The steering of all interfaces: what is ours, whether the dataplane lives,
/// and what became of the packets. Loading needs CAP_BPF and CAP_NET_ADMIN;
/// everything on maps afterwards needs no capability.
#[derive(Debug)]
pub struct Steer {
    claims: Claims,
    heartbeat: Heartbeat,
    counters: Counters,
}

impl Steer {
    /// Creates the shared maps, empty, and with them shows that the kernel
    /// takes the program.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load() -> Result<Self, LoadError> {
        with_loaded(None, |skel| {
            Ok(Self::from_fds(SteerFds {
                claims: owned(skel.maps.claims.as_fd())?,
                heartbeat: owned(skel.maps.heartbeat.as_fd())?,
                counters: owned(skel.maps.counters.as_fd())?,
            })?)
        })
    }

    /// Takes over maps that another process holds and that running programs
    /// use.
    ///
    /// # Errors
    /// [`MapError::Mismatch`] if they are those of another version.
    pub fn from_fds(fds: SteerFds) -> Result<Self, MapError> {
        Ok(Self {
            claims: Claims::from_fd(fds.claims)?,
            heartbeat: Heartbeat::from_fd(fds.heartbeat)?,
            counters: Counters::from_fd(fds.counters)?,
        })
    }

    /// A new instance of the program, with an XSKMAP of its own, for one
    /// interface. It sees no packet before it is attached.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn interface(&self, ifindex: u32) -> Result<InterfaceProgram, LoadError> {
        with_loaded(Some(self), |skel| {
            Ok(InterfaceProgram::new(
                ifindex,
                owned(skel.progs.steer.as_fd())?,
                XskMap::from_fd(owned(skel.maps.xsks.as_fd())?)?,
            ))
        })
    }

    /// What is claimed.
    #[must_use]
    pub fn claims_map(&self) -> &Claims {
        &self.claims
    }

    /// The dataplane's sign of life.
    #[must_use]
    pub fn heartbeat(&self) -> &Heartbeat {
        &self.heartbeat
    }

    /// The counter map.
    #[must_use]
    pub fn counters_map(&self) -> &Counters {
        &self.counters
    }

    /// See [`Claims::add`].
    ///
    /// # Errors
    /// See [`Claims::add`].
    pub fn claim_add(&self, claim: Claim, kind: ClaimKind) -> Result<(), MapError> {
        self.claims.add(claim, kind)
    }

    /// See [`Claims::remove`].
    ///
    /// # Errors
    /// See [`Claims::remove`].
    pub fn claim_remove(&self, claim: Claim) -> Result<bool, MapError> {
        self.claims.remove(claim)
    }

    /// See [`Claims::list`].
    ///
    /// # Errors
    /// See [`Claims::list`].
    pub fn claims(&self) -> Result<Vec<(Claim, ClaimKind)>, MapError> {
        self.claims.list()
    }

    /// See [`Counters::read`].
    ///
    /// # Errors
    /// See [`Counters::read`].
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, MapError> {
        self.counters.read()
    }

    /// To send to another process.
    #[must_use]
    pub fn claims_fd(&self) -> BorrowedFd<'_> {
        self.claims.as_fd()
    }

    /// To send to another process.
    #[must_use]
    pub fn heartbeat_fd(&self) -> BorrowedFd<'_> {
        self.heartbeat.as_fd()
    }

    /// To send to another process.
    #[must_use]
    pub fn counters_fd(&self) -> BorrowedFd<'_> {
        self.counters.as_fd()
    }
}

/// Loads an object and shows it to `take`, which duplicates the descriptors
/// that outlive it.
fn with_loaded<T>(
    shared: Option<&Steer>,
    take: impl FnOnce(&SteerSkel<'_>) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let (taken, log) = log::capture(|| {
        let mut storage = MaybeUninit::uninit();
        let mut open: OpenSteerSkel<'_> = SteerSkelBuilder::default().open(&mut storage)?;
        if let Some(shared) = shared {
            open.maps.claims.reuse_fd(shared.claims_fd())?;
            open.maps.heartbeat.reuse_fd(shared.heartbeat_fd())?;
            open.maps.counters.reuse_fd(shared.counters_fd())?;
        }
        let skel = open.load()?;
        Ok(take(&skel))
    });
    taken.unwrap_or_else(|source: libbpf_rs::Error| {
        Err(match source.kind() {
            ErrorKind::PermissionDenied => LoadError::NotPermitted,
            _ => LoadError::Refused { source, log },
        })
    })
}

fn owned(fd: BorrowedFd<'_>) -> Result<OwnedFd, LoadError> {
    fd.try_clone_to_owned().map_err(LoadError::Descriptor)
}
