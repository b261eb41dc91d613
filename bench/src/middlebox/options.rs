//! TCP header fields and options rewritten, none of them MPTCP's (J5, J6, J9; Click's
//! ChangeMSS).

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::Flags;

use super::Toward;
use super::rule::{Exit, Rule, Way};
use super::segment::{MSS, NOP, Segment};

/// What happens to the MSS option of SYNs.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MssChange {
    /// J5: at most this.
    AtMost(u16),
    /// Click's ChangeMSS(DELTA).
    Add(i32),
    /// Click's ChangeMSS(DIV).
    Divide(u16),
}

/// Rewrites the MSS option.
#[derive(Debug)]
pub struct Mss {
    change: MssChange,
    way: Way,
}

impl Mss {
    /// A box that makes this change to SYNs and SYN/ACKs.
    #[must_use]
    pub fn new(change: MssChange, way: Way) -> Self {
        Self { change, way }
    }
}

impl Rule for Mss {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let change = self.change;
        if self.way.covers(toward)
            && !s.is_past_syn()
            && let Some(&mut [_, 4, ref mut high, ref mut low]) = s.option_mut(MSS)
        {
            let old = u16::from_be_bytes([*high, *low]);
            let new = match change {
                MssChange::AtMost(max) => old.min(max),
                MssChange::Add(n) => u16::try_from(i32::from(old) + n).unwrap_or(old),
                MssChange::Divide(n) => old / n.max(1),
            };
            [*high, *low] = new.to_be_bytes();
            if new != old {
                exit.count("MSS changed");
            }
        }
        exit.send(toward, &s);
    }
}

/// J6: URG and the urgent pointer are cleared.
#[derive(Default, Debug)]
pub struct ClearUrgent;

impl Rule for ClearUrgent {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if s.flags.contains(Flags::URG) {
            s.flags = s.flags.without(Flags::URG);
            s.urgent = 0;
            exit.count("URG cleared");
        }
        exit.send(toward, &s);
    }
}

/// J6's opposite: URG appears on every `every`th segment with payload.
#[derive(Debug)]
pub struct SetUrgent {
    every: u64,
    seen: u64,
}

impl SetUrgent {
    /// See the type.
    #[must_use]
    pub fn new(every: u64) -> Self {
        Self {
            every: every.max(1),
            seen: 0,
        }
    }
}

impl Rule for SetUrgent {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if !s.payload.is_empty() && s.is_past_syn() {
            self.seen += 1;
            if self.seen.is_multiple_of(self.every) {
                s.flags |= Flags::URG;
                s.urgent = 1;
                exit.count("URG set");
            }
        }
        exit.send(toward, &s);
    }
}

/// J9: reserved bits are cleared, options come in the reverse order, and all padding is
/// behind them.
#[derive(Default, Debug)]
pub struct Tidy;

impl Rule for Tidy {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        s.reserved = 0;
        let places = s.places();
        let len = s.options.len();
        let mut options = Vec::with_capacity(len);
        for place in places.iter().rev() {
            options.extend_from_slice(&s.options[place.range.clone()]);
        }
        options.resize(len, NOP);
        if options != s.options {
            exit.count("options reordered");
            s.options = options;
        }
        exit.send(toward, &s);
    }
}
