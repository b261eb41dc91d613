//! Ethernet, IP and TCP, written and read byte by byte: an independent check of the
//! dataplane's own code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::keys::internet_checksum;

const ETHERNET: usize = 14;
const PROTOCOL_TCP: u8 = 6;

/// A TCP segment with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// Kind and body of each option but NOP and end of list.
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    pub(crate) payload: Vec<u8>,
}

/// FIN, SYN, RST, PSH, ACK, URG, ECE, CWR from the lowest bit, by their letters.
const LETTERS: &[u8; 8] = b"FSRP.UEW";

/// `S.` to bits.
pub(crate) fn flag_bits(letters: &str) -> u8 {
    let bit = |c: u8| LETTERS.iter().position(|l| *l == c);
    letters
        .bytes()
        .filter_map(bit)
        .fold(0, |bits, i| bits | 1 << i)
}

/// Bits to `S.`.
pub(crate) fn flag_letters(bits: u8) -> String {
    let set = |i: &usize| bits & (1 << *i) != 0;
    // packetdrill writes the dot last.
    [0, 1, 2, 3, 5, 6, 7, 4]
        .iter()
        .filter(|i| set(i))
        .map(|i| char::from(LETTERS[*i]))
        .collect()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn pseudo_header(src: IpAddr, dst: IpAddr, len: usize) -> Vec<u8> {
    let mut out = octets(src);
    out.extend(octets(dst));
    if src.is_ipv6() {
        out.extend(u32::try_from(len).expect("short").to_be_bytes());
        out.extend([0, 0, 0, PROTOCOL_TCP]);
    } else {
        out.extend([0, PROTOCOL_TCP]);
        out.extend(u16::try_from(len).expect("short").to_be_bytes());
    }
    out
}

impl Segment {
    /// The frame on the wire; `damage` makes the TCP checksum wrong.
    pub(crate) fn encode(&self, damage: bool) -> Result<Vec<u8>, String> {
        let mut options = Vec::new();
        for (kind, body) in &self.options {
            options.push(*kind);
            let len = u8::try_from(body.len() + 2).map_err(|_| "an option is too long")?;
            options.push(len);
            options.extend(body);
        }
        while options.len() % 4 != 0 {
            options.push(1);
        }
        if options.len() > 40 {
            return Err(format!("options take {} bytes, 40 fit", options.len()));
        }
        let mut tcp = Vec::new();
        tcp.extend(self.src.port().to_be_bytes());
        tcp.extend(self.dst.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        let words = u8::try_from((20 + options.len()) / 4).expect("at most 15");
        tcp.extend([words << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(&options);
        tcp.extend(&self.payload);
        let pseudo = pseudo_header(self.src.ip(), self.dst.ip(), tcp.len());
        let checksum = internet_checksum(&[&pseudo, &tcp]) ^ u16::from(damage);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.src.is_ipv6() {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(u16::try_from(tcp.len()).expect("short").to_be_bytes());
            frame.extend([PROTOCOL_TCP, 64]);
            frame.extend(octets(self.src.ip()));
            frame.extend(octets(self.dst.ip()));
        } else {
            frame.extend([0x08, 0x00]);
            let mut ip = vec![0x45, 0];
            ip.extend(u16::try_from(tcp.len() + 20).expect("short").to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0]);
            ip.extend(octets(self.src.ip()));
            ip.extend(octets(self.dst.ip()));
            let checksum = internet_checksum(&[&ip]);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend(ip);
        }
        frame.extend(tcp);
        Ok(frame)
    }

    /// Reads a frame; everything about it has to be right.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, String> {
        let (src, dst, tcp) = strip_ip(frame).ok_or("no whole IP packet with TCP in it")?;
        let pseudo = pseudo_header(src, dst, tcp.len());
        if internet_checksum(&[&pseudo, tcp]) != 0 {
            return Err("wrong TCP checksum".to_owned());
        }
        if tcp.len() < 20 {
            return Err("a TCP header has 20 bytes".to_owned());
        }
        let header = usize::from(tcp[12] >> 4) * 4;
        if header < 20 || header > tcp.len() || tcp[12] & 0xf != 0 {
            return Err("wrong data offset or reserved bits".to_owned());
        }
        let word = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        Ok(Self {
            src: SocketAddr::new(src, word(0)),
            dst: SocketAddr::new(dst, word(2)),
            seq: long(4),
            ack: long(8),
            flags: tcp[13],
            window: word(14),
            urgent: word(18),
            options: split_options(&tcp[20..header])?,
            payload: tcp[header..].to_vec(),
        })
    }

    /// Sequence numbers it takes.
    pub(crate) fn seq_len(&self) -> u32 {
        let phantom = u32::from(self.flags & 1 != 0) + u32::from(self.flags & 2 != 0);
        u32::try_from(self.payload.len()).expect("short") + phantom
    }
}

fn strip_ip(frame: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let ip = frame.get(ETHERNET..)?;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = frame.get(ETHERNET..ETHERNET + 20)?;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let whole = header[0] == 0x45 && header[9] == PROTOCOL_TCP && total == ip.len();
            let right = internet_checksum(&[header]) == 0;
            let at = |i: usize| -> Option<[u8; 4]> { header.get(i..i + 4)?.try_into().ok() };
            let (src, dst) = (Ipv4Addr::from(at(12)?), Ipv4Addr::from(at(16)?));
            (whole && right).then_some((src.into(), dst.into(), &ip[20..]))
        }
        [0x86, 0xdd] => {
            let header = ip.get(..40)?;
            let total = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let at = |i: usize| -> Option<[u8; 16]> { header.get(i..i + 16)?.try_into().ok() };
            let (src, dst) = (Ipv6Addr::from(at(8)?), Ipv6Addr::from(at(24)?));
            (header[6] == PROTOCOL_TCP && total + 40 == ip.len()).then_some((
                src.into(),
                dst.into(),
                &ip[40..],
            ))
        }
        _ => None,
    }
}

fn split_options(mut area: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, String> {
    let mut out = Vec::new();
    while let Some((&kind, rest)) = area.split_first() {
        match kind {
            0 => break,
            1 => area = rest,
            _ => {
                let len = rest.first().map_or(0, |l| usize::from(*l));
                if len < 2 || len > area.len() {
                    return Err(format!("option {kind} has length {len}"));
                }
                out.push((kind, area[2..len].to_vec()));
                area = &area[len..];
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(v6: bool) -> Segment {
        let address = |n: u8| {
            if v6 {
                SocketAddr::from(([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(n)], 80))
            } else {
                SocketAddr::from(([10, 77, 0, n], 80))
            }
        };
        Segment {
            src: address(1),
            dst: address(2),
            seq: 1,
            ack: 0xffff_ffff,
            flags: flag_bits("P."),
            window: 512,
            urgent: 0,
            options: vec![(30, vec![0x50]), (2, vec![5, 0xb4])],
            payload: vec![1, 2, 3],
        }
    }

    #[test]
    fn frames_survive_the_way_there_and_back() {
        for v6 in [false, true] {
            let segment = sample(v6);
            let frame = segment.encode(false).unwrap();
            assert_eq!(Segment::decode(&frame), Ok(segment));
        }
    }

    #[test]
    fn a_damaged_checksum_is_seen() {
        let frame = sample(false).encode(true).unwrap();
        assert!(Segment::decode(&frame).unwrap_err().contains("checksum"));
    }

    #[test]
    fn the_dataplane_reads_what_is_written_here() {
        use braid_dataplane::wire::packet::{Packet, parse};
        for v6 in [false, true] {
            let frame = sample(v6).encode(false).unwrap();
            let Ok(Packet::Tcp(packet)) = parse(&frame) else {
                panic!("not read");
            };
            assert_eq!(packet.payload.len(), 3);
            assert_eq!(packet.tuple.remote, sample(v6).src);
        }
    }

    #[test]
    fn flags_have_letters() {
        for letters in ["S", "S.", "F.", "R", "PUEW."] {
            assert_eq!(flag_letters(flag_bits(letters)), letters);
        }
    }
}
