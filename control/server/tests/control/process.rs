//! Control as a process: addresses, health, reflection, an orderly end.

use std::time::Duration;

use tieline_control::{Config, Control, ControlError, Readiness, StoreConfig};
use tieline_proto::connection::MonitorScopeSelector;
use tieline_proto::connection::monitor_connection_client::MonitorConnectionClient;
use tieline_proto::tieline::admin::v1 as admin;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::calls::{apply, request, service};
use crate::world::World;

fn refusal(outcome: Result<Control, ControlError>) -> ControlError {
    outcome.map(drop).expect_err("control must not start")
}

#[tokio::test]
async fn a_second_control_is_refused_in_one_sentence_and_the_first_goes_on() {
    let world = World::on_redb().await;
    let error = refusal(Control::start(world.config.clone()).await);
    let sentence = format!(
        "another control is already listening on {}; ",
        world.socket().display()
    );
    assert!(error.to_string().starts_with(&sentence), "{error}");
    let mut elsewhere = world.config.clone();
    elsewhere.unix = Some(world.directory().join("other.sock"));
    let error = refusal(Control::start(elsewhere).await);
    assert!(
        error.to_string().contains("is in use by another process"),
        "{error}"
    );
    assert!(
        !world.directory().join("other.sock").exists(),
        "a control that does not start leaves no socket"
    );
    world.status().await;
}

#[tokio::test]
async fn addresses_are_checked_before_anything_happens() {
    let nowhere = Config {
        unix: None,
        tcp: None,
        ..Config::new().unwrap()
    };
    assert!(matches!(
        refusal(Control::start(nowhere).await),
        ControlError::NoAddress
    ));
    let world = World::with(|config, _| config.tcp = Some("127.0.0.1:0".parse().unwrap())).await;
    let taken = world.handle().tcp().expect("control listens on TCP");
    let config = Config {
        unix: None,
        tcp: Some(taken),
        store: StoreConfig::Memory,
        ..Config::new().unwrap()
    };
    let error = refusal(Control::start(config.clone()).await);
    assert!(
        error
            .to_string()
            .starts_with(&format!("port {} of 127.0.0.1 is taken", taken.port())),
        "{error}"
    );
    let open = Config {
        tcp: Some("0.0.0.0:0".parse().unwrap()),
        ..config
    };
    let error = refusal(Control::start(open).await);
    assert!(error.to_string().contains("only loopback addresses"), "{error}");

    let uri = format!("http://{taken}");
    let mut client = admin::admin_service_client::AdminServiceClient::connect(uri)
        .await
        .unwrap();
    let status = client
        .get_status(admin::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.store.as_str(), status.nodes.len()), ("memory", 0));
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    let world = World::with(|_, _| {}).await;
    let mut health = HealthClient::new(world.channel().await);
    for service in [
        "",
        "tieline.admin.v1.AdminService",
        "connection.MonitorConnection",
    ] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status(),
            ServingStatus::Serving,
            "{service}"
        );
    }
    use tonic_reflection::pb::v1 as reflection;
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(world.channel().await);
    let question = reflection::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            reflection::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::iter([question]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let reflection::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for served in [
        "tieline.agent.v1.AgentService",
        "registry.NetworkServiceRegistry",
        "grpc.health.v1.Health",
    ] {
        assert!(
            names.iter().any(|name| name == served),
            "{served} is not in {names:?}"
        );
    }
    for elsewhere in ["networkservice.NetworkService", "tieline.admin.v1.NodeService"] {
        assert!(
            !names.iter().any(|name| name == elsewhere),
            "{elsewhere} is served by agents only"
        );
    }
}

#[tokio::test]
async fn stopping_ends_waiting_calls_and_streams_with_a_reason_and_in_time() {
    let mut world = World::on_redb().await;
    let mut agent = world.with_node().await;
    let mut monitor = MonitorConnectionClient::new(world.channel().await);
    let mut events = monitor
        .monitor_connections(MonitorScopeSelector::default())
        .await
        .unwrap()
        .into_inner();
    events.message().await.unwrap().unwrap();
    let mut workload = world.agents().await;
    let asked = tokio::spawn(async move { workload.request_connection(request("c1", 1)).await });
    agent.delta().await;
    let handle = world.handle().clone();
    assert_eq!(handle.readiness(), Readiness::Ready);
    let begun = std::time::Instant::now();
    world.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(asked.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(events.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(
        handle.readiness(),
        Readiness::NotReady("control is stopping".to_owned())
    );
    assert!(!world.socket().exists());
}

#[tokio::test]
async fn objects_are_applied_all_or_none_listed_and_deleted() {
    let world = World::with(|_, _| {}).await;
    let mut client = world.admin().await;
    let bad = admin::Object { object: None };
    let status = client.apply(apply(vec![service("a"), bad])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        crate::calls::detail(&status, "tieline-field"),
        "objects[1].object"
    );
    let dry = admin::ApplyRequest {
        objects: vec![service("a")],
        dry_run: true,
    };
    let results = client.apply(dry).await.unwrap().into_inner().results;
    assert_eq!(
        (results[0].name.as_str(), results[0].action()),
        ("a", admin::ApplyAction::Created)
    );
    assert_eq!(world.status().await.network_services, 0);

    client
        .apply(apply(vec![service("a"), service("b")]))
        .await
        .unwrap();
    let again = client
        .apply(apply(vec![service("a")]))
        .await
        .unwrap()
        .into_inner()
        .results;
    assert_eq!(again[0].action(), admin::ApplyAction::Unchanged);
    let request = admin::ListRequest {
        names: vec!["b".to_owned()],
    };
    let listed = client
        .list_network_services(request)
        .await
        .unwrap()
        .into_inner()
        .items;
    assert_eq!(listed.len(), 1);
    let delete = |name: &str| admin::DeleteRequest {
        kind: "NetworkService".to_owned(),
        name: name.to_owned(),
    };
    client.delete(delete("a")).await.unwrap();
    assert_eq!(
        client.delete(delete("a")).await.unwrap_err().code(),
        Code::NotFound
    );
    let wrong = admin::DeleteRequest {
        kind: "Pod".to_owned(),
        name: "a".to_owned(),
    };
    assert_eq!(
        client.delete(wrong).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(world.status().await.network_services, 1);
}
