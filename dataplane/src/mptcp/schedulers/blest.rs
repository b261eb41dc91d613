//! BLEST: a slow subflow is left out while its data would block the send window
//! (S. Ferlin, Ö. Alay, O. Mehani, R. Boreli: "BLEST: Blocking Estimation-based MPTCP
//! Scheduler for Heterogeneous Networks", IFIP Networking 2016).
//!
//! A segment sent on the slow subflow S occupies the connection's window for one of S's round
//! trips. In that time the fast subflow F could send
//!
//! ```text
//! X = MSS_F * (CWND_F + (rtts - 1) / 2) * rtts,   rtts = RTT_S / RTT_F
//! ```
//!
//! and if λX does not fit into what the window has left beside S's data, the head of the
//! line would block F: the segment waits for F instead. λ learns from mistakes: it grows when
//! the window did block although F had room, and shrinks slowly otherwise.

use core::time::Duration;

use super::min_rtt;
use super::{Candidate, Demand, Schedule, Verdict};
use crate::time::Instant;

/// λ in thousandths: start, bounds and steps as in the authors' implementation for Linux.
const LAMBDA_INITIAL: u32 = 1200;
const LAMBDA_MIN: u32 = 1000;
const LAMBDA_MAX: u32 = 1300;
const LAMBDA_GOOD: u32 = 10;
const LAMBDA_BAD: u32 = 40;
/// Round trips of F within one of S: more are not told apart.
const RTTS_MAX: u64 = 64;
/// `rtts` is computed in these parts.
const PARTS: u64 = 16;

/// λ and what it learns from.
#[derive(Debug)]
pub(crate) struct Blest {
    lambda: u32,
    /// The window blocked since λ was adjusted last.
    blocked: bool,
    adjusted_at: Option<Instant>,
}

impl Default for Blest {
    fn default() -> Self {
        Self {
            lambda: LAMBDA_INITIAL,
            blocked: false,
            adjusted_at: None,
        }
    }
}

impl Blest {
    /// The window is full of data on its way while a subflow has room.
    pub(super) fn window_blocked(&mut self) {
        self.blocked = true;
    }

    /// Once in a round trip of the slow subflow.
    fn adjust(&mut self, now: Instant, slow_rtt: Duration) {
        match self.adjusted_at {
            Some(at) if now - at < slow_rtt => return,
            None => {}
            Some(_) if std::mem::take(&mut self.blocked) => {
                self.lambda = (self.lambda + LAMBDA_BAD).min(LAMBDA_MAX);
            }
            Some(_) => self.lambda = (self.lambda - LAMBDA_GOOD).max(LAMBDA_MIN),
        }
        self.adjusted_at = Some(now);
    }

    /// λX: what `fast` is expected to send within `slow_rtt`.
    fn fast_bytes(&self, fast: &Candidate, fast_rtt: Duration, slow_rtt: Duration) -> u64 {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let rtts = (nanos(slow_rtt).saturating_mul(PARTS) / nanos(fast_rtt).max(1))
            .clamp(PARTS, RTTS_MAX * PARTS);
        let growth = u64::from(fast.mss) * (rtts - PARTS) / (2 * PARTS);
        let bytes = (u64::from(fast.cwnd) + growth).saturating_mul(rtts) / PARTS;
        bytes.saturating_mul(u64::from(self.lambda)) / 1000
    }
}

impl Schedule for Blest {
    fn decide(
        &mut self,
        demand: &Demand,
        candidates: impl Iterator<Item = Candidate> + Clone,
    ) -> Option<Verdict> {
        let slow = min_rtt::best(candidates.clone())?;
        let Some((fast, fast_rtt, slow_rtt)) = super::faster_than(&slow, candidates) else {
            return Some(Verdict::send(slow));
        };
        self.adjust(demand.now, slow_rtt);
        let fast_bytes = self.fast_bytes(&fast, fast_rtt, slow_rtt);
        let left = demand
            .window
            .saturating_sub(u64::from(slow.unacked))
            .saturating_sub(fast_bytes);
        Some(if left < u64::from(slow.mss) {
            Verdict::wait(fast, slow)
        } else {
            Verdict::send_at_most(slow, left)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    /// F: 10 ms and a full window of 10 segments. S: 100 ms, idle.
    fn pair() -> [Candidate; 2] {
        [busy(0, 10, 14_200), idle(1, 100)]
    }

    fn window(bytes: u64) -> Demand {
        Demand {
            window: bytes,
            ..BULK
        }
    }

    #[test]
    fn the_formula_of_the_paper() {
        let [fast, _] = pair();
        let mut blest = Blest {
            lambda: 1000,
            ..Blest::default()
        };
        let ms = Duration::from_millis;
        // (10 + 9 / 2) * 10 segments of 1420 bytes.
        assert_eq!(blest.fast_bytes(&fast, ms(10), ms(100)), 1420 * 145);
        assert_eq!(blest.fast_bytes(&fast, ms(10), ms(10)), 1420 * 10);
        blest.lambda = 1200;
        assert_eq!(blest.fast_bytes(&fast, ms(10), ms(100)), 1420 * 174);
        // Nonsense in, no overflow out.
        assert!(blest.fast_bytes(&fast, ms(0), ms(100_000)) > 0);
    }

    #[test]
    fn it_waits_where_the_window_would_block_and_only_there() {
        let segments = |n: u64| window(1420 * n);
        let pick = |demand: &Demand| choice(SchedulerKind::Blest, demand, &pair());
        assert_eq!(pick(&segments(174)), None);
        assert_eq!(pick(&segments(175)), Some(1));
        // What S has on its way already counts as well.
        let [fast, slow] = pair();
        let slow = Candidate {
            unacked: 1420 * 3,
            ..slow
        };
        let pick = |demand: &Demand| choice(SchedulerKind::Blest, demand, &[fast, slow]);
        assert_eq!(pick(&segments(177)), None);
        assert_eq!(pick(&segments(178)), Some(1));
    }

    #[test]
    fn no_more_is_sent_than_leaves_room_for_the_fast_one() {
        let mut scheduler = Scheduler::new(SchedulerKind::Blest);
        let chosen = scheduler.pick(&window(1420 * 180), pair().into_iter());
        assert_eq!(chosen.unwrap().bytes_max, 1420 * 6);
    }

    #[test]
    fn nothing_waits_for_a_fast_subflow_without_data_on_its_way() {
        let [fast, slow] = pair();
        let silent = Candidate {
            in_flight: 0,
            ..fast
        };
        let demand = window(1420 * 20);
        assert_eq!(
            choice(SchedulerKind::Blest, &demand, &[silent, slow]),
            Some(1)
        );
        let dead = Candidate {
            stalled: true,
            ..fast
        };
        assert_eq!(
            choice(SchedulerKind::Blest, &demand, &[dead, slow]),
            Some(1)
        );
    }

    #[test]
    fn lambda_follows_what_happens() {
        let mut blest = Blest::default();
        let rtt = Duration::from_millis(100);
        let mut now = Instant::from_millis(1000);
        blest.adjust(now, rtt);
        assert_eq!(blest.lambda, 1200);
        blest.window_blocked();
        blest.adjust(now + rtt / 2, rtt);
        assert_eq!(blest.lambda, 1200, "once in a round trip");
        now += rtt;
        blest.adjust(now, rtt);
        assert_eq!(blest.lambda, 1240);
        for _ in 0..100 {
            now += rtt;
            blest.adjust(now, rtt);
        }
        assert_eq!(blest.lambda, LAMBDA_MIN);
        for _ in 0..100 {
            now += rtt;
            blest.window_blocked();
            blest.adjust(now, rtt);
        }
        assert_eq!(blest.lambda, LAMBDA_MAX);
    }
}
