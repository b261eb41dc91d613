//! Bursts that leave segment by segment, as one train: what their headers share is laid out
//! and summed once, and TCP is told once what has left.

use super::api::{Cx, TxSink};
use super::options;
use super::output::Outcome;
use super::state::Core;
use super::subflow::Burst;
use crate::io::Tx;
use crate::offload::header::TcpHeaderOut;
use crate::tcp::MapRef;
use crate::time::Instant;
use crate::wire::tcp::Flags;

impl Core {
    /// Sends the segments of a burst that can leave in place. Returns the end of what has
    /// left, and what stopped the rest; `None` if the first segment wants care of its own.
    pub(super) fn transmit_train<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        burst: Burst,
    ) -> Option<(u64, Outcome)> {
        let s = &self.subflows[i];
        let marks = s.tcp.data_marks(s.tcp.snd_nxt());
        // CWR goes on one segment only (RFC 3168 §6.1.2), an infinite mapping is counted by
        // the segment, and keys stand on the first one alone.
        let special = (burst.map.len == 0 && burst.map != MapRef::default())
            || marks.flags.contains(Flags::CWR)
            || self.carries_keys(s, burst.map.ssn);
        if special {
            return None;
        }
        let (option, ack) = self.data_option(cx, i, burst.map);
        let s = &mut self.subflows[i];
        let port = s.path.port;
        let fields = s.tcp.header(cx.now);
        let options = options::data(fields.timestamps, option.as_ref(), s.data_options_len());
        let mut seq = s.tcp.snd_nxt();
        let header = TcpHeaderOut {
            seq,
            ack: fields.ack,
            flags: fields.flags,
            window: fields.window,
            urgent: 0,
            ecn: marks.ecn,
        };
        let headers = s.template.prepare(&header, &options);
        let mut end = burst.next;
        let mut stopped = None;
        for chunk in self.send.chunks_from_mut(burst.next) {
            let in_place = chunk.off == end
                && end < burst.end
                && chunk.header_len == headers.len()
                && sink.shares_frames(chunk.port, port);
            if !in_place {
                break;
            }
            let (len, chunk_end) = (chunk.len, chunk.end());
            let Some(frame) = chunk.frame.as_mut() else {
                break;
            };
            let flags = if chunk_end == burst.end {
                fields.flags | Flags::PSH
            } else {
                fields.flags
            };
            let sum = chunk.sum;
            let free = frame.write(|out| {
                headers.emit(out, seq, flags, len as usize, sum);
                headers.len() + len as usize
            });
            if !free {
                break;
            }
            match sink.send(port, frame) {
                Tx::Queued => {}
                tx => {
                    stopped = Some(tx);
                    break;
                }
            }
            seq += len;
            end = chunk_end;
        }
        if end > burst.next {
            self.data_sent(cx, i, Tx::Queued, ack);
        }
        match stopped {
            Some(tx) => Some((end, self.data_sent(cx, i, tx, None))),
            None if end > burst.next => Some((end, Outcome::Sent)),
            None => None,
        }
    }

    /// New data of a burst has left, up to `end`.
    pub(super) fn record_sent(&mut self, now: Instant, i: usize, burst: Burst, end: u64) {
        self.sent_max = self.sent_max.max(end);
        let s = &mut self.subflows[i];
        let mss = s.tcp.mss();
        // TCP cuts what it is told of at its segment size: full segments can be told at once.
        let mut run = (burst.next, 0);
        let mut segments = 0;
        for chunk in self.send.chunks_from(burst.next) {
            if chunk.off >= end {
                break;
            }
            s.push_sent(chunk.off, chunk.len);
            segments += 1;
            run.1 += chunk.len;
            if chunk.len != mss {
                s.tcp.record_new(now, run.1, run.0, burst.map);
                run = (chunk.end(), 0);
            }
        }
        if run.1 > 0 {
            s.tcp.record_new(now, run.1, run.0, burst.map);
        }
        s.totals.bytes_sent += end - burst.next;
        s.totals.segments_sent += segments;
        s.burst = (end < burst.end).then_some(Burst { next: end, ..burst });
    }
}
