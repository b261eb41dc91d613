//! Attaching to real devices, in network namespaces of our own: a test's thread
//! leaves the machine's namespace for new ones, which end with it. Needs root.

mod support;

use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use braid_bpf::{
    AttachError, AttachMode, Claim, ClaimKind, Counter, FoundMode, Heartbeat, InterfaceProgram,
    LoadError, MapError, Steer, SteerFds, XdpLink,
};
use libbpf_rs::{Xdp, XdpFlags};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use support::{load_or_skip, risen};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Two namespaces and a veth pair between them: `here`, where the program is
/// attached, and `peer`. The calling thread is in `here`.
struct Veth {
    here: File,
    peer: File,
    ifindex: u32,
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}

fn new_namespace() -> File {
    unshare(CloneFlags::CLONE_NEWNET).expect("root may");
    ip("link set lo up");
    File::open("/proc/thread-self/ns/net").expect("a namespace")
}

impl Veth {
    fn new() -> Self {
        let peer = new_namespace();
        let here = new_namespace();
        ip("link add here type veth peer name peer");
        // The peer's namespace has no name and no process; the thread can hold
        // it open for `ip`, which sees it as its parent's descriptor.
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&peer)
        );
        ip(&format!("link set peer netns {path}"));
        ip(&format!("addr add {HERE}/24 dev here"));
        ip("link set here up");
        let ifindex = if_nametoindex("here").expect("the veth");
        let veth = Self {
            here,
            peer,
            ifindex,
        };
        veth.in_peer(|| {
            ip(&format!("addr add {PEER}/24 dev peer"));
            ip("link set peer up");
        });
        veth
    }

    fn in_peer<T>(&self, work: impl FnOnce() -> T) -> T {
        setns(&self.peer, CloneFlags::CLONE_NEWNET).expect("root may");
        let result = work();
        setns(&self.here, CloneFlags::CLONE_NEWNET).expect("root may");
        result
    }

    /// What a peer's connection attempt to `port` comes to within `patience`.
    fn connect(&self, port: u16, patience: Duration) -> std::io::Result<()> {
        let address = SocketAddr::from((HERE, port));
        self.in_peer(|| TcpStream::connect_timeout(&address, patience).map(drop))
    }
}

/// Mode and id of what is attached, asked of the kernel.
fn attached(ifindex: u32) -> (u32, u32) {
    let placeholder = braid_bpf::load_empty().expect("an empty program");
    let query = Xdp::new(placeholder.as_fd())
        .query(
            i32::try_from(ifindex).expect("a small number"),
            XdpFlags::NONE,
        )
        .expect("a query");
    (query.drv_prog_id, query.skb_prog_id)
}

fn occupied(result: Result<XdpLink, AttachError>) -> braid_bpf::FoundProgram {
    match result {
        Err(AttachError::Occupied(found)) => found,
        other => panic!("not refused as occupied: {other:?}"),
    }
}

fn rig(test: &str) -> Option<(Steer, Veth, InterfaceProgram)> {
    let steer = load_or_skip(test)?;
    let veth = Veth::new();
    let program = steer.interface(veth.ifindex).expect("an instance");
    Some((steer, veth, program))
}

#[test]
fn a_link_attaches_in_the_mode_asked_for_and_detaches_when_closed() {
    let Some((_steer, veth, program)) = rig("modes") else {
        return;
    };
    assert_eq!(attached(veth.ifindex), (0, 0));
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let link = program.attach(mode).expect("a free interface");
        let (native, generic) = attached(veth.ifindex);
        assert_eq!(native != 0, mode == AttachMode::Native, "{mode}");
        assert_eq!(generic != 0, mode == AttachMode::Generic, "{mode}");
        assert_eq!(link.ifindex().expect("a link"), Some(veth.ifindex));

        // A copy of the descriptor, as another process would hold it.
        let copy = XdpLink::from(link.as_fd().try_clone_to_owned().expect("a descriptor"));
        drop(link);
        assert_ne!(attached(veth.ifindex), (0, 0), "held by the copy");
        drop(copy);
        assert_eq!(attached(veth.ifindex), (0, 0), "{mode}");
    }
}

#[test]
fn a_second_attach_is_refused_and_says_who_is_there() {
    let Some((steer, veth, first)) = rig("second attach") else {
        return;
    };
    let link = first.attach(AttachMode::Native).expect("free");
    let (id, _) = attached(veth.ifindex);
    let second = steer.interface(veth.ifindex).expect("an instance");
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let found = occupied(second.attach(mode));
        assert_eq!((found.id, found.name.as_str()), (id, "steer"), "{mode}");
        assert_eq!(found.mode, FoundMode::Native);
        assert_eq!(found.interface, "here");
        let link_id = found.link_id.expect("held by a link");
        let text = AttachError::Occupied(found).to_string();
        assert!(
            text.contains(&format!("bpftool link detach id {link_id}")),
            "{text}"
        );
    }
    assert_eq!(attached(veth.ifindex), (id, 0), "the first one stays");
    drop(link);
    second.attach(AttachMode::Native).expect("free again");
}

#[test]
fn a_foreign_program_is_refused_and_the_named_command_removes_it() {
    let Some((_steer, veth, program)) = rig("foreign program") else {
        return;
    };
    let foreign = braid_bpf::load_empty().expect("an empty program");
    let index = i32::try_from(veth.ifindex).expect("a small number");
    for (flags, mode) in [
        (XdpFlags::DRV_MODE, FoundMode::Native),
        (XdpFlags::SKB_MODE, FoundMode::Generic),
    ] {
        Xdp::new(foreign.as_fd())
            .attach(index, flags)
            .expect("a free interface");
        for ours in [AttachMode::Native, AttachMode::Generic] {
            let found = occupied(program.attach(ours));
            assert_eq!(found.name, "empty");
            assert_eq!((found.mode, found.link_id), (mode, None));
            let text = AttachError::Occupied(found).to_string();
            assert!(text.contains("another XDP program (id "), "{text}");
            if ours == AttachMode::Generic {
                let (_, command) = text.split_once("remove it with: ip ").expect("a command");
                ip(command);
            }
        }
        program
            .attach(AttachMode::Native)
            .expect("the command has helped");
    }
}

#[test]
fn a_driver_without_native_xdp_is_named() {
    let Some((steer, _veth, _program)) = rig("no native XDP") else {
        return;
    };
    // Loopback is the one device without it that every kernel has.
    let lo = if_nametoindex("lo").expect("loopback");
    let program = steer.interface(lo).expect("an instance");
    match program.attach(AttachMode::Native) {
        Err(AttachError::Unsupported { interface }) => assert_eq!(interface, "lo"),
        other => panic!("{other:?}"),
    }
    program.attach(AttachMode::Generic).expect("works for all");
}

#[test]
fn a_veth_with_fewer_queues_than_its_peer_is_named() {
    let Some((steer, _veth, _program)) = rig("queues") else {
        return;
    };
    ip("link add one numtxqueues 1 numrxqueues 1 type veth \
         peer numtxqueues 4 numrxqueues 4 name many");
    let one = if_nametoindex("one").expect("the veth");
    let program = steer.interface(one).expect("an instance");
    match program.attach(AttachMode::Native) {
        Err(AttachError::TooFewQueues { interface }) => assert_eq!(interface, "one"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let Some((steer, _veth, _program)) = rig("no interface") else {
        return;
    };
    for ifindex in [4_000_000, u32::MAX] {
        let program = steer.interface(ifindex).expect("an instance");
        match program.attach(AttachMode::Native) {
            Err(AttachError::NoInterface { ifindex: named }) => assert_eq!(named, ifindex),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_link_knows_that_its_interface_is_gone() {
    let Some((_steer, _veth, program)) = rig("interface deleted") else {
        return;
    };
    let link = program.attach(AttachMode::Native).expect("free");
    ip("link del here");
    assert_eq!(link.ifindex().expect("still a link"), None);
    match program.attach(AttachMode::Native) {
        Err(AttachError::NoInterface { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// The point of heartbeat and no-socket rules, seen by a kernel peer: its SYN to
/// a port of ours is not answered by this host's kernel while the dataplane
/// lives, and is refused by it when the dataplane is dead.
#[test]
fn a_peer_gets_no_reset_while_the_dataplane_lives() {
    let Some((steer, veth, program)) = rig("liveness") else {
        return;
    };
    let claim = Claim::new(HERE.into(), 7);
    steer
        .claim_add(claim, ClaimKind::Service)
        .expect("room for a claim");
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let link = program.attach(mode).expect("free");
        let before = steer.counters().expect("counters");

        steer.heartbeat().beat(Heartbeat::now_ns());
        let error = veth
            .connect(7, Duration::from_millis(400))
            .expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{mode}, alive");
        // The kernel's own ports are not touched.
        let error = veth
            .connect(22, Duration::from_secs(5))
            .expect_err("nobody listens");
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionRefused,
            "{mode}, port 22"
        );

        // Without a beat it goes stale by itself; the SYN is sent again.
        let start = Instant::now();
        let error = veth
            .connect(7, Duration::from_secs(10))
            .expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{mode}, dead");
        assert!(start.elapsed() < Duration::from_secs(5), "{mode}");

        let risen = risen(&before, &steer.counters().expect("counters"));
        for counter in [
            Counter::DropNoSocket,
            Counter::PassNoClaim,
            Counter::PassHeartbeatStale,
        ] {
            assert!(
                risen.iter().any(|(c, _)| *c == counter),
                "{mode}: {risen:?}"
            );
        }
        drop(link);
    }
}

#[test]
fn a_new_process_takes_over_maps_that_a_running_program_uses() {
    let Some((old, veth, program)) = rig("takeover") else {
        return;
    };
    let link = program.attach(AttachMode::Native).expect("free");
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().expect("a descriptor");
    let link: OwnedFd = link.into();
    let new = Steer::from_fds(SteerFds {
        claims: copy(old.claims_fd()),
        heartbeat: copy(old.heartbeat_fd()),
        counters: copy(old.counters_fd()),
    })
    .expect("the same maps");
    let xsks = braid_bpf::XskMap::from_fd(copy(program.xsks_fd())).expect("the same map");
    old.claim_add(Claim::new(HERE.into(), 7), ClaimKind::Service)
        .expect("room for a claim");
    drop((old, program));
    let link = XdpLink::from(link);

    assert_eq!(
        new.claims().expect("claims"),
        [(Claim::new(HERE.into(), 7), ClaimKind::Service)]
    );
    assert_eq!(link.ifindex().expect("a link"), Some(veth.ifindex));
    new.heartbeat().beat(Heartbeat::now_ns());
    veth.connect(7, Duration::from_millis(300))
        .expect_err("nobody listens");
    let counters = new.counters().expect("counters");
    assert!(
        counters.contains(&(Counter::DropNoSocket, 1)),
        "{counters:?}"
    );
    xsks.remove(0).expect("queue 0");
    drop(link); // its traffic would count too
    // New instances join the maps that were taken over.
    let other = new.interface(1).expect("an instance");
    let before = new.counters().expect("counters");
    other.test_run(&[0; 60], None, 3).expect("a test run");
    assert_eq!(
        risen(&before, &new.counters().expect("counters")),
        [(Counter::PassNotIp, 3)]
    );
}

#[test]
fn descriptors_of_other_things_are_refused() {
    let Some((steer, _veth, program)) = rig("wrong descriptors") else {
        return;
    };
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().expect("a descriptor");
    let claims = || copy(steer.claims_fd());
    for error in [
        Heartbeat::from_fd(claims()).expect_err("claims"),
        braid_bpf::Counters::from_fd(claims()).expect_err("claims"),
        braid_bpf::XskMap::from_fd(claims()).expect_err("claims"),
        braid_bpf::Claims::from_fd(copy(program.xsks_fd())).expect_err("sockets"),
    ] {
        assert!(matches!(error, MapError::Mismatch { .. }), "{error}");
    }
    let no_map = || OwnedFd::from(File::open("/dev/null").expect("/dev/null"));
    let error = Heartbeat::from_fd(no_map()).expect_err("no map at all");
    assert!(matches!(error, MapError::Kernel { .. }), "{error}");
    XdpLink::from(no_map()).ifindex().expect_err("no link");
    let error = program
        .xsks()
        .set(0, File::open("/dev/null").expect("/dev/null").as_fd())
        .expect_err("no socket");
    assert!(matches!(error, MapError::Kernel { .. }), "{error}");
}

#[test]
fn the_claim_map_has_an_end_and_says_so() {
    let Some(steer) = load_or_skip("full claim map") else {
        return;
    };
    let claim = |n: u32| {
        let port = u16::try_from(n % 60_000 + 1).expect("a port");
        let address = Ipv4Addr::from(0x0a00_0001 + n / 60_000);
        Claim::new(address.into(), port)
    };
    for n in 0..65_536 {
        steer
            .claim_add(claim(n), ClaimKind::ActiveOpen)
            .expect("room for a claim");
    }
    let error = steer
        .claim_add(claim(65_536), ClaimKind::ActiveOpen)
        .expect_err("full");
    assert!(
        matches!(
            error,
            MapError::Full {
                entries: 65_536,
                ..
            }
        ),
        "{error}"
    );
    // An existing claim may still change its kind.
    steer
        .claim_add(claim(0), ClaimKind::Service)
        .expect("no new entry");
    let claims = steer.claims().expect("claims");
    assert_eq!(claims.len(), 65_536);
    assert!(claims.contains(&(claim(0), ClaimKind::Service)));
    assert!(steer.claim_remove(claim(1)).expect("the claim"));
    steer
        .claim_add(claim(65_536), ClaimKind::ActiveOpen)
        .expect("room again");
}

/// Runs itself again in a user namespace, where root has no privilege outside.
#[test]
fn without_privilege_the_error_names_what_is_missing() {
    const CHILD: &str = "BRAID_BPF_TEST_UNPRIVILEGED";
    if std::env::var_os(CHILD).is_some() {
        let error = Steer::load().expect_err("no privilege");
        assert!(matches!(error, LoadError::NotPermitted), "{error}");
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
        return;
    }
    let possible = Command::new("unshare").args(["-U", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("\n*** SKIPPED without privilege: no user namespaces (unshare -U) ***\n");
        return;
    }
    let output = Command::new("unshare")
        .arg("-U")
        .arg(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "without_privilege_the_error_names_what_is_missing",
        ])
        .env(CHILD, "1")
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}
