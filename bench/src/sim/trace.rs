//! What was on the links: the last packets for a reader, and a hash of all of them.
//!
//! Two runs of one seed have the same hash, or something that is not the seed has a say.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use braid_dataplane::time::Instant;

use super::EPOCH;
use super::pcapng::Pcapng;
use super::text::Describe;

/// Packets that are kept unless told otherwise.
pub(super) const PACKETS_MAX: usize = 4096;

/// Headers of any kind end before this: Ethernet, IPv6, TCP with options, and a little.
/// The payload has its say by the TCP checksum.
const HASHED_BYTES: usize = 136;

/// Lines of the trace that are shown on the spot.
const LINES_SHOWN: usize = 30;

/// What became of a packet at the point where it was seen.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// A host sent it.
    Sent,
    /// A host received it.
    Received,
    /// A middlebox let it out onto the wire.
    LeftBox,
    /// The network lost it.
    Lost,
    /// The queue was full.
    QueueFull,
    /// It was larger than the MTU.
    TooBig,
    /// The link swallowed it.
    Blackhole,
    /// A filter dropped it.
    Filtered,
    /// The receiving host had no frame for it.
    NoFrame,
}

impl Fate {
    /// In words, for a line of the trace.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Sent => "sent",
            Fate::Received => "received",
            Fate::LeftBox => "left box",
            Fate::Lost => "LOST",
            Fate::QueueFull => "QUEUE FULL",
            Fate::TooBig => "TOO BIG",
            Fate::Blackhole => "SWALLOWED",
            Fate::Filtered => "FILTERED",
            Fate::NoFrame => "NO FRAME",
        }
    }
}

/// One packet seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) link: usize,
    /// The host that sent it (or whose packet it is), or received it.
    pub(super) host: usize,
    pub(super) fate: Fate,
    pub(super) packet: Vec<u8>,
}

/// A ring of packets, and the hash.
#[derive(Debug)]
pub(super) struct Trace {
    packets: VecDeque<Seen>,
    packets_max: usize,
    total: u64,
    hash: u64,
}

impl Trace {
    pub(super) fn new(packets_max: usize) -> Self {
        Self {
            packets: VecDeque::new(),
            packets_max,
            total: 0,
            hash: 0,
        }
    }

    pub(super) fn set_packets_max(&mut self, packets_max: usize) {
        self.packets_max = packets_max;
        while self.packets.len() > packets_max {
            self.packets.pop_front();
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn record(
        &mut self,
        at: Instant,
        link: usize,
        host: usize,
        fate: Fate,
        packet: &[u8],
    ) {
        self.total += 1;
        let place = (link as u64) << 32 | (host as u64) << 8 | fate as u64;
        self.mix(at.as_nanos());
        self.mix(place);
        self.mix(packet.len() as u64);
        for word in packet[..packet.len().min(HASHED_BYTES)].chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            self.mix(u64::from_le_bytes(bytes));
        }
        if self.packets_max == 0 {
            return;
        }
        let mut buffer = if self.packets.len() == self.packets_max {
            self.packets
                .pop_front()
                .map(|s| s.packet)
                .unwrap_or_default()
        } else {
            Vec::new()
        };
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.packets.push_back(Seen {
            at,
            link,
            host,
            fate,
            packet: buffer,
        });
    }

    /// A step of FxHash: nobody chooses packets to collide here.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// One line per packet kept.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut describe = Describe::default();
        self.packets
            .iter()
            .map(|seen| {
                let mut line = String::new();
                // Writing to a string cannot fail.
                let _ = write!(
                    line,
                    "{:>12.6} link{} host{} {:<10} ",
                    (seen.at - (Instant::default() + EPOCH)).as_secs_f64(),
                    seen.link,
                    seen.host,
                    seen.fate.as_str(),
                );
                describe.packet(&seen.packet, &mut line);
                line
            })
            .collect()
    }

    /// Writes `<stem>.txt` and `<stem>.pcapng` and says so, with the last lines.
    pub(super) fn dump(&self, stem: &Path, links: &[[usize; 2]]) -> String {
        let lines = self.lines();
        let mut out = String::new();
        let kept = self.packets.len();
        match self.write_files(stem, links, &lines) {
            Ok([text, pcap]) => {
                let _ = writeln!(
                    out,
                    "last {kept} of {} packets: {} {}",
                    self.total,
                    text.display(),
                    pcap.display()
                );
            }
            Err(e) => {
                let _ = writeln!(out, "no packet trace: {e}");
            }
        }
        for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
            let _ = writeln!(out, "{line}");
        }
        out
    }

    fn write_files(
        &self,
        stem: &Path,
        links: &[[usize; 2]],
        lines: &[String],
    ) -> std::io::Result<[PathBuf; 2]> {
        let with = |extension: &str| {
            let mut name = stem.as_os_str().to_owned();
            name.push(extension);
            PathBuf::from(name)
        };
        let [text, pcap] = [with(".txt"), with(".pcapng")];
        let mut file = std::io::BufWriter::new(std::fs::File::create(&text)?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        let file = std::io::BufWriter::new(std::fs::File::create(&pcap)?);
        self.write_pcapng(file, links)?;
        Ok([text, pcap])
    }

    /// Interfaces: both ends of every link, and what it dropped or let out of boxes.
    pub(super) fn write_pcapng(
        &self,
        out: impl std::io::Write,
        links: &[[usize; 2]],
    ) -> std::io::Result<()> {
        let mut file = Pcapng::new(out)?;
        for (link, ends) in links.iter().enumerate() {
            for host in ends {
                file.interface(&format!("link{link}-host{host}"))?;
            }
            file.interface(&format!("link{link}-inside"))?;
        }
        for seen in &self.packets {
            let ends = links.get(seen.link).copied().unwrap_or_default();
            let at_end = usize::from(ends[0] != seen.host);
            let (place, comment) = match seen.fate {
                Fate::Sent | Fate::Received => (at_end, None),
                other => (2, Some(other.as_str())),
            };
            let interface = u32::try_from(seen.link * 3 + place).unwrap_or(u32::MAX);
            let inbound = seen.fate == Fate::Received;
            file.packet(
                interface,
                seen.at.as_nanos(),
                &seen.packet,
                inbound,
                comment,
            )?;
        }
        file.finish()
    }
}
