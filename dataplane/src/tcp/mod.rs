//! TCP: one subflow as a pure state machine (RFC 9293).
//!
//! Time, segments and limits come in as arguments; verdicts, requests and deadlines go out.
//! [`Tcp`] holds no send payload, only which ranges of the subflow carry which data sequence
//! numbers, and received payload only until it is popped.
//!
//! # How an owner drives it
//! - a segment: [`Tcp::on_segment`], then [`Tcp::recv_pop`] until `None`;
//! - after a batch, or when a deadline ([`Tcp::next_deadline`], [`Tcp::on_timer`]) has passed:
//!   [`Tcp::next_control`] until `None`, then [`Tcp::next_retransmit`] /
//!   [`Tcp::record_retransmit`], then up to [`Tcp::send_budget`] bytes of new data, each segment
//!   told by [`Tcp::record_new`];
//! - every segment that leaves with an ACK takes its fields from [`Tcp::header`] and is followed
//!   by [`Tcp::ack_sent`]. To carry ACKs on data, poll [`Tcp::next_control_but_ack`] first and
//!   `next_control` last.
//!
//! # Sequence space
//! ```text
//!   SND.UNA        scoreboard: one entry per segment          SND.NXT     SND.UNA+SND.WND
//!      |---sacked---|--lost--|---------- in flight -----------|   budget      |
//!
//!   RCV.NXT          out-of-order runs                 keep_until     advertised edge
//!      |   gap   |#####|   gap   |##|                       |   slack      |
//! ```
//!
//! # Invariants
//! - SND.NXT never goes back: a retransmission names a scoreboard entry. The scoreboard spans
//!   exactly the entries not wholly below SND.UNA; a partly acknowledged entry is resent whole.
//! - The advertised right edge never moves left (`window`).
//! - Work per segment is bounded by what it newly acknowledges plus a constant.
//!
//! # Deviations, with reason
//! - RFC 7323 §3.2 would drop segments without a timestamp once negotiated; boxes strip options,
//!   so they are accepted, like Linux does.
//! - RFC 8985 §7.3 probes the tail with new data if there is any; this type does not know about
//!   data that was not sent, so it repeats the newest segment.
//! - Payload on a SYN without a valid Fast Open cookie is left to be retransmitted.

mod ack;
mod bits;
mod challenge;
mod config;
mod congestion;
mod delack;
mod ecn;
mod fastopen;
mod info;
mod input;
mod output;
mod pacing;
mod pmtu;
mod prr;
mod rack;
mod reassembly;
mod receive_rtt;
mod recovery;
mod rtt;
mod scoreboard;
mod segment;
mod state;
mod stateless;
mod time_wait;
mod timer;
mod window;

#[cfg(test)]
mod tests;

use config::Settings;
pub use config::{CongestionKind, TcpConfig};
pub(crate) use congestion::coupled::Siblings;
pub use ecn::{DataMarks, EcnPolicy};
pub use fastopen::{CookieCache, CookieVerdict, FastOpenKey, FastOpenLesson};
pub use info::TcpInfo;
pub use segment::{
    Control, HeaderFields, MapRef, ResetCause, RxChunk, SegmentIn, SynFields, TimerVerdict,
    TxRange, Verdict,
};
pub use state::State;
pub use stateless::{SynMemory, stateless_syn_ack};
pub use time_wait::{TimeWait, TimeWaitAction};

use core::time::Duration;

use self::challenge::ChallengeLimit;
use self::congestion::Congestion;
use self::delack::DelayedAck;
use self::ecn::Ecn;
use self::pacing::Pacer;
use self::pmtu::PathMtu;
use self::rack::Rack;
use self::reassembly::Reassembly;
use self::receive_rtt::ReceiveRtt;
use self::recovery::Recovery;
use self::rtt::RttEstimator;
use self::scoreboard::Scoreboard;
use self::timer::Timers;
use self::window::ReceiveWindow;
use crate::counters::{Counter, Counters};
use crate::lazy::Lazy;
use crate::time::Instant;
use crate::wire::tcp::SeqNumber;

/// MSS of a peer that names none (RFC 9293 §3.7.1).
const MSS_DEFAULT: u16 = 536;
/// The least MSS that is obeyed: a peer that names less wants to make us send dust (CVE-2019-11479).
const MSS_MIN: u16 = 88;
/// Payload bytes that a segment has room for however many options there are.
const PAYLOAD_MIN: u32 = 32;
/// Largest window shift (RFC 7323 §2.3).
const SHIFT_MAX: u8 = 14;

/// Pieces of data beyond a gap: a full window of 32 MiB is 23,000 segments.
const PIECES_MAX: u32 = 32_768;

/// Timestamps in use.
#[derive(Clone, Debug)]
struct TimestampState {
    /// TS.Recent and when it was taken.
    recent: u32,
    recent_at: Instant,
}

/// How far the congestion window is being used, judged once per round.
#[derive(Clone, Debug)]
struct WindowUse {
    /// SND.NXT when the round began.
    round_end: SeqNumber,
    /// Largest flight of this and the last round.
    flight_max: u32,
    flight_max_last: u32,
    /// The window, not the application, held data back.
    limited: bool,
    limited_last: bool,
}

/// Events whose occasion has no `Counters` at hand; handed over with the next segment or timer.
#[derive(Debug, Default)]
struct Pending {
    retransmitted: u32,
    fast_retransmitted: u32,
    probes: u32,
    keepalives: u32,
    zero_window: u32,
    resets: u32,
    syn_retransmitted: u32,
    ecn_fallbacks: u32,
}

/// Totals for `info`.
#[derive(Clone, Debug, Default)]
struct Totals {
    segments_out: u64,
    bytes_out: u64,
    bytes_acked: u64,
    bytes_in: u64,
}

/// What a connection without trouble has none of.
#[derive(Debug, Default)]
struct Events {
    retransmits: u64,
    bytes_retransmitted: u64,
    timeouts: u64,
    tail_probes: u64,
    recoveries: u64,
    undos: u64,
    dsacks: u64,
    ce_segments: u64,
    ecn_reductions: u64,
    soft_errors: u64,
    pending: Pending,
}

/// What should leave besides data.
#[derive(Clone, Debug, Default)]
struct Wanted {
    syn: bool,
    probe: bool,
    rst: Option<(SeqNumber, Option<SeqNumber>, ResetCause)>,
}

/// One TCP connection, which may be a subflow of an MPTCP connection.
#[derive(Debug)]
pub struct Tcp {
    config: Settings,
    state: State,

    // --- send sequence space (RFC 9293 §3.3.1) ---
    iss: SeqNumber,
    /// Behind the SYN and what the peer took of its data.
    snd_start: SeqNumber,
    /// Bytes that left with the SYN.
    syn_data_out: u32,
    /// Data may leave before our SYN is acknowledged.
    early_answers: bool,
    snd_una: SeqNumber,
    snd_nxt: SeqNumber,
    snd_wnd: u32,
    /// Largest window ever offered: RFC 5961 §5 and silly window avoidance.
    snd_wnd_max: u32,
    snd_wl1: SeqNumber,
    snd_wl2: SeqNumber,
    snd_shift: u8,
    /// The owner has finished; FIN follows what is recorded.
    fin_wanted: bool,
    /// Sequence number of our FIN, once sent.
    fin_seq: Option<SeqNumber>,
    fin_acked: bool,
    board: Lazy<Scoreboard>,
    rtt: RttEstimator,
    rack: Rack,
    recovery: Recovery,
    congestion: Congestion,
    ecn: Ecn,
    pacer: Pacer,
    usage: WindowUse,
    path_mtu: PathMtu,
    option_room: u8,
    /// A short segment may go although the peer's window has no room for a full one.
    silly_override: bool,
    /// The owner has data that was not sent.
    data_waiting: bool,

    // --- receive sequence space ---
    irs: SeqNumber,
    /// Behind the SYN and what was taken of its data.
    rcv_start: SeqNumber,
    rcv_nxt: SeqNumber,
    window: ReceiveWindow,
    reassembly: Reassembly,
    delayed_ack: DelayedAck,
    receive_rtt: ReceiveRtt,
    /// Where the peer's stream ends, once known.
    peer_fin: Option<SeqNumber>,
    /// The edge of the header given out last; advertised when `ack_sent`.
    header_edge: SeqNumber,
    /// ... and whether SACK blocks go with it.
    header_has_sack: bool,
    last_ack_sent: SeqNumber,
    /// The last ACK said that the window is closed.
    window_closed: bool,

    // --- options agreed on ---
    timestamps: Option<TimestampState>,
    ts_offset: u32,
    sack: bool,
    scaling: bool,

    challenge: ChallengeLimit,
    timers: Timers,
    wanted: Wanted,
    totals: Totals,
    events: Option<Box<Events>>,
}

// A train of segments or a burst touches most of it once: at 64 segments a cache line more costs
// less than a nanosecond per segment. But 100,000 idle connections pay for every byte twice.
const _: () = assert!(size_of::<Tcp>() <= 840, "memory of an idle subflow");

impl Tcp {
    /// An active open. The SYN is the first [`Control`]. `iss` should be chosen as RFC 6528
    /// says, `ts_offset` at random per peer (RFC 7323 §7.1).
    #[must_use]
    pub fn connect(config: TcpConfig, now: Instant, iss: SeqNumber, ts_offset: u32) -> Self {
        let mut tcp = Self::new(config, now, iss, ts_offset, State::SynSent);
        tcp.timers.start_handshake(now);
        tcp.wanted.syn = true;
        tcp
    }

    /// A passive open, for a SYN that was received. The SYN/ACK is the first [`Control`]. The
    /// payload of `syn` counts as received (Fast Open), and is the owner's already.
    #[must_use]
    pub fn accept(
        config: TcpConfig,
        now: Instant,
        iss: SeqNumber,
        ts_offset: u32,
        syn: &SegmentIn<'_>,
    ) -> Self {
        let mut tcp = Self::new(config, now, iss, ts_offset, State::SynReceived);
        tcp.take_syn(now, syn);
        if syn.payload_len > 0 {
            tcp.take_syn_data(syn.payload_len);
        }
        tcp.timers.start_handshake(now);
        tcp.wanted.syn = true;
        tcp
    }

    fn new(config: TcpConfig, now: Instant, iss: SeqNumber, ts_offset: u32, state: State) -> Self {
        let payload = (u32::from(config.mss))
            .saturating_sub(config.option_room.into())
            .max(PAYLOAD_MIN);
        let pieces_max = (config.recv_buffer_max / 512).clamp(256, PIECES_MAX);
        Self {
            state,
            iss,
            snd_start: iss + 1,
            syn_data_out: 0,
            early_answers: false,
            snd_una: iss,
            snd_nxt: iss + 1,
            snd_wnd: 0,
            snd_wnd_max: 0,
            snd_wl1: SeqNumber::default(),
            snd_wl2: SeqNumber::default(),
            snd_shift: 0,
            fin_wanted: false,
            fin_seq: None,
            fin_acked: false,
            board: Lazy::empty(),
            rtt: RttEstimator::new(config.min_rto, config.max_rto),
            rack: Rack::new(iss),
            recovery: Recovery::new(iss),
            congestion: Congestion::new(config.congestion, payload, config.hystart, config.pacing),
            ecn: Ecn::new(config.ecn, iss),
            pacer: Pacer::new(now),
            usage: WindowUse {
                round_end: iss,
                flight_max: 0,
                flight_max_last: 0,
                limited: false,
                limited_last: false,
            },
            path_mtu: PathMtu::new(config.mss, config.header_bytes),
            option_room: config.option_room,
            silly_override: false,
            data_waiting: true,
            irs: SeqNumber::default(),
            rcv_start: SeqNumber::default(),
            rcv_nxt: SeqNumber::default(),
            window: ReceiveWindow::new(config.recv_buffer_max, payload),
            reassembly: Reassembly::new(pieces_max),
            delayed_ack: DelayedAck::new(config.delayed_ack),
            receive_rtt: ReceiveRtt::default(),
            peer_fin: None,
            header_edge: SeqNumber::default(),
            header_has_sack: false,
            last_ack_sent: SeqNumber::default(),
            window_closed: false,
            timestamps: None,
            ts_offset,
            sack: false,
            scaling: false,
            challenge: ChallengeLimit::new(now),
            timers: Timers::new(now),
            wanted: Wanted::default(),
            totals: Totals::default(),
            events: None,
            config: Settings::new(&config),
        }
    }

    fn events(&mut self) -> &mut Events {
        self.events.get_or_insert_default()
    }

    /// Nothing comes or goes at the moment: gives back what is there to be used again. What is
    /// in use stays.
    pub fn release_spare(&mut self) {
        self.board.release_if(Scoreboard::is_empty);
        self.reassembly.release_spare();
        self.congestion.release_spare();
    }

    /// When data last left or anything acceptable arrived.
    #[must_use]
    pub fn last_active(&self) -> Instant {
        self.timers.heard_at.max(self.timers.sent_at)
    }

    // ---- what the owner may know ----

    /// The state by its RFC name.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Initial send sequence number.
    #[must_use]
    pub fn iss(&self) -> SeqNumber {
        self.iss
    }

    /// Initial receive sequence number.
    #[must_use]
    pub fn irs(&self) -> SeqNumber {
        self.irs
    }

    /// SND.UNA
    #[must_use]
    pub fn snd_una(&self) -> SeqNumber {
        self.snd_una
    }

    /// SND.NXT
    #[must_use]
    pub fn snd_nxt(&self) -> SeqNumber {
        self.snd_nxt
    }

    /// RCV.NXT
    #[must_use]
    pub fn rcv_nxt(&self) -> SeqNumber {
        self.rcv_nxt
    }

    /// The peer's window in bytes.
    #[must_use]
    pub fn snd_wnd(&self) -> u32 {
        self.snd_wnd
    }

    /// The window field of a segment of the peer (not a SYN) in bytes.
    #[must_use]
    pub fn scaled_window(&self, field: u16) -> u32 {
        u32::from(field) << self.snd_shift
    }

    /// The right edge advertised so far.
    #[must_use]
    pub fn advertised_edge(&self) -> SeqNumber {
        self.window.advertised()
    }

    /// Timestamps were negotiated: they are on every segment.
    #[must_use]
    pub fn uses_timestamps(&self) -> bool {
        self.timestamps.is_some()
    }

    /// SACK was negotiated.
    #[must_use]
    pub fn uses_sack(&self) -> bool {
        self.sack
    }

    /// Payload bytes of a full data segment now.
    #[must_use]
    pub fn mss(&self) -> u32 {
        let payload = self.packet_payload();
        let most = u32::from(self.config.segment_bytes_max).max(PAYLOAD_MIN);
        if payload <= most {
            payload
        } else {
            payload / payload.div_ceil(most)
        }
    }

    /// Full data segments that one packet of the path holds: more than one only where
    /// [`TcpConfig::segment_bytes_max`] is below what the path carries.
    #[must_use]
    pub fn parts(&self) -> u32 {
        self.packet_payload() / self.mss()
    }

    /// Payload bytes that a packet may carry by what the path and the peer take.
    fn packet_payload(&self) -> u32 {
        u32::from(self.path_mtu.mss())
            .saturating_sub(self.option_room.into())
            .max(PAYLOAD_MIN)
    }

    /// Smoothed round trip.
    #[must_use]
    pub fn srtt(&self) -> Option<Duration> {
        self.rtt.srtt()
    }

    /// Round-trip variation.
    #[must_use]
    pub fn rttvar(&self) -> Duration {
        self.rtt.rttvar()
    }

    /// The lowest round-trip time of late: the path without queues.
    #[must_use]
    pub fn min_rtt(&self) -> Option<Duration> {
        self.rtt.min()
    }

    /// Smoothed round trip of what arrives, by the timestamps that it echoes; of what is sent
    /// where there are none.
    #[must_use]
    pub fn receive_rtt(&self) -> Option<Duration> {
        self.receive_rtt.smoothed().or(self.rtt.srtt())
    }

    /// Retransmission timeout as it would be armed now.
    #[must_use]
    pub fn rto(&self) -> Duration {
        self.rtt.rto()
    }

    /// Congestion window in bytes.
    #[must_use]
    pub fn cwnd(&self) -> u32 {
        self.congestion.window.cwnd
    }

    /// Slow start threshold in bytes.
    #[must_use]
    pub fn ssthresh(&self) -> u32 {
        self.congestion.window.ssthresh
    }

    /// Bytes sent, neither SACKed nor deemed lost.
    #[must_use]
    pub fn bytes_in_flight(&self) -> u32 {
        self.pipe()
    }

    /// Bytes recorded and not cumulatively acknowledged.
    #[must_use]
    pub fn unacked_bytes(&self) -> u32 {
        self.board.span()
    }

    /// Bytes per second that pacing allows; 0 = not paced.
    #[must_use]
    pub fn pacing_rate(&self) -> u64 {
        self.pacer.rate()
    }

    /// Retransmission timeouts in a row without progress.
    #[must_use]
    pub fn consecutive_rtos(&self) -> u32 {
        self.recovery.consecutive_rtos
    }

    /// Data is outstanding and a timeout has passed without progress: time to use another path.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.recovery.consecutive_rtos > 0 && !self.board.is_empty()
    }

    /// How long outstanding data has seen no progress.
    #[must_use]
    pub fn stalled_for(&self, now: Instant) -> Option<Duration> {
        (!self.board.is_empty()).then(|| now - self.timers.progress_at)
    }

    /// Our FIN is out and acknowledged.
    #[must_use]
    pub fn is_fin_acked(&self) -> bool {
        self.fin_acked
    }

    /// What was sent and is not cumulatively acknowledged, as (DSN, length) in sequence order;
    /// SACKed ranges included, for they cannot be delivered before the gap below them is filled.
    pub fn unacked_ranges(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.board
            .iter()
            .filter(|seg| !seg.fin)
            .map(|seg| (seg.dsn, seg.len))
    }

    // ---- what the owner decides ----

    /// Opens without asking for ECN, whatever the configuration says: a SYN that asked was
    /// refused.
    pub fn forgo_ecn(&mut self) {
        if self.ecn.forgo() {
            self.events().pending.ecn_fallbacks += 1;
        }
    }

    /// TCP option bytes on data segments from now on (a fallback has no DSS any more).
    pub fn set_option_room(&mut self, bytes: u8) {
        self.option_room = bytes;
        self.apply_segment_size(false);
    }

    /// Never send segments larger than for this MSS (option bytes not subtracted).
    pub fn set_max_segment(&mut self, mss: u16) {
        self.path_mtu.limit(mss.max(MSS_MIN));
        self.apply_segment_size(false);
    }

    /// Whether there is data that waits to be sent: without it, a closed window is not probed.
    /// Until told otherwise, it is assumed.
    pub fn set_data_waiting(&mut self, now: Instant, waiting: bool) {
        if self.data_waiting != waiting {
            self.data_waiting = waiting;
            self.update_persist(now);
        }
    }

    /// Free space for data at and beyond RCV.NXT. Asks for a window update if that matters to
    /// the peer. Never shrinks what was advertised.
    pub fn set_receive_window(&mut self, bytes: u32) {
        self.window.set_space(self.rcv_nxt, bytes);
        if self.state.may_receive() && self.window.update_is_worthwhile(self.rcv_nxt) {
            self.delayed_ack.demand();
        }
    }

    /// Frames that data beyond a gap pins.
    #[must_use]
    pub fn out_of_order_frames(&self) -> usize {
        self.reassembly.frames()
    }

    /// Copies data beyond a gap, so that its frames go home. Returns how many.
    pub fn release_frames(&mut self) -> u64 {
        self.reassembly.release_frames()
    }

    /// An ACK should leave now.
    pub fn ack_now(&mut self) {
        self.delayed_ack.demand();
    }

    /// No more data will be recorded: FIN follows what was (RFC 9293 §3.10.4).
    pub fn close(&mut self) {
        match self.state {
            State::SynSent => self.enter_closed(),
            State::SynReceived => self.fin_wanted = true,
            State::Established => {
                self.fin_wanted = true;
                self.state = State::FinWait1;
            }
            State::CloseWait => {
                self.fin_wanted = true;
                self.state = State::LastAck;
            }
            _ => {}
        }
    }

    /// Ends the connection at once; an RST tells the peer, if there is one (RFC 9293 §3.10.5).
    pub fn abort(&mut self) {
        self.reset(ResetCause::Aborted);
    }

    fn reset(&mut self, cause: ResetCause) {
        if !matches!(self.state, State::SynSent | State::TimeWait | State::Closed) {
            self.wanted.rst = Some((self.snd_nxt, Some(self.rcv_nxt), cause));
        }
        self.enter_closed();
    }

    fn enter_closed(&mut self) {
        self.state = State::Closed;
        self.wanted.syn = false;
        self.wanted.probe = false;
        self.timers.stop_all();
        self.reassembly.clear();
    }

    fn enter_time_wait(&mut self, now: Instant) {
        self.state = State::TimeWait;
        self.timers.stop_all();
        self.timers.time_wait = Some(now + self.config.time_wait());
    }

    /// What lives on of a connection in TIME-WAIT; then the rest may be freed.
    #[must_use]
    pub fn time_wait(&self) -> Option<TimeWait> {
        if self.state != State::TimeWait {
            return None;
        }
        Some(TimeWait {
            snd_nxt: self.snd_nxt,
            rcv_nxt: self.rcv_nxt,
            ts_recent: self.timestamps.as_ref().map(|ts| ts.recent),
            ts_offset: self.ts_offset,
            window: self.window.field(self.rcv_nxt).0,
            length: self.config.time_wait(),
            expires: self.timers.time_wait.unwrap_or(Instant::ZERO),
        })
    }

    /// The segment size may have changed: the window follows, and what is outstanding is cut so
    /// that it can be resent. With `lose`, what was too big is sent again now.
    fn apply_segment_size(&mut self, lose: bool) {
        let mss = self.mss();
        self.congestion.set_mss(mss);
        if self.board.resegment(mss, lose) {
            // Of an entry that was acknowledged in part, whole pieces may lie below SND.UNA now.
            // Nobody keeps their data any more.
            self.board.pop_acked(self.snd_una, |_, _| ());
        }
    }

    /// The pipe (RFC 6675 §4). Without SACK each duplicate ACK stands for a segment that left.
    fn pipe(&self) -> u32 {
        let gone = self.recovery.duplicates.saturating_mul(self.mss());
        self.board.in_flight().saturating_sub(gone)
    }

    /// TSval: milliseconds, offset per connection.
    fn tsval(&self, at: Instant) -> u32 {
        // Wraps after 49 days, as RFC 7323 §5.4 expects.
        (at.as_millis() as u32).wrapping_add(self.ts_offset)
    }

    /// Hands over counts whose occasion had no `Counters`; also before an owner drops it.
    pub fn flush_counters(&mut self, c: &mut Counters) {
        let Some(events) = &mut self.events else {
            return;
        };
        let pending = core::mem::take(&mut events.pending);
        let mut add = |counter, n| c.add(counter, u64::from(n));
        add(Counter::RetransSegs, pending.retransmitted);
        add(Counter::TCPFastRetrans, pending.fast_retransmitted);
        add(Counter::TCPWinProbe, pending.probes);
        add(Counter::TCPKeepAlive, pending.keepalives);
        add(Counter::TCPToZeroWindowAdv, pending.zero_window);
        add(Counter::OutRsts, pending.resets);
        add(Counter::TCPSynRetrans, pending.syn_retransmitted);
        add(Counter::TCPEcnFallback, pending.ecn_fallbacks);
    }
}
