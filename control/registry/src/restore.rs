//! From records back to the state that wrote them.

use std::{net::IpAddr, sync::Arc};

use tieline_model::{
    Connection, ConnectionState, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring,
};

use crate::{
    NodeState, Record, Registry, RegistryConfig, Reservation, RestoreError, record::decode, silence::Silence,
    tables::passed,
};

impl Registry {
    /// The registry that wrote `records`, the store's keys with their values. No node is connected yet; leases that
    /// are over end with the next [`Self::handle_timeout`].
    pub fn restore(
        config: RegistryConfig,
        records: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, RestoreError> {
        let mut registry = Self::new(config)?;
        let mut dead = Vec::new();
        for (key, value) in records {
            match Record::of(&key) {
                // Of endpoints that may come behind it.
                Some((Record::Dead, name)) => dead.extend(name.parse().ok()),
                _ => registry.put_record(&key, &value)?,
            }
        }
        for name in &dead {
            registry.tables.inventory.set_dead(name, true);
        }
        for connection in registry.tables.connections.values() {
            let conflict = |what: String| {
                let key = Record::Connection.key(connection.id.as_str());
                Err(RestoreError::Conflict { key, conflict: what })
            };
            if !registry.tables.services().contains_key(&connection.service) {
                return conflict(format!("NetworkService {} is not there", connection.service));
            }
            let endpoints = &registry.tables.endpoints();
            if let Some(missing) = passed(connection.circuits()).find(|name| !endpoints.contains_key(*name)) {
                return conflict(format!("NetworkServiceEndpoint {missing} is not there"));
            }
        }
        // Whether their clients asked for a name was not written down: they keep the one that they have.
        let connections = registry.tables.connections.values();
        let pending = connections.filter(|one| one.state == ConnectionState::Pending);
        registry.asked = pending.map(|one| one.id.clone()).collect();
        // When they were last heard of was not written down.
        registry.silence = Silence::unknown(registry.nodes.keys().cloned());
        registry.domains = Silence::unknown(registry.holders());
        Ok(registry)
    }

    fn put_record(&mut self, key: &str, value: &[u8]) -> Result<(), RestoreError> {
        let (kind, name) = Record::of(key).ok_or_else(|| RestoreError::UnknownKey { key: key.to_owned() })?;
        let misplaced = |holds: &str| {
            let message = format!("holds {holds}");
            if holds == name {
                Ok(())
            } else {
                Err(RestoreError::Malformed {
                    key: key.to_owned(),
                    message,
                })
            }
        };
        let malformed = |message: &str| RestoreError::Malformed {
            key: key.to_owned(),
            message: message.to_owned(),
        };
        match kind {
            Record::Service => {
                let service: NetworkService = decode(key, value)?;
                misplaced(service.name().as_str())?;
                self.tables.inventory.put_service(Arc::new(service));
            }
            Record::Endpoint => {
                let endpoint: NetworkServiceEndpoint = decode(key, value)?;
                misplaced(endpoint.name().as_str())?;
                self.tables.put_endpoint(Arc::new(endpoint));
            }
            Record::Wiring => {
                let wiring: NetworkServiceWiring = decode(key, value)?;
                misplaced(wiring.name().as_str())?;
                self.tables.inventory.put_wiring(Arc::new(wiring));
            }
            Record::Connection => {
                let connection: Connection = decode(key, value)?;
                misplaced(connection.id.as_str())?;
                let put = self.tables.put_connection(Arc::new(connection));
                put.map_err(|conflict| RestoreError::Conflict {
                    key: key.to_owned(),
                    conflict,
                })?;
            }
            Record::Node => {
                let node: NodeState = decode(key, value)?;
                misplaced(node.name.as_str())?;
                self.nodes.insert(node.name.clone(), node);
            }
            Record::Dead => {}
            Record::Turn => {
                let service = name.parse().map_err(|_| malformed("not the name of a service"))?;
                self.tables.turns.insert(service, decode(key, value)?);
            }
            Record::Reservation => {
                let reservation: Reservation = decode(key, value)?;
                misplaced(&Reservation::key(&reservation.domain, &reservation.id))?;
                let put = self.tables.put_reservation(Arc::new(reservation));
                put.map_err(|conflict| RestoreError::Conflict {
                    key: key.to_owned(),
                    conflict,
                })?;
            }
            Record::Addresses => {
                let prefix = name.parse().map_err(|_| malformed("not a prefix"))?;
                let last: IpAddr = decode(key, value)?;
                self.tables.addresses.set_last(prefix, last);
            }
        }
        Ok(())
    }
}
