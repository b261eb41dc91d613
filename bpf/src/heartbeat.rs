//! The dataplane's sign of life. The program redirects and drops packets of
//! ours only while the last beat is less than a second old; after that the
//! kernel gets them.
//!
//! The map is one page shared with the kernel, so that a beat is one store.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::MapError;
use crate::map::{Map, Spec};

/// How old a beat may be, as `HEARTBEAT_FRESH_NS` in the program. Beat a
/// hundred times as often.
pub const HEARTBEAT_FRESH: Duration = Duration::from_secs(1);

/// The mapped heartbeat. Any thread may beat, and read.
#[derive(Debug)]
pub struct Heartbeat {
    map: Map,
    slot: NonNull<AtomicU64>,
    mapped_bytes: usize,
}

// SAFETY: `slot` points into a mapping that lives as long as `self` and is only
// accessed atomically.
unsafe impl Send for Heartbeat {}
// SAFETY: as above.
unsafe impl Sync for Heartbeat {}

impl Heartbeat {
    /// Maps a heartbeat map, created by this process or sent by another one.
    ///
    /// # Errors
    /// The descriptor is not a heartbeat map of this version of the program,
    /// or cannot be mapped.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, MapError> {
        let spec = Spec {
            name: "heartbeat",
            kind: libbpf_rs::MapType::Array,
            key_bytes: 4,
            value_bytes: 8,
            entries: 1,
        };
        let map = Map::from_fd(fd, &spec)?;
        // SAFETY: no pointers involved.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let mapped_bytes = usize::try_from(page_bytes).expect("pages have a size");
        // SAFETY: a new mapping at an address of the kernel's choice. The map
        // has one value of 8 bytes, for which the kernel holds a page.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(MapError::Kernel {
                map: spec.name,
                operation: "mmap",
                source: io::Error::last_os_error(),
            });
        }
        let slot = NonNull::new(address.cast()).expect("the kernel maps nothing at address 0");
        Ok(Self {
            map,
            slot,
            mapped_bytes,
        })
    }

    /// The clock that beats are in: CLOCK_MONOTONIC.
    #[must_use]
    pub fn now_ns() -> u64 {
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes a local; this clock exists on every Linux, so the call
        // cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds * 1_000_000_000 + nanoseconds
    }

    fn slot(&self) -> &AtomicU64 {
        // SAFETY: mapped, page aligned and zeroed by the kernel, valid until
        // drop; others access it atomically only (BPF loads 8 aligned bytes).
        unsafe { self.slot.as_ref() }
    }

    /// Says that the dataplane lives, at `now_ns` of CLOCK_MONOTONIC.
    pub fn beat(&self, now_ns: u64) {
        self.slot().store(now_ns, Ordering::Relaxed);
    }

    /// Says that the dataplane stops: from the next packet on the kernel gets
    /// everything.
    pub fn stop(&self) {
        self.slot().store(0, Ordering::Relaxed);
    }

    /// The last beat in ns of CLOCK_MONOTONIC; none if there never was one or
    /// it was stopped.
    #[must_use]
    pub fn last_ns(&self) -> Option<u64> {
        match self.slot().load(Ordering::Relaxed) {
            0 => None,
            beat_ns => Some(beat_ns),
        }
    }

    /// Whether the program takes the dataplane for alive at `now_ns`.
    #[must_use]
    pub fn is_fresh(&self, now_ns: u64) -> bool {
        self.last_ns().is_some_and(|beat_ns| {
            u128::from(now_ns.saturating_sub(beat_ns)) < HEARTBEAT_FRESH.as_nanos()
        })
    }
}

impl AsFd for Heartbeat {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // SAFETY: exactly what `from_fd` mapped, and nothing borrows it now.
        unsafe { libc::munmap(self.slot.as_ptr().cast(), self.mapped_bytes) };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fresh_means_the_same_to_the_program() {
        let header = include_str!("bpf/verdict.h");
        let line = format!(
            "#define HEARTBEAT_FRESH_NS {}LL",
            super::HEARTBEAT_FRESH.as_nanos()
        );
        assert!(header.contains(&line));
    }
}
