//! Policies of a workload's end: rules and the tables that they lead to, in the workload's namespace.
//!
//! A policy's table is numbered by its end's index in that namespace, so that no two ends share one and nothing has to be
//! remembered. The routes in it go with the interface. The rule does not, and would lead to an empty table: it is taken
//! away with the wire, or swept up later.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, IpProtocol, RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
    rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange},
};

use super::{
    PROTOCOL, inner, link,
    socket::{Netlink, Request},
};
use crate::desired::{IfName, Policy, PortRange, Route};

/// The tables of policies have this in their highest byte. The kernel's own and those of people are small numbers.
const TABLES: u32 = 0x7400_0000;
/// Bits of a table's number that count the policies of one end.
const COUNT_BITS: u32 = 5;
/// Bits that hold the end's index.
const INDEX_BITS: u32 = 24 - COUNT_BITS;
/// The rules' place: behind the kernel's first one, which finds local addresses, and before the one for the main table.
const PRIORITY: u32 = 0x7400;
/// Rules about packets that come in by one interface come before the others: those are of one circuit alone.
const INPUT_PRIORITY: u32 = PRIORITY - (1 << COUNT_BITS);

/// The most policies of one end.
pub(crate) const MAX_POLICIES: usize = 1 << COUNT_BITS;

/// The table of policy number `number`, below [`MAX_POLICIES`], of the end with this index. Indexes in a namespace count
/// the interfaces that were ever made in it; beyond half a million they begin anew here.
const fn table_of(index: u32, number: u8) -> u32 {
    TABLES | key(index) << COUNT_BITS | number as u32
}

/// What of an index is in the tables' numbers.
pub(crate) const fn key(index: u32) -> u32 {
    index & ((1 << INDEX_BITS) - 1)
}

/// The end's index and the policy's number of a table of ours.
fn owner_of(table: u32) -> Option<(u32, u8)> {
    let number = u8::try_from(table & ((1 << COUNT_BITS) - 1)).ok()?;
    (table & 0xff00_0000 == TABLES).then_some(((table & 0x00ff_ffff) >> COUNT_BITS, number))
}

/// The policies in this namespace, by the [`key`] of their end, with their numbers. Those of ends that are gone are among
/// them.
pub(crate) fn all(netlink: &mut Netlink) -> io::Result<BTreeMap<u32, BTreeSet<(u8, Policy)>>> {
    let mut found: BTreeMap<u32, BTreeSet<(u8, Policy)>> = BTreeMap::new();
    for (table, mut policy) in rules(netlink)? {
        let Some((index, number)) = owner_of(table) else {
            continue;
        };
        policy.routes = routes(netlink, table, policy.v6)?;
        found.entry(index).or_default().insert((number, policy));
    }
    Ok(found)
}

/// The rules of ours and their tables.
fn rules(netlink: &mut Netlink) -> io::Result<Vec<(u32, Policy)>> {
    let query = RouteNetlinkMessage::GetRule(RuleMessage::default());
    netlink.dump(&query, |message| match message {
        RouteNetlinkMessage::NewRule(message) => read(&message),
        _ => None,
    })
}

/// A rule of ours and its table; the routes are not in it.
fn read(message: &RuleMessage) -> Option<(u32, Policy)> {
    let mut policy = Policy {
        v6: message.header.family == AddressFamily::Inet6,
        ..Policy::default()
    };
    let (mut table, mut ours) = (u32::from(message.header.table), false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Protocol(protocol) => ours = *protocol == RouteProtocol::Other(PROTOCOL),
            RuleAttribute::Iifname(name) => policy.input = IfName::new(name).ok(),
            RuleAttribute::Source(ip) => policy.from = IpNet::new(*ip, message.header.src_len).ok(),
            RuleAttribute::IpProtocol(protocol) => policy.protocol = Some(u8::from(*protocol)),
            RuleAttribute::SourcePortRange(ports) => policy.src_ports = Some(range(*ports)),
            RuleAttribute::DestinationPortRange(ports) => policy.dst_ports = Some(range(*ports)),
            _ => {}
        }
    }
    ours.then_some((table, policy))
}

const fn range(ports: RulePortRange) -> PortRange {
    (ports.start, ports.end)
}

fn routes(netlink: &mut Netlink, table: u32, v6: bool) -> io::Result<Vec<Route>> {
    let mut query = RouteMessage::default();
    query.header.address_family = family(v6);
    query.header.table = RouteHeader::RT_TABLE_UNSPEC;
    query.attributes.push(RouteAttribute::Table(table));
    let found = netlink.dump(&RouteNetlinkMessage::GetRoute(query), |message| match message {
        RouteNetlinkMessage::NewRoute(message) if inner::table(&message) == table => {
            inner::route(&message).map(|(_, found)| found.value)
        }
        _ => None,
    });
    let mut routes = match found {
        // A table without routes is none.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Vec::new(),
        found => found?,
    };
    routes.sort();
    Ok(routes)
}

const fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

fn message(policy: &Policy, table: u32, number: u8) -> RuleMessage {
    let place = policy.input.as_ref().map_or(PRIORITY, |_| INPUT_PRIORITY);
    let mut message = RuleMessage::default();
    message.header.family = family(policy.v6);
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Table(table),
        RuleAttribute::Priority(place + u32::from(number)),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ]);
    if let Some(from) = policy.from {
        message.header.src_len = from.prefix_len();
        message.attributes.push(RuleAttribute::Source(from.network()));
    }
    let input = policy
        .input
        .as_ref()
        .map(|name| RuleAttribute::Iifname(name.to_string()));
    let protocol = policy
        .protocol
        .map(|number| RuleAttribute::IpProtocol(IpProtocol::from(number)));
    let ports = |(start, end)| RulePortRange { start, end };
    let src = policy
        .src_ports
        .map(|range| RuleAttribute::SourcePortRange(ports(range)));
    let dst = policy
        .dst_ports
        .map(|range| RuleAttribute::DestinationPortRange(ports(range)));
    message
        .attributes
        .extend([input, protocol, src, dst].into_iter().flatten());
    message
}

/// Everything of policy number `number` of the end with this index: the routes first, so that no packet comes to an empty
/// table.
pub(super) fn addition(policy: &Policy, index: u32, number: u8) -> impl Iterator<Item = Request> {
    let table = table_of(index, number);
    let routes = policy.routes.iter().map(move |route| {
        let message = RouteNetlinkMessage::NewRoute(route_in(table, route, index));
        Request::new(message, NLM_F_CREATE | NLM_F_REPLACE)
    });
    let rule = RouteNetlinkMessage::NewRule(message(policy, table, number));
    routes.chain([Request::new(rule, NLM_F_CREATE | NLM_F_EXCL)])
}

/// Takes all that away.
pub(super) fn removal(policy: &Policy, index: u32, number: u8) -> impl Iterator<Item = Request> {
    let table = table_of(index, number);
    let routes = policy.routes.iter().map(move |route| {
        let message = RouteNetlinkMessage::DelRoute(route_in(table, route, index));
        Request::new(message, 0)
    });
    std::iter::once(without(policy, table, number)).chain(routes)
}

fn without(policy: &Policy, table: u32, number: u8) -> Request {
    Request::new(RouteNetlinkMessage::DelRule(message(policy, table, number)), 0)
}

fn route_in(table: u32, route: &Route, index: u32) -> RouteMessage {
    let mut message = inner::route_message(route, index);
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.attributes.push(RouteAttribute::Table(table));
    message
}

/// Policies in this namespace whose interface is not there any more: who takes a wire away with its namespace out of
/// reach leaves them.
pub(crate) fn strays(netlink: &mut Netlink) -> io::Result<Vec<(u32, u8, Policy)>> {
    let rules = rules(netlink)?;
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let present: BTreeSet<u32> = link::all(netlink, |_| true)?
        .iter()
        .map(|link| key(link.index))
        .collect();
    let is_stray = |(table, policy)| {
        let (index, number) = owner_of(table)?;
        (!present.contains(&index)).then_some((index, number, policy))
    };
    Ok(rules.into_iter().filter_map(is_stray).collect())
}

/// Takes the policies of interfaces away that are gone, whose routes went with them.
pub(crate) fn sweep(netlink: &mut Netlink) -> io::Result<()> {
    let strays = strays(netlink)?;
    let removals = strays
        .iter()
        .map(|(index, number, policy)| without(policy, table_of(*index, *number), *number));
    for answer in netlink.batch(removals.collect())? {
        match answer {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_whose_it_is() {
        for (index, number) in [(1, 0), (2, 31), ((1 << INDEX_BITS) - 1, 7)] {
            assert_eq!(owner_of(table_of(index, number)), Some((index, number)));
        }
        for foreign in [0, 100, 254, 255, 0x7500_0000] {
            assert_eq!(owner_of(foreign), None);
        }
    }
}
