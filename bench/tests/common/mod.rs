//! Two hosts, some links, an echo service; and the checks that every run ends with.

use std::time::Duration;

use braid_bench::sim::{Fault, Filter, HostConfig, LinkConfig, Outcomes, Role, Sim};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The host that connects.
pub(crate) const CLIENT: usize = 0;
/// The host that serves.
pub(crate) const SERVER: usize = 1;
/// The echo service's port.
pub(crate) const ECHO: u16 = 7;

/// No run of these tests takes longer in virtual time.
const LIMIT: Duration = Duration::from_secs(600);

/// How often delivered bytes are sampled.
const SAMPLE: Duration = Duration::from_millis(20);

/// See the module documentation.
pub(crate) struct Net {
    pub(crate) sim: Sim,
    links: usize,
    /// Time and bytes put on each link so far.
    samples: Vec<(Duration, Vec<u64>)>,
}

/// A finished run.
pub(crate) struct Run<'a> {
    net: &'a mut Net,
    client: Outcomes,
    bytes: u64,
    gap_max: Duration,
    done: bool,
}

impl Net {
    pub(crate) fn new(seed: u64, links: Vec<LinkConfig>) -> Self {
        Self::with(seed, links, |_, _| {})
    }

    pub(crate) fn with(
        seed: u64,
        links: Vec<LinkConfig>,
        configure: impl Fn(usize, &mut HostConfig),
    ) -> Self {
        let mut sim = Sim::new(seed);
        for host in [CLIENT, SERVER] {
            let mut config = HostConfig::default();
            configure(host, &mut config);
            assert_eq!(sim.add_host(&config), host);
        }
        let count = links.len();
        for link in links {
            sim.add_link(CLIENT, SERVER, link);
        }
        sim.host(SERVER).serve(&[(ECHO, Role::Echo)]);
        Self {
            sim,
            links: count,
            samples: Vec::new(),
        }
    }

    /// Sends `bytes` to the echo service and reads them back.
    pub(crate) fn echo(&mut self, bytes: u64) -> Run<'_> {
        let (_, client) = self
            .sim
            .connect(CLIENT, 0, ECHO, Role::Peer { send: bytes });
        let mut last_change = self.sim.elapsed();
        let mut received = 0;
        let mut gap_max = Duration::ZERO;
        let limit = self.sim.elapsed() + LIMIT;
        let mut next_sample = self.sim.elapsed();
        let links = self.links;
        let samples = &mut self.samples;
        let watched = client.clone();
        let done = self.sim.run_until(limit, |sim| {
            let outcome = watched.get();
            if outcome.received != received && received < bytes {
                if received > 0 {
                    gap_max = gap_max.max(sim.elapsed() - last_change);
                }
                received = outcome.received;
                last_change = sim.elapsed();
            }
            if sim.elapsed() >= next_sample {
                next_sample = sim.elapsed() + SAMPLE;
                let per_link = (0..links)
                    .map(|l| sim.link(l).sent_bytes.iter().sum())
                    .collect();
                samples.push((sim.elapsed(), per_link));
            }
            outcome.closed.is_some() && sim.host(SERVER).engine().connections() == 0
        });
        Run {
            net: self,
            client,
            bytes,
            gap_max,
            done,
        }
    }

    /// `count` connections at once, `bytes` each.
    pub(crate) fn echo_many(&mut self, count: usize, bytes: u64) {
        let clients: Vec<Outcomes> = (0..count)
            .map(|i| {
                self.sim
                    .connect(CLIENT, i % self.links, ECHO, Role::Peer { send: bytes })
                    .1
            })
            .collect();
        let limit = self.sim.elapsed() + LIMIT;
        let done = self.sim.run_until(limit, |sim| {
            clients.iter().all(|c| c.get().closed.is_some())
                && sim.host(SERVER).engine().connections() == 0
        });
        assert!(done, "not all of {count} connections ended");
        for (i, client) in clients.iter().enumerate() {
            let outcome = client.get();
            assert_eq!(outcome.wrong_at, None, "connection {i}");
            assert_eq!(outcome.received, bytes, "connection {i}: {outcome:?}");
        }
        self.check_frames();
    }

    pub(crate) fn abort(&mut self, token: u32) {
        let now = braid_dataplane::time::Instant::default()
            + braid_bench::sim::EPOCH
            + self.sim.elapsed();
        let order = braid_dataplane::worker::Order::Abort;
        self.sim
            .host(CLIENT)
            .engine()
            .order(now, token, order)
            .unwrap();
    }

    /// Bytes that a link carried later than `after` the start.
    pub(crate) fn bytes_after(&self, link: usize, after: Duration) -> u64 {
        let end = self.sim.link(link).sent_bytes.iter().sum::<u64>();
        let then = self
            .samples
            .iter()
            .find(|(at, _)| *at >= after)
            .map_or(end, |(_, b)| b[link]);
        end - then
    }

    /// Every frame is free again, once both engines are idle.
    pub(crate) fn check_frames(&mut self) {
        for host in [CLIENT, SERVER] {
            let frames = self.sim.host(host).frames();
            assert_eq!(
                frames.free,
                frames.total(),
                "host {host} keeps frames: {frames:?}"
            );
        }
    }
}

impl Run<'_> {
    /// No longer pause between delivered bytes than this.
    pub(crate) fn expect_gap_below(self, gap: Duration) -> Self {
        assert!(
            self.gap_max < gap,
            "no bytes were delivered for {:?}",
            self.gap_max
        );
        self
    }

    /// The stream is right, the connection over, no frame lost.
    pub(crate) fn check(self) {
        let outcome = self.client.get();
        if !self.done || outcome.wrong_at.is_some() || outcome.received != self.bytes {
            let trace = self.net.sim.dump_trace("failed");
            let client = format!("{:?}", self.net.sim.host(CLIENT).counters());
            let server = format!("{:?}", self.net.sim.host(SERVER).counters());
            panic!(
                "sent {} bytes, after {:?}: {outcome:?}\nclient {client}\nserver {server}\n{trace}",
                self.bytes,
                self.net.sim.elapsed()
            );
        }
        self.net.check_frames();
    }
}

/// NOPs over every MPTCP option of the packets that `which(receiver, is SYN)` names, as
/// iptables' TCPOPTSTRIP does.
pub(crate) fn strip_mptcp(which: impl Fn(usize, bool) -> bool + 'static) -> Filter {
    Box::new(move |to, packet| {
        let ip = 14;
        let tcp = ip
            + if packet[ip] >> 4 == 4 {
                usize::from(packet[ip] & 15) * 4
            } else {
                40
            };
        let syn = packet[tcp + 13] & 2 != 0;
        if which(to, syn) {
            let end = tcp + usize::from(packet[tcp + 12] >> 4) * 4;
            let mut at = tcp + 20;
            while at < end {
                match packet[at] {
                    0 => break,
                    1 => at += 1,
                    kind => {
                        let len = usize::from(packet[at + 1]).max(2);
                        if kind == 30 {
                            packet[at..at + len].fill(1);
                        }
                        at += len;
                    }
                }
            }
            fix_checksum(packet, ip, tcp);
        }
        true
    })
}

/// Recomputes the TCP checksum, bytewise and slowly: independent of the code under test.
pub(crate) fn fix_checksum(packet: &mut [u8], ip: usize, tcp: usize) {
    let (addresses, end) = if packet[ip] >> 4 == 4 {
        let total = usize::from(u16::from_be_bytes([packet[ip + 2], packet[ip + 3]]));
        (ip + 12..ip + 20, ip + total)
    } else {
        let payload = usize::from(u16::from_be_bytes([packet[ip + 4], packet[ip + 5]]));
        (ip + 8..ip + 40, ip + 40 + payload)
    };
    packet[tcp + 16..tcp + 18].fill(0);
    let length = u32::try_from(end - tcp).unwrap();
    let mut sum = 6 + length;
    for range in [addresses, tcp..end] {
        for pair in packet[range].chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap();
    packet[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// One random network; panics with the seed when anything is wrong.
pub(crate) fn swarm_one(seed: u64, trace: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = rng.random_range(1..=3);
    let links = (0..count)
        .map(|_| LinkConfig {
            rate_bps: Some(rng.random_range(2_000_000..200_000_000)),
            delay: Duration::from_micros(rng.random_range(50..80_000)),
            jitter: Duration::from_micros(*pick(&mut rng, &[0, 0, 500, 20_000])),
            queue_bytes: rng.random_range(20_000..500_000),
            loss: *pick(&mut rng, &[0.0, 0.001, 0.01, 0.05]),
            duplicate: *pick(&mut rng, &[0.0, 0.0, 0.02]),
            corrupt: *pick(&mut rng, &[0.0, 0.0, 0.005]),
            mtu: *pick(&mut rng, &[1500, 1500, 1400, 1280]),
            ipv6: rng.random_bool(0.3),
            ..LinkConfig::default()
        })
        .collect();
    let checksums = [rng.random_bool(0.3), rng.random_bool(0.3)];
    let mut net = Net::with(seed, links, |host, config| {
        if checksums[host] {
            config.mptcp.checksum = braid_dataplane::mptcp::ChecksumPolicy::Always;
        }
    });
    // Faults hit every link but one at a time, and never for good.
    for _ in 0..rng.random_range(0..4) {
        let link = rng.random_range(0..count);
        let at = Duration::from_millis(rng.random_range(10..3_000));
        let back = at + Duration::from_millis(rng.random_range(50..4_000));
        if rng.random_bool(0.5) {
            net.sim.at(at, Fault::Blackhole { link, on: true });
            net.sim.at(back, Fault::Blackhole { link, on: false });
        } else {
            let host = rng.random_range(0..2);
            net.sim.at(
                at,
                Fault::Carrier {
                    link,
                    host,
                    up: false,
                },
            );
            net.sim.at(
                back,
                Fault::Carrier {
                    link,
                    host,
                    up: true,
                },
            );
        }
    }
    let bytes = rng.random_range(200_000..2_000_000);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        net.echo(bytes).check();
    }));
    if trace || result.is_err() {
        eprintln!(
            "seed {seed}: {}",
            net.sim.dump_trace(&format!("seed-{seed}"))
        );
    }
    if let Err(panic) = result {
        eprintln!("replay with BRAID_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

fn pick<'a, T>(rng: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}
