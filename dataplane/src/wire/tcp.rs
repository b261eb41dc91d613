//! TCP headers (RFC 9293 §3.1), sequence numbers and flags.

use core::cmp::Ordering;
use core::fmt;
use core::ops::{Add, AddAssign, BitOr, BitOrAssign, Sub, SubAssign};

use super::bytes::{put, u16_at, u32_at};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of options that a header can carry.
pub const OPTIONS_MAX: usize = 40;
/// Offset of the checksum field in the header.
pub const CHECKSUM_OFFSET: usize = 16;
/// Where the sequence number is in a header.
pub const SEQ_OFFSET: usize = 4;
/// Where the control bits are in a header.
pub const FLAGS_OFFSET: usize = 13;

/// A TCP sequence number: 32 bits that wrap, ordered by signed distance (RFC 9293 §3.4).
///
/// The order is only meaningful between numbers less than 2^31 apart, and it is not
/// transitive; therefore there is no `Ord`.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// Bytes from `earlier` to `self`; negative if `earlier` is in fact later.
    #[inline]
    #[must_use]
    pub const fn diff(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// The later of two.
    #[inline]
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if self.diff(other) >= 0 { self } else { other }
    }

    /// The earlier of two.
    #[inline]
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if self.diff(other) <= 0 { self } else { other }
    }
}

impl PartialOrd for SeqNumber {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.diff(*other).cmp(&0))
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;
    #[inline]
    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for SeqNumber {
    #[inline]
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub<u32> for SeqNumber {
    type Output = Self;
    #[inline]
    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

impl SubAssign<u32> for SeqNumber {
    #[inline]
    fn sub_assign(&mut self, bytes: u32) {
        *self = *self - bytes;
    }
}

/// Bytes from the right side up to the left, modulo 2^32. For a signed answer see
/// [`SeqNumber::diff`].
impl Sub for SeqNumber {
    type Output = u32;
    #[inline]
    fn sub(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeqNumber({})", self.0)
    }
}

impl fmt::Display for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The control bits of a segment.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number is meaningful.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is meaningful.
    pub const URG: Self = Self(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Names in the order of the bits.
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// No flag.
    #[must_use]
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Flags from the byte of the header.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The byte of the header.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    #[inline]
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline]
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These flags and those of `other`; `const` form of `|`.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These flags without those of `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no flag is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Flags {
    type Output = Self;
    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Self::NAMES
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let mut separator = "";
        for (_, name) in set {
            write!(f, "{separator}{name}")?;
            separator = "|";
        }
        if self.is_empty() {
            f.write_str("-")?;
        }
        Ok(())
    }
}

/// Why bytes are not a TCP header.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than the header says it is.
    Truncated,
    /// A data offset below 5 words.
    DataOffset,
}

/// A segment whose header, options included, is all there.
#[derive(Debug)]
pub struct View<B>(B);

impl<B: AsRef<[u8]>> View<B> {
    /// Checks the lengths.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong.
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        if bytes.as_ref().len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let view = Self(bytes);
        if view.header_len() < HEADER_LEN {
            return Err(Error::DataOffset);
        }
        if view.0.as_ref().len() < view.header_len() {
            return Err(Error::Truncated);
        }
        Ok(view)
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub fn src_port(&self) -> u16 {
        u16_at(self.0.as_ref(), 0)
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub fn dst_port(&self) -> u16 {
        u16_at(self.0.as_ref(), 2)
    }

    /// SEG.SEQ
    #[inline]
    #[must_use]
    pub fn seq(&self) -> SeqNumber {
        SeqNumber(u32_at(self.0.as_ref(), 4))
    }

    /// SEG.ACK
    #[inline]
    #[must_use]
    pub fn ack(&self) -> SeqNumber {
        SeqNumber(u32_at(self.0.as_ref(), 8))
    }

    /// Header bytes, options included.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[12] >> 4) * 4
    }

    /// Control bits.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags(self.0.as_ref()[13])
    }

    /// SEG.WND, not scaled.
    #[inline]
    #[must_use]
    pub fn window(&self) -> u16 {
        u16_at(self.0.as_ref(), 14)
    }

    /// The checksum field.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0.as_ref(), CHECKSUM_OFFSET)
    }

    /// SEG.UP
    #[inline]
    #[must_use]
    pub fn urgent(&self) -> u16 {
        u16_at(self.0.as_ref(), 18)
    }

    /// The option area.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_LEN..self.header_len()]
    }

    /// Everything behind the header.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..]
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> View<B> {
    /// Sets the checksum field.
    pub fn set_checksum(&mut self, field: u16) {
        put(self.0.as_mut(), CHECKSUM_OFFSET, &field.to_be_bytes());
    }

    /// Sets SEG.WND; the checksum is the caller's to update.
    pub fn set_window(&mut self, window: u16) {
        put(self.0.as_mut(), 14, &window.to_be_bytes());
    }

    /// The option area, to be rewritten in place.
    pub fn options_mut(&mut self) -> &mut [u8] {
        let end = self.header_len();
        &mut self.0.as_mut()[HEADER_LEN..end]
    }
}

/// The fixed part of a header but for the checksum.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// SEG.SEQ
    pub seq: SeqNumber,
    /// SEG.ACK
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: Flags,
    /// SEG.WND, not scaled.
    pub window: u16,
    /// SEG.UP
    pub urgent: u16,
}

impl Repr {
    /// Reads a checked header.
    #[must_use]
    pub fn parse<B: AsRef<[u8]>>(view: &View<B>) -> Self {
        Self {
            src_port: view.src_port(),
            dst_port: view.dst_port(),
            seq: view.seq(),
            ack: view.ack(),
            flags: view.flags(),
            window: view.window(),
            urgent: view.urgent(),
        }
    }

    /// Writes the fixed header with this data offset and a zero checksum field.
    ///
    /// # Panics
    ///
    /// In debug builds if `options_len` is not a multiple of 4 up to [`OPTIONS_MAX`].
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_LEN], options_len: usize) {
        debug_assert!(options_len <= OPTIONS_MAX && options_len.is_multiple_of(4));
        let words = (HEADER_LEN + options_len) / 4;
        put(out, 0, &self.src_port.to_be_bytes());
        put(out, 2, &self.dst_port.to_be_bytes());
        put(out, 4, &self.seq.0.to_be_bytes());
        put(out, 8, &self.ack.0.to_be_bytes());
        out[12] = (words as u8) << 4;
        out[13] = self.flags.bits();
        put(out, 14, &self.window.to_be_bytes());
        put(out, 16, &[0, 0]);
        put(out, 18, &self.urgent.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequence_numbers_order_across_the_wrap() {
        let before = SeqNumber(u32::MAX - 1);
        let after = before + 4;
        assert_eq!(after, SeqNumber(2));
        assert_eq!(before.partial_cmp(&after), Some(Ordering::Less));
        assert_eq!(after.partial_cmp(&before), Some(Ordering::Greater));
        assert_eq!(after.partial_cmp(&after), Some(Ordering::Equal));
        assert_eq!((after.diff(before), before.diff(after)), (4, -4));
        assert_eq!((after - before, after - 4), (4, before));
        assert_eq!(
            (before.later(after), before.earlier(after)),
            (after, before)
        );
    }

    /// A number half the space away must not count as "not before": checks of the form
    /// `seq < left edge => drop` would let it through.
    #[test]
    fn the_opposite_number_is_before() {
        assert!(SeqNumber(1 << 31) < SeqNumber(0));
        assert!(SeqNumber(0) < SeqNumber(1 << 31));
    }

    #[test]
    fn flags_are_a_set() {
        let f = Flags::SYN | Flags::ACK;
        assert!(f.contains(Flags::SYN) && !f.contains(Flags::SYN | Flags::FIN));
        assert!(f.intersects(Flags::SYN | Flags::FIN) && !f.intersects(Flags::RST));
        assert_eq!(f.without(Flags::ACK), Flags::SYN);
        assert_eq!(format!("{f:?} {:?}", Flags::empty()), "SYN|ACK -");
        assert_eq!(Flags::from_bits(0xff).bits(), 0xff);
    }

    #[test]
    fn short_or_inconsistent_headers_are_refused() {
        let mut b = [0u8; 24];
        b[12] = 0x60;
        assert_eq!(View::new_checked(&b[..]).unwrap().options().len(), 4);
        assert_eq!(View::new_checked(&b[..23]).unwrap_err(), Error::Truncated);
        assert_eq!(View::new_checked(&b[..19]).unwrap_err(), Error::Truncated);
        b[12] = 0x40;
        assert_eq!(View::new_checked(&b[..]).unwrap_err(), Error::DataOffset);
    }

    proptest! {
        #[test]
        fn headers_round_trip(
            ports: (u16, u16), numbers: (u32, u32), flags: u8, window: u16, urgent: u16,
            words in 0usize..=10,
        ) {
            let repr = Repr {
                src_port: ports.0,
                dst_port: ports.1,
                seq: SeqNumber(numbers.0),
                ack: SeqNumber(numbers.1),
                flags: Flags::from_bits(flags),
                window,
                urgent,
            };
            let mut b = [0xaa; 60];
            repr.emit(b.first_chunk_mut().unwrap(), words * 4);
            let mut view = View::new_checked(&mut b[..]).unwrap();
            prop_assert_eq!(Repr::parse(&view), repr);
            prop_assert_eq!((view.checksum(), view.options().len()), (0, words * 4));
            view.set_checksum(0x1234);
            view.set_window(7);
            prop_assert_eq!((view.checksum(), view.window()), (0x1234, 7));
            prop_assert_eq!(view.options_mut().len(), words * 4);
        }

        #[test]
        fn random_bytes_never_panic(b in proptest::collection::vec(any::<u8>(), 0..70)) {
            if let Ok(view) = View::new_checked(&b[..]) {
                let _ = (Repr::parse(&view), view.options(), view.payload(), view.checksum());
            }
        }
    }
}
