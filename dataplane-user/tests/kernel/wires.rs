//! Wires carry packets, are repaired, and go without a trace.

use std::time::Duration;

use anyhow::{Result, ensure};
use dataplane_user::loader::Backend;
use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping};

use crate::world::{World, all_well, client_ip, endpoint_ip, endpoint_ip6, remove, upsert, wire};

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Tcx, Backend::Clsact];

fn quick() -> PingPlan {
    PingPlan {
        count: 10,
        interval: Duration::from_millis(5),
        ..PingPlan::default()
    }
}

#[test]
fn a_wire_carries_both_protocols_both_ways_and_leaves_nothing() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("carry", backend)?;
        let (client, endpoint) = (NetNs::new("carry-c")?, NetNs::new("carry-e")?);
        let watch = || Watch {
            netns: vec![&world.agent, &client, &endpoint],
            ..Watch::default()
        };
        let before = Leftovers::snapshot(&watch())?;
        let mut reconciler = world.start()?;
        let wires = vec![wire(1, &client, &endpoint)?, wire(2, &client, &endpoint)?];
        let outcome = world.snapshot(&mut reconciler, 1, wires)?;
        all_well(&outcome)?;
        ensure!(outcome.generation == 1 && outcome.operations > 0);
        for n in [1, 2] {
            ping(&client, endpoint_ip(n), quick())?.assert_all_answered()?;
            ping(&client, endpoint_ip6(n), quick())?.assert_all_answered()?;
            ping(&endpoint, client_ip(n), quick())?.assert_all_answered()?;
        }
        let views = reconciler.wires(None)?;
        ensure!(
            views
                .iter()
                .all(|view| view.forwarding && view.client.counters.packets >= 30),
            "{views:#?}"
        );
        let again = world.pass(&mut reconciler)?;
        ensure!(again.operations == 0, "{again:?}");

        let ids: Vec<_> = views.iter().map(|view| &view.id).collect();
        all_well(&world.change(&mut reconciler, remove(2, &ids))?)?;
        before.assert_same(&watch())?;
        let mut datapath = reconciler.into_datapath();
        drop(datapath.take_events());
        datapath.remove_pins()?;
        ensure!(world.bpffs.pins()?.is_empty(), "{:?}", world.bpffs.pins()?);
    }
    Ok(())
}

#[test]
fn a_change_makes_only_its_own_wire() -> Result<()> {
    let world = World::new("change", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("change-c")?, NetNs::new("change-e")?);
    let mut reconciler = world.start()?;
    all_well(&world.snapshot(&mut reconciler, 1, vec![wire(1, &client, &endpoint)?])?)?;
    let before = world.interfaces()?;
    all_well(&world.change(&mut reconciler, upsert(2, vec![wire(2, &client, &endpoint)?]))?)?;
    let after = world.interfaces()?;
    ensure!(before.iter().all(|(name, index)| after.get(name) == Some(index)));
    for n in [1, 2] {
        ping(&client, endpoint_ip(n), quick())?.assert_all_answered()?;
    }
    Ok(())
}
