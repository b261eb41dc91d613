//! Congestion control: one file per algorithm behind one trait, dispatched by an enum.
//!
//! A controller decides how the window grows outside recovery and how far it falls at a
//! congestion event. What happens during recovery is PRR's (`prr`), slow start and its exit are
//! common to all (`hystart`). Everything counts bytes.
//!
//! The coupled controllers know the other subflows of their MPTCP connection by what `coupled`
//! sums up of them; with no others, each is NewReno.

mod balia;
pub(crate) mod coupled;
mod cubic;
mod hystart;
mod lia;
mod newreno;
mod olia;

use core::time::Duration;

use self::balia::Balia;
use self::coupled::Coupling;
use self::cubic::Cubic;
use self::hystart::HyStart;
use self::lia::Lia;
use self::newreno::NewReno;
use self::olia::Olia;
use super::config::CongestionKind;
use crate::time::Instant;

/// Initial window in segments (RFC 6928 §2).
const INITIAL_SEGMENTS: u32 = 10;
/// ... and in bytes: max(2*MSS, 14600).
const INITIAL_BYTES: u32 = 14_600;
/// Per-ACK growth limit in slow start without pacing, in segments (RFC 9406 §4.2, L).
const SLOW_START_SEGMENTS_PER_ACK: u32 = 8;

/// RFC 6928 §2: min(10*MSS, max(2*MSS, 14600)).
pub(super) fn initial_window(mss: u32) -> u32 {
    (INITIAL_SEGMENTS * mss).min(INITIAL_BYTES.max(2 * mss))
}

/// What a controller may change.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) cwnd: u32,
    pub(super) ssthresh: u32,
    pub(super) mss: u32,
}

impl Window {
    pub(super) fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }
}

/// One ACK outside recovery that acknowledged new data.
#[derive(Copy, Clone, Debug)]
pub(super) struct AckSample {
    pub(super) now: Instant,
    /// Bytes newly acknowledged, cumulatively.
    pub(super) acked: u32,
    /// A round trip measured by this ACK.
    pub(super) rtt: Option<Duration>,
    pub(super) srtt: Duration,
    /// This ACK ended a round: everything sent before the round began is acknowledged.
    pub(super) round_end: bool,
    /// The window was in use: growing an idle window means nothing (RFC 9438 §5.8, RFC 7661).
    pub(super) cwnd_limited: bool,
}

/// What each algorithm decides.
trait Controller {
    /// Grows the window in congestion avoidance.
    fn on_ack(&mut self, ack: &AckSample, window: &mut Window);
    /// Loss (or CE): returns the new `ssthresh`.
    fn on_congestion_event(&mut self, window: &Window, in_flight: u32) -> u32;
    /// Retransmission timeout: returns the new `ssthresh`.
    fn on_timeout(&mut self, window: &Window, in_flight: u32) -> u32;
    /// The last congestion event was spurious and the window is as before it.
    fn on_undo(&mut self);
    /// Until `now` the window was not in use: nothing was sent, or less than it allowed.
    fn on_unused(&mut self, now: Instant);
    /// How the other subflows of the connection are, for who is coupled to them.
    fn set_coupling(&mut self, _coupling: Coupling) {}
    /// Bytes were cumulatively acknowledged, in whatever state.
    fn on_delivered(&mut self, _bytes: u32) {}
    /// Bytes delivered between losses, for who measures it.
    fn loss_interval(&self) -> u64 {
        0
    }
}

#[derive(Clone, Debug)]
enum Algorithm {
    NewReno(NewReno),
    Cubic(Cubic),
    // The coupled keep what they know of other subflows: several times Cubic's state.
    Lia(Box<Lia>),
    Olia(Box<Olia>),
    Balia(Box<Balia>),
}

macro_rules! dispatch {
    ($self:expr, $c:ident => $e:expr) => {
        match $self {
            Algorithm::NewReno($c) => $e,
            Algorithm::Cubic($c) => $e,
            Algorithm::Lia($c) => $e,
            Algorithm::Olia($c) => $e,
            Algorithm::Balia($c) => $e,
        }
    };
}

/// A window and who moves it.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    pub(super) window: Window,
    algorithm: Algorithm,
    /// While slow start lasts; begun with its first ACK.
    hystart: Option<Box<HyStart>>,
    use_hystart: bool,
    paced: bool,
    /// The window and threshold before the last event.
    prior: (u32, u32),
}

impl Congestion {
    pub(super) fn new(kind: CongestionKind, mss: u32, hystart: bool, paced: bool) -> Self {
        let window = Window {
            cwnd: initial_window(mss),
            ssthresh: u32::MAX,
            mss,
        };
        Self {
            prior: (window.cwnd, window.ssthresh),
            window,
            algorithm: match kind {
                CongestionKind::NewReno => Algorithm::NewReno(NewReno::default()),
                CongestionKind::Cubic => Algorithm::Cubic(Cubic::default()),
                CongestionKind::Lia => Algorithm::Lia(Box::default()),
                CongestionKind::Olia => Algorithm::Olia(Box::default()),
                CongestionKind::Balia => Algorithm::Balia(Box::default()),
            },
            hystart: None,
            use_hystart: hystart,
            paced,
        }
    }

    pub(super) fn on_ack(&mut self, ack: &AckSample) {
        let window = &mut self.window;
        if window.in_slow_start() {
            let mut acked = ack.acked;
            if !self.paced {
                acked = acked.min(SLOW_START_SEGMENTS_PER_ACK * window.mss);
            }
            if self.use_hystart {
                match self.hystart.get_or_insert_default().on_ack(ack) {
                    hystart::Growth::Full => {}
                    hystart::Growth::Conservative => acked /= hystart::CSS_GROWTH_DIVISOR,
                    hystart::Growth::Exit => {
                        window.ssthresh = window.cwnd;
                        return;
                    }
                }
            }
            if ack.cwnd_limited {
                window.cwnd = window
                    .cwnd
                    .saturating_add(acked)
                    .min(window.ssthresh.max(window.cwnd));
            }
        } else if ack.cwnd_limited {
            dispatch!(&mut self.algorithm, c => c.on_ack(ack, window));
        } else {
            dispatch!(&mut self.algorithm, c => c.on_unused(ack.now));
        }
    }

    /// Sets `ssthresh`; the window itself is PRR's to lower.
    pub(super) fn on_congestion_event(&mut self, in_flight: u32) {
        self.prior = (self.window.cwnd, self.window.ssthresh);
        self.window.ssthresh =
            dispatch!(&mut self.algorithm, c => c.on_congestion_event(&self.window, in_flight));
    }

    /// RFC 5681 §3.1 (4): the loss window. `first` is false for a repeated timeout of the same
    /// data, which says nothing new about the path's capacity.
    pub(super) fn on_timeout(&mut self, in_flight: u32, first: bool) {
        if first {
            self.prior = (self.window.cwnd, self.window.ssthresh);
            self.window.ssthresh =
                dispatch!(&mut self.algorithm, c => c.on_timeout(&self.window, in_flight));
        }
        self.window.cwnd = self.window.mss;
    }

    /// The last event was spurious (RFC 4015 in spirit): take the window back.
    pub(super) fn undo(&mut self) {
        self.window.cwnd = self.window.cwnd.max(self.prior.0);
        self.window.ssthresh = self.window.ssthresh.max(self.prior.1);
        dispatch!(&mut self.algorithm, c => c.on_undo());
    }

    /// The window after a pause of `idle` (RFC 2861 §3.2 with RFC 5681 §4.1 as the floor): it
    /// halves per RTO down to the initial window.
    pub(super) fn window_after_idle(&self, idle: Duration, rto: Duration) -> u32 {
        let floor = initial_window(self.window.mss).min(self.window.cwnd);
        let periods = idle.as_nanos() / rto.as_nanos().max(1);
        let halvings = u32::try_from(periods).unwrap_or(u32::MAX).min(31);
        (self.window.cwnd >> halvings).max(floor)
    }

    /// Gives back what is not needed while nothing is sent: slow start that begins anew after a
    /// pause measures anew.
    pub(super) fn release_spare(&mut self) {
        self.hystart = None;
    }

    /// Applies [`Self::window_after_idle`].
    pub(super) fn restart_after_idle(&mut self, now: Instant, idle: Duration, rto: Duration) {
        let cwnd = self.window_after_idle(idle, rto);
        if cwnd < self.window.cwnd {
            // Slow start returns quickly to what was known to fit.
            let known = self.window.cwnd / 4 * 3;
            self.window.ssthresh = self.window.ssthresh.max(known);
            self.window.cwnd = cwnd;
        }
        dispatch!(&mut self.algorithm, c => c.on_unused(now));
    }

    /// The segment size changed; the window in bytes stays, but not below one segment, nor the
    /// threshold below two (RFC 5681 §3.1).
    pub(super) fn set_mss(&mut self, mss: u32) {
        self.window.mss = mss;
        self.window.cwnd = self.window.cwnd.max(mss);
        self.window.ssthresh = self.window.ssthresh.max(2 * mss);
    }

    /// Linux's factors: two windows per round trip in slow start, 1.2 afterwards. In fast
    /// recovery the window of the moment is what PRR lets go now; the rate is that of the window
    /// it leads to.
    pub(super) fn pacing_rate(&self, srtt: Duration, fast_recovery: bool) -> u64 {
        let Window { cwnd, ssthresh, .. } = self.window;
        let (window, percent) = if fast_recovery {
            (cwnd.max(ssthresh), 120)
        } else if cwnd < ssthresh / 2 {
            (cwnd, 200)
        } else {
            (cwnd, 120)
        };
        let ns = u64::try_from(srtt.as_nanos()).unwrap_or(u64::MAX).max(1000);
        let bytes = u128::from(window) * percent * 10_000_000;
        u64::try_from(bytes / u128::from(ns))
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Whether the controller makes use of [`Self::set_coupling`].
    pub(super) fn is_coupled(&self) -> bool {
        match self.algorithm {
            Algorithm::NewReno(_) | Algorithm::Cubic(_) => false,
            Algorithm::Lia(_) | Algorithm::Olia(_) | Algorithm::Balia(_) => true,
        }
    }

    pub(super) fn set_coupling(&mut self, coupling: Coupling) {
        dispatch!(&mut self.algorithm, c => c.set_coupling(coupling));
    }

    /// Bytes were cumulatively acknowledged.
    pub(super) fn on_delivered(&mut self, bytes: u32) {
        dispatch!(&mut self.algorithm, c => c.on_delivered(bytes));
    }

    pub(super) fn loss_interval(&self) -> u64 {
        dispatch!(&self.algorithm, c => c.loss_interval())
    }

    pub(super) fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::NewReno(_) => "reno",
            Algorithm::Cubic(_) => "cubic",
            Algorithm::Lia(_) => "lia",
            Algorithm::Olia(_) => "olia",
            Algorithm::Balia(_) => "balia",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn ack(acked: u32) -> AckSample {
        AckSample {
            now: Instant::ZERO,
            acked,
            rtt: None,
            srtt: Duration::from_millis(10),
            round_end: false,
            cwnd_limited: true,
        }
    }

    #[test]
    fn initial_window_is_rfc6928() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5_360);
        assert_eq!(initial_window(8960), 17_920);
    }

    #[test]
    fn slow_start_doubles_and_stops_at_ssthresh() {
        let mut c = Congestion::new(CongestionKind::NewReno, MSS, false, true);
        c.on_ack(&ack(10 * MSS));
        assert_eq!(c.window.cwnd, 20 * MSS);
        c.window.ssthresh = 21 * MSS;
        c.on_ack(&ack(10 * MSS));
        assert_eq!(c.window.cwnd, 21 * MSS);
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut c = Congestion::new(CongestionKind::Cubic, MSS, true, true);
        c.on_ack(&AckSample {
            cwnd_limited: false,
            ..ack(MSS)
        });
        assert_eq!(c.window.cwnd, 10 * MSS);
    }

    #[test]
    fn unpaced_slow_start_limits_a_stretch_ack() {
        let mut c = Congestion::new(CongestionKind::NewReno, MSS, false, false);
        c.on_ack(&ack(100 * MSS));
        assert_eq!(c.window.cwnd, 18 * MSS);
    }

    #[test]
    fn timeout_then_undo_restores_the_window() {
        let mut c = Congestion::new(CongestionKind::Cubic, MSS, false, true);
        c.window.cwnd = 100 * MSS;
        c.on_timeout(100 * MSS, true);
        assert_eq!(c.window.cwnd, MSS);
        assert_eq!(c.window.ssthresh, 70 * MSS);
        c.on_timeout(MSS, false);
        assert_eq!(c.window.ssthresh, 70 * MSS);
        c.undo();
        assert_eq!(c.window.cwnd, 100 * MSS);
    }

    #[test]
    fn idle_halves_per_rto_down_to_the_initial_window() {
        let mut c = Congestion::new(CongestionKind::NewReno, MSS, false, true);
        c.window.cwnd = 100 * MSS;
        let rto = Duration::from_millis(200);
        assert_eq!(c.window_after_idle(rto / 2, rto), 100 * MSS);
        assert_eq!(c.window_after_idle(rto * 2, rto), 25 * MSS);
        c.restart_after_idle(Instant::ZERO + rto * 100, rto * 100, rto);
        assert_eq!(c.window.cwnd, 10 * MSS);
    }

    /// A connection of one subflow, or one that fell back, is one TCP.
    #[test]
    fn without_siblings_the_coupled_are_newreno() {
        for kind in [
            CongestionKind::Lia,
            CongestionKind::Olia,
            CongestionKind::Balia,
        ] {
            let mut reno = Congestion::new(CongestionKind::NewReno, MSS, true, true);
            let mut coupled = Congestion::new(kind, MSS, true, true);
            assert!(coupled.is_coupled() && !reno.is_coupled());
            for step in 0..2000u32 {
                let siblings = coupled::Siblings::default();
                let rtt = Some(Duration::from_millis(10));
                coupled.set_coupling(Coupling { rtt, siblings });
                for c in [&mut reno, &mut coupled] {
                    c.on_delivered(step % 1500);
                    c.on_ack(&ack(step % 1500));
                    let flight = c.window.cwnd;
                    match step {
                        700 => c.on_timeout(flight, true),
                        900 => c.undo(),
                        _ if step % 300 == 299 => c.on_congestion_event(flight),
                        _ => continue,
                    }
                    c.window.cwnd = c.window.ssthresh;
                }
                let (a, b) = (&reno.window, &coupled.window);
                assert_eq!(
                    (a.cwnd, a.ssthresh),
                    (b.cwnd, b.ssthresh),
                    "{kind:?} {step}"
                );
            }
        }
    }

    /// RFC 6356 §3: slow start is not coupled.
    #[test]
    fn slow_start_is_uncoupled() {
        for kind in [
            CongestionKind::Lia,
            CongestionKind::Olia,
            CongestionKind::Balia,
        ] {
            let mut c = Congestion::new(kind, MSS, false, true);
            c.set_coupling(coupled::tests::coupling(
                10,
                &[coupled::tests::path(1000, 1, 1 << 30)],
            ));
            c.on_ack(&ack(10 * MSS));
            assert_eq!(c.window.cwnd, 20 * MSS, "{kind:?}");
        }
    }

    #[test]
    fn pacing_is_faster_in_slow_start() {
        let mut c = Congestion::new(CongestionKind::NewReno, MSS, false, true);
        let srtt = Duration::from_millis(10);
        assert_eq!(c.pacing_rate(srtt, false), 2_000_000);
        c.window.ssthresh = 10 * MSS;
        assert_eq!(c.pacing_rate(srtt, false), 1_200_000);
        c.window.cwnd = MSS;
        assert_eq!(c.pacing_rate(srtt, true), 1_200_000, "what PRR leads to");
    }
}
