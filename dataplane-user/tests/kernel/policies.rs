//! Packets go by the tables of their policies, and the rules go with the wires.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use dataplane_user::{
    desired::{End, Policy, PortRange, Route, Wire},
    loader::Backend,
};
use tieline_lab::{Net, NetNs, RouteQuery, Rule};

use crate::world::{World, all_well, client_ip, client_ip6, endpoint_ip, endpoint_ip6, remove, upsert, wire};

const MAIN: u32 = 254;

fn via(prefix: &str, next_hop: Option<IpAddr>) -> Route {
    Route {
        prefix: prefix.parse().expect("a prefix"),
        next_hop,
    }
}

/// As in NSM's policy-based routing, with the far end of wire `n` as the gateway.
fn policies(n: u8) -> Vec<Policy> {
    let port = |port| -> Option<PortRange> { Some((port, port)) };
    let (v4, v6) = (Some(endpoint_ip(n)), Some(endpoint_ip6(n)));
    let all = |v6| Policy {
        v6,
        ..Policy::default()
    };
    vec![
        Policy {
            from: Some(client_ip(n).into()),
            protocol: Some(6),
            dst_ports: port(6666),
            routes: vec![via("0.0.0.0/0", v4)],
            ..all(false)
        },
        Policy {
            protocol: Some(17),
            dst_ports: Some((5000, 5999)),
            routes: vec![via("192.0.2.0/25", None), via("198.51.100.0/24", v4)],
            ..all(false)
        },
        Policy {
            protocol: Some(6),
            src_ports: port(7777),
            routes: vec![via("::/0", v6)],
            ..all(true)
        },
        Policy {
            from: Some(client_ip6(n).into()),
            protocol: Some(58),
            routes: vec![via("2001:db8::/32", v6)],
            ..all(true)
        },
    ]
}

fn with(mut wire: Wire, policies: Vec<Policy>) -> Wire {
    if let End::Veth(end) = &mut wire.client {
        end.policies = policies;
    }
    wire
}

fn rules(netns: &NetNs) -> Result<Vec<Rule>> {
    netns.net(Net::rules)
}

/// The place of the policy that a packet goes by; `None`: by none, and nowhere else.
fn taken(netns: &NetNs, query: RouteQuery) -> Result<Option<u32>> {
    let rules = rules(netns)?;
    let Ok(taken) = netns.net(|net| net.route_of(&query)) else {
        return Ok(None);
    };
    ensure!(taken.table != MAIN, "{query:?} goes by the main table");
    let rule = rules.iter().find(|rule| rule.table == taken.table);
    Ok(rule.map(|rule| rule.priority - 0x7400))
}

#[test]
fn a_packet_goes_by_the_first_policy_that_is_about_it() -> Result<()> {
    let world = World::new("policy", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("policy-c")?, NetNs::new("policy-e")?);
    let mut agent = world.start()?;
    let wires = vec![with(wire(1, &client, &endpoint)?, policies(1))];
    all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
    ensure!(
        world.pass(&mut agent)?.operations == 0,
        "what was read is what was made"
    );
    let to = |text: &str| RouteQuery::to(text.parse().expect("an address"));
    let tcp = |to, src, dst| RouteQuery {
        protocol: Some(6),
        ports: [src, dst],
        ..to
    };
    let udp = |to, dst| RouteQuery {
        protocol: Some(17),
        ports: [None, Some(dst)],
        ..to
    };
    let from = |from: IpAddr, query| RouteQuery {
        from: Some(from),
        ..query
    };
    let far4 = to("203.0.113.9");
    let far6 = to("2001:db8::9");
    for (query, expected) in [
        (from(client_ip(1), tcp(far4, None, Some(6666))), Some(0)),
        (from(client_ip(1), tcp(far4, None, Some(6667))), None),
        (tcp(far4, None, Some(6666)), None),
        (udp(to("192.0.2.5"), 5000), Some(1)),
        (udp(to("198.51.100.5"), 5999), Some(1)),
        (udp(to("198.51.100.5"), 6000), None),
        (udp(to("192.0.2.200"), 5000), None),
        (tcp(far6, Some(7777), None), Some(2)),
        (tcp(far6, Some(7778), None), None),
        (
            from(
                client_ip6(1),
                RouteQuery {
                    protocol: Some(58),
                    ..far6
                },
            ),
            Some(3),
        ),
    ] {
        let found = taken(&client, query)?;
        ensure!(found == expected, "{query:?} goes by {found:?}");
    }
    let taken = client.net(|net| net.route_of(&udp(to("198.51.100.5"), 5500)))?;
    ensure!(taken.gateway == Some(endpoint_ip(1)), "{taken:?}");
    let plain = client.net(|net| net.route_of(&to(&endpoint_ip(1).to_string())))?;
    ensure!(plain.table == MAIN, "{plain:?}");
    ensure!(rules(&endpoint)?.is_empty());
    Ok(())
}

#[test]
fn policies_change_and_go_with_their_wire_alone() -> Result<()> {
    let world = World::new("polgo", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("polgo-c")?, NetNs::new("polgo-e")?);
    let mut agent = world.start()?;
    let one = with(wire(1, &client, &endpoint)?, policies(1));
    let second = Policy {
        from: Some(client_ip(2).into()),
        routes: vec![via("0.0.0.0/0", Some(endpoint_ip(2)))],
        ..Policy::default()
    };
    let two = with(wire(2, &client, &endpoint)?, vec![second]);
    all_well(&world.snapshot(&mut agent, 1, vec![one.clone(), two.clone()])?)?;
    ensure!(rules(&client)?.len() == 5);
    let fewer = with(one.clone(), policies(1).into_iter().skip(2).collect());
    all_well(&world.change(&mut agent, upsert(2, vec![fewer.clone()]))?)?;
    ensure!(rules(&client)?.len() == 3, "{:?}", rules(&client)?);
    ensure!(world.pass(&mut agent)?.operations == 0);
    all_well(&world.change(&mut agent, remove(3, &[&fewer.id]))?)?;
    world.settle(&mut agent)?;
    ensure!(
        rules(&client)?.len() == 1,
        "the other wire's: {:?}",
        rules(&client)?
    );
    let none = with(two.clone(), Vec::new());
    all_well(&world.change(&mut agent, upsert(4, vec![none]))?)?;
    ensure!(rules(&client)?.is_empty());
    all_well(&world.change(&mut agent, remove(5, &[&two.id]))?)?;
    Ok(())
}

#[test]
fn rules_that_a_dead_agent_left_are_taken_away_by_the_next() -> Result<()> {
    let world = World::new("polold", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("polold-c")?, NetNs::new("polold-e")?);
    let other = NetNs::new("polold-o")?;
    let mut first = world.start()?;
    let kept = with(wire(1, &client, &endpoint)?, policies(1));
    let gone = with(
        wire(2, &other, &endpoint)?,
        policies(2).into_iter().skip(2).collect(),
    );
    all_well(&world.snapshot(&mut first, 1, vec![kept.clone(), gone])?)?;
    ensure!(rules(&other)?.len() == 2);
    drop(first);
    let mut second = world.start()?;
    let outcome = world.snapshot(&mut second, 2, vec![kept.clone()])?;
    all_well(&outcome)?;
    world.settle(&mut second)?;
    world.pass(&mut second)?;
    ensure!(rules(&other)?.is_empty(), "{:?}", rules(&other)?);
    ensure!(rules(&client)?.len() == 4);
    ensure!(world.pass(&mut second)?.operations == 0);
    // An agent that adopted it knows where the policies of a wire are.
    all_well(&world.change(&mut second, remove(3, &[&kept.id]))?)?;
    world.settle(&mut second)?;
    ensure!(rules(&client)?.is_empty(), "{:?}", rules(&client)?);
    Ok(())
}
