//! How large a window a connection may offer, and who pays for it.
//!
//! The receive buffer starts small and follows what the application reads in a round trip, as
//! dynamic right-sizing has it (Fisk and Feng 2001; Linux: `mptcp_rcv_space_adjust`): twice what
//! was read, so that a sender whose window doubles each round is not held up, plus room ahead of
//! the growth just seen. The round trip is the longest of the subflows', because a byte on the
//! slowest path holds back what arrives on all others: the buffer grows to the sum of the rates
//! times the longest delay. A reader that does not read does not grow it.
//!
//! Windows are accounted in frames. A [`WindowLedger`] knows how many frames of a worker the
//! windows of all its connections promise; growth needs a promise first. What a connection pins
//! beyond its promise (a peer that sends short segments, or one that fills the same window on two
//! subflows) is copied out at once, so the frames that readers pin never exceed what was promised.
//!
//! - Everyone gets [`FLOOR_BYTES`], however many there are: an idle connection pins nothing.
//! - When a promise was refused, those who have more than their share give back: who reads a
//!   little each round, who is idle all of what a new connection would not have. Their edges stay
//!   where they are (they never move left); their windows shrink by not growing.
//! - While the pool itself runs low, nothing grows.
//!
//! There is nothing to tune on the sending side: applications are pulled, so the send queue holds
//! what congestion and peer's windows let out, and nothing that waits. It has a limit, and while
//! the pool runs low a share of it.

use super::api::Cx;
use super::config::MptcpConfig;
use super::state::Core;
use crate::counters::Counter;
use crate::time::{Duration, Instant};

/// Every connection may offer this: room for twice an initial window (RFC 6928) of one path.
pub(crate) const FLOOR_BYTES: u32 = 32 << 10;
/// Frames promised beyond full segments: a last segment, an odd one.
const SPARE_FRAMES: u32 = 4;
/// A queue of our own making lengthens the round trip, and so the window, and so the queue. Up to
/// here it may; beyond, the path without its queue has to have room for a quarter of it.
const QUEUE_BYTES_MAX: u64 = 2 << 20;
/// A round is no shorter: the clock of timestamps has no finer grain.
const ROUND_MIN: Duration = Duration::from_millis(1);
/// Who has not read for so long is idle.
const IDLE: Duration = Duration::from_secs(1);
/// How long a refused promise is remembered.
const SHORTAGE: Duration = Duration::from_secs(1);
/// Segments that a window has on top (Linux adds 16).
const SEGMENTS_EXTRA: u64 = 16;

/// The frames of a worker that receive windows promise.
#[derive(Debug)]
pub struct WindowLedger {
    limit: u32,
    promised: u32,
    holders: u32,
    pressure: bool,
    short_until: Option<Instant>,
}

impl WindowLedger {
    /// Windows together may promise `frames`, floors aside.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        Self {
            limit: frames,
            promised: 0,
            holders: 0,
            pressure: false,
            short_until: None,
        }
    }

    /// The pool runs low, or no longer.
    pub fn set_pressure(&mut self, pressure: bool) {
        self.pressure = pressure;
    }

    /// Somebody was refused not long ago.
    #[must_use]
    pub fn is_short(&self, now: Instant) -> bool {
        self.short_until.is_some_and(|until| now < until)
    }

    /// Frames promised now.
    #[must_use]
    pub fn promised(&self) -> u32 {
        self.promised
    }

    /// What each would have if all had the same.
    fn share(&self) -> u32 {
        self.limit / self.holders.max(1)
    }

    /// Frames of `max` that a send queue may hold.
    pub(crate) fn send_frames(&self, max: u32) -> u32 {
        if self.pressure {
            max.min(self.share().max(SPARE_FRAMES))
        } else {
            max
        }
    }

    fn open(&mut self, now: Instant, wanted: u32, floor: u32) -> u32 {
        self.holders += 1;
        let granted = wanted
            .min(self.limit.saturating_sub(self.promised))
            .max(floor.min(wanted));
        if granted < wanted {
            self.short_until = Some(now + SHORTAGE);
        }
        self.promised += granted;
        granted
    }

    fn grow(&mut self, now: Instant, more: u32) -> u32 {
        let granted = more.min(self.limit.saturating_sub(self.promised));
        if granted < more {
            self.short_until = Some(now + SHORTAGE);
        }
        self.promised += granted;
        granted
    }

    fn give_back(&mut self, frames: u32) {
        debug_assert!(frames <= self.promised, "promised nothing of the kind");
        self.promised = self.promised.saturating_sub(frames);
    }

    /// A connection is gone that was promised so many frames.
    pub(crate) fn close(&mut self, frames: u32) {
        if frames > 0 {
            self.holders = self.holders.saturating_sub(1);
            self.give_back(frames);
        }
    }
}

/// The receive buffer of a connection: what its windows are cut from.
#[derive(Debug, Default)]
pub(crate) struct ReceiveBuffer {
    bytes: u32,
    /// Promised for them; zero before the first window was offered.
    frames: u32,
    /// Payload of a full segment.
    mss: u32,
    /// What was read before the round, and when it began and may end.
    read: u64,
    since: Instant,
    until: Instant,
    /// Most that was read in a round.
    best: u64,
}

/// What was read in a round.
#[derive(Copy, Clone, Debug)]
struct Round {
    read: u64,
    took: Duration,
    /// The longest round trip without queues.
    min_rtt: Duration,
}

impl ReceiveBuffer {
    /// What may wait for the application.
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Frames that may be pinned.
    pub(crate) fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes that so many frames hold when they are filled as usual.
    pub(crate) fn bytes_in(&self, frames: u64) -> u64 {
        frames * u64::from(self.mss.max(1))
    }

    fn frames_for(&self, bytes: u32, config: &MptcpConfig) -> u32 {
        let frames = bytes.div_ceil(self.mss.max(1)) + SPARE_FRAMES;
        frames.min(config.recv_buffer_frames)
    }

    fn bytes_for(&self, frames: u32) -> u32 {
        frames
            .saturating_sub(SPARE_FRAMES)
            .max(1)
            .saturating_mul(self.mss)
    }

    fn open(&mut self, now: Instant, mss: u32, config: &MptcpConfig, ledger: &mut WindowLedger) {
        self.mss = mss;
        let floor = FLOOR_BYTES.min(config.recv_buffer_bytes);
        let initial = config
            .recv_buffer_initial
            .clamp(floor, config.recv_buffer_bytes);
        let wanted = self.frames_for(initial, config);
        self.frames = ledger.open(now, wanted, self.frames_for(floor, config));
        self.bytes = if self.frames == wanted {
            initial
        } else {
            floor
        };
        (self.since, self.until) = (now, now + ROUND_MIN);
    }

    /// How large the buffer should be after such a round.
    fn target(&self, round: Round) -> u64 {
        let ahead = 2 * round.read + SEGMENTS_EXTRA * u64::from(self.mss);
        // Ahead of the growth just seen: what doubled may double again.
        let growth = round.read.saturating_sub(self.best);
        let basis = self.best.max(SEGMENTS_EXTRA * u64::from(self.mss)).max(1);
        let target = ahead + ahead.saturating_mul(growth.min(basis)) / basis;
        let took = round.took.as_nanos().max(1);
        let unqueued = 4 * u128::from(round.read) * round.min_rtt.as_nanos().min(took) / took;
        let proven = u64::try_from(unqueued).unwrap_or(u64::MAX);
        target.min(proven.max(QUEUE_BYTES_MAX))
    }

    fn grow(&mut self, now: Instant, to: u64, config: &MptcpConfig, ledger: &mut WindowLedger) {
        let to = u32::try_from(to)
            .unwrap_or(u32::MAX)
            .min(config.recv_buffer_bytes);
        if to <= self.bytes {
            return;
        }
        let wanted = self.frames_for(to, config);
        let granted = ledger.grow(now, wanted.saturating_sub(self.frames));
        self.frames += granted;
        self.bytes = if self.frames >= wanted {
            to
        } else {
            self.bytes.max(self.bytes_for(self.frames))
        };
    }

    fn shrink_to(&mut self, frames: u32, config: &MptcpConfig, ledger: &mut WindowLedger) {
        let floor = FLOOR_BYTES.min(config.recv_buffer_bytes);
        let frames = frames.max(self.frames_for(floor, config));
        if frames < self.frames {
            ledger.give_back(self.frames - frames);
            self.frames = frames;
            self.bytes = self.bytes.min(self.bytes_for(frames)).max(floor);
            // It may have to grow again from there.
            self.best = self.best.min(u64::from(self.bytes) / 2);
        }
    }
}

impl Core {
    /// Looks at what was read in the last round trip, once per round trip.
    pub(crate) fn tune_receive_buffer(&mut self, cx: &mut Cx<'_>) {
        if self.buffer.frames == 0 {
            let mss = self.subflows.first().map_or(1, |s| s.tcp.mss());
            self.buffer.open(cx.now, mss, cx.config, cx.windows);
            return;
        }
        if cx.now < self.buffer.until || self.is_over() {
            return;
        }
        let works = |s: &&super::subflow::Subflow| s.is_established() && !s.impaired();
        let (mut rtt, mut min_rtt, mut mss) = (ROUND_MIN, Duration::ZERO, 0);
        for s in self.subflows.iter().filter(works) {
            rtt = rtt.max(s.tcp.receive_rtt().unwrap_or_default());
            min_rtt = min_rtt.max(s.tcp.min_rtt().unwrap_or_default());
            mss = mss.max(s.tcp.mss());
        }
        let read = self.rx.delivered() - self.rx.len() as u64;
        let buffer = &mut self.buffer;
        if mss > 0 {
            buffer.mss = mss;
        }
        let round = Round {
            read: read - buffer.read,
            took: cx.now - buffer.since,
            min_rtt,
        };
        (buffer.read, buffer.since, buffer.until) = (read, cx.now, cx.now + rtt);
        let before = buffer.bytes;
        if cx.windows.is_short(cx.now) && buffer.frames > cx.windows.share() {
            let eighth = buffer.frames - buffer.frames / 8;
            buffer.shrink_to(eighth.max(cx.windows.share()), cx.config, cx.windows);
        } else if round.read > buffer.best && !cx.windows.pressure {
            let target = buffer.target(round);
            buffer.grow(cx.now, target, cx.config, cx.windows);
            if u64::from(buffer.bytes) >= target.min(cx.config.recv_buffer_bytes.into()) {
                buffer.best = round.read;
            }
        }
        match buffer.bytes.cmp(&before) {
            std::cmp::Ordering::Greater => cx.counters.inc(Counter::RcvWindowGrown),
            std::cmp::Ordering::Less => cx.counters.inc(Counter::RcvWindowCut),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Others need frames: what an idle connection was promised beyond a new one's is called in.
    pub(crate) fn give_windows_back(&mut self, cx: &mut Cx<'_>) {
        if self.buffer.frames == 0 || cx.now < self.buffer.since + IDLE {
            return;
        }
        let initial = cx.config.recv_buffer_initial;
        let frames = self.buffer.frames_for(initial, cx.config);
        let before = self.buffer.frames;
        let keep = frames.min(cx.windows.share());
        self.buffer.shrink_to(keep, cx.config, cx.windows);
        if self.buffer.frames < before {
            cx.counters.inc(Counter::RcvWindowCut);
        }
    }

    /// Copies what is pinned beyond the promise.
    pub(crate) fn settle_promise(&mut self, cx: &mut Cx<'_>, held: usize) {
        if held > self.buffer.frames as usize {
            cx.counters.inc(Counter::RcvWindowOverdrawn);
            self.release_frames(cx);
        }
    }

    /// Copies received data that waits, so that its frames go home. Returns how many.
    pub(crate) fn release_frames(&mut self, cx: &mut Cx<'_>) -> u64 {
        let mut freed = self.rx.release_frames() + self.reassembly.release_frames();
        for s in &mut self.subflows {
            freed += s.rx.release_frames() + s.tcp.release_frames();
        }
        cx.counters.add(Counter::RxCopybreak, freed);
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1428;

    fn config(max: u32) -> MptcpConfig {
        MptcpConfig {
            recv_buffer_bytes: max,
            ..MptcpConfig::default()
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn opened(config: &MptcpConfig, ledger: &mut WindowLedger) -> ReceiveBuffer {
        let mut buffer = ReceiveBuffer::default();
        buffer.open(at(0), MSS, config, ledger);
        buffer
    }

    fn round(read: u64, ms: u64, min_rtt_ms: u64) -> Round {
        Round {
            read,
            took: Duration::from_millis(ms),
            min_rtt: Duration::from_millis(min_rtt_ms),
        }
    }

    /// A sender in slow start doubles what arrives each round: the buffer is always ahead of the
    /// next round.
    #[test]
    fn the_buffer_keeps_ahead_of_slow_start() {
        let config = config(32 << 20);
        let mut ledger = WindowLedger::new(1 << 20);
        let mut buffer = opened(&config, &mut ledger);
        let mut flight = 10 * u64::from(MSS);
        for n in 0..10 {
            let target = buffer.target(round(flight, 100, 100));
            buffer.grow(at(100 * n), target, &config, &mut ledger);
            buffer.best = flight;
            flight *= 2;
            assert!(
                u64::from(buffer.bytes()) >= flight.min(32 << 20),
                "round {n}"
            );
        }
        assert!(buffer.bytes() >= 14 << 20);
    }

    #[test]
    fn a_queue_of_our_own_making_does_not_feed_itself() {
        let config = config(32 << 20);
        let mut ledger = WindowLedger::new(1 << 20);
        let mut buffer = opened(&config, &mut ledger);
        // 1 Gb/s over a path of 1 ms: whatever fills the window only lengthens the queue.
        for n in 0..50u64 {
            let read = u64::from(buffer.bytes());
            let took = (read / 125_000).max(1);
            let target = buffer.target(round(read, took, 1));
            buffer.grow(at(n), target, &config, &mut ledger);
            buffer.best = buffer.best.max(read);
        }
        assert_eq!(u64::from(buffer.bytes()), QUEUE_BYTES_MAX);
    }

    #[test]
    fn growth_stops_at_the_named_limits() {
        let config = MptcpConfig {
            recv_buffer_frames: 500,
            ..config(1 << 20)
        };
        let mut ledger = WindowLedger::new(10_000);
        let mut buffer = opened(&config, &mut ledger);
        buffer.grow(at(1), u64::MAX, &config, &mut ledger);
        assert_eq!((buffer.bytes(), buffer.frames()), (1 << 20, 500));
        assert_eq!(ledger.promised(), 500);
        ledger.close(buffer.frames());
        assert_eq!(ledger.promised(), 0);
    }

    #[test]
    fn whoever_comes_late_gets_a_floor_and_later_a_share() {
        let config = config(32 << 20);
        let mut ledger = WindowLedger::new(1000);
        let mut first = opened(&config, &mut ledger);
        first.grow(at(1), 32 << 20, &config, &mut ledger);
        assert_eq!(ledger.promised(), 1000);
        assert!(ledger.is_short(at(2)), "it wanted more");
        let mut second = opened(&config, &mut ledger);
        assert_eq!(second.bytes(), FLOOR_BYTES);
        // The first gives back round by round, the second takes it.
        for n in 0..30 {
            let eighth = first.frames() - first.frames() / 8;
            let share = ledger.share();
            first.shrink_to(eighth.max(share), &config, &mut ledger);
            second.grow(at(n), 32 << 20, &config, &mut ledger);
        }
        assert!(
            first.frames().abs_diff(second.frames()) < 50,
            "{first:?} {second:?}"
        );
        assert!(ledger.promised() <= 1000);
    }

    #[test]
    fn send_queues_share_what_is_left_only_under_pressure() {
        let mut ledger = WindowLedger::new(1000);
        for _ in 0..10 {
            ledger.open(at(0), 10, 10);
        }
        assert_eq!(ledger.send_frames(5000), 5000);
        ledger.set_pressure(true);
        assert_eq!(ledger.send_frames(5000), 100);
        assert_eq!(ledger.send_frames(50), 50);
    }

    proptest! {
        /// Whatever connections do, the ledger is the sum of what they hold, floors are the only
        /// thing beyond the limit, and a buffer's bytes fit into its frames.
        #[test]
        fn the_books_balance(
            limit in 0u32..4000,
            steps in proptest::collection::vec((0usize..8, 0u8..4, 0u64..8 << 20), 1..200),
        ) {
            let config = config(4 << 20);
            let mut ledger = WindowLedger::new(limit);
            let mut buffers: Vec<Option<ReceiveBuffer>> = (0..8).map(|_| None).collect();
            let floor = ReceiveBuffer { mss: MSS, ..Default::default() }.frames_for(FLOOR_BYTES, &config);
            for (n, (who, what, bytes)) in steps.into_iter().enumerate() {
                let now = at(n as u64);
                match (&mut buffers[who], what) {
                    (slot @ None, _) => *slot = Some(opened(&config, &mut ledger)),
                    (slot @ Some(_), 0) => {
                        let gone = slot.take().map_or(0, |b| b.frames());
                        ledger.close(gone);
                    }
                    (Some(b), 1) => b.shrink_to(b.frames() / 2, &config, &mut ledger),
                    (Some(b), _) => b.grow(now, bytes, &config, &mut ledger),
                }
                let held: u32 = buffers.iter().flatten().map(ReceiveBuffer::frames).sum();
                let holders = buffers.iter().flatten().count() as u32;
                prop_assert_eq!(ledger.promised(), held);
                prop_assert_eq!(ledger.holders, holders);
                prop_assert!(held <= limit + holders * floor);
                for b in buffers.iter().flatten() {
                    prop_assert!(b.bytes() <= b.frames() * MSS, "{:?}", b);
                    prop_assert!(b.bytes() >= FLOOR_BYTES);
                }
            }
        }
    }
}
