//! What passed one point of a path, put together by sequence number: what plain TCP would
//! have delivered there, and what the mappings beside it say of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use braid_dataplane::time::Instant;
use braid_dataplane::wire::mptcp::MptcpOption;
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::TcpOptions;

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

/// A mapping that passed (RFC 8684 §3.3.1).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mapped {
    /// Data sequence number; MP_CAPABLE leaves out that of the first byte.
    pub dsn: Option<u64>,
    /// Relative subflow sequence number.
    pub ssn: u32,
    /// Length, a DATA_FIN counted.
    pub len: u16,
    /// A DATA_FIN is counted.
    pub fin: bool,
    /// The DSS checksum.
    pub checksum: Option<u16>,
}

/// What passed of one direction of a flow.
#[derive(Clone, Default, Debug)]
pub struct Passed {
    /// Its bytes, from the one behind the SYN.
    pub bytes: Vec<u8>,
    /// Its mappings, without order.
    pub mappings: Vec<Mapped>,
}

/// One direction of one flow.
#[derive(Clone, Default, Debug)]
struct Stream {
    /// The byte after the SYN.
    next: Option<SeqNumber>,
    bytes: Vec<u8>,
    waiting: BTreeMap<u32, Vec<u8>>,
    /// Where the FIN stands, as an offset.
    fin: Option<usize>,
    mappings: HashSet<Mapped>,
}

/// The mapping that an option makes of the bytes beside it.
fn mapped(option: &MptcpOption) -> Option<Mapped> {
    match *option {
        MptcpOption::Dss(dss) => dss.mapping.map(|m| Mapped {
            dsn: Some(m.dsn),
            ssn: m.ssn,
            len: m.len,
            fin: dss.data_fin,
            checksum: m.checksum,
        }),
        MptcpOption::MpCapable {
            data_len, checksum, ..
        } => data_len.map(|len| Mapped {
            dsn: None,
            ssn: 1,
            len,
            fin: false,
            checksum,
        }),
        _ => None,
    }
}

impl Stream {
    fn add(&mut self, s: &Segment) {
        let options = TcpOptions::parse(&s.options);
        self.mappings
            .extend(options.mptcp.as_slice().iter().filter_map(mapped));
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

    /// What passed of a flow in order, and every mapping of it.
    #[must_use]
    pub fn passed(&self, flow: Flow) -> Passed {
        let streams = self.lock();
        streams.get(&flow).map_or_else(Passed::default, |s| Passed {
            bytes: s.bytes.clone(),
            mappings: s.mappings.iter().copied().collect(),
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
