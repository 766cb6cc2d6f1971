//! One agent's session: plans down, reports up.

use std::pin::Pin;
use std::task::{Context, Poll};

use tieline_model::convert::kept_endpoint;
use tieline_model::{ConnectionId, EndpointName, Invalid, Lease, MachineId, NodeName};
use tieline_proto::tieline::agent::v1 as proto;
use tieline_registry::{Command, NodeFailure, NodeHello, ObservedWire, WireFailureKind};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::stream::{Answers, answers};
use crate::engine::{Down, EngineHandle, SessionId};
use crate::failure::Failure;

/// Longest text that an agent says of itself or of a failure, in bytes. Longer ones are cut.
const MAX_TEXT: usize = 1024;
/// How many KeepAlives come before a node's lease is over.
const KEEP_ALIVES_PER_LEASE: u64 = 10;
/// The shortest and the longest time between two of them, in milliseconds.
const MIN_KEEP_ALIVE: u64 = 100;
const MAX_KEEP_ALIVE: u64 = 10_000;

/// Begins a session: answers with what goes down, and reads what comes up until either way ends.
pub(super) async fn serve(
    engine: &EngineHandle,
    hello: proto::Hello,
    up: Streaming<proto::SessionUp>,
) -> Result<Answers<proto::SessionDown>, Failure> {
    let node = NodeName::parse("hello.node", &hello.node)?;
    if node.domain().is_some() {
        let rule = "a node has a name of this domain: leave out what comes after \"@\"";
        return Err(Invalid::new("hello.node", node.as_str(), rule).into());
    }
    let hello = NodeHello {
        node: node.clone(),
        version: cut(hello.version),
        generation: hello.generation,
        attach_backend: cut(hello.attach_backend),
        max_wires: hello.max_wires,
        machine: Some(hello.machine)
            .filter(|id| !id.is_empty())
            .map(|id| MachineId::parse("hello.machine", &id))
            .transpose()?,
    };
    let (session, inlet) = engine.begin_session(hello).await?;
    let over = CancellationToken::new();
    let reader = Reader {
        engine: engine.clone(),
        node,
        session,
    };
    tokio::spawn(reader.read(up, over.clone()));
    let down = answers(Vec::new(), inlet, |down| Some(message(&down)));
    Ok(Box::pin(Guarded {
        down,
        _over: over.drop_guard(),
    }))
}

/// The way down; when it is dropped, because the agent left or the engine ended it, the way up ends too.
struct Guarded {
    down: Answers<proto::SessionDown>,
    _over: DropGuard,
}

impl Stream for Guarded {
    type Item = Result<proto::SessionDown, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.down.as_mut().poll_next(cx)
    }
}

struct Reader {
    engine: EngineHandle,
    node: NodeName,
    session: SessionId,
}

impl Reader {
    async fn read(self, mut up: Streaming<proto::SessionUp>, over: CancellationToken) {
        loop {
            let next = tokio::select! {
                () = over.cancelled() => break,
                next = up.message() => next,
            };
            let Ok(Some(next)) = next else { break };
            let command = match self.command(next) {
                Ok(Some(command)) => command,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(node = %self.node, %error, "the agent says something invalid; its session ends");
                    break;
                }
            };
            if self
                .engine
                .report(self.node.clone(), self.session, command)
                .await
                .is_err()
            {
                break;
            }
        }
        // If the engine is gone there is no session left to end.
        drop(self.engine.leave(self.node, self.session).await);
    }

    fn command(&self, message: proto::SessionUp) -> Result<Option<Command>, Invalid> {
        let node = self.node.clone();
        match message.message {
            Some(proto::session_up::Message::Ack(ack)) => {
                let failures = ack.failures.into_iter().map(failure).collect::<Result<_, _>>()?;
                Ok(Some(Command::NodeReport {
                    node,
                    generation: ack.generation,
                    failures,
                }))
            }
            Some(proto::session_up::Message::Observation(seen)) => observation(node, seen).map(Some),
            Some(proto::session_up::Message::KeepAlive(told)) => keep_alive(node, &told).map(Some),
            Some(proto::session_up::Message::Hello(_)) => Err(Invalid::new(
                "hello",
                "",
                "a session has one Hello: begin a new session",
            )),
            // A message of a later release.
            None => Ok(None),
        }
    }
}

fn observation(node: NodeName, seen: proto::Observation) -> Result<Command, Invalid> {
    let endpoint = |text: &str| EndpointName::parse("observation.endpoint", text);
    let wire = match seen.kind() {
        proto::ObservationKind::WireLost => ObservedWire::Lost {
            endpoint: (!seen.endpoint.is_empty())
                .then(|| endpoint(&seen.endpoint))
                .transpose()?,
            message: cut(seen.message),
        },
        proto::ObservationKind::WireRestored => ObservedWire::Restored,
        proto::ObservationKind::Switched => ObservedWire::Switched {
            endpoint: endpoint(&seen.endpoint)?,
        },
        proto::ObservationKind::Drained => ObservedWire::Drained {
            endpoint: endpoint(&seen.endpoint)?,
        },
        kind @ (proto::ObservationKind::EndpointDead | proto::ObservationKind::EndpointAlive) => {
            return Ok(Command::Health {
                node,
                endpoint: endpoint(&seen.endpoint)?,
                alive: kind == proto::ObservationKind::EndpointAlive,
            });
        }
        proto::ObservationKind::Unspecified => {
            let rule = "an observation names what was observed";
            return Err(Invalid::new("observation.kind", seen.kind.to_string(), rule));
        }
    };
    let id = ConnectionId::parse("observation.connection_id", &seen.connection_id)?;
    Ok(Command::Observe { node, id, wire })
}

fn keep_alive(node: NodeName, told: &proto::KeepAlive) -> Result<Command, Invalid> {
    let connections = told.connections_gone.iter();
    let endpoints = told.endpoints_gone.iter();
    Ok(Command::KeepAlive {
        node,
        connections_gone: connections
            .map(|id| ConnectionId::parse("keep_alive.connections_gone", id))
            .collect::<Result<_, _>>()?,
        endpoints_gone: endpoints
            .map(|name| EndpointName::parse("keep_alive.endpoints_gone", name))
            .collect::<Result<_, _>>()?,
    })
}

fn failure(message: proto::WireFailure) -> Result<NodeFailure, Invalid> {
    let kind = match message.kind() {
        proto::FailureKind::NetnsGone => WireFailureKind::NetnsGone,
        proto::FailureKind::NameTaken => WireFailureKind::NameTaken,
        proto::FailureKind::InterfaceGone => WireFailureKind::InterfaceGone,
        proto::FailureKind::AddressTaken => WireFailureKind::AddressTaken,
        proto::FailureKind::Capacity => WireFailureKind::Capacity,
        proto::FailureKind::Kernel | proto::FailureKind::Invalid | proto::FailureKind::Unspecified => {
            WireFailureKind::Kernel
        }
    };
    Ok(NodeFailure {
        id: ConnectionId::parse("ack.failures.connection_id", &message.connection_id)?,
        kind,
        field: cut(message.field),
        value: cut(message.value),
        message: cut(message.message),
    })
}

fn message(down: &Down) -> proto::SessionDown {
    let message = match down {
        Down::Snapshot(start) => proto::session_down::Message::Snapshot(proto::Snapshot {
            generation: start.plan.generation,
            wires: start.plan.wires.values().map(proto::Wire::from).collect(),
            kept_endpoints: start
                .kept
                .iter()
                .map(|one| kept_endpoint(one.name(), one.attachment()))
                .collect(),
            keep_alive_interval: interval(start.node_lease),
        }),
        Down::Delta(delta) => proto::session_down::Message::Delta(proto::Delta {
            generation: delta.generation,
            parent: delta.parent,
            upsert: delta.upsert.values().map(proto::Wire::from).collect(),
            remove: delta.remove.iter().map(ToString::to_string).collect(),
        }),
    };
    proto::SessionDown {
        message: Some(message),
    }
}

/// Milliseconds between two signs of life: several may be lost, and none is worth a thought.
fn interval(node_lease: Lease) -> u32 {
    let part = node_lease.as_millis() / KEEP_ALIVES_PER_LEASE;
    u32::try_from(part.clamp(MIN_KEEP_ALIVE, MAX_KEEP_ALIVE)).unwrap_or(u32::MAX)
}

fn cut(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}
