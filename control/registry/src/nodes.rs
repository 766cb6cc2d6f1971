//! Nodes: their sessions, plans and what they report.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tieline_model::{ConnectionId, ConnectionState, Invalid, MachineId, NodeName, Timestamp};

use crate::{NodeFailure, NodeGeneration, NodeHello, ObservedWire, Record, Refusal, Registry, Settled};

/// A node that has said hello at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name.
    pub name: NodeName,
    /// Its plan. It only ever grows.
    pub generation: u64,
    /// The plan that it has carried out, as far as it told since this control began.
    #[serde(skip)]
    pub applied: u64,
    /// Whether its agent has a session.
    #[serde(skip)]
    pub connected: bool,
    /// Release of its agent.
    pub version: String,
    /// `block+tcx`, `block+clsact` or `tcx`: see `docs/kernel-support.md`.
    pub attach_backend: String,
    /// How many wires it can hold.
    pub max_wires: u32,
    /// The machine that it is on, if that is known.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// When its session last began or ended, or it last reported.
    #[serde(skip)]
    pub last_seen: Timestamp,
}

impl NodeState {
    /// A node that has not said hello yet.
    pub(crate) fn unseen(name: NodeName) -> Self {
        Self {
            name,
            generation: 0,
            applied: 0,
            connected: false,
            version: String::new(),
            attach_backend: String::new(),
            max_wires: 0,
            machine: None,
            last_seen: Timestamp::default(),
        }
    }
}

impl Registry {
    /// Begins a session. The node is sent its whole plan, so the next acknowledgement decides about every wire of it.
    pub(crate) fn node_hello(&mut self, now: Timestamp, hello: NodeHello) -> NodeGeneration {
        let NodeHello {
            node: name,
            version,
            generation,
            attach_backend,
            max_wires,
            machine,
        } = hello;
        let node = self
            .nodes
            .entry(name.clone())
            .or_insert_with(|| NodeState::unseen(name.clone()));
        if generation > node.generation {
            // Its kernel is ahead of what we know: the store was set back. Our plan must be newer than what it has.
            node.generation = generation + 1;
        }
        node.connected = true;
        node.last_seen = now;
        (node.version, node.attach_backend, node.max_wires) = (version, attach_backend, max_wires);
        node.applied = generation;
        let moved = std::mem::replace(&mut node.machine, machine.clone()) != machine;
        let known = node.generation;
        self.hear(now, &name);
        self.touch_record(Record::Node, &name);
        if moved {
            let concerned = self.note_machine(&name);
            self.replan(concerned);
        }
        self.doubt(&name);
        let planned = self.planned(&name).map_or(known, |planned| planned.generation);
        let ids: Vec<ConnectionId> = self.tables.by_node.of(&name).cloned().collect();
        for id in ids {
            self.await_wire(&name, &id, planned);
        }
        NodeGeneration {
            node: name,
            generation: planned,
        }
    }

    /// Ends a session. Nobody is left waiting: wires that never stood are forgotten, the others keep their plan.
    pub(crate) fn node_bye(
        &mut self,
        now: Timestamp,
        name: &NodeName,
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        let node = self
            .nodes
            .get_mut(name)
            .ok_or_else(|| Refusal::UnknownNode { node: name.clone() })?;
        node.connected = false;
        node.last_seen = now;
        let mut planned = BTreeSet::new();
        for (_, id) in self.awaiting.remove(name).unwrap_or_default() {
            self.awaited.remove(&id);
            let refusal = Refusal::NodeLeft {
                node: name.clone(),
                id: id.clone(),
            };
            self.settled.push(Settled {
                id: id.clone(),
                result: Err(refusal),
            });
            let pending = self
                .tables
                .connections
                .get(&id)
                .is_some_and(|one| one.state == ConnectionState::Pending);
            if pending {
                planned.extend(self.remove_connection(&id));
            }
        }
        Ok(planned.into_iter().collect())
    }

    /// Takes an acknowledgement: what it covers and does not list stands.
    pub(crate) fn node_report(
        &mut self,
        now: Timestamp,
        name: &NodeName,
        generation: u64,
        failures: Vec<NodeFailure>,
    ) -> Result<(), Refusal> {
        let node = self
            .nodes
            .get_mut(name)
            .ok_or_else(|| Refusal::UnknownNode { node: name.clone() })?;
        if generation > node.generation {
            let rule = format!(
                "the node's plan is {}: an acknowledgement cannot be ahead of it",
                node.generation
            );
            return Err(Invalid::new("ack.generation", generation.to_string(), rule).into());
        }
        node.applied = node.applied.max(generation);
        node.last_seen = now;
        self.hear(now, name);
        for failure in failures {
            let later = self
                .awaited
                .get(&failure.id)
                .is_some_and(|awaited| *awaited > generation);
            let here = self
                .tables
                .connections
                .get(&failure.id)
                .is_some_and(|one| one.client.node == *name);
            if here && !later {
                self.wire_failed(failure);
            }
        }
        while let Some((awaited, id)) = self.awaiting.get(name).and_then(|waits| waits.first()).cloned() {
            if awaited > generation {
                break;
            }
            self.forget_wait(name, &id);
            self.wire_stands(&id);
        }
        Ok(())
    }

    /// Takes what a node saw of a wire by itself. What it says of a wire that it does not have is of no concern.
    pub(crate) fn observe(&mut self, name: &NodeName, id: &ConnectionId, wire: ObservedWire) {
        let known = self.tables.connections.get(id);
        if !known.is_some_and(|one| one.client.node == *name && one.state != ConnectionState::Pending) {
            return;
        }
        match wire {
            ObservedWire::Lost { endpoint, message } => self.lost(id, endpoint.as_ref(), message),
            ObservedWire::Restored => self.restored(id),
            ObservedWire::Switched { endpoint } => self.switched(id, &endpoint),
            ObservedWire::Drained { endpoint } => self.drained(id, &endpoint),
        }
    }
}
