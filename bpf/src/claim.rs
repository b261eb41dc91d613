//! Claims: the local addresses and ports whose TCP is braid's, not the kernel's.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::MapError;
use crate::map::{Map, Spec};

/// Bytes of `struct claim_key`.
const KEY_BYTES: usize = 20;
/// Bytes of `struct claim_value`.
const VALUE_BYTES: usize = 8;
/// `CLAIMS_MAX` of the program.
const CLAIMS_MAX: u32 = 65536;

/// An IP version, for claims of every address of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Which destination address is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimAddress {
    /// This one. It is looked up first.
    Exact(IpAddr),
    /// Every destination address of arriving packets, transit traffic
    /// included: a host that forwards must claim its addresses one by one.
    Any(Family),
}

/// A local transport address whose TCP segments, and ICMP errors about
/// segments from it, go to braid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The local address.
    pub address: ClaimAddress,
    /// The local port.
    pub port: u16,
}

impl Claim {
    /// Claims one address; the unspecified address (`0.0.0.0`, `::`) claims
    /// every address of its family.
    #[must_use]
    pub fn new(address: IpAddr, port: u16) -> Self {
        let address = match address {
            IpAddr::V4(v4) if v4.is_unspecified() => ClaimAddress::Any(Family::Ipv4),
            IpAddr::V6(v6) if v6.is_unspecified() => ClaimAddress::Any(Family::Ipv6),
            // On the wire a mapped address is IPv4 (RFC 4291 §2.5.5.2).
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => return Self::new(v4.into(), port),
                None => ClaimAddress::Exact(v6.into()),
            },
            IpAddr::V4(v4) => ClaimAddress::Exact(v4.into()),
        };
        Self { address, port }
    }

    fn to_key(self) -> [u8; KEY_BYTES] {
        let (address, family) = match Self::normalized(self.address) {
            ClaimAddress::Exact(IpAddr::V4(v4)) => (v4.to_ipv6_mapped(), 4),
            ClaimAddress::Exact(IpAddr::V6(v6)) => (v6, 6),
            ClaimAddress::Any(Family::Ipv4) => (Ipv6Addr::UNSPECIFIED, 4),
            ClaimAddress::Any(Family::Ipv6) => (Ipv6Addr::UNSPECIFIED, 6),
        };
        let mut key = [0; KEY_BYTES];
        key[..16].copy_from_slice(&address.octets());
        key[16..18].copy_from_slice(&self.port.to_be_bytes());
        key[18] = family;
        key
    }

    /// The fields are public, so an unspecified or mapped address may have come
    /// in without `new`.
    fn normalized(address: ClaimAddress) -> ClaimAddress {
        match address {
            ClaimAddress::Exact(address) => Self::new(address, 0).address,
            any @ ClaimAddress::Any(_) => any,
        }
    }

    fn from_key(key: &[u8; KEY_BYTES]) -> Option<Self> {
        let (octets, rest) = key.split_first_chunk::<16>()?;
        let address = Ipv6Addr::from(*octets);
        let port = u16::from_be_bytes([rest[0], rest[1]]);
        let address = match (rest[2], address.is_unspecified()) {
            (4, true) => ClaimAddress::Any(Family::Ipv4),
            (6, true) => ClaimAddress::Any(Family::Ipv6),
            (4, false) => ClaimAddress::Exact(address.to_ipv4_mapped()?.into()),
            (6, false) => ClaimAddress::Exact(address.into()),
            _ => return None,
        };
        Some(Self { address, port })
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            ClaimAddress::Exact(address) => std::net::SocketAddr::new(address, self.port).fmt(f),
            ClaimAddress::Any(Family::Ipv4) => write!(f, "0.0.0.0:{}", self.port),
            ClaimAddress::Any(Family::Ipv6) => write!(f, "[::]:{}", self.port),
        }
    }
}

/// Why something is claimed. The program treats all kinds alike; people and the
/// control plane want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimKind {
    /// A service listens there.
    Service,
    /// Joins of connections to a service may arrive there, although the service
    /// listens on another address.
    Join,
    /// Local end of a connection that braid opened.
    ActiveOpen,
}

impl ClaimKind {
    const fn to_wire(self) -> u32 {
        match self {
            ClaimKind::Service => 1,
            ClaimKind::Join => 2,
            ClaimKind::ActiveOpen => 3,
        }
    }

    const fn from_wire(value: u32) -> Option<Self> {
        Some(match value {
            1 => ClaimKind::Service,
            2 => ClaimKind::Join,
            3 => ClaimKind::ActiveOpen,
            _ => return None,
        })
    }
}

/// The claim map, shared by all interfaces.
#[derive(Debug)]
pub struct Claims {
    map: Map,
}

impl Claims {
    /// Takes over a claim map that another process sent.
    ///
    /// # Errors
    /// The descriptor is not a claim map of this version of the program.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, MapError> {
        let spec = Spec {
            name: "claims",
            kind: libbpf_rs::MapType::Hash,
            key_bytes: KEY_BYTES,
            value_bytes: VALUE_BYTES,
            entries: CLAIMS_MAX,
        };
        Ok(Self {
            map: Map::from_fd(fd, &spec)?,
        })
    }

    /// Claims, or changes the kind of a claim. It holds for the next packet of
    /// every interface.
    ///
    /// # Errors
    /// [`MapError::Full`] when 65536 claims exist, or what the kernel said.
    pub fn add(&self, claim: Claim, kind: ClaimKind) -> Result<(), MapError> {
        let mut value = [0; VALUE_BYTES];
        value[..4].copy_from_slice(&kind.to_wire().to_ne_bytes());
        self.map.update(&claim.to_key(), &value)
    }

    /// Gives a claim back to the kernel; false if there was none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, claim: Claim) -> Result<bool, MapError> {
        self.map.delete(&claim.to_key())
    }

    /// All claims, sorted. Claims made or removed meanwhile may be missing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn list(&self) -> Result<Vec<(Claim, ClaimKind)>, MapError> {
        let mut claims = Vec::new();
        for key in self.map.keys()? {
            let Some(value) = self.map.lookup(&key)? else {
                continue;
            };
            let claim = <&[u8; KEY_BYTES]>::try_from(key.as_slice())
                .ok()
                .and_then(Claim::from_key);
            let kind = value
                .first_chunk()
                .and_then(|kind| ClaimKind::from_wire(u32::from_ne_bytes(*kind)));
            if let (Some(claim), Some(kind)) = (claim, kind) {
                claims.push((claim, kind));
            }
        }
        claims.sort_unstable();
        Ok(claims)
    }
}

impl AsFd for Claims {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(text: &str, port: u16) -> Claim {
        Claim::new(text.parse().expect("an address"), port)
    }

    #[test]
    fn keys_round_trip() {
        for text in ["10.77.1.2", "0.0.0.0", "fd77::2", "::", "::1"] {
            let claim = claim(text, 5201);
            assert_eq!(Claim::from_key(&claim.to_key()), Some(claim), "{text}");
        }
    }

    #[test]
    fn key_layout_is_that_of_the_program() {
        let mut expected = [0; KEY_BYTES];
        expected[10..12].fill(0xff);
        expected[12..16].copy_from_slice(&[10, 77, 1, 2]);
        expected[16..18].copy_from_slice(&[0x14, 0x51]);
        expected[18] = 4;
        assert_eq!(claim("10.77.1.2", 5201).to_key(), expected);
    }

    #[test]
    fn wildcards_of_the_two_families_differ() {
        assert_ne!(claim("0.0.0.0", 7).to_key(), claim("::", 7).to_key());
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        let plain = claim("10.77.1.2", 7);
        assert_eq!(claim("::ffff:10.77.1.2", 7), plain);
        let by_hand = Claim {
            address: ClaimAddress::Exact("::ffff:10.77.1.2".parse().expect("an address")),
            port: 7,
        };
        assert_eq!(by_hand.to_key(), plain.to_key());
    }

    #[test]
    fn a_key_of_unknown_family_is_no_claim() {
        assert_eq!(Claim::from_key(&[0; KEY_BYTES]), None);
    }

    #[test]
    fn kinds_round_trip_and_unknown_ones_are_refused() {
        for kind in [ClaimKind::Service, ClaimKind::Join, ClaimKind::ActiveOpen] {
            assert_eq!(ClaimKind::from_wire(kind.to_wire()), Some(kind));
        }
        assert_eq!(ClaimKind::from_wire(0), None);
        assert_eq!(ClaimKind::from_wire(4), None);
    }
}
