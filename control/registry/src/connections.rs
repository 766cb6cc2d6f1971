//! What becomes of a connection after it was asked for.

use std::sync::Arc;

use tieline_model::{Connection, ConnectionId, ConnectionState};

use crate::{Caller, ChangeKind, NodeGeneration, Record, Refusal, Registry, Settled};

impl Registry {
    /// Removes a connection for its owner or an operator.
    pub(crate) fn close(
        &mut self,
        caller: &Caller,
        id: &ConnectionId,
    ) -> Result<Vec<NodeGeneration>, Refusal> {
        let Some(connection) = self.tables.connections.get(id) else {
            return Ok(Vec::new());
        };
        match caller {
            Caller::Workload(workload) if !connection.owner.admits(workload) => {
                Err(Refusal::ForeignConnection { id: id.clone() })
            }
            Caller::Workload(_) | Caller::Operator => Ok(self.remove_connection(id).into_iter().collect()),
        }
    }

    /// Removes a connection with everything it has; the plan that its wire goes with.
    pub(crate) fn remove_connection(&mut self, id: &ConnectionId) -> Option<NodeGeneration> {
        let connection = self.tables.take_connection(id)?;
        self.asked.remove(id);
        self.note_freed(&connection, None);
        let node = connection.client.node.clone();
        if self.forget_wait(&node, id) {
            self.settled.push(Settled {
                id: id.clone(),
                result: Err(Refusal::ClosedMeanwhile { id: id.clone() }),
            });
        }
        self.touch_record(Record::Connection, id);
        self.tell_connection(ChangeKind::Delete, &connection);
        self.pass_routes_on(&connection);
        Some(self.touch_wire(&node, id))
    }

    /// The node has made the wire. One that is parked stays DOWN, for its reason, and so does one that leads to the dead.
    pub(crate) fn wire_stands(&mut self, id: &ConnectionId) {
        self.confirm(id);
        self.asked.remove(id);
        self.stand(id);
        if let Some(connection) = self.tables.connections.get(id) {
            self.settled.push(Settled {
                id: id.clone(),
                result: Ok(Arc::clone(connection)),
            });
        }
    }

    /// A connection need not go back any more.
    fn confirm(&mut self, id: &ConnectionId) {
        let connection = self.tables.connections.get(id).filter(|one| one.before.is_some());
        let Some(connection) = connection else {
            return;
        };
        let held = Arc::clone(connection);
        let mut confirmed = Connection::clone(&held);
        confirmed.before = None;
        self.note_freed(&held, Some(&confirmed));
        self.touch_record(Record::Connection, id);
        let put = self.tables.replace_connection(Arc::new(confirmed));
        debug_assert_eq!(put, Ok(()), "it gives up names and takes none");
    }

    /// Notes what a node says of a wire. A parked connection keeps its state, which says why it is parked.
    pub(crate) fn set_state(&mut self, id: &ConnectionId, state: ConnectionState) {
        let Some(connection) = self
            .tables
            .connections
            .get_mut(id)
            .filter(|one| one.state != state && !one.is_parked())
        else {
            return;
        };
        Arc::make_mut(connection).state = state;
        let connection = Arc::clone(connection);
        self.touch_record(Record::Connection, id);
        self.tell_connection(ChangeKind::Update, &connection);
    }
}
