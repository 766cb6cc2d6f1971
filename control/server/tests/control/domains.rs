//! Two controls, of which one follows the other.

use std::path::Path;

use tieline_proto::registry as proto;
use tieline_proto::registry::network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient;
use tieline_proto::tieline::admin::v1 as admin;
use tieline_proto::tieline::agent::v1::RequestConnectionRequest;
use tieline_proto::tieline::domain::v1 as domain;
use tieline_proto::tieline::domain::v1::domain_service_client::DomainServiceClient;
use tonic::{Code, Status};

use crate::agent::FakeAgent;
use crate::calls::{close, registration, request};
use crate::world::{World, eventually};

/// A control of this name that knows these others: `NAME`, or the name and where it listens.
async fn control(name: &str, peers: &[(&str, Option<&Path>)]) -> World {
    World::with(|config, _| {
        config.registry.domain = Some(name.parse().unwrap());
        let peers = peers.iter().map(|(name, socket)| match socket {
            Some(socket) => format!("{name}=unix://{}", socket.display()),
            None => (*name).to_owned(),
        });
        config.peers = peers.map(|peer| peer.parse().unwrap()).collect();
    })
    .await
}

async fn reached(world: &World) {
    eventually("the other domain is reached", async || {
        world.status().await.domains.iter().all(|one| one.reached)
    })
    .await;
}

/// `west` offers the service `s` by the endpoint that every world has, and `east` follows it.
async fn two() -> (World, World) {
    let west = control("west", &[("east", None)]).await;
    let _agent = west.with_node().await.obey();
    let east = control("east", &[("west", Some(&west.socket()))]).await;
    reached(&east).await;
    (east, west)
}

fn far(id: &str, client: u64, service: &str) -> RequestConnectionRequest {
    let mut message = request(id, client);
    let inner = message.request.as_mut().unwrap();
    inner.connection.as_mut().unwrap().network_service = service.to_owned();
    message
}

async fn find(
    world: &World,
    service: &str,
    watch: bool,
) -> Result<tonic::Streaming<proto::NetworkServiceEndpointResponse>, Status> {
    let query = proto::NetworkServiceEndpointQuery {
        network_service_endpoint: Some(proto::NetworkServiceEndpoint {
            network_service_names: vec![service.to_owned()],
            ..proto::NetworkServiceEndpoint::default()
        }),
        watch,
    };
    let mut client = NetworkServiceEndpointRegistryClient::new(world.channel().await);
    Ok(client.find(query).await?.into_inner())
}

async fn found(world: &World, service: &str) -> Vec<String> {
    let mut answers = find(world, service, false).await.unwrap();
    let mut names = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        names.push(answer.network_service_endpoint.unwrap().name);
    }
    names
}

async fn endpoints(world: &World) -> Vec<String> {
    let list = admin::ListRequest::default();
    let items = world
        .admin()
        .await
        .list_endpoints(list)
        .await
        .unwrap()
        .into_inner()
        .items;
    items.into_iter().map(|one| one.endpoint.unwrap().name).collect()
}

#[tokio::test]
async fn find_answers_for_the_domain_that_is_named() {
    let (east, mut west) = two().await;
    let theirs = found(&west, "s").await;
    assert_eq!(theirs.len(), 1);
    assert_eq!(found(&east, "s@west").await, [format!("{}@west", theirs[0])]);
    assert_eq!(found(&west, "s@west").await, theirs, "its own name may be said");
    assert!(found(&east, "s").await.is_empty());

    let mut watched = find(&east, "s@west", true).await.unwrap();
    watched.message().await.unwrap().unwrap();
    west.agents()
        .await
        .register_endpoint(registration("second", 77))
        .await
        .unwrap();
    let second = watched.message().await.unwrap().unwrap();
    assert_eq!(second.network_service_endpoint.unwrap().name, "second@west");

    let unknown = find(&east, "s@north", true).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown:?}");
    assert!(unknown.message().contains("--peer north=ADDRESS"), "{unknown:?}");
    west.stop().await.unwrap();
    eventually("west is away", async || !east.status().await.domains[0].reached).await;
    let away = find(&east, "s@west", false).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable, "{away:?}");
    assert!(
        find(&east, "s@west", true).await.is_ok(),
        "who watches hears when it is back"
    );
}

#[tokio::test]
async fn addresses_are_the_other_domains_and_are_given_back() {
    let (east, west) = two().await;
    let (agent, snapshot) = FakeAgent::join(&east, "n1", 0).await;
    agent.ack(snapshot.generation).await;
    let _session = agent.obey();
    let mut workload = east.agents().await;
    let refused = workload
        .request_connection(far("c0", 1, "never@west"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    assert!(
        refused
            .message()
            .starts_with("registry domain \"west\" refuses: "),
        "{refused:?}"
    );
    assert!(east.connections().await.is_empty());

    let given = workload
        .request_connection(far("c1", 1, "s@west"))
        .await
        .unwrap()
        .into_inner();
    let again = workload
        .request_connection(far("c1", 1, "s@west"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(given.context, again.context);
    assert_eq!(reserved(&west).await, 1);
    workload.close_connection(close("c1", 1)).await.unwrap();
    eventually("its addresses are given back", async || {
        reserved(&west).await == 0
    })
    .await;
}

/// How many connections of other domains have addresses of the service `s`. If there is none, the service goes.
async fn reserved(world: &World) -> u32 {
    let delete = admin::DeleteRequest {
        kind: "NetworkService".to_owned(),
        name: "s".to_owned(),
    };
    let Err(refused) = world.admin().await.delete(delete).await else {
        return 0;
    };
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let count = refused.message().split(": ").nth(1).unwrap();
    count.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_asked_for_while_others_are_given_back_are_kept() {
    const ROUNDS: u32 = 5;
    const CLIENTS: u32 = 20;
    let (east, west) = two().await;
    let (agent, snapshot) = FakeAgent::join(&east, "n1", 0).await;
    agent.ack(snapshot.generation).await;
    let _session = agent.obey();
    let workload = east.agents().await;
    let mut calls = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut workload = workload.clone();
        calls.spawn(async move {
            for round in 0..ROUNDS {
                let (id, client) = (format!("c{client}-{round}"), u64::from(client));
                workload
                    .request_connection(far(&id, client, "s@west"))
                    .await
                    .unwrap();
                if round + 1 < ROUNDS {
                    workload.close_connection(close(&id, client)).await.unwrap();
                }
            }
        });
    }
    calls.join_all().await;
    let mut addresses = std::collections::BTreeSet::new();
    for status in east.connections().await {
        let context = status.connection.unwrap().context.unwrap().ip_context.unwrap();
        for address in context.src_ip_addrs.into_iter().chain(context.dst_ip_addrs) {
            assert!(addresses.insert(address.clone()), "{address} twice");
        }
    }
    eventually("exactly those that stand have addresses", async || {
        reserved(&west).await == CLIENTS
    })
    .await;
    let asked = west.metric("tieline_control_rpcs_total{rpc=\"DomainService.Reserve\",code=\"OK\"}");
    let lost = asked - f64::from(CLIENTS * ROUNDS);
    assert!(lost.abs() < 0.1, "{lost} were lost and asked for again");
}

#[tokio::test]
async fn an_endpoint_is_registered_where_its_name_says_and_goes_with_its_own() {
    let floating = control("floating", &[("east", None), ("west", None)]).await;
    let east = control("east", &[("floating", Some(&floating.socket()))]).await;
    let west = control("west", &[("floating", Some(&floating.socket()))]).await;
    for world in [&east, &west] {
        let (agent, snapshot) = FakeAgent::join(world, "n1", 0).await;
        agent.ack(snapshot.generation).await;
        drop(agent.obey());
        reached(world).await;
    }
    let mut of_east = east.agents().await;
    let given = of_east
        .register_endpoint(registration("gw@floating", 5))
        .await
        .unwrap();
    assert_eq!(given.into_inner().name, "gw@floating");
    assert_eq!(endpoints(&floating).await, ["gw"]);
    eventually("west knows it", async || {
        endpoints(&west).await == ["gw@floating"]
    })
    .await;

    // The name is taken there, whoever asks; and nothing of it stays here.
    let taken = west
        .agents()
        .await
        .register_endpoint(registration("gw@floating", 6))
        .await
        .unwrap_err();
    assert_eq!(taken.code(), Code::PermissionDenied, "{taken:?}");
    let endpoint = proto::NetworkServiceEndpoint {
        name: "gw@floating".to_owned(),
        ..proto::NetworkServiceEndpoint::default()
    };
    let unregister = tieline_proto::tieline::agent::v1::UnregisterEndpointRequest {
        workload: registration("gw", 5).workload,
        endpoint: Some(endpoint),
    };
    of_east.unregister_endpoint(unregister).await.unwrap();
    eventually("it is gone there", async || endpoints(&floating).await.is_empty()).await;
    eventually("west hears of it", async || endpoints(&west).await.is_empty()).await;
}

#[tokio::test]
async fn who_was_not_named_is_told_nothing() {
    let world = control("west", &[("east", None)]).await;
    let mut client = DomainServiceClient::new(world.channel().await);
    for (name, code) in [("north", Code::PermissionDenied), ("", Code::InvalidArgument)] {
        let watch = domain::WatchRequest {
            domain: name.to_owned(),
        };
        assert_eq!(client.watch(watch).await.unwrap_err().code(), code);
        let hold = domain::HoldRequest {
            domain: name.to_owned(),
            ..domain::HoldRequest::default()
        };
        assert_eq!(client.hold(hold).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn what_was_known_of_a_domain_that_is_not_named_any_more_is_forgotten() {
    let (mut east, west) = two().await;
    // What east knows is in its store: it is asked by another control on the same one.
    east.stop().await.unwrap();
    let directory = east.directory();
    east.config.store = tieline_control::StoreConfig::Redb(directory.join("control.redb"));
    east.start().await;
    reached(&east).await;
    assert_eq!(endpoints(&east).await.len(), 1);
    east.stop().await.unwrap();
    east.config.peers.clear();
    east.start().await;
    assert!(endpoints(&east).await.is_empty());
    drop(west);
}

#[tokio::test]
async fn an_endpoint_is_drained_where_it_is_registered_and_others_hear_of_it() {
    let (east, west) = two().await;
    let drain = async |world: &World, name: &str, off: bool| {
        let message = admin::DrainEndpointRequest {
            name: name.to_owned(),
            off,
        };
        world.admin().await.drain_endpoint(message).await
    };
    let refused = drain(&east, "e@west", false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(
        refused.message().contains("registry domain \"west\""),
        "{refused:?}"
    );
    let drained = async |world: &World| {
        let list = world
            .admin()
            .await
            .list_endpoints(admin::ListRequest::default())
            .await;
        list.unwrap().into_inner().items[0].draining
    };
    assert!(!drained(&east).await);
    for off in [false, true] {
        drain(&west, "e", off).await.unwrap();
        eventually("east hears of it", async || drained(&east).await != off).await;
    }
}
