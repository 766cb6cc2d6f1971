//! Registering and forgetting endpoints.

use std::{collections::BTreeSet, sync::Arc};

use tieline_model::{
    Attachment, ConnectionId, EndpointName, EndpointRegistration, Invalid, NetworkServiceEndpoint, Owner,
    Rebalance, ServiceName, Timestamp, Workload,
};

use crate::{
    Caller, ChangeKind, Move, NodeGeneration, Record, Refusal, Registry, RegistryEvent,
    command::granted_until, foreign::check_local,
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
        check_one_domain(&registration)?;
        let existing = self.tables.endpoints().get(registration.name());
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
        let endpoint = NetworkServiceEndpoint::registered(registration, caller, since, expires)
            .with_machine(self.machine_of(&caller.node));
        let concerned = self.put_endpoint(endpoint.clone());
        self.replan(concerned);
        Ok(endpoint)
    }

    /// Removes a registration for its owner or an operator.
    pub(crate) fn unregister_endpoint(
        &mut self,
        caller: &Caller,
        name: &EndpointName,
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        match (self.tables.endpoints().get(name), caller) {
            (Some(endpoint), Caller::Workload(workload)) if !endpoint.owner().admits(workload) => {
                Err(foreign(endpoint))
            }
            _ => Ok(self.remove_endpoint(name)),
        }
    }

    /// Puts an endpoint; the connections that it may concern. One that was there stays drained if it was.
    pub(crate) fn put_endpoint(&mut self, endpoint: NetworkServiceEndpoint) -> BTreeSet<ConnectionId> {
        let old = self.tables.endpoints().get(endpoint.name()).cloned();
        let drained = old.as_ref().is_some_and(|old| old.is_draining());
        // That of another domain is drained there.
        let drained = if endpoint.is_foreign() && endpoint.name().domain().is_some() {
            endpoint.is_draining()
        } else {
            drained
        };
        let endpoint = Arc::new(endpoint.with_draining(drained));
        self.touch_record(Record::Endpoint, endpoint.name());
        self.tell(RegistryEvent::Endpoint(ChangeKind::Update, Arc::clone(&endpoint)));
        self.touch_dead(endpoint.name());
        let believed = self.is_unwatched(endpoint.name());
        self.tables.put_endpoint(Arc::clone(&endpoint));
        if believed {
            self.tables.inventory.set_dead(endpoint.name(), false);
        }
        if old.as_ref().is_some_and(|old| !old.is_where(&endpoint)) {
            self.find_again(endpoint.name());
        }
        if old
            .as_ref()
            .is_some_and(|old| old.differs_in_lease_only(&endpoint) && !believed)
        {
            return BTreeSet::new();
        }
        self.concerned(old.as_deref(), Some(&endpoint))
    }

    /// Removes an endpoint and moves its connections; the plans that they are moved with.
    pub(crate) fn remove_endpoint(&mut self, name: &EndpointName) -> Vec<NodeGeneration> {
        let concerned = self.take_endpoint(name);
        self.replan(concerned.clone());
        self.plans_of(&concerned)
    }

    /// Removes an endpoint; the connections that it concerns.
    pub(crate) fn take_endpoint(&mut self, name: &EndpointName) -> BTreeSet<ConnectionId> {
        self.touch_dead(name);
        let Some(endpoint) = self.tables.take_endpoint(name) else {
            return BTreeSet::new();
        };
        self.touch_record(Record::Endpoint, name);
        self.tell(RegistryEvent::Endpoint(ChangeKind::Delete, Arc::clone(&endpoint)));
        self.find_again(name);
        self.concerned(Some(&endpoint), None)
    }

    /// Drains an endpoint, or takes it back; the connections that are moved.
    pub(crate) fn drain(&mut self, name: &EndpointName, draining: bool) -> Result<Vec<Move>, Refusal> {
        check_local("name".to_owned(), name.as_str(), name.domain())?;
        let Some(old) = self.tables.endpoints().get(name).cloned() else {
            return Err(Refusal::UnknownEndpoint {
                name: name.to_string(),
            });
        };
        if old.is_draining() != draining {
            let endpoint = Arc::new(NetworkServiceEndpoint::clone(&old).with_draining(draining));
            self.touch_record(Record::Endpoint, name);
            self.tell(RegistryEvent::Endpoint(ChangeKind::Update, Arc::clone(&endpoint)));
            self.tables.put_endpoint(Arc::clone(&endpoint));
            let concerned = self.concerned(Some(&old), Some(&endpoint));
            self.replan(concerned);
        }
        Ok(std::mem::take(&mut self.moved))
    }

    /// Whether an endpoint is dead and no connection has an end there: then no node would tell that it answers again, and
    /// that it is registered again has to do.
    pub(crate) fn is_unwatched(&self, name: &EndpointName) -> bool {
        self.tables.inventory.is_dead(name) && self.tables.at_endpoint(name).next().is_none()
    }

    /// What is known of an endpoint's life may be forgotten with the next change of it.
    fn touch_dead(&mut self, name: &EndpointName) {
        if self.tables.inventory.is_dead(name) {
            self.touch_record(Record::Dead, name);
        }
    }

    /// The connections that a change of an endpoint from `old` to `new` may concern: those that hold an end there, those
    /// that it may help, and those whose source it tells more or less about.
    pub(crate) fn concerned(
        &self,
        old: Option<&NetworkServiceEndpoint>,
        new: Option<&NetworkServiceEndpoint>,
    ) -> BTreeSet<ConnectionId> {
        let tables = &self.tables;
        let both = || old.into_iter().chain(new);
        let mut ids: BTreeSet<&ConnectionId> = BTreeSet::new();
        for endpoint in both() {
            ids.extend(tables.at_endpoint(endpoint.name()));
            for service in endpoint.services().keys() {
                if self.is_moved_by_any_change(service) {
                    ids.extend(tables.by_service.of(service));
                }
            }
        }
        for service in new.into_iter().flat_map(|new| new.services().keys()) {
            ids.extend(tables.wanting.of(service));
            let impaired = tables.inventory.impaired_of(service);
            ids.extend(impaired.flat_map(|one| tables.at_endpoint(one.name())));
        }
        let tells = |one: &NetworkServiceEndpoint| {
            (
                one.attachment().clone(),
                one.services().keys().cloned().collect::<Vec<_>>(),
            )
        };
        if old.map(tells) != new.map(tells) {
            for endpoint in both() {
                if let Attachment::Netns(netns) = endpoint.attachment() {
                    ids.extend(tables.of_clients_in(endpoint.node(), netns));
                    let beside = tables.inventory.endpoints_at(endpoint.node(), netns);
                    ids.extend(beside.flat_map(|other| tables.by_endpoint.of(other.name())));
                }
            }
        }
        ids.into_iter().cloned().collect()
    }

    /// Whether one endpoint more or less may concern connections of a service that are not at it.
    fn is_moved_by_any_change(&self, name: &ServiceName) -> bool {
        let service = self.tables.services().get(name);
        service.is_some_and(|service| {
            service.rebalance() == Rebalance::Rebalance
                || service.matches().iter().any(|rule| rule.fallthrough)
        })
    }
}

/// An endpoint is registered in one domain, with what it offers there.
fn check_one_domain(registration: &EndpointRegistration) -> Result<(), Invalid> {
    let domain = registration.name().domain();
    let other = registration
        .services()
        .keys()
        .enumerate()
        .find(|(_, service)| service.domain() != domain);
    let Some((i, service)) = other else {
        return Ok(());
    };
    let rule = match domain {
        Some(domain) => {
            format!("the endpoint is registered in domain \"{domain}\": so is what it offers there")
        }
        None => "the endpoint is registered in this domain: register it again for another one".to_owned(),
    };
    let field = format!("endpoint.network_service_names[{i}]");
    Err(Invalid::new(field, service.as_str(), rule))
}

/// The refusal to touch somebody else's endpoint.
pub(crate) fn foreign(endpoint: &NetworkServiceEndpoint) -> Refusal {
    let owner = match endpoint.owner() {
        Owner::Operator => "an operator, who declared it".to_owned(),
        Owner::Domain(domain) => format!("registry domain {domain}"),
        Owner::Workload { node, netns, uid } => format!("user {uid} in {netns} on node {node}"),
    };
    Refusal::ForeignEndpoint {
        name: endpoint.name().to_string(),
        owner,
    }
}
