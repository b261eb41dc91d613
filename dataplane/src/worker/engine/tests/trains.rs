//! Segments that are taken together: what the peer and the counters see is what they would
//! see of each by itself.

use super::*;

const LEN: u32 = 1000;

/// A connection without MPTCP, whose peer has no window: what it echoes stays.
fn plain() -> (Bench, u32) {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    assert!(b.pool.adopt());
    b.window = 0;
    let (answers, _) = b.segment(SERVER, 1000, Flags::SYN, (100, 0), None);
    let ack = (answers[0].seq + 1).0;
    b.segment(SERVER, 1000, Flags::ACK, (101, ack), None);
    b.payload = (0..LEN).map(|n| n.to_le_bytes()[0]).collect();
    (b, ack)
}

fn data(b: &Bench, n: u32, ack: u32) -> Frame {
    b.frame(SERVER, 1000, Flags::ACK, (101 + n * LEN, ack), None)
}

/// As a sender leaves it to hardware that is not there.
fn with_partial_checksum(mut frame: Frame) -> Frame {
    let tcp = match packet::parse(frame.packet()) {
        Ok(Packet::Tcp(tcp)) => tcp,
        other => panic!("{other:?}"),
    };
    let field = tcp.tcp_offset + crate::wire::tcp::CHECKSUM_OFFSET;
    let sum = tcp.pseudo_header_sum.fold().to_be_bytes();
    frame.buffer_mut().unwrap()[field..field + 2].copy_from_slice(&sum);
    frame
}

/// Delivers frames as one batch; returns the acknowledgments.
fn batch(b: &mut Bench, checksum: RxChecksum, frames: Vec<Frame>) -> Vec<u32> {
    let mut wire = Wire {
        pool: &b.pool,
        sent: Vec::new(),
    };
    let arrival = Arrival {
        port: PortId(0),
        mtu: 1500,
        checksum,
        from: None,
    };
    let now = Instant::from_millis(2);
    for frame in frames {
        let handed = b.engine.on_packet(now, arrival, [frame].into(), &mut wire);
        assert!(handed.is_none());
    }
    assert!(b.engine.has_work());
    b.engine.run(now, &mut wire);
    let ack = |bytes: &Vec<u8>| match packet::parse(bytes) {
        Ok(Packet::Tcp(tcp)) => tcp.ack.0,
        other => panic!("{other:?}"),
    };
    wire.sent.iter().map(ack).collect()
}

#[test]
fn a_batch_gets_one_acknowledgment() {
    let (mut b, ack) = plain();
    let frames = (0..6).map(|n| data(&b, n, ack)).collect();
    assert_eq!(batch(&mut b, RxChecksum::Verify, frames), [101 + 6 * LEN]);
    let counters = b.engine.counters();
    assert_eq!(counters.get(Counter::FramesRx), 8);
    assert_eq!(counters.get(Counter::RxBytesTouched), 6 * u64::from(LEN));
    assert_eq!(counters.get(Counter::BytesDelivered), 6 * u64::from(LEN));
    let (_, info) = b.engine.conns(Instant::from_millis(2), 0, 1).remove(0);
    assert_eq!(info.totals.segments_received, 7);
}

#[test]
fn two_segments_of_a_train_are_acknowledged_at_once() {
    let (mut b, ack) = plain();
    let one = |b: &mut Bench, n| {
        let frames = vec![data(b, n, ack)];
        batch(b, RxChecksum::Verify, frames)
    };
    // The first segments of a connection never wait; then one alone does.
    let mut last = 0;
    while !one(&mut b, last).is_empty() {
        last += 1;
        assert!(last < 30);
    }
    // The second one, and then two at once.
    assert_eq!(one(&mut b, last + 1), [101 + (last + 2) * LEN]);
    last += 2;
    let frames = vec![data(&b, last, ack), data(&b, last + 1, ack)];
    let acks = batch(&mut b, RxChecksum::Verify, frames);
    assert_eq!(acks, [101 + (last + 2) * LEN]);
}

#[test]
fn a_damaged_segment_is_missing_in_the_middle() {
    let (mut b, ack) = plain();
    let mut frames: Vec<Frame> = (0..6).map(|n| data(&b, n, ack)).collect();
    let last = frames[2].len() - 1;
    frames[2].buffer_mut().unwrap()[last] ^= 1;
    assert_eq!(batch(&mut b, RxChecksum::Verify, frames), [101 + 2 * LEN]);
    assert_eq!(b.engine.counters().get(Counter::InCsumErrors), 1);
    assert_eq!(b.engine.counters().get(Counter::TCPOFOQueue), 1);
    // It comes again, and what waited behind it is taken.
    let again = vec![data(&b, 2, ack)];
    assert_eq!(batch(&mut b, RxChecksum::Verify, again), [101 + 6 * LEN]);
}

#[test]
fn where_partial_checksums_are_accepted_nothing_is_read() {
    let (mut b, ack) = plain();
    let frames = |b: &Bench| -> Vec<Frame> {
        let frame = |n| with_partial_checksum(data(b, n, ack));
        (0..4).map(frame).collect()
    };
    let count = |b: &Bench, counter| b.engine.counters().get(counter);
    let refused = frames(&b);
    b.engine.set_pressure(false);
    for frame in refused {
        let (answers, _) = b.deliver(frame);
        assert!(answers.is_empty());
    }
    assert_eq!(count(&b, Counter::InCsumErrors), 4);
    let touched = count(&b, Counter::RxBytesTouched);
    let taken = frames(&b);
    let acks = batch(&mut b, RxChecksum::AcceptPartial, taken);
    assert_eq!(acks, [101 + 4 * LEN]);
    assert_eq!(count(&b, Counter::PartialCsumAccepted), 4);
    assert_eq!(count(&b, Counter::RxBytesTouched), touched);
    assert_eq!(count(&b, Counter::RxCopybreak), 0);
}

#[test]
fn an_order_ends_a_flow_before_its_train_is_taken() {
    let (mut b, ack) = plain();
    let frame = data(&b, 0, ack);
    let now = Instant::from_millis(2);
    let mut wire = Wire {
        pool: &b.pool,
        sent: Vec::new(),
    };
    let arrival = Arrival {
        port: PortId(0),
        mtu: 1500,
        checksum: RxChecksum::Verify,
        from: None,
    };
    b.engine.on_packet(now, arrival, [frame].into(), &mut wire);
    let token = *b.engine.tokens.keys().next().unwrap();
    b.engine.order(now, token, Order::Abort).unwrap();
    for _ in 0..4 {
        b.engine.run(now, &mut wire);
    }
    assert_eq!(b.engine.connections(), 0);
    drop(wire);
    assert_eq!(b.pool.available(), b.pool.frames());
}
