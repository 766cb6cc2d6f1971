//! Services, endpoints and wirings with what selection looks up in them, kept up to date with each change.
//!
//! Every index is a function of the objects alone, so that two inventories of the same objects are equal. A change of
//! an endpoint costs the rules of its services, a change of a rule the endpoints of its services; selecting costs the
//! endpoints on one node.

mod board;
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tieline_model::{
    EndpointName, NetnsRef, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring, NodeName,
    ServiceName, WiringName,
};

use crate::Class;
pub(crate) use board::{Board, WiredRoutes};
use places::Places;

/// The objects and their indices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    services: BTreeMap<ServiceName, Arc<NetworkService>>,
    endpoints: BTreeMap<EndpointName, Arc<NetworkServiceEndpoint>>,
    wirings: BTreeMap<WiringName, Arc<NetworkServiceWiring>>,
    boards: BTreeMap<ServiceName, Board>,
    places: Places,
    /// Endpoints that are drained or dead, of all that are there.
    impaired: BTreeSet<EndpointName>,
    dead: BTreeSet<EndpointName>,
}

impl Inventory {
    /// Puts a service in place of the one of its name.
    pub fn put_service(&mut self, service: Arc<NetworkService>) {
        let name = service.name().clone();
        self.services.insert(name.clone(), service);
        self.rebuild(&name);
    }

    /// Takes a service away.
    pub fn take_service(&mut self, name: &ServiceName) -> Option<Arc<NetworkService>> {
        let service = self.services.remove(name)?;
        self.rebuild(name);
        Some(service)
    }

    /// Puts a wiring in place of the one of its name.
    pub fn put_wiring(&mut self, wiring: Arc<NetworkServiceWiring>) {
        let mut targets: BTreeSet<ServiceName> = wiring.target().iter().cloned().collect();
        if let Some(old) = self.wirings.insert(wiring.name().clone(), wiring) {
            targets.extend(old.target().iter().cloned());
        }
        targets.iter().for_each(|target| self.rebuild(target));
    }

    /// Takes a wiring away.
    pub fn take_wiring(&mut self, name: &WiringName) -> Option<Arc<NetworkServiceWiring>> {
        let wiring = self.wirings.remove(name)?;
        wiring.target().iter().for_each(|target| self.rebuild(target));
        Some(wiring)
    }

    /// Puts an endpoint in place of the one of its name. That this one was dead is forgotten if it was elsewhere.
    pub fn put_endpoint(&mut self, endpoint: Arc<NetworkServiceEndpoint>) {
        let was_dead = self.is_dead(endpoint.name());
        let old = self.take_endpoint(endpoint.name());
        let still_dead = was_dead && old.is_some_and(|old| old.is_where(&endpoint));
        for service in endpoint.services().keys() {
            self.board_mut(service).put_endpoint(service, &endpoint);
        }
        self.places.put(&endpoint);
        if endpoint.is_draining() {
            self.impaired.insert(endpoint.name().clone());
        }
        let name = endpoint.name().clone();
        self.endpoints.insert(name.clone(), endpoint);
        if still_dead {
            self.set_dead(&name, true);
        }
    }

    /// Takes an endpoint away.
    pub fn take_endpoint(&mut self, name: &EndpointName) -> Option<Arc<NetworkServiceEndpoint>> {
        let endpoint = self.endpoints.remove(name)?;
        for service in endpoint.services().keys() {
            self.board_mut(service).take_endpoint(&endpoint);
            self.forget_empty(service);
        }
        self.places.take(&endpoint);
        self.impaired.remove(name);
        self.dead.remove(name);
        Some(endpoint)
    }

    /// Notes whether an endpoint is dead; false if that was known or the endpoint is not there.
    pub fn set_dead(&mut self, name: &EndpointName, dead: bool) -> bool {
        let Some(endpoint) = self.endpoints.get(name) else {
            return false;
        };
        let changed = if dead {
            self.dead.insert(name.clone())
        } else {
            self.dead.remove(name)
        };
        if dead || endpoint.is_draining() {
            self.impaired.insert(name.clone());
        } else {
            self.impaired.remove(name);
        }
        changed
    }

    /// Whether an endpoint is known to be dead.
    #[must_use]
    pub fn is_dead(&self, name: &EndpointName) -> bool {
        self.dead.contains(name)
    }

    /// Every service, by name.
    #[must_use]
    pub fn services(&self) -> &BTreeMap<ServiceName, Arc<NetworkService>> {
        &self.services
    }

    /// Every endpoint, by name.
    #[must_use]
    pub fn endpoints(&self) -> &BTreeMap<EndpointName, Arc<NetworkServiceEndpoint>> {
        &self.endpoints
    }

    /// Every wiring, by name.
    #[must_use]
    pub fn wirings(&self) -> &BTreeMap<WiringName, Arc<NetworkServiceWiring>> {
        &self.wirings
    }

    /// The endpoints that offer `service`, by node and name.
    #[must_use]
    pub fn offering(&self, service: &ServiceName) -> &[Arc<NetworkServiceEndpoint>] {
        self.boards
            .get(service)
            .map_or(&[], |board| board.all().as_slice())
    }

    /// The endpoints that offer `service` and are drained or dead.
    pub fn impaired_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<NetworkServiceEndpoint>> {
        let impaired = self.impaired.iter().filter_map(|name| self.endpoints.get(name));
        impaired.filter(move |one| one.services().contains_key(service))
    }

    /// The wirings that are about `service`, the first to be tried first.
    pub fn wirings_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<NetworkServiceWiring>> {
        let boards = self.boards.get(service).into_iter();
        boards.flat_map(|board| board.wirings().iter().map(|one| &one.wiring))
    }

    /// The endpoints in a namespace.
    pub fn endpoints_at(
        &self,
        node: &NodeName,
        netns: &NetnsRef,
    ) -> impl Iterator<Item = &Arc<NetworkServiceEndpoint>> {
        let names = self.places.at(node, netns);
        names.into_iter().filter_map(|name| self.endpoints.get(name))
    }

    /// The endpoints on `node` that decisions of a class choose among, with their weights; those that are drained or
    /// dead are not. Empty where that depends on the request.
    pub(crate) fn weights(
        &self,
        service: &ServiceName,
        node: &NodeName,
        class: &Class,
    ) -> BTreeMap<&EndpointName, u128> {
        let mut weights: BTreeMap<&EndpointName, u128> = BTreeMap::new();
        let Some(board) = self.boards.get(service) else {
            return weights;
        };
        for (weight, group) in board.routes_of(class).unwrap_or_default() {
            let well: Vec<_> = group
                .on(node)
                .iter()
                .filter(|one| !self.is_impaired(one))
                .collect();
            for one in &well {
                // A share's weight is split among its endpoints; fixed point keeps the fractions.
                *weights.entry(one.name()).or_default() += (u128::from(weight) << 32) / well.len() as u128;
            }
        }
        weights.retain(|_, weight| *weight > 0);
        weights
    }

    pub(crate) fn board(&self, service: &ServiceName) -> Option<&Board> {
        self.boards.get(service)
    }

    /// Whether any endpoint is drained or dead.
    pub(crate) fn has_impaired(&self) -> bool {
        !self.impaired.is_empty()
    }

    /// Whether an endpoint has to be looked at before it is chosen.
    pub(crate) fn is_impaired(&self, endpoint: &NetworkServiceEndpoint) -> bool {
        !self.impaired.is_empty() && self.impaired.contains(endpoint.name())
    }

    fn board_mut(&mut self, service: &ServiceName) -> &mut Board {
        self.boards.entry(service.clone()).or_default()
    }

    /// Makes the board of a service anew, or drops it if there is nothing to it.
    fn rebuild(&mut self, name: &ServiceName) {
        let old = self.boards.remove(name).unwrap_or_default();
        let wirings = self.wirings.values().filter(|one| one.target().contains(name));
        let board = Board::build(name, self.services.get(name), wirings, old.into_all());
        self.boards.insert(name.clone(), board);
        self.forget_empty(name);
    }

    fn forget_empty(&mut self, name: &ServiceName) {
        let empty = self.boards.get(name).is_some_and(Board::is_empty);
        if empty && !self.services.contains_key(name) {
            self.boards.remove(name);
        }
    }
}
