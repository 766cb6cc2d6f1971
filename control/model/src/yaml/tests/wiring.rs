//! Wirings in files.

use super::*;
use crate::{NetworkServiceWiring, TrafficSelector};

/// The two examples of the wiring document, made valid YAML.
const SEED_WIRINGS: &str = "\
kind: NetworkServiceWiring
apiVersion: tieline.io/v1
metadata:
    name: gold-network-wiring-1
spec:
    target:
        - gold-network
    qualifiers:
        source:
            sourceService: \"!gold-network\"
    action:
        route:
            - destination:
                podSelector:
                    firewall: \"true\"
---
kind: NetworkServiceWiring
apiVersion: tieline.io/v1
metadata:
    name: gold-network-wiring-2
spec:
    target:
        - gold-network
    qualifiers:
        source:
            podSelector:
                firewall=true
    action:
        route:
            - destination:
                podSelector:
                    vpngateway=true
";

fn wirings(text: &str) -> Vec<NetworkServiceWiring> {
    let wiring = |object| match object {
        Object::NetworkServiceWiring(wiring) => wiring,
        other => panic!("{other:?}"),
    };
    parse(text, None).unwrap().into_iter().map(wiring).collect()
}

#[test]
fn the_examples_of_the_wiring_document_are_read() {
    let wirings = wirings(SEED_WIRINGS);
    let [first, second] = wirings.as_slice() else {
        panic!("{wirings:?}")
    };
    let service = first.source().source_service.as_ref().unwrap();
    assert!(service.negated && service.service.as_str() == "gold-network");
    assert_eq!(first.target()[0].as_str(), "gold-network");
    assert_eq!(first.route()[0].pod_selector.to_string(), "firewall=true");
    assert_eq!(second.source().pod_selector, first.route()[0].pod_selector);
    assert_eq!(second.route()[0].pod_selector.to_string(), "vpngateway=true");
}

#[test]
fn every_part_of_a_wiring_is_read() {
    let text = "
apiVersion: tieline.io/v1
kind: NetworkServiceWiring
metadata: {name: w, labels: {team: a}}
spec:
  target: [gold, silver]
  priority: -7
  qualifiers:
    source:
      podSelector:
        matchLabels: {app: web}
        matchExpressions:
        - {key: tier, operator: NotIn, values: [test, old]}
        - {key: zone, operator: Exists}
      clientSelector: role in (a,b)
    traffic:
    - {protocol: tcp, ports: 443}
    - {protocol: udp, ports: 8000-8999, prefix: 10.0.0.0/8}
    - {prefix: 'fd00::/8'}
  action:
    route:
    - {destination: {podSelector: {dpi: 'true'}}, weight: 3}
    - {destination: {podSelector: 'dpi!=true'}, weight: 1}
";
    let [wiring] = wirings(text).try_into().unwrap();
    assert_eq!((wiring.target().len(), wiring.priority()), (2, -7));
    assert_eq!(
        wiring.source().pod_selector.to_string(),
        "app=web,tier notin (old,test),zone"
    );
    assert_eq!(wiring.source().client_selector.to_string(), "role in (a,b)");
    let traffic: Vec<String> = wiring.traffic().iter().map(TrafficSelector::to_string).collect();
    assert_eq!(
        traffic,
        ["tcp/443", "udp/8000-8999 to 10.0.0.0/8", "any to fd00::/8"]
    );
    assert_eq!(
        (
            wiring.route()[0].weight,
            wiring.route()[1].pod_selector.to_string().as_str()
        ),
        (3, "dpi!=true")
    );
}

/// A wiring whose spec reads `from` replaced by `to`.
fn spoilt(from: &str, to: &str) -> String {
    let text = SEED_WIRINGS.split("---\n").next().unwrap();
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

#[test]
fn a_value_of_a_wiring_that_breaks_a_rule_is_named_by_its_path() {
    let source = "sourceService: \"!gold-network\"";
    let traffic = "qualifiers:\n        traffic: [{protocol: tcp, ports: 90-80}]\n        source:";
    for (from, to, field) in [
        ("name: gold-network-wiring-1", "name: Gold", "metadata.name"),
        ("- gold-network", "- Gold", "spec.target[0]"),
        ("- gold-network", "- a\n        - a", "spec.target[1]"),
        ("target:", "priority: 2000000\n    target:", "spec.priority"),
        (
            source,
            "sourceService: '!'",
            "spec.qualifiers.source.sourceService",
        ),
        (
            source,
            "podSelector: {a: 'b c'}",
            "spec.qualifiers.source.podSelector[a]",
        ),
        (
            source,
            "clientSelector: a=b,a=c",
            "spec.qualifiers.source.clientSelector[a]",
        ),
        (
            source,
            "podSelector: {matchExpressions: [{key: a, operator: Like}]}",
            "spec.qualifiers.source.podSelector.matchExpressions[0].operator",
        ),
        (
            source,
            "podSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: DoesNotExist}]}",
            "spec.qualifiers.source.podSelector[a]",
        ),
        (
            "qualifiers:\n        source:",
            traffic,
            "spec.qualifiers.traffic[0].ports",
        ),
        (
            "firewall: \"true\"",
            "'fire wall': \"true\"",
            "spec.action.route[0].destination.podSelector",
        ),
    ] {
        assert_eq!(value(&spoilt(from, to)).1, field, "{to}");
    }
}

#[test]
fn what_a_wiring_does_not_know_is_an_error_with_its_line() {
    let traffic = |inner: &str| format!("qualifiers:\n        traffic:\n        - {inner}\n        source:");
    for (from, to, line, part) in [
        ("qualifiers:", "qualifier:", 8, "unknown field `qualifier`"),
        (
            "sourceService:",
            "sourceservice:",
            10,
            "unknown field `sourceservice`",
        ),
        ("destination:", "dest:", 13, "unknown field `dest`"),
        ("podSelector:", "selector:", 14, "unknown field `selector`"),
        ("\"!gold-network\"", "!gold-network", 10, "in quotes"),
        (
            "qualifiers:\n        source:",
            &traffic("{port: 80}"),
            10,
            "unknown field `port`",
        ),
        (
            "qualifiers:\n        source:",
            &traffic("{protocol: tcp, ports: [80]}"),
            10,
            "a range of ports",
        ),
        (
            "firewall: \"true\"",
            "firewall: \"true\"\n                    firewall: \"no\"",
            15,
            "\"firewall\" is given twice",
        ),
        (
            "firewall: \"true\"",
            "firewall: \"true\"\n                    matchLabels: {a: b}",
            14,
            "put it into matchLabels",
        ),
    ] {
        let (at, _, message) = shape(&spoilt(from, to));
        assert!(message.contains(part), "{to}: {message}");
        assert!((line..line + 2).contains(&at), "{to}: line {at}, {message}");
    }
}
