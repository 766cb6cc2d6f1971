//! What belongs to others stays as it is; what goes away by itself is noticed.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use dataplane_user::{
    LinkMonitor, LinkNotice,
    desired::{End, Payload},
    loader::Backend,
    outcome::FailureKind,
};
use tieline_lab::{Leftovers, NetNs, PingPlan, Watch, ping};

use crate::{
    wires::BACKENDS,
    world::{World, all_well, endpoint_ip, endpoint_of, existing, remove, upsert, wire},
};

/// A workload behind a pair that somebody else made, as the tap of a VM would be: `outside` in the agent's namespace.
fn foreign_workload(world: &World, outside: &str, n: u8) -> Result<NetNs> {
    let workload = NetNs::new("vm")?;
    world.agent.net(|net| {
        net.add_veth(outside, "eth0", Some(&workload))?;
        net.set_up(outside)
    })?;
    workload.net(|net| {
        net.set_up("eth0")?;
        net.add_address("eth0", format!("{}/24", endpoint_ip(n)).parse()?)
    })?;
    Ok(workload)
}

#[test]
fn an_existing_interface_serves_as_endpoint_and_is_left_as_it_was() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("tap", backend)?;
        let client = NetNs::new("tap-c")?;
        let vm = foreign_workload(&world, "tap.0", 1)?;
        let mut agent = world.start()?;
        let before = world.agent.net(|net| net.link("tap.0"))?;
        let mut one = wire(1, &client, &vm)?;
        // The VM answers ARP for itself.
        if let End::Veth(end) = &mut one.client {
            end.neighbours.clear();
        }
        *endpoint_of(&mut one) = existing("tap.0");
        let mut two = wire(2, &client, &vm)?;
        *endpoint_of(&mut two) = existing("tap.0");
        let mut three = wire(3, &client, &vm)?;
        *endpoint_of(&mut three) = existing("tap.9");
        let ids = [one.id.clone(), two.id.clone(), three.id.clone()];
        let outcome = world.snapshot(&mut agent, 1, vec![one, two, three])?;
        let kinds: Vec<_> = outcome
            .failures
            .iter()
            .map(|failure| (&failure.wire, failure.kind))
            .collect();
        ensure!(
            kinds
                == [
                    (&ids[1], FailureKind::NameTaken),
                    (&ids[2], FailureKind::InterfaceGone)
                ],
            "{outcome:#?}"
        );
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        ensure!(world.pass(&mut agent)?.operations == 0);

        // The refused wire goes without disturbing the one that has the interface.
        world.change(&mut agent, remove(2, &[&ids[1]]))?;
        ping(&client, endpoint_ip(1), PingPlan::default())?.assert_all_answered()?;
        all_well(&world.change(&mut agent, remove(3, &[&ids[0], &ids[2]]))?)?;
        ensure!(world.agent.net(|net| net.link("tap.0"))? == before);
        let links = world.links();
        ensure!(std::fs::read_dir(links)?.count() == 0);
    }
    Ok(())
}

#[test]
fn foreign_interfaces_programs_and_pins_are_not_touched() -> Result<()> {
    let world = World::new("foreign", Backend::Tcx)?;
    let (client, endpoint) = (NetNs::new("foreign-c")?, NetNs::new("foreign-e")?);
    let vm = foreign_workload(&world, "tap0", 1)?;
    // Interfaces that look a little like ours: one has our kind of name, one our kind of alias.
    world.agent.net(|net| {
        net.add_veth("tl0123456789ab", "tl0123456789ac", None)?;
        net.add_veth("other0", "other1", None)?;
        net.set_alias("other0", "tieline/1/n1/wire-1/c")
    })?;
    let foreign_pin = world.bpffs.path().join("tieline").join("somebody");
    std::fs::create_dir_all(&foreign_pin)?;
    let watch = || Watch {
        netns: vec![&world.agent, &client, &endpoint, &vm],
        dirs: Vec::new(),
    };
    let before = Leftovers::snapshot(&watch())?;

    let mut agent = world.start()?;
    let mut one = wire(1, &client, &vm)?;
    if let End::Veth(end) = &mut one.client {
        end.neighbours.clear();
    }
    *endpoint_of(&mut one) = existing("tap0");
    let two = wire(2, &client, &endpoint)?;
    let ids = [one.id.clone(), two.id.clone()];
    all_well(&world.snapshot(&mut agent, 1, vec![one.clone(), two.clone()])?)?;
    let foreign = world.agent.run(|| foreign_program("tap0"))?;
    for n in [1, 2] {
        ping(&client, endpoint_ip(n), PingPlan::default())?.assert_all_answered()?;
    }
    ensure!(world.agent.run(|| tcx_programs("tap0"))? == 2);
    drop(agent);
    let mut agent = world.start()?;
    ensure!(world.snapshot(&mut agent, 1, vec![one, two])?.operations == 0);
    all_well(&world.change(&mut agent, remove(2, &[&ids[0], &ids[1]]))?)?;
    ensure!(
        world.agent.run(|| tcx_programs("tap0"))? == 1,
        "the foreign program went"
    );
    before.assert_same(&watch())?;
    let alias = world.agent.net(|net| Ok(net.link("other0")?.alias))?;
    ensure!(alias == "tieline/1/n1/wire-1/c" && foreign_pin.is_dir());
    drop(foreign);
    Ok(())
}

/// Somebody else's tcx program on an interface; it goes when the value is dropped.
fn foreign_program(interface: &str) -> Result<aya::Ebpf> {
    let mut ebpf = aya::EbpfLoader::new().load(dataplane_user::OBJECT)?;
    let program: &mut SchedClassifier = ebpf
        .program_mut("wire_ingress")
        .context("the program")?
        .try_into()?;
    program.load()?;
    program.attach(interface, TcAttachType::Ingress)?;
    Ok(ebpf)
}

fn tcx_programs(interface: &str) -> Result<usize> {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress)?;
    Ok(programs.len())
}

#[test]
fn a_name_that_is_taken_is_refused_with_its_field_and_nothing_is_left() -> Result<()> {
    let world = World::new("taken", BACKENDS[0])?;
    let (client, endpoint) = (NetNs::new("taken-c")?, NetNs::new("taken-e")?);
    endpoint.net(|net| net.add_veth("nse-1", "nse-1b", None))?;
    let watch = || Watch {
        netns: vec![&world.agent, &client, &endpoint],
        ..Watch::default()
    };
    let before = Leftovers::snapshot(&watch())?;
    let mut agent = world.start()?;
    let outcome = world.snapshot(
        &mut agent,
        1,
        vec![wire(1, &client, &endpoint)?, wire(2, &client, &endpoint)?],
    )?;
    ensure!(outcome.failures.len() == 1, "{outcome:#?}");
    ensure!(outcome.failures[0].kind == FailureKind::NameTaken);
    let field = outcome.failures[0].field.clone();
    ensure!(
        field == Some(("mechanism.parameters[name]".to_owned(), "nse-1".to_owned())),
        "{field:?}"
    );
    ping(&client, endpoint_ip(2), PingPlan::default())?.assert_all_answered()?;
    ensure!(world.pass(&mut agent)?.operations == 0);
    // As part of a change, the name is found taken when the pair is made.
    all_well(&world.snapshot(&mut agent, 2, Vec::new())?)?;
    let outcome = world.change(&mut agent, upsert(3, vec![wire(1, &client, &endpoint)?]))?;
    ensure!(
        outcome.failures.len() == 1 && outcome.failures[0].field == field,
        "{outcome:#?}"
    );
    before.assert_same(&watch())
}

#[test]
fn a_host_name_that_is_not_ours_is_refused_and_left_alone() -> Result<()> {
    let world = World::new("host", BACKENDS[0])?;
    let (client, endpoint) = (NetNs::new("host-c")?, NetNs::new("host-e")?);
    let mut agent = world.start()?;
    let wires = vec![wire(1, &client, &endpoint)?];
    all_well(&world.snapshot(&mut agent, 1, wires.clone())?)?;
    let taken = agent.wires(None)?[0].client.host_interface.clone();
    all_well(&world.snapshot(&mut agent, 2, Vec::new())?)?;
    world
        .agent
        .net(|net| net.add_veth(taken.as_str(), "peer0", None))?;
    let before = world.agent.net(|net| net.link(taken.as_str()))?;
    let outcome = world.snapshot(&mut agent, 3, wires)?;
    ensure!(
        outcome.failures.len() == 1 && outcome.failures[0].message.contains(taken.as_str()),
        "{outcome:#?}"
    );
    ensure!(world.agent.net(|net| net.link(taken.as_str()))? == before);
    ensure!(world.interfaces()?.len() == 3, "{:?}", world.interfaces()?);
    Ok(())
}

#[test]
fn a_namespace_that_vanishes_takes_its_wire_down_and_nothing_else() -> Result<()> {
    for backend in BACKENDS {
        let world = World::new("gone", backend)?;
        let (client, endpoint, other) = (
            NetNs::new("gone-c")?,
            NetNs::new("gone-e")?,
            NetNs::new("gone-o")?,
        );
        let mut agent = world.start()?;
        let (tell, told) = mpsc::channel();
        let monitor = world
            .agent
            .run(|| Ok(LinkMonitor::spawn(move |notice| _ = tell.send(notice))?))?;
        let wires = vec![wire(1, &client, &endpoint)?, wire(2, &client, &other)?];
        let id = wires[0].id.clone();
        all_well(&world.snapshot(&mut agent, 1, wires)?)?;
        let before = world.interfaces()?.len();
        drop(endpoint);
        let LinkNotice::Gone(lost) = told.recv_timeout(Duration::from_secs(10)).context("no notice")? else {
            anyhow::bail!("overrun");
        };
        let outcome = world
            .agent
            .run(|| Ok(agent.interfaces_lost(&lost, Instant::now())?))?;
        ensure!(outcome.lost == [id.clone()], "{outcome:#?}");
        ensure!(outcome.failures[0].kind == FailureKind::NetnsGone);
        // What the client has stays for it; only tcx keeps a record of each host end.
        ensure!(world.interfaces()?.len() == before - 1);
        ensure!(client.net(|net| net.find("nsm-1"))?.is_some());
        ensure!(link_pins(&world)? == if backend == Backend::Tcx { 3 } else { 0 });
        ping(&client, endpoint_ip(2), PingPlan::default())?.assert_all_answered()?;
        for _ in 0..2 {
            let pass = world.pass(&mut agent)?;
            ensure!(
                pass.operations == 0 && pass.failures.len() == 1 && pass.lost.is_empty(),
                "{pass:#?}"
            );
        }
        let view = agent.wires(Some(&[id]))?;
        ensure!(!view[0].forwarding && view[0].failure.is_some());
        drop(monitor);
    }
    Ok(())
}

fn link_pins(world: &World) -> Result<usize> {
    Ok(std::fs::read_dir(world.links())?.count())
}

#[test]
fn changes_of_addresses_and_mtu_are_made_in_place() -> Result<()> {
    let world = World::new("place", BACKENDS[0])?;
    let (client, endpoint) = (NetNs::new("place-c")?, NetNs::new("place-e")?);
    let mut agent = world.start()?;
    let mut one = wire(1, &client, &endpoint)?;
    all_well(&world.snapshot(&mut agent, 1, vec![one.clone()])?)?;
    let before = world.interfaces()?;
    // The workload adds an address of its own, which stays.
    client.net(|net| net.add_address("nsm-1", "2001:db8::7/128".parse()?))?;
    one.mtu = 1350;
    let mut other = wire(9, &client, &endpoint)?;
    let (near, far) = (other.client.clone(), endpoint_of(&mut other).clone());
    let [mut client_end, mut endpoint_end] = [one.client.clone(), endpoint_of(&mut one).clone()];
    for (end, other) in [(&mut client_end, near), (&mut endpoint_end, far)] {
        if let (End::Veth(end), End::Veth(other)) = (end, other) {
            (end.addresses, end.routes, end.neighbours) = (other.addresses, other.routes, other.neighbours);
            end.mac = other.mac;
        }
    }
    one.client = client_end;
    *endpoint_of(&mut one) = endpoint_end;
    all_well(&world.change(&mut agent, upsert(2, vec![one.clone()]))?)?;
    ensure!(world.interfaces()? == before, "an interface was made anew");
    ping(&client, endpoint_ip(9), PingPlan::default())?.assert_all_answered()?;
    ensure!(ping(&client, endpoint_ip(1), PingPlan::default()).map_or(true, |report| report.received == 0));
    let addresses = client.net(|net| net.addresses("nsm-1"))?;
    ensure!(addresses.contains(&"2001:db8::7/128".parse()?), "{addresses:?}");
    ensure!(client.net(|net| Ok(net.link("nsm-1")?.mtu))? == 1350);
    ensure!(world.pass(&mut agent)?.operations == 0);
    // A payload change needs no new interface either.
    one.payload = Payload::Ethernet;
    all_well(&world.change(&mut agent, upsert(3, vec![one]))?)?;
    ping(&client, endpoint_ip(9), PingPlan::default())?.assert_all_answered()?;
    ensure!(world.interfaces()? == before);
    ensure!(world.pass(&mut agent)?.operations == 0);
    Ok(())
}

#[test]
fn an_end_moves_to_another_workload_without_touching_the_other_end() -> Result<()> {
    let world = World::new("move", BACKENDS[0])?;
    let (client, old, new) = (
        NetNs::new("move-c")?,
        NetNs::new("move-o")?,
        NetNs::new("move-n")?,
    );
    let mut agent = world.start()?;
    all_well(&world.snapshot(&mut agent, 1, vec![wire(1, &client, &old)?])?)?;
    let index = agent.wires(None)?[0].client.ifindex;
    let traffic = PingPlan {
        count: 300,
        interval: Duration::from_millis(1),
        ..PingPlan::default()
    };
    let report = std::thread::scope(|scope| -> Result<_> {
        let pings = scope.spawn(|| ping(&client, endpoint_ip(1), traffic));
        std::thread::sleep(Duration::from_millis(50));
        all_well(&world.change(&mut agent, upsert(2, vec![wire(1, &client, &new)?]))?)?;
        pings.join().expect("the pings end")
    })?;
    report.assert_all_answered()?;
    ensure!(agent.wires(None)?[0].client.ifindex == index);
    ensure!(
        old.net(|net| net.find("nse-1"))?.is_some(),
        "what is under way can still come"
    );
    world.settle(&mut agent)?;
    ensure!(old.net(|net| net.find("nse-1"))?.is_none());
    ensure!(world.pass(&mut agent)?.operations == 0);
    Ok(())
}
