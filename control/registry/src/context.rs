//! What a connection brings to its client beside addresses: routes, prefixes and name servers.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use tieline_model::{
    Connection, ConnectionId, ConnectionRequest, Context, ContextRequest, DnsConfig, Invalid, NetworkService,
    Route, Workload,
};

use crate::{
    Refusal, Registry,
    ipam::{Proposal, Wanted},
};

const FIELD_SRC_ROUTES: &str = "connection.context.ip_context.src_routes";
const FIELD_EXTRA_REQUEST: &str = "connection.context.ip_context.extra_prefix_request";
const FIELD_DNS: &str = "connection.context.dns_context.configs";

/// For whom a context is made.
#[derive(Clone, Copy)]
pub(crate) struct For<'a> {
    pub(crate) caller: &'a Workload,
    pub(crate) service: &'a NetworkService,
    pub(crate) request: &'a ConnectionRequest,
    /// The addresses that a new connection gets.
    pub(crate) proposal: &'a Proposal,
    /// The connection that is there already.
    pub(crate) has: Option<&'a Connection>,
}

impl Registry {
    /// The context that a request is granted.
    pub(crate) fn context(&self, of: For<'_>) -> Result<Context, Refusal> {
        let ContextRequest {
            policies,
            extra_prefixes,
            extra_requests,
            dns,
            applies_dns,
        } = &of.request.context;
        let nothing = Context::default();
        let has = of.has.map_or(&nothing, |connection| &connection.context);
        check_dns(dns, of.service, has)?;
        let others: Vec<&Connection> = self.others(of.caller, &of.request.id).collect();
        check_routes(&of.request.src_routes, &others)?;
        if let (Some(domain), false) = (of.service.name().domain(), extra_requests.is_empty()) {
            let rule = format!("registry domain \"{domain}\" gives addresses, but no prefixes: leave it out");
            return Err(Invalid::new(FIELD_EXTRA_REQUEST, "", rule).into());
        }
        let wanted = Wanted {
            service: of.service.name().as_str(),
            prefixes: self.prefixes_of(of.service),
            excluded: self.excluded(of.caller, of.service, of.request),
            asked: [&[], &[]],
        };
        let known = [has.extra_prefixes.as_slice(), extra_prefixes];
        let addresses = &self.tables.addresses;
        Ok(Context {
            policies: policies.clone(),
            extra_prefixes: addresses.propose_extra(&wanted, extra_requests, known, of.proposal)?,
            extra_requests: extra_requests.clone(),
            service_routes: service_routes(of.service, &others),
            dns: of.service.dns().to_vec(),
            applies_dns: *applies_dns,
        })
    }

    /// The other connections of a client.
    fn others<'a>(&'a self, caller: &Workload, id: &ConnectionId) -> impl Iterator<Item = &'a Connection> {
        let ids: Vec<&ConnectionId> = self.tables.of_clients_in(&caller.node, &caller.netns).collect();
        let id = id.clone();
        let others = ids.into_iter().filter(move |other| **other != id);
        others.filter_map(|other| self.tables.connections.get(other).map(AsRef::as_ref))
    }

    /// What no address of a client's connection may lie in.
    pub(crate) fn excluded(
        &self,
        caller: &Workload,
        service: &NetworkService,
        request: &ConnectionRequest,
    ) -> Vec<IpNet> {
        let named = service.excluded_prefixes().iter();
        let named = named
            .chain(&request.excluded_prefixes)
            .chain(&self.config.excluded_prefixes);
        named
            .copied()
            .chain(self.led_to_by_others(caller, &request.id))
            .collect()
    }

    /// Where a client's other wires lead. A default route leads to what nothing else does.
    pub(crate) fn led_to_by_others(
        &self,
        caller: &Workload,
        id: &ConnectionId,
    ) -> impl Iterator<Item = IpNet> {
        let others = self.others(caller, id);
        let led = others.flat_map(|other| reached(other).chain(other.context.extra_prefixes.iter().copied()));
        led.filter(|prefix| prefix.prefix_len() > 0)
    }

    /// Gives connections what their service has for them now.
    pub(crate) fn renew_contexts(&mut self, ids: &BTreeSet<ConnectionId>) {
        for id in ids {
            let Some(connection) = self.tables.connections.get(id).cloned() else {
                continue;
            };
            let Some(service) = self.tables.services().get(&connection.service).cloned() else {
                continue;
            };
            let mut changed = Connection::clone(&connection);
            changed.context.dns = service.dns().to_vec();
            changed.context.service_routes = {
                let others = self.beside(&connection);
                service_routes(&service, &others)
            };
            if changed != *connection {
                self.put_moved(&connection, changed);
            }
        }
    }

    fn beside(&self, connection: &Connection) -> Vec<&Connection> {
        let client = &connection.client;
        let ids = self.tables.of_clients_in(&client.node, &client.netns);
        let others = ids.filter(|id| **id != connection.id);
        others
            .filter_map(|id| self.tables.connections.get(id).map(AsRef::as_ref))
            .collect()
    }

    /// Routes that a connection had and has no longer may be another one's of its client.
    pub(crate) fn pass_routes_on(&mut self, had: &Arc<Connection>) {
        let is_free = |prefix: &IpNet| {
            let now = self.tables.connections.get(&had.id);
            now.is_none_or(|now| reached(now).all(|other| other != *prefix))
        };
        let free: BTreeSet<IpNet> = reached(had).filter(is_free).collect();
        if free.is_empty() {
            return;
        }
        let waits = |other: &&Connection| {
            let service = self.tables.services().get(&other.service);
            service.is_some_and(|service| service.routes().iter().any(|prefix| free.contains(prefix)))
        };
        let others = self.beside(had).into_iter().filter(waits);
        let others = others.map(|other| other.id.clone()).collect();
        self.renew_contexts(&others);
    }
}

/// Where a connection's own routes of its client lead.
fn reached(connection: &Connection) -> impl Iterator<Item = IpNet> {
    let asked = connection.src_routes.iter().map(|route| route.prefix);
    asked.chain(connection.context.service_routes.iter().copied())
}

/// What a service lets a client reach and none of its `others` does: a namespace has one route to a prefix.
fn service_routes(service: &NetworkService, others: &[&Connection]) -> Vec<IpNet> {
    let is_free = |prefix: &&IpNet| {
        others
            .iter()
            .all(|other| reached(other).all(|had| had != **prefix))
    };
    service.routes().iter().filter(is_free).copied().collect()
}

/// Leaves out what the service gives by itself and an answer repeats.
pub(crate) fn without_given(routes: &mut Vec<Route>, service: &NetworkService, has: Option<&Connection>) {
    let had = has.map_or(&[][..], |connection| &connection.context.service_routes);
    routes.retain(|route| {
        let prefix = &route.prefix;
        route.next_hop.is_some() || !(service.routes().contains(prefix) || had.contains(prefix))
    });
}

fn check_routes(routes: &[Route], others: &[&Connection]) -> Result<(), Refusal> {
    for (i, route) in routes.iter().enumerate() {
        let has = |other: &&&Connection| reached(other).any(|prefix| prefix == route.prefix);
        if let Some(by) = others.iter().find(has) {
            return Err(Refusal::RouteTaken {
                field: format!("{FIELD_SRC_ROUTES}[{i}].prefix"),
                prefix: route.prefix,
                by: by.id.clone(),
            });
        }
    }
    Ok(())
}

/// The service decides about name servers; a client may repeat what it was told.
fn check_dns(asked: &[DnsConfig], service: &NetworkService, has: &Context) -> Result<(), Invalid> {
    let known = |config: &DnsConfig| service.dns().contains(config) || has.dns.contains(config);
    let Some(i) = asked.iter().position(|config| !known(config)) else {
        return Ok(());
    };
    let servers = asked.get(i).map(DnsConfig::servers).unwrap_or_default();
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let rule = format!(
        "name servers are given by NetworkService {}, which has other ones: leave them out",
        service.name()
    );
    Err(Invalid::new(
        format!("{FIELD_DNS}[{i}]"),
        servers.join(", "),
        rule,
    ))
}
