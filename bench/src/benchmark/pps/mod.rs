//! The raw port, without protocol: what the lanes of braid's ports carry when nobody does
//! more than hand frames over. Protocol overhead is a ratio to these figures.
//!
//! | file | one idea |
//! |---|---|
//! | [`end`] | program, UMEM and socket on a pinned thread in a namespace |
//! | [`raw`] | frames from one raw end to the other, the same few over and over |
//! | [`responder`] | TCP as little as a kernel peer lets one get away with |
//! | [`tcp`] | that, between a port and a kernel peer |

pub mod end;
pub mod raw;
pub mod responder;
pub mod tcp;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::end::Lane;
use self::raw::Load;
use super::figure::{Bench, Figure, record};
use super::output::{Output, foreign_load, require};
use super::progress::Progress;
use super::results::Results;
use crate::failure;
use crate::testbed::requirement::{Requirement, programs};
use crate::testbed::{Options, Result, Role, Testbed};

/// Frames that bursts are sent from, in turn: a burst, about 1 MiB and about 16 MiB.
const WORKING_SETS: [usize; 3] = [raw::SEGMENTS, 16 * raw::SEGMENTS, 256 * raw::SEGMENTS];

/// What `braid-bench pps` accepts.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Of each measurement [default: 2, quick: 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// Only what has this in its name, as in `superframe`; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Prefix of the namespaces; a number follows
    #[arg(long)]
    name: Option<String>,
    /// Output.
    #[command(flatten)]
    output: Output,
}

/// Who sends what to whom.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Raw(Lane, Load),
    Kernel { from_peer: bool },
    Sink(Lane),
    Source(Lane),
}

/// One thing to be measured.
#[derive(Clone, Debug)]
struct Job {
    offloads: bool,
    place: String,
    subject: String,
    kind: Kind,
}

impl Job {
    fn new(
        offloads: bool,
        place: impl Into<String>,
        subject: impl Into<String>,
        kind: Kind,
    ) -> Self {
        let (place, subject) = (place.into(), subject.into());
        Self {
            offloads,
            place,
            subject,
            kind,
        }
    }

    fn all() -> Vec<Self> {
        let mut jobs = Vec::new();
        for bytes in [64, 1514] {
            let place = format!("XSK to XSK, frames of {bytes} bytes, offloads off");
            for (name, lane) in [("native", Lane::Native), ("generic", Lane::Generic)] {
                let kind = Kind::Raw(lane, Load::Frames(bytes));
                jobs.push(Job::new(false, place.clone(), name, kind));
            }
        }
        for frames in WORKING_SETS {
            let mib = (frames * usize::from(raw::SEGMENT_BYTES)) as f64 / f64::from(1_u32 << 20);
            let place = "gso lane to superframe XSK, offloads on";
            let subject = format!("from {frames} frames ({mib:.2} MiB)");
            let kind = Kind::Raw(Lane::Superframe, Load::Bursts(frames));
            jobs.push(Job::new(true, place, subject, kind));
        }
        for (offloads, lane) in [(true, Lane::Superframe), (false, Lane::Native)] {
            let name = if offloads { "on" } else { "off" };
            let raw = if offloads {
                "superframe"
            } else {
                "native, MTU frames"
            };
            for from_peer in [true, false] {
                let verb = if from_peer { "from" } else { "to" };
                let place = format!("{verb} kernel TCP, offloads {name}");
                let kernel = Kind::Kernel { from_peer };
                jobs.push(Job::new(offloads, place.clone(), "kernel", kernel));
                let (who, kind) = if from_peer {
                    ("sink", Kind::Sink(lane))
                } else {
                    ("source", Kind::Source(lane))
                };
                jobs.push(Job::new(offloads, place, format!("raw {who}, {raw}"), kind));
            }
        }
        jobs
    }

    fn name(&self) -> String {
        format!("{}: {}", self.place, self.subject)
    }

    /// Quantity, unit, whether more is better, and value.
    fn measure(&self, testbed: &Testbed, duration: Duration) -> Result<Vec<Value>> {
        let bench = programs().join("braid-bench");
        let sample = match self.kind {
            Kind::Raw(lane, load) => {
                let sample = raw::measure(testbed, lane, load, duration)?;
                return Ok(vec![
                    ("rate", "Gb/s", true, sample.bits_per_s / 1e9),
                    ("packets received", "Mpps", true, sample.packets_per_s / 1e6),
                    ("lost", "%", false, sample.lost * 100.0),
                ]);
            }
            Kind::Kernel { from_peer } => tcp::kernel(testbed, from_peer, &bench, duration)?,
            Kind::Sink(lane) => tcp::sink(testbed, lane, &bench, duration)?,
            Kind::Source(lane) => tcp::source(testbed, lane, &bench, duration)?,
        };
        Ok(vec![
            ("rate", "Gb/s", true, sample.gbit_per_s),
            (
                "processor time, whole machine",
                "s/GiB",
                false,
                sample.cpu_s_per_gib,
            ),
        ])
    }

    fn figure(&self, (quantity, unit, higher_is_better): (&str, &str, bool)) -> Figure {
        let yardstick = matches!(self.kind, Kind::Kernel { .. });
        let (place, subject) = (&*self.place, &*self.subject);
        Figure::new(
            Bench::Pps,
            place,
            subject,
            (quantity, unit),
            higher_is_better,
        )
        .as_yardstick(yardstick)
    }
}

type Value = (&'static str, &'static str, bool, f64);

fn jobs(only: &[String]) -> Result<Vec<Job>> {
    let wanted = |job: &Job| only.is_empty() || only.iter().any(|text| job.name().contains(text));
    let jobs: Vec<Job> = Job::all().into_iter().filter(wanted).collect();
    if jobs.is_empty() {
        let names: Vec<String> = Job::all().iter().map(Job::name).collect();
        return Err(failure!(
            "nothing matches {only:?}; there are:\n{}",
            names.join("\n")
        ));
    }
    Ok(jobs)
}

fn testbeds(jobs: &[Job], name: &str) -> Result<BTreeMap<bool, Testbed>> {
    let mut beds = BTreeMap::new();
    for job in jobs {
        if !beds.contains_key(&job.offloads) {
            let options = Options {
                paths: 1,
                offloads: job.offloads,
                ..Options::default()
            };
            let testbed = Testbed::named(&format!("{name}{}", beds.len()), options)?;
            for role in [Role::Peer, Role::Braid] {
                let reno = "net.ipv4.tcp_congestion_control=reno";
                testbed.run(role, &["sysctl", "-q", "-w", reno])?;
            }
            beds.insert(job.offloads, testbed);
        }
    }
    Ok(beds)
}

fn run_all(arguments: &Arguments) -> Result<Results> {
    require(&[
        Requirement::Root,
        Requirement::XdpSockets,
        Requirement::TwoCores,
        Requirement::Programs,
    ])?;
    let (output, jobs) = (&arguments.output, jobs(&arguments.only)?);
    let seconds = arguments
        .seconds
        .unwrap_or(if output.quick { 0.5 } else { 2.0 });
    if !(0.05..=3600.0).contains(&seconds) {
        return Err(failure!("--seconds: 0.05 to 3600"));
    }
    let repeats = output.repeats()?;
    let mut results = output.begin(
        seconds,
        &[
            "one measurement of every lane per round; raw ends spin on core 1 and send from core 0",
            "raw ends look at no payload; between raw ends rates count whole frames, else payload",
            "TCP of raw ends has no congestion control and no timestamps: segments of 1460 bytes",
        ],
    )?;
    let progress = Progress::new(jobs.len() * repeats);
    if let Some(warning) = foreign_load()? {
        progress.say(&warning);
    }
    let name = arguments.name.clone();
    let name = name.unwrap_or_else(|| format!("bt-{}-p", std::process::id()));
    let beds = testbeds(&jobs, &name)?;
    for _ in 0..repeats {
        for job in &jobs {
            progress.begin(&job.name());
            match job.measure(&beds[&job.offloads], Duration::from_secs_f64(seconds)) {
                Ok(values) => {
                    progress.end(&format!(
                        "{}: {:.2} {}",
                        job.name(),
                        values[0].3,
                        values[0].1
                    ));
                    for (quantity, unit, more, value) in values {
                        record(
                            &mut results.figures,
                            job.figure((quantity, unit, more)),
                            Ok(value),
                        );
                    }
                }
                Err(e) => {
                    progress.end(&format!("{}: failed: {e}", job.name()));
                    let like = job.figure(("rate", "Gb/s", true));
                    record(&mut results.figures, like, Err(format!("failed: {e}")));
                }
            }
        }
    }
    Ok(results)
}

/// Runs it.
pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let results = run_all(arguments).map_err(io::Error::other)?;
    arguments.output.finish(results)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_kernel_lane_has_a_raw_one() {
        let all = Job::all();
        let names: BTreeSet<_> = all.iter().map(Job::name).collect();
        assert_eq!(names.len(), all.len());
        for job in &all {
            let kernel = matches!(job.kind, Kind::Kernel { .. });
            let beside = all.iter().filter(|other| other.place == job.place).count();
            assert!(!kernel || beside == 2, "{job:?}");
        }
    }

    #[test]
    fn filters_choose_and_mistakes_name_what_there_is() {
        assert_eq!(jobs(&["superframe XSK".to_owned()]).unwrap().len(), 3);
        let error = jobs(&["no such".to_owned()]).unwrap_err();
        assert!(
            error.0.contains("XSK to XSK, frames of 64 bytes"),
            "{error}"
        );
    }
}
