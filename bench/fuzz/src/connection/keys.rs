//! The peer's cryptography, written again from the RFCs so that the two sides check each other.

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Token and initial data sequence number of a key: RFC 8684 §3.2 with SHA-256, RFC 6824 with
/// SHA-1.
pub(super) fn derive(version: u8, key: u64) -> (u32, u64) {
    let key = key.to_be_bytes();
    if version == 0 {
        ends(&Sha1::digest(key))
    } else {
        ends(&Sha256::digest(key))
    }
}

/// The first 32 and the last 64 bits.
fn ends(digest: &[u8]) -> (u32, u64) {
    let (first, last) = (digest.first_chunk(), digest.last_chunk());
    (
        u32::from_be_bytes(*first.expect("a digest is long")),
        u64::from_be_bytes(*last.expect("a digest is long")),
    )
}

/// HMAC of a MP_JOIN (RFC 8684 §3.2), its sender's key and nonce first.
pub(super) fn join(version: u8, keys: [u64; 2], nonces: [u32; 2]) -> [u8; 20] {
    let key: [u8; 16] = concat(keys.map(u64::to_be_bytes));
    let message: [u8; 8] = concat(nonces.map(u32::to_be_bytes));
    let mut out = [0; 20];
    if version == 0 {
        let mut mac = Hmac::<Sha1>::new_from_slice(&key).expect("any length is good");
        mac.update(&message);
        out.copy_from_slice(&mac.finalize().into_bytes());
    } else {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is good");
        mac.update(&message);
        out.copy_from_slice(&mac.finalize().into_bytes()[..20]);
    }
    out
}

/// HMAC of an ADD_ADDR for an IPv4 address (RFC 8684 §3.4.1).
pub(super) fn add_addr(keys: [u64; 2], id: u8, addr: [u8; 4], port: u16) -> u64 {
    let key: [u8; 16] = concat(keys.map(u64::to_be_bytes));
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is good");
    mac.update(&[id]);
    mac.update(&addr);
    mac.update(&port.to_be_bytes());
    ends(&mac.finalize().into_bytes()).1
}

fn concat<const N: usize, const M: usize>(parts: [[u8; N]; 2]) -> [u8; M] {
    let mut out = [0; M];
    out[..N].copy_from_slice(&parts[0]);
    out[N..].copy_from_slice(&parts[1]);
    out
}
