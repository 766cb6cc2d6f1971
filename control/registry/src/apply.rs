//! Objects that operators declare and delete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use tieline_model::{
    ConnectionId, EndpointName, Invalid, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring,
    Object, ObjectKind, ServiceName, Timestamp, WiringName, limits::MAX_OBJECTS,
};
use tieline_planner::{Finding, analyse_services, check_wirings};

use crate::{
    Applied, ApplyAction, ChangeKind, NodeGeneration, Outcome, Record, Refusal, Registry, RegistryEvent,
    endpoints::foreign,
    foreign::{check_local, check_object},
};

const DEFAULT_PREFIXES: &str = "the default prefixes";

impl Registry {
    /// Creates or changes objects, all or none. Then what they concern is planned at once: connections are moved from
    /// where they were to where all the objects together lead them.
    pub(crate) fn apply(
        &mut self,
        now: Timestamp,
        objects: &[Object],
        dry_run: bool,
    ) -> Result<Outcome, Refusal> {
        self.check_objects(objects)?;
        if dry_run {
            // The same is done to a copy, so that what is foreseen is what happens.
            return Ok(self.clone().carry_out(now, objects));
        }
        Ok(self.carry_out(now, objects))
    }

    fn carry_out(&mut self, now: Timestamp, objects: &[Object]) -> Outcome {
        let actions: Vec<ApplyAction> = objects.iter().map(|object| self.action(object)).collect();
        let mut concerned = BTreeSet::new();
        for object in objects {
            concerned.extend(self.put_object(now, object));
        }
        self.replan(concerned.clone());
        self.renew_contexts(&concerned);
        let analysis = self.analysis(objects);
        let results = objects.iter().zip(actions).map(|(object, action)| Applied {
            kind: object.kind(),
            name: object.name().to_owned(),
            action,
            warnings: self.warnings(object, action, &analysis),
        });
        Outcome {
            results: results.collect(),
            moves: std::mem::take(&mut self.moved),
        }
    }

    fn check_objects(&self, objects: &[Object]) -> Result<(), Refusal> {
        if objects.len() > MAX_OBJECTS {
            let rule = format!("at most {MAX_OBJECTS} at once: apply them in parts");
            return Err(Invalid::new("objects", objects.len().to_string(), rule).into());
        }
        let mut services = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (i, object) in objects.iter().enumerate() {
            if !seen.insert((object.kind(), object.name())) {
                let rule = format!("this {} is given twice: keep one", object.kind());
                return Err(Invalid::new(format!("objects[{i}].name"), object.name(), rule).into());
            }
            check_object(&format!("objects[{i}]"), object)?;
            match object {
                Object::NetworkService(service) => drop(services.insert(service.name().clone(), service)),
                Object::NetworkServiceEndpoint(endpoint) => self.check_declared(endpoint)?,
                Object::NetworkServiceWiring(_) => {}
            }
        }
        self.check_prefixes(&services)?;
        self.check_wirings(objects)
    }

    /// Refuses wirings that together with those that are there open ways without end.
    fn check_wirings(&self, objects: &[Object]) -> Result<(), Refusal> {
        fn new(object: &Object) -> Option<&NetworkServiceWiring> {
            match object {
                Object::NetworkServiceWiring(wiring) => Some(wiring),
                _ => None,
            }
        }
        let new: BTreeMap<&WiringName, &NetworkServiceWiring> = objects
            .iter()
            .filter_map(new)
            .map(|wiring| (wiring.name(), wiring))
            .collect();
        let targets: BTreeSet<&ServiceName> = new.values().flat_map(|wiring| wiring.target()).collect();
        for target in targets {
            let kept = self.tables.inventory.wirings_of(target).map(AsRef::as_ref);
            let kept = kept.filter(|one| !new.contains_key(one.name()));
            let about = new.values().copied().filter(|one| one.target().contains(target));
            let findings = check_wirings(target, kept.chain(about).collect());
            if let Some(error) = findings.iter().find(|one| one.problem.is_error()) {
                let at = objects.iter().position(|object| {
                    object.kind() == ObjectKind::NetworkServiceWiring && object.name() == error.name
                });
                let field = at.map_or_else(|| "objects".to_owned(), |i| format!("objects[{i}]"));
                return Err(error.refusal().within(&field).into());
            }
        }
        Ok(())
    }

    fn check_declared(&self, endpoint: &NetworkServiceEndpoint) -> Result<(), Refusal> {
        match self.tables.endpoints().get(endpoint.name()) {
            Some(existing) if !existing.is_declared() => Err(foreign(existing)),
            _ => Ok(()),
        }
    }

    /// Refuses prefixes of two services that overlap without being equal, `changed` standing for those of their name.
    pub(crate) fn check_prefixes(
        &self,
        changed: &BTreeMap<ServiceName, &NetworkService>,
    ) -> Result<(), Refusal> {
        let kept = self.tables.services().values().map(AsRef::as_ref);
        // Another domain gives addresses of its own services.
        let kept =
            kept.filter(|service| service.name().domain().is_none() && !changed.contains_key(service.name()));
        let mut all: BTreeMap<IpNet, (String, String)> = BTreeMap::new();
        for (i, prefix) in self.config.default_prefixes.iter().enumerate() {
            all.insert(
                prefix.trunc(),
                (format!("default_prefixes[{i}]"), DEFAULT_PREFIXES.to_owned()),
            );
        }
        for service in kept.chain(changed.values().copied()) {
            for (i, prefix) in service.prefixes().iter().enumerate() {
                let field = format!("prefixes[{i}] of NetworkService {}", service.name());
                all.entry(prefix.trunc())
                    .or_insert_with(|| (field, format!("NetworkService {}", service.name())));
            }
        }
        // In order of network address then length, whoever overlaps overlaps the widest prefix begun before it.
        let mut widest: Option<(IpNet, String)> = None;
        for (prefix, (field, owner)) in all {
            match widest.filter(|(wide, _)| wide.contains(&prefix)) {
                Some((other, service)) => {
                    return Err(Refusal::PrefixesOverlap {
                        field,
                        prefix,
                        other,
                        service,
                    });
                }
                None => widest = Some((prefix, owner)),
            }
        }
        Ok(())
    }

    /// What applying `object` does.
    fn action(&self, object: &Object) -> ApplyAction {
        let tables = &self.tables;
        let equal = match object {
            Object::NetworkService(new) => tables.services().get(new.name()).map(|old| **old == *new),
            Object::NetworkServiceEndpoint(new) => {
                let old = tables.endpoints().get(new.name());
                old.map(|old| **old == as_declared(new, old))
            }
            Object::NetworkServiceWiring(new) => tables.wirings().get(new.name()).map(|old| **old == *new),
        };
        match equal {
            None => ApplyAction::Created,
            Some(false) => ApplyAction::Changed,
            Some(true) => ApplyAction::Unchanged,
        }
    }

    /// What there is to say about the rules that `objects` touch.
    fn analysis(&self, objects: &[Object]) -> Vec<Finding> {
        let touches = |object: &Object| match object {
            Object::NetworkService(service) => vec![service.name().clone()],
            Object::NetworkServiceWiring(wiring) => wiring.target().to_vec(),
            Object::NetworkServiceEndpoint(_) => Vec::new(),
        };
        let services: BTreeSet<ServiceName> = objects.iter().flat_map(touches).collect();
        analyse_services(&self.tables.inventory, &services)
    }

    /// What the operator should know about an object that was accepted.
    fn warnings(&self, object: &Object, action: ApplyAction, analysis: &[Finding]) -> Vec<String> {
        let mut warnings = Vec::new();
        match object {
            Object::NetworkService(service) => {
                let name = service.name();
                if self.endpoints_of_service(name) == 0 {
                    warnings.push(
                        "no endpoint offers it yet: requests are refused until one is registered".to_owned(),
                    );
                }
                let connections = self.connections_of_service(name);
                if action == ApplyAction::Changed && connections > 0 {
                    warnings.push(format!(
                        "{connections} connections keep their addresses, and take MTU and payload with their next refresh"
                    ));
                }
            }
            Object::NetworkServiceEndpoint(endpoint) => {
                let unknown = endpoint
                    .services()
                    .keys()
                    .filter(|name| !self.tables.services().contains_key(*name));
                warnings.extend(
                    unknown.map(|name| format!("NetworkService {name} is not there yet: apply it too")),
                );
                if !self.nodes.get(endpoint.node()).is_some_and(|node| node.connected) {
                    warnings.push(format!("node {} has no agent connected", endpoint.node()));
                }
            }
            Object::NetworkServiceWiring(_) => {}
        }
        let own = |one: &&Finding| one.kind == object.kind() && one.name == object.name();
        warnings.extend(analysis.iter().filter(own).map(ToString::to_string));
        let of_another = |one: &&Finding| !own(one) && one.problem.is_caused_by(object.kind(), object.name());
        warnings.extend(
            analysis
                .iter()
                .filter(of_another)
                .map(|one| format!("{} {}: {one}", one.kind, one.name)),
        );
        warnings
    }

    /// Puts an object; the connections that it may concern.
    pub(crate) fn put_object(&mut self, now: Timestamp, object: &Object) -> BTreeSet<ConnectionId> {
        let is_sign_of_life =
            matches!(object, Object::NetworkServiceEndpoint(one) if self.is_unwatched(one.name()));
        if self.action(object) == ApplyAction::Unchanged && !is_sign_of_life {
            return BTreeSet::new();
        }
        match object {
            Object::NetworkService(service) => {
                let service = Arc::new(service.clone());
                self.touch_record(Record::Service, service.name());
                self.tell(RegistryEvent::Service(ChangeKind::Update, Arc::clone(&service)));
                let concerned = self.tables.by_service.of(service.name()).cloned().collect();
                self.tables.inventory.put_service(service);
                concerned
            }
            Object::NetworkServiceEndpoint(endpoint) => {
                let old = self.tables.endpoints().get(endpoint.name());
                let since = old.map_or(now, |old| old.registered_at());
                let machine = self.machine_of(endpoint.node());
                self.put_endpoint(endpoint.clone().since(since).with_machine(machine))
            }
            Object::NetworkServiceWiring(wiring) => {
                let old = self.tables.wirings().get(wiring.name()).cloned();
                let wiring = Arc::new(wiring.clone());
                self.touch_record(Record::Wiring, wiring.name());
                self.tell_wiring(ChangeKind::Update, &wiring);
                let mut concerned = self.of_targets(&wiring);
                concerned.extend(old.into_iter().flat_map(|old| self.of_targets(&old)));
                self.tables.inventory.put_wiring(wiring);
                concerned
            }
        }
    }

    pub(crate) fn of_targets(&self, wiring: &NetworkServiceWiring) -> BTreeSet<ConnectionId> {
        let ids = wiring
            .target()
            .iter()
            .flat_map(|target| self.tables.by_service.of(target));
        ids.cloned().collect()
    }

    /// Removes an object. A service with connections stays; the connections of an endpoint are moved.
    pub(crate) fn delete(&mut self, kind: ObjectKind, name: &str) -> Result<Vec<NodeGeneration>, Refusal> {
        let domain = name.split_once('@').map(|(_, domain)| domain);
        check_local("name".to_owned(), name, domain)?;
        match kind {
            ObjectKind::NetworkService => self.delete_service(&ServiceName::parse("name", name)?),
            ObjectKind::NetworkServiceEndpoint => {
                let name = EndpointName::parse("name", name)?;
                if !self.tables.endpoints().contains_key(&name) {
                    return Err(Refusal::UnknownEndpoint {
                        name: name.to_string(),
                    });
                }
                Ok(self.remove_endpoint(&name))
            }
            ObjectKind::NetworkServiceWiring => self.delete_wiring(&WiringName::parse("name", name)?),
        }
    }

    fn delete_wiring(&mut self, name: &WiringName) -> Result<Vec<NodeGeneration>, Refusal> {
        let wiring = self.tables.inventory.take_wiring(name);
        let wiring = wiring.ok_or_else(|| Refusal::UnknownWiring {
            name: name.to_string(),
        })?;
        self.touch_record(Record::Wiring, name);
        self.tell_wiring(ChangeKind::Delete, &wiring);
        let concerned = self.of_targets(&wiring);
        self.replan(concerned.clone());
        Ok(self.plans_of(&concerned))
    }

    pub(crate) fn delete_service(&mut self, name: &ServiceName) -> Result<Vec<NodeGeneration>, Refusal> {
        let reserved = self
            .tables
            .reservations
            .values()
            .filter(|one| one.service == *name);
        let connections = self.connections_of_service(name) + reserved.count();
        if connections > 0 {
            return Err(Refusal::ServiceInUse {
                name: name.to_string(),
                connections,
            });
        }
        let unknown = || Refusal::UnknownService {
            field: "name",
            name: name.to_string(),
        };
        let service = self.tables.inventory.take_service(name).ok_or_else(unknown)?;
        self.tables.turns.remove(name);
        self.touch_record(Record::Turn, name);
        self.touch_record(Record::Service, name);
        self.tell(RegistryEvent::Service(ChangeKind::Delete, service));
        Ok(Vec::new())
    }
}

/// A declared endpoint as it is kept in place of `old`.
fn as_declared(new: &NetworkServiceEndpoint, old: &NetworkServiceEndpoint) -> NetworkServiceEndpoint {
    new.clone()
        .since(old.registered_at())
        .with_machine(old.machine().cloned())
        .with_draining(old.is_draining())
}
