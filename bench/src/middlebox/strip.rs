//! Options taken out on the way (B1 to B3, B5 to B11, C1 to C3, C6, C7, J1 to J4, K3; Click's
//! RemoveTCPOpt).

use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::KIND as MPTCP;
use braid_dataplane::wire::tcp::Flags;

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::{EOL, Place, Segment};

/// Which options a box dislikes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// Every MPTCP option.
    Mptcp,
    /// MPTCP options of one subtype.
    Subtype(u8),
    /// Options of one kind.
    Kind(u8),
}

impl What {
    /// Whether an option is meant.
    #[must_use]
    pub fn matches(self, segment: &Segment, place: &Place) -> bool {
        match self {
            Self::Mptcp => place.kind == MPTCP,
            Self::Subtype(subtype) => segment.mptcp_subtype(place) == Some(subtype),
            Self::Kind(kind) => place.kind == kind,
        }
    }

    /// Whether a segment carries one.
    #[must_use]
    pub fn found_in(self, segment: &Segment) -> bool {
        segment.places().iter().any(|p| self.matches(segment, p))
    }
}

/// On which segments.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum When {
    /// All.
    Always,
    /// SYNs.
    Syn,
    /// SYN/ACKs.
    SynAck,
    /// The first segment behind the SYN.
    Third,
    /// All behind the SYNs.
    PastSyn,
    /// All behind the first so many segments past the SYN of a flow, both ways counted.
    After(u64),
    /// Every second segment with payload.
    EverySecondData,
    /// ACKs without payload.
    PureAck,
}

/// What is left in an option's place.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Leave {
    /// NOPs; the header keeps its length.
    Nops,
    /// An end-of-list marker and zeros to the end of the header.
    EndOfList,
    /// Nothing; the header shrinks.
    Nothing,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Strip {
    what: What,
    when: When,
    way: Way,
    leave: Leave,
    flows: Flows<Seen>,
}

#[derive(Default, Debug)]
struct Seen {
    past_syn: [u64; 2],
    data: [u64; 2],
    /// Sequence number behind the last data counted, so that a repetition is treated alike.
    third: [Option<u32>; 2],
}

impl Strip {
    /// Overwrites with NOPs.
    #[must_use]
    pub fn new(what: What, when: When, way: Way) -> Self {
        Self {
            what,
            when,
            way,
            leave: Leave::Nops,
            flows: Flows::default(),
        }
    }

    /// Leaves something else.
    #[must_use]
    pub fn leaving(self, leave: Leave) -> Self {
        Self { leave, ..self }
    }

    fn meant(&mut self, toward: Toward, s: &Segment) -> bool {
        let seen = self.flows.of(s.flow(toward));
        let dir = toward.index();
        if s.is_past_syn() {
            seen.past_syn[dir] += 1;
        }
        if !s.payload.is_empty() {
            seen.data[dir] += 1;
        }
        let total = seen.past_syn[0] + seen.past_syn[1];
        match self.when {
            When::Always => true,
            When::Syn => s.is_syn(),
            When::SynAck => s.is_syn_ack(),
            When::Third => {
                let first = seen.past_syn[dir] == 1;
                if first && s.payload.is_empty() {
                    seen.third[dir] = Some(s.seq.0);
                }
                s.is_past_syn() && s.is_pure_ack() && first && seen.third[dir] == Some(s.seq.0)
            }
            When::PastSyn => s.is_past_syn(),
            When::After(n) => s.is_past_syn() && total > n,
            When::EverySecondData => !s.payload.is_empty() && seen.data[dir].is_multiple_of(2),
            When::PureAck => s.is_pure_ack() && s.flags.contains(Flags::ACK),
        }
    }
}

impl Rule for Strip {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if self.meant(toward, &s) && self.way.covers(toward) {
            let what = self.what;
            let removed = match self.leave {
                Leave::Nops => s.nop_out(|s, p| what.matches(s, p)),
                Leave::Nothing => s.cut_out(|s, p| what.matches(s, p)),
                Leave::EndOfList => {
                    let first = (s.places().into_iter()).find(|p| what.matches(&s, p));
                    if let Some(place) = &first {
                        s.options[place.range.start..].fill(EOL);
                    }
                    usize::from(first.is_some())
                }
            };
            exit.add("options removed", removed as u64);
        }
        exit.send(toward, &s);
    }
}
