//! One test per rule of the path manager.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use braid_dataplane::mptcp::{Announcement, ClosedSubflowInfo, ConnInfo, Event, SubflowId, Totals};

use super::endpoints::Which;
use super::manager::{Command, Limits, LocalAddress, Manager};
use crate::config::{EndpointConfig, EndpointFlags, PathConfig, Policy};

const TOKEN: u32 = 7;
const A1: &str = "10.77.1.2";
const A2: &str = "10.77.2.2";
const B1: &str = "10.77.1.1";
const B2: &str = "10.77.2.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

fn flags(words: &[&str]) -> EndpointFlags {
    let mut f = EndpointFlags::default();
    for w in words {
        f.set(w).unwrap();
    }
    f
}

/// A host with two interfaces on two networks and, as time goes by, what it was told.
struct Host {
    manager: Manager,
    now: Instant,
    out: Vec<Command>,
    subflow: u16,
}

impl Host {
    fn new(policy: Policy, endpoints: &[(&str, &[&str])]) -> Self {
        let config = config(policy, endpoints);
        Self {
            manager: Manager::new(&config, locals(true, true)),
            now: Instant::now(),
            out: Vec::new(),
            subflow: 0,
        }
    }

    fn event(&mut self, event: Event) -> Vec<Command> {
        self.manager.on_event(self.now, &event, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn established(&mut self, server: bool) -> Vec<Command> {
        self.established_with(server, Vec::new())
    }

    /// Established, having announced this by itself.
    fn established_with(&mut self, server: bool, announced: Vec<Announcement>) -> Vec<Command> {
        let (local, remote) = if server { (80, 40000) } else { (40000, 80) };
        self.event(Event::Established {
            token: TOKEN,
            local: at(A1, local),
            remote: at(B1, remote),
            server,
            mptcp: true,
            checksum: false,
            deny_join_initial: false,
            announced,
        })
    }

    fn joined(&mut self, local: &str, remote: SocketAddr) -> u16 {
        self.subflow += 1;
        let subflow = SubflowId(self.subflow);
        let commands = self.event(Event::SubflowEstablished {
            token: TOKEN,
            subflow,
            local: at(local, 50000 + self.subflow),
            remote,
            local_id: 0,
            remote_id: 0,
            backup: false,
        });
        assert_eq!(commands, []);
        self.subflow
    }

    fn closed(&mut self, id: u16, local: &str, remote: SocketAddr, error: &str) -> Vec<Command> {
        self.closed_with(id, local, remote, error, None, true)
    }

    fn closed_with(
        &mut self,
        id: u16,
        local: &str,
        remote: SocketAddr,
        error: &str,
        reset_reason: Option<u8>,
        established: bool,
    ) -> Vec<Command> {
        self.reset_with(id, local, remote, error, (reset_reason, None), established)
    }

    /// Closed with this reason and, if the peer gave it, flag T.
    fn reset_with(
        &mut self,
        id: u16,
        local: &str,
        remote: SocketAddr,
        error: &str,
        (reset_reason, transient): (Option<u8>, Option<bool>),
        established: bool,
    ) -> Vec<Command> {
        self.event(Event::SubflowClosed {
            token: TOKEN,
            subflow: SubflowId(id),
            local: at(local, 50000 + id),
            remote,
            local_id: 0,
            remote_id: 0,
            established,
            error: error.to_owned(),
            reset_reason,
            transient,
        })
    }

    fn announced(&mut self, id: u8, address: &str) -> Vec<Command> {
        self.event(Event::Announced {
            token: TOKEN,
            address_id: id,
            address: ip(address),
            port: None,
            subflow: SubflowId(0),
        })
    }

    /// Lets time pass, with every deadline kept, and returns what was done and when (ms).
    fn wait(&mut self, time: Duration) -> Vec<(u128, Command)> {
        let start = self.now;
        let end = start + time;
        let mut done = Vec::new();
        for _ in 0..10_000 {
            match self.manager.next_deadline() {
                Some(at) if at <= end => self.now = self.now.max(at),
                _ => {
                    self.now = end;
                    return done;
                }
            }
            self.manager.on_timer(self.now, &mut self.out);
            let ms = (self.now - start).as_millis();
            done.extend(self.out.drain(..).map(|c| (ms, c)));
        }
        panic!("the timer spins");
    }
}

fn config(policy: Policy, endpoints: &[(&str, &[&str])]) -> PathConfig {
    PathConfig {
        policy,
        subflows: 4,
        accept_addresses: 4,
        endpoints: endpoints
            .iter()
            .map(|(a, f)| EndpointConfig {
                address: ip(a),
                port: None,
                flags: flags(f),
            })
            .collect(),
    }
}

fn locals(first: bool, second: bool) -> Vec<LocalAddress> {
    [(A1, first), (A2, second)]
        .map(|(a, up)| LocalAddress {
            address: ip(a),
            prefix_len: 24,
            up,
        })
        .to_vec()
}

fn open(local: &str, remote: SocketAddr, local_id: u8, remote_id: u8) -> Command {
    Command::Open {
        token: TOKEN,
        local: ip(local),
        remote,
        local_id,
        remote_id,
        backup: false,
    }
}

fn remove(id: u8) -> Command {
    Command::Remove { token: TOKEN, id }
}

fn announce(id: u8, address: &str) -> Command {
    Command::Announce {
        token: TOKEN,
        id,
        address: ip(address),
        port: None,
    }
}

fn announcement(id: u8, address: &str) -> Announcement {
    Announcement {
        id,
        address: ip(address),
        port: None,
    }
}

#[test]
fn connections_announce_signal_endpoints_by_themselves() {
    let endpoints: &[(&str, &[&str])] = &[(A1, &["signal"]), (A2, &["signal"]), (B1, &["subflow"])];
    let mut h = Host::new(Policy::Announce, endpoints);
    let all = [announcement(1, A1), announcement(2, A2)];
    assert_eq!(h.manager.announcements(), all);
    // What the connection said is not said again, and known for what comes later.
    assert_eq!(h.established_with(true, vec![all[1]]), []);
    let id = h.joined(A2, at(B2, 40001));
    assert_eq!(h.closed(id, A2, at(B2, 40001), "timed out"), [remove(2)]);
    assert_eq!(h.wait(Duration::from_secs(1)), [(1000, announce(2, A2))]);
    let mut out = Vec::new();
    h.manager.endpoint_remove(Which::Id(2), &mut out).unwrap();
    assert_eq!(out, [remove(2)]);
    assert_eq!(h.manager.announcements(), [all[0]]);
    let change = |h: &mut Host, words: &[&str]| {
        let (now, mut out) = (h.now, Vec::new());
        let which = Which::Id(1);
        h.manager
            .endpoint_change(now, which, flags(words), &mut out)
            .unwrap();
        h.manager.announcements()
    };
    assert_eq!(change(&mut h, &["subflow"]), []);
    assert_eq!(change(&mut h, &["signal", "backup"]), [all[0]]);
    let none = config(Policy::None, &[(A1, &["signal"])]);
    h.manager.reload(h.now, &none, &mut Vec::new());
    assert_eq!(h.manager.announcements(), []);
}

/// The dataplane hears of a change later than the manager, and the manager of a connection
/// later than that was established.
#[test]
fn what_a_connection_announced_too_late_or_too_early_is_put_right() {
    let mut h = Host::new(Policy::Announce, &[(A2, &["signal"])]);
    let old = h.manager.announcements();
    let mut out = Vec::new();
    h.manager.endpoint_remove(Which::Id(1), &mut out).unwrap();
    let b2 = (ip(B2), None);
    h.manager
        .endpoint_add(h.now, b2, flags(&["signal"]), None, &mut out)
        .unwrap();
    assert_eq!(out, []);
    // The identifier was given again: for another address.
    let [new] = h.manager.announcements()[..] else {
        panic!("one endpoint");
    };
    assert_eq!((old[0].id, new.id), (1, 1));
    assert_eq!(h.established_with(true, old), [remove(1), announce(1, B2)]);
}

#[test]
fn an_address_is_announced_once_its_link_is_up() {
    let mut h = Host::new(
        Policy::Announce,
        &[(A2, &["signal"]), ("10.0.0.9", &["signal"])],
    );
    h.manager.on_locals(h.now, locals(true, false), &mut h.out);
    let other = announcement(2, "10.0.0.9");
    assert_eq!(h.manager.announcements(), [other], "it may be translated");
    assert_eq!(h.established_with(true, vec![other]), []);
    h.manager.on_locals(h.now, locals(true, true), &mut h.out);
    assert_eq!(std::mem::take(&mut h.out), [announce(1, A2)]);
    assert_eq!(h.manager.announcements().len(), 2);
    // And not again.
    h.manager.on_locals(h.now, locals(true, false), &mut h.out);
    h.manager.on_locals(h.now, locals(true, true), &mut h.out);
    assert_eq!(h.out, []);
}

#[test]
fn a_policy_that_announces_after_all_reaches_who_is_there() {
    let mut h = Host::new(Policy::None, &[(A2, &["signal"])]);
    assert_eq!(
        (h.manager.announcements(), h.established(true)),
        (vec![], vec![])
    );
    let new = config(Policy::Announce, &[(A2, &["signal"])]);
    h.manager.reload(h.now, &new, &mut h.out);
    assert_eq!(h.out, [announce(1, A2)]);
}

#[test]
fn announce_tells_signal_endpoints_other_than_the_initial_address() {
    for server in [true, false] {
        let mut h = Host::new(
            Policy::Announce,
            &[(A1, &["signal"]), (A2, &["signal"]), ("10.0.0.9", &[])],
        );
        assert_eq!(h.established(server), [announce(2, A2)]);
        assert_eq!(h.announced(1, B2), [], "opening is the other policy");
    }
}

#[test]
fn none_does_nothing_by_itself() {
    let mut h = Host::new(Policy::None, &[(A2, &["signal"]), (A1, &["subflow"])]);
    assert_eq!(h.established(false), []);
    assert_eq!(h.announced(1, B2), []);
    assert_eq!(h.closed(0, A1, at(B1, 80), "timed out"), []);
    assert_eq!(h.wait(Duration::from_secs(60)), []);
}

#[test]
fn a_subflow_endpoint_is_used_once_by_the_initiator() {
    let mut h = Host::new(Policy::Announce, &[(A2, &["subflow", "backup"])]);
    let expected = Command::Open {
        token: TOKEN,
        local: ip(A2),
        remote: at(B1, 80),
        local_id: 1,
        remote_id: 0,
        backup: true,
    };
    assert_eq!(h.established(false), [expected]);
    let mut h = Host::new(Policy::Announce, &[(A2, &["subflow"])]);
    assert_eq!(h.established(true), [], "the peer's port is ephemeral");
}

#[test]
fn fullmesh_prefers_disjoint_links_and_keeps_the_limit() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    // From the other interface to the only address known so far.
    assert_eq!(h.established(false), [open(A2, at(B1, 80), 1, 0)]);
    let both = h.announced(3, B2);
    assert_eq!(
        both,
        [open(A2, at(B2, 80), 1, 3), open(A1, at(B2, 80), 0, 3)]
    );
    let mut h = Host::new(Policy::Fullmesh, &[]);
    let limits = Limits {
        subflows: 2,
        accept_addresses: 4,
    };
    h.manager.set_limits(h.now, limits, &mut h.out);
    h.established(false);
    assert_eq!(h.announced(3, B2), [], "two subflows are tried or live");
}

#[test]
fn a_direct_pair_comes_before_a_routed_one() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    h.manager.set_limits(
        h.now,
        Limits {
            subflows: 1,
            accept_addresses: 4,
        },
        &mut h.out,
    );
    h.established(false);
    h.announced(3, B2);
    h.manager.set_limits(
        h.now,
        Limits {
            subflows: 2,
            accept_addresses: 4,
        },
        &mut h.out,
    );
    assert_eq!(h.out, [open(A2, at(B2, 80), 1, 3)]);
}

#[test]
fn fullmesh_endpoints_restrict_the_mesh_to_them() {
    let mut h = Host::new(Policy::Fullmesh, &[("10.77.9.9", &["subflow"])]);
    assert_eq!(h.established(false), [], "its interface is not one of ours");
    assert_eq!(
        h.announced(1, B2),
        [open(A1, at(B2, 80), 0, 1)],
        "the initial address counts"
    );
}

#[test]
fn a_server_opens_only_to_announced_addresses() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    assert_eq!(h.established(true), []);
    // Without a port the peer means that of its initial address.
    assert_eq!(
        h.announced(1, B2),
        [open(A2, at(B2, 40000), 1, 1), open(A1, at(B2, 40000), 0, 1)]
    );
}

#[test]
fn flag_c_keeps_joins_from_the_initial_address() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    let commands = h.event(Event::Established {
        token: TOKEN,
        local: at(A1, 40000),
        remote: at(B1, 80),
        server: false,
        mptcp: true,
        checksum: false,
        deny_join_initial: true,
        announced: Vec::new(),
    });
    assert_eq!(commands, []);
    assert_eq!(h.announced(1, B2).len(), 2);
}

#[test]
fn families_are_not_mixed_within_a_subflow() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    h.established(false);
    assert_eq!(h.announced(1, "fd77::1"), []);
}

#[test]
fn announced_addresses_are_bounded() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    h.manager.set_limits(
        h.now,
        Limits {
            subflows: 32,
            accept_addresses: 1,
        },
        &mut h.out,
    );
    h.established(false);
    assert_eq!(h.announced(1, B2).len(), 2);
    assert_eq!(h.announced(2, "10.77.2.3"), []);
}

#[test]
fn a_lost_subflow_is_tried_until_it_is_back_at_least_every_five_seconds() {
    let mut h = Host::new(Policy::Fullmesh, &[(A2, &["subflow"])]);
    h.established(false);
    let id = h.joined(A2, at(B1, 80));
    assert_eq!(h.closed(id, A2, at(B1, 80), "timed out"), []);
    let done = h.wait(Duration::from_secs(60));
    let opens: Vec<u128> = done
        .iter()
        .filter(|(_, c)| *c == open(A2, at(B1, 80), 1, 0))
        .map(|(ms, _)| *ms)
        .collect();
    assert_eq!(opens[0], 1000, "first try after a second");
    // Each attempt sends SYNs at 0 and 1 s and is abandoned at 3 s.
    for pair in opens.windows(2) {
        assert!(pair[1] - (pair[0] + 1000) <= 4000, "{opens:?}");
    }
    assert!(*opens.last().unwrap() > 54_000, "{opens:?}");
    let abandoned = done
        .iter()
        .filter(|(_, c)| matches!(c, Command::Abandon { .. }))
        .count();
    assert!(
        opens.len() - abandoned <= 1,
        "every attempt but the present one is abandoned"
    );
    h.joined(A2, at(B1, 80));
    assert_eq!(
        h.wait(Duration::from_secs(60)),
        [],
        "nothing to do once it is back"
    );
}

#[test]
fn the_initial_path_is_joined_again_under_every_policy_but_none() {
    let mut h = Host::new(Policy::Announce, &[]);
    h.established(false);
    h.joined(A2, at(B2, 80));
    assert_eq!(h.closed(0, A1, at(B1, 80), "timed out"), []);
    assert_eq!(
        h.wait(Duration::from_secs(1)),
        [(1000, open(A1, at(B1, 80), 0, 0))]
    );
}

#[test]
fn the_last_path_is_joined_again_sooner() {
    let mut h = Host::new(Policy::Announce, &[]);
    h.established(false);
    let mut id = 0;
    for _ in 0..3 {
        // Each time anew: it has worked.
        assert_eq!(h.closed(id, A1, at(B1, 80), "reset by peer"), []);
        let open = open(A1, at(B1, 80), 0, 0);
        assert_eq!(h.wait(Duration::from_millis(300)), [(200, open)]);
        id = h.joined(A1, at(B1, 80));
        h.wait(Duration::from_secs(3));
    }
}

#[test]
fn an_attempt_that_fails_is_repeated_after_a_pause_and_rarely_if_it_never_worked() {
    let mut h = Host::new(Policy::Fullmesh, &[(A2, &["subflow"])]);
    assert_eq!(h.established(false).len(), 1);
    let mut opens = 0;
    for _ in 0..600 {
        h.manager
            .on_open_failed(h.now, TOKEN, ip(A2), at(B1, 80), &mut h.out);
        opens += h.wait(Duration::from_secs(1)).len();
    }
    assert!((8..=14).contains(&opens), "{opens} attempts in ten minutes");
}

#[test]
fn a_link_that_is_back_is_used_at_once() {
    let mut h = Host::new(Policy::Fullmesh, &[(A2, &["subflow"])]);
    h.established(false);
    let id = h.joined(A2, at(B1, 80));
    h.manager.on_locals(h.now, locals(true, false), &mut h.out);
    assert_eq!(h.closed(id, A2, at(B1, 80), "no carrier"), []);
    assert_eq!(
        h.wait(Duration::from_secs(30)),
        [],
        "not tried without a link"
    );
    h.manager.on_locals(h.now, locals(true, true), &mut h.out);
    assert_eq!(h.out, [open(A2, at(B1, 80), 1, 0)]);
}

#[test]
fn the_passive_side_announces_a_lost_address_again() {
    let mut h = Host::new(Policy::Announce, &[(A2, &["signal"])]);
    assert_eq!(h.established(true), [announce(1, A2)]);
    let id = h.joined(A2, at(B2, 40001));
    // Withdrawn first: the peer may still believe in its subflow.
    assert_eq!(h.closed(id, A2, at(B2, 40001), "timed out"), [remove(1)]);
    let done = h.wait(Duration::from_secs(10));
    assert_eq!(done[0], (1000, announce(1, A2)));
    assert!(done.windows(2).all(|w| w[1].0 - w[0].0 <= 2000), "{done:?}");
    h.joined(A2, at(B2, 40002));
    assert_eq!(h.wait(Duration::from_secs(60)), []);
    // The initial address has identifier 0.
    assert_eq!(h.closed(0, A1, at(B1, 40000), "timed out"), []);
    assert_eq!(h.wait(Duration::from_secs(1)), [(1000, announce(0, A1))]);
}

#[test]
fn an_address_that_another_subflow_uses_is_not_withdrawn() {
    let mut h = Host::new(Policy::Announce, &[(A2, &["signal"])]);
    h.established(true);
    let one = h.joined(A2, at(B2, 40001));
    let other = h.joined(A2, at(B1, 40002));
    assert_eq!(h.closed(one, A2, at(B2, 40001), "timed out"), []);
    assert_eq!(h.closed(other, A2, at(B1, 40002), "timed out"), [remove(1)]);
}

#[test]
fn the_passive_side_announces_at_once_when_its_link_is_back_and_gives_up_in_the_end() {
    let mut h = Host::new(Policy::Announce, &[(A2, &["signal"])]);
    h.established(true);
    let id = h.joined(A2, at(B2, 40001));
    h.manager.on_locals(h.now, locals(true, false), &mut h.out);
    h.closed(id, A2, at(B2, 40001), "no carrier");
    assert_eq!(h.wait(Duration::from_secs(20)), []);
    h.manager.on_locals(h.now, locals(true, true), &mut h.out);
    assert_eq!(std::mem::take(&mut h.out), [announce(1, A2)]);
    let count = h.wait(Duration::from_secs(1000)).len();
    assert!((100..=150).contains(&count), "{count}");
}

#[test]
fn an_orderly_close_and_a_prohibition_are_respected() {
    for (error, reason) in [("closed", None), ("reset by the peer", Some(3))] {
        let mut h = Host::new(Policy::Fullmesh, &[(A2, &["subflow"])]);
        h.established(false);
        let id = h.joined(A2, at(B1, 80));
        assert_eq!(h.closed_with(id, A2, at(B1, 80), error, reason, true), []);
        assert_eq!(h.wait(Duration::from_secs(300)), [], "{error}");
    }
}

/// RFC 8684 §3.6: flag T, not the reason, says whether another attempt is welcome.
#[test]
fn flag_t_decides_whether_a_path_is_tried_again() {
    for (reason, transient, again) in [
        (3, true, true),
        (6, true, true),
        (1, false, false),
        (4, false, false),
    ] {
        let mut h = Host::new(Policy::Fullmesh, &[(A2, &["subflow"])]);
        h.established(false);
        let id = h.joined(A2, at(B1, 80));
        let said = (Some(reason), Some(transient));
        let at_once = h.reset_with(id, A2, at(B1, 80), "reset by peer", said, true);
        let later = h.wait(Duration::from_secs(300));
        let tried = !at_once.is_empty() || !later.is_empty();
        assert_eq!(tried, again, "reason {reason} T={transient}");
    }
}

#[test]
fn a_removed_address_is_forgotten() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    h.established(false);
    h.announced(3, B2);
    h.joined(A2, at(B1, 80));
    let id = h.joined(A2, at(B2, 80));
    h.joined(A1, at(B2, 80));
    assert_eq!(
        h.event(Event::Removed {
            token: TOKEN,
            address_id: 3
        }),
        []
    );
    h.closed_with(
        id,
        A2,
        at(B2, 80),
        "address removed by the peer",
        Some(0),
        true,
    );
    assert_eq!(h.wait(Duration::from_secs(30)), []);
}

#[test]
fn nothing_happens_after_the_end() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    h.established(false);
    let id = h.joined(A2, at(B1, 80));
    h.closed(id, A2, at(B1, 80), "connection aborted");
    h.closed(0, A1, at(B1, 80), "connection aborted");
    let closed = Event::Closed {
        token: TOKEN,
        reason: braid_dataplane::mptcp::CloseReason::Finished,
    };
    assert_eq!(h.event(closed), []);
    assert_eq!(h.wait(Duration::from_secs(30)), []);
    assert_eq!(h.manager.connections(), 0);
}

#[test]
fn endpoints_change_live_connections() {
    let mut h = Host::new(Policy::Announce, &[]);
    assert_eq!(h.established(true), []);
    let mut out = Vec::new();
    let e = h
        .manager
        .endpoint_add(h.now, (ip(A2), None), flags(&["signal"]), None, &mut out)
        .unwrap();
    assert_eq!(out, [announce(e.id, A2)]);
    h.joined(A2, at(B2, 40001));
    out.clear();
    let which = Which::Id(e.id);
    h.manager
        .endpoint_change(h.now, which, flags(&["signal", "backup"]), &mut out)
        .unwrap();
    assert_eq!(
        out,
        [Command::SetBackup {
            token: TOKEN,
            id: e.id,
            backup: true
        }]
    );
    out.clear();
    h.manager.endpoint_remove(which, &mut out).unwrap();
    assert_eq!(
        out,
        [Command::Remove {
            token: TOKEN,
            id: e.id
        }]
    );
    out.clear();
    let again = h
        .manager
        .endpoint_add(h.now, (ip(A2), None), flags(&["signal"]), None, &mut out)
        .unwrap();
    assert_eq!(
        out,
        [announce(again.id, A2)],
        "added again, announced again"
    );
}

#[test]
fn removing_the_initial_address_removes_identifier_0() {
    let mut h = Host::new(Policy::Fullmesh, &[(A1, &["subflow"])]);
    h.established(false);
    let mut out = Vec::new();
    h.manager
        .endpoint_remove(Which::Address(ip(A1)), &mut out)
        .unwrap();
    assert_eq!(
        out,
        [Command::Remove {
            token: TOKEN,
            id: 0
        }]
    );
}

#[test]
fn reload_applies_the_difference() {
    let mut h = Host::new(Policy::Announce, &[(A1, &["signal"]), (A2, &["signal"])]);
    h.established(true);
    let mut out = Vec::new();
    let new = config(
        Policy::Announce,
        &[(A1, &["signal"]), ("10.77.3.2", &["signal"])],
    );
    h.manager.reload(h.now, &new, &mut out);
    assert_eq!(
        out,
        [
            Command::Remove {
                token: TOKEN,
                id: 2
            },
            announce(2, "10.77.3.2")
        ],
        "the kernel, too, gives the largest identifier again when it was deleted"
    );
    out.clear();
    h.manager.reload(h.now, &new, &mut out);
    assert_eq!(out, []);
}

#[test]
fn plain_tcp_is_none_of_its_business() {
    let mut h = Host::new(Policy::Fullmesh, &[(A2, &["signal"])]);
    let commands = h.event(Event::Established {
        token: TOKEN,
        local: at(A1, 80),
        remote: at(B1, 40000),
        server: true,
        mptcp: false,
        checksum: false,
        deny_join_initial: false,
        announced: Vec::new(),
    });
    assert_eq!(commands, []);
    assert_eq!(h.manager.connections(), 0);
}

#[test]
fn a_port_is_announced_also_on_the_initial_address() {
    let mut h = Host::new(Policy::Announce, &[]);
    assert_eq!(h.established(true), []);
    let mut out = Vec::new();
    let mut add = |address, port| {
        let flags = flags(&["signal"]);
        h.manager
            .endpoint_add(h.now, (ip(address), Some(port)), flags, None, &mut out)
            .unwrap()
            .id
    };
    let (first, second) = (add(A1, 8080), add(A2, 8081));
    let announce = |id, address, port| Command::Announce {
        token: TOKEN,
        id,
        address: ip(address),
        port: Some(port),
    };
    assert_eq!(out, [announce(first, A1, 8080), announce(second, A2, 8081)]);
    let ports: Vec<SocketAddr> = h.manager.endpoints().announced_ports().collect();
    assert_eq!(ports, [at(A1, 8080), at(A2, 8081)]);
    // Lost, it is offered again where it was offered before.
    let id = h.joined(A2, at(B2, 40001));
    let mut seen = h.closed(id, A2, at(B2, 40001), "timed out");
    seen.extend(h.wait(Duration::from_secs(2)).into_iter().map(|(_, c)| c));
    assert!(seen.contains(&remove(second)), "{seen:?}");
    assert!(seen.contains(&announce(second, A2, 8081)), "{seen:?}");
    // The announced one of the initial address goes without the initial address itself.
    out = Vec::new();
    h.manager
        .endpoint_remove(Which::Id(first), &mut out)
        .unwrap();
    assert_eq!(out, [remove(first)]);
}

#[test]
fn a_join_goes_to_the_announced_port() {
    let mut h = Host::new(Policy::Fullmesh, &[]);
    h.established(false);
    let commands = h.event(Event::Announced {
        token: TOKEN,
        address_id: 5,
        address: ip(B2),
        port: Some(8080),
        subflow: SubflowId(0),
    });
    assert!(
        commands.iter().any(
            |c| matches!(c, Command::Open { remote, remote_id: 5, .. } if *remote == at(B2, 8080))
        ),
        "{commands:?}"
    );
    assert!(
        commands
            .iter()
            .all(|c| !matches!(c, Command::Open { remote, .. } if *remote == at(B2, 80))),
        "{commands:?}"
    );
}

#[test]
fn ndiffports_opens_the_initial_pair_several_times() {
    let mut h = Host::new(Policy::Ndiffports, &[]);
    let again = open(A1, at(B1, 80), 0, 0);
    assert_eq!(h.established(false), [again; 3], "four with the first");
    for _ in 0..3 {
        h.joined(A1, at(B1, 80));
    }
    assert_eq!(h.wait(Duration::from_secs(10)), []);
    // One fails, and one is opened in its place.
    let seen = h.closed(2, A1, at(B1, 80), "timed out");
    let seen: Vec<Command> = seen
        .into_iter()
        .chain(h.wait(Duration::from_secs(2)).into_iter().map(|(_, c)| c))
        .collect();
    assert_eq!(seen, [again]);
    // The peer announces; that is another policy.
    assert_eq!(h.announced(1, B2), []);
    // Servers wait to be joined.
    let mut h = Host::new(Policy::Ndiffports, &[]);
    assert_eq!(h.established(true), []);
}

#[test]
fn several_attempts_of_one_pair_are_given_up_one_by_one() {
    let mut h = Host::new(Policy::Ndiffports, &[]);
    h.established(false);
    h.joined(A1, at(B1, 80));
    let seen = h.wait(Duration::from_millis(3500));
    let abandoned = |c: &Command| matches!(c, Command::Abandon { .. });
    let count = seen.iter().filter(|(_, c)| abandoned(c)).count();
    assert_eq!(count, 2, "{seen:?}");
}

#[test]
fn backup_is_a_mesh_whose_other_paths_wait() {
    let mut h = Host::new(Policy::Backup, &[]);
    h.established(false);
    let backup = |command: &Command| match command {
        Command::Open { local, backup, .. } => (*local, *backup),
        other => panic!("{other:?}"),
    };
    let opened: Vec<_> = h.announced(1, B2).iter().map(backup).collect();
    assert!(!opened.is_empty());
    for (local, backup) in opened {
        assert_eq!(backup, local != ip(A1));
    }
}

/// A connection of a control plane that died.
fn orphan(announced: Vec<Announcement>) -> ConnInfo {
    ConnInfo {
        token: TOKEN,
        remote_token: Some(1),
        state: "M_ESTABLISHED".to_owned(),
        mptcp: true,
        version: Some(1),
        fallback: None,
        server: true,
        checksum: false,
        fully_established: true,
        bytes_taken: 0,
        bytes_acked: 0,
        bytes_delivered: 0,
        send_queue_bytes: 0,
        recv_queue_bytes: 0,
        out_of_order_bytes: 0,
        send_queue_frames: 0,
        recv_queue_frames: 0,
        age_ms: 0,
        totals: Totals::default(),
        announced,
        subflows: Vec::new(),
        closed_subflows: vec![ClosedSubflowInfo {
            id: SubflowId(0),
            local: at(A1, 80),
            remote: at(B1, 40000),
            error: "timed out".to_owned(),
            totals: Totals::default(),
        }],
    }
}

/// What a predecessor announced is known, what it did not is announced, and what only its
/// operator added is left alone.
#[test]
fn an_adopted_connection_is_told_what_it_does_not_know() {
    let endpoints: &[(&str, &[&str])] = &[(A2, &["signal"]), ("10.0.0.9", &["signal"])];
    let mut h = Host::new(Policy::Announce, endpoints);
    let known = vec![announcement(1, A2), announcement(9, "10.0.0.1")];
    h.manager.adopt(h.now, &orphan(known), &mut h.out);
    assert_eq!(std::mem::take(&mut h.out), [announce(2, "10.0.0.9")]);
    h.manager.endpoint_remove(Which::Id(1), &mut h.out).unwrap();
    assert_eq!(h.out, [remove(1)]);
}
