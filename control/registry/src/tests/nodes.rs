//! Sessions of nodes, acknowledgements, observations, restarts.

use tieline_model::ConnectionState;

use super::{Bench, T0, request, service};
use crate::{Code, Command, ObservedWire, Refusal, Registry, RegistryConfig, RestoreError};

fn node() -> tieline_model::NodeName {
    "n1".parse().unwrap()
}

fn observe(bench: &mut Bench, wire: ObservedWire) {
    let id = "c1".parse().unwrap();
    bench
        .registry
        .handle(
            T0,
            Command::Observe {
                node: node(),
                id,
                wire,
            },
        )
        .unwrap();
}

fn state(bench: &Bench) -> ConnectionState {
    bench
        .registry
        .connection(&"c1".parse().unwrap())
        .unwrap()
        .state
        .clone()
}

#[test]
fn a_request_without_an_agent_fails_at_once_and_changes_nothing() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench
        .registry
        .handle(T0, Command::NodeBye { node: node() })
        .unwrap();
    bench.flush();
    let refusal = bench.request(T0, 1, request("c1", "gold")).unwrap_err();
    assert_eq!(
        (refusal.code(), refusal),
        (Code::Unavailable, Refusal::NodeAway { node: node() })
    );
    assert!(bench.flush().is_empty());
}

#[test]
fn an_agent_that_leaves_ends_the_wait_and_wires_that_never_stood() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    bench.request(T0, 1, request("c2", "gold")).unwrap();
    bench.flush();
    bench
        .registry
        .handle(T0, Command::NodeBye { node: node() })
        .unwrap();
    let effects = bench.flush();
    assert_eq!(effects.settled.len(), 1);
    assert_eq!(
        effects.settled[0].result.as_ref().unwrap_err().code(),
        Code::Unavailable
    );
    assert!(bench.registry.connection(&"c2".parse().unwrap()).is_none());
    assert_eq!(
        state(&bench),
        ConnectionState::Up,
        "what stands in the kernel stands without an agent"
    );
}

#[test]
fn a_wire_that_is_lost_is_down_with_its_reason_until_it_is_back() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    observe(
        &mut bench,
        ObservedWire::Lost {
            endpoint: None,
            message: "nsm-1 is gone".to_owned(),
        },
    );
    assert_eq!(
        state(&bench),
        ConnectionState::Down {
            reason: "nsm-1 is gone".to_owned()
        }
    );
    assert_eq!(bench.flush().events.len(), 1);
    observe(&mut bench, ObservedWire::Restored);
    assert_eq!(state(&bench), ConnectionState::Up);
    observe(
        &mut bench,
        ObservedWire::Lost {
            endpoint: None,
            message: "again".to_owned(),
        },
    );
    bench.hello(0);
    bench.ack(Vec::new());
    assert_eq!(
        state(&bench),
        ConnectionState::Up,
        "the whole plan was carried out"
    );
}

#[test]
fn a_node_is_never_sent_a_smaller_generation_than_its_kernel_has() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.hello(50);
    assert_eq!(bench.registry.node(&node()).unwrap().generation, 51);
    bench.connect(1, "c1", "gold");
    let restored = bench.restored();
    assert_eq!(restored.node_snapshot(&node()).generation, 52);
    bench.hello(3);
    assert_eq!(bench.registry.node(&node()).unwrap().generation, 52);
}

#[test]
fn an_acknowledgement_ahead_of_the_plan_is_refused() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.request(T0, 1, request("c1", "gold")).unwrap();
    let report = Command::NodeReport {
        node: node(),
        generation: 99,
        failures: Vec::new(),
    };
    assert_eq!(
        bench.registry.handle(T0, report).unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(state(&bench), ConnectionState::Pending);
}

#[test]
fn an_old_acknowledgement_decides_about_old_changes_only() {
    let mut bench = Bench::new(vec![service("gold")]);
    let first = bench
        .request(T0, 1, request("c1", "gold"))
        .unwrap()
        .settles
        .unwrap();
    bench.flush();
    bench.request(T0, 1, request("c2", "gold")).unwrap();
    bench.flush();
    let report = Command::NodeReport {
        node: node(),
        generation: first.generation,
        failures: Vec::new(),
    };
    bench.registry.handle(T0, report).unwrap();
    let settled: Vec<String> = bench
        .flush()
        .settled
        .iter()
        .map(|one| one.id.to_string())
        .collect();
    assert_eq!(settled, ["c1"]);
}

#[test]
fn a_full_node_takes_no_more_wires() {
    let mut bench = Bench::new(vec![service("gold")]);
    let hello = crate::NodeHello {
        node: node(),
        version: String::new(),
        generation: 0,
        attach_backend: "tcx".to_owned(),
        max_wires: 1,
        machine: None,
    };
    bench.registry.handle(T0, Command::NodeHello(hello)).unwrap();
    bench.connect(1, "c1", "gold");
    let refusal = bench.request(T0, 1, request("c2", "gold")).unwrap_err();
    assert_eq!(refusal, Refusal::NodeFull { node: node(), max: 1 });
    assert!(
        bench.request(T0, 1, request("c1", "gold")).is_ok(),
        "old work is unaffected"
    );
}

#[test]
fn changes_between_two_takes_of_the_effects_are_one_generation() {
    let mut bench = Bench::new(vec![service("gold")]);
    let a = bench
        .request(T0, 1, request("a", "gold"))
        .unwrap()
        .settles
        .unwrap();
    let b = bench
        .request(T0, 1, request("b", "gold"))
        .unwrap()
        .settles
        .unwrap();
    assert_eq!(a, b);
    assert_eq!(bench.flush().node_changes.get("n1").unwrap().upsert.len(), 2);
}

#[test]
fn records_of_a_later_release_or_that_contradict_one_another_are_refused() {
    let mut bench = Bench::new(vec![service("gold")]);
    bench.connect(1, "c1", "gold");
    let config = || RegistryConfig::new().unwrap();
    let mut later = bench.store.clone();
    later.insert(
        "connection/c1".to_owned(),
        br#"{"version":2,"record":{"new":1}}"#.to_vec(),
    );
    let error = Registry::restore(config(), later).unwrap_err();
    assert_eq!(
        error,
        RestoreError::FutureVersion {
            key: "connection/c1".to_owned(),
            version: 2
        }
    );
    let mut twice = bench.store.clone();
    let copy = String::from_utf8(twice.get("connection/c1").unwrap().clone()).unwrap();
    twice.insert(
        "connection/c2".to_owned(),
        copy.replace("\"c1\"", "\"c2\"").into_bytes(),
    );
    assert!(matches!(
        Registry::restore(config(), twice).unwrap_err(),
        RestoreError::Conflict { .. }
    ));
    let mut orphan = bench.store.clone();
    orphan.remove("endpoint/gw-gold");
    assert!(matches!(
        Registry::restore(config(), orphan).unwrap_err(),
        RestoreError::Conflict { .. }
    ));
    let mut broken = bench.store.clone();
    broken.insert("node/n1".to_owned(), b"{}".to_vec());
    assert!(matches!(
        Registry::restore(config(), broken).unwrap_err(),
        RestoreError::Malformed { .. }
    ));
    let unknown = [("chain/x".to_owned(), b"{}".to_vec())];
    assert!(matches!(
        Registry::restore(config(), unknown).unwrap_err(),
        RestoreError::UnknownKey { .. }
    ));
}
