//! Segments cut in two (D1 to D3; Click's SegSplit), or as often as an interface needs (D6).

use braid_dataplane::time::Instant;

use super::Toward;
use super::rule::{Exit, Rule, Way};
use super::segment::{NOP, Segment};

/// Which part keeps the options. The other has NOPs in their place, timestamps included.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Keep {
    /// The first.
    First,
    /// The second.
    Second,
    /// Both have a copy.
    Both,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Split {
    /// Bytes of the first part; 0 cuts in the middle.
    at: usize,
    keep: Keep,
    way: Way,
    mptcp_only: bool,
}

impl Split {
    /// Cuts behind byte `at` (in the middle if 0). As Click does, all options of a part
    /// vanish.
    #[must_use]
    pub fn new(at: usize, keep: Keep, way: Way) -> Self {
        Self {
            at,
            keep,
            way,
            mptcp_only: false,
        }
    }

    /// Leaves the options that the box itself understands, timestamps above all, on both.
    #[must_use]
    pub fn knowing_timestamps(self) -> Self {
        Self {
            mptcp_only: true,
            ..self
        }
    }

    fn bare(&self, s: &mut Segment) {
        if self.mptcp_only {
            s.nop_out(|_, p| p.kind == braid_dataplane::wire::mptcp::KIND);
        } else {
            s.options.fill(NOP);
        }
    }
}

impl Rule for Split {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let at = if self.at == 0 {
            s.payload.len() / 2
        } else {
            self.at
        };
        match s.split(at).filter(|_| self.way.covers(toward)) {
            Some((mut first, mut second)) => {
                match self.keep {
                    Keep::First => self.bare(&mut second),
                    Keep::Second => self.bare(&mut first),
                    Keep::Both => {}
                }
                exit.count("split");
                exit.send(toward, &first);
                exit.send(toward, &second);
            }
            None => exit.send(toward, &s),
        }
    }
}

/// Cuts what is longer than an interface's packets, as segmentation offload does: every part
/// has all options.
#[derive(Debug)]
pub struct Resegment {
    ip_len_max: usize,
    way: Way,
}

impl Resegment {
    /// For an interface whose packets have at most `ip_len_max` bytes.
    #[must_use]
    pub fn new(ip_len_max: usize, way: Way) -> Self {
        Self { ip_len_max, way }
    }
}

impl Rule for Resegment {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let headers = s.ip_len() - s.payload.len();
        let at = self.ip_len_max.saturating_sub(headers);
        let mut rest = s;
        while self.way.covers(toward)
            && let Some((first, behind)) = rest.split(at)
        {
            exit.count("segmented");
            exit.send(toward, &first);
            rest = behind;
        }
        exit.send(toward, &rest);
    }
}
