//! The engine alone, on memory ports: what the protocol costs when the port costs as good
//! as nothing. Beside it, in the same run, smoltcp's TCP over a device of the same kind,
//! and memcpy as the limit.
//!
//! | file | one idea |
//! |---|---|
//! | [`braid`] | two engines on a memory link, on one core or on two |
//! | [`smol`] | smoltcp's TCP between two interfaces on a memory link |
//! | [`copy`] | pieces of a packet's size, copied within a working set |
//! | [`stages`] | what the parts of a packet's way cost, each by itself |

pub mod braid;
pub mod copy;
pub mod smol;
pub mod stages;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::progress::Progress;
use super::results::{Protocol, Results};
use super::statistics::Spread;
use crate::failure;
use crate::testbed::Result;

/// Ethernet frames, bytes. Below the first the headers of a data segment leave no room.
const FRAME_SIZES: [u32; 7] = [128, 256, 512, 1514, 4096, 9014, 65_535];
/// Frames of [`Arguments::quick`].
const FRAME_SIZES_QUICK: [u32; 3] = [512, 1514, 65_535];
/// Working sets of memcpy.
const WORKING_SETS_BYTES: [usize; 2] = [1 << 20, 128 << 20];

/// What was measured.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Subject {
    /// Two engines.
    Braid {
        /// One core does both ends, or one core each.
        cores: u8,
        /// DSS checksums.
        checksum: bool,
    },
    /// smoltcp, both ends on one core.
    Smoltcp,
    /// memcpy on one core.
    Memcpy {
        /// Of source and destination together.
        working_set_bytes: usize,
    },
    /// A part of a packet's way through an engine.
    Stage {
        /// Which.
        name: String,
    },
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Braid { cores, checksum } => {
                let sum = if *checksum { ", DSS checksum" } else { "" };
                let plural = if *cores == 1 { "core" } else { "cores" };
                write!(f, "braid, {cores} {plural}{sum}")
            }
            Self::Smoltcp => f.write_str("smoltcp, 1 core"),
            Self::Memcpy { working_set_bytes } => {
                write!(f, "memcpy in {} MiB", working_set_bytes >> 20)
            }
            Self::Stage { name } => write!(f, "stage: {name}"),
        }
    }
}

/// What came of a subject at a frame size.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EnginePoint {
    /// Which.
    pub subject: Subject,
    /// Largest Ethernet frame, bytes.
    pub frame_bytes: u32,
    /// Payload delivered; `None` for stages.
    pub gbit_per_s: Option<Spread>,
    /// Processor time of one end per data packet; for memcpy, per piece.
    pub ns_per_packet: Spread,
}

impl EnginePoint {
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let spread = Spread::of([90.0, 100.0, 130.0]).unwrap();
        Self {
            subject: Subject::Smoltcp,
            frame_bytes: 1514,
            gbit_per_s: Some(spread),
            ns_per_packet: spread,
        }
    }
}

/// Processor time of the calling thread. Unlike the time of day it does not pass while
/// another program has the core.
#[derive(Copy, Clone, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self(Self::now())
    }

    /// Since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_sub(self.0)
    }

    fn now() -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap_or_default()
    }
}

/// One measurement.
#[derive(Copy, Clone, Debug)]
pub struct Sample {
    /// Payload delivered.
    pub bytes: u64,
    /// Packets that carried it.
    pub packets: u64,
    /// How long it took: the thread's processor time, or on two cores the time of day.
    pub elapsed: Duration,
    /// Ends that shared the core.
    pub ends_per_core: u32,
}

impl Sample {
    fn gbit_per_s(&self) -> f64 {
        crate::peer::transfer::gbit_per_s(self.bytes, self.elapsed)
    }

    fn ns_per_packet(&self) -> f64 {
        self.elapsed.as_nanos() as f64
            / (self.packets.max(1) as f64 * f64::from(self.ends_per_core))
    }
}

/// What `braid-bench engine` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// A few frame sizes, in less than a minute
    #[arg(long)]
    quick: bool,
    /// Frame sizes, bytes, instead of 128 to 65535
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(128..=65_535))]
    frames: Vec<u32>,
    /// Measurements of each [default: 7, quick: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: Option<u16>,
    /// Payload of each measurement, MiB [default: 2048, quick: 256]; less at small frames
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    mib: Option<u64>,
    /// Core of both ends, or of the first
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Add the results to those in this file, as written by `braid-bench veth --json`
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    into: Option<PathBuf>,
    /// Write the report to this file
    #[arg(long)]
    html: Option<PathBuf>,
}

/// Payload of a measurement: what takes about as long at every frame size.
fn payload_bytes(full_mib: u64, frame_bytes: u32) -> u64 {
    ((full_mib << 20) * u64::from(frame_bytes.min(1514)) / 1514).max(1 << 20)
}

fn subjects(cores: usize) -> Vec<Subject> {
    let mut subjects = vec![
        Subject::Braid {
            cores: 1,
            checksum: false,
        },
        Subject::Braid {
            cores: 1,
            checksum: true,
        },
    ];
    if cores >= 2 {
        subjects.push(Subject::Braid {
            cores: 2,
            checksum: false,
        });
    }
    subjects.push(Subject::Smoltcp);
    let memcpy = |working_set_bytes| Subject::Memcpy { working_set_bytes };
    subjects.extend(WORKING_SETS_BYTES.map(memcpy));
    subjects
}

fn measure(subject: &Subject, frame_bytes: u32, bytes: u64, core: usize) -> Result<Sample> {
    match *subject {
        Subject::Braid { cores: 1, checksum } => braid::one_core(frame_bytes, checksum, bytes),
        Subject::Braid { checksum, .. } => braid::two_cores(frame_bytes, checksum, bytes, core),
        Subject::Smoltcp => smol::transfer(frame_bytes, bytes),
        Subject::Memcpy { working_set_bytes } => {
            Ok(copy::pieces(frame_bytes, working_set_bytes, bytes))
        }
        Subject::Stage { .. } => Err(failure!("stages are measured together")),
    }
}

fn point(subject: &Subject, frame_bytes: u32, samples: &[Sample]) -> Option<EnginePoint> {
    Some(EnginePoint {
        subject: subject.clone(),
        frame_bytes,
        gbit_per_s: Spread::of(samples.iter().map(Sample::gbit_per_s)),
        ns_per_packet: Spread::of(samples.iter().map(Sample::ns_per_packet))?,
    })
}

fn run_all(arguments: &Arguments) -> Result<Results> {
    let repeats = usize::from(
        arguments
            .repeats
            .unwrap_or(if arguments.quick { 3 } else { 7 }),
    );
    let mib = arguments
        .mib
        .unwrap_or(if arguments.quick { 256 } else { 2048 });
    let mut sizes = arguments.frames.clone();
    if sizes.is_empty() {
        sizes = if arguments.quick {
            FRAME_SIZES_QUICK.to_vec()
        } else {
            FRAME_SIZES.to_vec()
        };
    }
    let program = std::env::current_exe().unwrap_or_default();
    let machine = Machine::here(program.parent().unwrap_or(&program));
    let subjects = subjects(machine.cores);
    let core = core_affinity::CoreId { id: arguments.core };
    if !core_affinity::set_for_current(core) {
        return Err(failure!("cannot run on core {} only", arguments.core));
    }
    let protocol = Protocol {
        command: std::env::args()
            .skip(1)
            .fold("braid-bench".to_owned(), |a, b| a + " " + &b),
        repeats,
        congestion: "reno (braid), none (smoltcp)".to_owned(),
        mode: "memory".to_owned(),
        braid_core: arguments.core,
        notes: vec![
            "one measurement of every subject per round".to_owned(),
            "all ends make and verify TCP checksums; one connection on one path".to_owned(),
            "one core: processor time by data packets by 2, as it does both ends".to_owned(),
            "two cores: time of day, so that others' load shows".to_owned(),
            "smoltcp's application touches no payload, as in its own benchmark; braid's source \
             writes it. The better of smoltcp with buffers of 64 KiB and 1 MiB"
                .to_owned(),
        ],
        ..Protocol::default()
    };
    let mut results = Results::begin(machine, protocol);
    let progress = Progress::new(sizes.len() * (subjects.len() * repeats + 1));
    for &frame_bytes in &sizes {
        let bytes = payload_bytes(mib, frame_bytes);
        let mut samples = vec![Vec::new(); subjects.len()];
        for _ in 0..repeats {
            for (subject, samples) in subjects.iter().zip(&mut samples) {
                progress.begin(&format!("{subject}, {frame_bytes} bytes"));
                match measure(subject, frame_bytes, bytes, arguments.core) {
                    Ok(sample) => samples.push(sample),
                    Err(e) => progress.say(&format!("{subject}, {frame_bytes} bytes: {e}")),
                }
                progress.end(&format!("{subject}, {frame_bytes} bytes"));
            }
        }
        let points = subjects.iter().zip(&samples);
        results
            .engine
            .extend(points.filter_map(|(s, samples)| point(s, frame_bytes, samples)));
        progress.begin(&format!("stages, {frame_bytes} bytes"));
        results
            .engine
            .extend(stages::measure(frame_bytes, repeats)?);
        progress.end(&format!("stages, {frame_bytes} bytes"));
    }
    Ok(results)
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let earlier = arguments.into.as_deref().map(Results::load);
    let earlier = earlier.transpose().map_err(io::Error::other)?;
    let mut results = run_all(arguments).map_err(io::Error::other)?;
    print!("{}", crate::report::benchmark::text(&results));
    if let Some(earlier) = earlier {
        results = earlier.with(results);
    }
    let json = arguments.json.as_deref().or(arguments.into.as_deref());
    crate::report::benchmark::write(&results, json, arguments.html.as_deref())
        .map_err(io::Error::other)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 4 << 20;

    #[test]
    fn engines_deliver_at_every_frame_size() {
        for frame_bytes in FRAME_SIZES {
            let sample = braid::one_core(frame_bytes, false, BYTES).unwrap();
            assert_eq!(sample.bytes, BYTES, "{frame_bytes}");
            let least = BYTES / u64::from(frame_bytes);
            assert!(sample.packets >= least, "{frame_bytes}: {sample:?}");
        }
    }

    #[test]
    fn engines_deliver_with_checksums_and_on_two_threads() {
        assert_eq!(braid::one_core(1514, true, BYTES).unwrap().bytes, BYTES);
        assert_eq!(
            braid::two_cores(1514, false, BYTES, 0).unwrap().bytes,
            BYTES
        );
    }

    #[test]
    fn smoltcp_delivers_in_frames_of_the_size() {
        for frame_bytes in [512, 1514, 65_535] {
            let sample = smol::transfer(frame_bytes, BYTES).unwrap();
            assert_eq!(sample.bytes, BYTES);
            assert!(
                sample.packets >= BYTES / u64::from(frame_bytes),
                "{sample:?}"
            );
        }
    }

    #[test]
    fn a_stopwatch_does_not_count_sleep() {
        let (watch, wall) = (Stopwatch::start(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(30));
        assert!(watch.elapsed() < wall.elapsed() / 2);
        let mut x = 1_u64;
        while watch.elapsed() < Duration::from_millis(2) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }

    #[test]
    fn time_is_shared_by_the_ends_of_a_core() {
        let sample = Sample {
            bytes: 1000,
            packets: 10,
            elapsed: Duration::from_nanos(2000),
            ends_per_core: 2,
        };
        assert_eq!(sample.ns_per_packet(), 100.0);
        assert_eq!(sample.gbit_per_s(), 4.0);
    }
}
