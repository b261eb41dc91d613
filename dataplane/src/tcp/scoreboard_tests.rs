//! The three sets a segment can be in, under every operation that moves it.

use super::*;
use proptest::prelude::*;

const LEN: u32 = 10;

fn board(base: u32, count: u32) -> Scoreboard {
    let mut board = Scoreboard::default();
    for i in 0..count {
        let seq = SeqNumber(base) + i * LEN;
        board.push(
            Instant::from_millis(u64::from(i)),
            seq,
            LEN,
            u64::from(i * LEN),
            MapRef::default(),
            false,
        );
    }
    board
}

/// Entry numbers in transmission order.
fn order(board: &Scoreboard) -> Vec<u32> {
    let mut out = vec![];
    let mut next = board.oldest_in_flight();
    while let Some(number) = next {
        out.push(number);
        next = (out.len() < board.flight_segments() as usize).then(|| board.get(number).newer);
    }
    out
}

fn check(board: &Scoreboard) {
    let order = order(board);
    let bytes: u32 = order.iter().map(|number| board.get(*number).len).sum();
    assert_eq!(bytes, board.in_flight());
    assert_eq!(order.last().copied().unwrap_or(board.newest), board.newest);
    let (mut sacked, mut lost, mut flight) = (0, 0, 0);
    for i in 0..board.len() {
        let number = board.head.wrapping_add(i);
        let sets = [
            board.sacked.get(number),
            board.lost.get(number),
            order.contains(&number),
        ];
        assert_eq!(
            sets.into_iter().filter(|x| *x).count(),
            1,
            "{number}: {sets:?}"
        );
        sacked += u32::from(sets[0]);
        lost += u32::from(sets[1]);
        flight += u32::from(sets[2]);
    }
    assert_eq!(
        (sacked, lost, flight),
        (
            board.sacked_segments(),
            board.lost_segments(),
            board.flight_segments()
        )
    );
}

#[test]
fn sack_counts_whole_segments_once_across_the_sequence_wrap() {
    let base = u32::MAX - 25;
    let mut board = board(base, 8);
    let mut seen = vec![];
    let left = SeqNumber(base) + 15;
    board.sack(left, left + 40, |seg| seen.push(seg.dsn));
    assert_eq!(seen, [20, 30, 40], "15..55 covers only these whole");
    seen.clear();
    board.sack(left, left + 50, |seg| seen.push(seg.dsn));
    assert_eq!(seen, [50]);
    check(&board);
    let mut gone = vec![];
    board.pop_acked(SeqNumber(base) + 25, |seg, sacked| {
        gone.push((seg.dsn, sacked))
    });
    assert_eq!(gone, [(0, false), (10, false)], "partly acknowledged stays");
    check(&board);
    gone.clear();
    board.pop_acked(SeqNumber(base) + 30, |seg, sacked| {
        gone.push((seg.dsn, sacked))
    });
    assert_eq!(gone, [(20, true)]);
    check(&board);
}

#[test]
fn lost_segments_come_back_in_sequence_order() {
    let mut board = board(0, 100);
    for number in [70, 3, 99, 64] {
        board.mark_lost(number);
    }
    check(&board);
    let mut resent = vec![];
    while let Some(number) = board.first_lost() {
        resent.push(number);
        board.resent(number, Instant::from_millis(1000));
    }
    assert_eq!(resent, [3, 64, 70, 99]);
    assert_eq!(order(&board)[96..], [3, 64, 70, 99]);
    check(&board);
}

#[test]
fn reneging_and_undo_return_segments_to_flight() {
    let mut board = board(0, 10);
    board.sack(SeqNumber(0), SeqNumber(30), |_| {});
    board.mark_lost(5);
    board.mark_lost(7);
    assert!(board.front_is_sacked());
    board.forget_sacks();
    board.unmark_lost();
    check(&board);
    assert_eq!(board.flight_segments(), 10);
}

#[test]
fn resegment_keeps_sets_and_order() {
    let mut board = board(0, 6);
    board.sack(SeqNumber(10), SeqNumber(20), |_| {});
    board.mark_lost(0);
    board.mark_lost(3);
    board.resent(0, Instant::from_millis(50));
    assert!(board.resegment(4, false));
    check(&board);
    assert_eq!(board.len(), 18);
    assert_eq!(board.span(), 60);
    assert_eq!((board.sacked_segments(), board.lost_segments()), (3, 3));
    let dsns: Vec<_> = order(&board).iter().map(|n| board.get(*n).dsn).collect();
    assert_eq!(dsns, [20, 24, 28, 40, 44, 48, 50, 54, 58, 0, 4, 8]);
    assert!(!board.resegment(4, true), "nothing left to cut");
    let mut board = self::board(0, 3);
    assert!(board.resegment(5, true));
    assert_eq!((board.lost_segments(), board.flight_segments()), (6, 0));
    check(&board);
}

/// A peer that repeats two huge overlapping ranges with every ACK makes us skip words, not visit
/// segments.
#[test]
fn repeated_sacks_visit_each_segment_once() {
    let mut board = Scoreboard::default();
    for i in 0..1 << 14 {
        board.push(
            Instant::ZERO,
            SeqNumber(i * LEN),
            LEN,
            0,
            MapRef::default(),
            false,
        );
    }
    let end = (1 << 14) * LEN;
    let mut visited = 0;
    for _ in 0..1_000 {
        for (left, right) in [(LEN, end - 5 * LEN), (5 * LEN, end - LEN)] {
            board.sack(SeqNumber(left), SeqNumber(right), |_| visited += 1);
        }
    }
    assert_eq!(visited, (1 << 14) - 2);
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Ack(u8),
    Sack(u8, u8),
    Lose(u8),
    Resend,
    Forget,
    Undo,
    Resegment(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..40u8).prop_map(Op::Push),
        3 => any::<u8>().prop_map(Op::Ack),
        4 => (any::<u8>(), 0..60u8).prop_map(|(left, len)| Op::Sack(left, len)),
        3 => any::<u8>().prop_map(Op::Lose),
        4 => Just(Op::Resend),
        1 => Just(Op::Forget),
        1 => Just(Op::Undo),
        1 => (3..9u8).prop_map(Op::Resegment),
    ]
}

proptest! {
    #[test]
    fn every_segment_is_in_exactly_one_set(ops in proptest::collection::vec(op(), 1..80)) {
        let mut una = SeqNumber(u32::MAX - 300);
        let mut nxt = una;
        let mut board = Scoreboard::default();
        for (i, op) in ops.into_iter().enumerate() {
            let now = Instant::from_millis(i as u64);
            let within = |x: u8| u32::from(x) % (board.len().max(1));
            match op {
                Op::Push(n) if n % 2 == 0 => for _ in 0..n {
                    board.push(now, nxt, LEN, 0, MapRef::default(), false);
                    nxt += LEN;
                },
                Op::Push(n) => {
                    // The last one is shorter.
                    let len = u32::from(n) * LEN - 3;
                    let segments = board.push_run(now, nxt, len, LEN, 0, MapRef::default());
                    prop_assert_eq!(segments, u32::from(n));
                    nxt += len;
                }
                Op::Ack(x) => {
                    una += u32::from(x).min(nxt - una);
                    let mut twin = board.clone();
                    let (mut each, mut all) = ((0, 0), (0, 0));
                    let count = |sum: &mut (u32, u32), seg: &TxSeg| {
                        *sum = (sum.0 + 1, sum.1 + seg.len);
                    };
                    twin.pop_acked(una, |seg, _| count(&mut each, seg));
                    if let Some(run) = board.pop_run(una) {
                        all = (run.segments, run.bytes);
                        prop_assert_eq!(run.last.seq - run.first.seq + run.last.len, run.bytes);
                    }
                    board.pop_acked(una, |seg, _| count(&mut all, seg));
                    prop_assert_eq!(each, all);
                    prop_assert_eq!(order(&twin), order(&board));
                    prop_assert_eq!((twin.head, twin.in_flight()), (board.head, board.in_flight()));
                }
                Op::Sack(left, len) => {
                    let left = una + u32::from(left) * 3;
                    board.sack(left.earlier(nxt), (left + u32::from(len) * 3).earlier(nxt), |_| {});
                }
                Op::Lose(x) if !board.is_empty() => {
                    let number = board.head.wrapping_add(within(x));
                    board.mark_lost(number);
                }
                Op::Resend => if let Some(number) = board.first_lost() {
                    board.resent(number, now);
                },
                Op::Forget => board.forget_sacks(),
                Op::Undo => board.unmark_lost(),
                Op::Resegment(mss) => { board.resegment(u32::from(mss), i % 2 == 0); }
                Op::Lose(_) => {}
            }
            check(&board);
        }
    }
}
