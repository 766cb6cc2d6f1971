//! The operator's commands against a real control.

mod support;

use support::{Home, PATIENCE, Said};

const GOLD: &str = "\
apiVersion: tieline.io/v1
kind: NetworkService
metadata:
  name: gold-network
spec:
  prefixes: [192.0.2.0/24]
---
apiVersion: tieline.io/v1
kind: NetworkServiceEndpoint
metadata:
  name: vpngateway
spec:
  networkServiceNames: [gold-network]
  node: n1
  netns:
    path: /run/netns/tl-gateway
";

#[test]
fn objects_are_declared_shown_changed_and_deleted() {
    let home = Home::new();
    let mut control = home.start(&["control"]);
    let dry = home
        .run_with(&["apply", "-f", "-", "--dry-run", "-o", "json"], GOLD)
        .code(0);
    assert_eq!(dry.json()[0]["action"], "created", "{dry:?}");
    assert_eq!(
        home.run(&["get", "ns", "-o", "json"]).code(0).json(),
        serde_json::json!([]),
        "a dry run changes nothing"
    );

    home.run_with(&["apply", "-f", "-"], GOLD).code(0);
    let again = home
        .run_with(&["apply", "-f", "-", "-o", "json"], GOLD)
        .code(0)
        .json();
    assert_eq!(
        (&again[0]["action"], &again[1]["action"]),
        (&"unchanged".into(), &"unchanged".into())
    );
    let services = home.run(&["get", "networkservices", "-o", "json"]).code(0).json();
    assert_eq!(
        (&services[0]["name"], &services[0]["endpoints"]),
        (&"gold-network".into(), &1.into())
    );
    let endpoints = home.run(&["get", "nse", "vpngateway"]).code(0);
    assert!(
        endpoints
            .out
            .lines()
            .nth(1)
            .is_some_and(|line| line.starts_with("vpngateway   gold-network   n1 ")),
        "{endpoints:?}"
    );
    assert!(
        home.run(&["describe", "ns", "gold-network"])
            .code(0)
            .out
            .contains("192.0.2.0/24")
    );

    home.run(&["delete", "endpoint", "vpngateway"]).code(0);
    home.run(&["delete", "ns", "gold-network"]).code(0);
    assert_eq!(
        home.run(&["get", "ns", "-o", "json"]).code(0).json(),
        serde_json::json!([])
    );
    assert!(control.stop(PATIENCE).unwrap().success());
}

#[test]
fn what_get_writes_as_yaml_apply_reads_unchanged() {
    let home = Home::new();
    let _control = home.start(&["control", "--store", "memory"]);
    home.run_with(&["apply", "-f", "-"], GOLD).code(0);
    for kind in ["networkservices", "endpoints"] {
        let written = home.run(&["get", kind, "-o", "yaml"]).code(0).out;
        let applied = home
            .run_with(&["apply", "-f", "-", "-o", "json"], &written)
            .code(0)
            .json();
        assert_eq!(applied[0]["action"], "unchanged", "{written}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let home = Home::new();
    let mut control = home.start(&["control"]);
    home.run_with(&["apply", "-f", "-"], GOLD).code(0);
    control.kill().unwrap();
    home.run(&["get", "ns"])
        .code(3)
        .says(&["cannot reach control", "tieline control"]);
    let _control = home.start(&["control"]);
    assert_eq!(
        home.run(&["get", "ns", "-o", "json"]).code(0).json()[0]["name"],
        "gold-network"
    );
}

#[test]
fn refusals_have_their_codes_and_name_what_is_wrong() {
    let home = Home::new();
    let _control = home.start(&["control", "--store", "memory"]);
    let unknown = GOLD.replace("  prefixes", "  colour: red\n  prefixes");
    home.run_with(&["apply", "-f", "-"], &unknown)
        .code(4)
        .says(&["line 6", "colour"]);
    let bad = GOLD.replace("192.0.2.0/24", "192.0.2.0/40");
    let said = home.run_with(&["apply", "-f", "-", "-o", "json"], &bad).code(4);
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(
        (&error["error"]["exit"], &error["error"]["value"]),
        (&4.into(), &"192.0.2.0/40".into()),
        "{error}"
    );
    assert!(
        error["error"]["field"].as_str().unwrap().contains("prefixes"),
        "{error}"
    );
    home.run(&["get", "ns", "absent"])
        .code(5)
        .says(&["networkservice", "absent"]);
    home.run(&["describe", "conn", "absent"])
        .code(5)
        .says(&["absent"]);
    home.run(&["delete", "ns", "absent"]).code(5).says(&["absent"]);
    assert_eq!(
        home.run(&["get", "ns", "-o", "json"]).code(0).json(),
        serde_json::json!([]),
        "nothing half-made"
    );
}

#[test]
fn a_second_control_is_refused_in_one_sentence_and_the_first_goes_on() {
    let home = Home::new();
    let _control = home.start(&["control"]);
    let second = Said::of(home.daemon(&["control"]), "").code(1);
    let sentences = second
        .err
        .lines()
        .filter(|line| line.starts_with("tieline: "))
        .collect::<Vec<_>>();
    assert_eq!(sentences.len(), 1, "{second:?}");
    second.says(&["already", "control.sock"]);
    home.run(&["get", "nodes"]).code(0);
}
