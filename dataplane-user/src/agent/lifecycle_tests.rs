use std::{collections::HashMap, path::Path};

use tieline_lab::NetNs;
use tieline_proto::{
    connection::{
        Connection, Mechanism, MonitorScopeSelector, monitor_connection_client::MonitorConnectionClient,
    },
    networkservice::{NetworkServiceRequest, network_service_client::NetworkServiceClient},
    registry::{
        NetworkService, NetworkServiceEndpoint,
        network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
        network_service_registry_client::NetworkServiceRegistryClient,
    },
    tieline::admin::v1::{GetNodeRequest, ListWiresRequest, node_service_client::NodeServiceClient},
};
use tokio::task::JoinHandle;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::agent::{
    local_api::relay::{Relay, open_folder},
    status::SessionState,
    testing::{ControlSession, FakeControl, config, machine, soon, until, wire, wire_counts},
};

const NOBODY: u32 = 65_534;

/// An agent on a machine in memory.
struct Running {
    handle: AgentHandle,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
    status: Arc<Status>,
    jobs: Jobs,
}

impl Running {
    async fn start(folder: &Path) -> Self {
        let (agent, handle) = Agent::new(config(folder)).unwrap();
        let (shutdown, status) = (CancellationToken::new(), Arc::clone(&agent.status));
        let jobs = Arc::clone(&agent.jobs);
        let (fake, ..) = machine(16);
        let task = tokio::spawn(agent.run_on(|| Ok(fake), shutdown.clone()));
        until(|| status.serving()).await;
        Self {
            handle,
            shutdown,
            task,
            status,
            jobs,
        }
    }

    async fn stop(self) -> Result<(), AgentError> {
        self.shutdown.cancel();
        soon(self.task).await.unwrap()
    }

    /// A session that has a plan with one wire.
    async fn session(&self, control: &mut FakeControl) -> ControlSession {
        let mut session = control.session().await;
        session.hello().await;
        session.snapshot(1, vec![wire(1)]).await;
        assert_eq!(session.ack_ids().await, (1, vec![]));
        session
    }
}

async fn dial_agent(folder: &Path) -> Channel {
    let address = format!("unix://{}", folder.join("agent.sock").display());
    soon(Endpoint::from_shared(address).unwrap().connect())
        .await
        .unwrap()
}

fn request(service: &str, inode_url: &str) -> NetworkServiceRequest {
    let parameters = if inode_url.is_empty() {
        HashMap::new()
    } else {
        HashMap::from([("inodeURL".to_owned(), inode_url.to_owned())])
    };
    let mechanism = Mechanism {
        cls: "LOCAL".into(),
        r#type: "KERNEL".into(),
        parameters,
    };
    NetworkServiceRequest {
        connection: Some(Connection {
            id: "c1".into(),
            network_service: service.into(),
            ..Connection::default()
        }),
        mechanism_preferences: vec![mechanism],
    }
}

#[tokio::test]
async fn a_request_reaches_control_with_what_the_kernel_says_about_its_caller() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let netns = NetNs::new("req").unwrap();
    let mut relay = Relay::start(Some(&netns), NOBODY, &folder.path().join("agent.sock"));
    let mut client = NetworkServiceClient::new(relay.channel().await);

    let answer = soon(client.request(request("gold", "")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.network_service, "gold");
    let seen = control.seen.requests.lock().unwrap()[0].workload.clone().unwrap();
    let netns_id = seen.netns.clone().unwrap();
    assert_eq!((netns_id.device, netns_id.inode), netns.id().unwrap());
    assert_eq!(netns_id.path, netns.path().to_str().unwrap());
    assert_eq!(
        (seen.uid, seen.pid, seen.operator),
        (NOBODY, relay.process.pid(), false)
    );

    let refused = soon(client.request(request("gold", "file:///proc/1/ns/net")))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let start = "mechanism.parameters[inodeURL] \"file:///proc/1/ns/net\": only root";
    assert!(refused.message().starts_with(start), "{}", refused.message());

    let unknown = soon(client.request(request("unknown", ""))).await.unwrap_err();
    assert_eq!(
        unknown.code(),
        Code::NotFound,
        "control's own status is passed on"
    );
    assert!(unknown.message().contains("no such service"));

    soon(client.close(answer)).await.unwrap();
    assert_eq!(control.seen.closes.lock().unwrap().len(), 1);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_caller_says_in_a_header_who_keeps_its_lease() {
    use tieline_proto::{
        lease,
        tieline::agent::v1::{self as proto, Keeper},
    };

    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let netns = NetNs::new("keep").unwrap();
    let url = format!("file://{}", netns.path().display());
    let channel = dial_agent(folder.path()).await;
    let client = NetworkServiceClient::new(channel.clone());
    let call = |value: Option<&'static str>| {
        let mut call = tonic::Request::new(request("gold", &url));
        if let Some(value) = value {
            call.metadata_mut().insert(lease::HEADER, value.parse().unwrap());
        }
        let mut client = client.clone();
        async move { soon(client.request(call)).await }
    };
    for value in [None, Some(lease::CLIENT), Some(lease::NODE)] {
        call(value).await.unwrap();
    }
    let refused = call(Some("for ever")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().starts_with("tieline-lease \"for ever\": "),
        "{refused}"
    );
    let keepers: Vec<Keeper> = {
        let seen = control.seen.requests.lock().unwrap();
        seen.iter().map(proto::RequestConnectionRequest::keeper).collect()
    };
    assert_eq!(keepers, [Keeper::Client, Keeper::Client, Keeper::Node]);
    let mut endpoints = NetworkServiceEndpointRegistryClient::new(channel);
    let endpoint = NetworkServiceEndpoint {
        name: "nse-1".to_owned(),
        url,
        ..NetworkServiceEndpoint::default()
    };
    let mut call = tonic::Request::new(endpoint);
    call.metadata_mut()
        .insert(lease::HEADER, lease::NODE.parse().unwrap());
    soon(endpoints.register(call)).await.unwrap();
    drop(netns);
    assert_eq!(agent.status.tenants.take_vanished().endpoints_gone, ["nse-1"]);
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn an_endpoint_is_registered_for_its_caller_and_services_by_operators_only() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let netns = NetNs::new("nse").unwrap();
    let mut relay = Relay::start(Some(&netns), NOBODY, &folder.path().join("agent.sock"));
    let channel = relay.channel().await;

    let endpoint = NetworkServiceEndpoint {
        name: "gold-1".into(),
        ..NetworkServiceEndpoint::default()
    };
    let mut endpoints = NetworkServiceEndpointRegistryClient::new(channel.clone());
    soon(endpoints.register(endpoint)).await.unwrap();
    let seen = control.seen.endpoints.lock().unwrap()[0].clone();
    assert_eq!(
        seen.workload.unwrap().netns.unwrap().path,
        netns.path().to_str().unwrap()
    );
    assert_eq!(seen.interface, "");

    let service = NetworkService {
        name: "gold".into(),
        ..NetworkService::default()
    };
    let refused = soon(NetworkServiceRegistryClient::new(channel).register(service))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().starts_with("name \"gold\": only root"),
        "{}",
        refused.message()
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn without_control_calls_fail_at_once_and_say_why() {
    let folder = open_folder();
    let agent = Running::start(folder.path()).await;
    let netns = NetNs::new("away").unwrap();
    let mut client = NetworkServiceClient::new(dial_agent(folder.path()).await);
    let began = std::time::Instant::now();
    let named = format!("file://{}", netns.path().display());
    let status = soon(client.request(request("gold", &named))).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().starts_with("control is away ("),
        "{}",
        status.message()
    );
    assert!(
        status.message().contains("existing wires keep forwarding"),
        "{}",
        status.message()
    );
    let items = agent.handle.readiness();
    let ready: Vec<_> = items.iter().map(|item| (item.name, item.ready)).collect();
    assert_eq!(
        ready,
        [
            ("datapath", true),
            ("plan", false),
            ("control", false),
            ("local_api", true)
        ]
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn oversized_and_empty_requests_get_a_typed_status() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let mut client = NetworkServiceClient::new(dial_agent(folder.path()).await);
    let huge = soon(client.request(request(&"x".repeat(2 * 1024 * 1024), "")))
        .await
        .unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    let empty = soon(client.request(NetworkServiceRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(
        (empty.code(), empty.message()),
        (Code::InvalidArgument, "connection \"\": must be set")
    );
    let no_id = NetworkServiceRequest {
        connection: Some(Connection::default()),
        ..Default::default()
    };
    let no_id = soon(client.request(no_id)).await.unwrap_err();
    assert!(
        no_id.message().starts_with("connection.id \"\""),
        "{}",
        no_id.message()
    );
    assert!(control.seen.requests.lock().unwrap().is_empty());
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn operators_see_the_node_its_wires_and_its_metrics() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let mut node = NodeServiceClient::new(dial_agent(folder.path()).await);
    let found = soon(node.get_node(GetNodeRequest {})).await.unwrap().into_inner();
    assert_eq!(
        (found.node.as_str(), found.wires, found.max_wires),
        ("tl-node", 1, 16)
    );
    assert_eq!(
        (
            found.planned_generation,
            found.applied_generation,
            found.control_connected
        ),
        (1, 1, true)
    );
    let wires = soon(node.list_wires(ListWiresRequest::default()))
        .await
        .unwrap()
        .into_inner()
        .wires;
    assert_eq!(wires.len(), 1);
    assert!(wires[0].forwarding);
    let client = wires[0].client.clone().unwrap();
    assert_eq!(
        (client.workload_interface.as_str(), client.netns.as_str()),
        ("nsm-1", "/run/netns/tl-client")
    );
    assert!(client.ifindex > 0 && !client.host_interface.is_empty());
    let none = ListWiresRequest {
        connection_ids: vec!["unknown".into()],
    };
    assert!(
        soon(node.list_wires(none))
            .await
            .unwrap()
            .into_inner()
            .wires
            .is_empty()
    );

    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_scrape_reads_the_counters_of_every_wire() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let mut node = NodeServiceClient::new(dial_agent(folder.path()).await);
    soon(node.get_node(GetNodeRequest {})).await.unwrap();
    let handle = agent.handle.clone();
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        handle.render_metrics(&mut text).unwrap();
        text
    });
    let text = text.await.unwrap();
    let wire = "{connection=\"c1\",network_service=\"gold\",endpoint=\"gold-1\",direction=\"from_client\"} 0";
    for line in [
        "tieline_session_up 1".to_owned(),
        "tieline_applied_generation 1".to_owned(),
        "tieline_wires{state=\"forwarding\"} 1".to_owned(),
        format!("tieline_wire_packets_total{wire}"),
        format!("tieline_wire_bytes_total{wire}"),
        "tieline_packets_total{reason=\"forwarded\"} 0".to_owned(),
        "tieline_local_call_seconds_count{method=\"NodeService/GetNode\",code=\"OK\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("# EOF"));
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn health_follows_the_session() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let session = agent.session(&mut control).await;
    let mut health = HealthClient::new(dial_agent(folder.path()).await);
    let mut check = async |service: &str| {
        let check = HealthCheckRequest {
            service: service.into(),
        };
        soon(health.check(check)).await.unwrap().into_inner().status()
    };
    for service in ["", "networkservice.NetworkService"] {
        assert_eq!(check(service).await, ServingStatus::Serving, "{service:?}");
    }
    drop(session);
    control.kill();
    until(|| matches!(agent.status.session(), SessionState::Away { .. })).await;
    while check("networkservice.NetworkService").await != ServingStatus::NotServing {}
    assert_eq!(
        check("").await,
        ServingStatus::Serving,
        "the agent itself answers"
    );
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_agent_says_that_one_is_running() {
    let folder = open_folder();
    let agent = Running::start(folder.path()).await;
    let (second, _) = Agent::new(config(folder.path())).unwrap();
    let error = second
        .run_on(|| Ok(machine(1).0), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::AlreadyRunning { .. }), "{error}");
    let elsewhere = crate::agent::Config {
        state_dir: folder.path().join("other"),
        ..config(folder.path())
    };
    let (third, _) = Agent::new(elsewhere).unwrap();
    let error = third
        .run_on(|| Ok(machine(1).0), CancellationToken::new())
        .await
        .unwrap_err();
    assert!(matches!(error, AgentError::SocketInUse { .. }), "{error}");
    dial_agent(folder.path()).await;
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_open_streams_and_removes_the_socket() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let mut monitor = MonitorConnectionClient::new(dial_agent(folder.path()).await);
    let mut events = soon(monitor.monitor_connections(MonitorScopeSelector::default()))
        .await
        .unwrap()
        .into_inner();
    soon(events.message()).await.unwrap().unwrap();
    let began = std::time::Instant::now();
    agent.stop().await.unwrap();
    assert!(began.elapsed() < DRAIN_TIMEOUT, "nothing had to be cut off");
    assert_eq!(
        soon(events.message()).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert!(!folder.path().join("agent.sock").exists());
}

#[tokio::test]
async fn what_was_accepted_is_finished_and_stays_in_the_kernel() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let status = Arc::clone(&agent.status);
    agent.stop().await.unwrap();
    assert_eq!((status.applied(), status.wire_counts()), (1, wire_counts(1, 0)));
    assert!(matches!(status.session(), SessionState::Away { .. }));
    assert!(!status.serving());
}

#[tokio::test]
async fn a_worker_that_dies_ends_the_agent_by_name() {
    let folder = open_folder();
    let mut control = FakeControl::start(folder.path());
    let agent = Running::start(folder.path()).await;
    let _session = agent.session(&mut control).await;
    let jobs = agent.jobs.get().unwrap().upgrade().unwrap();
    jobs.send(Job::Look(Box::new(|_| panic!("for the test"))))
        .await
        .ok()
        .unwrap();
    let error = soon(agent.task).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("\"worker\"") && error.to_string().contains("panicked"),
        "{error}"
    );
    assert!(!folder.path().join("agent.sock").exists());
}
