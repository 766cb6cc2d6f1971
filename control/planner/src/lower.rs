//! From a connection to the wire that its node makes.

use std::net::IpAddr;

use ipnet::IpNet;
use tieline_model::{
    Attachment, Circuit, Connection, EndPolicy, HopEnd, HopSide, IfName, MacAddr, Neighbour, NetnsRef,
    NodeWire, Payload, Plumbing, Route, Side, VethEnd, WireBranch, WireCircuit, WireDraining, WireEnd,
    WireHop, derive_mac,
};

/// The wire that the client's node makes of `connection`. Every end is on that node: [`crate::select()`] takes no other.
///
/// The client and the terminating endpoint get their addresses as single hosts, an on-link route to each address of
/// the other end, and the further routes of their side. Of a gateway, the inside gets the endpoint's routes and the
/// outside the client's, and both route: the further ones for packets that came in at the gateway's other end alone,
/// because other connections through it may have the same. Of a transparent function, neither has anything but a
/// hardware address.
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
    let draining = |draining: &tieline_model::Branch| {
        Some(WireDraining {
            circuit: lowering.circuit(&draining.circuit),
            branch: draining.successor(&connection.branches)?,
        })
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
        probe: !connection.branches.is_empty(),
        draining: connection.draining.iter().filter_map(draining).collect(),
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
        let context = &connection.context;
        WireEnd::Veth(VethEnd {
            addresses: hosts(&client.addresses),
            policies: self.policies(),
            name_servers: if context.applies_dns {
                context.dns.clone()
            } else {
                Vec::new()
            },
            neighbours: self.far_neighbours(connection.far_mac().is_some()),
            ..veth(
                &client.netns,
                &client.interface,
                client.mac,
                [self.direct(Side::Client), self.further(Side::Client)].concat(),
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
                ..veth(
                    netns,
                    &server.interface,
                    mac,
                    [self.direct(Side::Endpoint), self.further(Side::Endpoint)].concat(),
                )
            }),
            _ => WireEnd::Interface(server.interface.clone()),
        }
    }

    fn hop(&self, circuit: &Circuit, index: usize, hop: &HopSide) -> WireHop {
        let routed = hop.plumbing == Plumbing::Gateway;
        let end = |end: &HopEnd, other: &HopEnd, side, neighbours| {
            let bare = veth(&hop.netns, &end.interface, end.mac, Vec::new());
            if !routed {
                return WireEnd::Veth(bare);
            }
            WireEnd::Veth(VethEnd {
                routes: self.direct(side),
                neighbours,
                forwards: true,
                policies: self.transit(side, &other.interface),
                ..bare
            })
        };
        let behind = circuit.answers_behind(index + 1);
        WireHop {
            endpoint_name: hop.endpoint.clone(),
            inside: end(
                &hop.inside,
                &hop.outside,
                Side::Endpoint,
                self.client_neighbours(),
            ),
            outside: end(
                &hop.outside,
                &hop.inside,
                Side::Client,
                self.far_neighbours(behind),
            ),
        }
    }

    /// The routes of an end on `side` to the other end's addresses, which no other connection has.
    fn direct(&self, side: Side) -> Vec<Route> {
        let peers = match side {
            Side::Client => &self.connection.server_addresses,
            Side::Endpoint => &self.connection.client.addresses,
        };
        peers.iter().map(|ip| Route::to_host(*ip)).collect()
    }

    /// The further routes of an end on `side`.
    fn further(&self, side: Side) -> Vec<Route> {
        let connection = self.connection;
        let context = &connection.context;
        let (asked, given) = match side {
            Side::Client => (&connection.src_routes, &context.service_routes),
            Side::Endpoint => (&connection.dst_routes, &context.extra_prefixes),
        };
        let on_link = |prefix: &IpNet| Route {
            prefix: *prefix,
            next_hop: None,
        };
        let given = given.iter().map(on_link);
        let mut routes: Vec<Route> = Vec::new();
        for route in asked.iter().cloned().chain(given) {
            if routes.iter().all(|other| other.prefix != route.prefix) {
                routes.push(self.by_way(side, &route));
            }
        }
        routes
    }

    /// A route of an end on `side`. On a wire for IP, one that says nothing else leads by way of the other end's address:
    /// nobody there, and no gateway between, answers ARP for all that lies behind it.
    fn by_way(&self, side: Side, route: &Route) -> Route {
        let connection = self.connection;
        let peers = match side {
            Side::Client => &connection.server_addresses,
            Side::Endpoint => &connection.client.addresses,
        };
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == route.prefix.addr().is_ipv4();
        let peer = peers.iter().find(of_family).copied();
        let peer = peer.filter(|_| connection.payload == Payload::Ip);
        Route {
            prefix: route.prefix,
            next_hop: route.next_hop.or(peer),
        }
    }

    /// The client's policies with their routes in full.
    fn policies(&self) -> Vec<EndPolicy> {
        let connection = self.connection;
        let mut policies = connection.context.end_policies(&connection.server_addresses);
        for policy in &mut policies {
            let routes = std::mem::take(&mut policy.routes);
            policy.routes = routes
                .iter()
                .map(|route| self.by_way(Side::Client, route))
                .collect();
        }
        policies
    }

    /// Where a gateway's end on `side` leads packets that came in at `input`, its other end: wherever the circuit's outer end
    /// leads any of its packets.
    fn transit(&self, side: Side, input: &IfName) -> Vec<EndPolicy> {
        let mut routes = self.further(side);
        if side == Side::Client {
            for route in self.policies().into_iter().flat_map(|policy| policy.routes) {
                if routes.iter().all(|other| other.prefix != route.prefix) {
                    routes.push(route);
                }
            }
        }
        let (v4, v6): (Vec<Route>, Vec<Route>) = routes
            .into_iter()
            .partition(|route| route.prefix.addr().is_ipv4());
        let policy = |routes: Vec<Route>| EndPolicy {
            input: Some(input.clone()),
            routes,
            ..EndPolicy::default()
        };
        [v4, v6]
            .into_iter()
            .filter(|routes| !routes.is_empty())
            .map(policy)
            .collect()
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
        policies: Vec::new(),
        name_servers: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
