//! The thread that asks drivers.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Flow, Interface, Phase, Shared, Work};
use crate::nic::rules::{self, FlowRules, Found, NoRules, Rule, Table};

/// Rules of ours on one interface, whatever it says it can hold.
const RULES_MAX: u32 = 65_536;
/// An interface that refused is asked again after this: somebody may have mended it.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Locations that turn out to be taken, before a flow goes without a rule.
const TAKEN_MAX: usize = 8;

/// One interface, as its driver described it.
#[derive(Debug, Default)]
struct Slots {
    /// When it was last described, or refused something.
    asked: Option<Instant>,
    /// It was described and has not refused anything since.
    open: bool,
    /// It has no rules, and will not have any.
    hopeless: bool,
    /// Its first refusal was logged.
    warned: bool,
    chooses: bool,
    /// How many rules of ours there may be.
    room: u32,
    /// Free locations, where the driver does not choose.
    free: BTreeSet<u32>,
    /// Rules of ours by location.
    ours: BTreeMap<u32, Rule>,
}

impl Slots {
    /// Takes a description; gives the table's size and how many rules others have.
    fn take(&mut self, table: &Table) -> (u32, u32) {
        let used: BTreeSet<u32> = table.used.iter().copied().collect();
        // A driver forgets its rules when the feature is switched off.
        self.ours.retain(|location, _| used.contains(location));
        let others = count(used.len()) - count(self.ours.len());
        self.room = match table.size {
            0 => RULES_MAX,
            size => size.saturating_sub(others).min(RULES_MAX),
        };
        self.chooses = table.chooses;
        self.free = BTreeSet::new();
        if !table.chooses {
            // The last ones: where locations are priorities, others' rules win.
            let room = usize::try_from(self.room).unwrap_or(usize::MAX);
            let free = (0..table.size).rev().filter(|l| !used.contains(l));
            self.free = free.take(room).collect();
        }
        (table.size, others)
    }

    fn is_full(&self) -> bool {
        count(self.ours.len()) >= self.room || (!self.chooses && self.free.is_empty())
    }
}

/// How an installation went.
#[derive(Debug)]
enum Outcome {
    Placed(u32),
    /// It was not tried.
    Skipped,
    Full,
    Refused(String),
}

#[derive(Debug)]
pub(super) struct Installer<N> {
    nic: N,
    shared: Arc<Shared>,
    interfaces: Arc<[Interface]>,
    /// Local addresses whose rules a predecessor may have left.
    locals: HashSet<IpAddr>,
    slots: Vec<Slots>,
}

impl<N: FlowRules> Installer<N> {
    pub(super) fn new(
        nic: N,
        shared: Arc<Shared>,
        interfaces: Arc<[Interface]>,
        locals: Vec<IpAddr>,
    ) -> Self {
        let slots = interfaces.iter().map(|_| Slots::default()).collect();
        Self {
            nic,
            shared,
            interfaces,
            locals: locals.into_iter().collect(),
            slots,
        }
    }

    /// Works until the end is near and all is done.
    pub(super) fn run(&mut self) {
        loop {
            while self.step(Instant::now()) {}
            let mut state = self.shared.lock();
            while state.work.is_empty() {
                if state.ending {
                    return;
                }
                let woken = self.shared.wake.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Does one thing; false when there is none.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        let work = self.shared.lock().work.pop_front();
        match work {
            None => return false,
            Some(Work::Sweep(interface)) => self.sweep(interface),
            Some(Work::Look(interface)) => self.look(interface, now),
            Some(Work::Install(flow)) => self.install(flow, now),
            Some(Work::Remove {
                interface,
                location,
                rule,
            }) => self.remove(interface, location, &rule),
        }
        true
    }

    fn sweep(&mut self, interface: usize) {
        let name = &self.interfaces[interface].name;
        let Ok(table) = self.nic.table(name) else {
            return;
        };
        let mut removed = 0;
        for location in table.used {
            if let Found::Steers(rule) = self.nic.get(name, location)
                && self.locals.contains(&rule.local.ip())
            {
                match self.nic.delete(name, location) {
                    Ok(()) => removed += 1,
                    Err(e) => tracing::debug!("{name}: rule {location} stays: {e}"),
                }
            }
        }
        if removed > 0 {
            tracing::info!("{name}: removed {removed} ntuple rule(s) that a killed braidd left");
        }
    }

    /// Has the driver describe its table.
    fn look(&mut self, interface: usize, now: Instant) {
        let Interface { name, driver, .. } = &self.interfaces[interface];
        let slots = &mut self.slots[interface];
        let usable = rules::usable(&self.nic, name, driver);
        slots.hopeless = matches!(&usable, Err(NoRules::Unsupported(_)));
        slots.asked = Some(now);
        slots.open = usable.is_ok();
        let usable = usable.map(|table| slots.take(&table));
        let mut state = self.shared.lock();
        let report = &mut state.reports[interface];
        match usable {
            Ok((size, others)) => {
                (report.table, report.others) = (size, others);
                report.reason = None;
            }
            Err(why) => {
                let reason = why.to_string();
                if report.reason.as_ref() != Some(&reason) {
                    tracing::info!("{name}: no ntuple rules: {reason}");
                }
                report.reason = Some(reason);
            }
        }
        report.rules = count(slots.ours.len());
    }

    fn install(&mut self, flow: Flow, now: Instant) {
        let entry = self.shared.lock().flows.get(&flow).copied();
        let Some(entry) = entry.filter(|e| e.phase == Phase::Waiting) else {
            // It is gone already.
            return;
        };
        let interface = entry.interface;
        let outcome = self.try_install(interface, &entry.rule(&flow), now);
        let name = &self.interfaces[interface].name;
        let mut state = self.shared.lock();
        let report = &mut state.reports[interface];
        report.rules = count(self.slots[interface].ours.len());
        match outcome {
            Outcome::Placed(location) => {
                report.reason = None;
                match state.flows.get_mut(&flow) {
                    Some(now) if (now.phase, now.queue) == (Phase::Waiting, entry.queue) => {
                        now.phase = Phase::Placed(location);
                    }
                    // It went meanwhile, and may have come back for another queue.
                    _ => state.work.push_front(Work::Remove {
                        interface,
                        location,
                        rule: entry.rule(&flow),
                    }),
                }
            }
            Outcome::Skipped => {
                report.skipped += 1;
                state.flows.remove(&flow);
            }
            Outcome::Full => {
                report.skipped += 1;
                report.reason = Some(format!(
                    "its table is full: {} rules, {} of them others'",
                    report.table, report.others
                ));
                state.flows.remove(&flow);
            }
            Outcome::Refused(reason) => {
                if !std::mem::replace(&mut self.slots[interface].warned, true) {
                    tracing::warn!("{name}: no ntuple rules: {reason}");
                }
                report.refused += 1;
                report.reason = Some(reason);
                state.flows.remove(&flow);
            }
        }
    }

    fn try_install(&mut self, interface: usize, rule: &Rule, now: Instant) -> Outcome {
        let slots = &self.slots[interface];
        if slots.hopeless {
            return Outcome::Skipped;
        }
        let is_due = slots.asked.is_none_or(|at| now >= at + ASK_AGAIN);
        if is_due && (!slots.open || slots.is_full()) {
            self.look(interface, now);
        }
        let Interface { name, driver, .. } = &self.interfaces[interface];
        let slots = &mut self.slots[interface];
        if !slots.open {
            return Outcome::Skipped;
        }
        if slots.is_full() {
            return Outcome::Full;
        }
        let location = if slots.chooses {
            None
        } else {
            // Inserting where a rule is replaces it, and somebody else may have put one
            // there since we looked.
            let free = std::iter::from_fn(|| slots.free.pop_last()).take(TAKEN_MAX);
            let mut empty = free.filter(|l| self.nic.get(name, *l) == Found::Nothing);
            match empty.next() {
                Some(location) => Some(location),
                None => return Outcome::Full,
            }
        };
        match self.nic.insert(name, rule, location) {
            Ok(at) => {
                slots.ours.insert(at, *rule);
                Outcome::Placed(at)
            }
            Err(e) => {
                slots.free.extend(location);
                (slots.open, slots.asked) = (false, Some(now));
                Outcome::Refused(refusal(driver, &e))
            }
        }
    }

    fn remove(&mut self, interface: usize, location: u32, rule: &Rule) {
        let name = &self.interfaces[interface].name;
        let slots = &mut self.slots[interface];
        if slots.ours.get(&location) != Some(rule) {
            // The driver had forgotten it.
            return;
        }
        slots.ours.remove(&location);
        // Only what is still there: rules may go with a reset, and others' come.
        let found = self.nic.get(name, location);
        let mut failed = None;
        if found == Found::Steers(*rule) {
            failed = self.nic.delete(name, location).err();
        }
        let is_free = matches!(found, Found::Nothing | Found::Steers(_)) && failed.is_none();
        if is_free && !slots.chooses {
            slots.free.insert(location);
        }
        let mut state = self.shared.lock();
        let report = &mut state.reports[interface];
        report.rules = count(slots.ours.len());
        if let Some(e) = failed {
            report.refused += 1;
            tracing::debug!("{name}: rule {location} stays: {e}");
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// What a driver's refusal means.
fn refusal(driver: &str, e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            format!("its driver ({driver}) refused a rule: {e}; joins are handed over in software")
        }
        // ixgbe, for one, has one mask for all rules.
        Some(libc::EINVAL) => format!(
            "its driver ({driver}) refused a rule: {e}; it takes none for TCP four-tuples, or not beside others' rules: ethtool -n shows them"
        ),
        Some(libc::ENOSPC) => {
            format!("its driver ({driver}) has no room for more rules: {e}")
        }
        _ => format!("its driver ({driver}) refused a rule: {e}"),
    }
}
