//! Where a wire leads changes under traffic, and the client never notices.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::Reason;
use dataplane_user::{
    desired::{Branch, Circuit, End, Hop, Policy, Route, VethEnd, Wire},
    kernel::Kernel,
    loader::Backend,
    reconcile::Reconciler,
};
use tieline_lab::{Leftovers, NetNs, PingPlan, TcpPlan, TcpTransfer, UdpPlan, UdpStream, Watch, ping};

use crate::{
    wires::BACKENDS,
    world::{World, all_well, client_ip, endpoint_ip, endpoint_ip6, name, netns_ref, remove, upsert, wire},
};

const PORT: u16 = 7000;

/// Long enough for some hundred datagrams.
pub(crate) fn while_traffic_passes() {
    std::thread::sleep(Duration::from_millis(300));
}

/// A gateway in `netns` on the way of `wire`: its inner end is as the endpoint's and its outer as the client's, but for
/// the addresses.
pub(crate) fn gateway(netns: &NetNs, wire: &Wire) -> Result<Hop> {
    let end = |model: &End, interface: &str| match model {
        End::Veth(model) => Ok(End::Veth(VethEnd {
            netns: netns_ref(netns)?,
            name: name(interface),
            addresses: Vec::new(),
            forwards: true,
            ..model.clone()
        })),
        End::Interface(_) => anyhow::bail!("the ends are the agent's"),
    };
    let circuit = &wire.branches.first().context("a plain wire")?.circuit;
    Ok(Hop {
        endpoint_name: "fw-1".to_owned(),
        inside: end(&circuit.endpoint, "nse-7")?,
        outside: end(&wire.client, "nsm-7")?,
    })
}

/// `wire` through `hops`.
pub(crate) fn through(wire: &Wire, hops: Vec<Hop>) -> Result<Wire> {
    let circuit = &wire.branches.first().context("a plain wire")?.circuit;
    Ok(Wire {
        branches: vec![Branch::all(Circuit {
            hops,
            ..circuit.clone()
        })],
        ..wire.clone()
    })
}

/// Frames that came in at the functions of the only wire, from the client's side on.
fn passed(agent: &Reconciler<Kernel>) -> Result<Vec<(u64, u64)>> {
    let view = agent.wires(None)?.remove(0);
    let hops = view.branches.first().map(|branch| branch.hops.clone());
    let counts = hops.unwrap_or_default();
    Ok(counts
        .iter()
        .map(|hop| (hop.inside.counters.packets, hop.outside.counters.packets))
        .collect())
}

pub(crate) fn drops(agent: &Reconciler<Kernel>, reason: Reason) -> Result<u64> {
    let reasons = agent.reasons()?;
    let found = reasons.into_iter().find(|(one, _)| *one == reason);
    Ok(found.context("every reason is counted")?.1)
}

#[test]
fn functions_come_and_go_and_the_endpoint_moves_without_a_packet_lost() -> Result<()> {
    for backend in BACKENDS {
        change_under_traffic(backend).with_context(|| format!("{backend:?}"))?;
    }
    Ok(())
}

fn change_under_traffic(backend: Backend) -> Result<()> {
    let world = World::new("circuit", backend)?;
    let [client, first, second, fw, other] =
        ["circ-c", "circ-e", "circ-m", "circ-f", "circ-g"].map(NetNs::new);
    let (client, first, second, fw, other) = (client?, first?, second?, fw?, other?);
    let watch = || Watch {
        netns: vec![&world.agent, &client, &first, &second, &fw, &other],
        ..Watch::default()
    };
    let mut agent = world.start()?;
    let before = Leftovers::snapshot(&watch())?;
    let plain = wire(1, &client, &first)?;
    all_well(&world.snapshot(&mut agent, 1, vec![plain.clone()])?)?;
    let seen = |agent: &Reconciler<Kernel>| -> Result<_> {
        let index = agent.wires(None)?[0].client.ifindex;
        let inside = client.net(|net| Ok((net.link("nsm-1")?.ifindex, net.addresses("nsm-1")?)))?;
        Ok((index, inside))
    };
    let client_has = seen(&agent)?;

    let to = SocketAddr::new(endpoint_ip(1), PORT);
    let udp = UdpStream::start(&client, &first, to, UdpPlan::default())?;
    let bulk = TcpPlan {
        bytes: None,
        rate: Some(20_000_000),
    };
    let tcp = TcpTransfer::start(&client, &first, to, bulk)?;
    let hop = |netns: &NetNs| gateway(netns, &plain);
    let circuits = [
        vec![hop(&fw)?],
        vec![hop(&other)?],
        vec![hop(&fw)?, hop(&other)?],
        vec![],
    ];
    for (hops, generation) in circuits.into_iter().zip(2..) {
        while_traffic_passes();
        let (count, had) = (hops.len(), tcp.received());
        all_well(&world.change(&mut agent, upsert(generation, vec![through(&plain, hops)?]))?)?;
        while_traffic_passes();
        let counts = passed(&agent)?;
        ensure!(
            counts.len() == count
                && counts
                    .iter()
                    .all(|(inside, outside)| *inside > 100 && *outside > 100),
            "{counts:?}"
        );
        ensure!(tcp.received() > had, "the transfer stands still");
        ensure!(seen(&agent)? == client_has, "the client's end changed");
    }
    let transfer = tcp.finish()?;
    ensure!(
        transfer.longest_stall < Duration::from_millis(150),
        "{transfer:?}"
    );
    udp.finish()?.assert_in_order()?;

    let udp = UdpStream::start_to_any(&client, &[&first, &second], to, UdpPlan::default())?;
    while_traffic_passes();
    let moved = wire(1, &client, &second)?;
    all_well(&world.change(&mut agent, upsert(9, vec![moved.clone()]))?)?;
    while_traffic_passes();
    // In which order two sockets are read is the machine's affair.
    udp.finish()?.assert_perfect()?;
    ensure!(seen(&agent)? == client_has, "the client's end changed");

    world.settle(&mut agent)?;
    ensure!(world.pass(&mut agent)?.operations == 0);
    ensure!(first.net(|net| net.find("nse-1"))?.is_none());
    all_well(&world.change(&mut agent, remove(10, &[&moved.id]))?)?;
    before.assert_same(&watch())
}

#[test]
fn a_gateway_routes_the_wire_and_nothing_else_of_its_namespace() -> Result<()> {
    let world = World::new("gw6", BACKENDS[0])?;
    let (client, endpoint, fw) = (NetNs::new("gw6-c")?, NetNs::new("gw6-e")?, NetNs::new("gw6-f")?);
    fw.net(|net| net.add_veth("eth0", "eth1", None))?;
    let mut agent = world.start()?;
    let plain = wire(1, &client, &endpoint)?;
    let routed = through(&plain, vec![gateway(&fw, &plain)?])?;
    all_well(&world.snapshot(&mut agent, 1, vec![routed])?)?;
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    let force =
        fw.run(|| Ok(std::path::Path::new("/proc/sys/net/ipv6/conf/nse-7/force_forwarding").exists()))?;
    if force {
        ping(&client, endpoint_ip6(1), PingPlan::default())?.assert_all_answered()?;
    } else {
        println!("not tested: this kernel (before 6.17) forwards IPv6 for a whole namespace or not at all");
    }
    for (setting, value) in [
        ("ipv4/conf/nse-7/forwarding", "1"),
        ("ipv4/conf/nsm-7/forwarding", "1"),
        ("ipv4/conf/eth0/forwarding", "0"),
        ("ipv4/conf/all/forwarding", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv6/conf/eth0/forwarding", "0"),
    ] {
        let path = format!("/proc/sys/net/{setting}");
        let found = fw.run(|| Ok(std::fs::read_to_string(&path)?))?;
        ensure!(found.trim() == value, "{setting} is {found}");
    }
    ensure!(world.pass(&mut agent)?.operations == 0);
    // Somebody turns it off: the next pass turns it on again.
    fw.sysctl("ipv4/conf/nse-7/forwarding", "0")?;
    ensure!(world.pass(&mut agent)?.operations == 1);
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    Ok(())
}

/// `wire` with a gateway in `fw`, whose interfaces end in `n`, and a route to `prefix` behind it.
fn routed_to(prefix: &str, wire: &Wire, fw: &NetNs, n: u8) -> Result<Wire> {
    let route = Route {
        prefix: prefix.parse()?,
        next_hop: Some(endpoint_ip(n)),
    };
    let mut hop = gateway(fw, wire)?;
    let names = [name(&format!("nse-{n}")), name(&format!("nsm-{n}"))];
    for (end, name) in [&mut hop.inside, &mut hop.outside].into_iter().zip(&names) {
        if let End::Veth(end) = end {
            end.name = name.clone();
        }
    }
    if let End::Veth(outside) = &mut hop.outside {
        outside.policies = vec![Policy {
            input: Some(names[0].clone()),
            routes: vec![route.clone()],
            ..Policy::default()
        }];
    }
    let mut wire = through(wire, vec![hop])?;
    if let End::Veth(client) = &mut wire.client {
        client.routes.push(route);
    }
    Ok(wire)
}

fn rules(netns: &NetNs) -> Result<String> {
    let output = netns.run(|| Ok(std::process::Command::new("ip").args(["rule"]).output()?))?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn circuits_through_one_gateway_keep_apart_although_their_routes_are_the_same() -> Result<()> {
    let world = World::new("apart", BACKENDS[0])?;
    let fw = NetNs::new("apart-f")?;
    let [c1, c2, e1, e2] = ["apart-c1", "apart-c2", "apart-e1", "apart-e2"].map(NetNs::new);
    let (clients, endpoints) = ([c1?, c2?], [e1?, e2?]);
    let watch = || Watch {
        netns: vec![
            &world.agent,
            &fw,
            &clients[0],
            &clients[1],
            &endpoints[0],
            &endpoints[1],
        ],
        ..Watch::default()
    };
    let mut agent = world.start()?;
    let (before, rules_before) = (Leftovers::snapshot(&watch())?, rules(&fw)?);
    let mut wires = Vec::new();
    for ((n, client), endpoint) in (1..).zip(&clients).zip(&endpoints) {
        let plain = wire(n, client, endpoint)?;
        wires.push(routed_to("10.99.0.0/16", &plain, &fw, n)?);
    }
    all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
    // Behind each endpoint lies the same address; each client reaches that of its own.
    for endpoint in &endpoints {
        endpoint.net(|net| net.add_address("lo", "10.99.0.1/32".parse()?))?;
    }
    let far = "10.99.0.1".parse()?;
    for client in &clients {
        let begun = passed_all(&agent)?;
        ping(client, far, PingPlan::default())?.assert_all_answered()?;
        let grown: Vec<bool> = passed_all(&agent)?
            .iter()
            .zip(&begun)
            .map(|(now, was)| now > was)
            .collect();
        let own = client.name() == clients[0].name();
        ensure!(grown == [own, !own], "{grown:?}");
    }
    ensure!(world.pass(&mut agent)?.operations == 0);
    // An agent that starts finds them as they shall be.
    drop(agent);
    let mut agent = world.start()?;
    ensure!(world.snapshot(&mut agent, 1, wires.clone())?.operations == 0);
    let second = wire(2, &clients[1], &endpoints[1])?;
    all_well(&world.change(&mut agent, upsert(2, vec![second]))?)?;
    world.settle(&mut agent)?;
    ensure!(rules(&fw)?.matches("nse-").count() == 1, "{}", rules(&fw)?);
    all_well(&world.change(&mut agent, remove(3, &[&wires[0].id, &wires[1].id]))?)?;
    ensure!(rules(&fw)? == rules_before, "{}", rules(&fw)?);
    before.assert_same(&watch())
}

/// Frames that came in at the function of each wire.
fn passed_all(agent: &Reconciler<Kernel>) -> Result<Vec<u64>> {
    let of = |view: &dataplane_user::reconcile::WireView| {
        let hop = view.branches.first()?.hops.first()?;
        Some(hop.inside.counters.packets)
    };
    let views = agent.wires(None)?;
    views.iter().map(|view| of(view).context("a function")).collect()
}

#[test]
fn a_parked_wire_drops_with_its_reason_and_leads_somewhere_again_by_the_same_interface() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("park", backend)?;
        let (client, endpoint) = (NetNs::new("park-c")?, NetNs::new("park-e")?);
        let mut agent = world.start()?;
        let plain = wire(1, &client, &endpoint)?;
        all_well(&world.snapshot(&mut agent, 1, vec![plain.parked()])?)?;
        let index = agent.wires(None)?[0].client.ifindex;
        ensure!(!agent.wires(None)?[0].forwarding);
        let lost = ping(&client, endpoint_ip(1), PingPlan::default())?;
        ensure!(lost.received == 0, "{lost:?}");
        ensure!(drops(&agent, Reason::Parked)? >= u64::from(lost.sent));
        ensure!(world.pass(&mut agent)?.operations == 0);
        all_well(&world.change(&mut agent, upsert(2, vec![plain.clone()]))?)?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        ping(&endpoint, client_ip(1), PingPlan::default())?.assert_all_answered()?;

        // The endpoint dies: the client keeps what it has, and another endpoint serves it.
        endpoint.remove()?;
        let failed = world.pass(&mut agent)?;
        ensure!(failed.lost.len() == 1, "{failed:#?}");
        let before = drops(&agent, Reason::Parked)?;
        ping(&client, endpoint_ip(1), PingPlan::default())?;
        ensure!(drops(&agent, Reason::Parked)? > before);
        let next = NetNs::new("park-n")?;
        all_well(&world.change(&mut agent, upsert(3, vec![wire(1, &client, &next)?]))?)?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        ensure!(agent.wires(None)?[0].client.ifindex == index);
    }
    Ok(())
}
