//! Which way packets go, and the rules that decide about it.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage},
    rule::{RuleAttribute, RuleMessage},
};

use crate::{
    Net,
    net::{family, route_address},
};

/// A packet that leaves the namespace, as for `ip route get`.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery {
    /// Where it goes to.
    pub to: IpAddr,
    /// Its source, an address of the namespace; `None`: not chosen yet.
    pub from: Option<IpAddr>,
    /// Its protocol.
    pub protocol: Option<u8>,
    /// The ports that it comes from and goes to.
    pub ports: [Option<u16>; 2],
}

impl RouteQuery {
    /// A packet to an address, of which nothing else is known.
    #[must_use]
    pub const fn to(to: IpAddr) -> Self {
        Self {
            to,
            from: None,
            protocol: None,
            ports: [None, None],
        }
    }
}

/// The route that a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTaken {
    /// The table that it is in; 254 is the main one.
    pub table: u32,
    /// The gateway; `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// The interface that it leaves by.
    pub ifindex: u32,
}

/// A rule that leads to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Whether it is about IPv6.
    pub v6: bool,
    /// Lower ones come first.
    pub priority: u32,
    /// The table.
    pub table: u32,
}

impl Net {
    /// The route that a packet takes.
    pub fn route_of(&mut self, query: &RouteQuery) -> Result<RouteTaken> {
        let mut message = RouteMessage::default();
        let bits = if query.to.is_ipv4() { 32 } else { 128 };
        message.header.address_family = family(query.to);
        message.header.destination_prefix_length = bits;
        message.header.flags = RouteFlags::LookupTable;
        let address = RouteAttribute::Destination(route_address(query.to));
        message.attributes.push(address);
        if let Some(from) = query.from {
            message.header.source_prefix_length = bits;
            message
                .attributes
                .push(RouteAttribute::Source(route_address(from)));
        }
        let [src, dst] = query.ports;
        message
            .attributes
            .extend(query.protocol.map(RouteAttribute::IpProto));
        message.attributes.extend(src.map(RouteAttribute::Sport));
        message.attributes.extend(dst.map(RouteAttribute::Dport));
        let found = self.netlink.get(RouteNetlinkMessage::GetRoute(message));
        let found = found.with_context(|| format!("find the route of {query:?}"))?;
        let Some(RouteNetlinkMessage::NewRoute(route)) = found else {
            bail!("no answer about {query:?}");
        };
        let mut taken = RouteTaken {
            table: route.header.table.into(),
            gateway: None,
            ifindex: 0,
        };
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Table(table) => taken.table = table,
                RouteAttribute::Gateway(RouteAddress::Inet(via)) => taken.gateway = Some(via.into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(via)) => taken.gateway = Some(via.into()),
                RouteAttribute::Oif(index) => taken.ifindex = index,
                _ => {}
            }
        }
        Ok(taken)
    }

    /// Every rule but those that a namespace is made with.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        let all = RouteNetlinkMessage::GetRule(RuleMessage::default());
        let mut rules = self.netlink.dump(&all, |message| match message {
            RouteNetlinkMessage::NewRule(message) => Some(read(&message)),
            _ => None,
        })?;
        // `local`, `main` and `default`.
        rules.retain(|rule| !matches!(rule.table, 253..=255));
        rules.sort();
        Ok(rules)
    }
}

fn read(message: &RuleMessage) -> Rule {
    let mut rule = Rule {
        v6: message.header.family == netlink_packet_route::AddressFamily::Inet6,
        priority: 0,
        table: message.header.table.into(),
    };
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            _ => {}
        }
    }
    rule
}
