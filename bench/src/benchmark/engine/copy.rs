//! Pieces of a packet's size, copied within a working set: what no endpoint that touches
//! its payload can exceed.

use std::hint::black_box;

use super::braid::HEADERS_BYTES;
use super::{Sample, Stopwatch};

/// Copies `bytes` in pieces of a frame's payload, round and round in buffers that are
/// `working_set_bytes` together.
#[must_use]
pub fn pieces(frame_bytes: u32, working_set_bytes: usize, bytes: u64) -> Sample {
    let piece = frame_bytes.saturating_sub(HEADERS_BYTES).max(1) as usize;
    let slots = (working_set_bytes / 2 / piece).max(1);
    // Written before the clock starts: the first touch of a page is not a copy's cost.
    let source = vec![1_u8; slots * piece];
    let mut target = vec![2_u8; slots * piece];
    let packets = bytes.div_ceil(piece as u64);
    let start = Stopwatch::start();
    let mut done = 0;
    while done < packets {
        let pairs = source
            .chunks_exact(piece)
            .zip(target.chunks_exact_mut(piece));
        for (from, to) in pairs {
            black_box(&mut *to).copy_from_slice(black_box(from));
            done += 1;
            if done == packets {
                break;
            }
        }
    }
    Sample {
        bytes: packets * piece as u64,
        packets,
        elapsed: start.elapsed(),
        ends_per_core: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_at_least_what_was_asked_for() {
        let sample = pieces(1514, 1 << 20, 10_000_000);
        assert!(sample.bytes >= 10_000_000 && sample.bytes < 10_002_000);
        assert!(!sample.elapsed.is_zero());
    }
}
