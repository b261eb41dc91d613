//! Keys and what is derived from them: tokens, initial data sequence numbers, HMACs.
//!
//! RFC 8684 §3.1 and §3.2: SHA-256 of the key (network byte order) gives the token (first
//! 32 bits) and the IDSN (last 64 bits); HMAC-SHA256 authenticates joins and addresses. In
//! version 0 (RFC 6824) it is SHA-1 in each place, and addresses are not authenticated.

use std::net::IpAddr;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::config::WorkerShare;
use super::version::Version;
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
    /// Derives token and IDSN as `version` does.
    pub(crate) fn new(version: Version, key: Key) -> Self {
        let bytes = key.0.to_be_bytes();
        match version {
            Version::V0 => Self::from_digest(key, Sha1::digest(bytes).into()),
            Version::V1 => Self::from_digest::<32>(key, Sha256::digest(bytes).into()),
        }
    }

    fn from_digest<const N: usize>(key: Key, digest: [u8; N]) -> Self {
        Self {
            key,
            token: Token((leftmost64(&digest) >> 32) as u32),
            idsn: rightmost64(&digest),
        }
    }

    /// Draws a key whose token is free and belongs to this worker (RFC 8684 §3.1: hard to
    /// guess, unique). `None` if none was found; the connection is then plain TCP.
    pub(crate) fn draw(
        rng: &mut impl RngCore,
        version: Version,
        share: WorkerShare,
        in_use: impl Fn(Token) -> bool,
    ) -> Option<Self> {
        let draws = share.count.max(1).saturating_mul(DRAWS_PER_WORKER);
        (0..draws)
            .map(|_| Self::new(version, Key(rng.next_u64())))
            .find(|k| k.token.0 % share.count.max(1) == share.index && !in_use(k.token))
    }
}

/// HMAC of a MP_JOIN, as its sender computes it: local key and nonce come first
/// (RFC 8684 §3.2). The leftmost 160 bits are all that is ever sent: the whole of an HMAC-SHA1.
pub(crate) fn join_hmac(
    version: Version,
    local: Key,
    remote: Key,
    nonce_local: u32,
    nonce_remote: u32,
) -> [u8; 20] {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&nonce_local.to_be_bytes());
    message[4..].copy_from_slice(&nonce_remote.to_be_bytes());
    match version {
        Version::V0 => {
            let mut mac: Hmac<Sha1> = keyed(local, remote);
            mac.update(&message);
            mac.finalize().into_bytes().into()
        }
        Version::V1 => {
            let mut mac: Hmac<Sha256> = keyed(local, remote);
            mac.update(&message);
            let mut out = [0; 20];
            out.copy_from_slice(&mac.finalize().into_bytes()[..20]);
            out
        }
    }
}

/// Leftmost 64 bits: of a HMAC, what a MP_JOIN SYN/ACK carries.
pub(crate) fn leftmost64<const N: usize>(digest: &[u8; N]) -> u64 {
    digest[..8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Rightmost 64 bits.
fn rightmost64<const N: usize>(digest: &[u8; N]) -> u64 {
    digest[N - 8..]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
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
    let mut mac: Hmac<Sha256> = keyed(sender, receiver);
    mac.update(&[id.0]);
    match address {
        IpAddr::V4(ip) => mac.update(&ip.octets()),
        IpAddr::V6(ip) => mac.update(&ip.octets()),
    }
    mac.update(&port.unwrap_or(0).to_be_bytes());
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    rightmost64(&digest)
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

fn keyed<M: Mac + KeyInit>(first: Key, second: Key) -> M {
    let mut key = [0u8; 16];
    key[..8].copy_from_slice(&first.0.to_be_bytes());
    key[8..].copy_from_slice(&second.0.to_be_bytes());
    // HMAC takes keys of any length (RFC 2104 §2), so this cannot fail.
    <M as Mac>::new_from_slice(&key)
        .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn tokens_and_idsns_match_independent_vectors() {
        // Computed with another implementation of SHA-256 and SHA-1.
        for (version, key, token, idsn) in [
            (
                Version::V1,
                0x0000_0000_0000_0002,
                0xcd04_a475,
                0x8865_40e5_dce7_7f70,
            ),
            (
                Version::V1,
                0x0706_0504_0302_0100,
                0x033f_c8b9,
                0x4c63_560d_71b8_a821,
            ),
            (
                Version::V1,
                0x0102_0304_0506_0708,
                0x6684_0dda,
                0xf5a1_01d3_d29d_6f72,
            ),
            (
                Version::V0,
                0x0000_0000_0000_0002,
                0x07aa_e1b6,
                0xfa17_23be_f865_6fe4,
            ),
            (
                Version::V0,
                0x0706_0504_0302_0100,
                0x9c62_f634,
                0x4c22_88a5_4513_dd15,
            ),
            (
                Version::V0,
                0x0102_0304_0506_0708,
                0xdd57_83bc,
                0x3a95_ed6e_4ebb_4ad5,
            ),
        ] {
            let derived = KeyMaterial::new(version, Key(key));
            assert_eq!((derived.token, derived.idsn), (Token(token), idsn));
        }
    }

    #[test]
    fn join_hmacs_match_independent_vectors() {
        let (a, b) = (Key(0x0102_0304_0506_0708), Key(0x1112_1314_1516_1718));
        let (ra, rb) = (0x2122_2324, 0x3132_3334);
        for (version, whole, truncated) in [
            (
                Version::V1,
                [
                    0xe1, 0x9a, 0xd4, 0xac, 0x22, 0xd5, 0x1c, 0x2f, 0x06, 0x4d, 0x49, 0x66, 0x24,
                    0x31, 0xbc, 0x8f, 0x9d, 0x6b, 0x3a, 0x29,
                ],
                0x0fce_2597_e55e_87ef,
            ),
            (
                Version::V0,
                [
                    0xea, 0xdd, 0xd7, 0xd4, 0x4f, 0xb1, 0xbe, 0x97, 0xa6, 0x80, 0xf0, 0xe4, 0xc2,
                    0xfe, 0x89, 0x6b, 0x33, 0x2c, 0x1a, 0x95,
                ],
                0x254c_e9ce_e1c7_cdd7,
            ),
        ] {
            assert_eq!(join_hmac(version, a, b, ra, rb), whole);
            let answer = join_hmac(version, b, a, rb, ra);
            assert_eq!(leftmost64(&answer), truncated);
        }
    }

    /// RFC 6824 §3.2 says HMAC-SHA1 and nothing more, so RFC 2104 is spelled out here.
    #[test]
    fn version_0_is_hmac_sha1_over_both_nonces() {
        let by_hand = |first: u64, second: u64, message: [u8; 8]| -> [u8; 20] {
            let mut key = [0u8; 64];
            key[..8].copy_from_slice(&first.to_be_bytes());
            key[8..16].copy_from_slice(&second.to_be_bytes());
            let mut inner = key.map(|byte| byte ^ 0x36).to_vec();
            inner.extend(message);
            let mut outer = key.map(|byte| byte ^ 0x5c).to_vec();
            outer.extend(Sha1::digest(&inner));
            Sha1::digest(&outer).into()
        };
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        for _ in 0..100 {
            let (a, b, nonces) = (rng.next_u64(), rng.next_u64(), rng.next_u64());
            let (ra, rb) = ((nonces >> 32) as u32, nonces as u32);
            assert_eq!(
                join_hmac(Version::V0, Key(a), Key(b), ra, rb),
                by_hand(a, b, nonces.to_be_bytes())
            );
        }
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
            let drawn = KeyMaterial::draw(&mut rng, Version::V1, share, |_| false).unwrap();
            assert_eq!(drawn.token.0 % 3, index);
            first.get_or_insert(drawn.token);
        }
        let mut again = rand::rngs::StdRng::seed_from_u64(7);
        let share = WorkerShare { index: 0, count: 3 };
        let other =
            KeyMaterial::draw(&mut again, Version::V1, share, |t| Some(t) == first).unwrap();
        assert_ne!(Some(other.token), first);
        assert!(KeyMaterial::draw(&mut again, Version::V1, share, |_| true).is_none());
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
