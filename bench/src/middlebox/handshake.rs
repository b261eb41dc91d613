//! What boxes do to handshakes (B4, B12 to B19, C4, C5, C8).

use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::{KIND as MPTCP, subtype};

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::Segment;
use super::strip::What;

/// Which segments [`Swallow`] takes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Victim {
    /// B12: SYNs with such an option.
    SynWith(What),
    /// B13: SYN/ACKs with such an option.
    SynAckWith(What),
    /// B15: segments behind the SYNs with such an option.
    PastSynWith(What),
    /// B4: the first segment behind a flow's SYN, if it has no payload.
    FirstBareAck,
    /// C8: every SYN.
    Syn,
    /// K1: SYNs with payload.
    SynWithPayload,
}

/// Swallows segments.
#[derive(Debug)]
pub struct Swallow {
    victim: Victim,
    way: Way,
    past_syn: Flows<[u64; 2]>,
}

impl Swallow {
    /// A box that swallows these.
    #[must_use]
    pub fn new(victim: Victim, way: Way) -> Self {
        Self {
            victim,
            way,
            past_syn: Flows::default(),
        }
    }
}

impl Rule for Swallow {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let past_syn = &mut self.past_syn.of(s.flow(toward))[toward.index()];
        *past_syn += u64::from(s.is_past_syn());
        let hit = match self.victim {
            Victim::SynWith(what) => s.is_syn() && what.found_in(&s),
            Victim::SynAckWith(what) => s.is_syn_ack() && what.found_in(&s),
            Victim::PastSynWith(what) => s.is_past_syn() && what.found_in(&s),
            Victim::FirstBareAck => s.is_past_syn() && *past_syn == 1 && s.is_pure_ack(),
            Victim::Syn => s.is_syn(),
            Victim::SynWithPayload => s.is_syn() && !s.payload.is_empty(),
        };
        if hit && self.way.covers(toward) {
            exit.count("dropped");
        } else {
            exit.send(toward, &s);
        }
    }
}

/// B14, L2: answers SYNs with such an option by RST.
#[derive(Debug)]
pub struct Refuse {
    what: What,
}

impl Refuse {
    /// A box that refuses these.
    #[must_use]
    pub fn new(what: What) -> Self {
        Self { what }
    }
}

impl Rule for Refuse {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        if s.is_syn() && self.what.found_in(&s) {
            exit.count("refused");
            exit.send(toward.back(), &s.refusal());
        } else {
            exit.send(toward, &s);
        }
    }
}

/// B16: the SYN's MP_CAPABLE comes back in the SYN/ACK; the server never sees it.
#[derive(Default, Debug)]
pub struct Mirror {
    option: Flows<Option<Vec<u8>>>,
}

impl Rule for Mirror {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        let kept = self.option.of(s.flow(toward));
        if s.is_syn() && toward == Toward::Server {
            *kept = s.option(MPTCP).map(<[u8]>::to_vec);
            s.nop_out(|_, p| p.kind == MPTCP);
        } else if s.is_syn_ack()
            && let Some(option) = kept
        {
            s.nop_out(|_, p| p.kind == MPTCP);
            if s.append_option(option) {
                exit.count("mirrored");
            }
        }
        exit.send(toward, &s);
    }
}

/// Which bytes of a handshake [`Alter`] changes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Field {
    /// B17: the version of the SYN's MP_CAPABLE becomes 0.
    Version,
    /// B18: the server's key in its SYN/ACK.
    ServerKey,
    /// B19: the client's key behind the SYN.
    ClientKey,
    /// The server's key as the client repeats it.
    EchoedKey,
    /// C4: the HMAC in the third ACK of a join.
    JoinHmac,
    /// The truncated HMAC in the SYN/ACK of a join.
    JoinSynAckHmac,
    /// The token of a join.
    JoinToken,
}

/// Changes one field of a handshake.
#[derive(Debug)]
pub struct Alter {
    field: Field,
}

impl Alter {
    /// A box that changes this.
    #[must_use]
    pub fn new(field: Field) -> Self {
        Self { field }
    }

    fn change(&self, s: &mut Segment) -> bool {
        // Option offsets: RFC 8684 figures 4 to 8.
        let (fits, kind, at, mask) = match self.field {
            Field::Version => (s.is_syn(), subtype::MP_CAPABLE, 2, 0x01),
            Field::ServerKey => (s.is_syn_ack(), subtype::MP_CAPABLE, 4, 0x04),
            Field::ClientKey => (s.is_past_syn(), subtype::MP_CAPABLE, 4, 0x04),
            Field::EchoedKey => (s.is_past_syn(), subtype::MP_CAPABLE, 12, 0x04),
            Field::JoinHmac => (s.is_past_syn(), subtype::MP_JOIN, 4, 0x04),
            Field::JoinSynAckHmac => (s.is_syn_ack(), subtype::MP_JOIN, 4, 0x04),
            Field::JoinToken => (s.is_syn(), subtype::MP_JOIN, 4, 0x04),
        };
        if fits
            && let Some(option) = s.mptcp_mut(kind)
            && let Some(byte) = option.get_mut(at)
        {
            *byte ^= mask;
            return true;
        }
        false
    }
}

impl Rule for Alter {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if self.change(&mut s) {
            exit.count("altered");
        }
        exit.send(toward, &s);
    }
}
