//! The state and how it is looked at.

use std::sync::Arc;

use tieline_model::{
    Connection, ConnectionId, EndpointName, NetworkService, NetworkServiceEndpoint, NodeName, ServiceName,
    Timestamp,
};
use tieline_planner::Plan;

use crate::{Command, Effects, NodeState, Refusal, RegistryConfig, Reply, RestoreError};

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Services.
    pub services: usize,
    /// Endpoints.
    pub endpoints: usize,
    /// Connections.
    pub connections: usize,
}

/// The state machine.
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
}

impl Registry {
    /// An empty registry. Default prefixes that overlap are refused.
    pub fn new(config: RegistryConfig) -> Result<Self, Refusal> {
        Ok(Self { config })
    }

    /// The registry that wrote `records`, the store's keys with their values.
    pub fn restore(
        config: RegistryConfig,
        records: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, RestoreError> {
        let _ = records.into_iter().count();
        Ok(Self { config })
    }

    /// Carries out `command` at `now`, entirely or not at all.
    pub fn handle(&mut self, now: Timestamp, command: Command) -> Result<Reply, Refusal> {
        let _ = (now, command);
        Ok(Reply::Done(Vec::new()))
    }

    /// Ends every lease that is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// When the next lease ends.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// What happened since the last call.
    pub fn take_effects(&mut self) -> Effects {
        Effects::default()
    }

    /// A node's whole plan. Take the effects first: what they hold is in it.
    #[must_use]
    pub fn node_snapshot(&self, node: &NodeName) -> Plan {
        let _ = node;
        Plan::default()
    }

    /// What it was set up with.
    #[must_use]
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Every service, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<NetworkService>> {
        std::iter::empty()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<NetworkService>> {
        let _ = name;
        None
    }

    /// Every endpoint, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<NetworkServiceEndpoint>> {
        std::iter::empty()
    }

    /// One endpoint.
    #[must_use]
    pub fn endpoint(&self, name: &EndpointName) -> Option<&Arc<NetworkServiceEndpoint>> {
        let _ = name;
        None
    }

    /// Every connection, by id. [`tieline_model::MonitorScope::matches`] says which a watcher gets.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        std::iter::empty()
    }

    /// One connection.
    #[must_use]
    pub fn connection(&self, id: &ConnectionId) -> Option<&Arc<Connection>> {
        let _ = id;
        None
    }

    /// Every node that said hello, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        std::iter::empty()
    }

    /// How many wires `node` has in its plan.
    #[must_use]
    pub fn wires_of_node(&self, node: &NodeName) -> usize {
        let _ = node;
        0
    }

    /// How many endpoints offer `service`.
    #[must_use]
    pub fn endpoints_of_service(&self, service: &ServiceName) -> usize {
        let _ = service;
        0
    }

    /// How many connections use `service`.
    #[must_use]
    pub fn connections_of_service(&self, service: &ServiceName) -> usize {
        let _ = service;
        0
    }

    /// How many connections end at `endpoint`.
    #[must_use]
    pub fn connections_of_endpoint(&self, endpoint: &EndpointName) -> usize {
        let _ = endpoint;
        0
    }
}
