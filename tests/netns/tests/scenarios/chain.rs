//! Functions between client and endpoint, as NSM composes them: by `matches` on the labels of each hop.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::{NetNs, PingPlan, ping, slow};
use tieline_proto::registry::Match;
use tieline_tests_netns::{Mode, Router, Scene, Server, Watched, Wire, assert_path};

use super::{
    SERVICE,
    discover::{labelled, rule, with_matches},
    ping_both_ways,
};

/// What says of an endpoint that packets are routed through it.
const GATEWAY: (&str, &str) = ("tieline.io/plumbing", "gateway");

/// Functions in their order, and the endpoint behind them.
struct Chain {
    scene: Scene,
    functions: Vec<Router>,
    server: Server,
}

impl Chain {
    /// Functions and `gateway`, each with `app` label of its name.
    fn new(label: &str, functions: &[&str], matches: Vec<Match>) -> Result<Self> {
        let scene = Scene::start(label, Mode::Whole)?;
        scene.api.apply(with_matches(matches))?;
        let add = |name: &&str| {
            scene.route_in(NetNs::new(name)?, |url| {
                labelled(name, url, &[("app", name), GATEWAY])
            })
        };
        Ok(Self {
            functions: functions.iter().map(add).collect::<Result<_>>()?,
            server: scene.add_server("gateway", |url| labelled("gateway", url, &[("app", "gateway")]))?,
            scene,
        })
    }

    /// Fails unless the wire's packets pass all functions in their order, and nothing is lost.
    fn passes_all(&self, client: &NetNs, wire: &Wire) -> Result<()> {
        let watched = Watched::start(client, wire)?;
        let routers: Vec<&Router> = self.functions.iter().collect();
        let names = routers.iter().map(|router| router.name()).chain(["gateway"]);
        assert_path(
            &self.scene.api,
            wire,
            &watched,
            &routers,
            &names.collect::<Vec<_>>(),
        )?;
        watched.finish()?.assert_nothing()
    }

    fn finish(self, clients: impl IntoIterator<Item = NetNs>) -> Result<()> {
        let functions = self.functions.into_iter().map(|function| function.netns);
        let all = functions.chain([self.server.netns]).chain(clients);
        self.scene.finish(all)
    }
}

/// `client` → the first of `order`, each → the next, the last → `gateway`.
fn in_order(order: &[&str]) -> Vec<Match> {
    let sources = order.iter().copied();
    let targets = order.iter().copied().skip(1).chain(["gateway"]);
    let mut matches: Vec<Match> = sources
        .zip(targets)
        .map(|(from, to)| rule(&[("app", from)], &[("app", to)]))
        .collect();
    matches.push(rule(&[], &[("app", order.first().copied().unwrap_or("gateway"))]));
    matches
}

/// Client → firewall → three functions → gateway. What the firewall lets pass arrives, what it blocks does not, and
/// either end reaches the other.
#[test]
fn nse_composition() -> Result<()> {
    let order = ["firewall", "passthrough-1", "passthrough-2", "passthrough-3"];
    let chain = Chain::new("compose", &order, in_order(&order))?;
    chain.functions[0].netns.net(|net| net.block_tcp_port(80))?;
    let client = NetNs::new("nsc")?;
    let wire = chain.scene.connect(&client, "nsc", SERVICE)?;
    chain.passes_all(&client, &wire)?;
    ping_both_ways(&client, &chain.server.netns, &wire)?;
    for far in &wire.endpoint {
        let reached = |port: u16| -> Result<bool> {
            let to = SocketAddr::new(*far, port);
            let listen = || TcpListener::bind(to).with_context(|| format!("listen at {to}"));
            let _listener = chain.server.netns.run(listen)?;
            let limit = slow(Duration::from_millis(300));
            client.run(|| Ok(TcpStream::connect_timeout(&to, limit).is_ok()))
        };
        ensure!(reached(8080)?, "port 8080 of {far} is not reached");
        ensure!(
            !reached(80)?,
            "port 80 of {far} is reached, although the firewall blocks it"
        );
    }
    chain.finish([client])
}

/// Through one function, and through two: each is a hop more, and nothing else.
#[test]
fn passthrough_local_use_case() -> Result<()> {
    for order in [&["one"][..], &["one", "two"]] {
        let chain = Chain::new("passing", order, in_order(order))?;
        let client = NetNs::new("nsc")?;
        let wire = chain.scene.connect(&client, "nsc", SERVICE)?;
        chain.passes_all(&client, &wire)?;
        ping_both_ways(&client, &chain.server.netns, &wire)?;
        // The client learns of none of them.
        let links = client.net(tieline_lab::Net::links)?;
        ensure!(links.len() == 2, "{links:?}");
        chain.finish([client])?;
    }
    Ok(())
}

/// Two matches of the same source: the first one decides, also behind a function.
#[test]
fn passthrough_same_source_selector() -> Result<()> {
    let mut matches = in_order(&["one", "two"]);
    matches.insert(1, rule(&[("app", "one")], &[("app", "gateway")]));
    let chain = Chain::new("samesource", &["one", "two"], matches)?;
    let client = NetNs::new("nsc")?;
    let wire = chain.scene.connect(&client, "nsc", SERVICE)?;
    chain.passes_all(&client, &wire)?;
    chain.finish([client])
}

/// A hop is chosen by several labels, and is a source by one of them.
#[test]
fn passthrough_multi_label() -> Result<()> {
    let first = rule(&[("zone", "a")], &[("app", "gateway")]);
    let rest = rule(&[], &[("app", "function"), ("zone", "a")]);
    let scene = Scene::start("multilabel", Mode::Whole)?;
    scene.api.apply(with_matches(vec![first, rest]))?;
    let mut routers = Vec::new();
    for zone in ["a", "b"] {
        let labels = [("app", "function"), ("zone", zone), GATEWAY];
        routers.push(scene.route_in(NetNs::new(zone)?, |url| labelled(zone, url, &labels))?);
    }
    let server = scene.add_server("gateway", |url| labelled("gateway", url, &[("app", "gateway")]))?;
    let client = NetNs::new("nsc")?;
    let wire = scene.connect(&client, "nsc", SERVICE)?;
    let watched = Watched::start(&client, &wire)?;
    let all: Vec<&Router> = routers.iter().collect();
    assert_path(&scene.api, &wire, &watched, &all, &["a", "gateway"])?;
    watched.finish()?.assert_nothing()?;
    let routers = routers.into_iter().map(|router| router.netns);
    scene.finish(routers.chain([client, server.netns]))
}

/// The service is edited, blue → green → blue: the client's packets go where it says, and none is lost. Its addresses
/// stay, where the reference gives it new ones.
#[test]
fn change_nse_dynamically() -> Result<()> {
    let scene = Scene::start("dynamic", Mode::Apart)?;
    let to = |color| with_matches(vec![rule(&[], &[("color", color)])]);
    scene.api.apply(to("blue"))?;
    let server = |color| scene.add_server(color, |url| labelled(color, url, &[("color", color)]));
    let (blue, green) = (server("blue")?, server("green")?);
    let client = NetNs::new("nsc")?;
    let wire = scene.connect(&client, "nsc", SERVICE)?;
    let watched = Watched::start(&client, &wire)?;
    for (color, server) in [("green", &green), ("blue", &blue), ("green", &green)] {
        scene.api.apply(to(color))?;
        watched
            .wait_for_answers_by(server.responder.id())
            .context(color)?;
        assert_path(&scene.api, &wire, &watched, &[], &[color])?;
    }
    watched.finish()?.assert_nothing()?;
    let once = PingPlan::default();
    for far in &wire.endpoint {
        ping(&client, *far, once)?.assert_all_answered()?;
    }
    scene.finish([client, blue.netns, green.netns])
}
