//! The connection: its state, its life, and what the engine may ask of it.
//!
//! [`Connection`] is a thin generic shell around [`Core`], which does not know the
//! application: everything but `poll`'s pulling compiles once.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::addresses::Addresses;
use super::api::{
    Application, CloseReason, Cx, FlowChange, JoinReject, OpenError, Progress, SendState,
    SubflowId, SubflowPath, TxSink,
};
use super::close::Closing;
use super::dsn::DataSpace;
use super::event::Event;
use super::info::{ClosedSubflowInfo, ConnInfo, SubflowInfo, Totals};
use super::key::KeyMaterial;
use super::reassembly::Reassembly;
use super::recv::RecvStream;
use super::reinject::ReinjectQueue;
use super::schedulers::Scheduler;
use super::sendqueue::SendQueue;
use super::subflow::{Death, Subflow};
use crate::buf::Chain;
use crate::counters::Counter;
use crate::io::PortId;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::EthernetAddress;
use crate::wire::icmp::IcmpError;
use crate::wire::packet::TcpPacket;
use crate::wire::types::{AddressId, FourTuple, Token};

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
    /// The peer opened it.
    pub(crate) server: bool,
    /// Number in events: the own token, or a random number for plain TCP.
    pub(crate) id: u32,
    pub(crate) local: Option<KeyMaterial>,
    pub(crate) remote: Option<KeyMaterial>,
    /// Both sides are known to have both keys.
    pub(crate) fully_established: bool,
    /// DSS checksums are in use.
    pub(crate) checksum: bool,
    /// The peer set flag C.
    pub(crate) remote_denies_join: bool,
    /// Why it fell back.
    pub(crate) fallback: Option<Counter>,
    /// Data beyond the fallback needs an infinite mapping to be announced.
    pub(crate) infinite_map_due: bool,
    /// DATA_ACKs are sent.
    pub(crate) send_data_acks: bool,
    /// More than one subflow has carried data: falling back is no longer possible.
    pub(crate) was_multipath: bool,
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
    /// Holes up to here are resent without waiting for another timeout.
    pub(crate) recover: u64,
    /// Head-of-line data below this was already sent on a second subflow.
    pub(crate) opportunistic: u64,

    // --- receive side ---
    pub(crate) reassembly: Reassembly,
    pub(crate) rx: RecvStream,
    /// The application has not seen the newest bytes.
    pub(crate) rx_news: bool,

    pub(crate) closing: Closing,
    created_at: Instant,
    pub(crate) subflowless_since: Option<Instant>,
    pub(crate) subflowless_timeout: Duration,
    established: bool,
    established_news: bool,
    over: Option<CloseReason>,
    over_news: bool,
    closed: VecDeque<ClosedSubflowInfo>,
    closed_totals: Totals,
}

impl Core {
    pub(crate) fn new(cx: &Cx<'_>, server: bool, local: Option<KeyMaterial>, id: u32) -> Self {
        Self {
            mode: if local.is_some() {
                Mode::Mptcp
            } else {
                Mode::Tcp
            },
            server,
            id,
            snd_space: local.map_or_else(DataSpace::default, |k| DataSpace::new(k.idsn)),
            local,
            remote: None,
            fully_established: false,
            checksum: false,
            remote_denies_join: false,
            fallback: None,
            infinite_map_due: false,
            send_data_acks: true,
            was_multipath: false,
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
            recover: 0,
            opportunistic: 0,
            reassembly: Reassembly::default(),
            rx: RecvStream::default(),
            rx_news: false,
            closing: Closing::default(),
            created_at: cx.now,
            subflowless_since: None,
            subflowless_timeout: cx.config.subflowless_timeout,
            established: false,
            established_news: false,
            over: None,
            over_news: false,
            closed: VecDeque::new(),
            closed_totals: Totals::default(),
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
        self.subflowless_since = None;
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
        if !mptcp {
            s.dss_room = 0;
        }
        s.was_established = true;
        let tuple = s.tuple();
        let room = u8::try_from(s.data_options_len()).unwrap_or(u8::MAX);
        s.tcp.set_option_room(room);
        cx.actions.events.push(Event::Established {
            token: self.id,
            local: tuple.local,
            remote: tuple.remote,
            server: self.server,
            mptcp,
            checksum: self.checksum,
            deny_join_initial: self.remote_denies_join,
        });
        self.offer_window(cx);
    }

    /// The window at connection level: room for in-order bytes, in bytes and frames.
    fn free_space(&self, cx: &Cx<'_>) -> u64 {
        let held: usize = self.subflows.iter().map(|s| s.rx.held_frames()).sum();
        let frames = self.rx.pinned_frames() + self.reassembly.frames() + held;
        let frames_left = u64::from(cx.config.recv_buffer_frames).saturating_sub(frames as u64);
        let bytes_left =
            u64::from(cx.config.recv_buffer_bytes).saturating_sub(self.rx.len() as u64);
        // Anything shorter than the copybreak does not keep its frame.
        bytes_left.min(frames_left * 512)
    }

    /// Tells every subflow how much may come.
    pub(crate) fn offer_window(&mut self, cx: &mut Cx<'_>) {
        let free = self.free_space(cx);
        // A subflow's edge never moves left, so what was offered on one subflow before
        // data arrived on another is still offered: accept up to twice the buffer, then
        // drop without DATA_ACK.
        self.reassembly
            .offer(free + u64::from(cx.config.recv_buffer_bytes));
        let window = u32::try_from(free).unwrap_or(u32::MAX);
        for s in &mut self.subflows {
            let held = u32::try_from(s.rx.held_bytes()).unwrap_or(u32::MAX);
            s.tcp.set_receive_window(window.saturating_sub(held));
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
            s.death = Some(Death {
                error,
                reset_reason: reason,
            });
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
        let (error, reset_reason) = s
            .death
            .map_or(("closed", None), |d| (d.error, d.reset_reason));
        self.closed_totals.merge(&s.totals);
        if self.closed.len() == CLOSED_LISTED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(ClosedSubflowInfo {
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
        });
    }

    /// What the loss of a subflow means for the connection.
    fn subflow_is_gone(&mut self, cx: &mut Cx<'_>, s: &Subflow) {
        if self.over.is_some() {
            return;
        }
        if !s.initial && !s.was_established {
            self.addresses
                .join_failed(s.tuple().remote, s.death.and_then(|d| d.reset_reason));
        }
        if !self.subflows.is_empty() {
            return;
        }
        if self.closing.is_finished(&self.reassembly) {
            return self.finish(CloseReason::Finished);
        }
        if self.mode == Mode::Tcp || !self.established {
            let refused = s.death.is_some_and(|d| d.error == "refused");
            let timeout = s.death.is_some_and(|d| d.error == "timed out");
            return self.finish(match (refused, timeout) {
                (true, _) => CloseReason::Refused,
                (_, true) => CloseReason::Timeout,
                _ => CloseReason::PeerAbort,
            });
        }
        self.subflowless_since = Some(cx.now);
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
        let mut totals = self.closed_totals;
        for s in &self.subflows {
            totals.merge(&s.totals);
        }
        let held: usize = self.subflows.iter().map(|s| s.rx.held_frames()).sum();
        ConnInfo {
            token: self.id,
            remote_token: self.remote.map(|k| k.token.0),
            state: self.state_name(),
            mptcp: self.is_mptcp(),
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
            recv_queue_frames: (self.rx.pinned_frames() + self.reassembly.frames() + held) as u64,
            age_ms: u64::try_from((now - self.created_at).as_millis()).unwrap_or(u64::MAX),
            totals,
            subflows,
            closed_subflows: self.closed.iter().cloned().collect(),
        }
    }
}

/// One connection and its application.
#[derive(Debug)]
pub struct Connection<A> {
    pub(super) core: Core,
    app: A,
    /// The application was told the end.
    told_over: bool,
}

impl<A: Application> Connection<A> {
    /// An active open: the SYN leaves with the next `poll`. `token_in_use` keeps tokens
    /// unique among the worker's connections.
    ///
    /// # Errors
    /// The path mixes address families.
    pub fn connect(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        app: A,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let core = Core::connect(cx, path, token_in_use)?;
        Ok(Self::with(core, app))
    }

    /// A passive open, for a SYN to a listening service.
    ///
    /// # Errors
    /// The path mixes address families.
    pub fn accept(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        syn: &TcpPacket,
        app: A,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let core = Core::accept(cx, path, syn, token_in_use)?;
        Ok(Self::with(core, app))
    }

    fn with(core: Core, app: A) -> Self {
        Self {
            core,
            app,
            told_over: false,
        }
    }

    /// A MP_JOIN SYN for this connection's token.
    ///
    /// # Errors
    /// Refused; the engine answers by RST with [`JoinReject::reset_reason`].
    pub fn accept_join(
        &mut self,
        cx: &mut Cx<'_>,
        path: SubflowPath,
        syn: &TcpPacket,
    ) -> Result<SubflowId, JoinReject> {
        self.core.accept_join(cx, path, syn)
    }

    /// Opens another subflow.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_subflow(
        &mut self,
        cx: &mut Cx<'_>,
        path: SubflowPath,
    ) -> Result<SubflowId, OpenError> {
        self.core.open_subflow(cx, path)
    }

    /// Announces an address (ADD_ADDR), repeated until echoed.
    pub fn announce(&mut self, cx: &mut Cx<'_>, id: AddressId, addr: IpAddr, port: Option<u16>) {
        self.core.announce(cx, id, addr, port);
    }

    /// Withdraws addresses (REMOVE_ADDR) and resets the subflows that use them.
    pub fn remove_addresses(&mut self, cx: &mut Cx<'_>, ids: &[AddressId]) {
        self.core.remove_addresses(cx, ids);
        self.settle(cx);
    }

    /// Asks the peer to use a subflow as backup, or no longer (MP_PRIO).
    pub fn set_backup(&mut self, cx: &mut Cx<'_>, subflow: SubflowId, backup: bool) {
        self.core.set_backup(cx, subflow, backup);
    }

    /// Closes one subflow: by RST with `reason`, or in order by FIN without one.
    pub fn close_subflow(&mut self, cx: &mut Cx<'_>, subflow: SubflowId, reason: Option<u8>) {
        self.core.close_subflow(subflow, reason);
        self.settle(cx);
    }

    /// Closes in order: nothing more is taken from the application.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        self.core.close(cx);
        self.settle(cx);
    }

    /// Gives up at once: MP_FASTCLOSE, or RST on plain TCP.
    pub fn abort(&mut self, cx: &mut Cx<'_>) {
        self.core.abort(cx);
        self.settle(cx);
    }

    /// A packet of a subflow, its checksum verified.
    pub fn on_packet(
        &mut self,
        cx: &mut Cx<'_>,
        subflow: SubflowId,
        packet: &TcpPacket,
        payload: Chain,
    ) {
        self.core.on_packet(cx, subflow, packet, payload);
        self.settle(cx);
    }

    /// An ICMP error about a subflow.
    pub fn on_icmp(&mut self, cx: &mut Cx<'_>, subflow: SubflowId, error: &IcmpError) {
        self.core.on_icmp(cx, subflow, error);
        self.settle(cx);
    }

    /// A port lost its carrier: its subflows carry nothing until it is back.
    pub fn on_port_down(&mut self, cx: &mut Cx<'_>, port: PortId) {
        self.core.on_port(cx, port, true);
    }

    /// A port has its carrier back.
    pub fn on_port_up(&mut self, cx: &mut Cx<'_>, port: PortId) {
        self.core.on_port(cx, port, false);
    }

    /// Something in [`Connection::next_deadline`] is due.
    pub fn on_timer(&mut self, cx: &mut Cx<'_>) {
        self.core.on_timer(cx);
        self.settle(cx);
    }

    /// When `on_timer` is to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.core.next_deadline()
    }

    /// Lets the application read and write, and sends what may be sent.
    pub fn poll<S: TxSink>(&mut self, cx: &mut Cx<'_>, sink: &mut S) -> Progress {
        self.settle(cx);
        let mut full = false;
        self.serve_reader(cx);
        self.core.offer_window(cx);
        full |= self.core.send_controls(cx, sink, false);
        full |= self.core.send_retransmissions(cx, sink);
        full |= self.core.send_bursts(cx, sink);
        full |= self.core.send_reinjections(cx, sink);
        full |= self.pull(cx, sink);
        self.core.advance_close(cx);
        self.core.offer_window(cx);
        full |= self.core.send_controls(cx, sink, true);
        self.core.arm_data_rto(cx.now);
        self.settle(cx);
        if full { Progress::More } else { Progress::Done }
    }

    /// Own token; for plain TCP a number that is unique with overwhelming probability.
    #[must_use]
    pub fn token(&self) -> Token {
        Token(self.core.id)
    }

    /// Whether the token names an MPTCP connection that may be joined.
    #[must_use]
    pub fn is_mptcp(&self) -> bool {
        self.core.is_mptcp()
    }

    /// Whether the handshake has completed.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.core.is_established()
    }

    /// Whether subflows may be opened: the peer has shown that it speaks MPTCP on the
    /// first one (RFC 8684 §3.1). `None`: it never will.
    #[must_use]
    pub fn may_join(&self) -> Option<bool> {
        self.core.is_mptcp().then_some(self.core.fully_established)
    }

    /// The next hop of the paths over `port` to `remote` has another hardware address.
    pub fn on_neighbour(&mut self, port: PortId, remote: IpAddr, mac: EthernetAddress) {
        for s in &mut self.core.subflows {
            if s.path.port == port && s.path.tuple.remote.ip() == remote {
                s.set_next_hop(mac);
            }
        }
    }

    /// Whether the engine may free it: over, all flows removed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.core.is_over() && self.core.subflows.is_empty()
    }

    /// What operators see.
    #[must_use]
    pub fn info(&self, now: Instant) -> ConnInfo {
        self.core.info(now)
    }

    /// The application.
    #[must_use]
    pub fn app(&self) -> &A {
        &self.app
    }

    /// The application, to steer it. Call `poll` afterwards.
    pub fn app_mut(&mut self) -> &mut A {
        &mut self.app
    }

    /// Subflows that exist, in any state, with their paths.
    pub fn subflows(&self) -> impl Iterator<Item = (SubflowId, &SubflowPath)> + '_ {
        self.core.subflows.iter().map(|s| (s.id, &s.path))
    }

    /// The application wants to read again although nothing new has arrived: the next
    /// `poll` calls `on_readable`.
    pub fn wake_reader(&mut self, _cx: &mut Cx<'_>) {
        self.core.rx_news = true;
    }

    /// The frame pool runs low: copies out received data that waits (copybreak). Returns
    /// how many frames went home.
    pub fn release_frames(&mut self, cx: &mut Cx<'_>) -> u64 {
        let core = &mut self.core;
        let mut freed = core.rx.release_frames() + core.reassembly.release_frames();
        for s in &mut core.subflows {
            freed += s.rx.release_frames();
        }
        cx.counters.add(Counter::RxCopybreak, freed);
        freed
    }

    fn serve_reader(&mut self, cx: &mut Cx<'_>) {
        let core = &mut self.core;
        if std::mem::take(&mut core.rx_news) && !core.is_over() {
            self.app.on_readable(&mut core.rx);
        }
        let copied = core.rx.copybreak();
        cx.counters.add(Counter::RxCopybreak, copied);
    }

    /// Takes new data from the application while some subflow can carry it.
    fn pull<S: TxSink>(&mut self, cx: &mut Cx<'_>, sink: &mut S) -> bool {
        let mut full = false;
        loop {
            let core = &mut self.core;
            if core.is_over() || !core.is_established() {
                return full;
            }
            let state = match self.app.send_state(&core.rx) {
                SendState::Abort => {
                    core.abort(cx);
                    return full;
                }
                _ if core.closing.sending_ended() => SendState::Idle,
                state => state,
            };
            if state == SendState::Finished {
                core.end_sending();
            }
            if state != SendState::Ready {
                core.set_data_waiting(cx.now, false);
                return full;
            }
            core.set_data_waiting(cx.now, true);
            let Some(mut plan) = core.plan_burst(cx, sink, &mut full) else {
                return full;
            };
            let app = &mut self.app;
            let taken =
                core.fill_burst(cx, sink, &mut plan, &mut full, |rx, out| app.fill(rx, out));
            if taken == 0 {
                return full;
            }
            let finished = app.send_state(&core.rx) == SendState::Finished;
            core.start_burst(&plan, finished);
            full |= core.send_bursts(cx, sink);
        }
    }

    /// After any change: removes dead subflows, tells the application.
    fn settle(&mut self, cx: &mut Cx<'_>) {
        self.core.sweep(cx);
        if std::mem::take(&mut self.core.established_news) {
            self.app.on_established();
        }
        if std::mem::take(&mut self.core.over_news) && !self.told_over {
            self.told_over = true;
            let reason = self.core.over.unwrap_or(CloseReason::Finished);
            // The last bytes may have come with what ended the connection.
            if std::mem::take(&mut self.core.rx_news) && reason == CloseReason::Finished {
                self.app.on_readable(&mut self.core.rx);
            }
            self.core.rx.clear();
            self.app.on_closed(reason);
            cx.actions.events.push(Event::Closed {
                token: self.core.id,
                reason,
            });
        }
    }
}
