//! The pool, by cases and against a model.
#![allow(unsafe_code)]

mod payload;

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;

const FRAMES: u32 = 8;
const FRAME_BYTES: u32 = 512;

fn pool() -> FramePool {
    let pool = FramePool::heap(FRAMES, FRAME_BYTES);
    assert!(pool.adopt());
    pool
}

fn filled(pool: &FramePool, bytes: &[u8]) -> Frame {
    let mut frame = pool.alloc().expect("a free frame");
    frame.buffer_mut().expect("not in flight")[..bytes.len()].copy_from_slice(bytes);
    frame.set_len(bytes.len());
    frame
}

fn addr(index: u32, offset: u32) -> u64 {
    u64::from(index) * u64::from(FRAME_BYTES) + u64::from(offset)
}

#[test]
fn alloc_is_lifo_and_bounded() {
    let pool = pool();
    let first = pool.alloc().unwrap();
    let second = pool.alloc().unwrap();
    assert_ne!(first.index(), second.index());
    let hot = first.index();
    drop(second);
    drop(first);
    assert_eq!(
        pool.alloc().unwrap().index(),
        hot,
        "the frame freed last is the cached one"
    );
    let all: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(all.len(), FRAMES as usize);
    assert!(pool.alloc().is_none());
    assert_eq!(pool.accounting().ours, FRAMES);
}

#[test]
fn packet_starts_behind_the_headroom_and_ends_with_the_frame() {
    let pool = pool();
    let mut frame = pool.alloc().unwrap();
    assert_eq!(frame.capacity(), (FRAME_BYTES - HEADROOM_BYTES) as usize);
    assert_eq!(pool.payload_room(54), FRAME_BYTES - HEADROOM_BYTES - 54);
    let room = frame.capacity();
    frame.buffer_mut().unwrap().fill(0xa5);
    frame.set_len(room);
    let neighbour = pool.alloc().unwrap();
    assert!(frame.packet().iter().all(|byte| *byte == 0xa5));
    assert!(neighbour.is_empty());
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_packet_longer_than_its_frame_is_refused() {
    let pool = pool();
    let mut frame = pool.alloc().unwrap();
    let room = frame.capacity();
    frame.set_len(room + 1);
}

#[test]
fn frame_in_flight_is_read_only_and_survives_its_owner() {
    let pool = pool();
    let mut frame = filled(&pool, b"segment");
    let index = frame.index();
    assert!(pool.tx_ref(&frame));
    assert!(pool.tx_ref(&frame), "a second ring");
    assert!(frame.in_flight());
    assert!(frame.buffer_mut().is_none());
    assert_eq!(frame.packet(), b"segment");
    drop(frame);
    assert_eq!(pool.accounting().orphaned, 1);
    assert!(pool.complete(index));
    assert_eq!(pool.accounting().orphaned, 1, "one ring still reads it");
    assert!(pool.complete(index));
    assert_eq!(pool.accounting().free, FRAMES);
    assert!(!pool.complete(index), "nobody had it");
    assert_eq!(pool.accounting().foreign_seen, 1);
}

#[test]
fn frame_in_flight_cannot_be_lent() {
    let pool = pool();
    let frame = filled(&pool, b"x");
    assert!(pool.tx_ref(&frame));
    let frame = pool.lend(frame).expect_err("the TX ring reads it");
    assert!(pool.complete(frame.index()));
    assert!(pool.lend(frame).is_ok());
}

#[test]
fn kernel_handing_out_what_it_does_not_own_is_counted_and_survived() {
    let pool = pool();
    let ours = filled(&pool, b"ours");
    let Lent(lent) = pool.lend(pool.alloc().unwrap()).unwrap();
    assert!(
        pool.reclaim(addr(ours.index(), 256), 60).is_none(),
        "a frame with a token"
    );
    assert!(
        pool.reclaim(addr(FRAMES, 0), 60).is_none(),
        "outside the region"
    );
    assert!(pool.reclaim(u64::MAX, 60).is_none(), "far outside");
    let free = (0..FRAMES)
        .find(|i| *i != ours.index() && *i != lent)
        .unwrap();
    assert!(pool.reclaim(addr(free, 256), 60).is_none(), "a free frame");
    assert_eq!(pool.accounting().foreign_seen, 4);
    let frame = pool.reclaim(addr(lent, 256), 60).expect("the lent one");
    assert_eq!(frame.len(), 60);
    assert!(pool.reclaim(addr(lent, 256), 60).is_none(), "twice");
    assert!(!pool.complete_addr(u64::MAX));
    assert!(!pool.complete(FRAMES));
    assert_eq!(ours.packet(), b"ours");
}

#[test]
fn length_beyond_the_frame_is_refused_and_the_frame_comes_home() {
    let pool = pool();
    let Lent(index) = pool.lend(pool.alloc().unwrap()).unwrap();
    assert!(pool.reclaim(addr(index, 256), FRAME_BYTES).is_none());
    let Lent(index) = pool.lend(pool.alloc().unwrap()).unwrap();
    assert!(
        pool.reclaim(addr(index, 256), u32::MAX).is_none(),
        "overflowing sum"
    );
    let now = pool.accounting();
    assert_eq!((now.free, now.foreign_seen), (FRAMES, 2));
}

#[test]
fn frames_of_another_region_are_refused() {
    let (mine, other) = (pool(), pool());
    let frame = other.alloc().unwrap();
    assert!(!mine.same_region(&frame));
    assert!(!mine.tx_ref(&frame));
    let frame = mine.lend(frame).expect_err("not of this region");
    assert_eq!(other.accounting().ours, 1);
    drop(frame);
    assert_eq!(mine.accounting().free, FRAMES);
    assert_eq!(other.accounting().free, FRAMES);
}

#[test]
fn frames_freed_on_another_thread_come_home_when_collected() {
    let pool = pool();
    let frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    thread::spawn(move || drop(frames)).join().unwrap();
    let now = pool.accounting();
    assert_eq!((now.returning, now.total()), (FRAMES, FRAMES));
    assert_eq!(pool.available(), 0);
    pool.collect_returned();
    assert_eq!(pool.accounting().free, FRAMES);
    // alloc looks there by itself before it gives up.
    let frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    thread::spawn(move || drop(frames)).join().unwrap();
    assert!(pool.alloc().is_some());
}

#[test]
fn adopted_pool_gives_nothing_to_other_threads() {
    let pool = pool();
    let pool = thread::spawn(move || {
        assert!(!pool.adopt());
        assert!(pool.alloc().is_none());
        assert_eq!(pool.available(), 0);
        pool.collect_returned();
        pool
    })
    .join()
    .unwrap();
    assert_eq!(pool.available(), FRAMES);
}

#[test]
fn pool_is_usable_before_adoption_and_moves_to_its_worker() {
    let pool = FramePool::heap(FRAMES, FRAME_BYTES);
    let lent = pool.lend(pool.alloc().unwrap()).unwrap();
    drop(pool.alloc().unwrap()); // before adoption: by the return queue
    thread::spawn(move || {
        assert!(pool.adopt());
        assert_eq!(pool.available(), FRAMES - 1);
        drop(pool.recall(lent).unwrap());
        assert_eq!(pool.available(), FRAMES);
    })
    .join()
    .unwrap();
}

#[test]
fn frames_outlive_their_pool_on_any_thread() {
    let pool = pool();
    let here = filled(&pool, b"here");
    let there = filled(&pool, b"there");
    let in_flight = filled(&pool, b"in flight");
    assert!(pool.tx_ref(&in_flight));
    let orphan = filled(&pool, b"orphan");
    assert!(pool.tx_ref(&orphan));
    drop(orphan);
    drop(pool);
    assert_eq!(here.packet(), b"here");
    drop(here);
    thread::spawn(move || {
        assert_eq!(there.packet(), b"there");
        drop(there);
    })
    .join()
    .unwrap();
    assert_eq!(in_flight.packet(), b"in flight");
    drop(in_flight); // the last one frees the arena: for valgrind to check
}

/// Heap memory that says when it is freed.
struct Watched(HeapRegion, Arc<AtomicU32>);

// SAFETY: all of it is `HeapRegion`'s.
unsafe impl Region for Watched {
    fn base(&self) -> NonNull<u8> {
        self.0.base()
    }
    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

fn watched(pools: &[u32]) -> (Vec<FramePool>, Arc<AtomicU32>) {
    let freed = Arc::new(AtomicU32::new(0));
    let bytes = pools.iter().sum::<u32>() * FRAME_BYTES;
    let region = Watched(HeapRegion::new(bytes as usize), Arc::clone(&freed));
    let pools = FramePool::partition(Box::new(region), FRAME_BYTES, HEADROOM_BYTES, pools);
    (pools, freed)
}

#[test]
fn memory_is_freed_once_with_the_last_pool_or_frame() {
    let (mut pools, freed) = watched(&[FRAMES, FRAMES]);
    let (b, a) = (pools.pop().unwrap(), pools.pop().unwrap());
    assert!(a.adopt());
    let frames: Vec<_> = (0..4).map(|_| filled(&a, b"x")).collect();
    assert!(a.tx_ref(&frames[0]) && a.tx_ref(&frames[1]));
    let lent = a.lend(a.alloc().unwrap()).unwrap();
    let mut frames = frames.into_iter();
    drop(frames.next()); // an orphan: nobody will complete it
    drop(a);
    assert!(b.recall(lent).is_none(), "lent by a pool that is gone");
    drop(b);
    assert_eq!(freed.load(Ordering::SeqCst), 0);
    drop(frames.next()); // in flight
    thread::scope(|scope| {
        let elsewhere = frames.next();
        scope.spawn(move || drop(elsewhere));
    });
    assert_eq!(freed.load(Ordering::SeqCst), 0, "one frame is still out");
    drop(frames.next());
    assert_eq!(freed.load(Ordering::SeqCst), 1);
}

#[test]
fn pool_dropped_elsewhere_while_its_thread_frees() {
    for _ in 0..200 {
        let (mut pools, freed) = watched(&[FRAMES]);
        let (to_main, from_worker) = mpsc::channel();
        let worker = thread::spawn(move || {
            let pool = pools.pop().unwrap();
            assert!(pool.adopt());
            let mut frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
            to_main.send((pool, frames.split_off(4))).unwrap();
            drop(frames); // races with the drop of the pool
        });
        let (pool, frames) = from_worker.recv().unwrap();
        let third = thread::spawn(move || drop(frames));
        drop(pool);
        worker.join().unwrap();
        third.join().unwrap();
        assert_eq!(freed.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn pools_of_one_region_hand_frames_over() {
    let bytes = (2 * FRAMES * FRAME_BYTES) as usize;
    let region = Box::new(HeapRegion::new(bytes));
    let mut pools = FramePool::partition(region, FRAME_BYTES, HEADROOM_BYTES, &[FRAMES, FRAMES]);
    let (b, a) = (pools.pop().unwrap(), pools.pop().unwrap());
    assert!(a.adopt());
    let frame = filled(&a, b"from a");
    let b = thread::spawn(move || {
        assert!(b.adopt());
        assert!(b.same_region(&frame));
        // B transmits A's frame in place; its completion sends the frame to A.
        assert!(b.tx_ref(&frame));
        let index = frame.index();
        drop(frame);
        assert!(b.complete(index));
        assert_eq!(b.accounting().free, FRAMES);
        b
    })
    .join()
    .unwrap();
    assert_eq!(a.accounting().returning, 1);
    a.collect_returned();
    assert_eq!(a.accounting().free, FRAMES);
    drop(a);
    drop(b);
}

#[test]
fn threads_exchange_frames_without_losing_any() {
    const ROUNDS: u32 = 2_000;
    let pool = pool();
    let (send, receive) = mpsc::sync_channel::<Frame>(FRAMES as usize);
    let peer = thread::spawn(move || {
        let mut wrong = 0;
        for frame in receive {
            let expected = frame.packet()[0];
            wrong += usize::from(frame.packet().iter().any(|byte| *byte != expected));
        }
        wrong
    });
    let mut sent = 0;
    while sent < ROUNDS {
        let Some(mut frame) = pool.alloc() else {
            thread::yield_now();
            continue;
        };
        frame.buffer_mut().unwrap()[..64].fill((sent % 251) as u8);
        frame.set_len(64);
        send.send(frame).unwrap();
        sent += 1;
    }
    drop(send);
    assert_eq!(peer.join().unwrap(), 0);
    pool.collect_returned();
    let now = pool.accounting();
    assert_eq!((now.free, now.leaked), (FRAMES, 0));
}

#[derive(Debug, Clone)]
enum Operation {
    Alloc,
    Free(usize),
    FreeElsewhere(usize),
    Collect,
    Lend(usize),
    Reclaim(usize),
    TxRef(usize),
    Complete(usize),
    CompleteWrong(u32),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let pick = 0usize..64;
    let one = prop_oneof![
        4 => Just(Operation::Alloc),
        2 => pick.clone().prop_map(Operation::Free),
        1 => pick.clone().prop_map(Operation::FreeElsewhere),
        1 => Just(Operation::Collect),
        2 => pick.clone().prop_map(Operation::Lend),
        2 => pick.clone().prop_map(Operation::Reclaim),
        3 => pick.clone().prop_map(Operation::TxRef),
        3 => pick.prop_map(Operation::Complete),
        1 => (0..FRAMES + 2).prop_map(Operation::CompleteWrong),
    ];
    prop::collection::vec(one, 0..120)
}

/// Removes the element that `pick` names.
fn take<T>(from: &mut Vec<T>, pick: usize) -> Option<T> {
    if from.is_empty() {
        None
    } else {
        Some(from.swap_remove(pick % from.len()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pool_agrees_with_a_model(operations in operations()) {
        let pool = pool();
        let mut held: Vec<Frame> = Vec::new();
        let mut lent: Vec<u32> = Vec::new();
        let mut refs: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut returning, mut foreign) = (0, 0);
        for operation in operations {
            match operation {
                Operation::Alloc => {
                    if pool.available() == 0 {
                        returning = 0; // an empty pool collects
                    }
                    let busy = held.len() + lent.len() + returning as usize
                        + refs.keys().filter(|i| held.iter().all(|f| f.index() != **i)).count();
                    let frame = pool.alloc();
                    prop_assert_eq!(frame.is_some(), busy < FRAMES as usize);
                    if let Some(frame) = frame {
                        prop_assert!(!frame.in_flight() && frame.is_empty());
                        prop_assert!(held.iter().all(|f| f.index() != frame.index()));
                        prop_assert!(!lent.contains(&frame.index()));
                        prop_assert!(!refs.contains_key(&frame.index()));
                        held.push(frame);
                    }
                }
                Operation::Free(pick) => drop(take(&mut held, pick)),
                Operation::FreeElsewhere(pick) => {
                    if let Some(frame) = take(&mut held, pick) {
                        returning += u32::from(!refs.contains_key(&frame.index()));
                        thread::scope(|scope| { scope.spawn(move || drop(frame)); });
                    }
                }
                Operation::Collect => {
                    pool.collect_returned();
                    returning = 0;
                }
                Operation::Lend(pick) => {
                    if let Some(frame) = take(&mut held, pick) {
                        let in_flight = refs.contains_key(&frame.index());
                        match pool.lend(frame) {
                            Ok(Lent(index)) => {
                                prop_assert!(!in_flight);
                                lent.push(index);
                            }
                            Err(frame) => {
                                prop_assert!(in_flight);
                                held.push(frame);
                            }
                        }
                    }
                }
                Operation::Reclaim(pick) => {
                    if let Some(index) = take(&mut lent, pick) {
                        let frame = pool.reclaim(addr(index, 250), 100);
                        let frame = frame.expect("it was lent");
                        prop_assert_eq!((frame.index(), frame.len()), (index, 100));
                        held.push(frame);
                    }
                }
                Operation::TxRef(pick) => {
                    if !held.is_empty() {
                        let frame = &held[pick % held.len()];
                        prop_assert!(pool.tx_ref(frame));
                        *refs.entry(frame.index()).or_default() += 1;
                    }
                }
                Operation::Complete(pick) => {
                    let keys: Vec<u32> = refs.keys().copied().collect();
                    if let Some(index) = keys.get(pick % keys.len().max(1)) {
                        prop_assert!(pool.complete_addr(addr(*index, 300)));
                        let left = refs.get_mut(index).unwrap();
                        *left -= 1;
                        if *left == 0 {
                            refs.remove(index);
                        }
                    }
                }
                Operation::CompleteWrong(index) => {
                    if !refs.contains_key(&index) {
                        prop_assert!(!pool.complete(index));
                        foreign += 1;
                    }
                }
            }
            let now = pool.accounting();
            let tx = held.iter().filter(|f| refs.contains_key(&f.index())).count();
            prop_assert_eq!(now.total(), FRAMES);
            prop_assert_eq!(now.leaked, 0);
            prop_assert_eq!(now.fill as usize, lent.len());
            prop_assert_eq!(now.tx as usize, tx);
            prop_assert_eq!(now.ours as usize, held.len() - tx);
            prop_assert_eq!(now.orphaned as usize, refs.len() - tx);
            prop_assert_eq!(now.returning, returning);
            prop_assert_eq!(now.foreign_seen, foreign);
        }
    }
}
