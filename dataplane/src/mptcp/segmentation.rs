//! Bursts that leave whole: one set of headers, one mapping, the port cuts the segments.

use super::api::{Cx, TxSink};
use super::options;
use super::output::Outcome;
use super::state::Core;
use super::subflow::Burst;
use crate::counters::Counter;
use crate::offload::header::TcpHeaderOut;
use crate::offload::{BURST_FRAMES_MAX, BurstShape};
use crate::wire::tcp::Flags;

impl Core {
    /// Hands the rest of a burst to a port that segments. Returns the end of what has left
    /// and what became of it; `None` if the burst cannot go this way.
    pub(super) fn transmit_segments<S: TxSink>(
        &mut self,
        cx: &mut Cx<'_>,
        sink: &mut S,
        i: usize,
        burst: Burst,
    ) -> Option<(u64, Outcome)> {
        let port = self.subflows[i].path.port;
        let limit = sink.segment_bytes(port) as usize;
        if limit == 0 || self.carries_keys(&self.subflows[i], burst.map.ssn) {
            return None;
        }
        let s = &self.subflows[i];
        let header_len = s.data_header_len();
        let mut chunks = self.send.chunks_from(burst.next);
        let first = chunks.next().filter(|c| c.off == burst.next)?;
        let frame = first.frame.as_ref()?;
        if first.header_len != header_len || frame.in_flight() {
            return None;
        }
        // A packet that does not fit into one frame is several segments of ours.
        let segment_bytes = u16::try_from(first.len * s.tcp.parts()).ok()?;
        let (mut end, mut bytes) = (first.end(), first.len as usize);
        let mut full = sink.shares_frames(first.port, port);
        // Only the last segment may be shorter than the first. A port refuses a burst of more
        // frames for good: the rest is another one.
        for chunk in chunks.take(BURST_FRAMES_MAX - 1) {
            let room = limit - header_len - bytes;
            if !full
                || chunk.off >= burst.end
                || chunk.len as usize > room
                || chunk.len > first.len
                || chunk.frame.is_none()
                || !sink.shares_frames(chunk.port, port)
            {
                break;
            }
            end = chunk.end();
            bytes += chunk.len as usize;
            full = chunk.len == first.len;
        }
        if end == first.end() {
            return None;
        }

        let marks = s.tcp.data_marks(s.tcp.snd_nxt());
        if marks.flags.contains(Flags::CWR) {
            // On one segment only (RFC 3168 §6.1.2).
            return None;
        }
        let (option, ack) = self.data_option(cx, i, burst.map);
        let s = &mut self.subflows[i];
        let fields = s.tcp.header(cx.now);
        let options = options::data(fields.timestamps, option.as_ref(), s.data_options_len());
        let header = TcpHeaderOut {
            seq: s.tcp.snd_nxt(),
            ack: fields.ack,
            flags: if end == burst.end {
                fields.flags | Flags::PSH
            } else {
                fields.flags
            },
            window: fields.window,
            urgent: 0,
            ecn: marks.ecn,
        };
        let shape = BurstShape {
            header_len,
            tcp_offset: s.template.tcp_offset(),
            segment_bytes,
            ipv6: s.tuple().is_ipv6(),
        };
        let first = self.send.chunk_mut(burst.next)?;
        let first_len = first.len as usize;
        let frame = first.frame.as_mut()?;
        s.template
            .emit_partial(frame.buffer_mut()?, &header, &options, bytes);
        frame.set_len(header_len + first_len);
        let frames = self
            .send
            .chunks_from(burst.next)
            .take_while(|c| c.off < end)
            .filter_map(|c| {
                let front = if c.off == burst.next { 0 } else { c.header_len };
                let frame = c.frame.as_ref()?;
                Some((frame, front..c.header_len + c.len as usize))
            });
        let tx = sink.send_burst(port, &shape, frames);
        cx.counters.inc(Counter::TxBursts);
        match self.data_sent(cx, i, tx, ack) {
            Outcome::Sent => Some((end, Outcome::Sent)),
            outcome => Some((burst.next, outcome)),
        }
    }
}
