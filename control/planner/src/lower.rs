//! From a connection to the wire that its node makes.

use std::net::IpAddr;

use ipnet::IpNet;
use tieline_model::{
    Attachment, Circuit, Connection, HopEnd, HopSide, IfName, MacAddr, Neighbour, NetnsRef, NodeWire,
    Plumbing, Route, Side, VethEnd, WireBranch, WireCircuit, WireEnd, WireHop, derive_mac,
};

/// The wire that the client's node makes of `connection`. Every end is on that node: [`crate::select()`] takes no other.
///
/// The client and the terminating endpoint get their addresses as single hosts, an on-link route to each address of
/// the other end, and the further routes of their side. Of a gateway, the inside gets the endpoint's routes and the
/// outside the client's, and both route; of a transparent function, neither has anything but a hardware address.
/// Wherever the next hardware address comes from the connection it is a permanent neighbour, so that nothing depends
/// on ARP or neighbour discovery. Both outer ends are the same whatever lies between them.
#[must_use]
pub fn lower(connection: &Connection) -> NodeWire {
    let lowering = Lowering {
        connection,
        far_mac: derive_mac(&connection.id, Side::Endpoint),
    };
    let branch = |branch: &tieline_model::Branch| WireBranch {
        traffic: branch.traffic.clone(),
        weight: branch.weight,
        circuit: lowering.circuit(&branch.circuit),
    };
    NodeWire {
        connection: connection.id.clone(),
        service: connection.service.clone(),
        payload: connection.payload,
        mtu: connection.mtu,
        client: lowering.client(),
        branches: connection.branches.iter().map(branch).collect(),
        backup: connection
            .backup
            .as_ref()
            .map(|circuit| lowering.circuit(circuit)),
        probe: false,
    }
}

struct Lowering<'a> {
    connection: &'a Connection,
    /// The hardware address of every end that faces the client.
    far_mac: MacAddr,
}

impl Lowering<'_> {
    fn client(&self) -> WireEnd {
        let connection = self.connection;
        let client = &connection.client;
        WireEnd::Veth(VethEnd {
            addresses: hosts(&client.addresses),
            neighbours: self.far_neighbours(connection.far_mac().is_some()),
            ..veth(
                &client.netns,
                &client.interface,
                client.mac,
                self.routes(Side::Client),
            )
        })
    }

    fn circuit(&self, circuit: &Circuit) -> WireCircuit {
        let hop = |(i, hop)| self.hop(circuit, i, hop);
        WireCircuit {
            hops: circuit.hops.iter().enumerate().map(hop).collect(),
            endpoint_name: circuit.endpoint.clone(),
            endpoint: self.endpoint(circuit),
        }
    }

    fn endpoint(&self, circuit: &Circuit) -> WireEnd {
        let server = &circuit.server;
        match (&server.attachment, server.mac) {
            (Attachment::Netns(netns), Some(mac)) => WireEnd::Veth(VethEnd {
                addresses: hosts(&self.connection.server_addresses),
                neighbours: self.client_neighbours(),
                ..veth(netns, &server.interface, mac, self.routes(Side::Endpoint))
            }),
            _ => WireEnd::Interface(server.interface.clone()),
        }
    }

    fn hop(&self, circuit: &Circuit, index: usize, hop: &HopSide) -> WireHop {
        let routed = hop.plumbing == Plumbing::Gateway;
        let end = |end: &HopEnd, side, neighbours| {
            let bare = veth(&hop.netns, &end.interface, end.mac, Vec::new());
            if !routed {
                return WireEnd::Veth(bare);
            }
            WireEnd::Veth(VethEnd {
                routes: self.routes(side),
                neighbours,
                forwards: true,
                ..bare
            })
        };
        let behind = circuit.answers_behind(index + 1);
        WireHop {
            endpoint_name: hop.endpoint.clone(),
            inside: end(&hop.inside, Side::Endpoint, self.client_neighbours()),
            outside: end(&hop.outside, Side::Client, self.far_neighbours(behind)),
        }
    }

    /// The routes of an end on `side`: to the other end's addresses, and further ones.
    fn routes(&self, side: Side) -> Vec<Route> {
        let connection = self.connection;
        let (peers, further) = match side {
            Side::Client => (&connection.server_addresses, &connection.src_routes),
            Side::Endpoint => (&connection.client.addresses, &connection.dst_routes),
        };
        let direct = peers.iter().map(|ip| Route::to_host(*ip));
        direct.chain(further.iter().cloned()).collect()
    }

    fn client_neighbours(&self) -> Vec<Neighbour> {
        let client = &self.connection.client;
        neighbours(&client.addresses, client.mac)
    }

    fn far_neighbours(&self, known: bool) -> Vec<Neighbour> {
        let addresses: &[IpAddr] = if known {
            &self.connection.server_addresses
        } else {
            &[]
        };
        neighbours(addresses, self.far_mac)
    }
}

fn hosts(addresses: &[IpAddr]) -> Vec<IpNet> {
    addresses.iter().map(|ip| IpNet::from(*ip)).collect()
}

fn neighbours(addresses: &[IpAddr], mac: MacAddr) -> Vec<Neighbour> {
    addresses.iter().map(|ip| Neighbour { ip: *ip, mac }).collect()
}

/// An interface with routes, and nothing else yet.
fn veth(netns: &NetnsRef, name: &IfName, mac: MacAddr, routes: Vec<Route>) -> VethEnd {
    VethEnd {
        netns: netns.clone(),
        name: name.clone(),
        mac,
        addresses: Vec::new(),
        routes,
        neighbours: Vec::new(),
        forwards: false,
    }
}

#[cfg(test)]
mod tests;
