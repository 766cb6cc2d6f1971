//! Other registry domains: what is registered there and known here, and what they have of this one.

use std::collections::BTreeSet;

use tieline_model::{
    Attachment, ConnectionId, EndpointName, Invalid, MachineId, NetworkService, NetworkServiceEndpoint,
    NetworkServiceWiring, NodeName, Object, ObjectKind, Owner, RegistryDomain, ServiceName, Timestamp,
    WiringName,
};

use crate::{ChangeKind, NodeGeneration, Record, Refusal, Registry, RegistryEvent, endpoints::foreign};

/// What another domain says of its objects, by their names there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// A service as it is now.
    Service(NetworkService),
    /// A wiring as it is now.
    Wiring(NetworkServiceWiring),
    /// An endpoint as it is now.
    Endpoint(NetworkServiceEndpoint),
    /// An object that is gone.
    Gone(ObjectKind, String),
}

impl Registry {
    /// Takes what `domain` says; if that is the `whole` of it, everything else of it goes. Connections follow.
    pub(crate) fn import(
        &mut self,
        now: Timestamp,
        domain: &RegistryDomain,
        offers: Vec<Offer>,
        whole: bool,
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        let mut concerned = BTreeSet::new();
        let mut offered = BTreeSet::new();
        for offer in offers {
            match offer {
                Offer::Service(service) => {
                    let service = service.in_domain(domain);
                    offered.insert((ObjectKind::NetworkService, service.name().to_string()));
                    concerned.extend(self.put_object(now, &Object::NetworkService(service)));
                }
                Offer::Wiring(wiring) => {
                    let wiring = wiring.in_domain(domain);
                    offered.insert((ObjectKind::NetworkServiceWiring, wiring.name().to_string()));
                    concerned.extend(self.put_object(now, &Object::NetworkServiceWiring(wiring)));
                }
                Offer::Endpoint(endpoint) => {
                    let endpoint = endpoint.in_domain(domain);
                    offered.insert((ObjectKind::NetworkServiceEndpoint, endpoint.name().to_string()));
                    concerned.extend(self.put_foreign(now, domain, endpoint));
                }
                Offer::Gone(kind, name) => {
                    let name = format!("{name}@{domain}");
                    concerned.extend(self.forget_foreign(kind, &name)?);
                }
            }
        }
        let known = self.objects_of(domain).into_iter();
        for (kind, name) in known.filter(|object| whole && !offered.contains(object)) {
            concerned.extend(self.forget_foreign(kind, &name)?);
        }
        self.replan(concerned.clone());
        self.renew_contexts(&concerned);
        Ok(self.plans_of(&concerned))
    }

    /// The objects of another domain that are known here.
    fn objects_of(&self, domain: &RegistryDomain) -> Vec<(ObjectKind, String)> {
        let of = Some(domain.as_str());
        let tables = &self.tables;
        let services = tables.services().keys().filter(|name| name.domain() == of);
        let services = services.map(|name| (ObjectKind::NetworkService, name.to_string()));
        let wirings = tables.wirings().keys().filter(|name| name.domain() == of);
        let wirings = wirings.map(|name| (ObjectKind::NetworkServiceWiring, name.to_string()));
        let endpoints = tables.endpoints().values();
        let endpoints = endpoints.filter(|one| one.name().domain() == of && one.is_foreign());
        let endpoints = endpoints.map(|one| (ObjectKind::NetworkServiceEndpoint, one.name().to_string()));
        // Endpoints first: their connections may still be moved.
        endpoints.chain(wirings).chain(services).collect()
    }

    /// Puts what another domain registered, there or here. What a workload of this domain registered there is known
    /// better here.
    fn put_foreign(
        &mut self,
        now: Timestamp,
        domain: &RegistryDomain,
        endpoint: NetworkServiceEndpoint,
    ) -> BTreeSet<ConnectionId> {
        let old = self.tables.endpoints().get(endpoint.name());
        if old.is_some_and(|old| !old.is_foreign()) {
            return BTreeSet::new();
        }
        let since = old.map_or(now, |old| old.registered_at());
        let endpoint = self.placed(domain, endpoint.since(since));
        if old.is_some_and(|old| **old == endpoint) {
            return BTreeSet::new();
        }
        self.put_endpoint(endpoint)
    }

    /// The endpoint at the node of this domain that is on the same machine, if there is one: of several the first by name.
    fn placed(&self, domain: &RegistryDomain, endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint {
        let here = endpoint.machine().and_then(|machine| self.node_on(machine));
        let reachable = matches!(endpoint.attachment(), Attachment::Netns(_));
        let node = match here.filter(|_| reachable) {
            Some(node) => node.clone(),
            None => endpoint.node().in_domain(domain),
        };
        endpoint.with_node(node)
    }

    fn node_on(&self, machine: &MachineId) -> Option<&NodeName> {
        let nodes = self
            .nodes
            .values()
            .filter(|node| node.machine.as_ref() == Some(machine));
        nodes.map(|node| &node.name).next()
    }

    /// The machine of a node, if that is known.
    pub(crate) fn machine_of(&self, node: &NodeName) -> Option<MachineId> {
        self.nodes.get(node).and_then(|node| node.machine.clone())
    }

    /// Takes away what another domain has no longer; a service only when nobody is connected to it.
    fn forget_foreign(&mut self, kind: ObjectKind, name: &str) -> Result<BTreeSet<ConnectionId>, Refusal> {
        match kind {
            ObjectKind::NetworkService => {
                let name = ServiceName::parse("name", name)?;
                // A domain keeps the services that it gave addresses of, unless it lost its state: who is connected stays so.
                let is_used = self.tables.by_service.of(&name).next().is_some();
                if !is_used && self.tables.services().contains_key(&name) {
                    self.delete_service(&name)?;
                }
                Ok(BTreeSet::new())
            }
            ObjectKind::NetworkServiceWiring => {
                let name = WiringName::parse("name", name)?;
                let wiring = self.tables.inventory.take_wiring(&name);
                self.touch_record(Record::Wiring, &name);
                Ok(wiring.map(|wiring| self.of_targets(&wiring)).unwrap_or_default())
            }
            ObjectKind::NetworkServiceEndpoint => {
                let name = EndpointName::parse("name", name)?;
                let known = self.tables.endpoints().get(&name);
                Ok(if known.is_some_and(|one| one.is_foreign()) {
                    self.take_endpoint(&name)
                } else {
                    BTreeSet::new()
                })
            }
        }
    }

    /// Registers an endpoint that is on a node of another domain, which keeps its lease.
    pub(crate) fn register_foreign(
        &mut self,
        now: Timestamp,
        domain: &RegistryDomain,
        endpoint: NetworkServiceEndpoint,
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        check_names("endpoint", &endpoint)?;
        let owner = Owner::Domain(domain.clone());
        let existing = self.tables.endpoints().get(endpoint.name());
        if let Some(existing) = existing.filter(|one| *one.owner() != owner) {
            return Err(foreign(existing));
        }
        self.hear_domain(now, domain);
        let concerned = self.put_foreign(now, domain, endpoint.kept_by_domain(domain));
        self.replan(concerned.clone());
        Ok(self.plans_of(&concerned))
    }

    /// A node's machine is known now, or another one.
    pub(crate) fn note_machine(&mut self, node: &NodeName) -> BTreeSet<ConnectionId> {
        let machine = self.machine_of(node);
        let mut concerned = BTreeSet::new();
        let endpoints: Vec<_> = self.tables.endpoints().values().cloned().collect();
        for endpoint in endpoints {
            if let Owner::Domain(domain) = endpoint.owner() {
                let placed = self.placed(domain, NetworkServiceEndpoint::clone(&endpoint));
                if placed != *endpoint {
                    concerned.extend(self.put_endpoint(placed));
                }
            } else if endpoint.node() == node && endpoint.machine() != machine.as_ref() {
                let here = NetworkServiceEndpoint::clone(&endpoint).with_machine(machine.clone());
                self.put_endpoint(here);
            }
        }
        concerned
    }

    /// What of this domain another one registered here.
    pub(crate) fn registered_by(&self, domain: &RegistryDomain) -> Vec<EndpointName> {
        let owner = Owner::Domain(domain.clone());
        let theirs = self.tables.endpoints().values();
        let theirs = theirs.filter(|one| *one.owner() == owner && one.name().domain().is_none());
        theirs.map(|one| one.name().clone()).collect()
    }

    /// The domains that something known here is of.
    #[must_use]
    pub fn imported_domains(&self) -> BTreeSet<RegistryDomain> {
        let tables = &self.tables;
        let services = tables.services().keys().filter_map(ServiceName::domain);
        let wirings = tables.wirings().keys().filter_map(WiringName::domain);
        let endpoints = tables.endpoints().values().filter(|one| one.is_foreign());
        let endpoints = endpoints.filter_map(|one| one.name().domain());
        let all = services.chain(wirings).chain(endpoints);
        all.filter_map(|domain| domain.parse().ok()).collect()
    }

    /// The services of `domain` that are known here.
    pub fn services_of(&self, domain: &RegistryDomain) -> impl Iterator<Item = &ServiceName> {
        let services = self.tables.services().keys();
        services.filter(move |name| name.domain() == Some(domain.as_str()))
    }

    /// The endpoints of workloads here that are registered in `domain`.
    pub fn registered_in(&self, domain: &RegistryDomain) -> impl Iterator<Item = &NetworkServiceEndpoint> {
        let ours = self.tables.endpoints().values().map(AsRef::as_ref);
        ours.filter(move |one| one.name().domain() == Some(domain.as_str()) && !one.is_foreign())
    }

    /// The connections to services of `domain`.
    pub fn connected_to(&self, domain: &RegistryDomain) -> impl Iterator<Item = &ConnectionId> {
        self.services_of(domain)
            .flat_map(|name| self.tables.by_service.of(name))
    }

    pub(crate) fn tell_wiring(&mut self, kind: ChangeKind, wiring: &std::sync::Arc<NetworkServiceWiring>) {
        self.tell(RegistryEvent::Wiring(kind, std::sync::Arc::clone(wiring)));
    }
}

/// What an operator declares and what a domain registers here is of this domain.
pub(crate) fn check_local(field: String, name: &str, domain: Option<&str>) -> Result<(), Invalid> {
    let Some(domain) = domain else { return Ok(()) };
    let rule = format!("belongs to registry domain \"{domain}\": say it to the control there");
    Err(Invalid::new(field, name, rule))
}

fn check_names(field: &str, endpoint: &NetworkServiceEndpoint) -> Result<(), Invalid> {
    check_local(
        format!("{field}.name"),
        endpoint.name().as_str(),
        endpoint.name().domain(),
    )?;
    endpoint
        .services()
        .keys()
        .enumerate()
        .try_for_each(|(i, service)| {
            let field = format!("{field}.network_service_names[{i}]");
            check_local(field, service.as_str(), service.domain())
        })
}

/// Refuses objects that are another domain's to say.
pub(crate) fn check_object(field: &str, object: &Object) -> Result<(), Invalid> {
    match object {
        Object::NetworkService(service) => check_local(
            format!("{field}.name"),
            service.name().as_str(),
            service.name().domain(),
        ),
        Object::NetworkServiceEndpoint(endpoint) => check_names(field, endpoint),
        Object::NetworkServiceWiring(wiring) => {
            check_local(
                format!("{field}.name"),
                wiring.name().as_str(),
                wiring.name().domain(),
            )?;
            let targets = wiring.target().iter().enumerate();
            targets
                .map(|(i, target)| (format!("{field}.target[{i}]"), target))
                .try_for_each(|(field, target)| check_local(field, target.as_str(), target.domain()))
        }
    }
}
