//! Real sockets on a veth pair. Root only, each test in a network namespace of its own.
#![allow(unsafe_code)]

mod errors;
mod gso;
mod netns;

use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use netns::{Attach, Redirect, ip, isolated};

use super::*;
use crate::buf::{Frame, FramePool};
use crate::io::{ModeGot, Port, RxBatch, Tx};

/// Local experimental (IEEE 802 Std), so that the kernel's own packets stand out.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const PATIENCE: Duration = Duration::from_secs(20);

fn group(pools: &[u32]) -> (UmemGroup, Vec<FramePool>) {
    let (group, pools) = UmemGroup::create(&UmemConfig {
        pools: pools.to_vec(),
        frame_bytes: 2048,
        fill_ring: 1024,
        completion_ring: 512,
        hugepages: HugePages::Try,
        memory_limit_bytes: 1 << 30,
    })
    .expect("a UMEM");
    (group, pools)
}

fn config(interface: &str, attach: Attach) -> XskConfig {
    XskConfig {
        generic: attach == Attach::Generic,
        rx_ring: 512,
        tx_ring: 512,
        fill_frames: 512,
        reserve_frames: 64,
        ..XskConfig::new(interface)
    }
}

/// One end of the wire.
struct End {
    port: XskPort,
    pool: FramePool,
    batch: RxBatch,
    _redirect: Redirect,
}

impl End {
    fn new(group: &UmemGroup, pool: FramePool, config: &XskConfig, attach: Attach) -> Self {
        let redirect = Redirect::attach(&config.interface, attach);
        let mut port = XskPort::open(group, config).expect("a socket");
        port.refill(&pool);
        redirect.insert(config.queue, port.poll_fd().expect("open").as_raw_fd());
        Self {
            port,
            pool,
            batch: RxBatch::new(64),
            _redirect: redirect,
        }
    }

    fn pair(attach: Attach) -> (Self, Self) {
        let (group, mut pools) = group(&[2048, 2048]);
        let b = Self::new(&group, pools.remove(1), &config("vb", attach), attach);
        let a = Self::new(&group, pools.remove(0), &config("va", attach), attach);
        (a, b)
    }

    fn frame(&self, number: u32) -> Option<Frame> {
        let mut frame = self.pool.alloc()?;
        let len = length(number);
        write(number, &mut frame.buffer_mut()?[..len]);
        frame.set_len(len);
        Some(frame)
    }

    /// The numbers of the packets that arrived; their contents are checked.
    fn received(&mut self) -> Vec<u32> {
        self.port.rx_burst(&self.pool, &mut self.batch);
        let numbers = self.batch.iter().filter_map(|got| {
            assert!(!got.more);
            check(got.frame.packet())
        });
        let numbers = numbers.collect();
        self.batch.clear();
        self.port.refill(&self.pool);
        numbers
    }

    /// Receives until `count` packets have come.
    fn receive(&mut self, count: usize) -> Vec<u32> {
        let (mut numbers, start) = (Vec::new(), Instant::now());
        while numbers.len() < count && start.elapsed() < PATIENCE {
            numbers.extend(self.received());
        }
        numbers
    }

    /// Completes until nothing is in flight.
    fn drain(&mut self) {
        let start = Instant::now();
        while self.port.stats().tx_in_flight > 0 && start.elapsed() < PATIENCE {
            self.port.flush();
            self.port.complete(&self.pool);
        }
        assert_eq!(self.port.stats().tx_in_flight, 0);
    }

    /// Closes the port and checks that every frame of the pool is home.
    fn close(mut self) {
        assert_eq!(self.port.reclaim_all(&self.pool), 0);
        self.pool.collect_returned();
        let now = self.pool.accounting();
        assert_eq!(
            (now.free, now.leaked, now.foreign_seen),
            (self.pool.frames(), 0, 0),
            "{now:?}"
        );
        let stats = self.port.stats();
        assert_eq!((stats.rx_foreign, stats.completion_foreign), (0, 0));
        assert_eq!(
            (stats.lent, stats.tx_in_flight, self.port.tx_free()),
            (0, 0, 0)
        );
    }
}

fn length(number: u32) -> usize {
    60 + (number as usize * 7919) % (1514 - 60 + 1)
}

fn write(number: u32, packet: &mut [u8]) {
    packet[..12].fill(0x02); // a locally administered address, nobody's
    packet[12..14].copy_from_slice(&ETHERTYPE);
    packet[14..18].copy_from_slice(&number.to_be_bytes());
    for (at, byte) in (0u32..).zip(&mut packet[18..]) {
        *byte = (at ^ number).to_le_bytes()[0];
    }
}

fn check(packet: &[u8]) -> Option<u32> {
    if packet.get(12..14) != Some(&ETHERTYPE[..]) {
        return None; // the kernel's own
    }
    let number = u32::from_be_bytes(packet[14..18].try_into().expect("four bytes"));
    let mut expected = vec![0; length(number)];
    write(number, &mut expected);
    assert_eq!(packet, expected, "packet {number}");
    Some(number)
}

/// Both ends send `packets` each, on one thread, as a worker would.
fn exchange(a: &mut End, b: &mut End, packets: u32) {
    let start = Instant::now();
    let mut sent = [0, 0];
    let mut seen = [vec![false; packets as usize], vec![false; packets as usize]];
    let mut arrived = [0, 0];
    while arrived != [packets; 2] && start.elapsed() < PATIENCE {
        for (n, end) in [&mut *a, &mut *b].into_iter().enumerate() {
            end.port.complete(&end.pool);
            for number in end.received() {
                assert!(
                    !std::mem::replace(&mut seen[n][number as usize], true),
                    "twice"
                );
                arrived[n] += 1;
            }
            // Never more on the way than the receiver has room for: no loss is expected.
            for _ in 0..64 {
                if sent[n] == packets || sent[n] - arrived[1 - n] >= 256 {
                    break;
                }
                let Some(frame) = end.frame(sent[n]) else {
                    break;
                };
                if end.port.tx(&end.pool, &frame) != Tx::Queued {
                    break;
                }
                sent[n] += 1;
            }
            end.port.flush();
        }
    }
    assert_eq!(
        arrived,
        [packets; 2],
        "{:?} {:?}",
        a.port.stats(),
        b.port.stats()
    );
    let seconds = start.elapsed().as_secs_f64();
    let mode = a.port.caps().mode;
    eprintln!(
        "{mode:?}: {:.0} kpps in sum of both directions",
        f64::from(packets) / seconds / 500.0
    );
}

fn ten_thousand_each_way(attach: Attach) {
    let (mut a, mut b) = End::pair(attach);
    assert!(a.pool.adopt() && b.pool.adopt());
    let wanted = if attach == Attach::Native {
        ModeGot::Native
    } else {
        ModeGot::Generic
    };
    assert_eq!(
        (a.port.caps().mode, a.port.caps().zero_copy),
        (wanted, false)
    );
    exchange(&mut a, &mut b, 10_000);
    a.drain();
    b.drain();
    for end in [&a, &b] {
        let (now, stats) = (end.pool.accounting(), end.port.stats());
        assert_eq!(now.total(), end.pool.frames());
        assert_eq!((now.ours, now.tx, now.orphaned, now.leaked), (0, 0, 0, 0));
        assert_eq!(now.fill, stats.lent);
        assert_eq!(stats.tx_packets, 10_000);
        assert_eq!((stats.kernel_tx_invalid, stats.kernel_rx_invalid), (0, 0));
    }
    a.close();
    b.close();
}

#[test]
fn packets_cross_a_veth_in_native_mode() {
    isolated(|| ten_thousand_each_way(Attach::Native));
}

#[test]
fn packets_cross_a_veth_in_generic_mode() {
    isolated(|| ten_thousand_each_way(Attach::Generic));
}

#[test]
fn port_opened_here_works_on_its_worker_and_poll_wakes_it() {
    isolated(|| {
        let (mut a, mut b) = End::pair(Attach::Native);
        let fd = b.port.poll_fd().expect("open").as_raw_fd();
        let worker = thread::spawn(move || {
            assert!(b.pool.adopt());
            let mut poll = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one descriptor.
            let ready = unsafe { libc::poll(&raw mut poll, 1, 10_000) };
            assert_eq!((ready, poll.revents & libc::POLLIN), (1, libc::POLLIN));
            assert_eq!(b.receive(1), [7]);
            b.close();
        });
        thread::sleep(Duration::from_millis(50));
        let frame = a.frame(7).expect("a free frame");
        assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
        a.port.flush();
        worker.join().expect("the worker's checks hold");
        drop(frame);
        a.drain();
        a.close();
    });
}

#[test]
fn full_ring_refuses_until_completions_come() {
    isolated(|| {
        let (mut a, mut b) = End::pair(Attach::Native);
        assert!(a.pool.adopt() && b.pool.adopt());
        let frames: Vec<_> = (0..513)
            .map(|n| a.frame(n).expect("a free frame"))
            .collect();
        for frame in &frames[..512] {
            assert_eq!(a.port.tx(&a.pool, frame), Tx::Queued);
        }
        assert_eq!(a.port.tx_free(), 0);
        assert_eq!(a.port.tx(&a.pool, &frames[512]), Tx::Full);
        assert!(!frames[512].in_flight());
        assert_eq!(a.pool.accounting().tx, 512);
        assert_eq!(a.port.stats().kicks, 0, "nothing was flushed");
        a.port.flush();
        let mut got = b.receive(512);
        a.drain();
        assert_eq!(a.port.tx(&a.pool, &frames[512]), Tx::Queued);
        a.port.flush();
        got.extend(b.receive(1));
        got.sort_unstable();
        assert_eq!(got, (0..513).collect::<Vec<_>>());
        drop(frames);
        a.drain();
        a.close();
        b.close();
    });
}

#[test]
fn empty_pool_loses_packets_and_recovers() {
    isolated(|| {
        let (mut a, mut b) = End::pair(Attach::Native);
        assert!(a.pool.adopt() && b.pool.adopt());
        // The receiver's application sits on everything it can get.
        let mut held: Vec<Frame> = std::iter::from_fn(|| b.pool.alloc()).collect();
        let mut hoard = RxBatch::new(2048);
        let mut number = 0;
        for _ in 0..6 {
            for _ in 0..128 {
                let frame = a.frame(number).expect("a free frame");
                assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
                number += 1;
            }
            a.drain();
            thread::sleep(Duration::from_millis(5));
            b.port.rx_burst(&b.pool, &mut hoard);
            b.port.refill(&b.pool);
        }
        let stats = b.port.stats();
        assert_eq!(hoard.len(), 512, "as many as the fill ring had");
        assert!(stats.rx_no_frame > 0, "{stats:?}");
        let lost = stats.kernel_rx_dropped + stats.kernel_rx_fill_ring_empty;
        assert!(lost >= u64::from(number) - 512, "{stats:?}");
        held.clear();
        hoard.clear();
        b.port.refill(&b.pool);
        let frame = a.frame(9_999).expect("a free frame");
        assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
        drop(frame);
        a.drain();
        assert_eq!(b.receive(1), [9_999]);
        a.close();
        b.close();
    });
}

#[test]
fn carrier_loss_keeps_ring_frames_and_gives_the_others_back() {
    isolated(|| {
        let (mut a, mut b) = End::pair(Attach::Native);
        assert!(a.pool.adopt() && b.pool.adopt());
        let frames: Vec<_> = (0..100)
            .map(|n| a.frame(n).expect("a free frame"))
            .collect();
        for frame in &frames {
            assert_eq!(a.port.tx(&a.pool, frame), Tx::Queued);
        }
        // 64 are in the ring now, not kicked; 36 are staged.
        ip("link set vb down");
        a.port.set_carrier(false);
        a.port.flush();
        assert_eq!(a.port.stats().kicks, 0);
        assert_eq!(a.port.complete(&a.pool), 36);
        assert_eq!(a.port.tx(&a.pool, &frames[99]), Tx::NoCarrier);
        assert_eq!(frames.iter().filter(|frame| frame.in_flight()).count(), 64);
        assert_eq!(
            frames[0].packet().len(),
            length(0),
            "still readable, to reinject"
        );
        drop(frames);
        assert_eq!(a.pool.accounting().orphaned, 64);
        ip("link set vb up");
        thread::sleep(Duration::from_millis(50));
        a.port.set_carrier(true);
        a.drain();
        assert_eq!(b.receive(64), (0..64).collect::<Vec<_>>());
        assert_eq!(a.pool.accounting().orphaned, 0);
        // Closed while down: frames in the ring come home with the socket.
        for number in 0..100 {
            let frame = a.frame(number).expect("a free frame");
            assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
        }
        a.port.set_carrier(false);
        assert_eq!(a.pool.accounting().orphaned, 100);
        a.close();
        b.close();
    });
}

#[test]
fn device_that_goes_away_is_noticed() {
    isolated(|| {
        let (mut a, b) = End::pair(Attach::Native);
        assert!(a.pool.adopt() && b.pool.adopt());
        let frame = a.frame(1).expect("a free frame");
        ip("link del va");
        let start = Instant::now();
        while !a.port.is_gone() && start.elapsed() < PATIENCE {
            let _ = a.port.tx(&a.pool, &frame);
            a.port.flush();
            thread::sleep(Duration::from_millis(10));
        }
        assert!(a.port.is_gone(), "{:?}", a.port.stats());
        a.port.set_carrier(true);
        assert_eq!(a.port.tx(&a.pool, &frame), Tx::NoCarrier, "gone for good");
        drop(frame);
        a.close();
        b.close();
    });
}

#[test]
fn frame_of_another_group_is_copied_once() {
    isolated(|| {
        let (mut a, mut b) = End::pair(Attach::Generic);
        let other = FramePool::heap(4, 2048);
        assert!(a.pool.adopt() && b.pool.adopt() && other.adopt());
        let mut frame = other.alloc().expect("a free frame");
        write(5, &mut frame.buffer_mut().expect("fresh")[..length(5)]);
        frame.set_len(length(5));
        assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
        assert!(!frame.in_flight());
        assert_eq!(
            (a.pool.accounting().orphaned, a.port.stats().tx_copied),
            (1, 1)
        );
        a.drain();
        assert_eq!(b.receive(1), [5]);
        a.close();
        b.close();
    });
}

#[test]
fn received_frame_goes_out_in_place_on_another_port() {
    isolated(|| {
        let (mut a, mut b) = End::pair(Attach::Native);
        assert!(a.pool.adopt() && b.pool.adopt());
        for number in 0..200 {
            let frame = a.frame(number).expect("a free frame");
            assert_eq!(a.port.tx(&a.pool, &frame), Tx::Queued);
            drop(frame);
            a.port.flush();
            let start = Instant::now();
            while b.batch.is_empty() && start.elapsed() < PATIENCE {
                b.port.rx_burst(&b.pool, &mut b.batch);
            }
            let mut got = b.batch.drain().next().expect("the packet").frame;
            // Reflected with another length, from where it lies.
            assert_eq!(check(got.packet()), Some(number));
            let len = length(number + 1);
            write(
                number + 1,
                &mut got.buffer_mut().expect("not in flight")[..len],
            );
            got.set_len(len);
            assert_eq!(b.port.tx(&b.pool, &got), Tx::Queued);
            drop(got);
            b.port.flush();
            assert_eq!(a.receive(1), [number + 1]);
            b.port.complete(&b.pool);
            a.port.complete(&a.pool);
            b.port.refill(&b.pool);
        }
        a.drain();
        b.drain();
        a.close();
        b.close();
    });
}

#[test]
fn large_packets_arrive_in_fragments() {
    isolated(|| {
        ip("link set va mtu 9000");
        ip("link set vb mtu 9000");
        let attach = Attach::Native;
        let (receiver, mut pools) = group(&[2048]);
        let sg = XskConfig {
            scatter_gather: true,
            mtu: 9000,
            rx_superframe_bytes: 9014,
            ..config("vb", attach)
        };
        let mut b = End::new(&receiver, pools.remove(0), &sg, attach);
        assert!(b.pool.adopt());
        let mut expected = vec![0; 5_000];
        write(3, &mut expected);
        let socket = packet_socket("va");
        for _ in 0..50 {
            // SAFETY: the buffer is valid for its length.
            let sent = unsafe { libc::send(socket, expected.as_ptr().cast(), expected.len(), 0) };
            assert_eq!(usize::try_from(sent).ok(), Some(expected.len()));
            let start = Instant::now();
            let mut packet: Vec<u8> = Vec::new();
            while packet.len() < expected.len() && start.elapsed() < PATIENCE {
                b.port.rx_burst(&b.pool, &mut b.batch);
                for got in b.batch.drain() {
                    packet.extend_from_slice(got.frame.packet());
                    assert_eq!(got.more, packet.len() < expected.len());
                }
                b.port.refill(&b.pool);
            }
            assert_eq!(packet, expected);
        }
        assert_eq!(b.port.stats().rx_packets, 50);
        // SAFETY: ours, and closed once.
        unsafe { libc::close(socket) };
        b.close();
    });
}

fn packet_socket(interface: &str) -> i32 {
    let name = std::ffi::CString::new(interface).expect("no NUL");
    // SAFETY: plain socket calls with valid arguments.
    unsafe {
        let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("small");
        address.sll_ifindex =
            libc::c_int::try_from(libc::if_nametoindex(name.as_ptr())).expect("small");
        let len = libc::socklen_t::try_from(std::mem::size_of_val(&address)).expect("small");
        assert_eq!(libc::bind(socket, (&raw const address).cast(), len), 0);
        socket
    }
}

#[test]
fn ports_and_groups_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<XskPort>();
    is_send::<UmemGroup>();
    is_send::<FramePool>();
    is_send::<Frame>();
}
