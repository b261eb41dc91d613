//! Packets in words, with numbers relative to the start of their flow.

use std::collections::HashMap;
use std::fmt::Write;

use braid_dataplane::wire::mptcp::MptcpOption;
use braid_dataplane::wire::packet::{self, Packet, TcpPacket};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::types::FourTuple;

/// Remembers where each direction of each flow started.
#[derive(Debug, Default)]
pub(super) struct Describe {
    /// By the tuple of the packets' receiver.
    start: HashMap<FourTuple, SeqNumber>,
}

impl Describe {
    pub(super) fn packet(&mut self, frame: &[u8], out: &mut String) {
        // Writing to a string cannot fail.
        let _ = match packet::parse(frame) {
            Ok(Packet::Tcp(tcp)) => self.tcp(&tcp, out),
            Ok(Packet::Icmp(error)) => write!(
                out,
                "ICMP {:?} about {} from {}",
                error.kind, error.tuple, error.reporter
            ),
            Err(e) => write!(out, "not understood: {e}, {} bytes", frame.len()),
        };
    }

    fn tcp(&mut self, tcp: &TcpPacket, out: &mut String) -> std::fmt::Result {
        if tcp.flags.contains(Flags::SYN) {
            self.start.insert(tcp.tuple, tcp.seq);
        }
        let start = *self.start.entry(tcp.tuple).or_insert(tcp.seq);
        let other = self.start.get(&tcp.tuple.reversed()).copied();
        write!(out, "{} > {} ", tcp.tuple.remote, tcp.tuple.local)?;
        for (flag, letter) in [
            (Flags::SYN, 'S'),
            (Flags::FIN, 'F'),
            (Flags::RST, 'R'),
            (Flags::PSH, 'P'),
            (Flags::URG, 'U'),
            (Flags::ECE, 'E'),
            (Flags::CWR, 'W'),
            (Flags::ACK, '.'),
        ] {
            if tcp.flags.contains(flag) {
                out.push(letter);
            }
        }
        let seq = tcp.seq.diff(start);
        match tcp.payload.len() {
            0 => write!(out, " seq {seq}")?,
            len => {
                let end = i64::from(seq) + i64::try_from(len).unwrap_or_default();
                write!(out, " seq {seq}:{end} len {len}")?;
            }
        }
        if tcp.flags.contains(Flags::ACK) {
            match other {
                Some(other) => write!(out, " ack {}", tcp.ack.diff(other))?,
                None => write!(out, " ack ={}", tcp.ack.0)?,
            }
        }
        write!(out, " win {}", tcp.window)?;
        let options = &tcp.options;
        if let Some(mss) = options.mss {
            write!(out, " mss {mss}")?;
        }
        if let Some(shift) = options.window_scale {
            write!(out, " wscale {shift}")?;
        }
        for (left, right) in options.sack.iter() {
            let base = other.unwrap_or_default();
            write!(out, " sack {}-{}", left.diff(base), right.diff(base))?;
        }
        for option in options.mptcp.iter() {
            out.push_str(" <");
            mptcp(option, out)?;
            out.push('>');
        }
        Ok(())
    }
}

fn mptcp(option: &MptcpOption, out: &mut String) -> std::fmt::Result {
    match option {
        MptcpOption::Dss(dss) => {
            out.push_str("dss");
            if let Some(ack) = dss.data_ack {
                write!(out, " ack {}{}", ack.value, width(ack.wide))?;
            }
            if let Some(map) = dss.mapping {
                write!(
                    out,
                    " dsn {}{} ssn {} len {}",
                    map.dsn,
                    width(map.wide),
                    map.ssn,
                    map.len
                )?;
                if map.checksum.is_some() {
                    out.push_str(" csum");
                }
            }
            if dss.data_fin {
                out.push_str(" fin");
            }
            Ok(())
        }
        MptcpOption::MpCapable {
            version,
            sender_key,
            receiver_key,
            data_len,
            ..
        } => {
            let keys = u8::from(sender_key.is_some()) + u8::from(receiver_key.is_some());
            write!(out, "capable v{version} keys {keys}")?;
            match data_len {
                Some(len) => write!(out, " len {len}"),
                None => Ok(()),
            }
        }
        MptcpOption::MpJoinSyn {
            backup,
            address_id,
            token,
            ..
        } => write!(
            out,
            "join token {:08x} id {}{}",
            token.0,
            address_id.0,
            if *backup { " backup" } else { "" }
        ),
        MptcpOption::MpJoinSynAck { address_id, .. } => write!(out, "join id {}", address_id.0),
        MptcpOption::MpJoinAck { .. } => write!(out, "join hmac"),
        MptcpOption::AddAddr {
            echo,
            address_id,
            addr,
            port,
            ..
        } => {
            let what = if *echo { "add_addr echo" } else { "add_addr" };
            write!(out, "{what} id {} {addr}", address_id.0)?;
            match port {
                Some(port) => write!(out, " port {port}"),
                None => Ok(()),
            }
        }
        other => write!(out, "{other:?}"),
    }
}

/// Numbers of four bytes are marked: they may stand for others.
fn width(wide: bool) -> &'static str {
    if wide { "" } else { "/32" }
}
