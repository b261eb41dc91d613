//! Links and addresses as last heard from the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Hardware address, if it is an Ethernet device.
    pub mac: Option<[u8; 6]>,
    /// MTU.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up, with carrier, on both sides where there are two: packets can leave.
    pub carrier: bool,
    /// Kind of a virtual device ("veth", "bond", …); `None` for hardware.
    pub kind: Option<String>,
    /// Bridge or bond that it belongs to.
    pub controller: Option<u32>,
    /// Identifier of an attached XDP program.
    pub xdp_program: Option<u32>,
}

/// One address of an interface.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Interface.
    pub ifindex: u32,
    /// Address.
    pub address: IpAddr,
    /// Length of the prefix of its network.
    pub prefix_len: u8,
}

/// What a message changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A link came, or changed what matters to us (flags, carrier, address, MTU, name).
    Link(Link),
    /// A link is gone.
    LinkGone(Link),
    /// An address came.
    AddressAdded(Address),
    /// An address is gone.
    AddressRemoved(Address),
    /// A neighbour's hardware address is known, or is known to be another one.
    Neighbour {
        /// Interface.
        ifindex: u32,
        /// Neighbour.
        address: IpAddr,
        /// Its hardware address.
        mac: [u8; 6],
    },
    /// Some route changed: next hops may differ.
    Routes,
}

/// Links and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
}

impl Mirror {
    /// All links by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// A link by index.
    #[must_use]
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// A link by name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|l| l.name == name)
    }

    /// Addresses of one link.
    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |a| a.ifindex == ifindex)
    }

    /// The link that has an address.
    #[must_use]
    pub fn owner_of(&self, address: IpAddr) -> Option<&Link> {
        let found = self.addresses.iter().find(|a| a.address == address)?;
        self.links.get(&found.ifindex)
    }

    /// Index of the interface that has an address.
    #[must_use]
    pub fn ifindex_of(&self, address: IpAddr) -> Option<u32> {
        self.owner_of(address).map(|link| link.ifindex)
    }

    /// Takes one message in and says what it changed.
    pub fn apply(&mut self, message: &RouteNetlinkMessage) -> Option<Change> {
        match message {
            RouteNetlinkMessage::NewLink(m) => self.put_link(link(m)?),
            RouteNetlinkMessage::DelLink(m) => {
                let gone = self.links.remove(&m.header.index)?;
                self.addresses.retain(|a| a.ifindex != gone.ifindex);
                Some(Change::LinkGone(gone))
            }
            RouteNetlinkMessage::NewAddress(m) => {
                let address = address(m)?;
                let new = self.addresses.insert(address);
                new.then_some(Change::AddressAdded(address))
            }
            RouteNetlinkMessage::DelAddress(m) => {
                let address = address(m)?;
                let had = self.addresses.remove(&address);
                had.then_some(Change::AddressRemoved(address))
            }
            RouteNetlinkMessage::NewNeighbour(m) => {
                let (address, mac) = neighbour(m)?;
                Some(Change::Neighbour {
                    ifindex: m.header.ifindex,
                    address,
                    mac,
                })
            }
            RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => {
                Some(Change::Routes)
            }
            _ => None,
        }
    }

    fn put_link(&mut self, new: Link) -> Option<Change> {
        let old = self.links.insert(new.ifindex, new.clone());
        (old.as_ref() != Some(&new)).then_some(Change::Link(new))
    }

    /// Becomes `new` and says what that changed: after messages were lost.
    pub fn replace(&mut self, new: Mirror) -> Vec<Change> {
        let mut changes = Vec::new();
        for (ifindex, old) in &self.links {
            if !new.links.contains_key(ifindex) {
                changes.push(Change::LinkGone(old.clone()));
            }
        }
        for (ifindex, link) in &new.links {
            if self.links.get(ifindex) != Some(link) {
                changes.push(Change::Link(link.clone()));
            }
        }
        let gone = self.addresses.difference(&new.addresses);
        // A link that is gone took its addresses with it without a word each.
        changes.extend(
            gone.filter(|a| new.links.contains_key(&a.ifindex))
                .map(|a| Change::AddressRemoved(*a)),
        );
        let come = new.addresses.difference(&self.addresses);
        changes.extend(come.map(|a| Change::AddressAdded(*a)));
        *self = new;
        changes
    }
}

fn link(m: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        ifindex: m.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: m.header.flags.contains(LinkFlags::Up),
        // LowerUp is the carrier, Running the operational state (RFC 2863): a veth whose
        // peer is down has neither.
        carrier: m
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running),
        kind: None,
        controller: None,
        xdp_program: None,
    };
    for a in &m.attributes {
        match a {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) if m.header.link_layer_type == LinkLayerType::Ether => {
                link.mac = bytes.as_slice().try_into().ok();
            }
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Xdp(xdp) => {
                link.xdp_program = xdp.iter().find_map(|x| match x {
                    LinkXdp::ProgId(id)
                    | LinkXdp::DrvProgId(id)
                    | LinkXdp::SkbProgId(id)
                    | LinkXdp::HwProgId(id) => Some(*id),
                    _ => None,
                });
            }
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|i| match i {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    // Wireless and bridge notices for a link may come without its name.
    (!link.name.is_empty()).then_some(link)
}

fn address(m: &AddressMessage) -> Option<Address> {
    // An address that is not proven unique yet cannot be used (RFC 4862 §5.4); the
    // kernel tells again when it is.
    if m.header.flags.contains(AddressHeaderFlags::Tentative) {
        return None;
    }
    let mut found = None;
    for a in &m.attributes {
        match a {
            // On point-to-point links `Address` is the peer.
            AddressAttribute::Local(ip) => found = Some(*ip),
            AddressAttribute::Address(ip) => {
                found.get_or_insert(*ip);
            }
            _ => {}
        }
    }
    Some(Address {
        ifindex: m.header.index,
        address: found?,
        prefix_len: m.header.prefix_len,
    })
}

/// Address and hardware address, if the kernel holds the latter for valid.
pub(super) fn neighbour(m: &NeighbourMessage) -> Option<(IpAddr, [u8; 6])> {
    use netlink_packet_route::neighbour::NeighbourState::{
        Delay, Noarp, Permanent, Probe, Reachable, Stale,
    };
    // NUD_VALID of the kernel.
    if !matches!(
        m.header.state,
        Reachable | Stale | Delay | Probe | Noarp | Permanent
    ) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for a in &m.attributes {
        match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                address = Some(IpAddr::V4(*ip));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                address = Some(IpAddr::V6(*ip));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some((address?, mac?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::InfoKind;

    fn link_message(ifindex: u32, flags: LinkFlags) -> RouteNetlinkMessage {
        let mut m = LinkMessage::default();
        m.header.index = ifindex;
        m.header.flags = flags;
        m.header.link_layer_type = LinkLayerType::Ether;
        m.attributes = vec![
            LinkAttribute::IfName(format!("v{ifindex}")),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
        ];
        RouteNetlinkMessage::NewLink(m)
    }

    fn address_message(ifindex: u32, ip: &str) -> AddressMessage {
        let mut m = AddressMessage::default();
        m.header.index = ifindex;
        m.header.prefix_len = 24;
        m.attributes = vec![AddressAttribute::Address(ip.parse().unwrap())];
        m
    }

    const RUNNING: LinkFlags = LinkFlags::Up
        .union(LinkFlags::LowerUp)
        .union(LinkFlags::Running);

    #[test]
    fn a_link_is_told_once_per_change() {
        let mut mirror = Mirror::default();
        let up = link_message(3, RUNNING);
        let Some(Change::Link(link)) = mirror.apply(&up) else {
            panic!("no change")
        };
        assert!(link.carrier && link.up);
        assert_eq!(link.kind.as_deref(), Some("veth"));
        assert_eq!(link.mac, Some([2, 0, 0, 0, 0, 1]));
        assert_eq!(mirror.apply(&up), None);
        let Some(Change::Link(link)) = mirror.apply(&link_message(3, LinkFlags::Up)) else {
            panic!("no change")
        };
        assert!(link.up && !link.carrier, "a veth whose peer is down");
        assert_eq!(mirror.link_named("v3"), Some(&link));
    }

    #[test]
    fn a_link_takes_its_addresses_with_it() {
        let mut mirror = Mirror::default();
        mirror.apply(&link_message(3, RUNNING));
        let added = mirror.apply(&RouteNetlinkMessage::NewAddress(address_message(
            3, "10.0.0.1",
        )));
        assert!(matches!(added, Some(Change::AddressAdded(_))));
        assert_eq!(
            mirror
                .owner_of("10.0.0.1".parse().unwrap())
                .unwrap()
                .ifindex,
            3
        );
        let mut gone = LinkMessage::default();
        gone.header.index = 3;
        assert!(matches!(
            mirror.apply(&RouteNetlinkMessage::DelLink(gone)),
            Some(Change::LinkGone(_))
        ));
        assert_eq!(mirror, Mirror::default());
    }

    #[test]
    fn a_tentative_address_is_no_address() {
        let mut mirror = Mirror::default();
        let mut m = address_message(3, "fd00::1");
        m.header.flags = AddressHeaderFlags::Tentative;
        assert_eq!(mirror.apply(&RouteNetlinkMessage::NewAddress(m)), None);
        assert_eq!(mirror, Mirror::default());
    }

    #[test]
    fn replacing_tells_the_difference() {
        let mut mirror = Mirror::default();
        mirror.apply(&link_message(3, RUNNING));
        mirror.apply(&link_message(4, RUNNING));
        mirror.apply(&RouteNetlinkMessage::NewAddress(address_message(
            3, "10.0.0.1",
        )));
        let mut new = Mirror::default();
        new.apply(&link_message(3, LinkFlags::Up));
        new.apply(&RouteNetlinkMessage::NewAddress(address_message(
            3, "10.0.0.2",
        )));
        let changes = mirror.replace(new.clone());
        assert_eq!(changes.len(), 4, "{changes:?}");
        assert!(matches!(&changes[0], Change::LinkGone(l) if l.ifindex == 4));
        assert!(matches!(&changes[1], Change::Link(l) if !l.carrier));
        assert!(
            matches!(changes[2], Change::AddressRemoved(a) if a.address.to_string() == "10.0.0.1")
        );
        assert!(
            matches!(changes[3], Change::AddressAdded(a) if a.address.to_string() == "10.0.0.2")
        );
        assert_eq!(mirror, new);
        assert_eq!(mirror.replace(new), []);
    }
}
