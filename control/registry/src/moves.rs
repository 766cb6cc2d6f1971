//! Moving connections that are there, so that they lead where the rules say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tieline_model::{
    Attachment, Before, Branch, Circuit, Connection, ConnectionId, ConnectionState, EndpointName, Rebalance,
    Report, ServiceName, Step, TrafficSelector,
};
use tieline_planner::{Member, Selection, Told, balance, lower};

use crate::{
    ChangeKind, NodeGeneration, Record, Refusal, Registry, Settled,
    way::{Asking, Way, client_of},
};

/// A connection that leads elsewhere after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The connection.
    pub id: ConnectionId,
    /// Its service.
    pub service: ServiceName,
    /// Where it led; empty: it was parked.
    pub from: Vec<Leg>,
    /// Where it leads; empty: it is parked.
    pub to: Vec<Leg>,
    /// What decided.
    pub because: String,
}

/// The way of a part of a connection's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// The part; empty: what no leg before it takes.
    pub traffic: Vec<TrafficSelector>,
    /// Functions in order, and last the endpoint.
    pub path: Vec<EndpointName>,
}

impl From<&Branch> for Leg {
    fn from(branch: &Branch) -> Self {
        Self {
            traffic: branch.traffic.clone(),
            path: branch.circuit.path().cloned().collect(),
        }
    }
}

fn legs(branches: &[Branch]) -> Vec<Leg> {
    branches.iter().map(Leg::from).collect()
}

/// The rule that decided last.
fn because(report: &Report) -> String {
    let steps = report.decisions.iter().flat_map(|decision| &decision.steps);
    let how = |step: &&Step| matches!(step, Step::Policy { .. } | Step::WiringPassedOver { .. });
    let steps: Vec<String> = steps.filter(|step| !how(step)).map(ToString::to_string).collect();
    steps.join("; ")
}

impl Registry {
    /// Selects connections again, and moves those that are to lead elsewhere. All moves of one command are one plan of
    /// each node.
    pub(crate) fn replan(&mut self, ids: BTreeSet<ConnectionId>) {
        self.replan_each(ids);
        self.retry_freed();
    }

    /// Selects those again that may have waited for an interface that was set free.
    pub(crate) fn retry_freed(&mut self) {
        while let Some(service) = self.freed.pop_first() {
            let waiting = self.tables.wanting.of(&service).cloned().collect();
            self.replan_each(waiting);
        }
    }

    /// Notes the existing interfaces that a connection gives up.
    pub(crate) fn note_freed(&mut self, old: &Connection, new: Option<&Connection>) {
        let existing = |circuit: &&Circuit| matches!(circuit.server.attachment, Attachment::Interface(_));
        let keeps = |name: &EndpointName| {
            let kept = new.into_iter().flat_map(Connection::circuits).filter(existing);
            kept.into_iter().any(|circuit| circuit.endpoint == *name)
        };
        let given_up = old.circuits().filter(existing).map(|circuit| &circuit.endpoint);
        for name in given_up.filter(|name| !keeps(name)) {
            let endpoint = self.tables.endpoints().get(name);
            self.freed.extend(
                endpoint
                    .into_iter()
                    .flat_map(|one| one.services().keys())
                    .cloned(),
            );
        }
    }

    fn replan_each(&mut self, ids: BTreeSet<ConnectionId>) {
        let mut by_service: BTreeMap<ServiceName, Vec<ConnectionId>> = BTreeMap::new();
        for id in ids {
            if let Some(connection) = self.tables.connections.get(&id) {
                by_service.entry(connection.service.clone()).or_default().push(id);
            }
        }
        for (service, ids) in by_service {
            let known = self.tables.services().get(&service);
            if known.is_some_and(|service| service.rebalance() == Rebalance::Rebalance) {
                self.rebalance(&service);
            } else {
                ids.iter().for_each(|id| self.select_again(id, &Told::new()));
            }
        }
    }

    /// Selects every connection of a service again, so that each endpoint has its share.
    fn rebalance(&mut self, service: &ServiceName) {
        let ids: Vec<ConnectionId> = self.tables.by_service.of(service).cloned().collect();
        let told = {
            let stay = |id: &ConnectionId| Some((self.tables.connections.get(id)?, self.stay(id)?));
            let stays: Vec<(&Arc<Connection>, Selection)> = ids.iter().filter_map(stay).collect();
            let members: Vec<Member<'_>> = stays
                .iter()
                .map(|(connection, selection)| Member {
                    id: &connection.id,
                    node: &connection.client.node,
                    choices: &selection.choices,
                })
                .collect();
            balance(&self.tables.inventory, service, &members)
        };
        let nothing = Told::new();
        for id in ids {
            self.select_again(&id, told.get(&id).unwrap_or(&nothing));
        }
    }

    /// What a connection would be given if it stayed as far as possible.
    pub(crate) fn stay(&self, id: &ConnectionId) -> Option<Selection> {
        let connection = self.tables.connections.get(id)?;
        let service = self.tables.services().get(&connection.service)?;
        self.selection(&Asking {
            id,
            service,
            client: client_of(connection),
            wanted: None,
            connection: Some(connection),
            told: &Told::new(),
            avoid: &[],
        })
        .ok()
    }

    /// Selects one connection again; it is moved, parked, taken up again, or left as it is.
    pub(crate) fn select_again(&mut self, id: &ConnectionId, told: &Told) {
        let Some(connection) = self.tables.connections.get(id).cloned() else {
            return;
        };
        match self.way_of(&connection, told, &[]) {
            Ok(way) => self.lead(&connection, way, !told.is_empty()),
            Err(refusal) => self.park(&connection, refusal),
        }
    }

    pub(crate) fn way_of(
        &self,
        connection: &Connection,
        told: &Told,
        avoid: &[EndpointName],
    ) -> Result<Way, Refusal> {
        let service = self.tables.services().get(&connection.service);
        let service = service.ok_or_else(|| Refusal::Inconsistent {
            what: "NetworkService",
            key: connection.service.to_string(),
        })?;
        self.way(&Asking {
            id: &connection.id,
            service,
            client: client_of(connection),
            wanted: None,
            connection: Some(connection),
            told,
            avoid,
        })
    }

    /// Leads a connection along a way. Where it led for no worse reason than shares or a drain, what flows there stays.
    fn lead(&mut self, connection: &Arc<Connection>, way: Way, is_balanced: bool) {
        let outgoing = self.outgoing(connection, &way.branches, is_balanced);
        self.lead_after(connection, connection.before.clone(), way, &outgoing);
    }

    /// Leads a connection along a way while `outgoing` drain; if its node cannot, it goes back to what it was `before`.
    pub(crate) fn lead_after(
        &mut self,
        connection: &Arc<Connection>,
        before: Option<Box<Before>>,
        way: Way,
        outgoing: &[Branch],
    ) {
        let before = before.and_then(|before| self.still(*before));
        let moved = way.branches != connection.branches;
        let outgoing = outgoing.iter().chain(&connection.draining);
        let draining = self.still_draining(connection, outgoing, &way.branches);
        let same =
            way.backup == connection.backup && before == connection.before && draining == connection.draining;
        if !moved && same {
            return;
        }
        let mut changed = Connection::clone(connection);
        let stood = connection.state != ConnectionState::Pending && !connection.is_parked();
        let has = || Before {
            branches: connection.branches.clone(),
            backup: connection.backup.clone(),
            report: connection.report.clone(),
            failed: Vec::new(),
        };
        let lost = |name: &EndpointName| connection.lost.contains_key(name);
        let holds = !connection.circuits_in_use().flat_map(Circuit::path).any(lost);
        let now = (stood && holds).then(has).and_then(|before| self.still(before));
        changed.before = before.or(now);
        (changed.branches, changed.backup, changed.draining) = (way.branches, way.backup, draining);
        if moved {
            self.note_turn(&way.choices, &connection.service);
            changed.report = way.report;
            changed.note_former(connection);
            self.moved.push(Move {
                id: connection.id.clone(),
                service: connection.service.clone(),
                from: legs(&connection.branches),
                to: legs(&changed.branches),
                because: because(&changed.report),
            });
        }
        self.put_moved(connection, changed);
    }

    /// Leaves a connection without a way, or gives up one that never stood.
    pub(crate) fn park(&mut self, connection: &Arc<Connection>, refusal: Refusal) {
        let id = &connection.id;
        if connection.state == ConnectionState::Pending {
            self.give_up(connection, refusal);
            return;
        }
        let state = ConnectionState::Down {
            reason: refusal.to_string(),
        };
        if connection.is_parked() && connection.state == state {
            return;
        }
        let mut changed = Connection::clone(connection);
        changed.branches.clear();
        changed.draining.clear();
        changed.lost.clear();
        (changed.backup, changed.before, changed.state) = (None, None, state);
        if let Refusal::NoEndpoint(error) = &refusal {
            changed.report = error.report().clone();
        }
        if !connection.is_parked() {
            changed.note_former(connection);
            self.moved.push(Move {
                id: id.clone(),
                service: connection.service.clone(),
                from: legs(&connection.branches),
                to: Vec::new(),
                because: refusal.to_string(),
            });
        }
        self.put_moved(connection, changed);
    }

    /// Forgets a connection that never stood, and tells who waits for it.
    pub(crate) fn give_up(&mut self, connection: &Connection, refusal: Refusal) {
        let id = connection.id.clone();
        if self.forget_wait(&connection.client.node, &id) {
            let result = Err(refusal);
            self.settled.push(Settled {
                id: id.clone(),
                result,
            });
        }
        self.remove_connection(&id);
    }

    /// Puts a connection that leads elsewhere, and plans what its node has to change.
    pub(crate) fn put_moved(&mut self, old: &Connection, mut changed: Connection) {
        let id = old.id.clone();
        let client = old
            .path
            .segments
            .first()
            .map_or(id.as_str(), |hop| hop.name.as_str());
        changed.path = changed.path_from(client);
        if lower(&changed) != lower(old) {
            let planned = self.touch_wire(&old.client.node, &id);
            changed.generation = planned.generation;
            // One that is away decides about every wire with its next session.
            if self.nodes.get(&planned.node).is_some_and(|node| node.connected) {
                self.await_wire(&planned.node, &id, planned.generation);
            }
        }
        self.note_freed(old, Some(&changed));
        let changed = Arc::new(changed);
        self.touch_record(Record::Connection, &id);
        if changed.state != ConnectionState::Pending {
            self.tell_connection(ChangeKind::Update, &changed);
        }
        let put = self.tables.replace_connection(changed);
        debug_assert_eq!(put, Ok(()), "names were drafted beside all others");
    }

    /// Counts the choices of a selection that were made in turn.
    pub(crate) fn note_turn(&mut self, choices: &[tieline_planner::Choice], service: &ServiceName) {
        if choices.iter().any(|choice| !choice.kept) {
            let turn = self.tables.turns.entry(service.clone()).or_default();
            *turn = turn.wrapping_add(1);
            self.touch_record(Record::Turn, service);
        }
    }

    /// What a connection can still go back to.
    fn still(&self, mut before: Before) -> Option<Box<Before>> {
        before.backup = before.backup.filter(|circuit| self.stands(circuit));
        let stand = before.branches.iter().all(|branch| self.stands(&branch.circuit));
        stand.then(|| Box::new(before))
    }

    /// Whether every endpoint of a circuit is still there, where the circuit's ends are.
    pub(crate) fn stands(&self, circuit: &Circuit) -> bool {
        let at = |name: &EndpointName| self.tables.endpoints().get(name);
        let server = &circuit.server;
        let ends = at(&circuit.endpoint)
            .is_some_and(|one| *one.node() == server.node && *one.attachment() == server.attachment);
        let mut hops = circuit.hops.iter();
        ends && hops.all(|hop| {
            at(&hop.endpoint).is_some_and(|one| {
                *one.node() == hop.node && *one.attachment() == Attachment::Netns(hop.netns.clone())
            })
        })
    }

    /// The plans of the nodes of `ids` that are not sent yet.
    pub(crate) fn plans_of(&self, ids: &BTreeSet<ConnectionId>) -> Vec<NodeGeneration> {
        let nodes = ids.iter().filter_map(|id| self.tables.connections.get(id));
        let nodes: BTreeSet<_> = nodes.map(|connection| &connection.client.node).collect();
        nodes.into_iter().filter_map(|node| self.planned(node)).collect()
    }
}
