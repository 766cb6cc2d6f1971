//! Requests and Closes, from the workload to the node and back.

use std::time::Duration;

use tieline_proto::connection::State;
use tieline_proto::tieline::agent::v1 as proto;
use tieline_proto::tieline::agent::v1::session_up::Message as Up;
use tonic::Code;

use crate::agent::FakeAgent;
use crate::calls::{close, detail, request, request_for, service, workload};
use crate::world::{World, eventually};

#[tokio::test]
async fn a_request_is_answered_when_its_node_has_made_the_wire_and_not_before() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let mut asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    let delta = agent.delta().await;
    assert_eq!((delta.upsert.len(), delta.remove.len()), (1, 0));
    assert_eq!(
        (delta.upsert[0].connection_id.as_str(), delta.parent + 1),
        ("c1", delta.generation)
    );
    let early = tokio::time::timeout(Duration::from_millis(50), &mut asked).await;
    assert!(early.is_err(), "answered before the node has made the wire");
    assert_eq!(world.connections().await[0].reason, "being set up");

    agent.ack(delta.generation).await;
    let connection = asked.await.unwrap().unwrap().into_inner();
    assert_eq!((connection.id.as_str(), connection.state()), ("c1", State::Up));
    assert_eq!(connection.network_service_endpoint_name, "e");
    let addresses = connection.context.unwrap().ip_context.unwrap().src_ip_addrs;
    assert_eq!(addresses.len(), 2, "one IPv4 and one IPv6 address: {addresses:?}");
    let listed = world.connections().await;
    assert_eq!(
        (listed[0].reason.as_str(), listed[0].generation),
        ("", delta.generation)
    );
}

#[tokio::test]
async fn a_wire_that_cannot_be_made_is_told_by_field_and_value_and_nothing_is_left() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    let delta = agent.delta().await;
    let failure = proto::WireFailure {
        connection_id: "c1".to_owned(),
        kind: proto::FailureKind::NameTaken.into(),
        message: "an interface of that name is there and is not ours: choose another name".to_owned(),
        field: "connection.mechanism.parameters[name]".to_owned(),
        value: "eth0".to_owned(),
    };
    agent
        .say(Up::Ack(proto::Ack {
            generation: delta.generation,
            failures: vec![failure],
        }))
        .await;
    let status = asked.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert_eq!(
        detail(&status, "tieline-field"),
        "connection.mechanism.parameters[name]"
    );
    assert_eq!(detail(&status, "tieline-value"), "eth0");
    let removal = agent.delta().await;
    assert_eq!((removal.upsert.len(), removal.remove), (0, vec!["c1".to_owned()]));
    assert_eq!(world.connections().await, []);
}

#[tokio::test]
async fn invalid_input_is_refused_with_field_value_and_rule_and_changes_nothing() {
    let world = World::with(|_, _| {}).await;
    let _agent = world.with_node().await.obey();
    let before = world.status().await.store_revision;
    let mut unknown = request("c1", 1);
    unknown
        .request
        .as_mut()
        .unwrap()
        .connection
        .as_mut()
        .unwrap()
        .network_service = "gold".to_owned();
    let mut nameless = request("c1", 1);
    nameless.request.as_mut().unwrap().connection.as_mut().unwrap().id = String::new();
    let mut foreign = request("c1", 1);
    foreign.workload = Some(proto::Workload {
        netns: None,
        ..workload("n1", 7)
    });
    for (message, code, field) in [
        (unknown, Code::NotFound, "connection.network_service"),
        (nameless, Code::InvalidArgument, "connection.id"),
        (foreign, Code::InvalidArgument, "workload.netns"),
    ] {
        let status = world
            .agents()
            .await
            .request_connection(message)
            .await
            .unwrap_err();
        assert_eq!(
            (status.code(), detail(&status, "tieline-field")),
            (code, field),
            "{status:?}"
        );
        assert!(!detail(&status, "tieline-rule").is_empty(), "{status:?}");
    }
    let mut oversized = request("c1", 1);
    let labels = &mut oversized
        .request
        .as_mut()
        .unwrap()
        .connection
        .as_mut()
        .unwrap()
        .labels;
    labels.insert("big".to_owned(), "x".repeat(2 * 1024 * 1024));
    let status = world
        .agents()
        .await
        .request_connection(oversized)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(
        (
            world.connections().await.len(),
            world.status().await.store_revision
        ),
        (0, before)
    );
}

#[tokio::test]
async fn a_repeated_request_refreshes_without_a_new_plan() {
    let world = World::with(|_, _| {}).await;
    let _agent = world.with_node().await.obey();
    let mut workload = world.agents().await;
    let minute = Duration::from_secs(60);
    workload
        .request_connection(request_for("c1", 1, minute))
        .await
        .unwrap();
    let first = world.connections().await.remove(0);
    workload
        .request_connection(request_for("c1", 1, 2 * minute))
        .await
        .unwrap();
    let second = world.connections().await;
    assert_eq!((second.len(), second[0].generation), (1, first.generation));
    let ends = |status: &tieline_proto::tieline::admin::v1::ConnectionStatus| status.expires.unwrap().seconds;
    assert!(ends(&second[0]) >= ends(&first) + 59);
}

#[tokio::test]
async fn a_connection_that_is_not_refreshed_ends_by_itself() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let lifetime = Duration::from_millis(300);
    let asked =
        tokio::spawn(async move { workload.request_connection(request_for("c1", 1, lifetime)).await });
    let delta = agent.delta().await;
    agent.ack(delta.generation).await;
    asked.await.unwrap().unwrap();
    let removal = agent.delta().await;
    assert_eq!(
        (removal.parent, removal.remove),
        (delta.generation, vec!["c1".to_owned()])
    );
    assert_eq!(world.connections().await, []);
}

#[tokio::test]
async fn a_close_is_answered_when_the_wire_is_gone_and_once_more_is_no_error() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let mut other = workload.clone();
    let asked = tokio::spawn(async move { other.request_connection(request("c1", 1)).await });
    let delta = agent.delta().await;
    agent.ack(delta.generation).await;
    asked.await.unwrap().unwrap();

    let status = workload.close_connection(close("c1", 2)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let mut closing = workload.clone();
    let mut asked = tokio::spawn(async move { closing.close_connection(close("c1", 1)).await });
    let removal = agent.delta().await;
    let early = tokio::time::timeout(Duration::from_millis(50), &mut asked).await;
    assert!(early.is_err(), "answered before the wire is gone");
    agent.ack(removal.generation).await;
    asked.await.unwrap().unwrap();
    workload.close_connection(close("c1", 1)).await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_away_or_silent_is_named() {
    let world = World::with(|config, _| config.wire_deadline = Duration::from_millis(200)).await;
    let mut agent = world.with_node().await;
    let status = world
        .agents()
        .await
        .request_connection(request("c1", 1))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(
        status
            .message()
            .starts_with("node \"n1\": its agent did not report"),
        "{status:?}"
    );
    let generation = agent.delta().await.generation;
    agent.ack(generation).await;
    eventually("the late wire stands", async || {
        world.connections().await[0].reason.is_empty()
    })
    .await;

    drop(agent);
    eventually("the node is away", async || {
        !world.status().await.nodes[0].connected
    })
    .await;
    let status = world
        .agents()
        .await
        .request_connection(request("c2", 2))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(detail(&status, "tieline-value"), "n1");
    assert_eq!(
        world.connections().await.len(),
        1,
        "the one that stands stays listed"
    );
}

#[tokio::test]
async fn a_session_that_ends_answers_those_who_wait_for_it() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    agent.delta().await;
    drop(agent);
    let status = asked.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(world.connections().await, []);
    let (_agent, snapshot) = FakeAgent::join(&world, "n1", 0).await;
    assert_eq!(snapshot.wires, []);
}

#[tokio::test]
async fn requests_that_arrive_together_share_plans_and_each_is_answered() {
    let world = World::with(|_, _| {}).await;
    let mut agent = world.with_node().await;
    world
        .admin()
        .await
        .apply(crate::calls::apply(vec![service("other")]))
        .await
        .unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..40 {
        let mut workload = world.agents().await;
        asked.spawn(async move { workload.request_connection(request(&format!("c{n}"), n)).await });
    }
    let (mut wires, mut last) = (0, None);
    while wires < 40 {
        let delta = agent.delta().await;
        assert!(
            last.is_none_or(|last| last == delta.parent),
            "plans follow each other without gap"
        );
        wires += delta.upsert.len();
        last = Some(delta.generation);
    }
    agent.ack(last.unwrap()).await;
    for outcome in asked.join_all().await {
        assert_eq!(outcome.unwrap().into_inner().state(), State::Up);
    }
}
