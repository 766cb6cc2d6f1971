//! A wire whose flows part: each flow keeps its branch, whatever becomes of the rules.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dataplane_common::Reason;
use dataplane_user::{
    desired::{Branch, Circuit, Draining, Traffic, Wire},
    diff::split::LEARN_NS,
    kernel::Kernel,
    reconcile::Reconciler,
};
use tieline_lab::{Leftovers, NetNs, PingPlan, TcpPlan, TcpTransfer, UdpPlan, UdpStream, Watch, ping};

use crate::{
    circuits::{drops, gateway, through, while_traffic_passes},
    wires::BACKENDS,
    world::{World, all_well, endpoint_ip, remove, upsert, wire},
};

const BULK: TcpPlan = TcpPlan {
    bytes: None,
    rate: Some(20_000_000),
};

/// The wire's branches, and beside them TCP to `port` by `circuit`.
fn with_tcp(wire: &Wire, port: u16, circuit: Circuit) -> Wire {
    let mut wire = wire.clone();
    wire.branches.push(Branch {
        traffic: vec![Traffic {
            protocol: Some(6),
            ports: Some((port, port)),
            prefix: None,
        }],
        weight: 1,
        circuit,
    });
    wire
}

fn circuit_of(wire: &Wire) -> Result<Circuit> {
    Ok(wire.branches.first().context("a branch")?.circuit.clone())
}

/// What took each branch of the only wire.
fn taken(agent: &Reconciler<Kernel>) -> Result<Vec<u64>> {
    let view = agent.wires(None)?.remove(0);
    Ok(view.branches.iter().map(|branch| branch.taken.packets).collect())
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(endpoint_ip(1), port)
}

#[test]
fn tcp_to_a_port_goes_straight_and_the_rest_through_a_function_and_flows_stay() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("branch", backend)?;
        let (client, endpoint, fw) = (NetNs::new("br-c")?, NetNs::new("br-e")?, NetNs::new("br-f")?);
        let watch = || Watch {
            netns: vec![&world.agent, &client, &endpoint, &fw],
            ..Watch::default()
        };
        let mut agent = world.start()?;
        let before = Leftovers::snapshot(&watch())?;
        let direct = wire(1, &client, &endpoint)?;
        let routed = through(&direct, vec![gateway(&fw, &direct)?])?;
        all_well(&world.snapshot(&mut agent, 1, vec![routed.clone()])?)?;
        let old = TcpTransfer::start(&client, &endpoint, at(80), BULK)?;
        let udp = UdpStream::start(&client, &endpoint, at(53), UdpPlan::default())?;
        while_traffic_passes();

        // A rule comes: what is there stays on its way, what is new follows the rule.
        let split = with_tcp(&routed, 80, circuit_of(&direct)?);
        all_well(&world.change(&mut agent, upsert(2, vec![split]))?)?;
        while_traffic_passes();
        let counts = taken(&agent)?;
        ensure!(counts[0] > 100 && counts[1] == 0, "old flows moved: {counts:?}");
        let new = TcpTransfer::start(&client, &endpoint, at(80), BULK)?;
        while_traffic_passes();
        let counts = taken(&agent)?;
        ensure!(
            counts[1] > 100,
            "the new flow did not follow the rule: {counts:?}"
        );

        // The rule is about another port: both flows stay where they are.
        let other = with_tcp(&routed, 443, circuit_of(&direct)?);
        all_well(&world.change(&mut agent, upsert(3, vec![other]))?)?;
        let (before_it, had) = (taken(&agent)?, (old.received(), new.received()));
        while_traffic_passes();
        let after = taken(&agent)?;
        ensure!(
            after
                .iter()
                .zip(&before_it)
                .all(|(after, before)| after > &(before + 100)),
            "a flow moved: {before_it:?} {after:?}"
        );
        ensure!(old.received() > had.0 && new.received() > had.1);
        let third = TcpTransfer::start(
            &client,
            &endpoint,
            at(80),
            TcpPlan {
                bytes: Some(100_000),
                ..BULK
            },
        )?;
        third.finish()?;
        ensure!(world.pass(&mut agent)?.operations == 0);

        // Straight for everybody: nothing is lost.
        all_well(&world.change(&mut agent, upsert(4, vec![direct.clone()]))?)?;
        while_traffic_passes();
        for transfer in [old.finish()?, new.finish()?] {
            ensure!(
                transfer.longest_stall < Duration::from_millis(150),
                "{transfer:?}"
            );
        }
        udp.finish()?.assert_perfect()?;
        ensure!(drops(&agent, Reason::Unpinned)? == 0);
        world.settle(&mut agent)?;
        ensure!(world.pass(&mut agent)?.operations == 0);
        all_well(&world.change(&mut agent, remove(5, &[&direct.id]))?)?;
        before.assert_same(&watch())?;
    }
    Ok(())
}

#[test]
fn while_an_endpoint_drains_its_flows_end_there_and_new_ones_begin_elsewhere() -> Result<()> {
    let world = World::new("drain", BACKENDS[0])?;
    let (client, old, new) = (NetNs::new("dr-c")?, NetNs::new("dr-o")?, NetNs::new("dr-n")?);
    let mut agent = world.start()?;
    let before = wire(1, &client, &old)?;
    all_well(&world.snapshot(&mut agent, 1, vec![before.clone()])?)?;
    let there = TcpTransfer::start(&client, &old, at(80), BULK)?;
    let udp = UdpStream::start(&client, &old, at(53), UdpPlan::default())?;
    while_traffic_passes();

    let mut moved = wire(1, &client, &new)?;
    moved.draining.push(Draining {
        circuit: circuit_of(&before)?,
        branch: 0,
    });
    all_well(&world.change(&mut agent, upsert(2, vec![moved.clone()]))?)?;
    // The new endpoint listens at the same address; only there a connection can be made.
    let begun = TcpTransfer::start(&client, &new, at(81), BULK)?;
    while_traffic_passes();
    ensure!(
        world
            .agent
            .run(|| Ok(agent.end_drains(Instant::now())?))?
            .news
            .drained
            .is_empty()
    );
    ensure!(world.pass(&mut agent)?.operations == 0);
    for transfer in [there.finish()?, begun.finish()?] {
        ensure!(
            transfer.longest_stall < Duration::from_millis(150),
            "{transfer:?}"
        );
    }
    udp.finish()?.assert_in_order()?;
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    Ok(())
}

#[test]
fn an_endpoint_has_drained_when_its_last_connection_has_ended() -> Result<()> {
    let world = World::new("drained", BACKENDS[0])?;
    let (client, old, new) = (NetNs::new("dd-c")?, NetNs::new("dd-o")?, NetNs::new("dd-n")?);
    let mut agent = world.start()?;
    let before = wire(1, &client, &old)?;
    all_well(&world.snapshot(&mut agent, 1, vec![before.clone()])?)?;
    let there = TcpTransfer::start(&client, &old, at(80), BULK)?;
    let mut moved = wire(1, &client, &new)?;
    moved.draining.push(Draining {
        circuit: circuit_of(&before)?,
        branch: 0,
    });
    all_well(&world.change(&mut agent, upsert(2, vec![moved.clone()]))?)?;
    let look = |agent: &mut Reconciler<Kernel>| world.agent.run(|| Ok(agent.end_drains(Instant::now())?));
    // Longer than new flows are learnt: the connection holds it.
    std::thread::sleep(Duration::from_nanos(LEARN_NS) + Duration::from_millis(300));
    ensure!(look(&mut agent)?.news.drained.is_empty(), "a connection is open");
    there.finish()?;
    let ended = look(&mut agent)?;
    all_well(&ended)?;
    ensure!(
        ended.news.drained == [(moved.id.clone(), "nse-1".to_owned())],
        "{ended:?}"
    );
    ensure!(!agent.is_draining() || look(&mut agent)?.news.drained.is_empty());
    world.settle(&mut agent)?;
    ensure!(old.net(|net| net.find("nse-1"))?.is_none());
    ensure!(world.pass(&mut agent)?.operations == 0);
    // The plan still names it: that is no news, but control may not have heard.
    let again = world.snapshot(&mut agent, 2, vec![moved.clone()])?;
    ensure!(again.operations == 0, "{again:?}");
    ensure!(
        again.news.drained == [(moved.id, "nse-1".to_owned())],
        "{again:?}"
    );
    ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()
}
