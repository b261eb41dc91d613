//! Everything of a script that is no packet: settings, application, path manager, views.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use braid_dataplane::counters::Counter;
use braid_dataplane::io::PortId;
use braid_dataplane::mptcp::{ChecksumPolicy, MptcpConfig, SubflowPath};
use braid_dataplane::offload::header::L2Header;
use braid_dataplane::wire::ethernet::EthernetAddress;
use braid_dataplane::wire::types::{AddressId, FourTuple};
use braid_dataplane::worker::{EngineConfig, Order, Service};
use serde_json::Value;

use super::app::{ScriptApp, Shared};
use super::host::Host;
use super::options::{agrees, number, small};
use super::run::{PEER_KEY, Run};
use super::syntax::{Command, Field, duration, path};

/// Port that `listen` listens on.
const PORT: u16 = 80;
/// Half-open connections unless `listen backlog=` says otherwise.
const BACKLOG: u32 = 16;
/// What the engine's randomness starts from.
const SEED: u8 = 7;
const MTU: u32 = 1500;

/// `config` lines, which come before everything else.
#[derive(Debug)]
pub(super) struct Setup {
    mptcp: MptcpConfig,
    key_peer: u64,
    seed: u8,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mptcp: MptcpConfig::default(),
            key_peer: PEER_KEY,
            seed: SEED,
        }
    }
}

fn yes(value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(format!("`{other}` is neither yes nor no")),
    }
}

impl Setup {
    /// False: the command is no setting, the engine is to be started.
    pub(super) fn take(&mut self, command: &Command) -> Result<bool, String> {
        let Command::Call { verb, fields, .. } = command else {
            return Ok(false);
        };
        if verb != "config" {
            return Ok(false);
        }
        for Field { name, value } in fields {
            self.set(name, value)?;
        }
        Ok(true)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let config = &mut self.mptcp;
        match name {
            "enabled" => config.enabled = yes(value)?,
            "checksum" => {
                config.checksum = match value {
                    "always" => ChecksumPolicy::Always,
                    "if-requested" => ChecksumPolicy::IfRequested,
                    "never" => ChecksumPolicy::Never,
                    other => return Err(format!("there is no checksum policy `{other}`")),
                }
            }
            "syn-cookies" => config.syn_cookies = yes(value)?,
            "fast-open" => config.fast_open = yes(value)?,
            "allow-v0" => config.allow_v0 = yes(value)?,
            "deny-join-initial" => config.deny_join_initial = yes(value)?,
            "capable-syns" => config.capable_syns = small(value)?,
            "recv-buffer" => config.recv_buffer_bytes = small(value)?,
            "send-buffer" => config.send_buffer_bytes = small(value)?,
            "subflows-max" => config.subflows_max = small(value)?,
            "remote-addresses-max" => config.remote_addresses_max = small(value)?,
            "subflowless-timeout" => config.subflowless_timeout = duration(value)?,
            "close-timeout" => config.close_timeout = duration(value)?,
            "add-addr-timeout" => config.add_addr_timeout = duration(value)?,
            "timestamps" => config.tcp.timestamps = yes(value)?,
            "sack" => config.tcp.sack = yes(value)?,
            "pacing" => config.tcp.pacing = yes(value)?,
            "peer-key" => self.key_peer = number(value)?,
            "seed" => self.seed = small(value)?,
            other => return Err(format!("there is no setting `{other}`")),
        }
        Ok(())
    }

    /// The engine, before anything happened.
    pub(super) fn start(&self) -> Result<Run, String> {
        let config = EngineConfig {
            mptcp: self.mptcp.clone(),
            ..EngineConfig::default()
        };
        let host = Host::new(config, self.seed);
        Ok(Run::new(host, Shared::default(), false, self.key_peer))
    }
}

/// Words and fields of a call.
struct Arguments<'a> {
    words: &'a [String],
    fields: &'a [Field],
}

impl<'a> Arguments<'a> {
    fn word(&self, at: usize, what: &str) -> Result<&'a str, String> {
        self.words
            .get(at)
            .map(String::as_str)
            .ok_or_else(|| format!("{what} is missing"))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let field = self.fields.iter().find(|f| f.name == name);
        field.map(|f| f.value.as_str())
    }

    fn path(&self) -> Result<usize, String> {
        path(self.word(0, "the path")?)
    }

    fn id(&self) -> Result<AddressId, String> {
        Ok(AddressId(small(self.get("id").ok_or("`id=` is missing")?)?))
    }
}

impl Run {
    pub(super) fn call(
        &mut self,
        verb: &str,
        words: &[String],
        fields: &[Field],
    ) -> Result<(), String> {
        let a = Arguments { words, fields };
        match verb {
            "path" => self.declare_path(&a)?,
            "listen" => self.listen(&a)?,
            "connect" => self.connect(&a)?,
            "join" => self.join(&a)?,
            "announce" => {
                let address = a.get("addr").ok_or("`announce id=1 addr=10.0.0.1`")?;
                self.order(Order::Announce {
                    address_id: a.id()?,
                    address: address_of(address)?,
                    port: a.get("port").map(small).transpose()?,
                })?;
            }
            "withdraw" => self.order(Order::RemoveAddress {
                address_id: a.id()?,
            })?,
            "backup" => self.order(Order::SetBackup {
                address_id: a.id()?,
                backup: yes(a.word(0, "yes or no")?)?,
            })?,
            "closesub" => {
                let tuple = self.tuple(a.path()?)?;
                self.order(Order::CloseSubflow(tuple))?;
            }
            "abort" => self.order(Order::Abort)?,
            "write" => {
                self.app.lock().write += number(a.word(0, "how many bytes")?)?;
                self.wake();
            }
            "close" => {
                self.app.lock().finished = true;
                self.wake();
            }
            "read" => {
                let limit = match a.word(0, "how many bytes")? {
                    "all" => None,
                    n => Some(self.app.lock().received + number(n)?),
                };
                self.app.lock().read = limit;
                self.wake();
            }
            "carrier" => {
                let nic = self.flow(a.path()?)?.nic;
                let up = match a.word(1, "up or down")? {
                    "up" => true,
                    "down" => false,
                    other => return Err(format!("`{other}` is neither up nor down")),
                };
                let now = self.host.now;
                self.host.engine.on_carrier(now, PortId(nic), up);
            }
            "drain" => {
                self.drain();
                return Ok(());
            }
            _ => return self.look(verb, &a),
        }
        self.host.settle()?;
        self.collect()
    }

    /// Calls that only look.
    fn look(&mut self, verb: &str, a: &Arguments<'_>) -> Result<(), String> {
        match verb {
            "delivered" => {
                let wanted = a.word(0, "how many bytes")?;
                let state = self.app.lock();
                if let Some(at) = state.wrong_at {
                    return Err(format!("the application got a wrong byte at {at}"));
                }
                check(wanted, &state.received.to_string(), "delivered bytes")
            }
            "taken" => {
                let sent = self.app.lock().sent.to_string();
                check(a.word(0, "how many bytes")?, &sent, "taken bytes")
            }
            "eof" => check("true", &self.app.lock().eof.to_string(), "end of stream"),
            "noeof" => check("false", &self.app.lock().eof.to_string(), "end of stream"),
            "closed" => {
                let reason = serde_json::to_value(self.app.lock().closed);
                let reason = reason.map_err(|e| e.to_string())?;
                check(a.word(0, "the reason")?, &text_of(&reason), "the reason")
            }
            "open" => match self.app.lock().closed {
                None => Ok(()),
                Some(reason) => Err(format!("it is closed: {reason}")),
            },
            "counter" => self.counter(a),
            "event" => self.event(a),
            "noevent" => {
                let name = a.word(0, "the event")?;
                match self.events.iter().find(|e| event_is(e, name, a.fields)) {
                    Some(event) => Err(format!("it happened: {event}")),
                    None => Ok(()),
                }
            }
            "conn" => {
                let info = self.info();
                if a.words.first().is_some_and(|w| w == "gone") {
                    return match info {
                        None => Ok(()),
                        Some(_) => Err("the connection lives".to_owned()),
                    };
                }
                let info = info.ok_or("there is no connection")?;
                fields_agree(&info, a.fields)
            }
            "sub" => self.subflow(a),
            other => Err(format!("there is no command `{other}`")),
        }
    }

    fn declare_path(&mut self, a: &Arguments<'_>) -> Result<(), String> {
        let number = a.path()?;
        let flow = self.flow(number)?;
        for Field { name, value } in a.fields {
            let socket = || -> Result<SocketAddr, String> {
                value
                    .parse()
                    .map_err(|_| format!("`{value}` is no address:port"))
            };
            match name.as_str() {
                "braid" => flow.braid = socket()?,
                "peer" => flow.peer = socket()?,
                "nic" => flow.nic = small(value)?,
                "iss" => flow.iss = small(value)?,
                other => return Err(format!("a path has no `{other}`")),
            }
        }
        Ok(())
    }

    fn listen(&mut self, a: &Arguments<'_>) -> Result<(), String> {
        let backlog = a.get("backlog").map_or(Ok(BACKLOG), small)?;
        let app = self.app.clone();
        let unspecified = ["0.0.0.0", "::"];
        let listen = unspecified
            .iter()
            .map(|a| SocketAddr::new(a.parse().expect("an address"), PORT))
            .collect();
        let make = Box::new(move || ScriptApp(app.clone()));
        let service = Service::new("script", listen, backlog, make);
        self.host.engine.set_services(vec![service]);
        Ok(())
    }

    fn connect(&mut self, a: &Arguments<'_>) -> Result<(), String> {
        if self.flows.is_empty() {
            self.client = true;
        }
        let path = self.subflow_path(a)?;
        let app = ScriptApp(self.app.clone());
        let now = self.host.now;
        let token = self
            .host
            .engine
            .connect(now, &Arc::from("script"), path, app);
        self.token = Some(token.map_err(|e| e.to_string())?);
        Ok(())
    }

    fn join(&mut self, a: &Arguments<'_>) -> Result<(), String> {
        let path = self.subflow_path(a)?;
        let result = self.try_order(Order::OpenSubflow(path));
        match (a.get("refused"), result) {
            (None, result) => result,
            (Some(_), Ok(())) => Err("it was not refused".to_owned()),
            (Some(why), Err(e)) if e.contains(&why.replace('-', " ")) => Ok(()),
            (Some(_), Err(e)) => Err(format!("it was refused: {e}")),
        }
    }

    fn subflow_path(&mut self, a: &Arguments<'_>) -> Result<SubflowPath, String> {
        let number = a.path()?;
        let id = match a.get("id") {
            Some(id) => small(id)?,
            None => u8::try_from(number).map_err(|_| "paths are few")?,
        };
        let backup = a.get("b").is_some_and(|b| b == "1");
        let remote_id = a.get("remote-id").map(small).transpose()?.unwrap_or(0);
        let tuple = self.tuple(number)?;
        let nic = self.flow(number)?.nic;
        Ok(SubflowPath {
            port: PortId(nic),
            l2: L2Header {
                dst: EthernetAddress([2, 0, 0, 0, 0, 2]),
                src: EthernetAddress([2, 0, 0, 0, 0, 1]),
                vlan: Default::default(),
            },
            tuple,
            mtu: MTU,
            local_id: AddressId(id),
            remote_id: AddressId(remote_id),
            backup,
        })
    }

    fn tuple(&mut self, path: usize) -> Result<FourTuple, String> {
        let flow = self.flow(path)?;
        Ok(FourTuple {
            local: flow.braid,
            remote: flow.peer,
        })
    }

    fn order(&mut self, order: Order) -> Result<(), String> {
        self.try_order(order)
    }

    fn try_order(&mut self, order: Order) -> Result<(), String> {
        let token = self.token.ok_or("there is no connection yet")?;
        let now = self.host.now;
        self.host
            .engine
            .order(now, token, order)
            .map_err(|e| e.to_string())
    }

    /// The application has something new for the connection.
    fn wake(&mut self) {
        if let Some(token) = self.token {
            let now = self.host.now;
            // Before it exists or after it is gone there is nobody to wake.
            let _ = self.host.engine.wake(now, token);
        }
    }

    fn counter(&self, a: &Arguments<'_>) -> Result<(), String> {
        let name = a.word(0, "the counter")?;
        let wanted = a.word(1, "its value")?;
        let counter = Counter::ALL.iter().find(|c| c.as_str() == name);
        let counter = counter.ok_or_else(|| format!("there is no counter `{name}`"))?;
        let value = self.host.engine.counters().get(*counter);
        check(wanted, &value.to_string(), name)
    }

    /// An event that was not looked at yet; those before it are skipped.
    fn event(&mut self, a: &Arguments<'_>) -> Result<(), String> {
        let name = a.word(0, "the event")?;
        let found = self.events.iter().position(|e| event_is(e, name, a.fields));
        let Some(at) = found else {
            let list: Vec<String> = self.events.iter().map(Value::to_string).collect();
            return Err(format!(
                "no such event; there are:\n    {}",
                list.join("\n    ")
            ));
        };
        self.events.drain(..=at);
        Ok(())
    }

    fn info(&self) -> Option<Value> {
        let conn = self.host.engine.connection(self.token?)?;
        serde_json::to_value(conn.info(self.host.now)).ok()
    }

    fn subflow(&mut self, a: &Arguments<'_>) -> Result<(), String> {
        let number = a.path()?;
        let tuple = self.tuple(number)?;
        let conn = self.token.and_then(|t| self.host.engine.connection(t));
        let info = conn.map(|c| c.info(self.host.now));
        let subflow = info
            .into_iter()
            .flat_map(|i| i.subflows)
            .find(|s| s.local == tuple.local && s.remote == tuple.remote);
        let gone = a.words.get(1).is_some_and(|w| w == "gone");
        match (subflow, gone) {
            (None, true) => Ok(()),
            (Some(s), true) => Err(format!("p{number} lives, in state {}", s.state)),
            (None, false) => Err(format!("p{number} is no subflow")),
            (Some(s), false) => {
                let value = serde_json::to_value(s).map_err(|e| e.to_string())?;
                fields_agree(&value, a.fields)
            }
        }
    }
}

fn address_of(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no address"))
}

fn check(wanted: &str, got: &str, what: &str) -> Result<(), String> {
    if agrees(wanted, got) {
        Ok(())
    } else {
        Err(format!("{what}: expected {wanted}, got {got}"))
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn event_is(event: &Value, name: &str, fields: &[Field]) -> bool {
    (event.get(name)).is_some_and(|event| fields_agree(event, fields).is_ok())
}

/// `name=value` for members, `name.len=n` for lengths of lists.
fn fields_agree(value: &Value, fields: &[Field]) -> Result<(), String> {
    for Field {
        name,
        value: wanted,
    } in fields
    {
        let mut at = value;
        let mut count = None;
        for part in name.split('.') {
            if part == "len" && at.is_array() {
                count = at.as_array().map(Vec::len);
            } else {
                at = at
                    .get(part)
                    .ok_or_else(|| format!("there is no `{name}`"))?;
            }
        }
        let got = count.map_or_else(|| text_of(at), |n| n.to_string());
        check(wanted, &got, name)?;
    }
    Ok(())
}
