//! Decisions out of a byte string. Read to its end, it answers zero for ever, so that cutting
//! an input short only makes a run tamer.

/// A cursor over the input.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// From the start.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// The next four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    /// What is left.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// A small signed number: mostly near zero, now and then far away, from one byte.
    pub fn near(&mut self) -> i32 {
        let byte = self.u8();
        let magnitude = i32::from(byte & 0x1f);
        let scaled = match byte >> 5 & 0x03 {
            0 => magnitude,
            1 => magnitude * 100,
            2 => magnitude * 1460,
            _ => 1 << magnitude.min(30),
        };
        if byte & 0x80 == 0 { scaled } else { -scaled }
    }
}
