//! NSM's `networkservice`, `connection` and `connectioncontext` packages.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use tieline_proto::{connection as proto, connectioncontext as context, networkservice};

use super::{
    context as parts, labels_from, labels_to, next_hop_text, prefixes_from, timestamp_from_proto,
    timestamp_to_proto, to_texts,
};
use crate::{
    Connection, ConnectionId, ConnectionRequest, ConnectionState, EndpointName, IfName, Invalid, MacAddr,
    MonitorScope, Mtu, Payload, Route, SegmentPattern, ServiceName,
    limits::{MAX_NAME_LEN, MAX_PREFIXES, MAX_REQUESTED_ADDRESSES, MAX_ROUTES, MAX_SEGMENTS},
    net::parse_address,
    service::check_count,
};

const CLS_LOCAL: &str = "LOCAL";
const TYPE_KERNEL: &str = "KERNEL";
/// Mechanism parameter: the interface's name.
const PARAMETER_NAME: &str = "name";
/// Mechanism parameter: the network namespace.
const PARAMETER_NETNS: &str = "inodeURL";

impl TryFrom<networkservice::NetworkServiceRequest> for ConnectionRequest {
    type Error = Invalid;

    fn try_from(message: networkservice::NetworkServiceRequest) -> Result<Self, Invalid> {
        let connection = super::required("connection", message.connection)?;
        let preferred = preferred_interface(&message.mechanism_preferences)?;
        let mut request = request_from(connection).map_err(|e| e.within("connection"))?;
        request.interface = request.interface.or(preferred);
        Ok(request)
    }
}

fn is_provided(mechanism: &proto::Mechanism) -> bool {
    mechanism.cls == CLS_LOCAL && mechanism.r#type == TYPE_KERNEL
}

/// The interface name of the first mechanism that is provided.
fn preferred_interface(preferences: &[proto::Mechanism]) -> Result<Option<IfName>, Invalid> {
    check_count("mechanism_preferences", preferences.len(), MAX_SEGMENTS)?;
    let Some((i, mechanism)) = preferences.iter().enumerate().find(|(_, one)| is_provided(one)) else {
        return match preferences.first() {
            Some(first) => Err(unsupported_mechanism("mechanism_preferences[0]", first)),
            None => Ok(None),
        };
    };
    interface_of(&format!("mechanism_preferences[{i}]"), mechanism)
}

fn unsupported_mechanism(field: &str, mechanism: &proto::Mechanism) -> Invalid {
    let value = format!("{}/{}", mechanism.cls, mechanism.r#type);
    Invalid::new(
        field,
        value,
        "only cls \"LOCAL\" with type \"KERNEL\" is provided: ask for it, or leave it out",
    )
}

fn interface_of(field: &str, mechanism: &proto::Mechanism) -> Result<Option<IfName>, Invalid> {
    let name = mechanism
        .parameters
        .get(PARAMETER_NAME)
        .filter(|name| !name.is_empty());
    name.map(|name| IfName::parse(&format!("{field}.parameters[{PARAMETER_NAME}]"), name))
        .transpose()
}

fn request_from(message: proto::Connection) -> Result<ConnectionRequest, Invalid> {
    let id = ConnectionId::parse("id", &message.id)?;
    let service = ServiceName::parse("network_service", &message.network_service)?;
    let mut request = ConnectionRequest::new(id, service);
    if let Some(mechanism) = &message.mechanism {
        if !is_provided(mechanism) {
            return Err(unsupported_mechanism("mechanism", mechanism));
        }
        request.interface = interface_of("mechanism", mechanism)?;
    }
    let named = &message.network_service_endpoint_name;
    if !named.is_empty() {
        request.endpoint = Some(EndpointName::parse("network_service_endpoint_name", named)?);
    }
    if !message.payload.is_empty() {
        request.payload = Some(Payload::parse("payload", &message.payload)?);
    }
    request.labels = labels_from("labels", message.labels)?;
    if let Some(path) = message.path {
        read_path(&mut request, path)?;
    }
    if let Some(context) = message.context {
        read_context(&mut request, context).map_err(|e| e.within("context"))?;
    }
    Ok(request)
}

/// The client's own hop is the first one: its name and the expiry that it asks for.
fn read_path(request: &mut ConnectionRequest, path: proto::Path) -> Result<(), Invalid> {
    check_count("path.path_segments", path.path_segments.len(), MAX_SEGMENTS)?;
    let Some(client) = path.path_segments.into_iter().next() else {
        return Ok(());
    };
    if client.name.len() > MAX_NAME_LEN || client.name.chars().any(char::is_control) {
        let rule = format!("a client's name has at most {MAX_NAME_LEN} printable characters");
        return Err(Invalid::new("path.path_segments[0].name", client.name, rule));
    }
    request.client_name = client.name;
    let field = "path.path_segments[0].expires";
    request.expires = client
        .expires
        .map(|at| timestamp_from_proto(field, at))
        .transpose()?;
    Ok(())
}

fn read_context(request: &mut ConnectionRequest, message: context::ConnectionContext) -> Result<(), Invalid> {
    request.mtu = Mtu::parse_optional("MTU", message.mtu)?;
    if let Some(ethernet) = &message.ethernet_context {
        read_ethernet(request, ethernet).map_err(|e| e.within("ethernet_context"))?;
    }
    if let Some(dns) = &message.dns_context {
        request.context.dns = parts::dns_from(dns).map_err(|e| e.within("dns_context"))?;
    }
    request.context.applies_dns = parts::applies_dns(&message.extra_context)?;
    match message.ip_context {
        Some(ip) => read_ip(request, &ip).map_err(|e| e.within("ip_context")),
        None => Ok(()),
    }
}

fn read_ethernet(request: &mut ConnectionRequest, message: &context::EthernetContext) -> Result<(), Invalid> {
    if message.vlan_tag != 0 {
        let rule = "a VLAN tag is not supported yet: leave it 0; tagged frames pass as they are with payload ETHERNET";
        return Err(Invalid::new("vlan_tag", message.vlan_tag.to_string(), rule));
    }
    let mac = |field: &str, text: &str| {
        if text.is_empty() {
            Ok(None)
        } else {
            MacAddr::parse(field, text).map(Some)
        }
    };
    request.macs = [
        mac("src_mac", &message.src_mac)?,
        mac("dst_mac", &message.dst_mac)?,
    ];
    Ok(())
}

fn read_ip(request: &mut ConnectionRequest, message: &context::IpContext) -> Result<(), Invalid> {
    request.src_addresses = addresses_from("src_ip_addrs", &message.src_ip_addrs)?;
    request.dst_addresses = addresses_from("dst_ip_addrs", &message.dst_ip_addrs)?;
    request.src_routes = routes_from("src_routes", &message.src_routes, &request.dst_addresses)?;
    request.dst_routes = routes_from("dst_routes", &message.dst_routes, &request.src_addresses)?;
    request.excluded_prefixes = prefixes_from("excluded_prefixes", &message.excluded_prefixes, MAX_PREFIXES)?;
    parts::ip_from(message, &mut request.context)
}

/// Addresses of one side of a wire as a message has them, in order, at most one of each family; an error names `field`.
pub fn addresses_from(field: &str, texts: &[String]) -> Result<Vec<IpAddr>, Invalid> {
    check_count(field, texts.len(), MAX_REQUESTED_ADDRESSES)?;
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let address = parse_address(&field, text)?;
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(Invalid::new(
                field,
                text,
                "a side has at most one IPv4 and one IPv6 address",
            ));
        }
        addresses.push(address);
    }
    addresses.sort();
    Ok(addresses)
}

/// Routes less the on-link ones to the `peers`, which every wire has and an answer repeats.
fn routes_from(field: &str, messages: &[context::Route], peers: &[IpAddr]) -> Result<Vec<Route>, Invalid> {
    check_count(field, messages.len(), MAX_ROUTES)?;
    let mut routes = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        let route = Route::parse(&format!("{field}[{i}]"), &message.prefix, &message.next_hop)?;
        if !peers.iter().any(|peer| Route::to_host(*peer) == route) && !routes.contains(&route) {
            routes.push(route);
        }
    }
    Ok(routes)
}

impl From<&Connection> for proto::Connection {
    fn from(connection: &Connection) -> Self {
        let client = &connection.client;
        let parameters = HashMap::from([
            (PARAMETER_NAME.to_owned(), client.interface.to_string()),
            (
                PARAMETER_NETNS.to_owned(),
                format!("file://{}", client.netns.path()),
            ),
        ]);
        Self {
            id: connection.id.to_string(),
            network_service: connection.service.to_string(),
            mechanism: Some(proto::Mechanism {
                cls: CLS_LOCAL.to_owned(),
                r#type: TYPE_KERNEL.to_owned(),
                parameters,
            }),
            context: Some(context_to(connection)),
            labels: labels_to(&connection.labels),
            path: Some(path_to(connection)),
            network_service_endpoint_name: connection
                .endpoint()
                .map(EndpointName::to_string)
                .unwrap_or_default(),
            payload: connection.payload.to_string(),
            state: match connection.state {
                ConnectionState::Up => proto::State::Up.into(),
                ConnectionState::Pending | ConnectionState::Down { .. } => proto::State::Down.into(),
            },
        }
    }
}

fn path_to(connection: &Connection) -> proto::Path {
    let segment = |hop: &crate::PathSegment| proto::PathSegment {
        name: hop.name.clone(),
        id: hop.id.clone(),
        token: String::new(),
        expires: hop.expires.map(timestamp_to_proto),
        metrics: HashMap::new(),
    };
    proto::Path {
        index: 0,
        path_segments: connection.path.segments.iter().map(segment).collect(),
    }
}

fn context_to(connection: &Connection) -> context::ConnectionContext {
    let (client, far) = (&connection.client, &connection.server_addresses);
    let far_mac = connection.far_mac();
    let neighbours = |ips: &[IpAddr], mac: MacAddr| -> Vec<context::IpNeighbor> {
        let neighbour = |ip: &IpAddr| context::IpNeighbor {
            ip: ip.to_string(),
            hardware_address: mac.to_string(),
        };
        ips.iter().map(neighbour).collect()
    };
    let ip_neighbors = far_mac.map_or_else(Vec::new, |mac| {
        let mut all = neighbours(far, mac);
        all.extend(neighbours(&client.addresses, client.mac));
        all
    });
    let given = connection.context.service_routes.iter().map(|prefix| Route {
        prefix: *prefix,
        next_hop: None,
    });
    let mut src_routes = connection.src_routes.clone();
    src_routes.extend(given);
    let nets = |ips: &[IpAddr]| ips.iter().map(|ip| IpNet::from(*ip).to_string()).collect();
    context::ConnectionContext {
        ip_context: Some(context::IpContext {
            src_ip_addrs: nets(&client.addresses),
            dst_ip_addrs: nets(far),
            src_ip_required: true,
            dst_ip_required: true,
            src_routes: routes_to(&src_routes, far),
            dst_routes: routes_to(&connection.dst_routes, &client.addresses),
            excluded_prefixes: to_texts(&connection.excluded_prefixes),
            ip_neighbors,
            extra_prefix_request: parts::extra_to(&connection.context),
            extra_prefixes: to_texts(&connection.context.extra_prefixes),
            policies: parts::policies_to(&connection.context),
        }),
        ethernet_context: Some(context::EthernetContext {
            src_mac: client.mac.to_string(),
            dst_mac: far_mac.map(|mac| mac.to_string()).unwrap_or_default(),
            vlan_tag: 0,
        }),
        mtu: connection.mtu.octets(),
        dns_context: parts::dns_to(&connection.context),
        extra_context: parts::extra_context_to(&connection.context),
    }
}

fn routes_to(routes: &[Route], peers: &[IpAddr]) -> Vec<context::Route> {
    let to = |route: &Route| context::Route {
        prefix: route.prefix.to_string(),
        next_hop: next_hop_text(route),
    };
    peers
        .iter()
        .map(|peer| to(&Route::to_host(*peer)))
        .chain(routes.iter().map(to))
        .collect()
}

impl TryFrom<proto::MonitorScopeSelector> for MonitorScope {
    type Error = Invalid;

    fn try_from(message: proto::MonitorScopeSelector) -> Result<Self, Invalid> {
        check_count("path_segments", message.path_segments.len(), MAX_SEGMENTS)?;
        check_count(
            "network_services",
            message.network_services.len(),
            crate::limits::MAX_OBJECTS,
        )?;
        let segment = |hop: proto::PathSegment| SegmentPattern {
            name: hop.name,
            id: hop.id,
            token: hop.token,
        };
        Ok(Self {
            segments: message.path_segments.into_iter().map(segment).collect(),
            services: message.network_services,
        })
    }
}
