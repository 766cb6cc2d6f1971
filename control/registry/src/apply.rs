//! Objects that operators declare and delete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use tieline_model::{
    EndpointName, Invalid, NetworkService, NetworkServiceEndpoint, Object, ObjectKind, ServiceName,
    Timestamp, limits::MAX_OBJECTS,
};

use crate::{
    Applied, ApplyAction, ChangeKind, NodeGeneration, Record, Refusal, Registry, RegistryEvent,
    endpoints::foreign,
};

const DEFAULT_PREFIXES: &str = "the default prefixes";

impl Registry {
    /// Creates or changes objects, all or none.
    pub(crate) fn apply(
        &mut self,
        now: Timestamp,
        objects: Vec<Object>,
        dry_run: bool,
    ) -> Result<Vec<Applied>, Refusal> {
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
            match object {
                Object::NetworkService(service) => drop(services.insert(service.name().clone(), service)),
                Object::NetworkServiceEndpoint(endpoint) => self.check_declared(endpoint)?,
                Object::NetworkServiceWiring(_) => {
                    let rule = "wirings are not carried out yet: leave it out";
                    return Err(
                        Invalid::new(format!("objects[{i}].kind"), object.kind().as_str(), rule).into(),
                    );
                }
            }
        }
        self.check_prefixes(&services)?;
        let offered: BTreeSet<&ServiceName> = objects.iter().flat_map(offered_by).collect();
        let results = objects
            .iter()
            .map(|object| self.foresee(object, &services, &offered))
            .collect();
        drop(services);
        if !dry_run {
            objects
                .into_iter()
                .for_each(|object| self.put_object(now, object));
        }
        Ok(results)
    }

    fn check_declared(&self, endpoint: &NetworkServiceEndpoint) -> Result<(), Refusal> {
        match self.tables.endpoints.get(endpoint.name()) {
            Some(existing) if !existing.is_declared() => Err(foreign(existing)),
            _ => Ok(()),
        }
    }

    /// Refuses prefixes of two services that overlap without being equal, `changed` standing for those of their name.
    pub(crate) fn check_prefixes(
        &self,
        changed: &BTreeMap<ServiceName, &NetworkService>,
    ) -> Result<(), Refusal> {
        let kept = self.tables.services.values().map(AsRef::as_ref);
        let kept = kept.filter(|service| !changed.contains_key(service.name()));
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

    /// What applying `object` does, with the warnings.
    fn foresee(
        &self,
        object: &Object,
        services: &BTreeMap<ServiceName, &NetworkService>,
        offered: &BTreeSet<&ServiceName>,
    ) -> Applied {
        let mut warnings = Vec::new();
        let action = match object {
            Object::NetworkService(service) => {
                let name = service.name();
                if self.endpoints_of_service(name) == 0 && !offered.contains(name) {
                    warnings.push(
                        "no endpoint offers it yet: requests are refused until one is registered".to_owned(),
                    );
                }
                let action = action(self.tables.services.get(name).map(|old| old.as_ref() == service));
                let connections = self.connections_of_service(name);
                if action == ApplyAction::Changed && connections > 0 {
                    warnings.push(format!(
                        "{connections} connections keep their endpoint and addresses, and take the rest with their next refresh"
                    ));
                }
                action
            }
            Object::NetworkServiceEndpoint(endpoint) => {
                let known = |name: &&ServiceName| {
                    self.tables.services.contains_key(*name) || services.contains_key(*name)
                };
                let unknown = endpoint.services().keys().filter(|name| !known(name));
                warnings.extend(
                    unknown.map(|name| format!("NetworkService {name} is not there yet: apply it too")),
                );
                if !self.nodes.get(endpoint.node()).is_some_and(|node| node.connected) {
                    warnings.push(format!("node {} has no agent connected", endpoint.node()));
                }
                let old = self.tables.endpoints.get(endpoint.name());
                action(old.map(|old| **old == endpoint.clone().since(old.registered_at())))
            }
            Object::NetworkServiceWiring(_) => ApplyAction::Created,
        };
        Applied {
            kind: object.kind(),
            name: object.name().to_owned(),
            action,
            warnings,
        }
    }

    fn put_object(&mut self, now: Timestamp, object: Object) {
        match object {
            Object::NetworkService(service) => {
                if self
                    .tables
                    .services
                    .get(service.name())
                    .is_some_and(|old| **old == service)
                {
                    return;
                }
                let service = Arc::new(service);
                self.touch_record(Record::Service, service.name());
                self.tell(RegistryEvent::Service(ChangeKind::Update, Arc::clone(&service)));
                self.tables.services.insert(service.name().clone(), service);
            }
            Object::NetworkServiceEndpoint(endpoint) => {
                let old = self.tables.endpoints.get(endpoint.name());
                let endpoint = endpoint.since(old.map_or(now, |old| old.registered_at()));
                if old.is_none_or(|old| **old != endpoint) {
                    self.put_endpoint(endpoint);
                }
            }
            Object::NetworkServiceWiring(_) => {}
        }
    }

    /// Removes an object. A service with connections stays; an endpoint takes its connections with it.
    pub(crate) fn delete(&mut self, kind: ObjectKind, name: &str) -> Result<Vec<NodeGeneration>, Refusal> {
        match kind {
            ObjectKind::NetworkService => self.delete_service(&ServiceName::parse("name", name)?),
            ObjectKind::NetworkServiceEndpoint => {
                let name = EndpointName::parse("name", name)?;
                if !self.tables.endpoints.contains_key(&name) {
                    return Err(Refusal::UnknownEndpoint {
                        name: name.to_string(),
                    });
                }
                Ok(self.remove_endpoint(&name))
            }
            ObjectKind::NetworkServiceWiring => Ok(Vec::new()),
        }
    }

    fn delete_service(&mut self, name: &ServiceName) -> Result<Vec<NodeGeneration>, Refusal> {
        let connections = self.connections_of_service(name);
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
        let service = self.tables.services.remove(name).ok_or_else(unknown)?;
        self.tables.turns.remove(name);
        self.touch_record(Record::Turn, name);
        self.touch_record(Record::Service, name);
        self.tell(RegistryEvent::Service(ChangeKind::Delete, service));
        Ok(Vec::new())
    }
}

fn offered_by(object: &Object) -> Vec<&ServiceName> {
    match object {
        Object::NetworkService(_) | Object::NetworkServiceWiring(_) => Vec::new(),
        Object::NetworkServiceEndpoint(endpoint) => endpoint.services().keys().collect(),
    }
}

fn action(equal: Option<bool>) -> ApplyAction {
    match equal {
        None => ApplyAction::Created,
        Some(false) => ApplyAction::Changed,
        Some(true) => ApplyAction::Unchanged,
    }
}
