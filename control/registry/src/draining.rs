//! What goes on beside a connection's way: flows that were there before it was led elsewhere.

use tieline_model::{
    Attachment, Branch, Circuit, Connection, ConnectionId, EndpointName, NodeName, limits::MAX_BRANCHES,
};

use tieline_planner::BranchPath;

use crate::Registry;

impl Registry {
    /// The branches of a connection that flows go on in which are there, when it leads along `branches`: those that it
    /// leaves only because somebody on the way is drained, or for the sake of shares. What the rules do not allow any more is left
    /// at once.
    pub(crate) fn outgoing(
        &self,
        connection: &Connection,
        branches: &[Branch],
        is_balanced: bool,
    ) -> Vec<Branch> {
        if branches == connection.branches {
            return Vec::new();
        }
        let for_shares = is_balanced && self.may_stay(connection);
        let is_drained = |name: &EndpointName| {
            let endpoint = self.tables.endpoints().get(name);
            endpoint.is_some_and(|one| one.is_draining())
        };
        let goes = |old: &&Branch| for_shares || old.circuit.path().any(is_drained);
        connection.branches.iter().filter(goes).cloned().collect()
    }

    /// Whether the rules allow a connection to stay where it is.
    fn may_stay(&self, connection: &Connection) -> bool {
        let Some(stay) = self.stay(&connection.id) else {
            return false;
        };
        let now = connection.branches.iter().map(|branch| branch.circuit.path());
        let same = |(a, b): (&BranchPath, _)| a.names().eq(b);
        stay.branches.len() == connection.branches.len() && stay.branches.iter().zip(now).all(same)
    }

    /// What of `draining`, the last ones first, can go on beside `branches`: it stands, nobody on it is dead or lost, it
    /// passes as many functions as the branch that gets its new flows, and has no end where a branch has another one.
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
            let next = one.successor(branches).and_then(|next| branches.get(next));
            let is_as_long = next.is_some_and(|next| next.circuit.hops.len() == circuit.hops.len());
            let is_room = branches.len() + still.len() < MAX_BRANCHES;
            if is_room && is_as_long && !taken && self.stands(circuit) && !circuit.path().any(dead) {
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
