//! Ethernet II frames, 802.1Q and 802.1ad (QinQ) tags.

use core::fmt;

use super::bytes::{array_at, put, u16_at};

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Bytes that each VLAN tag adds.
pub const TAG_LEN: usize = 4;
/// Tags understood on one frame: a service tag and a customer tag.
pub const TAGS_MAX: usize = 2;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Tag protocol identifier of 802.1Q customer tags.
pub const TPID_CUSTOMER: u16 = 0x8100;
/// Tag protocol identifier of 802.1ad service tags.
pub const TPID_SERVICE: u16 = 0x88a8;

/// A MAC address.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EthernetAddress(pub [u8; 6]);

impl EthernetAddress {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the group bit is set (broadcast included).
    #[must_use]
    pub const fn is_multicast(&self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be the address of one interface.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        !self.is_multicast() && *self != Self::default()
    }
}

impl fmt::Display for EthernetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for EthernetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One VLAN tag.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct VlanTag {
    /// Tag protocol identifier: [`TPID_CUSTOMER`] or [`TPID_SERVICE`].
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN identifier.
    pub tci: u16,
}

/// The VLAN tags of a frame, outermost first.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct VlanTags {
    tags: [VlanTag; TAGS_MAX],
    len: u8,
}

impl VlanTags {
    /// No tag.
    pub const NONE: Self = Self {
        tags: [VlanTag { tpid: 0, tci: 0 }; TAGS_MAX],
        len: 0,
    };

    /// One tag.
    #[must_use]
    pub const fn single(tag: VlanTag) -> Self {
        let mut tags = Self::NONE;
        tags.tags[0] = tag;
        tags.len = 1;
        tags
    }

    /// Appends an inner tag; `false` if there is no room.
    pub fn push(&mut self, tag: VlanTag) -> bool {
        let Some(slot) = self.tags.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = tag;
        self.len += 1;
        true
    }

    /// The tags, outermost first.
    #[must_use]
    pub fn as_slice(&self) -> &[VlanTag] {
        &self.tags[..usize::from(self.len)]
    }
}

impl From<Option<(u16, u16)>> for VlanTags {
    /// No tag, or one with this (TPID, TCI).
    fn from(tag: Option<(u16, u16)>) -> Self {
        tag.map_or(Self::NONE, |(tpid, tci)| {
            Self::single(VlanTag { tpid, tci })
        })
    }
}

impl fmt::Debug for VlanTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Why a frame has no readable Ethernet header.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than its headers.
    Truncated,
    /// More than [`TAGS_MAX`] VLAN tags.
    TooManyTags,
}

/// A frame whose Ethernet header and VLAN tags are all there.
#[derive(Debug)]
pub struct View<B> {
    bytes: B,
    tags: u8,
}

impl<B: AsRef<[u8]>> View<B> {
    /// Checks the header and walks the tags.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong.
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let b = bytes.as_ref();
        let mut at = HEADER_LEN - 2;
        let mut tags = 0;
        loop {
            if b.len() < at + 2 {
                return Err(Error::Truncated);
            }
            if !matches!(u16_at(b, at), TPID_CUSTOMER | TPID_SERVICE) {
                return Ok(Self { bytes, tags });
            }
            if usize::from(tags) == TAGS_MAX {
                return Err(Error::TooManyTags);
            }
            tags += 1;
            at += TAG_LEN;
        }
    }

    /// Bytes of header and tags: where layer 3 starts.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + usize::from(self.tags) * TAG_LEN
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> EthernetAddress {
        EthernetAddress(array_at(self.bytes.as_ref(), 0))
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> EthernetAddress {
        EthernetAddress(array_at(self.bytes.as_ref(), 6))
    }

    /// VLAN tags, outermost first.
    #[inline]
    #[must_use]
    pub fn vlan(&self) -> VlanTags {
        let b = self.bytes.as_ref();
        let mut out = VlanTags::NONE;
        for i in 0..usize::from(self.tags) {
            let at = HEADER_LEN - 2 + i * TAG_LEN;
            out.push(VlanTag {
                tpid: u16_at(b, at),
                tci: u16_at(b, at + 2),
            });
        }
        out
    }

    /// EtherType behind the tags.
    #[inline]
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        u16_at(self.bytes.as_ref(), self.header_len() - 2)
    }

    /// Everything behind the header and tags, padding included.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes.as_ref()[self.header_len()..]
    }
}

/// What an Ethernet header says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Repr {
    /// Destination address.
    pub dst: EthernetAddress,
    /// Source address.
    pub src: EthernetAddress,
    /// VLAN tags, outermost first.
    pub vlan: VlanTags,
    /// What follows.
    pub ethertype: u16,
}

impl Repr {
    /// Reads a checked header.
    #[must_use]
    pub fn parse<B: AsRef<[u8]>>(view: &View<B>) -> Self {
        Self {
            dst: view.dst(),
            src: view.src(),
            vlan: view.vlan(),
            ethertype: view.ethertype(),
        }
    }

    /// Bytes that [`Repr::emit`] writes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + self.vlan.as_slice().len() * TAG_LEN
    }

    /// Writes the header to the front of `out`.
    ///
    /// # Panics
    ///
    /// If `out` is shorter than [`Repr::header_len`].
    pub fn emit(&self, out: &mut [u8]) {
        put(out, 0, &self.dst.0);
        put(out, 6, &self.src.0);
        let mut at = HEADER_LEN - 2;
        for tag in self.vlan.as_slice() {
            put(out, at, &tag.tpid.to_be_bytes());
            put(out, at + 2, &tag.tci.to_be_bytes());
            at += TAG_LEN;
        }
        put(out, at, &self.ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repr(tags: &[(u16, u16)]) -> Repr {
        let mut vlan = VlanTags::NONE;
        for (tpid, tci) in tags {
            assert!(vlan.push(VlanTag {
                tpid: *tpid,
                tci: *tci
            }));
        }
        Repr {
            dst: EthernetAddress([2, 0, 0, 0, 0, 1]),
            src: EthernetAddress([2, 0, 0, 0, 0, 2]),
            vlan,
            ethertype: IPV4,
        }
    }

    #[test]
    fn tags_round_trip() {
        for tags in [
            &[][..],
            &[(TPID_CUSTOMER, 7)],
            &[(TPID_SERVICE, 0xe00a), (TPID_CUSTOMER, 20)],
        ] {
            let repr = repr(tags);
            let mut out = vec![0; repr.header_len() + 3];
            repr.emit(&mut out);
            let view = View::new_checked(&out[..]).unwrap();
            assert_eq!(Repr::parse(&view), repr);
            assert_eq!(view.payload(), [0; 3]);
        }
    }

    #[test]
    fn three_tags_are_refused() {
        let mut frame = vec![0; 12];
        for _ in 0..3 {
            frame.extend([0x81, 0x00, 0x00, 0x01]);
        }
        frame.extend([0x08, 0x00]);
        assert_eq!(
            View::new_checked(&frame[..]).unwrap_err(),
            Error::TooManyTags
        );
        let mut full = VlanTags::from(Some((TPID_SERVICE, 1)));
        assert!(full.push(VlanTag::default()));
        assert!(!full.push(VlanTag::default()));
    }

    #[test]
    fn every_truncation_is_refused() {
        let repr = repr(&[(TPID_SERVICE, 1), (TPID_CUSTOMER, 2)]);
        let mut out = vec![0; repr.header_len()];
        repr.emit(&mut out);
        for len in 0..out.len() {
            assert_eq!(
                View::new_checked(&out[..len]).unwrap_err(),
                Error::Truncated
            );
        }
    }

    #[test]
    fn addresses_know_their_kind() {
        assert!(EthernetAddress::BROADCAST.is_multicast());
        assert!(!EthernetAddress::default().is_unicast());
        assert!(EthernetAddress([2, 0, 0, 0, 0, 1]).is_unicast());
        assert_eq!(
            EthernetAddress([2, 0, 0, 0, 0, 0xa1]).to_string(),
            "02:00:00:00:00:a1"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(b in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(view) = View::new_checked(&b[..]) {
                let _ = (Repr::parse(&view), view.payload());
            }
        }
    }
}
