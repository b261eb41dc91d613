//! Two connections over a virtual network, moving a pattern both ways.
//!
//! The harness plays the owner: it keeps payload by stream offset (as the DSN), polls like a
//! worker does, and checks invariants at every step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::buf::{Chain, Piece};
use crate::counters::Counters;
use crate::tcp::{Control, MapRef, SegmentIn, State, Tcp, TcpConfig};
use crate::time::{Duration, Instant};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::TcpOptions;

/// The byte at a stream offset.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// A segment on the wire.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) seq: SeqNumber,
    pub(super) ack: SeqNumber,
    pub(super) flags: Flags,
    pub(super) window: u16,
    pub(super) options: TcpOptions,
    pub(super) payload: Vec<u8>,
    /// ECN field of the IP header.
    pub(super) ecn: u8,
}

/// One direction of the network.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) bits_per_s: u64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    pub(super) duplicate: f64,
    pub(super) queue_bytes: u64,
    /// ECT packets that find so many bytes waiting are marked.
    pub(super) mark_bytes: u64,
    /// Packets marked.
    pub(super) marked: u64,
    /// Everything that enters during this vanishes.
    pub(super) blackhole: Option<(Instant, Instant)>,
    /// Payloads beyond this vanish.
    pub(super) payload_max: usize,
    /// Numbers of data-carrying packets that vanish.
    pub(super) drop_data: Vec<u64>,
    /// Numbers of packets that vanish.
    pub(super) drop_any: Vec<u64>,
    busy_until: Instant,
    data_count: u64,
    any_count: u64,
}

impl Link {
    pub(super) fn new(bits_per_s: u64, delay_ms: u64) -> Self {
        Self {
            bits_per_s,
            delay: Duration::from_millis(delay_ms),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            queue_bytes: u64::MAX,
            mark_bytes: u64::MAX,
            marked: 0,
            blackhole: None,
            payload_max: usize::MAX,
            drop_data: vec![],
            drop_any: vec![],
            busy_until: Instant::ZERO,
            data_count: 0,
            any_count: 0,
        }
    }

    /// When copies of the packet arrive.
    fn carry(&mut self, now: Instant, wire: &mut Wire, rng: &mut SmallRng) -> Vec<Instant> {
        let bytes = wire.payload.len() as u64 + 60;
        self.any_count += 1;
        if self.drop_any.contains(&self.any_count) {
            return vec![];
        }
        if !wire.payload.is_empty() {
            self.data_count += 1;
            if self.drop_data.contains(&self.data_count) {
                return vec![];
            }
        }
        let dark = |(from, to): (Instant, Instant)| from <= now && now < to;
        if self.blackhole.is_some_and(dark)
            || wire.payload.len() > self.payload_max
            || rng.random_bool(self.loss)
        {
            return vec![];
        }
        let start = self.busy_until.max(now);
        let waiting = (start - now).as_nanos() as u64 * self.bits_per_s / 8_000_000_000;
        if waiting > self.queue_bytes {
            return vec![];
        }
        if waiting > self.mark_bytes && wire.ecn != 0 {
            wire.ecn = 3;
            self.marked += 1;
        }
        self.busy_until =
            start + Duration::from_nanos(bytes * 8_000_000_000 / self.bits_per_s.max(1));
        let copies = 1 + usize::from(rng.random_bool(self.duplicate));
        (0..copies)
            .map(|_| {
                let jitter = rng.random_range(0..=self.jitter.as_nanos() as u64);
                self.busy_until + self.delay + Duration::from_nanos(jitter)
            })
            .collect()
    }
}

/// One host: a connection and its owner.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) tcp: Option<Tcp>,
    pub(super) config: TcpConfig,
    pub(super) counters: Counters,
    iss: SeqNumber,
    /// Bytes to send in all, sent so far.
    pub(super) to_send: u64,
    pub(super) sent: u64,
    pub(super) acked: u64,
    /// Bytes received in order, consumed by the application.
    pub(super) received: u64,
    pub(super) consumed: u64,
    pub(super) buffer: u64,
    /// The application reads only from then on.
    pub(super) read_from: Instant,
    /// Close when everything is sent.
    pub(super) auto_close: bool,
    pub(super) fin_received: bool,
    pub(super) finished: bool,
    pub(super) timed_out: bool,
    pub(super) reset: bool,
    edge: Option<SeqNumber>,
    pub(super) data_segments: u64,
}

impl Host {
    fn new(config: TcpConfig, iss: SeqNumber, to_send: u64) -> Self {
        Self {
            tcp: None,
            buffer: u64::from(config.recv_buffer_max),
            config,
            counters: Counters::new(),
            iss,
            to_send,
            sent: 0,
            acked: 0,
            received: 0,
            consumed: 0,
            read_from: Instant::ZERO,
            auto_close: true,
            fin_received: false,
            finished: false,
            timed_out: false,
            reset: false,
            edge: None,
            data_segments: 0,
        }
    }

    pub(super) fn tcp(&self) -> &Tcp {
        self.tcp.as_ref().expect("open")
    }

    fn receive(&mut self, now: Instant, wire: &Wire) {
        let seg = SegmentIn {
            seq: wire.seq,
            ack: wire.ack,
            flags: wire.flags,
            window: wire.window,
            urgent: 0,
            options: &wire.options,
            payload_len: wire.payload.len() as u32,
            ce: wire.ecn == 3,
            mptcp_signal: false,
            segments: 1,
        };
        let Some(tcp) = &mut self.tcp else {
            if wire.flags.contains(Flags::SYN) && !wire.flags.contains(Flags::ACK) {
                self.tcp = Some(Tcp::accept(self.config.clone(), now, self.iss, 77, &seg));
            }
            return;
        };
        let chain = if wire.payload.is_empty() {
            Chain::new()
        } else {
            Chain::from(Piece::copied(&wire.payload, None))
        };
        let verdict = tcp.on_segment(now, &seg, chain, &mut self.counters);
        self.acked += u64::from(verdict.acked_bytes);
        self.fin_received |= verdict.fin;
        self.reset |= verdict.reset.is_some();
        while let Some(chunk) = tcp.recv_pop() {
            assert_eq!(
                chunk.seq,
                tcp.irs() + 1 + u32::try_from(self.received & 0xffff_ffff).unwrap(),
                "chunks are contiguous"
            );
            for piece in &chunk.chain {
                for byte in piece.bytes() {
                    assert_eq!(*byte, pattern(self.received), "stream at {}", self.received);
                    self.received += 1;
                }
            }
        }
        if tcp.time_wait().is_some() || tcp.state() == State::Closed {
            self.finished = true;
        }
    }

    /// What a worker does after a batch or a timer.
    fn poll(&mut self, now: Instant) -> Vec<Wire> {
        let mut out = vec![];
        let Some(tcp) = &mut self.tcp else {
            return out;
        };
        if tcp.next_deadline().is_some_and(|at| at <= now) {
            let verdict = tcp.on_timer(now, &mut self.counters);
            self.timed_out |= verdict.timed_out;
        }
        if now >= self.read_from && self.consumed < self.received {
            self.consumed = self.received;
        }
        let space = self.buffer - (self.received - self.consumed).min(self.buffer);
        tcp.set_receive_window(space as u32);
        if self.auto_close && self.sent == self.to_send && tcp.state().may_send() {
            tcp.close();
        }
        while let Some(control) = tcp.next_control_but_ack(now) {
            out.push(Self::control(tcp, now, control, &mut self.edge));
        }
        while let Some(range) = tcp.next_retransmit(now) {
            tcp.record_retransmit(now, range.seq, range.len);
            assert!(range.len <= tcp.mss());
            self.data_segments += 1;
            out.push(Self::data(
                tcp,
                now,
                range.seq,
                range.dsn,
                range.len,
                &mut self.edge,
            ));
        }
        loop {
            let budget = u64::from(tcp.send_budget(now));
            let len = budget
                .min(self.to_send - self.sent)
                .min(u64::from(tcp.mss())) as u32;
            if len == 0 {
                break;
            }
            let dsn = self.sent;
            let marks = tcp.data_marks(tcp.snd_nxt());
            let seq = tcp.record_new(now, len, dsn, MapRef::default());
            self.sent += u64::from(len);
            self.data_segments += 1;
            assert!(
                seq + len <= tcp.snd_una() + tcp.snd_wnd(),
                "beyond the peer's window"
            );
            assert!(
                tcp.bytes_in_flight() <= tcp.cwnd().max(tcp.mss()),
                "in flight {} cwnd {}",
                tcp.bytes_in_flight(),
                tcp.cwnd()
            );
            let mut wire = Self::data(tcp, now, seq, dsn, len, &mut self.edge);
            wire.ecn = marks.ecn;
            wire.flags |= marks.flags;
            out.push(wire);
        }
        tcp.set_data_waiting(now, self.sent < self.to_send);
        while let Some(control) = tcp.next_control(now) {
            out.push(Self::control(tcp, now, control, &mut self.edge));
        }
        if tcp.time_wait().is_some() || tcp.state() == State::Closed {
            self.finished = true;
        }
        out
    }

    fn fill_header(tcp: &mut Tcp, now: Instant, wire: &mut Wire, edge: &mut Option<SeqNumber>) {
        let header = tcp.header(now);
        wire.flags |= header.flags;
        wire.ack = header.ack;
        wire.window = header.window;
        wire.options.timestamps = header.timestamps;
        // As with MPTCP, data has no room for SACK blocks.
        if wire.payload.is_empty() {
            wire.options.sack = tcp.sack_blocks(3);
        }
        tcp.ack_sent(now);
        let shift = tcp.info().window_scale.map_or(0, |(_, ours)| ours);
        let right = header.ack + (u32::from(header.window) << shift);
        if let Some(before) = *edge {
            assert!(right >= before, "right edge moved left");
        }
        *edge = Some(right);
    }

    fn data(
        tcp: &mut Tcp,
        now: Instant,
        seq: SeqNumber,
        dsn: u64,
        len: u32,
        edge: &mut Option<SeqNumber>,
    ) -> Wire {
        let mut wire = blank(seq);
        wire.payload = (dsn..dsn + u64::from(len)).map(pattern).collect();
        Self::fill_header(tcp, now, &mut wire, edge);
        wire
    }

    fn control(
        tcp: &mut Tcp,
        now: Instant,
        control: Control,
        edge: &mut Option<SeqNumber>,
    ) -> Wire {
        let mut wire;
        match control {
            Control::Syn { seq, .. } | Control::SynAck { seq, .. } => {
                wire = blank(seq);
                let fields = tcp.syn_fields(now);
                wire.flags = fields.flags;
                wire.ack = fields.ack.unwrap_or_default();
                wire.window = fields.window;
                wire.options.mss = Some(fields.mss);
                wire.options.window_scale = fields.window_scale;
                wire.options.sack_permitted = fields.sack_permitted;
                wire.options.timestamps = fields.timestamps;
            }
            Control::Ack { seq } | Control::Probe { seq } => {
                wire = blank(seq);
                Self::fill_header(tcp, now, &mut wire, edge);
            }
            Control::Fin { seq } => {
                wire = blank(seq);
                wire.flags = Flags::FIN;
                Self::fill_header(tcp, now, &mut wire, edge);
            }
            Control::Rst { seq, ack, .. } => {
                wire = blank(seq);
                wire.flags = Flags::RST;
                if let Some(ack) = ack {
                    wire.flags |= Flags::ACK;
                    wire.ack = ack;
                }
            }
        }
        wire
    }
}

fn blank(seq: SeqNumber) -> Wire {
    Wire {
        seq,
        ack: SeqNumber(0),
        flags: Flags::empty(),
        window: 0,
        options: TcpOptions::default(),
        payload: vec![],
        ecn: 0,
    }
}

/// Arrival time, tie break, destination, index into `packets`.
type Arrival = Reverse<(Instant, u64, usize)>;

/// Two hosts and two links.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) hosts: [Host; 2],
    /// `links[i]` carries what host `i` sends.
    pub(super) links: [Link; 2],
    arrivals: BinaryHeap<Arrival>,
    packets: std::collections::HashMap<u64, Wire>,
    serial: u64,
    rng: SmallRng,
    trace: bool,
    pub(super) steps: u64,
}

impl Pair {
    /// Host 0 connects to host 1; each sends so many bytes, then closes.
    pub(super) fn new(seed: u64, config: &TcpConfig, link: &Link, bytes: [u64; 2]) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        // Near the wrap, so that most connections pass it.
        let mut iss = || SeqNumber(u32::MAX - rng.random_range(0..20_000));
        let mut hosts = [
            Host::new(config.clone(), iss(), bytes[0]),
            Host::new(config.clone(), iss(), bytes[1]),
        ];
        let now = Instant::from_millis(1000);
        let client = &mut hosts[0];
        client.tcp = Some(Tcp::connect(config.clone(), now, client.iss, 4_294_967_000));
        Self {
            now,
            hosts,
            links: [link.clone(), link.clone()],
            arrivals: BinaryHeap::new(),
            packets: std::collections::HashMap::new(),
            serial: 0,
            rng,
            trace: std::env::var_os("BRAID_TRACE").is_some(),
            steps: 0,
        }
    }

    fn poll(&mut self) {
        for i in 0..2 {
            for mut wire in self.hosts[i].poll(self.now) {
                let arrivals = self.links[i].carry(self.now, &mut wire, &mut self.rng);
                if self.trace {
                    eprintln!(
                        "{} {i}: {:?} seq {} ack {} len {} win {} sack {:?} -> {:?}",
                        self.now.as_micros(),
                        wire.flags,
                        wire.seq,
                        wire.ack,
                        wire.payload.len(),
                        wire.window,
                        wire.options.sack,
                        arrivals
                    );
                }
                for at in arrivals {
                    self.serial += 1;
                    self.packets.insert(self.serial, wire.clone());
                    self.arrivals.push(Reverse((at, self.serial, 1 - i)));
                }
            }
        }
    }

    /// To the next event; false when there is none.
    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        self.poll();
        let arrival = self.arrivals.peek().map(|Reverse((at, ..))| *at);
        let timer = self
            .hosts
            .iter()
            .filter(|host| !host.finished)
            .filter_map(|host| host.tcp.as_ref()?.next_deadline())
            .min();
        let reading = self
            .hosts
            .iter()
            .filter(|host| host.consumed < host.received)
            .map(|host| host.read_from)
            .min();
        let Some(next) = [arrival, timer, reading].into_iter().flatten().min() else {
            return false;
        };
        // A deadline that stays in the past is a busy loop.
        self.now = self.now.max(next);
        // A batch: all that has arrived.
        while let Some(Reverse((at, serial, to))) = self.arrivals.peek().copied()
            && at <= self.now
        {
            self.arrivals.pop();
            let wire = self.packets.remove(&serial).expect("stored");
            self.hosts[to].receive(self.now, &wire);
        }
        true
    }

    pub(super) fn run_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            assert!(self.steps < 2_000_000, "busy loop at {:?}", self.now);
            if !self.step() || self.now > deadline {
                break;
            }
        }
    }

    /// Until both are in TIME-WAIT or CLOSED; everything must have arrived.
    pub(super) fn finish(&mut self, seconds: u64) {
        let deadline = self.now + Duration::from_secs(seconds);
        self.run_until(deadline, |pair| pair.hosts.iter().all(|host| host.finished));
        for i in 0..2 {
            let (host, other) = (&self.hosts[i], &self.hosts[1 - i]);
            assert!(
                host.finished && !host.timed_out && !host.reset,
                "host {i} at {:?}: {:?}\n{:?}\nthe other: {:?}\n{:?}",
                self.now,
                host.tcp.as_ref().map(Tcp::info),
                host.counters,
                other.tcp.as_ref().map(Tcp::info),
                other.counters
            );
            assert_eq!(host.received, other.to_send);
            assert!(host.fin_received);
        }
    }

    /// Until host 0's bytes are acknowledged; the seconds that took.
    pub(super) fn upload_seconds(&mut self) -> f64 {
        let start = self.now;
        let deadline = start + Duration::from_secs(600);
        self.run_until(deadline, |pair| {
            pair.hosts[0].acked == pair.hosts[0].to_send
        });
        assert_eq!(self.hosts[0].acked, self.hosts[0].to_send);
        (self.now - start).as_secs_f64()
    }
}
