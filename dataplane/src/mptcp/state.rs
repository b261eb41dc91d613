//! The state of a connection, without its application: what every other file of this module
//! works on. Compiles once, whatever applications there are.

use std::collections::VecDeque;

use super::addresses::Addresses;
use super::api::{CloseReason, Cx, FlowChange, SubflowId};
use super::autotune::ReceiveBuffer;
use super::close::Closing;
use super::dsn::DataSpace;
use super::event::Event;
use super::evidence::Spoiled;
use super::fastopen::FastOpen;
use super::info::{ClosedSubflowInfo, ConnInfo, SubflowInfo, Totals};
use super::key::KeyMaterial;
use super::reassembly::Reassembly;
use super::recv::RecvStream;
use super::reinject::ReinjectQueue;
use super::schedulers::Scheduler;
use super::sendqueue::SendQueue;
use super::subflow::{Death, Subflow};
use super::timers::Refill;
use super::version::Version;
use super::window_option::WindowOption;
use crate::counters::Counter;
use crate::lazy::{Empty, Lazy};
use crate::time::{Duration, Instant};
use crate::wire::types::FourTuple;

/// Closed subflows that `info` still lists.
const CLOSED_LISTED_MAX: usize = 16;

/// What the connection is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// MPTCP, or about to be.
    Mptcp,
    /// Plain TCP, from the start or by fallback. Never left again.
    Tcp,
}

/// Everything about a connection but its application.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) mode: Mode,
    pub(crate) version: Version,
    /// The peer opened it.
    pub(crate) server: bool,
    /// Number in events: the own token, or a random number for plain TCP.
    pub(crate) id: u32,
    pub(crate) local: Option<KeyMaterial>,
    pub(crate) remote: Option<KeyMaterial>,
    /// Both sides are known to have both keys.
    pub(crate) fully_established: bool,
    /// A DSS came over some subflow: options pass on data and its acknowledgments, too.
    pub(crate) dss_heard: bool,
    /// DSS checksums are in use.
    pub(crate) checksum: bool,
    /// The peer set flag C.
    pub(crate) remote_denies_join: bool,
    /// Why it fell back.
    pub(crate) fallback: Option<Counter>,
    /// Data beyond the fallback needs an infinite mapping to be announced.
    pub(crate) infinite_map_due: bool,
    /// From which stream offset on it was announced.
    pub(crate) infinite_map_from: Option<u64>,
    /// The peer's arrived: it has fallen back.
    pub(crate) infinite_map_heard: bool,
    /// DATA_ACKs are sent.
    pub(crate) send_data_acks: bool,
    /// More than one subflow has carried data.
    pub(crate) was_multipath: bool,
    /// A join was established, here or, for all that is known, at the peer. From then on only
    /// mappings say where bytes belong, and falling back is no longer possible.
    pub(crate) was_joined: bool,
    /// Send-side stream offsets to DSNs.
    pub(crate) snd_space: DataSpace,
    /// Receive-side stream offsets to DSNs.
    pub(crate) rcv_space: DataSpace,
    pub(crate) subflows: Vec<Subflow>,
    next_subflow: u16,
    pub(crate) addresses: Addresses,
    pub(crate) scheduler: Scheduler,

    // --- send side ---
    pub(crate) send: SendQueue,
    pub(crate) reinject: ReinjectQueue,
    /// Right edge of the peer's window, as a stream offset.
    pub(crate) snd_edge: u64,
    /// Everything below was sent at least once.
    pub(crate) sent_max: u64,
    /// New data waits for the peer's window with nothing outstanding.
    pub(crate) blocked: bool,
    /// Connection-level retransmission or probe.
    pub(crate) data_rto: Option<Instant>,
    pub(crate) data_rto_backoff: u32,
    /// What TCP has delivered, or a DATA_FIN, is not DATA_ACKed: since when, and how many
    /// timeouts in a row found it so.
    pub(crate) unheard: Option<(Instant, u32)>,
    /// Subflows that wrong checksums ended: as the peer says, and as found here.
    pub(crate) spoiled_tx: Spoiled,
    pub(crate) spoiled_rx: Spoiled,
    /// Which subflow was last given the head of the stream to repair.
    pub(crate) repairer: Option<SubflowId>,
    /// Holes up to here are resent without waiting for another timeout.
    pub(crate) recover: u64,
    /// How much of them at a time.
    pub(crate) refill: Refill,
    /// Head-of-line data below this was already sent on a second subflow.
    pub(crate) opportunistic: u64,

    // --- receive side ---
    pub(crate) reassembly: Reassembly,
    pub(crate) rx: RecvStream,
    pub(crate) buffer: ReceiveBuffer,
    pub(crate) window: WindowOption,
    /// The application has not seen the newest bytes.
    pub(crate) rx_news: bool,

    pub(crate) closing: Closing,
    pub(crate) fast_open: Lazy<FastOpen>,
    created_at: Instant,
    /// Since when no subflow works; attempts to open one do not count.
    pub(crate) subflowless_since: Option<Instant>,
    /// No MPTCP option is sent any more, because what carries one does not arrive.
    pub(crate) mute: bool,
    pub(crate) subflowless_timeout: Duration,
    pub(crate) established: bool,
    pub(crate) established_news: bool,
    /// The control plane was told.
    established_told: bool,
    pub(crate) over: Option<CloseReason>,
    pub(crate) over_news: bool,
    closed: Lazy<Closed>,
    /// When it will have been idle for so long that it can do without what it may need again.
    pub(crate) spare_at: Option<Instant>,
}

/// Subflows that are gone.
#[derive(Debug, Default)]
struct Closed {
    listed: VecDeque<ClosedSubflowInfo>,
    totals: Totals,
}

impl Empty for Closed {
    const EMPTY: &'static Self = &Self {
        listed: VecDeque::new(),
        totals: Totals::NONE,
    };
}

// 100,000 idle connections pay for every byte once, and for a subflow's twice.
const _: () = assert!(size_of::<Core>() <= 856, "memory of an idle connection");

impl Core {
    pub(crate) fn new(
        cx: &Cx<'_>,
        server: bool,
        version: Version,
        local: Option<KeyMaterial>,
        id: u32,
    ) -> Self {
        Self {
            mode: if local.is_some() {
                Mode::Mptcp
            } else {
                Mode::Tcp
            },
            version,
            server,
            id,
            snd_space: local.map_or_else(DataSpace::default, |k| DataSpace::new(k.idsn)),
            local,
            remote: None,
            fully_established: false,
            dss_heard: false,
            checksum: false,
            remote_denies_join: false,
            fallback: None,
            infinite_map_due: false,
            infinite_map_from: None,
            infinite_map_heard: false,
            send_data_acks: true,
            was_multipath: false,
            was_joined: false,
            rcv_space: DataSpace::default(),
            subflows: Vec::with_capacity(2),
            next_subflow: 0,
            addresses: Addresses::default(),
            scheduler: Scheduler::new(cx.config.scheduler),
            send: SendQueue::default(),
            reinject: ReinjectQueue::default(),
            snd_edge: 0,
            sent_max: 0,
            blocked: false,
            data_rto: None,
            data_rto_backoff: 0,
            unheard: None,
            spoiled_tx: Spoiled::default(),
            spoiled_rx: Spoiled::default(),
            repairer: None,
            recover: 0,
            refill: Refill::default(),
            opportunistic: 0,
            reassembly: Reassembly::default(),
            rx: RecvStream::default(),
            buffer: ReceiveBuffer::default(),
            window: WindowOption::new(cx.config.window_option),
            rx_news: false,
            closing: Closing::default(),
            fast_open: Lazy::empty(),
            created_at: cx.now,
            subflowless_since: None,
            mute: false,
            subflowless_timeout: cx.config.subflowless_timeout,
            established: false,
            established_news: false,
            established_told: false,
            over: None,
            over_news: false,
            closed: Lazy::empty(),
            spare_at: None,
        }
    }

    pub(crate) fn index_of(&self, id: SubflowId) -> Option<usize> {
        self.subflows.iter().position(|s| s.id == id)
    }

    pub(crate) fn allocate_id(&mut self) -> SubflowId {
        let id = SubflowId(self.next_subflow);
        self.next_subflow = self.next_subflow.wrapping_add(1);
        id
    }

    /// Adds a subflow and its flow.
    pub(crate) fn add_subflow(&mut self, cx: &mut Cx<'_>, subflow: Subflow) -> usize {
        let change = FlowChange::Add(subflow.tuple(), subflow.id);
        cx.actions.flows.push(change);
        // A join that is under way does not stop the clock: the peer may refuse for ever.
        self.subflows.push(subflow);
        self.subflows.len() - 1
    }

    pub(crate) fn is_mptcp(&self) -> bool {
        self.mode == Mode::Mptcp
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// The handshake of the initial subflow is complete.
    pub(crate) fn establish(&mut self, cx: &mut Cx<'_>, i: usize) {
        if self.established || self.over.is_some() {
            return;
        }
        self.established = true;
        self.established_news = true;
        let mptcp = self.is_mptcp();
        let s = &mut self.subflows[i];
        // Early answers of Fast Open keep the room that they left with.
        if !mptcp && s.tcp.snd_nxt() == s.tcp.snd_start() {
            s.dss_room = 0;
        }
        s.was_established = true;
        let room = u8::try_from(s.data_options_len()).unwrap_or(u8::MAX);
        s.tcp.set_option_room(room);
        if !mptcp || self.fully_established {
            self.report_established(cx, i);
        }
        self.offer_window(cx);
    }

    /// Tells the control plane, once it is known which kind of connection it is: an MPTCP
    /// one may be joined from now on.
    pub(crate) fn report_established(&mut self, cx: &mut Cx<'_>, i: usize) {
        if std::mem::replace(&mut self.established_told, true) {
            return;
        }
        let announced = self.announce_configured(cx);
        let tuple = self.subflows[i].tuple();
        cx.actions.events.push(Event::Established {
            token: self.id,
            local: tuple.local,
            remote: tuple.remote,
            server: self.server,
            mptcp: self.is_mptcp(),
            checksum: self.checksum,
            deny_join_initial: self.remote_denies_join,
            announced,
        });
    }

    /// Frames that received data pins, wherever it waits.
    fn frames_held(&self) -> usize {
        let waiting = |s: &Subflow| s.rx.held_frames() + s.tcp.out_of_order_frames();
        let subflows: usize = self.subflows.iter().map(waiting).sum();
        self.rx.pinned_frames() + self.reassembly.frames() + subflows
    }

    /// Frames for what comes. What waits beyond a gap lies in the window already.
    fn frames_left(&self) -> u64 {
        u64::from(self.buffer.frames()).saturating_sub(self.rx.pinned_frames() as u64)
    }

    /// The window at connection level: room for in-order bytes, in bytes and frames.
    fn free_space(&self) -> u64 {
        let bytes_left = u64::from(self.buffer.bytes()).saturating_sub(self.rx.len() as u64);
        bytes_left.min(self.buffer.bytes_in(self.frames_left()))
    }

    /// Tells every subflow how much may come.
    pub(crate) fn offer_window(&mut self, cx: &mut Cx<'_>) {
        self.tune_receive_buffer(cx);
        self.settle_promise(cx, self.frames_held());
        let free = self.free_space();
        self.offer_window_option(free);
        if self.windows_are_per_subflow() {
            return self.offer_subflow_windows(free);
        }
        // A subflow's edge never moves left, so what was offered on one subflow before
        // data arrived on another is still offered: accept up to twice the buffer beyond
        // what was read, then drop without DATA_ACK.
        let limit = 2 * u64::from(self.buffer.bytes());
        let slack = limit.saturating_sub(self.rx.len() as u64);
        self.reassembly.offer(free.max(slack));
        let window = u32::try_from(free).unwrap_or(u32::MAX);
        for s in &mut self.subflows {
            s.offer_window(window);
        }
    }

    /// The peer knows the connection's window from the option: each subflow's own says what
    /// that subflow may have on its way, and nothing beyond the connection's is expected.
    fn offer_subflow_windows(&mut self, free: u64) {
        self.reassembly.offer(free);
        let window = self
            .buffer
            .bytes_in(self.frames_left())
            .min(u64::from(self.buffer.bytes()));
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        for s in &mut self.subflows {
            s.offer_window(window);
        }
    }

    /// Ends a subflow by RST; what it had outstanding goes elsewhere.
    pub(crate) fn kill(&mut self, i: usize, reason: Option<u8>, error: &'static str) {
        self.subflows[i].reset(reason, error);
        self.salvage(i);
    }

    /// A subflow's TCP is closed: nothing more leaves.
    pub(crate) fn bury(&mut self, i: usize, reason: Option<u8>, error: &'static str) {
        let s = &mut self.subflows[i];
        if s.death.is_none() {
            s.death = Some(Box::new(Death {
                error,
                reset_reason: reason,
                transient: None,
            }));
        }
        self.salvage(i);
    }

    /// Moves what a dead subflow had outstanding to the reinjection queue.
    fn salvage(&mut self, i: usize) {
        let (send, reinject) = (&mut self.send, &mut self.reinject);
        let s = &mut self.subflows[i];
        let una = send.una();
        s.drop_sent(send, |start, end| {
            if end > una {
                reinject.add(start.max(una)..end, None);
            }
        });
        reinject.forget(s.id);
        s.signals.clear();
    }

    /// The connection is over. Subflows that are left are reset.
    pub(crate) fn finish(&mut self, reason: CloseReason) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(reason);
        self.over_news = true;
        for i in 0..self.subflows.len() {
            self.kill(i, None, "connection closed");
        }
        self.send.clear();
        self.reinject.clear();
        self.reassembly.clear();
        if reason != CloseReason::Finished {
            self.rx.clear();
        }
        self.data_rto = None;
    }

    /// Removes subflows that are dead and have said so, or whose TCP is closed.
    pub(crate) fn sweep(&mut self, cx: &mut Cx<'_>) {
        let mut i = 0;
        while i < self.subflows.len() {
            if !self.subflows[i].is_gone(cx.now) {
                i += 1;
                continue;
            }
            if self.subflows[i].death.is_none() {
                self.bury(i, None, "closed");
            }
            let mut s = self.subflows.remove(i);
            s.tcp.flush_counters(cx.counters);
            let tuple = s.tuple();
            cx.actions
                .flows
                .push(FlowChange::Remove(tuple, s.tcp.time_wait()));
            self.report_closed(cx, &s, tuple);
            self.subflow_is_gone(cx, &s);
        }
    }

    fn report_closed(&mut self, cx: &mut Cx<'_>, s: &Subflow, tuple: FourTuple) {
        let (error, reset_reason, transient) =
            s.death.as_deref().map_or(("closed", None, None), |d| {
                (d.error, d.reset_reason, d.transient)
            });
        let closed = &mut *self.closed;
        closed.totals.merge(&s.totals);
        if closed.listed.len() == CLOSED_LISTED_MAX {
            closed.listed.pop_front();
        }
        closed.listed.push_back(ClosedSubflowInfo {
            id: s.id,
            local: tuple.local,
            remote: tuple.remote,
            error: error.to_owned(),
            totals: s.totals,
        });
        cx.actions.events.push(Event::SubflowClosed {
            token: self.id,
            subflow: s.id,
            local: tuple.local,
            remote: tuple.remote,
            local_id: s.local_id().0,
            remote_id: s.remote_id().0,
            established: s.was_established,
            error: error.to_owned(),
            reset_reason,
            transient,
        });
    }

    /// What the loss of a subflow means for the connection.
    fn subflow_is_gone(&mut self, cx: &mut Cx<'_>, s: &Subflow) {
        if self.over.is_some() {
            return;
        }
        if !s.initial && !s.was_established {
            let transient = s
                .death
                .as_deref()
                .is_some_and(|d| d.transient == Some(true));
            self.addresses.join_failed(s.tuple().remote, transient);
        }
        if s.death
            .as_deref()
            .is_some_and(|d| d.transient == Some(false))
        {
            self.addresses.path_barred(s.tuple());
        }
        if s.death.as_deref().is_some_and(|d| d.error == "closed") {
            self.closing.subflow_closed();
        }
        if !self.subflows.is_empty() {
            // Attempts that never come about do not keep the connection alive.
            let works = self.subflows.iter().any(|s| s.was_established);
            if !works && self.fully_established && self.is_mptcp() {
                self.subflowless_since.get_or_insert(cx.now);
            }
            return;
        }
        if self.closing.is_finished(&self.reassembly) {
            // The network has done its part; the application may still be reading, and no
            // subflow is missing.
            self.subflowless_since = None;
            let limit = cx.now + cx.config.close_timeout;
            self.closing.deadline.get_or_insert(limit);
            return self.finish_when_read();
        }
        // Nobody can join before both sides are known to have both keys.
        if self.mode == Mode::Tcp || !self.fully_established {
            let refused = s.death.as_deref().is_some_and(|d| d.error == "refused");
            let timeout = s.death.as_deref().is_some_and(|d| d.error == "timed out");
            return self.finish(match (refused, timeout) {
                (true, _) => CloseReason::Refused,
                (_, true) => CloseReason::Timeout,
                _ => CloseReason::PeerAbort,
            });
        }
        self.subflowless_since.get_or_insert(cx.now);
    }

    pub(crate) fn state_name(&self) -> String {
        match (self.mode, self.over, self.subflows.first()) {
            (_, Some(_), _) => "CLOSED".to_owned(),
            (Mode::Tcp, _, Some(s)) => s.tcp.state().to_string(),
            _ if !self.established => "M_CONNECTING".to_owned(),
            _ => self.closing.state_name(&self.reassembly).to_owned(),
        }
    }

    pub(crate) fn info(&self, now: Instant) -> ConnInfo {
        let subflows: Vec<SubflowInfo> = self
            .subflows
            .iter()
            .map(|s| SubflowInfo {
                id: s.id,
                local: s.tuple().local,
                remote: s.tuple().remote,
                local_id: s.local_id().0,
                remote_id: s.remote_id().0,
                port: s.path.port.0,
                state: s.phase.name().to_owned(),
                backup_local: s.backup_local,
                backup_remote: s.backup_remote,
                stale: s.stale,
                totals: s.totals,
                tcp: s.tcp.info(),
            })
            .collect();
        let mut totals = self.closed.totals;
        for s in &self.subflows {
            totals.merge(&s.totals);
        }
        ConnInfo {
            token: self.id,
            remote_token: self.remote.map(|k| k.token.0),
            state: self.state_name(),
            mptcp: self.is_mptcp(),
            version: self.local.map(|_| self.version.number()),
            fallback: self.fallback.map(|c| c.as_str().to_owned()),
            server: self.server,
            checksum: self.checksum,
            fully_established: self.fully_established,
            bytes_taken: self.send.nxt(),
            bytes_acked: self.send.una(),
            bytes_delivered: self.rx.delivered(),
            send_queue_bytes: self.send.bytes(),
            recv_queue_bytes: self.rx.len() as u64,
            out_of_order_bytes: self.reassembly.bytes() as u64,
            send_queue_frames: self.send.frames() as u64,
            recv_queue_frames: self.frames_held() as u64,
            age_ms: u64::try_from((now - self.created_at).as_millis()).unwrap_or(u64::MAX),
            totals,
            announced: self.addresses.announced(),
            subflows,
            closed_subflows: self.closed.listed.iter().cloned().collect(),
        }
    }
}
