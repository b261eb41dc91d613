//! What most boxes have in common: they act on sound TCP segments, keep state per flow, and
//! count.

use std::collections::BTreeMap;
use std::fmt::Debug;

use braid_dataplane::time::Instant;

use super::segment::{Flow, Segment};
use super::{Element, Out, Toward};

/// Flows a box remembers; the box is as forgetful as a real one under load.
const FLOWS_MAX: usize = 4096;

/// Where a rule puts what it lets out and counts what it does.
#[derive(Debug)]
pub struct Exit<'a> {
    out: &'a mut Vec<Out>,
    counts: &'a mut Counts,
}

impl Exit<'_> {
    /// Lets a segment out.
    pub fn send(&mut self, toward: Toward, segment: &Segment) {
        self.send_frame(toward, segment.emit());
    }

    /// Lets a frame out.
    pub fn send_frame(&mut self, toward: Toward, frame: Vec<u8>) {
        self.out.push(Out { toward, frame });
    }

    /// Counts one.
    pub fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// Counts several.
    pub fn add(&mut self, name: &'static str, n: u64) {
        self.counts.add(name, n);
    }
}

/// Counts by name.
#[derive(Clone, Default, Debug)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts several.
    pub fn add(&mut self, name: &'static str, n: u64) {
        if n > 0 {
            *self.0.entry(name).or_default() += n;
        }
    }

    /// As [`Element::counts`] wants them.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        self.0.iter().map(|(k, v)| (*k, *v)).collect()
    }
}

/// What a box does with a TCP segment.
pub trait Rule: Send + Debug {
    /// A segment arrives.
    fn apply(&mut self, now: Instant, toward: Toward, segment: Segment, exit: &mut Exit<'_>);

    /// When [`Self::on_timer`] wants to be called.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The clock reached [`Self::next_deadline`].
    fn on_timer(&mut self, now: Instant, exit: &mut Exit<'_>) {
        let _ = (now, exit);
    }
}

/// An element that applies a rule to TCP segments and lets everything else through.
#[derive(Debug)]
pub struct Tcp<R> {
    rule: R,
    counts: Counts,
}

impl<R: Rule + 'static> Tcp<R> {
    /// A box with this rule.
    #[must_use]
    pub fn new(rule: R) -> Self {
        Self {
            rule,
            counts: Counts::default(),
        }
    }

    /// The same behind a pointer, as lists of elements want it.
    #[must_use]
    pub fn boxed(rule: R) -> Box<dyn Element> {
        Box::new(Self::new(rule))
    }
}

impl<R: Rule> Element for Tcp<R> {
    fn on_frame(&mut self, now: Instant, toward: Toward, frame: Vec<u8>, out: &mut Vec<Out>) {
        match Segment::parse(&frame) {
            Some(segment) => {
                let counts = &mut self.counts;
                self.rule
                    .apply(now, toward, segment, &mut Exit { out, counts });
            }
            None => out.push(Out { toward, frame }),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.rule.next_deadline()
    }

    fn on_timer(&mut self, now: Instant, out: &mut Vec<Out>) {
        let counts = &mut self.counts;
        self.rule.on_timer(now, &mut Exit { out, counts });
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.list()
    }
}

/// State per flow.
#[derive(Clone, Debug)]
pub struct Flows<S>(BTreeMap<Flow, S>);

impl<S> Default for Flows<S> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<S: Default> Flows<S> {
    /// The state of a flow; new flows start with the default.
    pub fn of(&mut self, flow: Flow) -> &mut S {
        if self.0.len() >= FLOWS_MAX && !self.0.contains_key(&flow) {
            self.0.clear();
        }
        self.0.entry(flow).or_default()
    }

    /// Every state.
    pub fn values(&self) -> impl Iterator<Item = &S> {
        self.0.values()
    }

    /// Every state, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut S> {
        self.0.values_mut()
    }
}

/// Which packets a box concerns itself with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both ways.
    Both,
}

impl Way {
    /// Whether packets that travel `toward` are meant.
    #[must_use]
    pub fn covers(self, toward: Toward) -> bool {
        match self {
            Self::ToServer => toward == Toward::Server,
            Self::ToClient => toward == Toward::Client,
            Self::Both => true,
        }
    }
}

impl Toward {
    /// The other way.
    #[must_use]
    pub fn back(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// 0 to the client, 1 to the server.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self == Self::Server)
    }
}
