//! Carrying out what the path manager decides: route, neighbour, port, claim, order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use braid_dataplane::control::{ConnCommand, PathSetup, Reply, Request};
use tokio::sync::oneshot;

use super::{Daemon, Opening};
use crate::api::{ApiEvent, ApiReply};
use crate::config::ConnectConfig;
use crate::path::Command;

/// The end of something that took time.
#[derive(Debug)]
pub(super) enum Opened {
    /// Way found (or not) for a subflow or a connection.
    Found {
        goal: Goal,
        found: Result<Way, String>,
    },
    /// The dataplane's answer.
    Answered {
        goal: Goal,
        local: SocketAddr,
        answer: Result<Option<u32>, String>,
    },
}

/// What a way is wanted for.
#[derive(Debug)]
pub(super) enum Goal {
    /// Another subflow.
    Subflow {
        token: u32,
        local: IpAddr,
        remote: SocketAddr,
        local_id: u8,
        remote_id: u8,
        backup: bool,
    },
    /// A new connection, and who waits to hear of it.
    Connection {
        config: ConnectConfig,
        answer: Option<oneshot::Sender<ApiReply>>,
    },
}

/// Interface, next hop and MTU.
#[derive(Copy, Clone, Debug)]
pub(super) struct Way {
    ifindex: u32,
    next_hop: IpAddr,
    mac: [u8; 6],
    local: IpAddr,
    mtu: u32,
}

impl Daemon {
    pub(super) fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            tracing::debug!("path manager: {command:?}");
            match command {
                Command::Open {
                    token,
                    local,
                    remote,
                    local_id,
                    remote_id,
                    backup,
                } => {
                    let goal = Goal::Subflow {
                        token,
                        local,
                        remote,
                        local_id,
                        remote_id,
                        backup,
                    };
                    self.find_way(goal);
                }
                Command::Abandon {
                    token,
                    local,
                    remote,
                } => {
                    // Of several of this pair, one that has not come about.
                    let attempt = self.opened.iter().find(|(o, established)| {
                        let pair = (o.token, o.local.ip(), o.remote);
                        !**established && pair == (token, local, remote)
                    });
                    if let Some(attempt) = attempt.map(|(o, _)| *o) {
                        self.opened.remove(&attempt);
                        let local = attempt.local;
                        self.command(token, ConnCommand::CloseSubflow { local, remote });
                        self.ports.release(Instant::now(), local);
                    }
                }
                Command::Announce {
                    token,
                    id,
                    address,
                    port,
                } => {
                    let command = ConnCommand::Announce {
                        address_id: id,
                        address,
                        port,
                    };
                    self.command(token, command);
                }
                Command::Remove { token, id } => {
                    self.command(token, ConnCommand::RemoveAddress { address_id: id });
                }
                Command::SetBackup { token, id, backup } => {
                    self.command(
                        token,
                        ConnCommand::SetBackup {
                            address_id: id,
                            backup,
                        },
                    );
                }
            }
        }
    }

    fn command(&self, token: u32, command: ConnCommand) {
        self.order("path command", Request::Command { token, command });
    }

    /// Looks for a way beside the loop: ARP may take seconds.
    fn find_way(&self, goal: Goal) {
        let (source, remote) = match &goal {
            Goal::Subflow { local, remote, .. } => (Some(*local), *remote),
            Goal::Connection { config, .. } => (None, config.to),
        };
        let oif = source
            .and_then(|s| self.mirror.owner_of(s))
            .map(|l| l.ifindex);
        let netlink = self.netlink.clone();
        let links: Vec<(u32, String, u32)> = self
            .interfaces
            .iter()
            .map(|i| {
                let mtu = self
                    .mirror
                    .link(i.setup.ifindex)
                    .map_or(i.setup.mtu, |l| l.mtu);
                (i.setup.ifindex, i.setup.name.clone(), mtu.min(i.setup.mtu))
            })
            .collect();
        let others: Vec<(u32, String)> = self
            .mirror
            .links()
            .map(|l| (l.ifindex, l.name.clone()))
            .collect();
        let results = self.results.clone();
        tokio::spawn(async move {
            let look = async {
                let hop = netlink
                    .route(source, remote.ip(), oif)
                    .await
                    .map_err(|e| e.to_string())?;
                let Some((ifindex, name, mtu)) = links.iter().find(|l| l.0 == hop.ifindex) else {
                    let other = others.iter().find(|o| o.0 == hop.ifindex);
                    let other = other.map_or("an unknown interface", |o| o.1.as_str());
                    return Err(format!(
                        "{} is routed through {other}, which is no interface of the dataplane; add an [[interface]] for it, or route it through {}",
                        remote.ip(),
                        links
                            .iter()
                            .map(|l| l.1.as_str())
                            .collect::<Vec<_>>()
                            .join(" or ")
                    ));
                };
                let local = source
                    .or(hop.source)
                    .ok_or_else(|| format!("{name} has no address for a way to {}", remote.ip()))?;
                let mac = netlink
                    .neighbour(*ifindex, name, hop.next_hop)
                    .await
                    .map_err(|e| e.to_string())?;
                Ok(Way {
                    ifindex: *ifindex,
                    next_hop: hop.next_hop,
                    mac,
                    local,
                    mtu: hop.mtu.unwrap_or(*mtu).min(*mtu),
                })
            };
            let found = look.await;
            // The daemon is gone: nobody waits.
            let _ = results.send(Opened::Found { goal, found });
        });
    }

    pub(super) fn on_opened(&mut self, result: Opened) {
        match result {
            Opened::Found {
                goal,
                found: Err(message),
            } => self.failed(goal, message),
            Opened::Found {
                goal,
                found: Ok(way),
            } => self.open(goal, way),
            Opened::Answered {
                goal,
                local,
                answer: Err(message),
            } => {
                self.ports.release(Instant::now(), local);
                if let Goal::Subflow { token, remote, .. } = &goal {
                    self.opened.remove(&Opening {
                        token: *token,
                        local,
                        remote: *remote,
                    });
                }
                self.failed(goal, message);
            }
            Opened::Answered {
                goal: Goal::Subflow { .. },
                ..
            } => {}
            Opened::Answered {
                goal: Goal::Connection { config, answer },
                local,
                answer: Ok(token),
            } => {
                let Some(token) = token else { return };
                let key = Opening {
                    token,
                    local,
                    remote: config.to,
                };
                self.opened.insert(key, true);
                if let Some(answer) = answer {
                    let _ = answer.send(ApiReply::Connecting { token });
                }
            }
        }
    }

    fn failed(&mut self, goal: Goal, message: String) {
        tracing::debug!("path failed: {message}");
        match goal {
            Goal::Subflow {
                token,
                local,
                remote,
                ..
            } => {
                let mut commands = Vec::new();
                self.manager
                    .on_open_failed(Instant::now(), token, local, remote, &mut commands);
                self.tell(ApiEvent::PathFailed {
                    token: Some(token),
                    message,
                });
                self.carry_out(commands);
            }
            Goal::Connection { config, answer } => {
                let message = format!("cannot connect \"{}\": {message}", config.name);
                match answer {
                    Some(answer) => drop(answer.send(ApiReply::Error { message })),
                    None => {
                        self.tell(ApiEvent::PathFailed {
                            token: None,
                            message: message.clone(),
                        });
                        self.warn(message);
                    }
                }
            }
        }
    }

    /// Takes a port and orders the dataplane.
    fn open(&mut self, goal: Goal, way: Way) {
        let Some(running) = &self.running else {
            return self.failed(goal, "the dataplane is down".to_owned());
        };
        let dataplane = Arc::clone(&running.dataplane);
        let local = match self.ports.open(&self.steer, way.local) {
            Ok(local) => local,
            Err(e) => return self.failed(goal, e.to_string()),
        };
        let hop = (way.ifindex, way.next_hop);
        self.neighbours.insert(hop, way.mac);
        let mut path = PathSetup {
            ifindex: way.ifindex,
            next_hop_mac: way.mac,
            local,
            remote: local,
            mtu: way.mtu,
            local_id: 0,
            remote_id: 0,
            backup: false,
        };
        let request = match &goal {
            Goal::Subflow {
                token,
                remote,
                local_id,
                remote_id,
                backup,
                ..
            } => {
                path.remote = *remote;
                path.local_id = *local_id;
                path.remote_id = *remote_id;
                path.backup = *backup;
                let key = Opening {
                    token: *token,
                    local,
                    remote: *remote,
                };
                self.opened.insert(key, false);
                Request::Command {
                    token: *token,
                    command: ConnCommand::OpenSubflow { path },
                }
            }
            Goal::Connection { config, .. } => {
                path.remote = config.to;
                let (name, app) = (config.name.clone(), config.app.clone());
                Request::Connect { name, path, app }
            }
        };
        let remote = match &goal {
            Goal::Subflow { remote, .. } => remote.ip(),
            Goal::Connection { config, .. } => config.to.ip(),
        };
        self.next_hops.entry(hop).or_default().insert(remote);
        let results = self.results.clone();
        tokio::spawn(async move {
            let answer = match dataplane.ask(request).await {
                Ok(Reply::Connecting { token }) => Ok(Some(token)),
                Ok(_) => Ok(None),
                Err(e) => Err(e.to_string()),
            };
            let _ = results.send(Opened::Answered {
                goal,
                local,
                answer,
            });
        });
    }

    /// Opens a connection of the configuration.
    pub(super) fn connect(&self, name: &str, answer: Option<oneshot::Sender<ApiReply>>) {
        match self.config.connects.iter().find(|c| c.name == name) {
            Some(config) => self.find_way(Goal::Connection {
                config: config.clone(),
                answer,
            }),
            None => {
                let names: Vec<&str> = self
                    .config
                    .connects
                    .iter()
                    .map(|c| c.name.as_str())
                    .collect();
                let names = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                let message = format!(
                    "no [[connect]] \"{name}\" in {}; there: {names}",
                    self.config.file.display()
                );
                if let Some(answer) = answer {
                    let _ = answer.send(ApiReply::Error { message });
                }
            }
        }
    }

    /// Opens what is to be opened whenever a dataplane starts. An adopted one has them.
    pub(super) fn autostart(&self) {
        if self.adopted {
            return;
        }
        for c in self.config.connects.iter().filter(|c| c.autostart) {
            self.connect(&c.name, None);
        }
    }
}
