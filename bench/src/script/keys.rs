//! Tokens, initial data sequence numbers, HMACs and DSS checksums, from the formulas of
//! RFC 8684 and nothing of the dataplane: a script is an independent check of those.

use std::net::IpAddr;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// First 32 bits of the hash of the key (§3.1).
pub(crate) fn token(key: u64) -> u32 {
    let hash = Sha256::digest(key.to_be_bytes());
    u32::from_be_bytes(hash[..4].try_into().expect("4 bytes"))
}

/// Last 64 bits of the hash of the key (§3.1).
pub(crate) fn idsn(key: u64) -> u64 {
    let hash = Sha256::digest(key.to_be_bytes());
    u64::from_be_bytes(hash[24..].try_into().expect("8 bytes"))
}

/// HMAC-SHA256 keyed by two keys, the sender's first (§3.2).
fn mac(sender: u64, receiver: u64, message: &[u8]) -> [u8; 32] {
    let key = [sender.to_be_bytes(), receiver.to_be_bytes()].concat();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// HMAC of a MP_JOIN (§3.2): 8 bytes of it on a SYN/ACK, 20 on the third ACK.
pub(crate) fn join(sender: u64, receiver: u64, nonces: (u32, u32)) -> [u8; 32] {
    let message = [nonces.0.to_be_bytes(), nonces.1.to_be_bytes()].concat();
    mac(sender, receiver, &message)
}

/// Truncated HMAC of an ADD_ADDR (§3.4.1).
pub(crate) fn add_addr(sender: u64, receiver: u64, id: u8, address: IpAddr, port: u16) -> [u8; 8] {
    let mut message = vec![id];
    match address {
        IpAddr::V4(a) => message.extend(a.octets()),
        IpAddr::V6(a) => message.extend(a.octets()),
    }
    message.extend(port.to_be_bytes());
    let mac = mac(sender, receiver, &message);
    mac[24..].try_into().expect("8 bytes")
}

/// Ones-complement checksum (RFC 1071), 16 bits at a time.
pub(crate) fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        sum += u32::from(word);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// DSS checksum (§3.3.1).
pub(crate) fn dss(dsn: u64, ssn: u32, len: u16, data: &[u8]) -> u16 {
    internet_checksum(&[
        &dsn.to_be_bytes(),
        &ssn.to_be_bytes(),
        &len.to_be_bytes(),
        &[0, 0],
        data,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        // As in net/mptcp/crypto_test.c's formulas, computed with Python's hashlib.
        assert_eq!((token(2), idsn(2)), (0xcd04_a475, 0x8865_40e5_dce7_7f70));
        let (a, b) = (0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
        assert_eq!(
            join(a, b, (0x2122_2324, 0x3132_3334))[..4],
            [0xe1, 0x9a, 0xd4, 0xac]
        );
        let address = IpAddr::from([10, 0, 2, 1]);
        assert_eq!(
            add_addr(a, b, 1, address, 0),
            0x014b_3007_310c_639c_u64.to_be_bytes()
        );
        assert_eq!(dss(idsn(2) + 1, 1, 5, b"hello"), 0x9683);
    }
}
