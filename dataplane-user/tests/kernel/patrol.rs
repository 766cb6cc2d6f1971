//! Everything is compared a part at a time, with the same result as at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dataplane_common::limits::OWN_INDEX_BASE;
use dataplane_user::{desired::Wire, kernel::Kernel, loader::Backend, reconcile::Reconciler};
use tieline_lab::{NetNs, PingPlan, ping, within};

use crate::world::{World, all_well, endpoint_ip, remove, upsert, wire};

/// Goes through everything one wire at a time, and lets `between` happen after the first part. How many operations
/// that took.
fn patrol(
    world: &World,
    agent: &mut Reconciler<Kernel>,
    between: impl FnOnce(&mut Reconciler<Kernel>) -> Result<()>,
) -> Result<usize> {
    let (mut patrol, mut operations, mut between) = (agent.patrol(), 0, Some(between));
    while !patrol.is_done() {
        let part = world
            .agent
            .run(|| Ok(agent.go_on(&mut patrol, 1, Instant::now())?))?;
        all_well(&part)?;
        operations += part.operations;
        if let Some(between) = between.take() {
            between(agent)?;
        }
    }
    Ok(operations)
}

#[test]
fn what_differs_and_what_belongs_to_no_wire_is_found_in_parts() -> Result<()> {
    let world = World::new("patrol", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("patrol-c")?, NetNs::new("patrol-e")?);
    let wires = (1..=3)
        .map(|n| wire(n, &client, &endpoint))
        .collect::<Result<Vec<Wire>>>()?;
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
    ensure!(patrol(&world, &mut agent, |_| Ok(()))? == 0);
    let before = world.interfaces()?;

    let victim = agent.wires(Some(&[wires[1].id.clone()]))?[0]
        .client
        .host_interface
        .clone();
    world.agent.net(|net| {
        net.delete(victim.as_str())?;
        net.add_veth("tl0123456789ab", "other", None)?;
        net.set_alias("tl0123456789ab", "tieline/1/n1/nobody/c")
    })?;
    // A wire that comes while the others are being looked at is none of what belongs to nobody.
    let fourth = wire(4, &client, &endpoint)?;
    let repaired = patrol(&world, &mut agent, |agent| {
        all_well(&world.change(agent, upsert(2, vec![fourth.clone()]))?)
    })?;
    ensure!(repaired > 0);
    for n in 1..=4 {
        ping(&client, endpoint_ip(n), PingPlan::default())?.assert_all_answered()?;
    }
    let after = world.interfaces()?;
    ensure!(!after.contains_key("tl0123456789ab") && after.contains_key(victim.as_str()));
    ensure!(after.len() == before.len() + 2, "{after:?}");
    ensure!(patrol(&world, &mut agent, |_| Ok(()))? == 0);
    ensure!(world.pass(&mut agent)?.operations == 0);
    Ok(())
}

#[test]
fn an_index_that_went_with_its_namespace_is_given_out_again() -> Result<()> {
    let mut world = World::new("again", Backend::Auto)?;
    world.config.max_wires = 1;
    let mut agent = world.start()?;
    let mut generation = 1;
    world.snapshot(&mut agent, generation, Vec::new())?;
    for _ in 0..3 {
        let (client, endpoint) = (NetNs::new("again-c")?, NetNs::new("again-e")?);
        generation += 1;
        let wires = vec![wire(1, &client, &endpoint)?];
        let id = wires[0].id.clone();
        all_well(&world.change(&mut agent, upsert(generation, wires))?)?;
        let ends = agent.wires(Some(std::slice::from_ref(&id)))?[0]
            .ends()
            .map(|end| end.ifindex)
            .collect::<Vec<_>>();
        ensure!(
            ends.iter().flatten().all(|index| *index >= OWN_INDEX_BASE),
            "{ends:?}: the tables hold two ends, and none of others is there"
        );
        drop((client, endpoint));
        within(Duration::from_secs(10), "both host ends go with them", || {
            Ok((world.interfaces()?.len() == 1).then_some(()))
        })?;
        generation += 1;
        all_well(&world.change(&mut agent, remove(generation, &[&id]))?)?;
        patrol(&world, &mut agent, |_| Ok(()))?;
    }
    Ok(())
}
