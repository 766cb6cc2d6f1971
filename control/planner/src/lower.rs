//! From a connection to the wire that its node makes.

use std::net::IpAddr;

use ipnet::IpNet;
use tieline_model::{
    Attachment, Connection, ConnectionId, IfName, MacAddr, Neighbour, NodeWire, Route, VethEnd, WireEnd,
};

/// An end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The client's.
    Client,
    /// The endpoint's.
    Endpoint,
}

/// The hardware address of one end: a function of the connection alone, so that moving the other end never shows.
/// Locally administered and unicast (IEEE 802 §8.2); the ends of one wire always differ.
#[must_use]
pub fn derive_mac(id: &ConnectionId, side: Side) -> MacAddr {
    let [_, _, mut first, b, c, d, e, last] = mix(fnv1a(id.as_str().as_bytes())).to_be_bytes();
    first = (first & 0xfc) | 0x02;
    let last = match side {
        Side::Client => last & 0xfe,
        Side::Endpoint => last | 0x01,
    };
    MacAddr([first, b, c, d, e, last])
}

/// FNV-1a, 64 bit (<http://www.isthe.com/chongo/tech/comp/fnv/>): fixed for ever, unlike the standard hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64: spreads the low bits, where FNV is good, over all.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The wire that the client's node makes of `connection`. Both ends are on that node: [`crate::select()`] takes no other.
///
/// Each end gets its addresses as single hosts, an on-link route to each address of the other end, and the further
/// routes of its side. When both ends are made by the agent, each also gets the other's hardware address as permanent
/// neighbour, so that nothing depends on ARP or neighbour discovery.
#[must_use]
pub fn lower(connection: &Connection) -> NodeWire {
    let (client, server) = (&connection.client, &connection.server);
    let (at_client, at_server) = connection.neighbours();
    let veth = |netns,
                name: &IfName,
                mac,
                own: &[IpAddr],
                peers: &[IpAddr],
                further: &[Route],
                neighbours: Vec<Neighbour>| {
        WireEnd::Veth(VethEnd {
            netns,
            name: name.clone(),
            mac,
            addresses: own.iter().map(|ip| IpNet::from(*ip)).collect(),
            routes: peers
                .iter()
                .map(|ip| Route::to_host(*ip))
                .chain(further.iter().cloned())
                .collect(),
            neighbours,
        })
    };
    let endpoint = match (&server.attachment, server.mac) {
        (Attachment::Netns(netns), Some(mac)) => veth(
            netns.clone(),
            &server.interface,
            mac,
            &server.addresses,
            &client.addresses,
            &connection.dst_routes,
            at_server,
        ),
        _ => WireEnd::Interface(server.interface.clone()),
    };
    NodeWire {
        connection: connection.id.clone(),
        service: connection.service.clone(),
        endpoint_name: connection.endpoint.clone(),
        payload: connection.payload,
        mtu: connection.mtu,
        client: veth(
            client.netns.clone(),
            &client.interface,
            client.mac,
            &client.addresses,
            &server.addresses,
            &connection.src_routes,
            at_client,
        ),
        endpoint,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hardware_addresses_are_local_unicast_and_differ_by_side_and_connection() {
        let mut seen = BTreeSet::new();
        for i in 0..20_000 {
            let id: ConnectionId = format!("nsc-{i}").parse().unwrap();
            for side in [Side::Client, Side::Endpoint] {
                let mac = derive_mac(&id, side);
                assert_eq!(mac.0[0] & 0x03, 0x02, "{mac}");
                assert!(seen.insert(mac), "{mac} twice");
            }
        }
    }

    #[test]
    fn a_hardware_address_is_the_same_in_every_release() {
        let id: ConnectionId = "nsc-1".parse().unwrap();
        assert_eq!(derive_mac(&id, Side::Client).to_string(), "da:38:13:2f:0e:1e");
    }
}
