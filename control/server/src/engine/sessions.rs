//! The agents' sessions, as the engine sees them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tieline_model::{Lease, NetworkServiceEndpoint, NodeName};
use tieline_planner::{Delta, Plan};

use crate::outlet::{End, Outlet};

/// Changes that may wait for a slow agent before its session ends and it starts again from a snapshot.
pub(crate) const SESSION_QUEUE: usize = 256;

/// Tells sessions apart, also those of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(u64);

/// What a session sends down.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// What a session begins with.
    Snapshot(Box<Start>),
    /// A change of the plan.
    Delta(Arc<Delta>),
}

/// What a session begins with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// The whole plan.
    pub(crate) plan: Plan,
    /// Endpoints whose leases the node keeps.
    pub(crate) kept: Vec<Arc<NetworkServiceEndpoint>>,
    /// How long the node may be silent.
    pub(crate) node_lease: Lease,
}

#[derive(Debug)]
struct NodeSession {
    id: SessionId,
    outlet: Outlet<Down>,
    /// The generation that was sent last.
    sent: u64,
}

/// At most one session for each node.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    last_id: u64,
    nodes: BTreeMap<NodeName, NodeSession>,
}

impl Sessions {
    /// Whether `id` is the node's session at present.
    pub(super) fn is_current(&self, node: &NodeName, id: SessionId) -> bool {
        self.nodes.get(node).is_some_and(|session| session.id == id)
    }

    /// Begins a session with the node's whole plan, and ends the one that the node had.
    pub(super) fn begin(&mut self, node: NodeName, start: Start, outlet: Outlet<Down>) -> SessionId {
        self.last_id += 1;
        let id = SessionId(self.last_id);
        let sent = start.plan.generation;
        // The queue is empty, so this fails only if the agent has left; its end of the stream says so next.
        let _ = outlet.send(Down::Snapshot(Box::new(start)));
        if let Some(before) = self.nodes.insert(node, NodeSession { id, outlet, sent }) {
            before.outlet.end(End::Replaced);
        }
        id
    }

    /// Sends a node its change. `false`: the node had a session, and it is over.
    #[must_use]
    pub(super) fn send(&mut self, node: &NodeName, delta: Delta) -> bool {
        let Some(session) = self.nodes.get_mut(node) else {
            return true;
        };
        if delta.generation <= session.sent {
            // In the snapshot that the session began with.
            return true;
        }
        session.sent = delta.generation;
        if session.outlet.send(Down::Delta(Arc::new(delta))) {
            return true;
        }
        self.nodes.remove(node);
        false
    }

    /// Forgets the session if it is the node's present one, and says whether it was.
    pub(super) fn leave(&mut self, node: &NodeName, id: SessionId) -> bool {
        let current = self.is_current(node, id);
        if current {
            self.nodes.remove(node);
        }
        current
    }

    /// Ends all sessions.
    pub(super) fn end_all(&mut self, end: End) {
        for session in std::mem::take(&mut self.nodes).into_values() {
            session.outlet.end(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::outlet::{Inlet, outlet};

    fn node() -> NodeName {
        NodeName::parse("node", "n1").unwrap()
    }

    fn start(generation: u64) -> Start {
        Start {
            plan: Plan {
                generation,
                ..Plan::default()
            },
            kept: Vec::new(),
            node_lease: Lease::from_secs(300),
        }
    }

    fn delta(parent: u64, generation: u64) -> Delta {
        Delta {
            generation,
            parent,
            ..Delta::default()
        }
    }

    async fn next_generation(inlet: &mut Inlet<Down>) -> Result<u64, End> {
        inlet.next().await.unwrap().map(|down| match down {
            Down::Snapshot(start) => start.plan.generation,
            Down::Delta(delta) => delta.generation,
        })
    }

    #[tokio::test]
    async fn a_second_session_of_a_node_ends_the_first() {
        let mut sessions = Sessions::default();
        let ((first, mut old), (second, mut new)) = (outlet(4), outlet(4));
        let first = sessions.begin(node(), start(3), first);
        let second = sessions.begin(node(), start(5), second);
        assert_eq!(next_generation(&mut old).await, Ok(3));
        assert_eq!(next_generation(&mut old).await, Err(End::Replaced));
        assert!(!sessions.is_current(&node(), first) && !sessions.leave(&node(), first));
        assert!(sessions.send(&node(), delta(4, 5)) && sessions.send(&node(), delta(5, 6)));
        assert_eq!(
            (next_generation(&mut new).await, next_generation(&mut new).await),
            (Ok(5), Ok(6))
        );
        assert!(sessions.leave(&node(), second));
    }

    #[tokio::test]
    async fn an_agent_that_does_not_keep_up_loses_its_session_and_nothing_else_waits() {
        let mut sessions = Sessions::default();
        let (outlet, mut inlet) = outlet(2);
        sessions.begin(node(), start(1), outlet);
        assert!(sessions.send(&node(), delta(1, 2)));
        assert!(!sessions.send(&node(), delta(2, 3)));
        assert!(
            sessions.send(&node(), delta(3, 4)),
            "a node without session misses nothing that it could get"
        );
        assert_eq!(
            (
                next_generation(&mut inlet).await,
                next_generation(&mut inlet).await
            ),
            (Ok(1), Ok(2))
        );
        assert_eq!(next_generation(&mut inlet).await, Err(End::TooSlow));
    }
}
