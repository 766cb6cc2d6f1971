//! What goes on beside a connection's way: flows that were there before it was led elsewhere.

use tieline_model::{
    Attachment, Branch, Circuit, Connection, ConnectionId, EndpointName, NodeName, limits::MAX_BRANCHES,
};

use crate::Registry;

impl Registry {
    /// Whether a connection leads through an endpoint that is drained.
    pub(crate) fn is_drained(&self, connection: &Connection) -> bool {
        let mut names = connection.circuits_in_use().flat_map(Circuit::path);
        names.any(|name| {
            self.tables
                .endpoints()
                .get(name)
                .is_some_and(|one| one.is_draining())
        })
    }

    /// What of `draining`, the last ones first, can go on beside `branches`: it stands, nobody on it is dead or lost, and
    /// it has no end where a branch has another one.
    pub(crate) fn still_draining<'a>(
        &self,
        connection: &Connection,
        draining: impl Iterator<Item = &'a Branch>,
        branches: &[Branch],
    ) -> Vec<Branch> {
        let dead =
            |name: &EndpointName| self.tables.inventory.is_dead(name) || connection.lost.contains_key(name);
        let mut still: Vec<Branch> = Vec::new();
        for one in draining {
            let circuit = &one.circuit;
            let taken = branches
                .iter()
                .chain(&still)
                .any(|other| meet(&other.circuit, circuit));
            let is_room = branches.len() + still.len() < MAX_BRANCHES;
            if is_room && !taken && self.stands(circuit) && !circuit.path().any(dead) {
                still.push(one.clone());
            }
        }
        still
    }

    /// The last flow has ended at an endpoint that a connection left.
    pub(crate) fn drained(&mut self, id: &ConnectionId, endpoint: &EndpointName) {
        let Some(connection) = self.tables.connections.get(id).cloned() else {
            return;
        };
        let mut changed = Connection::clone(&connection);
        changed
            .draining
            .retain(|branch| branch.circuit.endpoint != *endpoint);
        if changed.draining != connection.draining {
            self.put_moved(&connection, changed);
        }
    }
}

/// The branches of a connection that flows go on in which are there, when it leads along `branches`: with the same
/// functions before another end, or whatever their way if it is left `gently`. Functions that come between are never
/// passed by.
pub(crate) fn outgoing(connection: &Connection, branches: &[Branch], gently: bool) -> Vec<Branch> {
    let functions = |circuit: &Circuit| {
        circuit
            .hops
            .iter()
            .map(|hop| hop.endpoint.clone())
            .collect::<Vec<_>>()
    };
    let goes = |old: &&Branch| {
        let same = |new: &&Branch| new.wiring == old.wiring && new.traffic == old.traffic;
        let next = branches.iter().find(same).or(branches.last());
        next.is_some_and(|next| gently || functions(&next.circuit) == functions(&old.circuit))
    };
    connection.branches.iter().filter(goes).cloned().collect()
}

/// Whether two circuits meet in a namespace or at an interface other than by passing the same function: two ends of one
/// connection would have the same routes there.
fn meet(one: &Circuit, other: &Circuit) -> bool {
    let places = |circuit: &Circuit| {
        let hops = circuit.hops.iter().map(|hop| {
            let at = Attachment::Netns(hop.netns.clone());
            (hop.node.clone(), at, Some(hop.endpoint.clone()))
        });
        let end = &circuit.server;
        let end = (end.node.clone(), end.attachment.clone(), None);
        hops.chain([end]).collect::<Vec<_>>()
    };
    let others = places(other);
    let beside = |(node, at, function): &(NodeName, Attachment, Option<EndpointName>)| {
        let mut same = others.iter().filter(|one| (&one.0, &one.1) == (node, at));
        same.any(|one| function.is_none() || one.2 != *function)
    };
    places(one).iter().any(beside)
}
