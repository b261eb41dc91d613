//! Fast Open on an MPTCP connection (RFC 8684 Appendix B).
//!
//! Data that the server took with the SYN lies outside the data sequence space: neither stream
//! offsets nor subflow sequence numbers count it; the byte behind it is IDSN + 1 with SSN 1
//! (Appendix B.2 and Figure 19, and Linux). So it is handed to the application directly, and
//! nothing else of this module knows about it. What the server did not take is ordinary data.
//!
//! Options (Appendix B.1): a SYN with MSS, SACK, timestamps, window scale, MP_CAPABLE and a
//! cookie of up to 14 bytes fits 40 bytes; longer cookies go without timestamps. A SYN/ACK that
//! carries keys and gives a cookie has no room for timestamps: that connection does without.
//! Version 0, whose SYN carries a key already, goes without Fast Open.

use super::api::Cx;
use super::state::Core;
use super::subflow::Phase;
use crate::buf::Chain;
use crate::checksum::{Sum, copy_and_sum};
use crate::counters::Counter;
use crate::lazy::Empty;
use crate::tcp::FastOpenLesson;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp::OPTIONS_MAX;
use crate::wire::tcp_options::FastOpenCookie;

/// What the engine found in a SYN that asks for Fast Open.
#[derive(Debug, Default)]
pub struct FastOpenSyn {
    /// Its data; empty unless the cookie is valid.
    pub data: Chain,
    /// The cookie to answer with.
    pub grant: Option<FastOpenCookie>,
}

/// Fast Open of one connection.
#[derive(Debug, Default)]
pub(crate) struct FastOpen {
    /// Client: cookie, or the question for one, that goes with the first SYN, and how much data
    /// may.
    offer: Option<(FastOpenCookie, usize)>,
    /// Server: the cookie that goes with the SYN/ACK.
    grant: Option<FastOpenCookie>,
    /// Client: data of the SYN; behind the handshake what is left of it to be sent again.
    data: Vec<u8>,
    /// The first SYN has left.
    sent: bool,
    /// ... with an option or data for the server to see.
    visible: bool,
    /// Bytes of `data`'s front that are dealt with.
    done: usize,
}

impl Empty for FastOpen {
    const EMPTY: &'static Self = &Self {
        offer: None,
        grant: None,
        data: Vec::new(),
        sent: false,
        visible: false,
        done: 0,
    };
}

impl FastOpen {
    /// Bytes of the SYN that the server did not take and that were not sent again.
    pub(crate) fn has_leftover(&self) -> bool {
        self.done < self.data.len()
    }

    /// Hands out what is left of the SYN's data before anything new.
    pub(crate) fn refill(&mut self, out: &mut [u8]) -> (usize, Sum) {
        let left = &self.data[self.done..];
        let n = left.len().min(out.len());
        let sum = copy_and_sum(&mut out[..n], &left[..n]);
        self.done += n;
        if self.done == self.data.len() {
            (self.data, self.done) = (Vec::new(), 0);
        }
        (n, sum)
    }
}

impl Core {
    /// Client: offers Fast Open in the first SYN.
    pub(crate) fn offer_fast_open(&mut self, cookie: FastOpenCookie, mss: u16) {
        let Some(s) = self.subflows.first() else {
            return;
        };
        if self.is_mptcp() && self.version.has_key_on_syn() {
            return;
        }
        let room = if cookie.is_request() {
            0
        } else {
            // Full options now or later: what is left over must fit a data segment.
            let own = u16::try_from(s.tcp.mss()).unwrap_or(u16::MAX);
            usize::from(mss.min(own)).saturating_sub(OPTIONS_MAX)
        };
        self.fast_open.offer = Some((cookie, room));
    }

    /// Bytes that the SYN, which has not left, may take from the application.
    pub(crate) fn syn_room(&self) -> Option<usize> {
        let (_, room) = self.fast_open.offer?;
        let open = room > 0 && !self.fast_open.sent && self.fast_open.data.is_empty();
        open.then_some(room)
    }

    /// The application's bytes for the SYN.
    pub(crate) fn set_syn_data(&mut self, data: Vec<u8>) {
        self.fast_open.data = data;
    }

    /// Server: the SYN's data is received, and may be answered at once if that costs nothing.
    pub(crate) fn take_fast_open(&mut self, cx: &mut Cx<'_>, syn: FastOpenSyn) {
        if syn.grant.is_some() {
            self.fast_open.grant = syn.grant;
        }
        let Some(s) = self.subflows.first_mut() else {
            return;
        };
        if self.local.is_none() {
            s.dss_room = 0;
        }
        if !syn.data.is_empty() {
            cx.counters.inc(Counter::TCPFastOpenPassive);
            cx.counters
                .add(Counter::BytesDelivered, syn.data.len() as u64);
            if self.local.is_none() || cx.config.early_answers {
                s.tcp.allow_early_answers();
                self.snd_edge = u64::from(s.tcp.snd_wnd());
            }
            self.rx.push(syn.data);
            self.rx_news = true;
        }
    }

    /// The server may send although the handshake is not complete.
    pub(crate) fn answers_early(&self) -> bool {
        self.subflows
            .first()
            .is_some_and(|s| s.phase == Phase::CapableAccepted && s.tcp.may_answer_early())
    }

    /// The option for a SYN or SYN/ACK of subflow `i`.
    pub(crate) fn fast_open_option(&self, i: usize, attempt: u8) -> Option<FastOpenCookie> {
        match self.subflows[i].phase {
            // Only the first: whatever swallowed it may have disliked this.
            Phase::CapableSyn if attempt == 0 && !self.fast_open.sent => {
                let (cookie, _) = self.fast_open.offer?;
                (cookie.is_request() || !self.fast_open.data.is_empty()).then_some(cookie)
            }
            Phase::CapableAccepted => self.fast_open.grant,
            _ => None,
        }
    }

    /// Data for a SYN of subflow `i`.
    pub(crate) fn syn_data(&self, i: usize, attempt: u8) -> &[u8] {
        let first = attempt == 0 && !self.fast_open.sent;
        if first && self.subflows[i].phase == Phase::CapableSyn {
            &self.fast_open.data
        } else {
            &[]
        }
    }

    /// The first SYN left.
    pub(crate) fn first_syn_sent(&mut self, cx: &mut Cx<'_>, i: usize) {
        let asked = self.fast_open.written().is_some();
        if !asked || self.fast_open.sent || self.subflows[i].phase != Phase::CapableSyn {
            return;
        }
        self.fast_open.visible = self.fast_open_option(i, 0).is_some();
        self.fast_open.sent = true;
        let bytes = u32::try_from(self.fast_open.data.len()).unwrap_or(u32::MAX);
        self.subflows[i].tcp.syn_data_sent(bytes);
        if self.fast_open.offer.is_some_and(|(c, _)| c.is_request()) {
            cx.counters.inc(Counter::TCPFastOpenCookieReqd);
        }
    }

    /// The server answered: what it took is done with, the rest comes again.
    pub(crate) fn settle_fast_open(&mut self, cx: &mut Cx<'_>, i: usize, packet: &TcpPacket) {
        if self.fast_open.written().is_none() {
            return;
        }
        let s = &self.subflows[i];
        let lost = self.fast_open.visible && s.tcp.handshake_attempts() > 0;
        let acked = usize::try_from(s.tcp.syn_data_acked()).unwrap_or(usize::MAX);
        let sent = self.fast_open.data.len();
        self.fast_open.done = acked.min(sent);
        // The rest is taken once more.
        cx.counters.add(Counter::BytesTaken, acked as u64);
        if sent > 0 {
            cx.counters.inc(if acked == sent {
                Counter::TCPFastOpenActive
            } else {
                Counter::TCPFastOpenActiveFail
            });
        }
        if !self.fast_open.has_leftover() {
            (self.fast_open.data, self.fast_open.done) = (Vec::new(), 0);
        }
        if self.fast_open.offer.is_some() {
            cx.actions.fast_open = Some(FastOpenLesson {
                server: s.tuple().remote.ip(),
                cookie: packet.options.fast_open.filter(|c| !c.is_request()),
                mss: packet.options.mss.unwrap_or(536),
                lost,
            });
        }
    }
}
