//! Interfaces, addresses and routes of one namespace.

use std::{net::IpAddr, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use crate::{Mac, NetNs, netlink::Netlink};

/// Changes and lists the interfaces of the namespace in which it was opened.
pub struct Net {
    pub(crate) netlink: Netlink,
}

/// What the kernel says about an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Hardware address; zero for interfaces without one.
    pub mac: Mac,
    /// Octets.
    pub mtu: u32,
    /// Alias; empty if none is set.
    pub alias: String,
    /// Kind: `veth`, `bridge`, …; empty for hardware and loopback.
    pub kind: String,
    /// Administratively up.
    pub up: bool,
}

impl Net {
    /// That of the calling thread's namespace: within [`NetNs::run`], or use [`NetNs::net`].
    pub fn here() -> Result<Self> {
        Ok(Self {
            netlink: Netlink::open()?,
        })
    }

    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// Every interface, in order of index.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = self.netlink.dump(&all, |message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(read_link(link)),
            _ => None,
        })?;
        links.sort_by_key(|link| link.ifindex);
        Ok(links)
    }

    /// The interface with this name.
    pub fn link(&mut self, name: &str) -> Result<Link> {
        self.find(name)?.with_context(|| format!("no interface {name}"))
    }

    /// The interface with this name, if there is one.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a veth pair: `name` here and `peer` in `peer_netns`, or here.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_netns: Option<&NetNs>) -> Result<()> {
        self.add_veth_at(name, None, peer, peer_netns)
    }

    /// The same; the kernel gives `name` this index.
    pub fn add_veth_at(
        &mut self,
        name: &str,
        index: Option<u32>,
        peer: &str,
        peer_netns: Option<&NetNs>,
    ) -> Result<()> {
        let mut other = named(peer);
        if let Some(netns) = peer_netns {
            other.attributes.push(LinkAttribute::NetNsFd(
                std::os::fd::AsFd::as_fd(netns).as_raw_fd(),
            ));
        }
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ];
        self.add(name, index, info)
            .with_context(|| format!("make veth {name} and {peer}"))
    }

    /// Makes a bridge.
    pub fn add_bridge(&mut self, name: &str) -> Result<()> {
        self.add(name, None, vec![LinkInfo::Kind(InfoKind::Bridge)])
            .with_context(|| format!("make bridge {name}"))
    }

    fn add(&mut self, name: &str, index: Option<u32>, info: Vec<LinkInfo>) -> Result<()> {
        let mut message = named(name);
        message.header.index = index.unwrap_or(0);
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.netlink
            .change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(())
    }

    /// Removes an interface, and a veth's other end with it.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        self.netlink
            .change(RouteNetlinkMessage::DelLink(named(name)), 0)
            .with_context(|| format!("remove interface {name}"))
    }

    /// Sets an interface up.
    pub fn set_up(&mut self, name: &str) -> Result<()> {
        self.set_flags(name, LinkFlags::Up, true)
            .with_context(|| format!("set {name} up"))
    }

    /// Sets an interface down.
    pub fn set_down(&mut self, name: &str) -> Result<()> {
        self.set_flags(name, LinkFlags::Up, false)
            .with_context(|| format!("set {name} down"))
    }

    fn set_flags(&mut self, name: &str, flags: LinkFlags, on: bool) -> Result<()> {
        let mut message = named(name);
        message.header.change_mask = flags;
        if on {
            message.header.flags = flags;
        }
        self.netlink.change(RouteNetlinkMessage::SetLink(message), 0)?;
        Ok(())
    }

    /// Sets the MTU in octets.
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<()> {
        self.set(name, LinkAttribute::Mtu(mtu))
            .with_context(|| format!("set the MTU of {name} to {mtu}"))
    }

    /// Sets the hardware address.
    pub fn set_mac(&mut self, name: &str, mac: Mac) -> Result<()> {
        self.set(name, LinkAttribute::Address(mac.0.to_vec()))
            .with_context(|| format!("set the address of {name} to {mac}"))
    }

    /// Sets the alias.
    pub fn set_alias(&mut self, name: &str, alias: &str) -> Result<()> {
        self.set(name, LinkAttribute::IfAlias(alias.to_owned()))
            .with_context(|| format!("set the alias of {name}"))
    }

    /// Makes an interface a port of a bridge.
    pub fn set_master(&mut self, name: &str, bridge: &str) -> Result<()> {
        let index = self.link(bridge)?.ifindex;
        self.set(name, LinkAttribute::Controller(index))
            .with_context(|| format!("put {name} into {bridge}"))
    }

    fn set(&mut self, name: &str, attribute: LinkAttribute) -> Result<()> {
        let mut message = named(name);
        message.attributes.push(attribute);
        self.netlink.change(RouteNetlinkMessage::SetLink(message), 0)?;
        Ok(())
    }

    /// Adds an address, usable at once: IPv6 duplicate detection is skipped.
    pub fn add_address(&mut self, name: &str, address: IpNet) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = self.link(name)?.ifindex;
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        self.netlink
            .change(
                RouteNetlinkMessage::NewAddress(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .with_context(|| format!("add {address} to {name}"))
    }

    /// The addresses of an interface, sorted, without IPv6 link-local ones.
    pub fn addresses(&mut self, name: &str) -> Result<Vec<IpNet>> {
        let index = self.link(name)?.ifindex;
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut found = self.netlink.dump(&all, |message| match message {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == index => {
                read_address(&address)
            }
            _ => None,
        })?;
        found.retain(|net| !matches!(net.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local()));
        found.sort();
        Ok(found)
    }

    /// Adds or replaces a route to `prefix` through `gateway`, or on the link.
    pub fn add_route(&mut self, name: &str, prefix: IpNet, gateway: Option<IpAddr>) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(prefix.addr());
        message.header.destination_prefix_length = prefix.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        message
            .attributes
            .push(RouteAttribute::Destination(route_address(prefix.network())));
        message
            .attributes
            .push(RouteAttribute::Oif(self.link(name)?.ifindex));
        if let Some(gateway) = gateway {
            message
                .attributes
                .push(RouteAttribute::Gateway(route_address(gateway)));
        }
        self.netlink
            .change(
                RouteNetlinkMessage::NewRoute(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .with_context(|| format!("add route {prefix} through {name}"))
    }

    /// Adds or replaces a permanent neighbour entry.
    pub fn add_neighbour(&mut self, name: &str, address: IpAddr, mac: Mac) -> Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.link(name)?.ifindex;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::Destination(match address {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.netlink
            .change(
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
            .with_context(|| format!("add neighbour {address} to {name}"))
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(crate) fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn read_link(message: LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: Mac([0; 6]),
        mtu: 0,
        alias: String::new(),
        kind: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(octets) => link.mac = Mac(octets.try_into().unwrap_or_default()),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::LinkInfo(info) => {
                let kind = info.iter().find_map(|part| match part {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.kind = kind.unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

fn read_address(message: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) if local.is_none() => local = Some(*address),
            _ => {}
        }
    }
    IpNet::new(local?, message.header.prefix_len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_pair_spans_two_namespaces_and_is_configured_as_asked() {
        let (a, b) = (NetNs::new("neta").unwrap(), NetNs::new("netb").unwrap());
        let mac = Mac::numbered(7);
        let address: IpNet = "10.1.2.3/24".parse().unwrap();
        let address6: IpNet = "fd00::3/64".parse().unwrap();
        a.net(|net| {
            net.add_veth("left", "right", Some(&b))?;
            net.set_mac("left", mac)?;
            net.set_mtu("left", 1400)?;
            net.set_alias("left", "a mark")?;
            net.add_address("left", address)?;
            net.add_address("left", address6)?;
            net.set_up("left")?;
            net.add_route("left", "10.9.0.0/16".parse()?, Some("10.1.2.1".parse()?))?;
            net.add_neighbour("left", "10.1.2.1".parse()?, Mac::numbered(1))?;
            let link = net.link("left")?;
            assert_eq!((link.mac, link.mtu, link.alias.as_str()), (mac, 1400, "a mark"));
            assert_eq!((link.kind.as_str(), link.up), ("veth", true));
            assert_eq!(net.addresses("left")?, [address, address6]);
            Ok(())
        })
        .unwrap();
        assert!(b.net(|net| net.link("right")).is_ok());
        a.net(|net| net.delete("left")).unwrap();
        assert_eq!(b.net(|net| net.find("right")).unwrap(), None);
    }

    #[test]
    fn what_the_kernel_refuses_is_said_with_the_name() {
        let netns = NetNs::new("refuse").unwrap();
        let error = netns.net(|net| net.delete("absent")).unwrap_err();
        assert!(format!("{error:#}").contains("absent"), "{error:#}");
        let taken = netns.net(|net| {
            net.add_bridge("once")?;
            net.add_bridge("once")
        });
        assert!(taken.is_err());
    }
}
