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
    assert_eq!(dry.json()["objects"][0]["action"], "created", "{dry:?}");
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
        (&again["objects"][0]["action"], &again["objects"][1]["action"]),
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

const WIRING: &str = "\
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata:
  name: gold-wiring-1
spec:
  target: [gold-network, silver-network]
  qualifiers:
    source:
      sourceService: \"!gold-network\"
    traffic: [{protocol: tcp, ports: 80}]
  action:
    route:
    - destination:
        podSelector: {firewall: \"true\"}
";

#[test]
fn wirings_are_planned_declared_shown_and_deleted() {
    let home = Home::new();
    let _control = home.start(&["control", "--store", "memory"]);
    home.run_with(&["apply", "-f", "-"], GOLD).code(0);
    home.run_with(&["plan", "-f", "-"], WIRING).code(0).says(&[
        "target[1]: NetworkService silver-network is not there yet",
        "no live connection would lead elsewhere",
        "nothing was changed",
    ]);
    home.run(&["get", "nsw"])
        .code(0)
        .says(&["there are no networkservicewirings"]);
    home.run_with(&["apply", "-f", "-"], WIRING).code(0);
    let shown = home.run(&["get", "networkservicewirings"]).code(0);
    let line = shown.out.lines().nth(1).unwrap();
    for part in [
        "gold-wiring-1",
        "gold-network,silver-network",
        "!gold-network",
        "tcp/80",
        "firewall=true",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let json = home
        .run(&["describe", "nsw", "gold-wiring-1", "-o", "json"])
        .code(0)
        .json();
    assert_eq!(
        (&json["source"]["source_service"], &json["connections"]),
        (&"!gold-network".into(), &0.into())
    );
    let warnings = json["warnings"].as_array().unwrap();
    assert_eq!(
        warnings.len(),
        3,
        "an unknown service and nobody to lead to, twice: {warnings:?}"
    );
    home.run(&["delete", "nsw", "gold-wiring-1"]).code(0);
    home.run(&["delete", "nsw", "gold-wiring-1"])
        .code(5)
        .says(&["no such NetworkServiceWiring"]);
}

#[test]
fn a_loop_is_refused_with_the_field_and_the_rule() {
    let home = Home::new();
    let _control = home.start(&["control", "--store", "memory"]);
    let looping = WIRING.replace("sourceService: \"!gold-network\"", "podSelector: firewall=true");
    let looping = looping.replace("    traffic: [{protocol: tcp, ports: 80}]\n", "");
    let said = home
        .run_with(&["apply", "-f", "-", "-o", "json"], &looping)
        .code(4);
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["error"]["field"], "objects[0].route", "{error}");
    assert!(
        error["error"]["rule"].as_str().unwrap().contains("a loop"),
        "{error}"
    );
}

#[test]
fn an_endpoint_is_drained_and_taken_back_and_what_is_not_there_is_not_found() {
    let home = Home::new();
    let _control = home.start(&["control", "--store", "memory"]);
    home.run_with(&["apply", "-f", "-"], GOLD).code(0);
    home.run(&["drain", "endpoint", "vpngateway"])
        .code(0)
        .says(&["endpoint vpngateway is drained; 0 connections were moved"]);
    let draining =
        |home: &Home| home.run(&["get", "nse", "-o", "json"]).code(0).json()[0]["draining"].clone();
    assert_eq!(draining(&home), true);
    home.run(&["drain", "endpoint", "vpngateway", "--off"]).code(0);
    assert_eq!(draining(&home), false);
    home.run(&["drain", "endpoint", "absent"])
        .code(5)
        .says(&["no such NetworkServiceEndpoint"]);
    home.run(&["explain", "connection", "absent"])
        .code(5)
        .says(&["no such connection"]);
}

#[test]
fn what_get_writes_as_yaml_apply_reads_unchanged() {
    let home = Home::new();
    let _control = home.start(&["control", "--store", "memory"]);
    home.run_with(&["apply", "-f", "-"], GOLD).code(0);
    home.run_with(&["apply", "-f", "-"], WIRING).code(0);
    for kind in ["networkservices", "endpoints", "networkservicewirings"] {
        let written = home.run(&["get", kind, "-o", "yaml"]).code(0).out;
        let applied = home
            .run_with(&["apply", "-f", "-", "-o", "json"], &written)
            .code(0)
            .json();
        assert_eq!(applied["objects"][0]["action"], "unchanged", "{written}");
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
