//! Registry domains: several controls on one machine, whose workloads reach each other's services by `NAME@DOMAIN`, and
//! which ignore each other otherwise.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use tieline_lab::{NetNs, PingPlan, Responder, eventually, ping};
use tieline_proto::registry::{NetworkServiceEndpoint, NetworkServiceLabels};
use tieline_tests_netns::{
    Face, Node, PORT, Scene, Watched, Wire, assert_path, endpoint, netns_url, request, service,
};
use tonic::Code;

use super::{
    SERVICE,
    discover::{rule, with_matches},
    ping_both_ways,
};

const LIMIT: Duration = Duration::from_secs(10);
const FAR: &str = "gold-network@west";
const FLOATING: &str = "gold-network@floating";
/// Where the addresses of west and of the floating domain come from.
const PREFIX: &str = "10.77.0.0/16";

/// `NAME=ADDRESS` of a domain.
fn peer(name: &str, scene: &Scene) -> String {
    format!(
        "{name}=unix://{}",
        scene.node.run_dir().join("control.sock").display()
    )
}

fn domain(name: &str, more: &[&str]) -> Result<Scene> {
    let mut arguments = vec!["--domain", name];
    arguments.extend(more);
    Scene::of(Node::start_apart(name, &arguments)?)
}

/// Two domains: east knows west, and west answers east.
struct Stage {
    east: Scene,
    west: Scene,
}

impl Stage {
    fn new() -> Result<Self> {
        let west = domain("west", &["--peer", "east", "--prefix", PREFIX])?;
        let east = domain("east", &["--peer", &peer("west", &west)])?;
        Ok(Self { east, west })
    }

    /// A wire from east to west's service.
    fn connect(&self, client: &NetNs, id: &str) -> Result<Wire> {
        sees(&self.east, "west", 1)?;
        let wire = self.east.connect(client, id, FAR)?;
        assert_given_by_west(&wire)?;
        Ok(wire)
    }

    fn finish<const N: usize>(self, namespaces: [NetNs; N]) -> Result<()> {
        Scene::finish_all([self.west, self.east], namespaces)
    }
}

/// The domain is reached from `scene`, and has so many endpoints.
fn sees(scene: &Scene, name: &str, endpoints: u32) -> Result<()> {
    eventually(LIMIT, "the other domain to be known", || {
        let domains = scene.api.status()?.domains;
        Ok(domains
            .iter()
            .any(|one| one.name == name && one.reached && one.endpoints == endpoints))
    })
}

fn is_of_west(address: &IpAddr) -> Result<bool> {
    Ok(PREFIX.parse::<IpNet>()?.contains(address))
}

fn assert_given_by_west(wire: &Wire) -> Result<()> {
    for address in wire.client.iter().chain(&wire.endpoint) {
        ensure!(is_of_west(address)?, "{address} is not of {PREFIX}: {wire:?}");
    }
    Ok(())
}

/// Whether one ping is answered.
fn answers(client: &NetNs, wire: &Wire) -> Result<bool> {
    let once = PingPlan {
        count: 1,
        timeout: Duration::from_millis(100),
        ..PingPlan::default()
    };
    Ok(ping(client, wire.endpoint[0], once)?.received == 1)
}

#[test]
fn interdomain_kernel2kernel() -> Result<()> {
    let stage = Stage::new()?;
    let [server] = stage.west.serve(service(SERVICE, "IP"), ["nse"])?;
    let (client, neighbour) = (NetNs::new("nsc")?, NetNs::new("neighbour")?);
    let wire = stage.connect(&client, "nsc")?;
    ping_both_ways(&client, &server.netns, &wire)?;
    ensure!(wire.connection.network_service == FAR, "{:?}", wire.connection);
    let watched = Watched::start(&client, &wire)?;

    // Asked again it is the same, and nobody in west is given its addresses.
    let again = stage.east.connect(&client, "nsc", FAR)?;
    ensure!(
        (&again.client, &again.endpoint) == (&wire.client, &wire.endpoint),
        "{again:?}"
    );
    let beside = stage.west.connect(&neighbour, "neighbour", SERVICE)?;
    ping_both_ways(&neighbour, &server.netns, &beside)?;
    for address in beside.client.iter().chain(&beside.endpoint) {
        ensure!(
            !wire.client.contains(address) && !wire.endpoint.contains(address),
            "{address} twice"
        );
    }

    // East's control is killed and comes back: the wire stays, and so do its addresses.
    let Stage { mut east, west } = stage;
    east.node.kill_control()?;
    east.node.start_control()?;
    east.node.wait_until_ready()?;
    sees(&east, "west", 1)?;
    let third = west.connect(&neighbour, "third", SERVICE)?;
    for address in third.client.iter().chain(&third.endpoint) {
        ensure!(
            !wire.client.contains(address) && !wire.endpoint.contains(address),
            "{address} twice"
        );
    }
    watched.finish()?.assert_nothing()?;
    Stage { east, west }.finish([client, neighbour, server.netns])
}

#[test]
fn domains_ignore_each_other_unless_both_are_told() -> Result<()> {
    let west = domain("west", &[])?;
    let alone = domain("alone", &[])?;
    // It knows where west is, and west was not told of it.
    let east = domain("east", &["--peer", &peer("west", &west)])?;
    let [server] = west.serve(service(SERVICE, "IP"), ["nse"])?;
    let client = NetNs::new("nsc")?;
    let refused = alone.api.request(request("nsc", FAR, &netns_url(&client)));
    let refused = refused.err().context("a wire to a domain that nobody named")?;
    ensure!(refused.code() == Code::NotFound, "{refused}");
    ensure!(refused.message().contains("--peer west=ADDRESS"), "{refused}");

    eventually(LIMIT, "west to refuse", || {
        let domains = east.api.status()?.domains;
        Ok(domains.iter().any(|one| one.error.contains("--peer east")))
    })?;
    let refused = east.api.request(request("nsc", FAR, &netns_url(&client)));
    let refused = refused.err().context("a wire to a domain that was not told")?;
    ensure!(refused.code() == Code::Unavailable, "{refused}");
    ensure!(refused.message().contains("\"west\""), "{refused}");
    ensure!(east.api.endpoints()?.is_empty(), "east sees endpoints of west");
    Scene::finish_all([west, alone, east], [client, server.netns])
}

#[test]
fn interdomain_nse_death() -> Result<()> {
    let stage = Stage::new()?;
    let [first] = stage.west.serve(service(SERVICE, "IP"), ["nse-1"])?;
    let client = NetNs::new("nsc")?;
    let wire = stage.connect(&client, "nsc")?;
    // Its lease is its node's, which sees it die.
    let netns = NetNs::new("nse-2")?;
    let responder = Responder::start(&netns, PORT)?;
    let second = endpoint("nse-2", SERVICE, &netns_url(&netns));
    stage.west.api.register_kept(second)?;
    sees(&stage.east, "west", 2)?;
    let watched = Watched::start(&client, &wire)?;

    // It goes in order: nothing is lost, and the client keeps what it has.
    stage.west.api.unregister(first.registered.clone())?;
    watched.wait_for_answers_by(responder.id())?;
    watched.finish()?.assert_nothing()?;

    // The other one dies: nobody answers, until there is one again.
    let face = Face::of(&client, &wire.client_interface)?;
    drop((responder, netns));
    eventually(LIMIT, "nobody to answer", || Ok(!answers(&client, &wire)?))?;
    let third = stage
        .west
        .add_server("nse-3", |url| endpoint("nse-3", SERVICE, url))?;
    eventually(LIMIT, "the wire to carry again", || answers(&client, &wire))?;
    ping_both_ways(&client, &third.netns, &wire)?;
    ensure!(
        Face::of(&client, &wire.client_interface)? == face,
        "the client's interface changed"
    );
    stage.finish([client, first.netns, third.netns])
}

#[test]
fn interdomain_registry_death() -> Result<()> {
    let Stage { east, mut west } = Stage::new()?;
    let [server] = west.serve(service(SERVICE, "IP"), ["nse"])?;
    let (client, other) = (NetNs::new("nsc")?, NetNs::new("other")?);
    sees(&east, "west", 1)?;
    let wire = east.connect(&client, "nsc", FAR)?;
    let watched = Watched::start(&client, &wire)?;
    west.node.kill_control()?;
    eventually(LIMIT, "west to be away", || {
        Ok(east.api.status()?.domains.iter().all(|one| !one.reached))
    })?;

    // What is connected stays so and may be refreshed; what is new is refused with the domain's name.
    let again = east.connect(&client, "nsc", FAR)?;
    ensure!(
        (&again.client, &again.endpoint) == (&wire.client, &wire.endpoint),
        "{again:?}"
    );
    let refused = east.api.request(request("other", FAR, &netns_url(&other)));
    let refused = refused.err().context("a wire that nobody gave addresses")?;
    ensure!(refused.code() == Code::Unavailable, "{refused}");
    ensure!(
        refused
            .message()
            .contains("registry domain \"west\" cannot be reached"),
        "{refused}"
    );
    ensure!(east.api.connections()?.len() == 1);

    west.node.start_control()?;
    west.node.wait_until_ready()?;
    eventually(LIMIT, "west to be back", || {
        Ok(east
            .api
            .request(request("other", FAR, &netns_url(&other)))
            .is_ok())
    })?;
    watched.finish()?.assert_nothing()?;
    Stage { east, west }.finish([client, other, server.netns])
}

#[test]
fn floating_kernel2kernel() -> Result<()> {
    // A control without a node: no workload is its own.
    let mut floating = domain(
        "floating",
        &["--peer", "east", "--peer", "west", "--prefix", PREFIX],
    )?;
    floating.node.kill_agent()?;
    floating.api.apply(service(SERVICE, "IP"))?;
    let known = peer("floating", &floating);
    let (east, west) = (
        domain("east", &["--peer", &known])?,
        domain("west", &["--peer", &known])?,
    );
    for scene in [&east, &west] {
        sees(scene, "floating", 0)?;
    }

    // An endpoint of west, registered in the floating domain, serves a client of east.
    let server = west.add_server("nse", |url| endpoint("nse@floating", FLOATING, url))?;
    sees(&east, "floating", 1)?;
    let client = NetNs::new("nsc")?;
    let wire = east.connect(&client, "nsc", FLOATING)?;
    assert_given_by_west(&wire)?;
    ping_both_ways(&client, &server.netns, &wire)?;
    ensure!(floating.api.endpoints()? == ["nse"]);
    ensure!(east.api.endpoints()? == ["nse@floating"]);
    let watched = Watched::start(&client, &wire)?;
    floating.node.kill_control()?;
    watched.wait_for_answers("answers while the floating registry is dead")?;
    floating.node.start_control()?;
    sees(&east, "floating", 1)?;
    sees(&west, "floating", 1)?;
    watched.finish()?.assert_nothing()?;

    // It goes, and the client hears of it through the floating domain; another one comes, in east.
    west.api.unregister(server.registered.clone())?;
    sees(&east, "floating", 0)?;
    eventually(LIMIT, "nobody to answer", || Ok(!answers(&client, &wire)?))?;
    let other = east.add_server("other", |url| endpoint("other@floating", FLOATING, url))?;
    eventually(LIMIT, "the wire to carry again", || answers(&client, &wire))?;
    ping_both_ways(&client, &other.netns, &wire)?;
    east.api.unregister(other.registered)?;
    eventually(LIMIT, "the floating domain to be told", || {
        Ok(floating.api.endpoints()?.is_empty())
    })?;
    Scene::finish_all([floating, east, west], [client, other.netns, server.netns])
}

/// A registration for the floating service, with these labels for it.
fn floating_one(name: &str, url: &str, pairs: &[(&str, &str)]) -> NetworkServiceEndpoint {
    let mut registration = endpoint(&format!("{name}@floating"), FLOATING, url);
    let labels = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let labels = NetworkServiceLabels {
        labels: labels.collect(),
    };
    registration
        .network_service_labels
        .insert(FLOATING.to_owned(), labels);
    registration
}

/// The functions of a service that is registered in one domain are in two others, and in the order that the first says.
#[test]
fn floating_nse_composition() -> Result<()> {
    let mut floating = domain("floating", &["--peer", "east", "--peer", "west"])?;
    floating.node.kill_agent()?;
    let known = peer("floating", &floating);
    let (east, west) = (
        domain("east", &["--peer", &known])?,
        domain("west", &["--peer", &known])?,
    );
    let passes = ("tieline.io/plumbing", "gateway");
    let order = ["firewall", "passthrough", "gateway"];
    let step = |from, to| rule(&[("app", from)], &[("app", to)]);
    floating.api.apply(with_matches(vec![
        step("firewall", "passthrough"),
        step("passthrough", "gateway"),
        rule(&[], &[("app", "firewall")]),
    ]))?;
    for scene in [&east, &west] {
        sees(scene, "floating", 0)?;
    }
    let firewall = east.route_in(NetNs::new("firewall")?, |url| {
        floating_one("firewall", url, &[("app", "firewall"), passes])
    })?;
    let passthrough = west.route_in(NetNs::new("passthrough")?, |url| {
        floating_one("passthrough", url, &[("app", "passthrough"), passes])
    })?;
    let gateway = west.add_server("gateway", |url| {
        floating_one("gateway", url, &[("app", "gateway")])
    })?;
    sees(&east, "floating", 3)?;
    let client = NetNs::new("nsc")?;
    let wire = east.connect(&client, "nsc", FLOATING)?;
    ping_both_ways(&client, &gateway.netns, &wire)?;
    let watched = Watched::start(&client, &wire)?;
    let names = order.map(|name| format!("{name}@floating"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_path(&east.api, &wire, &watched, &[&firewall, &passthrough], &names)?;
    watched.finish()?.assert_nothing()?;
    let all = [client, firewall.netns, passthrough.netns, gateway.netns];
    Scene::finish_all([floating, east, west], all)
}

/// An endpoint is registered in its own domain first, and in the floating one later: each way leads to it, and to its own
/// clients nothing happens.
#[test]
fn nse_moved_from_interdomain_to_floating() -> Result<()> {
    let mut floating = domain("floating", &["--peer", "east", "--peer", "west"])?;
    floating.node.kill_agent()?;
    floating.api.apply(service(SERVICE, "IP"))?;
    let known = peer("floating", &floating);
    let west = domain("west", &["--peer", "east", "--peer", &known, "--prefix", PREFIX])?;
    let east = domain("east", &["--peer", &known, "--peer", &peer("west", &west)])?;
    let [server] = west.serve(service(SERVICE, "IP"), ["nse"])?;
    let (client, other) = (NetNs::new("nsc")?, NetNs::new("other")?);
    sees(&east, "west", 1)?;
    let wire = east.connect(&client, "nsc", FAR)?;
    let watched = Watched::start(&client, &wire)?;
    let moved = west
        .api
        .register(endpoint("nse@floating", FLOATING, &netns_url(&server.netns)))?;
    sees(&east, "floating", 1)?;
    let second = east.connect(&other, "other", FLOATING)?;
    ping_both_ways(&other, &server.netns, &second)?;
    for address in second.client.iter().chain(&second.endpoint) {
        ensure!(
            !wire.client.contains(address) && !wire.endpoint.contains(address),
            "{address} twice"
        );
    }
    watched.finish()?.assert_nothing()?;
    west.api.unregister(server.registered.clone())?;
    eventually(LIMIT, "nobody to answer at west's name", || {
        Ok(!answers(&client, &wire)?)
    })?;
    ping_both_ways(&other, &server.netns, &second)?;
    west.api.unregister(moved)?;
    Scene::finish_all([floating, west, east], [client, other, server.netns])
}
