//! Control's messages → [`Desired`]: every value is checked here, so that nothing behind can hold an invalid one.
//!
//! A wire that cannot be understood is a failure of that wire alone: it is taken out of the plan and reported, and
//! the rest of the plan goes on.

mod policy;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use dataplane_common::{
    abi::{Generation, MAX_BRANCHES, MAX_RULES},
    limits::{MAX_MTU, MIN_MTU},
};
use ipnet::IpNet;
use tieline_proto::tieline::agent::v1 as proto;

use crate::desired::{
    Branch, Change, Circuit, Desired, Draining, End, Hop, IfName, InterfaceEnd, Mac, Neighbour, NetnsId,
    NetnsRef, Payload, Route, Traffic, VethEnd, Wire, WireId,
};

/// The longest connection id in bytes. Ids become parts of interface aliases and metrics.
pub(crate) const MAX_ID_LEN: usize = 128;
/// The most addresses, routes or neighbours one end may have, each.
const MAX_PER_END: usize = 1024;
/// The most passthrough functions on one circuit.
const MAX_HOPS: usize = 16;

/// A wire that control planned and this agent cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} \"{value}\": {rule}")]
pub(crate) struct InvalidWire {
    /// Id of the wire's connection, as it was sent.
    pub(crate) wire: String,
    /// Which field, by its path in the message.
    pub(crate) field: String,
    /// What it holds.
    pub(crate) value: String,
    /// What it should hold.
    pub(crate) rule: &'static str,
}

impl InvalidWire {
    /// As control reads it.
    pub(crate) fn into_proto(self) -> proto::WireFailure {
        proto::WireFailure {
            message: format!(
                "{self}; control and agent disagree about the plan: upgrade the older of the two"
            ),
            connection_id: self.wire,
            kind: proto::FailureKind::Invalid.into(),
            field: self.field,
            value: self.value,
        }
    }
}

/// A whole plan, and what of it was not valid.
#[derive(Debug)]
pub(crate) struct CheckedPlan {
    pub(crate) desired: Desired,
    pub(crate) invalid: Vec<InvalidWire>,
}

/// A change, and what of it was not valid. Wires that are not valid are among those that go: nothing is known of
/// what they should do.
#[derive(Debug)]
pub(crate) struct CheckedChange {
    pub(crate) parent: Generation,
    pub(crate) change: Change,
    pub(crate) invalid: Vec<InvalidWire>,
}

/// Checks a snapshot.
pub(crate) fn snapshot(snapshot: proto::Snapshot) -> CheckedPlan {
    let (wires, invalid) = wires(snapshot.wires);
    CheckedPlan {
        desired: Desired {
            generation: snapshot.generation,
            wires,
        },
        invalid,
    }
}

/// Checks a delta.
pub(crate) fn delta(delta: proto::Delta) -> CheckedChange {
    let (upsert, invalid) = wires(delta.upsert);
    let mut remove: BTreeSet<WireId> = delta.remove.into_iter().map(WireId).collect();
    // A wire in both lists is there after the change.
    remove.retain(|id| !upsert.contains_key(id));
    remove.extend(invalid.iter().map(|bad| WireId(bad.wire.clone())));
    CheckedChange {
        parent: delta.parent,
        change: Change {
            generation: delta.generation,
            upsert: upsert.into_values().collect(),
            remove: remove.into_iter().collect(),
        },
        invalid,
    }
}

fn wires(list: Vec<proto::Wire>) -> (BTreeMap<WireId, Wire>, Vec<InvalidWire>) {
    let mut valid = BTreeMap::new();
    let mut invalid: Vec<InvalidWire> = Vec::new();
    for message in list {
        let id = message.connection_id.clone();
        match wire(message) {
            Ok(wire) if !valid.contains_key(&wire.id) && invalid.iter().all(|bad| bad.wire != id) => {
                valid.insert(wire.id.clone(), wire);
            }
            Ok(wire) => {
                valid.remove(&wire.id);
                invalid.push(InvalidWire {
                    wire: id.clone(),
                    field: "connection_id".into(),
                    value: id,
                    rule: "must name one wire of the message only",
                });
            }
            Err(bad) => invalid.push(bad),
        }
    }
    for bad in &invalid {
        valid.remove(&WireId(bad.wire.clone()));
    }
    (valid, invalid)
}

/// Where in the message a value stands; becomes text only when something is wrong.
#[derive(Clone, Copy)]
struct At<'a> {
    wire: &'a str,
    side: &'a str,
}

impl At<'_> {
    fn invalid(self, field: &str, value: impl fmt::Display, rule: &'static str) -> InvalidWire {
        let field = if self.side.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.side)
        };
        InvalidWire {
            wire: self.wire.to_owned(),
            field,
            value: value.to_string(),
            rule,
        }
    }
}

/// Checks one wire.
pub(crate) fn wire(message: proto::Wire) -> Result<Wire, InvalidWire> {
    let id = message.connection_id;
    let at = At { wire: &id, side: "" };
    if id.is_empty() || id.len() > MAX_ID_LEN || id.contains(|c: char| c.is_control()) {
        return Err(at.invalid(
            "connection_id",
            &id,
            "must have 1 to 128 bytes and no control characters",
        ));
    }
    if !(MIN_MTU..=MAX_MTU).contains(&message.mtu) {
        return Err(at.invalid("mtu", message.mtu, "must lie between 1280 and 65535"));
    }
    let payload = match proto::Payload::try_from(message.payload) {
        Ok(proto::Payload::Ip) => Payload::Ip,
        Ok(proto::Payload::Ethernet) => Payload::Ethernet,
        Ok(proto::Payload::Unspecified) | Err(_) => {
            return Err(at.invalid(
                "payload",
                message.payload,
                "must be PAYLOAD_IP (1) or PAYLOAD_ETHERNET (2)",
            ));
        }
    };
    let client = end(At { side: "client", ..at }, message.client)?;
    let branches = branches(at, message.branches)?;
    let backup = message
        .backup
        .map(|message| circuit(at, "backup", message))
        .transpose()?;
    let draining = draining(at, branches.len(), message.draining)?;
    Ok(Wire {
        network_service: message.network_service,
        payload,
        mtu: message.mtu,
        client,
        branches,
        backup,
        draining,
        probe: message.probe,
        id: WireId(id),
    })
}

fn branches(at: At<'_>, messages: Vec<proto::WireBranch>) -> Result<Vec<Branch>, InvalidWire> {
    if messages.len() > MAX_BRANCHES {
        return Err(at.invalid("branches", messages.len(), "must be at most 8"));
    }
    let branch = |(i, message): (usize, proto::WireBranch)| {
        let field = format!("branches[{i}].circuit");
        let circuit_message = message
            .circuit
            .ok_or_else(|| at.invalid(&field, "", "must be set"))?;
        let selectors = message.traffic.iter().enumerate();
        let traffic = selectors.map(|(n, selector)| {
            let side = format!("branches[{i}].traffic[{n}]");
            traffic(At { side: &side, ..at }, selector)
        });
        Ok(Branch {
            traffic: traffic.collect::<Result<_, InvalidWire>>()?,
            weight: message.weight,
            circuit: circuit(at, &field, circuit_message)?,
        })
    };
    let branches: Vec<Branch> = messages
        .into_iter()
        .enumerate()
        .map(branch)
        .collect::<Result<_, InvalidWire>>()?;
    let is_first = |(i, branch): &(usize, &Branch)| {
        let earlier = branches.iter().take(*i);
        !earlier.into_iter().any(|other| other.traffic == branch.traffic)
    };
    let kinds = branches.iter().enumerate().filter(is_first);
    let rules: usize = kinds.map(|(_, branch)| branch.traffic.len()).sum();
    if rules > MAX_RULES {
        return Err(at.invalid("branches.traffic", rules, "must be at most 8 selectors in all"));
    }
    Ok(branches)
}

fn traffic(at: At<'_>, message: &proto::TrafficSelector) -> Result<Traffic, InvalidWire> {
    let protocol = match message.protocol.as_str() {
        "" => None,
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        "icmp" => Some(1),
        other => return Err(at.invalid("protocol", other, "must be tcp, udp, sctp, icmp or empty")),
    };
    let port = |field: &str, value: u32| {
        u16::try_from(value).map_err(|_| at.invalid(field, value, "must be at most 65535"))
    };
    let (first, last) = (
        port("port_first", message.port_first)?,
        port("port_last", message.port_last)?,
    );
    if first > last {
        return Err(at.invalid("port_first", first, "must not be above port_last"));
    }
    let prefix = match message.prefix.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| at.invalid("prefix", text, "must be a prefix"))?,
        ),
    };
    Ok(Traffic {
        protocol,
        ports: (last > 0).then_some((first, last)),
        prefix,
    })
}

fn draining(
    at: At<'_>,
    branches: usize,
    messages: Vec<proto::WireDraining>,
) -> Result<Vec<Draining>, InvalidWire> {
    if branches + messages.len() > MAX_BRANCHES {
        let rule = "must be at most 8, together with the branches";
        return Err(at.invalid("draining", messages.len(), rule));
    }
    let one = |(i, message): (usize, proto::WireDraining)| {
        let branch = usize::try_from(message.branch).unwrap_or(usize::MAX);
        if branch >= branches {
            let field = format!("draining[{i}].branch");
            return Err(at.invalid(&field, message.branch, "must be the index of a branch"));
        }
        let field = format!("draining[{i}].circuit");
        let message = message
            .circuit
            .ok_or_else(|| at.invalid(&field, "", "must be set"))?;
        Ok(Draining {
            circuit: circuit(at, &field, message)?,
            branch,
        })
    };
    messages.into_iter().enumerate().map(one).collect()
}

fn circuit(at: At<'_>, field: &str, message: proto::WireCircuit) -> Result<Circuit, InvalidWire> {
    if message.hops.len() > MAX_HOPS {
        let field = format!("{field}.hops");
        return Err(at.invalid(&field, message.hops.len(), "must be at most 16"));
    }
    let side = |name: &str, message| {
        let side = format!("{field}.{name}");
        end(At { side: &side, ..at }, message)
    };
    let hop = |(i, message): (usize, proto::WireHop)| {
        Ok(Hop {
            endpoint_name: message.endpoint_name,
            inside: side(&format!("hops[{i}].inside"), message.inside)?,
            outside: side(&format!("hops[{i}].outside"), message.outside)?,
        })
    };
    Ok(Circuit {
        hops: message
            .hops
            .into_iter()
            .enumerate()
            .map(hop)
            .collect::<Result<_, InvalidWire>>()?,
        endpoint_name: message.endpoint_name,
        endpoint: side("endpoint", message.endpoint)?,
    })
}

fn end(at: At<'_>, end: Option<proto::WireEnd>) -> Result<End, InvalidWire> {
    match end.and_then(|end| end.attachment) {
        Some(proto::wire_end::Attachment::Veth(veth)) => Ok(End::Veth(veth_end(at, veth)?)),
        Some(proto::wire_end::Attachment::Interface(interface)) => Ok(End::Interface(InterfaceEnd {
            name: if_name(at, "interface.name", &interface.name)?,
        })),
        None => Err(at.invalid("attachment", "", "must be set: a veth or an existing interface")),
    }
}

fn veth_end(at: At<'_>, end: proto::VethEnd) -> Result<VethEnd, InvalidWire> {
    let netns = end
        .netns
        .ok_or_else(|| at.invalid("veth.netns", "", "must be set"))?;
    for (field, length) in [
        ("veth.addresses", end.addresses.len()),
        ("veth.routes", end.routes.len()),
        ("veth.neighbours", end.neighbours.len()),
        ("veth.name_servers", end.name_servers.len()),
    ] {
        if length > MAX_PER_END {
            return Err(at.invalid(field, length, "must have at most 1024 entries"));
        }
    }
    Ok(VethEnd {
        netns: netns_ref(at, &netns)?,
        name: if_name(at, "veth.name", &end.name)?,
        mac: mac(at, "veth.mac", &end.mac)?,
        addresses: end
            .addresses
            .iter()
            .map(|text| address(at, text))
            .collect::<Result<_, _>>()?,
        routes: end
            .routes
            .iter()
            .map(|message| route(at, "veth.routes", message))
            .collect::<Result<_, _>>()?,
        neighbours: end
            .neighbours
            .iter()
            .map(|message| neighbour(at, message))
            .collect::<Result<_, _>>()?,
        forwards: end.forwards,
        policies: policy::policies(at, &end.policies)?,
        name_servers: end
            .name_servers
            .into_iter()
            .map(|message| policy::name_servers(at, message))
            .collect::<Result<_, _>>()?,
    })
}

fn netns_ref(at: At<'_>, message: &proto::NetworkNamespace) -> Result<NetnsRef, InvalidWire> {
    let path = PathBuf::from(&message.path);
    let plain = |path: &Path| {
        path.components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
    };
    if !path.is_absolute() || !plain(&path) || message.path.contains('\0') {
        return Err(at.invalid(
            "veth.netns.path",
            &message.path,
            "must be an absolute path without '..'",
        ));
    }
    let told = NetnsId {
        device: message.device,
        inode: message.inode,
    };
    let id = if told.inode == 0 {
        lying_at(&path).unwrap_or(told)
    } else {
        told
    };
    Ok(NetnsRef { path, id })
}

/// A namespace that an operator declared comes without identity: it is the one that lies at its path at this moment.
/// Where none does, opening it fails later and says so.
fn lying_at(path: &Path) -> Option<NetnsId> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(NetnsId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

fn if_name(at: At<'_>, field: &str, name: &str) -> Result<IfName, InvalidWire> {
    IfName::new(name).map_err(|_| {
        at.invalid(
            field,
            name,
            "must have 1 to 15 bytes, without '/', ':' or white space, and not be '.' or '..'",
        )
    })
}

fn mac(at: At<'_>, field: &str, text: &str) -> Result<Mac, InvalidWire> {
    let Some(octets) = parse_mac(text) else {
        return Err(at.invalid(field, text, "must be six octets as xx:xx:xx:xx:xx:xx"));
    };
    if octets[0] & 1 != 0 || octets == [0; 6] {
        return Err(at.invalid(field, text, "must be a unicast address that is not zero"));
    }
    Ok(Mac(octets))
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

fn address(at: At<'_>, text: &str) -> Result<IpNet, InvalidWire> {
    let net: IpNet = text
        .parse()
        .map_err(|_| at.invalid("veth.addresses", text, "must be an address with a prefix length"))?;
    if net.addr().is_unspecified() || net.addr().is_multicast() || net.addr().is_loopback() {
        return Err(at.invalid(
            "veth.addresses",
            text,
            "must be a unicast address that is not a loopback address",
        ));
    }
    Ok(net)
}

fn route(at: At<'_>, field: &str, message: &proto::Route) -> Result<Route, InvalidWire> {
    let prefix = prefix(at, &format!("{field}.prefix"), &message.prefix)?;
    let field = format!("{field}.next_hop");
    let next_hop = match message.next_hop.as_str() {
        "" => None,
        text => Some(ip(at, &field, text)?),
    };
    if next_hop.is_some_and(|hop| hop.is_ipv4() != prefix.addr().is_ipv4()) {
        let rule = "must be of the prefix's address family";
        return Err(at.invalid(&field, &message.next_hop, rule));
    }
    Ok(Route { prefix, next_hop })
}

fn prefix(at: At<'_>, field: &str, text: &str) -> Result<IpNet, InvalidWire> {
    let prefix: IpNet = text
        .parse()
        .map_err(|_| at.invalid(field, text, "must be a prefix"))?;
    if prefix.trunc() != prefix {
        return Err(at.invalid(field, text, "must have no bits beyond its length"));
    }
    Ok(prefix)
}

fn neighbour(at: At<'_>, message: &proto::Neighbour) -> Result<Neighbour, InvalidWire> {
    Ok(Neighbour {
        ip: ip(at, "veth.neighbours.ip", &message.ip)?,
        mac: mac(at, "veth.neighbours.mac", &message.mac)?,
    })
}

fn ip(at: At<'_>, field: &str, text: &str) -> Result<IpAddr, InvalidWire> {
    text.parse()
        .map_err(|_| at.invalid(field, text, "must be an IP address"))
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
