//! Agents' sessions.

use std::collections::BTreeSet;

use tieline_proto::tieline::agent::v1 as proto;
use tieline_proto::tieline::agent::v1::session_up::Message as Up;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::agent::{FakeAgent, planned};
use crate::calls::{registration, request};
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
    assert_eq!(planned(&snapshot), BTreeSet::from(["c1".to_owned()]));
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
            endpoint: String::new(),
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
async fn a_wire_whose_node_has_lost_the_endpoint_is_led_to_another_and_told() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    let generation = agent.delta().await.generation;
    agent.ack(generation).await;
    asked.await.unwrap().unwrap();
    let lost = proto::Observation {
        connection_id: "c1".to_owned(),
        kind: proto::ObservationKind::WireLost.into(),
        message: "the namespace is gone".to_owned(),
        endpoint: "e".to_owned(),
    };
    agent.say(Up::Observation(lost)).await;
    eventually("the loss is listed with the endpoint", async || {
        let reason = &world.connections().await[0].reason;
        reason.contains("endpoint e is lost") && reason.contains("the namespace is gone")
    })
    .await;
    let mut operator = world.agents().await;
    operator.register_endpoint(registration("f", 2)).await.unwrap();
    let delta = agent.delta().await;
    let circuit = delta.upsert[0].branches[0].circuit.as_ref().unwrap();
    assert_eq!(circuit.endpoint_name, "f", "healed by the registration");
    agent.ack(delta.generation).await;
    eventually("the wire stands", async || {
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

#[tokio::test]
async fn a_node_is_told_what_it_keeps_and_ends_it_by_a_word() {
    let world = World::with(|config, _| {
        config.registry.node_lease = tieline_model::Lease::from_secs(30);
    })
    .await;
    let agent = world.with_node().await;
    let node = agent.obey();
    let mut workload = world.agents().await;
    let kept = |mut message: proto::RequestConnectionRequest| {
        message.keeper = proto::Keeper::Node.into();
        message
    };
    let connection = workload
        .request_connection(kept(request("kept", 1)))
        .await
        .unwrap()
        .into_inner();
    let ends = connection.path.unwrap().path_segments;
    assert!(
        ends.iter().all(|hop| hop.expires.is_none()),
        "it has no end of its own"
    );
    let mut registration = registration("kept-nse", 9);
    registration.keeper = proto::Keeper::Node.into();
    let refused = workload
        .register_endpoint(registration.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().starts_with("keeper \"KEEPER_NODE\": "),
        "{refused}"
    );
    registration.endpoint.as_mut().unwrap().expiration_time = None;
    let endpoint = workload
        .register_endpoint(registration)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(endpoint.expiration_time, None);

    let (agent, snapshot) = FakeAgent::join(&world, "n1", 0).await;
    drop(node);
    assert_eq!(snapshot.keep_alive_interval, 3000);
    let names: Vec<&str> = snapshot
        .kept_endpoints
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["kept-nse"]);
    agent.ack(snapshot.generation).await;
    agent
        .say(Up::KeepAlive(proto::KeepAlive {
            connections_gone: vec!["kept".to_owned()],
            endpoints_gone: vec!["kept-nse".to_owned()],
        }))
        .await;
    eventually("what is gone to be gone", async || {
        world.connections().await.is_empty()
    })
    .await;
    assert_eq!(world.status().await.endpoints, 1, "the declared endpoint stays");
}

#[tokio::test]
async fn a_node_that_says_nothing_loses_what_it_keeps() {
    let world = World::with(|config, _| {
        config.registry.node_lease = tieline_model::Lease::from_millis(300);
    })
    .await;
    let agent = world.with_node().await;
    let _node = agent.obey();
    let mut workload = world.agents().await;
    let mut message = request("kept", 1);
    message.keeper = proto::Keeper::Node.into();
    workload.request_connection(message).await.unwrap();
    workload.request_connection(request("own", 2)).await.unwrap();
    eventually("the node's lease to end", async || {
        let left = world.connections().await;
        left.len() == 1 && left[0].connection.as_ref().unwrap().id == "own"
    })
    .await;
}
