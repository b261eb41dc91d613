//! What clients of the control socket ask for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use braid_dataplane::control::{PortMode, Reply, Request};
use tokio::sync::oneshot;

use super::{Daemon, DataplaneError, interfaces};
use crate::api::{ApiEvent, ApiReply, ApiRequest, Call, DaemonStatus, InterfaceStatus, PathStatus};
use crate::config::Config;
use crate::path::Limits;

fn error(e: impl std::fmt::Display) -> ApiReply {
    ApiReply::Error {
        message: e.to_string(),
    }
}

impl Daemon {
    pub(super) async fn on_call(&mut self, call: Call) {
        let now = Instant::now();
        let answer = call.answer;
        let mut commands = Vec::new();
        let reply = match call.request {
            ApiRequest::Status => return self.status(answer),
            ApiRequest::Conns { offset } => {
                return self.forward(answer, Request::Conns { offset }, |reply| match reply {
                    Reply::Conns { total, conns } => Some(ApiReply::Conns { total, conns }),
                    _ => None,
                });
            }
            ApiRequest::Counters => {
                let steer = match self.steer.counters() {
                    Ok(list) => list
                        .into_iter()
                        .filter(|(_, n)| *n != 0)
                        .map(|(c, n)| (c.as_str().to_owned(), n))
                        .collect(),
                    Err(e) => {
                        let _ = answer.send(error(e));
                        return;
                    }
                };
                return self.forward(answer, Request::Counters, |reply| match reply {
                    Reply::Counters { counters } => Some(ApiReply::Counters {
                        dataplane: counters,
                        steer,
                    }),
                    _ => None,
                });
            }
            ApiRequest::Xsk => {
                return self.forward(answer, Request::Xsk, |reply| match reply {
                    Reply::Xsk { ports, pools } => Some(ApiReply::Xsk { ports, pools }),
                    _ => None,
                });
            }
            ApiRequest::Connect { name } => return self.connect(&name, Some(answer)),
            ApiRequest::EndpointAdd {
                address,
                port,
                flags,
                id,
            } => {
                let at = port.map(|port| SocketAddr::new(address, port));
                let checked = flags
                    .check(port)
                    .and_then(|()| self.usable(address))
                    .and_then(|()| at.map_or(Ok(()), |at| self.hold_join_port(at)));
                match checked {
                    Err(message) => ApiReply::Error { message },
                    Ok(()) => {
                        match self.manager.endpoint_add(
                            now,
                            (address, port),
                            flags,
                            id,
                            &mut commands,
                        ) {
                            Ok(endpoint) => ApiReply::Endpoint { endpoint },
                            Err(e) => error(e),
                        }
                    }
                }
            }
            ApiRequest::EndpointRemove { which } => {
                match self.manager.endpoint_remove(which, &mut commands) {
                    Ok(endpoint) => {
                        self.hold_ports();
                        ApiReply::Endpoint { endpoint }
                    }
                    Err(e) => error(e),
                }
            }
            ApiRequest::EndpointChange { which, flags } => match flags.check(None) {
                Err(message) => ApiReply::Error { message },
                Ok(()) => match self
                    .manager
                    .endpoint_change(now, which, flags, &mut commands)
                {
                    Ok(endpoint) => ApiReply::Endpoint { endpoint },
                    Err(e) => error(e),
                },
            },
            ApiRequest::EndpointShow => ApiReply::Endpoints {
                endpoints: self.manager.endpoints().iter().copied().collect(),
            },
            ApiRequest::Limits {
                subflows,
                accept_addresses,
            } => {
                let old = self.manager.limits();
                let limits = Limits {
                    subflows: subflows.unwrap_or(old.subflows),
                    accept_addresses: accept_addresses.unwrap_or(old.accept_addresses),
                };
                if limits == old {
                    ApiReply::Limits { limits }
                } else if !(1..=32).contains(&limits.subflows) || limits.accept_addresses > 32 {
                    error("out of range; allowed: subflows 1 to 32, accept-addresses 0 to 32")
                } else {
                    match self.tell_limits(limits).await {
                        Ok(()) => {
                            self.manager.set_limits(now, limits, &mut commands);
                            ApiReply::Limits { limits }
                        }
                        Err(e) => error(e),
                    }
                }
            }
            ApiRequest::Monitor => error("answered elsewhere"),
            ApiRequest::Drain { timeout_ms } => {
                self.drain(Duration::from_millis(timeout_ms)).await;
                ApiReply::Ok {
                    message: "draining; braidd exits when the last connection has ended".to_owned(),
                }
            }
            ApiRequest::Reload => match self.reload().await {
                Ok(message) => ApiReply::Ok { message },
                Err(message) => ApiReply::Error { message },
            },
        };
        self.tell_announcements().await;
        self.carry_out(commands);
        // Who hung up does not want to know.
        let _ = answer.send(reply);
    }

    fn usable(&self, address: IpAddr) -> Result<(), String> {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!("{address} cannot be an end of a subflow"));
        }
        Ok(())
    }

    async fn tell_limits(&self, limits: Limits) -> Result<(), DataplaneError> {
        match &self.running {
            Some(running) => {
                let request = Request::Limits {
                    subflows_max: limits.subflows,
                    accept_addresses: limits.accept_addresses,
                };
                running.dataplane.order(request).await
            }
            None => Err(DataplaneError::NoAnswer),
        }
    }

    /// Passes a question on, beside the loop.
    fn forward(
        &self,
        answer: oneshot::Sender<ApiReply>,
        request: Request,
        translate: impl FnOnce(Reply) -> Option<ApiReply> + Send + 'static,
    ) {
        let Some(running) = &self.running else {
            let _ = answer.send(error("the dataplane is down; it is being restarted"));
            return;
        };
        let dataplane = Arc::clone(&running.dataplane);
        tokio::spawn(async move {
            let reply = match dataplane.ask(request).await {
                Ok(reply) => translate(reply).unwrap_or_else(|| error(DataplaneError::Unexpected)),
                Err(e) => error(e),
            };
            let _ = answer.send(reply);
        });
    }

    fn status(&self, answer: oneshot::Sender<ApiReply>) {
        let mut status = DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config: self.config.file.display().to_string(),
            dataplane_pid: self.running.as_ref().map(|r| r.process.pid()),
            restarts: self.restarts,
            adopted: self.adopted,
            draining: self.draining.is_some(),
            paths: PathStatus {
                owner: "braidd".to_owned(),
                policy: self.manager.policy(),
                limits: self.manager.limits(),
                endpoints: self.manager.endpoints().iter().count(),
                connections: self.manager.connections(),
            },
            interfaces: self
                .interfaces
                .iter()
                .map(|i| self.interface_status(i))
                .collect(),
            services: self
                .config
                .services
                .iter()
                .map(|s| {
                    (
                        s.name.clone(),
                        s.listen.iter().map(ToString::to_string).collect(),
                    )
                })
                .collect(),
            ports_held: self.ports.len(),
            warnings: self.warnings.clone(),
            dataplane: None,
        };
        let Some(running) = &self.running else {
            let _ = answer.send(ApiReply::Status(Box::new(status)));
            return;
        };
        let dataplane = Arc::clone(&running.dataplane);
        tokio::spawn(async move {
            match dataplane.ask(Request::Status).await {
                Ok(Reply::Status(report)) => status.dataplane = Some(*report),
                Ok(_) => status.warnings.push(DataplaneError::Unexpected.to_string()),
                Err(e) => status.warnings.push(e.to_string()),
            }
            let _ = answer.send(ApiReply::Status(Box::new(status)));
        });
    }

    fn interface_status(&self, i: &interfaces::Attached) -> InterfaceStatus {
        let link = self.mirror.link(i.setup.ifindex);
        let attached = match i.setup.mode {
            PortMode::Generic => "generic",
            PortMode::Superframe => "generic, superframes",
            _ => "native",
        };
        InterfaceStatus {
            name: i.setup.name.clone(),
            ifindex: i.setup.ifindex,
            mode_configured: i.mode_configured,
            attached: attached.to_owned(),
            driver: i.driver.clone(),
            queues: i.setup.queues.clone(),
            mtu: i.setup.mtu,
            carrier: link.is_some_and(|l| l.carrier),
            addresses: self
                .mirror
                .addresses_of(i.setup.ifindex)
                .map(|a| a.address)
                .collect(),
            ntuple: self.steering.report(i.setup.ifindex),
        }
    }

    /// Reads the configuration again and applies what can be applied: all or nothing.
    pub(super) async fn reload(&mut self) -> Result<String, String> {
        let new = Config::load(&self.config.file).map_err(|e| e.to_string())?;
        let restart = self.config.restart_needed(&new);
        if !restart.is_empty() {
            return Err(format!(
                "{} changed, which needs a restart of braidd; nothing was applied",
                restart.join(", ")
            ));
        }
        let Some(running) = &self.running else {
            return Err("the dataplane is down; try again when it runs".to_owned());
        };
        let dataplane = Arc::clone(&running.dataplane);
        let locals = interfaces::locals(&self.mirror, &self.interfaces);
        let addresses: Vec<IpAddr> = locals.iter().map(|l| l.address).collect();
        // Ports of endpoints that go are given back once they have been withdrawn.
        let joins: Vec<SocketAddr> = self
            .manager
            .endpoints()
            .announced_ports()
            .chain(new.path.announced_ports())
            .collect();
        let skipped = self
            .ports
            .set_services(&self.steer, &new.services, &addresses, &joins)
            .map_err(|e| e.to_string())?;
        for e in skipped {
            self.warn(format!("joins to this address are left to the kernel: {e}"));
        }
        let services = interfaces::services(&new.services);
        if let Err(e) = dataplane.order(Request::Services { services }).await {
            // What is served is what was served: hold the old ports again.
            let _ = self
                .ports
                .set_services(&self.steer, &self.config.services, &addresses, &joins);
            return Err(e.to_string());
        }
        let limits = Limits {
            subflows: new.path.subflows,
            accept_addresses: new.path.accept_addresses,
        };
        if limits != self.manager.limits()
            && let Err(e) = self.tell_limits(limits).await
        {
            self.warn(format!("limits were not changed: {e}"));
        }
        let mut commands = Vec::new();
        self.manager
            .reload(Instant::now(), &new.path, &mut commands);
        self.tell_announcements().await;
        self.carry_out(commands);
        self.config = new;
        self.hold_ports();
        self.tell(ApiEvent::Reloaded);
        Ok(format!(
            "reloaded {}: {} service(s), {} endpoint(s), {} active open(s)",
            self.config.file.display(),
            self.config.services.len(),
            self.config.path.endpoints.len(),
            self.config.connects.len()
        ))
    }
}
