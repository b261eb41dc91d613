//! Sequence numbers that wrap: 2^32 on subflows, 2^32 and 2^64 at connection level, in all
//! forms on the wire (rows 49 to 55).

use super::boxes;
use super::harness::*;
use crate::counters::Counter;
use crate::mptcp::config::ISS_FOR_TEST;
use crate::mptcp::dsn::IDSN_FOR_TEST;
use crate::mptcp::*;
use crate::time::Duration;

const LIMIT: Duration = Duration::from_secs(600);
/// Bytes before the wrap: a tenth of each transfer.
const BEFORE: u32 = 50_000;
const BYTES: u64 = 500_000;

/// Forgets the hooks however a test ends.
struct Start;

impl Start {
    fn at(idsn: Option<u64>, iss: Option<u32>) -> Self {
        IDSN_FOR_TEST.set(idsn);
        ISS_FOR_TEST.set(iss);
        Self
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        IDSN_FOR_TEST.set(None);
        ISS_FOR_TEST.set(None);
    }
}

/// Rewrites a DSS to 4-byte forms, as other stacks send it: `which` has the flags for wide
/// numbers that are to go (a = 2, m = 8).
fn narrow(option: &mut [u8], which: u8) {
    if option[2] >> 4 != 2 {
        return;
    }
    let flags = option[3];
    let mut out = vec![30, 0, option[2], flags];
    let mut at = 4;
    for (present, wide) in [(1, 2), (4, 8)] {
        if flags & present == 0 {
            continue;
        }
        let len = if flags & wide == 0 { 4 } else { 8 };
        let skip = if flags & wide & which == 0 { 0 } else { 4 };
        out.extend_from_slice(&option[at + skip..at + len]);
        if skip > 0 {
            out[3] &= !wide;
        }
        at += len;
    }
    out.extend_from_slice(&option[at..]);
    out[1] = u8::try_from(out.len()).unwrap();
    option[..out.len()].copy_from_slice(&out);
    option[out.len()..].fill(1);
}

fn transfer(seed: u64, forms: u8, checksum: bool, lossy: bool) {
    let path = PathConfig {
        rate: 2_500_000,
        loss: if lossy { 0.02 } else { 0.0 },
        jitter: Duration::from_micros(if lossy { 3_000 } else { 0 }),
        ..PathConfig::default()
    };
    let mut net = Net::new(seed, vec![path.clone(), path]);
    for h in &mut net.hosts {
        h.config.window_option = seed % 2 == 1;
        if checksum {
            h.config.checksum = ChecksumPolicy::Always;
        }
    }
    net.middlebox = Some(Box::new(move |p| {
        if forms != 0 {
            boxes::each_mptcp(p.bytes, |option| narrow(option, forms));
        }
        true
    }));
    net.start(TestApp::sender(1, BYTES), TestApp::sender(2, BYTES));
    net.established();
    net.run_for(Duration::from_millis(60));
    let _ = net.join(1);
    net.complete(LIMIT);
    for host in [CLIENT, SERVER] {
        assert!(net.hosts[host].info(net.now).mptcp, "fell back");
        assert_eq!(net.hosts[host].count(Counter::NoDSSInWindow), 0);
        assert_eq!(net.hosts[host].count(Counter::DSSNotMatching), 0);
    }
}

#[test]
fn subflow_sequence_numbers_wrap() {
    for (seed, checksum, lossy) in [(1, false, false), (2, true, true), (3, false, true)] {
        let _hooks = Start::at(None, Some(u32::MAX - BEFORE));
        transfer(seed, 0, checksum, lossy);
    }
}

#[test]
fn data_sequence_numbers_wrap_at_32_and_at_64_bits_in_every_form() {
    for start in [
        u64::MAX - u64::from(BEFORE),
        0x1234_5678_0000_0000 - u64::from(BEFORE),
        // The IDSN is the last number, the first byte has number 0.
        u64::MAX,
        u64::from(u32::MAX),
    ] {
        for forms in [0, 2, 8, 2 | 8] {
            for (checksum, lossy) in [(false, false), (true, true)] {
                let _hooks = Start::at(Some(start), Some(u32::MAX - BEFORE / 2));
                transfer(u64::from(forms) + start % 5, forms, checksum, lossy);
            }
        }
    }
}

/// The hook does what it says: the numbers on the wire begin where they were told to.
#[test]
fn the_first_byte_follows_the_chosen_idsn() {
    let _hooks = Start::at(Some(u64::MAX - 9), Some(77));
    let mut net = Net::new(4, vec![PathConfig::default()]);
    net.start(TestApp::sender(1, 10), TestApp::sender(2, 10));
    net.established();
    let core = &net.hosts[CLIENT].conn.as_ref().unwrap().core;
    assert_eq!(core.snd_space.dsn(0).0, u64::MAX - 8);
    assert_eq!(core.rcv_space.dsn(9).0, 0);
    assert_eq!(core.subflows[0].tcp.iss().0, 77);
    net.complete(LIMIT);
}
