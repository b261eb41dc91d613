//! One seed, run and judged.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use braid_dataplane::app::pattern;
use braid_dataplane::counters::Counter;
use braid_dataplane::mptcp::{CloseReason, Event};
use braid_dataplane::worker::Order;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use rand::Rng;

use super::altered;
use super::boxes::Boxes;
use super::world::{self, CLIENT, Cut, SERVER, Trigger, Trouble, World, address_id};
use super::{FAULTS_MIN, STALL, STALL_BOXED};
use crate::middlebox::Toward;
use crate::sim::{Fault, LinkConfig, Outcome};

/// No seed needs longer in virtual time.
const LIMIT: Duration = Duration::from_secs(1_500);

/// Some boxes let a few packets through, or a few bytes at a time: that goes on for hours.
const LIMIT_BOXED: Duration = Duration::from_secs(40_000);

/// No seed needs more events: who does more work than this makes no progress.
const EVENTS_MAX: u64 = 3_000_000;

/// TIME-WAIT is over after this (RFC 9293 §3.4.2, as short as Linux has it).
const TIME_WAIT_OVER: Duration = Duration::from_secs(130);

/// Packets of a replay that are kept.
const REPLAY_PACKETS: usize = 400_000;

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of every packet: equal for equal code and seed.
    pub hash: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Events.
    pub events: u64,
    /// Bytes that applications received and found right.
    pub bytes: u64,
    /// Faults that happened while data moved.
    pub faults: u32,
    /// The main connection ended as it should.
    pub finished: bool,
    /// CPU time.
    pub cpu: Duration,
    /// The catalogue's number of the middlebox, if there was one.
    pub middlebox: Option<&'static str>,
    /// What is wrong.
    pub failure: Option<String>,
}

/// Runs a seed without keeping its packets, with the middlebox `only` if one is named.
#[must_use]
pub fn run(seed: u64, only: Option<&str>) -> Report {
    let before = cpu_time();
    let mut world = world::build(seed, only);
    let mut report = judge(seed, &mut world);
    drop(world);
    report.cpu = cpu_time().saturating_sub(before);
    report
}

/// What this thread has used.
fn cpu_time() -> Duration {
    let micros = |t: TimeVal| u64::try_from(t.num_microseconds()).unwrap_or(0);
    getrusage(UsageWho::RUSAGE_THREAD).map_or(Duration::ZERO, |usage| {
        Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
    })
}

/// Runs a seed again with its packets, and writes them into `directory`. Returns the report
/// and what to tell a reader.
#[must_use]
pub fn replay(seed: u64, only: Option<&str>, directory: &Path) -> (Report, String) {
    let mut world = world::build(seed, only);
    world.sim.keep_trace(REPLAY_PACKETS);
    let report = judge(seed, &mut world);
    let mut text = format!("seed {seed}: {report:#?}\n");
    for line in &world.story {
        text.push_str(line);
        text.push('\n');
    }
    for host in 0..world.sim.hosts() {
        text.push_str(&format!(
            "host{host} {:?}\n",
            world.sim.host(host).counters()
        ));
    }
    text.push_str(&world.sim.dump_trace_to(directory, &format!("seed-{seed}")));
    let boxed = only.map_or(String::new(), |id| format!("BRAID_BOX={id} "));
    text.push_str(&format!(
        "replay: {boxed}BRAID_SEED={seed} cargo test --profile live -p braid-bench --test swarm\n"
    ));
    (report, text)
}

fn judge(seed: u64, world: &mut World) -> Report {
    let mut faults = 0;
    let result = catch_unwind(AssertUnwindSafe(|| world.drive(&mut faults)));
    let failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(format!("panic: {}", words(&*panic))),
    };
    let bytes = world.main.client.get().received
        + world.main.server.get().received
        + world
            .others
            .iter()
            .map(|o| o.client.get().received)
            .sum::<u64>();
    Report {
        seed,
        hash: world.sim.trace_hash(),
        simulated: world.sim.elapsed(),
        events: world.sim.events(),
        bytes,
        faults,
        finished: world.main.client.get().closed == Some(CloseReason::Finished),
        cpu: Duration::ZERO,
        middlebox: world.boxes.as_ref().map(|b| b.entry.id),
        failure,
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "without words".to_string())
}

impl World {
    fn drive(&mut self, faults: &mut u32) -> Result<(), String> {
        self.move_data(faults)?;
        self.check_ends()?;
        let ended = self.main.client.get().closed != Some(CloseReason::Finished);
        // Bytes behind a changed one are not counted, so faults may wait for them in vain.
        let alters = self.alters();
        let all = *faults as usize + self.overtaken;
        if all < FAULTS_MIN as usize && !ended && !alters {
            return Err(format!("only {faults} faults happened"));
        }
        Ok(())
    }

    /// Until every connection is over at both ends.
    fn move_data(&mut self, faults: &mut u32) -> Result<(), String> {
        let mut progress = (0, 0);
        let mut since = Duration::ZERO;
        let (stall, end) = if self.boxes.is_some() {
            (STALL_BOXED, LIMIT_BOXED)
        } else {
            (STALL, LIMIT)
        };
        loop {
            let limit = self.next_stop(since + stall);
            let (main, others) = (&self.main, &self.others);
            let (client, server) = (main.client.clone(), main.server.clone());
            let total = (main.down + if main.echo { 0 } else { main.up }) as f64;
            let due = self.faults.first().map_or(f64::INFINITY, |f| f.after) * total;
            let mut turn = 0u32;
            let mut over = false;
            let events = self.sim.events();
            self.sim.run_until(limit, |sim| {
                // Locks and looks only now and then: a look costs as much as a packet.
                turn += 1;
                if !turn.is_multiple_of(16) {
                    return false;
                }
                let (client, server) = (client.get(), server.get());
                over = client.closed.is_some()
                    && others.iter().all(|o| o.client.get().closed.is_some())
                    && (0..sim.hosts()).all(|h| sim.host(h).engine().connections() == 0);
                over || (client.received + server.received) as f64 >= due
                    || !sim.violations().is_empty()
                    || sim.events() - events > EVENTS_MAX
            });
            if let Some(violation) = self.sim.violations().first() {
                return Err(format!("violation {violation}"));
            }
            over |= self.is_over();
            let (client, server) = (self.main.client.get(), self.main.server.get());
            let received = (client.received + server.received) as f64;
            let due = |f: &Trigger| received >= f.after * total;
            if over {
                // What came last may have completed the stream at once, from before the fault.
                self.overtaken = self.faults.iter().filter(|f| due(f)).count();
                return Ok(());
            }
            while self.faults.first().is_some_and(due) {
                let trigger = self.faults.remove(0);
                self.strike(&trigger.fault, trigger.lasts);
                *faults += 1;
            }
            self.cut();
            let moved = (self.arrived(), self.living());
            if moved != progress {
                (progress, since) = (moved, self.sim.elapsed());
            }
            if self.sim.events() > EVENTS_MAX {
                return Err(format!("{} events and not over", self.sim.events()));
            }
            if self.sim.elapsed() >= since + stall || self.sim.elapsed() >= end {
                return Err(format!("stalled since {since:?}: {}", self.state()));
            }
        }
    }

    /// When the loop must look again although nothing called it.
    fn next_stop(&self, stall: Duration) -> Duration {
        let cuts = self.others.iter().filter_map(|o| o.cut.map(|(at, _)| at));
        let step = self.sim.elapsed() + Duration::from_secs(5);
        cuts.chain([step, stall]).min().unwrap_or(step)
    }

    /// How often a connection got bytes that it had not got before, in order or not: a
    /// box that ends every subflow after a few packets may let the first of them through last.
    fn arrived(&mut self) -> u64 {
        const NEW: [Counter; 3] = [
            Counter::BytesDelivered,
            Counter::OFOQueueTail,
            Counter::OFOQueue,
        ];
        let hosts = 0..self.sim.hosts();
        hosts
            .map(|h| {
                let counters = self.sim.host(h).counters();
                NEW.iter().map(|c| counters.get(*c)).sum::<u64>()
            })
            .sum()
    }

    /// Connections that are not over, at all hosts.
    fn living(&mut self) -> usize {
        (0..self.sim.hosts())
            .map(|h| self.sim.host(h).engine().connections())
            .sum()
    }

    fn is_over(&mut self) -> bool {
        self.main.client.get().closed.is_some()
            && self.others.iter().all(|o| o.client.get().closed.is_some())
            && self.living() == 0
    }

    fn state(&mut self) -> String {
        format!(
            "main client {:?}, server {:?}, {} connections live",
            self.main.client.get(),
            self.main.server.get(),
            self.living()
        )
    }

    /// Ends the connections whose time it is.
    fn cut(&mut self) {
        let now = self.sim.elapsed();
        for other in &mut self.others {
            if let Some((at, cut)) = other.cut
                && at <= now
            {
                let order = match cut {
                    Cut::Abort => Order::Abort,
                    Cut::Close => Order::Close,
                };
                // It may be over by itself.
                let _ = self.sim.order(other.host, other.token, order);
                other.cut = None;
            }
        }
    }

    /// Does `fault` now and undoes it later.
    fn strike(&mut self, fault: &Trouble, lasts: Duration) {
        let now = self.sim.elapsed();
        let back = now + lasts;
        let token = self.main.token;
        match *fault {
            Trouble::Blackhole { link } => {
                self.sim.at(now, Fault::Blackhole { link, on: true });
                self.sim.at(back, Fault::Blackhole { link, on: false });
            }
            Trouble::Carrier { link, host } => {
                for (at, up) in [(now, false), (back, true)] {
                    self.sim.at(at, Fault::Carrier { link, host, up });
                }
            }
            Trouble::Mtu { link, mtu, too_big } => {
                // For good: a route that changed.
                self.sim.at(now, Fault::Mtu { link, mtu, too_big });
            }
            Trouble::Loss { link, loss } => {
                self.change(link, back, |c| &mut c.loss, loss);
            }
            Trouble::Corrupt { link } => {
                self.change(link, back, |c| &mut c.corrupt, 0.05);
            }
            Trouble::Slow { link, rate_bps } => {
                self.change(link, back, |c| &mut c.rate_bps, Some(rate_bps));
            }
            Trouble::Longer { link, by } => {
                let mut longer = by;
                self.sim.reconfigure(link, |c| longer += c.delay);
                self.change(link, back, |c| &mut c.delay, longer);
            }
            Trouble::CloseSubflow { host } => {
                let engine = self.sim.host(host).engine();
                let subflows: Vec<_> = engine
                    .connection(token)
                    .map(|c| c.subflows().map(|(_, path)| path.tuple).collect())
                    .unwrap_or_default();
                if subflows.len() > 1 {
                    let tuple = subflows[self.rng.random_range(0..subflows.len())];
                    let _ = self.sim.order(host, token, Order::CloseSubflow(tuple));
                }
            }
            Trouble::Backup { host, id } => {
                let Some(token) = self.token_at(host) else {
                    return;
                };
                let address_id = address_id(id);
                for backup in [true, self.rng.random_bool(0.5)] {
                    let order = Order::SetBackup { address_id, backup };
                    let _ = self.sim.order(host, token, order);
                }
            }
            Trouble::RemoveAddress { host, id } => {
                let engine = self.sim.host(host).engine();
                let several = engine
                    .connection(token)
                    .is_some_and(|c| c.subflows().count() > 1);
                if several {
                    let address_id = address_id(id);
                    let order = Order::RemoveAddress { address_id };
                    let _ = self.sim.order(host, token, order);
                }
            }
        }
    }

    /// The main connection's own token at a host.
    fn token_at(&mut self, host: usize) -> Option<u32> {
        if host == CLIENT {
            return Some(self.main.token);
        }
        let now = braid_dataplane::time::Instant::default();
        let engine = self.sim.host(CLIENT).engine();
        engine.connection(self.main.token)?.info(now).remote_token
    }

    /// Another value for a property of a link, and the old one back later.
    fn change<T: Copy + 'static>(
        &mut self,
        link: usize,
        back: Duration,
        field: impl Fn(&mut LinkConfig) -> &mut T + 'static,
        value: T,
    ) {
        let mut old = None;
        self.sim
            .reconfigure(link, |c| old = Some(std::mem::replace(field(c), value)));
        if let Some(old) = old {
            self.sim
                .reconfigure_at(back, link, move |c| *field(c) = old);
        }
    }

    fn alters(&self) -> bool {
        self.boxes.as_ref().is_some_and(Boxes::alters)
    }

    /// Whether a connection of `host` that began on `link` may fail.
    fn may_fail(&self, host: usize, link: usize) -> bool {
        let boxes = self.boxes.as_ref().filter(|_| host == CLIENT);
        boxes.is_some_and(|b| b.may_fail(link, self.joins))
    }

    /// Streams, reasons, frames and flows once all is over.
    fn check_ends(&mut self) -> Result<(), String> {
        self.check_main()?;
        let alters = self.alters();
        for (i, other) in self.others.iter().enumerate() {
            let outcome = other.client.get();
            if let Some(at) = outcome.wrong_at
                && !alters
            {
                return Err(format!("connection {i} wrong at byte {at}"));
            }
            let finished = outcome.closed == Some(CloseReason::Finished);
            if !finished && !other.free && !self.may_fail(other.host, other.link) {
                return Err(format!("connection {i} ended: {outcome:?}"));
            }
            if finished && outcome.received < other.down && !other.free && !alters {
                return Err(format!("connection {i} incomplete: {outcome:?}"));
            }
        }
        self.check_leaks()
    }

    fn check_main(&mut self) -> Result<(), String> {
        let main = &self.main;
        let (client, server) = (main.client.get(), main.server.get());
        let finished = client.closed == Some(CloseReason::Finished);
        if !finished && !self.may_fail(CLIENT, main.first) {
            return Err(format!("main connection ended: {:?}", client.closed));
        }
        if self.alters() {
            return self.check_altered();
        }
        if let Some(at) = client.wrong_at.or(server.wrong_at) {
            return Err(format!("main stream wrong at byte {at}"));
        }
        let whole = client.received == main.down && (main.echo || server.received == main.up);
        if finished && !whole {
            return Err(format!("main stream incomplete: {}", self.state()));
        }
        Ok(())
    }

    /// A box has changed payload. After a fallback, and on one path without checksums, the
    /// application has what plain TCP would have delivered through that box. Otherwise every
    /// byte is one that passed, on whatever subflow, where a mapping puts it; with checksums, a
    /// mapping whose checksum is right. More nobody can tell (RFC 8684 §3.3.1): without
    /// checksums, what a box adds displaces whatever is mapped behind it, which looks like what
    /// boxes do that only merge and split.
    fn check_altered(&mut self) -> Result<(), String> {
        let (main, Some(boxes)) = (&self.main, &self.boxes) else {
            return Ok(());
        };
        let fell_back = [CLIENT, SERVER].into_iter().any(|host| {
            let fell_back = |e: &Event| {
                matches!(
                    e,
                    Event::FellBack { .. } | Event::Established { mptcp: false, .. }
                )
            };
            self.sim.host(host).events.iter().any(fell_back)
        });
        let several = boxes.several_paths();
        let complete = |o: &Outcome| o.eof || o.closed == Some(CloseReason::Finished);
        let ends = [
            (Toward::Client, &main.client, main.down),
            (Toward::Server, &main.server, main.up),
        ];
        for (toward, outcomes, sent) in ends {
            let (got, complete) = (outcomes.recorded(), complete(&outcomes.get()));
            let wrong = pattern::check(0, &got).err();
            let whole = got.len() as u64 == sent || !complete;
            if wrong.is_none() && whole {
                continue;
            }
            let subflows = boxes.passed(toward, main.first, world::MAIN);
            let tcp = subflows.first().map_or(&[][..], |s| &s.bytes);
            let as_tcp = tcp.starts_with(&got) && (!complete || tcp.len() == got.len());
            let strange = altered::unmapped(&got, &subflows, main.checksum);
            if as_tcp && (fell_back || !main.checksum || strange.is_none()) {
                continue;
            }
            if strange.is_none() && several && whole {
                continue;
            }
            return Err(format!(
                "{toward:?} got {} of {sent} bytes, wrong at {wrong:?}, not mapped at {strange:?}, \
                 complete {complete}; {} passed, as TCP {as_tcp}, fell back {fell_back}, checksums {}",
                got.len(),
                tcp.len(),
                main.checksum
            ));
        }
        Ok(())
    }

    fn check_leaks(&mut self) -> Result<(), String> {
        let end = self.sim.elapsed() + TIME_WAIT_OVER;
        self.sim.run_until(end, |_| false);
        for host in 0..self.sim.hosts() {
            let frames = self.sim.host(host).frames();
            if frames.free != frames.total() {
                return Err(format!("host {host} keeps frames: {frames:?}"));
            }
            let engine = self.sim.host(host).engine();
            if engine.flows() + engine.time_wait() > 0 {
                return Err(format!(
                    "host {host} keeps {} flows, {} in TIME-WAIT",
                    engine.flows(),
                    engine.time_wait()
                ));
            }
        }
        Ok(())
    }
}
