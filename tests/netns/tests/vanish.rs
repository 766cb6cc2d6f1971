//! A workload's namespace vanishes: what belonged to it goes, everything else stays as it is.

use std::{net::SocketAddr, time::Duration};

use tieline_lab::{NetNs, PingPlan, UdpPlan, UdpStream, eventually, ping, slow};
use tieline_proto::connection::State;
use tieline_tests_netns::{Mode, Node, Wire, endpoint, netns_url, request, service, with_lifetime};

const SERVICE: &str = "gold-network";

#[test]
fn a_clients_namespace_vanishes_and_others_do_not_notice() {
    let node = Node::start_with("vanish", Mode::Whole, &["--resync-interval", "1s"]).unwrap();
    let api = node.api();
    let (stays, goes, gateway) = (
        NetNs::new("stays").unwrap(),
        NetNs::new("goes").unwrap(),
        NetNs::new("gateway").unwrap(),
    );
    api.apply(service(SERVICE, "IP")).unwrap();
    api.register(endpoint("gateway", SERVICE, &netns_url(&gateway)))
        .unwrap();
    let other = Wire::request(&api, request("stays", SERVICE, &netns_url(&stays))).unwrap();
    let lease = slow(Duration::from_secs(4));
    let short = with_lifetime(request("goes", SERVICE, &netns_url(&goes)), lease);
    let doomed = Wire::request(&api, short).unwrap();
    let to = SocketAddr::new(other.endpoint[0], 7000);
    let stream = UdpStream::start(&stays, &gateway, to, UdpPlan::default()).unwrap();
    let monitor = api.monitor().unwrap();
    monitor
        .wait_until("both connections", |all| all.len() == 2)
        .unwrap();
    goes.remove().unwrap();
    monitor
        .wait_until("the loss to be reported", |all| {
            all.get("goes")
                .is_none_or(|connection| connection.state() == State::Down)
        })
        .unwrap();
    monitor
        .wait_until("the lease to end", |all| {
            all.len() == 1 && all.contains_key("stays")
        })
        .unwrap();
    eventually(Duration::from_secs(5), "the endpoint's end to go", || {
        Ok(gateway.net(|net| net.find(&doomed.endpoint_interface))?.is_none())
    })
    .unwrap();
    node.kernel().unwrap().assert_whole(1).unwrap();
    stream.finish().unwrap().assert_perfect().unwrap();
    ping(&stays, other.endpoint[1], PingPlan::default())
        .unwrap()
        .assert_all_answered()
        .unwrap();
}

#[test]
fn an_endpoints_namespace_vanishes_and_its_service_goes_on_at_another() {
    let node = Node::start_with("vanish", Mode::Whole, &["--resync-interval", "1s"]).unwrap();
    let api = node.api();
    let (client, stays, goes) = (
        NetNs::new("client").unwrap(),
        NetNs::new("stays").unwrap(),
        NetNs::new("goes").unwrap(),
    );
    api.apply(service(SERVICE, "IP")).unwrap();
    api.register(endpoint("stays", SERVICE, &netns_url(&stays)))
        .unwrap();
    let steady = Wire::request(&api, request("steady", SERVICE, &netns_url(&client))).unwrap();
    api.register(endpoint("goes", SERVICE, &netns_url(&goes)))
        .unwrap();
    // Round robin reaches the second endpoint within two requests.
    let wires =
        ["one", "two"].map(|id| Wire::request(&api, request(id, SERVICE, &netns_url(&client))).unwrap());
    let lost = wires
        .iter()
        .filter(|wire| wire.connection.network_service_endpoint_name == "goes")
        .count();
    assert!(lost > 0, "no wire leads to the second endpoint: {wires:?}");
    let to = SocketAddr::new(steady.endpoint[0], 7000);
    let stream = UdpStream::start(&client, &stays, to, UdpPlan::default()).unwrap();
    goes.remove().unwrap();
    eventually(
        Duration::from_secs(5),
        "every wire to lead to the endpoint that stays",
        || {
            let wires = api.wires()?;
            let there = wires.iter().filter(|wire| {
                let mut branches = wire.branches.iter();
                wire.forwarding && branches.all(|branch| branch.endpoint_name == "stays")
            });
            Ok(there.count() == 3)
        },
    )
    .unwrap();
    for wire in &wires {
        ping(&client, wire.endpoint[0], PingPlan::default())
            .unwrap()
            .assert_all_answered()
            .unwrap();
    }
    for wire in wires {
        api.close(wire.connection).unwrap();
    }
    eventually(Duration::from_secs(5), "the closed wires to go", || {
        Ok(node.kernel()?.assert_whole(1).is_ok())
    })
    .unwrap();
    stream.finish().unwrap().assert_perfect().unwrap();
    ping(&client, steady.endpoint[0], PingPlan::default())
        .unwrap()
        .assert_all_answered()
        .unwrap();
}
