//! Segments nobody sent (I1, I2, I5).

use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::KIND as MPTCP;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use super::Toward;
use super::rule::{Exit, Flows, Rule, Way};
use super::segment::Segment;

/// I1, I2: after so many packets of a flow its ends are told, in each other's name, that
/// the connection is over.
#[derive(Debug)]
pub struct Reset {
    after: u64,
    way: Way,
    flows: Flows<Seen>,
}

#[derive(Default, Debug)]
struct Seen {
    packets: u64,
    /// Behind all that went each way: where the next byte is expected.
    end: [Option<SeqNumber>; 2],
    done: bool,
}

impl Reset {
    /// Resets the ends that `way` leads to, `after` so many packets.
    #[must_use]
    pub fn new(after: u64, way: Way) -> Self {
        Self {
            after,
            way,
            flows: Flows::default(),
        }
    }
}

impl Rule for Reset {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let seen = self.flows.of(s.flow(toward));
        seen.packets += 1;
        let end = &mut seen.end[toward.index()];
        *end = Some(end.map_or(s.end(), |end| end.later(s.end())));
        exit.send(toward, &s);
        if seen.done || seen.packets <= self.after || s.flags.intersects(Flags::SYN | Flags::RST) {
            return;
        }
        seen.done = true;
        let (ours, theirs) = (seen.end[toward.index()], seen.end[toward.back().index()]);
        if self.way.covers(toward)
            && let Some(seq) = ours
        {
            exit.count("RST injected");
            exit.send(toward, &s.bare(seq, s.ack, Flags::RST | Flags::ACK));
        }
        if self.way.covers(toward.back())
            && let Some(seq) = theirs
        {
            exit.count("RST injected");
            let rst = s.reply(seq, s.end(), Flags::RST | Flags::ACK);
            exit.send(toward.back(), &rst);
        }
    }
}

/// What an attacker off the path sends who has guessed the four-tuple and nothing else.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Blind {
    /// RST outside the window.
    Rst,
    /// RST inside the window, but not at its left edge (RFC 5961 §3.2).
    RstInWindow,
    /// SYN on an established flow (RFC 5961 §4.2).
    Syn,
    /// Data that acknowledges what was never sent (RFC 5961 §5.2).
    Data,
    /// ADD_ADDR with a made-up HMAC.
    AddAddr,
    /// MP_FASTCLOSE with a made-up key.
    FastClose,
}

/// I5: injects such a segment behind every `every`th.
#[derive(Debug)]
pub struct Inject {
    what: Blind,
    every: u64,
    packets: Flows<u64>,
}

impl Inject {
    /// See the type.
    #[must_use]
    pub fn new(what: Blind, every: u64) -> Self {
        Self {
            what,
            every: every.max(1),
            packets: Flows::default(),
        }
    }

    fn forge(&self, s: &Segment) -> Segment {
        // Far outside any window, and far from what was ever sent.
        const FAR: u32 = 1 << 30;
        let mut forged = match self.what {
            Blind::Rst => s.bare(s.seq + FAR, s.ack, Flags::RST),
            Blind::RstInWindow => s.bare(s.end() + 1, s.ack, Flags::RST),
            Blind::Syn => s.bare(s.seq + FAR, s.ack, Flags::SYN),
            Blind::Data => {
                let mut data = s.bare(s.end(), s.ack + FAR, Flags::ACK);
                data.options.clone_from(&s.options);
                data.nop_out(|_, p| p.kind == MPTCP);
                data.payload = b"forged forged forged".to_vec();
                data
            }
            Blind::AddAddr | Blind::FastClose => {
                let mut ack = s.bare(s.end(), s.ack, Flags::ACK);
                ack.options.clone_from(&s.options);
                ack.cut_out(|_, p| p.kind == MPTCP);
                ack
            }
        };
        match self.what {
            Blind::AddAddr => {
                let mut option = vec![MPTCP, 16, 0x30, 99, 203, 0, 113, 7];
                option.extend_from_slice(&[0xa5; 8]);
                forged.append_option(&option);
            }
            Blind::FastClose => {
                let mut option = vec![MPTCP, 12, 0x70, 0];
                option.extend_from_slice(&[0xa5; 8]);
                forged.append_option(&option);
            }
            _ => {}
        }
        forged
    }
}

impl Rule for Inject {
    fn apply(&mut self, _: Instant, toward: Toward, s: Segment, exit: &mut Exit<'_>) {
        let packets = self.packets.of(s.flow(toward));
        *packets += 1;
        let due = packets.is_multiple_of(self.every);
        exit.send(toward, &s);
        if due && s.is_past_syn() && !s.flags.intersects(Flags::RST | Flags::FIN) {
            exit.count("injected");
            exit.send(toward, &self.forge(&s));
        }
    }
}
