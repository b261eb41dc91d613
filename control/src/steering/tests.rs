//! Against a NIC made up for the purpose, its thread's steps taken one by one.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use super::*;
use crate::nic::Switch;
use crate::nic::rules::{Found, Table};

type Hook = Box<dyn FnMut() + Send>;

/// A NIC's state, and what it does when it is asked.
pub(crate) struct Nic {
    pub(crate) switch: Switch,
    /// The table's size; none: the driver has no rules.
    pub(crate) size: Option<u32>,
    chooses: bool,
    rules: BTreeMap<u32, Found>,
    refuses: Option<i32>,
    /// Called while a rule is being inserted.
    inserting: Option<Hook>,
    inserts: usize,
}

#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<Nic>>);

impl Fake {
    pub(crate) fn new(size: u32) -> Self {
        Self(Arc::new(Mutex::new(Nic {
            switch: Switch::On,
            size: Some(size),
            chooses: false,
            rules: BTreeMap::new(),
            refuses: None,
            inserting: None,
            inserts: 0,
        })))
    }

    pub(crate) fn nic(&self) -> MutexGuard<'_, Nic> {
        self.0.lock().unwrap()
    }

    /// Location, peer's port and queue of each rule that steers.
    fn steered(&self) -> Vec<(u32, u16, u32)> {
        let nic = self.nic();
        let ours = nic
            .rules
            .iter()
            .filter_map(|(location, found)| match found {
                Found::Steers(rule) => Some((*location, rule.remote.port(), rule.queue)),
                _ => None,
            });
        ours.collect()
    }
}

fn errno<T>(number: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(number))
}

impl FlowRules for Fake {
    fn switch(&self, _: &str) -> io::Result<Switch> {
        Ok(self.nic().switch)
    }

    fn table(&self, _: &str) -> io::Result<Table> {
        let nic = self.nic();
        let Some(size) = nic.size else {
            return errno(libc::EOPNOTSUPP);
        };
        Ok(Table {
            size,
            chooses: nic.chooses,
            used: nic.rules.keys().copied().collect(),
        })
    }

    fn get(&self, _: &str, location: u32) -> Found {
        let nic = self.nic();
        nic.rules.get(&location).copied().unwrap_or(Found::Nothing)
    }

    fn insert(&mut self, _: &str, rule: &Rule, location: Option<u32>) -> io::Result<u32> {
        let hook = self.nic().inserting.take();
        if let Some(mut hook) = hook {
            hook();
        }
        let mut nic = self.nic();
        nic.inserts += 1;
        if let Some(number) = nic.refuses {
            return errno(number);
        }
        assert_eq!(location.is_none(), nic.chooses);
        let size = nic.size.unwrap();
        let free = (0..size).find(|l| !nic.rules.contains_key(l));
        let Some(at) = location.or(free) else {
            return errno(libc::ENOSPC);
        };
        assert!(at < size);
        let before = nic.rules.insert(at, Found::Steers(*rule));
        assert_eq!(before, None, "a rule was replaced");
        Ok(at)
    }

    fn delete(&mut self, _: &str, location: u32) -> io::Result<()> {
        match self.nic().rules.remove(&location) {
            Some(_) => Ok(()),
            None => errno(libc::ENOENT),
        }
    }
}

const IFINDEX: u32 = 7;

struct Bench {
    fake: Fake,
    steering: Steering,
    installer: Installer<Fake>,
    now: Instant,
}

fn interface(queues: &[u32]) -> Interface {
    Interface {
        ifindex: IFINDEX,
        name: "eth1".to_owned(),
        driver: "fake".to_owned(),
        queues: queues.to_vec(),
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 10], port))
}

fn remote(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], port))
}

fn joined(token: u32, port: u16) -> Event {
    Event::SubflowEstablished {
        token,
        subflow: SubflowId(1),
        local: local(7),
        remote: remote(port),
        local_id: 1,
        remote_id: 1,
        backup: false,
    }
}

fn gone(token: u32, port: u16) -> Event {
    Event::SubflowClosed {
        token,
        subflow: SubflowId(1),
        local: local(7),
        remote: remote(port),
        local_id: 1,
        remote_id: 1,
        established: true,
        error: "closed".to_owned(),
        reset_reason: None,
        transient: None,
    }
}

fn closed(token: u32) -> Event {
    Event::Closed {
        token,
        reason: braid_dataplane::mptcp::CloseReason::Finished,
    }
}

fn of(address: IpAddr) -> Option<u32> {
    (address == local(7).ip()).then_some(IFINDEX)
}

impl Bench {
    fn new(fake: Fake, queues: &[u32], workers: usize) -> Self {
        let locals = vec![local(7).ip()];
        let interfaces = vec![interface(queues)];
        let (steering, installer, _) = Steering::prepare(fake.clone(), interfaces, locals, workers);
        let mut bench = Self {
            fake,
            steering,
            installer,
            now: Instant::now(),
        };
        bench.work();
        bench
    }

    /// One that holds `size` rules, with two queues of two workers.
    fn of_size(size: u32) -> Self {
        Self::new(Fake::new(size), &[0, 1], 2)
    }

    fn work(&mut self) {
        while self.installer.step(self.now) {}
    }

    fn tell(&mut self, worker: usize, event: &Event) {
        self.steering.on_event(worker, event, of);
    }

    /// Tells it and has it done.
    fn event(&mut self, worker: usize, event: &Event) {
        self.tell(worker, event);
        self.work();
    }

    fn report(&self) -> NtupleStatus {
        self.steering.report(IFINDEX)
    }

    fn reason(&self) -> String {
        self.report().reason.unwrap_or_default()
    }
}

#[test]
fn a_flow_goes_to_a_queue_of_its_owner() {
    let mut b = Bench::new(Fake::new(16), &[4, 5, 6, 7, 8], 2);
    for port in 0..4 {
        b.event(1, &joined(1, port));
    }
    b.event(0, &joined(2, 9));
    // Dealt as the dataplane deals queues out; in turns, because one worker has several.
    let queues: Vec<u32> = b.fake.steered().iter().map(|r| r.2).collect();
    assert_eq!(queues, [6, 7, 5, 7, 5]);
    // Seen from the NIC: what arrives is for us.
    let Some(Found::Steers(rule)) = b.fake.nic().rules.get(&15).copied() else {
        panic!("the last location is the first to be used");
    };
    assert_eq!((rule.local, rule.remote), (local(7), remote(0)));
    let report = b.report();
    assert_eq!((report.rules, report.table, report.others), (5, 16, 0));
    assert_eq!(report.reason, None);
}

#[test]
fn what_needs_no_rule_gets_none() {
    let established = |server| Event::Established {
        token: 1,
        local: local(7),
        remote: remote(1),
        server,
        mptcp: true,
        checksum: false,
        deny_join_initial: false,
        announced: Vec::new(),
    };
    let mut b = Bench::of_size(16);
    b.event(0, &established(true));
    assert_eq!(b.fake.steered(), []);
    b.event(1, &established(false));
    assert_eq!(b.fake.steered(), [(15, 1, 1)], "an active open");
    // An address of no interface of ours.
    b.steering.on_event(0, &joined(2, 2), |_| None);
    b.steering.on_event(0, &joined(2, 2), |_| Some(IFINDEX + 1));
    b.work();
    assert_eq!(b.report().rules, 1);

    for (queues, workers) in [(&[0, 1][..], 1), (&[3], 2)] {
        let mut b = Bench::new(Fake::new(16), queues, workers);
        b.event(0, &joined(1, 1));
        assert_eq!(b.fake.nic().inserts, 0);
        assert!(b.reason().contains("one worker"), "{}", b.reason());
        assert_eq!(b.report().skipped, 0);
    }
}

#[test]
fn a_rule_goes_with_its_subflow_its_connection_and_the_dataplane() {
    let mut b = Bench::of_size(16);
    for (token, port) in [(1, 1), (1, 2), (1, 3), (2, 4)] {
        b.event(0, &joined(token, port));
    }
    let ports = |b: &Bench| -> Vec<u16> { b.fake.steered().iter().map(|r| r.1).collect() };
    assert_eq!(ports(&b), [4, 3, 2, 1]);
    b.event(0, &gone(1, 2));
    b.event(0, &gone(1, 2));
    assert_eq!(ports(&b), [4, 3, 1]);
    b.event(0, &closed(1));
    assert_eq!(ports(&b), [4]);
    // The highest that is free again.
    b.event(0, &joined(3, 5));
    assert_eq!(b.fake.steered(), [(12, 4, 0), (15, 5, 0)]);
    b.steering.clear();
    b.work();
    assert_eq!((ports(&b), b.report().rules), (vec![], 0));
    assert_eq!(b.report().refused, 0);

    // The next one has more workers.
    b.steering.serve(3);
    b.event(2, &joined(4, 6));
    assert_eq!(ports(&b), [0_u16; 0], "worker 2 has no queue of two");
}

#[test]
fn who_goes_before_the_driver_is_asked_costs_nothing() {
    let mut b = Bench::of_size(16);
    b.tell(0, &joined(1, 1));
    b.tell(0, &gone(1, 1));
    b.tell(0, &joined(2, 1));
    b.work();
    assert_eq!((b.fake.nic().inserts, b.report().rules), (1, 1));
}

#[test]
fn who_goes_while_the_driver_is_asked_leaves_nothing() {
    let fake = Fake::new(16);
    let mut b = Bench::new(fake.clone(), &[0, 1], 2);
    let shared = b.steering.shared.clone();
    fake.nic().inserting = Some(Box::new(move || {
        shared.lock().remove_all(|_| true, None);
    }));
    b.event(0, &joined(1, 1));
    assert_eq!(fake.nic().inserts, 1);
    assert_eq!((fake.steered(), b.report().rules), (vec![], 0));
}

#[test]
fn who_comes_back_while_the_driver_is_asked_has_one_rule() {
    let fake = Fake::new(16);
    let mut b = Bench::new(fake.clone(), &[0, 1, 2, 3], 2);
    let shared = b.steering.shared.clone();
    fake.nic().inserting = Some(Box::new(move || {
        let mut state = shared.lock();
        let (flow, mut entry) = state
            .flows
            .first_key_value()
            .map(|(f, e)| (*f, *e))
            .unwrap();
        state.remove(&flow);
        entry.queue += 2;
        state.flows.insert(flow, entry);
        state.work.push_back(Work::Install(flow));
    }));
    b.event(0, &joined(1, 1));
    assert_eq!(fake.steered(), [(15, 1, 2)]);
    b.event(0, &closed(1));
    assert_eq!((fake.steered(), b.report().rules), (vec![], 0));
}

#[test]
fn rules_of_others_stay() {
    let fake = Fake::new(4);
    let theirs = Found::Steers(Rule {
        local: SocketAddr::from(([203, 0, 113, 1], 7)),
        remote: remote(1),
        queue: 0,
    });
    fake.nic().rules.extend([(0, theirs), (3, Found::Other)]);
    let mut b = Bench::new(fake.clone(), &[0, 1], 2);
    assert_eq!((b.report().others, b.report().table), (2, 4));
    // Since we looked.
    fake.nic().rules.insert(2, Found::Other);
    b.event(0, &joined(1, 1));
    assert_eq!(fake.steered()[1..], [(1, 1, 0)]);
    // Our rule has gone, by a reset or with the feature, and theirs is where it was.
    fake.nic().rules.insert(1, Found::Other);
    b.event(0, &gone(1, 1));
    assert_eq!(fake.nic().rules.len(), 4);
    assert_eq!(b.report().rules, 0);
    b.event(0, &joined(1, 2));
    assert_eq!((b.report().skipped, fake.nic().inserts), (1, 1));
    assert!(b.reason().contains("full"), "{}", b.reason());
}

#[test]
fn a_full_table_is_not_asked_for_more() {
    let fake = Fake::new(3);
    fake.nic().rules.insert(1, Found::Other);
    let mut b = Bench::new(fake.clone(), &[0, 1], 2);
    for port in 1..=4 {
        b.event(0, &joined(1, port));
    }
    assert_eq!(fake.nic().inserts, 2);
    let report = b.report();
    assert_eq!((report.rules, report.skipped, report.refused), (2, 2, 0));
    assert_eq!(b.reason(), "its table is full: 3 rules, 1 of them others'");
    // A place of our own is free at once, one of others' when we look again.
    b.event(0, &gone(1, 1));
    b.event(0, &joined(1, 5));
    assert_eq!((b.report().rules, b.report().reason), (2, None));
    fake.nic().rules.remove(&1);
    b.event(0, &joined(1, 6));
    assert_eq!(b.report().rules, 2);
    b.now += Duration::from_secs(11);
    b.event(0, &joined(1, 7));
    assert_eq!((b.report().rules, b.report().others), (3, 0));
}

#[test]
fn a_driver_that_chooses_is_left_the_choice() {
    let fake = Fake::new(2);
    fake.nic().chooses = true;
    let mut b = Bench::new(fake.clone(), &[0, 1], 2);
    for port in 1..=3 {
        b.event(1, &joined(1, port));
    }
    assert_eq!(fake.steered(), [(0, 1, 1), (1, 2, 1)]);
    assert_eq!((b.report().rules, b.report().skipped), (2, 1));
    b.event(1, &closed(1));
    assert_eq!(fake.steered(), []);
}

#[test]
fn a_refusal_is_counted_and_pauses() {
    for (number, said) in [
        (libc::EOPNOTSUPP, "handed over in software"),
        (libc::EINVAL, "ethtool -n"),
        (libc::ENOSPC, "no room"),
    ] {
        let fake = Fake::new(16);
        fake.nic().refuses = Some(number);
        let mut b = Bench::new(fake.clone(), &[0, 1], 2);
        b.event(0, &joined(1, 1));
        assert!(b.reason().contains(said), "{}", b.reason());
        b.event(0, &joined(1, 2));
        let report = b.report();
        assert_eq!((report.refused, report.skipped, report.rules), (1, 1, 0));
        assert_eq!(fake.nic().inserts, 1);
        // It ends as if there had been a rule.
        b.event(0, &closed(1));
        b.now += Duration::from_secs(11);
        b.event(0, &joined(1, 3));
        assert_eq!(b.report().refused, 2);
        fake.nic().refuses = None;
        b.now += Duration::from_secs(11);
        b.event(0, &joined(1, 4));
        assert_eq!(fake.steered(), [(15, 4, 0)]);
        assert_eq!(b.report().reason, None);
    }
}

#[test]
fn a_nic_whose_filtering_is_off_is_told_with_the_command() {
    let fake = Fake::new(16);
    fake.nic().switch = Switch::Off;
    let mut b = Bench::new(fake.clone(), &[0, 1], 2);
    b.event(0, &joined(1, 1));
    assert_eq!(
        b.reason(),
        "ntuple filtering is off; switch it on with: ethtool -K eth1 ntuple on"
    );
    assert_eq!((b.report().skipped, fake.nic().inserts), (1, 0));
    fake.nic().switch = Switch::On;
    b.event(0, &joined(1, 2));
    assert_eq!(fake.nic().inserts, 0, "not asked at every join");
    b.now += Duration::from_secs(11);
    b.event(0, &joined(1, 3));
    assert_eq!((b.report().rules, b.report().reason), (1, None));

    // Where there is no switch the driver decides.
    let fake = Fake::new(16);
    fake.nic().switch = Switch::Fixed;
    let mut b = Bench::new(fake, &[0, 1], 2);
    b.event(0, &joined(1, 1));
    assert_eq!(b.report().rules, 1);
}

#[test]
fn a_driver_without_rules_is_not_asked_again() {
    let fake = Fake::new(0);
    fake.nic().size = None;
    let mut b = Bench::new(fake.clone(), &[0, 1], 2);
    b.event(0, &joined(1, 1));
    assert_eq!(
        b.reason(),
        "its driver (fake) has no flow rules; joins are handed over in software"
    );
    fake.nic().size = Some(16);
    b.now += Duration::from_secs(11);
    b.event(0, &joined(1, 2));
    assert_eq!((b.report().skipped, fake.nic().inserts), (2, 0));

    let mut b = Bench::of_size(0);
    b.event(0, &joined(1, 1));
    assert!(b.reason().contains("does not say how many"));
}

#[test]
fn what_waits_is_bounded_and_removals_are_not_lost() {
    let mut b = Bench::of_size(4096);
    b.event(0, &joined(1, 1));
    let more = u16::try_from(WAITING_MAX + 5).unwrap();
    for port in 0..more {
        b.tell(0, &joined(2, 1000 + port));
    }
    assert_eq!(b.report().dropped, 5);
    b.tell(0, &closed(1));
    b.tell(0, &closed(2));
    b.work();
    assert_eq!((b.report().rules, b.fake.nic().inserts), (0, 1));
    assert_eq!(b.steering.shared.lock().flows.len(), 0);
}

#[test]
fn what_a_killed_braidd_left_is_removed() {
    let to = |local: SocketAddr| {
        Found::Steers(Rule {
            local,
            remote: remote(1),
            queue: 5,
        })
    };
    // Also when there is nothing to steer any more.
    for workers in [1, 2] {
        let fake = Fake::new(16);
        let theirs = to(SocketAddr::from(([203, 0, 113, 1], 7)));
        let all = [
            (3, to(local(7))),
            (4, Found::Other),
            (5, theirs),
            (15, to(local(9))),
        ];
        fake.nic().rules.extend(all);
        let b = Bench::new(fake.clone(), &[0, 1], workers);
        let left: Vec<u32> = fake.nic().rules.keys().copied().collect();
        assert_eq!(left, [4, 5]);
        assert_eq!(b.report().others, if workers == 1 { 0 } else { 2 });
    }
}

#[test]
fn queues_are_those_that_the_dataplane_gives_a_worker() {
    let i = interface(&[0, 1, 2, 3, 4]);
    let of = |worker, workers| -> Vec<_> {
        (0..3)
            .filter_map(|n| i.queue_of(worker, workers, n))
            .collect()
    };
    assert_eq!(of(0, 2), [0, 2, 4]);
    assert_eq!(of(1, 2), [1, 3, 1]);
    assert_eq!(of(2, 3), [2, 2, 2]);
    assert_eq!(of(0, 1), [0; 0]);
    assert_eq!(of(7, 8), [0; 0]);
}

/// Waits for what the thread will do.
fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < end, "the thread does not do it");
        std::thread::yield_now();
    }
}

#[test]
fn the_thread_does_it_and_takes_everything_back_at_the_end() {
    let fake = Fake::new(16);
    let locals = vec![local(7).ip()];
    let steering = Steering::start(fake.clone(), vec![interface(&[0, 1])], locals, 2);
    for port in 1..=3 {
        steering.on_event(1, &joined(1, port), of);
    }
    until(|| fake.steered().len() == 3);
    drop(steering);
    assert_eq!(fake.steered(), []);
}

#[test]
fn a_driver_that_hangs_does_not_keep_braidd() {
    let fake = Fake::new(16);
    let (release, hangs): (_, Receiver<()>) = channel();
    fake.nic().inserting = Some(Box::new(move || {
        let _ = hangs.recv();
    }));
    let steering = Steering::start(fake.clone(), vec![interface(&[0, 1])], Vec::new(), 2);
    steering.on_event(1, &joined(1, 1), of);
    until(|| fake.nic().inserting.is_none());
    steering.on_event(1, &joined(1, 2), of);
    let begun = Instant::now();
    drop(steering);
    assert!(begun.elapsed() < END_MAX + Duration::from_secs(3));
    drop(release);
}
