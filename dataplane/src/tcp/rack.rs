//! RACK (RFC 8985 §6): a segment is lost when one sent sufficiently later was delivered.

use core::time::Duration;

use super::rtt::RttEstimator;
use super::scoreboard::{Scoreboard, TxSeg};
use crate::time::{Instant, Span};
use crate::wire::tcp::SeqNumber;

/// SACKed segments that mean loss while no reordering was ever seen (RFC 8985 §6.2 step 4).
const DUP_THRESH: u32 = 3;
/// Recoveries after which a widened window narrows again (RFC 8985 §6.2 step 4).
const REO_WND_PERSIST: u8 = 16;

/// What was delivered most recently, by time of transmission.
#[derive(Clone, Debug)]
pub(super) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq.
    latest: Option<(Instant, SeqNumber)>,
    /// RACK.rtt
    rtt: Span,
    /// RACK.fack: highest sequence number delivered.
    fack: SeqNumber,
    reordering_seen: bool,
    reo_wnd_mult: u8,
    reo_wnd_persist: u8,
    /// Where the round of the last DSACK ends (RACK.dsack_round).
    dsack_round: Option<SeqNumber>,
}

impl Rack {
    pub(super) fn new(iss: SeqNumber) -> Self {
        Self {
            latest: None,
            rtt: Span::default(),
            fack: iss,
            reordering_seen: false,
            reo_wnd_mult: 1,
            reo_wnd_persist: REO_WND_PERSIST,
            dsack_round: None,
        }
    }

    pub(super) fn reordering_seen(&self) -> bool {
        self.reordering_seen
    }

    /// Steps 1 to 3: a segment was newly delivered. `ambiguous` = it was sent more than once and
    /// the ACK's timestamp says that an earlier copy arrived.
    pub(super) fn on_delivered(
        &mut self,
        now: Instant,
        seg: &TxSeg,
        ambiguous: bool,
        min_rtt: Option<Duration>,
    ) {
        let end = seg.end();
        if end > self.fack {
            self.fack = end;
        } else if end < self.fack && !seg.retransmitted() {
            self.reordering_seen = true;
        }
        let rtt = now - seg.sent_at;
        if seg.retransmitted() && (ambiguous || min_rtt.is_some_and(|min| rtt < min)) {
            return;
        }
        let newer = self
            .latest
            .is_none_or(|latest| sent_after((seg.sent_at, end), latest));
        if newer {
            self.latest = Some((seg.sent_at, end));
            self.rtt = rtt.into();
        }
    }

    /// Step 4: a DSACK arrived: we resent too early, so wait longer; at most once a round trip.
    pub(super) fn on_dsack(&mut self, una: SeqNumber, snd_nxt: SeqNumber) {
        if self.dsack_round.is_none_or(|round| una >= round) {
            self.dsack_round = Some(snd_nxt);
            self.reo_wnd_mult = self.reo_wnd_mult.saturating_add(1);
            self.reo_wnd_persist = REO_WND_PERSIST;
        }
    }

    /// A recovery ended (RFC 8985 §6.2 step 4).
    pub(super) fn on_recovery_end(&mut self) {
        self.reo_wnd_persist = self.reo_wnd_persist.saturating_sub(1);
        if self.reo_wnd_persist == 0 {
            self.reo_wnd_persist = REO_WND_PERSIST;
            self.reo_wnd_mult = 1;
        }
    }

    fn reorder_window(&self, board: &Scoreboard, recovering: bool, rtt: &RttEstimator) -> Duration {
        if !self.reordering_seen && (recovering || board.sacked_segments() >= DUP_THRESH) {
            return Duration::ZERO;
        }
        let min = rtt.min().unwrap_or(self.rtt.get());
        let window = min * u32::from(self.reo_wnd_mult) / 4;
        window.min(rtt.srtt().unwrap_or(window))
    }

    /// Step 5: marks what is overdue. Returns how many, and when to look again.
    ///
    /// The list is in order of transmission, so the first segment that is not overdue ends the
    /// walk: the work is proportional to what is marked.
    pub(super) fn detect(
        &self,
        now: Instant,
        board: &mut Scoreboard,
        recovering: bool,
        rtt: &RttEstimator,
    ) -> (u32, Option<Instant>) {
        let Some(latest) = self.latest else {
            return (0, None);
        };
        let patience = self.rtt.get() + self.reorder_window(board, recovering, rtt);
        let mut marked = 0;
        while let Some(number) = board.oldest_in_flight() {
            let seg = board.get(number);
            if !sent_after(latest, (seg.sent_at, seg.end())) {
                break;
            }
            let due = seg.sent_at + patience;
            if due > now {
                return (marked, Some(due));
            }
            board.mark_lost(number);
            marked += 1;
        }
        (marked, None)
    }

    /// RFC 8985 §6.3: at a timeout the first segment is lost, and whatever is overdue.
    pub(super) fn mark_on_timeout(
        &self,
        now: Instant,
        board: &mut Scoreboard,
        recovering: bool,
        rtt: &RttEstimator,
    ) {
        board.mark_front_lost();
        let measured = if self.latest.is_some() {
            self.rtt.get()
        } else {
            rtt.srtt().unwrap_or(Duration::ZERO)
        };
        let patience = measured + self.reorder_window(board, recovering, rtt);
        while let Some(number) = board.oldest_in_flight() {
            if board.get(number).sent_at + patience > now {
                break;
            }
            board.mark_lost(number);
        }
    }
}

/// RACK_sent_after (RFC 8985 §6.2 step 2): ties of time go by sequence.
fn sent_after(a: (Instant, SeqNumber), b: (Instant, SeqNumber)) -> bool {
    a.0 > b.0 || (a.0 == b.0 && a.1 > b.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::segment::MapRef;

    fn ms(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn setup(count: u32) -> (Rack, Scoreboard, RttEstimator) {
        let mut board = Scoreboard::default();
        for i in 0..count {
            board.push(
                ms(i.into()),
                SeqNumber(i * 10),
                10,
                0,
                MapRef::default(),
                false,
            );
        }
        let mut rtt = RttEstimator::new(Duration::from_millis(200), Duration::from_secs(60));
        rtt.sample(ms(0), Duration::from_millis(100));
        (Rack::new(SeqNumber(0)), board, rtt)
    }

    fn deliver(rack: &mut Rack, board: &mut Scoreboard, left: u32, now: Instant) {
        board.sack(SeqNumber(left), SeqNumber(left + 10), |seg| {
            rack.on_delivered(now, seg, false, Some(Duration::from_millis(100)));
        });
    }

    #[test]
    fn one_later_delivery_waits_a_quarter_round_trip() {
        let (mut rack, mut board, rtt) = setup(3);
        deliver(&mut rack, &mut board, 10, ms(101));
        let (marked, timer) = rack.detect(ms(101), &mut board, false, &rtt);
        assert_eq!((marked, timer), (0, Some(ms(125))));
        let (marked, timer) = rack.detect(ms(125), &mut board, false, &rtt);
        assert_eq!((marked, timer), (1, None));
        assert_eq!(board.first_lost(), Some(0));
    }

    #[test]
    fn three_later_deliveries_do_not_wait() {
        let (mut rack, mut board, rtt) = setup(5);
        for left in [10, 20, 30] {
            deliver(&mut rack, &mut board, left, ms(103));
        }
        assert_eq!(rack.detect(ms(103), &mut board, false, &rtt), (1, None));
        assert_eq!(board.in_flight(), 10, "the last one was sent later");
    }

    #[test]
    fn seen_reordering_keeps_the_window_open_and_dsack_widens_it() {
        let (mut rack, mut board, rtt) = setup(6);
        deliver(&mut rack, &mut board, 20, ms(102));
        deliver(&mut rack, &mut board, 10, ms(102));
        assert!(rack.reordering_seen());
        for left in [30, 40] {
            deliver(&mut rack, &mut board, left, ms(104));
        }
        assert_eq!(
            rack.detect(ms(104), &mut board, true, &rtt),
            (0, Some(ms(125)))
        );
        rack.on_dsack(SeqNumber(0), SeqNumber(60));
        rack.on_dsack(SeqNumber(0), SeqNumber(60));
        assert_eq!(
            rack.detect(ms(125), &mut board, true, &rtt),
            (0, Some(ms(150)))
        );
    }

    #[test]
    fn an_ambiguous_retransmission_teaches_nothing() {
        let (mut rack, mut board, rtt) = setup(2);
        board.mark_front_lost();
        board.resent(0, ms(200));
        board.sack(SeqNumber(0), SeqNumber(10), |seg| {
            rack.on_delivered(ms(210), seg, false, Some(Duration::from_millis(100)));
        });
        assert_eq!(rack.detect(ms(500), &mut board, true, &rtt), (0, None));
    }

    #[test]
    fn a_lost_retransmission_is_found() {
        let (mut rack, mut board, rtt) = setup(3);
        board.mark_front_lost();
        board.resent(0, ms(110));
        board.push(ms(111), SeqNumber(30), 10, 0, MapRef::default(), false);
        deliver(&mut rack, &mut board, 30, ms(211));
        rack.detect(ms(211), &mut board, true, &rtt);
        assert!(board.is_lost(0));
    }
}
