//! TCP options: a reader that survives anything and a writer that keeps them aligned.

use super::bytes::{put, u16_at, u32_at};
use super::mptcp::{self, MptcpOption};
use super::tcp::{OPTIONS_MAX, SeqNumber};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5: u8 = 19;
const FAST_OPEN: u8 = 34;

/// Blocks that one SACK option can carry (RFC 2018 §3).
pub const SACK_BLOCKS_MAX: usize = 4;
/// MPTCP options of one segment that are kept. RFC 8684 never needs more than three.
pub const MPTCP_OPTIONS_MAX: usize = 6;

/// The timestamps option (RFC 7323 §3.2).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Timestamps {
    /// TSval
    pub tsval: u32,
    /// TSecr
    pub tsecr: u32,
}

/// Left edge and right edge (exclusive) of received data (RFC 2018 §3).
pub type SackBlock = (SeqNumber, SeqNumber);

/// Up to four SACK blocks in the order of the wire.
#[derive(Copy, Clone, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; SACK_BLOCKS_MAX],
    len: u8,
}

impl SackBlocks {
    /// Appends a block; `false` if there is no room.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = block;
        self.len += 1;
        true
    }

    /// The blocks.
    #[must_use]
    pub fn as_slice(&self) -> &[SackBlock] {
        &self.blocks[..usize::from(self.len)]
    }
}

impl core::ops::Deref for SackBlocks {
    type Target = [SackBlock];
    fn deref(&self) -> &[SackBlock] {
        self.as_slice()
    }
}

impl core::fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// The MPTCP options of a segment in the order of the wire.
#[derive(Copy, Clone)]
pub struct MptcpOptions {
    options: [MptcpOption; MPTCP_OPTIONS_MAX],
    len: u8,
    ignored: u8,
}

impl MptcpOptions {
    const FILLER: MptcpOption = MptcpOption::Unknown { subtype: 0, len: 0 };

    /// Appends an option, or counts it as ignored if there is no room.
    pub fn push(&mut self, option: MptcpOption) {
        if let Some(slot) = self.options.get_mut(usize::from(self.len)) {
            *slot = option;
            self.len += 1;
        } else {
            self.ignored += 1;
        }
    }

    /// The options.
    #[must_use]
    pub fn as_slice(&self) -> &[MptcpOption] {
        &self.options[..usize::from(self.len)]
    }

    /// How many options were dropped because there were more than [`MPTCP_OPTIONS_MAX`].
    #[must_use]
    pub fn ignored(&self) -> u8 {
        self.ignored
    }
}

impl Default for MptcpOptions {
    fn default() -> Self {
        Self {
            options: [Self::FILLER; MPTCP_OPTIONS_MAX],
            len: 0,
            ignored: 0,
        }
    }
}

impl core::ops::Deref for MptcpOptions {
    type Target = [MptcpOption];
    fn deref(&self) -> &[MptcpOption] {
        self.as_slice()
    }
}

impl<'a> IntoIterator for &'a MptcpOptions {
    type Item = &'a MptcpOption;
    type IntoIter = core::slice::Iter<'a, MptcpOption>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for MptcpOptions {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice() && self.ignored == other.ignored
    }
}

impl Eq for MptcpOptions {}

impl core::fmt::Debug for MptcpOptions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// A Fast Open cookie (RFC 7413 §4.1.1); empty, it asks for one.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct FastOpenCookie {
    bytes: [u8; 16],
    len: u8,
}

impl FastOpenCookie {
    /// The question for a cookie.
    pub const REQUEST: Self = Self {
        bytes: [0; 16],
        len: 0,
    };

    /// A cookie, or the question for one; `None` if the length is impossible.
    #[must_use]
    pub fn new(cookie: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        match cookie.len() {
            0 | 4 | 6 | 8 | 10 | 12 | 14 | 16 => {
                bytes[..cookie.len()].copy_from_slice(cookie);
                let len = cookie.len() as u8;
                Some(Self { bytes, len })
            }
            _ => None,
        }
    }

    /// The cookie.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Asks for a cookie.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.len == 0
    }
}

/// What the options of one segment say. An option given twice counts the last time, MPTCP
/// options each time.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct TcpOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale shift; RFC 7323 §2.3 bounds it to 14, which is left to the user.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Selective acknowledgments.
    pub sack: SackBlocks,
    /// MPTCP options.
    pub mptcp: MptcpOptions,
    /// Fast Open cookie.
    pub fast_open: Option<FastOpenCookie>,
    /// A TCP MD5 signature (RFC 2385) is present: no MPTCP with this peer.
    pub md5: bool,
    /// The area or an option of a known kind violates its format. What precedes and follows
    /// the offending option, as far as it can be told, is still reported.
    pub malformed: bool,
}

impl TcpOptions {
    /// Reads an option area.
    #[must_use]
    pub fn parse(area: &[u8]) -> Self {
        let mut out = Self::default();
        let mut rest = area;
        while let [kind, tail @ ..] = rest {
            match *kind {
                END => break,
                NOP => {
                    rest = tail;
                    continue;
                }
                _ => {}
            }
            let option = tail
                .first()
                .filter(|len| **len >= 2)
                .and_then(|len| rest.split_at_checked(usize::from(*len)));
            let Some((option, after)) = option else {
                out.malformed = true;
                break;
            };
            out.read(option);
            rest = after;
        }
        out
    }

    /// Reads one option, kind and length included.
    fn read(&mut self, option: &[u8]) {
        match (option[0], option.len()) {
            (MSS, 4) => self.mss = Some(u16_at(option, 2)),
            (WINDOW_SCALE, 3) => self.window_scale = Some(option[2]),
            (SACK_PERMITTED, 2) => self.sack_permitted = true,
            (SACK, 10 | 18 | 26 | 34) => {
                self.sack = SackBlocks::default();
                for block in option[2..].chunks_exact(8) {
                    self.sack
                        .push((SeqNumber(u32_at(block, 0)), SeqNumber(u32_at(block, 4))));
                }
            }
            (TIMESTAMPS, 10) => {
                self.timestamps = Some(Timestamps {
                    tsval: u32_at(option, 2),
                    tsecr: u32_at(option, 6),
                });
            }
            (mptcp::KIND, _) => self.mptcp.push(MptcpOption::parse(option)),
            (MD5, 18) => self.md5 = true,
            // RFC 7413 §4.1.1: of another length it is ignored.
            (FAST_OPEN, _) => self.fast_open = FastOpenCookie::new(&option[2..]),
            (MSS | WINDOW_SCALE | SACK_PERMITTED | SACK | TIMESTAMPS | MD5, _) => {
                self.malformed = true;
            }
            // Kinds we do not know are skipped (RFC 9293 MUST-6).
            _ => {}
        }
    }
}

/// An option does not fit into the 40 bytes any more.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no room left in the TCP option area")]
pub struct NoRoom;

/// An option area under construction.
///
/// Options that carry 32-bit fields are preceded by NOPs so that the fields are aligned, where
/// there is room for that; the end is padded with NOPs to the next multiple of 4.
#[derive(Copy, Clone)]
pub struct OptionsBuf {
    /// NOPs from `len` on.
    buf: [u8; OPTIONS_MAX],
    len: u8,
}

impl Default for OptionsBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl OptionsBuf {
    /// An empty area.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buf: [NOP; OPTIONS_MAX],
            len: 0,
        }
    }

    /// Bytes not yet used.
    #[must_use]
    pub fn remaining(&self) -> usize {
        OPTIONS_MAX - usize::from(self.len)
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The area, padded to a multiple of 4 bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.buf[..self.padded_len()]
    }

    /// Bytes of [`OptionsBuf::as_slice`].
    #[must_use]
    pub fn padded_len(&self) -> usize {
        usize::from(self.len).next_multiple_of(4)
    }

    /// Reserves `len` bytes, after NOPs that put byte `aligned` of them on a multiple of 4 if
    /// there is room for the NOPs too.
    fn reserve(&mut self, len: usize, aligned: usize) -> Result<&mut [u8], NoRoom> {
        let used = usize::from(self.len);
        let nops = (used + aligned).next_multiple_of(4) - (used + aligned);
        let start = if nops + len <= self.remaining() {
            used + nops
        } else {
            used
        };
        let end = start + len;
        let out = self.buf.get_mut(start..end).ok_or(NoRoom)?;
        // At most 40: it is an index into the buffer.
        self.len = end as u8;
        Ok(out)
    }

    /// Writes an option of `N` bytes.
    fn write<const N: usize>(&mut self, option: [u8; N], aligned: usize) -> Result<(), NoRoom> {
        self.reserve(N, aligned)?.copy_from_slice(&option);
        Ok(())
    }

    /// Maximum segment size (RFC 9293 §3.7.1).
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing is written.
    pub fn mss(&mut self, mss: u16) -> Result<(), NoRoom> {
        let [high, low] = mss.to_be_bytes();
        self.write([MSS, 4, high, low], 0)
    }

    /// Window scale (RFC 7323 §2).
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing is written.
    pub fn window_scale(&mut self, shift: u8) -> Result<(), NoRoom> {
        self.write([WINDOW_SCALE, 3, shift], 3)
    }

    /// SACK permitted (RFC 2018 §2).
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing is written.
    pub fn sack_permitted(&mut self) -> Result<(), NoRoom> {
        // Where it stands; followed by timestamps the pair fills whole words.
        let here = usize::from(self.len).next_multiple_of(4) - usize::from(self.len);
        self.write([SACK_PERMITTED, 2], here)
    }

    /// Timestamps (RFC 7323 §3.2).
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing is written.
    pub fn timestamps(&mut self, timestamps: Timestamps) -> Result<(), NoRoom> {
        let out = self.reserve(10, 2)?;
        put(out, 0, &[TIMESTAMPS, 10]);
        put(out, 2, &timestamps.tsval.to_be_bytes());
        put(out, 6, &timestamps.tsecr.to_be_bytes());
        Ok(())
    }

    /// A Fast Open cookie (RFC 7413 §4.1.1).
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing is written.
    pub fn fast_open(&mut self, cookie: &FastOpenCookie) -> Result<(), NoRoom> {
        let cookie = cookie.as_slice();
        let out = self.reserve(2 + cookie.len(), 0)?;
        put(out, 0, &[FAST_OPEN, 2 + cookie.len() as u8]);
        put(out, 2, cookie);
        Ok(())
    }

    /// As many of the first SACK blocks as there is room for, at most four. Returns how many.
    pub fn sack(&mut self, blocks: &[SackBlock]) -> usize {
        let fit = self.remaining().saturating_sub(2) / 8;
        let blocks = &blocks[..blocks.len().min(fit).min(SACK_BLOCKS_MAX)];
        if blocks.is_empty() {
            return 0;
        }
        let len = 2 + 8 * blocks.len();
        let Ok(out) = self.reserve(len, 2) else {
            return 0;
        };
        // At most 34.
        put(out, 0, &[SACK, len as u8]);
        for (out, (left, right)) in out[2..].chunks_exact_mut(8).zip(blocks) {
            put(out, 0, &left.0.to_be_bytes());
            put(out, 4, &right.0.to_be_bytes());
        }
        blocks.len()
    }

    /// An MPTCP option. Options that were not understood on receipt write nothing.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]; nothing is written.
    pub fn mptcp(&mut self, option: &MptcpOption) -> Result<(), NoRoom> {
        let len = option.encoded_len();
        if len > 0 {
            option.emit(self.reserve(len, 0)?);
        }
        Ok(())
    }

    /// Fills with NOPs up to `len` bytes, so that a segment can be sent again with fewer
    /// options in a header of the same length.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if the area is longer already or `len` exceeds 40; nothing is changed.
    ///
    /// # Panics
    ///
    /// In debug builds if `len` is not a multiple of 4.
    pub fn pad_to(&mut self, len: usize) -> Result<(), NoRoom> {
        debug_assert!(len.is_multiple_of(4));
        if len > OPTIONS_MAX || len < self.padded_len() {
            return Err(NoRoom);
        }
        self.len = len as u8;
        Ok(())
    }
}

impl core::fmt::Debug for OptionsBuf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OptionsBuf({:02x?})", self.as_slice())
    }
}

/// Equality of what is sent.
impl PartialEq for OptionsBuf {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for OptionsBuf {}

#[cfg(test)]
mod tests;
