use std::collections::BTreeMap;

use tieline_model::{Destination, IfName, MatchSelector, NetnsId};

use super::*;

fn labels(text: &str) -> Labels {
    Labels::parse("l", text.split(',').filter_map(|pair| pair.split_once('='))).unwrap()
}

fn selector(text: &str) -> MatchSelector {
    MatchSelector::parse("s", text.split(',').filter_map(|pair| pair.split_once('='))).unwrap()
}

fn netns(n: u64) -> NetnsRef {
    NetnsRef::parse(
        "n",
        &format!("/run/netns/w{n}"),
        Some(NetnsId { device: 4, inode: n }),
    )
    .unwrap()
}

fn endpoint_on(node: &str, name: &str, own: &str, attachment: Attachment) -> NetworkServiceEndpoint {
    let services = BTreeMap::from([("gold".parse().unwrap(), labels(own))]);
    NetworkServiceEndpoint::declared(name.parse().unwrap(), services, node.parse().unwrap(), attachment)
        .unwrap()
}

fn endpoint(n: u64, name: &str, own: &str) -> NetworkServiceEndpoint {
    endpoint_on("n1", name, own, Attachment::Netns(netns(n)))
}

/// A match: source selector, destinations with weight, fallthrough.
fn rule(source: &str, routes: &[(&str, u32)], fallthrough: bool) -> Match {
    let route = |(to, weight): &(&str, u32)| Destination {
        destination_selector: selector(to),
        weight: *weight,
    };
    Match {
        source_selector: selector(source),
        routes: routes.iter().map(route).collect(),
        fallthrough,
        metadata: None,
    }
}

fn gold(matches: Vec<Match>) -> NetworkService {
    NetworkService::new("gold".parse().unwrap())
        .with_matches(matches)
        .unwrap()
}

/// The names chosen for cursors from 0, as a client in namespace 1 with `own` labels.
fn chosen(
    service: &NetworkService,
    endpoints: &[NetworkServiceEndpoint],
    own: &str,
    count: u64,
) -> Result<Vec<String>, SelectError> {
    let (own, node, netns) = (labels(own), "n1".parse().unwrap(), netns(1));
    let candidates: Vec<_> = endpoints
        .iter()
        .map(|endpoint| Candidate {
            endpoint,
            taken_by: None,
        })
        .collect();
    let input = SelectInput {
        service,
        labels: &own,
        node: &node,
        netns: &netns,
        wanted: None,
        candidates,
    };
    (0..count)
        .map(|cursor| select(&input, cursor).map(|selection| selection.endpoint.to_string()))
        .collect()
}

#[test]
fn without_rules_each_endpoint_has_its_turn() {
    let endpoints = [endpoint(3, "b", ""), endpoint(2, "a", ""), endpoint(4, "c", "")];
    assert_eq!(
        chosen(&gold(Vec::new()), &endpoints, "", 4).unwrap(),
        ["a", "b", "c", "a"]
    );
}

#[test]
fn the_selector_of_the_service_decides_when_there_are_no_matches() {
    let service = gold(Vec::new()).with_selector(labels("app=gw"));
    let endpoints = [endpoint(2, "fw", "app=fw"), endpoint(3, "gw", "app=gw,x=y")];
    assert_eq!(chosen(&service, &endpoints, "", 2).unwrap(), ["gw", "gw"]);
    let error = chosen(&service, &endpoints[..1], "", 1).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("fw: its labels do not satisfy the service's selector app=gw"),
        "{error}"
    );
}

#[test]
fn the_first_match_that_applies_decides() {
    let service = gold(vec![
        rule("app=firewall", &[("app=gateway", 0)], false),
        rule("", &[("app=firewall", 0)], false),
    ]);
    let endpoints = [
        endpoint(2, "fw", "app=firewall"),
        endpoint(3, "gw", "app=gateway"),
    ];
    assert_eq!(chosen(&service, &endpoints, "", 1).unwrap(), ["fw"]);
    assert_eq!(chosen(&service, &endpoints, "app=firewall", 1).unwrap(), ["gw"]);
}

#[test]
fn a_match_without_endpoints_ends_the_search_unless_it_falls_through() {
    let rules = |fallthrough| {
        gold(vec![
            rule("", &[("app=none", 0)], fallthrough),
            rule("", &[], false),
        ])
    };
    let endpoints = [endpoint(2, "gw", "app=gateway")];
    assert_eq!(chosen(&rules(true), &endpoints, "", 1).unwrap(), ["gw"]);
    let error = chosen(&rules(false), &endpoints, "", 1).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("matches[0]: no endpoint left, and it does not say fallthrough"),
        "{text}"
    );
    assert!(
        text.contains("gw: matches[0]: its labels satisfy no destination_selector"),
        "{text}"
    );
}

#[test]
fn when_no_match_applies_nobody_serves() {
    let service = gold(vec![rule("app=x", &[], false)]);
    let error = chosen(&service, &[endpoint(2, "gw", "")], "app=y", 1).unwrap_err();
    assert!(error.to_string().contains("no match applies"), "{error}");
}

#[test]
fn templates_choose_by_the_labels_of_the_request() {
    let service = gold(vec![
        rule("", &[("node={{ .nodeName }}", 0)], true),
        rule("", &[("far=yes", 0)], false),
    ]);
    let endpoints = [
        endpoint(2, "here", "node=n1"),
        endpoint(3, "there", "node=n2"),
        endpoint(4, "far", "far=yes"),
    ];
    assert_eq!(
        chosen(&service, &endpoints, "nodeName=n2", 2).unwrap(),
        ["there", "there"]
    );
    assert_eq!(
        chosen(&service, &endpoints, "", 1).unwrap(),
        ["far"],
        "a label that the request lacks matches nothing"
    );
}

#[test]
fn weights_are_shares_of_the_choices() {
    let service = gold(vec![rule("", &[("v=1", 3), ("v=2", 1), ("v=3", 0)], false)]);
    let endpoints = [
        endpoint(2, "a", "v=1"),
        endpoint(3, "b", "v=1"),
        endpoint(4, "c", "v=2"),
        endpoint(5, "drained", "v=3"),
    ];
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in chosen(&service, &endpoints, "", 800).unwrap() {
        *counts.entry(name).or_default() += 1;
    }
    let counts: Vec<(&str, usize)> = counts
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    assert_eq!(counts, [("a", 300), ("b", 300), ("c", 200)]);
    let error = chosen(&service, &endpoints[3..], "", 1).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("drained: matches[0]: its destinations have weight 0"),
        "{error}"
    );
}

#[test]
fn a_share_without_endpoints_goes_to_the_others() {
    let service = gold(vec![rule("", &[("v=1", 3), ("v=2", 1)], false)]);
    assert_eq!(
        chosen(&service, &[endpoint(4, "c", "v=2")], "", 3).unwrap(),
        ["c", "c", "c"]
    );
}

#[test]
fn what_cannot_be_wired_is_left_out_with_the_reason() {
    let tap = || Attachment::Interface("tap0".parse::<IfName>().unwrap());
    let endpoints = [
        endpoint(1, "self", ""),
        endpoint_on("n2", "far", "", tap()),
        endpoint_on("n1", "vm", "", tap()),
        endpoint(2, "ok", ""),
    ];
    let (service, own, node, own_netns) = (gold(Vec::new()), labels(""), "n1".parse().unwrap(), netns(1));
    let by: ConnectionId = "c9".parse().unwrap();
    let mut input = SelectInput {
        service: &service,
        labels: &own,
        node: &node,
        netns: &own_netns,
        wanted: None,
        candidates: endpoints
            .iter()
            .map(|endpoint| Candidate {
                endpoint,
                taken_by: Some(&by),
            })
            .collect(),
    };
    let selection = select(&input, 0).unwrap();
    assert_eq!(selection.endpoint.as_str(), "ok");
    let removed: Vec<String> = selection.report.removed.iter().map(ToString::to_string).collect();
    assert_eq!(
        removed,
        [
            "self: in the client's own namespace /run/netns/w1: a wire to itself is a loop",
            "far: on node n2: wires between nodes are not supported yet",
            "vm: its interface ends connection c9: an interface ends one wire",
        ]
    );
    let wanted = "self".parse().unwrap();
    input.wanted = Some(&wanted);
    let error = select(&input, 0).unwrap_err();
    assert!(
        error.to_string().contains("ok: the request names endpoint self"),
        "{error}"
    );
}

#[test]
fn nobody_registered_says_what_to_do() {
    let error = chosen(&gold(Vec::new()), &[], "", 1).unwrap_err();
    assert!(error.to_string().contains("register one"), "{error}");
}
