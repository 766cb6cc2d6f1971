//! `tieline.agent.v1`: who calls, and the wires of a node.

use ipnet::IpNet;
use tieline_proto::tieline::agent::v1 as proto;

use super::{labels_from, labels_to, next_hop_text, required, to_texts};
use crate::{
    Attachment, ConnectionId, ConnectionRequest, DnsConfig, EndPolicy, EndpointName, EndpointRegistration,
    IfName, Invalid, MacAddr, Mtu, Neighbour, NetnsId, NetnsRef, NodeName, NodeWire, Payload, Ports,
    Protocol, ProtocolNumber, Route, ServiceName, TrafficSelector, VethEnd, WireBranch, WireCircuit,
    WireDraining, WireEnd, WireHop, Workload,
    limits::{MAX_BRANCHES, MAX_HOPS, MAX_TRAFFIC},
    net::parse_prefix,
    service::check_count,
};

pub(super) fn netns_from(field: &str, message: &proto::NetworkNamespace) -> Result<NetnsRef, Invalid> {
    let id = NetnsId {
        device: message.device,
        inode: message.inode,
    };
    let id = Some(id).filter(|id| id.inode != 0);
    NetnsRef::parse(&format!("{field}.path"), &message.path, id)
}

/// Device and inode 0 stand for a namespace that was declared by path.
pub(super) fn netns_to(netns: &NetnsRef) -> proto::NetworkNamespace {
    let (device, inode) = netns.id().map_or((0, 0), |id| (id.device, id.inode));
    proto::NetworkNamespace {
        path: netns.path().to_owned(),
        device,
        inode,
    }
}

impl TryFrom<proto::Workload> for Workload {
    type Error = Invalid;

    fn try_from(message: proto::Workload) -> Result<Self, Invalid> {
        let netns = netns_from("workload.netns", &required("workload.netns", message.netns)?)?;
        if netns.id().is_none() {
            return Err(Invalid::new(
                "workload.netns.inode",
                "0",
                "a caller's namespace comes with its identity",
            ));
        }
        let workload = Self {
            node: NodeName::parse("workload.node", &message.node)?,
            uid: message.uid,
            pid: message.pid,
            netns,
            cgroup: message.cgroup,
            operator: message.operator,
            labels: labels_from("workload.labels", message.labels)?,
        };
        workload.checked()
    }
}

impl From<&Workload> for proto::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            node: workload.node.to_string(),
            uid: workload.uid,
            pid: workload.pid,
            netns: Some(netns_to(&workload.netns)),
            cgroup: workload.cgroup.clone(),
            operator: workload.operator,
            labels: labels_to(&workload.labels),
        }
    }
}

/// Whether the node keeps the lease of what is asked for, which then has no end of its own.
fn kept_by_node(keeper: i32, ends: bool) -> Result<bool, Invalid> {
    match proto::Keeper::try_from(keeper) {
        Ok(proto::Keeper::Unspecified | proto::Keeper::Client) => Ok(false),
        Ok(proto::Keeper::Node) if ends => {
            let rule = "what the node keeps has no end of its own: leave its expiry out";
            Err(Invalid::new("keeper", "KEEPER_NODE", rule))
        }
        Ok(proto::Keeper::Node) => Ok(true),
        Err(_) => Err(Invalid::new(
            "keeper",
            keeper.to_string(),
            "KEEPER_CLIENT or KEEPER_NODE",
        )),
    }
}

/// Who asks for a connection, and for what.
pub fn connection_request(
    message: proto::RequestConnectionRequest,
) -> Result<(Workload, ConnectionRequest), Invalid> {
    let workload = Workload::try_from(required("workload", message.workload)?)?;
    let mut request = ConnectionRequest::try_from(required("request", message.request)?)?;
    request.kept_by_node = kept_by_node(message.keeper, request.expires.is_some())?;
    Ok((workload, request))
}

/// The endpoint for its node's agent to watch.
#[must_use]
pub fn kept_endpoint(name: &EndpointName, attachment: &Attachment) -> proto::KeptEndpoint {
    let place = match attachment {
        Attachment::Netns(netns) => proto::kept_endpoint::Place::Netns(netns_to(netns)),
        Attachment::Interface(name) => proto::kept_endpoint::Place::Interface(name.to_string()),
    };
    proto::KeptEndpoint {
        name: name.to_string(),
        place: Some(place),
    }
}

/// Who registers, and what.
pub fn registration(
    message: proto::RegisterEndpointRequest,
) -> Result<(Workload, EndpointRegistration), Invalid> {
    let workload = Workload::try_from(required("workload", message.workload)?)?;
    let endpoint = required("endpoint", message.endpoint)?;
    let mut registration = EndpointRegistration::try_from(endpoint).map_err(|e| e.within("endpoint"))?;
    if !message.interface.is_empty() {
        let name = IfName::parse("interface", &message.interface)?;
        registration.attachment = Some(Attachment::Interface(name));
    }
    registration.kept_by_node = kept_by_node(message.keeper, registration.expires.is_some())?;
    Ok((workload, registration))
}

impl From<&NodeWire> for proto::Wire {
    fn from(wire: &NodeWire) -> Self {
        Self {
            connection_id: wire.connection.to_string(),
            network_service: wire.service.to_string(),
            payload: match wire.payload {
                Payload::Ip => proto::Payload::Ip.into(),
                Payload::Ethernet => proto::Payload::Ethernet.into(),
            },
            mtu: wire.mtu.octets(),
            client: Some(end_to(&wire.client)),
            branches: wire.branches.iter().map(branch_to).collect(),
            backup: wire.backup.as_ref().map(circuit_to),
            probe: wire.probe,
            draining: wire.draining.iter().map(draining_to).collect(),
        }
    }
}

fn branch_to(branch: &WireBranch) -> proto::WireBranch {
    proto::WireBranch {
        traffic: branch.traffic.iter().map(traffic_to).collect(),
        weight: branch.weight,
        circuit: Some(circuit_to(&branch.circuit)),
    }
}

fn draining_to(draining: &WireDraining) -> proto::WireDraining {
    proto::WireDraining {
        circuit: Some(circuit_to(&draining.circuit)),
        branch: u32::try_from(draining.branch).unwrap_or(u32::MAX),
    }
}

fn circuit_to(circuit: &WireCircuit) -> proto::WireCircuit {
    let hop = |hop: &WireHop| proto::WireHop {
        endpoint_name: hop.endpoint_name.to_string(),
        inside: Some(end_to(&hop.inside)),
        outside: Some(end_to(&hop.outside)),
    };
    proto::WireCircuit {
        hops: circuit.hops.iter().map(hop).collect(),
        endpoint_name: circuit.endpoint_name.to_string(),
        endpoint: Some(end_to(&circuit.endpoint)),
    }
}

fn traffic_to(traffic: &TrafficSelector) -> proto::TrafficSelector {
    let (first, last) = traffic
        .ports()
        .map_or((0, 0), |ports| (ports.first(), ports.last()));
    proto::TrafficSelector {
        protocol: traffic.protocol().map(|one| one.to_string()).unwrap_or_default(),
        port_first: first.into(),
        port_last: last.into(),
        prefix: traffic.prefix().map(|net| net.to_string()).unwrap_or_default(),
    }
}

fn end_to(end: &WireEnd) -> proto::WireEnd {
    use proto::wire_end::Attachment as End;
    let attachment = match end {
        WireEnd::Interface(name) => End::Interface(proto::InterfaceEnd {
            name: name.to_string(),
        }),
        WireEnd::Veth(veth) => End::Veth(proto::VethEnd {
            netns: Some(netns_to(&veth.netns)),
            name: veth.name.to_string(),
            mac: veth.mac.to_string(),
            addresses: to_texts(&veth.addresses),
            routes: routes_to(&veth.routes),
            neighbours: veth
                .neighbours
                .iter()
                .map(|neighbour| proto::Neighbour {
                    ip: neighbour.ip.to_string(),
                    mac: neighbour.mac.to_string(),
                })
                .collect(),
            forwards: veth.forwards,
            policies: veth.policies.iter().map(policy_to).collect(),
            name_servers: veth.name_servers.iter().map(name_servers_to).collect(),
        }),
    };
    proto::WireEnd {
        attachment: Some(attachment),
    }
}

impl TryFrom<proto::Wire> for NodeWire {
    type Error = Invalid;

    fn try_from(message: proto::Wire) -> Result<Self, Invalid> {
        let payload = match message.payload() {
            proto::Payload::Ip => Payload::Ip,
            proto::Payload::Ethernet => Payload::Ethernet,
            proto::Payload::Unspecified => {
                return Err(Invalid::new(
                    "payload",
                    message.payload.to_string(),
                    "PAYLOAD_IP or PAYLOAD_ETHERNET",
                ));
            }
        };
        let backup = message.backup.map(|circuit| circuit_from("backup", circuit));
        let branches = branches_from(message.branches)?;
        Ok(Self {
            connection: ConnectionId::parse("connection_id", &message.connection_id)?,
            service: ServiceName::parse("network_service", &message.network_service)?,
            payload,
            mtu: Mtu::parse("mtu", message.mtu)?,
            client: end_from("client", message.client)?,
            draining: draining_from(branches.len(), message.draining)?,
            branches,
            backup: backup.transpose()?,
            probe: message.probe,
        })
    }
}

fn branches_from(messages: Vec<proto::WireBranch>) -> Result<Vec<WireBranch>, Invalid> {
    check_count("branches", messages.len(), MAX_BRANCHES)?;
    let selectors = messages.iter().map(|branch| branch.traffic.len()).sum();
    check_count("branches.traffic", selectors, MAX_TRAFFIC)?;
    let branch = |(i, message): (usize, proto::WireBranch)| {
        let field = format!("branches[{i}]");
        let circuit = required(&format!("{field}.circuit"), message.circuit)?;
        Ok(WireBranch {
            traffic: message
                .traffic
                .iter()
                .map(|traffic| traffic_from(&format!("{field}.traffic"), traffic))
                .collect::<Result<_, _>>()?,
            weight: message.weight,
            circuit: circuit_from(&format!("{field}.circuit"), circuit)?,
        })
    };
    messages.into_iter().enumerate().map(branch).collect()
}

fn draining_from(branches: usize, messages: Vec<proto::WireDraining>) -> Result<Vec<WireDraining>, Invalid> {
    check_count("draining", branches + messages.len(), MAX_BRANCHES)?;
    let draining = |(i, message): (usize, proto::WireDraining)| {
        let field = format!("draining[{i}]");
        let branch = usize::try_from(message.branch)
            .ok()
            .filter(|branch| *branch < branches);
        let branch = branch.ok_or_else(|| {
            let rule = "the index of one of the wire's branches";
            Invalid::new(format!("{field}.branch"), message.branch.to_string(), rule)
        })?;
        let circuit = required(&format!("{field}.circuit"), message.circuit)?;
        Ok(WireDraining {
            circuit: circuit_from(&format!("{field}.circuit"), circuit)?,
            branch,
        })
    };
    messages.into_iter().enumerate().map(draining).collect()
}

fn circuit_from(field: &str, message: proto::WireCircuit) -> Result<WireCircuit, Invalid> {
    check_count(&format!("{field}.hops"), message.hops.len(), MAX_HOPS)?;
    let hop = |(i, hop): (usize, proto::WireHop)| {
        let field = format!("{field}.hops[{i}]");
        Ok(WireHop {
            endpoint_name: EndpointName::parse(&format!("{field}.endpoint_name"), &hop.endpoint_name)?,
            inside: end_from(&format!("{field}.inside"), hop.inside)?,
            outside: end_from(&format!("{field}.outside"), hop.outside)?,
        })
    };
    let name = format!("{field}.endpoint_name");
    Ok(WireCircuit {
        hops: message
            .hops
            .into_iter()
            .enumerate()
            .map(hop)
            .collect::<Result<_, Invalid>>()?,
        endpoint_name: EndpointName::parse(&name, &message.endpoint_name)?,
        endpoint: end_from(&format!("{field}.endpoint"), message.endpoint)?,
    })
}

fn traffic_from(field: &str, message: &proto::TrafficSelector) -> Result<TrafficSelector, Invalid> {
    let given = |text: &str| !text.is_empty();
    let protocol = given(&message.protocol)
        .then(|| Protocol::parse(&format!("{field}.protocol"), &message.protocol))
        .transpose()?;
    let ports = ports_from(&format!("{field}.ports"), message.port_first, message.port_last)?;
    let prefix = given(&message.prefix)
        .then(|| parse_prefix(&format!("{field}.prefix"), &message.prefix))
        .transpose()?;
    TrafficSelector::new(field, protocol, ports, prefix)
}

fn end_from(field: &str, end: Option<proto::WireEnd>) -> Result<WireEnd, Invalid> {
    use proto::wire_end::Attachment as End;
    match required(field, end.and_then(|end| end.attachment))? {
        End::Interface(end) => Ok(WireEnd::Interface(IfName::parse(
            &format!("{field}.interface.name"),
            &end.name,
        )?)),
        End::Veth(end) => veth_from(end)
            .map(WireEnd::Veth)
            .map_err(|e| e.within(&format!("{field}.veth"))),
    }
}

fn routes_to(routes: &[Route]) -> Vec<proto::Route> {
    let route = |route: &Route| proto::Route {
        prefix: route.prefix.to_string(),
        next_hop: next_hop_text(route),
    };
    routes.iter().map(route).collect()
}

fn routes_from(field: &str, messages: &[proto::Route]) -> Result<Vec<Route>, Invalid> {
    let route = |route: &proto::Route| Route::parse(field, &route.prefix, &route.next_hop);
    messages.iter().map(route).collect()
}

fn policy_to(policy: &EndPolicy) -> proto::Policy {
    let ports =
        |ports: Option<Ports>| ports.map_or((0, 0), |ports| (ports.first().into(), ports.last().into()));
    let (dst_port_first, dst_port_last) = ports(policy.dst_ports);
    let (src_port_first, src_port_last) = ports(policy.src_ports);
    proto::Policy {
        input: policy.input.as_ref().map(IfName::to_string).unwrap_or_default(),
        from: policy.from.map(|from| from.to_string()).unwrap_or_default(),
        protocol: policy.protocol.map_or(0, |protocol| protocol.number().into()),
        dst_port_first,
        dst_port_last,
        src_port_first,
        src_port_last,
        routes: routes_to(&policy.routes),
    }
}

fn policy_from(message: &proto::Policy) -> Result<EndPolicy, Invalid> {
    let given = |text: &'_ String| Some(text.clone()).filter(|text| !text.is_empty());
    let input = given(&message.input).map(|name| IfName::parse("policies.input", &name));
    let from = given(&message.from).map(|text| parse_prefix("policies.from", &text));
    let protocol = message.protocol.to_string();
    let protocol = (message.protocol != 0).then(|| ProtocolNumber::parse("policies.protocol", &protocol));
    let (dst_first, dst_last) = (message.dst_port_first, message.dst_port_last);
    let (src_first, src_last) = (message.src_port_first, message.src_port_last);
    Ok(EndPolicy {
        input: input.transpose()?,
        from: from.transpose()?,
        protocol: protocol.transpose()?,
        dst_ports: ports_from("policies.dst_port", dst_first, dst_last)?,
        src_ports: ports_from("policies.src_port", src_first, src_last)?,
        routes: routes_from("policies.routes", &message.routes)?,
    })
}

/// Both 0: any.
fn ports_from(field: &str, first: u32, last: u32) -> Result<Option<Ports>, Invalid> {
    let port = |port: u32| {
        let rule = "a port lies between 1 and 65535";
        u16::try_from(port).map_err(|_| Invalid::new(field, port.to_string(), rule))
    };
    match (first, last) {
        (0, 0) => Ok(None),
        (first, last) => Ports::new(field, port(first)?, port(last)?).map(Some),
    }
}

fn name_servers_to(config: &DnsConfig) -> proto::NameServers {
    proto::NameServers {
        addresses: to_texts(config.servers()),
        search_domains: to_texts(config.search_domains()),
    }
}

fn name_servers_from(message: &proto::NameServers) -> Result<DnsConfig, Invalid> {
    DnsConfig::parse("name_servers", &message.addresses, &message.search_domains)
}

fn veth_from(message: proto::VethEnd) -> Result<VethEnd, Invalid> {
    let address = |text: &String| {
        text.parse::<IpNet>()
            .map_err(|_| Invalid::new("addresses", text, "an address with prefix length"))
    };
    let neighbour = |one: &proto::Neighbour| {
        let ip = one
            .ip
            .parse()
            .map_err(|_| Invalid::new("neighbours.ip", &one.ip, "an address"))?;
        Ok(Neighbour {
            ip,
            mac: MacAddr::parse("neighbours.mac", &one.mac)?,
        })
    };
    Ok(VethEnd {
        netns: netns_from("netns", &required("netns", message.netns)?)?,
        name: IfName::parse("name", &message.name)?,
        mac: MacAddr::parse("mac", &message.mac)?,
        addresses: message.addresses.iter().map(address).collect::<Result<_, _>>()?,
        routes: routes_from("routes", &message.routes)?,
        neighbours: message
            .neighbours
            .iter()
            .map(neighbour)
            .collect::<Result<_, Invalid>>()?,
        forwards: message.forwards,
        policies: message
            .policies
            .iter()
            .map(policy_from)
            .collect::<Result<_, _>>()?,
        name_servers: message
            .name_servers
            .iter()
            .map(name_servers_from)
            .collect::<Result<_, _>>()?,
    })
}
