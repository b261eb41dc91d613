//! One subflow, fed arbitrary segments.
//!
//! The input decodes to a configuration and a sequence of operations: segments with sequence
//! and acknowledgment numbers near the edges that matter, the owner's calls, time. Checked
//! after each:
//!
//! - what is delivered is what stands at its place of the sequence space: each payload byte is
//!   a function of its sequence number, so a byte out of place is seen;
//! - SND.UNA, SND.NXT, RCV.NXT and the advertised right edge never go back, and an ACK says
//!   that edge;
//! - a range to send again is whole, carries the data it was sent with, and lies between
//!   SND.UNA and SND.NXT;
//! - new data fits the peer's window;
//! - no deadline stays due once what it asks for was done;
//! - when the input ends and nothing more arrives, a closing connection ends in bounded time;
//! - every frame comes home.

use braid_dataplane::buf::{Chain, FramePool, Piece};
use braid_dataplane::counters::Counters;
use braid_dataplane::tcp::{
    CongestionKind, Control, EcnPolicy, MapRef, SegmentIn, State, Tcp, TcpConfig,
};
use braid_dataplane::time::{Duration, Instant};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::{TcpOptions, Timestamps};

use crate::bytes::Bytes;

const POOL_FRAMES: u32 = 64;
/// Payloads of the peer are shorter.
const PAYLOAD_MAX: u32 = 1500;
/// Operations of one run: bounds its time.
const OPERATIONS_MAX: u32 = 200;
/// Timer steps after which a connection that nobody answers must be over.
const SILENT_STEPS_MAX: u32 = 2000;

std::thread_local! {
    static POOL: FramePool = {
        let pool = FramePool::heap(POOL_FRAMES, 2048);
        assert!(pool.adopt());
        pool
    };
}

/// The peer's byte so far behind its ISN.
fn byte_at(offset: u32) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9) >> 24) as u8
}

/// Our data sequence number at `seq`.
fn dsn_at(tcp: &Tcp, seq: SeqNumber) -> u64 {
    0xffff_ff00_0000_0000 + u64::from(seq - tcp.iss())
}

/// One run.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    POOL.with(|pool| {
        if let Some(mut fuzz) = Fuzz::new(pool, Bytes::new(data)) {
            fuzz.play();
            fuzz.silence();
        }
        assert_eq!(pool.available(), POOL_FRAMES, "frames are missing");
    });
}

struct Fuzz<'a> {
    pool: &'a FramePool,
    input: Bytes<'a>,
    tcp: Tcp,
    now: Instant,
    counters: Counters,
    irs: SeqNumber,
    /// Next byte to be delivered.
    expected: SeqNumber,
    /// The window shift that we said, if the peer said one too.
    shift: Option<u8>,
    edges: Option<Edges>,
    waiting: u32,
    /// Our clock when the peer's timestamps are generated.
    tsval: u32,
}

/// What may only grow.
#[derive(Copy, Clone)]
struct Edges {
    una: SeqNumber,
    nxt: SeqNumber,
    rcv: SeqNumber,
    window: SeqNumber,
}

fn config(input: &mut Bytes<'_>) -> TcpConfig {
    let (a, b) = (input.u8(), input.u8());
    let bit = |n: u8| a & 1 << n != 0;
    TcpConfig {
        mss: [1460, 536, 88, 1000][usize::from(b & 3)],
        option_room: [12, 40, 0, 28][usize::from(b >> 2 & 3)],
        recv_buffer_max: [16_384, 3000, 200_000, 1 << 20][usize::from(b >> 4 & 3)],
        window_scale: !bit(0),
        timestamps: !bit(1),
        sack: !bit(2),
        ecn: if bit(3) {
            EcnPolicy::Always
        } else {
            EcnPolicy::default()
        },
        segments_max: if bit(4) { 8 } else { 256 },
        congestion: [CongestionKind::Cubic, CongestionKind::NewReno][usize::from(bit(5))],
        pacing: bit(6),
        hystart: !bit(7),
        keepalive: (b & 0x40 != 0).then_some(Duration::from_secs(30)),
        ..TcpConfig::default()
    }
}

impl<'a> Fuzz<'a> {
    fn new(pool: &'a FramePool, mut input: Bytes<'a>) -> Option<Self> {
        if input.is_empty() {
            return None;
        }
        let config = config(&mut input);
        let role = input.u8();
        // Near the wrap, so that every comparison meets it.
        let iss = SeqNumber(0xffff_f000u32.wrapping_add(u32::from(role & 0x0f) << 9));
        let irs = SeqNumber(0xffff_e000u32.wrapping_add(u32::from(role & 0xf0) << 6));
        let now = Instant::from_millis(1_000_000);
        let mut fuzz = Self {
            pool,
            tcp: Tcp::connect(config.clone(), now, iss, 77),
            input,
            now,
            counters: Counters::default(),
            irs,
            expected: irs + 1,
            shift: None,
            edges: None,
            waiting: 0,
            tsval: 5000,
        };
        match role % 4 {
            // Nothing said yet: all of the handshake is the input's.
            0 => {}
            1 => {
                let options = fuzz.syn_options();
                let syn = fuzz.segment(Flags::SYN, irs, SeqNumber(0), 60_000, &options, 0);
                fuzz.tcp = Tcp::accept(config, now, iss, 77, &syn);
                fuzz.drain();
                fuzz.agree(&options);
                let ack = fuzz.tcp.snd_nxt();
                fuzz.deliver(Flags::ACK, irs + 1, ack, 60_000, &TcpOptions::default(), 0);
            }
            _ => {
                fuzz.drain();
                let options = fuzz.syn_options();
                let ack = fuzz.tcp.snd_nxt();
                fuzz.deliver(Flags::SYN | Flags::ACK, irs, ack, 60_000, &options, 0);
            }
        }
        fuzz.drain();
        Some(fuzz)
    }

    /// What the window of a passive open is scaled by.
    fn agree(&mut self, options: &TcpOptions) {
        let fields = self.tcp.syn_fields(self.now);
        self.shift = Some(match options.window_scale {
            Some(_) => fields.window_scale.unwrap_or(0),
            None => 0,
        });
    }

    fn syn_options(&mut self) -> TcpOptions {
        let bits = self.input.u8();
        TcpOptions {
            mss: (bits & 1 == 0).then_some(if bits & 2 == 0 { 1460 } else { 100 }),
            window_scale: (bits & 4 == 0).then_some(bits >> 5),
            sack_permitted: bits & 8 == 0,
            timestamps: (bits & 16 == 0).then_some(Timestamps {
                tsval: self.tsval,
                tsecr: 0,
            }),
            ..TcpOptions::default()
        }
    }

    fn play(&mut self) {
        for _ in 0..OPERATIONS_MAX {
            if self.input.is_empty() {
                return;
            }
            self.operation();
            self.check();
        }
    }

    fn operation(&mut self) {
        let operation = self.input.u8();
        match operation % 16 {
            0..=2 => self.peer_data(operation >> 4),
            3 | 4 => self.peer_ack(operation >> 4),
            5 => self.peer_any(),
            6 => {
                // A well-behaved peer takes everything.
                let (seq, ack) = (self.tcp.rcv_nxt(), self.tcp.snd_nxt());
                let options = self.options(operation >> 4 & 1 != 0, 0);
                self.deliver(Flags::ACK, seq, ack, 0xffff, &options, 0);
            }
            7 => self.now += Duration::from_millis(u64::from(self.input.u8()) + 1),
            8 => self.next_deadline(),
            9 => self.write(),
            10 => self.drain(),
            11 => self.resend(),
            12 => self.read(),
            13 => {
                let space = u32::from(self.input.u16()) << (operation >> 5);
                self.tcp.set_receive_window(space);
            }
            14 => self.owner(operation >> 4),
            _ => self.path(operation >> 4),
        }
    }

    /// The owner closes, aborts, or changes its mind about something.
    fn owner(&mut self, what: u8) {
        match what % 8 {
            0 => self.tcp.close(),
            1 => self.tcp.abort(),
            2 => self.tcp.ack_now(),
            3 => self.tcp.set_data_waiting(self.now, what & 8 != 0),
            4 => self
                .tcp
                .limit_backoff(self.now, (what & 8 != 0).then_some(Duration::from_secs(1))),
            5 => {
                let room = self.input.u8().min(40);
                self.tcp.set_option_room(room);
            }
            6 => {
                let _ = self.tcp.info();
            }
            _ => self.tcp.flush_counters(&mut self.counters),
        }
    }

    /// ICMP, and path MTU.
    fn path(&mut self, what: u8) {
        let seq = self.tcp.snd_una() + self.input.near().cast_unsigned();
        match what % 3 {
            0 => {
                let mtu = u32::from(self.input.u16());
                self.tcp.on_path_mtu(self.now, seq, mtu, &mut self.counters);
            }
            1 => {
                let hard = self.input.u8() & 1 != 0;
                self.tcp.on_icmp_unreachable(seq, hard, &mut self.counters);
            }
            _ => {
                let mss = self.input.u16();
                self.tcp.set_max_segment(mss);
            }
        }
    }

    fn options(&mut self, timestamps: bool, sacks: u8) -> TcpOptions {
        let mut options = TcpOptions::default();
        if timestamps {
            self.tsval = self.tsval.wrapping_add_signed(self.input.near());
            let elapsed = (self.now.as_millis() - 1_000_000) as u32;
            options.timestamps = Some(Timestamps {
                tsval: self.tsval,
                // What our own clock said lately.
                tsecr: (1_000_000 + 77 + elapsed).wrapping_add_signed(self.input.near()),
            });
        }
        for _ in 0..sacks {
            let left = self.tcp.snd_una() + self.input.near().cast_unsigned();
            let right = left + self.input.near().cast_unsigned();
            options.sack.push((left, right));
        }
        options
    }

    fn peer_data(&mut self, how: u8) {
        let length = self.input.u8();
        let length = match length >> 6 {
            0 => u32::from(length & 0x3f),
            1 => 1000,
            2 => 1460,
            _ => u32::from(length & 0x3f) * 24,
        };
        let base = if how & 1 == 0 {
            self.tcp.rcv_nxt()
        } else {
            self.tcp.advertised_edge()
        };
        let seq = if how & 2 == 0 {
            base
        } else {
            base + self.input.near().cast_unsigned()
        };
        let flags = if how & 4 == 0 {
            Flags::ACK
        } else {
            Flags::ACK | Flags::PSH
        };
        let ack = self.tcp.snd_una();
        let options = self.options(how & 8 == 0, 0);
        self.deliver(flags, seq, ack, 60_000, &options, length);
    }

    fn peer_ack(&mut self, how: u8) {
        let base = if how & 1 == 0 {
            self.tcp.snd_una()
        } else {
            self.tcp.snd_nxt()
        };
        let ack = base + self.input.near().cast_unsigned();
        let window = self.input.u8();
        let window = if window < 128 {
            60_000
        } else {
            u16::from(window & 0x7f) * 16
        };
        let options = self.options(how & 8 == 0, how >> 1 & 3);
        let seq = self.tcp.rcv_nxt();
        self.deliver(Flags::ACK, seq, ack, window, &options, 0);
    }

    fn peer_any(&mut self) {
        let flags = Flags::from_bits(self.input.u8());
        let seq = self.tcp.rcv_nxt() + self.input.near().cast_unsigned();
        let ack = self.tcp.snd_una() + self.input.near().cast_unsigned();
        let (window, shape) = (self.input.u16(), self.input.u8());
        let mut options = self.options(shape & 1 != 0, shape >> 1 & 3);
        if flags.contains(Flags::SYN) {
            options = self.syn_options();
        }
        let length = u32::from(shape >> 3) * 10;
        self.deliver(flags, seq, ack, window, &options, length);
    }

    fn segment<'o>(
        &self,
        flags: Flags,
        seq: SeqNumber,
        ack: SeqNumber,
        window: u16,
        options: &'o TcpOptions,
        payload_len: u32,
    ) -> SegmentIn<'o> {
        SegmentIn {
            seq,
            ack,
            flags,
            window,
            urgent: 0,
            options,
            payload_len,
            ce: flags.contains(Flags::PSH),
            mptcp_signal: false,
        }
    }

    fn deliver(
        &mut self,
        flags: Flags,
        seq: SeqNumber,
        ack: SeqNumber,
        window: u16,
        options: &TcpOptions,
        length: u32,
    ) {
        let length = length.min(PAYLOAD_MAX);
        // In SYN-SENT the peer's first SYN says where its sequence space begins; a run's
        // bytes are a function of the one ISN it has.
        let seq = if flags.contains(Flags::SYN) && self.tcp.state() == State::SynSent {
            self.irs
        } else {
            seq
        };
        let payload_at = seq + u32::from(flags.contains(Flags::SYN));
        let payload = self.payload(payload_at, length);
        let segment = self.segment(flags, seq, ack, window, options, length);
        let was = self.tcp.state();
        let verdict = self
            .tcp
            .on_segment(self.now, &segment, payload, &mut self.counters);
        assert!(
            verdict.acked_bytes == 0 || verdict.valid,
            "an invalid segment acknowledges"
        );
        assert_eq!(
            verdict.closed && was != State::Closed,
            self.tcp.state() == State::Closed && was != State::Closed,
            "{was} to {} unsaid: {verdict:?}",
            self.tcp.state()
        );
        if verdict.established {
            assert!(was == State::SynSent || was == State::SynReceived);
        }
    }

    /// The bytes from `seq` on, in a frame if there is one.
    fn payload(&self, seq: SeqNumber, length: u32) -> Chain {
        if length == 0 {
            return Chain::new();
        }
        let length = length as usize;
        let start = seq - self.irs;
        let fill = |out: &mut [u8]| {
            for (byte, at) in out.iter_mut().zip(0..) {
                *byte = byte_at(start.wrapping_add(at));
            }
        };
        let mut bytes = [0; PAYLOAD_MAX as usize];
        match self.pool.alloc() {
            Some(mut frame) => {
                let buffer = frame.buffer_mut().expect("a fresh frame is not in flight");
                fill(&mut buffer[..length]);
                frame.set_len(length);
                Piece::from_frame(frame, 0..length, None).into()
            }
            None => {
                fill(&mut bytes[..length]);
                Piece::copied(&bytes[..length], None).into()
            }
        }
    }

    /// New data, as much as may leave, in at most three calls.
    fn write(&mut self) {
        for _ in 0..3 {
            let budget = self.tcp.send_budget(self.now);
            let mss = self.tcp.mss();
            if budget == 0 {
                return;
            }
            assert!(self.tcp.state().may_send());
            let room = (self.tcp.snd_una() + self.tcp.snd_wnd()).diff(self.tcp.snd_nxt());
            assert!(
                i64::from(budget) <= i64::from(room),
                "{budget} into a window of {room}"
            );
            let want = u32::from(self.input.u8()) * 32 + 1;
            let len = budget.min(want).min(4 * mss);
            let dsn = dsn_at(&self.tcp, self.tcp.snd_nxt());
            let map = MapRef {
                dsn,
                ssn: self.tcp.snd_nxt() - self.tcp.iss(),
                len: u16::try_from(len).expect("at most four segments"),
                csum: 0x1234,
            };
            let seq = self.tcp.record_new(self.now, len, dsn, map);
            assert_eq!(seq + len, self.tcp.snd_nxt());
            self.ack_leaves();
        }
    }

    /// A segment with the current header leaves.
    fn ack_leaves(&mut self) {
        let header = self.tcp.header(self.now);
        assert_eq!(header.ack, self.tcp.rcv_nxt());
        assert!(header.flags.contains(Flags::ACK));
        if self.input.rest().len().is_multiple_of(2) {
            for (left, right) in self.tcp.sack_blocks(4).iter() {
                // A DSACK (RFC 2883) may lie below the acknowledgment.
                assert!(*right > *left, "an empty SACK block");
            }
        }
        self.tcp.ack_sent(self.now);
        if let Some(shift) = self.shift {
            let said = header.ack + (u32::from(header.window) << shift);
            assert_eq!(said, self.tcp.advertised_edge(), "the edge on the wire");
        }
    }

    fn resend(&mut self) {
        // At one time nothing is sent again twice.
        let mut left = self.tcp.snd_nxt() - self.tcp.snd_una();
        while let Some(range) = self.tcp.next_retransmit(self.now) {
            let (una, nxt) = (self.tcp.snd_una(), self.tcp.snd_nxt());
            let end = range.seq + range.len;
            assert!(end > una && end <= nxt, "{range:?} of {una:?}..{nxt:?}");
            assert!(range.len > 0);
            assert_eq!(range.dsn, dsn_at(&self.tcp, range.seq), "other data");
            // The mapping goes along as it was.
            let start = range.map.dsn - dsn_at(&self.tcp, self.tcp.iss());
            assert_eq!(start, u64::from(range.map.ssn));
            assert!(range.dsn >= range.map.dsn && range.map.csum == 0x1234);
            assert!(
                range.dsn + u64::from(range.len) <= range.map.dsn + u64::from(range.map.len),
                "{range:?}"
            );
            // What was acknowledged in part is sent again whole.
            left = left
                .checked_sub(end - range.seq.later(una))
                .expect("retransmissions without end");
            self.tcp.record_retransmit(self.now, range.seq, range.len);
            self.ack_leaves();
        }
    }

    fn read(&mut self) {
        while let Some(chunk) = self.tcp.recv_pop() {
            assert_eq!(chunk.seq, self.expected, "out of order");
            for piece in &chunk.chain {
                for byte in piece.bytes() {
                    assert_eq!(*byte, byte_at(self.expected - self.irs));
                    self.expected += 1;
                }
            }
        }
        let behind = self.tcp.rcv_nxt().diff(self.expected);
        assert!(
            self.tcp.state() == State::Closed || (0..=1).contains(&behind) || self.is_early(),
            "{behind} bytes were acknowledged and are not there"
        );
    }

    /// Before the handshake has ended.
    fn is_early(&self) -> bool {
        matches!(self.tcp.state(), State::SynSent | State::SynReceived)
    }

    /// Control segments leave.
    fn drain(&mut self) {
        for _ in 0..64 {
            let Some(control) = self.tcp.next_control(self.now) else {
                return;
            };
            match control {
                Control::Syn { seq, .. } => {
                    assert_eq!(seq, self.tcp.iss());
                    assert!(self.tcp.syn_fields(self.now).ack.is_none());
                }
                Control::SynAck { seq, .. } => {
                    assert_eq!(seq, self.tcp.iss());
                    let fields = self.tcp.syn_fields(self.now);
                    assert_eq!(fields.ack, Some(self.tcp.rcv_nxt()));
                }
                Control::Rst { .. } => {}
                Control::Fin { seq } => {
                    assert_eq!(seq + 1, self.tcp.snd_nxt(), "FIN is last");
                    self.ack_leaves();
                }
                Control::Ack { .. } | Control::Probe { .. } => self.ack_leaves(),
            }
        }
        panic!("control segments without end");
    }

    fn next_deadline(&mut self) {
        let Some(at) = self.tcp.next_deadline() else {
            return;
        };
        self.now = self.now.max(at);
        let was = self.tcp.state();
        let verdict = self.tcp.on_timer(self.now, &mut self.counters);
        assert_eq!(
            verdict.closed,
            was != State::Closed && self.tcp.state() == State::Closed
        );
        self.drain();
        self.resend();
        self.drain();
        if let Some(at) = self.tcp.next_deadline() {
            assert!(
                at > self.now,
                "a deadline stays due in {}: {:#?}",
                self.tcp.state(),
                self.tcp
            );
        }
    }

    fn check(&mut self) {
        let tcp = &self.tcp;
        if !tcp.state().is_synchronized() {
            return;
        }
        let now = Edges {
            una: tcp.snd_una(),
            nxt: tcp.snd_nxt(),
            rcv: tcp.rcv_nxt(),
            window: tcp.advertised_edge(),
        };
        assert!(now.una <= now.nxt);
        assert!(tcp.bytes_in_flight() <= tcp.unacked_bytes());
        if let Some(last) = self.edges {
            assert!(last.una <= now.una, "SND.UNA went back");
            assert!(last.nxt <= now.nxt, "SND.NXT went back");
            assert!(last.rcv <= now.rcv, "RCV.NXT went back");
            assert!(last.window <= now.window, "the right edge moved left");
        }
        self.edges = Some(now);
        let mut next = None;
        let mut total = 0;
        for (dsn, len) in tcp.unacked_ranges() {
            assert!(next.is_none_or(|at| at == dsn), "a hole in what was sent");
            next = Some(dsn + u64::from(len));
            total += len;
        }
        assert!(total <= tcp.unacked_bytes());
        let frames = POOL_FRAMES - self.pool.available();
        self.waiting = self.waiting.max(frames);
    }

    /// The input is over: the application closes, nobody answers.
    fn silence(&mut self) {
        self.read();
        self.tcp.set_data_waiting(self.now, false);
        self.tcp.close();
        self.drain();
        let start = self.now;
        for _ in 0..SILENT_STEPS_MAX {
            if self.tcp.state() == State::Closed || self.tcp.next_deadline().is_none() {
                break;
            }
            self.next_deadline();
            self.check();
        }
        let state = self.tcp.state();
        assert!(
            state == State::Closed
                // RFC 9293 knows no timeout for a peer that does not close; nor can a FIN
                // leave while there is nothing to probe a closed window for.
                || self.tcp.next_deadline().is_none(),
            "{state} after {:?} of silence: {:#?}",
            self.now - start,
            self.tcp
        );
        self.read();
        self.tcp.abort();
        self.drain();
        self.tcp.flush_counters(&mut self.counters);
        assert_eq!(self.tcp.next_deadline(), None);
    }
}
