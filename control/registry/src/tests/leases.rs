//! Expiry and refresh.

use std::collections::BTreeMap;

use tieline_model::{EndpointRegistration, Labels, NetworkServiceEndpoint, Workload};

use super::{Bench, T0, at, request, service, workload};
use crate::{Caller, ChangeKind, Code, Command, Refusal, RegistryEvent, Reply};

fn register(
    bench: &mut Bench,
    now: u64,
    caller: Workload,
    expires: Option<u64>,
) -> Result<NetworkServiceEndpoint, Refusal> {
    let services = BTreeMap::from([("gold".parse().unwrap(), Labels::default())]);
    let mut registration = EndpointRegistration::new("nse-1".parse().unwrap(), services).unwrap();
    registration.expires = expires.map(at);
    match bench
        .registry
        .handle(at(now), Command::RegisterEndpoint { caller, registration })?
    {
        Reply::Endpoint(endpoint) => Ok(*endpoint),
        other => panic!("{other:?}"),
    }
}

fn without_endpoints() -> Bench {
    let mut bench = Bench::new(vec![service("gold")]);
    let kind = tieline_model::ObjectKind::NetworkServiceEndpoint;
    bench
        .registry
        .handle(
            T0,
            Command::Delete {
                kind,
                name: "gw-gold".to_owned(),
            },
        )
        .unwrap();
    bench.flush();
    bench
}

#[test]
fn a_connection_that_is_not_refreshed_ends_with_its_lease() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    assert_eq!(bench.registry.next_timeout(), Some(at(600)));
    bench.registry.handle_timeout(at(599));
    assert!(bench.flush().is_empty());
    bench.registry.handle_timeout(at(600));
    let effects = bench.flush();
    assert!(matches!(
        effects.events.as_slice(),
        [RegistryEvent::Connection(ChangeKind::Delete, _)]
    ));
    assert!(effects.node_changes.get("n1").unwrap().remove.contains("c1"));
    assert_eq!(bench.registry.next_timeout(), None);
}

#[test]
fn the_lease_granted_is_at_most_the_longest_and_lies_ahead() {
    let mut bench = Bench::new(vec![service("gold")]);
    for (id, asked, granted) in [("a", Some(30), 30), ("b", Some(100_000), 600), ("c", None, 600)] {
        let mut request = request(id, "gold");
        request.expires = asked.map(at);
        let connection = bench.request(T0, 1, request).unwrap().connection;
        assert_eq!(connection.expires, at(granted), "{id}");
        assert!(
            connection
                .path
                .segments
                .iter()
                .all(|hop| hop.expires == at(granted))
        );
    }
    let mut late = request("d", "gold");
    late.expires = Some(T0);
    let refusal = bench.request(T0, 1, late).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(
        refusal.to_string().contains("path_segments[0].expires"),
        "{refusal}"
    );
}

#[test]
fn an_endpoint_whose_lease_ends_takes_its_connections_with_it() {
    let mut bench = without_endpoints();
    let endpoint = register(&mut bench, 0, workload(9), None).unwrap();
    assert_eq!(endpoint.expires(), Some(at(60)));
    bench.connect(1, "c1", "gold");
    bench.registry.handle_timeout(at(60));
    let events = bench.flush().events;
    assert!(matches!(
        events.as_slice(),
        [
            RegistryEvent::Connection(ChangeKind::Delete, _),
            RegistryEvent::Endpoint(ChangeKind::Delete, _)
        ]
    ));
    assert_eq!(bench.registry.counts().connections, 0);
}

#[test]
fn a_registration_is_refreshed_by_its_owner_only_and_keeps_its_beginning() {
    let mut bench = without_endpoints();
    register(&mut bench, 0, workload(9), Some(30)).unwrap();
    bench.connect(1, "c1", "gold");
    let refreshed = register(&mut bench, 20, workload(9), Some(30)).unwrap();
    assert_eq!(
        (refreshed.registered_at(), refreshed.expires()),
        (T0, Some(at(80))),
        "the echo asks for nothing"
    );
    assert_eq!(bench.registry.counts().connections, 1, "a refresh moves nobody");
    assert_eq!(
        register(&mut bench, 20, workload(8), None).unwrap_err().code(),
        Code::PermissionDenied
    );
    let caller = Caller::Workload(workload(8));
    let unregister = Command::UnregisterEndpoint {
        caller,
        name: "nse-1".parse().unwrap(),
    };
    assert_eq!(
        bench.registry.handle(T0, unregister).unwrap_err().code(),
        Code::PermissionDenied
    );
    let operator = Workload {
        operator: true,
        ..workload(8)
    };
    register(&mut bench, 20, operator, None).unwrap();
    assert_eq!(
        bench.registry.counts().connections,
        0,
        "it moved to another namespace"
    );
}

#[test]
fn only_operators_register_interfaces_of_the_node() {
    let mut bench = without_endpoints();
    let services = BTreeMap::from([("gold".parse().unwrap(), Labels::default())]);
    let mut registration = EndpointRegistration::new("vm".parse().unwrap(), services).unwrap();
    registration.attachment = Some(tieline_model::Attachment::Interface("tap0".parse().unwrap()));
    let as_caller = |operator| Command::RegisterEndpoint {
        caller: Workload {
            operator,
            ..workload(1)
        },
        registration: registration.clone(),
    };
    assert_eq!(
        bench.registry.handle(T0, as_caller(false)).unwrap_err().code(),
        Code::PermissionDenied
    );
    bench.registry.handle(T0, as_caller(true)).unwrap();
}
