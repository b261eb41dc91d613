//! A connection as the engine sees it: a thin generic shell around [`Core`], which does not
//! know the application. Only what pulls and delivers is compiled per application.

use std::net::IpAddr;

use super::api::{
    Application, CloseReason, Cx, JoinReject, OpenError, Progress, SendState, SubflowId,
    SubflowPath, TxSink,
};
use super::event::Event;
use super::fastopen::FastOpenSyn;
use super::info::ConnInfo;
use super::state::Core;
use crate::buf::Chain;
use crate::checksum::Sum;
use crate::counters::Counter;
use crate::io::PortId;
use crate::time::Instant;
use crate::wire::ethernet::EthernetAddress;
use crate::wire::icmp::IcmpError;
use crate::wire::packet::TcpPacket;
use crate::wire::tcp_options::FastOpenCookie;
use crate::wire::types::{AddressId, Token};

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
    /// The path mixes address families, or the SYN must be ignored.
    pub fn accept(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        syn: &TcpPacket,
        app: A,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        Self::accept_fast_open(cx, path, syn, FastOpenSyn::default(), app, token_in_use)
    }

    /// [`Connection::accept`] for a SYN whose Fast Open option was looked at.
    ///
    /// # Errors
    /// The path mixes address families.
    pub fn accept_fast_open(
        cx: &mut Cx<'_>,
        path: SubflowPath,
        syn: &TcpPacket,
        fast_open: FastOpenSyn,
        app: A,
        token_in_use: impl Fn(Token) -> bool,
    ) -> Result<Self, OpenError> {
        let core = Core::accept(cx, path, syn, fast_open, token_in_use)?;
        Ok(Self::with(core, app))
    }

    /// Puts this cookie (or the question for one) into the first SYN, and with a cookie as much
    /// of the application's data as a segment of `mss` bytes holds. Before the first `poll`.
    pub fn offer_fast_open(&mut self, cookie: FastOpenCookie, mss: u16) {
        self.core.offer_fast_open(cookie, mss);
    }

    pub(super) fn with(core: Core, app: A) -> Self {
        Self {
            core,
            app,
            told_over: false,
        }
    }

    /// A MP_JOIN SYN for this connection's token.
    ///
    /// # Errors
    /// Refused; the engine answers by RST with [`Connection::reset_reason`].
    pub fn accept_join(
        &mut self,
        cx: &mut Cx<'_>,
        path: SubflowPath,
        syn: &TcpPacket,
    ) -> Result<SubflowId, JoinReject> {
        self.core.accept_join(cx, path, syn)
    }

    /// What the RST that answers a refused join says; version 0 has no words for it.
    #[must_use]
    pub fn reset_reason(&self, reject: JoinReject) -> Option<u8> {
        let explains = self.core.version.explains_resets();
        explains.then(|| reject.reset_reason())
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
        self.fill_syn();
        full |= self.core.send_controls(cx, sink, false);
        full |= self.core.send_retransmissions(cx, sink);
        full |= self.core.send_bursts(cx, sink);
        full |= self.core.send_reinjections(cx, sink);
        full |= self.core.send_copies(cx, sink);
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
        self.core.is_mptcp().then_some(self.core.may_open())
    }

    /// Joins of the peer that wait for their third ACK.
    #[must_use]
    pub fn joins_pending(&self) -> usize {
        self.core.joins_pending()
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
        self.core.release_frames(cx)
    }

    /// Others need the frames that an idle connection's window promises.
    pub(crate) fn give_windows_back(&mut self, cx: &mut Cx<'_>) {
        self.core.give_windows_back(cx);
    }

    /// Frames that its window promises.
    pub(crate) fn promised_frames(&self) -> u32 {
        self.core.buffer.frames()
    }

    fn serve_reader(&mut self, cx: &mut Cx<'_>) {
        let core = &mut self.core;
        if std::mem::take(&mut core.rx_news) && !core.is_over() {
            self.app.on_readable(&mut core.rx);
        }
        let copied = core.rx.copybreak();
        cx.counters.add(Counter::RxCopybreak, copied);
    }

    /// Takes the data that goes with the SYN.
    fn fill_syn(&mut self) {
        let Some(room) = self.core.syn_room() else {
            return;
        };
        // Once per connection, not per packet.
        let mut data = vec![0; room];
        let mut n = 0;
        while n < room && self.app.send_state(&self.core.rx) == SendState::Ready {
            let (more, _) = self.app.fill(&mut self.core.rx, &mut data[n..]);
            if more == 0 {
                break;
            }
            n += more;
        }
        data.truncate(n);
        self.core.set_syn_data(data);
    }

    /// Takes new data from the application while some subflow can carry it.
    fn pull<S: TxSink>(&mut self, cx: &mut Cx<'_>, sink: &mut S) -> bool {
        let mut full = false;
        loop {
            let core = &mut self.core;
            if core.is_over() || !(core.is_established() || core.answers_early()) {
                return full;
            }
            let leftover = core.fast_open.has_leftover();
            let state = match self.app.send_state(&core.rx) {
                SendState::Abort => {
                    core.abort(cx);
                    return full;
                }
                _ if leftover => SendState::Ready,
                // Only the end that a leftover has put off is still to come.
                _ if core.closing.sending_ended() => {
                    core.end_sending();
                    SendState::Idle
                }
                SendState::Finished if !core.is_established() => SendState::Idle,
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
            let backlog = self.app.backlog(&core.rx);
            let Some(mut plan) = core.plan_burst(cx, sink, backlog, &mut full) else {
                return full;
            };
            let app = &mut self.app;
            let mut fast_open = std::mem::take(&mut core.fast_open);
            let taken = core.fill_burst(cx, sink, &mut plan, &mut full, |rx, out| {
                if fast_open.has_leftover() {
                    fast_open.refill(out)
                } else if leftover {
                    // What follows has a turn of its own: the application may be idle.
                    (0, Sum::ZERO)
                } else {
                    app.fill(rx, out)
                }
            });
            core.fast_open = fast_open;
            if taken == 0 {
                return full;
            }
            let finished = !leftover
                && core.is_established()
                && app.send_state(&core.rx) == SendState::Finished;
            core.start_burst(&plan, finished);
            full |= core.send_bursts(cx, sink);
            full |= core.send_copies(cx, sink);
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
            if let Some(findings) = self.app.findings() {
                cx.actions.events.push(Event::Checked {
                    token: self.core.id,
                    findings,
                });
            }
            self.app.on_closed(reason);
            cx.actions.events.push(Event::Closed {
                token: self.core.id,
                reason,
            });
        }
    }
}
