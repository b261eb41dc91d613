//! The last packets of a simulation, as a pcap file that Wireshark reads.

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;

use braid_dataplane::time::Instant;

/// A ring of packets.
#[derive(Debug)]
pub(super) struct Trace {
    packets: VecDeque<(Instant, Vec<u8>)>,
    packets_max: usize,
}

impl Trace {
    pub(super) fn new(packets_max: usize) -> Self {
        Self {
            packets: VecDeque::with_capacity(packets_max),
            packets_max,
        }
    }

    pub(super) fn record(&mut self, now: Instant, _link: usize, _to: usize, packet: &[u8]) {
        let mut buffer = if self.packets.len() == self.packets_max {
            self.packets.pop_front().map(|(_, b)| b).unwrap_or_default()
        } else {
            Vec::new()
        };
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.packets.push_back((now, buffer));
    }

    pub(super) fn dump(&self, name: &str) -> String {
        let path = std::env::temp_dir().join(format!("braid-sim-{name}.pcap"));
        match write_pcap(&path, self.packets.iter().map(|(t, p)| (*t, p.as_slice()))) {
            Ok(()) => format!("last {} packets: {}", self.packets.len(), path.display()),
            Err(e) => format!("no packet trace: {e}"),
        }
    }
}

/// Writes Ethernet packets with nanosecond times.
///
/// # Errors
/// When the file cannot be written.
pub fn write_pcap<'a>(
    path: &Path,
    packets: impl Iterator<Item = (Instant, &'a [u8])>,
) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    // Magic of nanosecond pcap, version 2.4, no time zone, snap length, LINKTYPE_ETHERNET.
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 0x0004_0000, 1] {
        out.write_all(&word.to_le_bytes())?;
    }
    for (at, packet) in packets {
        let nanos = at.as_nanos();
        let length = u32::try_from(packet.len()).map_err(std::io::Error::other)?;
        for word in [
            u32::try_from(nanos / 1_000_000_000).map_err(std::io::Error::other)?,
            u32::try_from(nanos % 1_000_000_000).map_err(std::io::Error::other)?,
            length,
            length,
        ] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(packet)?;
    }
    out.flush()
}
