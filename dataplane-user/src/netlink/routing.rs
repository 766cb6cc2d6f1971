//! Routing through an interface: what of the kernel's settings per interface a gateway needs, and routes that count for
//! packets of one circuit alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{AfSpecInet, AfSpecUnspec, LinkAttribute},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::{
    PROTOCOL, inner, link,
    socket::{Netlink, Request},
};
use crate::desired::{IfName, Route, Rule};

/// `IFLA_INET_CONF` of linux/if_link.h.
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_*` of linux/ip.h, and the value that each shall have: packets are routed, not sent back with advice,
/// and may come in where their source would not be routed to.
const GATEWAY: [(u16, u32); 3] = [(1, 1), (6, 0), (8, 0)];

/// Turns routing of IPv4 on for packets that come in at this interface, and for no other.
///
/// The crate's own attribute leaves out settings that are 0, so the nested ones are put together here.
pub(super) fn forward(index: u32) -> Request {
    let mut settings = Vec::new();
    for (number, value) in GATEWAY {
        let setting = DefaultNla::new(number, value.to_ne_bytes().to_vec());
        let at = settings.len();
        settings.resize(at + setting.buffer_len(), 0);
        setting.emit(&mut settings[at..]);
    }
    let settings = AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, settings));
    let mut message = link::indexed(index);
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
            settings,
        ])]));
    Request::new(RouteNetlinkMessage::SetLink(message), 0)
}

/// Whether an interface is set up as [`forward`] does.
pub(super) fn forwards(families: &[AfSpecUnspec]) -> bool {
    let settings = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet(settings) => settings.iter().find_map(|setting| match setting {
            AfSpecInet::DevConf(conf) => Some(conf),
            _ => None,
        }),
        _ => None,
    });
    settings.is_some_and(|conf| conf.forwarding == 1 && conf.send_redirects == 0 && conf.rp_filter == 0)
}

/// The routes of each interface for packets that came in at another one are in a table of its own.
const TABLES: u32 = 0x7400_0000;
/// Before the rule for the main table (32766), after the one for local addresses (0).
const PRIORITY: u32 = 0x7400;
/// Tables that are asked about whether their interface is still there. More than these are other circuits', which were
/// not looked at this time.
const MAX_ASKED: usize = 64;

const fn table_of(index: u32) -> u32 {
    TABLES.wrapping_add(index)
}

/// The transit routes through an interface.
pub(super) fn transit(netlink: &mut Netlink, index: u32) -> io::Result<BTreeSet<Route>> {
    let mut all = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        query.attributes.push(RouteAttribute::Table(table_of(index)));
        let routes = netlink.dump(&RouteNetlinkMessage::GetRoute(query), |message| match message {
            RouteNetlinkMessage::NewRoute(message) if table(&message) == table_of(index) => {
                inner::route(&message).filter(|(out, route)| *out == index && route.ours)
            }
            _ => None,
        });
        match routes {
            Ok(routes) => all.extend(routes.into_iter().map(|(_, route)| route.value)),
            // A table without routes does not exist.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn table(message: &RouteMessage) -> u32 {
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or_else(|| message.header.table.into())
}

/// Our rules of this namespace, by the interface that they lead to; those that are left over are everybody's.
pub(super) fn rules(netlink: &mut Netlink, indexes: &[u32]) -> io::Result<BTreeMap<u32, BTreeSet<Rule>>> {
    let all = netlink.dump(
        &RouteNetlinkMessage::GetRule(RuleMessage::default()),
        |message| match message {
            RouteNetlinkMessage::NewRule(message) => our_rule(&message),
            _ => None,
        },
    )?;
    let unknown: BTreeSet<u32> = all
        .iter()
        .map(|(index, _)| *index)
        .filter(|index| !indexes.contains(index))
        .collect();
    let gone = if unknown.len() <= MAX_ASKED {
        link::missing(netlink, &unknown)?
    } else {
        BTreeSet::new()
    };
    let mut by_index: BTreeMap<u32, BTreeSet<Rule>> = BTreeMap::new();
    for (index, rule) in all {
        if gone.contains(&index) {
            let stray = Some(table_of(index));
            for index in indexes {
                let rule = Rule {
                    stray,
                    ..rule.clone()
                };
                by_index.entry(*index).or_default().insert(rule);
            }
        } else {
            by_index.entry(index).or_default().insert(rule);
        }
    }
    Ok(by_index)
}

/// A rule of ours, and the interface whose table it leads to.
fn our_rule(message: &RuleMessage) -> Option<(u32, Rule)> {
    let (mut from, mut table, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Iifname(name) => from = IfName::new(name).ok(),
            RuleAttribute::Table(number) => table = Some(*number),
            RuleAttribute::Protocol(protocol) => ours = *protocol == RouteProtocol::Other(PROTOCOL),
            _ => {}
        }
    }
    let rule = Rule {
        from: from.filter(|_| ours)?,
        ipv6: message.header.family == AddressFamily::Inet6,
        stray: None,
    };
    Some((table?.wrapping_sub(TABLES), rule))
}

fn rule_message(rule: &Rule, table: Option<u32>) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = if rule.ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.action = RuleAction::ToTable;
    message.attributes.extend([
        RuleAttribute::Iifname(rule.from.to_string()),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ]);
    message.attributes.extend(table.map(RuleAttribute::Table));
    message
}

pub(super) fn add_rule(rule: &Rule, index: u32) -> Request {
    let message = rule_message(rule, Some(table_of(index)));
    Request::new(RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Without a table, the rule from that interface goes whichever table it leads to.
pub(super) fn del_rule(rule: &Rule) -> Request {
    Request::new(RouteNetlinkMessage::DelRule(rule_message(rule, rule.stray)), 0)
}

/// Moves a route request to the interface's own table.
pub(super) fn in_own_table(mut request: Request, index: u32) -> Request {
    if let RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) =
        &mut request.message
    {
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RouteAttribute::Table(table_of(index)));
    }
    request
}
