//! Which endpoint a Request reaches: NSM's `matches`, labels and names.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use tieline_lab::NetNs;
use tieline_proto::{
    registry::{Destination, Match, NetworkServiceEndpoint, NetworkServiceLabels},
    tieline::admin::v1::NetworkService,
};
use tieline_tests_netns::{Mode, Scene, Server, Wire, endpoint, netns_url, request, service, with};
use tonic::{Code, Status};

use super::{SERVICE, ping_both_ways};

pub(super) type Pairs<'a> = &'a [(&'a str, &'a str)];

fn labels(pairs: Pairs<'_>) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A registration for the service with these labels.
pub(super) fn labelled(name: &str, url: &str, pairs: Pairs<'_>) -> NetworkServiceEndpoint {
    let mut registration = endpoint(name, SERVICE, url);
    let labels = NetworkServiceLabels {
        labels: labels(pairs),
    };
    registration
        .network_service_labels
        .insert(SERVICE.to_owned(), labels);
    registration
}

pub(super) fn rule(source: Pairs<'_>, destination: Pairs<'_>) -> Match {
    let route = Destination {
        destination_selector: labels(destination),
        weight: 0,
    };
    Match {
        source_selector: labels(source),
        routes: vec![route],
        ..Match::default()
    }
}

pub(super) fn with_matches(matches: Vec<Match>) -> NetworkService {
    let mut offered = service(SERVICE, "IP");
    offered.service.get_or_insert_default().matches = matches;
    offered
}

/// A client, and endpoints `firewall` and `gateway` with `app` labels of the same words.
struct Stage {
    scene: Scene,
    client: NetNs,
    servers: [Server; 2],
}

impl Stage {
    fn new(matches: Vec<Match>) -> Result<Self> {
        let scene = Scene::start("discover", Mode::Whole)?;
        scene.api.apply(with_matches(matches))?;
        let server = |name: &str| scene.add_server(name, |url| labelled(name, url, &[("app", name)]));
        Ok(Self {
            servers: [server("firewall")?, server("gateway")?],
            client: NetNs::new("nsc")?,
            scene,
        })
    }

    /// The name of the endpoint that a Request with these labels reaches, which answers.
    fn reaches(&self, id: &str, pairs: Pairs<'_>) -> Result<String, Status> {
        let asked = request(id, SERVICE, &netns_url(&self.client));
        let asked = with(asked, |connection| connection.labels = labels(pairs));
        let connection = self.scene.api.request(asked)?;
        Ok(connection.network_service_endpoint_name)
    }

    fn refuses(&self, pairs: Pairs<'_>, words: &[&str]) -> Result<()> {
        let before = self.scene.node.kernel()?;
        let refused = self
            .reaches("refused", pairs)
            .err()
            .context("it was not refused")?;
        ensure!(
            [Code::FailedPrecondition, Code::NotFound].contains(&refused.code()),
            "{refused:?}"
        );
        for word in words {
            ensure!(
                refused.message().contains(word),
                "it does not say {word:?}: {refused:?}"
            );
        }
        ensure!(
            self.scene.node.kernel()? == before,
            "a refused Request left something"
        );
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let [firewall, gateway] = self.servers;
        self.scene.finish([self.client, firewall.netns, gateway.netns])
    }
}

#[test]
fn match_empty_source_selector() -> Result<()> {
    let stage = Stage::new(vec![
        rule(&[("app", "firewall")], &[("app", "gateway")]),
        rule(&[], &[("app", "firewall")]),
    ])?;
    ensure!(stage.reaches("user", &[])? == "firewall");
    ensure!(stage.reaches("other", &[("app", "other")])? == "firewall");
    stage.finish()
}

#[test]
fn match_non_empty_source_selector() -> Result<()> {
    let stage = Stage::new(vec![
        rule(&[("app", "firewall")], &[("app", "gateway")]),
        rule(&[], &[("app", "firewall")]),
    ])?;
    ensure!(stage.reaches("hop", &[("app", "firewall"), ("more", "labels")])? == "gateway");
    stage.finish()
}

#[test]
fn match_empty_source_selector_going_first() -> Result<()> {
    let stage = Stage::new(vec![
        rule(&[], &[("app", "firewall")]),
        rule(&[("app", "firewall")], &[("app", "gateway")]),
    ])?;
    ensure!(stage.reaches("hop", &[("app", "firewall")])? == "firewall");
    stage.finish()
}

#[test]
fn match_nothing() -> Result<()> {
    let stage = Stage::new(vec![rule(&[("app", "firewall")], &[("app", "gateway")])])?;
    stage.refuses(&[("app", "other")], &[SERVICE, "no match"])?;
    stage.refuses(&[], &[SERVICE, "matches[0]"])?;
    stage.finish()
}

#[test]
fn no_match_service_endpoint_found() -> Result<()> {
    let stage = Stage::new(vec![
        rule(&[], &[("app", "absent")]),
        rule(&[], &[("app", "gateway")]),
    ])?;
    // The first match applies and leaves nobody: it ends there, unless it says `fallthrough`.
    stage.refuses(&[], &["matches[0]", "firewall", "gateway"])?;
    let mut first = rule(&[], &[("app", "absent")]);
    first.fallthrough = true;
    stage
        .scene
        .api
        .apply(with_matches(vec![first, rule(&[], &[("app", "gateway")])]))?;
    ensure!(stage.reaches("user", &[])? == "gateway");
    stage.finish()
}

#[test]
fn match_exact_endpoint() -> Result<()> {
    let stage = Stage::new(Vec::new())?;
    let netns = netns_url(&stage.client);
    for (number, server) in stage.servers.iter().enumerate() {
        let asked = |id: &str, endpoint: &str| {
            with(request(id, SERVICE, &netns), |connection| {
                connection.network_service_endpoint_name = endpoint.to_owned();
            })
        };
        for round in 0..2 {
            let id = format!("exact-{number}-{round}");
            let wire = Wire::request(&stage.scene.api, asked(&id, server.name()))?;
            ensure!(
                wire.connection.network_service_endpoint_name == server.name(),
                "{wire:?}"
            );
            ping_both_ways(&stage.client, &server.netns, &wire)?;
        }
        ensure!(stage.scene.api.request(asked("absent", "nobody")).is_err());
    }
    stage.finish()
}

/// Two matches with the same source selector: the first one decides while it leaves somebody.
#[test]
fn same_source_selector() -> Result<()> {
    let mut first = rule(&[], &[("app", "firewall")]);
    first.fallthrough = true;
    let stage = Stage::new(vec![first, rule(&[], &[("app", "gateway")])])?;
    ensure!(stage.reaches("one", &[])? == "firewall");
    ensure!(stage.reaches("two", &[])? == "firewall");
    stage.scene.api.unregister(stage.servers[0].registered.clone())?;
    ensure!(stage.reaches("three", &[])? == "gateway");
    stage.finish()
}

/// A selector of several labels is satisfied by who carries all of them, whatever else they carry.
#[test]
fn multi_label() -> Result<()> {
    let stage = Stage::new(vec![rule(
        &[],
        &[("app", "gateway"), ("zone", "a"), ("tier", "gold")],
    )])?;
    stage.refuses(&[], &["firewall", "gateway"])?;
    let name = |zone| format!("gateway-{zone}");
    let mut more = Vec::new();
    for zone in ["a", "b"] {
        let pairs = [
            ("app", "gateway"),
            ("zone", zone),
            ("tier", "gold"),
            ("more", "labels"),
        ];
        more.push(
            stage
                .scene
                .add_server(&name(zone), |url| labelled(&name(zone), url, &pairs))?,
        );
    }
    for id in ["one", "two", "three"] {
        ensure!(stage.reaches(id, &[])? == name("a"));
    }
    let Stage {
        scene,
        client,
        servers: [firewall, gateway],
    } = stage;
    let more = more.into_iter().map(|server| server.netns);
    scene.finish([client, firewall.netns, gateway.netns].into_iter().chain(more))
}

/// A destination selector is a template over the labels of the Request: the reference's way to stay on a node.
#[test]
fn match_template() -> Result<()> {
    let stage = Stage::new(vec![rule(&[], &[("app", "{{ .wanted }}")])])?;
    ensure!(stage.reaches("one", &[("wanted", "gateway")])? == "gateway");
    ensure!(stage.reaches("two", &[("wanted", "firewall")])? == "firewall");
    stage.refuses(&[("wanted", "absent")], &["matches[0]"])?;
    stage.finish()
}
