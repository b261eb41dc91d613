//! One UMEM for all sockets of one mode, partitioned among the workers.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use xsk_rs::Umem;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfigBuilder};

use super::descs::{Descs, UmemMemory};
use serde::{Deserialize, Serialize};

use super::error::OpenError;
use crate::buf::{FramePool, HEADROOM_BYTES};

/// Default size of a huge page on x86-64; its mappings must be multiples of it.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// What to do about huge pages.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HugePages {
    /// Use them if there are enough.
    #[default]
    Try,
    /// Fail without them.
    Require,
    /// Do not use them.
    Off,
}

/// Dimensions of a group.
#[derive(Clone, Debug)]
pub struct UmemConfig {
    /// Frames of each worker's pool.
    pub pools: Vec<u32>,
    /// 2048 or 4096.
    pub frame_bytes: u32,
    /// Entries of every socket's fill ring; a power of two.
    pub fill_ring: u32,
    /// Entries of every socket's completion ring; a power of two, and no smaller than any
    /// TX ring, so that completions always find room.
    pub completion_ring: u32,
    /// Huge pages.
    pub hugepages: HugePages,
    /// Most bytes that the group may take.
    pub memory_limit_bytes: u64,
}

/// One UMEM; see [`super`].
#[derive(Debug)]
pub struct UmemGroup {
    pub(super) umem: Umem,
    pub(super) descs: Arc<Descs>,
    pub(super) frames: u32,
    pub(super) frame_bytes: u32,
    pub(super) fill_ring: u32,
    pub(super) completion_ring: u32,
    /// Open sockets. Locked over opening and closing one: libxdp lends the UMEM's own
    /// descriptor to a socket that is opened when there is no other.
    pub(super) sockets: Arc<Mutex<u32>>,
    hugepages: bool,
}

impl UmemGroup {
    /// Maps and registers the memory, and cuts it into one pool per worker.
    pub fn create(config: &UmemConfig) -> Result<(Self, Vec<FramePool>), OpenError> {
        let frames = check(config)?;
        let huge = config.hugepages != HugePages::Off;
        let (umem, descs, hugepages) = match huge.then(|| map(config, frames, true)) {
            Some(Ok((umem, descs))) => (umem, descs, true),
            Some(Err(error)) if config.hugepages == HugePages::Require => return Err(error),
            _ => {
                let (umem, descs) = map(config, frames, false)?;
                (umem, descs, false)
            }
        };
        let group = Self {
            umem: umem.clone(),
            descs: Arc::clone(&descs),
            frames,
            frame_bytes: config.frame_bytes,
            fill_ring: config.fill_ring,
            completion_ring: config.completion_ring,
            sockets: Arc::new(Mutex::new(0)),
            hugepages,
        };
        let memory = UmemMemory::new(umem, descs, config.frame_bytes);
        let memory = Box::new(memory);
        let pools = FramePool::partition(memory, config.frame_bytes, HEADROOM_BYTES, &config.pools);
        Ok((group, pools))
    }

    /// Whether the memory is in huge pages.
    #[must_use]
    pub fn hugepages(&self) -> bool {
        self.hugepages
    }

    /// Frames of all pools.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }
}

fn check(config: &UmemConfig) -> Result<u32, OpenError> {
    let power_of_two = |key, value: u32| {
        let rule = "must be a power of two";
        if value.is_power_of_two() {
            Ok(())
        } else {
            Err(OpenError::Config {
                key,
                value: u64::from(value),
                rule,
            })
        }
    };
    power_of_two("rx-ring", config.fill_ring)?;
    power_of_two("tx-ring", config.completion_ring)?;
    // XDP_UMEM_MIN_CHUNK_SIZE, and one page at most in aligned mode.
    if config.frame_bytes != 2048 && config.frame_bytes != 4096 {
        let value = u64::from(config.frame_bytes);
        return Err(OpenError::Config {
            key: "frame-size",
            value,
            rule: "must be 2048 or 4096",
        });
    }
    let frames: u64 = config.pools.iter().map(|n| u64::from(*n)).sum();
    let rule = "every worker needs some, and all together fit 32 bits";
    let bad = OpenError::Config {
        key: "frames",
        value: frames,
        rule,
    };
    if config.pools.is_empty() || config.pools.contains(&0) {
        return Err(bad);
    }
    let Ok(count) = u32::try_from(frames) else {
        return Err(bad);
    };
    // The frame, two descriptors, its word, its slots in the free list and return queue.
    let needed_bytes = frames * (u64::from(config.frame_bytes) + 2 * 32 + 4 + 4 + 16);
    if needed_bytes > config.memory_limit_bytes {
        let limit_bytes = config.memory_limit_bytes;
        return Err(OpenError::MemoryLimit {
            needed_bytes,
            limit_bytes,
        });
    }
    Ok(count)
}

fn map(config: &UmemConfig, frames: u32, huge: bool) -> Result<(Umem, Arc<Descs>), OpenError> {
    let ring = |key, value| {
        QueueSize::new(value).map_err(|_| OpenError::Config {
            key,
            value: u64::from(value),
            rule: "must be a power of two",
        })
    };
    let frame_size = FrameSize::new(config.frame_bytes).map_err(|_| OpenError::Config {
        key: "frame-size",
        value: u64::from(config.frame_bytes),
        rule: "must be 2048 or 4096",
    })?;
    let umem_config = UmemConfigBuilder::new()
        .frame_size(frame_size)
        .fill_queue_size(ring("rx-ring", config.fill_ring)?)
        .comp_queue_size(ring("tx-ring", config.completion_ring)?)
        .build()
        .map_err(|error| OpenError::System {
            what: "UMEM configuration".into(),
            source: std::io::Error::other(error.to_string()),
        })?;
    // munmap of huge pages wants whole ones; the surplus frames stay unused.
    let per_page = u32::try_from(HUGE_PAGE_BYTES).unwrap_or(u32::MAX) / config.frame_bytes;
    let mapped = if huge {
        frames.next_multiple_of(per_page)
    } else {
        frames
    };
    let bytes = u64::from(mapped) * u64::from(config.frame_bytes);
    let count = NonZeroU32::new(mapped).ok_or(OpenError::Config {
        key: "frames",
        value: 0,
        rule: "must not be 0",
    })?;
    let (umem, mut descs) = Umem::new(umem_config, count, huge).map_err(|error| {
        let source = errno(&error);
        match source.raw_os_error() {
            // xdp_umem_account_pages: RLIMIT_MEMLOCK
            Some(libc::ENOBUFS) => OpenError::LockedMemory { bytes },
            Some(libc::EPERM | libc::EACCES) => OpenError::Permission {
                what: "an AF_XDP socket",
            },
            Some(libc::EAFNOSUPPORT) => OpenError::Unsupported,
            _ if huge => OpenError::HugePages {
                pages: bytes / HUGE_PAGE_BYTES,
                source,
            },
            Some(libc::ENOMEM) => OpenError::NoMemory { bytes, source },
            _ => OpenError::System {
                what: "cannot register the UMEM".into(),
                source,
            },
        }
    })?;
    descs.truncate(frames as usize);
    Ok((umem, Arc::new(Descs::new(descs))))
}

/// The errno at the bottom of an xsk-rs error.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> std::io::Error {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = error
            .downcast_ref::<std::io::Error>()
            .and_then(|e| e.raw_os_error())
        {
            return std::io::Error::from_raw_os_error(number);
        }
        next = error.source();
    }
    std::io::Error::other(error.to_string())
}
