//! Everything that is set up in a namespace, as lines to compare.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
    rule::RuleMessage,
};

use crate::{Net, NetNs, netlink::Netlink};

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

impl NetNs {
    /// A line for each interface besides loopback, with everything but its index, and for each address, route,
    /// permanent neighbour and rule of the namespace. What the kernel makes by itself (local and link-local routes) is
    /// left out.
    pub fn setup(&self) -> Result<BTreeSet<String>> {
        self.run(|| {
            let (mut net, mut netlink) = (Net::here()?, Netlink::open()?);
            let mut lines = BTreeSet::new();
            let mut names = BTreeMap::new();
            for link in net.links()?.into_iter().filter(|link| link.name != "lo") {
                let name = &link.name;
                lines.insert(format!(
                    "{name} {} {} mtu {} up {} alias {:?}",
                    link.kind, link.mac, link.mtu, link.up, link.alias
                ));
                for address in net.addresses(name)? {
                    lines.insert(format!("{name} address {address}"));
                }
                names.insert(link.ifindex, link.name);
            }
            lines.extend(routes(&mut netlink, &names)?);
            lines.extend(neighbours(&mut netlink, &names)?);
            lines.extend(rules(&mut netlink)?);
            Ok(lines)
        })
    }
}

fn name(names: &BTreeMap<u32, String>, index: u32) -> &str {
    names.get(&index).map_or("-", String::as_str)
}

fn routes(netlink: &mut Netlink, names: &BTreeMap<u32, String>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in FAMILIES {
        let mut all = RouteMessage::default();
        all.header.address_family = family;
        let found = netlink.dump(&RouteNetlinkMessage::GetRoute(all), |message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })?;
        lines.extend(found.iter().filter_map(|route| route_line(route, names)));
    }
    Ok(lines)
}

fn route_line(route: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<String> {
    let header = &route.header;
    if header.protocol == RouteProtocol::Kernel {
        return None;
    }
    let (mut interface, mut destination, mut rest) = ("-", String::from("default"), BTreeSet::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = name(names, *index),
            RouteAttribute::Destination(address) => destination = shown(address),
            RouteAttribute::CacheInfo(_) | RouteAttribute::Preference(_) => {}
            other => {
                rest.insert(format!("{other:?}"));
            }
        }
    }
    Some(format!(
        "{interface} route {destination}/{} {:?} {:?} {:?} {rest:?}",
        header.destination_prefix_length, header.protocol, header.scope, header.kind
    ))
}

fn shown(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(v4) => v4.to_string(),
        RouteAddress::Inet6(v6) => v6.to_string(),
        other => format!("{other:?}"),
    }
}

fn neighbours(netlink: &mut Netlink, names: &BTreeMap<u32, String>) -> Result<Vec<String>> {
    let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    netlink.dump(&all, |message| match message {
        RouteNetlinkMessage::NewNeighbour(neighbour)
            if neighbour.header.state == NeighbourState::Permanent =>
        {
            let told = neighbour.attributes.iter().filter(|attribute| {
                matches!(
                    attribute,
                    NeighbourAttribute::Destination(_) | NeighbourAttribute::LinkLayerAddress(_)
                )
            });
            let told: Vec<_> = told.collect();
            let interface = name(names, neighbour.header.ifindex);
            Some(format!("{interface} neighbour {told:?}"))
        }
        _ => None,
    })
}

fn rules(netlink: &mut Netlink) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in FAMILIES {
        let mut all = RuleMessage::default();
        all.header.family = family;
        lines.extend(
            netlink.dump(&RouteNetlinkMessage::GetRule(all), |message| match message {
                RouteNetlinkMessage::NewRule(rule) => {
                    Some(format!("rule {family:?} {:?} {:?}", rule.header, rule.attributes))
                }
                _ => None,
            })?,
        );
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;

    #[test]
    fn what_is_set_up_is_told_and_a_second_look_says_the_same() {
        let netns = NetNs::new("setup").unwrap();
        let empty = netns.setup().unwrap();
        assert!(empty.iter().all(|line| line.starts_with("rule ")), "{empty:?}");
        netns
            .net(|net| {
                net.add_bridge("one")?;
                net.add_address("one", "10.0.0.1/32".parse()?)?;
                net.set_up("one")?;
                net.add_route("one", "10.9.0.0/16".parse()?, None)?;
                net.add_neighbour("one", "10.9.0.1".parse()?, Mac::numbered(1))
            })
            .unwrap();
        let setup = netns.setup().unwrap();
        let new: Vec<_> = setup.difference(&empty).collect();
        for words in [
            "one bridge",
            "one address 10.0.0.1/32",
            "one route 10.9.0.0/16",
            "one neighbour",
        ] {
            assert!(new.iter().any(|line| line.starts_with(words)), "{words}: {new:?}");
        }
        assert_eq!(netns.setup().unwrap(), setup);
        netns.net(|net| net.delete("one")).unwrap();
        assert_eq!(netns.setup().unwrap(), empty);
    }
}
