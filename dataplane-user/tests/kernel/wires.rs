//! Wires carry packets, are repaired, and go without a trace.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use dataplane_user::{desired::End, loader::Backend};
use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping};

use crate::world::{
    World, all_well, client_ip, client_ip6, endpoint_ip, endpoint_ip6, endpoint_of, remove, upsert, wire,
};

pub(crate) const BACKENDS: [Backend; 3] = [Backend::Auto, Backend::Clsact, Backend::Tcx];

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

#[test]
fn workloads_ends_have_the_planned_addresses_alone_and_host_ends_have_no_ipv6() -> Result<()> {
    let world = World::new("quiet", Backend::Auto)?;
    let (client, endpoint) = (NetNs::new("quiet-c")?, NetNs::new("quiet-e")?);
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 1, vec![wire(1, &client, &endpoint)?])?)?;
    let addresses =
        |netns: &NetNs| netns.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/if_inet6")?));
    for (netns, interface, address) in [
        (&client, "nsm-1", client_ip6(1)),
        (&endpoint, "nse-1", endpoint_ip6(1)),
    ] {
        let found = addresses(netns)?;
        let own: Vec<&str> = found.lines().filter(|line| line.ends_with(interface)).collect();
        let IpAddr::V6(address) = address else {
            unreachable!()
        };
        ensure!(
            matches!(own[..], [one] if one.starts_with(&format!("{:032x}", u128::from(address)))),
            "{found}"
        );
    }
    // Up and with a carrier for long enough that the kernel would have begun.
    std::thread::sleep(Duration::from_millis(300));
    let routes = world
        .agent
        .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/ipv6_route")?))?;
    ensure!(!routes.contains(" tl"), "{routes}");
    ensure!(!addresses(&world.agent)?.contains(" tl"));
    Ok(())
}

/// Frames that an interface of a workload received.
fn received(netns: &NetNs, interface: &str) -> Result<u64> {
    let table = netns.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let fields: Vec<&str> = line
        .context("the interface is there")?
        .split_whitespace()
        .collect();
    Ok(fields.get(1).context("a count")?.parse()?)
}

#[test]
fn host_ends_never_send_a_frame_of_their_own() -> Result<()> {
    let world = World::new("silent", Backend::Auto)?;
    // A router's namespace: the kernel joins and reports multicast groups on ordinary interfaces.
    world.agent.sysctl("ipv6/conf/all/forwarding", "1")?;
    let (client, endpoint) = (NetNs::new("silent-c")?, NetNs::new("silent-e")?);
    let mut only_ip4 = wire(1, &client, &endpoint)?;
    let mut other = endpoint_of(&mut only_ip4).clone();
    for (netns, end) in [(&client, &mut only_ip4.client), (&endpoint, &mut other)] {
        netns.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        if let End::Veth(end) = end {
            end.addresses.retain(|address| address.addr().is_ipv4());
            end.routes.retain(|route| route.prefix.addr().is_ipv4());
            end.neighbours.retain(|entry| entry.ip.is_ipv4());
        }
    }
    *endpoint_of(&mut only_ip4) = other;
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 1, vec![only_ip4])?)?;
    std::thread::sleep(Duration::from_millis(2500));
    let heard = (received(&client, "nsm-1")?, received(&endpoint, "nse-1")?);
    ensure!(
        heard == (0, 0),
        "the workloads received {heard:?} frames that nobody sent"
    );
    ping(&client, endpoint_ip(1), quick())?.assert_all_answered()?;
    ensure!(received(&client, "nsm-1")? >= 10);
    Ok(())
}
