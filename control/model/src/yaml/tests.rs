mod wiring;

use super::*;

const SEED: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata:
  name: gold-network
spec:
  metadata:
    name: gold-network
    namespace: default
  selector:
    app: vpngateway
";

fn error(text: &str) -> YamlError {
    parse(text, None).unwrap_err()
}

fn shape(text: &str) -> (usize, usize, String) {
    match error(text) {
        YamlError::Shape {
            line,
            column,
            message,
        } => (line, column, message),
        other => panic!("{other}"),
    }
}

fn value(text: &str) -> (usize, String, String) {
    match error(text) {
        YamlError::Value { line, invalid, .. } => (line, invalid.field, invalid.rule),
        other => panic!("{other}"),
    }
}

#[test]
fn the_first_example_of_the_wiring_document_is_read() {
    let objects = parse(SEED, None).unwrap();
    let [Object::NetworkService(service)] = objects.as_slice() else {
        panic!("{objects:?}")
    };
    assert_eq!(
        (service.name().as_str(), service.selector().stages()[0].get("app")),
        ("gold-network", Some("vpngateway"))
    );
}

#[test]
fn every_field_survives_writing_and_reading() {
    let text = "
# a comment
---
apiVersion: tieline.io/v1
kind: NetworkService
metadata: {name: gold, namespace: default, labels: {team: a}}
spec:
  payload: ETHERNET
  selector: {app: gw, on: 'true'}
  matches:
  - sourceSelector: {app: firewall}
    routes:
    - destinationSelector: {node: '{{ .nodeName }}'}
      weight: 3
    fallthrough: true
  - source_selector: {app: x}
    metadata: {labels: {p2p: 'true'}}
  policy: LeastLoaded
  rebalance: Rebalance
  routes: [192.168.0.0/16]
  dns: [{servers: [10.1.0.53], searchDomains: [my.coredns.service]}]
  prefixes: [10.1.0.0/16, 'fd00:1::/64']
  excludedPrefixes: [10.1.1.0/24]
  mtu: 1400
---
apiVersion: tieline.io/v1
kind: NetworkServiceEndpoint
metadata: {name: gw-1}
spec:
  networkServiceNames: [gold, silver]
  networkServiceLabels: {gold: {labels: {app: gw}}}
  netns: {pid: 17}
  plumbing: transparent
  labels: {firewall: 'true'}
---
apiVersion: tieline.io/v1
kind: NetworkServiceEndpoint
metadata: {name: vm-1}
spec: {networkServiceNames: [gold], node: n2, interface: tap0}
---
";
    let node = "n1".parse().unwrap();
    let objects = parse(text, Some(&node)).unwrap();
    let names: Vec<_> = objects
        .iter()
        .map(|one| format!("{} {}", one.kind(), one.name()))
        .collect();
    assert_eq!(
        names,
        [
            "NetworkService gold",
            "NetworkServiceEndpoint gw-1",
            "NetworkServiceEndpoint vm-1"
        ]
    );
    let Object::NetworkService(service) = &objects[0] else {
        panic!()
    };
    assert_eq!(
        service.matches()[1].source_selector.iter().collect::<Vec<_>>(),
        [("app", "x")]
    );
    assert_eq!(service.matches()[0].routes[0].weight, 3);
    assert_eq!(service.mtu().unwrap().octets(), 1400);
    let written = render(&objects).unwrap();
    assert_eq!(parse(&written, None).unwrap(), objects, "{written}");
}

#[test]
fn an_unknown_field_is_an_error_with_its_place_and_the_known_ones() {
    let text = format!("{SEED}---\n{SEED}  colour: gold\n");
    let (line, column, message) = shape(&text);
    assert_eq!((line, column), (22, 3), "{message}");
    assert!(
        message.contains("unknown field `colour`") && message.contains("`payload`"),
        "{message}"
    );
}

#[test]
fn a_wrong_type_is_an_error_with_its_place() {
    let (line, _, message) = shape(&format!("{SEED}  mtu: many\n"));
    assert_eq!(line, 11, "{message}");
    assert!(message.contains("mtu") && message.contains("u32"), "{message}");
    let (line, _, message) = shape(&format!("{SEED}  prefixes: 10.0.0.0/8\n"));
    assert_eq!(line, 11, "{message}");
    assert!(message.contains("sequence"), "{message}");
}

#[test]
fn a_repeated_key_is_an_error() {
    let (line, _, message) = shape(&format!("{SEED}    app: other\n"));
    assert_eq!(line, 10, "{message}");
    assert!(message.contains("\"app\" is given twice"), "{message}");
    assert!(
        shape(&format!("{SEED}  mtu: 1400\n  mtu: 1500\n"))
            .2
            .contains("duplicate field `mtu`")
    );
    assert!(
        shape(&format!("{SEED}kind: NetworkService\n"))
            .2
            .contains("duplicate field `kind`")
    );
}

#[test]
fn broken_yaml_is_an_error_with_the_line_in_the_file() {
    let (line, ..) = shape(&format!("{SEED}---\na: [1\nb: 2\n"));
    assert!((12..=14).contains(&line), "{line}");
    assert!(shape("just text").2.contains("expected struct"));
}

#[test]
fn the_ordered_list_of_the_wiring_document_is_read() {
    let text = SEED.replace("app: vpngateway", "app:\n    - firewall\n    - vpngateway");
    let objects = parse(&text, None).unwrap();
    let Object::NetworkService(service) = &objects[0] else {
        panic!()
    };
    let expected = Some(("app", vec!["firewall", "vpngateway"]));
    assert_eq!(service.selector().order(), expected);
    let bad = SEED.replace("app: vpngateway", "app: {a: b}");
    let (line, _, message) = shape(&bad);
    assert_eq!(line, 10, "{message}");
    assert!(message.contains("an ordered list"), "{message}");
}

#[test]
fn other_kinds_are_unknown() {
    let (line, field, rule) = value(&format!(
        "{SEED}---\n\n# here\napiVersion: tieline.io/v1\nkind: Pod\n"
    ));
    assert_eq!((line, field.as_str()), (14, "kind"));
    assert!(
        rule.contains("NetworkService, NetworkServiceEndpoint, NetworkServiceWiring"),
        "{rule}"
    );
    assert_eq!(value("apiVersion: V1\nkind: NetworkService\n").1, "apiVersion");
}

#[test]
fn a_value_that_breaks_a_rule_is_named_by_its_path() {
    let endpoint = |spec: &str| {
        format!(
            "apiVersion: tieline.io/v1\nkind: NetworkServiceEndpoint\nmetadata: {{name: e}}\nspec: {{node: n1, {spec}}}\n"
        )
    };
    for (text, field) in [
        (format!("{SEED}  mtu: 100\n"), "spec.mtu"),
        (format!("{SEED}  prefixes: [10.0.0.1/8]\n"), "spec.prefixes[0]"),
        (format!("{SEED}  policy: Random\n"), "spec.policy"),
        (format!("{SEED}  rebalance: keep\n"), "spec.rebalance"),
        (
            format!("{SEED}  dns: [{{servers: [ns1]}}]\n"),
            "spec.dns[0].servers[0]",
        ),
        (
            format!("{SEED}  matches: [{{sourceSelector: {{'a b': c}}}}]\n"),
            "spec.matches[0].sourceSelector",
        ),
        (
            SEED.replacen("name: gold-network", "name: Gold", 1),
            "metadata.name",
        ),
        (
            SEED.replacen("name: gold-network", "name: silver", 1),
            "spec.metadata.name",
        ),
        (
            endpoint("networkServiceNames: [], netns: {name: a}"),
            "spec.networkServiceNames",
        ),
        (endpoint("networkServiceNames: [gold]"), "spec.netns"),
        (
            endpoint("networkServiceNames: [gold], netns: {name: a}, interface: tap0"),
            "spec.netns",
        ),
        (
            endpoint("networkServiceNames: [gold], netns: {name: a, pid: 1}"),
            "spec.netns",
        ),
        (
            endpoint("networkServiceNames: [gold], interface: tap0, plumbing: gateway"),
            "spec.plumbing",
        ),
        (
            endpoint("networkServiceNames: [gold], netns: {name: a}, plumbing: bump"),
            "spec.plumbing",
        ),
        (
            endpoint("networkServiceNames: [gold], netns: {name: ../x}"),
            "spec.netns.name",
        ),
        (
            endpoint("networkServiceNames: [gold], interface: much-too-long-name"),
            "spec.interface",
        ),
        (
            endpoint("networkServiceNames: [gold], netns: {name: a}, networkServiceLabels: {x: {}}"),
            "spec.networkServiceLabels",
        ),
    ] {
        assert_eq!(value(&text).1, field, "{text}");
    }
}

#[test]
fn a_file_without_objects_or_too_large_is_refused() {
    assert_eq!(error("# nothing\n---\n"), YamlError::Empty);
    assert!(matches!(
        error(&" ".repeat(MAX_FILE_BYTES + 1)),
        YamlError::TooLarge { .. }
    ));
}
