//! What a wire brings besides addresses: routes, policies, prefixes and name servers.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use tieline_lab::{Net, NetNs, RouteQuery, RouteTaken, ping};
use tieline_proto::{
    connection::Connection,
    connectioncontext::{DnsConfig, ExtraPrefixRequest, IpContext, PolicyRoute, Route},
    tieline::admin::v1::NetworkService,
};
use tieline_tests_netns::{Mode, Scene, Wire, netns_url, request, service, with};

use super::{SERVICE, ping_both_ways};

fn ip_context(connection: &mut Connection) -> &mut IpContext {
    let context = connection.context.get_or_insert_default();
    context.ip_context.get_or_insert_default()
}

fn answered(wire: &Wire) -> IpContext {
    let context = wire.connection.context.clone().unwrap_or_default();
    context.ip_context.unwrap_or_default()
}

fn route(prefix: &str) -> Route {
    Route {
        prefix: prefix.to_owned(),
        next_hop: String::new(),
    }
}

fn way(netns: &NetNs, query: RouteQuery) -> Result<RouteTaken> {
    netns.net(|net| net.route_of(&query))
}

fn to(text: &str) -> Result<RouteQuery> {
    Ok(RouteQuery::to(text.parse()?))
}

fn from(query: RouteQuery, from: &str) -> Result<RouteQuery> {
    Ok(RouteQuery {
        from: Some(from.parse()?),
        ..query
    })
}

fn with_ports(query: RouteQuery, protocol: u8, src: Option<u16>, dst: Option<u16>) -> RouteQuery {
    RouteQuery {
        protocol: Some(protocol),
        ports: [src, dst],
        ..query
    }
}

fn udp(query: RouteQuery, dst: u16) -> RouteQuery {
    with_ports(query, 17, None, Some(dst))
}

fn policy(from: &str, proto: &str, dst_port: &str, src_port: &str, prefix: &str) -> PolicyRoute {
    PolicyRoute {
        from: from.to_owned(),
        proto: proto.to_owned(),
        dst_port: dst_port.to_owned(),
        src_port: src_port.to_owned(),
        routes: vec![route(prefix)],
    }
}

/// The policies of the reference: by source, protocol and port, of both families. Each packet goes by the table of the first
/// policy that is about it, and everything goes with the wire.
#[test]
fn policy_based_routing() -> Result<()> {
    let scene = Scene::start("policies", Mode::Whole)?;
    let [server] = scene.serve(service(SERVICE, "IP"), ["nse"])?;
    let client = NetNs::new("nsc")?;
    let before = client.setup()?;
    let plain = scene.connect(&client, "nsc", SERVICE)?;
    let (near4, near6) = (plain.client[0].to_string(), plain.client[1].to_string());
    let policies = vec![
        policy(&format!("{near4}/24"), "6", "6666", "", "172.16.2.0/24"),
        policy("", "17", "6666", "", "172.16.2.0/24"),
        policy("", "17", "6668", "", "172.16.3.0/24"),
        policy(&format!("{near6}/120"), "17", "5555", "", "2004::/120"),
        policy("", "17", "", "5556", "2005::/120"),
    ];
    let asked = with(request("nsc", SERVICE, &netns_url(&client)), |connection| {
        ip_context(connection).policies.clone_from(&policies);
    });
    let wire = Wire::request(&scene.api, asked)?;
    ensure!(answered(&wire).policies.len() == 5, "{wire:?}");
    ensure!(wire.client == plain.client, "the same wire");

    let taken = [
        from(with_ports(to("172.16.2.200")?, 6, None, Some(6666)), &near4)?,
        udp(to("172.16.2.200")?, 6666),
        udp(to("172.16.3.200")?, 6668),
        from(udp(to("2004::5")?, 5555), &near6)?,
        with_ports(to("2005::5")?, 17, Some(5556), None),
    ];
    let mut tables = Vec::new();
    for query in taken {
        let found = way(&client, query)?;
        let far = wire
            .endpoint
            .iter()
            .find(|far| far.is_ipv4() == query.to.is_ipv4());
        ensure!(found.gateway == far.copied(), "{query:?} goes by {found:?}");
        tables.push(found.table);
    }
    ensure!(
        tables.is_sorted() && tables.windows(2).all(|pair| pair[0] < pair[1]),
        "{tables:?}"
    );
    for query in [
        udp(to("172.16.3.200")?, 6666),
        with_ports(to("172.16.2.200")?, 6, None, Some(6666)),
        udp(to("2004::5")?, 5556),
    ] {
        ensure!(way(&client, query).is_err(), "{query:?} has a way");
    }
    ping_both_ways(&client, &server.netns, &wire)?;

    // Fewer policies, without another wire.
    let fewer = with(request("nsc", SERVICE, &netns_url(&client)), |connection| {
        ip_context(connection).policies = policies[3..].to_vec();
    });
    Wire::request(&scene.api, fewer)?;
    ensure!(client.net(Net::rules)?.len() == 2);
    ensure!(way(&client, udp(to("172.16.2.200")?, 6666)).is_err());
    scene.api.close(wire.connection)?;
    tieline_lab::eventually(std::time::Duration::from_secs(5), "everything to go", || {
        Ok(client.setup()? == before)
    })?;
    scene.finish([client, server.netns])
}

fn giving(name: &str, routes: &[&str], servers: &[&str]) -> NetworkService {
    let mut service = service(name, "IP");
    service.routes = routes.iter().map(ToString::to_string).collect();
    service.dns = vec![DnsConfig {
        dns_server_ips: servers.iter().map(ToString::to_string).collect(),
        search_domains: vec!["corp.example".to_owned()],
    }];
    service
}

/// What lies behind an endpoint is reached by the service's routes, and the client's own prefix from there.
#[test]
fn service_routes_and_extra_prefixes() -> Result<()> {
    let scene = Scene::start("behind", Mode::Whole)?;
    let [server] = scene.serve(giving(SERVICE, &["192.0.2.0/24"], &["192.0.2.53"]), ["nse"])?;
    let behind: IpNet = "192.0.2.9/32".parse()?;
    server.netns.net(|net| net.add_address("lo", behind))?;
    let client = NetNs::new("nsc")?;
    let asked = with(request("nsc", SERVICE, &netns_url(&client)), |connection| {
        ip_context(connection).extra_prefix_request = vec![ExtraPrefixRequest {
            prefix_len: 28,
            required_number: 1,
            requested_number: 1,
            addr_family: None,
        }];
    });
    let wire = Wire::request(&scene.api, asked)?;
    let context = answered(&wire);
    ensure!(
        context
            .src_routes
            .iter()
            .any(|route| route.prefix == "192.0.2.0/24"),
        "{context:?}"
    );
    ping(&client, behind.addr(), tieline_lab::PingPlan::default())?.assert_all_answered()?;

    let own: IpNet = context
        .extra_prefixes
        .first()
        .context("a prefix of its own")?
        .parse()?;
    let mine = own.hosts().nth(3).context("an address of it")?;
    client.net(|net| net.add_address("lo", IpNet::from(mine)))?;
    ping(&server.netns, mine, tieline_lab::PingPlan::default())?.assert_all_answered()?;
    ping_both_ways(&client, &server.netns, &wire)?;
    scene.finish([client, server.netns])
}

fn resolv_conf(netns: &NetNs) -> PathBuf {
    PathBuf::from("/etc/netns").join(netns.name()).join("resolv.conf")
}

/// A request whose namespace shall use the name servers.
fn resolving(id: &str, service: &str, netns: &NetNs) -> tieline_proto::networkservice::NetworkServiceRequest {
    with(request(id, service, &netns_url(netns)), |connection| {
        let context = connection.context.get_or_insert_default();
        let key = ("tieline.io/dns".to_owned(), "resolv.conf".to_owned());
        context.extra_context.extend([key]);
    })
}

/// The name servers of a client's services are its namespace's for as long as it is connected, and nobody else's.
#[test]
fn dns_context() -> Result<()> {
    let scene = Scene::start("resolve", Mode::Whole)?;
    let host = fs::read("/etc/resolv.conf").ok();
    let [first] = scene.serve(giving("gold-1", &[], &["10.0.0.53"]), ["nse-1"])?;
    let [second] = scene.serve(giving("gold-2", &[], &["10.0.0.54", "fd00::54"]), ["nse-2"])?;
    let (client, other) = (NetNs::new("nsc")?, NetNs::new("other")?);
    let path = resolv_conf(&client);
    let one = Wire::request(&scene.api, resolving("one", "gold-1", &client))?;
    let told = one
        .connection
        .context
        .clone()
        .unwrap_or_default()
        .dns_context
        .unwrap_or_default();
    ensure!(told.configs[0].dns_server_ips == ["10.0.0.53"], "{told:?}");
    let lines = |text: String| -> Vec<String> { text.lines().skip(1).map(str::to_owned).collect() };
    ensure!(lines(fs::read_to_string(&path)?) == ["search corp.example", "nameserver 10.0.0.53"]);
    let two = Wire::request(&scene.api, resolving("two", "gold-2", &client))?;
    ensure!(
        fs::read_to_string(&path)?
            .ends_with("nameserver 10.0.0.53\nnameserver 10.0.0.54\nnameserver fd00::54\n")
    );
    scene.connect(&other, "unasked", "gold-1")?;
    ensure!(!resolv_conf(&other).exists(), "nobody asked for it");

    scene.api.close(one.connection)?;
    ensure!(!fs::read_to_string(&path)?.contains("10.0.0.53"));
    scene.api.close(two.connection)?;
    ensure!(!path.exists() && !path.parent().is_some_and(std::path::Path::exists));
    ensure!(
        fs::read("/etc/resolv.conf").ok() == host,
        "the machine's own was touched"
    );
    scene.finish([client, other, first.netns, second.netns])
}

/// A file that an operator wrote is left alone, and the request that would need it is refused by its field.
#[test]
fn dns_context_beside_a_file_of_the_operators() -> Result<()> {
    let scene = Scene::start("resolve", Mode::Whole)?;
    let [server] = scene.serve(giving(SERVICE, &[], &["10.0.0.53"]), ["nse"])?;
    let client = NetNs::new("nsc")?;
    let path = resolv_conf(&client);
    let folder = path.parent().context("a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(&path, "nameserver 192.0.2.1\n")?;
    let refused = scene.api.request(resolving("nsc", SERVICE, &client));
    let left = fs::read_to_string(&path);
    fs::remove_dir_all(folder)?;
    let refused = refused.err().context("it was granted")?;
    ensure!(left? == "nameserver 192.0.2.1\n");
    ensure!(
        refused
            .message()
            .contains("context.extra_context[tieline.io/dns]")
            && refused.message().contains("resolv.conf"),
        "{refused:?}"
    );
    ensure!(scene.api.connections()?.is_empty());
    let _: IpAddr = scene.connect(&client, "nsc", SERVICE)?.client[0];
    scene.finish([client, server.netns])
}

/// Two services lead to the same prefix: the client's policies say which of its wires a packet takes, by its protocol and
/// port.
#[test]
fn mutually_aware_nses() -> Result<()> {
    let scene = Scene::start("aware", Mode::Whole)?;
    let [first] = scene.serve(service("mutually-aware-1", "IP"), ["nse-1"])?;
    let [second] = scene.serve(service("mutually-aware-2", "IP"), ["nse-2"])?;
    let client = NetNs::new("nsc")?;
    let connect = |service: &str, proto: &str, port: &str| {
        let asked = request(service, service, &netns_url(&client));
        Wire::request(
            &scene.api,
            with(asked, |connection| {
                ip_context(connection).policies = vec![policy("", proto, port, "", "172.16.2.0/24")];
            }),
        )
    };
    let one = connect("mutually-aware-1", "6", "6666")?;
    let two = connect("mutually-aware-2", "17", "5555")?;
    let far = || to("172.16.2.100");
    let tcp = way(&client, with_ports(far()?, 6, None, Some(6666)))?;
    let datagram = way(&client, udp(far()?, 5555))?;
    ensure!(tcp.gateway == Some(one.endpoint[0]), "{tcp:?} of {one:?}");
    ensure!(
        datagram.gateway == Some(two.endpoint[0]),
        "{datagram:?} of {two:?}"
    );
    ensure!(way(&client, far()?).is_err(), "what no policy is about has a way");
    ping_both_ways(&client, &first.netns, &one)?;
    ping_both_ways(&client, &second.netns, &two)?;
    // One of them goes: the other one's packets go on as before.
    scene.api.close(one.connection)?;
    let after = way(&client, udp(far()?, 5555))?;
    ensure!(after.gateway == Some(two.endpoint[0]), "{after:?}");
    ping_both_ways(&client, &second.netns, &two)?;
    scene.finish([client, first.netns, second.netns])
}
