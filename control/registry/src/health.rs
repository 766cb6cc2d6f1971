//! What nodes see of endpoints, and do about it by themselves.

use tieline_model::{
    Branch, Circuit, Connection, ConnectionId, ConnectionState, Decision, EndpointName, NodeName, Step,
};
use tieline_planner::Told;

use crate::{Record, Registry};

/// Why a connection is DOWN that leads to a dead endpoint because there is no other.
fn unanswered(endpoint: &EndpointName) -> ConnectionState {
    ConnectionState::Down {
        reason: format!(
            "endpoint {endpoint} does not answer and there is no other: start it, or register another one"
        ),
    }
}

impl Registry {
    /// Notes whether an endpoint lives, as its node sees it: connections leave the dead, and may come back to the living.
    pub(crate) fn note_health(&mut self, node: &NodeName, name: &EndpointName, alive: bool) {
        let here = self
            .tables
            .endpoints()
            .get(name)
            .filter(|one| one.node() == node)
            .cloned();
        let Some(endpoint) = here.filter(|_| self.tables.inventory.set_dead(name, !alive)) else {
            return;
        };
        self.touch_record(Record::Dead, name);
        let concerned = self.concerned(Some(&endpoint), Some(&endpoint));
        self.replan(concerned);
        let stay: Vec<ConnectionId> = self.tables.by_endpoint.of(name).cloned().collect();
        let down = unanswered(name);
        for id in stay {
            let state = self.tables.connections.get(&id).map(|one| &one.state);
            match state {
                Some(ConnectionState::Up) if !alive => self.set_state(&id, down.clone()),
                Some(state) if alive && *state == down => self.set_state(&id, ConnectionState::Up),
                _ => {}
            }
        }
    }

    /// A node leads a wire over its backup: that is its way from here on, and another backup is looked for.
    pub(crate) fn switched(&mut self, id: &ConnectionId, endpoint: &EndpointName) {
        let Some(connection) = self.tables.connections.get(id).cloned() else {
            return;
        };
        let Some(backup) = connection.backup.as_ref().filter(|one| one.endpoint == *endpoint) else {
            return;
        };
        let mut changed = Connection::clone(&connection);
        self.lead_over(backup, &mut changed.branches);
        changed.report.decisions.push(Decision {
            steps: vec![Step::Switched],
            ..Decision::default()
        });
        changed.draining = self.still_draining(connection.draining.iter(), &changed.branches);
        (changed.backup, changed.before) = (None, None);
        changed.note_former(&connection);
        self.put_moved(&connection, changed);
        self.set_state(id, ConnectionState::Up);
        self.select_again(id, &Told::new());
    }

    /// Leads the branches over `backup` that an endpoint known to be dead is on; if there is none, the one for the rest of
    /// the traffic, which the backup is for.
    fn lead_over(&self, backup: &Circuit, branches: &mut [Branch]) {
        let is_dead = |name: &EndpointName| self.tables.inventory.is_dead(name);
        let fails = |branch: &&mut Branch| branch.circuit.path().any(is_dead);
        let mut led = 0;
        for branch in branches.iter_mut().filter(fails) {
            branch.circuit = backup.clone();
            led += 1;
        }
        if let Some(rest) = branches.last_mut().filter(|_| led == 0) {
            rest.circuit = backup.clone();
        }
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
