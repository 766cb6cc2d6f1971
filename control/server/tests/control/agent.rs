//! An agent that does what the test tells it.

use std::collections::BTreeSet;

use tieline_proto::tieline::agent::v1 as proto;
use tieline_proto::tieline::agent::v1::session_down::Message as Down;
use tieline_proto::tieline::agent::v1::session_up::Message as Up;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::world::{PATIENCE, World};

/// The ids of the wires of a plan.
pub(crate) fn planned(snapshot: &proto::Snapshot) -> BTreeSet<String> {
    let ids: BTreeSet<String> = snapshot
        .wires
        .iter()
        .map(|wire| wire.connection_id.clone())
        .collect();
    assert_eq!(ids.len(), snapshot.wires.len(), "each once: {snapshot:?}");
    ids
}

pub(crate) struct FakeAgent {
    up: mpsc::Sender<proto::SessionUp>,
    down: Streaming<proto::SessionDown>,
}

impl FakeAgent {
    /// Says hello for `node` with the generation that its kernel has, and takes the snapshot.
    pub(crate) async fn join(world: &World, node: &str, generation: u64) -> (Self, proto::Snapshot) {
        let (up, messages) = mpsc::channel(1024);
        let hello = proto::Hello {
            node: node.to_owned(),
            abi_version: 1,
            version: "test".to_owned(),
            generation,
            attach_backend: "tcx".to_owned(),
            max_wires: 16_384,
            machine: "one-machine".to_owned(),
        };
        up.send(proto::SessionUp {
            message: Some(Up::Hello(hello)),
        })
        .await
        .unwrap();
        let session = world
            .agents()
            .await
            .session(ReceiverStream::new(messages))
            .await
            .unwrap();
        let mut agent = Self {
            up,
            down: session.into_inner(),
        };
        match agent.next().await {
            Ok(Down::Snapshot(snapshot)) => (agent, snapshot),
            other => panic!("a session begins with a snapshot, not {other:?}"),
        }
    }

    /// What control sends next, or why the session is over.
    pub(crate) async fn next(&mut self) -> Result<Down, Status> {
        let next = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("control says something");
        next.map(|message| message.expect("the session goes on").message.unwrap())
    }

    /// What control sends next; `None` when it ends the session without complaint.
    pub(crate) async fn next_or_end(&mut self) -> Option<Result<Down, Status>> {
        let next = tokio::time::timeout(PATIENCE, self.down.message())
            .await
            .expect("control says something");
        next.map(|message| message.map(|message| message.message.unwrap()))
            .transpose()
    }

    pub(crate) async fn delta(&mut self) -> proto::Delta {
        match self.next().await {
            Ok(Down::Delta(delta)) => delta,
            other => panic!("expected a delta, not {other:?}"),
        }
    }

    pub(crate) async fn say(&self, message: Up) {
        self.up
            .send(proto::SessionUp {
                message: Some(message),
            })
            .await
            .unwrap();
    }

    pub(crate) async fn ack(&self, generation: u64) {
        self.say(Up::Ack(proto::Ack {
            generation,
            failures: Vec::new(),
        }))
        .await;
    }

    /// Does everything that it is told, at once, until the session ends.
    pub(crate) fn obey(mut self) -> JoinHandle<Ended> {
        tokio::spawn(async move {
            let mut last = 0;
            loop {
                last = match self.down.message().await {
                    Ok(Some(proto::SessionDown {
                        message: Some(Down::Snapshot(snapshot)),
                    })) => snapshot.generation,
                    Ok(Some(proto::SessionDown {
                        message: Some(Down::Delta(delta)),
                    })) => delta.generation,
                    Ok(other) => panic!("not a message: {other:?}"),
                    Err(status) => {
                        return Ended {
                            generation: last,
                            status: Some(status),
                        };
                    }
                };
                let ack = proto::Ack {
                    generation: last,
                    failures: Vec::new(),
                };
                if self
                    .up
                    .send(proto::SessionUp {
                        message: Some(Up::Ack(ack)),
                    })
                    .await
                    .is_err()
                {
                    return Ended {
                        generation: last,
                        status: None,
                    };
                }
            }
        })
    }
}

/// How an obedient agent's session ended.
pub(crate) struct Ended {
    /// The last plan that it carried out.
    pub(crate) generation: u64,
    /// What control said.
    pub(crate) status: Option<Status>,
}
