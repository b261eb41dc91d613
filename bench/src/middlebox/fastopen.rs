//! Boxes that dislike payload in SYNs (K2). K1 is [`super::handshake::Swallow`], K3 is
//! [`super::strip::Strip`].

use braid_dataplane::time::Instant;

use super::Toward;
use super::rule::{Exit, Rule};
use super::segment::Segment;

/// K2: SYNs go on without their payload.
#[derive(Default, Debug)]
pub struct EmptySyn;

impl Rule for EmptySyn {
    fn apply(&mut self, _: Instant, toward: Toward, mut s: Segment, exit: &mut Exit<'_>) {
        if !s.is_past_syn() && !s.payload.is_empty() {
            exit.add("SYN bytes removed", s.payload.len() as u64);
            s.payload.clear();
        }
        exit.send(toward, &s);
    }
}
