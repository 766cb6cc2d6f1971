//! Changes that a node could not carry out: another way is tried, or the old one taken back.

use std::sync::Arc;

use tieline_model::{
    Attachment, Before, Connection, ConnectionState, Decision, EndpointName, NetworkServiceEndpoint, Step,
};
use tieline_planner::Told;

use crate::{NodeFailure, Refusal, Registry, Settled, WireFailureKind};

/// The most endpoints that are tried one after another for one change.
const MAX_FAILED: usize = 8;

impl Registry {
    /// The node could not make the wire. Names that something else has are exchanged. A new wire is tried elsewhere, or
    /// refused; one that was changed is led elsewhere, or back; another is DOWN.
    pub(crate) fn wire_failed(&mut self, failure: NodeFailure) {
        let Some(connection) = self.tables.connections.get(&failure.id).cloned() else {
            return;
        };
        if self.rename(&connection, &failure) {
            return;
        }
        let blamed = self.blamed(&connection, &failure);
        if self.try_elsewhere(&connection, &blamed, &failure) {
            return;
        }
        if let Some(before) = connection
            .before
            .as_ref()
            .filter(|before| !before.branches.is_empty())
        {
            self.take_back(&connection, before, &failure);
            return;
        }
        let NodeFailure {
            id,
            kind,
            field,
            value,
            message,
        } = failure;
        let refusal = Refusal::Wire {
            kind,
            field,
            value,
            message: message.clone(),
        };
        if connection.state == ConnectionState::Pending {
            self.give_up(&connection, refusal);
            return;
        }
        if self.forget_wait(&connection.client.node, &id) {
            let result = Err(refusal);
            self.settled.push(Settled {
                id: id.clone(),
                result,
            });
        }
        self.lost(&id, blamed.first(), message);
    }

    /// The endpoints that a failure is about. What a node says of a namespace or interface tells which; of anything
    /// else, those that a change brought in are.
    fn blamed(&self, connection: &Connection, failure: &NodeFailure) -> Vec<EndpointName> {
        let on_path = connection.circuits().flat_map(tieline_model::Circuit::path);
        let named = |endpoint: &NetworkServiceEndpoint| match endpoint.attachment() {
            Attachment::Netns(netns) => netns.path() == failure.value,
            Attachment::Interface(name) => name.as_str() == failure.value,
        };
        let is_named = |name: &&EndpointName| {
            let endpoint = self.tables.endpoints().get(*name);
            endpoint.is_some_and(|endpoint| named(endpoint))
        };
        match failure.kind {
            WireFailureKind::NetnsGone if connection.client.netns.path() == failure.value => Vec::new(),
            WireFailureKind::NetnsGone | WireFailureKind::InterfaceGone => {
                on_path.filter(is_named).cloned().collect()
            }
            WireFailureKind::Capacity => Vec::new(),
            WireFailureKind::NameTaken | WireFailureKind::AddressTaken | WireFailureKind::Kernel => {
                let Some(before) = &connection.before else {
                    return Vec::new();
                };
                let was =
                    |name: &EndpointName| before.circuits().any(|one| one.path().any(|other| other == name));
                on_path.filter(|name| !was(name)).cloned().collect()
            }
        }
    }

    /// Leads a connection past endpoints that its node could not lead it to; false if there is no way past them but the one
    /// before.
    fn try_elsewhere(
        &mut self,
        connection: &Arc<Connection>,
        blamed: &[EndpointName],
        failure: &NodeFailure,
    ) -> bool {
        let mut before = connection.before.clone().unwrap_or_default();
        let known = before.failed.len();
        for name in blamed {
            if !before.failed.contains(name) {
                before.failed.push(name.clone());
            }
        }
        if before.failed.len() == known || before.failed.len() > MAX_FAILED {
            return false;
        }
        let mut tried = Connection::clone(connection);
        if matches!(
            failure.kind,
            WireFailureKind::NetnsGone | WireFailureKind::InterfaceGone
        ) {
            let lost = blamed.iter().map(|name| (name.clone(), failure.message.clone()));
            tried.lost.extend(lost);
        }
        let Ok(way) = self.way_of(&tried, &Told::new(), &before.failed) else {
            return false;
        };
        if way.branches == before.branches {
            return false;
        }
        self.lead_after(&Arc::new(tried), Some(before), way, &[]);
        true
    }

    /// Leads a connection back to where it was before a change.
    fn take_back(&mut self, connection: &Arc<Connection>, before: &Before, failure: &NodeFailure) {
        let mut changed = Connection::clone(connection);
        let Before {
            branches,
            backup,
            mut report,
            failed,
        } = before.clone();
        report.decisions.push(Decision {
            steps: vec![Step::WentBack {
                because: failure.message.clone(),
            }],
            ..Decision::default()
        });
        let spoilt = |circuit: &tieline_model::Circuit| circuit.path().any(|name| failed.contains(name));
        changed.backup = backup.filter(|circuit| !spoilt(circuit));
        changed.draining = self.still_draining(&changed, connection.draining.iter(), &branches);
        (changed.branches, changed.report, changed.before) = (branches, report, None);
        self.put_moved(connection, changed);
    }
}
