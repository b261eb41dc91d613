//! The end of every privilege: capabilities, bounding set, the way back.

use caps::CapSet;

/// Why privileges are still there.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A capability set could not be cleared.
    #[error("capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// `no_new_privs` could not be set.
    #[error("no_new_privs: {0}")]
    NoNewPrivs(#[from] nix::errno::Errno),
}

/// Drops every capability of the calling thread for good. Threads started afterwards
/// have none either; those that run already keep theirs, so call it before starting any.
///
/// # Errors
/// [`PrivilegeError`]; the caller must not go on then.
pub(super) fn drop_all() -> Result<(), PrivilegeError> {
    nix::sys::prctl::set_no_new_privs()?;
    // The bounding set needs CAP_SETPCAP: first. A process started without it has
    // nothing that exec could give back (no_new_privs), so that is not an error.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)? {
        caps::clear(None, CapSet::Bounding)?;
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_nothing_left() {
        // In a thread of its own: capabilities are per thread.
        std::thread::spawn(|| {
            drop_all().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                let line = status.lines().find(|l| l.starts_with(set)).unwrap();
                assert!(line.ends_with("\t0000000000000000"), "{line}");
            }
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        })
        .join()
        .unwrap();
    }
}
