//! Features: addresses and several services.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use tieline_lab::NetNs;
use tieline_proto::{connection::Connection, connectioncontext::ConnectionContext};
use tieline_tests_netns::{Mode, Scene, Watched, Wire, netns_url, request, service, with};

use super::{SERVICE, ping_both_ways, with_prefixes};

fn all_addresses<'a>(wires: impl IntoIterator<Item = &'a Wire>) -> Vec<IpAddr> {
    let both = wires
        .into_iter()
        .flat_map(|wire| wire.client.iter().chain(&wire.endpoint));
    both.copied().collect()
}

/// Addresses of the service's prefix that are in use elsewhere are never given out, not even when nothing else is left.
#[test]
fn exclude_prefixes() -> Result<()> {
    let scene = Scene::start("exclude", Mode::Whole)?;
    let mut offered = with_prefixes(SERVICE, &["172.16.1.200/29"]);
    offered.excluded_prefixes = vec!["172.16.1.201/32".to_owned(), "172.16.1.202/32".to_owned()];
    let [server] = scene.serve(offered, ["nse"])?;
    let client = NetNs::new("nsc")?;
    let one = scene.connect(&client, "one", SERVICE)?;
    let two = scene.connect(&client, "two", SERVICE)?;
    let given: BTreeSet<IpAddr> = all_addresses([&one, &two]).into_iter().collect();
    let rest: BTreeSet<IpAddr> = (203..=206).map(|last| [172, 16, 1, last].into()).collect();
    ensure!(given == rest, "{given:?}");
    ping_both_ways(&client, &server.netns, &one)?;
    ping_both_ways(&client, &server.netns, &two)?;
    let third = scene.api.request(request("three", SERVICE, &netns_url(&client)));
    ensure!(third.is_err(), "an excluded address was given out: {third:?}");
    scene.finish([client, server.netns])
}

/// One client, two services with the same prefix: the second wire's addresses are not the first one's, and both carry.
#[test]
fn exclude_prefixes_client() -> Result<()> {
    let scene = Scene::start("exclude", Mode::Whole)?;
    let prefix = ["172.16.1.96/27"];
    let [first] = scene.serve(with_prefixes("exclude-prefixes-client-1", &prefix), ["nse-1"])?;
    let [second] = scene.serve(with_prefixes("exclude-prefixes-client-2", &prefix), ["nse-2"])?;
    let client = NetNs::new("nsc")?;
    let one = scene.connect(&client, "nsc-1", "exclude-prefixes-client-1")?;
    let asked = request("nsc-2", "exclude-prefixes-client-2", &netns_url(&client));
    let without = |connection: &mut Connection| {
        let context = connection.context.get_or_insert_default();
        let ip = context.ip_context.get_or_insert_default();
        // What the client has already, and two addresses more.
        ip.excluded_prefixes = all_addresses([&one])
            .iter()
            .map(|address| format!("{address}/32"))
            .collect();
        ip.excluded_prefixes.push("172.16.1.98/31".to_owned());
    };
    let two = Wire::request(&scene.api, with(asked, without))?;
    let given = all_addresses([&one, &two]);
    ensure!(
        given.iter().collect::<BTreeSet<_>>().len() == 4,
        "given out twice: {given:?}"
    );
    ensure!(
        !given[2..]
            .iter()
            .any(|address| ["172.16.1.98", "172.16.1.99"].contains(&&*address.to_string())),
        "an excluded address was given out: {given:?}"
    );
    ping_both_ways(&client, &first.netns, &one)?;
    ping_both_ways(&client, &second.netns, &two)?;
    scene.finish([client, first.netns, second.netns])
}

/// One workload, two services, two endpoints: both wires carry at the same time, and closing one is nothing to the
/// other.
#[test]
fn multiple_services() -> Result<()> {
    let scene = Scene::start("multiple", Mode::Apart)?;
    let [first] = scene.serve(service("service-1", "IP"), ["nse-1"])?;
    let [second] = scene.serve(service("service-2", "ETHERNET"), ["nse-2"])?;
    let client = NetNs::new("nsc")?;
    let one = scene.connect(&client, "nsc-1", "service-1")?;
    let steady = Watched::start(&client, &one)?;
    let two = scene.connect(&client, "nsc-2", "service-2")?;
    ensure!(one.client_interface != two.client_interface, "{one:?} {two:?}");
    let watched = Watched::start(&client, &two)?;
    ping_both_ways(&client, &first.netns, &one)?;
    ping_both_ways(&client, &second.netns, &two)?;
    let seen = watched.finish()?;
    seen.assert_nothing()?;
    ensure!(
        seen.answered_by(first.responder.id()) == 0,
        "answered by the other service: {seen:?}"
    );
    scene.api.close(two.connection)?;
    steady.wait_for_answers("answers after the close of the other wire")?;
    steady.finish()?.assert_nothing()?;
    scene.finish([client, first.netns, second.netns])
}

/// A client gets back the addresses that it had, when it asks for them.
#[test]
fn recover_addresses() -> Result<()> {
    let scene = Scene::start("recover", Mode::Whole)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let client = NetNs::new("nsc")?;
    // Another wire has the first addresses, so that those asked for are not the next ones by chance.
    let other = scene.connect(&client, "other", SERVICE)?;
    let before = scene.connect(&client, "nsc", SERVICE)?;
    scene.api.close(before.connection.clone())?;
    scene.api.close(other.connection)?;
    let context: ConnectionContext = before
        .connection
        .context
        .clone()
        .context("an answer has a context")?;
    let asked = request("nsc", SERVICE, &netns_url(&client));
    let after = Wire::request(
        &scene.api,
        with(asked, |connection| connection.context = Some(context)),
    )?;
    ensure!(
        (&after.client, &after.endpoint) == (&before.client, &before.endpoint),
        "{before:?} {after:?}"
    );
    ping_both_ways(&client, &server.netns, &after)?;
    scene.finish([client, server.netns])
}

/// The service gets other prefixes: who is connected keeps its addresses, who connects has new ones and nothing of the
/// old.
#[test]
fn ipam_policies() -> Result<()> {
    let scene = Scene::start("ipam", Mode::Whole)?;
    let [server] = scene.serve(with_prefixes(SERVICE, &["172.16.1.0/29"]), ["nse"])?;
    let (stays, moves) = (NetNs::new("stays")?, NetNs::new("moves")?);
    let steady = scene.connect(&stays, "stays", SERVICE)?;
    let old = scene.connect(&moves, "moves", SERVICE)?;
    let watched = Watched::start(&stays, &steady)?;
    scene
        .api
        .apply(with_prefixes(SERVICE, &["172.17.0.0/24", "2001:db8::/120"]))?;
    scene.api.close(old.connection)?;
    let new = scene.connect(&moves, "moves", SERVICE)?;
    ensure!(new.client.len() == 2, "{new:?}");
    for line in moves.setup()? {
        ensure!(!line.contains("172.16.1."), "left of the old prefix: {line}");
    }
    ping_both_ways(&moves, &server.netns, &new)?;
    watched.finish()?.assert_nothing()?;
    scene.finish([stays, moves, server.netns])
}

/// What passed is in the metrics, for each end of the wire.
#[test]
fn observability() -> Result<()> {
    use std::io::{Read as _, Write as _};

    let scene = Scene::start_with("observe", Mode::Whole, &["--http", "127.0.0.1:9180"])?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let client = NetNs::new("nsc")?;
    let wire = scene.connect(&client, "observed", SERVICE)?;
    let watched = Watched::start(&client, &wire)?;
    let answered = watched.answered();
    watched.finish()?.assert_nothing()?;
    let metrics = scene.node.netns().run(|| {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9180")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let mut ends = 0;
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("tieline_wire_packets_total{"))
    {
        let (labels, value) = line.rsplit_once(' ').context("a value")?;
        ensure!(labels.contains("observed"), "of another wire: {line}");
        ensure!(
            value.parse::<u64>()? >= answered,
            "{line}, but {answered} were answered"
        );
        ends += 1;
    }
    ensure!(ends == 2, "{ends} ends of one wire: {metrics}");
    scene.finish([client, server.netns])
}
