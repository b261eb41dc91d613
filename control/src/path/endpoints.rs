//! Own addresses with what may be done with them, as `ip mptcp endpoint` has them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use braid_dataplane::mptcp::Announcement;
use serde::{Deserialize, Serialize};

use crate::config::EndpointFlags;

/// One own address.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address identifier on the wire (RFC 8684 §3.4.1), except on a connection whose
    /// initial address it is: there it is 0.
    pub id: u8,
    /// Address.
    pub address: IpAddr,
    /// Port that is announced with it; without one it is the connection's own.
    #[serde(default)]
    pub port: Option<u16>,
    /// Flags.
    pub flags: EndpointFlags,
    /// Made up for an address of an interface that a subflow needed, not by anybody's order.
    #[serde(default)]
    pub implicit: bool,
}

/// Which endpoint an order means.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// By identifier.
    Id(u8),
    /// By address.
    Address(IpAddr),
}

/// An order about endpoints was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The address has one.
    #[error("{address} is endpoint {id} already; change it with: braid endpoint change id {id} …")]
    Exists {
        /// Address.
        address: IpAddr,
        /// Its identifier.
        id: u8,
    },
    /// The identifier has one.
    #[error("identifier {0} is in use; leave it out to get a free one")]
    IdInUse(u8),
    /// 0 is the initial address.
    #[error("identifier 0 is the initial address of every connection; allowed: 1 to 255")]
    IdZero,
    /// No identifier left.
    #[error("all 255 identifiers are in use; delete an endpoint first")]
    Full,
    /// No such endpoint.
    #[error("no such endpoint; list them with: braid endpoint show")]
    NotFound,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    by_id: BTreeMap<u8, Endpoint>,
    /// Largest identifier given lately: the next one is sought from here, so that an
    /// identifier is not reused at once (`next_id` of the kernel's path manager).
    next_id: u8,
}

impl Endpoints {
    /// All, by identifier.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_id.values()
    }

    /// The endpoint of an address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Endpoint> {
        self.by_id.values().find(|e| e.address == address)
    }

    /// What is announced by this identifier, at this address and port.
    #[must_use]
    pub fn announced(&self, a: &Announcement) -> Option<&Endpoint> {
        let same = |e: &&Endpoint| (e.address, e.port) == (a.address, a.port);
        self.by_id.get(&a.id).filter(same)
    }

    /// Adds one; without `id` the kernel's choice of identifier. An implicit endpoint of the
    /// address becomes explicit and keeps its identifier, since peers know it.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn add(
        &mut self,
        address: IpAddr,
        port: Option<u16>,
        flags: EndpointFlags,
        id: Option<u8>,
    ) -> Result<Endpoint, EndpointError> {
        if let Some(old) = self.by_id.values_mut().find(|e| e.address == address) {
            if old.implicit && id.is_none_or(|id| id == old.id) {
                old.flags = flags;
                old.port = port;
                old.implicit = false;
                return Ok(*old);
            }
            return Err(EndpointError::Exists {
                address,
                id: old.id,
            });
        }
        let id = match id {
            Some(0) => return Err(EndpointError::IdZero),
            Some(id) if self.by_id.contains_key(&id) => return Err(EndpointError::IdInUse(id)),
            Some(id) => id,
            None => self.free_id().ok_or(EndpointError::Full)?,
        };
        self.next_id = self.next_id.max(id);
        let endpoint = Endpoint {
            id,
            address,
            port,
            flags,
            implicit: false,
        };
        self.by_id.insert(id, endpoint);
        Ok(endpoint)
    }

    /// The identifier of an address for a subflow, made up if need be.
    ///
    /// # Errors
    /// [`EndpointError::Full`].
    pub fn id_of(&mut self, address: IpAddr) -> Result<u8, EndpointError> {
        if let Some(e) = self.of(address) {
            return Ok(e.id);
        }
        let endpoint = self.add(address, None, EndpointFlags::default(), None)?;
        if let Some(e) = self.by_id.get_mut(&endpoint.id) {
            e.implicit = true;
        }
        Ok(endpoint.id)
    }

    /// Where peers are told to join besides the ports of services.
    pub fn announced_ports(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let at = |e: &Endpoint| e.port.map(|port| SocketAddr::new(e.address, port));
        self.by_id.values().filter_map(at)
    }

    fn free_id(&mut self) -> Option<u8> {
        let from = self.next_id.max(1);
        if let Some(id) = (from..=u8::MAX).find(|id| !self.by_id.contains_key(id)) {
            return Some(id);
        }
        self.next_id = 1;
        (1..=u8::MAX).find(|id| !self.by_id.contains_key(id))
    }

    fn id(&self, which: Which) -> Result<u8, EndpointError> {
        match which {
            Which::Id(id) => self.by_id.contains_key(&id).then_some(id),
            Which::Address(address) => self.of(address).map(|e| e.id),
        }
        .ok_or(EndpointError::NotFound)
    }

    /// Deletes one.
    ///
    /// # Errors
    /// [`EndpointError::NotFound`].
    pub fn remove(&mut self, which: Which) -> Result<Endpoint, EndpointError> {
        let id = self.id(which)?;
        self.by_id.remove(&id).ok_or(EndpointError::NotFound)
    }

    /// Changes flags; returns it before and after.
    ///
    /// # Errors
    /// [`EndpointError::NotFound`].
    pub fn change(
        &mut self,
        which: Which,
        flags: EndpointFlags,
    ) -> Result<(Endpoint, Endpoint), EndpointError> {
        let id = self.id(which)?;
        let e = self.by_id.get_mut(&id).ok_or(EndpointError::NotFound)?;
        let before = *e;
        // As in ip mptcp, what is no longer announced keeps its port for later.
        e.flags = flags;
        e.implicit = false;
        Ok((before, *e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn add(e: &mut Endpoints, n: u8) -> u8 {
        e.add(ip(n), None, EndpointFlags::default(), None)
            .unwrap()
            .id
    }

    #[test]
    fn identifiers_rise_and_are_not_reused_at_once() {
        let mut e = Endpoints::default();
        assert_eq!((add(&mut e, 1), add(&mut e, 2), add(&mut e, 3)), (1, 2, 3));
        e.remove(Which::Id(2)).unwrap();
        assert_eq!(add(&mut e, 4), 4);
        e.add(ip(9), None, EndpointFlags::default(), Some(255))
            .unwrap();
        assert_eq!(add(&mut e, 5), 2, "wraps to the lowest free one");
    }

    #[test]
    fn refuses_what_the_wire_or_the_table_cannot_hold() {
        let mut e = Endpoints::default();
        let none = EndpointFlags::default();
        assert_eq!(
            e.add(ip(1), None, none, Some(0)),
            Err(EndpointError::IdZero)
        );
        e.add(ip(1), None, none, Some(7)).unwrap();
        assert_eq!(
            e.add(ip(2), None, none, Some(7)),
            Err(EndpointError::IdInUse(7))
        );
        assert_eq!(
            e.add(ip(1), None, none, None),
            Err(EndpointError::Exists {
                address: ip(1),
                id: 7
            })
        );
        assert_eq!(
            e.remove(Which::Address(ip(3))),
            Err(EndpointError::NotFound)
        );
        for n in 0..254 {
            e.add(IpAddr::from([10, 0, 1, n]), None, none, None)
                .unwrap();
        }
        assert_eq!(e.add(ip(4), None, none, None), Err(EndpointError::Full));
    }

    #[test]
    fn an_implicit_endpoint_keeps_its_identifier_when_made_explicit() {
        let mut e = Endpoints::default();
        let id = e.id_of(ip(1)).unwrap();
        assert_eq!(e.id_of(ip(1)), Ok(id));
        assert!(e.of(ip(1)).unwrap().implicit);
        let flags = EndpointFlags {
            signal: true,
            ..EndpointFlags::default()
        };
        let made = e.add(ip(1), None, flags, None).unwrap();
        assert_eq!(
            (made.id, made.implicit, made.flags.signal),
            (id, false, true)
        );
    }
}
