//! A raw end that speaks to kernel TCP: [`super::responder`] between a port and a peer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use braid_dataplane::buf::Frame;
use braid_dataplane::checksum::{self, Sum};
use braid_dataplane::io::{Port, Tx};
use braid_dataplane::offload::BurstShape;
use braid_dataplane::offload::header::HeaderTemplate;
use braid_dataplane::wire::packet::{self, Packet, TcpPacket};
use braid_dataplane::wire::tcp_options::OptionsBuf;
use braid_dataplane::wire::types::FourTuple;

use super::super::machine::CpuSeconds;
use super::super::pinned::Pinned;
use super::super::transfer::{BRAID_CORE, PEER_CORE};
use super::end::{End, Lane, Macs, Tally, template_mss};
use super::responder::{Reply, Sink, Source, reply_template, template_to_peer};
use crate::failure;
use crate::peer::client::Report;
use crate::peer::transfer::gbit_per_s;
use crate::testbed::{Process, Result, Role, Testbed};

const PORT: u16 = 5001;
const CLIENT_PORT: u16 = 40_000;
/// How long anything but the transfer itself may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The peer's window has grown then.
const WARM_UP: Duration = Duration::from_millis(300);
/// Segments of 1460 bytes that an IP packet has room for.
const SEGMENTS: usize = 44;
/// Payload frames, sent in turn: about 1 MiB of payload.
const FRAMES: usize = 16 * SEGMENTS;
/// Bursts, or single segments, between two looks at what arrived.
const BURSTS_PER_TURN: usize = 4;
const SEGMENTS_PER_TURN: usize = 64;
/// More than a segment: a superframe, which is acknowledged by itself.
const SUPERFRAME_MIN: usize = 4096;

/// One measurement.
#[derive(Copy, Clone, Debug)]
pub struct Sample {
    /// Payload.
    pub gbit_per_s: f64,
    /// Of the whole machine.
    pub cpu_s_per_gib: f64,
}

impl Sample {
    fn new(bytes: u64, elapsed: Duration, cpu: CpuSeconds) -> Result<Self> {
        if bytes == 0 {
            return Err(failure!("no byte arrived"));
        }
        Ok(Self {
            gbit_per_s: gbit_per_s(bytes, elapsed),
            cpu_s_per_gib: cpu.busy() / (bytes as f64 / f64::from(1_u32 << 30)),
        })
    }
}

fn send(end: &mut End, template: &HeaderTemplate, reply: &Reply, mss: u16) -> Result<()> {
    let Some(mut frame) = end.pool.alloc() else {
        return Ok(()); // as lost: the peer repeats what it has heard no answer to
    };
    let options = reply.options(mss)?;
    let out = frame
        .buffer_mut()
        .ok_or_else(|| failure!("a new frame is in flight"))?;
    let len = template.emit(out, &reply.header, &options, 0, Sum::default());
    frame.set_len(len);
    let _: Tx = end.port.tx(&end.pool, &frame);
    Ok(())
}

/// The TCP segments of the batch that was received last.
fn segments(end: &End) -> Vec<TcpPacket> {
    let (mut out, mut first, mut bytes) = (Vec::new(), None, 0);
    for part in &end.batch {
        let head: &Frame = first.get_or_insert(&part.frame);
        bytes += part.frame.len();
        if part.more {
            continue;
        }
        if let Ok(Packet::Tcp(tcp)) = packet::parse_head(head.packet(), bytes) {
            out.push(tcp);
        }
        (first, bytes) = (None, 0);
    }
    out
}

fn run_sink(end: &mut End, mss: u16, stop: &AtomicBool, tally: &Tally) -> Result<()> {
    let (mut sink, mut template) = (Sink::default(), None);
    while !stop.load(Ordering::Relaxed) {
        end.beat();
        if !end.receive() {
            std::hint::spin_loop();
            continue;
        }
        let (now, before, mut due) = (Instant::now(), sink.delivered, None);
        let segments = segments(end);
        for segment in &segments {
            if template.is_none() {
                template = Some(reply_template(segment)?);
            }
            let Some(reply) = sink.on_segment(now, segment) else {
                continue;
            };
            due = Some(reply);
            if segment.payload.len() > SUPERFRAME_MIN
                && let Some(template) = &template
            {
                send(end, template, &reply, mss)?;
                due = None;
            }
        }
        if let (Some(reply), Some(template)) = (due, &template) {
            send(end, template, &reply, mss)?;
        }
        tally.add(segments.len() as u64, sink.delivered - before);
        end.flush();
        end.release();
    }
    Ok(())
}

struct Payload {
    frames: Vec<(Frame, Sum)>,
    front: usize,
    mss: usize,
    at: usize,
}

impl Payload {
    fn new(end: &End, template: &HeaderTemplate, mss: u16) -> Result<Self> {
        let (front, mss) = (template.header_len(0), usize::from(mss));
        let mut frames = Vec::new();
        for _ in 0..FRAMES {
            let mut frame = end.pool.alloc().ok_or_else(|| failure!("no frame"))?;
            let out = frame.buffer_mut().ok_or_else(|| failure!("in flight"))?;
            out[front..front + mss].fill(0x5a);
            let sum = checksum::sum(&out[front..front + mss]);
            frame.set_len(front + mss);
            frames.push((frame, sum));
        }
        Ok(Self {
            frames,
            front,
            mss,
            at: 0,
        })
    }

    /// Sends what window and port have room for, but not more than belongs to a turn.
    fn send(
        &mut self,
        end: &mut End,
        template: &HeaderTemplate,
        source: &mut Source,
    ) -> Result<()> {
        if end.port.caps().tx_segment_bytes > 0 {
            self.send_bursts(end, template, source)
        } else {
            self.send_segments(end, template, source);
            Ok(())
        }
    }

    fn send_bursts(
        &mut self,
        end: &mut End,
        template: &HeaderTemplate,
        source: &mut Source,
    ) -> Result<()> {
        let (front, mss) = (self.front, self.mss);
        let bytes = SEGMENTS * mss;
        let shape = BurstShape {
            header_len: front,
            tcp_offset: template.tcp_offset(),
            segment_bytes: u16::try_from(mss).map_err(|e| failure!("{e}"))?,
            ipv6: false,
        };
        for _ in 0..BURSTS_PER_TURN {
            let frames = &mut self.frames[self.at..self.at + SEGMENTS];
            let Some(out) = frames[0].0.buffer_mut().filter(|_| end.port.tx_free() > 0) else {
                break;
            };
            let Some(header) = source.next(u32::try_from(bytes).unwrap_or(0)) else {
                break;
            };
            template.emit_partial(out, &header, &OptionsBuf::new(), bytes);
            let slices = frames
                .iter()
                .enumerate()
                .map(|(n, (frame, _))| (frame, if n == 0 { 0 } else { front }..front + mss));
            if end.port.tx_burst(&end.pool, &shape, slices) != Tx::Queued {
                return Err(failure!("the port refused what it had room for"));
            }
            self.at = (self.at + SEGMENTS) % FRAMES;
        }
        Ok(())
    }

    fn send_segments(&mut self, end: &mut End, template: &HeaderTemplate, source: &mut Source) {
        for _ in 0..SEGMENTS_PER_TURN {
            let (frame, sum) = &mut self.frames[self.at];
            let Some(out) = frame.buffer_mut().filter(|_| end.port.tx_free() > 0) else {
                break;
            };
            let Some(header) = source.next(u32::try_from(self.mss).unwrap_or(0)) else {
                break;
            };
            template.emit(out, &header, &OptionsBuf::new(), self.mss, *sum);
            let _: Tx = end.port.tx(&end.pool, frame);
            self.at = (self.at + 1) % FRAMES;
        }
    }
}

fn run_source(end: &mut End, macs: Macs, mss: u16, stop: &AtomicBool, tally: &Tally) -> Result<()> {
    let tuple = FourTuple {
        local: SocketAddr::new(Testbed::v4(Role::Braid, 1), CLIENT_PORT),
        remote: SocketAddr::new(Testbed::v4(Role::Peer, 1), PORT),
    };
    let template = template_to_peer(macs, &tuple)?;
    let mut payload = Payload::new(end, &template, mss)?;
    let mut source = Source::new(Instant::now());
    while !stop.load(Ordering::Relaxed) {
        end.beat();
        let (now, before) = (Instant::now(), source.acknowledged);
        if end.receive() {
            for segment in segments(end) {
                if let Some(reply) = source.on_segment(now, &segment) {
                    send(end, &template, &reply, mss)?;
                }
            }
            end.release();
        }
        if let Some(reply) = source.poll(now) {
            send(end, &template, &reply, mss)?;
        }
        payload.send(end, &template, &mut source)?;
        end.flush();
        tally.add(1, source.acknowledged - before);
        if source.is_reset() {
            return Err(failure!("the peer has reset the connection"));
        }
    }
    send(end, &template, &source.abort(), mss)?;
    end.flush();
    Ok(())
}

fn upload(
    testbed: &Testbed,
    role: Role,
    to: Role,
    core: usize,
    bench: &Path,
    duration: Duration,
) -> Result<Process> {
    let to = SocketAddr::new(Testbed::v4(to, 1), PORT).to_string();
    let (core, seconds) = (core.to_string(), duration.as_secs_f64().to_string());
    let mut args = vec![
        "upload",
        "--tcp",
        "--content",
        "raw",
        "--stall-timeout-s",
        "5",
    ];
    args.extend(["--to", &to, "--seconds", &seconds, "--core", &core]);
    testbed.peer(role, bench, &args)
}

fn serve(testbed: &Testbed, role: Role, core: usize, bench: &Path) -> Result<Process> {
    let (listen, core) = (format!("[::]:{PORT}"), core.to_string());
    let mut args = vec!["--tcp", "--app", "sink", "--content", "raw", "--count", "1"];
    args.extend([
        "--listen",
        &listen,
        "--core",
        &core,
        "--stall-timeout-s",
        "5",
    ]);
    testbed.server(role, bench, &args)
}

fn outcome(client: &mut Process, duration: Duration, before: CpuSeconds) -> Result<Sample> {
    let report: Report = client.json(PATIENCE + duration * 2)?;
    let cpu = CpuSeconds::now()?.since(before);
    if !report.intact {
        return Err(failure!(
            "the kernel's client: {}",
            report.error.unwrap_or_default()
        ));
    }
    Sample::new(
        report.bytes_sent,
        Duration::from_secs_f64(report.seconds),
        cpu,
    )
}

/// A kernel's TCP on both sides: from the peer's namespace, or to it.
pub fn kernel(
    testbed: &Testbed,
    from_peer: bool,
    bench: &Path,
    duration: Duration,
) -> Result<Sample> {
    let ends = [(Role::Peer, PEER_CORE), (Role::Braid, BRAID_CORE)];
    let [client, server] = if from_peer { ends } else { [ends[1], ends[0]] };
    let _server = serve(testbed, server.0, server.1, bench)?;
    let before = CpuSeconds::now()?;
    let mut client = upload(testbed, client.0, server.0, client.1, bench, duration)?;
    outcome(&mut client, duration, before)
}

/// A kernel sends to a raw end.
pub fn sink(testbed: &Testbed, lane: Lane, bench: &Path, duration: Duration) -> Result<Sample> {
    let mtu = testbed.options().mtu;
    let mss = template_mss(mtu)?;
    let service = SocketAddr::new(Testbed::v4(Role::Braid, 1), PORT);
    let tally = Tally::default();
    std::thread::scope(|scope| {
        let mut sink = Pinned::start(scope, testbed, Role::Braid, BRAID_CORE, |stop, ready| {
            let mut end = End::open(Role::Braid, lane, service, mtu, 0)?;
            ready();
            run_sink(&mut end, mss, stop, &tally)
        })?;
        let before = CpuSeconds::now()?;
        let mut client = upload(testbed, Role::Peer, Role::Braid, PEER_CORE, bench, duration)?;
        let sample = outcome(&mut client, duration, before);
        sink.finish()?;
        sample
    })
}

/// A raw end sends to a kernel.
pub fn source(testbed: &Testbed, lane: Lane, bench: &Path, duration: Duration) -> Result<Sample> {
    let mtu = testbed.options().mtu;
    let (mss, macs) = (template_mss(mtu)?, Macs::of(testbed)?);
    let local = SocketAddr::new(Testbed::v4(Role::Braid, 1), CLIENT_PORT);
    let tally = Tally::default();
    let _server = serve(testbed, Role::Peer, PEER_CORE, bench)?;
    let frames = u32::try_from(FRAMES).map_err(|e| failure!("{e}"))?;
    std::thread::scope(|scope| {
        let mut source = Pinned::start(scope, testbed, Role::Braid, BRAID_CORE, |stop, ready| {
            let mut end = End::open(Role::Braid, lane, local, mtu, frames)?;
            ready();
            run_source(&mut end, macs, mss, stop, &tally)
        })?;
        let deadline = Instant::now() + PATIENCE;
        while tally.look().1 == 0 && !source.ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(WARM_UP);
        let (start, first, cpu) = (Instant::now(), tally.look().1, CpuSeconds::now()?);
        std::thread::sleep(duration);
        let (elapsed, last, cpu) = (
            start.elapsed(),
            tally.look().1,
            CpuSeconds::now()?.since(cpu),
        );
        source.finish()?;
        Sample::new(last - first, elapsed, cpu)
    })
}
