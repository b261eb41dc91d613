//! Segments without payload: handshake, ACKs, FIN, RST, probes and MPTCP's signals.
//!
//! Signals travel on pure ACKs of their own, so that data segments keep one header length.

use super::api::{Cx, TxSink};
use super::options::{self, AckOptions};
use super::state::{Core, Mode};
use super::subflow::{Phase, Subflow};
use crate::buf::Frame;
use crate::checksum::{Sum, copy_and_sum};
use crate::counters::Counter;
use crate::io::Tx;
use crate::offload::header::TcpHeaderOut;
use crate::tcp::{Control, State};
use crate::wire::mptcp::{DssMapping, MptcpOption, RESET_TRANSIENT, reset_reason};
use crate::wire::tcp::{Flags, SeqNumber};
use crate::wire::tcp_options::OptionsBuf;

/// Until so much was received, every ACK carries a DATA_ACK; then it may give way to SACK
/// blocks when it says nothing new.
const DATA_ACK_ALWAYS_BYTES: u64 = 256 << 10;

impl Core {
    /// Established subflows, those in good order first.
    pub(crate) fn signal_subflows(&self) -> impl Iterator<Item = usize> + '_ {
        let pick = |healthy: bool| {
            self.subflows
                .iter()
                .enumerate()
                .filter(move |(_, s)| s.is_established() && s.impaired() != healthy)
                .map(|(i, _)| i)
        };
        pick(true).chain(pick(false))
    }

    pub(crate) fn best_signal_subflow(&self) -> Option<usize> {
        self.signal_subflows().next()
    }

    /// A different subflow for each `n`, as far as there are any in good order.
    pub(crate) fn nth_signal_subflow(&self, n: usize) -> Option<usize> {
        let healthy = |i: &usize| !self.subflows[*i].impaired();
        let count = match self.signal_subflows().filter(healthy).count() {
            0 => self.signal_subflows().count(),
            healthy => healthy,
        };
        self.signal_subflows().nth(n % count.max(1))
    }

    /// SYN, FIN, RST, probes; with `acks`, everything else without payload, too.
    pub(crate) fn send_controls<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        acks: bool,
    ) -> bool {
        let mut full = false;
        for i in 0..self.subflows.len() {
            if !self.subflows[i].port_down {
                full |= self.send_subflow_controls(cx, sink, i, acks);
            }
        }
        full
    }

    /// Whether it is worth asking TCP, which needs a frame at hand.
    fn has_controls(&self, cx: &Cx<'_>, i: usize, acks: bool) -> bool {
        let s = &self.subflows[i];
        let due = s.tcp.next_deadline().is_some_and(|at| at <= cx.now);
        let empty = !s.may_signal(cx.now) && !s.data_fin_due && !s.probe_due;
        let acks = acks || s.third_ack_due;
        due || s.closing || s.rst_unsent || (acks && (s.tcp.is_ack_due(cx.now) || !empty))
    }

    fn send_subflow_controls<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        acks: bool,
    ) -> bool {
        if !self.has_controls(cx, i, acks) {
            return false;
        }
        let port = self.subflows[i].path.port;
        let mut spare = None;
        loop {
            if sink.room(port) == 0 {
                cx.counters.inc(Counter::TxRingFull);
                return true;
            }
            let Some(frame) = spare.take().or_else(|| sink.alloc(port)) else {
                cx.counters.inc(Counter::TxNoFrame);
                return true;
            };
            let s = &mut self.subflows[i];
            let control = if acks || s.third_ack_due {
                s.tcp.next_control(cx.now)
            } else {
                s.tcp.next_control_but_ack(cx.now)
            };
            let una = s.tcp.snd_una();
            let nxt = s.tcp.snd_nxt();
            let synchronized = s.tcp.state().is_synchronized();
            let sent = match control {
                Some(Control::Syn { attempt, .. } | Control::SynAck { attempt, .. }) => {
                    self.send_syn(cx, sink, i, frame, attempt)
                }
                Some(Control::Rst { seq, ack, .. }) => {
                    self.send_reset(cx, sink, i, frame, seq, ack)
                }
                Some(Control::Fin { seq }) => {
                    let mapping = self.infinite_mapping_on_fin(cx, i, seq);
                    let what = mapping.or_else(|| self.next_fail(cx.now, i));
                    self.send_empty(cx, sink, i, frame, seq, Flags::FIN | Flags::ACK, what)
                }
                Some(Control::Probe { seq }) => {
                    self.send_empty(cx, sink, i, frame, seq, Flags::ACK, None)
                }
                Some(Control::Ack { seq }) => {
                    // The keys before anything else: they decide what the peer does.
                    let what = if self.owes_keys(i) {
                        self.next_signal(cx, i)
                    } else {
                        self.take_data_fin_mapping(i)
                            .or_else(|| self.next_signal(cx, i))
                    };
                    self.send_empty(cx, sink, i, frame, seq, Flags::ACK, what)
                }
                None => {
                    s.rst_unsent = false;
                    if !acks || !synchronized || s.death.is_some() {
                        return false;
                    }
                    if std::mem::take(&mut s.probe_due) {
                        self.send_empty(cx, sink, i, frame, una - 1, Flags::ACK, None)
                    } else if let Some(fin) = self.take_data_fin_mapping(i) {
                        self.send_empty(cx, sink, i, frame, nxt, Flags::ACK, Some(fin))
                    } else if self.owes_keys(i) || !self.subflows[i].may_signal(cx.now) {
                        // Signals wait for the keys, and for their turn.
                        return false;
                    } else {
                        let signal = self.next_signal(cx, i);
                        self.send_empty(cx, sink, i, frame, nxt, Flags::ACK, signal)
                    }
                }
            };
            match sent {
                Tx::Queued => {}
                Tx::Full => {
                    cx.counters.inc(Counter::TxRingFull);
                    return true;
                }
                Tx::NoCarrier => {
                    cx.counters.inc(Counter::TxNoCarrier);
                    self.on_port(cx, port, true);
                    return false;
                }
            }
        }
    }

    fn send_syn<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        mut frame: Frame,
        attempt: u8,
    ) -> Tx {
        let option = self.syn_option(cx, i, attempt);
        let cookie = self.fast_open_option(i, attempt);
        let fields = self.subflows[i].tcp.syn_fields(cx.now);
        let options = options::syn(&fields, option.as_ref(), cookie.as_ref());
        let s = &self.subflows[i];
        let port = s.path.port;
        let header = TcpHeaderOut {
            seq: s.tcp.iss(),
            ack: fields.ack.unwrap_or_default(),
            flags: fields.flags,
            window: fields.window,
            urgent: 0,
            ecn: 0,
        };
        emit_with(s, &mut frame, &header, &options, self.syn_data(i, attempt));
        let tx = sink.send(port, &frame);
        if tx == Tx::Queued && attempt == 0 {
            self.first_syn_sent(cx, i);
        }
        tx
    }

    fn send_reset<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        mut frame: Frame,
        seq: SeqNumber,
        ack: Option<SeqNumber>,
    ) -> Tx {
        let fastclose = self.remote.map(|k| MptcpOption::FastClose {
            receiver_key: k.key,
        });
        let s = &mut self.subflows[i];
        s.rst_unsent = false;
        let mut options = OptionsBuf::new();
        // 4 + 12 + 12 bytes: everything fits.
        // Version 0 has neither on a RST.
        let explains = self.version.explains_resets();
        if s.reset_fastclose
            && explains
            && let Some(option) = fastclose
        {
            let _ = options.mptcp(&option);
        }
        if let Some(dsn) = s.reset_fail {
            let _ = options.mptcp(&MptcpOption::MpFail { dsn });
        }
        if let Some(reason) = s.reset_reason.filter(|_| explains) {
            // RFC 8684 §3.6: what may pass is worth another try.
            let passes = matches!(
                reason,
                reset_reason::LACK_OF_RESOURCES
                    | reset_reason::TOO_MUCH_DATA
                    | reset_reason::BAD_PERFORMANCE
            );
            let flags = if passes { RESET_TRANSIENT } else { 0 };
            let _ = options.mptcp(&MptcpOption::TcpRst { flags, reason });
            cx.counters.inc(Counter::MPRstTx);
        }
        let mut flags = Flags::RST;
        let mut window = 0;
        if ack.is_some() {
            flags |= Flags::ACK;
            // Nobody reads it but boxes on the way, which drop what takes a window back.
            let fields = s.tcp.header(cx.now);
            window = if Some(fields.ack) == ack {
                fields.window
            } else {
                0
            };
        }
        let header = TcpHeaderOut {
            seq,
            ack: ack.unwrap_or_default(),
            flags,
            window,
            urgent: 0,
            ecn: 0,
        };
        emit(s, &mut frame, &header, &options);
        sink.send(s.path.port, &frame)
    }

    /// The DSS of a DATA_FIN without data, if one is due on subflow `i`.
    fn take_data_fin_mapping(&mut self, i: usize) -> Option<MptcpOption> {
        if !std::mem::take(&mut self.subflows[i].data_fin_due) || self.mode == Mode::Tcp {
            return None;
        }
        let fin = self.closing.fin().filter(|_| self.closing.fin_unacked())?;
        let map = self.mapping(fin, 0, 0, true, Sum::ZERO);
        let mapping = DssMapping {
            dsn: self.snd_space.dsn(map.dsn).0,
            wide: true,
            ssn: 0,
            len: 1,
            checksum: self.checksum.then_some(map.csum),
        };
        let ack = self.data_ack().map(|a| self.rcv_space.dsn(a).0);
        Some(options::dss(ack, Some(mapping), true))
    }

    /// The client's ACKs carry MP_CAPABLE until it sends data (which then does) or hears
    /// that the server has it.
    fn owes_keys(&self, i: usize) -> bool {
        let s = &self.subflows[i];
        let data_sent = s.tcp.snd_nxt() != s.tcp.snd_start();
        self.is_mptcp()
            && !self.server
            && s.initial
            && s.phase == Phase::Established
            && !self.fully_established
            && !data_sent
    }

    /// The option that an ACK of subflow `i` is to carry besides the DATA_ACK.
    fn next_signal(&mut self, cx: &Cx<'_>, i: usize) -> Option<MptcpOption> {
        let s = &self.subflows[i];
        if s.phase == Phase::PreEstablished {
            return self.join_ack(i);
        }
        if s.phase != Phase::Established {
            return None;
        }
        if self.owes_keys(i) {
            return self.capable_ack(cx.config, None);
        }
        self.next_fail(cx.now, i).or_else(|| {
            let s = &mut self.subflows[i];
            if s.may_signal(cx.now) {
                s.signals.pop_front()
            } else {
                None
            }
        })
    }

    /// A segment without payload.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a field of the segment; a struct would only rename them"
    )]
    fn send_empty<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        mut frame: Frame,
        seq: SeqNumber,
        flags: Flags,
        signal: Option<MptcpOption>,
    ) -> Tx {
        let ack = self.data_ack().filter(|_| {
            // Before that the peer expects its handshake, not a DSS.
            self.subflows[i].phase == Phase::Established
        });
        let window = self
            .window_option()
            .filter(|_| self.subflows[i].phase == Phase::Established);
        // The latest edge, also in place of one that has waited.
        let is_window = matches!(signal, Some(MptcpOption::Window { .. }));
        let signal = signal
            .filter(|_| !is_window)
            .or(window.filter(|_| is_window).map(|w| w.0));
        let plentiful = self.reassembly.nxt() > DATA_ACK_ALWAYS_BYTES;
        let s = &mut self.subflows[i];
        let fields = s.tcp.header(cx.now);
        let sack = s.tcp.sack_blocks(3);
        let is_dss = matches!(signal, Some(MptcpOption::Dss(_)));
        // The third packet of a handshake acknowledges something: it is no duplicate.
        let signalled = signal.is_some()
            && !is_dss
            && !matches!(
                signal,
                Some(MptcpOption::MpCapable { .. } | MptcpOption::MpJoinAck { .. })
            );
        // A DATA_ACK that says nothing new gives way to SACK blocks.
        let stale_ack = ack == Some(s.data_ack_sent) && plentiful && !sack.is_empty();
        let dss = ack
            .filter(|_| !is_dss && !stale_ack)
            .map(|a| options::dss(Some(self.rcv_space.dsn(a).0), None, false));
        let layout = AckOptions {
            timestamps: fields.timestamps,
            signal,
            dss,
            sack: &sack,
            window: window.filter(|_| !is_window).map(|(option, _)| option),
        }
        .build();
        debug_assert!(layout.signal_fits, "a signal does not fit into an ACK");
        if layout.dss_fits
            && let Some(ack) = ack
            && dss.is_some()
        {
            s.data_ack_sent = ack;
        }
        let header = TcpHeaderOut {
            seq,
            ack: fields.ack,
            flags: flags | fields.flags,
            window: fields.window,
            urgent: 0,
            ecn: 0,
        };
        emit(s, &mut frame, &header, &layout.options);
        let tx = sink.send(s.path.port, &frame);
        if tx == Tx::Queued {
            s.tcp.ack_sent(cx.now);
            s.third_ack_due = false;
            s.totals.acks_sent += 1;
            if signalled {
                s.signal_sent(cx.now);
            }
            if let Some((_, edge)) = window.filter(|_| layout.window_fits || is_window) {
                self.window_option_sent(cx, edge);
            }
        }
        tx
    }
}

/// Writes a segment without payload.
fn emit(s: &Subflow, frame: &mut Frame, header: &TcpHeaderOut, options: &OptionsBuf) {
    emit_with(s, frame, header, options, &[]);
}

/// Writes a segment and a copy of its payload.
fn emit_with(
    s: &Subflow,
    frame: &mut Frame,
    header: &TcpHeaderOut,
    options: &OptionsBuf,
    payload: &[u8],
) {
    // A wrong acknowledgment of a SYN is answered by RST (RFC 9293 §3.10.7.3).
    let before = Flags::SYN | Flags::RST;
    debug_assert!(s.tcp.state() != State::SynSent || header.flags.intersects(before));
    let Some(out) = frame.buffer_mut() else {
        debug_assert!(false, "a fresh frame is in flight");
        return;
    };
    let behind = s.template.header_len(options.padded_len());
    let Some(room) = out.get_mut(behind..behind + payload.len()) else {
        debug_assert!(false, "a fresh frame has no room for a segment");
        return;
    };
    let sum = copy_and_sum(room, payload);
    s.template.emit(out, header, options, payload.len(), sum);
    frame.set_len(behind + payload.len());
}
