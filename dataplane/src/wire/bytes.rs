//! Big-endian fields of a byte slice. They panic outside of it: callers have checked lengths.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The `N` bytes at `at`.
#[inline]
pub(crate) fn array_at<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&b[at..at + N]);
    out
}

#[inline]
pub(crate) fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array_at(b, at))
}

#[inline]
pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array_at(b, at))
}

#[inline]
pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array_at(b, at))
}

#[inline]
pub(crate) fn ipv4_at(b: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from_octets(array_at(b, at))
}

#[inline]
pub(crate) fn ipv6_at(b: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from_octets(array_at(b, at))
}

/// Writes `bytes` at `at`.
#[inline]
pub(crate) fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    b[at..at + bytes.len()].copy_from_slice(bytes);
}
