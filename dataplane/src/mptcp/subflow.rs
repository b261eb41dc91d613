//! One subflow: TCP plus what MPTCP remembers about it.

use std::collections::VecDeque;
use std::ops::Range;

use super::api::{SubflowId, SubflowPath};
use super::dsn::expand32;
use super::fallback::Fail;
use super::info::Totals;
use super::mapping::RxMappings;
use super::options::{DSS_BYTES, TIMESTAMPS_BYTES};
use super::sendqueue::{Chunk, SendQueue};
use crate::lazy::{Empty, Lazy};
use crate::offload::header::HeaderTemplate;
use crate::tcp::{MapRef, State, Tcp};
use crate::time::{Duration, Instant};
use crate::wire::ethernet::EthernetAddress;
use crate::wire::mptcp::MptcpOption;
use crate::wire::tcp::SeqNumber;
use crate::wire::types::{AddressId, FourTuple};

/// How far the MPTCP handshake of a subflow is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// SYN (MP_CAPABLE or plain) sent.
    CapableSyn,
    /// SYN received, SYN/ACK on its way; the third packet decides.
    CapableAccepted,
    /// MP_JOIN SYN sent.
    JoinSyn,
    /// MP_JOIN SYN received; the third packet has to prove the key.
    JoinAccepted,
    /// Our MP_JOIN ACK is not acknowledged: no data yet (RFC 8684 §3.2).
    PreEstablished,
    /// Carries data.
    Established,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::CapableSyn => "mpc_syn_sent",
            Phase::CapableAccepted => "mpc_syn_received",
            Phase::JoinSyn => "join_syn_sent",
            Phase::JoinAccepted => "join_syn_received",
            Phase::PreEstablished => "pre_established",
            Phase::Established => "established",
        }
    }
}

/// A transmission that the subflow has not been acknowledged for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Sent {
    /// Stream offset.
    pub(crate) off: u64,
    /// Bytes.
    pub(crate) len: u32,
}

/// Filled, mapped, not yet taken by the port. Everything under one mapping stays on its
/// subflow: the mapping was declared with the first segment.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Burst {
    /// First offset under the mapping.
    pub(crate) start: u64,
    /// Next offset to send.
    pub(crate) next: u64,
    /// End of the burst.
    pub(crate) end: u64,
    /// The mapping of all its segments.
    pub(crate) map: MapRef,
}

/// Options to send on pure ACKs of their own. Bounded: a full list drops the newest, which
/// is counted by who tried.
const SIGNALS_MAX: usize = 16;

/// Duplicate ACKs in a row that only carry signals (RFC 8684 §3: no more than two, lest they
/// look like loss).
const SIGNALS_IN_A_ROW: u8 = 2;
/// Pause after them, if nothing else leaves or arrives; more where a round trip is longer.
const SIGNAL_PAUSE: Duration = Duration::from_millis(10);

/// Keeps signals from looking like duplicate ACKs of lost data (row 2).
#[derive(Copy, Clone, Default, Debug)]
pub(crate) struct SignalPace {
    /// SND.NXT and RCV.NXT of the last one: an ACK with other numbers is no duplicate.
    point: (SeqNumber, SeqNumber),
    row: u8,
    until: Option<Instant>,
}

/// Signals that wait, and how the last ones left.
#[derive(Default, Debug)]
pub(crate) struct Signals {
    queue: VecDeque<MptcpOption>,
    pace: SignalPace,
}

impl Empty for Signals {
    const EMPTY: &'static Self = &Self {
        queue: VecDeque::new(),
        pace: SignalPace {
            point: (SeqNumber(0), SeqNumber(0)),
            row: 0,
            until: None,
        },
    };
}

impl Lazy<Signals> {
    /// Takes those back that are not (or no longer) to be said.
    pub(crate) fn retain(&mut self, keep: impl Fn(&MptcpOption) -> bool) {
        if let Some(signals) = self.written() {
            signals.queue.retain(keep);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.retain(|_| false);
    }

    pub(crate) fn pop_front(&mut self) -> Option<MptcpOption> {
        self.written()?.queue.pop_front()
    }
}

/// A subflow whose address the peer withdrew (RFC 8684 §3.4.2). What was on its way proves
/// nothing, so only what arrives in the second half counts, after a second probe.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Withdrawn {
    /// When the second probe leaves; `None` once it has.
    pub(crate) probe_at: Option<Instant>,
    /// When it is decided.
    pub(crate) decided_at: Instant,
    /// Something arrived after the second probe.
    pub(crate) answered: bool,
}

/// Why and how a subflow ended.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Death {
    /// In words.
    pub(crate) error: &'static str,
    /// MP_TCPRST reason, sent or received.
    pub(crate) reset_reason: Option<u8>,
    /// The peer's MP_TCPRST said that the condition passes (flag T), or that it does not.
    pub(crate) transient: Option<bool>,
}

/// A subflow of a connection.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(crate) id: SubflowId,
    pub(crate) path: SubflowPath,
    pub(crate) template: HeaderTemplate,
    pub(crate) tcp: Tcp,
    pub(crate) phase: Phase,
    /// The first subflow of the connection.
    pub(crate) initial: bool,
    /// Own nonce of a join.
    pub(crate) nonce_local: u32,
    /// The peer's nonce of a join.
    pub(crate) nonce_remote: u32,
    /// Next repetition of the MP_JOIN ACK, and how many there were.
    pub(crate) join_ack: Option<(Instant, u8)>,
    /// A FIN without a word of MPTCP arrived where there may have been no room for one.
    pub(crate) fin_held: bool,
    /// Repetitions of the SYN/ACK, and when the last one came.
    pub(crate) syn_acks: Option<(u8, Instant)>,
    /// A FIN without a word of MPTCP arrived, perhaps before the data in front of it.
    pub(crate) fin_was_bare: bool,
    /// Segments with data, since bytes were last delivered from here, whose mapping is for
    /// bytes that they do not carry.
    pub(crate) astray: u8,
    /// It acknowledged a repair that the connection does not acknowledge.
    pub(crate) swallows: bool,
    /// The ACK with MP_CAPABLE has to leave before the first data (RFC 6824 §3.6).
    pub(crate) third_ack_due: bool,
    /// A SYN without MP_CAPABLE arrived after one with it: answer without.
    pub(crate) plain_syn_seen: bool,
    /// Mappings received and bytes that wait for them.
    pub(crate) rx: RxMappings,
    /// Transmissions in sequence order.
    pub(crate) sent: VecDeque<Sent>,
    /// Bytes of `sent`'s front that are acknowledged.
    sent_front_acked: u32,
    /// Filled but not taken by the port.
    pub(crate) burst: Option<Burst>,
    /// End of the newest bytes it was given. Under the redundant scheduler it carried
    /// everything below, but for what was DATA_ACKed before its turn came.
    pub(crate) given_to: u64,
    /// Option bytes for the DSS on data segments: 0 on plain TCP from the start.
    pub(crate) dss_room: usize,
    /// A DATA_ACK arrived on this subflow.
    pub(crate) confirmed: bool,
    /// Times that bytes between two mappings had none.
    pub(crate) gaps: u8,
    /// End of what TCP was acknowledged for, as a stream offset.
    pub(crate) acked_to: u64,
    /// Segments in a row without any MPTCP option that acknowledged data or left bytes
    /// without a mapping.
    pub(crate) bare: u8,
    /// MP_FAIL is repeated on ACKs until answered: for which DSN, how many more times.
    pub(crate) fail: Option<Box<Fail>>,
    /// MP_FAIL was sent, or is about to be: the peer's needs no other answer.
    pub(crate) fail_said: bool,
    /// Some DSS arrived on this subflow.
    pub(crate) dss_seen: bool,
    /// DATA_ACK last sent here, as a stream offset.
    pub(crate) data_ack_sent: u64,
    /// When it last gave bytes to the stream.
    pub(crate) delivered_at: Option<Instant>,
    /// Signals to send.
    pub(crate) signals: Lazy<Signals>,
    /// Closed in order here: until when the peer may take to do the same. Data prolongs it.
    pub(crate) fin_wait: Option<Instant>,
    /// Bytes at hand have no mapping: from which position, until when one may come.
    pub(crate) unmapped: Option<(u64, Instant)>,
    /// Send an empty DSS with the DATA_FIN.
    pub(crate) data_fin_due: bool,
    /// This side asked for backup use.
    pub(crate) backup_local: bool,
    /// The peer asked for backup use.
    pub(crate) backup_remote: bool,
    /// Makes no progress.
    pub(crate) stale: bool,
    /// Its port has no carrier.
    pub(crate) port_down: bool,
    /// The peer withdrew the address: kept only if it still answers.
    pub(crate) withdrawn: Option<Box<Withdrawn>>,
    /// An address probe is due.
    pub(crate) probe_due: bool,
    /// FIN has been asked for.
    pub(crate) closing: bool,
    /// Reason for the MP_TCPRST of a RST that TCP is about to send.
    pub(crate) reset_reason: Option<u8>,
    /// The RST also carries MP_FAIL for this DSN.
    pub(crate) reset_fail: Option<u64>,
    /// TCP is closed but its RST has not left.
    pub(crate) rst_unsent: bool,
    /// The RST also carries MP_FASTCLOSE.
    pub(crate) reset_fastclose: bool,
    /// It reached `Established`.
    pub(crate) was_established: bool,
    /// Dead: removed at the end of the call.
    pub(crate) death: Option<Box<Death>>,
    pub(crate) totals: Totals,
}

const _: () = assert!(size_of::<Subflow>() <= 1416, "memory of an idle subflow");

impl Subflow {
    /// Where in the stream what is in flight ends, if it is one run of the stream.
    pub(crate) fn sent_to(&self) -> Option<u64> {
        let mut end = self.sent.front().map_or(0, |t| t.off);
        self.sent
            .iter()
            .all(|t| {
                let follows = t.off == end;
                end = t.off + u64::from(t.len);
                follows
            })
            .then_some(end)
    }

    /// Sends to another hardware address from now on.
    pub(crate) fn set_next_hop(&mut self, mac: EthernetAddress) {
        self.path.l2.dst = mac;
        self.template.set_next_hop(mac);
    }

    pub(crate) fn new(
        id: SubflowId,
        path: SubflowPath,
        template: HeaderTemplate,
        tcp: Tcp,
        phase: Phase,
    ) -> Self {
        let backup_local = path.backup;
        Self {
            id,
            path,
            template,
            tcp,
            phase,
            initial: false,
            nonce_local: 0,
            nonce_remote: 0,
            join_ack: None,
            swallows: false,
            fin_held: false,
            syn_acks: None,
            fin_was_bare: false,
            astray: 0,
            third_ack_due: false,
            plain_syn_seen: false,
            rx: RxMappings::default(),
            sent: VecDeque::new(),
            sent_front_acked: 0,
            burst: None,
            given_to: 0,
            dss_room: DSS_BYTES,
            confirmed: false,
            gaps: 0,
            acked_to: 0,
            bare: 0,
            fail: None,
            fail_said: false,
            dss_seen: false,
            data_ack_sent: 0,
            delivered_at: None,
            signals: Lazy::empty(),
            fin_wait: None,
            unmapped: None,
            data_fin_due: false,
            backup_local,
            backup_remote: false,
            stale: false,
            port_down: false,
            withdrawn: None,
            probe_due: false,
            closing: false,
            reset_reason: None,
            reset_fail: None,
            rst_unsent: false,
            reset_fastclose: false,
            was_established: false,
            death: None,
            totals: Totals::default(),
        }
    }

    pub(crate) fn tuple(&self) -> FourTuple {
        self.path.tuple
    }

    pub(crate) fn local_id(&self) -> AddressId {
        self.path.local_id
    }

    pub(crate) fn remote_id(&self) -> AddressId {
        self.path.remote_id
    }

    /// May carry data at all.
    pub(crate) fn is_usable(&self) -> bool {
        let open = match self.phase {
            Phase::Established => self.tcp.state().may_send(),
            Phase::CapableAccepted => self.tcp.may_answer_early(),
            _ => false,
        };
        open && self.death.is_none() && !self.closing && !self.third_ack_due
    }

    /// May be asked to carry signals.
    pub(crate) fn is_established(&self) -> bool {
        self.phase == Phase::Established
            && self.death.is_none()
            && self.tcp.state().is_synchronized()
    }

    /// Nothing more will leave or arrive.
    pub(crate) fn is_gone(&self, now: Instant) -> bool {
        match self.tcp.state() {
            // The peer's FIN still wants its ACK.
            State::TimeWait => self.port_down || !self.tcp.is_ack_due(now),
            // A RST may still have to leave; without carrier it never will.
            State::Closed => self.port_down || !self.rst_unsent,
            _ => false,
        }
    }

    pub(crate) fn backup(&self) -> bool {
        self.backup_local || self.backup_remote
    }

    pub(crate) fn impaired(&self) -> bool {
        self.stale || self.port_down || self.withdrawn.is_some()
    }

    /// Bytes of options on data segments.
    pub(crate) fn data_options_len(&self) -> usize {
        let timestamps = if self.tcp.uses_timestamps() {
            TIMESTAMPS_BYTES
        } else {
            0
        };
        timestamps + self.dss_room
    }

    /// Bytes in front of the payload of data segments.
    pub(crate) fn data_header_len(&self) -> usize {
        self.template.header_len(self.data_options_len())
    }

    /// Relative subflow sequence number of `seq` (SSN 1 is the first byte behind the SYN).
    pub(crate) fn ssn(&self, seq: SeqNumber) -> u32 {
        seq.diff(self.tcp.snd_start() - 1).cast_unsigned()
    }

    /// Position in the received stream of a relative SSN from the peer, read near the data
    /// at hand. `None` before the first byte.
    pub(crate) fn rx_position(&self, ssn: u32) -> Option<u64> {
        let expected = self.rx.pos() + self.rx.held_bytes() as u64;
        expand32(ssn, expected + 1)?.checked_sub(1)
    }

    /// Records a new transmission, for which the queue holds a reference.
    pub(crate) fn push_sent(&mut self, off: u64, len: u32) {
        self.sent.push_back(Sent { off, len });
    }

    /// The connection has room for `window` bytes. What waits here takes some of it; the rest of
    /// a mapping that has to be whole fits in any case, or nothing would ever leave again.
    pub(crate) fn offer_window(&mut self, window: u32) {
        let held = u32::try_from(self.rx.held_bytes()).unwrap_or(u32::MAX);
        // A mapping says its length in 16 bits. Less than a segment would not be offered.
        let missing = match u32::try_from(self.rx.missing_bytes()) {
            Ok(0) | Err(_) => 0,
            Ok(missing) => missing.max(self.path.mtu),
        };
        self.tcp
            .set_receive_window(window.saturating_sub(held).max(missing));
    }

    /// Whether `off` is outstanding here; if so, the end of that transmission.
    pub(crate) fn holds(&self, off: u64) -> Option<u64> {
        self.sent
            .iter()
            .map(|t| (t.off, t.off + u64::from(t.len)))
            .find(|(start, end)| (*start..*end).contains(&off))
            .map(|(_, end)| end)
    }

    /// TCP was acknowledged for `n` more bytes: gives up what needs no resending. Returns
    /// the end of the last range that is fully acknowledged, for plain TCP.
    pub(crate) fn acknowledged(&mut self, n: u32, queue: &mut SendQueue) -> Option<u64> {
        let mut done = None;
        let mut left = self.sent_front_acked + n;
        let mut whole = 0;
        for sent in &self.sent {
            if left < sent.len {
                if left > 0 {
                    done = Some(sent.off + u64::from(left));
                }
                break;
            }
            left -= sent.len;
            whole += 1;
            done = Some(sent.off + u64::from(sent.len));
        }
        self.sent_front_acked = left;
        queue.drop_refs(self.sent.drain(..whole).map(|sent| sent.off));
        done
    }

    /// Gives up everything outstanding; the ranges go to `lost`.
    pub(crate) fn drop_sent(&mut self, queue: &mut SendQueue, mut lost: impl FnMut(u64, u64)) {
        for sent in self.sent.drain(..) {
            lost(sent.off, sent.off + u64::from(sent.len));
            queue.drop_ref(sent.off);
        }
        self.sent_front_acked = 0;
        if let Some(burst) = self.burst.take() {
            lost(burst.next, burst.end);
            self.unref_burst(&burst, queue);
        }
    }

    fn unref_burst(&mut self, burst: &Burst, queue: &mut SendQueue) {
        let mut off = burst.next;
        while off < burst.end {
            let end = queue.chunk(off).map_or(burst.end, Chunk::end);
            queue.drop_ref(off);
            off = end;
        }
    }

    /// A burst of which nothing has left is not bound to this subflow. Returns its range.
    pub(crate) fn recall_burst(&mut self, queue: &mut SendQueue) -> Option<Range<u64>> {
        let burst = self.burst.filter(|b| b.next == b.start)?;
        self.burst = None;
        self.unref_burst(&burst, queue);
        Some(burst.start..burst.end)
    }

    /// Bytes that only this subflow keeps from being freed, at most.
    pub(crate) fn pins_below(&self, una: u64) -> u64 {
        self.sent
            .iter()
            .filter(|s| s.off < una)
            .map(|s| u64::from(s.len))
            .sum()
    }

    fn signal_point(&self) -> (SeqNumber, SeqNumber) {
        (self.tcp.snd_nxt(), self.tcp.rcv_nxt())
    }

    /// A signal may leave: there is one, and it is not the third duplicate in a row.
    pub(crate) fn may_signal(&self, now: Instant) -> bool {
        !self.signals.queue.is_empty() && self.signal_due().is_none_or(|at| at <= now)
    }

    /// When a signal that waits for its turn may leave.
    pub(crate) fn signal_due(&self) -> Option<Instant> {
        let Signals { queue, pace } = &*self.signals;
        let waits =
            !queue.is_empty() && pace.row >= SIGNALS_IN_A_ROW && pace.point == self.signal_point();
        pace.until.filter(|_| waits)
    }

    /// A pure ACK with a signal left.
    pub(crate) fn signal_sent(&mut self, now: Instant) {
        let point = self.signal_point();
        let pace = self.signals.pace;
        let fresh = pace.point != point || pace.until.is_some_and(|at| at <= now);
        let row = if fresh { 1 } else { pace.row.saturating_add(1) };
        let pause = self.tcp.srtt().unwrap_or_default().max(SIGNAL_PAUSE);
        self.signals.pace = SignalPace {
            point,
            row,
            until: Some(now + pause),
        };
    }

    /// Queues a signal. False if there are too many.
    pub(crate) fn signal(&mut self, option: MptcpOption) -> bool {
        if self.signals.queue.contains(&option) {
            return true;
        }
        if self.signals.queue.len() >= SIGNALS_MAX {
            return false;
        }
        self.signals.queue.push_back(option);
        true
    }

    /// Nothing comes or goes at the moment: gives back what is there to be used again.
    pub(crate) fn release_spare(&mut self) {
        self.tcp.release_spare();
        self.rx.release_spare();
        self.signals.release_if(|s| s.queue.is_empty());
        if self.sent.is_empty() {
            self.sent = VecDeque::new();
        }
    }

    /// FIN after what was sent; nothing new is sent.
    pub(crate) fn close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.tcp.close();
        }
    }

    /// Ends the subflow at once, by RST with this reason.
    pub(crate) fn reset(&mut self, reason: Option<u8>, error: &'static str) {
        if self.death.is_none() {
            self.reset_reason = reason;
            self.rst_unsent = self.tcp.state() != State::SynSent;
            self.tcp.abort();
            self.death = Some(Box::new(Death {
                error,
                reset_reason: reason,
                transient: None,
            }));
        }
    }
}
