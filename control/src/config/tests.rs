//! Every refusal with its exact words.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("t.toml"), text)
}

const BAD: &[(&str, &str)] = &[
    ("foo = [", "t.toml:1: unclosed array, expected `]`"),
    (
        "bogus = 1\n",
        "t.toml:1: bogus: unknown key; allowed: dataplane, interface, mptcp, path, service, connect, control",
    ),
    (
        "[dataplane]\nfoo = 1\n",
        "t.toml:2: dataplane.foo: unknown key; allowed: cores, idle, frames, frame-size, rx-ring, tx-ring, memory-limit, hugepages",
    ),
    (
        "[dataplane]\ncores = 1\n",
        "t.toml:2: dataplane.cores: invalid type: integer `1`, expected a list",
    ),
    (
        "[dataplane]\ncores = [0, -1]\n",
        "t.toml:2: dataplane.cores: -1 is out of range; allowed: 0 to 1023",
    ),
    (
        "[dataplane]\ncores = [\n  1,\n  1,\n]\n",
        "t.toml:4: dataplane.cores: core 1 is listed twice; one worker per core",
    ),
    (
        "[dataplane]\ncores = []\n",
        "t.toml:2: dataplane.cores: empty; allowed: a list of at least one core, e.g. [1]",
    ),
    (
        "[dataplane]\nidle = \"lazy\"\n",
        "t.toml:2: dataplane.idle: \"lazy\" is not known; allowed: adaptive, busy",
    ),
    (
        "[dataplane]\nframes = 1000000000\n",
        "t.toml:2: dataplane.frames: 1000000000 is out of range; allowed: 256 to 16777216",
    ),
    (
        "[dataplane]\nframes = 1024\n",
        "t.toml:2: dataplane.frames: 1024 frames cannot fill an rx-ring of 4096; allowed: at least rx-ring",
    ),
    (
        "[dataplane]\nframe-size = 1500\n",
        "t.toml:2: dataplane.frame-size: 1500 is not a frame size of AF_XDP; allowed: 2048, 4096",
    ),
    (
        "[dataplane]\nrx-ring = 1000\n",
        "t.toml:2: dataplane.rx-ring: 1000 is not a power of two; allowed: 64, 128, … 32768",
    ),
    (
        "[dataplane]\ntx-ring = 65536\n",
        "t.toml:2: dataplane.tx-ring: 65536 is out of range; allowed: 64 to 32768",
    ),
    (
        "[dataplane]\nmemory-limit = \"1 gig\"\n",
        "t.toml:2: dataplane.memory-limit: \"1 gig\" is not a size; allowed: a whole number with a unit B, kB, MB, GB, KiB, MiB, GiB or TiB, e.g. \"1GiB\"",
    ),
    (
        "[dataplane]\nmemory-limit = \"1MiB\"\n",
        "t.toml:2: dataplane.memory-limit: 32768 frames of 4096 bytes for 1 worker(s) need 134217728 bytes, more than memory-limit (1048576); lower frames or raise memory-limit",
    ),
    (
        "[dataplane]\nhugepages = true\n",
        "t.toml:2: dataplane.hugepages: invalid type: boolean `true`, expected a string",
    ),
    (
        "[mptcp]\npacing = true\n",
        "t.toml: interface: missing; at least one [[interface]] with a name is needed",
    ),
    (
        "[[interface]]\nmode = \"auto\"\n",
        "t.toml:1: interface.name: missing; this key has no default",
    ),
    (
        "[[interface]]\nname = \"a-very-long-interface\"\n",
        "t.toml:2: interface.name: \"a-very-long-interface\" cannot be an interface; allowed: 1 to 15 characters without '/' and spaces",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n\n[[interface]]\nname = \"vb1\"\n",
        "t.toml:5: interface.name: \"vb1\" is listed twice; one [[interface]] each",
    ),
    (
        "[[interface]]\nname = \"vb1\"\nqueues = \"some\"\n",
        "t.toml:3: interface.queues: \"some\" is not known; allowed: \"all\" or a list of queue numbers, e.g. [0, 1]",
    ),
    (
        "[[interface]]\nname = \"vb1\"\nqueues = [0, 0]\n",
        "t.toml:3: interface.queues: queue 0 is listed twice",
    ),
    (
        "[[interface]]\nname = \"vb1\"\nqueues = []\n",
        "t.toml:3: interface.queues: empty; allowed: \"all\" or a list of queue numbers, e.g. [0, 1]",
    ),
    (
        "[[interface]]\nname = \"vb1\"\nmode = \"fast\"\n",
        "t.toml:3: interface.mode: \"fast\" is not known; allowed: auto, zero-copy, native, generic, superframe",
    ),
    (
        "[[interface]]\nname = \"vb1\"\nrx-checksum = \"none\"\n",
        "t.toml:3: interface.rx-checksum: \"none\" is not known; allowed: auto, verify, accept-partial",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nchecksum = \"sometimes\"\n",
        "t.toml:4: mptcp.checksum: \"sometimes\" is not known; allowed: always, if-requested, never",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nscheduler = \"fastest\"\n",
        "t.toml:4: mptcp.scheduler: \"fastest\" is not known; allowed: min-rtt, round-robin, redundant, blest, ecf",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\ncongestion = \"bbr\"\n",
        "t.toml:4: mptcp.congestion: \"bbr\" is not known; allowed: reno, cubic, lia, olia, balia",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nconnect-version = 0\n",
        "t.toml:4: mptcp.connect-version: 0 needs allow-v0 = true; allowed: 1",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nallow-v0 = true\nconnect-version = 2\n",
        "t.toml:5: mptcp.connect-version: 2 is out of range; allowed: 0 to 1",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\npacing = \"yes\"\n",
        "t.toml:4: mptcp.pacing: invalid type: string \"yes\", expected true or false",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nfast-open = 1\n",
        "t.toml:4: mptcp.fast-open: invalid type: integer `1`, expected true or false",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\necn = \"on\"\n",
        "t.toml:4: mptcp.ecn: \"on\" is not known; allowed: off, passive, always",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nsubflowless-timeout = \"60\"\n",
        "t.toml:4: mptcp.subflowless-timeout: \"60\" is not a time; allowed: a whole number with a unit ms, s, m or h, e.g. \"60s\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nsubflowless-timeout = \"100ms\"\n",
        "t.toml:4: mptcp.subflowless-timeout: \"100ms\" is out of range; allowed: 1s to 24h",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[path]\n[[path.endpoint]]\naddress = \"10.77.2.2\"\nflags = [\"subflow\"]\nport = 8080\n",
        "t.toml:7: path.endpoint.port: a port goes with \"signal\" alone (as in ip mptcp): it is announced for peers to join to",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[path]\n[[path.endpoint]]\naddress = \"10.77.2.2\"\nflags = [\"signal\"]\nport = 70000\n",
        "t.toml:7: path.endpoint.port: 70000 is out of range; allowed: 1 to 65535",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nreceive-buffer-max = \"1KiB\"\n",
        "t.toml:4: mptcp.receive-buffer-max: \"1KiB\" is out of range; allowed: 64KiB to 1GiB",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[mptcp]\nsend-buffer-max = \"much\"\n",
        "t.toml:4: mptcp.send-buffer-max: \"much\" is not a size; allowed: a whole number with a unit B, kB, MB, GB, KiB, MiB, GiB or TiB, e.g. \"1GiB\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[path]\npolicy = \"random\"\n",
        "t.toml:4: path.policy: \"random\" is not known; allowed: announce, fullmesh, ndiffports, backup, none",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[path]\nsubflows = 0\n",
        "t.toml:4: path.subflows: 0 is out of range; allowed: 1 to 32",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[path]\naccept-addresses = 100\n",
        "t.toml:4: path.accept-addresses: 100 is out of range; allowed: 0 to 32",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[path.endpoint]]\naddress = \"10.77.2\"\n",
        "t.toml:4: path.endpoint.address: \"10.77.2\" is not an IP address; allowed: e.g. \"10.77.2.2\" or \"fd00::2\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[path.endpoint]]\naddress = \"127.0.0.1\"\n",
        "t.toml:4: path.endpoint.address: 127.0.0.1 cannot be an end of a subflow; allowed: unicast addresses of the dataplane's interfaces",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[path.endpoint]]\naddress = \"10.0.0.1\"\nflags = [\"signal\", \"loud\"]\n",
        "t.toml:5: path.endpoint.flags: \"loud\" is not a flag; allowed: signal, subflow, backup, fullmesh",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[path.endpoint]]\naddress = \"10.0.0.1\"\nflags = [\"signal\", \"fullmesh\"]\n",
        "t.toml:5: path.endpoint.flags: \"fullmesh\" cannot go with \"signal\" (as in ip mptcp); use [\"signal\"] or [\"subflow\", \"fullmesh\"]",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[path.endpoint]]\naddress = \"10.0.0.1\"\n[[path.endpoint]]\naddress = \"10.0.0.1\"\n",
        "t.toml:6: path.endpoint.address: 10.0.0.1 is listed twice",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\napp = \"echo\"\n",
        "t.toml:3: service.listen: missing; this key has no default",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"10.0.0.1\"\napp = \"echo\"\n",
        "t.toml:5: service.listen: \"10.0.0.1\" is not an address with port; allowed: e.g. \"10.77.1.2:7\", \"[fd00::2]:7\" or \"*:7\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:0\"\napp = \"echo\"\n",
        "t.toml:5: service.listen: \"0\" is not a port; allowed: 1 to 65535",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = [\"10.0.0.1:7\", \"127.0.0.1:7\"]\napp = \"echo\"\n",
        "t.toml:5: service.listen: 127.0.0.1 never reaches an interface of the dataplane; allowed: its interfaces' addresses",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:7\"\napp = \"http\"\n",
        "t.toml:6: service.app: \"http\" is not known; allowed: echo, sink, source, exchange",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:7\"\napp = \"file\"\nroot = \"/srv\"\n",
        "t.toml:6: service.app: \"file\" is not available in this version; allowed: echo, sink, source, exchange",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:7\"\napp = \"echo\"\nbytes = \"1GiB\"\n",
        "t.toml:7: service.bytes: does nothing with app = \"echo\"; allowed with: source, exchange",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:7\"\napp = \"echo\"\nto = \"10.0.0.5:80\"\n",
        "t.toml:7: service.to: does nothing with app = \"echo\"; apps that use it are not available in this version",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:7\"\napp = \"echo\"\n[[service]]\nname = \"echo\"\nlisten = \"*:8\"\napp = \"sink\"\n",
        "t.toml:8: service.name: \"echo\" is used twice; names are unique",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"echo\"\nlisten = \"*:7\"\napp = \"echo\"\n[[service]]\nname = \"sink\"\nlisten = \"[::]:7\"\napp = \"sink\"\n",
        "t.toml:9: service.listen: [::]:7 is already taken by service \"echo\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[connect]]\nname = \"up load\"\nto = \"10.0.0.1:1\"\napp = \"source\"\n",
        "t.toml:4: connect.name: \"up load\" cannot be a name; allowed: 1 to 64 letters, digits, '-', '_' and '.'",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[connect]]\nname = \"upload\"\nto = \"example.org:80\"\napp = \"source\"\n",
        "t.toml:5: connect.to: \"example.org:80\" is not an address with port; allowed: e.g. \"10.0.0.5:80\" or \"[fd00::5]:80\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[[connect]]\nname = \"upload\"\nto = \"10.0.0.1:80\"\napp = \"source\"\nbytes = \"1G\"\n",
        "t.toml:7: connect.bytes: \"1G\" is not a size; allowed: a whole number with a unit B, kB, MB, GB, KiB, MiB, GiB or TiB, e.g. \"1GiB\"",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[control]\nsocket = \"braid.sock\"\n",
        "t.toml:4: control.socket: \"braid.sock\" cannot be a socket's path; allowed: an absolute path of at most 97 bytes",
    ),
    (
        "[[interface]]\nname = \"vb1\"\n[control]\nmetrics = \"9095\"\n",
        "t.toml:4: control.metrics: \"9095\" is not an address with port; allowed: e.g. \"10.0.0.5:80\" or \"[fd00::5]:80\"",
    ),
];

#[test]
fn every_bad_config_names_file_line_key_and_what_is_allowed() {
    for (text, expected) in BAD {
        match parse(text) {
            Ok(_) => panic!("accepted:\n{text}"),
            Err(e) => assert_eq!(e.to_string(), *expected, "{text}"),
        }
    }
}

/// The example of the documentation, with the values of this version.
const FULL: &str = r#"
[dataplane]
cores = [1]
idle = "adaptive"
frames = 32768
frame-size = 4096
rx-ring = 4096
tx-ring = 4096
memory-limit = "1GiB"
hugepages = "try"

[[interface]]
name = "vb1"
queues = "all"
mode = "auto"
rx-checksum = "auto"

[mptcp]
checksum = "if-requested"
scheduler = "min-rtt"
congestion = "cubic"
allow-v0 = false
connect-version = 1
pacing = true
ecn = "passive"
fast-open = false
subflowless-timeout = "60s"
window-option = false
deny-join-id0 = false
syn-cookies = true
receive-buffer-max = "32MiB"
send-buffer-max = "32MiB"

[path]
policy = "announce"
subflows = 4
accept-addresses = 4
[[path.endpoint]]
address = "10.77.2.2"
flags = ["signal"]

[[service]]
name = "echo"
listen = ["10.77.1.2:7", "*:8"]
app = "echo"

[[connect]]
name = "upload"
to = "10.77.1.1:5201"
app = "source"
bytes = "1GiB"

[control]
socket = "/run/braid/control.sock"
metrics = "127.0.0.1:9095"
"#;

#[test]
fn the_documented_values_are_the_defaults() {
    let full = parse(FULL).unwrap();
    let minimal = parse("[[interface]]\nname = \"vb1\"\n").unwrap();
    let mut dataplane = full.dataplane.clone();
    dataplane.cores_line = 0;
    assert_eq!(dataplane, minimal.dataplane);
    assert_eq!(full.mptcp, minimal.mptcp);
    assert_eq!(full.path.policy, minimal.path.policy);
    assert_eq!(full.path.subflows, minimal.path.subflows);
    assert_eq!(full.control.socket, minimal.control.socket);
    assert_eq!(minimal.control.metrics, None);
    assert_eq!(
        full.control.dataplane_socket(),
        Path::new("/run/braid/control.sock.dataplane")
    );
}

#[test]
fn values_arrive() {
    let c = parse(FULL).unwrap();
    assert_eq!(
        c.services[0].listen,
        ["10.77.1.2:7", "0.0.0.0:8", "[::]:8"].map(|a| a.parse().unwrap())
    );
    assert_eq!(
        c.connects[0].app,
        AppSetup::Source {
            bytes: Some(1 << 30)
        }
    );
    assert!(c.path.endpoints[0].flags.signal && !c.path.endpoints[0].flags.subflow);
    assert_eq!(c.services[0].listen_line, 44);
    assert_eq!(c.interfaces[0].line, 13);
}

#[test]
fn an_exchange_must_say_how_much() {
    let with = |bytes: &str| {
        parse(&format!(
            "[[interface]]\nname = \"vb1\"\n[[service]]\nname = \"x\"\nlisten = \"*:7\"\napp = \"exchange\"\n{bytes}"
        ))
    };
    let config = with("bytes = \"2MB\"\n").unwrap();
    assert_eq!(
        config.services[0].app,
        AppSetup::Exchange { bytes: 2_000_000 }
    );
    assert_eq!(
        with("").unwrap_err().to_string(),
        "t.toml:6: service.bytes: is missing; app = \"exchange\" sends so much"
    );
}

#[test]
fn every_congestion_control_can_be_chosen() {
    for (word, kind) in [
        ("reno", CongestionKind::NewReno),
        ("cubic", CongestionKind::Cubic),
        ("lia", CongestionKind::Lia),
        ("olia", CongestionKind::Olia),
        ("balia", CongestionKind::Balia),
    ] {
        let c = parse(&FULL.replace("\"cubic\"", &format!("\"{word}\""))).unwrap();
        assert_eq!(c.mptcp.congestion, kind);
    }
}

#[test]
fn every_scheduler_has_a_name() {
    let names = ["min-rtt", "round-robin", "redundant", "blest", "ecf"];
    for (name, kind) in names.iter().zip(SchedulerKind::ALL) {
        let text = format!("[[interface]]\nname = \"vb1\"\n[mptcp]\nscheduler = \"{name}\"\n");
        assert_eq!(parse(&text).unwrap().mptcp.scheduler, kind);
    }
}

#[test]
fn version_0_is_allowed_and_offered_by_request_only() {
    let mptcp = |lines: &str| {
        let text = format!("[[interface]]\nname = \"vb1\"\n[mptcp]\n{lines}");
        let m = parse(&text).unwrap().mptcp;
        (m.allow_v0, m.connect_version)
    };
    assert_eq!(mptcp(""), (false, Version::V1));
    assert_eq!(mptcp("allow-v0 = true\n"), (true, Version::V1));
    let both = mptcp("allow-v0 = true\nconnect-version = 0\n");
    assert_eq!(both, (true, Version::V0));
    let old = parse(FULL).unwrap();
    let new = FULL
        .replace("allow-v0 = false", "allow-v0 = true")
        .replace("connect-version = 1", "connect-version = 0");
    assert_eq!(
        old.restart_needed(&parse(&new).unwrap()),
        ["mptcp.allow-v0", "mptcp.connect-version"]
    );
}

#[test]
fn restart_is_needed_for_what_the_dataplane_cannot_change() {
    let old = parse(FULL).unwrap();
    let new = parse(
        &FULL
            .replace("cores = [1]", "cores = [1, 2]")
            .replace("\"cubic\"", "\"reno\"")
            .replace("name = \"vb1\"", "name = \"vb2\""),
    )
    .unwrap();
    assert_eq!(
        old.restart_needed(&new),
        ["dataplane.cores", "interface.name", "mptcp.congestion"]
    );
    let services = parse(
        &FULL
            .replace("app = \"echo\"", "app = \"sink\"")
            .replace("subflows = 4", "subflows = 2")
            .replace("announce\"", "fullmesh\""),
    )
    .unwrap();
    assert_eq!(old.restart_needed(&services), [""; 0]);
}

#[test]
fn an_unreadable_file_is_named() {
    let e = Config::load(Path::new("/nonexistent/braid.toml")).unwrap_err();
    assert_eq!(
        e.to_string(),
        "/nonexistent/braid.toml: cannot be read: No such file or directory (os error 2); name the file with --config FILE"
    );
}

#[test]
fn mptcp_defaults_can_be_changed() {
    let with = |mptcp: &str| {
        let text = format!("[[interface]]\nname = \"vb1\"\n[mptcp]\n{mptcp}\n");
        parse(&text).unwrap().mptcp
    };
    assert!(with("").syn_cookies && !with("syn-cookies = false").syn_cookies);
    let buffers = |m: MptcpConfig| (m.receive_buffer_max, m.send_buffer_max);
    assert_eq!(buffers(with("")), (32 << 20, 32 << 20));
    assert_eq!(
        buffers(with(
            "receive-buffer-max = \"1MiB\"\nsend-buffer-max = \"64KiB\""
        )),
        (1 << 20, 64 << 10)
    );
}

#[test]
fn an_endpoint_may_have_a_port() {
    let text = "[[interface]]\nname = \"vb1\"\n[path]\npolicy = \"backup\"\n\
                [[path.endpoint]]\naddress = \"10.77.2.2\"\nport = 8080\nflags = [\"signal\"]\n";
    let path = parse(text).unwrap().path;
    assert_eq!(path.policy, Policy::Backup);
    let ports: Vec<_> = path.announced_ports().collect();
    assert_eq!(ports, ["10.77.2.2:8080".parse().unwrap()]);
}
