//! Addresses that connections of other domains have of services of this one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tieline_model::{
    ConnectionId, ConnectionRequest, EndpointName, RegistryDomain, ServiceName, Timestamp, Workload,
};

use crate::{Record, Refusal, Registry, ipam::Wanted};

const FIELD_SERVICE: &str = "network_service";

/// The addresses of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The domain that the connection is of.
    pub domain: RegistryDomain,
    /// The connection.
    pub id: ConnectionId,
    /// The service of this domain.
    pub service: ServiceName,
    /// At the client.
    pub client: Vec<IpAddr>,
    /// At the endpoint.
    pub endpoint: Vec<IpAddr>,
}

impl Reservation {
    /// Every address as a prefix.
    pub(crate) fn hosts(&self) -> Vec<IpNet> {
        let all = self.client.iter().chain(&self.endpoint);
        all.map(|ip| IpNet::from(*ip)).collect()
    }

    /// Its name among all.
    pub(crate) fn key(domain: &RegistryDomain, id: &ConnectionId) -> String {
        format!("{domain}/{id}")
    }
}

/// What another domain wants addresses for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRequest {
    /// The domain that asks.
    pub domain: RegistryDomain,
    /// Its connection.
    pub id: ConnectionId,
    /// The service of this domain.
    pub service: ServiceName,
    /// Addresses asked for at the client and at the endpoint.
    pub asked: [Vec<IpAddr>; 2],
    /// What must not be given.
    pub excluded: Vec<IpNet>,
}

/// What of all that a domain thinks it has is not known here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unknown {
    /// Connections without addresses.
    pub connections: Vec<ConnectionId>,
    /// Endpoints that are not registered.
    pub endpoints: Vec<EndpointName>,
}

impl Registry {
    /// Reserves addresses; for a connection that has some, those.
    pub(crate) fn reserve(
        &mut self,
        now: Timestamp,
        asked: &ReservationRequest,
    ) -> Result<Reservation, Refusal> {
        let ReservationRequest {
            domain, id, service, ..
        } = asked;
        let unknown = || Refusal::UnknownService {
            field: FIELD_SERVICE,
            name: service.to_string(),
        };
        let known = self.tables.services().get(service).ok_or_else(unknown)?;
        let key = Reservation::key(domain, id);
        if let Some(existing) = self.tables.reservations.get(&key) {
            return if existing.service == *service {
                Ok(Reservation::clone(existing))
            } else {
                Err(Refusal::NotChangeable {
                    field: FIELD_SERVICE,
                    value: service.to_string(),
                    id: id.clone(),
                    has: existing.service.to_string(),
                })
            };
        }
        let excluded = known
            .excluded_prefixes()
            .iter()
            .chain(&self.config.excluded_prefixes);
        let proposal = self.tables.addresses.propose(&Wanted {
            service: service.as_str(),
            prefixes: self.prefixes_of(known),
            excluded: excluded.chain(&asked.excluded).copied().collect(),
            asked: [&asked.asked[0], &asked.asked[1]],
        })?;
        let reservation = Reservation {
            domain: domain.clone(),
            id: id.clone(),
            service: service.clone(),
            client: proposal.client.clone(),
            endpoint: proposal.endpoint.clone(),
        };
        let put = self.tables.put_reservation(Arc::new(reservation.clone()));
        put.map_err(|_| Refusal::Inconsistent {
            what: "address of reservation",
            key: key.clone(),
        })?;
        for prefix in self.tables.addresses.remember(&proposal) {
            self.touch_record(Record::Addresses, &prefix);
        }
        self.hear_domain(now, domain);
        self.touch_record(Record::Reservation, &key);
        Ok(reservation)
    }

    /// Takes back what a domain has and does not name, and says what it names and does not have.
    pub(crate) fn hold(
        &mut self,
        now: Timestamp,
        domain: &RegistryDomain,
        connections: &BTreeSet<ConnectionId>,
        endpoints: &BTreeSet<EndpointName>,
    ) -> Unknown {
        self.hear_domain(now, domain);
        let theirs = self.tables.reservations_of(domain);
        let given_up = theirs.filter(|one| !connections.contains(&one.id));
        let given_up: Vec<ConnectionId> = given_up.map(|one| one.id.clone()).collect();
        given_up
            .iter()
            .for_each(|id| self.release_reservation(domain, id));
        let registered = self.registered_by(domain);
        for name in registered.iter().filter(|name| !endpoints.contains(*name)) {
            self.remove_endpoint(name);
        }
        let has = |id: &&ConnectionId| {
            self.tables
                .reservations
                .contains_key(&Reservation::key(domain, id))
        };
        Unknown {
            connections: connections.iter().filter(|id| !has(id)).cloned().collect(),
            endpoints: endpoints
                .iter()
                .filter(|name| !registered.contains(name))
                .cloned()
                .collect(),
        }
    }

    fn release_reservation(&mut self, domain: &RegistryDomain, id: &ConnectionId) {
        let key = Reservation::key(domain, id);
        if self.tables.take_reservation(&key).is_some() {
            self.touch_record(Record::Reservation, &key);
        }
    }

    /// A domain gave a sign of life.
    pub(crate) fn hear_domain(&mut self, now: Timestamp, domain: &RegistryDomain) {
        let end = now.after(self.config.node_lease);
        self.domains.heard(domain, end);
    }

    /// Takes back everything of domains that have been silent for too long.
    pub(crate) fn end_domains(&mut self, now: Timestamp) {
        let end = now.after(self.config.node_lease);
        for domain in self.domains.take_unknown() {
            self.domains.heard(&domain, end);
        }
        while let Some(domain) = self.domains.take_over(now) {
            let ids: Vec<ConnectionId> = self
                .tables
                .reservations_of(&domain)
                .map(|one| one.id.clone())
                .collect();
            ids.iter().for_each(|id| self.release_reservation(&domain, id));
            for name in self.registered_by(&domain) {
                self.remove_endpoint(&name);
            }
        }
    }

    /// Every domain that has something of this one.
    pub(crate) fn holders(&self) -> BTreeSet<RegistryDomain> {
        let reservations = self.tables.reservations.values().map(|one| one.domain.clone());
        let endpoints = self.tables.endpoints().values();
        let endpoints = endpoints.filter(|one| one.name().domain().is_none());
        let owners = endpoints.filter_map(|one| match one.owner() {
            tieline_model::Owner::Domain(domain) => Some(domain.clone()),
            _ => None,
        });
        reservations.chain(owners).collect()
    }

    /// What addresses for a connection of this caller to another domain's service must not lie in: what is given out here,
    /// and what is excluded for it. The first and the last address of each range.
    #[must_use]
    pub fn not_for(&self, caller: &Workload, request: &ConnectionRequest) -> Vec<(IpAddr, IpAddr)> {
        let excluded = self
            .config
            .excluded_prefixes
            .iter()
            .chain(&request.excluded_prefixes)
            .copied();
        let others = self.led_to_by_others(caller, &request.id);
        let excluded = excluded
            .chain(others)
            .map(|prefix| (prefix.network(), prefix.broadcast()));
        self.tables.addresses.in_use().chain(excluded).collect()
    }
}

/// By their names.
pub(crate) type Reservations = BTreeMap<String, Arc<Reservation>>;
