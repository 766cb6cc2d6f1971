//! The state machine: commands in, effects out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tieline_model::{
    Connection, ConnectionId, EndpointName, NetworkService, NetworkServiceEndpoint, NetworkServiceWiring,
    NodeName, RegistryDomain, ServiceName, Timestamp, WiringName,
};
use tieline_planner::{Delta, Finding, Plan, analyse, lower};

use crate::{
    ChangeKind, Command, Effects, Move, NodeGeneration, NodeState, Record, Refusal, RegistryConfig,
    RegistryEvent, Reply, Settled, Write,
    silence::Silence,
    tables::{Leased, Tables},
};

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
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) config: RegistryConfig,
    pub(crate) tables: Tables,
    pub(crate) nodes: BTreeMap<NodeName, NodeState>,
    /// Per node, the plans whose acknowledgement decides about a wire, oldest first.
    pub(crate) awaiting: BTreeMap<NodeName, BTreeSet<(u64, ConnectionId)>>,
    pub(crate) awaited: BTreeMap<ConnectionId, u64>,
    pub(crate) silence: Silence<NodeName>,
    /// Domains that have something of this one.
    pub(crate) domains: Silence<RegistryDomain>,
    /// Connections that have not stood yet and whose clients asked for the name of the interface.
    pub(crate) asked: BTreeSet<ConnectionId>,
    /// Dead endpoints whose nodes have begun a session since they said so, and whether they were heard of in it.
    pub(crate) doubted: BTreeMap<NodeName, (bool, BTreeSet<EndpointName>)>,
    dirty: BTreeSet<(Record, String)>,
    touched: BTreeMap<NodeName, Touched>,
    events: Vec<RegistryEvent>,
    pub(crate) settled: Vec<Settled>,
    /// What the command in hand moved so far.
    pub(crate) moved: Vec<Move>,
    /// Services that an existing interface was set free of: others may wait for it.
    pub(crate) freed: BTreeSet<ServiceName>,
}

/// What of a node's plan changed since the effects were taken.
#[derive(Debug, Clone)]
struct Touched {
    parent: u64,
    wires: BTreeSet<ConnectionId>,
}

impl Registry {
    /// An empty registry. Default prefixes that overlap are refused.
    pub fn new(config: RegistryConfig) -> Result<Self, Refusal> {
        let registry = Self {
            config,
            tables: Tables::default(),
            nodes: BTreeMap::new(),
            awaiting: BTreeMap::new(),
            awaited: BTreeMap::new(),
            silence: Silence::default(),
            domains: Silence::default(),
            asked: BTreeSet::new(),
            doubted: BTreeMap::new(),
            dirty: BTreeSet::new(),
            touched: BTreeMap::new(),
            events: Vec::new(),
            settled: Vec::new(),
            moved: Vec::new(),
            freed: BTreeSet::new(),
        };
        registry.check_prefixes(&BTreeMap::new())?;
        Ok(registry)
    }

    /// Carries out `command` at `now`, entirely or not at all.
    pub fn handle(&mut self, now: Timestamp, command: Command) -> Result<Reply, Refusal> {
        if let Command::Request { caller, .. } | Command::RegisterEndpoint { caller, .. } = &command {
            self.hear(now, &caller.node);
        }
        self.moved.clear();
        let reply = self.carry(now, command);
        self.retry_freed();
        reply
    }

    fn carry(&mut self, now: Timestamp, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Apply { objects, dry_run } => self.apply(now, &objects, dry_run).map(Reply::Applied),
            Command::Drain { name, draining } => self.drain(&name, draining).map(Reply::Moved),
            Command::Health {
                node,
                endpoint,
                alive,
            } => {
                self.note_health(&node, &endpoint, alive);
                Ok(Reply::Done(Vec::new()))
            }
            Command::Delete { kind, name } => self.delete(kind, &name).map(Reply::Done),
            Command::RegisterEndpoint { caller, registration } => self
                .register_endpoint(now, &caller, registration)
                .map(|endpoint| Reply::Endpoint(Box::new(endpoint))),
            Command::UnregisterEndpoint { caller, name } => {
                self.unregister_endpoint(&caller, &name).map(Reply::Done)
            }
            Command::Request { caller, request } => self
                .request(now, &caller, *request)
                .map(|granted| Reply::Connection(Box::new(granted))),
            Command::Close { caller, id } => self.close(&caller, &id).map(Reply::Done),
            Command::NodeHello(hello) => Ok(Reply::Node(self.node_hello(now, hello))),
            Command::NodeBye { node } => self.node_bye(now, &node).map(Reply::Done),
            Command::NodeReport {
                node,
                generation,
                failures,
            } => self
                .node_report(now, &node, generation, failures)
                .map(|()| Reply::Done(Vec::new())),
            Command::KeepAlive {
                node,
                connections_gone,
                endpoints_gone,
            } => self
                .keep_alive(now, &node, &connections_gone, &endpoints_gone)
                .map(Reply::Done),
            Command::Import {
                domain,
                offers,
                whole,
            } => self.import(now, &domain, offers, whole).map(Reply::Done),
            Command::Reserve(asked) => self
                .reserve(now, &asked)
                .map(|reservation| Reply::Reserved(Box::new(reservation))),
            Command::RegisterForeign { domain, endpoint } => {
                self.register_foreign(now, &domain, *endpoint).map(Reply::Done)
            }
            Command::Hold {
                domain,
                connections,
                endpoints,
            } => Ok(Reply::Held(self.hold(now, &domain, &connections, &endpoints))),
            Command::Observe { node, id, wire } => {
                self.observe(&node, &id, wire);
                Ok(Reply::Done(Vec::new()))
            }
        }
    }

    /// Ends every lease that is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.end_silence(now);
        self.end_domains(now);
        let over = |tables: &Tables| tables.leases.first().filter(|(at, _)| *at <= now).cloned();
        while let Some((_, leased)) = over(&self.tables) {
            match leased {
                Leased::Connection(id) => drop(self.remove_connection(&id)),
                Leased::Endpoint(name) => drop(self.remove_endpoint(&name)),
            }
        }
        self.retry_freed();
    }

    /// When the next lease ends.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let lease = self.tables.leases.first().map(|(at, _)| *at);
        lease
            .into_iter()
            .chain(self.silence.next())
            .chain(self.domains.next())
            .min()
    }

    /// What happened since the last call. On an error nothing is taken: call again.
    pub fn take_effects(&mut self) -> Result<Effects, Refusal> {
        let writes: Result<Vec<Write>, Refusal> = self
            .dirty
            .iter()
            .map(|(kind, name)| self.write(*kind, name))
            .collect();
        let writes = writes?;
        self.dirty.clear();
        let node_changes = std::mem::take(&mut self.touched)
            .into_iter()
            .map(|(node, touched)| {
                let delta = self.delta(&node, touched);
                (node, delta)
            })
            .collect();
        Ok(Effects {
            writes,
            node_changes,
            events: std::mem::take(&mut self.events),
            settled: std::mem::take(&mut self.settled),
        })
    }

    fn write(&self, kind: Record, name: &str) -> Result<Write, Refusal> {
        let tables = &self.tables;
        let written = match kind {
            Record::Service => tables
                .services()
                .get(name)
                .map(|service| kind.write(name, service.as_ref())),
            Record::Endpoint => tables
                .endpoints()
                .get(name)
                .map(|endpoint| kind.write(name, endpoint.as_ref())),
            Record::Wiring => tables
                .wirings()
                .get(name)
                .map(|wiring| kind.write(name, wiring.as_ref())),
            Record::Connection => tables
                .connections
                .get(name)
                .map(|connection| kind.write(name, connection.as_ref())),
            Record::Node => self.nodes.get(name).map(|node| kind.write(name, node)),
            Record::Dead => dead_of(tables, name).map(|dead| kind.write(name, &dead)),
            Record::Reservation => tables
                .reservations
                .get(name)
                .map(|reservation| kind.write(name, reservation.as_ref())),
            Record::Turn => tables.turns.get(name).map(|turn| kind.write(name, turn)),
            Record::Addresses => {
                let last = name
                    .parse()
                    .ok()
                    .and_then(|prefix| tables.addresses.last(&prefix));
                last.map(|last| kind.write(name, &last))
            }
        };
        written.unwrap_or_else(|| Ok(kind.delete(name)))
    }

    fn delta(&self, node: &NodeName, touched: Touched) -> Delta {
        let generation = self
            .nodes
            .get(node)
            .map_or(touched.parent, |node| node.generation);
        let mut delta = Delta {
            generation,
            parent: touched.parent,
            ..Delta::default()
        };
        for id in touched.wires {
            match self.tables.connections.get(&id) {
                Some(connection) => drop(delta.upsert.insert(id, lower(connection))),
                None => drop(delta.remove.insert(id)),
            }
        }
        delta
    }

    /// A node's whole plan. Take the effects first: what they hold is in it.
    #[must_use]
    pub fn node_snapshot(&self, node: &NodeName) -> Plan {
        let generation = self.nodes.get(node).map_or(0, |node| node.generation);
        let connections = self
            .tables
            .by_node
            .of(node)
            .filter_map(|id| self.tables.connections.get(id));
        let wires = connections
            .map(|connection| (connection.id.clone(), lower(connection)))
            .collect();
        Plan {
            generation,
            parent: generation,
            wires,
        }
    }

    /// Notes that an object must be written, or deleted if it is gone.
    pub(crate) fn touch_record(&mut self, kind: Record, name: &impl ToString) {
        self.dirty.insert((kind, name.to_string()));
    }

    /// Notes that a wire of `node` changes. All changes between two calls of [`Self::take_effects`] make one plan.
    pub(crate) fn touch_wire(&mut self, node: &NodeName, id: &ConnectionId) -> NodeGeneration {
        let state = self
            .nodes
            .entry(node.clone())
            .or_insert_with(|| NodeState::unseen(node.clone()));
        let touched = self.touched.entry(node.clone()).or_insert_with(|| {
            let parent = state.generation;
            state.generation += 1;
            Touched {
                parent,
                wires: BTreeSet::new(),
            }
        });
        touched.wires.insert(id.clone());
        let generation = state.generation;
        self.touch_record(Record::Node, node);
        NodeGeneration {
            node: node.clone(),
            generation,
        }
    }

    /// The plan of `node` that is not sent yet, if there is one.
    pub(crate) fn planned(&self, node: &NodeName) -> Option<NodeGeneration> {
        let generation = self
            .nodes
            .get(node)
            .filter(|_| self.touched.contains_key(node))?
            .generation;
        Some(NodeGeneration {
            node: node.clone(),
            generation,
        })
    }

    /// The plan that the next change of `node` will be in.
    pub(crate) fn next_generation(&self, node: &NodeName) -> u64 {
        let planned = self.nodes.get(node).map_or(0, |node| node.generation);
        if self.touched.contains_key(node) {
            planned
        } else {
            planned + 1
        }
    }

    /// The acknowledgement of `generation` decides about the wire of `id`.
    pub(crate) fn await_wire(&mut self, node: &NodeName, id: &ConnectionId, generation: u64) {
        self.forget_wait(node, id);
        self.awaiting
            .entry(node.clone())
            .or_default()
            .insert((generation, id.clone()));
        self.awaited.insert(id.clone(), generation);
    }

    /// No acknowledgement decides about the wire of `id` any more; whether one did.
    pub(crate) fn forget_wait(&mut self, node: &NodeName, id: &ConnectionId) -> bool {
        let Some(generation) = self.awaited.remove(id) else {
            return false;
        };
        if let Some(waits) = self.awaiting.get_mut(node) {
            waits.remove(&(generation, id.clone()));
            if waits.is_empty() {
                self.awaiting.remove(node);
            }
        }
        true
    }

    pub(crate) fn tell(&mut self, event: RegistryEvent) {
        self.events.push(event);
    }

    pub(crate) fn tell_connection(&mut self, kind: ChangeKind, connection: &Arc<Connection>) {
        self.tell(RegistryEvent::Connection(kind, Arc::clone(connection)));
    }
}

fn dead_of(tables: &Tables, name: &str) -> Option<bool> {
    let name = name.parse().ok()?;
    tables.inventory.is_dead(&name).then_some(true)
}

/// How it is looked at.
impl Registry {
    /// What it was set up with.
    #[must_use]
    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            services: self.tables.services().len(),
            endpoints: self.tables.endpoints().len(),
            connections: self.tables.connections.len(),
        }
    }

    /// Every service, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<NetworkService>> {
        self.tables.services().values()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<NetworkService>> {
        self.tables.services().get(name)
    }

    /// Every endpoint, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<NetworkServiceEndpoint>> {
        self.tables.endpoints().values()
    }

    /// One endpoint.
    #[must_use]
    pub fn endpoint(&self, name: &EndpointName) -> Option<&Arc<NetworkServiceEndpoint>> {
        self.tables.endpoints().get(name)
    }

    /// Every wiring, by name.
    pub fn wirings(&self) -> impl Iterator<Item = &Arc<NetworkServiceWiring>> {
        self.tables.wirings().values()
    }

    /// Every connection, by id. [`tieline_model::MonitorScope::matches`] says which a watcher gets.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.tables.connections.values()
    }

    /// One connection.
    #[must_use]
    pub fn connection(&self, id: &ConnectionId) -> Option<&Arc<Connection>> {
        self.tables.connections.get(id)
    }

    /// Every node that said hello, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.values()
    }

    /// One node.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeState> {
        self.nodes.get(name)
    }

    /// How many wires `node` has in its plan.
    #[must_use]
    pub fn wires_of_node(&self, node: &NodeName) -> usize {
        self.tables.by_node.count(node)
    }

    /// How many endpoints offer `service`.
    #[must_use]
    pub fn endpoints_of_service(&self, service: &ServiceName) -> usize {
        self.tables.inventory.offering(service).len()
    }

    /// How many connections use `service`.
    #[must_use]
    pub fn connections_of_service(&self, service: &ServiceName) -> usize {
        self.tables.by_service.count(service)
    }

    /// How many connections have flows at `endpoint` that were there before they left it.
    #[must_use]
    pub fn connections_draining_at(&self, endpoint: &EndpointName) -> usize {
        self.tables.drains.count(endpoint)
    }

    /// How long a node, or another domain, may be silent.
    #[must_use]
    pub fn node_lease(&self) -> tieline_model::Lease {
        self.config.node_lease
    }

    /// How many connections `wiring` decided about.
    #[must_use]
    pub fn connections_of_wiring(&self, wiring: &WiringName) -> usize {
        self.tables.by_wiring.count(wiring)
    }

    /// What is wrong with the rules.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        analyse(&self.tables.inventory)
    }

    /// How many connections lead through `endpoint`.
    #[must_use]
    pub fn connections_of_endpoint(&self, endpoint: &EndpointName) -> usize {
        self.tables.by_endpoint.count(endpoint)
    }
}
