//! The workload's end of a veth: addresses, routes and neighbours, read and changed in the workload's namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use super::{
    PROTOCOL, arrival,
    link::{self, LinkState},
    routing, rule,
    socket::{Netlink, Request},
};
use crate::{
    desired::{Mac, Neighbour, Policy, Route},
    observed::{Inner, Owned},
    op::InnerChange,
};

/// From this many interfaces of a namespace on, everything in it is read at once in place of each by itself.
const READ_ALL_FROM: usize = 8;

const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// Reads what is set up at an interface of this namespace, but for its policies.
pub(crate) fn read(netlink: &mut Netlink, link: &LinkState) -> io::Result<Inner> {
    let found = read_all(netlink, &[link])?.remove(&link.index);
    found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Reads what is set up at interfaces of this namespace, by index, but for their policies: those are all in one place,
/// and few interfaces have any. See [`rule::all`].
pub(crate) fn read_all(netlink: &mut Netlink, links: &[&LinkState]) -> io::Result<BTreeMap<u32, Inner>> {
    let empty = |link: &&LinkState| {
        let inner = Inner {
            mac: link.mac.unwrap_or(Mac([0; 6])),
            mtu: link.mtu,
            up: link.up,
            forwards: link.forwards,
            addresses: BTreeSet::new(),
            routes: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            policies: BTreeSet::new(),
        };
        (link.index, inner)
    };
    let mut found: BTreeMap<u32, Inner> = links.iter().map(empty).collect();
    let scopes: Vec<Option<u32>> = if links.len() < READ_ALL_FROM {
        links.iter().map(|link| Some(link.index)).collect()
    } else {
        vec![None]
    };
    for only in scopes {
        for (index, address) in addresses(netlink, only)? {
            found.get_mut(&index).map(|inner| inner.addresses.insert(address));
        }
        for (index, route) in routes(netlink, only)? {
            found.get_mut(&index).map(|inner| inner.routes.insert(route));
        }
        for (index, neighbour) in neighbours(netlink, only)? {
            found
                .get_mut(&index)
                .map(|inner| inner.neighbours.insert(neighbour));
        }
    }
    Ok(found)
}

/// Whether an answer is about an interface that was asked for: kernels may send more than that.
fn wanted(only: Option<u32>, index: u32) -> bool {
    only.is_none_or(|only| only == index)
}

fn addresses(netlink: &mut Netlink, only: Option<u32>) -> io::Result<Vec<(u32, Owned<IpNet>)>> {
    let mut query = AddressMessage::default();
    query.header.index = only.unwrap_or(0);
    netlink.dump(&RouteNetlinkMessage::GetAddress(query), |message| match message {
        RouteNetlinkMessage::NewAddress(message) if wanted(only, message.header.index) => {
            Some((message.header.index, address(&message)?))
        }
        _ => None,
    })
}

fn address(message: &AddressMessage) -> Option<Owned<IpNet>> {
    let (mut address, mut local, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Protocol(AddressProtocol::Other(protocol)) => ours = *protocol == PROTOCOL,
            _ => {}
        }
    }
    let value = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Owned { value, ours })
}

fn routes(netlink: &mut Netlink, only: Option<u32>) -> io::Result<Vec<(u32, Owned<Route>)>> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        query.header.table = RouteHeader::RT_TABLE_MAIN;
        query.attributes.extend(only.map(RouteAttribute::Oif));
        all.extend(
            netlink.dump(&RouteNetlinkMessage::GetRoute(query), |message| match message {
                RouteNetlinkMessage::NewRoute(message) if table(&message) == MAIN => {
                    route(&message).filter(|(index, _)| wanted(only, *index))
                }
                _ => None,
            })?,
        );
    }
    Ok(all)
}

/// The table that a route is in.
pub(super) fn table(message: &RouteMessage) -> u32 {
    let wide = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(number) => Some(*number),
        _ => None,
    });
    wide.unwrap_or(u32::from(message.header.table))
}

/// A route and the interface that it leads through.
pub(super) fn route(message: &RouteMessage) -> Option<(u32, Owned<Route>)> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    if header.protocol == RouteProtocol::Kernel {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut destination, mut next_hop, mut out) = (any, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(to)?,
            RouteAttribute::Gateway(via) => next_hop = ip(via),
            RouteAttribute::Oif(oif) => out = Some(*oif),
            _ => {}
        }
    }
    let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
    let ours = header.protocol == RouteProtocol::Other(PROTOCOL);
    let value = Route { prefix, next_hop };
    Some((out?, Owned { value, ours }))
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn neighbours(netlink: &mut Netlink, only: Option<u32>) -> io::Result<Vec<(u32, Owned<Neighbour>)>> {
    let mut query = NeighbourMessage::default();
    query.attributes.extend(only.map(NeighbourAttribute::IfIndex));
    netlink.dump(
        &RouteNetlinkMessage::GetNeighbour(query),
        |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) if wanted(only, message.header.ifindex) => {
                Some((message.header.ifindex, neighbour(&message)?))
            }
            _ => None,
        },
    )
}

fn neighbour(message: &NeighbourMessage) -> Option<Owned<Neighbour>> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            NeighbourAttribute::Protocol(protocol) => ours = *protocol == RouteProtocol::Other(PROTOCOL),
            _ => {}
        }
    }
    Some(Owned {
        value: Neighbour {
            ip: address?,
            mac: mac?,
        },
        ours,
    })
}

/// What one request of a change is about, for the error message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Link,
    AutomaticAddresses,
    Removal,
    Address(IpNet),
    Route(Route),
    Neighbour(Neighbour),
    Policy(Policy),
}

/// The requests for a change at the interface with this index, in order.
pub(crate) fn requests(change: &InnerChange, index: u32) -> Vec<(About, Request)> {
    let mut requests = Vec::new();
    if change.mtu.is_some() {
        // Before it is up: then the first would be there.
        requests.push((About::AutomaticAddresses, link::no_automatic_addresses(index)));
    }
    if change.mac.is_some() || change.mtu.is_some() {
        requests.push((About::Link, link::change(index, change.mac, change.mtu)));
    }
    if change.forward {
        requests.push((About::Link, routing::forward(index)));
    }
    for (number, policy) in &change.remove_policies {
        let removals = rule::removal(policy, index, *number);
        requests.extend(removals.map(|request| (About::Removal, request)));
    }
    let removals = change
        .remove_neighbours
        .iter()
        .map(|ip| del_neighbour(*ip, index));
    let removals = removals.chain(change.remove_routes.iter().map(|route| del_route(route, index)));
    let removals = removals.chain(
        change
            .remove_addresses
            .iter()
            .map(|address| del_address(*address, index)),
    );
    let arrivals = change.remove_addresses.iter();
    let removals = removals.chain(arrivals.filter_map(|address| arrival::end(*address, index)));
    requests.extend(removals.map(|request| (About::Removal, request)));
    for address in &change.add_addresses {
        requests.push((About::Address(*address), add_address(*address, index)));
        let arrival = arrival::begin(*address, index);
        requests.extend(arrival.map(|request| (About::Address(*address), request)));
    }
    // A neighbour before the routes: a gateway may be reached through it alone.
    let neighbours = change.add_neighbours.iter();
    requests.extend(neighbours.map(|entry| (About::Neighbour(entry.clone()), add_neighbour(entry, index))));
    let routes = change.add_routes.iter();
    requests.extend(routes.map(|route| (About::Route(route.clone()), add_route(route, index))));
    for (number, policy) in &change.add_policies {
        let additions = rule::addition(policy, index, *number);
        requests.extend(additions.map(|request| (About::Policy(policy.clone()), request)));
    }
    requests
}

fn address_message(address: IpNet, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes.extend([
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ]);
    message
}

fn add_address(address: IpNet, index: u32) -> Request {
    let mut message = address_message(address, index);
    message
        .attributes
        .push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    if address.addr().is_ipv6() {
        // The address is planned to be unique; waiting for duplicates would delay the first packet by a second.
        message.header.flags = AddressHeaderFlags::Nodad;
        let mut flags = AddressFlags::Nodad;
        // A route to the address itself leads nowhere, and every interface that goes makes the kernel walk all of them.
        flags.set(
            AddressFlags::Noprefixroute,
            address.prefix_len() == address.max_prefix_len(),
        );
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    Request::new(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn del_address(address: IpNet, index: u32) -> Request {
    Request::new(
        RouteNetlinkMessage::DelAddress(address_message(address, index)),
        0,
    )
}

pub(super) fn route_message(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.prefix.addr());
    message.header.destination_prefix_length = route.prefix.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match route.next_hop {
        None if route.prefix.addr().is_ipv4() => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message
        .attributes
        .push(RouteAttribute::Destination(route.prefix.network().into()));
    message.attributes.push(RouteAttribute::Oif(index));
    message
        .attributes
        .extend(route.next_hop.map(|via| RouteAttribute::Gateway(via.into())));
    message
}

fn add_route(route: &Route, index: u32) -> Request {
    let message = RouteNetlinkMessage::NewRoute(route_message(route, index));
    Request::new(message, NLM_F_CREATE | NLM_F_EXCL)
}

fn del_route(route: &Route, index: u32) -> Request {
    Request::new(RouteNetlinkMessage::DelRoute(route_message(route, index)), 0)
}

fn neighbour_message(address: IpAddr, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    let address = match address {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

fn add_neighbour(entry: &Neighbour, index: u32) -> Request {
    let mut message = neighbour_message(entry.ip, index);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(entry.mac.0.to_vec()));
    message
        .attributes
        .push(NeighbourAttribute::Protocol(RouteProtocol::Other(PROTOCOL)));
    Request::new(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn del_neighbour(address: IpAddr, index: u32) -> Request {
    Request::new(
        RouteNetlinkMessage::DelNeighbour(neighbour_message(address, index)),
        0,
    )
}

pub(super) const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
