//! Questions to the kernel.

use std::net::IpAddr;
use std::time::Duration;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::sys::SocketAddr as NetlinkSocketAddr;
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};

use super::mirror::{Change, Mirror, neighbour};

/// How long an ARP or ND resolution may take: the kernel tries three times, one second
/// apart (`mcast_solicit`, `retrans_time_ms`).
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(3200);
/// How often the kernel is asked meanwhile; an answer takes well under a millisecond on a LAN.
const RESOLVE_POLL: Duration = Duration::from_millis(10);

/// A question to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// The kernel's answer.
    #[error("netlink {what}: {source}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The answer.
        source: rtnetlink::Error,
    },
    /// No route.
    #[error("no route from {source_address} to {destination}: {cause}")]
    NoRoute {
        /// Own address, or "any".
        source_address: String,
        /// Peer.
        destination: IpAddr,
        /// Why.
        cause: String,
    },
    /// Nobody answered ARP or ND.
    #[error(
        "{address} does not answer {protocol} on {interface}; check the cable, the peer and the netmask"
    )]
    NoNeighbour {
        /// Next hop.
        address: IpAddr,
        /// ARP or ND.
        protocol: &'static str,
        /// Interface.
        interface: String,
    },
}

/// A route as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Outgoing interface.
    pub ifindex: u32,
    /// Next hop: gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// Own address that the kernel would use.
    pub source: Option<IpAddr>,
    /// MTU of the route, when it has one of its own.
    pub mtu: Option<u32>,
}

/// Messages of the groups that we joined.
#[derive(Debug)]
pub struct Events {
    receiver: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, NetlinkSocketAddr)>,
}

impl Events {
    /// The next message; `None` stands for messages that were lost: take a new
    /// [`Netlink::snapshot`]. Pends forever once the socket is gone.
    pub async fn next(&mut self) -> Option<RouteNetlinkMessage> {
        loop {
            match self.receiver.next().await.map(|(m, _)| m.payload) {
                Some(NetlinkPayload::InnerMessage(m)) => return Some(m),
                Some(NetlinkPayload::Overrun(_) | NetlinkPayload::Error(_)) => return None,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// A netlink socket. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens the socket in the current network namespace and joins the groups of
    /// [`Change`].
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<(Self, Events), NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Neigh,
        ];
        let (connection, handle, receiver) =
            new_multicast_connection(&groups).map_err(NetlinkError::Open)?;
        tokio::spawn(connection);
        Ok((Self { handle }, Events { receiver }))
    }

    /// Links and addresses as of now.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub async fn snapshot(&self) -> Result<Mirror, NetlinkError> {
        let mut mirror = Mirror::default();
        let mut links = self.handle.link().get().execute();
        let refused = |what| move |source| NetlinkError::Refused { what, source };
        while let Some(m) = links.try_next().await.map_err(refused("list of links"))? {
            mirror.apply(&RouteNetlinkMessage::NewLink(m));
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(m) = addresses
            .try_next()
            .await
            .map_err(refused("list of addresses"))?
        {
            mirror.apply(&RouteNetlinkMessage::NewAddress(m));
        }
        Ok(mirror)
    }

    /// Where a packet from `source` to `destination` leaves, through `oif` if given.
    /// Policy rules count.
    ///
    /// # Errors
    /// [`NetlinkError::NoRoute`].
    pub async fn route(
        &self,
        source: Option<IpAddr>,
        destination: IpAddr,
        oif: Option<u32>,
    ) -> Result<Hop, NetlinkError> {
        let no_route = |cause: String| NetlinkError::NoRoute {
            source_address: source.map_or_else(|| "any address".to_owned(), |s| s.to_string()),
            destination,
            cause,
        };
        let mut request = RouteMessageBuilder::<IpAddr>::new();
        request = request
            .destination_prefix(destination, host_prefix(destination))
            .map_err(|e| no_route(e.to_string()))?;
        if let Some(s) = source {
            request = request
                .source_prefix(s, host_prefix(s))
                .map_err(|e| no_route(e.to_string()))?;
        }
        if let Some(oif) = oif {
            request = request.output_interface(oif);
        }
        let mut message = request.build();
        // The builder's defaults are those of a new route, which a lookup must not carry.
        message.header.table = 0;
        message.header.protocol = 0.into();
        message.header.scope = 0.into();
        message.header.kind = 0.into();
        let mut answer = self.handle.route().get(message).execute();
        match answer.try_next().await {
            Ok(Some(m)) => hop(&m, destination).map_err(no_route),
            Ok(None) => Err(no_route("the kernel gave no answer".to_owned())),
            Err(e) => Err(no_route(kernel_words(&e))),
        }
    }

    /// The hardware address of a next hop. The kernel is told to resolve it and to keep it
    /// resolved (NTF_EXT_MANAGED), because it sees none of our packets.
    ///
    /// # Errors
    /// [`NetlinkError::NoNeighbour`] after about three seconds.
    pub async fn neighbour(
        &self,
        ifindex: u32,
        interface: &str,
        address: IpAddr,
    ) -> Result<[u8; 6], NetlinkError> {
        self.manage(ifindex, address).await?;
        let asked = async {
            loop {
                if let Some(mac) = self.known_neighbour(ifindex, address).await {
                    return mac;
                }
                tokio::time::sleep(RESOLVE_POLL).await;
            }
        };
        tokio::time::timeout(RESOLVE_TIMEOUT, asked)
            .await
            .map_err(|_| NetlinkError::NoNeighbour {
                address,
                protocol: if address.is_ipv4() { "ARP" } else { "ND" },
                interface: interface.to_owned(),
            })
    }

    /// Applies an event of [`Events::next`], or a new snapshot when events were lost.
    ///
    /// # Errors
    /// When the snapshot fails.
    pub async fn follow(
        &self,
        mirror: &mut Mirror,
        event: Option<RouteNetlinkMessage>,
    ) -> Result<Vec<Change>, NetlinkError> {
        match event {
            Some(m) => Ok(mirror.apply(&m).into_iter().collect()),
            None => Ok(mirror.replace(self.snapshot().await?)),
        }
    }

    async fn manage(&self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = neighbour_message(ifindex, address);
        message.header.state = NeighbourState::None;
        message
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let refused = |source| NetlinkError::Refused {
            what: "neighbour",
            source,
        };
        let mut answer = self.handle.clone().request(request).map_err(refused)?;
        while let Some(m) = answer.next().await {
            if let NetlinkPayload::Error(e) = m.payload
                && e.code.is_some()
            {
                return Err(refused(rtnetlink::Error::NetlinkError(e)));
            }
        }
        Ok(())
    }

    async fn known_neighbour(&self, ifindex: u32, address: IpAddr) -> Option<[u8; 6]> {
        let message = neighbour_message(ifindex, address);
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
        request.header.flags = NLM_F_REQUEST;
        let mut answer = self.handle.clone().request(request).ok()?;
        while let Some(m) = answer.next().await {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(n)) = m.payload {
                return neighbour(&n).map(|(_, mac)| mac);
            }
        }
        None
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
}

fn kernel_words(error: &rtnetlink::Error) -> String {
    match error {
        rtnetlink::Error::NetlinkError(e) => e.to_io().to_string(),
        other => other.to_string(),
    }
}

/// Reads the kernel's answer to a lookup.
fn hop(m: &RouteMessage, destination: IpAddr) -> Result<Hop, String> {
    match m.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err("it is an address of this host".to_owned()),
        RouteType::Broadcast | RouteType::Multicast | RouteType::Anycast => {
            return Err("it is a group address".to_owned());
        }
        kind => return Err(format!("the route is of kind {kind:?}")),
    }
    let ip = |a: &RouteAddress| match a {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let mut hop = Hop {
        ifindex: 0,
        next_hop: destination,
        source: None,
        mtu: None,
    };
    for a in &m.attributes {
        match a {
            RouteAttribute::Oif(index) => hop.ifindex = *index,
            RouteAttribute::Gateway(a) => hop.next_hop = ip(a).unwrap_or(destination),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => hop.next_hop = IpAddr::V6(*v6),
            RouteAttribute::PrefSource(a) => hop.source = ip(a),
            RouteAttribute::Metrics(metrics) => {
                hop.mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if hop.ifindex == 0 {
        return Err("the route has no interface".to_owned());
    }
    Ok(hop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut m = RouteMessage::default();
        m.header.kind = kind;
        m.attributes = attributes;
        m
    }

    #[test]
    fn reads_gateway_source_and_mtu() {
        let to: IpAddr = "10.9.0.1".parse().unwrap();
        let m = answer(
            RouteType::Unicast,
            vec![
                RouteAttribute::Oif(3),
                RouteAttribute::Gateway(RouteAddress::Inet("10.0.0.254".parse().unwrap())),
                RouteAttribute::PrefSource(RouteAddress::Inet("10.0.0.1".parse().unwrap())),
                RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
            ],
        );
        let expected = Hop {
            ifindex: 3,
            next_hop: "10.0.0.254".parse().unwrap(),
            source: Some("10.0.0.1".parse().unwrap()),
            mtu: Some(1400),
        };
        assert_eq!(hop(&m, to), Ok(expected));
    }

    #[test]
    fn an_on_link_destination_is_its_own_next_hop() {
        let to: IpAddr = "fd00::1".parse().unwrap();
        let m = answer(RouteType::Unicast, vec![RouteAttribute::Oif(3)]);
        assert_eq!(hop(&m, to).unwrap().next_hop, to);
    }

    #[test]
    fn local_and_blackhole_routes_are_no_paths() {
        let to: IpAddr = "10.0.0.1".parse().unwrap();
        let oif = vec![RouteAttribute::Oif(1)];
        assert!(hop(&answer(RouteType::Local, oif.clone()), to).is_err());
        assert!(hop(&answer(RouteType::BlackHole, oif), to).is_err());
        assert!(hop(&answer(RouteType::Unicast, vec![]), to).is_err());
    }

    /// The loopback route exists on every machine, and asking needs no privilege.
    #[tokio::test]
    async fn the_kernel_is_asked() {
        let (netlink, _events) = Netlink::open().unwrap();
        let mirror = netlink.snapshot().await.unwrap();
        let lo = mirror.link_named("lo").unwrap();
        assert_eq!(lo.mac, None, "loopback is not Ethernet");
        let error = netlink
            .route(None, "127.0.0.1".parse().unwrap(), None)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("address of this host"),
            "{error}"
        );
    }
}
