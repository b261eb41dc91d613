//! Frames from one raw end to the other, the same few over and over: what the ports and the
//! wire between them carry when nobody looks at the bytes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use braid_dataplane::buf::Frame;
use braid_dataplane::checksum;
use braid_dataplane::io::{Port, Tx};
use braid_dataplane::offload::BurstShape;
use braid_dataplane::offload::header::{HeaderTemplate, L2Header, TcpHeaderOut};
use braid_dataplane::wire::tcp::{Flags, SeqNumber};
use braid_dataplane::wire::tcp_options::{OptionsBuf, Timestamps};
use braid_dataplane::wire::types::FourTuple;

use super::super::pinned::Pinned;
use super::super::transfer::{BRAID_CORE, PEER_CORE};
use super::end::{End, Lane, Macs, Tally};
use crate::failure;
use crate::testbed::{Result, Role, Testbed};

/// Segments of a burst, as braid sends them: 45 of 1448 bytes.
pub const SEGMENTS: usize = 45;
/// Payload of a segment at MTU 1500 with timestamps.
pub const SEGMENT_BYTES: u16 = 1448;
/// Frames sent between two looks at completions.
const CHUNK: usize = 64;
const CLIENT: u16 = 40_000;
const SERVICE: u16 = 5001;
/// Until the rates are steady.
const WARM_UP: Duration = Duration::from_millis(100);

/// What is sent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Load {
    /// Frames of so many bytes, one by one.
    Frames(usize),
    /// Bursts of [`SEGMENTS`], from so many frames in turn.
    Bursts(usize),
}

/// One measurement.
#[derive(Copy, Clone, Debug)]
pub struct Sample {
    /// Received per second.
    pub packets_per_s: f64,
    /// Received per second: whole frames.
    pub bits_per_s: f64,
    /// Of what was sent, 0 to 1.
    pub lost: f64,
}

fn template(macs: Macs) -> Result<HeaderTemplate> {
    let tuple = FourTuple {
        local: SocketAddr::new(Testbed::v4(Role::Peer, 1), CLIENT),
        remote: SocketAddr::new(Testbed::v4(Role::Braid, 1), SERVICE),
    };
    let l2 = L2Header {
        dst: macs.braid,
        src: macs.peer,
        vlan: Default::default(),
    };
    HeaderTemplate::new(l2, &tuple, 0, 64).map_err(|e| failure!("{e}"))
}

fn header() -> TcpHeaderOut {
    TcpHeaderOut {
        seq: SeqNumber(1),
        ack: SeqNumber(1),
        flags: Flags::ACK,
        window: 1000,
        urgent: 0,
        ecn: 0,
    }
}

fn options() -> Result<OptionsBuf> {
    let mut options = OptionsBuf::new();
    let timestamps = Timestamps { tsval: 1, tsecr: 1 };
    let padded = options
        .timestamps(timestamps)
        .and_then(|()| options.pad_to(12));
    padded.map_err(|e| failure!("{e:?}")).map(|()| options)
}

/// A frame with room for headers and `payload` bytes behind them.
fn frame(end: &End, front: usize, payload: usize) -> Result<Frame> {
    let mut frame = end.pool.alloc().ok_or_else(|| failure!("no frame"))?;
    let out = frame
        .buffer_mut()
        .ok_or_else(|| failure!("a new frame is in flight"))?;
    out[front..front + payload].fill(0x5a);
    frame.set_len(front + payload);
    Ok(frame)
}

fn send_frames(
    end: &mut End,
    macs: Macs,
    bytes: usize,
    stop: &AtomicBool,
    sent: &Tally,
) -> Result<()> {
    let (template, options) = (template(macs)?, options()?);
    let front = template.header_len(options.padded_len());
    let payload = bytes.saturating_sub(front);
    let mut frames = Vec::new();
    for _ in 0..CHUNK {
        let mut frame = frame(end, front, payload)?;
        let sum = checksum::sum(&frame.packet()[front..]);
        let out = frame.buffer_mut().ok_or_else(|| failure!("in flight"))?;
        template.emit(out, &header(), &options, payload, sum);
        frames.push(frame);
    }
    while !stop.load(Ordering::Relaxed) {
        let mut queued = 0;
        for frame in &frames {
            if end.port.tx(&end.pool, frame) != Tx::Queued {
                break;
            }
            queued += 1;
        }
        end.flush();
        sent.add(queued, queued * (front + payload) as u64);
    }
    Ok(())
}

fn send_bursts(
    end: &mut End,
    macs: Macs,
    count: usize,
    stop: &AtomicBool,
    sent: &Tally,
) -> Result<()> {
    let (template, options) = (template(macs)?, options()?);
    let front = template.header_len(options.padded_len());
    let segment = usize::from(SEGMENT_BYTES);
    let mut bursts = Vec::new();
    for _ in 0..(count / SEGMENTS).max(1) {
        let mut burst = Vec::new();
        for _ in 0..SEGMENTS {
            burst.push(frame(end, front, segment)?);
        }
        let out = burst[0].buffer_mut().ok_or_else(|| failure!("in flight"))?;
        template.emit_partial(out, &header(), &options, SEGMENTS * segment);
        bursts.push(burst);
    }
    let shape = BurstShape {
        header_len: front,
        tcp_offset: template.tcp_offset(),
        segment_bytes: SEGMENT_BYTES,
        ipv6: false,
    };
    // As the live worker: a few bursts per turn.
    const PER_TURN: u64 = 4;
    let mut turn = bursts.iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let mut queued = 0;
        for burst in turn.by_ref().take(PER_TURN as usize) {
            let slices = burst
                .iter()
                .enumerate()
                .map(|(n, frame)| (frame, if n == 0 { 0 } else { front }..front + segment));
            if end.port.tx_burst(&end.pool, &shape, slices) != Tx::Queued {
                break;
            }
            queued += 1;
        }
        end.flush();
        sent.add(queued, queued * (front + SEGMENTS * segment) as u64);
    }
    Ok(())
}

fn sink(end: &mut End, stop: &AtomicBool, received: &Tally) {
    while !stop.load(Ordering::Relaxed) {
        end.beat();
        if end.receive() {
            let (mut packets, mut bytes) = (0, 0);
            for part in &end.batch {
                packets += u64::from(!part.more);
                bytes += part.frame.len() as u64;
            }
            received.add(packets, bytes);
            end.release();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Measures once, on path 1 of `testbed`.
pub fn measure(testbed: &Testbed, lane: Lane, load: Load, duration: Duration) -> Result<Sample> {
    let mtu = testbed.options().mtu;
    let macs = Macs::of(testbed)?;
    let frames = match load {
        Load::Frames(_) => CHUNK,
        Load::Bursts(frames) => frames.max(SEGMENTS),
    };
    let frames = u32::try_from(frames).map_err(|e| failure!("{e}"))?;
    let service = SocketAddr::new(Testbed::v4(Role::Braid, 1), SERVICE);
    let client = SocketAddr::new(Testbed::v4(Role::Peer, 1), CLIENT);
    let (sent, received) = (Tally::default(), Tally::default());
    std::thread::scope(|scope| {
        let mut sink = Pinned::start(scope, testbed, Role::Braid, BRAID_CORE, |stop, ready| {
            let mut end = End::open(Role::Braid, lane, service, mtu, 0)?;
            ready();
            sink(&mut end, stop, &received);
            Ok(())
        })?;
        let mut source = Pinned::start(scope, testbed, Role::Peer, PEER_CORE, |stop, ready| {
            let mut end = End::open(Role::Peer, lane, client, mtu, frames)?;
            ready();
            match load {
                Load::Frames(bytes) => send_frames(&mut end, macs, bytes, stop, &sent),
                Load::Bursts(count) => send_bursts(&mut end, macs, count, stop, &sent),
            }
        })?;
        std::thread::sleep(WARM_UP);
        let (start, before, sent_before) = (Instant::now(), received.look(), sent.look());
        std::thread::sleep(duration);
        let (elapsed, after, sent_after) = (start.elapsed(), received.look(), sent.look());
        source.finish()?;
        sink.finish()?;
        let seconds = elapsed.as_secs_f64();
        let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
        if packets == 0 {
            return Err(failure!("nothing arrived"));
        }
        // A device that segments delivers more packets than were sent: bytes tell, and
        // headers are small beside them.
        let gone = (sent_after.1 - sent_before.1) as f64;
        Ok(Sample {
            packets_per_s: packets as f64 / seconds,
            bits_per_s: bytes as f64 * 8.0 / seconds,
            lost: (1.0 - bytes as f64 / gone.max(1.0)).max(0.0),
        })
    })
}
