//! Registering and forgetting endpoints.

use std::{collections::BTreeSet, sync::Arc};

use tieline_model::{
    Attachment, Circuit, Connection, ConnectionId, EndpointName, EndpointRegistration, HopSide,
    NetworkServiceEndpoint, Owner, Timestamp, Workload,
};

use crate::{
    Caller, ChangeKind, NodeGeneration, Record, Refusal, Registry, RegistryEvent, command::granted_until,
};

impl Registry {
    /// Registers, refreshes or changes an endpoint with a lease.
    pub(crate) fn register_endpoint(
        &mut self,
        now: Timestamp,
        caller: &Workload,
        registration: EndpointRegistration,
    ) -> Result<NetworkServiceEndpoint, Refusal> {
        if let Some(Attachment::Interface(name)) =
            registration.attachment.as_ref().filter(|_| !caller.operator)
        {
            return Err(Refusal::NotAnOperator {
                field: "interface",
                value: name.to_string(),
            });
        }
        let existing = self.tables.endpoints.get(registration.name());
        if let Some(existing) = existing.filter(|one| one.is_declared() || !one.owner().admits(caller)) {
            return Err(foreign(existing));
        }
        // A refresh with the answer of the last registration asks for nothing new.
        let asked = registration
            .expires
            .filter(|at| existing.and_then(|one| one.expires()) != Some(*at));
        let (default, most) = (self.config.default_endpoint_lease, self.config.max_endpoint_lease);
        let until = || granted_until("endpoint.expiration_time", asked, now, default, most);
        let expires = (!registration.kept_by_node).then(until).transpose()?;
        let since = existing.map_or(now, |one| one.registered_at());
        let endpoint = NetworkServiceEndpoint::registered(registration, caller, since, expires);
        self.put_endpoint(endpoint.clone());
        Ok(endpoint)
    }

    /// Removes a registration for its owner or an operator.
    pub(crate) fn unregister_endpoint(
        &mut self,
        caller: &Caller,
        name: &EndpointName,
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        match (self.tables.endpoints.get(name), caller) {
            (Some(endpoint), Caller::Workload(workload)) if !endpoint.owner().admits(workload) => {
                Err(foreign(endpoint))
            }
            _ => Ok(self.remove_endpoint(name)),
        }
    }

    /// Puts an endpoint. Connections that it does not serve in this form are closed: it moved, or gave up a service.
    pub(crate) fn put_endpoint(&mut self, endpoint: NetworkServiceEndpoint) {
        let endpoint = Arc::new(endpoint);
        let gone: Vec<ConnectionId> = self
            .tables
            .by_endpoint
            .of(endpoint.name())
            .filter(|id| {
                let connection = self.tables.connections.get(*id);
                connection.is_some_and(|connection| !serves(&endpoint, connection))
            })
            .cloned()
            .collect();
        for id in gone {
            self.remove_connection(&id);
        }
        self.touch_record(Record::Endpoint, endpoint.name());
        self.tell(RegistryEvent::Endpoint(ChangeKind::Update, Arc::clone(&endpoint)));
        self.tables.put_endpoint(endpoint);
    }

    /// Removes an endpoint and closes its connections; the plans that their wires go with.
    pub(crate) fn remove_endpoint(&mut self, name: &EndpointName) -> Vec<NodeGeneration> {
        let Some(endpoint) = self.tables.take_endpoint(name) else {
            return Vec::new();
        };
        let ids: Vec<ConnectionId> = self.tables.by_endpoint.of(name).cloned().collect();
        let planned: BTreeSet<NodeGeneration> =
            ids.iter().filter_map(|id| self.remove_connection(id)).collect();
        self.touch_record(Record::Endpoint, name);
        self.tell(RegistryEvent::Endpoint(ChangeKind::Delete, endpoint));
        planned.into_iter().collect()
    }
}

/// Whether an endpoint, in this form, can be what it is on a connection.
fn serves(endpoint: &NetworkServiceEndpoint, connection: &Connection) -> bool {
    let in_place = |circuit: &Circuit| {
        let server = &circuit.server;
        let terminates = circuit.endpoint != *endpoint.name()
            || (server.node == *endpoint.node() && server.attachment == *endpoint.attachment());
        let attachment = |hop: &HopSide| Attachment::Netns(hop.netns.clone());
        let mut hops = circuit.hops.iter().filter(|hop| hop.endpoint == *endpoint.name());
        terminates
            && hops.all(|hop| hop.node == *endpoint.node() && attachment(hop) == *endpoint.attachment())
    };
    endpoint.services().contains_key(&connection.service) && connection.circuits().all(in_place)
}

/// The refusal to touch somebody else's endpoint.
pub(crate) fn foreign(endpoint: &NetworkServiceEndpoint) -> Refusal {
    let owner = match endpoint.owner() {
        Owner::Operator => "an operator, who declared it".to_owned(),
        Owner::Workload { node, netns, uid } => format!("user {uid} in {netns} on node {node}"),
    };
    Refusal::ForeignEndpoint {
        name: endpoint.name().to_string(),
        owner,
    }
}
