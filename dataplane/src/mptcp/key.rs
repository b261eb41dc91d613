//! Keys and what is derived from them: tokens, initial data sequence numbers, HMACs.
//!
//! RFC 8684 §3.1 and §3.2: SHA-256 of the key (network byte order) gives the token (first
//! 32 bits) and the IDSN (last 64 bits); HMAC-SHA256 authenticates joins and addresses.

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::config::WorkerShare;
use crate::wire::types::{AddressId, Key, Token};

/// Draws per worker share before a connection goes without MPTCP. Each draw hits the
/// share with probability 1/count and a used token with negligible probability, so even
/// 64 workers fail once in e^-64 connections.
const DRAWS_PER_WORKER: u32 = 64;

/// A key with everything derived from it.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) struct KeyMaterial {
    /// The key itself.
    pub(crate) key: Key,
    /// Names the connection in a MP_JOIN sent to the key's owner.
    pub(crate) token: Token,
    /// Initial data sequence number of the key's owner.
    pub(crate) idsn: u64,
}

impl std::fmt::Debug for KeyMaterial {
    // Keys authenticate joins: they do not belong in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyMaterial({:08x})", self.token.0)
    }
}

impl KeyMaterial {
    /// Derives token and IDSN.
    pub(crate) fn new(key: Key) -> Self {
        let digest: [u8; 32] = Sha256::digest(key.0.to_be_bytes()).into();
        let [a, b, c, d, ..] = digest;
        let [.., s, t, u, v, w, x, y, z] = digest;
        Self {
            key,
            token: Token(u32::from_be_bytes([a, b, c, d])),
            idsn: u64::from_be_bytes([s, t, u, v, w, x, y, z]),
        }
    }

    /// Draws a key whose token is free and belongs to this worker (RFC 8684 §3.1: hard to
    /// guess, unique). `None` if none was found; the connection is then plain TCP.
    pub(crate) fn draw(
        rng: &mut impl RngCore,
        share: WorkerShare,
        in_use: impl Fn(Token) -> bool,
    ) -> Option<Self> {
        let draws = share.count.max(1).saturating_mul(DRAWS_PER_WORKER);
        (0..draws)
            .map(|_| Self::new(Key(rng.next_u64())))
            .find(|k| k.token.0 % share.count.max(1) == share.index && !in_use(k.token))
    }
}

/// HMAC of a MP_JOIN, as its sender computes it: local key and nonce come first
/// (RFC 8684 §3.2).
pub(crate) fn join_hmac(local: Key, remote: Key, nonce_local: u32, nonce_remote: u32) -> [u8; 32] {
    let mut mac = keyed(local, remote);
    mac.update(&nonce_local.to_be_bytes());
    mac.update(&nonce_remote.to_be_bytes());
    mac.finalize().into_bytes().into()
}

/// Leftmost 64 bits: what a MP_JOIN SYN/ACK carries.
pub(crate) fn leftmost64(hmac: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hmac;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Leftmost 160 bits: what a MP_JOIN third ACK carries.
pub(crate) fn leftmost160(hmac: &[u8; 32]) -> [u8; 20] {
    let mut out = [0; 20];
    out.copy_from_slice(&hmac[..20]);
    out
}

/// Truncated HMAC of an ADD_ADDR (RFC 8684 §3.4.1): the sender's key comes first, an
/// absent port counts as zero, the rightmost 64 bits are kept.
pub(crate) fn add_addr_hmac(
    sender: Key,
    receiver: Key,
    id: AddressId,
    address: IpAddr,
    port: Option<u16>,
) -> u64 {
    let mut mac = keyed(sender, receiver);
    mac.update(&[id.0]);
    match address {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&port.unwrap_or(0).to_be_bytes());
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let [.., s, t, u, v, w, x, y, z] = digest;
    u64::from_be_bytes([s, t, u, v, w, x, y, z])
}

/// Whether two authenticators are equal, in time that does not depend on where they
/// differ.
pub(crate) fn same<const N: usize>(a: [u8; N], b: [u8; N]) -> bool {
    let difference = a
        .iter()
        .zip(b)
        .fold(0u8, |acc, (x, y)| std::hint::black_box(acc | (x ^ y)));
    difference == 0
}

fn keyed(first: Key, second: Key) -> Hmac<Sha256> {
    let mut key = [0u8; 16];
    key[..8].copy_from_slice(&first.0.to_be_bytes());
    key[8..].copy_from_slice(&second.0.to_be_bytes());
    // HMAC takes keys of any length (RFC 2104 §2), so this cannot fail.
    Hmac::new_from_slice(&key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn tokens_and_idsns_match_independent_vectors() {
        // Computed with another SHA-256 implementation.
        for (key, token, idsn) in [
            (0x0000_0000_0000_0002, 0xcd04_a475, 0x8865_40e5_dce7_7f70),
            (0x0706_0504_0302_0100, 0x033f_c8b9, 0x4c63_560d_71b8_a821),
            (0x0102_0304_0506_0708, 0x6684_0dda, 0xf5a1_01d3_d29d_6f72),
        ] {
            let derived = KeyMaterial::new(Key(key));
            assert_eq!((derived.token, derived.idsn), (Token(token), idsn));
        }
    }

    #[test]
    fn join_hmacs_match_independent_vectors() {
        let (a, b) = (Key(0x0102_0304_0506_0708), Key(0x1112_1314_1516_1718));
        let (ra, rb) = (0x2122_2324, 0x3132_3334);
        assert_eq!(
            leftmost160(&join_hmac(a, b, ra, rb)),
            [
                0xe1, 0x9a, 0xd4, 0xac, 0x22, 0xd5, 0x1c, 0x2f, 0x06, 0x4d, 0x49, 0x66, 0x24, 0x31,
                0xbc, 0x8f, 0x9d, 0x6b, 0x3a, 0x29
            ]
        );
        assert_eq!(leftmost64(&join_hmac(b, a, rb, ra)), 0x0fce_2597_e55e_87ef);
    }

    #[test]
    fn add_addr_hmac_matches_independent_vector() {
        let (a, b) = (Key(0x0102_0304_0506_0708), Key(0x1112_1314_1516_1718));
        assert_eq!(
            add_addr_hmac(a, b, AddressId(1), IpAddr::from([10, 0, 2, 1]), None),
            0x014b_3007_310c_639c
        );
    }

    #[test]
    fn drawn_keys_belong_to_the_worker_and_avoid_used_tokens() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let mut first = None;
        for index in 0..3 {
            let share = WorkerShare { index, count: 3 };
            let drawn = KeyMaterial::draw(&mut rng, share, |_| false).unwrap();
            assert_eq!(drawn.token.0 % 3, index);
            first.get_or_insert(drawn.token);
        }
        let mut again = rand::rngs::StdRng::seed_from_u64(7);
        let share = WorkerShare { index: 0, count: 3 };
        let other = KeyMaterial::draw(&mut again, share, |t| Some(t) == first).unwrap();
        assert_ne!(Some(other.token), first);
        assert!(KeyMaterial::draw(&mut again, share, |_| true).is_none());
    }

    #[test]
    fn comparison_sees_every_byte() {
        let a = [7u8; 20];
        assert!(same(a, a));
        for i in 0..20 {
            let mut b = a;
            b[i] ^= 0x80;
            assert!(!same(a, b));
        }
    }
}
