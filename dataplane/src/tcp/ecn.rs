//! Explicit Congestion Notification (RFC 3168): who agreed to it, what is echoed, and when a
//! reduction is announced.
//!
//! The two directions are apart: a side that once sent a SYN without ECN still has to echo marks
//! if the peer may have seen one with it, but sends no ECT itself (RFC 3168 §6.1.1).
//!
//! Invariants:
//! - ECT is set on new data only: not on SYNs, pure ACKs, retransmissions or window probes
//!   (RFC 3168 §6.1.1, §6.1.4 to §6.1.6).
//! - The window is lowered at most once per round trip: no echo counts before data sent after
//!   the last reduction, and the CWR with it, is acknowledged.

use serde::{Deserialize, Serialize};

use crate::wire::tcp::{Flags, SeqNumber};

/// ECT(0), the codepoint of a sender that treats marks like losses (RFC 3168 §5).
const ECT_0: u8 = 0b10;

/// Whether a connection uses ECN. The names and the default follow Linux's `tcp_ecn` (0, 2, 1):
/// answering costs nothing, for the peer's SYN has already passed every box on the path; asking
/// meets the rare box that drops such a SYN, which costs a second.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EcnPolicy {
    /// Neither asked for nor agreed to.
    Off,
    /// Agreed to when the peer asks.
    #[default]
    Passive,
    /// Also asked for, in the first SYN of each subflow.
    Always,
}

/// How a data segment is to be marked.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct DataMarks {
    /// ECN field of the IP header.
    pub ecn: u8,
    /// CWR, if the segment is to carry it.
    pub flags: Flags,
}

/// ECN of one connection.
#[derive(Clone, Debug)]
pub(super) struct Ecn {
    policy: EcnPolicy,
    /// A SYN with ECE and CWR left.
    asked: bool,
    /// A SYN without them left.
    sent_plain: bool,
    /// Marks of the peer's segments are echoed.
    receives: bool,
    /// Our data is ECT, and echoes are obeyed.
    sends: bool,
    /// ECE goes with every ACK until the peer says CWR.
    echoing: bool,
    /// The window was lowered; the next new data says so.
    cwr_due: bool,
    /// First byte of the data that said so last.
    cwr_sent: SeqNumber,
}

impl Ecn {
    pub(super) fn new(policy: EcnPolicy, iss: SeqNumber) -> Self {
        Self {
            policy,
            asked: false,
            sent_plain: false,
            receives: false,
            sends: false,
            echoing: false,
            cwr_due: false,
            cwr_sent: iss,
        }
    }

    // ---- handshake (RFC 3168 §6.1.1) ----

    /// Flags of a SYN that leaves. A box may have dropped the first one because it asked, so the
    /// next ones do not (RFC 3168 §6.1.1.1).
    pub(super) fn syn_flags(&mut self, attempt: u8) -> Flags {
        if self.policy == EcnPolicy::Always && attempt == 0 {
            self.asked = true;
            Flags::ECE | Flags::CWR
        } else {
            self.sent_plain = true;
            Flags::default()
        }
    }

    /// Does not ask: a SYN that did was refused (RFC 3168 §6.1.1.1). True if it would have.
    pub(super) fn forgo(&mut self) -> bool {
        let asks = self.policy == EcnPolicy::Always;
        if asks {
            self.policy = EcnPolicy::Passive;
        }
        asks
    }

    /// A question that went unanswered is not repeated.
    pub(super) fn gave_up_asking(&self) -> bool {
        self.asked && self.sent_plain
    }

    /// Flags of a SYN/ACK that leaves.
    pub(super) fn syn_ack_flags(&self) -> Flags {
        if self.receives {
            Flags::ECE
        } else {
            Flags::default()
        }
    }

    /// A SYN arrived, for the first time or again: one without ECN takes back what an earlier
    /// one asked for.
    pub(super) fn on_syn(&mut self, flags: Flags) {
        let asks = flags.contains(Flags::ECE | Flags::CWR);
        let willing = self.policy != EcnPolicy::Off && !self.sent_plain;
        self.receives = asks && willing;
        self.sends = self.receives;
    }

    /// The answer to our SYN. A box that mirrors reserved bits sets both flags, which is no
    /// agreement (RFC 3168 §6.1.1).
    pub(super) fn on_syn_ack(&mut self, flags: Flags) {
        let agrees = flags.contains(Flags::ECE) && !flags.contains(Flags::CWR);
        self.receives = self.asked && agrees;
        self.sends = self.receives && !self.sent_plain;
    }

    /// Both directions agreed.
    pub(super) fn is_on(&self) -> bool {
        self.sends
    }

    // ---- receiver (RFC 3168 §6.1.3) ----

    /// Acceptable data arrived. True if the peer should hear of it at once: its window may be
    /// so small that it would wait for a delayed ACK.
    pub(super) fn on_data(&mut self, flags: Flags, ce: bool) -> bool {
        if !self.receives {
            return false;
        }
        let before = self.echoing;
        let told = flags.contains(Flags::CWR);
        // In this order: a mark on the segment that carries CWR is new congestion.
        self.echoing = (self.echoing && !told) || ce;
        told || (ce && !before)
    }

    /// ECE, for an ACK that leaves.
    pub(super) fn ack_flags(&self) -> Flags {
        if self.echoing {
            Flags::ECE
        } else {
            Flags::default()
        }
    }

    // ---- sender (RFC 3168 §6.1.2) ----

    /// This segment echoes a mark on our data.
    pub(super) fn is_echo(&self, flags: Flags) -> bool {
        self.sends && flags.contains(Flags::ECE)
    }

    /// Whether an echo with SND.UNA at `una` is news. Before the peer has the CWR it repeats
    /// itself.
    pub(super) fn is_news(&self, una: SeqNumber) -> bool {
        !self.cwr_due && una > self.cwr_sent
    }

    /// The window was lowered, for whatever reason.
    pub(super) fn reduced(&mut self) {
        self.cwr_due = self.sends;
    }

    /// Marks of new data.
    pub(super) fn marks(&self) -> DataMarks {
        if !self.sends {
            return DataMarks::default();
        }
        DataMarks {
            ecn: ECT_0,
            flags: if self.cwr_due {
                Flags::CWR
            } else {
                Flags::default()
            },
        }
    }

    /// New data left, from `seq` on.
    pub(super) fn data_sent(&mut self, seq: SeqNumber) {
        if self.cwr_due {
            self.cwr_due = false;
            self.cwr_sent = seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Flags = Flags::ECE.with(Flags::CWR);
    const ISS: SeqNumber = SeqNumber(100);

    fn ecn(policy: EcnPolicy) -> Ecn {
        Ecn::new(policy, ISS)
    }

    fn agreed() -> Ecn {
        let mut ecn = ecn(EcnPolicy::Passive);
        ecn.on_syn(Flags::SYN | ASK);
        assert!(ecn.is_on());
        ecn
    }

    #[test]
    fn only_always_asks_and_only_once() {
        for policy in [EcnPolicy::Off, EcnPolicy::Passive] {
            assert_eq!(ecn(policy).syn_flags(0), Flags::default());
        }
        let mut ecn = ecn(EcnPolicy::Always);
        assert_eq!(ecn.syn_flags(0), ASK);
        assert!(!ecn.gave_up_asking());
        assert_eq!(ecn.syn_flags(1), Flags::default());
        assert!(ecn.gave_up_asking());
    }

    #[test]
    fn a_late_answer_to_the_question_is_obeyed_but_not_used() {
        let mut ecn = ecn(EcnPolicy::Always);
        ecn.syn_flags(0);
        ecn.syn_flags(1);
        ecn.on_syn_ack(Flags::SYN | Flags::ACK | Flags::ECE);
        assert!(!ecn.is_on());
        assert_eq!(ecn.marks(), DataMarks::default());
        assert!(ecn.on_data(Flags::ACK, true), "the peer may send ECT");
        assert_eq!(ecn.ack_flags(), Flags::ECE);
    }

    #[test]
    fn a_mirrored_question_is_no_answer() {
        let mut ecn = ecn(EcnPolicy::Always);
        ecn.syn_flags(0);
        ecn.on_syn_ack(Flags::SYN | Flags::ACK | ASK);
        assert!(!ecn.is_on() && !ecn.on_data(Flags::ACK, true));
    }

    #[test]
    fn an_unasked_answer_means_nothing() {
        let mut ecn = ecn(EcnPolicy::Passive);
        ecn.syn_flags(0);
        ecn.on_syn_ack(Flags::SYN | Flags::ACK | Flags::ECE);
        assert!(!ecn.is_on() && !ecn.on_data(Flags::ACK, true));
    }

    #[test]
    fn a_repeated_syn_without_ecn_takes_the_question_back() {
        let mut ecn = agreed();
        assert_eq!(ecn.syn_ack_flags(), Flags::ECE);
        ecn.on_syn(Flags::SYN);
        assert!(!ecn.is_on());
        assert_eq!(ecn.syn_ack_flags(), Flags::default());
        let mut off = super::Ecn::new(EcnPolicy::Off, ISS);
        off.on_syn(Flags::SYN | ASK);
        assert!(!off.is_on());
    }

    #[test]
    fn marks_are_echoed_until_the_peer_has_reduced() {
        let mut ecn = agreed();
        assert!(!ecn.on_data(Flags::ACK, false));
        assert!(ecn.on_data(Flags::ACK, true), "told at once");
        assert!(!ecn.on_data(Flags::ACK, true), "known");
        assert!(!ecn.on_data(Flags::ACK, false));
        assert_eq!(ecn.ack_flags(), Flags::ECE);
        assert!(ecn.on_data(Flags::ACK | Flags::CWR, false));
        assert_eq!(ecn.ack_flags(), Flags::default());
        ecn.on_data(Flags::ACK | Flags::CWR, true);
        assert_eq!(ecn.ack_flags(), Flags::ECE, "marked again");
    }

    #[test]
    fn echoes_count_again_once_the_cwr_is_acknowledged() {
        let mut ecn = agreed();
        assert!(ecn.is_echo(Flags::ACK | Flags::ECE) && ecn.is_news(ISS + 1));
        ecn.reduced();
        assert!(!ecn.is_news(ISS + 5000), "nothing new was sent");
        assert_eq!(ecn.marks().flags, Flags::CWR);
        ecn.data_sent(ISS + 2000);
        assert_eq!(ecn.marks().flags, Flags::default());
        assert!(!ecn.is_news(ISS + 2000), "everything before the CWR");
        assert!(ecn.is_news(ISS + 2001));
    }
}
