//! A connection under test and its peer, played by hand.
//!
//! Sequence numbers in tests are relative: to our ISS for what we send, to the peer's for what
//! it sends; 0 is the SYN, 1 the first byte.

use crate::buf::{Chain, Piece};
use crate::counters::{Counter, Counters};
use crate::tcp::{Control, MapRef, SegmentIn, State, Tcp, TcpConfig, TimerVerdict, Verdict};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::{TcpOptions, Timestamps};

pub(super) const ISS: SeqNumber = SeqNumber(u32::MAX - 5000);
pub(super) const IRS: SeqNumber = SeqNumber(u32::MAX - 100);
pub(super) const TS_OFFSET: u32 = 900;
/// Payload of a full segment in tests: 1000 with no options.
pub(super) const MSS: u32 = 1000;

/// A segment of the peer.
#[derive(Clone, Debug)]
pub(super) struct Seg {
    seq: u32,
    ack: u32,
    flags: Flags,
    window: u16,
    options: TcpOptions,
    payload: Vec<u8>,
    signal: bool,
    ce: bool,
    urgent: u16,
}

/// An ACK with relative numbers.
pub(super) fn ack(seq: u32, ack: u32) -> Seg {
    Seg {
        seq,
        ack,
        flags: Flags::ACK,
        window: 60_000,
        options: TcpOptions::default(),
        payload: vec![],
        signal: false,
        ce: false,
        urgent: 0,
    }
}

/// Any flags.
pub(super) fn seg(flags: Flags, seq: u32, ack_: u32) -> Seg {
    Seg {
        flags,
        ..ack(seq, ack_)
    }
}

impl Seg {
    pub(super) fn data(mut self, len: usize) -> Self {
        self.payload = vec![b'x'; len];
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.payload = text.as_bytes().to_vec();
        self
    }

    pub(super) fn fin(mut self) -> Self {
        self.flags |= Flags::FIN;
        self
    }

    pub(super) fn win(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    pub(super) fn ts(mut self, tsval: u32, tsecr: u32) -> Self {
        self.options.timestamps = Some(Timestamps { tsval, tsecr });
        self
    }

    pub(super) fn sack(mut self, blocks: &[(u32, u32)]) -> Self {
        for (left, right) in blocks {
            self.options.sack.push((ISS + *left, ISS + *right));
        }
        self
    }

    /// URG with this pointer.
    pub(super) fn urgent(mut self, pointer: u16) -> Self {
        self.flags |= Flags::URG;
        self.urgent = pointer;
        self
    }

    /// Congestion Experienced.
    pub(super) fn ce(mut self) -> Self {
        self.ce = true;
        self
    }

    pub(super) fn flags(mut self, flags: Flags) -> Self {
        self.flags |= flags;
        self
    }

    pub(super) fn signal(mut self) -> Self {
        self.signal = true;
        self
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut TcpOptions)) -> Self {
        change(&mut self.options);
        self
    }

    pub(super) fn feed<R>(&self, f: impl FnOnce(&SegmentIn<'_>, Chain) -> R) -> R {
        let input = SegmentIn {
            seq: IRS + self.seq,
            ack: ISS + self.ack,
            flags: self.flags,
            window: self.window,
            urgent: self.urgent,
            options: &self.options,
            payload_len: self.payload.len() as u32,
            ce: self.ce,
            mptcp_signal: self.signal,
            segments: 1,
        };
        let chain = if self.payload.is_empty() {
            Chain::new()
        } else {
            Chain::from(Piece::copied(&self.payload, None))
        };
        f(&input, chain)
    }
}

/// Plain options, segments of 1000 bytes, no pacing: what tests start from.
pub(super) fn config() -> TcpConfig {
    TcpConfig {
        mss: 1000,
        option_room: 0,
        recv_buffer_max: 50_000,
        window_scale: false,
        timestamps: false,
        pacing: false,
        ..TcpConfig::default()
    }
}

/// The connection under test.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) tcp: Tcp,
    pub(super) c: Counters,
    pub(super) now: Instant,
}

impl Test {
    /// SYN-SENT, SYN taken.
    pub(super) fn syn_sent(config: TcpConfig) -> Self {
        let now = Instant::from_millis(1000);
        let mut test = Self {
            tcp: Tcp::connect(config, now, ISS, TS_OFFSET),
            c: Counters::new(),
            now,
        };
        let control = test.tcp.next_control(now);
        assert_eq!(
            control,
            Some(Control::Syn {
                seq: ISS,
                attempt: 0
            })
        );
        test
    }

    /// SYN-RECEIVED by a passive open, SYN/ACK taken.
    pub(super) fn syn_received(config: TcpConfig) -> Self {
        let now = Instant::from_millis(1000);
        let syn = seg(Flags::SYN, 0, 0).with(|o| {
            o.mss = Some(1000);
            o.sack_permitted = true;
        });
        let tcp = syn.feed(|syn, _| Tcp::accept(config, now, ISS, TS_OFFSET, syn));
        let mut test = Self {
            tcp,
            c: Counters::new(),
            now,
        };
        let control = test.tcp.next_control(now);
        assert_eq!(
            control,
            Some(Control::SynAck {
                seq: ISS,
                attempt: 0
            })
        );
        test.tcp.syn_fields(now);
        test
    }

    /// ESTABLISHED after 10 ms, with the handshake's ACK taken.
    pub(super) fn established(config: TcpConfig) -> Self {
        let mut test = Self::syn_sent(config);
        test.wait(10);
        let verdict = test.recv(seg(Flags::SYN | Flags::ACK, 0, 1).with(|o| {
            o.mss = Some(1000);
            o.sack_permitted = true;
            o.window_scale = Some(0);
            o.timestamps = Some(Timestamps {
                tsval: 5000,
                tsecr: 0,
            });
        }));
        assert!(verdict.established);
        assert!(test.takes_ack());
        test
    }

    /// One of the states after ESTABLISHED.
    pub(super) fn in_state(state: State) -> Self {
        let mut test = Self::established(config());
        match state {
            State::Established => {}
            State::FinWait1 => test.close(1),
            State::FinWait2 => {
                test.close(1);
                test.recv(ack(1, 2));
            }
            State::CloseWait => {
                test.recv(ack(1, 1).fin());
            }
            State::Closing => {
                test.close(1);
                test.recv(ack(1, 1).fin());
            }
            State::LastAck => {
                test.recv(ack(1, 1).fin());
                test.close(1);
            }
            State::TimeWait => {
                test.close(1);
                test.recv(ack(1, 2).fin());
            }
            other => unreachable!("{other}"),
        }
        assert_eq!(test.tcp.state(), state);
        test.takes_ack();
        test
    }

    /// Closes and takes the FIN.
    pub(super) fn close(&mut self, at: u32) {
        self.tcp.close();
        assert_eq!(self.control(), Some(Control::Fin { seq: ISS + at }));
        self.acked();
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    pub(super) fn recv(&mut self, seg: Seg) -> Verdict {
        let (tcp, c, now) = (&mut self.tcp, &mut self.c, self.now);
        seg.feed(|seg, chain| tcp.on_segment(now, seg, chain, c))
    }

    pub(super) fn control(&mut self) -> Option<Control> {
        self.tcp.next_control(self.now)
    }

    /// Header fields of a segment that leaves.
    pub(super) fn acked(&mut self) -> (u32, u16) {
        let header = self.tcp.header(self.now);
        self.tcp.ack_sent(self.now);
        (header.ack - IRS, header.window)
    }

    /// Takes a pure ACK if one is due.
    pub(super) fn takes_ack(&mut self) -> bool {
        let is_ack = matches!(self.control(), Some(Control::Ack { .. }));
        if is_ack {
            self.reported();
        }
        is_ack
    }

    /// The SACK blocks of a pure ACK that leaves.
    pub(super) fn reported(&mut self) -> Vec<(u32, u32)> {
        self.tcp.header(self.now);
        let blocks = self.tcp.sack_blocks(3);
        self.tcp.ack_sent(self.now);
        blocks.iter().map(|(l, r)| (*l - IRS, *r - IRS)).collect()
    }

    /// Sends full segments; returns how many the budget let go.
    pub(super) fn send(&mut self, segments: u32) -> u32 {
        for sent in 0..segments {
            if self.tcp.send_budget(self.now) < MSS {
                return sent;
            }
            let dsn = u64::from(self.tcp.snd_nxt() - ISS);
            let map = MapRef {
                dsn,
                ssn: 7,
                len: 1000,
                csum: 9,
            };
            self.tcp.record_new(self.now, MSS, dsn, map);
        }
        segments
    }

    /// Takes what is to be sent again: relative sequence numbers.
    pub(super) fn resent(&mut self) -> Vec<u32> {
        let mut out = vec![];
        while let Some(range) = self.tcp.next_retransmit(self.now) {
            let (map, end) = (range.map, range.dsn + u64::from(range.len));
            assert!(
                map.dsn <= range.dsn && end <= map.dsn + 1000 && map.len == 1000,
                "mapping copied verbatim: {range:?}"
            );
            self.tcp.record_retransmit(self.now, range.seq, range.len);
            out.push(range.seq - ISS);
        }
        out
    }

    /// Jumps to the next deadline.
    pub(super) fn timer(&mut self) -> TimerVerdict {
        self.now = self.now.max(self.tcp.next_deadline().expect("a deadline"));
        self.tcp.on_timer(self.now, &mut self.c)
    }

    /// Received text.
    pub(super) fn text(&mut self) -> String {
        let mut out = String::new();
        while let Some(chunk) = self.tcp.recv_pop() {
            for piece in &chunk.chain {
                out.push_str(std::str::from_utf8(piece.bytes()).expect("ascii"));
            }
        }
        out
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.c.get(counter)
    }
}
