//! Calls that wait for a node: Requests until their wire stands, Closes until it is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tieline_model::{Connection, ConnectionId, NodeName};
use tieline_registry::{NodeGeneration, Settled};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::failure::Failure;

/// How a Request is answered.
pub(super) type WireReply = oneshot::Sender<Result<Arc<Connection>, Failure>>;
/// How a Close is answered.
pub(super) type CloseReply = oneshot::Sender<Result<(), Failure>>;

#[derive(Debug)]
struct Wire {
    node: NodeName,
    since: Instant,
    reply: WireReply,
}

#[derive(Debug)]
struct Close {
    plans: Vec<NodeGeneration>,
    since: Instant,
    reply: CloseReply,
}

/// Everybody who waits. Nobody waits longer than `patience`.
#[derive(Debug)]
pub(super) struct Waiters {
    patience: Duration,
    wires: BTreeMap<ConnectionId, Vec<Wire>>,
    closes: Vec<Close>,
}

impl Waiters {
    /// Nobody waits.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            wires: BTreeMap::new(),
            closes: Vec::new(),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.wires.values().map(Vec::len).sum::<usize>() + self.closes.len()
    }

    /// A Request that is answered when the registry settles `id`.
    pub(super) fn await_wire(&mut self, id: ConnectionId, node: NodeName, reply: WireReply) {
        self.wires.entry(id).or_default().push(Wire {
            node,
            since: Instant::now(),
            reply,
        });
    }

    /// A Close that is answered when the nodes have carried out `plans`.
    pub(super) fn await_close(&mut self, plans: Vec<NodeGeneration>, reply: CloseReply) {
        self.closes.push(Close {
            plans,
            since: Instant::now(),
            reply,
        });
    }

    /// Answers those who wait for the wire that settled.
    pub(super) fn settle(&mut self, settled: &Settled) {
        let result = settled.result.clone().map_err(Failure::from);
        for wire in self.wires.remove(&settled.id).into_iter().flatten() {
            answer(wire.reply, result.clone());
        }
    }

    /// Answers the Closes for which no plan is `outstanding` any more.
    pub(super) fn settle_closes(&mut self, outstanding: impl Fn(&NodeGeneration) -> bool) {
        let waiting = std::mem::take(&mut self.closes);
        for mut close in waiting {
            close.plans.retain(&outstanding);
            if close.plans.is_empty() {
                answer(close.reply, Ok(()));
            } else {
                self.closes.push(close);
            }
        }
    }

    /// Answers those whose patience is over.
    pub(super) fn give_up(&mut self, now: Instant) {
        let patience = self.patience;
        let is_late = |since: Instant| now >= since + patience;
        self.wires.retain(|_, wires| {
            for wire in wires.extract_if(.., |wire| is_late(wire.since)) {
                answer(
                    wire.reply,
                    Err(Failure::NodeSilent {
                        node: wire.node,
                        waited: patience,
                    }),
                );
            }
            !wires.is_empty()
        });
        for close in self.closes.extract_if(.., |close| is_late(close.since)) {
            // The connection is closed; the node removes the wire when it is back.
            answer(close.reply, Ok(()));
        }
    }

    /// Answers everybody with `failure`.
    pub(super) fn fail_all(&mut self, failure: &Failure) {
        for wire in std::mem::take(&mut self.wires).into_values().flatten() {
            answer(wire.reply, Err(failure.clone()));
        }
        for close in std::mem::take(&mut self.closes) {
            answer(close.reply, Err(failure.clone()));
        }
    }

    /// When [`give_up`](Self::give_up) is next worth a call.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let wires = self.wires.values().flatten().map(|wire| wire.since);
        wires
            .chain(self.closes.iter().map(|close| close.since))
            .min()
            .map(|since| since + self.patience)
    }
}

/// A caller that went away does not undo what it asked for.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, result: T) {
    drop(reply.send(result));
}

#[cfg(test)]
mod tests {
    use tieline_registry::Refusal;

    use super::*;

    fn id(text: &str) -> ConnectionId {
        ConnectionId::parse("id", text).unwrap()
    }

    fn node(text: &str) -> NodeName {
        NodeName::parse("node", text).unwrap()
    }

    #[tokio::test]
    async fn a_silent_node_is_named_when_the_patience_is_over() {
        let mut waiters = Waiters::new(Duration::from_secs(10));
        let (reply, mut outcome) = oneshot::channel();
        waiters.await_wire(id("c"), node("n1"), reply);
        let deadline = waiters.next_deadline().unwrap();
        waiters.give_up(deadline - Duration::from_millis(1));
        assert!(outcome.try_recv().is_err());
        waiters.give_up(deadline);
        let failure = outcome.await.unwrap().unwrap_err();
        assert!(
            failure
                .to_string()
                .starts_with("node \"n1\": its agent did not report the wire within 10000 ms")
        );
        assert_eq!((waiters.len(), waiters.next_deadline()), (0, None));
    }

    #[tokio::test]
    async fn settling_answers_all_that_wait_for_this_connection_and_no_other() {
        let mut waiters = Waiters::new(Duration::from_secs(10));
        let mut outcomes = Vec::new();
        for name in ["a", "a", "b"] {
            let (reply, outcome) = oneshot::channel();
            waiters.await_wire(id(name), node("n1"), reply);
            outcomes.push(outcome);
        }
        waiters.settle(&Settled {
            id: id("a"),
            result: Err(Refusal::ClosedMeanwhile { id: id("a") }),
        });
        assert_eq!(waiters.len(), 1);
        let answered: Vec<bool> = outcomes
            .iter_mut()
            .map(|outcome| outcome.try_recv().is_ok())
            .collect();
        assert_eq!(answered, [true, true, false]);
    }

    #[tokio::test]
    async fn a_close_waits_for_every_node() {
        let mut waiters = Waiters::new(Duration::from_secs(10));
        let plan = |name, generation| NodeGeneration {
            node: node(name),
            generation,
        };
        let (reply, mut outcome) = oneshot::channel();
        waiters.await_close(vec![plan("a", 3), plan("b", 7)], reply);
        waiters.settle_closes(|plan| plan.generation > 3);
        assert!(outcome.try_recv().is_err());
        waiters.settle_closes(|plan| plan.generation > 7);
        assert!(outcome.await.unwrap().is_ok());
    }
}
