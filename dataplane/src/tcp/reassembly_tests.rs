//! First bytes win, SACK tells the truth, limits hold.

use super::*;
use crate::buf::Piece;
use proptest::prelude::*;

fn bytes(text: &str) -> Chain {
    Chain::from(Piece::copied(text.as_bytes(), None))
}

fn text(chunk: &RxChunk) -> String {
    chunk
        .chain
        .iter()
        .map(|piece| String::from_utf8_lossy(piece.bytes()).into_owned())
        .collect()
}

fn drain(r: &mut Reassembly) -> String {
    std::iter::from_fn(|| r.pop())
        .map(|chunk| text(&chunk))
        .collect()
}

fn seq(n: u32) -> SeqNumber {
    SeqNumber(n)
}

fn blocks(r: &Reassembly) -> Vec<(u32, u32)> {
    r.sack_blocks(4).iter().map(|(l, r)| (l.0, r.0)).collect()
}

#[test]
fn in_order_data_passes_through() {
    let mut r = Reassembly::new(100);
    let got = r.receive(seq(0), seq(0), bytes("abc"));
    assert_eq!(
        got,
        Received {
            advanced: 3,
            ..Received::default()
        }
    );
    assert_eq!(drain(&mut r), "abc");
}

#[test]
fn a_gap_is_filled_and_reported_by_recency() {
    let mut r = Reassembly::new(100);
    assert!(r.receive(seq(0), seq(3), bytes("def")).queued);
    assert!(r.receive(seq(0), seq(9), bytes("jkl")).queued);
    assert_eq!(blocks(&r), [(9, 12), (3, 6)]);
    r.receive(seq(0), seq(6), bytes("g"));
    assert_eq!(blocks(&r), [(3, 7), (9, 12)]);
    let got = r.receive(seq(0), seq(0), bytes("abc"));
    assert_eq!((got.advanced, got.filled), (7, true));
    assert_eq!(blocks(&r), [(9, 12)]);
    let got = r.receive(seq(7), seq(7), bytes("hi"));
    assert_eq!(got.advanced, 5);
    assert_eq!(drain(&mut r), "abcdefghijkl");
    assert!(r.is_contiguous() && r.queued_bytes() == 0 && blocks(&r).is_empty());
}

#[test]
fn what_came_first_stays() {
    let mut r = Reassembly::new(100);
    r.receive(seq(0), seq(2), bytes("cd"));
    r.receive(seq(0), seq(6), bytes("gh"));
    let got = r.receive(seq(0), seq(1), bytes("BCDEFGHI"));
    assert!(got.queued && got.duplicate);
    assert_eq!(blocks(&r)[0], (2, 4), "DSACK first");
    assert_eq!(blocks(&r)[1], (1, 9));
    r.reported();
    assert_eq!(blocks(&r), [(1, 9)]);
    let got = r.receive(seq(0), seq(0), bytes("aXXXXXXXXX"));
    assert_eq!(got.advanced, 10);
    assert_eq!(drain(&mut r), "aBcdEFghIX");
}

#[test]
fn old_data_is_reported_once() {
    let mut r = Reassembly::new(100);
    let got = r.receive(seq(10), seq(5), bytes("abcdefg"));
    assert_eq!((got.advanced, got.duplicate), (2, true));
    assert_eq!(blocks(&r), [(5, 10)]);
    assert_eq!(drain(&mut r), "fg");
    r.reported();
    assert!(blocks(&r).is_empty());
}

#[test]
fn dust_meets_limits() {
    let mut r = Reassembly::new(100_000);
    let mut dropped = 0;
    for i in 0..3000 {
        dropped += u32::from(r.receive(seq(0), seq(2 + 2 * i), bytes("x")).dropped);
    }
    assert_eq!(dropped, 3000 - RUNS_MAX as u32);
    // A segment over all of it fills a bounded number of gaps.
    let got = r.receive(seq(0), seq(1), bytes(&"y".repeat(3000)));
    assert!(got.dropped);
    let got = r.receive(seq(0), seq(0), bytes(&"z".repeat(3000)));
    assert!(got.advanced > 2 * CUTS_MAX as u32);
    let mut r = Reassembly::new(10);
    for i in 0..20 {
        r.receive(seq(0), seq(1 + i), bytes("x"));
    }
    assert_eq!(r.queued_bytes(), 10);
}

proptest! {
    /// Any arrival order of any overlapping segments of one stream gives the stream.
    #[test]
    fn any_cover_reassembles(
        start in any::<u32>(),
        segments in proptest::collection::vec((0..300u32, 1..60usize), 1..120),
    ) {
        let stream: Vec<u8> = (0..400u32).map(|i| (i * 7 + i / 13) as u8).collect();
        let mut r = Reassembly::new(10_000);
        let (mut rcv_nxt, base) = (seq(start), seq(start));
        let mut covered = vec![false; 400];
        let mut out = vec![];
        for (at, len) in segments {
            let part = &stream[at as usize..at as usize + len];
            let got = r.receive(rcv_nxt, base + at, Chain::from(Piece::copied(part, None)));
            rcv_nxt += got.advanced;
            if !got.dropped {
                covered[at as usize..at as usize + len].fill(true);
            }
            while let Some(chunk) = r.pop() {
                prop_assert_eq!(chunk.seq - base, u32::try_from(out.len()).unwrap());
                for piece in &chunk.chain {
                    out.extend_from_slice(piece.bytes());
                }
            }
            prop_assert_eq!(rcv_nxt - base, u32::try_from(out.len()).unwrap());
            let blocks = r.disorder.iter().flat_map(|d| &d.blocks[..d.blocks_len]);
            for (left, right) in blocks {
                prop_assert!(*left > rcv_nxt && left < right);
                let range = (*left - base) as usize..(*right - base) as usize;
                prop_assert!(covered[range].iter().all(|c| *c));
            }
        }
        let prefix = covered.iter().take_while(|c| **c).count();
        prop_assert_eq!(out.as_slice(), &stream[..prefix]);
    }
}
