//! Those who watch: `MonitorConnections` and `Find`.

use std::collections::{BTreeMap, BTreeSet};

use tieline_model::{EndpointQuery, MonitorScope, RegistryDomain, ServiceQuery};
use tieline_registry::{ChangeKind, Registry, RegistryEvent};

use crate::outlet::{End, Outlet};

/// Events that may wait for a slow reader before its stream ends.
pub(crate) const MONITOR_QUEUE: usize = 4096;

/// What a watcher wants to hear of.
#[derive(Clone, Debug)]
pub(crate) enum Topic {
    /// Connections.
    Connections(MonitorScope),
    /// Services.
    Services(ServiceQuery),
    /// Endpoints.
    Endpoints(EndpointQuery),
    /// What is registered in this domain: services, wirings and endpoints.
    Offered,
    /// What of another domain is used here: endpoints of workloads here that are registered there, and connections to
    /// its services.
    Used(RegistryDomain),
}

impl Topic {
    /// What there is of it, each as an update.
    pub(super) fn present(&self, registry: &Registry) -> Vec<RegistryEvent> {
        match self {
            Self::Connections(scope) => {
                let matching = registry
                    .connections()
                    .filter(|connection| scope.matches(connection));
                matching
                    .map(|connection| RegistryEvent::Connection(ChangeKind::Update, connection.clone()))
                    .collect()
            }
            Self::Services(query) => {
                let matching = registry.services().filter(|service| query.matches(service));
                matching
                    .map(|service| RegistryEvent::Service(ChangeKind::Update, service.clone()))
                    .collect()
            }
            Self::Endpoints(query) => {
                let matching = registry.endpoints().filter(|endpoint| query.matches(endpoint));
                matching
                    .map(|endpoint| RegistryEvent::Endpoint(ChangeKind::Update, endpoint.clone()))
                    .collect()
            }
            Self::Offered | Self::Used(_) => everything(registry)
                .filter(|event| self.matches(event) == Some(true))
                .collect(),
        }
    }

    /// Whether what the event shows is wanted: `None` if it is of another kind.
    fn matches(&self, event: &RegistryEvent) -> Option<bool> {
        match (self, event) {
            (Self::Connections(scope), RegistryEvent::Connection(_, connection)) => {
                Some(scope.matches(connection))
            }
            (Self::Services(query), RegistryEvent::Service(_, service)) => Some(query.matches(service)),
            (Self::Endpoints(query), RegistryEvent::Endpoint(_, endpoint)) => Some(query.matches(endpoint)),
            (Self::Offered, RegistryEvent::Service(_, service)) => Some(service.name().domain().is_none()),
            (Self::Offered, RegistryEvent::Wiring(_, wiring)) => Some(wiring.name().domain().is_none()),
            (Self::Offered, RegistryEvent::Endpoint(_, endpoint)) => Some(endpoint.name().domain().is_none()),
            (Self::Used(domain), RegistryEvent::Endpoint(_, endpoint)) => {
                let is_there = endpoint.name().domain() == Some(domain.as_str());
                Some(is_there && !endpoint.is_foreign())
            }
            (Self::Used(domain), RegistryEvent::Connection(_, connection)) => {
                Some(connection.service.domain() == Some(domain.as_str()))
            }
            _ => None,
        }
    }
}

fn everything(registry: &Registry) -> impl Iterator<Item = RegistryEvent> {
    let update = ChangeKind::Update;
    let services = registry.services().cloned();
    let services = services.map(move |one| RegistryEvent::Service(update, one));
    let wirings = registry.wirings().cloned();
    let wirings = wirings.map(move |one| RegistryEvent::Wiring(update, one));
    let endpoints = registry.endpoints().cloned();
    let endpoints = endpoints.map(move |one| RegistryEvent::Endpoint(update, one));
    let connections = registry.connections().cloned();
    let connections = connections.map(move |one| RegistryEvent::Connection(update, one));
    services.chain(wirings).chain(endpoints).chain(connections)
}

#[derive(Debug)]
struct Watcher {
    topic: Topic,
    /// The names of each kind of which it has been told, so that it hears when one of these is gone or changes so that it is
    /// not wanted.
    known: BTreeMap<&'static str, BTreeSet<String>>,
    outlet: Outlet<RegistryEvent>,
}

impl Watcher {
    /// What this watcher is told of an event.
    fn told(&mut self, event: &RegistryEvent) -> Option<RegistryEvent> {
        let wanted = self.topic.matches(event)?;
        let (kind, what, name) = subject(event);
        let known = self.known.entry(what).or_default();
        match (kind, wanted) {
            (ChangeKind::Update, true) => {
                if !known.contains(name) {
                    known.insert(name.to_owned());
                }
                Some(event.clone())
            }
            (ChangeKind::Update, false) | (ChangeKind::Delete, _) => {
                known.remove(name).then(|| gone(event.clone()))
            }
        }
    }
}

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    watchers: Vec<Watcher>,
}

impl Monitors {
    /// Adds a watcher that has just been told of `present`.
    pub(super) fn add(&mut self, topic: Topic, present: &[RegistryEvent], outlet: Outlet<RegistryEvent>) {
        let mut known: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (_, what, name) in present.iter().map(subject) {
            known.entry(what).or_default().insert(name.to_owned());
        }
        self.watchers.push(Watcher { topic, known, outlet });
    }

    /// Tells everybody who wants to hear. Drops those who left, and those who do not keep up, and says how many these were.
    pub(super) fn tell(&mut self, events: &[RegistryEvent]) -> usize {
        let mut slow = 0;
        self.watchers.retain_mut(|watcher| {
            if watcher.outlet.is_closed() {
                return false;
            }
            for event in events {
                if let Some(event) = watcher.told(event)
                    && !watcher.outlet.send(event)
                {
                    slow += 1;
                    return false;
                }
            }
            true
        });
        slow
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Ends all streams.
    pub(super) fn end_all(&mut self, end: End) {
        for watcher in std::mem::take(&mut self.watchers) {
            watcher.outlet.end(end);
        }
    }
}

/// What happened, to what kind of thing, by which name.
fn subject(event: &RegistryEvent) -> (ChangeKind, &'static str, &str) {
    match event {
        RegistryEvent::Service(kind, service) => (*kind, "service", service.name().as_str()),
        RegistryEvent::Endpoint(kind, endpoint) => (*kind, "endpoint", endpoint.name().as_str()),
        RegistryEvent::Wiring(kind, wiring) => (*kind, "wiring", wiring.name().as_str()),
        RegistryEvent::Connection(kind, connection) => (*kind, "connection", connection.id.as_str()),
    }
}

fn gone(event: RegistryEvent) -> RegistryEvent {
    match event {
        RegistryEvent::Service(_, service) => RegistryEvent::Service(ChangeKind::Delete, service),
        RegistryEvent::Endpoint(_, endpoint) => RegistryEvent::Endpoint(ChangeKind::Delete, endpoint),
        RegistryEvent::Wiring(_, wiring) => RegistryEvent::Wiring(ChangeKind::Delete, wiring),
        RegistryEvent::Connection(_, connection) => RegistryEvent::Connection(ChangeKind::Delete, connection),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tieline_model::{NetworkService, Payload, ServiceName};
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::outlet::outlet;

    fn event(kind: ChangeKind, name: &str, payload: Payload) -> RegistryEvent {
        let service = NetworkService::new(ServiceName::parse("name", name).unwrap()).with_payload(payload);
        RegistryEvent::Service(kind, Arc::new(service))
    }

    #[tokio::test]
    async fn a_watcher_hears_when_what_it_knows_is_gone_or_no_longer_wanted() {
        let (outlet, mut inlet) = outlet(8);
        let topic = Topic::Services(ServiceQuery {
            name: None,
            payload: Some(Payload::Ip),
        });
        let mut monitors = Monitors::default();
        monitors.add(topic, &[event(ChangeKind::Update, "a", Payload::Ip)], outlet);
        let happened = [
            event(ChangeKind::Update, "other", Payload::Ethernet),
            event(ChangeKind::Delete, "other", Payload::Ethernet),
            event(ChangeKind::Update, "b", Payload::Ip),
            event(ChangeKind::Update, "a", Payload::Ethernet),
            event(ChangeKind::Delete, "a", Payload::Ethernet),
            event(ChangeKind::Delete, "b", Payload::Ip),
        ];
        assert_eq!(monitors.tell(&happened), 0);
        monitors.end_all(End::ShuttingDown);
        let mut heard = Vec::new();
        while let Some(Ok(event)) = inlet.next().await {
            let (kind, _, name) = subject(&event);
            heard.push((kind, name.to_owned()));
        }
        let expected = [
            (ChangeKind::Update, "b"),
            (ChangeKind::Delete, "a"),
            (ChangeKind::Delete, "b"),
        ];
        assert_eq!(heard, expected.map(|(kind, name)| (kind, name.to_owned())));
    }

    #[tokio::test]
    async fn a_slow_watcher_is_dropped_and_counted_and_one_that_left_is_dropped() {
        let mut monitors = Monitors::default();
        let ((slow, _slow_reader), (left, left_reader)) = (outlet(1), outlet(1));
        monitors.add(Topic::Services(ServiceQuery::default()), &[], slow);
        monitors.add(Topic::Services(ServiceQuery::default()), &[], left);
        drop(left_reader);
        let happened = [
            event(ChangeKind::Update, "a", Payload::Ip),
            event(ChangeKind::Update, "b", Payload::Ip),
        ];
        assert_eq!(monitors.tell(&happened), 1);
        assert_eq!(monitors.len(), 0);
    }
}
