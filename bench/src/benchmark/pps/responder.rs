//! TCP as little as a kernel peer lets one get away with: no congestion control, no
//! reassembly, no timers but one. What is left of TCP when only the port shall be measured.
//!
//! [`Sink`] answers a handshake and acknowledges; which bytes arrived is kept as ranges,
//! the bytes are not. [`Source`] opens a connection and keeps the peer's window full.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use braid_dataplane::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use braid_dataplane::wire::packet::TcpPacket;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::OptionsBuf;
use braid_dataplane::wire::types::FourTuple;

use super::end::Macs;
use crate::failure;
use crate::testbed::Result;

/// Of the windows that we announce.
const WINDOW_SHIFT: u8 = 9;
/// What we announce: 8 MiB, for which the fill ring has room (4096 frames of 3840 bytes).
const WINDOW: u16 = 16_384;
/// A hole that closes sooner is reordering by the backlogs of a veth, and not answered.
const HOLE_PATIENCE: Duration = Duration::from_millis(1);
/// Ranges kept; what exceeds them must come again.
const RANGES_MAX: usize = 64;
/// Without an ACK for so long, everything goes out again.
const RETRANSMIT: Duration = Duration::from_millis(20);
/// Between two SYNs.
const SYN_INTERVAL: Duration = Duration::from_millis(100);

/// A segment without payload, to be sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Its header.
    pub header: TcpHeaderOut,
    /// It is a SYN: with options.
    pub syn: bool,
}

impl Reply {
    fn new(seq: SeqNumber, ack: SeqNumber, flags: Flags) -> Self {
        let syn = flags.contains(Flags::SYN);
        let header = TcpHeaderOut {
            seq,
            ack,
            flags,
            // The window of a SYN is never scaled (RFC 7323 §2.2).
            window: if syn { u16::MAX } else { WINDOW },
            urgent: 0,
            ecn: 0,
        };
        Self { header, syn }
    }

    /// Its options. `mss` is ours.
    pub fn options(&self, mss: u16) -> Result<OptionsBuf> {
        let mut options = OptionsBuf::new();
        if self.syn {
            let all = options
                .mss(mss)
                .and_then(|()| options.window_scale(WINDOW_SHIFT));
            all.map_err(|e| failure!("{e:?}"))?;
        }
        Ok(options)
    }
}

/// Headers of what we send to the sender of `packet`.
pub fn reply_template(packet: &TcpPacket) -> Result<HeaderTemplate> {
    let l2 = L2Header {
        dst: packet.eth.src,
        src: packet.eth.dst,
        vlan: Default::default(),
    };
    HeaderTemplate::new(l2, &packet.tuple, 0, 64).map_err(|e| failure!("{e}"))
}

/// Takes one connection and everything that comes.
#[derive(Debug, Default)]
pub struct Sink {
    peer: Option<SocketAddr>,
    rcv_nxt: SeqNumber,
    /// Arrived behind a hole, in order: distance from `rcv_nxt` is below 2^31.
    ranges: Vec<(SeqNumber, SeqNumber)>,
    hole_since: Option<Instant>,
    fin: bool,
    /// Bytes that arrived in order.
    pub delivered: u64,
}

/// Ours; anything does, there is one connection.
const ISS: SeqNumber = SeqNumber(1);

impl Sink {
    /// A segment came. What to answer at once; the caller may leave out all but the last
    /// answer of a batch of small ones.
    pub fn on_segment(&mut self, now: Instant, packet: &TcpPacket) -> Option<Reply> {
        if packet.flags.contains(Flags::SYN) {
            let new = self.peer.is_none_or(|peer| peer == packet.tuple.remote);
            self.peer = Some(packet.tuple.remote);
            self.rcv_nxt = packet.seq + 1;
            return new.then(|| Reply::new(ISS, self.rcv_nxt, Flags::SYN | Flags::ACK));
        }
        if self.peer != Some(packet.tuple.remote) || packet.flags.contains(Flags::RST) {
            return None;
        }
        let len = u32::try_from(packet.payload.len()).unwrap_or(0);
        let end = packet.seq + len;
        let fin = packet.flags.contains(Flags::FIN);
        if len == 0 && !fin {
            return None;
        }
        let before = self.rcv_nxt;
        self.arrive(packet.seq, end);
        self.delivered += u64::from(self.rcv_nxt - before);
        if fin && self.rcv_nxt == end && !self.fin {
            self.fin = true;
            self.rcv_nxt += 1;
            return Some(Reply::new(ISS + 1, self.rcv_nxt, Flags::FIN | Flags::ACK));
        }
        if self.ranges.is_empty() {
            self.hole_since = None;
        } else {
            let since = *self.hole_since.get_or_insert(now);
            if self.rcv_nxt != before {
                self.hole_since = Some(now);
            } else if now - since < HOLE_PATIENCE {
                return None;
            }
        }
        Some(Reply::new(
            ISS + 1 + u32::from(self.fin),
            self.rcv_nxt,
            Flags::ACK,
        ))
    }

    fn arrive(&mut self, from: SeqNumber, to: SeqNumber) {
        if to.diff(self.rcv_nxt) <= 0 {
            return;
        }
        if from.diff(self.rcv_nxt) <= 0 {
            self.rcv_nxt = to;
            while let Some(&(from, to)) = self.ranges.first()
                && from.diff(self.rcv_nxt) <= 0
            {
                self.rcv_nxt = self.rcv_nxt.later(to);
                self.ranges.remove(0);
            }
            return;
        }
        let at = self.ranges.partition_point(|range| range.0.diff(from) < 0);
        self.ranges.insert(at, (from, to));
        let mut merged: Vec<(SeqNumber, SeqNumber)> = Vec::with_capacity(self.ranges.len());
        for &(from, to) in &self.ranges {
            match merged.last_mut() {
                Some(last) if from.diff(last.1) <= 0 => last.1 = last.1.later(to),
                _ => merged.push((from, to)),
            }
        }
        merged.truncate(RANGES_MAX);
        self.ranges = merged;
    }
}

/// Where a source stands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum State {
    SynSent { at: Option<Instant> },
    Established,
    Reset,
}

/// Opens one connection and sends as much as the peer's window allows.
#[derive(Debug)]
pub struct Source {
    state: State,
    snd_una: SeqNumber,
    snd_nxt: SeqNumber,
    rcv_nxt: SeqNumber,
    window: u32,
    shift: u8,
    progress_at: Instant,
    /// Bytes acknowledged.
    pub acknowledged: u64,
    /// Times that everything went out again.
    pub retransmits: u64,
}

impl Source {
    /// One that has sent nothing.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::SynSent { at: None },
            snd_una: ISS,
            snd_nxt: ISS + 1,
            rcv_nxt: SeqNumber(0),
            window: 0,
            shift: 0,
            progress_at: now,
            acknowledged: 0,
            retransmits: 0,
        }
    }

    /// A segment came; what to answer.
    pub fn on_segment(&mut self, now: Instant, packet: &TcpPacket) -> Option<Reply> {
        if packet.flags.contains(Flags::RST) {
            self.state = State::Reset;
            return None;
        }
        match self.state {
            State::SynSent { .. } if packet.flags.contains(Flags::SYN | Flags::ACK) => {
                self.state = State::Established;
                self.rcv_nxt = packet.seq + 1;
                self.snd_una = packet.ack;
                self.snd_nxt = packet.ack;
                self.window = packet.window.into();
                // RFC 7323 §2.3: 14 at most.
                self.shift = packet.options.window_scale.unwrap_or(0).min(14);
                self.progress_at = now;
                Some(Reply::new(self.snd_nxt, self.rcv_nxt, Flags::ACK))
            }
            State::Established if packet.flags.contains(Flags::ACK) => {
                let acked = packet.ack.diff(self.snd_una);
                if acked >= 0 {
                    self.window = u32::from(packet.window) << self.shift;
                }
                if acked > 0 {
                    self.acknowledged += u64::from(acked.unsigned_abs());
                    self.snd_una = packet.ack;
                    self.snd_nxt = self.snd_nxt.later(packet.ack);
                    self.progress_at = now;
                }
                None
            }
            _ => None,
        }
    }

    /// Something other than data to send. To be called every turn.
    pub fn poll(&mut self, now: Instant) -> Option<Reply> {
        match &mut self.state {
            State::SynSent { at } => {
                let due = at.is_none_or(|at| now - at >= SYN_INTERVAL);
                due.then(|| {
                    *at = Some(now);
                    Reply::new(ISS, SeqNumber(0), Flags::SYN)
                })
            }
            State::Established => {
                if self.snd_nxt != self.snd_una && now - self.progress_at >= RETRANSMIT {
                    self.snd_nxt = self.snd_una;
                    self.progress_at = now;
                    self.retransmits += 1;
                }
                None
            }
            State::Reset => None,
        }
    }

    /// The header of `bytes` more, if the window has room for them.
    pub fn next(&mut self, bytes: u32) -> Option<TcpHeaderOut> {
        let sent = self.snd_nxt - self.snd_una;
        if self.state != State::Established || sent + bytes > self.window {
            return None;
        }
        let header = Reply::new(self.snd_nxt, self.rcv_nxt, Flags::ACK | Flags::PSH).header;
        self.snd_nxt += bytes;
        Some(header)
    }

    /// Ends the connection, however it stands.
    #[must_use]
    pub fn abort(&self) -> Reply {
        Reply::new(self.snd_nxt, self.rcv_nxt, Flags::RST | Flags::ACK)
    }

    /// The peer has ended it.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.state == State::Reset
    }
}

/// Headers from the raw end, in the namespace `braid`, to a kernel peer.
pub fn template_to_peer(macs: Macs, tuple: &FourTuple) -> Result<HeaderTemplate> {
    let l2 = L2Header {
        dst: macs.peer,
        src: macs.braid,
        vlan: Default::default(),
    };
    HeaderTemplate::new(l2, tuple, 0, 64).map_err(|e| failure!("{e}"))
}

#[cfg(test)]
mod tests {
    use braid_dataplane::wire::packet::{self, Packet};

    use super::*;
    use braid_dataplane::wire::ethernet::EthernetAddress;

    fn tuple() -> FourTuple {
        FourTuple {
            local: "10.0.0.1:1000".parse().unwrap(),
            remote: "10.0.0.2:2000".parse().unwrap(),
        }
    }

    /// What the other side gets of a header and so much payload.
    fn seen(header: TcpHeaderOut, options: &OptionsBuf, payload: usize) -> TcpPacket {
        let macs = Macs {
            peer: EthernetAddress([2, 0, 0, 0, 0, 1]),
            braid: EthernetAddress([2, 0, 0, 0, 0, 2]),
        };
        let template = template_to_peer(macs, &tuple()).unwrap();
        let mut frame = vec![0; 200 + payload];
        let sum = braid_dataplane::checksum::sum(&[]);
        let len = template.emit(&mut frame, &header, options, payload, sum);
        frame.truncate(len + payload);
        let Ok(Packet::Tcp(tcp)) = packet::parse(&frame) else {
            panic!("not TCP");
        };
        tcp
    }

    fn data(seq: u32, flags: Flags, payload: usize) -> TcpPacket {
        let header = Reply::new(SeqNumber(seq), ISS + 1, flags).header;
        seen(header, &OptionsBuf::new(), payload)
    }

    fn opened(now: Instant) -> Sink {
        let mut sink = Sink::default();
        let answer = sink.on_segment(now, &data(99, Flags::SYN, 0)).unwrap();
        assert!(answer.syn && answer.header.ack == SeqNumber(100));
        assert!(!answer.options(1460).unwrap().is_empty());
        sink
    }

    #[test]
    fn a_sink_acknowledges_in_order_and_ends() {
        let now = Instant::now();
        let mut sink = opened(now);
        assert_eq!(sink.on_segment(now, &data(100, Flags::ACK, 0)), None);
        let ack = sink.on_segment(now, &data(100, Flags::ACK, 50)).unwrap();
        assert_eq!((ack.header.ack, sink.delivered), (SeqNumber(150), 50));
        let end = sink
            .on_segment(now, &data(150, Flags::FIN | Flags::ACK, 10))
            .unwrap();
        assert!(end.header.flags.contains(Flags::FIN));
        assert_eq!((end.header.ack, sink.delivered), (SeqNumber(161), 60));
    }

    #[test]
    fn reordering_is_waited_for_and_loss_is_told() {
        let now = Instant::now();
        let mut sink = opened(now);
        for (from, len) in [(300, 100), (200, 50), (250, 50)] {
            assert_eq!(sink.on_segment(now, &data(from, Flags::ACK, len)), None);
        }
        assert_eq!(sink.ranges.len(), 1, "what touches is one range");
        let late = now + HOLE_PATIENCE;
        let told = sink.on_segment(late, &data(400, Flags::ACK, 100)).unwrap();
        assert_eq!(told.header.ack, SeqNumber(100), "a duplicate");
        let healed = sink.on_segment(late, &data(100, Flags::ACK, 100)).unwrap();
        assert_eq!((healed.header.ack, sink.delivered), (SeqNumber(500), 400));
        let again = sink.on_segment(late, &data(100, Flags::ACK, 100)).unwrap();
        assert_eq!((again.header.ack, sink.delivered), (SeqNumber(500), 400));
    }

    #[test]
    fn strangers_get_nothing() {
        let now = Instant::now();
        let mut sink = Sink::default();
        assert_eq!(sink.on_segment(now, &data(100, Flags::ACK, 50)), None);
    }

    #[test]
    fn a_source_and_a_sink_fill_the_window_and_no_more() {
        let now = Instant::now();
        let (mut source, mut sink) = (Source::new(now), Sink::default());
        assert_eq!(source.next(1), None, "nothing before the handshake");
        let syn = source.poll(now).unwrap();
        assert_eq!(source.poll(now), None, "once per interval");
        let there = |reply: Reply| seen(reply.header, &reply.options(1460).unwrap(), 0);
        let synack = sink.on_segment(now, &there(syn)).unwrap();
        let ack = source.on_segment(now, &there(synack)).unwrap();
        assert!(ack.header.flags == Flags::ACK);
        // The window of a SYN is not scaled: 64 KiB less one.
        let header = source.next(50_000).unwrap();
        assert_eq!(source.next(50_000), None);
        let acked = sink
            .on_segment(now, &seen(header, &OptionsBuf::new(), 50_000))
            .unwrap();
        assert_eq!(source.on_segment(now, &there(acked)), None);
        assert_eq!((source.acknowledged, sink.delivered), (50_000, 50_000));
        // From here on it is.
        let mut sent = 0;
        while source.next(50_000).is_some() {
            sent += 50_000;
        }
        let window = u32::from(WINDOW) << WINDOW_SHIFT;
        assert!(sent <= window && sent + 50_000 > window, "{sent}");
    }

    #[test]
    fn a_source_goes_back_when_nothing_is_acknowledged() {
        let now = Instant::now();
        let (mut source, mut sink) = (Source::new(now), Sink::default());
        let there = |reply: Reply| seen(reply.header, &reply.options(1460).unwrap(), 0);
        let synack = sink
            .on_segment(now, &there(source.poll(now).unwrap()))
            .unwrap();
        source.on_segment(now, &there(synack));
        let first = source.next(1000).unwrap();
        assert_ne!(source.next(1000).unwrap().seq, first.seq);
        assert_eq!(source.poll(now + RETRANSMIT), None);
        assert_eq!(source.next(1000).unwrap().seq, first.seq);
        assert_eq!(source.retransmits, 1);
        source.on_segment(now, &data(1, Flags::RST, 0));
        assert!(source.is_reset() && source.next(1).is_none());
    }
}
