//! `MonitorConnections` and `Find`.

use tieline_proto::connection::monitor_connection_client::MonitorConnectionClient;
use tieline_proto::connection::{
    ConnectionEvent, ConnectionEventType, MonitorScopeSelector, PathSegment, State,
};
use tieline_proto::registry as proto;
use tieline_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use tieline_proto::registry::network_service_registry_client::NetworkServiceRegistryClient;
use tonic::{Code, Streaming};

use crate::calls::{close, detail, registration, request};
use crate::world::{PATIENCE, World};

async fn monitor(world: &World, selector: MonitorScopeSelector) -> Streaming<ConnectionEvent> {
    let mut client = MonitorConnectionClient::new(world.channel().await);
    client.monitor_connections(selector).await.unwrap().into_inner()
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    let next = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .expect("an event comes");
    next.unwrap().expect("the stream goes on")
}

/// Type, ids with states.
fn summary(event: &ConnectionEvent) -> (ConnectionEventType, Vec<(String, State)>) {
    let mut connections: Vec<_> = event
        .connections
        .iter()
        .map(|(id, one)| (id.clone(), one.state()))
        .collect();
    connections.sort();
    (event.r#type(), connections)
}

#[tokio::test]
async fn a_monitor_gets_what_there_is_and_then_every_change() {
    let world = World::with(|_, _| {}).await;
    let _agent = world.with_node().await.obey();
    let mut workload = world.agents().await;
    let mut empty = monitor(&world, MonitorScopeSelector::default()).await;
    assert_eq!(
        summary(&next(&mut empty).await),
        (ConnectionEventType::InitialStateTransfer, vec![])
    );
    workload.request_connection(request("c1", 1)).await.unwrap();
    let up = |id: &str| vec![(id.to_owned(), State::Up)];

    let mut late = monitor(&world, MonitorScopeSelector::default()).await;
    assert_eq!(
        summary(&next(&mut late).await),
        (ConnectionEventType::InitialStateTransfer, up("c1"))
    );
    workload.request_connection(request("c2", 2)).await.unwrap();
    workload.close_connection(close("c1", 1)).await.unwrap();
    for stream in [&mut empty, &mut late] {
        let (mut seen_up, mut seen_gone) = (Vec::new(), Vec::new());
        while seen_gone.is_empty() {
            let event = next(stream).await;
            match event.r#type() {
                ConnectionEventType::Update => seen_up.extend(summary(&event).1),
                ConnectionEventType::Delete => seen_gone.extend(event.connections.into_keys()),
                ConnectionEventType::InitialStateTransfer => panic!("a second initial state"),
            }
        }
        assert_eq!(seen_up.last(), Some(&("c2".to_owned(), State::Up)));
        assert_eq!(seen_gone, ["c1"]);
    }
}

#[tokio::test]
async fn a_monitor_hears_only_of_what_it_selected() {
    let world = World::with(|_, _| {}).await;
    let _agent = world.with_node().await.obey();
    let by_id = PathSegment {
        id: "c2".to_owned(),
        ..PathSegment::default()
    };
    let mut one = monitor(
        &world,
        MonitorScopeSelector {
            path_segments: vec![by_id],
            ..Default::default()
        },
    )
    .await;
    let other_service = MonitorScopeSelector {
        network_services: vec!["other".to_owned()],
        ..Default::default()
    };
    let mut none = monitor(&world, other_service).await;
    next(&mut one).await;
    next(&mut none).await;
    for (id, client) in [("c1", 1), ("c2", 2)] {
        world
            .agents()
            .await
            .request_connection(request(id, client))
            .await
            .unwrap();
    }
    let event = next(&mut one).await;
    assert_eq!(event.connections.into_keys().collect::<Vec<_>>(), ["c2"]);
    let silent = tokio::time::timeout(std::time::Duration::from_millis(50), none.message()).await;
    assert!(silent.is_err(), "{silent:?}");
}

#[tokio::test]
async fn a_monitor_that_does_not_read_is_ended_with_a_reason() {
    let world = World::with(|_, _| {}).await;
    let _agent = world.with_node().await.obey();
    let mut slow = monitor(&world, MonitorScopeSelector::default()).await;
    next(&mut slow).await;
    let mut asked = tokio::task::JoinSet::new();
    let workload = world.agents().await;
    for client in 0..32_u64 {
        let mut workload = workload.clone();
        asked.spawn(async move {
            // The first makes the connection, the others refresh it: each is a change that the monitor is told. The
            // labels fill what HTTP/2 takes in before the queue itself fills.
            let mut message = request(&format!("c{client}"), client);
            let connection = message.request.as_mut().unwrap().connection.as_mut().unwrap();
            connection.labels = (0..50).map(|n| (format!("label-{n}"), "v".repeat(60))).collect();
            for _ in 0..190 {
                workload.request_connection(message.clone()).await.unwrap();
            }
        });
    }
    asked.join_all().await;
    let status = loop {
        match tokio::time::timeout(PATIENCE, slow.message())
            .await
            .expect("the stream ends")
        {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        (world.metric("tieline_control_streams_ended_total{reason=\"monitor_too_slow\"}") - 1.0).abs() < 0.1
    );
}

#[tokio::test]
async fn services_are_registered_found_watched_and_unregistered() {
    let world = World::with(|_, _| {}).await;
    let mut client = NetworkServiceRegistryClient::new(world.channel().await);
    let service = |name: &str| proto::NetworkService {
        name: name.to_owned(),
        payload: "IP".to_owned(),
        ..Default::default()
    };
    let query = |watch| proto::NetworkServiceQuery {
        network_service: Some(service("a")),
        watch,
    };
    let mut watch = client.find(query(true)).await.unwrap().into_inner();
    client.register(service("b")).await.unwrap();
    assert_eq!(
        client.register(service("a")).await.unwrap().into_inner(),
        service("a")
    );
    let found = next(&mut watch).await;
    assert_eq!(
        (found.network_service, found.deleted),
        (Some(service("a")), false)
    );
    let mut once = client.find(query(false)).await.unwrap().into_inner();
    assert_eq!(next(&mut once).await.network_service, Some(service("a")));
    assert_eq!(once.message().await.unwrap(), None, "a Find without watch ends");
    client.unregister(service("a")).await.unwrap();
    client.unregister(service("a")).await.unwrap();
    let gone = next(&mut watch).await;
    assert_eq!((gone.network_service, gone.deleted), (Some(service("a")), true));
}

#[tokio::test]
async fn an_operators_endpoint_belongs_to_the_only_node_and_workloads_endpoints_are_found_too() {
    let world = World::with(|_, _| {}).await;
    let mut client = NetworkServiceEndpointRegistryClient::new(world.channel().await);
    let endpoint = |name: &str| proto::NetworkServiceEndpoint {
        name: name.to_owned(),
        network_service_names: vec!["s".to_owned()],
        url: "interface:///tap0".to_owned(),
        ..Default::default()
    };
    let status = client.register(endpoint("vm")).await.unwrap_err();
    assert_eq!(
        (status.code(), detail(&status, "tieline-field")),
        (Code::FailedPrecondition, "url"),
        "{status:?}"
    );

    let _agent = world.with_node().await.obey();
    client.register(endpoint("vm")).await.unwrap();
    world
        .agents()
        .await
        .register_endpoint(registration("other", 5))
        .await
        .unwrap();
    let query = proto::NetworkServiceEndpointQuery {
        network_service_endpoint: Some(proto::NetworkServiceEndpoint {
            network_service_names: vec!["s".to_owned()],
            ..Default::default()
        }),
        watch: false,
    };
    let mut found = client.find(query).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(response) = found.message().await.unwrap() {
        names.push(response.network_service_endpoint.unwrap().name);
    }
    assert_eq!(names, ["e", "other", "vm"]);
    client.unregister(endpoint("vm")).await.unwrap();
    assert_eq!(world.status().await.endpoints, 2);
}
