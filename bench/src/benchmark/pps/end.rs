//! One end without protocol: the XDP program, a UMEM and a socket, worked on by one pinned
//! thread in a namespace. What braid's own worker does, less everything above the port.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use braid_bpf::{AttachMode, Claim, ClaimKind, Heartbeat, Steer, XdpLink};
use braid_dataplane::buf::FramePool;
use braid_dataplane::io::xsk::{HugePages, UmemConfig, UmemGroup, XskConfig, XskPort};
use braid_dataplane::io::{Port, RxBatch};
use braid_dataplane::wire::ethernet::EthernetAddress;

use crate::failure;
use crate::testbed::{Result, Role, Testbed};

/// As braidd's default.
const FRAME_BYTES: u32 = 4096;
/// As braidd's default.
const RING: u32 = 4096;
/// Frames that a pool has beside those that are sent over and over.
const RECEIVE_FRAMES: u32 = 8192;
/// Frames taken per turn: a driver's usual NAPI budget.
const BATCH: usize = 64;
const BEAT: Duration = Duration::from_millis(100);
/// Largest IP packet and an Ethernet header with two tags.
const SUPERFRAME_BYTES: u32 = 65_535 + 22;

/// How frames get in and out.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Lane {
    /// XDP in the driver, frames of the MTU both ways.
    Native,
    /// XDP on socket buffers, frames of the MTU both ways.
    Generic,
    /// Superframes in, the gso lane out.
    Superframe,
}

/// An end, open.
#[derive(Debug)]
pub struct End {
    /// The socket.
    pub port: XskPort,
    /// Its frames.
    pub pool: FramePool,
    /// What was received last.
    pub batch: RxBatch,
    steer: Steer,
    next_beat: Instant,
    _link: XdpLink,
    _group: UmemGroup,
}

/// MAC addresses of the two ends of path 1.
#[derive(Copy, Clone, Debug)]
pub struct Macs {
    /// In the namespace `peer`.
    pub peer: EthernetAddress,
    /// In the namespace `braid`.
    pub braid: EthernetAddress,
}

impl Macs {
    /// Of a testbed.
    pub fn of(testbed: &Testbed) -> Result<Self> {
        let mac = |role| {
            let file = format!("/sys/class/net/{}/address", Testbed::interface(role, 1));
            parse_mac(&testbed.run(role, &["cat", &file])?)
        };
        Ok(Self {
            peer: mac(Role::Peer)?,
            braid: mac(Role::Braid)?,
        })
    }
}

fn parse_mac(text: &str) -> Result<EthernetAddress> {
    let octets: Vec<u8> = text
        .trim()
        .split(':')
        .filter_map(|octet| u8::from_str_radix(octet, 16).ok())
        .collect();
    let octets = <[u8; 6]>::try_from(octets).map_err(|_| failure!("not a MAC: {text:?}"))?;
    Ok(EthernetAddress(octets))
}

/// Payload of a segment without options at an IPv4 MTU.
pub fn template_mss(mtu: u32) -> Result<u16> {
    u16::try_from(mtu.saturating_sub(40)).map_err(|e| failure!("MTU {mtu}: {e}"))
}

impl End {
    /// Opens an end on path 1 of `role`, in whose namespace the calling thread is. `claim`
    /// is the address that the XDP program redirects; `frames` more are for sending.
    pub fn open(role: Role, lane: Lane, claim: SocketAddr, mtu: u32, frames: u32) -> Result<Self> {
        let interface = Testbed::interface(role, 1);
        let steer = Steer::load().map_err(|e| failure!("{e}"))?;
        steer
            .claim_add(Claim::new(claim.ip(), claim.port()), ClaimKind::Service)
            .map_err(|e| failure!("{e}"))?;
        let ifindex =
            nix::net::if_::if_nametoindex(&*interface).map_err(|e| failure!("{interface}: {e}"))?;
        let program = steer.interface(ifindex).map_err(|e| failure!("{e}"))?;
        let mode = match lane {
            Lane::Native => AttachMode::Native,
            Lane::Generic | Lane::Superframe => AttachMode::Generic,
        };
        let link = program.attach(mode).map_err(|e| failure!("{e}"))?;
        let (group, mut pools) = UmemGroup::create(&UmemConfig {
            pools: vec![RECEIVE_FRAMES + frames],
            frame_bytes: FRAME_BYTES,
            fill_ring: RING,
            completion_ring: RING,
            hugepages: HugePages::Try,
            memory_limit_bytes: 1 << 30,
        })
        .map_err(|e| failure!("{e}"))?;
        let pool = pools.remove(0);
        pool.adopt();
        let superframe = lane == Lane::Superframe;
        let config = XskConfig {
            bind: braid_dataplane::io::xsk::BindMode::Copy,
            generic: lane != Lane::Native,
            scatter_gather: superframe,
            gso_lane: superframe,
            rx_ring: RING,
            tx_ring: RING,
            fill_frames: RING,
            mtu,
            rx_superframe_bytes: if superframe {
                SUPERFRAME_BYTES
            } else {
                mtu + 22
            },
            ..XskConfig::new(&interface)
        };
        let mut port = XskPort::open(&group, &config).map_err(|e| failure!("{e}"))?;
        port.refill(&pool);
        let socket: BorrowedFd<'_> = port.poll_fd().ok_or_else(|| failure!("no socket"))?;
        program.xsks().set(0, socket).map_err(|e| failure!("{e}"))?;
        let mut end = Self {
            port,
            pool,
            batch: RxBatch::new(BATCH),
            steer,
            next_beat: Instant::now(),
            _link: link,
            _group: group,
        };
        end.beat();
        Ok(end)
    }

    /// Tells the XDP program that somebody is there. Once per turn.
    pub fn beat(&mut self) {
        let now = Instant::now();
        if now >= self.next_beat {
            self.steer.heartbeat().beat(Heartbeat::now_ns());
            self.next_beat = now + BEAT;
        }
    }

    /// Receives into `batch`; whether there was anything.
    pub fn receive(&mut self) -> bool {
        self.port.rx_burst(&self.pool, &mut self.batch) > 0
    }

    /// Sends received frames home and makes room for more.
    pub fn release(&mut self) {
        self.batch.clear();
        self.port.refill(&self.pool);
    }

    /// Hands what is staged to the kernel, and takes back what it has sent.
    pub fn flush(&mut self) {
        self.port.flush();
        self.port.complete(&self.pool);
    }
}

/// What an end has done so far, for the thread that keeps the time.
#[derive(Debug, Default)]
pub struct Tally {
    /// Packets.
    pub packets: AtomicU64,
    /// Bytes: of whole frames, or of payload, as the benchmark says.
    pub bytes: AtomicU64,
}

impl Tally {
    /// Adds to it. For one writer.
    pub fn add(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Packets and bytes.
    #[must_use]
    pub fn look(&self) -> (u64, u64) {
        (
            self.packets.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read() {
        let mac = parse_mac("02:00:5e:10:00:ff\n").unwrap();
        assert_eq!(mac, EthernetAddress([2, 0, 0x5e, 0x10, 0, 0xff]));
        assert!(parse_mac("02:00").is_err());
    }
}
