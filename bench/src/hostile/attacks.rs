//! The attacks, one function each.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use braid_dataplane::counters::Counter;
use rand::Rng;

use super::Attack;
use super::arena::{ACK, Arena, FIN, Foe, RST, SYN, join_ack, join_syn};

/// Packets of most attacks.
const PACKETS: u32 = 20_000;

fn bytes(seed: u32) -> [u8; 20] {
    let mut out = [0; 20];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = seed.to_le_bytes()[i % 4] ^ 0x5a;
    }
    out
}

/// SYNs with MP_CAPABLE from everywhere; every 1000th is a true client.
fn syn_flood(arena: &mut Arena) {
    for n in 0..PACKETS {
        let ip = Ipv4Addr::from(0x0b00_0000 | n);
        let mut syn = arena.bare(SocketAddr::from((ip, 999)), SYN, n, 0);
        syn.options = vec![(2, vec![5, 0xb4]), (30, vec![0x01, 0x01])];
        arena.send(&syn);
        if n % 1000 == 999 {
            let foe = arena.open();
            let token = foe.token();
            let open = arena.attacked();
            let conn = open.iter().find(|c| c.token == token);
            assert!(conn.is_some_and(|c| c.mptcp && c.fully_established));
            // ... and joins.
            let src = arena.address();
            let join = join_syn(arena, src, token);
            arena.send(&join);
            let answer = arena.answer(src).expect("an answer");
            assert_eq!(answer.flags, SYN | ACK);
        }
    }
}

/// ACKs that might answer a cookie.
fn cookie_guesses(arena: &mut Arena) {
    syn_burst(arena);
    for n in 0..PACKETS {
        let src = arena.address();
        let ack = arena.rng.random();
        let guess = arena.bare(src, ACK, n, ack);
        arena.send(&guess);
    }
}

/// Fills the backlog.
fn syn_burst(arena: &mut Arena) {
    for n in 0..200 {
        let src = SocketAddr::from((Ipv4Addr::from(0x0b10_0000 | n), 999));
        let syn = arena.bare(src, SYN, n, 0);
        arena.send(&syn);
    }
}

/// Joins with an overheard token.
fn join_flood(arena: &mut Arena) {
    let foe = arena.open();
    for _ in 0..PACKETS {
        let src = arena.address();
        let join = join_syn(arena, src, foe.token());
        arena.send(&join);
    }
    let conn = &arena.attacked()[0];
    assert!(conn.subflows.len() <= 8, "{}", conn.subflows.len());
}

/// Joins with guessed tokens.
fn token_guesses(arena: &mut Arena) {
    for _ in 0..PACKETS {
        let src = arena.address();
        let token = arena.rng.random();
        let join = join_syn(arena, src, token);
        arena.send(&join);
    }
}

/// Joins whose third ACK has a wrong HMAC.
fn wrong_hmacs(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS / 2 {
        let src = arena.address();
        let join = join_syn(arena, src, foe.token());
        arena.send(&join);
        let answer = arena.answer(src).expect("a SYN/ACK");
        let ack = join_ack(arena, &answer, bytes(n));
        arena.send(&ack);
    }
}

/// A reader that asks for a long answer.
fn reader(arena: &mut Arena) -> Foe {
    arena.victim.lock().write = 64 << 20;
    let foe = arena.open();
    for _ in 0..3 {
        arena.tick();
    }
    foe
}

/// ACKs of what was never sent, and DATA_ACKs likewise.
fn optimistic_acks(arena: &mut Arena) {
    let foe = reader(arena);
    for n in 0..PACKETS {
        let mut ack = foe.segment(arena);
        ack.ack = foe.ack.wrapping_add(100_000_000 + n);
        ack.options = vec![foe.data_ack(u64::from(n) << 20)];
        arena.send(&ack);
    }
    let conn = &arena.attacked()[0];
    assert_eq!(conn.bytes_acked, 0, "nothing was acknowledged");
}

/// Every byte acknowledged by itself (Savage et al. 1999).
fn ack_division(arena: &mut Arena) {
    let foe = reader(arena);
    for n in 1..=PACKETS / 4 {
        let mut ack = foe.segment(arena);
        ack.ack = foe.ack.wrapping_add(n);
        arena.send(&ack);
    }
    let cwnd = arena.attacked()[0].subflows[0].tcp.cwnd_bytes;
    // RFC 3465 §2.1: by the bytes acknowledged, whatever the number of ACKs.
    assert!(cwnd <= 10 * 1460 + PACKETS / 4 + 1460, "{cwnd}");
}

/// SACK blocks over everything that is out and that is not.
fn sack_storm(arena: &mut Arena) {
    let foe = reader(arena);
    for _ in 0..PACKETS {
        let mut ack = foe.segment(arena);
        let mut body = Vec::new();
        for _ in 0..3 {
            let left: u32 = arena.rng.random_range(0..200_000);
            let len: u32 = arena.rng.random_range(0..50_000);
            body.extend(foe.ack.wrapping_add(left).to_be_bytes());
            body.extend(foe.ack.wrapping_add(left + len).to_be_bytes());
        }
        ack.options = vec![(5, body)];
        arena.send(&ack);
    }
}

/// A byte per packet, each with its mapping, to an application that does not read.
fn dust_unread(arena: &mut Arena) {
    arena.victim.lock().read = Some(0);
    let mut foe = arena.open();
    for n in 0..PACKETS {
        let mut data = foe.segment(arena);
        data.options = vec![foe.mapping(n.into(), n + 1, 1, false)];
        data.payload = vec![7];
        foe.seq += 1;
        arena.send(&data);
    }
    assert_eq!(arena.attacked()[0].recv_queue_bytes, u64::from(PACKETS));
}

/// Ten bytes per packet that no mapping covers, with DATA_ACKs that keep MPTCP alive.
fn dust_unmapped(arena: &mut Arena) {
    let mut foe = arena.open();
    for _ in 0..2 * PACKETS {
        let mut data = foe.segment(arena);
        data.options = vec![foe.data_ack(0)];
        data.payload = vec![7; 10];
        foe.seq += 10;
        arena.send(&data);
    }
}

/// Every other byte of the subflow: TCP waits for the rest.
fn holes_in_subflow(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS {
        let mut data = foe.segment(arena);
        data.seq = foe.seq + 2 + 2 * n;
        data.options = vec![foe.data_ack(0)];
        data.payload = vec![7];
        arena.send(&data);
    }
}

/// Segments of 600 bytes behind a hole: each is worth its frame.
fn holes_full_size(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS / 4 {
        let mut data = foe.segment(arena);
        data.seq = foe.seq + 700 * (1 + n % 1000);
        data.options = vec![foe.data_ack(0)];
        data.payload = vec![7; 600];
        arena.send(&data);
    }
}

/// In order in the subflow, every other byte of the stream.
fn holes_in_stream(arena: &mut Arena) {
    let mut foe = arena.open();
    for n in 0..PACKETS {
        let mut data = foe.segment(arena);
        data.options = vec![foe.mapping(u64::from(2 + 2 * n), n + 1, 1, false)];
        data.payload = vec![7];
        foe.seq += 1;
        arena.send(&data);
    }
}

/// Connections that ask for data and never open their window (sockstress).
fn zero_windows(arena: &mut Arena) {
    arena.victim.lock().write = 1 << 20;
    arena.window = 0;
    for _ in 0..200 {
        arena.open();
    }
    for _ in 0..100 {
        arena.pass(Duration::from_millis(100));
        let probes: Vec<_> = arena.inbox.drain(..).collect();
        for probe in probes {
            let ack = arena.bare(probe.dst, ACK, probe.ack, probe.seq.wrapping_add(1));
            arena.send(&ack);
        }
    }
}

/// RSTs from the side at the honest connection.
fn blind_resets(arena: &mut Arena) {
    for _ in 0..PACKETS {
        let (seq, ack) = arena.rng.random();
        let flags = if arena.rng.random() { RST } else { RST | ACK };
        let reset = arena.forged(flags, seq, ack);
        arena.send(&reset);
    }
}

/// RSTs and SYNs inside the window but not at its edge: what a guess can at best be.
fn resets_in_window(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS {
        let mut segment = foe.segment(arena);
        segment.flags = if n % 2 == 0 { RST } else { SYN };
        segment.seq = foe.seq + 1 + n;
        arena.send(&segment);
    }
    assert_eq!(arena.attacked()[0].subflows.len(), 1, "it lives");
}

/// SYNs from the side at the honest connection.
fn blind_syns(arena: &mut Arena) {
    for _ in 0..PACKETS {
        let (seq, ack) = arena.rng.random();
        let flags = if arena.rng.random() { SYN } else { SYN | ACK };
        let syn = arena.forged(flags, seq, ack);
        arena.send(&syn);
    }
}

/// Data and signals from the side at the honest connection.
fn blind_data(arena: &mut Arena) {
    for n in 0..PACKETS {
        let (seq, ack) = arena.rng.random();
        let mut data = arena.forged(ACK, seq, ack);
        data.payload = vec![0xee; 100];
        if n % 2 == 0 {
            // MP_FASTCLOSE with a guessed key.
            data.options = vec![(30, [&[0x70, 0][..], &bytes(n)[..8]].concat())];
        }
        arena.send(&data);
    }
}

/// Mappings that overlap, go back, contradict each other or point elsewhere.
fn wild_mappings(arena: &mut Arena) {
    for _ in 0..PACKETS / 100 {
        let mut foe = arena.open();
        for n in 0..100u32 {
            let mut data = foe.segment(arena);
            let off: i64 = arena.rng.random_range(-5_000..5_000_000_000);
            let ssn = (n * 10 + 1).wrapping_add_signed(arena.rng.random_range(-200..200));
            let len = arena.rng.random_range(1..2000);
            let fin = arena.rng.random_bool(0.01);
            data.options = vec![foe.mapping(off.cast_unsigned(), ssn, len, fin)];
            data.payload = vec![7; 10];
            foe.seq += 10;
            arena.send(&data);
        }
    }
}

/// DATA_FINs at two places, before data, beyond the window, again and again.
fn data_fins(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS {
        let mut ack = foe.segment(arena);
        let off = match n % 4 {
            0 => 5000,
            1 => 4000,
            2 => 1 << 40,
            _ => 0,
        };
        // SSN 0 and length 1: nothing but the DATA_FIN.
        ack.options = vec![foe.mapping(off, 0, 1, true)];
        arena.send(&ack);
    }
}

fn announce(arena: &mut Arena, genuine: bool) {
    let foe = arena.open();
    for n in 0..PACKETS {
        let mut ack = foe.segment(arena);
        let id = u8::try_from(1 + n % 250).expect("small");
        let address = Ipv4Addr::from(0x0c00_0000 | n);
        ack.options = vec![foe.add_addr(id, address, genuine)];
        arena.send(&ack);
    }
}

/// ADD_ADDRs without the key.
fn forged_addresses(arena: &mut Arena) {
    announce(arena, false);
}

/// ADD_ADDRs with the key.
fn many_addresses(arena: &mut Arena) {
    announce(arena, true);
}

/// REMOVE_ADDR, MP_PRIO and MP_FASTCLOSE (with a wrong key) in turn.
fn signals(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS {
        let mut ack = foe.segment(arena);
        let [id, flip, ..] = n.to_le_bytes();
        let body = match n % 3 {
            0 => vec![0x40, id | 1, flip | 2],
            1 => vec![0x50 | (flip & 1)],
            _ => [&[0x70, 0][..], &bytes(n)[..8]].concat(),
        };
        ack.options = vec![foe.option(&body)];
        arena.send(&ack);
    }
}

/// MP_FAIL again and again: the first one ends MPTCP.
fn fails(arena: &mut Arena) {
    let foe = arena.open();
    for n in 0..PACKETS {
        let mut ack = foe.segment(arena);
        ack.options = vec![foe.option(&[&[0x60, 0][..], &bytes(n)[..8]].concat())];
        arena.send(&ack);
    }
}

/// Frames that end early, options that lie about their length, wrong checksums.
fn garbage(arena: &mut Arena) {
    for n in 0..PACKETS {
        let mut segment = arena.forged(ACK | FIN, n, n);
        let mut body = bytes(n).to_vec();
        body.truncate(arena.rng.random_range(0..18));
        let kind = arena.rng.random_range(2..40);
        segment.options = vec![(kind, body)];
        let mut frame = segment.encode(n % 3 == 0).expect("it fits");
        match n % 3 {
            // A length that reaches beyond the header.
            1 => frame[14 + 20 + 21] = 77,
            2 => frame.truncate(arena.rng.random_range(0..60)),
            _ => {}
        }
        arena.hit(&frame);
    }
}

/// Segments of nobody's connection.
fn strays(arena: &mut Arena) {
    for n in 0..PACKETS {
        let src = arena.address();
        let stray = arena.bare(src, ACK, n, n);
        arena.send(&stray);
    }
}

/// All of them.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "SYN flood, true clients among it",
        bound: "`backlog` (64 here); SYN cookies keep nothing",
        frames_max: 8,
        heap_kib_max: 1536,
        counters: &[Counter::SyncookiesSent, Counter::SyncookiesRecv],
        run: syn_flood,
    },
    Attack {
        name: "guessed SYN cookies",
        bound: "27 bits of hash; nothing is kept",
        frames_max: 8,
        heap_kib_max: 1024,
        counters: &[Counter::SyncookiesFailed],
        run: cookie_guesses,
    },
    Attack {
        name: "join flood, token known",
        bound: "`JOINS_PENDING_MAX` (4) per connection, `joins_pending_max` (1024) in all",
        frames_max: 8,
        heap_kib_max: 256,
        counters: &[Counter::MPJoinPendingOverflow],
        run: join_flood,
    },
    Attack {
        name: "join flood, tokens guessed",
        bound: "nothing is kept",
        frames_max: 8,
        heap_kib_max: 128,
        counters: &[Counter::MPJoinNoTokenFound],
        run: token_guesses,
    },
    Attack {
        name: "joins with wrong HMACs",
        bound: "`JOINS_PENDING_MAX`; the subflow is reset",
        frames_max: 8,
        heap_kib_max: 128,
        counters: &[Counter::MPJoinAckHMacFailure],
        run: wrong_hmacs,
    },
    Attack {
        name: "ACKs and DATA_ACKs of what was not sent",
        bound: "RFC 5961 §5; `ACKS_MAX` (10) answers a second",
        frames_max: 64,
        heap_kib_max: 128,
        counters: &[Counter::TCPInvalidAck, Counter::TCPACKSkippedChallenge],
        run: optimistic_acks,
    },
    Attack {
        name: "ACK division",
        bound: "the window grows by bytes (RFC 3465)",
        frames_max: 64,
        heap_kib_max: 128,
        counters: &[],
        run: ack_division,
    },
    Attack {
        name: "SACK storm",
        bound: "`segments_max`, four blocks a segment",
        frames_max: 64,
        heap_kib_max: 256,
        counters: &[Counter::TCPSACKDiscard],
        run: sack_storm,
    },
    Attack {
        name: "one byte a segment, not read",
        bound: "`COPYBREAK_BYTES` (512), `COALESCED_BYTES_MAX` (4096)",
        frames_max: 8,
        heap_kib_max: 256,
        counters: &[Counter::RxCopybreak],
        run: dust_unread,
    },
    Attack {
        name: "ten bytes a segment, not mapped",
        bound: "as above; half of the receive window, then no MPTCP",
        frames_max: 8,
        heap_kib_max: 512,
        counters: &[Counter::DssFallback],
        run: dust_unmapped,
    },
    Attack {
        name: "every other byte of a subflow",
        bound: "`RUNS_MAX` (1024) of TCP, copybreak",
        frames_max: 8,
        heap_kib_max: 512,
        counters: &[Counter::TCPOFODrop],
        run: holes_in_subflow,
    },
    Attack {
        name: "600-byte segments behind a hole",
        bound: "`pieces_max`, `RUNS_MAX`, the window",
        frames_max: 512,
        heap_kib_max: 512,
        counters: &[Counter::TCPOFOQueue],
        run: holes_full_size,
    },
    Attack {
        name: "every other byte of the stream",
        bound: "`RUNS_MAX` (8192) of MPTCP, copybreak",
        frames_max: 8,
        heap_kib_max: 1536,
        counters: &[Counter::OFOPruned, Counter::RxCopybreak],
        run: holes_in_stream,
    },
    Attack {
        name: "200 closed windows",
        bound: "data that has no window is not taken from the application",
        frames_max: 8,
        heap_kib_max: 4096,
        counters: &[Counter::TCPWinProbe],
        run: zero_windows,
    },
    Attack {
        name: "blind RSTs",
        bound: "RFC 5961 §3: dropped outside the window",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::TCPOutOfWindow],
        run: blind_resets,
    },
    Attack {
        name: "RSTs and SYNs in the window",
        bound: "RFC 5961 §3 and §4: `ACKS_MAX` (10) challenges a second",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[
            Counter::TCPChallengeACK,
            Counter::TCPSYNChallenge,
            Counter::TCPACKSkippedChallenge,
        ],
        run: resets_in_window,
    },
    Attack {
        name: "blind SYNs",
        bound: "RFC 5961 §4; 10 answers a second",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::TCPOutOfWindow, Counter::TCPACKSkippedChallenge],
        run: blind_syns,
    },
    Attack {
        name: "blind data, MP_FASTCLOSE with guessed keys",
        bound: "RFC 9293 §3.10.7.4, RFC 5961 §5",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::TCPOutOfWindow],
        run: blind_data,
    },
    Attack {
        name: "mappings that overlap, go back, contradict, point elsewhere",
        bound: "the first mapping wins; `MAPPINGS_MAX` (8192)",
        frames_max: 64,
        heap_kib_max: 4096,
        counters: &[Counter::DSSNoMatchTCP, Counter::NoDSSInWindow],
        run: wild_mappings,
    },
    Attack {
        name: "DATA_FINs at several places",
        bound: "the first one counts",
        frames_max: 8,
        heap_kib_max: 128,
        counters: &[Counter::DSSNotMatching],
        run: data_fins,
    },
    Attack {
        name: "ADD_ADDRs with wrong HMACs",
        bound: "nothing is kept",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::AddAddrDrop],
        run: forged_addresses,
    },
    Attack {
        name: "ADD_ADDRs with right HMACs",
        bound: "`remote_addresses_max` (8)",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::AddAddr, Counter::AddAddrDrop],
        run: many_addresses,
    },
    Attack {
        name: "MP_FAILs",
        bound: "the first one ends MPTCP, the rest say nothing",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::MPFailRx],
        run: fails,
    },
    Attack {
        name: "REMOVE_ADDR, MP_PRIO, MP_FASTCLOSE with a wrong key in turn",
        bound: "nothing is kept",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::RmAddrDrop, Counter::MPPrioRx],
        run: signals,
    },
    Attack {
        name: "truncated frames, lying options, wrong checksums",
        bound: "nothing is kept",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::ParseError, Counter::InCsumErrors],
        run: garbage,
    },
    Attack {
        name: "segments of no connection",
        bound: "nothing is kept; a RST each",
        frames_max: 8,
        heap_kib_max: 64,
        counters: &[Counter::NoFlow],
        run: strays,
    },
];
