//! IPv4 headers (RFC 791), with options and fragments.

use core::net::Ipv4Addr;

use super::bytes::{ipv4_at, put, u16_at};
use crate::checksum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;

/// The DF bit of the flags and fragment offset word.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The MF bit of the flags and fragment offset word.
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Why bytes are not an IPv4 header.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than the header says it is.
    Truncated,
    /// The version is not 4.
    Version,
    /// A header length below 20 bytes.
    HeaderLength,
    /// A total length below the header length.
    TotalLength,
}

/// A packet whose IPv4 header, options included, is all there. The data need not be.
#[derive(Debug)]
pub struct View<B>(B);

impl<B: AsRef<[u8]>> View<B> {
    /// Checks version and lengths. The checksum is a matter of its own:
    /// [`View::checksum_is_valid`].
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong.
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let b = bytes.as_ref();
        if b.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if b[0] >> 4 != 4 {
            return Err(Error::Version);
        }
        let view = Self(bytes);
        if view.header_len() < HEADER_LEN {
            return Err(Error::HeaderLength);
        }
        if view.0.as_ref().len() < view.header_len() {
            return Err(Error::Truncated);
        }
        if usize::from(view.total_len()) < view.header_len() {
            return Err(Error::TotalLength);
        }
        Ok(view)
    }

    /// Header bytes, options included.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 0x0f) * 4
    }

    /// Differentiated services code point.
    #[inline]
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.0.as_ref()[1] >> 2
    }

    /// ECN field (RFC 3168).
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> u8 {
        self.0.as_ref()[1] & 0x03
    }

    /// Bytes of header and data.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> u16 {
        u16_at(self.0.as_ref(), 2)
    }

    /// Identification.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u16 {
        u16_at(self.0.as_ref(), 4)
    }

    /// Whether routers must not fragment it.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        u16_at(self.0.as_ref(), 6) & DONT_FRAGMENT != 0
    }

    /// Whether this is one of several fragments (first and last included).
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        u16_at(self.0.as_ref(), 6) & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Where this fragment's data belongs, in bytes.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> usize {
        usize::from(u16_at(self.0.as_ref(), 6) & OFFSET_MASK) * 8
    }

    /// Time to live.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[8]
    }

    /// Protocol of the data.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[9]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 12)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Ipv4Addr {
        ipv4_at(self.0.as_ref(), 16)
    }

    /// The option area, unparsed.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// Whether the header checksum is right.
    #[inline]
    #[must_use]
    pub fn checksum_is_valid(&self) -> bool {
        checksum::sum(&self.0.as_ref()[..self.header_len()]).is_zero()
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> View<B> {
    /// Sets the ECN field and updates the header checksum.
    pub fn set_ecn(&mut self, ecn: u8) {
        let old = u16_at(self.0.as_ref(), 0);
        let b = self.0.as_mut();
        b[1] = (b[1] & !0x03) | (ecn & 0x03);
        self.update_checksum(old, 0);
    }

    /// Sets the time to live and updates the header checksum.
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = u16_at(self.0.as_ref(), 8);
        self.0.as_mut()[8] = ttl;
        self.update_checksum(old, 8);
    }

    /// Computes the header checksum.
    pub fn fill_checksum(&mut self) {
        let len = self.header_len();
        let b = self.0.as_mut();
        put(b, 10, &[0, 0]);
        let field = checksum::sum(&b[..len]).finish();
        put(b, 10, &field.to_be_bytes());
    }

    /// Accounts for a change of the word at `at`, which was `old`.
    fn update_checksum(&mut self, old: u16, at: usize) {
        let b = self.0.as_mut();
        let field = checksum::update_u16(u16_at(b, 10), old, u16_at(b, at));
        put(b, 10, &field.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example header that many texts share; its checksum is 0xb861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn fields_of_a_known_header() {
        let view = View::new_checked(&HEADER[..]).unwrap();
        assert!(view.checksum_is_valid() && view.dont_fragment() && !view.is_fragment());
        assert_eq!(
            (view.total_len(), view.ttl(), view.protocol()),
            (0x73, 64, 17)
        );
        assert_eq!(view.src(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(view.dst(), Ipv4Addr::new(192, 168, 0, 199));
        assert!(view.options().is_empty());
    }

    #[test]
    fn options_count_as_header() {
        let mut b = HEADER.to_vec();
        b[0] = 0x46;
        b.extend([1, 1, 1, 0]);
        let mut view = View::new_checked(&mut b[..]).unwrap();
        assert!(!view.checksum_is_valid());
        view.fill_checksum();
        assert!(view.checksum_is_valid());
        assert_eq!(view.options(), [1, 1, 1, 0]);
    }

    #[test]
    fn fragments_are_recognised() {
        for (word, fragment, offset) in [
            (0x4000u16, false, 0),
            (0x2000, true, 0),
            (0x2001, true, 8),
            (0x00b9, true, 1480),
        ] {
            let mut b = HEADER;
            b[6..8].copy_from_slice(&word.to_be_bytes());
            let view = View::new_checked(&b[..]).unwrap();
            assert_eq!(
                (view.is_fragment(), view.fragment_offset()),
                (fragment, offset)
            );
        }
    }

    #[test]
    fn bad_headers_are_told_apart() {
        let check = |at: usize, value: u8| {
            let mut b = HEADER;
            b[at] = value;
            View::new_checked(&b[..]).map(drop)
        };
        assert_eq!(check(0, 0x65), Err(Error::Version));
        assert_eq!(check(0, 0x44), Err(Error::HeaderLength));
        assert_eq!(check(0, 0x46), Err(Error::Truncated));
        assert_eq!(check(3, 19), Err(Error::TotalLength));
        assert_eq!(
            View::new_checked(&HEADER[..19]).map(drop),
            Err(Error::Truncated)
        );
    }

    proptest! {
        #[test]
        fn setters_keep_the_checksum_valid(ecn in 0u8..4, ttl: u8) {
            let mut b = HEADER;
            let mut view = View::new_checked(&mut b[..]).unwrap();
            view.set_ecn(ecn);
            view.set_ttl(ttl);
            prop_assert!(view.checksum_is_valid());
            prop_assert_eq!((view.ecn(), view.ttl()), (ecn, ttl));
        }

        #[test]
        fn random_bytes_never_panic(mut b in proptest::collection::vec(any::<u8>(), 0..80), v4: bool) {
            if v4 && let Some(first) = b.first_mut() {
                *first = 0x40 | (*first & 0x0f);
            }
            if let Ok(view) = View::new_checked(&b[..]) {
                let _ = (view.options(), view.checksum_is_valid(), view.fragment_offset());
            }
        }
    }
}
