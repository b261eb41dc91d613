//! Streams that boxes have changed without anybody being able to see it: where their bytes
//! belong.

use std::collections::HashMap;

use braid_dataplane::app::pattern;
use braid_dataplane::checksum;

/// What an edit makes of a stream is within a segment.
pub(super) const EDIT_BYTES_MAX: u64 = 1_500;

/// How far it can move what stands behind it.
const MOVED_MAX: usize = 1_500;

/// Bytes that prove where they belong.
const PROOF: usize = 24;

/// Where pieces of [`PROOF`] bytes stand in a period of the pattern.
fn places(sent: &[u8]) -> HashMap<&[u8], usize> {
    let pieces = sent.windows(PROOF).take(pattern::PERIOD);
    pieces.enumerate().map(|(at, piece)| (piece, at)).collect()
}

/// How many bytes of a received stream are neither at their place nor where an edit can have
/// moved them: by [`MOVED_MAX`] on their subflow. There the last bytes of a stretch, as many as
/// it moved by, make room for the first ones of the next stretch that the subflow carries, and
/// what is in between in the stream went elsewhere.
pub(super) fn strange_bytes(got: &[u8]) -> u64 {
    let mut sent = vec![0; got.len().max(pattern::PERIOD) + MOVED_MAX];
    pattern::fill(0, &mut sent);
    let (mut everywhere, mut too_much) = (None, None);
    let belongs = |at: usize, to: usize| {
        let end = got.len().min(at + PROOF);
        sent.get(to..to + (end - at)) == Some(&got[at..end])
    };
    let mut strange = 0;
    // Where the byte at hand would be, had it not been moved.
    let (mut at, mut place) = (0, 0);
    while at < got.len() {
        let near = at.saturating_sub(MOVED_MAX)..=at + MOVED_MAX;
        if sent.get(place) == Some(&got[at]) && near.contains(&place) {
            (at, place) = (at + 1, place + 1);
            continue;
        }
        if let Some(found) = [at].into_iter().chain(near).find(|to| belongs(at, *to)) {
            place = found;
            continue;
        }
        let next_stretch = got.get(at..at + PROOF).and_then(|piece| {
            let everywhere = everywhere.get_or_insert_with(|| places(&sent));
            everywhere.get(piece)
        });
        // More of the same is too much.
        let next_stretch = next_stretch.copied().map(|to| (at, to));
        let moved = next_stretch
            .filter(|found| Some(*found) != too_much)
            .map_or(0, |(_, to)| {
                let pairs = got[at..].iter().zip(sent[to..].iter());
                pairs.take(MOVED_MAX).take_while(|(a, b)| a == b).count()
            });
        strange += u64::from(moved == 0);
        let step = moved.max(1);
        too_much = next_stretch.map(|(_, to)| (at + step, (to + step) % pattern::PERIOD));
        (at, place) = (at + step, at + step);
    }
    strange
}

/// Whether what was received has the Internet checksum of what was sent. Bytes that DSS
/// checksums have passed do, even where a box changed them: one change in 65,535 leaves the
/// checksum of its mapping as it was, and nobody can see it (RFC 1071). Of changes that no
/// checksum has passed, as few do.
pub(super) fn sums_as_sent(got: &[u8]) -> bool {
    let mut sent = vec![0; got.len()];
    let sum = pattern::fill(0, &mut sent);
    sum.finish() == checksum::sum(got).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        pattern::fill(0, &mut bytes);
        bytes
    }

    #[test]
    fn moved_bytes_are_known_and_strangers_are_counted() {
        let right = sent(20_000);
        assert_eq!(strange_bytes(&right), 0);
        let mut grown = right.clone();
        grown.splice(5_000..5_000, *b"203.0");
        assert!((1..=5).contains(&strange_bytes(&grown)));
        let mut shrunk = right.clone();
        shrunk.drain(5_000..6_000);
        assert_eq!(strange_bytes(&shrunk), 0);
        // Two subflows take turns, one behind an edit.
        let mut turns = right.clone();
        for at in (6_000..18_000).step_by(2_000) {
            turns[at..at + 1_000].copy_from_slice(&grown[at..at + 1_000]);
        }
        assert_eq!(strange_bytes(&turns), 0);
        // A stretch ends with what begins the next one on its subflow, no more.
        let mut apart = right.clone();
        apart.copy_within(15_000..16_000, 7_000);
        assert_eq!(strange_bytes(&apart), 0);
        apart.copy_within(15_000..19_000, 7_000);
        assert!(strange_bytes(&apart) > 0);
        let mut foreign = right.clone();
        foreign[4_000..6_000]
            .iter_mut()
            .for_each(|byte| *byte ^= 0x55);
        assert!(strange_bytes(&foreign) > EDIT_BYTES_MAX);
    }

    #[test]
    fn only_what_no_checksum_can_see_sums_as_sent() {
        let right = sent(20_000);
        assert!(sums_as_sent(&right));
        let mut swapped = right.clone();
        swapped.swap(5_000, 5_002);
        assert_ne!(swapped, right);
        assert!(sums_as_sent(&swapped), "the sum does not know the order");
        swapped.swap(5_000, 5_003);
        assert!(!sums_as_sent(&swapped), "but odd from even places");
        let mut shrunk = right[..5_000].to_vec();
        shrunk.extend_from_slice(&sent(20_005)[5_005..]);
        assert!(!sums_as_sent(&shrunk));
    }
}
