//! A BPF map behind a descriptor that we own.
//!
//! libbpf-rs 0.25 makes a handle only from its own object, from bpffs or from
//! an id (which takes CAP_SYS_ADMIN), never from a descriptor; but descriptors
//! are what braid's processes hand to one another. So this is the narrow part
//! of libbpf that works on descriptors. Sizes are checked once against the
//! kernel's own account of the map; that is what makes the calls sound.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::{MapInfo, MapType};
use libbpf_sys::{
    BPF_ANY, bpf_map_delete_elem, bpf_map_get_next_key, bpf_map_lookup_elem, bpf_map_update_elem,
};

use crate::error::MapError;

/// What a descriptor must be to be taken for a certain map.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) kind: MapType,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) entries: u32,
}

#[derive(Debug)]
pub(crate) struct Map {
    fd: OwnedFd,
    name: &'static str,
    key_bytes: usize,
    /// Of one CPU, if the map is per CPU.
    value_bytes: usize,
    entries: u32,
    per_cpu: bool,
}

impl Map {
    pub(crate) fn from_fd(fd: OwnedFd, spec: &Spec) -> Result<Self, MapError> {
        let info = MapInfo::new(fd.as_fd()).map_err(|error| MapError::Kernel {
            map: spec.name,
            operation: "identify",
            source: to_io(&error),
        })?;
        let check = |field, expected: String, found: String| {
            if expected == found {
                return Ok(());
            }
            Err(MapError::Mismatch {
                map: spec.name,
                field,
                expected,
                found,
            })
        };
        check(
            "type",
            format!("{:?}", spec.kind),
            format!("{:?}", info.map_type()),
        )?;
        check(
            "key size",
            spec.key_bytes.to_string(),
            info.info.key_size.to_string(),
        )?;
        check(
            "value size",
            spec.value_bytes.to_string(),
            info.info.value_size.to_string(),
        )?;
        check(
            "size",
            spec.entries.to_string(),
            info.info.max_entries.to_string(),
        )?;
        Ok(Self {
            fd,
            name: spec.name,
            key_bytes: spec.key_bytes,
            value_bytes: spec.value_bytes,
            entries: spec.entries,
            per_cpu: matches!(spec.kind, MapType::PercpuArray),
        })
    }

    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> Result<(), MapError> {
        assert_eq!(key.len(), self.key_bytes);
        assert_eq!(value.len(), self.value_bytes);
        assert!(!self.per_cpu, "a value per CPU would be read");
        // SAFETY: the kernel reads `key_bytes` and `value_bytes` bytes, whose
        // presence was just asserted, and keeps no pointer.
        let ret = unsafe {
            bpf_map_update_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_ptr().cast(),
                u64::from(BPF_ANY),
            )
        };
        match outcome(ret) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Err(MapError::Full {
                map: self.name,
                entries: self.entries,
            }),
            Err(error) => Err(self.failed("update", error)),
        }
    }

    /// False if the key was not there.
    pub(crate) fn delete(&self, key: &[u8]) -> Result<bool, MapError> {
        assert_eq!(key.len(), self.key_bytes);
        // SAFETY: the kernel reads `key_bytes` bytes, just asserted.
        let ret = unsafe { bpf_map_delete_elem(self.fd.as_raw_fd(), key.as_ptr().cast()) };
        self.present("delete from", outcome(ret))
    }

    pub(crate) fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MapError> {
        assert!(!self.per_cpu, "a value per CPU would be written");
        self.lookup_bytes(key, self.value_bytes)
    }

    /// The sum of the values of all possible CPUs. The map must be per CPU, its
    /// values eight bytes, and the key present (arrays have all keys).
    pub(crate) fn sum_over_cpus(&self, key: &[u8]) -> Result<u64, MapError> {
        assert!(self.per_cpu && self.value_bytes == 8);
        let cpus = libbpf_rs::num_possible_cpus()
            .map_err(|error| self.failed("count the CPUs of", to_io(&error)))?;
        let bytes = self
            .lookup_bytes(key, cpus * 8)?
            .ok_or_else(|| self.failed("look up in", io::ErrorKind::NotFound.into()))?;
        let (values, _) = bytes.as_chunks::<8>();
        Ok(values
            .iter()
            .map(|value| u64::from_ne_bytes(*value))
            .fold(0, u64::wrapping_add))
    }

    fn lookup_bytes(&self, key: &[u8], bytes: usize) -> Result<Option<Vec<u8>>, MapError> {
        assert_eq!(key.len(), self.key_bytes);
        let mut value = vec![0; bytes];
        // SAFETY: the kernel reads `key_bytes` bytes, just asserted, and writes
        // `value_bytes` bytes, or that (a multiple of 8) for each possible CPU,
        // which is what the callers ask for.
        let ret = unsafe {
            bpf_map_lookup_elem(
                self.fd.as_raw_fd(),
                key.as_ptr().cast(),
                value.as_mut_ptr().cast(),
            )
        };
        let present = self.present("look up in", outcome(ret))?;
        Ok(present.then_some(value))
    }

    /// All keys. The walk restarts when the key it stands on is deleted, so it
    /// is bounded by the map's size, and keys may then come twice.
    pub(crate) fn keys(&self) -> Result<Vec<Vec<u8>>, MapError> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for _ in 0..self.entries {
            let mut next = vec![0; self.key_bytes];
            let last = keys.last().map_or(std::ptr::null(), |key| key.as_ptr());
            // SAFETY: the kernel reads `key_bytes` bytes of a key that it wrote
            // itself, or none for null, and writes `key_bytes` bytes.
            let ret = unsafe {
                bpf_map_get_next_key(self.fd.as_raw_fd(), last.cast(), next.as_mut_ptr().cast())
            };
            if !self.present("walk", outcome(ret))? {
                break;
            }
            keys.push(next);
        }
        Ok(keys)
    }

    fn present(&self, operation: &'static str, ret: io::Result<()>) -> Result<bool, MapError> {
        match ret {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(operation, error)),
        }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> MapError {
        MapError::Kernel {
            map: self.name,
            operation,
            source,
        }
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// libbpf 1.x returns the negated errno.
pub(crate) fn outcome(ret: i32) -> io::Result<()> {
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(-ret));
    }
    Ok(())
}

/// libbpf-rs hides the errno of its errors; their text has its meaning.
fn to_io(error: &libbpf_rs::Error) -> io::Error {
    io::Error::other(error.to_string())
}
