//! Lets packets for an IPv6 address arrive from the moment on at which it was added.
//!
//! The kernel has an IPv4 address when it says so. An IPv6 address is entered into its table of local addresses later, by
//! a worker that waits for the lock on all interfaces, whether or not duplicates are looked for: on a busy machine that
//! is up to seconds, in which packets for the address are dropped. A local route does the same at once; the kernel's
//! own, of a better metric, is taken as soon as it is there.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use super::{PROTOCOL, socket::Request};

/// The table that the kernel asks first (`RT_TABLE_LOCAL`).
const LOCAL: u8 = 255;

/// The request that lets packets for this address in, if it takes one.
pub(super) fn begin(address: IpNet, index: u32) -> Option<Request> {
    let message = RouteNetlinkMessage::NewRoute(route(address, index)?);
    Some(Request::new(message, NLM_F_CREATE | NLM_F_REPLACE))
}

/// The request that takes that back.
pub(super) fn end(address: IpNet, index: u32) -> Option<Request> {
    let message = RouteNetlinkMessage::DelRoute(route(address, index)?);
    Some(Request::new(message, 0))
}

fn route(address: IpNet, index: u32) -> Option<RouteMessage> {
    let IpAddr::V6(v6) = address.addr() else {
        return None;
    };
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.table = LOCAL;
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Local;
    message.attributes = vec![RouteAttribute::Destination(v6.into()), RouteAttribute::Oif(index)];
    Some(message)
}
