//! Agents' sessions.

use tieline_proto::tieline::agent::v1 as proto;
use tieline_proto::tieline::agent::v1::session_up::Message as Up;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::agent::FakeAgent;
use crate::calls::request;
use crate::world::{World, eventually};

#[tokio::test]
async fn a_second_session_of_a_node_ends_the_first_and_has_the_whole_plan() {
    let world = World::with(|_, _| {}).await;
    let mut first = world.with_node().await;
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    let delta = first.delta().await;
    let (second, snapshot) = FakeAgent::join(&world, "n1", 0).await;
    let status = first.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert!(snapshot.generation >= delta.generation);
    assert_eq!(
        snapshot
            .wires
            .iter()
            .map(|wire| wire.connection_id.as_str())
            .collect::<Vec<_>>(),
        ["c1"]
    );
    drop(first);
    second.ack(snapshot.generation).await;
    asked.await.unwrap().unwrap();
    assert!(
        world.status().await.nodes[0].connected,
        "the end of the first session is not the node's"
    );
}

#[tokio::test]
async fn a_node_never_gets_a_smaller_generation_than_it_has() {
    let world = World::with(|_, _| {}).await;
    let (agent, snapshot) = FakeAgent::join(&world, "n1", 4711).await;
    assert!(snapshot.generation > 4711, "{}", snapshot.generation);
    agent.ack(snapshot.generation).await;
    eventually("the acknowledgement counts", async || {
        world.status().await.nodes[0].applied_generation == snapshot.generation
    })
    .await;
}

#[tokio::test]
async fn what_a_node_sees_of_a_wire_is_told() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    let generation = agent.delta().await.generation;
    agent.ack(generation).await;
    asked.await.unwrap().unwrap();
    let observation = |kind: proto::ObservationKind| {
        let message = "the namespace is gone".to_owned();
        Up::Observation(proto::Observation {
            connection_id: "c1".to_owned(),
            kind: kind.into(),
            message,
        })
    };
    agent.say(observation(proto::ObservationKind::WireLost)).await;
    eventually("the loss is listed", async || {
        world.connections().await[0].reason == "the namespace is gone"
    })
    .await;
    agent.say(observation(proto::ObservationKind::WireRestored)).await;
    eventually("the return is listed", async || {
        world.connections().await[0].reason.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_session_without_a_hello_is_refused() {
    let world = World::with(|_, _| {}).await;
    for (message, got) in [
        (Up::Ack(proto::Ack::default()), "Ack"),
        (Up::Observation(proto::Observation::default()), "Observation"),
    ] {
        let (up, messages) = tokio::sync::mpsc::channel(1);
        up.send(proto::SessionUp {
            message: Some(message),
        })
        .await
        .unwrap();
        let status = world
            .agents()
            .await
            .session(ReceiverStream::new(messages))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status
                .message()
                .starts_with(&format!("message \"{got}\": a session begins with a Hello")),
            "{status:?}"
        );
    }
    assert_eq!(world.status().await.nodes, []);
}

#[tokio::test]
async fn an_invalid_report_ends_the_session_and_not_control() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    agent.say(Up::Observation(proto::Observation::default())).await;
    let end = agent.next_or_end().await;
    assert!(end.is_none(), "{end:?}");
    eventually("the node is away", async || {
        !world.status().await.nodes[0].connected
    })
    .await;
    FakeAgent::join(&world, "n1", 0).await;
}
