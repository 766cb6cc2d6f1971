//! What is kept, with the indices over it. Every index is a function of the objects, so that restoring is putting.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use tieline_model::{
    Circuit, Connection, ConnectionId, EndpointName, NetworkService, NetworkServiceEndpoint,
    NetworkServiceWiring, NodeName, ServiceName, Timestamp, WiringName,
};

use crate::{ipam::Addresses, names::InterfaceNames};

/// What a lease is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leased {
    Connection(ConnectionId),
    Endpoint(EndpointName),
}

/// A set of names per key; empty sets are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index<K, V>(BTreeMap<K, BTreeSet<V>>);

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Index<K, V> {
    fn put(&mut self, key: &K, value: &V) {
        self.0.entry(key.clone()).or_default().insert(value.clone());
    }

    fn take(&mut self, key: &K, value: &V) {
        if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(crate) fn of(&self, key: &K) -> impl Iterator<Item = &V> {
        self.0.get(key).into_iter().flatten()
    }

    pub(crate) fn count(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }
}

/// The objects and their indices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) services: BTreeMap<ServiceName, Arc<NetworkService>>,
    pub(crate) endpoints: BTreeMap<EndpointName, Arc<NetworkServiceEndpoint>>,
    pub(crate) wirings: BTreeMap<WiringName, Arc<NetworkServiceWiring>>,
    pub(crate) connections: BTreeMap<ConnectionId, Arc<Connection>>,
    /// How many choices were made for a service.
    pub(crate) turns: BTreeMap<ServiceName, u64>,
    pub(crate) offers: Index<ServiceName, EndpointName>,
    pub(crate) by_service: Index<ServiceName, ConnectionId>,
    pub(crate) by_endpoint: Index<EndpointName, ConnectionId>,
    pub(crate) by_node: Index<NodeName, ConnectionId>,
    pub(crate) leases: BTreeSet<(Timestamp, Leased)>,
    pub(crate) names: InterfaceNames,
    pub(crate) addresses: Addresses,
}

impl Tables {
    /// Puts an endpoint, in place of the one of that name.
    pub(crate) fn put_endpoint(&mut self, endpoint: Arc<NetworkServiceEndpoint>) {
        self.take_endpoint(endpoint.name());
        for service in endpoint.services().keys() {
            self.offers.put(service, endpoint.name());
        }
        self.put_lease(endpoint.expires(), Leased::Endpoint(endpoint.name().clone()));
        self.endpoints.insert(endpoint.name().clone(), endpoint);
    }

    pub(crate) fn take_endpoint(&mut self, name: &EndpointName) -> Option<Arc<NetworkServiceEndpoint>> {
        let endpoint = self.endpoints.remove(name)?;
        for service in endpoint.services().keys() {
            self.offers.take(service, name);
        }
        self.take_lease(endpoint.expires(), Leased::Endpoint(name.clone()));
        Some(endpoint)
    }

    /// Puts a new connection, or says what of it another one has and puts nothing.
    pub(crate) fn put_connection(&mut self, connection: Arc<Connection>) -> Result<(), String> {
        let id = &connection.id;
        if self.connections.contains_key(id) {
            return Err(format!("connection {id} is there twice"));
        }
        self.names
            .take(&connection)
            .map_err(|(name, by)| format!("interface {name} is connection {by}'s"))?;
        let mut taken = Vec::new();
        for address in addresses_of(&connection) {
            if !self.addresses.take(*address) {
                taken.into_iter().for_each(|one| self.addresses.release(one));
                self.names.release(&connection);
                return Err(format!("address {address} is another connection's"));
            }
            taken.push(*address);
        }
        self.by_service.put(&connection.service, id);
        passed_by(&connection).for_each(|endpoint| self.by_endpoint.put(endpoint, id));
        self.by_node.put(&connection.client.node, id);
        self.put_lease(connection.expires, Leased::Connection(id.clone()));
        self.connections.insert(id.clone(), connection);
        Ok(())
    }

    /// Puts a changed connection in place of what it was, or says what of it another one has and changes nothing. Its
    /// service, client's end and addresses are those that it had.
    pub(crate) fn replace_connection(&mut self, connection: Arc<Connection>) -> Result<(), String> {
        let Some(old) = self.connections.get(&connection.id).cloned() else {
            return Err(format!("connection {} is not there", connection.id));
        };
        let id = &connection.id;
        let taken = |(name, by)| format!("interface {name} is connection {by}'s");
        self.names.exchange(&old, &connection).map_err(taken)?;
        passed_by(&old).for_each(|endpoint| self.by_endpoint.take(endpoint, id));
        passed_by(&connection).for_each(|endpoint| self.by_endpoint.put(endpoint, id));
        self.take_lease(old.expires, Leased::Connection(id.clone()));
        self.put_lease(connection.expires, Leased::Connection(id.clone()));
        self.connections.insert(id.clone(), connection);
        Ok(())
    }

    pub(crate) fn take_connection(&mut self, id: &ConnectionId) -> Option<Arc<Connection>> {
        let connection = self.connections.remove(id)?;
        self.names.release(&connection);
        addresses_of(&connection).for_each(|address| self.addresses.release(*address));
        self.by_service.take(&connection.service, id);
        passed_by(&connection).for_each(|endpoint| self.by_endpoint.take(endpoint, id));
        self.by_node.take(&connection.client.node, id);
        self.take_lease(connection.expires, Leased::Connection(id.clone()));
        Some(connection)
    }

    /// Notes when a lease ends, if it does by itself.
    fn put_lease(&mut self, expires: Option<Timestamp>, leased: Leased) {
        self.leases.extend(expires.map(|at| (at, leased)));
    }

    fn take_lease(&mut self, expires: Option<Timestamp>, leased: Leased) {
        if let Some(at) = expires {
            self.leases.remove(&(at, leased));
        }
    }
}

/// Both sides' addresses.
pub(crate) fn addresses_of(connection: &Connection) -> impl Iterator<Item = &IpAddr> {
    connection
        .client
        .addresses
        .iter()
        .chain(&connection.server_addresses)
}

/// Every endpoint that a connection passes on any circuit; one may come several times.
pub(crate) fn passed_by(connection: &Connection) -> impl Iterator<Item = &EndpointName> {
    connection.circuits().flat_map(Circuit::path)
}
