//! What is kept, with the indices over it. Every index is a function of the objects, so that restoring is putting.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use tieline_model::{
    Attachment, Circuit, Connection, ConnectionId, EndpointName, NetnsRef, NetworkService,
    NetworkServiceEndpoint, NetworkServiceWiring, NodeName, RegistryDomain, ServiceName, Step, Timestamp,
    WiringName,
};
use tieline_planner::{Inventory, Usage};

use crate::{
    Reservation,
    ipam::Addresses,
    names::{InterfaceNames, Place},
    reservations::Reservations,
};

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

    pub(crate) fn of<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
        self.0.get(key).into_iter().flatten()
    }

    pub(crate) fn count(&self, key: &K) -> usize {
        self.0.get(key).map_or(0, BTreeSet::len)
    }
}

/// The objects and their indices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Services, endpoints and wirings.
    pub(crate) inventory: Inventory,
    pub(crate) connections: BTreeMap<ConnectionId, Arc<Connection>>,
    /// How many choices were made for a service.
    pub(crate) turns: BTreeMap<ServiceName, u64>,
    pub(crate) by_service: Index<ServiceName, ConnectionId>,
    /// By the endpoints that their packets pass.
    pub(crate) by_endpoint: Index<EndpointName, ConnectionId>,
    /// By the endpoints that they hold an end at beside: for their backup, or to go back to.
    pub(crate) beside: Index<EndpointName, ConnectionId>,
    /// By the endpoints that flows of theirs go on at that were there before a change.
    pub(crate) drains: Index<EndpointName, ConnectionId>,
    /// By the endpoints that their nodes have lost.
    pub(crate) lost: Index<EndpointName, ConnectionId>,
    /// By the wirings that decided about them.
    pub(crate) by_wiring: Index<WiringName, ConnectionId>,
    pub(crate) by_node: Index<NodeName, ConnectionId>,
    /// By their client's namespace: its identity, and its path.
    pub(crate) by_client: Index<Place, ConnectionId>,
    /// Those that one more endpoint of their service may help.
    pub(crate) wanting: Index<ServiceName, ConnectionId>,
    pub(crate) leases: BTreeSet<(Timestamp, Leased)>,
    pub(crate) names: InterfaceNames,
    pub(crate) addresses: Addresses,
    /// What connections of other domains have of these.
    pub(crate) reservations: Reservations,
}

impl Usage for Tables {
    fn connections(&self, endpoint: &EndpointName) -> usize {
        self.by_endpoint.count(endpoint)
    }

    fn holder(&self, endpoint: &NetworkServiceEndpoint) -> Option<&ConnectionId> {
        match endpoint.attachment() {
            Attachment::Interface(name) => self.names.end_of(endpoint.node(), name),
            Attachment::Netns(_) => None,
        }
    }
}

impl Tables {
    pub(crate) fn services(&self) -> &BTreeMap<ServiceName, Arc<NetworkService>> {
        self.inventory.services()
    }

    pub(crate) fn endpoints(&self) -> &BTreeMap<EndpointName, Arc<NetworkServiceEndpoint>> {
        self.inventory.endpoints()
    }

    pub(crate) fn wirings(&self) -> &BTreeMap<WiringName, Arc<NetworkServiceWiring>> {
        self.inventory.wirings()
    }

    /// Puts an endpoint, in place of the one of that name.
    pub(crate) fn put_endpoint(&mut self, endpoint: Arc<NetworkServiceEndpoint>) {
        let old = self
            .endpoints()
            .get(endpoint.name())
            .and_then(|old| old.expires());
        self.take_lease(old, Leased::Endpoint(endpoint.name().clone()));
        self.put_lease(endpoint.expires(), Leased::Endpoint(endpoint.name().clone()));
        self.inventory.put_endpoint(endpoint);
    }

    pub(crate) fn take_endpoint(&mut self, name: &EndpointName) -> Option<Arc<NetworkServiceEndpoint>> {
        let endpoint = self.inventory.take_endpoint(name)?;
        self.take_lease(endpoint.expires(), Leased::Endpoint(name.clone()));
        Some(endpoint)
    }

    /// The connections that hold an end at an endpoint.
    pub(crate) fn at_endpoint(&self, name: &EndpointName) -> impl Iterator<Item = &ConnectionId> {
        self.by_endpoint.of(name).chain(self.beside.of(name))
    }

    /// The connections whose client is in a namespace.
    pub(crate) fn of_clients_in(
        &self,
        node: &NodeName,
        netns: &NetnsRef,
    ) -> impl Iterator<Item = &ConnectionId> {
        self.by_client.of(&Place::of(node, netns))
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
        if let Err(prefix) = self.addresses.take_all(&prefixes_of(&connection)) {
            self.names.release(&connection);
            return Err(format!("{prefix} is another connection's"));
        }
        self.by_service.put(&connection.service, id);
        self.by_node.put(&connection.client.node, id);
        let client = &connection.client;
        Place::all_of(&client.node, &client.netns)
            .iter()
            .for_each(|place| self.by_client.put(place, id));
        self.put_ways(&connection);
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
        let (has, wants) = (prefixes_of(&old), prefixes_of(&connection));
        let more: Vec<IpNet> = wants.iter().filter(|one| !has.contains(one)).copied().collect();
        if let Err(prefix) = self.addresses.take_all(&more) {
            let undone = self.names.exchange(&connection, &old);
            debug_assert_eq!(undone, Ok(()), "they were its own");
            return Err(format!("{prefix} is another connection's"));
        }
        let less = has.iter().filter(|one| !wants.contains(one));
        less.for_each(|prefix| self.addresses.release(prefix));
        self.take_ways(&old);
        self.put_ways(&connection);
        self.take_lease(old.expires, Leased::Connection(id.clone()));
        self.put_lease(connection.expires, Leased::Connection(id.clone()));
        self.connections.insert(id.clone(), connection);
        Ok(())
    }

    pub(crate) fn take_connection(&mut self, id: &ConnectionId) -> Option<Arc<Connection>> {
        let connection = self.connections.remove(id)?;
        self.names.release(&connection);
        prefixes_of(&connection)
            .iter()
            .for_each(|prefix| self.addresses.release(prefix));
        self.by_service.take(&connection.service, id);
        self.by_node.take(&connection.client.node, id);
        let client = &connection.client;
        Place::all_of(&client.node, &client.netns)
            .iter()
            .for_each(|place| self.by_client.take(place, id));
        self.take_ways(&connection);
        self.take_lease(connection.expires, Leased::Connection(id.clone()));
        Some(connection)
    }

    /// Puts a new reservation, or says what of it somebody else has and puts nothing.
    pub(crate) fn put_reservation(&mut self, reservation: Arc<Reservation>) -> Result<(), String> {
        let taken = |prefix: IpNet| format!("{prefix} is another connection's");
        self.addresses.take_all(&reservation.hosts()).map_err(taken)?;
        let key = Reservation::key(&reservation.domain, &reservation.id);
        self.reservations.insert(key, reservation);
        Ok(())
    }

    pub(crate) fn take_reservation(&mut self, key: &str) -> Option<Arc<Reservation>> {
        let reservation = self.reservations.remove(key)?;
        reservation
            .hosts()
            .iter()
            .for_each(|prefix| self.addresses.release(prefix));
        Some(reservation)
    }

    pub(crate) fn reservations_of(&self, domain: &RegistryDomain) -> impl Iterator<Item = &Arc<Reservation>> {
        self.reservations
            .values()
            .filter(move |one| one.domain == *domain)
    }

    fn put_ways(&mut self, connection: &Connection) {
        let id = &connection.id;
        passed(connection.circuits_in_use()).for_each(|endpoint| self.by_endpoint.put(endpoint, id));
        passed(connection.circuits_beside()).for_each(|endpoint| self.beside.put(endpoint, id));
        passed(draining(connection)).for_each(|endpoint| self.drains.put(endpoint, id));
        connection
            .lost
            .keys()
            .for_each(|endpoint| self.lost.put(endpoint, id));
        decided_by(connection).for_each(|wiring| self.by_wiring.put(wiring, id));
        if is_wanting(connection) {
            self.wanting.put(&connection.service, id);
        }
    }

    fn take_ways(&mut self, connection: &Connection) {
        let id = &connection.id;
        passed(connection.circuits_in_use()).for_each(|endpoint| self.by_endpoint.take(endpoint, id));
        passed(connection.circuits_beside()).for_each(|endpoint| self.beside.take(endpoint, id));
        passed(draining(connection)).for_each(|endpoint| self.drains.take(endpoint, id));
        connection
            .lost
            .keys()
            .for_each(|endpoint| self.lost.take(endpoint, id));
        decided_by(connection).for_each(|wiring| self.by_wiring.take(wiring, id));
        self.wanting.take(&connection.service, id);
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

/// All that no other connection has addresses of.
fn prefixes_of(connection: &Connection) -> Vec<IpNet> {
    let hosts = addresses_of(connection).map(|ip| IpNet::from(*ip));
    hosts
        .chain(connection.context.extra_prefixes.iter().copied())
        .collect()
}

/// Every endpoint on circuits; one may come several times.
pub(crate) fn passed<'a>(
    circuits: impl Iterator<Item = &'a Circuit>,
) -> impl Iterator<Item = &'a EndpointName> {
    circuits.flat_map(Circuit::path)
}

/// Whether one endpoint more may help: it leads nowhere, or its node has lost endpoints, or nothing else can take over all
/// of its way.
fn is_wanting(connection: &Connection) -> bool {
    if !connection.lost.is_empty() {
        return true;
    }
    let Some((main, backup)) = connection.main_circuit().zip(connection.backup.as_ref()) else {
        return true;
    };
    let shares = |name: &EndpointName| main.path().any(|other| other == name);
    backup.path().any(shares)
}

fn draining(connection: &Connection) -> impl Iterator<Item = &Circuit> {
    connection.draining.iter().map(|branch| &branch.circuit)
}

/// The wirings that decided about a connection; one may come several times.
fn decided_by(connection: &Connection) -> impl Iterator<Item = &WiringName> {
    let steps = connection
        .report
        .decisions
        .iter()
        .flat_map(|decision| &decision.steps);
    steps.filter_map(|step| match step {
        Step::Wiring { wiring, .. } => Some(wiring),
        _ => None,
    })
}
