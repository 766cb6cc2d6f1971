//! `tieline.admin.v1`: objects, and how they are shown.

use tieline_proto::tieline::admin::v1 as proto;

use super::{
    labels_from, labels_to, prefixes_from,
    registry::{attachment_from, services_from},
    required, timestamp_to_proto, to_texts,
};
use crate::{
    Branch, Circuit, Connection, ConnectionState, Decision, DnsConfig, EndpointName, Invalid, Mtu,
    NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, NodeName, Object, Policy, Rebalance,
    Removed, ServiceSelector, WiringName,
    limits::{MAX_DNS_CONFIGS, MAX_PREFIXES, MAX_ROUTES},
    service::check_count,
};

impl TryFrom<proto::Object> for Object {
    type Error = Invalid;

    fn try_from(message: proto::Object) -> Result<Self, Invalid> {
        match required("object", message.object)? {
            proto::object::Object::NetworkService(service) => {
                let service = NetworkService::try_from(service).map_err(|e| e.within("network_service"))?;
                Ok(Self::NetworkService(service))
            }
            proto::object::Object::Endpoint(endpoint) => {
                let endpoint =
                    NetworkServiceEndpoint::try_from(endpoint).map_err(|e| e.within("endpoint"))?;
                Ok(Self::NetworkServiceEndpoint(endpoint))
            }
            proto::object::Object::NetworkServiceWiring(wiring) => {
                let wiring =
                    NetworkServiceWiring::try_from(wiring).map_err(|e| e.within("network_service_wiring"))?;
                Ok(Self::NetworkServiceWiring(wiring))
            }
        }
    }
}

impl From<&Object> for proto::Object {
    fn from(object: &Object) -> Self {
        let object = match object {
            Object::NetworkService(service) => proto::object::Object::NetworkService(service.into()),
            Object::NetworkServiceEndpoint(endpoint) => proto::object::Object::Endpoint(endpoint.into()),
            Object::NetworkServiceWiring(wiring) => {
                proto::object::Object::NetworkServiceWiring(wiring.into())
            }
        };
        Self { object: Some(object) }
    }
}

impl TryFrom<proto::NetworkService> for NetworkService {
    type Error = Invalid;

    fn try_from(message: proto::NetworkService) -> Result<Self, Invalid> {
        let policy = policy_from(message.policy)?;
        let rebalance = rebalance_from(message.rebalance)?;
        let prefixes = prefixes_from("prefixes", &message.prefixes, MAX_PREFIXES)?;
        let excluded = prefixes_from("excluded_prefixes", &message.excluded_prefixes, MAX_PREFIXES)?;
        let routes = prefixes_from("routes", &message.routes, MAX_ROUTES)?;
        check_count("dns", message.dns.len(), MAX_DNS_CONFIGS)?;
        let dns = message.dns.iter().enumerate();
        let dns = dns
            .map(|(i, one)| DnsConfig::parse(&format!("dns[{i}]"), &one.dns_server_ips, &one.search_domains));
        let common = labels_from("selector", message.selector)?;
        let selector = match message.ordered_selector {
            None => ServiceSelector::from(common),
            Some(list) => ServiceSelector::ordered("ordered_selector", &list.key, &list.values, &common)?,
        };
        Self::try_from(required("service", message.service)?)
            .map_err(|e| e.within("service"))?
            .with_selector(selector)
            .with_policy(policy)
            .with_rebalance(rebalance)
            .with_mtu(Mtu::parse_optional("mtu", message.mtu)?)
            .with_routes(routes)?
            .with_dns(dns.collect::<Result<_, _>>()?)?
            .with_prefixes(prefixes, excluded)
    }
}

fn policy_from(number: i32) -> Result<Policy, Invalid> {
    use proto::SelectionPolicy as Word;
    match Word::try_from(number) {
        Ok(Word::Unspecified) => Ok(Policy::default()),
        Ok(Word::RoundRobin) => Ok(Policy::RoundRobin),
        Ok(Word::LeastLoaded) => Ok(Policy::LeastLoaded),
        Ok(Word::SameNodeFirst) => Ok(Policy::SameNodeFirst),
        Err(_) => {
            let rule = "a policy is SELECTION_POLICY_ROUND_ROBIN, _LEAST_LOADED or _SAME_NODE_FIRST";
            Err(Invalid::new("policy", number.to_string(), rule))
        }
    }
}

fn rebalance_from(number: i32) -> Result<Rebalance, Invalid> {
    use proto::Rebalance as Word;
    match Word::try_from(number) {
        Ok(Word::Unspecified) => Ok(Rebalance::default()),
        Ok(Word::Keep) => Ok(Rebalance::Keep),
        Ok(Word::Rebalance) => Ok(Rebalance::Rebalance),
        Err(_) => {
            let rule = "rebalance is REBALANCE_KEEP or REBALANCE_REBALANCE";
            Err(Invalid::new("rebalance", number.to_string(), rule))
        }
    }
}

impl From<&NetworkService> for proto::NetworkService {
    fn from(service: &NetworkService) -> Self {
        let policy = match service.policy() {
            Policy::RoundRobin => proto::SelectionPolicy::RoundRobin,
            Policy::LeastLoaded => proto::SelectionPolicy::LeastLoaded,
            Policy::SameNodeFirst => proto::SelectionPolicy::SameNodeFirst,
        };
        let rebalance = match service.rebalance() {
            Rebalance::Keep => proto::Rebalance::Keep,
            Rebalance::Rebalance => proto::Rebalance::Rebalance,
        };
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let selector = service.selector();
        let ordered = |(key, values): (&str, Vec<&str>)| proto::OrderedSelector {
            key: key.to_owned(),
            values: to_texts(&values),
        };
        let dns = |one: &DnsConfig| tieline_proto::connectioncontext::DnsConfig {
            dns_server_ips: to_texts(one.servers()),
            search_domains: to_texts(one.search_domains()),
        };
        Self {
            service: Some(service.into()),
            selector: selector.common().into_iter().map(owned).collect(),
            policy: policy.into(),
            prefixes: to_texts(service.prefixes()),
            excluded_prefixes: to_texts(service.excluded_prefixes()),
            mtu: service.mtu().map(Mtu::octets).unwrap_or_default(),
            ordered_selector: selector.order().map(ordered),
            rebalance: rebalance.into(),
            routes: to_texts(service.routes()),
            dns: service.dns().iter().map(dns).collect(),
        }
    }
}

impl TryFrom<proto::NetworkServiceEndpoint> for NetworkServiceEndpoint {
    type Error = Invalid;

    fn try_from(message: proto::NetworkServiceEndpoint) -> Result<Self, Invalid> {
        let node = NodeName::parse("node", &message.node)?;
        let mut endpoint = required("endpoint", message.endpoint)?;
        let name = EndpointName::parse("endpoint.name", &endpoint.name)?;
        if endpoint.expiration_time.is_some() {
            let rule = "a declared endpoint does not expire: leave it out";
            return Err(Invalid::new("endpoint.expiration_time", "", rule));
        }
        let attachment = attachment_from("endpoint.url", &endpoint.url)?;
        let (services, plumbing) = services_from(&mut endpoint).map_err(|e| e.within("endpoint"))?;
        let attested = labels_from("labels", message.labels)?;
        let declared = Self::declared(name, services, node, attachment).map_err(|e| e.within("endpoint"))?;
        Ok(declared.with_plumbing(plumbing)?.with_attested(attested))
    }
}

/// Meant for what an operator declares: lease and owner are not in the message.
impl From<&NetworkServiceEndpoint> for proto::NetworkServiceEndpoint {
    fn from(endpoint: &NetworkServiceEndpoint) -> Self {
        let mut inner = tieline_proto::registry::NetworkServiceEndpoint::from(endpoint);
        inner.expiration_time = None;
        inner.initial_registration_time = None;
        Self {
            endpoint: Some(inner),
            node: endpoint.node().to_string(),
            labels: labels_to(endpoint.attested()),
        }
    }
}

/// An endpoint as operators see it, with how many connections lead through it, and how many left it with flows there.
#[must_use]
pub fn endpoint_status(
    endpoint: &NetworkServiceEndpoint,
    [connections, connections_draining]: [u32; 2],
) -> proto::EndpointStatus {
    proto::EndpointStatus {
        endpoint: Some(endpoint.into()),
        node: endpoint.node().to_string(),
        attachment: endpoint.attachment().to_string(),
        connections,
        declared: endpoint.is_declared(),
        labels: labels_to(endpoint.attested()),
        draining: endpoint.is_draining(),
        connections_draining,
    }
}

/// A connection as operators see it.
impl From<&Connection> for proto::ConnectionStatus {
    fn from(connection: &Connection) -> Self {
        Self {
            connection: Some(connection.into()),
            node: connection.client.node.to_string(),
            client_netns: connection.client.netns.path().to_owned(),
            client_interface: connection.client.interface.to_string(),
            expires: connection.expires.map(timestamp_to_proto),
            generation: connection.generation,
            reason: match &connection.state {
                ConnectionState::Up => String::new(),
                ConnectionState::Pending => "being set up".to_owned(),
                ConnectionState::Down { reason } => reason.clone(),
            },
            branches: connection.branches.iter().map(branch_status).collect(),
            backup: connection.backup.as_ref().map(path_texts).unwrap_or_default(),
            labels: labels_to(&connection.attested),
        }
    }
}

/// A choice as operators see it.
impl From<&Decision> for proto::Decision {
    fn from(decision: &Decision) -> Self {
        let removed = |one: &Removed| proto::RemovedEndpoint {
            endpoint: one.endpoint.to_string(),
            rule: one.by.to_string(),
        };
        let chosen = decision.chosen.as_ref();
        Self {
            behind: decision
                .behind
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            steps: to_texts(&decision.steps),
            removed: decision.removed.iter().map(removed).collect(),
            further: u32::try_from(decision.further).unwrap_or(u32::MAX),
            chosen: chosen.map(|one| one.endpoint.to_string()).unwrap_or_default(),
            plumbing: chosen.map(|one| one.plumbing.to_string()).unwrap_or_default(),
        }
    }
}

fn branch_status(branch: &Branch) -> proto::ConnectionBranch {
    let server = &branch.circuit.server;
    proto::ConnectionBranch {
        wiring: branch
            .wiring
            .as_ref()
            .map(WiringName::to_string)
            .unwrap_or_default(),
        traffic: to_texts(&branch.traffic),
        weight: branch.weight,
        path: path_texts(&branch.circuit),
        endpoint_attachment: server.attachment.to_string(),
        endpoint_interface: server.interface.to_string(),
    }
}

fn path_texts(circuit: &Circuit) -> Vec<String> {
    circuit.path().map(EndpointName::to_string).collect()
}
