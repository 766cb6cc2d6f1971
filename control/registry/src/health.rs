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

/// Why a connection is DOWN whose node has lost an endpoint on its way.
fn unreached(endpoint: &EndpointName, because: &str) -> ConnectionState {
    ConnectionState::Down {
        reason: format!(
            "endpoint {endpoint} is lost and there is no other: start it, or register another one: {because}"
        ),
    }
}

impl Registry {
    /// Notes whether an endpoint lives, as its node sees it: connections leave the dead, and may come back to the living.
    pub(crate) fn note_health(&mut self, node: &NodeName, name: &EndpointName, alive: bool) {
        if let Some((_, doubted)) = self.doubted.get_mut(node) {
            doubted.remove(name);
        }
        let here = self
            .tables
            .endpoints()
            .get(name)
            .filter(|one| one.node() == node)
            .cloned();
        let Some(endpoint) = here else {
            return;
        };
        let found = alive && self.find_again(name);
        if self.tables.inventory.set_dead(name, !alive) {
            self.touch_record(Record::Dead, name);
        } else if !found {
            return;
        }
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

    /// A session of a node begins. What it has said of wires and endpoints may have changed unheard: it says again what still
    /// holds.
    pub(crate) fn doubt(&mut self, node: &NodeName) {
        let endpoints = self.tables.endpoints().values();
        let dead = endpoints.filter(|one| one.node() == node && self.tables.inventory.is_dead(one.name()));
        let dead = dead.map(|one| one.name().clone()).collect();
        self.doubted.insert(node.clone(), (false, dead));
        let connections = self.tables.by_node.of(node);
        let connections = connections.filter_map(|id| self.tables.connections.get(id).cloned());
        let losers: Vec<_> = connections.filter(|one| !one.lost.is_empty()).collect();
        for connection in &losers {
            let mut changed = Connection::clone(connection);
            changed.lost.clear();
            self.put_moved(connection, changed);
        }
        self.replan(losers.iter().map(|one| one.id.clone()).collect());
    }

    /// A node is heard of once more. The dead of which it has said nothing since its session began are believed to live.
    pub(crate) fn end_doubt(&mut self, node: &NodeName) {
        if self.awaiting.get(node).is_some_and(|waits| !waits.is_empty()) {
            return;
        }
        match self.doubted.get_mut(node) {
            Some((heard @ false, _)) => *heard = true,
            Some(_) => {
                let (_, doubted) = self.doubted.remove(node).unwrap_or_default();
                for name in &doubted {
                    self.note_health(node, name, true);
                }
            }
            None => {}
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
        changed.draining = self.still_draining(&connection, connection.draining.iter(), &changed.branches);
        (changed.backup, changed.before) = (None, None);
        changed.note_former(&connection);
        self.put_moved(&connection, changed);
        self.stand(id);
        self.select_again(id, &Told::new());
    }

    /// A node has lost a wire: one whose way to an endpoint is gone is led elsewhere.
    pub(crate) fn lost(&mut self, id: &ConnectionId, endpoint: Option<&EndpointName>, because: String) {
        let Some(connection) = self.tables.connections.get(id).cloned() else {
            return;
        };
        let Some(endpoint) = endpoint else {
            self.set_state(id, ConnectionState::Down { reason: because });
            return;
        };
        let passes = |circuit: &&Circuit| circuit.path().any(|name| name == endpoint);
        let in_use = connection.circuits_in_use().find(passes);
        if self.tables.inventory.is_dead(endpoint) || connection.lost.contains_key(endpoint) {
            if in_use.is_some() {
                self.stand(id);
            }
            return;
        }
        if !connection.circuits().any(|circuit| passes(&circuit)) {
            return;
        }
        let mut changed = Connection::clone(&connection);
        changed.lost.insert(endpoint.clone(), because.clone());
        if let Some(circuit) = in_use {
            changed.state = unreached(endpoint, &because);
            // What cannot be reached behind functions may be lost with one of them: they are left if that is possible.
            let mut cautious = changed.clone();
            let all = circuit.path().filter(|_| circuit.endpoint == *endpoint);
            cautious
                .lost
                .extend(all.map(|name| (name.clone(), because.clone())));
            let way = self.way_of(&cautious, &Told::new(), &[]);
            let is_lost =
                |branch: &Branch| branch.circuit.path().any(|name| cautious.lost.contains_key(name));
            if way.is_ok_and(|way| !way.branches.iter().any(is_lost)) {
                changed = cautious;
            }
        }
        self.put_moved(&connection, changed);
        self.select_again(id, &Told::new());
    }

    /// A wire forwards again, where it leads. One that is parked leads nowhere.
    pub(crate) fn restored(&mut self, id: &ConnectionId) {
        let connection = self.tables.connections.get(id);
        let Some(connection) = connection.filter(|one| !one.is_parked()).cloned() else {
            return;
        };
        let on_way = |name: &EndpointName| {
            let mut names = connection.circuits_in_use().flat_map(Circuit::path);
            names.any(|one| one == name)
        };
        let mut changed = Connection::clone(&connection);
        changed.lost.retain(|name, _| !on_way(name));
        if changed.lost != connection.lost {
            self.put_moved(&connection, changed);
        }
        self.stand(id);
        self.select_again(id, &Told::new());
    }

    /// An endpoint is elsewhere, or answers again: whoever has lost it may try it. Whether there is somebody.
    pub(crate) fn find_again(&mut self, name: &EndpointName) -> bool {
        let losers: Vec<ConnectionId> = self.tables.lost.of(name).cloned().collect();
        for id in &losers {
            if let Some(connection) = self.tables.connections.get(id).cloned() {
                let mut changed = Connection::clone(&connection);
                changed.lost.remove(name);
                self.put_moved(&connection, changed);
            }
        }
        !losers.is_empty()
    }

    /// The state of a connection whose wire its node has made: it is UP unless it leads to the dead.
    pub(crate) fn standing(&self, connection: &Connection) -> ConnectionState {
        let mut names = connection.circuits_in_use().flat_map(Circuit::path);
        let state = names.find_map(|name| {
            let dead = self.tables.inventory.is_dead(name).then(|| unanswered(name));
            dead.or_else(|| Some(unreached(name, connection.lost.get(name)?)))
        });
        state.unwrap_or(ConnectionState::Up)
    }

    pub(crate) fn stand(&mut self, id: &ConnectionId) {
        if let Some(connection) = self.tables.connections.get(id) {
            let state = self.standing(connection);
            self.set_state(id, state);
        }
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
}
