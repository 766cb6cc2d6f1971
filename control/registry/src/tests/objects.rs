//! Declared objects.

use tieline_model::{NetworkService, Object, ObjectKind};

use super::{Bench, T0, endpoint, service};
use crate::{Applied, ApplyAction, Code, Command, Reply};

fn with_prefix(name: &str, prefix: &str) -> NetworkService {
    service(name)
        .with_prefixes(vec![prefix.parse().unwrap()], Vec::new())
        .unwrap()
}

fn apply(bench: &mut Bench, objects: Vec<Object>, dry_run: bool) -> Vec<Applied> {
    match bench
        .registry
        .handle(T0, Command::Apply { objects, dry_run })
        .unwrap()
    {
        Reply::Applied(outcome) => outcome.results,
        other => panic!("{other:?}"),
    }
}

#[test]
fn applying_twice_changes_nothing_the_second_time() {
    let mut bench = Bench::new(Vec::new());
    let objects = || {
        vec![
            Object::NetworkService(service("gold")),
            Object::NetworkServiceEndpoint(endpoint("gw", "gold")),
        ]
    };
    let actions = |results: Vec<Applied>| results.into_iter().map(|one| one.action).collect::<Vec<_>>();
    assert_eq!(
        actions(apply(&mut bench, objects(), true)),
        [ApplyAction::Created; 2]
    );
    assert!(bench.flush().is_empty(), "a dry run does nothing");
    assert_eq!(
        actions(apply(&mut bench, objects(), false)),
        [ApplyAction::Created; 2]
    );
    assert_eq!(bench.flush().writes.len(), 2);
    assert_eq!(
        actions(apply(&mut bench, objects(), false)),
        [ApplyAction::Unchanged; 2]
    );
    assert!(bench.flush().is_empty());
}

#[test]
fn one_bad_object_keeps_all_of_them_out() {
    let mut bench = Bench::new(vec![with_prefix("gold", "10.0.0.0/8")]);
    let objects = vec![
        Object::NetworkService(service("fine")),
        Object::NetworkService(with_prefix("silver", "10.1.0.0/16")),
    ];
    let refusal = bench.apply(objects).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    let text = refusal.to_string();
    assert!(
        text.contains("silver \"10.1.0.0/16\": overlaps 10.0.0.0/8 of NetworkService gold"),
        "{text}"
    );
    assert_eq!(bench.registry.counts().services, 1);
    let equal = Object::NetworkService(with_prefix("silver", "10.0.0.0/8"));
    bench.apply(vec![equal]).unwrap();
    let with_default = Object::NetworkService(with_prefix("bronze", "172.29.3.0/24"));
    assert!(
        bench
            .apply(vec![with_default])
            .unwrap_err()
            .to_string()
            .contains("default prefixes")
    );
}

#[test]
fn what_is_accepted_with_a_doubt_carries_a_warning() {
    let mut bench = Bench::new(Vec::new());
    let results = apply(&mut bench, vec![Object::NetworkService(service("gold"))], false);
    assert!(
        results[0].warnings[0].contains("no endpoint offers it yet"),
        "{results:?}"
    );
    let results = apply(
        &mut bench,
        vec![Object::NetworkServiceEndpoint(endpoint("gw", "other"))],
        false,
    );
    assert!(
        results[0].warnings[0].contains("NetworkService other is not there yet"),
        "{results:?}"
    );
}

#[test]
fn a_service_with_connections_is_not_deleted_and_one_without_is() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    let delete = || Command::Delete {
        kind: ObjectKind::NetworkService,
        name: "gold".to_owned(),
    };
    let refusal = bench.registry.handle(T0, delete()).unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.to_string().contains("1 connections"), "{refusal}");
    bench.close(crate::Caller::Operator, "c1").unwrap();
    bench.registry.handle(T0, delete()).unwrap();
    bench.flush();
    assert!(
        !bench
            .store
            .keys()
            .any(|key| key.contains("gold") && !key.starts_with("endpoint/")),
        "{:?}",
        bench.store.keys()
    );
    assert_eq!(
        bench.registry.handle(T0, delete()).unwrap_err().code(),
        Code::NotFound
    );
}

#[test]
fn deleting_an_endpoint_parks_its_connections_where_there_is_no_other() {
    let mut bench = Bench::new(vec![service("gold")]);
    let stood = bench.connect(1, "c1", "gold");
    let kind = ObjectKind::NetworkServiceEndpoint;
    let reply = bench
        .registry
        .handle(
            T0,
            Command::Delete {
                kind,
                name: "gw-gold".to_owned(),
            },
        )
        .unwrap();
    let Reply::Done(planned) = reply else { panic!() };
    assert_eq!(planned.len(), 1, "the caller can wait for the wire to go");
    let parked = bench.registry.connection(&stood.id).unwrap();
    assert!(parked.is_parked());
    assert_eq!(
        (&parked.client, &parked.server_addresses),
        (&stood.client, &stood.server_addresses)
    );
}
