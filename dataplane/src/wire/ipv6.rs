//! IPv6 headers (RFC 8200) and the walk over their extension headers.

use core::net::Ipv6Addr;

use super::bytes::{ipv6_at, put, u16_at};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Next header value of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// Extension headers walked before giving up: RFC 8200 §4.1 recommends each at most once
/// (destination options twice), so more is an attack on the parser.
pub const EXTENSIONS_MAX: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Why bytes are not an IPv6 packet we can walk.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than the headers.
    Truncated,
    /// The version is not 6.
    Version,
    /// Too many extension headers, or a hop-by-hop header that is not first.
    Extension,
    /// A routing header that is not exhausted: we are not its destination.
    Routing,
    /// A part of a fragmented packet.
    Fragment,
}

/// A packet whose fixed IPv6 header is all there.
#[derive(Debug)]
pub struct View<B>(B);

/// Where the extension headers end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct UpperLayer {
    /// Its protocol.
    pub protocol: u8,
    /// Its offset from the start of the fixed header.
    pub offset: usize,
}

impl<B: AsRef<[u8]>> View<B> {
    /// Checks version and length.
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
        if b[0] >> 4 != 6 {
            return Err(Error::Version);
        }
        Ok(Self(bytes))
    }

    /// DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        (u16_at(self.0.as_ref(), 0) >> 4).to_be_bytes()[1]
    }

    /// ECN field (RFC 3168).
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> u8 {
        self.traffic_class() & 0x03
    }

    /// Flow label (RFC 6437).
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        let b = self.0.as_ref();
        u32::from_be_bytes([0, b[1] & 0x0f, b[2], b[3]])
    }

    /// Bytes after the fixed header, extension headers included. Zero may announce a
    /// jumbogram (RFC 2675), which is not supported.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        u16_at(self.0.as_ref(), 4)
    }

    /// Hop limit.
    #[inline]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[7]
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Ipv6Addr {
        ipv6_at(self.0.as_ref(), 8)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Ipv6Addr {
        ipv6_at(self.0.as_ref(), 24)
    }

    /// Walks the extension headers. Options inside them are not looked at. An atomic fragment
    /// (RFC 6946) is a whole packet.
    ///
    /// # Errors
    ///
    /// [`Error`] says why there is no upper layer.
    #[inline]
    pub fn upper_layer(&self) -> Result<UpperLayer, Error> {
        let b = self.0.as_ref();
        let mut protocol = b[6];
        let mut offset = HEADER_LEN;
        for walked in 0..=EXTENSIONS_MAX {
            if !matches!(
                protocol,
                HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
            ) {
                return Ok(UpperLayer { protocol, offset });
            }
            let header = b.get(offset..offset + 8).ok_or(Error::Truncated)?;
            // RFC 8200 §4.3: only immediately after the fixed header.
            if protocol == HOP_BY_HOP && walked > 0 {
                return Err(Error::Extension);
            }
            // RFC 8200 §4.4: with segments left the destination is not final.
            if protocol == ROUTING && header[3] != 0 {
                return Err(Error::Routing);
            }
            // RFC 8200 §4.5: 13 bits of offset, two reserved, M.
            if protocol == FRAGMENT && u16_at(header, 2) & 0xfff9 != 0 {
                return Err(Error::Fragment);
            }
            offset += if protocol == FRAGMENT {
                8
            } else {
                (usize::from(header[1]) + 1) * 8
            };
            protocol = header[0];
        }
        Err(Error::Extension)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> View<B> {
    /// Sets the ECN field. No checksum covers it.
    pub fn set_ecn(&mut self, ecn: u8) {
        let b = self.0.as_mut();
        b[1] = (b[1] & !0x30) | ((ecn & 0x03) << 4);
    }

    /// Sets the hop limit. No checksum covers it.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        put(self.0.as_mut(), 7, &[hop_limit]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet with these extension headers before `last`.
    fn packet(extensions: &[(u8, &[u8])], last: u8) -> Vec<u8> {
        let mut b = vec![0; HEADER_LEN];
        b[0] = 0x60;
        let mut protocols = extensions.iter().map(|e| e.0).chain([last]);
        b[6] = protocols.next().unwrap();
        for (_, body) in extensions {
            b.push(protocols.next().unwrap());
            b.extend(*body);
        }
        b.extend([0xee; 20]);
        b
    }

    fn upper(b: &[u8]) -> Result<(u8, usize), Error> {
        let upper = View::new_checked(b)?.upper_layer()?;
        Ok((upper.protocol, upper.offset))
    }

    const OPTIONS_8: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    const OPTIONS_16: &[u8] = &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn extension_headers_are_walked() {
        assert_eq!(upper(&packet(&[], 6)), Ok((6, 40)));
        assert_eq!(
            upper(&packet(&[(0, OPTIONS_8), (60, OPTIONS_16)], 6)),
            Ok((6, 64))
        );
        let routing_done = &[0, 4, 0, 0, 0, 0, 0];
        assert_eq!(upper(&packet(&[(43, routing_done)], 6)), Ok((6, 48)));
        // An unknown next header is the upper layer; the caller rejects it.
        assert_eq!(upper(&packet(&[(60, OPTIONS_8)], 99)), Ok((99, 48)));
    }

    #[test]
    fn fragments_are_refused_but_atomic_ones_are_whole() {
        let fragment = |word: [u8; 2]| {
            let body = [0, word[0], word[1], 0, 0, 0, 7];
            upper(&packet(&[(44, &body)], 6))
        };
        assert_eq!(fragment([0, 1]), Err(Error::Fragment));
        assert_eq!(fragment([0, 8]), Err(Error::Fragment));
        assert_eq!(fragment([0, 0]), Ok((6, 48)));
        assert_eq!(fragment([0, 6]), Ok((6, 48)), "reserved bits are ignored");
    }

    #[test]
    fn hostile_chains_are_refused() {
        let routing = &[0, 4, 1, 0, 0, 0, 0];
        assert_eq!(upper(&packet(&[(43, routing)], 6)), Err(Error::Routing));
        let late = [(60, OPTIONS_8), (0, OPTIONS_8)];
        assert_eq!(upper(&packet(&late, 6)), Err(Error::Extension));
        let six = [(60, OPTIONS_8); EXTENSIONS_MAX];
        assert_eq!(upper(&packet(&six, 6)), Ok((6, 88)));
        let seven = [(60, OPTIONS_8); EXTENSIONS_MAX + 1];
        assert_eq!(upper(&packet(&seven, 6)), Err(Error::Extension));
        let cut = packet(&[(60, OPTIONS_16)], 60);
        assert_eq!(upper(&cut[..44]), Err(Error::Truncated));
    }

    #[test]
    fn setters_touch_only_their_field() {
        let mut b = packet(&[], 6);
        b[1] = 0x0a;
        b[3] = 0x55;
        let mut view = View::new_checked(&mut b[..]).unwrap();
        view.set_ecn(3);
        view.set_hop_limit(9);
        assert_eq!(
            (view.ecn(), view.traffic_class(), view.hop_limit()),
            (3, 3, 9)
        );
        assert_eq!(view.flow_label(), 0xa_0055);
    }

    proptest! {
        #[test]
        fn random_chains_never_panic(
            mut b in proptest::collection::vec(any::<u8>(), 40..120),
            kinds in proptest::collection::vec(
                prop::sample::select(&[0u8, 43, 44, 60, 6][..]), 12),
        ) {
            b[0] = 0x60;
            b[6] = kinds[0];
            for (i, kind) in kinds.iter().enumerate().skip(1) {
                if let Some(next) = b.get_mut(32 + i * 8) {
                    *next = *kind;
                }
            }
            let _ = upper(&b);
        }
    }
}
