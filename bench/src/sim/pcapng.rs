//! Writes pcapng, the format of Wireshark (draft-ietf-opsawg-pcapng), in little-endian order:
//! a section header, an interface per end of a link, packets with nanosecond times, direction
//! and a comment.

use std::io::{Error, Result, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
/// if_name of an interface, epb_flags of a packet.
const OPT_SECOND: u16 = 2;
const IF_TSRESOL: u16 = 9;

/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// See the module documentation.
pub(super) struct Pcapng<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Pcapng<W> {
    pub(super) fn new(out: W) -> Result<Self> {
        let mut file = Self {
            out,
            block: Vec::new(),
        };
        // Byte-order magic, version 1.0, unknown section length.
        file.block.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        file.block.extend_from_slice(&1u16.to_le_bytes());
        file.block.extend_from_slice(&0u16.to_le_bytes());
        file.block.extend_from_slice(&u64::MAX.to_le_bytes());
        file.end_block(SECTION_HEADER)?;
        Ok(file)
    }

    /// Interfaces are numbered in the order in which they are declared.
    pub(super) fn interface(&mut self, name: &str) -> Result<()> {
        self.block.extend_from_slice(&ETHERNET.to_le_bytes());
        self.block.extend_from_slice(&[0; 2]);
        // No limit of the packet length.
        self.block.extend_from_slice(&[0; 4]);
        self.option(OPT_SECOND, name.as_bytes())?;
        self.option(IF_TSRESOL, &[9])?;
        self.option(OPT_END, &[])?;
        self.end_block(INTERFACE)
    }

    pub(super) fn packet(
        &mut self,
        interface: u32,
        nanos: u64,
        packet: &[u8],
        inbound: bool,
        comment: Option<&str>,
    ) -> Result<()> {
        let length = u32::try_from(packet.len()).map_err(Error::other)?;
        self.block.extend_from_slice(&interface.to_le_bytes());
        let [a, b, c, d, e, f, g, h] = nanos.to_be_bytes();
        for half in [[a, b, c, d], [e, f, g, h]] {
            let half = u32::from_be_bytes(half);
            self.block.extend_from_slice(&half.to_le_bytes());
        }
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(packet);
        self.pad();
        let direction: u32 = if inbound { 1 } else { 2 };
        self.option(OPT_SECOND, &direction.to_le_bytes())?;
        if let Some(comment) = comment {
            self.option(OPT_COMMENT, comment.as_bytes())?;
        }
        self.option(OPT_END, &[])?;
        self.end_block(ENHANCED_PACKET)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.out.flush()
    }

    fn option(&mut self, code: u16, value: &[u8]) -> Result<()> {
        let length = u16::try_from(value.len()).map_err(Error::other)?;
        self.block.extend_from_slice(&code.to_le_bytes());
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn end_block(&mut self, kind: u32) -> Result<()> {
        // Type and both lengths.
        let total = u32::try_from(self.block.len() + 12).map_err(Error::other)?;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&total.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&total.to_le_bytes())?;
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the blocks by their lengths, as a reader that knows no type would.
    #[test]
    fn blocks_are_chained_by_both_lengths() {
        let mut bytes = Vec::new();
        let mut file = Pcapng::new(&mut bytes).unwrap();
        file.interface("link0-host0").unwrap();
        file.packet(0, 0x1_2345_6789, &[7; 61], true, Some("LOST"))
            .unwrap();
        file.finish().unwrap();
        let word =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let mut kinds = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = word(at + 4) as usize;
            assert_eq!((length % 4, word(at + length - 4)), (0, word(at + 4)));
            kinds.push(word(at));
            if word(at) == ENHANCED_PACKET {
                assert_eq!([word(at + 12), word(at + 16)], [1, 0x2345_6789]);
                assert_eq!(word(at + 20), 61);
            }
            at += length;
        }
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, ENHANCED_PACKET]);
    }
}
