//! smoltcp's TCP between two interfaces on a memory link, both on one core.
//!
//! The device is as bare as braid's memory port: buffers are allocated once and go round.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

use super::{Sample, Stopwatch};
use crate::failure;
use crate::testbed::Result;

/// Socket buffers: the smaller stay in the cache, the larger fill the link. The better of
/// the two is what counts.
const BUFFERS_BYTES: [usize; 2] = [1 << 16, 1 << 20];

#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    sent: u64,
}

type Shared = Rc<RefCell<Lane>>;

#[derive(Debug)]
struct Link {
    incoming: Shared,
    outgoing: Shared,
    frame_bytes: usize,
}

struct Received<'a> {
    bytes: Vec<u8>,
    lane: &'a Shared,
}

struct Sending<'a> {
    lane: &'a Shared,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.bytes);
        self.lane.borrow_mut().spare.push(self.bytes);
        result
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = self.lane.borrow_mut().spare.pop().unwrap_or_default();
        // No more than the missing tail is zeroed: the content is overwritten anyway.
        bytes.resize(len, 0);
        let result = f(&mut bytes);
        let mut lane = self.lane.borrow_mut();
        lane.queue.push_back(bytes);
        lane.sent += 1;
        result
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let bytes = self.incoming.borrow_mut().queue.pop_front()?;
        let received = Received {
            bytes,
            lane: &self.incoming,
        };
        Some((
            received,
            Sending {
                lane: &self.outgoing,
            },
        ))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        let frame_bytes = u32::try_from(self.frame_bytes).unwrap_or(u32::MAX);
        // As in braid's link.
        let room = self.outgoing.borrow().queue.len() < super::braid::ring(frame_bytes) as usize;
        room.then_some(Sending {
            lane: &self.outgoing,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Checksums of the default: made and verified, all of them.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.frame_bytes;
        capabilities
    }
}

struct End {
    device: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl End {
    fn new(number: u8, device: Link, buffer_bytes: usize) -> Result<Self> {
        let mut device = device;
        let hardware = EthernetAddress([2, 0, 0, 0, 0, number]);
        let config = Config::new(hardware.into());
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        let mut fits = Ok(());
        interface.update_ip_addrs(|addresses| {
            fits = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24));
        });
        fits.map_err(|_| failure!("smoltcp has no room for an address"))?;
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_bytes]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Ok(Self {
            device,
            interface,
            sockets,
            handle,
        })
    }

    fn poll(&mut self, now: Instant) {
        self.interface
            .poll(now, &mut self.device, &mut self.sockets);
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// The better of several buffer sizes.
pub fn transfer(frame_bytes: u32, bytes: u64) -> Result<Sample> {
    let mut best: Option<Sample> = None;
    for buffer_bytes in BUFFERS_BYTES {
        let sample = with_buffers(frame_bytes, buffer_bytes, bytes)?;
        if best.is_none_or(|best| sample.elapsed < best.elapsed) {
            best = Some(sample);
        }
    }
    best.ok_or_else(|| failure!("nothing was measured"))
}

fn with_buffers(frame_bytes: u32, buffer_bytes: usize, bytes: u64) -> Result<Sample> {
    let (there, back) = (Shared::default(), Shared::default());
    let link = |incoming: &Shared, outgoing: &Shared| Link {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        frame_bytes: frame_bytes as usize,
    };
    let mut client = End::new(1, link(&back, &there), buffer_bytes)?;
    let mut server = End::new(2, link(&there, &back), buffer_bytes)?;
    server
        .socket()
        .listen(7)
        .map_err(|e| failure!("smoltcp: {e}"))?;
    let End {
        interface,
        sockets,
        handle,
        ..
    } = &mut client;
    sockets
        .get_mut::<tcp::Socket<'_>>(*handle)
        .connect(interface.context(), (IpAddress::v4(10, 0, 0, 2), 7), 40_000)
        .map_err(|e| failure!("smoltcp: {e}"))?;
    let epoch = std::time::Instant::now();
    let (mut filled, mut received) = (0_u64, 0_u64);
    let mut start = None;
    let mut packets_before = 0;
    while received < bytes {
        let elapsed = epoch.elapsed();
        if elapsed > super::braid::PATIENCE {
            return Err(failure!(
                "smoltcp: {received} of {bytes} bytes in {elapsed:?}"
            ));
        }
        let now = Instant::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX));
        client.poll(now);
        server.poll(now);
        let sender = client.socket();
        while filled < bytes && sender.can_send() {
            if start.is_none() {
                start = Some(Stopwatch::start());
                packets_before = there.borrow().sent;
            }
            let left = usize::try_from(bytes - filled).unwrap_or(usize::MAX);
            // As in smoltcp's own benchmark the application neither writes nor reads its
            // bytes. braid's source writes them, so this is to braid's disadvantage.
            let n = sender
                .send(|room| {
                    let n = room.len().min(left);
                    (n, n)
                })
                .map_err(|e| failure!("smoltcp: {e}"))?;
            filled += n as u64;
        }
        let receiver = server.socket();
        while receiver.can_recv() {
            let n = receiver
                .recv(|piece| (piece.len(), piece.len()))
                .map_err(|e| failure!("smoltcp: {e}"))?;
            received += n as u64;
        }
    }
    let packets = there.borrow().sent - packets_before;
    Ok(Sample {
        bytes: received,
        packets,
        elapsed: start.map_or_else(|| epoch.elapsed(), Stopwatch::elapsed),
        ends_per_core: 2,
    })
}
