//! Packets of a script: injected, expected, forbidden.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use braid_dataplane::app::pattern;
use braid_dataplane::time::Instant;

use super::app::Shared;
use super::host::{Host, Sent};
use super::options::{self, Secrets, Side, View, agrees, number, small};
use super::render::render;
use super::segment::{Segment, flag_bits, flag_letters};
use super::syntax::{Command, Field, OptionText, PacketText, Script, Step};

/// Packets in the report of a failure.
const LOG_MAX: usize = 16;
/// How long an expected packet may take unless the script says otherwise.
const PATIENCE: Duration = Duration::from_secs(1);
/// Timers that may fire within one command.
const TIMERS_MAX: u32 = 100_000;
/// Paths a script may name.
const PATHS_MAX: usize = 16;
/// The peer's key unless `config peer-key=` says otherwise.
pub(super) const PEER_KEY: u64 = 0x1112_1314_1516_1718;

/// One path: a four-tuple, both sequence spaces, what waits to be looked at.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) nic: u16,
    pub(super) braid: SocketAddr,
    pub(super) peer: SocketAddr,
    /// The peer's initial sequence number.
    pub(super) iss: u32,
    /// The engine's, once seen.
    irs: Option<u32>,
    /// Next relative sequence number that the peer sends by default.
    next: u32,
    /// What it acknowledges by default: everything the engine sent.
    seen: u32,
    nonce_braid: u32,
    nonce_peer: u32,
    timestamps: Option<u32>,
    unread: VecDeque<Got>,
}

impl Flow {
    pub(super) fn new(number: u8, client: bool) -> Self {
        let address = |host| IpAddr::V4(Ipv4Addr::new(10, 77, number, host));
        let port = u16::from(number);
        // Whoever opens uses an ephemeral port.
        let (braid, peer) = if client {
            (40_000 + port, 80)
        } else {
            (80, 50_000 + port)
        };
        Self {
            nic: port,
            braid: SocketAddr::new(address(1), braid),
            peer: SocketAddr::new(address(2), peer),
            iss: 0x7000_0000 + u32::from(number),
            irs: None,
            next: 0,
            seen: 0,
            nonce_braid: 0,
            nonce_peer: 0x0a0b_0c00 + u32::from(number),
            timestamps: None,
            unread: VecDeque::new(),
        }
    }
}

/// A packet of the engine, read.
#[derive(Debug)]
struct Got {
    at: Instant,
    flags: u8,
    fields: Vec<Field>,
    options: Vec<(bool, OptionText)>,
    text: String,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) host: Host,
    pub(super) app: Shared,
    pub(super) flows: Vec<Flow>,
    pub(super) client: bool,
    pub(super) token: Option<u32>,
    pub(super) events: VecDeque<serde_json::Value>,
    key_braid: Option<u64>,
    key_peer: u64,
    /// The Fast Open cookie that the engine gave.
    cookie: Vec<u8>,
    /// End of the last command.
    mark: Instant,
    start: Instant,
    log: VecDeque<String>,
}

/// Runs a script.
///
/// # Errors
/// What failed: file and line, expected, got, the last packets.
pub fn run(script: &Script) -> Result<(), String> {
    let mut setup = super::calls::Setup::default();
    let mut running: Option<Run> = None;
    for step in &script.steps {
        let result = match running.as_mut() {
            None => match setup.take(&step.command) {
                Ok(true) => Ok(()),
                Ok(false) => setup.start().and_then(|mut run| {
                    let result = run.step(&step.command);
                    running = Some(run);
                    result
                }),
                Err(e) => Err(e),
            },
            Some(run) => run.step(&step.command),
        };
        result.map_err(|e| report(step, &e, running.as_ref()))?;
    }
    match (script.steps.last(), running) {
        (Some(step), Some(run)) => run.finish().map_err(|e| report(step, &e, Some(&run))),
        _ => Err("the script does nothing".to_owned()),
    }
}

fn report(step: &Step, error: &str, run: Option<&Run>) -> String {
    let mut out = format!("{}: {error}\n  line: {}", step.place, step.text);
    if let Some(run) = run {
        out.push_str("\n  last packets:");
        for line in &run.log {
            let _ = write!(out, "\n    {line}");
        }
    }
    out
}

impl Run {
    pub(super) fn new(host: Host, app: Shared, client: bool, key_peer: u64) -> Self {
        let start = host.now;
        Self {
            host,
            app,
            flows: Vec::new(),
            client,
            token: None,
            events: VecDeque::new(),
            key_braid: None,
            key_peer,
            cookie: Vec::new(),
            mark: start,
            start,
            log: VecDeque::new(),
        }
    }

    fn step(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::Inject(packet) => self.inject(packet),
            Command::Expect(packet) => self.expect(packet, false),
            Command::Await(packet) => self.expect(packet, true),
            Command::Never(time, packet) => self.never(*time, packet),
            Command::Quiet(time, path) => self.quiet(*time, *path),
            Command::Wait(time) => self.advance(self.host.now + *time),
            Command::Call {
                verb,
                words,
                fields,
            } => self.call(verb, words, fields),
        }?;
        self.mark = self.host.now;
        Ok(())
    }

    /// The end of the script: what may never be.
    fn finish(&self) -> Result<(), String> {
        if let Some(at) = self.app.lock().wrong_at {
            return Err(format!("the application got a wrong byte at {at}"));
        }
        let missing = self.host.frames_missing();
        if self.host.engine.connections() == 0 && missing != 0 {
            return Err(format!("{missing} frames did not come home"));
        }
        Ok(())
    }

    pub(super) fn flow(&mut self, path: usize) -> Result<&mut Flow, String> {
        if path >= PATHS_MAX {
            return Err(format!("paths are p0 to p{}", PATHS_MAX - 1));
        }
        while self.flows.len() <= path {
            let number = u8::try_from(self.flows.len()).expect("few paths");
            self.flows.push(Flow::new(number, self.client));
        }
        Ok(&mut self.flows[path])
    }

    fn view(&self, path: usize, sender: Side) -> View {
        let flow = &self.flows[path];
        View {
            secrets: Secrets {
                key_braid: self.key_braid,
                key_peer: Some(self.key_peer),
                nonce_braid: flow.nonce_braid,
                nonce_peer: flow.nonce_peer,
            },
            sender,
        }
    }

    fn note(&mut self, at: Instant, direction: char, path: usize, text: &str) {
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        let ms = (at - self.start).as_secs_f64() * 1e3;
        self.log
            .push_back(format!("{ms:9.3} ms {direction} p{path} {text}"));
    }

    fn inject(&mut self, packet: &PacketText) -> Result<(), String> {
        let path = packet.path;
        self.flow(path)?;
        let view = self.view(path, Side::Peer);
        let flow = &mut self.flows[path];
        let flags = flag_bits(&packet.flags);
        let mut window = 65_535;
        let (mut seq, mut ack) = (flow.next, flow.seen);
        let (mut urgent, mut len, mut at) = (0, 0, None);
        let (mut damage, mut more) = (false, false);
        for Field { name, value } in &packet.fields {
            match name.as_str() {
                "seq" => seq = low32(number(value)?),
                "ack" => ack = low32(number(value)?),
                "win" => window = small(value)?,
                "urg" => urgent = small(value)?,
                "len" => len = small::<u16>(value)?,
                "at" => at = Some(number(value)?),
                "badsum" => damage = true,
                "more" => more = true,
                other => return Err(format!("an injected packet has no field `{other}`")),
            }
        }
        let texts = packet.options.as_ref().map_or(&[][..], |o| &o.list);
        // The stream offset of the payload: by its mapping, or by the sequence number.
        let dss = texts.iter().find(|o| o.name == "dss");
        let mapped = dss.and_then(|o| {
            let dsn = number(o.get("dsn").or(o.get("dsn4"))?).ok()?;
            let ssn = number(o.get("ssn")?).ok()?;
            Some(
                dsn.wrapping_add(u64::from(seq))
                    .wrapping_sub(ssn)
                    .wrapping_sub(1),
            )
        });
        let offset = at.or(mapped).unwrap_or(u64::from(seq.wrapping_sub(1)));
        let mut payload = vec![0; usize::from(len)];
        let _ = pattern::fill(offset, &mut payload);

        let mut wire = Vec::new();
        for option in texts {
            if option.name == "ts" {
                flow.timestamps.get_or_insert(0);
            } else if option.name == "fastopen" {
                let mut cookie = self.cookie.clone();
                match option.get("cookie") {
                    None => cookie.clear(),
                    Some("got") => {}
                    Some("bad") => cookie.iter_mut().for_each(|b| *b ^= 0x55),
                    Some(other) => return Err(format!("`{other}` is no cookie: got, bad")),
                }
                wire.push((options::KIND_FAST_OPEN, cookie));
            } else {
                wire.push(options::encode(option, &view)?);
            }
        }
        if let Some(recent) = flow.timestamps {
            let clock = low32(1000 + (self.host.now - self.start).as_millis() as u64);
            let value = [clock.to_be_bytes(), recent.to_be_bytes()].concat();
            wire.push((8, value));
        }
        let segment = Segment {
            src: flow.peer,
            dst: flow.braid,
            seq: flow.iss.wrapping_add(seq),
            ack: if flags & 0x10 != 0 {
                flow.irs.unwrap_or(0).wrapping_add(ack)
            } else {
                0
            },
            flags,
            window,
            urgent,
            options: wire,
            payload,
        };
        let end = seq.wrapping_add(segment.seq_len());
        if end.wrapping_sub(flow.next).cast_signed() > 0 && flags & 4 == 0 {
            flow.next = end;
        }
        let nic = flow.nic;
        let frame = segment.encode(damage)?;
        let text = self.describe(path, Side::Peer, &segment).2;
        self.note(self.host.now, '<', path, &text);
        self.host.receive_one(nic, &frame)?;
        if more {
            return Ok(());
        }
        self.host.settle()?;
        self.collect()
    }

    /// Takes what the engine sent and what it reported.
    pub(super) fn collect(&mut self) -> Result<(), String> {
        while let Some((_, event)) = self.host.engine.pop_event() {
            if let braid_dataplane::mptcp::Event::Created { token, .. } = event {
                self.token = Some(token);
            }
            let event = serde_json::to_value(event).map_err(|e| e.to_string())?;
            self.events.push_back(event);
        }
        while let Some(Sent { at, nic, frame }) = self.host.sent.pop_front() {
            let segment = Segment::decode(&frame).map_err(|e| format!("braid sent {e}"))?;
            // Later paths first: a script may open a path anew on the same tuple.
            let ours = |f: &Flow| (f.braid, f.peer, f.nic) == (segment.src, segment.dst, nic);
            let path = self.flows.iter().rposition(ours).ok_or_else(|| {
                let (src, dst) = (segment.src, segment.dst);
                format!("braid sent a packet on no path: {src} to {dst}, interface {nic}")
            })?;
            self.learn(path, &segment);
            let (fields, options, text) = self.describe(path, Side::Braid, &segment);
            self.note(at, '>', path, &text);
            self.flows[path].unread.push_back(Got {
                at,
                flags: segment.flags,
                fields,
                options,
                text,
            });
        }
        Ok(())
    }

    /// Keys, nonces and numbers that a packet of the engine shows.
    fn learn(&mut self, path: usize, segment: &Segment) {
        let flow = &mut self.flows[path];
        if segment.flags & 2 != 0 {
            flow.irs = Some(segment.seq);
            flow.seen = 0;
        } else if flow.irs.is_none() {
            // A RST to nobody's segment: there is no sequence space.
            flow.irs = Some(segment.seq);
        }
        let end = segment.seq.wrapping_add(segment.seq_len());
        let relative = end.wrapping_sub(flow.irs.unwrap_or(0));
        if relative.wrapping_sub(flow.seen).cast_signed() > 0 && segment.flags & 4 == 0 {
            flow.seen = relative;
        }
        for (kind, body) in &segment.options {
            if *kind == 8 && body.len() == 8 {
                flow.timestamps = flow
                    .timestamps
                    .map(|_| u32::from_be_bytes([body[0], body[1], body[2], body[3]]));
            }
            if *kind == options::KIND_FAST_OPEN && !body.is_empty() {
                self.cookie.clone_from(body);
            }
            if !options::is_mptcp(*kind) {
                continue;
            }
            match (body.first().map_or(0xff, |b| b >> 4), body.len()) {
                // The sender's key is the first one.
                (0, 10 | 18 | 20 | 22) => {
                    let key = body[2..10].try_into().expect("8 bytes");
                    self.key_braid.get_or_insert(u64::from_be_bytes(key));
                }
                (1, 10 | 14) => flow.nonce_braid = tail(body),
                _ => {}
            }
        }
    }

    fn describe(
        &self,
        path: usize,
        sender: Side,
        segment: &Segment,
    ) -> (Vec<Field>, Vec<(bool, OptionText)>, String) {
        let flow = &self.flows[path];
        let view = self.view(path, sender);
        let irs = flow.irs.unwrap_or(0);
        let (seq0, ack0) = match sender {
            Side::Braid => (irs, flow.iss),
            Side::Peer => (flow.iss, irs),
        };
        let mut fields = Vec::new();
        let mut put = |name: &str, value: String| {
            fields.push(Field {
                name: name.to_owned(),
                value,
            });
        };
        let seq = segment.seq.wrapping_sub(seq0);
        put("seq", seq.to_string());
        if segment.flags & 0x10 != 0 {
            put("ack", segment.ack.wrapping_sub(ack0).to_string());
        }
        put("win", segment.window.to_string());
        put("len", segment.payload.len().to_string());
        if segment.flags & 0x20 != 0 {
            put("urg", segment.urgent.to_string());
        }
        let options: Vec<_> = segment
            .options
            .iter()
            .map(|(kind, body)| {
                let text = render(*kind, body, &view);
                (options::is_mptcp(*kind), text)
            })
            .collect();
        let offset = stream_offset(seq, &options);
        if sender == Side::Braid
            && !segment.payload.is_empty()
            && let Err(at) = pattern::check(offset, &segment.payload)
        {
            put("payload", format!("wrong-at-{at}"));
        }
        let mut text = flag_letters(segment.flags);
        for Field { name, value } in &fields {
            let _ = write!(text, " {name}={value}");
        }
        let list: Vec<String> = options.iter().map(|(_, o)| o.to_string()).collect();
        let _ = write!(text, " <{}>", list.join(", "));
        (fields, options, text)
    }

    /// Moves time to `until`.
    pub(super) fn advance(&mut self, until: Instant) -> Result<(), String> {
        for _ in 0..TIMERS_MAX {
            let more = self.host.step(until)?;
            self.collect()?;
            if !more {
                return Ok(());
            }
        }
        Err("timers fire without end".to_owned())
    }

    fn expect(&mut self, wanted: &PacketText, skip: bool) -> Result<(), String> {
        let path = wanted.path;
        self.flow(path)?;
        let (earliest, latest) = match wanted.get("within") {
            Some(range) => time_range(range)?,
            None => (Duration::ZERO, PATIENCE),
        };
        let until = self.mark + latest;
        let mut skipped = 0;
        for _ in 0..TIMERS_MAX {
            while let Some(got) = self.flows[path].unread.pop_front() {
                let waited =
                    Duration::from_nanos(got.at.as_nanos().saturating_sub(self.mark.as_nanos()));
                match mismatch(wanted, &got) {
                    None if waited < earliest || waited > latest => {
                        return Err(format!("it came after {waited:?}: p{path} {}", got.text));
                    }
                    None => return Ok(()),
                    Some(_) if skip => skipped += 1,
                    Some(why) => return Err(format!("{why}\n  got: p{path} {}", got.text)),
                }
            }
            let more = self.host.step(until)?;
            self.collect()?;
            if !more && self.flows[path].unread.is_empty() {
                let what = if skip {
                    format!("no such packet among {skipped}")
                } else {
                    "no packet".to_owned()
                };
                return Err(format!("{what} in {latest:?}"));
            }
        }
        Err("timers fire without end".to_owned())
    }

    fn never(&mut self, time: Duration, unwanted: &PacketText) -> Result<(), String> {
        self.flow(unwanted.path)?;
        self.advance(self.host.now + time)?;
        let unread = &self.flows[unwanted.path].unread;
        match unread.iter().find(|got| mismatch(unwanted, got).is_none()) {
            Some(got) => Err(format!("it came: p{} {}", unwanted.path, got.text)),
            None => Ok(()),
        }
    }

    fn quiet(&mut self, time: Duration, path: Option<usize>) -> Result<(), String> {
        self.advance(self.host.now + time)?;
        let paths = self.flows.iter().enumerate();
        let mut watched = paths.filter(|(i, _)| path.is_none_or(|p| p == *i));
        match watched.find_map(|(i, f)| Some((i, f.unread.front()?))) {
            Some((i, got)) => Err(format!("it is not quiet: p{i} {}", got.text)),
            None => Ok(()),
        }
    }

    /// Forgets what nobody looked at.
    pub(super) fn drain(&mut self) {
        for flow in &mut self.flows {
            flow.unread.clear();
        }
    }
}

/// Where in the stream a payload of the engine lies.
fn stream_offset(seq: u32, options: &[(bool, OptionText)]) -> u64 {
    let by_mapping = options.iter().find_map(|(_, o)| {
        let dsn = number(o.get("dsn").or(o.get("dsn4"))?).ok()?;
        let ssn = number(o.get("ssn")?).ok()?;
        // An infinite mapping, of length 0, maps the same way.
        Some(
            dsn.wrapping_add(u64::from(seq))
                .wrapping_sub(ssn)
                .wrapping_sub(1),
        )
    });
    by_mapping.unwrap_or(u64::from(seq.wrapping_sub(1)))
}

fn tail(body: &[u8]) -> u32 {
    let (_, last) = body.split_at(body.len() - 4);
    u32::from_be_bytes(last.try_into().expect("4 bytes"))
}

fn low32(n: u64) -> u32 {
    u32::try_from(n & 0xffff_ffff).expect("32 bits")
}

/// `200ms..300ms`, or `300ms` for "by then".
fn time_range(text: &str) -> Result<(Duration, Duration), String> {
    let time = super::syntax::duration;
    match text.split_once("..") {
        Some((low, high)) => Ok((time(low)?, time(high)?)),
        None => Ok((Duration::ZERO, time(text)?)),
    }
}

/// Why a packet is not the one described; `None` if it is.
fn mismatch(wanted: &PacketText, got: &Got) -> Option<String> {
    // PSH says nothing that a script could care about.
    const PSH: u8 = 8;
    if wanted.flags != "*" && flag_bits(&wanted.flags) & !PSH != got.flags & !PSH {
        return Some("the flags differ".to_owned());
    }
    let value = |name: &str| {
        let field = got.fields.iter().find(|f| f.name == name);
        field.map_or("absent", |f| f.value.as_str())
    };
    for Field {
        name,
        value: expected,
    } in &wanted.fields
    {
        if name != "within" && !agrees(expected, value(name)) {
            return Some(format!("`{name}` is {}", value(name)));
        }
    }
    if wanted.get("len").is_none() && wanted.flags != "*" && value("len") != "0" {
        return Some("it has a payload".to_owned());
    }
    if wanted.get("payload").is_none() && value("payload") != "absent" {
        return Some("its payload is not the pattern".to_owned());
    }
    let expected = wanted.options.as_ref()?;
    for option in &expected.list {
        if !got
            .options
            .iter()
            .any(|(_, o)| options::option_agrees(option, o))
        {
            return Some(format!("it has no option `{option}`"));
        }
    }
    let named = |o: &OptionText| expected.list.iter().any(|e| options::option_agrees(e, o));
    let mut more = got.options.iter().filter(|(mptcp, o)| *mptcp && !named(o));
    match more.next() {
        Some((_, option)) if !expected.rest => Some(format!("it has an option `{option}`")),
        _ => None,
    }
}
