//! Host ends share one filter: it is repaired, replaced, kept apart from what others do, and gone at the end.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use dataplane_user::{datapath::Datapath as _, desired::IfName, loader::Backend};
use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping};

use crate::world::{World, all_well, endpoint_ip, name, remove, upsert, wire};

const SHARING: [Backend; 2] = [Backend::Auto, Backend::Clsact];

/// Runs `tc` in the agent's namespace and returns what it printed.
fn tc(world: &World, arguments: &str) -> Result<String> {
    world.agent.run(|| {
        let output = Command::new("tc").args(arguments.split_whitespace()).output()?;
        ensure!(
            output.status.success(),
            "tc {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    })
}

/// The number of the block that an interface is in.
fn block_of(world: &World, interface: &str) -> Result<u32> {
    let shown = tc(world, &format!("qdisc show dev {interface}"))?;
    let number = shown
        .split("ingress_block ")
        .nth(1)
        .with_context(|| format!("{interface} is in no block: {shown}"))?;
    Ok(number.split_whitespace().next().context("a number")?.parse()?)
}

fn host_ends(world: &World) -> Result<Vec<String>> {
    let names = world.interfaces()?.into_keys();
    Ok(names.filter(|name| name.starts_with("tl")).collect())
}

#[test]
fn all_host_ends_share_one_filter() -> Result<()> {
    for backend in SHARING {
        let world = World::new("share", backend)?;
        let (client, endpoint) = (NetNs::new("share-c")?, NetNs::new("share-e")?);
        let mut agent = world.start()?;
        all_well(&world.snapshot(
            &mut agent,
            1,
            vec![wire(1, &client, &endpoint)?, wire(2, &client, &endpoint)?],
        )?)?;
        let ends = host_ends(&world)?;
        let blocks = ends
            .iter()
            .map(|end| block_of(&world, end))
            .collect::<Result<Vec<_>>>()?;
        ensure!(
            ends.len() == 4 && blocks.iter().all(|block| *block == blocks[0]),
            "{blocks:?}"
        );
        let filters = tc(&world, &format!("filter show block {}", blocks[0]))?;
        ensure!(
            filters.matches("tieline/n1/wire_ingress").count() == 1,
            "{filters}"
        );
        // The block goes with its last member, and comes back with the next.
        all_well(&world.snapshot(&mut agent, 2, Vec::new())?)?;
        ensure!(
            tc(&world, &format!("filter show block {}", blocks[0])).map_or(true, |shown| shown.is_empty())
        );
        all_well(&world.change(&mut agent, upsert(3, vec![wire(1, &client, &endpoint)?]))?)?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
    }
    Ok(())
}

#[test]
fn a_block_that_somebody_else_uses_is_left_alone() -> Result<()> {
    for backend in SHARING {
        let world = World::new("alone", backend)?;
        let (client, endpoint) = (NetNs::new("alone-c")?, NetNs::new("alone-e")?);
        world.agent.net(|net| net.add_veth("other0", "other1", None))?;
        let mut agent = world.start()?;
        all_well(&world.snapshot(&mut agent, 1, vec![wire(1, &client, &endpoint)?])?)?;
        let taken = block_of(&world, &host_ends(&world)?[0])?;
        all_well(&world.snapshot(&mut agent, 2, Vec::new())?)?;
        tc(
            &world,
            &format!("qdisc add dev other0 ingress_block {taken} ingress"),
        )?;

        let wires = vec![wire(1, &client, &endpoint)?];
        let id = wires[0].id.clone();
        all_well(&world.snapshot(&mut agent, 3, wires.clone())?)?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        ensure!(block_of(&world, &host_ends(&world)?[0])? != taken);
        ensure!(tc(&world, &format!("filter show block {taken}"))?.is_empty());
        drop(agent);
        let mut agent = world.start()?;
        ensure!(world.snapshot(&mut agent, 3, wires)?.operations == 0);
        all_well(&world.change(&mut agent, remove(4, &[&id]))?)?;
        ensure!(block_of(&world, "other0")? == taken);
    }
    Ok(())
}

#[test]
fn a_filter_or_a_membership_that_somebody_removed_comes_back() -> Result<()> {
    for backend in SHARING {
        let world = World::new("back", backend)?;
        let (client, endpoint) = (NetNs::new("back-c")?, NetNs::new("back-e")?);
        let mut agent = world.start()?;
        all_well(&world.snapshot(&mut agent, 1, vec![wire(1, &client, &endpoint)?])?)?;
        let end = host_ends(&world)?[0].clone();
        let block = block_of(&world, &end)?;
        for damage in [
            format!("filter del block {block}"),
            format!("qdisc del dev {end} ingress"),
        ] {
            tc(&world, &damage)?;
            ensure!(
                ping(&client, endpoint_ip(1), PingPlan::default())
                    .map_or(true, |report| report.received == 0)
            );
            all_well(&world.pass(&mut agent)?)?;
            ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
            ensure!(world.pass(&mut agent)?.operations == 0, "after {damage}");
            ensure!(block_of(&world, &end)? == block, "after {damage}");
        }
    }
    Ok(())
}

#[test]
fn a_block_without_its_filter_is_still_ours_while_only_our_ends_are_in_it() -> Result<()> {
    for backend in SHARING {
        let world = World::new("still", backend)?;
        let (client, endpoint) = (NetNs::new("still-c")?, NetNs::new("still-e")?);
        let mut agent = world.start()?;
        let wires = vec![wire(1, &client, &endpoint)?, wire(2, &client, &endpoint)?];
        all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
        let ends = host_ends(&world)?;
        let block = block_of(&world, &ends[0])?;
        tc(&world, &format!("filter del block {block}"))?;
        // Only the ends of this wire are looked at; those of the other are in the block too.
        all_well(&world.change(&mut agent, upsert(2, vec![wires[0].clone()]))?)?;
        for n in [1, 2] {
            ping(&client, endpoint_ip(n), PingPlan::default())?.assert_all_answered()?;
        }
        for end in &ends {
            ensure!(block_of(&world, end)? == block, "{end}");
        }
    }
    Ok(())
}

#[test]
fn a_qdisc_that_somebody_hung_at_a_host_end_stays_and_the_wire_works() -> Result<()> {
    for backend in SHARING {
        let world = World::new("hung", backend)?;
        let (client, endpoint) = (NetNs::new("hung-c")?, NetNs::new("hung-e")?);
        let watch = || Watch {
            netns: vec![&world.agent, &client, &endpoint],
            dirs: vec![world.bpffs.path().to_owned()],
        };
        let mut agent = world.start()?;
        let before = Leftovers::snapshot(&watch())?;
        let wires = vec![wire(1, &client, &endpoint)?];
        all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
        let end = host_ends(&world)?[0].clone();
        tc(&world, &format!("qdisc del dev {end} ingress"))?;
        tc(&world, &format!("qdisc add dev {end} clsact"))?;
        all_well(&world.pass(&mut agent)?)?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        ensure!(tc(&world, &format!("qdisc show dev {end}"))?.contains("clsact"));
        drop(agent);
        let mut agent = world.start()?;
        ensure!(world.snapshot(&mut agent, 1, wires.clone())?.operations == 0);
        all_well(&world.change(&mut agent, remove(2, &[&wires[0].id]))?)?;
        before.assert_same(&watch())?;
    }
    Ok(())
}

#[test]
fn busy_ends_get_tcx_links_without_loss_and_leave_nothing() -> Result<()> {
    let mut world = World::new("busy", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("busy-c")?, NetNs::new("busy-e")?);
    let mut agent = world.start()?;
    let has_tcx = agent.description().attach_backend == "block+tcx";
    let wires = vec![wire(1, &client, &endpoint)?];
    all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
    let traffic = PingPlan {
        count: 400,
        interval: std::time::Duration::from_millis(1),
        ..PingPlan::default()
    };
    let report = std::thread::scope(|scope| -> Result<_> {
        let pings = scope.spawn(|| ping(&client, endpoint_ip(1), traffic));
        let ends: Vec<(IfName, u32)> = world
            .interfaces()?
            .into_iter()
            .filter(|(end, _)| end.starts_with("tl"))
            .map(|(end, index)| (name(&end), index))
            .collect();
        let borrowed: Vec<_> = ends.iter().map(|(end, index)| (end, *index)).collect();
        for _ in 0..2 {
            let promoted = world.agent.run(|| Ok(agent.datapath_mut().promote(&borrowed)))?;
            ensure!(
                promoted.iter().all(|result| *result == Ok(has_tcx)),
                "{promoted:?}"
            );
        }
        // Both the block's filter and the links get the next program.
        drop(agent);
        world.config.event_sample = 1;
        let mut next = world.start()?;
        ensure!(world.snapshot(&mut next, 1, wires.clone())?.operations == 0);
        let mut events = next.datapath_mut().take_events().context("the ring is found")?;
        let report = pings.join().expect("the pings end")?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        ensure!(events.next_event().is_some(), "the old program is still at work");
        all_well(&world.change(&mut next, remove(2, &[&wires[0].id]))?)?;
        Ok(report)
    })?;
    report.assert_all_answered()?;
    ensure!(std::fs::read_dir(world.links())?.count() == 0);
    ensure!(host_ends(&world)?.is_empty());
    Ok(())
}
