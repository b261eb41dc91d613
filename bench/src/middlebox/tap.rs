//! What passed one point of a path, put together by sequence number: what plain TCP would
//! have delivered there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use braid_dataplane::time::Instant;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};

use super::segment::{Flow, Segment};
use super::{Element, Out, Toward};

/// An element that changes nothing and remembers the streams of one direction.
#[derive(Debug)]
pub struct Tap {
    toward: Toward,
    streams: Streams,
}

/// What a [`Tap`] has seen; stays readable when the tap is gone.
#[derive(Clone, Default, Debug)]
pub struct Streams(Arc<Mutex<BTreeMap<Flow, Stream>>>);

/// One direction of one flow.
#[derive(Clone, Default, Debug)]
struct Stream {
    /// The byte after the SYN.
    next: Option<SeqNumber>,
    bytes: Vec<u8>,
    waiting: BTreeMap<u32, Vec<u8>>,
    /// Where the FIN stands, as an offset.
    fin: Option<usize>,
}

impl Stream {
    fn add(&mut self, s: &Segment) {
        if s.flags.contains(Flags::SYN) && self.next.is_none() {
            self.next = Some(s.seq + 1);
        }
        let Some(start) = self.next else { return };
        let seq = s.seq + u32::from(s.flags.contains(Flags::SYN));
        let Ok(at) = u32::try_from(seq.diff(start)) else {
            return;
        };
        let end = at as usize + s.payload.len();
        if s.flags.contains(Flags::FIN) {
            self.fin = Some(end);
        }
        if end > self.bytes.len() {
            self.waiting
                .entry(at)
                .and_modify(|old| {
                    if old.len() < s.payload.len() {
                        // The first version of a byte counts.
                        old.extend_from_slice(&s.payload[old.len()..]);
                    }
                })
                .or_insert_with(|| s.payload.clone());
        }
        while let Some(entry) = self.waiting.first_entry() {
            let at = *entry.key() as usize;
            if at > self.bytes.len() {
                break;
            }
            let piece = entry.remove();
            let known = self.bytes.len() - at;
            self.bytes.extend(piece.iter().skip(known));
        }
    }
}

impl Streams {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Flow, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flows seen so far.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        self.lock().keys().copied().collect()
    }

    /// What passed of a flow in order, and whether its end did.
    #[must_use]
    pub fn stream(&self, flow: Flow) -> (Vec<u8>, bool) {
        let streams = self.lock();
        streams.get(&flow).map_or((Vec::new(), false), |s| {
            (s.bytes.clone(), s.fin == Some(s.bytes.len()))
        })
    }
}

impl Tap {
    /// A tap for what travels `toward`, and what it sees.
    #[must_use]
    pub fn new(toward: Toward) -> (Self, Streams) {
        let streams = Streams::default();
        let tap = Self {
            toward,
            streams: streams.clone(),
        };
        (tap, streams)
    }
}

impl Element for Tap {
    fn on_frame(&mut self, _: Instant, toward: Toward, frame: Vec<u8>, out: &mut Vec<Out>) {
        if toward == self.toward
            && let Some(segment) = Segment::parse(&frame)
        {
            let flow = segment.flow(toward);
            self.streams.lock().entry(flow).or_default().add(&segment);
        }
        out.push(Out { toward, frame });
    }
}
